r"""Every state of one model at T < 1 as a point of an explicit curve.

With the notation of `analysis.theory.roots`, λ h_v = c b_v: the loads b_v = h_v r share one factor r = λ/c.
Choose a root y(b_v) for each output and let N = Σ_v y_v. Then Θ = y/N is a fixed point at

.. math:: \lambda = r / N(r),

so every branch of fixed points, over all λ at once, is one explicit curve with one parameter. The
parameter p places the most probable output on its curve (`roots.along`); r and all the rest follow.

**Stability.** On Σδ = 0 the Jacobian diag(g − 1) − τ gᵀ is similar to a diagonal minus a square, so its
eigenvalues interlace g_v − 1. No g_v > 1: stable. Two or more: unstable. One, g_w > 1: the sign of the
determinant decides, and the state is stable if and only if

.. math:: A_w > \sum_{v\ne w} B_v,\qquad A_w = \frac{y_w g_w}{g_w-1},\quad B_v = \frac{y_v g_v}{1-g_v},

which is also the sign of dλ/dr along the branch: stability changes at the folds of the curve only.

**Where it leads.** The mean field climbs Φ(Θ) = λ Σ h ln Θ + (1−λ) T ln ΣΘ^{1/T}: Θ_v' = Θ_v (∂_vΦ − 1),
so dΦ/ds is the variance of ∂Φ under Θ. There are no cycles; every trajectory ends in fixed points.

**How many.** (i) Captured by w, while another output u is at least as probable: ΣΘ is convex in s, because
every low root is and so is the sum of the high root of w and the low root of u. So ΣΘ = 1 at most
twice, once stable. (ii) With the most probable output on its curve, A/ΣB falls and then rises on the high
side: λ(p) falls, may rise between two folds, and falls again. So there are at most two stable states,
one before and one after the folds, and both may have that output on its high root.
(i) and (ii) each rest on an inequality between the two roots of one load, in T and the load alone. It was
checked numerically on dense grids, not proved: that Θ'' in s is no smaller in size at the low than at the
high root, and the one in `Curves.turns`.

All derived here.
"""

from functools import cached_property

import numpy as np

from analysis.theory import roots
from analysis.theory.levels import Levels
from analysis.theory.roots import Root, root_between
from ecosystem.types import Floats


