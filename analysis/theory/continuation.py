r"""The least fresh fraction that keeps a population's diversity, for any human law and graph.

At λ = 1 every provider holds the human law h. As a common λ falls, the fixed point

.. math:: Θ_i = λ h + (1−λ) \sum_j W_{ij}\, τ_{T_j}(Θ_j)

that starts there (the **healthy** state) moves away from h, until it has lost too much diversity or loses its
stability: in a fold, where the mean field lets go and one output takes over, or, where outputs tie, in a
pitchfork. That λ is the least one. The state is followed downwards by fixed-point iteration, finished by
Newton's method with a matrix-free Jacobian, each from the one before.

The state is stable iff every eigenvalue μ of the linearised mean field (`analysis.theory.linearised`) has
Re μ < 1. Near a fold 1 − μ ∝ √(λ − λ*), near a pitchfork ∝ λ − λ*: λ
is a smooth function of 1 − μ at both, and is extrapolated to 1 − μ = 0. Derived here.

If all T are equal, all providers that start from h stay equal for ever (Σ_j W_ij = 1), and no disagreement
can grow before the common mode does (|w| ≤ 1 for every eigenvalue of W): the population is one model, and the
graph does not matter. From h all laws rank the outputs as h does (τ and mixing keep the order), so what takes
over is the output that humans produce most.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy import interpolate

from analysis.theory.linearised import Linearised
from analysis.theory.meanfield import Population
from analysis.theory.populations import smooth_only
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

_STEP = 0.9
"""Step of the fixed-point iteration: below 1, so that two providers that only read each other settle."""


def healthy_state(
    population: Scenario | Population, initial: Floats | None = None, *, tolerance: float = 1e-12
) -> Floats:
    """Return the fixed point that the mean field reaches from the human law.

    Parameters
    ----------
    population : Scenario or Population
        With its own T and λ, which may differ between providers; no truncation.
    initial : ndarray, shape (N, V), optional
        Where to start instead.
    tolerance : float
        Largest Σ_v |F(Θ) − Θ| of a provider.

    Returns
    -------
    ndarray, shape (N, V)
        Of a law with tied outputs it may be unstable: no rounding need break the tie.

    Raises
    ------
    RuntimeError
        If it has not settled after 300,000 iterations.
    """
    population = smooth_only(population)
    n = len(population.temperature)
    theta = np.tile(population.human, (n, 1)) if initial is None else initial
    return _settled(population, theta, tolerance, lambda theta: False)


def _settled(
    population: Population, theta: Floats, tolerance: float, lost: Callable[[Floats], bool]
) -> Floats:
    """Return the fixed point reached, or a state on the way that is lost."""
    before = np.inf
    for step in range(1, 300_001):
        move = population.target(theta) - theta
        size = float(np.abs(move).sum(axis=1).max())
        if size <= tolerance:
            return theta
        # Far from the end the iteration decides which state is reached; close to it Newton saves the rest.
        if step % 30 == 0 and lost(theta):
            return theta
        if step % 30 == 0 and size < before:
            rest = _STEP * size / (1 - size / before)
            found = _newton(population, theta, tolerance)
            near = found is not None and np.abs(found - theta).sum(axis=1).max() <= 3 * rest
            # Newton's method also likes saddles that the iteration only lingers at.
            if found is not None and near and Linearised(population, found).leading() < 1:
                return found
        before = size
        theta = theta + _STEP * move
    raise RuntimeError("the mean field has not settled after 300,000 iterations; it is at or near a fold")


def _newton(population: Population, theta: Floats, tolerance: float) -> Floats | None:
    """Return the fixed point that Newton's method finds within a few steps, or None."""
    last = np.inf
    for _ in range(8):
        move = population.target(theta) - theta
        size = float(np.abs(move).sum(axis=1).max())
        if size <= tolerance:
            return theta
        if size > last / 2:
            return None
        last = size
        theta = theta + Linearised(population, theta).solve(move, rtol=1e-4)
        if not np.isfinite(theta).all() or (theta < 0).any():
            return None
    return None


# --- the least fresh fraction ---------------------------------------------------------------------


@dataclass(frozen=True)
class LeastFreshFraction:
    """The least common fresh fraction that keeps diversity, and why.

    Attributes
    ----------
    value : float
        λ in [0, 1], to within the tolerance.
    limited_by : str
        "share": just below, too little diversity is kept; "stability": just below, that state is gone
        or unstable, an output takes over, and too little is kept; "nothing": even λ = 0 keeps enough.
    kept : ndarray, shape (N,)
        Share of the human law's effective number of outputs that each provider keeps at ``fresh_fraction``.
    fresh_fraction : float
        The smallest λ ≥ value at which the state was computed.
    distributions : ndarray, shape (N, V)
        That healthy state.
    """

    value: float
    limited_by: str
    kept: Floats
    fresh_fraction: float
    distributions: Floats


