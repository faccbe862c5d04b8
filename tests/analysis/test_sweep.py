"""Sweeps: the design, the tables, and that nothing is lost or done twice, whatever dies."""

import multiprocessing
import os
import pickle
import queue
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import Counter
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from analysis import cli, map_runs, shards
from analysis import sweep as sweeps
from analysis.design import Design, metric_names, together, with_setting
from analysis.executors import ClusterExecutor, ExecutorError, LocalExecutor
from analysis.map_runs import map_chunks
from analysis.statistics import estimate
from analysis.sweep import Sweep, SweepInterrupted, sweep
from analysis.sweep_figure import means, sweep_figure
from ecosystem import InputError, Scenario, metrics, run

BASE = Scenario(n_providers=3, n_outputs=20, rounds=4, record_every=2, outputs_per_round=20, batch_size=20)
GRID = {"temperature": [0.5, 1.0], "sharing": ["ring", "complete"]}


class Inline(Executor):
    """Computes in this process; ``break_on`` dies like a process pool when a chunk holds that replicate.

    With ``seconds`` every run says that it took so long.
    """

    slots = 2

    def __init__(self, break_on=None, deaths=10**9, seconds=None):
        self.break_on, self.deaths, self.seconds = break_on, deaths, seconds
        self.chunks, self.computed = [], 0

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        replicates = [replicate for _, group in args[1] for replicate in group]
        self.chunks.append(replicates)
        if self.break_on in replicates and self.deaths > 0:
            self.deaths -= 1
            future.set_exception(BrokenProcessPool("a process was killed"))
        else:
            fn, args, kwargs = pickle.loads(pickle.dumps((fn, args, kwargs)))  # as it would travel
            answers = fn(*args, **kwargs)
            self.computed += len(answers)
            if self.seconds is not None:
                answers = [(*answer[:2], self.seconds) for answer in answers]
            future.set_result(answers)
        return future


def swept(design, out, executor=None, **options):
    return sweep(design, out, executor=executor or Inline(), progress=False, **options)


# --- the design -----------------------------------------------------------------------------------


def test_a_design_file_is_what_it_says(tmp_path):
    (tmp_path / "base.toml").write_text(
        'rounds = 7\nhuman = "counts:words.csv"\nbatch_size = 10\nfresh_fraction = 0.2\n'
    )
    (tmp_path / "words.csv").write_text("the,5\na,3\n")
    (tmp_path / "more.csv").write_text("the,5\na,3\nto,1\n")
    file = tmp_path / "design.toml"
    file.write_text(
        textwrap.dedent("""
        scenario = "base.toml"
        replicates = 3
        record = "all"
        metrics = ["hill_1", "self_similarity_together"]
        seed = 11
        [grid]
        temperature = [0.5, 1]
        human = ["counts:words.csv", "counts:more.csv"]
        [[list]]
        schedule = "replace"
        [[list]]
        fresh_fraction = 0.5
        [latin-hypercube]
        samples = 4
        pretraining_size = [1, 1000, "log"]
        self_weight = [1, 3]
        """)
    )
    design = Design.from_toml(file)
    assert len(design.points) == 2 * 2 * 2 * 4
    assert len(design) == 96
    assert design.varied == (
        *("temperature", "human", "schedule", "fresh_fraction"),
        *("pretraining_size", "self_weight"),
    )
    first, last = design.at(0), design.at(31)
    assert (first.rounds, first.seed, first.temperature, first.schedule) == (7, 11, 0.5, "replace")
    assert (last.temperature, last.schedule, last.fresh_fraction) == (1.0, "accumulate", 0.5)
    assert (first.n_outputs, last.n_outputs) == (2, 3)
    assert design.values(0)["fresh_fraction"] == 0.2  # where a row leaves a setting out: the base's
    assert [run[2] for run in design.runs()][:4] == [0, 1, 2, 0]
    again = tmp_path / "elsewhere" / "again.toml"
    again.parent.mkdir()
    again.write_text(design.to_toml())
    assert [Design.from_toml(again).at(point) for point in range(32)] == [design.at(p) for p in range(32)]


def test_a_latin_hypercube_fills_every_stratum_and_keeps_whole_numbers():
    bounds = {"temperature": [0, 2], "batch_size": [1, 100], "pretraining_size": [10, 10_000, "log"]}
    design = Design(latin_hypercube=bounds, samples=50, seed=3)
    points = pd.DataFrame(design.points)
    assert points["temperature"].dtype == float  # although its bounds are whole
    assert points["batch_size"].dtype == points["pretraining_size"].dtype == int
    assert points["batch_size"].between(1, 100).all()
    for unit in (
        points["temperature"] / 2,
        np.log(points["pretraining_size"] / 9.9) / np.log(1100),
    ):
        strata = np.histogram(unit, bins=10, range=(0, 1))[0]
        assert (abs(strata - 5) <= 1).all(), strata
    for ends in ([1, 3], [1.0, 3.0]):
        few = Design(latin_hypercube={"mass_k": ends}, samples=30).points
        assert {point["mass_k"] for point in few} == {1, 2, 3}
    assert design.points == Design(latin_hypercube=bounds, samples=50, seed=3).points
    assert design.points != Design(latin_hypercube=bounds, samples=50, seed=4).points


