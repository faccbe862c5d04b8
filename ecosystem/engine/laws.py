"""What the compiled engine keeps of providers: the seam between the round and its representations."""

import threading
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ecosystem.engine import kernels
from ecosystem.interventions import Rules
from ecosystem.randomness import Decision
from ecosystem.scenario import Scenario
from ecosystem.types import Floats, Integers


@dataclass(frozen=True, eq=False)
class Published:
    """What all rows published in one round.

    Attributes
    ----------
    items : ndarray of int32
        One row after the other.
    at, size : ndarray of int64, shape (rows,)
        Where the items of a row start, and how many they are.
    """

    items: np.ndarray
    at: Integers
    size: Integers


@dataclass(frozen=True, eq=False)
class Step:
    """What all rows learn in one round.

    Attributes
    ----------
    outputs, weights : ndarray
        The different outputs of every row's batch in order, and their weights.
    at, distinct : ndarray of int64, shape (rows,)
        Where they start and how many they are.
    weight, trained : ndarray, shape (rows,)
        Weight W of the batch, and of all batches that were learned: ℓ(k−1) before, and ℓ(k) after.
    a : float
        Step size a(k), the same for all; not a number where it is that of the whole corpus, W/ℓ(k).
    round : int
        k.
    """

    outputs: np.ndarray
    weights: Floats
    at: Integers
    distinct: Integers
    weight: Floats
    trained: Floats
    a: float
    round: int = 0


@dataclass(frozen=True, eq=False)
class Stretch:
    """Rounds that are run without looking in between.

    Attributes
    ----------
    step : Step
        The first of them; the others use its arrays again.
    sizes : ndarray, shape (rounds,)
        Their step sizes a(k).
    stocks : tuple of three Published
        What was, and will be, published for the first, the second, the third, again the first ...
    ahead : bool
        Whether to publish for the round after the last of them as well.
    measuring : bool
        Whether it is one round, which is recorded.
    done : ndarray of int64
        How many rounds each range of rows has done, in cache lines of their own.
    broken : threading.Event
        Set where a range of rows cannot go on: the others are not to wait for it.
    """

    step: Step
    sizes: Floats
    stocks: tuple[Published, Published, Published]
    ahead: bool
    measuring: bool
    done: Integers
    broken: threading.Event = field(default_factory=threading.Event)


class Laws(ABC):
    """What all rows (providers of all replicates) have learned, cut into ranges that threads work on.

    Attributes
    ----------
    active : ndarray of bool, shape (rows,)
        Who takes part in this round.
    """

    representation: str

    def __init__(self, scenario: Scenario, replicates: range, cuts: list[tuple[int, int]]) -> None:
        self.n = int(scenario.n_providers or 0)
        self.replicates, self.cuts, self.seed = replicates, cuts, scenario.seed
        self.rows = self.n * len(replicates)
        self.active = np.ones(self.rows, dtype=bool)

    @staticmethod
    def start_laws(scenario: Scenario) -> Floats:
        """Return Θ(0), shape (1, V) or (N, V)."""
        if isinstance(scenario.initial, str):
            return scenario.source.law[None].copy()
        laws = np.atleast_2d(scenario.initial)
        return laws / laws.sum(axis=1, keepdims=True)

    def pretraining(self, scenario: Scenario, first: int, rows: int, tally: np.ndarray) -> Step:
        """Return the human items that a range of rows is pretrained on, as a batch that replaces all."""
        size, n = scenario.pretraining_size, self.n
        human = human_table(scenario.source.law)
        at = np.zeros(self.rows, dtype=np.int64)
        at[first : first + rows] = np.arange(rows) * size
        distinct, total = np.zeros(self.rows, dtype=np.int64), np.zeros(self.rows)
        outputs, weights = np.empty(rows * size, dtype=np.int32), np.empty(rows * size)
        own = slice(first, first + rows)
        empty = np.zeros((1, self.rows), dtype=np.int64)
        kernels.mix(
            0, np.zeros(0, dtype=np.int32), 0, rows, n, np.ones(rows, dtype=bool), np.ones(rows),
            np.full(rows, size), at[own], np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64),
            np.zeros(0), np.zeros(n), *human, np.zeros(len(self.replicates), dtype=np.int64), empty, empty,
            False, np.ones((rows, 4)), np.zeros(2), tally, np.zeros(0, dtype=np.int64), self.seed,
            self.replicates.start, int(Decision.INITIAL), first, outputs, weights, distinct[own],
            total[own], np.zeros((rows, 4), dtype=np.int64), np.zeros(4, dtype=np.int64),
        )  # fmt: skip
        return Step(outputs, weights, at, distinct, total, np.zeros(self.rows), a=1.0)

    @abstractmethod
    def set_temperature(self, temperature: Floats) -> None:
        """Let the providers sample at temperatures T, shape (N,), from now on."""

    @abstractmethod
    def publish(self, cut: int, rules: Rules, published: Published, round: int) -> None:
        """Draw what the rows of a cut publish."""

    @abstractmethod
    def learn(self, cut: int, step: Step, measuring: bool) -> None:
        """Move the rows of a cut towards their batches."""

    def turn(
        self, cut: int, rules: Rules, items: np.ndarray, mixing: tuple[Any, ...], stretch: Stretch
    ) -> bool:
        """Let the rows of a cut gather their batches, learn and publish: one round after the other.

        Here it is one round, which leaves no one to wait for. Batches of the first are from ``items``; what
        else `ecosystem.engine.kernels.mix` is to be given is ``mixing``. Returns False where it refuses.
        """
        step = stretch.step
        if not kernels.mix(step.round, items, *mixing):
            return False
        self.learn(cut, step, stretch.measuring)
        if stretch.ahead:
            self.publish(cut, rules, stretch.stocks[1], step.round + 1)
        return True

    @abstractmethod
    def distributions(self, first: int, last: int) -> Floats:
        """Return Θ of rows first to last, shape (last − first, V)."""

    @abstractmethod
    def measure_rows(self, cut: int, mass_k: int, entropy: float, out: Floats) -> None:
        """Fill ``out``, shape (rows, 13), with the metrics of the rows of a cut."""


def human_table(law: Floats) -> tuple[Floats, np.ndarray]:
    """Return the cumulative human law as `ecosystem.engine.kernels.Tables` holds laws, and its guide."""
    from ecosystem.engine.sparse import guide_size

    ends = np.full((1, law.size + 1 + kernels.PAD), np.inf)
    ends[0, 0], ends[0, 1 : law.size + 1] = 0.0, np.cumsum(law)
    guide = np.zeros((1, guide_size(law.size)), dtype=np.int32)
    kernels.guide_of(ends[0], guide[0])
    return ends, guide
