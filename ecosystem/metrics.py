r"""Failure signatures: what collapse looks like, as numbers with formulas.

Laws are arrays whose last axis counts outputs; every function works on (V,) and on (..., V) and
returns one number per law. Logarithms are natural: entropies and divergences are in nats.
Zero probabilities give the exact limit: 0 log 0 = 0, a divergence towards a missing output is inf.

A metric of the mean law is not the mean of a metric: :math:`E f(\Theta) \ne f(E\,\Theta)`. Columns
of the mean law over providers end in ``_of_mean``.
"""

import numpy as np
from scipy import special

from ecosystem.types import Floats, Integers


def entropy(p: Floats) -> Floats:
    r"""Shannon entropy :math:`H = -\sum_v p_v \ln p_v` in nats, from 0 to ln V."""
    return special.entr(p).sum(axis=-1)


def hill(p: Floats, order: float) -> Floats:
    r"""Effective number of outputs :math:`(\sum_v p_v^q)^{1/(1-q)}` of order q ≥ 0, from 1 to V.

    q = 0 counts the outputs that can still occur, q = 1 is exp(entropy), q = 2 is 1/Σp². Hill (1973).
    """
    p = np.asarray(p)
    if order == 0:
        return (p > 0).sum(axis=-1).astype(np.float64)
    if order == 1:
        return np.exp(entropy(p))
    return (p**order).sum(axis=-1) ** (1 / (1 - order))


def simpson_diversity(p: Floats) -> Floats:
    r"""Chance that two draws differ, :math:`1 - \sum_v p_v^2`, from 0 to 1 − 1/V (Gini-Simpson)."""
    return 1 - (np.asarray(p) ** 2).sum(axis=-1)


def top_mass(p: Floats, k: int) -> Floats:
    """Probability of the k most probable outputs together, from k/V to 1; 1 when k ≥ V."""
    p = np.asarray(p)
    size = p.shape[-1]
    if k >= size:
        return p.sum(axis=-1)
    return np.partition(p, size - k, axis=-1)[..., size - k :].sum(axis=-1)


def human_coverage(p: Floats, human: Floats) -> Floats:
    r"""Share of human probability still covered, :math:`\sum_v h_v 1[p_v > 0]`, from 0 to 1.

    What is missing is the lost tail: the chance that a human item could not have been generated.
    """
    return np.where(np.asarray(p) > 0, human, 0.0).sum(axis=-1)


def kl_divergence(p: Floats, q: Floats) -> Floats:
    r"""Kullback-Leibler divergence :math:`\sum_v p_v \ln(p_v/q_v)` in nats; inf where p has what q lacks."""
    terms = special.rel_entr(p, q).sum(axis=-1)
    return np.maximum(terms, 0.0)  # rounding can leave a tiny negative sum for p ≈ q


def total_variation(p: Floats, q: Floats) -> Floats:
    r"""Total variation :math:`\frac12 \sum_v |p_v - q_v|`: share of probability misplaced, from 0 to 1."""
    return 0.5 * np.abs(np.subtract(p, q)).sum(axis=-1)


def fisher_rao(p: Floats, q: Floats) -> Floats:
    r"""Fisher-Rao distance :math:`2 \arccos \sum_v \sqrt{p_v q_v}`, from 0 to π.

    Computed as 4 arcsin(‖√p − √q‖/2), the same number without the cancellation near 0.
    """
    chord = np.linalg.norm(np.sqrt(p) - np.sqrt(q), axis=-1)
    return 4 * np.arcsin(np.minimum(chord / 2, 1.0))


def jensen_shannon(p: Floats) -> float:
    r"""Generalised Jensen-Shannon divergence of N laws, shape (N, V), with equal weights, in nats.

    .. math:: H\Big(\frac1N \sum_i p_i\Big) - \frac1N \sum_i H(p_i)

    from 0 (all the same) to ln N (no output in common). Lin (1991).
    """
    return max(0.0, float(entropy(p.mean(axis=0)) - entropy(p).mean()))


def alpha_beta_gamma(p: Floats) -> tuple[float, float, float]:
    r"""Diversity within, between and over all of N laws, shape (N, V), as effective numbers of order 1.

    γ = exp H(mean law): outputs in the population; α = exp(mean H): outputs of a typical provider;
    β = γ/α = exp(Jensen-Shannon divergence): effectively different providers, from 1 to N. Jost (2007).
    """
    gamma = float(np.exp(entropy(p.mean(axis=0))))
    alpha = float(np.exp(entropy(p).mean()))
    return alpha, max(1.0, gamma / alpha), gamma


def self_similarity(counts: Integers) -> Floats:
    r"""Chance that two different items of one publication are the same output.

    .. math:: \sum_v n_v (n_v - 1) \,/\, (n (n - 1))

    Unbiased for Σ p_v² of the law they were drawn from. Missing (NaN) where fewer than two items were
    published: there is no pair.
    """
    total = counts.sum(axis=-1).astype(np.float64)
    pairs = total * (total - 1)
    same = (counts * (counts - 1)).sum(axis=-1)
    return np.divide(same, pairs, out=np.full(np.shape(total), np.nan), where=pairs > 0)


def cross_similarity(counts: Integers, others: Floats | Integers) -> Floats:
    r"""Chance that an item of one publication and one of another are the same output, Σ n_v n'_v/(n n').

    Missing (NaN) where either is empty.
    """
    pairs = counts.sum(axis=-1) * (others.sum(axis=-1) * 1.0)
    same = (counts * others).sum(axis=-1)
    return np.divide(same, pairs, out=np.full(np.shape(pairs), np.nan), where=pairs > 0)


def of_laws(p: Floats, previous: Floats, human: Floats, mass_k: int) -> dict[str, Floats]:
    """Return every metric of a law, one entry per law.

    Parameters
    ----------
    p : ndarray, shape (..., V)
        Θ after this round.
    previous : ndarray, shape (..., V)
        Θ after the round before.
    human : ndarray, shape (V,)
        The law of human data.
    mass_k : int
        k of ``top_k_mass``.
    """
    return {
        "entropy": entropy(p),
        "hill_0": hill(p, 0),
        "hill_1": hill(p, 1),
        "hill_2": hill(p, 2),
        "simpson_diversity": simpson_diversity(p),
        "top_1_mass": p.max(axis=-1),
        "top_k_mass": top_mass(p, mass_k),
        "human_coverage": human_coverage(p, human),
        "kl_to_human": kl_divergence(p, human),
        "kl_from_human": kl_divergence(human, p),
        "total_variation": total_variation(p, human),
        "fisher_rao": fisher_rao(p, human),
        "kl_step": kl_divergence(p, previous),
    }


def of_publications(counts: Integers, previous: Floats | Integers) -> dict[str, Floats]:
    """Return the self-similarity of what was published, within the round and with the round before."""
    return {
        "self_similarity": self_similarity(counts),
        "self_similarity_previous": cross_similarity(counts, previous),
    }


def of_providers(p: Floats) -> dict[str, float]:
    """Return the metrics that compare the laws of N providers, shape (N, V)."""
    alpha, beta, gamma = alpha_beta_gamma(p)
    return {
        "jensen_shannon": jensen_shannon(p),
        "alpha_diversity": alpha,
        "beta_diversity": beta,
        "gamma_diversity": gamma,
    }
