"""The CPU engine's separable work: tap tables fused per tile, and copies by index."""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.caching import kept, members, on_clear
from gpuresample.engines.cpu import table_kernels as kernels
from gpuresample.engines.cpu.jit import VARIES, Prepared
from gpuresample.engines.cpu.memory import Flat, flatten
from gpuresample.engines.cpu.table_kernels import Room, Taps, TapsAlongX
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import AS_HALF, accumulator, bounds_of, packed_weight, rounding_of, window_of
from gpuresample.engines.threads import get_num_threads, run_items
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable

# Bytes of a tile: several rows along the first axis share the source rows they read, and still stay close.
TILE_BYTES = 1 << 22
# Voxels along y and x that are brought into C order at once.
BOX = (4, 32)
# Work below this many destination voxels is not worth waking a thread for.
SMALL = 1 << 15
# A thread keeps a buffer of up to so many bytes of each type. Tiles are made for buffers of some 10 MB.
KEPT_SCRATCH = 32 << 20


class _Buffers:
    """A thread's buffers by type. What other threads have can be found, and given up."""

    def __init__(self) -> None:
        self.by_type: dict[str, npt.NDArray[Any]] = {}


_scratch = threading.local()
_all_scratch: weakref.WeakSet[_Buffers] = weakref.WeakSet()


def scratch(n: int, dtype: npt.DTypeLike, use: str = "") -> npt.NDArray[Any]:
    """The calling thread's buffer of at least `n` elements; kept from call to call, since new pages are dear."""
    buffers: _Buffers | None = getattr(_scratch, "buffers", None)
    if buffers is None:
        buffers = _scratch.buffers = _Buffers()
        _all_scratch.add(buffers)
    key = np.dtype(dtype).str + use  # `name` takes ten times as long
    buffer = buffers.by_type.get(key)
    if buffer is None or buffer.size < n:
        buffer = np.empty(n, dtype)
        if buffer.nbytes <= KEPT_SCRATCH:
            buffers.by_type[key] = buffer
    return buffer


def _give_up_scratch() -> None:
    for buffers in members(_all_scratch):
        buffers.by_type.clear()


on_clear(_give_up_scratch)


@kept
def pack(table: TapTable, acc: np.dtype[Any]) -> Taps:
    """A table along a tile's first or second axis, as kernels read it."""
    return Taps(table.first, table.count, packed_weight(table, acc).ravel(), table.is_index, table.is_pairs)


@kept
def pack_x(table: TapTable, acc: np.dtype[Any]) -> TapsAlongX:
    """A table along x, as kernels read it."""
    lo, hi = table.source_range()
    first = table.first - lo
    weight = packed_weight(table, acc)
    n_taps = table.n_taps
    few = n_taps <= kernels.FEW_TAPS
    # A block may read fewer samples than the table is wide: its rows are all short, and what the wide loop reads past
    # their end is scratch (see `tiling`) that is not used.
    starts = np.maximum(np.minimum(first, hi - lo - n_taps), 0)
    slots = np.zeros((n_taps if few else 0, table.n_dst), acc)
    short = np.flatnonzero(table.count < n_taps)
    for tap in range(n_taps if few else 0):
        row = np.flatnonzero(tap < table.count)
        slots[(first[row] - starts[row]) + tap, row] = weight[row, tap]
    identity = table.is_index and bool((first == np.arange(table.n_dst)).all())
    return TapsAlongX(
        firsts=first, counts=table.count, weights=weight.ravel(), starts=starts.astype(np.uint32), slots=slots.ravel(),
        short=short, few=few, identity=identity, same=_same_rows(table.first, table.count, weight), n_read=hi - lo,
        first_read=lo,
    )  # fmt: skip


