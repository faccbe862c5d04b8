"""Which engine runs a scenario, what it says, and what it refuses."""

import signal
import warnings
from pathlib import Path

import numpy as np
import pytest

from analysis.collapse import collapse_profile
from analysis.figures import run_figure
from ecosystem import Ecosystem, InputError, Scenario, engine, lots, run, running
from ecosystem.engine import announce, chosen, kernels, not_covered
from ecosystem.interventions import Temperature
from ecosystem.lots import AgentsLot, CompiledLot, lot
from ecosystem.trajectory import Interrupted

SMALL = Scenario(n_providers=3, n_outputs=8, rounds=4, seed=2)
MANY_TEMPERATURES = SMALL.replace(n_outputs=500, temperature=(0.7, 0.8, 0.9))


def test_auto_is_compiled_wherever_that_covers_the_scenario():
    assert not_covered(SMALL) == ""
    assert [chosen(SMALL, name) for name in ("auto", "agents", "compiled")] == [
        "compiled",
        "agents",
        "compiled",
    ]
    assert isinstance(lot(SMALL, range(2)), CompiledLot)
    assert isinstance(lot(SMALL, range(2), "agents"), AgentsLot)
    provenance = run(SMALL).provenance
    assert provenance["engine"] == "compiled"
    assert provenance["representation"] == "items"
    assert run(SMALL, engine="agents").provenance["engine"] == "agents"


@pytest.mark.parametrize("name", ["auto", "compiled"])
def test_what_is_not_covered_says_so_and_falls_back(name, monkeypatch):
    expected = run(MANY_TEMPERATURES, engine="agents")
    monkeypatch.setattr(engine, "_LARGEST_TABLES", 3 * 500 * 24 - 1)
    said = "the compiled engine does not cover 3 different temperatures for 500 outputs"
    with pytest.warns(UserWarning, match=said) as caught:
        t = run(MANY_TEMPERATURES, engine=name)
    assert str(caught[0].message).endswith("GiB of tables): running the agents")
    assert len(caught) == 1
    assert t.provenance["engine"] == "agents"
    assert t.table.equals(expected.table)
    with pytest.warns(UserWarning, match=said):
        assert Ecosystem(MANY_TEMPERATURES, engine=name).compiled is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert run(MANY_TEMPERATURES, engine="agents").complete
        monkeypatch.setattr(engine, "_LARGEST_TABLES", 3 * 500 * 24)
        assert chosen(MANY_TEMPERATURES, name) == "compiled"


@pytest.mark.parametrize("name", ["mesa", "", "Compiled", None, 1])
def test_unknown_engines(name):
    allowed = 'allowed: "auto", "agents" or "compiled"'
    for call in (lambda: run(SMALL, engine=name), lambda: lot(SMALL, range(1), name)):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value) == f"engine = {name!r}: {allowed}"
    if name:
        with pytest.raises(InputError, match=allowed):
            Ecosystem(SMALL, engine=name)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_bad_workers(workers):
    with pytest.raises(InputError, match=r"^workers = .*: allowed: a whole number, 1 or more$"):
        run(SMALL, workers=workers)


@pytest.mark.parametrize("every", [-1, float("nan"), "1", None])
def test_bad_checkpoint_intervals(every, tmp_path):
    with pytest.raises(InputError, match=r"^checkpoint_every = .*: allowed: a number of seconds, 0 or more$"):
        run(SMALL, checkpoint=tmp_path / "state", checkpoint_every=every)
    assert not list(tmp_path.iterdir())


def begun(file, scenario=SMALL, replicates=2, engine="compiled", step=2):
    """Leave a checkpoint behind, of a run that stopped in the middle."""
    ahead = running._Job.of(scenario, replicates, engine, 1, None, file, 0.0)
    ahead.under_way = lot(scenario, range(replicates), engine)
    for _ in range(step):
        ahead.under_way.advance()
    ahead._save(file)


def test_checkpoints_that_cannot_be_used(tmp_path):
    file = tmp_path / "state"
    with pytest.raises(InputError, match=r"there is no folder .*; make it first"):
        run(SMALL, checkpoint=tmp_path / "nowhere" / "state")
    begun(file)
    with pytest.raises(InputError, match="is of another run; remove it, or give another file"):
        run(SMALL.replace(seed=3), 2, checkpoint=file)
    with pytest.raises(InputError, match="is of another run"):
        run(SMALL, 2, engine="agents", checkpoint=file)
    with pytest.raises(InputError, match=r"replicates = 1: the run in .* has more; give as many"):
        run(SMALL, 1, checkpoint=file)
    whole = run(SMALL, 2)
    assert run(SMALL, 2, checkpoint=file).table.equals(whole.table)
    assert not file.exists()
    for damaged in (b"", b"no pickle", b"\x80\x04K\x01."):
        file.write_bytes(damaged)
        with pytest.raises(InputError, match=r"checkpoint = .*: is damaged .*; remove it"):
            run(SMALL, 2, checkpoint=file)
        assert file.read_bytes() == damaged


def test_more_replicates_can_be_asked_of_a_checkpoint(tmp_path):
    file = tmp_path / "state"
    begun(file, replicates=2)
    assert run(SMALL, 5, checkpoint=file).table.equals(run(SMALL, 5).table)


def test_a_run_is_gone_on_with_by_the_engine_that_began_it(monkeypatch):
    with pytest.raises(InputError, match="the run to go on from is by 'agents'; leave it out"):
        run(SMALL, 2, resume=run(SMALL, engine="agents"), engine="compiled")
    assert run(SMALL, 2, resume=run(SMALL, engine="agents")).provenance["engine"] == "agents"


MASSES = Scenario(
    n_outputs=50, n_providers=4, sharing="complete", outputs_per_round=10**9, batch_size=10**9, rounds=3
)  # fmt: skip


