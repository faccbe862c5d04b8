"""Time a sweep of 2,000 runs of 50 ms: ``python tests/benchmarks/bench_sweep.py [RUNS] [WORKERS]``.

Of the time that the workers could have computed, they must have computed 85%, and memory must not grow. The
busy time is measured inside the workers of the same sweep, so that a busy machine does not change the ratio.
"""

import os
import sys
import tempfile
import threading
import time
from pathlib import Path

from analysis.design import Design
from analysis.executors import processors
from analysis.sweep import Sweep, sweep
from ecosystem import Scenario, run


def about(seconds: float) -> Scenario:
    """Return a scenario that runs for so long on this machine."""

    def timed(rounds: int) -> float:
        start = time.perf_counter()
        run(Scenario(n_providers=10, rounds=rounds), workers=1)
        return time.perf_counter() - start

    timed(1)
    rounds = max(1, round(50 * seconds / min(timed(50) for _ in range(5))))
    return Scenario(n_providers=10, rounds=rounds)


def resident(pid: int) -> float:
    """Return the memory of a process in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def processes() -> list[int]:
    """Return this process and its workers."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [os.getpid(), *map(int, children)]


def main() -> None:
    """Print the ratio, and the memory of driver and workers over time."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else processors()
    scenario = about(0.05)
    memory: list[list[float]] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(5):
            memory.append([resident(pid) for pid in processes()])

    threading.Thread(target=watch, daemon=True).start()
    design = Design(
        scenario, grid={"temperature": [0.5 + 0.02 * step for step in range(runs // 40)]}, replicates=40
    )
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        sweep(design, f"{folder}/out", workers=workers)
        wall = time.perf_counter() - start
        busy = Sweep.load(f"{folder}/out").provenance["last_session"]["busy_seconds"]
    over.set()
    print(f"{len(design):,} runs of {1000 * busy / len(design):.0f} ms on {workers} workers: {wall:.1f} s")
    print(f"busy {busy:.1f} s of {workers * wall:.1f} s: {busy / (workers * wall):.1%} (limit 85%)")
    for row in memory[:: max(1, len(memory) // 6)]:
        print("memory of driver and workers, MB:", *(f"{value:6.0f}" for value in row))


if __name__ == "__main__":
    main()
