r"""The mean field: what a run tends to as its providers publish and train on more and more items.

Provider i holds Θ_i, publishes from τ_{T_i}(Θ_i), reads provider j with weight W_ij, and mixes in a share
λ_i of human items. A slot of its batch holds output v with probability, given all Θ,

.. math:: F_i(\Theta)_v = \lambda_i h_v + (1-\lambda_i) \sum_j W_{ij}\, \tau_{T_j}(\Theta_j)_v ,

with or without replacement, because every slot by itself is a fair draw. As the items of a round grow
without bound the batch's frequencies tend to F_i, which leaves two limits:

* steps a_i(k) held (`mean_field`, `mean_field_states`): the recursion
  Θ_i(k) = (1 − a_i(k)) Θ_i(k−1) + a_i(k) F_i(Θ(k−1)). It is the limit of a run for **any** schedule,
  a = 1 included, and the curve to set beside a run. For T = 1 it is the exact expectation of a run from
  the same start at any number of items, F being linear;
* steps to 0 as well (`flow`): the differential equation dΘ_i/ds_i = F_i(Θ) − Θ_i in each provider's own
  time s_i = Σ a_i(k), equation (5) of Marchi, Silvestre, Gharesifard, Tabuada, *Preventing Model Collapse:
  A Fisher-Rao Perspective*, on a graph. Both have the same fixed points.

At finite B and m the distance of a single run from the recursion is of order B^{−1/2}, and that of the mean
over runs of order 1/B (T ≠ 1, from a fixed start): F bends, so fluctuations of variance ∝ 1/B shift the
mean by ½ F'' Var. That holds over a fixed number of rounds where F is smooth, not at T = 0, under
truncation, or for so many rounds that an unstable state is left by chance.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import integrate, sparse

from analysis.theory.policies import rounds_under_rules, slot_weights
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.interventions import active_in, foreseen
from ecosystem.scenario import Scenario
from ecosystem.schedules import Schedule
from ecosystem.temperature import tempered, truncated
from ecosystem.types import Floats


@dataclass(frozen=True, eq=False)
class Population:
    """What enters the mean field: N providers over V outputs, without schedule or start.

    Parameters
    ----------
    sharing : array_like or scipy sparse array, shape (N, N)
        W ≥ 0, rows summing to 1. The row of a provider that reads no one is 0: then its λ must be 1.
    temperature, fresh_fraction : array_like, shape () or (N,)
        T in [0, inf] and λ in [0, 1].
    human : array_like, shape (V,)
        The law of human data h.
    top_k, top_p : optional
        Truncation after temperature: see `ecosystem.temperature.truncated`.
    batch_size : array_like, shape () or (N,)
        m, items in a batch: only what one human item more is worth (1/m of λ) depends on it.

    Raises
    ------
    InputError
        If a shape or a value is not allowed.
    """

    # Given in any form; held as a csr_array and as arrays of shape (N,) and (V,).
    sharing: Any
    temperature: Any
    fresh_fraction: Any
    human: Any
    top_k: int | None = None
    top_p: float | None = None
    batch_size: Any = 1.0

    def __post_init__(self) -> None:
        w: Any = sparse.csr_array(self.sharing, dtype=np.float64)
        if w.ndim != 2 or w.shape[0] != w.shape[1] or not (w.data >= 0).all():
            raise InputError(f"sharing of shape {w.shape}: give W ≥ 0 of shape (N, N)")
        human = np.asarray(self.human, dtype=np.float64)
        if human.ndim != 1 or not (human >= 0).all() or not abs(human.sum() - 1) <= 1e-6:
            raise InputError(f"human of shape {human.shape}: give probabilities of shape (V,) that sum to 1")
        n = w.shape[0]
        for name, most in (("temperature", np.inf), ("fresh_fraction", 1.0), ("batch_size", np.inf)):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            if values.shape not in ((), (n,)) or not ((values >= 0) & (values <= most)).all():
                raise InputError(f"{name}: give one number from 0 to {most:g}, or {n} of them")
            if name == "batch_size" and not ((values > 0) & np.isfinite(values)).all():
                raise InputError("batch_size: give finite numbers above 0")
            object.__setattr__(self, name, np.broadcast_to(values, (n,)))
        object.__setattr__(self, "sharing", w)
        # A scenario's law sums to 1 up to rounding: dividing again would move its last bits.
        object.__setattr__(self, "human", human if abs(human.sum() - 1) < 1e-12 else human / human.sum())
        read = np.asarray(w.sum(axis=1)).ravel()
        lone = (read == 0) & (self.fresh_fraction < 1)
        if lone.any():
            raise InputError(
                f"provider {np.argmax(lone)} reads no one but trains on synthetic items; "
                "give its row of W a positive entry, or write fresh_fraction = 1"
            )
        off = np.abs(np.where(read > 0, read - 1, 0.0))
        if off.max() > 1e-6:
            raise InputError(f"row {np.argmax(off)} of W sums to {read[np.argmax(off)]:.6g}: divide by it")

    @classmethod
    def of(cls, scenario: "Scenario | Population") -> "Population":
        """Return the population of a scenario without interventions (a population as it is)."""
        if isinstance(scenario, Population):
            return scenario
        without_interventions(scenario)
        return cls(
            scenario.W,
            scenario.per_provider("temperature"),
            scenario.per_provider("fresh_fraction"),
            scenario.source.law,
            scenario.top_k,
            scenario.top_p,
            scenario.per_provider("batch_size"),
        )

    @classmethod
    def under(cls, scenario: Scenario, round: int) -> "Population":
        """Return the population that takes part in a round, under the rules that hold in it.

        Weights of items and a detector that down-weights become part of λ, which is exact in the mean field.

        Raises
        ------
        InputError
            If the rules depend on the state of a run, or publish the best of several candidates.
        """
        if seeing := [i.kind for i in scenario.interventions if i.observes and i.strength(round) > 0]:
            raise InputError(f"interventions: {', '.join(seeing)} depends on the state of a run")
        rules = next(period.rules for period in foreseen(scenario) if period.first <= round <= period.last)
        if rules.best_of > 1:
            raise InputError("interventions: curation has no Population; use mean_field_states")
        here = np.flatnonzero(rules.active)
        by_human, by_models = slot_weights(rules)
        fresh = rules.fresh_fraction
        weighted = by_human / np.where(by_human + by_models > 0, by_human + by_models, 1.0)
        fresh = np.where((by_human == fresh) & (by_models == 1 - fresh), fresh, weighted)
        return cls(
            rules.W[here][:, here],
            rules.temperature[here],
            fresh[here],
            rules.human,
            scenario.top_k,
            scenario.top_p,
            rules.batch_size[here],
        )

    @cached_property
    def readers(self) -> sparse.csr_array | Floats:
        """W, as a plain array where more than a tenth of it is filled (faster to multiply by)."""
        n = self.sharing.shape[0]
        return self.sharing.toarray() if self.sharing.nnz > 0.1 * n * n else self.sharing

    def published(self, theta: Floats) -> Floats:
        """Return the laws τ that outputs are drawn from, truncation included; (N, V) to (N, V)."""
        tau = tempered(theta, self.temperature)
        if self.top_k is None and self.top_p is None:
            return tau
        return np.stack([truncated(law, self.top_k, self.top_p) for law in tau])

    def mixed(self, tau: Floats) -> Floats:
        """Return λ_i h + (1 − λ_i) Σ_j W_ij τ_j, the law of a slot of i's batch; (N, V) to (N, V)."""
        fresh = self.fresh_fraction[:, None]
        return fresh * self.human + (1 - fresh) * (self.readers @ tau)

    def target(self, theta: Floats) -> Floats:
        """Return F(Θ), what every provider is pulled towards; (N, V) to (N, V)."""
        return self.mixed(self.published(theta))


