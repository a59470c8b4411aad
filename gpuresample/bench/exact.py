"""How far a result is from a float64 reference: SimpleITK's or SciPy's in float64, or plain sums, on three blocks.

Whole volumes in float64 would take minutes and gigabytes. So the reference is computed for the first and the last
corner of the result, where the borders are, and for its middle, where real volumes have more than air: from that part
of the volume which reaches them. 32 voxels of margin are enough for a cubic spline's prefilter to have decayed below
the last bit.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample import Grid
from gpuresample.bench.cases import Array, Geometry, Job, image
from gpuresample.bench.peers import Peer, order_of
from gpuresample.bench.reference import resampled
from gpuresample.bench.tasks import Error
from gpuresample.planning.conventions import CONVENTIONS
from gpuresample.planning.conventions import grid as grid_of

BLOCK, MIDDLE, MARGIN, SHORT = 40, 16, 32, 12
# How SciPy is told a convention's border.
MODES = {
    "scipy": "constant", "nibabel": "constant", "skimage": "mirror", "torch": "nearest", "monai": "nearest",
    "nnunet": "nearest",
}  # fmt: skip


def blocks(shape: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """The blocks of a result that are looked at."""
    yield tuple(slice(max((n - MIDDLE) // 2, 0), min((n + MIDDLE) // 2, n)) for n in shape)
    yield tuple(slice(0, min(n, BLOCK)) for n in shape)
    yield tuple(slice(max(n - BLOCK, 0), n) for n in shape)


def cut(volume: Array, low: Array, high: Array, margin: int = MARGIN) -> tuple[slice, ...]:
    """The part of a volume around indices z, y, x from `low` to `high`, not less than a block."""
    begin = np.clip(np.floor(low).astype(int) - margin, 0, np.maximum(np.array(volume.shape) - 1, 0))
    end = np.clip(np.ceil(high).astype(int) + margin + 1, begin + 1, volume.shape)
    return tuple(slice(a, b) for a, b in zip(begin.tolist(), end.tolist(), strict=True))


def largest(result: Array, expected: Callable[[tuple[slice, ...]], Array]) -> float:
    """Largest difference on the blocks."""
    return max(float(np.abs(result[b].astype(np.float64) - expected(b)).max()) for b in blocks(result.shape))


def resampling(peer: Peer, job: Job) -> Error | None:
    """What measures a result of `peer`; None where there is no reference, or no SciPy."""
    if "label" in job.interpolation:
        return None
    if peer.convention in ("simpleitk", "torchio"):
        target = job.geometry.target
        if peer.convention == "torchio":
            target = grid_of(CONVENTIONS["torchio"], job.geometry.source, job.new[::-1], None)
        return lambda result: largest(result, lambda block: _simpleitk(job, target, block))
    if importlib.util.find_spec("scipy") is None or not job.aligned:
        return None
    return lambda result: largest(result, lambda block: _scipy(peer, job, result.shape, block))


def _simpleitk(job: Job, target: Grid, block: tuple[slice, ...]) -> Array:
    """SimpleITK's float64 result for a block of the target."""
    source = job.geometry.source
    first = np.array([[float(s.start) for s in block[::-1]]])
    n = tuple(s.stop - s.start for s in block[::-1])
    part = Grid(n, target.spacing, tuple(target.points(first)[0].tolist()), target.direction)
    ends = np.array([[x, y, z] for x in (0, n[0] - 1) for y in (0, n[1] - 1) for z in (0, n[2] - 1)], float)
    points = part.points(ends)
    transform = job.geometry.transform or sitk.Transform()
    if job.geometry.transform is not None:
        points = np.array([transform.TransformPoint(p) for p in points.tolist()])
    where = source.indices(points)[:, ::-1]
    region = cut(job.volume, where.min(axis=0), where.max(axis=0))
    begin = np.array([[float(s.start) for s in region[::-1]]])
    piece = job.volume[region]
    grid = Grid(piece.shape[::-1], source.spacing, tuple(source.points(begin)[0].tolist()), source.direction)
    there = Geometry("", grid, part, transform)
    return sitk.GetArrayFromImage(resampled(image(piece.astype(np.float64), grid), there, job.interpolation))


