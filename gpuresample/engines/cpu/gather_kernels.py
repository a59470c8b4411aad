"""The CPU engine's gathers, compiled by Numba: one weighted neighbourhood, one copy or one vote per voxel.

For grids that are rotated, sheared or deformed against the source. The house rules are those of
`table_kernels`. Positions are x, y, z; every other triple is z, y, x.

A kernel does a block of whole rows. A row goes through in sweeps: where its voxels lie (`find_row`), the cell and the
fraction of each (`cells_row` and kin), then the sums, volume by volume, for channels and batches share positions. All
sweeps but the last fill vectors. Positions stay float64 down to the cell; only the fraction takes the sums' type.

Every position is brought to the line before it becomes an index: clamped to the box, or folded by the border's period
in float64. So no cast overflows, however far a voxel lies from the image.
"""

from __future__ import annotations

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.jit import instructions, njit, prefetch
from gpuresample.engines.cpu.path_kernels import EXACT
from gpuresample.engines.cpu.table_kernels import OPTIONS, store_row
from gpuresample.planning.works import RULES

RULE_NEAREST, RULE_REFLECT, RULE_MIRROR = RULES["nearest"], RULES["reflect"], RULES["mirror"]
RULE_CROP, RULE_WRAP, RULE_GRID_WRAP = RULES["crop"], RULES["wrap"], RULES["grid-wrap"]
# Voxels that linear interpolation takes together.
TOGETHER = 4
# Rows that memory is asked for before they are read.
AHEAD = 2
# In float64, numbers near it are whole, below it too; and its bits.
SHIFT = np.float64(3 << 51)
SHIFTED = np.int64(SHIFT.view(np.int64))

# A whole number below it, divided by a period, is not rounded up to the next whole number.
FAR = np.float64(1 << 40)

cubic_sum = instructions("neighbours.cubic_sum")
linear_sums = instructions("neighbours.linear_sums")
linear_sums_apart = instructions("neighbours.linear_sums_apart")


@njit(inline="always")
def fold(k, n, rule):
    """The sample that stands for position `k` (`rule`: of `works.RULES`); -1 for none."""
    if 0 <= k < n:
        return k
    if rule == RULE_CROP:
        return -1
    if rule == RULE_NEAREST or n == 1:
        return 0 if k < 0 else n - 1
    if rule == RULE_GRID_WRAP:
        return k % n
    period = 2 * n if rule == RULE_REFLECT else 2 * (n - 1)
    k = k % period
    last = 2 * n - 1 if rule == RULE_REFLECT else 2 * (n - 1)
    return k if k < n else last - k


# --- where a row's voxels lie ----------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def along_row(t, a, slope):
    """A position on a scan line; ITK multiplies, then adds."""
    return a + t * slope


@njit(inner=True, **EXACT)
def crossing(a, slope, along, x0, n0, bound):
    """How many voxels of a row come before its position crosses `bound`: an estimate, then voxel by voxel."""
    n = along.size
    guess = (bound - a) / slope * n0 - x0
    i = 0
    if guess > 0.0:
        i = n if guess >= n else int(guess)
    rises = slope > 0.0
    while i > 0 and (along_row(along[i - 1], a, slope) >= bound) == rises:
        i -= 1
    while i < n and (along_row(along[i], a, slope) >= bound) != rises:
        i += 1
    return i


@njit(inner=True, **EXACT)
def run_inside(a, slope, along, x0, n0, low, high):
    """The voxels of a row whose position is in [low, high): one run, since positions only rise or only fall."""
    n = along.size
    if slope == 0.0 or slope != slope:
        return (0, n) if slope == 0.0 and low <= a < high else (0, 0)
    one, other = along_row(along[0], a, slope), along_row(along[n - 1], a, slope)
    if min(one, other) >= low and max(one, other) < high:
        return 0, n
    first, last = crossing(a, slope, along, x0, n0, low), crossing(a, slope, along, x0, n0, high)
    return (first, last) if slope > 0.0 else (last, first)


