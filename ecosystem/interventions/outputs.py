"""Rules about what is published."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from ecosystem import fields
from ecosystem.errors import InputError
from ecosystem.fields import Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules

_T = "a number from 0 to inf"


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
