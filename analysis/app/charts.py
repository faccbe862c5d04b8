"""The live plots as options of Apache ECharts, which the browser draws; human data is the reference."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.app.session import View, numbered
from analysis.figures import COLOURS
from ecosystem.types import Floats

Option = dict[str, Any]

SELECTED, BESIDE = COLOURS[1], COLOURS[2]
_POINTS = 20_000
"""About so many points are sent for the lines of all providers; long runs are thinned."""


class Theme:
    """Colours of text and lines on a light or a dark page."""

    def __init__(self, dark: bool) -> None:
        self.text = "#e6e6e6" if dark else "#222222"
        self.faint = "#9e9e9e" if dark else "#666666"
        self.grid = "#3a3a3a" if dark else "#e4e4e4"
        self.paper = "#1e1e1e" if dark else "#ffffff"
        self.human = "#ffffff" if dark else "#111111"
        self.all = "#a6d8f5" if dark else COLOURS[0]
        self.each = COLOURS[5]


def diversity(view: View, selected: int, theme: Theme) -> Option:
    """Show the diversity of every provider over the rounds, human data at 100%."""
    points = _thinned(view)
    series = _every_provider([(p.round, 100 * p.kept) for p in points], selected, theme)
    series += _beside([(at, 100 * kept) for at, kept, _, _ in _thin(view.beside, 400)])
    return _over_rounds(_marked(series, 100, view, theme), theme, "% of human", top=None)


def favourites(view: View, selected: int, theme: Theme) -> Option:
    """Show the probability of the top k outputs over the rounds."""
    human = float(np.sort(view.human)[::-1][: view.config.mass_k].sum())
    points = _thinned(view)
    series = _every_provider([(p.round, p.top) for p in points], selected, theme)
    series += _beside([(at, top) for at, _, top, _ in _thin(view.beside, 400)])
    return _over_rounds(_marked(series, human, view, theme), theme, "probability", top=1)


def synthetic(view: View, theme: Theme) -> Option:
    """Show the synthetic share of everything ever put into the corpus."""
    series = [_line("corpus", [(p.round, 100 * p.synthetic) for p in _thin(view.points, 400)], theme.all)]
    return _over_rounds(_marked(series, None, view, theme), theme, "% of all items", top=100)


def between(view: View, theme: Theme) -> Option:
    """Show the Jensen-Shannon divergence between the providers."""
    series = [_line("this run", [(p.round, p.between) for p in _thin(view.points, 400)], theme.all)]
    series += _beside([(at, js) for at, _, _, js in _thin(view.beside, 400)])
    return _over_rounds(_marked(series, None, view, theme), theme, "nats, 0: all the same", top=None)


def ranks(view: View, selected: int, theme: Theme) -> Option:
    """Set the selected provider's distribution beside the human law, both by rank, on logarithmic axes."""
    series = [
        _line("human data", _by_rank(view.human), theme.human, dashed=True),
        _line(f"provider {selected}", _by_rank(view.theta[selected]), SELECTED),
    ]
    option = _frame(series, theme)
    lowest = min(float(law[law > 0].min()) for law in (view.human, view.theta[selected]))
    option["xAxis"] = _axis(theme, "rank of the output (1: most probable)", "middle", 26) | {
        "type": "log",
        "min": 1,
        "max": view.human.size,
    }
    option["yAxis"] = _axis(theme, "probability") | {
        "type": "log",
        "min": 10.0 ** np.floor(np.log10(max(lowest, 1e-9))),
        "max": 1,
    }
    return option


# --- parts ----------------------------------------------------------------------------------------


