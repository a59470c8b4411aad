"""The CPU engine's gathers, compiled by Numba: one weighted neighbourhood, one copy or one vote per voxel.

For grids that are rotated, sheared or deformed against the source, and for label votes. The house rules are
those of `cpu_kernels`. Coordinates are x, y, z; every other triple is z, y, x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS, store_row
from gpuresample.planning.filters import FLOAT32_CELLS

# Where a last bit decides, between inside and outside or in a tie, nothing may fuse: ITK's builds do not.
EXACT = {**OPTIONS, "fastmath": False}


@njit(inline="always")
def fold(k, n, rule):
    """The sample that stands for position `k` (rules: `contract.RULES`); -1 for none."""
    if 0 <= k < n:
        return k
    if rule == 3:
        return -1
    if rule == 0 or n == 1:
        return 0 if k < 0 else n - 1
    period = 2 * n if rule == 1 else 2 * (n - 1)
    k = k % period
    last = 2 * n - 1 if rule == 1 else 2 * (n - 1)
    return k if k < n else last - k


@njit(inner=True, **OPTIONS)
def positions(n_x, x0, n0):
    """Where the voxels of a row lie between its ends, from 0 to 1: the same for all rows, so divided once."""
    along = np.empty(n_x)
    for i in range(n_x):
        along[i] = (x0 + i) / n0
    return along


@njit(inner=True, **EXACT)
def locate_row(coordinates, row, lines, along, axis, x):
    """Continuous source indices of a row's voxels along x, y, z `axis`, in ITK's order of operations."""
    if lines:
        a, b = coordinates[row, 0, axis], coordinates[row, 1, axis]
        slope = b - a
        for i in range(uint64(x.size)):
            x[i] = a + along[i] * slope
    else:
        for i in range(uint64(x.size)):
            x[i] = coordinates[row, i, axis]


@njit(inner=True, **OPTIONS)
def weigh_row(
    x, n, base, stride, low, high, coefficients, shift, offset, spline, normalise, first, place, weight, part,
    piece, state,
):  # fmt: skip
    """First tap and weights along one axis of every voxel of a row at `x`; each loop here fills vectors.

    `place` grows by the first tap's offset. `state` becomes 0 for voxels outside [low, high), 1 for taps past the
    border, and stays 2 for plain neighbours. ITK's splines find their cell from x rounded to float32, so `spline`
    does too. `normalise` divides by the sum of weights. `part` and `piece` are scratch.
    """
    acc = weight.dtype.type
    pieces, width, terms = coefficients.shape
    size = uint64(x.size)
    narrow = np.float32(shift)
    last = n - width
    for i in range(size):
        # Clipped, so that whatever lies outside still has a cell.
        t = min(max(x[i], -1e9), 1e9) if x[i] == x[i] else 0.0
        narrows = spline and abs(t) < FLOAT32_CELLS
        cell = np.float64(np.floor(np.float32(t) + narrow)) if narrows else np.floor(t + shift)
        k0 = np.int64(cell) + offset
        first[i] = k0
        place[i] += (k0 - base) * stride
        u = (t + shift - cell) * pieces
        whole = 0.0 if pieces == 1 else min(max(np.floor(u), 0.0), pieces - 1.0)
        part[i], piece[i] = acc(u - whole), np.int32(whole)
        plain = np.uint8(2) if k0 >= 0 and k0 <= last else np.uint8(1)
        now = plain if x[i] >= low and x[i] < high else np.uint8(0)
        state[i] = min(state[i], now)
    flat = coefficients.ravel()
    for k in range(width):
        w = uint64(k) * size
        c = uint64(k * terms)
        if pieces == 1 and terms == 4:
            c0, c1, c2, c3 = flat[c], flat[c + uint64(1)], flat[c + uint64(2)], flat[c + uint64(3)]
            for i in range(size):
                weight[w + i] = ((c3 * part[i] + c2) * part[i] + c1) * part[i] + c0
        else:
            stride = uint64(width * terms)
            for i in range(size):
                at = c + uint64(piece[i]) * stride
                value = flat[at + uint64(terms - 1)]
                for d in range(terms - 2, -1, -1):
                    value = value * part[i] + flat[at + uint64(d)]
                weight[w + i] = value
    if normalise:
        for i in range(size):
            whole = acc(0)
            for k in range(uint64(width)):
                whole += weight[k * size + i]
            for k in range(uint64(width)):
                weight[k * size + i] /= whole


@njit(inner=True, **OPTIONS)
def weigh_pair_row(x, n, base, stride, low, high, offset, rule, spline, first, place, weight, jump, state):
    """`weigh_row` for two taps: the weight of the upper one, and the offset from the lower to it.

    Where only one voxel is to be read (x on it, or past a border that repeats it) both taps are that voxel, so that
    a neighbour's NaN or infinity stays where it is; on a line that repeats its ends they weigh a half each, so that
    an infinite voxel stays one too.
    """
    acc = weight.dtype.type
    size, last = uint64(x.size), n - 1
    for i in range(size):
        t = min(max(x[i], -1e9), 1e9) if x[i] == x[i] else 0.0
        cell = np.float64(np.floor(np.float32(t))) if spline and abs(t) < FLOAT32_CELLS else np.floor(t)
        k0 = np.int64(cell) + offset
        d = t - cell
        within = k0 >= 0 and k0 < last
        lone = (d == 0.0 and k0 >= 0 and k0 <= last) or (rule == 0 and not within)
        k = min(max(k0, 0), last) if rule == 0 else k0
        first[i] = k0
        place[i] += (k - base) * stride
        # Mirrored lines keep 1 and 0: past their border the taps are looked up again by `sum_border`.
        upper = 0.5 if lone and rule == 0 else d
        weight[size + i] = acc(upper)
        weight[i] = acc(1.0 - upper)
        jump[i] = 0 if lone else stride
        now = np.uint8(2) if within or lone else np.uint8(1)
        state[i] = min(state[i], now if x[i] >= low and x[i] < high else np.uint8(0))


@njit(inner=True, **OPTIONS)
def linear_row(src, place, jump, wz, wy, wx, out):
    """Two neighbours per axis of every voxel of a row, `jump` apart: along x, then y, then z, as ITK does."""
    acc = out.dtype.type
    n = uint64(out.size)
    jz, jy, jx = jump[0], jump[1], jump[2]
    for i in range(n):
        x0, x1, y0, y1 = wx[i], wx[i + n], wy[i], wy[i + n]
        r0, step = uint64(place[i]), uint64(jx[i])
        r1, r2 = r0 + uint64(jy[i]), r0 + uint64(jz[i])
        r3 = r2 + uint64(jy[i])
        v0 = x0 * acc(src[r0]) + x1 * acc(src[r0 + step])
        v1 = x0 * acc(src[r1]) + x1 * acc(src[r1 + step])
        v2 = x0 * acc(src[r2]) + x1 * acc(src[r2 + step])
        v3 = x0 * acc(src[r3]) + x1 * acc(src[r3 + step])
        out[i] = wz[i] * (y0 * v0 + y1 * v1) + wz[i + n] * (y0 * v2 + y1 * v3)


@njit(inner=True, **OPTIONS)
def cubic_row(src, place, sz, sy, sx, wz, wy, wx, out):
    """Four taps per axis of every voxel of a row: columns of neighbours along x side by side, then across."""
    acc = out.dtype.type
    n = uint64(out.size)
    sz, sy, one = uint64(sz), uint64(sy), uint64(sx)
    two = one + one
    three = two + one
    for i in range(n):
        y0, y1, y2, y3 = wy[i], wy[i + n], wy[i + n + n], wy[i + n + n + n]
        t0, t1, t2, t3 = acc(0), acc(0), acc(0), acc(0)
        for a in range(uint64(4)):
            w = wz[i + a * n]
            r0 = uint64(place[i]) + a * sz
            r1 = r0 + sy
            r2 = r1 + sy
            r3 = r2 + sy
            u0, u1 = y0 * acc(src[r0]), y0 * acc(src[r0 + one])
            u2, u3 = y0 * acc(src[r0 + two]), y0 * acc(src[r0 + three])
            u0, u1 = u0 + y1 * acc(src[r1]), u1 + y1 * acc(src[r1 + one])
            u2, u3 = u2 + y1 * acc(src[r1 + two]), u3 + y1 * acc(src[r1 + three])
            u0, u1 = u0 + y2 * acc(src[r2]), u1 + y2 * acc(src[r2 + one])
            u2, u3 = u2 + y2 * acc(src[r2 + two]), u3 + y2 * acc(src[r2 + three])
            u0, u1 = u0 + y3 * acc(src[r3]), u1 + y3 * acc(src[r3 + one])
            u2, u3 = u2 + y3 * acc(src[r3 + two]), u3 + y3 * acc(src[r3 + three])
            t0, t1, t2, t3 = t0 + w * u0, t1 + w * u1, t2 + w * u2, t3 + w * u3
        out[i] = (t0 * wx[i] + t1 * wx[i + n]) + (t2 * wx[i + n + n] + t3 * wx[i + n + n + n])


@njit(inner=True, **OPTIONS)
def plain_row(src, place, sz, sy, sx, wz, wy, wx, out):
    """Any number of plain neighbours per axis of every voxel of a row."""
    acc = out.dtype.type
    n = uint64(out.size)
    width = uint64(wx.size) // n
    sz, sy, sx = uint64(sz), uint64(sy), uint64(sx)
    for i in range(n):
        total = acc(0)
        for a in range(width):
            u = acc(0)
            for b in range(width):
                r = uint64(place[i]) + a * sz + b * sy
                t = acc(0)
                for c in range(width):
                    t = t + wx[i + c * n] * acc(src[r + c * sx])
                u = u + wy[i + b * n] * t
            total = total + wz[i + a * n] * u
        out[i] = total


@njit(inline="always")
def sum_border(src, so, strides, first, n_src, base, rule, wz, wy, wx, i, n):
    """Any neighbourhood: taps past the border fold, taps of weight zero are not read. Also the sum of weights."""
    acc = wx.dtype.type
    width = wx.size // np.int64(n)
    total, whole = acc(0), acc(0)
    for a in range(width):
        z = fold(first[0, i] + a, n_src[0], rule)
        w_z = wz[i + uint64(a) * n]
        if z < 0 or w_z == 0:
            continue
        for b in range(width):
            y = fold(first[1, i] + b, n_src[1], rule)
            w_y = wy[i + uint64(b) * n]
            if y < 0 or w_y == 0:
                continue
            r = so + (z - base[0]) * strides[0] + (y - base[1]) * strides[1]
            t, s = acc(0), acc(0)
            for c in range(width):
                x = fold(first[2, i] + c, n_src[2], rule)
                w_x = wx[i + uint64(c) * n]
                if x < 0 or w_x == 0:
                    continue
                t = t + w_x * acc(src[uint64(r + (x - base[2]) * strides[2])])
                s = s + w_x
            total = total + w_z * w_y * t
            whole = whole + w_z * w_y * s
    return total, whole


@njit(**OPTIONS)
def gather_rows(
    src, so, src_strides, coordinates, lines, x0, n0, dst, do, dst_strides, row0, n_y, n_x, coefficients, shift,
    offset, n_src, base, box, rule, spline, normalise, default, bounds, rounding,
):  # fmt: skip
    """Interpolate the voxels of the rows that `coordinates` describes, `row0` the first of them.

    A row goes through in sweeps without branches, as if all its voxels were plain; the few that are not are then
    done again.
    """
    acc = coefficients.dtype.type
    sz, sy, sx = src_strides
    width = coefficients.shape[1]
    wz, wy, wx = np.empty(width * n_x, acc), np.empty(width * n_x, acc), np.empty(width * n_x, acc)
    first, place, jump = np.empty((3, n_x), np.int64), np.empty(n_x, np.int64), np.empty((3, n_x), np.int64)
    state, x = np.empty(n_x, np.uint8), np.empty(n_x)
    part, piece, values = np.empty(n_x, acc), np.empty(n_x, np.int32), np.empty(n_x, acc)
    step, along = uint64(dst_strides[2]), positions(n_x, x0, n0)
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = do + z * dst_strides[0] + y * dst_strides[1]
        state[:], place[:] = 2, so
        for axis in range(3):
            weight = wz if axis == 0 else (wy if axis == 1 else wx)
            locate_row(coordinates, row, lines, along, 2 - axis, x)
            if width == 2:
                weigh_pair_row(
                    x, n_src[axis], base[axis], src_strides[axis], box[axis, 0], box[axis, 1], offset, rule, spline,
                    first[axis], place, weight, jump[axis], state,
                )  # fmt: skip
                continue
            weigh_row(
                x, n_src[axis], base[axis], src_strides[axis], box[axis, 0], box[axis, 1], coefficients, shift, offset,
                spline, normalise, first[axis], place, weight, part, piece, state,
            )  # fmt: skip
        plain, border = 0, 0
        safe = np.int64(-1)
        for i in range(uint64(n_x)):
            plain += state[i] == 2
            border += state[i] == 1
            safe = max(safe, place[i] if state[i] == 2 else np.int64(-1))
        if plain > 0:
            if plain < n_x:
                for i in range(uint64(n_x)):
                    place[i] = place[i] if state[i] == 2 else safe
                    if state[i] != 2:
                        jump[0, i], jump[1, i], jump[2, i] = 0, 0, 0
            if width == 4:
                cubic_row(src, place, sz, sy, sx, wz, wy, wx, values)
            elif width == 2:
                linear_row(src, place, jump, wz, wy, wx, values)
            else:
                plain_row(src, place, sz, sy, sx, wz, wy, wx, values)
        if border > 0:
            for i in range(uint64(n_x)):
                if state[i] == 1:
                    value, whole = sum_border(
                        src, so, src_strides, first, n_src, base, rule, wz, wy, wx, i, uint64(n_x)
                    )
                    values[i] = value / whole if normalise else value
        if plain + border > 0:
            store_row(dst, out, dst_strides[2], values, 0, n_x, bounds, rounding)
        if plain + border < n_x:
            for i in range(uint64(n_x)):
                if state[i] == 0:
                    dst[uint64(out) + i * step] = default


@njit(inner=True, **OPTIONS)
def nearest_row(x, n, low, high, rule, base, stride, place, state):
    """Add the nearest voxel's offset along one axis to `place`; `state` becomes 0 outside [low, high)."""
    last = np.float64(n - 1)
    if rule == 0:
        for i in range(uint64(x.size)):
            k = min(max(np.floor(x[i] + 0.5), 0.0), last)
            place[i] += (np.int64(k) - base) * stride
            state[i] = min(state[i], np.uint8(1) if x[i] >= low and x[i] < high else np.uint8(0))
    else:
        for i in range(uint64(x.size)):
            k = math.floor(min(max(x[i], -1e9), 1e9) + 0.5) if x[i] == x[i] else 0
            place[i] += (fold(k, n, rule) - base) * stride
            state[i] = min(state[i], np.uint8(1) if x[i] >= low and x[i] < high else np.uint8(0))


