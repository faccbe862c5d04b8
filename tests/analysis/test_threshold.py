import json

import numpy as np
import pytest
from click.testing import CliRunner

from analysis import theory
from analysis.cli import main
from analysis.threshold import bifurcation_figure, branches, explain, thresholds
from ecosystem import InputError, Scenario

UNIFORM = Scenario(human="uniform", n_outputs=10, n_providers=1, temperature=0.8)


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["threshold", *arguments])


def test_numbers_are_those_of_the_theory():
    answer = thresholds(UNIFORM)
    law = np.full(10, 0.1)
    assert answer["prevention"] == pytest.approx(0.2)
    assert answer["cure"] == theory.minimum_fresh_fraction(law, 0.8, start="collapsed") > 0.27
    assert answer["fold"] == theory.fold_fraction(law, 0.8, 0)
    assert answer["euclidean"] == theory.published_bounds(law, 0.8).euclidean
    assert "population" not in answer
    assert "prevents collapse" in explain(answer)


def test_with_one_temperature_the_graph_does_not_move_the_threshold():
    alone = thresholds(UNIFORM)
    population = thresholds(UNIFORM.replace(sharing="star", n_providers=6))
    assert population["prevention"] == alone["prevention"]
    assert population["population"] == pytest.approx(0.2, abs=1e-6)
    assert population["spectral"] == pytest.approx(0.2)


def test_one_model_and_population_agree_for_any_law():
    scenario = Scenario(human="zipf", n_outputs=50, temperature=0.7, sharing="ring", n_providers=5)
    answer = thresholds(scenario, keep=0.8)
    assert answer["population"] == pytest.approx(answer["prevention"], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.05, 2.0, [1.1, 1.5, 2.0]])
def test_hot_populations_of_many_outputs(temperature):
    n = 3 if isinstance(temperature, list) else 5
    found = thresholds(Scenario(human="zipf", n_outputs=5000, temperature=temperature, n_providers=n))
    assert 0 <= found["population"] < 1
    if "prevention" in found:
        assert found["population"] == pytest.approx(found["prevention"], abs=1e-6)


def test_dated_rules_are_refused():
    rules = [{"kind": "quota", "fraction": 0.5}]
    with pytest.raises(InputError, match="without dated rules"):
        thresholds(UNIFORM.replace(interventions=rules))


def test_a_jump_is_drawn_only_between_branches_that_are_there():
    scenario = Scenario(human="zipf", n_outputs=40, n_providers=1, temperature=0.0)
    figure = bifurcation_figure(scenario, thresholds(scenario), points=20)
    assert not [text for text in figure.axes[0].texts if text.arrow_patch is not None]
    scenario = Scenario(human="uniform", n_outputs=10, n_providers=1, temperature=0.8)
    figure = bifurcation_figure(scenario, thresholds(scenario), points=20)
    assert len([text for text in figure.axes[0].texts if text.arrow_patch is not None]) == 2


def test_mixed_temperatures_have_a_population_threshold_only():
    answer = thresholds(Scenario(temperature=[0.8, 1.2], sharing="complete", human="uniform"))
    assert set(answer) == {
        "temperature",
        "n_outputs",
        "n_providers",
        "keep",
        "population",
        "limited_by",
        "spectral",
    }
    assert 0 < answer["spectral"] < 0.2
    with pytest.raises(InputError, match="one temperature"):
        bifurcation_figure(Scenario(temperature=[0.8, 1.2]), answer)


def test_branches_jump_at_prevention_and_at_the_fold():
    answer = thresholds(UNIFORM)
    inside = (answer["prevention"] + answer["fold"]) / 2
    found = branches(np.full(10, 0.1), 0.8, [0.1, inside, 0.5])
    assert [x for x, _ in found["healthy"]] == [inside, 0.5]
    assert [x for x, _ in found["captured"]] == [0.1, inside]
    assert inside in [x for x, _ in found["saddle"]]


@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0, float("inf")])
@pytest.mark.parametrize("human", ["uniform", "zipf"])
def test_figure_at_every_temperature(temperature, human):
    scenario = Scenario(human=human, n_outputs=12, n_providers=1, temperature=temperature)
    answer = thresholds(scenario)
    assert not any(np.isnan(v) for v in answer.values() if isinstance(v, float))
    figure = bifurcation_figure(scenario, answer, points=12)
    figure.canvas.draw()
    (axes,) = figure.axes
    assert axes.get_xlabel()
    assert axes.get_ylabel()
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names[:2] == ["human data", "healthy"]


def test_command_prints_and_draws(call, tmp_path):
    done = call("--human", "uniform", "--n-outputs", "10")
    assert done.exit_code == 0, done.stderr
    assert "0.2 " in done.stdout
    assert (tmp_path / "results" / "threshold.png").exists()


def test_command_as_json(call, tmp_path):
    done = call("--human", "zipf", "--sharing", "karate-club", "--temperature", "0.9", "--json")
    answer = json.loads(done.stdout)
    assert answer["n_providers"] == 34
    assert 0 < answer["prevention"] <= answer["cure"] < answer["euclidean"] < 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--temperature", "x"], "temperature = 'x'"),
        (["--keep", "2"], "keep = 2.0"),
        (["--human", "nope"], "human = 'nope'"),
        (["--n-outputs", "0"], "n_outputs = 0"),
        (["--out", "figure.pdf"], ".png or an .svg"),
        (["--out", "/dev/null/figure.png"], "no folder can be made"),
        (["--sharing", "karate-club", "--n-providers", "3"], "34 nodes"),
    ],
)
def test_mistakes_exit_with_2(call, arguments, message):
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
