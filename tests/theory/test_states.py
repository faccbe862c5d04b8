import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from analysis.theory import fixed_points, fold_fraction
from analysis.theory.curves import Curves
from analysis.theory.levels import Levels
from analysis.theory.roots import along, lifted, low
from ecosystem.errors import InputError
from ecosystem.temperature import tempered


def zipf(n, exponent=1.0):
    h = np.arange(1.0, n + 1) ** -exponent
    return h / h.sum()


def residual(theta, h, temperature, fresh):
    return abs(fresh * h + (1 - fresh) * tempered(theta, temperature) - theta).max()


def growth(theta, temperature, fresh):
    """Largest real part of the eigenvalues of the Jacobian on changes that sum to 0."""
    tau = tempered(theta, temperature)
    gain = (1 - fresh) * tau / (temperature * np.maximum(theta, 1e-300))
    jacobian = np.diag(gain - 1) - np.outer(tau, gain)
    basis = np.linalg.svd(np.ones((1, theta.size)))[2][1:].T
    return np.linalg.eigvals(basis.T @ jacobian @ basis).real.max()


def settle(start, h, temperature, fresh, duration=1e6):
    def flow(_, theta):
        return fresh * h + (1 - fresh) * tempered(np.maximum(theta, 0), temperature) - theta

    return solve_ivp(flow, (0, duration), start, method="LSODA", rtol=1e-8, atol=1e-12).y[:, -1]


def exhaustive(h, temperature, fresh, points=1200):
    """Every fixed point, by brute force: all low/high patterns, ΣΘ − 1 scanned in s for sign changes.

    Works on the fixed-point equation as it stands and knows nothing of `analysis.theory.curves`.
    """
    power, load = 1 / temperature, fresh * h
    # ΣΘ^(1/T) lies between V^(1-1/T) and 1, and every output needs a root.
    first = (1 - fresh) * (1 - 1e-9)
    crest = (load.max() / (1 - temperature)) ** (1 - power) * temperature
    last = min(crest, (1 - fresh) * h.size ** (power - 1) * (1 + 1e-9))
    if last <= first:
        return []

    def root(s, b, is_high):
        top = (temperature / s) ** (1 / (power - 1))
        if top - s * top**power <= b:
            return top
        ends = (top, s ** (-1 / (power - 1)) * 1.0000001) if is_high else (0.0, top)
        return brentq(lambda x: x - s * x**power - b, *ends, xtol=1e-16) if b or is_high else 0.0

    spread = np.linspace(0, 1, points) ** 2
    scan = np.unique(np.concatenate([first + (last - first) * spread, last - (last - first) * spread]))
    table = np.array([[[root(s, b, kind) for b in load] for s in scan] for kind in (False, True)])
    found = []
    for pattern in itertools.product((0, 1), repeat=h.size):
        excess = sum(table[kind, :, v] for v, kind in enumerate(pattern)) - 1

        def at(s, pattern=pattern):
            return np.array([root(s, b, kind) for b, kind in zip(load, pattern, strict=True)])

        for i in np.flatnonzero(excess[1:] * excess[:-1] <= 0):
            s = scan[i] if excess[i] * excess[i + 1] == 0 else None
            s = s or brentq(lambda s: at(s).sum() - 1, scan[i], scan[i + 1], xtol=1e-300, rtol=1e-14)
            theta = at(s)
            if not any(abs(theta - other).max() < 1e-7 for other, _ in found):
                found.append((theta, sum(pattern)))
    return found


def has(theta, states, within=1e-6):
    return any(abs(theta - other).max() < within for other in states)


# --- completeness ---------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_states_are_those_of_an_exhaustive_search(seed):
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.full(2 + seed % 3, rng.choice([0.5, 2, 50])))
    if seed == 11:
        h[1] = 0
        h /= h.sum()
    temperature = rng.uniform(0.3, 0.95)
    for fresh in (1 - temperature) * rng.uniform(0.3, 1.8, 2):
        fresh = min(fresh, 0.98)
        brute = exhaustive(h, temperature, fresh)
        ours = fixed_points(h, temperature, fresh, captured="all", unstable=True)
        rates = [growth(theta, temperature, fresh) for theta, _ in brute]
        for (theta, highs), rate in zip(brute, rates, strict=True):
            if rate < -1e-6:
                assert has(theta, [s.distribution for s in ours if s.stable]), "a stable state is missing"
            elif rate > 1e-6 and highs == 1:
                assert has(theta, [s.distribution for s in ours if not s.stable]), "a saddle is missing"
        for state in ours:
            assert has(state.distribution, [theta for theta, _ in brute]), "not a fixed point"
            assert (growth(state.distribution, temperature, fresh) < 0) == state.stable


