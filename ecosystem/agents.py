"""The Mesa agent: a provider runs one generative model, publishes its outputs and retrains."""

from typing import TYPE_CHECKING

import mesa

from ecosystem.corpus import HUMAN
from ecosystem.generative import GenerativeModel
from ecosystem.mixing import Batch
from ecosystem.randomness import Decision

if TYPE_CHECKING:
    from ecosystem.model import Ecosystem


class Provider(mesa.Agent):
    """A provider of generated data.

    Attributes
    ----------
    index : int
        Position among the providers, from 0: the row of every array per provider.
    generative_model : GenerativeModel
        What it runs.
    temperature, fresh_fraction : float
        T and λ before interventions; may be changed between rounds.
    outputs_per_round, batch_size : int
        B and m before interventions; may be changed between rounds.
    trained_items : int
        ℓ, items its model was trained on so far, pretraining included.
    """

    model: "Ecosystem"

    def __init__(self, model: "Ecosystem", index: int, generative_model: GenerativeModel) -> None:
        super().__init__(model)
        self.index = index
        self.generative_model = generative_model
        config = model.config
        self.temperature = float(config.per_provider("temperature")[index])
        self.fresh_fraction = float(config.per_provider("fresh_fraction")[index])
        self.outputs_per_round = int(config.per_provider("outputs_per_round")[index])
        self.batch_size = int(config.per_provider("batch_size")[index])
        self.trained_items = config.pretraining_size

    def publish(self) -> None:
        """Draw this round's outputs at the provider's temperature and put them into the corpus."""
        random = self.model.streams.generator(Decision.PUBLISH, round=self.model.round, provider=self.index)
        rules = self.model.rules
        n, temperature = int(rules.outputs_per_round[self.index]), float(rules.temperature[self.index])
        items = self.generative_model.generate(n, temperature, random)
        self.model.corpus.add(items, author=self.index, round=self.model.round)

    def mix(self) -> Batch:
        """Gather this round's batch: fresh human items and what the providers it reads published."""
        eco, rules = self.model, self.model.rules
        size, fresh = int(rules.batch_size[self.index]), float(rules.fresh_fraction[self.index])
        batch = eco.mixing.batch(self.index, size, fresh, eco.sources[self.index], eco.corpus, eco.round)
        eco.corpus.add(batch.items[batch.authors == HUMAN], author=HUMAN, round=eco.round)
        return batch

    def retrain(self, batch: Batch) -> None:
        """Move the model towards the batch by this round's step size."""
        eco = self.model
        step = eco.rules.schedule.step_size(eco.round, len(batch.items), self.trained_items)
        self.generative_model.learn(batch.items, step)
        self.trained_items += len(batch.items)
        if eco.config.training_error > 0:
            random = eco.streams.generator(Decision.TRAINING_ERROR, round=eco.round, provider=self.index)
            self.generative_model.perturb(eco.config.training_error, random)
