"""Tables and bounds as engines hold them: in the type that sums are made in."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.interface import Store
from gpuresample.planning.taps import TapTable

# Weights that are looked at together: what follows from them takes several times their room.
AT_ONCE = 1 << 19
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def accumulator(precision: str) -> np.dtype[Any]:
    """The type sums are made in."""
    return _SINGLE if precision == "single" else _DOUBLE


def packed_weight(table: TapTable, acc: np.dtype[Any]) -> npt.NDArray[Any]:
    """Weights in the accumulator's type, each row's rounding error laid on its heaviest tap."""
    weight = table.weight.astype(acc)
    if acc == np.float32:
        step = max(1, AT_ONCE // table.n_taps)
        for lo in range(0, table.n_dst, step):
            exact, packed = table.weight[lo : lo + step], weight[lo : lo + step]
            rows = np.arange(len(packed))
            heaviest = np.abs(exact).argmax(axis=1)
            error = exact.sum(axis=1) - packed.sum(axis=1, dtype=np.float64)
            packed[rows, heaviest] = (packed[rows, heaviest].astype(np.float64) + error).astype(acc)
    return weight


def bounds_of(dtype: np.dtype[Any], acc: np.dtype[Any], store: Store) -> npt.NDArray[Any]:
    """Smallest and largest value of the accumulator that are stored (2**63 - 1 has no float: 2**63 - 1024)."""
    if dtype.kind not in "iu":
        return np.array([-np.inf, np.inf], acc)
    info = np.iinfo(dtype)
    bounds = np.array([info.min, info.max if store.high is None else store.high], acc)
    if int(bounds[1]) > info.max:
        bounds[1] = np.nextafter(bounds[1], np.zeros(1, acc)[0])
    return bounds


def window_of(acc: np.dtype[Any], store: Store) -> npt.NDArray[Any]:
    """What sums go through: low, high, scale, offset. Where nothing is asked for they keep all bits, of -0 as well."""
    with np.errstate(over="ignore"):  # a bound beyond the type is none
        return np.array((-np.inf, np.inf, 1.0, -0.0) if store.window is None else store.window, acc)


# How kernels store a type: as it is; to nearest, half to even; toward zero; half up, which only conversions do; to
# nearest, half away from zero; the CPU engine's alone, 16-bit floats as their bits. Numba's kernels read these names,
# `kernels/common.cuh` repeats them, and a test compares the two.
AS_IT_IS, NEAREST, TOWARD_ZERO, HALF_UP, AWAY, AS_HALF = 0, 1, 2, 3, 4, 5
ROUNDING_CODES = {"nearest": NEAREST, "truncate": TOWARD_ZERO, "away": AWAY}


def rounding_of(dtype: np.dtype[Any], store: Store) -> int:
    """How kernels store the type."""
    return AS_IT_IS if dtype.kind == "f" else ROUNDING_CODES[store.rounding]
