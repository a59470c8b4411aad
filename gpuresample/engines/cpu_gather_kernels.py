"""The CPU engine's gathers, compiled by Numba: one weighted neighbourhood, one copy or one vote per voxel.

For grids that are rotated, sheared or deformed against the source, and for label votes. The house rules are
those of `cpu_kernels`. Coordinates are x, y, z; every other triple is z, y, x.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit, uint64

from gpuresample.engines.cpu_kernels import OPTIONS, settle


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


@njit(inline="always")
def locate(coordinates, row, i, lines, x0, n0, axis):
    """Continuous source index of voxel `i` of a row along x, y, z `axis`, in ITK's order of operations."""
    if lines:
        a, b = coordinates[row, 0, axis], coordinates[row, 1, axis]
        return a + (x0 + i) / n0 * (b - a)
    return coordinates[row, i, axis]


@njit(**OPTIONS)
def weigh(x, n, base, stride, coefficients, shift, offset, rule, spline, weight, place):
    """Weights and element offsets of one axis's taps at `x`; returns whether they are plain neighbours.

    ITK's splines find their cell from x rounded to float32, so `spline` does too.
    """
    acc = weight.dtype.type
    if spline:
        cell = math.floor(np.float32(np.float32(x) + np.float32(shift)))
    else:
        cell = math.floor(x + shift)
    pieces, width, terms = coefficients.shape
    u = (x + shift - cell) * pieces
    piece = min(max(int(u), 0), pieces - 1)
    v = acc(u - piece)
    first = int(cell) + offset
    plain = first >= 0 and first + width <= n
    for k in range(width):
        w = coefficients[piece, k, terms - 1]
        for d in range(terms - 2, -1, -1):
            w = w * v + coefficients[piece, k, d]
        at = first + k
        if not plain:
            at = fold(at, n, rule)
            if at < 0:
                w = acc(0)
                at = base
        weight[k] = w
        place[k] = (at - base) * stride
    return plain


@njit(inline="always")
def sum_any(src, here, wz, wy, wx, oz, oy, ox):
    """The weighted neighbourhood, any width, any offsets."""
    total = wx.dtype.type(0)
    for a in range(wz.size):
        for b in range(wy.size):
            row = here + oz[a] + oy[b]
            t = wx.dtype.type(0)
            for c in range(wx.size):
                t = t + wx[c] * wx.dtype.type(src[uint64(row + ox[c])])
            total = total + wz[a] * wy[b] * t
    return total


@njit(inline="always")
def sum_cubic(src, here, wz, wy, wx, oz, oy, step):
    """Four taps per axis, neighbours along x `step` apart: four columns summed side by side, then across."""
    acc = wx.dtype.type
    one = uint64(step)
    t0, t1, t2, t3 = acc(0), acc(0), acc(0), acc(0)
    for a in range(4):
        for b in range(4):
            w = wz[a] * wy[b]
            p = uint64(here + oz[a] + oy[b])
            t0 = t0 + w * acc(src[p])
            t1 = t1 + w * acc(src[p + one])
            t2 = t2 + w * acc(src[p + one + one])
            t3 = t3 + w * acc(src[p + one + one + one])
    return t0 * wx[0] + t1 * wx[1] + (t2 * wx[2] + t3 * wx[3])


@njit(inline="always")
def sum_linear(src, here, wz, wy, wx, oz, oy, ox):
    """Two taps per axis. A neighbour of weight zero is not read: it may be NaN or infinite."""
    acc = wx.dtype.type
    total = acc(0)
    for a in range(2):
        if wz[a] != 0:
            for b in range(2):
                if wy[b] != 0:
                    w = wz[a] * wy[b]
                    p = here + oz[a] + oy[b]
                    if wx[0] != 0:
                        total = total + w * wx[0] * acc(src[uint64(p + ox[0])])
                    if wx[1] != 0:
                        total = total + w * wx[1] * acc(src[uint64(p + ox[1])])
    return total


