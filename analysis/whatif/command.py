"""``ecosystem whatif``: one file of policies, four questions, one folder with a report."""

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import click
import pandas as pd

from analysis.executors import ClusterExecutor, on_cluster
from analysis.shards import locked
from analysis.statistics import number
from analysis.whatif.bench import Bench
from analysis.whatif.comparison import Comparison, Interrupted, compare
from analysis.whatif.levers import Target, parse_target
from analysis.whatif.plan import EXAMPLE, Plan, read_plan
from analysis.whatif.report import Report, Section, sentence, stopped_in_words, summary
from ecosystem import InputError, Scenario
from ecosystem.engine import announce
from ecosystem.trajectory import check_vacant, whole_folder

MAIN = (
    "diversity kept",
    "difference (points)",
    "probability of collapse",
    "rounds before collapse",
    "cost",
    "times the cost",
    "unbeaten in cost and diversity",
)
"""Columns of the first table of a comparison."""

OWN_FILES = (
    "runs.parquet", "courses.parquet", "report.html", "answer.txt", "policies.toml", "baseline.toml",
    "*.png", "*.svg", "*.csv",
)  # fmt: skip
"""Names of what is left in a folder."""

TOLD = ("require", "require_when", "when", "regret")
"""Other tables that are printed."""

SHOWN = ("diversity kept", "difference (points)", "probability of collapse", "times the cost")
"""Columns of the table that fit into a terminal; the others are in the files."""


def command(
    policies: Path | None,
    baseline: Path | None,
    out: Path | None,
    resume: bool,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: Path | None,
    require: str | None,
    vary: str | None,
    between: tuple[float, float] | None,
    policy: str | None,
    when: str | None,
    uncertain: int | None,
    design: str | None,
    **numbers: Any,
) -> None:
    """Do what ``ecosystem whatif`` asks for, and say what came out."""
    cluster = on_cluster(workers, scheduler, scheduler_file)
    if resume and out is None:
        raise InputError("--resume: give the folder to go on with, --out DIR")
    folder = out or Path("results") / f"whatif-{datetime.now():%Y%m%d-%H%M%S}"
    if (folder / "runs.parquet").is_file() and not resume:
        raise InputError(f"{folder} is already there; go on with it, --resume, or choose another place")
    check_vacant(folder, resumed=resume)
    if resume and not (folder / "runs.parquet").is_file() and folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} holds no comparison to go on with; choose another place")
    plan = read_plan(policies or EXAMPLE, baseline, **numbers)
    target = parse_target(require) if require is not None else None
    ask = _question(plan, target, vary, between, policy, when, uncertain, design)
    if waits := [f"--{name}" for name in ("precision", "budget", "seconds") if numbers.get(name) is not None]:
        if vary or when or uncertain is not None:
            raise InputError(
                f"{waits[0]} is for comparing policies; here give --replicates N, or leave out "
                "--vary, --when and --uncertain"
            )
    options = {
        "require": require,
        "vary": vary,
        "between": between,
        "policy": policy,
        "when": when,
        "uncertain": uncertain,
        "design": design,
        **numbers,
    }
    typed = _typed("policies.toml", "baseline.toml", options)
    executor = ClusterExecutor(scheduler, scheduler_file) if cluster else None
    if executor is None:
        announce()
    interrupted, failed = False, ""
    report: _Found | None
    with (
        locked(folder),
        Bench(plan.collapse_line, executor=executor, workers=workers, progress=True, keep=folder) as bench,
    ):
        if resume and (folder / "runs.parquet").is_file():
            bench.read(folder)
        try:
            report = ask(plan, bench)
        except KeyboardInterrupt as stop:
            interrupted, report = True, None
            if isinstance(stop, Interrupted) and stop.comparison is not None:
                report = _compared(plan, stop.comparison)
        except RuntimeError as error:  # a run that failed, or workers that are lost
            failed, report = str(error), None
        if bench.known:
            with whole_folder(folder, replace=OWN_FILES) as inside:
                bench.write(inside)
                if report is not None:
                    Report(plan, command=typed, **vars(report)).write(inside)
    if executor is not None:
        executor.shutdown()
    if report is not None:
        _say(report, folder)
    if interrupted or failed:
        what = "the runs so far are saved" if bench.known else "nothing was finished"
        where = {"workers": workers, "scheduler": scheduler, "scheduler_file": scheduler_file}
        again = _typed(policies, baseline, options | where | {"out": folder})
        click.echo(f"{failed or 'interrupted'}: {what}; go on with: {again} --resume", err=True)
        sys.exit(1 if failed else 130)


