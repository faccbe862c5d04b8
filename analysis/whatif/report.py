"""What a comparison comes to: one sentence, a table that a person reads, and a report that can be mailed."""

import base64
import html
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from io import BytesIO
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined
from matplotlib.figure import Figure

from analysis.figures import save_figure
from analysis.map_runs import code_version
from analysis.statistics import Estimate, estimate, number, share_interval
from analysis.whatif.comparison import BASELINE, Comparison
from analysis.whatif.front import pareto
from analysis.whatif.outcomes import OUTCOMES
from analysis.whatif.plan import Plan
from analysis.whatif.words import baseline_in_words, intervention_in_words, prices_in_words
from ecosystem.scenario import write_atomically

# --- the sentence ---------------------------------------------------------------------------------


def sentence(comparison: Comparison) -> str:
    """Return the answer in one sentence, with its numbers and how sure they are.

    A policy counts as preventing collapse when no replicate fell below the collapse line; the cheapest such
    policy is named, or, where none is, the one that keeps the most diversity.
    """
    n, rounds = comparison.replicates, comparison.baseline.rounds
    collapsed = comparison.outcome("collapsed").sum().astype(int)
    cost, kept = comparison.outcome("cost").mean(), comparison.outcome("diversity_kept").mean()
    policies = comparison.policies
    preventing = [policy for policy in policies if collapsed[policy] == 0]
    if collapsed[BASELINE] == 0:
        best = str(kept[policies].idxmax())
        gain = comparison.row(best, "diversity_kept")
        nothing = f"Without a policy no run collapses within {rounds} rounds ({_chance(0, n)})"
        if harmful := [policy for policy in policies if collapsed[policy] > 0]:
            nothing += f", but under {' and '.join(map(_quoted, harmful))} some do"
        if not gain["difference_low"] > 0:
            return (
                f"{nothing}, and no policy of the {len(policies)} is seen to keep more diversity: the best, "
                f"{_quoted(best)}, differs by {_points(comparison, best)} points."
            )
        return f"{nothing}; most diversity is kept by {_quoted(best)}: {_keeps(comparison, best)}."
    without = f"against {collapsed[BASELINE]} of {n} without a policy"
    if not preventing:
        best = str(kept[policies].idxmax())
        return (
            f"None of the {len(policies)} policies prevents collapse within {rounds} rounds; "
            f"{_quoted(best)} keeps the most diversity: {_keeps(comparison, best)}, "
            f"and {collapsed[best]} of {n} replicates collapse, {without}."
        )
    cheapest = str(cost[preventing].idxmin())
    tied = [policy for policy in preventing if not _surely_dearer(comparison, policy, cheapest)]
    best, top = str(kept[tied].idxmax()), str(kept[preventing].idxmax())
    head = (
        f"{_quoted(best)} is the cheapest of the {len(preventing)} policies (of {len(policies)}) "
        "that prevent collapse"
        if len(preventing) > 1
        else f"{_quoted(best)} is the only one of {len(policies)} policies that prevents collapse"
    )
    if rest := [policy for policy in tied if policy != best]:
        head += f" (as cheap, but keeping less: {', '.join(map(_quoted, rest))})"
    more = f"; {_quoted(top)} keeps more, {_keeps(comparison, top)}" if top != best else ""
    return (
        f"{head}: {_chance(0, n)} collapse within {rounds} rounds, {without}, and it keeps "
        f"{_keeps(comparison, best)}{more}."
    )


def _quoted(policy: str) -> str:
    return f'"{policy}"'


def _surely_dearer(comparison: Comparison, policy: str, other: str) -> bool:
    """Whether the 95% interval of the paired difference in cost is above 0."""
    cost = comparison.outcome("cost")
    mean, half = estimate(cost[policy] - cost[other])
    return policy != other and mean - half > 0


def _chance(successes: int, n: int) -> str:
    high = share_interval(successes, n)[1]
    return f"{successes} of {n} replicates (a probability of at most {100 * high:.0f}%)"


def _points(comparison: Comparison, policy: str) -> str:
    row = comparison.row(policy, "diversity_kept")
    half = row["difference_high"] - row["difference"]
    text = Estimate(100 * row["difference"], 100 * half).text()
    return text if text.startswith("-") else f"+{text}"


