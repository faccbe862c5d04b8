"""Every kind of intervention against the law it must obey, within 4 standard errors."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize

from ecosystem import Ecosystem, Scenario
from ecosystem.corpus import HUMAN
from ecosystem.interventions import (
    Curation,
    DecliningSupply,
    Detector,
    Drift,
    HumanSupply,
    Quota,
    Retention,
    Rules,
    Weighting,
)
from ecosystem.interventions.provenance import levelled
from ecosystem.interventions.training import optimal_weights
from ecosystem.mixing import Batch
from ecosystem.randomness import Decision, Streams
from ecosystem.temperature import tempered

K = 4


def share_close(count, n, p):
    """Hold a count of n independent trials to its probability."""
    assert count / n == pytest.approx(p, abs=K * (p * (1 - p) / n) ** 0.5)


def close(values, expected, bias=0.0):
    values = np.asarray(values, dtype=float)
    assert values.mean() == pytest.approx(expected, abs=K * values.std(ddof=1) / len(values) ** 0.5 + bias)


def ecosystem(engine, *rules, n=40, **settings):
    defaults = {"n_providers": n, "sharing": "isolated", "rounds": 20, "record_every": 1000, "seed": 11}
    return Ecosystem(Scenario(**defaults | settings, interventions=rules), engine=engine)


def finished(eco):
    while eco.running:
        eco.step()
    return eco


# --- detectors -----------------------------------------------------------------------------------

TPR, FPR, FRESH = 0.8, 0.1, 0.2
PASSED = FRESH * (1 - FPR) + (1 - FRESH) * (1 - TPR)
EFFECTIVE = FRESH * (1 - FPR) / PASSED
"""0.53; without the false positives 0.56, with flags the wrong way round 0.05."""


def test_refilling_flagged_slots_is_the_effective_fresh_fraction(engine):
    # The detector played out slot by slot: what the formula stands for.
    random = np.random.default_rng(5)
    n, human, checks, left = 60_000, 0, 0, 60_000
    while left:
        checks += left
        is_human = random.random(left) < FRESH
        passes = random.random(left) >= np.where(is_human, FPR, TPR)
        human += np.count_nonzero(is_human & passes)
        left -= np.count_nonzero(passes)
    share_close(human, n, EFFECTIVE)
    assert checks / n == pytest.approx(1 / PASSED, abs=K * ((1 - PASSED) / PASSED**2 / n) ** 0.5)
    # And the engine, with the same rates.
    eco = finished(ecosystem(engine, Detector(true_positive=TPR, false_positive=FPR), fresh_fraction=FRESH))
    share_close(eco.ledger.human_items, 40 * 20 * 100, EFFECTIVE)
    assert eco.ledger.detector_calls / (40 * 20 * 100) == pytest.approx(1 / PASSED)


@given(st.floats(0, 0.99), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_detector_that_cannot_tell_changes_no_bit_of_the_fresh_fraction(rate, fresh):
    scenario = Scenario(n_providers=4, sharing="ring", fresh_fraction=fresh)
    rules, blind = Rules.of(scenario), Detector(true_positive=rate, false_positive=rate)
    after = blind.apply(rules, None, 1.0)
    np.testing.assert_array_equal(after.fresh_fraction, rules.fresh_fraction)
    np.testing.assert_allclose(after.detector_calls_per_item, 1 / (1 - rate))


def test_a_second_detector_works_on_what_the_first_has_passed(engine):
    rules = [Detector(true_positive=TPR, false_positive=FPR), Detector(true_positive=0.5)]
    eco = ecosystem(engine, *rules, fresh_fraction=FRESH)
    eco.step()
    human, synthetic = FRESH * (1 - FPR), (1 - FRESH) * (1 - TPR) * (1 - 0.5)
    assert eco.rules.fresh_fraction[0] == pytest.approx(human / (human + synthetic))
    checks = (1 + PASSED) / (human + synthetic)  # every item by the first, what passes by the second
    assert eco.rules.detector_calls_per_item[0] == pytest.approx(checks)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_down_weighted_items_count_for_less(engine, weight):
    # Humans only write output 0, models only output 1: Θ_0 after one round of "replace" is the human share
    # of the weight. With weight 0 it is the share of a detector that drops, in expectation exactly.
    eco = ecosystem(
        engine,
        Detector(true_positive=TPR, false_positive=FPR, mode="down-weight", weight=weight),
        n=200,
        human=[1.0, 0.0],
        initial=[0.0, 1.0],
        temperature=1.0,
        schedule="replace",
        fresh_fraction=FRESH,
        batch_size=1000,
        outputs_per_round=1000,
    )
    eco.step()
    human = FRESH * (1 - FPR + FPR * weight)
    synthetic = (1 - FRESH) * (1 - TPR + TPR * weight)
    close(eco.distributions[:, 0], human / (human + synthetic), bias=0.0 if weight == 0 else 1 / 1000)
    assert eco.ledger.detector_calls == 200 * 1000


def test_a_detector_can_tell_no_more_than_models_differ_from_people(engine):
    rule = Detector(true_positive=0.9, false_positive=0.05, limited=True)
    eco = ecosystem(
        engine, rule, n_outputs=8, temperature=0.3, fresh_fraction=0.1, initial="sampled", rounds=40
    )
    eco.step()
    bounds = []
    while eco.running:
        distance = 0.5 * np.abs(eco.distributions.mean(axis=0) - eco.human).sum()
        eco.step()
        rate = min(0.9, 0.05 + distance)
        passed = 0.1 * 0.95 + 0.9 * (1 - rate)
        assert eco.rules.fresh_fraction == pytest.approx(0.1 * 0.95 / passed)
        bounds.append(rate)
    assert bounds[0] < 0.3 < 0.4 < bounds[-1]  # collapse gives the models away
    perfect = ecosystem(engine, rule, initial="human", fresh_fraction=0.1)
    perfect.step()
    assert perfect.rules.fresh_fraction == pytest.approx(0.1)


# --- where human data comes from -----------------------------------------------------------------


def test_a_stock_of_human_data_runs_dry_and_is_reused():
    # By the agents: the compiled engine keeps no human items once nothing depends on them.
    settings = {"n": 4, "n_outputs": 30, "fresh_fraction": 1.0, "corpus_rounds": 100, "rounds": 60}
    eco = ecosystem("agents", HumanSupply(items=1000), **settings, batch_size=70)
    used = np.zeros(30, dtype=int)
    later = np.zeros(30, dtype=int)
    while eco.running:
        dry = used.sum() >= 1000
        eco.step()
        records = eco.corpus.records()
        drawn = np.bincount(records.item[records.human & (records.round == eco.round)], minlength=30)
        if dry:
            np.testing.assert_array_equal(eco.rules.human, used / used.sum())
            later += drawn
        else:
            assert eco.rules.human is eco.human
            used += drawn
    assert used.sum() == 1120  # the fourth round of 280 starts with 840 < 1000
    n, law = later.sum(), used / used.sum()
    # χ² of what is reused: near its 29 degrees of freedom under the law of the stock, far under h.
    chi = ((later - n * law) ** 2 / (n * law)).sum()
    assert chi < 29 + K * (2 * 29) ** 0.5 < ((later - n * eco.human) ** 2 / (n * eco.human)).sum()
    assert eco.ledger.human_items == 60 * 280
    late = finished(ecosystem("agents", HumanSupply(items=1, start=5), **settings, batch_size=70))
    assert late.ledger.human_counts.sum() == 4 * 280


@pytest.mark.parametrize("exponent", [1.0, 3.0])
def test_supply_declines_with_the_human_share_of_the_corpus(engine, exponent):
    eco = ecosystem(
        engine, DecliningSupply(exponent=exponent), fresh_fraction=0.5, pretraining_size=400, rounds=30
    )
    human, synthetic, expected, variance = 40 * 400, 0, 0.0, 0.0
    while eco.running:
        share = 0.5 * (human / (human + synthetic)) ** exponent
        before = eco.ledger.human_items
        eco.step()
        np.testing.assert_allclose(eco.rules.fresh_fraction, share)
        human += eco.ledger.human_items - before
        synthetic += 4000
        expected += 4000 * share
        variance += 4000 * share * (1 - share)
    assert eco.ledger.human_items == pytest.approx(expected, abs=K * variance**0.5)
    assert share < 0.2


def test_people_who_only_echo_are_one_more_generation_of_copies(engine):
    # λ = 1 and share = 1: a provider trains on n draws, with replacement, from what it published a round
    # ago, n draws from its Θ of two rounds ago. E[1 − ΣΘ²] falls by (1 − 1/n)² in two rounds; were the
    # echo of the same round, by (1 − 1/n)² in one.
    n, rounds, start = 8, 4, np.full(5, 0.2)
    ends = []
    for replicate in range(1500):
        scenario = Scenario(
            n_providers=1,
            human=start,
            fresh_fraction=1.0,
            temperature=1.0,
            schedule="replace",
            outputs_per_round=n,
            batch_size=n,
            rounds=rounds,
            record_every=1000,
            interventions=[Drift(share=1.0)],
        )
        ends.append(
            1
            - (finished(Ecosystem(scenario, replicate=replicate, engine=engine)).distributions[0] ** 2).sum()
        )
    close(ends, 0.8 * (1 - 1 / n) ** 4)


def test_the_human_law_drifts_towards_what_was_published(engine):
    eco = ecosystem(engine, Drift(share=0.4, ramp=3), n=5, n_outputs=20, temperature=0.4)
    for strength in (0.25, 0.5, 0.75, 1.0, 1.0):
        last = [eco.corpus.published(i, eco.round) for i in range(5)]
        echo = np.bincount(np.concatenate(last), minlength=20) / 500 if eco.round else eco.human
        eco.step()
        s = 0.4 * strength
        np.testing.assert_allclose(eco.rules.human, (1 - s) * eco.human + s * echo)


# --- caps ----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=12), st.floats(0, 1))
def test_levelled_shares(weights, room):
    shares = np.array(weights) / sum(weights)
    cap = 1 / len(shares) + room * (1 - 1 / len(shares))
    after = levelled(shares, cap)
    assert after.sum() == pytest.approx(1) and after.max() <= cap * (1 + 1e-9)
    below = after < cap * (1 - 1e-9)
    ratios = after[below] / shares[below]
    assert ratios.size == 0 or (np.ptp(ratios) <= 1e-9 * ratios.max() and ratios.min() >= 1 - 1e-9)
    np.testing.assert_allclose(levelled(after, cap), after)


# --- curation ------------------------------------------------------------------------------------


def best_law(tau, score, k, error):
    """Return the law of the best of k draws, as the docstring of `Curation` has it."""
    score = np.asarray(score)
    below = np.array([tau[score < s].sum() for s in score])
    upto = np.array([tau[score <= s].sum() for s in score])
    return error * tau + (1 - error) * tau * (upto**k - below**k) / (upto - below)


def test_the_law_of_the_best_by_enumeration():
    tau, score, k = np.array([0.4, 0.3, 0.2, 0.1]), [1.0, 2.0, 2.0, -1.0], 3
    law = np.zeros(4)
    for draws in product(range(4), repeat=k):
        law[max(draws, key=lambda v: score[v])] += np.prod(tau[list(draws)])
    np.testing.assert_allclose(best_law(tau, score, k, 0.0), law)


SCORE = [0.5, 2.0, 2.0, -1.0, 1.0]
"""Outputs 1 and 2 tie."""


@pytest.mark.parametrize(("k", "error"), [(2, 0.0), (3, 0.25), (7, 0.0)])
def test_what_is_published_is_the_best_of_k(engine, k, error):
    eco = ecosystem(
        engine,
        Curation(best_of=k, verifier_error=error, score=SCORE),
        n=20,
        n_outputs=5,
        temperature=0.7,
        outputs_per_round=2000,
    )
    eco.step()
    items = np.concatenate([eco.corpus.published(i, 1) for i in range(20)])
    law = best_law(tempered(eco.human, 0.7), SCORE, k, error)
    for output in range(5):
        share_close(np.count_nonzero(items == output), len(items), law[output])
    assert eco.ledger.curated_items == pytest.approx(20 * 2000 * k * (1 - error))  # the others go unseen


def test_of_very_many_candidates_only_the_best_outputs_are_published(engine):
    eco = ecosystem(engine, Curation(best_of=400, score=SCORE), n=2, n_outputs=5, temperature=1.0)
    finished(eco)
    assert set(np.concatenate([eco.corpus.published(i, eco.round) for i in range(2)])) == {1, 2}
    human = ecosystem(engine, Curation(best_of=400), n=2, n_outputs=5, temperature=1.0)
    human.step()
    assert set(human.corpus.published(0, 1)) == {0}


def test_candidates_keep_their_luck(engine):
    # Slot by slot, with the uniforms as `Decision` numbers them; output v when u falls into [v, v + 1)/10.
    n, k, score = 50, 4, np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 3], dtype=float)
    eco = ecosystem(engine, Curation(best_of=k, verifier_error=0.3, score=score), n=1, human=[0.1] * 10,
                    temperature=1.0, outputs_per_round=n, batch_size=n)  # fmt: skip
    eco.step()
    first, more, errs = (
        Streams(11).uniforms(size, decision, round=1, provider=0)
        for size, decision in [(n, Decision.PUBLISH), (n * 3, Decision.CANDIDATE), (n, Decision.VERIFIER)]
    )
    expected = []
    for s in range(n):
        draws = [int(10 * u) for u in (first[s], *(more[s * (k - 1) + c - 1] for c in range(1, k)))]
        expected.append(draws[0] if errs[s] < 0.3 else max(draws, key=lambda v: score[v]))
    np.testing.assert_array_equal(eco.corpus.published(0, 1), expected)


# --- weights -------------------------------------------------------------------------------------


def stationary_variance(w, n, m):
    """Return Var Θ_v / (h_v (1 − h_v)) of Θ ← w · mean of n human items + (1 − w) · mean of m from Θ."""
    return (w**2 / n + (1 - w) ** 2 / m) / (1 - (1 - w) ** 2 * (1 - 1 / m))


def golden(k):
    human, _ = optimal_weights(np.array([k / (1 + k)]))
    return human[0] * k / (1 + k)


@pytest.mark.parametrize("k", [0.05, 0.5, 1.0, 4.0])
def test_the_optimal_weight_minimises_the_variance(k):
    for m, slack in ((50, None), (10**7, 1e-5)):
        n = k * m
        least = optimize.minimize_scalar(stationary_variance, (1e-3, 0.5), args=(n, m), tol=1e-12).x
        c = 1 - 1 / m
        u = ((1 + k + c) - ((1 + k + c) ** 2 - 4 * c) ** 0.5) / (2 * c)
        assert least == pytest.approx(1 - u, abs=1e-5)
        if slack:
            assert least == pytest.approx(golden(k), abs=slack)
    human, synthetic = optimal_weights(np.array([k / (1 + k)]))
    assert human * k / (1 + k) + synthetic / (1 + k) == pytest.approx(1)


def test_the_golden_ratio_and_the_edges():
    assert golden(1.0) == pytest.approx((5**0.5 - 1) / 2)
    for fresh in (0.0, 1.0):
        assert [w[0] for w in optimal_weights(np.array([fresh]))] == [1, 1]


def test_weighted_runs_have_the_variance_of_the_theory(engine):
    # 300 copies of 80 outputs: the relative error of Σ (Θ − h)² is (2 / (79 · 300))^½ = 0.9%. The optimum has
    # 7% less than equal weights. The random number of human items adds a relative order 1/m = 0.25%.
    m, fresh, h = 400, 0.5, np.full(80, 1 / 80)
    measured = {}
    for share in (0.3, 0.5, golden(1.0), 0.9):
        rules = [Weighting(human_weight=share / fresh, synthetic_weight=(1 - share) / (1 - fresh))]
        rules = [Weighting(optimal=True)] if share == golden(1.0) else rules
        eco = finished(
            ecosystem(
                engine,
                *rules,
                n=300,
                human=h,
                temperature=1.0,
                schedule="replace",
                fresh_fraction=fresh,
                outputs_per_round=m,
                batch_size=m,
                rounds=12,
            )
        )
        measured[share] = ((eco.distributions - h) ** 2).sum(axis=1) / (1 - (h**2).sum())
        close(measured[share], stationary_variance(share, m * fresh, m * (1 - fresh)), bias=2e-5)
    best = measured[golden(1.0)]
    for share, values in measured.items():
        gap = values.mean() - best.mean()
        error = (values.var() / len(values) + best.var() / len(best)) ** 0.5
        assert share == golden(1.0) or gap > K * error


def test_weights_of_a_batch():
    authors = np.array([HUMAN, 0, HUMAN, 1, 1])
    flagged = np.array([False, False, True, True, False])
    plain = Batch(np.arange(5), authors, 5)
    assert plain.weighted(1.0, 1.0, 0.5, np.zeros(5, dtype=bool)) is plain
    weighted = plain.weighted(2.0, 0.5, 0.1, flagged)
    weights = np.array([2.0, 0.5, 0.2, 0.05, 0.5])
    assert weighted.weight == pytest.approx(weights.sum())
    np.testing.assert_allclose(weighted.shares, weights / weights.sum())


def test_models_are_trained_on_the_weight_of_their_items(engine):
    eco = ecosystem(
        engine, Weighting(human_weight=3.0, synthetic_weight=0.5), n=3, fresh_fraction=0.3, rounds=4
    )
    expected = np.full(3, 1000.0)
    theta = eco.distributions
    while eco.running:
        eco.step()
        for i, provider in enumerate(eco.providers):
            grown = provider.trained_items - expected[i]
            humans = (grown - 100 * 0.5) / 2.5
            assert humans == pytest.approx(round(humans)) and 0 < humans < 100
            step = grown / provider.trained_items
            frequencies = (eco.distributions[i] - (1 - step) * theta[i]) / step
            np.testing.assert_allclose(frequencies * grown % 0.5, 0, atol=0.5)
            assert (frequencies > -1e-9).all() and frequencies.sum() == pytest.approx(1)
            expected[i] = provider.trained_items
        theta = eco.distributions


@pytest.mark.parametrize("schedule", ["replace", "accumulate"])
def test_items_of_no_weight_teach_nothing(engine, schedule):
    eco = ecosystem(
        engine, Weighting(synthetic_weight=0.0), fresh_fraction=0.0, schedule=schedule, n_outputs=6
    )
    start = eco.distributions
    eco.step()
    np.testing.assert_array_equal(eco.distributions, start)
    assert eco.providers[0].trained_items == 1000


# --- retention -----------------------------------------------------------------------------------


def test_a_schedule_is_switched_at_its_date(engine):
    rule = Retention(schedule="replace", start=3, end=5)
    eco = ecosystem(engine, rule, n=2, n_outputs=7, fresh_fraction=0.5, rounds=7)
    for round in range(1, 8):
        before = eco.distributions
        eco.step()
        step = 1.0 if 3 <= round <= 5 else 100 / (1000 + 100 * round)
        frequencies = (eco.distributions - (1 - step) * before) / step
        np.testing.assert_allclose(frequencies * 100, np.round(frequencies * 100), atol=1e-8)
        assert eco.providers[0].trained_items == 1000 + 100 * round


def test_a_window_of_two_rounds_with_all_they_hold(engine):
    # Batches of 2 B: with a window of 2 nothing is left to chance, both rounds are read whole.
    eco = ecosystem(engine, Retention(window=2), n=3, n_outputs=9, fresh_fraction=0.0, schedule="replace",
                    outputs_per_round=50, batch_size=[50, 50, 50], rounds=6)  # fmt: skip
    eco.step()
    for provider in eco.providers:
        provider.batch_size = 100
    for _ in range(4):
        eco.step()
        read = [eco.corpus.published(i, eco.round, window=2) for i in range(3)]
        counts = np.stack([np.bincount(items, minlength=9) for items in read])
        np.testing.assert_allclose(eco.distributions * 100, counts)
        older = [eco.corpus.published(i, eco.round - 1) for i in range(3)]
        np.testing.assert_array_equal(np.stack(read)[:, :50], np.stack(older))


def test_every_item_of_the_window_is_as_likely_to_be_read():
    # By the agents: it teaches them by hand.
    # Round 1 publishes only output 0 (T = 0), later rounds only output 1. Of a batch, output 0 is a half in
    # round 2, a third in round 3 (window of 3 rounds), and nothing in round 4.
    eco = ecosystem(
        "agents",
        Retention(window=3),
        n=300,
        human=[0.6, 0.3, 0.1],
        fresh_fraction=0.0,
        corpus_rounds=3,
        temperature=0.0,
        batch_size=30,
        schedule="forget:0.001",
    )
    eco.step()
    for provider in eco.providers:
        provider.generative_model.learn(np.array([1]), 1.0)
    for share in (1 / 2, 1 / 3, 0):
        before = eco.distributions[:, 0].sum()
        eco.step()
        count = round((eco.distributions[:, 0].sum() - 0.999 * before) * 30 / 0.001)
        share_close(count, 300 * 30, share)  # hypergeometric: less spread than this binomial allows


# --- a quota is what prevents collapse -----------------------------------------------------------


def test_a_quota_above_the_threshold_keeps_diversity_and_one_below_does_not(engine):
    # Uniform human data, T = 0.6: the uniform state is stable from λ = 0.4 on.
    kept = []
    for fraction in (0.3, 0.5):
        eco = ecosystem(engine, Quota(fraction=fraction), n=6, human="uniform", n_outputs=10, temperature=0.6,
                        fresh_fraction=0.0, schedule="forget:0.3", outputs_per_round=3000, batch_size=3000,
                        rounds=250)  # fmt: skip
        kept.append(1 / (finished(eco).distributions ** 2).sum(axis=1))
    assert (kept[0] < 5).all() and (kept[1] > 9.5).all()
