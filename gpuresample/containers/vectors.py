"""Displacements and coefficients in images of several kinds: components last, geometry if they have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.containers import IMAGES, grid_of, has_geometry, unwrap
from gpuresample.containers.arrays import Volume
from gpuresample.containers.kinds import ARRAYS, check_unmasked, hold
from gpuresample.planning.grid import Grid
from gpuresample.planning.transforms import sitk_grid, sitk_view

Array = npt.NDArray[Any]

# NIfTI's intents of vectors: as ITK writes warps (LPS), and displacements, which ITK takes for RAS.
VECTOR, DISPLACEMENT = 1007, 1006


def vectors_of(name: str, given: Any) -> tuple[Array, Grid | None]:
    """Vectors as an array (..., z, y, x, component), and their grid where they come with one.

    Nothing is copied but vectors that are neither float32 nor float64, or not in native byte order (they become
    float64), and NIfTI displacements, whose signs are RAS's.

    Parameters
    ----------
    name : str
        What messages call them.
    given : array, SimpleITK.Image, Volume or nibabel image
        Arrays have their components last, a `Volume` as its first axis, a nibabel image as its last.

    Raises
    ------
    TypeError, ValueError
        For other kinds, voxels that are not real numbers, arrays that are not in host memory, missing components.
    """
    vectors: Array
    grid: Grid | None
    if isinstance(given, Volume):
        array: Any
        array, grid = unwrap(given).array, given.grid
        if array.ndim < 3 or array.shape[0] != grid.dimension or array.ndim != grid.dimension + 1:
            raise ValueError(
                f"{name} in a Volume must have shape (component, (z,) y, x) with as many components as axes, "
                f"got {array.shape}"
            )
        vectors = np.moveaxis(array, 0, -1)
    elif not has_geometry(given):
        held = hold(given, name)
        if held is None:
            raise TypeError(f"{name} must be {ARRAYS} or {IMAGES}, got {type(given).__name__}")
        if held.where != "cpu":
            raise TypeError(f"{name} must be in host memory, got an array on {held.where}")
        vectors, grid = held.voxels, None
    elif hasattr(given, "dataobj"):
        vectors, grid = _nibabel(name, given)
    else:
        if given.GetNumberOfComponentsPerPixel() != given.GetDimension():
            raise ValueError(
                f"{name} must have {given.GetDimension()} components, as many as axes, got a SimpleITK.Image with "
                f"{given.GetNumberOfComponentsPerPixel()}"
            )
        vectors, grid = sitk_view(given), sitk_grid(given)
    if vectors.dtype.kind not in "iuf" or vectors.dtype.itemsize > 8:
        raise TypeError(f"{name} must be real numbers of up to 64 bits, got {vectors.dtype}")
    if vectors.dtype not in (np.float32, np.float64) or not vectors.dtype.isnative:
        vectors = vectors.astype(np.float64)
    if 0 in vectors.shape:
        raise ValueError(f"{name} must not be empty, got shape {vectors.shape}")
    return vectors, grid


def _nibabel(name: str, image: Any) -> tuple[Array, Grid]:
    """Vectors of a NIfTI image: LPS as stored, or RAS, as its intent says."""
    shape = tuple(image.shape)
    if shape[3:] not in ((3,), (1, 3)):
        raise ValueError(f"{name} in a nibabel image must have shape (x, y, z, 3) or (x, y, z, 1, 3), got {shape}")
    grid = grid_of(image, 3)
    assert isinstance(grid, Grid)
    header = image.header
    intent = int(header["intent_code"]) if hasattr(header, "get_intent") else None
    if intent not in (VECTOR, DISPLACEMENT):
        raise ValueError(
            f"{name} in a nibabel image must say by the header's intent whether they are LPS ({VECTOR}, 'vector', as "
            f"ITK and ANTs write warps) or RAS ({DISPLACEMENT}, 'displacement vector'), got intent {intent}"
        )
    check_unmasked(image.dataobj, name)
    array = np.asanyarray(image.dataobj)
    vectors = np.moveaxis((array if array.ndim == 4 else array[..., 0, :]).T, 0, -1)
    if intent == DISPLACEMENT:
        vectors = vectors * np.array([-1, -1, 1], vectors.dtype if vectors.dtype.kind == "f" else np.float64)
    return vectors, grid
