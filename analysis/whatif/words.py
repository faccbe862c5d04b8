"""Scenarios and interventions in words."""

import inspect
import reprlib
from typing import Any

import numpy as np

from ecosystem import Scenario
from ecosystem.interventions import KINDS

_COMMON = {"kind", "name", "start", "end", "ramp"}
_SHARING = {
    "isolated": "from its own output only",
    "complete": "from all providers alike",
}
_HUMAN = {
    "english": "real English word counts",
    "zipf": "a Zipf law",
    "uniform": "a uniform law",
}
_SCHEDULES = {
    "accumulate": "all data so far count alike",
    "replace": "only the newest batch counts",
    "forget": "older data count ever less",
    "power": "older data count by a power law",
}


def baseline_in_words(scenario: Scenario) -> str:
    """Return what a scenario is, in a few sentences; interventions left out."""
    human = scenario.human if isinstance(scenario.human, str) else "array"
    law = _HUMAN.get(human, f"human data ({human})")
    sharing = scenario.sharing if isinstance(scenario.sharing, str) else "a graph that was given"
    read = _SHARING.get(sharing, f"from the providers that it reads ({sharing})")
    schedule = _SCHEDULES[scenario.schedule.partition(":")[0]]
    return (
        f"{scenario.n_providers:,} providers each run a generative model of {scenario.n_outputs:,} possible "
        f"outputs, whose human law is {law}. In each of {scenario.rounds} rounds a provider publishes "
        f"{_span(scenario, 'outputs_per_round', ',.0f')} items, sampled at temperature "
        f"{_span(scenario, 'temperature', 'g')}, and trains on {_span(scenario, 'batch_size', ',.0f')} "
        f"items: "
        f"{_span(scenario, 'fresh_fraction', '.3g', 100)}% of them fresh from people, the others {read}; "
        f"{schedule} ({scenario.schedule})."
    )


def _span(scenario: Scenario, name: str, form: str, factor: float = 1) -> str:
    values = scenario.per_provider(name) * factor
    low, high = format(float(np.min(values)), form), format(float(np.max(values)), form)
    return low if low == high else f"{low} to {high}"


def intervention_in_words(intervention: Any) -> str:
    """Return what kind of rule an intervention is, its parameters, and when it holds."""
    kind = intervention.kind
    rule = (inspect.getdoc(KINDS[kind]) or kind).partition("\n\n")[0].replace("\n", " ").strip().rstrip(".")
    given = [
        f"{_described(field, name)}: {_plain(getattr(intervention, name))}"
        for name, field in type(intervention).model_fields.items()
        if name not in _COMMON and name in intervention.model_fields_set
    ]
    when = "from the first round on" if intervention.start == 1 else f"from round {intervention.start} on"
    if intervention.end is not None:
        when = f"in rounds {intervention.start} to {intervention.end}"
    if intervention.ramp:
        when += f", growing over {intervention.ramp} rounds"
    details = f" ({'; '.join(given)})" if given else ""
    return f"{kind}: {rule[:1].lower()}{rule[1:]}{details}, {when}"


def _described(field: Any, name: str) -> str:
    return str(field.description or name.replace("_", " "))


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | int):
        return f"{value:g}"
    return reprlib.repr(list(value)) if isinstance(value, tuple) else str(value)


def prices_in_words(scenario: Scenario) -> str:
    """Return the prices of a scenario, in units of the price of one human item."""
    prices = {
        "a human item": "price_human_item",
        "a published item": "price_published_item",
        "a detector call": "price_detector_call",
        "a curated item": "price_curated_item",
    }
    return ", ".join(f"{what} {getattr(scenario, name):g}" for what, name in prices.items())
