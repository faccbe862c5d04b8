r"""How much human data is enough: exact in the mean field, beside the sufficient conditions published so far.

**Prevention** is asked of a model that starts from the human law, **cure** of one that has collapsed.
Both are infima of λ over which the state reached keeps a given share of the diversity of h.

Why a one-dimensional search is exact (all derived here, on top of `analysis.theory.states`):

* From the human law the mean field reaches the least concentrated state that is ranked as h.
* Along every stable branch, as λ falls, every output but the dominant one loses probability. So the law
  majorises the laws before it, and every Schur-concave diversity (Hill numbers, entropy, Simpson) falls.
  It jumps where the branch folds.
* At one λ the state captured by an output majorises the states captured by less probable outputs, and
  exists up to a larger λ. So the worst collapsed start is the capture by the most probable output; or by
  the second one, where the branch of the first has no fold and is itself what the human law leads to.
* Outputs that tie for the first place stay together in the mean field but not in any run: below the λ
  where their common state loses stability the state reached is the capture by one of them, as in the
  limit of laws that tie ever more closely.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.theory.curves import Curves
from analysis.theory.roots import root_between
from analysis.theory.states import checked_fraction, checked_law, checked_temperature, flattened
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.types import Floats

Metric = Callable[[Floats], float]

_SLACK = 1e-12
"""A share that is short by less than this is kept: the rounding of a sum over a million outputs."""


def effective_number(distribution: Floats) -> float:
    """Return the effective number of outputs, exp(entropy): Hill number of order 1."""
    return float(metrics.hill(distribution, 1))


DIVERSITIES: dict[str, Metric] = {
    "entropy": lambda p: float(metrics.entropy(p)),
    "hill_0": lambda p: float(metrics.hill(p, 0)),
    "hill_1": effective_number,
    "hill_2": lambda p: float(metrics.hill(p, 2)),
    "simpson_diversity": lambda p: float(metrics.simpson_diversity(p)),
}
"""The Schur-concave metrics of a run's table."""


def minimum_fresh_fraction(
    human: ArrayLike,
    temperature: float,
    keep: float = 0.9,
    *,
    start: Literal["human", "collapsed"] = "human",
    metric: Metric | str = effective_number,
) -> float:
    r"""Return the least fresh fraction that keeps (or brings back) a share of the human diversity.

    Parameters
    ----------
    human : array_like, shape (V,)
        The law h of human data.
    temperature : float
        T from 0 to inf.
    keep : float
        Share of metric(h) to be kept, in [0, 1].
    start : "human" or "collapsed"
        Where the model starts: from the human law (prevention) or from the worst collapsed state (cure),
        that is, whatever state it is in.
    metric : callable
        Diversity of a law, shape (V,): positive, and Schur-concave (no larger for a more concentrated
        law, however the outputs are numbered). By default the effective number of outputs, exp(entropy).
        Or the name of a diversity of a run's table: "entropy", "hill_0", "hill_1", "hill_2" or
        "simpson_diversity".

    Returns
    -------
    float
        The infimum of the fresh fractions λ from which on the state reached keeps the share; where the
        branch ends in a fold it is the λ of the fold. At T ≥ 1 it is 0: any human data at all brings
        a model back to h (T = 1) or to something more diverse (T > 1). A captured state that still keeps
        the share counts as kept: `fold_fraction` tells when no such state is left.

    Raises
    ------
    InputError
        If h is no law, or T, keep or start is not allowed.

    Notes
    -----
    Uniform h of 3 or more outputs, and a share that the captured states do not keep: prevention is
    1 − T. Two outputs have no folds: both numbers are the λ where the pitchfork keeps just that share.
    """
    h = checked_law(human)
    t = checked_temperature(temperature)
    if isinstance(metric, str):
        if metric not in DIVERSITIES:
            raise InputError(
                f"metric = {metric!r}: allowed: {', '.join(DIVERSITIES)}, or a function of a law"
            )
        metric = DIVERSITIES[metric]
    enough = checked_fraction("keep", keep) * metric(h)
    if start not in ("human", "collapsed"):
        raise InputError(f'start = {start!r}: must be "human" or "collapsed"')

    def spare(distribution: Floats) -> float:
        return float(metric(distribution)) - enough + _SLACK * abs(enough)

    if t >= 1 or h.max() == 1:
        return _smallest(lambda fresh: spare(flattened(h, t, fresh)))
    if t == 0:
        captured = np.zeros(h.size)
        captured[h.argmax()] = 1.0
        return _smallest(lambda fresh: spare(fresh * h + (1 - fresh) * captured))
    curves = Curves(h, t)
    prevention = _prevention(curves, spare)
    if start == "human":
        return prevention
    return max(prevention, _from_captured(curves, _worst(curves), spare))


