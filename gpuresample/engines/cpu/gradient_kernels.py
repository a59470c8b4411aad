"""Gathers, transposed and differentiated, compiled by Numba: splats, derivatives by position, moments of these.

The house rules are those of `table_kernels`, the names those of `gather_kernels`, whose sweeps find the same positions
and the same weights here. A kernel does a block of voxels of the output: rows (z, y) from `z0`, `y0` on, and in each
the `n_x` voxels from the one that `x0` (in the whole output) and the offsets of its memory say.

Splats add up in place. Whoever calls them sees to it that blocks that may meet run one after the other.
"""

from __future__ import annotations

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.gather_kernels import (
    RULE_MIRROR,
    RULE_NEAREST,
    RULE_REFLECT,
    TOGETHER,
    bring,
    cells_row,
    cubic_cells_row,
    fill_up,
    find_row,
    fold,
    positions,
    steer,
    strange_in,
    weigh_axes,
)
from gpuresample.engines.cpu.jit import instructions, njit
from gpuresample.engines.cpu.path_kernels import EXACT
from gpuresample.engines.cpu.table_kernels import OPTIONS

linear_slopes = instructions("neighbours.linear_slopes")
linear_slopes_apart = instructions("neighbours.linear_slopes_apart")

# --- which blocks meet -----------------------------------------------------------------------------------------------


@njit(**EXACT)
def reach_rows(coordinates, lines, x0, n0, n_src, box, least, most):
    """Smallest and largest position inside of a block's rows, column by column: `least` and `most`, z, y, x, grow.

    Columns are apart so that loops fill vectors.
    """
    n_x = least.shape[1]
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    along = positions(n_x, x0, n0)
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            continue
        for axis in range(3):
            x, a, b = position[2 - axis], least[axis], most[axis]
            if n_in == hi - lo:
                for i in range(uint64(lo), uint64(hi)):
                    a[i], b[i] = x[i] if x[i] < a[i] else a[i], x[i] if x[i] > b[i] else b[i]
            else:
                for i in range(uint64(lo), uint64(hi)):
                    a[i] = x[i] if mask[i] & (x[i] < a[i]) else a[i]
                    b[i] = x[i] if mask[i] & (x[i] > b[i]) else b[i]


@njit(**OPTIONS)
def field_extremes(memory, at, strides, z0, y0, x0, n_z, n_y, n_x, out):
    """Smallest and largest components of a box of vectors: `out[component]`; what is no number is left out."""
    step = uint64(strides[2])
    for k in range(3):
        least, most = np.inf, -np.inf
        for z in range(z0, z0 + n_z):
            for y in range(y0, y0 + n_y):
                here = uint64(at + k * strides[3] + z * strides[0] + y * strides[1] + x0 * strides[2])
                for i in range(uint64(n_x)):
                    v = np.float64(memory[here + i * step])
                    least, most = v if v < least else least, v if v > most else most
        out[k, 0], out[k, 1] = least, most


@njit(**OPTIONS)
def levels_of(reach, order, level):
    """Steps of a schedule: a block comes after all those before it in `order` whose reach meets its own.

    `reach[block, axis]` are first and last samples. `level` becomes -1 for blocks that reach nothing.
    """
    for k in range(order.size):
        a = order[k]
        if reach[a, 0, 0] > reach[a, 0, 1]:
            level[a] = -1
            continue
        most = -1
        for j in range(k):
            b = order[j]
            if (
                level[b] > most
                and reach[a, 0, 0] <= reach[b, 0, 1]
                and reach[b, 0, 0] <= reach[a, 0, 1]
                and reach[a, 1, 0] <= reach[b, 1, 1]
                and reach[b, 1, 0] <= reach[a, 1, 1]
                and reach[a, 2, 0] <= reach[b, 2, 1]
                and reach[b, 2, 0] <= reach[a, 2, 1]
            ):
                most = level[b]
        level[a] = most + 1


# Neighbouring voxels add to the same samples, and a CPU waits for what it has just written: a row is walked in so many
# stretches at once.
STRETCHES = 4

