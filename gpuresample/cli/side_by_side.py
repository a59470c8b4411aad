"""A resampling next to SimpleITK's: timed, compared, drawn."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.bench import bounds
from gpuresample.files.volumes import replacing
from gpuresample.ops.resample import resample

if TYPE_CHECKING:
    import SimpleITK


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
    share_apart : float
        Share of voxels that differ although SimpleITK's value is no whole number (see `judged`).
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
    share_apart: float
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
        return self.max_difference <= self.allowed_difference and self.share_apart <= self.allowed_share


def compare(image: SimpleITK.Image, spacing: float | Sequence[float], runs: int = 5) -> Comparison:
    """Resample by cubic B-spline with this package and with SimpleITK, in the image's own voxel type.

    Parameters
    ----------
    image : SimpleITK.Image
        Scalar, 2-D or 3-D.
    spacing : float or sequence of float
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
    found = bounds.difference(sitk.GetArrayViewFromImage(result), sitk.GetArrayViewFromImage(reference))
    integer = voxels.dtype.kind in "iu"
    allowed = bounds.bound_of("bspline", voxels.dtype) * bounds.unit_of(low, high)
    return Comparison(
        dtype=voxels.dtype.name,
        first_seconds=seconds[0],
        seconds=statistics.median(seconds[1:]),
        sitk_seconds=sitk_seconds,
        value_range=high - low,
        max_difference=found.largest,
        share_different=found.share,
        share_apart=found.share,
        allowed_difference=1.0 if integer else allowed,
        allowed_share=bounds.MOST_DIFFERING if integer else 1.0,
        result=result,
        reference=reference,
    )


def judged(integer: Comparison, real: Comparison) -> Comparison:
    """An integer comparison without the voxels on which truncation is a toss-up.

    See `bench.bounds.differing_apart`.

    Parameters
    ----------
    integer, real : Comparison
        Of an image of integers, and of the same image as floats.

    Returns
    -------
    Comparison
        `integer`, its `share_apart` without voxels whose real value is a whole number, within what is allowed.
    """
    import SimpleITK as sitk

    images = (integer.result, integer.reference, real.reference)
    ours, theirs, values = map(sitk.GetArrayViewFromImage, images)
    return replace(integer, share_apart=bounds.differing_apart(ours, theirs, values, real.allowed_difference))


def _sitk_resample(image: SimpleITK.Image, like: SimpleITK.Image) -> SimpleITK.Image:
    """SimpleITK's resampling onto a grid, as its users write it."""
    import SimpleITK as sitk

    resampler = sitk.ResampleImageFilter()
    resampler.SetReferenceImage(like)
    resampler.SetInterpolator(sitk.sitkBSpline)
    return resampler.Execute(image)


def draw(
    before: SimpleITK.Image,
    comparison: Comparison,
    path: Path,
    *,
    title: str,
    unit: str = "",
    window: Sequence[float] | None = None,
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
        Of the voxels' values.
    window : two floats, optional
        Values shown black and white; the 0.5th and 99.5th percentile unless given.
    """
    import SimpleITK as sitk
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    error = sitk.Cast(comparison.result, sitk.sitkFloat64) - sitk.Cast(comparison.reference, sitk.sitkFloat64)
    images = (before, comparison.result, error)
    is_flat = any(image.GetSize()[2:] == (1,) for image in images)
    columns = [_planes(image)[: 1 if is_flat else 2] for image in images]
    low, high = window or np.percentile(sitk.GetArrayViewFromImage(comparison.result), (0.5, 99.5)).tolist()
    peak, exponent = _scale(columns[2])
    heads = (
        f"before\n{_geometry(before)}",
        f"after, gpuresample\n{_geometry(comparison.result)}",
        f"gpuresample minus SimpleITK\n{comparison.dtype}, range {comparison.value_range:.5g} {unit}\n"
        f"at most {comparison.max_difference:.2g} {unit}",
    )
    heights = [pixels.shape[0] * aspect / pixels.shape[1] for _, pixels, aspect in columns[0]]
    # 3.9 inches is what three columns and the colour bar leave for each; other heights would leave gaps.
    figure = Figure(figsize=(13.4, 1.55 + 3.9 * sum(heights)), dpi=120, facecolor="white", layout="constrained")
    axes = figure.subplots(len(heights), 3, squeeze=False, height_ratios=heights)
    for j, (column, head) in enumerate(zip(columns, heads, strict=True)):
        for ax, (name, pixels, aspect) in zip(axes[:, j], column, strict=True):
            if j < 2:
                shown = ax.imshow(pixels, aspect=aspect, cmap="gray", vmin=low, vmax=high)
            else:
                shown = ax.imshow(pixels / 10.0**exponent, aspect=aspect, cmap="RdBu_r", vmin=-peak, vmax=peak)
            ax.set(xticks=[], yticks=[])
            ax.set_ylabel(name if j == 0 else "", fontsize=13)
        axes[0, j].set_title(head, fontsize=13, pad=8, linespacing=1.35)
    bar = figure.colorbar(shown, ax=axes[:, 2].tolist(), fraction=0.06, pad=0.02, aspect=30)
    bar.set_label(f"difference in $10^{{{exponent}}}$ {unit}", fontsize=13)
    bar.ax.tick_params(labelsize=12)
    figure.suptitle(title, fontsize=16)
    with replacing(path) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _scale(planes: list[tuple[str, npt.NDArray[Any], float]]) -> tuple[float, int]:
    """The end of a symmetric colour scale for these planes, as a number below 10 and its power of ten."""
    peak = max(float(np.abs(pixels).max()) for _, pixels, _ in planes) or 1.0
    exponent = math.floor(math.log10(peak))
    return peak / 10.0**exponent, exponent


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
    return f"{' x '.join(map(str, size))} voxels\n{' x '.join(f'{s:.5g}' for s in spacing)} mm"
