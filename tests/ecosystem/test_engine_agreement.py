"""The compiled engine against Mesa agents, draw for draw.

Both engines read the same uniforms and invert the same cumulative laws, in output order. They add these up in
different ways, so Θ and the cumulative laws differ by rounding, about 1e-15; a draw differs only where a
uniform falls that near to the boundary between two outputs: for the 1e5 draws of a scenario here with chance
1e-8. So the claim is exact for the items drawn, and to rounding for what is computed from them: Θ to 1e-12,
metrics to 1e-8 (and 1e-7 absolutely: the Fisher-Rao distance is a root, and near 0 loses half its digits).
An engine that drew from the same laws by other uniforms would differ in nearly every item.
"""

import pickle

import networkx as nx
import numpy as np
import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from ecosystem import Ecosystem, InputError, Scenario, run
from ecosystem.engine import chosen, kernels
from ecosystem.engine.rounds import Rounds
from ecosystem.interventions import KINDS, Exit, Quota, Retention, Temperature

BASE = {"n_providers": 6, "n_outputs": 80, "rounds": 12, "seed": 5, "outputs_per_round": 60, "batch_size": 50}


def equal_items(rounds, number, eco):
    """Assert that one replicate published exactly what its agents did."""
    published = rounds.published[-1]
    for i in range(rounds.n):
        row = number * rounds.n + i
        mine = published.items[published.at[row] : published.at[row] + published.size[row]]
        np.testing.assert_array_equal(mine, eco.corpus.published(i, eco.round))


def equal_metrics(mine, its):
    for own, other in zip(mine, its, strict=True):
        assert own.keys() == other.keys()
        for name in own:
            np.testing.assert_allclose(own[name], other[name], rtol=1e-8, atol=1e-7, err_msg=name)


def agree(scenario, replicates=range(2), threads=1, pickled=True):
    """Run a scenario by both engines, and compare them after every round."""
    rounds = Rounds(scenario, replicates, threads)
    ecosystems = [Ecosystem(scenario, replicate=replicate) for replicate in replicates]
    for k in range(scenario.rounds + 1):
        if k:
            errors = []
            for step in (rounds.step, *(eco.step for eco in ecosystems)):
                try:
                    step()
                except InputError as error:
                    errors.append(str(error))
            if errors:  # a batch asks for more than was published: one of the agents' messages, word for word
                assert len(errors) > 1 and errors[0] in errors[1:]
                return
        for number, eco in enumerate(ecosystems):
            if k:
                equal_items(rounds, number, eco)
            np.testing.assert_allclose(rounds.distributions[number], eco.distributions, rtol=0, atol=1e-12)
            trained = rounds.trained.reshape(len(replicates), -1)[number]
            np.testing.assert_allclose(trained, [p.trained_items for p in eco.providers], rtol=1e-12)
            if rounds.recorded(k) or k == 0:
                equal_metrics(rounds.measurement(number), eco.measured)
        if pickled and k == scenario.rounds // 2:
            rounds = pickle.loads(pickle.dumps(rounds))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"schedule": "replace"},
        {"schedule": "replace", "temperature": 1.0, "fresh_fraction": 0.0, "batch_size": 10,
         "sharing": "isolated", "outputs_per_round": 10},
        {"schedule": "power:0.7"},
        {"schedule": "power:1:2:3"},
        {"schedule": "forget:0.3", "rounds": 40},
        {"schedule": "forget:1", "temperature": 1.5},
        # A batch of all items of an author has them in order: seen where a detector flags some slots.
        {"batch_size": 10, "outputs_per_round": 10, "sharing": "isolated", "fresh_fraction": 0.0,
         "interventions": [{"kind": "detector", "true_positive": 0.5, "false_positive": 0.1,
                            "mode": "down-weight", "weight": 0.25}]},
        # Some batches weigh nothing: who has one forgets nothing.
        {"schedule": "replace", "outputs_per_round": 1, "batch_size": 1, "fresh_fraction": 0.5,
         "sharing": "isolated", "n_providers": 3, "n_outputs": 8,
         "interventions": [{"kind": "detector", "true_positive": 1.0, "false_positive": 0.2,
                            "mode": "down-weight", "weight": 0.0}]},
        {"schedule": "forget:0.9", "n_outputs": 10, "rounds": 700, "record_every": 100},
        {"schedule": "accumulate", "n_outputs": 2000, "n_providers": 3, "rounds": 150, "record_every": 50},
    ],
    ids=lambda changes: " ".join(map(str, changes.values())),
)  # fmt: skip
def test_schedules(changes):
    agree(Scenario(**BASE | changes))


