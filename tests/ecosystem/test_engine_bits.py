"""The same bits: of numpy's generators, on any number of threads, cut in any way, killed and gone on with."""

import os
import pickle
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ecosystem import Scenario, lots, run
from ecosystem.engine import kernels, rounds, rounds_of
from ecosystem.engine.laws import Stretch
from ecosystem.engine.rounds import Accounts, Rounds
from ecosystem.engine.sparse import _Shard
from ecosystem.lots import run_lots
from ecosystem.randomness import Decision, Streams

BASE = {"n_providers": 5, "n_outputs": 90, "rounds": 6, "seed": 3, "outputs_per_round": 40, "batch_size": 40}

# --- streams ----------------------------------------------------------------------------------------------

WORD = st.integers(0, 2**63 - 1)


@given(WORD, st.integers(0, 2**63), st.sampled_from(Decision), WORD, WORD, st.integers(0, 67))
@example(0, 0, Decision.SHARING, 0, 0, 67)
@example(2**63 - 1, 2**63, Decision.CUT, 2**63 - 1, 2**63 - 1, 66)
def test_the_kernels_uniforms_are_numpys(seed, replicate, decision, provider, round, n):
    expected = Streams(seed, replicate).uniforms(n, decision, round=round, provider=provider)
    address = (seed, np.uint64(replicate), int(decision), provider, round)
    out = np.full(n + 1, -1.0)
    kernels.uniforms(out, n, *address)
    np.testing.assert_array_equal(out[:n], expected)
    assert out[n] == -1
    one = np.array([_one_uniform(s, *address) for s in range(n)])
    np.testing.assert_array_equal(one, expected)


@kernels.njit(cache=False)
def _one_uniform(s, seed, replicate, decision, provider, round):
    return kernels._one_uniform(s, seed, replicate, decision, provider, round)


def test_the_kernels_uniforms_are_those_of_a_replicate_far_out():
    scenario = Scenario(**BASE, schedule="replace")
    far = Rounds(scenario, range(2**40, 2**40 + 2))
    far.step()
    near = Rounds(scenario, range(2))
    near.step()
    assert (far.published[-1].items != near.published[-1].items).mean() > 0.5


# --- logarithms and exponentials --------------------------------------------------------------------------


@kernels.njit(cache=False)
def _both(values, logs, powers):
    for i in range(len(values)):
        logs[i] = kernels.ln(values[i])
        powers[i] = kernels._exp(values[i])


def both(values):
    values = np.array(values, dtype=float)
    logs, powers = np.empty_like(values), np.empty_like(values)
    _both(values, logs, powers)
    return logs, powers


@given(st.lists(st.floats(0, 1.7e308), min_size=1, max_size=40))
@example([5e-324, 2.3e-308, 1 - 2**-53, 1.0, 1 + 2**-52, 0.5**0.5, 2**0.5, 1.7e308])
def test_logarithms_are_right_to_the_last_bits(values):
    logs, _ = both(values)
    with np.errstate(divide="ignore"):
        expected = np.log(values)
    np.testing.assert_allclose(logs, expected, rtol=4e-16, atol=0)
    for i, value in enumerate(values):  # alone, or in any company
        assert both([value])[0][0] == logs[i]


@given(st.lists(st.floats(-708, 709), min_size=1, max_size=40))
@example([-708.0, -1.0, -1e-17, 0.0, 1e-17, np.log(2) / 2, 709.0])
def test_exponentials_are_right_to_the_last_bits(values):
    _, powers = both(values)
    np.testing.assert_allclose(powers, np.exp(values), rtol=5e-16, atol=4e-308)
    for i, value in enumerate(values):
        assert both([value])[1][0] == powers[i]


def test_logarithms_and_exponentials_at_their_ends():
    assert both([0.0])[0][0] == -np.inf
    assert (both([-708.1, -1e6, -np.inf])[1] == 0).all()
    assert both([0.0])[1][0] == 1


