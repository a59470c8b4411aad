"""The CPU engine's block means: tables of ones, summed without being looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import means_kernels as kernels
from gpuresample.engines.cpu.memory import Flat, flatten
from gpuresample.engines.cpu.tables import SMALL, scratch
from gpuresample.engines.interface import Store
from gpuresample.engines.threads import get_num_threads, run_items
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable

Array = npt.NDArray[Any]

# Items for every thread, so that uneven ones balance.
ITEMS = 8


def sums_blocks(table: TapTable) -> bool:
    """Whether a table sums blocks of one size that lie side by side."""
    size = table.n_taps
    steps = bool((np.diff(table.first) == size).all())
    return steps and bool((table.count == size).all()) and bool((table.weight == 1.0).all())


def sum_type(dtype: np.dtype[Any], voxels: int) -> np.dtype[Any] | None:
    """The type in which sums of so many voxels have float64's value, the narrowest there is; None if there is none."""
    if dtype.kind == "f":
        return np.dtype(np.float64) if dtype.itemsize >= 4 else None
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        return None
    largest = voxels << (8 * dtype.itemsize - (dtype.kind == "i"))
    return np.dtype(np.int32 if largest < 1 << 31 else np.int64) if largest < 1 << 53 else None


def is_means(work: Separable, src: np.dtype[Any], dst: np.dtype[Any], store: Store) -> bool:
    """Whether a work is means of blocks that lie side by side, of a type whose sums need no tables to be exact."""
    if store.divisor == 1 or store.high is not None or src != dst:
        return False
    whole = work.dst_axis == (0, 1, 2) and work.n_dst == tuple(t.n_dst for t in work.tables)
    return sum_type(src, store.divisor) is not None and whole and all(sums_blocks(t) for t in work.tables)


def run_means(work: Separable, src: Array, dst: Array, store: Store) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, of works that `is_means` says yes to."""
    acc = sum_type(src.dtype, store.divisor)
    assert acc is not None
    block = np.array([t.n_taps for t in work.tables], np.int64)
    source, target = flatten(src), Flat(dst)
    strides = np.array([*source.strides, *target.strides], np.int64)
    start = sum(int(t.first[0]) * s for t, s in zip(work.tables, source.strides, strict=True))
    n_z, n_y, n_x = work.n_dst
    wide = n_x * int(block[2])
    rows, per_row = n_z * n_y, wide * int(block[0] * block[1])
    voxels = per_row * rows * len(source.offsets)
    threads = get_num_threads() if voxels >= SMALL else 1
    # An item takes the interpreter's time, too: no more of them than keep all threads busy, and none that is small.
    step = min(rows, -(-max(SMALL, voxels // (ITEMS * threads)) // per_row)) if threads > 1 else rows
    n_items = -(-rows // step)
    factor, whole = 1.0 / store.divisor, dst.dtype.kind in "iu"
    assert store.divisor == math.prod(int(k) for k in block)

    def job(item: int) -> None:
        volume, first = divmod(item, n_items)
        first *= step
        room = scratch(2 * wide, acc)
        kernels.mean_rows(
            source.memory, source.offsets[volume] + start, target.memory, target.offsets[volume], strides, block,
            first, min(first + step, rows), n_y, n_x, factor, whole, room[:wide], room[wide : 2 * wide],
        )  # fmt: skip

    run_items(job, len(source.offsets) * n_items)
