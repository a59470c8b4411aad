"""Volumes in and out through SimpleITK: whole or not at all.

What SimpleITK reads is read: NIfTI, NRRD, MetaImage, DICOM and more; a folder is a DICOM series. What is
written keeps the geometry, appears under its name only when it is complete, and is read back as far as its
header goes.
"""

from __future__ import annotations

import contextlib
import errno
import locale
import math
import os
import pickle
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample import texts
from gpuresample.checks import whole
from gpuresample.files import (
    completeness,
    detached,
    dicom,
    disk,
    elements,
    foreign,
    gzips,
    nifti,
    packing,
    segments,
    tiffs,
    zstds,
)

if TYPE_CHECKING:
    import SimpleITK

# Formats of one file that keep voxel type, spacing, origin and direction; each is held to that by the tests.
WRITABLE = (".nii", ".nii.gz", ".nii.zst", ".nrrd", ".mha", ".h5", ".hdf5")

_HINTS = {
    ".mhd": "it is a pair of files that cannot be replaced in one step; use .mha",
    ".nhdr": "it is a pair of files that cannot be replaced in one step; use .nrrd",
    ".hdr": "it is a pair of files that cannot be replaced in one step; use .nii",
    ".img": "it is a pair of files that cannot be replaced in one step; use .nii",
    ".b2nd": "it has no place for spacing, origin and direction; use .nii.zst",
    ".dcm": "a resampled volume is no longer what its scanner made; use .nii.gz or .nrrd",
}
_LOSSY = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp", ".gipl", ".mrc", ".vtk")

_NIFTI = (".nii", ".nii.gz")
_PACKED = (".nii.gz", ".nii.zst", ".nrrd", ".mha")
# Of which nothing but packed files are written.
_ALWAYS_PACKED = (".nii.gz", ".nii.zst")
_NIFTI_PAIR = (".hdr", ".img", ".hdr.gz", ".img.gz", ".nia")

_FORMATS = {
    "NiftiImageIO": "NIfTI",
    "NrrdImageIO": "NRRD",
    "MetaImageIO": "MetaImage",
    "GDCMImageIO": "DICOM",
    "HDF5ImageIO": "HDF5",
    "MRCImageIO": "MRC",
    "MINCImageIO": "MINC",
    "GiplImageIO": "GIPL",
}

# SimpleITK's names of voxel types.
_PIXEL_TYPES = {
    f"{'u' * unsigned}int{bits}": f"{bits}-bit {'un' * unsigned}signed integer"
    for bits in (8, 16, 32, 64)
    for unsigned in (False, True)
} | {f"float{bits}": f"{bits}-bit float" for bits in (32, 64)}

# How far a corner voxel may lie from its place after a header has been through a file, in voxels. NIfTI keeps
# its header in float32.
_HEADER_TOLERANCE = 0.05

# Bytes: a disk with fewer free is full.
_FULL = 1 << 16

