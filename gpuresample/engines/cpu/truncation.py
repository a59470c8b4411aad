"""Integers truncated as SimpleITK truncates them, where it matters to the last bit.

SimpleITK rounds toward zero, so a sum of 99.9999999999 and one of 100 become different voxels. On most grids few voxels
come that close to an integer. On some they do by design (1 mm to 1.5 mm puts every eighth sample on a voxel), and in
air that was filled with -1024 all of them do. There the voxels in question are evaluated a second time, in SimpleITK's
own order of operations (`exact_kernels.py`); the others are far enough from an integer for any order to
agree.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import exact_kernels as kernels
from gpuresample.engines.cpu.memory import Flat
from gpuresample.engines.cpu.path import Walk
from gpuresample.engines.cpu.tables import scratch
from gpuresample.engines.threads import run_items
from gpuresample.planning import taps
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.maps import AxisMap
from gpuresample.planning.works import Route

Array = npt.NDArray[Any]

# "Truncated integers" in docs/numbers.md has the argument behind these, with numbers.
# Largest range of an input whose sums are made in float32.
SINGLE_RANGE = 6000.0
# Share of voxels that may lie close to an integer beyond what chance explains before they are evaluated again.
MOST_CLOSE = 0.0025
# Where chance alone brings a larger share close to an integer, all are evaluated again.
MOST_CHANCE = 0.03

TOLERANCE = 1e-10
CHUNK = 1 << 16
# Voxels handed to a thread at a time: enough to forget Python, few enough to balance.
ITEM_VOXELS = 1 << 14
COLUMNS = 512


def range_of(array: Array) -> float:
    """Largest minus smallest value of an array."""
    flat = np.ravel(array)
    found: list[tuple[Any, Any]] = []
    _ranges(flat.size, lambda lo, hi: found.append(kernels.extremes(flat, lo, hi)))
    return max(float(h) for _, h in found) - min(float(k) for k, _ in found)


def precision_for(dtype: np.dtype[Any], target: np.dtype[Any], width: float) -> str:
    """What sums of this type and range are made in before they are truncated."""
    narrow = (dtype.itemsize <= 2 or dtype == np.float32) and target.itemsize <= 2
    return "single" if narrow and width <= SINGLE_RANGE else "double"


def truncated(
    values: Array,
    dst: Array,
    src: Array,
    order: int | None,
    where: AxisMap | Route,
    default: int | float,
    width: float,
    *,
    wrap: bool = False,
    always: bool = False,
) -> bool:
    """Fill integers `dst` from sums `values` as SimpleITK would from its own.

    Parameters
    ----------
    values : ndarray, float32 or float64, shape (z, y, x), C order
        The sums; NaN where a voxel lies outside.
    dst : ndarray of integers, same shape, C order
    src : ndarray, shape (z, y, x)
        What was resampled; finite.
    order : int or None
        Of the B-spline that was summed; 0 for linear. None for other filters, which are not evaluated again.
    where : AxisMap or Route
        Where the voxels of `dst` lie on `src`; a map's axes run as the source's.
    default : number
        For voxels outside, a value of `dst`'s type.
    width : float
        `range_of(src)`.
    wrap : bool
        Wrap into the type as C does, instead of saturating.
    always : bool
        Evaluate again whatever is close to an integer, even if chance explains it; for filters that can be.

    Returns
    -------
    bool
        Whether the result is within the contract: False where another evaluation is needed and `order` is None.
    """
    info = np.iinfo(dst.dtype)
    limits = np.array([info.min, info.max], dst.dtype)
    flat, out = values.reshape(-1), dst.reshape(-1)
    near = taps.BOUNDS["single" if values.dtype == np.float32 else "double"] * max(width, 1.0)
    fill = dst.dtype.type(default)
    counts: list[tuple[int, int]] = []
    _ranges(
        flat.size, lambda lo, hi: counts.append(kernels.truncate_range(flat, out, lo, hi, limits, wrap, fill, near))
    )
    inside, close = (sum(c) for c in zip(*counts, strict=True))
    chance = 2.0 * near
    excess = close - (0.0 if always and order is not None else (chance + MOST_CLOSE) * inside)
    if inside == 0 or (chance <= MOST_CHANCE and excess <= 0.0):
        return True
    if order is None:
        return False
    # Where chance alone would do it, the bound on the error says nothing: all voxels are evaluated.
    if chance > MOST_CHANCE:
        near = math.inf
    work = spline_coefficients(src, order) if order > 1 else np.array(src, np.float64, order="C")
    if isinstance(where, AxisMap):
        # Linear sums on aligned axes are made in SimpleITK's order from the start (`aligned_linear`).
        assert order
        assert is_straight(where)
        _aligned_again(flat, out, dst.shape, work, order, where, limits, wrap, near)
    else:
        _again(flat, out, dst.shape, work, order, where, limits, wrap, near)
    return True


def is_straight(where: AxisMap) -> bool:
    """Whether every output axis runs along the input axis of the same name."""
    return where.source_axis == tuple(range(len(where.x)))


def _again(
    flat: Array,
    out: Array,
    shape: tuple[int, ...],
    work: Array,
    order: int,
    route: Route,
    limits: Array,
    wrap: bool,
    near: float,
) -> None:
    n_z, n_y, n_x = shape
    n_src = np.array(work.shape, np.int64)
    samples = work.reshape(-1)
    walk, planar = Walk.of(route), n_z == 1 and work.shape[0] == 1
    step = min(n_y, max(1, ITEM_VOXELS // n_x))
    across = -(-n_y // step)

    def job(item: int) -> None:
        z, y = item // across, item % across * step
        places, _ = walk.block(z, y, 1, min(step, n_y - y), n_x)
        kernels.exact_rows(
            flat, out, z * n_y + y, places, route.lines, n_x, samples, n_src, order, planar, limits, wrap, near
        )

    run_items(job, n_z * across)


def _aligned_again(
    flat: Array,
    out: Array,
    shape: tuple[int, ...],
    work: Array,
    order: int,
    where: AxisMap,
    limits: Array,
    wrap: bool,
    near: float,
) -> None:
    n_z, n_y, n_x = shape
    tables = [_axis_taps(order, x, n) for x, n in zip(where.x, work.shape[::-1], strict=False)]
    if len(tables) == 2:
        tables.append((np.ones((1, 1)), np.zeros((1, 1), np.int64)))
    (wx, ix), (wy, iy), (wz, iz) = tables
    samples = work.reshape(-1)
    step = max(1, ITEM_VOXELS // n_x)

    def job(item: int) -> None:
        kernels.aligned_spline_rows(
            flat, out, item * step, min((item + 1) * step, n_z * n_y), n_y, samples, work.shape[1], work.shape[2],
            wx, ix, wy, iy, wz, iz, limits, wrap, near,
        )  # fmt: skip

    run_items(job, -(-n_z * n_y // step))


def _axis_taps(order: int, x: FloatArray, n: int) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    taps = np.empty((order + 1, x.size)), np.empty((order + 1, x.size), np.int64)
    kernels.axis_taps(order, x, n, *taps)
    return taps


def aligned_linear(dst: Array, src: Array, where: AxisMap, default: int | float, *, wrap: bool = False) -> bool:
    """Fill integers `dst` from `src`, both (z, y, x) and C-contiguous, linearly and bit by bit as SimpleITK does.

    Returns
    -------
    bool
        Whether it was done: axes must run as the input's.
    """
    if not is_straight(where) or not src.flags.c_contiguous or not src.dtype.isnative:
        return False
    info = np.iinfo(dst.dtype)
    limits = np.array([info.min, info.max], dst.dtype)
    tables, box = [], np.zeros((3, 3), np.int64)
    for axis, (x, n) in enumerate(zip((*where.x, np.zeros(1))[:3], src.shape[::-1], strict=True)):
        samples = np.flatnonzero(taps.inside(x, n, None))
        lo, hi = (int(samples[0]), int(samples[-1]) + 1) if samples.size else (0, 0)
        box[2 - axis] = lo, hi, x.size
        cells = kernels.Cells(np.empty(hi - lo, np.int64), np.empty(hi - lo, np.int64), np.empty(hi - lo))
        kernels.axis_cells(x[lo:hi], n, cells)
        tables.append(cells)
    memory, out = Flat(src).memory, dst.reshape(-1)
    n_z, n_y, n_x = dst.shape
    step = max(1, ITEM_VOXELS // n_x)
    fill = dst.dtype.type(default)

    def job(item: int) -> None:
        kernels.aligned_linear_rows(
            out, item * step, min((item + 1) * step, n_z * n_y), box, memory, src.shape[1], src.shape[2], *tables,
            fill, limits, wrap,
        )  # fmt: skip

    run_items(job, -(-n_z * n_y // step))
    return True


def block_means(dst: Array, src: Array, factors: tuple[int, ...], *, round_up: bool) -> None:
    """`itk::BinShrinkImageFilter`: means of blocks of z, y, x `factors` voxels, any strides of `src`; `dst` C order.

    `round_up`: halves go up, else values are cast, toward zero for integers.
    """
    source, out = Flat(src), dst.reshape(-1)
    n_z, n_y, n_x = dst.shape
    step = max(1, ITEM_VOXELS // n_x)
    memory = source.memory[source.offsets[0] :]

    def job(item: int) -> None:
        kernels.block_means(
            memory, out, item * step, min((item + 1) * step, n_z * n_y), n_y, n_x, source.strides, factors,
            round_up, scratch(n_x, np.float64),
        )  # fmt: skip

    run_items(job, -(-n_z * n_y // step))


def poles_of(order: int) -> FloatArray:
    """Poles of the B-spline prefilter in ITK's expressions and order (`itk::BSplineDecompositionImageFilter`)."""
    if order == 2:
        return np.array([math.sqrt(8.0) - 3.0])
    if order == 3:
        return np.array([math.sqrt(3.0) - 2.0])
    if order == 4:
        a, b = math.sqrt(438976.0), math.sqrt(304.0)
        return np.array([math.sqrt(664.0 - a) + b - 19.0, math.sqrt(664.0 + a) - b - 19.0])
    a, b = math.sqrt(4436.25), math.sqrt(26.25)
    return np.array([math.sqrt(67.5 - a) + b - 6.5, math.sqrt(67.5 + a) - b - 6.5])