def _smallest(spare: Callable[[float], float]) -> float:
    """Return the least λ with enough to spare, if more of it is never worse."""
    if spare(0.0) >= 0:
        return 0.0
    return root_between(spare, 0.0, 1.0) if spare(1.0) > 0 else 1.0


def _prevention(curves: Curves, spare: Metric) -> float:
    """Follow the state that the human law leads to, from λ = 1 down, to where it keeps the share no more."""
    tied = len(curves.ties) > 1
    end = min(curves.healthy_to, 0.0) if tied else curves.healthy_to
    if spare(curves.distribution(end)) < 0:
        start = min(end, 0.0) - 1 / curves.a
        while spare(curves.distribution(start)) < 0:
            start *= 2
        p = root_between(lambda p: spare(curves.distribution(p)), start, end)
        return float(np.exp(curves.log_fresh(p)))
    # The healthy branch keeps the share to its end; below, the most probable output takes over.
    fresh = np.exp(curves.log_fresh(end))
    return min(float(fresh), _from_captured(curves, int(curves.ties[0]), spare))


def _worst(curves: Curves) -> int:
    """Return the output whose captured state is the last to vanish."""
    if len(curves.ties) > 1 or curves.turns is not None:
        return int(curves.ties[0])
    return int(np.argsort(-curves.human, kind="stable")[1])


def _from_captured(curves: Curves, output: int, spare: Metric) -> float:
    """Return the λ below which the state captured by an output exists and keeps less than the share."""
    first, branch = curves.captured_from(output)
    if spare(curves.distribution(first, branch)) < 0:
        return float(np.exp(curves.log_fresh(first, branch)))
    falling = 1.0 if branch is None else -1.0  # the direction in which λ falls
    last = first + falling
    while spare(curves.distribution(last, branch)) >= 0:
        if curves.log_fresh(last, branch) < -700:
            return 0.0
        falling *= 2
        last = first + falling
    p = root_between(lambda p: spare(curves.distribution(p, branch)), first, last)
    return float(np.exp(curves.log_fresh(p, branch)))


@dataclass(frozen=True)
class PublishedBounds:
    """Sufficient conditions: the least fresh fraction λ and the least human-to-synthetic ratio μ = λ/(1−λ).

    A ratio of inf, λ = 1, says that no amount of human data meets the condition.

    Attributes
    ----------
    fisher_rao, fisher_rao_ratio : float
        λ and μ of the Fisher-Rao condition.
    euclidean, euclidean_ratio : float
        λ and μ of the earlier Euclidean condition.
    """

    fisher_rao: float
    fisher_rao_ratio: float
    euclidean: float
    euclidean_ratio: float


