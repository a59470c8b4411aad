"""Where the frames of DICOM files lie and what their numbers mean, where ITK's reader does not say or is wrong.

ITK 5.4.7 (SimpleITK 2.5.7) takes a series' voxel type and an enhanced file's slope from the first slice, does not sort
frames, stacks whatever shares a series, and leaves doses in the units of their file. What is no volume is refused here.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.files.elements import DataSet, is_dicom
from gpuresample.frozen import frozen

if TYPE_CHECKING:
    import SimpleITK

Floats = npt.NDArray[np.float64]

RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
KIND, _FRAMES = 0x00080016, 0x00280008
_POSITION, _ORIENTATION, PIXEL_SPACING = 0x00200032, 0x00200037, 0x00280030
_INTERCEPT, _SLOPE = 0x00281052, 0x00281053
ROWS, COLUMNS, BITS, _SIGNED = 0x00280010, 0x00280011, 0x00280100, 0x00280103
_BITS_STORED, _HIGH_BIT = 0x00280101, 0x00280102
_OFFSETS, _DOSE_SCALING = 0x3004000C, 0x3004000E
SHARED, EACH = 0x52009229, 0x52009230
_OF_POSITION, _OF_ORIENTATION, OF_MEASURES, _OF_VALUES = 0x00209113, 0x00209116, 0x00289110, 0x00289145
_PLACE = (_OF_POSITION, _POSITION), (_OF_ORIENTATION, _ORIENTATION)
# What tells slices of one place apart, the most telling first.
_APART = {
    "TemporalPositionIdentifier": 0x00200100, "TriggerTime": 0x00181060, "EchoTime": 0x00180081,
    "DiffusionBValue": 0x00189087, "FrameReferenceTime": 0x00541300, "AcquisitionNumber": 0x00200012,
    "ImageType": 0x00080008, "AcquisitionTime": 0x00080032, "ContentTime": 0x00080033, "InstanceNumber": 0x00200013,
}  # fmt: skip

# Distances between slices may differ by this share of their mean.
EVEN = 0.01
# Millimetres by which distances differ where places are written with two decimals.
_WRITTEN = 0.0101
# Cosines of two slices may differ by this much in one stack.
_PARALLEL = 1e-3
# Slices nearer than this share of a pixel are in one place.
SAME_PLACE = 1e-3
# Sizes of pixels may differ by this share in one stack: half a pixel at the far end of 500.
_SAME_PIXEL = 1e-3
# Slices may lie this share of their distance aside of a straight stack.
_ASIDE = 0.05
# Files that are looked at to say where DICOM files are.
_LOOKED_AT = 10_000


@frozen()
class Frames:
    """The frames of one file as a volume.

    Attributes
    ----------
    order : tuple of int
        Which frame is which slice.
    spacing, origin, direction : tuple of float, or None
        In x, y, z order; None where ITK has it right.
    slopes : ndarray or None
        Slope and intercept of each frame, shape (frames, 2), where they differ.
    dose : float or None
        What a dose's voxels are multiplied by.
    """

    order: tuple[int, ...]
    spacing: tuple[float, ...] | None = None
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    slopes: Floats | None = None
    dose: float | None = None

    @property
    def dtype(self) -> type[np.floating[Any]] | None:
        """The type of the volume's voxels; None for the type that ITK gives them."""
        return np.float32 if self.dose is not None else np.float64 if self.slopes is not None else None


def frame_count(data: DataSet) -> int:
    """How many frames a file has."""
    found = data.numbers(_FRAMES)
    return int(found[0]) if found and found[0] >= 1 else 1


def is_whole(data: DataSet) -> bool:
    """Whether a file is a volume by itself."""
    return frame_count(data) > 1 or data.text(KIND) == RT_DOSE


def frames_of(path: Path, data: DataSet) -> Frames | None:
    """The frames of a file of several, or of a dose; None where ITK reads the file rightly.

    Raises
    ------
    OSError
        If the frames are no volume: unevenly spaced, several in one place, of several directions.
    """
    count = frame_count(data)
    dose = _dose_scaling(path, data) if data.text(KIND) == RT_DOSE else None
    if count == 1:
        return None if dose is None else Frames((0,), dose=dose)
    slopes = _frame_slopes(path, data, count)
    places = _dose_places(path, data, count) if dose is not None else frame_places(data, count)
    measures = data.numbers(PIXEL_SPACING) or frame_pixels(path, data, count)
    if places is None or len(measures) != 2:
        warnings.warn(
            f"{path}: it is not told where each of its {count} frames lies; the image's spacing, origin and direction "
            f"are ITK's guess",
            stacklevel=4,
        )
        return Frames(tuple(range(count)), slopes=slopes, dose=dose)
    depth, normal = stacked(path, *places, min(measures), "frames")
    order, step = _in_order(path, depth)
    position, orientation = places
    _warn_of_shear(path, position, depth, normal, step)
    line = position[order[-1]] - position[order[0]]
    upwards = np.sign(line @ normal)
    across, down = orientation[order[0], :3], orientation[order[0], 3:]
    return Frames(
        tuple(order),
        (measures[1], measures[0], step),
        tuple(position[order[0]].tolist()),
        tuple((np.stack([across, down, upwards * normal], axis=1) + 0.0).ravel().tolist()),
        slopes,
        dose,
    )


