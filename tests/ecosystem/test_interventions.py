import pickle
from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.cli import alone_of, main
from ecosystem import Ecosystem, InputError, Scenario, run
from ecosystem.interventions import (
    KINDS,
    BaseIntervention,
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
    RuleBook,
    Rules,
    Sharing,
    Temperature,
    Weighting,
    foreseen,
    rules_in_force,
)
from ecosystem.observing import View
from ecosystem.recording import tables

BASE = Scenario(
    n_providers=5,
    n_outputs=12,
    rounds=8,
    sharing="ring",
    outputs_per_round=60,
    batch_size=40,
    fresh_fraction=0.2,
    corpus_rounds=3,
    pretraining_size=200,
    seed=3,
)
NO_OPS = [
    Quota(fraction=0.0),
    Quota(fraction=0.9, providers=()),
    FreshFraction(fraction=0.2),
    FreshFraction(fraction=0.2, ramp=5),
    HumanSupply(items=10**9),
    DecliningSupply(exponent=0.0),
    Drift(share=0.0),
    Detector(true_positive=0.0),
    Detector(true_positive=0.3, false_positive=0.3),
    Detector(true_positive=0.0, mode="down-weight"),
    Detector(true_positive=0.5, mode="down-weight", weight=1.0),
    Cap(author=1.0, synthetic=1.0),
    Sharing(mode="cut", share=0.0),
    Exit(providers=()),
    Entry(providers=(1,)),
    Temperature(floor=0.0),
    Temperature(fixed=0.8),
    Temperature(fixed=0.8, ramp=5),
    Retention(window=1, schedule="accumulate"),
    Curation(best_of=1),
    Curation(best_of=3, verifier_error=1.0),
    Weighting(human_weight=1.0, synthetic_weight=1.0),
]
ACTIVE = [
    Quota(fraction=0.6),
    FreshFraction(fraction=0.05),
    HumanSupply(items=100),
    DecliningSupply(),
    Drift(share=0.5),
    Detector(true_positive=0.8, false_positive=0.1),
    Detector(true_positive=0.8, mode="down-weight", weight=0.3),
    Detector(true_positive=0.9, limited=True),
    Cap(author=0.2),
    Cap(synthetic=0.5),
    Sharing(mode="open"),
    Sharing(mode="silos"),
    Sharing(mode="remove-hub", hubs=2),
    Sharing(mode="cut", share=0.5),
    Exit(providers=(1,)),
    Entry(providers=(2,), start=4),
    Temperature(fixed=1.2),
    Retention(schedule="replace"),
    Retention(window=3),
    Curation(best_of=3, verifier_error=0.2),
    Weighting(optimal=True),
    Weighting(human_weight=3.0),
]


def named(values):
    return pytest.mark.parametrize("rule", values, ids=lambda rule: repr(rule)[:60])


@pytest.fixture(scope="module")
def baseline():
    return run(BASE)


def policy(*rules, base=BASE, **changes):
    return base.replace(interventions=rules, **changes)


def test_the_lists_above_hold_every_kind():
    assert {rule.kind for rule in NO_OPS} == {rule.kind for rule in ACTIVE} == set(KINDS)


# --- what changes nothing ------------------------------------------------------------------------


@named(NO_OPS)
def test_a_rule_that_asks_for_nothing_changes_no_bit(rule, baseline):
    result = run(policy(rule))
    np.testing.assert_array_equal(result.final, baseline.final)
    assert result.table.equals(baseline.table)
    counted = ["detector_calls", "curated_items"]  # work done in vain is still work
    assert result.population.drop(columns=counted).equals(baseline.population.drop(columns=counted))


@named(ACTIVE)
def test_a_rule_changes_no_bit_outside_its_dates(rule, baseline):
    if rule.kind == "entry":  # in force before its date
        dated = rule.replace(start=1)
        assert np.array_equal(run(policy(dated)).final, baseline.final)
        return
    assert np.array_equal(run(policy(rule.replace(start=9))).final, baseline.final)
    late = run(policy(rule.replace(start=5))).table
    before = baseline.table["round"] < 5
    assert late[late["round"] < 5].equals(baseline.table[before])
    assert not np.array_equal(run(policy(rule)).final, baseline.final)


