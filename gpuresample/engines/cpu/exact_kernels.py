"""SimpleITK's sums to the last bit: its own order of operations, compiled by Numba.

Truncation makes a whole unit of a last bit: a sample that falls on a voxel by design is 99.999999999 or 100, and only
ITK's own order of operations says which. These kernels follow `itk::LinearInterpolateImageFunction`,
`itk::BSplineInterpolateImageFunction` with its prefilter, `itk::NeighborhoodInnerProduct` and
`itk::BinShrinkImageFilter`, ITK 5.4. Nothing here may fuse a product with a sum or be reordered.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS

EXACT = OPTIONS | {"fastmath": False}

# Lines that are filtered together, and voxels that are summed side by side: they fill vectors.
LINES = 16
LANES = 16


class Cells(NamedTuple):
    """Between which two samples each of n points along an axis lies, see `axis_cells`.

    Attributes
    ----------
    lower, upper : int64 [n]
    distance : float64 [n]
        From the lower one; the two are one sample at distance 0.
    """

    lower: npt.NDArray[Any]
    upper: npt.NDArray[Any]
    distance: npt.NDArray[Any]


@njit(**EXACT)
def spline_lines(volume, start, step, line_step, lines, n, poles, horizons, scratch):
    """B-spline coefficients of `lines` lines of `n` samples, in place (`itk::BSplineDecompositionImageFilter`).

    Sample `k` of line `j` is `volume[start + k * step + j * line_step]`. `horizons`: terms of a pole's causal start.
    """
    gain = 1.0
    for p in range(poles.size):
        gain = gain * (1.0 - poles[p]) * (1.0 - 1.0 / poles[p])
    for k in range(n):
        for j in range(lines):
            scratch[k * lines + j] = volume[start + k * step + j * line_step] * gain
    last = (n - 1) * lines
    for p in range(poles.size):
        z = poles[p]
        if horizons[p] < n:
            zn = z
            for k in range(1, horizons[p]):
                for j in range(lines):
                    scratch[j] += zn * scratch[k * lines + j]
                zn *= z
        else:
            zn, back, z2n = z, 1.0 / z, z ** np.float64(n - 1)
            for j in range(lines):
                scratch[j] += z2n * scratch[last + j]
            z2n *= z2n * back
            for k in range(1, n - 1):
                for j in range(lines):
                    scratch[j] += (zn + z2n) * scratch[k * lines + j]
                zn *= z
                z2n *= back
            for j in range(lines):
                scratch[j] = scratch[j] / (1.0 - zn * zn)
        for k in range(1, n):
            for j in range(lines):
                scratch[k * lines + j] += z * scratch[(k - 1) * lines + j]
        for j in range(lines):
            scratch[last + j] = (z / (z * z - 1.0)) * (z * scratch[last - lines + j] + scratch[last + j])
        for k in range(n - 2, -1, -1):
            for j in range(lines):
                scratch[k * lines + j] = z * (scratch[(k + 1) * lines + j] - scratch[k * lines + j])
    for k in range(n):
        for j in range(lines):
            volume[start + k * step + j * line_step] = scratch[k * lines + j]


@njit(inline="always")
def linear_cell(x, n):
    """First neighbour and distance of `x`; the distance is 0 where ITK reads no second neighbour."""
    # ITK's floor, which takes what lies within half an ulp below a whole number for that number.
    base = max(np.int64(np.rint(2.0 * x - 0.5)) >> 1, 0)
    d = x - base
    return base, d if d > 0.0 and base + 1 < n else 0.0


@njit(inner=True, **EXACT)
def linear_value(src, n_z, n_y, n_x, x, y, z):
    """`itk::LinearInterpolateImageFunction`: along x, then y, then z."""
    i, dx = linear_cell(x, n_x)
    j, dy = linear_cell(y, n_y)
    k, dz = linear_cell(z, n_z)
    value = 0.0
    for kk in range(2 if dz > 0.0 else 1):
        plane = 0.0
        for jj in range(2 if dy > 0.0 else 1):
            at = ((k + kk) * n_y + j + jj) * n_x + i
            row = np.float64(src[at])
            if dx > 0.0:
                row = row + (np.float64(src[at + 1]) - row) * dx
            plane = row if jj == 0 else plane + (row - plane) * dy
        value = plane if kk == 0 else value + (plane - value) * dz
    return value


@njit(inner=True, **EXACT)
def spline_taps(order, x, n, weight, index):
    """Weights and mirrored indices of the `order + 1` taps along an axis of `n` voxels, computed as ITK does."""
    half = np.float32(0.5) if order % 2 == 0 else np.float32(0.0)
    # ITK looks for the support in float32.
    cell = np.int64(np.floor(np.float32(np.float32(x) + half)))
    first = cell - order // 2
    w = x - cell
    if order == 1:
        weight[1] = w
        weight[0] = 1.0 - w
    elif order == 2:
        weight[1] = 0.75 - w * w
        weight[2] = 0.5 * (w - weight[1] + 1.0)
        weight[0] = 1.0 - weight[1] - weight[2]
    elif order == 3:
        weight[3] = (1.0 / 6.0) * w * w * w
        weight[0] = (1.0 / 6.0) + 0.5 * w * (w - 1.0) - weight[3]
        weight[2] = w + weight[0] - 2.0 * weight[3]
        weight[1] = 1.0 - weight[0] - weight[2] - weight[3]
    elif order == 4:
        w2 = w * w
        t = (1.0 / 6.0) * w2
        a = (0.5 - w) * (0.5 - w)
        weight[0] = a * ((1.0 / 24.0) * a)
        t0 = w * (t - 11.0 / 24.0)
        t1 = 19.0 / 96.0 + w2 * (0.25 - t)
        weight[1] = t1 + t0
        weight[3] = t1 - t0
        weight[4] = weight[0] + t0 + 0.5 * w
        weight[2] = 1.0 - weight[0] - weight[1] - weight[3] - weight[4]
    else:
        w2 = w * w
        weight[5] = (1.0 / 120.0) * w * w2 * w2
        q = w2 - w
        r = q * q
        v = w - 0.5
        t = q * (q - 3.0)
        weight[0] = (1.0 / 24.0) * (1.0 / 5.0 + q + r) - weight[5]
        a = (1.0 / 24.0) * (q * (q - 5.0) + 46.0 / 5.0)
        b = (-1.0 / 12.0) * v * (t + 4.0)
        weight[2] = a + b
        weight[3] = a - b
        a = (1.0 / 16.0) * (9.0 / 5.0 - t)
        b = (1.0 / 24.0) * v * (r - q - 5.0)
        weight[1] = a + b
        weight[4] = a - b
    period = 2 * (n - 1)
    for k in range(order + 1):
        i = first + k
        if n == 1:
            i = 0
        else:
            # ITK reflects once and reads beyond tiny images; a mirror has no end.
            i = abs(i) % period
            i = period - i if i >= n else i
        index[k] = i


@njit(inner=True, **EXACT)
def spline_value(coefficients, order, planar, n_z, n_y, n_x, x, y, z, weight, index):
    """`itk::BSplineInterpolateImageFunction`: taps with x fastest, then y, z; the weight multiplied in that order."""
    spline_taps(order, x, n_x, weight[0], index[0])
    spline_taps(order, y, n_y, weight[1], index[1])
    planes = 1
    if planar:
        weight[2, 0], index[2, 0] = 1.0, 0
    else:
        spline_taps(order, z, n_z, weight[2], index[2])
        planes = order + 1
    value = 0.0
    for k in range(planes):
        for j in range(order + 1):
            at = (index[2, k] * n_y + index[1, j]) * n_x
            for i in range(order + 1):
                w = weight[0, i] * weight[1, j] * weight[2, k]
                value += w * coefficients[at + index[0, i]]
    return value


@njit(inline="always")
def whole(value, limits, wrap):
    """ITK's integer of a double: clamped to the type, or wrapped into it as C does; toward zero."""
    if not wrap:
        if value <= np.float64(limits[0]):
            return limits[0]
        if value >= np.float64(limits[1]):
            return limits[1]
    return limits.dtype.type(np.int64(value))


