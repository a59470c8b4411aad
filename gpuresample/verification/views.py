"""The plane on which two results are furthest apart, small enough for a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

# Pixels of the longer side.
PIXELS = 256
# Differences have their full colour from this part of the largest on: most are far smaller than that one.
FULL = 1 / 3
# Above zero, below zero, none: of Okabe and Ito's colours, which colour-blind people tell apart.
_ABOVE, _BELOW, _NONE = np.array([240, 170, 20]), np.array([96, 190, 250]), np.array([22, 24, 28])


@dataclass(frozen=True, eq=False)
class Views:
    """Pictures of one plane.

    Attributes
    ----------
    ours, theirs : ndarray of uint8, shape (y, x)
        Both results in one window of values.
    difference : ndarray of uint8, shape (y, x, 3)
        Ours less theirs: orange above zero, blue below; of pixels that share one, the largest.
    at : tuple of int
        Where they are furthest apart, in array order.
    peak : float
        The difference there, in intensity units; a third of it has the full colour.
    window : two floats
        Values shown black and white.
    """

    ours: Array
    theirs: Array
    difference: Array
    at: tuple[int, ...]
    peak: float
    window: tuple[float, float]


def views_of(ours: Array, theirs: Array, at: tuple[int, ...], spacing: tuple[float, ...]) -> Views:
    """Pictures of the plane (y, x) through a voxel of two results (..., y, x).

    Parameters
    ----------
    ours, theirs : ndarray of the same shape
    at : tuple of int
    spacing : tuple of float
        Of the results, x first.
    """
    a, b = (np.asarray(v[at[:-2]], np.float64) for v in (ours, theirs))
    seen = b[np.isfinite(b)]
    low, high = (0.0, 1.0) if not seen.size else np.percentile(seen, (0.5, 99.5)).tolist()
    known = np.isfinite(a) & np.isfinite(b)
    gap = np.where(known, a, 0.0) - np.where(known, b, 0.0)
    rows, columns = _pixels(gap.shape, spacing)
    above = _reduced(np.maximum.reduceat, gap, rows, columns)
    below = _reduced(np.minimum.reduceat, gap, rows, columns)
    strongest = np.where(above >= -below, above, below)
    peak = float(np.abs(gap).max())
    return Views(
        _grey(a[np.ix_(rows, columns)], low, high),
        _grey(b[np.ix_(rows, columns)], low, high),
        _coloured(np.clip(strongest / (FULL * peak or 1.0), -1, 1)),
        at,
        peak,
        (low, high),
    )


def _pixels(shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[Array, Array]:
    """Which row and which column every pixel shows, in the plane's proportions."""
    n_y, n_x = shape
    height, width = n_y * spacing[1], n_x * spacing[0]
    h = max(1, round(PIXELS * min(1.0, height / width)))
    w = max(1, round(PIXELS * min(1.0, width / height)))
    return np.arange(h) * n_y // h, np.arange(w) * n_x // w


def _reduced(reduce: Any, gap: Array, rows: Array, columns: Array) -> Array:
    """Pixels of a plane, none of its voxels left out."""
    return reduce(reduce(gap, rows, axis=0), columns, axis=1)


def _grey(values: Array, low: float, high: float) -> Array:
    scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) / ((high - low) or 1.0)
    return (np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def _coloured(values: Array) -> Array:
    """Values from -1 to 1 as colours."""
    strength = np.abs(values)[..., None]
    colour = np.where(values[..., None] > 0, _ABOVE, _BELOW)
    return np.rint(_NONE + strength * (colour - _NONE)).astype(np.uint8)
