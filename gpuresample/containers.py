"""What goes in comes out: images of several kinds as arrays with geometry, and back.

A container tells an image's voxels as an array of shape (..., z, y, x) (a view, whatever the kind), its
`Grid`, and makes outputs of its own kind. Geometry tuples follow the container: SimpleITK images and `Volume`
say x, y, z; bare arrays say their axis order.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import numbers, positive_numbers
from gpuresample.engines.flat import writable_alias
from gpuresample.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

Array = npt.NDArray[Any]

# Outputs up to this many bytes are made without asking the system what it has left.
ALWAYS_FITS = 1 << 26


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with physical geometry.

    Attributes
    ----------
    array : ndarray, shape (..., z, y, x), or (y, x) for a 2-D image
        Voxels; leading axes are channels or a batch.
    spacing : sequence of float, x, y(, z) order
        Distance between voxel centres, in physical units.
    origin : sequence of float, x, y(, z) order, optional
        Centre of the first voxel; zeros unless given.
    direction : sequence of float, optional
        Direction cosines, row by row; the identity unless given.

    Raises
    ------
    ValueError, TypeError
        For geometry that does not fit the array or makes no sense.
    """

    array: Array
    spacing: Sequence[float]
    origin: Sequence[float] | None = None
    direction: Sequence[float] | None = None
    grid: Grid = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.array, np.ndarray):
            raise TypeError(f"array must be a numpy.ndarray, got {type(self.array).__name__}")
        d = min(self.array.ndim, 3)
        check_voxels(self.array.dtype, self.array.shape)
        spacing = positive_numbers("spacing", self.spacing, d)
        origin = numbers("origin", self.origin, d) if self.origin is not None else (0.0,) * d
        direction = (
            tuple(np.ravel(self.direction).tolist())
            if self.direction is not None
            else tuple(np.eye(d).ravel().tolist())
        )
        grid = Grid(self.array.shape[: -d - 1 : -1], spacing, origin, direction)
        for name in ("spacing", "origin", "direction"):
            object.__setattr__(self, name, getattr(grid, name))
        object.__setattr__(self, "grid", grid)

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y(, z)."""
        return self.grid.size


def check_voxels(dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    """Refuse voxel types and shapes that cannot be resampled."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        hint = "; resample image.real and image.imag separately" if dtype.kind == "c" else ""
        raise TypeError(f"image must have integer, float or bool voxels of up to 64 bits, got {dtype}{hint}")
    if len(shape) < 2:
        raise ValueError(f"image must have at least 2 axes (y, x), got shape {tuple(shape)}")
    if 0 in shape:
        raise ValueError(f"image must not be empty, got shape {tuple(shape)}")


def spatial(array: Array, dimension: int) -> Array:
    """A view with three spatial axes at the end: 2-D images get a z of one voxel."""
    return array[..., None, :, :] if dimension == 2 else array


class ArrayContainer:
    """A bare NumPy array (..., z, y, x) or (y, x); its tuples are in axis order."""

    kind = "array"

    def __init__(self, array: Array, input_spacing: object = None) -> None:
        self._set(array.dtype, array.shape, input_spacing)
        self.array: Array | None = array

    @classmethod
    def of_shape(cls, shape: Sequence[int], input_spacing: object, dtype: np.dtype[Any]) -> ArrayContainer:
        """An array that is not there yet."""
        container = object.__new__(cls)
        container._set(dtype, tuple(shape), input_spacing)
        container.array = None
        return container

    def _set(self, dtype: np.dtype[Any], shape: tuple[int, ...], input_spacing: object) -> None:
        check_voxels(dtype, shape)
        d = min(len(shape), 3)
        spacing = (1.0,) * d if input_spacing is None else positive_numbers("input_spacing", input_spacing, d)[::-1]
        self.dtype, self.shape = dtype.newbyteorder("="), shape
        self.grid = Grid.of_size(tuple(shape[: -d - 1 : -1]), spacing)

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values in x, y, z order from this container's order, and back."""
        return values[::-1]

    def output_shape(self, grid: Grid) -> tuple[int, ...]:
        """Shape of an output on `grid`."""
        return (*self.shape[: -grid.dimension], *grid.size[::-1])

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """An output on `grid`: the container itself, and its voxels to write to."""
        array = np.empty(self.output_shape(grid), dtype)
        return array, array

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """Use `out` as the output; refuse it unless it fits."""
        array = checked_out(out, self.output_shape(grid), dtype, self.array)
        return out, array


