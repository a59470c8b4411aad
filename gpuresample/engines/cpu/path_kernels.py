"""Where the voxels of a block come from: a route (`works.Route`), walked by Numba.

Points of a block lie in three planes, x, y and z, of shape [rows, voxels of a row], so that every loop here fills
vectors. Rows are (z, y) in C order. All of it is float64 in ITK's order of operations, and nothing fuses: a last bit
decides between inside and outside.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS

EXACT = {**OPTIONS, "fastmath": False}


@njit(inner=True, **EXACT)
def times(m, p0, p1, p2, k):
    """Row `k` of a matrix times a vector, from the first product on."""
    return (m[k, 0] * p0 + m[k, 1] * p1) + m[k, 2] * p2


@njit(inner=True, **EXACT)
def point_of(step, origin, i, j, k, axis):
    """Coordinate `axis` of voxel (i, j, k): origin, then x, y, z."""
    return ((origin[axis] + step[axis, 0] * i) + step[axis, 1] * j) + step[axis, 2] * k


@njit(**EXACT)
def row_ends(step, origin, matrix, offset, inverse, origin_in, n0, z0, y0, n_y, out):
    """Both ends of the scan lines of a block: `out[row]` is the source index at x = 0, and how far it is to x = n0."""
    a = np.empty(3)
    for row in range(out.shape[0]):
        y, z = np.float64(y0 + row % n_y), np.float64(z0 + row // n_y)
        for end in range(2):
            x = np.float64(n0) if end == 1 else 0.0
            p0, p1, p2 = (
                point_of(step, origin, x, y, z, 0), point_of(step, origin, x, y, z, 1),
                point_of(step, origin, x, y, z, 2),
            )  # fmt: skip
            q0, q1, q2 = (
                times(matrix, p0, p1, p2, 0) + offset[0], times(matrix, p0, p1, p2, 1) + offset[1],
                times(matrix, p0, p1, p2, 2) + offset[2],
            )  # fmt: skip
            q0, q1, q2 = q0 - origin_in[0], q1 - origin_in[1], q2 - origin_in[2]
            for axis in range(3):
                b = times(inverse, q0, q1, q2, axis)
                if end == 0:
                    a[axis] = b
                    out[row, 0, axis] = b
                else:
                    out[row, 1, axis] = b - a[axis]


@njit(inner=True, **EXACT)
def start_row(step, origin, y, z, x0, px, py, pz):
    """Physical points of a row of voxels that begins at (z, y, x0)."""
    first, y, z = np.float64(x0), np.float64(y), np.float64(z)
    for axis in range(3):
        out = px if axis == 0 else (py if axis == 1 else pz)
        o, s0, s1, s2 = origin[axis], step[axis, 0], step[axis, 1] * y, step[axis, 2] * z
        for i in range(uint64(out.size)):
            out[i] = ((o + s0 * (np.float64(np.int32(i)) + first)) + s1) + s2


@njit(inner=True, **EXACT)
def linear_row(matrix, offset, px, py, pz):
    """`p -> matrix p + offset`."""
    o0, o1, o2 = offset[0], offset[1], offset[2]
    for i in range(uint64(px.size)):
        a, b, c = px[i], py[i], pz[i]
        px[i] = times(matrix, a, b, c, 0) + o0
        py[i] = times(matrix, a, b, c, 1) + o1
        pz[i] = times(matrix, a, b, c, 2) + o2


@njit(inner=True, **EXACT)
def finish_row(inverse, origin_in, px, py, pz):
    """Points to continuous source indices. Answers how many of them are no numbers."""
    o0, o1, o2 = origin_in[0], origin_in[1], origin_in[2]
    strange = 0
    for i in range(uint64(px.size)):
        a, b, c = px[i] - o0, py[i] - o1, pz[i] - o2
        x, y, z = times(inverse, a, b, c, 0), times(inverse, a, b, c, 1), times(inverse, a, b, c, 2)
        px[i], py[i], pz[i] = x, y, z
        strange += ((x - x) + (y - y)) + (z - z) != 0.0
    return strange


@njit(**EXACT)
def start_block(step, origin, z0, y0, x0, n_y, points):
    """Physical points of a block of voxels that begins at (z0, y0, x0)."""
    for row in range(points.shape[1]):
        start_row(step, origin, y0 + row % n_y, z0 + row // n_y, x0, points[0, row], points[1, row], points[2, row])


@njit(**EXACT)
def move_linear(matrix, offset, points):
    """`p -> matrix p + offset`."""
    for row in range(points.shape[1]):
        linear_row(matrix, offset, points[0, row], points[1, row], points[2, row])


@njit(**EXACT)
def finish_block(inverse, origin_in, points):
    """Points to continuous source indices. Answers how many of them are no numbers."""
    strange = 0
    for row in range(points.shape[1]):
        strange += finish_row(inverse, origin_in, points[0, row], points[1, row], points[2, row])
    return strange


# --- lattices --------------------------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def direct_row(memory, at, strides, z, y, x0, px, py, pz):
    """A field whose nodes are the output's voxels: every point of row (z, y) moves by its own vector."""
    n, step, component = uint64(px.size), uint64(strides[2]), uint64(strides[3])
    h = uint64(at + z * strides[0] + y * strides[1] + x0 * strides[2])
    h1, h2 = h + component, h + component + component
    # Spelt out: only steps that are known fill vectors.
    if step == uint64(3) and component == uint64(1):
        for i in range(n):
            k = h + i * uint64(3)
            px[i] += np.float64(memory[k])
            py[i] += np.float64(memory[k + uint64(1)])
            pz[i] += np.float64(memory[k + uint64(2)])
    elif step == uint64(1):
        for i in range(n):
            px[i] += np.float64(memory[h + i])
            py[i] += np.float64(memory[h1 + i])
            pz[i] += np.float64(memory[h2 + i])
    else:
        for i in range(n):
            k = i * step
            px[i] += np.float64(memory[h + k])
            py[i] += np.float64(memory[h1 + k])
            pz[i] += np.float64(memory[h2 + k])


