"""The compiled engine against its peers: ``python tests/benchmarks/bench_engine.py [ROW ...]``.

One table. Everyone runs the same scenario: Watts-Strogatz graph with k = 6, T = 0.8, λ = 0.1, "accumulate",
100 items published and 100 trained on by a provider in a round; an *item* is one of either. Rows:

compare     a hand-written Mesa model, dense numpy, the reference engine and the compiled one
growth      what an item costs from 10³ to 10⁶ outputs
floor       against the rate at which a static alias table is drawn from, with the same generator and threads
recording   all metrics in every round, and in every 10th, against none, after 200 rounds
replicates  1,000 replicates of one provider × 1,000 outputs × 200 rounds × 200 items
large       10⁴ providers × 10⁶ outputs: seconds a round, and peak memory after 100 rounds

Competitors take turns and ratios are medians over the turns, so that a busy machine slows down all of them.
Wall time is what counts; CPU time (of all threads) tells how much of it was waiting.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import mesa
import networkx as nx
import numpy as np

from ecosystem import Ecosystem, Scenario, run
from ecosystem.engine import kernels, processors
from ecosystem.engine.rounds import Rounds
from ecosystem.lots import lot

TURNS = 7
FOREVER = 10**6


def scenario(n: int, size: int, items: int = 100, **changes: Any) -> Scenario:
    graph = nx.watts_strogatz_graph(n, min(6, n - 1), 0.1, seed=1)
    settings = {
        "n_outputs": size,
        "sharing": graph,
        "temperature": 0.8,
        "fresh_fraction": 0.1,
        "outputs_per_round": items,
        "batch_size": items,
        "schedule": "accumulate",
        "rounds": FOREVER,
        "record_every": FOREVER,
    }
    return Scenario(**settings | changes)


# --- peers ------------------------------------------------------------------------------------------------


class Author(mesa.Agent):
    """A provider as one would write it by hand."""

    def __init__(self, model: "ByHand", theta: np.ndarray, read: np.ndarray) -> None:
        super().__init__(model)
        self.theta, self.read, self.seen = theta.copy(), read, 1000
        self.published = np.zeros(0, dtype=np.int64)

    def publish(self) -> None:
        model = self.model
        law = self.theta ** (1 / model.temperature)
        self.published = model.rng.choice(model.size, size=model.items, p=law / law.sum())

    def train(self) -> None:
        model = self.model
        human = np.count_nonzero(model.rng.random(model.items) < model.fresh)
        parts = [model.rng.choice(model.size, size=human, p=model.human)]
        authors, counts = np.unique(model.rng.choice(self.read, size=model.items - human), return_counts=True)
        for author, count in zip(authors, counts, strict=True):
            parts.append(model.rng.choice(model.authors[author].published, size=count, replace=False))
        frequencies = np.bincount(np.concatenate(parts), minlength=model.size) / model.items
        step = model.items / (self.seen + model.items)
        self.theta += step * (frequencies - self.theta)
        self.seen += model.items


class ByHand(mesa.Model):
    """The ecosystem as one would write it by hand, with Mesa: agents that draw with ``rng.choice(p=...)``."""

    def __init__(self, config: Scenario) -> None:
        super().__init__(rng=1)
        self.human, self.size = config.source.law, config.source.law.size
        self.temperature, self.fresh, self.items = 0.8, 0.1, int(config.per_provider("batch_size")[0])
        W = config.W  # noqa: N806
        self.authors = [
            Author(self, self.human, W.indices[slice(*W.indptr[i : i + 2])]) for i in range(W.shape[0])
        ]

    def step(self) -> None:
        self.agents.do("publish")
        self.agents.do("train")


class Dense:
    """The ecosystem in whole arrays: counts are multinomial, batches are drawn with replacement."""

    def __init__(self, config: Scenario) -> None:
        self.human, self.W = config.source.law, config.W
        self.items = int(config.per_provider("batch_size")[0])
        self.theta = np.tile(self.human, (self.W.shape[0], 1))
        self.seen, self.rng = 1000, np.random.default_rng(1)

    def step(self) -> None:
        law = self.theta ** (1 / 0.8)
        law /= law.sum(axis=1, keepdims=True)
        published = self.rng.multinomial(self.items, law) / self.items
        mixed = 0.1 * self.human + 0.9 * (self.W @ published)
        mixed /= mixed.sum(axis=1, keepdims=True)
        batch = self.rng.multinomial(self.items, mixed) / self.items
        step = self.items / (self.seen + self.items)
        self.theta += step * (batch - self.theta)
        self.seen += self.items


@kernels.kernel
def alias_draws(out, level, other, luck, seed, streams):
    """Draw ``len(out)`` outputs from each of so many streams by Walker's alias method."""
    n, size = len(out), len(level)
    for stream in range(streams):
        kernels.uniforms(luck, n, seed, 0, 2, stream, 1)
        for i in range(n):
            x = luck[i] * size
            column = int(x)
            out[i] = column if x - column < level[column] else other[column]


