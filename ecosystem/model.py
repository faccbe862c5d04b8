"""The Mesa model: providers that share a corpus, one round at a time."""

import inspect
from dataclasses import replace
from typing import Any

import mesa
import numpy as np

from ecosystem import live
from ecosystem.agents import Provider
from ecosystem.corpus import Corpus
from ecosystem.errors import InputError
from ecosystem.generative import Categorical
from ecosystem.interventions import BaseIntervention, Exit, RuleBook, Rules, active_in
from ecosystem.ledger import Ledger
from ecosystem.live import Neighbours
from ecosystem.mixing import Mixing
from ecosystem.observing import View
from ecosystem.randomness import Decision, Streams, sample
from ecosystem.recording import collector, measure
from ecosystem.scenario import PER_PROVIDER, Scenario
from ecosystem.schedules import Schedule
from ecosystem.sharing import own_if_nobody
from ecosystem.types import Floats


class Ecosystem(mesa.Model):
    """A population of providers that train on each other's output and on human data.

    One `step` is one round (Marchi et al., arXiv:2404.02325, extended to a population), under the rules that
    the interventions in force leave of the scenario (`ecosystem.interventions.rules_in_force`):

    1. publish: provider j draws B_j items from τ_{T_j}(Θ_j) and puts them into the corpus;
    2. mix: provider i gathers m_i items, each human with probability λ_i, else written by provider j
       with probability W_ij (`ecosystem.mixing.Mixing`);
    3. retrain: Θ_i ← Θ_i + a_i(k) (freq_i − Θ_i).

    All providers act at once on last round's Θ.

    Parameters
    ----------
    scenario : Scenario, optional
        What to run; `Scenario()` by default.
    rng : int, optional
        Seed, as Mesa's tools pass it; replaces the scenario's.
    replicate : int, optional
        Which independent repetition of the scenario this is; 0 by default.
    **settings
        Settings that replace those of the scenario, so that Mesa's batch runs and sliders work. In a batch
        run sweep ``replicate`` or ``rng``: mere ``iterations`` would repeat one and the same run.

    Attributes
    ----------
    config : Scenario
        The scenario (Mesa keeps the name ``scenario`` for itself).
    round : int
        Rounds done.
    providers : list of Provider
        In the order of every array per provider.
    corpus : Corpus
        What has been published.
    ledger : Ledger
        What has been used and paid for.
    G : networkx graph
        The sharing graph.
    sharing : scipy.sparse.csr_array, shape (N, N)
        W.
    human : ndarray, shape (V,)
        The law of human data h.
    labels : tuple of str, or None
        What each output is, where the human source knows.
    rules : Rules
        What holds in the round that runs: the scenario after the interventions in force.
    measured : Measurement
        The metrics of the last recorded round.
    datacollector : mesa.DataCollector
        All recorded rounds.
    """

    def __init__(
        self,
        scenario: Scenario | None = None,
        *,
        rng: int | None = None,
        replicate: int | None = None,
        **settings: Any,
    ) -> None:
        if not isinstance(scenario, Scenario | None):
            raise InputError(f"scenario = {scenario!r}: give a Scenario, or its settings as keywords")
        if not isinstance(replicate, int | np.integer | None) or (replicate or 0) < 0:
            raise InputError(f"replicate = {replicate!r}: allowed: a whole number, 0 or more")
        changes = {name: value for name, value in settings.items() if value is not None}
        if rng is not None:
            changes["seed"] = rng
        config = scenario or Scenario()
        if changes:
            config = config.replace(**changes)
        super().__init__(rng=config.seed)
        self.config = config
        self.streams = Streams(config.seed, int(replicate or 0))
        self.schedule = Schedule.parse(config.schedule)
        self.human = config.source.law
        self.labels = config.source.labels
        self.G = config.graph
        self.sharing = own_if_nobody(config.W)
        n = self.sharing.shape[0]
        self.corpus = Corpus(config.corpus_rounds)
        self.ledger = Ledger(np.zeros(self.human.size, dtype=np.int64))
        self.round = 0
        self.providers = [Provider(self, index, self.pretrained(index)) for index in range(n)]
        self.rules = self._base = Rules.of(config, W=self.sharing)
        self._book = RuleBook(config)
        self.entered = np.zeros(n, dtype=bool)
        self._follow(replace(self.rules, active=active_in(config.interventions, 1, n)))
        _release(self)
        self.measured = measure(self, before=self.distributions)
        self.datacollector = collector(self.measured)
        self.datacollector.collect(self)

    def step(self) -> None:
        """Run one round."""
        before = self.distributions
        self._follow(self._rules_in_force())
        self.round += 1
        active = self.active_providers
        for provider in active:
            provider.publish()
        batches = [provider.mix() for provider in active]
        for provider, batch in zip(active, batches, strict=True):
            provider.retrain(batch)
        self.ledger.enter(self.rules, batches)
        if self.round % self.config.record_every == 0 or self.round == self.config.rounds:
            self.measured = measure(self, before)
            self.datacollector.collect(self)
        self.running = self.round < self.config.rounds

    def intervene(self, intervention: BaseIntervention) -> None:
        """Put an intervention in force, from the next round on if its ``start`` is no later.

        It is added to ``config``, so that a new run of ``config`` gives the same bits as this one.

        Raises
        ------
        InputError
            If it does not fit the scenario. Nothing has changed then.
        """
        live.intervene(self, intervention)

    def add_provider(self, reads: Neighbours = (), read_by: Neighbours = (), **settings: Any) -> Provider:
        """Let a new provider enter, from the next round on.

        In ``config`` the sharing graph becomes an edge list with one node more, and an `Entry` is added, so
        that a new run of ``config`` gives the same bits as this one.

        Parameters
        ----------
        reads, read_by : iterable of int, or mapping of int to float
            Whom it reads and who reads it, by index, with the weights of the edges (1 by default).
        **settings
            Its ``temperature``, ``fresh_fraction``, ``outputs_per_round`` and ``batch_size``; needed where
            the scenario has one per provider. ``initial`` likewise, shape (V,).

        Raises
        ------
        InputError
            If a neighbour or a setting is not allowed. Nothing has changed then.
        """
        return live.add_provider(self, reads, read_by, **settings)

    def remove_provider(self, index: int) -> None:
        """Let a provider leave before the next round: `intervene` with an `Exit`."""
        self.intervene(Exit(providers=(index,)))

    @property
    def active_providers(self) -> list[Provider]:
        """The providers that take part in this round, in their order."""
        return [provider for provider in self.providers if self.rules.active[provider.index]]

    @property
    def distributions(self) -> Floats:
        """Θ of every provider, active or not, a new array of shape (N, V)."""
        return np.stack([provider.generative_model.distribution for provider in self.providers])

    def _rules_in_force(self) -> Rules:
        """Return the rules of the round to come, from what is set on the providers now."""
        if self._book.scenario is not self.config:  # it was changed while running
            self._book, self._base = RuleBook(self.config), Rules.of(self.config, W=self.sharing)
        values = {}
        for name in PER_PROVIDER:
            values[name] = getattr(self._base, name).copy()
            for provider in self.providers:
                values[name][provider.index] = getattr(provider, name)
        same = all(np.array_equal(values[name], getattr(self._base, name)) for name in PER_PROVIDER)
        if not same or self.schedule != self._base.schedule:
            self._base = replace(self._base, schedule=self.schedule, **values)
        return self._book.in_force(View(self), self._base)

    def _follow(self, rules: Rules) -> None:
        """Put rules in force. Providers that are not there are no agents of the model for that time."""
        human = np.cumsum(rules.human)
        self.mixing = Mixing(human, self.config.with_replacement, self.streams, rules.window)
        for provider in [p for p in self.providers if rules.active[p.index] != self.rules.active[p.index]]:
            (self.register_agent if rules.active[provider.index] else self.deregister_agent)(provider)
        self.corpus.human_items += int((rules.active & ~self.entered).sum()) * self.config.pretraining_size
        self.entered |= rules.active
        self.rules = rules

    def pretrained(self, index: int) -> Categorical:
        """Return the model that a provider starts from."""
        config = self.config
        if not isinstance(config.initial, str):
            theta = np.atleast_2d(config.initial)[index if config.initial.ndim == 2 else 0]
            theta = theta / theta.sum()
        elif config.initial == "human":
            theta = self.human
        else:
            random = self.streams.generator(Decision.INITIAL, provider=index)
            items = sample(np.cumsum(self.human), random.random(config.pretraining_size))
            theta = np.bincount(items, minlength=self.human.size) / config.pretraining_size
        return Categorical(theta, config.top_k, config.top_p)


def _release(model: mesa.Model) -> None:
    """Let a finished model be freed: Mesa before 3.4.2 keeps every model alive through a table of ids."""
    getattr(mesa.Agent, "_ids", {}).pop(model, None)


# What Mesa's batch runner and sliders read: one keyword per setting. They look for explicit names, and
# take a parameter called ``scenario`` for one of their own.
Ecosystem.__init__.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    + [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None)
        for name in ("rng", "replicate", *Scenario.model_fields)
        if name != "seed"
    ]
)