# --- threads, cuts, lots and processes --------------------------------------------------------------------

KINDS = [
    {},
    {"initial": "sampled", "schedule": "forget:0.3", "temperature": 1.2},
    {"top_k": 20},
    {"n_providers": 40, "n_outputs": 40_000, "rounds": 3},  # mean laws are summed in pieces
    {"interventions": [{"kind": "drift", "share": 0.3}, {"kind": "entry", "providers": [1], "start": 3}]},
    {"interventions": [{"kind": "exit", "providers": [0], "start": 2}], "record_every": 3},
    {"n_providers": 1},
]


def bits(scenario, replicates, threads):
    """Everything that comes out of every round, as bytes."""
    held = Rounds(scenario, replicates, threads)
    out = [held.measured[0].tobytes(), held.measured[1].tobytes()]
    for _ in range(scenario.rounds):
        held.step()
        out += [held.published[-1].items.tobytes(), held.trained.tobytes(), held.distributions.tobytes()]
        out += [each.tobytes() for each in held.measured]
    return out


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_threads_and_cuts_change_no_bit(changes, monkeypatch):
    scenario = Scenario(**BASE | changes)
    expected, real = bits(scenario, range(3), 1), rounds._cuts
    monkeypatch.setattr(rounds, "_WORTH", 1)
    for threads, pieces in ((1, 1), (1, 2), (2, 2), (4, 8), (3, 3), (2, 18), (3, 900)):
        monkeypatch.setattr(rounds, "_cuts", lambda *given, pieces=pieces: real(*given[:3], pieces))
        assert bits(scenario, range(3), threads) == expected, (threads, pieces)


def after_every(scenario, replicates, threads, longest):
    """Run to the end, so many rounds in one go; return what is there whenever it stops, by round."""
    held, out = Rounds(scenario, replicates, threads), {}
    while held.round < scenario.rounds:
        held._run(None, longest)
        out[held.round] = [
            *(each.items.tolist() for each in held.published), held.trained.tolist(),
            held.distributions.tolist(), *(each.tobytes() for each in held.measured),
            *(np.asarray(each).tolist() for each in vars(held.accounts).values()),
        ]  # fmt: skip
    return out


EVERY = list(range(1, 15))
STRETCHES = [
    ({}, [13, 14]),
    ({"initial": "sampled", "schedule": "forget:0.3", "temperature": 1.2}, [13, 14]),
    ({"top_k": 20}, EVERY),
    ({"n_providers": 1, "sharing": "isolated"}, [13, 14]),
    ({"record_every": 7, "batch_size": [3, 50, 9, 1, 20]}, [6, 7, 13, 14]),
    ({"schedule": "power:0.7", "temperature": [0.3, 0.8, 1.0, 1.5, 3.0]}, [13, 14]),
    (
        {"record_every": 5, "schedule": "forget:0.9", "initial": "sampled", "n_outputs": 2000},
        [4, 5, 9, 10, 13, 14],
    ),
    ({"schedule": "replace", "with_replacement": True, "outputs_per_round": 7}, [13, 14]),
    ({"corpus_rounds": 3}, EVERY),
    (
        {"interventions": [{"kind": "fresh-fraction", "fraction": 0.6, "start": 3, "ramp": 2, "end": 8}]},
        [2, 3, 4, 8, 13, 14],
    ),
    ({"interventions": [{"kind": "exit", "providers": [0], "start": 4, "end": 7}]}, [3, 7, 13, 14]),
    ({"interventions": [{"kind": "temperature", "fixed": 0.5, "start": 5}]}, [4, 13, 14]),
    ({"interventions": [{"kind": "drift", "share": 0.3, "start": 5}]}, EVERY),
    (
        {
            "interventions": [
                {"kind": "curation", "best_of": 3, "verifier_error": 0.1},
                {"kind": "detector", "true_positive": 0.8, "false_positive": 0.1, "weight": 0.3},
            ]
        },
        [13, 14],
    ),
    ({"interventions": [{"kind": "retention", "window": 2, "start": 5}]}, [4, *range(5, 15)]),
    ({"interventions": [{"kind": "human-supply", "items": 500}]}, EVERY),
]