def test_no_start_ends_anywhere_else():
    rng = np.random.default_rng(5)
    for size, temperature, fresh in [(3, 0.6, 0.3), (4, 0.8, 0.15), (5, 0.7, 0.32), (6, 0.5, 0.2)]:
        h = rng.dirichlet(np.full(size, 8.0))
        states = [s.distribution for s in fixed_points(h, temperature, fresh, captured="all")]
        starts = np.concatenate([rng.dirichlet(np.full(size, 0.3), 15), np.eye(size), [h]])
        ends = [settle(start, h, temperature, fresh, 3e4) for start in starts]
        assert all(has(end, states, 1e-5) for end in ends)
        assert all(has(state, ends, 1e-5) for state in states)


def nearly_uniform(rng):
    """A law and temperature whose most probable output has folds on its own branch."""
    while True:
        h = 1 + 10 ** rng.uniform(-2.5, -0.5) * rng.random(rng.integers(3, 6))
        curves = Curves(h / h.sum(), rng.uniform(0.1, 0.95))
        if curves.turns is not None:
            return curves


@pytest.mark.parametrize("seed", range(10))
def test_the_human_law_leads_to_the_first_state_listed(seed):
    rng = np.random.default_rng(100 + seed)
    curves = nearly_uniform(rng)
    healthy, captured = (np.exp(curves.log_fresh(p)) for p in curves.turns)
    # On both sides of the fold where the healthy state vanishes.
    for part in (-0.05, 0.02, 0.5):
        fresh = healthy + part * (min(captured, np.exp(curves.log_fresh(0.0))) - healthy)
        states = fixed_points(curves.human, curves.temperature, fresh, captured=1)
        assert (states[0].captured is None) == (part > 0)
        assert len(states) == 1 + (part > 0)  # the healthy one, and the capture by the same output
        end = settle(curves.human, curves.human, curves.temperature, fresh)
        assert abs(end - states[0].distribution).max() < 1e-4


def test_two_stable_states_can_have_the_same_output_on_its_high_root():
    # The healthy state crosses its crest before it folds: g > 1, but nothing has taken over.
    h, temperature = np.array([0.252, 0.25, 0.25, 0.248]), 0.6
    curves = Curves(h, temperature)
    fresh = np.exp(np.mean([curves.log_fresh(curves.turns[0]), curves.log_fresh(0.0)]))
    healthy, captured = fixed_points(h, temperature, fresh, captured=1)
    for theta in (healthy.distribution, captured.distribution):
        assert (1 - fresh) * tempered(theta, temperature)[0] / (temperature * theta[0]) > 1
    assert (healthy.captured, captured.captured) == (None, 0)
    assert max(growth(s.distribution, temperature, fresh) for s in (healthy, captured)) < 0


# --- closed forms ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 10, 1000])
@pytest.mark.parametrize("temperature", [0.3, 0.8, 0.99])
def test_the_uniform_state_is_stable_above_one_minus_temperature(size, temperature):
    h = np.full(size, 1 / size)
    for fresh in np.array([0.5, 0.99, 1.01, 1.3]) * (1 - temperature):
        first = fixed_points(h, temperature, fresh, captured=0)[0]
        assert first.captured is None
        assert abs(first.distribution - h).max() < 1e-14
        assert first.stable == (fresh > 1 - temperature)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 0.8, 0.95])
def test_two_equal_outputs_are_a_pitchfork(temperature):
    h = np.array([0.5, 0.5])
    assert fold_fraction(h, temperature, 1) == pytest.approx(1 - temperature, abs=1e-9)
    for part in (0.1, 0.5, 0.9, 0.999):
        fresh = part * (1 - temperature)
        x = brentq(lambda x, f=fresh: (1 - f) * np.tanh(np.arctanh(x) / temperature) - x, 1e-3, 1 - 1e-15)
        states = fixed_points(h, temperature, fresh, unstable=True)
        assert [s.captured for s in states] == [None, 0, 1]
        assert 2 * states[1].distribution[0] - 1 == pytest.approx(x, abs=1e-8)
    assert len(fixed_points(h, temperature, 1.001 * (1 - temperature), unstable=True)) == 1


@pytest.mark.parametrize("size", [3, 5, 100, 10**6])
@pytest.mark.parametrize("temperature", [0.3, 0.8, 0.95])
def test_folds_of_a_uniform_law(size, temperature):
    # One output at x, the others equal: λ(x) = (x − τ)/(1/V − τ) in closed form, maximised on a fine grid.
    logit = np.linspace(1e-3, 60, 400_001)  # ln(Θ_w/Θ_other)
    x, tau = (1 / (1 + (size - 1) * np.exp(-k * logit)) for k in (1, 1 / temperature))
    best = ((tau - x) / (tau - 1 / size)).max()
    fold = fold_fraction(np.full(size, 1 / size), temperature, size - 1)
    assert fold == pytest.approx(best, abs=1e-7)
    assert fold > 1 - temperature


