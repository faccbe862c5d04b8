"""Rules that need to know who made an item: detectors and caps."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, Strict

from ecosystem.errors import InputError
from ecosystem.fields import Flag, Fraction, Plain, setting
from ecosystem.interventions.base import BaseIntervention, Providers, among
from ecosystem.interventions.rules import Observed, Rules
from ecosystem.types import Floats

_SHARE = "a number from 0 to 1"


class Detector(BaseIntervention):
    """A detector of synthetic content in front of training, with its errors.

    A synthetic item is flagged with probability TPR = strength · ``true_positive``, a human one with
    FPR = strength · ``false_positive``. Mode "drop": a flagged item is left out and its slot filled anew
    until one passes, which is, exactly, another fresh fraction,

        λ' = λ (1 − FPR) / (λ (1 − FPR) + (1 − λ) (1 − TPR)),

    at 1 / (λ (1 − FPR) + (1 − λ) (1 − TPR)) checks per item of the batch; λ' = λ where TPR = FPR. Mode
    "down-weight": flagged items stay, with ``weight`` times their weight, at one check per item.

    With ``limited``, the detector knows items and not their authors, and TPR ≤ FPR + TV(Θ̄, h), with Θ̄ the
    mean law of the models and TV the total variation: no test does better (Neyman and Pearson), and detection
    gets worse as models improve (Sadasivan et al., *Can AI-generated text be reliably detected?*,
    arXiv:2303.11156).

    Notes
    -----
    The bound is that of one item; it uses Θ̄ and not τ_T(Θ̄), as a detector is built on what models have
    learned and not on how they are sampled: this project's choice. In mode "drop" a passed item has the
    law of its source: flags do not look at what it says. One detector of mode "down-weight" can be in
    force at a time; one of mode "drop" works on what earlier ones have passed.
    """

    kind: Literal["detector"] = "detector"
    true_positive: Annotated[Fraction, Plain] = setting(
        ..., "share of synthetic items that it flags", _SHARE, 0.8
    )
    false_positive: Annotated[Annotated[float, Strict(), Field(ge=0, lt=1)], Plain] = setting(
        0.0, "share of human items that it flags", "a number from 0 to below 1", 0.05
    )
    mode: Literal["drop", "down-weight"] = setting(
        "drop", "what happens to a flagged item", '"drop" or "down-weight"'
    )
    weight: Annotated[Fraction, Plain] = setting(0.0, "factor on the weight of a flagged item", _SHARE, 0.2)
    limited: Annotated[Flag, Plain] = setting(
        False, "whether it is bound by what an item can tell", "true or false"
    )

    @property
    def observes(self) -> bool:
        """Whether the rules depend on the state of the run."""
        return self.limited

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Raise λ, or set the weight of flagged items."""
        true, false = strength * self.true_positive, strength * self.false_positive
        if self.limited:
            distance = 0.5 * float(np.abs(observed.mean_distribution - rules.human).sum())
            true = min(true, false + distance)
        calls = rules.detector_calls_per_item
        if self.mode == "down-weight":
            if rules.flag is not None:
                raise InputError(
                    "mode = 'down-weight': another such detector is in force; give one at a time"
                )
            return replace(rules, flag=(true, false, self.weight), detector_calls_per_item=calls + 1)
        fresh = rules.fresh_fraction
        passed = fresh * (1 - false) + (1 - fresh) * (1 - true)
        if (passed == 0).any():
            raise InputError(
                f"true_positive = {true}: provider {int(np.argmin(passed))} is left with nothing to train "
                "on, as it uses no human data; write true_positive = 0.99, or raise its fresh_fraction"
            )
        if true != false:
            fresh = fresh * (1 - false) / passed
        return replace(rules, fresh_fraction=fresh, detector_calls_per_item=(calls + 1) / passed)


class Cap(BaseIntervention):
    """The largest share of a batch that may come from one author, or from models at all.

    First ``synthetic``: λ_i ← max(λ_i, 1 − synthetic). Then ``author``: with c_i = author / (1 − λ_i), every
    W_ij above c_i is cut to c_i and the excess goes to the other authors that i reads, in proportion, until
    none is above: W_ij ← min(c_i, t W_ij), t such that the row sums to 1. Where even all n authors that i
    reads at the cap are not enough (n · author < 1 − λ_i), each writes ``author`` of the batch and the rest
    becomes human: W_ij = 1/n, λ_i = 1 − n · author. A provider is an author to itself.

    At strength s < 1 a cap c is 1 − s (1 − c); a cap of 1 changes nothing.

    Notes
    -----
    The real thing: limits on how much of a training set one supplier or one generator may fill, which need
    provenance records. The rule is this project's; nobody's share grows unless somebody's was cut.
    """

    kind: Literal["cap"] = "cap"
    author: Annotated[Fraction, Plain] = setting(1.0, "largest share of a batch by one author", _SHARE, 0.1)
    synthetic: Annotated[Fraction, Plain] = setting(
        1.0, "largest share of a batch by all models together", _SHARE, 0.5
    )
    providers: Providers = setting(None, "who must keep to it", "a list of provider numbers", [0, 1])

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        if self.author == 1 and self.synthetic == 1 and not {"author", "synthetic"} & self.model_fields_set:
            raise InputError("author is missing: give author, synthetic or both, e.g. author = 0.1")

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Raise λ and even out the rows of W."""
        bound = among(self.providers, len(rules.fresh_fraction))
        author, synthetic = (1 - strength * (1 - cap) for cap in (self.author, self.synthetic))
        fresh = rules.fresh_fraction
        fresh = np.where(bound, np.maximum(fresh, 1 - synthetic), fresh)
        w, data = rules.W, rules.W.data.copy()
        reader = np.repeat(np.arange(len(fresh)), np.diff(w.indptr))
        for i in np.unique(reader[bound[reader] & ((1 - fresh[reader]) * data > author)]).tolist():
            row = slice(w.indptr[i], w.indptr[i + 1])
            n = row.stop - row.start
            if n * author < 1 - fresh[i]:
                data[row], fresh[i] = 1 / n, 1 - n * author
            else:
                data[row] = levelled(data[row], author / (1 - fresh[i]))
        return replace(rules, fresh_fraction=fresh, W=type(w)((data, w.indices, w.indptr), shape=w.shape))


def levelled(shares: Floats, cap: float) -> Floats:
    """Return min(cap, t · shares) with t such that they sum to 1; needs len(shares) · cap ≥ 1."""
    shares = shares.copy()
    free = np.ones(len(shares), dtype=bool)
    while (over := free & (shares > cap)).any():
        shares[over] = cap
        free &= ~over
        if not free.any() or (rest := shares[free].sum()) == 0:
            break
        shares[free] *= (1 - cap * np.count_nonzero(~free)) / rest
    return shares
