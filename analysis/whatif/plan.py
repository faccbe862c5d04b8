"""POLICIES.toml: the baseline, the policies, and what is asked of them; checked wholly before any work."""

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.design import located
from analysis.whatif.comparison import BASELINE, FIRST
from ecosystem import InputError, Scenario
from ecosystem.human import existing_file

EXAMPLE = Path(__file__).with_name("policies.toml")
"""The example that comes with the package."""

_TOP = {
    "question": "a text",
    "baseline": 'settings of a scenario ([baseline]) or a file (baseline = "scenario.toml")',
    "policies": "tables [policies.NAME]",
    "uncertainties": 'ranges, e.g. temperature = [0.7, 1.0] or "detector.true_positive" = [0.6, 0.9]',
    "collapse_line": "a number above 0 and below 1, e.g. 0.5",
    "replicates": "a whole number, 2 or more, e.g. 8",
    "precision": "a number above 0 and below 1, e.g. 0.02",
    "budget": "a whole number of runs, e.g. 300",
    "seconds": "a number above 0, e.g. 600",
}
_OF_POLICY = {"says": "one line in words", "interventions": "tables [[policies.NAME.interventions]]"}


@dataclass(frozen=True)
class Policy:
    """One policy of a plan: what it says in words, and its scenario."""

    says: str
    scenario: Scenario


@dataclass(frozen=True)
class Plan:
    """A file of policies, read and checked.

    Attributes
    ----------
    text : str
        The file itself.
    question : str
        What is asked, in words.
    baseline : Scenario
        What happens without a policy.
    policies : dict of str to Policy
        In the order of the file.
    uncertainties : dict of str to (low, high)
        Ranges of settings that are not known, by the name of the setting ("temperature",
        "detector.true_positive").
    collapse_line, replicates, precision, budget, seconds
        As for `compare`.
    """

    text: str
    question: str
    baseline: Scenario
    policies: dict[str, Policy]
    uncertainties: dict[str, tuple[float, float]] = field(default_factory=dict)
    collapse_line: float = 0.5
    replicates: int = FIRST
    precision: float | None = None
    budget: int | None = None
    seconds: float | None = None

    @property
    def scenarios(self) -> dict[str, Scenario]:
        """The scenario of every policy, by name."""
        return {name: policy.scenario for name, policy in self.policies.items()}

    @property
    def says(self) -> dict[str, str]:
        """What every policy says in words, by name."""
        return {name: policy.says for name, policy in self.policies.items()}


def read_plan(
    path: str | os.PathLike[str] = EXAMPLE,
    baseline: str | os.PathLike[str] | None = None,
    **changes: Any,
) -> Plan:
    """Read a file of policies.

    Parameters
    ----------
    path : path
        The file; by default the example that comes with the package.
    baseline : path, optional
        A scenario file that replaces the file's baseline.
    **changes
        Values that replace those of the file: replicates, precision, budget, seconds, collapse_line.

    Raises
    ------
    InputError
        With one line for every mistake in it.
    """
    file = existing_file(os.fspath(path))
    try:
        text = file.read_text(encoding="utf-8-sig")
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not TOML: {error}") from None
    mistakes: list[str] = []
    for name in content.keys() - _TOP.keys():
        close = difflib.get_close_matches(name, _TOP, n=1)
        mistakes.append(
            f"{name}: there is no such entry; "
            + (f"did you mean {close[0]}?" if close else f"allowed: {', '.join(_TOP)}")
        )
    settings: dict[str, Any] = {}
    with _gathering(mistakes, "baseline"):
        settings = _baseline(content.get("baseline", {}), file, baseline)
    start = None
    if settings is not None:
        with _gathering(mistakes, "baseline"):
            start = Scenario(**settings)
    policies = dict(_policies(content.get("policies"), settings, start, mistakes))
    numbers = {name: content[name] for name in _TOP.keys() & content.keys() if name in _NUMBERS}
    numbers |= {name: value for name, value in changes.items() if value is not None}
    mistakes += [line for name, value in numbers.items() if (line := _NUMBERS[name](name, value))]
    uncertain = _uncertainties(content.get("uncertainties", {}), mistakes)
    if mistakes:
        raise InputError("\n".join(f"{file.name}: {line}" for line in mistakes))
    assert start is not None
    return Plan(
        text=text,
        question=str(content.get("question", "")),
        baseline=start,
        policies=policies,
        uncertainties=uncertain,
        **numbers,
    )


