"""The Mesa agent: a provider runs one generative model, publishes its outputs and retrains."""

from typing import TYPE_CHECKING

import mesa
import numpy as np

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
    trained_items : float
        ℓ, items its model was trained on so far (sum of their weights), pretraining included.
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
        self.trained_items: float = config.pretraining_size

    def publish(self) -> None:
        """Draw this round's outputs at the provider's temperature and put them into the corpus."""
        eco, rules = self.model, self.model.rules
        n, temperature = int(rules.outputs_per_round[self.index]), float(rules.temperature[self.index])
        random = eco.streams.generator(Decision.PUBLISH, round=eco.round, provider=self.index)
        items = self.generative_model.generate(n, temperature, random)
        if rules.best_of > 1:
            random = eco.streams.generator(Decision.CANDIDATE, round=eco.round, provider=self.index)
            others = self.generative_model.generate(n * (rules.best_of - 1), temperature, random)
            items = self._best(items, others.reshape(n, -1))
        eco.corpus.add(items, author=self.index, round=eco.round)

    def _best(self, items: np.ndarray, others: np.ndarray) -> np.ndarray:
        """Return the candidate that the verifier likes best, or the first one where it errs, shape (n,)."""
        eco, rules = self.model, self.model.rules
        assert rules.score is not None
        candidates = np.column_stack([items, others])
        scores = rules.score[candidates]
        best = candidates[np.arange(len(items)), np.argmax(scores, axis=1)]
        if rules.verifier_error > 0:
            luck = eco.streams.uniforms(len(items), Decision.VERIFIER, round=eco.round, provider=self.index)
            best = np.where(luck < rules.verifier_error, items, best)
        return best

    def mix(self) -> Batch:
        """Gather this round's batch: fresh human items and what the providers it reads published."""
        eco, rules = self.model, self.model.rules
        size, fresh = int(rules.batch_size[self.index]), float(rules.fresh_fraction[self.index])
        row = slice(*rules.W.indptr[self.index : self.index + 2])
        read = (rules.W.indices[row], rules.W.data[row])
        batch = eco.mixing.batch(self.index, size, fresh, read, eco.corpus, eco.round)
        eco.corpus.add(batch.items[batch.authors == HUMAN], author=HUMAN, round=eco.round)
        human, synthetic = rules.human_weight[self.index], rules.synthetic_weight[self.index]
        if rules.flag is None and human == synthetic == 1:
            return batch
        factor, flagged = 1.0, np.zeros(size, dtype=bool)
        if rules.flag is not None:
            true, false, factor = rules.flag
            luck = eco.streams.uniforms(size, Decision.FLAG, round=eco.round, provider=self.index)
            flagged = luck < np.where(batch.authors == HUMAN, false, true)
        return batch.weighted(float(human), float(synthetic), factor, flagged)

    def retrain(self, batch: Batch) -> None:
        """Move the model towards the batch by this round's step size; nothing to learn from weight 0."""
        eco = self.model
        if batch.weight == 0:
            return
        step = eco.rules.schedule.step_size(eco.round, batch.weight, self.trained_items)
        self.generative_model.learn(batch.items, step, batch.shares)
        self.trained_items += batch.weight
        if eco.config.training_error > 0:
            random = eco.streams.generator(Decision.TRAINING_ERROR, round=eco.round, provider=self.index)
            self.generative_model.perturb(eco.config.training_error, random)
