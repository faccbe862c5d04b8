"""Exact theory beside every simulation.

An independent witness of the simulator: it never imports the agents, the model or the engine.

One model that trains on its own output and a share λ of human data:

* `fixed_points`: every stable state, healthy or captured by one output.
* `fold_fraction`: the largest fresh fraction at which a captured state still exists.
* `minimum_fresh_fraction`: how much human data prevents collapse, and how much cures it.
* `published_bounds`: how much the published sufficient conditions ask for.
"""

from analysis.theory.states import FixedPoint, fixed_points, fold_fraction
from analysis.theory.thresholds import PublishedBounds, minimum_fresh_fraction, published_bounds

__all__ = [
    "FixedPoint",
    "PublishedBounds",
    "fixed_points",
    "fold_fraction",
    "minimum_fresh_fraction",
    "published_bounds",
]