def published_bounds(
    human: ArrayLike,
    temperature: float,
    *,
    kappa: float = 1.0,
    training_error: float = 0.0,
    equilibrium: ArrayLike | None = None,
) -> PublishedBounds:
    r"""Return how much human data the published theorems ask for.

    .. math::

        \text{Fisher-Rao:}\quad & \mu \ge \max\Big\{\frac{1 + T \eta_{FR}\,\kappa}{T\,\delta\,\kappa},\
            \frac{\eta + 2\eta_{FR}/\kappa}{\delta}\Big\}, \qquad \eta_{FR} = \frac{1}{T \min_v \Theta_{e,v}},

        \text{Euclidean:}\quad & \kappa\,(\mu\,\delta - \eta)\,T > 1 .

    Both are *sufficient* for the closed loop to settle at its healthy equilibrium; neither is an
    estimate of the least amount, for which see `minimum_fresh_fraction`.

    Parameters
    ----------
    human : array_like, shape (V,)
        The law h; δ = min_v h_v.
    temperature : float
        T from 0 to inf. At T = 0 no amount meets the conditions.
    kappa : float
        κ in (0, 1], read here as how much of the floor under Θ (lemma 1 of the first source, 1 − e^{−s})
        has been reached: it tends to 1 with time, where both conditions ask for the least.
    training_error : float
        η ≥ 0, the bound on the training error, ‖ε‖_∞ ≤ η.
    equilibrium : array_like, shape (V,), optional
        Θ_e, the healthy equilibrium. By default that of the ratio μ itself, so that the condition is an
        equation for μ, solved here.

    Returns
    -------
    PublishedBounds

    Raises
    ------
    InputError
        If h or the equilibrium is no law, or a number is not allowed.

    Notes
    -----
    Sources: Marchi, Silvestre, Gharesifard, Tabuada, *Preventing Model Collapse: A Fisher-Rao
    Perspective* (which calls the exact minimum an open question), and Gharesifard, Tabuada, CDC 2025.
    """
    h = checked_law(human)
    t = checked_temperature(temperature)
    kappa = checked_fraction("kappa", kappa)
    if kappa == 0 or not 0 <= training_error < np.inf:
        raise InputError(
            f"kappa = {kappa!r}, training_error = {training_error!r}: "
            "must be a number above 0, up to 1, and a number from 0"
        )
    least = float(h.min())
    if least == 0 or t == 0:
        return PublishedBounds(1.0, np.inf, 1.0, np.inf)

    def fisher_rao(floor: float) -> float:
        eta = 1 / (t * floor)
        return max((1 / (t * kappa) + eta) / least, (training_error + 2 * eta / kappa) / least)

    if equilibrium is not None:
        floor = float(checked_law(equilibrium).min())
        ratio = fisher_rao(floor) if floor > 0 else np.inf
    else:
        ratio = _self_consistent(h, t, fisher_rao)
    euclidean = (1 / (kappa * t) + training_error) / least
    return PublishedBounds(_fresh(ratio), ratio, _fresh(euclidean), euclidean)


def _fresh(ratio: float) -> float:
    return 1.0 if np.isinf(ratio) else ratio / (1 + ratio)


def _self_consistent(human: Floats, temperature: float, bound: Callable[[float], float]) -> float:
    """Return the least μ that meets a bound which depends on its own healthy equilibrium's least entry.

    The bound falls as that entry grows, and μ exceeds it from one value on. The least entry of Θ_e lies
    between that of h and 1/V at T ≥ 1, and below that of h at T < 1 (where it tends to it as μ grows).
    """
    curves = Curves(human, temperature) if temperature < 1 else None

    def excess(log_ratio: float) -> float:
        log_fresh = -float(np.log1p(np.exp(-log_ratio)))
        if curves is None:
            floor = float(flattened(human, temperature, float(np.exp(log_fresh))).min())
        else:
            p = curves.healthy_at(log_fresh)
            floor = float(curves.distribution(p).min()) if p is not None else 0.0
        return log_ratio - float(np.log(bound(floor))) if floor > 0 else -np.inf

    at_human = bound(float(human.min()))
    if at_human > 1e15 or np.isinf(temperature):
        return at_human  # 1 − λ is below the last bit of λ and Θ_e is h, or Θ_e does not matter
    ends = np.log(at_human), np.log(bound(1 / human.size))
    first, last = min(ends), max(ends)
    if temperature < 1:
        first = last
    while excess(first) > 0:  # only ever by rounding
        first -= 1e-9
    while excess(last) < 0:
        last += 1e-9 + 2 * (last - first)
    return float(np.exp(root_between(excess, first, last) if last > first else first))
