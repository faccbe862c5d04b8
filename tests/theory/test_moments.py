"""Exact moments at T = 1 against exhaustive enumeration, closed forms and the simulator itself."""

from fractions import Fraction
from itertools import permutations, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.theory import moments
from ecosystem import Scenario, run
from ecosystem.engine import counts
from ecosystem.errors import InputError
from ecosystem.mixing import Mixing
from ecosystem.model import Ecosystem

# --- exhaustive enumeration: two outputs, two providers ---------------------------------------------


def batch_law(published, weights, fresh, h, m, with_replacement):
    """Law of how many items of a batch are output 0, {count: chance}.

    ``published`` holds, for each author, 1 for every item that is output 0 and 0 for the others.
    """
    law = {}
    for sources in product(("human", 0, 1), repeat=m):
        chance = Fraction(1)
        for source in sources:
            chance *= fresh if source == "human" else (1 - fresh) * weights[source]
        if chance == 0:
            continue
        fillings = {0: Fraction(1)}
        for source in ("human", 0, 1):
            slots = sources.count(source)
            if source == "human":
                ways = [
                    (sum(word), h ** sum(word) * (1 - h) ** (slots - sum(word)))
                    for word in product((0, 1), repeat=slots)
                ]
            else:
                items = published[source]
                choose = product(items, repeat=slots) if with_replacement else permutations(items, slots)
                drawn = list(choose)
                ways = [(sum(choice), Fraction(1, len(drawn))) for choice in drawn]
            mixed = {}
            for (count, p), (more, q) in product(fillings.items(), ways):
                mixed[count + more] = mixed.get(count + more, 0) + p * q
            fillings = mixed
        for count, p in fillings.items():
            law[count] = law.get(count, 0) + chance * p
    return law


def enumerated(start, weights, fresh, h, supply, size, steps, with_replacement):
    """E[Θ_i·Θ_j] after every round by following every possible history; Θ here is P(output 0)."""

    def moment(states):
        return [
            [sum(p * (x[i] * x[j] + (1 - x[i]) * (1 - x[j])) for x, p in states.items()) for j in range(2)]
            for i in range(2)
        ]

    states = {tuple(start): Fraction(1)}
    found = [moment(states)]
    for step in steps:
        after = {}
        for x, p in states.items():
            for words in product(*(product((0, 1), repeat=supply[j]) for j in range(2))):
                written = p
                for j in range(2):
                    for item in words[j]:
                        written *= x[j] if item else 1 - x[j]
                if written == 0:
                    continue
                laws = [
                    batch_law(words, weights[i], fresh[i], h, size[i], with_replacement) for i in range(2)
                ]
                for (c0, p0), (c1, p1) in product(laws[0].items(), laws[1].items()):
                    y = tuple(
                        (1 - step[i]) * x[i] + step[i] * Fraction(c, size[i]) for i, c in enumerate((c0, c1))
                    )
                    after[y] = after.get(y, 0) + written * p0 * p1
        states = after
        found.append(moment(states))
    return np.array(found, dtype=float)


TINY = {
    # B, m, fresh fractions, edge weights 0→1 and 1→0, self weight, schedule, with_replacement, rounds
    "isolated": ((3, 3), (2, 3), (0, 0), (0, 0), 1, "accumulate", False, 2),
    "one item": ((1, 1), (1, 1), (0, 1), (1, 2), 1, "replace", False, 2),
    "accumulate": ((2, 2), (2, 1), (1, 2), (1, 3), 1, "accumulate", False, 2),
    "replace": ((2, 3), (2, 2), (0, 1), (2, 1), 1, "replace", False, 2),
    "no self": ((3, 2), (2, 1), (1, 0), (1, 1), 0, "forget:0.25", False, 2),
    "reads nobody": ((2, 2), (2, 2), (1, 4), (0, 1), 0, "replace", False, 2),
    "replacement": ((1, 2), (2, 2), (1, 0), (1, 1), 1, "accumulate", True, 2),
    "three": ((3, 3), (3, 3), (1, 0), (1, 1), 1, "replace", False, 1),
    "three again": ((2, 3), (3, 3), (0, 1), (1, 1), 2, "forget:0.5", True, 1),
}


