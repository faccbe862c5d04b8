r"""What sampling temperature and truncation do to a learned distribution.

.. math:: \tau_T(\Theta)_v = \Theta_v^{1/T} \Big/ \sum_u \Theta_u^{1/T}

T = 1 is the trivial temperature: sampling is the identity. T < 1 sharpens, T > 1 flattens.
Source: Marchi, Soatto, Chaudhari, Tabuada, *Heat Death of Generative Models in Closed-Loop
Learning*, arXiv:2404.02325, section 2.
"""

import numpy as np
from numpy.typing import ArrayLike

from ecosystem.errors import InputError
from ecosystem.types import Floats

TIE = 1e-12
"""Relative difference up to which two probabilities are a tie: learning rounds equal counts differently."""


def tempered(distribution: ArrayLike, temperature: ArrayLike) -> Floats:
    """Return the distribution that outputs are drawn from at a sampling temperature.

    Parameters
    ----------
    distribution : array_like, shape (..., V)
        Non-negative weights along the last axis, each with a positive sum.
    temperature : array_like, shape () or (...)
        Temperature T of each distribution, 0 ≤ T ≤ inf.

    Returns
    -------
    ndarray, shape (..., V)
        T = 0: all mass on the largest weight, shared equally by ties (up to rounding). T = 1: the input,
        unchanged. T = inf: uniform over the support. A weight of exactly 0 stays exactly 0 at every T.

    Raises
    ------
    InputError
        If a temperature is negative or not a number.

    Notes
    -----
    Computed on logarithms relative to the largest weight, so neither T = 0.01 nor a weight of
    1e-300 overflows; what is too small for a double underflows to 0.
    """
    theta = np.asarray(distribution, dtype=np.float64)
    t = np.asarray(temperature, dtype=np.float64)
    if not (t >= 0).all():
        raise InputError(f"temperature = {temperature!r}: must be a number from 0 to inf")
    if t.ndim == 0 and t == 1:
        return theta.copy()
    peak = theta.max(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # At T = 0 the largest weight is 0/0 and at T = inf a zero weight is -inf/inf: both set below.
        weights = np.exp(np.log(theta / peak) / t[..., None])
    weights = np.where(theta == peak, 1.0, np.where(theta > 0, weights, 0.0))
    weights = np.where(t[..., None] == 0, theta >= peak * (1 - TIE), weights)
    tau = weights / weights.sum(axis=-1, keepdims=True)
    return np.where(t[..., None] == 1, theta, tau)


def truncated(distribution: Floats, top_k: int | None = None, top_p: float | None = None) -> Floats:
    """Return the distribution restricted to its most probable outputs.

    Parameters
    ----------
    distribution : ndarray, shape (V,)
        Probabilities, after temperature.
    top_k : int, optional
        Keep the ``top_k`` ≥ 1 most probable outputs.
    top_p : float, optional
        Then keep the smallest set of most probable outputs that holds at least the share
        0 < ``top_p`` ≤ 1 of what top-k left (nucleus sampling, Holtzman et al. 2020).

    Returns
    -------
    ndarray, shape (V,)
        Renormalised; the input itself when nothing is to be cut.

    Notes
    -----
    Outputs that tie with the last one kept are kept too: which outputs survive must not depend on
    how they are numbered.
    """
    kept = distribution
    if top_k is not None and top_k < kept.size:
        kept = np.where(kept >= (1 - TIE) * np.partition(kept, -top_k)[-top_k], kept, 0.0)
    if top_p is not None and top_p < 1:
        falling = np.sort(kept)[::-1]
        held = np.cumsum(falling)
        # The slack keeps a set that holds the share up to rounding from gaining one more output.
        last = np.searchsorted(held, (top_p - 1e-12) * held[-1], side="left")
        kept = np.where(kept >= (1 - TIE) * falling[last], kept, 0.0)
    return kept if kept is distribution else kept / kept.sum()
