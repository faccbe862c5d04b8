"""Urns and drift against simulation, closed forms and exact identities."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, special

from analysis.theory import drift, moments, takeover, urns
from ecosystem import Scenario
from ecosystem.errors import InputError
from ecosystem.model import Ecosystem
from ecosystem.temperature import tempered


def urn(weights, exponent, steps, replicates, seed):
    """Weights after some steps of single items, shape (replicates, V), straight from the definition."""
    random = np.random.default_rng(seed)
    w = np.tile(np.asarray(weights, dtype=float), (replicates, 1))
    rows = np.arange(replicates)
    for _ in range(steps):
        cumulative = np.cumsum(w**exponent, axis=1)
        drawn = (random.random(replicates)[:, None] * cumulative[:, -1:] >= cumulative).sum(axis=1)
        w[rows, drawn] += 1
    return w


def many_alone(engine, n, **settings):
    """An ecosystem of n isolated providers: n independent runs of one model."""
    rounds = settings["rounds"]
    scenario = Scenario(
        sharing="isolated", n_providers=n, fresh_fraction=0.0, record_every=rounds, **settings
    )
    return Ecosystem(scenario, engine=engine)


def standard_errors(samples, expected):
    """How many standard errors the mean over the first axis is away from what is expected."""
    error = samples.std(axis=0, ddof=1) / len(samples) ** 0.5
    return np.max(np.abs(samples.mean(axis=0) - expected) / np.maximum(error, 1e-12))


# --- T = 1 --------------------------------------------------------------------------------------------


def test_polya_variance_closed_form_for_single_items():
    p, prior = np.array([0.5, 0.3, 0.2, 0.0]), 7.5
    for k in (0, 1, 13, 10**6):
        expected = p * (1 - p) * k / ((prior + 1) * (prior + k))
        np.testing.assert_allclose(urns.polya_variance(p, prior, k), expected, rtol=1e-11)
    np.testing.assert_allclose(urns.polya_variance(p, prior), p * (1 - p) / (prior + 1), rtol=1e-11)


@pytest.mark.parametrize("batch_size", [1, 3, 40])
@pytest.mark.parametrize("prior", [2, 500])
def test_polya_variance_is_that_of_the_exact_moments(batch_size, prior):
    p = np.array([0.6, 0.3, 0.1])
    scenario = Scenario(
        temperature=1.0, sharing="isolated", n_providers=1, fresh_fraction=0.0, human=p,
        batch_size=batch_size, outputs_per_round=batch_size, pretraining_size=prior, rounds=9,
    )  # fmt: skip
    gain = moments.second_moments(scenario)[:, 0, 0] - p @ p
    found = [urns.polya_variance(p, prior, k, batch_size).sum() for k in range(10)]
    np.testing.assert_allclose(found, gain, rtol=1e-9, atol=1e-15)


def test_polya_limit_is_dirichlet():
    """All moments up to the third of a long urn, within 4 standard errors (and 2e-3 for the steps left)."""
    p, prior = np.array([0.5, 0.3, 0.2]), 1.7
    theta = urn(prior * p, 1.0, 600, 4000, seed=1)
    theta /= theta.sum(axis=1, keepdims=True)
    parameters = urns.polya_limit(p, prior)
    np.testing.assert_allclose(parameters, prior * p)
    for power in (1, 2, 3):
        expected = special.poch(parameters, power) / special.poch(prior, power)
        samples = theta**power
        error = samples.std(axis=0) / 4000**0.5
        assert (np.abs(samples.mean(axis=0) - expected) < 4 * error + 2e-3).all()


# --- the mean field at every temperature --------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 0.8, 0.999, 1.0, 1.001, 1.6, 7.0, np.inf])
def test_urn_mean_field_solves_its_equation(temperature):
    start, growth = np.array([0.5, 0.3, 0.2, 0.0]), np.array([1.0, 1.5, 8.0, 400.0])
    solution = integrate.solve_ivp(
        lambda s, x: tempered(np.maximum(x, 0), temperature) - x, (0, 6), start, t_eval=np.log(growth),
        rtol=1e-11, atol=1e-13,
    )  # fmt: skip
    found = urns.urn_mean_field(start, temperature, growth)
    np.testing.assert_allclose(found, solution.y.T, atol=1e-9)
    assert (found[:, 3] == 0).all()


def test_urn_mean_field_degenerate_cases():
    np.testing.assert_array_equal(urns.urn_mean_field([1.0], 0.5, [1, 10]), [[1.0], [1.0]])
    np.testing.assert_allclose(urns.urn_mean_field([0.4, 0.4, 0.2], 0, 10), [0.49, 0.49, 0.02])
    np.testing.assert_allclose(urns.urn_mean_field([0.4, 0.4, 0.2], 0.01, 10), [0.49, 0.49, 0.02])
    np.testing.assert_allclose(urns.urn_mean_field([0.5, 0.5], 0.7, 1e200), [0.5, 0.5])
    tiny = np.array([1 - 1e-300, 1e-300])
    for temperature in (0.01, 0.5, 2.0, 100.0):
        assert np.isfinite(urns.urn_mean_field(tiny, temperature, [1, 2, 1e6])).all()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(1e-6, 1), min_size=2, max_size=5),
    st.floats(0.05, 20),
    st.floats(1, 1e6),
    st.floats(1, 1e6),
)
def test_urn_mean_field_is_a_flow(weights, temperature, first, second):
    start = np.array(weights) / sum(weights)
    halfway = urns.urn_mean_field(start, temperature, first)
    np.testing.assert_allclose(
        urns.urn_mean_field(halfway, temperature, second),
        urns.urn_mean_field(start, temperature, first * second),
        atol=1e-7,
    )


# --- T > 1 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [1.2, 2.0, 5.0, np.inf])
def test_relaxation_is_the_tail_of_the_mean_field(temperature):
    start = np.array([0.7, 0.2, 0.1, 0.0])
    found = urns.relaxation(start, temperature)
    assert found.rate == pytest.approx(1 - 1 / temperature)
    uniform = np.array([1, 1, 1, 0]) / 3
    growth = 1e5 ** (1 / found.rate)
    away = (urns.urn_mean_field(start, temperature, growth) - uniform) * growth**found.rate
    np.testing.assert_allclose(away, found.amplitude, rtol=1e-4, atol=1e-12)
    near = uniform + 1e-6 * np.array([1, -2, 1, 0])
    linear = urns.relaxation(near, temperature).amplitude
    np.testing.assert_allclose(linear, near - uniform, rtol=1e-4, atol=1e-15)


def test_simulated_relaxation_falls_at_the_predicted_rate():
    """Mean over replicates: the exponent within 0.02, the prefactor within 4 standard errors + 1/ℓ(0)."""
    start, prior, temperature = np.array([0.6, 0.3, 0.1]), 200, 1.6
    early = urn(prior * start, 1 / temperature, 1800, 1500, seed=3)
    late = urn(prior * start, 1 / temperature, 9800, 1500, seed=3)
    away = [w / w.sum(axis=1, keepdims=True) - 1 / 3 for w in (early, late)]
    for samples, growth in zip(away, (10, 50), strict=True):
        exact = urns.urn_mean_field(start, temperature, growth) - 1 / 3
        error = samples.std(axis=0) / 1500**0.5
        assert (np.abs(samples.mean(axis=0) - exact) < 4 * error + 1 / prior * np.abs(exact)).all()
    size = [np.linalg.norm(samples.mean(axis=0)) for samples in away]
    exact_size = [np.linalg.norm(urns.urn_mean_field(start, temperature, g) - 1 / 3) for g in (10, 50)]
    slope = np.log(size[0] / size[1]) / np.log(5)
    assert slope == pytest.approx(np.log(exact_size[0] / exact_size[1]) / np.log(5), abs=0.02)
    assert slope == pytest.approx(urns.relaxation(start, temperature).rate, abs=0.03)


@pytest.mark.parametrize("temperature", [1.3, 2.0, 4.0])
def test_simulated_spread_around_uniform(temperature):
    prior, n, replicates = 300, 4, 2500
    w = urn(np.full(n, prior / n), 1 / temperature, 2700, replicates, seed=4)
    away = ((w / w.sum(axis=1, keepdims=True) - 1 / n) ** 2).sum(axis=1)
    expected = urns.relaxation_spread(n, temperature, prior, 3000)
    error = away.std() / replicates**0.5
    assert abs(away.mean() - expected) < 4 * error + 3 / prior * expected
    wrong_rate = urns.relaxation_spread(n, temperature + 1, prior, 3000)
    assert abs(away.mean() - wrong_rate) > 4 * error + 3 / prior * expected


def test_spread_limits():
    far = np.array([1e9])
    assert urns.relaxation_spread(5, 4.0, 10, far)[0] * 1e9 == pytest.approx(0.8 / 0.5, rel=1e-3)
    assert urns.relaxation_spread(5, 2.0, 10, far)[0] == pytest.approx(0.8 * np.log(1e8) / 1e9)
    assert urns.relaxation_spread(5, 2.0, 10, 10) == 0


# --- T < 1 --------------------------------------------------------------------------------------------


def test_takeover_probability_in_closed_form():
    r"""α = 2, weights 1 and 2. Both φ are of the form π√s/sinh(π√s): with D the difference of two
    independent explosion times from 2, P = E[1 − e^{−|D|}]/2 and E e^{−|D|} = ∫ |φ(iω)|²/(1+ω²) dω/π."""
    value, _ = integrate.quad(lambda y: y**3 / (np.cosh(y) - np.cos(y)), 0, 60, epsabs=1e-13)
    expected = (1 - 2 * value / np.pi**3) / 2
    found = takeover.takeover_probabilities([1 / 3, 2 / 3], 3, 0.5)
    np.testing.assert_allclose(found, [expected, 1 - expected], atol=1e-11)


@pytest.mark.parametrize("temperature", [0.02, 0.2, 0.5, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("size", [0.3, 7.7, 900])
def test_equal_outputs_have_equal_chances(temperature, size):
    np.testing.assert_allclose(takeover.takeover_probabilities(np.full(7, 1 / 7), size, temperature), 1 / 7)


@pytest.mark.parametrize("exponent", [1.0002, 1.1, 1.7, 2.4, 2.6, 4.0, 11.0])
@pytest.mark.parametrize("weights", [(0.3, 0.2), (0.5, 0.7, 0.7, 0.01), (3.3, 4.4, 1.1), (80, 75.5, 2, 0.1)])
def test_the_first_item_changes_no_probability(weights, exponent):
    """P(v wins) is the mean of itself over the first draw, exactly: for all weights, by either method."""
    w = np.array(weights, dtype=float)
    first = (w / w.max()) ** exponent / ((w / w.max()) ** exponent).sum()
    after = sum(
        chance * takeover._takeover(w + unit, exponent)
        for chance, unit in zip(first, np.eye(w.size), strict=True)
    )
    np.testing.assert_allclose(takeover._takeover(w, exponent), after, atol=1e-10)


@pytest.mark.parametrize(
    ("weights", "exponent"), [((0.7, 1.3, 2.0), 2.5), ((0.6, 0.9), 3.0), ((3, 4, 5), 5.0)]
)
def test_the_two_inversions_agree(weights, exponent):
    w, one = np.array(weights, dtype=float), np.ones(len(weights), dtype=int)
    residues = takeover._smallest(*takeover._by_residues(w, exponent, w[-1]), one)
    fourier = takeover._smallest(*takeover._by_fourier(w, exponent, w[-1], 4), one)
    np.testing.assert_allclose(residues, fourier, atol=1e-11)
    assert residues.sum() == pytest.approx(1, abs=1e-11)


@pytest.mark.parametrize(
    ("weights", "temperature", "steps"),
    [((2.5, 2.0), 0.5, 500), ((0.9, 0.4, 0.7, 0.0), 0.4, 300), ((6, 5, 1), 0.25, 300)],
)
def test_simulated_takeover(weights, temperature, steps):
    """4 standard errors. Long after the start the leader is the winner but for a chance below 1e-3."""
    replicates = 8000
    w = urn(weights, 1 / temperature, steps, replicates, seed=5)
    won = np.bincount(w.argmax(axis=1), minlength=w.shape[1]) / replicates
    total = sum(weights)
    expected = takeover.takeover_probabilities(np.array(weights) / total, total, temperature)
    error = np.sqrt(expected * (1 - expected) / replicates)
    assert (np.abs(won - expected) <= 4 * error + 1e-3).all()
    # One step of difference in the larger weight would be seen.
    positive = np.array([w for w in weights if w > 0])
    positive[0] += 1
    other = takeover._takeover(positive, 1 / temperature)
    assert abs(won[0] - other[0]) > 8 * error[0]


def test_takeover_in_the_ecosystem(engine):
    start = np.array([0.5, 0.375, 0.125])
    eco = many_alone(
        engine,
        300,
        temperature=0.5,
        human=start,
        pretraining_size=8,
        outputs_per_round=1,
        batch_size=1,
        rounds=100,
    )
    while eco.running:
        eco.step()
    won = np.bincount(eco.distributions.argmax(axis=1), minlength=3) / 300
    expected = takeover.takeover_probabilities(start, 8, 0.5)
    assert (np.abs(won - expected) < 4 * np.sqrt(expected * (1 - expected) / 300) + 5e-3).all()


def test_takeover_close_to_polya():
    """At T → 1 the largest component of the Dirichlet limit wins: for two outputs, of a Beta law."""
    for weights in [(1.0, 2.0), (0.2, 0.05), (400.5, 421.0), (2e5, 2.001e5)]:
        total = sum(weights)
        second = special.betainc(*weights, 0.5)  # P(share of the first < 1/2)
        for temperature in (1 - 1e-8, 1 - 1e-12):
            found = takeover.takeover_probabilities(np.array(weights) / total, total, temperature)
            np.testing.assert_allclose(
                found, [1 - second, second], atol=2e-7 if temperature < 1 - 1e-10 else 1e-9
            )


def test_takeover_degenerate_cases():
    chances = takeover.takeover_probabilities
    np.testing.assert_array_equal(chances([0.4, 0.4, 0.2], 10, 0), [0.5, 0.5, 0])
    np.testing.assert_array_equal(chances([0, 1, 0], 10, 0.7), [0, 1, 0])
    np.testing.assert_allclose(chances([0.4, 0.4, 0.2, 0], 10, 1e-3), [0.5, 0.5, 0, 0], atol=1e-12)
    huge = chances([0.5, 0.5 - 1e-9, 1e-9], 1e6, 0.9)
    assert huge[0] == pytest.approx(0.5, abs=1e-3) and huge[2] == 0
    with pytest.raises(InputError, match="T < 1"):
        chances([0.5, 0.5], 10, 1.0)
    with pytest.raises(InputError, match="pretraining_size"):
        chances([0.5, 0.5], 0, 0.5)
    with pytest.raises(InputError, match=r"initial: the probabilities sum to 1\.1"):
        chances([0.5, 0.6], 10, 0.5)


# --- drift --------------------------------------------------------------------------------------------


def test_fixation_of_two_and_three_items_by_hand():
    assert drift.fixation_time([0.5, 0.5], 1) == 1
    assert drift.fixation_time([0.3, 0.7, 0.0], 2) == pytest.approx(1 + 2 * 0.42)
    # Three items: from counts (2, 1) and (1, 2) each round keeps two kinds with chance 2/3; from three
    # kinds, 2/9 stay three, 2/3 become two.
    two = 3.0
    three = (1 + two * 2 / 3) / (1 - 2 / 9)
    assert drift.fixation_time([1 / 3] * 3, 3) == pytest.approx(1 + 2 / 9 * three + 2 / 3 * two)


def test_fixation_from_ten_equal_outputs():
    tenth = [0.1] * 10
    for n in (100, 1000):
        exact = drift.fixation_time(tenth, n)
        assert drift.fixation_time_diffusion(tenth, n) == pytest.approx(exact, abs=0.3 / n)
        assert drift.fixation_time_diffusion(tenth, n, corrected=False) == pytest.approx(1.8965 * n, rel=1e-4)
        assert exact == pytest.approx(1.896 * n, rel=3 / n**0.9)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=6), st.integers(40, 120))
def test_diffusion_with_its_correction(weights, n):
    p = np.array(weights) / sum(weights)
    if n * (1 - p.max()) > 10:
        found = drift.fixation_time_diffusion(p, n)
        assert found == pytest.approx(drift.fixation_time(p, n), abs=0.5 / n + 0.002)


def test_simulated_fixation_and_survival(engine):
    """400 isolated providers, each resampling 8 items of 5 outputs until one is left."""
    start, n, replicates = np.array([0.3, 0.3, 0.2, 0.15, 0.05]), 8, 400
    rounds = 60
    eco = many_alone(engine,
        replicates, temperature=1.0, human=start, outputs_per_round=n, batch_size=n, schedule="replace",
        rounds=rounds,
    )  # fmt: skip
    left = [(eco.distributions > 0)]
    while eco.running:
        eco.step()
        left.append(eco.distributions > 0)
    several = np.array(left).sum(axis=2) > 1
    curve = drift.unfixed_probability(start, n, rounds)
    error = np.sqrt(curve * (1 - curve) / replicates)
    assert (np.abs(several.mean(axis=1) - curve) <= 4 * error + 1e-3).all()
    capped = several.sum(axis=0)
    assert standard_errors(capped, curve.sum()) < 4
    assert curve.sum() == pytest.approx(drift.fixation_time(start, n), abs=0.05)
    for k in (1, 4, 12):
        alive = drift.symbol_survival(start, n, k)[-1]
        assert standard_errors(left[k].astype(float), alive) < 4


def test_unfixed_probability_sums_to_the_mean_time():
    p = [0.5, 0.2, 0.3]
    assert drift.unfixed_probability(p, 12, 600).sum() == pytest.approx(drift.fixation_time(p, 12), rel=1e-12)
    np.testing.assert_array_equal(drift.unfixed_probability([0, 1], 5, 3), 0)
    assert drift.fixation_time([0, 1], 5) == 0 == drift.fixation_time_diffusion([0, 1], 5)


def test_symbol_survival_by_the_dual_chain():
    """Backwards in time: k generations ago n items had A ancestors, and all missed the output at first."""
    n, p, generations = 9, 0.15, 6
    parents = np.zeros((n + 1, n + 1))  # parents[a, b]: a items have b different parents among n
    parents[0, 0] = 1
    for a in range(n):
        b = np.arange(n + 1)
        parents[a + 1] += parents[a] * b / n
        parents[a + 1, 1:] += (parents[a] * (n - b) / n)[:-1]
    ancestors = np.eye(n + 1)[n]
    for k in range(generations):
        lost = ancestors @ (1 - p) ** np.arange(n + 1)
        assert drift.symbol_survival(p, n, generations)[k] == pytest.approx(1 - lost, rel=1e-11)
        ancestors = ancestors @ parents


def test_poisson_survival_and_its_bound():
    lam, generations = np.array([0.0, 0.5, 3.0]), 200
    found = drift.symbol_survival_poisson(lam, generations)
    bound = drift.symbol_survival_bound(lam, generations)
    assert (found >= bound).all() and (found[:, 0] == 0).all()
    np.testing.assert_allclose(found[0], bound[0])
    np.testing.assert_allclose(found[-1, 1:], -np.expm1(-2 * lam[1:] / generations), rtol=0.05)
    many = drift.symbol_survival(lam / 2000, 2000, 20)
    np.testing.assert_allclose(many, found[:20], atol=2e-3)
    assert (many >= found[:20]).all()
    random = np.random.default_rng(6)
    counts = random.poisson(3.0, 20_000)
    for k in range(10):
        alive = found[k, 2]
        assert abs((counts > 0).mean() - alive) < 4 * np.sqrt(alive * (1 - alive) / 20_000)
        counts = random.poisson(counts)


@pytest.mark.parametrize(
    ("question", "name"),
    [
        (lambda: drift.fixation_time([0.5, 0.5], 10**6), "fixation_time_diffusion"),
        (lambda: drift.fixation_time([0.5, 0.5], 0), "batch_size"),
        (lambda: drift.symbol_survival(1.5, 10, 3), "probability"),
        (lambda: drift.symbol_survival_poisson(-1.0, 3), "mean"),
        (lambda: drift.symbol_survival_poisson(1.0, 0), "generations"),
        (lambda: urns.relaxation([0.5, 0.5], 1.0), "T > 1"),
        (lambda: urns.relaxation_spread(3, 2.0, 10, 5), "trained_items"),
        (lambda: urns.urn_mean_field([0.5, 0.5], 0.5, 0.5), "growth"),
        (lambda: urns.urn_mean_field([0.5, 0.5], -1.0, 2.0), "temperature"),
        (lambda: urns.polya_variance([0.5, 0.5], 3, -1), "rounds"),
        (lambda: urns.polya_variance([0.5, 0.5], 3, 1, 0), "batch_size"),
        (lambda: urns.polya_limit([[0.5, 0.5]], 3), "initial"),
        (lambda: urns.polya_limit([0.5, np.nan], 3), "initial"),
    ],
)
def test_wrong_arguments_are_named(question, name):
    with pytest.raises(InputError, match=name):
        question()