@pytest.mark.parametrize(("changes", "stops"), STRETCHES, ids=lambda value: str(value)[:60])
def test_rounds_in_one_go_are_those_one_after_the_other(changes, stops, monkeypatch):
    scenario = Scenario(**BASE | {"rounds": 14, "sharing": "complete", "record_every": 100} | changes)
    monkeypatch.setattr(rounds, "_WORTH", 1)
    expected = after_every(scenario, range(2), 1, 1)
    assert list(expected) == EVERY
    for threads, longest in ((1, 2), (2, 3), (3, 5), (8, 100), (2, 100), (1, 100)):
        found = after_every(scenario, range(2), threads, longest)
        assert found == {k: expected[k] for k in found}, (threads, longest)
    assert list(found) == stops


@pytest.fixture
def watched(monkeypatch):
    """Give up stretches of rounds whose threads wait for each other for ever, and fail."""
    begun, late = [], threading.Event()

    def remembered(*given):
        begun.append(Stretch(*given))
        return begun[-1]

    def give_up():
        late.set()
        for each in begun:
            each.broken.set()

    monkeypatch.setattr(rounds, "Stretch", remembered)
    monkeypatch.setattr(rounds, "_WORTH", 1)
    timer = threading.Timer(30, give_up)
    timer.start()
    yield
    timer.cancel()
    assert not late.is_set(), "threads wait for each other"


@pytest.mark.parametrize("where", ["here", "there"])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nobody_waits_for_a_thread_that_cannot_go_on(where, error, watched, monkeypatch):
    # Rows learn so many new outputs that there must be made room for them, which fails in one of the threads.
    changes = {"n_outputs": 10_000, "temperature": 3.0, "sharing": "complete", "record_every": 50}
    scenario = Scenario(**BASE | changes | {"rounds": 50})
    here = threading.get_ident()
    make_room = _Shard.make_room

    def failing(shard, row, batch):
        if (threading.get_ident() == here) == (where == "here"):
            raise error(where)
        make_room(shard, row, batch)

    monkeypatch.setattr(_Shard, "make_room", failing)
    held = Rounds(scenario, range(1), 2)
    with pytest.raises(error, match=where):
        while held.round < scenario.rounds:
            held._run(None, 50)


@pytest.mark.parametrize("when", ["before it has begun", "before the others have begun"])
def test_nobody_waits_for_a_caller_that_is_interrupted(when, watched, monkeypatch):
    scenario = Scenario(**BASE | {"sharing": "complete", "rounds": 50, "record_every": 50})
    held, here = Rounds(scenario, range(1), 3), threading.get_ident()
    submit, turning, submitted = rounds._pool(2).submit, Rounds._turning, []

    def interrupted_at_once(held, *given):
        turn = turning(held, *given)

        def interrupted(cut):
            if threading.get_ident() == here:
                time.sleep(0.05)  # the others have begun
                raise KeyboardInterrupt
            turn(cut)

        return interrupted

    def interrupted_by_the_second(*given):
        submitted.append(given)
        if len(submitted) == 2:
            time.sleep(0.05)
            raise KeyboardInterrupt
        return submit(*given)

    held.step()
    if when == "before it has begun":
        monkeypatch.setattr(Rounds, "_turning", interrupted_at_once)
    else:
        monkeypatch.setattr(rounds._pool(2), "submit", interrupted_by_the_second)
    with pytest.raises(KeyboardInterrupt):
        held._run(None, 40)
    monkeypatch.undo()
    same(run(scenario, workers=2), run(scenario, workers=1))  # threads are there again


