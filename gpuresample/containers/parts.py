"""A part of an image, in its kind; of what lies in a file or in chunks no more is read."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpuresample.containers import (
    Container,
    LazyContainer,
    MetaTensorContainer,
    SpatialImageContainer,
    Volume,
    unwrap,
)
from gpuresample.containers.arrays import volume_on
from gpuresample.planning.grid import Grid


def part(image: Any, container: Container, region: tuple[slice, ...], grid: Grid) -> Container:
    """The container of a part of an image.

    Arrays and memory maps give a view, nibabel images what their file has there; dask and zarr arrays are computed or
    read, and lie in memory then.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
    container : Container
        The image's own.
    region : slices of the spatial axes, in array order, step 1
    grid : Grid
        The image's grid there.

    Raises
    ------
    TypeError
        For a MetaTensor.
    """
    if isinstance(container, LazyContainer):
        voxels = container.source[(..., *region)]
        voxels = np.asarray(voxels.compute() if container.library == "dask" else voxels)
        return unwrap(container.wrapped(voxels, grid))
    if isinstance(container, MetaTensorContainer):
        raise TypeError("region is not for a MetaTensor, got one; pass its as_tensor(), or a gpuresample.Volume")
    if isinstance(image, Volume):
        return unwrap(volume_on(image.array[(..., *region)], grid))
    if container.kind == "array":
        return unwrap(image[(..., *region)])
    forward = region[::-1]
    if isinstance(container, SpatialImageContainer):
        return unwrap(container.image.slicer[forward])
    return unwrap(image[(*forward, *[slice(None)] * (image.GetDimension() - len(forward)))])