POLICIES = {
    "temperature": 1.0,
    "interventions": [
        {"kind": "quota", "fraction": 0.1},
        {"kind": "cap", "name": "one author", "limit": 0.2},
        {"kind": "cap", "name": "one country", "limit": {"share": 0.5}},
    ],
}


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("temperature", ["temperature"]),
        ("rounds", ["rounds"]),
        ("interventions.0.fraction", ["interventions", 0, "fraction"]),
        ("quota.fraction", ["interventions", 0, "fraction"]),
        ("quota.start", ["interventions", 0, "start"]),
        ("one author.limit", ["interventions", 1, "limit"]),
        ("one country.limit.share", ["interventions", 2, "limit", "share"]),
    ],
)
def test_with_setting_changes_one_place(path, where):
    before = repr(POLICIES)
    changed = with_setting(POLICIES, path, "new")
    here = changed
    for step in where:
        here = here[step]
    assert here == "new"
    assert repr(POLICIES) == before
    assert repr(changed).count("'new'") == 1
    assert with_setting(changed, path, "x") == with_setting(POLICIES, path, "x")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("cap.limit", r"2 tables have the kind 'cap'; write interventions.1.limit or interventions.2.limit,"),
        ("quotas.fraction", r"called 'quotas'; did you mean quota.fraction\?"),
        ("quotas.fractoin", r"did you mean quota.fraction\?"),
        ("one auhtor.limit", r"did you mean one author.limit\?"),
        ("x.y", "called 'x'; there are cap, one author, one country, quota"),
        ("detector.true_positive", "has no detector among its interventions; add it there"),
        ("detector.mod", r"did you mean detector.mode\?"),
        ("drift.x", "drift has no 'x'; it has start, end, ramp, share"),
        ("interventions.3.fraction", "no entry 3 among the 3 of interventions; count from 0"),
        ("interventions.0.fraction.x", "fraction = 0.1 is no table"),
        ("temperature.fixed", "has no temperature among its interventions"),
        ("one country.floor.share", "has no 'floor'"),
    ],
)
def test_with_setting_says_where_a_path_ends(path, message):
    with pytest.raises(InputError, match=message):
        with_setting(POLICIES, path, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("replicates = 0", "replicates = 0: allowed: a whole number, 1 or more"),
        ("samples = 3", "samples = 3: no part of a design"),
        ("temperature = 3", "a setting goes into [scenario] or [grid]"),
        ("[grids]", "did you mean grid?"),
        ("[grid]\ntemperature = 0.5", "grid: temperature = 0.5: give a list of values"),
        ("[grid]\nreplicates = 4", "stand above the first [table]"),
        ("[grid]\ntemperature = [0.5, -1, -2]", "temperature = -2: allowed: a number from 0"),
        ("[grid]\ntemprature = [0.5]", "did you mean temperature?"),
        ("[grid]\ntemperature = [1, 1.0]", "points 0 and 1 (temperature = 1.0) are the same; remove one"),
        ("[grid]\nquota.fraction = [0.5]", "the base scenario has no quota among its interventions"),
        ("[grid]\nquot.fraction = [0.5]", "did you mean quota.fraction?"),
        ("[grid]\nseed = [1]\n[[list]]\nseed = 2", "seed is varied in two parts"),
        ("[scenario]\nrounds = 0", "rounds = 0: allowed"),
        ('scenario = "none.toml"', "none.toml does not exist"),
        ("scenario = 3", "give a table, [scenario], or a file"),
        ("[latin-hypercube]\ntemperature = [0.5, 1]", "write samples = 100"),
        ("[latin-hypercube]\nsamples = 3\ntemperature = [1, 0.5]", "give a lower and a higher number"),
        ('[latin-hypercube]\nsamples = 3\ntemperature = [0, 1, "log"]', "with low above 0"),
        ('[latin-hypercube]\nsamples = 3\ntemperature = ["a", "b"]', "give a lower and a higher number"),
        ("[latin-hypercube]\nsamples = 3\nfresh_fraction = [0.5, 1.5]", "allowed: a number from 0 to 1"),
        ("list = 3", "give tables of settings, [[list]]"),
        ('record = "first"', 'allowed: "last" or "all"'),
        ('metrics = ["hill"]', "metrics: 'hill' is not a metric; did you mean hill_"),
        ('metrics = "hill_1"', "give a list of names"),
        ("grid = 1 =", "is not TOML"),
    ],
)
def test_mistakes_in_a_design_are_told_before_any_work(tmp_path, text, message):
    file = tmp_path / "design.toml"
    file.write_text(text)
    done = CliRunner().invoke(cli.main, ["sweep", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "2", "--scheduler", "tcp://127.0.0.1:9"], "give one of"),
        (["--resume"], "--out DIR"),
        (["--retry-failed"], "give --resume too"),
        (["--out", "."], "already there"),
        (["--out", ".", "--resume"], "holds no sweep"),
        (["--scheduler-file", "none.json"], "none.json does not exist"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    Path("design.toml").write_text("[scenario]\nrounds = 2\n")
    done = CliRunner().invoke(cli.main, ["sweep", "design.toml", *options])
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert "Traceback" not in done.stderr


# --- the tables -----------------------------------------------------------------------------------


def test_the_table_holds_what_the_runs_give(tmp_path):
    design = Design(BASE, grid=GRID, replicates=2, record="all")
    table = swept(design, tmp_path / "out").table
    assert list(table.columns[:6]) == ["run", "point", "replicate", "temperature", "sharing", "round"]
    assert len(table) == 4 * 2 * 3  # points, replicates, recorded rounds
    assert table["run"].nunique() == 8
    for point in range(4):
        scenario = design.at(point)
        direct = run(scenario, 2)
        mine = table[table["point"] == point].reset_index(drop=True)
        assert (mine["temperature"] == scenario.temperature).all()
        assert (mine["sharing"] == scenario.sharing).all()
        providers = direct.table.groupby(["replicate", "round"]).mean().reset_index()
        for name in ("replicate", "round", "hill_1", "kl_to_human", "self_similarity"):
            np.testing.assert_allclose(mine[name], providers[name], rtol=1e-14)
        for name in ("hill_1_of_mean", "beta_diversity", "synthetic_share"):
            np.testing.assert_array_equal(mine[name], direct.population[name])
        np.testing.assert_array_equal(mine["self_similarity_together"], direct.population["self_similarity"])
        kept = providers["hill_1"] / metrics.hill(direct.human, 1)
        np.testing.assert_allclose(mine["diversity_kept"], kept, rtol=1e-14)


def test_the_last_round_and_some_metrics_only(tmp_path):
    design = Design(BASE, grid=GRID, metrics=["beta_diversity", "hill_2"])
    part = swept(design, tmp_path / "part").table
    assert list(part.columns[5:]) == ["round", "diversity_kept", "beta_diversity", "hill_2"]
    assert (part["round"] == 4).all()
    whole = swept(Design(BASE, grid=GRID, record="all"), tmp_path / "whole").table
    last = whole[whole["round"] == 4].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, last[part.columns])