def test_runs_side_by_side_do_not_take_each_others_threads(watched, monkeypatch):
    # Each needs three threads at the same time, which all runs share. They are handed out slowly.
    scenario = Scenario(**BASE | {"sharing": "complete", "rounds": 40, "record_every": 40})
    expected = run(scenario, workers=1)
    monkeypatch.setattr(Rounds, "advance", lambda held: held._run(None, 100))
    monkeypatch.setattr("ecosystem.running.processors", lambda: 3)
    submit = rounds._pool(2).submit
    monkeypatch.setattr(rounds._pool(2), "submit", lambda *given: (submit(*given), time.sleep(0.02))[0])
    with ThreadPoolExecutor(3) as pool:
        for t in pool.map(lambda _: run(scenario, workers=3), range(3)):
            same(t, expected)


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_publishing_ahead_changes_no_bit(changes, monkeypatch):
    scenario = Scenario(**BASE | changes)
    expected = bits(scenario, range(3), 1)
    monkeypatch.setattr(Rounds, "_goes_on", lambda self: False)
    assert bits(scenario, range(3), 2) == expected


@pytest.mark.parametrize(("threads", "inputs"), [(1, 5), (2, 1), (2, 7), (3, 3), (4, 50)])
def test_threads_do_every_task_once(threads, inputs):
    done = []
    rounds.with_threads(
        threads, lambda each: (time.sleep(0.001 * (each % 3)), done.append(each)), range(inputs)
    )
    assert sorted(done) == list(range(inputs))


def test_threads_take_what_another_has_not_begun():
    here, begun, done = threading.get_ident(), threading.Event(), {"here": [], "there": []}

    def task(each):
        if threading.get_ident() != here:
            assert begun.wait(10)
            done["there"].append(each)
            return
        begun.set()
        end = time.monotonic() + 10
        while len(done["there"]) < 7 and time.monotonic() < end:  # at its first until all others are done
            time.sleep(0.001)
        done["here"].append(each)

    rounds.with_threads(2, task, range(8))
    assert done["here"] == [0]
    assert done["there"] == [4, 5, 6, 7, 3, 2, 1]


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_in_any_thread_is_raised_when_all_are_done(where):
    here, both, begun, done = threading.get_ident(), threading.Barrier(2), set(), []

    def task(each):
        own = "here" if threading.get_ident() == here else "there"
        if own not in begun:
            begun.add(own)
            both.wait(10)  # so that each of the two has one
        if own == where:
            raise ValueError(own)
        done.append(each)

    with pytest.raises(ValueError, match=where):
        rounds.with_threads(2, task, range(8))
    kept = len(done)
    time.sleep(0.01)
    assert len(done) == kept


@pytest.mark.parametrize("changes", KINDS, ids=str)
def test_a_replicate_is_the_same_in_any_company(changes):
    scenario = Scenario(**BASE | changes)
    together = run_lots(scenario, range(7), "compiled")[0]
    for replicates in (range(1), range(6, 7), range(2, 5), range(1, 7)):
        part = run_lots(scenario, replicates, "compiled")[0]
        for mine, its in ((part.table, together.table), (part.population, together.population)):
            its = its[its["replicate"].isin(replicates)].reset_index(drop=True)
            assert mine.equals(its)
        np.testing.assert_array_equal(part.final, together.final[replicates.start : replicates.stop])


@pytest.mark.parametrize("engine", ["agents", "compiled"])
def test_a_run_is_the_same_in_any_number_of_lots_and_workers(engine, monkeypatch):
    scenario = Scenario(**BASE)
    expected = run(scenario, 5, engine=engine)
    results = [
        run(scenario, 5, engine=engine, workers=workers) for workers in (2, 4)[: 1 + (engine != "agents")]
    ]
    if engine == "compiled":
        for name, value in (("_ROWS", 10), ("_ROWS", 1), ("_NUMBERS", 3 * 400), ("_NUMBERS", 1)):
            with monkeypatch.context() as patch:
                patch.setattr(lots, name, value)
                results.append(run(scenario, 5, engine=engine, workers=2))
    for t in results:
        same(t, expected)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