@njit(inner=True, **EXACT)
def bring(x, lo, hi, n, low, high, rule):
    """Positions of a row to the line of `n` samples, in place: those that lie beyond it by the border's rule.

    Boxes with bounds take the default value outside: there it is enough that a position is not far away.
    """
    if n == 1 and low == -np.inf:
        for i in range(uint64(lo), uint64(hi)):  # the line goes on as its one sample
            x[i] = 0.0
    elif low > -np.inf or rule == RULE_NEAREST or rule == RULE_CROP:
        # Taps reach a few samples further than a position: all of them are the last sample from there on.
        a, b = max(low, -16.0 - n), min(high, 16.0 + 2 * n)
        for i in range(uint64(lo), uint64(hi)):
            v = x[i] if x[i] > a else a
            x[i] = v if v < b else b
    elif rule == RULE_MIRROR:
        last, period = np.float64(n - 1), np.float64(2 * (n - 1))
        for i in range(uint64(lo), uint64(hi)):
            v = x[i] - period * np.floor(x[i] / period)
            v = v if v <= last else period - v
            v = v if v > 0.0 else 0.0
            x[i] = v if v < last else last
    elif rule >= RULE_WRAP:
        last = np.float64(n - 1)
        period = last if rule == RULE_WRAP else last + 1.0
        for i in range(uint64(lo), uint64(hi)):
            if x[i] < 0.0 or x[i] > last:
                v = x[i] - period * np.floor(x[i] / period)
                v = v if v > 0.0 else 0.0
                x[i] = v if v < period else period
    else:
        top, period = np.float64(n), np.float64(2 * n)
        for i in range(uint64(lo), uint64(hi)):
            v = x[i] + 0.5
            w = v - period * np.floor(v / period)
            w = w if w <= top else period - w
            w = w if w > 0.0 else 0.0
            w = w if w < top else top
            x[i] = x[i] if (v >= 0.0) & (v <= top) else w - 0.5


@njit(inner=True, **EXACT)
def find_line(coordinates, row, along, x0, n0, box):
    """The run of voxels [lo, hi) of a scan line that are inside."""
    lo, hi = 0, along.size
    for axis in range(3):
        first, last = run_inside(
            coordinates[row, 0, axis], coordinates[row, 1, axis], along, x0, n0, box[2 - axis, 0], box[2 - axis, 1]
        )
        lo, hi = max(lo, first), min(hi, last)
    return lo, max(lo, hi)


@njit(inner=True, **EXACT)
def find_plain(coordinates, row, along, x0, n0, n_src, rule, lo, hi):
    """The run of a scan line's voxels [lo, hi) that no border folds: there a position is what it is."""
    if rule == RULE_NEAREST or rule == RULE_CROP:
        return lo, hi
    begin, end = lo, hi
    for axis in range(3):
        n = n_src[2 - axis]
        if n > 1:  # of one sample all positions are
            low = -0.5 if rule == RULE_REFLECT else 0.0
            first, last = run_inside(
                coordinates[row, 0, axis], coordinates[row, 1, axis], along, x0, n0, low, n - 1.0 - low
            )
            begin, end = max(begin, first), min(end, last)
    return (begin, end) if begin < end else (lo, lo)


@njit(inner=True, **EXACT)
def place_line(coordinates, row, along, lo, hi, position):
    """Positions of the voxels [lo, hi) of a scan line."""
    for axis in range(3):
        a, slope, x = coordinates[row, 0, axis], coordinates[row, 1, axis], position[axis]
        for i in range(uint64(lo), uint64(hi)):
            x[i] = along_row(along[i], a, slope)


@njit(inner=True, **EXACT)
def mask_row(px, py, pz, box, mask):
    """Which voxels of a row are inside, by their positions, and how many."""
    az, bz, ay, by, ax, bx = box[0, 0], box[0, 1], box[1, 0], box[1, 1], box[2, 0], box[2, 1]
    n_in = 0
    for i in range(uint64(px.size)):
        x, y, z = px[i], py[i], pz[i]
        inside = (x >= ax) & (x < bx) & (y >= ay) & (y < by) & (z >= az) & (z < bz)
        inside = inside & (((x - x) + (y - y)) + (z - z) == 0.0)
        mask[i] = inside
        n_in += inside
    return n_in


