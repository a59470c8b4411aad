"""A CT-like phantom, a resampling compared with SimpleITK's, and a picture of both.

The phantom has the geometry of the published reference job (512 x 512 x 247 voxels of 0.78125 x 0.78125 x 1 mm)
and is made of formulas, so it needs no patient and no download.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpuresample.files import replacing
from gpuresample.resampling import resample

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
_BODY = (
    Ellipsoid(0, 4, 0, 172, 116, _ALONG, -100),  # skin and fat
    Ellipsoid(0, 6, 0, 155, 99, _ALONG, 55),  # muscle
    Ellipsoid(70, 0, 165, 57, 76, 135, -850),  # lungs
    Ellipsoid(-70, 0, 165, 57, 76, 135, -860),
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
    x, y, z = (
        (o + s * np.arange(n)).astype(np.float32) for o, s, n in zip(origin, spacing, size, strict=True)
    )
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
            _paint_bar(plane, bar, (x, y, np.float32([height])), spacing)
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
    share = ((x[sx] - e.x) / e.rx) ** 2 * -steep + (((y[sy] - e.y) / e.ry) ** 2 * -steep + (0.5 + steep * (1 - depth)))[:, None]
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


@dataclass(frozen=True)
class Comparison:
    """A resampling next to SimpleITK's, timed and measured.

    Attributes
    ----------
    dtype : str
        Voxel type of input and output.
    first_seconds : float
        The first call, with whatever had to be compiled or loaded.
    seconds, sitk_seconds : float
        Median of the calls after it; SimpleITK's one call.
    value_range : float
        Largest less smallest value of the input.
    max_difference, share_different : float
        Of the voxels of both results.
    allowed_difference, allowed_share : float
        The numeric contract.
    result, reference : SimpleITK.Image
        Ours and SimpleITK's.
    """

    dtype: str
    first_seconds: float
    seconds: float
    sitk_seconds: float
    value_range: float
    max_difference: float
    share_different: float
    allowed_difference: float
    allowed_share: float
    result: SimpleITK.Image
    reference: SimpleITK.Image

    @property
    def ratio(self) -> float:
        """How many times faster than SimpleITK."""
        return self.sitk_seconds / self.seconds

    @property
    def within(self) -> bool:
        """Whether the results agree as the numeric contract says."""
        return self.max_difference <= self.allowed_difference and self.share_different <= self.allowed_share


def compare(image: SimpleITK.Image, spacing: Sequence[float], runs: int = 5) -> Comparison:
    """Resample by cubic B-spline with this package and with SimpleITK, in the image's own voxel type.

    Parameters
    ----------
    image : SimpleITK.Image
        Scalar, 2-D or 3-D.
    spacing : sequence of float
        New spacing.
    runs : int
        Timed calls after the first one.

    Returns
    -------
    Comparison
        Integers are rounded as SimpleITK does (`rounding="truncate"`), so that like meets like.

    Raises
    ------
    ValueError
        For an image with NaN: SimpleITK's spline turns all of its voxels into NaN.
    """
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(image)
    low, high = float(voxels.min()), float(voxels.max())
    if not math.isfinite(high - low):
        raise ValueError("image must be finite to be compared: a NaN or infinity spreads over SimpleITK's whole result")
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        result = resample(image, spacing=spacing, rounding="truncate")
        seconds.append(time.perf_counter() - start)
    start = time.perf_counter()
    reference = _sitk_resample(image, result)
    sitk_seconds = time.perf_counter() - start
    worst, different = _difference(sitk.GetArrayViewFromImage(result), sitk.GetArrayViewFromImage(reference))
    wide = voxels.dtype.itemsize > (4 if voxels.dtype.kind == "f" else 2)
    integer = voxels.dtype.kind in "iu"
    return Comparison(
        dtype=voxels.dtype.name,
        first_seconds=seconds[0],
        seconds=statistics.median(seconds[1:]),
        sitk_seconds=sitk_seconds,
        value_range=high - low,
        max_difference=worst,
        share_different=different,
        allowed_difference=1.0 if integer else (1e-9 if wide else 2e-6) * (high - low),
        allowed_share=0.005 if integer else 1.0,
        result=result,
        reference=reference,
    )


def _sitk_resample(image: SimpleITK.Image, like: SimpleITK.Image) -> SimpleITK.Image:
    """SimpleITK's resampling onto a grid, as its users write it."""
    import SimpleITK as sitk

    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(like)
    resampler.SetInterpolator(sitk.sitkBSpline)
    return resampler.Execute(image)


