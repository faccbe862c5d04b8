import numpy as np
import pytest
from scipy.integrate import solve_ivp

from analysis.theory import fixed_points, fold_fraction, minimum_fresh_fraction, published_bounds
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.temperature import tempered


def zipf(n, exponent=1.0):
    h = np.arange(1.0, n + 1) ** -exponent
    return h / h.sum()


def share_after(start, h, temperature, fresh, duration=3e4):
    """Effective number of outputs, relative to h, where the mean field from a start ends up."""

    def flow(_, theta):
        return fresh * h + (1 - fresh) * tempered(np.maximum(theta, 0), temperature) - theta

    end = solve_ivp(flow, (0, duration), start, method="LSODA", rtol=1e-8, atol=1e-12).y[:, -1]
    return metrics.hill(np.maximum(end, 0), 1) / metrics.hill(h, 1)


LAWS = {
    "zipf": zipf(12),  # no folds on the first branch
    "flat": zipf(12, 0.05),  # folds: prevention and cure far apart
    "uneven": np.array([0.3, 0.3, 0.2, 0.1, 0.1, 0.0]),  # a tie, and an output no human writes
    "two": np.array([0.55, 0.45]),
}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("temperature", "keep"), [(0.8, 0.9), (0.5, 0.9), (0.8, 0.4)])
def test_thresholds_are_those_of_the_integrated_mean_field(law, temperature, keep):
    h = LAWS[law]
    # Ties are broken as noise would.
    nudged = h * (1 + 1e-7 * (np.arange(h.size) == h.argmax()))
    prevention = minimum_fresh_fraction(h, temperature, keep)
    cure = minimum_fresh_fraction(h, temperature, keep, start="collapsed")
    assert 0 <= prevention <= cure <= 1
    starts = np.concatenate([np.eye(h.size) * (1 - 1e-3) + 1e-3 * h, [h]])
    if prevention > 0:
        assert share_after(nudged / nudged.sum(), h, temperature, prevention + 2e-3) >= keep
        assert share_after(nudged / nudged.sum(), h, temperature, prevention - 2e-3) < keep
    if cure > 0:
        assert min(share_after(start, h, temperature, cure + 2e-3) for start in starts) >= keep
        assert min(share_after(start, h, temperature, cure - 2e-3) for start in starts) < keep


@pytest.mark.parametrize("size", [10, 1000])
@pytest.mark.parametrize("temperature", [0.7, 0.9])
def test_a_uniform_law_is_hysteretic(size, temperature):
    h = np.full(size, 1 / size)
    assert minimum_fresh_fraction(h, temperature) == pytest.approx(1 - temperature, abs=1e-12)
    cure = minimum_fresh_fraction(h, temperature, start="collapsed")
    assert cure == fold_fraction(h, temperature, 0) > 1.1 * (1 - temperature)


@pytest.mark.parametrize("temperature", [0.3, 0.8])
def test_two_equal_outputs_cost_the_same_to_cure(temperature):
    # x = (1 − λ) tanh(artanh(x)/T) at the x that keeps the share.
    x = 0.4
    keep = metrics.hill(np.array([1 + x, 1 - x]) / 2, 1) / 2
    expected = 1 - x / np.tanh(np.arctanh(x) / temperature)
    for start in ("human", "collapsed"):
        found = minimum_fresh_fraction([0.5, 0.5], temperature, keep, start=start)
        assert found == pytest.approx(expected, abs=1e-9)


def test_the_limit_of_laws_that_tie_ever_more_closely():
    tied = np.array([0.3, 0.3, 0.2, 0.2])
    close = np.array([0.3 + 1e-9, 0.3, 0.2, 0.2])
    for temperature, keep in [(0.5, 0.9), (0.5, 0.5), (0.8, 0.99)]:
        one, other = (minimum_fresh_fraction(h, temperature, keep) for h in (tied, close / close.sum()))
        assert one == pytest.approx(other, abs=1e-4)


def test_more_to_keep_needs_more_human_data():
    h = zipf(50)
    kept = [minimum_fresh_fraction(h, 0.8, keep) for keep in (0, 0.1, 0.5, 0.9, 0.99)]
    assert kept[0] == 0
    assert (np.diff(kept) > 0).all()
    assert minimum_fresh_fraction(h, 0.8, 1) > 1 - 1e-9


def test_other_metrics():
    h = zipf(50)

    def simpson(theta):
        return 1 / (theta**2).sum()

    threshold = minimum_fresh_fraction(h, 0.8, 0.9, metric=simpson)
    assert threshold > minimum_fresh_fraction(h, 0.8, 0.9)
    # No one loses the last trace of an output that humans write.
    assert minimum_fresh_fraction(h, 0.8, metric=lambda theta: metrics.hill(theta, 0)) < 1e-300


