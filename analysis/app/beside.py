"""The mean field beside a run that is still being steered."""

import numpy as np

from analysis.theory.policies import published_laws, slot_weights
from ecosystem import Ecosystem, metrics
from ecosystem.types import Floats

LARGEST = 5 * 10**5
"""Largest providers × outputs for which every round also takes a round of the mean field."""


class MeanField:
    """The mean field of a run, one round at a time, with the settings that are in force in that round.

    The formulas are those of `analysis.theory.policies`; the rules are the ones that the run itself has in
    the round, so that after a lever the curve goes on from where it was.

    Attributes
    ----------
    curve : list of (round, diversity kept, mass of the top k, Jensen-Shannon divergence)
        The first two are means over providers.
    note : str
        Why there is no curve, or what it leaves out; empty where it is whole.
    """

    def __init__(self, eco: Ecosystem) -> None:
        self.curve: list[tuple[int, float, float, float]] = []
        self.note = ""
        self._theta: Floats = eco.distributions
        self._trained = np.full(len(self._theta), float(eco.config.pretraining_size))
        self._human = float(metrics.hill(eco.human, 1))
        if eco.config.training_error > 0:
            self.note = "No mean field: training errors do not average out."
        elif self._theta.size > LARGEST:
            self.note = f"No mean field on this page above {LARGEST:,} providers × outputs."

    def follow(self, eco: Ecosystem) -> None:
        """Take the curve to the ecosystem's round, by one round at most."""
        if self.note.startswith("No"):
            return
        if eco.round > 0:
            self._advance(eco)
        there = self._theta[eco.rules.active]
        kept = float(metrics.hill(there, 1).mean()) / self._human
        top = float(metrics.top_mass(there, eco.config.mass_k).mean())
        self.curve.append((eco.round, kept, top, metrics.jensen_shannon(there)))

    def _advance(self, eco: Ecosystem) -> None:
        rules, here = eco.rules, len(self._theta)
        if new := len(rules.active) - here:
            entered = [eco.pretrained(here + k).distribution for k in range(new)]
            self._theta = np.vstack([self._theta, *entered])
            self._trained = np.append(self._trained, np.full(new, float(eco.config.pretraining_size)))
        if rules.window > 1:
            self.note = "The mean field is drawn as if models read the newest outputs only."
        by_human, by_models = slot_weights(rules)
        weight = by_human + by_models
        learns = rules.active & (weight > 0)
        published = published_laws(eco.config, self._theta, rules)
        mixed = by_human[:, None] * rules.human + by_models[:, None] * (rules.W @ published)
        grown = np.where(learns, rules.batch_size * weight, 0.0)
        steps = np.array(
            [
                rules.schedule.step_size(eco.round, items, before) if items > 0 else 0.0
                for items, before in zip(grown.tolist(), self._trained.tolist(), strict=True)
            ]
        )
        self._trained += grown
        target = np.divide(mixed, weight[:, None], out=self._theta.copy(), where=learns[:, None])
        self._theta = self._theta + steps[:, None] * (target - self._theta)
