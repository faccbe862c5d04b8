"""Modes of agreement: counted exactly, and where they lead."""

import networkx as nx
import numpy as np
import pytest

from analysis.theory.agreement import agreement_modes, together_or_apart
from analysis.theory.meanfield import Population
from ecosystem import InputError, Scenario


def scenario(graph, temperature=0.9, fresh_fraction=0.05, n_outputs=10):
    graph = nx.convert_node_labels_to_integers(graph)
    return Scenario(human="uniform", n_outputs=n_outputs, sharing=graph, temperature=temperature,
                    fresh_fraction=fresh_fraction)  # fmt: skip


@pytest.mark.parametrize(
    "graph",
    [
        nx.cycle_graph(500),
        nx.hypercube_graph(9),  # eigenvalues repeated up to 126 times
        nx.disjoint_union_all([nx.cycle_graph(120)] * 3),
        nx.cycle_graph(400, create_using=nx.DiGraph),  # complex eigenvalues
        nx.empty_graph(60),
        nx.complete_graph(7),
    ],
)
@pytest.mark.parametrize("temperature", [0.6, 0.799, 0.93])
def test_a_mode_of_w_grows_iff_it_beats_the_temperature(graph, temperature):
    s = scenario(graph, temperature)
    modes = agreement_modes(s)
    expected = 0.95 * np.linalg.eigvals(s.W.toarray()).real > temperature * (1 + 1e-9)
    assert modes.growing == expected.sum()
    values = modes.table["eigenvalue_real"] + 1j * modes.table["eigenvalue_imag"]
    moved = 0.95 / temperature * (s.W @ modes.vectors)
    np.testing.assert_allclose(moved, modes.vectors * values.to_numpy(), atol=1e-9)


def test_a_large_sparse_population():
    # A torus of 48 × 48: all eigenvalues are known.
    s = scenario(nx.grid_2d_graph(48, 48, periodic=True), temperature=0.8)
    wave = np.cos(2 * np.pi * np.arange(48) / 48)
    known = np.sort((1 + 2 * wave[:, None] + 2 * wave).ravel() / 5 * 0.95 / 0.8)[::-1]
    modes = agreement_modes(s, 5)
    np.testing.assert_allclose(modes.table["eigenvalue_real"][:5], known[:5], atol=1e-9)
    assert modes.table["agreement"][0] == pytest.approx(1)
    assert modes.table["agreement"][1:5].max() < 1e-9


def test_different_temperatures():
    random = np.random.default_rng(0)
    temperature, fresh = random.uniform(0.5, 1, 40), random.uniform(0, 0.3, 40)
    s = Scenario(human="uniform", n_outputs=3, sharing="small-world", temperature=temperature,
                 fresh_fraction=fresh)  # fmt: skip
    m = (1 - fresh)[:, None] * s.W.toarray() / temperature
    modes = agreement_modes(s, 40)
    np.testing.assert_allclose(
        modes.table["eigenvalue_real"], np.sort(np.linalg.eigvals(m).real)[::-1], atol=1e-9
    )
    assert modes.growing == (np.linalg.eigvals(m).real > 1).sum() > 1


def communities(link):
    graph = nx.disjoint_union(nx.complete_graph(5), nx.complete_graph(5))
    graph.add_edge(0, 5, weight=link)
    graph.add_edge(1, 6, weight=link)
    return scenario(graph)


def test_fewer_links_fewer_agreements():
    # Disagreement between two communities grows only below a link weight; above it all end together.
    growing, apart = [], []
    for link in (2.0, 1.0, 0.1, 0.03, 0.0):
        s = communities(link)
        growing.append(agreement_modes(s).growing)
        ends = together_or_apart(s, starts=12, size=0.1, seed=1)
        assert ends["settled"].all()
        assert (ends["outcome"] != "diverse").all()
        apart.append((ends["outcome"] == "apart").sum())
    assert growing == [1, 1, 2, 2, 2]
    assert apart[0] == apart[1] == 0
    assert min(apart[2:]) > 0
    # Unlinked, the two choose alike once in ten: 12 times of 12 has chance 0.28, fewer than 7 one of 1e-4.
    assert apart[-1] >= 7


def test_the_fastest_mode_leads_from_small_differences():
    s = communities(0.1)
    assert agreement_modes(s).growing == 2
    tiny, large = (together_or_apart(s, 12, size)["outcome"].tolist().count("apart") for size in (1e-7, 0.5))
    assert tiny == 0
    assert large > 3


def test_above_the_threshold_nothing_collapses():
    ends = together_or_apart(communities(1.0).replace(fresh_fraction=0.11), starts=3)
    assert ends["outcome"].tolist() == ["diverse"] * 3
    assert agreement_modes(communities(1.0).replace(fresh_fraction=0.11)).growing == 0


def test_errors():
    with pytest.raises(InputError, match="temperature = 0"):
        agreement_modes(Population(np.eye(2), 0.0, 0.0, [0.5, 0.5]))
    with pytest.raises(InputError, match="not uniform"):
        agreement_modes(Scenario(human="zipf"))
