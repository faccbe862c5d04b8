"""Levers and targets: a number that a policy can set, and what is to be reached with it."""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args

import numpy as np

from analysis.design import AmbiguousError, misnamed, steps_to, whole_only, with_setting
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
        number = float(match[3]) if match and match[1] in OUTCOMES else None
    except ValueError:
        number = None
    if match is None or number is None:
        raise InputError(
            f"{text!r}: give an outcome, >= or <=, and a number, e.g. diversity_kept >= 0.8; "
            f"outcomes: {', '.join(OUTCOMES)}"
        )
    outcome, sign, percent = match[1], match[2], bool(match[4])
    if wrong := _out_of_reach(outcome, number, percent):
        raise InputError(f"{text.strip()}: {outcome} {wrong}")
    return Target(outcome, sign, number / 100 if percent else number)


_PARTS = ("human_coverage", "total_variation", "collapsed")  # parts of a whole: never more than all of it
_TIMES = 10  # a share of something else may be more than all of it; more than this is not meant


def _out_of_reach(outcome: str, number: float, percent: bool) -> str:
    """Return what is wrong with the number of a target, and what to write; nothing where it is right."""
    if not OUTCOMES[outcome].percent:
        return "is no share; write a number without %" if percent else ""
    part = outcome in _PARTS
    if number < 0 or (part and number > (100 if percent else 1)):
        most = "0 to 1, or 0% to 100%" if part else "0 or more"
        meant = f"; write {number:g}% or {number / 100:g}" if not percent and 1 < number <= 100 else ""
        return f"is a share; allowed: {most}{meant}"
    if not percent and number > _TIMES:
        there = f"{100 * number:g}%"
        return (
            f"is a share, and {number:g} is {there}; write {number:g}% or {number / 100:g}, "
            f"or {there} if that is meant"
        )
    return ""


def settings_of(scenario: Scenario) -> dict[str, Any]:
    """Return what a scenario was given, as a scenario file would hold it."""
    plain = tomllib.loads(scenario.to_toml())
    return {name: value for name, value in plain.items() if name in scenario.model_fields_set}


def has_setting(settings: Mapping[str, Any], path: str) -> bool:
    """Return whether a path such as "detector.true_positive" leads to a setting here.

    Raises
    ------
    AmbiguousError
        If it leads to several.
    """
    if "." not in path:
        return True
    try:
        *above, key = steps_to(settings, path)
    except AmbiguousError:
        raise
    except InputError:
        return False
    table: Any = settings
    for step in above:
        table = table[step]
    kind = KINDS.get(table.get("kind"))
    return kind is None or key in kind.model_fields


def with_lever(
    settings: Mapping[str, Any], path: str, value: float | int, start: int | None = None
) -> dict[str, Any]:
    """Return settings with one number changed.

    A path is what `analysis.design.with_setting` takes; "KIND.FIELD" of an intervention that the settings
    lack adds that intervention. With ``start`` the intervention begins in that round.
    """
    kind = path.rpartition(".")[0]
    absent = kind in KINDS and not has_setting(settings, path)
    if (absent or not kind) and (wrong := misnamed(path)):
        raise InputError(f"{path}: {wrong}")
    if absent:
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

    def at(value: float) -> Scenario:
        return Scenario(**with_lever(settings, path, value))

    whole = whole_only(at, low, high)
    for end in (low, high):
        at(int(end) if whole else float(end))
    return whole


def uncertain_rules(scenario: Scenario, ranges: Mapping[str, tuple[float, float]]) -> list[Any]:
    """Return a scenario's interventions, to be read: uncertain numbers are texts with their range."""
    settings, rules = settings_of(scenario), list(scenario.interventions)
    for name, (low, high) in ranges.items():
        match steps_to(settings, name) if has_setting(settings, name) else []:
            case ["interventions", int(place), key]:
                text = f"{low:g} to {high:g} (uncertain)"
                rules[place] = rules[place].model_copy(update={str(key): text})
    return rules


def bounds(path: str) -> tuple[float, float]:
    """Return the least and the largest value that a lever allows; `InputError` where there is none."""
    kind, _, name = path.partition(".")
    if wrong := misnamed(path):
        stop = "" if wrong.endswith("?") else "."
        named = f"{stop} If {kind} is the name of a table, give the range, --between LOW HIGH"
        raise InputError(f"{path}: {wrong}{named if name and kind not in KINDS else ''}")
    fields = KINDS[kind].model_fields if name and kind in KINDS else Scenario.model_fields
    field = fields.get(name or path)
    ends = dict(_limits((field.annotation, *field.metadata))) if field else {}
    if len(ends) < 2 or ends["le"] >= _HUGE:
        raise InputError(
            f"{path}: no least and largest value are known; give the range to search with --between LOW HIGH"
        )
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
