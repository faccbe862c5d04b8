"""What one browser tab works on: the scenario at hand, the run under way, and what the plots need of it."""

import logging
import math
import os
import textwrap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.app.beside import MeanField
from analysis.collapse import collapse_profile
from analysis.figures import run_figure
from analysis.serve import SCENARIO_FILE
from ecosystem import Ecosystem, InputError, Scenario, Trajectory, metrics
from ecosystem.recording import tables
from ecosystem.types import Floats

logger = logging.getLogger(__name__)
PATIENCE = 2.0
"""Seconds that a round of Play waits for the browser; more than a hidden tab takes."""


def opening_scenario() -> Scenario:
    """Return the scenario a new tab starts from: the file the server was started with, or a small example."""
    if file := os.environ.get(SCENARIO_FILE):
        return Scenario.from_toml(file)
    return Scenario(n_providers=20, n_outputs=200, temperature=0.8, fresh_fraction=0.05, rounds=1000)


class Mark(NamedTuple):
    """A lever that was pulled: the round after which, and what it did."""

    round: int
    text: str


class Point(NamedTuple):
    """What the plots need of one recorded round; arrays have one entry per provider."""

    round: int
    kept: Floats
    """Effective number of outputs, as a share of that of human data."""
    top: Floats
    """Probability of the top k outputs."""
    simpson: float
    risk: float
    """Means over providers of 1 − ΣΘ² and of KL(human ‖ Θ), for the collapse profile."""
    between: float
    """Jensen-Shannon divergence between the providers, nats."""
    synthetic: float
    """Synthetic share of the corpus."""


@dataclass
class View:
    """The state after a round, for whoever draws: never changed, replaced by the next."""

    round: int
    config: Scenario
    theta: Floats
    kept: Floats
    active: Any
    publishes: Floats
    reads: Any
    """W as it is in force, and as the scenario's own graph has it; shape (N, N)."""
    graph: Any
    founders: int
    """Providers that were there from the beginning; those that joined have higher numbers."""
    human: Floats
    labels: tuple[str, ...] | None
    points: list[Point]
    beside: list[tuple[int, float, float, float]]
    beside_note: str
    marks: list[Mark]


class Watched(Ecosystem):
    """An ecosystem on a page: rounds and levers take turns, and every round leaves a `View` behind.

    Mesa's controller makes a new one at every reset, from the scenario that the session plans.
    """

    def __init__(self, *, session: "Session") -> None:
        self.session = session
        super().__init__(session.planned)
        session.begin(self)

    def step(self) -> None:
        """Run one round; an error ends the run and is told on the page."""
        session = self.session
        session.wait_until_shown()
        with session.lock:
            if session.closed or session.eco is not self or not self.running:
                self.running = False  # a play left behind by a closed tab or by a reset
                return
            try:
                super().step()
            except Exception as error:
                if not isinstance(error, InputError):
                    logger.exception("round %s", self.round)
                session.error = f"The run stopped in round {self.round}: {error or type(error).__name__}"
                self.running = False
                return
            session.note()


def _dates(scenario: Scenario) -> list[Mark]:
    """Return the marks of the scenario's own interventions, by date."""
    marks = []
    for rule in scenario.interventions:
        name = rule.name or rule.kind
        marks.append(Mark(rule.start - 1, f"{name}, as the scenario says"))
        if rule.end is not None:
            marks.append(Mark(rule.end, f"end of {name}, as the scenario says"))
    return sorted(marks)


def numbered(marks: Sequence[Mark], room: float) -> dict[int, str]:
    """Return the label of each marked round: the numbers of its marks, which count from 1.

    Rounds nearer than ``room`` to the one labelled last leave their numbers to it; their own label is empty.
    """
    numbers: dict[int, list[int]] = {}
    last = -math.inf
    for number, mark in enumerate(marks, start=1):
        if mark.round - last >= room:
            last = mark.round
        numbers.setdefault(mark.round, [])
        numbers[int(last)].append(number)
    return {
        at: f"{some[0]}–{some[-1]}" if len(some) > 2 else ", ".join(map(str, some))
        for at, some in numbers.items()
    }