def arranged(image: SimpleITK.Image, frames: Frames, path: Path, data: DataSet) -> SimpleITK.Image:
    """What ITK has read, with its frames in order, their numbers and their geometry.

    Raises
    ------
    OSError
        If the voxels are not all there.
    """
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(image)
    made = image
    in_order = list(frames.order) == sorted(frames.order)
    if frames.slopes is not None:
        stored = stored_voxels(path, data, len(frames.order)).astype(np.float64)
        stored *= frames.slopes[:, 0, None, None]
        stored += frames.slopes[:, 1, None, None]
        made = sitk.GetImageFromArray(stored[list(frames.order)])
    elif frames.dose is not None:
        made = sitk.GetImageFromArray((voxels[list(frames.order)] * np.float64(frames.dose)).astype(np.float32))
    elif not in_order:
        made = sitk.GetImageFromArray(voxels[list(frames.order)], isVector=image.GetNumberOfComponentsPerPixel() > 1)
    made.SetSpacing(frames.spacing or image.GetSpacing())
    made.SetOrigin(frames.origin or image.GetOrigin())
    made.SetDirection(frames.direction or image.GetDirection())
    return made


def stored_voxels(path: Path, data: DataSet, count: int) -> npt.NDArray[Any]:
    """The whole numbers in a file that is not compressed, (frame, row, column), before any slope.

    Raises
    ------
    OSError
        If they are not all there.
    """
    bits, shape = data.short(BITS), (count, data.short(ROWS), data.short(COLUMNS))
    kind = np.dtype(f"{'<' if data.little else '>'}{'i' if data.short(_SIGNED) else 'u'}{max(bits, 8) // 8}")
    held = data.voxels if data.voxels is not None else memoryview(b"")
    if bits not in (8, 16, 32) or len(held) < math.prod(shape) * kind.itemsize:
        raise OSError(f"{path}: the file ends early: {len(held):,} bytes of voxels for {shape} of {bits} bits")
    voxels = np.frombuffer(held, kind, math.prod(shape)).reshape(shape)
    used = data.short(_BITS_STORED) or bits
    if used >= bits:
        return voxels
    # The other bits may hold anything. They are shifted out: to the left above, then to the right below, with the sign.
    above = bits - 1 - (data.short(_HIGH_BIT) or used - 1)
    return np.right_shift(np.left_shift(voxels, max(above, 0)), bits - used)


# --- one file ------------------------------------------------------------------------------------------------------


def _dose_scaling(path: Path, data: DataSet) -> float:
    scaling = data.numbers(_DOSE_SCALING)
    if len(scaling) != 1 or not math.isfinite(scaling[0]):
        raise OSError(f"{path}: is an RT dose without a DoseGridScaling, so its numbers are no dose")
    return scaling[0]


def _dose_places(path: Path, data: DataSet, count: int) -> tuple[Floats, Floats]:
    """Positions and orientations of a dose's frames (PS3.3, C.8.8.3.2: offsets begin with 0, or are the frames' z)."""
    offsets = np.asarray(data.numbers(_OFFSETS), np.float64)
    origin = np.asarray(data.numbers(_POSITION), np.float64)
    orientation = np.asarray(data.numbers(_ORIENTATION), np.float64)
    if offsets.size != count or origin.size != 3 or orientation.size != 6:
        raise OSError(f"{path}: is an RT dose of {count} frames whose GridFrameOffsetVector has {offsets.size} numbers")
    normal = np.cross(orientation[:3], orientation[3:])
    if offsets[0] != 0:
        if abs(offsets[0] - origin[2]) > 1e-3 or abs(abs(normal[2]) - 1) > _PARALLEL:
            raise OSError(f"{path}: is an RT dose whose GridFrameOffsetVector begins with {offsets[0]:g}, not with 0")
        offsets = (offsets - offsets[0]) * normal[2]
    return origin + offsets[:, None] * normal, np.tile(orientation, (count, 1))


def of_group(data: DataSet, frame: int, group: int, number: int) -> list[float]:
    """Numbers of a frame: its own, or those that all frames share."""
    frames, shared = data.items(EACH), data.items(SHARED)
    for holder in (*frames[frame : frame + 1], *shared[:1]):
        for item in data.items(group, holder):
            if found := data.numbers(number, item):
                return found
    return []


