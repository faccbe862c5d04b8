"""How much human data is enough: prevention, cure, the published bounds, and the picture of all states."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tqdm.auto import tqdm

from analysis import theory
from analysis.figures import COLOURS, HUMAN
from ecosystem import InputError, Scenario, metrics


def thresholds(scenario: Scenario, keep: float = 0.9) -> dict[str, Any]:
    """Return the fresh fractions that decide over collapse in the mean field.

    Parameters
    ----------
    scenario : Scenario
        Temperature(s), human law, sharing graph; its own fresh fraction is not used.
    keep : float
        Share of human diversity (effective number of outputs) to keep, above 0, up to 1.

    Returns
    -------
    dict
        Ready for JSON: the question (``temperature``, ``n_outputs``, ``n_providers``, ``keep``) and the
        answers. With one temperature for all: ``prevention`` (from the human law), ``cure`` (from the worst
        collapsed state), ``fold`` (the most probable output can hold a model captured up to it), and the
        published sufficient conditions ``fisher_rao`` and ``euclidean``; the graph does not move these. For
        two providers or more: ``population``, the least fresh fraction common to all that prevents
        collapse of the worst-off, ``limited_by``, and for a uniform law ``spectral``, the exact threshold.

    Raises
    ------
    InputError
        If ``keep`` is not allowed, or the scenario truncates sampling or has interventions.
    """
    if not 0 < keep <= 1:
        raise InputError(f"keep = {keep!r}: allowed: a number above 0, up to 1, e.g. keep = 0.9")
    if scenario.top_k is not None or scenario.top_p is not None:
        raise InputError(
            "top_k, top_p: the thresholds are those of sampling that is not truncated; leave them out"
        )
    if scenario.interventions:
        raise InputError("interventions: the thresholds are those without dated rules; leave them out")
    human, temperatures = scenario.source.law, scenario.per_provider("temperature")
    answer: dict[str, Any] = {
        "temperature": sorted({float(t) for t in temperatures}),
        "n_outputs": int(human.size),
        "n_providers": len(temperatures),
        "keep": keep,
    }
    if len(set(temperatures)) == 1:
        t = float(temperatures[0])
        bounds = theory.published_bounds(human, t)
        answer |= {
            "prevention": theory.minimum_fresh_fraction(human, t, keep),
            "cure": theory.minimum_fresh_fraction(human, t, keep, start="collapsed"),
            "fold": theory.fold_fraction(human, t, int(human.argmax())),
            "fisher_rao": bounds.fisher_rao,
            "euclidean": bounds.euclidean,
        }
    if len(temperatures) > 1:
        population = theory.population_minimum_fresh_fraction(scenario, keep)
        answer |= {"population": population.value, "limited_by": population.limited_by}
        if np.ptp(human) == 0:
            answer["spectral"] = theory.spectral_threshold(scenario).least_fresh_fraction
    return answer


def explain(answer: dict[str, Any]) -> str:
    """Return the thresholds as lines that a person reads."""
    said = {
        "prevention": "prevents collapse (from the human law)",
        "cure": "cures it (from the worst collapsed state)",
        "fold": "up to here the most probable output can hold a model captured",
        "population": "prevents collapse of every provider of the population",
        "spectral": "keeps the uniform law stable in the population (spectral threshold)",
        "fisher_rao": "suffices by the published Fisher-Rao condition",
        "euclidean": "suffices by the published Euclidean condition",
    }
    temperatures = " to ".join(
        f"{t:g}" for t in dict.fromkeys((answer["temperature"][0], answer["temperature"][-1]))
    )
    head = (
        f"Fresh fraction at temperature {temperatures}, {answer['n_outputs']:,} outputs, "
        f"{answer['n_providers']} provider(s), to keep {answer['keep']:.0%} of human diversity (mean field):"
    )
    return "\n".join(
        [head, *(f"  {answer[name]:<12.6g} {text}" for name, text in said.items() if name in answer)]
    )


def branches(
    human: np.ndarray, temperature: float, fresh: Iterable[float]
) -> dict[str, list[tuple[float, float]]]:
    """Return the states of one model over fresh fractions, as (λ, share of human diversity).

    Keys: "healthy" (what the human law leads to, if no output has taken over), "captured" (by the most
    probable output, stable) and "saddle" (unstable, between the two).
    """
    found: dict[str, list[tuple[float, float]]] = {"healthy": [], "captured": [], "saddle": []}
    whole = float(metrics.hill(human, 1))
    for fraction in tqdm(list(fresh), desc="states", delay=1, leave=False):
        states = theory.fixed_points(human, temperature, fraction, captured=1, unstable=True)
        for state in states:
            kind = "captured" if state.captured is not None else "healthy"
            if not state.stable:
                kind = "saddle"
            found[kind].append((fraction, float(metrics.hill(state.distribution, 1)) / whole))
    return found


def bifurcation_figure(scenario: Scenario, answer: dict[str, Any], points: int | None = None) -> Figure:
    """Return the bifurcation diagram of one model at the scenario's temperature, with its hysteresis loop.

    Parameters
    ----------
    scenario : Scenario
        All providers at one temperature.
    answer : dict
        Of `thresholds`.
    points : int, optional
        Fresh fractions at which the states are computed; by default 150, and 30 for more than 10^5 outputs.

    Raises
    ------
    InputError
        If temperatures differ.
    """
    if len(answer["temperature"]) > 1:
        raise InputError(
            "temperature: the diagram is that of one temperature; give the same to all providers"
        )
    (temperature,) = answer["temperature"]
    human = scenario.source.law
    jumps = (answer["prevention"], answer["fold"])
    points = points or (150 if human.size <= 10**5 else 30)
    around = np.concatenate([jump * (1 + np.linspace(-0.02, 0.02, 7)) for jump in jumps])
    fresh = np.unique(np.clip(np.concatenate([np.linspace(0, 1, points), around]), 0, 1))
    figure = Figure(figsize=(8, 5.2), layout="constrained")
    axes = figure.subplots()
    axes.axhline(1, color=HUMAN, linestyle="--", linewidth=1.2, label="human data", zorder=4)
    found = branches(human, temperature, fresh)
    labels = {"healthy": "healthy", "captured": "captured by the most probable output", "saddle": "unstable"}
    for (kind, label), colour in zip(labels.items(), COLOURS, strict=False):
        if found[kind]:
            x, y = np.array(found[kind]).T
            axes.plot(
                x, y, "." if kind == "saddle" else "-", color=colour, linewidth=2, markersize=3, label=label
            )
    _marked(axes, answer, found)
    axes.set_xlabel("fresh fraction λ: share of human items in every batch")
    axes.set_ylabel("effective number of outputs,\nas a share of that of human data")
    axes.set_xlim(0, 1)
    axes.set_ylim(bottom=0)
    axes.set_title(
        f"What one model settles to at T = {temperature:g} ({human.size:,} outputs, mean field)", loc="left"
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def _marked(axes: Axes, answer: dict[str, Any], found: dict[str, list[tuple[float, float]]]) -> None:
    """Mark prevention and cure, and the loop between them: down on the left, up on the right."""
    keep = answer["keep"]
    axes.axhline(keep, color="#999999", linewidth=0.8)
    axes.annotate(f" keep {keep:.0%}", (0, keep), va="bottom", fontsize="small", color="#666666")
    for name, height in (("prevention", 0.45), ("cure", 0.6)):
        x = answer[name]
        left = x > 0.6
        axes.axvline(x, color="#999999", linewidth=0.8, linestyle=":")
        axes.annotate(
            f"{name}: λ = {x:.4g}",
            (x, height),
            xytext=(-4 if left else 4, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            fontsize="small",
        )
    if answer["fold"] > answer["prevention"] and found["captured"] and found["healthy"]:
        captured, healthy = (np.array(found[kind]).T for kind in ("captured", "healthy"))
        for x, start, end in (
            (answer["prevention"], healthy, captured),
            (answer["fold"], captured, healthy),
        ):
            if not all(0.99 * branch[0].min() <= x <= 1.01 * branch[0].max() for branch in (start, end)):
                continue
            ends = [float(np.interp(x, *branch)) for branch in (start, end)]
            if abs(ends[1] - ends[0]) < 0.02:
                continue
            arrow = {"arrowstyle": "-|>", "color": "#666666", "linewidth": 1.4}
            axes.annotate("", (x, ends[1]), (x, ends[0]), arrowprops=arrow)
