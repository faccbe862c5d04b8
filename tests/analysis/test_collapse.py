import numpy as np
import pytest

from analysis.collapse import DEFINITIONS, collapse_profile, half_life, time_to_collapse
from ecosystem import InputError, Scenario, run

BASE = Scenario(
    n_providers=3,
    n_outputs=30,
    sharing="complete",
    rounds=60,
    outputs_per_round=200,
    batch_size=200,
    pretraining_size=200,
    initial="sampled",
)


def verdicts(**changes):
    profile = collapse_profile(run(BASE.replace(**changes), 3))
    assert not profile["value"].isna().any()
    return dict(zip(profile["definition"], profile["collapsed"], strict=True))


def test_human_data_alone_collapses_in_no_sense():
    assert not any(verdicts(fresh_fraction=1.0).values())


def test_cold_models_collapse_in_most_senses_but_invent_nothing():
    cold = verdicts(temperature=0.3, fresh_fraction=0.0, schedule="replace", initial="human")
    assert {name for name, collapsed in cold.items() if not collapsed} == {
        "hallucinated outputs",
        "blurred modes",
    }


def test_hot_models_blur_and_keep_their_variance():
    hot = verdicts(temperature=4.0, fresh_fraction=0.0, initial="human")
    assert hot["blurred modes"]
    assert hot["any increase of risk"]
    assert not hot["collapsing variance"]
    assert not hot["disappearing tail"]


def test_hallucination_is_probability_that_people_do_not_have():
    law = np.append(np.full(10, 0.1), 0.0)
    start = np.append(np.full(10, 0.07), 0.3)
    t = run(
        Scenario(human=law, initial=start, n_providers=2, rounds=10, temperature=1.0, fresh_fraction=0.0), 3
    )
    profile = collapse_profile(t).set_index("definition")
    assert profile.loc["hallucinated outputs", "collapsed"]
    assert profile.loc["hallucinated outputs", "value"] == pytest.approx(t.final[:, :, -1].mean())


@pytest.mark.parametrize("outputs", [1, 10, 11, 100])
def test_a_uniform_law_has_no_catastrophe_and_one_output_nothing_to_lose(outputs):
    hot = {"temperature": 2.0, "fresh_fraction": 0.9, "pretraining_size": 10**5}
    yes = verdicts(human="uniform", n_outputs=outputs, **hot)
    assert not yes["catastrophic increase of risk"]
    if outputs == 1:
        assert not any(yes.values())


def test_profile_is_complete_with_a_single_replicate_and_refuses_short_runs():
    profile = collapse_profile(run(BASE.replace(rounds=8)))
    assert len(profile) == len(DEFINITIONS) == 8
    assert profile["half_width"].isna().all()
    with pytest.raises(InputError, match="needs 5"):
        collapse_profile(run(BASE.replace(rounds=3)))


def test_times_against_a_law_known_by_hand():
    # T = 0 under forget:0.5 from the uniform law: diversity falls in the same few rounds everywhere.
    t = run(BASE.replace(human="uniform", temperature=0.0, fresh_fraction=0.0, schedule="forget:0.5"), 2)
    hill = t.table.groupby(["replicate", "round"])["hill_1"].mean().unstack("replicate")
    times = time_to_collapse(t, keep=0.5)
    for replicate, round, censored in times.itertuples(index=False):
        assert not censored
        assert hill[replicate][round] < 15 <= hill[replicate][round - 1]
    for replicate, time, censored in half_life(t).itertuples(index=False):
        assert not censored
        start = hill[replicate][0]
        assert hill[replicate][int(np.ceil(time))] <= start / 2 <= hill[replicate][int(np.floor(time))]


def test_what_has_not_happened_is_censored():
    t = run(BASE.replace(fresh_fraction=1.0), 2)
    for times in (time_to_collapse(t), half_life(t)):
        assert times["censored"].all()
        assert (times["round"] == 60).all()


@pytest.mark.parametrize("arguments", [{"keep": 0}, {"keep": 1.5}, {"metric": "happiness"}])
def test_bad_questions(arguments):
    with pytest.raises(InputError, match=next(iter(arguments))):
        time_to_collapse(run(BASE.replace(rounds=5)), **arguments)
