import gc
import inspect
import pickle
import weakref

import mesa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem import Ecosystem, InputError, Scenario
from ecosystem.recording import tables

SMALL = Scenario(n_providers=3, n_outputs=10, rounds=5, sharing="ring", seed=4)


def stepped(eco, rounds):
    for _ in range(rounds):
        eco.step()
    return eco


def test_works_without_arguments():
    eco = stepped(Ecosystem(), 2)
    assert eco.distributions.shape == (10, 100)
    assert eco.round == eco.steps == 2


@settings(max_examples=25, deadline=None)
@given(
    temperature=st.lists(st.sampled_from([0.0, 0.3, 1.0, 2.0, np.inf]), min_size=3, max_size=3),
    fresh=st.lists(st.sampled_from([0.0, 0.3, 1.0]), min_size=3, max_size=3),
    outputs=st.lists(st.integers(10, 20), min_size=3, max_size=3),
    batch=st.lists(st.integers(1, 10), min_size=3, max_size=3),
    sharing=st.sampled_from(["isolated", "ring", "star", "complete"]),
    schedule=st.sampled_from(["accumulate", "replace", "forget:0.3", "power:0.7"]),
    human=st.sampled_from(["uniform", "zipf"]),
    initial=st.sampled_from(["human", "sampled"]),
    top_p=st.sampled_from([None, 0.8]),
    error=st.sampled_from([0.0, 0.01]),
)
def test_theta_stays_on_the_simplex(
    temperature, fresh, outputs, batch, sharing, schedule, human, initial, top_p, error
):
    eco = Ecosystem(
        Scenario(
            n_providers=3,
            n_outputs=7,
            temperature=temperature,
            fresh_fraction=fresh,
            outputs_per_round=outputs,
            batch_size=batch,
            sharing=sharing,
            schedule=schedule,
            human=human,
            initial=initial,
            top_p=top_p,
            training_error=error,
            rounds=4,
        )
    )
    for _ in range(4):
        before = eco.distributions
        eco.step()
        after = eco.distributions
        assert (after >= 0).all()
        np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-12)
        assert not np.shares_memory(before, after)
        assert [len(eco.corpus.published(i, eco.round)) for i in range(3)] == outputs
    providers, population = tables(eco, 0)
    defined = [c for c in providers if not c.startswith("self_similarity")]
    assert not providers[defined].isna().any().any()
    assert not population.isna().any().any()
    assert (population["synthetic_share"].diff().dropna() >= -1e-12).all() or max(fresh) > 0


def test_an_output_that_died_stays_dead_without_fresh_data():
    scenario = SMALL.replace(fresh_fraction=0.0, human="uniform", initial=[0.5, 0.5] + [0.0] * 8)
    assert (stepped(Ecosystem(scenario), 5).distributions[:, 2:] == 0).all()


def test_all_act_at_once_on_last_rounds_theta():
    # Two providers that read only each other, at T = 0: they swap favourites every round.
    scenario = Scenario(
        n_providers=2,
        n_outputs=2,
        sharing="complete",
        self_weight=0.0,
        temperature=0.0,
        fresh_fraction=0.0,
        schedule="replace",
        initial=[[1.0, 0.0], [0.0, 1.0]],
        rounds=3,
    )
    eco = Ecosystem(scenario)
    for expected in ([[0, 1], [1, 0]], [[1, 0], [0, 1]], [[0, 1], [1, 0]]):
        eco.step()
        np.testing.assert_array_equal(eco.distributions, expected)


def test_heterogeneous_providers():
    eco = Ecosystem(
        SMALL.replace(temperature=[0.0, 1.0, 2.0], outputs_per_round=[10, 20, 30], batch_size=[9, 8, 7])
    )
    eco.step()
    assert [provider.temperature for provider in eco.providers] == [0, 1, 2]
    assert [len(eco.corpus.published(i, 1)) for i in range(3)] == [10, 20, 30]
    assert [provider.trained_items - 1000 for provider in eco.providers] == [9, 8, 7]


