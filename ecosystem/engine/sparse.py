"""What providers have learned, kept sparse: memory grows with the outputs that each has touched."""

import time
from typing import Any

import numpy as np
from scipy import sparse

from ecosystem.engine import kernels, measures
from ecosystem.engine.kernels import STRIDE, Blocks, Scales, Tables
from ecosystem.engine.laws import Laws, Published, Step, Stretch
from ecosystem.errors import InputError
from ecosystem.interventions import Rules
from ecosystem.laws import SparseLaws
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

_NO_SCORE = np.zeros(1)
_NAP = 1e-4
"""Seconds that a thread sleeps when it has waited for others long enough."""


class _Shard:
    """A range of rows with their own pool of blocks, so that threads need not agree on anything."""

    def __init__(self, first: int, rows: int, n_outputs: int) -> None:
        self.first, self.rows = first, rows
        self.tally = kernels.empty_tally(n_outputs)
        room = 8
        length = rows * room + kernels.BEYOND
        lists = [np.zeros(length, dtype=np.int32) for _ in range(3)]
        starts = np.arange(rows, dtype=np.int64) * room
        self._end = rows * room
        values, keys = _pool(2 * rows + 8)
        self.blocks = Blocks(
            values, keys, lists[0], lists[1], lists[2], np.zeros(length), starts,
            np.full(rows, room, dtype=np.int64), np.ones(rows, dtype=np.int64),
            np.zeros(2 * rows + 8, dtype=np.int32), np.array([rows, 0]),
        )  # fmt: skip
        self.blocks.ids[starts] = np.arange(rows)
        scalars: list[Any] = [*(np.zeros(rows) for _ in range(5)), np.zeros(rows, dtype=np.int64)]
        self.scales = Scales(*scalars)
        for row in range(rows):
            kernels.clear(self.blocks, row)

    def __getstate__(self) -> dict[str, Any]:
        used = int(self.blocks.free[0])
        kept = self.blocks._replace(values=self.blocks.values[: used * STRIDE].copy(), keys=None)
        return self.__dict__ | {"blocks": kept, "tally": len(self.tally)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        values, keys = _pool(len(self.blocks.spare))
        values[: len(self.blocks.values)] = self.blocks.values
        self.blocks = self.blocks._replace(values=values, keys=keys)
        self.tally = kernels.empty_tally(state["tally"])

    def make_room(self, row: int, batch: int) -> None:
        """Let a row take a batch of so many different outputs."""
        blocks = self.blocks
        used = int(blocks.used[row])
        more = min(batch, used + batch // (kernels.FULL // 2) + 1)
        pool = len(blocks.spare)
        if more > pool - blocks.free[0] + blocks.free[1]:
            pool = 4 * (pool + more)  # what is not used yet takes no memory
            values, keys = _pool(pool)
            kept = blocks.free[0] * STRIDE
            values[:kept] = blocks.values[:kept]
            blocks = blocks._replace(values=values, keys=keys, spare=_longer(blocks.spare, pool))
        if used + more > blocks.room[row]:
            room = 2 * (used + more)
            end = self._end + room
            if end + kernels.BEYOND > len(blocks.ids):
                length = 2 * (end + kernels.BEYOND)
                names = ("ids", "lows", "counts", "sums")
                blocks = blocks._replace(**{name: _longer(getattr(blocks, name), length) for name in names})
            old, new = slice(blocks.first[row], blocks.first[row] + used), slice(self._end, self._end + used)
            for array in (blocks.ids, blocks.lows, blocks.counts, blocks.sums):
                array[new] = array[old]
            blocks.first[row], blocks.room[row], self._end = self._end, room, end
        self.blocks = blocks


def _pool(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return room for so many blocks, each at the start of a cache line."""
    raw = np.empty(size * STRIDE + 8)
    skip = -raw.ctypes.data % 64 // 8
    values = raw[skip : skip + size * STRIDE]
    return values, values.view(np.int32)


def _longer(array: np.ndarray, length: int) -> np.ndarray:
    longer = np.zeros(length, dtype=array.dtype)
    longer[: len(array)] = array
    return longer


class SparseState(Laws):
    """Raw values of touched outputs in sorted blocks (`ecosystem.engine.kernels`)."""

    representation = "sparse"

    def __init__(self, scenario: Scenario, replicates: range, cuts: list[tuple[int, int]]) -> None:
        super().__init__(scenario, replicates, cuts)
        human, size = scenario.source.law, scenario.source.law.size
        self.sampled = isinstance(scenario.initial, str) and scenario.initial == "sampled"
        start = np.zeros((1, size)) if self.sampled else self.start_laws(scenario)
        with np.errstate(divide="ignore"):
            self._peaks = np.log(start.max(axis=1))
        self._starts = start
        self._temperature = np.full(self.rows, np.nan)
        self.g = np.full(self.rows, 1.0 / scenario.pretraining_size)
        self.unit = np.ones(self.rows)
        self.moved = np.zeros(self.rows)
        self.shards = [_Shard(first, last - first, size) for first, last in cuts]
        totals = np.zeros((len(start), measures.SUMS))
        logs = np.log(np.where(human > 0, human, 1.0))
        measures.sums_of_starts(start, human, logs, totals)
        order = np.argsort(-start, axis=1, kind="stable").astype(np.int32)
        same = np.array([np.array_equal(law, human) for law in start])
        self.facts = measures.Facts(human, logs, totals, order, same, int((human > 0).sum()))
        for shard in self.shards:
            shard.scales.base[:] = 0.0 if self.sampled else scenario.pretraining_size
        temperature = scenario.per_provider("temperature")
        self.set_temperature(np.where(temperature > 0, temperature, 1.0))  # until the first round's is known
        if self.sampled:
            self._pretrain(scenario)

    # --- temperature ---------------------------------------------------------------------------------------

    def set_temperature(self, temperature: Floats) -> None:
        """Let the providers sample at temperatures T, shape (N,), from now on."""
        if (temperature == 0).any():
            raise InputError('temperature 0: put in force during a run it needs engine = "agents"')
        rows = np.tile(temperature, len(self.replicates))
        changed = rows != self._temperature
        if not changed.any():
            return
        self._temperature = rows
        start = np.tile(
            np.arange(self.n) if len(self._starts) > 1 else np.zeros(self.n, dtype=int), len(self.replicates)
        )
        keys, table = np.unique(np.column_stack([start, rows]), axis=0, return_inverse=True)
        size = self._starts.shape[1]
        ends = np.zeros((len(keys), size + 1 + kernels.PAD))
        ends[:, size + 1 :] = np.inf
        guide = np.zeros((len(keys), guide_size(size)), dtype=np.int32)
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = 1 / rows
            for t, (which, temper) in enumerate(keys):
                law = self._starts[int(which)]
                if self.sampled:
                    continue
                weights = np.exp((np.log(law) - self._peaks[int(which)]) / temper)
                ends[t, 1 : size + 1] = np.cumsum(np.where(law > 0, weights, 0.0))
                kernels.guide_of(ends[t], guide[t])
        self.tables = Tables(ends, guide, self._starts, self._peaks, keys[:, 0].astype(np.int64))
        for shard in self.shards:
            own = slice(shard.first, shard.first + shard.rows)
            shard.scales.inverse[:] = inverse[own]
            shard.scales.table[:] = table.reshape(-1)[own]
            kernels.refresh(0, shard.rows, changed[own], shard.blocks, shard.scales, self.tables)

    # --- the round -----------------------------------------------------------------------------------------

    def publish(self, cut: int, rules: Rules, published: Published, round: int) -> None:
        """Draw what the rows of a cut publish."""
        kernels.publish(round, published.items, *self._publishing(cut, rules, published))

    def learn(self, cut: int, step: Step, measuring: bool) -> None:
        """Move the rows of a cut towards their batches."""
        shard, row = self.shards[cut], 0
        while (row := kernels.learn(row, step.a, *self._learning(cut, step, measuring))) < shard.rows:
            shard.make_room(row, int(step.distinct[shard.first + row]))

    def turn(
        self, cut: int, rules: Rules, items: np.ndarray, mixing: tuple[Any, ...], stretch: Stretch
    ) -> bool:
        """Let the rows of a cut gather their batches, learn and publish: one round after the other."""
        shard, step, rounds = self.shards[cut], stretch.step, len(stretch.sizes)
        stocks, *_, trouble = (items, *(each.items for each in stretch.stocks[1:])), *mixing
        k, row = 0, -1
        while k < rounds:
            k, row = kernels.turns(
                k, row, step.round, stretch.sizes, stocks, mixing,
                self._learning(cut, step, stretch.measuring),
                self._publishing(cut, rules, stretch.stocks[0]), stretch.ahead, stretch.done,
                kernels.LINE * cut,
            )  # fmt: skip
            if row >= 0:
                shard.make_room(row, int(step.distinct[shard.first + row]))  # in other arrays
            elif trouble.any():
                return False
            elif k < rounds:
                if stretch.broken.is_set():
                    break
                time.sleep(_NAP)
        return True

    def _publishing(self, cut: int, rules: Rules, published: Published) -> tuple[Any, ...]:
        shard = self.shards[cut]
        own = slice(shard.first, shard.first + shard.rows)
        score = (_NO_SCORE if rules.score is None else rules.score).view()
        score.flags.writeable = False  # or else kernels are compiled once more for scores that are not
        return (
            0, shard.rows, self.n, published.at[own], published.size[own], self.active[own], shard.blocks,
            shard.scales, self.tables, self.seed, self.replicates.start, shard.first, rules.best_of,
            rules.verifier_error, score,
        )  # fmt: skip

    def _learning(self, cut: int, step: Step, measuring: bool) -> tuple[Any, ...]:
        shard = self.shards[cut]
        own = slice(shard.first, shard.first + shard.rows)
        return (
            shard.rows, step.outputs, step.weights, step.at[own], step.distinct[own], step.weight[own],
            step.trained[own], self.g[own], self.unit[own], shard.blocks, shard.scales, self.tables,
            measuring, self.moved[own],
        )  # fmt: skip

    def _pretrain(self, scenario: Scenario) -> None:
        """Start every row from the frequencies of human items of its own."""
        for cut, shard in enumerate(self.shards):
            step = self.pretraining(scenario, shard.first, shard.rows, shard.tally)
            self.learn(cut, step, measuring=False)

    # --- what is there -------------------------------------------------------------------------------------

    def distributions(self, first: int, last: int) -> Floats:
        """Return Θ of rows first to last, shape (last − first, V)."""
        out = np.empty((last - first, self.tables.laws.shape[1]))
        for shard in self.shards:
            a, b = max(first, shard.first), min(last, shard.first + shard.rows)
            if a < b:
                g = self.g[shard.first : shard.first + shard.rows]
                r0, r1 = a - shard.first, b - shard.first
                kernels.dense(r0, r1, g, shard.blocks, shard.scales, self.tables, out[a - first : b - first])
        return out

    def final(self) -> SparseLaws:
        """Return what all rows have learned, as it is stored."""
        n, size = self.n, self.tables.laws.shape[1]
        base = np.concatenate([shard.scales.base for shard in self.shards])
        touched = []
        for replicate in range(len(self.replicates)):
            pieces = []
            for shard in self.shards:
                a = max(replicate * n, shard.first)
                b = min((replicate + 1) * n, shard.first + shard.rows)
                if a < b:
                    pieces.append(self._touched(shard, a - shard.first, b - shard.first))
            touched.append(sparse.csr_array(sparse.vstack(pieces, format="csr")))
            touched[-1].resize((n, size))  # type: ignore[arg-type]
        return SparseLaws(self._starts, (base * self.g).reshape(len(self.replicates), n), touched)

    def _touched(self, shard: _Shard, r0: int, r1: int) -> sparse.csr_array:
        places = np.concatenate(
            [
                np.arange(shard.blocks.first[r], shard.blocks.first[r] + shard.blocks.used[r])
                for r in range(r0, r1)
            ]
        )
        count = int(shard.blocks.counts[places].sum())
        pointer = np.zeros(r1 - r0 + 1, dtype=np.int64)
        outputs, values = np.empty(count, dtype=np.int32), np.empty(count)
        g = self.g[shard.first : shard.first + shard.rows]
        kernels.touched(r0, r1, g, shard.blocks, pointer, outputs, values)
        return sparse.csr_array((values, outputs, pointer), shape=(r1 - r0, self.tables.laws.shape[1]))

    def measure_rows(self, cut: int, mass_k: int, entropy: float, out: Floats) -> None:
        """Fill ``out``, shape (rows, 13), with the metrics of the rows of a cut."""
        shard = self.shards[cut]
        own = slice(shard.first, shard.first + shard.rows)
        measures.of_rows(
            0, shard.rows, self.g[own], self.active[own], mass_k, self.moved[own], shard.blocks, shard.scales,
            self.tables, self.facts, entropy, out[own],
        )  # fmt: skip

    def add_to_mean(self, replicate: int, low: int, high: int, seen: np.ndarray, mean: Floats) -> None:
        """Add Θ of the active providers of a replicate, each divided by their number, to ``mean``.

        Untouched outputs of a common initial law are left out: `multiple` times that law.
        """
        first, last = replicate * self.n, (replicate + 1) * self.n
        n = self.active[first:last].sum()
        for shard in self.shards:
            a, b = max(first, shard.first), min(last, shard.first + shard.rows)
            if a < b:
                own = slice(shard.first, shard.first + shard.rows)
                measures.add_to_mean(
                    a - shard.first, b - shard.first, low, high, self.g[own] / n, self.active[own],
                    shard.blocks, shard.scales, self.tables, seen, mean,
                )  # fmt: skip

    def multiple(self, replicate: int) -> float:
        """Return how much of a common initial law there is in the mean law; 0 where there is none."""
        if len(self._starts) > 1:
            return 0.0
        own = slice(replicate * self.n, (replicate + 1) * self.n)
        base = np.concatenate([shard.scales.base for shard in self.shards])[own] * self.g[own]
        return float(base[self.active[own]].mean())


def guide_size(n_outputs: int) -> int:
    """Return how many starting points a search over so many outputs gets: a power of 2."""
    return 1 << max(0, int(min(4 * n_outputs, max(n_outputs, 2**18)) - 1).bit_length())
