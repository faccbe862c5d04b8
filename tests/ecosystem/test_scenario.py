import pickle

import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner

from analysis.cli import main
from ecosystem import InputError, Scenario
from ecosystem.scenario import parse_setting

# Every bad value as the command line gives it: setting, value, and what the one line of error must say.
BAD = [
    ("n_outputs", "0", "whole number"),
    ("n_outputs", "-3", "whole number"),
    ("n_outputs", "2.5", "whole number"),
    ("n_outputs", "many", "whole number"),
    ("n_outputs", "true", "whole number"),
    ("n_providers", "0", "whole number"),
    ("n_providers", "1e3", "whole number"),
    ("n_providers", "[3]", "whole number"),
    ("temperature", "-0.1", "from 0 to inf"),
    ("temperature", "nan", "from 0 to inf"),
    ("temperature", "hot", "from 0 to inf"),
    ("temperature", "true", "from 0 to inf"),
    ("temperature", "[1.0, 2.0]", "has 2 values for 3 providers"),
    ("temperature", "[1.0, -2.0, 1.0]", "entry 1"),
    ("temperature", "[]", "has 0 values"),
    ("top_k", "0", "whole number"),
    ("top_k", "1.5", "whole number"),
    ("top_p", "0", "above 0, up to 1"),
    ("top_p", "1.01", "above 0, up to 1"),
    ("fresh_fraction", "-0.01", "from 0 to 1"),
    ("fresh_fraction", "1.01", "from 0 to 1"),
    ("fresh_fraction", "10%", "from 0 to 1"),
    ("fresh_fraction", "[0.1, 0.2, nan]", "entry 2"),
    ("human", "zip", "allowed:"),
    ("human", "text:", "allowed:"),
    ("human", "text:/no/such/file", "does not exist"),
    ("human", "counts:/tmp", "is a folder"),
    ("human", "text:/dev/zero", "is no plain file"),
    ("human", "[0.5, 0.4]", "sum to 0.9"),
    ("human", "[1.5, -0.5]", "entry 1 is -0.5"),
    ("human", "[nan, 1.0]", "entry 0 is nan"),
    ("human", "[]", "no law"),
    ("human", "[[0.5, 0.5]]", "no law"),
    ("human", "7", "allowed:"),
    ("human", "1" + "0" * 400, "allowed:"),
    ("human", "text:~nosuchuser/x", "not known"),
    ("human", "text:" + "x" * 300, "cannot be read"),
    ("n_providers", "1000000000000", "from 1 to 10^6"),
    ("zipf_exponent", "-1", "0 or more"),
    ("zipf_exponent", "inf", "finite"),
    ("sharing", "rings", "allowed:"),
    ("sharing", "3", "allowed:"),
    ("sharing", "graph:/no/such.gml", "does not exist"),
    ("sharing", "karate-club", "34 nodes but n_providers = 3"),
    ("sharing", "{directed = true, nodes = [1, 2, 3], edges = [[1, 9, 1.0]]}", "names 9"),
    ("self_weight", "-1", "0 or more"),
    ("self_weight", "nan", "0 or more"),
    ("outputs_per_round", "0", "whole number"),
    ("outputs_per_round", "[10, 10, 0]", "entry 2"),
    ("batch_size", "0", "whole number"),
    ("batch_size", "5000", "author"),
    ("with_replacement", "1", "true or false"),
    ("with_replacement", "yes", "true or false"),
    ("schedule", "forgetful", "is not a schedule"),
    ("schedule", "forget", "is not a schedule"),
    ("schedule", "forget:0", "is not a schedule"),
    ("schedule", "forget:1.1", "is not a schedule"),
    ("schedule", "power:0.5", "is not a schedule"),
    ("schedule", "power:0.7:5", "must lie in (0, 1]"),
    ("schedule", "replace:1", "is not a schedule"),
    ("schedule", "3", "allowed:"),
    ("pretraining_size", "0", "whole number"),
    ("initial", "zero", "allowed:"),
    ("initial", "[0.5, 0.5]", "shape (2,)"),
    ("training_error", "-0.1", "from 0 to 1"),
    ("training_error", "2", "from 0 to 1"),
    ("rounds", "0", "whole number"),
    ("rounds", "9.5", "whole number"),
    ("record_every", "0", "whole number"),
    ("corpus_rounds", "1", "2 or more"),
    ("mass_k", "0", "whole number"),
    ("seed", "-1", "from 0 to 2^63"),
    ("seed", "9223372036854775808", "from 0 to 2^63"),
    ("interventions", "3", "a list of tables"),
    ("interventions", "quota", "a list of tables"),
    ("price_human_item", "-1", "0 or more"),
    ("price_published_item", "inf", "finite"),
    ("price_detector_call", "free", "finite"),
    ("price_curated_item", "nan", "finite"),
    ("temprature", "1", "did you mean temperature?"),
    ("colour", "blue", "no such setting"),
]


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_bad_values_get_one_line_and_exit_2(tmp_path, monkeypatch, name, value, message):
    monkeypatch.chdir(tmp_path)
    base = () if name == "n_providers" else ("--set", "n_providers=3")
    scenario = tmp_path / "scenario.toml"
    scenario.write_text("rounds = 1\n")
    done = CliRunner().invoke(main, ["run", str(scenario), *base, "--set", f"{name}={value}"])
    assert done.exit_code == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"Error: {name} = ")
    assert message in lines[0]
    assert not (tmp_path / "results").exists() or not any((tmp_path / "results").iterdir())
    settings = {"rounds": 1} | ({} if name == "n_providers" else {"n_providers": 3})
    with pytest.raises(InputError, match="^" + name):
        Scenario(**settings | dict([parse_setting(f"{name}={value}")]))


