r"""Exact first and second moments at T = 1: any graph, schedule, fresh fractions and batch sizes.

At T = 1 sampling is the identity, so one round is linear in the laws plus noise whose variance is
quadratic in them: means and inner products close on themselves. Derived here from the round as
`ecosystem.model.Ecosystem` defines it; the derivation is in `second_moments`.

Notation: Θ_i law of provider i, h human law, λ_i fresh fraction, a_i(k) step size, m_i batch size,
B_j outputs per round, A = diag(1 − λ) W, so that A_ij is the chance that a slot of reader i holds an
item of author j.
"""

from collections.abc import Iterator

import numpy as np
from scipy import sparse

from analysis.theory.meanfield import start, step_sizes
from ecosystem.errors import InputError
from ecosystem.scenario import Scenario
from ecosystem.types import Floats

_DENSE = 0.05
"""Share of non-zero entries above which products with W are faster dense."""


def second_moments(scenario: Scenario) -> Floats:
    r"""Return E[Θ_i·Θ_j] after every round, exactly.

    Parameters
    ----------
    scenario : Scenario
        Any scenario at T = 1 without truncation or training error.

    Returns
    -------
    ndarray, shape (rounds + 1, N, N)
        Entry [k, i, j] is E Σ_v Θ_iv(k) Θ_jv(k), in [0, 1]; entry [k, i, i] is the expected
        concentration of provider i, and 1 minus it the expected Simpson diversity. With
        ``initial`` = "sampled" the expectation is also over the pretraining data.

    Raises
    ------
    InputError
        If some temperature is not 1, or ``top_k``, ``top_p`` or ``training_error`` has an effect:
        the moments do not close then.

    Notes
    -----
    Write F_ij = E[Θ_i·Θ_j], g_i = E[Θ_i·h], H = h·h, x_is for the item in slot s of reader i as a unit
    vector, and e_i for their mean over s. Given the laws of the round before, publications are
    independent draws, and a slot holds on average q_i = λ_i h + Σ_j A_ij Θ_j. So

    .. math::
        R_{ij} &= E[Θ_i·q_j] = (F A^T)_{ij} + g_i λ_j \\
        Q_{ij} &= E[q_i·q_j] = (A F A^T)_{ij} + (A g)_i λ_j + λ_i (A g)_j + λ_i λ_j H.

    Two slots of *different* readers are independent, except that both may hold the same one of the B_c
    items of an author c (chance A_ic A_jc / B_c), where x·x' is 1 instead of Θ_c·Θ_c:

    .. math::
        E[e_i·e_j] = Q_{ij} + S_{ij}, \qquad S_{ij} = Σ_c A_{ic} A_{jc} (1 − F_{cc}) / B_c.

    Two slots of *one* batch never hold the same item, so they are independent draws from q_i; with
    replacement (χ = 1, else 0) they meet as the slots of two readers do. A slot meets itself always:

    .. math::
        E[e_i·e_i] = 1/m_i + (1 − 1/m_i)(Q_{ii} + χ S_{ii}).

    Finally, with Θ_i' = (1 − a_i) Θ_i + a_i e_i and e_j of mean q_j given the laws,

    .. math::
        F'_{ij} = (1−a_i)(1−a_j) F_{ij} + (1−a_i) a_j R_{ij} + a_i (1−a_j) R_{ji} + a_i a_j E[e_i·e_j].

    The simulator stops where a batch asks an author for more items than it published, which
    `Scenario` refuses if more likely than 1% over the run. Who reads whom does not depend on what is
    written, so the recursion errs only in the rounds where that would happen, by at most 1 in each,
    and later rounds average the error: the moments of the runs that finish differ from these by at
    most twice the chance of the stop. Where B_j ≥ m_i for all readers it cannot happen.
    """
    n = _n_providers(scenario)
    moments = np.empty((scenario.rounds + 1, n, n))
    for k, moment in enumerate(iterate_second_moments(scenario)):
        moments[k] = moment
    return moments


def iterate_second_moments(scenario: Scenario) -> Iterator[Floats]:
    """Yield the matrices of `second_moments` one round at a time, each a new array of shape (N, N).

    For thousands of providers, where the array of all rounds would not fit in memory.
    """
    fresh, reading = _slots(scenario)
    batch, supply = scenario.per_provider("batch_size"), scenario.per_provider("outputs_per_round")
    human = scenario.source.law
    inner = human @ human
    moment, overlap = _initial_moments(scenario)
    yield moment
    for step in step_sizes(scenario):
        noise = (1 - np.diagonal(moment)) / supply
        seen = reading @ overlap
        synthetic = reading @ moment
        cross = synthetic.T + np.outer(overlap, fresh)  # R
        mixed = np.outer(seen, fresh)
        # Q + S in one product: A (A F + A diag(noise))ᵀ.
        slots = reading @ (synthetic + reading * noise).T + mixed + mixed.T + np.outer(fresh, fresh) * inner
        # Within one batch: the same item twice only with replacement, and each slot with itself.
        pairs = np.diagonal(slots) - (0 if scenario.with_replacement else (reading**2) @ noise)
        np.fill_diagonal(slots, 1 / batch + (1 - 1 / batch) * pairs)
        keep = 1 - step
        kept = np.outer(keep, step) * cross
        moment = np.outer(keep, keep) * moment + kept + kept.T + np.outer(step, step) * slots
        moment = (moment + moment.T) / 2  # rounding must not make it drift from symmetry
        overlap = keep * overlap + step * (seen + fresh * inner)
        yield moment