@named([rule for rule in ACTIVE if rule.kind not in ("entry", "human-supply")])
def test_after_its_end_the_rules_are_those_of_the_scenario(rule):
    eco = Ecosystem(policy(rule.replace(end=3)))
    for _ in range(4):
        eco.step()
    plain = Rules.of(BASE)
    for name in ("temperature", "fresh_fraction", "human_weight", "synthetic_weight", "human", "active"):
        np.testing.assert_array_equal(getattr(eco.rules, name), getattr(plain, name))
    np.testing.assert_array_equal(eco.rules.W.toarray(), plain.W.toarray())
    assert (eco.rules.best_of, eco.rules.window, eco.rules.flag) == (1, 1, None)
    assert eco.rules.schedule == plain.schedule


def test_strength_grows_evenly_from_nothing_to_full():
    rule = Quota(fraction=1.0, start=3, ramp=4, end=9)
    expected = [0, 0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 0, 0]
    assert [rule.strength(k) for k in range(1, 12)] == pytest.approx(expected)
    assert [Quota(fraction=1.0).strength(k) for k in (1, 2, 99)] == [1, 1, 1]
    eco = Ecosystem(policy(rule))
    fresh = []
    for _ in range(8):
        eco.step()
        fresh.append(eco.rules.fresh_fraction[0])
    assert fresh == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.6, 0.8, 1, 1])


# --- what it is the same as ----------------------------------------------------------------------


def digraph(rows):
    """Return the graph whose W, without self-weight, has these rows."""
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(rows)))
    graph.add_weighted_edges_from(
        (j, i, float(w)) for i, row in enumerate(rows) for j, w in enumerate(row) if w
    )
    return graph


UNEVEN = [[6, 3, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 3]]
CAPPED = [[4, 3, 1, 0], [1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]]
SAME = {
    "quota": (Quota(fraction=0.4), {}, {"fresh_fraction": 0.4}),
    "quota of some": (
        Quota(fraction=0.4, providers=(1, 2)),
        {},
        {"fresh_fraction": [0.2, 0.4, 0.4, 0.2, 0.2]},
    ),
    "quota below": (Quota(fraction=0.1), {}, {}),
    "less fresh data": (FreshFraction(fraction=0.05), {}, {"fresh_fraction": 0.05}),
    "more for some": (
        FreshFraction(fraction=0.4, providers=(1, 2)),
        {},
        {"fresh_fraction": [0.2, 0.4, 0.4, 0.2, 0.2]},
    ),
    "detector": (
        Detector(true_positive=0.8, false_positive=0.1),
        {},
        {"fresh_fraction": 0.2 * 0.9 / (0.2 * 0.9 + 0.8 * (1 - 0.8))},
    ),
    "perfect detector": (Detector(true_positive=1.0), {}, {"fresh_fraction": 1.0}),
    "cap on models": (Cap(synthetic=0.25), {}, {"fresh_fraction": 0.75}),
    "cap of one who reads itself": (
        Cap(author=0.25),
        {"sharing": "isolated"},
        {"sharing": "isolated", "fresh_fraction": 0.75},
    ),
    "open": (Sharing(mode="open"), {}, {"sharing": "complete"}),
    "silos": (Sharing(mode="silos"), {}, {"sharing": "isolated"}),
    "cut all": (Sharing(mode="cut", share=1.0), {}, {"sharing": "isolated"}),
    "remove the centre": (
        Sharing(mode="remove-hub"),
        {"sharing": "star"},
        {"sharing": digraph([[0, 1, 1, 1, 1]] + [[0] * 5] * 4)},
    ),
    "temperature": (Temperature(fixed=1.2), {}, {"temperature": 1.2}),
    "floor": (
        Temperature(floor=1.0),
        {"temperature": [0.5, 1.5, 1.0, 0.0, 2.0]},
        {"temperature": [1.0, 1.5, 1.0, 1.0, 2.0]},
    ),
    "ceiling": (
        Temperature(ceiling=1.0),
        {"temperature": [0.5, 1.5, 1.0, 0.0, np.inf]},
        {"temperature": [0.5, 1.0, 1.0, 0.0, 1.0]},
    ),
    "between": (
        Temperature(floor=0.6, ceiling=1.0),
        {"temperature": [0.5, 1.5, 1.0, 0.0, np.inf]},
        {"temperature": [0.6, 1.0, 1.0, 0.6, 1.0]},
    ),
    "temperature of some": (
        Temperature(fixed=1.2, providers=(4, 0)),
        {},
        {"temperature": [1.2, 0.8, 0.8, 0.8, 1.2]},
    ),
    "retention": (Retention(schedule="forget:0.3"), {}, {"schedule": "forget:0.3"}),
}