def _difference(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> tuple[float, float]:
    """Largest difference and share of voxels that differ, a slice at a time to spare memory."""
    worst, count = 0.0, 0
    for p, q in zip(a, b, strict=True):
        d = np.abs(p.astype(np.float64) - q)
        worst, count = max(worst, float(d.max())), count + int(np.count_nonzero(d))
    return worst, count / a.size


def draw(
    before: SimpleITK.Image, comparison: Comparison, path: Path, *, title: str, unit: str = "", window: Sequence[float] | None = None
) -> None:
    """Draw mid-slices before, after, and the difference to SimpleITK, as a PNG.

    Parameters
    ----------
    before : SimpleITK.Image
        The image that was resampled, 2-D or 3-D.
    comparison : Comparison
        What came of it.
    path : Path
        Where the picture goes; an older one is replaced.
    title : str
        First line of the picture.
    unit : str
        Of the voxels' values, for the colour bar.
    window : two floats, optional
        Values shown black and white; the 0.5th and 99.5th percentile unless given.
    """
    import SimpleITK as sitk
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    error = sitk.Cast(comparison.result, sitk.sitkFloat64) - sitk.Cast(comparison.reference, sitk.sitkFloat64)
    columns = [_planes(image) for image in (before, comparison.result, error)]
    low, high = window or np.percentile(sitk.GetArrayViewFromImage(comparison.result), (0.5, 99.5)).tolist()
    # The scale is of what is shown, and never zero.
    peak = max(float(np.abs(pixels).max()) for _, pixels, _ in columns[2]) or 1.0
    heights = [pixels.shape[0] * aspect / pixels.shape[1] for _, pixels, aspect in columns[0]]
    figure = Figure(figsize=(13, 1.5 + 3.9 * sum(heights)), dpi=120, facecolor="white", layout="constrained")
    axes = figure.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    heads = (f"before: {_geometry(before)}", f"gpuresample: {_geometry(comparison.result)}", "gpuresample less SimpleITK")
    for j, (column, head) in enumerate(zip(columns, heads, strict=True)):
        for i, (name, pixels, aspect) in enumerate(column):
            ax = axes[i, j]
            look: dict[str, Any] = (
                {"cmap": "gray", "vmin": low, "vmax": high} if j < 2 else {"cmap": "RdBu_r", "vmin": -peak, "vmax": peak}
            )
            shown = ax.imshow(pixels, aspect=aspect, interpolation="nearest", **look)
            ax.set(xticks=[], yticks=[])
            ax.set_ylabel(name if j == 0 else "", fontsize=13)
            if i == 0:
                ax.set_title(head, fontsize=12, pad=8)
    bar = figure.colorbar(shown, ax=axes[:, 2].tolist(), shrink=0.9, pad=0.02, format="%.1e")
    bar.set_label(f"difference{f' in {unit}' if unit else ''}, {comparison.dtype}", fontsize=12)
    bar.ax.tick_params(labelsize=11)
    figure.suptitle(title, fontsize=15)
    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _planes(image: SimpleITK.Image) -> list[tuple[str, npt.NDArray[Any], float]]:
    """Name, pixels and pixel aspect of the slices shown: axial and coronal through the middle, head up."""
    import SimpleITK as sitk

    if image.GetDimension() == 2:
        sx, sy = image.GetSpacing()
        return [("image", sitk.GetArrayFromImage(image), sy / sx)]
    image = sitk.DICOMOrient(image, "LPS")
    voxels = sitk.GetArrayViewFromImage(image)
    sx, sy, sz = image.GetSpacing()
    nz, ny, _ = voxels.shape
    return [
        ("axial", voxels[nz // 2].copy(), sy / sx),
        ("coronal", voxels[::-1, ny // 2].copy(), sz / sx),
    ]


def _geometry(image: SimpleITK.Image) -> str:
    size, spacing = image.GetSize(), image.GetSpacing()
    return f"{' × '.join(map(str, size))} voxels, {' × '.join(f'{s:.4g}' for s in spacing)} mm"