@njit(inline="always")
def is_near(value, near):
    """Whether a last bit may decide which integer becomes of the value. At 0 it may not: both sides become 0.

    `near` above 0.5 means all values.
    """
    nearest = np.rint(value)
    return (nearest != 0.0 and math.fabs(value - nearest) <= near) or near > 0.5


@njit(**EXACT)
def truncate_range(values, dst, start, stop, limits, wrap, default, near):
    """`dst[start:stop]` from `values`, truncated; NaN becomes `default`.

    Returns how many voxels lie inside, and how many of them close to an integer.
    """
    inside, close = 0, 0
    for i in range(start, stop):
        v = np.float64(values[i])
        if v != v:
            dst[i] = default
        else:
            inside += 1
            dst[i] = whole(v, limits, wrap)
            if is_near(v, near):
                close += 1
    return inside, close


@njit(**EXACT)
def exact_rows(values, dst, row0, coordinates, lines, n_x, src, n_src, order, planar, limits, wrap, near):
    """Once more, in ITK's own order of operations, the voxels of some rows that lie within `near` of an integer.

    `coordinates` as `path.Walk.block` has them; `order` 0 is linear on voxels, else a spline on coefficients; `planar`:
    the image is 2-D.
    """
    weight, index = np.empty((3, 6)), np.empty((3, 6), np.int64)
    n_z, n_y, m_x = n_src[0], n_src[1], n_src[2]
    for r in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        for i in range(n_x):
            at = (row0 + r) * n_x + i
            v = np.float64(values[at])
            if v != v or not is_near(v, near):
                continue
            if lines:
                t = np.float64(i) / np.float64(n_x)
                x = coordinates[r, 0, 0] + t * coordinates[r, 1, 0]
                y = coordinates[r, 0, 1] + t * coordinates[r, 1, 1]
                z = coordinates[r, 0, 2] + t * coordinates[r, 1, 2]
            else:
                x, y, z = coordinates[0, r, i], coordinates[1, r, i], coordinates[2, r, i]
            if order == 0:
                v = linear_value(src, n_z, n_y, m_x, x, y, z)
            else:
                v = spline_value(src, order, planar, n_z, n_y, m_x, x, y, z, weight, index)
            dst[at] = whole(v, limits, wrap)


