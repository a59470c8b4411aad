"""The CPU engine's ensembles, compiled by Numba: scores of several models to labels, a row of voxels at a time.

The house rules are those of `table_kernels`. A row of scores is `[class, voxel]`: every loop runs along the voxels of
one class, so that voxels fill vectors and a class costs the same whether there are 2 or 200. `m` is a model, `c` a
class, `j` a position along the row.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS
from gpuresample.planning.works import ACTIVATIONS, CHOICES

NONE, SOFTMAX, SIGMOID = (ACTIVATIONS[word] for word in ("none", "softmax", "sigmoid"))
LARGEST, BITS = CHOICES["largest"], CHOICES["bits"]

LOG2E = np.float32(1.4426950408889634)
# ln 2 in two parts, the first short enough that its product with a whole number of up to 8 bits is exact.
LN2_HIGH, LN2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)
# exp below this is nothing next to a largest term of 1.
LEAST = np.float32(-87.0)
# 1.5 * 2**23: adding it rounds to a whole number, which is then in the low bits.
SHIFT = np.float32(12582912.0)
# Taylor coefficients of exp, on [-ln 2 / 2, ln 2 / 2] good to the last place.
E7, E6, E5, E4, E3, E2 = (np.float32(1.0 / math.factorial(k)) for k in (7, 6, 5, 4, 3, 2))
ONE, ZERO = np.float32(1.0), np.float32(0.0)
TINY = np.float32(1e-37)


class Rows(NamedTuple):
    """Scratch rows of n voxels.

    Attributes
    ----------
    best, whole, mine : float32 [n]
        The largest of the classes, the sum over them, and which voxels of the row have no usable score of a model.
    label : int32 [n]
        The class of the largest.
    bits : uint64 [n]
        The label as it is stored.
    bad : float32 [n]
        Which voxels have no usable score of some model.
    """

    best: npt.NDArray[Any]
    whole: npt.NDArray[Any]
    mine: npt.NDArray[Any]
    label: npt.NDArray[Any]
    bits: npt.NDArray[Any]
    bad: npt.NDArray[Any]


@njit(inline="always")
def exponential(x):
    """exp(x) of a float32 x <= 0, to 2e-7 of its value, without branches; 0 below -87, NaN for NaN.

    The comparison chooses a factor, not the product: what is added to the product is fused with it in every form of a
    loop, or in none.
    """
    t = LEAST if x < LEAST else x
    shifted = t * LOG2E + SHIFT
    whole = shifted - SHIFT
    r = (t - whole * LN2_HIGH) - whole * LN2_LOW
    p = (((((E7 * r + E6) * r + E5) * r + E4) * r + E3) * r + E2) * (r * r) + (r + ONE)
    # 2**whole, put together from its bits.
    bits = np.int32((np.float32(shifted).view(np.int32) << np.int32(23)) + np.int32(0x3F800000))
    power = np.int32(bits).view(np.float32)
    return p * (ZERO if x < LEAST else power)


@njit(inline="always")
def sigmoid(x):
    """1 / (1 + exp(-x)), from the exponential that cannot overflow."""
    e = exponential(-abs(x))
    return ONE / (ONE + e) if x >= ZERO else e / (ONE + e)


@njit(inner=True, **OPTIONS)
def probe_row(scores, so, step, n, classes, bad):
    """Mark in `bad` the voxels with a score that is NaN."""
    for c in range(classes):
        s = uint64(so + c * step)
        for j in range(uint64(n)):
            v = scores[s + j]
            bad[j] = bad[j] if v == v else ONE


@njit(inline="always")
def larger(a, b):
    """The larger of two; `b` where one is NaN."""
    return a if a > b else b


@njit(inner=True, **OPTIONS)
def top_row(scores, so, step, n, classes, top):
    """The largest score of every voxel, four classes a sweep."""
    s0, n, step, c = uint64(so), uint64(n), uint64(step), 1
    for j in range(n):
        top[j] = scores[s0 + j]
    s0 += step
    while c + 4 <= classes:
        s1 = s0 + step
        s2 = s1 + step
        s3 = s2 + step
        for j in range(n):
            t = larger(larger(scores[s0 + j], scores[s1 + j]), larger(scores[s2 + j], scores[s3 + j]))
            top[j] = larger(t, top[j])
        s0, c = s3 + step, c + 4
    while c < classes:
        for j in range(n):
            top[j] = larger(scores[s0 + j], top[j])
        s0, c = s0 + step, c + 1


@njit(**OPTIONS)
def softmax_row(scores, so, step, n, classes, weight, total, to, t_step, fresh, top, whole, bad):
    """`total += weight * softmax(scores)`, `total = ...` if `fresh`; marks in `bad` voxels without a finite answer.

    `top`, `whole`: scratch of n; scores are used up. A NaN, or an infinite largest score, makes the sum NaN.
    """
    top_row(scores, so, step, n, classes, top)
    n, step, t_step = uint64(n), uint64(step), uint64(t_step)
    for j in range(n):
        whole[j] = ZERO
    s0, c = uint64(so), 0
    while c + 2 <= classes:
        s1 = s0 + step
        for j in range(n):
            e0, e1 = exponential(scores[s0 + j] - top[j]), exponential(scores[s1 + j] - top[j])
            scores[s0 + j], scores[s1 + j] = e0, e1
            whole[j] = (whole[j] + e0) + e1
        s0, c = s1 + step, c + 2
    if c < classes:
        for j in range(n):
            e0 = exponential(scores[s0 + j] - top[j])
            scores[s0 + j] = e0
            whole[j] += e0
    for j in range(n):
        bad[j] = ZERO if whole[j] == whole[j] else ONE
        whole[j] = weight / whole[j]
    s, t = uint64(so), uint64(to)
    for _ in range(classes):
        if fresh:
            for j in range(n):
                total[t + j] = scores[s + j] * whole[j]
        else:
            for j in range(n):
                total[t + j] += scores[s + j] * whole[j]
        s, t = s + step, t + t_step


@njit(inner=True, **OPTIONS)
def add_row(scores, so, step, n, classes, weight, squash, total, to, t_step, fresh, bad):
    """`total += weight * f(scores)` with f the sigmoid if `squash`, else f(x) = x; `total = ...` if `fresh`."""
    probe_row(scores, so, step, n, classes, bad)
    n, step, t_step = uint64(n), uint64(step), uint64(t_step)
    s, t = uint64(so), uint64(to)
    for _ in range(classes):
        for j in range(n):
            v = scores[s + j]
            v = weight * (sigmoid(v) if squash else v)
            total[t + j] = v if fresh else total[t + j] + v
        s, t = s + step, t + t_step


@njit(inner=True, **OPTIONS)
def largest_row(scores, so, step, n, classes, best, label):
    """The largest of every voxel's classes and its number, of equals the lowest; four classes a sweep."""
    s0, n, step, c = uint64(so), uint64(n), uint64(step), 1
    for j in range(n):
        best[j], label[j] = scores[s0 + j], 0
    s0 += step
    while c + 4 <= classes:
        s1 = s0 + step
        s2 = s1 + step
        s3 = s2 + step
        c0, c1, c2, c3 = np.int32(c), np.int32(c + 1), np.int32(c + 2), np.int32(c + 3)
        for j in range(n):
            b, k = best[j], label[j]
            v0, v1, v2, v3 = scores[s0 + j], scores[s1 + j], scores[s2 + j], scores[s3 + j]
            k = c0 if v0 > b else k
            b = larger(v0, b)
            k = c1 if v1 > b else k
            b = larger(v1, b)
            k = c2 if v2 > b else k
            b = larger(v2, b)
            k = c3 if v3 > b else k
            best[j], label[j] = larger(v3, b), k
        s0, c = s3 + step, c + 4
    while c < classes:
        mine = np.int32(c)
        for j in range(n):
            v = scores[s0 + j]
            label[j] = mine if v > best[j] else label[j]
            best[j] = larger(v, best[j])
        s0, c = s0 + step, c + 1


