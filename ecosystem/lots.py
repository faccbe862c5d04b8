"""Replicates that are run together, by either engine: what `run`, sweeps and comparisons advance."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ecosystem.engine import chosen, rounds_of
from ecosystem.laws import SparseLaws
from ecosystem.model import Ecosystem
from ecosystem.recording import tables
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

DENSE = 2**31
"""Final distributions that would take more bytes than this stay sparse."""
_ROWS = 200_000
"""Most providers, over all replicates, that are run at the same time."""
_NUMBERS = 2**27
"""Most outputs × replicates (of populations), and items × providers, at the same time."""


class Part(NamedTuple):
    """What some replicates gave: two tables, Θ of shape (replicates, N, V), and the rounds they ran."""

    replicates: range
    table: pd.DataFrame
    population: pd.DataFrame
    final: Floats | SparseLaws
    rounds: int


class Lot(ABC):
    """Some replicates of a scenario, advanced together round by round. Pickles in the middle of a run.

    Attributes
    ----------
    scenario : Scenario
        What is run.
    replicates : range
        Which repetitions.
    """

    scenario: Scenario
    replicates: range

    @property
    @abstractmethod
    def round(self) -> int:
        """Rounds done."""

    @abstractmethod
    def advance(self) -> None:
        """Run the next round, or the next few where nobody looks in between."""

    @abstractmethod
    def part(self, dense: bool = True) -> Part:
        """Return what came out so far; with ``dense = False`` as it is stored, where it is sparse."""

    @property
    def running(self) -> bool:
        """Whether there are rounds left."""
        return self.round < self.scenario.rounds


class AgentsLot(Lot):
    """One replicate, by Mesa agents."""

    def __init__(self, scenario: Scenario, replicates: range) -> None:
        self.scenario, self.replicates = scenario, replicates[:1]
        self.eco = Ecosystem(scenario, replicate=replicates.start)

    @property
    def round(self) -> int:
        """Rounds done."""
        return self.eco.round

    def advance(self) -> None:
        """Run the next round."""
        self.eco.step()

    def part(self, dense: bool = True) -> Part:
        """Return what came out so far."""
        recorded = tables(self.eco, self.replicates.start)
        return Part(self.replicates, *recorded, self.eco.distributions[None], self.eco.round)


class CompiledLot(Lot):
    """As many replicates as fit, by compiled kernels."""

    def __init__(self, scenario: Scenario, replicates: range, threads: int = 1) -> None:
        n = int(scenario.n_providers or 0)
        size = scenario.source.law.size
        batch = int(
            scenario.per_provider("batch_size").sum() + scenario.per_provider("outputs_per_round").sum()
        )
        most = min(_ROWS // n, _NUMBERS // min(batch, n * size), _NUMBERS // size if n > 1 else _ROWS)
        self.scenario, self.replicates = scenario, replicates[: max(1, most)]
        self.rounds = rounds_of(scenario)(scenario, self.replicates, threads)
        self._recorded: list[tuple[Any, ...]] = []
        self._record()

    @property
    def round(self) -> int:
        """Rounds done."""
        return self.rounds.round

    def advance(self) -> None:
        """Run the next round, or the next few where none of them is recorded."""
        self.rounds.advance()
        if self.rounds.recorded(self.round):
            self._record()

    def _record(self) -> None:
        there = self.rounds.laws.active.reshape(len(self.replicates), -1)
        self._recorded.append((self.round, there.copy(), *self.rounds.measured))

    def part(self, dense: bool = True) -> Part:
        """Return what came out so far."""
        from ecosystem.engine.sparse import SparseState

        laws = self.rounds.laws
        thin = not dense and isinstance(laws, SparseState)
        final = laws.final() if thin and isinstance(laws, SparseState) else self.rounds.distributions
        return Part(self.replicates, *self._tables(), final, self.round)

    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        from ecosystem.engine.rounds import POPULATION_COLUMNS, PROVIDER_COLUMNS

        rounds = np.array([record[0] for record in self._recorded])
        # Axes: replicate, round, (provider,) column.
        there, providers, population = (
            np.stack([record[part] for record in self._recorded], axis=1) for part in (1, 2, 3)
        )
        replicates, k, n = there.shape
        here = there.ravel()
        number = np.repeat(np.arange(self.replicates.start, self.replicates.stop), k)
        table = pd.DataFrame(
            providers.reshape(-1, len(PROVIDER_COLUMNS))[here], columns=list(PROVIDER_COLUMNS)
        )
        table.insert(0, "replicate", np.repeat(number, n)[here])
        table.insert(1, "round", np.tile(np.repeat(rounds, n), replicates)[here])
        table.insert(2, "provider", np.tile(np.arange(n), replicates * k)[here])
        of_all = pd.DataFrame(
            population.reshape(-1, len(POPULATION_COLUMNS)), columns=list(POPULATION_COLUMNS)
        )
        of_all.insert(0, "replicate", number)
        of_all.insert(1, "round", np.tile(rounds, replicates))
        return table, of_all


def lot(scenario: Scenario, replicates: range, engine: str = "auto", threads: int = 1) -> Lot:
    """Return a lot that runs the first of some replicates: as many as the engine takes at a time.

    Parameters
    ----------
    scenario : Scenario
        What to run.
    replicates : range
        Which repetitions are wanted.
    engine : str
        "auto", "agents" or "compiled".
    threads : int
        Threads of the compiled engine.
    """
    if chosen(scenario, engine) == "compiled":
        return CompiledLot(scenario, replicates, threads)
    return AgentsLot(scenario, replicates)


def run_lots(scenario: Scenario, replicates: range, engine: str = "auto", threads: int = 1) -> list[Part]:
    """Run some replicates from the first round to the last, one lot after the other."""
    parts: list[Part] = []
    while replicates:
        ahead = lot(scenario, replicates, engine, threads)
        while ahead.running:
            ahead.advance()
        parts.append(ahead.part())
        replicates = replicates[len(ahead.replicates) :]
    return parts


def merged(lots: list[Part]) -> dict[str, Any]:
    """Return the tables and final distributions of parts together, by their names in a `Trajectory`."""
    finals = [part.final for part in lots]
    thin = [final for final in finals if isinstance(final, SparseLaws)]
    return {
        "table": pd.concat([part.table for part in lots], ignore_index=True),
        "population": pd.concat([part.population for part in lots], ignore_index=True),
        "final": SparseLaws.joined(thin) if thin else np.concatenate([np.asarray(final) for final in finals]),
    }