@pytest.mark.parametrize("temperature", [0.0, 0.01, 0.1, 0.5, 1.0, 1.5, 2.0, 20.0, np.inf])
@pytest.mark.parametrize("initial", ["human", "sampled"])
def test_temperatures(temperature, initial):
    agree(Scenario(**BASE, temperature=temperature, initial=initial, pretraining_size=40))


def test_a_low_temperature_for_long():
    # Weights (y/r)^100 pass e^500 and the reference scale r is moved.
    agree(Scenario(**BASE | {"rounds": 60}, temperature=0.01, schedule="forget:0.05", fresh_fraction=0.5))


def test_more_items_than_are_shuffled_at_the_same_time():
    # Batches from 4 authors with 1.2 million items each: two or three of them at a time.
    size, batch = 1_200_000, 3000
    assert 4 * size > kernels._CARDS > 2 * size
    agree(Scenario(n_providers=5, n_outputs=15_000, sharing="complete", outputs_per_round=size,
                   batch_size=batch, rounds=2, record_every=2), range(1))  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": [0.5, 0.8, 1.0, 1.5, 2.0, np.inf]},
        {"temperature": [0.0, 0.8, 1.0, 1.5, 0.01, np.inf]},
        {"fresh_fraction": [0.0, 0.1, 0.5, 0.9, 1.0, 0.3], "sharing": "complete"},
        {"fresh_fraction": 1.0},
        {"fresh_fraction": 0.0},
        {"outputs_per_round": [60, 70, 80, 90, 100, 110], "batch_size": [50, 10, 1, 30, 40, 50]},
        {"with_replacement": True, "outputs_per_round": 20},
        {"with_replacement": True, "outputs_per_round": [1, 2, 3, 4, 5, 6]},
        {"top_k": 10},
        {"top_p": 0.7},
        {"top_k": 20, "top_p": 0.9, "temperature": 1.3},
        {"training_error": 0.01},
        {"n_providers": 1},
        {"n_outputs": 1},
        {"n_outputs": 2, "n_providers": 2},
        {"human": "english", "n_outputs": 500},
        {"human": "zipf", "zipf_exponent": 3.0},
        {"corpus_rounds": 5, "record_every": 5},
        # Batches that are small next to what they are taken from are dealt from places instead of copies.
        {"outputs_per_round": 300, "batch_size": 8, "corpus_rounds": 4},
        {"outputs_per_round": 300, "batch_size": 8, "corpus_rounds": 4, "with_replacement": True},
        {"mass_k": 200},
        {"mass_k": 1, "record_every": 7},
    ],
    ids=str,
)
def test_settings(changes):
    agree(Scenario(**BASE | changes))


@pytest.mark.parametrize(
    "initial",
    [
        np.arange(80) / np.arange(80).sum(),
        np.r_[np.zeros(40), np.full(40, 1 / 40)],
        np.eye(80)[:6],
        np.random.default_rng(0).dirichlet(np.full(80, 0.3), 6),
    ],
    ids=["rising", "half", "one output each", "one law each"],
)
@pytest.mark.parametrize("temperature", [0.8, np.inf])
def test_initial_laws(initial, temperature):
    agree(Scenario(**BASE, initial=initial, temperature=temperature))


def weighted_graph():
    graph = nx.gnp_random_graph(30, 0.4, seed=3, directed=True)
    random = np.random.default_rng(4)
    for i in range(30):
        graph.add_edge((i + 1) % 30, i)
    for edge in graph.edges.values():
        edge["weight"] = float(random.uniform(0.1, 3))
    return graph


