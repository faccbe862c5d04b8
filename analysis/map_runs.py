"""Many runs over an executor: in chunks, yielded as they finish, whatever happens to the workers."""

import hashlib
import json
import math
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import pandas as pd

import ecosystem
from analysis.executors import ExecutorError, LocalExecutor, processors
from ecosystem import Scenario
from ecosystem.lots import run_lots
from ecosystem.types import Floats

T = TypeVar("T")

CHUNK_SECONDS = 2.0
"""How long a worker is to be busy with one chunk: handing it over and saving it take some 20 ms."""

_SHORTEST = 0.1  # of CHUNK_SECONDS: the chunks at the end, that let all workers end together
_LARGEST = 10_000  # runs in a chunk
_SUSPECT, _GUILTY = 3, 5  # workers that died under a run until it runs alone, and until it is given up


class RunResult(NamedTuple):
    """What one replicate of a scenario gave.

    Attributes
    ----------
    scenario, replicate
        What was run.
    table, population : pandas.DataFrame
        As in `ecosystem.Trajectory`, of this replicate.
    final : ndarray, shape (N, V)
        Θ after the last round.
    """

    scenario: Scenario
    replicate: int
    table: pd.DataFrame
    population: pd.DataFrame
    final: Floats


class Failure(NamedTuple):
    """Why a run gave nothing: the type and the message of its exception, and where it was raised."""

    error: str
    message: str
    traceback: str = ""


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one of many runs.

    Attributes
    ----------
    index : int
        Its place among the runs asked for.
    scenario, replicate
        What was run.
    value : T, or None
        What ``measure`` made of its result; None where it failed.
    failure : Failure or None
        None where it did not.
    seconds : float
        Time that its worker was busy with it.
    """

    index: int
    scenario: Scenario
    replicate: int
    value: T | None
    failure: Failure | None
    seconds: float


def run_result(result: RunResult) -> RunResult:
    """Keep all of a run (the default of `map_runs`)."""
    return result


def map_runs(
    runs: Iterable[tuple[Scenario, int]],
    measure: Callable[[RunResult], T] = run_result,  # type: ignore[assignment]
    *,
    executor: Executor | None = None,
    workers: int | None = None,
) -> Iterator[Outcome[T]]:
    """Run many replicates of many scenarios side by side, and yield each as it is finished, in no order.

    Runs go to the workers in chunks that keep them busy for about `CHUNK_SECONDS`, so that many short runs
    cost little more than their own time. A run that fails is an outcome like any other. Runs whose worker is
    killed are repeated; a run under which workers die again and again is given up as a failure.

    Parameters
    ----------
    runs : iterable of (Scenario, replicate)
        What to run; read as far ahead as is needed to keep the workers busy. Replicates of one scenario
        that follow each other, with the same object, are computed together.
    measure : function of RunResult
        What to keep of a run. Applied by the worker, so it must be a function of a module (or an instance
        of a class that defines ``__call__``), and so must what it returns be picklable.
    executor : concurrent.futures.Executor, optional
        Where to run, e.g. one `LocalExecutor` for several calls, or a `ClusterExecutor`. It is left open.
    workers : int, optional
        Without an executor: number of processes of this machine; by default one for each processor.

    Yields
    ------
    Outcome

    Raises
    ------
    ExecutorError
        If the executor cannot compute any more.

    Examples
    --------
    >>> from ecosystem import Scenario
    >>> scenario = Scenario(rounds=10)
    >>> for outcome in map_runs((scenario, r) for r in range(8)):  # doctest: +SKIP
    ...     print(outcome.replicate, outcome.value.final.shape)
    """
    return chain.from_iterable(map_chunks(runs, measure, executor=executor, workers=workers))


def map_chunks(
    runs: Iterable[tuple[Scenario, int]],
    measure: Callable[[RunResult], T],
    *,
    executor: Executor | None = None,
    workers: int | None = None,
) -> Generator[list[Outcome[T]], None, None]:
    """Yield what `map_runs` yields, in the lists in which it arrives."""
    if executor is not None:
        yield from _Driver(runs, measure, executor).chunks()
        return
    with LocalExecutor(workers) as own:
        yield from _Driver(runs, measure, own).chunks()


# --- in the worker --------------------------------------------------------------------------------


def _results(scenario: Scenario, replicates: Sequence[int]) -> Iterator[RunResult]:
    """Run some replicates of one scenario: the one place where an engine is called."""
    for wanted in _ranges(replicates):
        for part in run_lots(scenario, wanted):
            for number, replicate in enumerate(part.replicates):
                table = part.table[part.table["replicate"] == replicate].reset_index(drop=True)
                population = part.population[part.population["replicate"] == replicate].reset_index(drop=True)
                yield RunResult(scenario, replicate, table, population, part.final[number])


def _ranges(numbers: Sequence[int]) -> Iterator[range]:
    """Cut numbers into runs of consecutive ones."""
    start = 0
    for at in range(1, len(numbers) + 1):
        if at == len(numbers) or numbers[at] != numbers[at - 1] + 1:
            yield range(numbers[start], numbers[at - 1] + 1)
            start = at


_Answer = tuple[Any, Failure | None, float]


def _answers(
    scenario: Scenario, replicates: Sequence[int], measure: Callable[[RunResult], Any]
) -> Iterator[_Answer]:
    """Measure replicates of one scenario; one that fails takes no other with it."""
    left = list(replicates)
    while left:
        results, clock = _results(scenario, tuple(left)), time.perf_counter()
        while left:
            value, failure = None, None
            try:
                value = measure(next(results))
            except Exception as error:
                failure = Failure(type(error).__name__, str(error), traceback.format_exc())
            now = time.perf_counter()
            yield value, failure, now - clock
            left.pop(0)
            clock = now
            if failure is not None:
                break


def _run_chunk(
    measure: Callable[[RunResult], Any], groups: list[tuple[Scenario, list[int]]], code: str, limit: float
) -> list[_Answer]:
    """Answer the first runs of a chunk, in order: as many as fit into ``limit`` seconds, at least one."""
    if code_version() != code:
        raise ExecutorError(
            f"a worker has another version of the code ({code_version()}) than the driver ({code}); "
            "install the same on both"
        )
    answers: list[_Answer] = []
    end = time.monotonic() + limit
    for scenario, replicates in groups:
        for answer in _answers(scenario, replicates, measure):
            answers.append(answer)
            if time.monotonic() > end:
                return answers
    return answers


@cache
def code_version() -> str:
    """Return the version of the package and a digest of its files: versions in development do not change."""
    root = resources.files(ecosystem)
    sha = hashlib.sha256()
    for name, content in sorted(_files(root)):
        sha.update(f"{name}\0{len(content)}\0".encode() + content)
    return f"{ecosystem.__version__}+{sha.hexdigest()[:12]}"


def described(scenario: Scenario) -> bytes:
    """Return a text of a scenario with its seed and of the files it names, which may change: a run's key."""
    parts = [scenario.digest, json.dumps(scenario.source.origin, sort_keys=True, default=str)]
    if isinstance(scenario.sharing, str) and ":" in scenario.sharing:
        matrix = scenario.W
        parts.append(hashlib.sha256(matrix.data.tobytes() + matrix.indices.tobytes()).hexdigest())
    return "\0".join(parts).encode()