@pytest.mark.parametrize("name", SAME)
def test_it_is_the_same_run_bit_for_bit_as(name):
    rule, before, changes = SAME[name]
    result, known = run(policy(rule, **before)), run(BASE.replace(**before | changes))
    np.testing.assert_array_equal(result.final, known.final)
    assert not changes or not np.array_equal(result.final, run(BASE.replace(**before)).final)


def test_a_capped_author_leaves_the_rest_to_the_others_in_proportion():
    # A batch of λ = 0: 0.6, 0.3, 0.1 under a cap of 0.5 are 0.5, 0.375, 0.125, i.e. 4 : 3 : 1; an author
    # read alone is left alone, the rest is human; three to one becomes one half each.
    settings = {"n_providers": 4, "self_weight": 0.0, "fresh_fraction": 0.0}
    base = BASE.replace(sharing=digraph(UNEVEN), **settings)
    known = BASE.replace(sharing=digraph(CAPPED), **settings | {"fresh_fraction": [0.0, 0.0, 0.5, 0.0]})
    capped = policy(Cap(author=0.5), base=base)
    rules = rules_in_force(capped, at(1))
    np.testing.assert_array_equal(rules.W.toarray(), known.W.toarray())
    np.testing.assert_array_equal(run(capped).final, run(known).final)
    # Of a batch that is 40% human, 0.3 from one author is half of what is synthetic.
    shared = policy(Cap(author=0.3), base=base.replace(fresh_fraction=0.4))
    np.testing.assert_allclose(rules_in_force(shared, at(1)).W.toarray(), known.W.toarray())


def test_a_provider_that_left_might_never_have_been_there(baseline):
    # On a complete graph the last of N + 1 changes nothing for the others but W_ij = 1/(N + 1).
    wide = BASE.replace(n_providers=6, sharing="complete")
    gone = run(policy(Exit(providers=(5,)), base=wide))
    few = run(BASE.replace(sharing="complete"))
    np.testing.assert_array_equal(gone.final[0, :5], few.final[0])
    assert gone.table.equals(few.table)
    assert gone.population.equals(few.population)
    np.testing.assert_array_equal(gone.final[0, 5], wide.source.law)


def test_the_graph_is_divided_among_those_who_are_there_to_the_last_bit():
    random = np.random.default_rng(1)
    graph = digraph(random.random((30, 30)))
    base = Scenario(sharing=graph, n_outputs=5)
    few = Scenario(sharing=graph.subgraph(range(20)).copy(), n_outputs=5)
    gone = policy(Exit(providers=tuple(range(20, 30))), base=base)
    for rules in (rules_in_force(gone, at(1)), RuleBook(gone).in_force(at(1))):
        np.testing.assert_array_equal(rules.W.toarray()[:20, :20], few.W.toarray())


def test_who_comes_back_has_the_model_it_had():
    eco = Ecosystem(policy(Exit(providers=(2,), start=3, end=5)))
    seen = []
    for _ in range(8):
        eco.step()
        seen.append(eco.distributions[2])
    assert np.array_equal(seen[1], seen[2]) and np.array_equal(seen[1], seen[4])
    assert not np.array_equal(seen[4], seen[5])
    assert len(eco.corpus.published(2, 5)) == 0 and len(eco.corpus.published(2, 6)) == 60
    table = tables(eco, 0)[0]
    assert table.loc[table["provider"] == 2, "round"].tolist() == [0, 1, 2, 6, 7, 8]
    assert table[["round", "provider"]].equals(
        table[["round", "provider"]].sort_values(["round", "provider"])
    )
    assert not table["entropy"].isna().any()
    assert tables(eco, 0)[1]["published_items"].diff().tolist()[1:] == [
        300,
        300,
        240,
        240,
        240,
        300,
        300,
        300,
    ]


def test_results_tell_who_is_there_at_the_end():
    result = run(policy(Exit(providers=(2,), start=3), Exit(providers=(0,), end=5)), replicates=2)
    np.testing.assert_array_equal(result.final_active, result.final[:, [0, 1, 3, 4]])