def population_minimum_fresh_fraction(
    population: Scenario | Population,
    keep: float = 0.9,
    *,
    over: str = "worst",
    order: float = 1.0,
    tolerance: float = 1e-7,
) -> LeastFreshFraction:
    """Return the least λ, common to all, that keeps a share of the human law's diversity from h on.

    Parameters
    ----------
    population : Scenario or Population
        Its own fresh fractions are not used. No truncation.
    keep : float
        Share of the human law's effective number of outputs to keep, above 0, up to 1.
    over : str
        "worst": every provider keeps that share; "mean": they keep it on average.
    order : float
        Order of the effective number of outputs, see `ecosystem.metrics.hill`.
    tolerance : float
        Accuracy of λ, in (0, 0.1].

    Returns
    -------
    LeastFreshFraction
        Where all share one T the answer is that of one model on every graph.

    Raises
    ------
    InputError
        If a value is not allowed or outputs are truncated.

    Notes
    -----
    The λ at which the state that comes down from λ = 1 first fails. If it loses its stability while what
    takes over still keeps enough (possible for small ``keep``), that one is followed on. Where hot and
    cold providers read each other a lower λ might keep enough again; it is not looked for, because a
    policy that relied on it would pass through collapse to get there.
    """
    population = smooth_only(population)
    if not (0 < keep <= 1 and 0 < tolerance <= 0.1 and over in ("worst", "mean")):
        raise InputError(
            f"keep = {keep}, tolerance = {tolerance}, over = {over!r}: allowed: 0 < keep ≤ 1, "
            '0 < tolerance ≤ 0.1, and "worst" or "mean"'
        )
    n, human = len(population.temperature), population.human
    merged = bool((population.temperature == population.temperature[0]).all())
    if merged:
        population = Population(np.ones((1, 1)), population.temperature[0], 0.0, human)

    def share(theta: Floats) -> float:
        shares = metrics.hill(theta, order) / metrics.hill(human, order)
        return float(shares.min() if over == "worst" else shares.mean())

    def lost(theta: Floats) -> bool:
        # Where no one flattens, what is lost on the way down did not come back in any case tried.
        return cold and share(theta) < keep - 1e-9

    cold, hot = bool((population.temperature <= 1).all()), bool((population.temperature >= 1).all())
    low, high = -1.0, 1.0
    theta = np.tile(human, (len(population.temperature), 1))
    lost_to = "share"
    # Of every state that is good: 1 − μ, the share kept, λ.
    good = [(1.0, 1.0, 1.0)]
    guess, why = -np.inf, "nothing"
    while high - max(low, 0.0) > tolerance:
        last, (guess, why) = guess, _extrapolated(good, keep, low)
        # Closer to a fold the mean field takes for ever to settle, and the extrapolation is exact enough.
        agreed = abs(guess - last) < tolerance / 10 and high - guess < 1e3 * tolerance
        done = guess > -np.inf and (agreed or high - guess < tolerance / 5)
        if done and why == "share":
            break
        unmoved = guess == -np.inf and len(good) > 1  # nothing changes with λ, as with one output
        if done:
            # Just past the loss of stability: what takes over may still keep enough, and is followed on.
            trial = max(guess - max(1e-5, 10 * tolerance), 0.0)
            if trial <= low:
                break
        elif low < 0 and (unmoved or (guess <= tolerance and len(good) > 2)):
            trial = 0.0
        elif not max(low, 0.0) < (trial := guess + 0.1 * (high - guess)) < high:
            trial = (max(low, 0.0) + high) / 2
        now = replace(population, fresh_fraction=np.float64(trial))
        found = _settled(now, theta, 1e-12, lost)
        left = share(found)
        if left < keep - 1e-12:
            room = -1.0
        elif hot:  # x^(1/T) contracts Hilbert's projective metric by 1/T, and mixing does not expand it
            room = float(1 - 1 / population.temperature.min())
        else:
            room = 1 - Linearised(now, found).leading()
        if room >= -1e-9 and left >= keep - 1e-12:
            high, theta = trial, found
            good = [(room, left, trial)] if done else [*good, (room, left, trial)][-3:]
            if trial == 0:
                break
        else:
            low = trial
            lost_to = "share" if left < keep - 1e-12 else "stability"
            if done:
                break
    value = 0.0 if high == 0 else min(max(guess, low, 0.0), high) if guess > -np.inf else high
    why = why if guess > -np.inf else lost_to
    kept = np.asarray(metrics.hill(theta, order) / metrics.hill(human, order))
    if merged:
        kept, theta = np.repeat(kept, n), np.repeat(theta, n, axis=0)
    return LeastFreshFraction(value, why if value > 0 else "nothing", kept, high, theta)


def _extrapolated(good: list[tuple[float, float, float]], keep: float, low: float) -> tuple[float, str]:
    """Return the λ at which the state is expected to fail, and by what; (−inf, …) if neither can be told."""
    rooms, shares, fractions = (np.array(column) for column in zip(*good, strict=True))
    guesses = []
    for x, at, why in ((rooms, 0.0, "stability"), (shares, keep, "share")):
        if len(good) > 1 and (np.diff(x) < 0).all():
            guess = float(interpolate.barycentric_interpolate(x, fractions, at))
            # Past a fold the branch turns back: what lies beyond is another state at a larger λ.
            if low < guess < fractions[-1] or (guess <= 0 and low < 0):
                guesses.append((guess, why))
    return max(guesses, default=(-np.inf, "stability"))