class Curves:
    """The branches of fixed points of one model at 0 < T < 1.

    Parameters
    ----------
    human : ndarray, shape (V,)
        The law h.
    temperature : float
        0 < T < 1.

    Attributes
    ----------
    ties : ndarray of int
        The most probable outputs (one, unless some tie to the last bit of their logarithms).
    """

    def __init__(self, human: Floats, temperature: float) -> None:
        self.human = human
        self.temperature = temperature
        self.a = (1 - temperature) / temperature
        self._log_peak = float(np.log(human.max()))
        log_ratio = np.log(human, out=np.full(human.size, -np.inf), where=human > 0) - self._log_peak
        self.ties = np.flatnonzero(log_ratio == 0)
        self._others = np.flatnonzero((log_ratio < 0) & (human > 0))
        self._log_ratio = log_ratio[self._others]
        self._levels = Levels.of(self._log_ratio)

    # --- the curve --------------------------------------------------------------------------------

    def log_fresh(self, p: float, output: int | None = None) -> float:
        """Return ln λ at position p of a branch.

        Parameters
        ----------
        p : float
            Position of the most probable output(s). With an output given, p ≤ 0.
        output : int, optional
            The output on its high root, with every other one on its low root. None: the most probable
            output(s) lie at p, low or high, and all others are low.
        """
        top = roots.along(p, self.a)
        others = float(self._levels.weight @ np.exp(self._low(top)))
        if output is None:
            # r/N with both relative to the most probable output, whose y may underflow.
            log_size = np.log(len(self.ties) + others)
            return float(np.log1p(-self.temperature) - self._log_peak + top.q - log_size)
        high, given_up = self._high(top, output)
        size = np.exp(high.u) + np.exp(top.u) * (len(self.ties) + others - given_up)
        return float(np.log1p(-self.temperature) - self._log_peak - top.depth - np.log(size))

    def distribution(self, p: float, output: int | None = None) -> Floats:
        """Return the fixed point at position p of a branch, shape (V,)."""
        top = roots.along(p, self.a)
        theta = np.zeros(self.human.size)
        theta[self.ties] = 1.0
        theta[self._others] = np.exp(roots.low(self._log_ratio, top, self.a))
        if output is not None:
            high, _ = self._high(top, output)
            theta *= np.exp(top.u - high.u)
            theta[output] = 1.0
        return theta / theta.sum()

    def _low(self, top: Root) -> Floats:
        return roots.low(self._levels.log_ratio, top, self.a)

    def _high(self, top: Root, output: int) -> tuple[Root, float]:
        """Return the high root of an output, and its low root relative to the most probable output's."""
        if self.human[output] == 0:
            return roots.high(np.inf, self.a), 0.0
        if output in self.ties:
            return roots.high(top.depth, self.a), 1.0
        ratio = np.log(self.human[[output]]) - self._log_peak
        high = roots.high(top.depth - float(ratio[0]), self.a)
        return high, float(np.exp(roots.low(ratio, top, self.a))[0])

    # --- folds ------------------------------------------------------------------------------------

    def _bulk(self, top: Root) -> tuple[Floats, Floats]:
        """Return u and B, times their weight, of the levels below the most probable output."""
        u = np.minimum(top.u + self._low(top), -1e-300)
        return u, self._levels.weight * self._b(u)

    def _b(self, u: Floats) -> Floats:
        return np.exp((1 + self.a) * u) / -np.expm1(self.a * u)

    def _surplus(self, p: float, output: int) -> float:
        """Return (1 − g_top)(A − ΣB): positive where the state captured by an output is stable."""
        top = roots.along(p, self.a)
        high, given_up = self._high(top, output)
        short, gain = -np.expm1(self.a * p), np.exp(self.a * p)  # 1 − g and g of the most probable
        bulk = float(self._bulk(top)[1].sum())
        tied = output in self.ties
        if not tied and given_up:
            bulk -= float(self._b(np.minimum(top.u + np.log(given_up), -1e-300)))
        loss = short * bulk + (len(self.ties) - tied) * np.exp(p) * gain
        return short * np.exp((1 + self.a) * high.u) / np.expm1(self.a * high.u) - loss

    def fold(self, output: int) -> float:
        """Return the position p ≤ 0 at which the state captured by an output is born as λ falls.

        For the single most probable output this state is on the branch of `turns` instead. At p = 0 the
        surplus is minus the number of (other) most probable outputs, and far below it is positive: one
        sign change. Two outputs that tie are a pitchfork: both lie at the crest, the two terms cancel
        there to second order, and if the surplus is still positive close by, the branch ends at p = 0.
        """
        tied = output in self.ties
        end = -1e-3 * min(1.0, 1 / self.a) if tied else 0.0
        if tied and self._surplus(end, output) >= 0:
            return 0.0
        start = -1.0 * min(1.0, 1 / self.a)
        while self._surplus(start, output) <= 0:
            start *= 2
        return root_between(lambda p: self._surplus(p, output), start, end)

    @cached_property
    def turns(self) -> tuple[float, float] | None:
        r"""Positions p_1 < p_2 of the folds of the branch of the most probable output(s), if it has any.

        Notes
        -----
        In ln c, dln(A/ΣB) is proportional to the mean of k(g_v) with weights B_v, minus k(g_top), where
        k(g) = (1/T − g²)/(1 − g)². The difference is negative at the crest and not negative at
        g_top = 2/(1 + T), where k(g_top) = k(0) = min k; it changes sign once, because
        (F − F(0))/(k − k(0)) with F = k² + 2 g (1/T − g)²/(1 − g)⁴ is larger at the high than at the low
        root of one load. There are folds if A < ΣB at that one minimum of A/ΣB.
        """
        if not self._levels.weight.size:
            return None

        def turning(p: float) -> float:
            top = roots.along(p, self.a)
            u, bulk = self._bulk(top)
            if not bulk.sum() > 0:
                return 1.0
            return float(bulk @ self._k(u) / bulk.sum() - self._k(np.array(top.u)))

        def surplus(p: float) -> float:
            top = roots.along(p, self.a)
            gained = len(self.ties) * np.exp((1 + self.a) * top.u)
            return gained - np.expm1(self.a * top.u) * float(self._bulk(top)[1].sum())

        end = float(np.log1p(1 / (1 + self.a)))
        start = 1e-6 * end
        if turning(start) >= 0:
            return None
        deepest = root_between(turning, start, end) if turning(end) > 0 else end
        if surplus(deepest) >= 0:
            return None
        end = 2 * deepest
        while surplus(end) <= 0:
            end *= 2
        return root_between(surplus, 0.0, deepest), root_between(surplus, deepest, end)

    def _k(self, u: Floats) -> Floats:
        return (self.a - np.expm1(2 * self.a * u)) / np.expm1(self.a * u) ** 2

    # --- where the states lie ---------------------------------------------------------------------

    @cached_property
    def healthy_to(self) -> float:
        """Position up to which the branch of the most probable output(s) is healthy.

        Its first fold; without folds the crest, beyond which a single output has taken over. Outputs
        that tie stay together, and a law of one output stays itself, for ever.
        """
        if self.turns is not None:
            return self.turns[0]
        return 0.0 if len(self.ties) == 1 and self.human.max() < 1 else np.inf

    def captured_from(self, output: int) -> tuple[float, int | None]:
        """Return the position and branch from which on, as λ falls, an output has taken over."""
        if len(self.ties) == 1 and output == self.ties[0]:
            return (self.turns[1] if self.turns else self.healthy_to), None
        return self.fold(output), output

    def healthy_at(self, log_fresh: float) -> float | None:
        """Return the position of the healthy state at ln λ, if there is one.

        The branch falls from λ = 1. The search starts where 1 − T g_top is the λ asked for: there the
        branch is not below it, because 1 = Σ_v λ h_v/(1 − T g_v) ≤ λ/(1 − T g_top).
        """
        if np.isfinite(self.healthy_to) and self.log_fresh(self.healthy_to) > log_fresh:
            return None
        start = min(0.0, np.log(-np.expm1(log_fresh) / self.temperature)) / self.a
        return self._falling(log_fresh, min(start, self.healthy_to), self.healthy_to)

    def captured_at(self, log_fresh: float, output: int) -> tuple[float, int | None] | None:
        """Return position and branch of the stable state captured by an output at ln λ, if there is one."""
        start, branch = self.captured_from(output)
        if np.isinf(start) or not self.log_fresh(start, branch) > log_fresh:
            return None
        if branch is None:
            return self._falling(log_fresh, start, np.inf), None
        # N ≥ 1, so that λ ≤ r ≤ e^p / max h.
        end = log_fresh + self._log_peak - 1
        return root_between(lambda p: self.log_fresh(p, branch) - log_fresh, start, end), branch

    def saddle_at(self, log_fresh: float, output: int) -> tuple[float, int | None] | None:
        """Return position and branch of the saddle with one output on its high root, if there is one."""
        start, branch = self.captured_from(output)
        end = 0.0 if branch is not None else self.healthy_to
        if start == end or not self.log_fresh(end, branch) < log_fresh < self.log_fresh(start, branch):
            return None
        return root_between(lambda p: self.log_fresh(p, branch) - log_fresh, end, start), branch

    def _falling(self, log_fresh: float, start: float, end: float) -> float:
        """Return where the branch of the most probable output(s), falling from start to end, is at ln λ."""

        def excess(p: float) -> float:
            return self.log_fresh(p) - log_fresh

        if excess(start) <= 0:
            return start  # not above ln λ, by rounding
        if np.isinf(end):
            end = step = max(start, min(1.0, 1 / self.a))
            while excess(end) > 0:
                end += step
                step *= 2
        return root_between(excess, start, end)