# Not contracted: the product stands behind a comparison, where the compiler fuses it into the sum in some forms of the
# loop and not in others (vectors and what is left over of them), and the bits would depend on where a row is cut.
@njit(inner=True, **{**OPTIONS, "fastmath": False})
def entropy_row(total, so, step, n, classes, binary, out):
    """-sum p ln p of every voxel; with each class against its absence if `binary`."""
    for j in range(uint64(n)):
        out[j] = ZERO
    for c in range(classes):
        s = uint64(so + c * step)
        for j in range(uint64(n)):
            p = min(max(total[s + j], ZERO), ONE)
            out[j] -= p * math.log(p) if p > TINY else ZERO
            if binary:
                q = ONE - p
                out[j] -= q * math.log(q) if q > TINY else ZERO


@njit(inner=True, **OPTIONS)
def label_row(total, so, step, n, classes, choose, thresholds, values, bad, best, label, bits):
    """What every voxel is called, into `bits`; what is bad counts as class 0, or as no class where classes overlap.

    `thresholds` [classes]: in units of the scores. `values` [classes + 1]: what a class is called, and at the end what
    a voxel of no class is called.
    """
    n = uint64(n)
    if choose == LARGEST:
        largest_row(total, so, step, n, classes, best, label)
        for j in range(n):
            bits[j] = values[label[j] if bad[j] == ZERO else 0]
        return
    for j in range(n):
        bits[j] = values[classes]
    for c in range(classes):
        s, least, value = uint64(so + c * step), thresholds[c], values[c]
        for j in range(n):
            there = total[s + j] > least and bad[j] == ZERO
            now = (bits[j] | value) if choose == BITS else value
            bits[j] = now if there else bits[j]


