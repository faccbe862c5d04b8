"""The round of `ecosystem.model.Ecosystem`, compiled: many providers, many replicates, the same draws."""

import operator
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from ecosystem import metrics
from ecosystem.engine import kernels, measures
from ecosystem.engine.dense import DenseState
from ecosystem.engine.laws import Laws, Published, Step, Stretch, human_table
from ecosystem.engine.sparse import SparseState
from ecosystem.errors import InputError
from ecosystem.interventions import RuleBook, Rules, active_in
from ecosystem.mixing import shortage
from ecosystem.randomness import Decision
from ecosystem.recording import Measurement
from ecosystem.scenario import Scenario
from ecosystem.types import Floats, Integers

_WORTH = 10_000
"""Items a round for which a range of their own is worth it."""
_STRETCH = 0.1
"""Seconds that a stretch of rounds is to take, as far as that is known from those before."""
_COLUMNS = (2**9, 2**14)
"""Mean laws of at least so many outputs are looked at in 2, and in 8 pieces, at the same time."""
_CACHED = 2**17
"""Outputs whose mean law, and initial law, stay in a processor's cache."""


_PUBLISHED = ("self_similarity", "self_similarity_previous")
PROVIDER_COLUMNS = (*measures.METRICS, *_PUBLISHED)
"""Metrics of every provider, as `ecosystem.recording.measure` names them."""
POPULATION_COLUMNS = (
    *(f"{name}_of_mean" for name in measures.METRICS),
    *_PUBLISHED,
    *("jensen_shannon", "alpha_diversity", "beta_diversity", "gamma_diversity", "synthetic_share"),
    *("human_items", "published_items", "detector_calls", "curated_items", "cost"),
)
"""Metrics of every population."""


class Accounts:
    """What every replicate has used so far.

    Attributes
    ----------
    contributed_human, contributed_synthetic : ndarray, shape (replicates,)
        Items in the corpus, pretraining included.
    human_items, published_items, detector_calls, curated_items : ndarray, shape (replicates,)
        As in `ecosystem.ledger.Ledger`.
    human_counts : list of ndarray of int, shape (V,)
        One for each replicate, empty where nobody looks at them.
    entered : ndarray of bool, shape (replicates, N)
        Who has ever taken part.
    """

    def __init__(self, replicates: int, n: int, counted: int) -> None:
        zeros = [np.zeros(replicates) for _ in range(6)]
        self.contributed_human, self.contributed_synthetic, *used = zeros
        self.human_items, self.published_items, self.detector_calls, self.curated_items = used
        self.human_counts = [np.zeros(counted, dtype=np.int64) for _ in range(replicates)]
        self.entered = np.zeros((replicates, n), dtype=bool)

    def enter(self, rules: Rules, which: Any, human: Any, rounds: int) -> None:
        """Add what so many rounds of some replicates used, given how many human items were in batches."""
        self.contributed_human[which] += human
        self.human_items[which] += human
        for used, amount in (
            (self.contributed_synthetic, rules.published_items),
            (self.published_items, rules.published_items),
            (self.curated_items, rules.curated_items),
            (self.detector_calls, rules.detector_calls),
        ):
            if amount == int(amount) and (used[which] % 1 == 0).all():
                used[which] += rounds * amount
            else:  # rounded in every round, as one round after the other is
                for _ in range(rounds):
                    used[which] += amount

    def columns(self, scenario: Scenario) -> Floats:
        """Return the last six `POPULATION_COLUMNS`, shape (replicates, 6)."""
        total = self.contributed_human + self.contributed_synthetic
        share = np.divide(self.contributed_synthetic, total, out=np.zeros_like(total), where=total > 0)
        used = (self.human_items, self.published_items, self.detector_calls, self.curated_items)
        prices = (
            scenario.price_human_item,
            scenario.price_published_item,
            scenario.price_detector_call,
            scenario.price_curated_item,
        )
        cost = sum(price * items for price, items in zip(prices, used, strict=True))
        return np.column_stack([share, *used, cost])