def _keeps(comparison: Comparison, policy: str) -> str:
    ratio = comparison.outcome("cost").mean()
    times = ratio[policy] / ratio[BASELINE] if ratio[BASELINE] > 0 else float("nan")
    price = f" at {number(times)} times the cost" if times == times else ""
    if times == times and abs(times - 1) < 0.005:
        price = " at the same cost"
    return (
        f"{_text(comparison, policy, 'diversity_kept')} of human diversity after "
        f"{comparison.baseline.rounds} rounds ({_points(comparison, policy)} points){price}"
    )


# --- the table ------------------------------------------------------------------------------------


def _text(comparison: Comparison, policy: str, outcome: str) -> str:
    row, what = comparison.row(policy, outcome), OUTCOMES[outcome]
    if outcome == "collapsed":
        n = comparison.replicates
        return f"{round(row['value'] * n)} of {n} ({100 * row['low']:.0f}% to {100 * row['high']:.0f}%)"
    if outcome == "collapse_round":
        fell = int(comparison.outcome("collapsed")[policy].sum())
        if fell == 0:
            return f"> {comparison.baseline.rounds}"
    factor = 100 if what.percent else 1
    text = Estimate(factor * row["value"], factor * (row["high"] - row["value"])).text()
    if outcome == "collapse_round" and fell < comparison.replicates:
        text = f"≥ {text}"
    return f"{text}%" if what.percent else text


def summary(comparison: Comparison) -> pd.DataFrame:
    """Return the table that a person reads: a row per policy, texts with 95% intervals."""
    front, ratio = pareto(comparison), comparison.outcome("cost").mean()
    rows = {}
    for policy in comparison.scenarios:
        row = {}
        for outcome, what in OUTCOMES.items():
            row[what.says] = _text(comparison, policy, outcome)
            if outcome == "diversity_kept":
                row["difference (points)"] = "" if policy == BASELINE else _points(comparison, policy)
        if ratio[BASELINE] > 0:
            row["times the cost"] = number(ratio[policy] / ratio[BASELINE])
        sure = f"{100 * float(front['support'][policy]):.0f}%"
        row["unbeaten in cost and diversity"] = (
            f"yes ({sure})" if front["non_dominated"][policy] else f"no ({sure})"
        )
        rows[policy] = row
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("policy")


def stopped_in_words(comparison: Comparison) -> str:
    """Return how many replicates there are and why there are no more."""
    asked = (
        f" (half width of the difference in diversity kept, {100 * (comparison.precision or 0):.3g} points)"
    )
    reached = {
        "replicates": "as many as were asked for",
        "precision": f"enough for the precision asked for{asked}",
        "budget": "as many as the budget of runs allows"
        + (f", before the precision asked for was reached{asked}" if comparison.precision else ""),
        "seconds": "as many as the budget of time allowed; another machine may make more or fewer",
        "interrupted": "interrupted: more were asked for",
    }
    return f"{comparison.replicates} replicates of each policy, {reached[comparison.stopped]}."