def test_a_forked_process_has_threads_of_its_own(monkeypatch):
    scenario = Scenario(**BASE | {"sharing": "complete", "record_every": 6})
    monkeypatch.setattr(rounds, "_WORTH", 1)
    expected = run(scenario, workers=2)
    with rounds._STRETCHES:  # as another thread would hold it
        child = get_context("fork").Process(target=lambda: same(run(scenario, workers=2), expected))
        child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"n_outputs": 20, "outputs_per_round": 1500, "batch_size": 1500, "n_providers": 300},
        # In counts:
        {"n_outputs": 2000, "outputs_per_round": 200_000, "batch_size": 200_000, "n_providers": 30},
    ],
    ids=str,
)
def test_human_items_are_counted_by_all_threads_together(changes, monkeypatch):
    # Two threads that add one to the same number at the same time may both have read it before.
    scenario = Scenario(**BASE | {"sharing": "complete", "fresh_fraction": 0.9, "rounds": 5} | changes)
    monkeypatch.setattr(rounds, "_WORTH", 1)
    held = rounds_of(scenario)(scenario, range(1), 2, observing=True)
    for _ in range(5):
        held.step()
    counted = [counts.sum() for counts in held.accounts.human_counts]
    assert counted == held.accounts.human_items.tolist()


@pytest.mark.parametrize("changes", [{}, {"outputs_per_round": 10_000, "batch_size": 10_000}], ids=str)
def test_what_nobody_reads_any_more_is_not_kept(changes):
    scenario = Scenario(**BASE | {"rounds": 40, "sharing": "complete"} | changes)
    held = rounds_of(scenario)(scenario, range(1))
    for _ in range(40):
        held.step()
    assert len(held._spare) <= 2


@given(st.floats(0, 1e6), st.floats(0, 1e6) | st.integers(0, 10**6).map(float), st.integers(1, 50))
def test_what_rounds_use_is_the_same_in_one_go(used, amount, number):
    rules = SimpleNamespace(published_items=7, curated_items=amount, detector_calls=3 * amount)
    one, other = Accounts(2, 3, 0), Accounts(2, 3, 0)
    for accounts in (one, other):
        accounts.curated_items[:] = used
    one.enter(rules, slice(None), np.array([2 * number, 0]), number)
    for _ in range(number):
        other.enter(rules, slice(None), np.array([2, 0]), 1)
    for name, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, name))


def test_kernels_are_compiled_for_one_kind_of_arguments_only():
    for rules in ([], [{"kind": "curation", "best_of": 2}], [{"kind": "exit", "providers": [1], "start": 2}]):
        run(Scenario(**BASE | {"interventions": rules}))
    assert len(kernels.turns.signatures) == 1


def test_settings_of_the_machine_are_no_part_of_what_comes_out(monkeypatch):
    # The processors there are, the number of columns above which sums are cut, numba's own threads.
    scenario = Scenario(**BASE)
    expected = run(scenario, 2)
    for count in (1, 3, 64):
        monkeypatch.setattr("ecosystem.running.processors", lambda count=count: count)
        same(run(scenario, 2), expected)


def same(one, two):
    assert one.table.equals(two.table)
    assert one.population.equals(two.population)
    np.testing.assert_array_equal(one.final, two.final)
    assert one.provenance["rounds_done"] == two.provenance["rounds_done"]