def test_missing_values_are_left_out_of_means_over_providers():
    scenario = BASE.replace(outputs_per_round=[1, 20, 20], with_replacement=True)
    result = next(iter(map_runs.map_runs([(scenario, 0)], executor=Inline()))).value
    kept = sweeps._Kept(Design(scenario))(result)[0]
    similar = result.table[result.table["round"] == 4]["self_similarity"]
    assert similar.isna().sum() == 1
    assert kept["self_similarity"] == pytest.approx(similar.mean())


def test_columns_have_one_type(tmp_path):
    rows = [{"temperature": 1}, {"temperature": 0.5}, {"temperature": [0.5, 0.6, 0.7]}]
    table = swept(Design(BASE, rows=rows), tmp_path / "a").table
    assert table["temperature"].tolist() == ["1", "0.5", "[0.5, 0.6, 0.7]"]
    table = swept(Design(BASE, rows=rows[:2]), tmp_path / "b").table
    assert table["temperature"].tolist() == [1.0, 0.5]
    table = swept(Design(BASE, grid={"with_replacement": [True, False]}), tmp_path / "c").table
    assert table["with_replacement"].tolist() == [True, False]


def test_a_run_is_known_by_scenario_seed_replicate_code_and_data(tmp_path, monkeypatch):
    words = tmp_path / "words.csv"
    words.write_text("the,5\na,3\n")

    def names(**changes):
        scenario = Scenario(**{"rounds": 2, "human": f"counts:{words}", **changes})
        return {run.id for run in sweeps._identified(Design(scenario, replicates=2))}

    first = names()
    assert len(first) == 2
    assert first == names()
    for other in (names(seed=1), names(rounds=3)):
        assert not first & other
    words.write_text("the,5\na,4\n")
    assert not first & names()
    words.write_text("the,5\na,3\n")
    monkeypatch.setattr(sweeps, "code_version", lambda: "0.1.0+other")
    assert not first & names()


def test_the_code_version_changes_with_the_source(tmp_path, monkeypatch):
    package = tmp_path / "package"
    (package / "__pycache__").mkdir(parents=True)
    (package / "a.py").write_text("1")
    monkeypatch.setattr(map_runs.resources, "files", lambda _: package)
    versions = set()
    for name, content in (("a.py", "1"), ("a.py", "2"), ("b.py", ""), ("__pycache__/a.pyc", "x")):
        (package / name).write_text(content)
        map_runs.code_version.cache_clear()
        versions.add(map_runs.code_version())
    map_runs.code_version.cache_clear()
    assert len(versions) == 3


def test_shards_merge_and_blocks_join_to_the_same_table(tmp_path, monkeypatch):
    design = Design(BASE, grid=GRID, replicates=5, record="all")
    whole = swept(design, tmp_path / "whole").table
    monkeypatch.setattr(shards, "_MERGE", 2)
    monkeypatch.setattr(shards, "_BLOCK", 7)
    monkeypatch.setattr(map_runs, "CHUNK_SECONDS", 1e-9)  # a chunk for every run
    merged = swept(design, tmp_path / "merged")
    pd.testing.assert_frame_equal(merged.table, whole)
    assert not (tmp_path / "merged" / "shards").exists()
    assert len(merged.failures) == 0


