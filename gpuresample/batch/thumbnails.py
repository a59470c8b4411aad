"""Small grey pictures of a volume and its result, as a record can hold them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import SimpleITK

# "shape" of the pixels, and "data": their bytes, deflated, in base64.
Packed = dict[str, Any]

SIDE = 128  # pixels, of the longer side
_GAP = 4
_GAP_GREY = 128


def packed(image: SimpleITK.Image, result: SimpleITK.Image) -> Packed:
    """A slice of a volume, and the slice of its result at the same place, side by side.

    It is the middle slice, unless that is all of one value and another one is not.

    Both have the same window of grey values, and pixels that are square in space.

    Parameters
    ----------
    image, result : SimpleITK.Image
        2-D to 4-D; of series the first volume, of vectors the first component.

    Returns
    -------
    dict
        To be unpacked by `unpacked`.
    """
    index = [n // 2 for n in image.GetSize()]
    # Of later axes the first.
    index[3:] = [0] * len(index[3:])
    old = _slice(image, index[2] if len(index) > 2 else 0)
    if len(index) > 2 and old.min() == old.max():
        index[2], old = next(((k, s) for k, s in _others(image) if s.min() < s.max()), (index[2], old))
    place = image.TransformIndexToPhysicalPoint(index)
    new = _slice(result, int(result.TransformPhysicalPointToIndex(place)[2]) if len(index) > 2 else 0)
    low, high = _window(old)
    step = max(_extent(image).max(), _extent(result).max()) / SIDE
    panels = [_grey(_squared(pixels, i, step), low, high) for pixels, i in ((old, image), (new, result))]
    height = max(p.shape[0] for p in panels)
    panels = [np.pad(p, ((0, height - p.shape[0]), (0, 0)), constant_values=_GAP_GREY) for p in panels]
    whole = np.hstack([panels[0], np.full((height, _GAP), _GAP_GREY, np.uint8), panels[1]])
    return {"shape": list(whole.shape), "data": base64.b64encode(zlib.compress(whole.tobytes(), 6)).decode()}


def unpacked(thumbnail: Packed) -> npt.NDArray[np.uint8]:
    """Pixels (rows, columns) of what `packed` made."""
    pixels = np.frombuffer(zlib.decompress(base64.b64decode(thumbnail["data"])), np.uint8)
    return pixels.reshape(thumbnail["shape"])


def _slice(image: SimpleITK.Image, index: int) -> npt.NDArray[Any]:
    """Pixels (rows, columns) of a slice; one that lies outside is the nearest."""
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        voxels = voxels[..., 0]
    if voxels.ndim == 4:
        voxels = voxels[0]
    return voxels[min(max(index, 0), len(voxels) - 1)] if voxels.ndim == 3 else voxels


def _others(image: SimpleITK.Image) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Slices from the middle outwards, not all of a large volume."""
    n = image.GetSize()[2]
    for step in range(1, n // 2 + 1, max(1, n // 32)):
        for k in (n // 2 - step, min(n // 2 + step, n - 1)):
            yield k, _slice(image, k)


def _extent(image: SimpleITK.Image) -> npt.NDArray[np.float64]:
    """Of the first two axes, in units of the spacing."""
    return np.multiply(image.GetSize(), image.GetSpacing())[:2]


def _window(pixels: npt.NDArray[Any]) -> tuple[float, float]:
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(v) for v in np.percentile(finite, (0.5, 99.5)))
    # A few labels on much background.
    return (low, high) if high > low else (float(finite.min()), float(finite.max()))


def _squared(pixels: npt.NDArray[Any], image: SimpleITK.Image, step: float) -> npt.NDArray[Any]:
    """Pixels `step` apart in space, each the nearest one."""
    for axis, spacing in enumerate(image.GetSpacing()[1::-1]):
        n = pixels.shape[axis]
        count = max(1, round(n * spacing / step))
        nearest = np.minimum(((np.arange(count) + 0.5) * n / count).astype(int), n - 1)
        pixels = pixels.take(nearest, axis)
    return pixels


def _grey(pixels: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    scaled = (pixels.astype(np.float64) - low) / (high - low if high > low else 1.0)
    return (np.clip(np.nan_to_num(scaled, nan=0.0), 0, 1) * 255).astype(np.uint8)
