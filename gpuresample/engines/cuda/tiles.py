"""Tap tables as the tiled kernels take them, their room in shared memory, and which passes one kernel takes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuresample.engines.packing import packed_weight
from gpuresample.planning.taps import TapTable

# As kernels/resample_axis.cu has them.
TILE_I, TILE_J, LANES, GROUP = 4, 4, 32, 8
STRIP = LANES * TILE_J
# From a line of results to the next while they change from lanes that are lines to lanes that are outputs.
OUT_PITCH = 33
# Tiles along the second axis that a warp of v4 makes at once, and sums from a column between its passes to the next.
FOUR, BETWEEN_PITCH = 4, 36
# Columns, at most, that a block of v4 keeps from turn to turn.
KEPT = 64
# Samples by which aligned loads may begin before the first that is tapped: fours in v3, pairs in v4.
EARLY, EARLY_PAIR = 3, 1
# Multiply-adds in the time that loading a sample and putting it into shared memory takes.
LOADING = 4
# What a block of v4 takes before its sums, in strips of sums.
BEGINNING = 0.25
# How much more than the least still counts as about as much.
ABOUT = 1.1
# Shared memory of a block of v3 and v4: at most what every GPU grants without asking.
SHARED_LIMIT = 48 << 10
# Tiles pay where neighbouring outputs share samples: taps per sample read, above which they do.
SHARING = 1.5
# v4 is taken where it is more than this many times as fast as two passes by `estimate`, which is careful: all that v4
# reads again counts in full, as if no cache had it, nothing of what two passes read again at their own seams does, and
# sums weigh as on the GPU that has the fewest. On an H200 v4 was 1.43 to 1.06 times as fast for 8 to 38 taps, whose
# estimates are 1.78 to 0.98 (benchmarks/results/nvidia-h200-2026-11-27/kernels.md): two passes are no faster in any.
GAIN = 0.9
# Multiply-adds in float32 while memory moves a byte. By their data sheets GPUs have from 4.8 (A100 80GB: 19.5 TFLOP/s,
# 2.04 TB/s) by way of 10 (H100 SXM) to 40 (RTX 4090). In float64 most consumer cards have a 64th: arithmetic bounds
# every pass there, and sums made twice cost what they take.
SUMS_PER_BYTE = 4.8
FUSED_SUMS = "float32"
# Whether v4 is taken wherever it fits (True) or nowhere (False), for tests and measurements; None: by the rule.
FUSE: bool | None = None


class Tiles(NamedTuple):
    """A table for the tiled kernels: `TILE_I` rows at a time, and as many tiles at once as `make_tiles` is told.

    Attributes
    ----------
    tile : ndarray, int32, shape (n_tiles, 4)
        First sample; samples from there to where all rows tap, to where they cease to, to the end. But for the first
        sample these are the same for all tiles that are made at once.
    weight : ndarray, shape (n_tiles / together, window, together, TILE_I)
        NaN where a row does not tap a sample. For `finite` samples it is 0, and all rows tap from first to last.
    """

    tile: npt.NDArray[np.int32]
    weight: npt.NDArray[Any]

    @property
    def window(self) -> int:
        """Samples of the longest tile."""
        return int(self.weight.shape[1])


class Room(NamedTuple):
    """What a block of v3 takes: tiles along its axis, the pitch of its lines of samples, whether none of results.

    `direct`: lines lie side by side in the destination, and results are stored from registers.
    """

    tiles: int
    pitch: int
    direct: bool

    def bytes(self, acc: np.dtype[Any]) -> int:
        """Of shared memory."""
        return LANES * (self.pitch + (0 if self.direct else 2 * OUT_PITCH)) * acc.itemsize


class Columns(NamedTuple):
    """What a block of v4 takes: fours of tiles along the second axis, and columns between its passes."""

    fours: int
    columns: int

    def bytes(self, acc: np.dtype[Any]) -> int:
        """Of shared memory."""
        return self.columns * BETWEEN_PITCH * acc.itemsize


def sharing(table: TapTable) -> float:
    """Taps per sample that a tile reads: what tiles save."""
    first, end = _padded(table)
    windows = end.max(axis=1) - first.min(axis=1)
    return float(table.count.sum() / windows.sum())


def _padded(table: TapTable, together: int = 1) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """First tap and end of every row, shape (n_tiles, TILE_I); the last tiles repeat the last row.

    The number of tiles is a multiple of `together`.
    """
    step = TILE_I * together
    rows = np.minimum(np.arange(-(-table.n_dst // step) * step), table.n_dst - 1).reshape(-1, TILE_I)
    return table.first[rows], (table.first + table.count)[rows]


def tiles_bytes(table: TapTable, acc: np.dtype[Any], together: int = 1) -> int:
    """Bytes of a table's tiles."""
    first, end = _padded(table, together)
    if len(first) == 0:
        return 0
    return len(first) * (16 + int((end.max(axis=1) - first.min(axis=1)).max()) * TILE_I * acc.itemsize)


