"""The CPU engine's shortcuts: a wide blur by way of coarse grids; see `works.Separable.shortcut`."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cpu import table_kernels as kernels
from gpuresample.engines.cpu.memory import Flat
from gpuresample.engines.cpu.tables import pack, run_separable, storing
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.engines.threads import run_items
from gpuresample.planning.works import Branch, Separable

Array = npt.NDArray[Any]


def run_shortcut(work: Separable, src: Array, dst: Array, store: Store) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]` by the work's shortcut, volume by volume."""
    acc = accumulator(work.precision)
    for volume in np.ndindex(src.shape[:-3]):
        coarse = [_coarse(branch, src[volume], acc) for branch in work.shortcut]
        if len(coarse) == 1:
            run_separable(work.shortcut[0].last, coarse[0], dst[volume], store)
        else:
            _two(work, coarse[0], coarse[1], dst[volume], store)


def _coarse(branch: Branch, src: Array, acc: np.dtype[Any]) -> Array:
    """All of a branch but its last table."""
    start = _made(branch.first, src, acc)
    total = None
    for chain in branch.middle:
        array = start
        for step in chain:
            array = _made(step, array, acc)
        total = array if total is None else np.add(total, array, out=total)
    assert total is not None
    return total


def _made(work: Separable, src: Array, acc: np.dtype[Any]) -> Array:
    out = np.empty([t.n_dst for t in work.tables], acc)
    run_separable(work, src, out, Store())
    return out


def _two(work: Separable, along_y: Array, along_z: Array, dst: Array, store: Store) -> None:
    """Both branches' last tables at once: what they make is added up a row at a time."""
    acc = along_y.dtype
    y, z = pack(work.shortcut[0].last.tables[1], acc), pack(work.shortcut[1].last.tables[0], acc)
    n_z, _, n_x = dst.shape
    dst, bounds, rounding = storing(dst, acc, store)
    target = Flat(dst)
    dz, dy, dx = target.strides
    flat_y, flat_z = along_y.reshape(-1), along_z.reshape(-1)

    def job(row: int) -> None:
        kernels.two_tables_plane(
            target.memory, target.offsets[0] + row * dz, dy, dx, flat_y, row * along_y[0].size, y, flat_z, 0, z, n_x,
            row, bounds, rounding, np.empty(2 * n_x, acc),
        )  # fmt: skip

    run_items(job, n_z)
