"""The simulated round against exact results: |simulated − exact| ≤ 4 standard errors.

Copies of one model are isolated providers of one ecosystem: they never meet, so they are independent, and
the standard error over copies is honest. Each test says how far a plausible wrong rule would be off.
"""

import numpy as np
import pytest
from scipy.stats import binom

from ecosystem import Ecosystem, Scenario, run
from ecosystem.schedules import Schedule
from ecosystem.temperature import tempered

K = 4.0


def copies(engine, n, rounds, human, *, items=1, **settings):
    """Θ of n independent models after the last round, shape (n, V)."""
    scenario = Scenario(
        human=human,
        n_providers=n,
        sharing="isolated",
        outputs_per_round=items,
        batch_size=items,
        rounds=rounds,
        record_every=rounds,
        **{"fresh_fraction": 0.0, "temperature": 1.0} | settings,
    )
    return run(scenario, engine=engine).final[0]


def close(values, exact):
    """Assert that the mean over copies is within K standard errors of the exact value."""
    values = np.asarray(values, dtype=float)
    error = values.std(axis=0, ddof=1) / len(values) ** 0.5
    assert np.all(np.abs(values.mean(axis=0) - exact) <= K * error + 1e-12), (
        values.mean(axis=0),
        exact,
        error,
    )
    return error


def diversity(theta):
    return 1 - (theta**2).sum(axis=-1)


HUMAN = np.array([0.5, 0.3, 0.2])


def test_polya_urn_mean_and_variance(engine):
    # Single items, T = 1, prior weight ℓ0: Var Θ_v = p(1−p) K / ((ℓ0+1)(ℓ0+K)).
    # A step of 1/(ℓ0+K−1) instead of 1/(ℓ0+K) would be off by 24%; 4 standard errors are 6%.
    prior, rounds = 4, 12
    theta = copies(engine, 8000, rounds, HUMAN, schedule="accumulate", pretraining_size=prior)
    close(theta, HUMAN)
    exact = HUMAN * (1 - HUMAN) * rounds / ((prior + 1) * (prior + rounds))
    error = close((theta - HUMAN) ** 2, exact)
    assert (K * error < 0.08 * exact).all()


def test_polya_urn_limit_is_dirichlet(engine):
    # Θ(∞) ~ Dirichlet(ℓ0 Θ(0)); after K rounds the urn is Dirichlet-multinomial. With ℓ0 = 2 and two equal
    # outputs, the number of rounds that drew output 0 is uniform on 0..K.
    rounds = 10
    theta = copies(engine, 8000, rounds, [0.5, 0.5], schedule="accumulate", pretraining_size=2)
    counts = np.bincount(np.round(theta[:, 0] * (2 + rounds) - 1).astype(int), minlength=rounds + 1)
    p = 1 / (rounds + 1)
    assert np.abs(counts / 8000 - p).max() < K * (p * (1 - p) / 8000) ** 0.5


@pytest.mark.parametrize("n", [5, 20])
def test_wright_fisher_loses_diversity_at_rate_1_over_n(engine, n):
    # T = 1, replace, m = B = n: E D(k) = (1 − 1/n)^k D(0) (Seddik et al., arXiv:2404.05090).
    rounds = n // 2 + 2
    theta = copies(engine, 4000, rounds, HUMAN, items=n, schedule="replace")
    error = close(diversity(theta), (1 - 1 / n) ** rounds * diversity(HUMAN))
    assert K * error < abs((1 - 1 / (n + 1)) ** rounds - (1 - 1 / n) ** rounds) * diversity(HUMAN) * 2.5


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_replace_with_human_share_reaches_its_balance(engine, share):
    # E ΣΘ² → [1/n + (1−1/n)(1−(1−m)²) Σh²] / [1 − (1−1/n)(1−m)²]: two different slots hold different items;
    # with chance (1−m)² both are the model's own and agree with E ΣΘ², otherwise they agree with Σh².
    n, rounds = 10, 45
    theta = copies(engine, 2500, rounds, HUMAN, items=n, schedule="replace", fresh_fraction=share)
    square = (HUMAN**2).sum()
    kept = (1 - share) ** 2
    exact = (1 / n + (1 - 1 / n) * (1 - kept) * square) / (1 - (1 - 1 / n) * kept)
    error = close((theta**2).sum(axis=-1), exact)
    assert K * error < 0.1 * (exact - square)


