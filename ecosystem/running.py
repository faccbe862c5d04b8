"""`run` a scenario, several times over: by either engine, interrupted, saved on the way and resumed."""

import os
import pickle
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ecosystem.engine import announce, chosen, processors, rounds_of
from ecosystem.errors import InputError
from ecosystem.lots import DENSE, Lot, Part, lot, merged, run_lots
from ecosystem.scenario import Scenario, write_atomically
from ecosystem.trajectory import Interrupted, Trajectory

_LIBRARIES = ("ecosystem", "mesa", "numpy", "networkx", "scipy", "pandas", "numba")


def run(
    scenario: Scenario,
    replicates: int = 1,
    *,
    engine: str = "auto",
    workers: int | None = None,
    progress: bool = False,
    resume: Trajectory | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_every: float = 60.0,
) -> Trajectory:
    """Run a scenario to its last round, several times over.

    Parameters
    ----------
    scenario : Scenario
        What to run. The sharing graph is the same in every replicate; all else is drawn anew.
    replicates : int
        Independent repetitions, 1 or more. Replicate r is the same whatever their number.
    engine : str
        "agents": Mesa agents, the reference. "compiled": the same draws by compiled kernels, many times
        faster (truncated sampling, T = 0 and training errors look at every output: there about as fast).
        "auto": compiled wherever it covers the scenario.
    workers : int, optional
        Threads of the compiled engine (at most, and by default, one per processor), or processes over which
        the agents' replicates are divided (by default none). What comes out does not depend on it. With
        processes a script needs ``if __name__ == "__main__":``, and Ctrl-C and checkpoints keep whole
        replicates only.
    progress : bool
        Whether to show a progress bar.
    resume : Trajectory, optional
        The result of an interrupted run of the same scenario, to go on from: the outcome is the same,
        bit for bit, as without the interruption. A ``checkpoint`` that has come further goes before it.
    checkpoint : path, optional
        A file that holds the state of the run while it lasts, so that the same call goes on from there after
        a crash or kill -9, to the same bits. It is removed at the end. It is a pickle: use none that
        somebody else has written.
    checkpoint_every : float
        Seconds from one save to the next.

    Returns
    -------
    Trajectory

    Raises
    ------
    Interrupted
        On Ctrl-C, after the round under way (the compiled engine: after those that it runs in one go, a
        fraction of a second): carries the results so far, all of them if that was the last round. A second
        Ctrl-C stops at once.
    InputError
        If an argument is not allowed, or ``resume`` or ``checkpoint`` are of another scenario.
    """
    started, clock = datetime.now(UTC), time.perf_counter()
    with _interrupted_between_rounds() as interrupted:
        job = _Job.of(scenario, replicates, engine, workers, resume, checkpoint, checkpoint_every)
        if job.engine == "compiled":
            announce(scenario)
        with tqdm(
            total=job.replicates * scenario.rounds,
            initial=job.rounds_done,
            unit="round",
            disable=not progress,
            leave=False,
            mininterval=0.5,
        ) as bar:
            if job.engine == "agents" and job.workers > 1 and job.under_way is None:
                job.over_processes(interrupted, bar)
            else:
                job.in_turn(interrupted, bar)
        trajectory = job.trajectory(started, time.perf_counter() - clock)
    if job.checkpoint is not None and trajectory.complete:
        job.checkpoint.unlink(missing_ok=True)
    if interrupted() or not trajectory.complete:
        raise Interrupted(trajectory)
    return trajectory


