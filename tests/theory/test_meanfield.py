"""The mean field against the simulation, closed forms, and a plain-Python twin."""

from itertools import pairwise

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg

from analysis.theory.linearised import Linearised
from analysis.theory.meanfield import (
    Population,
    clocks,
    flow,
    mean_field,
    mean_field_distributions,
    step_sizes,
)
from ecosystem import Ecosystem, InputError, Scenario, run
from ecosystem.schedules import Schedule

GRAPH = nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 2)])
HUMAN = [0.4, 0.3, 0.2, 0.1]
SCHEDULES = ["accumulate", "replace", "forget:0.5", "power:0.7"]


def scenario(**changes):
    standard = {
        "human": HUMAN,
        "sharing": GRAPH,
        "temperature": (0.5, 0.8, 1.7),
        "fresh_fraction": (0.0, 0.1, 0.3),
        "rounds": 4,
    }
    return Scenario(**standard | changes)


# --- the simulation -------------------------------------------------------------------------------


def copies(engine, one, number):
    """Many independent copies of a population as the components of one graph: cheap replicates."""
    many = one.replace(
        sharing=nx.disjoint_union_all([one.graph] * number),
        **{name: tuple(one.per_provider(name)) * number for name in ("temperature", "fresh_fraction")},
        initial=one.initial if isinstance(one.initial, str) else np.tile(one.initial, (number, 1)),
    )
    eco = Ecosystem(many, engine=engine)
    states = [eco.distributions]
    while eco.running:
        eco.step()
        states.append(eco.distributions)
    return many, np.stack(states)


def surprises(many, states):
    """Θ(k) minus its exact expectation given Θ(k−1): martingale differences if F is right."""
    population, steps = Population.of(many), step_sizes(many)[:, :, None]
    pulled = np.stack([population.target(theta) for theta in states[:-1]])
    return states[1:] - (1 - steps) * states[:-1] - steps * pulled


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_round_is_expected_to_do_what_the_mean_field_does(engine, schedule):
    # At any number of items and temperature, E[Θ(k) | Θ(k−1)] is one step of the recursion.
    one = scenario(schedule=schedule, outputs_per_round=12, batch_size=12, pretraining_size=20, seed=5)
    many, states = copies(engine, one, 500)
    surprise = surprises(many, states).reshape(one.rounds, 500, 3, 4)
    mean, error = surprise.mean(axis=1), surprise.std(axis=1, ddof=1) / 500**0.5
    # 48 numbers: by chance one beyond 4.5 standard errors in 3,000 such tests.
    assert (np.abs(mean) <= 4.5 * error).all()
    assert error.max() < 0.01


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_at_temperature_one_it_is_the_exact_expectation(engine, schedule):
    one = scenario(
        temperature=1.0, schedule=schedule, outputs_per_round=6, batch_size=6, pretraining_size=10, seed=3,
        initial=[[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.0, 0.0, 0.5, 0.5]],
    )  # fmt: skip
    _, states = copies(engine, one, 500)
    states = states.reshape(one.rounds + 1, 500, 3, 4)
    error = states.std(axis=1, ddof=1) / 500**0.5
    away = np.abs(states.mean(axis=1) - mean_field_distributions(one))
    assert (away <= 4.5 * error + 1e-12).all()


def slope(items, size, error):
    """Weighted least squares of ln size on ln items: the slope and its standard error."""
    x, y, w = np.log(items), np.log(size), (size / error) ** 2
    x = x - np.average(x, weights=w)
    spread = (w * x**2).sum()
    return (w * x * y).sum() / spread, spread**-0.5