# --- splats ----------------------------------------------------------------------------------------------------------


@njit(inner=True, **OPTIONS)
def splat_pairs(out, r, sz, sy, g, x1, y1, z1):
    """`splat_corners` where the eight neighbours are eight samples, four pairs in memory."""
    acc = out.dtype.type
    one, next_ = acc(1), uint64(1)
    x0, y0, z0 = one - x1, one - y1, one - z1
    w0, w1 = z0 * g, z1 * g
    w00, w01, w10, w11 = y0 * w0, y1 * w0, y0 * w1, y1 * w1
    r1, r2 = r + sy, r + sz
    r3 = r2 + sy
    a0, b0, a1, b1 = out[r], out[r + next_], out[r1], out[r1 + next_]
    a2, b2, a3, b3 = out[r2], out[r2 + next_], out[r3], out[r3 + next_]
    out[r], out[r + next_] = a0 + x0 * w00, b0 + x1 * w00
    out[r1], out[r1 + next_] = a1 + x0 * w01, b1 + x1 * w01
    out[r2], out[r2 + next_] = a2 + x0 * w10, b2 + x1 * w10
    out[r3], out[r3 + next_] = a3 + x0 * w11, b3 + x1 * w11


@njit(inner=True, **OPTIONS)
def splat_corners(out, r, sz, sy, sx, g, x1, y1, z1):
    """A value to two neighbours per axis; one that is no number leaves alone what weighs nothing."""
    acc = out.dtype.type
    one = acc(1)
    x0, y0, z0 = one - x1, one - y1, one - z1
    if g - g == 0:
        w0, w1 = z0 * g, z1 * g
        w00, w01, w10, w11 = y0 * w0, y1 * w0, y0 * w1, y1 * w1
        r1, r2 = r + sy, r + sz
        r3 = r2 + sy
        out[r] += x0 * w00
        out[r + sx] += x1 * w00
        out[r1] += x0 * w01
        out[r1 + sx] += x1 * w01
        out[r2] += x0 * w10
        out[r2 + sx] += x1 * w10
        out[r3] += x0 * w11
        out[r3 + sx] += x1 * w11
        return
    for corner in range(8):
        wx, wy, wz = x1 if corner & 1 else x0, y1 if corner & 2 else y0, z1 if corner & 4 else z0
        if wx != 0 and wy != 0 and wz != 0:
            k = r
            if corner & 1:
                k += sx
            if corner & 2:
                k += sy
            if corner & 4:
                k += sz
            out[k] += g


