import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecosystem import InputError
from ecosystem.generative.categorical import projected
from ecosystem.temperature import tempered, truncated

weights = arrays(np.float64, st.integers(1, 12), elements=st.sampled_from([0.0, 1e-300, 1e-9, 0.1, 0.1, 1.0]))
laws = weights.filter(lambda w: w.sum() > 0).map(lambda w: w / w.sum())
temperatures = st.sampled_from([0.0, 1e-300, 0.01, 0.5, 1.0, 1.7, 100.0, np.inf])


@given(laws, temperatures)
def test_stays_on_the_simplex_and_keeps_zeros(law, temperature):
    tau = tempered(law, temperature)
    assert tau.sum() == pytest.approx(1, abs=1e-12)
    assert (tau >= 0).all()
    assert (tau[law == 0] == 0).all()


@given(laws, temperatures, st.randoms(use_true_random=False))
def test_relabelling_outputs_relabels_the_result(law, temperature, random):
    order = list(range(law.size))
    random.shuffle(order)
    np.testing.assert_allclose(
        tempered(law[order], temperature), tempered(law, temperature)[order], rtol=1e-12
    )
    for top_k, top_p in [(1, None), (2, None), (None, 0.5), (3, 0.7)]:
        cut = truncated(law, top_k, top_p)
        np.testing.assert_allclose(truncated(law[order], top_k, top_p), cut[order], rtol=1e-12)


def test_formula():
    law = np.array([0.5, 0.3, 0.2])
    powers = law ** (1 / 0.7)
    np.testing.assert_allclose(tempered(law, 0.7), powers / powers.sum(), rtol=1e-14)


def test_limits():
    law = np.array([0.4, 0.4, 0.2, 0.0])
    np.testing.assert_array_equal(tempered(law, 0), [0.5, 0.5, 0, 0])
    np.testing.assert_allclose(tempered(law, np.inf), [1 / 3, 1 / 3, 1 / 3, 0])
    np.testing.assert_array_equal(tempered(law, 1), law)
    np.testing.assert_allclose(tempered(law, 1e-3), [0.5, 0.5, 0, 0], atol=1e-300)


def test_ties_survive_the_rounding_of_learning():
    # The same counts learned in another order: 0.1 + 0.2 is not 0.3.
    law = np.array([0.1 + 0.2, 0.3, 0.4 - 2**-54])
    law[2] = 0.3
    np.testing.assert_allclose(tempered(law, 0), [1 / 3] * 3)
    np.testing.assert_allclose(truncated(law, top_k=1), law / law.sum())


def test_extremes_do_not_overflow():
    law = np.array([1 - 1e-300, 1e-300])
    np.testing.assert_array_equal(tempered(law, 0.01), [1, 0])
    # 1e-300 ** (1/100) = 1e-3
    np.testing.assert_allclose(tempered(law, 100), np.array([1, 1e-3]) / 1.001, rtol=1e-12)


def test_one_temperature_per_law():
    laws = np.array([[0.6, 0.4], [0.6, 0.4], [0.6, 0.4]])
    both = tempered(laws, [0.0, 1.0, 2.0])
    for row, temperature in zip(both, [0.0, 1.0, 2.0], strict=True):
        np.testing.assert_array_equal(row, tempered(laws[0], temperature))


@pytest.mark.parametrize("temperature", [-1, float("nan"), [1.0, -0.5]])
def test_refuses_what_is_no_temperature(temperature):
    with pytest.raises(InputError, match="temperature"):
        tempered([[0.5, 0.5], [0.5, 0.5]], temperature)


def test_top_k_and_top_p():
    law = np.array([0.1, 0.4, 0.3, 0.2])
    np.testing.assert_allclose(truncated(law, top_k=2), np.array([0, 0.4, 0.3, 0]) / 0.7)
    np.testing.assert_allclose(truncated(law, top_p=0.7), np.array([0, 0.4, 0.3, 0]) / 0.7)
    np.testing.assert_allclose(truncated(law, top_p=0.71), np.array([0, 0.4, 0.3, 0.2]) / 0.9)
    np.testing.assert_array_equal(truncated(law, top_k=4, top_p=1.0), law)
    # Top-p counts shares of what top-k left: 0.4 / 0.7 > 0.5.
    np.testing.assert_array_equal(truncated(law, top_k=2, top_p=0.5), [0, 1, 0, 0])


def test_ties_at_the_cut_are_all_kept():
    law = np.array([0.4, 0.2, 0.2, 0.2])
    np.testing.assert_allclose(truncated(law, top_k=2), law)
    np.testing.assert_allclose(truncated(law, top_p=0.5), law)


@given(arrays(np.float64, st.integers(1, 9), elements=st.floats(-3, 3)))
def test_projection_is_the_nearest_law(point):
    law = projected(point)
    assert law.sum() == pytest.approx(1, abs=1e-12)
    assert (law >= 0).all()
    # The projection p of x is the one law with (x − p)·(q − p) ≤ 0 for every vertex q.
    assert ((point - law) @ (np.eye(point.size) - law).T <= 1e-9).all()