@njit(inner=True, **EXACT)
def find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask):
    """Positions of a row's voxels: `position[axis]`, x, y, z, on the run of voxels [lo, hi); and how many are inside.

    Where rows are scan lines all of a run are inside; else `mask` says which.
    """
    n_x = position.shape[1]
    lo, hi = 0, n_x
    if lines:
        lo, hi = find_line(coordinates, row, along, x0, n0, box)
        place_line(coordinates, row, along, lo, hi, position)
        return lo, hi, hi - lo
    n_in = mask_row(coordinates[0, row], coordinates[1, row], coordinates[2, row], box, mask)
    for axis in range(3):
        x, p = position[axis], coordinates[axis, row]
        for i in range(uint64(n_x)):
            x[i] = p[i] if mask[i] else 0.0
    return lo, hi, n_in


@njit(inner=True, **EXACT)
def steer(place, mask, lo, hi):
    """Have voxels outside read what some voxel inside reads: where they point, there may be no memory."""
    safe = np.int64(0)
    for i in range(uint64(lo), uint64(hi)):
        if mask[i]:
            safe = place[i]
            break
    for i in range(uint64(lo), uint64(hi)):
        place[i] = place[i] if mask[i] else safe


@njit(inner=True, **OPTIONS)
def finish_row(dst, at, step, values, lo, hi, n_x, n_in, mask, default, bounds, rounding):
    """A row's sums to voxels, and the default value outside."""
    if hi > lo:
        store_row(dst, at + lo * step, step, values, lo, hi - lo, bounds, rounding)
    default_row(dst, at, step, lo, hi, n_x, n_in, mask, default)


@njit(inner=True, **OPTIONS)
def default_row(dst, at, step, lo, hi, n_x, n_in, mask, default):
    """The default value for a row's voxels outside."""
    at, step = uint64(at), uint64(step)
    for i in range(uint64(lo)):
        dst[at + i * step] = default
    if n_in < hi - lo:
        for i in range(uint64(lo), uint64(hi)):
            if not mask[i]:
                dst[at + i * step] = default
    for i in range(uint64(hi), uint64(n_x)):
        dst[at + i * step] = default


@njit(inner=True, **OPTIONS)
def positions(n_x, x0, n0):
    """Where the voxels of a row lie between its ends, from 0 to 1: the same for all rows, so divided once."""
    along = np.empty(n_x)
    for i in range(n_x):
        along[i] = (x0 + i) / n0
    return along


# --- linear ----------------------------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def as_index(x):
    """A whole number from -2^51 to 2^51 as an integer: vectors have no instruction for it; these are its last bits."""
    return np.float64(x + SHIFT).view(np.int64) - SHIFTED


@njit(inner=True, **EXACT)
def cell_of(x, offset, last, top, narrow):
    """The lower of two neighbours on a line, and how far beyond it a position lies, see `cells_row`."""
    x = x + offset
    x = x if x > 0.0 else 0.0
    x = x if x < last else last
    k = np.floor(np.float64(np.float32(x)) if narrow else x)
    k = k if k < top else top
    return k, x - k


@njit(inner=True, **EXACT)
def cells_row(line, along, ends, px, py, pz, lo, hi, n_src, strides, so, offset, narrow, place, fx, fy, fz):
    """The lower of two neighbours along every axis, as an offset, and how far beyond it a voxel lies, from 0 to 1.

    Beyond the centre of the last voxel it is that voxel alone. `narrow`: ITK's splines of order 1 and 2 find their cell
    from the position in float32, and weigh with the position itself. `offset` samples come before position 0. `line`:
    positions are those between the `ends` of a scan line, else `px`, `py`, `pz`.
    """
    acc = fx.dtype.type
    pad, start = np.float64(offset), np.float64(so)
    ax, ay, az, bx, by, bz = ends[0, 0], ends[0, 1], ends[0, 2], ends[1, 0], ends[1, 1], ends[1, 2]
    lz, ly, lx = np.float64(n_src[0] - 1), np.float64(n_src[1] - 1), np.float64(n_src[2] - 1)
    tz, ty, tx = max(lz - 1.0, 0.0), max(ly - 1.0, 0.0), max(lx - 1.0, 0.0)
    sz, sy, sx = np.float64(strides[0]), np.float64(strides[1]), np.float64(strides[2])
    for i in range(uint64(lo), uint64(hi)):
        if line:
            t = along[i]
            x, y, z = along_row(t, ax, bx), along_row(t, ay, by), along_row(t, az, bz)
        else:
            x, y, z = px[i], py[i], pz[i]
        kx, ux = cell_of(x, pad, lx, tx, narrow)
        ky, uy = cell_of(y, pad, ly, ty, narrow)
        kz, uz = cell_of(z, pad, lz, tz, narrow)
        fx[i], fy[i], fz[i] = acc(ux), acc(uy), acc(uz)
        place[i] = as_index(((kz * sz + ky * sy) + kx * sx) + start)


