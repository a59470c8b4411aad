"""Formats that SimpleITK has no reader for: what nibabel reads is read through it; of others, what they are."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.containers.spatial_images import grid_of_image
from gpuresample.files import completeness, elements, zstds

if TYPE_CHECKING:
    import SimpleITK

_SECOND, _MINC_1, _ECAT = "NIfTI-2", "MINC 1", "ECAT"
# What nibabel (5.4) reads and SimpleITK (2.5.7) does not, by the ends of names in small letters.
READ = {
    ".mgz": "FreeSurfer", ".mgh": "FreeSurfer", ".head": "AFNI", ".brik": "AFNI", ".brik.gz": "AFNI", ".par": "Philips",
    ".rec": "Philips", ".v": _ECAT,
}  # fmt: skip
WRITTEN = (".mgz",)
# What no library here reads, and what makes a file of it that is read.
_MRTRIX, _MICROSCOPE = "an MRtrix image; mrconvert makes .nii.gz of it", "bioformats2raw makes OME-Zarr of it"
_SLIDE = f"a whole slide of pathology, {{}}; {_MICROSCOPE}"
_LINES = "a file of streamlines, not an image"
_OTHERS = {
    ".mif": _MRTRIX, ".mif.gz": _MRTRIX, ".mih": _MRTRIX, ".czi": f"a Zeiss image; {_MICROSCOPE}",
    ".lif": f"a Leica image; {_MICROSCOPE}", ".nd2": f"a Nikon image; {_MICROSCOPE}",
    ".ims": f"an Imaris image; {_MICROSCOPE}", ".oib": f"an Olympus image; {_MICROSCOPE}",
    ".svs": _SLIDE.format("a TIFF of Aperio's"), ".scn": _SLIDE.format("a TIFF of Leica's"),
    ".ndpi": _SLIDE.format("a TIFF of Hamamatsu's"), ".bif": _SLIDE.format("a TIFF of Ventana's"),
    ".qptiff": _SLIDE.format("a TIFF of Akoya's"), ".mrxs": _SLIDE.format("of 3DHISTECH's"),
    ".vsi": _SLIDE.format("of Olympus'"),
    ".gii": "a GIFTI surface, not an image", ".trk": _LINES, ".tck": _LINES, ".stl": "a surface, not an image",
    ".b2nd": "an array of Blosc2, which has no spacing, origin and direction; resample the image that it was made of",
}  # fmt: skip


def format_of(path: Path) -> str:
    """The format of a file that nibabel is asked to read; nothing for all others."""
    name = path.name.lower()
    if path.is_file() and elements.is_dicom(path):
        return ""
    found = next((kind for ending, kind in READ.items() if name.endswith(ending)), "")
    if not found and name.endswith((".nii", ".nii.gz", zstds.ENDING)) and _is_second(_head(path)):
        return _SECOND
    # ITK reads MINC 2, which is HDF5.
    if not found and name.endswith((".mnc", ".mnc.gz")) and _head(path).startswith(b"CDF"):
        return _MINC_1
    return found


def what_it_is(path: Path) -> str:
    """What a file that cannot be read is, by its name; nothing where that tells nothing."""
    name = path.name.lower()
    return next((text for ending, text in _OTHERS.items() if name.endswith(ending)), "")


def _head(path: Path) -> bytes:
    """The first bytes of a file, unpacked; nothing where it has none."""
    try:
        with completeness.reading(path) if completeness.is_packed(path) else open(path, "rb") as stream:
            return bytes(stream.read(8))
    except (OSError, EOFError, zlib.error):
        return b""


def _is_second(head: bytes) -> bool:
    """Whether a NIfTI file's header is that of version 2, which ITK (5.4.7) does not read."""
    return len(head) == 8 and head[4:8] == b"n+2\0" and 540 in (struct.unpack(f"{o}i", head[:4])[0] for o in "<>")


