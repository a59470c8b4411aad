"""The CPU engine's inner loops, compiled by Numba.

House rules: every function is `nogil` and works on one item, the engine spreads items over threads; arrays are
flat and C-contiguous, volumes are (offset, strides) into them; offsets are unsigned, because a signed index
makes Numba test for negative ones and the loop no longer vectorises; multiply and add may fuse (`contract`),
nothing else may be reordered, so a voxel's bits depend on its taps alone, not on the tile that it fell into.

Loop letters, as everywhere: `a`, `b` first and second axis of a tile, `i` destination index, `j` position along a
row, `k` tap, `r` row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import uint64

from gpuresample.engines.cpu.jit import njit, prefetch, prefetch_to_write
from gpuresample.engines.packing import AS_HALF, AS_IT_IS, AWAY, NEAREST, TOWARD_ZERO

Array = npt.NDArray[Any]

OPTIONS: dict[str, Any] = {
    "nogil": True, "fastmath": {"contract"}, "boundscheck": False, "error_model": "numpy",
}  # fmt: skip

# Rows that are transposed together for the pass along x.
ROWS = 128
# Rows of up to this many taps along x are gathered tap by tap; wider ones are transposed first.
FEW_TAPS = 4
# Rows that memory is asked for before they are copied, and before they are written.
AHEAD = 4
AHEAD_OUT = 2
# Bytes that memory and caches pass on at once, on the CPUs of today at least so many.
LINE = 64


class Taps(NamedTuple):
    """A table along a tile's first or second axis, of n rows of `width` taps at most.

    Attributes
    ----------
    firsts : int64 [n]
        The first sample that each row reads.
    counts : int64 [n]
        Its taps.
    weights : flat, of the sums' type [n * width]
        What the samples weigh, row by row.
    copies : bool
        Whether it is a copy by index.
    pairs : bool
        Whether rows have two taps, or one that weighs 1.
    """

    firsts: Array
    counts: Array
    weights: Array
    copies: bool
    pairs: bool


class TapsAlongX(NamedTuple):
    """A table along x, of n rows of `width` taps at most; samples count from the first that any row reads.

    Attributes
    ----------
    firsts, counts, weights : see `Taps`
    starts : uint32 [n]
        The first sample of each row in `slots`.
    slots : flat, of the sums' type [width * n]; none of tables wider than `FEW_TAPS`
        Tap by tap: `slots[k * n + j]` weighs sample `starts[j] + k`. Every row is as wide as the table, and is moved
        left where it would leave the axis.
    short : int64 [any]
        The rows that have fewer taps than that.
    few : bool
        Whether there are `slots`.
    identity : bool
        Whether it copies sample j to row j.
    same : two int
        Rows `same[0]` to `same[1]` have the same weights, each one sample further. None, unless they are most.
    n_read : int
        Samples from the first that is read to the last.
    first_read : int
        Where the first of them lies on the axis.
    """

    firsts: Array
    counts: Array
    weights: Array
    starts: Array
    slots: Array
    short: Array
    few: bool
    identity: bool
    same: tuple[int, int]
    n_read: int
    first_read: int


class Room(NamedTuple):
    """Where in a block's scratch its parts begin, in elements.

    Attributes
    ----------
    tile : int
        Sums along the first axis.
    window : int
        Rows of the source without gaps, later rows along x.
    rows : int
        Sums along the second axis.
    columns : int
        Transposed rows, for wide tables along x.
    """

    tile: int
    window: int
    rows: int
    columns: int


@njit(inline="always")
def nothing(like, count):
    """Minus zero, in a way the compiler cannot see: what every sum starts from.

    Then a first product is never free to fuse with either of two neighbours, and a sum has the same bits whichever
    of these loops makes it.
    """
    return like.dtype.type(math.copysign(0.0, -np.float64(np.int64(count))))


@njit(inner=True, **OPTIONS)
def weigh(out, oo, src, so, stride, n, weight, wo, count):
    """`out[oo + j] = sum over k of weight[wo + k] * src[so + k * stride + j]` for j < n.

    Eight taps per sweep: each sweep loads eight rows and touches `out` once.
    """
    acc = out.dtype.type
    oo, so, stride, n, wo, count = uint64(oo), uint64(so), uint64(stride), uint64(n), uint64(wo), uint64(count)
    one, two, four, eight = uint64(1), uint64(2), uint64(4), uint64(8)
    k, none = uint64(0), nothing(out, count)
    if count >= eight:
        s0 = so
        s1 = s0 + stride
        s2 = s1 + stride
        s3 = s2 + stride
        s4 = s3 + stride
        s5 = s4 + stride
        s6 = s5 + stride
        s7 = s6 + stride
        w0, w1, w2, w3 = weight[wo], weight[wo + one], weight[wo + two], weight[wo + uint64(3)]
        w4, w5 = weight[wo + four], weight[wo + uint64(5)]
        w6, w7 = weight[wo + uint64(6)], weight[wo + uint64(7)]
        for j in range(n):
            t = none + w0 * acc(src[s0 + j])
            t = t + w1 * acc(src[s1 + j])
            t = t + w2 * acc(src[s2 + j])
            t = t + w3 * acc(src[s3 + j])
            t = t + w4 * acc(src[s4 + j])
            t = t + w5 * acc(src[s5 + j])
            t = t + w6 * acc(src[s6 + j])
            out[oo + j] = t + w7 * acc(src[s7 + j])
        k = eight
        while k + eight <= count:
            s0 = so + k * stride
            s1 = s0 + stride
            s2 = s1 + stride
            s3 = s2 + stride
            s4 = s3 + stride
            s5 = s4 + stride
            s6 = s5 + stride
            s7 = s6 + stride
            v = wo + k
            w0, w1, w2, w3 = weight[v], weight[v + one], weight[v + two], weight[v + uint64(3)]
            w4, w5 = weight[v + four], weight[v + uint64(5)]
            w6, w7 = weight[v + uint64(6)], weight[v + uint64(7)]
            for j in range(n):
                t = out[oo + j] + w0 * acc(src[s0 + j])
                t = t + w1 * acc(src[s1 + j])
                t = t + w2 * acc(src[s2 + j])
                t = t + w3 * acc(src[s3 + j])
                t = t + w4 * acc(src[s4 + j])
                t = t + w5 * acc(src[s5 + j])
                t = t + w6 * acc(src[s6 + j])
                out[oo + j] = t + w7 * acc(src[s7 + j])
            k += eight
    elif count >= four:
        s0 = so
        s1 = s0 + stride
        s2 = s1 + stride
        s3 = s2 + stride
        w0, w1, w2, w3 = weight[wo], weight[wo + one], weight[wo + two], weight[wo + uint64(3)]
        for j in range(n):
            t = none + w0 * acc(src[s0 + j])
            t = t + w1 * acc(src[s1 + j])
            t = t + w2 * acc(src[s2 + j])
            out[oo + j] = t + w3 * acc(src[s3 + j])
        k = four
    elif count >= two:
        s0 = so
        s1 = s0 + stride
        w0, w1 = weight[wo], weight[wo + one]
        for j in range(n):
            t = none + w0 * acc(src[s0 + j])
            out[oo + j] = t + w1 * acc(src[s1 + j])
        k = two
    else:
        w0 = weight[wo]
        for j in range(n):
            out[oo + j] = none + w0 * acc(src[so + j])
        k = one
    if k + four <= count:
        s0 = so + k * stride
        s1 = s0 + stride
        s2 = s1 + stride
        s3 = s2 + stride
        v = wo + k
        w0, w1, w2, w3 = weight[v], weight[v + one], weight[v + two], weight[v + uint64(3)]
        for j in range(n):
            t = out[oo + j] + w0 * acc(src[s0 + j])
            t = t + w1 * acc(src[s1 + j])
            t = t + w2 * acc(src[s2 + j])
            out[oo + j] = t + w3 * acc(src[s3 + j])
        k += four
    if k + two < count:
        s0 = so + k * stride
        s1 = s0 + stride
        s2 = s1 + stride
        w0, w1, w2 = weight[wo + k], weight[wo + k + one], weight[wo + k + two]
        for j in range(n):
            t = out[oo + j] + w0 * acc(src[s0 + j])
            t = t + w1 * acc(src[s1 + j])
            out[oo + j] = t + w2 * acc(src[s2 + j])
    elif k + one < count:
        s0 = so + k * stride
        s1 = s0 + stride
        w0, w1 = weight[wo + k], weight[wo + k + one]
        for j in range(n):
            t = out[oo + j] + w0 * acc(src[s0 + j])
            out[oo + j] = t + w1 * acc(src[s1 + j])
    elif k < count:
        s0 = so + k * stride
        w0 = weight[wo + k]
        for j in range(n):
            out[oo + j] += w0 * acc(src[s0 + j])


@njit(inner=True, **OPTIONS)
def weigh_pairs(out, oo, src, so, sa, sb, n, a_weight, ao, a_count, b_weight, bo, b_count):
    """Up to two taps along a second axis of up to two taps along a first, in one sweep.

    A lone tap of these tables weighs 1, so the sums have the bits of two sweeps wherever either axis copies.
    """
    if a_count == 1:
        weigh(out, oo, src, so, sb, n, b_weight, bo, b_count)
    elif b_count == 1:
        weigh(out, oo, src, so, sa, n, a_weight, ao, a_count)
    else:
        acc = out.dtype.type
        none = nothing(out, a_count)
        w0, w1 = a_weight[ao] * b_weight[bo], a_weight[ao + 1] * b_weight[bo]
        w2, w3 = a_weight[ao] * b_weight[bo + 1], a_weight[ao + 1] * b_weight[bo + 1]
        oo, s0, s1 = uint64(oo), uint64(so), uint64(so + sa)
        s2, s3 = uint64(so + sb), uint64(so + sa + sb)
        for j in range(uint64(n)):
            t = none + w0 * acc(src[s0 + j])
            t = t + w1 * acc(src[s1 + j])
            t = t + w2 * acc(src[s2 + j])
            out[oo + j] = t + w3 * acc(src[s3 + j])


@njit(inner=True, **OPTIONS)
def load_row(out, oo, src, so, step, n):
    """`out[oo + j] = src[so + j * step]`, converted to the accumulator's type. `step` may be negative."""
    acc = out.dtype.type
    oo, so, n, step_u = uint64(oo), uint64(so), uint64(n), uint64(step)
    if step == 1:
        for j in range(n):
            out[oo + j] = acc(src[so + j])
    else:
        for j in range(n):
            out[oo + j] = acc(src[so + j * step_u])


