"""The CPU engine: plans on NumPy arrays, through Numba kernels on our own threads."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from gpuresample.engines.contract import Gather, Majority, Store, Work
from gpuresample.engines.cpu_gather import run_gather
from gpuresample.engines.cpu_majority import run_majority
from gpuresample.engines.cpu_shortcut import run_shortcut
from gpuresample.engines.cpu_tables import fill_outside, run_copy, run_separable

name = "cpu"


def run(work: Work, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`. See `contract.Engine`."""
    if dst.size == 0:
        return
    if isinstance(work, Gather):
        run_gather(work, src, dst, store)
        return
    if isinstance(work, Majority):
        run_majority(work, src, dst)
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
    elif work.shortcut:
        run_shortcut(work, src, dst, store)
    else:
        run_separable(work, src, dst, store)