class Floor:
    """What no engine can beat: draws from a law that never changes, and nothing else."""

    def __init__(self, size: int, items: int, threads: int, streams: int) -> None:
        law = (1 / np.arange(1, size + 1)) ** (1 / 0.8)
        self.level, self.other = alias_table(law / law.sum())
        self.rooms = [(np.empty(items, dtype=np.int32), np.empty(items)) for _ in range(threads)]
        self.streams = -(-streams // threads)
        self.items = items * self.streams * threads
        self.pool = ThreadPoolExecutor(threads)

    def step(self) -> None:
        def draw(number: int) -> None:
            out, luck = self.rooms[number]
            alias_draws(out, self.level, self.other, luck, number, self.streams)

        list(self.pool.map(draw, range(len(self.rooms))))


def alias_table(law: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Walker's table: output v is kept with probability level[v], else it becomes other[v]."""
    size = len(law)
    level, other, left = np.ones(size), np.arange(size, dtype=np.int32), law * size
    small, large = np.flatnonzero(left < 1).tolist(), np.flatnonzero(left >= 1).tolist()
    while small and large:
        low, high = small.pop(), large[-1]
        level[low], other[low] = left[low], high
        left[high] -= 1 - left[low]
        if left[high] < 1:
            small.append(large.pop())
    return level, other


# --- timing -----------------------------------------------------------------------------------------------


class Cost(NamedTuple):
    """Nanoseconds an item, of the clock and of all threads."""

    wall: float
    cpu: float


def turns(steps: dict[str, Callable[[], int]], seconds: float = 0.3) -> dict[str, list[Cost]]:
    """Let all of them take turns; each is a function that does some items and returns how many."""
    repeats = {}
    for name, step in steps.items():
        step()  # warm
        start = time.perf_counter()
        step()
        repeats[name] = max(1, round(seconds / (time.perf_counter() - start)))
    costs: dict[str, list[Cost]] = {name: [] for name in steps}
    for _ in range(TURNS):
        for name, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            share = 1e9 / sum(step() for _ in range(repeats[name]))
            costs[name].append(
                Cost((time.perf_counter() - wall) * share, (time.process_time() - cpu) * share)
            )
    return costs


def median(costs: list[Cost]) -> Cost:
    return Cost(*(statistics.median(part) for part in zip(*costs, strict=True)))


def ratio(of: list[Cost], to: list[Cost]) -> float:
    return statistics.median(a.wall / b.wall for a, b in zip(of, to, strict=True))


class Row(NamedTuple):
    """A line of the table."""

    task: str
    who: str
    cost: str
    ratio: str = ""
    wanted: str = ""


def line(task: str, who: str, cost: Cost, ratio: str = "", wanted: str = "") -> Row:
    return Row(task, who, f"{cost.wall:9.1f} ns an item ({cost.cpu:.1f} CPU)", ratio, wanted)


# --- rows -------------------------------------------------------------------------------------------------


def rounds(step: Callable[[], Any], items: int) -> Callable[[], int]:
    """Return what does a round of so many items."""

    def go() -> int:
        step()
        return items

    return go


def compiled(config: Scenario, threads: int = 0, warm: int = 0) -> Callable[[], int]:
    """Return what does the next round or, as `ecosystem.run` does it, rounds; after some to begin with."""
    ahead = lot(config, range(1), "compiled", threads or processors())
    items = config.per_provider("outputs_per_round").sum() + config.per_provider("batch_size").sum()

    def go() -> int:
        before = ahead.round
        ahead.advance()
        return int(items) * (ahead.round - before)

    while ahead.round < warm:
        go()
    return go


def compare() -> Iterator[Row]:
    for n, size, wanted in ((1000, 1000, 25), (1000, 10_000, 70), (100, 100_000, 300)):
        config, items = scenario(n, size), 2 * n * 100
        floor = Floor(size, 100, processors(), 10 * n)
        steps = {
            "Mesa by hand": rounds(ByHand(config).step, items),
            "dense numpy": rounds(Dense(config).step, items),
            "agents": rounds(Ecosystem(config).step, items),
            "compiled": compiled(config),
            "compiled, one thread": compiled(config, 1),
            "floor": rounds(floor.step, floor.items),
        }
        costs = turns(steps)
        for name in steps:
            times = ratio(costs["Mesa by hand"], costs[name])
            asked = f"at least {wanted}" if name == "compiled" else ""
            yield line(f"{n:,} × {size:,}", name, median(costs[name]), f"{times:.3g} times Mesa", asked)


def growth() -> Iterator[Row]:
    sizes = (10**3, 10**4, 10**5, 10**6)
    steps = {f"{size:,}": compiled(scenario(1000, size), warm=30) for size in sizes}
    costs = turns(steps)
    for name in steps:
        times = ratio(costs[name], costs["1,000"])
        yield line(f"1,000 × {name}", "compiled", median(costs[name]), f"{times:.2f} times V = 10³",
                   "at most 2.5" if name == "1,000,000" else "")  # fmt: skip


def floor() -> Iterator[Row]:
    for items in (1000, 100):
        n = 100_000 // items
        floor = Floor(10_000, items, processors(), 10 * n)
        config = scenario(n, 10_000, items, sharing="small-world", n_providers=n)
        steps = {"compiled": compiled(config, warm=30), "floor": rounds(floor.step, floor.items)}
        costs = turns(steps)
        task = f"{n:,} × 10,000, {items:,} items"
        yield line(task, "floor", median(costs["floor"]))
        share = ratio(costs["floor"], costs["compiled"])
        yield line(task, "compiled", median(costs["compiled"]), f"{share:.2f} of the floor",
                   "at least 0.25" if items == 1000 else "")  # fmt: skip


def recording() -> Iterator[Row]:
    for n, size in ((1000, 1000), (1000, 10_000), (100, 100_000)):
        config = scenario(n, size)
        steps = {
            "not recorded": compiled(config, warm=200),
            "every round": compiled(config.replace(record_every=1), warm=200),
            "every 10th round": compiled(config.replace(record_every=10), warm=200),
        }
        costs = turns(steps)
        for name in steps:
            times = ratio(costs[name], costs["not recorded"])
            yield line(f"{n:,} × {size:,}", name, median(costs[name]), f"{times:.2f} times not recorded",
                       "at most 2" if name == "every 10th round" else "")  # fmt: skip


def replicates() -> Iterator[Row]:
    config = Scenario(
        n_providers=1, n_outputs=1000, rounds=200, outputs_per_round=200, batch_size=200, record_every=200
    )
    run(config, 2)
    for every in (200, 1):
        start = time.perf_counter()
        run(config.replace(record_every=every), 1000)
        seconds = time.perf_counter() - start
        yield Row("1,000 replicates of 1 × 1,000", f"record_every = {every}", f"{seconds:9.2f} s", "",
                  "at most 15 s" if every == 200 else "")  # fmt: skip


def large() -> Iterator[Row]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, median, longest, memory = pool.apply(_large)
    task = "10,000 × 1,000,000"
    yield Row(task, "first round", f"{first:9.2f} s")
    yield Row(task, "median of 100", f"{median:9.2f} s", "", "at most 2 s")
    yield Row(task, "longest after the first", f"{longest:9.2f} s")
    yield Row(task, "peak memory", f"{memory:9.2f} GiB", "", "below 8 GiB")


def _large() -> tuple[float, float, float, float]:
    config, times = scenario(10_000, 10**6), []
    held = Rounds(config, range(1), processors())
    for _ in range(100):
        start = time.perf_counter()
        held.step()
        times.append(time.perf_counter() - start)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return times[0], statistics.median(times), max(times[1:]), memory


ROWS = {each.__name__: each for each in (compare, growth, floor, recording, replicates, large)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"{', '.join(ROWS)}; all by default")
    names = parser.parse_args().rows or list(ROWS)
    if unknown := set(names) - ROWS.keys():
        parser.error(f"no row {unknown.pop()!r}; there are {', '.join(ROWS)}")
    print(f"{'providers × outputs':<32} {'':<24} {'cost':<38} {'ratio':<24} wanted")
    for name in names:
        for row in ROWS[name]():
            print(f"{row.task:<32} {row.who:<24} {row.cost:<38} {row.ratio:<24} {row.wanted}", flush=True)


if __name__ == "__main__":
    main()
