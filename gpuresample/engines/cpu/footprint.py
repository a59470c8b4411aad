"""How much memory the CPU engine takes for a work beside its source and destination: the one place that counts it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuresample.engines.cpu.gather import cost_of, reach_of, steps
from gpuresample.engines.cpu.majority_kernels import MOST_LABELS
from gpuresample.engines.cpu.means import sum_type
from gpuresample.engines.cpu.tables import SMALL, tiling
from gpuresample.engines.cpu.ways import Steps, is_cubic, steps_of
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.planning.works import Branch, Gather, Lattice, Majority, Separable, Work

# Bytes of a row of a block whose rows are scan lines: two ends of three float64.
ROW_BYTES = 48
# Bytes of a voxel's position, and of a voxel of the row that is being summed: position, place, fractions or weights.
POINT_BYTES = 24


@dataclass(frozen=True)
class Footprint:
    """Bytes at once, source and destination not counted.

    Attributes
    ----------
    tile : int
        Of the scratch that a thread keeps.
    threads : int
        Threads that have one.
    between : int
        Of whole volumes between source and destination.
    """

    tile: int
    threads: int
    between: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.tile * self.threads + self.between


def footprint(
    work: Work,
    src_shape: Sequence[int],
    src: np.dtype[Any],
    dst_shape: Sequence[int],
    dst: np.dtype[Any],
    store: Store,
    threads: int,
) -> Footprint:
    """What `engine.run` takes for a source in C order; a source with gaps between its voxels may be copied on top.

    Parameters
    ----------
    work : Separable, Gather or Majority
    src_shape, dst_shape : sequence of int, (..., z, y, x)
    src, dst : numpy.dtype
    store : Store
    threads : int
        That the engine works with.
    """
    n_src, n_dst = math.prod(src_shape), math.prod(dst_shape)
    between = 0 if src.isnative else n_src * src.itemsize
    src = src.newbyteorder("=")
    steps = steps_of(work, src, dst, store)
    tile, threads = _tiles(work, steps, math.prod(src_shape[:-3]), src, store, threads)
    between += _converted(steps, n_src, src, n_dst, dst)
    if isinstance(work, Gather):
        between += _coordinates(work, threads)
        if work.prefilter is not None:
            reach = [sum(reach_of(work, axis)) if is_cubic(work) else 0 for axis in range(3)]
            made = math.prod(t.n_dst + more for t, more in zip(work.prefilter.tables, reach, strict=True))
            between += made * accumulator(work.precision).itemsize
    if isinstance(work, Separable) and work.shortcut:
        between += _coarse(work.shortcut) * accumulator(work.precision).itemsize
    return Footprint(tile, threads, between)


def converting_bytes(source: np.dtype[Any], target: np.dtype[Any]) -> int:
    """Bytes per voxel that `cpu.convert` holds meanwhile."""
    if target.kind not in "iu":
        return 0
    if source.kind in "iu":
        return source.itemsize
    # 16-bit floats become wider ones first.
    return 2 * source.itemsize + 4 if source.itemsize > 2 else 3 * 4 + 4


def _tiles(work: Work, steps: Steps, n_volumes: int, src: np.dtype[Any], store: Store, threads: int) -> tuple[int, int]:
    """Bytes of a thread's scratch, and the threads that have one."""
    run = steps.tables
    if isinstance(work, Majority):
        return MOST_LABELS * (src.itemsize + 8), threads
    if isinstance(work, Gather):
        n_volumes = 1
    elif not all(t.n_dst for t in work.tables):
        run = ()
    elif steps.way == "means":
        voxels = n_volumes * math.prod(t.n_taps * t.n_dst for t in work.tables)
        row, sums = work.tables[2], sum_type(src, store.divisor)
        assert sums is not None
        return 2 * row.n_taps * row.n_dst * sums.itemsize, threads if voxels >= SMALL else 1
    elif steps.way == "shortcut":
        # Two branches' last tables are applied row by row, without tiles.
        rows = [branch.last for branch in work.shortcut] if len(work.shortcut) == 2 else []
        run, n_volumes = tuple(step for step in run if step not in rows), 1
    cuts = [(tiling(step, n_volumes, threads), accumulator(step.precision).itemsize) for step in run]
    size = max((cut.elements * item for cut, item in cuts), default=0)
    busy = max((min(threads, n_volumes * math.prod(cut.blocks)) for cut, _ in cuts), default=threads)
    return size, busy


def _converted(steps: Steps, n_src: int, src: np.dtype[Any], n_dst: int, dst: np.dtype[Any]) -> int:
    """Bytes of volumes in other types, see `engines.conversion` and `engine.run`."""
    held = n_src * (dst.itemsize + converting_bytes(src, dst)) if steps.typed else 0
    wide = 0 if steps.reads is None else steps.reads.itemsize * n_src
    if steps.divided:
        return held + 8 * n_dst + max(wide, (8 + converting_bytes(np.dtype(np.float64), dst)) * n_dst)
    return held + wide + (0 if steps.writes is None else steps.writes.itemsize * n_dst)


def _coordinates(work: Gather, threads: int) -> int:
    """Bytes of a block's positions and of the row that is being summed, on every thread."""
    n_x = work.n_dst[2]
    lines = all(route.lines for route in work.routes)
    rows = math.prod(steps(work.n_dst, lines, cost_of(work, math.prod(work.n_dst)), 1))
    width, item = work.coefficients.shape[1], accumulator(work.precision).itemsize
    row = POINT_BYTES + 8 + 1 + 8 + item * 4 + (0 if width in (2, 4) else 3 * width * item + 3 * 8 + item + 4 + 1)
    lattices = [s for route in work.routes for s in route.stages if isinstance(s, Lattice)]
    # Of a lattice along the axes: as many rows as it has taps, and one.
    line = max((POINT_BYTES * (s.order + 2) * max(s.vectors.shape[:3]) for s in lattices), default=0)
    return threads * (n_x * row + line + (rows * ROW_BYTES if lines else rows * n_x * POINT_BYTES))


def _coarse(branches: tuple[Branch, ...]) -> int:
    """Elements of the coarse grids that are held at once, at most: see `shortcut`."""
    kept = most = 0
    for branch in branches:
        start = _made(branch.first)
        total = 0
        for chain in branch.middle:
            before = start
            for step in chain:
                most = max(most, kept + total + start + before + _made(step))
                before = _made(step)
            total = before
            most = max(most, kept + start + 2 * total)
        kept += total
    return max(most, kept)


def _made(work: Separable) -> int:
    return math.prod(t.n_dst for t in work.tables)
