r"""The round as compiled kernels over sparse providers: publish, mix, learn.

**What a provider is here.** In raw units :math:`\Theta_v = g\,y_v` with one factor g for all outputs. The
update :math:`\Theta \leftarrow (1-a)\Theta + a\,\mathrm{freq}` changes g, and adds to :math:`y_v` of the
outputs in the batch only (under "accumulate" exactly the item count, so that y are counts). The temperature
map does not see g. An output that a provider has not touched keeps :math:`y_v = s_b\,\ell_0\,\Theta_v(0)`:
its law is shared. What a provider owns is therefore its touched outputs, sorted by output and cut into
*blocks* of at most 63:

====  ==================================================================================================
``G``    weight of each of its full groups of 8 entries, infinite for others
``H``    cumulative weight at the end of each full group, infinite from the first group that is not full
``E``    cumulative weight D + w within the group at the end of each entry, infinite where there is none
``w``    tempered weight of each entry's output, (y/r)^(1/T), r a reference scale per provider
``D``    weight of the untouched outputs between the entry before, or the start of the block, and this one,
         infinite where there is none
``y``    its raw value
====  ==================================================================================================

E, H and G are recomputed from weights whenever one of these changes, and weights from y: nothing is ever
added to a running sum, so nothing drifts. Publishing adds up the blocks of a provider once a round, then
finds every output in a few comparisons of 8 numbers at once: O(log) an item, whatever V. Drawing is by
inversion in output order with the uniforms of `ecosystem.randomness`, as in the reference engine.
"""

import hashlib
import os
from collections.abc import Callable
from math import factorial
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

FULL = 63
"""Most touched outputs in a block: one slot of 64 stays infinite and ends every search."""
_SLOTS = 64
_HALF = FULL // 2
# Where the parts of a block start, in doubles. What is shifted has 8 places more than it needs.
_G, _H, _E, W, D, Y = 0, 8, 16, 80, 152, 224
KEYS = 2 * 296  # where its outputs start, 4 bytes each, in units of 4 bytes
STRIDE = 336
REACH = 500.0
"""A weight may grow to e^500 before the reference scale r is moved."""
_SMALL = 1e-200
"""A row whose factor g falls below this has its raw values rescaled."""
LEAST = 1e-290
"""Raw values stay above this when they are rescaled: what is alive stays alive, as in exact arithmetic."""
PAD = 8
"""Infinite entries at the end of cumulative laws."""
BEYOND = 16
"""Numbers at the end of lists of blocks that may be looked at, but do not count."""
_CARDS = 2**22
"""Items of all the authors of a batch that are shuffled at the same time, at most."""
_COPIED = 16
"""Items of authors that are copied, for one in a batch, at most."""
_NONE = 2**31 - 1
"""The key of an entry that is not there."""
LINE = 8
"""Numbers in a cache line, which threads that write are to have for themselves."""
_PATIENCE = 20_000
"""Looks at what others have done before a thread that waits for them goes to sleep: within a millisecond."""


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
def _philox(block, c1, c2, c3, k0, k1):
    """Return the 8 numbers of a block and the next: side by side they take less time than in turn."""
    a0, a1, a2, a3 = block, c1, c2, c3
    b0, b1, b2, b3 = block + np.uint64(1), c1, c2, c3
    for _ in range(10):
        high_a0, low_a0, high_a2, low_a2 = _high(_M0, a0), _M0 * a0, _high(_M1, a2), _M1 * a2
        high_b0, low_b0, high_b2, low_b2 = _high(_M0, b0), _M0 * b0, _high(_M1, b2), _M1 * b2
        a0, a1, a2, a3 = high_a2 ^ a1 ^ k0, low_a2, high_a0 ^ a3 ^ k1, low_a0
        b0, b1, b2, b3 = high_b2 ^ b1 ^ k0, low_b2, high_b0 ^ b3 ^ k1, low_b0
        k0 += _W0
        k1 += _W1
    return a0, a1, a2, a3, b0, b1, b2, b3


@inline
def uniforms(out, n, seed, replicate, decision, provider, round):
    """Fill ``out[:n]`` with the first uniforms of a stream: numpy's Generator(Philox).random, bit by bit."""
    k0, k1 = np.uint64(seed), np.uint64(replicate)
    c1, c2, c3 = np.uint64(decision), np.uint64(provider), np.uint64(round)
    whole = n >> 3 << 3
    for i in range(0, whole, 8):
        x0, x1, x2, x3, x4, x5, x6, x7 = _philox(np.uint64((i >> 2) + 1), c1, c2, c3, k0, k1)
        out[i] = (x0 >> _ELEVEN) * _UNIT
        out[i + 1] = (x1 >> _ELEVEN) * _UNIT
        out[i + 2] = (x2 >> _ELEVEN) * _UNIT
        out[i + 3] = (x3 >> _ELEVEN) * _UNIT
        out[i + 4] = (x4 >> _ELEVEN) * _UNIT
        out[i + 5] = (x5 >> _ELEVEN) * _UNIT
        out[i + 6] = (x6 >> _ELEVEN) * _UNIT
        out[i + 7] = (x7 >> _ELEVEN) * _UNIT
    if whole < n:
        rest = _philox(np.uint64((whole >> 2) + 1), c1, c2, c3, k0, k1)
        for i in range(n - whole):
            out[whole + i] = (rest[i] >> _ELEVEN) * _UNIT


# --- logarithms and exponentials --------------------------------------------------------------------------


@intrinsic
def _bits(context: Any, x: Any) -> Any:
    """Return the 64 bits of a number."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), code


@intrinsic
def _number(context: Any, bits: Any) -> Any:
    """Return the number with these 64 bits."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), code


_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_C2, _C3, _C4, _C5, _C6, _C7, _C8, _C9, _C10, _C11, _C12, _C13 = (1 / factorial(k) for k in range(2, 14))
_ROUND = 1.5 * 2.0**52
"""Added to a number and taken away again, it leaves the nearest whole number."""


