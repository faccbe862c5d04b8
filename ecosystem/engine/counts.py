r"""The round in counts: where far more items are published than there are outputs.

Which item is which does not matter, only how many there are of each output. With n_j(v) items of output v
published by j, B_j in all:

- publish: n_j is multinomial(B_j, τ_{T_j}(Θ_j)), of the law of the best of K where outputs are curated;
- mix: the human slots of a batch are binomial(m, λ), those of each author multinomial by W, what a reader
  gets of an author multivariate hypergeometric (multinomial with replacement), human items multinomial(h);
- flags are binomial in what was got.

The law of a round is that of items drawn one by one; the draws are not the same ones. 10⁹ items cost what V
does. The same bits everywhere where numpy draws the same binomials.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from ecosystem import metrics
from ecosystem.engine import kernels
from ecosystem.engine.dense import DenseState
from ecosystem.engine.laws import Published, Stretch
from ecosystem.engine.rounds import Rounds
from ecosystem.errors import InputError
from ecosystem.interventions import Rules
from ecosystem.mixing import shortage
from ecosystem.randomness import Decision, Streams
from ecosystem.scenario import Scenario
from ecosystem.types import Floats, Integers

ITEMS_PER_OUTPUT = 100
"""A provider's items a round, per output, from which on a scenario is run in counts."""
_FEW = 10_000
"""Fewer items than this are drawn one by one in any case."""
_LARGEST = 10**9
"""numpy draws hypergeometric numbers from fewer items than this."""


def counted(scenario: Scenario) -> bool:
    """Whether a scenario is run in counts: a matter of its numbers of items and outputs alone."""
    items = (scenario.per_provider("outputs_per_round") + scenario.per_provider("batch_size")).mean()
    return bool(items >= max(ITEMS_PER_OUTPUT * scenario.source.law.size, _FEW))