@pytest.mark.parametrize("schedule", ["accumulate", "forget:0.5", "replace"])
def test_order_of_convergence(engine, schedule):
    """A run is B^(-1/2) away, the mean over runs 1/B: slopes -1/2 and -1, measured with their errors.

    The bias hides in noise √B times larger. What the noise contributes to first order, propagated by the
    linearised recursion from the surprises of every round, has mean exactly 0 (the test above) and is
    subtracted; the rest is of order 1/B itself. 1/B² is small but there: hence 0.06 and not 0.
    """
    number, items = 250, np.array([64, 128, 256, 512])
    typical, doubt, bias, error = [], [], [], []
    direction = None
    for b in items.tolist():
        one = scenario(
            schedule=schedule, outputs_per_round=b, batch_size=b, pretraining_size=2 * b, rounds=3, seed=b
        )
        many, states = copies(engine, one, number)
        expected = np.tile(mean_field_distributions(one), (1, number, 1))
        linear = np.zeros_like(expected[0])
        for k, surprise in enumerate(surprises(many, states)):
            a = step_sizes(many)[k][:, None]
            linear = (1 - a) * linear + a * Linearised(Population.of(many), expected[k])(linear) + surprise
        away = states[-1] - expected[-1]
        squares = (away**2).reshape(number, -1).mean(axis=1)
        typical.append(squares.mean() ** 0.5)
        doubt.append(squares.std(ddof=1) / number**0.5 / (2 * typical[-1]))
        rest = (away - linear).reshape(number, -1)
        if direction is None:
            direction = rest.mean(axis=0) / np.linalg.norm(rest.mean(axis=0))
        along = rest @ direction
        bias.append(along.mean())
        error.append(along.std(ddof=1) / number**0.5)
    run_slope, run_error = slope(items, np.array(typical), np.array(doubt))
    mean_slope, mean_error = slope(items, np.abs(bias), np.array(error))
    assert max(run_error, mean_error) < 0.05
    assert abs(run_slope + 1 / 2) < 3.5 * run_error
    assert abs(mean_slope + 1) < 0.06 + 3.5 * mean_error


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_table_is_a_run_table(engine, schedule):
    s = scenario(schedule=schedule, rounds=7, record_every=3, mass_k=2, outputs_per_round=40_000,
                 batch_size=40_000, pretraining_size=80_000)  # fmt: skip
    simulated, theory = run(s, engine=engine).table, mean_field(s)
    assert list(theory.columns) == list(simulated.columns)
    assert (theory.dtypes == simulated.dtypes).all()
    keys = ["replicate", "round", "provider"]
    assert theory[keys].equals(simulated[keys])
    # Every metric is of the right thing at the right round: items are many, so the two nearly agree.
    steps = theory.drop(columns=[*keys, "kl_to_human", "kl_from_human", "fisher_rao"])
    np.testing.assert_allclose(simulated[steps.columns], steps, rtol=0.02, atol=0.02)
    first = theory["round"] == 0
    assert (theory.loc[first] == simulated.loc[first]).all(axis=None)


# --- a plain twin and closed forms ----------------------------------------------------------------


def twin(s):
    """The recursion written out in Python numbers, from the scenario's words only."""
    h, v = s.source.law.tolist(), int(s.n_outputs)
    w, n = s.W.toarray().tolist(), int(s.n_providers)
    t, fresh, m = (s.per_provider(x).tolist() for x in ("temperature", "fresh_fraction", "batch_size"))
    theta = [list(h) for _ in range(n)]
    held = [float(s.pretraining_size)] * n
    states = [theta]
    for k in range(1, s.rounds + 1):
        tau = []
        for i in range(n):
            law = [x ** (1 / t[i]) for x in theta[i]]
            if s.top_k:
                least = sorted(law)[-s.top_k]
                law = [x if x >= least else 0.0 for x in law]
            tau.append([x / sum(law) for x in law])
        new = []
        for i in range(n):
            a = Schedule.parse(s.schedule).step_size(k, int(m[i]), held[i])
            held[i] += m[i]
            slot = [
                fresh[i] * h[x] + (1 - fresh[i]) * sum(w[i][j] * tau[j][x] for j in range(n))
                for x in range(v)
            ]
            new.append([theta[i][x] + a * (slot[x] - theta[i][x]) for x in range(v)])
        theta = new
        states.append(theta)
    return np.array(states)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("top_k", [None, 3])
def test_plain_twin(schedule, top_k):
    s = scenario(
        schedule=schedule,
        top_k=top_k,
        rounds=9,
        batch_size=[5, 50, 500],
        outputs_per_round=500,
        self_weight=0.3,
    )
    np.testing.assert_allclose(mean_field_distributions(s), twin(s), atol=1e-14)


def test_flow_at_temperature_one_is_a_matrix_exponential():
    s = scenario(temperature=1.0, initial=np.eye(4)[:3])
    w, fresh = s.W.toarray(), s.per_provider("fresh_fraction")[:, None]
    generator = (1 - fresh) * w - np.eye(3)
    fixed = np.linalg.solve(-generator, fresh * s.source.law)
    times = np.array([0.0, 0.3, 2.0, 7.5])
    exact = [fixed + linalg.expm(generator * t) @ (np.eye(4)[:3] - fixed) for t in times]
    np.testing.assert_allclose(flow(s, times), exact, atol=1e-9)


def test_flow_has_a_clock_for_every_provider():
    # Readers of no one else, T = 1: distance to h falls like exp(−λ s_i), each by its own clock.
    s = Scenario(human=HUMAN, sharing="isolated", n_providers=3, temperature=1.0, fresh_fraction=0.5,
                 batch_size=[1, 10, 100], schedule="accumulate", rounds=30,
                 initial=[0.1, 0.2, 0.3, 0.4])  # fmt: skip
    away = flow(s) - s.source.law
    expected = np.exp(-0.5 * clocks(s))[:, :, None] * away[0]
    np.testing.assert_allclose(away, expected, atol=1e-9)


