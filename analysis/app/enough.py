"""The second page: how much human data would prevent the collapse, and how much would cure it."""

import asyncio
from io import BytesIO
from typing import Any

import solara
from matplotlib.figure import Figure
from matplotlib.text import Text

from analysis.figures import HUMAN
from analysis.threshold import bifurcation_figure, explain, thresholds
from ecosystem import InputError, Scenario


@solara.component
def WhatWouldItTake(scenario: Scenario | None, dark: bool) -> None:
    """Show thresholds and the bifurcation diagram of a scenario, from the theory, as the sliders move."""
    keep, set_keep = solara.use_state(0.9)

    async def answer() -> tuple[dict[str, Any], bytes | None, str] | None:
        if scenario is None:
            return None
        await asyncio.sleep(0.3)  # a moving slider leaves this one behind, cancelled
        plain = scenario.replace(interventions=())
        found = thresholds(plain, keep)
        try:
            return found, _png(bifurcation_figure(plain, found), dark), ""
        except InputError as error:
            return found, None, str(error)

    key = scenario.digest if scenario else ""
    task = solara.lab.use_task(answer, dependencies=[key, keep, dark], raise_error=False)
    solara.Text(
        "How much fresh human data would it take? The least fraction of every training batch, from the exact "
        "mean field (many outputs a round), for the settings on the left; their own fresh fraction plays "
        "no part."
    )
    solara.SliderFloat(
        f"share of human diversity to keep: {keep:.0%}", keep, min=0.05, max=1.0, step=0.05, on_value=set_keep
    )
    if scenario is None:
        solara.Warning("The settings on the left hold an error: correct it first.")
        return
    if task.error:
        if isinstance(task.exception, InputError):
            solara.Warning(str(task.exception))
        else:
            solara.Error(f"This could not be computed: {task.exception}")
        return
    solara.ProgressLinear(bool(task.pending))
    latest = task.latest
    if latest is None:
        return
    found, image, missing = latest
    fresh = scenario.per_provider("fresh_fraction")
    solara.v.Html(tag="h3", children=[_sentence(found, float(fresh.min()), float(fresh.max()))])
    if left_out := _left_out(scenario):
        solara.Info(f"Left out here: {left_out}.")
    if image is not None:
        solara.Image(image, width="min(100%, 900px)")
    else:
        solara.Info(f"No diagram: {missing}")
    solara.v.Html(tag="pre", children=[explain(found)], style_="white-space: pre-wrap; margin-top: 8px")


def _sentence(found: dict[str, Any], least: float, most: float) -> str:
    """Return the answer in a sentence, beside the fresh fractions there are."""
    share = f"{found['keep']:.0%} of human diversity"
    if "prevention" in found:
        prevention, cure = found["prevention"], found["cure"]
        need = f"Keeping {share} takes {prevention:.1%} fresh human data"
        if cure > prevention + 5e-4:
            need += f"; bringing it back after a collapse takes {cure:.1%}"
    else:
        prevention = found["population"]
        need = f"Keeping {share} for every provider takes {prevention:.1%} fresh human data"
    enough = "enough" if least >= prevention else "not enough" + (" for all" if most >= prevention else "")
    own = f"{least:.1%}" if least == most else f"{least:.1%} to {most:.1%}"
    return f"{need}. The scenario has {own}: {enough}."


def _left_out(scenario: Scenario) -> str:
    """Return what a scenario has that the theory of this page does not know."""
    kinds = ", ".join(dict.fromkeys(rule.kind for rule in scenario.interventions))
    parts = [f"the dated rules of the scenario ({kinds})"] if kinds else []
    parts += ["training errors, which do not average out"] if scenario.training_error > 0 else []
    return "; ".join(parts)


def _png(figure: Figure, dark: bool) -> bytes:
    """Return the figure as PNG, on the page's own background."""
    if dark:
        figure.patch.set_facecolor("#1e1e1e")
        for text in figure.findobj(Text):
            text.set_color("#e6e6e6")
        for axes in figure.axes:
            axes.set_facecolor("#1e1e1e")
            axes.tick_params(colors="#e6e6e6")
            for spine in axes.spines.values():
                spine.set_color("#9e9e9e")
            for line in axes.lines:
                if line.get_color() == HUMAN:
                    line.set_color("#ffffff")
            if legend := axes.get_legend():
                for line in legend.get_lines():
                    if line.get_color() == HUMAN:
                        line.set_color("#ffffff")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()