@njit(**EXACT)
def axis_taps(order, x, n, weight, index):
    """`spline_taps` of every sample along an aligned axis: weights and indices, shape (order + 1, samples)."""
    w, k = np.empty(6), np.empty(6, np.int64)
    for i in range(x.size):
        spline_taps(order, x[i], n, w, k)
        for p in range(order + 1):
            weight[p, i], index[p, i] = w[p], k[p]


@njit(**EXACT)
def axis_cells(x, n, cells):
    """`linear_cell` of every sample along an aligned axis, into `Cells`.

    Where ITK reads one neighbour, it stands for both: `v + (v - v) * 0` is that voxel.
    """
    for i in range(x.size):
        base, d = linear_cell(x[i], n)
        cells.lower[i], cells.upper[i], cells.distance[i] = base, base + 1 if d > 0.0 else base, d


@njit(**EXACT)
def aligned_spline_rows(values, dst, row0, row1, rows_y, src, n_y, n_x, wx, ix, wy, iy, wz, iz, limits, wrap, near):
    """`exact_rows` where axes are aligned: tables by `axis_taps`, and `LANES` voxels of a row side by side."""
    taps_z, taps, n = wz.shape[0], wx.shape[0], wx.shape[1]
    pick = np.empty(n + LANES, np.int64)
    acc = np.empty(LANES)
    weight, index = np.empty((taps, LANES)), np.empty((taps, LANES), np.int64)
    for row in range(row0, row1):
        z, y = row // rows_y, row % rows_y
        count = 0
        for i in range(n):
            v = np.float64(values[row * n + i])
            if v == v and is_near(v, near):
                pick[count] = i
                count += 1
        for lane in range(count, count + LANES):
            pick[lane] = pick[0]
        for b in range(0, count, LANES):
            for lane in range(LANES):
                acc[lane] = 0.0
                for p in range(taps):
                    weight[p, lane], index[p, lane] = wx[p, pick[b + lane]], ix[p, pick[b + lane]]
            for k in range(taps_z):
                for j in range(taps):
                    at = (iz[k, z] * n_y + iy[j, y]) * n_x
                    w_y, w_z = wy[j, y], wz[k, z]
                    for p in range(taps):
                        for lane in range(LANES):
                            acc[lane] += weight[p, lane] * w_y * w_z * src[at + index[p, lane]]
            for lane in range(min(LANES, count - b)):
                dst[row * n + pick[b + lane]] = whole(acc[lane], limits, wrap)


@njit(inline="always")
def between(a, b, d):
    """ITK's linear step."""
    return a + (b - a) * d


