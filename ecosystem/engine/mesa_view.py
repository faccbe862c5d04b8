"""A Mesa model's view of the compiled engine: one replicate, whose providers are rows of it."""

from typing import TYPE_CHECKING

import numpy as np

from ecosystem.corpus import Corpus, Records
from ecosystem.engine import announce, rounds_of
from ecosystem.engine.laws import Published
from ecosystem.engine.rounds import Rounds
from ecosystem.errors import InputError
from ecosystem.generative import GenerativeModel
from ecosystem.ledger import Ledger
from ecosystem.randomness import sample
from ecosystem.temperature import tempered, truncated
from ecosystem.types import Floats, Integers

if TYPE_CHECKING:
    from ecosystem.model import Ecosystem


class CompiledModel(GenerativeModel):
    """What one provider has learned, in the compiled engine: it can be looked at and sampled from."""

    def __init__(self, rounds: Rounds, index: int) -> None:
        self._rounds, self._index = rounds, index

    @property
    def distribution(self) -> Floats:
        """Θ, shape (V,), a copy."""
        return self._rounds.laws.distributions(self._index, self._index + 1)[0]

    def generate(self, n: int, temperature: float, random: np.random.Generator) -> Integers:
        """Draw ``n`` outputs, integers in [0, V)."""
        config = self._rounds.config
        law = truncated(tempered(self.distribution, temperature), config.top_k, config.top_p)
        return sample(np.cumsum(law), random.random(n))

    def learn(self, items: np.ndarray, step_size: float, shares: Floats | None = None) -> None:
        """Refuse: all rows learn together."""
        raise InputError('engine = "compiled": providers learn in step() only; write engine = "agents"')

    def perturb(self, error: float, random: np.random.Generator) -> None:
        """Refuse: all rows learn together."""
        raise InputError('engine = "compiled": providers learn in step() only; write engine = "agents"')


class CompiledCorpus(Corpus):
    """The corpus of the compiled engine: what providers published in the rounds kept, and the totals.

    Human items are counted, not kept. Where a scenario is run in counts, items stand in the order of outputs.
    """

    def __init__(self, rounds: Rounds) -> None:
        super().__init__(rounds.published.maxlen or 2)
        self._engine = rounds

    def published(self, author: int, round: int, window: int = 1) -> np.ndarray:
        """Return what an author published in the ``window`` rounds up to a round, oldest first."""
        pieces = [np.empty(0, dtype=np.int64)]
        for back, each in reversed(list(enumerate(reversed(self._engine.published)))):
            if 0 <= round - (self._engine.round - back) < window:
                pieces.append(self._items(each, author))
        return np.concatenate(pieces)

    def _items(self, each: Published, author: int) -> np.ndarray:
        if self._engine.representation == "counts":
            return np.repeat(np.arange(each.items.shape[1]), each.items[author])
        return each.items[each.at[author] : each.at[author] + each.size[author]].astype(np.int64)

    def records(self) -> Records:
        """Return every kept item with its author and its round; none is human."""
        columns: list[list[np.ndarray]] = [[], [], []]
        for back, each in reversed(list(enumerate(reversed(self._engine.published)))):
            columns[0] += [self._items(each, author) for author in range(len(each.size))]
            columns[1].append(np.repeat(np.arange(len(each.size)), each.size))
            columns[2].append(np.full(int(each.size.sum()), self._engine.round - back))
        item, author, round = (np.concatenate([np.empty(0, dtype=np.int64), *column]) for column in columns)
        return Records(item, author, round, np.zeros(len(item), dtype=bool))


class Compiled:
    """Runs the rounds of a Mesa ecosystem in the compiled engine."""

    def __init__(self, eco: "Ecosystem", replicate: int, threads: int) -> None:
        announce(eco.config)
        self.rounds = rounds_of(eco.config)(
            eco.config, range(replicate, replicate + 1), threads, observing=True
        )
        eco.corpus = CompiledCorpus(self.rounds)
        self.refresh(eco)

    def model(self, index: int) -> CompiledModel:
        """Return the view of a provider's model."""
        return CompiledModel(self.rounds, index)

    def step(self, eco: "Ecosystem") -> None:
        """Run one round by the rules in force in the ecosystem."""
        self.rounds.config = eco.config
        self.rounds.step([eco.rules])
        self.refresh(eco)

    def refresh(self, eco: "Ecosystem") -> None:
        """Let the ecosystem show what is there now."""
        accounts = self.rounds.accounts
        eco.corpus.human_items = int(accounts.contributed_human[0])
        eco.corpus.synthetic_items = int(accounts.contributed_synthetic[0])
        eco.ledger = Ledger(
            accounts.human_counts[0],
            human_items=int(accounts.human_items[0]),
            published_items=int(accounts.published_items[0]),
            detector_calls=float(accounts.detector_calls[0]),
            curated_items=float(accounts.curated_items[0]),
        )
        eco.measured = self.rounds.measurement(0)
        for provider, trained in zip(
            getattr(eco, "providers", ()), self.rounds.trained.tolist(), strict=False
        ):
            provider.trained_items = trained