PathLike = str | os.PathLike[str]
# Is told how many bytes are done, and of how many.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Header:
    """What a file says about its volume, voxels aside.

    Attributes
    ----------
    format : str
        Name of the file format.
    pixel_type : str
        SimpleITK's name of the voxel type.
    dtype : numpy.dtype
        Type of one component.
    components : int
        Components of a vector voxel; 0 for scalars.
    size, spacing, origin, direction : tuple
        Geometry in x, y, z order, as SimpleITK gives it.
    """

    format: str
    pixel_type: str
    dtype: np.dtype[Any]
    components: int
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @property
    def dimension(self) -> int:
        """Number of axes."""
        return len(self.size)

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels in memory."""
        return math.prod(self.size) * max(self.components, 1) * self.dtype.itemsize

    @classmethod
    def of(cls, source: SimpleITK.Image | SimpleITK.ImageFileReader, file_format: str = "") -> Header:
        """The header of an image, or of a reader that has read the information of its file."""
        import SimpleITK as sitk

        is_image = isinstance(source, sitk.Image)
        pixel_id = source.GetPixelID()
        pixel_type = sitk.GetPixelIDValueAsString(pixel_id)
        count = source.GetNumberOfComponentsPerPixel() if is_image else source.GetNumberOfComponents()
        components = count if "vector" in pixel_type else 0
        probe = sitk.Image([1, 1], pixel_id, components)
        # A header may have a negative spacing: ITK turns the image's direction instead, as here.
        spacing, d = np.asarray(source.GetSpacing()), source.GetDimension()
        direction = np.reshape(source.GetDirection(), (d, d)) * np.where(spacing < 0, -1.0, 1.0)
        return cls(
            file_format or ("" if is_image else _FORMATS.get(_image_io(source), _image_io(source)[: -len("ImageIO")])),
            pixel_type,
            sitk.GetArrayViewFromImage(probe).dtype,
            components,
            tuple(source.GetSize()),
            tuple(np.abs(spacing).tolist()),
            tuple(source.GetOrigin()),
            tuple((direction + 0.0).ravel().tolist()),
        )


def header(path: PathLike) -> Header:
    """Read the header of one file, not its voxels.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If SimpleITK cannot read it.
    ValueError
        If its name is not valid UTF-8.
    """
    path = Path(path)
    check_input(path)
    if kind := foreign.format_of(path):
        opened = foreign.opened(path)
        dtype = foreign.dtype_of(opened)
        if dtype.name not in _PIXEL_TYPES:
            raise OSError(f"{path}: cannot be read: its voxels are {dtype}")
        return Header(kind, _PIXEL_TYPES[dtype.name], dtype, 0, *foreign.layout(path, opened))
    data = elements.read(path)
    if data is not None and segments.is_segmentation(data):
        labels = segments.labels_of(path, data)
        pixel_type = _PIXEL_TYPES[labels.dtype.name]
        return Header(
            "DICOM", pixel_type, labels.dtype, 0, labels.size, labels.spacing, labels.origin, labels.direction
        )
    with _quiet(), _failure(path, "cannot be read"):
        reader = _opened(path)
        found = Header.of(reader)
        if _image_io(reader) == _MINC:
            origin, direction = _of_ras(found.origin, found.direction)
            return replace(found, origin=origin, direction=direction)
    if (form := nifti.of(path)) is not None:
        placed = nifti.geometry(form, found.spacing, found.origin, found.direction)
        return found if placed is None else replace(found, spacing=placed[0], origin=placed[1], direction=placed[2])
    frames = None if data is None else dicom.frames_of(path, data)
    return found if frames is None else _of_frames(found, frames)


def _of_frames(found: Header, frames: dicom.Frames) -> Header:
    """A DICOM file's header as its frames are read."""
    geometry = {name: getattr(frames, name) or getattr(found, name) for name in ("spacing", "origin", "direction")}
    if frames.dtype is None:
        return replace(found, **geometry)
    dtype = np.dtype(frames.dtype)
    return replace(found, **geometry, dtype=dtype, pixel_type=_PIXEL_TYPES[dtype.name])


def read(path: PathLike, series: str | None = None, progress: Progress | None = None) -> SimpleITK.Image:
    """Read a volume.

    Parameters
    ----------
    path : path-like
        A file of any format SimpleITK reads, or a folder with a DICOM series.
    series : str, optional
        Series instance UID, for a folder with several series.
    progress : callable, optional
        Is told the bytes of voxels that have been unpacked, and all of them. Files that are not packed, and those that
        ITK unpacks, are read without a word.

    Returns
    -------
    SimpleITK.Image
        With the file's own dimension and voxel type.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    OSError
        If it cannot be read, is damaged, or ends early.
    ValueError
        If the folder holds several series and `series` names none of them, or `series` is given for a file; or if the
        name of a file is not valid UTF-8.

    Warns
    -----
    UserWarning
        If the slices of a DICOM series are not evenly spaced, or files of the folder could not be used.

    Notes
    -----
    No file but the one that is named is read, and what its header names in its folder. NaN and infinity are kept, which
    ITK's NIfTI reader turns into 0.
    """
    path = Path(path)
    check_input(path)
    if path.is_dir():
        return _read_series(path, series)
    if series is not None:
        raise ValueError(f"series is for folders of DICOM files, and {path} is a file; got {series!r}")
    if foreign.format_of(path):
        return foreign.read(path)
    data = elements.read(path)
    if data is not None and segments.is_segmentation(data):
        return segments.read(path, data)
    # ITK fills what a short NIfTI, MRC or GIPL file lacks with whatever is in memory, without a word.
    with _quiet(), ThreadPoolExecutor(1) as pool:
        with _failure(path, "cannot be read"):
            reader = _opened(path)
            # Asked for here: two threads in ITK's readers at once can crash (HDF5 is not safe).
            expected = _image_io(reader), Header.of(reader).nbytes
        completeness.check_plausible(path, *expected)
        form = nifti.of(path)
        if form is not None and form.scales and reader.GetNumberOfComponents() > 1 and not form.is_float:
            raise OSError(
                f"{path}: holds vectors of integers with a slope or an intercept, which ITK's reader (5.4.7) does not "
                "survive; write them as floats"
            )
        with _failure(path, "cannot be read"):
            image = packing.read(path, form, reader, _of(progress, expected[1]))
        if image is not None:
            return image if form is None else _placed(path, image, form)
        lost = nifti.NotFinite(form)
        if zstds.named(path):
            _complete(path, reader, expected[1])
        check = pool.submit(_checked, path, expected, lost)
        with _failure(path, "cannot be read"):
            image = _executed(reader, check.result)
    if expected[0] == _MINC:
        origin, direction = _of_ras(image.GetOrigin(), image.GetDirection())
        image.SetOrigin(origin)
        image.SetDirection(direction)
    if form is not None:
        return _placed(path, lost.put_back(image), form)
    frames = None if data is None else dicom.frames_of(path, data)
    return image if data is None or frames is None else dicom.arranged(image, frames, path, data)