@njit(**OPTIONS)
def copy_rows(
    src, so, src_strides, coordinates, lines, x0, n0, dst, do, dst_strides, row0, n_y, n_x, n_src, base, box, rule,
    default,
):  # fmt: skip
    """Copy the nearest voxel, bit by bit."""
    place, state, x = np.empty(n_x, np.int64), np.empty(n_x, np.uint8), np.empty(n_x)
    step, along = uint64(dst_strides[2]), positions(n_x, x0, n0)
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = uint64(do + z * dst_strides[0] + y * dst_strides[1])
        place[:], state[:] = so, 1
        for axis in range(3):
            locate_row(coordinates, row, lines, along, 2 - axis, x)
            nearest_row(x, n_src[axis], box[axis, 0], box[axis, 1], rule, base[axis], src_strides[axis], place, state)
        for i in range(uint64(n_x)):
            dst[out + i * step] = src[uint64(place[i])] if state[i] != 0 else default


@njit(inner=True, **EXACT)
def linear_taps(x, n, base, stride, rule, weight, place):
    """Two clamped neighbours and the weight of the upper one in `weight[0]`; one neighbour where it is not needed."""
    b = math.floor(x)
    weight[0] = x - b
    lower, upper = fold(int(b), n, rule), fold(int(b) + 1, n, rule)
    if lower == upper:
        weight[0] = 0.0
    place[0], place[1] = (lower - base) * stride, (upper - base) * stride
    return 2 if weight[0] > 0.0 else 1


