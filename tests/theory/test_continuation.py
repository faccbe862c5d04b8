"""The least fresh fraction against the mean field's own dynamics."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.theory.continuation import healthy_state, population_minimum_fresh_fraction
from analysis.theory.linearised import Linearised
from analysis.theory.meanfield import Population, mean_field_distributions
from analysis.theory.populations import spectral_threshold
from ecosystem import InputError, Scenario, metrics


def random_population(random, hottest):
    n, v = int(random.integers(1, 6)), int(random.integers(2, 9))
    w = random.random((n, n)) * (random.random((n, n)) < 0.5) + np.diag(random.random(n))
    human = random.dirichlet(np.full(v, random.choice([0.5, 5.0, 100.0])))
    return Population(w / w.sum(axis=1, keepdims=True), random.uniform(0.2, hottest, n), 0.0, human)


def followed(population, fresh_fraction):
    """Where the recursion with a = 1/2 ends, from the human law: no Newton, no continuation."""
    population = replace(population, fresh_fraction=fresh_fraction)
    theta = np.tile(population.human, (len(population.temperature), 1))
    for _ in range(200_000):
        move = population.target(theta) - theta
        theta = theta + move / 2
        if np.abs(move).max() < 1e-12:
            return theta
    raise AssertionError("not settled")


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 100_000), hottest=st.sampled_from([1.0, 1.8]), over=st.sampled_from(["worst", "mean"])
)
def test_just_above_diversity_is_kept_and_just_below_it_is_not(seed, hottest, over):
    random = np.random.default_rng(seed)
    population, keep = random_population(random, hottest), random.uniform(0.2, 0.95)
    least = population_minimum_fresh_fraction(population, keep, over=over)

    def keeps(fresh_fraction):
        shares = metrics.hill(followed(population, fresh_fraction), 1) / metrics.hill(population.human, 1)
        return (shares.min() if over == "worst" else shares.mean()) >= keep - 1e-9

    assert keeps(min(1.0, least.value + 1e-5))
    assert least.value == 0 or not keeps(max(0.0, least.value - 1e-5))
    for fresh_fraction in np.linspace(0, 1, 6):
        if fresh_fraction > least.value + 1e-5:
            assert keeps(fresh_fraction)
        elif fresh_fraction < least.value - 1e-5 and hottest == 1.0:
            # Hot providers among cold ones can keep enough again further down: it is not looked for.
            assert not keeps(fresh_fraction)
    assert least.value - 1e-12 <= least.fresh_fraction <= least.value + 1e-3
    assert (least.kept.min() if over == "worst" else least.kept.mean()) >= keep - 1e-9


def test_a_fall_that_keeps_enough_is_not_the_end():
    # The healthy state goes between 0.33 and 0.37, but what takes over still keeps far more than the
    # 23 % asked for, and past the fold Newton's method alone would settle on the saddle between the two.
    random = np.random.default_rng(1645)
    population, keep = random_population(random, 1.0), random.uniform(0.2, 0.95)
    least = population_minimum_fresh_fraction(population, keep)
    assert (least.limited_by, keep < 0.25) == ("share", True)
    assert least.kept.min() == pytest.approx(keep, abs=1e-3)
    assert population_minimum_fresh_fraction(population, 0.9).value > least.value + 0.1


def test_a_fold_is_found():
    # One output slightly ahead of 199 others: at the fold nearly all diversity is still there.
    human = np.ones(200)
    human[0] += 0.02
    population = Population([[1.0]], 0.8, 0.0, human / human.sum())
    least = population_minimum_fresh_fraction(population, 0.3)
    assert least.limited_by == "stability"
    assert least.kept[0] > 0.99
    # Brute force, bisected: the state from h collapses below 0.2369 and not above.
    for shift, collapses in ((-2e-5, True), (2e-5, False)):
        theta = followed(population, least.value + shift)
        assert (theta.max() > 0.5) == collapses
    assert (
        least.value
        > spectral_threshold(Population([[1.0]], 0.8, 0.0, np.full(200, 1 / 200))).least_fresh_fraction
    )


@pytest.mark.parametrize("sharing", ["ring", "star", "small-world", "complete"])
@pytest.mark.parametrize("scale", [1.0, 0.4])  # thresholds below and above one half
def test_for_a_uniform_law_it_is_the_spectral_threshold(sharing, scale):
    temperature = scale * np.random.default_rng(1).uniform(0.6, 1.2, 30)
    s = Scenario(human="uniform", n_outputs=20, sharing=sharing, temperature=temperature)
    least, exact = population_minimum_fresh_fraction(s), spectral_threshold(s).least_fresh_fraction
    assert 0.02 < exact
    assert least.value == pytest.approx(exact, abs=1e-7)
    assert least.limited_by == "stability"
    assert least.fresh_fraction > exact - 1e-8  # the last state is a stable one


def test_one_temperature_is_one_model_and_isolated_providers_are_several():
    human = 1 / np.arange(1, 31.0)
    human /= human.sum()
    alone = [
        population_minimum_fresh_fraction(Population([[1.0]], t, 0.0, human)).value for t in (0.6, 0.8, 1.2)
    ]
    assert alone == sorted(alone, reverse=True)
    assert alone[2] == 0
    together = Scenario(human=human, n_providers=40, sharing="scale-free", temperature=0.8)
    assert population_minimum_fresh_fraction(together).value == pytest.approx(alone[1], abs=1e-9)
    almost = together.replace(temperature=0.8 + 1e-13 * np.arange(40))  # followed provider by provider
    assert population_minimum_fresh_fraction(almost).value == pytest.approx(alone[1], abs=1e-7)
    isolated = Population(np.eye(3), [0.8, 1.2, 0.6], 0.0, human)
    assert population_minimum_fresh_fraction(isolated).value == pytest.approx(alone[0], abs=1e-7)


def test_limits():
    def least(temperature, human, keep=0.9):
        found = population_minimum_fresh_fraction(Population([[1.0]], temperature, 0.0, human), keep)
        return found.value, found.limited_by

    assert least(0.8, [1.0]) == (0, "nothing")
    assert least(1.0, [0.5, 0.3, 0.2], 1.0) == (0, "nothing")
    assert least(np.inf, [0.5, 0.3, 0.2]) == (0, "nothing")
    assert least(0.8, [0.5, 0.3, 0.2], 1.0) == (1, "share")
    assert least(0.0, [0.4, 0.4, 0.2]) == (1, "stability")  # a tie at T = 0 is broken by a breath
    assert least(0.5, [0.5, 0.5, 0.0]) == (pytest.approx(0.5, abs=1e-7), "stability")
    value, reason = least(0.0, [0.5, 0.3, 0.2])  # Θ = λ h + (1 − λ) on the first output
    law = value * np.array([0.5, 0.3, 0.2]) + (1 - value) * np.eye(3)[0]
    assert metrics.hill(law, 1) == pytest.approx(0.9 * metrics.hill(np.array([0.5, 0.3, 0.2]), 1), abs=1e-6)
    assert reason == "share"


def test_healthy_state_is_the_end_of_the_mean_field():
    s = Scenario(n_outputs=40, sharing="star", temperature=[0.7, 0.9, 1.1, 1.4, 0.8],
                 fresh_fraction=[0.3, 0.2, 0.0, 0.1, 0.25], schedule="forget:0.5", rounds=600)  # fmt: skip
    state = healthy_state(s)
    np.testing.assert_allclose(state, mean_field_distributions(s)[-1], atol=1e-10)
    np.testing.assert_allclose(Population.of(s).target(state), state, atol=1e-12)


def test_linearisation():
    random = np.random.default_rng(0)
    population = replace(random_population(random, 1.5), fresh_fraction=0.2)
    theta = random.dirichlet(np.ones(population.human.size), len(population.temperature))
    near, shift = Linearised(population, theta), random.standard_normal(theta.shape)
    shift -= shift.mean(axis=1, keepdims=True)
    numeric = (population.target(theta + 1e-6 * shift) - population.target(theta - 1e-6 * shift)) / 2e-6
    np.testing.assert_allclose(near(shift), numeric, atol=1e-8)
    other = random.standard_normal(theta.shape)
    assert (other * near(shift)).sum() == pytest.approx((near.adjoint(other) * shift).sum())
    rest = near.solve(shift)
    np.testing.assert_allclose(rest - near(rest), shift, atol=1e-8)


def test_leading_eigenvalue_without_a_matrix():
    random = np.random.default_rng(3)
    n, v = 12, 20  # above the size that is decomposed whole
    w = random.random((n, n)) / n + np.eye(n)
    population = Population(
        w / w.sum(axis=1, keepdims=True), random.uniform(0.5, 1.5, n), 0.3, np.full(v, 1 / v)
    )
    theta = healthy_state(population)
    assert Linearised(population, theta).leading() == pytest.approx(
        spectral_threshold(population).radius, abs=1e-8
    )


def test_errors():
    for bad in ({"keep": 0.0}, {"keep": 1.1}, {"over": "best"}, {"tolerance": 0.0}):
        with pytest.raises(InputError, match="allowed"):
            population_minimum_fresh_fraction(Scenario(), **bad)
    with pytest.raises(InputError, match="top_k and top_p"):
        population_minimum_fresh_fraction(Scenario(top_p=0.9))