@dataclass(frozen=True)
class _Found:
    """What a question gave, for `Report`."""

    answer: str
    sections: Sequence[Section]
    assumptions: Sequence[str] = ()
    limits: Sequence[str] = ()
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def _say(report: _Found, folder: Path) -> None:
    for section in report.sections:
        if (section.table is not None and not set(MAIN).isdisjoint(section.table)) or section.name in TOLD:
            assert section.table is not None
            shown = [name for name in SHOWN if name in section.table] or section.table.columns.to_list()
            click.echo(f"\n{section.title}\n{section.table[shown].to_string(float_format=number)}")
    click.echo(f"\n{report.answer}\nsaved to {folder}; open {folder / 'report.html'}")


def _typed(policies: Path | str | None, baseline: Path | str | None, options: Mapping[str, Any]) -> str:
    """Return a command with these files and options."""
    words = ["ecosystem", "whatif", *([str(policies)] if policies is not None else [])]
    for name, value in {"baseline": baseline, **options}.items():
        if value is not None:
            values = value if isinstance(value, tuple) else (value,)
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


def _question(
    plan: Plan,
    target: Target | None,
    vary: str | None,
    between: tuple[float, float] | None,
    policy: str | None,
    when: str | None,
    uncertain: int | None,
    design: str | None,
) -> Callable[[Plan, Bench], _Found]:
    """Return what is asked; raise `InputError` where the options do not fit together."""
    starts = _rounds(when) if when is not None else None
    if policy is not None and policy not in plan.policies:
        raise InputError(f"--policy {policy!r}: the file has {', '.join(map(repr, plan.policies))}")
    if uncertain is not None:
        if vary or when:
            raise InputError("--uncertain does not go with --vary or --when; ask one question at a time")
        if policy is not None or between is not None:
            raise InputError(
                "--uncertain compares all policies over the ranges in the file; "
                "leave out --policy and --between"
            )
        aim = target or Target("diversity_kept", ">=", plan.collapse_line)
        return lambda plan, bench: _explored(plan, bench, uncertain, design or "latin-hypercube", aim)
    if design is not None:
        raise InputError("--design is that of --uncertain N; give both")
    if target is not None or vary is not None:
        if target is None or vary is None:
            raise InputError(
                "--require and --vary go together, "
                'e.g. --require "diversity_kept >= 0.8" --vary quota.fraction'
            )
        base = plan.policies[policy].scenario if policy is not None else plan.baseline
        return lambda plan, bench: _required(plan, bench, base, vary, target, between, starts)
    if between is not None:
        raise InputError("--between is the range of --vary; give both")
    if starts is not None:
        if policy is None and len(plan.policies) > 1:
            raise InputError(f"--when: say which policy, --policy NAME; there are {', '.join(plan.policies)}")
        name = policy or next(iter(plan.policies))
        return lambda plan, bench: _waited(plan, bench, name, starts)
    if policy is not None:
        raise InputError("--policy goes with --when, or with --require and --vary")
    return lambda plan, bench: _compared(
        plan,
        compare(
            plan.baseline,
            plan.scenarios,
            replicates=plan.replicates,
            precision=plan.precision,
            budget=plan.budget,
            seconds=plan.seconds,
            bench=bench,
        ),
    )


