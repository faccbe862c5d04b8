"""What every intervention has: a date, a strength, and errors that say what to type."""

import difflib
import reprlib
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from ecosystem.errors import InputError
from ecosystem.fields import Count, Index, Plain, setting, toml_value
from ecosystem.interventions.rules import Observed, Rules

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario

Providers = Annotated[tuple[Index, ...] | None, Plain]


class BaseIntervention(BaseModel):
    """A rule that holds from one round to another.

    Its strength in round k is min(1, (k − start + 1) / (ramp + 1)): nothing before ``start``, full from
    round ``start + ramp`` on.

    Attributes
    ----------
    kind : str
        Which rule.
    start, end : int
        First and last round in force, from 1; without ``end``, to the last round.
    ramp : int
        Rounds over which its strength grows linearly.
    name : str, optional
        What to call it.
    has_ramp : bool
        Whether a strength between 0 and 1 means something for this kind; if not, ``ramp`` must be 0.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    has_ramp: ClassVar[bool] = True

    kind: str
    start: Annotated[Count, Plain] = setting(1, "first round in force", "a whole number, 1 or more", 10)
    end: Annotated[Count | None, Plain] = setting(None, "last round in force", "a whole number", 50)
    ramp: Annotated[int, Strict(), Field(ge=0, le=2**53), Plain] = setting(
        0, "rounds over which its strength grows from nothing to full", "a whole number, 0 or more", 5
    )
    name: str | None = setting(None, "what to call it", "a text", "my rule")

    def __init__(self, **settings: Any) -> None:
        try:
            super().__init__(**settings)
        except ValidationError as error:
            lines = {detail["loc"][:1]: self._explain(detail, settings) for detail in error.errors()}
            raise InputError("\n".join(lines.values())) from None
        if self.end is not None and self.end < self.start:
            raise InputError(f"end = {self.end}: is before start = {self.start}; give a later round")
        if self.ramp and not self.has_ramp:
            raise InputError(f"ramp = {self.ramp}: {self.kind} has no strength that could grow; leave it out")

    @classmethod
    def _explain(cls, detail: Any, settings: dict[str, Any]) -> str:
        """Return one line: what was given, what is allowed, what to type."""
        if not detail["loc"]:
            return str(detail.get("ctx", {}).get("error", detail["msg"]))
        name = str(detail["loc"][0])
        if name not in cls.model_fields:
            close = difflib.get_close_matches(name, cls.model_fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"it has {', '.join(cls.model_fields)}"
            return f"{name} = {reprlib.repr(settings[name])}: there is no such parameter; {hint}"
        extra: Any = cls.model_fields[name].json_schema_extra
        given = f"{name} = {reprlib.repr(settings[name])}" if name in settings else f"{name} is missing"
        if isinstance(reason := detail.get("ctx", {}).get("error"), InputError):
            return f"{given}: {reason}"
        return f"{given}: allowed: {extra['allowed']}; e.g. {name} = {toml_value(extra['example'])}"

    @property
    def observes(self) -> bool:
        """Whether the rules depend on the state of the run; if not, all replicates have the same."""
        return False

    def replace(self, **changes: Any) -> Self:
        """Return one with other values for some parameters, validated anew."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def strength(self, round: int) -> float:
        """Return its strength in a round: 0 out of force, up to 1."""
        if round < self.start or (self.end is not None and round > self.end):
            return 0.0
        return min(1.0, (round - self.start + 1) / (self.ramp + 1))

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Return the rules after this one, at a strength in (0, 1]. Changes nothing in place."""
        raise NotImplementedError

    def check(self, scenario: "Scenario") -> None:
        """Raise `InputError` if it does not fit a scenario: an unknown provider, a score too short."""
        providers = getattr(self, "providers", None) or ()
        if wrong := [index for index in providers if index >= (scenario.n_providers or 0)]:
            raise InputError(
                f"providers = {list(providers)}: there is no provider {wrong[0]}; "
                f"allowed: 0 to {(scenario.n_providers or 0) - 1}"
            )


def among(providers: tuple[int, ...] | None, n: int) -> np.ndarray:
    """Return which of n providers are meant, shape (N,): those listed, or all."""
    if providers is None:
        return np.ones(n, dtype=bool)
    return np.isin(np.arange(n), providers)