@njit(**EXACT)
def aligned_linear_rows(dst, row0, row1, box, src, n_y, n_x, x, y, z, default, limits, wrap):
    """Every voxel of some rows, linear, where axes are aligned: `x`, `y`, `z` are `Cells` of the samples inside `box`.

    `box` is the first sample inside and the one past the last, and the size, for z, y, x: shape (3, 3).
    """
    n, rows_y = box[2, 2], box[1, 2]
    lo, hi = box[2, 0], box[2, 1]
    x0, x1, dx = x.lower, x.upper, x.distance
    for row in range(row0, row1):
        k, j = row // rows_y, row % rows_y
        at = row * n
        inside = box[0, 0] <= k < box[0, 1] and box[1, 0] <= j < box[1, 1]
        for i in range(lo if inside else n):
            dst[at + i] = default
        if not inside:
            continue
        k -= box[0, 0]
        j -= box[1, 0]
        a, b = (z.lower[k] * n_y + y.lower[j]) * n_x, (z.lower[k] * n_y + y.upper[j]) * n_x
        c, d = (z.upper[k] * n_y + y.lower[j]) * n_x, (z.upper[k] * n_y + y.upper[j]) * n_x
        dy, dz = y.distance[j], z.distance[k]
        for i in range(hi - lo):
            p, q, t = x0[i], x1[i], dx[i]
            near_plane = between(
                between(np.float64(src[a + p]), np.float64(src[a + q]), t),
                between(np.float64(src[b + p]), np.float64(src[b + q]), t),
                dy,
            )
            far_plane = near_plane
            if dz > 0.0:
                far_plane = between(
                    between(np.float64(src[c + p]), np.float64(src[c + q]), t),
                    between(np.float64(src[d + p]), np.float64(src[d + q]), t),
                    dy,
                )
            dst[at + lo + i] = whole(between(near_plane, far_plane, dz), limits, wrap)
        for i in range(hi, n):
            dst[at + i] = default


@njit(**EXACT)
def block_means(src, dst, row0, row1, rows_y, n, strides, factors, round_up, acc):
    """Rows of `itk::BinShrinkImageFilter`: block sums in float64, x fastest, times 1 / count; integers half up."""
    kind = dst.dtype.type
    f_z, f_y, f_x = factors
    s_z, s_y, s_x = strides
    scale, step = 1.0 / (f_z * f_y * f_x), uint64(f_x * s_x)
    for row in range(row0, row1):
        start = (row // rows_y) * f_z * s_z + (row % rows_y) * f_y * s_y
        for i in range(n):
            acc[i] = 0.0
        for k in range(f_z):
            for j in range(f_y):
                for p in range(f_x):
                    at = uint64(start + k * s_z + j * s_y + p * s_x)
                    for i in range(uint64(n)):
                        acc[i] += np.float64(src[at + i * step])
        out = uint64(row * n)
        if round_up:
            for i in range(uint64(n)):
                dst[out + i] = kind(np.floor(acc[i] * scale + 0.5))
        else:
            for i in range(uint64(n)):
                dst[out + i] = kind(acc[i] * scale)


@njit(**EXACT)
def blur_columns(src, dst, start, n, inner, columns, weight, acc):
    """Weighted sum along a strided axis of `columns` neighbouring columns, from left to right in float64, then cast.

    Sample `i` of column `j` is `src[start + i * inner + j]`; past its ends a column goes on as its last sample.
    """
    kind = dst.dtype.type
    radius = weight.size // 2
    width = uint64(columns)
    for i in range(n):
        for j in range(width):
            acc[j] = 0.0
        for k in range(weight.size):
            s = uint64(start + min(max(i + k - radius, 0), n - 1) * inner)
            w = weight[k]
            for j in range(width):
                acc[j] += w * np.float64(src[s + j])
        at = uint64(start + i * inner)
        for j in range(width):
            dst[at + j] = kind(acc[j])


@njit(**EXACT)
def blur_row(src, dst, start, n, weight, acc, padded):
    """The same along contiguous samples."""
    kind = dst.dtype.type
    radius = weight.size // 2
    at, width = uint64(start), uint64(n)
    for i in range(n + 2 * radius):
        padded[i] = np.float64(src[start + min(max(i - radius, 0), n - 1)])
    for i in range(width):
        acc[i] = 0.0
    for k in range(uint64(weight.size)):
        w = weight[k]
        for i in range(width):
            acc[i] += w * padded[i + k]
    for i in range(width):
        dst[at + i] = kind(acc[i])


@njit(**EXACT)
def first_not_finite(values, start, stop):
    """Whether some value in the range is infinite or NaN."""
    for i in range(start, stop):  # noqa: SIM110
        # Infinity less itself is NaN, as is NaN.
        if values[i] - values[i] != 0.0:
            return True
    return False


@njit(**EXACT)
def extremes(values, start, stop):
    """Smallest and largest value of a range."""
    low = high = values[start]
    for i in range(start, stop):
        low = min(low, values[i])
        high = max(high, values[i])
    return low, high
