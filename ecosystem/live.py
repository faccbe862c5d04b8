"""Changing an ecosystem while it runs, so that its scenario goes on describing it exactly."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import networkx as nx
import numpy as np

from ecosystem.agents import Provider
from ecosystem.errors import InputError
from ecosystem.interventions import BaseIntervention, Entry, Rules
from ecosystem.scenario import PER_PROVIDER
from ecosystem.sharing import EdgeList, own_if_nobody

if TYPE_CHECKING:
    from ecosystem.model import Ecosystem

Neighbours = Iterable[int] | Mapping[int, float]


def intervene(eco: "Ecosystem", intervention: BaseIntervention) -> None:
    """Put an intervention in force from the next round on; see `Ecosystem.intervene`."""
    if not isinstance(intervention, BaseIntervention):
        raise InputError(f"intervention = {intervention!r}: give one, e.g. Quota(fraction=0.3)")
    if isinstance(intervention, Entry):
        raise InputError("entry: a provider that was there from the beginning cannot enter; use add_provider")
    if intervention.start <= eco.round:
        intervention = intervention.replace(start=eco.round + 1)
    config = eco.config.replace(interventions=(*eco.config.interventions, intervention))
    if eco.compiled is not None:
        from ecosystem.engine.rounds import whole_laws

        if whole_laws(config) and not whole_laws(eco.config):
            raise InputError('temperature 0: put in force during a run it needs engine = "agents"')
    eco.config = config


def add_provider(
    eco: "Ecosystem", reads: Neighbours = (), read_by: Neighbours = (), **settings: Any
) -> Provider:
    """Let a provider enter from the next round on; see `Ecosystem.add_provider`."""
    if eco.compiled is not None:
        raise InputError('engine = "compiled": the number of providers is fixed; write engine = "agents"')
    config, index = eco.config, len(eco.rules.active)
    wrong = settings.keys() - {*PER_PROVIDER, "initial"}
    if wrong:
        raise InputError(f"{min(wrong)}: is no setting of one provider; allowed: {', '.join(PER_PROVIDER)}")
    graph = _grown(eco.G, index, _weights(reads, index), _weights(read_by, index))
    changes: dict[str, Any] = {"sharing": EdgeList.of(graph), "n_providers": index + 1}
    for name in PER_PROVIDER:
        values = getattr(config, name)
        if name in settings or isinstance(values, tuple):
            values = values if isinstance(values, tuple) else (values,) * index
            if name not in settings:
                raise InputError(f"{name}: every provider has its own; give that of the new one")
            changes[name] = (*values, settings[name])
    if isinstance(config.initial, str):
        if "initial" in settings:
            raise InputError(f"initial: the scenario starts all from {config.initial!r}; leave it out")
    elif config.initial.ndim == 2 or "initial" in settings:
        if "initial" not in settings:
            raise InputError("initial: every provider has its own; give that of the new one, shape (V,)")
        rows = np.broadcast_to(config.initial, (index, config.initial.shape[-1]))
        changes["initial"] = np.vstack([rows, settings["initial"]])
    entry = Entry(providers=(index,), start=eco.round + 1)
    eco.config = config.replace(**changes, interventions=(*config.interventions, entry))
    eco.G = eco.config.graph
    eco.sharing = own_if_nobody(eco.config.W)
    there = np.append(eco.rules.active, False)
    eco.rules = replace(Rules.of(eco.config, W=eco.sharing), human=eco.rules.human, active=there)
    eco.entered = np.append(eco.entered, False)
    provider = Provider(eco, index, eco.pretrained(index))
    eco.deregister_agent(provider)  # until the next round
    eco.providers.append(provider)
    return provider


def _weights(neighbours: Neighbours, n: int) -> dict[int, float]:
    weights = dict(neighbours) if isinstance(neighbours, Mapping) else dict.fromkeys(neighbours, 1.0)
    if wrong := [index for index in weights if index not in range(n)]:
        raise InputError(f"there is no provider {wrong[0]}; allowed: 0 to {n - 1}")
    return weights


def _grown(graph: nx.Graph, index: int, reads: dict[int, float], read_by: dict[int, float]) -> nx.Graph:
    """Return the sharing graph with one node more; directed if the new one's edges are."""
    grown = graph.to_directed() if reads != read_by else graph.copy()
    nodes = list(grown.nodes)
    name = index
    while name in grown:
        name += 1
    grown.add_node(name)
    for other, weight in reads.items():
        grown.add_edge(nodes[other], name, weight=weight)
    for other, weight in read_by.items():
        grown.add_edge(name, nodes[other], weight=weight)
    return grown
