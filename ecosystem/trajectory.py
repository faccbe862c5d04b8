"""`run` a scenario and get a `Trajectory`: tables, final distributions, provenance; saved and loaded."""

import json
import os
import pickle
import platform
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ecosystem.errors import InputError
from ecosystem.interventions import active_in
from ecosystem.model import Ecosystem
from ecosystem.recording import tables
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

_LIBRARIES = ("ecosystem", "mesa", "numpy", "networkx", "scipy", "pandas")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """What a run returns.

    Attributes
    ----------
    scenario : Scenario
        What was run.
    table : pandas.DataFrame
        Tidy: replicate, round, provider, then one column per metric (`ecosystem.metrics`).
    population : pandas.DataFrame
        Tidy: replicate, round, then one column per metric of the population.
    final : ndarray, shape (replicates, N, V)
        Θ after the last round; of a provider that left, when it left.
    human : ndarray, shape (V,)
        The law of human data.
    labels : tuple of str, or None
        What each output is, where the human source knows.
    provenance : dict
        Scenario digest, seed, replicates, rounds done, versions, time, origin of the human data.
    unfinished : bytes or None
        Of an interrupted run, the state from which ``run(..., resume=trajectory)`` goes on.
    """

    scenario: Scenario
    table: pd.DataFrame
    population: pd.DataFrame
    final: Floats
    human: Floats
    labels: tuple[str, ...] | None
    provenance: dict[str, Any]
    unfinished: bytes | None = field(default=None, repr=False)

    @property
    def complete(self) -> bool:
        """Whether every replicate ran to its last round."""
        return self.provenance["complete"]

    @property
    def final_active(self) -> Floats:
        """``final`` of the providers that took part in the last round, (replicates, active, V)."""
        last = max(self.provenance["rounds_done"])
        return self.final[:, active_in(self.scenario.interventions, last, self.final.shape[1])]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trajectory)
            and self.scenario == other.scenario
            and self.table.equals(other.table)
            and self.population.equals(other.population)
            and np.array_equal(self.final, other.final)
            and np.array_equal(self.human, other.human)
            and self.labels == other.labels
            and self.provenance == other.provenance
            and self.unfinished == other.unfinished
        )

    def save(self, folder: str | os.PathLike[str], figures: Mapping[str, Any] | None = None) -> Path:
        """Save as a folder that is there whole or not at all.

        Parameters
        ----------
        folder : path
            Must not exist yet, or be empty.
        figures : mapping of name to matplotlib Figure, optional
            Saved as NAME.png and NAME.svg.

        Returns
        -------
        Path
            The folder, holding scenario.toml, provenance.json, table.parquet, population.parquet,
            outputs.parquet, final.npy and the figures.

        Raises
        ------
        InputError
            If the folder holds anything else.
        """
        with whole_folder(folder) as target:
            self.write(target, figures)
        return Path(folder)

    def write(self, folder: Path, figures: Mapping[str, Any] | None = None) -> None:
        """Write the files of `save` into an existing folder, without its all-or-nothing promise."""
        self.scenario.to_toml(folder / "scenario.toml")
        (folder / "provenance.json").write_text(json.dumps(self.provenance, indent=2), encoding="utf-8")
        self.table.to_parquet(folder / "table.parquet")
        self.population.to_parquet(folder / "population.parquet")
        outputs = pd.DataFrame({"human": self.human})
        if self.labels is not None:
            outputs.insert(0, "output", list(self.labels))
        outputs.to_parquet(folder / "outputs.parquet")
        np.save(folder / "final.npy", self.final)
        if self.unfinished is not None:
            (folder / "unfinished.pickle").write_bytes(self.unfinished)
        for name, figure in (figures or {}).items():
            figure.savefig(folder / f"{name}.png")
            figure.savefig(folder / f"{name}.svg")

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Trajectory":
        """Read a saved run back, equal to the one saved; raise `InputError` if the folder holds none."""
        folder = Path(folder)
        if not (folder / "provenance.json").is_file():
            raise InputError(f"{folder} holds no saved run; give a folder that a run was saved to")
        try:
            return cls._read(folder)
        except Exception as error:  # each of the readers has errors of its own
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"{folder} holds a damaged run ({type(error).__name__}: {reason})") from None

    @classmethod
    def _read(cls, folder: Path) -> "Trajectory":
        outputs = pd.read_parquet(folder / "outputs.parquet")
        unfinished = folder / "unfinished.pickle"
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        if missing := {"complete", "rounds_done", "replicates", "human"} - provenance.keys():
            raise ValueError(f"provenance.json lacks {', '.join(sorted(missing))}")
        return cls(
            scenario=Scenario.recorded(folder / "scenario.toml"),
            table=pd.read_parquet(folder / "table.parquet"),
            population=pd.read_parquet(folder / "population.parquet"),
            final=np.load(folder / "final.npy"),
            human=outputs["human"].to_numpy(),
            labels=tuple(outputs["output"]) if "output" in outputs else None,
            provenance=provenance,
            unfinished=unfinished.read_bytes() if unfinished.is_file() else None,
        )


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `run`; carries what was done until then.

    Attributes
    ----------
    trajectory : Trajectory
        The results so far, to be saved, or to go on from with ``run(..., resume=trajectory)``.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        done = sum(trajectory.provenance["rounds_done"])
        super().__init__(f"interrupted after {done} rounds; the results so far are in .trajectory")
        self.trajectory = trajectory


