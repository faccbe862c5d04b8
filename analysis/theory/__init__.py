"""Exact theory beside every simulation.

An independent witness of the simulator: it never imports the agents, the model or the engine.

One model that trains on its own output and a share λ of human data:

* `fixed_points`: every stable state, healthy or captured by one output.
* `fold_fraction`: the largest fresh fraction at which a captured state still exists.
* `minimum_fresh_fraction`: how much human data prevents collapse, and how much cures it.
* `published_bounds`: how much the published sufficient conditions ask for.

A population on any graph:

* `mean_field`: the limit of many items a round, as a table with the columns of a run; `flow`: of small steps.
* `spectral_threshold`, `population_minimum_fresh_fraction`: how much human data prevents collapse.
* `agreement_modes`, `together_or_apart`: whether providers collapse onto the same output.
* `threshold_sensitivities`, `diversity_sensitivities`: where one more unit of human data helps most.

At T = 1, any graph: `second_moments`, `expected_simpson_diversity`, `mean_distributions`, exactly.

Urns and drift: `polya_limit`, `polya_variance`, `takeover_probabilities`, `urn_mean_field`, `relaxation`,
`fixation_time`, `symbol_survival` and their relatives.
"""

from analysis.theory.agreement import AgreementModes, agreement_modes, together_or_apart
from analysis.theory.continuation import LeastFreshFraction, healthy_state, population_minimum_fresh_fraction
from analysis.theory.drift import (
    fixation_time,
    fixation_time_diffusion,
    symbol_survival,
    symbol_survival_bound,
    symbol_survival_poisson,
    unfixed_probability,
)
from analysis.theory.meanfield import (
    Population,
    flow,
    mean_field,
    mean_field_distributions,
    mean_field_states,
)
from analysis.theory.moments import (
    expected_simpson_diversity,
    expected_simpson_diversity_of_mean,
    iterate_second_moments,
    mean_distributions,
    second_moments,
    squared_distances,
)
from analysis.theory.populations import SpectralThreshold, spectral_threshold
from analysis.theory.sensitivity import Sensitivities, diversity_sensitivities, threshold_sensitivities
from analysis.theory.states import FixedPoint, fixed_points, fold_fraction
from analysis.theory.takeover import takeover_probabilities
from analysis.theory.thresholds import PublishedBounds, minimum_fresh_fraction, published_bounds
from analysis.theory.urns import (
    Relaxation,
    polya_limit,
    polya_variance,
    relaxation,
    relaxation_spread,
    urn_mean_field,
)

__all__ = [
    "AgreementModes",
    "FixedPoint",
    "LeastFreshFraction",
    "Population",
    "PublishedBounds",
    "Relaxation",
    "Sensitivities",
    "SpectralThreshold",
    "agreement_modes",
    "diversity_sensitivities",
    "expected_simpson_diversity",
    "expected_simpson_diversity_of_mean",
    "fixation_time",
    "fixation_time_diffusion",
    "fixed_points",
    "flow",
    "fold_fraction",
    "healthy_state",
    "iterate_second_moments",
    "mean_distributions",
    "mean_field",
    "mean_field_distributions",
    "mean_field_states",
    "minimum_fresh_fraction",
    "polya_limit",
    "polya_variance",
    "population_minimum_fresh_fraction",
    "published_bounds",
    "relaxation",
    "relaxation_spread",
    "second_moments",
    "spectral_threshold",
    "squared_distances",
    "symbol_survival",
    "symbol_survival_bound",
    "symbol_survival_poisson",
    "takeover_probabilities",
    "threshold_sensitivities",
    "together_or_apart",
    "unfixed_probability",
    "urn_mean_field",
]
