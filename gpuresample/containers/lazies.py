"""Arrays that are computed or read block by block, of dask or zarr, as containers: nothing of them is in memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gpuresample.checks import positive_numbers
from gpuresample.containers.arrays import ArrayContainer, Volume, volume_on
from gpuresample.containers.kinds import check_unmasked, lazy_kind
from gpuresample.containers.voxels import check_voxels
from gpuresample.planning.grid import Grid


class LazyContainer(ArrayContainer):
    """A dask or zarr array (..., z, y, x) or (y, x), bare or in a `Volume`.

    Attributes
    ----------
    source : dask.array.Array or zarr.Array
    chunks : tuple of tuple of int
        Lengths of the source's chunks along every axis.
    library : str
        "dask" or "zarr".
    """

    def __init__(self, image: Any, input_spacing: object = None) -> None:
        volume = image if isinstance(image, Volume) else None
        self.source = image if volume is None else volume.array
        self.library = lazy_kind(self.source) or ""
        dtype, shape = np.dtype(self.source.dtype), tuple(self.source.shape)
        check_voxels(dtype, shape)
        self.held = None
        self.dtype, self.shape = dtype.newbyteorder("="), shape
        self.chunks = _chunks(self.source, self.library)
        self.kind = "array" if volume is None else "volume"
        d = min(len(shape), 3)
        if volume is not None:
            self.grid = volume.grid
        else:
            spacing = (1.0,) * d if input_spacing is None else positive_numbers("input_spacing", input_spacing, d)[::-1]
            self.grid = Grid.of_size(tuple(shape[: -d - 1 : -1]), spacing)

    def free(self) -> int:
        """No bound: outputs are not made at once."""
        return sys.maxsize

    def order(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Values in x, y, z order from this container's order, and back."""
        return values if self.kind == "volume" else values[::-1]

    def wrapped(self, array: Any, grid: Grid) -> Any:
        """An output's array as an image of this kind."""
        return volume_on(array, grid) if self.kind == "volume" else array


def _chunks(source: Any, library: str) -> tuple[tuple[int, ...], ...]:
    if library == "zarr":
        pairs = zip(source.shape, source.chunks, strict=True)
        return tuple(tuple(min(c, n - at) for at in range(0, n, c)) for n, c in pairs)
    if any(np.isnan(c) for axis in source.chunks for c in axis):
        raise ValueError(
            f"image must have chunks of known size, got {source.chunks}; compute_chunk_sizes() finds them out"
        )
    if not isinstance(source._meta, np.ndarray):
        raise TypeError(f"image must be a dask array of NumPy arrays, got one of {type(source._meta).__name__}")
    check_unmasked(source._meta, "image")
    return tuple(tuple(int(c) for c in axis) for axis in source.chunks)
