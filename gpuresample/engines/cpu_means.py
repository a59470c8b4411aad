"""The CPU engine's block means: tables of ones, summed without being looked at."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines import cpu_means_kernels as kernels
from gpuresample.engines.contract import Separable, Store
from gpuresample.engines.cpu_tables import SMALL, scratch
from gpuresample.engines.flat import Flat, flatten
from gpuresample.engines.pool import get_num_threads, run_items
from gpuresample.taps import TapTable

Array = npt.NDArray[Any]


def block_of(table: TapTable) -> int | None:
    """How many samples a table sums, if it sums neighbouring blocks of as many; else None."""
    size = table.n_taps
    steps = bool((np.diff(table.first) == size).all())
    return size if steps and bool((table.count == size).all()) and bool((table.weight == 1.0).all()) else None


def sum_type(dtype: np.dtype[Any], voxels: int) -> np.dtype[Any] | None:
    """The type in which sums of so many voxels have float64's value, the narrowest there is; None if there is none."""
    if dtype.kind == "f":
        return np.dtype(np.float64) if dtype.itemsize >= 4 else None
    if dtype.kind not in "iu" or dtype.itemsize > 4:
        return None
    largest = voxels << (8 * dtype.itemsize - (dtype.kind == "i"))
    return np.dtype(np.int32 if largest < 1 << 31 else np.int64) if largest < 1 << 53 else None


def blocks_of(
    work: Separable, src: np.dtype[Any], dst: np.dtype[Any], store: Store
) -> tuple[tuple[int, int, int], np.dtype[Any]] | None:
    """Samples along z, y, x that a work takes the means of, and the sums' type; None if `run_means` would not."""
    if store.divisor == 1 or store.high is not None or src != dst or work.dst_axis != (0, 1, 2):
        return None
    z, y, x = (block_of(table) for table in work.tables)
    acc = sum_type(src, store.divisor)
    if acc is None or z is None or y is None or x is None or work.n_dst != tuple(t.n_dst for t in work.tables):
        return None
    return (z, y, x), acc


def run_means(work: Separable, src: Array, dst: Array, store: Store) -> bool:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, and answer whether that was done.

    Not done is what is no mean of blocks that lie side by side, and types that only the tables sum.
    """
    found = blocks_of(work, src.dtype, dst.dtype, store)
    if found is None:
        return False
    block, acc = np.array(found[0], np.int64), found[1]
    source, target = flatten(src), Flat(dst)
    strides = np.array([*source.strides, *target.strides], np.int64)
    start = sum(int(t.first[0]) * s for t, s in zip(work.tables, source.strides, strict=True))
    n_z, n_y, n_x = work.n_dst
    wide = n_x * int(block[2])
    per_row = wide * int(block[0] * block[1])
    threads = get_num_threads() if per_row * n_z * n_y * len(source.offsets) >= SMALL else 1
    step = max(1, min(SMALL // per_row, n_z * n_y)) if threads > 1 else n_z * n_y
    n_items = -(-n_z * n_y // step)
    factor, whole = 1.0 / store.divisor, dst.dtype.kind in "iu"
    assert store.divisor == math.prod(int(k) for k in block)

    def job(item: int) -> None:
        volume, first = divmod(item, n_items)
        first *= step
        room = scratch(2 * wide, acc)
        kernels.mean_rows(
            source.memory, source.offsets[volume] + start, target.memory, target.offsets[volume], strides, block,
            first, min(first + step, n_z * n_y), n_y, n_x, factor, whole, room[:wide], room[wide : 2 * wide],
        )  # fmt: skip

    run_items(job, len(source.offsets) * n_items)
    return True
