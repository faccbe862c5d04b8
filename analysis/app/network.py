"""The sharing graph as an option of Apache ECharts: who reads whom, coloured by diversity kept."""

from functools import lru_cache
from typing import Any

import matplotlib
import networkx as nx
import numpy as np
from scipy import sparse

from analysis.app.charts import SELECTED, Option, Theme
from analysis.app.session import View
from ecosystem.types import Floats, Integers

MOST_NODES = 400
MOST_EDGES = 2500
"""Above these a sample is drawn, and the page says so."""
COLOURS = [
    matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, 9))
]


def network(view: View, selected: int, theme: Theme) -> tuple[Option, str]:
    """Return the graph, and what a reader must know about it (empty where all of it is drawn)."""
    shown = drawn_nodes(view.kept.size, selected)
    author, reader = _edges(view.reads, shown)
    total = author.size
    kept = np.linspace(0, total - 1, min(total, MOST_EDGES)).astype(int) if total else author
    where = _places(view, shown)
    pairs = {(int(a), int(b)) for a, b in zip(author, reader, strict=True)}
    directed = any((b, a) not in pairs for a, b in pairs)
    place = {int(provider): position for position, provider in enumerate(shown)}
    mine = place.get(selected, -1)
    links = [
        _link(int(author[k]), int(reader[k]), mine, directed, theme)
        for k in kept
        if directed or author[k] < reader[k] or (int(reader[k]), int(author[k])) not in pairs
    ]
    size = _sizes(view.publishes[shown], shown.size)
    nodes = [
        {
            "id": str(k),
            "name": str(provider),
            "x": round(float(where[k, 0]), 1),
            "y": round(float(where[k, 1]), 1),
            "value": round(100 * float(view.kept[provider]), 1),
            "symbolSize": size[k],
            "itemStyle": {
                "opacity": 1 if view.active[provider] else 0.15,
                "borderColor": SELECTED if k == mine else theme.faint,
                "borderWidth": 4 if k == mine else 1,
            },
        }
        for k, provider in enumerate(shown)
    ]
    top = scale_top(view.kept[view.active])
    said = ["Faint: not there in this round"] if not view.active.all() else []
    if shown.size < view.kept.size:
        said.append(f"{shown.size} of {view.kept.size:,} providers drawn")
    if kept.size < total:
        said.append(f"{kept.size:,} of {total:,} reading links drawn")
    return _option(nodes, links, top, shown.size, theme), "; ".join(said)


def drawn_nodes(n: int, selected: int) -> Integers:
    """Return the providers to draw: all, or an even sample that has the selected one in it."""
    if n <= MOST_NODES:
        return np.arange(n)
    sample = np.linspace(0, n - 1, MOST_NODES).astype(int)
    return np.union1d(sample, [selected])


def scale_top(kept: Floats) -> float:
    """Return the upper end of the colour scale: human diversity, or more where providers have more."""
    most = float(kept.max())
    return 1.0 if most <= 1.05 else next(top for top in (2.0, 5.0, 10.0, 100.0, np.inf) if most <= top)


def _edges(w: sparse.csr_array, shown: Integers) -> tuple[Integers, Integers]:
    """Return author and reader of every link between the providers shown, as positions among them."""
    part = sparse.coo_array(w[shown][:, shown] if shown.size < w.shape[0] else w)
    reader, author = part.coords
    other = (reader != author) & (part.data > 0)
    return author[other].astype(np.int64), reader[other].astype(np.int64)


def _places(view: View, shown: Integers) -> Floats:
    """Place providers by the scenario's own graph, so that a lever moves none; shape (shown, 2)."""
    first = shown[shown < view.founders]
    author, reader = _edges(view.graph, first)
    where = list(_layout(first.size, author.tobytes(), reader.tobytes()))
    author, reader = _edges(view.graph, shown)
    for newcomer in range(first.size, shown.size):  # beside those it reads, on the outer side
        circle = [where[k] for k in author[reader == newcomer] if k < newcomer]
        centre = np.mean(circle, axis=0) if circle else np.full(2, 500.0)
        outwards = centre - 500 if np.abs(centre - 500).max() > 1 else np.array([1.0, 0.0])
        where.append(centre + 170 * outwards / np.hypot(*outwards) + 40 * np.array([0, newcomer % 3 - 1]))
    return np.array(where)


@lru_cache(maxsize=32)
def _layout(n: int, author: bytes, reader: bytes) -> Floats:
    """Place nodes once for as long as the graph does not change; shape (n, 2), from 0 to 1000."""
    graph: nx.Graph = nx.empty_graph(n)
    graph.add_edges_from(
        zip(np.frombuffer(author, np.int64).tolist(), np.frombuffer(reader, np.int64).tolist(), strict=True)
    )
    if graph.number_of_edges() == 0 or graph.number_of_edges() > 0.5 * n * (n - 1) / 2:
        # Nothing to arrange by, or everything linked to everything: an even spread.
        k = np.arange(n) + 0.5
        radius, angle = np.sqrt(k / n), np.pi * (1 + 5**0.5) * k
        place = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    else:
        place = np.array(list(nx.spring_layout(graph, seed=1, k=2.2 / n**0.5, iterations=60).values()))
    low, high = place.min(axis=0), place.max(axis=0)
    return 1000 * (place - low) / np.maximum(high - low, 1e-9)


def _sizes(publishes: Floats, n: int) -> list[float]:
    """Diameters whose area goes with what is published; the largest has room for its neighbours."""
    largest = float(np.clip(340 / max(n, 1) ** 0.6, 9, 46))
    return [round(largest * max(0.35, float(np.sqrt(b / publishes.max()))), 1) for b in publishes]


def _link(author: int, reader: int, mine: int, directed: bool, theme: Theme) -> Option:
    read = mine in ((reader,) if directed else (reader, author))
    style = {"color": SELECTED if read else theme.faint, "opacity": 0.9 if read else 0.35}
    link: dict[str, Any] = {"source": str(author), "target": str(reader), "lineStyle": style}
    if directed:
        link |= {"symbol": ["none", "arrow"], "symbolSize": 6}
    return link


def _option(nodes: list[Any], links: list[Any], top: float, n: int, theme: Theme) -> Option:
    percent = 100 * top if np.isfinite(top) else max(node["value"] for node in nodes)
    return {
        "animation": False,
        "textStyle": {"color": theme.text},
        "tooltip": {"confine": True, "formatter": "provider {b}: {c}% of human diversity kept"},
        "visualMap": {
            "type": "continuous",
            "min": 0,
            "max": percent,
            "calculable": False,
            "orient": "horizontal",
            "left": "center",
            "bottom": 4,
            "itemWidth": 14,
            "itemHeight": 120,
            "text": [f"{percent:,.0f}%" + (": human data" if top == 1 else " (human: 100%)"), "0%"],
            "textStyle": {"color": theme.text},
            "inRange": {"color": COLOURS},
            "hoverLink": False,
        },
        "series": [
            {
                "type": "graph",
                "layout": "none",
                "left": "center",
                "top": "middle",
                "data": nodes,
                "links": links,
                "zoom": 1.0 if n > 30 else 0.95,
                "roam": True,
                "scaleLimit": {"min": 0.5, "max": 8},
                "label": {
                    "show": n <= 30,
                    "position": "inside",
                    "formatter": "{b}",
                    "color": "#ffffff",
                    "textBorderColor": "#333333",
                    "textBorderWidth": 2,
                },
                "lineStyle": {"width": 1, "curveness": 0},
                "emphasis": {"disabled": True},
                "selectedMode": False,
            }
        ],
    }