@njit(inner=True, **OPTIONS)
def expand_rows(out, oo, plane_step, memory, so, class_stride, sy, sx, classes, y_lo, y_hi, index, weight, x0, n):
    """Rows `y_lo..y_hi` of one plane of every class, interpolated along x.

    Voxel j of row y and class c goes to `out[oo + c * plane_step + (y - y_lo) * n + j]`. `index` [2, n_x]: the two
    samples of every voxel; `weight` [2, n_x].
    """
    acc = out.dtype.type
    n, x0, step = uint64(n), uint64(x0), uint64(sx)
    low, high = index[0], index[1]
    w0, w1 = weight[0], weight[1]
    for c in range(classes):
        for y in range(y_lo, y_hi):
            row = uint64(so + c * class_stride + y * sy)
            o = uint64(oo + c * plane_step + (y - y_lo) * np.int64(n))
            if sx == 1:
                for j in range(n):
                    k = x0 + j
                    out[o + j] = w0[k] * acc(memory[row + low[k]]) + w1[k] * acc(memory[row + high[k]])
            else:
                for j in range(n):
                    k = x0 + j
                    out[o + j] = w0[k] * acc(memory[row + low[k] * step]) + w1[k] * acc(memory[row + high[k] * step])


@njit(inner=True, **OPTIONS)
def outside_row(scores, so, n, classes, lo, hi, certain):
    """Scores of voxels `lo..hi`, outside a model's grid: `certain[0]` for class 0, `certain[1]` for the others."""
    for c in range(classes):
        for j in range(lo, hi):
            scores[uint64(so + c * n + j)] = certain[0 if c == 0 else 1]


@njit(inner=True, **OPTIONS)
def finish_row(
    total, so, step, n, classes, binary, choose, thresholds, values, rows, labels, probabilities, confidence, entropy,
    z, y, x0,
):  # fmt: skip
    """Store what is asked of a row of averaged scores.

    Each output is (memory, offset, strides), with strides along (class,) z, y, x; what is not asked for has an empty
    memory. `rows`: `Rows`.
    """
    best, label, bits, bad = rows.best, rows.label, rows.bits, rows.bad
    n, nan = uint64(n), np.float32(np.nan)
    memory, offset, strides = labels
    if memory.size:
        label_row(total, so, step, n, classes, choose, thresholds, values, bad, best, label, bits)
        kind = memory.dtype.type
        at, along = uint64(offset + z * strides[0] + y * strides[1] + x0 * strides[2]), uint64(strides[2])
        for j in range(n):
            memory[at + j * along] = kind(bits[j])
    floats, offset, strides = probabilities
    if floats.size:
        along = uint64(strides[3])
        for c in range(classes):
            s = uint64(so + c * step)
            at = uint64(offset + c * strides[0] + z * strides[1] + y * strides[2] + x0 * strides[3])
            for j in range(n):
                floats[at + j * along] = total[s + j] if bad[j] == ZERO else nan
    floats, offset, strides = confidence
    if floats.size:
        largest_row(total, so, step, n, classes, best, label)
        at, along = uint64(offset + z * strides[0] + y * strides[1] + x0 * strides[2]), uint64(strides[2])
        for j in range(n):
            floats[at + j * along] = best[j] if bad[j] == ZERO else nan
    floats, offset, strides = entropy
    if floats.size:
        entropy_row(total, so, step, n, classes, binary, best)
        at, along = uint64(offset + z * strides[0] + y * strides[1] + x0 * strides[2]), uint64(strides[2])
        for j in range(n):
            floats[at + j * along] = best[j] if bad[j] == ZERO else nan


@njit(**OPTIONS)
def new_rows(n):
    """`Rows` of n voxels."""
    return Rows(
        np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.float32), np.empty(n, np.int32),
        np.empty(n, np.uint64), np.empty(n, np.float32),
    )  # fmt: skip