def test_whoever_enters_starts_from_its_first_model():
    eco = Ecosystem(policy(Entry(providers=(1, 4), start=4)))
    assert eco.corpus.human_items == 3 * 200
    for _ in range(3):
        eco.step()
        assert len(eco.agents) == 3
        assert eco.rules.W.toarray()[0, [1, 4]].sum() == 0
    np.testing.assert_array_equal(eco.distributions[[1, 4]], np.tile(eco.human, (2, 1)))
    used = eco.ledger.human_items
    eco.step()
    assert len(eco.agents) == 5
    assert eco.corpus.human_items == 5 * 200 + eco.ledger.human_items > 1000 + used
    assert tables(eco, 0)[0]["provider"].tolist() == [0, 2, 3] * 4 + [0, 1, 2, 3, 4]


def test_rows_are_shares_where_an_absent_provider_had_no_links():
    graph = nx.Graph([(0, 1, {"weight": 3.0}), (1, 2, {"weight": 5.0})])
    graph.add_nodes_from([3, 4])  # 3 reads nobody and is there, 4 enters later
    scenario = Scenario(
        n_outputs=6, sharing=graph, self_weight=0.0, fresh_fraction=[0.2, 0.2, 0.2, 1.0, 1.0], rounds=2,
        with_replacement=True, interventions=[Entry(providers=(4,), start=2), FreshFraction(fraction=0.3)],
    )  # fmt: skip
    w = rules_in_force(scenario, at(1)).W.toarray()
    np.testing.assert_allclose(w[:4, :3], [[0, 1, 0], [3 / 8, 0, 5 / 8], [0, 1, 0], [0, 0, 0]])
    assert w[3, 3] == w[4, 4] == 1
    run(scenario, engine="agents")


def test_links_are_cut_at_random_and_more_cuts_keep_the_fewer():
    wide = Scenario(n_providers=60, sharing="complete")
    links = wide.W.nnz - 60
    kept = []
    for share in (0.1, 0.3, 0.5, 0.9):
        w = rules_in_force(policy(Sharing(mode="cut", share=share), base=wide), at(1)).W.toarray()
        assert (np.diag(w) > 0).all()
        np.testing.assert_allclose(w.sum(axis=1), 1)
        kept.append(w > 0)
        cut = links - (kept[-1].sum() - 60)
        assert cut == pytest.approx(share * links, abs=4 * (links * share * (1 - share)) ** 0.5)
    for fewer, more in pairwise(kept):
        assert (more <= fewer).all()
    half = rules_in_force(policy(Sharing(mode="cut", share=0.5, ramp=1), base=wide), at(1)).W
    quarter = rules_in_force(policy(Sharing(mode="cut", share=0.25), base=wide), at(1)).W
    np.testing.assert_array_equal(half.toarray(), quarter.toarray())
    other = rules_in_force(policy(Sharing(mode="cut", share=0.5, link_seed=1), base=wide), at(1)).W
    assert ((other.toarray() > 0) != kept[2]).any()


def test_hubs_are_those_read_most():
    base = Scenario(n_providers=40, sharing="scale-free", seed=2)
    read = (base.W.toarray() - np.diag(base.W.diagonal())).sum(axis=0)
    hubs = np.argsort(-read)[:3]
    rules = rules_in_force(policy(Sharing(mode="remove-hub", hubs=3), base=base), at(1))
    w = rules.W.toarray()
    assert w[:, hubs].sum() == pytest.approx(np.diag(w)[hubs].sum())
    assert (w[hubs].sum(axis=1) == pytest.approx(1)) and (np.count_nonzero(w[hubs], axis=1) > 1).any()


# --- composition and validation ------------------------------------------------------------------


class at:  # noqa: N801 - reads as a statement: at(3)
    """A round of which nothing else is known."""

    human = np.full(12, 1 / 12)

    def __init__(self, round):
        self.round = round


fraction = st.sampled_from([0.0, 0.1, 0.37, 0.5, 0.9])
some = st.one_of(st.none(), st.lists(st.integers(0, 4), max_size=3, unique=True).map(tuple))
dates = st.fixed_dictionaries({"start": st.integers(1, 4), "end": st.sampled_from([None, 4, 6])})
ramps = st.sampled_from([0, 1, 3])


def of(kind, **parameters):
    parameters |= {"ramp": ramps} if kind.has_ramp else {}
    return st.builds(lambda when, **given: kind(**when, **given), dates, **parameters)


