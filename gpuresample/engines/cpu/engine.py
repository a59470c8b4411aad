"""The CPU engine: plans on NumPy arrays, through Numba kernels on our own threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.caching import Recent, Remembered, n_bytes
from gpuresample.engines import threads
from gpuresample.engines.conversion import converted
from gpuresample.engines.cpu.majority import run_majority
from gpuresample.engines.cpu.means import run_means
from gpuresample.engines.cpu.shortcut import run_shortcut
from gpuresample.engines.cpu.tables import fill_outside, run_copy, run_separable
from gpuresample.engines.cpu.tables import ready as tables_ready
from gpuresample.engines.cpu.ways import Steps, Way, steps_of
from gpuresample.engines.interface import Call, Combiner, Store
from gpuresample.engines.packing import AWAY, HALF_UP, TOWARD_ZERO, bounds_of, rounding_of
from gpuresample.engines.threads import run_items
from gpuresample.planning.works import Gather, Majority, Work

if TYPE_CHECKING:
    from gpuresample.engines.cpu.gather import GatherCall

Array = npt.NDArray[Any]

name = "cpu"


# Voxels of a source or a destination, at most, whose work is made ready: then it takes longer than the work.
SMALL = 1 << 15
# Voxels that become another type at once: what is held meanwhile is not counted, and stays in the core's cache.
MEANWHILE = 1 << 15
# What is ready for small arrays, with the work and the store that it is of, so that no others take their places in
# memory; None where nothing is saved. Nothing is made of what came once: a loader draws another gather for each call.
_Ready = tuple[Work, Store, Callable[[Array, Array], None] | None]
_tables: Remembered[_Ready] = Remembered()
_gathers: Recent[_Ready] = Recent(32)
_seen: Recent[tuple[Work, Store]] = Recent(32)


def _gathering() -> Any:
    """The module of gathers: most first calls are along axes, and need not load it."""
    with threads.importing:
        from gpuresample.engines.cpu import gather
    return gather


def _gradients() -> Any:
    with threads.importing:
        from gpuresample.engines.cpu import gradient
    return gradient


def run(work: Work, src: Array, dst: Array, store: Store) -> None:
    """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`. See `interface.Engine`."""
    if dst.size == 0:
        return
    again = _again(work, src, dst, store) if src.size <= SMALL and dst.size <= SMALL else None
    if again is not None:
        again(src, dst)
        return
    if not src.dtype.isnative:
        src = src.astype(src.dtype.newbyteorder("="))
    steps = steps_of(work, src.dtype, dst.dtype, store)
    if steps.one:
        _run(steps.way, work, src, dst, store)
    elif steps.way == "means":  # it divides by itself
        _in_other_types(steps, work, src, dst, store)
    else:
        converted(partial(_in_other_types, steps), np.empty, convert, work, src, dst, store)


def ready(work: Work, src: Array, dst: Array, store: Store) -> Callable[[Array, Array], None] | None:
    """See `engines.ready`."""
    if isinstance(work, Majority) or store.divisor != 1 or not (src.dtype.isnative and dst.dtype.isnative):
        return None
    steps = steps_of(work, src.dtype, dst.dtype, store)
    if not steps.one or not (src.flags.c_contiguous and dst.flags.c_contiguous):
        return None
    # An axis of one voxel may have any stride, and loops are chosen by strides: it gets the one that others have.
    src, dst = src.reshape(-1).reshape(src.shape), dst.reshape(-1).reshape(dst.shape)
    if isinstance(work, Gather):
        return _gathering().ready(work, src, dst, store)
    return tables_ready(work, src, dst, store) if steps.way == "tables" else None


def _again(work: Work, src: Array, dst: Array, store: Store) -> Callable[[Array, Array], None] | None:
    """`ready`, kept for arrays that lie like these."""
    flags = src.flags
    if not (flags.c_contiguous and flags.aligned and dst.flags.carray):
        return None
    gathers = isinstance(work, Gather)
    # Nothing is made ready of fields, and whoever gave one may give it up.
    if isinstance(work, Gather) and (len(work.routes) != 1 or not work.routes[0].lines):
        return None
    key = id(work), id(store), src.dtype, src.shape, dst.dtype, dst.shape
    found = _gathers.get(key) if gathers else _tables.get(key)
    if found is not None:
        return found[2]
    if _seen.get(key) is None:
        _seen.put(key, (work, store))
        return None
    again = ready(work, src, dst, store)
    if gathers:
        _gathers.put(key, (work, store, again))
    else:
        # Tables as they were made, and as the kernel takes them: with an index, and once more in slots.
        _tables.put(key, (work, store, again), 0 if again is None else 2 * n_bytes(work, set()))
    return again


def run_all(calls: Sequence[Call]) -> None:
    """`run` of several calls; gathers that have their routes in common locate voxels once. See `interface.Engine`."""
    if len(calls) == 1:
        run(*calls[0])
        return
    groups: list[list[GatherCall]] = []
    for work, src, dst, store in calls:
        if not (isinstance(work, Gather) and dst.size and _as_it_is(work, src, dst, store)):
            run(work, src, dst, store)
            continue
        group = next((g for g in groups if _gathering().shares(g[0], work, dst)), None)
        if group is None:
            groups.append(group := [])
        group.append((work, src, dst, store))
    for group in groups:
        if len(group) == 1:
            run(*group[0])
        else:
            _gathering().run_gathers(group)


def _as_it_is(work: Gather, src: Array, dst: Array, store: Store) -> bool:
    """Whether a gather takes these arrays without a conversion."""
    return src.dtype.isnative and steps_of(work, src.dtype, dst.dtype, store).one


def _in_other_types(steps: Steps, work: Work, src: Array, dst: Array, store: Store) -> None:
    """A work whose loop is for other types than the arrays have."""
    if steps.reads is not None:
        src = src.astype(steps.reads)
    if steps.writes is None:
        _run(steps.way, work, src, dst, store)
        return
    made = np.empty(dst.shape, steps.writes)
    _run(steps.way, work, src, made, store)
    whole = made.dtype.kind == "f" and dst.dtype.kind in "iu"
    # A plane at a time, or so many of its rows: an image may be a single plane, and what is held meanwhile is small.
    n_y, n_x = dst.shape[-2:]
    rows = max(1, MEANWHILE // n_x)
    pieces = -(-n_y // rows)

    def piece(item: int) -> None:
        plane, k = divmod(item, pieces)
        at = (*np.unravel_index(plane, dst.shape[:-2]), slice(k * rows, (k + 1) * rows))
        (_settle if whole else _narrow)(made[at], dst[at], store)

    run_items(piece, math.prod(dst.shape[:-2]) * pieces)


def _narrow(made: Array, dst: Array, store: Store) -> None:
    """Values of another type, which are within the range of integers; or nearly: they saturate."""
    if dst.dtype.kind in "iu":
        info = np.iinfo(dst.dtype)
        made = np.clip(made, info.min, info.max)
    dst[...] = made


def _settle(made: Array, dst: Array, store: Store) -> None:
    """Sums that become integers: as `table_kernels.settle` has it."""
    low, high = bounds_of(dst.dtype, made.dtype, store)
    whole = _ROUNDED.get(rounding_of(dst.dtype, store), np.rint)(np.clip(made, low, high))
    whole[np.isnan(whole)] = 0
    dst[...] = whole


def _run(way: Way, work: Work, src: Array, dst: Array, store: Store) -> None:
    if isinstance(work, Gather):
        _gathering().run_gather(work, src, dst, store)
        return
    if isinstance(work, Majority):
        run_majority(work, src, dst)
        return
    if way == "means":
        run_means(work, src, dst, store)
        return
    # Destination axes in the source's order: a permuted grid is only a matter of strides.
    n = dst.ndim - 3
    dst = dst.transpose(*range(n), *[n + axis for axis in work.dst_axis])
    fill_outside(work, dst, store.default)
    (z0, z1), (y0, y1), (x0, x1) = work.inside
    dst = dst[..., z0:z1, y0:y1, x0:x1]
    if dst.size == 0:
        return
    if way == "copy":
        run_copy(work, src, dst)
    elif way == "shortcut":
        run_shortcut(work, src, dst, store)
    else:
        run_separable(work, src, dst, store)


def splat(work: Gather, grad: Array, out: Array) -> None:
    """The transposed gather. See `interface.Differentiable`."""
    if out.size:
        _gradients().run_splat(work, grad, out)


def gradient(work: Gather, src: Array, out: Array, grad: Array | None = None) -> None:
    """Derivatives of a gather by position. See `interface.Differentiable`."""
    if out.size:
        _gradients().run_gradient(work, src, out, grad)


def moments(values: Array, field: Array | None, out: Array) -> None:
    """See `interface.Differentiable`."""
    for n, one in enumerate(values):
        out[n] = _gradients().moments(one, None if field is None else field[n % len(field)])


@contextmanager
def combining(models: int) -> Iterator[Combiner]:
    """What combines blocks of an ensemble of so many models. See `interface.Engine`."""
    with threads.importing:
        from gpuresample.engines.cpu import ensemble
    yield ensemble.CpuCombiner(run, models)


_ROUNDED: dict[int, Callable[[Array], Array]] = {
    HALF_UP: lambda values: np.floor(values + 0.5),
    TOWARD_ZERO: np.trunc,
    # Half of a number is not added to it: of large ones the sum would be rounded, too.
    AWAY: lambda values: np.trunc(values) + np.trunc(2 * (values - np.trunc(values))),
}


def convert(src: Array, dst: Array, rounding: int, factor: float) -> None:
    """Values in another type: integers saturate, floats become integers rounded as asked, NaN becomes 0."""
    if factor != 1.0:
        src = src * factor
    target = dst.dtype
    if target.kind not in "iu":
        dst[...] = src
        return
    info = np.iinfo(target)
    if src.dtype.kind in "iu":
        source = np.iinfo(src.dtype)
        dst[...] = np.clip(src, max(info.min, source.min), min(info.max, source.max))
        return
    if src.dtype == np.float16:
        # Half of the integer types end beyond its range, where a bound would be infinite.
        src = src.astype(np.float32)
    whole = _ROUNDED.get(rounding, np.rint)(src)
    high, low = whole >= info.max, whole <= info.min
    dst[...] = np.where(high | low | np.isnan(whole), 0, whole)
    dst[high], dst[low] = info.max, info.min