@njit(inner=True, **OPTIONS)
def transpose(out, oo, src, so, rows, n):
    """`out[oo + j * rows + r] = src[so + r * n + j]`, in strips that stay in the nearest cache."""
    oo, so, rows, n = uint64(oo), uint64(so), uint64(rows), uint64(n)
    strip = uint64(16)
    for j0 in range(uint64(0), n, strip):
        j1 = min(j0 + strip, n)
        for r in range(rows):
            for j in range(j0, j1):
                out[oo + j * rows + r] = src[so + r * n + j]


@njit(inline="always")
def settle(value, low, high, rounding):
    """The only place where a sum becomes an integer voxel: rounded and saturated; NaN becomes 0."""
    number = value == value
    value = value if value > low else low
    value = value if value < high else high
    whole = np.rint(value)
    if rounding == TOWARD_ZERO:
        whole = np.trunc(value)
    elif rounding == AWAY:
        # Half of a number is not added to it: of large ones the sum would be rounded, too.
        whole = np.trunc(value)
        rest = value - whole
        whole = whole + np.trunc(rest + rest)
    return whole if number else low - low


@njit(inline="always")
def windowed(value, low, high, scale, offset):
    """A sum kept within a range, times a factor, plus an offset; NaN stays NaN."""
    value = low if value < low else value
    value = high if value > high else value
    return value * scale + offset


