r"""Metrics of sparse providers: what is touched is summed, what is not has a closed form.

An untouched output has probability :math:`c\,\Theta_v(0)` with one c per provider, so its part of every
metric is c times a sum over all outputs, less the sum over the touched ones. Formulas: `ecosystem.metrics`.
"""

from math import asin, exp, log, sqrt
from typing import Any, NamedTuple

import numpy as np

from ecosystem.engine.kernels import (
    FULL,
    KEYS,
    STRIDE,
    Y,
    _add_eight,
    _at,
    _below,
    _covering,
    _lowest,
    _marked,
    _prefetch,
    _row_of,
    bare,
    inline,
    kernel,
    ln,
)

__all__ = [
    "METRICS",
    "Facts",
    "add_to_mean",
    "of_mean",
    "of_publications",
    "of_rows",
    "sums_of_starts",
]

METRICS = (
    "entropy",
    "hill_0",
    "hill_1",
    "hill_2",
    "simpson_diversity",
    "top_1_mass",
    "top_k_mass",
    "human_coverage",
    "kl_to_human",
    "kl_from_human",
    "total_variation",
    "fisher_rao",
    "kl_step",
)
"""Columns of what `of_rows` and `of_mean` return, as in `ecosystem.metrics.of_laws`."""

# Places in a vector of sums. Over touched outputs, with probability p and human probability h:
_P_LN_P, _P2, _COUNT, _COVERED, _P_LN_H, _H_LN_P, _LEAST, _CHORD, _UNHEARD, _HEARD = range(10)
# The same outputs as the initial law has them, q; or, as totals, over all outputs:
_Q, _Q_LN_Q, _Q2, _Q_COUNT, _Q_COVERED, _Q_LN_H, _H_LN_Q, _Q_LEAST, _ROOT, _H, _Q_UNHEARD, _Q_HEARD = range(
    10, 22
)
SUMS = 22


class Facts(NamedTuple):
    """What is known of the human law and of the initial laws.

    Attributes
    ----------
    human, logs : ndarray, shape (V,)
        h and ln h (0 where h is).
    totals : ndarray, shape (m, SUMS)
        Sums over all outputs, for each initial law.
    order : ndarray of int32, shape (m, V)
        Outputs from the most to the least probable, for each initial law.
    same : ndarray of bool, shape (m,)
        Whether an initial law is the human law itself.
    heard : int
        Outputs that people produce.
    """

    human: Any
    logs: Any
    totals: Any
    order: Any
    same: Any
    heard: Any


@inline
def _count_start(sums, q, ln_q, h, ln_h, c):
    """Add an output as the initial law has it, at the scale c."""
    sums[_H] += h
    if q > 0:
        sums[_Q] += q
        sums[_Q_LN_Q] += q * ln_q
        sums[_Q2] += q * q
        sums[_Q_COUNT] += 1
        sums[_Q_COVERED] += h
        sums[_Q_LEAST] += min(c * q, h)
        sums[_ROOT] += sqrt(q * h)
        if h > 0:
            sums[_Q_LN_H] += q * ln_h
            sums[_H_LN_Q] += h * ln_q
            sums[_Q_HEARD] += 1
        else:
            sums[_Q_UNHEARD] += 1


@kernel
def sums_of_starts(laws, human, logs, totals):
    """Fill the totals of every initial law (``_Q_LEAST`` apart, which depends on c)."""
    for start in range(len(laws)):
        totals[start] = 0.0
        for v in range(len(human)):
            q = laws[start, v]
            _count_start(totals[start], q, log(q) if q > 0 else 0.0, human[v], logs[v], 0.0)


@kernel
def _least(laws, human, start, same, c):
    """Return Σ min(c q, h) over all outputs."""
    if same:
        return min(c, 1.0)
    total = 0.0
    for v in range(len(human)):
        total += min(c * laws[start, v], human[v])
    return total


