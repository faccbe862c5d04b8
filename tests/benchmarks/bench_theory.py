"""Time the theory at the sizes it must manage: ``python tests/benchmarks/bench_theory.py``."""

import time
from collections.abc import Callable

from analysis import theory
from ecosystem import Scenario
from ecosystem.human import load


def timed(name: str, limit: float, task: Callable[[], object]) -> None:
    """Print a row: what, seconds, and the limit it must stay under."""
    start = time.perf_counter()
    task()
    print(f"{name:<66} {time.perf_counter() - start:8.2f} {limit:8.0f}")


def main() -> None:
    """Print one table."""
    print(f"{'task':<66} {'seconds':>8} {'limit':>8}")
    human = load("zipf", 10**6).law
    timed(
        "fixed points, V = 10^6, healthy and 10 captured (T = 0.8, λ = 0.1)",
        20,
        lambda: theory.fixed_points(human, 0.8, 0.1, captured=10),
    )
    timed("prevention, V = 10^6, T = 0.8", 60, lambda: theory.minimum_fresh_fraction(human, 0.8))
    timed("cure, V = 10^6, T = 0.8", 60, lambda: theory.minimum_fresh_fraction(human, 0.8, start="collapsed"))
    for sharing in ("small-world", "complete"):
        population = Scenario(
            n_providers=500, sharing=sharing, temperature=1.0, rounds=200, n_outputs=50, fresh_fraction=0.1
        )
        timed(
            f"second moments, N = 500, 200 rounds, {sharing}",
            60,
            lambda p=population: theory.second_moments(p),
        )


if __name__ == "__main__":
    main()
