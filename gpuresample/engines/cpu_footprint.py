"""How much memory the CPU engine takes for a work beside its source and destination: a bound, see `scratch_bytes`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuresample.engines.contract import Branch, Gather, Majority, Separable, Store, Work
from gpuresample.engines.cpu_gather import ROWS_AT_ONCE
from gpuresample.engines.cpu_means import sums_of
from gpuresample.engines.cpu_tables import tiling
from gpuresample.engines.packing import accumulator

# What `cpu.convert` holds at once of every voxel, beside the two arrays it is given: values rounded, clipped, masked.
CONVERSION_BYTES = 40


def scratch_bytes(
    work: Work,
    src_shape: Sequence[int],
    src: np.dtype[Any],
    dst_shape: Sequence[int],
    dst: np.dtype[Any],
    store: Store,
    threads: int,
) -> int:
    """Most bytes that the engine takes at once, source and destination not counted.

    Parameters
    ----------
    work : Separable, Gather or Majority
    src_shape, dst_shape : sequence of int, (..., z, y, x)
    src, dst : numpy.dtype
    store : Store
    threads : int
        That the engine works with: each has a tile of its own.
    """
    n_src, n_dst = math.prod(src_shape), math.prod(dst_shape)
    total = 0
    if not src.isnative:
        total += n_src * src.itemsize
    if store.exact and src != dst:
        total += n_src * (dst.itemsize + CONVERSION_BYTES)
    if isinstance(work, Separable) and (sums := sums_of(work, src.newbyteorder("="), dst, store)) is not None:
        row = work.tables[2]
        return total + threads * 2 * row.n_dst * row.n_taps * sums.itemsize
    if store.divisor != 1:
        total += n_dst * (8 + CONVERSION_BYTES)
    if np.float16 in (src, dst):
        total += 4 * (n_src + n_dst)
    if isinstance(work, Majority):
        return total + threads * math.prod(work.block) * src.itemsize
    if isinstance(work, Gather):
        return total + _gather(work, threads)
    if work.shortcut:
        return total + sum(_branch(branch, threads) for branch in work.shortcut)
    return total + _separable(work, math.prod(src_shape[:-3]), n_dst, threads)


def _separable(work: Separable, n_volumes: int, voxels: int, threads: int) -> int:
    if any(t.n_dst == 0 for t in work.tables):
        return 0
    return threads * tiling(work, n_volumes, voxels)[3] * accumulator(work.precision).itemsize


def _branch(branch: Branch, threads: int) -> int:
    """A shortcut's branch: everything between the source and the result, as if nothing were let go."""
    steps = [branch.first, *(step for chain in branch.middle for step in chain)]
    made = [math.prod(t.n_dst for t in step.tables) for step in steps]
    item = accumulator(branch.first.precision).itemsize
    tiles = max(_separable(step, 1, n, threads) for step, n in zip(steps, made, strict=True))
    last = math.prod(t.n_dst for t in branch.last.tables)
    return item * sum(made) + tiles + _separable(branch.last, 1, last, threads)


def _gather(work: Gather, threads: int) -> int:
    """Coefficients of one volume, and coordinates of the rows at hand."""
    acc = accumulator(work.precision)
    n_z, n_y, n_x = work.n_dst
    total = min(n_z * n_y, ROWS_AT_ONCE) * 2 * 3 * 8 if work.lines else threads * 2 * max(n_x, 1 << 14) * 3 * 8
    if work.prefilter is None:
        return total
    n = tuple(t.n_dst for t in work.prefilter)
    order = tuple(axis for axis, t in enumerate(work.prefilter) if not t.is_identity)
    passes = Separable(work.prefilter, order, (0, 1, 2), (n[0], n[1], n[2]), (0, 0, 0), work.precision)
    return total + math.prod(n) * acc.itemsize + _separable(passes, 1, math.prod(n), threads)
