"""SimpleITK images as containers."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.containers.voxels import HostMemory, check_voxels
from gpuresample.engines.cpu.memory import writable_alias
from gpuresample.planning.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

Array = npt.NDArray[Any]


class ImageContainer(HostMemory):
    """A SimpleITK image of 2, 3 or (voxel-wise along the fourth axis) 4 dimensions, scalar or vector."""

    kind = "image"

    def __init__(self, image: SimpleITK.Image) -> None:
        pixel = image.GetPixelIDTypeAsString()
        if "complex" in pixel or pixel.startswith("label of"):
            hint = "sitk.ComplexToReal and ComplexToImaginary" if "complex" in pixel else "sitk.LabelMapToLabel"
            raise TypeError(f"image must have integer or float voxels, scalar or vector, got {pixel}; use {hint} first")
        d = image.GetDimension()
        if d not in (2, 3, 4):
            raise ValueError(f"image must have 2, 3 or 4 dimensions, got {d}")
        self.image = image
        self.components = image.GetNumberOfComponentsPerPixel() if "vector" in pixel else 0
        array = _view(image)
        check_voxels(array.dtype, array.shape)
        self.array: Array | None = np.moveaxis(array, -1, 0) if self.components else array
        self.dtype, self.shape = array.dtype, self.array.shape
        spacing, origin, direction = image.GetSpacing(), image.GetOrigin(), image.GetDirection()
        if d == 4:
            if any(direction[12:15]) or any(direction[3:15:4]):
                raise ValueError(f"image must not mix its fourth axis with space, got direction {direction}")
            direction = *direction[:3], *direction[4:7], *direction[8:11]
        n = min(d, 3)
        numbers = *spacing[:n], *origin[:n], *direction
        self.grid = _grid_of(image.GetSize()[:n], struct.pack(f"{len(numbers)}d", *numbers))

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def output_shape(self, grid: Grid) -> tuple[int, ...]:
        """Shape of an output's voxels on `grid`, components first."""
        return (*self.shape[: -grid.dimension], *grid.size[::-1])

    def _sitk_geometry(self, grid: Grid) -> tuple[Sequence[int], Sequence[float], Sequence[float], Sequence[float]]:
        """Size, spacing, origin, direction with the fourth axis, if any, as it was."""
        if self.image.GetDimension() != 4:
            return grid.size, grid.spacing, grid.origin, grid.direction
        own = self.image.GetSize(), self.image.GetSpacing(), self.image.GetOrigin()
        direction = np.reshape(self.image.GetDirection(), (4, 4)).copy()
        direction[:3, :3] = np.reshape(grid.direction, (3, 3))
        size, spacing, origin = (
            [*new, old[3]] for new, old in zip((grid.size, grid.spacing, grid.origin), own, strict=True)
        )
        return size, spacing, origin, direction.ravel().tolist()

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """A fresh image on `grid`, whose own memory is written to."""
        import SimpleITK as sitk

        size, spacing, origin, direction = self._sitk_geometry(grid)
        image = sitk.Image(size, _pixel_id(dtype, self.components > 0), self.components)
        _set_geometry(image, spacing, origin, direction)
        return image, _writable(image, self.components)

    def blank(self, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Array]:
        """An image on a grid, its components the channels if there are any, and its voxels to write to."""
        import SimpleITK as sitk

        image = sitk.Image(grid.size, _pixel_id(dtype, channels > 0), channels)
        _set_geometry(image, grid.spacing, grid.origin, grid.direction)
        return image, _writable(image, channels)

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Array]:
        """Write into the image given, and give it the output's geometry."""
        import SimpleITK as sitk

        if not isinstance(out, sitk.Image):
            raise TypeError(f"out must be a SimpleITK.Image like the input, got {type(out).__name__}")
        size, spacing, origin, direction = self._sitk_geometry(grid)
        if out is self.image:
            raise ValueError("out must not share memory with the input")
        if out.GetSize() != tuple(size):
            raise ValueError(f"out must have size {tuple(size)}, got {out.GetSize()}")
        wanted = sitk.GetPixelIDValueAsString(_pixel_id(dtype, self.components > 0))
        if out.GetPixelIDTypeAsString() != wanted or (
            self.components and out.GetNumberOfComponentsPerPixel() != self.components
        ):
            raise TypeError(f"out must have pixel type {wanted}, got {out.GetPixelIDTypeAsString()}")
        # SimpleITK copies lazily; setting its geometry makes this image the only owner of its memory.
        _set_geometry(out, spacing, origin, direction)
        return out, _writable(out, self.components)


@lru_cache(maxsize=256)
def _grid_of(size: tuple[int, ...], bits: bytes) -> Grid:
    """One grid for all images that lie alike, to the last bit (see `Grid.bits`)."""
    d, numbers = len(size), struct.unpack(f"{len(bits) // 8}d", bits)
    return Grid(size, numbers[:d], numbers[d : 2 * d], numbers[2 * d :])


def _set_geometry(
    image: SimpleITK.Image, spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> None:
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(direction)


# Types of voxels, by what SimpleITK calls them.
_types: dict[int, np.dtype[Any]] = {}


def _view(image: SimpleITK.Image) -> Array:
    """`SimpleITK.GetArrayViewFromImage`, without the table of all types that it makes at each call."""
    import SimpleITK as sitk

    pixel = image.GetPixelIDValue()
    memory = getattr(sitk.extra, "_GetMemoryViewFromImage", None)
    if pixel not in _types or memory is None:
        array: Array = sitk.GetArrayViewFromImage(image)
        _types[pixel] = array.dtype
        return array
    image.MakeUnique()
    shape, components = image.GetSize(), image.GetNumberOfComponentsPerPixel()
    if components > 1:
        shape = components, *shape
    return np.asarray(memory(image)).view(_types[pixel]).reshape(shape[::-1])


def _writable(image: SimpleITK.Image, components: int) -> Array:
    """An image's voxels to write to, components first."""
    array = writable_alias(_view(image), keep=image)
    return np.moveaxis(array, -1, 0) if components else array


@lru_cache(maxsize=64)
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