@pytest.mark.parametrize("start", ["human", "collapsed"])
def test_limits(start):
    h = zipf(6)
    for temperature in (1, 1.5, np.inf):
        assert minimum_fresh_fraction(h, temperature, start=start) == 0
    for one_output in ([1.0], [0.0, 1.0, 0.0]):
        assert minimum_fresh_fraction(one_output, 0.5) == 0
    frozen = minimum_fresh_fraction(h, 0, start=start)
    theta = frozen * h + (1 - frozen) * np.eye(6)[0]
    assert metrics.hill(theta, 1) == pytest.approx(0.9 * metrics.hill(h, 1), rel=1e-9)
    assert minimum_fresh_fraction(h, 1e-3, start=start) == pytest.approx(frozen, abs=1e-6)


def test_published_bounds_of_a_uniform_law():
    # Θ_e = h: δ = 1/4, η_FR = 4/T.
    h, temperature = np.full(4, 0.25), 0.8
    bounds = published_bounds(h, temperature)
    assert bounds.fisher_rao_ratio == pytest.approx(max((1 + 4) / (0.8 / 4), 2 * (4 / 0.8) / 0.25))
    assert bounds.euclidean_ratio == pytest.approx(4 / 0.8)
    assert bounds.euclidean == pytest.approx(5 / 6)
    for kappa, error in [(0.5, 0.0), (1.0, 0.01)]:
        looser = published_bounds(h, temperature, kappa=kappa, training_error=error)
        ratio = looser.euclidean_ratio
        assert kappa * (ratio * 0.25 - error) * temperature == pytest.approx(1)
        assert looser.fisher_rao_ratio > bounds.fisher_rao_ratio


@pytest.mark.parametrize("temperature", [0.5, 0.9, 1, 2])
def test_published_bounds_are_consistent_with_their_equilibrium_and_sufficient(temperature):
    h = zipf(5)
    bounds = published_bounds(h, temperature)
    (healthy,) = fixed_points(h, temperature, bounds.fisher_rao, captured=0)
    given = published_bounds(h, temperature, equilibrium=healthy.distribution)
    assert given.fisher_rao_ratio == pytest.approx(bounds.fisher_rao_ratio, rel=1e-9)
    for fresh in (bounds.fisher_rao, bounds.euclidean):
        states = fixed_points(h, temperature, fresh, captured="all")
        assert [(s.captured, s.stable) for s in states] == [(None, True)]


def test_published_bounds_at_their_limits():
    for h, temperature in [([0.5, 0.5, 0.0], 0.8), ([0.5, 0.5], 0)]:
        bounds = published_bounds(h, temperature)
        assert (bounds.fisher_rao, bounds.euclidean) == (1, 1)
        assert bounds.euclidean_ratio == np.inf
    assert published_bounds([0.9, 0.1], np.inf, training_error=0.05).fisher_rao_ratio == pytest.approx(0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: minimum_fresh_fraction([0.5, 0.5], 0.8, 1.5),
        lambda: minimum_fresh_fraction([0.5, 0.5], 0.8, start="sick"),
        lambda: minimum_fresh_fraction([0.5, 0.4], 0.8),
        lambda: published_bounds([0.5, 0.5], 0.8, kappa=0),
        lambda: published_bounds([0.5, 0.5], 0.8, training_error=-1),
    ],
)
def test_bad_input_is_named(call):
    with pytest.raises(InputError):
        call()


def test_metrics_by_name():
    law = np.arange(1, 9) / 36
    by_name = minimum_fresh_fraction(law, 0.6, 0.8, metric="hill_2")
    assert by_name == minimum_fresh_fraction(law, 0.6, 0.8, metric=lambda p: 1 / (p**2).sum())
    assert minimum_fresh_fraction(law, 0.6, 0.8, metric="hill_1") == minimum_fresh_fraction(law, 0.6, 0.8)
    with pytest.raises(InputError, match="simpson_diversity"):
        minimum_fresh_fraction(law, 0.6, metric="total_variation")


@pytest.mark.parametrize(("temperature", "fresh_fraction"), [("0.5", 0.1), (None, 0.1), (0.5, "0.1")])
def test_text_is_no_number(temperature, fresh_fraction):
    with pytest.raises(InputError, match="must be a number"):
        fixed_points([0.5, 0.5], temperature, fresh_fraction)