@njit(inline="always")
def half_bits(value):
    """The bits of the 16-bit float nearest to a number, half to even; Numba has no such type.

    Normal numbers lose 13 bits of their 23 by integer arithmetic, which carries into the exponent where it must. What
    is below 2^-14 is a multiple of 2^-24.
    """
    narrow = np.float32(value)
    bits = narrow.view(np.uint32)
    size = bits & np.uint32(0x7FFFFFFF)
    normal = (size + np.uint32(0xFFF) + ((size >> np.uint32(13)) & np.uint32(1))) >> np.uint32(13)
    normal = normal - np.uint32(112 << 10)  # exponents count from 15, not from 127
    small = np.uint32(np.int32(np.rint(min(abs(narrow), np.float32(1.0)) * np.float32(1 << 24))))
    half = small if size < np.uint32(113 << 23) else normal
    half = half if size < np.uint32(0x477FF000) else np.uint32(0x7C00)
    half = half if size <= np.uint32(0x7F800000) else np.uint32(0x7E00)
    return half | ((bits >> np.uint32(16)) & np.uint32(0x8000))


@njit(inner=True, **OPTIONS)
def store_window(dst, do, step, src, so, n, bounds, rounding):
    """`store_row` of sums that go through a window first."""
    do, so, n, step_u = uint64(do), uint64(so), uint64(n), uint64(step)
    kind = dst.dtype.type
    low, high, a, b, scale, offset = bounds[0], bounds[1], bounds[2], bounds[3], bounds[4], bounds[5]
    if rounding == AS_IT_IS and step == 1:
        for j in range(n):
            dst[do + j] = kind(windowed(src[so + j], a, b, scale, offset))
    elif rounding == NEAREST and step == 1:
        for j in range(n):
            dst[do + j] = kind(settle(windowed(src[so + j], a, b, scale, offset), low, high, NEAREST))
    elif rounding == AS_HALF and step == 1:
        for j in range(n):
            dst[do + j] = kind(half_bits(windowed(src[so + j], a, b, scale, offset)))
    else:
        for j in range(n):
            value = windowed(src[so + j], a, b, scale, offset)
            if rounding == AS_IT_IS:
                dst[do + j * step_u] = kind(value)
            elif rounding == AS_HALF:
                dst[do + j * step_u] = kind(half_bits(value))
            else:
                dst[do + j * step_u] = kind(settle(value, low, high, rounding))


