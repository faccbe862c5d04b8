"""What is recorded of a round, and Mesa's collector of it."""

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import mesa
import numpy as np
import pandas as pd

from ecosystem import metrics
from ecosystem.types import Floats

if TYPE_CHECKING:
    from ecosystem.agents import Provider
    from ecosystem.model import Ecosystem


class Measurement(NamedTuple):
    """The metrics of one round (formulas in `ecosystem.metrics`).

    Attributes
    ----------
    providers : dict of str to ndarray, shape (N,)
        Metrics of every provider; NaN for those that do not take part.
    population : dict of str to float
        Metrics of the mean law (``_of_mean``), of everything published together, of the providers
        against each other, all over the providers that take part; the synthetic share of the corpus; and
        what has been used since the beginning, with its cost (`ecosystem.ledger`).
    """

    providers: dict[str, Floats]
    population: dict[str, float]


def measure(eco: "Ecosystem", before: Floats) -> Measurement:
    """Measure an ecosystem; ``before`` is Θ of the round before, shape (N, V).

    In round 0 nothing is published yet, and the self-similarity is that of human data, Σh².
    """
    human, mass_k = eco.human, eco.config.mass_k
    rows = [row for row, provider in enumerate(eco.providers) if eco.rules.active[provider.index]]
    theta, before = eco.distributions[rows], before[rows]
    if eco.round == 0:
        alike = np.full(len(theta), (human**2).sum())
        published = {"self_similarity": alike, "self_similarity_previous": alike}
        together = {name: values[0] for name, values in published.items()}
    else:
        now = _counts(eco, eco.round)
        previous = _counts(eco, eco.round - 1) if eco.round > 1 else np.tile(human, (len(now), 1))
        published = metrics.of_publications(now, previous)
        together = metrics.of_publications(now.sum(axis=0), previous.sum(axis=0))
    of_mean = metrics.of_laws(theta.mean(axis=0), before.mean(axis=0), human, mass_k)
    population = {f"{name}_of_mean": float(value) for name, value in of_mean.items()}
    population |= {name: float(value) for name, value in together.items()}
    population |= metrics.of_providers(theta)
    population["synthetic_share"] = eco.corpus.synthetic_share
    population |= eco.ledger.columns(eco.config)
    providers = metrics.of_laws(theta, before, human, mass_k) | published
    return Measurement({name: _spread(values, eco) for name, values in providers.items()}, population)


def _spread(values: Floats, eco: "Ecosystem") -> Floats:
    """Put one value per active provider into an array of one per provider, shape (N,)."""
    spread = np.full(len(eco.rules.active), np.nan)
    spread[[provider.index for provider in eco.active_providers]] = values
    return spread


def _counts(eco: "Ecosystem", round: int) -> np.ndarray:
    """How often each active provider published each output in a round, shape (active, V)."""
    published = (eco.corpus.published(provider.index, round) for provider in eco.active_providers)
    return np.stack([np.bincount(items, minlength=eco.human.size) for items in published])


def collector(measured: Measurement) -> mesa.DataCollector:
    """Return a Mesa DataCollector of everything in a measurement."""
    return mesa.DataCollector(
        model_reporters={"round": _round}
        | {name: partial(_of_population, name=name) for name in measured.population},
        agent_reporters={"round": _round_of, "provider": _index}
        | {name: partial(_of_provider, name=name) for name in measured.providers},
    )


def tables(eco: "Ecosystem", replicate: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return what was collected: a row per round and provider that took part, and a row per round."""
    providers = eco.datacollector.get_agent_vars_dataframe()
    providers = providers.sort_values(["round", "provider"], kind="stable").reset_index(drop=True)
    population = eco.datacollector.get_model_vars_dataframe().reset_index(drop=True)
    for table in (providers, population):
        table.insert(0, "replicate", replicate)
    return providers, population


# Reporters are functions of this module, not lambdas, so that an ecosystem pickles.


def _round(eco: "Ecosystem") -> int:
    return eco.round


def _of_population(eco: "Ecosystem", name: str) -> float:
    return eco.measured.population[name]


def _round_of(provider: "Provider") -> int:
    return provider.model.round


def _index(provider: "Provider") -> int:
    return provider.index


def _of_provider(provider: "Provider", name: str) -> float:
    return float(provider.model.measured.providers[name][provider.index])
