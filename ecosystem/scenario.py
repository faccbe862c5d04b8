"""A scenario: the complete, frozen, validated description of a run, and its TOML form."""

import difflib
import hashlib
import os
import reprlib
import tomllib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import networkx as nx
import numpy as np
import tomli_w
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainValidator, Strict, ValidationError
from scipy import sparse, special

from ecosystem import human as human_sources
from ecosystem import sharing as sharing_graphs
from ecosystem.errors import InputError
from ecosystem.fields import (
    Count,
    Fraction,
    NonNegative,
    Plain,
    Population,
    Size,
    Temperature,
    setting,
    toml_value,
)
from ecosystem.human import HumanSource
from ecosystem.interventions import KINDS, Intervention, foreseen
from ecosystem.schedules import Schedule
from ecosystem.sharing import EdgeList
from ecosystem.types import Floats

# --- types of the settings ------------------------------------------------------------------------


def _array(value: Any) -> Floats:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.array(np.nan)
    if array.ndim == 0:
        raise ValueError("neither a name nor a list of numbers")
    array.flags.writeable = False
    return array


def _located(value: str) -> str:
    """Make the path of "text:PATH", "counts:PATH", "graph:PATH" or "digraph:PATH" absolute."""
    kind, _, path = value.partition(":")
    return f"{kind}:{human_sources.expanded(path).absolute()}" if path else value


def _human(value: Any) -> str | Floats:
    return _located(value) if isinstance(value, str) else _array(value)


def _initial(value: Any) -> str | Floats:
    if not isinstance(value, str):
        return _array(value)
    if value not in ("human", "sampled"):
        raise ValueError(f"{value!r} is not a start")
    return value


def _sharing(value: Any) -> Any:
    if isinstance(value, nx.Graph):
        return EdgeList.of(value)
    return _located(value) if isinstance(value, str) else value


