"""Launches of separable work on CUDA: one pass per axis, copies by index, and what lies outside."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda import structs
from gpuresample.engines.cuda import tiles as cuda_tiles
from gpuresample.engines.cuda.runtime import Argument, Launch, Pointer, Runtime, Types, Uploads
from gpuresample.engines.cuda.structs import storing
from gpuresample.engines.cuda.tiles import (
    FOUR,
    GROUP,
    LANES,
    SHARING,
    TILE_I,
    TILE_J,
    Columns,
    Room,
    Steps,
    columns,
    make_tiles,
    make_turns,
    reach,
    room,
    sharing,
    steps,
)
from gpuresample.engines.cuda.views import NONE, Axis, View, contiguous, merge
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator, packed_weight
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable

# Voxels along y that a thread of kernels/resample_volume.cu makes.
ROWS = 8
# Threads of a block where there is one per output.
BLOCK = 256
# Taps per voxel, all axes together, up to which one kernel takes all axes: the two volumes between three passes cost
# more than taps that are made anew for every voxel. Linear interpolation has 8.
FEW_TAPS = 8
# Offsets below this fit a 32-bit int, with room for the threads past the end of a grid.
NARROW = 2**31 - 2**16
# Blocks that keep a large GPU busy: 4 on each of some 140 multiprocessors, and as many to follow.
MANY_BLOCKS = 1024
# What sums go through, see `Store.window`: as they are, but for -0, which becomes 0.
UNSIGNED_ZERO = (-math.inf, math.inf, 1.0, 0.0)


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
        return Types.of(self.src.dtype, self.dst.dtype, self.idx, acc)

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
        if work.copies and src.dtype == dst.dtype and store.window is None:
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
        # Sums of integers are finite, of all passes: samples that are not tapped may weigh 0. That takes the sign of
        # a zero away, so none of them has one.
        finite = src.dtype.kind != "f"
        if finite and dst.dtype.kind == "f":
            low, top, scale, offset = store.window or UNSIGNED_ZERO
            store = replace(store, window=(low, top, scale, offset + 0.0))
        if math.prod(table.n_taps for table in work.tables) <= FEW_TAPS:
            self.at_once(work, src, dst, acc, store)
            return
        strides, passes = self.steps(work, src, acc)
        for axis, apart in strides:
            src = src.every(1 + axis, apart)
        for axes in passes:
            last = axes == passes[-1]
            shape = list(src.shape)
            for axis in axes:
                shape[1 + axis] = work.tables[axis].n_dst
            target = dst if last else self.scratch(tuple(shape), acc)
            self.step(work, axes, src, target, acc, store if last else Store(), finite)
            src = target

    def steps(self, work: Separable, src: View, acc: np.dtype[Any]) -> Steps:
        """How a work's axes are done."""
        contiguous = src.strides[3] == 1

        def make() -> Steps:
            return steps(work.tables, work.order, contiguous, src.dtype, acc)

        return self._uploads.get(work, ("steps", contiguous, src.dtype, cuda_tiles.FUSE), make)

    def step(
        self,
        work: Separable,
        axes: tuple[int, ...],
        src: View,
        dst: View,
        acc: np.dtype[Any],
        store: Store,
        finite: bool = False,
    ) -> None:
        """One of a work's passes; `src` begins at the first samples that the tables read.

        `finite`: no sample is infinite or NaN. See `make_tiles`.
        """
        if len(axes) == 1:
            self.along(work.tables[axes[0]], src, dst, 1 + axes[0], acc, store, finite)
        else:
            first, second = axes
            tables = work.tables[first], work.tables[second]
            self.plane(tables, src, dst, (1 + first, 1 + second), acc, store, finite)

    def at_once(self, work: Separable, src: View, dst: View, acc: np.dtype[Any], store: Store) -> None:
        """All axes in one kernel; views are (batch, z, y, x), `src` from the first samples that the tables read."""
        tables = [pointer for table in work.tables for pointer in self._plain(table, acc)]
        n_b, n_z, n_y, n_x = dst.shape
        voxels = math.prod(dst.shape)
        idx = narrowest(src.reach, dst.reach, voxels)
        arguments: list[Argument] = [
            pointer(src), *tables, pointer(dst), structs.batch(idx, src, dst),
            *[np.int32(table.n_taps) for table in work.tables], *storing(dst.dtype, acc, store),
        ]  # fmt: skip
        types = Types.of(src.dtype, dst.dtype, idx, acc)
        # Narrow volumes have threads for as many more rows.
        across = min(LANES, 1 << (n_x - 1).bit_length())
        block = (across, BLOCK // across)
        blocks = -(-n_x // block[0]) * -(-n_y // (block[1] * ROWS)) * n_z * n_b
        function = "resample_volume_two" if max(table.n_taps for table in work.tables) <= 2 else "resample_volume"
        self._runtime.launch(Launch("resample_volume", function, types, blocks, block, arguments))

    # --- passes ------------------------------------------------------------------------------------------------

    def along(
        self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store, finite: bool = False
    ) -> None:
        """One pass; `src` begins at the first sample that the table reads."""
        version = self.choose(table, src, dst, axis)
        getattr(self, version)(table, src, dst, axis, acc, store, finite)

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

    def plain(
        self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store, finite: bool = False
    ) -> None:
        """v1: one thread per output."""
        it = Pass.of(src, dst, axis, "s")

        tables = self._plain(table, acc)
        contiguous_axis = abs(it.axis.d) == 1
        blocks = -(-it.lines * it.n_dst // BLOCK)
        arguments: list[Argument] = [
            pointer(src), *tables, pointer(dst), *it.shape(), *storing(dst.dtype, acc, store), np.int32(table.n_taps),
            np.int32(contiguous_axis),
        ]  # fmt: skip
        self._runtime.launch(Launch("resample_axis", "resample_axis", it.types(acc), blocks, (BLOCK, 1), arguments))

    def tile(
        self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store, finite: bool = False
    ) -> None:
        """v2: 4 outputs along the axis for 4 columns."""
        it = Pass.of(src, dst, axis, "s")
        tile, weight, window, n_tiles = self._tiles(table, acc, finite=finite)
        others = (it.batch, it.outer, it.axis)
        wide = (
            it.inner.n % TILE_J == 0
            and it.inner.s == it.inner.d == 1
            and _aligned(src, [a.s for a in others])
            and _aligned(dst, [a.d for a in others])
        )
        strips = -(-it.inner.n // (LANES * TILE_J))
        blocks = -(-n_tiles // GROUP) * strips * it.outer.n * it.batch.n
        arguments: list[Argument] = [
            pointer(src), tile, weight, pointer(dst), *it.shape(), *storing(dst.dtype, acc, store), np.int32(window),
            np.int32(wide),
        ]  # fmt: skip
        self._runtime.launch(
            Launch("resample_axis", "resample_axis_tile", it.types(acc), blocks, (LANES, GROUP), arguments)
        )

    def staged(
        self, table: TapTable, src: View, dst: View, axis: int, acc: np.dtype[Any], store: Store, finite: bool = False
    ) -> None:
        """v3: lines of the contiguous axis, staged in shared memory.

        Raises
        ------
        ValueError
            If not even one tile of 32 lines fits shared memory.
        """
        it = Pass.of(src, dst, axis, "d")
        tile, weight, window, n_tiles = self._tiles(table, acc, finite=finite)
        block = self._room(table, src, dst, axis)
        if block is None:
            raise ValueError(f"a tile of the table reads more samples than shared memory holds: {window}")
        wide = _aligned(src, [a.s for a in (it.batch, it.outer, it.inner)])
        blocks = -(-n_tiles // block.tiles) * -(-it.lines // LANES)
        arguments: list[Argument] = [
            pointer(src), tile, weight, self._reach(table, block.tiles), pointer(dst), *it.shape(),
            *storing(dst.dtype, acc, store), np.int32(window), *[np.int32(n) for n in block], np.int32(wide),
        ]  # fmt: skip
        shared = block.bytes(acc)
        self._runtime.launch(
            Launch("resample_axis", "resample_axis_lines", it.types(acc), blocks, (LANES, GROUP), arguments, shared)
        )

    def plane(
        self,
        tables: tuple[TapTable, TapTable],
        src: View,
        dst: View,
        axes: tuple[int, int],
        acc: np.dtype[Any],
        store: Store,
        finite: bool = False,
    ) -> None:
        """v4: a table along one axis and then one along another, the bits of two passes.

        Raises
        ------
        ValueError
            If not even four tiles of the second table for 32 rows fit shared memory.
        """
        (first, second), (row, column) = tables, axes
        others = [Axis(dst.shape[a], src.strides[a], dst.strides[a]) for a in range(4) if a not in axes]
        others.sort(key=lambda a: -abs(a.s))
        batch, outer = ([NONE] * 2 + merge(others))[-2:]
        row_tile, row_weight, row_window, n_row_tiles = self._tiles(first, acc, finite=finite)
        tile, weight, window, _ = self._tiles(second, acc, FOUR, finite)
        block = self._uploads.get(second, ("columns", acc), lambda: columns(second, acc))
        if block is None:
            raise ValueError(f"tiles of the second table read more columns than shared memory holds: {window}")
        idx = narrowest(src.reach, dst.reach, math.prod(dst.shape))
        types = Types.of(src.dtype, dst.dtype, idx, acc)
        # Blocks of a whole row of tiles make no column twice; where they are few, more of them keep a GPU busy.
        strips = -(-n_row_tiles // GROUP) * batch.n * outer.n
        whole = strips >= MANY_BLOCKS
        turn, turns, groups, shared = self._turns(second, acc, block, whole)
        pairs = src.strides[column] == 1 and _aligned(src, (batch.s, outer.s, src.strides[row]), 2)
        arguments: list[Argument] = [
            pointer(src), row_tile, row_weight, tile, weight, turn, turns, pointer(dst),
            idx(outer.n), np.int32(first.n_dst), np.int32(second.n_dst),
            *[idx(s) for s in (batch.s, outer.s, src.strides[row], src.strides[column])],
            *[idx(d) for d in (batch.d, outer.d, dst.strides[row], dst.strides[column])],
            *storing(dst.dtype, acc, store), np.int32(row_window), np.int32(window), np.int32(groups),
            np.int32(src.shape[column]), np.int32(pairs),
        ]  # fmt: skip
        launch = Launch(
            "resample_axis", "resample_axis_plane", types, groups * strips, (LANES, GROUP), arguments, shared
        )
        self._runtime.launch(launch)

    def _plain(self, table: TapTable, acc: np.dtype[Any]) -> tuple[Pointer, Pointer, Pointer]:
        """First, count and weight on the device; samples count from the first that the table reads."""

        def make() -> tuple[Pointer, Pointer, Pointer]:
            first = (table.first - table.source_range()[0]).astype(np.int32)
            weight = packed_weight(table, acc)
            return self.upload(first), self.upload(table.count.astype(np.int32)), self.upload(weight)

        return self._uploads.get(table, ("plain", acc), make)

    def _tiles(
        self, table: TapTable, acc: np.dtype[Any], together: int = 1, finite: bool = False
    ) -> tuple[Pointer, Pointer, int, int]:
        """Tiles and weights on the device, the window, the number of tiles; see `make_tiles`."""

        def make() -> tuple[Pointer, Pointer, int, int]:
            made = make_tiles(table, acc, together, finite)
            return self.upload(made.tile), self.upload(made.weight, TILE_I), made.window, len(made.tile)

        return self._uploads.get(table, ("tiles", acc, together, finite), make)

    def _reach(self, table: TapTable, tiles: int) -> Pointer:
        """What groups of tiles read, on the device."""
        return self._uploads.get(table, ("reach", tiles), lambda: self.upload(reach(table, tiles)))

    def _turns(
        self, table: TapTable, acc: np.dtype[Any], block: Columns, whole: bool
    ) -> tuple[Pointer, Pointer, int, int]:
        """Turns and each block's first on the device, the number of blocks, bytes of shared memory."""

        def make() -> tuple[Pointer, Pointer, int, int]:
            made = make_turns(table, acc, block, whole)
            return self.upload(made.turn), self.upload(made.turns), made.groups, made.bytes(acc)

        return self._uploads.get(table, ("turns", acc, whole), make)

    def _room(self, table: TapTable, src: View, dst: View, axis: int) -> Room | None:
        """A block of v3; None if nothing fits."""
        # Lines that lie side by side in the destination are stored from registers.
        direct = abs(Pass.of(src, dst, axis, "d").inner.d) == 1
        # As for the widest type: the same blocks whatever the type.
        widest = np.dtype(np.float64)
        return self._uploads.get(table, ("room", direct), lambda: room(table, widest, direct))

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
        voxels = math.prod(dst.shape)
        fours = dst.shape[3] % 4 == 0 and dst.strides[3] == 1 and _aligned(dst, dst.strides[:3])
        idx = narrowest(src.reach, dst.reach, voxels)
        types = Types.of(src.dtype, dst.dtype, idx)
        arguments: list[Argument] = [
            pointer(src), *[index[axis - 1] for axis in order], pointer(dst), structs.batch(idx, src, dst), fill,
        ]  # fmt: skip
        blocks = -(-(voxels // 4 if fours else voxels) // BLOCK)
        self._runtime.launch(Launch("take", "take_four" if fours else "take", types, blocks, (BLOCK, 1), arguments))

    def convert(self, src: View, dst: View, rounding: int, factor: float) -> None:
        """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x), every voxel times a factor and in another type."""
        # Threads follow the destination's memory.
        order = sorted((1, 2, 3), key=lambda axis: -abs(dst.strides[axis]))
        src, dst = src.transpose([0, *order]), dst.transpose([0, *order])
        voxels = math.prod(dst.shape)
        idx = narrowest(src.reach, dst.reach, voxels)
        types = Types.of(src.dtype, dst.dtype, idx)
        arguments: list[Argument] = [
            pointer(src), pointer(dst), structs.batch(idx, src, dst), np.int32(rounding), np.float64(factor),
        ]  # fmt: skip
        self._runtime.launch(Launch("convert", "convert_voxels", types, -(-voxels // BLOCK), (BLOCK, 1), arguments))

    def fill_outside(self, work: Separable, dst: View, store: Store) -> None:
        """The default into whatever lies outside the source; `dst` (batch, z, y, x) in the source's order of axes."""
        for axis, (lo, hi) in enumerate(work.inside, start=1):
            for outside in ((0, lo), (hi, dst.shape[axis])):
                if outside[0] < outside[1]:
                    self.fill(dst.narrow(axis, *outside), store)
            dst = dst.narrow(axis, lo, hi)

    def fill(self, dst: View, store: Store) -> None:
        """The default into a box."""
        voxels = math.prod(dst.shape)
        if voxels == 0:
            return
        fill = fill_of(store, dst.dtype, dst.bits().dtype)
        order = sorted((1, 2, 3), key=lambda axis: -abs(dst.strides[axis]))
        dst = dst.bits().transpose([0, *order])
        idx = narrowest(dst.reach, voxels)
        types = Types.of(dst.dtype, dst.dtype, idx)
        arguments: list[Argument] = [
            pointer(dst), structs.batch(idx, None, dst), fill,
        ]  # fmt: skip
        self._runtime.launch(Launch("take", "fill_box", types, -(-voxels // BLOCK), (BLOCK, 1), arguments))


def fill_of(store: Store, dtype: np.dtype[Any], seen_as: np.dtype[Any]) -> np.generic:
    """The default of a destination type as an argument, its bits seen as another type."""
    return cast("np.generic", np.array(store.default, dtype).view(seen_as)[()])


def _aligned(view: View, strides: Iterable[int], n: int = 4) -> bool:
    """Whether steps of these strides from a view's first element keep to whole, aligned groups of `n` elements."""
    unit = min(16, n * view.dtype.itemsize)
    return view.address % unit == 0 and all(s % n == 0 for s in strides)
