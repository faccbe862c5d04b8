"""How much is enough: the least strength of a lever that reaches a target, by simulation and mean field."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy import optimize

from analysis.figures import HUMAN
from analysis.statistics import number
from analysis.whatif.bench import Bench
from analysis.whatif.expected import expected
from analysis.whatif.figures import BLUE, ORANGE, whole_numbers
from analysis.whatif.late import naming
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
    rising: bool | None = None,
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
    rising : bool, optional
        Whether more of the lever is stronger; by default as the ends of the range show.
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
    low, high, whole, grid = _searched(scenario, lever, between)
    if replicates < 2:
        raise InputError(f"replicates = {replicates}: allowed: a whole number, 2 or more")
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
    at(grid)
    met = [bool(target.met(known[x][0])) for x in grid]
    if rising is None:
        first, last = known[grid[0]][0], known[grid[-1]][0]
        better = last >= first if target.sign == ">=" else last <= first
        rising = not met[0] or met[-1] if any(met) else better
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


def _searched(
    scenario: Scenario, lever: str, between: tuple[float, float] | None
) -> tuple[float, float, bool, list[float]]:
    """Return the range to search, whether in whole numbers only, and the strengths to try first."""
    low, high = between or bounds(lever)
    if not low < high:
        raise InputError(f"--between {low:g} {high:g}: give the lower end first")
    whole = is_whole(scenario, lever, low, high)
    points = np.linspace(low, high, GRID)
    return low, high, whole, sorted({float(round(x) if whole else x) for x in points})


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
    scenario: Scenario,
    lever: str,
    target: Target,
    starts: Sequence[int],
    *,
    between: tuple[float, float] | None = None,
    **options: Any,
) -> dict[int, Requirement]:
    """Return how strong a lever has to be when it begins in each of several rounds; options as `require`.

    Starts at which none or every strength is enough are searched in the direction that the others show.

    Raises
    ------
    InputError
        As `require`, or if the lever cannot begin in one of the rounds; before any run is made.
    """
    *_, grid = _searched(scenario, lever, between)
    for start in starts:
        if not 1 <= start <= scenario.rounds:
            raise InputError(f"--when {start}: give rounds from 1 to {scenario.rounds}")
        with naming(start):
            for x in grid:
                scenario_at(scenario, lever, x, start)

    def at(start: int, rising: bool | None = None) -> Requirement:
        return require(scenario, lever, target, between=between, start=start, rising=rising, **options)

    found = {start: at(start) for start in sorted(set(starts))}
    sure = {one.rising for one in found.values() if one.strength is not None and not one.everywhere}
    if len(sure) == 1:
        (rising,) = sure
        found |= {start: at(start, rising) for start, one in found.items() if one.rising != rising}
    return found


def requirements_table(found: Mapping[int, Requirement]) -> pd.DataFrame:
    """Return a row per start: strength, low, high, expected, enough.

    Strength is missing where none is enough; enough says whether it is the least or the largest that is:
    "this or more", "this or less", or else "any" or "none".
    """
    rows = {
        start: (
            np.nan if one.strength is None else one.strength,
            *sorted(one.interval),
            np.nan if one.expected is None else one.expected,
            "none" if one.strength is None else "any" if one.everywhere else f"this {_or(one)}",
        )
        for start, one in found.items()
    }
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=["strength", "low", "high", "expected", "enough"]
    ).rename_axis("start")


# --- in words and pictures ------------------------------------------------------------------------


def _or(found: Requirement) -> str:
    return f"or {'more' if found.rising else 'less'}"


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
    if np.isfinite(strong):
        a, b = sorted((weak, strong))
        interval = f"{a:.3g} to {b:.3g}"
    else:
        way = f"up to above {found.high:g}" if found.rising else f"down to below {found.low:g}"
        interval = f"from {weak:.3g} {way}, the end of the range"
    again = f"; {'above' if found.rising else 'below'} it the target is missed again, so look at the figure"
    return (
        f"{lever} has to be {found.strength:.3g} {_or(found)} (95% interval {interval}) to reach the target "
        f"({target}){beside}{'' if found.monotone else again}."
    )


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
        axes.axvline(
            found.strength,
            color=BLUE,
            linewidth=1,
            label=f"enough: {found.strength:.3g} {_or(found)} (shaded: 95% interval)",
        )
        if found.expected is not None:
            axes.axvline(
                found.expected,
                color=ORANGE,
                linewidth=1,
                linestyle=":",
                label=f"enough in the mean field: {found.expected:.3g} {_or(found)}",
            )
    if OUTCOMES[found.target.outcome].percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    if (tried["strength"] % 1 == 0).all():
        axes.xaxis.set_major_locator(whole_numbers())
    axes.set_xlabel(found.lever)
    axes.set_ylabel(OUTCOMES[found.target.outcome].says)
    return _finished(figure, axes)


def _finished(figure: Figure, axes: Axes) -> Figure:
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize="small")
    return figure


def requirements_in_words(found: Mapping[int, Requirement]) -> str:
    """Return in one sentence how the strength that is needed grows with waiting."""
    first = next(iter(found.values()))
    parts = []
    for start, one in found.items():
        what = "none is enough" if one.strength is None else f"{one.strength:.3g} {_or(one)}"
        if one.everywhere:
            what = "any will do"
        elif not one.monotone:
            what += " (but not all)"
        parts.append(f"from round {start} on, {what}")
    return f"{first.lever} needed for the target ({first.target}): {'; '.join(parts)}."


def requirements_figure(found: Mapping[int, Requirement]) -> Figure:
    """Return the strength that is needed over the round in which the lever begins."""
    table = requirements_table(found)
    one = next((one for one in found.values() if one.strength is not None), next(iter(found.values())))
    end, arrow = (one.high, "^") if one.rising else (one.low, "v")
    figure = Figure(figsize=(7.4, 4.3), layout="constrained")
    axes = figure.subplots()
    low, high = table["low"].clip(one.low, one.high), table["high"].clip(one.low, one.high)
    axes.vlines(table.index, low, high, color=BLUE, alpha=0.25, linewidth=6, label="95% interval")
    axes.plot(table.index, table["strength"], "o-", color=BLUE, linewidth=1, label="simulation")
    if table["expected"].notna().any():
        axes.plot(table.index, table["expected"], "s:", color=ORANGE, markersize=4, label="mean field")
    beyond = table[["low", "high"]].isin([np.inf, -np.inf]).any(axis=1)
    ends = pd.Series(end, table.index)
    marks: tuple[tuple[pd.Series, pd.Series, dict[str, Any], str], ...] = (
        (table["enough"] == "any", table["strength"], {"marker": "o", "mfc": "white"}, "any is enough"),
        (beyond & table["strength"].notna(), ends, {"marker": arrow}, "interval goes on beyond the range"),
        (table["strength"].isna(), ends, {"marker": arrow, "color": HUMAN}, "none of the range is enough"),
    )
    for rows, y, style, label in marks:
        if rows.any():
            axes.plot(
                table.index[rows], y[rows], **({"color": BLUE, "linestyle": "", "label": label} | style)
            )
    axes.set_xlabel("first round in force")
    axes.set_ylabel(f"{'least' if one.rising else 'largest'} {one.lever} for\n{one.target}")
    axes.xaxis.set_major_locator(whole_numbers())
    margin = 0.03 * (one.high - one.low)
    axes.set_ylim(one.low - margin, one.high + margin)
    return _finished(figure, axes)
