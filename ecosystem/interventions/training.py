"""Rules about what a model does with its training data."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import PlainValidator

from ecosystem.errors import InputError
from ecosystem.fields import Count, Flag, NonNegative, Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules
from ecosystem.schedules import ALLOWED, Schedule
from ecosystem.types import Floats

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario


def _schedule(value: Any) -> str | None:
    if value is not None:
        Schedule.parse(value if isinstance(value, str) else repr(value))
    return value


class Retention(BaseIntervention):
    """How long data is kept: by a model (its schedule), and by the corpus (a window of rounds).

    From ``start`` on the step sizes are those of ``schedule``, and a batch reads what an author published in
    the last ``window`` rounds, this one included, rather than in this round alone. "accumulate" takes up with
    all that a model has been trained on until then, and "power" counts rounds from the beginning.

    Notes
    -----
    The real thing: duties to delete or to keep training data, and crawls that reach back. With a window w > 1
    the same published item may be read in several rounds. The corpus must keep as many rounds
    (``corpus_rounds``); in the first rounds there are fewer.
    """

    kind: Literal["retention"] = "retention"
    schedule: Annotated[str | None, PlainValidator(_schedule)] = setting(
        None, "step sizes a(k)", ALLOWED, "accumulate"
    )
    window: Annotated[Count | None, Plain] = setting(
        None, "rounds that a batch reads", "a whole number, 1 or more", 2
    )
    has_ramp = False

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.schedule is None and self.window is None:
            raise InputError('schedule is missing: give schedule, window or both, e.g. schedule = "replace"')

    def check(self, scenario: "Scenario") -> None:
        """Raise `InputError` if the corpus keeps fewer rounds than the window reads."""
        super().check(scenario)
        if self.window is not None and self.window > scenario.corpus_rounds:
            raise InputError(
                f"window = {self.window}: the corpus keeps corpus_rounds = {scenario.corpus_rounds}; "
                f"write corpus_rounds = {self.window}"
            )

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Set schedule and window."""
        return replace(
            rules,
            schedule=rules.schedule if self.schedule is None else Schedule.parse(self.schedule),
            window=rules.window if self.window is None else self.window,
        )


class Weighting(BaseIntervention):
    r"""Human items count for more, or less, than synthetic ones.

    A human item has weight ``human_weight``, a synthetic one ``synthetic_weight`` in the batch's frequencies
    e_v = Σ_s w_s 1[item_s = v] / Σ_s w_s; at strength s a weight w is 1 + s (w − 1). Weights of items that
    are already weighted multiply.

    With ``optimal``, human items together get the share

    .. math:: w^* = \frac{\sqrt{k^2 + 4k} - k}{2}, \qquad k = \frac{\lambda}{1-\lambda},

    of the weight of an average batch: an item weighs w*/λ if human and (1 − w*)/(1 − λ) if synthetic, 1 on
    average. Equal numbers of both give the reciprocal of the golden ratio, 0.618.

    Notes
    -----
    Quoted: w* is the optimal weight of He, Xu, Cheng, *Golden Ratio Weighting Prevents Model Collapse*
    (arXiv:2502.18049), for n fresh human and n/k synthetic items a round. Derived here for this model: one
    provider at T = 1 that replaces its law by w (mean of n human items) + (1 − w) (mean of m synthetic ones)
    has Var Θ_v / (h_v (1 − h_v)) → [w²/n + (1 − w)²/m] / [1 − (1 − w)² (1 − 1/m)]; for m ≫ 1 the least
    is where u = 1 − w solves u² − (2 + k) u + 1 = 0, which is w*. For finite m,
    (1 − 1/m) u² − (2 + k − 1/m) u + 1 = 0. With a random number of human items the numbers above
    hold to order 1/m. For T ≠ 1, other schedules and mixed populations w* is not known to be optimal.
    """

    kind: Literal["weighting"] = "weighting"
    human_weight: Annotated[NonNegative, Plain] = setting(
        1.0, "weight of a human item", "a finite number, 0 or more", 2.0
    )
    synthetic_weight: Annotated[NonNegative, Plain] = setting(
        1.0, "weight of a synthetic item", "a finite number, 0 or more", 0.5
    )
    optimal: Annotated[Flag, Plain] = setting(False, "whether to use the optimal weight", "true or false")
    providers: Providers = setting(None, "who must keep to it", "a list of provider numbers", [0, 1])

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.optimal and not self.human_weight == self.synthetic_weight == 1:
            raise InputError("optimal = True: sets both weights; leave out human_weight and synthetic_weight")
        if not self.optimal and not {"human_weight", "synthetic_weight"} & self.model_fields_set:
            raise InputError("human_weight is missing: give it, synthetic_weight, or optimal = true")
        if self.human_weight == self.synthetic_weight == 0:
            raise InputError("human_weight = 0.0: one of the two weights must be above 0")

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Multiply the weights."""
        bound = among(self.providers, len(rules.fresh_fraction))
        human: Any = self.human_weight
        synthetic: Any = self.synthetic_weight
        if self.optimal:
            human, synthetic = optimal_weights(rules.fresh_fraction)
        human, synthetic = (
            np.where(bound, 1 + strength * (weight - 1), 1.0) for weight in (human, synthetic)
        )
        return replace(
            rules,
            human_weight=rules.human_weight * human,
            synthetic_weight=rules.synthetic_weight * synthetic,
        )


def optimal_weights(fresh_fraction: Floats) -> tuple[Floats, Floats]:
    """Return the optimal weight of a human and of a synthetic item, shapes as λ; 1 where λ is 0 or 1."""
    mixed = (fresh_fraction > 0) & (fresh_fraction < 1)
    fresh = np.where(mixed, fresh_fraction, 0.5)
    k = fresh / (1 - fresh)
    # w* = (√(k² + 4k) − k)/2 without the cancellation for large k; 1 − w* likewise.
    root = np.sqrt(k**2 + 4 * k)
    share = 2 * k / (root + k)
    rest = 2 / (2 + k + root)
    return np.where(mixed, share / fresh, 1.0), np.where(mixed, rest / (1 - fresh), 1.0)