def mean_field(scenario: Scenario, initial: ArrayLike | None = None) -> pd.DataFrame:
    """Return the mean field of a scenario as a table with the columns of a run's.

    Parameters
    ----------
    scenario : Scenario
        Any graph, schedule, start, truncation; T and λ may differ between providers.
    initial : array_like, shape (V,) or (N, V), optional
        Θ(0) in place of the scenario's: for instance that of a run with ``initial="sampled"``.

    Returns
    -------
    pandas.DataFrame
        replicate (0), round, provider, then `ecosystem.metrics.of_laws` of Θ, and of what was published
        this round, law τ = τ_T(Θ(k−1)): self_similarity Σ_v τ_v² and self_similarity_previous, the same
        with the round before. In round 0 both are Σ h², and in round 1 the round before is human, as in
        a run. The rounds are those that a run records.

    Raises
    ------
    InputError
        If ``training_error`` > 0: its noise does not average out as outputs grow, so there is no
        deterministic limit.

    Notes
    -----
    The metrics are those *of* the mean field. The mean of a metric over runs tends to them as items grow;
    at finite B it differs at order 1/B. ``initial="sampled"`` starts from h, its own limit.
    """
    human, n = scenario.source.law, len(scenario.per_provider("temperature"))
    columns: dict[str, list[np.ndarray]] = {}
    before = theta = None
    tau_before = tau = np.tile(human, (n, 1))
    there = active_in(scenario.interventions, 1, n)
    for k, (theta, published, now) in enumerate(_rounds(scenario, initial)):
        if before is not None:
            tau_before, tau = tau, published
        there = there if before is None else now
        if k % scenario.record_every == 0 or k == scenario.rounds:
            row: dict[str, np.ndarray] = {
                "replicate": np.zeros(n, dtype=np.int64),
                "round": np.full(n, k),
                "provider": np.arange(n),
            }
            row |= metrics.of_laws(theta, theta if before is None else before, human, scenario.mass_k)
            row["self_similarity"] = (tau**2).sum(axis=-1)
            row["self_similarity_previous"] = (tau * tau_before).sum(axis=-1)
            for name, values in row.items():
                columns.setdefault(name, []).append(values[there])
        before = theta
    return pd.DataFrame({name: np.concatenate(values) for name, values in columns.items()})


