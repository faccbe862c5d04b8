import socket
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from analysis import cli
from ecosystem import Scenario, Trajectory, run, running

QUICK = ["--set", "rounds=3", "--set", "n_outputs=50", "--replicates", "2"]


@pytest.fixture
def call(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(cli.main, list(arguments))


def test_main_job_runs_a_population_beside_one_alone(call, tmp_path):
    done = call("run", *QUICK, "--seed", "5")
    assert done.exit_code == 0, done.stderr
    (folder,) = (tmp_path / "results").iterdir()
    population, alone = Trajectory.load(folder), Trajectory.load(folder / "alone")
    assert population.scenario.human == "english"
    assert population.final.shape == (2, 34, 50)
    assert alone.final.shape == (2, 1, 50)
    assert population.scenario.seed == alone.scenario.seed == 5
    assert {"run.png", "run.svg", "summary.txt"} <= {path.name for path in folder.iterdir()}
    assert "34 providers, " in done.stdout
    assert "one alone, " in done.stdout
    assert str(folder.relative_to(tmp_path)) in done.stdout


def test_the_same_command_twice_gives_the_same_bits(call):
    for out in ("a", "b"):
        assert call("run", *QUICK, "--no-alone", "--out", out).exit_code == 0
    a, b = Trajectory.load("a"), Trajectory.load("b")
    assert a.table.equals(b.table)
    np.testing.assert_array_equal(a.final, b.final)


def test_a_scenario_file_is_what_python_runs(call, tmp_path):
    scenario = Scenario(n_providers=4, rounds=3, temperature=1.3)
    scenario.to_toml(tmp_path / "s.toml")
    assert call("run", "s.toml", "--replicates", "2", "--out", "out").exit_code == 0
    saved = Trajectory.load("out")
    assert saved.scenario == scenario
    assert saved.table.equals(run(scenario, 2).table)
    assert not (tmp_path / "out" / "alone").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.toml"], "none.toml does not exist"),
        (["run", "--out", "taken"], "already there"),
        (["run", "--out", "taken/file/out"], "no folder can be made"),
        (["run", "--replicates", "0"], "replicates"),
        (["run", "--seed", "x"], "seed"),
        (["run", "--set", "rounds"], "key=value"),
        (["run", "--resume", "taken"], "holds no saved run"),
        (["run", "--resume", "taken", "--seed", "3"], "only other option is --replicates"),
        (["runs"], "runs"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(call, tmp_path, arguments, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    done = call(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "changes",
    [
        ["human=[0.5, 0.5]"],
        ["n_providers=3"],
        ["human=uniform", "n_outputs=7"],
        ["sharing=ring", "n_providers=4"],
    ],
)
def test_the_main_job_takes_other_data_and_other_sizes(call, changes):
    sets = [part for change in [*changes, "rounds=2"] for part in ("--set", change)]
    done = call("run", *sets, "--replicates", "1", "--no-alone", "--out", "out")
    assert done.exit_code == 0, done.stderr


def test_an_unwritable_place_is_told_before_the_work(call):
    done = call("run", "--out", "/proc/nothing")
    assert done.exit_code == 2
    assert "replicates of" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("rounds", [2, 4, 5])
def test_interrupted_main_job_resumes_to_the_same_bits(call, monkeypatch, tmp_path, rounds):
    arguments = ["run", "--set", "rounds=3", "--set", "n_outputs=20", "--replicates", "2", "--out"]
    assert call(*arguments, "whole").exit_code == 0
    seen = 0

    class Bar(running.tqdm):
        def update(self, n=1):
            nonlocal seen
            seen += 1
            if seen == rounds:
                import os
                import signal

                os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(running, "tqdm", Bar)
        part = call(*arguments, "part")
    assert part.exit_code == 130
    assert "nan" not in part.stdout
    assert "ecosystem run --resume part" in part.stderr
    done = call("run", "--resume", "part")
    assert done.exit_code == 0, done.stderr
    for sub in (".", "alone"):
        whole, resumed = Trajectory.load(tmp_path / "whole" / sub), Trajectory.load(tmp_path / "part" / sub)
        assert resumed.complete
        assert resumed.table.equals(whole.table)
        np.testing.assert_array_equal(resumed.final, whole.final)
    assert (tmp_path / "whole" / "summary.txt").read_text() == (tmp_path / "part" / "summary.txt").read_text()


def test_settings_lists_every_setting(call):
    done = call("settings")
    assert done.exit_code == 0
    for name in Scenario.model_fields:
        assert f"\n{name}" in f"\n{done.stdout}"


def test_alone_keeps_the_first_providers_settings():
    population = Scenario(
        n_providers=2, temperature=[0.5, 2.0], batch_size=[3, 4], initial=np.eye(2, 100), sharing="star"
    )
    alone = cli.alone_of(population)
    assert (alone.n_providers, alone.temperature, alone.batch_size) == (1, 0.5, 3)
    assert alone.initial[0] == 1


def test_help_does_not_wait_for_libraries():
    script = (
        "import sys; from click.testing import CliRunner; from analysis.cli import main\n"
        "assert CliRunner().invoke(main, ['run', '--help']).exit_code == 0\n"
        "print(sorted({'mesa', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_app_tells_mistakes_before_it_serves(call, tmp_path):
    pytest.importorskip("solara", reason="the viz extra is not installed: pip install -e '.[viz]'")
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("temperature = -1\n", encoding="utf-8")
    done = call("app", "--scenario", str(wrong))
    assert done.exit_code == 2 and "temperature = -1" in done.stderr
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        done = call("app", "--port", str(port))
    assert done.exit_code == 2 and f"--port {port}: " in done.stderr
    assert call("app", "--port", "99999").exit_code == 2


def test_app_without_its_extra_says_what_to_install(call, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = call("app")
    assert done.exit_code == 1
    assert done.stderr.strip() == "Error: the page needs the viz extra: pip install -e '.[viz]'"


def test_ctrl_c_at_the_start_of_the_second_run_keeps_the_first(tmp_path, monkeypatch):
    import ecosystem

    real, calls = ecosystem.run, []

    def stopped(*args, **options):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*args, **options)

    monkeypatch.setattr(ecosystem, "run", stopped)
    out = tmp_path / "out"
    told = CliRunner().invoke(cli.main, ["run", "--replicates", "2", "--out", str(out)])
    assert told.exit_code == 130
    assert f"ecosystem run --resume {out}" in told.stderr
    assert Trajectory.load(out).complete
