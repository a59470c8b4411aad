"""The CPU engine's gathers, transposed and differentiated by position.

A splat adds to samples that several voxels share, and the order of a sum decides its last bit. So the output is cut
into blocks by its size alone, and blocks are put in an order: every second one along each axis first, then those
between them. A block waits for those before it that may touch one of its samples (`kernels.levels_of`); all others run
at the same time. The bits are those of the blocks one after the other, on any number of threads, and nothing is held
beside the sums themselves.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import gradient_kernels as kernels
from gpuresample.engines.cpu import tables
from gpuresample.engines.cpu.gather import DEAR, Job, axis_weights, coefficients, reach_of, run_gather, sweep
from gpuresample.engines.cpu.memory import Flat, flatten
from gpuresample.engines.cpu.path import Walk, components
from gpuresample.engines.cpu.ways import is_cubic, is_linear
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.engines.threads import run_items
from gpuresample.planning import planner
from gpuresample.planning.filters import FloatArray, differentiated
from gpuresample.planning.taps import fold
from gpuresample.planning.works import RULES, Gather, Lattice, Linear, Route

Array = npt.NDArray[Any]
Block = tuple[int, int, int, int, int, int]

# Voxels of a block's edge, and the most blocks of a volume: larger ones have larger blocks.
EDGE = 32
MOST_BLOCKS = 2048
# Voxels whose positions are held at a time.
POINTS = 8192


# By how much bounds of positions may be off, in voxels.
SLACK = 1e-4


@dataclass(frozen=True, eq=False)
class Splat:
    """One route's share of a splat.

    Attributes
    ----------
    reach : ndarray, int64, shape (blocks, 3, 2)
        First and last sample z, y, x that a block may touch; none if the first is larger.
    add : callable
        `add(block)`.
    """

    reach: npt.NDArray[np.int64]
    add: Callable[[Block], None]


def run_splat(work: Gather, grad: Array, out: Array) -> None:
    """Fill `out` [..., z, y, x] on the source's grid by the transposed gather of `grad` [..., z, y, x].

    See `interface.Differentiable`.
    """
    acc = accumulator(work.precision)
    lead = math.prod(out.shape[:-3])
    grads, outs = grad.reshape(lead, *grad.shape[-3:]), out.reshape(lead, *out.shape[-3:])
    shares = len(work.routes) == 1
    # Without coefficients the sums are made where they belong.
    plain = work.prefilter is None and not _padded(work) and out.dtype == acc and np.shares_memory(out, outs)
    n, reach = _sizes(work)
    sums = outs if plain else np.empty((lead, *(a + m + b for m, (a, b) in zip(n, reach, strict=True))), acc)
    sums[...] = 0
    pad = np.array([before for before, _ in reach], np.int64)
    parts = [slice(None)] if shares else [slice(k, k + 1) for k in range(lead)]
    _in_order([_splat(work, r, grads[p], sums[p], pad) for r, p in zip(work.routes, parts, strict=True)], work.n_dst)
    if plain:
        return
    if _padded(work):
        _fold_back(work, sums, n, reach)
    inner = sums[:, *[slice(before, before + m) for m, (before, _) in zip(n, reach, strict=True)]]
    if work.prefilter is None:
        out[...] = inner.reshape(out.shape)
        return
    back = planner.adjoint(work.prefilter)
    tables.run_separable(back, inner.reshape(*out.shape[:-3], *n), out, Store())


def _padded(work: Gather) -> bool:
    """Whether taps go to samples beyond the border first, which are folded back afterwards."""
    return is_cubic(work) and not any(work.derivative)


def _sizes(work: Gather) -> tuple[tuple[int, ...], list[tuple[int, int]]]:
    """Samples that are splatted to along z, y, x, and how many are added on either side."""
    return work.n_src, [reach_of(work, axis) if _padded(work) else (0, 0) for axis in range(3)]


def _fold_back(work: Gather, sums: Array, n: tuple[int, ...], reach: list[tuple[int, int]]) -> None:
    """Add what lies beyond the border to the samples that stand for it: `gather.coefficients`, transposed."""
    rule = {number: word for word, number in RULES.items()}[work.rule]
    for axis in (2, 1, 0):
        m, (before, after) = n[axis], reach[axis]
        margin = np.array([*range(-before, 0), *range(m, m + after)])
        stand_in = np.clip(fold(margin, m, rule), 0, m - 1)
        along = np.moveaxis(sums, axis + 1, 0)
        for k, j in zip((margin + before).tolist(), (stand_in + before).tolist(), strict=True):
            along[j] += along[k]


def _splat(work: Gather, route: Route, grad: Array, sums: Array, pad: npt.NDArray[np.int64]) -> Splat:
    """What adds the blocks of volumes [batch, z, y, x] that share a route."""
    acc = sums.dtype
    source, target = flatten(grad), Flat(sums)
    walk = Walk.of(route)
    strides, steps = np.array(target.strides, np.int64), np.array(source.strides, np.int64)
    so = target.offsets[0] + int((strides * pad).sum())
    moves = np.array(target.offsets, np.int64) - target.offsets[0]
    starts = np.array(source.offsets, np.int64)
    n_src, box = np.array(work.n_src, np.int64), np.array(work.box)
    lines, x0, n0 = route.lines, route.start[0], route.n0
    derived = any(work.derivative)
    linear, cubic = is_linear(work) and not derived, is_cubic(work) and not derived
    rest: tuple[Any, ...]
    if linear:
        kernel, rest = kernels.splat_linear, (work.offset, work.narrow)
    elif cubic:
        kernel, rest = kernels.splat_cubic, (np.ascontiguousarray(work.coefficients[0].T.astype(acc)), work.offset)
    else:
        kernel, rest = kernels.splat_any, (axis_weights(work, acc), work.shift, work.offset, work.narrow, derived)

    def add(block: Block) -> None:
        y, x, n_y, n_x = block[1], block[2], block[4], block[5]
        for z, n_z in _planes(block, lines):
            coordinates, _ = walk.block(z, y, n_z, n_y, n_x, x)
            kernel(
                source.memory, starts + x * steps[2], steps, z, y, n_y, coordinates, lines, x0 + x, n0, n_x, n_src,
                box, work.rule, target.memory, moves, strides, so, *rest,
            )  # fmt: skip

    return Splat(_reach(work, route, walk, cubic), add)


def _planes(block: Block, lines: bool) -> Iterator[tuple[int, int]]:
    """Planes of a block that are done together: all, or so few that every voxel's position stays in a core's cache."""
    first, n_z, n_y, n_x = block[0], block[3], block[4], block[5]
    step = n_z if lines else max(1, POINTS // (n_y * n_x))
    for z in range(first, first + n_z, step):
        yield z, min(step, first + n_z - z)


def _reach(work: Gather, route: Route, walk: Walk, cubic: bool) -> npt.NDArray[np.int64]:
    """Samples that every block of the output may touch, see `Splat`."""
    bounds = _interval(work, route)
    if bounds is None:
        bounds = _walked(work, route, walk)
    lo, hi = bounds
    n, box = np.array(work.n_src), np.array(work.box)
    beyond = work.rule in (RULES["reflect"], RULES["mirror"]) and ((lo < -0.5) | (hi > n - 0.5))
    lo, hi = np.maximum(lo, box[:, 0]), np.minimum(hi, box[:, 1])
    if cubic and work.rule == RULES["nearest"]:
        # As far as coefficients go; see the kernel.
        lo, hi = (np.clip(k, -work.offset, n - 4 - work.offset) if np.isinf(box[0, 0]) else k for k in (lo, hi))
    nothing = ~(lo <= hi).all(axis=1)
    far = 1e9
    lo, hi = (np.clip(np.nan_to_num(k), -far, far) for k in (lo, hi))
    width = work.coefficients.shape[1]
    slack = SLACK + work.narrow
    first = np.floor(lo - slack + work.shift).astype(np.int64) + work.offset
    last = np.floor(hi + slack + work.shift).astype(np.int64) + work.offset + width - 1
    first, last = np.where(beyond, -width, first), np.where(beyond, n + width, last)
    if not cubic:
        # What is folded lands within a tap's width of the border.
        first, last = (
            np.where(last > n - 1, np.minimum(first, n - 1 - width), first),
            np.where(first < 0, np.maximum(last, width), last),
        )
        first, last = np.clip(first, 0, n - 1), np.clip(last, 0, n - 1)
    first[nothing], last[nothing] = 0, -1
    return np.stack([first, last], axis=-1)


def _interval(work: Gather, route: Route) -> tuple[FloatArray, FloatArray] | None:
    """Bounds z, y, x of every block's positions from its corners; None for routes that corners do not bound.

    Lines, and a field on the output's voxels before them: what its vectors may add is found block by block.
    """
    blocks, _ = _blocks(work.n_dst)
    stages = list(route.stages)
    first = stages.pop(0) if isinstance(stages[0], Lattice) and stages[0].direct else None
    if not all(isinstance(stage, Linear) for stage in stages):
        return None
    matrix, offset = np.eye(3), np.zeros(3)
    for stage in stages:
        assert isinstance(stage, Linear)
        matrix, offset = stage.matrix @ matrix, stage.matrix @ offset + stage.offset
    matrix, offset = route.inverse @ matrix, route.inverse @ (offset - route.origin_in)
    corner = np.array([b[2::-1] for b in blocks], np.float64) + route.start
    end = corner + np.array([b[5:2:-1] for b in blocks]) - 1.0
    lo, hi = _spread(matrix @ route.step, corner, end)
    if isinstance(first, Lattice):
        memory, at, strides = components(first.vectors)
        found = np.empty((len(blocks), 3, 2))
        x0, y0, z0 = route.start

        def look(k: int) -> None:
            z, y, x, *size = blocks[k]
            kernels.field_extremes(memory, at, strides, z0 + z, y0 + y, x0 + x, *size, found[k])

        run_items(look, len(blocks))
        a, b = _spread(matrix, found[:, :, 0], found[:, :, 1])
        lo, hi = lo + a, hi + b
        # Where a vector is infinite nothing is known.
        lo, hi = np.where(np.isnan(lo), -np.inf, lo), np.where(np.isnan(hi), np.inf, hi)
    at_zero = matrix @ route.origin + offset
    return (lo + at_zero)[:, ::-1], (hi + at_zero)[:, ::-1]


def _spread(matrix: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The boxes around a matrix times boxes [n, 3]."""
    with np.errstate(invalid="ignore"):
        a, b = matrix * low[:, None], matrix * high[:, None]
        return np.minimum(a, b).sum(axis=2), np.maximum(a, b).sum(axis=2)