def mean_field_distributions(scenario: Scenario, initial: ArrayLike | None = None) -> Floats:
    """Return Θ in every round of the mean field, shape (rounds + 1, N, V); see `mean_field`."""
    return np.stack(list(mean_field_states(scenario, initial)))


def mean_field_states(scenario: Scenario, initial: ArrayLike | None = None) -> Iterator[Floats]:
    """Yield Θ of rounds 0, 1, …, each of shape (N, V), holding no more than one round; see `mean_field`."""
    for theta, _, _ in _rounds(scenario, initial):
        yield theta


def _rounds(scenario: Scenario, initial: ArrayLike | None) -> Iterator[tuple[Floats, Floats, np.ndarray]]:
    """Yield Θ of rounds 0, 1, …, what was published for it, both (N, V), and who took part, (N,)."""
    theta = start(scenario, initial)
    everybody = np.ones(len(theta), dtype=bool)
    yield theta, theta, everybody
    if scenario.interventions:
        for field in rounds_under_rules(scenario, theta):
            yield field.theta, field.published, field.rules.active
        return
    population = Population.of(scenario)
    for a in step_sizes(scenario):
        tau = population.published(theta)
        theta = (1 - a[:, None]) * theta + a[:, None] * population.mixed(tau)
        yield theta, tau, everybody


