r"""When a population forgets a uniform human law: the spectral threshold.

Let h = u be uniform over V ≥ 2 outputs. Then Θ_i = u solves the mean field for every W, T and λ. To first
order τ_T(u + δ) = u + δ/T for Σ_v δ_v = 0 (d ln τ_v = (δ_v/u − Σ_w δ_w)/T), so that

.. math:: \dot δ_i = \sum_j M_{ij}\, δ_j − δ_i, \qquad M = \mathrm{diag}(1−λ)\, W\, \mathrm{diag}(1/T),

once for each of the V − 1 directions of δ. M ≥ 0, so its eigenvalue of largest real part is its spectral
radius ρ(M) (Perron, Frobenius): **uniform is stable iff ρ(M) < 1**. Clocks do not matter: for any speeds
a_i > 0 the matrix diag(a)(M − 1) has its spectrum in the left half-plane iff 1 − M is a nonsingular
M-matrix, iff ρ(M) < 1; and for steps a_i in (0, 1] the recursion's matrix 1 − diag(a)(1 − M) ≥ 0 has radius
below 1 under the same condition. So the threshold holds for every schedule. With one λ for all,
ρ = (1 − λ) ρ_0 with ρ_0 = ρ(W diag(1/T)), and the least λ is 1 − 1/ρ_0; with one T besides, ρ(W) = 1 gives
1 − T on every graph. Derived here.
"""

from dataclasses import dataclass

import numpy as np
from scipy import linalg, sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg

from analysis.theory.meanfield import Population
from ecosystem.errors import InputError
from ecosystem.scenario import Scenario
from ecosystem.types import Floats, Integers

_DENSE = 300
"""Up to this size a matrix is decomposed whole; above, by Arnoldi iteration on its non-zero entries."""


@dataclass(frozen=True)
class SpectralThreshold:
    """Whether a population keeps a uniform human law.

    Attributes
    ----------
    radius : float
        ρ(M), inf where a provider of temperature 0 is read. A small perturbation grows like e^{(ρ−1)s}
        where all clocks run alike.
    stable : bool
        Whether ρ(M) < 1. At ρ(M) = 1 the linear theory is silent, and this is False.
    least_fresh_fraction : float
        The least λ common to all above which uniform is stable, max(0, 1 − 1/ρ_0), whatever their λ now.
    """

    radius: float
    stable: bool
    least_fresh_fraction: float


def spectral_threshold(population: Scenario | Population) -> SpectralThreshold:
    """Return the exact stability threshold of a population for a uniform human law.

    Parameters
    ----------
    population : Scenario or Population
        Its human law must be uniform; T and λ may differ between providers.

    Raises
    ------
    InputError
        If the human law is not uniform (there is no sharp threshold then: see
        `population_minimum_fresh_fraction`), or outputs are truncated.

    Notes
    -----
    The limits: T = inf publishes the uniform law whatever it learned and takes no part in any feedback.
    T = 0 turns the smallest difference into a certainty; uniform is unstable as soon as anyone who trains
    on synthetic items reads such a provider. With a single output there is nothing to lose.
    """
    population = uniform_only(population)
    everyone = np.zeros_like(population.fresh_fraction)
    radius = max(group.radius for group in perron_groups(population, population.fresh_fraction))
    without = max(group.radius for group in perron_groups(population, everyone))
    least = 1 - 1 / without if without > 1 else 0.0
    return SpectralThreshold(radius, radius < 1 - 1e-12, least)


def uniform_only(population: Scenario | Population) -> Population:
    """Return the population; raise `InputError` unless its human law is uniform."""
    population = smooth_only(population)
    human = population.human
    if np.ptp(human) > 1e-9 * human.max():
        raise InputError(
            'the human law is not uniform: the spectrum of W decides only for human = "uniform"; '
            "use population_minimum_fresh_fraction or diversity_sensitivities"
        )
    return population


def smooth_only(population: Scenario | Population) -> Population:
    """Return the population; raise `InputError` if its outputs are truncated."""
    population = Population.of(population)
    n_outputs = population.human.size
    if (population.top_k or n_outputs) < n_outputs or (population.top_p or 1) < 1:
        raise InputError("top_k and top_p make the mean field jump: stability theory needs them left out")
    return population


# --- Perron-Frobenius, group by group -------------------------------------------------------------


@dataclass(frozen=True)
class Group:
    """A strongly connected group of providers: each depends on each, through others if need be.

    Attributes
    ----------
    members : ndarray of int
        Indices of its providers.
    radius : float
        Spectral radius of M restricted to them: a simple eigenvalue (Frobenius), 0 without feedback.
    right, left : ndarray, shape (members,)
        Its eigenvectors, positive, left · right = 1.
    """

    members: Integers
    radius: float
    right: Floats
    left: Floats


def feedback(population: Population, fresh_fraction: Floats) -> sparse.csr_array:
    """Return M = diag(1 − λ) W diag(1/T); infinite where T = 0 is read."""
    with np.errstate(divide="ignore"):
        gain = 1 / population.temperature
    read = sparse.csr_array(population.sharing.multiply((1 - fresh_fraction)[:, None]))
    read.eliminate_zeros()
    m = sparse.csr_array(read.multiply(gain[None, :]))
    m.eliminate_zeros()  # T = inf
    return m


def perron_groups(population: Population, fresh_fraction: Floats) -> list[Group]:
    """Return the strongly connected groups of M; the largest radius among them is ρ(M).

    A matrix in block-triangular form has the eigenvalues of its diagonal blocks, so groups that only read
    each other one way have each its own threshold. A group of one that does not read itself has radius 0.
    """
    m = feedback(population, fresh_fraction)
    n = m.shape[0]
    if population.human.size == 1:
        m = sparse.csr_array((n, n))
    if np.isinf(m.data).any():
        whole = np.full(n, n**-0.5)
        return [Group(np.arange(n), np.inf, whole, whole)]
    count, label = csgraph.connected_components(m, directed=True, connection="strong")
    by_label = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    if count == 1:
        return [Group(np.arange(n), *_perron(m))]
    one = np.ones(1)
    alone = m.diagonal()
    return [
        Group(members, float(alone[members[0]]), one, one)
        if len(members) == 1
        else Group(members, *_perron(sparse.csr_array(m[members][:, members])))
        for members in by_label
    ]


def _perron(m: sparse.csr_array) -> tuple[float, Floats, Floats]:
    """Return the spectral radius of an irreducible matrix ≥ 0 with its right and left eigenvectors."""
    if m.shape[0] <= _DENSE:
        values, lefts, rights = linalg.eig(m.toarray(), left=True, right=True)
        best = int(np.argmax(values.real))
        radius, right, left = values[best].real, rights[:, best], lefts[:, best]
    else:
        radius, right = _dominant(m)
        _, left = _dominant(sparse.csr_array(m.T))
    right, left = np.abs(right), np.abs(left)  # positive up to one common phase
    return float(radius), right, left / (left @ right)


def _dominant(m: sparse.csr_array) -> tuple[float, np.ndarray]:
    start = 1 + np.linspace(0, 0.1, m.shape[0])  # positive: never orthogonal to the vector sought
    try:
        values, vectors = sparse_linalg.eigs(m, k=1, which="LR", v0=start, maxiter=300)
    except sparse_linalg.ArpackNoConvergence:
        # Long rings and chains have no gap to speak of. Above the radius (m − σ)⁻¹ singles it out.
        above = float(m.sum(axis=1).max()) * (1 + 1e-6)
        values, vectors = sparse_linalg.eigs(sparse.csc_array(m), k=1, sigma=above, v0=start)
    return float(values[0].real), vectors[:, 0]