def test_a_thousand_million_items_a_round_cost_what_the_outputs_do():
    # One by one the batches alone would take 48 GB.
    t = run(MASSES, 2)
    assert t.provenance["representation"] == "counts"
    assert t.table["entropy"].notna().all()
    below = SMALL.replace(n_outputs=100, outputs_per_round=5000, batch_size=4999)
    assert run(below.replace(rounds=1)).provenance["representation"] == "items"
    assert run(below.replace(rounds=1, batch_size=5000)).provenance["representation"] == "counts"


def test_a_model_in_counts_shows_what_was_published():
    few = MASSES.replace(outputs_per_round=20_000, batch_size=10_000)
    eco = Ecosystem(few.replace(interventions=[{"kind": "drift", "share": 0.3}]), engine="compiled")
    for _ in range(2):
        eco.step()
    assert [len(eco.corpus.published(author, 2)) for author in range(4)] == [20_000] * 4
    assert len(eco.corpus.published(0, 2, window=2)) == 40_000


def test_temperature_0_cannot_be_put_in_force_in_a_compiled_model():
    eco = Ecosystem(SMALL, engine="compiled")
    eco.step()
    with pytest.raises(InputError, match='it needs engine = "agents"'):
        eco.intervene(Temperature(fixed=0.0))
    assert eco.config.interventions == ()
    eco.step()
    assert eco.round == 2


def interrupt(*arguments):
    signal.raise_signal(signal.SIGINT)


def interrupted(monkeypatch, **places):
    """Run two replicates with a Ctrl-C in some place; return the results so far."""
    with monkeypatch.context() as patch, pytest.raises(Interrupted) as caught:
        for name, act in places.items():
            patch.setattr(running if name == "announce" else running._Job, name, act)
        run(SMALL, 2, engine="compiled")
    return caught.value.trajectory


def test_ctrl_c_before_the_first_round_carries_results_too(monkeypatch):
    part = interrupted(monkeypatch, announce=interrupt)
    assert part.provenance["rounds_done"] == [0, 0]
    assert run(SMALL, 2, resume=part).table.equals(run(SMALL, 2).table)


def test_ctrl_c_in_the_last_round_is_told(monkeypatch):
    in_turn = running._Job.in_turn
    whole = interrupted(monkeypatch, in_turn=lambda job, *rest: (in_turn(job, *rest), interrupt()))
    assert whole.complete


@pytest.mark.parametrize("step", [1, 3])
def test_what_has_come_further_is_gone_on_with(tmp_path, monkeypatch, step):
    file, done, real = tmp_path / "state", [], CompiledLot.advance
    whole = run(SMALL, 2)
    begun(file, step=step)
    part = interrupted(monkeypatch, announce=interrupt)
    monkeypatch.setattr(CompiledLot, "advance", lambda lot: (done.append(1), real(lot)))
    assert run(SMALL, 2, resume=part, checkpoint=file).table.equals(whole.table)
    assert len(done) == SMALL.rounds - step


def test_the_first_call_says_that_it_compiles(monkeypatch, tmp_path, capsys):
    class Turns:
        signatures: tuple = ()

        class stats:  # noqa: N801
            cache_path = str(tmp_path)

    monkeypatch.setattr(kernels, "turns", Turns)
    announce()
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("compiling the engine, once on this machine")
    (tmp_path / "kernels.turns-881.py311.nbi").touch()
    announce()
    assert capsys.readouterr().err == ""
    (tmp_path / "kernels.turns-881.py311.nbi").unlink()
    Turns.signatures = (1,)  # compiled in this process
    announce()
    assert capsys.readouterr().err == ""


def test_another_version_of_any_source_is_compiled_anew(monkeypatch, tmp_path):
    # A kernel that is kept on disk must not be one that was compiled with another file's old numbers.
    for source in Path(kernels.__file__).parent.glob("*.py"):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels.py"))
    places = {kernels._cache_place()}
    assert places == {kernels._CACHE}
    for source in tmp_path.glob("*.py"):
        source.write_bytes(source.read_bytes() + b"\n")
        places.add(kernels._cache_place())
    assert len(places) == 1 + len(list(tmp_path.glob("*.py")))
    assert str(kernels.turns.stats.cache_path).startswith(kernels._CACHE)


def test_the_engine_that_is_installed_is_announced_at_most_once(capsys):
    run(SMALL)
    capsys.readouterr()
    run(SMALL)
    assert capsys.readouterr().err == ""


def test_lots_hold_as_many_replicates_as_fit(monkeypatch):
    assert len(lot(SMALL, range(5)).replicates) == 5
    monkeypatch.setattr(lots, "_ROWS", 7)
    assert lot(SMALL, range(3, 9)).replicates == range(3, 5)
    monkeypatch.setattr(lots, "_ROWS", 1)
    assert lot(SMALL, range(3, 9)).replicates == range(3, 4)


def test_runs_whose_final_laws_stay_sparse_are_drawn_and_judged_alike(monkeypatch):
    scenario = SMALL.replace(n_outputs=40, interventions=[{"kind": "exit", "providers": [1], "start": 3}])
    dense = run(scenario, 3)
    monkeypatch.setattr(running, "DENSE", 0)
    thin = run(scenario, 3)
    for mine, its in zip(*(collapse_profile(t).itertuples(index=False) for t in (dense, thin)), strict=True):
        assert mine[0] == its[0]
        np.testing.assert_allclose(mine.value, its.value, rtol=1e-12, atol=1e-15)
    lines = [run_figure({"a": t}).axes[5].lines[0].get_ydata() for t in (dense, thin)]
    np.testing.assert_allclose(*lines, rtol=1e-12)