@pytest.mark.parametrize(
    "changes",
    [
        *({"sharing": name, "n_providers": 12} for name in ("isolated", "complete", "ring", "star",
                                                            "small-world", "scale-free", "communities")),
        {"sharing": weighted_graph(), "n_providers": 30},  # more than eight authors: the search in groups
        {"sharing": weighted_graph(), "n_providers": 30, "self_weight": 0.0},
        {"sharing": "complete", "n_providers": 70, "batch_size": 20, "outputs_per_round": 20},
        {"sharing": "star", "n_providers": 9, "self_weight": 0.0},
        {"sharing": "ring", "self_weight": 0.0, "n_providers": 8},
    ],
    ids=lambda changes: f"{changes['sharing']} {changes['n_providers']} {changes.get('self_weight', '')}",
)  # fmt: skip
def test_sharing_graphs(changes):
    agree(Scenario(**BASE | {"rounds": 6} | changes))


RULES = [
    {"kind": "quota", "fraction": 0.4, "start": 3, "ramp": 4},
    {"kind": "quota", "fraction": 0.9, "providers": [1, 4], "end": 8},
    {"kind": "fresh-fraction", "fraction": 0.7, "start": 3, "end": 9},
    {"kind": "human-supply", "items": 200},
    {"kind": "declining-supply"},
    {"kind": "declining-supply", "exponent": 3.0, "start": 2},
    {"kind": "drift", "share": 0.3},
    {"kind": "drift", "share": 1.0, "ramp": 5},
    {"kind": "detector", "true_positive": 0.8, "false_positive": 0.1},
    {"kind": "detector", "true_positive": 0.9, "false_positive": 0.05, "limited": True},
    {"kind": "detector", "true_positive": 0.8, "false_positive": 0.1, "mode": "down-weight", "weight": 0.3},
    {"kind": "detector", "true_positive": 1.0, "false_positive": 0.2, "mode": "down-weight"},
    {"kind": "cap", "author": 0.3},
    {"kind": "cap", "synthetic": 0.5, "start": 4},
    {"kind": "sharing", "mode": "open", "start": 4},
    {"kind": "sharing", "mode": "silos", "end": 5},
    {"kind": "sharing", "mode": "cut", "share": 0.4},
    {"kind": "sharing", "mode": "remove-hub", "hubs": 2, "start": 3},
    {"kind": "entry", "providers": [2], "start": 5},
    {"kind": "exit", "providers": [1], "start": 6},
    {"kind": "temperature", "fixed": 1.3, "start": 3, "ramp": 5},
    {"kind": "temperature", "floor": 0.9, "providers": [0, 2]},
    {"kind": "temperature", "ceiling": 0.5, "start": 2, "end": 4},
    {"kind": "temperature", "fixed": 0.0, "start": 5},
    {"kind": "retention", "schedule": "forget:0.2", "start": 5},
    {"kind": "retention", "schedule": "replace", "start": 4, "end": 6},
    {"kind": "retention", "window": 2},
    {"kind": "curation", "best_of": 4, "verifier_error": 0.2},
    {"kind": "curation", "best_of": 2, "score": [float(v % 7) for v in range(80)]},
    {"kind": "weighting", "human_weight": 3.0, "synthetic_weight": 0.5},
    {"kind": "weighting", "synthetic_weight": 0.0},
    {"kind": "weighting", "optimal": True},
]


def test_every_kind_of_intervention_is_here():
    assert {rule["kind"] for rule in RULES} == KINDS.keys()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: " ".join(map(str, list(rule.values())[:3]))[:40])
def test_interventions(rule):
    agree(Scenario(**BASE, interventions=[rule]))


@pytest.mark.parametrize(
    "other", [{"top_p": 0.8}, {"n_outputs": 300, "initial": "sampled", "schedule": "replace"}]
)
def test_interventions_together(other):
    rules = [
        {"kind": "drift", "share": 0.2},
        {"kind": "curation", "best_of": 3},
        {"kind": "detector", "true_positive": 0.6, "mode": "down-weight", "weight": 0.2},
        {"kind": "entry", "providers": [0, 5], "start": 4},
        {"kind": "exit", "providers": [3], "start": 7},
        {"kind": "temperature", "fixed": 1.1, "start": 5, "ramp": 3},
        {"kind": "weighting", "human_weight": 2.0},
    ]
    agree(Scenario(**BASE | other, interventions=rules), range(3))


