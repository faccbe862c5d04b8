"""Rules about what is published: sampling temperature and curation."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field, Strict

from ecosystem import fields
from ecosystem.errors import InputError
from ecosystem.fields import Count, Fraction, Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario

_T = "a number from 0 to inf"

_Score = Annotated[
    Literal["human"] | tuple[Annotated[float, Strict(), Field(allow_inf_nan=False)], ...], Plain
]


class Temperature(BaseIntervention):
    """A rule about sampling temperature, as an interface that offers no other would set it.

    T_i ← T_i + strength · (T' − T_i) with T' = ``fixed``, max(T_i, ``floor``) or min(T_i, ``ceiling``).
    """

    kind: Literal["temperature"] = "temperature"
    fixed: Annotated[fields.Temperature | None, Plain] = setting(None, "the temperature", _T, 1.0)
    floor: Annotated[fields.Temperature | None, Plain] = setting(None, "least temperature", _T, 0.8)
    ceiling: Annotated[fields.Temperature | None, Plain] = setting(None, "highest temperature", _T, 1.0)
    providers: Providers = setting(None, "who must keep to it", "a list of provider numbers", [0, 1])

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if (self.fixed is None) == (self.floor is None and self.ceiling is None):
            raise InputError("fixed: give either fixed, or floor, ceiling or both, e.g. fixed = 1.0")
        if self.floor is not None and self.ceiling is not None and self.floor > self.ceiling:
            raise InputError(f"floor = {self.floor}: is above ceiling = {self.ceiling}")

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Move T towards what is allowed."""
        now = rules.temperature
        if self.fixed is not None:
            aim = np.full(len(now), self.fixed)
        else:
            low = 0.0 if self.floor is None else self.floor
            aim = np.clip(now, low, np.inf if self.ceiling is None else self.ceiling)
        moved = aim if strength == 1 else np.where(aim == now, now, (1 - strength) * now + strength * aim)
        return replace(rules, temperature=np.where(among(self.providers, len(now)), moved, now))


class Curation(BaseIntervention):
    r"""Of K candidates the best is published, as judged by a verifier that errs.

    Each published item is the one of largest ``score`` among ``best_of`` = K independent draws from
    τ_T(Θ), the first drawn of equals; with probability ``verifier_error`` = ε it is the first one, unseen.
    With c(v) = Σ_{u: score_u < score_v} τ_u and d(v) = Σ_{u: score_u ≤ score_v} τ_u, output v is published
    with probability

    .. math:: \epsilon\,\tau_v + (1-\epsilon)\,\tau_v\,\frac{d(v)^K - c(v)^K}{d(v) - c(v)}.

    For K → ∞ and ε = 0 only outputs of the largest score in the support are published.

    Notes
    -----
    The real thing: selecting, liking, editing what is put online, and best-of-n sampling against a reward
    model (Ferbach, Bertrand, Bose, Gidel, *Self-Consuming Generative Models with Curated Data Provably
    Optimize Human Preferences*, arXiv:2407.09499; Feng et al., *Beyond Model Collapse: Scaling Up with
    Synthesized Data Requires Verification*, arXiv:2406.07515). The formula is that of the largest of K
    draws: one of the outputs that tie is as likely as its τ. Score "human" is h: the verifier likes what
    is common. At strength s the number of candidates is 1 + s (K − 1), rounded.
    """

    kind: Literal["curation"] = "curation"
    best_of: Annotated[Count, Plain] = setting(
        ..., "candidates per published item", "a whole number, 1 or more", 4
    )
    verifier_error: Annotated[Fraction, Plain] = setting(
        0.0, "chance that a candidate is published unseen", "a number from 0 to 1", 0.1
    )
    score: _Score = setting("human", "what the verifier likes", '"human", or a list of one number per output')

    def check(self, scenario: "Scenario") -> None:
        """Raise `InputError` if there is not one score per output."""
        super().check(scenario)
        if self.score != "human" and len(self.score) != scenario.n_outputs:
            raise InputError(
                f"score: has {len(self.score)} values for {scenario.n_outputs} outputs; give one per output"
            )

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Set how many candidates there are and how they are judged."""
        score = observed.human if self.score == "human" else np.array(self.score, dtype=np.float64)
        best_of = 1 + round(strength * (self.best_of - 1))
        return replace(rules, best_of=best_of, verifier_error=self.verifier_error, score=score)
