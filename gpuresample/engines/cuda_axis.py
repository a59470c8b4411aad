"""Launches of separable work on CUDA: one pass per axis, copies by index, and what lies outside."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from gpuresample.engines.contract import Separable, Store
from gpuresample.engines.cuda_runtime import Argument, Launch, Pointer, Runtime, Types, Uploads
from gpuresample.engines.packing import accumulator, bounds_of, packed_weight, rounding_of
from gpuresample.engines.views import NONE, Axis, View, contiguous, merge
from gpuresample.taps import TapTable

# As kernels/resample_axis.cu has them.
TILE_I, TILE_J, LANES, GROUP = 4, 4, 32, 8
# Threads of a block where there is one per output.
BLOCK = 256
# Tiles of a block of v3: as many as keep its shared memory below the aim, so that several blocks fit a multiprocessor
# (64 KB on the smallest); never above what every GPU grants without asking.
MOST_TILES, SHARED_AIM, SHARED_LIMIT = 16, 24 << 10, 48 << 10
# Tiles pay where neighbouring outputs share samples: taps per sample read, above which they do.
SHARING = 1.5
# Taps per voxel, all axes together, up to which one kernel takes all axes: the two volumes between three passes cost
# more than taps that are made anew for every voxel. Linear interpolation has 8.
FEW_TAPS = 8
# Offsets below this fit a 32-bit int, with room for the threads past the end of a grid.
NARROW = 2**31 - 2**16


class Tiles(NamedTuple):
    """A table for the tiled kernels: `TILE_I` rows at a time.

    Attributes
    ----------
    tile : ndarray, int32, shape (n_tiles, 4)
        First sample; samples from there to where all rows tap, to where they cease to, to the end.
    weight : ndarray, shape (n_tiles, window, TILE_I)
        NaN where a row does not tap a sample.
    """

    tile: npt.NDArray[np.int32]
    weight: npt.NDArray[Any]

    @property
    def window(self) -> int:
        """Samples of the longest tile."""
        return int(self.weight.shape[1])

    def reach(self, tiles: int) -> npt.NDArray[np.int32]:
        """First sample and end of what groups of `tiles` tiles read, shape (n_groups, 2)."""
        starts = range(0, len(self.tile), tiles)
        lo = np.minimum.reduceat(self.tile[:, 0], starts)
        hi = np.maximum.reduceat(self.tile[:, 0] + self.tile[:, 3], starts)
        return np.stack([lo, hi], axis=1)


def sharing(table: TapTable) -> float:
    """Taps per sample that a tile reads: what tiles save."""
    first, end = _padded(table)
    windows = end.max(axis=1) - first.min(axis=1)
    return float(table.count.sum() / windows.sum())


def _padded(table: TapTable) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """First tap and end of every row, shape (n_tiles, TILE_I); the last tile repeats its last row."""
    rows = np.minimum(np.arange(-(-table.n_dst // TILE_I) * TILE_I), table.n_dst - 1).reshape(-1, TILE_I)
    return table.first[rows], (table.first + table.count)[rows]


def tiles_bytes(table: TapTable, acc: np.dtype[Any]) -> int:
    """Bytes of a table's tiles."""
    first, end = _padded(table)
    if len(first) == 0:
        return 0
    return len(first) * (16 + int((end.max(axis=1) - first.min(axis=1)).max()) * TILE_I * acc.itemsize)