# --- the report -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes
    ----------
    title : str
        Its heading.
    paragraphs : sequence of str
        Plain text.
    name : str
        File name of the figure and the table, without suffix.
    figure : Figure, optional
        Drawn under the text.
    alt : str
        What the figure shows, for those who cannot see it.
    table : DataFrame, optional
        Drawn under the figure.
    """

    title: str
    paragraphs: Sequence[str] = ()
    name: str = ""
    figure: Figure | None = None
    alt: str = ""
    table: pd.DataFrame | None = None


@dataclass(frozen=True)
class Report:
    """All that is said of one question put to a plan.

    Attributes
    ----------
    plan : Plan
        The file of policies.
    answer : str
        One sentence.
    sections : sequence of Section
        Results.
    assumptions, limits : sequence of str
        What was taken as given, and what the answer does not say, beside what always holds.
    command : str
        What to type to get the same again.
    files : mapping of str to DataFrame
        Tables of numbers, saved as NAME.csv beside the report.
    versions : mapping of str to str
        Of the code and the libraries.
    """

    plan: Plan
    answer: str
    sections: Sequence[Section]
    assumptions: Sequence[str] = ()
    limits: Sequence[str] = ()
    command: str = "ecosystem whatif"
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=lambda: _versions())

    def html(self) -> str:
        """Return one self-contained HTML page: images inside, nothing to load."""
        plan = self.plan
        policies = {
            name: {
                "says": policy.says,
                "rules": [
                    intervention_in_words(rule)
                    for rule in policy.scenario.interventions[len(plan.baseline.interventions) :]
                ],
            }
            for name, policy in plan.policies.items()
        }
        environment = Environment(
            autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
        )
        environment.filters["image"] = _image
        environment.filters["as_table"] = _as_table
        template = environment.from_string(
            Path(__file__).with_name("report.html").read_text(encoding="utf-8")
        )
        return template.render(
            report=self,
            plan=plan,
            policies=policies,
            baseline=baseline_in_words(plan.baseline),
            standing=[intervention_in_words(rule) for rule in plan.baseline.interventions],
            assumptions=[*_assumed(plan), *self.assumptions],
            limits=[*self.limits, *LIMITS],
            baseline_toml=plan.baseline.to_toml(),
            made=datetime.now(UTC).strftime("%d %B %Y"),
        )

    def text(self) -> str:
        """Return the answer and the tables as plain text."""
        parts = [self.answer]
        for section in self.sections:
            parts += list(section.paragraphs)
            if section.table is not None:
                parts.append(section.table.to_string())
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path) -> None:
        """Write report.html, answer.txt, and the figures and tables of the sections into a folder."""
        for section in self.sections:
            if section.figure is not None:
                for suffix in (".png", ".svg"):
                    save_figure(section.figure, folder / f"{section.name}{suffix}")
            if section.table is not None:
                section.table.to_csv(folder / f"{section.name}.csv")
        for name, table in self.files.items():
            table.to_csv(folder / f"{name}.csv")
        write_atomically(folder / "report.html", self.html().encode())
        write_atomically(folder / "answer.txt", self.text().encode())
        write_atomically(folder / "policies.toml", self.plan.text.encode())
        self.plan.baseline.to_toml(folder / "baseline.toml")


LIMITS = (
    "A policy that prevents collapse here does so within the simulated rounds; what still falls in the "
    "last of "
    "them (see the figure) may collapse later.",
    "The intervals say how much is luck of this simulation. They do not say how well the simulation "
    "describes "
    "the world: the models are probability tables over outputs, not language models.",
    "Diversity is what is measured. Truth, quality, usefulness and harm of what is published are not.",
    "Nobody in the simulation reacts: providers neither evade a rule nor change prices, and people write as "
    "much, and as well, as before, unless an intervention says otherwise.",
    "A cost is what is paid in the simulated rounds at the prices below. What it costs to make, control and "
    "enforce a rule is not in it.",
    "Where the best of several policies is named, the same replicates chose and measured it, which "
    "flatters it "
    "a little where policies are close.",
)
"""What no answer of this kind says."""


def _assumed(plan: Plan) -> list[str]:
    return [
        f"Prices, in units of the price of one human item: {prices_in_words(plan.baseline)}.",
        f"Collapse line: a run has collapsed when its providers keep less than "
        f"{100 * plan.collapse_line:.3g}% of human diversity.",
        "All policies meet the same luck (common random numbers): replicate r of each has the same seed "
        "and the "
        "same random streams, so differences between policies are differences of policy.",
    ]


def _versions() -> dict[str, str]:
    names = ("numpy", "scipy", "pandas", "networkx", "mesa")
    return {"ecosystem": code_version(), "Python": platform.python_version()} | {
        name: version(name) for name in names
    }


def _image(figure: Figure) -> str:
    """Return a figure as the text of an image that needs no file."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _cell(value: object) -> str:
    return number(value, 4) if isinstance(value, float) else str(value)


def _as_table(table: pd.DataFrame) -> str:
    """Return a table as HTML, every cell escaped."""
    from markupsafe import Markup

    head = "".join(f"<th>{html.escape(str(name))}</th>" for name in (table.index.name or "", *table.columns))
    rows = "".join(
        f"<tr><th>{html.escape(str(name))}</th>"
        + "".join(f"<td>{html.escape(_cell(cell))}</td>" for cell in row)
        + "</tr>"
        for name, row in zip(table.index, table.itertuples(index=False), strict=True)
    )
    return Markup(f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>")
