"""Sweeps: a design × replicates, computed side by side, interrupted and resumed without loss."""

import hashlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pyarrow as pa
from tqdm.auto import tqdm

from analysis import shards
from analysis.design import KEPT, Design, as_cell, metric_names, together
from analysis.executors import ClusterExecutor, ExecutorError, LocalExecutor, on_cluster
from analysis.map_runs import Failure, Outcome, RunResult, code_version, described, map_chunks
from analysis.statistics import Estimate, number
from ecosystem import InputError, Scenario, metrics
from ecosystem.engine import announce
from ecosystem.scenario import write_atomically
from ecosystem.trajectory import check_vacant

_LIBRARIES = ("mesa", "numpy", "networkx", "scipy", "pandas", "pyarrow")


@dataclass(frozen=True)
class Sweep:
    """What a sweep left in its folder, finished or not.

    Attributes
    ----------
    folder : Path
        Holds design.toml, sweep.json, runs.parquet, failures.parquet, sweep.png and sweep.svg; of an
        interrupted sweep ``shards/`` in place of the tables.
    """

    folder: Path

    @cached_property
    def design(self) -> Design:
        """The design, as it was run last."""
        return Design.from_toml(self.folder / "design.toml")

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Version of the code and the libraries, number of runs, times."""
        return json.loads((self.folder / "sweep.json").read_text(encoding="utf-8"))

    @cached_property
    def table(self) -> pd.DataFrame:
        """Tidy: run, point, replicate, a column per varied setting, round, a column per metric.

        Metrics of providers (`ecosystem.metrics`) are means over the providers, ``diversity_kept`` is the
        effective number of outputs as a share of that of human data; metrics of the population keep their
        names (``_of_mean`` and ``_together``).
        """
        return shards.read(self.folder, "runs")

    def columns(self, *metrics: str) -> pd.DataFrame:
        """Return the table with some of its metrics only: of a large sweep, a part of the memory."""
        names = ["point", "replicate", *self.provenance["varied"], "round", *metrics]
        return shards.read(self.folder, "runs", names)

    @cached_property
    def failures(self) -> pd.DataFrame:
        """Tidy: run, point, replicate, a column per varied setting, error, message, traceback."""
        return shards.read(self.folder, "failures")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Sweep":
        """Open the folder of a sweep; raise `InputError` if it holds none."""
        if not (Path(folder) / "sweep.json").is_file():
            raise InputError(f"{folder} holds no sweep; give the folder that a sweep was saved to")
        return cls(Path(folder))


class SweepInterrupted(KeyboardInterrupt):
    """Ctrl-C during a sweep; what was finished is saved.

    Attributes
    ----------
    sweep : Sweep
        The results so far, to go on from with ``sweep(..., resume=True)``.
    """

    def __init__(self, sweep: Sweep, done: int, total: int) -> None:
        super().__init__(f"interrupted: {done:,} of {total:,} runs are saved")
        self.sweep = sweep


def sweep(
    design: Design | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    retry_failed: bool = False,
    executor: Executor | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Sweep:
    """Run every point of a design, several times over, and save what came out.

    Results are saved as they come: an interruption of any kind loses at most the runs that were being
    computed. The finished tables do not depend on the number of workers, their order, or interruptions.

    Parameters
    ----------
    design : Design or path
        What to run; see `Design.from_toml` for the file.
    out : path
        Folder for the results, which must not exist or be empty, unless with ``resume``.
    resume : bool
        Whether to go on from what the folder holds: no run is repeated. The design may have grown
        meanwhile, by points or replicates.
    retry_failed : bool
        Whether resuming repeats the runs that failed.
    executor : concurrent.futures.Executor, optional
        Where to run, e.g. a `ClusterExecutor`; by default processes of this machine.
    workers : int, optional
        Number of such processes; by default one for each processor.
    progress : bool
        Whether to show a progress bar.

    Returns
    -------
    Sweep

    Raises
    ------
    InputError
        If the design, the folder or ``workers`` is not allowed, before any work.
    SweepInterrupted
        On Ctrl-C.
    ExecutorError
        If the workers cannot be reached or started any more; ``resume`` goes on.
    """
    plan = design if isinstance(design, Design) else Design.from_toml(design)
    folder = Path(out)
    check_vacant(folder, resumed=resume, in_place=True)
    started, clock, busy = datetime.now(UTC), time.perf_counter(), 0.0
    with (
        shards.locked(folder),
        tqdm(total=len(plan), unit="run", disable=not progress, smoothing=0.05) as bar,
    ):
        columns = _Columns(plan)
        store, done, failed = _opened(folder, plan, columns, resume, retry_failed)
        bar.initial = bar.n = len(done)  # so that the time left is that of this session's runs
        bar.refresh()
        finished = len(done)
        ahead: dict[int, _Run] = {}
        todo = _feed((run for run in _identified(plan) if run.id not in done), ahead)
        arriving = map_chunks(todo, _Kept(plan), executor=executor, workers=workers)
        try:
            for outcomes in arriving:
                pairs = [(ahead.pop(outcome.index), outcome) for outcome in outcomes]
                store.add("runs", [row for pair in pairs for row in columns.rows(*pair)])
                store.add("failures", [row for pair in pairs for row in columns.failure(*pair)])
                busy += sum(outcome.seconds for outcome in outcomes)
                failed += sum(outcome.failure is not None for outcome in outcomes)
                finished += len(outcomes)
                bar.set_postfix({"failed": failed} if failed else {}, refresh=False)
                bar.update(len(outcomes))
            store.compact()
            _draw(Sweep(folder), plan, failed)
        except KeyboardInterrupt:
            raise SweepInterrupted(Sweep(folder), finished, len(plan)) from None
        except ExecutorError as error:
            raise ExecutorError(f"{error}; {finished:,} of {len(plan):,} runs are saved") from error
        finally:
            arriving.close()
        session = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
            "busy_seconds": round(busy, 3),  # of all workers
        }
        _note(folder, {"complete": True, "failed": failed, "last_session": session})
    return Sweep(folder)


def _draw(result: Sweep, plan: Design, failed: int) -> None:
    # Imported here: the workers import this module, and have nothing to draw.
    from analysis.figures import save_figure
    from analysis.sweep_figure import sweep_figure

    kept = result.columns(KEPT)
    if len(kept):
        figure = sweep_figure(kept, plan.varied, failed)
        save_figure(figure, result.folder / "sweep.png")
        save_figure(figure, result.folder / "sweep.svg")


# --- runs -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Run:
    id: str
    point: int
    scenario: Scenario
    replicate: int


def _identified(plan: Design) -> Iterator[_Run]:
    """Yield every run with the hash of what determines its outcome."""
    code = code_version()
    last, common = -1, b""
    for point, scenario, replicate in plan.runs():
        if point != last:  # replicates have this in common
            last, common = point, described(scenario) + code.encode()
        sha = hashlib.sha256(common + f"\0replicate {replicate}".encode())
        yield _Run(sha.hexdigest()[:20], point, scenario, replicate)


def _feed(runs: Iterator[_Run], ahead: dict[int, _Run]) -> Iterator[tuple[Scenario, int]]:
    """Yield what `map_chunks` asks for, and remember which run it was until it is finished."""
    for index, run in enumerate(runs):
        ahead[index] = run
        yield run.scenario, run.replicate


class _Kept:
    """What is kept of a run: computed by the worker, so that little travels."""

    def __init__(self, plan: Design) -> None:
        self.record = plan.record
        self.metrics = None if plan.metrics is None else tuple(dict.fromkeys((KEPT, *plan.metrics)))

    def __call__(self, result: RunResult) -> list[dict[str, Any]]:
        table, population = result.table, result.population
        if self.record == "last":
            population = population.iloc[-1:]
            table = table[table["round"] == population["round"].iloc[0]]
        means = table.drop(columns=["replicate", "provider"]).groupby("round").mean()
        columns = {str(name): means[name].to_numpy() for name in means}
        human = float(metrics.hill(result.scenario.source.law, 1))
        rows = {"round": means.index.to_numpy(), KEPT: columns["hill_1"] / human} | columns
        for name in population.columns.drop(["replicate", "round"]):
            rows[together(name, columns)] = population[name].to_numpy()
        if self.metrics is not None:
            rows = {name: rows[name] for name in ("round", *self.metrics)}
        lists = [column.tolist() for column in rows.values()]
        return [dict(zip(rows, row, strict=True)) for row in zip(*lists, strict=True)]


_KINDS = (
    ({bool}, pa.bool_()),
    ({int}, pa.int64()),
    ({int, float}, pa.float64()),
    ({str}, pa.string()),
)


class _Columns:
    """The columns that say which run a row is of, and those of what it gave."""

    def __init__(self, plan: Design) -> None:
        points = [plan.values(point) for point in range(len(plan.points))]
        cells = [{name: as_cell(value) for name, value in point.items()} for point in points]
        self.kinds: dict[str, pa.DataType] = {}
        for name in plan.varied:
            found = {type(cell[name]) for cell in cells} - {type(None)}
            for types, kind in (
                (bool, pa.bool_()),
                (int, pa.int64()),
                (float, pa.float64()),
                (str, pa.string()),
            ):
                if found <= ({int, float} if types is float else {types}):
                    self.kinds[name] = kind
                    break
            else:  # of several sorts
                self.kinds[name] = pa.string()
                for cell in cells:
                    if not isinstance(cell[name], str | None):
                        cell[name] = json.dumps(cell[name])
        self.cells = cells
        head = [
            pa.field("run", pa.string()),
            pa.field("point", pa.int64()),
            pa.field("replicate", pa.int64()),
        ]
        head += [pa.field(name, kind) for name, kind in self.kinds.items()]
        names = metric_names() if plan.metrics is None else dict.fromkeys((KEPT, *plan.metrics))
        measured = [("round", pa.int64()), *((name, pa.float64()) for name in names)]
        self.schemas = {
            "runs": pa.schema(head + measured),
            "failures": pa.schema(head + [(name, pa.string()) for name in Failure._fields]),
        }

    def of(self, run: _Run) -> dict[str, Any]:
        return {"run": run.id, "point": run.point, "replicate": run.replicate, **self.cells[run.point]}

    def rows(self, run: _Run, outcome: Outcome[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        return [self.of(run) | row for row in outcome.value or []]

    def failure(self, run: _Run, outcome: Outcome[Any]) -> list[dict[str, Any]]:
        return [self.of(run) | outcome.failure._asdict()] if outcome.failure else []


# --- the folder -----------------------------------------------------------------------------------


def _opened(
    folder: Path, plan: Design, columns: _Columns, resume: bool, retry_failed: bool
) -> tuple[shards.Shards, set[str], int]:
    """Return the tables of a folder, the runs that are done already, and how many of these failed."""
    now = {
        "code": code_version(),
        "record": plan.record,
        "metrics": None if plan.metrics is None else list(plan.metrics),
        "varied": {name: str(kind) for name, kind in columns.kinds.items()},
    }
    if resume and any(folder.iterdir()):
        earlier = Sweep.load(folder).provenance
        if earlier["code"] != now["code"]:
            raise InputError(
                f"{folder} holds runs of another version of the code ({earlier['code']}; this is "
                f"{now['code']}), which may differ; install that version, or choose another folder"
            )
        for name in ("record", "metrics", "varied"):
            if earlier[name] != now[name]:
                raise InputError(
                    f"{folder} holds a sweep with {name} = {earlier[name]}, not {now[name]}; a sweep can "
                    "grow by points and replicates only: put it back, or choose another folder"
                )
    store = shards.Shards(folder, columns.schemas)
    if resume and retry_failed:
        store.forget("failures")
    failed = store.done("failures")
    done = store.done("runs") | failed
    if done:
        points = {run.id: run.point for run in _identified(plan)}
        if strange := done - points.keys():
            raise InputError(
                f"{folder} holds {len(strange):,} runs that the design does not ask for (other settings, "
                "seed or data); put them back into the design, or choose another folder"
            )
        store.renumber(points)
    write_atomically(folder / "design.toml", plan.to_toml().encode())
    _note(folder, now | {"complete": False, "runs": len(plan), "points": len(plan.points)})
    return store, done, len(failed)


def _note(folder: Path, changes: Mapping[str, Any]) -> None:
    """Write where the results come from, or add to it."""
    file = folder / "sweep.json"
    versions = {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()}
    earlier = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    note = {**earlier, "versions": versions, "platform": platform.platform(), **changes}
    write_atomically(file, json.dumps(note, indent=2).encode())


# --- the command ----------------------------------------------------------------------------------


def command(
    design: Path,
    out: Path | None,
    resume: bool,
    retry_failed: bool,
    workers: int | None,
    scheduler: str | None,
    scheduler_file: Path | None,
) -> None:
    """Do what ``ecosystem sweep`` asks for, and say what came out."""
    cluster = on_cluster(workers, scheduler, scheduler_file)
    if resume and out is None:
        raise InputError("--resume: give the folder to go on with, --out DIR")
    if retry_failed and not resume:
        raise InputError("--retry-failed repeats the failed runs of an earlier sweep; give --resume too")
    folder = out or Path("results") / f"sweep-{datetime.now():%Y%m%d-%H%M%S}"
    check_vacant(folder, resumed=resume, in_place=True)
    plan = Design.from_toml(design)
    click.echo(f"{len(plan):,} runs: {len(plan.points):,} points × {plan.replicates} replicates", err=True)
    if not cluster:
        announce()
    try:
        with ClusterExecutor(scheduler, scheduler_file) if cluster else LocalExecutor(workers) as executor:
            if isinstance(executor, ClusterExecutor) and not executor.threads():
                click.echo("the cluster has no workers yet; the sweep begins when one joins", err=True)
            result = sweep(plan, folder, resume=resume, retry_failed=retry_failed, executor=executor)
    except (SweepInterrupted, ExecutorError) as stop:
        words: list[object] = ["ecosystem", "sweep", design, "--out", folder, "--resume"]
        for option, value in (
            ("--workers", workers),
            ("--scheduler", scheduler),
            ("--scheduler-file", scheduler_file),
        ):
            words += [] if value is None else [option, value]
        click.echo(f"{stop}; go on with: {shlex.join(map(str, words))}", err=True)
        sys.exit(130 if isinstance(stop, SweepInterrupted) else 1)
    click.echo(_conclusion(result, plan))


def _conclusion(result: Sweep, plan: Design) -> str:
    """Return what a sweep came to: its extremes, its failures, and where the table is."""
    from analysis.sweep_figure import means

    failed = len(result.failures)
    lines = []
    kept = result.columns(KEPT)
    if len(kept):
        points = means(kept)
        for word, point in (("least", points["mean"].argmin()), ("most", points["mean"].argmax())):
            row = points.iloc[int(point)]
            where = ", ".join(f"{name} = {_short(row[name])}" for name in plan.varied) or "the one point"
            share = Estimate(row["mean"], row["half_width"]).text()
            lines.append(f"{word} diversity kept: {share} of that of human data, at {where}")
    if failed:
        first = result.failures.iloc[0]
        lines.append(
            f"{failed:,} of {len(plan):,} runs failed, the first with {first['error']}: {first['message']}; "
            f"all of them are in {result.folder / 'failures.parquet'}"
        )
    if len(kept):
        lines.append(f"saved to {result.folder / 'runs.parquet'}; look at {result.folder / 'sweep.png'}")
    return "\n".join(lines)


def _short(value: Any) -> str:
    return number(value) if isinstance(value, float) else str(value)
