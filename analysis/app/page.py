"""The page: Mesa's controls, the settings, the levers, the graph with its plots, and what it would take."""

import logging
from collections.abc import Callable
from typing import Any

import solara
import solara.lab
from mesa.visualization.solara_viz import ModelController, ShowSteps
from mesa.visualization.utils import force_update, update_counter

from analysis.app import charts
from analysis.app.enough import WhatWouldItTake
from analysis.app.figure import Figure, Opaque
from analysis.app.levers import LeverPanel
from analysis.app.network import network
from analysis.app.session import Session, View, Watched, opening_scenario
from analysis.app.settings import SettingsPanel, plan
from analysis.statistics import number
from ecosystem import InputError, Scenario

logger = logging.getLogger(__name__)
_STYLE = """
.plots { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 370px), 1fr)); }
.plots .graph { grid-row: span 2; }
.plots .v-card { margin: 0 !important; min-width: 0; }
.profile .yes { font-weight: bold; }
.profile td, .profile th { padding: 2px 10px 2px 0; text-align: left; vertical-align: top; }
.buttons { flex-wrap: wrap; gap: 8px; }
.saves { display: flex; flex-wrap: wrap; gap: 8px; }
.v-card__title { word-break: normal !important; }
.v-navigation-drawer { min-width: min(400px, 92vw) !important; max-width: 92vw !important; }
.v-navigation-drawer--is-mobile { top: auto !important; bottom: 0; height: 40vh !important;
  max-height: 40vh !important; width: 100vw !important; max-width: 100vw !important;
  border-top: 2px solid #1976d2; }
.v-application > .v-overlay { display: none; }
@media (min-width: 1100px) { .plots .graph { grid-column: span 1; } }
"""


@solara.component
def Page() -> None:
    """Show one tab, with a session of its own."""
    solara.Title("ecosystem")
    solara.Style(_STYLE)
    exception, clear = solara.use_exception()
    session = solara.use_memo(_open, [])
    with solara.AppBar():
        solara.AppBarTitle("ecosystem")
        solara.lab.ThemeToggle()
    if exception is not None:
        solara.Error(f"Something on this page failed ({type(exception).__name__}: {exception}).")
        solara.Button("Go on", on_click=clear)
    elif isinstance(session, Session):
        Tab(session)
    else:
        solara.Error(session)


def _open() -> Session | str:
    """Return a new session, or what is wrong with the scenario file."""
    try:
        scenario = opening_scenario()
    except InputError as error:
        return str(error)
    except MemoryError:
        return "The scenario file does not fit into memory: give fewer outputs or providers."
    _, errors = plan(scenario, {})
    return "; ".join(f"{name}: {message}" for name, message in errors.items()) or Session(scenario)


@solara.component
def Tab(session: Session) -> None:
    """Show everything of a session."""
    base = solara.use_memo(lambda: session.planned, [])
    model = solara.use_reactive(solara.use_memo(lambda: Watched(session=session), []))
    parameters = solara.use_reactive({"session": session})
    interval, every, threads = solara.use_reactive(100), solara.use_reactive(1), solara.use_reactive(False)
    changes, set_changes = solara.use_state({})
    selected, select = solara.use_state(0)
    dark, set_dark = solara.use_state(False)
    planned, errors = solara.use_memo(lambda: plan(base, changes), [changes])
    if planned is not None:
        session.planned = planned
    solara.use_effect(lambda: session.close, [])

    def change(name: str, value: Any) -> None:
        set_changes(lambda now: {**now, name: value})

    Dark(event_dark=set_dark)
    with solara.Sidebar():
        with solara.Card("Run"):
            ModelController(
                model,
                model_parameters=parameters,
                play_interval=interval,
                render_interval=every,
                use_threads=threads,
            )
            ShowSteps(model.value)
            Status(session, model.value, planned)
            solara.SliderInt(f"pause between rounds: {interval.value} ms", interval, min=1, max=500, step=10)
            solara.SliderInt(f"rounds per picture: {every.value}", every, min=1, max=50)
        with solara.Card("Levers: act in the next round"):
            LeverPanel(session, model.value, selected, force_update)
        with solara.Card("Settings: act at the next Reset"):
            SettingsPanel(base, changes, errors, change)
    with solara.lab.Tabs(lazy=True):
        with solara.lab.Tab("Watch"):
            Watch(session, model.value, selected, select, dark)
        with solara.lab.Tab("What would it take?"):
            WhatWouldItTake(planned, dark)


@solara.component_vue("dark.vue")
def Dark(event_dark: Callable[[bool], None]) -> None:
    """Report whether the page is dark (what solara itself says about it does not follow the system)."""


@solara.component_vue("shown.vue")
def Shown(picture: int, event_shown: Callable[[int], None]) -> None:
    """Report when the browser has drawn a picture; the last component of those that draw it."""


@solara.component
def Status(session: Session, eco: Watched, planned: Scenario | None) -> None:
    """Say what there is to say about the run, and about what Reset would start."""
    update_counter.get()
    view = session.view
    if session.error:
        solara.Error(session.error)
    elif view.round >= view.config.rounds:
        solara.Info(f"All {view.config.rounds:,} rounds are done. Reset starts anew.")
    if planned is None:
        solara.Warning(
            "A setting holds an error (below): until it is corrected, "
            "Reset repeats the last settings that were right.",
            dense=True,
        )
    elif planned != session.started:
        solara.Info("The settings have changed: Reset starts a run with them.", dense=True)


