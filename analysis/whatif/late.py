"""Late or early: the same policy from round t on, so that the price of waiting is a curve."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from analysis.figures import HUMAN
from analysis.statistics import Estimate, estimate
from analysis.whatif.bench import Bench
from analysis.whatif.comparison import BASELINE
from analysis.whatif.expected import expected
from analysis.whatif.figures import BLUE, GREEN, GREY, ORANGE, whole_numbers
from analysis.whatif.outcomes import OUTCOMES
from ecosystem import InputError, Scenario


@dataclass(frozen=True, eq=False)
class Waiting:
    """What it costs to begin a policy later.

    Attributes
    ----------
    policy : str
        Its name.
    outcome : str
        What is looked at, after the last round whatever the start.
    line : float
        The collapse line.
    rounds, replicates : int
        Length of the runs; replicates of each start, with the same luck.
    starts : tuple of int
        First rounds in force, rising.
    values, costs : DataFrame
        The outcome and the cost: a row per replicate, a column per start, and `BASELINE` without the policy.
    expected : dict of int to float
        The outcome in the mean field, by start, where there is one.
    without : str
        How to say what is the case without the policy.
    """

    policy: str
    outcome: str
    line: float
    rounds: int
    replicates: int
    starts: tuple[int, ...]
    values: pd.DataFrame
    costs: pd.DataFrame
    expected: dict[int, float]
    without: str = "never"

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per start, the last one without the policy.

        Columns start, value, low, high, difference (to the earliest start, paired), difference_low,
        difference_high, cost, cost_low, cost_high, expected.
        """
        rows = []
        starts: tuple[int | str, ...] = (*self.starts, BASELINE)
        for start in starts:
            value = estimate(self.values[start])
            waited = estimate(self.values[start] - self.values[self.starts[0]])
            cost = estimate(self.costs[start])
            ends = [
                end
                for e in (value, waited, cost)
                for end in (e.mean, e.mean - e.half_width, e.mean + e.half_width)
            ]
            rows.append(
                (start, *ends, self.expected.get(start, np.nan) if isinstance(start, int) else np.nan)
            )
        names = [name + end for name in ("value", "difference", "cost") for end in ("", "_low", "_high")]
        names = [name.removeprefix("value_") for name in names]
        return pd.DataFrame(rows, columns=["start", *names, "expected"])


def late_or_early(
    baseline: Scenario,
    policy: Scenario,
    name: str,
    starts: Sequence[int] | None = None,
    *,
    outcome: str = "diversity_kept",
    replicates: int = 8,
    bench: Bench,
    theory: bool = True,
) -> Waiting:
    """Begin a policy in different rounds and look at the outcome after the last round.

    Parameters
    ----------
    baseline : Scenario
        Without the policy.
    policy : Scenario
        The baseline with further interventions; these are shifted so that the first begins in round t.
    name : str
        What the policy is called.
    starts : sequence of int, optional
        Rounds t; by default six, from the first to four fifths of the run.
    outcome : str
        Any of `OUTCOMES`.
    replicates : int
        Of each start, 2 or more.
    bench : Bench
        Where the runs are made and remembered.
    theory : bool
        Whether to look in the mean field too.

    Raises
    ------
    InputError
        If a round or the outcome is not allowed.
    """
    rounds = baseline.rounds
    given = sorted(set(starts or (max(1, round(rounds * part)) for part in (0, 0.1, 0.2, 0.4, 0.6, 0.8))))
    if len(given) < 2 or any(not isinstance(t, int) or not 1 <= t <= rounds for t in given):
        raise InputError(f"--when {','.join(map(str, given))}: give two or more rounds from 1 to {rounds}")
    if outcome not in OUTCOMES:
        raise InputError(f"{outcome!r} is not an outcome; allowed: {', '.join(OUTCOMES)}")
    scenarios: dict[int | str, Scenario] = {}
    for t in given:
        with naming(t):
            scenarios[t] = begun(baseline, policy, t)
    scenarios[BASELINE] = baseline
    bench.run(scenarios.values(), range(replicates), f"{len(given)} starts of {name}")
    found = {start: bench.outcomes(scenario, range(replicates)) for start, scenario in scenarios.items()}
    enters = any(rule.kind == "entry" for rule in policy.interventions[len(baseline.interventions) :])
    curve = {}
    if theory:
        for t in given:
            value = expected(scenarios[t], outcome, bench.measure.line)
            if value is not None:
                curve[t] = value
    return Waiting(
        name,
        outcome,
        bench.measure.line,
        rounds,
        replicates,
        tuple(given),
        pd.DataFrame({start: table[outcome] for start, table in found.items()}),
        pd.DataFrame({start: table["cost"] for start, table in found.items()}),
        curve,
        "without it (all there from the start)" if enters else "never",
    )


