"""Sums kept within the range of the volume that they are of; on either engine."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from gpuresample.engines import threads as pool
from gpuresample.engines.interface import Engine, Store
from gpuresample.planning.works import Gather, Separable, Work


def run(engine: Engine, work: Work, src: Any, dst: Any, store: Store) -> None:
    """Fill `dst` [..., z, y, x] from `src` [..., z, y, x], volume by volume; what lies outside keeps its value.

    Parameters
    ----------
    engine : Engine
    work : Separable or Gather
        Of sums.
    src, dst : array
        In host memory, or on the engine's device.
    store : Store
        Default value, rounding, and a window whose scale and offset are taken.
    """
    scaling = (1.0, -0.0) if store.window is None else store.window[2:]
    if isinstance(work, Separable) and work.copies and scaling[0] == 1.0 and scaling[1] == 0.0:
        engine.run(work, src, dst, replace(store, window=None))
        return
    for k, volume in enumerate(np.ndindex(dst.shape[:-3])):
        low, high = _extremes(src[volume])
        one = replace(work, routes=(work.routes[k],)) if isinstance(work, Gather) and len(work.routes) > 1 else work
        if math.isnan(low) or low > high:  # it has no range
            low, high = -math.inf, math.inf
        engine.run(one, src[volume], dst[volume], replace(store, window=(low, high, *scaling)))


def library_of(array: Any) -> Any:
    """NumPy, or CuPy for arrays on a GPU."""
    return sys.modules["cupy"] if hasattr(array, "__cuda_array_interface__") else np


def _extremes(array: Any) -> tuple[float, float]:
    """Smallest and largest number of an array, NaN or the wrong way round if there is none; waits for a GPU."""
    xp = library_of(array)
    if xp is np:
        return pool.extremes(array)
    if array.dtype.kind != "f":
        return array.min().item(), array.max().item()
    none = xp.isnan(array)
    inf = array.dtype.type(np.inf)
    return xp.where(none, inf, array).min().item(), xp.where(none, -inf, array).max().item()