class VolumeContainer(ArrayContainer):
    """A `Volume`; its tuples are x, y, z."""

    kind = "volume"

    def __init__(self, volume: Volume) -> None:
        self.array = volume.array
        self.dtype, self.shape = volume.array.dtype.newbyteorder("="), volume.array.shape
        self.grid = volume.grid

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """A volume on `grid`."""
        array = np.empty(self.output_shape(grid), dtype)
        return Volume(array, grid.spacing, grid.origin, grid.direction), array

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """A volume around the array given, or around the array of the volume given."""
        array = out.array if isinstance(out, Volume) else out
        array = checked_out(array, self.output_shape(grid), dtype, self.array)
        return Volume(array, grid.spacing, grid.origin, grid.direction), array


class ImageContainer:
    """A SimpleITK image of 2, 3 or (voxel-wise along the fourth axis) 4 dimensions, scalar or vector."""

    kind = "image"

    def __init__(self, image: SimpleITK.Image) -> None:
        import SimpleITK as sitk

        pixel = image.GetPixelIDTypeAsString()
        if "complex" in pixel or pixel.startswith("label of"):
            hint = "sitk.ComplexToReal and ComplexToImaginary" if "complex" in pixel else "sitk.LabelMapToLabel"
            raise TypeError(f"image must have integer or float voxels, scalar or vector, got {pixel}; use {hint} first")
        d = image.GetDimension()
        if d not in (2, 3, 4):
            raise ValueError(f"image must have 2, 3 or 4 dimensions, got {d}")
        self.image = image
        self.components = image.GetNumberOfComponentsPerPixel() if "vector" in pixel else 0
        array = sitk.GetArrayViewFromImage(image)
        check_voxels(array.dtype, array.shape)
        self.array: Array | None = np.moveaxis(array, -1, 0) if self.components else array
        self.dtype, self.shape = array.dtype, self.array.shape
        spacing, origin = image.GetSpacing(), image.GetOrigin()
        direction = np.reshape(image.GetDirection(), (d, d))
        if d == 4:
            if np.abs(direction[3, :3]).max() > 0 or np.abs(direction[:3, 3]).max() > 0:
                raise ValueError(f"image must not mix its fourth axis with space, got direction {image.GetDirection()}")
            direction = direction[:3, :3]
        n = min(d, 3)
        self.grid = Grid(image.GetSize()[:n], spacing[:n], origin[:n], tuple(direction.ravel().tolist()))

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def output_shape(self, grid: Grid) -> tuple[int, ...]:
        """Shape of an output's voxels on `grid`, components first."""
        return (*self.shape[: -grid.dimension], *grid.size[::-1])

    def _sitk_geometry(self, grid: Grid) -> tuple[list[int], list[float], list[float], list[float]]:
        """Size, spacing, origin, direction with the fourth axis, if any, as it was."""
        size, spacing, origin = list(grid.size), list(grid.spacing), list(grid.origin)
        direction = np.reshape(grid.direction, (grid.dimension,) * 2)
        if self.image.GetDimension() == 4:
            size.append(self.image.GetSize()[3])
            spacing.append(self.image.GetSpacing()[3])
            origin.append(self.image.GetOrigin()[3])
            whole = np.reshape(self.image.GetDirection(), (4, 4)).copy()
            whole[:3, :3] = direction
            direction = whole
        return size, spacing, origin, direction.ravel().tolist()

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """A fresh image on `grid`, whose own memory is written to."""
        import SimpleITK as sitk

        size, spacing, origin, direction = self._sitk_geometry(grid)
        image = sitk.Image(size, _pixel_id(dtype, self.components > 0), self.components)
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        return image, self._writable(image)

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """Write into the image given, and give it the output's geometry."""
        import SimpleITK as sitk

        if not isinstance(out, sitk.Image):
            raise TypeError(f"out must be a SimpleITK.Image like the input, got {type(out).__name__}")
        size, spacing, origin, direction = self._sitk_geometry(grid)
        if out is self.image:
            raise ValueError("out must not share memory with the input")
        if list(out.GetSize()) != size:
            raise ValueError(f"out must have size {tuple(size)}, got {out.GetSize()}")
        wanted = sitk.GetPixelIDValueAsString(_pixel_id(dtype, self.components > 0))
        if out.GetPixelIDTypeAsString() != wanted or (
            self.components and out.GetNumberOfComponentsPerPixel() != self.components
        ):
            raise TypeError(f"out must have pixel type {wanted}, got {out.GetPixelIDTypeAsString()}")
        out.SetSpacing(spacing)
        out.SetOrigin(origin)
        out.SetDirection(direction)
        # SimpleITK copies lazily; the setters above made this image the only owner of its memory.
        return out, self._writable(out)

    def _writable(self, image: SimpleITK.Image) -> Array:
        import SimpleITK as sitk

        array = writable_alias(sitk.GetArrayViewFromImage(image), keep=image)
        return np.moveaxis(array, -1, 0) if self.components else array