@dataclass(frozen=True, eq=False)
class _Plan:
    """The rules of a round as numbers per row, and room for its batches. Arrays of shape (rows,) but for:

    Attributes
    ----------
    weight : ndarray, shape (rows, 4)
        What an item weighs: human, synthetic, and the same two where flagged.
    outputs, weights : ndarray, shape (items in all batches,)
        To be filled, see `ecosystem.engine.kernels.mix`.
    """

    active: np.ndarray
    published: int
    published_at: Integers
    published_size: Integers
    batch: Integers
    batch_at: Integers
    fresh: Floats
    weight: Floats
    law: Integers
    outputs: np.ndarray
    weights: Floats

    @classmethod
    def of(cls, rules: Sequence[Rules], n: int, apart: bool, room: bool = True) -> "_Plan":
        def rows(name: str) -> np.ndarray:
            if apart:
                return np.concatenate([getattr(each, name) for each in rules])
            return np.tile(getattr(rules[0], name), len(rules))

        active = rows("active")
        size, batch = np.where(active, rows("outputs_per_round"), 0), rows("batch_size")
        factor = np.repeat([1.0 if each.flag is None else each.flag[2] for each in rules], n)
        plain = np.column_stack([rows("human_weight"), rows("synthetic_weight")])
        return cls(
            active=active,
            published=int(size.sum()),
            published_at=np.cumsum(size) - size,
            published_size=size,
            batch=batch,
            batch_at=np.cumsum(batch) - batch,
            fresh=rows("fresh_fraction"),
            weight=np.column_stack([plain, plain * factor[:, None]]),
            law=np.zeros(len(rules), dtype=np.int64),
            outputs=np.empty(int(batch.sum()) if room else 0, dtype=np.int32),
            weights=np.empty(int(batch.sum()) if room else 0),
        )


class _Mean(NamedTuple):
    """A mean law, shape (V,), the multiple of the common initial law in it, and what was touched."""

    law: Floats
    multiple: float
    seen: np.ndarray


_NO_COUNTS = np.zeros(0, dtype=np.int64)


def _flags(rules: Rules) -> Floats:
    """Return the chances that a synthetic and a human item is flagged."""
    return np.zeros(2) if rules.flag is None else np.array(rules.flag[:2], dtype=np.float64)


