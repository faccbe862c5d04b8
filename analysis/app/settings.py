"""The settings of the next run, each with its error beside it."""

from collections.abc import Callable
from typing import Any

import solara

from ecosystem import InputError, Scenario
from ecosystem.sharing import REAL_NETWORKS, TOPOLOGIES

CHOICES: dict[str, tuple[str, list[str]]] = {
    "sharing": ("who reads whom", [*TOPOLOGIES, *REAL_NETWORKS]),
    "schedule": ("schedule", ["accumulate", "replace", "forget:0.1", "power:0.7"]),
    "human": ("human data", ["zipf", "uniform", "english"]),
}
NUMBERS = {
    "n_providers": "providers (empty: as the graph has)",
    "n_outputs": "outputs (empty: as the human data has)",
    "rounds": "rounds",
    "seed": "seed",
}
LARGEST, MOST_PROVIDERS = 10**7, 2000
"""Largest providers × outputs, and most providers, of a run that the page can still draw as it goes."""
AS_GIVEN = "as in the scenario file"


def plan(base: Scenario, changes: dict[str, Any]) -> tuple[Scenario | None, dict[str, str]]:
    """Return the scenario with what was typed, or what is wrong with it, by setting.

    Parameters
    ----------
    base : Scenario
        What the tab was opened with.
    changes : dict
        Setting to value; of `NUMBERS` the text as it was typed.

    Returns
    -------
    scenario : Scenario or None
    errors : dict of str to str
        Messages by setting, ``""`` for what belongs to none of the fields; empty where all is well.
    """
    values, errors = dict(changes), {}
    for name in NUMBERS.keys() & changes.keys():
        text = str(changes[name]).strip().replace(",", "").replace("_", "")
        try:
            values[name] = int(text) if text or name in ("rounds", "seed") else None
        except ValueError:
            errors[name] = f"{changes[name]!r} is not a whole number"
    if errors or (errors := _too_large(base, values)):
        return None, errors
    try:
        scenario = base.replace(**values)
    except InputError as error:
        for line in str(error).splitlines():
            name, _, message = line.partition(" = ")
            errors[name if name in CHOICES | NUMBERS else ""] = message if name in NUMBERS else line
        return None, errors
    except MemoryError:
        return None, {"": "not enough memory: give fewer outputs or providers"}
    errors = _too_large(scenario, {})
    return (None, errors) if errors else (scenario, {})


def _too_large(base: Scenario, values: dict[str, Any]) -> dict[str, str]:
    """Return what is too large to watch; asked before such a scenario is even made."""
    outputs = int(values.get("n_outputs") or base.n_outputs or 1)
    providers = int(values.get("n_providers") or base.n_providers or 1)
    if providers > MOST_PROVIDERS:
        return {
            "n_providers": f"too many to watch: at most {MOST_PROVIDERS:,} on this page; use ecosystem run"
        }
    if outputs * providers > LARGEST:
        return {
            "n_outputs": f"{outputs:,} outputs × {providers:,} providers are too many to watch: "
            f"at most {LARGEST:,} on this page; use ecosystem run"
        }
    return {}


@solara.component
def SettingsPanel(
    base: Scenario,
    changes: dict[str, Any],
    errors: dict[str, str],
    on_change: Callable[[str, Any], None],
) -> None:
    """Show sliders, lists and text fields; ``changes`` holds what differs from ``base``."""

    def change(name: str) -> Callable[[Any], None]:
        return lambda value: on_change(name, value)

    for name, label, most, step in (
        ("temperature", "temperature T", 2.0, 0.05),
        ("fresh_fraction", "fresh fraction λ", 1.0, 0.01),
    ):
        value = changes.get(name, getattr(base, name))
        if isinstance(value, tuple):
            solara.Text(f"{label}: one per provider, as in the scenario file")
            solara.Button(f"One {label} for all", on_click=lambda name=name: change(name)(0.5), text=True)
        else:
            most = max(most, min(value, 10.0))
            value = min(value, most)
            solara.SliderFloat(
                f"{label} = {value:g}", value=value, min=0, max=most, step=step, on_value=change(name)
            )
    for name, (label, values) in CHOICES.items():
        given = getattr(base, name)
        first = given if isinstance(given, str) else AS_GIVEN
        value = changes.get(name, first)
        values = values if first in values else [first, *values]

        def choose(value: str, name: str = name, given: Any = given) -> None:
            change(name)(given if value == AS_GIVEN else value)

        solara.Select(label, values=values, value=value if isinstance(value, str) else first, on_value=choose)
        if name in errors:
            solara.Error(errors[name], dense=True)
    for name, label in NUMBERS.items():
        given = getattr(base, name) if name in base.model_fields_set or name in ("rounds", "seed") else None
        value = changes.get(name, "" if given is None else str(given))
        solara.InputText(label, value=str(value), on_value=change(name), error=errors.get(name, False))
    if "" in errors:
        solara.Error(errors[""], dense=True)
