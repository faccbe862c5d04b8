"""What a run returns, a `Trajectory`: tables, final distributions, provenance; saved and loaded."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecosystem.errors import InputError
from ecosystem.interventions import active_in
from ecosystem.laws import SparseLaws
from ecosystem.scenario import Scenario
from ecosystem.types import Floats


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
    final : ndarray, shape (replicates, N, V), or SparseLaws
        Θ after the last round; of a provider that left, when it left. Where the array would take more than
        2 GiB, and not every output is looked at (truncation, T = 0, training errors), it is a `SparseLaws` of
        the same shape, which stores only what a provider has touched:
        ``final[r]`` is one replicate as an array, ``final.law(r, i)`` one provider.
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
    final: Floats | SparseLaws
    human: Floats
    labels: tuple[str, ...] | None
    provenance: dict[str, Any]
    unfinished: bytes | None = field(default=None, repr=False)

    @property
    def complete(self) -> bool:
        """Whether every replicate ran to its last round."""
        return self.provenance["complete"]

    @property
    def final_active(self) -> Floats | SparseLaws:
        """``final`` of the providers that took part in the last round, (replicates, active, V)."""
        last = max(self.provenance["rounds_done"])
        active = active_in(self.scenario.interventions, last, self.final.shape[1])
        return self.final.of(active) if isinstance(self.final, SparseLaws) else self.final[:, active]

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Trajectory)
            and self.scenario == other.scenario
            and self.table.equals(other.table)
            and self.population.equals(other.population)
            and self._same_final(other)
            and np.array_equal(self.human, other.human)
            and self.labels == other.labels
            and self.provenance == other.provenance
            and self.unfinished == other.unfinished
        )

    def _same_final(self, other: "Trajectory") -> bool:
        if isinstance(self.final, SparseLaws) or isinstance(other.final, SparseLaws):
            return self.final is other.final or bool(self.final == other.final)
        return np.array_equal(self.final, other.final)

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
            outputs.parquet, final.npy (or final.npz, where Θ is sparse) and the figures.

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
        if isinstance(self.final, SparseLaws):
            self.final.save(folder / "final.npz")
        else:
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
            final=SparseLaws.load(thin)
            if (thin := folder / "final.npz").is_file()
            else np.load(folder / "final.npy"),
            human=outputs["human"].to_numpy(),
            labels=tuple(outputs["output"]) if "output" in outputs else None,
            provenance=provenance,
            unfinished=unfinished.read_bytes() if unfinished.is_file() else None,
        )


OWN_FILES = (
    "scenario.toml", "provenance.json", "*.parquet", "final.np?", "unfinished.pickle", "*.png", "*.svg",
)  # fmt: skip
"""Names of what `Trajectory.write` leaves in a folder."""


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


def check_vacant(folder: str | os.PathLike[str], resumed: bool = False, in_place: bool = False) -> None:
    """Raise `InputError` unless a folder can be made at this place.

    Raises
    ------
    InputError
        If something is there already: anything but an empty folder or, with ``resumed``, an
        interrupted run; if no folder can be made there; or if it is the current folder and, unless
        ``in_place``, another one will be put in its place.
    """
    path = Path(folder)
    if not in_place and path.resolve() == Path.cwd():
        raise InputError(f"{path}: results become a folder of their own, not the current one; give a name")
    above = next(ancestor for ancestor in path.absolute().parents if ancestor.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise InputError(f"{path}: no folder can be made in {above}; save elsewhere")
    if path.is_dir() and (resumed or not any(path.iterdir())):
        return
    if path.exists():
        raise InputError(f"{path} is already there; choose another place, or remove it")


@contextmanager
def whole_folder(folder: str | os.PathLike[str], replace: Sequence[str] = ()) -> Iterator[Path]:
    """Yield a folder under a temporary name that is renamed at the end: it appears whole or not at all.

    With ``replace``, patterns of names, a folder may be there already: what is in it and matches one of them,
    or is written anew, is replaced. Whatever else somebody put there stays.
    """
    path = Path(folder)
    check_vacant(path, resumed=bool(replace))
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
            for other in path.iterdir():
                if not (inner / other.name).exists() and not any(fnmatch(other.name, own) for own in replace):
                    copy = shutil.copytree if other.is_dir() else shutil.copy2
                    copy(other, inner / other.name)
            os.replace(path, temporary / "replaced")
        os.replace(inner, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
