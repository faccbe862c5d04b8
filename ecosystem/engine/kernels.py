r"""The round as compiled kernels over sparse providers: publish, mix, learn.

**What a provider is here.** In raw units :math:`\Theta_v = g\,y_v` with one factor g for all outputs. The
update :math:`\Theta \leftarrow (1-a)\Theta + a\,\mathrm{freq}` changes g, and adds to :math:`y_v` of the
outputs in the batch only (under "accumulate" exactly the item count, so that y are counts). The temperature
map does not see g. An output that a provider has not touched keeps :math:`y_v = s_b\,\ell_0\,\Theta_v(0)`:
its law is shared. What a provider owns is therefore its touched outputs, sorted by output and cut into
*blocks* of at most 63:

====  ==================================================================================================
``G``    weight of each of its 8 groups of 8 entries
``H``    cumulative weight at the end of each full group, infinite from the first group that is not full
``E``    cumulative weight D + w within the group at the end of each entry, infinite where there is none
``w``    tempered weight of each entry's output, (y/r)^(1/T), r a reference scale per provider
``D``    weight of the untouched outputs between the entry before, or the start of the block, and this one
``y``    its raw value
``L``    ln y
====  ==================================================================================================

E, H and G are recomputed from weights whenever one of these changes, and weights from y: nothing is ever
added to a running sum, so nothing drifts. Publishing adds up the blocks of a provider once a round, then
finds every output in a few comparisons of 8 numbers at once: O(log) an item, whatever V. Drawing is by
inversion in output order with the uniforms of `ecosystem.randomness`, as in the reference engine.
"""

import hashlib
import os
from collections.abc import Callable
from math import exp, log
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

FULL = 63
"""Most touched outputs in a block: one slot of 64 stays infinite and ends every search."""
_SLOTS = 64
_G, _H, _E, W, D, Y, L = 0, 8, 16, 80, 144, 208, 272  # where the parts of a block start, in doubles
STRIDE = 368  # doubles of a block; its last 32 hold 64 outputs of 4 bytes each
KEYS = 2 * 336  # where these start, in units of 4 bytes
REACH = 500.0
"""A weight may grow to e^500 before the reference scale r is moved."""
LEAST = 1e-290
"""Raw values stay above this when they are rescaled: what is alive stays alive, as in exact arithmetic."""
PAD = 8
"""Infinite entries at the end of cumulative laws."""
_AT_HAND = 4
"""Rows that learn and then publish before the next do: few, so that their blocks are still in cache."""
_NONE = 2**31 - 1
"""The key of an entry that is not there."""


class Blocks(NamedTuple):
    """The touched outputs of a range of providers ("rows"), as arrays that kernels read and write.

    Attributes
    ----------
    values, keys : ndarray of float64 and of int32
        Two views of one pool: block b has its numbers from ``values[b*STRIDE]`` on and its outputs from
        ``keys[2*b*STRIDE + KEYS]`` on.
    ids, lows, counts : ndarray of int32; sums : ndarray of float64
        The rows' lists of blocks, in output order: where, first output covered, touched outputs, weight.
    first, room, used : ndarray of int64, shape (rows,)
        Each row's place in those lists: start, capacity, length.
    spare : ndarray of int32
        Blocks that were given back, to be used first.
    free : ndarray of int64, shape (2,)
        First block of the pool that was never used, number of ``spare`` blocks.
    """

    values: Any
    keys: Any
    ids: Any
    lows: Any
    counts: Any
    sums: Any
    first: Any
    room: Any
    used: Any
    spare: Any
    free: Any


class Scales(NamedTuple):
    """Scalars of the rows, each of shape (rows,).

    Attributes
    ----------
    inverse : ndarray
        1/T.
    reference : ndarray
        ln r.
    highest : ndarray
        Largest ln y.
    base : ndarray
        Raw factor s_b ℓ(0) of the untouched outputs, y = base Θ(0); 0 where they are all gone.
    spread : ndarray
        Tempered factor of the untouched weights, (base max Θ(0) / r)^(1/T).
    table : ndarray of int64
        Which tempered initial law the row has.
    """

    inverse: Any
    reference: Any
    highest: Any
    base: Any
    spread: Any
    table: Any


class Tables(NamedTuple):
    """Shared, read-only laws.

    Attributes
    ----------
    ends : ndarray, shape (n, V+1+PAD)
        Cumulative tempered initial laws, relative to their largest weight: ``ends[t, v]`` is the sum before
        v. Infinite at the end, so that 8 can always be looked at together.
    guide : ndarray of int32, shape (n, G)
        Where to start looking in ``ends``.
    laws : ndarray, shape (m, V)
        Θ(0).
    peaks : ndarray, shape (m,)
        ln max Θ(0).
    start : ndarray of int64, shape (n,)
        Which row of ``laws`` a tempered law belongs to.
    """

    ends: Any
    guide: Any
    laws: Any
    peaks: Any
    start: Any


def _cache_place() -> str:
    """Return where compiled kernels of just these sources are kept.

    Numba looks at the file of a kernel only, not at what it calls or reads from other files: here another
    version of any of the sources is another place.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    home = numba.config.CACHE_DIR or os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return str(Path(home) / "ecosystem" / digest)


_CACHE = _cache_place()


def compiled(**options: Any) -> Callable[[Any], Any]:
    """Return the decorator of kernels: compiled once, kept on disk, run without the interpreter's lock."""

    def decorate(function: Any) -> Any:
        before, numba.config.CACHE_DIR = numba.config.CACHE_DIR, _CACHE
        try:
            return njit(cache=True, nogil=True, error_model="numpy", **options)(function)
        finally:
            numba.config.CACHE_DIR = before

    return decorate


