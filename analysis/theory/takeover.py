r"""Which output takes over at T < 1: Rubin's exponential embedding, evaluated to nine digits.

An output of weight w has explosion time S = Σ_k E_k / (w + k)^α, α = 1/T > 1, where the E_k are
independent exponentials of mean 1; the output whose time is the smallest takes over. Laws of explosion
times follow from their transform

.. math:: φ(s) = E\,e^{−sS} = \prod_{k ≥ 0} \frac{1}{1 + s/(w+k)^α}

in one of two ways, by what its poles −(w+k)^α allow. Far apart (α large), the sum over their residues
converges within a few terms; close together (w large or α small), the residues cancel, but S is then so
smooth that a fast Fourier transform resolves it. Time is in units of (largest weight)^−α throughout, where
the mean of S is about w/(α − 1). That part is common to all outputs and drowns what they differ by as
α → 1: "centred" means that it is left out, exactly.
"""

import bisect

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft

from analysis.theory.states import checked_law
from analysis.theory.urns import positive
from ecosystem.errors import InputError
from ecosystem.types import Floats, Integers

_NEVER = 45.0
"""exp(−45) ≈ 3e-20: what is less likely is left out."""


def takeover_probabilities(initial: ArrayLike, pretraining_size: float, temperature: float) -> Floats:
    r"""Return the probability that each output takes over at T < 1, shape (V,).

    For a provider alone, without human data, that accumulates single items (λ = 0, B = m = 1).

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0).
    pretraining_size : float
        ℓ(0) > 0; the starting weights ℓ(0) Θ_v(0) need not be whole.
    temperature : float
        0 ≤ T < 1. At T = 0 the first item decides: ties for the largest weight share the chance. For T → 1
        a takeover takes ever longer, by the largest component of Pólya's Dirichlet law.

    Returns
    -------
    ndarray, shape (V,)
        Sums to 1; absolute error below 1e-9.

    Raises
    ------
    InputError
        If T ≥ 1, where no output takes over.

    Notes
    -----
    Rubin's embedding (in Davis, 1990; Drinea, Frieze, Mitzenmacher, 2002): let output v make its k-th
    step, k = 0, 1, ..., after an exponential time of rate (w_v + k)^α, independently of all others. By
    the lack of memory, the order of all steps is that of the urn's draws. As α > 1, the time S_v of
    infinitely many steps is finite, and the output with the smallest one takes all but finitely many
    items:

    .. math:: P(v) = P(S_v = \min_u S_u) = \int f_v(t) \prod_{u≠v} P(S_u > t)\,dt.
    """
    p = checked_law(initial, "initial")
    size = positive(pretraining_size, "pretraining_size")
    if not 0 <= temperature < 1:
        raise InputError(f"temperature = {temperature}: an output takes over only for 0 ≤ T < 1")
    wins = np.zeros(p.size)
    if temperature == 0:
        wins[p == p.max()] = 1 / (p == p.max()).sum()
    else:
        wins[p > 0] = _takeover(size * p[p > 0], 1 / temperature)
    return wins


def _takeover(weights: Floats, exponent: float) -> Floats:
    """Return the takeover probabilities of positive weights: one quadrature over explosion times."""
    distinct, kind, count = np.unique(weights, return_inverse=True, return_counts=True)
    if weights.size == 1:
        return np.ones(1)
    # Tiny weights make the first step slow and all others fast, too much for one grid in time: draw the
    # first item by hand, and let the clock start afterwards. Then some output has a weight of 1 or more.
    tiny = distinct[-1] < 0.5
    rows = np.unique(np.concatenate([distinct, distinct + 1])) if tiny else distinct
    leader = distinct[0] + 1 if tiny else distinct[-1]
    spread_out = exponent >= max(2.5, rows[-1])
    for oversampling in (4, 16, 64):
        if spread_out:
            measure, density, survival = _by_residues(rows, exponent, leader)
        else:
            measure, density, survival = _by_fourier(rows, exponent, leader, oversampling)
        if tiny:
            now, later = np.searchsorted(rows, distinct), np.searchsorted(rows, distinct + 1)
            first = (distinct / distinct[-1]) ** exponent
            first /= count @ first
            ratio = survival[later] / np.maximum(survival[now], 1e-300)
            # f_v Σ_{u≠v} P(u first) ratio_u + P(v first) f_v after its step; times the other survivals.
            drawn = density[now] * ((count * first) @ ratio - first[:, None] * ratio)
            drawn += first[:, None] * density[later]
            wins = _smallest(measure, drawn, survival[now], count)
        else:
            wins = _smallest(measure, density, survival, count)
        if abs(count @ wins - 1) < 1e-9 + 1e-12 * weights.size:
            break
    else:
        raise ArithmeticError(f"takeover probabilities sum to {count @ wins:.12f}, not to 1")
    return np.maximum(wins / (count @ wins), 0.0)[kind]


