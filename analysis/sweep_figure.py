"""The figure of a sweep: diversity kept against what was varied."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.figures import COLOURS, HUMAN
from analysis.statistics import estimate
from ecosystem import Scenario

_PANELS = 6  # of the scatter


def means(table: pd.DataFrame, metric: str = "diversity_kept") -> pd.DataFrame:
    """Return a metric after the last round: a row per point, its varied settings, mean, half_width.

    Parameters
    ----------
    table : pandas.DataFrame
        As `analysis.sweep.Sweep.table`.
    metric : str
        One of its columns. The half-width is Student's 95% over replicates, NaN for a single one.
    """
    last = table[table["round"] == table.groupby(["point", "replicate"])["round"].transform("max")]
    columns = list(last.columns)
    names = columns[columns.index("replicate") + 1 : columns.index("round")]
    groups = last.groupby("point")
    points = groups[names].first()
    estimates = [estimate(rows[metric]) for _, rows in groups]
    points["mean"] = [each.mean for each in estimates]
    points["half_width"] = [each.half_width for each in estimates]
    points["replicates"] = groups.size()
    return points


def sweep_figure(table: pd.DataFrame, varied: Sequence[str], failed: int = 0) -> Figure:
    """Return the figure of a sweep: share of human diversity kept after the last round, 95% intervals.

    One or two varied settings: a line per value of the second over the first. Three: a panel per value of
    the third. More, or many values: a panel per setting, in which every point of the design is a dot.

    Parameters
    ----------
    table : pandas.DataFrame
        As `analysis.sweep.Sweep.table`.
    varied : sequence of str
        Its varied settings.
    failed : int
        Number of runs that failed, for the note.
    """
    points = means(table)
    order = sorted(varied, key=lambda name: not _measured(points[name]))  # numbers first: they make lines
    count = {name: points[name].nunique(dropna=False) for name in order}
    order = [name for name in order if count[name] > 1] or order[:1]
    lines = len(order) < 4 and all(count[name] <= 6 for name in order[1:])
    if not order:
        panels: list[tuple[str | None, pd.DataFrame]] = [(None, points)]
    elif lines:
        last = order[2] if len(order) == 3 else None
        panels = (
            [(None, points)]
            if last is None
            else [(f"{last} = {value}", points[points[last] == value]) for value in points[last].unique()]
        )
    else:
        panels = [(name, points) for name in order[:_PANELS]]
    columns = 2 if len(panels) == 4 else min(3, len(panels))
    rows = -(-len(panels) // columns)
    size = (max(7.0, 4.4 * columns), 4.4 * rows + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, part) in zip(grid, panels, strict=False):
        if lines or title is None:
            _lines(axes, part, order[:2], points)
            axes.set_title(title or "", loc="left", fontsize="medium")
        else:
            _dots(axes, part, title)
        axes.axhline(1, color=HUMAN, linestyle="--", linewidth=1.2, label="human data", zorder=1)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[::columns]:
        axes.set_ylabel("share of human diversity kept\n(effective number of outputs)")
    top = float((points["mean"] + points["half_width"].fillna(0)).replace(np.inf, np.nan).max())
    grid[0].set_ylim(0, 1.08 * max(1.0, top if np.isfinite(top) else 1.0))
    title = order[1] if lines and len(order) > 1 else None
    grid[0].legend(frameon=False, fontsize="small", title=title)
    rounds = int(table["round"].max())
    figure.suptitle(
        f"How much of the diversity of human data do the models keep? After {rounds:,} rounds",
        x=0.01,
        ha="left",
        fontsize="medium",
    )
    figure.supxlabel(
        _note(points, order, lines, failed), x=0.01, ha="left", fontsize="small", color="#555555"
    )
    return figure


def _measured(values: Any) -> bool:
    return pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values)


def _lines(axes: Axes, part: pd.DataFrame, names: Sequence[str], points: pd.DataFrame) -> None:
    """Draw means with their intervals over the first setting, a colour per value of the second."""
    groups = [(None, part)] if len(names) < 2 else list(part.groupby(names[1], sort=False, dropna=False))
    for index, ((value, rows), colour) in enumerate(zip(groups, COLOURS, strict=False)):
        shift = (index - (len(groups) - 1) / 2) * 0.08
        x, numbers = _positions(axes, rows, names[0] if names else None, points)
        order = np.argsort(x, kind="stable")
        axes.errorbar(
            (x if numbers else x + shift)[order],
            rows["mean"].to_numpy()[order],
            yerr=_bars(rows)[order],
            color=colour,
            marker="o",
            markersize=4,
            linewidth=1.8 if numbers else 0,
            elinewidth=1.4,
            capsize=3,
            label=None if value is None else str(value),
            zorder=3,
        )


def _dots(axes: Axes, part: pd.DataFrame, name: str) -> None:
    x, numbers = _positions(axes, part, name, part)
    if len(np.unique(x)) <= 6 and axes.get_xscale() == "linear":  # side by side, not on top of each other
        x = x + np.linspace(-1, 1, len(x)) * (0.03 * np.ptp(x) if numbers else 0.25)
    axes.errorbar(
        x,
        part["mean"],
        yerr=_bars(part),
        color=COLOURS[0],
        marker="o",
        markersize=3.5,
        linewidth=0,
        elinewidth=0.8,
        alpha=max(0.25, min(0.9, 60 / len(part))),
        zorder=3,
    )


def _bars(rows: pd.DataFrame) -> np.ndarray:
    return rows["half_width"].replace(np.inf, np.nan).fillna(0.0).to_numpy()


def _positions(
    axes: Axes, rows: pd.DataFrame, name: str | None, points: pd.DataFrame
) -> tuple[np.ndarray, bool]:
    """Name the horizontal axis; return where the rows stand on it, and whether it is one of numbers."""
    if name is None:
        axes.set_xticks([])
        axes.set_xlabel("the one scenario of the design")
        return np.zeros(len(rows)), False
    field = Scenario.model_fields.get(name)
    axes.set_xlabel(f"{field.description} ({name})" if field is not None and field.description else name)
    if _measured(points[name]):
        values = points[name].to_numpy(dtype=np.float64)
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (0, 0)
        if low > 0 and high >= 20 * low and np.median(finite) < high / 4:
            axes.set_xscale("log")  # the values were chosen so
        return rows[name].to_numpy(dtype=np.float64), True
    kinds = [str(value) for value in points[name].unique()]
    short = [kind if len(kind) < 25 else f"{kind[:10]}…{kind[-10:]}" for kind in kinds]
    turned = sum(map(len, short)) > 40
    axes.set_xticks(
        range(len(kinds)), short, rotation=30 if turned else 0, ha="right" if turned else "center"
    )
    axes.set_xlim(-0.5, len(kinds) - 0.5)
    return np.array([kinds.index(str(value)) for value in rows[name]], dtype=np.float64), False


def _note(points: pd.DataFrame, order: Sequence[str], lines: bool, failed: int) -> str:
    least, most = points["replicates"].min(), points["replicates"].max()
    runs = f"{least}" if least == most else f"{least} to {most}"
    bars = (
        f"bars: 95% interval of the mean over {runs} replicates" if most > 1 else "one replicate, so no bars"
    )
    text = f"{len(points):,} points of the design; {bars}"
    if not lines:
        text += "; each dot is one point, the other settings varying with it"
        if len(order) > _PANELS:
            text += f"; not drawn: {', '.join(order[_PANELS:])}"
    if failed:
        text += f"; {failed:,} failed runs left out"
    return text
