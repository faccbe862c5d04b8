"""One random stream for every decision, addressed by name and never shared.

A stream is named by (seed, replicate, round, provider, decision). The name *is* the state of a
counter-based generator (Philox 4x64, Salmon et al. 2011, as numpy ships it):

    key     = (seed, replicate)
    counter = (0, decision, provider, round)

so that a stream costs nothing to reach, does not depend on what was drawn before it, and is the
same in every process, in any order, interrupted or not. Adding a provider, a replicate or a metric
moves no other stream; two policies under one seed differ only where the policy makes them differ.

A batch of m items reads m uniforms of each of its decisions, slot by slot, whether or not a slot
needs them: slot s of a batch keeps its luck when a policy changes the slots around it.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from ecosystem.types import Floats


class Decision(IntEnum):
    """What a stream decides. The numbers are part of the format of results: append, never renumber."""

    SHARING = 0  # the random edges of a named sharing graph
    INITIAL = 1  # the human items that a model is pretrained on
    PUBLISH = 2  # which outputs a provider publishes
    SOURCE = 3  # which slots of a batch hold fresh human items
    AUTHOR = 4  # who wrote the item in a synthetic slot
    ITEM = 5  # which of that author's items it is
    HUMAN = 6  # which human item a human slot holds
    TRAINING_ERROR = 7  # the perturbation of an imperfect update
    CANDIDATE = 8  # candidate c ≥ 1 of published item s, of K: uniform s (K − 1) + c − 1
    VERIFIER = 9  # whether the verifier errs on a published item
    FLAG = 10  # whether a detector flags the item in a slot
    CUT = 11  # which links are cut: uniform j of provider i decides whether i goes on reading j


@dataclass(frozen=True)
class Streams:
    """All random streams of one replicate.

    Parameters
    ----------
    seed : int
        Seed of the scenario, 0 ≤ seed < 2**63.
    replicate : int
        Index of the independent repetition, 0 ≤ replicate < 2**64.
    """

    seed: int
    replicate: int = 0

    def generator(self, decision: Decision, *, round: int = 0, provider: int = 0) -> np.random.Generator:
        """Return the generator at the start of one stream."""
        key = np.array([self.seed, self.replicate], dtype=np.uint64)
        counter = np.array([0, decision, provider, round], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=counter))

    def uniforms(self, n: int, decision: Decision, *, round: int, provider: int) -> Floats:
        """Return the first ``n`` uniforms on [0, 1) of one stream, shape (n,)."""
        return self.generator(decision, round=round, provider=provider).random(n)


def sample(cumulative: Floats, uniforms: Floats) -> np.ndarray:
    """Draw indices from a discrete law by inversion of its cumulative weights.

    Parameters
    ----------
    cumulative : ndarray, shape (V,)
        Non-decreasing cumulative weights with a positive last entry; they need not end in 1.
    uniforms : ndarray, shape (n,)
        Numbers in [0, 1).

    Returns
    -------
    ndarray of int64, shape (n,)
        For each uniform u the first index v with cumulative[v] > u · cumulative[-1].

    Notes
    -----
    An index of weight zero is never drawn: its cumulative weight equals its predecessor's. The
    product u · total is below total for every double u < 1 (u ≤ 1 − 2⁻⁵³, and total · 2⁻⁵³ is at
    least half the spacing of doubles below total), so an index past the end cannot occur.
    """
    return np.searchsorted(cumulative, uniforms * cumulative[-1], side="right")
