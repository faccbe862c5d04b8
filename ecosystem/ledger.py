"""What has been used since the beginning, and what it costs."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ecosystem.corpus import HUMAN
from ecosystem.interventions import Rules
from ecosystem.mixing import Batch
from ecosystem.types import Integers

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario


@dataclass
class Ledger:
    """Running totals of what batches and publications used.

    Attributes
    ----------
    human_counts : ndarray of int, shape (V,)
        How often each output was among the human items of batches, reused ones left out.
    human_items : int
        Human items in batches, reused ones included: a licence is paid per use. Neither pretraining nor
        what a detector keeps out of a batch counts.
    published_items : int
        Items published.
    detector_calls, curated_items : float
        Expected number of items that a detector was shown, and of candidates that a verifier was shown.
    """

    human_counts: Integers = field(repr=False)
    human_items: int = 0
    published_items: int = 0
    detector_calls: float = 0.0
    curated_items: float = 0.0

    def enter(self, rules: Rules, batches: list[Batch]) -> None:
        """Add what one round used."""
        human = np.concatenate([batch.items[batch.authors == HUMAN] for batch in batches])
        if not rules.reused:
            self.human_counts += np.bincount(human, minlength=self.human_counts.size)
        self.add(rules, len(human))

    def add(self, rules: Rules, human_items: int) -> None:
        """Add what one round used, `human_counts` apart."""
        self.human_items += human_items
        self.published_items += rules.published_items
        self.curated_items += rules.curated_items
        self.detector_calls += rules.detector_calls

    def columns(self, scenario: "Scenario") -> dict[str, float]:
        """Return the totals by name, and ``cost``: what they cost at a scenario's prices."""
        totals = {
            "human_items": self.human_items,
            "published_items": self.published_items,
            "detector_calls": self.detector_calls,
            "curated_items": self.curated_items,
        }
        prices = (
            scenario.price_human_item,
            scenario.price_published_item,
            scenario.price_detector_call,
            scenario.price_curated_item,
        )
        cost = sum(price * total for price, total in zip(prices, totals.values(), strict=True))
        return {name: float(total) for name, total in totals.items()} | {"cost": float(cost)}
