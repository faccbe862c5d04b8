"""The outcomes of a scenario in the mean field: many items a round, no luck."""

import numpy as np

from analysis import theory
from analysis.collapse import tail_kept
from ecosystem import InputError, Scenario, metrics
from ecosystem.interventions import active_in

SAME = ("diversity_kept", "tail_kept", "human_coverage", "total_variation", "kl_to_human", "beta_diversity")


def expected(scenario: Scenario, outcome: str, line: float = 0.5) -> float | None:
    """Return an outcome in the mean field, or None where it has none.

    Parameters
    ----------
    scenario : Scenario
        Interventions included. A "sampled" start is taken to be the human law: its limit for a large
        pretraining corpus.
    outcome : str
        One of those after the last round, or "collapsed" or "collapse_round".
    line : float
        The collapse line.

    Notes
    -----
    The mean field has no sampling noise: it loses nothing by chance. With few items a round a run keeps less.
    """
    human = scenario.source.law
    whole = float(metrics.hill(human, 1))
    try:
        theta = None
        for k, theta in enumerate(theory.mean_field_states(scenario)):
            there = active_in(scenario.interventions, max(k, 1), len(theta))
            if outcome in ("collapsed", "collapse_round"):
                if float(metrics.hill(theta[there], 1).mean()) < line * whole:
                    return 1.0 if outcome == "collapsed" else float(k)
    except InputError:
        return None
    if outcome in ("collapsed", "collapse_round"):
        return 0.0 if outcome == "collapsed" else float(scenario.rounds)
    if outcome not in SAME or theta is None:
        return None
    theta = theta[there]
    measure = {
        "diversity_kept": lambda: metrics.hill(theta, 1).mean() / whole,
        "tail_kept": lambda: tail_kept(theta, human).mean(),
        "human_coverage": lambda: metrics.human_coverage(theta, human).mean(),
        "total_variation": lambda: metrics.total_variation(theta, human).mean(),
        "kl_to_human": lambda: metrics.kl_divergence(theta, human).mean(),
        "beta_diversity": lambda: metrics.alpha_beta_gamma(theta)[1],
    }[outcome]
    return float(np.asarray(measure()))