class Rounds:
    """Replicates of a scenario, run side by side by compiled kernels.

    One row is one provider of one replicate, replicates one after the other. Rows are cut into ranges that
    threads work on; what comes out does not depend on the cuts.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    replicates : range
        Which independent repetitions.
    threads : int
        How many threads work on them at a time.
    observing : bool, optional
        Whether rules may depend on the state of a replicate; by default as the scenario's interventions do.

    Attributes
    ----------
    config : Scenario
        What is run.
    round : int
        Rounds done.
    rules : list of Rules
        What holds in this round, for each replicate.
    measured : tuple of ndarray
        The metrics of the last recorded round, as `measure` returns them.
    distributions : ndarray, shape (replicates, N, V)
        Θ.
    """

    representation = "items"
    state: type[DenseState] | type[SparseState] | None = None

    def __init__(
        self, scenario: Scenario, replicates: range, threads: int = 1, observing: bool | None = None
    ) -> None:
        self.config, self.replicates, self.threads = scenario, replicates, threads
        self.n, self.round = int(scenario.n_providers or 0), 0
        human = scenario.source.law
        self.human, self.size = human, human.size
        observes = any(i.observes for i in scenario.interventions)
        self.observing = observes if observing is None else observing
        rows = self.n * len(replicates)
        self.rules: list[Rules] = []
        self._ahead: Published | None = None
        self._spare: list[np.ndarray] = []
        items = scenario.per_provider("outputs_per_round") + scenario.per_provider("batch_size")
        self.cuts = _cuts(items, len(replicates), self.observing, threads)
        self._longest = 1
        kind = self.state or (DenseState if whole_laws(scenario) else SparseState)
        self.laws: Laws = kind(scenario, replicates, self.cuts)
        self.trained = np.full(rows, float(scenario.pretraining_size))
        self.published: deque[Published] = deque(maxlen=max(2, scenario.corpus_rounds))
        self.tallies = [kernels.empty_tally(self.size) for _ in (*self.cuts, None)]
        self.accounts = Accounts(len(replicates), self.n, self.size if self.observing else 0)
        self._entropy = float(metrics.entropy(human))
        self._means: list[_Mean] = []
        self._books = [RuleBook(scenario) for _ in (replicates if self.observing else range(1))]
        active = active_in(scenario.interventions, 1, self.n)
        self._appear([replace(Rules.of(scenario), active=active)] * len(replicates))
        self._remember_means()
        self.measured = self.measure(None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_spare": []}

    # --- one round, or a few -------------------------------------------------------------------------------

    def step(self, rules: Sequence[Rules] | None = None) -> None:
        """Run one round of every replicate, by these rules or by those that the scenario has in force."""
        self._run(rules, 1)

    def advance(self) -> None:
        """Run the next rounds: as many as can be run without looking in between, for a tenth of a second."""
        begun, before = time.perf_counter(), self.round
        self._run(None, self._longest)
        if not self.recorded(self.round):
            each = (time.perf_counter() - begun) / (self.round - before)
            self._longest = max(1, min(2 * self._longest, int(_STRETCH / each)))

    def _run(self, rules: Sequence[Rules] | None, most: int) -> None:
        there = self.laws.active.copy()
        self._follow(self._in_force() if rules is None else rules)
        first, rounds = self.round + 1, self._in_one_go(most)
        recorded = self.recorded(first)
        if recorded and (there != self.laws.active).any():
            self._remember_means()  # of those who take part now
        published, self._ahead = self._ahead or self._published_in(first), None
        self.round += rounds
        self._train(published, first, recorded, ahead=rules is None and self._goes_on())
        if recorded or self.recorded(self.round + 1):
            before = self._means
            self._remember_means()
            if recorded:
                self.measured = self.measure(before)

    def recorded(self, round: int) -> bool:
        """Whether a round is recorded."""
        return round % self.config.record_every == 0 or round == self.config.rounds

    def _in_force(self) -> list[Rules]:
        found = [book.in_force(View(self, number)) for number, book in enumerate(self._books)]
        return found * len(self.replicates) if len(found) == 1 else found

    def _follow(self, rules: Sequence[Rules]) -> None:
        """Put rules in force."""
        if len(rules) != len(self.rules) or not all(map(operator.is_, rules, self.rules)):
            self._appear(rules)
            self.laws.set_temperature(rules[0].temperature)

    def _appear(self, rules: Sequence[Rules]) -> None:
        """Let those take part who do by the rules."""
        self.rules = list(rules)
        self._plan = _Plan.of(self.rules, self.n, self.observing, self.representation == "items")
        self.laws.active[:] = self._plan.active
        there = self.laws.active.reshape(-1, self.n)
        new = (there & ~self.accounts.entered).sum(axis=1)
        self.accounts.contributed_human += new * self.config.pretraining_size
        self.accounts.entered |= there

    def _of_cut(self, cut: int) -> Rules:
        return self.rules[self.cuts[cut][0] // self.n]

    def _each(self, task: Callable[[int], None], give_up: Callable[[], None] = lambda: None) -> None:
        """Do a task for every range of rows, in as many threads as there are to be."""
        with_threads(self.threads, task, range(len(self.cuts)), give_up)

    def _in_one_go(self, most: int) -> int:
        """Return how many of the next rounds, of so many, can be run without looking in between.

        They are run by the same rules, each reads only what was published for it, and only the last of them
        may be followed by one that is recorded. Each thread does one range of rows: threads wait for others.
        """
        if (
            most == 1
            or self.observing
            or not isinstance(self.laws, SparseState)
            or self.config.corpus_rounds > 2
            or self.rules[0].window > 1
            or len(self.cuts) > self.threads
        ):
            return 1
        done, every = self.round, self.config.record_every
        last = min(done + most, (done // every + 1) * every - 1, self.config.rounds - 1)
        return max(1, self._books[0].unchanged(done + 1, last) - done)

    def _goes_on(self) -> bool:
        """Whether it is known that there will be a next round, by the same rules."""
        known = not self.observing and self.round < self.config.rounds
        return known and self._in_force()[0] is self.rules[0]

    def _published_in(self, round: int) -> Published:
        published = self._blank()
        self._each(lambda cut: self._publish(cut, published, round))
        return published

    def _blank(self) -> Published:
        """Return room for what is published in a round."""
        plan = self._plan
        self._spare = [items for items in self._spare if len(items) == plan.published]
        items = self._spare.pop() if self._spare else np.empty(plan.published, dtype=np.int32)
        return Published(items, plan.published_at, plan.published_size)

    def _publish(self, cut: int, published: Published, round: int) -> None:
        self.laws.publish(cut, self._of_cut(cut), published, round)

    def _train(self, published: Published, first: int, recorded: bool, ahead: bool) -> None:
        """Let all rows gather their batches and learn, in the rounds from ``first`` on to this one.

        Where the round after them is known, let all publish for it as well: threads wait for each other once
        a round.
        """
        self._remember(published)
        schedule, rounds = self.rules[0].schedule, self.round - first + 1
        # Of all steps but those of the whole corpus the size is the same for all rows and replicates.
        sizes = np.full(rounds, np.nan)
        if schedule.kind != "accumulate":
            sizes[:] = [schedule.step_size(k, 1.0, 1.0) for k in range(first, self.round + 1)]
        rows, trained = len(self.laws.active), self.trained.copy()
        distinct, weight, kinds = np.zeros(rows, np.int64), np.zeros(rows), np.zeros((rows, 4), np.int64)
        step = Step(*self._room(), distinct, weight, trained, float(sizes[0]), first)
        second = self._blank() if ahead or rounds > 1 else published
        stocks = (published, second, self._blank() if rounds > 1 else published)
        done = np.zeros(kernels.LINE * len(self.cuts), dtype=np.int64)
        stretch = Stretch(step, sizes, stocks, ahead, recorded, done)
        with _STRETCHES if rounds > 1 and len(self.cuts) > 1 else nullcontext():
            self._each(self._turning(stretch, kinds), give_up=stretch.broken.set)
        self.trained, self._ahead = trained, stocks[rounds % 3] if ahead else None
        if rounds > 1:
            self._spare += [each.items for each in self.published if each is not published]
            self.published.clear()
            self.published.extend((stocks[(rounds - 2) % 3], stocks[(rounds - 1) % 3]))
        self._enter(kinds, rounds)

    def _remember(self, published: Published) -> None:
        """Keep what was published in a round, for as long as it is read."""
        if len(self.published) == self.published.maxlen:
            self._spare.append(self.published[0].items)
        self.published.append(published)

    def _room(self) -> tuple[np.ndarray, Floats, Integers]:
        """Return where batches are to be written: outputs, weights, and where each row's start."""
        return self._plan.outputs, self._plan.weights, self._plan.batch_at

    def _turning(self, stretch: Stretch, kinds: Integers) -> Callable[[int], None]:
        """Return how the rows of a cut gather their batches, learn and publish in a stretch of rounds."""
        plan, step = self._plan, stretch.step
        readable = {rules.window: self._readable(rules.window) for rules in self.rules[: len(self._books)]}

        def turn(cut: int) -> None:
            first, last = self.cuts[cut]
            own, rules, trouble = slice(first, last), self._of_cut(cut), np.zeros(4, dtype=np.int64)
            counting = self.observing and not rules.reused
            items, at, size = readable[rules.window]
            mixing = (
                0, last - first, self.n, self.laws.active[own], plan.fresh[own], plan.batch[own],
                plan.batch_at[own], *_reading(rules), *_people(rules), plan.law, at, size,
                self.config.with_replacement, plan.weight[own], _flags(rules), self.tallies[cut],
                self.accounts.human_counts[first // self.n] if counting else _NO_COUNTS, self.config.seed,
                self.replicates.start, int(Decision.HUMAN), first, step.outputs, step.weights,
                step.distinct[own], step.weight[own], kinds[own], trouble,
            )  # fmt: skip
            if not self.laws.turn(cut, rules, items, mixing, stretch):
                raise InputError(shortage(*trouble.tolist()))

        return turn

    def _readable(self, window: int) -> tuple[np.ndarray, Integers, Integers]:
        """Return the items of the last rounds, where each row's are and how many, shape (rounds, rows)."""
        rounds = list(self.published)[-window:]
        if len(rounds) == 1:
            return rounds[0].items, rounds[0].at[None], rounds[0].size[None]
        ahead = np.cumsum([0, *(len(each.items) for each in rounds[:-1])])
        places = np.stack([each.at + skip for each, skip in zip(rounds, ahead, strict=True)])
        sizes = np.stack([each.size for each in rounds])
        return np.concatenate([each.items for each in rounds]), places, sizes

    def _enter(self, kinds: Integers, rounds: int) -> None:
        """Put into the accounts what so many rounds used."""
        human = (kinds[:, 0] + kinds[:, 2]).reshape(-1, self.n).sum(axis=1)
        if not self.observing:
            self.accounts.enter(self.rules[0], slice(None), human, rounds)
            return
        for number, rules in enumerate(self.rules):
            self.accounts.enter(rules, number, human[number], rounds)

    # --- what is there -------------------------------------------------------------------------------------

    @property
    def distributions(self) -> Floats:
        """Θ of all providers, shape (replicates, N, V)."""
        return self.laws.distributions(0, self.n * len(self.replicates)).reshape(-1, self.n, self.size)

    def mean_law(self, replicate: int, active: np.ndarray) -> Floats:
        """Return the mean Θ of some providers of a replicate, shape (V,)."""
        held = self.laws.active.copy()
        self.laws.active[replicate * self.n : (replicate + 1) * self.n] = active
        try:
            return self._mean_law(replicate).law
        finally:
            self.laws.active[:] = held

    def _mean_law(self, replicate: int) -> "_Mean":
        own = slice(replicate * self.n, (replicate + 1) * self.n)
        if not isinstance(self.laws, SparseState):
            theta = self.laws.distributions(own.start, own.stop)[self.laws.active[own]]
            return _Mean(theta.mean(axis=0), 0.0, np.ones(self.size, dtype=bool))
        laws = self.laws
        multiple = laws.multiple(replicate)
        mean = multiple * laws.tables.laws[0]
        seen = np.zeros((self.size + 63) // 64 * 64, dtype=bool)

        def add(low: int, high: int) -> None:
            laws.add_to_mean(replicate, low, high, seen, mean)

        pieces = max(self.threads, self.size // _CACHED) if self.size >= _COLUMNS[0] else 1
        with_threads(self.threads, lambda span: add(*span), _spans(self.size, pieces))
        return _Mean(mean, multiple, seen)

    def _remember_means(self) -> None:
        """Keep the mean law of every replicate for the divergence from round to round."""
        if self.n == 1:
            return
        self._means = [self._mean_law(number) for number in range(len(self.replicates))]

    # --- metrics -------------------------------------------------------------------------------------------

    def measure(self, before: "list[_Mean] | None") -> tuple[Floats, Floats]:
        """Return the metrics, given the mean laws of the round before.

        Returns
        -------
        providers : ndarray, shape (replicates, N, 15)
            `PROVIDER_COLUMNS`; missing (NaN) for who does not take part.
        population : ndarray, shape (replicates, 24)
            `POPULATION_COLUMNS`.
        """
        replicates, m = len(self.replicates), len(measures.METRICS)
        providers: np.ndarray = np.full((replicates * self.n, len(PROVIDER_COLUMNS)), np.nan)
        of_rows = np.full((len(providers), m), np.nan)
        mass_k = self.config.mass_k
        alike, together = np.full((replicates * self.n, 2), np.nan), np.empty((replicates, 2))

        def of_cut(cut: int) -> None:
            if cut < len(self.cuts):
                self.laws.measure_rows(cut, mass_k, self._entropy, of_rows)
                self._alike(cut, alike)
            else:  # what takes about as long, at the same time
                together[:] = [self._together(number) for number in range(replicates)]

        with_threads(self.threads, of_cut, range(len(self.cuts) + (self.n > 1)))
        if before is None:
            of_rows[:, -1] = np.where(self.laws.active, 0.0, np.nan)
        providers[:, :m], providers[:, m:] = of_rows, alike
        providers = providers.reshape(replicates, self.n, -1)
        population = np.empty((replicates, len(POPULATION_COLUMNS)))
        if self.n == 1:
            population[:, : m + 2] = providers[:, 0]
        else:
            for number in range(replicates):
                mean = self._means[number]
                population[number, :m] = self._of_mean(mean, mean if before is None else before[number])
            population[:, m : m + 2] = together
        of_each, of_all = np.nanmean(providers[:, :, 0], axis=1), population[:, 0]
        alpha, gamma = np.exp(of_each), np.exp(of_all)
        diversity = (np.maximum(of_all - of_each, 0), alpha, np.maximum(gamma / alpha, 1), gamma)
        population[:, m + 2 : m + 6] = np.column_stack(diversity)
        population[:, m + 6 :] = self.accounts.columns(self.config)
        return providers, population

    def measurement(self, number: int) -> Measurement:
        """Return the metrics of the last recorded round of one replicate, as the reference engine does."""
        providers, population = self.measured
        return Measurement(
            {name: providers[number, :, c] for c, name in enumerate(PROVIDER_COLUMNS)},
            dict(zip(POPULATION_COLUMNS, population[number].tolist(), strict=True)),
        )

    def _of_mean(self, mean: "_Mean", before: "_Mean") -> Floats:
        """Return the metrics of a mean law, given the one of the round before, shape (13,)."""
        laws = self.laws
        if not isinstance(laws, SparseState):
            of_laws = metrics.of_laws(mean.law, before.law, self.human, self.config.mass_k)
            return np.array([float(of_laws[name]) for name in measures.METRICS])
        # Who forgets has not touched any more what was touched a round ago.
        seen, c = mean.seen | before.seen, mean.multiple
        # What is added up in pieces depends on their number: it is the same for any number of threads.
        spans = _spans(self.size, 8 if self.size >= _COLUMNS[1] else 2 if self.size >= _COLUMNS[0] else 1)
        parts = np.zeros((len(spans), measures.SUMS + 1))
        best = np.zeros((len(spans), min(self.config.mass_k, self.size)))

        def add(piece: int) -> None:
            measures.of_mean(
                *spans[piece], mean.law, seen, before.law, c, laws.tables, laws.facts, parts[piece],
                best[piece],
            )  # fmt: skip

        with_threads(self.threads, add, range(len(spans)))
        out = np.zeros(len(measures.METRICS))
        sums = parts[0].copy()
        for part in parts[1:]:
            sums += part
        measures.finish_mean(
            sums, best, c, before.multiple, seen, laws.tables, laws.facts, self._entropy, out
        )
        return out

    def _alike(self, cut: int, out: Floats) -> None:
        """Fill the chances that two items of a row agree, shape (rows, 2), for the rows of a cut."""
        own = slice(*self.cuts[cut])
        active = self.laws.active[own]
        if self.round == 0:
            out[own][active] = (self.human**2).sum()
            return
        now = self.published[-1]
        then = self.published[-2] if len(self.published) > 1 and self.round > 1 else _NOTHING
        past = (then.at[own], then.size[own]) if len(then.items) else (now.at[own], now.size[own])
        measures.of_publications(
            0, len(active), active, now.items, now.at[own], now.size[own], then.items, *past, self.human,
            self.tallies[cut], out[own],
        )  # fmt: skip

    def _together(self, number: int) -> tuple[float, float]:
        """Return the same of everything that the active providers of a replicate published."""
        if self.round == 0:
            alike = float((self.human**2).sum())
            return alike, alike
        own = slice(number * self.n, (number + 1) * self.n)
        now, then = self.published[-1], self.published[-2] if self.round > 1 else _NOTHING
        out = np.empty((1, 2))
        items, past = _active_items(now, own, self.laws.active), then.items
        if len(then.items):
            past = _active_items(then, own, self.laws.active)
        zero = np.zeros(1, dtype=np.int64)
        measures.of_publications(
            0, 1, np.ones(1, dtype=bool), items, zero, np.array([len(items)]), past, zero,
            np.array([len(past)]), self.human, self.tallies[-1], out,
        )  # fmt: skip
        nobody = len(then.items) > 0 and len(past) == 0
        return float(out[0, 0]), np.nan if nobody else float(out[0, 1])

    def published_law(self, number: int) -> Floats:
        """Return the frequencies of what a replicate published last, shape (V,)."""
        own = slice(number * self.n, (number + 1) * self.n)
        items = _active_items(self.published[-1], own, np.ones(len(self.laws.active), dtype=bool))
        return np.bincount(items, minlength=self.size) / len(items)


class View:
    """`ecosystem.interventions.Observed`, of one replicate about to run a round."""

    def __init__(self, rounds: Rounds, number: int) -> None:
        self._rounds, self._number = rounds, number
        self.round = rounds.round + 1
        self.human = rounds.human
        self.human_items = int(rounds.accounts.contributed_human[number])
        self.synthetic_items = int(rounds.accounts.contributed_synthetic[number])

    @property
    def human_counts(self) -> Integers:
        """How often each output was among the human items of all batches, shape (V,); a view."""
        return self._rounds.accounts.human_counts[self._number]

    @cached_property
    def mean_distribution(self) -> Floats:
        """Mean Θ of the providers active in the round about to run, shape (V,)."""
        rounds = self._rounds
        active = active_in(rounds.config.interventions, self.round, rounds.n)
        return rounds.mean_law(self._number, active)

    @cached_property
    def published_law(self) -> Floats | None:
        """Frequencies of what was published in the last round, shape (V,)."""
        rounds = self._rounds
        if rounds.round == 0:
            return None
        return rounds.published_law(self._number)


def whole_laws(scenario: Scenario) -> bool:
    """Whether a scenario looks at, or changes, every output in every round."""
    from ecosystem.interventions import foreseen

    cut = scenario.top_k is not None or scenario.top_p is not None or scenario.training_error > 0
    return cut or any((period.rules.temperature == 0).any() for period in foreseen(scenario, ramps=False))


def with_threads(
    threads: int,
    task: Callable[[Any], None],
    inputs: Sequence[Any],
    give_up: Callable[[], None] = lambda: None,
) -> None:
    """Do a task for every input, at most so many at a time; kernels run without the interpreter's lock.

    Each thread starts with inputs of its own, the same every time, so that what it works on stays in its
    processor's cache; who has done all of these takes from the others'. The calling thread is one of them. If
    one fails, ``give_up`` is to let those end who wait for it.
    """
    threads = min(threads, len(inputs))
    edges = [len(inputs) * k // threads for k in range(threads + 1)]
    shares = [deque(inputs[first:last]) for first, last in pairwise(edges)]

    def work(thread: int) -> None:
        for share in (*range(thread, threads), *range(thread)):
            take = shares[share].popleft if share == thread else shares[share].pop
            while True:
                try:
                    each = take()
                except IndexError:
                    break
                task(each)

    def help_out(thread: int) -> None:
        try:
            work(thread)
        except BaseException:
            give_up()
            raise

    helpers: list[Future[None]] = []
    try:
        for thread in range(1, threads):
            helpers.append(_pool(threads - 1).submit(help_out, thread))
        work(0)
    except BaseException:
        give_up()
        raise
    finally:  # whoever has not begun has nothing left to do; all others have ended now
        failures = [helper.exception() for helper in helpers if not helper.cancel()]
    for failure in filter(None, failures):
        raise failure


_STRETCHES = Lock()
"""Threads wait for each other in a stretch of rounds: those of another are not to be in their way."""
_POOLS: dict[int, ThreadPoolExecutor] = {}


def _after_fork() -> None:
    """Forget threads that a forked process has not got, and what they held."""
    global _STRETCHES
    _STRETCHES = Lock()
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _pool(threads: int) -> ThreadPoolExecutor:
    if threads not in _POOLS:
        _POOLS[threads] = ThreadPoolExecutor(threads, thread_name_prefix="ecosystem")
    return _POOLS[threads]


_NOTHING = Published(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))


def _active_items(published: Published, own: slice, active: np.ndarray) -> np.ndarray:
    """Return the items of the active providers among some rows, one after the other."""
    at, size = published.at[own], published.size[own]
    if active[own].all():
        return published.items[at[0] : at[-1] + size[-1]]
    pieces = [published.items[a : a + n] for a, n, there in zip(at, size, active[own], strict=True) if there]
    return np.concatenate(pieces)


def _cuts(items: Floats | Integers, replicates: int, apart: bool, threads: int) -> list[tuple[int, int]]:
    """Return ranges of rows with about as many items, one for each thread as far as that is worth it.

    ``items``, shape (N,), is what a provider publishes and trains on. With ``apart`` no range is of two
    replicates.
    """
    n, together = len(items), 1 if apart else replicates
    pieces = max(1, min(threads, n * replicates, int(items.sum()) * replicates // _WORTH))
    pieces = -(-pieces * together // replicates)
    before = np.concatenate([[0], np.cumsum(np.tile(items, together))])
    edges = np.unique(np.searchsorted(before, before[-1] * np.arange(pieces + 1) / pieces))
    first = n * together * np.arange(replicates // together)
    return [(a + start, b + start) for start in first.tolist() for a, b in pairwise(edges.tolist())]


def _spans(size: int, pieces: int) -> list[tuple[int, int]]:
    """Return ranges of outputs, from one multiple of 64 to another."""
    edges = [size * p // pieces // 64 * 64 for p in range(pieces)]
    return list(pairwise([*edges, size]))


def _once(make: Callable[[Any], Any], field: str) -> Callable[[Rules], Any]:
    """Compute something from a field of rules once for as long as the field is the same object."""
    held: list[tuple[Any, Any]] = []

    def of(rules: Rules) -> Any:
        value = getattr(rules, field)
        for known, made in held:
            if known is value:
                return made
        held[:] = [*held[-31:], (value, make(value))]
        return held[-1][1]

    return of


def _padded(W: Any) -> tuple[Integers, Integers, Floats, Floats]:  # noqa: N803
    """Return W as kernels read it: rows of cumulative shares, filled up to multiples of 8, and their sums."""
    n = W.shape[0]
    wide = (np.diff(W.indptr) + 7) // 8 * 8
    pointer = np.concatenate([[0], np.cumsum(wide)]).astype(np.int64)
    authors, shares = np.zeros(pointer[-1], dtype=np.int64), np.full(pointer[-1], np.inf)
    sums = np.zeros(n)
    for i in range(n):
        row = slice(W.indptr[i], W.indptr[i + 1])
        ends = np.cumsum(W.data[row])
        if len(ends):
            sums[i] = ends[-1]
            authors[pointer[i] : pointer[i] + len(ends)] = W.indices[row]
            shares[pointer[i] : pointer[i] + len(ends) - 1] = ends[:-1]
    return pointer, authors, shares, sums


_reading = _once(_padded, "W")
_people = _once(human_table, "human")