@inline
def ln(x):
    """Return ln x for x ≥ 0, to the last bit but one.

    The series of fdlibm (Sun Microsystems 1993), in plain arithmetic without branches: a loop over it
    computes several at once, and the bits are the same on every machine, unlike those of its own library.
    """
    tiny = x < 2.3e-308
    bits = _bits(x * 2.0**54 if tiny else x)
    power = (bits - 0x3FE6A09E667F3BCD) >> 52  # x = 2^power (1 + f), 1 + f between √½ and √2
    f = _number(bits - (power << 52)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
    even = z * (
        6.666666666666735130e-01
        + w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01))
    )
    half = 0.5 * f * f
    k = float(power - 54 if tiny else power)
    found = k * _LN2_HIGH - ((half - (s * (half + odd + even) + k * _LN2_LOW)) - f)
    return found if x > 0 else -np.inf


@inline
def _exp(x):
    """Return e^x for x up to 709, to the last bit but one, as `ln` does; 0 below e^−708."""
    near = min(max(x, -708.0), 709.0)
    shifted = near * 1.4426950408889634 + _ROUND
    k = shifted - _ROUND
    r = (near - k * _LN2_HIGH) - k * _LN2_LOW
    r2 = r * r
    r4 = r2 * r2
    series = (
        ((_C2 + r * _C3) + r2 * (_C4 + r * _C5))
        + r4 * ((_C6 + r * _C7) + r2 * (_C8 + r * _C9))
        + (r4 * r4) * ((_C10 + r * _C11) + r2 * (_C12 + r * _C13))
    )
    found = (1.0 + (r + r2 * series)) * _number((_bits(shifted) + 1023) << 52)
    return found if x > -708.0 else 0.0


# --- drawing by inversion ---------------------------------------------------------------------------------


def _place(context: Any, builder: Any, signature: Any, arguments: Any, array: int = 0) -> Any:
    """Return where an entry of an array is: the arguments are the array and, after it, the index."""
    data = context.make_array(signature.args[array])(context, builder, arguments[array]).data
    return builder.gep(data, [arguments[array + 1]])


def _numbers_at(context: Any, builder: Any, signature: Any, arguments: Any, n: int, array: int = 0) -> Any:
    """Return where n numbers of an array start, as one vector: the arguments are those of `_place`."""
    first = _place(context, builder, signature, arguments, array)
    return builder.bitcast(first, ir.VectorType(first.type.pointee, n).as_pointer())


def _spread(builder: Any, x: Any, n: int) -> Any:
    """Return a vector of n times the same number."""
    undefined = ir.Constant(ir.VectorType(x.type, n), ir.Undefined)
    one = builder.insert_element(undefined, x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(ir.IntType(32), n), [0] * n))


