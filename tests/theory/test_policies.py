from itertools import product

import numpy as np
import pytest

from analysis.theory import Population, flow, mean_field, mean_field_distributions, second_moments
from analysis.theory.policies import best_of, rounds_under_rules
from ecosystem import InputError, Scenario, run
from ecosystem.interventions import (
    KINDS,
    Cap,
    Curation,
    DecliningSupply,
    Detector,
    Drift,
    Entry,
    Exit,
    FreshFraction,
    HumanSupply,
    Quota,
    Retention,
    Sharing,
    Temperature,
    Weighting,
)

ITEMS = 20_000
BASE = Scenario(
    n_outputs=8,
    sharing="star",
    n_providers=5,
    temperature=[0.5, 0.6, 0.7, 0.8, 1.3],
    fresh_fraction=0.2,
    outputs_per_round=ITEMS,
    batch_size=ITEMS,
    with_replacement=True,
    schedule="forget:0.5",
    pretraining_size=ITEMS,
    rounds=6,
    corpus_rounds=3,
    seed=8,
)
RULES = {
    "quota": [Quota(fraction=0.6, start=2)],
    "fresh-fraction": [FreshFraction(fraction=0.6, start=2, end=5)],
    "human-supply": [HumanSupply(items=5 * ITEMS, start=2)],
    "declining-supply": [DecliningSupply(exponent=2.0)],
    "drift": [Drift(share=0.8)],
    "detector": [Detector(true_positive=0.8, false_positive=0.2, ramp=2)],
    "down-weight": [Detector(true_positive=0.9, mode="down-weight", weight=0.2)],
    "limited": [Detector(true_positive=0.9, limited=True)],
    "cap": [Cap(author=0.3)],
    "sharing": [Sharing(mode="silos", start=3)],
    "open": [Sharing(mode="open", ramp=3)],
    "hub": [Sharing(mode="remove-hub")],
    "cut": [Sharing(mode="cut", share=0.6)],
    "exit": [Exit(providers=(0,), start=3, end=4)],
    "entry": [Entry(providers=(0, 2), start=4)],
    "temperature": [Temperature(fixed=1.5, providers=(0, 1), start=2, end=4)],
    "retention": [Retention(schedule="accumulate", window=3, start=2)],
    "curation": [Curation(best_of=3, verifier_error=0.3, score=[0, 0, 1, 1, 2, 0, 0, 0])],
    "weighting": [Weighting(human_weight=5.0)],
    "optimal": [Weighting(optimal=True)],
    "weights of a corpus": [Retention(schedule="accumulate"), Weighting(synthetic_weight=0.1, start=3)],
    "many": [
        Exit(providers=(3,), start=4),
        Drift(share=0.3),
        Cap(author=0.5, synthetic=0.7, ramp=3),
        Detector(true_positive=0.5, false_positive=0.1, mode="down-weight"),
        Curation(best_of=2, start=2),
        Retention(window=2),
        Weighting(human_weight=2.0),
    ],
}


def test_every_kind_is_held_to_a_run():
    assert {rule.kind for rules in RULES.values() for rule in rules} == set(KINDS)


@pytest.mark.parametrize("name", RULES)
def test_runs_of_many_items_follow_the_mean_field(engine, name):
    # Eight runs; the bias of their mean is of order 1/items. The rules move entries by 0.02 or more, four
    # standard errors are 0.002 to 0.016.
    scenario = BASE.replace(interventions=RULES[name])
    field = mean_field_distributions(scenario)[-1]
    ends = run(scenario, replicates=8, engine=engine).final
    error = ends.std(axis=0, ddof=1).max() / 8**0.5
    assert error < 0.005
    assert np.abs(ends.mean(axis=0) - field).max() < 4 * error + 20 / ITEMS
    moved = np.abs(field - mean_field_distributions(BASE)[-1]).max()
    assert moved > 0.02 or name == "human-supply"


def test_no_rule_and_a_rule_that_asks_for_nothing_have_the_same_field():
    for schedule in ("accumulate", "replace", "power:0.7"):
        plain = BASE.replace(schedule=schedule, top_k=5)
        same = plain.replace(interventions=[Quota(fraction=0.0), Curation(best_of=1)])
        np.testing.assert_allclose(
            mean_field_distributions(same), mean_field_distributions(plain), atol=1e-14
        )
        np.testing.assert_allclose(mean_field(same), mean_field(plain), rtol=1e-9, atol=1e-12)


def test_the_table_has_the_rows_of_a_run(engine):
    scenario = BASE.replace(interventions=RULES["entry"] + RULES["exit"], record_every=2)
    field, table = mean_field(scenario), run(scenario, engine=engine).table
    columns = ["replicate", "round", "provider"]
    assert field[columns].equals(table[columns])
    assert np.abs(field["entropy"] - table["entropy"]).max() < 0.05


def test_the_best_of_k_by_enumeration():
    tau, score = (
        np.array([[0.4, 0.3, 0.2, 0.1, 0.0], [0.0, 0.5, 0.0, 1e-12, 0.5]]),
        [1.0, 2.0, 2.0, -1.0, 3.0],
    )
    for k in (1, 2, 4):
        law = np.zeros((2, 5))
        for draws in product(range(5), repeat=k):
            law[:, max(draws, key=lambda v: score[v])] += np.prod(tau[:, list(draws)], axis=1)
        np.testing.assert_allclose(best_of(tau, np.array(score), k), law, rtol=1e-10)
    many = best_of(np.array([[1 - 1e-9, 1e-9]]), np.array([0.0, 1.0]), 1000)
    assert many[0, 1] == pytest.approx(1e-6, rel=1e-5)


def test_a_population_under_rules_has_their_fixed_points():
    rules = [*RULES["cap"], *RULES["down-weight"], *RULES["weighting"], Exit(providers=(4,), start=2)]
    scenario = BASE.replace(interventions=rules, rounds=400)
    here = Population.under(scenario, 3)
    *_, last = rounds_under_rules(scenario, np.tile(BASE.source.law, (5, 1)))
    np.testing.assert_allclose(here.target(last.theta[:4]), last.theta[:4], atol=1e-9)
    assert len(Population.under(scenario, 1).temperature) == 5
    plain, quota = Population.of(BASE), BASE.replace(interventions=RULES["quota"])
    np.testing.assert_array_equal(Population.under(quota, 1).fresh_fraction, plain.fresh_fraction)
    np.testing.assert_array_equal(Population.under(quota, 2).fresh_fraction, np.full(5, 0.6))


def test_theory_that_knows_no_rules_says_so():
    ruled = BASE.replace(interventions=RULES["quota"], temperature=1.0)
    for call in (Population.of, flow, second_moments):
        with pytest.raises(InputError, match="only the mean field in rounds knows them"):
            call(ruled)
    for name, message in (("drift", "depends on the state"), ("curation", "has no Population")):
        with pytest.raises(InputError, match=message):
            Population.under(BASE.replace(interventions=RULES[name]), 1)
