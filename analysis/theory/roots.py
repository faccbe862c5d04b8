r"""The scalar equation that every output obeys at a fixed point, and its low and high root.

At a fixed point of one model with temperature T < 1 every output solves

.. math:: \Theta_v - s\,\Theta_v^{1/T} = \lambda h_v, \qquad s = (1-\lambda) / \sum_u \Theta_u^{1/T}.

The left side rises from 0 to its crest at :math:`c = (T/s)^{T/(1-T)}` and falls again: at most one root
below the crest (*low*) and one above (*high*). In units of the crest, y = Θ/c, and with a = 1/T − 1,

.. math:: y (1 - T g) = \lambda h_v / c, \qquad g = y^a,

where g = (1−λ) τ_v / (T Θ_v) is the gain of the output: the factor by which sampling and retraining
multiply a small change of Θ_v at fixed s. g < 1 on the low root, g > 1 on the high one.

Everything here is a function of u = ln y, which cannot overflow; at T → 1 it is large, at T → 0 tiny.
The equation reads D(u) = d with d = ln(largest left side) − ln(left side) ≥ 0, the *depth* below the crest:

.. math:: D(u) = -u - \ln(1 - (e^{au} - 1)/a).

Derived here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from ecosystem.types import Floats

_EPS = float(np.finfo(np.float64).eps)


def root_between(function: Callable[[float], float], one: float, other: float) -> float:
    """Return a root of a function that changes sign between two points, to the last bits."""
    return float(optimize.brentq(function, one, other, xtol=1e-300, rtol=8 * _EPS, maxiter=1000))


@dataclass(frozen=True)
class Root:
    r"""One output on its curve.

    Attributes
    ----------
    u : float
        ln y, logarithm of Θ_v in units of the crest.
    q : float
        ln((1 − T g) / (1 − T)): ≥ 0 on the low root, ≤ 0 on the high one. u + q = −depth.
    """

    u: float
    q: float

    @property
    def depth(self) -> float:
        """Logarithm of how far λ h_v / c lies below the largest value that has a root."""
        return max(0.0, -self.u - self.q)


def along(p: float, a: float) -> Root:
    """Return the root at position p of the curve: low for p < 0, the crest at p = 0, high for p > 0.

    On the low side p is u itself; on the high side it is −q, which stays exact where 1 − T g vanishes.
    """
    if p <= 0:
        return Root(p, float(np.log1p(-np.expm1(a * p) / a)))
    return Root(float(np.log1p(-a * np.expm1(-p)) / a), -p)


def high(depth: float, a: float) -> Root:
    """Return the high root at a given depth, 0 ≤ depth ≤ inf (inf: an output that no human writes).

    −q = depth + u with 0 ≤ u ≤ ln(1 + a)/a brackets it.
    """
    top = float(np.log1p(a) / a)
    if depth == 0:
        return Root(0.0, 0.0)
    if np.isinf(depth):
        return Root(top, -np.inf)

    def excess(p: float) -> float:
        return along(p, a).depth - depth

    last = depth + top
    if excess(last) <= 0:  # by rounding, when u is top to the last bit
        return along(last, a)
    return along(root_between(excess, 0.0, last), a)


def low(log_ratio: Floats, reference: Root, a: float) -> Floats:
    r"""Return ln(Θ_v / Θ_0) of outputs on their low roots, relative to one reference output.

    Parameters
    ----------
    log_ratio : ndarray, shape (n,)
        ln(h_v / h_0) < 0, finite.
    reference : Root
        Where output 0 lies (low or high).
    a : float
        1/T − 1 > 0.

    Returns
    -------
    ndarray, shape (n,)
        δ_v, the roots of δ + q(u_0 + δ) − q_0 = ln(h_v/h_0) with u_0 + δ < 0.

    Notes
    -----
    Solved for the difference δ because u_0 is of order 1/(1−T) near T = 1. The left side is increasing
    and concave in δ, so Newton's method from below the root increases to it and never passes it. Two
    lower bounds start it: q ≤ ln(1 + 1/a) everywhere, and one Newton step from the upper bound
    u ≤ −√(2 d T), which holds because D'' ≤ 1/T; the second is sharp near the crest.
    """

    def shortfall_and_slope(delta: Floats) -> tuple[Floats, Floats]:
        rise = -np.expm1(a * np.minimum(reference.u + delta, 0.0)) / a  # (1 − g)/a
        return log_ratio - (delta + np.log1p(rise) - reference.q), rise * (1 + a) / (1 + rise)

    depth = np.maximum(reference.depth - log_ratio, 0.0)
    delta = -np.sqrt(2 * depth / (1 + a)) - reference.u
    shortfall, slope = shortfall_and_slope(delta)
    delta = np.maximum(delta + shortfall / np.maximum(slope, _EPS), log_ratio + reference.q - np.log1p(1 / a))
    enough = 2 * _EPS * (1 + abs(log_ratio) + abs(delta))
    for _ in range(100):
        shortfall, slope = shortfall_and_slope(delta)
        wrong = abs(shortfall) > enough
        if not wrong.any():
            break
        delta = np.where(wrong, delta + shortfall / np.maximum(slope, _EPS), delta)
    return delta


def lifted(log_ratio: Floats, log_gain: float, temperature: float) -> Floats:
    r"""Return ln(Θ_v / Θ_0) at T > 1, where each output has one root.

    Parameters
    ----------
    log_ratio : ndarray, shape (n,)
        ln(h_v / h_0) ≤ 0, finite.
    log_gain : float
        ln((1−λ) τ_0 / Θ_0) < 0 of the reference output, the most probable one.
    temperature : float
        1 < T ≤ inf.

    Notes
    -----
    The root δ ≤ 0 of G e^{−κδ} + (1−G) (h_v/h_0) e^{−δ} = 1 with κ = 1 − 1/T and ln G = log_gain (the
    fixed-point equation of v divided by Θ_v). The left side is convex and decreasing, so Newton's method
    from below increases to the root. Lower bounds to start from: either term alone is at most 1 at the
    root, and the second at least (1−G) h_v/h_0.
    """
    kappa = 1 - 1 / temperature
    gain, rest = np.exp(log_gain), -np.expm1(log_gain)
    log_human = log_ratio + np.log(rest)
    delta = np.maximum(log_human, (log_gain - np.log(gain - rest * np.expm1(log_ratio))) / kappa)
    for _ in range(100):
        sampled, fresh = np.exp(log_gain - kappa * delta), np.exp(log_human - delta)
        step = (sampled + fresh - 1) / (kappa * sampled + fresh)
        delta = np.minimum(delta + step, 0.0)
        if (abs(step) <= 4 * _EPS * (1 + abs(delta))).all():
            break
    return delta