@dataclass
class Session:
    """One tab: its scenario, its run, its marks. Two tabs share nothing.

    Attributes
    ----------
    planned : Scenario
        What the next reset starts.
    lock : threading.RLock
        Held during a round and while a lever is pulled: Play runs in a thread of its own.
    """

    planned: Scenario
    eco: Watched = field(init=False)
    view: View = field(init=False)
    error: str = ""
    closed: bool = False
    lock: Any = field(default_factory=threading.RLock)
    seen: threading.Event = field(default_factory=threading.Event)
    pictures: int = 0
    listener: int = 0
    started: Scenario = field(init=False)
    points: list[Point] = field(init=False)
    marks: list[Mark] = field(init=False)
    dated: list[Mark] = field(init=False)
    levers: dict[str, Any] = field(init=False)
    beside: MeanField = field(init=False)

    def __post_init__(self) -> None:
        self.seen.set()

    def begin(self, eco: Watched) -> None:
        """Take a new ecosystem under watch."""
        with self.lock:
            self.eco = eco
            self.started = self.planned
            self.error = ""
            self.points = []
            self.marks = []
            self.levers = {}
            self.dated = _dates(eco.config)
            self.beside = MeanField(eco)
            self.note()

    def close(self) -> None:
        """Stop whatever still plays: the tab is gone."""
        self.closed = True
        self.seen.set()

    def picture(self) -> int:
        """Return a number for the picture that is about to be sent to the browser."""
        self.pictures += 1
        if self.listener:
            self.seen.clear()
        return self.pictures

    def shown(self, picture: int) -> None:
        """Take note that the browser has drawn a picture."""
        self.listener = threading.get_ident()
        if picture >= self.pictures:
            self.seen.set()

    def wait_until_shown(self) -> None:
        """Let Play wait for a browser that is slower than the run, or it would fall ever further behind.

        The thread that hears from the browser must not wait for it (it steps when Step is pressed).
        """
        if threading.get_ident() != self.listener and not self.seen.wait(PATIENCE):
            self.seen.set()

    def note(self) -> None:
        """Keep what the plots need of the round just done."""
        eco = self.eco
        human = float(metrics.hill(eco.human, 1))
        self.beside.follow(eco)
        by_provider, of_all = eco.measured.providers, eco.measured.population
        if eco.round % eco.config.record_every == 0 or not eco.running:
            # Who is not there has missing values.
            self.points.append(
                Point(
                    eco.round,
                    (by_provider["hill_1"] / human).astype(np.float32),
                    by_provider["top_k_mass"].astype(np.float32),
                    float(np.nanmean(by_provider["simpson_diversity"])),
                    float(np.nanmean(by_provider["kl_from_human"])),
                    of_all["jensen_shannon"],
                    of_all["synthetic_share"],
                )
            )
        self.look()

    def look(self) -> None:
        """Renew the view: after a round, and after a lever."""
        eco = self.eco
        theta = eco.distributions
        self.view = View(
            round=eco.round,
            config=eco.config,
            theta=theta,
            kept=metrics.hill(theta, 1) / float(metrics.hill(eco.human, 1)),
            active=eco.rules.active,
            publishes=eco.rules.outputs_per_round.astype(np.float64),
            reads=eco.rules.W,
            graph=eco.sharing,
            founders=int(self.started.n_providers or 0),
            human=eco.human,
            labels=eco.labels,
            points=list(self.points),
            beside=list(self.beside.curve),
            beside_note=self.beside.note,
            marks=sorted(
                [mark for mark in self.dated if mark.round <= eco.round] + self.marks,
                key=lambda mark: mark.round,
            ),
        )

    def pull(self, act: Callable[[Watched], object], text: str) -> str:
        """Pull a lever between two rounds and date it; return what is wrong, or an empty text."""
        with self.lock:
            if not self.eco.running:
                return "The run is over: no round is left for a lever to act in."
            try:
                act(self.eco)
            except InputError as error:
                return str(error)
            self.marks.append(Mark(self.eco.round, text))
            self.look()
        return ""

    # --- what is derived when asked for ---------------------------------------------------------------

    def profile(self) -> pd.DataFrame | None:
        """Return the collapse profile of the run so far; None before the fifth recorded round."""
        points, view = self.view.points, self.view
        if len(points) < 5:
            return None
        human = float(metrics.hill(view.human, 1))
        # The definitions go by means over providers: one row a round is enough.
        table = pd.DataFrame(
            {
                "replicate": 0,
                "round": [point.round for point in points],
                "provider": 0,
                "hill_1": [float(np.nanmean(point.kept)) * human for point in points],
                "simpson_diversity": [point.simpson for point in points],
                "kl_from_human": [point.risk for point in points],
            }
        )
        final, done = view.theta[None], {"rounds_done": [view.round]}
        return collapse_profile(
            Trajectory(view.config, table, table[["replicate", "round"]], final, view.human, None, done)
        )

    def trajectory(self) -> Trajectory:
        """Return the run so far as `ecosystem.run` would return it, of the scenario that `toml` saves."""
        with self.lock:
            eco = self.eco
            table, population = tables(eco, 0)
            return Trajectory(
                scenario=self.saved(),
                table=table,
                population=population,
                final=eco.distributions[None],
                human=eco.human,
                labels=eco.labels,
                provenance={"rounds_done": [eco.round], "replicates": 1, "complete": True},
            )

    def saved(self) -> Scenario:
        """Return the scenario of the session, levers and their dates included, up to this round."""
        with self.lock:
            return self.eco.config.replace(rounds=max(1, self.eco.round))

    def toml(self) -> str:
        """Return the scenario of `saved` as TOML."""
        return self.saved().to_toml()

    def csv(self) -> str:
        """Return the table of the run, a row per round and provider, as CSV."""
        with self.lock:
            return tables(self.eco, 0)[0].to_csv(index=False)

    def parquet(self) -> bytes:
        """Return the table of the run as Parquet."""
        buffer = BytesIO()
        with self.lock:
            tables(self.eco, 0)[0].to_parquet(buffer, index=False)
        return buffer.getvalue()

    def png(self) -> bytes:
        """Return the figure of the run so far as PNG, with the marks numbered and explained underneath."""
        figure, marks = run_figure({"this session": self.trajectory()}), self.view.marks
        for axes in figure.axes:
            if axes.get_xlabel() != "round":
                continue
            for at, label in numbered(marks, np.ptp(axes.get_xlim()) / 12).items():
                axes.axvline(at, color="#666666", linewidth=0.8)
                if label:
                    axes.annotate(
                        label,
                        (at, 0.98),
                        xycoords=("data", "axes fraction"),
                        ha="center",
                        va="top",
                        fontsize="x-small",
                        color="#333333",
                        bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "#bbbbbb"},
                    )
        if marks:
            key = "; ".join(f"{k}: {mark.text} (after round {mark.round})" for k, mark in enumerate(marks, 1))
            lines = [figure.get_supxlabel(), *textwrap.wrap(f"Levers pulled: {key}.", 215)]
            figure.set_figheight(figure.get_figheight() + 0.17 * len(lines))
            figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize="small", color="#555555")
        buffer = BytesIO()
        figure.savefig(buffer, format="png", dpi=110)
        return buffer.getvalue()