def _scipy(peer: Peer, job: Job, shape: tuple[int, ...], block: tuple[slice, ...]) -> Array:
    """SciPy's float64 result for a block, with the convention's coordinates and border."""
    from scipy import ndimage

    sigma = [0.0] * 3
    if peer.convention in CONVENTIONS and CONVENTIONS[peer.convention].antialias and job.interpolation != "nearest":
        sigma = [max(0.0, (n / m - 1) / 2) for n, m in zip(job.volume.shape, shape, strict=True)]
    axes = [a[s] for a, s in zip(_coordinates(peer, job, shape), block, strict=True)]
    margin = MARGIN + int(np.ceil(4 * max(sigma)))
    region = cut(job.volume, np.array([a[0] for a in axes]), np.array([a[-1] for a in axes]), margin)
    piece: Any = job.volume[region].astype(np.float64)
    mode = _mode(peer, job)
    if any(sigma):
        piece = ndimage.gaussian_filter(piece, sigma, mode=mode)
    # SciPy's "reflect" is off by 1e-4 on axes of 3 voxels; continued in this way they are long enough.
    more = MARGIN if mode == "reflect" and min(piece.shape) < SHORT else 0
    piece = np.pad(piece, more, "symmetric")
    places = np.meshgrid(*[a - s.start + more for a, s in zip(axes, region, strict=True)], indexing="ij")
    out: Array = ndimage.map_coordinates(piece, places, order=order_of(job.interpolation), mode=mode)
    if peer.convention in CONVENTIONS and CONVENTIONS[peer.convention].clip:
        out = np.clip(out, job.volume.min(), job.volume.max())
    return out


def _mode(peer: Peer, job: Job) -> str:
    if peer.convention == "volresample":
        return "reflect" if job.interpolation == "bspline" else "nearest"
    return MODES[peer.convention]


def _coordinates(peer: Peer, job: Job, shape: tuple[int, ...]) -> list[Array]:
    """Where a convention's samples lie along z, y, x, in float64."""
    double = np.dtype(np.float64)
    c = CONVENTIONS.get(peer.convention)
    if c is not None and c.positions is None:
        return [np.arange(m) * (new / old) for m, new, old in zip(shape, job.new, job.old, strict=True)]
    positions = CONVENTIONS["torch"].positions if c is None else c.positions
    assert positions is not None
    kind = "linear" if c is None else job.interpolation
    found = [positions(n, m, kind, double) for n, m in zip(job.volume.shape, shape, strict=True)]
    if c is None and job.interpolation == "bspline":  # volresample's cubic goes on past the outermost centres
        found = [(np.arange(m) + 0.5) * (n / m) - 0.5 for n, m in zip(job.volume.shape, shape, strict=True)]
    return found


# --- blurs ----------------------------------------------------------------------------------------------------------


def gaussian(kind: str, sigma: float, max_error: float) -> Callable[[Array], Error | None]:
    """From a volume to what measures its blur: by sums in float64 over the kernel's definition, axis by axis.

    Parameters
    ----------
    kind : str
        "discrete", `exp(-t) I_n(t)` with `t = sigma**2` cut at `max_error`, the border continued by its voxels; or
        "sampled", SciPy's kernel of 4 sigma, the border reflected. There is no reference for others, nor without SciPy.
    sigma : float
        In voxels.
    max_error : float
    """

    def reference(volume: Array) -> Error | None:
        if kind not in ("discrete", "sampled") or importlib.util.find_spec("scipy") is None:
            return None
        weights = _discrete(sigma, max_error) if kind == "discrete" else _sampled(sigma)
        return lambda result: largest(result, lambda block: _blurred(volume, weights, kind == "sampled", block))

    return reference


def _discrete(sigma: float, max_error: float) -> Array:
    from scipy.special import ive

    half = ive(np.arange(int(16 * sigma) + 64), sigma * sigma)
    radius = max(1, int(np.argmax(half[0] + 2 * np.cumsum(np.r_[0.0, half[1:]]) >= 1 - max_error)))
    return np.r_[half[radius:0:-1], half[: radius + 1]]


def _sampled(sigma: float) -> Array:
    radius = int(4 * sigma + 0.5)
    return np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)


def _blurred(volume: Array, weights: Array, reflected: bool, block: tuple[slice, ...]) -> Array:
    """A block of the blurred volume: one dense matrix along each axis of the voxels that reach it."""
    matrices = [_rows(n, weights, reflected, s) for n, s in zip(volume.shape, block, strict=True)]
    ends = [np.flatnonzero(m.any(axis=0))[[0, -1]] for m in matrices]
    out: Array = volume[tuple(slice(a, b + 1) for a, b in ends)].astype(np.float64)
    for matrix, (a, b) in zip(matrices, ends, strict=True):
        out = np.tensordot(out, matrix[:, a : b + 1], axes=([0], [1]))  # the axis goes to the end: z, y, x again
    return out


def _rows(n: int, weights: Array, reflected: bool, rows: slice) -> Array:
    """Weights of an axis of `n` voxels for some of its output, voxels beyond the border folded back."""
    radius, middle = len(weights) // 2, np.arange(rows.start, rows.stop)[:, None]
    index = middle + np.arange(-radius, radius + 1)
    if reflected:
        index = index % (2 * n)
        index = np.minimum(index, 2 * n - 1 - index)
    matrix = np.zeros((len(middle), n))
    np.add.at(matrix, (middle - rows.start, np.clip(index, 0, n - 1)), weights / weights.sum())
    return matrix