def _smallest(measure: Floats, density: Floats, survival: Floats, count: Integers) -> Floats:
    """Return ∫ f_v Π_{u≠v} P(S_u > t) dt for one output of every kind, ``count`` of which there are."""
    log_survival = np.log(np.maximum(survival, 1e-300))
    return (density * np.exp(count @ log_survival - log_survival)) @ measure


# --- the law of explosion times, as (quadrature weights, densities, survival functions) -----------------


def _by_residues(weights: Floats, exponent: float, leader: float) -> tuple[Floats, Floats, Floats]:
    r"""Sum the residues, P(S > t) = Σ_k c_k e^{−ρ_k t}, c_k = Π_{j≠k} ρ_j/(ρ_j − ρ_k), on a grid in ln t.

    For α ≥ 5/2 they fall off as exp(−π k cot(π/α)), and for w ≤ α none is large.
    """
    scale = weights[-1]
    _, stop = _window(leader, exponent, scale)
    log_time = np.arange(np.log(1e-17), np.log(stop + scale / (exponent - 1)), 0.02)
    time = np.exp(log_time)
    density, survival = np.zeros((weights.size, time.size)), np.ones((weights.size, time.size))
    for row, weight in enumerate(weights):
        rates = _rates(weight, np.arange(64), exponent, scale)
        if rates[0] < 1e-100:
            continue  # hopeless
        rates = rates[rates < 1e100]  # what is faster is over before the grid begins
        logs = [_log_transform(-rates[k : k + 1], weight, exponent, scale, skip=k) for k in range(rates.size)]
        coefficients = np.exp(np.concatenate(logs)).real
        decay = np.exp(-np.outer(rates, time))
        survival[row] = coefficients @ decay
        density[row] = (coefficients * rates) @ decay
    return time * 0.02, density, survival


def _by_fourier(
    weights: Floats, exponent: float, leader: float, oversampling: int
) -> tuple[Floats, Floats, Floats]:
    """Invert the transforms by one fast Fourier transform each, on the times at which a winner explodes.

    Abate, Whitt (1992): the inverse of φ on the line Re s = γ is e^{−γt} f(t), made periodic. A period of
    four windows and γ = 30/period keep both the wrapped tail and the amplified rounding near 1e-13.
    """
    start, _ = _window(weights[-1], exponent, weights[-1])
    _, stop = _window(leader, exponent, weights[-1])
    period = 4 * (stop - start)
    damping = 30 / period
    step = 2 * np.pi / period

    def transform(weight: float, frequency: np.ndarray) -> np.ndarray:
        s = damping + 1j * frequency
        return np.exp(s * start + _log_transform(s, weight, exponent, weights[-1], centred=True))

    # The narrowest law, that of the largest weight, decides how many frequencies there are.
    most = 64
    while abs(transform(weights[-1], np.array([most * step]))[0]) > 1e-17:
        most *= 2
    frequency = step * np.arange(most)
    n = fft.next_fast_len(2 * most * oversampling, real=True)
    kept = n // 4
    time = period / n * np.arange(kept)
    growth = n / period * np.exp(damping * time)
    density, survival = np.zeros((weights.size, kept)), np.ones((weights.size, kept))
    for row in range(_first_contender(weights, exponent, stop), weights.size):
        values = transform(weights[row], frequency)
        density[row] = growth * fft.irfft(values, n)[:kept]
        survival[row] = 1 - growth * fft.irfft(values / (damping + 1j * frequency), n)[:kept]
    return np.full(kept, period / n), density, survival


def _window(weight: float, exponent: float, scale: float) -> tuple[float, float]:
    """Return the centred times between which a weight explodes, but for a chance of 1e-19 on either side.

    Before the start for the largest weight nothing happens, as others explode later; and after the stop
    for one that is sure to be there, ``leader``, it is too late to win. Below the mean, sums of positive
    variables are sub-Gaussian, P(S ≤ μ − x) ≤ exp(−x²/(2 Σ E X_k²)), where E X_k² = 2 Var X_k; above,
    Chernoff's bound.
    """
    mean, deviation = _mean_and_deviation(weight, exponent, scale)
    start = max(-scale / (exponent - 1), mean - 2 * deviation * _NEVER**0.5)
    first_step = np.exp(min(exponent * np.log(scale / weight), 345.0))  # as far as `_rates` go
    # The best rate is near 9.5 over the deviation, and always below that of the first step.
    rates = np.geomspace(1e-3, 1, 60) * min(0.95 / first_step, 20 / deviation)
    bounds = (_NEVER + _log_transform(-rates, weight, exponent, scale, centred=True).real) / rates
    return start, float(bounds.min())