@njit(inner=True, **EXACT)
def ahead(coordinates, row, lines, at, strides):
    """From where a row reads to where the row after the next does, as an offset, at voxel `at`; a guess will do."""
    rows = coordinates.shape[0] if lines else coordinates.shape[1]
    far = min(row + AHEAD, rows - 1)
    jump = np.int64(0)
    for axis in range(3):
        if lines:
            step = coordinates[far, 0, axis] - coordinates[row, 0, axis]
        else:
            step = coordinates[axis, far, at] - coordinates[axis, row, at]
        if abs(step) < 64.0:  # farther, and no number, is no neighbour
            jump += np.int64(np.rint(step)) * strides[2 - axis]
    return jump


@njit(inner=True, **EXACT)
def fill_up(place, hi, fx, fy, fz):
    """Voxels behind the last of a row, so that as many as go through together are there; they read what it reads."""
    for i in range(hi, hi + TOGETHER - 1):
        place[i] = place[hi - 1]
        fx[i], fy[i], fz[i] = 0, 0, 0


@njit(inner=True, **EXACT)
def linear_row(src, place, lo, hi, move, sz, sy, sx, fx, fy, fz, jump, out):
    """Two neighbours per axis of every voxel of a row, see `fill_up`.

    A turned row reads lines of memory that no CPU foresees: those of a row further on, `jump` away, are asked for.
    """
    sz, sy, sx, move, jump = uint64(sz), uint64(sy), uint64(sx), uint64(move), uint64(jump)
    for i in range(uint64(lo), uint64(hi), uint64(TOGETHER)):
        r = uint64(place[i]) + move + jump
        prefetch(src, r)
        prefetch(src, r + sz)
        prefetch(src, r + sy)
        prefetch(src, r + sy + sz)
        if sx == uint64(1):
            linear_sums(src, place, i, move, sz, sy, sx, fz, fy, fx, out)
        else:
            linear_sums_apart(src, place, i, move, sz, sy, sx, fz, fy, fx, out)


@njit(inner=True, **OPTIONS)
def mend_row(src, place, lo, hi, move, sz, sy, sx, fx, fy, fz, out):
    """Sums that are no numbers once more, without the neighbours that weigh nothing: their NaN stays where it is."""
    acc = out.dtype.type
    for i in range(uint64(lo), uint64(hi)):
        if out[i] - out[i] == 0:
            continue
        total = acc(0)
        for corner in range(8):
            wx = fx[i] if corner & 1 else acc(1) - fx[i]
            wy = fy[i] if corner & 2 else acc(1) - fy[i]
            wz = fz[i] if corner & 4 else acc(1) - fz[i]
            if wx != 0 and wy != 0 and wz != 0:
                r = place[i] + move
                r = r + (sx if corner & 1 else 0) + (sy if corner & 2 else 0) + (sz if corner & 4 else 0)
                total = total + wz * (wy * (wx * acc(src[uint64(r)])))
        out[i] = total


@njit(inner=True, **OPTIONS)
def strange_in(values, lo, hi):
    """Whether a row holds what is no finite number."""
    count = 0
    for i in range(uint64(lo), uint64(hi)):
        count += values[i] - values[i] != 0
    return count > 0