def test_flow_is_the_limit_of_small_steps():
    errors = []
    for rounds in (40, 80, 160):  # the same time s = 4 in finer and finer steps
        s = scenario(schedule=f"forget:{4 / rounds}", rounds=rounds)
        errors.append(np.abs(mean_field_distributions(s)[-1] - flow(s)[-1]).max())
    orders = np.log2([a / b for a, b in pairwise(errors)])
    assert orders == pytest.approx(1.0, abs=0.1)


def test_above_temperature_one_collapse_is_a_power_of_the_corpus():
    # ‖Θ − u‖ ∝ ℓ^(−(1−1/T)), s = ln ℓ under accumulate.
    s = Scenario(human=HUMAN, n_providers=1, temperature=2.5, fresh_fraction=0.0)
    away = np.abs(flow(s, [10.0, 14.0]) - 0.25).max(axis=(1, 2))
    assert np.log(away[0] / away[1]) / 4 == pytest.approx(1 - 1 / 2.5, abs=1e-3)


# --- invariants and limits ------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    schedule=st.sampled_from(SCHEDULES),
    human=st.lists(st.integers(0, 5), min_size=2, max_size=6).filter(lambda x: sum(x) > 0),
)
def test_floor_mass_and_support(seed, schedule, human):
    random = np.random.default_rng(seed)
    n = int(random.integers(1, 5))
    h = np.array(human) / sum(human)
    s = Scenario(
        human=h,
        n_providers=n,
        sharing="ring",
        temperature=random.choice([0.01, 0.5, 1.0, 3.0, np.inf], n),
        fresh_fraction=random.random(n),
        schedule=schedule,
        rounds=6,
    )
    floor = s.per_provider("fresh_fraction")[:, None] * h
    discrete, left = mean_field_distributions(s), np.ones((7, n, 1))
    left[1:, :, 0] = np.cumprod(1 - step_sizes(s), axis=0)
    continuous, decay = flow(s, rtol=1e-6), np.exp(-clocks(s))[:, :, None]
    for states, gone in ((discrete, left), (continuous, decay)):
        assert (states >= floor * (1 - gone) - 1e-9).all()
        assert states.sum(axis=-1) == pytest.approx(1, abs=1e-6)
        assert (states[..., h == 0] == 0).all()
    assert np.isfinite(mean_field(s).drop(columns=["kl_to_human", "kl_from_human"])).all(axis=None)


def test_one_temperature_from_the_human_law_is_one_model_on_every_graph():
    one = mean_field_distributions(Scenario(n_outputs=30, n_providers=1, rounds=20))
    for sharing in ("star", "scale-free", "communities"):
        many = mean_field_distributions(Scenario(n_outputs=30, n_providers=12, sharing=sharing, rounds=20))
        np.testing.assert_allclose(many, np.tile(one, (1, 12, 1)), atol=1e-14)


def test_cold_hot_and_single_outputs_have_limits():
    s = scenario(temperature=(0.0, np.inf, 1.0), fresh_fraction=0.0, self_weight=0.0, schedule="replace")
    states = mean_field_distributions(s)
    # 1 reads the argmax of 0; 2 reads 0 and 1 alike; 0 reads 2.
    np.testing.assert_allclose(states[1, 1], [1, 0, 0, 0])
    np.testing.assert_allclose(states[1, 2], np.array([1.25, 0.25, 0.25, 0.25]) / 2)
    np.testing.assert_allclose(states[1, 0], HUMAN)
    assert (mean_field_distributions(Scenario(human=[1.0], n_providers=2, rounds=3)) == 1).all()


def test_starts():
    sampled, given = scenario(initial="sampled"), [0.25] * 4
    np.testing.assert_array_equal(mean_field_distributions(sampled)[0], np.tile(HUMAN, (3, 1)))
    np.testing.assert_array_equal(mean_field_distributions(sampled, given)[0], np.full((3, 4), 0.25))


def test_errors_say_what_to_type():
    with pytest.raises(InputError, match=r"training_error = 0\.1.*training_error=0\.0"):
        mean_field(scenario(training_error=0.1))
    for changes in ({"temperature": 0.0}, {"top_k": 2}):
        with pytest.raises(InputError, match="use mean_field_states"):
            flow(scenario(**changes))
    with pytest.raises(InputError, match="times"):
        flow(scenario(), [1.0, 0.5])
    with pytest.raises(InputError, match=r"row 0 of W sums to 0\.9"):
        Population([[0.9]], 1.0, 0.0, [1.0])
    with pytest.raises(InputError, match="provider 1 reads no one"):
        Population([[1.0, 0.0], [0.0, 0.0]], 1.0, 0.0, [1.0])
    with pytest.raises(InputError, match="temperature"):
        Population([[1.0]], -1.0, 0.0, [1.0])
