import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.figures import run_figure
from ecosystem import InputError, Scenario, Trajectory, run, running, trajectory

SMALL = Scenario(n_providers=3, n_outputs=8, rounds=6, seed=2)


def test_tables_are_tidy():
    t = run(SMALL, replicates=2)
    assert list(t.table.columns[:3]) == ["replicate", "round", "provider"]
    assert len(t.table) == 2 * 7 * 3
    assert not t.table.duplicated(["replicate", "round", "provider"]).any()
    assert list(t.population.columns[:2]) == ["replicate", "round"]
    assert len(t.population) == 2 * 7
    assert t.final.shape == (2, 3, 8)
    assert t.complete
    last = t.table[t.table["round"] == 6]
    np.testing.assert_allclose(1 - (t.final**2).sum(axis=-1).ravel(), last["simpson_diversity"])


def test_provenance_says_what_ran():
    provenance = run(SMALL.replace(human="english"), replicates=2).provenance
    assert provenance["seed"] == 2
    assert provenance["rounds_done"] == [6, 6]
    assert provenance["human"]["sha256"]
    assert {"numpy", "mesa", "python"} <= set(provenance["versions"])
    json.dumps(provenance)


@pytest.mark.parametrize("changes", [{}, {"human": "english"}, {"outputs_per_round": 1, "batch_size": 1}])
def test_loaded_back_equal(tmp_path, changes):
    t = run(SMALL.replace(**changes), replicates=2)
    t.save(tmp_path / "run", figures={"picture": run_figure({"a": t})})
    assert Trajectory.load(tmp_path / "run") == t
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        "scenario.toml",
        "provenance.json",
        "table.parquet",
        "population.parquet",
        "outputs.parquet",
        "final.npy",
        "picture.png",
        "picture.svg",
    }
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    assert pd.read_parquet(tmp_path / "run" / "table.parquet").equals(t.table)


def test_different_runs_are_not_equal():
    assert run(SMALL) != run(SMALL.replace(seed=3))
    t = run(SMALL)
    assert t != dataclasses.replace(t, final=t.final + 1e-16 * (t.final == t.final.max()) + 1e-9)