def test_where_nobody_there_published_in_the_round_before():
    rules = [{"kind": "exit", "providers": [0], "start": 5}, {"kind": "entry", "providers": [1], "start": 5}]
    agree(Scenario(n_providers=2, n_outputs=10, rounds=7, interventions=rules))


# --- random scenarios -------------------------------------------------------------------------------------


@st.composite
def scenarios(draw):
    """Any scenario that is small enough to run in a moment."""
    n = draw(st.integers(1, 7))
    size = draw(st.sampled_from([1, 2, 3, 8, 64, 65, 200, 1000]))

    def one_or_each(values):
        return draw(values | st.lists(values, min_size=n, max_size=n))

    with_replacement = draw(st.booleans())
    most = draw(st.sampled_from([1, 5, 40, 120]))
    batch = one_or_each(st.integers(1, most))
    least = 1 if with_replacement else most
    rules = draw(st.lists(st.sampled_from(RULES), max_size=2))
    rules = [rule for rule in rules if "score" not in rule or len(rule["score"]) == size]
    settings = {
        "n_providers": n,
        "n_outputs": size,
        "temperature": one_or_each(st.sampled_from([0.01, 0.3, 0.8, 1.0, 2.0, np.inf]) | st.floats(0.05, 5)),
        # Nearer to 0, optimal weights reach 10¹⁶: then 1 − a is 0 to the agents, not to the kernels.
        "fresh_fraction": one_or_each(st.sampled_from([0.0, 0.1, 1.0]) | st.floats(1e-6, 1)),
        "human": draw(st.sampled_from(["zipf", "uniform"])),
        "zipf_exponent": draw(st.sampled_from([0.5, 1.0, 2.5])),
        "sharing": draw(st.sampled_from(["isolated", "complete", "ring", "star", "small-world"])),
        "self_weight": draw(st.sampled_from([1.0, 1.0, 0.0, 2.5])),
        "outputs_per_round": one_or_each(st.integers(least, least + 40)),
        "batch_size": batch,
        "with_replacement": with_replacement,
        "schedule": draw(
            st.sampled_from(["accumulate", "replace", "forget:0.1", "forget:0.95", "power:0.7"])
        ),
        "pretraining_size": draw(st.sampled_from([1, 7, 1000])),
        "initial": draw(st.sampled_from(["human", "sampled"])),
        "top_k": draw(st.sampled_from([None, None, None, 3])),
        "top_p": draw(st.sampled_from([None, None, None, 0.6])),
        "training_error": draw(st.sampled_from([0.0, 0.0, 0.0, 0.05])),
        "rounds": draw(st.integers(1, 8)),
        "record_every": draw(st.integers(1, 4)),
        "corpus_rounds": draw(st.integers(2, 4)),
        "mass_k": draw(st.integers(1, 12)),
        "seed": draw(st.integers(0, 2**63 - 1)),
    }
    try:
        return Scenario(**settings, interventions=rules)
    except InputError:
        assume(False)


@given(scenarios(), st.integers(0, 2**40), st.integers(1, 3), st.sampled_from([1, 2]))
@settings(max_examples=60)
def test_random_scenarios(scenario, first, replicates, threads):
    event(f"{len(scenario.interventions)} interventions")
    agree(scenario, range(first, first + replicates), threads)


@pytest.mark.slow
@given(scenarios(), st.integers(0, 2**62), st.integers(1, 3), st.sampled_from([1, 2]))
@settings(max_examples=3000)
def test_many_random_scenarios(scenario, first, replicates, threads):
    agree(scenario, range(first, first + replicates), threads)


# --- what users see ---------------------------------------------------------------------------------------


