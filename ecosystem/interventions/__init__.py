"""Dated policy levers: what changes the rules of a round, from when to when.

A scenario lists its interventions; `rules_in_force` gives what holds in a round. Every engine asks it before
each round and follows the answer. They apply in the order in which they are listed, each to what the ones
before have left; who is there at all (`Entry`, `Exit`) is settled first.
"""

from typing import Annotated, get_args

from pydantic import Field

from ecosystem.interventions.base import BaseIntervention
from ecosystem.interventions.human_data import DecliningSupply, Drift, FreshFraction, HumanSupply, Quota
from ecosystem.interventions.network import Entry, Exit, Sharing
from ecosystem.interventions.outputs import Curation, Temperature
from ecosystem.interventions.provenance import Cap, Detector
from ecosystem.interventions.rules import Observed, Rules
from ecosystem.interventions.timeline import RuleBook, active_in, foreseen, rules_in_force
from ecosystem.interventions.training import Retention, Weighting

__all__ = [
    "KINDS",
    "BaseIntervention",
    "Cap",
    "Curation",
    "DecliningSupply",
    "Detector",
    "Drift",
    "Entry",
    "Exit",
    "FreshFraction",
    "HumanSupply",
    "Intervention",
    "Observed",
    "Quota",
    "Retention",
    "RuleBook",
    "Rules",
    "Sharing",
    "Temperature",
    "Weighting",
    "active_in",
    "foreseen",
    "rules_in_force",
]

_Kinds = (
    Quota
    | FreshFraction
    | HumanSupply
    | DecliningSupply
    | Drift
    | Detector
    | Cap
    | Sharing
    | Entry
    | Exit
    | Temperature
    | Retention
    | Curation
    | Weighting
)
Intervention = Annotated[_Kinds, Field(discriminator="kind")]
"""Any one kind of intervention."""

KINDS: dict[str, type[BaseIntervention]] = {
    kind.model_fields["kind"].default: kind for kind in get_args(_Kinds)
}
"""Every kind by its name."""
