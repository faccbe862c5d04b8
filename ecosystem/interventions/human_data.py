"""Rules about human data: how much of it, and where it comes from."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np

from ecosystem.fields import Fraction, Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules


class Quota(BaseIntervention):
    """A floor on the human share of training data, as a law on training sets might set.

    λ_i ← max(λ_i, strength · fraction). From the first round on it is the same run as one whose fresh
    fraction is no less than ``fraction``.
    """

    kind: Literal["quota"] = "quota"
    fraction: Annotated[Fraction, Plain] = setting(..., "least fresh fraction", "a number from 0 to 1", 0.3)
    providers: Providers = setting(None, "who must keep to it", "a list of provider numbers", [0, 1])

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Raise λ to the floor."""
        bound = among(self.providers, len(rules.fresh_fraction))
        floor = np.maximum(rules.fresh_fraction, strength * self.fraction)
        return replace(rules, fresh_fraction=np.where(bound, floor, rules.fresh_fraction))