def _thinned(view: View) -> list[Any]:
    return _thin(view.points, max(60, min(400, _POINTS // view.kept.size)))


def _thin(values: Sequence[Any], most: int) -> list[Any]:
    """Keep about so many values, evenly, the last always."""
    step = -(-len(values) // most) if values else 1
    kept = list(values[::step])
    return kept if not values or kept[-1] is values[-1] else [*kept, values[-1]]


def _every_provider(rows: list[tuple[int, Floats]], selected: int, theme: Theme) -> list[Option]:
    """One series for all providers (lines parted by gaps), their mean, and the selected provider."""
    rounds = [at for at, _ in rows]
    wide = np.full((len(rows), max(values.size for _, values in rows)), np.nan)
    for k, (_, values) in enumerate(rows):
        wide[k, : values.size] = values
    lines: list[Any] = []
    for column in wide.T:
        lines += [*_pairs(rounds, column), [None, None]]
    each = _line("each", lines, theme.each, width=1)
    each["lineStyle"]["opacity"] = max(0.08, min(0.5, 8 / wide.shape[1]))
    each |= {"tooltip": {"show": False}, "silent": True}
    mean = _line("mean", _pairs(rounds, np.nanmean(wide, axis=1)), theme.all, width=2.5)
    if selected >= wide.shape[1]:  # joined after the last round
        return [each, mean]
    return [each, mean, _line(f"provider {selected}", _pairs(rounds, wide[:, selected]), SELECTED)]


def _pairs(rounds: Sequence[int], values: Floats) -> list[list[float | None]]:
    return [
        [at, None if np.isnan(y) else float(f"{y:.4g}")]
        for at, y in zip(rounds, values.tolist(), strict=True)
    ]


def _beside(curve: list[tuple[int, float]]) -> list[Option]:
    points = [[at, float(f"{y:.4g}")] for at, y in curve]
    return [_line("mean field", points, BESIDE, dotted=True)] if points else []


def _by_rank(law: Floats) -> list[list[float]]:
    """Probabilities in falling order, as many as a logarithmic axis can show apart."""
    falling = np.sort(law)[::-1]
    falling = falling[falling > 0]
    ranks = np.unique(np.geomspace(1, falling.size, 400).round().astype(int))
    return [[int(rank), float(f"{falling[rank - 1]:.4g}")] for rank in ranks]


def _line(
    name: str, data: list[Any], colour: str, width: float = 2, dashed: bool = False, dotted: bool = False
) -> Option:
    style = "dashed" if dashed else "dotted" if dotted else "solid"
    return {
        "name": name,
        "type": "line",
        "data": data,
        "symbol": "circle" if len(data) <= 2 else "none",
        "symbolSize": 5,
        "color": colour,
        "lineStyle": {"width": width, "color": colour, "type": style},
        "emphasis": {"disabled": True},
    }


def _marked(series: list[Option], human: float | None, view: View, theme: Theme) -> list[Option]:
    """Add the human baseline, and a line across the plot for each round after which there are marks."""
    lines = [
        {"xAxis": at, "label": {"show": bool(label), "formatter": label}}
        for at, label in numbered(view.marks, max(10, view.round) / 10).items()
    ]
    label = {
        "position": "end",
        "distance": [0, -20],  # below the upper edge
        "color": theme.text,
        "fontSize": 11,
        "lineHeight": 14,
        "backgroundColor": theme.paper,
        "borderColor": theme.faint,
        "borderWidth": 1,
        "borderRadius": 3,
        "padding": [1, 3],
    }
    style = {"type": "solid", "color": theme.faint, "width": 1}
    series[0]["markLine"] = {
        "symbol": "none",
        "silent": True,
        "animation": False,
        "lineStyle": style,
        "label": label,
        "data": lines,
    }
    if human is not None:
        end = [[0, human], [max(10, view.round), human]]
        baseline = _line("human", end, theme.human, width=1.3, dashed=True)
        series.append(baseline | {"symbol": "none", "tooltip": {"show": False}})
    return series


def _axis(theme: Theme, name: str, where: str = "end", gap: int = 14) -> Option:
    left = {"align": "left", "padding": [0, 0, 0, -34]} if where == "end" else {}
    return {
        "name": name,
        "nameLocation": where,
        "nameGap": gap,
        "nameTextStyle": {"color": theme.text, **left},
        "axisLabel": {"color": theme.text, "hideOverlap": True},
        "axisLine": {"show": True, "lineStyle": {"color": theme.faint}},
        "splitLine": {"lineStyle": {"color": theme.grid}},
    }


def _frame(series: list[Option], theme: Theme) -> Option:
    names = [one["name"] for one in series]
    return {
        "animation": False,
        "backgroundColor": "transparent",
        "textStyle": {"color": theme.text},
        "grid": {"left": 12, "right": 20, "top": 52, "bottom": 30, "containLabel": True},
        "legend": {
            "data": names,
            "top": 0,
            "left": 0,
            "type": "scroll",
            "textStyle": {"color": theme.text, "fontSize": 11},
            "pageTextStyle": {"color": theme.text},
            "itemWidth": 14,
            "itemGap": 7,
        },
        "tooltip": {"trigger": "axis", "confine": True},
        "series": series,
    }


def _over_rounds(series: list[Option], theme: Theme, what: str, top: float | None) -> Option:
    option = _frame(series, theme)
    last = max((pair[0] for one in series for pair in one["data"][-2:] if pair[0] is not None), default=0)
    option["xAxis"] = _axis(theme, "round", "middle", 26) | {
        "type": "value",
        "min": 0,
        "max": max(10, last),
        "minInterval": 1,
    }
    option["yAxis"] = _axis(theme, what) | {"type": "value", "min": 0}
    if top is not None:
        option["yAxis"]["max"] = top
    return option