def _schedule(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("not a text")
    Schedule.parse(value)
    return value


_ONE_OR_LIST = "one, or a list of one per provider"


class Scenario(BaseModel):
    """A complete description of a run. Equal scenarios give equal bits.

    Every setting has a default; ``ecosystem settings`` lists them with what is allowed. Where one
    value per provider is allowed, a list of N numbers may stand for one number.

    Parameters
    ----------
    n_outputs : int, optional
        V, number of possible outputs. By default as many as the human source has, 100 for a named law.
    n_providers : int, optional
        N. By default the nodes of the sharing graph or the length of a per-provider list, else 10.
    temperature : float or sequence of N
        Sampling temperature T from 0 to inf; T = 1 is the trivial one.
    top_k, top_p : int, float, optional
        Truncation after temperature: see `ecosystem.temperature.truncated`.
    fresh_fraction : float or sequence of N
        λ in [0, 1], the chance that an item of a training batch is a fresh human one.
    human : str or array, shape (V,)
        The law of human data: see `ecosystem.human.load`.
    zipf_exponent : float
        Exponent of the "zipf" law.
    sharing : str, networkx graph or EdgeList
        Who reads whom: see `ecosystem.sharing`.
    self_weight : float
        Weight of a provider's own outputs among those it reads.
    outputs_per_round, batch_size : int or sequence of N
        B, items published, and m, items trained on, per provider and round.
    with_replacement : bool
        Whether a batch may hold one published item twice. By default it may not, and asking an author
        for more items than it published is an error.
    schedule : str
        Step sizes a(k): see `ecosystem.schedules`.
    pretraining_size : int
        ℓ(0), items each model was pretrained on.
    initial : str or array, shape (V,) or (N, V)
        Θ(0): "human" (the law h itself), "sampled" (frequencies of pretraining_size human draws) or given.
    training_error : float
        η in [0, 1]: after each update every entry of Θ is moved by up to η at random and Θ is projected
        back onto the simplex.
    rounds : int
        Number of rounds.
    record_every : int
        Metrics are recorded every so many rounds, and always in the first (0) and last.
    corpus_rounds : int
        How many rounds the corpus keeps its items (at least 2).
    mass_k : int
        k of the metric "mass of the top-k outputs".
    seed : int
        Seed of all random streams.
    interventions : sequence of Intervention
        Dated rules, in the order in which they apply: see `ecosystem.interventions`. In TOML an array of
        tables, ``[[interventions]]``.
    price_human_item, price_published_item, price_detector_call, price_curated_item : float
        Prices that make up the recorded ``cost``, in units of the price of one human item.

    Raises
    ------
    InputError
        If any value is not allowed: one line for each, with what was given and what is allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    n_outputs: Annotated[Size | None, Plain] = setting(
        None, "possible outputs V", "a whole number from 1 to 10^9", 1000
    )
    n_providers: Annotated[Population | None, Plain] = setting(
        None, "providers N", "a whole number from 1 to 10^6", 20
    )
    temperature: Annotated[Temperature | tuple[Temperature, ...], Plain] = setting(
        0.8, "sampling temperature T", f"a number from 0 to inf ({_ONE_OR_LIST})"
    )
    top_k: Annotated[Count | None, Plain] = setting(
        None, "draw only from the k most probable outputs", "a whole number, 1 or more", 50
    )
    top_p: Annotated[Annotated[float, Strict(), Field(gt=0, le=1)] | None, Plain] = setting(
        None,
        "draw only from the most probable outputs that hold this share",
        "a number above 0, up to 1",
        0.95,
    )
    fresh_fraction: Annotated[Fraction | tuple[Fraction, ...], Plain] = setting(
        0.1, "share of fresh human items in a batch", f"a number from 0 to 1 ({_ONE_OR_LIST})"
    )
    human: Annotated[str | Floats, PlainValidator(_human)] = setting(
        "zipf", "the law of human data", human_sources.ALLOWED
    )
    zipf_exponent: Annotated[NonNegative, Plain] = setting(
        1.0, 'exponent of the "zipf" law', "a finite number, 0 or more"
    )
    sharing: Annotated[str | EdgeList, BeforeValidator(_sharing)] = setting(
        "small-world", "who reads whom", sharing_graphs.ALLOWED
    )
    self_weight: Annotated[NonNegative, Plain] = setting(
        1.0, "weight of a provider's own outputs", "a finite number, 0 or more"
    )
    outputs_per_round: Annotated[Count | tuple[Count, ...], Plain] = setting(
        100, "items a provider publishes in a round", f"a whole number, 1 or more ({_ONE_OR_LIST})"
    )
    batch_size: Annotated[Count | tuple[Count, ...], Plain] = setting(
        100, "items a provider trains on in a round", f"a whole number, 1 or more ({_ONE_OR_LIST})"
    )
    with_replacement: Annotated[bool, Strict(), Plain] = setting(
        False, "whether a batch may hold one item twice", "true or false"
    )
    schedule: Annotated[str, PlainValidator(_schedule)] = setting(
        "accumulate", "step sizes a(k)", '"accumulate", "replace", "forget:A" or "power:RHO[:C[:K0]]"'
    )
    pretraining_size: Annotated[Count, Plain] = setting(
        1000, "human items a model starts from", "a whole number, 1 or more"
    )
    initial: Annotated[str | Floats, PlainValidator(_initial)] = setting(
        "human", "where the models start", '"human", "sampled", or probabilities of shape (V,) or (N, V)'
    )
    training_error: Annotated[Fraction, Plain] = setting(
        0.0, "largest error of an update, per output", "a number from 0 to 1"
    )
    rounds: Annotated[Count, Plain] = setting(100, "rounds", "a whole number, 1 or more")
    record_every: Annotated[Count, Plain] = setting(1, "rounds between records", "a whole number, 1 or more")
    corpus_rounds: Annotated[int, Strict(), Plain, Field(ge=2, le=2**53)] = setting(
        2, "rounds that the corpus keeps", "a whole number, 2 or more"
    )
    mass_k: Annotated[Count, Plain] = setting(
        10, "k of the mass of the top k outputs", "a whole number, 1 or more"
    )
    seed: Annotated[int, Strict(), Plain, Field(ge=0, lt=2**63)] = setting(
        0, "seed of all random streams", "a whole number from 0 to 2^63 - 1"
    )
    interventions: Annotated[tuple[Intervention, ...], Plain] = setting(
        (), "dated rules", "a list of tables, each with a kind", [{"kind": "quota", "fraction": 0.3}]
    )
    price_human_item: Annotated[NonNegative, Plain] = setting(
        1.0, "price of a human item in a batch", "a finite number, 0 or more"
    )
    price_published_item: Annotated[NonNegative, Plain] = setting(
        0.0, "price of a published item", "a finite number, 0 or more"
    )
    price_detector_call: Annotated[NonNegative, Plain] = setting(
        0.0, "price of checking one item with a detector", "a finite number, 0 or more"
    )
    price_curated_item: Annotated[NonNegative, Plain] = setting(
        0.0, "price of scoring one candidate", "a finite number, 0 or more"
    )

    def __init__(self, **settings: Any) -> None:
        self._accept(settings)
        self._check()

    def _accept(self, settings: Mapping[str, Any]) -> None:
        """Validate every setting by itself; one line of error for each that is wrong."""
        try:
            super().__init__(**settings)
        except ValidationError as error:
            # A number-or-list has one error for each of the two; the last names the entry of a list.
            lines = {_where(detail): _explain(detail, settings) for detail in error.errors()}
            raise InputError("\n".join(lines.values())) from None

    def _check(self) -> None:
        """Fill in the numbers of outputs and providers, and check the settings against each other."""
        with _naming("human", self.human):
            self.__dict__["n_outputs"] = self.source.law.size
        lists = {name: getattr(self, name) for name in PER_PROVIDER if isinstance(getattr(self, name), tuple)}
        if self.n_providers is None and lists and self.sharing in sharing_graphs.TOPOLOGIES:
            self.__dict__["n_providers"] = len(next(iter(lists.values())))
        with _naming("sharing", self.sharing):
            if not (self.n_providers and self.sharing in sharing_graphs.TOPOLOGIES):
                self.__dict__["n_providers"] = len(self.graph)
        for name, value in lists.items():
            if len(value) != self.n_providers:
                raise InputError(
                    f"{name} = {reprlib.repr(list(value))}: has {len(value)} values for "
                    f"{self.n_providers} providers; give one number, or one per provider"
                )
        self._check_initial()
        self._check_interventions()
        self._check_supply()

    def _check_initial(self) -> None:
        if isinstance(self.initial, str):
            return
        shapes = [(self.n_outputs,), (self.n_providers, self.n_outputs)]
        with _naming("initial", self.initial):
            if self.initial.shape not in shapes:
                raise InputError(f"shape {self.initial.shape}; allowed: {shapes[0]} or {shapes[1]}")
            if not (np.isfinite(self.initial).all() and (self.initial >= 0).all()):
                raise InputError("probabilities are finite and not negative")
            worst = np.abs(self.initial.sum(axis=-1) - 1).max()
            if worst > 1e-6:
                raise InputError(f"the probabilities sum to 1 ± {worst:.3g}: divide each row by its sum")

    def _check_interventions(self) -> None:
        for index, intervention in enumerate(self.interventions):
            try:
                intervention.check(self)
            except InputError as error:
                raise InputError(f"interventions[{index}].{error}") from None
        for period in foreseen(self, ramps=False) if self.interventions else ():
            if not period.rules.active.any():
                raise InputError(
                    f"interventions: nobody is there in round {period.first}; let one provider stay"
                )

    def _check_supply(self) -> None:
        """Refuse a run in which readers are likely to ask an author for more than it published."""
        fresh, batch = self.per_provider("fresh_fraction"), self.per_provider("batch_size")
        supply = self.per_provider("outputs_per_round")
        if self.self_weight == 0:
            entries = self.W.tocoo()
            reader, author = entries.coords
            lone = np.setdiff1d(np.flatnonzero(fresh < 1), reader)
            if lone.size:
                raise InputError(
                    f"self_weight = {self.self_weight}: provider {lone[0]} reads no one, not even itself, "
                    "but trains on synthetic items; write self_weight = 1.0, or fresh_fraction = 1.0"
                )
        if self.with_replacement or batch.max() <= supply.min():
            return
        enough, worst_risk, worst = 1.0, 0.0, ""
        for first, last, rules in foreseen(self, ramps=False):
            entries = rules.W.tocoo()
            reader, author = entries.coords
            there = rules.active[reader]
            reader, author = reader[there], author[there]
            demand = (1 - rules.fresh_fraction[reader]) * entries.data[there]
            # The number of a batch's slots that fall to one author is binomial.
            slots = rules.batch_size[reader]
            kept = supply[author] * min(rules.window, first)
            risk = special.bdtrc(np.minimum(kept, slots), slots, demand)
            enough *= float(np.prod(1 - risk) ** float(last - first + 1))
            if risk.max() > worst_risk:
                at = int(np.argmax(risk))
                i, j, worst_risk = int(reader[at]), int(author[at]), float(risk[at])
                when = f"from round {first} on, " if first > 1 else ""
                worst = (
                    f"batch_size = {slots[at]}: {when}provider {i} would draw about "
                    f"{slots[at] * demand[at]:.0f} items a round of author {j}, who publishes "
                    f"outputs_per_round = {supply[j]:.0f}; "
                    "publish more, train on fewer, or write with_replacement = true"
                )
        if 1 - enough > 0.01:
            raise InputError(worst)

    # --- what the settings stand for --------------------------------------------------------------

    def settings(self) -> dict[str, Any]:
        """Return every setting by name."""
        return {name: getattr(self, name) for name in Scenario.model_fields}

    def per_provider(self, name: str) -> Floats:
        """Return a setting as one number per provider, shape (N,)."""
        values = np.asarray(getattr(self, name), dtype=np.float64)
        return np.broadcast_to(values, (int(self.n_providers or 0),))

    @cached_property
    def source(self) -> HumanSource:
        """The human source: the law h with its labels and origin."""
        return human_sources.load(self.human, self.n_outputs, self.zipf_exponent)

    @cached_property
    def graph(self) -> nx.Graph:
        """The sharing graph, nodes in provider order; the same for every replicate."""
        return sharing_graphs.build(self.sharing, self.n_providers, self.seed)

    @cached_property
    def reading(self) -> sparse.csr_array:
        """The weights of W before its rows are divided by their sums, shape (N, N)."""
        return sharing_graphs.reading(self.graph, self.self_weight)

    @cached_property
    def W(self) -> sparse.csr_array:  # noqa: N802 - the paper's letter
        """W, shape (N, N): W[i, j] is the share of provider i's synthetic data that j wrote."""
        return sharing_graphs.normalised(self.reading.copy())

    # --- scenarios as values ----------------------------------------------------------------------

    def replace(self, **changes: Any) -> "Scenario":
        """Return a scenario with other values for some settings, validated anew."""
        return Scenario(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a validated copy (pydantic's own would keep what was computed from the old values)."""
        return self.replace(**(update or {}))  # type: ignore[return-value]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all settings, in hexadecimal; files count by their path."""
        sha = hashlib.sha256()
        for name, value in self.settings().items():
            shape = value.shape if isinstance(value, np.ndarray) else ""
            sha.update(f"{name}{shape}=".encode())
            sha.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
            sha.update(b"\n")
        return sha.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scenario) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        fields = (name for name in Scenario.model_fields if name in self.model_fields_set)
        given = (f"{name}={reprlib.repr(getattr(self, name))}" for name in fields)
        return f"Scenario({', '.join(given)})"

    __str__ = __repr__

    # --- TOML -------------------------------------------------------------------------------------

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str], **changes: Any) -> "Scenario":
        """Read a scenario file; paths in it are relative to the file.

        Parameters
        ----------
        path : path
            A TOML file with settings as its top-level keys.
        **changes
            Settings that replace those of the file.

        Raises
        ------
        InputError
            If the file is missing, is not TOML, or holds a value that is not allowed.
        """
        return cls(**read_toml(path) | changes)

    @classmethod
    def recorded(cls, path: str | os.PathLike[str]) -> "Scenario":
        """Read the scenario of a finished run: the text or graph files it names need not be there."""
        scenario = cls.__new__(cls)
        scenario._accept(read_toml(path))
        return scenario

    def to_toml(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return all settings as TOML, and write them to ``path`` if one is given."""
        settings = {name: _to_toml(value) for name, value in self.settings().items() if value is not None}
        text = tomli_w.dumps(settings)
        if path is not None:
            write_atomically(Path(path), text.encode())
        return text


PER_PROVIDER = ("temperature", "fresh_fraction", "outputs_per_round", "batch_size")


def _to_toml(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, EdgeList):
        return {"directed": value.directed, "nodes": value.nodes, "edges": value.edges}
    if isinstance(value, BaseModel):
        return {name: entry for name, entry in value.model_dump().items() if entry is not None}
    if isinstance(value, tuple):
        return [_to_toml(entry) for entry in value]
    return value


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a scenario file as they stand, its paths made absolute."""
    file = human_sources.existing_file(os.fspath(path))
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not TOML: {error}") from None
    for name in ("human", "sharing"):
        if isinstance(value := settings.get(name), str) and ":" in value:
            kind, _, target = value.partition(":")
            settings[name] = f"{kind}:{file.parent.resolve() / human_sources.expanded(target)}"
    return settings


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file under a temporary name beside it and rename it: it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


# --- errors in one line ---------------------------------------------------------------------------


class _naming:  # noqa: N801 - reads as a statement: with _naming("human", value)
    """Put the name and value of a setting before the message of an `InputError`."""

    def __init__(self, name: str, value: Any) -> None:
        self.given = f"{name} = {reprlib.repr(_to_toml(value))}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, InputError):
            raise InputError(f"{self.given}: {error}") from None


def _where(detail: Any) -> tuple[Any, ...]:
    """Return what one line of error is about: a setting, or one of the interventions."""
    return detail["loc"][: 2 if detail["loc"][0] == "interventions" else 1]


def _explain(detail: Any, settings: Mapping[str, Any]) -> str:
    """Return one line: what was given, what is allowed, what to type."""
    name = str(detail["loc"][0])
    fields = Scenario.model_fields
    if name not in fields:
        close = difflib.get_close_matches(name, fields, n=1)
        hint = f"did you mean {close[0]}?" if close else "`ecosystem settings` lists them"
        return f"{name} = {reprlib.repr(settings[name])}: there is no such setting; {hint}"
    if name == "interventions" and len(detail["loc"]) > 1:
        return _explain_intervention(detail)
    extra: Any = fields[name].json_schema_extra
    entry = next((f" (entry {part})" for part in detail["loc"][1:] if isinstance(part, int)), "")
    given = f"{name} = {reprlib.repr(_to_toml(settings[name]))}{entry}"
    if isinstance(reason := detail.get("ctx", {}).get("error"), InputError):
        return f"{given}: {reason}"
    return f"{given}: allowed: {extra['allowed']}; e.g. {name} = {toml_value(extra['example'])}"


def _explain_intervention(detail: Any) -> str:
    where = f"interventions[{detail['loc'][1]}]"
    if isinstance(reason := detail.get("ctx", {}).get("error"), InputError):
        return "\n".join(f"{where}.{line}" for line in str(reason).splitlines())
    kinds = ", ".join(f'"{kind}"' for kind in KINDS)
    given = detail["input"]
    if not isinstance(given, Mapping):
        return f"{where} = {given!r}: give a table with a kind; allowed: {kinds}"
    kind = f"kind = {reprlib.repr(given['kind'])}: is not a kind" if "kind" in given else "kind is missing"
    close = difflib.get_close_matches(str(given.get("kind")), KINDS, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{where}.{kind}; {hint}allowed: {kinds}"


def parse_setting(text: str) -> tuple[str, Any]:
    """Read ``key=value`` as the command line gives it: the value is TOML, or else plain text."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise InputError(f"{text!r} is not a setting; write key=value, e.g. temperature=0.8")
    try:
        settings = tomllib.loads(f"x = {value}")
    except (ValueError, RecursionError):
        settings = {}
    return name.strip(), settings["x"] if list(settings) == ["x"] else value.strip()
