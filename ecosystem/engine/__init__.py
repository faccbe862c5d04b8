"""The round, compiled: for many providers and replicates. Which scenarios it covers, and when it compiles.

A scenario with far more items a round than outputs is run in counts (`ecosystem.engine.counts`): the same
law, other draws. Everywhere else both engines take the same uniforms from the same keyed streams and invert
the same cumulative laws, so they agree draw for draw (up to a uniform that falls within rounding error of the
boundary between two outputs).
"""

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ecosystem.errors import InputError

if TYPE_CHECKING:
    from ecosystem.engine.rounds import Rounds
    from ecosystem.scenario import Scenario

ENGINES = ("auto", "agents", "compiled")
_LARGEST_TABLES = 2**31
"""Bytes that the tempered initial laws of all different temperatures may take."""


def chosen(scenario: "Scenario", engine: str) -> str:
    """Return the engine that runs a scenario: "agents" or "compiled".

    "auto" is the compiled engine wherever it covers the scenario. Where it does not, a warning says why, and
    the answer is "agents".

    Raises
    ------
    InputError
        If there is no such engine.
    """
    if engine not in ENGINES:
        raise InputError(f'engine = {engine!r}: allowed: "auto", "agents" or "compiled"')
    if engine == "agents":
        return engine
    if reason := not_covered(scenario):
        warnings.warn(f"the compiled engine does not cover {reason}: running the agents", stacklevel=3)
        return "agents"
    return "compiled"


def not_covered(scenario: "Scenario") -> str:
    """Return what the compiled engine does not cover in a scenario; empty where it covers it all."""
    temperatures = np.unique(scenario.per_provider("temperature")).size
    tables = temperatures * scenario.source.law.size * 24
    if tables > _LARGEST_TABLES:
        return (
            f"{temperatures} different temperatures for {scenario.n_outputs} outputs "
            f"({tables / 2**30:.0f} GiB of tables)"
        )
    return ""


def rounds_of(scenario: "Scenario") -> "type[Rounds]":
    """Return what runs a scenario's rounds: item by item, or in counts where there are far more items."""
    from ecosystem.engine.counts import CountedRounds, counted
    from ecosystem.engine.rounds import Rounds

    return CountedRounds if counted(scenario) else Rounds


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def announce(scenario: "Scenario | None" = None) -> None:
    """Say that the engine is about to be compiled for a scenario, if it is not in the cache on disk yet."""
    from ecosystem.engine import kernels
    from ecosystem.engine.rounds import Rounds, whole_laws

    name = "turns"
    if scenario is not None:
        if rounds_of(scenario) is not Rounds:
            return  # in counts: compiles next to nothing
        name = "mix" if whole_laws(scenario) else "turns"
    kernel = getattr(kernels, name)
    if not kernel.signatures and not any(Path(kernel.stats.cache_path).glob(f"kernels.{name}-*.nbi")):
        print("compiling the engine, once on this machine (half a minute) ...", file=sys.stderr, flush=True)