def test_every_setting_has_a_bad_value_in_the_list():
    assert {name for name, _, _ in BAD} >= set(Scenario.model_fields)


def test_every_wrong_setting_is_named_at_once():
    with pytest.raises(InputError) as caught:
        Scenario(rounds=0, seed=-1, temperature="x")
    assert [line.split(" ")[0] for line in str(caught.value).splitlines()] == [
        "temperature",
        "rounds",
        "seed",
    ]


def test_provider_that_reads_no_one():
    graph = nx.DiGraph([(0, 1)])
    with pytest.raises(InputError, match="provider 0 reads no one"):
        Scenario(sharing=graph, self_weight=0)
    Scenario(sharing=graph, self_weight=0, fresh_fraction=[1.0, 0.0])


def test_supply_names_author_and_both_numbers():
    with pytest.raises(InputError, match=r"about 300 items a round of author 0, .* = 200"):
        Scenario(n_providers=1, batch_size=300, outputs_per_round=200, fresh_fraction=0.0)
    Scenario(n_providers=1, batch_size=300, outputs_per_round=200, fresh_fraction=0.0, with_replacement=True)
    # 20 authors, 300 items: about 15 of each, far from 200.
    Scenario(n_providers=20, sharing="complete", batch_size=300, outputs_per_round=200)


def test_numpy_values_are_as_good_as_python_ones():
    scenario = Scenario(
        n_providers=np.int64(2),
        temperature=np.array([0.5, 1]),
        seed=np.uint8(3),
        fresh_fraction=np.float64(0.5),
    )
    assert scenario == Scenario(n_providers=2, temperature=[0.5, 1.0], seed=3, fresh_fraction=0.5)
    assert scenario.temperature == (0.5, 1.0)


def test_numbers_follow_from_the_rest():
    assert Scenario(human=[0.5, 0.3, 0.2]).n_outputs == 3
    assert Scenario(sharing="karate-club").n_providers == 34
    assert Scenario(temperature=[1.0, 2.0, 3.0]).n_providers == 3
    assert (Scenario().n_outputs, Scenario().n_providers) == (100, 10)


def test_frozen():
    scenario = Scenario()
    with pytest.raises(ValueError, match="frozen"):
        scenario.rounds = 3


def various():
    return [
        Scenario(),
        Scenario(temperature=[0.0, float("inf")], human=[0.25, 0.75], seed=2**63 - 1, top_p=0.9),
        Scenario(sharing=nx.les_miserables_graph(), schedule="power:0.7:1:9"),
        Scenario(
            sharing=nx.DiGraph([("a", "b", {"weight": 0.1})]),
            initial=[[0.1, 0.9], [0.5, 0.5]],
            human=[0.3, 0.7],
        ),
    ]


@pytest.mark.parametrize("scenario", various(), ids=str)
def test_values_survive_toml_and_pickle(tmp_path, scenario):
    scenario.to_toml(tmp_path / "s.toml")
    for copy in (
        Scenario.from_toml(tmp_path / "s.toml"),
        Scenario.recorded(tmp_path / "s.toml"),
        pickle.loads(pickle.dumps(scenario)),
        scenario.replace(),
        scenario.model_copy(),
    ):
        assert copy == scenario
        assert hash(copy) == hash(scenario)
        np.testing.assert_array_equal(copy.W.toarray(), scenario.W.toarray())
    assert [path.name for path in tmp_path.iterdir()] == ["s.toml"]


def test_different_scenarios_differ():
    scenarios = [*various(), Scenario(human=[0.75, 0.25]), Scenario(human=[0.25, 0.75])]
    assert len(set(scenarios)) == len(scenarios)


def test_replace_computes_anew():
    scenario = Scenario(sharing="karate-club", human="zipf")
    assert scenario.W.shape == (34, 34)
    other = scenario.replace(sharing="florentine-families", human="english", n_outputs=50)
    assert other.W.shape == (15, 15)
    assert other.source.labels[0] == "the"


def test_paths_in_a_file_are_relative_to_it(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "counts.csv").write_text("a,1\nb,3\n")
    (tmp_path / "deep" / "s.toml").write_text('human = "counts:counts.csv"\n')
    monkeypatch.chdir(tmp_path)
    assert Scenario.from_toml("deep/s.toml").source.labels == ("b", "a")


@pytest.mark.parametrize(
    ("content", "message"),
    [("rounds = = 3", "is not TOML"), (b"\xff", "is not TOML"), ("[a]\nb=1", "no such setting")],
)
def test_bad_files(tmp_path, content, message):
    file = tmp_path / "s.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        Scenario.from_toml(file)
    with pytest.raises(InputError, match="does not exist"):
        Scenario.from_toml(tmp_path / "none.toml")


def test_settings_on_the_command_line():
    assert parse_setting("temperature=0.5") == ("temperature", 0.5)
    assert parse_setting("human=english") == ("human", "english")
    assert parse_setting("temperature=[0.5, inf]") == ("temperature", [0.5, float("inf")])
    with pytest.raises(InputError, match="key=value"):
        parse_setting("temperature")
    assert parse_setting("rounds=2\ntemperature=3") == ("rounds", "2\ntemperature=3")
    assert parse_setting("rounds=" + "[" * 5000)[1] == "[" * 5000