def frame_pixels(path: Path, data: DataSet, count: int) -> list[float]:
    """The size of the pixels of an enhanced file's frames, (row, column); empty where it is not told.

    Raises
    ------
    OSError
        If frames have pixels of different sizes.
    """
    return _one_size(path, [of_group(data, k, OF_MEASURES, PIXEL_SPACING) for k in range(count)], "frames")


def _one_size(path: Path, sizes: Sequence[Sequence[float]], what: str) -> list[float]:
    """The size that all pixels have, of those slices that tell it; empty where none does."""
    told = np.asarray([size for size in sizes if len(size) == 2])
    if not told.size:
        return []
    least, most = told.min(axis=0), told.max(axis=0)
    if np.any(most - least > _SAME_PIXEL * np.abs(most)):
        raise OSError(
            f"{path}: the pixels of its {what} are {least[0]:g} x {least[1]:g} to {most[0]:g} x {most[1]:g} mm; "
            f"a volume's have one size"
        )
    return [float(length) for length in told[0]]


def frame_places(data: DataSet, count: int) -> tuple[Floats, Floats] | None:
    """Positions and orientations of an enhanced file's frames; None where they are not all told."""
    if len(data.items(EACH)) != count:
        return None
    position = [of_group(data, k, _OF_POSITION, _POSITION) for k in range(count)]
    orientation = [of_group(data, k, _OF_ORIENTATION, _ORIENTATION) for k in range(count)]
    if any(len(p) != 3 for p in position) or any(len(o) != 6 for o in orientation):
        return None
    return np.asarray(position), np.asarray(orientation)


def _frame_slopes(path: Path, data: DataSet, count: int) -> Floats | None:
    """Slope and intercept of each frame, where they are not those of the first."""
    if len(data.items(EACH)) != count:
        return None
    numbers = ((_SLOPE, 1.0), (_INTERCEPT, 0.0))
    slopes = np.asarray([
        [(of_group(data, k, _OF_VALUES, number) or [default])[0] for number, default in numbers] for k in range(count)
    ])  # fmt: skip
    if np.all(slopes == slopes[0]):
        return None
    if not data.native:
        raise OSError(
            f"{path}: its frames are compressed and have slopes that differ; decompress the file first (gdcmconv --raw)"
        )
    return slopes


def _in_order(path: Path, depth: Floats) -> tuple[list[int], float]:
    """Frames in the order of their places, and how far they are apart; as they are where that is one way or the other.

    Raises
    ------
    OSError
        If they are not evenly spaced.
    """
    order = np.argsort(depth)
    if np.all(np.diff(depth) < 0):
        order = order[::-1]
    steps = np.abs(np.diff(depth[order]))
    mean = float(steps.mean())
    if steps.max() - steps.min() > EVEN * mean + min(_WRITTEN, mean / 2):  # no rounding hides a missing frame
        raise OSError(
            f"{path}: its frames are {steps.min():.4g} to {steps.max():.4g} mm apart; a volume's are evenly spaced"
        )
    return order.tolist(), mean


# --- stacks --------------------------------------------------------------------------------------------------------


def stacked(
    path: Path, position: Floats, orientation: Floats, pixel: float, what: str, hint: str = ""
) -> tuple[Floats, Floats]:
    """Depths of slices along their common normal, and the normal.

    Raises
    ------
    OSError
        If they have several directions, or several are in one place.
    """
    normal = normal_of(path, orientation, what)
    depth = position @ normal
    places = 1 + int(np.count_nonzero(np.diff(np.sort(depth)) > SAME_PLACE * pixel))
    if places < len(depth):
        raise OSError(
            f"{path}: its {len(depth)} {what} lie at {places} places{hint}, so they are no volume but several; "
            f"sort them apart first"
        )
    return depth, normal


def normal_of(path: Path, orientation: Floats, what: str) -> Floats:
    """The normal of slices that have one direction.

    Raises
    ------
    OSError
        If they have several.
    """
    if np.abs(orientation - orientation[0]).max() > _PARALLEL:
        kinds = len(np.unique(np.round(orientation, 2), axis=0))
        raise OSError(
            f"{path}: its {what} have {kinds} directions (a localizer?), so they are no volume; read single files of it"
        )
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    length = np.linalg.norm(normal)
    if not length > 0:
        raise OSError(f"{path}: the header is damaged: the rows and columns of its {what} are parallel")
    return np.asarray(normal / length)