def spline_coefficients(src: Array, order: int) -> FloatArray:
    """B-spline coefficients of a volume (z, y, x), as `itk::BSplineDecompositionImageFilter` makes them in double."""
    out = np.array(src, np.float64, order="C")
    poles = poles_of(order)
    horizons = np.array([math.ceil(math.log(TOLERANCE) / math.log(abs(z))) for z in poles], np.int64)
    flat = out.reshape(-1)
    n_z, n_y, n_x = out.shape
    # Along x: neighbouring rows together. Along y and z: neighbouring columns.
    plans = [(n_x, 1, n_x, n_z * n_y, 1), (n_y, n_x, 1, n_x, n_z), (n_z, n_y * n_x, 1, n_y * n_x, 1)]
    for n, step, line_step, lines, outer in plans:
        if n == 1:
            continue
        blocks = -(-lines // kernels.LINES)

        def job(
            item: int,
            n: int = n,
            step: int = step,
            line_step: int = line_step,
            lines: int = lines,
            blocks: int = blocks,
        ) -> None:
            o, block = divmod(item, blocks)
            first = block * kernels.LINES
            count = min(kernels.LINES, lines - first)
            start = o * n_y * n_x + first * line_step
            kernels.spline_lines(
                flat, start, step, line_step, count, n, poles, horizons, scratch(n * kernels.LINES, np.float64)
            )

        run_items(job, outer * blocks)
    return out


def blurred(src: Array, weights: list[FloatArray]) -> Array:
    """`src` (z, y, x) with every axis smoothed in turn, x last, in its own type in between (`itk::DiscreteGaussian`).

    Parameters
    ----------
    src : ndarray, shape (z, y, x), C order
    weights : three ndarray
        Symmetric weights of neighbours along z, y, x.
    """
    n_z, n_y, n_x = src.shape
    now = src
    for axis, weight in enumerate(weights):
        if src.shape[axis] == 1 and weight.size == 1:
            continue
        nxt = np.empty_like(now)
        a, b = now.reshape(-1), nxt.reshape(-1)
        if axis == 2:
            _blur_rows(a, b, n_z * n_y, n_x, weight)
        else:
            _blur_columns(a, b, n_z if axis == 1 else 1, src.shape[axis], n_x if axis == 1 else n_y * n_x, weight)
        now = nxt
    return now


def _blur_rows(src: Array, dst: Array, rows: int, n: int, weight: FloatArray) -> None:
    step = max(1, CHUNK // n)

    def job(item: int) -> None:
        room = scratch(2 * n + weight.size, np.float64)
        for row in range(item * step, min((item + 1) * step, rows)):
            kernels.blur_row(src, dst, row * n, n, weight, room[:n], room[n:])

    run_items(job, -(-rows // step))


def _blur_columns(src: Array, dst: Array, outer: int, n: int, inner: int, weight: FloatArray) -> None:
    blocks = -(-inner // COLUMNS)

    def job(item: int) -> None:
        o, block = divmod(item, blocks)
        first = block * COLUMNS
        columns = min(COLUMNS, inner - first)
        kernels.blur_columns(src, dst, o * n * inner + first, n, inner, columns, weight, scratch(COLUMNS, np.float64))

    run_items(job, outer * blocks)


def all_finite(array: Array) -> bool:
    """Whether no value is infinite or NaN."""
    flat = np.ravel(array, order="K")
    found: list[bool] = []
    _ranges(flat.size, lambda lo, hi: found.append(kernels.first_not_finite(flat, lo, hi)))
    return not any(found)


def _ranges(n: int, job: Callable[[int, int], Any]) -> None:
    step = 4 * CHUNK
    run_items(lambda item: job(item * step, min((item + 1) * step, n)), -(-n // step))
