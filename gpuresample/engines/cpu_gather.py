"""The CPU engine's gather: prefilter by table, then one neighbourhood per voxel, rows spread over threads."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines import cpu_gather_kernels as kernels
from gpuresample.engines import cpu_tables
from gpuresample.engines.contract import Gather, Route, Separable, Store
from gpuresample.engines.flat import Flat, flatten
from gpuresample.engines.packing import accumulator, bounds_of, rounding_of
from gpuresample.engines.pool import run_items
from gpuresample.filters import LABEL_ALPHA, LABEL_SIGMA
from gpuresample.routes import coordinates
from gpuresample.taps import TapTable

# Voxels handed to a thread at a time: enough to forget Python, few enough to balance.
ITEM_VOXELS = 1 << 14
# Rows whose ends are computed at once: in one sweep of NumPy, not under the interpreter's lock item by item.
ROWS_AT_ONCE = 1 << 16


def run_gather(work: Gather, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
    """Fill `dst` from `src`, one volume of the batch after the other."""
    for number, volume in enumerate(np.ndindex(dst.shape[:-3])):
        route = work.routes[number if len(work.routes) > 1 else 0]
        _run_volume(work, route, src[volume], dst[volume], store)


def _run_volume(work: Gather, route: Route, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
    acc = accumulator(work.precision)
    if work.prefilter is not None:
        src = _prefiltered(work.prefilter, src, acc, work.precision)
    source, target = flatten(src), Flat(dst)
    n_z, n_y, n_x = work.n_dst
    step = max(1, ITEM_VOXELS // n_x)
    src_strides, dst_strides = np.array(source.strides, np.int64), np.array(target.strides, np.int64)
    n_src, base = np.array(work.n_src, np.int64), np.array(work.base, np.int64)
    box = np.array(work.box)
    default = dst.dtype.type(store.default)
    coefficients = work.coefficients.astype(acc)
    bounds = bounds_of(dst.dtype, acc, store)
    rounding = rounding_of(dst.dtype, store)

    def rows(row0: int, located: npt.NDArray[np.float64]) -> None:
        place = (
            source.memory, source.offsets[0], src_strides, located, route.lines, route.start[0], route.n0,
            target.memory, target.offsets[0], dst_strides, row0, n_y, n_x,
        )  # fmt: skip
        if work.method == "index":
            kernels.copy_rows(*place, n_src, base, box, work.rule, default)
        elif work.method == "linear":
            kernels.gather_rows(
                *place, coefficients, work.shift, work.offset, n_src, base, box, work.rule, work.spline, work.normalise,
                default, bounds, rounding,
            )  # fmt: skip
        else:
            gaussian = work.method == "label_gaussian"
            cut = LABEL_SIGMA * LABEL_ALPHA
            kernels.vote_rows(*place, n_src, base, box, work.rule, gaussian, LABEL_SIGMA, cut, default)

    for start in range(0, n_z * n_y, ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, n_z * n_y)
        ends = coordinates(route, (n_x, n_y), start, stop) if route.lines else None

        def job(item: int, start: int = start, stop: int = stop, ends: Any = ends) -> None:
            lo, hi = start + item * step, min(start + (item + 1) * step, stop)
            rows(lo, coordinates(route, (n_x, n_y), lo, hi) if ends is None else ends[lo - start : hi - start])

        run_items(job, -(-(stop - start) // step))


def _prefiltered(
    tables: tuple[TapTable, TapTable, TapTable], src: npt.NDArray[Any], acc: np.dtype[Any], precision: str
) -> npt.NDArray[Any]:
    """The volume of coefficients: the source's tables applied, in the accumulator's type."""
    work = prefilter_work(tables, precision)
    out = np.empty(work.n_dst, acc)
    cpu_tables.run_separable(work, src, out, Store())
    return out


def prefilter_work(tables: tuple[TapTable, TapTable, TapTable], precision: str) -> Separable:
    """The tables of a gather's prefilter as a work of their own."""
    n_z, n_y, n_x = (t.n_dst for t in tables)
    order = tuple(axis for axis, t in enumerate(tables) if not t.is_identity)
    return Separable(tables, order, (0, 1, 2), (n_z, n_y, n_x), (0, 0, 0), precision)
