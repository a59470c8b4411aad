"""A CT-like phantom made of formulas: no patient, no download, the same voxels everywhere.

Its geometry is that of the published reference job: 512 x 512 x 247 voxels of 0.78125 x 0.78125 x 1 mm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import SimpleITK

FloatArray = npt.NDArray[np.float32]

REFERENCE_SIZE = (512, 512, 247)
REFERENCE_SPACING = (0.78125, 0.78125, 1.0)
REFERENCE_NEW_SPACING = (1.0, 1.0, 2.0)

_EDGE = 1.2  # mm over which one tissue turns into the next, about a scanner's point spread


class Ellipsoid(NamedTuple):
    """Tissue of one density; millimetres, y grows to the back, an infinite `rz` makes a cylinder."""

    x: float
    y: float
    z: float
    rx: float
    ry: float
    rz: float
    hu: float


class Bar(NamedTuple):
    """A box of one density, from corner to corner, in millimetres."""

    x0: float
    x1: float
    y0: float
    y1: float
    z0: float
    z1: float
    hu: float


_ALONG = math.inf
# Vessels of the lungs: thin along z, in pairs left and right.
_VESSELS = tuple(
    Ellipsoid(side * (x + 2 * side), y, z, r, 1.2 * r, length, 35)
    for side in (1, -1)
    for x, y, z, r, length in (
        (50, -6, 140, 4.0, 34), (54, 16, 128, 3.0, 40), (66, -2, 136, 3.2, 22), (62, 30, 118, 2.4, 30),
        (70, 22, 132, 2.0, 26), (78, -12, 116, 2.2, 24), (74, 44, 112, 1.8, 22), (86, 10, 126, 1.6, 26),
        (92, -24, 140, 1.4, 20), (98, 2, 110, 1.4, 18), (90, 34, 128, 1.3, 18), (80, -36, 122, 1.3, 16),
        (106, -8, 128, 1.1, 14), (84, 0, 176, 1.8, 22), (70, -4, 196, 2.4, 26), (64, 20, 186, 1.8, 24),
    )
)  # fmt: skip
_BODY = (
    Ellipsoid(0, 4, 0, 172, 116, _ALONG, -100),  # skin and fat
    Ellipsoid(0, 6, 0, 155, 99, _ALONG, 55),  # muscle
    Ellipsoid(70, 0, 165, 57, 76, 135, -850),  # lungs
    Ellipsoid(-70, 0, 165, 57, 76, 135, -860),
    *_VESSELS,
    Ellipsoid(-62, 2, 22, 84, 80, 72, 95),  # liver
    Ellipsoid(78, 22, 20, 46, 50, 52, 110),  # spleen
    Ellipsoid(22, -22, 120, 56, 48, 66, 48),  # heart, its left ventricle, the aorta
    Ellipsoid(34, -16, 112, 25, 22, 34, 190),
    Ellipsoid(24, 44, 0, 12.5, 12.5, _ALONG, 210),
    Ellipsoid(0, 20, 205, 9, 8, 62, -985),  # trachea
    Ellipsoid(0, -86, 150, 17, 5, 92, 330),  # sternum
)
_SPINE = (
    Ellipsoid(0, 66, 0, 23, 19, _ALONG, 640),  # cortical bone around spongy bone
    Ellipsoid(0, 66, 0, 20.5, 16.5, _ALONG, 240),
    Ellipsoid(0, 90, 0, 11, 9, _ALONG, 520),  # arch and canal
    Ellipsoid(0, 89, 0, 8, 6.5, _ALONG, 25),
)
_NODULES = tuple(
    Ellipsoid(x, y, z, r, r, r, hu)
    for x, y, z, r, hu in (
        (-88, -20, 124, 7.0, 60), (-62, -44, 123, 4.0, 60), (-100, 20, 124, 2.5, 60), (-64, 34, 123, 1.5, 1100),
        (98, 14, 123, 5.0, 60), (104, -22, 124, 3.0, 900), (-84, 0, 168, 6.0, 60), (86, 0, 176, 3.5, 60),
        (-70, 0, 206, 2.0, 1100), (92, 0, 216, 4.5, 60),
    )
)  # fmt: skip


def _bars() -> tuple[Bar, ...]:
    """Groups of three bars, 1.5 to 4 mm wide, side by side across x (seen in axial slices) and stacked along z."""
    bars = []
    x, z = -18.0, 92.0
    for width in (1.5, 2.5, 4.0):
        for _ in range(3):
            bars.append(Bar(x, x + width, -58, -38, 112, 136, 1000))
            bars.append(Bar(-52, -36, -9, 9, z, z + width, 1000))
            x, z = x + 2 * width, z + 2 * width
        x, z = x + 5, z + 5
    return tuple(bars)


_BARS = _bars()


def phantom(
    size: Sequence[int] = REFERENCE_SIZE, spacing: Sequence[float] | None = None, seed: int = 0
) -> SimpleITK.Image:
    """A chest of formulas, in Hounsfield units, with noise.

    Parameters
    ----------
    size : sequence of int
        Voxels along x, y, z.
    spacing : sequence of float, optional
        Voxel spacing in mm; what gives the reference's field of view (400 x 400 x 247 mm) unless given.
    seed : int
        Of the noise; the same seed gives the same voxels.

    Returns
    -------
    SimpleITK.Image
        int16, air at -1000.
    """
    import SimpleITK as sitk

    if spacing is None:
        spacing = [n0 * s / n for n0, s, n in zip(REFERENCE_SIZE, REFERENCE_SPACING, size, strict=True)]
    origin = [-(size[0] - 1) * spacing[0] / 2, -(size[1] - 1) * spacing[1] / 2, spacing[2] / 2]
    x, y, z = ((o + s * np.arange(n)).astype(np.float32) for o, s, n in zip(origin, spacing, size, strict=True))
    rng = np.random.Generator(np.random.SFC64(seed))
    ribs = _Ribs(x, y)
    array = np.empty(tuple(size)[::-1], np.int16)
    for k, height in enumerate(z.tolist()):
        plane = np.full((len(y), len(x)), -1000, np.float32)
        _couch(plane, x, y)
        for tissue in _BODY:
            _paint(plane, tissue, x, y, height)
        ribs.paint(plane, height)
        for tissue in _SPINE:
            _paint(plane, _as_disc(tissue, height), x, y, height)
        for nodule in _NODULES:
            _paint(plane, nodule, x, y, height)
        for bar in _BARS:
            _paint_bar(plane, bar, (x, y, np.array([height], np.float32)), spacing)
        plane += rng.standard_normal(plane.shape, np.float32) * np.float32(10)
        np.rint(np.clip(plane, -1024, 3071, out=plane), out=plane)
        array[k] = plane
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing)
    image.SetOrigin([origin[0], origin[1], -z.mean().item()])
    return image


def _within(axis: FloatArray, centre: float, radius: float) -> slice:
    """The samples of an axis that a shape can touch."""
    lo, hi = np.searchsorted(axis, (centre - radius - _EDGE, centre + radius + _EDGE))
    return slice(int(lo), int(hi))


def _paint(plane: FloatArray, e: Ellipsoid, x: FloatArray, y: FloatArray, z: float) -> None:
    """Blend an ellipsoid's density into the plane at height `z`."""
    depth = ((z - e.z) / e.rz) ** 2
    if depth > (1 + _EDGE / e.rz) ** 2:
        return
    sy, sx = _within(y, e.y, e.ry), _within(x, e.x, e.rx)
    # Near the surface, 1 - q is twice the distance to it over the radius.
    steep = min(e.rx, e.ry) / (2 * _EDGE)
    share = ((x[sx] - e.x) / e.rx) ** 2 * -steep + (((y[sy] - e.y) / e.ry) ** 2 * -steep + (0.5 + steep * (1 - depth)))[
        :, None
    ]
    np.clip(share, 0, 1, out=share)
    region = plane[sy, sx]
    share *= e.hu - region
    region += share


