r"""One model that accumulates its own outputs: the urn, its limits and how fast it gets there.

A provider alone, without human data (λ = 0), that accumulates single items (B = m = 1) is an urn: output v
starts with weight w_v = ℓ(0) Θ_v(0), not necessarily whole, is drawn with a chance proportional to
w_v^(1/T), and gains 1. With α = 1/T:

T = 1
    Pólya's urn. Θ is a martingale and tends to a random law, Dirichlet(ℓ(0) Θ(0)): `polya_limit`.
T > 1
    Θ tends to the uniform law over its support: `relaxation`, `relaxation_spread`.
T < 1
    One output takes all, which one is random: `analysis.theory.takeover`.

`urn_mean_field` is the exact solution of the mean field at every temperature.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from analysis.theory.states import checked_law
from ecosystem.errors import InputError
from ecosystem.types import Floats


def polya_limit(initial: ArrayLike, pretraining_size: float) -> Floats:
    """Return the parameters ℓ(0) Θ(0) of the Dirichlet law that Θ(∞) has at T = 1.

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0). An output of probability 0 stays at 0: its parameter is 0.
    pretraining_size : float
        ℓ(0) > 0.

    Notes
    -----
    For single items a round (B = m = 1) only; larger batches have the variance of `polya_variance`.
    Eggenberger, Pólya (1923); Blackwell, MacQueen (1973).
    """
    return positive(pretraining_size, "pretraining_size") * checked_law(initial, "initial")


def polya_variance(
    initial: ArrayLike, pretraining_size: float, rounds: float = np.inf, batch_size: int = 1
) -> Floats:
    r"""Return Var Θ_v after some rounds at T = 1, shape (V,), for m = B items a round.

    .. math:: p_v(1−p_v)\Big[1 − \prod_{t=1}^{K}\Big(1 − \frac{m}{(ℓ(0) + t m)^2}\Big)\Big]

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0) = p.
    pretraining_size : float
        ℓ(0) > 0.
    rounds : float
        K ≥ 0; by default the limit K → ∞.
    batch_size : int
        m ≥ 1 items, drawn independently of each other in every round.

    Notes
    -----
    Derived here: given Θ, the batch frequencies have variance Θ_v(1−Θ_v)/m and a = m/(ℓ+m), so a round
    multiplies E Θ_v(1−Θ_v) by 1 − a²/m = 1 − m/(ℓ+m)². The product telescopes into Gamma functions, and
    for m = 1 into p(1−p) K / ((ℓ(0)+1)(ℓ(0)+K)).
    """
    p = checked_law(initial, "initial")
    if not rounds >= 0:
        raise InputError(f"rounds = {rounds}: allowed: 0 or more, or inf")
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: allowed: 1 or more")
    start = positive(pretraining_size, "pretraining_size") / batch_size + 1
    root = batch_size**-0.5
    # Π (1 − r²/(start + t)²), t = 0 ... K−1: the Gamma functions at start ± r over those at start.
    kept = _second_difference(start, root)
    if np.isfinite(rounds):
        kept -= _second_difference(start + rounds, root)
    return p * (1 - p) * -np.expm1(kept)


def _second_difference(x: float, step: float) -> float:
    """Return 2 lnΓ(x) − lnΓ(x−s) − lnΓ(x+s); by Taylor's series where the terms would cancel."""
    if step < 0.05 * x:
        orders = np.array([2, 4, 6, 8])
        return float(-2 * np.sum(special.polygamma(orders - 1, x) * step**orders / special.factorial(orders)))
    return float(2 * special.gammaln(x) - special.gammaln(x - step) - special.gammaln(x + step))


def urn_mean_field(initial: ArrayLike, temperature: float, growth: ArrayLike) -> Floats:
    r"""Return the mean field of one model without human data, exactly, at every temperature.

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0).
    temperature : float
        T from 0 to inf.
    growth : array_like, shape (...)
        ℓ/ℓ(0) ≥ 1, how many times the corpus has grown; e^s for a schedule of clock s = Σ a(k).

    Returns
    -------
    ndarray, shape (..., V)
        Θ.

    Notes
    -----
    Derived here. In dΘ/ds = τ_T(Θ) − Θ the weights w = e^s Θ grow as w_v' ∝ w_v^α with a factor common to
    all outputs, so that w_v^{1−α} − w_v(0)^{1−α} is the same number for all (for T = 1 the ratio is). With
    β = 1 − 1/T and the leader's weight x as the parameter,

    .. math:: w_v^β = w_v(0)^β + x^β − x(0)^β, \qquad Σ_v w_v = ℓ/ℓ(0),

    where the sum grows with x: one bracketed root.
    """
    p = checked_law(initial, "initial")
    grown = np.asarray(growth, dtype=np.float64)
    if not ((grown >= 1) & np.isfinite(grown)).all():
        raise InputError(f"growth = {growth!r}: allowed: finite numbers, 1 or more")
    if not temperature >= 0:
        raise InputError(f"temperature = {temperature}: allowed: a number from 0 to inf")
    laws = np.empty((*grown.shape, p.size))
    for index in np.ndindex(grown.shape):
        laws[index] = _grown(p, temperature, float(grown[index]))
    return laws