def test_a_run_in_two_files_is_read_once(tmp_path):
    design = Design(BASE, grid=GRID, replicates=2)
    whole = swept(design, tmp_path / "out").table
    part = tmp_path / "out" / "shards"
    part.mkdir()
    (part / "runs-again.parquet").write_bytes((tmp_path / "out" / "runs.parquet").read_bytes())
    (part / ".runs-half.parquet.1.partial").write_bytes(b"PAR1")
    pd.testing.assert_frame_equal(Sweep.load(tmp_path / "out").table, whole)
    again = swept(design, tmp_path / "out", resume=True)
    pd.testing.assert_frame_equal(again.table, whole)
    assert not part.exists()


# --- many runs ------------------------------------------------------------------------------------


def test_many_short_runs_are_sent_together():
    executor = Inline(seconds=0.01)
    scenario = BASE.replace(rounds=1)
    outcomes = list(map_runs.map_runs([(scenario, r) for r in range(400)], replicate_of, executor=executor))
    assert sorted(outcome.value for outcome in outcomes) == list(range(400))
    assert all(outcome.index == outcome.replicate for outcome in outcomes)
    sizes = [len(chunk) for chunk in executor.chunks]
    assert sizes[0] == 1  # before anything is known
    assert max(sizes) > 20
    assert sizes[-1] < max(sizes)  # so that the workers end together
    assert len(sizes) < 60


def test_a_worker_needs_none_of_the_files_that_a_scenario_names(tmp_path):
    (tmp_path / "words.txt").write_text("the cat and the dog and the bird")
    (tmp_path / "graph.txt").write_text("0 1\n1 2\n")
    scenario = Scenario(human=f"text:{tmp_path}/words.txt", sharing=f"graph:{tmp_path}/graph.txt", rounds=2)
    there = run(scenario, 1).final[0]
    again = Scenario(**scenario.settings())
    for name in ("words.txt", "graph.txt"):
        (tmp_path / name).unlink()
    (outcome,) = map_runs.map_runs([(again, 0)], executor=Inline())
    np.testing.assert_array_equal(outcome.value.final, there)


def test_a_chunk_that_takes_long_is_returned_early(monkeypatch):
    monkeypatch.setattr(map_runs, "CHUNK_SECONDS", 0.05)
    real = map_runs._results

    def results(scenario, replicates):
        for result in real(scenario, replicates):
            time.sleep(0.2 if result.replicate >= 50 else 0)
            yield result

    monkeypatch.setattr(map_runs, "_results", results)
    executor = Inline()
    chunks = list(map_chunks([(BASE, r) for r in range(60)], replicate_of, executor=executor))
    assert Counter(o.value for chunk in chunks for o in chunk) == Counter(range(60))
    assert max(sum(outcome.seconds for outcome in chunk) for chunk in chunks) < 0.5


@pytest.mark.parametrize("record", ["last", "all"])
def test_providers_that_are_not_there_count_in_no_mean(tmp_path, record):
    rule = {"kind": "exit", "providers": [1], "start": 2}
    scenario = BASE.replace(rounds=5, interventions=[rule], human="zipf")
    design = Design(scenario, grid={"exit.start": [1, 3, 6]}, replicates=2, record=record)
    found = swept(design, tmp_path / "out")
    assert len(found.failures) == 0
    for start in (1, 3, 6):
        table = run(scenario.replace(interventions=[rule | {"start": start}]), 2).table
        means = table.groupby(["replicate", "round"])["hill_1"].mean()
        if record == "last":
            means = means[:, 5]
        mine = found.table[found.table["exit.start"] == start]["hill_1"]
        np.testing.assert_allclose(mine, means, rtol=1e-12)


def replicate_of(result):
    return result.replicate


def test_failures_are_recorded_and_take_no_other_run_with_them(tmp_path, monkeypatch):
    real = map_runs._results

    def results(scenario, replicates):
        for replicate in replicates:
            if (scenario.temperature, replicate) in ((0.5, 1), (1.0, 0)):
                raise MemoryError(f"no room for {replicate}")
            yield from real(scenario, [replicate])

    design = Design(BASE, grid={"temperature": [0.5, 1.0]}, replicates=4)
    whole = swept(design, tmp_path / "whole").table
    with monkeypatch.context() as patch:
        patch.setattr(map_runs, "_results", results)
        done = swept(design, tmp_path / "out")
    assert list(done.failures["error"]) == ["MemoryError"] * 2
    assert list(done.failures["message"]) == ["no room for 1", "no room for 0"]
    assert list(done.failures["temperature"]) == [0.5, 1.0]
    assert "in results" in done.failures["traceback"][0]
    assert done.provenance["failed"] == 2
    missing = whole["run"].isin(done.failures["run"])
    pd.testing.assert_frame_equal(done.table, whole[~missing].reset_index(drop=True))
    executor = Inline()
    assert len(swept(design, tmp_path / "out", executor, resume=True).failures) == 2
    assert executor.chunks == []
    healed = swept(design, tmp_path / "out", executor, resume=True, retry_failed=True)
    assert sorted(r for chunk in executor.chunks for r in chunk) == [0, 1]
    assert len(healed.failures) == 0
    pd.testing.assert_frame_equal(healed.table, whole)


