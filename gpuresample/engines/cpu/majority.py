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


def run_majority(work: Majority, src: npt.NDArray[Any], dst: npt.NDArray[Any]) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, of the same type; item by item a plane of `dst`."""
    source, target = flatten(src), Flat(dst)
    strides = np.array([*source.strides, *target.strides], np.int64)
    block = np.array(work.block, np.int64)
    n_z, n_y, n_x = work.n_dst

    def job(item: int) -> None:
        volume, z = divmod(item, n_z)
        kernels.majority_plane(
            source.memory, source.offsets[volume] + z * work.block[0] * source.strides[0], target.memory,
            target.offsets[volume] + z * target.strides[0], strides, block, n_y, n_x,
            np.empty(math.prod(work.block), src.dtype),
        )  # fmt: skip

    run_items(job, len(source.offsets) * n_z)
