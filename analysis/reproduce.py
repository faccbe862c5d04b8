"""Numbers that others published, beside ours: ``python -m analysis.reproduce``.

One function a result. Each simulates with the same `run` that everything else uses, and sets the exact value
beside it where there is one. What the categorical family cannot say is said in `NOT_REACHED`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis import theory
from ecosystem import Ecosystem, Scenario, run

NOT_REACHED = {
    "Hodel and West, arXiv:2512.15011": (
        "the best number of models for a fixed data budget grows with the rounds. Their models are too small "
        "to fit the data and specialise on parts of it; a categorical model fits any data, so that splitting "
        "a budget only adds noise"
    ),
}


class Result(NamedTuple):
    """One published number and ours.

    Attributes
    ----------
    source, setting : str
        Who published it, and of what.
    published : float
        Their number, or the value of their formula.
    ours : float
        Simulated mean.
    error : float
        Its standard error (0 where ours is computed, not simulated).
    exact : float
        Our exact value, NaN where there is none.
    relation : str
        "=" their formula is exact; "≈" a number read off a plot or a table; "≤", "≥" a bound on ours.
    """

    source: str
    setting: str
    published: float
    ours: float
    error: float
    exact: float
    relation: str

    @property
    def agrees(self) -> bool:
        """Whether ours is within 4 standard errors (and a sixth, where they give about a number)."""
        slack = 4 * self.error + (self.published / 6 if self.relation == "≈" else 0.0)
        off = self.ours - self.published
        return {"≤": off <= slack, "≥": off >= -slack}.get(self.relation, abs(off) <= slack)


def _alone(copies: int, **settings: object) -> Scenario:
    """Independent single models without fresh data at T = 1: isolated providers of one ecosystem."""
    defaults: dict[str, object] = {"sharing": "isolated", "fresh_fraction": 0.0, "temperature": 1.0}
    return Scenario(**defaults | {"n_providers": copies} | settings)


def _final(scenario: Scenario) -> np.ndarray:
    return run(scenario.replace(record_every=scenario.rounds)).final[0]


def _result(
    source: str, setting: str, published: float, values: np.ndarray, exact: float, relation: str
) -> Result:
    mean = float(np.mean(values))
    return Result(
        source, setting, published, mean, float(np.std(values, ddof=1) / len(values) ** 0.5), exact, relation
    )


def fixation(copies: int) -> Iterator[Result]:
    """Count rounds until one of ten equal outputs is left (Kazdan et al., arXiv:2410.16713)."""
    ten = np.full(10, 0.1)
    for n, published in ((10, 17.0), (100, 205.0), (1000, 1800.0)):
        models = max(20, copies * 10 // n)
        scenario = _alone(
            models,
            human=ten,
            outputs_per_round=n,
            batch_size=n,
            schedule="replace",
            rounds=10**6,
            record_every=10**6,
        )
        eco, times = Ecosystem(scenario), []
        while eco.providers:
            eco.step()
            left = [p for p in eco.providers if p.generative_model.distribution.max() < 1]
            times += [eco.round] * (len(eco.providers) - len(left))
            eco.providers = left
        exact = theory.fixation_time(ten, n)
        yield _result(
            "Kazdan et al. 2410.16713", f"fixation, n = {n}", published, np.array(times), exact, "≈"
        )
    # 10^4 items for 2·10^4 rounds are too many to simulate here: the corrected diffusion stands for both.
    long = theory.fixation_time_diffusion(ten, 10**4)
    yield Result(
        "Kazdan et al. 2410.16713", "fixation, n = 10000 (not simulated)", 1.66e4, long, 0.0, long, "≈"
    )


def concentration(copies: int) -> Iterator[Result]:
    """E ΣΘ² after k generations of replacement (Seddik et al., arXiv:2404.05090)."""
    human, n = np.array([0.4, 0.3, 0.2, 0.1]), 20
    for k in (5, 20):
        published = 1 - (1 - 1 / n) ** k * (1 - (human**2).sum())
        scenario = _alone(
            copies, human=human, outputs_per_round=n, batch_size=n, schedule="replace", rounds=k
        )
        exact = float(theory.second_moments(scenario.replace(n_providers=1))[-1, 0, 0])
        values = (_final(scenario) ** 2).sum(axis=1)
        yield _result("Seddik et al. 2404.05090", f"E ΣΘ², {k} generations", published, values, exact, "=")


def survival(copies: int) -> Iterator[Result]:
    """Chance that a rare output still occurs in generation k (Suresh et al., arXiv:2412.17646)."""
    n, mean = 200, 2.0
    human = np.array([mean / n, 1 - mean / n])
    for k in (3, 10):
        scenario = _alone(
            copies, human=human, outputs_per_round=n, batch_size=n, schedule="replace", rounds=k
        )
        alive = (_final(scenario)[:, 0] > 0).astype(float)
        exact = float(theory.symbol_survival(human[0], n, k)[-1])
        bound = float(theory.symbol_survival_bound(mean, k)[-1])
        yield _result(
            "Suresh et al. 2412.17646", f"survival, mean {mean:g}, k = {k}", bound, alive, exact, "≥"
        )


def accumulation(copies: int) -> Iterator[Result]:
    """Loss under accumulation over the loss of one generation (Gerstgrasser et al., arXiv:2404.01413)."""
    human, n, generations = np.array([0.5, 0.3, 0.2]), 50, 30
    scenario = _alone(
        copies,
        human=human,
        outputs_per_round=n,
        batch_size=n,
        pretraining_size=n,
        initial="sampled",
        schedule="accumulate",
        rounds=generations - 1,
    )
    once = (1 - (human**2).sum()) / n
    values = ((_final(scenario) - human) ** 2).sum(axis=1) / once
    t = np.arange(1, generations + 1)
    exact = float(n * (1 - np.prod(1 - 1 / (n * t**2))))
    setting = f"squared error, {generations} generations, over one"
    yield _result("Gerstgrasser et al. 2404.01413", setting, np.pi**2 / 6, values, exact, "≤")


def fresh_data_loop(copies: int) -> Iterator[Result]:
    """Start the fresh-data loop from two first models: the limit is the same (Alemohammad et al., MAD)."""
    human, n, share, rounds = np.array([0.5, 0.3, 0.2]), 20, 0.2, 40
    kept = (1 - share) ** 2
    square = float((human**2).sum())
    exact = (1 / n + (1 - 1 / n) * (1 - kept) * square) / (1 - (1 - 1 / n) * kept)
    for name, initial in (("human", "human"), ("collapsed", np.array([0.0, 0.0, 1.0]))):
        scenario = _alone(
            copies,
            human=human,
            fresh_fraction=share,
            initial=initial,
            outputs_per_round=n,
            batch_size=n,
            schedule="replace",
            rounds=rounds,
        )
        values = (_final(scenario) ** 2).sum(axis=1)
        yield _result(
            "Alemohammad et al. (MAD)", f"limit of E ΣΘ², first model {name}", exact, values, exact, "="
        )


RESULTS: tuple[Callable[[int], Iterator[Result]], ...] = (
    fixation,
    concentration,
    survival,
    accumulation,
    fresh_data_loop,
)


def reproduce(copies: int = 2000) -> pd.DataFrame:
    """Return the table of published numbers and ours.

    Parameters
    ----------
    copies : int
        Independent models for each number.

    Returns
    -------
    pandas.DataFrame
        Columns of `Result`, then off (difference in standard errors; missing if not simulated) and agrees.
    """
    rows = [result for published in RESULTS for result in published(copies)]
    table = pd.DataFrame(rows)
    table["off"] = (table["ours"] - table["published"]) / table["error"].where(table["error"] > 0)
    table["agrees"] = [row.agrees for row in rows]
    return table


if __name__ == "__main__":
    print(reproduce().to_string(index=False, float_format=lambda value: f"{value:.4g}"))
    for source, reason in NOT_REACHED.items():
        print(f"not reached: {source}: {reason}")