def _grown(p: Floats, temperature: float, growth: float) -> Floats:
    peak = p.max()
    ahead = p == peak
    if temperature == 1 or growth == 1:
        return p.copy()
    if temperature == 0:
        return np.where(ahead, peak + (growth - 1) / ahead.sum(), p) / growth
    beta = 1 - 1 / temperature
    support = p > 0
    with np.errstate(divide="ignore", over="ignore"):
        ratio = np.where(support, (peak / p) ** beta, 0.0)

    def weights(log_gain: float) -> Floats:
        """Return w when the leader has grown by exp(log_gain); logs relative to each start."""
        gains = np.log1p(ratio * np.expm1(beta * log_gain), where=support & ~ahead, out=np.zeros(p.size))
        return p * np.exp(np.where(ahead, log_gain, gains / beta))

    top = np.log(growth / peak) + 1e-9  # the leader cannot hold more than everything
    gain = optimize.brentq(lambda y: float(np.log(weights(y).sum() / growth)), 0.0, top, xtol=1e-15)
    final = weights(gain)
    return final / final.sum()


@dataclass(frozen=True)
class Relaxation:
    """How one model tends to the uniform law over its support at T > 1.

    Attributes
    ----------
    rate : float
        β = 1 − 1/T in (0, 1].
    amplitude : ndarray, shape (V,)
        c_v in Θ_v − u_v ≈ c_v (ℓ/ℓ(0))^−β for ℓ ≫ ℓ(0); 0 outside the support.
    """

    rate: float
    amplitude: Floats


def relaxation(initial: ArrayLike, temperature: float) -> Relaxation:
    r"""Return rate and amplitude of the mean field's approach to uniform at T > 1.

    Parameters
    ----------
    initial : array_like, shape (V,)
        Θ(0).
    temperature : float
        1 < T ≤ inf.

    Notes
    -----
    Derived here from the exact solution in `urn_mean_field`, for ℓ → ∞ and n outputs in the support:

    .. math:: c_v = \frac{(nΘ_v(0))^β − \mathrm{mean}_u (nΘ_u(0))^β}{n β}.

    Close to uniform c = Θ(0) − u, as the linearisation says: τ_T has slope 1/T there, so
    d(Θ−u)/ds = −(1 − 1/T)(Θ−u) with s = ln ℓ. A single run also carries noise: see `relaxation_spread`.
    """
    p = checked_law(initial, "initial")
    beta = _relaxing(temperature)
    support = p > 0
    n = support.sum()
    powers = (n * p[support]) ** beta
    amplitude = np.zeros(p.size)
    amplitude[support] = (powers - powers.mean()) / (n * beta)
    return Relaxation(beta, amplitude)


def relaxation_spread(
    n_outputs: int, temperature: float, pretraining_size: float, trained_items: ArrayLike
) -> Floats:
    r"""Return E‖Θ − u‖² of one run that starts uniform, from sampling noise alone, at T > 1.

    Parameters
    ----------
    n_outputs : int
        n, outputs in the support.
    temperature : float
        1 < T ≤ inf.
    pretraining_size : float
        ℓ(0) ≫ 1.
    trained_items : array_like, shape (...)
        ℓ ≥ ℓ(0).

    Notes
    -----
    Derived here by linearisation; corrections are of relative order 1/ℓ(0). Drawing m items adds
    covariance (diag(u) − uuᵀ)/m times a² = m²/ℓ², trace (1 − 1/n) m/ℓ²: the same per item for every m.
    With D = E‖Θ−u‖², dD/dℓ = −2βD/ℓ + (1 − 1/n)/ℓ², so

    .. math:: D = (1 − 1/n) \, \frac{1/ℓ − ℓ(0)^{2β−1}/ℓ^{2β}}{2β − 1}

    ((1 − 1/n) ln(ℓ/ℓ(0))/ℓ at T = 2). The distance itself falls as ℓ^{−1/2} for T > 2, slower than the
    ℓ^{−β} of the mean field; for T < 2 early noise is remembered and both fall as ℓ^{−β}.
    """
    beta = _relaxing(temperature)
    items = np.asarray(trained_items, dtype=np.float64)
    growth = np.log(items / positive(pretraining_size, "pretraining_size"))
    if not (growth >= 0).all():
        raise InputError(f"trained_items = {trained_items!r}: allowed: pretraining_size or more")
    # (1 − e^{−(2β−1) s}) / (2β−1) without the 0/0 at T = 2
    return (1 - 1 / n_outputs) / items * growth * special.exprel(-(2 * beta - 1) * growth)


# --- arguments ------------------------------------------------------------------------------------------


def positive(value: float, name: str) -> float:
    """Return a finite number above 0, or raise `InputError` with its name."""
    if not 0 < value < np.inf:
        raise InputError(f"{name} = {value}: allowed: a number above 0")
    return float(value)


def _relaxing(temperature: float) -> float:
    if not temperature > 1:
        raise InputError(f"temperature = {temperature}: a model tends to uniform only for T > 1")
    return 1 - 1 / temperature
