"""Has it collapsed? Eight definitions side by side, the time it took, and the half-life of diversity.

"Model collapse" is used in eight senses (Schaeffer, Kazdan, Arulandu, Koyejo, *Position: Model Collapse Does
Not Mean What You Think*, arXiv:2503.03150), and a run may have collapsed in one and not in another. Each is
made a number here, with the line at which this project says yes. The lines are conventions; the numbers are
not. The population risk of a law Θ is its cross-entropy on human data, H(h) + KL(h ‖ Θ) in nats; its excess
over the best possible risk is KL(h ‖ Θ), infinite as soon as something that people say cannot occur.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.statistics import Estimate, by_replicate, estimate
from ecosystem import InputError, Trajectory, metrics
from ecosystem.laws import SparseLaws
from ecosystem.types import Floats

TAIL = 0.1
"""The tail is the least probable human outputs that together hold at most this share of human probability."""


@dataclass(frozen=True)
class Definition:
    """One sense of collapse.

    Attributes
    ----------
    name : str
        What it is called.
    number : str
        What is measured.
    measure : function of Trajectory
        Its value with the 95% interval over replicates.
    line : str
        When the verdict is yes, in words.
    verdict : function of (low, high)
        The same, of the ends of the interval (equal where there is a single replicate).
    """

    name: str
    number: str
    measure: Callable[[Trajectory], Estimate]
    line: str
    verdict: Callable[[float, float], bool]


def _over_human(run: Trajectory, metric: str, human: float) -> Estimate:
    """Return a metric at the end, mean over providers, as a multiple of that of human data."""
    last = by_replicate(run.table, metric).iloc[-1]
    return estimate(last / human)


def _catastrophe(run: Trajectory) -> Estimate:
    """Return the excess risk over that of the uniform law; 0 where the human law is uniform itself."""
    uniform = float(np.log(run.human.size) - metrics.entropy(run.human))
    return _over_human(run, "kl_from_human", uniform) if uniform > 1e-9 else Estimate(0.0, 0.0)


def _variance(run: Trajectory) -> Estimate:
    human = float(metrics.simpson_diversity(run.human))
    return _over_human(run, "simpson_diversity", human) if human > 0 else Estimate(1.0, 0.0)


def _risk(run: Trajectory) -> pd.DataFrame:
    return by_replicate(run.table, "kl_from_human")


def _increase(run: Trajectory) -> Estimate:
    risk = _risk(run)
    start, end = risk.iloc[0].to_numpy(), risk.iloc[-1].to_numpy()
    # A risk that was infinite from the start has not increased.
    return estimate(np.where(np.isinf(start), 0.0, end - np.where(np.isinf(start), 0.0, start)))


def _slopes(run: Trajectory, values: pd.DataFrame, first: int) -> Estimate:
    """Least-squares slope of each replicate's values against ln(items trained on), from a record on."""
    scenario = run.scenario
    items = scenario.pretraining_size + values.index.to_numpy() * scenario.per_provider("batch_size").mean()
    clock, part = np.log(items)[first:], values.to_numpy()[first:]
    if not np.isfinite(part).all():
        return estimate(np.where(np.isfinite(part).all(axis=0), 0.0, np.inf))
    centred = clock - clock.mean()
    return estimate(centred @ part / (centred @ centred))