class CountedRounds(Rounds):
    """Replicates of a scenario, in counts. ``published`` holds counts, shape (rows, V), for items."""

    representation = "counts"
    state = DenseState
    laws: DenseState

    def _blank(self) -> Published:
        size = self._plan.published_size
        items = self._spare.pop() if self._spare else np.empty((len(size), self.size), dtype=np.int64)
        items[:] = 0
        return Published(items, np.zeros_like(size), size)

    def _publish(self, cut: int, published: Published, round: int) -> None:
        for row in range(*self.cuts[cut]):
            if self.laws.active[row]:
                law = curated(self.laws.sampled_law(row), self.rules[row // self.n])
                random = self._random(row, Decision.PUBLISH, round)
                published.items[row] = random.multinomial(published.size[row], law)

    def _random(self, row: int, decision: Decision, round: int | None = None) -> np.random.Generator:
        streams = Streams(self.config.seed, self.replicates.start + row // self.n)
        round = self.round if round is None else round
        return streams.generator(decision, round=round, provider=row % self.n)

    def _room(self) -> tuple[np.ndarray, Floats, Integers]:
        rows = len(self.laws.active)
        outputs = np.tile(np.arange(self.size, dtype=np.int32), rows)
        return outputs, np.zeros(rows * self.size), np.arange(rows) * self.size

    def _turning(self, stretch: Stretch, kinds: Integers) -> Callable[[int], None]:
        step, weight = stretch.step, self._plan.weight
        weights = step.weights.reshape(-1, self.size)

        def turn(cut: int) -> None:
            for row in range(*self.cuts[cut]):
                if self.laws.active[row]:
                    got = self._batch(row)
                    kinds[row] = got.sum(axis=1)
                    weights[row] = weight[row] @ got
                    step.weight[row] = weight[row] @ kinds[row]
                    step.distinct[row] = self.size if step.weight[row] > 0 else 0
            self.laws.learn(cut, step, stretch.measuring)
            if stretch.ahead:
                self._publish(cut, stretch.stocks[1], step.round + 1)

        return turn

    def _batch(self, row: int) -> Integers:
        """Return what a row's batch holds: human, synthetic, and both of them flagged, shape (4, V)."""
        rules, provider, first = self.rules[row // self.n], row % self.n, row // self.n * self.n
        m = int(rules.batch_size[provider])
        fresh = min(max(float(rules.fresh_fraction[provider]), 0.0), 1.0)
        humans = int(self._random(row, Decision.SOURCE).binomial(m, fresh))
        got = np.zeros((4, self.size), dtype=np.int64)
        human = rules.human / rules.human.sum()
        got[0] = self._random(row, Decision.HUMAN).multinomial(humans, human)
        own = slice(*rules.W.indptr[provider : provider + 2])
        authors, shares = rules.W.indices[own], rules.W.data[own]
        slots = self._random(row, Decision.AUTHOR).multinomial(m - humans, shares / shares.sum())
        random = self._random(row, Decision.ITEM)
        window = list(self.published)[-rules.window :]
        for author, wanted in zip(authors.tolist(), slots.tolist(), strict=True):
            stock = sum(each.items[first + author] for each in window)
            had = int(np.sum(stock))
            if wanted and (had == 0 or (wanted > had and not self.config.with_replacement)):
                raise InputError(shortage(provider, author, wanted, had))
            if wanted:
                got[1] += (
                    random.multinomial(wanted, stock / had)
                    if self.config.with_replacement
                    else taken(stock, wanted, random)
                )
        if self.observing and not rules.reused:
            kernels.count(self.accounts.human_counts[row // self.n], got[0])
        if rules.flag is not None:
            true, false, _ = rules.flag
            random = self._random(row, Decision.FLAG)
            got[2], got[3] = random.binomial(got[0], false), random.binomial(got[1], true)
            got[:2] -= got[2:]
        return got

    # --- what is recorded ----------------------------------------------------------------------------------

    def _counts(self, own: slice, rounds_ago: int) -> Integers | Floats:
        """Return what rows published, shape (rows, V); before the first round, human data."""
        if self.round <= rounds_ago:
            return np.tile(self.human, (own.stop - own.start, 1))
        return self.published[-1 - rounds_ago].items[own]

    def _alike(self, cut: int, out: Floats) -> None:
        own = slice(*self.cuts[cut])
        active = self.laws.active[own]
        if self.round == 0:
            out[own][active] = (self.human**2).sum()
            return
        now, then = (self._counts(own, ago).astype(np.float64) for ago in (0, 1))
        found = metrics.of_publications(now, then)  # type: ignore[arg-type]
        out[own][active] = np.column_stack(list(found.values()))[active]

    def _together(self, number: int) -> tuple[float, float]:
        if self.round == 0:
            alike = float((self.human**2).sum())
            return alike, alike
        own = slice(number * self.n, (number + 1) * self.n)
        there = self.laws.active[own]
        now, then = (self._counts(own, ago)[there].sum(axis=0) * 1.0 for ago in (0, 1))
        same, across = metrics.of_publications(now, then).values()
        return float(same), float(across)

    def published_law(self, number: int) -> Floats:
        """Return the frequencies of what was published last."""
        counts = self._counts(slice(number * self.n, (number + 1) * self.n), 0).sum(axis=0)
        return counts / counts.sum()


def curated(law: Floats, rules: Rules) -> Floats:
    r"""Return the law of the best of K draws by score (`ecosystem.interventions.Curation`), sum 1."""
    law = law / law.sum()
    if rules.best_of == 1 or rules.score is None:
        return law
    scores, group = np.unique(rules.score, return_inverse=True)
    mass = np.bincount(group, law, minlength=scores.size)
    end = np.minimum(np.cumsum(mass), 1.0)
    end[-1] = 1.0
    best = np.diff(np.concatenate([[0.0], end**rules.best_of]))
    chosen = law * np.divide(best, mass, out=np.zeros_like(best), where=mass > 0)[group]
    mixed = rules.verifier_error * law + (1 - rules.verifier_error) * chosen
    return mixed / mixed.sum()


def taken(stock: Integers, wanted: int, random: np.random.Generator) -> Any:
    """Return how many of each output are among ``wanted`` items taken without replacement, shape (V,).

    Multivariate hypergeometric. From 10⁹ items on, beyond numpy's, by thinning: every item is taken with
    probability wanted/had, which leaves a random set of about the right size, and as many as there are too
    many, or too few, are put back, or taken, at random.
    """
    had = int(stock.sum())
    if wanted == had:
        return stock
    if had < _LARGEST:
        return random.multivariate_hypergeometric(stock, wanted, method="marginals")
    got = random.binomial(stock, wanted / had)
    excess = int(got.sum()) - wanted
    source = got if excess > 0 else stock - got
    chosen = random.choice(int(source.sum()), abs(excess), replace=False, shuffle=False)
    moved = np.bincount(np.searchsorted(np.cumsum(source), chosen, side="right"), minlength=len(stock))
    return got - moved if excess > 0 else got + moved