# --- checkpoints ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["agents", "compiled"])
@pytest.mark.parametrize("changes", KINDS[:3] + KINDS[4:5], ids=str)
def test_every_round_can_be_gone_on_from(tmp_path, monkeypatch, engine, changes):
    """An error in any round: what the checkpoint holds leads to the same end."""
    scenario = Scenario(**BASE | changes)
    expected = run(scenario, 3, engine=engine)
    file = tmp_path / "state"

    class StopError(Exception):
        pass

    kind = {"agents": lots.AgentsLot, "compiled": lots.CompiledLot}[engine]
    advance = kind.advance
    for after in range(1, scenario.rounds + 2):
        left = [after]

        def failing(lot, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise StopError
            advance(lot)

        with monkeypatch.context() as patch:
            patch.setattr(kind, "advance", failing)
            try:
                run(scenario, 3, engine=engine, checkpoint=file, checkpoint_every=0.0)
            except StopError:
                assert file.exists()
        same(run(scenario, 3, engine=engine, checkpoint=file, checkpoint_every=1e9), expected)
        assert list(tmp_path.iterdir()) == []


SCRIPT = """
import pickle, sys
from ecosystem import Scenario, run
scenario, replicates, engine, place = pickle.load(open(sys.argv[1], "rb"))
t = run(scenario, replicates, engine=engine, checkpoint=place, checkpoint_every=0.2,
        workers=2 - (engine == "agents"))
pickle.dump(t, open(sys.argv[2], "wb"))
"""


def killed_and_gone_on_with(folder, scenario, replicates, engine, kills, seed):
    """Run in a process of its own that is killed so many times after it has saved, each time begun again."""
    task, file, out = folder / "task", folder / "state", folder / "out"
    task.write_bytes(pickle.dumps((scenario, replicates, engine, str(file))))
    luck, killed, saved = random.Random(seed), 0, 0
    while not out.exists():
        process = subprocess.Popen([sys.executable, "-c", SCRIPT, task, out])
        deadline = time.monotonic() + 300
        if killed < kills:
            while process.poll() is None and time.monotonic() < deadline:
                if file.exists() and (written := file.stat().st_mtime_ns) != saved:
                    saved = written
                    break
                time.sleep(0.002)
            time.sleep(luck.choice([0.0, 0.01, luck.uniform(0, 0.25)]))
            process.kill()
        code = process.wait(timeout=300)
        assert code == 0 or (code == -9 and killed < kills), code
        killed += code == -9
    assert killed > 0
    left = {path.name for path in folder.iterdir()} - {"task", "out"}
    assert file.name not in left
    return pickle.loads(out.read_bytes())


LONG = Scenario(
    n_providers=8,
    n_outputs=400,
    rounds=600,
    seed=8,
    record_every=20,
    interventions=[{"kind": "quota", "fraction": 0.3, "start": 200, "ramp": 100}],
)


@pytest.mark.parametrize(("engine", "rounds"), [("agents", 600), ("compiled", 9000)])
def test_killed_and_gone_on_with_to_the_same_bits(tmp_path, engine, rounds):
    scenario = LONG.replace(rounds=rounds, record_every=rounds // 30)
    expected = run(scenario, 2, engine=engine)
    same(killed_and_gone_on_with(tmp_path, scenario, 2, engine, 1, seed=1), expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("engine", "rounds"), [("agents", 1500), ("compiled", 15000)])
@pytest.mark.parametrize(
    "changes", [{}, {"schedule": "forget:0.2", "initial": "sampled"}, {"top_k": 30}], ids=str
)
def test_killed_again_and_again(tmp_path, engine, rounds, changes, seed):
    if "top_k" in changes:
        rounds = 1000
    scenario = LONG.replace(rounds=rounds, record_every=rounds // 30, **changes)
    expected = run(scenario, 2, engine=engine)
    same(killed_and_gone_on_with(tmp_path, scenario, 2, engine, 5, seed), expected)


def test_a_checkpoint_is_whole_at_every_moment(tmp_path, monkeypatch):
    """Killed while it is written, the one before is still there: it is renamed into place."""
    file, seen, replace = tmp_path / "state", [], os.replace

    def spy(source, target):
        if os.fspath(target) == os.fspath(file):
            pickle.loads(Path(source).read_bytes())
            seen.append(file.exists())
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    run(Scenario(**BASE), 1, checkpoint=file, checkpoint_every=0.0)
    assert seen == [False] + [True] * (BASE["rounds"] - 1)