@intrinsic
def _rank(context: Any, values: Any, i: Any, x: Any) -> Any:
    """Return how many of values[i], ..., values[i+7] are ≤ x: one comparison of 8 numbers."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = builder.load(_numbers_at(context, builder, signature, arguments, 8), align=8)
        passed = builder.fcmp_ordered("<=", numbers, _spread(builder, arguments[2], 8))
        return builder.zext(builder.ctpop(builder.bitcast(passed, ir.IntType(8))), ir.IntType(64))

    return types.int64(values, types.int64, types.float64), code


@intrinsic
def _prefetch(context: Any, values: Any, i: Any) -> Any:
    """Ask for the cache line of values[i]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        pointer = builder.bitcast(_place(context, builder, signature, arguments), byte)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        )
        builder.call(function, [pointer, *(ir.Constant(word, flag) for flag in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(values, types.int64), code


@intrinsic
def _add_eight(context: Any, sums: Any, i: Any, values: Any, j: Any) -> Any:
    """Add values[j], ..., values[j+7] to sums[i], ..., sums[i+7]."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = [_numbers_at(context, builder, signature, arguments, 8, array=which) for which in (0, 2)]
        total = builder.fadd(*(builder.load(place, align=8) for place in places))
        builder.store(total, places[0], align=8)
        return context.get_dummy_value()

    return types.void(sums, types.int64, values, types.int64), code


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
        return builder.load(_place(context, builder, signature, arguments))

    return values.dtype(values, types.int64), code


@inline
def _descend(luck, count, total, tops, wide, levels, begins, block_of, far):
    """Find the blocks where uniforms fall in a row's cumulative weights, and how far into them."""
    for i in range(count):
        x = _at(luck, i) * total
        b = 0
        for step in range(1, levels + 1):
            b = 8 * b + _rank(tops, (levels - step) * wide + 8 * b, x)
        far[i] = x - _at(begins, b)
        block_of[i] = b


@inline
def _draw(
    out, start, luck, count, total, tops, wide, begins, levels, here, values, keys, ids, lows, spread,
    ends, guide, t, places, block_of, gaps, far,
):  # fmt: skip
    """Invert ``count`` uniforms: out[start + i] becomes the output at luck[i] of a row's cumulative weights.

    Short loops instead of one long one: a processor keeps several turns of a short one under way.
    """
    # Loops of a known length are unrolled.
    if levels == 1:
        _descend(luck, count, total, tops, wide, 1, begins, block_of, far)
    elif levels == 2:
        _descend(luck, count, total, tops, wide, 2, begins, block_of, far)
    elif levels == 3:
        _descend(luck, count, total, tops, wide, 3, begins, block_of, far)
    else:
        _descend(luck, count, total, tops, wide, levels, begins, block_of, far)
    for i in range(count):
        x = _at(far, i)
        at = np.int64(_at(ids, here + _at(block_of, i))) * STRIDE
        group = _rank(values, at + _H, x)
        skip = _at(values, at + _H + max(group - 1, 0))
        x -= skip if group > 0 else 0.0
        entry = 8 * group + _rank(values, at + _E + 8 * group, x)
        far[i] = x
        places[i] = at + entry
        out[start + i] = _at(keys, 2 * at + KEYS + entry)
    n_gaps = 0
    for i in range(count):
        place = _at(places, i)
        before = _at(values, place + _E - 1)
        x = _at(far, i) - (before if place & 7 else 0.0)
        far[i] = x
        gaps[n_gaps] = i
        n_gaps += x < _at(values, place + D)
    for g in range(n_gaps):  # an untouched output, before the entry or behind the last one
        i = gaps[g]
        at = places[i] // STRIDE * STRIDE
        entry = places[i] - at
        last = values[places[i] + D] == np.inf
        left = np.int64(lows[here + block_of[i]])
        if entry > 0:
            left = np.int64(keys[2 * at + KEYS + entry - 1]) + 1
        if spread > 0:
            v = max(_guided(ends, guide, t, ends[t, left] + far[i] / spread), left)
            out[start + i] = v if last else min(v, out[start + i] - 1)
        else:  # there is none: x was rounded up to the end of the last entry
            out[start + i] = max(left - 1, 0)


@bare
def _publish_rows(
    r0, r1, n, out, place, size, active, blocks, scales, tables, seed, replicate, round, first, best, errs,
    score, luck, slips, others, places, block_of, gaps, far, tops, wide, begins,
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
                _prefetch(values, np.int64(ids[b]) * STRIDE + _H)
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
            out, start, luck, count, total, tops, wide, begins, levels, here, values, keys, ids, lows, spread,
            ends, guide, t, places, block_of, gaps, far,
        )  # fmt: skip
        if best > 1:
            more = best - 1
            uniforms(luck, count * more, seed, rep, 8, provider, round)
            uniforms(slips, count, seed, rep, 9, provider, round)
            _draw(
                others, 0, luck, count * more, total, tops, wide, begins, levels, here, values, keys, ids,
                lows, spread, ends, guide, t, places, block_of, gaps, far,
            )  # fmt: skip
            for i in range(count):
                chosen = out[start + i]
                for c in range(i * more, (i + 1) * more if slips[i] >= errs else i * more):
                    if score[others[c]] > score[chosen]:
                        chosen = others[c]
                out[start + i] = chosen


@kernel
def publish(
    round, out, r0, r1, n, place, size, active, blocks, scales, tables, seed, replicate, first, best, errs,
    score,
):  # fmt: skip
    """Draw what rows r0..r1 publish in a round, in order, into ``out``.

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
    places, block_of = np.empty(tries, np.int64), np.empty(tries, np.int64)
    gaps, far = np.empty(tries + 1, np.int64), np.empty(tries)
    depth, wide = 1, 8
    while wide < longest:
        depth, wide = depth + 1, 8 * wide
    tops = np.empty(depth * wide)
    begins = np.empty(wide)
    _publish_rows(
        r0, r1, n, out, place, size, active, blocks, scales, tables, seed, replicate, round, first, best,
        errs, score, luck, slips, others, places, block_of, gaps, far, tops, wide, begins,
    )  # fmt: skip


# --- mixing -----------------------------------------------------------------------------------------------


def empty_tally(n_outputs: int) -> Any:
    """Return a weight of 0 for every output, and a few more, so that 8 can always be looked at together."""
    return np.zeros((n_outputs + 7) // 8 * 8)


@intrinsic
def _push(context: Any, array: Any, i: Any) -> Any:
    """Move array[i], ..., array[i+7] one place on."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source = _place(context, builder, signature, arguments)
        target = builder.gep(source, [ir.Constant(ir.IntType(64), 1)])
        eight = ir.VectorType(source.type.pointee, 8).as_pointer()
        size = context.get_abi_sizeof(source.type.pointee)
        numbers = builder.load(builder.bitcast(source, eight), align=size)
        builder.store(numbers, builder.bitcast(target, eight), align=size)
        return context.get_dummy_value()

    return types.void(array, types.int64), code


@intrinsic
def _copy(context: Any, to: Any, i: Any, source: Any, j: Any, n: Any) -> Any:
    """Copy source[j], ..., source[j+n−1] to to[i], ..., to[i+n−1], in another array."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, origin = (_place(context, builder, signature, arguments, array=which) for which in (0, 2))
        size = context.get_abi_sizeof(target.type.pointee)
        cgutils.raw_memcpy(builder, target, origin, arguments[4], size)
        return context.get_dummy_value()

    return types.void(to, types.int64, source, types.int64, types.int64), code


@intrinsic
def _passed(context: Any, numbers: Any, i: Any, v: Any) -> Any:
    """Return in the bits of a number which of the 16 numbers[i], ..., numbers[i+15] are ≤ v."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = builder.load(_numbers_at(context, builder, signature, arguments, 16), align=4)
        v = builder.trunc(arguments[2], ir.IntType(32))
        passed = builder.icmp_signed("<=", numbers, _spread(builder, v, 16))
        return builder.zext(builder.bitcast(passed, ir.IntType(16)), ir.IntType(64))

    return types.int64(numbers, types.int64, types.int64), code


@intrinsic
def _how_many(context: Any, bits: Any) -> Any:
    """Return how many bits are set."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), code


@intrinsic
def _below(context: Any, keys: Any, i: Any, v: Any) -> Any:
    """Return how many of the 64 numbers keys[i], ..., keys[i+63] are < v."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        numbers = builder.load(_numbers_at(context, builder, signature, arguments, 64), align=4)
        v = builder.trunc(arguments[2], ir.IntType(32))
        below = builder.icmp_signed("<", numbers, _spread(builder, v, 64))
        return builder.ctpop(builder.bitcast(below, ir.IntType(64)))

    return types.int64(keys, types.int64, types.int64), code


@inline
def _one_uniform(s, seed, replicate, decision, provider, round):
    """Return the uniform number s of a stream by itself."""
    x = _philox(
        np.uint64((s >> 2) + 1), np.uint64(decision), np.uint64(provider), np.uint64(round),
        np.uint64(seed), np.uint64(replicate),
    )  # fmt: skip
    return (x[:4][s & 3] >> _ELEVEN) * _UNIT


@intrinsic
def _lowest(context: Any, bits: Any) -> Any:
    """Return which is the lowest bit that is set."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), code


@intrinsic
def _marked(context: Any, flags: Any, i: Any) -> Any:
    """Return in the bits of a number which of the 64 bytes flags[i], ..., flags[i+63] are not 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        marks = builder.load(_numbers_at(context, builder, signature, arguments, 64), align=1)
        found = builder.icmp_signed("!=", marks, ir.Constant(marks.type, [0] * 64))
        return builder.bitcast(found, ir.IntType(64))

    return types.int64(flags, types.int64), code


@intrinsic
def _weighty(context: Any, values: Any, i: Any) -> Any:
    """Return in the bits of a number which of values[i], ..., values[i+7] are not 0."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        weights = builder.load(_numbers_at(context, builder, signature, arguments, 8), align=8)
        found = builder.fcmp_unordered("!=", weights, ir.Constant(weights.type, [0.0] * 8))
        return builder.zext(builder.bitcast(found, ir.IntType(8)), ir.IntType(64))

    return types.int64(values, types.int64), code


@intrinsic
def _count(context: Any, counts: Any, i: Any, n: Any) -> Any:
    """Add n to counts[i], which other threads add to at the same time."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, signature, arguments)
        builder.atomic_rmw("add", place, arguments[2], "monotonic")
        return context.get_dummy_value()

    return types.void(counts, types.int64, types.int64), code


@kernel
def count(counts, more):
    """Add more to counts, both of shape (V,) of int64, to which other threads add at the same time."""
    for i in range(len(more)):
        if more[i] > 0:
            _count(counts, i, more[i])


@inline
def _whose(by, whose, m, shares, a0, readable, whole):
    """Fill by[:m] with the positions, among the authors that are read, at ``whose`` of their shares."""
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


@inline
def _deal(items, picks, cards, slots, count, by, which, taken, ends_at, free):
    """Deal a card to each of ``count`` slots, from the heap of whom it asks: a Fisher-Yates shuffle of each.

    It stops when all have what they want. ``picks`` are the places that were dealt from.
    """
    for i in range(count):
        s = np.int64(_at(slots, i))
        j = np.int64(_at(by, s))
        q = _at(taken, j)
        taken[j] = q + 1
        pick = q + int(_at(which, s) * _at(free, j) * (_at(ends_at, j) - q))
        picks[i] = pick
        items[s] = _at(cards, pick)
        cards[pick] = _at(cards, q)


@bare
def _mix_rows(
    r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide, law,
    published, published_at, published_size, replacement, weight, flags, tally, people,
    seed, replicate, round, decision, first, outputs, weights, distinct, totals, kinds, trouble,
    source, whose, which, by, asked, wanted, held, rank, taken, ends_at, free, shift, human, synthetic,
    some, items, picks, copies, card, lines, spans, got, stock, together,
):  # fmt: skip
    """Do what `mix` says, in room that is there for it."""
    depth = published_size.shape[0]
    size = ends.shape[1] - 1 - PAD
    flagging = flags[0] + flags[1] > 0
    counting = len(people) > 0
    for r in range(r0, r1):
        distinct[r], totals[r] = 0, 0.0
        if not active[r]:
            continue
        row = first + r
        rep, provider = replicate + row // n, row % n
        m, share = sizes[r], fresh[r]
        a0, readable = pointer[provider], pointer[provider + 1] - pointer[provider]
        # Who wrote the item in each slot: a human where ``source`` is below the share, or an author.
        if readable == 0 or share >= 1:
            source[:m] = -1.0
        else:
            if share > 0:
                uniforms(source, m, seed, rep, 3, provider, round)
            else:
                source[:m] = 1.0
            uniforms(which, m, seed, rep, 5, provider, round)
            if shares[a0] < np.inf:
                uniforms(whose, m, seed, rep, 4, provider, round)
                _whose(by, whose, m, shares, a0, readable, sums[provider])
            else:
                by[:m] = 0
        humans, others, names = 0, 0, 0
        for s in range(m):
            theirs = _at(source, s) >= share
            human[humans] = s
            synthetic[others] = s
            humans += not theirs
            others += theirs
        for i in range(others):
            j = np.int64(_at(by, np.int64(_at(synthetic, i))))
            asked[names] = j
            names += _at(wanted, j) == 0
            wanted[j] += 1
        # Whom they ask, what these have, and for how much of it they are asked.
        good, total = True, 0
        for name in range(names):
            j = asked[name]
            author = authors[a0 + j] + row // n * n
            k, there = wanted[j], 0
            for d in range(depth):
                there += published_size[d, author]
            if good and (there == 0 or (k > there and not replacement)):
                trouble[0], trouble[1], trouble[2], trouble[3] = provider, authors[a0 + j], k, there
                good = False
            free[j] = 0.0 if k == there else 1.0  # whoever takes all that there is, takes it in order
            wanted[j], held[j], rank[j] = 0, there, name
            total += there
        if not good:
            return False
        # Cards are their items or, where these are many for one batch, where these are.
        copied = total <= min(_COPIED * m, _CARDS) and not replacement
        top = 0
        for name in range(names):
            j = asked[name]
            author = authors[a0 + j] + row // n * n
            start = top if copied else name % together * stock
            taken[j], ends_at[j], shift[j] = start, start + held[j], published_at[0, author] - start
            if copied:
                for d in range(depth):
                    size_of = published_size[d, author]
                    _copy(copies, top, published, published_at[d, author], size_of)
                    top += size_of
        if copied:
            _deal(items, picks, copies, synthetic, others, by, which, taken, ends_at, free)
        elif replacement:
            for i in range(others):
                s = np.int64(_at(synthetic, i))
                j = np.int64(_at(by, s))
                items[s] = _at(taken, j) + int(_at(which, s) * (_at(ends_at, j) - _at(taken, j)))
        else:
            for turn in range(0, names, together):  # as many authors as there is room for
                count = 0
                for i in range(others):
                    some[count] = synthetic[i]
                    count += turn <= rank[by[synthetic[i]]] < turn + together
                _deal(items, picks, card, some, count, by, which, taken, ends_at, free)
                for i in range(count):
                    pick = _at(picks, i)
                    card[pick] = pick
        if not copied:
            for i in range(others):
                s = np.int64(_at(synthetic, i))
                j = np.int64(_at(by, s))
                position, d = items[s] + shift[j], 0
                if depth > 1:
                    author = authors[a0 + j] + row // n * n
                    position -= published_at[0, author]
                    while position >= published_size[d, author]:
                        position -= published_size[d, author]
                        d += 1
                    position += published_at[d, author]
                items[s] = _at(published, position)
        own = law[rep - replicate]
        whole = ends[own, size]
        near = guide.shape[1] / whole
        for i in range(humans):
            which[i] = _one_uniform(np.int64(human[i]), seed, rep, decision, provider, round) * whole
            _prefetch(guide, own * guide.shape[1] + min(int(which[i] * near), guide.shape[1] - 1))
        for i in range(humans):
            v = _guided(ends, guide, own, which[i])
            items[human[i]] = v
            if counting:
                _count(people, v, 1)
        got[0], got[1], got[2], got[3] = humans, others, 0, 0
        # Weigh them in ``tally``, and mark where: which lines of 8 outputs there are, and which 64 lines.
        if not flagging and weight[r, 0] == 1 and weight[r, 1] == 1:
            for s in range(m):
                v = np.int64(_at(items, s))
                tally[v] += 1.0
                lines[v >> 3] = 1
                spans[v >> 9] = 1
        else:
            if flagging:
                uniforms(which, m, seed, rep, 10, provider, round)
            for s in range(m):
                kind = 0 if source[s] < share else 1
                if flagging and which[s] < flags[1 - kind]:
                    got[kind] -= 1
                    kind += 2
                    got[kind] += 1
                if weight[r, kind] > 0:
                    v = np.int64(items[s])
                    tally[v] += weight[r, kind]
                    lines[v >> 3] = 1
                    spans[v >> 9] = 1
        distinct[r] = _collect(tally, lines, spans, outputs, weights, place[r])
        for kind in range(4):
            totals[r] += got[kind] * weight[r, kind]
            kinds[r, kind] += got[kind]
    return True


@inline
def _collect(tally, lines, spans, outputs, weights, start):
    """Write in order what weighs something, and its weight; leave no trace. Return how many there were."""
    at = start
    for s in range(0, len(spans), 64):
        some = _marked(spans, s)
        while some != 0:
            span = s + _lowest(some)
            some &= some - 1
            spans[span] = 0
            marked = _marked(lines, 64 * span)
            while marked != 0:
                line = 64 * span + _lowest(marked)
                marked &= marked - 1
                lines[line] = 0
                there = _weighty(tally, 8 * line)
                while there != 0:
                    v = 8 * line + _lowest(there)
                    there &= there - 1
                    outputs[at] = v
                    weights[at] = tally[v]
                    tally[v] = 0.0
                    at += 1
    return at - start


@kernel
def mix(
    round, published, r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide,
    law, published_at, published_size, replacement, weight, flags, tally, people, seed, replicate, decision,
    first, outputs, weights, distinct, totals, kinds, trouble,
):  # fmt: skip
    """Gather the batches of rows r0..r1 and count them: what is in each, and with what weight.

    Row r fills ``sizes[r]`` slots by the rule of `ecosystem.mixing.Mixing`. Its different outputs are
    written in order to ``outputs[place[r]:]`` with their ``weights``; ``distinct[r]`` says how many, and
    ``totals[r]`` what they weigh together. To ``kinds[r]`` is added how many items of each class there are:
    human, synthetic, and the same two where flagged; ``weight[r]`` is what an item of each weighs. Human
    items are drawn by the stream ``decision`` and, where ``people`` is not empty, counted in it. ``flags``
    are the chances that a synthetic and a human item is flagged. Provider i reads the
    ``authors[pointer[i]:pointer[i+1]]`` (filled up to a multiple of 8) with cumulative ``shares`` that add up
    to ``sums[i]``, infinite from the last on. ``tally`` is an `empty_tally`. Returns False if a batch asks an
    author for more items than it published; ``trouble`` then holds reader, author, wanted, had.
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
    source, whose, which = np.empty(most), np.empty(most), np.empty(most)
    by, items, picks = np.empty(most, np.int32), np.empty(most, np.int32), np.empty(most, np.int64)
    human, synthetic = np.empty(most + 1, np.int32), np.empty(most + 1, np.int32)
    some = np.empty(most + 1, np.int32)
    # Of every author: items asked for, items there, where its cards are, what to add to be in ``published``.
    wanted, taken, held = np.zeros(crowd, np.int64), np.zeros(crowd, np.int64), np.zeros(crowd, np.int64)
    ends_at, shift, free = np.zeros(crowd, np.int64), np.zeros(crowd, np.int64), np.zeros(crowd)
    asked, rank = np.empty(min(crowd, most) + 1, np.int64), np.zeros(crowd, np.int64)
    together = 1 if replacement else max(1, min(crowd, most, _CARDS // stock))
    copies = np.empty(1 if replacement else min(_COPIED * most, _CARDS), np.int32)
    card = np.empty(1 if replacement else together * stock, np.int32)
    for i in range(len(card)):
        card[i] = i
    pieces = (len(tally) + 511) >> 9
    lines, spans = np.zeros(64 * pieces, np.int8), np.zeros((pieces + 63) // 64 * 64, np.int8)
    return _mix_rows(
        r0, r1, n, active, fresh, sizes, place, pointer, authors, shares, sums, ends, guide, law,
        published, published_at, published_size, replacement, weight, flags, tally, people,
        seed, replicate, round, decision, first, outputs, weights, distinct, totals, kinds, trouble,
        source, whose, which, by, asked, wanted, held, rank, taken, ends_at, free, shift, human, synthetic,
        some, items, picks, copies, card, lines, spans, np.zeros(4, np.int64), stock, together,
    )  # fmt: skip


# --- learning ---------------------------------------------------------------------------------------------


@inline
def _weight(value, reference, inverse):
    """Return the tempered weight of an output from ln y."""
    return _exp((value - reference) * inverse)


@inline
def _add_up(values, keys, ids, lows, counts, sums, place, dirty, high, spread, ends, t):
    """Recompute the cumulative weights of a block in the groups marked in the bits ``dirty``, and its sum."""
    at = np.int64(ids[place]) * STRIDE
    count = np.int64(counts[place])
    full, rest = count >> 3, count & 7
    dirty &= (1 << ((count + 7) >> 3)) - 1
    lowest = min(_lowest(dirty | 128), full)
    while dirty != 0:
        group = _lowest(dirty)
        dirty &= dirty - 1
        total = 0.0
        for k in range(at + 8 * group, at + 8 * group + 8):  # D makes infinite what comes behind the entries
            total += _at(values, k + D) + _at(values, k + W)
            values[k + _E] = total
        values[at + _G + group] = total
    total = values[at + _H + lowest - 1] if lowest > 0 else 0.0
    for group in range(at + lowest, at + 8):
        total += _at(values, _G + group)
        values[_H + group] = total
    left = np.int64(_at(lows, place))
    total = 0.0
    if full > 0:
        total = values[at + _H + full - 1]
    if rest > 0:
        total += values[at + _E + count - 1]
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
def _empty(values, keys, at):
    """Let there be no entry in a block."""
    values[at : at + W] = np.inf
    values[at + W : at + D] = 0.0
    values[at + D : at + Y] = np.inf
    keys[2 * at + KEYS : 2 * (at + STRIDE)] = _NONE


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
    keep = _HALF
    old, new = np.int64(ids[place]) * STRIDE, fresh * STRIDE
    _empty(values, keys, new)
    for part in (W, D, Y):
        for k in range(keep, FULL):
            values[new + part + k - keep] = values[old + part + k]
    for k in range(keep, FULL):
        keys[2 * new + KEYS + k - keep] = keys[2 * old + KEYS + k]
    values[old + _G + (keep >> 3) : old + _H] = np.inf
    values[old + _H + (keep >> 3) : old + _E] = np.inf
    values[old + _E + keep : old + W] = np.inf
    values[old + D + keep : old + Y] = np.inf
    keys[2 * old + KEYS + keep : 2 * (old + STRIDE)] = _NONE
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
    """Return the block of a row that covers output v, from block b on: one step, or else a jump."""
    left = used - 1 - b
    bits = _passed(lows, here + b + 1, v)
    steps = _how_many(bits & ((1 << min(left, 16)) - 1))
    return b + steps if steps < 16 else _covering(lows, here, b + 16, used, v)


@inline
def _ask(values, ids, lows, here, used, outputs, o, n, spots):
    """Find the blocks of a row that a batch touches, and ask for their outputs."""
    b, asked = 0, -1
    for j in range(n):
        b = _walk(lows, here, b, used, np.int64(_at(outputs, o + j)))
        spots[j] = b << 8
        if b != asked:
            at = np.int64(ids[here + b]) * STRIDE
            for line in range(at + KEYS // 2, at + KEYS // 2 + _SLOTS // 2, 8):
                _prefetch(values, line)
            asked = b


@inline
def _find(values, keys, ids, lows, counts, sums, here, outputs, o, n, spots):
    """Find the places of a batch in the blocks that `_ask` has found, and ask for what is there.

    ``spots[j]`` becomes 256 b + 2 k + 1 if output j of the batch is not there yet and belongs before entry k
    of block b, and 256 b + 2 k if it is that entry.
    """
    asked = -1
    at, count = np.int64(0), np.int64(0)
    for j in range(n):
        v, b = np.int64(_at(outputs, o + j)), _at(spots, j) >> 8
        if b != asked:
            at, count = np.int64(ids[here + b]) * STRIDE, np.int64(counts[here + b])
            _prefetch(values, at)
            _prefetch(values, at + _H)
            _prefetch(values, at + _E + max(count - 1, 0))  # the sum of a block takes it in
            _prefetch(sums, here + b)
            asked = b
        k = _below(keys, 2 * at + KEYS, v)
        fresh = _at(keys, 2 * at + KEYS + k) != v
        spots[j] = (b << 8) + 2 * k + fresh
        _prefetch(values, at + k + _E)
        _prefetch(values, at + k + W)
        _prefetch(values, at + k + D)
        _prefetch(values, at + k + Y)
        if fresh:  # it moves all entries behind it
            for place in range(at + k + 8, at + count + 8, 8):
                _prefetch(values, place + W)
                _prefetch(values, place + D)
                _prefetch(values, place + Y)


@bare
def clear(blocks, r):
    """Leave a row with one empty block."""
    here = blocks.first[r]
    for place in range(here + 1, here + blocks.used[r]):
        blocks.spare[blocks.free[1]] = blocks.ids[place]
        blocks.free[1] += 1
    blocks.used[r] = 1
    at = np.int64(blocks.ids[here]) * STRIDE
    _empty(blocks.values, blocks.keys, at)
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
    outset = ln(scales.base[r]) + tables.peaks[tables.start[table]]
    largest = 0.0
    for place in range(here, here + used):
        at = np.int64(ids[place]) * STRIDE
        for k in range(at + Y, at + Y + counts[place]):
            if factor != 1:
                values[k] = max(values[k] * factor, LEAST)
            largest = max(largest, values[k])
    highest = max(outset, ln(largest))
    inverse = scales.inverse[r]
    spread = _weight(outset, highest, inverse) if scales.base[r] > 0 else 0.0
    scales.highest[r], scales.reference[r], scales.spread[r] = highest, highest, spread
    for place in range(here, here + used):
        at, count = np.int64(ids[place]) * STRIDE, np.int64(counts[place])
        for k in range(count):
            values[at + W + k] = _weight(ln(values[at + Y + k]), highest, inverse)
        for k in range(count):
            _between(values, keys, ids, lows, place, k, spread, tables.ends, table)
        high = _high_of(lows, place, here + used - 1, size)
        _add_up(values, keys, ids, lows, counts, sums, place, 255, high, spread, tables.ends, table)


@bare
def refresh(r0, r1, which, blocks, scales, tables):
    """Recompute the weights of rows where ``which`` says so."""
    for r in range(r0, r1):
        if which[r]:
            _refresh(blocks, r, scales, tables, 1.0)


@inline
def _settle(
    r, n, o, here, outputs, spots, now, worth, values, keys, ids, lows, counts, sums, useds, spare, free,
    spread, ends, t, size,
):  # fmt: skip
    """Store the raw values ``now`` and the weights ``worth`` of a batch at its ``spots`` in a row.

    From the last output to the first: what is put in moves nothing that comes before it, so that the spots
    that are still to be settled stay where they were found.
    """
    j = n - 1
    while j >= 0:
        run = spots[j] >> 8
        b, behind, dirty = run, 0, 0  # ``behind`` entries of the block found are now in blocks before b
        at = np.int64(ids[here + b]) * STRIDE
        while j >= 0 and _at(spots, j) >> 8 == run:
            spot = _at(spots, j)
            k, fresh = ((spot & 255) >> 1) - behind, spot & 1
            while k < 0 or (k == 0 and fresh == 1 and behind > 0):
                high = _high_of(lows, here + b, here + useds[r] - 1, size)
                _add_up(values, keys, ids, lows, counts, sums, here + b, dirty, high, spread, ends, t)
                b, behind, k, dirty = b - 1, behind - _HALF, k + _HALF, 255
                at = np.int64(ids[here + b]) * STRIDE
            if fresh:
                v = np.int64(outputs[o + j])
                count = np.int64(counts[here + b])
                if count == FULL:
                    _split(values, keys, ids, lows, counts, sums, useds, spare, free, r, here, b)
                    _between(values, keys, ids, lows, here + b + 1, 0, spread, ends, t)
                    dirty = 255
                    if k > _HALF:
                        b, behind, k = b + 1, behind + _HALF, k - _HALF
                        at = np.int64(ids[here + b]) * STRIDE
                    else:
                        high = _high_of(lows, here + b + 1, here + useds[r] - 1, size)
                        _add_up(
                            values, keys, ids, lows, counts, sums, here + b + 1, 255, high, spread, ends, t
                        )
                    count = np.int64(counts[here + b])
                top = k + (count - k - 1 >> 3 << 3)
                for i in range(at + top, at + k - 1, -8):
                    _push(values, i + W)
                    _push(values, i + D)
                    _push(values, i + Y)
                    _push(keys, at + KEYS + i)
                keys[2 * at + KEYS + k] = v
                counts[here + b] = count + 1
                _between(values, keys, ids, lows, here + b, k, spread, ends, t)
                if k < count:
                    _between(values, keys, ids, lows, here + b, k + 1, spread, ends, t)
                dirty |= 255 << (k >> 3)
            dirty |= 1 << (k >> 3)
            values[at + Y + k] = _at(now, j)
            values[at + W + k] = _at(worth, j)
            j -= 1
        while True:
            high = _high_of(lows, here + b, here + useds[r] - 1, size)
            _add_up(values, keys, ids, lows, counts, sums, here + b, dirty, high, spread, ends, t)
            if behind == 0:
                break
            b, behind, dirty = b - 1, behind - _HALF, 255


@bare
def _logarithms(values, logs, n):
    """Fill the logarithms of n values, eight at a time: there is room for 7 more."""
    whole = (n + 7) // 8 * 8
    values[n:whole] = 1.0
    for j in range(whole):
        logs[j] = ln(values[j])


@bare
def _weigh(logs, worth, n, reference, inverse):
    """Fill the tempered weights that belong to n logarithms, in the same way."""
    for j in range((n + 7) // 8 * 8):
        worth[j] = _weight(logs[j], reference, inverse)


@bare
def _learn_rows(
    r0, r1, outputs, weights, place, distinct, totals, trained, a, g, unit, blocks, scales, tables,
    measuring, moved, spots, old, now, logs, worth,
):  # fmt: skip
    """Do what `learn` says, in room that is there for it.

    While one row learns, what the next two need is on its way from memory: they have their ``spots`` in three
    lines by turns.
    """
    size = tables.ends.shape[1] - 1 - PAD
    values, keys, ids, lows = blocks.values, blocks.keys, blocks.ids, blocks.lows
    counts, sums, firsts, useds = blocks.counts, blocks.sums, blocks.first, blocks.used
    rooms, spare, free = blocks.room, blocks.spare, blocks.free
    inverses, references, highests = scales.inverse, scales.reference, scales.highest
    bases, spreads, table_of = scales.base, scales.spread, scales.table
    ends, laws, starts = tables.ends, tables.laws, tables.start
    for r in range(r0, r1):
        for q in range(r0 if r == r0 else r + 2, min(r + 3, r1)):
            _ask(values, ids, lows, firsts[q], useds[q], outputs, place[q], distinct[q], spots[q % 3])
        for q in range(r0 if r == r0 else r + 1, min(r + 2, r1)):
            _find(
                values, keys, ids, lows, counts, sums, firsts[q], outputs, place[q], distinct[q], spots[q % 3]
            )
        n = distinct[r]
        if n == 0:
            moved[r] = 0.0
            continue
        used = useds[r]
        more = min(n, used + n // _HALF + 1)
        if more > len(spare) - free[0] + free[1] or used + more > rooms[r]:
            return r
        here, o, own = firsts[r], place[r], spots[r % 3]
        table, inverse, base = table_of[r], inverses[r], bases[r]
        start, before, total = starts[table], g[r], totals[r]
        trained[r] += total
        forget = a == 1  # of all steps of the whole corpus, none is 1
        if np.isnan(a):
            after, add = unit[r] / trained[r], 1 / unit[r]
        else:
            after = 1 / total if forget else before * (1 - a)
            add = 1.0 if forget else a / (total * after)
            unit[r] = after * trained[r]
        g[r], step = after, ln(after / before)
        for j in range(n):
            spot = _at(own, j)
            mine = values[np.int64(_at(ids, here + (spot >> 8))) * STRIDE + Y + ((spot & 255) >> 1)]
            old[j] = base * laws[start, _at(outputs, o + j)] if spot & 1 else mine
        if forget:
            clear(blocks, r)
            bases[r], spreads[r], highests[r] = 0.0, 0.0, -np.inf
            heaviest = 0.0
            for j in range(n):
                own[j] = 1
                heaviest = max(heaviest, weights[o + j])
            references[r] = ln(add * heaviest)
        reference, keep = references[r], 0.0 if forget else 1.0
        for j in range(n):
            now[j] = add * _at(weights, o + j) + keep * _at(old, j)
        _logarithms(now, logs, n)
        if measuring:
            _logarithms(old, worth, n)
            divergence, kept = 0.0, 1.0
            for j in range(n):
                theta = after * now[j]
                divergence += theta * (logs[j] - worth[j] + step)
                kept -= theta
            moved[r] = max(0.0, divergence + (kept * step if kept > 0 and not forget else 0.0))
        _weigh(logs, worth, n, reference, inverse)
        highest = highests[r]
        for j in range(n):
            highest = max(highest, _at(logs, j))
        highests[r] = highest
        _settle(
            r, n, o, here, outputs, own, now, worth, values, keys, ids, lows, counts, sums, useds, spare,
            free, spreads[r], ends, table, size,
        )  # fmt: skip
        if (highest - reference) * inverse > REACH:
            _refresh(blocks, r, scales, tables, 1.0)
        if 0 < after < _SMALL:
            factor = _number(_bits(after) >> 52 << 52)  # the power of 2 below
            _refresh(blocks, r, scales, tables, factor)
            g[r] /= factor
            unit[r] /= factor
    return r1


@kernel
def learn(
    r0, a, r1, outputs, weights, place, distinct, totals, trained, g, unit, blocks, scales, tables,
    measuring, moved,
):  # fmt: skip
    """Move rows r0..r1 towards their batches, which `mix` has gathered.

    Steps are of size ``a`` or, where that is not a number, W/ℓ, the weight of the batch (``totals``) over
    that of all batches up to this one: ``trained``, to which it is added. Raw values of the outputs in the
    batch grow by a multiple of their weight, and ``g`` follows: they have the ``unit`` of one item's weight
    under "accumulate", where g is exactly unit/ℓ. If ``measuring``, ``moved[r]`` becomes the Kullback-Leibler
    divergence of the new law from the old. Returns the first row that was not done because the pool or its
    list of blocks has no room for it, or r1.
    """
    most = 1
    for r in range(r0, r1):
        most = max(most, distinct[r])
    spots = np.empty((3, most), np.int64)
    old, now, logs, worth = np.empty(most + 8), np.empty(most + 8), np.empty(most + 8), np.empty(most + 8)
    return _learn_rows(
        r0, r1, outputs, weights, place, distinct, totals, trained, a, g, unit, blocks, scales, tables,
        measuring, moved, spots, old, now, logs, worth,
    )  # fmt: skip


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


# --- rounds -----------------------------------------------------------------------------------------------


@intrinsic
def _look(context: Any, counts: Any, i: Any) -> Any:
    """Return counts[i], and see all that was written before another thread stored it there."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(counts, types.int64), code


@intrinsic
def _show(context: Any, counts: Any, i: Any, count: Any) -> Any:
    """Store counts[i] for other threads, with all that was written before."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store_atomic(arguments[2], _place(context, builder, signature, arguments), "release", 8)
        return context.get_dummy_value()

    return types.void(counts, types.int64, types.int64), code


@intrinsic
def _pause(context: Any) -> Any:
    """Let the other thread of a core go first for a moment, where processors know how."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith(("x86_64", "i686")):
            pause = ir.FunctionType(ir.VoidType(), [])
            builder.call(builder.module.declare_intrinsic("llvm.x86.sse2.pause", [], pause), [])
        return context.get_dummy_value()

    return types.void(), code


@inline
def _all_did(done, k):
    """Wait until all have done k rounds, for a while; return whether they have."""
    for c in range(0, len(done), LINE):
        looks = 0
        while _look(done, c) < k:
            if looks == _PATIENCE:
                return False
            looks += 1
            _pause()
    return True


@kernel
def turns(k, r, first, steps, stocks, mixing, learning, publishing, ahead, done, own):
    """Do rounds with a range of rows, in step with those who do the same rounds with all other ranges.

    ``mixing``, ``learning`` and ``publishing`` are what `mix`, `learn` and `publish` are to be given, but for
    what differs from round to round: round ``first + k`` takes a step of size ``steps[k]`` and reads the
    items ``stocks[k % 3]``; for the round after it, ``stocks[(k+1) % 3]`` is published, for the last one only
    if ``ahead``. ``done[LINE * c]`` says how many rounds range c has done; ``own`` is the index of this one.

    To begin with, k = 0 and r = −1. Returns both, to go on from: k = ``len(steps)`` if all rounds are done,
    r ≥ 0 for a row for which there must be made room. Otherwise `mix` is in trouble, or the others take their
    time.
    """
    rows = learning[0]
    while k < len(steps):
        if r < 0:
            if not (_all_did(done, k) and mix(first + k, stocks[k % 3], *mixing)):
                return k, r
            r = 0
        r = learn(r, steps[k], *learning)
        if r < rows:
            return k, r
        k, r = k + 1, -1
        if ahead or k < len(steps):
            publish(first + k, stocks[k % 3], *publishing)
        _show(done, own, k)
    return k, r