@njit(inner=True, **EXACT)
def blend_row(memory, at, strides, first, count, weight, inside, axes, z, y, tags, ring, line):
    """The row of a lattice, blended of its neighbours along the output's z and y, that output row (z, y) lies on.

    Along z first: rows of the lattice blended so are kept in `ring`, [taps, 3, samples], for the next rows of this
    plane. `tags` says which they are.
    """
    run_axis, z_axis, y_axis = axes
    z, y = z - inside[z_axis, 0], y - inside[y_axis, 0]
    step, samples, component = uint64(strides[run_axis]), uint64(line.shape[1]), strides[3]
    fz, fy = first[z_axis][z], first[y_axis][y]
    for b in range(count[y_axis][y]):
        j = fy + b
        slot = j % tags.size
        if tags[slot] != j:
            tags[slot] = j
            for axis in range(3):
                made = ring[slot, axis]
                here = at + fz * strides[z_axis] + j * strides[y_axis] + axis * component
                for a in range(count[z_axis][z]):
                    h, w = uint64(here + a * strides[z_axis]), weight[z_axis][z, a]
                    if a == 0:
                        for k in range(samples):
                            made[k] = w * np.float64(memory[h + k * step])
                    else:
                        for k in range(samples):
                            made[k] += w * np.float64(memory[h + k * step])
        w = weight[y_axis][y, b]
        for axis in range(3):
            made, whole = ring[slot, axis], line[axis]
            if b == 0:
                for k in range(samples):
                    whole[k] = w * made[k]
            else:
                for k in range(samples):
                    whole[k] += w * made[k]


@njit(inner=True, **EXACT)
def along_row(first, count, across, until, lo, hi, i, line, px, py, pz):
    """Move points by a blended row of a lattice, sampled along the output's x: by rows `lo` to `hi` of its table.

    The first of them belongs to point `i`. `across` is the table's weights, tap by tap, and rows up to `until` have the
    taps of a row: these nodes stay in registers, and weights fill vectors.
    """
    for axis in range(3):
        p, d = px if axis == 0 else (py if axis == 1 else pz), line[axis]
        r = lo
        while r < hi:
            f, taps, stop = uint64(first[r]), count[r], min(until[r], hi)
            here = p[i + r - lo : i + stop - lo]
            if taps == 4:
                d0, d1, d2, d3 = d[f], d[f + uint64(1)], d[f + uint64(2)], d[f + uint64(3)]
                w0, w1, w2, w3 = across[0, r:stop], across[1, r:stop], across[2, r:stop], across[3, r:stop]
                for k in range(uint64(here.size)):
                    here[k] += ((w0[k] * d0 + w1[k] * d1) + w2[k] * d2) + w3[k] * d3
            elif taps == 2:
                d0, d1, w0, w1 = d[f], d[f + uint64(1)], across[0, r:stop], across[1, r:stop]
                for k in range(uint64(here.size)):
                    here[k] += w0[k] * d0 + w1[k] * d1
            else:
                for k in range(uint64(here.size)):
                    t = 0.0
                    for m in range(uint64(taps)):
                        t += across[m, uint64(r) + k] * d[f + m]
                    here[k] += t
            r = stop


