"""Derivatives against finite differences, identities, and groups that bind together."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.theory.meanfield import Population
from analysis.theory.populations import spectral_threshold
from analysis.theory.sensitivity import diversity_sensitivities, threshold_sensitivities
from ecosystem import InputError, Scenario


def population(human, seed=3, n=6):
    random = np.random.default_rng(seed)
    w = random.random((n, n)) * (random.random((n, n)) < 0.5) + np.eye(n)
    return Population(
        w / w.sum(axis=1, keepdims=True),
        random.uniform(0.6, 1.3, n),
        random.uniform(0.3, 0.6, n),
        human,
        batch_size=np.arange(1, n + 1),
    )


def differences(value, at, found, step=1e-5):
    """Central differences of a number with respect to every provider's λ and T, and every link."""

    def slope(changed):
        return (value(changed(step)) - value(changed(-step))) / (2 * step)

    def raised(i, j, by):
        w = at.sharing.toarray()
        w[i] *= 1 - by
        w[i, j] += by
        return replace(at, sharing=w)

    units = np.eye(len(at.temperature))
    fresh = [slope(lambda e, u=u: replace(at, fresh_fraction=at.fresh_fraction + e * u)) for u in units]
    warm = [slope(lambda e, u=u: replace(at, temperature=at.temperature + e * u)) for u in units]
    links = [
        slope(lambda e, i=i, j=j: raised(i, j, e)) for i, j in found.links[["reader", "author"]].to_numpy()
    ]
    return fresh, warm, links


def agree(found, expected):
    fresh, warm, links = expected
    # What happens in a group that does not bind does not move the number.
    counts, linked = (table.get("binding", np.True_) for table in (found.providers, found.links))
    np.testing.assert_allclose(found.providers["d_fresh_fraction"] * counts, fresh, atol=1e-7)
    np.testing.assert_allclose(found.providers["d_temperature"] * counts, warm, atol=1e-7)
    np.testing.assert_allclose(found.links["d_weight"] * linked, links, atol=1e-7)
    per_item = found.providers["d_fresh_fraction"] / np.arange(1, len(fresh) + 1)
    np.testing.assert_allclose(found.providers["per_human_item"], per_item)


@pytest.mark.parametrize("seed", [3, 4])
def test_of_the_threshold(seed):
    at = population(np.full(4, 0.25), seed)
    found = threshold_sensitivities(at)
    assert found.value == spectral_threshold(at).radius
    agree(found, differences(lambda p: spectral_threshold(p).radius, at, found))
    # ρ is homogeneous of degree 1 in 1 − λ and of degree −1 in T.
    table = found.providers
    table = table[table["binding"]]
    assert len(table) > 1
    assert -(1 - table["fresh_fraction"]) @ table["d_fresh_fraction"] == pytest.approx(found.value)
    assert table["temperature"] @ table["d_temperature"] == pytest.approx(-found.value)


@pytest.mark.parametrize("over", ["mean", "worst"])
def test_of_the_diversity_kept(over):
    at = population(np.array([0.4, 0.3, 0.15, 0.1, 0.05, 0.0]))
    found = diversity_sensitivities(at, over)
    kept = found.providers["kept"]
    assert found.value == pytest.approx(kept.mean() if over == "mean" else kept.min())
    agree(found, differences(lambda p: diversity_sensitivities(p, over).value, at, found))


def test_groups_bind_one_by_one_or_together():
    w = np.kron(np.diag([1.0, 1, 1]), np.full((2, 2), 0.5))
    at = Population(w, np.repeat([0.5, 0.5, 0.8], 2), 0.0, [0.5, 0.5])
    table = threshold_sensitivities(at).providers
    assert table["binding"].tolist() == [True] * 4 + [False] * 2
    np.testing.assert_allclose(table["group_radius"], np.repeat([2, 2, 1.25], 2))
    np.testing.assert_allclose(table["d_fresh_fraction"], np.repeat([-1, -1, -0.625], 2))
    # Helping one of two binding groups lowers its own radius and leaves the population's.
    helped = replace(at, fresh_fraction=np.array([0.1, 0, 0, 0, 0, 0]))
    assert spectral_threshold(helped).radius == pytest.approx(2)
    table = threshold_sensitivities(helped).providers
    assert table["binding"].tolist() == [False] * 2 + [True] * 2 + [False] * 2
    assert table["group_radius"][0] == pytest.approx(1.9)


def test_one_way_links_act_by_what_they_take():
    # 2 reads 0 and itself: more of 0 is less of itself.
    w = np.array([[1.0, 0, 0], [0, 1, 0], [0.25, 0, 0.75]])
    found = threshold_sensitivities(Population(w, [2.0, 2.0, 0.5], 0.0, [0.5, 0.5]))
    links = found.links.set_index(["reader", "author"])["d_weight"]
    assert found.value == pytest.approx(1.5)
    assert links[2, 0] == pytest.approx(-1.5)
    assert links[2, 2] == pytest.approx(0.5)


def test_limits_and_errors():
    full = threshold_sensitivities(Population(np.full((2, 2), 0.5), [np.inf, 0.5], [0.2, 1.0], [0.5, 0.5]))
    assert (full.value, full.providers["d_temperature"][0]) == (0, 0)
    assert np.isfinite(full.providers.drop(columns="temperature")).all(axis=None)
    s = Scenario(human="uniform", n_outputs=4, temperature=0.8, fresh_fraction=0.3)
    assert np.abs(diversity_sensitivities(s).providers["d_fresh_fraction"]).max() < 1e-9
    with pytest.raises(InputError, match="not stable"):
        diversity_sensitivities(s.replace(fresh_fraction=0.1))
    with pytest.raises(InputError, match="temperature = 0"):
        threshold_sensitivities(s.replace(temperature=0.0))
    with pytest.raises(InputError, match="over"):
        diversity_sensitivities(s, "best")
