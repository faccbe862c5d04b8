"""Rules about who reads whom, and who is there."""

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from scipy import sparse

from ecosystem.errors import InputError
from ecosystem.fields import Count, Fraction, Index, Plain, Seed, setting
from ecosystem.interventions.base import BaseIntervention
from ecosystem.interventions.rules import Observed, Rules
from ecosystem.randomness import Decision, Streams
from ecosystem.sharing import normalised, own_if_nobody

_MODES = '"open", "silos", "remove-hub" or "cut"'


class Sharing(BaseIntervention):
    """Another sharing graph among those who take part.

    ==============  ==================================================================================
    ``mode``        W after it, at full strength
    ==============  ==================================================================================
    "open"          W_ij = 1/N: everybody reads everybody (data trusts, open corpora)
    "silos"         W = I: everybody trains on its own outputs (closed platforms)
    "remove-hub"    nobody else reads the ``hubs`` providers that are read most, i.e. whose column
                    sums Σ_{i≠j} W_ij are largest (the first of equals); they go on reading
    "cut"           a share ``share`` of the links "i reads j", j ≠ i, is cut, at random
    ==============  ==================================================================================

    Rows are normalised over what is left; a provider with nobody left to read trains on its own outputs.
    At strength s < 1, W ← (1 − s) W + s W' for "open" and "silos", the hubs' columns keep a share 1 − s of
    their weight, and a share s · ``share`` is cut.

    Notes
    -----
    Link (i, j) is cut when uniform j of the keyed stream (``link_seed``, provider i, `Decision.CUT`) is below
    the share: a larger share cuts the same links and more, the same ones in every replicate, whatever the
    scenario's seed. Each direction of an undirected link is cut by itself.
    """

    kind: Literal["sharing"] = "sharing"
    mode: Literal["open", "silos", "remove-hub", "cut"] = setting(..., "what changes", _MODES, "open")
    hubs: Annotated[Count, Plain] = setting(1, "how many hubs are removed", "a whole number, 1 or more")
    share: Annotated[Fraction, Plain] = setting(0.5, "share of links that is cut", "a number from 0 to 1")
    link_seed: Annotated[Seed, Plain] = setting(0, "which links are cut", "a whole number from 0 to 2^63 - 1")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        for parameter, mode in (("hubs", "remove-hub"), ("share", "cut"), ("link_seed", "cut")):
            if parameter in self.model_fields_set and getattr(self, parameter) is not None:
                default = type(self).model_fields[parameter].default
                if self.mode != mode and getattr(self, parameter) != default:
                    raise InputError(
                        f'{parameter} = {getattr(self, parameter)}: only mode = "{mode}" has it; leave it out'
                    )

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Replace W."""
        w, active = rules.W, rules.active
        match self.mode:
            case "open":
                changed = _blend(w, _open(active), strength)
            case "silos":
                changed = _blend(w, sparse.csr_array(sparse.eye_array(len(active))), strength)
            case "remove-hub":
                changed = _reweighted(w, self._without_hubs(w, strength))
            case _:
                changed = _reweighted(w, self._cut(w, strength))
        return rules if changed is w else replace(rules, W=changed)

    def _without_hubs(self, w: sparse.csr_array, strength: float) -> np.ndarray:
        """Return the factor on every entry of W that lets nobody else read the hubs."""
        reader = np.repeat(np.arange(w.shape[0]), np.diff(w.indptr))
        others = reader != w.indices
        read = np.bincount(w.indices[others], weights=w.data[others], minlength=w.shape[0])
        hubs = np.argsort(-read, kind="stable")[: self.hubs]
        return np.where(others & np.isin(w.indices, hubs), 1 - strength, 1.0)

    def _cut(self, w: sparse.csr_array, strength: float) -> np.ndarray:
        """Return the factor on every entry of W that cuts a share of the links."""
        streams, kept = Streams(self.link_seed), np.ones(w.nnz)
        for i in range(w.shape[0]):
            row = slice(w.indptr[i], w.indptr[i + 1])
            authors = w.indices[row]
            luck = streams.uniforms(int(authors.max()) + 1, Decision.CUT, round=0, provider=i)[authors]
            kept[row] = (luck >= strength * self.share) | (authors == i)
        return kept


class Entry(BaseIntervention):
    """Providers that are there only from a date on (and until ``end``, if given).

    The real thing: a firm that comes to the market, or a model that is let into it at a date.
    Before ``start`` they neither publish nor train nor are read; then they enter with the model they start
    from. The weights with which others read are divided among those who are there:
    W_ij ← W_ij 1[j there] / Σ_l W_il 1[l there].
    """

    kind: Literal["entry"] = "entry"
    providers: Annotated[tuple[Index, ...], Plain] = setting(
        ..., "who enters", "a list of provider numbers", [9]
    )
    has_ramp = False

    def strength(self, round: int) -> float:
        """Return 1 in rounds in which the rule keeps its providers out, else 0."""
        return 1.0 - super().strength(round)

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Leave the providers out."""
        return without(rules, self.providers)


