"""Figures that a stranger understands: axes named with units, human baseline drawn, uncertainty shown."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter

from analysis import theory
from analysis.statistics import by_replicate
from ecosystem import Ecosystem, Trajectory, metrics
from ecosystem.laws import SparseLaws
from ecosystem.scenario import write_atomically
from ecosystem.types import Floats

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito (2008)
HUMAN = "#222222"

_NUMBERS = 2**27
"""Most probabilities of final laws in one panel."""

THEORY_LIMIT = 10**9
"""Largest providers × outputs × rounds for which a figure carries the mean field (a minute or less)."""


def run_figure(runs: Mapping[str, Trajectory]) -> Figure:
    """Return the figure of one or several runs on the same human data.

    Six panels, each with the human baseline: effective number of outputs, total variation from the human
    law, Simpson diversity, mass of the top k, effective number of different providers, and the final
    distribution by rank. A run of up to 6 providers, shown by itself, gets one colour and one band per
    provider; otherwise every provider is a thin line, and the mean over providers a bold one with its band
    over replicates. Dotted: the mean field from the same start (the mean of the metric over providers).
    At T = 1 the Simpson panel also carries its exact expectation.

    Parameters
    ----------
    runs : mapping of str to Trajectory
        Label of each run; all with the same human law.
    """
    first = next(iter(runs.values()))
    k, human = first.scenario.mass_k, first.human
    figure = Figure(figsize=(14, 7.4), layout="constrained")
    (diversity, simpson, distance), (mass, between, ranks) = figure.subplots(2, 3)
    fields = {label: mean_field_of(run) for label, run in runs.items()}
    for axes in (diversity, simpson, distance, mass, between):
        axes.set_xlabel("round")
    _panel(diversity, runs, fields, "hill_1", float(metrics.hill(human, 1)))
    diversity.set_yscale("log")
    diversity.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    diversity.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.4)))
    diversity.set_ylabel("effective number of outputs\n(exp of entropy)")
    diversity.set_title("How diverse are the models?", loc="left")
    _panel(simpson, runs, fields, "simpson_diversity", float(metrics.simpson_diversity(human)))
    _exact_at_t_1(simpson, runs)
    simpson.set_ylabel("chance that two draws differ, 1 − ΣΘ²")
    simpson.set_title("How diverse are their favourites?", loc="left")
    _panel(distance, runs, fields, "total_variation", 0.0)
    distance.set_ylabel("total variation from human law\n(0 the same, 1 nothing in common)")
    distance.set_title("How far from human data?", loc="left")
    _panel(mass, runs, fields, "top_k_mass", float(metrics.top_mass(human, k)))
    mass.set_ylabel(f"probability of the {k}\nmost probable outputs")
    mass.set_title("How much goes to the favourites?", loc="left")
    for axes in (distance, mass):
        axes.set_ylim(-0.02, 1.02)
    _between_panel(between, runs)
    _rank_panel(ranks, runs)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    diversity.legend(frameon=False, fontsize="small")
    figure.suptitle(_title(runs), x=0.01, ha="left", fontsize="medium")
    figure.supxlabel(_note(runs, fields), x=0.01, ha="left", fontsize="small", color="#555555")
    return figure


def mean_field_of(run: Trajectory) -> pd.DataFrame | None:
    """Return the mean field of a run, from the start of its first replicate; None where there is none.

    There is none with a training error, and none is computed where it would take long.
    """
    scenario = run.scenario
    if scenario.training_error > 0 or np.prod(run.final.shape[1:]) * scenario.rounds > THEORY_LIMIT:
        return None
    start = Ecosystem(scenario).distributions if scenario.initial == "sampled" else None
    return theory.mean_field(scenario, initial=start)


def _panel(
    axes: Axes,
    runs: Mapping[str, Trajectory],
    fields: Mapping[str, pd.DataFrame | None],
    metric: str,
    baseline: float,
) -> None:
    axes.axhline(baseline, color=HUMAN, linestyle="--", linewidth=1.2, label="human data")
    for (label, run), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        curves = fields[label]
        providers = run.table["provider"].nunique()
        if len(runs) == 1 and providers <= len(COLOURS):
            for provider, rows in run.table.groupby("provider"):
                name = label if providers == 1 else f"provider {provider}"
                each = None if curves is None else curves[curves["provider"] == provider]
                _line_and_band(axes, by_replicate(rows, metric), COLOURS[int(str(provider))], name)
                _dotted(
                    axes, each, metric, COLOURS[int(str(provider))], "mean field" if provider == 0 else ""
                )
            continue
        if providers > 1:
            wide = run.table.pivot_table(index="round", columns="provider", values=metric, aggfunc="mean")
            alpha = max(0.06, min(0.5, 6 / providers))
            axes.plot(wide.index, wide.to_numpy(), color=colour, linewidth=0.7, alpha=alpha, zorder=1)
        _line_and_band(axes, by_replicate(run.table, metric), colour, label)
        _dotted(axes, curves, metric, colour, "mean field" if run is list(runs.values())[-1] else "")


def _dotted(axes: Axes, curves: pd.DataFrame | None, metric: str, colour: str, label: str) -> None:
    if curves is not None:
        mean = curves.groupby("round")[metric].mean()
        axes.plot(mean.index, mean, color=colour, linestyle=":", linewidth=1.6, label=label or None, zorder=4)


def _exact_at_t_1(axes: Axes, runs: Mapping[str, Trajectory]) -> None:
    """Draw the exact expectation of the Simpson diversity, mean over providers, where all sample at T = 1."""
    drawn = False
    for run, colour in zip(runs.values(), COLOURS * len(runs), strict=False):
        scenario = run.scenario
        n = run.final.shape[1]
        cut = scenario.top_k is not None or scenario.top_p is not None or scenario.training_error > 0
        plain = not cut and not scenario.interventions
        if not plain or (scenario.per_provider("temperature") != 1).any():
            continue
        if n * n * scenario.rounds > THEORY_LIMIT:
            continue
        exact = theory.expected_simpson_diversity(scenario).mean(axis=1)
        label = None if drawn else "exact expectation"
        axes.plot(exact, color=colour, linestyle="-.", linewidth=1.6, label=label, zorder=5)
        drawn = True
    if drawn:
        axes.legend(frameon=False, fontsize="small")


def _between_panel(axes: Axes, runs: Mapping[str, Trajectory]) -> None:
    axes.axhline(1, color=HUMAN, linestyle="--", linewidth=1.2)
    for (label, run), colour in zip(runs.items(), COLOURS * len(runs), strict=False):
        _line_and_band(axes, by_replicate(run.population, "beta_diversity"), colour, label)
    axes.set_ylabel("effective number of different providers\n(1: all the same)")
    axes.set_title("Do the providers differ?", loc="left")


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
        laws = np.sort(_laws(run), axis=1)[:, ::-1]
        low, middle, high = np.quantile(laws, [0.05, 0.5, 0.95], axis=0)
        axes.plot(rank, np.where(middle > 0, middle, np.nan), color=colour, linewidth=2, label=label)
        axes.fill_between(rank, np.where(low > 0, low, np.nan), high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(rank, np.where(human > 0, human, np.nan), color=HUMAN, linestyle="--", linewidth=1.2)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("rank of the output in its model (1 = most probable)")
    axes.set_ylabel("probability after the last round")
    axes.set_title("What is left of the tail?", loc="left")


def _laws(run: Trajectory) -> Floats:
    """Return the laws of all models; of some of them, evenly spaced, where all would not fit."""
    final = run.final_active
    if not isinstance(final, SparseLaws):
        return final.reshape(-1, final.shape[2])
    replicates, n, size = final.shape
    every = -(-replicates * n * size // _NUMBERS)
    return np.stack([final.law(*divmod(row, n)) for row in range(0, replicates * n, every)])


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


def _note(runs: Mapping[str, Trajectory], fields: Mapping[str, pd.DataFrame | None]) -> str:
    replicates = min(run.final.shape[0] for run in runs.values())
    many = any(run.final.shape[1] > len(COLOURS) or len(runs) > 1 for run in runs.values())
    lines = "thin lines: one provider each; bold: mean over providers; " if many else ""
    if any(curves is not None for curves in fields.values()):
        lines += "dotted: mean field (many items a round) from the first replicate's start\n"
    if replicates == 1:
        return f"{lines}one replicate, so no band. Bottom right: median and middle 90% of the providers."
    return (
        f"{lines}bands: middle 90% of {replicates} replicates "
        "(bottom right: median and middle 90% of providers and replicates)"
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says, whole or not at all."""
    buffer = BytesIO()
    figure.savefig(buffer, format=path.suffix[1:])
    write_atomically(path, buffer.getvalue())
