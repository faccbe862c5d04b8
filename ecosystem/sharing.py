"""Who reads whom: a networkx graph turned into the row-stochastic matrix W.

An edge j → i says that provider i reads provider j; an undirected edge goes both ways. With A_ij the
weight of the edge j → i,

    W = A + self_weight · I, every row divided by its sum,

so W_ij is the share of provider i's synthetic data that provider j wrote. A single provider has W = [1].
"""

import ast
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
from scipy import sparse

from ecosystem.errors import InputError
from ecosystem.human import existing_file
from ecosystem.randomness import Decision, Streams

Node = int | str


@dataclass(frozen=True)
class EdgeList:
    """A sharing graph as a value: what a scenario stores, compares and writes to TOML.

    Attributes
    ----------
    directed : bool
        Whether an edge (author, reader, weight) goes one way only.
    nodes : tuple of int or str
        The providers in their order.
    edges : tuple of (author, reader, weight)
        Parallel edges are added up.
    """

    directed: bool
    nodes: tuple[Node, ...]
    edges: tuple[tuple[Node, Node, float], ...]

    @classmethod
    def of(cls, graph: nx.Graph) -> "EdgeList":
        """Take a snapshot of a networkx graph; raise `InputError` for a weight that is none."""
        name = {node: node if isinstance(node, int | str) else str(node) for node in graph.nodes}
        if len(set(name.values())) < len(name):
            raise InputError("two nodes of the graph have the same name; give every node a name of its own")
        edges = tuple(
            (name[author], name[reader], _weight(attributes.get("weight", 1.0), author, reader))
            for author, reader, attributes in graph.edges(data=True)
        )
        return cls(graph.is_directed(), tuple(name.values()), edges)

    def graph(self) -> nx.Graph:
        """Return a networkx Graph or DiGraph with the attribute ``weight`` on every edge."""
        graph: nx.Graph = nx.DiGraph() if self.directed else nx.Graph()
        graph.add_nodes_from(self.nodes)
        for author, reader, weight in self.edges:
            for node in (author, reader):
                if node not in graph:
                    raise InputError(f"the edge {author} → {reader} names {node!r}, which is not in nodes")
            weight = _weight(weight, author, reader)
            if graph.has_edge(author, reader):
                weight += graph[author][reader]["weight"]
            graph.add_edge(author, reader, weight=weight)
        return graph


def _weight(value: Any, author: Node, reader: Node) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = float("nan")
    if not 0 <= weight < float("inf"):
        raise InputError(f"the edge {author} → {reader} has weight {value!r}: weights are finite and ≥ 0")
    return weight


# --- named graphs ---------------------------------------------------------------------------------


def _communities(n: int, random: np.random.Generator) -> nx.Graph:
    """Cliques of about √n providers, each joined to the next by one link, in a ring."""
    groups = np.array_split(np.arange(n), max(1, round(n**0.5)))
    graph: nx.Graph = nx.compose_all([nx.complete_graph(group.tolist()) for group in groups])
    if len(groups) > 1:
        following = groups[1:] + groups[:1]
        graph.add_edges_from((int(a[-1]), int(b[0])) for a, b in zip(groups, following, strict=True))
    return graph