@njit(inner=True, **EXACT)
def run_of(inside, axes, z, y, x0, n):
    """The run of points [lo, hi) of a row of `n`, from (z, y, x0) on, that lie in the domain of a lattice."""
    run_axis, z_axis, y_axis = axes
    lo, hi = max(inside[run_axis, 0] - x0, 0), min(inside[run_axis, 1] - x0, n)
    within = inside[z_axis, 0] <= z < inside[z_axis, 1] and inside[y_axis, 0] <= y < inside[y_axis, 1]
    return (lo, hi) if within and lo < hi else (0, 0)


@njit(**EXACT)
def move_direct(memory, at, strides, z0, y0, x0, n_y, points):
    """`direct_row` of all rows of a block."""
    for row in range(points.shape[1]):
        direct_row(
            memory, at, strides, z0 + row // n_y, y0 + row % n_y, x0, points[0, row], points[1, row], points[2, row]
        )


@njit(**EXACT)
def move_parallel(
    memory, at, strides, first, count, weight, across, until, inside, axes, z0, y0, x0, n_y, ring, line, points,
):  # fmt: skip
    """A lattice along the output's axes: its rows are blended into one, which is sampled along the output's x.

    `first`, `count`, `weight` are three tables, of lattice axes z, y, x; `inside[axis]` is where the domain begins and
    ends on the output. `axes` are the lattice's that run along the output's x, z and y. `across`, `until`: see
    `along_row`. `ring`, [taps, 3, samples], and `line`, [3, samples], are scratch.
    """
    tags, plane = np.full(ring.shape[0], -1), z0 - 1
    first_x, count_x, start = first[axes[0]], count[axes[0]], inside[axes[0], 0]
    for row in range(points.shape[1]):
        z, y = z0 + row // n_y, y0 + row % n_y
        lo, hi = run_of(inside, axes, z, y, x0, points.shape[2])
        if lo < hi:
            if z != plane:
                tags[:], plane = -1, z
            blend_row(memory, at, strides, first, count, weight, inside, axes, z, y, tags, ring, line)
            x, last = lo + x0 - start, hi + x0 - start
            px, py, pz = points[0, row], points[1, row], points[2, row]
            along_row(first_x, count_x, across, until, x, last, lo, line, px, py, pz)


# One lattice, and perhaps a matrix after it, is what most routes are: a row of these goes through while it is in the
# closest cache.


@njit(**EXACT)
def direct_block(
    step, origin, memory, at, strides, turns, matrix, offset, inverse, origin_in, z0, y0, x0, n_y, points
):  # fmt: skip
    """`start_block`, `move_direct`, if it `turns` `move_linear`, and `finish_block`."""
    strange = 0
    for row in range(points.shape[1]):
        z, y, px, py, pz = z0 + row // n_y, y0 + row % n_y, points[0, row], points[1, row], points[2, row]
        start_row(step, origin, y, z, x0, px, py, pz)
        direct_row(memory, at, strides, z, y, x0, px, py, pz)
        if turns:
            linear_row(matrix, offset, px, py, pz)
        strange += finish_row(inverse, origin_in, px, py, pz)
    return strange


@njit(inner=True, **EXACT)
def turn(matrix, line):
    """A matrix times every vector of a row, in place; whether all of them are numbers of no extreme size."""
    x, y, z = line[0], line[1], line[2]
    usual = True
    for k in range(uint64(line.shape[1])):
        a, b, c = x[k], y[k], z[k]
        for axis in range(3):
            v = times(matrix, a, b, c, axis)
            line[axis, k] = v
            usual &= abs(v) < 1e300
    return usual