def start(scenario: Scenario, initial: ArrayLike | None = None) -> Floats:
    """Return Θ(0) of the mean field, shape (N, V); raise `InputError` where there is no mean field."""
    if scenario.training_error > 0:
        raise InputError(
            f"training_error = {scenario.training_error}: its noise stays however many items are published, "
            "so there is no mean field; write scenario.replace(training_error=0.0)"
        )
    n = len(scenario.per_provider("temperature"))
    if initial is not None:
        scenario = scenario.replace(initial=initial)
    if isinstance(scenario.initial, str):
        return np.tile(scenario.source.law, (n, 1))
    law = np.atleast_2d(scenario.initial / scenario.initial.sum(axis=-1, keepdims=True))
    return np.tile(law, (n // len(law), 1))


def without_interventions(scenario: Scenario) -> None:
    """Raise `InputError` if a scenario has interventions, for theory that knows none."""
    if scenario.interventions:
        kinds = ", ".join(intervention.kind for intervention in scenario.interventions)
        raise InputError(
            f"interventions ({kinds}): only the mean field in rounds knows them; use mean_field_states, "
            "Population.under for one round of them, or scenario.replace(interventions=())"
        )


def step_sizes(scenario: Scenario) -> Floats:
    """Return a_i(k) in (0, 1] of rounds k = 1 … rounds, shape (rounds, N); see `ecosystem.schedules`."""
    without_interventions(scenario)
    schedule, before = Schedule.parse(scenario.schedule), scenario.pretraining_size
    sizes, provider = np.unique(scenario.per_provider("batch_size"), return_inverse=True)
    return np.array(
        [
            [schedule.step_size(k, int(m), before + (k - 1) * float(m)) for m in sizes]
            for k in range(1, scenario.rounds + 1)
        ]
    )[:, provider]


def clocks(scenario: Scenario) -> Floats:
    """Return every provider's own time s_i(k) = Σ_{j ≤ k} a_i(j), shape (rounds + 1, N), from 0."""
    steps = step_sizes(scenario)
    return np.concatenate([np.zeros((1, steps.shape[1])), np.cumsum(steps, axis=0)])


def flow(
    scenario: Scenario,
    times: ArrayLike | None = None,
    initial: ArrayLike | None = None,
    *,
    rtol: float = 1e-9,
    atol: float = 1e-12,
) -> Floats:
    """Return the mean field in continuous time, dΘ_i/ds_i = F_i(Θ) − Θ_i.

    Parameters
    ----------
    scenario : Scenario
        Population, start and, by default, clocks.
    times : array_like, shape (K,) or (K, N), optional
        Non-decreasing times s from 0 on, one for all or one per provider: between two rows every
        provider's clock runs evenly. By default `clocks`, so that state k is the one of round k.
    initial : array_like, optional
        Θ(0), as for `mean_field`.
    rtol, atol : float
        Tolerances of `scipy.integrate.solve_ivp`, method DOP853.

    Returns
    -------
    ndarray, shape (K, N, V)
        Θ at these times; the recursion's states differ from it by order max a.

    Raises
    ------
    InputError
        If T = 0 or truncation makes F discontinuous (no unique solution; use `mean_field_states`), or if
        the times are no clock.

    Notes
    -----
    Integrated as d(e^s Θ)/ds = e^s F(Θ) ≥ 0 over pieces of at most one unit of time: the decay is exact,
    nothing becomes negative, and the floor Θ_v ≥ λ h_v (1 − e^{−s}) holds by construction.
    """
    population = Population.of(scenario)
    if (population.temperature == 0).any() or population.top_k or population.top_p:
        raise InputError(
            "T = 0, top_k and top_p make the mean field jump, and continuous time has no unique answer; "
            "use mean_field_states, or a temperature above 0 and no truncation"
        )
    theta = start(scenario, initial)
    shape = theta.shape
    s = clocks(scenario) if times is None else np.asarray(times, dtype=np.float64)
    s = np.broadcast_to(s[:, None], (len(s), shape[0])) if s.ndim == 1 else s
    if s.shape[1:] != shape[:1] or not np.isfinite(s).all() or not (np.diff(s, axis=0, prepend=0) >= 0).all():
        raise InputError(f"times: give non-decreasing times from 0 on, of shape (K,) or (K, {shape[0]})")
    states = []
    for lapse in np.diff(s, axis=0, prepend=0):
        pieces = max(1, int(np.ceil(lapse.max())))
        rate = lapse[:, None] / pieces

        def pull(t: float, y: Floats, rate: Floats = rate) -> Floats:
            grown = np.exp(rate * t)
            now = np.maximum(y.reshape(shape), 0) / grown  # a trial stage may undershoot by the tolerance
            return (rate * grown * population.target(now)).ravel()

        for _ in range(pieces if lapse.any() else 0):
            end = integrate.solve_ivp(pull, (0, 1), theta.ravel(), method="DOP853", rtol=rtol, atol=atol)
            theta = np.exp(-rate) * end.y[:, -1].reshape(shape)
        states.append(theta)
    return np.stack(states)
