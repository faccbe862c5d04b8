"""What holds when: the rules of a round, and those that are known before a run begins."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from ecosystem.errors import InputError
from ecosystem.interventions.base import BaseIntervention
from ecosystem.interventions.network import Entry, Exit, among_active
from ecosystem.interventions.rules import Observed, Rules
from ecosystem.types import Floats

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario


def rules_in_force(
    scenario: "Scenario",
    observed: Observed,
    interventions: Sequence[BaseIntervention] | None = None,
    base: Rules | None = None,
) -> Rules:
    """Return what holds in the round about to run.

    Parameters
    ----------
    scenario : Scenario
        Sets the rules without interventions.
    observed : Observed
        The round about to run, and the state before it.
    interventions : sequence, optional
        In the order in which they apply; by default those of the scenario.
    base : Rules, optional
        Start from these instead of ``Rules.of(scenario)``: W apart, as the scenario's graph is divided among
        those who are there.

    Raises
    ------
    InputError
        If what the interventions ask for cannot be done: a detector that lets nothing through.
    """
    interventions = scenario.interventions if interventions is None else interventions
    rules = Rules.of(scenario) if base is None else base
    active = active_in(interventions, observed.round, len(rules.active))
    return _after(scenario, observed, interventions, _among(scenario, rules, active))


class RuleBook:
    """`rules_in_force`, round after round of one run, worked out anew only where something changed.

    While nothing changes it gives one and the same object, so that an engine can keep what it derived from
    it. What comes before the first intervention that looks at the state of the run is kept as well.
    """

    def __init__(self, scenario: "Scenario") -> None:
        self.scenario = scenario
        seeing = [i for i, rule in enumerate(scenario.interventions) if rule.observes]
        cut = seeing[0] if seeing else len(scenario.interventions)
        self._known, self._seeing = scenario.interventions[:cut], scenario.interventions[cut:]
        self._given: tuple[Any, ...] = ()
        self._base, self._rules = Rules.of(scenario), Rules.of(scenario)

    def in_force(self, observed: Observed, base: Rules | None = None) -> Rules:
        """Return the same as ``rules_in_force(scenario, observed, base=base)``."""
        base = self._base if base is None else base
        if not self.scenario.interventions:
            return base
        given, active = self._given_in(observed.round, base)
        if given != self._given or base is not self._base:
            here = _among(self.scenario, base, active)
            self._rules = _after(self.scenario, observed, self._known, here)
            self._given, self._base = given, base
        return _after(self.scenario, observed, self._seeing, self._rules)

    def unchanged(self, first: int, last: int) -> int:
        """Return up to which of these rounds all that is known before a run stays as it is in the first."""
        if not self.scenario.interventions:
            return last
        given, round = self._given_in(first, self._base)[0], first
        while round < last and self._given_in(round + 1, self._base)[0] == given:
            round += 1
        return round

    def _given_in(self, round: int, base: Rules) -> tuple[tuple[Any, ...], np.ndarray]:
        """Return what is known of a round before a run, and who takes part in it."""
        active = active_in(self.scenario.interventions, round, len(base.active))
        return (*(rule.strength(round) for rule in self._known), active.tobytes()), active


def _among(scenario: "Scenario", rules: Rules, active: np.ndarray) -> Rules:
    """Return the rules among those who are there: the sharing graph divided among them."""
    if active.all():
        return rules
    return replace(rules, active=active, W=among_active(scenario.reading, active))


def _after(
    scenario: "Scenario", observed: Observed, interventions: Sequence[BaseIntervention], rules: Rules
) -> Rules:
    """Return the rules after some interventions, one after the other."""
    for intervention in interventions:
        if (strength := intervention.strength(observed.round)) > 0:
            try:
                rules = intervention.apply(rules, observed, strength)
            except InputError as error:
                numbers = (n for n, other in enumerate(scenario.interventions) if other is intervention)
                where = f"interventions[{number}]." if (number := next(numbers, None)) is not None else ""
                raise InputError(f"{where}{error}") from None
    return rules


def active_in(interventions: Sequence[BaseIntervention], round: int, n_providers: int) -> np.ndarray:
    """Return which providers take part in a round, shape (N,) of bool; round 0 counts as round 1."""
    active = np.ones(n_providers, dtype=bool)
    for intervention in interventions:
        if isinstance(intervention, Entry | Exit) and intervention.strength(max(round, 1)) > 0:
            active[list(intervention.providers)] = False
    return active


class Period(NamedTuple):
    """Rounds ``first`` to ``last`` in which one set of rules holds."""

    first: int
    last: int
    rules: Rules


@dataclass(frozen=True)
class _Before:
    """All that is known of a round before a run begins."""

    round: int
    human: Floats

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{name} is not known before a run")


def foreseen(scenario: "Scenario", ramps: bool = True) -> Iterator[Period]:
    """Yield the rules of every round, as far as they do not depend on the state of a run.

    Interventions that do (`BaseIntervention.observes`) are left out. With ``ramps``, every round of a ramp is
    a period; without, a ramp holds the strength of its first round until it is full.
    """
    interventions = [i for i in scenario.interventions if not i.observes]
    edges = {1}
    for i in interventions:
        edges |= {i.start, i.start + i.ramp, (i.end or scenario.rounds) + 1}
        if ramps:
            edges |= set(range(i.start, min(i.start + i.ramp, scenario.rounds) + 1))
    firsts = sorted(edge for edge in edges if edge <= scenario.rounds)
    base = Rules.of(scenario)
    for first, after in zip(firsts, [*firsts[1:], scenario.rounds + 1], strict=True):
        observed = _Before(first, scenario.source.law)
        yield Period(
            first, after - 1, rules_in_force(scenario, cast(Observed, observed), interventions, base)
        )
