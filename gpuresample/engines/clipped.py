"""Sums kept within a range: that of the volume that they are of, or one that is given; on either engine."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from gpuresample.engines import threads as pool
from gpuresample.engines.contract import Engine, Store
from gpuresample.planning.works import Gather, Separable, Work


def run(engine: Engine, work: Work, src: Any, dst: Any, store: Store, clip: bool | tuple[float, float]) -> None:
    """Fill `dst` [..., z, y, x] from `src` [..., z, y, x], volume by volume; what lies outside keeps its value.

    Parameters
    ----------
    engine : Engine
    work : Separable or Gather
        Of sums.
    src, dst : array
        In host memory, or on the engine's device.
    store : Store
        Default value and rounding.
    clip : True or (low, high)
        The range of each volume's numbers, or the range.
    """
    for k, volume in enumerate(np.ndindex(dst.shape[:-3])):
        low, high = clip if isinstance(clip, tuple) else _extent(src[volume])
        one = replace(work, routes=(work.routes[k],)) if isinstance(work, Gather) and len(work.routes) > 1 else work
        if math.isnan(low) or low > high:  # it has no range
            engine.run(one, src[volume], dst[volume], store)
            continue
        whole = dst.dtype.kind in "iu"
        engine.run(one, src[volume], dst[volume], replace(store, low=low, high=high) if whole else store)
        # The store has bounded whole numbers, but for copies, which move bits.
        if not whole or (isinstance(one, Separable) and one.copies):
            _clip_sums(engine, one, src[volume], dst[volume], (low, high), store.default)


def _clip_sums(engine: Engine, work: Work, src: Any, dst: Any, clip: tuple[float, float], default: float) -> None:
    """Bring what a work has summed of a volume into a range; what lies outside keeps the default value."""
    low, high = (int(v) if dst.dtype.kind in "iu" else v for v in clip)
    if isinstance(work, Separable):
        _clip(dst.transpose(work.dst_axis)[tuple(slice(*r) for r in work.inside)], low, high)
        return
    outside = None
    if not low <= default <= high:
        # A sum may be the default value, too: outside is where even zeros have no sum.
        assert isinstance(work, Gather)
        kind = np.float32 if work.precision == "single" else np.float64
        xp = library_of(src)
        probe = xp.empty(dst.shape, kind)
        engine.run(work, xp.zeros(src.shape, kind), probe, Store(default=math.nan))
        outside = xp.isnan(probe)
    _clip(dst, low, high)
    if outside is not None:
        dst[outside] = default


def library_of(array: Any) -> Any:
    """NumPy, or CuPy for arrays on a GPU."""
    return sys.modules["cupy"] if hasattr(array, "__cuda_array_interface__") else np


def _extent(array: Any) -> tuple[float, float]:
    """Smallest and largest number of an array, NaN or the wrong way round if there is none; waits for a GPU."""
    xp = library_of(array)
    if xp is np:
        return pool.extent(array)
    if array.dtype.kind != "f":
        return array.min().item(), array.max().item()
    none = xp.isnan(array)
    inf = array.dtype.type(np.inf)
    return xp.where(none, inf, array).min().item(), xp.where(none, -inf, array).max().item()


def _clip(array: Any, low: float, high: float) -> None:
    xp = library_of(array)
    if xp is np:
        pool.clip(array, low, high)
    else:
        xp.clip(array, low, high, out=array)
