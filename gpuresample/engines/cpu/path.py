"""Routes on the CPU engine: where the voxels of a block of the output lie on the source.

A route of linear stages is a scan line's two ends; any other is walked voxel by voxel, stage by stage, in scratch that
stays in a core's cache. Nothing of the output's size is made.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import path_kernels as kernels
from gpuresample.engines.cpu.jit import VARIES, Prepared
from gpuresample.engines.cpu.memory import Flat
from gpuresample.engines.cpu.tables import scratch
from gpuresample.frozen import frozen
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.works import Lattice, Linear, Route

Place = tuple[int, int, int, int, FloatArray]
"""z, y, x of a block's first voxel in the whole output, rows of a plane, and the block's points."""
PLACE = (VARIES,) * 5
Move = Callable[[Place], None]
"""Moves points of a block, in place."""


@frozen(eq=False)
class Walk:
    """A route, made ready for the kernels: flat memory and packed tables, once for all blocks.

    Attributes
    ----------
    route : Route
    lines : callable or None
        Where rows are scan lines: fills their ends, by z, y and rows of a plane.
    points : callable or None
        Where they are not: fills a block's points, and answers how many are no numbers.
    given : ndarray or None
        All points, [3, z, y, x], where they lie in memory as kernels read them.
    """

    route: Route
    lines: Callable[[int, int, int, FloatArray], None] | None
    points: Callable[[Place], int] | None
    given: FloatArray | None = None

    @classmethod
    def of(cls, route: Route) -> Walk:
        """Prepare a route."""
        if route.lines:
            return _of_lines(route)
        given = route.given
        if given is not None:
            # Nothing is computed of positions that are there: they are copied to where kernels read them.
            vectors = given.transpose(3, 0, 1, 2)
            ready = vectors if vectors.dtype == np.float64 and vectors.flags.carray else None
            return cls(route, None, lambda place: _copied(vectors, *place), ready)
        step, origin, inverse, origin_in = (
            _fresh(a) for a in (route.step, route.origin, route.inverse, route.origin_in)
        )
        whole = _whole(route, (step, origin), (inverse, origin_in))
        if whole is not None:
            return cls(route, None, whole)
        start = Prepared(kernels.start_block, (step, origin, *PLACE))
        moves = [_move(stage) for stage in route.stages]
        finish = Prepared(kernels.finish_block, (inverse, origin_in, VARIES))

        def points(place: Place) -> int:
            start(*place)
            for move in moves:
                move(place)
            return finish(place[-1])

        return cls(route, None, points)

    def block(self, z: int, y: int, n_z: int, n_y: int, n_x: int, x: int = 0) -> tuple[FloatArray, int]:
        """Where the rows of a block lie that begins at voxel (z, y, x) of this part of the output.

        Of scan lines, [rows, 2, 3]: the index at their beginning, and how far it is to the end of the whole line. Else
        [3, rows, n_x]: every voxel's, x, y, z. And how many of these are no numbers. The array is scratch of the
        calling thread's, or what the route was given, and only to be read.
        """
        x0, y0, z0 = self.route.start
        rows = n_z * n_y
        if self.lines is not None:
            ends = scratch(rows * 6, np.float64, "ends")[: rows * 6].reshape(rows, 2, 3)
            self.lines(z0 + z, y0 + y, n_y, ends)
            return ends, 0
        if self.given is not None and self.given.shape == (3, n_z, n_y, n_x):
            return self.given.reshape(3, rows, n_x), 0
        assert self.points is not None
        points = scratch(rows * 3 * n_x, np.float64, "points")[: rows * 3 * n_x].reshape(3, rows, n_x)
        return points, self.points((z0 + z, y0 + y, x0 + x, n_y, points))


@lru_cache(maxsize=64)
def _of_lines(route: Route) -> Walk:
    """`Walk.of` a route of scan lines: made once, for the works of small calls are kept."""
    only = route.stages[0]
    assert isinstance(only, Linear)
    numbers = (route.step, route.origin, only.matrix, only.offset, route.inverse, route.origin_in)
    given = (*(_fresh(a) for a in numbers), route.n0, *[VARIES] * 4)
    return Walk(route, Prepared(kernels.row_ends, given), None)


def _copied(vectors: npt.NDArray[Any], z: int, y: int, x: int, n_y: int, points: FloatArray) -> int:
    """Positions [axis, z, y, x] of a block; what is no number among them lies outside, and nobody is told."""
    _, rows, n_x = points.shape
    block = points.reshape(3, rows // n_y, n_y, n_x)
    block[...] = vectors[:, z : z + rows // n_y, y : y + n_y, x : x + n_x]
    return 0


def _whole(
    route: Route, before: tuple[FloatArray, ...], after: tuple[FloatArray, ...]
) -> Callable[[Place], int] | None:
    """All of a route by one kernel: of one lattice along the output's axes, and at most one matrix after it."""
    lattice, *rest = route.stages
    if not isinstance(lattice, Lattice) or not (lattice.direct or lattice.table is not None):
        return None
    if len(rest) > 1 or (rest and not isinstance(rest[0], Linear)):
        return None
    last = rest[0] if rest else Linear(np.eye(3), np.zeros(3))
    assert isinstance(last, Linear)
    end = (bool(rest), _fresh(last.matrix), _fresh(last.offset), *after)
    held = components(lattice.vectors)
    if lattice.direct:
        direct = Prepared(kernels.direct_block, (*before, *held, *end, *PLACE))
        return lambda place: direct(*place)
    tables, samples = _parallel(lattice)
    to_index = route.inverse @ last.matrix
    still = route.inverse @ (last.matrix @ route.origin + last.offset - route.origin_in)
    linear = _fresh(to_index @ route.step), _fresh(still), _fresh(to_index)

    parallel = Prepared(kernels.parallel_block, (*before, *held, *tables, *linear, *end, *PLACE, VARIES, VARIES))

    def points(place: Place) -> int:
        *corner, block = place
        return parallel(*corner, *_room(samples), block)

    return points


