"""From the voxel types that images have to those that tables are applied to, and back; the same for every engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.interface import Store
from gpuresample.engines.packing import AS_IT_IS, HALF_UP, rounding_of
from gpuresample.planning.works import Work

Run = Callable[[Work, Any, Any, Store], None]
Empty = Callable[[Sequence[int], npt.DTypeLike], Any]
# (source, destination, rounding, factor): every value times the factor, in the destination's type.
Convert = Callable[[Any, Any, int, float], None]


def converted(run: Run, empty: Empty, convert: Convert, work: Work, src: Any, dst: Any, store: Store) -> None:
    """`run`, between the conversions that `store` asks for; arrays are of the engine's own kind.

    `empty` makes scratch, `convert` fills one array from another of the same shape.
    """
    if store.exact and src.dtype != dst.dtype:
        typed = empty(src.shape, dst.dtype)
        convert(src, typed, rounding_of(dst.dtype, store), 1.0)
        src = typed
    if store.divisor == 1:
        run(work, src, dst, store)
        return
    sums = empty(dst.shape, np.dtype(np.float64))
    run(work, src, sums, replace(store, divisor=1, exact=False, high=None))
    # Multiplied, as ITK does; rounded half up, as of all its filters BinShrink alone does.
    convert(sums, dst, HALF_UP if dst.dtype.kind in "iu" else AS_IT_IS, 1.0 / store.divisor)
