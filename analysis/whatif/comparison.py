"""Policies against a baseline, replicate by replicate, until it is sure enough or the budget is spent.

Common random numbers: replicate r of the baseline and of every policy draw from the same named streams, so
what a policy changes is the difference within a pair, and luck that both share cancels.

Intervals. Means over replicates have Student's 95% intervals, differences those of the paired differences.
The probability of collapse has its exact interval (Clopper, Pearson 1934), its difference a conservative one
from the pairs that disagree. The time to collapse is censored at the last round, for all replicates at the
same time, so its mean up to there (restricted mean survival time, Royston, Parmar 2013) is a plain mean.

Optional stopping. Adding replicates until an interval looks narrow stops more often when it is so by luck.
With a first batch of 8 and normal outcomes the plain interval then covers with 93.5-95% instead of 95%. So an
interval that was waited for is never given narrower than the precision waited for; with that the coverage is
94.5% or more. Far from normal outcomes (a fifth of the replicates collapse) 8 replicates are too few for
Student's interval, stopping or not: 83% at a fixed 8, 77-83% with stopping. Give ``replicates = 16`` or more
there, and read the probability of collapse, whose interval is exact for a fixed number of replicates.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.statistics import Estimate, estimate, paired_share_interval, share_interval
from analysis.whatif.bench import Bench
from analysis.whatif.outcomes import OUTCOMES
from ecosystem import InputError, Scenario
from ecosystem.interventions import Intervention

BASELINE = "no policy"
"""What the baseline is called among the policies."""

FIRST, MORE, MOST = 8, 4, 200
"""Replicates of the first batch, of each further one, and the most without a budget."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `compare`.

    Attributes
    ----------
    comparison : Comparison or None
        Of the replicates that all policies finished; None where these are fewer than two.
    """

    def __init__(self, comparison: "Comparison | None") -> None:
        super().__init__("interrupted; the comparison so far is in .comparison")
        self.comparison = comparison


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` returns.

    Attributes
    ----------
    scenarios : mapping of str to Scenario
        The baseline, named `BASELINE`, then every policy.
    line : float
        The collapse line.
    runs : DataFrame
        Columns policy, replicate, then one per outcome.
    courses : DataFrame
        Columns policy, replicate, round, then one per curve.
    stopped : str
        What ended it: "replicates", "precision", "budget", "seconds" or "interrupted".
    precision : float or None
        The half width that was asked for.
    """

    scenarios: Mapping[str, Scenario]
    line: float
    runs: pd.DataFrame
    courses: pd.DataFrame
    stopped: str
    precision: float | None = None

    @property
    def baseline(self) -> Scenario:
        """The scenario without policy."""
        return self.scenarios[BASELINE]

    @property
    def policies(self) -> list[str]:
        """Names of the policies, in the order given."""
        return [name for name in self.scenarios if name != BASELINE]

    @property
    def replicates(self) -> int:
        """Number of replicates of each policy."""
        return int(self.runs["replicate"].nunique())

    def outcome(self, name: str) -> pd.DataFrame:
        """Return one outcome of every run: a row per replicate, a column per policy."""
        wide = self.runs.pivot(index="replicate", columns="policy", values=name)
        return wide[list(self.scenarios)]

    @cached_property
    def table(self) -> pd.DataFrame:
        """Every outcome of every policy.

        Columns policy, outcome, value, low, high, difference, difference_low, difference_high; the ends
        are those of 95% intervals, differences are policy minus baseline.
        """
        rows = []
        for outcome in OUTCOMES:
            wide = self.outcome(outcome)
            for policy in self.scenarios:
                one, other = wide[policy].to_numpy(), wide[BASELINE].to_numpy()
                against = (0.0, 0.0, 0.0) if policy == BASELINE else self._against(outcome, one, other)
                rows.append((policy, outcome, *self._value(outcome, one), *against))
        names = (
            "policy",
            "outcome",
            "value",
            "low",
            "high",
            "difference",
            "difference_low",
            "difference_high",
        )
        return pd.DataFrame(rows, columns=list(names))

    def _value(self, outcome: str, values: np.ndarray) -> tuple[float, float, float]:
        if outcome == "collapsed":
            return float(values.mean()), *share_interval(int(values.sum()), len(values))
        return _ends(estimate(values))

    def _against(self, outcome: str, one: np.ndarray, other: np.ndarray) -> tuple[float, float, float]:
        if outcome == "collapsed":
            lost, gained = int(((other == 1) & (one == 0)).sum()), int(((other == 0) & (one == 1)).sum())
            return float(one.mean() - other.mean()), *paired_share_interval(lost, gained, len(one))
        found = estimate(one - other)
        if outcome == "diversity_kept" and self.stopped == "precision":
            found = waited_for(found, self.precision or 0.0)
        return _ends(found)

    def row(self, policy: str, outcome: str) -> dict[str, float]:
        """Return one row of the table: value, low, high, difference, difference_low, difference_high."""
        table = self.table
        (row,) = table[(table["policy"] == policy) & (table["outcome"] == outcome)].to_dict("records")
        return {str(name): row[name] for name in row if name not in ("policy", "outcome")}


def waited_for(found: Estimate, precision: float) -> Estimate:
    """Return an estimate whose interval is no narrower than the precision that it was waited for.

    Differences that are all the same, as those of a policy that changes nothing, stay exact.
    """
    return Estimate(found.mean, max(found.half_width, precision) if found.half_width > 0 else 0.0)


def _ends(found: Estimate) -> tuple[float, float, float]:
    half = found.half_width if np.isfinite(found.half_width) else np.nan
    return found.mean, found.mean - half, found.mean + half


