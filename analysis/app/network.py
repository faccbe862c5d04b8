"""The sharing graph as an option of Apache ECharts: who reads whom, coloured by diversity kept."""

from functools import lru_cache
from itertools import count
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
UNITS = 2.8
"""Of a layout to a pixel: of the picture, 450 pixels wide in a narrow window, ECharts uses 80%."""
COLOURS = [
    matplotlib.colors.to_hex(colour) for colour in matplotlib.colormaps["viridis"](np.linspace(0, 1, 9))
]


def network(view: View, selected: int, theme: Theme) -> tuple[Option, str]:
    """Return the graph, and what a reader must know about it (empty where all of it is drawn)."""
    base, centre = base_sample(view.graph[: view.founders, : view.founders])
    shown: Integers = np.concatenate([base, np.arange(view.founders, view.kept.size)])
    if selected < view.kept.size and selected not in shown:
        shown = np.append(shown, selected)
    where, least = _places(view, shown, base.size)
    mine = next(iter(np.flatnonzero(shown == selected).tolist()), -1)
    author, reader = _edges(view.reads, shown)
    code, mirrored = author * shown.size + reader, reader * shown.size + author
    directed = not np.isin(code, mirrored).all()
    lines: Integers = np.arange(author.size) if directed else np.flatnonzero(author < reader)
    lines = _few(lines, (author[lines] == mine) | (reader[lines] == mine))
    links = [_link(int(author[k]), int(reader[k]), mine, directed, theme) for k in lines]
    size = _sizes(view.publishes[shown], min(_diameter(shown.size), _pixels(where, least)))
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
                "borderWidth": 4 if k == mine else int(size[k] > 6),
            },
        }
        for k, provider in enumerate(shown)
    ]
    top = scale_top(view.kept[view.active])
    said = ["Faint: not there in this round"] if not view.active.all() else []
    if shown.size < view.kept.size:
        said.append(f"{shown.size} of {view.kept.size:,} providers drawn, from provider {centre} outwards")
    drawn, total = lines.size * (1 if directed else 2), _total(view.reads)
    if drawn < total:
        said.append(f"{drawn:,} of {total:,} reading links drawn" + ("" if directed else " (two to a line)"))
    return _option(nodes, links, top, shown.size, theme), "; ".join(said)


def base_sample(graph: sparse.csr_array) -> tuple[Integers, int]:
    """Return the providers to draw, whoever is selected, and the one that is read most.

    They are all of them, or those nearest to that one; where it has too few in reach, also those around the
    next that is read most.
    """
    n = graph.shape[0]
    readers = np.bincount(graph.indices, minlength=n)
    centre = int(readers.argmax())
    if n <= MOST_NODES:
        return np.arange(n), centre
    sides = graph, graph.tocsc()
    drawn: list[int] = []
    seen = np.zeros(n, dtype=bool)
    for start in np.argsort(-readers, kind="stable").tolist():
        circle = [] if seen[start] else [start]
        seen[start] = True
        for provider in circle:  # grows on the way: breadth first
            if len(drawn) + len(circle) >= MOST_NODES:
                break
            linked = [m.indices[m.indptr[provider] : m.indptr[provider + 1]] for m in sides]
            new = np.unique(np.concatenate(linked))
            new = new[~seen[new]]
            seen[new] = True
            circle += new.tolist()
        drawn += circle
        if len(drawn) >= MOST_NODES:
            break
    return np.sort(drawn[:MOST_NODES]), centre


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


def _total(w: sparse.csr_array) -> int:
    """Count the links of the whole graph, that is who reads whom other than themselves."""
    return int(np.count_nonzero(w.data > 0) - np.count_nonzero(w.diagonal() > 0))


def _few(lines: Integers, mine: Any) -> Integers:
    """Return the lines there is room for: those of the selected provider, on top of an even sample."""
    own, others = lines[mine][:MOST_EDGES], lines[~mine]
    room = min(others.size, MOST_EDGES - own.size)
    return np.concatenate([others[np.linspace(0, others.size - 1, room).astype(int)], own])