def _walked(work: Gather, route: Route, walk: Walk) -> tuple[FloatArray, FloatArray]:
    """Bounds z, y, x of every block's positions inside, voxel by voxel."""
    blocks, _ = _blocks(work.n_dst)
    n_src, box = np.array(work.n_src, np.int64), np.array(work.box)
    lo, hi = np.empty((2, len(blocks), 3))

    def look(k: int) -> None:
        y, x, n_y, n_x = blocks[k][1], blocks[k][2], blocks[k][4], blocks[k][5]
        least, most = np.full((3, n_x), np.inf), np.full((3, n_x), -np.inf)
        for z, n_z in _planes(blocks[k], route.lines):
            coordinates, _ = walk.block(z, y, n_z, n_y, n_x, x)
            kernels.reach_rows(coordinates, route.lines, route.start[0] + x, route.n0, n_src, box, least, most)
        lo[k], hi[k] = least.min(axis=1), most.max(axis=1)

    run_items(look, len(blocks))
    return lo, hi


@lru_cache(maxsize=32)
def _blocks(n_dst: tuple[int, int, int]) -> tuple[tuple[Block, ...], npt.NDArray[np.int64]]:
    """Blocks of an output of a size, and the order in which they add up."""
    edge = EDGE
    while math.prod(-(-n // edge) for n in n_dst) > MOST_BLOCKS:
        edge *= 2
    counts = [max(1, round(n / edge)) for n in n_dst]
    edges = [[n * k // c for k in range(c + 1)] for n, c in zip(n_dst, counts, strict=True)]
    blocks, parity = [], []
    for k in itertools.product(*(range(c) for c in counts)):
        first = [e[i] for e, i in zip(edges, k, strict=True)]
        size = [e[i + 1] - e[i] for e, i in zip(edges, k, strict=True)]
        blocks.append((first[0], first[1], first[2], size[0], size[1], size[2]))
        parity.append((k[0] % 2) * 4 + (k[1] % 2) * 2 + k[2] % 2)
    return tuple(blocks), np.argsort(np.array(parity), kind="stable").astype(np.int64)


def _in_order(splats: list[Splat], n_dst: tuple[int, int, int]) -> None:
    """All blocks of all splats; those that may meet one after the other."""
    blocks, order = _blocks(n_dst)
    level = np.empty((len(splats), len(blocks)), np.int64)
    for k, splat in enumerate(splats):
        kernels.levels_of(splat.reach, order, level[k])
    for step in range(int(level.max()) + 1):
        ready = np.argwhere(level == step).tolist()

        def add(item: int, ready: list[list[int]] = ready) -> None:
            k, block = ready[item]
            splats[k].add(blocks[block])

        run_items(add, len(ready))


def run_gradient(work: Gather, src: Array, out: Array, grad: Array | None = None) -> None:
    """Fill `out` [..., 3, z, y, x] with derivatives of a gather of `src` by the position's x, y, z.

    See `interface.Differentiable`.
    """
    acc = accumulator(work.precision)
    if grad is None:
        # Every volume is a batch of its own of one channel, beside ones.
        ones = np.broadcast_to(np.ones((), acc), (*src.shape[:-3], 1, *out.shape[-3:]))
        run_gradient(work, src[..., None, :, :, :], out, ones)
        return
    if out.dtype != acc:
        wide = np.empty(out.shape, acc)
        run_gradient(work, src, wide, grad)
        out[...] = wide
        return
    lead = src.shape[:-4]
    for k, volume in enumerate(np.ndindex(lead)):
        alone = work if len(work.routes) == 1 else replace(work, routes=(work.routes[k],))
        fused = _slope_job(alone, src[volume], grad[volume], out[volume])
        if fused is None:
            _by_derivatives(alone, src[volume], grad[volume], out[volume])
        else:
            sweep(Walk.of(alone.routes[0]), [fused], work.n_dst, [])


def _by_derivatives(work: Gather, src: Array, grad: Array, out: Array) -> None:
    """The same as three gathers."""
    made = np.empty(grad.shape, out.dtype)
    for axis in range(3):
        order = list(work.derivative)
        order[2 - axis] += 1
        run_gather(replace(work, derivative=(order[0], order[1], order[2])), src, made, Store())
        out[axis] = 0
        for values, beside in zip(made, grad, strict=True):
            out[axis] += values * beside


def _slope_job(work: Gather, src: Array, grad: Array, out: Array) -> Job | None:
    """What does the blocks of channels [c, z, y, x] in one go; None where no kernel does."""
    if any(work.derivative):
        return None
    open_box = any(math.isinf(low) for low, _ in work.box)
    linear, cubic = is_linear(work), is_cubic(work)
    if not (linear and work.rule == RULES["nearest"]) and not (
        cubic and (work.rule == RULES["nearest"] or not open_box)
    ):
        return None
    acc = out.dtype
    pad = (0, 0, 0)
    if cubic:
        made = [coefficients(work, channel[None], acc) for channel in src]
        src, pad = np.concatenate([m for m, _ in made]), made[0][1]
    source, beside, target = flatten(src), flatten(grad), Flat(out)
    strides, steps = np.array(source.strides, np.int64), np.array(beside.strides, np.int64)
    so = source.offsets[0] + int((strides * (np.array(pad) - np.array(work.base))).sum())
    moves = np.array(source.offsets, np.int64) - source.offsets[0]
    starts, ends = np.array(beside.offsets, np.int64), np.array(target.offsets, np.int64)
    paces = np.array(target.strides, np.int64)
    n_src, box, n_x = np.array(work.n_src, np.int64), np.array(work.box), work.n_dst[2]
    route = work.routes[0]
    lines, x0, n0 = route.lines, route.start[0], route.n0
    rest: tuple[Any, ...]
    if linear:
        kernel, rest = kernels.slope_linear, (work.offset, work.narrow)
    else:
        powers = np.ascontiguousarray(work.coefficients[0].T.astype(acc))
        derived = np.ascontiguousarray(differentiated(work.coefficients, 1)[0].T.astype(acc))
        kernel, rest = kernels.slope_cubic, (work.rule, powers, derived, work.offset)

    def rows(coordinates: Array, z: int, y: int, n_y: int) -> None:
        kernel(
            source.memory, moves, strides, so, coordinates, lines, x0, n0, n_x, n_src, box, *rest, beside.memory,
            starts, steps, z, y, n_y, target.memory, ends, paces,
        )  # fmt: skip

    return Job(rows, DEAR * grad.size)


def moments(values: Array, field: Array | None = None) -> npt.NDArray[np.float64]:
    """Sums over all voxels of values [3, z, y, x] times the voxel's place: [value, (x, y, z, 1)], in float64.

    With a `field` [3, z, y, x], components x, y, z, the place is the index moved by it. Planes are summed one by one,
    then added up in their order.
    """
    values = np.ascontiguousarray(values)
    out = np.empty((values.shape[1], 3, 4))
    flat = Flat(values if field is None else field)
    strides = np.array([flat.offsets[1] - flat.offsets[0], *flat.strides], np.int64)
    moved = field is not None
    run_items(
        lambda z: kernels.moments_plane(values, z, flat.memory, flat.offsets[0], strides, moved, out[z]), len(out)
    )
    total = np.zeros((3, 4))
    for plane in out:
        total += plane
    return total