class Exit(BaseIntervention):
    """Providers that leave at a date (and come back after ``end``, if given, with the model they had).

    The real thing: a model that is withdrawn, banned or merged away.
    From ``start`` to ``end`` they neither publish nor train nor are read. The weights with which others read
    are divided among those who are there: W_ij ← W_ij 1[j there] / Σ_l W_il 1[l there].
    """

    kind: Literal["exit"] = "exit"
    providers: Annotated[tuple[Index, ...], Plain] = setting(
        ..., "who leaves", "a list of provider numbers", [0]
    )
    has_ramp = False

    def apply(self, rules: Rules, observed: Observed, strength: float) -> Rules:
        """Leave the providers out."""
        return without(rules, self.providers)


def without(rules: Rules, providers: tuple[int, ...]) -> Rules:
    """Return the rules with some providers left out: inactive, unread, reading but themselves."""
    active = rules.active & ~np.isin(np.arange(len(rules.active)), providers)
    if (active == rules.active).all():
        return rules
    return replace(rules, active=active, W=among_active(rules.W, active))


def among_active(weights: sparse.csr_array, active: np.ndarray) -> sparse.csr_array:
    """Return rows of weights, normalised over the active authors; an inactive provider reads itself."""
    reader = np.repeat(np.arange(len(active)), np.diff(weights.indptr))
    return _scaled(weights, active[reader] & active[weights.indices])


def _open(active: np.ndarray) -> sparse.csr_array:
    """Return W in which every active provider reads every active one, and the others themselves."""
    here = np.flatnonzero(active)
    authors = [here if there else np.array([i]) for i, there in enumerate(active.tolist())]
    ends = np.cumsum([0, *map(len, authors)])
    data = np.repeat(1 / np.diff(ends), np.diff(ends))
    return sparse.csr_array((data, np.concatenate(authors), ends), shape=(len(active), len(active)))


def _blend(w: sparse.csr_array, to: sparse.csr_array, strength: float) -> sparse.csr_array:
    """Return (1 − strength) W + strength W', entries of weight 0 left out."""
    blended = to if strength == 1 else sparse.csr_array((1 - strength) * w + strength * to)
    blended.eliminate_zeros()
    blended.sort_indices()
    return blended


def _reweighted(w: sparse.csr_array, factor: np.ndarray) -> sparse.csr_array:
    """Return W times a factor per entry, rows normalised; W itself where no factor differs from 1."""
    return w if (factor == 1).all() else _scaled(w, factor)


def _scaled(w: sparse.csr_array, factor: np.ndarray) -> sparse.csr_array:
    """Return W times a factor per entry, rows normalised; who has nobody left to read reads itself."""
    changed = sparse.csr_array((w.data * factor, w.indices.copy(), w.indptr.copy()), shape=w.shape)
    return own_if_nobody(normalised(changed))