@njit(inner=True, **EXACT)
def plain_row(step, origin, turns, matrix, offset, inverse, origin_in, y, z, x0, px, py, pz):
    """Points of a row that no lattice moves, to continuous source indices. Answers how many of them are no numbers."""
    start_row(step, origin, y, z, x0, px, py, pz)
    if turns:
        linear_row(matrix, offset, px, py, pz)
    return finish_row(inverse, origin_in, px, py, pz)


@njit(**EXACT)
def parallel_block(
    step, origin, memory, at, strides, first, count, weight, across, until, inside, axes, slope, base, whole,
    turns, matrix, offset, inverse, origin_in, z0, y0, x0, n_y, ring, line, points,
):  # fmt: skip
    """`start_block`, `move_parallel`, if it `turns` `move_linear`, and `finish_block`.

    All of it is linear but the lattice: so where that moves points, source indices without it are `base + slope @ i`,
    and vectors are brought to source indices by the matrix `whole`, row by row of the lattice. That is within some last
    bits of ITK's order, as the blending is. Points outside the lattice go ITK's way.
    """
    tags, plane, strange = np.full(ring.shape[0], -1), z0 - 1, 0
    n = points.shape[2]
    first_x, count_x, start = first[axes[0]], count[axes[0]], inside[axes[0], 0]
    for row in range(points.shape[1]):
        z, y, px, py, pz = z0 + row // n_y, y0 + row % n_y, points[0, row], points[1, row], points[2, row]
        lo, hi = run_of(inside, axes, z, y, x0, n)
        for a, b in ((0, lo), (hi, n)):
            if a < b:
                strange += plain_row(
                    step, origin, turns, matrix, offset, inverse, origin_in, y, z, x0 + a, px[a:b], py[a:b], pz[a:b]
                )
        if lo < hi:
            if z != plane:
                tags[:], plane = -1, z
            blend_row(memory, at, strides, first, count, weight, inside, axes, z, y, tags, ring, line)
            usual = turn(whole, line)
            start_row(slope, base, y, z, x0 + lo, px[lo:hi], py[lo:hi], pz[lo:hi])
            x, last = lo + x0 - start, hi + x0 - start
            along_row(first_x, count_x, across, until, x, last, lo, line, px, py, pz)
            if not usual:
                for i in range(lo, hi):
                    strange += ((px[i] - px[i]) + (py[i] - py[i])) + (pz[i] - pz[i]) != 0.0
    return strange


@njit(**EXACT)
def move_field(memory, at, strides, size, inverse, origin, nearest, points):
    """A displacement field on a grid of its own; `size` x, y, z. Outside its voxels' boxes nothing moves."""
    n, component = points.shape[2], strides[3]
    sx, sy, sz = strides[2], strides[1], strides[0]
    o0, o1, o2 = origin[0], origin[1], origin[2]
    hx, hy, hz = size[0] - 0.5, size[1] - 0.5, size[2] - 0.5
    lx, ly, lz = size[0] - 1, size[1] - 1, size[2] - 1
    for row in range(points.shape[1]):
        px, py, pz = points[0, row], points[1, row], points[2, row]
        for i in range(n):
            a, b, c = px[i] - o0, py[i] - o1, pz[i] - o2
            x, y, z = times(inverse, a, b, c, 0), times(inverse, a, b, c, 1), times(inverse, a, b, c, 2)
            if not (x >= -0.5 and x < hx and y >= -0.5 and y < hy and z >= -0.5 and z < hz):
                if x != x or y != y or z != z:
                    px[i] = np.nan
                continue
            if nearest:
                kx, ky, kz = (
                    min(np.int64(math.floor(x + 0.5)), lx), min(np.int64(math.floor(y + 0.5)), ly),
                    min(np.int64(math.floor(z + 0.5)), lz),
                )  # fmt: skip
                r = at + kz * sz + ky * sy + kx * sx
                px[i] += np.float64(memory[uint64(r)])
                py[i] += np.float64(memory[uint64(r + component)])
                pz[i] += np.float64(memory[uint64(r + component + component)])
                continue
            bx, by, bz = math.floor(x), math.floor(y), math.floor(z)
            ux, uy, uz = x - bx, y - by, z - bz
            kx, ky, kz = np.int64(bx), np.int64(by), np.int64(bz)
            x0, x1 = max(kx, 0) * sx, min(kx + 1, lx) * sx
            y0, y1 = max(ky, 0) * sy, min(ky + 1, ly) * sy
            z0, z1 = at + max(kz, 0) * sz, at + min(kz + 1, lz) * sz
            vx, vy, vz = 1.0 - ux, 1.0 - uy, 1.0 - uz
            d0, d1, d2, total = 0.0, 0.0, 0.0, 0.0
            for corner in range(8):
                w = (ux if corner & 1 else vx) * (uy if corner & 2 else vy) * (uz if corner & 4 else vz)
                # ITK reads no further node once the weights are 1, though what is left need not be 0.
                if w != 0.0 and total != 1.0:
                    total += w
                    r = (x1 if corner & 1 else x0) + (y1 if corner & 2 else y0) + (z1 if corner & 4 else z0)
                    d0 += w * np.float64(memory[uint64(r)])
                    d1 += w * np.float64(memory[uint64(r + component)])
                    d2 += w * np.float64(memory[uint64(r + component + component)])
            px[i], py[i], pz[i] = px[i] + d0, py[i] + d1, pz[i] + d2