any_rule = st.one_of(
    of(Quota, fraction=fraction, providers=some),
    of(HumanSupply, items=st.sampled_from([1, 100])),
    of(DecliningSupply, exponent=st.sampled_from([0.5, 3.0])),
    of(Drift, share=fraction),
    of(Detector, true_positive=fraction, false_positive=fraction, limited=st.booleans()),
    of(Cap, author=fraction, synthetic=fraction, providers=some),
    of(Sharing, mode=st.sampled_from(["open", "silos", "remove-hub"])),
    of(Sharing, mode=st.just("cut"), share=fraction, link_seed=st.integers(0, 5)),
    of(Exit, providers=st.lists(st.integers(0, 3), max_size=2).map(tuple)),
    of(Entry, providers=st.lists(st.integers(0, 3), max_size=2).map(tuple)),
    of(Temperature, fixed=st.sampled_from([0.0, 0.5, 1.0, 3.0, np.inf]), providers=some),
    of(Retention, window=st.sampled_from([None, 1, 3]), schedule=st.sampled_from(["replace", "power:0.7"])),
    of(Curation, best_of=st.integers(1, 4), verifier_error=fraction),
    of(Weighting, human_weight=st.sampled_from([0.0, 0.3, 1.0, 7.0])),
    of(Weighting, optimal=st.just(True)),
)


@settings(max_examples=60, deadline=None)
@given(rules=st.lists(any_rule, max_size=4), flagged=st.booleans(), self_weight=st.sampled_from([0.0, 1.0]))
def test_any_composition_is_sound(tmp_path_factory, rules, flagged, self_weight):
    if flagged:
        rules = [*rules, Detector(true_positive=0.7, false_positive=0.2, mode="down-weight", weight=0.0)]
    scenario = policy(*rules, with_replacement=True, rounds=6, self_weight=self_weight)
    eco = Ecosystem(scenario)
    while eco.running:
        eco.step()
        theta, w = eco.distributions, eco.rules.W
        assert (theta >= 0).all()
        np.testing.assert_allclose(theta.sum(axis=1), 1, atol=1e-12)
        np.testing.assert_allclose(w.sum(axis=1), 1, atol=1e-12)
        assert (w.data >= 0).all() and w.has_sorted_indices
        there = eco.rules.active
        assert w.toarray()[np.ix_(there, ~there)].sum() == 0
        assert ((eco.rules.fresh_fraction >= 0) & (eco.rules.fresh_fraction <= 1)).all()
        assert eco.rules.human.sum() == pytest.approx(1)
        if eco.round == 3:
            eco = pickle.loads(pickle.dumps(eco))
    file = tmp_path_factory.mktemp("toml") / "s.toml"
    scenario.to_toml(file)
    again = Scenario.from_toml(file)
    assert again == scenario and again.interventions == scenario.interventions
    np.testing.assert_array_equal(run(again, engine="agents").final[0], eco.distributions)


@named([r for r in ACTIVE if r.kind not in ("exit", "entry", "human-supply", "drift", "declining-supply")])
def test_rules_do_not_depend_on_how_providers_are_numbered(rule):
    if getattr(rule, "mode", "") == "cut" or rule.observes:
        pytest.skip("links are drawn by number; or the state is asked for")
    order = np.array([3, 0, 4, 1, 2])
    uneven = digraph([[1, 5, 2, 0, 0], [0, 3, 1, 1, 2], [7, 0, 1, 0, 2], [1, 1, 1, 9, 1], [2, 0, 0, 1, 4]])
    values = np.array([0.05, 0.1, 0.2, 0.4, 0.8])
    base = BASE.replace(sharing=uneven, self_weight=0.0, fresh_fraction=values, temperature=2 * values)
    moved = base.replace(
        sharing=digraph(nx.to_numpy_array(uneven).T[np.ix_(order, order)]),
        fresh_fraction=values[order],
        temperature=2 * values[order],
    )
    one, other = (rules_in_force(policy(rule, base=s), at(1)) for s in (base, moved))
    np.testing.assert_allclose(other.W.toarray(), one.W.toarray()[np.ix_(order, order)])
    for name in ("temperature", "fresh_fraction", "human_weight", "synthetic_weight"):
        np.testing.assert_allclose(getattr(other, name), getattr(one, name)[order])


