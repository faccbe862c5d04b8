"""Figures that a stranger understands: axes named with units, human baseline drawn, uncertainty shown."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from analysis.statistics import by_replicate
from ecosystem import Trajectory, metrics

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito (2008)
HUMAN = "#222222"


def run_figure(runs: Mapping[str, Trajectory]) -> Figure:
    """Return the figure of one or several runs on the same human data.

    Four panels: effective number of outputs, mass of the top k, total variation from the human law, and
    the final distribution by rank, each with the human baseline. A run of up to 6 providers, shown by
    itself, gets one colour and one band per provider; otherwise every provider is a thin line, and the
    mean over providers a bold one with its band over replicates.

    Parameters
    ----------
    runs : mapping of str to Trajectory
        Label of each run; all with the same human law.
    """
    first = next(iter(runs.values()))
    k, human = first.scenario.mass_k, first.human
    figure = Figure(figsize=(11, 7.4), layout="constrained")
    (diversity, distance), (mass, ranks) = figure.subplots(2, 2)
    for axes in (diversity, distance, mass):
        axes.set_xlabel("round")
    _panel(diversity, runs, "hill_1", float(metrics.hill(human, 1)))
    diversity.set_yscale("log")
    diversity.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    diversity.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    diversity.set_ylabel("effective number of outputs\n(exp of entropy)")
    diversity.set_title("How diverse are the models?", loc="left")
    _panel(distance, runs, "total_variation", 0.0)
    distance.set_ylabel("total variation from human law\n(0 the same, 1 nothing in common)")
    distance.set_title("How far from human data?", loc="left")
    _panel(mass, runs, "top_k_mass", float(metrics.top_mass(human, k)))
    mass.set_ylabel(f"probability of the {k}\nmost probable outputs")
    mass.set_title("How much goes to the favourites?", loc="left")
    for axes in (distance, mass):
        axes.set_ylim(-0.02, 1.02)
    _rank_panel(ranks, runs)
    for axes in (diversity, distance, mass, ranks):
        axes.spines[["top", "right"]].set_visible(False)
    diversity.legend(frameon=False, fontsize="small")
    figure.suptitle(_title(runs), x=0.01, ha="left", fontsize="medium")
    figure.supxlabel(_note(runs), x=0.01, ha="left", fontsize="small", color="#555555")
    return figure


def _panel(axes: Axes, runs: Mapping[str, Trajectory], metric: str, baseline: float) -> None:
    axes.axhline(baseline, color=HUMAN, linestyle="--", linewidth=1.2, label="human data")
    for (label, run), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        providers = run.table["provider"].nunique()
        if len(runs) == 1 and providers <= len(COLOURS):
            for provider, rows in run.table.groupby("provider"):
                name = label if providers == 1 else f"provider {provider}"
                _line_and_band(axes, by_replicate(rows, metric), COLOURS[int(str(provider))], name)
            continue
        if providers > 1:
            each = run.table.pivot_table(index="round", columns="provider", values=metric, aggfunc="mean")
            alpha = max(0.06, min(0.5, 6 / providers))
            axes.plot(each.index, each.to_numpy(), color=colour, linewidth=0.7, alpha=alpha, zorder=1)
        _line_and_band(axes, by_replicate(run.table, metric), colour, label)


def _line_and_band(axes: Axes, values: Any, colour: str, label: str) -> None:
    """Draw the mean over replicates and, if there are several, their middle 90%."""
    axes.plot(values.index, values.mean(axis=1), color=colour, linewidth=2, label=label, zorder=3)
    if values.shape[1] > 1:
        low, high = values.quantile(0.05, axis=1), values.quantile(0.95, axis=1)
        axes.fill_between(values.index, low, high, color=colour, alpha=0.25, linewidth=0, zorder=2)


def _rank_panel(axes: Axes, runs: Mapping[str, Trajectory]) -> None:
    human = np.sort(next(iter(runs.values())).human)[::-1]
    rank = np.arange(1, human.size + 1)
    for (label, run), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        laws = np.sort(run.final.reshape(-1, rank.size), axis=1)[:, ::-1]
        low, middle, high = np.quantile(laws, [0.05, 0.5, 0.95], axis=0)
        axes.plot(rank, np.where(middle > 0, middle, np.nan), color=colour, linewidth=2, label=label)
        axes.fill_between(rank, np.where(low > 0, low, np.nan), high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(rank, np.where(human > 0, human, np.nan), color=HUMAN, linestyle="--", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank of the output in its model (1 = most probable)")
    axes.set_ylabel("probability after the last round")
    axes.set_title("What is left of the tail?", loc="left")


def _title(runs: Mapping[str, Trajectory]) -> str:
    scenario = next(iter(runs.values())).scenario

    def span(name: str, form: str) -> str:
        values = scenario.per_provider(name)
        low, high = format(values.min(), form), format(values.max(), form)
        return low if low == high else f"{low} to {high}"

    origin = scenario.human if isinstance(scenario.human, str) else "array"
    return (
        f"Generative models trained on each other's output: temperature {span('temperature', 'g')}, "
        f"{span('fresh_fraction', '.0%')} fresh human data, "
        f"{scenario.n_outputs:,} outputs ({origin}), schedule {scenario.schedule}"
    )


def _note(runs: Mapping[str, Trajectory]) -> str:
    replicates = min(run.final.shape[0] for run in runs.values())
    many = any(run.final.shape[1] > len(COLOURS) or len(runs) > 1 for run in runs.values())
    lines = "thin lines: one provider each; bold: mean over providers; " if many else ""
    if replicates == 1:
        return f"{lines}one replicate, so no band. Bottom right: median and middle 90% of the providers."
    return (
        f"{lines}bands: middle 90% of {replicates} replicates "
        "(bottom right: median and middle 90% of providers and replicates)"
    )
