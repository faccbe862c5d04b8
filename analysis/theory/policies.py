r"""The mean field of a scenario with interventions: the limit of many items a round, round by round.

The rules of every round are those that a run gets (`ecosystem.interventions.rules_in_force`), asked about the
state of the mean field in place of that of a run. With Rules in force, an author's outputs have the law

.. math:: p_j = \text{best of } K \text{ of } \tau_{T_j}(\Theta_j)

and the frequencies of a batch tend, as its items grow, to

.. math:: e_i = \frac{\lambda_i w^h_i\, h + (1-\lambda_i) w^s_i \sum_j W_{ij}\, \bar p_j}
                     {\lambda_i w^h_i + (1-\lambda_i) w^s_i},

with h the human law of the round, :math:`\bar p_j` the mean of p_j over the window, and w^h, w^s the weights
of items, each times 1 − r + r·(weight) where a detector flags a share r. Under "accumulate" the corpus of a
model grows by m_i times the denominator. Derived here: the law of large numbers for one slot of a batch.

A stock of human data that is used up (`HumanSupply`) leaves no trace in this limit: the frequencies of
infinitely many items are h. What it does is of order 1/items.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ecosystem.interventions import Rules, active_in, rules_in_force
from ecosystem.scenario import Scenario
from ecosystem.temperature import tempered, truncated
from ecosystem.types import Floats


class RoundField(NamedTuple):
    """One round of the mean field: Θ after it and what was published in it, (N, V), and its rules."""

    theta: Floats
    published: Floats
    rules: Rules


@dataclass
class _State:
    """What a policy may see of the mean field (`ecosystem.interventions.Observed`)."""

    round: int
    human: Floats
    human_counts: Any  # expected numbers
    human_items: Any
    synthetic_items: Any
    mean_distribution: Floats
    published_law: Floats | None = None


def rounds_under_rules(scenario: Scenario, theta: Floats) -> Iterator[RoundField]:
    """Yield the mean field of rounds 1, 2, … from Θ(0), shape (N, V); see the module."""
    n = len(theta)
    human = scenario.source.law
    trained = np.full(n, float(scenario.pretraining_size))
    entered = active_in(scenario.interventions, 1, n)
    state = _State(1, human, np.zeros(human.size), entered.sum() * scenario.pretraining_size, 0, human)
    shelf: deque[tuple[Floats, Floats]] = deque(maxlen=scenario.corpus_rounds)
    for state.round in range(1, scenario.rounds + 1):
        active = active_in(scenario.interventions, state.round, n)
        state.human_items += (active & ~entered).sum() * scenario.pretraining_size
        entered |= active
        state.mean_distribution = theta[active].mean(axis=0)
        rules = rules_in_force(scenario, state, base=Rules.of(scenario))
        outputs = np.where(rules.active, rules.outputs_per_round, 0.0)
        published = published_laws(scenario, theta, rules)
        shelf.append((outputs[:, None] * published, outputs))
        laws = _window_laws(list(shelf)[-rules.window :])
        by_human, by_models = slot_weights(rules)
        weight = by_human + by_models
        learns = rules.active & (weight > 0)
        mixed = by_human[:, None] * rules.human + by_models[:, None] * (rules.W @ laws)
        target = np.divide(mixed, weight[:, None], out=theta.copy(), where=learns[:, None])
        grown = np.where(learns, rules.batch_size * weight, 0.0)
        steps = np.array(
            [
                rules.schedule.step_size(state.round, g, before) if g > 0 else 0.0
                for g, before in zip(grown, trained, strict=True)
            ]
        )
        theta = (1 - steps[:, None]) * theta + steps[:, None] * target
        trained = trained + grown
        used = float((rules.batch_size * rules.fresh_fraction)[rules.active].sum())
        state.human_items += used
        state.human_counts = state.human_counts + (0 if rules.reused else used) * rules.human
        state.synthetic_items += outputs.sum()
        state.published_law = outputs @ published / outputs.sum()
        yield RoundField(theta, published, rules)


def _window_laws(rounds: list[tuple[Floats, Floats]]) -> Floats:
    """Return the law of what each author published over some rounds; 0 for one who published nothing."""
    items = np.sum([items for items, _ in rounds], axis=0)
    number = np.sum([number for _, number in rounds], axis=0)[:, None]
    return np.divide(items, number, out=np.zeros_like(items), where=number > 0)


def published_laws(scenario: Scenario, theta: Floats, rules: Rules) -> Floats:
    """Return the law that each provider's published items have under some rules; (N, V) to (N, V)."""
    tau = tempered(theta, rules.temperature)
    if scenario.top_k is not None or scenario.top_p is not None:
        tau = np.stack([truncated(law, scenario.top_k, scenario.top_p) for law in tau])
    if rules.best_of == 1 or rules.score is None:
        return tau
    return rules.verifier_error * tau + (1 - rules.verifier_error) * best_of(tau, rules.score, rules.best_of)


def best_of(tau: Floats, score: Floats, k: int) -> Floats:
    """Return the law of the best of k draws by score, shape (N, V) to (N, V); ties go to the first draw.

    The best has score s with probability U^k − (U − M)^k, with M the mass of the outputs of score s and U
    that of those of score s or less; among equals it is distributed as τ.
    """
    _, level = np.unique(score, return_inverse=True)
    mass = np.zeros((len(tau), level.max() + 1))
    np.add.at(mass.T, level, tau.T)
    upto = np.cumsum(mass, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        # U^k (1 − (1 − M/U)^k) / M, without the cancellation for small M.
        best = upto**k * -np.expm1(k * np.log1p(-np.minimum(mass / upto, 1.0))) / mass
    best = np.where(mass > 0, best, 0.0)
    law = tau * best[:, level]
    return law / law.sum(axis=1, keepdims=True)


def slot_weights(rules: Rules) -> tuple[Floats, Floats]:
    """Return λ w^h and (1 − λ) w^s: the expected weight of humans and of models in a slot, each (N,)."""
    true, false, factor = rules.flag or (0.0, 0.0, 1.0)
    fresh = rules.fresh_fraction
    return (
        fresh * rules.human_weight * (1 - false + false * factor),
        (1 - fresh) * rules.synthetic_weight * (1 - true + true * factor),
    )