def fails_on_odd(result):
    if result.replicate % 2:
        raise ValueError(f"odd: {result.replicate}")
    return result.replicate


def test_a_chunk_goes_on_after_a_failure():
    groups = [(BASE, [0, 1, 2]), (BASE.replace(seed=1), [3, 4])]
    answers = map_runs._run_chunk(fails_on_odd, groups, map_runs.code_version(), 60.0)
    assert [answer[0] for answer in answers] == [0, None, 2, None, 4]
    assert [answer[1].message for answer in answers if answer[1]] == ["odd: 1", "odd: 3"]


def test_a_run_that_kills_its_worker_is_given_up_and_no_other():
    executor = Inline(break_on=7)
    outcomes = list(map_runs.map_runs([(BASE, r) for r in range(30)], replicate_of, executor=executor))
    failed = [outcome for outcome in outcomes if outcome.failure]
    assert [(outcome.replicate, outcome.failure.error) for outcome in failed] == [(7, "WorkerDied")]
    assert sorted(outcome.value for outcome in outcomes if not outcome.failure) == [*range(7), *range(8, 30)]


class Fragile(Inline):
    """Breaks like a process pool: with the poisoned run fall all that were submitted beside it."""

    def __init__(self, poison):
        super().__init__()
        self.poison, self.waiting, self.fallen = poison, queue.SimpleQueue(), []
        threading.Thread(target=self.work, daemon=True).start()

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        self.waiting.put((future, fn, args))
        return future

    def work(self):
        while True:
            batch = [self.waiting.get()]
            time.sleep(0.02)
            while not self.waiting.empty():
                batch.append(self.waiting.get())
            runs = [[r for _, group in args[1] for r in group] for _, _, args in batch]
            broken = any(self.poison in chunk for chunk in runs)
            if broken:
                self.fallen.append(runs)
            for future, fn, args in batch:
                if broken:
                    future.set_exception(BrokenProcessPool("a process was killed"))
                else:
                    future.set_result(fn(*args))


def test_a_suspect_runs_alone_so_that_no_other_falls_with_it():
    executor = Fragile(poison=7)
    outcomes = list(map_runs.map_runs([(BASE, r) for r in range(40)], replicate_of, executor=executor))
    assert {o.replicate for o in outcomes if o.failure} == {7}
    assert len(outcomes) == 40
    assert executor.fallen[3:] == [[[7]], [[7]]]
    assert max(sum(map(len, chunks)) for chunks in executor.fallen[:3]) > 1  # others fell with it


def test_a_run_whose_worker_is_killed_from_outside_is_repeated():
    executor = Inline(break_on=7, deaths=3)
    outcomes = list(map_runs.map_runs([(BASE, r) for r in range(30)], replicate_of, executor=executor))
    assert sorted(outcome.value for outcome in outcomes) == list(range(30))


def test_another_version_of_the_code_is_refused_by_the_worker():
    with pytest.raises(ExecutorError, match="another version of the code"):
        map_runs._run_chunk(replicate_of, [(BASE, [0])], "0.0.1+abc", 1.0)


