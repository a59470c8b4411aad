"""The CPU engine's block modes: labels, compared and never computed with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import majority_kernels as kernels
from gpuresample.engines.cpu.memory import Flat, flatten
from gpuresample.engines.threads import run_items
from gpuresample.planning.works import Majority

# Voxels of a thread's item, at least: enough to forget Python, few enough to be interrupted.
ITEM_VOXELS = 1 << 18


def run_majority(work: Majority, src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, of the same type; item by item some rows of `dst`."""
    source, target = flatten(src), Flat(dst)
    strides = np.array([*source.strides, *target.strides], np.int64)
    block = np.array(work.block, np.int64)
    n_z, n_y, n_x = work.n_dst
    step = min(n_y, max(1, ITEM_VOXELS // (math.prod(work.block) * n_x)))
    n_parts = -(-n_y // step)
    lead = src.shape[:-3]

    def job(item: int) -> None:
        rest, part = divmod(item, n_parts)
        volume, z = divmod(rest, n_z)
        y0, y1 = part * step, min((part + 1) * step, n_y)
        left = np.zeros((y1 - y0) * n_x, np.bool_)
        kernels.majority_rows(
            source.memory,
            source.offsets[volume] + z * work.block[0] * source.strides[0] + y0 * work.block[1] * source.strides[1],
            target.memory, target.offsets[volume] + z * target.strides[0] + y0 * target.strides[1], strides, block,
            work.labels_first, y1 - y0, n_x, np.empty(kernels.MOST_LABELS, src.dtype), left,
        )  # fmt: skip
        index = tuple(int(k) for k in np.unravel_index(volume, lead))
        for at in np.flatnonzero(left).tolist():
            place = z, y0 + at // n_x, at % n_x
            part_of = [slice(k * f, (k + 1) * f) for k, f in zip(place, work.block, strict=True)]
            voxels = src[index][tuple(part_of)]
            dst[index][place] = mode(voxels[voxels != 0] if work.labels_first else voxels)

    run_items(job, len(source.offsets) * n_z * n_parts)


def mode(voxels: npt.NDArray[Any]) -> Any:
    """The value that most voxels have, of several such the smallest; by sorting, for blocks of many labels."""
    values, counts = np.unique(voxels, return_counts=True)
    value = values[counts.argmax()]
    # Of zeros of both signs the one that is met first.
    return voxels.ravel()[np.argmax(voxels.ravel() == value)] if value == 0 else value
