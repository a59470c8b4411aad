"""Routes on the CPU engine: where the voxels of a block of the output lie on the source.

A route of linear stages is a scan line's two ends; any other is walked voxel by voxel, stage by stage, in scratch that
stays in a core's cache. Nothing of the output's size is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import path_kernels as kernels
from gpuresample.engines.cpu.memory import Flat
from gpuresample.engines.cpu.tables import scratch
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.works import Lattice, Linear, Route

Move = Callable[[int, int, int, int, FloatArray], None]
"""`move(z, y, x, n_y, points)`: points of a block that begins at a voxel of the whole output, in place."""


@dataclass(frozen=True, eq=False)
class Walk:
    """A route, made ready for the kernels: flat memory and packed tables, once for all blocks."""

    route: Route
    numbers: tuple[FloatArray, ...]
    moves: tuple[Move, ...]

    @classmethod
    def of(cls, route: Route) -> Walk:
        """Prepare a route."""
        moves = tuple(_move(stage) for stage in route.stages)
        numbers = tuple(_fresh(a) for a in (route.step, route.origin, route.inverse, route.origin_in))
        return cls(route, numbers, moves)

    def block(self, z: int, y: int, n_z: int, n_y: int, n_x: int, x: int = 0) -> tuple[FloatArray, int]:
        """Where the rows of a block lie that begins at voxel (z, y, x) of this part of the output.

        Of scan lines, [rows, 2, 3]: the index at their beginning, and how far it is to the end of the whole line. Else
        [3, rows, n_x]: every voxel's, x, y, z. And how many of these are no numbers. The array is scratch of the
        calling thread's.
        """
        route = self.route
        x0, y0, z0 = route.start[0] + x, route.start[1], route.start[2]
        step, origin, inverse, origin_in = self.numbers
        rows = n_z * n_y
        if route.lines:
            only = route.stages[0]
            assert isinstance(only, Linear)
            ends = scratch(rows * 6, np.float64, "ends")[: rows * 6].reshape(rows, 2, 3)
            kernels.row_ends(
                step, origin, _fresh(only.matrix), _fresh(only.offset), inverse, origin_in, route.n0, z0 + z, y0 + y,
                n_y, ends,
            )  # fmt: skip
            return ends, 0
        points = scratch(rows * 3 * n_x, np.float64, "points")[: rows * 3 * n_x].reshape(3, rows, n_x)
        kernels.start_block(step, origin, z0 + z, y0 + y, x0, n_y, points)
        for move in self.moves:
            move(z0 + z, y0 + y, x0, n_y, points)
        return points, kernels.finish_block(inverse, origin_in, points)


def _move(stage: Linear | Lattice) -> Move:
    if isinstance(stage, Linear):
        matrix, offset = _fresh(stage.matrix), _fresh(stage.offset)
        return lambda z, y, x, n_y, points: kernels.move_linear(matrix, offset, points)
    memory, at, strides = components(stage.vectors)
    n_z, n_y, n_x = stage.vectors.shape[:3]
    size = np.array([n_x, n_y, n_z], np.int64)
    if stage.direct:
        return lambda z, y, x, n_y, points: kernels.move_direct(memory, at, strides, z, y, x, n_y, points)
    if stage.table is not None:
        return _parallel(stage, memory, at, strides)
    inverse, origin = _fresh(stage.inverse), _fresh(stage.origin)
    if stage.kind == "spline":
        return lambda z, y, x, n_y, points: kernels.move_spline(
            memory, at, strides, size, inverse, origin, stage.order, points
        )
    nearest = stage.kind == "nearest"
    return lambda z, y, x, n_y, points: kernels.move_field(memory, at, strides, size, inverse, origin, nearest, points)


def _parallel(stage: Lattice, memory: npt.NDArray[Any], at: int, strides: npt.NDArray[np.int64]) -> Move:
    """A lattice along the output's axes, by its tap tables."""
    work = stage.table
    assert work is not None
    first = tuple(np.ascontiguousarray(t.first) for t in work.tables)
    count = tuple(np.ascontiguousarray(t.count) for t in work.tables)
    weight = tuple(np.ascontiguousarray(t.weight) for t in work.tables)
    inside = np.array(work.inside, np.int64)
    z_axis, y_axis, run_axis = (work.dst_axis.index(axis) for axis in range(3))
    samples = work.tables[run_axis].n_src

    def move(z: int, y: int, x: int, n_y: int, points: FloatArray) -> None:
        line = scratch(3 * samples, np.float64, "line")[: 3 * samples].reshape(3, samples)
        kernels.move_parallel(
            memory, at, strides, first, count, weight, inside, run_axis, z_axis, y_axis, z, y, x, n_y, line, points
        )

    return move


def _fresh(array: FloatArray) -> FloatArray:
    """Numbers as the kernels are compiled for them: contiguous, and writable by type."""
    return np.array(array, np.float64, order="C")


def components(vectors: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int, npt.NDArray[np.int64]]:
    """Vectors [z, y, x, component] as flat memory, the place of the first, and four strides."""
    # Components stand in the place of a batch: what Flat says of the first, one step further, is the second.
    flat = Flat(np.moveaxis(vectors, -1, 0))
    component = flat.offsets[1] - flat.offsets[0]
    return flat.memory, flat.offsets[0], np.array([*flat.strides, component], np.int64)