def opened(path: Path) -> Any:
    """A nibabel image.

    Raises
    ------
    OSError
        Without nibabel, and for what it cannot read.
    """
    kind = format_of(path)
    try:
        import nibabel
    except ImportError:
        raise OSError(f"{path}: is a file of {kind}, which nibabel reads: pip install nibabel") from None
    try:
        # nibabel does not count ECAT among the formats that it knows by their names.
        image = nibabel.ecat.load(path) if kind == _ECAT else nibabel.load(path)
    except Exception as error:  # each of its formats has errors of its own
        raise OSError(f"{path}: cannot be read by nibabel: {error}") from error
    if kind == _MINC_1 and len(image.shape) != 3:
        raise OSError(
            f"{path}: a MINC 1 image of {len(image.shape)} axes is not read; mincconvert -2 makes MINC 2 of it"
        )
    return image


def layout(path: Path, image: Any) -> tuple[tuple[int, ...], tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Size, spacing, origin and direction of a nibabel image, in LPS, as SimpleITK would have them.

    Raises
    ------
    OSError
        For images of fewer than three axes, more than four, and sheared ones.
    """
    try:
        grid = grid_of_image(image)
    except ValueError as error:
        raise OSError(f"{path}: cannot be read: {error}") from None
    size = tuple(image.shape)
    if any(n > 1 for n in size[4:]):
        raise OSError(f"{path}: cannot be read: an image has at most 4 axes, got shape {size}")
    length, time = _units(path, image)
    spacing, origin = (tuple(v * length for v in values) for values in (grid.spacing, grid.origin))
    if len(size) < 4 or size[3] == 1:
        return grid.size, spacing, origin, grid.direction
    zooms = image.header.get_zooms()
    step = float(zooms[3]) * time if len(zooms) > 3 and zooms[3] > 0 else 1.0
    direction = np.eye(4)
    direction[:3, :3] = np.reshape(grid.direction, (3, 3))
    return (*grid.size, size[3]), (*spacing, step), (*origin, 0.0), tuple(direction.ravel().tolist())


def _units(path: Path, image: Any) -> tuple[float, float]:
    """Millimetres and seconds of a header's units, which ITK makes of NIfTI's; FreeSurfer counts milliseconds."""
    kind = format_of(path)
    if kind == "FreeSurfer":
        return 1.0, 1e-3
    if kind != _SECOND:
        return 1.0, 1.0
    code = int(image.header["xyzt_units"])
    return {1: 1e3, 3: 1e-3}.get(code & 7, 1.0), {16: 1e-3, 24: 1e-6}.get(code & 56, 1.0)


def dtype_of(image: Any) -> np.dtype[Any]:
    """The type that its voxels are read in."""
    corner = image.dataobj[tuple(slice(0, 1) for _ in image.shape)]
    return np.asanyarray(corner).dtype.newbyteorder("=")


def read(path: Path) -> SimpleITK.Image:
    """A whole image, through nibabel.

    Raises
    ------
    OSError
        As `opened` and `layout`, and if it ends early.
    """
    import SimpleITK as sitk

    image = opened(path)
    size, spacing, origin, direction = layout(path, image)
    try:
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # each of its formats has errors of its own
        raise OSError(f"{path}: is damaged or ends early ({error})") from error
    array = array.reshape(size, order="F").T
    made = sitk.GetImageFromArray(np.ascontiguousarray(array, array.dtype.newbyteorder("=")), isVector=False)
    made.SetSpacing(spacing)
    made.SetOrigin(origin)
    made.SetDirection(direction)
    return made


def write(image: SimpleITK.Image, path: Path) -> None:
    """Write FreeSurfer's .mgz.

    Raises
    ------
    OSError
        Without nibabel; for voxels that the format lacks, and components.
    """
    import SimpleITK as sitk

    try:
        import nibabel
    except ImportError:
        raise OSError(".mgz is written through nibabel: pip install nibabel") from None
    array = sitk.GetArrayFromImage(image)
    kinds = ("uint8", "int16", "int32", "float32")
    d = image.GetDimension()
    if array.dtype.name not in kinds or image.GetNumberOfComponentsPerPixel() > 1 or d not in (3, 4):
        raise OSError(
            f".mgz holds 3-D or 4-D images of {', '.join(kinds)}, got {d}-D {image.GetPixelIDTypeAsString()}; "
            "use .nrrd, or another dtype"
        )
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (d, d))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    made = nibabel.MGHImage(array.T, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    if d == 4:
        made.header.set_zooms((*made.header.get_zooms()[:3], 1e3 * image.GetSpacing()[3]))
    nibabel.save(made, path)
