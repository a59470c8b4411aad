"""Sums over the voxels that have data: `sum(w v) / sum(w)`, from two runs of one work on either engine."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpuresample.engines.clipped import library_of
from gpuresample.engines.interface import Engine, Store
from gpuresample.engines.packing import accumulator, window_of
from gpuresample.planning.works import Gather, Separable, Work

# The share of the weight that data must have. Weights that are nowhere negative are worth something however few they
# are; of others a small share is the difference of large ones, and what is divided by it is anything.
LEAST_OF_ALL, LEAST_OF_SIGNED = 1e-6, 0.5


def run(
    engine: Engine,
    work: Work,
    src: Any,
    dst: Any,
    store: Store,
    ignore: float,
    clip: bool,
    signed: bool,
) -> None:
    """Fill `dst` [..., z, y, x] from the voxels of `src` that are not `ignore`, and with that where there are none.

    Parameters
    ----------
    engine : Engine
    work : Separable or Gather
        Of sums.
    src, dst : array
        In host memory, or on the engine's device.
    store : Store
        Default value, rounding and window.
    ignore : float
        The value that says "no data", or NaN.
    clip : bool
        Whether to keep sums within the range of a volume's data, in place of the window's range.
    signed : bool
        See `is_signed`; of the whole work, where this is a part.
    """
    assert isinstance(work, (Separable, Gather))
    xp = library_of(src)
    kind = accumulator(work.precision).type
    values = src.astype(kind)
    has_data = ~xp.isnan(values) if math.isnan(ignore) else src != src.dtype.type(ignore)
    zero = kind(0)
    values = xp.where(has_data, values, zero)
    summed, weight = xp.empty(dst.shape, kind), xp.empty(dst.shape, kind)
    # Outside there is no weight: a NaN says so, which no sum of ones and zeros is.
    engine.run_all([
        (work, values, summed, Store(default=0.0)),
        (work, has_data.astype(kind), weight, Store(default=math.nan)),
    ])  # fmt: skip
    outside = xp.isnan(weight)
    enough = weight >= kind(LEAST_OF_SIGNED if signed else LEAST_OF_ALL)
    summed = summed / xp.where(enough, weight, kind(1))
    low, high, scale, offset = window_of(np.dtype(kind), store)
    if clip:
        axes = (-3, -2, -1)
        low = xp.where(has_data, values, kind(np.inf)).min(axis=axes, keepdims=True)
        high = xp.where(has_data, values, kind(-np.inf)).max(axis=axes, keepdims=True)
    if clip or store.window is not None:
        summed = xp.minimum(xp.maximum(summed, low), high) * scale + offset
    stored = _stored(xp, summed, dst.dtype, store)
    stored = xp.where(enough, stored, dst.dtype.type(ignore))
    dst[...] = xp.where(outside, dst.dtype.type(store.default), stored)


def bytes_of(work: Work, n_src: int, n_dst: int, dst: np.dtype[Any]) -> int:
    """Bytes of `run`, at most, beside source, destination and what the engine takes."""
    size = accumulator(work.precision).itemsize
    return n_src * (2 * size + 1) + n_dst * (5 * size + 4 + 2 * dst.itemsize)


def is_signed(work: Work) -> bool:
    """Whether some weight is negative."""
    if not isinstance(work, (Separable, Gather)):
        return False
    if isinstance(work, Separable):
        return any(bool((t.weight < 0).any()) for t in work.tables)
    if work.prefilter is not None and is_signed(work.prefilter):
        return True
    x = np.linspace(0.0, 1.0, 65)[:, None] ** np.arange(work.coefficients.shape[2])
    # Some pieces of a positive kernel touch zero, give or take a rounding.
    return bool((np.einsum("sd,pwd->psw", x, work.coefficients) < -1e-9).any())


def _stored(xp: Any, values: Any, dtype: np.dtype[Any], store: Store) -> Any:
    """Values in a type, rounded and saturated as a store says."""
    if dtype.kind == "f":
        return values.astype(dtype)
    if store.rounding == "nearest":
        values = xp.rint(values)
    elif store.rounding == "away":
        values = xp.sign(values) * xp.floor(xp.abs(values) + 0.5)
    else:
        values = xp.trunc(values)
    info = np.iinfo(dtype)
    low = info.min
    high = info.max if store.high is None else store.high
    # The float next to a limit may lie beyond it: what reaches a limit is the limit.
    below, beyond = values <= float(low), values >= float(high)
    inner = xp.where(below | beyond | xp.isnan(values), 0.0, values).astype(dtype)
    return xp.where(beyond, dtype.type(high), xp.where(below, dtype.type(low), inner))
