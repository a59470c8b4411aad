"""Volumes that are read part by part, whatever holds them: files, zarr, dask, memory."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import positive_numbers
from gpuresample.containers import LazyContainer, Volume, unwrap
from gpuresample.containers.kinds import lazy_kind
from gpuresample.containers.voxels import check_voxels
from gpuresample.files import volumes as files
from gpuresample.memory import available_memory
from gpuresample.omezarr import ngff
from gpuresample.planning.grid import Grid

# Bits of NIfTI's xyzt_units that are of time; what nibabel calls them, and NGFF.
_TIMES = 0x38
# NIfTI's codes, and OME-Zarr's words.
_UNITS = {8: "second", 16: "millisecond", 24: "microsecond"}

INSTALL = 'pip install "gpuresample[zarr]"'


@dataclass(frozen=True, eq=False)
class Source:
    """A volume to read parts of.

    Attributes
    ----------
    voxels : zarr.Array, dask.array.Array, FileVoxels or numpy.ndarray
        Shape (..., z, y, x) or (y, x).
    dtype : numpy.dtype
        In native order.
    grid : Grid
    lead : tuple of ngff.Lead
        The axes before those of space.
    identity : str
        What it is known by: equal for equal volumes.
    owner : object
        Whose memory the voxels are, as long as it lives.
    notes : ngff.Notes
        What is said of channels and axes.
    """

    voxels: Any
    dtype: np.dtype[Any]
    grid: Grid
    lead: tuple[ngff.Lead, ...]
    identity: str
    owner: Any = None
    notes: ngff.Notes = ngff.NOTHING

    def __getitem__(self, region: tuple[slice, ...]) -> npt.NDArray[Any]:
        part = self.voxels[region]
        return np.asarray(part.compute(scheduler="synchronous") if lazy_kind(part) == "dask" else part)


def of_image(image: Any, input_spacing: object = None) -> Source:
    """The source of an image of any kind that `gpuresample.resample` takes, in host memory or not in memory.

    Raises
    ------
    TypeError, ValueError
        For what is no image, is on a GPU, or has more than two axes before those of space.
    """
    container = unwrap(image, input_spacing, lazy=True)
    if isinstance(container, LazyContainer):
        voxels: Any = container.source
        identity = f"{container.library} {_known_by(voxels)}"
    else:
        if container.where != "cpu":
            raise ValueError(f"image must be in host memory or not in memory, got one on {container.where}")
        voxels = container.array
        identity = ""
    count = len(container.shape) - container.grid.dimension
    lead = ngff.leads_of(count)
    if container.kind in ("image", "nibabel"):
        # Files' fourth axis is time; components come after it here.
        named = getattr(container, "components", 0) > 0
        if count == 1 and not named:
            lead = (_time(image),)
        elif count == 2:
            lead, voxels = (_time(image), lead[1]), voxels.swapaxes(0, 1)
    return _in_space(Source(voxels, container.dtype, container.grid, lead, identity or _digest(voxels), container))


class Planes:
    """2-D images with axes before those of space, as volumes of one plane: what is made of voxels knows three axes."""

    def __init__(self, voxels: Any) -> None:
        self.voxels, self.dtype, self.store = voxels, voxels.dtype, getattr(voxels, "store", None)
        self.shape = (*voxels.shape[:-2], 1, *voxels.shape[-2:])

    def __getitem__(self, region: tuple[slice, ...]) -> npt.NDArray[Any]:
        part = self.voxels[(*region[:-3], *region[-2:])]
        part = part.compute(scheduler="synchronous") if lazy_kind(part) == "dask" else part
        return np.asarray(part)[..., None, :, :][..., region[-3], :, :]


def _in_space(source: Source) -> Source:
    """A source that has three axes of space if it has others before them."""
    if not source.lead or source.grid.dimension == 3:
        return source
    grid, direction = source.grid, np.eye(3)
    direction[:2, :2] = np.reshape(grid.direction, (2, 2))
    volume = Grid((*grid.size, 1), (*grid.spacing, 1.0), (*grid.origin, 0.0), tuple(direction.ravel().tolist()))
    return replace(source, voxels=Planes(source.voxels), grid=volume)


def _time(image: Any) -> ngff.Lead:
    """The fourth axis of a file's image. ITK makes seconds of a NIfTI file's units of time."""
    if hasattr(image, "GetSpacing"):
        words = image.GetMetaData("xyzt_units") if image.HasMetaDataKey("xyzt_units") else ""
        timed = words.isdecimal() and int(words) & _TIMES in (8, 16, 24)
        return ngff.Lead("t", "time", image.GetSpacing()[3], image.GetOrigin()[3], "second" if timed else None)
    code = int(image.header["xyzt_units"]) & _TIMES if hasattr(image.header, "get_xyzt_units") else 0
    return ngff.Lead("t", "time", float(image.header.get_zooms()[3]) or 1.0, 0.0, _UNITS.get(code))


def _known_by(voxels: Any) -> str:
    if lazy_kind(voxels) == "dask":
        return str(voxels.name)
    return f"{voxels.store_path} {voxels.metadata}"


def _digest(voxels: npt.NDArray[Any]) -> str:
    digest = hashlib.blake2b(f"{voxels.shape} {voxels.dtype}".encode())
    for part in voxels:
        digest.update(np.ascontiguousarray(part).view(np.uint8).data)
    return digest.hexdigest()


class FileVoxels:
    """Voxels of a file, (z, y, x) or (y, x), read where they are asked for."""

    def __init__(self, path: Path, header: files.Header) -> None:
        self.path, self.shape, self.dtype = path, header.size[::-1], header.dtype

    def __getitem__(self, region: tuple[slice, ...]) -> npt.NDArray[Any]:
        import SimpleITK as sitk

        spans = [s.indices(n)[:2] for s, n in zip(region, self.shape, strict=True)][::-1]
        image = files.read_part(self.path, [a for a, _ in spans], [b - a for a, b in spans])
        return sitk.GetArrayFromImage(image)


def _of_file(path: Path, header: files.Header) -> Source:
    """A file that is read in parts; it is known by its name, its size and when it was last written."""
    voxels = FileVoxels(path, header)
    status = path.stat()
    grid = Grid(header.size, header.spacing, header.origin, header.direction)
    return Source(voxels, voxels.dtype, grid, (), f"{path} {status.st_size} {status.st_mtime_ns} {header}")


def is_zarr(path: files.PathLike) -> bool:
    """Whether a path is that of a zarr array or group."""
    return any(Path(path, name).is_file() for name in ("zarr.json", ".zarray", ".zgroup"))


def opened(path: files.PathLike, input_spacing: object = None, series: str | None = None) -> Source:
    """The source of a file that SimpleITK reads, a zarr array or an OME-Zarr image.

    Only parts are in memory of zarr and of files that `files.in_parts` knows; other files are as a whole.

    Parameters
    ----------
    path : path-like
    input_spacing : float or sequence of float, optional
        Spacing along x, y, z of a zarr array, which has none; 1 unless given.
    series : str, optional
        As for `gpuresample.files.volumes.read`.

    Raises
    ------
    OSError, ValueError
        As `gpuresample.files.volumes.read`; ValueError also for zarr groups that are no OME-Zarr image.
    MemoryError
        For a file whose volume does not fit the memory that is left.
    RuntimeError
        If zarr is missing.
    """
    if is_zarr(path):
        if series is not None:
            raise ValueError(f"series is for folders of DICOM files, and {path} is zarr; got {series!r}")
        return _of_zarr(path, input_spacing)
    if input_spacing is not None:
        raise ValueError(f"input_spacing is for zarr arrays; {path} has its own spacing, got {input_spacing!r}")
    if series is None and (header := in_parts(path)) is not None:
        return _of_file(Path(path).resolve(), header)
    check_fits(path)
    return of_image(files.read(path, series))


def in_parts(path: files.PathLike) -> files.Header | None:
    """The header of a file that is read part by part, as `files.in_parts`; None for folders too."""
    return None if os.path.isdir(path) else files.in_parts(path)


def check_fits(path: files.PathLike) -> None:
    """Refuse a file that is larger than the memory that is left; folders do not say how large they are.

    Raises
    ------
    MemoryError, OSError
    """
    if os.path.isdir(path):
        return
    needed, free = files.header(path).nbytes, available_memory()
    if needed > free:
        raise MemoryError(
            f"{path}: {needed / 2**30:,.1f} GiB of voxels, but {free / 2**30:,.1f} GiB of memory are free; "
            "only zarr, and uncompressed .nii and .mha, are read part by part"
        )


def _of_zarr(path: files.PathLike, input_spacing: object) -> Source:
    zarr = library()
    found, attrs = group_or_array(path)
    if isinstance(found, zarr.Array):
        d = min(found.ndim, 3)
        spacing = (1.0,) * d if input_spacing is None else positive_numbers("input_spacing", input_spacing, d)
        return of_image(Volume(found, spacing))
    if input_spacing is not None:
        raise ValueError(f"input_spacing is for zarr arrays; {path} is a group, got {input_spacing!r}")
    try:
        name, multiscale = ngff.level_of(attrs)
        array = level(found, name)
        grid, lead = ngff.geometry(attrs, multiscale, array.shape)
        notes = ngff.notes_of(attrs, multiscale)
    except (ValueError, KeyError) as error:
        raise ValueError(f"{path}: {error}") from None
    dtype = np.dtype(array.dtype).newbyteorder("=")
    check_voxels(dtype, array.shape)
    return _in_space(Source(array, dtype, grid, lead, f"zarr {_known_by(array)}", None, notes))


def group_or_array(path: files.PathLike) -> tuple[Any, dict[str, Any]]:
    """A zarr group or array, opened for reading, and its attributes.

    Raises
    ------
    ValueError
        If its metadata are damaged.
    """
    try:
        found = library().open(str(Path(path).resolve()), mode="r")
        return found, found.attrs.asdict()
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be opened as zarr: {type(error).__name__}: {error}") from None


def level(group: Any, name: str) -> Any:
    """The array that a group has by this path.

    Raises
    ------
    ValueError
        If it has none.
    """
    try:
        array = group[name]
    except (KeyError, ValueError, TypeError, IndexError):
        array = None
    if not isinstance(array, library().Array):
        raise ValueError(f"has no array at {name!r}, which its attributes name as a level")
    return array


def library() -> Any:
    """Zarr, or what to do without."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise RuntimeError(f"OME-Zarr needs zarr, which is missing: {INSTALL}") from error
    return zarr