def test_training_error_is_bounded():
    for seed in range(30):
        base = SMALL.replace(seed=seed)
        exact, wrong = (
            stepped(Ecosystem(base.replace(training_error=e)), 1).distributions for e in (0.0, 0.02)
        )
        assert 0.005 < np.abs(exact - wrong).max() <= 0.02
        np.testing.assert_allclose(wrong.sum(axis=1), 1)


def test_sampled_start():
    start = Ecosystem(SMALL.replace(initial="sampled", pretraining_size=40)).distributions
    np.testing.assert_allclose(start * 40, np.round(start * 40))
    assert not np.array_equal(start[0], start[1])


def test_distributions_cannot_be_changed_from_outside():
    eco = Ecosystem(SMALL)
    eco.distributions[:] = 0
    np.testing.assert_allclose(eco.distributions.sum(axis=1), 1)
    with pytest.raises(ValueError, match="read-only"):
        eco.providers[0].generative_model.distribution[0] = 1


def test_a_pickled_ecosystem_goes_on_as_if_nothing_had_happened():
    eco = stepped(Ecosystem(SMALL), 2)
    copy = pickle.loads(pickle.dumps(eco))
    for model in (eco, copy):
        stepped(model, 3)
    np.testing.assert_array_equal(eco.distributions, copy.distributions)
    assert tables(eco, 0)[0].equals(tables(copy, 0)[0])
    assert not copy.running


def test_records_every_so_many_rounds_and_the_last():
    eco = stepped(Ecosystem(SMALL.replace(rounds=7, record_every=3)), 7)
    assert tables(eco, 0)[1]["round"].tolist() == [0, 3, 6, 7]
    whole = stepped(Ecosystem(SMALL.replace(rounds=7)), 7)
    every = tables(whole, 0)[0]
    part = tables(eco, 0)[0]
    assert every[every["round"].isin([0, 3, 6, 7])].reset_index(drop=True).equals(part)


def test_stops_itself_after_the_last_round():
    eco = Ecosystem(SMALL)
    eco.run_model()
    assert eco.round == 5


def test_is_not_leaked():
    eco = stepped(Ecosystem(SMALL), 1)
    gone = weakref.ref(eco)
    del eco
    gc.collect()
    assert gone() is None


def test_mesas_batch_runner_sweeps_settings():
    rows = mesa.batch_run(
        Ecosystem,
        {"n_providers": [2, 3], "temperature": [0.5, 1.0], "rounds": 3, "sharing": "ring", "n_outputs": 5},
        max_steps=2,
        display_progress=False,
    )
    assert len(rows) == 2 * (2 + 3)
    assert {(row["n_providers"], row["temperature"]) for row in rows} == {
        (2, 0.5),
        (2, 1.0),
        (3, 0.5),
        (3, 1.0),
    }
    assert all(row["hill_1"] >= 1 and row["beta_diversity"] >= 1 for row in rows)


def test_signature_is_what_mesas_tools_need():
    parameters = inspect.signature(Ecosystem).parameters
    assert set(Scenario.model_fields) - {"seed"} <= set(parameters)
    assert not {"scenario", "seed"} & set(parameters)
    assert all(p.kind is p.KEYWORD_ONLY and p.default is None for p in parameters.values())


def test_rng_is_the_seed():
    by_rng, by_seed = Ecosystem(SMALL, rng=9), Ecosystem(SMALL.replace(seed=9))
    assert by_rng.config == by_seed.config
    np.testing.assert_array_equal(stepped(by_rng, 2).distributions, stepped(by_seed, 2).distributions)
    assert Ecosystem(rng=0).config.seed == 0
    with pytest.raises(InputError, match="no such setting"):
        Ecosystem(colour="blue")


@pytest.mark.parametrize("arguments", [{"replicate": -1}, {"replicate": 1.5}, {"scenario": {"rounds": 3}}])
def test_bad_arguments(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        Ecosystem(**arguments)


def test_global_random_state_is_not_touched():
    np.random.seed(3)  # noqa: NPY002
    first = np.random.random()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    stepped(Ecosystem(SMALL), 3)
    assert np.random.random() == first  # noqa: NPY002
