"""The seam between the ecosystem and what learns in it."""

from abc import ABC, abstractmethod

import numpy as np

from ecosystem.types import Floats


class GenerativeModel(ABC):
    """One generative model: it can be sampled from and it learns from items.

    Items are numpy arrays whose first axis counts them: integers for a categorical model, rows for
    models of vectors or images. A family says in its docstring what temperature does to it.
    """

    @property
    @abstractmethod
    def distribution(self) -> Floats:
        """Θ, shape (V,): the learned law over outputs, as the metrics see it (read-only view)."""

    @abstractmethod
    def generate(self, n: int, temperature: float, random: np.random.Generator) -> np.ndarray:
        """Draw ``n`` items at a sampling temperature, using nothing random but ``random``."""

    @abstractmethod
    def learn(self, items: np.ndarray, step_size: float, shares: Floats | None = None) -> None:
        """Move towards ``items`` by a step in (0, 1]; 1 forgets everything learned before.

        ``shares``, shape (m,), is how much each item counts, of 1 together; None stands for 1/m each.
        """

    @abstractmethod
    def perturb(self, error: float, random: np.random.Generator) -> None:
        """Move the learned law at random by at most ``error`` per output: imperfect training."""
