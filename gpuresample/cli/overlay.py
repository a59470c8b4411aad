"""A picture of a label map on its image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.cli import filtering
from gpuresample.files import volumes as files

if TYPE_CHECKING:
    import SimpleITK

OPACITY = 0.5
# Labels that the legend names; of more, those with most voxels.
MOST_NAMED = 16


def draw(image: SimpleITK.Image, labels: SimpleITK.Image, path: Path, overwrite: bool = True) -> None:
    """Draw the slices through the middle of what is labelled: axial, coronal, sagittal, as a PNG.

    Parameters
    ----------
    image, labels : SimpleITK.Image
        On one grid, 2-D or 3-D. Of a vector image the first component is shown, of a time series the first volume.
    path : Path
        Where the picture goes.
    overwrite : bool
        Whether one that is there by the end is replaced.

    Raises
    ------
    FileExistsError
        If there is one, and it is not to be replaced.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.colors import to_rgba
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    grey, names = _upright(image), _upright(labels)
    voxels = grey[0]
    low, high = np.percentile(voxels[np.isfinite(voxels)], (0.5, 99.5)).tolist() if voxels.size else (0.0, 1.0)
    values, counts = np.unique(names[0], return_counts=True)
    present = [(int(v), int(n)) for v, n in zip(values, counts, strict=True) if v != 0]
    present.sort(key=lambda pair: -pair[1])
    colours = {v: to_rgba(colormaps["tab20"](k % 20)) for k, (v, _) in enumerate(sorted(present))}
    planes = _planes(names, _middle(names[0]))
    behind = _planes(grey, _middle(names[0]))
    widths = [pixels.shape[1] * w for _, pixels, (_, w) in planes]
    heights = [pixels.shape[0] * h for _, pixels, (h, _) in planes]
    scale = 4.0 / max(*widths, *heights)
    figure = Figure(
        figsize=(scale * sum(widths) + 0.4 * len(planes) + 1.9, scale * max(heights) + 0.7), dpi=120,
        facecolor="white", layout="constrained",
    )  # fmt: skip
    axes = figure.subplots(1, len(planes), squeeze=False, width_ratios=widths)[0]
    for ax, (title, slice_, (tall, wide)), (_, under, _) in zip(axes, planes, behind, strict=True):
        ax.imshow(under, cmap="gray", vmin=low, vmax=high, aspect=tall / wide, interpolation="nearest")
        tint = np.zeros((*slice_.shape, 4))
        for value, colour in colours.items():
            tint[slice_ == value] = (*colour[:3], OPACITY)
        ax.imshow(tint, aspect=tall / wide, interpolation="nearest")
        ax.set(xticks=[], yticks=[])
        ax.set_title(title, fontsize=11)
    shown = sorted(present[:MOST_NAMED])
    patches = [Patch(color=colours[v], label=f"{v}: {n:,}") for v, n in shown]
    rest = len(present) - len(shown)
    if patches:
        figure.legend(
            handles=patches, loc="outside right upper", fontsize=9, frameon=False,
            title="label: voxels" + (f"\n({rest} more)" if rest else ""), title_fontsize=9,
        )  # fmt: skip
    with files.replacing(path, overwrite) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _upright(image: SimpleITK.Image) -> tuple[npt.NDArray[Any], tuple[float, ...]]:
    """Voxels (z, y, x) with x to the patient's left, y to the back, z to the head; spacing z, y, x."""
    import SimpleITK as sitk

    image = filtering.scalar_volume(image)
    if image.GetDimension() == 2:
        return sitk.GetArrayFromImage(image)[None], (1.0, *image.GetSpacing()[::-1])
    image = sitk.DICOMOrient(image, "LPS")
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def _middle(labels: npt.NDArray[Any]) -> tuple[int, ...]:
    """Along each axis the slice with most labelled voxels; the middle one if there are none."""
    there = labels != 0
    if not there.any():
        return tuple(n // 2 for n in labels.shape)
    others = [tuple(a for a in range(3) if a != axis) for axis in range(3)]
    return tuple(int(there.sum(axis=axes).argmax()) for axes in others)


def _planes(
    volume: tuple[npt.NDArray[Any], tuple[float, ...]], at: tuple[int, ...]
) -> list[tuple[str, npt.NDArray[Any], tuple[float, float]]]:
    """Name, pixels and their spacing (down, across) of the slices at z, y, x."""
    voxels, (sz, sy, sx) = volume
    z, y, x = at
    if voxels.shape[0] == 1:
        return [("image", voxels[0], (sy, sx))]
    return [
        ("axial", voxels[z], (sy, sx)),
        ("coronal", voxels[::-1, y], (sz, sx)),
        ("sagittal", voxels[::-1, :, x], (sz, sy)),
    ]