BAD = [
    ({"kind": "quota"}, "interventions[0].fraction is missing: allowed: a number from 0 to 1"),
    ({"kind": "quota", "fraction": 1.5}, "interventions[0].fraction = 1.5: allowed: a number from 0 to 1"),
    ({"kind": "quota", "fraction": 0.5, "start": 0}, "interventions[0].start = 0: allowed: a whole number"),
    ({"kind": "quota", "fraction": 0.5, "start": 5, "end": 4}, "interventions[0].end = 4: is before start"),
    ({"kind": "quota", "fraction": 0.5, "ramp": -1}, "interventions[0].ramp = -1: allowed"),
    ({"kind": "quota", "fraction": 0.5, "ramp": True}, "interventions[0].ramp = True: allowed"),
    ({"kind": "quota", "fraction": 0.5, "providers": [9]}, "there is no provider 9; allowed: 0 to 4"),
    ({"kind": "quota", "fraktion": 0.5, "fraction": 0.1}, "did you mean fraction?"),
    ({"kind": "quot", "fraction": 0.5}, "interventions[0].kind = 'quot': is not a kind; did you mean quota?"),
    ({"fraction": 0.5}, "interventions[0].kind is missing; allowed:"),
    (7, "interventions[0] = 7: give a table with a kind"),
    ({"kind": "exit", "providers": [0], "ramp": 2}, "interventions[0].ramp = 2: exit has no strength"),
    ({"kind": "exit", "providers": [0, 1, 2, 3, 4]}, "nobody is there in round 1"),
    ({"kind": "retention"}, "interventions[0].schedule is missing"),
    ({"kind": "retention", "schedule": "forever"}, "interventions[0].schedule = 'forever'"),
    ({"kind": "retention", "window": 9}, "write corpus_rounds = 9"),
    ({"kind": "curation", "best_of": 2, "score": [1.0]}, "has 1 values for 12 outputs"),
    ({"kind": "curation", "best_of": 2, "score": "nice"}, "interventions[0].score = 'nice': allowed"),
    ({"kind": "weighting"}, "interventions[0].human_weight is missing"),
    ({"kind": "weighting", "optimal": True, "human_weight": 2.0}, "leave out human_weight"),
    ({"kind": "weighting", "human_weight": 0.0, "synthetic_weight": 0.0}, "must be above 0"),
    ({"kind": "temperature"}, "interventions[0].fixed: give either fixed"),
    ({"kind": "temperature", "fixed": 1.0, "floor": 0.1}, "interventions[0].fixed: give either fixed"),
    ({"kind": "temperature", "floor": 2.0, "ceiling": 1.0}, "floor = 2.0: is above ceiling"),
    ({"kind": "cap"}, "interventions[0].author is missing"),
    ({"kind": "sharing", "mode": "open", "hubs": 2}, "interventions[0].hubs = 2: only mode"),
    ({"kind": "detector", "true_positive": 0.5, "false_positive": 1.0}, "from 0 to below 1"),
]


@pytest.mark.parametrize(("given", "message"), BAD)
def test_bad_interventions_say_where_and_what(given, message):
    with pytest.raises(InputError) as caught:
        BASE.replace(interventions=[given])
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_every_wrong_intervention_is_named_at_once():
    good = {"kind": "quota", "fraction": 0.5}
    with pytest.raises(InputError) as caught:
        BASE.replace(interventions=[good, good | {"fraction": -1.0, "start": 0}, {"kind": "x"}])
    starts = ["interventions[1].start", "interventions[1].fraction", "interventions[2].kind"]
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == starts
    with pytest.raises(InputError, match=r"^fraction = 2: allowed"):
        Quota(fraction=2)
    with pytest.raises(InputError, match="nothing to train on"):
        policy(Detector(true_positive=1.0), fresh_fraction=0.0)
    with pytest.raises(InputError, match=r"interventions\[1\].mode = 'down-weight'"):
        policy(*[Detector(true_positive=p, mode="down-weight") for p in (0.5, 0.6)])


def test_shortages_that_a_rule_brings_are_foreseen():
    wide = BASE.replace(n_providers=5, sharing="complete", batch_size=150, fresh_fraction=0.0)
    leave = Exit(providers=(1, 2, 3, 4), start=6)
    with pytest.raises(InputError, match="from round 6 on, provider 0 would draw about 150 items"):
        policy(leave, base=wide)
    with pytest.raises(InputError, match="from round 3 on"):
        policy(Sharing(mode="silos", start=3), base=wide)
    for helped in ([leave, Quota(fraction=0.9)], [leave, Retention(window=3)]):
        policy(*helped, base=wide)
    policy(leave, base=wide, with_replacement=True)
    policy(leave.replace(start=9), base=wide)


