"""What all containers ask of voxels: types and shapes that can be resampled, memory that an output fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpuresample.memory import ALWAYS_FITS, available_memory

# Elements of an output whose places are looked at one by one, where its strides leave open whether they overlap.
COUNTED = 1 << 22


def check_voxels(dtype: np.dtype[Any], shape: Sequence[int]) -> None:
    """Refuse voxel types and shapes that cannot be resampled."""
    if dtype.kind not in "biuf" or dtype.itemsize > 8:
        hint = "; resample image.real and image.imag separately" if dtype.kind == "c" else ""
        raise TypeError(f"image must have integer, float or bool voxels of up to 64 bits, got {dtype}{hint}")
    if len(shape) < 2:
        raise ValueError(f"image must have at least 2 axes (y, x), got shape {tuple(shape)}")
    if 0 in shape:
        raise ValueError(f"image must not be empty, got shape {tuple(shape)}")


def spatial(array: Any, dimension: int) -> Any:
    """A view with three spatial axes at the end: 2-D images get a z of one voxel."""
    return array[..., None, :, :] if dimension == 2 else array


def finite_range(array: Any) -> tuple[float, float, int]:
    """Smallest and largest finite value of an array in host memory, zeros if there is none; how many are not finite."""
    low, high = float(array.min()), float(array.max())
    if math.isfinite(low) and math.isfinite(high):
        return low, high, 0
    finite = np.isfinite(array)
    bad = int(array.size - np.count_nonzero(finite))
    if bad == array.size:
        return 0.0, 0.0, bad
    low = float(np.min(array, where=finite, initial=np.inf))
    return low, float(np.max(array, where=finite, initial=-np.inf)), bad


def overlaps_itself(array: Any) -> bool:
    """Whether two elements of an array share memory; where that would take too long to find out, yes."""
    return _overlap(array.shape, array.strides, int(array.itemsize))


@lru_cache(maxsize=256)
def _overlap(shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int) -> bool:
    axes = sorted((abs(s), n) for s, n in zip(strides, shape, strict=True) if n > 1)
    reach, apart = itemsize, True
    for stride, n in axes:
        apart &= stride >= reach
        reach += stride * (n - 1)
    size = math.prod(shape)
    if apart or size == 0:
        return False
    if (axes and axes[0][0] == 0) or size > COUNTED:
        return True
    # Axes may still interleave: every element's place is looked at.
    places = np.zeros(1, np.int64)
    for stride, n in axes:
        places = np.add.outer(places, stride * np.arange(n)).ravel()
    places.sort()
    return bool((np.diff(places) < itemsize).any())


class HostMemory:
    """A container whose voxels, and those of its outputs, lie in the host's memory."""

    where = "cpu"

    def free(self) -> int:
        """Bytes that an output can still have."""
        return available_memory()

    def written(self, voxels: Any) -> None:
        """Whatever is due once an output's voxels are there: nothing, here."""


def check_memory(container: Any, shape: Sequence[int], dtype: np.dtype[Any], what: str) -> None:
    """Refuse an output that cannot fit the container's memory.

    Raises
    ------
    ValueError
        With what it would need and what there is.
    """
    needed = math.prod(shape) * dtype.itemsize
    if needed <= ALWAYS_FITS:
        return
    free = container.free()
    if needed > free:
        raise ValueError(
            f"{what} asks for an output of shape {tuple(shape)}, {dtype}: {needed / 2**30:,.1f} GiB, "
            f"but {free / 2**30:,.1f} GiB of memory are free"
            + ("" if container.where == "cpu" else f" on {container.where}")
        )
