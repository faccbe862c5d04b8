"""Figures of a comparison: the course of every policy, and diversity against cost."""

import math
from textwrap import shorten

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter

from analysis.figures import COLOURS, HUMAN
from analysis.whatif.comparison import BASELINE, Comparison
from analysis.whatif.front import pareto
from analysis.whatif.levers import Target
from analysis.whatif.outcomes import OUTCOMES

GREY, FAINT = "#777777", "#BBBBBB"
BLUE, ORANGE, GREEN = COLOURS[:3]


def courses_figure(comparison: Comparison, curve: str = "diversity_kept") -> Figure:
    """Return the course of every policy beside the baseline's: a panel each, all on the same axes.

    Lines are means over replicates, bands their middle 90%; the collapse line is dashed.
    """
    columns = 3 if len(comparison.policies) > 4 else 2
    rows = math.ceil(len(comparison.policies) / columns)
    figure = Figure(figsize=(3.4 * columns, 0.9 + 2.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    wide = {
        name: rows.pivot(index="round", columns="replicate", values=curve)
        for name, rows in comparison.courses.groupby("policy")
    }
    for axes, policy in zip(grid.flat, comparison.policies, strict=False):
        _line(axes, wide[BASELINE], GREY, BASELINE)
        _line(axes, wide[policy], BLUE, "with the policy")
        if curve == "diversity_kept":
            axes.axhline(comparison.line, color=HUMAN, linestyle="--", linewidth=0.9)
        axes.set_title(shorten(policy, 40), loc="left", fontsize="medium")
        axes.spines[["top", "right"]].set_visible(False)
    used = len(comparison.policies)
    for axes in grid.flat[max(0, used - columns) : used]:  # the lowest panel of each column
        axes.tick_params(labelbottom=True)
    for axes in grid.flat[used:]:
        axes.set_axis_off()
    grid[0, 0].xaxis.set_major_locator(whole_numbers())
    if OUTCOMES[curve].percent:
        grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    grid[0, 0].set_ylim(bottom=0)
    grid[0, 0].legend(frameon=False, fontsize="small", loc="best")
    if curve == "diversity_kept":
        grid[0, 0].annotate(
            "collapse line",
            (1, comparison.line),
            xycoords=("axes fraction", "data"),
            ha="right",
            xytext=(0, 2),
            textcoords="offset points",
            fontsize="x-small",
        )
    figure.supxlabel("round", fontsize="medium")
    figure.supylabel(f"{OUTCOMES[curve].says}, share of human" if curve == "diversity_kept" else curve)
    return figure


def whole_numbers() -> MaxNLocator:
    """Return a locator for rounds, and for whatever else is counted."""
    return MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10])


def _line(axes: Axes, values: pd.DataFrame, colour: str, label: str) -> None:
    axes.plot(values.index, values.mean(axis=1), color=colour, linewidth=1.8, label=label)
    low, high = values.quantile(0.05, axis=1), values.quantile(0.95, axis=1)
    axes.fill_between(values.index, low, high, color=colour, alpha=0.25, linewidth=0)


def pareto_figure(comparison: Comparison, gain: str = "diversity_kept") -> Figure:
    """Return diversity kept against cost, with 95% intervals; policies that no other beats are filled.

    Up and to the left is better. The names stand at the right, joined to their points.
    """
    found = pareto(comparison, gain)
    figure = Figure(figsize=(8.6, 4.9))
    figure.subplots_adjust(left=0.09, right=0.99, bottom=0.11, top=0.97, wspace=0.02)
    axes, names = figure.subplots(1, 2, width_ratios=(3, 1.25))
    front = found[found["non_dominated"]].sort_values("cost")
    if len(front) > 1:
        # What the front reaches for each cost: a staircase, since policies cannot be mixed.
        axes.step(front["cost"], front["gain"], where="post", color=GREEN, linewidth=1.2, alpha=0.7, zorder=1)
    points = {}
    for policy in found.index:
        x, y = comparison.row(policy, "cost"), comparison.row(policy, gain)
        good = bool(found.loc[policy, "non_dominated"])
        colour = GREEN if good else GREY
        axes.errorbar(
            x["value"],
            y["value"],
            xerr=_reach(x),
            yerr=_reach(y),
            fmt="s" if policy == BASELINE else "o",
            color=colour,
            mfc=colour if good else "white",
            markersize=7,
            linewidth=1.2,
            capsize=2,
            zorder=3,
        )
        points[policy] = (float(x["value"]), float(y["value"]))
    axes.axhline(comparison.line, color=HUMAN, linestyle="--", linewidth=0.9)
    axes.annotate(
        "collapse line",
        (0, comparison.line),
        xycoords=("axes fraction", "data"),
        xytext=(3, 2),
        textcoords="offset points",
        fontsize="x-small",
    )
    axes.set_ylim(0, max(1.0, 1.05 * max(y for _, y in points.values())))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_xlabel(f"cost over {comparison.baseline.rounds} rounds (1 = the price of one human item)")
    axes.set_ylabel(f"{OUTCOMES[gain].says}, share of human")
    axes.spines[["top", "right"]].set_visible(False)
    _named(axes, names, points, set(front.index))
    return figure


