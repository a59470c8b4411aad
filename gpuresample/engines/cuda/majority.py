"""The launch of block modes on CUDA."""

from __future__ import annotations

import math

import numpy as np

from gpuresample.engines.cuda import structs
from gpuresample.engines.cuda.axis import BLOCK, narrowest, pointer
from gpuresample.engines.cuda.runtime import Argument, Launch, Runtime, Types
from gpuresample.engines.cuda.views import View
from gpuresample.planning.works import Majority


def run_majority(runtime: Runtime, work: Majority, src: View, dst: View) -> None:
    """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x), of the same type."""
    voxels = math.prod(dst.shape)
    idx = narrowest(src.reach, dst.reach, voxels)
    arguments: list[Argument] = [
        pointer(src), pointer(dst), structs.batch(idx, src, dst), *[np.int32(f) for f in work.block],
        np.int32(work.labels_first),
    ]  # fmt: skip
    types = Types.of(src.dtype, dst.dtype, idx)
    runtime.launch(Launch("majority", "majority", types, -(-voxels // BLOCK), (BLOCK, 1), arguments))
