r"""The categorical model of the founding paper: a probability for each of V outputs."""

import numpy as np

from ecosystem.generative.base import GenerativeModel
from ecosystem.randomness import sample
from ecosystem.temperature import tempered, truncated
from ecosystem.types import Floats, Integers


class Categorical(GenerativeModel):
    r"""A probability vector Θ, sampled at a temperature and moved towards item frequencies.

    .. math:: \Theta \leftarrow \Theta + a\,(\mathrm{freq} - \Theta)

    Temperature acts on sampling only: items are drawn from τ_T(Θ) ∝ Θ^(1/T), then truncated to the
    top-k and the top-p outputs where these are set. T = 1 samples Θ itself. Source: Marchi et al.,
    arXiv:2404.02325, section 2.

    Parameters
    ----------
    distribution : ndarray, shape (V,)
        Θ(0); copied.
    top_k, top_p : optional
        See `ecosystem.temperature.truncated`.
    """

    def __init__(self, distribution: Floats, top_k: int | None = None, top_p: float | None = None) -> None:
        self._theta = np.array(distribution, dtype=np.float64)
        self.top_k = top_k
        self.top_p = top_p

    @property
    def distribution(self) -> Floats:
        """Θ, shape (V,), read-only."""
        view = self._theta.view()
        view.flags.writeable = False
        return view

    def generate(self, n: int, temperature: float, random: np.random.Generator) -> Integers:
        """Draw ``n`` outputs, integers in [0, V)."""
        law = truncated(tempered(self._theta, temperature), self.top_k, self.top_p)
        return sample(np.cumsum(law), random.random(n))

    def learn(self, items: np.ndarray, step_size: float, shares: Floats | None = None) -> None:
        """Θ ← (1 − a) Θ + a · freq: in this form a = 1 gives exactly the frequencies."""
        if shares is None:
            frequencies = np.bincount(items, minlength=self._theta.size) / len(items)
        else:
            frequencies = np.bincount(items, shares, self._theta.size).astype(np.float64)
        self._theta = (1 - step_size) * self._theta + step_size * frequencies

    def perturb(self, error: float, random: np.random.Generator) -> None:
        """Add uniform noise on [−η/2, η/2] to every entry and project back onto the simplex.

        Projecting shifts entries by at most the largest noise, so that none moves by more than η.

        The bounded training error of Marchi, Silvestre, Gharesifard, Tabuada, *Preventing Model
        Collapse: A Fisher-Rao Perspective*, whose theory asks only for ‖ε‖∞ ≤ η; that the noise is
        uniform and independent is this project's choice. It can revive an output of probability 0.
        """
        noise = error * (random.random(self._theta.size) - 0.5)
        self._theta = projected(self._theta + noise)


def projected(point: Floats) -> Floats:
    """Return the point of the probability simplex nearest to ``point`` in Euclidean distance.

    Shape (V,) to shape (V,). Held, Wolfe, Crowder (1974): subtract the one number that leaves a
    positive part of sum 1.
    """
    falling = np.sort(point)[::-1]
    excess = (np.cumsum(falling) - 1) / np.arange(1, point.size + 1)
    shift = excess[np.flatnonzero(falling > excess)[-1]]
    return np.maximum(point - shift, 0)