def expected_simpson_diversity(scenario: Scenario) -> Floats:
    """Return the expected Simpson diversity E[1 − ΣΘ_i²] of every provider, shape (rounds + 1, N).

    The mean of the metric ``simpson_diversity`` over replicates tends to it. One round earlier, 1 minus
    it is the expectation of ``self_similarity``: two items of one publication are independent draws.
    """
    return np.stack([1 - np.diagonal(moment) for moment in iterate_second_moments(scenario)])


def expected_simpson_diversity_of_mean(scenario: Scenario) -> Floats:
    """Return the expected Simpson diversity of the mean law (1/N) Σ_i Θ_i, shape (rounds + 1,).

    It exceeds the mean over providers of `expected_simpson_diversity` by what they differ: half the
    mean of `squared_distances` over all N² ordered pairs.
    """
    return np.array([1 - moment.mean() for moment in iterate_second_moments(scenario)])


def squared_distances(moments: Floats) -> Floats:
    r"""Return E‖Θ_i − Θ_j‖² = F_ii + F_jj − 2 F_ij, of the shape (..., N, N) of the moments given."""
    own = np.diagonal(moments, axis1=-2, axis2=-1)
    return own[..., :, None] + own[..., None, :] - 2 * moments


def mean_coefficients(scenario: Scenario) -> tuple[Floats, Floats]:
    r"""Return C and c such that E Θ_i(k) = Σ_j C_ij(k) Θ_j(0) + c_i(k) h, exactly.

    Returns
    -------
    initial : ndarray, shape (rounds + 1, N, N)
        C: what is left in model i of the model that provider j started from.
    human : ndarray, shape (rounds + 1, N)
        c: share of model i that comes from human data met since. Every row of C sums to 1 − c.

    Raises
    ------
    InputError
        As `second_moments`.

    Notes
    -----
    E Θ_i' = (1 − a_i) E Θ_i + a_i (λ_i h + Σ_j A_ij E Θ_j): batch sizes and replacement matter to the
    mean through the step sizes only.
    """
    n = _n_providers(scenario)
    fresh, reading = _slots(scenario)
    initial, human = [np.eye(n)], [np.zeros(n)]
    for step in step_sizes(scenario):
        human.append((1 - step) * human[-1] + step * (fresh + reading @ human[-1]))
        initial.append((1 - step)[:, None] * initial[-1] + step[:, None] * (reading @ initial[-1]))
    return np.stack(initial), np.stack(human)


def mean_distributions(scenario: Scenario) -> Floats:
    """Return E Θ_i after every round, shape (rounds + 1, N, V), exactly.

    The same linear recursion as `mean_coefficients`, and the same errors.
    """
    fresh, reading = _slots(scenario)
    law = scenario.source.law
    means = [start(scenario)]
    for step in step_sizes(scenario):
        learned = np.outer(fresh, law) + reading @ means[-1]
        means.append((1 - step)[:, None] * means[-1] + step[:, None] * learned)
    return np.stack(means)


# --- what the recursions read of a scenario -----------------------------------------------------------


def _n_providers(scenario: Scenario) -> int:
    return scenario.per_provider("temperature").size


def _slots(scenario: Scenario) -> tuple[Floats, Floats | sparse.csr_array]:
    """Return λ and A, dense or sparse, after checking that moments close."""
    temperature = scenario.per_provider("temperature")
    if (temperature != 1).any():
        other = temperature[temperature != 1][0]
        raise InputError(f"temperature = {other}: exact moments exist at 1 only; write temperature = 1.0")
    size = scenario.source.law.size
    for name, none in (("top_k", size), ("top_p", 1.0)):
        value = getattr(scenario, name)
        if value is not None and value < none:
            raise InputError(
                f"{name} = {value}: exact moments exist without truncation only; leave {name} out"
            )
    if scenario.training_error > 0:
        raise InputError(
            f"training_error = {scenario.training_error}: exact moments exist for perfect training only; "
            "write training_error = 0.0"
        )
    fresh = scenario.per_provider("fresh_fraction")
    reading = sparse.csr_array(sparse.diags_array(1 - fresh) @ scenario.W)
    dense = reading.nnz > _DENSE * fresh.size**2
    return fresh, reading.toarray() if dense else reading


def _initial_moments(scenario: Scenario) -> tuple[Floats, Floats]:
    """Return F and g of round 0; pretraining samples of ℓ(0) items repeat one with chance 1/ℓ(0)."""
    means = start(scenario)
    moment = means @ means.T
    if isinstance(scenario.initial, str) and scenario.initial == "sampled":
        np.fill_diagonal(moment, moment.diagonal() + (1 - moment.diagonal()) / scenario.pretraining_size)
    return moment, means @ scenario.source.law