def compare(
    baseline: Scenario,
    policies: Mapping[str, Sequence[Intervention] | Scenario],
    *,
    replicates: int = FIRST,
    precision: float | None = None,
    budget: int | None = None,
    seconds: float | None = None,
    collapse_line: float = 0.5,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool = False,
    bench: Bench | None = None,
) -> Comparison:
    """Compare policies with a baseline under common random numbers.

    Parameters
    ----------
    baseline : Scenario
        What happens without a policy.
    policies : mapping of str to interventions or Scenario
        Name of each policy, and what it adds to the baseline's interventions, or its whole scenario.
    replicates : int
        Replicates of the first batch, 2 or more; all there are if nothing else is asked for.
    precision : float, optional
        Add replicates until the 95% interval of the paired difference of diversity kept has at most this
        half width, for every policy.
    budget : int, optional
        But no more than so many runs in all (each replicate is one run of the baseline and of each policy).
        With ``precision`` and no budget, `MOST` replicates.
    seconds : float, optional
        Start no further batch after so many seconds. Unlike the others this depends on the machine: the
        number of replicates, and with it the result, cannot be repeated exactly.
    collapse_line : float
        A run has collapsed when its diversity kept falls below this share.
    executor, workers, progress
        Where to run, and whether to show it: see `Bench`. They do not change the result.
    bench : Bench, optional
        Use, and add to, what this bench knows; then the four before are its own.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        If a number is not allowed, or a policy does not fit the baseline.
    Interrupted
        On Ctrl-C; what was run until then is in the bench.
    """
    scenarios = {BASELINE: baseline} | {
        name: what if isinstance(what, Scenario) else with_interventions(baseline, what)
        for name, what in policies.items()
    }
    _check(replicates, precision, budget, seconds, policies, len(scenarios))
    if bench is None:
        with Bench(collapse_line, executor=executor, workers=workers, progress=progress) as own:
            return compare(
                baseline,
                policies,
                replicates=replicates,
                precision=precision,
                budget=budget,
                seconds=seconds,
                bench=own,
            )
    most = budget // len(scenarios) if budget is not None else MOST
    if precision is None and budget is None and seconds is None:
        most = replicates
    n, clock = min(replicates, most), time.monotonic()
    while True:
        try:
            bench.run(scenarios.values(), range(n), f"{len(scenarios)} scenarios, {n} replicates")
        except KeyboardInterrupt:
            known = _known(bench, scenarios)
            comparison = _collected(bench, scenarios, known, "interrupted", precision) if known > 1 else None
            raise Interrupted(comparison) from None
        comparison = _collected(bench, scenarios, n, _reason(precision, budget, seconds), precision)
        if precision is not None and _widest(comparison) <= precision:
            return _collected(bench, scenarios, n, "precision", precision)
        if n >= most:
            return comparison
        if seconds is not None and time.monotonic() - clock > seconds:
            return _collected(bench, scenarios, n, "seconds", precision)
        n = min(n + MORE, most)


def with_interventions(scenario: Scenario, interventions: Sequence[Intervention]) -> Scenario:
    """Return a scenario with more interventions, after those it has."""
    return scenario.replace(interventions=(*scenario.interventions, *interventions))


def _reason(precision: float | None, budget: int | None, seconds: float | None) -> str:
    """Return what ends a comparison at the most replicates."""
    return "replicates" if precision is None and budget is None and seconds is None else "budget"


def _check(
    replicates: int,
    precision: float | None,
    budget: int | None,
    seconds: float | None,
    policies: Mapping[str, object],
    scenarios: int,
) -> None:
    if not policies or BASELINE in policies:
        raise InputError(f"policies: give one or more, none called {BASELINE!r}, which is the baseline")
    if not isinstance(replicates, int) or isinstance(replicates, bool) or replicates < 2:
        raise InputError(f"replicates = {replicates!r}: allowed: a whole number, 2 or more")
    if precision is not None and not 0 < precision < 1:
        raise InputError(f"precision = {precision!r}: allowed: a number above 0 and below 1, e.g. 0.02")
    if budget is not None and (not isinstance(budget, int) or budget < 2 * scenarios):
        raise InputError(
            f"budget = {budget!r}: allowed: a whole number of runs, at least {2 * scenarios} "
            f"(2 replicates of {scenarios} scenarios)"
        )
    if seconds is not None and not 0 < seconds < float("inf"):
        raise InputError(f"seconds = {seconds!r}: allowed: a number above 0")


def _known(bench: Bench, scenarios: Mapping[str, Scenario]) -> int:
    """Return how many replicates, from the first, are known of every scenario."""
    n = 0
    while all((bench.key(scenario), n) in bench.known for scenario in scenarios.values()):
        n += 1
    return n


def _collected(
    bench: Bench, scenarios: Mapping[str, Scenario], n: int, stopped: str, precision: float | None
) -> Comparison:
    runs, courses = [], []
    for name, scenario in scenarios.items():
        runs.append(bench.outcomes(scenario, range(n)).reset_index().assign(policy=name))
        courses.append(bench.course(scenario, range(n)).assign(policy=name))
    first = ["policy", "replicate"]
    table, course = pd.concat(runs, ignore_index=True), pd.concat(courses, ignore_index=True)
    return Comparison(
        scenarios,
        bench.measure.line,
        table[first + [name for name in table if name not in first]],
        course[first + [name for name in course if name not in first]],
        stopped,
        precision,
    )


def _widest(comparison: Comparison) -> float:
    """Return the largest half width of a paired difference of diversity kept."""
    wide = comparison.outcome("diversity_kept")
    halves = [estimate(wide[policy] - wide[BASELINE]).half_width for policy in comparison.policies]
    return max(halves)