@pytest.mark.parametrize("seed", range(6))
def test_a_captured_state_exists_up_to_its_fold_and_no_further(seed):
    rng = np.random.default_rng(seed)
    h = rng.dirichlet(np.full(4, 5.0))
    h[seed % 4] *= seed % 2  # some with an output that no human writes
    h /= h.sum()
    temperature = rng.uniform(0.3, 0.9)
    for w in np.argsort(-h)[1:]:
        fold = fold_fraction(h, temperature, int(w))
        below = fixed_points(h, temperature, fold - 1e-6, captured=[int(w)])
        above = fixed_points(h, temperature, fold + 1e-6, captured=[int(w)])
        assert [s.captured for s in below][-1] == w
        assert w not in [s.captured for s in above]
        assert -0.05 < growth(below[-1].distribution, temperature, fold - 1e-6) < 0  # about to be lost


def test_the_most_probable_output_stays_captured_longest():
    h = zipf(20, 0.2)
    folds = [fold_fraction(h, 0.8, w) for w in range(20)]
    assert (np.diff(folds) < 0).all()


# --- limits ---------------------------------------------------------------------------------------


def test_human_data_alone_or_the_trivial_temperature_leave_the_human_law():
    h = zipf(5)
    for temperature, fresh in [(0.5, 1), (1, 1), (3, 1), (0, 1), (np.inf, 1), (1, 0.01)]:
        (state,) = fixed_points(h, temperature, fresh)
        assert (state.stable, state.captured) == (True, None)
        np.testing.assert_array_equal(state.distribution, h)