def _rounds(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--when {text}: give rounds, e.g. --when 1,20,40") from None


# --- the four answers -----------------------------------------------------------------------------


def _compared(plan: Plan, comparison: Comparison) -> _Found:
    from analysis.whatif.figures import courses_figure, pareto_figure
    from analysis.whatif.outcomes import OUTCOMES

    meanings = [f"{what.says}: {what.meaning}." for what in OUTCOMES.values()]
    table = summary(comparison)
    main = [name for name in MAIN if name in table]
    sections = [
        Section(
            "Diversity against cost",
            [
                "Each point is a policy after the last round, with 95% intervals; up and to the left is "
                "better. "
                "Filled points are not beaten: no other policy keeps as much diversity for less, or more "
                "for as "
                "little. The staircase joins them."
            ],
            "pareto",
            pareto_figure(comparison),
            "Diversity kept against cost for every policy; the table below has the numbers.",
        ),
        Section(
            "Round by round",
            [
                "Blue: with the policy; grey: without. Lines are means over replicates, bands their middle "
                "90%."
            ],
            "courses",
            courses_figure(comparison),
            "Diversity kept over the rounds, a panel for each policy, beside no policy.",
        ),
        Section(
            "The policies",
            [
                "After the last round, mean over replicates and half width of the 95% interval. The "
                "difference is "
                "that of pairs with the same luck. In the last column: whether the policy is unbeaten in "
                "cost and "
                "diversity, and in what share of resamples of the replicates it is."
            ],
            "policies",
            table=table[main],
        ),
        Section(
            "Other outcomes",
            ["The same runs, seen otherwise."],
            "other_outcomes",
            table=table.drop(columns=main),
        ),
        Section("What the columns mean", meanings),
    ]
    return _Found(
        sentence(comparison),
        sections,
        [stopped_in_words(comparison), *_stopping(comparison)],
        files={"outcomes": comparison.table.set_index(["policy", "outcome"])},
    )


def _stopping(comparison: Comparison) -> list[str]:
    if comparison.precision is None:
        return []
    return [
        "Replicates were added while the intervals were too wide. Stopping when an interval looks narrow "
        "enough "
        "makes it cover a little less than 95%; so intervals of differences in diversity kept are not given "
        "narrower than the precision that was waited for, with which they cover 94.5% or more of the time "
        "where "
        "outcomes are close to normal."
    ]


def _required(
    plan: Plan,
    bench: Bench,
    base: Scenario,
    vary: str,
    target: Target,
    between: tuple[float, float] | None,
    starts: list[int] | None,
) -> _Found:
    from analysis.whatif import requirement as asked

    options: dict[str, Any] = {"between": between, "replicates": plan.replicates, "bench": bench}
    n = f"{plan.replicates} replicates at every strength, with the same luck at each."
    assumptions = [n, "The mean field has no luck: it is the limit of many items a round."]
    if starts is None:
        found = asked.require(base, vary, target, **options)
        answer = asked.requirement_in_words(found)
        section = Section(
            "How much is enough",
            ["The shaded strip is the 95% interval of the strength at which it becomes enough."],
            "require",
            asked.requirement_figure(found),
            f"{vary} against the outcome, by simulation and in the mean field.",
            found.tried.set_index("strength"),
        )
        return _Found(answer, [section], assumptions)
    several = asked.requirements(base, vary, target, starts, **options)
    section = Section(
        "How much is enough, late or early",
        ["What it takes to reach the target by the last round, if the rule begins in this round or that."],
        "require_when",
        asked.requirements_figure(several),
        f"The {vary} that it takes, over the round in which it begins.",
        asked.requirements_table(several),
    )
    return _Found(asked.requirements_in_words(several), [section], assumptions, _HORIZON)


_HORIZON = [
    "All runs end in the same round, whenever the rule begins: a late rule has also had less time to work."
]


def _waited(plan: Plan, bench: Bench, name: str, starts: list[int]) -> _Found:
    from analysis.whatif.late import late_or_early, waiting_figure, waiting_in_words

    found = late_or_early(
        plan.baseline, plan.policies[name].scenario, name, starts, replicates=plan.replicates, bench=bench
    )
    section = Section(
        "Late or early",
        ["The same policy from round t on. Differences are to the earliest start, pair by pair."],
        "when",
        waiting_figure(found),
        "Diversity kept and cost over the round in which the policy begins.",
        found.table.set_index("start"),
    )
    assumptions = [f"{plan.replicates} replicates of every start, with the same luck in each."]
    return _Found(waiting_in_words(found), [section], assumptions, _HORIZON)


def _explored(plan: Plan, bench: Bench, samples: int, design: str, target: Target) -> _Found:
    from analysis.whatif.exploration import explore
    from analysis.whatif.robust import explored_in_words, explored_sections

    found = explore(plan, samples, design=design, replicates=plan.replicates, bench=bench)
    n = len(found.uncertainties)
    assumptions = [
        f"{n} futures ({design}), all values between the ends of a range equally likely and independent of "
        f"each "
        f"other; {plan.replicates} replicates of every policy in each.",
        *(
            f"{name}: from {low:g} to {high:g}, in place of what is said above."
            for name, (low, high) in found.ranges.items()
        ),
    ]
    limits = ["Shares of futures are no probabilities, unless the ranges and their evenness are believed."]
    return _Found(
        explored_in_words(found, target),
        explored_sections(found, target),
        assumptions,
        limits,
        {
            "uncertainties": found.uncertainties,
            "outcomes": found.outcomes.set_index(["future", "policy"]),
            "noise": found.noise,
        },
    )