@kernel
def _finish(sums, totals, heard, least, same, c, out):
    """Turn sums over the touched outputs into metrics (all but the top masses and the last)."""
    p_ln_p, p2, count, covered = sums[_P_LN_P], sums[_P2], sums[_COUNT], sums[_COVERED]
    to_human = p_ln_p - sums[_P_LN_H]
    from_human = -sums[_H_LN_P]
    common, chord = sums[_LEAST], sums[_CHORD]
    unheard, reached = sums[_UNHEARD], sums[_HEARD]
    silent = max(1 - sums[_H], 0.0)
    if c > 0:
        q, ln_c = totals[_Q] - sums[_Q], log(c)
        q_ln_q = totals[_Q_LN_Q] - sums[_Q_LN_Q]
        p_ln_p += c * (q_ln_q + ln_c * q)
        p2 += c * c * (totals[_Q2] - sums[_Q2])
        count += totals[_Q_COUNT] - sums[_Q_COUNT]
        covered += totals[_Q_COVERED] - sums[_Q_COVERED]
        to_human += c * (q_ln_q + ln_c * q - (totals[_Q_LN_H] - sums[_Q_LN_H]))
        from_human -= totals[_H_LN_Q] - sums[_H_LN_Q] + ln_c * (totals[_Q_COVERED] - sums[_Q_COVERED])
        common += least - sums[_Q_LEAST]
        if same:
            chord += silent * (1 - sqrt(c)) ** 2
        else:
            chord += silent + c * q - 2 * sqrt(c) * (totals[_ROOT] - sums[_ROOT])
        unheard += totals[_Q_UNHEARD] - sums[_Q_UNHEARD]
        reached += totals[_Q_HEARD] - sums[_Q_HEARD]
    else:
        chord += silent
    out[0] = max(-p_ln_p, 0.0)
    out[1] = count
    out[2] = exp(out[0])
    out[3] = 1 / p2
    out[4] = 1 - p2
    out[7] = covered
    out[8] = np.inf if unheard > 0.5 else max(to_human, 0.0)
    out[9] = np.inf if reached < heard - 0.5 else from_human  # the entropy of h is subtracted outside
    out[10] = min(max(1 - common, 0.0), 1.0)
    out[11] = 4 * asin(min(sqrt(max(chord, 0.0)) / 2, 1.0))


@inline
def _keep(best, k, held, p):
    """Put p into the heap of the k largest numbers so far, its least on top; return how many it holds."""
    if held < k:
        child = held
        while child > 0 and best[(child - 1) >> 1] > p:
            best[child] = best[(child - 1) >> 1]
            child = (child - 1) >> 1
        best[child] = p
        return held + 1
    if p <= best[0]:
        return held
    parent = 0
    while True:
        child = 2 * parent + 1
        if child >= k:
            break
        if child + 1 < k and best[child + 1] < best[child]:
            child += 1
        if best[child] >= p:
            break
        best[parent] = best[child]
        parent = child
    best[parent] = p
    return held


_WIDE = FULL + 1
_TOUCHED = (_P_LN_P, _P2, _P_LN_H, _H_LN_P, _LEAST, _CHORD, _COVERED, _HEARD, _Q_LN_Q, _Q2)
"""Where what `_terms` computes belongs: the last two of an initial law that is the human law."""
_ROOM = (4 + len(_TOUCHED)) * _WIDE


