"""The CPU engine's label votes, compiled by Numba: the label that weighs most among a voxel's neighbours.

Rows and positions are those of `gather_kernels`, whose sweeps find them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.gather_kernels import (
    RULE_MIRROR,
    RULE_REFLECT,
    bring,
    cells_row,
    default_row,
    find_row,
    fold,
    positions,
    steer,
)
from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.path_kernels import EXACT
from gpuresample.engines.cpu.table_kernels import half_bits


@njit(inner=True, **EXACT)
def gaussian_taps(x, n, stride, sigma, cut, rule, weight, place):
    """ITK's label Gaussian along one axis: differences of erf over the voxels within `cut`."""
    first, last = int(np.floor(x + 0.5 - cut)), int(np.ceil(x + 0.5 + cut)) - 1
    count = 0
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    before = math.erf((first - 0.5 - x) * scale)
    for k in range(first, last + 1):
        after = math.erf((k + 0.5 - x) * scale)
        at = fold(k, n, rule)
        if at >= 0:
            weight[count] = after - before
            place[count] = at * stride
            count += 1
        before = after
    return count


@njit(inner=True, **EXACT)
def lerp_share(values, label, nx, ny, nz, dx, dy, dz):
    """Share of `label` among up to 2 x 2 x 2 neighbours, interpolated along x, then y, then z as ITK does."""
    plane0, plane1 = 0.0, 0.0
    for c in range(nz):
        line0, line1 = 0.0, 0.0
        for b in range(ny):
            v = 1.0 if values[c * 4 + b * 2] == label else 0.0
            if nx == 2:
                u = 1.0 if values[c * 4 + b * 2 + 1] == label else 0.0
                v = v + (u - v) * dx
            if b == 0:
                line0 = v
            else:
                line1 = v
        v = line0 + (line1 - line0) * dy if ny == 2 else line0
        if c == 0:
            plane0 = v
        else:
            plane1 = v
    return plane0 + (plane1 - plane0) * dz if nz == 2 else plane0


@njit(inner=True, **EXACT)
def vote_linear(values, winner, nx, ny, nz, dx, dy, dz):
    """The label with the largest linear share; of several such the smallest."""
    best = 0.0
    for c in range(nz):
        for b in range(ny):
            for a in range(nx):
                k = c * 4 + b * 2 + a
                label = values[k]
                known = False
                for j in range(k):  # what is not a neighbour repeats one, see `vote_rows`
                    known = known or values[j] == label
                if known:
                    continue
                share = lerp_share(values, label, nx, ny, nz, dx, dy, dz)
                if share > best or (share == best and label < winner):
                    best, winner = share, label
    return winner


