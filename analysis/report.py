"""What a run comes to, in a sentence and a table that a person reads."""

from collections.abc import Mapping

import pandas as pd

from analysis.statistics import Estimate, by_replicate, estimate, number
from ecosystem import Trajectory, metrics

MEASURES = {
    "hill_1": "effective number of outputs",
    "hill_2": "effective number of common outputs",
    "top_1_mass": "probability of the favourite output",
    "top_k_mass": "probability of the top {k} outputs",
    "human_coverage": "human probability still covered",
    "total_variation": "total variation from human law",
    "kl_to_human": "KL(model || human), nats",
    "kl_from_human": "KL(human || model), nats",
    "self_similarity": "chance that two published items agree",
}
"""Metrics of the summary table, and what a reader is told they are."""


def last(run: Trajectory, metric: str) -> Estimate:
    """Return the mean of a metric over providers in the last recorded round, with its 95% interval."""
    return estimate(by_replicate(run.table, metric).iloc[-1])


def summary(runs: Mapping[str, Trajectory]) -> pd.DataFrame:
    """Return the summary table: a row per measure; human data, then start and end of every run."""
    first = next(iter(runs.values()))
    human, k = first.human, first.scenario.mass_k
    itself = metrics.of_laws(human, human, human, k) | {"self_similarity": (human**2).sum()}
    columns: dict[str, list[str]] = {"human data": [number(float(itself[metric])) for metric in MEASURES]}
    for label, run in runs.items():
        rounds = run.table["round"].max()
        starts = (estimate(by_replicate(run.table, metric).iloc[0]) for metric in MEASURES)
        columns[f"{label}, round 0"] = [start.text() for start in starts]
        columns[f"{label}, round {rounds}"] = [last(run, metric).text() for metric in MEASURES]
    return pd.DataFrame(columns, index=[text.format(k=k) for text in MEASURES.values()])


def kept(run: Trajectory) -> Estimate:
    """Return the share of human diversity (effective number of outputs) kept at the end, a fraction."""
    human = float(metrics.hill(run.human, 1))
    mean, half = last(run, "hill_1")
    return Estimate(mean / human, half / human)


def sentence(runs: Mapping[str, Trajectory]) -> str:
    """Return the outcome in one sentence, with its numbers and their uncertainty."""
    outcomes = []
    for label, run in runs.items():
        share = kept(run)
        covered = last(run, "human_coverage")
        outcomes.append(
            f"{label}, {_percent(share)} of human diversity kept, {_percent(covered)} of human use covered"
        )
    rounds = max(run.table["round"].max() for run in runs.values())
    return f"After {rounds} rounds: {'; '.join(outcomes)}."


def _percent(share: Estimate) -> str:
    return f"{Estimate(100 * share.mean, 100 * share.half_width).text()}%"