@dataclass
class _Job:
    """What is left to do of a run, and what has been done."""

    scenario: Scenario
    replicates: int
    engine: str
    workers: int
    checkpoint: Path | None
    every: float
    parts: list[Part] = field(default_factory=list)
    under_way: Lot | None = None

    @classmethod
    def of(
        cls,
        scenario: Scenario,
        replicates: int,
        engine: str,
        workers: int | None,
        resume: Trajectory | None,
        checkpoint: str | os.PathLike[str] | None,
        every: float,
    ) -> "_Job":
        """Check the arguments of `run`, and take up what was done before."""
        if not isinstance(scenario, Scenario):
            raise InputError(f"scenario = {scenario!r}: give a Scenario, e.g. run(Scenario(rounds=10))")
        for name, value in (("replicates", replicates), ("workers", 1 if workers is None else workers)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} = {value!r}: allowed: a whole number, 1 or more")
        if not isinstance(every, int | float) or not every >= 0:
            raise InputError(f"checkpoint_every = {every!r}: allowed: a number of seconds, 0 or more")
        if resume is not None:
            before = resume.provenance.get("engine", "agents")
            if engine not in ("auto", before):
                raise InputError(f"engine = {engine!r}: the run to go on from is by {before!r}; leave it out")
            engine = before
        engine = chosen(scenario, engine)
        threads = workers or 1
        if engine == "compiled":  # more threads than processors only wait for each other
            available = processors()
            threads = min(workers or available, available)
        place = None if checkpoint is None else Path(checkpoint)
        job = cls(scenario, int(replicates), engine, int(threads), place, float(every))
        if resume is not None:
            job._resume(resume)
        if place is not None:
            job._restore(place)
        if job.under_way is not None and job.engine == "compiled":
            job.under_way.rounds.threads = job.workers  # type: ignore[attr-defined]
        return job

    @property
    def done(self) -> int:
        """Replicates that ran to their last round."""
        return sum(len(part.replicates) for part in self.parts)

    @property
    def rounds_done(self) -> int:
        """Rounds done, over all replicates."""
        under_way = self.under_way
        return self.done * self.scenario.rounds + (
            under_way.round * len(under_way.replicates) if under_way else 0
        )

    @property
    def dense(self) -> bool:
        """Whether the final distributions are to be a dense array."""
        n = int(self.scenario.n_providers or 0)
        return self.replicates * n * self.scenario.source.law.size * 8 <= DENSE

    # --- ways of doing it ----------------------------------------------------------------------------------

    def in_turn(self, interrupted: Callable[[], bool], bar: Any) -> None:
        """Run one lot after the other."""
        saved = time.monotonic()
        while self.done < self.replicates and not (self.parts and interrupted()):
            ahead = range(self.done, self.replicates)
            current = self.under_way or lot(self.scenario, ahead, self.engine, self.workers)
            self.under_way = current
            while current.running and not interrupted():
                before = current.round
                current.advance()
                bar.update(len(current.replicates) * (current.round - before))
                if self.checkpoint is not None and time.monotonic() - saved >= self.every:
                    self._save(self.checkpoint)
                    saved = time.monotonic()
            if current.running:
                return
            self.parts.append(current.part(self.dense))
            self.under_way = None

    def over_processes(self, interrupted: Callable[[], bool], bar: Any) -> None:
        """Run the agents' replicates in processes of their own; of an interrupted one nothing is kept."""
        found: dict[int, Part] = {}
        todo = range(self.done, self.replicates)
        with ProcessPoolExecutor(self.workers, mp_context=get_context("spawn")) as pool:
            with _ignored():
                waiting = {pool.submit(_one_replicate, self.scenario, r): r for r in todo}
            while waiting and not (interrupted() and (self.parts or 0 in found)):
                for future in wait(waiting, timeout=0.2, return_when=FIRST_COMPLETED).done:
                    found[waiting.pop(future)] = future.result()
                    bar.update(self.scenario.rounds)
                if self.checkpoint is not None and found:
                    self._keep(found)
            for future in waiting:
                future.cancel()
        self._keep(found)

    def _keep(self, found: dict[int, Part]) -> None:
        """Take over what is found of the replicates that come next."""
        while self.done in found:
            self.parts.append(found.pop(self.done))
            if self.checkpoint is not None and self.done < self.replicates:
                self._save(self.checkpoint)

    # --- kept on the way -----------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        return {
            "scenario": self.scenario.digest,
            "human": self.scenario.source.origin,
            "engine": self.engine,
            "parts": self.parts,
            "under_way": self.under_way,
        }

    def _save(self, file: Path) -> None:
        write_atomically(file, pickle.dumps(self._state()))

    def _restore(self, file: Path) -> None:
        if not file.parent.is_dir():
            raise InputError(f"checkpoint = {file}: there is no folder {file.parent}; make it first")
        if not file.is_file():
            return
        try:
            state = pickle.loads(file.read_bytes())
            same = state["scenario"] == self.scenario.digest and state["human"] == self.scenario.source.origin
        except Exception as error:
            raise InputError(f"checkpoint = {file}: is damaged ({error}); remove it") from None
        if not same or state["engine"] != self.engine:
            raise InputError(f"checkpoint = {file}: is of another run; remove it, or give another file")
        saved = replace(self, parts=state["parts"], under_way=state["under_way"])
        if saved.done + (len(saved.under_way.replicates) if saved.under_way else 0) > self.replicates:
            raise InputError(f"replicates = {self.replicates}: the run in {file} has more; give as many")
        if saved.rounds_done >= self.rounds_done:
            self.parts, self.under_way = saved.parts, saved.under_way

    def _resume(self, earlier: Trajectory) -> None:
        provenance = earlier.provenance
        if earlier.scenario != self.scenario:
            raise InputError("resume: the run to go on from is of another scenario; give the same scenario")
        begun = len(provenance["rounds_done"])
        if self.replicates < begun:
            raise InputError(
                f"replicates = {self.replicates}: the run has {begun} already; give {begun} or more"
            )
        if provenance["human"] != self.scenario.source.origin:
            raise InputError("resume: the human data has changed since; put it back, or start a new run")
        done = [r for r, rounds in enumerate(provenance["rounds_done"]) if rounds == self.scenario.rounds]
        if done:
            table = earlier.table[earlier.table["replicate"] < len(done)]
            population = earlier.population[earlier.population["replicate"] < len(done)]
            final = earlier.final
            kept = final[: len(done)] if isinstance(final, np.ndarray) else final.first(len(done))
            self.parts = [Part(range(len(done)), table, population, kept, self.scenario.rounds)]
        if earlier.unfinished and len(done) < self.replicates:
            try:
                self.under_way = pickle.loads(earlier.unfinished)
            except Exception as error:
                raise InputError(
                    f"resume: the unfinished replicate is damaged ({error}); start anew"
                ) from None

    def trajectory(self, started: datetime, seconds: float) -> Trajectory:
        """Return the results so far."""
        parts = [*self.parts, *([self.under_way.part(self.dense)] if self.under_way else [])]
        complete = self.under_way is None and self.done == self.replicates
        scenario = self.scenario
        in_counts = self.engine == "compiled" and rounds_of(scenario).representation == "counts"
        return Trajectory(
            scenario=scenario,
            human=scenario.source.law,
            labels=scenario.source.labels,
            provenance={
                "scenario": scenario.digest,
                "seed": scenario.seed,
                "replicates": self.replicates,
                "rounds_done": [part.rounds for part in parts for _ in part.replicates],
                "complete": complete,
                "engine": self.engine,
                "representation": "counts" if in_counts else "items",
                "human": scenario.source.origin,
                "versions": {name: version(name) for name in _LIBRARIES}
                | {"python": platform.python_version()},
                "platform": platform.platform(),
                "started": started.isoformat(timespec="seconds"),
                "seconds": round(seconds, 3),
            },
            unfinished=None if self.under_way is None else pickle.dumps(self.under_way),
            **merged(parts),
        )


def _one_replicate(scenario: Scenario, replicate: int) -> Part:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers Ctrl-C
    return run_lots(scenario, range(replicate, replicate + 1), "agents")[0]


@contextmanager
def _ignored() -> Iterator[None]:
    """Let processes that are started here ignore Ctrl-C from their first instruction on: it is inherited."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


@contextmanager
def _interrupted_between_rounds() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C ask for a stop after the rounds under way; a second Ctrl-C stops at once.

    Outside the main thread, where Python delivers no signals, the answer is always no.
    """
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    previous = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, previous)
