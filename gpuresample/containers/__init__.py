"""What goes in comes out: images of several kinds as arrays with geometry, and back.

A container tells an image's voxels as an array of shape (..., z, y, x) (a view, whatever the kind), its
`Grid`, and makes outputs of its own kind, where the input is. Geometry tuples follow the container: SimpleITK and
nibabel images and `Volume` say x, y, z; bare arrays say their axis order. No library is imported here that an
image's own kind has not imported already (CuPy for arrays on a GPU excepted).
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from gpuresample.checks import sizes
from gpuresample.containers.arrays import ArrayContainer as ArrayContainer
from gpuresample.containers.arrays import Volume as Volume
from gpuresample.containers.arrays import VolumeContainer as VolumeContainer
from gpuresample.containers.images import ImageContainer as ImageContainer
from gpuresample.containers.kinds import ARRAYS as ARRAYS
from gpuresample.containers.kinds import Held as Held
from gpuresample.containers.kinds import hold as hold
from gpuresample.containers.kinds import lazy_kind, shape_of
from gpuresample.containers.kinds import shares_memory as shares_memory
from gpuresample.containers.lazies import LazyContainer as LazyContainer
from gpuresample.containers.meta_tensors import MetaTensorContainer as MetaTensorContainer
from gpuresample.containers.meta_tensors import grid_of_meta
from gpuresample.containers.spatial_images import FLIP, grid_of_affine, grid_of_image
from gpuresample.containers.spatial_images import SpatialImageContainer as SpatialImageContainer
from gpuresample.containers.voxels import check_memory as check_memory
from gpuresample.containers.voxels import spatial as spatial
from gpuresample.planning.grid import Grid

Container = ArrayContainer | VolumeContainer | ImageContainer | SpatialImageContainer

IMAGES = "a SimpleITK.Image, a gpuresample.Volume, a nibabel image, a MONAI MetaTensor"


def unwrap(image: object, input_spacing: object = None, lazy: bool = False) -> Container:
    """The container of an image.

    Parameters
    ----------
    lazy : bool
        Whether the caller goes on with an array that is not in memory (`LazyContainer`).

    Raises
    ------
    TypeError
        For kinds of images we do not know, voxels that cannot be resampled, and lazy ones where they are of no use.
    ValueError
        For `input_spacing` with an image that has its own spacing.
    RuntimeError
        For arrays on a GPU that CuPy cannot reach.
    """
    container: Container
    library = lazy_kind(image.array if isinstance(image, Volume) else image)
    if library is not None and not lazy:
        raise TypeError(
            f"image must be in memory here, got a {library} array; "
            + ("compute() it first" if library == "dask" else "read it first (array[...])")
        )
    if library is not None and not isinstance(image, Volume):
        return LazyContainer(image, input_spacing)
    if isinstance(image, Volume):
        container = VolumeContainer(image) if library is None else LazyContainer(image)
    elif _is(image, "SimpleITK", "Image"):
        container = ImageContainer(image)
    elif _is(image, "nibabel.spatialimages", "SpatialImage"):
        container = SpatialImageContainer(image)
    elif is_meta_tensor(image):
        container = MetaTensorContainer(image)
    else:
        held = hold(image)
        if held is None:
            raise TypeError(f"image must be {IMAGES} or {ARRAYS}, got {type(image).__name__}")
        return ArrayContainer(held, input_spacing)
    if input_spacing is not None:
        raise ValueError(
            f"input_spacing is for bare arrays; this image has its own spacing {container.grid.spacing}, "
            f"got input_spacing={input_spacing!r}"
        )
    return container


def has_geometry(image: object) -> bool:
    """Whether an image knows where its voxels lie: a Volume or a library's image, not a bare array."""
    return (
        isinstance(image, Volume)
        or _is(image, "SimpleITK", "Image")
        or _is(image, "nibabel.spatialimages", "SpatialImage")
        or is_meta_tensor(image)
    )


def is_meta_tensor(image: object) -> bool:
    """Whether an image is one of MONAI's tensors with an affine."""
    return _is(image, "monai.data.meta_tensor", "MetaTensor")


def _is(image: object, module: str, name: str) -> bool:
    """Whether an image is of a class of a library, which is then loaded already."""
    library = sys.modules.get(module)
    # Another thread may be importing the library at this moment: then nothing of it is here yet.
    kind = getattr(library, name, None)
    return kind is not None and isinstance(image, kind)


def grid_of(like: object, dimension: int) -> Grid | tuple[int, ...]:
    """The grid of an image, `Volume`, `Grid` or nibabel's `(shape, affine)`; the shape of a bare array."""
    if isinstance(like, Grid):
        grid = like
    elif isinstance(like, Volume):
        grid = like.grid
    elif _is(like, "SimpleITK", "Image"):
        grid = ImageContainer(like).grid
    elif _is(like, "nibabel.spatialimages", "SpatialImage"):
        grid = grid_of_image(like, "like")
    elif is_meta_tensor(like):
        grid = grid_of_meta(like, "like")
    elif isinstance(like, tuple) and len(like) == 2 and np.shape(like[1]) == (4, 4):
        grid = grid_of_affine(FLIP @ np.asarray(like[1], np.float64), sizes("like", like[0], 3), "like")
    else:
        shape = shape_of(like)
        if shape is None:
            raise TypeError(f"like must be {IMAGES}, a gpuresample.Grid or {ARRAYS}, got {type(like).__name__}")
        return shape
    if grid.dimension != dimension:
        raise ValueError(f"like must have the image's {dimension} dimensions, got {grid.dimension}")
    return grid


def grid_like(container: Container | LazyContainer, like: object) -> Grid | tuple[int, ...]:
    """What `grid_of` says of `like`, a grid in the unit of length that the container's image has.

    NIfTI's headers have a unit (metre, mm, micron), and SimpleITK makes millimetres of it. Where one is not told,
    nothing is converted.
    """
    grid = grid_of(like, container.grid.dimension)
    own, other = _millimetres(getattr(container, "image", None)), _millimetres(like)
    if not isinstance(grid, Grid) or own is None or other is None or own == other:
        return grid
    spacing, origin = (tuple(v * other / own for v in values) for values in (grid.spacing, grid.origin))
    return Grid(grid.size, spacing, origin, grid.direction)


def _millimetres(image: object) -> float | None:
    """The length of an image's unit; None where it has none."""
    if _is(image, "SimpleITK", "Image"):
        return 1.0
    header: Any = getattr(image, "header", None)
    if not hasattr(header, "get_xyzt_units"):
        return None
    return {1: 1e3, 2: 1.0, 3: 1e-3}.get(int(header["xyzt_units"]) & 7)