def _files(folder: Any, above: str = "") -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = f"{above}/{entry.name}"
        if entry.is_dir() and entry.name != "__pycache__":
            yield from _files(entry, name)
        elif entry.is_file() and not entry.name.endswith((".pyc", ".so")):
            yield name, entry.read_bytes()


# --- in the driver --------------------------------------------------------------------------------


class _Task(NamedTuple):
    place: int
    scenario: Scenario
    replicate: int


class _Driver(Generic[T]):
    """Hands out chunks and takes them back."""

    def __init__(
        self, runs: Iterable[tuple[Scenario, int]], measure: Callable[[RunResult], T], executor: Executor
    ) -> None:
        self.source = (_Task(index, scenario, replicate) for index, (scenario, replicate) in enumerate(runs))
        self.measure, self.executor = measure, executor
        self.deadly = (BrokenExecutor, *getattr(executor, "deadly", ()))
        self.blames = getattr(executor, "blames", False)
        self.ahead: deque[_Task] = deque()
        self.suspects: deque[_Task] = deque()
        self.deaths: Counter[int] = Counter()
        self.pending: dict[Future[list[_Answer]], list[_Task]] = {}
        self.alone: Future[list[_Answer]] | None = None
        self.pace: float | None = None  # seconds a run

    def chunks(self) -> Iterator[list[Outcome[T]]]:
        try:
            while True:
                self._fill()
                if not self.pending:
                    return
                # Woken now and then, to see workers that joined and a scheduler that is lost.
                done, _ = wait(self.pending, timeout=1, return_when=FIRST_COMPLETED)
                for future in done:
                    if outcomes := self._taken(future, self.pending.pop(future)):
                        yield outcomes
        finally:
            for future in self.pending:
                future.cancel()

    def _slots(self) -> int:
        slots = getattr(self.executor, "slots", None) or getattr(self.executor, "_max_workers", None)
        return int(slots or processors())

    def _fill(self) -> None:
        """Keep every worker supplied with a chunk to come; a suspect has the pool to itself."""
        slots = self._slots()
        while len(self.pending) < 2 * slots and self.alone not in self.pending:
            if self.suspects and not self.blames:
                if self.pending:
                    return
                self.alone = self._submit([self.suspects.popleft()])
            elif self.suspects:
                self._submit([self.suspects.popleft()])
            elif chunk := self._next_chunk(slots):
                self._submit(chunk)
            else:
                return

    def _next_chunk(self, slots: int) -> list[_Task]:
        wanted = 1 if self.pace is None else CHUNK_SECONDS / max(self.pace, 1e-6)
        size = min(max(1, int(wanted)), _LARGEST)
        while len(self.ahead) < 2 * slots * size and (task := next(self.source, None)):
            self.ahead.append(task)
        # Towards the end in ever smaller chunks, so that all workers end together.
        size = min(size, max(math.ceil(_SHORTEST * size), len(self.ahead) // (2 * slots), 1))
        return [self.ahead.popleft() for _ in range(min(size, len(self.ahead)))]

    def _submit(self, tasks: list[_Task]) -> "Future[list[_Answer]]":
        groups: list[tuple[Scenario, list[int]]] = []
        for task in tasks:
            if not groups or groups[-1][0] is not task.scenario:
                groups.append((task.scenario, []))
            groups[-1][1].append(task.replicate)
        future = self.executor.submit(_run_chunk, self.measure, groups, code_version(), 2 * CHUNK_SECONDS)
        self.pending[future] = tasks
        return future

    def _taken(self, future: "Future[list[_Answer]]", tasks: list[_Task]) -> list[Outcome[T]]:
        """Return what came of a chunk; queue again what did not."""
        try:
            answers = future.result()
        except self.deadly as error:
            return self._died(tasks, error)
        except CancelledError:
            if (check := getattr(self.executor, "check", None)) is not None:
                check()
            raise ExecutorError("the executor cancelled what was submitted to it") from None
        except (ExecutorError, ImportError) as error:
            raise ExecutorError(f"a worker cannot run this: {error}") from error
        except Exception as error:  # a chunk that could not be sent or could not be returned
            if self.pace is None:
                reason = " ".join(str(error).split())[:200]
                raise ExecutorError(
                    f"nothing could be computed ({type(error).__name__}: {reason}); the workers, and a Dask "
                    "scheduler too, need the package ecosystem and all that the runs use"
                ) from error
            if len(tasks) == 1:
                return [_failed(tasks[0], Failure(type(error).__name__, str(error), traceback.format_exc()))]
            self.suspects.extend(tasks)
            return []
        self.ahead.extendleft(reversed(tasks[len(answers) :]))
        seconds = sum(answer[2] for answer in answers) / len(answers)
        self.pace = seconds if self.pace is None else (self.pace + seconds) / 2
        return [Outcome(*task, *answer) for task, answer in zip(tasks, answers, strict=False)]

    def _died(self, tasks: list[_Task], error: BaseException) -> list[Outcome[T]]:
        """Repeat the runs of a chunk whose worker died; alone those that it happened to several times."""
        given_up = []
        for task in reversed(tasks):
            self.deaths[task.place] += 1
            deaths = self.deaths[task.place]
            if deaths >= _GUILTY or (self.blames and len(tasks) == 1):
                message = f"its worker died each time that it ran, {deaths} times (out of memory?): {error}"
                given_up.append(_failed(task, Failure("WorkerDied", message)))
            elif deaths >= _SUSPECT or self.blames:
                self.suspects.append(task)
            else:
                self.ahead.appendleft(task)
        return given_up


def _failed(task: _Task, failure: Failure) -> Outcome[Any]:
    return Outcome(*task, value=None, failure=failure, seconds=0.0)
