"""Levers that act while a run goes on: each is put into the run's scenario with its date."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import solara
from mesa.visualization.utils import update_counter

from analysis.app.session import Session, Watched
from ecosystem import InputError
from ecosystem.interventions import BaseIntervention, Detector, Exit, FreshFraction, Sharing, Temperature

MISSED = 0.05
"""Share of human items that the detector on the page flags by mistake."""
READABLE = 5.0
"""Seconds for which what is wrong with a lever stays while the run goes on."""
SHARING = {
    "open": "sharing opened: everybody reads everybody",
    "silos": "sharing closed: everybody trains on its own outputs",
    "": "sharing as in the scenario again",
}


def change(session: Session, kind: str, rule: BaseIntervention | None, text: str) -> str:
    """Let a rule replace the one that the same lever put in force before, or end that one.

    Returns
    -------
    str
        What is wrong, or empty. Where something is wrong nothing has changed.
    """

    def act(eco: Watched) -> None:
        rules: list[Any] = list(eco.config.interventions)
        before = session.levers.get(kind)
        if before is not None and before in rules:
            at = rules.index(before)
            rules[at : at + 1] = [before.replace(end=eco.round)] if before.start <= eco.round else []
        now = rule and rule.replace(start=eco.round + 1)
        if now:
            # After others of its kind, which it replaces, and before rules that build on it, as a detector.
            same = [place for place, other in enumerate(rules, start=1) if other.kind == now.kind]
            rules.insert(len(rules) if kind == "detector" else max(same, default=0), now)
        eco.config = eco.config.replace(interventions=tuple(rules))
        session.levers[kind] = now

    return session.pull(act, text)


def set_fresh(session: Session, fraction: float) -> str:
    """Set every provider's fresh fraction from the next round on."""
    rule = FreshFraction(fraction=fraction, name=f"fresh {fraction:.0%}")
    return change(session, "fresh", rule, f"fresh fraction set to {fraction:.0%}")


def set_temperature(session: Session, temperature: float) -> str:
    """Set every provider's temperature from the next round on."""
    rule = Temperature(fixed=temperature, name=f"T = {temperature:g}")
    return change(session, "temperature", rule, f"temperature set to {temperature:g}")


def set_sharing(session: Session, mode: str) -> str:
    """Open ("open") or close ("silos") sharing from the next round on, or let it be as it was ("")."""
    name = "sharing open" if mode == "open" else "sharing closed"
    rule = Sharing(mode=mode, name=name) if mode else None
    return change(session, "sharing", rule, SHARING[mode])


def set_detector(session: Session, found: float) -> str:
    """Put a detector that drops what it flags before every training; ``found`` = 0 takes it away."""
    if found == 0:
        return change(session, "detector", None, "detector switched off")
    rule = Detector(true_positive=found, false_positive=MISSED, name=f"detector {found:.0%}")
    text = f"detector switched on: it flags {found:.0%} of synthetic items and {MISSED:.0%} of human ones"
    return change(session, "detector", rule, text)


def add_provider(session: Session, beside: int) -> str:
    """Let a provider join the circle of another: it reads that one and whom it reads, and they read it."""

    def act(eco: Watched) -> None:
        row = eco.config.W[[beside]]
        circle = {int(other) for other in row.indices if eco.rules.active[other]} | {beside}
        own: dict[str, Any] = {
            name: eco.config.per_provider(name)[beside].item()
            for name in ("temperature", "fresh_fraction")
            if isinstance(getattr(eco.config, name), tuple)
        }
        own |= {
            name: int(eco.config.per_provider(name)[beside])
            for name in ("outputs_per_round", "batch_size")
            if isinstance(getattr(eco.config, name), tuple)
        }
        if isinstance(eco.config.initial, np.ndarray) and eco.config.initial.ndim == 2:
            own["initial"] = eco.human
        eco.add_provider(circle, circle, **own)

    new = session.view.kept.size
    return session.pull(act, f"provider {new} joined the circle of provider {beside}")


def remove_provider(session: Session, index: int) -> str:
    """Let a provider leave before the next round."""

    def act(eco: Watched) -> None:
        leaving = [rule for rule in eco.config.interventions if isinstance(rule, Exit)]
        if any(index in rule.providers and rule.start == eco.round + 1 for rule in leaving):
            raise InputError(f"provider {index} leaves before the next round already")
        eco.remove_provider(index)

    return session.pull(act, f"provider {index} left")


@solara.component
def LeverPanel(session: Session, eco: Watched, selected: int, on_done: Callable[[], None]) -> None:
    """Show the levers, and under each what was wrong with pulling it."""
    update_counter.get()
    view = session.view
    fresh, set_fresh_to = solara.use_state(0.3)
    temperature, set_temperature_to = solara.use_state(1.0)
    found, set_found = solara.use_state(0.8)
    wrong, set_wrong = solara.use_state(("", "", eco, 0, 0.0))
    pulled, message, run, at, when = wrong

    def pull(name: str, lever: Callable[..., str], *arguments: Any) -> None:
        set_wrong((name, lever(session, *arguments), eco, session.view.round, time.monotonic()))
        on_done()

    def told(name: str) -> None:
        current = view.round == at or time.monotonic() - when < READABLE
        if message and pulled == name and run is eco and current:
            solara.Error(message, dense=True)

    solara.SliderFloat(f"fresh fraction → {fresh:.0%}", fresh, min=0, max=1, step=0.01, on_value=set_fresh_to)
    solara.Button("Change fresh fraction", on_click=lambda: pull("fresh", set_fresh, fresh), small=True)
    told("fresh")
    solara.SliderFloat(
        f"temperature → {temperature:g}", temperature, min=0, max=2, step=0.05, on_value=set_temperature_to
    )
    solara.Button(
        "Change temperature", on_click=lambda: pull("temperature", set_temperature, temperature), small=True
    )
    told("temperature")
    solara.SliderFloat(
        f"detector finds {found:.0%}", found, min=0.05, max=0.95, step=0.05, on_value=set_found
    )
    on = session.levers.get("detector") is not None
    with solara.Row(classes=["buttons"]):
        solara.Button(
            "Change detector" if on else "Detector on",
            on_click=lambda: pull("detector", set_detector, found),
            small=True,
        )
        solara.Button(
            "Detector off", on_click=lambda: pull("detector", set_detector, 0), small=True, disabled=not on
        )
    told("detector")
    with solara.Row(classes=["buttons"]):
        for label, mode in (("Open sharing", "open"), ("Close sharing", "silos"), ("As before", "")):
            solara.Button(
                label,
                on_click=lambda mode=mode: pull("sharing", set_sharing, mode),
                small=True,
                disabled=mode == "" and session.levers.get("sharing") is None,
            )
    told("sharing")
    here = min(selected, view.kept.size - 1)
    with solara.Row(classes=["buttons"]):
        solara.Button(
            f"Add a provider beside {here}", on_click=lambda: pull("who", add_provider, here), small=True
        )
        solara.Button(
            f"Remove provider {here}",
            on_click=lambda: pull("who", remove_provider, here),
            small=True,
            disabled=not view.active[here],
        )
    told("who")