def equal_ecosystems(one, two):
    for i in range(len(one.providers)):
        for window in (1, 2):
            mine, its = (eco.corpus.published(i, eco.round, window) for eco in (one, two))
            np.testing.assert_array_equal(mine, its)
    np.testing.assert_allclose(one.distributions, two.distributions, rtol=0, atol=1e-12)
    assert one.corpus.human_items == two.corpus.human_items
    assert one.corpus.synthetic_items == two.corpus.synthetic_items
    np.testing.assert_array_equal(one.ledger.human_counts, two.ledger.human_counts)
    assert one.ledger.columns(one.config) == pytest.approx(two.ledger.columns(two.config))
    assert [p.trained_items for p in one.providers] == pytest.approx([p.trained_items for p in two.providers])
    assert [p.index for p in one.active_providers] == [p.index for p in two.active_providers]
    equal_metrics(one.measured, two.measured)


def test_a_mesa_model_of_either_engine_shows_the_same():
    scenario = Scenario(**BASE, interventions=[{"kind": "exit", "providers": [1], "start": 6}])
    one, two = (Ecosystem(scenario, engine=engine, replicate=3) for engine in ("agents", "compiled"))
    while one.running:
        one.step()
        two.step()
        equal_ecosystems(one, two)
        synthetic = ~one.corpus.records().human
        for mine, its in zip(one.corpus.records(), two.corpus.records(), strict=True):
            np.testing.assert_array_equal(np.asarray(mine)[synthetic], its)
    tables = [(eco.datacollector.get_agent_vars_dataframe().sort_values(["round", "provider"]),
               eco.datacollector.get_model_vars_dataframe()) for eco in (one, two)]  # fmt: skip
    for mine, its in zip(*tables, strict=True):
        np.testing.assert_allclose(mine.to_numpy(float), its.to_numpy(float), rtol=1e-8, atol=1e-7)
    for mine, its in zip(one.providers, two.providers, strict=True):
        luck = [np.random.default_rng(8) for _ in range(2)]
        np.testing.assert_array_equal(
            mine.generative_model.generate(50, 0.7, luck[0]), its.generative_model.generate(50, 0.7, luck[1])
        )
    with pytest.raises(InputError, match='write engine = "agents"'):
        two.providers[0].generative_model.learn(np.array([1]), 1.0)
    with pytest.raises(InputError, match='write engine = "agents"'):
        two.add_provider()


def test_what_is_changed_while_running_changes_both():
    both = [Ecosystem(Scenario(**BASE), engine=engine) for engine in ("agents", "compiled")]
    changes = {
        2: lambda eco: setattr(eco.providers[1], "temperature", 1.7),
        3: lambda eco: eco.intervene(Quota(fraction=0.6)),
        4: lambda eco: setattr(eco.providers[0], "batch_size", 20),
        5: lambda eco: eco.remove_provider(4),
        6: lambda eco: eco.intervene(Retention(schedule="forget:0.5")),
        7: lambda eco: eco.intervene(Temperature(fixed=0.6, providers=(2,))),
        8: lambda eco: eco.intervene(Exit(providers=(0,), end=9)),
    }
    for k in range(12):
        for eco in both:
            changes.get(k, lambda eco: None)(eco)
            eco.step()
        equal_ecosystems(*both)


@pytest.mark.parametrize("changes", [{}, {"record_every": 5}, {"interventions": RULES[17:18]}, {"top_k": 5}])
def test_run_returns_the_same_from_both(changes):
    scenario = Scenario(**BASE | changes)
    assert chosen(scenario, "auto") == "compiled"
    one, two = (run(scenario, 3, engine=engine) for engine in ("agents", "compiled"))
    for mine, its in ((one.table, two.table), (one.population, two.population)):
        assert list(mine.columns) == list(its.columns)
        assert (mine.dtypes == its.dtypes).all()
        assert mine.index.equals(its.index)
        np.testing.assert_allclose(mine.to_numpy(float), its.to_numpy(float), rtol=1e-8, atol=1e-7)
    np.testing.assert_allclose(one.final, two.final, rtol=0, atol=1e-12)
    assert one.provenance["rounds_done"] == two.provenance["rounds_done"]
    assert (one.provenance["engine"], two.provenance["engine"]) == ("agents", "compiled")
    np.testing.assert_array_equal(one.final_active.shape, two.final_active.shape)
