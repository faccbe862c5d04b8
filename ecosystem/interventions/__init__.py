"""Dated policy levers: what changes the rules of a round, from when to when.

A scenario lists its `Intervention` s; `rules_in_force` gives what holds in a round. Every engine asks it
before each round and follows the answer.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from ecosystem.interventions.base import BaseIntervention
from ecosystem.interventions.human_data import Quota
from ecosystem.interventions.outputs import Temperature
from ecosystem.interventions.rules import Observed, Rules, own_if_nobody

if TYPE_CHECKING:
    from ecosystem.scenario import Scenario

__all__ = [
    "KINDS",
    "BaseIntervention",
    "Intervention",
    "Observed",
    "Quota",
    "Rules",
    "Temperature",
    "own_if_nobody",
    "rules_in_force",
]

Intervention = Annotated[Quota | Temperature, Field(discriminator="kind")]
"""Any one kind of intervention."""

KINDS: dict[str, type[BaseIntervention]] = {
    kind.model_fields["kind"].default: kind for kind in (Quota, Temperature)
}
"""Every kind by its name."""


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
        Start from these instead of ``Rules.of(scenario)``.
    """
    rules = base or Rules.of(scenario)
    for intervention in scenario.interventions if interventions is None else interventions:
        if (strength := intervention.strength(observed.round)) > 0:
            rules = intervention.apply(rules, observed, strength)
    return rules
