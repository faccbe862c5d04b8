"""What a policy may see of an ecosystem before a round."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ecosystem.interventions import active_in
from ecosystem.types import Floats, Integers

if TYPE_CHECKING:
    from ecosystem.model import Ecosystem


class View:
    """`ecosystem.interventions.Observed`, of an `Ecosystem` about to run a round; computed when asked for."""

    def __init__(self, eco: "Ecosystem") -> None:
        self._eco = eco
        self.round = eco.round + 1

    @property
    def human(self) -> Floats:
        """The law of human data, shape (V,)."""
        return self._eco.human

    @property
    def human_items(self) -> int:
        """Items that people contributed so far, pretraining included."""
        return self._eco.corpus.human_items

    @property
    def synthetic_items(self) -> int:
        """Items that providers published so far."""
        return self._eco.corpus.synthetic_items

    @property
    def human_counts(self) -> Integers:
        """How often each output was among the human items of all batches, shape (V,); a view."""
        return self._eco.ledger.human_counts

    @cached_property
    def mean_distribution(self) -> Floats:
        """Mean Θ of the providers active in the round about to run, shape (V,)."""
        eco = self._eco
        active = active_in(eco.config.interventions, self.round, len(eco.rules.active))
        return np.stack([p.generative_model.distribution for p in eco.providers if active[p.index]]).mean(
            axis=0
        )

    @cached_property
    def published_law(self) -> Floats | None:
        """Frequencies of what was published in the last round, shape (V,)."""
        eco = self._eco
        if eco.round == 0:
            return None
        published = [eco.corpus.published(provider.index, eco.round) for provider in eco.providers]
        items = np.concatenate(published)
        return np.bincount(items, minlength=eco.human.size) / len(items)
