r"""Training from scratch on one's own outputs at T = 1: Wright-Fisher drift, fixation, symbol survival.

A provider alone, without human data (λ = 0), that ``replace``s its model by the frequencies of its newest
n = m = B items resamples them: given counts c, the next counts are multinomial(n, c/n). The count of one
output is a Markov chain of its own, binomial(n, c_v/n), whatever the other outputs do; every law here
follows from that chain of n + 1 states.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import linalg, special

from analysis.theory.states import checked_law
from analysis.theory.urns import positive
from ecosystem.errors import InputError
from ecosystem.types import Floats

_LARGEST = 4000
"""Items a round up to which the chain is kept as a dense matrix (n² numbers)."""


def fixation_time(initial: ArrayLike, batch_size: int) -> float:
    r"""Return the mean number of rounds until a single output is left, exactly.

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0) = p, not necessarily multiples of 1/n. Round 1 draws the first n items from it.
    batch_size : int
        n from 1 to 4000; for more, `fixation_time_diffusion` is exact to 0.001 rounds.

    Returns
    -------
    float
        0 if one output holds everything already.

    Notes
    -----
    Derived here. The outputs' fixations are disjoint events, so with X the count of one output

    .. math:: E\,t = \sum_{k ≥ 0} \Big[1 − \sum_v P(X_k^v = n)\Big] = 1 + \sum_v E\,u(X_1^v), \qquad
        u(c) = \frac{c}{n} + \sum_{c'} P_{cc'} u(c'), \quad u(0) = u(n) = 0,

    because the shares c_v/n sum to 1: u(c) is the mean of the time, counted only if v is the output that
    is left. So V outputs cost one linear system for two.
    """
    p, n = checked_law(initial, "initial"), _items(batch_size)
    if p.max() == 1:
        return 0.0
    time = np.zeros(n + 1)
    inner = slice(1, n)
    chain = _binomial(n, np.arange(1, n) / n)
    time[inner] = linalg.solve(np.eye(n - 1) - chain[:, inner], np.arange(1, n) / n) if n > 1 else 0.0
    return float(1 + (_binomial(n, p[p > 0]) @ time).sum())


def fixation_time_diffusion(initial: ArrayLike, batch_size: float, corrected: bool = True) -> float:
    r"""Return the mean number of rounds until a single output is left, for many items a round.

    .. math:: −2n \sum_v (1−p_v)\ln(1−p_v) − \tfrac13\Big[\ln n + \sum_v p_v \ln(1−p_v)\Big] − 0.7217

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0) = p.
    batch_size : float
        n ≥ 1.
    corrected : bool
        Whether to go beyond the first term, the diffusion limit of Kimura and Ohta (1969); from 10 equal
        outputs it is 1.896 n.

    Notes
    -----
    Derived here: expand u of `fixation_time` as n u₀ + u₁. With moments p(1−p)/n, p(1−p)(1−2p)/n² and
    3p²(1−p)²/n² of a step, order 1 gives u₀'' = −2/(1−p), and order 1/n

    .. math:: u_1'' = \frac{1}{3(1−p)^2} + \frac{1}{3(1−p)}, \qquad u_1 = −\tfrac13 p \ln(1−p) + C p.

    It diverges at p → 1, where n(1−p) is small and the chain a critical branching process of the outputs
    about to vanish; matching there gives C = −(1/3) ln n + c, the same c for all p. Its value −0.7217 is
    fitted to `fixation_time`. What is left is about −0.15/n unless some n(1−p_v) is small.
    """
    p, n = checked_law(initial, "initial"), positive(batch_size, "batch_size")
    if p.max() == 1:
        return 0.0
    time = -2 * n * special.xlog1py(1 - p, -p).sum()
    if corrected:
        time -= (np.log(n) + special.xlog1py(p, -p).sum()) / 3 + 0.7217
    return float(time)


def unfixed_probability(initial: ArrayLike, batch_size: int, rounds: int) -> Floats:
    """Return the probability that more than one output is left after 0, 1, ..., rounds: shape (rounds + 1,).

    Exact, for up to 4000 items a round: 1 − Σ_v P(X_k^v = n), see `fixation_time`.
    """
    p, n = checked_law(initial, "initial"), _items(batch_size)
    all_of_it = np.zeros(n + 1)
    all_of_it[n] = 1
    held = _backwards(p[p > 0], n, all_of_it, _whole(rounds, "rounds"))
    return np.concatenate([[float(p.max() < 1)], np.maximum(1 - held.sum(axis=1), 0.0)])


def symbol_survival(probability: ArrayLike, batch_size: int, generations: int) -> Floats:
    """Return the probability that an output still occurs in generation 1, ..., generations, exactly.

    Parameters
    ----------
    probability : array_like, shape (...)
        Θ_v(0), from 0 to 1.
    batch_size : int
        n items a generation, 1 to 4000; for more, `symbol_survival_poisson` with mean n Θ_v(0).
    generations : int
        k ≥ 1.

    Returns
    -------
    ndarray, shape (generations, ...)
        P(X_k > 0), from the binomial chain of the output's count.
    """
    p = np.asarray(probability, dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(f"probability = {probability!r}: allowed: from 0 to 1")
    n = _items(batch_size)
    some = np.ones(n + 1)
    some[0] = 0
    held = _backwards(p.ravel(), n, some, _whole(generations, "generations"))
    return held.reshape(-1, *p.shape)


def symbol_survival_poisson(mean: ArrayLike, generations: int) -> Floats:
    r"""Return the survival of an output whose counts are Poisson: mean λ first, then the count before.

    Parameters
    ----------
    mean : array_like, shape (...)
        λ ≥ 0, expected count in generation 1.
    generations : int
        k ≥ 1.

    Returns
    -------
    ndarray, shape (generations, ...)
        P(X_k > 0), exactly.

    Notes
    -----
    The limit of `symbol_survival` for n → ∞ and n p = λ: a critical branching process. Iterating the
    generating function e^{s−1} at s = 0,

    .. math:: P(X_k > 0) = 1 − e^{−λ q_k}, \qquad q_1 = 1, \quad q_{k+1} = 1 − e^{−q_k}.

    As 1 − e^{−1/k} ≥ 1/(k+1), q_k ≥ 1/k: the published `symbol_survival_bound`. Since q_k → 2/k, an
    output lives about twice as long as the bound says.
    """
    lam = _counts(mean)
    survival = np.empty((_whole(generations, "generations"), *lam.shape))
    q = 1.0
    for k in range(generations):
        survival[k] = -np.expm1(-lam * q)
        q = -np.expm1(-q)
    return survival


def symbol_survival_bound(mean: ArrayLike, generations: int) -> Floats:
    """Return 1 − exp(−λ/k), k = 1, ..., generations: the lower bound of Suresh et al., arXiv:2412.17646.

    Parameters and shapes as `symbol_survival_poisson`.
    """
    lam = _counts(mean)
    k = np.arange(1, _whole(generations, "generations") + 1).reshape(-1, *[1] * lam.ndim)
    return -np.expm1(-lam / k)


# --- the chain of one output's count --------------------------------------------------------------------


def _binomial(n: int, p: Floats) -> Floats:
    """Return P(c items of n | chance p), shape (len(p), n + 1)."""
    counts = np.arange(n + 1)
    choose = special.gammaln(n + 1) - special.gammaln(counts + 1) - special.gammaln(n - counts + 1)
    given = p[:, None]
    return np.exp(choose + special.xlogy(counts, given) + special.xlog1py(n - counts, -given))


def _backwards(p: Floats, n: int, value: Floats, rounds: int) -> Floats:
    """Return E value(X_k) for k = 1, ..., rounds, shape (rounds, len(p)), by k − 1 backward steps."""
    first, chain = _binomial(n, p), _binomial(n, np.arange(n + 1) / n)
    means = np.empty((rounds, p.size))
    for k in range(rounds):
        means[k] = first @ value
        value = chain @ value
    return means


def _items(batch_size: int) -> int:
    n = _whole(batch_size, "batch_size")
    if n > _LARGEST:
        raise InputError(
            f"batch_size = {n}: the exact chain is for up to {_LARGEST} items; beyond, use "
            "fixation_time_diffusion or symbol_survival_poisson"
        )
    return n


def _whole(value: int, name: str) -> int:
    if value != int(value) or value < 1:
        raise InputError(f"{name} = {value}: allowed: a whole number, 1 or more")
    return int(value)


def _counts(mean: ArrayLike) -> Floats:
    lam = np.asarray(mean, dtype=np.float64)
    if not ((lam >= 0) & np.isfinite(lam)).all():
        raise InputError(f"mean = {mean!r}: allowed: finite numbers, 0 or more")
    return lam
