"""What holds in one round (`Rules`), and what a policy may see before it (`Observed`)."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse

from ecosystem.schedules import Schedule
from ecosystem.sharing import own_if_nobody
from ecosystem.types import Floats, Integers

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario


class Observed(Protocol):
    """What a policy may see before a round. Every engine offers it; the arrays are made when asked for.

    Attributes
    ----------
    round : int
        The round about to run, from 1.
    human_items, synthetic_items : int
        Items that people (pretraining included) and providers have contributed so far.
    human : ndarray, shape (V,)
        The law of human data that the scenario names.
    human_counts : ndarray of int, shape (V,)
        How often each output was among the human items of all batches so far, reused ones
        (`Rules.reused`) left out; pretraining is not counted.
    mean_distribution : ndarray, shape (V,)
        Mean Θ of the providers that are active in the round about to run.
    published_law : ndarray, shape (V,), or None
        Frequencies of everything that providers published in the last round; None before the first.
    """

    @property
    def round(self) -> int: ...  # noqa: D102

    @property
    def human_items(self) -> int: ...  # noqa: D102

    @property
    def synthetic_items(self) -> int: ...  # noqa: D102

    @property
    def human(self) -> Floats: ...  # noqa: D102

    @property
    def human_counts(self) -> Integers: ...  # noqa: D102

    @property
    def mean_distribution(self) -> Floats: ...  # noqa: D102

    @property
    def published_law(self) -> Floats | None: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Rules:
    """What holds in one round: what the scenario says, after the interventions in force.

    Attributes
    ----------
    temperature, fresh_fraction : ndarray of float, shape (N,)
        T and λ.
    outputs_per_round, batch_size : ndarray of int, shape (N,)
        B and m.
    W : scipy.sparse.csr_array, shape (N, N)
        Who reads whom; every row sums to 1 (a provider with nobody to read reads itself).
    human : ndarray, shape (V,)
        The law that fresh human items are drawn from this round.
    schedule : Schedule
        Step sizes a(k).
    human_weight, synthetic_weight : ndarray of float, shape (N,)
        Weight w_s of an item in the batch's frequencies e_v = Σ_s w_s 1[item_s = v] / Σ_s w_s.
    flag : (true positive rate, false positive rate, weight), or None
        A detector that multiplies the weight of a flagged item: a synthetic item is flagged with the
        first, a human one with the second probability.
    detector_calls_per_item : ndarray of float, shape (N,)
        Expected checks per batch item; 0 without a detector.
    best_of : int
        Each published item is the one of largest score among so many candidates, the first of equals.
    verifier_error : float
        Chance that candidate 0 is taken unseen.
    score : ndarray, shape (V,), or None
        Score of every output; needed where ``best_of`` > 1.
    window : int
        A batch reads what an author published in the last so many rounds, this one included.
    active : ndarray of bool, shape (N,)
        Who takes part: the others neither publish nor train nor are read.
    reused : bool
        Whether human items are copies of earlier ones (a pool that ran dry): they are not counted anew
        in `Observed.human_counts`.
    """

    temperature: Floats
    fresh_fraction: Floats
    outputs_per_round: Integers
    batch_size: Integers
    W: sparse.csr_array
    human: Floats
    schedule: Schedule
    human_weight: Floats
    synthetic_weight: Floats
    flag: tuple[float, float, float] | None
    detector_calls_per_item: Floats
    active: np.ndarray
    best_of: int = 1
    verifier_error: float = 0.0
    score: Floats | None = None
    window: int = 1
    reused: bool = False

    @cached_property
    def published_items(self) -> int:
        """Items that all who take part publish in a round."""
        return int(self.outputs_per_round[self.active].sum())

    @cached_property
    def curated_items(self) -> float:
        """Expected candidates that a verifier is shown in a round; 0 where there is no choice."""
        return self.published_items * self.best_of * (1 - self.verifier_error) if self.best_of > 1 else 0.0

    @cached_property
    def detector_calls(self) -> float:
        """Expected items that a detector is shown in a round."""
        return float((self.batch_size * self.detector_calls_per_item)[self.active].sum())

    @classmethod
    def of(cls, scenario: "Scenario", **changes: Any) -> "Rules":
        """Return the rules that a scenario sets, without interventions; ``changes`` replace fields."""
        n = int(scenario.n_providers or 0)
        fields: dict[str, Any] = {
            "temperature": scenario.per_provider("temperature"),
            "fresh_fraction": scenario.per_provider("fresh_fraction"),
            "outputs_per_round": scenario.per_provider("outputs_per_round").astype(np.int64),
            "batch_size": scenario.per_provider("batch_size").astype(np.int64),
            "human": scenario.source.law,
            "schedule": Schedule.parse(scenario.schedule),
            "human_weight": np.ones(n),
            "synthetic_weight": np.ones(n),
            "flag": None,
            "detector_calls_per_item": np.zeros(n),
            "active": np.ones(n, dtype=bool),
        } | changes
        if "W" not in fields:
            fields["W"] = own_if_nobody(scenario.W)
        return cls(**fields)
