"""torch's `interpolate` and `grid_sample` along one axis, as tables.

Coordinates have torch's type, for its last bits decide ties.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuresample.planning import taps
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.taps import TapTable


def grid_sample_table(x: FloatArray, n: int, mode: str, padding: str, align: bool) -> TapTable:
    """The table of torch's `grid_sample` along one axis of `n` voxels, at the positions `x`.

    Parameters
    ----------
    x : ndarray, float64
        In voxels.
    mode : {"bilinear", "nearest"}
    padding : {"zeros", "border", "reflection"}
    align : bool
        `align_corners`: it decides where a line is reflected.
    """
    if padding == "reflection":
        low, high = (0.0, n - 1.0) if align else (-0.5, n - 0.5)
        span = max(high - low, 1.0)
        off = np.abs(x - low)
        x = np.where(np.floor(off / span) % 2 == 0, off % span, span - off % span) + low
    # Beyond the first zero everything is zero.
    x = np.clip(x, -2.0, n + 1.0) if padding == "zeros" else np.clip(x, 0.0, n - 1.0)
    if mode == "nearest":
        return taps.zero_padded_table(np.rint(x).astype(np.int64), np.ones((x.size, 1)), n)
    first = np.floor(x)
    weight = np.stack([1.0 - (x - first), x - first], axis=1)
    return taps.zero_padded_table(first.astype(np.int64), weight, n)


def interpolate_table(
    n: int,
    m: int,
    mode: str,
    align: bool,
    kind: Any,
    scale: float | None = None,
    antialias: bool = False,
    pictures: bool = False,
) -> TapTable:
    """The table of torch's `interpolate` from `n` voxels to `m` along one axis.

    Parameters
    ----------
    mode : {"nearest", "nearest-exact", "linear", "area"}
    align : bool
        `align_corners`, of "linear".
    kind : type
        numpy.float32 or numpy.float64: the type of coordinates, which is that of torch's sums.
    scale : float, optional
        The factor that torch was asked for. It decides where samples lie, even where `m` is not `n * scale`.
    antialias : bool
        Whether the triangle of "linear" is as wide as a sample's step, where that is wider than a voxel.
    pictures : bool
        Of tensors of two spatial axes torch copies an axis that "nearest" brings to its own or twice its size, whatever
        the factor. Of three it does not.
    """
    if mode == "area":
        return taps.block_mean_table(n, m)
    if m == n and mode == "linear" and not align:
        return taps.index_table(n, np.arange(n))
    if m in (n, 2 * n) and mode == "nearest" and pictures:
        return taps.index_table(n, np.arange(m) * n // m)
    if mode in ("nearest", "nearest-exact"):
        step = np.float32(n) / np.float32(m) if scale is None else np.float32(1.0 / scale)
        half = np.float32(0.5 if mode == "nearest-exact" else 0.0)
        index = np.floor((np.arange(m, dtype=np.float32) + half) * step).astype(np.int64)
        return taps.index_table(n, np.clip(index, 0, n - 1))
    if align:
        step = kind(n - 1) / kind(m - 1) if m > 1 else kind(0)
    else:
        step = kind(n) / kind(m) if scale is None else kind(1.0 / scale)
    i = np.arange(m).astype(kind)
    if antialias:
        return _triangles(step, n, m)
    x = i * step if align else np.maximum((i + kind(0.5)) * step - kind(0.5), kind(0))
    return grid_sample_table(x.astype(np.float64), n, "bilinear", "border", align)


def _triangles(step: Any, n: int, m: int) -> TapTable:
    """Triangles of `max(step, 1)` voxels to either side of each sample, cut at the border and brought to a sum of 1."""
    wide = max(float(step), 1.0)
    centre = float(step) * (np.arange(m) + 0.5)
    low = np.maximum(np.trunc(centre - wide + 0.5), 0).astype(np.int64)
    high = np.minimum(np.trunc(centre + wide + 0.5), n).astype(np.int64)
    # Where corners are aligned a sample's centre may lie so far out that no voxel is left: its last one is.
    low = np.minimum(low, n - 1)
    k = np.arange(max(int((high - low).max()), 1))
    at = low[:, None] + k
    weight = np.where(at < np.maximum(high, low + 1)[:, None], 1.0 - np.abs(at + 0.5 - centre[:, None]) / wide, 0.0)
    weight = np.maximum(weight, 0.0)
    total = weight.sum(axis=1, keepdims=True)
    return taps.trim(n, low, weight / np.where(total == 0.0, 1.0, total), 0.0)