@njit(inner=True, **EXACT)
def below(a, count):
    """The number so many numbers below a positive one."""
    one = np.empty(1)
    one[0] = a
    bits = one.view(np.int64)
    bits[0] -= count
    return one[0]


@njit(inner=True, **EXACT)
def basis(order, u):
    """The B-spline of an order at distance `u`, as ITK writes it."""
    a = abs(u)
    s = a * a
    if order == 1:
        return 1.0 - a if a < 1.0 else 0.0
    if order == 2:
        return 0.75 - s if a < 0.5 else ((9.0 - 12.0 * a + 4.0 * s) * 0.125 if a < 1.5 else 0.0)
    if a < 1.0:
        return (4.0 - 6.0 * s + 3.0 * s * a) / 6.0
    return (8.0 - 12.0 * a + 6.0 * s - s * a) / 6.0 if a < 2.0 else 0.0


@njit(**EXACT)
def move_spline(memory, at, strides, size, inverse, origin, order, points):
    """A lattice of B-spline coefficients, `size` x, y, z of them; outside its domain nothing moves.

    The domain is ITK's: at the upper face up to four numbers further count as on it, at the lower one none.
    """
    n, component = points.shape[2], strides[3]
    o0, o1, o2 = origin[0], origin[1], origin[2]
    low = 0.5 * (order - 1)
    high, inner, nearly, beyond = np.empty(3), np.empty(3), np.empty(3), np.empty(3)
    for axis in range(3):
        face = size[axis] - low - 1.0
        high[axis], inner[axis], nearly[axis], beyond[axis] = face, face, face, -1.0
        if face > 0.0:
            inner[axis], nearly[axis], beyond[axis] = below(face, 6), below(face, 4), below(face, -4)
    weight, first = np.empty((3, 4)), np.empty(3, np.int64)
    flat = size[2] == 1
    for row in range(points.shape[1]):
        px, py, pz = points[0, row], points[1, row], points[2, row]
        for i in range(n):
            a, b, c = px[i] - o0, py[i] - o1, pz[i] - o2
            inside = True
            for axis in range(3):
                if axis == 2 and flat:  # in the plane
                    first[2] = 0
                    weight[2, 0] = 1.0
                    continue
                v = times(inverse, a, b, c, axis)
                if v != v:
                    px[i] = np.nan
                if v >= nearly[axis] and v <= beyond[axis]:
                    v = inner[axis]
                elif not (v >= low and v < high[axis]):
                    inside = False
                    break
                cell = math.floor(v + 0.5 - order / 2.0)
                first[axis] = np.int64(cell)
                u = v - cell
                for k in range(order + 1):
                    weight[axis, k] = basis(order, u)
                    u -= 1.0
            if not inside:
                continue
            d0, d1, d2 = 0.0, 0.0, 0.0
            for k in range(1 if flat else order + 1):
                for j in range(order + 1):
                    w = weight[1, j] * weight[2, k]
                    r = at + (first[2] + k) * strides[0] + (first[1] + j) * strides[1] + first[0] * strides[2]
                    for m in range(order + 1):
                        v = weight[0, m] * w
                        q = r + m * strides[2]
                        d0 += v * np.float64(memory[uint64(q)])
                        d1 += v * np.float64(memory[uint64(q + component)])
                        d2 += v * np.float64(memory[uint64(q + component + component)])
            px[i], py[i], pz[i] = px[i] + d0, py[i] + d1, pz[i] + d2