def _paint_bar(plane: FloatArray, bar: Bar, points: tuple[FloatArray, ...], spacing: Sequence[float]) -> None:
    """Blend a box in: every voxel takes the share of it that the box covers."""
    covers = []
    for axis, step, lo, hi in zip(points, spacing, bar[0:6:2], bar[1:6:2], strict=True):
        cover = np.minimum(axis + step / 2, hi) - np.maximum(axis - step / 2, lo)
        covers.append(np.clip(cover / step, 0, 1).astype(np.float32))
    if covers[2][0] == 0:
        return
    sx, sy = (slice(*(np.flatnonzero(c)[[0, -1]] + (0, 1)).tolist()) for c in covers[:2])
    region = plane[sy, sx]
    region += covers[2] * covers[1][sy, None] * covers[0][sx] * (bar.hu - region)


def _as_disc(tissue: Ellipsoid, z: float) -> Ellipsoid:
    """Between the vertebral bodies, every 27 mm, 5 mm of cartilage take the place of bone."""
    between = abs((z + 13.5) % 27 - 13.5) < 2.5
    return tissue._replace(hu=85) if between and tissue.y < 80 else tissue


def _couch(plane: FloatArray, x: FloatArray, y: FloatArray) -> None:
    """The table: a thin shell, curved like a cradle."""
    depth = y[:, None] - (140 - 26 * (x / 185) ** 2)
    share = np.clip(1.5 - np.abs(depth) / _EDGE, 0, 1) * (np.abs(x) < 185)
    plane += share * np.float32(750)


class _Ribs:
    """Tubes along the chest wall that fall to the front, every 29 mm."""

    PITCH, RADIUS = 29.0, 5.5

    def __init__(self, x: FloatArray, y: FloatArray) -> None:
        q = (x / 146) ** 2 + ((y[:, None] - 5) / 92) ** 2
        wall = (np.sqrt(q) - 1) * 110
        near = (np.abs(wall) < self.RADIUS + _EDGE) & ((np.abs(x) > 26) | (y[:, None] > 0)) & (np.abs(x) > 12)
        self.index = np.flatnonzero(near)
        self.wall2 = wall.ravel()[self.index] ** 2
        self.fall = (np.broadcast_to(y[:, None], q.shape).ravel()[self.index] * 0.42).astype(np.float32)

    def paint(self, plane: FloatArray, z: float) -> None:
        along = (z - self.fall + self.PITCH / 2) % self.PITCH - self.PITCH / 2
        inside = self.RADIUS - np.sqrt(self.wall2 + along * along)
        flat = plane.ravel()
        values = flat[self.index]
        for depth, hu in ((0.0, 720), (2.0, 260)):  # shell, marrow
            values += np.clip(0.5 + (inside - depth) / _EDGE, 0, 1) * (hu - values)
        flat[self.index] = values
