"""The design of a sweep: which scenarios, how many replicates, and what is kept of each run."""

import difflib
import itertools
import json
import math
import os
import reprlib
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from ecosystem import Ecosystem, InputError, Scenario
from ecosystem.human import existing_file, expanded
from ecosystem.interventions import KINDS
from ecosystem.scenario import read_toml

_KEYS = ("scenario", "grid", "list", "latin-hypercube", "replicates", "record", "metrics", "seed")
_ERRORS = 5  # mistakes that are told at once

KEPT = "diversity_kept"
"""The metric that is always kept: effective number of outputs, as a share of that of human data."""


@dataclass(frozen=True)
class Design:
    """A base scenario, the settings to vary, and the replicates of each point.

    The points are every combination of the grid's values, the rows of the list and the samples of the Latin
    hypercube, in that order, the last one fastest. All of them are validated when the design is made.

    Parameters
    ----------
    scenario : Scenario or mapping
        The settings that are not varied.
    grid : mapping of setting to sequence of values
        Every combination is a point.
    rows : sequence of mappings of setting to value
        Every row is a point (``[[list]]`` in a file).
    latin_hypercube : mapping of setting to (low, high) or (low, high, "log")
        Settings drawn at random between two bounds, evenly over each (over its logarithm with "log"). A
        setting that allows whole numbers only stays whole.
    samples : int
        Points of the Latin hypercube. One that is drawn twice, as whole numbers may be, counts once.
    replicates : int
        Independent repetitions of every point, with the same random streams at every point.
    record : "last" or "all"
        Whether to keep the last round of a run, or every recorded one.
    metrics : sequence of str, optional
        Metrics to keep, beside ``diversity_kept``; by default all.
    seed : int
        Seed of the Latin hypercube, and of the runs where the scenario gives none.

    Notes
    -----
    A setting is written as for `with_setting`: "temperature", or "interventions.0.fraction".

    Raises
    ------
    InputError
        If anything is not allowed: one line for each mistake, with what was given and what is allowed.
    """

    scenario: Scenario | Mapping[str, Any] = field(default_factory=dict)
    grid: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    rows: Sequence[Mapping[str, Any]] = ()
    latin_hypercube: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    samples: int = 0
    replicates: int = 1
    record: str = "last"
    metrics: Sequence[str] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.scenario, Scenario):
            plain, given = tomllib.loads(self.scenario.to_toml()), self.scenario.model_fields_set
            base = {name: value for name, value in plain.items() if name in given}
        else:
            base = dict(self.scenario)
        self._check_counts()
        self._check_varied()
        object.__setattr__(self, "scenario", {"seed": self.seed} | base)
        self._check_points()
        self._check_metrics()

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "Design":
        """Read a design file; paths in it are relative to the file.

        Raises
        ------
        InputError
            If the file is missing, is not TOML, or holds anything that is not allowed.
        """
        file = existing_file(os.fspath(path))
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} is not TOML: {error}") from None
        for key in given:
            if key not in _KEYS:
                close = difflib.get_close_matches(key, _KEYS, n=1)
                hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(_KEYS)}"
                setting = "; a setting goes into [scenario] or [grid]" if key in Scenario.model_fields else ""
                raise InputError(f"{key} = {reprlib.repr(given[key])}: no part of a design; {hint}{setting}")
        folder = file.parent.resolve()
        scenario = given.get("scenario", {})
        if isinstance(scenario, str):
            scenario = read_toml(folder / expanded(scenario))
        elif not isinstance(scenario, dict):
            raise InputError(f'scenario = {scenario!r}: give a table, [scenario], or a file, "base.toml"')
        for name, kind, form in (("grid", dict, "[grid]"), ("latin-hypercube", dict, "[latin-hypercube]")):
            if not isinstance(given.get(name, {}), kind):
                raise InputError(f"{name} = {reprlib.repr(given[name])}: give a table, {form}")
        rows = given.get("list", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"list = {reprlib.repr(rows)}: give tables of settings, [[list]]")
        cube = dict(given.get("latin-hypercube", {}))
        samples = cube.pop("samples", 0)
        options = {name: given[name] for name in ("replicates", "record", "metrics", "seed") if name in given}
        return cls(
            scenario=located(scenario, folder),
            grid={
                path: [located({path: value}, folder)[path] for value in values]
                if isinstance(values, list)
                else values
                for path, values in _flat(given.get("grid", {})).items()
            },
            rows=[located(_flat(row, keep=Scenario.model_fields), folder) for row in rows],
            latin_hypercube=_flat(cube),
            samples=samples,
            **options,
        )

    def to_toml(self) -> str:
        """Return the design as a file that stands by itself: its paths are absolute."""
        cube = dict(self.latin_hypercube)
        parts: dict[str, Any] = {"replicates": self.replicates, "record": self.record, "seed": self.seed}
        parts |= {"metrics": list(self.metrics)} if self.metrics is not None else {}
        parts |= {"scenario": _plain(self.scenario)}
        parts |= {"grid": _plain(self.grid)} if self.grid else {}
        parts |= {"latin-hypercube": {"samples": self.samples} | _plain(cube)} if cube else {}
        parts |= {"list": [_plain(row) for row in self.rows]} if self.rows else {}
        return tomli_w.dumps(parts)

    # --- what it stands for -----------------------------------------------------------------------

    @property
    def varied(self) -> tuple[str, ...]:
        """The settings that are varied, in the order of the design."""
        in_rows = dict.fromkeys(name for row in self.rows for name in row)
        return (*self.grid, *in_rows, *self.latin_hypercube)

    @cached_property
    def points(self) -> tuple[dict[str, Any], ...]:
        """For every point the settings in which it differs from the base scenario."""
        grid = [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]
        return tuple(
            {**cell, **row, **drawn}
            for cell in grid
            for row in self.rows or [{}]
            for drawn in self._drawn or [{}]
        )

    def at(self, point: int) -> Scenario:
        """Return the scenario of a point."""
        settings: dict[str, Any] = dict(self.scenario)
        for path, value in self.points[point].items():
            settings = with_setting(settings, path, value)
        return Scenario(**settings)

    def values(self, point: int) -> dict[str, Any]:
        """Return the value of every varied setting at a point, where a row leaves it as it was too."""
        settings: dict[str, Any] = dict(self.scenario)
        changes = self.points[point]
        return {path: changes[path] if path in changes else _value(settings, path) for path in self.varied}

    def runs(self) -> Iterator[tuple[int, Scenario, int]]:
        """Yield (point, scenario, replicate) of every run, point by point."""
        for point in range(len(self.points)):
            scenario = self.at(point)
            for replicate in range(self.replicates):
                yield point, scenario, replicate

    def __len__(self) -> int:
        """Return the number of runs."""
        return len(self.points) * self.replicates

    @cached_property
    def _drawn(self) -> list[dict[str, Any]]:
        """The samples of the Latin hypercube."""
        if not self.latin_hypercube:
            return []
        from scipy.stats import qmc

        generator = np.random.default_rng(self.seed)
        unit = qmc.LatinHypercube(len(self.latin_hypercube), seed=generator).random(self.samples)
        columns = []
        for (path, bounds), share in zip(self.latin_hypercube.items(), unit.T, strict=True):
            low, high, log = bounds[0], bounds[1], len(bounds) == 3
            whole = self._is_whole(path, low, high)
            top = high + 1 if whole else high
            x = np.exp(math.log(low) + share * math.log(top / low)) if log else low + share * (top - low)
            columns.append([min(int(v), int(high)) for v in x] if whole else [float(min(v, high)) for v in x])
        distinct = dict.fromkeys(zip(*columns, strict=True))  # whole numbers may be drawn twice
        return [dict(zip(self.latin_hypercube, values, strict=True)) for values in distinct]

    def _is_whole(self, path: str, low: float, high: float) -> bool:
        """Whether a setting takes a whole number between the bounds, and no other number."""
        settings: dict[str, Any] = dict(self.scenario)
        first = {name: values[0] for name, values in self.grid.items()} | dict(next(iter(self.rows), {}))
        for name, setting in first.items():
            settings = with_setting(settings, name, setting)
        return whole_only(lambda value: Scenario(**with_setting(settings, path, value)), low, high)

    # --- checks -----------------------------------------------------------------------------------

    def _check_counts(self) -> None:
        for name, least in (("replicates", 1), ("samples", 0), ("seed", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not least <= value < 2**63:
                raise InputError(f"{name} = {value!r}: allowed: a whole number, {least} or more")
        if self.record not in ("last", "all"):
            raise InputError(f'record = {self.record!r}: allowed: "last" or "all" (rounds)')
        if bool(self.samples) != bool(self.latin_hypercube):
            raise InputError(
                f"latin-hypercube: samples = {self.samples} for {len(self.latin_hypercube)} settings; write "
                "samples = 100 and settings with their bounds, e.g. temperature = [0.5, 1.5]"
            )

    def _check_varied(self) -> None:
        hint = "replicates, record, metrics and seed stand above the first [table] of a design file"
        for path, values in self.grid.items():
            if not isinstance(values, Sequence) or isinstance(values, str) or not values:
                more = f"; {hint}" if path in _KEYS else ""
                raise InputError(
                    f"grid: {path} = {reprlib.repr(values)}: give a list of values, e.g. [0.5, 1.0]{more}"
                )
        for path, bounds in self.latin_hypercube.items():
            try:
                low, high, *scale = bounds
                fine = float(low) < float(high) < math.inf and scale in ([], ["log"])
                fine &= not isinstance(low, str) and -math.inf < low and (not scale or low > 0)
            except (TypeError, ValueError):
                fine = False
            if not fine:
                more = f"; {hint}" if path in _KEYS else ""
                raise InputError(
                    f"latin-hypercube: {path} = {reprlib.repr(bounds)}: give a lower and a higher number, "
                    f'[low, high], or [low, high, "log"] with low above 0{more}'
                )
        for row in self.rows:
            if not isinstance(row, Mapping) or not row:
                raise InputError(f"list: {row!r}: give a table of settings, e.g. {{temperature = 0.8}}")
        in_rows = {name for row in self.rows for name in row}
        for a, b in itertools.combinations((set(self.grid), in_rows, set(self.latin_hypercube)), 2):
            if both := sorted(a & b):
                raise InputError(f"{both[0]} is varied in two parts of the design; leave it in one")

    def _check_points(self) -> None:
        mistakes: dict[str, None] = {}
        seen: dict[str, int] = {}
        for point in range(len(self.points)):
            try:
                digest = self.at(point).digest
            except InputError as error:
                mistakes |= dict.fromkeys(str(error).splitlines())
            else:
                if digest in seen:
                    same = _text(self.points[point])
                    mistakes[f"points {seen[digest]} and {point} ({same}) are the same; remove one"] = None
                seen.setdefault(digest, point)
        if mistakes:
            lines = list(mistakes)
            more = [f"and {len(lines) - _ERRORS} mistakes more"] if len(lines) > _ERRORS else []
            raise InputError("\n".join(lines[:_ERRORS] + more))

    def _check_metrics(self) -> None:
        if self.metrics is None:
            return
        if isinstance(self.metrics, str) or not isinstance(self.metrics, Sequence):
            raise InputError(f'metrics = {self.metrics!r}: give a list of names, e.g. ["hill_1"]')
        for name in self.metrics:
            if name not in metric_names():
                close = difflib.get_close_matches(str(name), metric_names(), n=1)
                hint = f"did you mean {close[0]}?" if close else f"allowed: {', '.join(metric_names())}"
                raise InputError(f"metrics: {name!r} is not a metric; {hint}")


@cache
def metric_names() -> tuple[str, ...]:
    """Every metric that a run has, the same for all scenarios, as the columns of a sweep are called."""
    measured = Ecosystem(Scenario(n_outputs=2, rounds=1)).measured
    providers = measured.providers
    return (KEPT, *providers, *(together(name, providers) for name in measured.population))


def together(name: str, providers: Any) -> str:
    """Return the column of a metric of the population; some have the name of one of the providers."""
    return f"{name}_together" if name in providers else name


# --- settings, however deep -----------------------------------------------------------------------


def with_setting(settings: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return settings with one of them changed.

    Parameters
    ----------
    settings : mapping
        As in a scenario file.
    path : str
        The name of a setting, "temperature"; or, inside a list of tables, the place of a table and a key of
        it, "interventions.0.fraction"; or the table's ``name``, or else its ``kind``, and a key of it,
        "quota.fraction".
    value
        The new value. It is not validated: `Scenario` does that.

    Raises
    ------
    InputError
        If the path leads nowhere, or to several places.
    """
    return _changed(settings, steps_to(settings, path), value)


class AmbiguousError(InputError):
    """A path that leads to several places."""


def steps_to(settings: Mapping[str, Any], path: str) -> list[str | int]:
    """Return the keys and indices that lead to a setting; raises as `with_setting`."""
    if path in settings or "." not in path:
        return [path]
    head, *rest = path.split(".")
    steps: list[str | int] = [head, *rest]
    if head in KINDS or (head not in settings and head not in Scenario.model_fields):
        steps = [*_called(settings, head, path), *rest]
    here: Any = settings
    for place, step in enumerate(steps[:-1]):
        if isinstance(here, Sequence) and not isinstance(here, str):
            if not str(step).isdecimal() or int(step) >= len(here):
                raise InputError(
                    f"{path}: there is no entry {step} among the {len(here)} of {steps[place - 1]}; "
                    "count from 0"
                )
            steps[place] = step = int(step)
            here = here[step]
        elif isinstance(here, Mapping) and step in here:
            here = here[step]
        else:
            raise InputError(
                f"{path}: the base scenario has no {step!r}; add it there, or write another name"
            )
    if not isinstance(here, Mapping):
        raise InputError(f"{path}: {steps[-2]} = {reprlib.repr(here)} is no table, so it has no {steps[-1]}")
    return steps


def _tables(settings: Mapping[str, Any]) -> list[tuple[list[str | int], Mapping[str, Any]]]:
    """Return every table in a list of tables, with its place."""
    return [
        ([key, index], entry)
        for key, entries in settings.items()
        if isinstance(entries, Sequence) and not isinstance(entries, str)
        for index, entry in enumerate(entries)
        if isinstance(entry, Mapping)
    ]


def _called(settings: Mapping[str, Any], word: str, path: str) -> list[str | int]:
    """Find the one table, in a list of tables, whose name or else whose kind is a word."""
    tables = _tables(settings)
    for key in ("name", "kind"):
        found = [place for place, entry in tables if entry.get(key) == word]
        if len(found) == 1:
            return found[0]
        if found:
            rest = path.partition(".")[2]
            places = " or ".join(f"{a}.{b}.{rest}" for a, b in found)
            raise AmbiguousError(
                f"{path}: {len(found)} tables have the {key} {word!r}; write {places}, "
                f"or give one a name of its own and write NAME.{rest}"
            )
    absent = f"the base scenario has no {word} among its interventions; add it there, or write another name"
    raise InputError(f"{path}: {misnamed(path, settings) or absent}")


def misnamed(path: str, *given: Mapping[str, Any]) -> str:
    """Return what is wrong with the name of a setting, and what to type; nothing where it is right.

    Parameters
    ----------
    path : str
        As for `with_setting`.
    *given : mapping
        Settings whose tables may be meant too, beside all kinds of interventions.
    """
    head, _, key = path.partition(".")
    if key and head in KINDS:
        return "" if key in KINDS[head].model_fields else f"{head} has no {key!r}; {_key_of(head, key)[1]}"
    if head in Scenario.model_fields:
        return ""
    if not key:
        if head in KINDS:
            return f"is a kind of intervention; write {head}.KEY: {_key_of(head, '')[1]}"
        close = difflib.get_close_matches(head, Scenario.model_fields, n=1)
        hint = f"did you mean {close[0]}?" if close else "`ecosystem settings` lists them"
        return f"there is no such setting; {hint}"
    tables = [table for settings in given for _, table in _tables(settings)]
    called = {str(table[word]) for table in tables for word in table.keys() & _NAMES}
    close = difflib.get_close_matches(head, sorted(called | KINDS.keys()), n=1)
    near = f"did you mean {close[0]}.{_key_of(close[0], key)[0]}?" if close else ""
    hint = near or f"there are {', '.join(sorted(called) or KINDS)}"
    return f"no table and no kind of intervention is called {head!r}; {hint}"


_NAMES = {"name", "kind"}


def _key_of(kind: str, key: str) -> tuple[str, str]:
    """Return the nearest key of a kind of intervention, or the same; and what to type for it."""
    keys = [name for name in KINDS[kind].model_fields if name not in _NAMES] if kind in KINDS else [key]
    close = difflib.get_close_matches(key, keys, n=1)
    hint = f"did you mean {kind}.{close[0]}?" if close else f"it has {', '.join(keys)}"
    return (close[0] if close else key), hint


def whole_only(scenario_of: Callable[[Any], Any], low: float, high: float) -> bool:
    """Return whether a setting takes a whole number between two bounds, and no other number.

    Parameters
    ----------
    scenario_of : function
        Raises `InputError` for a value that the setting does not take.
    low, high : float
        The bounds.
    """

    def takes(value: float) -> bool:
        try:
            scenario_of(value)
        except InputError:
            return False
        return True

    whole = float(low).is_integer() and float(high).is_integer()
    return whole and not takes(low + 0.5 if high > low else float(low)) and takes(int(low))


def _changed(here: Any, steps: Sequence[str | int], value: Any) -> Any:
    if not steps:
        return value
    if isinstance(steps[0], int):
        return [_changed(entry, steps[1:], value) if i == steps[0] else entry for i, entry in enumerate(here)]
    return {**here, steps[0]: _changed(here.get(steps[0]), steps[1:], value)}


def _value(settings: Mapping[str, Any], path: str) -> Any:
    """Return a setting of the base scenario: the default where it gives none."""
    here: Any = settings
    for step in steps_to(settings, path):
        if isinstance(here, Mapping) and step not in here:
            return getattr(Scenario(**settings), path) if path in Scenario.model_fields else None
        here = here[step]
    return here


def _flat(table: Mapping[str, Any], above: str = "", keep: Any = ()) -> dict[str, Any]:
    """Undo what TOML makes of quota.fraction = [...], a table in a table."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict) and key not in keep:
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def located(settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the paths of text, count and graph files absolute: as they stand they are relative to a folder."""
    settings = dict(settings)
    for name in ("human", "sharing"):
        if isinstance(value := settings.get(name), str) and ":" in value:
            kind, _, target = value.partition(":")
            settings[name] = f"{kind}:{folder / expanded(target)}"
    return settings


def _plain(value: Any) -> Any:
    """Turn what TOML does not know into what it does."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items() if entry is not None}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _text(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {reprlib.repr(value)}" for path, value in changes.items()) or "no change"


def as_cell(value: Any) -> Any:
    """Return a value of a setting as a table holds it: numbers, texts and truth values, else JSON."""
    value = _plain(value)
    return value if isinstance(value, int | float | str | None) else json.dumps(value)