def _small_world(n: int, random: np.random.Generator) -> nx.Graph:
    """Watts and Strogatz (1998): 6 nearest neighbours on a ring, each link rewired with probability 0.1."""
    return nx.watts_strogatz_graph(n, max(2, min(6, (n - 1) // 2 * 2)), 0.1, seed=random)


def _scale_free(n: int, random: np.random.Generator) -> nx.Graph:
    """Barabási and Albert (1999): every newcomer links to 2 providers, in proportion to their links."""
    return nx.barabasi_albert_graph(n, min(2, n - 1), seed=random)


TOPOLOGIES: dict[str, Callable[[int, np.random.Generator], nx.Graph]] = {
    "isolated": lambda n, random: nx.empty_graph(n),
    "complete": lambda n, random: nx.complete_graph(n),
    "ring": lambda n, random: nx.cycle_graph(n),
    "star": lambda n, random: nx.star_graph(n - 1),
    "small-world": _small_world,
    "scale-free": _scale_free,
    "communities": _communities,
}
"""Named graphs of any size; only small-world and scale-free are random, from the scenario's seed."""

REAL_NETWORKS: dict[str, Callable[[], nx.Graph]] = {
    "karate-club": nx.karate_club_graph,
    "les-miserables": nx.les_miserables_graph,
    "florentine-families": nx.florentine_families_graph,
}
"""Observed networks that networkx ships (34, 77 and 15 nodes), with their weights."""

ALLOWED = (
    ", ".join(f'"{name}"' for name in (*TOPOLOGIES, *REAL_NETWORKS))
    + ', "graph:PATH" (GraphML, GML, node-link JSON, or an edge list read as undirected), '
    '"digraph:PATH" (an edge list of author and reader), or a networkx graph'
)


def build(sharing: str | EdgeList, n_providers: int | None, seed: int) -> nx.Graph:
    """Return the sharing graph that a scenario names, its nodes in provider order.

    Parameters
    ----------
    sharing : str or EdgeList
        A name in `TOPOLOGIES` or `REAL_NETWORKS`, "graph:PATH", "digraph:PATH" or an edge list.
    n_providers : int, optional
        Number of nodes; by default the graph's own, and 10 for a named topology.
    seed : int
        Seed of the scenario: the same graph for every replicate.

    Raises
    ------
    InputError
        If the graph is unknown, unreadable, or has another number of nodes.
    """
    if isinstance(sharing, str) and sharing in TOPOLOGIES:
        n = n_providers or 10
        if n == 1:
            return nx.empty_graph(1)
        return TOPOLOGIES[sharing](n, Streams(seed).generator(Decision.SHARING))
    if isinstance(sharing, EdgeList):
        graph, given = sharing.graph(), "the sharing graph"
    else:
        graph, given = _named_or_read(sharing), repr(sharing)
    if n_providers is not None and n_providers != len(graph):
        raise InputError(
            f"{given} has {len(graph)} nodes but n_providers = {n_providers}: "
            f"write n_providers = {len(graph)}, or leave it out"
        )
    if len(graph) == 0:
        raise InputError(f"{given} has no nodes; give at least one provider")
    return graph


def reading(graph: nx.Graph, self_weight: float = 1.0) -> sparse.csr_array:
    """Return A + self_weight · I, shape (N, N), rows in node order, not yet divided by their sums.

    Parameters
    ----------
    graph : networkx graph
        Edge j → i with weight: provider i reads provider j.
    self_weight : float
        Weight of a provider's own outputs, ≥ 0; of a single provider 1.

    Returns
    -------
    scipy.sparse.csr_array
        Column indices sorted; entries of weight 0 are left out.
    """
    n = len(graph)
    if n == 1:
        return sparse.csr_array(np.ones((1, 1)))
    adjacency = sparse.csr_array(nx.to_scipy_sparse_array(graph, dtype=np.dtype(np.float64)).T)
    total = sparse.csr_array(adjacency + self_weight * sparse.eye_array(n))
    total.eliminate_zeros()
    total.sort_indices()
    return total


def weights(graph: nx.Graph, self_weight: float = 1.0) -> sparse.csr_array:
    """Return W, shape (N, N): `reading` with every row divided by its sum.

    With self_weight = 0, the row of a provider that reads no one is 0.
    """
    return normalised(reading(graph, self_weight))


def normalised(weights: sparse.csr_array) -> sparse.csr_array:
    """Divide every row of weights by its sum, in place, entries of weight 0 left out; return them."""
    weights.eliminate_zeros()
    row_sums = np.asarray(weights.sum(axis=1)).ravel()
    weights.data /= np.repeat(row_sums, np.diff(weights.indptr))
    return weights


def own_if_nobody(weights: sparse.csr_array) -> sparse.csr_array:
    """Let every provider with an empty row read its own outputs; the same matrix if there is none."""
    empty = np.diff(weights.indptr) == 0
    if not empty.any():
        return weights
    filled = sparse.csr_array(weights + sparse.diags_array(empty.astype(np.float64)))
    filled.eliminate_zeros()
    filled.sort_indices()
    return filled


# --- graphs in files ------------------------------------------------------------------------------


def _named_or_read(sharing: str) -> nx.Graph:
    if sharing in REAL_NETWORKS:
        return EdgeList.of(REAL_NETWORKS[sharing]()).graph()
    kind, _, path = sharing.partition(":")
    if kind not in ("graph", "digraph") or not path:
        raise InputError(f"{sharing!r} is not a sharing graph; allowed: {ALLOWED}")
    file = existing_file(path)
    try:
        match file.suffix.lower():
            case ".graphml":
                graph = nx.read_graphml(file)
            case ".gml":
                graph = nx.read_gml(file)
            case ".json":
                data = json.loads(file.read_text(encoding="utf-8"))
                graph = nx.node_link_graph(data, edges="links" if "links" in data else "edges")
            case _:
                return _read_edge_list(file, directed=kind == "digraph")
    except InputError:
        raise
    except Exception as error:  # every reader of networkx has errors of its own
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} could not be read as {file.suffix[1:]}: {reason}") from None
    return EdgeList.of(graph).graph()


_HEADERS = {("source", "target"), ("author", "reader"), ("from", "to")}


def _read_edge_list(file: Path, directed: bool) -> nx.Graph:
    """Read lines "author reader [weight]", by blanks or commas; a line with one name is a lone provider."""
    nodes: dict[str, None] = {}
    edges: list[tuple[str, str, float]] = []
    given_in: dict[tuple[str, str], int] = {}
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 (byte {error.start}); give an edge list as text") from None
    for number, line in enumerate(lines, start=1):
        match re.split(r"[\s,]+", line.partition("#")[0].strip(), maxsplit=2):
            case [""]:
                continue
            case [author, reader, *_] if number == 1 and (author.lower(), reader.lower()) in _HEADERS:
                continue
            case [node]:
                nodes[node] = None
                continue
            case [author, reader]:
                weight: Any = 1.0
            case [author, reader, weight]:
                pass
        pair = (author, reader) if directed else (min(author, reader), max(author, reader))
        if pair in given_in:
            raise InputError(
                f"{file}, line {number}: the edge {author} {reader} was already in line {given_in[pair]}"
                + ("" if directed else "; if edges go one way only, write digraph:PATH")
            )
        given_in[pair] = number
        try:
            if str(weight).startswith("{"):  # as networkx writes it
                weight = ast.literal_eval(weight).get("weight", 1.0)
            edges.append((author, reader, _weight(weight, author, reader)))
        except (InputError, ValueError, SyntaxError, AttributeError):
            raise InputError(
                f"{file}, line {number}: {line.strip()!r} is not an edge; write: author reader [weight ≥ 0]"
            ) from None
        nodes |= {author: None, reader: None}
    if not nodes:
        raise InputError(f"{file} holds no edges; write one a line: author reader [weight]")
    if all(node.isdecimal() for node in nodes):
        nodes = dict.fromkeys(sorted(nodes, key=int))
    return EdgeList(directed, tuple(nodes), tuple(edges)).graph()