Container = ArrayContainer | VolumeContainer | ImageContainer


def unwrap(image: object, input_spacing: object = None) -> Container:
    """The container of an image.

    Raises
    ------
    TypeError
        For kinds of images we do not know, and voxels that cannot be resampled.
    ValueError
        For `input_spacing` with an image that has its own spacing.
    """
    container: Container
    if isinstance(image, np.ma.MaskedArray):
        raise TypeError("image must not be a masked array, whose mask would be lost; fill it first (image.filled())")
    if isinstance(image, np.ndarray):
        return ArrayContainer(image, input_spacing)
    sitk = sys.modules.get("SimpleITK")
    if isinstance(image, Volume):
        container = VolumeContainer(image)
    elif sitk is not None and isinstance(image, sitk.Image):
        container = ImageContainer(image)
    else:
        raise TypeError(
            f"image must be a SimpleITK.Image, a gpuresample.Volume or a numpy.ndarray, got {type(image).__name__}"
        )
    if input_spacing is not None:
        raise ValueError(
            f"input_spacing is for bare arrays; this image has its own spacing {container.grid.spacing}, "
            f"got input_spacing={input_spacing!r}"
        )
    return container


def grid_of(like: object, dimension: int) -> Grid | None:
    """The grid of an image, `Volume` or `Grid`; None for a bare array, which has only a size."""
    if isinstance(like, np.ndarray):
        return None
    if isinstance(like, Grid):
        grid = like
    elif isinstance(like, Volume) or (
        (sitk := sys.modules.get("SimpleITK")) is not None and isinstance(like, sitk.Image)
    ):
        grid = unwrap(like).grid
    else:
        raise TypeError(
            "like must be a SimpleITK.Image, a gpuresample.Volume, a gpuresample.Grid or a numpy.ndarray, "
            f"got {type(like).__name__}"
        )
    if grid.dimension != dimension:
        raise ValueError(f"like must have the image's {dimension} dimensions, got {grid.dimension}")
    return grid


def checked_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any], source: Array | None) -> Array:
    """`out` if the result can be written to it."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    if out.dtype != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise ValueError("out must be writable, got a read-only array")
    if not out.dtype.isnative or not out.flags.aligned or any(s % out.itemsize for s in out.strides):
        raise ValueError("out must be in native byte order, aligned and strided by whole voxels")
    if source is not None and np.may_share_memory(out, source):
        raise ValueError("out must not share memory with the input")
    return out


def available_memory() -> int:
    """Bytes of memory that can still be had."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def check_memory(shape: Sequence[int], dtype: np.dtype[Any], what: str) -> None:
    """Refuse an output that cannot fit memory.

    Raises
    ------
    ValueError
        With what it would need and what there is.
    """
    needed = math.prod(shape) * dtype.itemsize
    if needed <= ALWAYS_FITS:
        return
    free = available_memory()
    if needed > free:
        raise ValueError(
            f"{what} asks for an output of shape {tuple(shape)}, {dtype}: {needed / 2**30:,.1f} GiB, "
            f"but {free / 2**30:,.1f} GiB of memory are free"
        )


def _pixel_id(dtype: np.dtype[Any], vector: bool) -> int:
    import SimpleITK as sitk

    names = {
        "uint8": "UInt8", "int8": "Int8", "uint16": "UInt16", "int16": "Int16", "uint32": "UInt32",
        "int32": "Int32", "uint64": "UInt64", "int64": "Int64", "float32": "Float32", "float64": "Float64",
    }  # fmt: skip
    if dtype.name not in names:
        raise TypeError(f"dtype must be a type that SimpleITK images have ({', '.join(names)}), got {dtype}")
    pixel: int = getattr(sitk, f"sitk{'Vector' if vector else ''}{names[dtype.name]}")
    return pixel


def blank(kind: str, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Array]:
    """A new image of a kind on a grid, and its voxels to write to, (channels,) (z,) y, x, their values undefined."""
    if kind == "image":
        import SimpleITK as sitk

        image = sitk.Image(grid.size, _pixel_id(dtype, channels > 0), channels)
        image.SetSpacing(grid.spacing)
        image.SetOrigin(grid.origin)
        image.SetDirection(grid.direction)
        voxels = writable_alias(sitk.GetArrayViewFromImage(image), keep=image)
        return image, np.moveaxis(voxels, -1, 0) if channels else voxels
    array = np.empty(((channels,) if channels else ()) + grid.size[::-1], dtype)
    return array if kind == "array" else Volume(array, grid.spacing, grid.origin, grid.direction), array
