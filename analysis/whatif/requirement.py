"""How much is enough: the least strength of a lever that reaches a target, by simulation and mean field."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy import optimize

from analysis.figures import HUMAN
from analysis.statistics import number
from analysis.whatif.bench import Bench
from analysis.whatif.expected import expected
from analysis.whatif.figures import BLUE, ORANGE
from analysis.whatif.levers import Target, bounds, is_whole, scenario_at
from analysis.whatif.outcomes import OUTCOMES
from ecosystem import InputError, Scenario

GRID = 7
"""Strengths that are tried first, evenly over the range."""

RESOLUTION = 200
"""The answer is found to within the range divided by this."""


@dataclass(frozen=True, eq=False)
class Requirement:
    """How strong a lever has to be.

    Attributes
    ----------
    lever, target
        What was varied, and what was to be reached.
    low, high : float
        The range that was searched.
    replicates : int
        Replicates at every strength; the same luck at each.
    strength : float or None
        The least strength at which the mean over replicates reaches the target; None if none does. Where the
        target is reached at one end of the range only, strength is counted from the other end.
    interval : (float, float)
        Its 95% interval, from the weaker to the stronger end: the strengths at which the 95% interval of the
        outcome holds the target. An end that no strength of the range reaches is infinite.
    expected : float or None
        The least strength in the mean field; None if none reaches the target, or there is no mean field.
    rising : bool
        Whether more of the lever is stronger.
    everywhere : bool
        Whether every strength that was tried reaches the target: then ``strength`` is the end of the range
        that the search started from.
    monotone : bool
        Whether no strength beyond the answer misses the target again.
    tried : DataFrame
        Columns strength, value, low, high (95% interval), expected.
    """

    lever: str
    target: Target
    low: float
    high: float
    replicates: int
    strength: float | None
    interval: tuple[float, float]
    expected: float | None
    rising: bool
    everywhere: bool
    monotone: bool
    tried: pd.DataFrame

    @property
    def resolution(self) -> float:
        """How finely the answer was searched for."""
        return (self.high - self.low) / RESOLUTION


def require(
    scenario: Scenario,
    lever: str,
    target: Target,
    *,
    between: tuple[float, float] | None = None,
    start: int | None = None,
    replicates: int = 8,
    bench: Bench,
    theory: bool = True,
) -> Requirement:
    """Find the least strength of a lever that reaches a target.

    Every strength is tried with the same replicates (common random numbers), which makes the mean over them
    one fixed function of the strength (sample average approximation): a grid first, then bisection.

    The interval comes from the same runs: a strength belongs to it if the 95% interval of the outcome there
    holds the target. Where the outcome is monotone in the strength this covers the true answer just as often
    as the interval of the outcome covers the true outcome.

    Parameters
    ----------
    scenario : Scenario
        What the lever is part of, or is added to.
    lever : str
        "quota.fraction" or any other number of an intervention, or a setting such as "fresh_fraction".
    target : Target
        What to reach.
    between : (low, high), optional
        Range to search; by default all that the lever allows.
    start : int, optional
        Let the lever's intervention begin in this round.
    replicates : int
        At every strength, 2 or more.
    bench : Bench
        Where the runs are made and remembered.
    theory : bool
        Whether to look in the mean field too.

    Raises
    ------
    InputError
        If there is no such lever, or it does not take the ends of the range.
    """
    low, high = between or bounds(lever)
    if not low < high:
        raise InputError(f"--between {low:g} {high:g}: give the lower end first")
    if replicates < 2:
        raise InputError(f"replicates = {replicates}: allowed: a whole number, 2 or more")
    whole = is_whole(scenario, lever, low, high)
    known: dict[float, tuple[float, float, float]] = {}

    def at(strengths: Sequence[float]) -> None:
        new = {x: scenario_at(scenario, lever, x, start) for x in strengths if x not in known}
        bench.run(new.values(), range(replicates), f"{len(new)} strengths of {lever}")
        for x, there in new.items():
            values = bench.outcomes(there, range(replicates))[target.outcome].to_numpy()
            known[x] = target.interval(values)

    def reaches(end: int) -> Callable[[float], bool]:
        def met(x: float) -> bool:
            at([x])
            return bool(target.met(known[x][end]))

        return met

    step = 1.0 if whole else (high - low) / RESOLUTION
    points = np.linspace(low, high, GRID)
    grid = sorted({float(round(x)) for x in points} if whole else {float(x) for x in points})
    at(grid)
    met = [bool(target.met(known[x][0])) for x in grid]
    rising = not (met[0] and not met[-1])
    order = grid if rising else grid[::-1]
    # The mean, and the ends of its interval: the hopeful one is reached first, the doubtful one last.
    strength, hopeful, doubtful = (_least(order, reaches(end), step, whole) for end in (0, 2, 1))
    outside = np.inf if rising else -np.inf
    expectations: dict[float, float | None] = {}

    def in_theory(x: float) -> float | None:
        if x not in expectations:
            expectations[x] = expected(
                scenario_at(scenario, lever, x, start), target.outcome, bench.measure.line
            )
        return expectations[x]

    least = None
    if theory and all(in_theory(x) is not None for x in order):
        least = _least(order, lambda x: bool(target.met(float(in_theory(x) or 0.0))), step, whole)
    tried = pd.DataFrame(
        [(x, mean, *sorted(ends), expectations.get(x)) for x, (mean, *ends) in sorted(known.items())],
        columns=["strength", "value", "low", "high", "expected"],
    )
    reached = [x for x in order if target.met(known[x][0])]
    monotone = not reached or reached == order[order.index(reached[0]) :]
    return Requirement(
        lever,
        target,
        low,
        high,
        replicates,
        strength,
        (outside if hopeful is None else hopeful, outside if doubtful is None else doubtful),
        least,
        rising,
        all(met),
        monotone,
        tried.astype(float),
    )


def _least(order: Sequence[float], met: Callable[[float], bool], step: float, whole: bool) -> float | None:
    """Return the first strength, in this order, from which on a condition is met; None if it never is."""
    first = next((place for place, x in enumerate(order) if met(x)), None)
    if first is None or first == 0:
        return None if first is None else order[0]
    weak, strong = order[first - 1], order[first]
    if whole:
        a, b = int(weak), int(strong)
        while abs(b - a) > 1:
            middle = (a + b) // 2
            a, b = (a, middle) if met(float(middle)) else (middle, b)
        return float(b)
    # A target is reached or not: the sign of a step, whose place bisection finds.
    found = optimize.bisect(lambda x: 1.0 if met(x) else -1.0, weak, strong, xtol=step, rtol=1e-12)
    return float(found)


def requirements(
    scenario: Scenario, lever: str, target: Target, starts: Sequence[int], **options: Any
) -> dict[int, Requirement]:
    """Return how strong a lever has to be when it begins in each of several rounds; options as `require`."""
    for start in starts:
        if not 1 <= start <= scenario.rounds:
            raise InputError(f"start {start}: give rounds from 1 to {scenario.rounds}")
    return {start: require(scenario, lever, target, start=start, **options) for start in sorted(set(starts))}


def requirements_table(found: Mapping[int, Requirement]) -> pd.DataFrame:
    """Return a row per start: strength (missing where none is enough), low, high, expected."""
    rows = {
        start: (
            np.nan if one.strength is None else one.strength,
            *sorted(one.interval),
            np.nan if one.expected is None else one.expected,
        )
        for start, one in found.items()
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["strength", "low", "high", "expected"]
    ).rename_axis("start")


# --- in words and pictures ------------------------------------------------------------------------


def requirement_in_words(found: Requirement) -> str:
    """Return the answer in one sentence."""
    lever, target = found.lever, found.target
    beside = _theory_in_words(found)
    if found.everywhere:
        return (
            f"Every {lever} from {found.low:g} to {found.high:g} that was tried reaches the target "
            f"({target}): the lever is not needed for it{beside}."
        )
    if found.strength is None:
        values = found.tried["value"].to_numpy()
        best = found.tried.iloc[int(values.argmax() if target.sign == ">=" else values.argmin())]
        percent = OUTCOMES[target.outcome].percent
        value = f"{100 * best['value']:.3g}%" if percent else number(best["value"])
        return (
            f"No {lever} from {found.low:g} to {found.high:g} reaches the target ({target}): the closest, "
            f"{best['strength']:.3g}, gives {value}{beside}."
        )
    weak, strong = found.interval
    text = f"{'At least' if found.rising else 'At most'} {found.strength:.3g}"
    if np.isfinite(strong):
        a, b = sorted((weak, strong))
        text += f" (95% interval {a:.3g} to {b:.3g})"
    else:
        text += f" (95% interval from {weak:.3g} to beyond the range)"
    again = "" if found.monotone else "; beyond it the target is missed again, so look at the figure"
    return f"{text} of {lever} is needed for the target ({target}){beside}{again}."


def _theory_in_words(found: Requirement) -> str:
    if found.tried["expected"].isna().all():
        return "; there is no mean field for it"
    if found.expected is None:
        return "; in the mean field none reaches it"
    return f"; the mean field, which knows no luck, says {found.expected:.3g}"


def requirement_figure(found: Requirement) -> Figure:
    """Return the outcome over the strength of the lever: simulation with its interval, mean field, target."""
    figure = Figure(figsize=(7.4, 4.3), layout="constrained")
    axes = figure.subplots()
    tried = found.tried
    axes.fill_between(tried["strength"], tried["low"], tried["high"], color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(
        tried["strength"],
        tried["value"],
        "o-",
        color=BLUE,
        markersize=4,
        label=f"simulation, mean and 95% interval of {found.replicates} replicates",
    )
    theory = tried.dropna(subset="expected")
    if len(theory):
        axes.plot(
            theory["strength"], theory["expected"], "s:", color=ORANGE, markersize=4, label="mean field"
        )
    axes.axhline(
        found.target.value, color=HUMAN, linestyle="--", linewidth=1, label=f"target: {found.target}"
    )
    if found.strength is not None and not found.everywhere:
        ends = np.clip(found.interval, found.low, found.high)
        axes.axvspan(min(ends), max(ends), color=BLUE, alpha=0.12, linewidth=0)
        axes.axvline(found.strength, color=BLUE, linewidth=1)
        right = found.strength > (found.low + found.high) / 2
        axes.annotate(
            f"enough: {found.strength:.3g}",
            (found.strength, 0.03),
            xycoords=("data", "axes fraction"),
            xytext=(-5 if right else 5, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            color=BLUE,
        )
        if found.expected is not None:
            axes.axvline(found.expected, color=ORANGE, linewidth=1, linestyle=":")
    if OUTCOMES[found.target.outcome].percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.set_xlabel(found.lever)
    axes.set_ylabel(OUTCOMES[found.target.outcome].says)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure


def requirements_in_words(found: Mapping[int, Requirement]) -> str:
    """Return in one sentence how the strength that is needed grows with waiting."""
    first = next(iter(found.values()))
    parts = []
    for start, one in found.items():
        what = "none is enough" if one.strength is None else f"{one.strength:.3g}"
        if one.everywhere:
            what = "any will do"
        parts.append(f"from round {start} on {what}")
    return f"{first.lever} needed for the target ({first.target}): {', '.join(parts)}."


def requirements_figure(found: Mapping[int, Requirement]) -> Figure:
    """Return the strength that is needed over the round in which the lever begins."""
    table, one = requirements_table(found), next(iter(found.values()))
    figure = Figure(figsize=(7.4, 4.3), layout="constrained")
    axes = figure.subplots()
    low, high = table["low"].clip(one.low, one.high), table["high"].clip(one.low, one.high)
    axes.fill_between(table.index, low, high, color=BLUE, alpha=0.2, linewidth=0, label="95% interval")
    axes.plot(table.index, table["strength"], "o-", color=BLUE, label="simulation")
    axes.plot(table.index, table["expected"], "s:", color=ORANGE, markersize=4, label="mean field")
    never = table.index[table["strength"].isna()]
    axes.plot(
        never, [one.high if one.rising else one.low] * len(never), "x", color=HUMAN, label="none is enough"
    )
    axes.set_xlabel("first round in force")
    axes.set_ylabel(f"least {one.lever} for\n{one.target}")
    axes.set_ylim(one.low, one.high * 1.03)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize="small")
    return figure
