"""Final distributions of which only the touched outputs are stored."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from ecosystem.types import Floats


@dataclass(frozen=True, eq=False)
class SparseLaws:
    r"""Θ of replicates × N providers over V outputs, where a dense array of them would not fit.

    Θ_i = scale_i · start_i everywhere but at the touched outputs, which have probabilities of their own.

    Attributes
    ----------
    start : ndarray, shape (1, V) or (N, V)
        Initial law of all providers, or of each.
    scale : ndarray, shape (replicates, N)
        What is left of it.
    touched : list of scipy.sparse.csr_array, one per replicate, each of shape (N, V)
        Θ of the touched outputs.
    """

    start: Floats
    scale: Floats
    touched: list[sparse.csr_array]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(replicates, N, V), as the dense array would have."""
        return (*self.scale.shape, self.start.shape[1])

    def __len__(self) -> int:
        return len(self.touched)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SparseLaws) or self.shape != other.shape:
            return False
        parts: list[tuple[np.ndarray, np.ndarray]] = [(self.start, other.start), (self.scale, other.scale)]
        for mine, its in zip(self.touched, other.touched, strict=True):
            parts += [(mine.indptr, its.indptr), (mine.indices, its.indices), (mine.data, its.data)]
        return all(np.array_equal(a, b) for a, b in parts)

    def __getitem__(self, replicate: int) -> Floats:
        """Θ of one replicate as a dense array, shape (N, V): mind its size."""
        return np.stack([self.law(replicate, provider) for provider in range(self.scale.shape[1])])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Θ of all replicates as a dense array, shape (replicates, N, V): mind its size."""
        return np.stack([self[replicate] for replicate in range(len(self))]).astype(dtype or float)

    def law(self, replicate: int, provider: int) -> Floats:
        """Return Θ of one provider, shape (V,)."""
        theta = self.scale[replicate, provider] * self._start(provider)
        outputs, probabilities = self._row(replicate, provider)
        theta[outputs] = probabilities
        return theta

    def mass(self, outputs: np.ndarray) -> Floats:
        """Return the probability of a set of outputs (a mask of shape (V,)), shape (replicates, N)."""
        found = np.empty(self.scale.shape)
        common = self.start[:, outputs].sum(axis=1)
        for replicate, provider in np.ndindex(found.shape):
            start = self._start(provider)
            touched, probabilities = self._row(replicate, provider)
            inside = outputs[touched]
            left = common[provider if len(common) > 1 else 0] - start[touched[inside]].sum()
            found[replicate, provider] = self.scale[replicate, provider] * left + probabilities[inside].sum()
        return found

    def _start(self, provider: int) -> Floats:
        return self.start[provider if len(self.start) > 1 else 0]

    def _row(self, replicate: int, provider: int) -> tuple[np.ndarray, Floats]:
        matrix = self.touched[replicate]
        row = slice(*matrix.indptr[provider : provider + 2])
        return matrix.indices[row], matrix.data[row]

    @classmethod
    def joined(cls, parts: Sequence["SparseLaws"]) -> "SparseLaws":
        """Return the replicates of several, one after the other."""
        touched = [matrix for part in parts for matrix in part.touched]
        return cls(parts[0].start, np.concatenate([part.scale for part in parts]), touched)

    def first(self, replicates: int) -> "SparseLaws":
        """Return the first so many replicates."""
        return SparseLaws(self.start, self.scale[:replicates], self.touched[:replicates])

    def of(self, providers: np.ndarray) -> "SparseLaws":
        """Return some providers (a mask of shape (N,))."""
        start = self.start[providers] if len(self.start) > 1 else self.start
        which = np.flatnonzero(providers)
        touched = [sparse.csr_array(matrix[which]) for matrix in self.touched]
        return SparseLaws(start, self.scale[:, providers], touched)

    def save(self, path: Path) -> None:
        """Write it as an .npz file."""
        arrays: dict[str, np.ndarray] = {"start": self.start, "scale": self.scale}
        for number, matrix in enumerate(self.touched):
            arrays |= {
                f"pointer_{number}": matrix.indptr,
                f"outputs_{number}": matrix.indices,
                f"values_{number}": matrix.data,
            }
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path) -> "SparseLaws":
        """Read it back."""
        with np.load(path) as arrays:
            start, scale = arrays["start"], arrays["scale"]
            touched = [
                sparse.csr_array(
                    (arrays[f"values_{r}"], arrays[f"outputs_{r}"], arrays[f"pointer_{r}"]),
                    shape=(scale.shape[1], start.shape[1]),
                )
                for r in range(len(scale))
            ]
        return cls(start, scale, touched)