def test_a_run_loads_where_its_text_is_gone(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be")
    t = run(SMALL.replace(n_outputs=4, human=f"text:{text}"))
    t.save(tmp_path / "run")
    text.unlink()
    loaded = Trajectory.load(tmp_path / "run")
    assert loaded == t
    assert loaded.labels == ("be", "to", "not", "or")


def test_relative_paths_mean_the_same_from_anywhere(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("to be or not to be")
    (tmp_path / "links.edgelist").write_text("a b\nb c\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    scenario = Scenario(human="text:text.txt", sharing="graph:links.edgelist", rounds=2)
    scenario.to_toml("elsewhere/s.toml")
    t = run(scenario)
    t.save("saved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Scenario.from_toml("s.toml") == scenario
    loaded = Trajectory.load("../saved")
    assert loaded == t
    assert run(loaded.scenario, 2, resume=loaded).complete


@pytest.mark.parametrize(
    ("name", "content"),
    [("provenance.json", "{"), ("provenance.json", "{}"), ("final.npy", "no array"), ("table.parquet", None)],
)
def test_damaged_runs_are_named(tmp_path, name, content):
    run(SMALL).save(tmp_path / "run")
    if content is None:
        (tmp_path / "run" / name).unlink()
    else:
        (tmp_path / "run" / name).write_text(content)
    with pytest.raises(InputError, match="damaged run"):
        run(SMALL, 2, resume=Trajectory.load(tmp_path / "run"))


def test_saving_never_overwrites(tmp_path):
    t = run(SMALL)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="already there"):
        t.save(tmp_path / "mine")
    with pytest.raises(InputError, match="no folder can be made"):
        t.save(tmp_path / "mine" / "thesis.txt" / "run")
    t.save(tmp_path / "new" / "folder" / "run")
    assert Trajectory.load(tmp_path / "new" / "folder" / "run") == t
    with pytest.raises(InputError, match="holds no saved run"):
        Trajectory.load(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_error_while_saving_leaves_nothing(tmp_path):
    class Broken:
        def savefig(self, path):
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        run(SMALL).save(tmp_path / "run", figures={"broken": Broken()})
    assert list(tmp_path.iterdir()) == []


def test_the_folder_appears_in_one_rename(tmp_path, monkeypatch):
    t, seen, replace = run(SMALL), [], os.replace

    def spy(source, target):
        if Path(target) == tmp_path / "run":
            seen.append((Path(target).exists(), len(list(Path(source).iterdir()))))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    t.save(tmp_path / "run")
    assert seen == [(False, 6)]


def test_killed_while_saving_leaves_no_folder(tmp_path):
    script = (
        "import os, signal\nfrom ecosystem import Scenario, run\n"
        "class Killer:\n"
        "    def savefig(self, path): os.kill(os.getpid(), signal.SIGKILL)\n"
        "run(Scenario(rounds=1)).save('run', figures={'killer': Killer()})"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path)
    assert done.returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".run.") and left.name.endswith(".partial")


@pytest.mark.parametrize("replicates", [0, -1, 1.5, True, "2"])
def test_bad_replicates(replicates):
    with pytest.raises(InputError, match="replicates"):
        run(SMALL, replicates)


class After:
    """Press Ctrl-C after so many rounds."""

    def __init__(self, rounds):
        self.left = rounds

    def __call__(self, *args, **kwargs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(
    ("engine", "rounds"),
    [*(("agents", rounds) for rounds in (1, 5, 6, 7, 15, 17)), ("compiled", 1), ("compiled", 5)],
)
def test_interrupted_and_resumed_is_the_same_to_the_bit(tmp_path, monkeypatch, engine, rounds):
    undisturbed = run(SMALL, replicates=3, engine=engine)
    after = After(rounds)
    done = rounds if engine == "agents" else 3 * rounds  # compiled replicates go side by side

    class Bar(running.tqdm):
        def update(self, n=1):
            after()

    with monkeypatch.context() as patch:
        patch.setattr(running, "tqdm", Bar)
        with pytest.raises(trajectory.Interrupted, match=f"after {done} rounds") as caught:
            run(SMALL, replicates=3, engine=engine)
    part = caught.value.trajectory
    assert not part.complete
    assert sum(part.provenance["rounds_done"]) == done
    assert part.table["round"].max() <= 6
    part.save(tmp_path / "part")
    whole = run(SMALL, replicates=3, resume=Trajectory.load(tmp_path / "part"))
    assert whole.complete
    assert whole.table.equals(undisturbed.table)
    assert whole.population.equals(undisturbed.population)
    np.testing.assert_array_equal(whole.final, undisturbed.final)


def test_resume_can_add_replicates_but_not_change_the_scenario():
    two = run(SMALL, replicates=2)
    np.testing.assert_array_equal(run(SMALL, 3, resume=two).final, run(SMALL, 3).final)
    with pytest.raises(InputError, match="another scenario"):
        run(SMALL.replace(seed=9), 3, resume=two)
    with pytest.raises(InputError, match="the run has 2 already"):
        run(SMALL, 1, resume=two)
    assert run(SMALL, np.int64(2)).table.equals(two.table)
    with pytest.raises(InputError, match="give a Scenario"):
        run({"rounds": 3})


def test_resume_refuses_human_data_that_changed(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("to be or not to be")
    scenario = SMALL.replace(n_outputs=3, human=f"text:{text}")
    done = run(scenario)
    text.write_text("to be or to be not")
    os.utime(text, (1, 1))
    with pytest.raises(InputError, match="human data has changed"):
        run(scenario.replace(), 2, resume=done)


LONG = [
    "--engine",
    "agents",
    "--set",
    "rounds=4000",
    "--set",
    "n_providers=5",
    "--no-alone",
    "--replicates",
    "2",
]


def start(tmp_path, *arguments):
    scenario = tmp_path / "s.toml"
    scenario.write_text('human = "zipf"\n')
    command = [
        sys.executable,
        "-c",
        "from analysis.cli import main; main()",
        "run",
        str(scenario),
        *arguments,
    ]
    return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def begun(process):
    """Wait until the progress bar has moved."""
    seen = ""
    while "round/s" not in seen and process.poll() is None:
        seen += process.stderr.read(1)
    time.sleep(0.7)


def test_ctrl_c_keeps_the_results_and_resumes(tmp_path):
    process = start(tmp_path, *LONG, "--out", "out")
    begun(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "ecosystem run --resume out" in stderr
    assert "Traceback" not in stderr
    part = Trajectory.load(tmp_path / "out")
    assert not part.complete
    assert (tmp_path / "out" / "run.png").exists()
    assert "effective number" in stdout


@pytest.mark.parametrize("delay", [0.0, 0.6, 1.3])
def test_a_killed_run_leaves_no_folder_that_looks_whole(tmp_path, delay):
    process = start(tmp_path, "--set", "rounds=100", "--no-alone", "--out", "out")
    begun(process)
    time.sleep(delay)
    process.kill()
    process.communicate()
    if (tmp_path / "out").exists():
        assert Trajectory.load(tmp_path / "out").complete
    rest = {path.name for path in Path(tmp_path).iterdir()} - {"out", "s.toml"}
    assert all(name.startswith(".out.") and name.endswith(".partial") for name in rest)
