r"""Together or apart: the ways in which providers drift from a uniform human law, and where they end.

Near the uniform law every one of the V − 1 directions moves by dδ/ds = (M − 1) δ with M = diag(1 − λ) W
diag(1/T) (`analysis.theory.populations`). Its eigenvectors say who moves with whom. The dominant one is
positive on a strongly connected group: all drift to the same output. Every other growing one lets providers
drift apart. With one T and λ, mode w of W grows iff (1 − λ) Re w > T. Derived here.

That is where drift begins. Which of two growing modes has come further once the laws are far from uniform
depends on how large the differences were at first, (size)^(ratio of rates); `together_or_apart` follows the
mean field to its end to see.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse import csgraph
from scipy.sparse import linalg as sparse_linalg

from analysis.theory.meanfield import Population
from analysis.theory.populations import feedback, uniform_only
from ecosystem import metrics
from ecosystem.errors import InputError
from ecosystem.scenario import Scenario
from ecosystem.types import Floats


@dataclass(frozen=True)
class AgreementModes:
    """The ways in which providers drift from a uniform human law.

    Attributes
    ----------
    table : pandas.DataFrame
        mode, from the fastest; eigenvalue_real and eigenvalue_imag, of M; growth_rate, Re − 1 per unit of
        s; grows; agreement, |Σ_i x_i|² / (N Σ_i |x_i|²), 1 if all providers move alike and 0 if their
        moves cancel (of equal eigenvalues the vectors, and this column, are one choice among many).
    vectors : ndarray, complex, shape (N, modes)
        How far each provider moves in each mode, x.
    growing : int
        Number of modes that grow. None: the uniform law is kept. One: all that collapse collapse onto one
        output. More: providers can collapse onto different ones.
    """

    table: pd.DataFrame
    vectors: np.ndarray
    growing: int


def agreement_modes(population: Scenario | Population, modes: int = 10) -> AgreementModes:
    """Return the modes of agreement and disagreement of a population near a uniform human law.

    Parameters
    ----------
    population : Scenario or Population
        Its human law must be uniform.
    modes : int
        How many modes to return at least; all growing ones are always among them.

    Raises
    ------
    InputError
        As `spectral_threshold`, or if a provider of temperature 0 is read.
    """
    population = uniform_only(population)
    m = feedback(population, population.fresh_fraction)
    if np.isinf(m.data).any():
        raise InputError("temperature = 0 is read: every difference grows at once; give temperatures above 0")
    n = m.shape[0]
    parts, label = csgraph.connected_components(m, directed=True, connection="weak")
    found = []
    for part in range(parts):  # one by one: Arnoldi iteration may miss copies of an eigenvalue
        members = np.flatnonzero(label == part)
        own, moves = _leading(m if parts == 1 else sparse.csr_array(m[members][:, members]), modes)
        found.append((own, members, moves))
    values = np.concatenate([own for own, _, _ in found])
    vectors = np.zeros((n, len(values)), dtype=np.complex128)
    column = 0
    for own, members, moves in found:
        vectors[members, column : column + len(own)] = moves
        column += len(own)
    order = np.argsort(-values.real, kind="stable")
    values, vectors = values[order], vectors[:, order]
    grows = values.real > 1 + 1e-9
    growing = int(grows.sum())
    kept = max(growing, min(n, max(1, modes)))
    values, vectors = values[:kept], vectors[:, :kept]
    table = pd.DataFrame(
        {
            "mode": np.arange(kept),
            "eigenvalue_real": values.real,
            "eigenvalue_imag": values.imag,
            "growth_rate": values.real - 1,
            "grows": grows[:kept],
            "agreement": np.abs(vectors.sum(axis=0)) ** 2 / (n * (np.abs(vectors) ** 2).sum(axis=0)),
        }
    )
    return AgreementModes(table, vectors, growing)


def _leading(m: sparse.csr_array, modes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvalues and eigenvectors: all that grow, and at least ``modes`` where there are so many.

    Up to 2,000 providers whole, if links go both ways (1,000 otherwise); above, by Arnoldi iteration,
    which may miss a copy of an eigenvalue that a symmetry of the graph repeats.
    """
    n, count = m.shape[0], max(1, modes)
    scale = _balance(m)
    start = 1 + np.random.default_rng(0).random(n)  # no eigenvector, and the same every time
    while n > (1000 if scale is None else 2000) and count < n // 4:
        try:
            values, vectors = sparse_linalg.eigs(m, k=count, which="LR", v0=start, maxiter=300)
        except sparse_linalg.ArpackNoConvergence:  # e.g. a long one-way ring
            break
        if values.real.min() <= 1:
            return values, vectors
        count *= 2
    if scale is None:
        values, vectors = np.linalg.eig(m.toarray())
        return values, vectors
    symmetric = m.toarray() * scale[:, None] / scale
    real, moves = np.linalg.eigh((symmetric + symmetric.T) / 2)
    return real, moves / scale[:, None]


