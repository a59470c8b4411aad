"""Structs that kernels take by value, as NumPy lays them out: of common.cuh, path.cuh, neighbours.cuh, gradient.cu."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda.runtime import Struct
from gpuresample.engines.cuda.views import View
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import bounds_of, rounding_of, window_of
from gpuresample.planning.works import Gather


@lru_cache
def batch_t(idx: type) -> np.dtype[Any]:
    """Sizes and strides of a batch of volumes."""
    whole, strides = [(f"n_{a}", np.int32) for a in "zyx"], [f"{of}_{a}" for of in "sd" for a in ("batch", *"zyx")]
    return np.dtype([("n_batch", idx), *whole, *[(name, idx) for name in strides]], align=True)


@lru_cache
def geometry_t(idx: type) -> np.dtype[Any]:
    """What kernels that follow routes are told."""
    strides = [(f"{of}_{a}", idx) for of in "sd" for a in "zyx"]
    whole = [(name, np.int32) for name in ("many", "n_z", "n_y", "n_x", "rule")]
    volumes = [("s_b", np.int64), ("d_b", np.int64)]
    return np.dtype([("box", np.float64, 6), *volumes, *strides, ("extent", np.int32, 9), *whole], align=True)


@lru_cache
def store_t(acc: np.dtype[Any]) -> np.dtype[Any]:
    """How sums become voxels."""
    sums = [(name, acc) for name in ("low", "high", "least", "most", "scale", "lift")]
    return np.dtype([*sums, ("rounding", np.int32)], align=True)


@lru_cache
def channels_t(idx: type) -> np.dtype[Any]:
    """Channels that share positions."""
    volumes, strides = [(name, np.int64) for name in ("s_c", "g_b", "g_c")], ("g_z", "g_y", "g_x", "d_c")
    whole = [("n_c", np.int32), ("only", np.int32)]
    return np.dtype([*volumes, *[(name, idx) for name in strides], *whole], align=True)


TAPS = np.dtype(
    [
        ("shift", np.float64),
        *[(name, np.int32) for name in ("pieces", "width", "terms", "offset", "spline", "normalise")],
    ],
    align=True,
)
SUMS = np.dtype([("bound", np.float64), ("next_word", np.int64), ("finer", np.int32)], align=True)


def struct(dtype: np.dtype[Any], *values: Any) -> Struct:
    """One struct; CuPy takes arrays of one element for structs by value."""
    return np.array([values], dtype)


def batch(idx: type, src: View | None, dst: View) -> Struct:
    """`batch_t` of views (batch, z, y, x); without a source, its strides are 0."""
    strides = (0,) * 4 if src is None else src.strides
    return struct(batch_t(idx), *dst.shape, *strides, *dst.strides)


def storing(dtype: np.dtype[Any], acc: np.dtype[Any], store: Store) -> tuple[Struct]:
    """The kernels' STORE_PARAMETERS."""
    low, high = bounds_of(dtype, acc, store)
    return (struct(store_t(acc), low, high, *window_of(acc, store), rounding_of(dtype, store)),)


def channels(idx: type, *values: int) -> Struct:
    """`channels_t`."""
    return struct(channels_t(idx), *values)


def taps(work: Gather) -> Struct:
    """`taps_t` of a gather."""
    return struct(TAPS, work.shift, *work.coefficients.shape, work.offset, work.narrow, work.normalise)


def geometry(idx: type, work: Gather, many: bool, src: View, dst: View, inner: Sequence[int]) -> Struct:
    """`geometry_t`; both views are (batch, z, y, x)."""
    # A box without end has finite ones: what is infinite lies outside.
    largest = np.finfo(np.float64).max
    box: npt.NDArray[np.float64] = np.clip(np.ravel(np.array(work.box, np.float64)), -largest, largest)
    s_b, *within = src.strides
    d_b, *to = dst.strides
    extent = (*work.n_src, *work.base, *inner)
    return struct(geometry_t(idx), box, s_b, d_b, *within, *to, extent, many, *work.n_dst, work.rule)
