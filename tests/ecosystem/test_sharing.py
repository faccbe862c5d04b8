import json

import networkx as nx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem import InputError, Scenario
from ecosystem.sharing import REAL_NETWORKS, TOPOLOGIES, build, weights


def w(sharing, n=None, self_weight=1.0, seed=0):
    return weights(build(sharing, n, seed), self_weight).toarray()


def test_isolated():
    np.testing.assert_array_equal(w("isolated", 3), np.eye(3))


def test_complete():
    np.testing.assert_array_equal(w("complete", 4), np.full((4, 4), 1 / 4))


def test_ring():
    third = 1 / 3
    expected = [
        [third, third, 0, 0, third],
        [third, third, third, 0, 0],
        [0, third, third, third, 0],
        [0, 0, third, third, third],
        [third, 0, 0, third, third],
    ]
    np.testing.assert_allclose(w("ring", 5), expected)
    np.testing.assert_array_equal(w("ring", 2), np.full((2, 2), 0.5))


def test_star():
    expected = [[0.25] * 4, [0.5, 0.5, 0, 0], [0.5, 0, 0.5, 0], [0.5, 0, 0, 0.5]]
    np.testing.assert_array_equal(w("star", 4), expected)


def test_communities():
    # Nine providers: three cliques of three, in a ring by the links 2-3, 5-6 and 8-0.
    expected = np.zeros((9, 9))
    for first in (0, 3, 6):
        expected[first : first + 3, first : first + 3] = 1
    for a, b in ((2, 3), (5, 6), (8, 0)):
        expected[a, b] = expected[b, a] = 1
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(w("communities", 9), expected)


def test_small_world():
    # Without the rewired links every provider reads its 3 neighbours on each side and itself.
    matrix = w("small-world", 40, seed=3)
    assert (matrix > 0).sum() == 40 * 6 + 40
    ring = [(i, (i + d) % 40) for i in range(40) for d in (1, 2, 3)]
    kept = np.mean([matrix[i, j] > 0 for i, j in ring])
    assert 0.75 < kept < 1  # 10% are rewired, 120 links: 4 standard errors are 0.11
    np.testing.assert_array_equal(matrix > 0, matrix.T > 0)


def test_scale_free():
    matrix = w("scale-free", 50, seed=3)
    degrees = (matrix > 0).sum(axis=1) - 1
    assert degrees.sum() / 2 == 2 * 48  # 48 newcomers with two links each
    assert degrees.min() >= 1
    assert degrees.max() > 8  # a hub


@pytest.mark.parametrize("name", [*TOPOLOGIES, *REAL_NETWORKS])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 20])
def test_every_size_is_row_stochastic(name, n):
    n = None if name in REAL_NETWORKS else n
    matrix = w(name, n)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert (np.diag(matrix) > 0).all()


def test_one_provider_reads_itself_whatever_the_self_weight():
    np.testing.assert_array_equal(w("complete", 1, self_weight=0.0), [[1.0]])


def test_direction_and_weight():
    graph = nx.DiGraph()
    graph.add_nodes_from("abc")
    graph.add_edge("a", "b", weight=3)  # b reads a
    graph.add_edge("c", "b")
    expected = [[1, 0, 0], [3 / 5, 1 / 5, 1 / 5], [0, 0, 1]]
    np.testing.assert_allclose(Scenario(sharing=graph).W.toarray(), expected)
    np.testing.assert_allclose(Scenario(sharing=graph, self_weight=2.0).W.toarray()[1], [3 / 6, 2 / 6, 1 / 6])


def test_self_weight_zero_reads_no_own_output():
    np.testing.assert_array_equal(np.diag(w("complete", 4, self_weight=0.0)), np.zeros(4))