@njit(inner=True, **OPTIONS)
def store_row(dst, do, step, src, so, n, bounds, rounding):
    """`dst[do + j * step] = src[so + j]` in the destination's type.

    `rounding`: `AS_IT_IS` for floats, `NEAREST` (half to even), `TOWARD_ZERO`, `AWAY` (to nearest, half away from
    zero); `AS_HALF` for 16-bit floats as their bits, which always go through a window. `bounds`: smallest and largest
    integer; and the window that sums go through, where there is one: low, high, scale, offset.
    """
    if bounds.size > 2:
        store_window(dst, do, step, src, so, n, bounds, rounding)
        return
    do, so, n, step_u = uint64(do), uint64(so), uint64(n), uint64(step)
    kind = dst.dtype.type
    low, high = bounds[0], bounds[1]
    # Spelt out per case: only a loop without branches and with a known step of 1 fills vectors.
    if rounding == AS_IT_IS and step == 1:
        for j in range(n):
            dst[do + j] = kind(src[so + j])
    elif rounding == NEAREST and step == 1:
        for j in range(n):
            dst[do + j] = kind(settle(src[so + j], low, high, NEAREST))
    elif rounding == TOWARD_ZERO and step == 1:
        for j in range(n):
            dst[do + j] = kind(settle(src[so + j], low, high, TOWARD_ZERO))
    elif rounding == AWAY and step == 1:
        for j in range(n):
            dst[do + j] = kind(settle(src[so + j], low, high, AWAY))
    elif rounding == AS_IT_IS:
        for j in range(n):
            dst[do + j * step_u] = kind(src[so + j])
    else:
        for j in range(n):
            dst[do + j * step_u] = kind(settle(src[so + j], low, high, rounding))


