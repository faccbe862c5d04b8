"""The spectral threshold against the mean field itself, closed forms and limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.theory.meanfield import Population
from analysis.theory.populations import feedback, perron_groups, spectral_threshold
from ecosystem import InputError, Scenario


def random_sharing(n, random, density=0.5):
    w = random.random((n, n)) * (random.random((n, n)) < density)
    w += np.diag(random.random(n))
    return w / w.sum(axis=1, keepdims=True)


def uniform(w, temperature, fresh_fraction, n_outputs=3):
    return Population(w, temperature, fresh_fraction, np.full(n_outputs, 1 / n_outputs))


def growth(population, clock=1.0):
    """Growth per round of a tiny random difference, from the mean field itself."""
    n, v = len(population.temperature), population.human.size
    shift = np.random.default_rng(0).standard_normal((n, v))
    shift -= shift.mean(axis=1, keepdims=True)
    size, rates = 1e-7, []
    for _ in range(400):
        shift *= size / np.abs(shift).max()
        theta = population.human + shift
        moved = (1 - clock) * theta + clock * population.target(theta)
        new = moved - population.human
        rates.append(np.abs(new).max() / size)
        shift = new - new.mean(axis=1, keepdims=True)
    return np.exp(np.mean(np.log(rates[100:])))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_radius_is_the_growth_of_small_differences(seed):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 6))
    w = random_sharing(n, random) + 0.05
    w /= w.sum(axis=1, keepdims=True)
    population = uniform(w, random.uniform(0.3, 3, n), random.random(n))
    assert growth(population) == pytest.approx(spectral_threshold(population).radius, rel=2e-3)


@pytest.mark.parametrize("shift", [-0.01, 0.01])
def test_the_threshold_does_not_depend_on_clocks(shift):
    random = np.random.default_rng(4)
    w, temperature = random_sharing(5, random) * 0.8 + 0.04, random.uniform(0.5, 1.2, 5)
    least = spectral_threshold(uniform(w, temperature, 0.0)).least_fresh_fraction
    assert 0.05 < least < 0.95
    population = uniform(w, temperature, least + shift)
    assert spectral_threshold(population).stable == (shift > 0)
    for clock in (1.0, 0.1, np.array([1.0, 0.5, 0.1, 0.7, 0.3])[:, None]):
        assert (growth(population, clock) < 1) == (shift > 0)


@pytest.mark.parametrize("sharing", ["ring", "star", "small-world", "scale-free", "communities", "isolated"])
def test_with_one_temperature_the_graph_does_not_matter(sharing):
    for n in (8, 1000):  # whole matrices, and sparse ones
        s = Scenario(human="uniform", n_outputs=5, n_providers=n, sharing=sharing, temperature=0.7,
                     fresh_fraction=0.2)  # fmt: skip
        threshold = spectral_threshold(s)
        assert threshold.radius == pytest.approx(0.8 / 0.7, abs=1e-9)
        assert threshold.least_fresh_fraction == pytest.approx(0.3, abs=1e-9)
        assert not threshold.stable


def test_sparse_agrees_with_whole():
    random = np.random.default_rng(2)
    for sharing in ("ring", "scale-free", "communities"):
        s = Scenario(human="uniform", n_outputs=5, n_providers=700, sharing=sharing,
                     temperature=random.uniform(0.5, 1.5, 700),
                     fresh_fraction=random.random(700))  # fmt: skip
        m = feedback(Population.of(s), s.per_provider("fresh_fraction")).toarray()
        assert spectral_threshold(s).radius == pytest.approx(np.linalg.eigvals(m).real.max(), rel=1e-9)


def test_groups_that_read_each_other_one_way_have_their_own_radius():
    # 0 and 1 read each other; 2 reads 1 and itself; 3 reads only others.
    w = [[0.5, 0.5, 0, 0], [0.25, 0.75, 0, 0], [0, 0.4, 0.6, 0], [0.5, 0, 0.5, 0]]
    groups = perron_groups(uniform(w, [0.5, 0.5, 0.25, 0.1], 0.0), np.zeros(4))
    radius = {tuple(group.members): group.radius for group in groups}
    assert radius == pytest.approx({(0, 1): 2.0, (2,): 2.4, (3,): 0.0})
    for group in groups:
        assert group.left @ group.right == pytest.approx(1)


def test_limits():
    ring = np.roll(np.eye(3), 1, axis=1)  # everyone reads the next only
    assert spectral_threshold(uniform(ring, [np.inf, 0.1, 0.1], 0.0)).radius == 0
    assert spectral_threshold(uniform(ring, 0.5, 0.0)).radius == pytest.approx(2)
    frozen = spectral_threshold(uniform(ring, [0.0, 1, 1], 0.5))
    assert (frozen.radius, frozen.stable, frozen.least_fresh_fraction) == (np.inf, False, 1.0)
    assert spectral_threshold(uniform(ring, [0.0, 1, 1], [0, 0, 1])).stable  # 0 is read by 2 only
    assert spectral_threshold(uniform(ring, 0.5, 1.0)).radius == 0
    assert spectral_threshold(uniform(np.eye(2), 0.5, 0.0, n_outputs=1)).stable
    lone = spectral_threshold(uniform([[1.0, 0], [0, 0]], 0.8, [0, 1]))
    assert lone.radius == pytest.approx(1.25)
    marginal = spectral_threshold(uniform(np.eye(2), 0.8, 0.2))
    assert not marginal.stable
    assert marginal.radius == pytest.approx(1)


def test_errors_say_what_to_use_instead():
    with pytest.raises(InputError, match="population_minimum_fresh_fraction"):
        spectral_threshold(Scenario(human="zipf"))
    with pytest.raises(InputError, match="top_k and top_p"):
        spectral_threshold(Scenario(human="uniform", top_k=5))
