"""Means over replicates with their uncertainty."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import special


class Estimate(NamedTuple):
    """A mean with the half-width of its 95% interval; the half-width is NaN for a single value."""

    mean: float
    half_width: float

    def text(self, digits: int = 3) -> str:
        """Write as "12.3 ± 0.4", or "12.3" where there is no interval, or none wider than rounding errors."""
        if not 1e-12 * abs(self.mean) < self.half_width < np.inf:
            return number(self.mean, digits)
        places = max(0, 1 - int(np.floor(np.log10(self.half_width))))
        return f"{self.mean:,.{places}f} ± {self.half_width:,.{places}f}"


def share_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a probability, from successes out of n (Clopper, Pearson 1934)."""
    out = (1 - level) / 2
    low = special.betaincinv(successes, n - successes + 1, out) if successes > 0 else 0.0
    high = special.betaincinv(successes + 1, n - successes, 1 - out) if successes < n else 1.0
    return float(low), float(high)


def paired_share_interval(lost: int, gained: int, n: int) -> tuple[float, float]:
    """Return a 95% interval of the difference of two probabilities that were observed in pairs.

    Parameters
    ----------
    lost, gained : int
        Pairs in which only the first, and only the second of the two happened.
    n : int
        All pairs.

    Returns
    -------
    (low, high)
        Of P(second) − P(first) = P(gained) − P(lost), each of which has an exact 97.5% interval (Bonferroni):
        it covers with at least 95% for any n.
    """
    (least_lost, most_lost), (least_gained, most_gained) = (
        share_interval(count, n, 0.975) for count in (lost, gained)
    )
    return least_gained - most_lost, most_gained - least_lost


def number(value: float, digits: int = 3) -> str:
    """Write a number with so many significant digits, never as 1.07e+03."""
    return f"{value:,.0f}" if 1000 <= abs(value) < np.inf else f"{value:.{digits}g}"


def estimate(values: np.ndarray | pd.Series) -> Estimate:
    """Return the mean of independent values, shape (n,), with Student's 95% half-width.

    For replicates, give one value per replicate: providers of one replicate are not independent. Missing
    values (NaN) are left out: of a replicate that was interrupted before, or where nothing is defined.
    """
    x = np.asarray(values, dtype=np.float64)
    x = x[~np.isnan(x)]
    n = x.size
    if n < 2:
        return Estimate(float(x[0]) if n else float("nan"), float("nan"))
    if not np.isfinite(x).all():
        return Estimate(float(x.mean()), float("inf"))
    return Estimate(float(x.mean()), float(special.stdtrit(n - 1, 0.975) * x.std(ddof=1) / n**0.5))


def by_replicate(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the mean of a metric over providers: a row per round, a column per replicate."""
    return table.groupby(["round", "replicate"])[metric].mean().unstack("replicate")