def run(
    scenario: Scenario,
    replicates: int = 1,
    *,
    progress: bool = False,
    resume: Trajectory | None = None,
) -> Trajectory:
    """Run a scenario to its last round, several times over.

    Parameters
    ----------
    scenario : Scenario
        What to run. The sharing graph is the same in every replicate; all else is drawn anew.
    replicates : int
        Independent repetitions, 1 or more. Replicate r is the same whatever their number.
    progress : bool
        Whether to show a progress bar.
    resume : Trajectory, optional
        The result of an interrupted run of the same scenario, to go on from: the outcome is the same,
        bit for bit, as without the interruption.

    Returns
    -------
    Trajectory

    Raises
    ------
    Interrupted
        On Ctrl-C, after the round under way: carries the results so far. A second Ctrl-C stops at once.
    InputError
        If ``replicates`` is not a positive whole number, or ``resume`` is of another scenario.
    """
    if not isinstance(scenario, Scenario):
        raise InputError(f"scenario = {scenario!r}: give a Scenario, e.g. run(Scenario(rounds=10))")
    if not isinstance(replicates, int | np.integer) or isinstance(replicates, bool) or replicates < 1:
        raise InputError(f"replicates = {replicates!r}: allowed: a whole number, 1 or more")
    if resume is not None and resume.scenario != scenario:
        raise InputError("resume: the run to go on from is of another scenario; give the same scenario")
    if resume is not None and replicates < len(resume.provenance["rounds_done"]):
        begun = len(resume.provenance["rounds_done"])
        raise InputError(f"replicates = {replicates}: the run has {begun} already; give {begun} or more")
    if resume is not None and resume.provenance["human"] != scenario.source.origin:
        raise InputError("resume: the human data has changed since; put it back, or start a new run")
    started, clock = datetime.now(UTC), time.perf_counter()
    parts = _finished(resume) if resume else []
    eco: Ecosystem | None = None
    if resume and resume.unfinished and len(parts) < replicates:
        try:
            eco = pickle.loads(resume.unfinished)
        except Exception as error:
            raise InputError(f"resume: the unfinished replicate is damaged ({error}); start anew") from None
    done = len(parts) * scenario.rounds + (eco.round if eco else 0)
    bar = tqdm(
        total=replicates * scenario.rounds,
        initial=done,
        unit="round",
        disable=not progress,
        leave=False,
        mininterval=0.5,
    )
    with _interrupted_between_rounds() as interrupted, bar:
        while len(parts) < replicates and not (parts and interrupted()):
            eco = eco or Ecosystem(scenario, replicate=len(parts))
            while eco.running and not interrupted():
                eco.step()
                bar.update()
            parts.append(_Part(*tables(eco, len(parts)), eco.distributions, eco.round))
            eco = eco if eco.running else None
    trajectory = Trajectory(
        scenario=scenario,
        table=pd.concat([part.table for part in parts], ignore_index=True),
        population=pd.concat([part.population for part in parts], ignore_index=True),
        final=np.stack([part.final for part in parts]),
        human=scenario.source.law,
        labels=scenario.source.labels,
        provenance={
            "scenario": scenario.digest,
            "seed": scenario.seed,
            "replicates": int(replicates),
            "rounds_done": [part.rounds for part in parts],
            "complete": eco is None and len(parts) == replicates,
            "engine": "agents",
            "human": scenario.source.origin,
            "versions": {name: version(name) for name in _LIBRARIES} | {"python": platform.python_version()},
            "platform": platform.platform(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - clock, 3),
        },
        unfinished=pickle.dumps(eco) if eco else None,
    )
    if not trajectory.complete:
        raise Interrupted(trajectory)
    return trajectory


class _Part(NamedTuple):
    """What one replicate gave: its two tables, Θ of shape (N, V), and the rounds it ran."""

    table: pd.DataFrame
    population: pd.DataFrame
    final: Floats
    rounds: int


def _finished(earlier: Trajectory) -> list[_Part]:
    """Take the replicates of an earlier run that went to their last round."""
    rounds = earlier.scenario.rounds
    return [
        _Part(
            earlier.table[earlier.table["replicate"] == replicate],
            earlier.population[earlier.population["replicate"] == replicate],
            earlier.final[replicate],
            rounds,
        )
        for replicate, done in enumerate(earlier.provenance["rounds_done"])
        if done == rounds
    ]


@contextmanager
def _interrupted_between_rounds() -> Iterator[Callable[[], bool]]:
    """Let Ctrl-C ask for a stop after the current round; a second Ctrl-C stops at once.

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


def check_vacant(folder: str | os.PathLike[str], resumed: bool = False) -> None:
    """Raise `InputError` unless a folder can be made at this place.

    Raises
    ------
    InputError
        If something is there already: anything but an empty folder or, with ``resumed``, an
        interrupted run; or if no folder can be made there.
    """
    path = Path(folder)
    above = next(ancestor for ancestor in path.absolute().parents if ancestor.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{path}: no folder can be made in {above}; save elsewhere")
    if path.is_dir() and (resumed or not any(path.iterdir())):
        return
    if path.exists():
        raise InputError(f"{path} is already there; choose another place, or remove it")


@contextmanager
def whole_folder(folder: str | os.PathLike[str], replace: bool = False) -> Iterator[Path]:
    """Yield a folder under a temporary name that is renamed at the end: it appears whole or not at all.

    With ``replace``, a folder that is already there is moved aside first and removed afterwards.
    """
    path = Path(folder)
    check_vacant(path, resumed=replace)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        inner = temporary / path.name
        inner.mkdir()
        yield inner
        for file in inner.rglob("*"):
            if file.is_file():
                with file.open("rb") as stream:
                    os.fsync(stream.fileno())
        if replace and path.exists():
            os.replace(path, temporary / "replaced")
        os.replace(inner, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
