"""The shared corpus: what has been published, by whom, in which round."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ecosystem.types import Integers

HUMAN = -1
"""Author of every human item."""


class Records(NamedTuple):
    """Published items as parallel arrays of one length, oldest first."""

    item: np.ndarray
    author: Integers
    round: Integers
    human: np.ndarray


@dataclass
class _Round:
    number: int
    items: dict[int, list[np.ndarray]] = field(default_factory=dict)


class Corpus:
    """Items signed by their author and dated by their round; the oldest rounds are dropped.

    Parameters
    ----------
    rounds_kept : int
        How many of the newest rounds keep their items (≥ 1). Memory is bounded by what is published
        in that many rounds; the two totals below go on counting everything.
    human_items : int
        Human items that were there before the first round (the pretraining data).

    Attributes
    ----------
    human_items, synthetic_items : int
        How many items people and providers have contributed since the beginning.
    """

    def __init__(self, rounds_kept: int, human_items: int = 0) -> None:
        self._rounds: deque[_Round] = deque(maxlen=rounds_kept)
        self.human_items = human_items
        self.synthetic_items = 0

    def add(self, items: np.ndarray, *, author: int, round: int) -> None:
        """Publish ``items`` (first axis: items) under an author's name, or under `HUMAN`."""
        if not self._rounds or self._rounds[-1].number != round:
            self._rounds.append(_Round(round))
        self._rounds[-1].items.setdefault(author, []).append(items)
        if author == HUMAN:
            self.human_items += len(items)
        else:
            self.synthetic_items += len(items)

    def published(self, author: int, round: int, window: int = 1) -> np.ndarray:
        """Return what an author published in the ``window`` rounds up to a round, oldest first.

        Empty if nothing; rounds that are no longer kept are left out.
        """
        kept = [r.items[author] for r in self._rounds if 0 <= round - r.number < window and author in r.items]
        if not kept:
            return np.empty(0, dtype=np.int64)
        return np.concatenate([items for batches in kept for items in batches])

    @property
    def synthetic_share(self) -> float:
        """Share of all items ever contributed that a model wrote, in [0, 1] (0 while empty)."""
        total = self.synthetic_items + self.human_items
        return self.synthetic_items / total if total else 0.0

    def records(self) -> Records:
        """Return every kept item with its author, its round and whether a human wrote it."""

        def columns() -> Iterator[tuple[np.ndarray, Integers, Integers]]:
            yield np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
            for kept in self._rounds:
                for author, batches in kept.items.items():
                    for items in batches:
                        yield items, np.full(len(items), author), np.full(len(items), kept.number)

        item, author, round = (np.concatenate(column) for column in zip(*columns(), strict=True))
        return Records(item, author, round, author == HUMAN)