@njit(**OPTIONS)
def linear_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    offset, narrow, default, bounds, rounding, whole,
):  # fmt: skip
    """Interpolate the rows of a block linearly, in volumes that begin at `so + moves` and `starts`.

    `whole`: voxels are integers, which no NaN can be among.
    """
    acc = bounds.dtype.type
    n = n_x + TOGETHER - 1
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place, values = np.empty(n, np.int64), np.empty(n, acc)
    fx, fy, fz = np.empty(n, acc), np.empty(n, acc), np.empty(n, acc)
    along = positions(n_x, x0, n0)
    # An axis of one voxel has no second neighbour: it is asked for with weight 0, and is the first.
    sz = strides[0] if n_src[0] > 1 else 0
    sy = strides[1] if n_src[1] > 1 else 0
    sx = strides[2] if n_src[2] > 1 else 0
    # Beyond the image, but for borders that fold, the last voxel goes on: a cell is found from any position.
    plain = rule == RULE_NEAREST or rule == RULE_CROP
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        px, py, pz = position[0], position[1], position[2]
        if lines:
            lo, hi = find_line(coordinates, row, along, x0, n0, box)
            begin, end = find_plain(coordinates, row, along, x0, n0, n_src, rule, lo, hi)
            n_in = hi - lo
        elif plain:
            px, py, pz = coordinates[0, row], coordinates[1, row], coordinates[2, row]
            lo, hi, n_in = 0, n_x, mask_row(px, py, pz, box, mask)
            begin, end = lo, lo
        else:
            lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
            begin, end = lo, lo
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in > 0:
            if begin < end:
                ends = coordinates[row]
                cells_row(
                    True, along, ends, px, py, pz, begin, end, n_src, strides, so, offset, narrow, place, fx, fy, fz
                )  # fmt: skip
            # Before and behind the part of a scan line that needs no folding.
            for part in range(2):
                a, b = (lo, begin) if part == 0 else (end, hi)
                if a == b:
                    continue
                if lines:
                    place_line(coordinates, row, along, a, b, position)
                if not plain:
                    for axis in range(3):
                        bring(position[axis], a, b, n_src[2 - axis], -np.inf, np.inf, rule)
                ends = coordinates[0]
                cells_row(False, along, ends, px, py, pz, a, b, n_src, strides, so, offset, narrow, place, fx, fy, fz)
            if n_in < hi - lo:
                steer(place, mask, lo, hi)
            fill_up(place, hi, fx, fy, fz)
        else:
            lo, hi, n_in = 0, 0, 0
        jump = ahead(coordinates, row, lines, (lo + hi) // 2, strides) if hi > lo else 0
        for v in range(moves.size):
            if n_in > 0:
                linear_row(src, place, lo, hi, moves[v], sz, sy, sx, fx, fy, fz, jump, values)
                if not whole and strange_in(values, lo, hi):
                    mend_row(src, place, lo, hi, moves[v], sz, sy, sx, fx, fy, fz, values)
            finish_row(dst, starts[v] + at, steps[2], values, lo, hi, n_x, n_in, mask, default, bounds, rounding)


# --- cubic -----------------------------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def cubic_cells_row(position, lo, hi, strides, so, place, fx, fy, fz):
    """The cell of every voxel of a row, as an offset, and how far in it a voxel lies."""
    acc = fx.dtype.type
    px, py, pz = position[0], position[1], position[2]
    sz, sy, sx = strides[0], strides[1], strides[2]
    for i in range(uint64(lo), uint64(hi)):
        x, y, z = px[i], py[i], pz[i]
        bx, by, bz = np.floor(x), np.floor(y), np.floor(z)
        fx[i], fy[i], fz[i] = acc(x - bx), acc(y - by), acc(z - bz)
        place[i] = (
            so + np.int64(np.int32(bz)) * sz + np.int64(np.int32(by)) * sy + np.int64(np.int32(bx)) * sx
        )  # fmt: skip


@njit(**OPTIONS)
def cubic_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    powers, offset, default, bounds, rounding,
):  # fmt: skip
    """Interpolate the rows of a block by four taps per axis from coefficients, contiguous along x and padded.

    `powers[d, k]` is tap k's coefficient of the fraction's d-th power. `offset`: from the cell to the first tap.
    """
    acc = bounds.dtype.type
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place, values = np.empty(n_x, np.int64), np.empty(n_x, acc)
    fx, fy, fz = np.empty(n_x, acc), np.empty(n_x, acc), np.empty(n_x, acc)
    along = positions(n_x, x0, n0)
    sz, sy = uint64(strides[0]), uint64(strides[1])
    tap = so + offset * (strides[0] + strides[1] + strides[2])
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in > 0:
            for axis in range(3):
                n, x = n_src[2 - axis], position[axis]
                if box[2 - axis, 0] == -np.inf:
                    if rule == RULE_NEAREST:  # coefficients go on until they settle
                        bring(x, lo, hi, n, np.float64(-offset), np.float64(n - 4 - offset), rule)
                    else:
                        bring(x, lo, hi, n, -np.inf, np.inf, rule)
            cubic_cells_row(position, lo, hi, strides, tap, place, fx, fy, fz)
            if n_in < hi - lo:
                steer(place, mask, lo, hi)
        else:
            lo, hi, n_in = 0, 0, 0
        for v in range(moves.size):
            move = uint64(moves[v])
            for i in range(uint64(lo), uint64(hi)):
                values[i] = cubic_sum(src, uint64(place[i]) + move, sz, sy, fz[i], fy[i], fx[i], powers)
            finish_row(dst, starts[v] + at, steps[2], values, lo, hi, n_x, n_in, mask, default, bounds, rounding)