def test_no_human_data():
    h = np.array([0.5, 0.3, 0.2, 0.0])
    for temperature in (0, 0.8):
        states = fixed_points(h, temperature, 0, captured="all")
        np.testing.assert_array_equal([s.distribution for s in states], np.eye(4))
    (drifting,) = fixed_points(h, 1, 0)
    assert not drifting.stable
    for temperature in (2, np.inf):
        (flat,) = fixed_points(h, temperature, 0)
        np.testing.assert_allclose(flat.distribution, [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-15)
        assert flat.stable


def test_zero_temperature():
    h = np.array([0.5, 0.3, 0.2])
    states = fixed_points(h, 0, 0.85)
    assert [s.captured for s in states] == [0]  # the others need λ < 1/(1 + h_max − h_w)
    np.testing.assert_allclose(states[0].distribution, 0.85 * h + [0.15, 0, 0])
    assert len(fixed_points(h, 0, 0.7)) == 3
    assert fold_fraction(h, 0, 1) == pytest.approx(1 / 1.2)
    for w in range(3):  # the limit of small temperatures
        assert fold_fraction(h, 1e-4, w) == pytest.approx(fold_fraction(h, 0, w), abs=2e-3)
    near, limit = (fixed_points(h, t, 0.7) for t in (1e-3, 0))
    for one, other in zip(near, limit, strict=True):
        np.testing.assert_allclose(one.distribution, other.distribution, atol=1e-12)


def test_infinite_temperature_mixes_human_and_uniform():
    h = np.array([0.7, 0.3, 0.0])
    (state,) = fixed_points(h, np.inf, 0.25)
    np.testing.assert_allclose(state.distribution, 0.25 * h + 0.75 * np.array([0.5, 0.5, 0]), atol=1e-15)


@pytest.mark.parametrize("temperature", [0, 0.5, 1, 2])
@pytest.mark.parametrize("fresh", [0, 0.3, 1])
def test_one_output(temperature, fresh):
    (state,) = fixed_points([1.0], temperature, fresh, captured="all")
    assert (state.distribution.tolist(), state.stable, state.captured) == ([1.0], True, None)
    assert fold_fraction([1.0], temperature, 0) == 0


def test_a_law_of_one_output_among_several():
    states = fixed_points([0.0, 1.0, 0.0], 0.8, 0.05, captured="all")
    assert [s.captured for s in states] == [None, 0, 2]
    np.testing.assert_array_equal(states[0].distribution, [0, 1, 0])
    assert all(residual(s.distribution, np.array([0, 1.0, 0]), 0.8, 0.05) < 1e-15 for s in states)


# --- invariants -----------------------------------------------------------------------------------

laws = st.lists(
    st.one_of(st.floats(1e-3, 1), st.sampled_from([0.0, 1e-300, 1e-12, 0.5])), min_size=1, max_size=7
).filter(lambda weights: sum(weights) > 1e-3)
temperatures = st.one_of(
    st.floats(0, 5), st.floats(0.3, 1), st.sampled_from([0.01, 1 - 1e-9, 1 + 1e-9, 0.999, 1, np.inf])
)
fractions = st.one_of(st.floats(0, 1), st.sampled_from([1e-300, 1e-9, 1 - 1e-12]))


@settings(deadline=None, max_examples=150)
@given(laws, temperatures, fractions)
def test_every_state_solves_its_equation(weights, temperature, fresh):
    h = np.array(weights) / sum(weights)
    states = fixed_points(h, temperature, fresh, captured="all", unstable=True)
    for state in states:
        theta = state.distribution
        assert np.isfinite(theta).all() and (theta >= 0).all()
        assert theta.sum() == pytest.approx(1, abs=1e-13)
        assert residual(theta, h, temperature, fresh) < 1e-12
        if state.captured is not None:
            assert theta[state.captured] == theta.max()
    stable = [state for state in states if state.stable]
    assert stable or (temperature == 1 and fresh == 0)
    assert len({state.captured for state in stable}) == len(stable)


# --- the machinery --------------------------------------------------------------------------------


def test_a_condensed_law_gives_the_sums_of_the_full_one():
    rng = np.random.default_rng(1)
    for weights in (np.arange(1, 50_001) ** -1.1, rng.gamma(0.3, size=20_000), 1 + 1e-9 * rng.random(9000)):
        log_ratio = np.log(weights / weights.max())
        log_ratio = log_ratio[log_ratio < 0]
        levels = Levels.of(log_ratio)
        assert levels.weight.size < log_ratio.size / 8
        for temperature, p in itertools.product((0.05, 0.5, 0.9, 0.999), (-3, -0.1, 0, 1e-3, 2)):
            a = 1 / temperature - 1
            full = np.exp(low(log_ratio, along(p, a), a)).sum()
            ours = levels.weight @ np.exp(low(levels.log_ratio, along(p, a), a))
            assert ours == pytest.approx(full, rel=1e-13)
        for temperature, gain in itertools.product((1.01, 2, np.inf), (-1e-3, -1)):
            full = np.exp(lifted(log_ratio, gain, temperature)).sum()
            ours = levels.weight @ np.exp(lifted(levels.log_ratio, gain, temperature))
            assert ours == pytest.approx(full, rel=1e-13)


def test_the_two_scalar_inequalities_behind_completeness():
    # See `analysis.theory.curves`: both roots of one load, from next to the crest to next to load 0.
    for temperature in (0.001, 0.03, 0.2, 0.5, 0.8, 0.95, 0.99):
        power = 1 / temperature

        def log_load(x, temperature=temperature):
            return x * temperature / (1 - temperature) + np.log(1 - temperature - temperature * np.expm1(x))

        def mass(x, power=power):
            return np.exp(x / (power - 1) + x) / abs(np.expm1(x))

        def k(x, power=power):
            return (power - np.exp(2 * x)) / np.expm1(x) ** 2

        def chord(x, power=power):
            g = np.exp(x)
            f = k(x) ** 2 + 2 * g * (power - g) ** 2 / np.expm1(x) ** 4
            return (f - power**2) / (k(x) - power)

        for high in np.geomspace(0.02, 0.999, 60) * -np.log(temperature):
            floor = -1.0
            while log_load(floor) > log_load(high):
                floor *= 2
            level = log_load(high)
            lower = brentq(lambda x, level=level: log_load(x) - level, floor, -1e-12, xtol=1e-15)
            if lower < -600:
                continue
            # Convexity in s of the sum of both roots.
            assert mass(lower) * (k(lower) - power) >= mass(high) * (k(high) - power)
            if k(high) > power:
                assert k(lower) > k(high)
                assert chord(high) > chord(lower)


@pytest.mark.parametrize(
    "arguments",
    [
        ([0.5, 0.6], 0.8, 0.1),
        ([0.5, -0.5, 1], 0.8, 0.1),
        ([], 0.8, 0.1),
        ([0.5, np.nan], 0.8, 0.1),
        ("zipf", 0.8, 0.1),
        ([0.5, 0.5], -1, 0.1),
        ([0.5, 0.5], np.nan, 0.1),
        ([0.5, 0.5], 0.8, 1.1),
        ([0.5, 0.5], 0.8, np.nan),
    ],
)
def test_bad_input_is_named(arguments):
    with pytest.raises(InputError):
        fixed_points(*arguments)


def test_outputs_that_are_not_there():
    with pytest.raises(InputError, match="output 2"):
        fold_fraction([0.5, 0.5], 0.8, 2)
    with pytest.raises(InputError, match="captured"):
        fixed_points([0.5, 0.5], 0.8, 0.1, captured="some")
    with pytest.raises(InputError, match="captured"):
        fixed_points([0.5, 0.5], 0.8, 0.1, captured=-1)