def _move(stage: Linear | Lattice) -> Move:
    if isinstance(stage, Linear):
        matrix, offset = _fresh(stage.matrix), _fresh(stage.offset)
        linear = Prepared(kernels.move_linear, (matrix, offset, VARIES))
        return lambda place: linear(place[-1])
    held = components(stage.vectors)
    n_z, n_y, n_x = stage.vectors.shape[:3]
    size = np.array([n_x, n_y, n_z], np.int64)
    if stage.direct:
        direct = Prepared(kernels.move_direct, (*held, *PLACE))
        return lambda place: direct(*place)
    if stage.table is not None:
        tables, samples = _parallel(stage)
        parallel = Prepared(kernels.move_parallel, (*held, *tables, *PLACE, VARIES, VARIES))
        return lambda place: parallel(*place[:-1], *_room(samples), place[-1])
    inverse, origin = _fresh(stage.inverse), _fresh(stage.origin)
    if stage.kind == "spline":
        move = Prepared(kernels.move_spline, (*held, size, inverse, origin, stage.order, VARIES))
    else:
        move = Prepared(kernels.move_field, (*held, size, inverse, origin, stage.kind == "nearest", VARIES))
    return lambda place: move(place[-1])


def _parallel(stage: Lattice) -> tuple[tuple[Any, ...], tuple[int, int]]:
    """Tap tables of a lattice along the output's axes for `kernels.move_parallel`, and taps and samples of a row."""
    work = stage.table
    assert work is not None
    first = tuple(np.ascontiguousarray(t.first) for t in work.tables)
    count = tuple(np.ascontiguousarray(t.count) for t in work.tables)
    weight = tuple(np.ascontiguousarray(t.weight) for t in work.tables)
    inside = np.array(work.inside, np.int64)
    z_axis, y_axis, run_axis = (work.dst_axis.index(axis) for axis in range(3))
    f, c = first[run_axis], count[run_axis]
    ends = np.append(np.flatnonzero((np.diff(f) != 0) | (np.diff(c) != 0)) + 1, f.size)
    until = ends[np.searchsorted(ends, np.arange(f.size), side="right")]
    across = np.ascontiguousarray(weight[run_axis].T)
    taps = max(1, work.tables[y_axis].n_taps)
    tables = first, count, weight, across, until, inside, (run_axis, z_axis, y_axis)
    return tables, (taps, work.tables[run_axis].n_src)


def _room(size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
    """Scratch for rows of a lattice that are blended along z, and for one that is blended along y, too."""
    taps, samples = size
    n = 3 * samples
    held = scratch((taps + 1) * n, np.float64, "line")
    return held[: taps * n].reshape(taps, 3, samples), held[taps * n : (taps + 1) * n].reshape(3, samples)


def _fresh(array: FloatArray) -> FloatArray:
    """Numbers as the kernels are compiled for them: contiguous, and writable by type."""
    return np.array(array, np.float64, order="C")


def components(vectors: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], int, npt.NDArray[np.int64]]:
    """Vectors [z, y, x, component] as flat memory, the place of the first, and four strides."""
    # Components stand in the place of a batch: what Flat says of the first, one step further, is the second.
    flat = Flat(np.moveaxis(vectors, -1, 0))
    component = flat.offsets[1] - flat.offsets[0]
    return flat.memory, flat.offsets[0], np.array([*flat.strides, component], np.int64)