@pytest.mark.parametrize("generations", [2, 6])
def test_accumulate_follows_the_sine_product(engine, generations):
    # n items a generation, the first model itself sampled from ℓ0 = n human items: after G generations
    # E D = Π_{t≤G} (1 − 1/(n t²)) D(h), which tends to sin(π/√n)/(π/√n) D(h).
    n = 4
    theta = copies(
        engine,
        8000,
        generations - 1,
        HUMAN,
        items=n,
        schedule="accumulate",
        pretraining_size=n,
        initial="sampled",
    )
    t = np.arange(1, generations + 1)
    error = close(diversity(theta), np.prod(1 - 1 / (n * t**2)) * diversity(HUMAN))
    assert K * error < 0.05


def test_accumulate_from_the_law_itself_starts_the_product_at_two(engine):
    n, generations = 4, 6
    theta = copies(engine, 8000, generations - 1, HUMAN, items=n, schedule="accumulate", pretraining_size=n)
    t = np.arange(2, generations + 1)
    close(diversity(theta), np.prod(1 - 1 / (n * t**2)) * diversity(HUMAN))


@pytest.mark.parametrize("schedule", ["forget:0.2", "power:0.7:1:1", "accumulate", "replace"])
def test_diversity_at_t_1_under_every_schedule(engine, schedule):
    # T = 1, isolated, m = B: E D(k) = Π (1 − a(l)²/m) D(0).
    m, rounds, prior = 5, 8, 10
    theta = copies(engine, 4000, rounds, HUMAN, items=m, schedule=schedule, pretraining_size=prior)
    parsed = Schedule.parse(schedule)
    steps = np.array([parsed.step_size(k, m, prior + m * (k - 1)) for k in range(1, rounds + 1)])
    close(diversity(theta), np.prod(1 - steps**2 / m) * diversity(HUMAN))


def wright_fisher_times(engine, n_items, human, n):
    """Rounds until a single output is left: a model is followed until it is fixed."""
    scenario = Scenario(
        human=human,
        n_providers=n,
        sharing="isolated",
        fresh_fraction=0.0,
        temperature=1.0,
        outputs_per_round=n_items,
        batch_size=n_items,
        schedule="replace",
        rounds=10**6,
        record_every=10**6,
    )
    eco, times, waiting = Ecosystem(scenario, engine=engine), [], np.arange(n)
    while waiting.size:
        eco.step()
        laws = eco.distributions if engine == "agents" else eco.distributions[waiting]
        fixed = laws.max(axis=1) == 1
        times += [eco.round] * np.count_nonzero(fixed)
        waiting = waiting[~fixed]
        if engine == "agents":  # to save time
            eco.providers = [p for p, done in zip(eco.providers, fixed, strict=True) if not done]
    return np.array(times)