@given(st.data())
def test_relabelling_providers_permutes_w(data):
    n = data.draw(st.integers(2, 7))
    edges = data.draw(
        st.dictionaries(
            st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)),
            st.floats(0.1, 5),
            min_size=1,
            max_size=12,
        )
    )
    order = data.draw(st.permutations(range(n)))
    graph = nx.DiGraph()
    graph.add_nodes_from(range(n))
    graph.add_weighted_edges_from((a, b, weight) for (a, b), weight in edges.items())
    relabelled = nx.DiGraph()
    relabelled.add_nodes_from(order)
    relabelled.add_weighted_edges_from(graph.edges.data("weight"))
    matrix, permuted = (Scenario(sharing=g).W.toarray() for g in (graph, relabelled))
    np.testing.assert_allclose(permuted, matrix[np.ix_(order, order)])


def sample_graph():
    graph = nx.DiGraph([("x", "y", {"weight": 2.0}), ("y", "z", {"weight": 0.5})])
    graph.add_node("lonely")
    return graph


@pytest.mark.parametrize("suffix", ["graphml", "gml", "json"])
def test_files_give_the_graph_back(tmp_path, suffix):
    graph, file = sample_graph(), tmp_path / f"graph.{suffix}"
    if suffix == "json":
        file.write_text(json.dumps(nx.node_link_data(graph, edges="edges")))
    else:
        getattr(nx, f"write_{suffix}")(graph, file)
    read = Scenario(sharing=f"graph:{file}")
    assert read.n_providers == 4
    np.testing.assert_allclose(read.W.toarray(), Scenario(sharing=graph).W.toarray())


def test_edge_lists(tmp_path):
    file = tmp_path / "links.edgelist"
    file.write_text("# author reader weight\n10 2\n2, 3, 4.5\n7\n")
    graph = build(f"graph:{file}", None, 0)
    assert list(graph) == ["2", "3", "7", "10"]
    assert not graph.is_directed()
    assert graph["2"]["3"]["weight"] == 4.5
    assert list(build(f"digraph:{file}", None, 0).successors("10")) == ["2"]


def test_edge_list_with_a_header(tmp_path):
    file = tmp_path / "links.csv"
    file.write_text("source,target,weight\na,b,2\n")
    assert list(build(f"digraph:{file}", None, 0).edges(data="weight")) == [("a", "b", 2.0)]


def test_edge_list_as_networkx_writes_it(tmp_path):
    file = tmp_path / "links.txt"
    nx.write_edgelist(sample_graph(), file)
    graph = build(f"digraph:{file}", None, 0)
    assert graph["x"]["y"]["weight"] == 2.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.edgelist", "a b c d\n", "line 1"),
        ("a.edgelist", "a b\na b -1\n", "already in line 1"),
        ("a.edgelist", "a c -1\n", "not an edge"),
        ("a.edgelist", "a b\nb a\n", "digraph:PATH"),
        ("a.edgelist", "", "no edges"),
        ("a.json", "{", "could not be read as json"),
        ("a.json", "{}", "could not be read as json"),
        ("a.gml", "no gml", "could not be read as gml"),
        ("a.graphml", "<graphml", "could not be read as graphml"),
        ("a.gml", 'graph [ node [ id 0 label "a" ] edge [ source 0 target 0 weight "x" ] ]', "weight 'x'"),
    ],
)
def test_bad_files_are_named(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        Scenario(sharing=f"graph:{file}")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_negative_weight_in_a_graph_object():
    with pytest.raises(InputError, match="weights are finite"):
        Scenario(sharing=nx.DiGraph([(0, 1, {"weight": -1})]))


def test_a_scenario_is_not_moved_by_later_changes_of_the_graph():
    graph = nx.path_graph(3)
    scenario = Scenario(sharing=graph)
    graph.add_edge(0, 2)
    assert scenario.W[0, 2] == 0


def test_the_graph_depends_on_the_seed_only():
    assert nx.utils.graphs_equal(build("small-world", 30, 5), build("small-world", 30, 5))
    assert not nx.utils.graphs_equal(build("small-world", 30, 5), build("small-world", 30, 6))
