"""The bench that all questions are put to: every (scenario, replicate) is run once and remembered."""

import hashlib
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Self

import pandas as pd
from tqdm.auto import tqdm

from analysis.executors import LocalExecutor
from analysis.map_runs import code_version, described, map_runs
from analysis.whatif.outcomes import CURVES, OUTCOMES, Measure, Measured
from ecosystem import InputError, Scenario
from ecosystem.scenario import write_atomically

SAVE_SECONDS = 10.0
"""From one save of the runs so far to the next, at least."""


class Bench:
    """Runs scenarios and remembers what came of them.

    Replicate r of every scenario has the same seed and the same index, so it draws from the same named
    random streams: scenarios differ only where their settings make them differ (common random numbers).

    Parameters
    ----------
    line : float
        The collapse line, above 0 and below 1.
    executor : concurrent.futures.Executor, optional
        Where to run; it is left open. By default processes of this machine, which end with the ``with``
        statement that the bench is used in.
    workers : int, optional
        Number of those processes; by default one for each processor.
    progress : bool
        Whether to show a progress bar.
    keep : Path, optional
        Folder to which runs are written on the way, every few seconds, so that they outlive the process.

    Attributes
    ----------
    known : dict of (key, replicate) to Measured
        All that was run, by the `key` of its scenario. Results do not depend on the workers or on the
        order of arrival.
    """

    def __init__(
        self,
        line: float = 0.5,
        *,
        executor: Executor | None = None,
        workers: int | None = None,
        progress: bool = False,
        keep: Path | None = None,
    ) -> None:
        if not isinstance(line, float | int) or isinstance(line, bool) or not 0 < line < 1:
            raise InputError(f"collapse_line = {line!r}: allowed: a number above 0 and below 1, e.g. 0.5")
        self.measure = Measure(float(line))
        self.executor, self.progress, self.keep = executor, progress, keep
        self._own = LocalExecutor(workers) if executor is None else None
        self.known: dict[tuple[str, int], Measured] = {}
        self._keys: dict[Scenario, str] = {}
        self._due = time.monotonic() + SAVE_SECONDS

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._own is not None:
            self._own.__exit__(kind, error, trace)

    def key(self, scenario: Scenario) -> str:
        """Return a digest of a scenario and of the files it names: an edited text is another scenario."""
        if scenario not in self._keys:
            self._keys[scenario] = hashlib.sha256(described(scenario)).hexdigest()[:20]
        return self._keys[scenario]

    def run(self, scenarios: Iterable[Scenario], replicates: Sequence[int], what: str = "runs") -> None:
        """Run those replicates of those scenarios that are not known yet.

        Raises
        ------
        RuntimeError
            If a run failed: with the scenario's own error.
        KeyboardInterrupt
            On Ctrl-C; what arrived until then is known.
        """
        wanted: dict[tuple[str, int], tuple[Scenario, int]] = {
            (self.key(scenario), replicate): (scenario, replicate)
            for scenario in scenarios
            for replicate in replicates
            if (self.key(scenario), replicate) not in self.known
        }
        if not wanted:
            return
        keys = list(wanted)
        with tqdm(total=len(wanted), desc=what, unit="run", disable=not self.progress, leave=False) as bar:
            outcomes = map_runs(wanted.values(), self.measure, executor=self.executor or self._own)
            for done in outcomes:
                if done.failure is not None:
                    if done.failure.error == "InputError":
                        raise InputError(done.failure.message)
                    raise RuntimeError(
                        f"a run failed ({done.failure.error}: "
                        f"{done.failure.message})\n{done.failure.traceback}"
                    )
                assert done.value is not None
                self.known[keys[done.index]] = done.value
                bar.update()
                self._save_if_due()

    def outcomes(self, scenario: Scenario, replicates: Sequence[int]) -> pd.DataFrame:
        """Return the outcomes of known replicates, a row for each, indexed by replicate."""
        key = self.key(scenario)
        known = {r: self.known[key, r] for r in replicates if (key, r) in self.known}
        index = pd.Index(list(known), name="replicate", dtype=int)
        return pd.DataFrame([run.outcomes for run in known.values()], index=index, columns=list(OUTCOMES))

    def course(self, scenario: Scenario, replicates: Sequence[int]) -> pd.DataFrame:
        """Return the courses of known replicates: columns replicate, round and the curves."""
        key = self.key(scenario)
        parts = [self.known[key, r].course.assign(replicate=r) for r in replicates if (key, r) in self.known]
        columns = ["replicate", "round", *CURVES]
        return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)

    def write(self, folder: Path) -> None:
        """Write all that is known as two Parquet files of a folder, each there whole or not at all."""
        keys = pd.DataFrame(list(self.known), columns=["digest", "replicate"])
        rows = pd.DataFrame([run.outcomes for run in self.known.values()], columns=list(OUTCOMES))
        stamped = keys.join(rows).assign(line=self.measure.line, code=code_version())
        courses = [
            run.course.assign(digest=digest, replicate=replicate)
            for (digest, replicate), run in self.known.items()
        ]
        empty = pd.DataFrame(columns=["round", *CURVES, "digest", "replicate"])
        # The courses first: of a process killed between the two, every run has its course.
        write_atomically(folder / "courses.parquet", pd.concat(courses or [empty]).to_parquet())
        write_atomically(folder / "runs.parquet", stamped.to_parquet())

    def _save_if_due(self) -> None:
        """Write to ``keep``, if it is time: seldom enough to take a few per cent of the time."""
        if self.keep is not None and (begun := time.monotonic()) >= self._due:
            self.keep.mkdir(parents=True, exist_ok=True)
            self.write(self.keep)
            now = time.monotonic()
            self._due = now + max(SAVE_SECONDS, 20 * (now - begun))

    def read(self, folder: Path) -> None:
        """Know what another bench wrote.

        Raises
        ------
        InputError
            If it was written with another collapse line or by other code, whose runs are not comparable.
        """
        try:
            rows = pd.read_parquet(folder / "runs.parquet")
            courses = dict(list(pd.read_parquet(folder / "courses.parquet").groupby(["digest", "replicate"])))
        except (OSError, ValueError) as error:
            raise InputError(f"{folder} holds no runs to go on from ({error}); start anew") from None
        stamp = {"line": self.measure.line, "code": code_version()}
        for name, now in stamp.items():
            if len(rows) and (rows[name] != now).any():
                raise InputError(
                    f"{folder}: its runs were made with {name} = {rows[name].iloc[0]}, now it is {now}: "
                    "they cannot be mixed; start anew"
                )
        for row in rows.to_dict("records"):
            key = (str(row["digest"]), int(row["replicate"]))
            course = courses[key][["round", *CURVES]].reset_index(drop=True)
            self.known[key] = Measured({name: float(row[name]) for name in OUTCOMES}, course)