def test_what_is_known_beforehand():
    scenario = policy(Quota(fraction=1.0, start=3, ramp=1, end=5), DecliningSupply(), Exit(providers=(0,)))
    periods = list(foreseen(scenario))
    assert [(p.first, p.last) for p in periods] == [(1, 2), (3, 3), (4, 5), (6, 8)]
    assert [p.rules.fresh_fraction[1] for p in periods] == [0.2, 0.5, 1.0, 0.2]
    assert not any(p.rules.active[0] for p in periods)


def test_the_rule_book_says_the_same_and_only_once():
    rules = [Cap(author=0.3), Quota(fraction=0.5, start=3, ramp=2), Exit(providers=(1,), start=7)]
    for extra in ([], [DecliningSupply(start=5, end=6), Exit(providers=(2,), start=8)]):
        scenario = policy(*rules, *extra)
        eco, book, seen = Ecosystem(scenario), RuleBook(scenario), []
        while eco.running:
            view = View(eco)
            eco.step()
            seen.append(book.in_force(view))
            for rule in (eco.rules, rules_in_force(scenario, view)):
                np.testing.assert_array_equal(rule.W.toarray(), seen[-1].W.toarray())
                np.testing.assert_array_equal(rule.active, seen[-1].active)
                if not extra:  # the state has moved on
                    np.testing.assert_array_equal(rule.fresh_fraction, seen[-1].fresh_fraction)
        changes = [k for k in range(2, 9) if seen[k - 1] is not seen[k - 2]]
        assert changes == ([3, 4, 5, 6, 7, 8] if extra else [3, 4, 5, 7])


def test_the_command_line_lists_every_parameter():
    listed = CliRunner().invoke(main, ["settings"], catch_exceptions=False).stdout
    for kind, model in KINDS.items():
        assert f'kind = "{kind}"' in listed
        assert issubclass(model, BaseIntervention) and model.__doc__
        for name in model.model_fields:
            assert name in listed


def test_one_provider_by_itself_keeps_the_rules_that_mean_it():
    rules = [Quota(fraction=0.5, providers=(0, 3)), Quota(fraction=0.9, providers=(4,)), Drift(share=0.1)]
    alone = alone_of(policy(*rules, Exit(providers=(0,), start=3)))
    assert alone.interventions == (Quota(fraction=0.5, providers=(0,)), Drift(share=0.1))
    run(alone.replace(rounds=2))


# --- while it runs -------------------------------------------------------------------------------


def replays(eco):
    while eco.running:
        eco.step()
    again = run(eco.config, engine="agents")
    np.testing.assert_array_equal(again.final[0], eco.distributions)
    table, population = tables(eco, 0)
    assert table.equals(again.table)
    assert population.equals(again.population)


@named([rule for rule in ACTIVE if rule.kind != "entry"])
def test_what_is_put_in_force_while_it_runs_replays(rule, baseline, tmp_path):
    eco = Ecosystem(BASE)
    for _ in range(3):
        eco.step()
    eco.intervene(rule)
    assert eco.config.interventions[-1].start == 4
    eco.step()
    eco = pickle.loads(pickle.dumps(eco))
    eco.intervene(Quota(fraction=0.3, start=7))
    assert eco.config.interventions[-1].start == 7
    replays(eco)
    eco.config.to_toml(tmp_path / "s.toml")
    assert np.array_equal(
        run(Scenario.from_toml(tmp_path / "s.toml"), engine="agents").final[0], eco.distributions
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_providers": 1, "sharing": "isolated", "self_weight": 0.0},
        {"sharing": "small-world", "initial": "sampled"},
        {"temperature": [0.5, 0.6, 0.7, 0.8, 0.9]},
        {"initial": np.full(12, 1 / 12)},
        {"sharing": nx.relabel_nodes(nx.cycle_graph(5), dict(enumerate("abcde")))},
        {"interventions": [DecliningSupply(), Drift(share=0.2), Detector(true_positive=0.9, limited=True)]},
        {"interventions": [Sharing(mode="cut", share=0.4), Cap(author=0.3)]},
    ],
)
def test_providers_come_and_go_while_it_runs(changes, tmp_path):
    eco = Ecosystem(BASE.replace(**changes))
    for _ in range(2):
        eco.step()
    before = eco.distributions
    new = eco.add_provider(reads=[0], read_by={0: 0.5}, temperature=0.3)
    np.testing.assert_array_equal(eco.distributions[:-1], before)
    assert len(eco.agents) == len(before)
    eco.step()
    assert new in eco.agents and len(eco.corpus.published(new.index, 3)) == 60
    other = eco.add_provider(reads=[new.index], read_by=[new.index], temperature=1.5)
    eco.step()
    eco.remove_provider(new.index)
    eco.step()
    assert new not in eco.agents and other in eco.agents
    replays(eco)
    eco.config.to_toml(tmp_path / "s.toml")
    assert Scenario.from_toml(tmp_path / "s.toml") == eco.config


