"""Diversity against cost: which policies are worth their price, and how sure that is."""

import numpy as np
import pandas as pd

from analysis.whatif.comparison import Comparison

RESAMPLES = 2000


def non_dominated(cost: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Return which points no other beats: none costs no more, gains no less, and differs.

    Parameters
    ----------
    cost, gain : ndarray, shape (..., P)
        Less cost and more gain are better.

    Returns
    -------
    ndarray of bool, shape (..., P)
    """
    cheaper, richer = cost[..., :, None] <= cost[..., None, :], gain[..., :, None] >= gain[..., None, :]
    strictly = (cost[..., :, None] < cost[..., None, :]) | (gain[..., :, None] > gain[..., None, :])
    return np.asarray(~(cheaper & richer & strictly).any(axis=-2))


def pareto(comparison: Comparison, gain: str = "diversity_kept", seed: int = 0) -> pd.DataFrame:
    """Return every policy's cost and gain, and whether another one beats it in both.

    Parameters
    ----------
    comparison : Comparison
        Its baseline counts as a policy: doing nothing.
    gain : str
        An outcome of which more is better.
    seed : int
        Of the resampling.

    Returns
    -------
    DataFrame
        Indexed by policy: cost, gain (means), non_dominated, and support: the share of resamples of the
        replicates (whole replicates, all policies together: the bootstrap of pairs) in which it is.
    """
    cost, kept = comparison.outcome("cost"), comparison.outcome(gain)
    means = cost.mean().to_numpy(), kept.mean().to_numpy()
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(cost), size=(RESAMPLES, len(cost)))
    resampled = [wide.to_numpy()[picks].mean(axis=1) for wide in (cost, kept)]
    return pd.DataFrame(
        {
            "cost": means[0],
            "gain": means[1],
            "non_dominated": non_dominated(*means),
            "support": non_dominated(*resampled).mean(axis=0),
        },
        index=pd.Index(cost.columns, name="policy"),
    )