@njit(inner=True, **OPTIONS)
def sum_rows(out, oo, src, so, first, count, weight, taps, start, stop):
    """Rows `start` to `stop` of a table `taps` wide, tap by tap, each from `src[so + first[i]]` on."""
    none = nothing(out, taps)
    for i in range(start, stop):
        p, w = uint64(so + first[i]), uint64(i * taps)
        t = none + weight[w] * src[p]
        for k in range(uint64(1), uint64(count[i])):
            t = t + weight[w + k] * src[p + k]
        out[uint64(oo + i)] = t


@njit(inline="always")
def soon_written(out, oo, n):
    """Have memory for `out[oo]` to `out[oo + n]` brought closer: a CPU fetches what it writes, and late if not told."""
    for j in range(uint64(oo), uint64(oo + n), uint64(LINE // out.itemsize)):
        prefetch_to_write(out, j)


@njit(inner=True, **OPTIONS)
def few_taps_rows(out, oo, src, so, n_rows, n_src, x):
    """A pass along x of few taps, by rows: `out[oo + j] = sum over k of slots[k * n + j] * src[so + starts[j] + k]`.

    `x`: `TapsAlongX`. Its rows that have fewer taps than it is wide (`short`) are done again, by their own weights:
    a voxel that SimpleITK does not read must not matter here, not even as 0 * NaN.
    """
    index, weight = x.starts, x.slots
    n = uint64(index.size)
    taps = weight.size // index.size
    one, two, three = uint64(1), uint64(2), uint64(3)
    m = n + n
    q = m + n
    none = nothing(out, taps)
    for r in range(n_rows):
        soon_written(out, oo + (r + AHEAD_OUT) * index.size, index.size)
        o, s = uint64(oo + r * index.size), uint64(so + r * n_src)
        if taps == 1:
            for j in range(n):
                out[o + j] = none + weight[j] * src[s + index[j]]
        elif taps == 2:
            for j in range(n):
                p = s + index[j]
                t = none + weight[j] * src[p]
                out[o + j] = t + weight[j + n] * src[p + one]
        elif taps == 3:
            for j in range(n):
                p = s + index[j]
                t = none + weight[j] * src[p]
                t = t + weight[j + n] * src[p + one]
                out[o + j] = t + weight[j + m] * src[p + two]
        else:
            for j in range(n):
                p = s + index[j]
                t = none + weight[j] * src[p]
                t = t + weight[j + n] * src[p + one]
                t = t + weight[j + m] * src[p + two]
                out[o + j] = t + weight[j + q] * src[p + three]
        for j in x.short:
            sum_rows(out, oo + r * index.size, src, so + r * n_src, x.firsts, x.counts, x.weights, taps, j, j + 1)


@njit(inner=True, **OPTIONS)
def x_pass(out, oo, src, so, rows, n_src, x, columns, co):
    """The pass along x of `rows` rows of `n_src` samples into rows of `n_dst`.

    Where every row of the table `x` (`TapsAlongX`) is the one before moved by a sample, as in blurs, neighbouring
    samples fill a vector. Other wide tables work on transposed rows, so that neighbouring rows, not neighbouring taps,
    fill it.
    """
    first, count, weight = x.firsts, x.counts, x.weights
    n_dst = first.size
    if x.identity:
        for r in range(rows):
            load_row(out, oo + r * n_dst, src, so + r * n_src, 1, n_dst)
    elif x.same[0] < x.same[1]:
        s0, s1 = x.same
        taps = weight.size // n_dst
        for r in range(rows):
            soon_written(out, oo + (r + AHEAD_OUT) * n_dst, n_dst)
            o, s = oo + r * n_dst, so + r * n_src
            sum_rows(out, o, src, s, first, count, weight, taps, 0, s0)
            weigh(out, o + s0, src, s + first[s0], 1, s1 - s0, weight, s0 * taps, count[s0])
            sum_rows(out, o, src, s, first, count, weight, taps, s1, n_dst)
    elif x.few:
        few_taps_rows(out, oo, src, so, rows, n_src, x)
    else:
        back = co + n_src * rows
        transpose(columns, co, src, so, rows, n_src)
        taps = weight.size // n_dst
        for i in range(n_dst):
            weigh(columns, back + i * rows, columns, co + first[i] * rows, rows, rows, weight, i * taps, count[i])
        transpose(out, oo, columns, back, n_dst, rows)


@njit(**OPTIONS)
def separable_block(
    src, so, dst, straight, do, strides, a, b, x, a0, a1, b0, b1, x_early, bounds, rounding, scratch, room
):
    """One block of a separable plan: destination rows `a0..a1` by `b0..b1`, whole rows along x.

    First the pass along `a` from the source's type into a tile, then `b` and `x` (or `x` and `b`, if `x_early`).

    Parameters
    ----------
    src, dst : flat arrays; so, do : their offsets of the volume's first voxel
    straight : dst again, if its rows have no gaps and its type is the sums'; else an array of none, of that type
    strides : int64 [6]: of src along a, b, x, then of dst
    a, b : `Taps`
    x : `TapsAlongX`
    room : `Room`
    """
    sa, sb, sx, da, db, dx = strides
    a_first, a_count, a_weight, a_copy = a.firsts, a.counts, a.weights, a.copies
    b_first, b_count, b_weight, b_copy = b.firsts, b.counts, b.weights, b.copies
    a_taps, b_taps = a_weight.size // a_first.size, b_weight.size // b_first.size
    n_x, m_x = x.n_read, x.firsts.size
    so = so + x.first_read * sx
    # Rows of the source along b that this block reads.
    s0, s1 = b_first[b0], b_first[b0] + b_count[b0]
    for i in range(b0, b1):
        s0 = min(s0, b_first[i])
        s1 = max(s1, b_first[i] + b_count[i])
    n_b = s1 - s0
    tile, window, rows, columns = room

    # Along a. A copy followed by few taps needs no tile, nor do two taps and two: b reads the source itself.
    pairs = a.pairs and b.pairs
    direct = sx == 1 and not x_early and (pairs or (a_copy and b_taps <= FEW_TAPS))
    w0, w1 = a_first[a0], a_first[a0] + a_count[a0]
    for i in range(a0, a1):
        w0 = min(w0, a_first[i])
        w1 = max(w1, a_first[i] + a_count[i])
    for s in range(s0, s1 if not direct else s0):
        if sx != 1 and not a_copy:
            # Rows with gaps are gathered once, not once per tap.
            for w in range(w0, w1):
                load_row(scratch, window + (w - w0) * n_x, src, so + w * sa + s * sb, sx, n_x)
        for i in range(a0, a1):
            row, here = tile + ((i - a0) * n_b + s - s0) * n_x, so + a_first[i] * sa + s * sb
            if a_copy:
                load_row(scratch, row, src, here, sx, n_x)
            elif sx == 1:
                weigh(scratch, row, src, here, sa, n_x, a_weight, i * a_taps, a_count[i])
            else:
                here = window + (a_first[i] - w0) * n_x
                weigh(scratch, row, scratch, here, n_x, n_x, a_weight, i * a_taps, a_count[i])

    if x_early:
        for i in range(a0, a1):
            # Along x, source rows of b into the same rows, now m_x long.
            plane = window
            for r0 in range(0, n_b, ROWS):
                r1 = min(r0 + ROWS, n_b)
                x_pass(
                    scratch,
                    plane + r0 * m_x,
                    scratch,
                    tile + ((i - a0) * n_b + r0) * n_x,
                    r1 - r0,
                    n_x,
                    x,
                    scratch,
                    columns,
                )
            for i_b in range(b0, b1):
                here = plane + (b_first[i_b] - s0) * m_x
                if not b_copy and straight.size:
                    there = do + i * da + i_b * db
                    weigh(straight, there, scratch, here, m_x, m_x, b_weight, i_b * b_taps, b_count[i_b])
                    continue
                if not b_copy:
                    weigh(scratch, rows, scratch, here, m_x, m_x, b_weight, i_b * b_taps, b_count[i_b])
                    here = rows
                store_row(dst, do + i * da + i_b * db, dx, scratch, here, m_x, bounds, rounding)
    else:
        for i in range(a0, a1):
            plane = tile + (i - a0) * n_b * n_x
            for r0 in range(b0, b1, ROWS):
                r1 = min(r0 + ROWS, b1)
                for r in range(r0, r1):
                    if direct:
                        here = so + a_first[i] * sa + b_first[r] * sb
                        row = rows + (r - r0) * n_x
                        if pairs:
                            weigh_pairs(
                                scratch, row, src, here, sa, sb, n_x, a_weight, i * a_taps, a_count[i], b_weight,
                                r * b_taps, b_count[r],
                            )  # fmt: skip
                        else:
                            weigh(scratch, row, src, here, sb, n_x, b_weight, r * b_taps, b_count[r])
                    else:
                        here = plane + (b_first[r] - s0) * n_x
                        weigh(scratch, rows + (r - r0) * n_x, scratch, here, n_x, n_x, b_weight, r * b_taps, b_count[r])
                if straight.size and db == m_x:
                    x_pass(straight, do + i * da + r0 * db, scratch, rows, r1 - r0, n_x, x, scratch, columns)
                    continue
                x_pass(scratch, window, scratch, rows, r1 - r0, n_x, x, scratch, columns)
                for r in range(r0, r1):
                    store_row(dst, do + i * da + r * db, dx, scratch, window + (r - r0) * m_x, m_x, bounds, rounding)


@njit(**OPTIONS)
def copy_block(src, so, dst, do, strides, a_index, b_index, x_index, a0, a1, b0, b1, run, line):
    """Voxels copied by index, whatever their type. `run`: x indices follow each other, so rows are copied whole.

    A loop that copies voxel by voxel fills the window in which a CPU looks ahead, so memory is asked for rows before
    their turn. `line`: samples between two addresses asked for.
    """
    sa, sb, sx, da, db, dx = strides
    n = uint64(x_index.size)
    low, high = uint64(min(x_index[0], x_index[-1])), uint64(max(x_index[0], x_index[-1]))
    for i in range(a0, a1):
        plane = so + np.int64(a_index[i]) * sa
        for r in range(b0, b1):
            s = uint64(plane + np.int64(b_index[r]) * sb)
            d = uint64(do + i * da + r * db)
            if sx == 1 and r + AHEAD < b1:
                soon = uint64(plane + np.int64(b_index[r + AHEAD]) * sb)
                for j in range(low, high + uint64(1), uint64(line)):
                    prefetch(src, soon + j)
            if run and dx == 1 and sx == 1:
                s += uint64(x_index[0])
                for j in range(n):
                    dst[d + j] = src[s + j]
            elif dx == 1 and sx == 1:
                for j in range(n):
                    dst[d + j] = src[s + uint64(x_index[j])]
            else:
                step_s, step_d = uint64(sx), uint64(dx)
                for j in range(n):
                    dst[d + j * step_d] = src[s + uint64(x_index[j]) * step_s]


@njit(**OPTIONS)
def two_tables_plane(dst, do, dy, dx, along_y, ay, y, along_z, az, z, n_x, row, bounds, rounding, scratch):
    """One plane as the sum of a table along y of one array and a table along z of another, both in C order.

    Parameters
    ----------
    dst : flat array; do, dy, dx : its offset of the plane's first voxel, and its strides
    along_y, along_z : flat arrays [n_z, m_y, n_x], [m_z, n_y, n_x]; ay, az : offsets of plane z and of plane 0
    y, z : `Taps`
    row : the plane's number, which is its row of `z`
    scratch : [2, n_x]
    """
    y_first, y_count, y_weight = y.firsts, y.counts, y.weights
    z_first, z_count, z_weight = z.firsts, z.counts, z.weights
    n_y = y_first.size
    y_taps, z_taps = y_weight.size // n_y, z_weight.size // z_first.size
    n, other = uint64(n_x), uint64(n_x)
    for i in range(n_y):
        weigh(scratch, 0, along_y, ay + y_first[i] * n_x, n_x, n_x, y_weight, i * y_taps, y_count[i])
        here = az + (z_first[row] * n_y + i) * n_x
        weigh(scratch, other, along_z, here, n_y * n_x, n_x, z_weight, row * z_taps, z_count[row])
        for x in range(n):
            scratch[x] += scratch[other + x]
        store_row(dst, do + i * dy, dx, scratch, 0, n_x, bounds, rounding)
