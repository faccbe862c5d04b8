"""A law as few levels: sums over a million outputs at the price of a few hundred."""

from dataclasses import dataclass

import numpy as np

from ecosystem.types import Floats

_DIRECT = 4096
"""Up to so many different probabilities are summed over directly."""
_HEAD = 64
_NODES = 20
_WIDEST = 2.0


@dataclass(frozen=True)
class Levels:
    r"""Levels h_l and weights w_l such that Σ_l w_l φ(ln h_l) = Σ_v φ(ln h_v) for the sums needed here.

    Attributes
    ----------
    log_ratio : ndarray, shape (L,)
        ln(h_l / h_max) < 0, falling.
    weight : ndarray, shape (L,)
        How many outputs a level stands for. Weights of a condensed tail are not whole, and may be negative.

    Notes
    -----
    A law with many different probabilities keeps its most probable ones; the tail is cut into cells of
    ln h, and within a cell φ(ln h)/h is replaced by the polynomial through Chebyshev nodes, integrated
    over the law once. φ is the low root Θ or a smooth function of it: its only nearby singularity is the
    crest, at or above ln h_max. A cell no wider than its distance from ln h_max (and than 2) therefore
    converges like 5.8^-nodes, whatever the temperature: 20 nodes are rounding. Derived here.
    """

    log_ratio: Floats
    weight: Floats

    @classmethod
    def of(cls, log_ratio: Floats) -> "Levels":
        """Return the levels of outputs with these ln(h_v / h_max) < 0, in any order."""
        values, counts = np.unique(-log_ratio, return_counts=True)
        if values.size <= _DIRECT:
            return cls(-values, counts.astype(np.float64))
        depths, weights = [values[:_HEAD]], [counts[:_HEAD].astype(np.float64)]
        first, last = _HEAD, values.size
        while first < last:
            start = values[first]
            end = start + min(start, _WIDEST)
            stop = int(np.searchsorted(values, end, side="right"))
            cell = _direct if stop - first <= _NODES else _condensed
            nodes, weight = cell(values[first:stop], counts[first:stop].astype(np.float64), start, end)
            depths.append(nodes)
            weights.append(weight)
            first = stop
        return cls(-np.concatenate(depths), np.concatenate(weights))


def _direct(depth: Floats, count: Floats, start: float, end: float) -> tuple[Floats, Floats]:
    return depth, count


def _condensed(depth: Floats, count: Floats, start: float, end: float) -> tuple[Floats, Floats]:
    """Return Chebyshev nodes of a cell and the integrals over it of their Lagrange polynomials.

    Integrals are of h ℓ_j(ln h), with ℓ_j = (1/n)(1 + 2 Σ_k T_k(x_j) T_k), and are divided by h at node j.
    """
    angle = np.arccos(np.clip((2 * depth - start - end) / (end - start), -1.0, 1.0))
    mass = count * np.exp(start - depth)  # relative to the cell's most probable output
    order = np.arange(_NODES)
    moments = np.array([(mass * np.cos(k * angle)).sum() for k in order])
    node_angle = np.pi * (order + 0.5) / _NODES
    waves = np.cos(np.outer(node_angle, order))
    integrals = (2 * waves @ moments - moments[0]) / _NODES
    nodes = (start + end + (end - start) * np.cos(node_angle)) / 2
    return nodes, integrals * np.exp(nodes - start)