def test_fixation_time_of_two_outputs_is_the_markov_chains(engine):
    # 8 items, 2 equal outputs: absorption time of the binomial chain, t = (I − Q)⁻¹ 1.
    n = 8
    states = np.arange(1, n)
    q = binom.pmf(states[None, :], n, states[:, None] / n)
    # The start is the law (1/2, 1/2), which is state 4 of 8.
    exact = np.linalg.solve(np.eye(n - 1) - q, np.ones(n - 1))[states == n // 2][0]
    error = close(wright_fisher_times(engine, n, [0.5, 0.5], 3000), exact)
    assert K * error < 0.1 * exact


def test_fixation_time_of_ten_outputs_against_the_published_numbers(engine):
    # Diffusion limit −2n Σ(1−p) ln(1−p) = 1.896 n for ten equal outputs; the chain itself is within about
    # one round of it. Published (Kazdan et al., arXiv:2410.16713, discrete fitting): about 17 and 205 rounds.
    for n, published, models in ((10, 17, 1500), (100, 205, 250)):
        times = wright_fisher_times(engine, n, [0.1] * 10, models)
        error = times.std(ddof=1) / len(times) ** 0.5
        assert abs(times.mean() - 1.896 * n) < K * error + 1.5
        assert abs(times.mean() - published) < K * error + 0.15 * published


@pytest.mark.parametrize("temperature", [1.5, 2.0, 4.0])
def test_above_t_1_the_mean_returns_to_uniform_as_a_power_of_the_corpus(engine, temperature):
    # ‖E Θ − u‖ ∝ ℓ^−(1−1/T), measured on the mean over copies (a single run carries noise of order ℓ^−1/2).
    # Small deviations follow Π (1 − a(k)(1 − 1/T)), here to 0.1%; T itself for 1/T would be off by far.
    items, prior, rounds, n = 50, 500, 90, 1500
    start = 0.05
    theta = copies(
        engine,
        n,
        rounds,
        [0.5, 0.5],
        items=items,
        temperature=temperature,
        schedule="accumulate",
        pretraining_size=prior,
        initial=[0.5 + start, 0.5 - start],
    )
    left = (theta[:, 0] - 0.5) / start
    steps = items / (prior + items * np.arange(1, rounds + 1))
    close(left, np.prod(1 - steps * (1 - 1 / temperature)))
    exponent = np.log(left.mean()) / np.log((prior + items * rounds) / prior)
    error = left.std(ddof=1) / n**0.5 / left.mean() / np.log(10)
    assert abs(exponent + (1 - 1 / temperature)) < K * error + 0.02


def test_below_t_1_one_output_takes_all_and_any_may_win(engine):
    # Balls in bins with feedback exponent 1/T = 2: the losers together get finitely many items.
    n, rounds, prior = 400, 300, 3
    theta = copies(
        engine,
        n,
        rounds,
        [1 / 3] * 3,
        items=1,
        temperature=0.5,
        schedule="accumulate",
        pretraining_size=prior,
    )
    early = copies(
        engine, n, 40, [1 / 3] * 3, items=1, temperature=0.5, schedule="accumulate", pretraining_size=prior
    )
    losers, earlier = (1 - t.max(axis=1) for t in (theta, early))
    assert np.mean(losers < 0.1) > 0.9
    # Their number of items, not their share, settles: from 43 to 303 items it hardly grows.
    assert np.median(losers * (prior + rounds)) < 2 * np.median(earlier * (prior + 40)) + 1
    won = np.bincount(theta.argmax(axis=1), minlength=3) / n
    assert np.abs(won - 1 / 3).max() < K * (1 / 3 * 2 / 3 / n) ** 0.5


def test_the_mean_batch_is_the_mixture_of_human_and_neighbours(engine):
    # One round of replace: E Θ_i = λ_i h + (1−λ_i) Σ_j W_ij τ_{T_j}(Θ_j).
    initial = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]])
    scenario = Scenario(
        human=HUMAN,
        n_providers=3,
        sharing="star",
        temperature=[0.5, 1.0, 2.0],
        fresh_fraction=[0.0, 0.4, 0.1],
        outputs_per_round=[30, 40, 50],
        batch_size=[20, 25, 30],
        schedule="replace",
        initial=initial,
        rounds=1,
    )
    final = run(scenario, replicates=2500, engine=engine).final
    published = np.stack([tempered(law, t) for law, t in zip(initial, (0.5, 1.0, 2.0), strict=True)])
    w = np.array([[1, 1, 1], [1.5, 1.5, 0], [1.5, 0, 1.5]]) / 3
    fresh = np.array([0.0, 0.4, 0.1])[:, None]
    error = close(final, fresh * HUMAN + (1 - fresh) * (w @ published))
    assert error.max() < 0.003


def test_truncated_sampling_publishes_only_the_top(engine):
    theta = copies(engine, 2000, 1, HUMAN, items=10, schedule="replace", top_k=2)
    assert (theta[:, 2] == 0).all()
    close(theta[:, 0], 0.5 / 0.8)
