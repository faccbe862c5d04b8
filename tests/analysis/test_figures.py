import numpy as np
import pytest

from analysis.figures import run_figure
from analysis.report import MEASURES, kept, sentence, summary
from analysis.statistics import estimate, share_interval
from analysis.theory import expected_simpson_diversity
from ecosystem import Scenario, run


@pytest.mark.parametrize("providers", [1, 5, 200])
@pytest.mark.parametrize("replicates", [1, 3])
def test_run_figure_is_labelled_and_has_its_baseline(tmp_path, providers, replicates):
    t = run(Scenario(n_providers=providers, rounds=4, n_outputs=30), replicates)
    figure = run_figure({"some": t})
    figure.savefig(tmp_path / "f.png")
    assert len(figure.axes) == 6
    for axes in figure.axes:
        assert axes.get_xlabel()
        assert axes.get_ylabel()
        assert any(line.get_linestyle() == "--" for line in axes.lines)
    diversity = figure.axes[0]
    thin = [line for line in diversity.lines if line.get_linewidth() < 1]
    bold = [line for line in diversity.lines if line.get_linewidth() == 2]
    assert (len(thin), len(bold)) == ((200, 1) if providers == 200 else (0, providers))
    assert len(diversity.collections) == (0 if replicates == 1 else len(bold))
    names = [text.get_text() for text in diversity.get_legend().get_texts()]
    assert names[0] == "human data"
    for axes in figure.axes[:5]:
        recorded = axes.lines[1].get_xdata()
        np.testing.assert_array_equal(recorded, range(5))
    assert "mean field" in names


def lines(figure, label):
    return [line for axes in figure.axes for line in axes.lines if line.get_label() == label]


def test_theory_is_drawn_where_there_is_one():
    base = Scenario(n_providers=3, rounds=4, n_outputs=10, initial="sampled", temperature=1.0)
    exact = run_figure({"t": run(base, 2)})
    assert len(lines(exact, "exact expectation")) == 1
    drawn = lines(exact, "exact expectation")[0].get_ydata()
    np.testing.assert_allclose(drawn, expected_simpson_diversity(base).mean(axis=1))
    cold = run_figure({"t": run(base.replace(temperature=0.9), 2)})
    assert not lines(cold, "exact expectation")
    assert lines(cold, "mean field")
    leaves = run_figure(
        {"t": run(base.replace(interventions=[{"kind": "exit", "providers": [0], "start": 2}]), 2)}
    )
    assert lines(leaves, "mean field")
    assert not lines(leaves, "exact expectation")
    noisy = run_figure({"t": run(base.replace(training_error=0.01), 2)})
    assert not lines(noisy, "mean field")
    assert not lines(noisy, "exact expectation")


def test_figure_survives_total_collapse_and_infinite_divergence():
    t = run(Scenario(n_providers=2, rounds=5, temperature=0.0, fresh_fraction=0.0, schedule="replace"), 2)
    assert np.isinf(t.table["kl_from_human"]).any()
    run_figure({"collapsed": t}).canvas.draw()
    assert "inf" in summary({"collapsed": t}).to_string()


def test_summary_and_sentence():
    t = run(Scenario(n_providers=2, rounds=5, fresh_fraction=1.0), 3)
    table = summary({"two": t})
    assert list(table.columns) == ["human data", "two, round 0", "two, round 5"]
    assert len(table) == len(MEASURES)
    assert "±" in table.iloc[0, 2]
    assert sentence({"two": t}).startswith("After 5 rounds: two, ")
    assert 0.8 < kept(t).mean < 1.2


def test_exact_interval_of_a_share():
    # The rule of three, and the mirror image.
    assert share_interval(0, 100) == pytest.approx((0, 1 - 0.025**0.01))
    low, high = share_interval(30, 100)
    assert share_interval(70, 100) == pytest.approx((1 - high, 1 - low))
    assert (low, high) == pytest.approx((0.2124, 0.3998), abs=1e-4)
    assert share_interval(5, 5)[1] == 1


def test_estimates():
    mean, half = estimate(np.array([1.0, 2.0, 3.0]))
    assert mean == 2
    assert half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)  # Student's t, 2 degrees of freedom
    assert np.isnan(estimate(np.array([1.0])).half_width)
    assert estimate(np.array([1.0])).text() == "1"
    assert estimate(np.array([1.0, np.nan, 3.0])) == estimate(np.array([1.0, 3.0]))
    assert np.isnan(estimate(np.array([np.nan])).mean)
    assert estimate(np.array([np.inf, 1.0])).text() == "inf"
    assert estimate(np.array([0.5, 0.5])).text() == "0.5"
    assert estimate(np.array([100.0, 120.0, 110.0])).text() == "110 ± 25"