def make_tiles(table: TapTable, acc: np.dtype[Any]) -> Tiles:
    """A table for the tiled kernels; samples count from the first that the table reads."""
    first, end = _padded(table)
    start, stop = first.min(axis=1), end.max(axis=1)
    core, edge = first.max(axis=1), end.min(axis=1)
    # Rows of a tile that share nothing have no core.
    apart = core >= edge
    core[apart] = edge[apart] = stop[apart]
    weight = np.full((len(start), int((stop - start).max()), TILE_I), np.nan, acc)
    packed = packed_weight(table, acc)
    row, k = np.nonzero(np.arange(table.n_taps) < table.count[:, None])
    weight[row // TILE_I, table.first[row] + k - start[row // TILE_I], row % TILE_I] = packed[row, k]
    # Rows past the end are never stored; they must not spoil the part where nothing is asked.
    for r in range((table.n_dst - 1) % TILE_I + 1, TILE_I):
        weight[-1, :, r] = 0
    lo = table.source_range()[0]
    tile = np.stack([start - lo, core - start, edge - start, stop - start], axis=1).astype(np.int32)
    return Tiles(tile, weight)


@dataclass(frozen=True)
class Pass:
    """One axis of a volume, from one view to another; sizes and strides as the kernels' arguments."""

    src: View
    dst: View
    n_dst: int
    axis: Axis
    batch: Axis
    outer: Axis
    inner: Axis

    @classmethod
    def of(cls, src: View, dst: View, axis: int, by: str) -> Pass:
        """The pass along `axis` of views (batch, z, y, x). `by`: whose strides order the other axes, "s" or "d"."""
        others = [Axis(*pair) for pair in zip(dst.shape, src.strides, dst.strides, strict=True)]
        along = others.pop(axis)
        others.sort(key=lambda a: -abs(getattr(a, by)))
        batch, outer, inner = ([NONE] * 3 + merge(others))[-3:]
        return cls(src, dst, along.n, along, batch, outer, inner)

    @property
    def lines(self) -> int:
        """Lines along the axis."""
        return self.batch.n * self.outer.n * self.inner.n

    @property
    def idx(self) -> type[np.int32] | type[np.int64]:
        """Type of offsets."""
        return narrowest(self.src.reach, self.dst.reach, self.lines * self.n_dst)

    def types(self, acc: np.dtype[Any]) -> Types:
        """What the kernel is compiled for."""
        return Types(self.src.dtype.name, self.dst.dtype.name, acc.name, self.idx.__name__)

    def shape(self) -> tuple[np.generic, ...]:
        """The kernels' sizes and strides."""
        idx, axes = self.idx, (self.batch, self.outer, self.axis, self.inner)
        sizes = (idx(self.batch.n), idx(self.outer.n), np.int32(self.n_dst), idx(self.inner.n))
        return (*sizes, *[idx(a.s) for a in axes], *[idx(a.d) for a in axes])


def narrowest(*counts: int) -> type[np.int32] | type[np.int64]:
    """The offset type that holds all counts."""
    return np.int32 if max(counts) < NARROW else np.int64


def pointer(view: View, many: int = 1) -> Pointer:
    """A view's first element as an argument; `many` elements are one of what the kernel points at."""
    return Pointer(view.address, view.dtype.itemsize * many, view.keep)


class Axes:
    """Separable work on a runtime."""

    def __init__(self, runtime: Runtime, uploads: Uploads) -> None:
        self._runtime = runtime
        self._uploads = uploads

    def upload(self, array: npt.NDArray[Any], many: int = 1) -> Pointer:
        """A host array's copy on the device, as an argument."""
        copy = self._runtime.upload(np.ascontiguousarray(array))
        return Pointer(self._runtime.address(copy), array.dtype.itemsize * many, copy)

    def scratch(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> View:
        """New memory."""
        array = self._runtime.empty(shape, dtype)
        return contiguous(self._runtime.address(array), dtype, shape, array)

    def run(self, work: Separable, src: View, dst: View, store: Store) -> None:
        """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x)."""
        if work.copies and src.dtype == dst.dtype:
            self.copy(work, src, dst, store)
            return
        dst = dst.transpose([0, *[1 + axis for axis in work.dst_axis]])
        self.fill_outside(work, dst, store)
        for axis, (lo, hi) in enumerate(work.inside):
            dst = dst.narrow(1 + axis, lo, hi)
            if hi == lo:
                return
            src = src.narrow(1 + axis, *work.tables[axis].source_range())
        acc = accumulator(work.precision)
        if math.prod(table.n_taps for table in work.tables) <= FEW_TAPS:
            self.at_once(work, src, dst, acc, store)
            return
        order = work.order
        for axis in order:
            table = work.tables[axis]
            last = axis == order[-1]
            shape = (*src.shape[: 1 + axis], table.n_dst, *src.shape[2 + axis :])
            target = dst if last else self.scratch(shape, acc)
            self.along(table, src, target, 1 + axis, acc, store if last else Store())
            src = target

    def at_once(self, work: Separable, src: View, dst: View, acc: np.dtype[Any], store: Store) -> None:
        """All axes in one kernel; views are (batch, z, y, x), `src` from the first samples that the tables read."""
        tables = [pointer for table in work.tables for pointer in self._plain(table, acc)]
        n_b, n_z, n_y, n_x = dst.shape
        voxels = math.prod(dst.shape)
        idx = narrowest(src.reach, dst.reach, voxels)
        arguments: list[Argument] = [
            pointer(src), *tables, pointer(dst), idx(n_b), np.int32(n_z), np.int32(n_y), np.int32(n_x),
            *[np.int32(table.n_taps) for table in work.tables], *[idx(s) for s in src.strides],
            *[idx(s) for s in dst.strides], *_storing(dst.dtype, acc, store),
        ]  # fmt: skip
        types = Types(src.dtype.name, dst.dtype.name, acc.name, idx.__name__)
        blocks = -(-voxels // BLOCK)
        self._runtime.launch(Launch("resample_volume", "resample_volume", types, blocks, (BLOCK, 1), arguments))

    # --- passes ------------------------------------------------------------------------------------------------

    def along(self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store) -> None:
        """One pass; `src` begins at the first sample that the table reads."""
        version = self.choose(table, src, dst, axis)
        getattr(self, version)(table, src, dst, axis, acc, store)

    def choose(self, table: TapTable, src: View, dst: View, axis: int) -> str:
        """Which version of resample_axis a pass takes.

        Tiles where neighbouring outputs share samples; of these, staged lines where the axis is the contiguous one.
        """
        shared = self._uploads.get(table, "sharing", lambda: sharing(table))
        lines = Pass.of(src, dst, axis, "s").lines
        if shared < SHARING or lines < LANES:
            return "plain"
        if src.strides[axis] != 1:
            return "tile"
        return "staged" if self._room(table, src, dst, axis) else "plain"

    def plain(self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store) -> None:
        """v1: one thread per output."""
        it = Pass.of(src, dst, axis, "s")

        tables = self._plain(table, acc)
        contiguous_axis = abs(it.axis.d) == 1
        blocks = -(-it.lines * it.n_dst // BLOCK)
        arguments: list[Argument] = [
            pointer(src), *tables, pointer(dst), *it.shape(), *_storing(dst.dtype, acc, store), np.int32(table.n_taps),
            np.int32(contiguous_axis),
        ]  # fmt: skip
        self._runtime.launch(Launch("resample_axis", "resample_axis", it.types(acc), blocks, (BLOCK, 1), arguments))

    def tile(self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store) -> None:
        """v2: 4 outputs along the axis for 4 columns."""
        it = Pass.of(src, dst, axis, "s")
        tile, weight, window, n_tiles = self._tiles(table, acc)
        others = (it.batch, it.outer, it.axis)
        wide = (
            it.inner.n % TILE_J == 0
            and it.inner.s == it.inner.d == 1
            and _in_fours(src, [a.s for a in others])
            and _in_fours(dst, [a.d for a in others])
        )
        strips = -(-it.inner.n // (LANES * TILE_J))
        blocks = -(-n_tiles // GROUP) * strips * it.outer.n * it.batch.n
        arguments: list[Argument] = [
            pointer(src), tile, weight, pointer(dst), *it.shape(), *_storing(dst.dtype, acc, store), np.int32(window),
            np.int32(wide),
        ]  # fmt: skip
        self._runtime.launch(
            Launch("resample_axis", "resample_axis_tile", it.types(acc), blocks, (LANES, GROUP), arguments)
        )

    def staged(self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store) -> None:
        """v3: lines of the contiguous axis, staged in shared memory.

        Raises
        ------
        ValueError
            If not even one tile of 32 lines fits shared memory.
        """
        it = Pass.of(src, dst, axis, "d")
        tile, weight, window, n_tiles = self._tiles(table, acc)
        room = self._room(table, src, dst, axis)
        if room is None:
            raise ValueError(f"a tile of the table reads more samples than shared memory holds: {window}")
        tiles, pitch, out_pitch = room
        reach = self._uploads.get(table, ("reach", tiles), lambda: self.upload(make_tiles(table, acc).reach(tiles)))
        wide = _in_fours(src, [a.s for a in (it.batch, it.outer, it.inner)])
        blocks = -(-n_tiles // tiles) * -(-it.lines // LANES)
        arguments: list[Argument] = [
            pointer(src), tile, weight, reach, pointer(dst), *it.shape(), *_storing(dst.dtype, acc, store),
            np.int32(window), np.int32(tiles), np.int32(pitch), np.int32(out_pitch), np.int32(wide),
        ]  # fmt: skip
        shared = LANES * (pitch + out_pitch) * acc.itemsize
        types, block = it.types(acc), (LANES, GROUP)
        self._runtime.launch(Launch("resample_axis", "resample_axis_lines", types, blocks, block, arguments, shared))

    def _plain(self, table: TapTable, acc: np.dtype[Any]) -> tuple[Pointer, Pointer, Pointer]:
        """First, count and weight on the device; samples count from the first that the table reads."""

        def make() -> tuple[Pointer, Pointer, Pointer]:
            first = (table.first - table.source_range()[0]).astype(np.int32)
            weight = packed_weight(table, acc)
            return self.upload(first), self.upload(table.count.astype(np.int32)), self.upload(weight)

        return self._uploads.get(table, ("plain", acc.name), make)

    def _tiles(self, table: TapTable, acc: np.dtype[Any]) -> tuple[Pointer, Pointer, int, int]:
        """Tiles and weights on the device, the window, the number of tiles."""

        def make() -> tuple[Pointer, Pointer, int, int]:
            made = make_tiles(table, acc)
            return self.upload(made.tile), self.upload(made.weight, TILE_I), made.window, len(made.tile)

        return self._uploads.get(table, ("tiles", acc.name), make)

    def _room(self, table: TapTable, src: View, dst: View, axis: int) -> tuple[int, int, int] | None:
        """Tiles of a block of v3, and the pitches of its lines of samples and of results; None if nothing fits."""
        # Lines that lie side by side in the destination are stored from registers.
        direct = abs(Pass.of(src, dst, axis, "d").inner.d) == 1

        def make() -> tuple[int, int, int] | None:
            acc = np.dtype(np.float64)  # the widest: the same blocks whatever the type
            made = make_tiles(table, acc)
            best = None
            tiles = min(MOST_TILES, 1 << (len(made.tile) - 1).bit_length())
            while tiles >= 1 and best is None:
                reach = made.reach(tiles)
                # Aligned loads begin up to 3 samples early. An odd pitch keeps 32 lines in 32 banks.
                pitch = int((reach[:, 1] - reach[:, 0]).max()) + 3 | 1
                out_pitch = 0 if direct else tiles * TILE_I | 1
                if LANES * (pitch + out_pitch) * acc.itemsize <= (SHARED_AIM if tiles > 1 else SHARED_LIMIT):
                    best = tiles, pitch, out_pitch
                tiles //= 2
            return best

        return self._uploads.get(table, ("room", direct), make)

    # --- copies ------------------------------------------------------------------------------------------------

    def copy(self, work: Separable, src: View, dst: View, store: Store) -> None:
        """Copy by index, bit by bit, and the default outside."""
        fill = fill_of(store, dst.dtype, dst.bits().dtype)
        src, dst = src.bits(), dst.bits()
        dst = dst.transpose([0, *[1 + axis for axis in work.dst_axis]])

        def make() -> list[Pointer]:
            out = []
            for table, n, (lo, hi) in zip(work.tables, work.n_dst, work.inside, strict=True):
                index = np.full(n, -1, np.int32)
                index[lo:hi] = table.first
                out.append(self.upload(index))
            return out

        index = self._uploads.get(work, "index", make)
        # Threads follow the destination's memory.
        order = sorted((1, 2, 3), key=lambda axis: -abs(dst.strides[axis]))
        src, dst = src.transpose([0, *order]), dst.transpose([0, *order])
        n_b, n_z, n_y, n_x = dst.shape
        voxels = math.prod(dst.shape)
        fours = n_x % 4 == 0 and dst.strides[3] == 1 and _in_fours(dst, dst.strides[:3])
        idx = narrowest(src.reach, dst.reach, voxels)
        types = Types(src.dtype.name, dst.dtype.name, idx=idx.__name__)
        arguments: list[Argument] = [
            pointer(src), *[index[axis - 1] for axis in order], pointer(dst), idx(n_b), np.int32(n_z), np.int32(n_y),
            np.int32(n_x), *[idx(s) for s in src.strides], *[idx(s) for s in dst.strides], fill,
        ]  # fmt: skip
        blocks = -(-(voxels // 4 if fours else voxels) // BLOCK)
        self._runtime.launch(Launch("take", "take_four" if fours else "take", types, blocks, (BLOCK, 1), arguments))

    def convert(self, src: View, dst: View, rounding: int, factor: float) -> None:
        """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x), every voxel times a factor and in another type."""
        # Threads follow the destination's memory.
        order = sorted((1, 2, 3), key=lambda axis: -abs(dst.strides[axis]))
        src, dst = src.transpose([0, *order]), dst.transpose([0, *order])
        n_b, n_z, n_y, n_x = dst.shape
        voxels = math.prod(dst.shape)
        idx = narrowest(src.reach, dst.reach, voxels)
        types = Types(src.dtype.name, dst.dtype.name, idx=idx.__name__)
        arguments: list[Argument] = [
            pointer(src), pointer(dst), idx(n_b), np.int32(n_z), np.int32(n_y), np.int32(n_x),
            *[idx(s) for s in src.strides], *[idx(s) for s in dst.strides], np.int32(rounding), np.float64(factor),
        ]  # fmt: skip
        self._runtime.launch(Launch("convert", "convert_voxels", types, -(-voxels // BLOCK), (BLOCK, 1), arguments))

    def fill_outside(self, work: Separable, dst: View, store: Store) -> None:
        """The default into whatever lies outside the source; `dst` (batch, z, y, x) in the source's order of axes."""
        for axis, (lo, hi) in enumerate(work.inside, start=1):
            self.fill(dst.narrow(axis, 0, lo), store)
            self.fill(dst.narrow(axis, hi, dst.shape[axis]), store)
            dst = dst.narrow(axis, lo, hi)

    def fill(self, dst: View, store: Store) -> None:
        """The default into a box."""
        voxels = math.prod(dst.shape)
        if voxels == 0:
            return
        fill = fill_of(store, dst.dtype, dst.bits().dtype)
        order = sorted((1, 2, 3), key=lambda axis: -abs(dst.strides[axis]))
        dst = dst.bits().transpose([0, *order])
        n_b, n_z, n_y, n_x = dst.shape
        idx = narrowest(dst.reach, voxels)
        types = Types(dst.dtype.name, dst.dtype.name, idx=idx.__name__)
        arguments: list[Argument] = [
            pointer(dst), idx(n_b), np.int32(n_z), np.int32(n_y), np.int32(n_x), *[idx(s) for s in dst.strides], fill,
        ]  # fmt: skip
        self._runtime.launch(Launch("take", "fill_box", types, -(-voxels // BLOCK), (BLOCK, 1), arguments))


def fill_of(store: Store, dtype: np.dtype[Any], seen_as: np.dtype[Any]) -> np.generic:
    """The default of a destination type as an argument, its bits seen as another type."""
    return cast("np.generic", np.array(store.default, dtype).view(seen_as)[()])


def _storing(dtype: np.dtype[Any], acc: np.dtype[Any], store: Store) -> tuple[np.generic, ...]:
    """The kernels' low, high and rounding."""
    low, high = bounds_of(dtype, acc, store.high)
    return low, high, np.int32(rounding_of(dtype, store.truncate))


def _in_fours(view: View, strides: Any) -> bool:
    """Whether steps of these strides from a view's first element keep to whole, aligned fours of elements."""
    unit = min(16, 4 * view.dtype.itemsize)
    return view.address % unit == 0 and all(s % 4 == 0 for s in strides)