# ITK's reader of MINC (5.4.7) hands out the file's coordinates, which are RAS, as if they were LPS.
_MINC = "MINCImageIO"


def _of_ras(origin: Sequence[float], direction: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """A geometry whose coordinates are RAS, in LPS."""
    d = len(origin)
    flip = np.where(np.arange(d) < 2, -1.0, 1.0)
    turned = np.reshape(direction, (d, d)) * flip[:, None]
    return tuple((np.asarray(origin) * flip + 0.0).tolist()), tuple((turned + 0.0).ravel().tolist())


def _checked(path: Path, expected: tuple[str, int], lost: nifti.NotFinite) -> None:
    """Whether a file is whole; on the way, values are found that ITK makes 0 of."""
    stored = _nifti_voxels(path)
    passes = stored == path and completeness.is_packed(path)
    completeness.check(path, *expected, lost.watch if passes else None)
    if lost.form is not None and not passes:
        with gzips.reading(stored) if completeness.is_gzip(stored) else open(stored, "rb") as file:
            while block := file.read(1 << 20):
                lost.watch(block)


def _nifti_voxels(path: Path) -> Path:
    """The file with the voxels of a NIfTI file, which may be one of two."""
    if detached.half(path) != ".hdr":
        return path
    return next((p for p in detached.parts(path) if detached.half(p) == ".img"), path)


def _placed(path: Path, image: SimpleITK.Image, form: nifti.Form) -> SimpleITK.Image:
    """A NIfTI image where its header puts it, with the codes of its forms among its metadata."""
    taken = form.taken(image.GetOrigin(), image.GetDirection())
    placed = nifti.geometry(form, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    if placed is not None:
        image.SetSpacing(placed[0])
        image.SetOrigin(placed[1])
        image.SetDirection(placed[2])
    nifti.warn_of_forms(path, form, taken)
    _set_codes(image, nifti.codes_kept(form, taken))
    return image


_CODES = ("sform_code", "qform_code")
# What Slicer says of segments; their extents are in voxels of the old grid.
_SEGMENTS = re.compile(r"Segment(\d+_(?!Extent)|ation_(?!ReferenceImageExtentOffset))\w+")


def _set_codes(image: SimpleITK.Image, codes: tuple[int, int]) -> None:
    for key, code in zip(_CODES, codes, strict=True):
        image.SetMetaData(key, str(code))


def _codes_of(image: SimpleITK.Image) -> tuple[int, int] | None:
    """Codes of sform and qform that an image is to be written with, where they are not what ITK writes: 1 and 1."""
    if not all(image.HasMetaDataKey(key) for key in _CODES):
        return None
    found = tuple(int(t) if (t := image.GetMetaData(key)).isdecimal() else 0 for key in _CODES)
    return None if found in ((0, 0), (1, 1)) else (found[0], found[1])


def keep_notes(source: SimpleITK.Image, made: SimpleITK.Image, like: PathLike | None = None) -> None:
    """Give an image made of another the names of its segments (Slicer's) and the codes of its space (NIfTI's).

    Parameters
    ----------
    source, made : SimpleITK.Image
        As `read` has it; what was made of it.
    like : path-like, optional
        Whose grid `made` has: the codes of the space are that file's, if it is NIfTI.
    """
    if like is not None and not Path(like).is_dir() and (form := nifti.of(Path(like))) is not None:
        found = header(like)
        _set_codes(made, nifti.codes_kept(form, form.taken(found.origin, found.direction)))
    for key in source.GetMetaDataKeys():
        if _SEGMENTS.fullmatch(key) or (like is None and key in _CODES):
            made.SetMetaData(key, source.GetMetaData(key))


def in_parts(path: PathLike) -> Header | None:
    """The header of a file that `read_part` can read parts of; None for all others.

    These are uncompressed NIfTI and MetaImage files in one piece, of scalars in 2 or 3 dimensions: of others ITK reads
    all for every part.

    Raises
    ------
    OSError
        As `header`, and if the file ends early.
    """
    path = Path(path)
    found = header(path)
    if (
        found.format not in ("NIfTI", "MetaImage")
        or found.components
        or found.dimension > 3
        or completeness.is_packed(path)
    ):
        return None
    form = nifti.of(path)
    if form is not None and form.codes[0] and not form.codes[1] and form.sheared:
        return None  # ITK reads a copy of it: once, not for each part
    with open(path, "rb") as file:
        compressed = re.search(rb"CompressedData *= *True", file.read(4096), re.IGNORECASE)
    # Less in the file than in memory: the voxels are elsewhere, or a header's slope makes floats of them.
    if compressed or os.path.getsize(path) < found.nbytes:
        return None
    completeness.check(path, f"{'Nifti' if found.format == 'NIfTI' else 'Meta'}ImageIO", found.nbytes)
    return found


def read_part(path: PathLike, start: Sequence[int], size: Sequence[int]) -> SimpleITK.Image:
    """A box of a file's voxels, from the index `start` on, `size` voxels along x, y(, z).

    Raises
    ------
    OSError
        If it cannot be read.
    """
    import SimpleITK as sitk

    path = Path(path)
    with _quiet(), _failure(path, "cannot be read"):
        reader = _opened(path)
        reader.SetExtractIndex([int(i) for i in start])
        reader.SetExtractSize([int(n) for n in size])
        image = reader.Execute()
    form = nifti.of(path)
    if form is None:
        return image
    made = sitk.GetImageFromArray(nifti.part(path, form, start, sitk.GetArrayFromImage(image)))
    made.CopyInformation(image)
    return made


def check_output(path: PathLike, overwrite: bool = False) -> Path:
    """Whether a volume could be written to `path`; nothing is written.

    Parameters
    ----------
    path : path-like
        Where a volume is to go.
    overwrite : bool
        Whether an existing file may be replaced.

    Returns
    -------
    Path
        The file itself, symbolic links resolved.

    Raises
    ------
    ValueError
        If the extension is not one of `WRITABLE` or .mgz, or the name is not valid UTF-8.
    FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError
        If the folder is missing, is none, `path` is a folder, or the folder is not writable.
    FileExistsError
        If the file exists and `overwrite` is False.
    OSError
        For .nii.zst without a library of zstandard.
    """
    check_extension(path)
    target = Path(os.path.realpath(path))
    texts.utf8_name(target)
    if zstds.named(target):
        zstds.library(Path(path))
    if target.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, not a file to write to")
    return check_place(path, overwrite)


def check_place(path: PathLike, overwrite: bool = False) -> Path:
    """Whether a file or folder could be made at `path`; the rest of `check_output`.

    Raises
    ------
    FileNotFoundError, NotADirectoryError, PermissionError
        If the folder that it goes to is missing, is none, or is not writable.
    FileExistsError
        If there is something and `overwrite` is False.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.exists():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent}")
    if not target.parent.is_dir():
        raise NotADirectoryError(f"{path}: {target.parent} is not a folder")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"{path}: the folder {target.parent} is not writable")
    if target.exists() and not overwrite:
        raise FileExistsError(f"{path}: exists already; to replace it, say so (overwrite=True, --overwrite)")
    return target


def png_beside(path: PathLike) -> Path:
    """The name of a picture that goes with a volume: `ct.nii.gz` and `ct.png`."""
    name = Path(path).name
    ending = next((e for e in WRITABLE if name.endswith(e)), Path(name).suffix)
    return Path(path).with_name(f"{name[: len(name) - len(ending)]}.png")


def write(
    image: SimpleITK.Image,
    path: PathLike,
    overwrite: bool = False,
    level: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Write a volume, whole or not at all.

    The file is written beside its place under another name, checked, brought to disk, and renamed. Whatever
    goes wrong, `path` holds what it held before.

    Parameters
    ----------
    image : SimpleITK.Image
        What to write.
    path : path-like
        Where to; the extension, one of `WRITABLE`, says the format.
    overwrite : bool
        Whether an existing file may be replaced.
    level : int, optional
        How hard to pack, 1 (fast) to 9 (small), for .nii.gz, .nii.zst, .nrrd and .mha; levels of .nii.zst are
        zstandard's. Unless given, .nii.gz files are packed fast, and are about as large as ITK's, .nii.zst files are
        packed at level 3, and .nrrd and .mha files are not packed.
    progress : callable, optional
        Is told the bytes of voxels that have been packed, and all of them.

    Raises
    ------
    ValueError, OSError
        As `check_output`; OSError also if writing fails or the format cannot hold the image's geometry. ValueError also
        for a level that there is not, or with a format that is not packed.
    TypeError
        If `image` is not a SimpleITK image.

    Warns
    -----
    UserWarning
        If a .nii and a .nii.gz of one name are in the folder now: other programs mix them up.

    Notes
    -----
    All threads pack (`gpuresample.set_num_threads`). The bytes are the same on any number of them.
    """
    import SimpleITK as sitk

    if not isinstance(image, sitk.Image):
        raise TypeError(f"image must be a SimpleITK.Image, got {type(image).__name__}")
    target = check_output(path, overwrite)
    check_level(path, level)
    failure, length = _failure(Path(path), "cannot be written"), None
    with replacing(target, overwrite) as partial, _quiet(), failure, _full_disk(target):
        codes = _codes_of(image) if target.name.endswith((*_NIFTI, zstds.ENDING)) else None
        if target.name.endswith(_ALWAYS_PACKED) or level is not None:
            length = packing.write(image, partial, codes, level, _of(progress, Header.of(image).nbytes))
        elif partial.suffix in foreign.WRITTEN:
            foreign.write(image, partial)
        elif partial.suffix in _HDF5:
            _write_apart(image, texts.utf8_name(partial), target)
        else:
            sitk.WriteImage(image, texts.utf8_name(partial))
            if codes is not None:
                nifti.patch_codes(partial, codes)
        _check_written(partial, target, image, length)
    _warn_of_namesakes(target)


def _of(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    return None if progress is None else lambda done: progress(min(done, total), total)


def _warn_of_namesakes(target: Path) -> None:
    """Tell who writes x.nii.gz beside x.nii, or the other way round, what others will read."""
    if target.name.endswith(".nii.gz"):
        packed, plain = target, target.with_name(target.name[:-3])
    else:
        packed, plain = target.with_name(f"{target.name}.gz"), target
    if plain.suffix == ".nii" and packed.exists() and plain.exists():
        warnings.warn(
            f"{target}: {packed.name} and {plain.name} are in one folder; programs built on ITK (5.4.7, SimpleITK "
            f"2.5.7) read the voxels of {plain.name} when they are asked for {packed.name}",
            stacklevel=3,
        )


# HDF5 ends the process where the disk refuses a write (SimpleITK 2.5.7). So another process writes such files.
_HDF5 = (".h5", ".hdf5")
_WRITER = "import pickle, sys, SimpleITK; SimpleITK.WriteImage(*pickle.load(sys.stdin.buffer))"


def _write_apart(image: SimpleITK.Image, path: str, target: Path) -> None:
    """Write an image in a process of its own.

    Raises
    ------
    OSError
        With the reason, and its number where HDF5 says it.
    """
    # -P: nothing is imported from the current folder.
    done = subprocess.run(
        [sys.executable, "-P", "-c", _WRITER], input=pickle.dumps((image, path), protocol=5), capture_output=True,
        check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    if done.returncode == 0:
        return
    said = done.stderr.decode("utf-8", "replace")
    number = re.search(r"errno = (\d+)", said)
    if number is None:
        last = said.strip().splitlines()[-1:] or [f"its writer ended with code {done.returncode}"]
        raise RuntimeError(last[0])
    failed = OSError(f"{target}: cannot be written: {os.strerror(int(number[1]))}")
    failed.errno = int(number[1])
    raise failed


@contextlib.contextmanager
def _full_disk(target: Path) -> Iterator[None]:
    """Say so where that is the reason: ITK writes a short file, with or without an error.

    To be left before that file is removed.

    Raises
    ------
    OSError
        With errno ENOSPC.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        full_disk = getattr(error, "errno", 0) == errno.ENOSPC
        if str(error).startswith(f"{target}: ") if full_disk else shutil.disk_usage(target.parent).free >= _FULL:
            raise
        full = OSError(f"{target}: cannot be written: no space left on the disk")
        full.errno = errno.ENOSPC
        raise full from error


@contextlib.contextmanager
def replacing(target: Path, overwrite: bool = True) -> Iterator[Path]:
    """A name beside `target` to write to; what is there at the end takes `target`'s place in one step.

    After an exception, Ctrl-C included, the file written so far is removed and `target` is as it was.

    Raises
    ------
    FileExistsError
        Without `overwrite`, if `target` has come into being meanwhile: of two writers of a name, one wins.
    """
    partial = partial_beside(target)
    try:
        yield partial
        disk.to_disk(partial)
        if overwrite:
            os.replace(partial, target)
        else:
            disk.rename_new(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    disk.folder_to_disk(target.parent)


def partial_beside(target: Path) -> Path:
    """A new name beside `target`, of the same format, for what is not to have its name yet."""
    ending = next((e for e in WRITABLE if target.name.endswith(e)), target.suffix)
    stem = target.name[: len(target.name) - len(ending)][:40]
    return target.with_name(f".{stem}.{secrets.token_hex(4)}.partial{ending}")


def is_partial_of(name: str, target: str) -> bool:
    """Whether a file of this name is what `partial_beside` calls one on behalf of a file named `target`."""
    ending = next((e for e in WRITABLE if target.endswith(e)), Path(target).suffix)
    stem = target[: len(target) - len(ending)][:40]
    return re.fullmatch(rf"\.{re.escape(stem)}\.[0-9a-f]{{8}}\.partial{re.escape(ending)}", name) is not None


def check_extension(path: PathLike) -> None:
    """Refuse extensions that volumes are not written with.

    Raises
    ------
    ValueError
        With the extension and what is allowed.
    """
    name = Path(path).name
    endings = WRITABLE + foreign.WRITTEN
    if name.endswith(endings) and name not in endings:
        return
    suffix = Path(name).suffix
    hint = _HINTS.get(suffix.lower())
    if suffix.lower() in _LOSSY:
        hint = "it does not keep spacing, origin and direction"
    elif suffix != suffix.lower():
        hint = "small letters are asked for, as some readers know no others"
    raise ValueError(
        f"{path}: volumes are written as {', '.join(endings)}; got {suffix or 'no extension'}"
        + (f" ({hint})" if hint else "")
    )


def check_level(path: PathLike, level: int | None, named: str = "level") -> None:
    """Refuse levels that there are not, and formats that are not packed; None is always right.

    Parameters
    ----------
    path : path-like
        Of what is to be written.
    level : int or None
        How hard to pack.
    named : str
        The argument's name in errors.

    Raises
    ------
    ValueError, TypeError
        With the argument and what is allowed.
    """
    if level is None:
        return
    lowest, highest = gzips.LEVELS[0], gzips.LEVELS[-1]
    whole(named, level, f"a whole number from {lowest} (fast) to {highest} (small)", lowest, highest)
    if not Path(path).name.endswith(_PACKED):
        raise ValueError(f"{named} is for {', '.join(_PACKED)}, and {path} is none of these; got {level}")


def check_input(path: Path) -> None:
    """Refuse what is missing, may not be read, or is neither a file nor a folder; nothing is opened.

    Raises
    ------
    OSError
        With the reason.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if kind := disk.odd_kind(path):
        raise OSError(f"{path}: is {kind}; only regular files and folders are read")
    if path.is_file() and not os.access(path, os.R_OK):
        raise PermissionError(f"{path}: may not be read")


def _opened(path: Path) -> Any:
    """A reader that knows the file's header."""
    import SimpleITK as sitk

    completeness.check_dimensions(path)
    detached.check(path)
    reader = sitk.ImageFileReader()
    is_zstd = zstds.named(path)
    reader.SetFileName(texts.utf8_name(_head_alone(path, reader) if is_zstd else _alone(path, reader)))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        if completeness.is_packed(path):
            completeness.unzipped(path)  # says so where that is the reason
        form = nifti.of(path) if "orthonormal" in str(error) else None
        if form is None or path.name.lower().endswith(_NIFTI_PAIR):
            raise
        if is_zstd:
            nifti.patch_codes(Path(reader.GetFileName()), (0, 0))
        else:
            reader.SetFileName(texts.utf8_name(nifti.without_forms(path, _folder_of(reader))))
        reader.ReadImageInformation()
    tiffs.check(path, reader)
    return reader


def _folder_of(reader: Any) -> Path:
    """A folder that is there as long as a reader."""
    folder = Path(tempfile.mkdtemp(prefix="gpuresample-"))
    weakref.finalize(reader, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _head_alone(path: Path, reader: Any) -> Path:
    """A file with what comes before the voxels of a .nii.zst, which ITK does not read: its header is all that it asks.

    Raises
    ------
    OSError
        If the stream is damaged there, and without a library of zstandard.
    """
    copy = _folder_of(reader) / "head.nii"
    head = completeness.head_of(path, nifti.HEAD)
    form = nifti.of(path)
    if form is not None and nifti.HEAD < form.offset <= completeness.MOST_HEAD:
        head = completeness.head_of(path, form.offset)
    copy.write_bytes(head)
    return copy


def _complete(path: Path, reader: Any, nbytes: int) -> None:
    """Put the voxels of a .nii.zst behind its header in the file that its reader has of it.

    Raises
    ------
    OSError
        If the stream is damaged, ends early, or goes on far behind its volume.
    """
    copy = Path(reader.GetFileName())
    head = copy.read_bytes()[: nifti.HEAD]  # perhaps without its forms
    with open(copy, "wb") as out:
        completeness.unzipped(path, lambda _: nbytes, out.write)
        out.seek(0)
        out.write(head)


def _namesakes(path: Path) -> list[Path]:
    """Files beside a NIfTI file that ITK may read in its stead: it looks for x.nii before x.nii.gz (5.4.7)."""
    own = path.name.lower()
    ending = next((e for e in _NIFTI if own.endswith(e)), None)
    if ending is None:
        return []
    stem = path.name[: -len(ending)]
    names = {f"{stem}{e}" for ending in _NIFTI + _NIFTI_PAIR for e in (ending, ending.upper())} - {path.name}
    return sorted(p for p in (path.with_name(name) for name in names) if p.exists() and not _is_same(p, path))


def _is_same(one: Path, other: Path) -> bool:
    """Whether two names are one file in one folder, as where case makes no difference."""
    return one.name.lower() == other.name.lower() and os.path.samefile(one, other)


def _alone(path: Path, reader: Any) -> Path:
    """A path by which ITK finds this file and no other: a link in a folder of its own, kept as long as `reader`.

    Raises
    ------
    OSError
        If no link can be made.
    """
    if not _namesakes(path):
        return path
    link = _folder_of(reader) / path.name
    try:
        link.symlink_to(path.resolve())
    except OSError as error:
        beside = ", ".join(p.name for p in _namesakes(path))
        raise OSError(f"{path}: ITK could read {beside} in its stead, and no link to it alone can be made") from error
    return link


def _image_io(reader: Any) -> str:
    """Name of the ITK class that reads the file."""
    return str(reader.GetImageIOFromFileName(reader.GetFileName()))


def _executed(reader: Any, check: Any) -> SimpleITK.Image:
    """The image; where the check of its file fails too, that says why, and is raised."""
    try:
        image = reader.Execute()
    except RuntimeError:
        check()
        raise
    check()
    return image


_quiet_lock = threading.Lock()
_quiet_depth = 0
_quiet_before = True
_locale_before = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """ITK's warnings off: what matters of them is raised or warned of here. The switch is one per process.

    So is the locale, which ITK's reader of .vtk leaves at "C" where a file ends too early: it is put back.
    """
    global _quiet_depth, _quiet_before, _locale_before
    from SimpleITK import ProcessObject

    with _quiet_lock:
        if _quiet_depth == 0:
            _quiet_before = ProcessObject.GetGlobalWarningDisplay()
            _locale_before = locale.setlocale(locale.LC_ALL)
            ProcessObject.SetGlobalWarningDisplay(False)
        _quiet_depth += 1
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_depth -= 1
            if _quiet_depth == 0:
                ProcessObject.SetGlobalWarningDisplay(_quiet_before)
                if locale.setlocale(locale.LC_ALL) != _locale_before:
                    locale.setlocale(locale.LC_ALL, _locale_before)


def _in_child() -> None:
    # The lock may have been held, and the switch been off, for a thread that a child does not have.
    global _quiet_depth, _quiet_lock
    _quiet_lock = threading.Lock()
    if _quiet_depth:
        _quiet_depth = 0
        sys.modules["SimpleITK"].ProcessObject.SetGlobalWarningDisplay(_quiet_before)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


@contextlib.contextmanager
def itk_says() -> Iterator[list[str]]:
    """What ITK warns of meanwhile, as texts, where it is warned of in no other way; nothing is shown."""
    import SimpleITK as sitk

    said: list[str] = []

    class Logger(sitk.LoggerBase):  # type: ignore[misc]
        def DisplayText(self, text: str) -> None:  # noqa: N802
            said.append(text)

        DisplayErrorText = DisplayWarningText = DisplayGenericOutputText = DisplayDebugText = DisplayText

    # The switch of warnings is one per process, and off while others read.
    with _quiet_lock:
        logger, shown = Logger(), sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(True)
        before = logger.SetAsGlobalITKLogger()
        try:
            yield said
        finally:
            before.SetAsGlobalITKLogger()
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextlib.contextmanager
def _failure(path: Path, what: str) -> Iterator[None]:
    """SimpleITK's errors as one line with the path."""
    try:
        yield
    except RuntimeError as error:
        reason = _reason(error)
        if reason == _NO_READER and (known := foreign.what_it_is(path)):
            reason = f"is {known}"
        raise OSError(f"{path}: {what}: {reason}") from error


_NO_READER = "not an image, or damaged at its beginning (SimpleITK knows no reader for it)"


def _reason(error: RuntimeError) -> str:
    """What a SimpleITK message says, without source lines, addresses and guesses of errno."""
    text = str(error)
    if "Unable to determine ImageIO reader" in text:
        return _NO_READER
    text = re.split(r"ERROR:\s*", text)[-1]
    text = re.sub(r"\w+\(0x[0-9a-fA-F]+\):\s*", "", text)
    text = re.sub(r"Reason:.*", "", text)
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())[:300]


def _read_series(folder: Path, series: str | None) -> SimpleITK.Image:
    import SimpleITK as sitk

    named = texts.utf8_name(folder)
    for entry in sorted(folder.iterdir()):
        if kind := disk.odd_kind(entry):
            raise OSError(f"{entry}: is {kind}; all that is in a DICOM folder is opened, so it must be regular files")
    with _quiet(), _failure(folder, "cannot be read as a DICOM series"):
        found = {
            uid: sitk.ImageSeriesReader.GetGDCMSeriesFileNames(named, uid)
            for uid in sitk.ImageSeriesReader.GetGDCMSeriesIDs(named)
        }
        if not found:
            raise OSError(f"{folder}: no DICOM images in this folder{dicom.below(folder)}")
        if series not in found and (series is not None or len(found) > 1):
            listed = ", ".join(f"{uid} ({len(names)} files)" for uid, names in found.items())
            raise ValueError(f"series must be one of those in {folder}: {listed}; got {series!r}")
        names = found[series] if series is not None else next(iter(found.values()))
        for name in names:
            texts.utf8_name(texts.path_of(name))
        read_heads = [(name, elements.read(Path(texts.path_of(name)), voxels=False)) for name in names]
        heads = [(name, data) for name, data in read_heads if data is not None]
    _warn_of_unused(folder, found)
    if len(heads) < len(names):
        heads = []  # files without DICOM's mark: ITK's word holds
    if len(heads) == 1 and (dicom.is_whole(heads[0][1]) or segments.is_segmentation(heads[0][1])):
        return read(Path(texts.path_of(names[0])))
    differ = dicom.check_series(folder, heads)
    with _quiet(), _failure(folder, "cannot be read as a DICOM series"):
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(names)
        image = reader.Execute()
        if differ:
            image = _each_of_its_own(image, names)
    dicom.warn_of_uneven(folder, heads, image.GetSpacing()[2] if image.GetDimension() > 2 else 0.0)
    return image


def _each_of_its_own(image: SimpleITK.Image, names: Sequence[str]) -> SimpleITK.Image:
    """A series whose slices have slopes or types of their own: of a type that holds what each of them is read as."""
    import SimpleITK as sitk

    slices = [sitk.GetArrayFromImage(sitk.ReadImage(name)) for name in names]
    dtype = np.result_type(*slices)
    made = sitk.GetImageFromArray(np.concatenate([part.astype(dtype, copy=False) for part in slices]))
    made.CopyInformation(image)
    return made


def _warn_of_unused(folder: Path, found: dict[str, Sequence[str]]) -> None:
    used = {Path(texts.path_of(name)).name for names in found.values() for name in names}
    unused = sorted(p.name for p in folder.iterdir() if p.suffix.lower() == ".dcm" and p.name not in used)
    if unused:
        more = f" and {len(unused) - 3} more" if len(unused) > 3 else ""
        warnings.warn(f"{folder}: unreadable, left out: {', '.join(unused[:3])}{more}", stacklevel=4)


def _check_written(partial: Path, target: Path, image: SimpleITK.Image, length: int | None = None) -> None:
    """Read back the header of a file just written, and whether all of it is there; errors name `target`.

    `length`: how many bytes were written, where none can have been lost without an error. They are not unpacked again.

    Raises
    ------
    OSError
        If the file is short or has another geometry than the image.
    """
    wanted = Header.of(image)
    if partial.suffix in foreign.WRITTEN:
        got = header(partial)
        completeness.check(partial, "", got.nbytes)
    else:
        reader = _opened(partial)
        got = Header.of(reader)
        if length is None:
            completeness.check(partial, _image_io(reader), got.nbytes)
        elif os.path.getsize(partial) != length:
            raise OSError(f"{target}: {os.path.getsize(partial):,} of {length:,} bytes are there")
    same = (wanted.size, wanted.dtype, max(wanted.components, 1)) == (got.size, got.dtype, max(got.components, 1))
    if not same or np.abs(_corners(wanted) - _corners(got)).max() > _HEADER_TOLERANCE * min(wanted.spacing):
        raise OSError(
            f"{target}: this format cannot hold the image's geometry (spacing {wanted.spacing}, "
            f"direction {wanted.direction}); use .nrrd or .mha"
        )


def _corners(h: Header) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Physical points of the first voxel and of the ends of the axes."""
    step = np.reshape(h.direction, (h.dimension,) * 2) * np.asarray(h.spacing)
    ends = step.T * (np.asarray(h.size) - 1)[:, None]
    return np.asarray(h.origin) + np.vstack([np.zeros(h.dimension), ends])