@njit(inner=True, **OPTIONS)
def average_row(scores, so, step, n, classes, activation, alone, weight, total, to, t_step, fresh, rows):
    """Add a model's share to a row's average; answers how many of its voxels have no usable score.

    `alone`: its scores decide as they are, nothing is to be added. `rows`: `Rows`.
    """
    top, whole, mine, bad = rows.best, rows.whole, rows.mine, rows.bad
    for j in range(uint64(n)):
        mine[j] = ZERO
    if alone:
        probe_row(scores, so, step, n, classes, mine)
    elif activation == SOFTMAX:
        softmax_row(scores, so, step, n, classes, weight, total, to, t_step, fresh, top, whole, mine)
    else:
        add_row(scores, so, step, n, classes, weight, activation == SIGMOID, total, to, t_step, fresh, mine)
    count = ZERO
    for j in range(uint64(n)):
        bad[j] = mine[j] if fresh else max(bad[j], mine[j])
        count += mine[j]
    return np.int64(count)


@njit(**OPTIONS)
def activate(scores, so, n, step, classes, activation):
    """Scores [class, voxel] become probabilities; those of a voxel with a NaN become NaN."""
    top, whole, bad = np.empty(n, np.float32), np.empty(n, np.float32), np.zeros(n, np.float32)
    nan = np.float32(np.nan)
    if activation == SOFTMAX:
        softmax_row(scores, so, step, n, classes, ONE, scores, so, step, True, top, whole, bad)
    else:
        add_row(scores, so, step, n, classes, ONE, True, scores, so, step, True, bad)
    for j in range(uint64(n)):
        if bad[j] != ZERO:
            for c in range(classes):
                scores[uint64(so + c * step) + j] = nan


@njit(**OPTIONS)
def average_rows(scores, shape, first, stop, activation, alone, weight, total, fresh, bad):
    """Add a model's share to the average of a block, [class, z, y, x] of `shape`: rows `first..stop` of (z, y).

    `bad` [z, y, x] marks voxels without usable scores; answers how many of these the model has.
    """
    classes, n = shape[0], shape[3]
    step = shape[1] * shape[2] * n
    rows = new_rows(n)
    count = 0
    for row in range(first, stop):
        here = Rows(rows.best, rows.whole, rows.mine, rows.label, rows.bits, bad[row * n : (row + 1) * n])
        count += average_row(
            scores, row * n, step, n, classes, activation, alone, weight, total, row * n, step, fresh, here
        )
    return count


@njit(**OPTIONS)
def finish_rows(
    total, shape, first, stop, binary, choose, thresholds, values, bad, labels, probabilities,
    confidence, entropy,
):  # fmt: skip
    """`finish_row` for rows `first..stop` of (z, y) of a block."""
    classes, n_y, n = shape[0], shape[2], shape[3]
    step = shape[1] * n_y * n
    rows = new_rows(n)
    for row in range(first, stop):
        here = Rows(rows.best, rows.whole, rows.mine, rows.label, rows.bits, bad[row * n : (row + 1) * n])
        finish_row(
            total, row * n, step, n, classes, binary, choose, thresholds, values, here, labels, probabilities,
            confidence, entropy, row // n_y, row % n_y, 0,
        )  # fmt: skip


@njit(inner=True, **OPTIONS)
def between_rows(out, oo, so, slot_step, plane_step, n, classes, iz, wz, iy, wy):
    """A row of scores of every class between up to four rows: `out[oo + c * n + j]`, the rows being in `out` too.

    `so`: of the model's rows, [slot, class, y, x]. `iz`, `iy`: two samples along z and y, or one twice; `wz`, `wy`.
    """
    p, q = (iz[0] & 1) * slot_step, (iz[1] & 1) * slot_step
    r, s = iy[0] * n, iy[1] * n
    one = uint64(plane_step)
    a0, b0 = uint64(so + p + r), uint64(so + p + s)
    c0, d0 = uint64(so + q + r), uint64(so + q + s)
    o, n = uint64(oo), uint64(n)
    if iz[0] == iz[1] and iy[0] == iy[1]:
        for _ in range(classes):
            for j in range(n):
                out[o + j] = out[a0 + j]
            o, a0 = o + n, a0 + one
    elif iz[0] == iz[1] or iy[0] == iy[1]:
        u, v = (wy[0], wy[1]) if iz[0] == iz[1] else (wz[0], wz[1])
        for _ in range(classes):
            for j in range(n):
                out[o + j] = u * out[a0 + j] + v * out[d0 + j]
            o, a0, d0 = o + n, a0 + one, d0 + one
    else:
        wa, wb, wc, wd = wz[0] * wy[0], wz[0] * wy[1], wz[1] * wy[0], wz[1] * wy[1]
        for _ in range(classes):
            for j in range(n):
                t = wa * out[a0 + j]
                t = t + wb * out[b0 + j]
                t = t + wc * out[c0 + j]
                out[o + j] = t + wd * out[d0 + j]
            o, a0, b0, c0, d0 = o + n, a0 + one, b0 + one, c0 + one, d0 + one