@contextmanager
def _gathering(mistakes: list[str], where: str) -> Iterator[None]:
    """Put the lines of an `InputError` on the list."""
    try:
        yield
    except InputError as error:
        mistakes += [f"{where}: {line}" for line in str(error).splitlines()]


def _baseline(given: Any, file: Path, other: str | os.PathLike[str] | None) -> dict[str, Any]:
    """Return the baseline's settings, paths relative to their file."""
    if other is not None or isinstance(given, str):
        source = existing_file(os.fspath(other) if other is not None else os.fspath(file.parent / given))
        try:
            return located(tomllib.loads(source.read_text(encoding="utf-8-sig")), source.parent.resolve())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{source} is not TOML: {error}") from None
    if not isinstance(given, Mapping):
        raise InputError(f"baseline = {given!r}: allowed: {_TOP['baseline']}")
    return located(given, file.parent.resolve())


def _policies(
    given: Any, settings: dict[str, Any], start: Scenario | None, mistakes: list[str]
) -> Iterator[tuple[str, Policy]]:
    if not isinstance(given, Mapping) or not given:
        mistakes.append("policies: give one or more, as [policies.NAME] with [[policies.NAME.interventions]]")
        return
    for name, policy in given.items():
        where = f"policies.{name}"
        if name == BASELINE or not name.strip():
            mistakes.append(f"{where}: choose another name; the baseline has this one")
        if not isinstance(policy, Mapping):
            mistakes.append(f"{where}: give a table, [{where}]")
            continue
        if unknown := sorted(policy.keys() - _OF_POLICY.keys()):
            mistakes.append(f"{where}.{unknown[0]}: there is no such entry; allowed: {', '.join(_OF_POLICY)}")
        says, rules = policy.get("says", ""), policy.get("interventions")
        if not isinstance(says, str) or len(says.splitlines()) > 1:
            mistakes.append(f"{where}.says: give one line of text")
        if not isinstance(rules, list) or not all(isinstance(rule, Mapping) for rule in rules):
            mistakes.append(f'{where}: give its rules as [[{where}.interventions]], each with a kind = "..."')
            continue
        before = settings.get("interventions", []) if isinstance(settings, Mapping) else []
        with _gathering(mistakes, where):
            # Where the baseline itself is wrong, the rules are still checked, against a plain one.
            scenario = Scenario(
                **(settings if start is not None else {}) | {"interventions": [*before, *rules]}
            )
            yield name, Policy(says, scenario)


def _uncertainties(given: Any, mistakes: list[str]) -> dict[str, tuple[float, float]]:
    """Check the ranges; whether a scenario takes them is for the design to see."""
    found: dict[str, tuple[float, float]] = {}
    if not isinstance(given, Mapping):
        mistakes.append(f"uncertainties: allowed: {_TOP['uncertainties']}")
        return found
    for name, span in given.items():
        numbers = isinstance(span, list) and [v for v in span if type(v) in (int, float)]
        if not numbers or len(numbers) != 2 or len(span) != 2 or not numbers[0] < numbers[1]:
            mistakes.append(
                f"uncertainties.{name} = {span!r}: allowed: two numbers, the lower first, e.g. [0.7, 1.0]"
            )
            continue
        found[name] = (span[0], span[1])
    return found


def _wrong(fits: Any) -> Any:
    def check(name: str, value: Any) -> str:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return "" if number and fits(value) else f"{name} = {value!r}: allowed: {_TOP[name]}"

    return check


_NUMBERS = {
    "collapse_line": _wrong(lambda value: 0 < value < 1),
    "replicates": _wrong(lambda value: isinstance(value, int) and value >= 2),
    "precision": _wrong(lambda value: 0 < value < 1),
    "budget": _wrong(lambda value: isinstance(value, int) and value >= 4),
    "seconds": _wrong(lambda value: 0 < value < float("inf")),
}