def test_what_cannot_be_done_while_it_runs_changes_nothing():
    eco = Ecosystem(BASE.replace(temperature=[1.0] * 5, initial=np.full((5, 12), 1 / 12)))
    eco.step()
    for wrong, message in [
        (lambda: eco.intervene("quota"), "give one, e.g. Quota"),
        (lambda: eco.intervene(Entry(providers=(1,))), "use add_provider"),
        (lambda: eco.intervene(Retention(window=5)), "write corpus_rounds = 5"),
        (lambda: eco.intervene(Quota(fraction=0.5, end=1)), "is before start = 2"),
        (lambda: eco.add_provider(reads=[7], temperature=1.0), "there is no provider 7"),
        (lambda: eco.add_provider(colour=1), "colour: is no setting"),
        (lambda: eco.add_provider(), "temperature: every provider has its own"),
        (lambda: eco.add_provider(temperature=1.0), "initial: every provider has its own"),
        (lambda: eco.add_provider(temperature=-1.0, initial=eco.human), "temperature"),
        (lambda: eco.remove_provider(9), "there is no provider 9"),
    ]:
        with pytest.raises(InputError, match=message):
            wrong()
    assert len(eco.providers) == 5 and eco.config.interventions == ()
    with pytest.raises(InputError, match="starts all from 'human'"):
        Ecosystem(BASE).add_provider(initial=BASE.source.law)
    replays(eco)


def test_attributes_of_providers_are_what_rules_start_from():
    eco, known = Ecosystem(policy(Quota(fraction=0.3, start=3))), Ecosystem(BASE)
    for model in (eco, known):
        model.step()
        model.providers[1].temperature = 2.0
        model.providers[2].fresh_fraction = 0.5
        model.providers[3].batch_size = 7
        model.providers[4].outputs_per_round = 90
        model.step()
        assert model.rules.temperature.tolist() == [0.8, 2.0, 0.8, 0.8, 0.8]
        assert len(model.corpus.published(4, 2)) == 90
    np.testing.assert_array_equal(eco.distributions, known.distributions)
    eco.step()
    assert eco.rules.fresh_fraction.tolist() == [0.3, 0.3, 0.5, 0.3, 0.3]


# --- what it costs -------------------------------------------------------------------------------


def test_what_is_used_is_counted_whatever_is_recorded():
    rules = [Detector(true_positive=0.5, false_positive=0.1), Curation(best_of=3, start=4)]
    prices = {"price_human_item": 2.0, "price_published_item": 0.5, "price_detector_call": 0.1,
              "price_curated_item": 0.01}  # fmt: skip
    scenario = policy(*rules, corpus_rounds=8, **prices)
    eco = Ecosystem(scenario)
    while eco.running:
        eco.step()
    last = tables(eco, 0)[1].iloc[-1]
    records = eco.corpus.records()
    assert last["human_items"] == records.human.sum()
    assert last["published_items"] == (~records.human).sum() == 8 * 5 * 60
    assert last["curated_items"] == 5 * 5 * 60 * 3
    passed = 0.2 * 0.9 + 0.8 * 0.5
    assert last["detector_calls"] == pytest.approx(8 * 5 * 40 / passed)
    names = ["human_items", "published_items", "detector_calls", "curated_items"]
    assert last["cost"] == pytest.approx(last[names] @ [2.0, 0.5, 0.1, 0.01])
    rare = run(scenario.replace(record_every=7)).population
    often = run(scenario).population
    columns = [*names, "cost"]
    assert rare[columns].equals(often[often["round"].isin([0, 7, 8])][columns].reset_index(drop=True))
    assert (often.iloc[0][columns] == 0).all()