@njit(**OPTIONS)
def fused_block(
    memory, places, index_z, weight_z, index_y, weight_y, index_x, weight_x, inside, weights, block, classes,
    activation, alone, certain, binary, choose, thresholds, values, labels, probabilities, confidence, entropy,
    scratch, counts,
):  # fmt: skip
    """One block of voxels of an ensemble whose tables have one tap or two: from scores to labels.

    Along x first, since the source has the fewest rows: the rows that two neighbouring planes of the source need of
    every model and class stay at hand, for as long as the block's planes lie between the same two. Then four of these
    rows make a row of scores.

    Parameters
    ----------
    memory : flat float32, with the scores of all models somewhere in it
    places : int64 [models, 5]: offset, strides along class, z, y, x
    index_z, ... : int64 [models, 2, n]: the two samples of every voxel along an axis (uint32 for x); weight_z, ...:
        their weights, float32; one sample is both, weighing a half each
    inside : int64 [models, 6]: voxels within the model's grid, z0, z1, y0, y1, x0, x1
    weights : float32 [models]
    certain : float32 [2]: scores of class 0 and of the others outside a model's grid
    binary : whether every class stands for itself
    block : int64 [6]: z0, z1, y0, y1, x0, x1
    counts : int64 [models]: grows by the voxels without usable scores
    """
    z0, z1, y0, y1, x0, x1 = block
    models, n = len(places), x1 - x0
    rows = new_rows(n)
    # Source rows along y that the block reads, of the model that reads most.
    reach = np.zeros((models, 2), np.int64)
    most = 1
    for m in range(models):
        lo, hi = max(y0, inside[m, 2]), min(y1, inside[m, 3])
        if lo < hi:
            reach[m, 0], reach[m, 1] = index_y[m, :, lo:hi].min(), index_y[m, :, lo:hi].max() + 1
            most = max(most, reach[m, 1] - reach[m, 0])
    plane_step = most * n
    slot_step = classes * plane_step
    held = np.full((models, 2), -1, np.int64)
    scores = models * 2 * slot_step
    total = scores + classes * n
    for z in range(z0, z1):
        for m in range(models):
            if not inside[m, 0] <= z < inside[m, 1] or reach[m, 0] == reach[m, 1]:
                continue
            for k in range(2):
                plane = index_z[m, k, z]
                slot = plane & 1
                if held[m, slot] != plane:
                    held[m, slot] = plane
                    expand_rows(
                        scratch, (m * 2 + slot) * slot_step, plane_step, memory, places[m, 0] + plane * places[m, 2],
                        places[m, 1], places[m, 3], places[m, 4], classes, reach[m, 0], reach[m, 1], index_x[m],
                        weight_x[m], x0, n,
                    )  # fmt: skip
        for y in range(y0, y1):
            for m in range(models):
                if inside[m, 0] <= z < inside[m, 1] and inside[m, 2] <= y < inside[m, 3]:
                    between_rows(
                        scratch, scores, m * 2 * slot_step, slot_step, plane_step, n, classes, index_z[m, :, z],
                        weight_z[m, :, z], index_y[m, :, y] - reach[m, 0], weight_y[m, :, y],
                    )  # fmt: skip
                    outside_row(scratch, scores, n, classes, 0, min(max(inside[m, 4] - x0, 0), n), certain)
                    outside_row(scratch, scores, n, classes, max(min(inside[m, 5] - x0, n), 0), n, certain)
                else:
                    outside_row(scratch, scores, n, classes, 0, n, certain)
                counts[m] += average_row(
                    scratch, scores, n, n, classes, activation, alone, weights[m], scratch, total, n, m == 0, rows
                )
            finish_row(
                scratch, scores if alone else total, n, n, classes, binary, choose, thresholds, values, rows, labels,
                 probabilities, confidence, entropy, z, y, x0,
            )  # fmt: skip
