"""What the scenario scripts share: their command line and the form of their answer."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import HUMAN, save_figure
from analysis.statistics import Estimate, estimate
from ecosystem import Scenario, Trajectory, run


@dataclass(frozen=True)
class Answer:
    """What a script found out.

    Attributes
    ----------
    conclusion : str
        One sentence with its numbers and their uncertainty.
    holds : bool
        Whether the numbers bear it out.
    figure : Figure
        The picture to it.
    """

    conclusion: str
    holds: bool
    figure: Figure


def command(study: Callable[[bool], Answer]) -> None:
    """Run a study as a script: ``python scenarios/NAME.py [--quick] [--out FOLDER]``.

    Saves NAME.png, prints the conclusion, and exits with status 1 if the numbers do not bear it out.
    """
    name = Path(sys.argv[0]).stem

    @click.command(name, help=sys.modules[study.__module__].__doc__)
    @click.option("--quick", is_flag=True, help="Fewer rounds and replicates.")
    @click.option("--out", type=click.Path(path_type=Path), default="results", help="Folder for the figure.")
    def script(quick: bool, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        answer = study(quick)
        save_figure(answer.figure, out / f"{name}.png")
        click.echo(f"{answer.conclusion}\nfigure: {out / name}.png")
        sys.exit(0 if answer.holds else 1)

    script()


def independent(scenario: Scenario, copies: int, **varied: list[float]) -> Trajectory:
    """Run ``copies`` models by themselves for every value of the varied settings, all in one ecosystem.

    Isolated providers never meet, so each is an independent run of one model. Provider i has value
    i // copies of every varied setting.
    """
    values = len(next(iter(varied.values()), [0.0]))
    settings = {name: np.repeat(given, copies).tolist() for name, given in varied.items()}
    return run(scenario.replace(sharing="isolated", n_providers=values * copies, **settings), progress=True)


def by_value(run: Trajectory, metric: str, copies: int) -> np.ndarray:
    """Return a metric of `independent` models, shape (values, copies, recorded rounds)."""
    table = run.table.pivot(index="provider", columns="round", values=metric)
    return table.to_numpy().reshape(-1, copies, table.shape[1])


def estimates(values: np.ndarray) -> list[Estimate]:
    """Return the mean and 95% interval over the last axis, one for each entry of the first."""
    return [estimate(row) for row in values]


def draw(axes: Axes, x: Sequence[float], values: Sequence[Estimate], **style: Any) -> None:
    """Draw means with their 95% intervals."""
    means, halves = zip(*values, strict=True)
    axes.errorbar(x, means, halves, marker="o", capsize=3, **style)


def figure(columns: int = 1) -> Figure:
    """Return an empty figure with one row of panels."""
    figure = Figure(figsize=(5.6 * columns, 4.4), layout="constrained")
    for axes in np.atleast_1d(figure.subplots(1, columns)):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


BASELINE: dict[str, Any] = {"color": HUMAN, "linestyle": "--", "linewidth": 1.2}
"""How the human baseline is drawn."""
