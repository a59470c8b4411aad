"""DICOM segmentations as label images: a frame for each segment and place, its voxels bits (PS3.3, A.51)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.files import dicom
from gpuresample.files.elements import DataSet
from gpuresample.frozen import frozen

if TYPE_CHECKING:
    import SimpleITK

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_TYPE, _IDENTIFICATION, _NUMBER = 0x00620001, 0x0062000A, 0x0062000B
_THICKNESS, _BETWEEN = 0x00180050, 0x00180088
# Share of a slice by which distances between slices may be off.
_UNEVEN = 0.05


@frozen()
class Labels:
    """Where the frames of a segmentation lie, and whose they are.

    Attributes
    ----------
    size, spacing, origin, direction : tuple
        Of the label image, in x, y, z order.
    dtype : numpy.dtype
    slices, segments : tuple of int
        Of each frame: the slice that it is part of, the number of its segment, which is the label.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    dtype: np.dtype[Any]
    slices: tuple[int, ...]
    segments: tuple[int, ...]


def is_segmentation(data: DataSet) -> bool:
    """Whether a file is a segmentation of bits or fractions; one that is a label map is an image like others."""
    return data.text(dicom.KIND) == SEGMENTATION


def labels_of(path: Path, data: DataSet) -> Labels:
    """Where the frames lie. Slices without a frame, which writers leave out, are empty.

    Raises
    ------
    OSError
        For fractions, compressed files, and frames that are no stack of slices.
    """
    count = dicom.frame_count(data)
    if (kind := data.text(_TYPE)) != "BINARY":
        raise OSError(
            f"{path}: is a DICOM segmentation of type {kind or 'unknown'}; only BINARY ones are read as labels"
        )
    if not data.native or data.short(dicom.BITS) != 1:
        raise OSError(
            f"{path}: is a DICOM segmentation whose voxels are not single bits, uncompressed: that is not read"
        )
    places = dicom.frame_places(data, count)
    segments = tuple(_segment(data, k) for k in range(count))
    measures = dicom.frame_pixels(path, data, count)
    if places is None or 0 in segments or len(measures) != 2:
        raise OSError(f"{path}: is a DICOM segmentation that does not tell place and segment of each frame")
    position, orientation = places
    normal = dicom.normal_of(path, orientation, "frames")
    depth = position @ normal
    distinct = np.unique(depth)
    steps = np.diff(distinct)[np.diff(distinct) > dicom.SAME_PLACE * min(measures)]
    told = dicom.of_group(data, 0, dicom.OF_MEASURES, _BETWEEN) or (
        [] if steps.size else dicom.of_group(data, 0, dicom.OF_MEASURES, _THICKNESS)
    )
    step = abs(told[0]) if told and told[0] else float(steps.min()) if steps.size else 1.0
    counts = np.maximum(np.round(steps / step), 1)
    uneven = bool(np.any(np.abs(steps / step - counts) > _UNEVEN * counts))
    if not uneven:
        # What is told may be rounded, which adds up over many slices: near slices tell how many a gap has.
        length, number = 0.0, 0
        for gap in np.sort(steps).tolist():
            length, number = length + gap, number + round(gap / step)
            step = length / number
    index = (depth - depth.min()) / step
    if uneven or np.abs(index - np.round(index)).max() > _UNEVEN:
        raise OSError(f"{path}: is a DICOM segmentation whose frames are not evenly spaced, {step:.4g} mm apart")
    slices = np.round(index).astype(int)
    first = int(np.argmin(depth))
    axes = np.stack([orientation[first, :3], orientation[first, 3:], normal], axis=1)
    return Labels(
        (data.short(dicom.COLUMNS), data.short(dicom.ROWS), int(slices.max()) + 1),
        (measures[1], measures[0], step),
        tuple(position[first].tolist()),
        tuple((axes + 0.0).ravel().tolist()),
        np.dtype(np.uint8 if max(segments) < 256 else np.uint16),
        tuple(slices.tolist()),
        segments,
    )


def read(path: Path, data: DataSet) -> SimpleITK.Image:
    """The label image: a voxel has the number of its segment, and 0 where it is of none.

    Raises
    ------
    OSError
        As `labels_of`, if voxels are missing, and if segments overlap.
    """
    import SimpleITK as sitk

    labels = labels_of(path, data)
    columns, rows, _ = labels.size
    shape = (len(labels.slices), rows, columns)
    held = data.voxels if data.voxels is not None else memoryview(b"")
    if 8 * len(held) < math.prod(shape):
        raise OSError(f"{path}: the file ends early: {len(held):,} of {-(-math.prod(shape) // 8):,} bytes of voxels")
    bits = np.unpackbits(np.frombuffer(held, np.uint8), count=math.prod(shape), bitorder="little").reshape(shape)
    made = np.zeros(labels.size[::-1], labels.dtype)
    for k, (number, segment) in enumerate(zip(labels.slices, labels.segments, strict=True)):
        inside = bits[k].astype(bool)
        others = made[number][inside]
        if np.any((others != 0) & (others != segment)):
            raise OSError(
                f"{path}: segments {int(others[others != 0][0])} and {segment} overlap, and a label image holds one "
                "label at a voxel; split the file into one for each segment"
            )
        made[number][inside] = segment
    image = sitk.GetImageFromArray(made)
    image.SetSpacing(labels.spacing)
    image.SetOrigin(labels.origin)
    image.SetDirection(labels.direction)
    return image


def _segment(data: DataSet, frame: int) -> int:
    """Number of a frame's segment; 0 where it is not told."""
    frames, shared = data.items(dicom.EACH), data.items(dicom.SHARED)
    for holder in (*frames[frame : frame + 1], *shared[:1]):
        for item in data.items(_IDENTIFICATION, holder):
            if number := data.short(_NUMBER, of=item):
                return number
    return 0
