"""Where runs are computed: processes of this machine, or a Dask cluster, both as a standard `Executor`.

Everything above this file knows only `concurrent.futures.Executor`, with three optional attributes: ``slots``
(runs that it computes at once, now), ``deadly`` (exceptions that mean a worker died under a task, beside
`BrokenExecutor`) and ``blames`` (whether such an exception names the task that was guilty).
"""

import logging
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

from ecosystem.errors import InputError

_STARTS = 3  # how often a pool may die before its first task, until its processes count as unable to start


class ExecutorError(RuntimeError):
    """The executor cannot compute any more; what was finished until then is kept."""


def on_cluster(workers: int | None, scheduler: str | None, scheduler_file: Path | None) -> bool:
    """Return whether a command's options ask for a cluster; raise `InputError` if they ask for two places."""
    if sum(option is not None for option in (workers, scheduler, scheduler_file)) > 1:
        raise InputError("give one of --workers, --scheduler and --scheduler-file")
    return scheduler is not None or scheduler_file is not None


class LocalExecutor(Executor):
    """Worker processes of this machine, started afresh when one of them is killed.

    A killed worker breaks a `ProcessPoolExecutor` for good, and all that was submitted to it; here the next
    `submit` starts a new pool. The workers end when the process that started them ends, however it ends.

    Parameters
    ----------
    workers : int, optional
        Number of processes; by default one for each processor that this process may use.

    Raises
    ------
    InputError
        If ``workers`` is not a whole number, 1 or more.
    """

    def __init__(self, workers: int | None = None) -> None:
        if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
            raise InputError(f"workers = {workers!r}: allowed: a whole number, 1 or more")
        self.slots = workers or processors()
        self._pool: ProcessPoolExecutor | None = None
        self._lifeline: Connection | None = None

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand a call to a worker; raise `ExecutorError` if no worker process can start."""
        if self._pool is None:
            self._pool = self._started()
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pool = self._restarted()
            return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers: after what was submitted, or with ``wait = False`` at once."""
        if self._pool is not None:
            if wait:
                self._pool.shutdown(cancel_futures=cancel_futures)
            self._cut()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Wait for nothing when leaving because of an error or Ctrl-C."""
        self.shutdown(wait=kind is None, cancel_futures=True)

    def _started(self) -> ProcessPoolExecutor:
        spawn = multiprocessing.get_context("spawn")
        end, self._lifeline = spawn.Pipe(duplex=False)
        return ProcessPoolExecutor(self.slots, mp_context=spawn, initializer=_live_with, initargs=(end,))

    def _restarted(self) -> ProcessPoolExecutor:
        for _ in range(_STARTS):
            self._cut()
            pool = self._started()
            try:
                pool.submit(os.getpid).result()
            except BrokenExecutor:
                pool.shutdown()
            else:
                return pool
        raise ExecutorError(
            "the worker processes die as they start; a script must make the call under "
            'if __name__ == "__main__":, and there must be memory for the workers'
        )

    def _cut(self) -> None:
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _live_with(end: Connection) -> None:
    """Make a worker leave Ctrl-C to its driver, and exit when the other end of a pipe is gone.

    The driver holds that end; the system closes it even when the driver is killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_after, args=(end,), daemon=True).start()


def _exit_after(end: Connection) -> None:
    try:
        end.recv_bytes()
    except (EOFError, OSError):
        pass
    os._exit(1)


class ClusterExecutor(Executor):
    """The workers of a Dask scheduler that is already running.

    Parameters
    ----------
    address : str, optional
        Of the scheduler, e.g. "tcp://10.0.0.5:8786".
    scheduler_file : path, optional
        The file that ``dask scheduler --scheduler-file`` writes, on a disk that both can read.
    timeout : float
        Seconds to wait for the scheduler to answer.

    Raises
    ------
    InputError
        If the extra is not installed, or no scheduler answers.
    """

    blames = True

    def __init__(
        self,
        address: str | None = None,
        scheduler_file: str | os.PathLike[str] | None = None,
        timeout: float = 10.0,
    ) -> None:
        if (address is None) == (scheduler_file is None):
            raise InputError("give either the address of a Dask scheduler or its scheduler file")
        try:
            from distributed import Client
            from distributed.scheduler import KilledWorker
        except ImportError:
            raise InputError(
                "a Dask cluster needs the package distributed: type pip install '.[cluster]'"
            ) from None
        self.name = str(address or scheduler_file)
        if scheduler_file is not None and not Path(scheduler_file).is_file():
            raise InputError(
                f"the scheduler file {scheduler_file} does not exist; start the scheduler with "
                f"dask scheduler --scheduler-file {scheduler_file}"
            )
        where = {"address": address} if address else {"scheduler_file": os.fspath(scheduler_file or "")}
        try:
            self._client = Client(**where, timeout=timeout, set_as_default=False)
        except (OSError, ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise InputError(
                f"no Dask scheduler answers at {self.name} ({reason}); give the address that "
                "dask scheduler printed, e.g. tcp://10.0.0.5:8786"
            ) from None
        # A lost scheduler is told by `check`, in one line; the client would print pages of tracebacks.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self.deadly = (KilledWorker,)
        self._executor = self._client.get_executor(pure=False)
        self._slots, self._asked = 1, float("-inf")

    @property
    def slots(self) -> int:
        """Threads of all workers that have joined until now, at least 1."""
        if time.monotonic() - self._asked > 1:  # the scheduler is not to be asked at every turn
            self._asked = time.monotonic()
            self._slots = max(1, self.threads())
        return self._slots

    def threads(self) -> int:
        """Ask the scheduler for the threads of all workers that have joined until now."""
        self.check()
        try:
            return sum(self._client.nthreads().values())
        except Exception as error:  # whatever a broken connection raises
            raise self._lost() from error

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand a call to the cluster; raise `ExecutorError` if there is no scheduler any more."""
        self.check()
        try:
            return self._executor.submit(fn, *args, **kwargs)
        except Exception as error:
            if self._client.status == "running":
                raise
            raise self._lost() from error

    def check(self) -> None:
        """Raise `ExecutorError` if the connection to the scheduler is gone."""
        if self._client.status != "running":
            raise self._lost()

    def _lost(self) -> ExecutorError:
        return ExecutorError(f"the Dask scheduler at {self.name} is lost")

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster; its workers go on for others."""
        if self._client.status == "running":
            self._executor.shutdown(wait=wait)
        self._client.close(timeout=2)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        """Wait for nothing when leaving because of an error or Ctrl-C."""
        self.shutdown(wait=kind is None)
