import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.generative import Categorical
from ecosystem.schedules import Schedule


def test_step_sizes():
    assert Schedule.parse("accumulate").step_size(3, 10, 90.0) == 0.1
    assert Schedule.parse("replace").step_size(3, 10, 90.0) == 1
    assert Schedule.parse("forget:0.25").step_size(3, 10, 90.0) == 0.25
    assert Schedule.parse("power:0.7").step_size(3, 10, 90.0) == pytest.approx(3**-0.7)
    assert Schedule.parse("power:1:2:9").step_size(3, 10, 90.0) == pytest.approx(2 / 12)


@given(st.sampled_from(["accumulate", "replace", "forget:0.3", "power:0.7", "power:0.6:2:9"]), st.data())
def test_theta_is_a_weighted_average_of_batches(text, data):
    """Θ(K) = Σ_k w_k freq_k with w_k = a_k Π_{l>k} (1 − a_l), the start being batch 0 with a_0 = 1."""
    schedule, start, pretraining = Schedule.parse(text), np.array([0.2, 0.3, 0.5]), 7
    batches = data.draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6))
    model, trained, steps = Categorical(start), pretraining, []
    for round, batch in enumerate(batches, start=1):
        steps.append(schedule.step_size(round, len(batch), trained))
        model.learn(np.array(batch), steps[-1])
        trained += len(batch)
    frequencies = [start, *(np.bincount(batch, minlength=3) / len(batch) for batch in batches)]
    kept = np.cumprod([1.0, *(1 - np.array(steps[::-1]))])[::-1]
    weights = np.array([1.0, *steps]) * kept
    np.testing.assert_allclose(model.distribution, weights @ np.array(frequencies), atol=1e-12)
    if text == "accumulate":
        counts = pretraining * start + sum(np.bincount(batch, minlength=3) for batch in batches)
        np.testing.assert_allclose(model.distribution, counts / trained, atol=1e-12)
    if text == "replace":
        np.testing.assert_array_equal(model.distribution, frequencies[-1])