def _first_contender(weights: Floats, exponent: float, stop: float) -> int:
    """Return the position of the least weight that may explode before ``stop`` with a chance above 1e-19.

    Larger weights explode earlier, so those before it are hopeless. Three bounds, cheap ones first: the
    first step alone takes too long; the sub-Gaussian bound of `_window`; Chernoff's.
    """
    scale = weights[-1]
    absolute = stop + scale / (exponent - 1)
    s = np.geomspace(10, 1e4, 12) / absolute

    def hopes(weight: float) -> bool:
        if absolute * (weight / scale) ** exponent < np.exp(-_NEVER):
            return False
        mean, deviation = _mean_and_deviation(weight, exponent, scale)
        if mean - stop > 2 * deviation * _NEVER**0.5:
            return False
        transform = _log_transform(s, weight, exponent, scale, centred=True).real
        return bool((s * stop + transform).min() > -_NEVER)

    return bisect.bisect_left(weights, True, hi=weights.size - 1, key=hopes)


def _log_transform(
    s: np.ndarray, weight: float, exponent: float, scale: float, skip: int = -1, centred: bool = False
) -> np.ndarray:
    r"""Return ln φ(s) of an explosion time, time in units of scale^−α, optionally without one factor.

    Factors are multiplied until z = s/rate is small, and the logarithms of the others expanded:
    Σ_{k≥K} ln(1 + s/(w+k)^α) = Σ_n (−1)^{n+1} s^n ζ(αn, w+K)/n, with the Hurwitz zeta function ζ.
    """
    s = np.asarray(s, dtype=np.complex128)
    small = 4 ** -min(exponent, 2.0)
    needed = scale * (np.abs(s).max() / small) ** (1 / exponent) - weight
    explicit = int(max(0.0, skip + 1, np.ceil(needed)))
    total = np.zeros(s.shape, dtype=np.complex128)
    for steps in np.array_split(np.arange(explicit), 1 + explicit * s.size // 1_000_000):
        total -= np.log1p(s[:, None] / _rates(weight, steps[steps != skip], exponent, scale)).sum(axis=1)
    after = weight + explicit
    z = s * (scale / after) ** exponent
    total -= s * _mean_and_deviation(after, exponent, scale)[0] if centred else z * _zeta(exponent, after)
    for n in range(2, 1 + int(np.log(1e-17) / np.log(small))):
        total += (-z) ** n / n * _zeta(exponent * n, after)
    return total


def _mean_and_deviation(weight: float, exponent: float, scale: float) -> tuple[float, float]:
    """Return the centred mean Σ_k (scale/(w+k))^α − scale/(α−1) and the standard deviation of S."""
    # What Euler and Maclaurin's integral ∫_w^∞ (scale/x)^α dx adds, without scale/(α−1).
    beyond = scale * np.expm1((1 - exponent) * np.log(weight / scale)) / (exponent - 1)
    unit = np.exp(min(exponent * np.log(scale / weight), 345.0))
    mean = unit * _zeta(exponent, weight, integral=False) + beyond
    return float(mean), float(unit * _zeta(2 * exponent, weight) ** 0.5)


def _rates(weight: float, steps: np.ndarray, exponent: float, scale: float) -> Floats:
    """Return (w + k)^α in units of scale^α, kept within what a double holds."""
    with np.errstate(over="ignore"):
        return np.clip(((weight + steps) / scale) ** exponent, 1e-150, 1e150)


def _zeta(a: float, q: float, integral: bool = True) -> float:
    """Return q^a ζ(a, q) = Σ_k (1 + k/q)^−a for a > 1, or its excess over ∫_0^∞ (1 + k/q)^−a dk = q/(a−1).

    Euler and Maclaurin's formula from q + k = 100 a on, where its next term is below 1e-14; or from where
    what is left is below 1e-18, if that is nearer.
    """
    first = int(np.ceil(min(max(0.0, 100 * a - q), q * np.expm1(42 / a))))
    far = q + first
    tail = 1 / 2 + a / (12 * far) - a * (a + 1) * (a + 2) / (720 * far**3)
    total = np.sum((1 + np.arange(first) / q) ** -a) + (far / q) ** -a * tail
    # The integral beyond ``first``, or minus the integral up to it.
    log_kept = (1 - a) * np.log(far / q)
    return float(total + q / (a - 1) * (np.exp(log_kept) if integral else np.expm1(log_kept)))