class Refusing(Inline):
    """Cannot send chunks, as a Dask scheduler that lacks the package; from the n-th chunk on."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def submit(self, fn, /, *args, **kwargs):
        future = super().submit(fn, *args, **kwargs)
        if len(self.chunks) > self.after:
            future = Future()
            future.set_exception(RuntimeError("cannot be deserialized"))
        return future


def test_an_executor_that_can_do_nothing_is_no_failure_of_the_runs():
    with pytest.raises(ExecutorError, match=r"nothing could be computed .*cannot be deserialized.*need the"):
        list(map_runs.map_runs([(BASE, 0), (BASE, 1)], replicate_of, executor=Refusing(0)))
    outcomes = list(map_runs.map_runs([(BASE, r) for r in range(9)], replicate_of, executor=Refusing(4)))
    assert {o.failure.error for o in outcomes if o.failure} == {"RuntimeError"}
    assert sorted(o.replicate for o in outcomes) == list(range(9))


# --- interrupted and resumed ----------------------------------------------------------------------


class Dying(Inline):
    """Fails after so many chunks, as a cluster that is lost, or as Ctrl-C."""

    def __init__(self, after, error):
        super().__init__()
        self.after, self.error = after, error

    def submit(self, fn, /, *args, **kwargs):
        if len(self.chunks) >= self.after:
            raise self.error
        return super().submit(fn, *args, **kwargs)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ExecutorError("the cluster is lost")])
def test_what_was_finished_is_kept_and_not_repeated(tmp_path, monkeypatch, error):
    monkeypatch.setattr(map_runs, "CHUNK_SECONDS", 1e-9)
    design = Design(BASE, grid=GRID, replicates=3)
    whole = swept(design, tmp_path / "whole").table
    kind = SweepInterrupted if isinstance(error, KeyboardInterrupt) else ExecutorError
    with pytest.raises(kind, match="of 12 runs are saved"):
        swept(design, tmp_path / "out", Dying(7, error))
    part = Sweep.load(tmp_path / "out")
    assert 3 <= len(part.table) <= 7
    assert not part.provenance["complete"]
    executor = Inline()
    done = swept(design, tmp_path / "out", executor, resume=True)
    assert executor.computed == 12 - len(part.table)
    pd.testing.assert_frame_equal(done.table, whole)
    assert done.provenance["complete"]


def test_a_sweep_grows_by_points_and_replicates_only(tmp_path, monkeypatch):
    small = Design(BASE, grid={"temperature": [0.5, 1.0]}, replicates=2)
    large = Design(BASE, grid={"temperature": [0.5, 0.7, 1.0]}, replicates=3)
    out = tmp_path / "out"
    swept(small, out)
    executor = Inline()
    grown = swept(large, out, executor, resume=True)
    assert executor.computed == 9 - 4
    pd.testing.assert_frame_equal(grown.table, swept(large, tmp_path / "whole").table)
    for other, message in (
        (small, "5 runs that the design does not ask for"),
        (Design(BASE.replace(seed=5), grid=large.grid, replicates=3), "9 runs that the design does not"),
        (Design(BASE, grid={"batch_size": [5, 10]}), "with varied = "),
        (Design(BASE, grid=large.grid, replicates=3, record="all"), "with record = last, not all"),
        (Design(BASE, grid=large.grid, replicates=3, metrics=["hill_0"]), "with metrics = "),
    ):
        with pytest.raises(InputError, match=message):
            swept(other, out, resume=True)
    monkeypatch.setattr(sweeps, "code_version", lambda: "0.1.0+other")
    with pytest.raises(InputError, match="another version of the code"):
        swept(large, out, resume=True)


def test_all_runs_have_the_same_metrics():
    several = [
        {"sharing": "isolated", "n_providers": 1},
        {"sharing": "ring", "n_providers": 3, "price_human_item": 2.0},
        {"interventions": [{"kind": "detector", "true_positive": 0.5}, {"kind": "curation", "best_of": 2}]},
    ]
    for settings in several:
        for engine in ("agents", "compiled"):
            result = run(Scenario(n_outputs=9, rounds=1, batch_size=5, **settings), engine=engine)
            providers = tuple(result.table.columns.drop(["replicate", "round", "provider"]))
            population = result.population.columns.drop(["replicate", "round"])
            whole = (*providers, *(together(name, providers) for name in population))
            assert whole == metric_names()[1:]


def test_two_sweeps_do_not_write_to_one_folder(tmp_path):
    pytest.importorskip("fcntl")
    design = Design(BASE)
    with shards.locked(tmp_path / "out"), pytest.raises(InputError, match="another command is writing"):
        swept(design, tmp_path / "out", resume=True)
    assert len(swept(design, tmp_path / "out").table) == 1


def test_a_damaged_shard_is_named(tmp_path):
    design = Design(BASE)
    swept(design, tmp_path / "out")
    (tmp_path / "out" / "runs.parquet").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"runs.parquet is damaged .* remove it"):
        swept(design, tmp_path / "out", resume=True)


# --- real processes -------------------------------------------------------------------------------

LONG = Design(
    Scenario(n_providers=5, n_outputs=30, rounds=400, outputs_per_round=20, batch_size=20),
    grid={"temperature": [0.4, 0.6, 0.8, 1.0, 1.2], "fresh_fraction": [0.0, 0.2]},
    replicates=10,
)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The long sweep as one process computes it, run after run."""
    return swept(LONG, tmp_path_factory.mktemp("undisturbed") / "out").table


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def saved(out):
    return len(shards.files(out, "runs"))


def test_workers_are_killed_and_nothing_is_lost(tmp_path, undisturbed):
    out = tmp_path / "out"
    killed = []

    def kill():
        wait_until(lambda: saved(out) >= 1)
        victim = random.choice(multiprocessing.active_children())
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    killer = threading.Thread(target=kill)
    killer.start()
    with LocalExecutor(2) as executor:
        done = swept(LONG, out, executor)
    killer.join()
    assert killed
    assert len(done.failures) == 0
    pd.testing.assert_frame_equal(done.table, undisturbed)
    assert not multiprocessing.active_children()


def test_neither_the_executor_nor_its_order_changes_the_table(tmp_path):
    design = Design(BASE, grid=GRID, replicates=10)
    with ThreadPoolExecutor(3) as threads:
        done = swept(design, tmp_path / "threads", threads)
    pd.testing.assert_frame_equal(done.table, swept(design, tmp_path / "inline").table)


def start(arguments, **options):
    """Start the command in a process group of its own, as a shell does."""
    command = [sys.executable, "-c", "from analysis.cli import main; main()", "sweep", *map(str, arguments)]
    return subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True, **options
    )


def workers_of(pid):
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
    return [int(line) for line in children.stdout.split()]


def gone(pids):
    """Whether no process is there, other than one that is dead and waits for its parent to notice."""
    states = subprocess.run(
        ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))], capture_output=True, text=True
    )
    return all(state.startswith("Z") for state in states.stdout.split())


posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups and signals of POSIX")