def _trend(run: Trajectory) -> Estimate:
    risk = _risk(run)
    return _slopes(run, risk, len(risk) // 2)


def _exponent(run: Trajectory) -> Estimate:
    risk = _risk(run)
    if risk.to_numpy().max() < 1e-12:
        return Estimate(-1.0, 0.0)  # nothing to unlearn, as with a single output
    return _slopes(run, risk.clip(lower=1e-300).transform(np.log), len(risk) // 2)


def tail_kept(laws: Floats, human: Floats) -> Floats:
    """Return the probability of the human tail as a share of its human one; see `TAIL`.

    Parameters
    ----------
    laws : ndarray, shape (..., V)
        Laws of models.
    human : ndarray, shape (V,)
        The law of human data. Where a single output already holds more than the tail may, the rarest one
        is the tail.

    Returns
    -------
    ndarray, shape (...)
        0 where the tail is lost, 1 where it is as probable as among people; more is possible.
    """
    tail = _rarest(human)
    return laws[..., tail].sum(axis=-1) / human[tail].sum()


def _rarest(human: Floats) -> np.ndarray:
    """Return which outputs are the tail, a mask of shape (V,)."""
    rising = np.argsort(human, kind="stable")
    tail = rising[(np.cumsum(human[rising]) <= TAIL) & (human[rising] > 0)]
    if tail.size == 0:
        tail = rising[human[rising] > 0][:1]
    return np.isin(np.arange(human.size), tail)


def _tail(run: Trajectory) -> Estimate:
    tail = _rarest(run.human)
    return estimate(_share(run, tail) / run.human[tail].sum())


def _unheard(run: Trajectory) -> Estimate:
    return estimate(_share(run, run.human == 0))


def _share(run: Trajectory, outputs: np.ndarray) -> Floats:
    """Return the probability of a set of outputs (a mask) in the mean law of every replicate."""
    laws = run.final_active
    mass = laws.mass(outputs) if isinstance(laws, SparseLaws) else laws[:, :, outputs].sum(axis=2)
    return mass.mean(axis=1)


DEFINITIONS = (
    Definition(
        "catastrophic increase of risk",
        "excess risk, in units of that of guessing uniformly",
        _catastrophe,
        "above 1: worse than having learned nothing (a uniform law has nothing to learn: no)",
        lambda low, high: low > 1,
    ),
    Definition(
        "any increase of risk",
        "excess risk now minus excess risk in round 0, nats",
        _increase,
        "above 0",
        lambda low, high: low > 0,
    ),
    Definition(
        "diverging risk",
        "rise of the excess risk per factor e of items, second half of the records, nats",
        _trend,
        "above 0.01: still rising with the logarithm of the data (infinite: diverged)",
        lambda low, high: low > 0.01,
    ),
    Definition(
        "collapsing variance",
        "1 − ΣΘ², as a share of that of human data",
        _variance,
        "below 1/2",
        lambda low, high: high < 0.5,
    ),
    Definition(
        "changed scaling law",
        "exponent of the excess risk against items, second half of the records",
        _exponent,
        "above −1/2; learning from human data alone has −1",
        lambda low, high: low > -0.5,
    ),
    Definition(
        "disappearing tail",
        f"probability of the human tail (the rarest {TAIL:.0%}), as a share of its human one",
        _tail,
        "below 1/2",
        lambda low, high: high < 0.5,
    ),
    Definition(
        "hallucinated outputs",
        "probability of outputs that people never produce",
        _unheard,
        "above 0.01",
        lambda low, high: low > 0.01,
    ),
    Definition(
        "blurred modes",
        "effective number of outputs, as a multiple of that of human data",
        lambda run: _over_human(run, "hill_1", float(metrics.hill(run.human, 1))),
        "above 1.1: what people tell apart has become alike",
        lambda low, high: low > 1.1,
    ),
)


def collapse_profile(run: Trajectory) -> pd.DataFrame:
    """Return the eight definitions side by side, each with its number at the end of the run and its verdict.

    Parameters
    ----------
    run : Trajectory
        With at least 5 recorded rounds, round 0 included.

    Returns
    -------
    pandas.DataFrame
        Eight rows, columns: definition; number (what is measured, mean over providers); value; half_width
        (95%, over replicates; missing with a single one); collapsed; line (when the verdict is yes; it
        goes by the whole interval, so that noise alone does not collapse a run).

    Raises
    ------
    InputError
        If fewer rounds were recorded.
    """
    recorded = run.table["round"].nunique()
    if recorded < 5:
        raise InputError(
            f"the run has {recorded} recorded rounds; a collapse profile needs 5: lower record_every"
        )
    rows = []
    for definition in DEFINITIONS:
        value, half = definition.measure(run)
        reach = half if np.isfinite(half) else 0.0
        rows.append(
            {
                "definition": definition.name,
                "number": definition.number,
                "value": value,
                "half_width": half,
                "collapsed": bool(definition.verdict(value - reach, value + reach)),
                "line": definition.line,
            }
        )
    return pd.DataFrame(rows)


def time_to_collapse(run: Trajectory, keep: float = 0.5, metric: str = "hill_1") -> pd.DataFrame:
    """Return when diversity fell below a share of that of human data, replicate by replicate.

    Parameters
    ----------
    run : Trajectory
        Times are known to the recorded rounds.
    keep : float
        The share, above 0 and below 1.
    metric : str
        A metric of the table that is large for diverse laws; mean over providers.

    Returns
    -------
    pandas.DataFrame
        Columns replicate, round (the first recorded one below, or the last one recorded), censored (True
        if it had not fallen below by then: the time is longer than the round given).

    Raises
    ------
    InputError
        If the share or the metric is not allowed.
    """
    if not 0 < keep < 1:
        raise InputError(f"keep = {keep!r}: allowed: a number above 0 and below 1, e.g. keep = 0.5")
    of_human = metrics.of_laws(run.human, run.human, run.human, run.scenario.mass_k)
    if metric not in of_human:
        raise InputError(f"metric = {metric!r}: allowed: {', '.join(of_human)}")
    return first_below(by_replicate(run.table, metric), keep * float(of_human[metric]))


def first_below(values: pd.DataFrame, line: float) -> pd.DataFrame:
    """Return when each column first fell below a line; columns as `time_to_collapse`.

    Parameters
    ----------
    values : DataFrame
        A row per recorded round, a column per replicate.
    line : float
        The line.
    """
    below = values < line
    fell = below.any().to_numpy()
    return pd.DataFrame(
        {
            "replicate": below.columns,
            "round": np.where(fell, below.idxmax(), below.index[-1]),
            "censored": ~fell,
        }
    )


def half_life(run: Trajectory) -> pd.DataFrame:
    """Return the rounds until half of the initial diversity (effective number of outputs) is lost.

    Between two records the logarithm of diversity is taken as linear. Columns as `time_to_collapse`.
    """
    diversity = by_replicate(run.table, "hill_1").transform(np.log)
    target = diversity.iloc[0] - np.log(2)
    rounds = diversity.index.to_numpy(dtype=float)
    rows = []
    for replicate, values in diversity.items():
        y = values.to_numpy()
        below = np.flatnonzero(y <= target[replicate])
        if below.size == 0:
            rows.append((replicate, rounds[-1], True))
            continue
        k = below[0]
        share = (y[k - 1] - target[replicate]) / (y[k - 1] - y[k])
        rows.append((replicate, rounds[k - 1] + share * (rounds[k] - rounds[k - 1]), False))
    return pd.DataFrame(rows, columns=["replicate", "round", "censored"])
