r"""Where one more unit of human data helps most: derivatives by provider and by link.

Two questions, the same two tables. For a uniform human law (`threshold_sensitivities`): how the spectral
radius ρ of M = diag(1−λ) W diag(1/T), which must stay below 1, answers to every λ_i, T_j and W_ij. With right
and left eigenvectors x and y of ρ, y·x = 1, dρ = y·dM x, so

.. math:: \frac{∂ρ}{∂λ_i} = -y_i \sum_j W_{ij} x_j/T_j, \quad
          \frac{∂ρ}{∂T_j} = -\frac{x_j}{T_j^2} \sum_i y_i (1−λ_i) W_{ij}, \quad
          \frac{∂ρ}{∂W_{ij}} = y_i (1−λ_i) \Big(\frac{x_j}{T_j} - \sum_k W_{ik} \frac{x_k}{T_k}\Big).

For any human law (`diversity_sensitivities`): how the share of human diversity kept at the healthy fixed
point Θ = F(Θ) answers. With z the solution of (1 − J)ᵀ z = ∂(share)/∂Θ (one linear system for all levers, by
the implicit function theorem), a lever that moves F by dF moves the share by z·dF. Derived here.

A weight W_ij is raised at the expense of the reader's others: all are scaled down so that the row still
sums to 1, hence the second term in the last derivative above.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.theory.continuation import healthy_state
from analysis.theory.linearised import Linearised
from analysis.theory.meanfield import Population
from analysis.theory.populations import perron_groups, smooth_only, uniform_only
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

_CHUNK = 4_000_000
"""Numbers held at once while links are gone through."""


@dataclass(frozen=True)
class Sensitivities:
    """What a number depends on, provider by provider and link by link.

    Attributes
    ----------
    value : float
        The number: the spectral radius ρ (less is better), or the share of diversity kept (more is).
    providers : pandas.DataFrame
        provider, temperature, fresh_fraction; d_fresh_fraction and d_temperature, the derivatives of the
        value; per_human_item, its change per human item that replaces a synthetic one in the provider's
        batch (d_fresh_fraction / m). ``providers.nsmallest(5, "per_human_item")`` of a threshold and
        ``nlargest`` of a diversity are where one more human item helps most. A threshold has group,
        group_radius and binding besides, a diversity kept.
    links : pandas.DataFrame
        reader, author, weight, d_weight: the derivative with respect to an existing entry of W, the
        reader's other weights giving way in proportion. A threshold has group and binding besides.
    """

    value: float
    providers: pd.DataFrame
    links: pd.DataFrame


def threshold_sensitivities(population: Scenario | Population) -> Sensitivities:
    """Return what the stability of a uniform human law depends on.

    Parameters
    ----------
    population : Scenario or Population
        Its human law must be uniform.

    Returns
    -------
    Sensitivities
        Every strongly connected group of providers has a spectral radius of its own, a simple eigenvalue
        and so always differentiable; derivatives are those of the own group's radius (group_radius), and
        ρ is the largest. ``binding`` marks groups that attain it, to 1e-9. If one group binds, its
        derivatives are those of ρ, and those of all others do not matter yet. If several do, ρ is the
        largest of several radii and has no derivative: helping one of them alone lowers its own radius but
        not ρ; each needs help. A provider with λ = 1 can take no more human data: 0. A link between
        groups acts only by what it takes from links within.

    Raises
    ------
    InputError
        As `spectral_threshold`, or if a provider of temperature 0 is read (ρ = inf).
    """
    population = uniform_only(population)
    groups = perron_groups(population, population.fresh_fraction)
    n = len(population.temperature)
    radius = np.zeros(n)
    group, right, left = np.zeros(n, dtype=np.int64), np.zeros(n), np.zeros(n)
    for number, found in enumerate(groups):
        own = found.members
        group[own], radius[own], right[own], left[own] = number, found.radius, found.right, found.left
    value = float(radius.max())
    if np.isinf(value):
        raise InputError("temperature = 0 is read: the radius is infinite; give temperatures above 0")
    with np.errstate(divide="ignore"):
        gain = 1 / population.temperature
    synthetic = 1 - population.fresh_fraction
    entries = population.sharing.tocoo()
    reader, author = entries.coords
    # What reader i hears of a move of author j, if j is in its group: a group's vectors end at its edge.
    heard = np.where(group[reader] == group[author], (right * gain)[author], 0.0)
    if population.human.size == 1:
        heard[:] = 0.0
    hearing = np.bincount(reader, entries.data * heard, minlength=n)
    feeding = np.bincount(author, (left * synthetic)[reader] * entries.data * heard, minlength=n)
    binding = radius >= value - 1e-9 * max(1.0, value)
    d_fresh = np.where(synthetic > 0, -left * hearing, 0.0)
    extra = {"group": group, "group_radius": radius, "binding": binding}
    return Sensitivities(
        value,
        _providers(population, d_fresh, -feeding * gain, extra),
        _links(
            population,
            (left * synthetic)[reader] * (heard - hearing[reader]),
            {"group": group[reader], "binding": binding[reader]},
        ),
    )


def diversity_sensitivities(population: Scenario | Population, over: str = "mean") -> Sensitivities:
    """Return what the share of human diversity that is kept at the healthy fixed point depends on.

    Parameters
    ----------
    population : Scenario or Population
        Any human law; T and λ may differ between providers; no truncation.
    over : str
        "mean": the mean share of the human law's effective number of outputs (order 1) over providers;
        "worst": that of the provider who keeps least (of several, the first).

    Returns
    -------
    Sensitivities
        Of a uniform human law, which is kept whole or not at all, every derivative is 0: ask
        `threshold_sensitivities`.

    Raises
    ------
    InputError
        If ``over`` is neither, outputs are truncated, or the state is unstable or at its fold, where
        derivatives are infinite.
    """
    population = smooth_only(population)
    if over not in ("mean", "worst"):
        raise InputError(f'over = {over!r}: allowed: "mean" or "worst"')
    human, n = population.human, len(population.temperature)
    theta = healthy_state(population)
    near = Linearised(population, theta)
    leading = near.leading()
    if leading >= 1 - 1e-9:
        raise InputError(
            f"the state reached from the human law is not stable (leading eigenvalue {leading:.6g}): "
            "nothing there depends smoothly on anything; raise the fresh fractions"
        )
    kept = np.asarray(metrics.hill(theta, 1) / metrics.hill(human, 1))
    chosen = np.full(n, 1 / n) if over == "mean" else np.where(np.arange(n) == kept.argmin(), 1.0, 0.0)
    logs = np.log(theta, out=np.zeros_like(theta), where=theta > 0)
    slope = -(chosen * kept)[:, None] * logs
    z = near.solve(slope, transposed=True, rtol=1e-12)
    read = population.readers @ near.tau
    reads = np.asarray(population.sharing.sum(axis=1)).ravel() > 0
    d_fresh = np.where(reads, (z * (human - read)).sum(axis=1), 0.0)
    with np.errstate(divide="ignore"):
        gain = np.where(population.temperature == 0, 0.0, 1 / population.temperature)
    back = population.readers.T @ (near.synthetic * z)
    # ∂τ/∂T = −τ (ln Θ − Σ τ ln Θ) / T²
    away = near.tau * (logs - (near.tau * logs).sum(axis=1, keepdims=True))
    d_temperature = -(gain**2) * (back * away).sum(axis=1)
    reader, author = population.sharing.tocoo().coords
    told = np.empty(len(reader))
    size = max(1, _CHUNK // human.size)
    for i in range(0, len(reader), size):
        part = slice(i, i + size)
        told[part] = np.einsum("lv,lv->l", z[reader[part]], near.tau[author[part]])
    d_weight = near.synthetic[reader, 0] * (told - (z * read).sum(axis=1)[reader])
    return Sensitivities(
        float(chosen @ kept),
        _providers(population, d_fresh, d_temperature, {"kept": kept}),
        _links(population, d_weight, {}),
    )


def _providers(
    population: Population, d_fresh: Floats, d_temperature: Floats, extra: dict[str, np.ndarray]
) -> pd.DataFrame:
    columns = {
        "provider": np.arange(len(d_fresh)),
        "temperature": population.temperature,
        "fresh_fraction": population.fresh_fraction,
        "d_fresh_fraction": d_fresh,
        "per_human_item": d_fresh / population.batch_size,
        "d_temperature": d_temperature,
    }
    return pd.DataFrame(columns | extra)


def _links(population: Population, d_weight: Floats, extra: dict[str, np.ndarray]) -> pd.DataFrame:
    entries = population.sharing.tocoo()
    reader, author = entries.coords
    columns = {"reader": reader, "author": author, "weight": entries.data, "d_weight": d_weight}
    return pd.DataFrame(columns | extra)