def _places(view: View, shown: Integers, n: int) -> tuple[Floats, float]:
    """Place providers by the scenario's own graph, so that a lever moves none; the first n stay as they are.

    Returns
    -------
    where
        Shape (shown, 2).
    least
        No two are closer than this.
    """
    author, reader = _edges(view.graph, shown[:n])
    where, least = _layout(n, author.tobytes(), reader.tobytes())
    author, reader = _edges(view.graph, shown)
    for k in range(n, shown.size):  # beside those it reads, on the outer side
        circle = author[(reader == k) & (author < k)]
        centre = where[circle].mean(axis=0) if circle.size else np.full(2, 500.0)
        outwards = centre - 500 if np.abs(centre - 500).max() > 1 else np.array([1.0, 0.0])
        aim = centre + 1.2 * least * outwards / np.hypot(*outwards)
        where = np.vstack([where, _free(aim, where, least)])
    return where, least


def _free(aim: Floats, taken: Floats, least: float) -> Floats:
    """Return the first place on a spiral around the aim that has room for a node."""
    for k in count():
        angle = k * np.pi * (3 - 5**0.5)
        place = aim + 0.3 * least * k**0.5 * np.array([np.cos(angle), np.sin(angle)])
        if np.hypot(*(taken - place).T).min() >= least:
            break
    return place


@lru_cache(maxsize=32)
def _layout(n: int, author: bytes, reader: bytes) -> tuple[Floats, float]:
    """Place nodes once for as long as the graph does not change.

    Returns
    -------
    where
        Shape (n, 2), from 0 to 1000.
    least
        No two are closer than this, which is at most what a node needs.
    """
    start, end = np.frombuffer(author, np.int64), np.frombuffer(reader, np.int64)
    graph: nx.Graph = nx.empty_graph(n)
    graph.add_edges_from(zip(start.tolist(), end.tolist(), strict=True))
    links = graph.number_of_edges()
    wanted = 1.15 * _diameter(n) * UNITS
    if links >= n - 1 and np.isin((end - start) % n, (1, n - 1)).all():  # a ring, or an arc of one
        place = 500 + 500 * np.array(list(nx.circular_layout(graph).values()))
    elif links == 0 or links > 0.5 * n * (n - 1) / 2:
        # Nothing to arrange by, or everything linked to everything: an even spread.
        k = np.arange(n) + 0.5
        radius, angle = np.sqrt(k / n), np.pi * (1 + 5**0.5) * k
        place = _apart(_square(np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)), wanted)
    else:
        spring = nx.spring_layout(graph, seed=1, k=2.2 / n**0.5, iterations=60)
        place = _apart(_square(np.array(list(spring.values()))), wanted)
    return place, min(wanted, float(_distances(place).min()))


def _square(place: Floats) -> Floats:
    """Stretch places to fill the square from 0 to 1000."""
    low, high = place.min(axis=0), place.max(axis=0)
    return 1000 * (place - low) / np.maximum(high - low, 1e-9)


def _distances(place: Floats) -> Floats:
    """Return all distances between two nodes; shape (n, n), infinite from a node to itself."""
    apart = np.hypot(*(place[:, None] - place).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    return apart


def _apart(place: Floats, least: float) -> Floats:
    """Push nodes that are too close from each other, within the square."""
    random = np.random.default_rng(1)
    for _ in range(max(60, 3000 // len(place))):
        apart = _distances(place)
        push = np.clip(1.05 * least - apart, 0, None) / (2 * np.maximum(apart, 1e-9))
        if apart.min() >= least:
            break
        step = place * push.sum(axis=1, keepdims=True) - push @ place
        place = np.clip(place + step + 1e-3 * random.standard_normal(place.shape), 0, 1000)
    return place


def _diameter(n: int) -> float:
    """Return the diameter of the largest of n nodes in pixels, with room for its neighbours."""
    return float(np.clip(340 / max(n, 1) ** 0.6, 9, 46))


def _pixels(where: Floats, least: float) -> float:
    """Return the least distance in pixels of the picture, a little less for the borders of nodes."""
    return 0.93 * least / UNITS * 1000 / max(1000.0, float(np.ptp(where, axis=0).max()))


def _sizes(publishes: Floats, largest: float) -> list[float]:
    """Diameters whose area goes with what is published."""
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
