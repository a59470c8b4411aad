"""nibabel images as containers: arrays (x, y, z, ...) with an affine to RAS, here grids in LPS as SimpleITK's.

Voxels are what `numpy.asanyarray(image.dataobj)` says: the stored type, or float64 where the header scales it.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.caching import cached_property
from gpuresample.containers.kinds import check_unmasked
from gpuresample.containers.voxels import HostMemory, check_voxels, overlaps_itself
from gpuresample.planning.grid import Grid, agree

Array = npt.NDArray[Any]

# From RAS to LPS and back.
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
# Cosines between axes up to which an affine counts as free of shear: headers hold float32.
SHEAR = 1e-4


def grid_of_image(image: Any, name: str = "image") -> Grid:
    """The grid of a nibabel image, in LPS.

    Raises
    ------
    ValueError
        For images without three axes in space, without an affine, or with a sheared one.
    """
    shape = tuple(image.shape)
    if len(shape) < 3:
        raise ValueError(f"{name} must have at least the axes x, y, z, got shape {shape}")
    if image.affine is None:
        raise ValueError(f"{name} must have an affine; give it one, or pass its array with input_spacing")
    grid = grid_of_affine(FLIP @ np.asarray(image.affine, np.float64), shape[:3], name)
    _warn_of_forms(image, name)
    return grid


def grid_of_affine(affine: Array, size: tuple[int, ...], name: str) -> Grid:
    """The grid of an affine from voxels to points in LPS.

    Raises
    ------
    ValueError
        For affines without an inverse or with shear.
    """
    d = len(size)
    spacing = np.sqrt((affine[:d, :d] ** 2).sum(axis=0))
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise ValueError(f"{name} must have an affine with an inverse, got (in LPS) {affine.tolist()}")
    direction = affine[:d, :d] / spacing
    shear = np.abs(direction.T @ direction - np.eye(d)).max()
    if shear > SHEAR:
        raise ValueError(
            f"{name} must have an affine without shear, whose axes are at right angles; a cosine between two of them "
            f"is {shear:.3g}, got (in LPS) {affine.tolist()}"
        )
    return Grid(size, tuple(spacing.tolist()), tuple(affine[:d, d].tolist()), tuple(direction.ravel().tolist()))


def _warn_of_forms(image: Any, name: str) -> None:
    """Warn where a NIfTI header has two forms that put a corner of the volume to two places."""
    header = image.header
    if not hasattr(header, "get_qform"):
        return
    try:
        forms = [getattr(header, f"get_{form}")(coded=True)[0] for form in ("sform", "qform")]
    except ValueError:  # a quaternion that is none; the affine is the sform's
        return
    if any(form is None for form in forms) or not np.allclose(forms[0], image.affine, atol=1e-6, rtol=1e-6):
        return
    if not agree(forms[0], forms[1], image.shape):
        codes = " and ".join(str(int(header[key])) for key in ("sform_code", "qform_code"))
        warnings.warn(
            f"{name}: its sform and qform (codes {codes}) disagree; the sform is taken, as nibabel does; programs "
            "built on ITK, the command line among them, may take the qform",
            stacklevel=2,
        )


# NIfTI's codes of the order in which slices were taken, up and down.
_SLICES_TURNED = {1: 2, 2: 1, 3: 4, 4: 3, 5: 6, 6: 5}


def turn_scan(image: Any, made: Any, axes: tuple[int, ...], flipped: tuple[bool, ...]) -> None:
    """Let the header of an image made of another by flips and permutations say the same of the scanner's axes.

    `axes`: for every axis of `made` that of `image`; `flipped`: whether it runs backwards. NIfTI only.
    """
    old, header = image.header, made.header
    if not hasattr(header, "set_dim_info") or not hasattr(old, "get_dim_info"):
        return
    scan = old.get_dim_info()
    header.set_dim_info(*(None if axis is None else axes.index(axis) for axis in scan))
    if scan[2] is not None and flipped[axes.index(scan[2])]:
        last = image.shape[scan[2]] - 1
        code, first, end = (int(old[name]) for name in ("slice_code", "slice_start", "slice_end"))
        header["slice_code"] = _SLICES_TURNED.get(code, code)
        if end:
            header["slice_start"], header["slice_end"] = last - end, last - first


class SpatialImageContainer(HostMemory):
    """A nibabel image of 2 or more dimensions; its tuples are x, y, z, and further axes go along.

    One of 2 dimensions is a slice: nibabel gives it an affine in space, and its own resampling gives volumes, too.
    """

    kind = "nibabel"

    def __init__(self, image: Any) -> None:
        check_unmasked(image.dataobj, "image")
        if len(image.shape) == 2:
            image = type(image)(np.asarray(image.dataobj)[..., None], image.affine, image.header)
        self.image = image
        self.grid = grid_of_image(image)
        self.shape = tuple(image.shape)[::-1]

    @cached_property
    def array(self) -> Array:
        """The voxels, (..., z, y, x)."""
        array = np.asanyarray(self.image.dataobj)
        check_voxels(array.dtype, array.shape)
        return array.T

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Voxel type: the stored one, or float64 where the header scales; one voxel tells it."""
        one = np.asanyarray(self.image.dataobj[(slice(0, 1),) * len(self.shape)])
        check_voxels(one.dtype, self.shape)
        return one.dtype.newbyteorder("=")

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def output_shape(self, grid: Grid) -> tuple[int, ...]:
        """Shape of an output's voxels on `grid`."""
        return (*self.shape[:-3], *grid.size[::-1])

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """A new image of the same class on `grid`."""
        voxels = np.empty(self.output_shape(grid), dtype)
        affine = self._affine(grid)
        return type(self.image)(voxels.T, affine, self._header(voxels, affine)), voxels

    def blank(self, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Array]:
        """An image of the same class on a grid, its last axis the channels if there are any, and its voxels."""
        voxels = np.empty(((channels,) if channels else ()) + grid.size[::-1], dtype)
        affine = self._affine(grid)
        return type(self.image)(voxels.T, affine, self._header(voxels, affine)), voxels

    def adopt(self, out: Any, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """Write into the image given, whose array must be in memory, and give it the output's affine."""
        if not isinstance(out, type(self.image)):
            raise TypeError(f"out must be a {type(self.image).__name__} like the input, got {type(out).__name__}")
        if not isinstance(out.dataobj, np.ndarray):
            raise TypeError("out must have its array in memory, got an image that reads from a file")
        voxels, shape = out.dataobj.T, self.output_shape(grid)
        if voxels.shape != shape:
            raise ValueError(f"out must have shape {shape[::-1]}, got {out.shape}")
        if voxels.dtype != dtype:
            raise TypeError(f"out must have dtype {dtype}, got {voxels.dtype}")
        if not voxels.flags.writeable or not voxels.flags.aligned or not voxels.dtype.isnative:
            raise ValueError("out must be writable, aligned and in native byte order")
        if overlaps_itself(voxels):
            raise ValueError(f"out must have no two voxels in one place, got strides {voxels.strides[::-1]}")
        if np.may_share_memory(voxels, self.array):
            raise ValueError("out must not share memory with the input")
        out.affine[...] = self._affine(grid)
        out.update_header()
        return out, voxels

    def _affine(self, grid: Grid) -> Array:
        """The affine to RAS of a grid; the image's own, to the bit, for its own grid."""
        if grid == self.grid:
            return np.array(self.image.affine)
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = grid.index_to_point, grid.origin
        return FLIP @ affine

    def _header(self, voxels: Array, affine: Array) -> Any:
        """The image's header for other voxels and another affine; codes, units and zooms past space are kept."""
        header = self.image.header.copy()
        try:
            header.set_data_dtype(voxels.dtype)
        except Exception as error:  # each class of image has errors of its own
            raise TypeError(
                f"dtype must be a type that a {type(self.image).__name__} holds, got {voxels.dtype} ({error})"
            ) from None
        header.set_data_shape(voxels.shape[::-1])
        if hasattr(header, "set_sform"):
            # Else nibabel would call the new affine "aligned", whatever space the old one was in.
            sform, qform = int(header["sform_code"]), int(header["qform_code"])
            header.set_sform(affine, sform or 2)
            header.set_qform(affine, qform)
        return header
