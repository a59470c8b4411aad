"""`label_report`: what resampling has done to a label map, label by label."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.containers import IMAGES, has_geometry, unwrap

# Labels that lie closer together are counted in a table, others are looked up.
MOST_SPAN = 1 << 16


@dataclass(frozen=True)
class LabelChange:
    """One label before and after.

    Attributes
    ----------
    label : int
    voxels : two int
        How many voxels have it, before and after.
    volume : two float
        The same in cubed units of space: mm3 for medical images.
    shift : float
        How far its centre of mass has moved, in units of space; NaN where it is missing before or after.
    """

    label: int
    voxels: tuple[int, int]
    volume: tuple[float, float]
    shift: float


@dataclass(frozen=True)
class LabelReport:
    """What has become of all labels but the background.

    Attributes
    ----------
    changes : tuple of LabelChange
        By label, those that are before or after.
    """

    changes: tuple[LabelChange, ...]

    @property
    def lost(self) -> tuple[int, ...]:
        """Labels that are there before and not after."""
        return tuple(c.label for c in self.changes if c.voxels[0] and not c.voxels[1])

    @property
    def new(self) -> tuple[int, ...]:
        """Labels that are there after and not before."""
        return tuple(c.label for c in self.changes if c.voxels[1] and not c.voxels[0])

    def __str__(self) -> str:
        lines = [f"{'label':>8} {'voxels':>19} {'volume':>25} {'shift':>8}"]
        for c in self.changes:
            word = " lost" if c.label in self.lost else " new" if c.label in self.new else ""
            lines.append(
                f"{c.label:>8} {c.voxels[0]:>9} {c.voxels[1]:>9} {c.volume[0]:>12.5g} {c.volume[1]:>12.5g} "
                f"{'' if math.isnan(c.shift) else format(c.shift, '.3g'):>8}{word}"
            )
        return "\n".join(lines)


def label_report(before: Any, after: Any, *, background: int = 0) -> LabelReport:
    """Compare the labels of two label maps that lie in one space.

    Parameters
    ----------
    before, after : SimpleITK.Image, Volume, nibabel image or MetaTensor
        Label maps of integers or bool, in host memory; of one volume each.
    background : int
        The label that is left out.

    Returns
    -------
    LabelReport
        Of every label: voxels, volume, and how far its centre has moved. `report.lost` names those that have vanished.

    Raises
    ------
    TypeError
        For bare arrays, which lie nowhere, and voxels that are no labels.
    ValueError
        For several volumes, and maps of different dimension.

    Examples
    --------
    >>> import numpy as np, gpuresample as gr
    >>> labels = gr.Volume(np.pad(np.ones((2, 2, 2), np.uint8), 3), (1, 1, 1))
    >>> gr.label_report(labels, gr.resample(labels, spacing=2, interpolation="nearest")).lost
    ()
    """
    sides = [_sides(name, image, background) for name, image in (("before", before), ("after", after))]
    if sides[0][1] != sides[1][1]:
        raise ValueError(f"after must have the {sides[0][1]} dimensions of before, got {sides[1][1]}")
    (old, _), (new, _) = sides
    changes = []
    for label in sorted({*old, *new}):
        (n, v, p), (m, w, q) = (side.get(label, (0, 0.0, None)) for side in (old, new))
        shift = math.nan if p is None or q is None else float(np.linalg.norm(q - p))
        changes.append(LabelChange(label, (n, m), (v, w), shift))
    return LabelReport(tuple(changes))


Side = tuple[int, float, npt.NDArray[np.float64] | None]


def _sides(name: str, image: Any, background: int) -> tuple[dict[int, Side], int]:
    """Of every label its voxels, its volume and its centre; and the map's dimension."""
    if not has_geometry(image):
        raise TypeError(f"{name} must be {IMAGES}, which lie in space; got {type(image).__name__}")
    container = unwrap(image)
    grid, d = container.grid, container.grid.dimension
    if container.where != "cpu":
        raise ValueError(f"{name} must be in host memory, got one on {container.where}")
    if math.prod(container.shape[:-d]) != 1:
        raise ValueError(f"{name} must be one volume, got shape {container.shape}")
    if container.dtype.kind not in "iub":
        raise TypeError(f"{name} must have labels, integers or bool, got {container.dtype}")
    assert container.array is not None
    voxels = np.asarray(container.array).reshape(grid.size[::-1])
    labels, counts, centre = _counted(voxels.view(np.uint8) if voxels.dtype == np.bool_ else voxels)
    points = grid.points(centre)
    each = abs(float(np.linalg.det(grid.index_to_point)))
    found: dict[int, Side] = {
        int(label): (int(n), int(n) * each, p) for label, n, p in zip(labels, counts, points, strict=True)
    }
    found.pop(background, None)
    return found, d


def _counted(voxels: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Labels that are there, how many voxels each has, and their mean index x, y(, z); no array is as large as all."""
    low, high = int(voxels.min()), int(voxels.max())
    if high - low < MOST_SPAN:
        labels = (np.arange(high - low + 1) + low).astype(voxels.dtype)
    else:
        labels = functools.reduce(np.union1d, (np.unique(plane) for plane in voxels)).astype(voxels.dtype)
    n, d = labels.size, voxels.ndim
    counts, sums = np.zeros(n, np.int64), np.zeros((n, d))
    inner = np.indices(voxels.shape[1:]).reshape(d - 1, -1).astype(np.float64)
    for k, plane in enumerate(voxels):
        if high - low < MOST_SPAN:
            index = plane.ravel().astype(np.int64) - low
        else:
            index = np.searchsorted(labels, plane.ravel())
        here = np.bincount(index, minlength=n)
        counts += here
        sums[:, d - 1] += k * here
        for axis, at in enumerate(inner):
            sums[:, d - 2 - axis] += np.bincount(index, at, minlength=n)
    there = counts > 0
    return labels[there], counts[there], sums[there] / counts[there, None]
