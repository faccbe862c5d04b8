r"""The mean field's derivative at a state, without ever forming the matrix.

With q_j = τ_j / (T_j Θ_j), a small change δ of all laws changes what they are pulled towards by

.. math:: (Jδ)_i = (1−λ_i) \sum_j W_{ij} \big(q_j ∘ δ_j − τ_j (q_j · δ_j)\big),

because d ln τ_v = (d ln Θ_v − Σ_w τ_w d ln Θ_w)/T. A fixed point of dΘ/ds = F(Θ) − Θ is stable iff every
eigenvalue μ of J has Re μ < 1. One product costs O(V · links). Derived here.
"""

from collections.abc import Callable

import numpy as np
from scipy.sparse import linalg as sparse_linalg

from analysis.theory.meanfield import Population
from ecosystem.errors import InputError
from ecosystem.types import Floats


class Linearised:
    """The mean field's derivative J at a state, as a matrix-free operator.

    Parameters
    ----------
    population : Population
        Without truncation.
    theta : ndarray, shape (N, V)
        The state. Where Θ = 0 nothing can grow back, and the derivative is taken as 0.

    Attributes
    ----------
    tau : ndarray, shape (N, V)
        What is published.
    jump : bool
        Whether a provider of temperature 0 that is read has several most probable outputs: there the
        smallest change moves all its mass.
    """

    def __init__(self, population: Population, theta: Floats) -> None:
        self.population, self.shape = population, theta.shape
        self.tau = population.published(theta)
        cold = population.temperature == 0
        with np.errstate(divide="ignore"):
            gain = np.where(cold, 0.0, 1 / population.temperature)[:, None]
        self.pull = gain * np.divide(self.tau, theta, out=np.zeros_like(theta), where=theta > 0)
        self.synthetic = (1 - population.fresh_fraction)[:, None]
        read = (self.synthetic[:, 0] @ population.sharing) > 0
        self.jump = bool(((self.tau > 0).sum(axis=1)[cold & read] > 1).any())

    def __call__(self, delta: Floats) -> Floats:
        """Return J δ, shape (N, V)."""
        moved = self.pull * delta
        moved -= self.tau * moved.sum(axis=1, keepdims=True)
        return self.synthetic * (self.population.readers @ moved)

    def adjoint(self, z: Floats) -> Floats:
        """Return Jᵀ z, shape (N, V)."""
        back = self.population.readers.T @ (self.synthetic * z)
        return self.pull * (back - (self.tau * back).sum(axis=1, keepdims=True))

    def solve(self, right: Floats, transposed: bool = False, rtol: float = 1e-10) -> Floats:
        """Return the solution x of (1 − J) x = right, or of (1 − Jᵀ) x = right; may be inaccurate."""
        apply: Callable[[Floats], Floats] = self.adjoint if transposed else self
        n = right.size
        system = sparse_linalg.LinearOperator(
            (n, n),
            matvec=lambda x: x.ravel() - apply(x.reshape(self.shape)).ravel(),
            dtype=np.float64,
        )
        x, _ = sparse_linalg.gmres(system, right.ravel(), rtol=rtol, atol=0.0, restart=30, maxiter=20)
        return x.reshape(self.shape)

    def leading(self) -> float:
        """Return the largest real part of an eigenvalue of J; inf at a jump.

        Raises
        ------
        InputError
            If the iteration does not settle.
        """
        if self.jump:
            return np.inf
        n, v = self.shape
        if n * v <= 200:
            unit = np.eye(n * v).reshape(n * v, n, v)
            columns = [self(column).ravel() for column in unit]
            return float(np.linalg.eigvals(np.stack(columns, axis=1)).real.max())
        operator = sparse_linalg.LinearOperator(
            (n * v, n * v), matvec=lambda x: self(x.reshape(self.shape)).ravel(), dtype=np.float64
        )
        start = self(np.random.default_rng(0).standard_normal(self.shape))  # in the range: sums to 0
        if not start.any():
            return 0.0
        for vectors in (12, 60):  # eigenvalues that lie close together need more
            try:
                values = sparse_linalg.eigs(
                    operator,
                    k=1,
                    which="LR",
                    v0=start.ravel(),
                    ncv=vectors,
                    tol=1e-10,
                    maxiter=24000 // vectors,
                    return_eigenvectors=False,
                )
            except sparse_linalg.ArpackNoConvergence:
                continue
            return float(values.real.max())
        raise InputError(
            f"n_outputs = {v}: the stability of {n} providers was not found; give fewer outputs or providers"
        )