@njit(**OPTIONS)
def splat_linear(
    grad, starts, steps, z0, y0, n_y, coordinates, lines, x0, n0, n_x, n_src, box, rule, out, moves, strides, so,
    offset, narrow,
):  # fmt: skip
    """Add the voxels of a block to two samples per axis, of volumes that begin at `starts` and `so + moves`."""
    acc = out.dtype.type
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place = np.empty(n_x, np.int64)
    fx, fy, fz = np.empty(n_x, acc), np.empty(n_x, acc), np.empty(n_x, acc)
    along = positions(n_x, x0, n0)
    sz = uint64(strides[0] if n_src[0] > 1 else 0)
    sy = uint64(strides[1] if n_src[1] > 1 else 0)
    sx = uint64(strides[2] if n_src[2] > 1 else 0)
    step = uint64(steps[2])
    pairs = strides[2] == 1 and strides[1] > 1 and strides[0] > strides[1] + 1 and n_src.min() > 1
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            continue
        if rule == RULE_REFLECT or rule == RULE_MIRROR:
            for axis in range(3):
                bring(position[axis], lo, hi, n_src[2 - axis], -np.inf, np.inf, rule)
        cells_row(
            False, along, coordinates[0], position[0], position[1], position[2], lo, hi, n_src, strides,
            so, offset, narrow, place, fx, fy, fz,
        )  # fmt: skip
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        for v in range(moves.size):
            here, move = uint64(starts[v] + at), uint64(moves[v])
            stretch = (hi - lo + STRETCHES - 1) // STRETCHES
            for k in range(STRETCHES * stretch):
                i = uint64(lo + k % STRETCHES * stretch + k // STRETCHES)
                if i >= uint64(hi) or (n_in < hi - lo and not mask[i]):
                    continue
                g = acc(grad[here + i * step])
                if pairs and g - g == 0:
                    splat_pairs(out, uint64(place[i]) + move, sz, sy, g, fx[i], fy[i], fz[i])
                else:
                    splat_corners(out, uint64(place[i]) + move, sz, sy, sx, g, fx[i], fy[i], fz[i])


@njit(inner=True, **OPTIONS)
def four(powers, u, weight):
    """Weights of four taps at a fraction: `powers[d, k]` is tap k's coefficient of the d-th power."""
    for k in range(uint64(4)):
        weight[k] = ((powers[3, k] * u + powers[2, k]) * u + powers[1, k]) * u + powers[0, k]


@njit(inner=True, **OPTIONS)
def bring_cubic(position, lo, hi, n_src, box, rule, offset):
    """Positions of a row to where all four taps are samples, padded ones included, as the forward kernel does it."""
    for axis in range(3):
        n, x = n_src[2 - axis], position[axis]
        if box[2 - axis, 0] == -np.inf:
            if rule == RULE_NEAREST:
                bring(x, lo, hi, n, np.float64(-offset), np.float64(n - 4 - offset), rule)
            else:
                bring(x, lo, hi, n, -np.inf, np.inf, rule)


@njit(**OPTIONS)
def splat_cubic(
    grad, starts, steps, z0, y0, n_y, coordinates, lines, x0, n0, n_x, n_src, box, rule, out, moves, strides, so,
    powers, offset,
):  # fmt: skip
    """Add the voxels of a block to four coefficients per axis, padded ones included, contiguous along x."""
    acc = out.dtype.type
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place = np.empty(n_x, np.int64)
    fx, fy, fz = np.empty(n_x, acc), np.empty(n_x, acc), np.empty(n_x, acc)
    wz, wy, wx = np.empty(4, acc), np.empty(4, acc), np.empty(4, acc)
    along = positions(n_x, x0, n0)
    sz, sy = uint64(strides[0]), uint64(strides[1])
    tap = so + offset * (strides[0] + strides[1] + strides[2])
    step = uint64(steps[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            continue
        bring_cubic(position, lo, hi, n_src, box, rule, offset)
        cubic_cells_row(position, lo, hi, strides, tap, place, fx, fy, fz)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        for i in range(uint64(lo), uint64(hi)):
            if n_in < hi - lo and not mask[i]:
                continue
            four(powers, fz[i], wz)
            four(powers, fy[i], wy)
            four(powers, fx[i], wx)
            x_0, x_1, x_2, x_3 = wx[0], wx[1], wx[2], wx[3]
            for v in range(moves.size):
                g = acc(grad[uint64(starts[v] + at) + i * step])
                plane = uint64(place[i]) + uint64(moves[v])
                for a in range(uint64(4)):
                    w = g * wz[a]
                    r = plane
                    for b in range(uint64(4)):
                        u = w * wy[b]
                        out[r] += u * x_0
                        out[r + uint64(1)] += u * x_1
                        out[r + uint64(2)] += u * x_2
                        out[r + uint64(3)] += u * x_3
                        r += sy
                    plane += sz


@njit(**OPTIONS)
def splat_any(
    grad, starts, steps, z0, y0, n_y, coordinates, lines, x0, n0, n_x, n_src, box, rule, out, moves, strides, so,
    coefficients, shift, offset, narrow, derived,
):  # fmt: skip
    """Add the voxels of a block to any number of taps per axis, each onto the sample that stands for it."""
    acc = out.dtype.type
    width = coefficients[0].shape[1]
    n = uint64(n_x)
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place = np.empty(n_x, np.int64)
    wz, wy, wx = np.empty(width * n_x, acc), np.empty(width * n_x, acc), np.empty(width * n_x, acc)
    first, border = np.empty((3, n_x), np.int64), np.empty(n_x, np.bool_)
    part, piece = np.empty(n_x, acc), np.empty(n_x, np.int32)
    along = positions(n_x, x0, n0)
    step = uint64(steps[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            continue
        place[:], border[:] = so, False
        weigh_axes(
            position, lo, hi, n_src, strides, box, rule, coefficients, shift, offset, narrow, False, derived, first,
            place, wz, wy, wx, part, piece, border,
        )  # fmt: skip
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        for i in range(uint64(lo), uint64(hi)):
            if n_in < hi - lo and not mask[i]:
                continue
            for v in range(moves.size):
                g = acc(grad[uint64(starts[v] + at) + i * step])
                here = so + moves[v]
                for a in range(width):
                    z, w_z = fold(first[0, i] + a, n_src[0], rule), wz[i + uint64(a) * n]
                    if z < 0 or w_z == 0:
                        continue
                    for b in range(width):
                        y, w_y = fold(first[1, i] + b, n_src[1], rule), wy[i + uint64(b) * n]
                        if y < 0 or w_y == 0:
                            continue
                        w = g * w_z * w_y
                        r = here + z * strides[0] + y * strides[1]
                        for c in range(width):
                            x, w_x = fold(first[2, i] + c, n_src[2], rule), wx[i + uint64(c) * n]
                            if x >= 0 and w_x != 0:
                                out[uint64(r + x * strides[2])] += w * w_x


# --- derivatives by position -----------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def moves_row(x, lo, hi, n, offset, moves):
    """1 where a position moves between two samples, 0 where it clamps: from the right on a sample."""
    acc = moves.dtype.type
    pad, last = np.float64(offset), np.float64(n - 1)
    for i in range(uint64(lo), uint64(hi)):
        v = x[i] + pad
        moves[i] = acc(1) if (v >= 0.0) & (v < last) else acc(0)


@njit(inner=True, **EXACT)
def slope_row(src, place, lo, hi, move, sz, sy, sx, fx, fy, fz, dx, dy, dz):
    """Derivatives along x, y and z of what `linear_row` makes."""
    sz, sy, sx, move = uint64(sz), uint64(sy), uint64(sx), uint64(move)
    for i in range(uint64(lo), uint64(hi), uint64(TOGETHER)):
        if sx == uint64(1):
            linear_slopes(src, place, i, move, sz, sy, sx, fz, fy, fx, dx, dy, dz)
        else:
            linear_slopes_apart(src, place, i, move, sz, sy, sx, fz, fy, fx, dx, dy, dz)


@njit(inner=True, **OPTIONS)
def mend_slope(src, place, lo, hi, move, sz, sy, sx, fx, fy, fz, axis, out):
    """Derivatives along one axis that are no numbers once more, without the neighbours that weigh nothing."""
    acc = out.dtype.type
    for i in range(uint64(lo), uint64(hi)):
        if out[i] - out[i] == 0:
            continue
        total = acc(0)
        for corner in range(8):
            wx = fx[i] if corner & 1 else acc(1) - fx[i]
            wy = fy[i] if corner & 2 else acc(1) - fy[i]
            wz = fz[i] if corner & 4 else acc(1) - fz[i]
            if axis == 0:
                wx = acc(1) if corner & 1 else acc(-1)
            elif axis == 1:
                wy = acc(1) if corner & 2 else acc(-1)
            else:
                wz = acc(1) if corner & 4 else acc(-1)
            if wx != 0 and wy != 0 and wz != 0:
                r = place[i] + move
                r = r + (sx if corner & 1 else 0) + (sy if corner & 2 else 0) + (sz if corner & 4 else 0)
                total = total + wz * (wy * (wx * acc(src[uint64(r)])))
        out[i] = total


@njit(inner=True, **OPTIONS)
def weigh_slope(total, slope, moves, beside, lo, hi):
    """Add a row of derivatives, times the values beside them, where positions move."""
    acc = total.dtype.type
    for i in range(uint64(lo), uint64(hi)):
        value = slope[i] * beside[i]
        total[i] += value if moves[i] != 0 else acc(0)


@njit(inner=True, **OPTIONS)
def store_slopes(total, lo, hi, n_x, n_in, mask, out, starts, at, step):
    """Three rows of sums to where they belong; 0 outside."""
    number = out.dtype.type
    step = uint64(step)
    for axis in range(3):
        row, here = total[axis], uint64(starts[axis] + at)
        if n_in == n_x and step == uint64(1):
            for i in range(uint64(n_x)):
                out[here + i] = number(row[i])
            continue
        for i in range(uint64(n_x)):
            inside = (np.int64(i) >= lo) & (np.int64(i) < hi) & ((n_in == hi - lo) | mask[i])
            out[here + i * step] = number(row[i] if inside else 0)


@njit(**OPTIONS)
def slope_linear(
    src, moves, strides, so, coordinates, lines, x0, n0, n_x, n_src, box, offset, narrow, grad, starts, steps, z0, y0,
    n_y, out, ends, paces,
):  # fmt: skip
    """Derivatives by x, y, z of a block's voxels, times `grad`, summed over volumes; two taps per axis that clamp.

    Volumes begin at `so + moves`, their `grad` at `starts`; `out` has three parts, which begin at `ends`.
    """
    acc = out.dtype.type
    position, mask = np.empty((3, n_x)), np.ones(n_x, np.bool_)
    n = n_x + TOGETHER - 1
    place = np.empty(n, np.int64)
    fx, fy, fz = np.empty(n, acc), np.empty(n, acc), np.empty(n, acc)
    slope, moving, total = np.empty((3, n), acc), np.empty((3, n_x), acc), np.empty((3, n_x), acc)
    beside = np.empty(n_x, acc)
    along = positions(n_x, x0, n0)
    sz = strides[0] if n_src[0] > 1 else 0
    sy = strides[1] if n_src[1] > 1 else 0
    sx = strides[2] if n_src[2] > 1 else 0
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            lo, hi = 0, 0
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        total[:] = 0
        if n_in > 0:
            for axis in range(3):
                moves_row(position[axis], lo, hi, n_src[2 - axis], offset, moving[axis])
            cells_row(
                False, along, coordinates[0], position[0], position[1], position[2], lo, hi, n_src,
                strides, so, offset, narrow, place, fx, fy, fz,
            )  # fmt: skip
            if n_in < hi - lo:
                steer(place, mask, lo, hi)
            fill_up(place, hi, fx, fy, fz)
            for v in range(moves.size):
                slope_row(src, place, lo, hi, moves[v], sz, sy, sx, fx, fy, fz, slope[0], slope[1], slope[2])
                here, step = uint64(starts[v] + at), uint64(steps[2])
                for i in range(uint64(lo), uint64(hi)):
                    beside[i] = acc(grad[here + i * step])
                for axis in range(3):
                    if strange_in(slope[axis], lo, hi):
                        mend_slope(src, place, lo, hi, moves[v], sz, sy, sx, fx, fy, fz, axis, slope[axis])
                    weigh_slope(total[axis], slope[axis], moving[axis], beside, lo, hi)
        there = (z0 + row // n_y) * paces[0] + (y0 + row % n_y) * paces[1]
        store_slopes(total, lo, hi, n_x, n_in, mask, out, ends, there, paces[2])


@njit(**OPTIONS)
def slope_cubic(
    src, moves, strides, so, coordinates, lines, x0, n0, n_x, n_src, box, rule, powers, derived, offset, grad, starts,
    steps, z0, y0, n_y, out, ends, paces,
):  # fmt: skip
    """Derivatives by x, y, z of a block's voxels, times `grad`, summed over volumes; four taps per axis.

    `derived` are the `powers` of the weights' derivatives.
    """
    acc = out.dtype.type
    position, mask = np.empty((3, n_x)), np.ones(n_x, np.bool_)
    place = np.empty(n_x, np.int64)
    fx, fy, fz = np.empty(n_x, acc), np.empty(n_x, acc), np.empty(n_x, acc)
    wz, wy, wx = np.empty(4, acc), np.empty(4, acc), np.empty(4, acc)
    dz, dy, dx = np.empty(4, acc), np.empty(4, acc), np.empty(4, acc)
    total = np.empty((3, n_x), acc)
    along = positions(n_x, x0, n0)
    sz, sy = uint64(strides[0]), uint64(strides[1])
    tap = so + offset * (strides[0] + strides[1] + strides[2])
    step = uint64(steps[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if n_in == 0:
            lo, hi = 0, 0
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        total[:] = 0
        if n_in > 0:
            bring_cubic(position, lo, hi, n_src, box, rule, offset)
            cubic_cells_row(position, lo, hi, strides, tap, place, fx, fy, fz)
            for i in range(uint64(lo), uint64(hi)):
                if n_in < hi - lo and not mask[i]:
                    continue
                four(powers, fz[i], wz)
                four(powers, fy[i], wy)
                four(powers, fx[i], wx)
                four(derived, fz[i], dz)
                four(derived, fy[i], dy)
                four(derived, fx[i], dx)
                for v in range(moves.size):
                    g = acc(grad[uint64(starts[v] + at) + i * step])
                    plane = uint64(place[i]) + uint64(moves[v])
                    by_x, by_y, by_z = acc(0), acc(0), acc(0)
                    for a in range(uint64(4)):
                        r = plane
                        p, p_y, p_x = acc(0), acc(0), acc(0)
                        for b in range(uint64(4)):
                            s0, s1 = src[r], src[r + uint64(1)]
                            s2, s3 = src[r + uint64(2)], src[r + uint64(3)]
                            t = (wx[0] * s0 + wx[1] * s1) + (wx[2] * s2 + wx[3] * s3)
                            d = (dx[0] * s0 + dx[1] * s1) + (dx[2] * s2 + dx[3] * s3)
                            p = p + wy[b] * t
                            p_y = p_y + dy[b] * t
                            p_x = p_x + wy[b] * d
                            r += sy
                        by_x = by_x + wz[a] * p_x
                        by_y = by_y + wz[a] * p_y
                        by_z = by_z + dz[a] * p
                        plane += sz
                    total[0, i] += g * by_x
                    total[1, i] += g * by_y
                    total[2, i] += g * by_z
        there = (z0 + row // n_y) * paces[0] + (y0 + row % n_y) * paces[1]
        store_slopes(total, lo, hi, n_x, n_in, mask, out, ends, there, paces[2])


# --- moments ---------------------------------------------------------------------------------------------------------


@njit(**OPTIONS)
def moments_plane(values, z, field, at, strides, moved, out):
    """Sums over a plane of three values times the voxel's index x, y, z, moved by a field if so asked, and 1.

    `values` is [3, z, y, x]; `field` flat, its first component of the first voxel at `at`, `strides` those of
    component, z, y, x. `out[value, axis]`, the last axis for 1.
    """
    _, _, n_y, n_x = values.shape
    out[:] = 0.0
    for axis in range(3):
        for y in range(n_y):
            row = values[axis, z, y]
            plain, by_x = 0.0, 0.0
            for i in range(uint64(n_x)):
                v = np.float64(row[i])
                plain += v
                by_x += v * np.float64(np.int64(i))
            out[axis, 0] += by_x
            out[axis, 1] += plain * y
            out[axis, 2] += plain * z
            out[axis, 3] += plain
            if moved:
                here = at + z * strides[1] + y * strides[2]
                for k in range(3):
                    q, step, total = uint64(here + k * strides[0]), uint64(strides[3]), 0.0
                    for i in range(uint64(n_x)):
                        total += np.float64(row[i]) * np.float64(field[q + i * step])
                    out[axis, k] += total
