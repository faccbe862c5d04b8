"""What a policy is judged by: the outcomes of a run, their names, and how they are written."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.collapse import first_below, tail_kept
from analysis.map_runs import RunResult
from analysis.statistics import by_replicate
from ecosystem import metrics


class Outcome(NamedTuple):
    """One column of the results.

    Attributes
    ----------
    says : str
        What it is, for a reader.
    better : int
        1 where more is better, −1 where less is, 0 where it depends on what one wants.
    percent : bool
        Whether it is a share, written as a percentage.
    meaning : str
        Its formula or definition.
    """

    says: str
    better: int
    percent: bool
    meaning: str


OUTCOMES = {
    "diversity_kept": Outcome(
        "diversity kept",
        1,
        True,
        "effective number of outputs of a provider (exp of entropy), mean over providers, "
        "as a share of that of human data",
    ),
    "tail_kept": Outcome(
        "tail kept",
        1,
        True,
        "probability that a provider gives to the rarest human outputs (those that hold a tenth of human "
        "use), "
        "as a share of their human one",
    ),
    "human_coverage": Outcome(
        "human use covered",
        1,
        True,
        "share of human use that a provider can still produce at all, mean over providers",
    ),
    "total_variation": Outcome(
        "distance from human data",
        -1,
        True,
        "total variation between a provider's law and the human one: the share of probability that is "
        "misplaced",
    ),
    "kl_to_human": Outcome(
        "divergence from human data (nats)",
        -1,
        False,
        "Kullback-Leibler divergence KL(provider || human), mean over providers",
    ),
    "beta_diversity": Outcome(
        "effectively different providers",
        0,
        False,
        "diversity between providers: 1 if all are the same, N if no two share an output",
    ),
    "collapse_round": Outcome(
        "rounds before collapse",
        1,
        False,
        "mean over replicates of the rounds before diversity kept fell below the collapse line, counted up "
        "to "
        "the last round for replicates that did not collapse (restricted mean survival time)",
    ),
    "collapsed": Outcome(
        "probability of collapse",
        -1,
        True,
        "share of replicates whose diversity kept fell below the collapse line in some recorded round",
    ),
    "cost": Outcome(
        "cost",
        -1,
        False,
        "all that was paid for up to the last round, in units of the price of one human item",
    ),
}
"""Every outcome, by the name it has in tables, in TOML and on the command line."""

CURVES = ("diversity_kept", "total_variation", "human_coverage", "beta_diversity", "cost")
"""Outcomes that are followed round by round."""


class Measured(NamedTuple):
    """What is kept of one run.

    Attributes
    ----------
    outcomes : dict of str to float
        One number for each of `OUTCOMES`.
    course : DataFrame
        Columns round and those of `CURVES`, a row per recorded round.
    """

    outcomes: dict[str, float]
    course: pd.DataFrame


@dataclass(frozen=True)
class Measure:
    """Reduces a run to its outcomes; sent to the workers.

    Parameters
    ----------
    line : float
        The collapse line: a run has collapsed when its diversity kept falls below this share.
    """

    line: float = 0.5

    def __call__(self, result: RunResult) -> Measured:
        """Return the outcomes and the course of one replicate."""
        human = result.scenario.source.law
        whole = float(metrics.hill(human, 1))
        columns = ["hill_1", "total_variation", "human_coverage", "kl_to_human"]
        course = result.table.groupby("round")[columns].mean()
        course["diversity_kept"] = course.pop("hill_1") / whole
        population = result.population.set_index("round")
        course["beta_diversity"] = population["beta_diversity"]
        course["cost"] = population["cost"] if "cost" in population else 0.0
        last = course.iloc[-1]
        final = result.table[result.table["round"] == result.table["round"].max()]
        here = final["provider"].to_numpy()  # those that take part in the last round
        fall = first_below(by_replicate(result.table, "hill_1"), self.line * whole).iloc[0]
        outcomes = {name: float(last[name]) for name in last.index}
        outcomes |= {
            "tail_kept": float(np.mean(tail_kept(result.final[here], human))),
            "collapse_round": float(fall["round"]),
            "collapsed": float(not fall["censored"]),
        }
        return Measured({name: outcomes[name] for name in OUTCOMES}, course[list(CURVES)].reset_index())