@pytest.mark.parametrize("name", TINY)
def test_every_possible_history_of_a_tiny_ecosystem(name):
    supply, size, fresh, (to_1, to_0), own, schedule, with_replacement, rounds = TINY[name]
    quarter = Fraction(1, 4)
    h, start, pretraining = Fraction(3, 8), (Fraction(1, 2), quarter), 3
    graph = nx.DiGraph()
    graph.add_nodes_from((0, 1))
    graph.add_edge(0, 1, weight=to_1)
    graph.add_edge(1, 0, weight=to_0)
    rows = [[Fraction(own), Fraction(to_0)], [Fraction(to_1), Fraction(own)]]
    weights = [[w / sum(row) if sum(row) else Fraction(0) for w in row] for row in rows]
    kind, _, value = schedule.partition(":")
    steps = [
        [
            {
                "accumulate": Fraction(size[i], pretraining + k * size[i]),
                "replace": Fraction(1),
                "forget": Fraction(value or 0),
            }[kind]
            for i in range(2)
        ]
        for k in range(1, rounds + 1)
    ]
    expected = enumerated(
        start, weights, [quarter * f for f in fresh], h, supply, size, steps, with_replacement
    )
    scenario = Scenario(
        temperature=1.0, human=[3 / 8, 5 / 8], initial=[[0.5, 0.5], [0.25, 0.75]], sharing=graph,
        self_weight=float(own), fresh_fraction=[f / 4 for f in fresh], outputs_per_round=supply,
        batch_size=size, schedule=schedule, pretraining_size=pretraining,
        with_replacement=with_replacement, rounds=rounds,
    )  # fmt: skip
    np.testing.assert_allclose(moments.second_moments(scenario), expected, rtol=0, atol=1e-14)


# --- the simulator ------------------------------------------------------------------------------------


REPLICATES = 500


def random_scenario(number):
    """A random digraph with random weights and everything else random too; the number seeds it."""
    random = np.random.default_rng([99, number])
    n, v, rounds = int(random.integers(2, 6)), int(random.integers(2, 8)), int(random.integers(3, 7))
    graph = nx.gnp_random_graph(n, 0.5, seed=int(random.integers(1 << 30)), directed=True)
    for i in range(n):  # without self_weight everyone must read someone
        graph.add_edge((i + 1) % n, i)
    for edge in graph.edges.values():
        edge["weight"] = float(random.uniform(0.2, 2))
    with_replacement = bool(number % 3 == 0)
    batch = random.integers(1, 7, n)
    least = 1 if with_replacement else int(batch.max())
    return Scenario(
        temperature=1.0, sharing=graph, self_weight=float([0.0, 1.0, 2.5][number % 4 % 3]),
        fresh_fraction=np.where(random.random(n) < 0.3, 0.0, random.uniform(0, 0.5, n)),
        human=random.dirichlet(np.ones(v)), outputs_per_round=random.integers(least, least + 3, n),
        batch_size=batch, with_replacement=with_replacement, pretraining_size=int(random.integers(1, 9)),
        schedule=["accumulate", "replace", "forget:0.3", "power:0.7:1:2"][number % 4], rounds=rounds,
        initial=["human", "sampled", random.dirichlet(np.ones(v), n)][number % 5 % 3], seed=number,
        record_every=rounds,
    )  # fmt: skip


def ends(engine, scenario, replicates):
    """Yield Θ after the last round of every replicate, shape (N, V)."""
    if engine == "compiled":
        yield from run(scenario, replicates, engine=engine).final
        return
    for replicate in range(replicates):
        eco = Ecosystem(scenario, replicate=replicate)
        while eco.running:
            eco.step()
        yield eco.distributions


