"""Scenario discovery: in which corner of what is not known does a policy fail?

PRIM, the patient rule induction method (Friedman, Fisher 1999), as ema_workbench has it.
Its versions 2.5 (for Python 3.11) and 3.0 (for newer ones) differ in how it is called: only this file knows.
"""

import inspect
import logging
import warnings

import numpy as np
import pandas as pd

from ecosystem import InputError


def failing_box(uncertainties: pd.DataFrame, fails: np.ndarray) -> pd.DataFrame:
    """Return the box of uncertain inputs that best describes where something fails.

    Parameters
    ----------
    uncertainties : DataFrame
        A row per future, a column per uncertain input, all numbers.
    fails : ndarray of bool
        Whether it fails in each.

    Returns
    -------
    DataFrame
        A row per input that the box bounds: uncertainty, low, high; and on every row the box's coverage
        (share of all failures that lie in it), density (share of its futures that fail) and mass (share of
        all futures in it). Of the boxes that PRIM peeled off, the one of largest harmonic mean of coverage
        and density. Empty where PRIM finds none better than everything.

    Raises
    ------
    InputError
        If ema_workbench is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from ema_workbench.analysis import prim
    except ImportError:
        raise InputError(
            "scenario discovery needs the package ema_workbench: type pip install '.[discovery]'"
        ) from None
    columns = ["uncertainty", "low", "high", "coverage", "density", "mass"]
    x, y = uncertainties.reset_index(drop=True).astype(float), np.asarray(fails).astype(int)
    if not 0 < y.sum() < len(y):
        return pd.DataFrame(columns=columns)
    logging.getLogger("EMA").setLevel(logging.ERROR)
    wanted = inspect.signature(prim.Prim.__init__).parameters
    # In 2.5 it tells failures (1) from the rest (0), and gives up where no box has this density.
    options = {"threshold": 1e-9} if "threshold" in wanted else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        box = prim.Prim(x, y, peel_alpha=0.1, **options).find_box()
    if box is None:
        return pd.DataFrame(columns=columns)
    peeled = box.peeling_trajectory.reset_index(drop=True)
    score = 2 * peeled["coverage"] * peeled["density"] / (peeled["coverage"] + peeled["density"])
    best = int(score.to_numpy().argmax())
    limits = box.box_lims[best]
    rows = []
    for name in x.columns:
        low, high = float(limits.loc[0, name]), float(limits.loc[1, name])
        if low > x[name].min() or high < x[name].max():
            rows.append((name, low, high, *(float(peeled.loc[best, part]) for part in columns[3:])))
    return pd.DataFrame(rows, columns=columns)
