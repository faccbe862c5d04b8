"""Time the reference engine: ``python tests/benchmarks/bench_round.py``.

The size that a run must manage within a minute on two cores: 50 providers, 5,000 outputs, 200 rounds,
200 items published and trained on per provider and round, all metrics recorded every round.
"""

import time

from ecosystem import Ecosystem, Scenario


def main() -> None:
    """Print one row for each way of recording."""
    print(f"{'recorded':>12} {'seconds':>8} {'us per item':>12}")
    for record_every in (1, 200):
        scenario = Scenario(
            n_providers=50,
            n_outputs=5000,
            rounds=200,
            outputs_per_round=200,
            batch_size=200,
            record_every=record_every,
        )
        eco = Ecosystem(scenario)
        start = time.perf_counter()
        eco.run_model()
        seconds = time.perf_counter() - start
        items = 200 * 50 * 400
        print(f"{f'every {record_every}':>12} {seconds:8.2f} {1e6 * seconds / items:12.3f}")


if __name__ == "__main__":
    main()