@contextmanager
def naming(start: int) -> Iterator[None]:
    """Let an `InputError` name the start that it comes from."""
    try:
        yield
    except InputError as error:
        raise InputError(f"--when {start}: {error}") from None


def begun(baseline: Scenario, policy: Scenario, start: int) -> Scenario:
    """Return a policy whose own interventions are shifted so that the first of them begins in a round.

    Their ends stay where they are; one that would end before it begins is an `InputError`.
    """
    standing = len(baseline.interventions)
    own = policy.interventions[standing:]
    if not own:
        raise InputError("the policy has no intervention that could begin later")
    first = min(rule.start for rule in own)
    moved = [
        type(rule)(**rule.model_dump(exclude_unset=True) | {"start": rule.start - first + start})
        for rule in own
    ]
    return policy.replace(interventions=(*policy.interventions[:standing], *moved))


def waiting_in_words(found: Waiting) -> str:
    """Return the price of waiting in one sentence."""
    what = OUTCOMES[found.outcome]
    rows: dict[Any, dict[Any, Any]] = found.table.set_index("start").to_dict("index")
    factor, unit = (100, " points") if what.percent else (1, "")

    def value(start: int | str) -> str:
        row = rows[start]
        text = Estimate(factor * row["value"], factor * (row["high"] - row["value"])).text()
        return f"{text}{'%' if what.percent else ''}"

    def waited(start: int | str) -> str:
        row = rows[start]
        half = factor * (row["difference_high"] - row["difference"])
        return f"{Estimate(factor * row['difference'], half).text()}{unit}"

    first, last = found.starts[0], found.starts[-1]
    text = (
        f'"{found.policy}" from round {first} on gives, after {found.rounds} rounds, {what.says} of '
        f"{value(first)}; "
        f"from round {last} on {value(last)} ({waited(last)}), {found.without} {value(BASELINE)} "
        f"({waited(BASELINE)})"
    )
    if what.better:
        up = what.better > 0
        worse = [
            t
            for t in found.starts[1:]
            if (rows[t]["difference_high"] if up else -rows[t]["difference_low"]) < 0
        ]
        if worse:
            text += (
                f"; the first start tried that is surely worse than the earliest is round {worse[0]} "
                f"({waited(worse[0])})"
            )
        else:
            text += "; no start tried is surely worse than the earliest"
    if found.outcome == "diversity_kept":
        above = [t for t in found.starts if rows[t]["low"] >= found.line]
        text += (
            f"; the latest start tried that surely ends above the collapse line ({100 * found.line:g}%) is "
            f"round {above[-1]}"
            if above
            else f"; no start tried surely ends above the collapse line ({100 * found.line:g}%)"
        )
    return f"{text}."


def waiting_figure(found: Waiting) -> Figure:
    """Return the outcome, and the cost, over the round in which the policy begins."""
    table = found.table.iloc[:-1].astype(float)
    never = found.table.iloc[-1]
    figure = Figure(figsize=(9, 3.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, name, low, high, colour in (
        (left, "value", "low", "high", BLUE),
        (right, "cost", "cost_low", "cost_high", GREEN),
    ):
        axes.fill_between(table["start"], table[low], table[high], color=colour, alpha=0.2, linewidth=0)
        axes.plot(table["start"], table[name], "o-", color=colour, markersize=4, label="simulation")
        axes.axhline(float(never[name]), color=GREY, linewidth=1.2, linestyle="-.", label=found.without)
        axes.set_xlabel(f"first round in force ({found.policy})")
        axes.xaxis.set_major_locator(whole_numbers())
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
    if table["expected"].notna().any():
        left.plot(table["start"], table["expected"], "s:", color=ORANGE, markersize=4, label="mean field")
    if found.outcome == "diversity_kept":
        left.axhline(found.line, color=HUMAN, linestyle="--", linewidth=0.9, label="collapse line")
        left.set_ylim(0, max(left.get_ylim()[1], 1.1 * found.line))
    if OUTCOMES[found.outcome].percent:
        left.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    left.set_ylabel(f"{OUTCOMES[found.outcome].says}, after round {found.rounds}")
    right.set_ylabel(f"cost over {found.rounds} rounds")
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper left", ncols=4, frameon=False, fontsize="small"
    )
    return figure