kernel = compiled()
# Without numba's counting of references to arrays, which costs more than short functions do: what is
# decorated with these two takes arrays, but neither makes nor keeps any.
bare = compiled(_nrt=False)
inline = compiled(forceinline=True, _nrt=False)


# --- keyed streams: Philox 4x64-10, as numpy ships it -----------------------------------------------------


@intrinsic
def _high(context: Any, a: Any, b: Any) -> Any:
    """Return the upper 64 bits of a product."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(factor, wide) for factor in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))

    return types.uint64(types.uint64, types.uint64), code


_M0, _M1 = np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157)
_W0, _W1 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBB67AE8584CAA73B)
_UNIT = 2.0**-53
_ELEVEN = np.uint64(11)


@inline
def _philox(c0, c1, c2, c3, k0, k1):
    for _ in range(10):
        high0, low0 = _high(_M0, c0), _M0 * c0
        high1, low1 = _high(_M1, c2), _M1 * c2
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 += _W0
        k1 += _W1
    return c0, c1, c2, c3


@inline
def uniforms(out, n, seed, replicate, decision, provider, round):
    """Fill ``out[:n]`` with the first uniforms of a stream: numpy's Generator(Philox).random, bit by bit."""
    k0, k1 = np.uint64(seed), np.uint64(replicate)
    c1, c2, c3 = np.uint64(decision), np.uint64(provider), np.uint64(round)
    whole = n >> 2
    for b in range(whole):
        x0, x1, x2, x3 = _philox(np.uint64(b + 1), c1, c2, c3, k0, k1)
        out[4 * b] = (x0 >> _ELEVEN) * _UNIT
        out[4 * b + 1] = (x1 >> _ELEVEN) * _UNIT
        out[4 * b + 2] = (x2 >> _ELEVEN) * _UNIT
        out[4 * b + 3] = (x3 >> _ELEVEN) * _UNIT
    if n & 3:
        x0, x1, x2, x3 = _philox(np.uint64(whole + 1), c1, c2, c3, k0, k1)
        rest = (x0, x1, x2)
        for i in range(n & 3):
            out[4 * whole + i] = (rest[i] >> _ELEVEN) * _UNIT


# --- drawing by inversion ---------------------------------------------------------------------------------


