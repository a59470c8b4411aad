"""What all containers ask of voxels: types and shapes that can be resampled, memory that an output fits."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

# Outputs up to this many bytes are made without asking the system what it has left.
ALWAYS_FITS = 1 << 26


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
