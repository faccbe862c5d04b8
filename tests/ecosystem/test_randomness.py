import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem import Scenario, run
from ecosystem.randomness import Decision, Streams, sample


def test_streams_are_the_named_philox_counters():
    """Known answers: these bits are the format of all results, on every machine and for ever."""
    raw = np.random.Philox(key=(3 << 64) + 7, counter=(5 << 192) + (4 << 128) + (2 << 64))
    expected = np.random.Generator(raw).random(3)
    drawn = Streams(7, 3).uniforms(3, Decision.PUBLISH, round=5, provider=4)
    np.testing.assert_array_equal(drawn, expected)
    assert drawn.tolist() == [0.5106240074767648, 0.5616646784992291, 0.49808703444024305]


def test_streams_do_not_meet():
    names = [
        (seed, replicate, round, provider, decision)
        for seed in (0, 1)
        for replicate in (0, 1)
        for round in (0, 1)
        for provider in (0, 1)
        for decision in (Decision.PUBLISH, Decision.ITEM)
    ]
    drawn = {Streams(s, r).uniforms(4, d, round=k, provider=p).tobytes() for s, r, k, p, d in names}
    assert len(drawn) == len(names)


@given(
    st.lists(st.sampled_from([0.0, 1e-300, 0.1, 0.3, 1.0]), min_size=1, max_size=8).filter(any),
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1 - 2**-53]) | st.floats(0, 1 - 2**-53), max_size=5),
)
def test_sampling_never_returns_the_impossible(weights, uniforms):
    drawn = sample(np.cumsum(weights), np.array(uniforms))
    assert all(weights[index] > 0 for index in drawn)


def test_sampling_by_inversion():
    cumulative = np.cumsum([1.0, 0.0, 2.0, 1.0])
    np.testing.assert_array_equal(
        sample(cumulative, np.array([0, 0.24, 0.25, 0.74, 0.75, 0.99])), [0, 0, 2, 2, 3, 3]
    )


BASE = Scenario(n_providers=4, n_outputs=20, sharing="isolated", rounds=6, temperature=0.7, initial="sampled")


def test_equal_scenarios_give_equal_bits():
    assert run(BASE, 2).table.equals(run(BASE, 2).table)
    assert not run(BASE, 2).table.equals(run(BASE.replace(seed=1), 2).table)


def test_one_more_provider_moves_no_other():
    np.testing.assert_array_equal(run(BASE.replace(n_providers=5)).final[:, :4], run(BASE).final)


def test_one_more_replicate_moves_no_other():
    np.testing.assert_array_equal(run(BASE, 3).final[:2], run(BASE, 2).final)


def test_replicates_differ():
    a, b = run(BASE, 2).final
    assert not np.array_equal(a, b)


@pytest.mark.parametrize("change", [{"record_every": 4}, {"mass_k": 3}, {"corpus_rounds": 5}])
def test_what_is_recorded_moves_nothing(change):
    np.testing.assert_array_equal(run(BASE.replace(**change)).final, run(BASE).final)


def test_later_rounds_do_not_move_earlier_ones():
    longer = run(BASE.replace(rounds=9)).table
    assert longer[longer["round"] <= 6].reset_index(drop=True).equals(run(BASE).table)