def _same_rows(first: npt.NDArray[Any], count: npt.NDArray[Any], weight: npt.NDArray[Any]) -> tuple[int, int]:
    """The rows that have the weights of the middle one, each one sample further; (0, 0) unless they are most."""
    middle = first.size // 2
    moved = (first - first[middle] == np.arange(first.size) - middle) & (count == count[middle])
    differ = np.flatnonzero(~(moved & (weight == weight[middle]).all(axis=1)))
    before, after = differ[differ < middle], differ[differ > middle]
    start, stop = int(before[-1]) + 1 if before.size else 0, int(after[0]) if after.size else first.size
    return (start, stop) if 2 * (stop - start) > first.size else (0, 0)


def fill_outside(work: Separable, dst: npt.NDArray[Any], default: int | float) -> None:
    """The default value into whatever lies outside the source."""
    if all(t.n_dst == n for t, n in zip(work.tables, work.n_dst, strict=True)):
        return
    whole: list[slice] = [slice(None)] * 3
    for axis, (lo, hi) in enumerate(work.inside):
        for part in (slice(0, lo), slice(hi, None)):
            region = list(whole)
            region[axis] = part
            dst[..., region[0], region[1], region[2]] = default
        whole[axis] = slice(lo, hi)


def _blocks(n_a: int, n_b: int, n_volumes: int, step_a: int, voxels: int, threads: int) -> tuple[int, int]:
    """Rows of a block along a and b: a tile's worth, but enough blocks for all threads to be busy."""
    threads = threads if voxels >= SMALL else 1
    wanted = 1 if threads == 1 else 4 * threads
    step_a = max(1, min(step_a, n_a))
    while step_a > 1 and n_volumes * -(-n_a // step_a) < wanted:
        step_a = (step_a + 1) // 2
    step_b = n_b
    while step_b > 2 * kernels.ROWS and n_volumes * -(-n_a // step_a) * -(-n_b // step_b) < wanted:
        step_b = (step_b + 1) // 2
    return step_a, step_b


@dataclass(frozen=True)
class Tiling:
    """How a separable work is cut into blocks, and the scratch that a block needs.

    Attributes
    ----------
    axes : tuple of int
        First and second axis of a tile.
    x_early : bool
        Whether x comes before the second.
    steps : tuple of int
        Rows of a block along these axes.
    room : Room
        Where in scratch its parts begin.
    elements : int
        Of a thread's scratch, in the accumulator's type.
    blocks : tuple of int
        Of a volume along the two axes.
    """

    axes: tuple[int, int]
    x_early: bool
    steps: tuple[int, int]
    room: Room
    elements: int
    blocks: tuple[int, int]


@kept
def tiling(work: Separable, n_volumes: int, threads: int) -> Tiling:
    """The blocks of so many volumes of a work, for so many threads."""
    acc = accumulator(work.precision)
    axis_a, axis_b, x_early = tile_axes(work.order)
    table_a, table_b, table_x = work.tables[axis_a], work.tables[axis_b], work.tables[2]
    n_a, n_b, m_x = table_a.n_dst, table_b.n_dst, table_x.n_dst
    lo, hi = table_x.source_range()
    n_x = hi - lo
    per_row = table_b.source_range()
    step_a = TILE_BYTES // max(1, (per_row[1] - per_row[0]) * n_x * acc.itemsize)
    step_a, step_b = _blocks(n_a, n_b, n_volumes, step_a, n_volumes * n_a * n_b * m_x, threads)
    a_starts, b_starts = range(0, n_a, step_a), range(0, n_b, step_b)
    reach_a = max(hi - lo for lo, hi in (table_a.source_range(i, min(i + step_a, n_a)) for i in a_starts))
    reach_b = max(hi - lo for lo, hi in (table_b.source_range(i, min(i + step_b, n_b)) for i in b_starts))
    # Rows that are taken along x together; few rows may be very long.
    rows = min(kernels.ROWS, reach_b if x_early else step_b)
    tile = step_a * reach_b * n_x
    window = max(reach_a * n_x, (reach_b if x_early else rows) * m_x)
    row = max(rows * n_x, m_x)
    columns = rows * (n_x + m_x) if table_x.n_taps > kernels.FEW_TAPS else 0
    room = Room(tile=0, window=tile, rows=tile + window, columns=tile + window + row)
    blocks = len(a_starts), len(b_starts)
    # Rows of a narrow source are read past their end, see `pack_x`.
    elements = room.columns + columns + kernels.FEW_TAPS
    return Tiling((axis_a, axis_b), x_early, (step_a, step_b), room, elements, blocks)


def ready(
    work: Separable, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store
) -> Callable[[npt.NDArray[Any], npt.NDArray[Any]], None] | None:
    """What `run_separable` does, and the default value outside, for many arrays like these; see `engines.ready`.

    None but for single volumes without gaps that are one block, and whose axes stay as they are.
    """
    acc, inside = accumulator(work.precision), work.inside
    plain = src.flags.c_contiguous and dst.flags.carray and np.float16 not in (src.dtype, dst.dtype)
    single = math.prod(dst.shape[:-3]) == 1 and dst.size < SMALL and all(lo < hi for lo, hi in inside)
    if not (plain and single and work.dst_axis == (0, 1, 2)):
        return None
    cut = tiling(work, 1, 1)
    if cut.blocks != (1, 1):
        return None
    axis_a, axis_b = cut.axes
    swap = axis_a, axis_b, 2
    shape, steps = dst.shape[-3:], [s // dst.itemsize for s in dst.strides[-3:]]
    strides = np.array([src.strides[a - 3] // src.itemsize for a in swap] + [steps[a] for a in swap], np.int64)
    _, bounds, rounding = storing(dst, acc, store)
    straight = dst.dtype == acc and store.window is None
    none, n, default = np.empty(0, acc), cut.elements, store.default
    at = sum(lo * step for (lo, _), step in zip(inside, steps, strict=True))
    n_a, n_b = work.tables[axis_a].n_dst, work.tables[axis_b].n_dst
    tables = pack(work.tables[axis_a], acc), pack(work.tables[axis_b], acc), pack_x(work.tables[2], acc)
    cropped = any(t.n_dst != n for t, n in zip(work.tables, work.n_dst, strict=True))
    block = Prepared(
        kernels.separable_block,
        (
            VARIES, 0, VARIES, VARIES if straight else none, at, strides, *tables, 0, n_a, 0, n_b, cut.x_early, bounds,
            rounding, VARIES, cut.room,
        ),
    )  # fmt: skip

    def run(source: npt.NDArray[Any], target: npt.NDArray[Any]) -> None:
        if cropped:
            fill_outside(work, target.reshape(shape), default)
        there = target.reshape(-1)
        buffer = scratch(n, acc)
        if straight:
            block(source.reshape(-1), there, there, buffer)
        else:
            block(source.reshape(-1), there, buffer)

    return run


def run_separable(work: Separable, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
    """Tap tables, fused per tile: only the result leaves the cache."""
    acc = accumulator(work.precision)
    n_volumes = math.prod(src.shape[:-3])
    cut = tiling(work, n_volumes, get_num_threads())
    axis_a, axis_b = cut.axes
    n = src.ndim - 3
    swap = (*range(n), n + axis_a, n + axis_b, n + 2)
    a, b = pack(work.tables[axis_a], acc), pack(work.tables[axis_b], acc)
    x = pack_x(work.tables[2], acc)
    if a.pairs and b.pairs and not cut.x_early and src.strides[-1] != src.itemsize:
        # Two taps and two are one sweep over rows without gaps, which rounds otherwise than two sweeps: an image's
        # voxels must not depend on how it lies in memory.
        src = in_rows(src)
    dst, bounds, rounding = storing(dst, acc, store)
    source, target = flatten(src.transpose(swap)), Flat(dst.transpose(swap))
    strides = np.array([*source.strides, *target.strides], np.int64)
    n_a, n_b = work.tables[axis_a].n_dst, work.tables[axis_b].n_dst
    # Sums that are voxels as they are go to their place at once.
    as_they_are = dst.dtype == acc and target.strides[-1] == 1 and store.window is None
    straight = target.memory if as_they_are else np.empty(0, acc)
    (step_a, step_b), (n_items_a, n_items_b) = cut.steps, cut.blocks

    def job(item: int) -> None:
        rest, ib = divmod(item, n_items_b)
        volume, ia = divmod(rest, n_items_a)
        kernels.separable_block(
            source.memory, source.offsets[volume], target.memory, straight, target.offsets[volume], strides, a, b, x,
            ia * step_a, min((ia + 1) * step_a, n_a), ib * step_b, min((ib + 1) * step_b, n_b),
            cut.x_early, bounds, rounding, scratch(cut.elements, acc), cut.room,
        )  # fmt: skip

    run_items(job, n_volumes * n_items_a * n_items_b)


def storing(dst: npt.NDArray[Any], acc: np.dtype[Any], store: Store) -> tuple[npt.NDArray[Any], npt.NDArray[Any], int]:
    """A destination as the kernels see it (16-bit floats are their bits to them), their bounds and rounding."""
    bounds, rounding = bounds_of(dst.dtype, acc, store), rounding_of(dst.dtype, store)
    if dst.dtype == np.float16:
        dst, rounding = dst.view(np.uint16), AS_HALF
    elif store.window is None:
        return dst, bounds, rounding
    return dst, np.concatenate([bounds, window_of(acc, store)]), rounding


def in_rows(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy in C order, made by all threads in boxes of which both sides stay close."""
    out = np.empty(array.shape, array.dtype)
    n_y, n_x = (-(-n // size) for n, size in zip(array.shape[-2:], BOX, strict=True))

    def job(item: int) -> None:
        y, x = divmod(item, n_x)
        box = (..., slice(y * BOX[0], (y + 1) * BOX[0]), slice(x * BOX[1], (x + 1) * BOX[1]))
        out[box] = array[box]

    run_items(job, n_y * n_x)
    return out


def tile_axes(order: tuple[int, ...]) -> tuple[int, int, bool]:
    """First and second axis of the tile, and whether x comes before the second."""
    early = 2 in order and order.index(2) < len(order) - 1
    others = [axis for axis in order if axis != 2]
    absent = [axis for axis in (0, 1) if axis not in others]
    others = absent + others if order[:1] == (2,) else others + absent
    return others[0], others[1], early


def run_copy(work: Separable, src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> None:
    """Copy by index, bit by bit, whatever the voxels are."""
    bits = np.dtype(f"u{src.dtype.itemsize}")
    source, target = flatten(src), Flat(dst)
    index = [t.first.astype(np.uint32) for t in work.tables]
    strides = np.array([*source.strides, *target.strides], np.int64)
    run_x = bool((np.diff(index[2]) == 1).all())
    n_a, n_b = index[0].size, index[1].size
    step_a, step_b = _blocks(n_a, n_b, len(source.offsets), 4, dst.size, get_num_threads())
    n_items_a, n_items_b = -(-n_a // step_a), -(-n_b // step_b)
    memory_in, memory_out = source.memory.view(bits), target.memory.view(bits)
    # Every line that is read, or where rows are thinned out, as many as there are voxels.
    line = max(
        kernels.LINE // bits.itemsize, math.ceil((abs(int(index[2][-1]) - int(index[2][0])) + 1) / index[2].size)
    )

    def job(item: int) -> None:
        rest, ib = divmod(item, n_items_b)
        volume, ia = divmod(rest, n_items_a)
        kernels.copy_block(
            memory_in, source.offsets[volume], memory_out, target.offsets[volume], strides, *index,
            ia * step_a, min((ia + 1) * step_a, n_a), ib * step_b, min((ib + 1) * step_b, n_b), run_x, line,
        )  # fmt: skip

    run_items(job, len(source.offsets) * n_items_a * n_items_b)
