"""The bounds that we promise, and what a comparison against them leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.planning.filters import FILTERS
from gpuresample.planning.taps import BOUNDS
from gpuresample.plans import precision_of

Array = npt.NDArray[Any]

SINGLE, DOUBLE, DOUBLE_GAUSSIAN = BOUNDS["single"], BOUNDS["double"], 1e-7
# ITK's Bessel polynomials are good to 1e-8 of a kernel's peak.
DOUBLE_DISCRETE = 2e-8
# SimpleITK's recursive filters store float32 after every axis.
RECURSIVE = 4e-6
MOST_DIFFERING = 0.005
# Sums of values that lie so many times further from zero than from each other are wrong by their last digits.
FAR = 2.0

LABEL_MODES = tuple(f.name for f in FILTERS.values() if f.method == "vote")
# What must be equal voxel by voxel.
EXACT = ("nearest", *LABEL_MODES, "shrink", "bin_shrink")
_DOUBLES = {"gaussian": DOUBLE_GAUSSIAN, "gaussian_discrete": DOUBLE_DISCRETE}


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes
    ----------
    interpolation, volume, geometry : str
        What was asked for: an interpolation or a filter, of what, onto which grid or how wide.
    error : float
        Largest error of the float result over the input's range; for copied voxels and labels 0 or 1.
    bound : float
        What `error` must not exceed.
    step : int
        Largest difference of the integer result.
    differ : float
        Share of integer voxels that differ.
    ok : bool
        Whether all bounds hold.
    """

    interpolation: str
    volume: str
    geometry: str
    error: float
    bound: float
    step: int
    differ: float
    ok: bool


def is_wide(dtype: npt.DTypeLike) -> bool:
    """Whether voxels of this type are summed in float64."""
    kind = np.dtype(dtype)
    return precision_of(kind, kind) == "double"


def floats(dtype: npt.DTypeLike) -> type[np.float32] | type[np.float64]:
    """The type that voxels are summed in."""
    return np.float64 if is_wide(dtype) else np.float32


def bound_of(what: str, dtype: npt.DTypeLike) -> float:
    """What the error of an interpolation or filter must not exceed, in units of the image's range.

    Parameters
    ----------
    what : str
        An interpolation, or "gaussian_discrete", "gaussian_recursive", "shrink", "bin_shrink", "expand".
    dtype : dtype
        Of the image.
    """
    if what in EXACT:
        return 0.0
    if what == "gaussian_recursive":
        return RECURSIVE
    return _DOUBLES.get(what, DOUBLE) if is_wide(dtype) else SINGLE


def unit_of(low: float, high: float) -> float:
    """What errors are measured in: the range; the largest magnitude, where that is more than `FAR` ranges."""
    magnitude = max(abs(low), abs(high))
    return high - low if magnitude <= FAR * (high - low) else magnitude


@dataclass(frozen=True)
class Difference:
    """How far two arrays are apart.

    Attributes
    ----------
    largest : float
        Largest absolute difference.
    at : tuple of int
        Where that is.
    share : float
        Share of voxels that differ.
    """

    largest: float
    at: tuple[int, ...]
    share: float


def difference(ours: Array, theirs: Array, kept: Array | None = None) -> Difference:
    """Compare two arrays (..., z, y, x), a plane at a time to spare memory.

    Parameters
    ----------
    ours, theirs : ndarray of the same shape
        Integers of one type are compared exactly, whatever their size; others in float64.
    kept : ndarray of bool, optional
        Voxels that count; others are as if they were equal.
    """
    worst, at, count = 0.0, (0,) * ours.ndim, 0
    for index in _planes(ours):
        gap = distance(ours[index], theirs[index])
        if kept is not None:
            gap = np.where(kept[index], gap, 0)
        count += int(np.count_nonzero(gap))
        if gap.size and float(gap.max()) > worst:
            worst = float(gap.max())
            at = (*index, *(int(k) for k in np.unravel_index(int(gap.argmax()), gap.shape)))
    return Difference(worst, at, count / max(ours.size, 1))


def distance(ours: Array, theirs: Array) -> Array:
    """Absolute differences, voxel by voxel; NaN beside NaN is none."""
    ours, theirs = _numbers(ours), _numbers(theirs)
    if ours.dtype == theirs.dtype and ours.dtype.kind in "iu":
        # The difference of two integers of 64 bits fits into 64 bits without sign.
        gap = np.where(ours > theirs, ours - theirs, theirs - ours)
        return gap.astype(f"u{gap.dtype.itemsize}", copy=False)
    with np.errstate(invalid="ignore"):
        gap = np.abs(ours.astype(np.float64) - theirs)
    same = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    return np.where(same, 0.0, np.where(np.isnan(gap), np.inf, gap))


def _numbers(array: Array) -> Array:
    """Booleans as bytes."""
    return array.view(np.uint8) if array.dtype == np.bool_ else array


def differing_apart(ours: Array, theirs: Array, values: Array, near: float, kept: Array | None = None) -> float:
    """Share of integer voxels that differ although the sum behind them is no whole number.

    Where a sample falls on a voxel, or in an even region, the sum is a whole number but for its last bits. They decide
    between two integers when SimpleITK truncates, and they are noise in both results.

    Parameters
    ----------
    ours, theirs : ndarray of integers
    values : ndarray
        The sums.
    near : float
        Up to this distance from a whole number, `values` count as whole.
    kept : ndarray of bool, optional
        Voxels that count.
    """
    count = 0
    for index in _planes(ours):
        value = values[index]
        apart = (ours[index] != theirs[index]) & (np.abs(value - np.rint(value)) > near)
        count += int(np.count_nonzero(apart if kept is None else apart & kept[index]))
    return count / max(ours.size, 1)


def _planes(array: Array) -> Iterator[tuple[int, ...]]:
    """Indices of the planes (y, x) of an array."""
    return iter(np.ndindex(array.shape[:-2]))