@solara.component
def Watch(session: Session, eco: Watched, selected: int, select: Callable[[int], None], dark: bool) -> None:
    """Draw the graph and the live plots, anew when ``eco`` is another one, and after every round."""
    update_counter.get()
    view, n = session.view, session.view.kept.size
    selected = min(selected, n - 1)
    try:
        (graph, sampled), plots, profile = _pictures(session, view, selected, charts.Theme(dark))
    except Exception as error:  # told on the page; what it shows would otherwise be a traceback
        logger.exception("round %s", view.round)
        solara.Error(f"Round {view.round} could not be drawn ({type(error).__name__}: {error}).")
        return

    def click(data: dict[str, Any]) -> None:
        if data.get("dataType") == "node":
            select(int(data["name"]))

    Line(*_headline(view))
    with solara.Div(classes=["plots"]):
        with solara.Card("Who reads whom", classes=["graph"]):
            Figure(Opaque(graph), 500, on_click=click)
            solara.Text(
                "Node: a provider, coloured by diversity kept, sized by what it publishes. "
                "Line: they read each other (arrow: one way). " + (f"{sampled}. " if sampled else "")
            )
            solara.Select(
                "selected provider (or click on one)",
                values=[str(k) for k in range(n)],
                value=str(selected),
                on_value=lambda value: select(int(value)),
            )
            solara.Text(_provider(view, selected))
        for title, option in plots.items():
            with solara.Card(title):
                Figure(Opaque(option), 300)
        with solara.Card("Collapse profile"):
            Profile(profile)
    if view.beside_note:
        solara.Text(view.beside_note)
    Marks(view)
    Saves(session)
    Shown(picture=session.picture(), event_shown=session.shown)


def _pictures(
    session: Session, view: View, selected: int, theme: charts.Theme
) -> tuple[tuple[charts.Option, str], dict[str, charts.Option], list[Any]]:
    """Return the graph with what is to be said about it, the plots by title, and the collapse profile."""
    plots = {
        "Diversity kept, % of that of human data": charts.diversity(view, selected, theme),
        f"Provider {selected} beside human data": charts.ranks(view, selected, theme),
        f"Mass of the top {view.config.mass_k} outputs": charts.favourites(view, selected, theme),
        "Synthetic share of the corpus": charts.synthetic(view, theme),
        "Divergence between providers": charts.between(view, theme),
    }
    profile = session.profile()
    return network(view, selected, theme), plots, [] if profile is None else list(profile.itertuples())


@solara.component
def Profile(senses: list[Any]) -> None:
    """Show the eight senses of collapse, now."""
    if not senses:
        solara.Text("From the fifth recorded round on: has it collapsed, in eight senses of the word?")
        return
    cells = [("th", "sense", "collapsed?", "number")]
    cells += [("td", row.definition, "yes" if row.collapsed else "no", number(row.value)) for row in senses]
    with solara.v.Html(tag="table", class_="profile"):
        for tag, *texts in cells:
            with solara.v.Html(tag="tr"):
                for text in texts:
                    solara.v.Html(tag=tag, children=[text], class_="yes" if text == "yes" else "")
    with solara.Details("What is measured, and when the verdict is yes"):
        for row in senses:
            Line(row.definition, f": {row.number}; {row.line}.")


@solara.component
def Marks(view: View) -> None:
    """List what was done to the run, by date and by the numbers on the plots."""
    if view.marks:
        Line("Levers pulled", " (their numbers are those on the plots)")
    for place, mark in enumerate(view.marks, start=1):
        solara.Text(f"{place}. After round {mark.round}: {mark.text}.")


@solara.component
def Saves(session: Session) -> None:
    """Offer downloads, made when asked for."""
    Line(
        "Save",
        " the session as it stands. The scenario holds the levers with their dates: “ecosystem run "
        "session.toml --engine agents” and “ecosystem app --scenario session.toml” repeat it bit for bit.",
    )
    with solara.Div(classes=["saves"]):
        for name, make, label in (
            ("session.png", session.png, "Figure (PNG)"),
            ("session.csv", session.csv, "Table (CSV)"),
            ("session.parquet", session.parquet, "Table (Parquet)"),
            ("session.toml", session.toml, "Scenario (TOML)"),
        ):
            solara.FileDownload(make, filename=name, label=label)


@solara.component
def Line(bold: str, plain: str = "") -> None:
    """Show a line that begins in bold (solara's Markdown would fetch a formula renderer from the net)."""
    solara.v.Html(tag="p", children=[solara.v.Html(tag="b", children=[bold]), plain], style_="margin: 4px 0")


def _headline(view: View) -> tuple[str, str]:
    at = f"Round {view.round}" if view.round else "Before the first round"
    points, kept = view.points[-1], view.kept[view.active]
    return (
        f"{at}: {kept.mean():.0%} of human diversity kept",
        f" (from {kept.min():.0%} to {kept.max():.0%} among {kept.size} providers); "
        f"{points.synthetic:.0%} of the corpus is synthetic.",
    )


def _provider(view: View, selected: int) -> str:
    law = view.theta[selected]
    favourite = int(law.argmax())
    name = f"“{view.labels[favourite]}”" if view.labels else f"output {favourite}"
    lost = float(view.human[law == 0].sum())
    if not view.active[selected]:
        return f"Provider {selected} is not there in this round."
    return (
        f"Provider {selected} keeps {view.kept[selected]:.0%} of human diversity; its favourite is {name}, "
        f"with probability {law[favourite]:.3g} (human: {view.human[favourite]:.3g}); "
        f"{lost:.1%} of human use is lost to it."
    )