@posix
def test_ctrl_c_and_kill_lose_only_what_was_running(tmp_path, undisturbed):
    (tmp_path / "design.toml").write_text(LONG.to_toml())
    out = tmp_path / "out"
    arguments = [tmp_path / "design.toml", "--out", out]
    first = start([*arguments, "--workers", "2"])
    wait_until(lambda: saved(out) >= 3)
    workers = workers_of(first.pid)
    os.killpg(first.pid, signal.SIGINT)
    _, told = first.communicate(timeout=30)
    assert first.returncode == 130
    assert f"go on with: ecosystem sweep {arguments[0]} --out {out} --resume --workers 2" in told
    assert "Traceback" not in told
    assert len(workers) >= 2
    wait_until(lambda: gone(workers), 10)  # Python's resource tracker is among them, and goes last
    kept = saved(out)
    second = start([*arguments, "--resume"])
    wait_until(lambda: saved(out) >= kept + 2 or second.poll() is not None)
    workers = workers_of(second.pid)
    second.kill()
    second.communicate()
    assert second.returncode == -signal.SIGKILL
    wait_until(lambda: gone(workers), 10)
    done_before = len(Sweep.load(out).table)
    executor = Inline()
    done = swept(LONG, out, executor, resume=True)
    assert 0 < executor.computed == len(LONG) - done_before
    pd.testing.assert_frame_equal(done.table, undisturbed)


@pytest.mark.slow
@posix
@pytest.mark.parametrize("moment", range(5))
def test_the_driver_is_killed_at_any_moment(tmp_path, undisturbed, moment):
    (tmp_path / "design.toml").write_text(LONG.to_toml())
    out = tmp_path / "out"
    delays = random.Random(moment)
    for resume in ([], ["--resume"], ["--resume"]):
        driver = start([tmp_path / "design.toml", "--out", out, *resume])
        time.sleep(delays.uniform(1, 9))
        workers = workers_of(driver.pid)
        driver.kill()
        driver.communicate()
        wait_until(lambda workers=workers: not workers or gone(workers), 10)
        if not out.is_dir():
            break
    pd.testing.assert_frame_equal(swept(LONG, out, resume=True).table, undisturbed)


@pytest.mark.slow
@posix
def test_a_script_without_main_guard_is_told_so(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from analysis.map_runs import map_runs\nfrom ecosystem import Scenario\n"
        "list(map_runs([(Scenario(rounds=2), 0)], workers=1))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert 'under if __name__ == "__main__":' in done.stderr.splitlines()[-1]


# --- a cluster ------------------------------------------------------------------------------------


class Cluster:
    """A Dask scheduler and workers, processes on the loopback interface."""

    def __init__(self, folder):
        self.folder, self.processes = folder, []
        self.file = folder / "scheduler.json"
        self.scheduler = self._start("scheduler", "--host", "127.0.0.1", "--port", "0")
        wait_until(self.file.exists)

    def worker(self):
        return self._start("worker", "--nthreads", "1", "--no-nanny", "--host", "127.0.0.1")

    def _start(self, what, *options):
        log = (self.folder / f"{what}-{len(self.processes)}.log").open("w")
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", self.file]
        process = subprocess.Popen([*command, *options, "--no-dashboard"], stdout=log, stderr=log)
        log.close()
        self.processes.append(process)
        return process

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path):
    pytest.importorskip("distributed", reason="distributed is not installed: pip install '.[cluster]'")
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask")
    yield cluster
    cluster.stop()


def test_on_a_cluster_workers_die_and_join_and_the_scheduler_is_lost(tmp_path, cluster, undisturbed):
    victim = cluster.worker()
    out = tmp_path / "out"
    seen = []

    def disturb():
        wait_until(lambda: saved(out) >= 1)
        cluster.worker()  # joins late
        victim.kill()
        before = saved(out)
        wait_until(lambda: saved(out) > before + 1)
        seen.append(saved(out))
        cluster.scheduler.kill()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    with (
        pytest.raises(ExecutorError, match=r"the Dask scheduler at .* is lost; .* of 100 runs are saved"),
        ClusterExecutor(scheduler_file=cluster.file) as executor,
    ):
        swept(LONG, out, executor)
    disturber.join()
    assert seen
    part = len(Sweep.load(out).table)
    assert 0 < part < len(LONG)
    executor = Inline()
    done = swept(LONG, out, executor, resume=True)
    assert executor.computed == len(LONG) - part
    pd.testing.assert_frame_equal(done.table, undisturbed)


@pytest.mark.slow
def test_a_cluster_gives_the_same_table_although_a_worker_is_killed(tmp_path, cluster, undisturbed):
    victim, _ = cluster.worker(), cluster.worker()
    out = tmp_path / "out"

    def disturb():
        wait_until(lambda: saved(out) >= 2)
        victim.kill()
        cluster.worker()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    design = tmp_path / "design.toml"
    design.write_text(LONG.to_toml())
    arguments = [str(design), "--out", str(out), "--scheduler-file", str(cluster.file)]
    done = CliRunner().invoke(cli.main, ["sweep", *arguments])
    disturber.join()
    assert done.exit_code == 0, done.output
    pd.testing.assert_frame_equal(Sweep.load(out).table, undisturbed)