def _reach(row: dict[str, float]) -> np.ndarray:
    low, value, high = (float(row[name]) for name in ("low", "value", "high"))
    return np.nan_to_num(np.array([[value - low], [high - value]]))


def _named(axes: Axes, names: Axes, points: dict[str, tuple[float, float]], front: set[str]) -> None:
    """Write the names at the right from top to bottom, each joined to its point by a thin line."""
    names.set_axis_off()
    names.set_ylim(axes.get_ylim())
    names.set_xlim(0, 1)
    order = sorted(points, key=lambda policy: points[policy][1])
    span = axes.get_ylim()[1] - axes.get_ylim()[0]
    gap, place = span / max(14, 1.1 * len(order)), -np.inf
    heights = []
    for policy in order:
        place = max(points[policy][1], place + gap)
        heights.append(place)
    over = max(0.0, heights[-1] - (axes.get_ylim()[1] - gap / 2))
    for k in range(len(order) - 1, -1, -1):  # pushed back below the top
        heights[k] = min(
            heights[k], axes.get_ylim()[1] - gap / 2 - (len(order) - 1 - k) * gap if over else np.inf
        )
    for policy, height in zip(order, heights, strict=True):
        colour = HUMAN if policy in front else GREY
        names.annotate(
            shorten(policy, 34),
            xy=points[policy],
            xycoords=axes.transData,
            xytext=(0.04, height),
            textcoords="data",
            va="center",
            fontsize="small",
            color=colour,
            weight="bold" if policy in front else "normal",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "shrinkB": 4},
        )


def sensitivity_figure(table: pd.DataFrame, index: str) -> Figure:
    """Return one index of `sensitivities`: a panel per uncertain input, a bar per policy."""
    rows = table[table["index"] == index]
    inputs, policies = list(dict.fromkeys(rows["uncertainty"])), list(dict.fromkeys(rows["policy"]))
    figure = Figure(figsize=(1.8 + 2.4 * len(inputs), 1.2 + 0.32 * len(policies)), layout="constrained")
    panels = figure.subplots(1, len(inputs), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, inputs, strict=True):
        part = rows[rows["uncertainty"] == name].set_index("policy").loc[policies]
        axes.barh(policies, part["value"], color=BLUE, alpha=0.75, height=0.6)
        axes.errorbar(
            part["value"],
            policies,
            xerr=part["half_width"],
            fmt="none",
            ecolor=HUMAN,
            elinewidth=1,
            capsize=2,
        )
        axes.set_xlim(0, 1.05)
        axes.set_xticks([0, 0.5, 1])
        axes.set_title(name, fontsize="medium", loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].invert_yaxis()
    figure.supxlabel(f"{index}: how much of the outcome hangs on it (95% interval)", fontsize="medium")
    return figure


def futures_figure(wide: pd.DataFrame, regret: pd.Series, target: Target) -> Figure:
    """Return every policy's outcome in every future, the target, and its largest regret."""
    order = list(wide.columns)
    figure = Figure(figsize=(8.6, 1.4 + 0.36 * len(order)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(2, 1))
    spread = np.random.default_rng(0).uniform(-0.25, 0.25, len(wide))  # so that equal points can be seen
    for place, policy in enumerate(order):
        met = target.met(wide[policy]).to_numpy()
        for chosen, colour in ((met, GREEN), (~met, ORANGE)):
            left.plot(
                wide[policy][chosen], place + spread[chosen], ".", color=colour, markersize=4, alpha=0.7
            )
    left.axvline(target.value, color=HUMAN, linestyle="--", linewidth=1)
    left.set_yticks(range(len(order)), order)
    left.invert_yaxis()
    right.barh(range(len(order)), regret[order], color=GREY, height=0.6)
    left.set_xlabel(f"{OUTCOMES[target.outcome].says}, a dot per future")
    right.set_xlabel("largest regret")
    if OUTCOMES[target.outcome].percent:
        for axes in (left, right):
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure
