"""The CPU engine's gather: prefilter by table, then blocks of rows over threads, one neighbourhood per voxel."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import gather_kernels as kernels
from gpuresample.engines.cpu import tables, vote_kernels
from gpuresample.engines.cpu.jit import VARIES, Kernel, Prepared
from gpuresample.engines.cpu.memory import Flat, flatten
from gpuresample.engines.cpu.path import Walk
from gpuresample.engines.cpu.ways import is_cubic, is_linear
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.engines.threads import get_num_threads, run_items
from gpuresample.planning.filters import LABEL_ALPHA, LABEL_SIGMA, differentiated
from gpuresample.planning.taps import fold
from gpuresample.planning.works import RULES, Gather, Route

Array = npt.NDArray[Any]

# Planes and rows of a block whose rows are scan lines: neighbours of a turned row are met again while they are close.
LINES = (8, 64)
# The same where every voxel's position is held in scratch: less of it, so that it stays in a core's second cache. Of
# short rows more, up to so many voxels and rows: a block must be worth a call.
POINTS = (4, 8)
POINT_VOXELS, POINT_ROWS = 1 << 13, 1 << 10
# Rows whose ends are kept for a call that comes again.
MOST_HELD = 1 << 10
# Where a kernel's arguments have the source, the places of its voxels, the target, and the block.
SOURCE, PLACES, TARGET, BLOCK = 0, 3, 7, slice(10, 13)
# Blocks are halved until every thread has so many of them, but not below so many voxels.
BLOCKS_PER_THREAD = 4
LEAST = 1 << 12
# Voxels of a gather that is one block, at most: more blocks and a second thread would cost more than they save. Voxels
# on scan lines that are copied, or blended of two along each axis, count once; any other voxel counts `DEAR` times.
ALONE = 1 << 15
DEAR = 8


@dataclass(frozen=True, eq=False)
class Job:
    """One gather of one source: what is called for each block, after where its voxels lie.

    Attributes
    ----------
    rows : callable
        `rows(coordinates, z, y, n_y)`.
    cost : int
        See `ALONE`.
    """

    rows: Callable[[Array, int, int, int], None]
    cost: int


GatherCall = tuple[Gather, Array, Array, Store]


def shares(call: GatherCall, work: Gather, dst: Array) -> bool:
    """Whether another gather, into `dst`, has its voxels where a call has them."""
    first = call[0]
    batches = len(work.routes) == 1 or call[2].shape[:-3] == dst.shape[:-3]
    same = first.n_dst == work.n_dst and len(first.routes) == len(work.routes)
    return batches and same and all(a.equals(b) for a, b in zip(first.routes, work.routes, strict=True))


def run_gather(work: Gather, src: Array, dst: Array, store: Store) -> None:
    """Fill `dst` from `src`, both [..., z, y, x]."""
    run_gathers([(work, src, dst, store)])


def run_gathers(calls: Sequence[GatherCall]) -> None:
    """Fill the destinations of gathers that have their routes in common: the voxels of all are located once."""
    routes = calls[0][0].routes
    n_dst = calls[0][0].n_dst
    strange: list[int] = []
    for k, route in enumerate(routes):
        walk = Walk.of(route)
        groups = []
        for work, src, dst, store in calls:
            if len(routes) == 1:
                groups.append(_batches(work, route, src, dst, store))
            else:
                volume = np.unravel_index(k, dst.shape[:-3])
                groups.append(iter([_job(work, route, src[volume][None], dst[volume][None], store)]))
        # What is prefiltered goes volume by volume, since coefficients are as large as it is: together as long as there
        # are volumes of all.
        for jobs in _together(groups):
            sweep(walk, jobs, n_dst, strange)
    if sum(strange):
        warnings.warn(
            f"transform leads {sum(strange)} voxels to positions that are not finite: they take the default value",
            RuntimeWarning,
            stacklevel=2,
        )


def _together(groups: Sequence[Iterator[Job]]) -> Iterator[list[Job]]:
    """Jobs of all groups, one of each at a time, until all are done."""
    while True:
        jobs = [job for job in (next(group, None) for group in groups) if job is not None]
        if not jobs:
            return
        yield jobs
        jobs.clear()  # their coefficients are given up before the next ones are made


def sweep(walk: Walk, jobs: Sequence[Job], n_dst: tuple[int, int, int], strange: list[int]) -> None:
    """All blocks of the output, over threads."""
    n_z, n_y, n_x = n_dst
    step_z, step_y = steps(n_dst, walk.route.lines, sum(job.cost for job in jobs), get_num_threads())
    across = -(-n_y // step_y)

    def block(item: int) -> None:
        z, y = item // across * step_z, item % across * step_y
        high, rows = min(step_z, n_z - z), min(step_y, n_y - y)
        coordinates, odd = walk.block(z, y, high, rows, n_x)
        for job in jobs:
            job.rows(coordinates, z, y, rows)
        if odd:
            strange.append(odd)

    run_items(block, -(-n_z // step_z) * across)


def cost_of(work: Gather, voxels: int) -> int:
    """What so many voxels of a work count for, see `ALONE`."""
    light = work.method == "index" or is_linear(work)
    return voxels if light and work.routes[0].lines and not any(work.derivative) else DEAR * voxels


def steps(n_dst: tuple[int, int, int], lines: bool, cost: int, threads: int) -> tuple[int, int]:
    """Planes and rows of a block: enough blocks for all threads to be busy. Of one thread they are the largest."""
    n_z, n_y, n_x = n_dst
    if cost <= ALONE:
        return n_z, n_y
    z, y = LINES if lines else POINTS
    while not lines and z * y * n_x < POINT_VOXELS and z * y < POINT_ROWS:
        z, y = (2 * z, y) if 2 * z <= y else (z, 2 * y)
    z, y = min(z, n_z), min(y, n_y)
    wanted = 1 if threads == 1 else BLOCKS_PER_THREAD * threads
    while z * y > max(1, 2 * LEAST // n_x) and -(-n_z // z) * -(-n_y // y) < wanted:
        if y >= z:
            y = (y + 1) // 2
        else:
            z = (z + 1) // 2
    return z, y


def _batches(work: Gather, route: Route, src: Array, dst: Array, store: Store) -> Iterator[Job]:
    """Jobs of a batch: one for all its volumes, or one for each where there are coefficients to be made."""
    if work.prefilter is None and not is_cubic(work):
        yield _job(work, route, src, dst, store)
        return
    for volume in np.ndindex(dst.shape[:-3]):
        yield _job(work, route, src[volume][None], dst[volume][None], store)


def ready(work: Gather, src: Array, dst: Array, store: Store) -> Callable[[Array, Array], None] | None:
    """What `run_gather` does for many arrays like these; see `engines.ready`.

    None but for single volumes without gaps that are one block of scan lines, and have no coefficients to be made.
    Where the lines lie is found once.
    """
    n_z, n_y, n_x = work.n_dst
    route, single = work.routes[0], math.prod(dst.shape[:-3]) == len(work.routes) == 1
    plain = src.flags.c_contiguous and dst.flags.carray
    if not (route.lines and single and plain and n_z * n_y <= MOST_HELD and cost_of(work, dst.size) <= ALONE):
        return None
    if work.prefilter is not None or is_cubic(work):
        return None
    lines, _ = Walk.of(route).block(0, 0, n_z, n_y, n_x)
    kernel, args = _asked(work, route, src, dst, store)
    seen, made = args[SOURCE].dtype, args[TARGET].dtype
    args[SOURCE] = args[TARGET] = VARIES
    args[PLACES], args[BLOCK] = lines.copy(), (0, 0, n_y)
    block = Prepared(kernel, args)
    return lambda source, target: block(source.reshape(-1).view(seen), target.reshape(-1).view(made))


def _job(work: Gather, route: Route, src: Array, dst: Array, store: Store) -> Job:
    """What does a gather's blocks."""
    return Job(Prepared(*_asked(work, route, src, dst, store)), cost_of(work, dst.size))