def worst_disagreement(engine, scenario, expected, replicates):
    """Largest |simulated mean − expected| in standard errors, over all pairs, in the last round."""
    sums = squares = 0.0
    for laws in ends(engine, scenario, replicates):
        sums += laws @ laws.T
        squares += (laws @ laws.T) ** 2
    mean = sums / replicates
    error = np.sqrt((squares / replicates - mean**2) / (replicates - 1))
    return np.max(np.abs(mean - expected[-1]) / np.maximum(error, 1e-12))


@pytest.mark.parametrize("number", range(14))
def test_simulated_second_moments(engine, number):
    # About 10 pairs a scenario, 14 scenarios: a right rule exceeds 4 standard errors once in 100 suites.
    scenario = random_scenario(number)
    assert worst_disagreement(engine, scenario, moments.second_moments(scenario), REPLICATES) < 4


@pytest.mark.parametrize("largest", [10**9, 1], ids=["drawn", "thinned"])
@pytest.mark.parametrize("number", range(0, 14, 3))
def test_second_moments_in_counts(monkeypatch, number, largest):
    for name, value in {"ITEMS_PER_OUTPUT": 0, "_FEW": 0, "_LARGEST": largest}.items():
        monkeypatch.setattr(counts, name, value)
    scenario = random_scenario(number)
    assert counts.counted(scenario)
    assert worst_disagreement("compiled", scenario, moments.second_moments(scenario), REPLICATES // 4) < 4


PLAIN = Scenario(
    temperature=1.0, n_outputs=30, human="uniform", sharing="complete", n_providers=2, self_weight=3.0,
    fresh_fraction=0.1, outputs_per_round=4, batch_size=4, schedule="replace", rounds=2, record_every=2,
)  # fmt: skip


@pytest.mark.parametrize("wrong", [{"with_replacement": True}, {"self_weight": 0.0}])
def test_a_wrong_mixing_rule_is_caught(engine, wrong):
    """The same comparison, with as many replicates, rejects a simulator that mixes by another rule."""
    expected = moments.second_moments(PLAIN)
    assert worst_disagreement(engine, PLAIN, expected, REPLICATES) < 4
    assert worst_disagreement(engine, PLAIN.replace(**wrong), expected, REPLICATES) > 8


def test_a_broken_draw_without_replacement_is_caught(monkeypatch):
    def sloppy(self, published, uniforms, author, reader):
        return published[(uniforms * len(published)).astype(np.int64)]

    monkeypatch.setattr(Mixing, "_read", sloppy)
    assert worst_disagreement("agents", PLAIN, moments.second_moments(PLAIN), REPLICATES) > 8


# --- closed forms ---------------------------------------------------------------------------------------


def alone(**settings):
    return Scenario(temperature=1.0, sharing="isolated", n_providers=1, **{"fresh_fraction": 0.0} | settings)


def test_polya_variance():
    k, prior, h = 12, 5, np.array([0.5, 0.3, 0.2])
    scenario = alone(human=h, outputs_per_round=1, batch_size=1, pretraining_size=prior, rounds=k)
    variance = h * (1 - h) * k / ((prior + 1) * (prior + k))
    assert moments.second_moments(scenario)[-1, 0, 0] == pytest.approx(h @ h + variance.sum(), abs=1e-15)


def test_wright_fisher_loses_one_in_n_of_diversity():
    scenario = alone(n_outputs=9, outputs_per_round=7, batch_size=7, schedule="replace", rounds=30)
    diversity = moments.expected_simpson_diversity(scenario)[:, 0]
    np.testing.assert_allclose(diversity, diversity[0] * (1 - 1 / 7) ** np.arange(31), rtol=1e-13)


def test_replace_with_human_share_tends_to_its_fixed_point():
    n, share, h = 6, 0.2, np.array([0.6, 0.3, 0.1])
    scenario = alone(
        human=h, fresh_fraction=share, outputs_per_round=n, batch_size=n, schedule="replace", rounds=200
    )
    keep, human = (1 - 1 / n) * (1 - share) ** 2, h @ h
    limit = (1 / n + (1 - 1 / n) * (1 - (1 - share) ** 2) * human) / (1 - keep)
    assert moments.second_moments(scenario)[-1, 0, 0] == pytest.approx(limit, abs=1e-13)


@pytest.mark.parametrize(("initial", "first"), [("sampled", 1), ("human", 2)])
def test_sine_product_of_accumulation(initial, first):
    n, rounds = 5, 4000
    scenario = alone(
        n_outputs=4, human="uniform", initial=initial, pretraining_size=n, outputs_per_round=n, batch_size=n,
        rounds=rounds,
    )  # fmt: skip
    left = moments.expected_simpson_diversity(scenario)[-1, 0] / 0.75
    t = np.arange(first, rounds + 2)
    assert left == pytest.approx(np.prod(1 - 1 / (n * t**2.0)), rel=1e-12)
    sine = np.sin(np.pi / n**0.5) / (np.pi / n**0.5) / (1 - 1 / n) ** (first - 1)
    assert left == pytest.approx(sine, rel=1 / (n * rounds))


def test_only_human_data_gives_independent_samples_of_it():
    h = np.array([0.7, 0.2, 0.1])
    scenario = Scenario(
        temperature=1.0, sharing="isolated", self_weight=0.0, n_providers=3, fresh_fraction=1.0, human=h,
        batch_size=[2, 5, 8], schedule="replace", rounds=1,
    )  # fmt: skip
    expected = np.full((3, 3), h @ h) + np.diag((1 - h @ h) / np.array([2, 5, 8]))
    np.testing.assert_allclose(moments.second_moments(scenario)[-1], expected, atol=1e-15)


# --- what follows from the matrices ---------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_moments_are_averages_of_gram_matrices(number):
    """Symmetric, positive semidefinite, in [0, 1]; and they never fall short of the means' own product."""
    scenario = random_scenario(number)
    gram, means = moments.second_moments(scenario), moments.mean_distributions(scenario)
    assert (gram >= 0).all() and (gram <= 1 + 1e-12).all()
    assert np.linalg.eigvalsh(gram - means @ means.swapaxes(1, 2)).min() > -1e-12
    assert (moments.squared_distances(gram) > -1e-12).all()
    initial, fresh = moments.mean_coefficients(scenario)
    np.testing.assert_allclose(initial.sum(axis=2) + fresh, 1, atol=1e-12)
    human = scenario.source.law
    np.testing.assert_allclose(initial @ means[0] + fresh[:, :, None] * human, means, atol=1e-12)


def test_sparse_and_dense_products_agree(monkeypatch):
    scenario = random_scenario(1)
    monkeypatch.setattr(moments, "_DENSE", 2.0)
    sparse_ = moments.second_moments(scenario)
    monkeypatch.setattr(moments, "_DENSE", 0.0)
    np.testing.assert_allclose(moments.second_moments(scenario), sparse_, atol=1e-15)


def test_diversity_of_the_mean_law():
    scenario = random_scenario(2)
    gram = moments.second_moments(scenario)
    inside = moments.expected_simpson_diversity(scenario).mean(axis=1)
    between = moments.squared_distances(gram).mean(axis=(1, 2)) / 2
    np.testing.assert_allclose(
        moments.expected_simpson_diversity_of_mean(scenario), inside + between, atol=1e-14
    )


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"temperature": [1.0, 0.9]}, "temperature = 0.9"),
        ({"top_k": 3}, "top_k = 3"),
        ({"top_p": 0.9}, "top_p = 0.9"),
        ({"training_error": 0.1}, "training_error = 0.1"),
    ],
)
@pytest.mark.parametrize(
    "question", [moments.second_moments, moments.mean_coefficients, moments.mean_distributions]
)
def test_what_does_not_close_is_refused(wrong, name, question):
    with pytest.raises(InputError, match=name):
        question(PLAIN.replace(**wrong))


def test_truncation_without_effect_is_none():
    gram = moments.second_moments(PLAIN)
    np.testing.assert_array_equal(moments.second_moments(PLAIN.replace(top_k=30, top_p=1.0)), gram)
