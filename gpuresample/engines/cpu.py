"""The CPU engine: plans on NumPy arrays, through Numba kernels on our own threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines import cpu_ensemble
from gpuresample.engines.contract import Ensemble, Gather, Outputs, Store, Work
from gpuresample.engines.cpu_gather import run_gather
from gpuresample.engines.cpu_tables import fill_outside, run_copy, run_separable

name = "cpu"
score_types = ("float32",)


def run(work: Work, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`. See `contract.Engine`."""
    if dst.size == 0:
        return
    if isinstance(work, Gather):
        run_gather(work, src, dst, store)
        return
    # Destination axes in the source's order: a permuted grid is only a matter of strides.
    n = dst.ndim - 3
    dst = dst.transpose(*range(n), *[n + axis for axis in work.dst_axis])
    fill_outside(work, dst, store.default)
    (z0, z1), (y0, y1), (x0, x1) = work.inside
    dst = dst[..., z0:z1, y0:y1, x0:x1]
    if dst.size == 0:
        return
    if work.copies and src.dtype == dst.dtype:
        run_copy(work, src, dst)
    else:
        run_separable(work, src, dst, store)


def new_counts(n: int) -> npt.NDArray[np.int64]:
    """Counters for `combine`, at zero."""
    return np.zeros(n, np.int64)


def combine(
    work: Ensemble, scores: Sequence[npt.NDArray[Any]], outputs: Outputs, counts: npt.NDArray[np.int64]
) -> None:
    """Fill `outputs` from the scores [class, z, y, x] of every member. See `contract.Engine`."""
    counts += cpu_ensemble.combine(run, work, scores, outputs)


def read_counts(counts: npt.NDArray[np.int64]) -> list[int]:
    """The counters."""
    result: list[int] = counts.tolist()
    return result