@njit(inner=True, **EXACT)
def gaussian_taps(x, n, base, stride, sigma, cut, rule, weight, place):
    """ITK's label Gaussian along one axis: differences of erf over the voxels within `cut`."""
    first, last = math.floor(x + 0.5 - cut), math.ceil(x + 0.5 + cut) - 1
    count = 0
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    before = math.erf((first - 0.5 - x) * scale)
    for k in range(first, last + 1):
        after = math.erf((k + 0.5 - x) * scale)
        at = fold(k, n, rule)
        if at >= 0:
            weight[count] = after - before
            place[count] = (at - base) * stride
            count += 1
        before = after
    return count


@njit(inner=True, **EXACT)
def lerp_share(values, label, nx, ny, nz, dx, dy, dz):
    """Share of `label` among up to 2 x 2 x 2 neighbours, interpolated along x, then y, then z as ITK does."""
    plane = np.empty(2)
    for c in range(nz):
        line = np.empty(2)
        for b in range(ny):
            v = 1.0 if values[c * 4 + b * 2] == label else 0.0
            if nx == 2:
                u = 1.0 if values[c * 4 + b * 2 + 1] == label else 0.0
                v = v + (u - v) * dx
            line[b] = v
        plane[c] = line[0] + (line[1] - line[0]) * dy if ny == 2 else line[0]
    return plane[0] + (plane[1] - plane[0]) * dz if nz == 2 else plane[0]