# --- any other sum ---------------------------------------------------------------------------------------------------


@njit(inner=True, **OPTIONS)
def weigh_row(
    x, lo, hi, n, stride, coefficients, shift, offset, narrow, normalise, first, place, weight, part, piece, border,
):  # fmt: skip
    """First tap and weights along one axis of a row's voxels at `x`; each loop here fills vectors.

    `place` grows by the first tap's offset; `border` becomes true where taps lie past the border. `normalise` divides
    by the sum of weights. `part` and `piece` are scratch.
    """
    acc = weight.dtype.type
    pieces, width, terms = coefficients.shape
    size = uint64(x.size)
    small = np.float32(shift)
    last = n - width
    for i in range(uint64(lo), uint64(hi)):
        t = x[i]
        cell = np.float64(np.floor(np.float32(t) + small)) if narrow else np.floor(t + shift)
        k0 = np.int64(cell) + offset
        first[i] = k0
        place[i] += k0 * stride
        u = (t + shift - cell) * pieces
        whole = 0.0 if pieces == 1 else min(max(np.floor(u), 0.0), pieces - 1.0)
        part[i], piece[i] = acc(u - whole), np.int32(whole)
        border[i] = border[i] | (k0 < 0) | (k0 > last)
    flat = coefficients.ravel()
    for k in range(width):
        w, c, stride = uint64(k) * size, uint64(k * terms), uint64(width * terms)
        for i in range(uint64(lo), uint64(hi)):
            at = c + uint64(piece[i]) * stride
            value = flat[at + uint64(terms - 1)]
            for d in range(terms - 2, -1, -1):
                value = value * part[i] + flat[at + uint64(d)]
            weight[w + i] = value
    if normalise:
        for i in range(uint64(lo), uint64(hi)):
            total = acc(0)
            for k in range(uint64(width)):
                total += weight[k * size + i]
            for k in range(uint64(width)):
                weight[k * size + i] /= total


@njit(inner=True, **EXACT)
def bring_near(x, lo, hi, n, low, high, rule):
    """`bring` for derivatives: what lies beyond the line moves by whole periods, and its taps are folded."""
    if low > -np.inf or rule == RULE_NEAREST or rule == RULE_CROP or n == 1:
        bring(x, lo, hi, n, low, high, rule)
        return
    period = np.float64(2 * n if rule == RULE_REFLECT else 2 * (n - 1))
    if rule >= RULE_WRAP:
        period = np.float64(n - 1 if rule == RULE_WRAP else n)
    for i in range(uint64(lo), uint64(hi)):
        x[i] = x[i] - period * np.floor(x[i] / period)


@njit(inner=True, **OPTIONS)
def weigh_axes(
    position, lo, hi, n_src, strides, box, rule, coefficients, shift, offset, narrow, normalise, derived, first, place,
    wz, wy, wx, part, piece, border,
):  # fmt: skip
    """First taps and weights along all axes of a row's voxels, see `weigh_row`; positions are brought to the line."""
    for axis in range(3):
        weight = wz if axis == 0 else (wy if axis == 1 else wx)
        weights = coefficients[0] if axis == 0 else (coefficients[1] if axis == 1 else coefficients[2])
        x = position[2 - axis]
        if derived:
            bring_near(x, lo, hi, n_src[axis], box[axis, 0], box[axis, 1], rule)
        else:
            bring(x, lo, hi, n_src[axis], box[axis, 0], box[axis, 1], rule)
        weigh_row(
            x, lo, hi, n_src[axis], strides[axis], weights, shift, offset, narrow, normalise, first[axis], place,
            weight, part, piece, border,
        )  # fmt: skip