def check_series(folder: Path, heads: Sequence[tuple[str, DataSet]]) -> bool:
    """Refuse a series that is no stack of slices. Whether slopes or voxel types differ from slice to slice.

    Raises
    ------
    OSError
        With the reason.
    """
    several = [name for name, data in heads if frame_count(data) > 1]
    if several:
        raise OSError(
            f"{folder}: the series has {len(heads)} files, and {Path(several[0]).name} alone holds "
            f"{frame_count(dict(heads)[several[0]])} frames; name one file"
        )
    places = _slice_places(heads)
    size = _one_size(folder, [_of(data, OF_MEASURES, PIXEL_SPACING) for _, data in heads], "slices")
    if places is not None and len(heads) > 1:
        stacked(folder, *places, min(size, default=1.0), "slices", _told_apart(heads, places))
    elif len(heads) > 1:
        lost = [name for name, data in heads if not _is_placed(data)]
        if len(lost) < len(heads):
            raise OSError(
                f"{folder}: {len(lost)} of its {len(heads)} slices do not tell where they lie, the first of them "
                f"{Path(lost[0]).name}; take them out of the folder"
            )
        warnings.warn(
            f"{folder}: its {len(heads)} slices do not tell where they lie; their order, the image's spacing, origin "
            f"and direction are ITK's guess",
            stacklevel=4,
        )
    return len({_meaning(data) for _, data in heads}) > 1


def _meaning(data: DataSet) -> tuple[object, ...]:
    """What makes values of stored numbers."""
    slope = _of(data, _OF_VALUES, _SLOPE) or [1.0]
    intercept = _of(data, _OF_VALUES, _INTERCEPT) or [0.0]
    return slope[0], intercept[0], data.short(BITS), data.short(_SIGNED)


def _of(data: DataSet, group: int, number: int) -> list[float]:
    return data.numbers(number) or of_group(data, 0, group, number)


def _is_placed(data: DataSet) -> bool:
    """Whether a slice tells its position and its direction."""
    position, orientation = (_of(data, *where) for where in _PLACE)
    return len(position) == 3 and len(orientation) == 6


def _slice_places(heads: Sequence[tuple[str, DataSet]]) -> tuple[Floats, Floats] | None:
    """Positions and orientations of a series' slices; None where they are not all told."""
    if not all(_is_placed(data) for _, data in heads):
        return None
    position, orientation = ([_of(data, *where) for _, data in heads] for where in _PLACE)
    return np.asarray(position), np.asarray(orientation)


def _told_apart(heads: Sequence[tuple[str, DataSet]], places: tuple[Floats, Floats]) -> str:
    """Which attribute differs between the slices of one place, in brackets; nothing where none does."""
    of_place: dict[tuple[float, ...], list[DataSet]] = {}
    for point, (_, data) in zip(np.round(places[0], 3).tolist(), heads, strict=True):
        of_place.setdefault(tuple(point), []).append(data)
    crowd = max(of_place.values(), key=len)
    for name, number in _APART.items():
        values = {bytes(v) for data in crowd if isinstance(v := data.elements.get(number), bytes)}
        if 1 < len(values) == len(crowd):
            return f" ({name} tells them apart)"
    return ""


def warn_of_uneven(folder: Path, heads: Sequence[tuple[str, DataSet]], spacing: float) -> None:
    """Warn where the slices of a series are no regular grid: the image says they were, `spacing` apart."""
    places = _slice_places(heads)
    if len(heads) < 3 or places is None:
        return
    position, orientation = places
    normal = np.cross(orientation[0, :3], orientation[0, 3:])
    depth = position @ normal
    steps = np.abs(np.diff(depth))
    if steps.max() - steps.min() > EVEN * steps.mean():
        warnings.warn(
            f"{folder}: slices are {steps.min():.4g} to {steps.max():.4g} mm apart (some missing?); "
            f"the image takes {spacing:.4g} mm for all",
            stacklevel=5,
        )
    _warn_of_shear(folder, position, depth, normal, float(steps.mean()))


def _warn_of_shear(path: Path, position: Floats, depth: Floats, normal: Floats, step: float) -> None:
    """Warn where slices lie aside of a straight stack."""
    aside = position - position[0] - np.outer(depth - depth[0], normal)
    if np.abs(aside).max() > _ASIDE * step:
        warnings.warn(
            f"{path}: slices are sheared (gantry tilt?); the image takes them for a straight stack", stacklevel=5
        )


def below(folder: Path, most: int = 3) -> str:
    """Which folders below one hold DICOM files, for a refusal; nothing where none does. It looks at so many files."""
    found: list[str] = []
    looked = 0
    for inner, folders, names in os.walk(folder):
        folders.sort()
        looked += len(names) + 1
        if len(found) > most or looked > _LOOKED_AT:
            break
        paths = [Path(inner, name) for name in sorted(names)]
        if inner != str(folder) and any(p.is_file() and is_dicom(p) for p in paths):
            found.append(os.path.relpath(inner, folder))
    if not found:
        return ""
    more = " and more" if len(found) > most else ""
    return f"; folders below it hold some: {', '.join(found[:most])}{more}; name one of them"