@njit(**EXACT)
def vote_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    default,
):  # fmt: skip
    """The label with the largest linear share of every voxel's neighbourhood.

    Ties go to the smallest label (`itk::LabelImageGenericInterpolateImageFunction`).
    """
    position, mask, place = np.empty((3, n_x)), np.empty(n_x, np.bool_), np.empty(n_x, np.int64)
    fx, fy, fz = np.empty(n_x), np.empty(n_x), np.empty(n_x)
    along = positions(n_x, x0, n0)
    values = np.empty(8, src.dtype)
    jz = uint64(strides[0] if n_src[0] > 1 else 0)
    jy = uint64(strides[1] if n_src[1] > 1 else 0)
    jx = uint64(strides[2] if n_src[2] > 1 else 0)
    step = uint64(steps[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in > 0:
            if rule == RULE_REFLECT or rule == RULE_MIRROR:
                for axis in range(3):
                    bring(position[axis], lo, hi, n_src[2 - axis], -np.inf, np.inf, rule)
            ends, px, py, pz = coordinates[0], position[0], position[1], position[2]
            cells_row(False, along, ends, px, py, pz, lo, hi, n_src, strides, so, 0, False, place, fx, fy, fz)
            if n_in < hi - lo:
                steer(place, mask, lo, hi)
        else:
            lo, hi, n_in = 0, 0, 0
        for v in range(moves.size):
            out = uint64(starts[v] + at)
            for i in range(uint64(lo), uint64(hi)):
                r0 = uint64(place[i]) + uint64(moves[v])
                dx, dy, dz = fx[i], fy[i], fz[i]
                # A neighbour that weighs nothing is none: it is replaced by the other one of its axis.
                if dx == 1.0:
                    r0, dx = r0 + jx, 0.0
                if dy == 1.0:
                    r0, dy = r0 + jy, 0.0
                if dz == 1.0:
                    r0, dz = r0 + jz, 0.0
                sx = jx if dx > 0.0 else uint64(0)
                r1 = r0 + (jy if dy > 0.0 else uint64(0))
                z_step = jz if dz > 0.0 else uint64(0)
                r2, r3 = r0 + z_step, r1 + z_step
                a, b, c, d = src[r0], src[r0 + sx], src[r1], src[r1 + sx]
                e, f, g, h = src[r2], src[r2 + sx], src[r3], src[r3 + sx]
                if (a == b) & (a == c) & (a == d) & (a == e) & (a == f) & (a == g) & (a == h):
                    dst[out + i * step] = a
                    continue
                values[0], values[1], values[2], values[3] = a, b, c, d
                values[4], values[5], values[6], values[7] = e, f, g, h
                nx, ny, nz = 1 + (dx > 0.0), 1 + (dy > 0.0), 1 + (dz > 0.0)
                dst[out + i * step] = vote_linear(values, a, nx, ny, nz, dx, dy, dz)
            default_row(dst, starts[v] + at, steps[2], lo, hi, n_x, n_in, mask, default)


# The bits of 500 as a 16-bit float; those of positive numbers are in their order.
HALF_SCORE = np.uint32(np.float16(500).view(np.uint16))


@njit(inner=True, **EXACT)
def upper_is_nearest(x, rim, n):
    """Whether the upper one of two neighbours is nearer to a position, or halfway the even one."""
    rim = rim if n > 1 else 0
    return np.rint(x - rim) > np.floor(x - rim)


@njit(inner=True, **EXACT)
def vote_scores(values, weights, near, pair, upper, tie):
    """The label with the largest score of 8 neighbours, see `works.Scores`; `near` is the nearest one's place."""
    best, own = np.uint32(0), np.uint32(0)
    smallest, largest = values[0], values[0]
    known = False
    for k in range(8):
        label = values[k]
        seen, share = False, np.float32(0.0)
        for j in range(8):
            if values[j] == label:
                seen = seen or j < k
                share = share + weights[j]
        if seen:
            continue
        score = np.uint32(half_bits(np.float32(1000.0) * share))
        if pair and label != upper:
            score = HALF_SCORE
        if label == values[near]:
            own = score
        if not known or score > best:
            best, smallest, largest, known = score, label, label, True
        elif score == best:
            smallest = label if label < smallest else smallest
            largest = label if label > largest else largest
    if tie == 2:
        return largest
    if tie == 1 and own == best:
        return values[near]
    return smallest


@njit(**EXACT)
def score_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    pair, upper, tie, rim,
):  # fmt: skip
    """The label with the largest score of every voxel's 8 neighbours; positions are inside everywhere."""
    position, mask, place = np.empty((3, n_x)), np.empty(n_x, np.bool_), np.empty(n_x, np.int64)
    fx, fy, fz = np.empty(n_x, np.float32), np.empty(n_x, np.float32), np.empty(n_x, np.float32)
    along = positions(n_x, x0, n0)
    values, weights = np.empty(8, src.dtype), np.empty(8, np.float32)
    jz = uint64(strides[0] if n_src[0] > 1 else 0)
    jy = uint64(strides[1] if n_src[1] > 1 else 0)
    jx = uint64(strides[2] if n_src[2] > 1 else 0)
    one = np.float32(1.0)
    step = uint64(steps[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, _ = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        if rule == RULE_REFLECT or rule == RULE_MIRROR:
            for axis in range(3):
                bring(position[axis], lo, hi, n_src[2 - axis], -np.inf, np.inf, rule)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        ends, px, py, pz = coordinates[0], position[0], position[1], position[2]
        cells_row(False, along, ends, px, py, pz, lo, hi, n_src, strides, so, 0, False, place, fx, fy, fz)
        for v in range(moves.size):
            out = uint64(starts[v] + at)
            for i in range(uint64(lo), uint64(hi)):
                r0 = uint64(place[i]) + uint64(moves[v])
                r1 = r0 + jy
                r2, r3 = r0 + jz, r1 + jz
                a, b, c, d = src[r0], src[r0 + jx], src[r1], src[r1 + jx]
                e, f, g, h = src[r2], src[r2 + jx], src[r3], src[r3 + jx]
                if (a == b) & (a == c) & (a == d) & (a == e) & (a == f) & (a == g) & (a == h):
                    dst[out + i * step] = a
                    continue
                values[0], values[1], values[2], values[3] = a, b, c, d
                values[4], values[5], values[6], values[7] = e, f, g, h
                x, y, z = fx[i], fy[i], fz[i]
                weights[0] = (one - x) * (one - y) * (one - z)
                weights[1] = x * (one - y) * (one - z)
                weights[2] = (one - x) * y * (one - z)
                weights[3] = x * y * (one - z)
                weights[4] = (one - x) * (one - y) * z
                weights[5] = x * (one - y) * z
                weights[6] = (one - x) * y * z
                weights[7] = x * y * z
                near = 1 if x == one or (x > 0 and upper_is_nearest(px[i], rim, n_src[2])) else 0
                near += 2 if y == one or (y > 0 and upper_is_nearest(py[i], rim, n_src[1])) else 0
                near += 4 if z == one or (z > 0 and upper_is_nearest(pz[i], rim, n_src[0])) else 0
                dst[out + i * step] = vote_scores(values, weights, near, pair, upper, tie)


@njit(**EXACT)
def gaussian_vote_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule, sigma,
    cut, default,
):  # fmt: skip
    """The label with the largest Gaussian share of every voxel's neighbourhood.

    Ties go to the label whose sum reached the maximum first, x fastest
    (`itk::LabelImageGaussianInterpolateImageFunction`).
    """
    sz, sy, sx = strides[0], strides[1], strides[2]
    wz, wy, wx = np.empty(8), np.empty(8), np.empty(8)
    oz, oy, ox = np.empty(8, np.int64), np.empty(8, np.int64), np.empty(8, np.int64)
    values, sums = np.empty(512, src.dtype), np.empty(512)
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    along = positions(n_x, x0, n0)
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in == 0:
            lo, hi, n_in = 0, 0, 0
        for axis in range(3):
            bring(position[axis], lo, hi, n_src[2 - axis], box[2 - axis, 0], box[2 - axis, 1], rule)
        for i in range(lo, hi):
            if n_in < hi - lo and not mask[i]:
                continue
            nz = gaussian_taps(position[2, i], n_src[0], sz, sigma, cut, rule, wz, oz)
            ny = gaussian_taps(position[1, i], n_src[1], sy, sigma, cut, rule, wy, oy)
            nx = gaussian_taps(position[0, i], n_src[2], sx, sigma, cut, rule, wx, ox)
            for v in range(moves.size):
                here = so + moves[v]
                to = uint64(starts[v] + at + i * steps[2])
                if nz == 0 or ny == 0 or nx == 0:  # nobody votes, so far beyond the image
                    dst[to] = default
                    continue
                winner = src[uint64(here + oz[0] + oy[0] + ox[0])]
                same = True
                for c in range(nz):
                    for b in range(ny):
                        for a in range(nx):
                            same = same and src[uint64(here + oz[c] + oy[b] + ox[a])] == winner
                if same:
                    dst[to] = winner
                    continue
                labels, best = 0, 0.0
                for c in range(nz):
                    for b in range(ny):
                        for a in range(nx):
                            label = src[uint64(here + oz[c] + oy[b] + ox[a])]
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
                dst[to] = winner
        for v in range(moves.size):
            default_row(dst, starts[v] + at, steps[2], lo, hi, n_x, n_in, mask, default)