def _asked(work: Gather, route: Route, src: Array, dst: Array, store: Store) -> tuple[Kernel, list[Any]]:
    """What kernel does a gather's blocks, and with which arguments."""
    acc = accumulator(work.precision)
    moved = work.base
    derived = any(work.derivative)
    if is_cubic(work) and not derived:
        src, pad = coefficients(work, src, acc)
        moved = (moved[0] - pad[0], moved[1] - pad[1], moved[2] - pad[2])
    elif work.prefilter is not None:
        made = np.empty((1, *work.prefilter.n_dst), acc)
        tables.run_separable(work.prefilter, src, made, Store())
        src = made
    default = np.array(store.default, dst.dtype)
    if work.method == "sum":
        dst, bounds, rounding = tables.storing(dst, acc, store)
        default = default.view(dst.dtype)
    elif work.method == "index" and src.dtype == dst.dtype:
        # One kernel copies all voxels of a size, whatever their bits say.
        bits = np.dtype(f"u{src.dtype.itemsize}")
        src, dst, default = src.view(bits), dst.view(bits), default.view(bits)
    source, target = flatten(src), Flat(dst)
    strides = _numbers(source.strides, np.int64)
    # Where sample (0, 0, 0) of the whole source would be.
    (sz, sy, sx), (z, y, x) = source.strides, moved
    first = source.offsets[0] - (sz * z + sy * y + sx * x)
    moves = np.array(source.offsets, np.int64) - source.offsets[0]
    n_src, box = _numbers(work.n_src, np.int64), _numbers(work.box, np.float64)
    starts, steps = np.array(target.offsets, np.int64), _numbers(target.strides, np.int64)
    outside, n_x = default[()], work.n_dst[2]
    before = (source.memory, moves, strides)
    lines, x0, n0 = route.lines, route.start[0], route.n0

    def call(kernel: Kernel, so: int, *rest: Any) -> tuple[Kernel, list[Any]]:
        block = VARIES, VARIES, VARIES
        return kernel, [
            *before, VARIES, lines, x0, n0, target.memory, starts, steps, *block, n_x, n_src, so, box, work.rule, *rest,
        ]  # fmt: skip

    if work.method == "index":
        return call(kernels.copy_rows, first, outside)
    if work.scores is not None:
        s = work.scores
        return call(vote_kernels.score_rows, first, s.pair, float(s.upper), s.tie, s.rim)
    if work.method == "label_linear":
        return call(vote_kernels.vote_rows, first, outside)
    if work.method == "label_gaussian":
        return call(vote_kernels.gaussian_vote_rows, first, LABEL_SIGMA, LABEL_SIGMA * LABEL_ALPHA, outside)
    if is_cubic(work) and not derived:
        powers = np.ascontiguousarray(work.coefficients[0].T.astype(acc))
        return call(kernels.cubic_rows, first, powers, work.offset, outside, bounds, rounding)
    if is_linear(work) and not derived:
        whole = src.dtype.kind in "iu"
        return call(kernels.linear_rows, first, work.offset, work.narrow, outside, bounds, rounding, whole)
    return call(
        kernels.any_rows, first, axis_weights(work, acc), work.shift, work.offset, work.narrow, work.normalise,
        derived, outside, bounds, rounding,
    )  # fmt: skip