@intrinsic
def _rank(context: Any, values: Any, i: Any, x: Any) -> Any:
    """Return how many of values[i], ..., values[i+7] are ≤ x: one comparison of 8 numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        eight = ir.VectorType(ir.DoubleType(), 8)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), eight.as_pointer())
        numbers = builder.load(pointer, align=8)
        one = builder.insert_element(
            ir.Constant(eight, ir.Undefined), arguments[2], ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        splat = builder.shuffle_vector(one, ir.Constant(eight, ir.Undefined), zeros)
        bits = builder.bitcast(builder.fcmp_ordered("<=", numbers, splat), ir.IntType(8))
        return builder.zext(builder.ctpop(bits), ir.IntType(64))

    return types.int64(values, types.int64, types.float64), code


@intrinsic
def _prefetch(context: Any, values: Any, i: Any) -> Any:
    """Ask for the cache line of values[i]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), byte)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        builder.call(function, [pointer, *(ir.Constant(word, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(values, types.int64), code


@inline
def _guided(ends, guide, t, x):
    """Return the first v with ends[t, v+1] > x, for cumulative laws with ends[t, 0] = 0 (see `Tables`)."""
    buckets, width = guide.shape[1], ends.shape[1]
    size = width - 1 - PAD
    v = np.int64(guide[t, min(int(x * (buckets / ends[t, size])), buckets - 1)])
    while v > 0 and ends[t, v] > x:
        v -= 1
    passed = _rank(ends, t * width + v + 1, x)
    v += passed
    while passed == PAD:
        passed = _rank(ends, t * width + v + 1, x)
        v += passed
    return min(v, size - 1)


@bare
def guide_of(ends, guide):
    """Fill the starting points of `_guided`."""
    v, size, buckets = 0, len(ends) - 1 - PAD, len(guide)
    for j in range(buckets):
        while v < size - 1 and ends[v + 1] <= j * (ends[size] / buckets):
            v += 1
        guide[j] = v


@intrinsic
def _at(context: Any, values: Any, i: Any) -> Any:
    """Return values[i], i ≥ 0, without the test for an index from the end that numba compiles in."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(array.data, [arguments[1]]))

    return values.dtype(values, types.int64), code


@inline
def _draw(
    out,
    start,
    luck,
    count,
    total,
    tops,
    wide,
    begins,
    levels,
    here,
    values,
    keys,
    ids,
    lows,
    spread,
    ends,
    guide,
    t,
    gaps,
    left_of,
    far,
):
    """Invert ``count`` uniforms: out[start + i] becomes the output at luck[i] of a row's cumulative weights.

    Three short loops instead of one long one: a processor keeps several turns of a short one under way.
    """
    if levels == 1:
        for i in range(count):
            x = _at(luck, i) * total
            b = _rank(tops, 0, x)
            far[i] = x - _at(begins, b)
            left_of[i] = b
    elif levels == 2:
        for i in range(count):
            x = _at(luck, i) * total
            b = _rank(tops, wide, x)
            b = 8 * b + _rank(tops, 8 * b, x)
            far[i] = x - _at(begins, b)
            left_of[i] = b
    else:
        for i in range(count):
            x = _at(luck, i) * total
            b = 0
            for level in range(levels - 1, -1, -1):
                b = 8 * b + _rank(tops, level * wide + 8 * b, x)
            far[i] = x - _at(begins, b)
            left_of[i] = b
    for i in range(count):
        x = _at(far, i)
        at = np.int64(_at(ids, here + _at(left_of, i))) * STRIDE
        group = _rank(values, at + _H, x)
        skip = _at(values, at + _H + max(group - 1, 0))
        x -= skip if group > 0 else 0.0
        far[i] = x
        gaps[i] = at + 8 * group + _rank(values, at + _E + 8 * group, x)
    n_gaps = 0
    for i in range(count):
        place = _at(gaps, i)
        at = place // STRIDE * STRIDE
        entry = place - at
        right = _at(keys, 2 * at + KEYS + entry)
        left = _at(keys, 2 * at + KEYS + max(entry - 1, 0)) + 1
        left = left if entry > 0 else _at(lows, here + _at(left_of, i))
        end = _at(values, place + _E)
        before = _at(values, place + _E - 1)
        before = before if entry & 7 else 0.0
        out[start + i] = right
        # Where the entry ends the block, or x lies before the entry's own weight: an untouched output.
        x = _at(far, i)
        gap = (end == np.inf) | ((left < right) & (x - before < _at(values, place + D)))
        gaps[n_gaps] = i
        left_of[n_gaps] = left if end < np.inf else -1 - left
        far[n_gaps] = x - before
        n_gaps += gap
    for g in range(n_gaps):
        i = gaps[g]
        last = left_of[g] < 0
        left = -1 - left_of[g] if last else left_of[g]
        v = max(_guided(ends, guide, t, ends[t, left] + far[g] / spread), left)
        out[start + i] = v if last else min(v, out[start + i] - 1)


@bare
def _publish_rows(
    r0, r1, n, out, place, size, active, blocks, scales, tables, seed, replicate, round, first, best, errs,
    score, luck, slips, others, gaps, left_of, far, tops, wide, begins,
):  # fmt: skip
    """Do what `publish` says, in room that is there for it."""
    values, keys, ids, lows = blocks.values, blocks.keys, blocks.ids, blocks.lows
    sums, firsts, useds = blocks.sums, blocks.first, blocks.used
    table_of, spread_of, ends, guide = scales.table, scales.spread, tables.ends, tables.guide
    for r in range(r0, r1):
        if not active[r]:
            continue
        if r + 1 < r1:
            here = firsts[r + 1]
            for b in range(here, here + min(useds[r + 1], 48)):
                at = np.int64(ids[b]) * STRIDE
                for line in range(_H, W, 8):
                    _prefetch(values, at + line)
                for line in range(KEYS // 2, STRIDE, 8):
                    _prefetch(values, at + line)
        row = first + r
        rep, provider = replicate + row // n, row % n
        here, used = firsts[r], useds[r]
        total = 0.0
        for b in range(used):
            begins[b] = total
            total += sums[here + b]
            tops[b] = total
        levels, count, at = 1, used, 0
        while True:  # the last end is never asked for: infinite
            filled = (count + 7) // 8 * 8
            for b in range(at + count - 1, at + filled):
                tops[b] = np.inf
            if filled == 8:
                break
            for b in range(filled // 8):
                tops[at + wide + b] = tops[at + 8 * b + 7]
            count, at, levels = filled // 8, at + wide, levels + 1
        t, spread = table_of[r], spread_of[r]
        count, start = size[r], place[r]
        uniforms(luck, count, seed, rep, 2, provider, round)
        _draw(
            out,
            start,
            luck,
            count,
            total,
            tops,
            wide,
            begins,
            levels,
            here,
            values,
            keys,
            ids,
            lows,
            spread,
            ends,
            guide,
            t,
            gaps,
            left_of,
            far,
        )
        if best > 1:
            more = best - 1
            uniforms(luck, count * more, seed, rep, 8, provider, round)
            uniforms(slips, count, seed, rep, 9, provider, round)
            _draw(
                others,
                0,
                luck,
                count * more,
                total,
                tops,
                wide,
                begins,
                levels,
                here,
                values,
                keys,
                ids,
                lows,
                spread,
                ends,
                guide,
                t,
                gaps,
                left_of,
                far,
            )
            for i in range(count):
                chosen = out[start + i]
                for c in range(i * more, (i + 1) * more if slips[i] >= errs else i * more):
                    if score[others[c]] > score[chosen]:
                        chosen = others[c]
                out[start + i] = chosen


@kernel
def publish(
    r0,
    r1,
    n,
    out,
    place,
    size,
    active,
    blocks,
    scales,
    tables,
    seed,
    replicate,
    round,
    first,
    best,
    errs,
    score,
):
    """Draw what rows r0..r1 publish this round, in order, into ``out``.

    Row r is provider (first + r) % n of replicate ``replicate + (first + r) // n``. It publishes ``size[r]``
    items at ``place[r]``: each the best by ``score`` of ``best`` candidates, or the first of them unseen with
    probability ``errs``.
    """
    most, longest = 0, 1
    for r in range(r0, r1):
        most = max(most, size[r])
        longest = max(longest, blocks.used[r])
    tries = most * max(1, best - 1)
    luck = np.empty(tries)
    slips = np.empty(most if best > 1 else 0)
    others = np.empty(tries if best > 1 else 0, np.int32)
    gaps, left_of, far = np.empty(tries + 1, np.int64), np.empty(tries + 1, np.int64), np.empty(tries + 1)
    depth, wide = 1, 8
    while wide < longest:
        depth, wide = depth + 1, 8 * wide
    tops = np.empty(depth * wide)
    begins = np.empty(wide)
    _publish_rows(
        r0, r1, n, out, place, size, active, blocks, scales, tables, seed, replicate, round, first, best,
        errs, score, luck, slips, others, gaps, left_of, far, tops, wide, begins,
    )  # fmt: skip


# --- mixing -----------------------------------------------------------------------------------------------


@intrinsic
def _shift(context: Any, array: Any, i: Any, n: Any) -> Any:
    """Move array[i], ..., array[i+n−1] one place on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(64)
        source = builder.gep(data, [arguments[1]])
        target = builder.gep(source, [ir.Constant(word, 1)])
        size = ir.Constant(word, context.get_abi_sizeof(data.type.pointee))
        function = builder.module.declare_intrinsic("llvm.memmove", [byte, byte, word])
        pointers = [builder.bitcast(pointer, byte) for pointer in (target, source)]
        length = builder.mul(arguments[2], size)
        builder.call(function, [*pointers, length, ir.Constant(ir.IntType(1), 0)])
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64), code


@intrinsic
def _below(context: Any, keys: Any, i: Any, v: Any) -> Any:
    """Return how many of the 64 numbers keys[i], ..., keys[i+63] are < v."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        word = ir.IntType(32)
        all64 = ir.VectorType(word, 64)
        pointer = builder.bitcast(builder.gep(array.data, [arguments[1]]), all64.as_pointer())
        numbers = builder.load(pointer, align=4)
        undefined = ir.Constant(all64, ir.Undefined)
        one = builder.insert_element(undefined, builder.trunc(arguments[2], word), ir.Constant(word, 0))
        splat = builder.shuffle_vector(one, undefined, ir.Constant(all64, [0] * 64))
        bits = builder.bitcast(builder.icmp_signed("<", numbers, splat), ir.IntType(64))
        return builder.ctpop(bits)

    return types.int64(keys, types.int64, types.int64), code


@inline
def _by_digit(source, target, places, n, shift, mask):
    """Sort numbers by some of their bits, those that are equal in these in the order in which they stand."""
    for d in range(mask + 2):
        places[d] = 0
    for i in range(n):
        places[((source[i] >> shift) & mask) + 1] += 1
    for d in range(mask):
        places[d + 1] += places[d]
    for i in range(n):
        digit = (source[i] >> shift) & mask
        target[places[digit]] = source[i]
        places[digit] += 1


@inline
def _sort(keys, spare, places, n, most):
    """Sort ``keys[:n]``, numbers from 0 to ``most``, in place."""
    if n <= 24:
        for i in range(1, n):
            key, j = keys[i], i
            while j > 0 and keys[j - 1] > key:
                keys[j] = keys[j - 1]
                j -= 1
            keys[j] = key
        return
    bits = 1
    while most >> bits:
        bits += 1
    passes = (bits + 7) // 8
    width = (bits + passes - 1) // passes
    mask = (1 << width) - 1
    for p in range(0, passes, 2):  # there and back
        _by_digit(keys, spare, places, n, p * width, mask)
        if p + 1 < passes:
            _by_digit(spare, keys, places, n, (p + 1) * width, mask)
        else:
            for i in range(n):
                keys[i] = spare[i]


@inline
def _one_uniform(s, seed, replicate, decision, provider, round):
    """Return the uniform number s of a stream by itself."""
    x = _philox(
        np.uint64((s >> 2) + 1), np.uint64(decision), np.uint64(provider), np.uint64(round),
        np.uint64(seed), np.uint64(replicate),
    )  # fmt: skip
    return (x[s & 3] >> _ELEVEN) * _UNIT


@bare
def _mix_rows(
    r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide, law,
    published, published_at, published_size, replacement, weight, flags, tally, people,
    seed, replicate, round, decision, first, outputs, weights, distinct, kinds, trouble,
    source, whose, which, flag, by, turn, asked, wanted, begin, items, spare, found, heavy, picks,
    places, card,
):  # fmt: skip
    """Do what `mix` says, in room that is there for it."""
    depth = published_size.shape[0]
    size = ends.shape[1] - 1 - PAD
    flagging = flags[0] + flags[1] > 0
    counting = len(people) > 0
    for r in range(r0, r1):
        distinct[r] = 0
        kinds[r] = 0
        if not active[r]:
            continue
        row = first + r
        rep, provider = replicate + row // n, row % n
        m, share = sizes[r], fresh[r]
        a0, readable = pointer[provider], pointer[provider + 1] - pointer[provider]
        # Who wrote the item in each slot: the position among those read, or ``readable`` for a human.
        if share >= 1 or readable == 0:
            by[:m] = readable
        elif shares[a0] == np.inf:
            by[:m] = 0
        else:
            uniforms(whose, m, seed, rep, 4, provider, round)
            whole = sums[provider]
            if readable == 8:
                for s in range(m):
                    by[s] = _rank(shares, a0, _at(whose, s) * whole)
            else:
                for s in range(m):
                    low, high = 0, readable >> 3  # the group of 8 whose last share is the first above
                    while low < high - 1:
                        middle = (low + high) >> 1
                        if shares[a0 + 8 * middle - 1] <= whose[s] * whole:
                            low = middle
                        else:
                            high = middle
                    by[s] = 8 * low + _rank(shares, a0 + 8 * low, whose[s] * whole)
        if 0 < share < 1:
            uniforms(source, m, seed, rep, 3, provider, round)
            for s in range(m):
                by[s] = readable if _at(source, s) < share else _at(by, s)
        # The slots of one author stand together, in slot order; so do those of humans.
        names = 0
        for s in range(m):
            j = _at(by, s)
            asked[names] = j
            names += _at(wanted, j) == 0
            wanted[j] += 1
        humans = wanted[readable]
        at = 0
        for name in range(names):
            begin[asked[name]] = at
            at += wanted[asked[name]]
        for s in range(m):
            j = _at(by, s)
            turn[_at(begin, j)] = s
            begin[j] += 1
        if humans < m:
            uniforms(which, m, seed, rep, 5, provider, round)
        good = True
        at = 0
        for name in range(names):
            j = asked[name]
            k = wanted[j]
            wanted[j] = 0
            if j == readable:
                own = law[rep - replicate]
                total = ends[own, size]
                for q in range(k):
                    source[q] = _one_uniform(_at(turn, at + q), seed, rep, decision, provider, round) * total
                for q in range(k):
                    v = _guided(ends, guide, own, source[q])
                    items[_at(turn, at + q)] = v
                    if counting:
                        people[v] += 1
                at += k
                continue
            author = authors[a0 + j] + row // n * n
            had = 0
            for d in range(depth):
                had += published_size[d, author]
            if had == 0 or (k > had and not replacement):
                if good:
                    trouble[0], trouble[1], trouble[2], trouble[3] = provider, authors[a0 + j], k, had
                good = False
            elif k == had and not replacement:
                for q in range(k):
                    picks[q] = q
            elif replacement:
                for q in range(k):
                    picks[q] = int(which[turn[at + q]] * had)
            else:  # the Fisher-Yates shuffle, stopped after k swaps and undone
                for q in range(k):
                    pick = q + int(_at(which, _at(turn, at + q)) * (had - q))
                    picks[q] = pick
                    spare[q] = _at(card, pick)
                    card[pick] = _at(card, q)
                for q in range(k):
                    pick = picks[q]
                    picks[q] = spare[q]
                    card[pick] = pick
            if good and depth == 1:
                begins = published_at[0, author]
                for q in range(k):
                    items[_at(turn, at + q)] = _at(published, begins + _at(picks, q))
            elif good:
                for q in range(k):
                    position, d = picks[q], 0
                    while position >= published_size[d, author]:
                        position -= published_size[d, author]
                        d += 1
                    items[turn[at + q]] = published[published_at[d, author] + position]
            at += k
        if not good:
            return False
        kinds[r, 0], kinds[r, 1] = humans, m - humans
        plain = not flagging and weight[r, 0] == 1 and weight[r, 1] == 1
        # Count them: ``tally`` holds the place of every output seen so far, from 1.
        count = 0
        if plain:
            for s in range(m):
                v = np.int64(_at(items, s))
                seen = np.int64(_at(tally, v))
                found[count] = v
                heavy[count] = 0.0
                count += seen == 0
                seen = seen if seen > 0 else count
                tally[v] = seen
                heavy[seen - 1] += 1.0
        else:
            if flagging:
                uniforms(flag, m, seed, rep, 10, provider, round)
            for s in range(m):
                kind = 0 if by[s] == readable else 1
                if flagging and flag[s] < flags[1 - kind]:
                    kinds[r, kind] -= 1
                    kind += 2
                    kinds[r, kind] += 1
                v = items[s]
                if weight[r, kind] > 0:
                    if tally[v] == 0:
                        found[count] = v
                        heavy[count] = 0.0
                        count += 1
                        tally[v] = count
                    heavy[tally[v] - 1] += weight[r, kind]
        _sort(found, spare, places, count, size)
        start = place[r]
        for c in range(count):
            v = np.int64(_at(found, c))
            outputs[start + c] = v
            weights[start + c] = heavy[_at(tally, v) - 1]
            tally[v] = 0
        distinct[r] = count
    return True


@kernel
def mix(
    r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide, law,
    published, published_at, published_size, replacement, weight, flags, tally, people,
    seed, replicate, round, decision, first, outputs, weights, distinct, kinds, trouble,
):  # fmt: skip
    """Gather the batches of rows r0..r1 and count them: what is in each, and with what weight.

    Row r fills ``sizes[r]`` slots by the rule of `ecosystem.mixing.Mixing`. Its different outputs are
    written in order to ``outputs[place[r]:]`` with their ``weights``; ``distinct[r]`` says how many,
    ``kinds[r]`` how many items of each class there are: human, synthetic, and the same two where flagged;
    ``weight[r]`` what an item of each weighs. Human items are drawn by the stream ``decision`` and, where
    ``people`` is not empty, counted in it. ``flags`` are the chances that a synthetic and a human item is
    flagged. Provider i reads the ``authors[pointer[i]:pointer[i+1]]`` (filled up to a multiple of 8) with
    cumulative ``shares`` that add up to ``sums[i]``, infinite from the last on. Returns False if a batch
    asks an author for more items than it published; ``trouble`` then holds reader, author, wanted, had.
    """
    most, crowd, stock = 1, 8, 1
    for r in range(r0, r1):
        most = max(most, sizes[r])
    for i in range(n):
        crowd = max(crowd, pointer[i + 1] - pointer[i])
    depth = published_size.shape[0]
    for j in range(published_size.shape[1]):
        held = 0
        for d in range(depth):
            held += published_size[d, j]
        stock = max(stock, held)
    source, whose, which, flag = np.empty(most), np.empty(most), np.empty(most), np.empty(most)
    by, turn = np.empty(most, np.int64), np.empty(most + 1, np.int64)
    asked = np.empty(most + 1, np.int64)
    wanted, begin = np.zeros(crowd + 1, np.int64), np.zeros(crowd + 1, np.int64)
    items, spare = np.empty(most, np.int32), np.empty(most, np.int32)
    found, heavy = np.empty(most + 1, np.int32), np.empty(most + 1)
    picks = np.empty(most, np.int64)
    places = np.empty(258, np.int32)
    card = np.arange(stock).astype(np.int32)
    return _mix_rows(
        r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide, law,
        published, published_at, published_size, replacement, weight, flags, tally, people,
        seed, replicate, round, decision, first, outputs, weights, distinct, kinds, trouble,
        source, whose, which, flag, by, turn, asked, wanted, begin, items, spare, found, heavy, picks,
        places, card,
    )  # fmt: skip


# --- learning ---------------------------------------------------------------------------------------------


@inline
def _weight(value, reference, inverse):
    """Return the tempered weight of an output from ln y."""
    return exp((value - reference) * inverse)


@inline
def _add_up(values, keys, ids, lows, counts, sums, place, dirty, high, spread, ends, t):
    """Recompute the cumulative weights of a block in the groups marked in the bits ``dirty``, and its sum."""
    at = np.int64(ids[place]) * STRIDE
    count = np.int64(counts[place])
    for group in range((count + 7) >> 3):
        if dirty >> group & 1:
            total = 0.0
            for k in range(at + 8 * group, at + min(8 * group + 8, count)):
                total += values[k + D] + values[k + W]
                values[k + _E] = total
            values[at + _G + group] = total
    total = 0.0
    for group in range(count >> 3):
        total += values[at + _G + group]
        values[at + _H + group] = total
    if count & 7:
        total += values[at + _G + (count >> 3)]
    left = np.int64(lows[place])
    if count > 0:
        left = np.int64(keys[2 * at + KEYS + count - 1]) + 1
    if high > left and spread > 0:
        total += spread * (ends[t, high] - ends[t, left])
    sums[place] = total


@inline
def _between(values, keys, ids, lows, place, k, spread, ends, t):
    """Compute the weight of the untouched outputs before entry k of a block anew."""
    at = np.int64(ids[place]) * STRIDE
    key = 2 * at + KEYS + k
    v = np.int64(keys[key])
    left = np.int64(lows[place])
    if k > 0:
        left = np.int64(keys[key - 1]) + 1
    weight = 0.0
    if v > left and spread > 0:
        weight = spread * (ends[t, v] - ends[t, left])
    values[at + D + k] = weight


@inline
def _high_of(lows, place, last, size):
    return size if place == last else np.int64(lows[place + 1])


@inline
def _split(values, keys, ids, lows, counts, sums, useds, spare, free, r, here, b):
    """Cut the full block b of a row in two, and make room for it in the row's list."""
    used = useds[r]
    for c in range(here + used, here + b + 1, -1):
        ids[c] = ids[c - 1]
        lows[c] = lows[c - 1]
        counts[c] = counts[c - 1]
        sums[c] = sums[c - 1]
    useds[r] += 1
    if free[1] > 0:
        free[1] -= 1
        fresh = np.int64(spare[free[1]])
    else:
        fresh = free[0]
        free[0] += 1
    place = here + b
    keep = FULL // 2
    old, new = np.int64(ids[place]) * STRIDE, fresh * STRIDE
    values[new + _H : new + W] = np.inf
    for part in (W, D, Y, L):
        for k in range(keep, FULL):
            values[new + part + k - keep] = values[old + part + k]
    for k in range(keep, FULL):
        keys[2 * new + KEYS + k - keep] = keys[2 * old + KEYS + k]
    keys[2 * new + KEYS + FULL - keep : 2 * new + KEYS + _SLOTS] = _NONE
    keys[2 * old + KEYS + keep : 2 * old + KEYS + _SLOTS] = _NONE
    values[old + _E + keep : old + W] = np.inf
    values[old + _H + (keep >> 3) : old + _E] = np.inf
    ids[place + 1] = fresh
    lows[place + 1] = keys[2 * new + KEYS]
    counts[place + 1] = FULL - keep
    counts[place] = keep


@bare
def _row_of(blocks, r, v):
    """Return (b, k, found): the block of a row that covers output v, and its place there."""
    here = blocks.first[r]
    b = _covering(blocks.lows, here, 0, blocks.used[r], v)
    key = 2 * np.int64(blocks.ids[here + b]) * STRIDE + KEYS
    k = _below(blocks.keys, key, v)
    return b, k, blocks.keys[key + k] == v


@inline
def _covering(lows, here, b, used, v):
    """Return the last of the blocks b to used − 1 of a row that starts at or before output v."""
    end = used
    while b + 1 < end:
        middle = (b + end) >> 1
        if lows[here + middle] <= v:
            b = middle
        else:
            end = middle
    return b


@inline
def _walk(lows, here, b, used, v):
    """Return the block of a row that covers output v, from block b on: a few steps, or else a jump."""
    for _ in range(8):
        if b + 1 >= used or lows[here + b + 1] > v:
            return b
        b += 1
    return _covering(lows, here, b, used, v)


@inline
def _ask_keys(values, ids, lows, here, used, outputs, begin, n):
    """Ask for the outputs of the blocks of a row that a batch touches."""
    b, asked = 0, -1
    for j in range(begin, begin + n):
        b = _walk(lows, here, b, used, outputs[j])
        if b != asked:
            at = np.int64(ids[here + b]) * STRIDE
            for line in range(KEYS // 2, STRIDE, 8):
                _prefetch(values, at + line)
            asked = b


@inline
def _ask_values(values, keys, ids, lows, here, used, outputs, begin, n):
    """Ask for the entries of a row that a batch touches."""
    b, asked = 0, -1
    at = np.int64(0)
    for j in range(begin, begin + n):
        v = np.int64(outputs[j])
        b = _walk(lows, here, b, used, v)
        if b != asked:
            at = np.int64(ids[here + b]) * STRIDE
            for line in range(0, W, 8):
                _prefetch(values, at + line)
            asked = b
        k = _below(keys, 2 * at + KEYS, v)
        # What is new moves all entries behind it.
        for part in range(W + k, W + k + 1 if keys[2 * at + KEYS + k] == v else D, 8):
            for place in range(at + part, at + part + 4 * _SLOTS, _SLOTS):
                _prefetch(values, place)


@bare
def clear(blocks, r):
    """Leave a row with one empty block."""
    here = blocks.first[r]
    for place in range(here + 1, here + blocks.used[r]):
        blocks.spare[blocks.free[1]] = blocks.ids[place]
        blocks.free[1] += 1
    blocks.used[r] = 1
    at = np.int64(blocks.ids[here]) * STRIDE
    blocks.values[at + _H : at + W] = np.inf
    blocks.keys[2 * at + KEYS : 2 * at + KEYS + _SLOTS] = _NONE
    blocks.lows[here] = 0
    blocks.counts[here] = 0


@bare
def _refresh(blocks, r, scales, tables, factor):
    """Multiply the raw values of a row by ``factor``, and recompute all its weights from them."""
    size = tables.ends.shape[1] - 1 - PAD
    here, used = blocks.first[r], blocks.used[r]
    values, keys, ids, lows = blocks.values, blocks.keys, blocks.ids, blocks.lows
    counts, sums = blocks.counts, blocks.sums
    table = scales.table[r]
    if factor != 1:
        scales.base[r] = max(scales.base[r] * factor, LEAST) if scales.base[r] > 0 else 0.0
    outset = log(scales.base[r]) + tables.peaks[tables.start[table]] if scales.base[r] > 0 else -np.inf
    highest = outset
    for place in range(here, here + used):
        at = np.int64(blocks.ids[place]) * STRIDE
        for k in range(blocks.counts[place]):
            if factor != 1:
                values[at + Y + k] = max(values[at + Y + k] * factor, LEAST)
                values[at + L + k] = log(values[at + Y + k])
            highest = max(highest, values[at + L + k])
    scales.highest[r] = highest
    scales.reference[r] = highest
    scales.spread[r] = _weight(outset, highest, scales.inverse[r]) if scales.base[r] > 0 else 0.0
    for place in range(here, here + used):
        at = np.int64(blocks.ids[place]) * STRIDE
        for k in range(blocks.counts[place]):
            values[at + W + k] = _weight(values[at + L + k], highest, scales.inverse[r])
            _between(values, keys, ids, lows, place, k, scales.spread[r], tables.ends, table)
        high = _high_of(lows, place, here + used - 1, size)
        _add_up(values, keys, ids, lows, counts, sums, place, 255, high, scales.spread[r], tables.ends, table)


@bare
def refresh(r0, r1, factors, which, blocks, scales, tables):
    """Rescale rows by their ``factors`` and recompute their weights, where ``which`` says so."""
    for r in range(r0, r1):
        if which[r]:
            _refresh(blocks, r, scales, tables, factors[r])


@inline
def _learn_row(
    r, n, o, here, outputs, weights, gain, forget, after, step, values, keys, ids, lows, counts, sums,
    useds, spare, free, base, reference, inverse, spread, highest, ends, t, laws, start, size, measuring,
    divergence, kept,
):  # fmt: skip
    """Add one batch to a row; return its largest ln y, its divergence and the mass outside the batch."""
    b, dirty = 0, 0
    at = np.int64(ids[here]) * STRIDE
    key = 2 * at + KEYS
    for j in range(n):
        v = np.int64(outputs[o + j])
        used = useds[r]
        if b + 1 < used and lows[here + b + 1] <= v:
            if dirty:
                _add_up(
                    values,
                    keys,
                    ids,
                    lows,
                    counts,
                    sums,
                    here + b,
                    dirty,
                    np.int64(lows[here + b + 1]),
                    spread,
                    ends,
                    t,
                )
                dirty = 0
            b = _walk(lows, here, b, used, v)
            at = np.int64(ids[here + b]) * STRIDE
            key = 2 * at + KEYS
        count = counts[here + b]
        k = _below(keys, key, v)
        fresh = keys[key + k] != v
        if not fresh:
            old = values[at + Y + k]
            was = values[at + L + k]
        else:
            if count == FULL:
                _split(values, keys, ids, lows, counts, sums, useds, spare, free, r, here, b)
                _between(values, keys, ids, lows, here + b + 1, 0, spread, ends, t)
                used = useds[r]
                _add_up(
                    values,
                    keys,
                    ids,
                    lows,
                    counts,
                    sums,
                    here + b,
                    255,
                    np.int64(lows[here + b + 1]),
                    spread,
                    ends,
                    t,
                )
                _add_up(
                    values,
                    keys,
                    ids,
                    lows,
                    counts,
                    sums,
                    here + b + 1,
                    255,
                    _high_of(lows, here + b + 1, here + used - 1, size),
                    spread,
                    ends,
                    t,
                )
                dirty = 0
                if v >= lows[here + b + 1]:
                    b += 1
                    k -= FULL // 2
                    at = np.int64(ids[here + b]) * STRIDE
                    key = 2 * at + KEYS
                count = counts[here + b]
            _shift(keys, key + k, count - k)
            _shift(values, at + W + k, count - k)
            _shift(values, at + D + k, count - k)
            _shift(values, at + Y + k, count - k)
            _shift(values, at + L + k, count - k)
            keys[key + k] = v
            if k < count:
                _between(values, keys, ids, lows, here + b, k + 1, spread, ends, t)
            dirty |= 255 << (k >> 3)
            counts[here + b] = count + 1
            old = base * laws[start, v]
            was = log(old) if measuring else 0.0
        y = old + gain * weights[o + j]
        now = log(y)
        values[at + Y + k] = y
        values[at + L + k] = now
        values[at + W + k] = _weight(now, reference, inverse)
        if fresh:
            _between(values, keys, ids, lows, here + b, k, spread, ends, t)
        highest = max(highest, now)
        dirty |= 1 << (k >> 3)
        if measuring and not forget:
            theta = after * y
            divergence += theta * (now - was + step)
            kept -= theta
    used = useds[r]
    _add_up(
        values,
        keys,
        ids,
        lows,
        counts,
        sums,
        here + b,
        dirty,
        _high_of(lows, here + b, here + used - 1, size),
        spread,
        ends,
        t,
    )
    return highest, divergence, kept


@bare
def learn(
    r0,
    r1,
    last,
    outputs,
    weights,
    place,
    distinct,
    gain,
    forget,
    before,
    after,
    blocks,
    scales,
    tables,
    measuring,
    moved,
):
    """Add the batches of rows r0..r1 to what they have learned.

    Raw values of the outputs in the batch grow by ``gain[r]`` times their weight; where ``forget[r]`` all
    that was learned before is gone. ``before`` and ``after`` are g of the two rounds; if ``measuring``,
    ``moved[r]`` becomes the Kullback-Leibler divergence of the new law from the old. Returns the first row
    that was not done because the pool or its list of blocks has no room for it, or r1. Rows before ``last``
    may be asked for ahead.
    """
    size = tables.ends.shape[1] - 1 - PAD
    values, keys, ids, lows = blocks.values, blocks.keys, blocks.ids, blocks.lows
    counts, sums, firsts, useds = blocks.counts, blocks.sums, blocks.first, blocks.used
    rooms, spare, free = blocks.room, blocks.spare, blocks.free
    inverses, references, highests = scales.inverse, scales.reference, scales.highest
    bases, spreads, table_of = scales.base, scales.spread, scales.table
    ends, laws, starts = tables.ends, tables.laws, tables.start
    for r in range(r0, r1):
        if r + 2 < last:
            _ask_keys(values, ids, lows, firsts[r + 2], useds[r + 2], outputs, place[r + 2], distinct[r + 2])
        if r + 1 < last:
            _ask_values(
                values, keys, ids, lows, firsts[r + 1], useds[r + 1], outputs, place[r + 1], distinct[r + 1]
            )
        n = distinct[r]
        if n == 0:
            moved[r] = 0.0
            continue
        used = useds[r]
        more = min(n, used + n // (FULL // 2) + 1)
        if more > len(spare) - free[0] + free[1] or used + more > rooms[r]:
            return r
        table, inverse = table_of[r], inverses[r]
        start, o = starts[table], place[r]
        step = log(after[r] / before[r])
        here = firsts[r]
        divergence, kept = 0.0, 1.0
        if forget[r]:
            if measuring:
                for j in range(n):
                    b, k, found = _row_of(blocks, r, outputs[o + j])
                    if found:
                        old = values[np.int64(ids[here + b]) * STRIDE + Y + k]
                    else:
                        old = bases[r] * laws[start, outputs[o + j]]
                    now = gain[r] * weights[o + j]
                    divergence += after[r] * now * (log(after[r] * now) - log(before[r] * old))
                kept = 0.0
            clear(blocks, r)
            bases[r], spreads[r] = 0.0, 0.0
            highests[r] = -np.inf
            heaviest = 0.0
            for j in range(n):
                heaviest = max(heaviest, weights[o + j])
            references[r] = log(gain[r] * heaviest)
        highest, divergence, kept = _learn_row(
            r, n, o, here, outputs, weights, gain[r], forget[r], after[r], step, values, keys, ids, lows,
            counts, sums, useds, spare, free, bases[r], references[r], inverse, spreads[r], highests[r],
            ends, table, laws, start, size, measuring, divergence, kept,
        )  # fmt: skip
        highests[r] = highest
        if (highest - references[r]) * inverse > REACH:
            _refresh(blocks, r, scales, tables, 1.0)
        if measuring:
            moved[r] = max(0.0, divergence + (kept * step if kept > 0 else 0.0))
    return r1


@bare
def advance(
    r0, r1, outputs, weights, at, distinct, gain, forget, before, after, blocks, scales, tables, measuring,
    moved, n, out, place, size, active, seed, replicate, round, first, best, errs, score,
):  # fmt: skip
    """Let rows r0..r1 `learn` and, while they are at hand, `publish` for the ``round`` to come.

    Returns the first row that was not done, as `learn` does, or r1.
    """
    r = r0
    while r < r1:
        end = min(r + _AT_HAND, r1)
        done = learn(
            r, end, r1, outputs, weights, at, distinct, gain, forget, before, after, blocks, scales, tables,
            measuring, moved,
        )  # fmt: skip
        publish(
            r, done, n, out, place, size, active, blocks, scales, tables, seed, replicate, round, first, best,
            errs, score,
        )  # fmt: skip
        if done < end:
            return done
        r = end
    return r1


@bare
def dense(r0, r1, g, blocks, scales, tables, out):
    """Fill ``out``, shape (r1 − r0, V), with Θ of the rows."""
    for r in range(r0, r1):
        start = tables.start[scales.table[r]]
        for v in range(out.shape[1]):
            out[r - r0, v] = scales.base[r] * g[r] * tables.laws[start, v]
        here = blocks.first[r]
        for place in range(here, here + blocks.used[r]):
            at = np.int64(blocks.ids[place]) * STRIDE
            for k in range(blocks.counts[place]):
                out[r - r0, blocks.keys[2 * at + KEYS + k]] = g[r] * blocks.values[at + Y + k]


@bare
def touched(r0, r1, g, blocks, pointer, outputs, values):
    """Write the touched outputs of the rows and their Θ, one row after the other, and where each row ends."""
    at_end = pointer[0]
    for r in range(r0, r1):
        here = blocks.first[r]
        for place in range(here, here + blocks.used[r]):
            at = np.int64(blocks.ids[place]) * STRIDE
            for k in range(blocks.counts[place]):
                outputs[at_end] = blocks.keys[2 * at + KEYS + k]
                values[at_end] = g[r] * blocks.values[at + Y + k]
                at_end += 1
        pointer[r - r0 + 1] = at_end
