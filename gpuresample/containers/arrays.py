"""Arrays with and without geometry as containers; any library's, see `kinds`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np

from gpuresample.checks import numbers, positive_numbers, shown
from gpuresample.containers.kinds import ARRAYS, Held, hold, lazy_kind
from gpuresample.containers.voxels import check_voxels
from gpuresample.memory import available_memory
from gpuresample.planning.grid import Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """An array with physical geometry.

    Attributes
    ----------
    array : array, shape (..., z, y, x), or (y, x) for a 2-D image
        The voxels, in host memory or on a GPU, or a dask or zarr array. Leading axes are channels or a batch.
    spacing : sequence of float, x, y(, z) order
        Distance between voxel centres, in physical units.
    origin : sequence of float, x, y(, z) order, optional
        Centre of the first voxel; zeros unless given.
    direction : sequence of float, optional
        Direction cosines, row by row; the identity unless given.

    Raises
    ------
    ValueError, TypeError
        For geometry that does not fit the array or is impossible.
    """

    array: Any
    spacing: Sequence[float]
    origin: Sequence[float] | None = None
    direction: Sequence[float] | None = None
    grid: Grid = field(init=False, repr=False)

    def __post_init__(self) -> None:
        lazy = lazy_kind(self.array) is not None
        held = None if lazy else hold(self.array, "array")
        if held is None and not lazy:
            raise TypeError(f"array must be {ARRAYS}, got {type(self.array).__name__}")
        voxels = self.array if held is None else held.voxels
        shape = tuple(voxels.shape)
        check_voxels(np.dtype(voxels.dtype), shape)
        d = min(len(shape), 3)
        spacing = positive_numbers("spacing", self.spacing, d)
        origin = numbers("origin", self.origin, d) if self.origin is not None else (0.0,) * d
        direction = tuple(np.eye(d).ravel().tolist())
        if self.direction is not None:
            try:
                direction = tuple(np.ravel(self.direction).tolist())
            except ValueError:  # rows of unlike length
                raise ValueError(f"direction must be {d * d} finite numbers, got {shown(self.direction)}") from None
        grid = Grid(shape[: -d - 1 : -1], spacing, origin, direction)
        for name in ("spacing", "origin", "direction"):
            object.__setattr__(self, name, getattr(grid, name))
        object.__setattr__(self, "grid", grid)

    @property
    def size(self) -> tuple[int, ...]:
        """Voxels along x, y(, z)."""
        return self.grid.size


# One for all arrays of a shape, since grids do not change.
_grid_of = lru_cache(maxsize=256)(Grid.of_size)


def volume_on(array: Any, grid: Grid) -> Volume:
    """A `Volume` of voxels that are known to fit a grid: nothing is checked again."""
    made: Volume = object.__new__(Volume)
    for name in ("spacing", "origin", "direction"):
        object.__setattr__(made, name, getattr(grid, name))
    object.__setattr__(made, "array", array)
    object.__setattr__(made, "grid", grid)
    return made


class ArrayContainer:
    """A bare array (..., z, y, x) or (y, x) of any library; its tuples are in axis order."""

    kind = "array"

    def __init__(self, held: Held, input_spacing: object = None) -> None:
        self._set(held.voxels.dtype, tuple(held.voxels.shape), input_spacing)
        self.held: Held | None = held

    @classmethod
    def of_shape(cls, shape: Sequence[int], input_spacing: object, dtype: np.dtype[Any]) -> ArrayContainer:
        """An array that is not there yet."""
        container = object.__new__(cls)
        container._set(dtype, tuple(shape), input_spacing)
        container.held = None
        return container

    def _set(self, dtype: np.dtype[Any], shape: tuple[int, ...], input_spacing: object) -> None:
        check_voxels(dtype, shape)
        d = min(len(shape), 3)
        spacing = (1.0,) * d if input_spacing is None else positive_numbers("input_spacing", input_spacing, d)[::-1]
        self.dtype, self.shape = np.dtype(dtype).newbyteorder("="), shape
        self.grid = _grid_of(tuple(shape[: -d - 1 : -1]), spacing)

    @property
    def array(self) -> Any:
        """The voxels, as an engine takes them; None where there are none yet."""
        return None if self.held is None else self.held.voxels

    @property
    def where(self) -> str:
        """Where the voxels are: "cpu" or "cuda:N"."""
        return "cpu" if self.held is None else self.held.where

    def free(self) -> int:
        """Bytes that an output can still have."""
        return available_memory() if self.held is None else self.held.free()

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values in x, y, z order from this container's order, and back."""
        return values[::-1]

    def output_shape(self, grid: Grid) -> tuple[int, ...]:
        """Shape of an output on `grid`."""
        return (*self.shape[: -grid.dimension], *grid.size[::-1])

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """An output on `grid`: the container itself, and its voxels to write to."""
        assert self.held is not None
        return self.held.new(self.output_shape(grid), dtype)

    def blank(self, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Any]:
        """An array of this kind on a grid, with a leading axis of channels or none, and its voxels to write to."""
        assert self.held is not None
        return self.held.new(((channels,) if channels else ()) + grid.size[::-1], dtype)

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """Use `out` as the output; refuse it unless it fits."""
        assert self.held is not None
        return out, self.held.adopt(out, self.output_shape(grid), dtype)

    def written(self, voxels: Any) -> None:
        """Whatever is due once kernels that write an output's voxels were launched."""
        assert self.held is not None
        self.held.written(voxels)


class VolumeContainer(ArrayContainer):
    """A `Volume`; its tuples are x, y, z."""

    kind = "volume"

    def __init__(self, volume: Volume) -> None:
        held = hold(volume.array, "array")
        assert held is not None  # as Volume has checked
        self.held = held
        self.dtype, self.shape = np.dtype(held.voxels.dtype).newbyteorder("="), tuple(held.voxels.shape)
        self.grid = volume.grid

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """x, y, z already."""
        return values

    def new(self, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """A volume on `grid`."""
        array, voxels = super().new(grid, dtype)
        return volume_on(array, grid), voxels

    def blank(self, grid: Grid, dtype: np.dtype[Any], channels: int = 0) -> tuple[Any, Any]:
        """A volume on a grid, see `ArrayContainer.blank`."""
        array, voxels = super().blank(grid, dtype, channels)
        return volume_on(array, grid), voxels

    def adopt(self, out: object, grid: Grid, dtype: np.dtype[Any]) -> tuple[Any, Any]:
        """A volume around the array given, or around the array of the volume given."""
        array, voxels = super().adopt(out.array if isinstance(out, Volume) else out, grid, dtype)
        return volume_on(array, grid), voxels