def make_tiles(table: TapTable, acc: np.dtype[Any], together: int = 1, finite: bool = False) -> Tiles:
    """A table for the tiled kernels; samples count from the first that the table reads.

    `finite`: samples are never infinite or NaN. They then weigh 0 where they are not tapped, and nothing asks whether
    they are.
    """
    first, end = _padded(table, together)
    start, length = windows(table, together)
    core, edge = (
        np.repeat(of((n - start).reshape(-1, together), axis=1), together)
        for of, n in ((np.max, first.max(axis=1)), (np.min, end.min(axis=1)))
    )
    # Rows that share nothing have no core.
    apart = core >= edge
    core[apart] = edge[apart] = length[apart]
    if finite:
        core, edge = np.zeros_like(core), length
    weight = np.full((len(start), int(length.max()), TILE_I), 0 if finite else np.nan, acc)
    packed = packed_weight(table, acc)
    row, k = np.nonzero(np.arange(table.n_taps) < table.count[:, None])
    weight[row // TILE_I, table.first[row] + k - start[row // TILE_I], row % TILE_I] = packed[row, k]
    # Rows past the end are never stored; they must not spoil the part where nothing is asked.
    past = np.arange(table.n_dst, len(start) * TILE_I)
    weight[past // TILE_I, :, past % TILE_I] = 0
    tile = np.stack([start - table.source_range()[0], core, edge, length], axis=1).astype(np.int32)
    return Tiles(tile, weight.reshape(-1, together, *weight.shape[1:]).swapaxes(1, 2))


def windows(table: TapTable, together: int = 1) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """First sample that a tile reads and how many, shape (n_tiles,) each; these are as many for tiles made together.

    None of them lies beyond what the table reads.
    """
    first, end = _padded(table, together)
    start = first.min(axis=1)
    length = np.repeat((end.max(axis=1) - start).reshape(-1, together).max(axis=1), together)
    return np.minimum(start, table.source_range()[1] - length), length


class Turns(NamedTuple):
    """What blocks of v4 do one after the other; see `turn` and `turns` in kernels/resample_axis.cu.

    Attributes
    ----------
    turn : ndarray, int32, shape (n_turns, 4)
    turns : ndarray, int32, shape (n_groups + 1,)
    columns : int
        Between the passes, at most.
    """

    turn: npt.NDArray[np.int32]
    turns: npt.NDArray[np.int32]
    columns: int

    @property
    def groups(self) -> int:
        """Blocks along the second axis."""
        return len(self.turns) - 1

    def bytes(self, acc: np.dtype[Any]) -> int:
        """Of shared memory."""
        return self.columns * BETWEEN_PITCH * acc.itemsize


def make_turns(table: TapTable, acc: np.dtype[Any], block: Columns, whole: bool) -> Turns:
    """The turns of blocks of v4; columns count from the first that the table reads.

    A block makes a strip of columns, the fours of tiles that read no others, and goes on: the columns at the seam are
    made once. Where fours do not follow each other along the source, or the columns would not fit shared memory, all
    that a block makes is one turn.

    Parameters
    ----------
    table : TapTable
        The second one.
    acc : numpy.dtype
        Type of sums.
    block : Columns
        The blocks, where there are more than one along the axis.
    whole : bool
        One block makes all along the axis, if it can.
    """
    start, length = windows(table, FOUR)
    n = len(start) // FOUR
    # Pairs begin at even columns.
    low = (start.reshape(n, FOUR).min(axis=1) - table.source_range()[0]) // 2 * 2
    high = (start + length).reshape(n, FOUR).max(axis=1) - table.source_range()[0]
    if whole and (np.diff(low) >= 0).all() and (np.diff(high) >= 0).all():
        strips = _strips(low.tolist(), high.tolist())
        n_columns = max(end - begin for begin, _, end, _ in strips)
        made = Turns(np.array(strips, np.int32), np.array([0, len(strips)], np.int32), n_columns)
        if made.bytes(acc) <= SHARED_LIMIT:
            return made
    starts = np.arange(0, n, block.fours)
    lows, highs = np.minimum.reduceat(low, starts), np.maximum.reduceat(high, starts)
    turn = np.stack([lows, lows, highs, np.minimum(starts + block.fours, n)], axis=1)
    return Turns(turn.astype(np.int32), np.arange(len(turn) + 1, dtype=np.int32), int((highs - lows).max()))


def _strips(low: list[int], high: list[int]) -> list[tuple[int, int, int, int]]:
    """Turns of one block that makes all fours; each reads columns from `low` to `high`, and neither ever falls."""
    out: list[tuple[int, int, int, int]] = []
    f, end = 0, 0
    while f < len(low):
        begin = low[f]
        made = end if begin < end <= begin + KEPT else begin
        end = made
        while end < high[f]:
            end = min(end + STRIP, high[-1])
        while f < len(low) and high[f] <= end:
            f += 1
        out.append((begin, made, end, f))
    return out


def reach(table: TapTable, tiles: int) -> npt.NDArray[np.int32]:
    """First sample and end of what groups of `tiles` tiles read, shape (n_groups, 2).

    Samples count from the first that the table reads.
    """
    first, end = _padded(table)
    starts = range(0, len(first), tiles)
    lo = np.minimum.reduceat(first.min(axis=1), starts)
    hi = np.maximum.reduceat(end.max(axis=1), starts)
    return (np.stack([lo, hi], axis=1) - table.source_range()[0]).astype(np.int32)


def room(table: TapTable, acc: np.dtype[Any], direct: bool) -> Room | None:
    """The tiles of a block of v3 with which a line takes least, of those that fit; None if not even one does.

    A block that is wide reads few samples that its neighbours read too. Its warps make `GROUP` tiles at once.

    Parameters
    ----------
    table : TapTable
    acc : numpy.dtype
        Type of what is staged.
    direct : bool
        See `Room`.
    """
    first, end = _padded(table)
    low, high = first.min(axis=1), end.max(axis=1)
    window = int((high - low).max())
    best: tuple[float, Room] | None = None
    n = len(first)
    for tiles in (1, 2, 4, *range(GROUP, max(n, 1) + GROUP, GROUP)):
        starts = np.arange(0, n, tiles)
        spans = np.maximum.reduceat(high, starts) - np.minimum.reduceat(low, starts)
        # An odd pitch keeps 32 lines in 32 banks. Aligned loads begin up to 3 samples before the first that is tapped.
        found = Room(tiles, int(spans.max()) + EARLY | 1, direct)
        if found.bytes(acc) > SHARED_LIMIT:
            break
        turns = int((-(-np.minimum(n - starts, tiles) // GROUP)).sum())
        cost = LOADING * float(spans.sum()) + turns * GROUP * TILE_I * window
        if best is None or cost < best[0]:
            best = cost, found
    return best[1] if best else None


def columns(table: TapTable, acc: np.dtype[Any]) -> Columns | None:
    """The fours of tiles of a block of v4 with which rows take least, of those that fit; None if not even one does.

    A block makes the columns that it needs by the first table, of about as many taps, whole strips of `STRIP` at once,
    and its warps then make `GROUP` fours at once. Of blocks that take about as much the smallest: it leaves room for
    others.

    Parameters
    ----------
    table : TapTable
        The second one.
    acc : numpy.dtype
        Type of sums.
    """
    first, end = _padded(table, FOUR)
    n = len(first) // FOUR
    start = first.min(axis=1).reshape(n, FOUR)
    # All tiles of a four read as many samples as the longest does.
    length = (end.max(axis=1) - first.min(axis=1)).reshape(n, FOUR).max(axis=1)
    low, high = start.min(axis=1), start.max(axis=1) + length
    fit: list[tuple[float, Columns]] = []
    for fours in range(1, n + 1):
        starts = np.arange(0, n, fours)
        spans = np.maximum.reduceat(high, starts) - np.minimum.reduceat(low, starts)
        found = Columns(fours, int(spans.max()) + EARLY_PAIR)
        if found.bytes(acc) > SHARED_LIMIT:
            break
        fit.append((float((-(-spans // STRIP) + BEGINNING).sum()) + n / GROUP, found))
    least = min((cost for cost, _ in fit), default=0.0)
    return next((found for cost, found in fit if cost <= ABOUT * least), None)


class Load(NamedTuple):
    """What a kernel does for a plane."""

    moved: int  # bytes, to and from memory
    sums: int  # multiply-adds, those of idle lanes included

    @property
    def time(self) -> float:
        """In bytes moved: that of memory or of arithmetic, whichever is longer."""
        return max(self.moved, self.sums / SUMS_PER_BYTE)


class Estimate(NamedTuple):
    """Two passes, and one kernel for both."""

    first: Load
    second: Load
    both: Load

    @property
    def gain(self) -> float:
        """How many times as fast as the passes the one kernel is."""
        return (self.first.time + self.second.time) / self.both.time


def estimate(first: TapTable, second: TapTable, src: np.dtype[Any], acc: np.dtype[Any]) -> Estimate | None:
    """What a plane costs by two passes and by one kernel; None if the latter does not fit shared memory.

    What lies between is written once and read once by the passes, and not at all by the kernel. The kernel's blocks
    make strips of rows and groups of columns; where they meet, both read the source, and both make the sums of the
    first table. The result counts as one of sums, which is the most that it can be.
    """
    block = columns(second, acc)
    if block is None:
        return None
    n_rows, n_columns = (hi - lo for lo, hi in (first.source_range(), second.source_range()))
    rows_read = int(np.diff(reach(first, GROUP), axis=1).sum())
    spans = np.diff(reach(second, block.fours * FOUR), axis=1)
    between, out = (first.n_dst * n * acc.itemsize for n in (n_columns, second.n_dst))
    source = n_rows * n_columns * src.itemsize
    # Tables with gaps: blocks may read less than what the table spans.
    read = max(source, rows_read * int(spans.sum()) * src.itemsize)
    along_rows, along_columns = _multiplied(first), _multiplied(second) * first.n_dst
    return Estimate(
        Load(source + between, along_rows * _whole(n_columns)),
        Load(between + out, along_columns),
        Load(read + out, along_rows * int(_whole(spans).sum()) + along_columns),
    )


def _multiplied(table: TapTable) -> int:
    """Multiply-adds of a column, by tiles."""
    first, end = _padded(table)
    return int((end.max(axis=1) - first.min(axis=1)).sum()) * TILE_I


def _whole(n: Any) -> Any:
    """Columns, rounded up to what a warp makes at once."""
    return -(-n // STRIP) * STRIP


def fuses(first: TapTable, second: TapTable, contiguous: bool, src: np.dtype[Any], acc: np.dtype[Any]) -> bool:
    """Whether one kernel (v4) takes two tables, one after the other.

    It does if a block's part of what lies between fits shared memory, lanes and tiles are put to use, and it is clearly
    faster by what it moves and sums.

    Parameters
    ----------
    first, second : TapTable
    contiguous : bool
        Whether the second one's axis is the contiguous one of the source.
    src, acc : numpy.dtype
        Of the source and of sums.
    """
    if FUSE is not None:
        return FUSE and columns(second, acc) is not None
    # A warp's lanes are rows: fewer leave some idle. Tables whose rows share nothing are best without tiles.
    if not contiguous or acc != FUSED_SUMS or first.n_dst < LANES or min(sharing(first), sharing(second)) < SHARING:
        return False
    costs = estimate(first, second, src, acc)
    return costs is not None and costs.gain > GAIN


def stride(table: TapTable) -> int | None:
    """Samples from one row's only tap to the next one's, where a table but picks samples at equal distances."""
    if not table.is_index or table.n_dst == 0:
        return None
    apart = np.diff(table.first)
    if apart.size == 0:
        return 1
    return int(apart[0]) if apart[0] > 0 and bool((apart == apart[0]).all()) else None


class Steps(NamedTuple):
    """How the axes of a work are done.

    Attributes
    ----------
    strides : tuple of (axis, samples)
        Axes that need no pass: their tables are a `stride` of the source.
    passes : tuple of axes
        In their order: one axis, or two that one kernel takes.
    """

    strides: tuple[tuple[int, int], ...]
    passes: tuple[tuple[int, ...], ...]


def steps(
    tables: Sequence[TapTable], order: Sequence[int], contiguous: bool, src: np.dtype[Any], acc: np.dtype[Any]
) -> Steps:
    """How axes are done: by strides, at least one by a pass.

    Along x always by a pass, since loads of samples apart from each other fetch those between them too.

    Parameters
    ----------
    tables : three TapTable
        For z, y, x.
    order : sequence of int
    contiguous : bool
        Whether x is the contiguous axis of the source; of what lies between passes it is.
    src, acc : numpy.dtype
        Of the source and of sums.
    """
    apart = {axis: step for axis in order if axis != 2 and (step := stride(tables[axis])) is not None}
    if len(apart) == len(order):
        # Someone has to write the result.
        apart.pop(order[-1], None)
    left = tuple(axis for axis in order if axis not in apart)
    out: list[tuple[int, ...]] = []
    while left:
        whole = contiguous if not out else True
        joined = len(left) > 1 and fuses(
            tables[left[0]], tables[left[1]], whole and left[1] == 2, acc if out else src, acc
        )
        n = 2 if joined else 1
        out.append(left[:n])
        left = left[n:]
    return Steps(tuple(apart.items()), tuple(out))
