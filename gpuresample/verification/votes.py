"""Votes of label interpolations at single voxels, counted anew: which labels may win where they weigh the same."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.verification.samples import Sample

Array = npt.NDArray[Any]

# Votes so close count as equal: ITK's error function is good to 3e-8, and a vote is a product of three differences.
EQUAL = 1e-6
# How far a coordinate may be wrong, in voxels.
_SHIFT = 1e-9
MOST = 100_000
_CHUNK = 4096

_erf = np.vectorize(math.erf, otypes=[float])


def may_win(sample: Sample, name: str, at: tuple[Array, ...], labels: Array) -> Array:
    """Whether a label has the most votes at a voxel, or as many as any other.

    Parameters
    ----------
    sample : Sample
        A label map, and where it goes.
    name : {"label_gaussian", "label_linear"}
    at : tuple of ndarray
        Array indices of voxels of the result, as `numpy.nonzero` gives them.
    labels : ndarray
        Of these voxels.
    """
    g = sample.geometry
    d = g.source.dimension
    volumes = sample.array.reshape(-1, *sample.array.shape[-d:])
    channel = np.ravel_multi_index(at[:-d], sample.array.shape[:-d]) if len(at) > d else np.zeros(len(labels), int)
    points = g.target.points(np.stack(at[::-1][:d], axis=1).astype(np.float64))
    if g.transform is not None:
        points = np.array([g.transform.TransformPoint(p) for p in points.tolist()])
    x = g.source.indices(points)
    # Exactly halfway the Gaussian's window is smaller than a little to either side.
    halves = np.rint(2 * x) / 2
    level = np.where(np.abs(x - halves) < _SHIFT, halves, x)
    out = np.zeros(len(labels), bool)
    for signs in itertools.product((0, 1, -1), repeat=d):
        for lo in range(0, len(labels), _CHUNK):
            part = slice(lo, lo + _CHUNK)
            moved = np.where(np.array(signs) == 0, level[part], x[part] + _SHIFT * np.array(signs))
            out[part] |= _wins(volumes, channel[part], moved, labels[part], name)
    return out


def _wins(volumes: Array, channel: Array, x: Array, labels: Array, name: str) -> Array:
    """Whether labels win at continuous indices x, y(, z)."""
    weight = np.ones((len(x), 1))
    index = channel[:, None]
    flat = volumes.shape[1:]
    for axis in reversed(range(x.shape[1])):
        n = flat[x.shape[1] - 1 - axis]
        first, w = (_gaussian if name == "label_gaussian" else _linear)(x[:, axis], n)
        k = np.clip(first[:, None] + np.arange(w.shape[1]), 0, n - 1)
        weight = (weight[:, :, None] * w[:, None, :]).reshape(len(x), -1)
        index = (index[:, :, None] * n + k[:, None, :]).reshape(len(x), -1)
    seen = volumes.reshape(-1)[index]
    votes = ((seen[:, :, None] == seen[:, None, :]) * weight[:, None, :]).sum(axis=-1)
    mine = ((seen == labels[:, None]) * weight).sum(axis=-1)
    return (mine > 0) & (mine >= votes.max(axis=-1) - EQUAL * weight.sum(axis=-1))


def _linear(x: Array, n: int) -> tuple[Array, Array]:
    """First neighbour and weights; beyond the ends the last voxel."""
    inside = np.clip(x, 0, n - 1)
    first = np.floor(inside).astype(int)
    return first, np.stack([1 - (inside - first), inside - first], axis=1)


def _gaussian(x: Array, n: int) -> tuple[Array, Array]:
    """First neighbour and weights of ITK's label Gaussian: sigma 1 voxel, cut at 1 voxel, and at the image's ends."""
    low = np.maximum(0, np.floor(x - 0.5)).astype(int)
    high = np.minimum(n, np.ceil(x + 1.5)).astype(int)
    k = low[:, None] + np.arange(4)
    w = _erf((k + 0.5 - x[:, None]) / math.sqrt(2)) - _erf((k - 0.5 - x[:, None]) / math.sqrt(2))
    return low, np.where(k < high[:, None], w, 0.0)
