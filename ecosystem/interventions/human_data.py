"""Rules about human data: how much of it there is, and where it comes from."""

from dataclasses import replace
from typing import Annotated, Literal

import numpy as np

from ecosystem.fields import Count, Fraction, NonNegative, Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules


class Quota(BaseIntervention):
    """A floor on the human share of training data, as a law on training sets might set it.

    λ_i ← max(λ_i, strength · fraction).

    Notes
    -----
    In force from the first round on, it is the same run, bit for bit, as one whose fresh fraction is no
    less than ``fraction``. For uniform human data and one temperature T < 1 the mean field keeps its
    diversity from λ = 1 − T on.
    """

    kind: Literal["quota"] = "quota"
    fraction: Annotated[Fraction, Plain] = setting(..., "least fresh fraction", "a number from 0 to 1", 0.3)
    providers: Providers = setting(None, "who must keep to it", "a list of provider numbers", [0, 1])

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Raise λ to the floor."""
        bound = among(self.providers, len(rules.fresh_fraction))
        floor = np.maximum(rules.fresh_fraction, strength * self.fraction)
        return replace(rules, fresh_fraction=np.where(bound, floor, rules.fresh_fraction))


class FreshFraction(BaseIntervention):
    """Another fresh fraction, higher or lower, as a provider that changes its own recipe would set it.

    λ_i ← λ_i + strength · (fraction − λ_i).
    """

    kind: Literal["fresh-fraction"] = "fresh-fraction"
    fraction: Annotated[Fraction, Plain] = setting(..., "the fresh fraction", "a number from 0 to 1", 0.3)
    providers: Providers = setting(None, "whose it is", "a list of provider numbers", [0, 1])

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Move λ towards the fraction."""
        now = rules.fresh_fraction
        moved = np.full(len(now), self.fraction) if strength == 1 else now + strength * (self.fraction - now)
        return replace(rules, fresh_fraction=np.where(among(self.providers, len(now)), moved, now))


class HumanSupply(BaseIntervention):
    """A finite stock of human data that runs dry and is then used again and again.

    From the first round that starts with at least ``items`` human items in all batches so far (pretraining
    not counted), human items are drawn from the frequencies of those items, which no longer change:

        h ← counts / Σ counts.

    Notes
    -----
    What people write is limited: Villalobos et al., *Will we run out of data?* (arXiv:2211.04325), date the
    exhaustion of public text. The items are counted since the first round, whenever this rule starts; the
    round in which the stock ends may use more than ``items``. Copies are drawn with replacement, so in
    expectation a batch keeps its human share but the law of that share has only Σ counts items behind it.
    """

    kind: Literal["human-supply"] = "human-supply"
    items: Annotated[Count, Plain] = setting(..., "human items there are", "a whole number, 1 or more", 10000)
    has_ramp = False

    @property
    def observes(self) -> bool:
        """Whether the rules depend on the state of the run: they do."""
        return True

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Draw human items from those used so far once the stock is used up."""
        counts = observed.human_counts
        used = counts.sum()
        if used < self.items:
            return rules
        return replace(rules, human=counts / used, reused=True)


class DecliningSupply(BaseIntervention):
    """People contribute less as the corpus fills with generated items.

    λ_i ← λ_i (1 − c)^(strength · exponent), with c the synthetic share of everything contributed before the
    round, pretraining data included: exponent 0 changes nothing, 1 is in proportion, more is a flight.

    Notes
    -----
    The real thing: human activity on question-and-answer sites fell once chatbots answered (del
    Rio-Chanona, Laurentyeva, Wachs, *Large language models reduce public knowledge sharing on online Q&A
    platforms*, PNAS Nexus 2024). The power of 1 − c is this project's choice.
    """

    kind: Literal["declining-supply"] = "declining-supply"
    exponent: Annotated[NonNegative, Plain] = setting(
        1.0, "how strongly supply answers", "a finite number, 0 or more"
    )

    @property
    def observes(self) -> bool:
        """Whether the rules depend on the state of the run: they do."""
        return True

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Lower λ by the synthetic share of the corpus."""
        total = observed.human_items + observed.synthetic_items
        human_share = observed.human_items / total if total else 1.0
        left = human_share ** (strength * self.exponent)
        return replace(rules, fresh_fraction=rules.fresh_fraction * left)


class Drift(BaseIntervention):
    """People write more like what they read: part of what counts as human is an echo of the corpus.

    h ← (1 − s) h + s q, s = strength · share, with q the frequencies of all that providers published in the
    round before (h itself in round 1).

    Notes
    -----
    The real thing: words that chatbots favour spread in human speech and writing (Yakura et al., *Empirical
    evidence of Large Language Model's influence on human spoken communication*, arXiv:2409.01754). A share s
    of a human item's law is then a second-hand synthetic item: in the mean field λ acts like λ (1 − s), with
    the rest read from all providers in proportion to what they publish, a round late. Without memory: each
    round's echo is of the round before, on top of the scenario's h.
    """

    kind: Literal["drift"] = "drift"
    share: Annotated[Fraction, Plain] = setting(
        ..., "share of human writing that echoes the corpus", "a number from 0 to 1", 0.2
    )

    @property
    def observes(self) -> bool:
        """Whether the rules depend on the state of the run: they do."""
        return True

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Mix what was published last into the human law."""
        share = strength * self.share
        if share == 0 or (echo := observed.published_law) is None:
            return rules
        return replace(rules, human=(1 - share) * rules.human + share * echo)