@pytest.fixture
def poison(tmp_path, monkeypatch):
    """What kills the process that measures replicate 3."""
    (tmp_path / "poison.py").write_text(
        "import os\ndef measure(result):\n"
        "    if result.replicate == 3:\n        os.kill(os.getpid(), 9)\n    return result.replicate\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    from poison import measure

    return measure


def check_poisoned(measure, executor):
    outcomes = list(map_runs.map_runs([(BASE, r) for r in range(12)], measure, executor=executor))
    failed = {outcome.replicate: outcome.failure.error for outcome in outcomes if outcome.failure}
    assert failed == {3: "WorkerDied"}
    assert sorted(o.value for o in outcomes if not o.failure) == [r for r in range(12) if r != 3]


@pytest.mark.slow
def test_a_run_that_kills_processes_is_given_up(poison):
    with LocalExecutor(2) as executor:
        check_poisoned(poison, executor)


@pytest.mark.slow
def test_a_run_that_kills_the_workers_of_a_cluster_is_given_up(poison, cluster):
    stop = threading.Event()

    def keep_two_workers():
        workers = []
        while not stop.wait(0.2):
            workers = [worker for worker in workers if worker.poll() is None]
            workers += [cluster.worker() for _ in range(2 - len(workers))]

    keeper = threading.Thread(target=keep_two_workers)
    keeper.start()
    try:
        with ClusterExecutor(scheduler_file=cluster.file) as executor:
            check_poisoned(poison, executor)
    finally:
        stop.set()
        keeper.join()


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"pip install '\.\[cluster\]'"):
        ClusterExecutor("tcp://127.0.0.1:1")


def test_no_scheduler_answers():
    pytest.importorskip("distributed", reason="distributed is not installed: pip install '.[cluster]'")
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:1"):
        ClusterExecutor("tcp://127.0.0.1:1", timeout=0.5)


# --- the figure -----------------------------------------------------------------------------------


def drawn(axes):
    """Return what an errorbar plot shows: x, mean, low, high of every point."""
    points = []
    for bars in axes.containers:
        line, _, (segments,) = bars
        ends = np.array(segments.get_segments())
        points += np.column_stack([line.get_xdata(), line.get_ydata(), ends[:, 0, 1], ends[:, 1, 1]]).tolist()
    return np.array(points)


def test_the_figure_shows_means_with_their_intervals_and_the_human_baseline(tmp_path):
    design = Design(BASE, grid={"temperature": [0.4, 0.8, 1.2], "fresh_fraction": [0.0, 0.2]}, replicates=10)
    table = swept(design, tmp_path / "out").table
    figure = sweep_figure(table, design.varied)
    (axes,) = figure.axes
    points = drawn(axes)
    assert len(points) == 6
    for point, rows in table.groupby("point"):
        mean, half = estimate(rows["diversity_kept"])
        expected = [rows["temperature"].iloc[0], mean, mean - half, mean + half]
        assert np.isclose(points, expected).all(axis=1).any(), point
    assert any(
        set(np.ravel(line.get_ydata())) == {1} for line in axes.lines if line.get_label() == "human data"
    )
    assert axes.get_xlabel() == "sampling temperature T (temperature)"
    assert axes.get_legend().get_title().get_text() == "fresh_fraction"
    assert [text.get_text() for text in axes.get_legend().get_texts()][-2:] == ["0.0", "0.2"]
    assert "10 replicates" in figure.get_supxlabel()


def test_means_are_those_of_the_last_round(tmp_path):
    table = swept(Design(BASE, replicates=3, record="all"), tmp_path / "out").table
    (row,) = means(table).itertuples()
    last = table[table["round"] == 4]["diversity_kept"]
    assert (row.mean, row.replicates) == (pytest.approx(last.mean()), 3)


@pytest.mark.parametrize(
    ("parts", "panels"),
    [
        ({}, 1),
        ({"grid": {"sharing": ["ring", "complete", "star"]}}, 1),
        ({"grid": GRID | {"fresh_fraction": [0, 0.5]}}, 2),
        ({"grid": {name: [1, 2] for name in ("temperature", "self_weight", "mass_k", "seed")}}, 4),
        ({"latin_hypercube": {"temperature": [0, 2], "batch_size": [1, 20]}, "samples": 8}, 2),
    ],
)
def test_every_design_has_a_figure(tmp_path, parts, panels):
    design = Design(BASE, **parts)
    done = swept(design, tmp_path / "out")
    assert {"sweep.png", "sweep.svg", "design.toml"} <= {file.name for file in done.folder.iterdir()}
    figure = sweep_figure(done.table, design.varied, failed=2)
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert len(visible) == panels
    assert all(axes.get_xlabel() for axes in visible)
    assert "one replicate, so no bars" in figure.get_supxlabel()
    assert "2 failed runs left out" in figure.get_supxlabel()


def test_the_command_says_what_came_out(tmp_path, monkeypatch):
    monkeypatch.setattr(sweeps, "LocalExecutor", lambda workers: Inline())
    (tmp_path / "design.toml").write_text(Design(BASE, grid=GRID, replicates=2).to_toml())
    out = tmp_path / "out"
    done = CliRunner().invoke(cli.main, ["sweep", str(tmp_path / "design.toml"), "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "8 runs: 4 points × 2 replicates" in done.stderr
    assert "most diversity kept: " in done.stdout
    assert f"saved to {out / 'runs.parquet'}; look at {out / 'sweep.png'}" in done.stdout