@njit(inner=True, **OPTIONS)
def sum_plain(src, at, strides, wz, wy, wx, i, n):
    """A neighbourhood all of whose taps are samples."""
    acc = wx.dtype.type
    width = uint64(wx.size) // n
    sz, sy, sx = uint64(strides[0]), uint64(strides[1]), uint64(strides[2])
    total = acc(0)
    for a in range(width):
        u = acc(0)
        for b in range(width):
            r = uint64(at) + a * sz + b * sy
            t = acc(0)
            for c in range(width):
                t = t + wx[i + c * n] * acc(src[r + c * sx])
            u = u + wy[i + b * n] * t
        total = total + wz[i + a * n] * u
    return total


@njit(inner=True, **OPTIONS)
def sum_border(src, so, strides, first, n_src, rule, wz, wy, wx, i, n):
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
            r = so + z * strides[0] + y * strides[1]
            t, s = acc(0), acc(0)
            for c in range(width):
                x = fold(first[2, i] + c, n_src[2], rule)
                w_x = wx[i + uint64(c) * n]
                if x < 0 or w_x == 0:
                    continue
                t = t + w_x * acc(src[uint64(r + x * strides[2])])
                s = s + w_x
            total = total + w_z * w_y * t
            whole = whole + w_z * w_y * s
    return total, whole


@njit(**OPTIONS)
def any_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    coefficients, shift, offset, narrow, normalise, derived, default, bounds, rounding,
):  # fmt: skip
    """Interpolate the rows of a block by any number of taps per axis.

    `coefficients` are those of z, y, x. `derived`: weights are derivatives, which a fold would turn round.
    """
    acc = bounds.dtype.type
    width = coefficients[0].shape[1]
    n = uint64(n_x)
    position, mask = np.empty((3, n_x)), np.empty(n_x, np.bool_)
    place, values = np.empty(n_x, np.int64), np.empty(n_x, acc)
    wz, wy, wx = np.empty(width * n_x, acc), np.empty(width * n_x, acc), np.empty(width * n_x, acc)
    first, border = np.empty((3, n_x), np.int64), np.empty(n_x, np.bool_)
    part, piece = np.empty(n_x, acc), np.empty(n_x, np.int32)
    along = positions(n_x, x0, n0)
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        lo, hi, n_in = find_row(coordinates, row, lines, along, x0, n0, n_src, box, position, mask)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in > 0:
            place[:], border[:] = so, derived
            weigh_axes(
                position, lo, hi, n_src, strides, box, rule, coefficients, shift, offset, narrow, normalise, derived,
                first, place, wz, wy, wx, part, piece, border,
            )  # fmt: skip
        else:
            lo, hi, n_in = 0, 0, 0
        for v in range(moves.size):
            for i in range(uint64(lo), uint64(hi)):
                if n_in < hi - lo and not mask[i]:
                    values[i] = 0
                elif border[i]:
                    value, whole = sum_border(src, so + moves[v], strides, first, n_src, rule, wz, wy, wx, i, n)
                    values[i] = value / whole if normalise else value
                else:
                    values[i] = sum_plain(src, place[i] + moves[v], strides, wz, wy, wx, i, n)
            finish_row(dst, starts[v] + at, steps[2], values, lo, hi, n_x, n_in, mask, default, bounds, rounding)


# --- copies ----------------------------------------------------------------------------------------------------------


@njit(inner=True, **EXACT)
def nearest_of(x, last):
    """The nearest of the samples 0 to `last`; halves go up."""
    x = x + 0.5
    x = x if x > 0.0 else 0.0
    return np.floor(x if x < last else last)


@njit(inner=True, **EXACT)
def nearest_row(line, along, ends, px, py, pz, lo, hi, n_src, strides, so, place):
    """The nearest voxel of every voxel of a row, as an offset, see `cells_row`; the last one goes on."""
    start = np.float64(so)
    ax, ay, az, bx, by, bz = ends[0, 0], ends[0, 1], ends[0, 2], ends[1, 0], ends[1, 1], ends[1, 2]
    lz, ly, lx = np.float64(n_src[0] - 1), np.float64(n_src[1] - 1), np.float64(n_src[2] - 1)
    sz, sy, sx = np.float64(strides[0]), np.float64(strides[1]), np.float64(strides[2])
    for i in range(uint64(lo), uint64(hi)):
        if line:
            t = along[i]
            x, y, z = along_row(t, ax, bx), along_row(t, ay, by), along_row(t, az, bz)
        else:
            x, y, z = px[i], py[i], pz[i]
        kz, ky, kx = nearest_of(z, lz), nearest_of(y, ly), nearest_of(x, lx)
        place[i] = as_index(((kz * sz + ky * sy) + kx * sx) + start)


