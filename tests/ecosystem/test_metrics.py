import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecosystem import metrics

P = np.array([0.5, 0.25, 0.25, 0.0])
H = np.array([0.25, 0.25, 0.25, 0.25])


def laws(rows=None):
    size = st.integers(2, 6)
    shape = size.map(lambda v: (v,)) if rows is None else size.map(lambda v: (rows, v))
    entries = arrays(np.float64, shape, elements=st.sampled_from([0.0, 1e-200, 0.01, 0.3, 1.0]))
    return entries.filter(lambda a: (a.sum(axis=-1) > 0).all()).map(
        lambda a: a / a.sum(axis=-1, keepdims=True)
    )


def test_by_hand():
    assert metrics.entropy(P) == pytest.approx(1.5 * np.log(2))
    assert metrics.hill(P, 0) == 3
    assert metrics.hill(P, 1) == pytest.approx(2**1.5)
    assert metrics.hill(P, 2) == pytest.approx(1 / 0.375)
    assert metrics.hill(P, 3) == pytest.approx((0.125 + 2 / 64) ** -0.5)
    assert metrics.simpson_diversity(P) == pytest.approx(0.625)
    assert metrics.top_mass(P, 1) == 0.5
    assert metrics.top_mass(P, 2) == 0.75
    assert metrics.top_mass(P, 9) == 1
    assert metrics.human_coverage(P, H) == 0.75
    assert metrics.kl_divergence(P, H) == pytest.approx(0.5 * np.log(2))
    assert metrics.kl_divergence(H, P) == np.inf
    assert metrics.total_variation(P, H) == 0.25
    bhattacharyya = np.sqrt(P * H).sum()
    assert metrics.fisher_rao(P, H) == pytest.approx(2 * np.arccos(bhattacharyya))


def test_limits_without_nan():
    a, b = np.eye(2)
    assert metrics.entropy(a) == 0
    assert metrics.kl_divergence(a, a) == 0
    assert metrics.kl_divergence(a, b) == np.inf
    assert metrics.total_variation(a, b) == 1
    assert metrics.fisher_rao(a, b) == pytest.approx(np.pi)
    assert metrics.jensen_shannon(np.eye(3)) == pytest.approx(np.log(3))
    alpha, beta, gamma = metrics.alpha_beta_gamma(np.eye(3))
    assert (alpha, beta, gamma) == pytest.approx((1, 3, 3))
    close = np.array([0.5 + 1e-12, 0.5 - 1e-12])
    assert metrics.fisher_rao(close, np.array([0.5, 0.5])) == pytest.approx(2e-12, rel=1e-3)


@given(laws(), st.randoms(use_true_random=False))
def test_relabelling_outputs_changes_nothing(p, random):
    order = list(range(p.size))
    random.shuffle(order)
    human = np.linspace(1, 2, p.size) / np.linspace(1, 2, p.size).sum()
    there = metrics.of_laws(p, human, human, 2)
    back = metrics.of_laws(p[order], human[order], human[order], 2)
    for name, value in there.items():
        assert back[name] == pytest.approx(float(value), abs=1e-12), name
        assert not np.isnan(value), name


@given(laws(rows=3))
def test_bounds_and_relations(p):
    size = p.shape[-1]
    human = np.full(size, 1 / size)
    assert (metrics.hill(p, 0) >= metrics.hill(p, 1) - 1e-9).all()
    assert (metrics.hill(p, 1) >= metrics.hill(p, 2) - 1e-9).all()
    assert (metrics.hill(p, 2) >= 1 - 1e-12).all()
    # Pinsker, and the Fisher-Rao distance against the same Hellinger affinity.
    tv, kl, distance = (
        f(p, human) for f in (metrics.total_variation, metrics.kl_divergence, metrics.fisher_rao)
    )
    assert (2 * tv**2 <= kl + 1e-12).all()
    assert (distance <= np.pi + 1e-12).all()
    alpha, beta, gamma = metrics.alpha_beta_gamma(p)
    assert 1 <= beta <= 3 + 1e-9
    assert alpha * beta == pytest.approx(gamma)
    assert np.log(beta) == pytest.approx(metrics.jensen_shannon(p), abs=1e-9)


@given(laws(rows=3), st.permutations(range(3)))
def test_relabelling_providers_changes_nothing(p, order):
    there, back = metrics.of_providers(p), metrics.of_providers(p[list(order)])
    assert back == pytest.approx(there, abs=1e-12)


def test_self_similarity_by_counting_pairs():
    items = np.array([0, 0, 0, 1, 1, 4])
    others = np.array([0, 1, 1, 2])
    pairs = [a == b for i, a in enumerate(items) for j, b in enumerate(items) if i != j]
    counts, other_counts = (np.bincount(x, minlength=5) for x in (items, others))
    assert metrics.self_similarity(counts) == pytest.approx(np.mean(pairs))
    crossed = [a == b for a in items for b in others]
    assert metrics.cross_similarity(counts, other_counts) == pytest.approx(np.mean(crossed))


def test_self_similarity_is_missing_where_there_is_no_pair():
    assert np.isnan(metrics.self_similarity(np.array([0, 1, 0])))
    assert np.isnan(metrics.cross_similarity(np.array([0, 1]), np.array([0, 0])))