@inline
def _ask_ahead(blocks, place, end):
    """Ask for the outputs and the raw values of a block that is looked at next."""
    if place < end:
        at = np.int64(blocks.ids[place]) * STRIDE
        for line in range(at + KEYS // 2, at + KEYS // 2 + _WIDE // 2, 8):
            _prefetch(blocks.values, line)
        for line in range(at + Y, at + Y + _WIDE, 8):
            _prefetch(blocks.values, line)


@bare
def _terms(room, lanes, count, g, ln_g):
    """Add what some outputs contribute to all the sums ``lanes``, shape (10 · 8,).

    ``room`` starts with their probabilities over g, their human probabilities h, and ln h, each in `_WIDE`
    places; g times the first takes their place. Eight at a time, in an order that is the same everywhere.
    """
    human, ln_human, ln_own, term = _WIDE, 2 * _WIDE, 3 * _WIDE, 4 * _WIDE
    whole = (count + 7) // 8 * 8
    for i in range(count, whole):
        room[i], room[human + i], room[ln_human + i] = 1.0, 0.0, 0.0
    for i in range(whole):
        room[ln_own + i] = ln_g + ln(room[i])
    for i in range(whole):
        room[i] = g * room[i]
    room[count:whole] = 0.0
    for i in range(whole):
        p, h, ln_p, ln_h = room[i], room[human + i], room[ln_own + i], room[ln_human + i]
        chord = sqrt(p) - sqrt(h)
        room[term + i] = p * ln_p
        room[term + _WIDE + i] = p * p
        room[term + 2 * _WIDE + i] = p * ln_h
        room[term + 3 * _WIDE + i] = h * ln_p
        room[term + 4 * _WIDE + i] = min(p, h)
        room[term + 5 * _WIDE + i] = chord * chord
        room[term + 6 * _WIDE + i] = h
        room[term + 7 * _WIDE + i] = 1.0 if h > 0 else 0.0
        room[term + 8 * _WIDE + i] = h * ln_h
        room[term + 9 * _WIDE + i] = h * h
    for i in range(0, whole, 8):
        for which in range(10):
            _add_eight(lanes, 8 * which, room, term + which * _WIDE + i)


@inline
def _gather_up(sums, lanes, count, c, same):
    """Add up the lanes: the sums over ``count`` outputs, all of them of probability above 0."""
    for which in range(8 if c > 0 and not same else 10):
        total = 0.0
        for lane in range(8):
            total += lanes[8 * which + lane]
        sums[_TOUCHED[which]] = total
    heard, covered = sums[_HEARD], sums[_COVERED]
    sums[_COUNT], sums[_UNHEARD], sums[_H] = count, count - heard, covered
    if same:
        sums[_Q], sums[_Q_COVERED], sums[_ROOT] = covered, covered, covered
        sums[_Q_LN_H] = sums[_H_LN_Q] = sums[_Q_LN_Q]
        sums[_Q_COUNT] = sums[_Q_HEARD] = heard
        sums[_Q_LEAST] = min(c, 1.0) * covered


@bare
def _sums_of_row(r, g, mass_k, blocks, scales, tables, facts, sums, best, room, lanes):
    """Fill the ``sums`` of a row, and the largest probabilities of what it touched; return how many."""
    values, keys, human, logs = blocks.values, blocks.keys, facts.human, facts.logs
    start = tables.start[scales.table[r]]
    c, ln_g, same = scales.base[r] * g, ln(g), facts.same[start]
    sums[:] = 0.0
    lanes[:] = 0.0
    held, touched = 0, 0
    for place in range(blocks.first[r], blocks.first[r] + blocks.used[r]):
        at, count = np.int64(blocks.ids[place]) * STRIDE, np.int64(blocks.counts[place])
        touched += count
        _ask_ahead(blocks, place + 1, blocks.first[r] + blocks.used[r])
        for i in range(count):
            v = np.int64(_at(keys, 2 * at + KEYS + i))
            room[i], room[_WIDE + i], room[2 * _WIDE + i] = values[at + Y + i], _at(human, v), _at(logs, v)
        _terms(room, lanes, count, g, ln_g)
        for i in range(count):
            if held < mass_k or room[i] > best[0]:
                held = _keep(best, mass_k, held, room[i])
        if c > 0 and not same:
            for i in range(count):
                v = keys[2 * at + KEYS + i]
                q = tables.laws[start, v]
                _count_start(sums, q, log(q) if q > 0 else 0.0, human[v], logs[v], c)
    _gather_up(sums, lanes, touched, c, same)
    return held


@kernel
def of_rows(r0, r1, g, active, mass_k, moved, blocks, scales, tables, facts, entropy, out):
    """Fill ``out``, shape (rows, 13), with the metrics of rows r0..r1; ``entropy`` is the human law's."""
    sums, room, lanes = np.empty(SUMS), np.empty(_ROOM), np.empty(8 * len(_TOUCHED))
    size = len(facts.human)
    k = min(mass_k, size)
    best = np.empty(k)
    for r in range(r0, r1):
        if not active[r]:
            out[r] = np.nan
            continue
        start = tables.start[scales.table[r]]
        c = scales.base[r] * g[r]
        held = _sums_of_row(r, g[r], k, blocks, scales, tables, facts, sums, best, room, lanes)
        if c > 0:  # the most probable of the untouched
            for i in range(size):
                v = facts.order[start, i]
                p = c * tables.laws[start, v]
                if p == 0 or (held == k and p <= best[0]):
                    break
                if not _row_of(blocks, r, v)[2]:
                    held = _keep(best, k, held, p)
        least = _least(tables.laws, facts.human, start, facts.same[start], c) if c > 0 else 0.0
        _finish(sums, facts.totals[start], facts.heard, least, facts.same[start], c, out[r])
        out[r, 5] = best[:held].max()
        out[r, 6] = best[:held].sum()
        out[r, 9] = max(out[r, 9] - entropy, 0.0)
        out[r, 12] = moved[r]


@kernel
def add_to_mean(r0, r1, low, high, share, active, blocks, scales, tables, seen, mean):
    """Add ``share[r]`` times the raw values of rows r0..r1 to ``mean``, for outputs from low to high.

    Untouched outputs are added where a row has an initial law of its own (more than one in ``tables.laws``);
    where there is a common one, its multiple is left to the caller. ``seen`` marks what was added to.
    """
    own = len(tables.laws) > 1
    for r in range(r0, r1):
        if not active[r]:
            continue
        start, base = tables.start[scales.table[r]], scales.base[r]
        if own and base > 0:
            for v in range(low, high):
                mean[v] += share[r] * base * tables.laws[start, v]
                seen[v] = True
        here, used = blocks.first[r], blocks.used[r]
        law, part = tables.laws[start], share[r]
        for place in range(here + _covering(blocks.lows, here, 0, used, low), here + used):
            if blocks.lows[place] >= high:
                break
            at = np.int64(blocks.ids[place]) * STRIDE
            key = 2 * at + KEYS
            _ask_ahead(blocks, place + 3, here + used)  # the next two are on their way
            for i in range(_below(blocks.keys, key, low), _below(blocks.keys, key, high)):
                v = np.int64(_at(blocks.keys, key + i))
                mean[v] = _at(mean, v) + part * (_at(blocks.values, at + Y + i) - base * _at(law, v))
                seen[v] = True


@kernel
def of_mean(low, high, mean, seen, previous, c, tables, facts, sums, best):
    """Sum over the touched outputs of a mean law, between two multiples of 64; c as in `of_rows`.

    ``sums`` has one entry more than `SUMS`: their part of the divergence from the law ``previous``. ``best``
    is filled with the largest probabilities, and with 0 where there are not so many.
    """
    sums[:] = 0.0
    best[:] = 0.0
    lanes, room, earlier = np.zeros(8 * len(_TOUCHED)), np.empty(_ROOM), np.empty(_WIDE)
    same, common = facts.same[0], len(tables.laws) == 1
    held, count, full, lost = 0, 0, 0, 0.0
    for first in range(low, high, 64):
        there = _marked(seen, first)
        while there != 0:
            v = first + _lowest(there)
            there &= there - 1
            p, h = mean[v], facts.human[v]
            if p == 0:
                lost += h
                continue
            room[full], room[_WIDE + full], room[2 * _WIDE + full] = p, h, facts.logs[v]
            earlier[full] = previous[v]
            full += 1
            if held < len(best) or p > best[0]:
                held = _keep(best, len(best), held, p)
            if c > 0 and not same:
                q = tables.laws[0, v] if common else 0.0
                _count_start(sums, q, log(q) if q > 0 else 0.0, h, facts.logs[v], c)
        if full > 0:
            _terms(room, lanes, full, 1.0, 0.0)
            earlier[full:] = 1.0
            for i in range(_WIDE):
                earlier[i] = ln(earlier[i])
            for i in range(full):
                sums[SUMS] += room[i] * (room[3 * _WIDE + i] - earlier[i])
            count, full = count + full, 0
    _gather_up(sums, lanes, count, c, same)
    sums[_CHORD] += lost
    sums[_H] += lost


@kernel
def finish_mean(sums, best, c, before, seen, tables, facts, entropy, out):
    """Turn the sums of `of_mean` into metrics, and ``best`` of its parts, shape (parts, k)."""
    top = best[0].copy()
    held = 0
    for p in best.ravel():
        if p > 0:
            held = _keep(top, len(top), held, p)
    if c > 0:
        for v in facts.order[0]:  # the most probable of the untouched
            p = c * tables.laws[0, v]
            if p == 0 or (held == len(top) and p <= top[0]):
                break
            if not seen[v]:
                held = _keep(top, len(top), held, p)
    out[5], out[6] = top[:held].max(), top[:held].sum()
    least = _least(tables.laws, facts.human, 0, facts.same[0], c) if c > 0 else 0.0
    _finish(sums, facts.totals[0], facts.heard, least, facts.same[0], c, out)
    out[9] = max(out[9] - entropy, 0.0)
    moved = sums[SUMS]
    if c > 0:
        rest = c * (facts.totals[0, _Q] - sums[_Q])
        moved += rest * (log(c) - log(before)) if rest > 1e-15 else 0.0
    out[12] = max(moved, 0.0)


@kernel
def of_publications(r0, r1, active, now, now_at, now_size, then, then_at, then_size, human, counts, out):
    """Fill ``out``, shape (rows, 2): chances that two items agree, within this round and with the one before.

    ``then`` is empty in the first round: the round before is human data. ``counts`` is all 0, shape (V,).
    """
    for r in range(r0, r1):
        out[r] = np.nan
        if not active[r]:
            continue
        n, a = float(now_size[r]), now_at[r]
        same = 0.0
        for i in range(now_size[r]):
            v = now[a + i]
            same += 2.0 * counts[v]
            counts[v] += 1
        if n > 1:
            out[r, 0] = same / (n * (n - 1))
        across, m = 0.0, 1.0
        if len(then) == 0:
            for i in range(now_size[r]):
                across += human[now[a + i]]
        else:
            m = float(then_size[r])
            for i in range(then_size[r]):
                across += counts[then[then_at[r] + i]]
        if n * m > 0:
            out[r, 1] = across / (n * m)
        for i in range(now_size[r]):
            counts[now[a + i]] = 0