@njit(**EXACT)
def vote_rows(
    src, so, src_strides, coordinates, lines, x0, n0, dst, do, dst_strides, row0, n_y, n_x, n_src, base, box, rule,
    gaussian, sigma, cut, default,
):  # fmt: skip
    """The label with the largest share of every voxel's neighbourhood.

    Linear shares: ties go to the smallest label (`itk::LabelImageGenericInterpolateImageFunction`). Gaussian
    weights: to the label whose sum reached the maximum first, x fastest
    (`itk::LabelImageGaussianInterpolateImageFunction`).
    """
    sz, sy, sx = src_strides
    wz, wy, wx = np.empty(8), np.empty(8), np.empty(8)
    oz, oy, ox = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    values = np.empty(512, src.dtype)
    sums = np.empty(512)
    xs, ys, zs = np.empty(n_x), np.empty(n_x), np.empty(n_x)
    along = positions(n_x, x0, n0)
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = do + z * dst_strides[0] + y * dst_strides[1]
        locate_row(coordinates, row, lines, along, 0, xs)
        locate_row(coordinates, row, lines, along, 1, ys)
        locate_row(coordinates, row, lines, along, 2, zs)
        for i in range(n_x):
            px, py, pz = xs[i], ys[i], zs[i]
            at = uint64(out + i * dst_strides[2])
            if not (box[0, 0] <= pz < box[0, 1] and box[1, 0] <= py < box[1, 1] and box[2, 0] <= px < box[2, 1]):
                dst[at] = default
                continue
            if gaussian:
                nz = gaussian_taps(pz, n_src[0], base[0], sz, sigma, cut, rule, wz, oz)
                ny = gaussian_taps(py, n_src[1], base[1], sy, sigma, cut, rule, wy, oy)
                nx = gaussian_taps(px, n_src[2], base[2], sx, sigma, cut, rule, wx, ox)
            else:
                nz = linear_taps(pz, n_src[0], base[0], sz, rule, wz, oz)
                ny = linear_taps(py, n_src[1], base[1], sy, rule, wy, oy)
                nx = linear_taps(px, n_src[2], base[2], sx, rule, wx, ox)
            winner = src[uint64(so + oz[0] + oy[0] + ox[0])]
            same = True
            for c in range(nz):
                for b in range(ny):
                    for a in range(nx):
                        same = same and src[uint64(so + oz[c] + oy[b] + ox[a])] == winner
            if same:
                dst[at] = winner
                continue
            labels = 0
            best = 0.0
            if gaussian:
                for c in range(nz):
                    for b in range(ny):
                        for a in range(nx):
                            label = src[uint64(so + oz[c] + oy[b] + ox[a])]
                            w = wx[a] * wy[b] * wz[c]
                            k = 0
                            while k < labels and values[k] != label:
                                k += 1
                            if k == labels:
                                values[k], sums[k] = label, 0.0
                                labels += 1
                            sums[k] += w
                            if sums[k] > best:
                                best, winner = sums[k], label
            else:
                for c in range(nz):
                    for b in range(ny):
                        for a in range(nx):
                            values[c * 4 + b * 2 + a] = src[uint64(so + oz[c] + oy[b] + ox[a])]
                for c in range(nz):
                    for b in range(ny):
                        for a in range(nx):
                            label = values[c * 4 + b * 2 + a]
                            share = lerp_share(values, label, nx, ny, nz, wx[0], wy[0], wz[0])
                            if share > best or (share == best and label < winner):
                                best, winner = share, label
            dst[at] = winner
