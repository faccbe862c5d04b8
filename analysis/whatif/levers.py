"""Levers and targets: a number that a policy can set, and what is to be reached with it."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

import numpy as np

from analysis.design import with_setting
from analysis.statistics import estimate, share_interval
from analysis.whatif.outcomes import OUTCOMES
from ecosystem import InputError, Scenario
from ecosystem.interventions import KINDS


class Target(NamedTuple):
    """What is to be reached: an outcome, ">=" or "<=", and a value."""

    outcome: str
    sign: str
    value: float

    def __str__(self) -> str:
        what = OUTCOMES[self.outcome]
        value = f"{100 * self.value:g}%" if what.percent else f"{self.value:g}"
        return f"{what.says} {'at least' if self.sign == '>=' else 'at most'} {value}"

    def met(self, value: Any) -> Any:
        """Return whether a value, or each of several, reaches it."""
        return value >= self.value if self.sign == ">=" else value <= self.value

    def interval(self, values: np.ndarray) -> tuple[float, float, float]:
        """Return the mean over replicates with its 95% interval, its ends ordered from far to reached."""
        if self.outcome == "collapsed":
            mean, (low, high) = float(values.mean()), share_interval(int(values.sum()), len(values))
        else:
            mean, half = estimate(values)
            low, high = mean - half, mean + half
        return (mean, low, high) if self.sign == ">=" else (mean, high, low)


def parse_target(text: str) -> Target:
    """Read a target as it is typed, "diversity_kept >= 0.8" or "collapsed <= 5%"; else `InputError`."""
    match = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*([0-9.eE+-]+)\s*(%?)\s*", text)
    try:
        if match and match[1] in OUTCOMES:
            return Target(match[1], match[2], float(match[3]) / (100 if match[4] else 1))
    except ValueError:
        pass
    raise InputError(
        f"{text!r}: give an outcome, >= or <=, and a number, e.g. diversity_kept >= 0.8; "
        f"outcomes: {', '.join(OUTCOMES)}"
    )


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """Return what a scenario was given, as a scenario file would hold it."""
    plain = tomllib.loads(scenario.to_toml())
    return {name: value for name, value in plain.items() if name in scenario.model_fields_set}


def has_setting(settings: Mapping[str, Any], path: str) -> bool:
    """Return whether a path such as "detector.true_positive" leads to a setting here."""
    if "." not in path:
        return True
    try:
        with_setting(settings, path, None)
    except InputError:
        return False
    return True


def with_lever(
    settings: Mapping[str, Any], path: str, value: float | int, start: int | None = None
) -> dict[str, Any]:
    """Return settings with one number changed.

    A path is what `analysis.design.with_setting` takes; "KIND.FIELD" of an intervention that the settings
    lack adds that intervention. With ``start`` the intervention begins in that round.
    """
    kind = path.rpartition(".")[0]
    if kind in KINDS and not has_setting(settings, path):
        rules = list(settings.get("interventions", []))
        settings = {**settings, "interventions": [*rules, {"kind": kind}]}
    if start is not None:
        if not kind:
            raise InputError(f"{path}: a setting holds from the start; only an intervention can begin later")
        settings = with_setting(settings, f"{kind}.start", start)
    return with_setting(settings, path, value)


def scenario_at(scenario: Scenario, path: str, value: float, start: int | None = None) -> Scenario:
    """Return a scenario with a lever at a value; a lever that takes whole numbers only is rounded."""
    settings = settings_of(scenario)
    try:
        return Scenario(**with_lever(settings, path, float(value), start))
    except InputError:
        return Scenario(**with_lever(settings, path, round(value), start))


def is_whole(scenario: Scenario, path: str, low: float, high: float) -> bool:
    """Return whether a lever takes whole numbers only; raise `InputError` if it takes neither end."""
    settings = settings_of(scenario)
    try:
        for end in (low, high):
            Scenario(**with_lever(settings, path, float(end)))
        Scenario(**with_lever(settings, path, (low + high) / 2 + 0.001 * (high - low)))
    except InputError:
        for end in (low, high):
            Scenario(**with_lever(settings, path, int(end) if float(end).is_integer() else end))
        return True
    return False


def bounds(path: str) -> tuple[float, float]:
    """Return the least and the largest value that a lever allows; `InputError` where there is none."""
    kind, _, name = path.partition(".")
    fields = KINDS[kind].model_fields if name and kind in KINDS else Scenario.model_fields
    field = fields.get(name or path)
    if field is None:
        known = f"; {kind} has {', '.join(fields)}" if name and kind in KINDS else ""
        raise InputError(f"{path}: give the range to search with --between LOW HIGH{known}")
    ends = dict(_limits((field.annotation, *field.metadata)))
    if len(ends) < 2 or ends["le"] >= _HUGE:
        raise InputError(f"{path}: it has no largest value; give the range to search with --between LOW HIGH")
    return float(ends["ge"]), float(ends["le"])


_HUGE = 10**6  # no bound to search up to


def _limits(parts: Iterable[Any]) -> Iterator[tuple[str, float]]:
    """Yield the limits "ge" and "le" in the annotations of a number, or of the number in a number or list."""
    for part in parts:
        for name in ("ge", "le"):
            if (limit := getattr(part, name, None)) is not None and isinstance(limit, int | float):
                yield name, limit
        yield from _limits(getattr(part, "metadata", ()))
        yield from _limits(get_args(part))