@njit(inner=True, **EXACT)
def fold_nearest(p, lo, hi, n, rule, x):
    """The sample that stands for the nearest one, where the border folds; halves go up, and are folded after that."""
    if n == 1:
        for i in range(uint64(lo), uint64(hi)):
            x[i] = 0.0
        return
    if rule >= RULE_WRAP:  # a line that begins again does so before what is nearest is looked for
        for i in range(uint64(lo), uint64(hi)):
            x[i] = p[i]
        bring(x, lo, hi, n, -np.inf, np.inf, rule)
        for i in range(uint64(lo), uint64(hi)):
            k = np.floor(x[i] + 0.5)
            x[i] = k if k < n else 0.0
        return
    whole, period = np.float64(n), np.float64(2 * n if rule == RULE_REFLECT else 2 * (n - 1))
    last = period - 1.0 if rule == RULE_REFLECT else period
    far = 0
    for i in range(uint64(lo), uint64(hi)):
        k = np.floor(p[i] + 0.5)
        far += not abs(k) < FAR
        k = k - period * np.floor(k / period)
        x[i] = k if k < whole else last - k
    if far > 0:
        for i in range(uint64(lo), uint64(hi)):
            k = np.fmod(np.floor(p[i] + 0.5), period)
            k = k + period if k < 0.0 else k
            x[i] = k if k < whole else last - k


@njit(**OPTIONS)
def copy_rows(
    src, moves, strides, coordinates, lines, x0, n0, dst, starts, steps, z0, y0, n_y, n_x, n_src, so, box, rule,
    default,
):  # fmt: skip
    """Copy the nearest voxel of every voxel of a block's rows, bit by bit."""
    position, mask, place = np.empty((3, n_x)), np.empty(n_x, np.bool_), np.empty(n_x, np.int64)
    along = positions(n_x, x0, n0)
    step = uint64(steps[2])
    plain = rule == RULE_NEAREST or rule == RULE_CROP
    for row in range(coordinates.shape[0] if lines else coordinates.shape[1]):
        px, py, pz = position[0], position[1], position[2]
        if lines:
            lo, hi = find_line(coordinates, row, along, x0, n0, box)
            begin, end = find_plain(coordinates, row, along, x0, n0, n_src, rule, lo, hi)
            n_in = hi - lo
        else:
            px, py, pz = coordinates[0, row], coordinates[1, row], coordinates[2, row]
            lo, hi, n_in = 0, n_x, mask_row(px, py, pz, box, mask)
            begin, end = (lo, hi) if plain else (lo, lo)
        at = (z0 + row // n_y) * steps[0] + (y0 + row % n_y) * steps[1]
        if n_in > 0:
            if begin < end and lines:
                nearest_row(True, along, coordinates[row], px, py, pz, begin, end, n_src, strides, so, place)
            elif begin < end:
                nearest_row(False, along, coordinates[0], px, py, pz, begin, end, n_src, strides, so, place)
            # Before and behind the part that needs no folding.
            for part in range(2):
                a, b = (lo, begin) if part == 0 else (end, hi)
                if a == b:
                    continue
                if lines:
                    place_line(coordinates, row, along, a, b, position)
                fold_nearest(px, a, b, n_src[2], rule, position[0])
                fold_nearest(py, a, b, n_src[1], rule, position[1])
                fold_nearest(pz, a, b, n_src[0], rule, position[2])
                x, y, z = position[0], position[1], position[2]
                nearest_row(False, along, coordinates[0], x, y, z, a, b, n_src, strides, so, place)
            if n_in < hi - lo:
                steer(place, mask, lo, hi)
        else:
            lo, hi, n_in = 0, 0, 0
        for v in range(moves.size):
            move, out = uint64(moves[v]), uint64(starts[v] + at)
            if step == uint64(1):
                for i in range(uint64(lo), uint64(hi)):
                    dst[out + i] = src[uint64(place[i]) + move]
            else:
                for i in range(uint64(lo), uint64(hi)):
                    dst[out + i * step] = src[uint64(place[i]) + move]
            default_row(dst, starts[v] + at, steps[2], lo, hi, n_x, n_in, mask, default)
