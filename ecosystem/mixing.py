"""Who trains on what this round."""

from dataclasses import dataclass

import numpy as np

from ecosystem.corpus import HUMAN, Corpus
from ecosystem.errors import InputError
from ecosystem.randomness import Decision, Streams, sample
from ecosystem.types import Floats, Integers


@dataclass(frozen=True)
class Batch:
    """What one provider trains on in one round.

    Attributes
    ----------
    items : ndarray, shape (m, ...)
        The items, slot by slot.
    authors : ndarray of int, shape (m,)
        Who wrote each: a provider's index, or `ecosystem.corpus.HUMAN`.
    weight : float
        Sum of the items' weights W; their number m where all weigh 1.
    shares : ndarray, shape (m,), or None
        Weight of each item divided by W, in the batch's frequencies; None where all weigh the same 1.
    """

    items: np.ndarray
    authors: Integers
    weight: float
    shares: Floats | None = None

    def weighted(self, human: float, synthetic: float, factor: float, flagged: np.ndarray) -> "Batch":
        """Return the batch with other weights of its items.

        Parameters
        ----------
        human, synthetic : float
            Weight of a human and of a synthetic item, ≥ 0.
        factor : float
            What the weight of a flagged item is multiplied by, ≥ 0.
        flagged : ndarray of bool, shape (m,)
            Which items a detector flagged.

        Notes
        -----
        W is the number of human items times their weight, plus that of synthetic ones, plus that of
        flagged human ones, plus that of flagged synthetic ones, added in this order, so that every
        engine gets the same bits.
        """
        by_human = self.authors == HUMAN
        kinds = ((human, by_human & ~flagged), (synthetic, ~by_human & ~flagged),
                 (human * factor, by_human & flagged), (synthetic * factor, ~by_human & flagged))  # fmt: skip
        weights, total = np.empty(len(self.items)), 0.0
        for weight, which in kinds:
            weights[which] = weight
            total += np.count_nonzero(which) * weight
        if (weights == 1).all():
            return self
        return Batch(self.items, self.authors, total, weights / total if total else weights)


@dataclass(frozen=True)
class Mixing:
    """How batches are put together: every slot is filled by the same rule.

    A slot of provider i holds a fresh human item, drawn from h, with probability λ_i; otherwise an
    item that author j published this round, with probability W_ij. The items of one author within one
    batch are drawn without replacement from what that author published, so that an isolated provider
    with m = B trains on exactly what it published (the process of arXiv:2404.02325). Two providers
    may well read the same item.

    Parameters
    ----------
    human : ndarray, shape (V,)
        Cumulative law of human items.
    with_replacement : bool
        Whether one batch may hold one published item twice.
    streams : Streams
        The random streams of this replicate.
    window : int
        An author's items are those of the last so many rounds, oldest first.
    """

    human: Floats
    with_replacement: bool
    streams: Streams
    window: int = 1

    def batch(
        self,
        reader: int,
        batch_size: int,
        fresh_fraction: float,
        sources: tuple[Integers, Floats],
        corpus: Corpus,
        round: int,
    ) -> Batch:
        """Fill the m slots of one provider's batch.

        Parameters
        ----------
        reader : int
            Index i of the provider.
        batch_size : int
            m.
        fresh_fraction : float
            λ_i in [0, 1].
        sources : (authors, weights), each of shape (n,)
            The authors that i reads and their W_ij.
        corpus : Corpus
            Holds what every author published this round.
        round : int
            This round.

        Raises
        ------
        InputError
            If the batch asks an author for more items than it published.
        """

        def uniforms(decision: Decision) -> Floats:
            return self.streams.uniforms(batch_size, decision, round=round, provider=reader)

        readable, weights = sources
        if fresh_fraction == 0:
            fresh = np.zeros(batch_size, dtype=bool)
        else:
            fresh = uniforms(Decision.SOURCE) < fresh_fraction
        authors = np.full(batch_size, HUMAN)
        items = np.empty(batch_size, dtype=np.int64)
        if fresh.any():
            items[fresh] = sample(self.human, uniforms(Decision.HUMAN)[fresh])
        if not fresh.all():
            if len(readable) == 1:
                authors[~fresh] = readable[0]
            else:
                authors[~fresh] = readable[sample(np.cumsum(weights), uniforms(Decision.AUTHOR)[~fresh])]
            luck = uniforms(Decision.ITEM)
            for author in np.unique(authors[~fresh]):
                slots = authors == author
                items[slots] = self._read(
                    corpus.published(author, round, self.window), luck[slots], author, reader
                )
        return Batch(items, authors, batch_size)

    def _read(self, published: np.ndarray, uniforms: Floats, author: int, reader: int) -> np.ndarray:
        if self.with_replacement:
            return published[(uniforms * len(published)).astype(np.int64)]
        if len(uniforms) > len(published):
            raise InputError(
                f"provider {reader} drew {len(uniforms)} items of author {author}, who published "
                f"{len(published)}; publish more, train on fewer, or write with_replacement = true"
            )
        if len(uniforms) == len(published):
            return published  # all of them: nothing is left to chance
        return published[without_replacement(len(published), uniforms)]


def without_replacement(n: int, uniforms: Floats) -> list[int]:
    """Return positions in range(n), one for each uniform, none twice, every ordered choice equally likely.

    The Fisher-Yates shuffle, stopped after len(uniforms) ≤ n swaps; only the swapped positions are
    stored, so the cost does not depend on n.
    """
    moved: dict[int, int] = {}
    chosen = []
    for first, u in enumerate(uniforms.tolist()):
        pick = first + int(u * (n - first))
        chosen.append(moved.get(pick, pick))
        moved[pick] = moved.get(first, first)
    return chosen