def axis_weights(work: Gather, acc: np.dtype[Any]) -> tuple[Array, Array, Array]:
    """Polynomials of the weights along z, y, x, or of their derivatives."""
    z, y, x = (differentiated(work.coefficients, order).astype(acc) for order in work.derivative)
    return z, y, x


@lru_cache(maxsize=64)
def _numbers(given: tuple[Any, ...], dtype: type[np.number[Any]]) -> Array:
    """Numbers as kernels take them, which read them only."""
    return np.array(given, dtype)


def coefficients(work: Gather, src: Array, acc: np.dtype[Any]) -> tuple[Array, tuple[int, int, int]]:
    """A volume's coefficients, as far beyond its borders as taps reach, so that no tap has to ask where it is.

    Answers them, [1, z, y, x], and how many samples were added before the first, along each axis.
    """
    prefilter = work.prefilter
    n = src.shape[-3:] if prefilter is None else prefilter.n_dst
    reach = [reach_of(work, axis) for axis in range(3)]
    out = np.empty((1, *[before + m + after for m, (before, after) in zip(n, reach, strict=True)]), acc)
    inner = out[:, *[slice(before, before + m) for m, (before, _) in zip(n, reach, strict=True)]]
    if prefilter is None:
        inner[...] = src
    else:
        tables.run_separable(prefilter, src, inner, Store())
    rule = {number: word for word, number in RULES.items()}[work.rule]
    for axis, (m, (before, after)) in enumerate(zip(n, reach, strict=True)):
        base = work.base[axis]
        margin = np.array([*range(-before, 0), *range(m, m + after)])
        # A part of a source has all samples that its voxels tap, folded ones too; others are not read.
        stand_in = np.clip(fold(margin + base, work.n_src[axis], rule) - base, 0, m - 1)
        along = np.moveaxis(out, axis + 1, 0)
        for k, j in zip((margin + before).tolist(), (stand_in + before).tolist(), strict=True):
            along[k] = along[j]
    return out, (reach[0][0], reach[1][0], reach[2][0])


def reach_of(work: Gather, axis: int) -> tuple[int, int]:
    """How many samples taps reach beyond the source along an axis, on either side, once positions are brought to it."""
    n, (low, high) = work.n_src[axis], work.box[axis]
    if math.isinf(low):
        if work.rule == RULES["nearest"]:
            return 0, 0
        low, high = (0.0, float(n)) if work.rule == RULES["grid-wrap"] else (-0.5, n - 0.5)
    return max(0, -(math.floor(low) + work.offset)), max(0, math.floor(high) + work.offset + 4 - n)