def _balance(m: sparse.csr_array) -> Floats | None:
    """Return d > 0 with d_i M_ij / d_j symmetric, or None if there is none; M weakly connected.

    There is one where links go both ways: M = diag(p) A diag(q) with A symmetric has d = √(q/p).
    """
    back = sparse.csr_array(m.T)
    m.sort_indices()
    back.sort_indices()
    if m.nnz != back.nnz or not np.array_equal(m.indices, back.indices):
        return None
    entries = m.tocoo()
    half = np.log(back.data / m.data) / 2  # of entry (i, j): ln d_i − ln d_j
    steps = dict(zip(zip(*(c.tolist() for c in entries.coords), strict=True), half.tolist(), strict=True))
    order, parent = csgraph.breadth_first_order(m, 0, directed=False)
    logs = np.zeros(m.shape[0])
    for node in order[1:].tolist():
        logs[node] = logs[parent[node]] + steps[node, int(parent[node])]
    reader, author = entries.coords
    if np.abs(logs[reader] - logs[author] - half).max(initial=0.0) > 1e-9:
        return None
    return np.exp(logs - logs.mean())


def together_or_apart(
    population: Scenario | Population,
    starts: int = 20,
    size: float = 0.01,
    *,
    keep: float = 0.9,
    steps: int = 20_000,
    seed: int = 0,
) -> pd.DataFrame:
    r"""Follow the mean field from small random differences and report how providers end.

    Parameters
    ----------
    population : Scenario or Population
        Any human law and truncation.
    starts : int
        Independent starts Θ_i ∝ h exp(size · ξ_i), ξ standard normal for each provider and output.
    size : float
        Relative size of the initial differences. The smaller, the longer the fastest mode leads, and the
        more often all end together; what modes *can* grow does not depend on it.
    keep : float
        A population whose mean effective number of outputs (order 1) stays above this share of the human
        law's has not collapsed.
    steps : int
        Largest number of rounds followed (recursion with a = 1/2).
    seed : int
        Seed of the starts.

    Returns
    -------
    pandas.DataFrame
        start; outcome: "diverse", "together" (one most probable output) or "apart" (several); leaders,
        the number of different most probable outputs; kept, mean share of effective outputs;
        beta_diversity, effectively different providers; settled, whether the laws stopped moving.
    """
    population = Population.of(population)
    human, n = population.human, len(population.temperature)
    random = np.random.default_rng(seed)
    rows = []
    for number in range(starts):
        theta = human * np.exp(size * random.standard_normal((n, human.size)))
        theta /= theta.sum(axis=1, keepdims=True)
        settled = False
        for _ in range(steps):
            move = population.target(theta) - theta
            theta = theta + move / 2
            if settled := bool(np.abs(move).max() < 1e-10):
                break
        kept = float((metrics.hill(theta, 1) / metrics.hill(human, 1)).mean())
        leaders = len(np.unique(theta.argmax(axis=1)))
        outcome = "diverse" if kept >= keep else "together" if leaders == 1 else "apart"
        beta = metrics.alpha_beta_gamma(theta)[1]
        rows.append((number, outcome, leaders, kept, beta, settled))
    return pd.DataFrame(rows, columns=["start", "outcome", "leaders", "kept", "beta_diversity", "settled"])
