r"""All stable states of one model that trains on its own output and a share λ of human data.

The states are the fixed points of the mean field

.. math:: \frac{d\Theta}{ds} = \lambda h + (1-\lambda)\,\tau_T(\Theta) - \Theta ,

Marchi, Silvestre, Gharesifard, Tabuada, *Preventing Model Collapse: A Fisher-Rao Perspective*, eq. (5)
divided by 1 + μ, with λ = μ/(1+μ). How they are found, and why none is missed, is derived in
`analysis.theory.curves` (T < 1) and `analysis.theory.roots`.

**Which one the human law leads to.** Let q be a fixed point whose outputs are ranked as in h. Along the
mean field from Θ(0) = h, k_v = Θ_v/q_v starts as (1 − s_q e_v)/λ with e_v = q_v^{1/T−1}, and
D_v = (1 − k_v)/e_v obeys D' = −D + s (1 − (1 − e_v D)^{1/T}) − (s − s_q), whose right side grows with e_v
where D > 0, as does D(0). So while s > s_q the outputs with Θ_v < q_v are always the most probable ones: Θ
is majorised by q, ΣΘ^{1/T} < Σq^{1/T}, hence s > s_q for ever. Together with the Lyapunov function: **from
the human law the mean field converges to the least concentrated fixed point that is ranked as h**, the
healthy one whenever there is one. Derived here.
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from analysis.theory import roots
from analysis.theory.curves import Curves
from analysis.theory.levels import Levels
from analysis.theory.roots import root_between
from ecosystem import human as human_sources
from ecosystem.errors import InputError
from ecosystem.types import Floats


@dataclass(frozen=True, eq=False)
class FixedPoint:
    """A state that the mean field leaves unchanged.

    Attributes
    ----------
    distribution : ndarray, shape (V,)
        Θ, which sums to 1 and solves λh + (1−λ) τ_T(Θ) = Θ.
    stable : bool
        Whether every small change that leaves outputs of probability 0 at 0 dies out. (At T > 1 an
        output that no human writes and the model cannot write would grow if it were written once.)
    captured : int or None
        The output that has taken over: the one on its high root, where what the model writes of it
        feeds back into more of it (g > 1). None for the healthy state. Where the branch of the most
        probable output folds, its states before the folds are the healthy ones (even where g > 1
        already) and those after them are captured; where it does not fold, its crest, g = 1, divides them.
    """

    distribution: Floats
    stable: bool
    captured: int | None


def fixed_points(
    human: ArrayLike,
    temperature: float,
    fresh_fraction: float,
    *,
    captured: int | Sequence[int] | Literal["all"] = 10,
    unstable: bool = False,
) -> list[FixedPoint]:
    """Return the stable states of one model: the healthy one first, then those captured by one output.

    Parameters
    ----------
    human : array_like, shape (V,)
        The law h of human data; zeros are allowed.
    temperature : float
        T from 0 to inf.
    fresh_fraction : float
        λ in [0, 1].
    captured : int, sequence of int, or "all"
        Which captured states to look for: those of the n most probable outputs (ties in order of
        number), of the outputs given, or of all. "all" of V outputs can be V arrays of V numbers.
    unstable : bool
        Whether to add the saddles with exactly one output on its high root, the unstable parts of the
        branches that end in folds. (Fixed points with two or more outputs on their high roots are all
        unstable and are not listed.)

    Returns
    -------
    list of FixedPoint
        Every stable state asked for. First comes the state that the mean field reaches from Θ(0) = h,
        if no output has taken over there. If the most probable outputs tie exactly, the mean field
        cannot break the tie; that first state may then be unstable and is listed with ``stable = False``
        (a uniform law below λ = 1 − T).

        λ = 1: h alone. T = 1: h alone (at λ = 0 every law is a fixed point and none attracts: h, not
        stable). T > 1: the one state between h and uniform over the outputs that humans write.
        T < 1, λ = 0: one state for every output, alone. A law of one output is healthy whatever λ.

    Raises
    ------
    InputError
        If h is no law, or T, λ or an output is not allowed.
    """
    h = checked_law(human)
    t = checked_temperature(temperature)
    fresh = checked_fraction("fresh_fraction", fresh_fraction)
    outputs = _outputs(h, captured)
    if t >= 1 or fresh == 1 or h.size == 1:
        return [FixedPoint(flattened(h, t, fresh), not (t == 1 and fresh == 0 and h.size > 1), None)]
    if t == 0 or fresh == 0:
        return _vertices(h, t, fresh, outputs)
    return _cold(Curves(h, t), np.log(fresh), outputs, unstable)


def fold_fraction(human: ArrayLike, temperature: float, output: int) -> float:
    """Return the largest fresh fraction at which the state captured by an output still exists.

    Parameters
    ----------
    human : array_like, shape (V,)
        The law h of human data; the output may have h_v = 0.
    temperature : float
        T from 0 to inf.
    output : int
        Which output.

    Returns
    -------
    float
        λ, where the captured state merges with a saddle and vanishes. Where the branch of the most probable
        output has no fold (then healthy turns into captured without a jump, as for two outputs), the λ at
        which that output passes to its high root. 0 for T ≥ 1, where nothing is ever captured, and for the
        one output of a law of one. At T = 0 it is the supremum.

    Notes
    -----
    The maximum of λ(r) = r/N(r) along the branch: `analysis.theory.curves`. It grows with h_v: the state
    captured by the most probable output is the last to vanish.
    """
    h = checked_law(human)
    t = checked_temperature(temperature)
    (w,) = _outputs(h, [output])
    if t >= 1 or h[w] == 1:
        return 0.0
    if t == 0:
        return float(1 / (1 + h.max() - h[w]))
    curves = Curves(h, t)
    return float(np.exp(curves.log_fresh(*curves.captured_from(w))))


def flattened(human: Floats, temperature: float, fresh_fraction: float) -> Floats:
    """Return the one state at T ≥ 1, or at λ = 1, or of a single output.

    At T > 1 it is searched on the curve λ(G) that increases from 0 to 1 as the gain
    G = (1−λ) τ/Θ of the most probable output falls from 1 to 0; λ ≤ 1 − G, because its gain is the least.
    """
    if temperature <= 1 or fresh_fraction == 1:
        return human.copy()
    support = np.flatnonzero(human)
    log_ratio = np.log(human[support]) - np.log(human.max())
    below = Levels.of(log_ratio[log_ratio < 0])
    ties = int((log_ratio == 0).sum())

    def excess(log_gain: float) -> float:
        size = ties + below.weight @ np.exp(roots.lifted(below.log_ratio, log_gain, temperature))
        return float(-np.expm1(log_gain) / (human.max() * size) - fresh_fraction)

    theta = np.zeros(human.size)
    if fresh_fraction == 0:
        theta[support] = 1.0
    else:
        first = last = float(np.log1p(-fresh_fraction))
        while excess(last) < 0:
            last *= 2
        log_gain = first if last == first else root_between(excess, first, last)
        theta[support] = np.exp(roots.lifted(log_ratio, log_gain, temperature))
    return theta / theta.sum()


def _cold(curves: Curves, log_fresh: float, outputs: list[int], unstable: bool) -> list[FixedPoint]:
    """Return the states at 0 < T < 1 and 0 < λ < 1."""
    states = []
    healthy = curves.healthy_at(log_fresh)
    if healthy is not None:
        stable = len(curves.ties) == 1 or healthy <= 0
        states.append(FixedPoint(curves.distribution(healthy), stable, None))
    for stable, position in ((True, curves.captured_at), (False, curves.saddle_at)):
        for w in outputs if stable or unstable else []:
            place = position(log_fresh, w)
            if place is not None:
                states.append(FixedPoint(curves.distribution(*place), stable, w))
    return states


def _vertices(human: Floats, temperature: float, fresh: float, outputs: list[int]) -> list[FixedPoint]:
    """Return the states at T = 0, or at λ = 0 and T < 1: Θ = λh + (1−λ) e_w wherever w is its argmax."""
    ties = human == human.max()
    states = []
    if ties.sum() > 1 or human.max() == 1:
        together = fresh * human + (1 - fresh) * ties / ties.sum()
        states.append(FixedPoint(together, bool(human.max() == 1), None))
    for w in outputs:
        if human[w] < 1 and (1 - fresh > fresh * (human.max() - human[w]) or temperature > 0):
            theta = fresh * human
            theta[w] += 1 - fresh
            states.append(FixedPoint(theta, True, w))
    return states


def checked_law(law: ArrayLike, name: str = "human") -> Floats:
    """Return a law as an array that sums to 1, or raise `InputError` with its name."""
    try:
        return human_sources.load(np.asarray(law, dtype=np.float64)).law
    except (TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise InputError(f"{name}: {error}") from None
        raise InputError(f"{name} = {law!r}: give one probability per output") from None


def checked_temperature(temperature: float) -> float:
    """Return T in [0, inf], or raise `InputError`. Where 1 − T is 1 to the last bit T is taken as 0."""
    if not _is_number(temperature) or not temperature >= 0:
        raise InputError(f"temperature = {temperature!r}: must be a number from 0 to inf")
    return float(temperature) if 1 - temperature < 1 else 0.0


def _is_number(value: object) -> bool:
    return isinstance(value, Real) or (isinstance(value, np.ndarray) and value.ndim == 0)


def checked_fraction(name: str, value: float) -> float:
    """Return a number in [0, 1], or raise `InputError`."""
    if not _is_number(value) or not 0 <= value <= 1:
        raise InputError(f"{name} = {value!r}: must be a number from 0 to 1")
    return float(value)


def _outputs(human: Floats, captured: int | Sequence[int] | Literal["all"]) -> list[int]:
    """Return the outputs whose captured states are asked for, the most probable first."""
    if isinstance(captured, str):
        if captured != "all":
            raise InputError(f'captured = {captured!r}: give a number of outputs, a list of them, or "all"')
        captured = human.size
    if np.ndim(captured) == 0:
        n = operator.index(captured)  # type: ignore[arg-type]
        if n < 0:
            raise InputError(f"captured = {n}: give a number of outputs, 0 or more")
        return [int(v) for v in np.argsort(-human, kind="stable")[:n]]
    outputs = [operator.index(v) for v in captured]  # type: ignore[union-attr]
    for v in outputs:
        if not 0 <= v < human.size:
            raise InputError(f"output {v} is not one of the {human.size} outputs 0 to {human.size - 1}")
    return outputs
