"""How much device memory a work takes while it runs: so that what is too large is cut before it fails."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuresample.engines.cuda.axis import FEW_TAPS
from gpuresample.engines.cuda.gather import PREFILTER_BYTES, coefficient_bytes
from gpuresample.engines.cuda.routes import ROUTE
from gpuresample.engines.cuda.tiles import FOUR, steps, tiles_bytes
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Gather, Lattice, Majority, Route, Separable, Work

# Memory is handed out in whole blocks of this many bytes.
BLOCK = 512
# Boxes and other small things of a work.
SMALL = 4 * BLOCK


def blocks(n: int, dtype: np.dtype[Any]) -> int:
    """Bytes that `n` voxels take."""
    return -(-n * dtype.itemsize // BLOCK) * BLOCK


def footprint(
    work: Work, src_shape: Sequence[int], src: np.dtype[Any], dst_shape: Sequence[int], dst: np.dtype[Any], store: Store
) -> int:
    """Most bytes of device memory at once, source and destination included."""
    total = blocks(math.prod(src_shape), src) + blocks(math.prod(dst_shape), dst) + SMALL
    if store.exact and src != dst:
        total += blocks(math.prod(src_shape), dst)
        src = dst
    sums = dst
    if store.divisor != 1:
        sums = np.dtype(np.float64)
        total += blocks(math.prod(dst_shape), sums)
    if isinstance(work, Gather):
        return total + _gather(work, src_shape, src)
    if isinstance(work, Majority):
        return total
    return total + _separable(work, src_shape, src, copies=work.copies and src == sums and store.window is None)


def _separable(work: Separable, src_shape: Sequence[int], src: np.dtype[Any], copies: bool) -> int:
    acc = accumulator(work.precision)
    tables = [work.tables[axis] for axis in range(3)]
    if copies or any(t.n_dst == 0 for t in tables):
        return sum(blocks(n, np.dtype(np.int32)) for n in work.n_dst)
    kept = sum(_table(t, acc) for t in tables)
    if math.prod(t.n_taps for t in tables) <= FEW_TAPS:
        return kept
    size = [math.prod(src_shape[:-3]), *[hi - lo for lo, hi in (t.source_range() for t in tables)]]
    between = []
    # Host arrays come to the device in C order.
    strides, passes = steps(tables, work.order, True, src, acc)
    for axis, _ in strides:
        size[1 + axis] = tables[axis].n_dst
    for axes in passes[:-1]:
        for axis in axes:
            size[1 + axis] = tables[axis].n_dst
        between.append(blocks(math.prod(size), acc))
    # A pass reads the volume of the one before it and writes its own.
    return kept + max((a + b for a, b in zip([0, *between], [*between, 0], strict=True)), default=0)


def _table(table: TapTable, acc: np.dtype[Any]) -> int:
    """A table in all the forms that kernels take it in."""
    plain = table.n_dst * (8 + table.n_taps * acc.itemsize)
    reach = 2 * 4 * (table.n_dst // 4 + 1)
    return plain + tiles_bytes(table, acc) + tiles_bytes(table, acc, FOUR) + reach + 8 * BLOCK


def _gather(work: Gather, src_shape: Sequence[int], src: np.dtype[Any]) -> int:
    """Routes and their lattices, polynomials, and the coefficients of as many volumes as are made together."""
    total = blocks(len(work.routes), ROUTE) + blocks(work.coefficients.size, np.dtype(np.float64))
    total += sum(_lattices(route, work.n_dst) for route in work.routes)
    if work.prefilter is None:
        return total
    together = min(math.prod(src_shape[:-3]), max(1, PREFILTER_BYTES // coefficient_bytes(work)))
    prefilter = work.prefilter
    passes = _separable(prefilter, (together, *src_shape[-3:]), src, copies=False)
    return total + blocks(together * math.prod(prefilter.n_dst), accumulator(work.precision)) + passes


def _lattices(route: Route, n_dst: Sequence[int]) -> int:
    """Bytes of a route's vectors on the device; a lattice that several routes share counts for each."""
    total = 0
    for stage in route.stages:
        if isinstance(stage, Lattice):
            nodes = math.prod(n_dst if stage.direct else stage.vectors.shape[:3])
            total += blocks(3 * nodes, stage.vectors.dtype)
    return total