@njit(**OPTIONS)
def gather_rows(
    src, so, src_strides, coordinates, lines, x0, n0, dst, do, dst_strides, row0, n_y, n_x, coefficients, shift,
    offset, n_src, base, box, rule, spline, normalise, default, bounds, rounding,
):  # fmt: skip
    """Interpolate the voxels of the rows that `coordinates` describes, `row0` the first of them."""
    acc = coefficients.dtype.type
    kind = dst.dtype.type
    sz, sy, sx = src_strides
    width = coefficients.shape[1]
    wz, wy, wx = np.empty(width, acc), np.empty(width, acc), np.empty(width, acc)
    oz, oy, ox = np.empty(width, np.int64), np.empty(width, np.int64), np.empty(width, np.int64)
    low, high = bounds[0], bounds[1]
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = do + z * dst_strides[0] + y * dst_strides[1]
        for i in range(n_x):
            px = locate(coordinates, row, i, lines, x0, n0, 0)
            py = locate(coordinates, row, i, lines, x0, n0, 1)
            pz = locate(coordinates, row, i, lines, x0, n0, 2)
            at = uint64(out + i * dst_strides[2])
            if not (
                box[0, 0] <= pz < box[0, 1] and box[1, 0] <= py < box[1, 1] and box[2, 0] <= px < box[2, 1]
            ):
                dst[at] = default
                continue
            weigh(pz, n_src[0], base[0], sz, coefficients, shift, offset, rule, spline, wz, oz)
            weigh(py, n_src[1], base[1], sy, coefficients, shift, offset, rule, spline, wy, oy)
            plain = weigh(px, n_src[2], base[2], sx, coefficients, shift, offset, rule, spline, wx, ox)
            if width == 4 and plain:
                value = sum_cubic(src, so + ox[0], wz, wy, wx, oz, oy, sx)
            elif width == 2:
                value = sum_linear(src, so, wz, wy, wx, oz, oy, ox)
            else:
                value = sum_any(src, so, wz, wy, wx, oz, oy, ox)
            if normalise:
                value = value / (wz.sum() * wy.sum() * wx.sum())
            if rounding == 0:
                dst[at] = kind(value)
            else:
                dst[at] = kind(settle(value, low, high, rounding == 2))


@njit(**OPTIONS)
def copy_rows(
    src, so, src_strides, coordinates, lines, x0, n0, dst, do, dst_strides, row0, n_y, n_x, n_src, base, box, rule,
    default,
):  # fmt: skip
    """Copy the nearest voxel, bit by bit."""
    sz, sy, sx = src_strides
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = do + z * dst_strides[0] + y * dst_strides[1]
        for i in range(n_x):
            px = locate(coordinates, row, i, lines, x0, n0, 0)
            py = locate(coordinates, row, i, lines, x0, n0, 1)
            pz = locate(coordinates, row, i, lines, x0, n0, 2)
            at = uint64(out + i * dst_strides[2])
            if not (
                box[0, 0] <= pz < box[0, 1] and box[1, 0] <= py < box[1, 1] and box[2, 0] <= px < box[2, 1]
            ):
                dst[at] = default
                continue
            kz = fold(int(math.floor(pz + 0.5)), n_src[0], rule) - base[0]
            ky = fold(int(math.floor(py + 0.5)), n_src[1], rule) - base[1]
            kx = fold(int(math.floor(px + 0.5)), n_src[2], rule) - base[2]
            dst[at] = src[uint64(so + kz * sz + ky * sy + kx * sx)]


@njit(**OPTIONS)
def linear_taps(x, n, base, stride, rule, weight, place):
    """Two clamped neighbours and the weight of the upper one in `weight[0]`; one neighbour where it is not needed."""
    b = math.floor(x)
    weight[0] = x - b
    lower, upper = fold(int(b), n, rule), fold(int(b) + 1, n, rule)
    if lower == upper:
        weight[0] = 0.0
    place[0], place[1] = (lower - base) * stride, (upper - base) * stride
    return 2 if weight[0] > 0.0 else 1


@njit(**OPTIONS)
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


@njit(**OPTIONS)
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


@njit(**OPTIONS)
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
    for row in range(coordinates.shape[0]):
        z, y = (row0 + row) // n_y, (row0 + row) % n_y
        out = do + z * dst_strides[0] + y * dst_strides[1]
        for i in range(n_x):
            px = locate(coordinates, row, i, lines, x0, n0, 0)
            py = locate(coordinates, row, i, lines, x0, n0, 1)
            pz = locate(coordinates, row, i, lines, x0, n0, 2)
            at = uint64(out + i * dst_strides[2])
            if not (
                box[0, 0] <= pz < box[0, 1] and box[1, 0] <= py < box[1, 1] and box[2, 0] <= px < box[2, 1]
            ):
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
