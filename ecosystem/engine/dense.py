"""What providers have learned, as whole laws: where every output changes in a round, or is looked at."""

import numpy as np

from ecosystem import metrics
from ecosystem.engine import kernels
from ecosystem.engine.laws import Laws, Published, Step
from ecosystem.engine.measures import METRICS
from ecosystem.generative.categorical import projected
from ecosystem.interventions import Rules
from ecosystem.randomness import Decision, Streams, sample
from ecosystem.scenario import Scenario
from ecosystem.temperature import tempered, truncated
from ecosystem.types import Floats


class DenseState(Laws):
    """Θ itself, by the same functions as in the reference engine: top-k, top-p, T = 0 and training error.

    A round costs rows × V, as there.
    """

    representation = "dense"

    def __init__(self, scenario: Scenario, replicates: range, cuts: list[tuple[int, int]]) -> None:
        super().__init__(scenario, replicates, cuts)
        self.scenario = scenario
        size = scenario.source.law.size
        self.theta = np.empty((self.rows, size))
        if isinstance(scenario.initial, str) and scenario.initial == "sampled":
            tally = kernels.empty_tally(size)
            for first, last in cuts:
                step = self.pretraining(scenario, first, last - first, tally)
                self.theta[first:last] = self._frequencies(step, first, last)
        else:
            laws = self.start_laws(scenario)
            self.theta[:] = np.tile(np.broadcast_to(laws, (self.n, size)), (len(replicates), 1))
        self.before = self.theta.copy()
        self.set_temperature(scenario.per_provider("temperature"))

    def set_temperature(self, temperature: Floats) -> None:
        """Let the providers sample at temperatures T, shape (N,), from now on."""
        self._temperature = np.tile(temperature, len(self.replicates))

    def _streams(self, row: int) -> tuple[Streams, int]:
        return Streams(self.seed, self.replicates.start + row // self.n), row % self.n

    def sampled_law(self, row: int) -> Floats:
        """Return the law that a row publishes from, shape (V,)."""
        law = tempered(self.theta[row], self._temperature[row])
        return truncated(law, self.scenario.top_k, self.scenario.top_p)

    def publish(self, cut: int, rules: Rules, published: Published, round: int) -> None:
        """Draw what the rows of a cut publish."""
        for row in range(*self.cuts[cut]):
            if not self.active[row]:
                continue
            streams, provider = self._streams(row)
            ends = np.cumsum(self.sampled_law(row))
            size, at = published.size[row], published.at[row]
            items = sample(ends, streams.uniforms(size, Decision.PUBLISH, round=round, provider=provider))
            if rules.best_of > 1 and rules.score is not None:
                more = size * (rules.best_of - 1)
                luck = streams.uniforms(more, Decision.CANDIDATE, round=round, provider=provider)
                candidates = np.column_stack([items, sample(ends, luck).reshape(size, -1)])
                best = np.argmax(rules.score[candidates], axis=1)
                slips = streams.uniforms(size, Decision.VERIFIER, round=round, provider=provider)
                best[slips < rules.verifier_error] = 0
                items = candidates[np.arange(size), best]
            published.items[at : at + size] = items

    def learn(self, cut: int, step: Step, measuring: bool) -> None:
        """Move the rows of a cut towards their batches."""
        first, last = self.cuts[cut]
        if measuring:
            self.before[first:last] = self.theta[first:last]
        own = slice(first, last)
        learning = step.distinct[own] > 0
        step.trained[own] += step.weight[own]
        size = step.weight[own] / step.trained[own] if np.isnan(step.a) else step.a
        a = np.where(learning, size, 0.0)[:, None]
        self.theta[own] = (1 - a) * self.theta[own] + a * self._frequencies(step, first, last)
        error = self.scenario.training_error
        for row in range(first, last) if error > 0 else ():
            if learning[row - first]:
                streams, provider = self._streams(row)
                luck = streams.uniforms(
                    self.theta.shape[1], Decision.TRAINING_ERROR, round=step.round, provider=provider
                )
                self.theta[row] = projected(self.theta[row] + error * (luck - 0.5))

    def _frequencies(self, step: Step, first: int, last: int) -> Floats:
        """Return the batches' frequencies of rows first to last, shape (last − first, V)."""
        out = np.zeros((last - first, self.theta.shape[1]))
        for row in range(first, last):
            span = slice(step.at[row], step.at[row] + step.distinct[row])
            if step.distinct[row]:
                out[row - first, step.outputs[span]] = step.weights[span] / step.weight[row]
        return out

    def distributions(self, first: int, last: int) -> Floats:
        """Return Θ of rows first to last, shape (last − first, V)."""
        return self.theta[first:last].copy()

    def measure_rows(self, cut: int, mass_k: int, entropy: float, out: Floats) -> None:
        """Fill ``out``, shape (rows, 13), with the metrics of the rows of a cut."""
        own = slice(*self.cuts[cut])
        of_laws = metrics.of_laws(self.theta[own], self.before[own], self.scenario.source.law, mass_k)
        out[own] = np.column_stack([of_laws[name] for name in METRICS])
        out[own][~self.active[own]] = np.nan
