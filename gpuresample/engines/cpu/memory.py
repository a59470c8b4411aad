"""Strided memory as kernels want it: one flat array, offsets of its volumes, strides in elements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt


class Flat:
    """An array of shape (..., z, y, x), seen as flat memory.

    Attributes
    ----------
    memory : ndarray, one-dimensional
        All elements between the array's lowest and highest address.
    offsets : list of int
        Position in `memory` of the first voxel of every volume of the batch, in C order.
    strides : three int
        Elements from a voxel to the next along z, y, x; may be negative.

    Raises
    ------
    ValueError
        Where memory cannot be addressed by whole native elements.
    """

    def __init__(self, array: npt.NDArray[Any]) -> None:
        item = array.itemsize
        flags = array.flags
        if flags.c_contiguous and flags.aligned and array.dtype.isnative:  # without gaps: nothing to work out
            *lead, n_z, n_y, n_x = array.shape
            if flags.writeable:
                self.memory = np.asarray(array).reshape(-1)
            else:
                # Writable to Numba even where the source is not: one compiled kernel serves both.
                self.memory = _alias(array.__array_interface__["data"][0], (array.size,), array.dtype, keep=array)
            self.strides = n_y * n_x, n_x, 1
            self.offsets = [k * n_z * n_y * n_x for k in range(math.prod(lead))]
            return
        if not array.dtype.isnative or not array.flags.aligned or any(s % item for s in array.strides):
            raise ValueError("array must be native, aligned and strided by whole elements")
        strides = [s // item for s in array.strides]
        turned = array.transpose(sorted(range(array.ndim), key=lambda k: -strides[k]))
        if turned.flags.carray:  # the same with its axes in another order
            self.memory, self.strides = np.asarray(turned).reshape(-1), (strides[-3], strides[-2], strides[-1])
            self.offsets = _starts(array.shape[:-3], strides, 0)
            return
        reach = [s * (n - 1) for s, n in zip(strides, array.shape, strict=True)]
        low, high = sum(r for r in reach if r < 0), sum(r for r in reach if r > 0)
        address = array.__array_interface__["data"][0] + low * item
        self.memory = _alias(address, (high - low + 1,), array.dtype, keep=array)
        self.strides = (strides[-3], strides[-2], strides[-1])
        self.offsets = _starts(array.shape[:-3], strides, -low)


def _starts(lead: Sequence[int], strides: Sequence[int], first: int) -> list[int]:
    """Where the volumes of a batch begin, in C order."""
    offsets = [first]
    for n, stride in zip(lead, strides, strict=False):
        offsets = [at + k * stride for at in offsets for k in range(n)]
    return offsets


class _Memory:
    def __init__(self, keep: object, interface: dict[str, Any]) -> None:
        self.keep = keep
        self.__array_interface__ = interface


def _alias(address: int, shape: tuple[int, ...], dtype: np.dtype[Any], keep: object) -> npt.NDArray[Any]:
    """A writable, C-contiguous array over memory that `keep` owns."""
    interface = {"data": (address, False), "shape": shape, "typestr": dtype.str, "version": 3}
    return np.asarray(_Memory(keep, interface))


def writable_alias(array: npt.NDArray[Any], keep: object) -> npt.NDArray[Any]:
    """A C-contiguous array's memory as a writable array that holds on to its owner `keep`.

    For memory that is read-only by API, not by nature, such as the buffer of an image that was just made.
    """
    if not array.flags.c_contiguous:
        raise ValueError("array must be C-contiguous")
    return _alias(array.__array_interface__["data"][0], array.shape, array.dtype, keep)


def flatten(array: npt.NDArray[Any]) -> Flat:
    """`array` as `Flat`, copied first where its memory cannot be addressed by elements."""
    try:
        return Flat(array)
    except ValueError:
        return Flat(array.astype(array.dtype.newbyteorder("="), order="C", copy=True))


def span(flats: Sequence[Flat]) -> tuple[npt.NDArray[Any], list[int]]:
    """Arrays of one type as offsets into one flat memory, from the lowest address of all to the highest.

    So a kernel takes any number of arrays. What lies between them belongs to somebody else and is not to be touched.
    """
    addresses = [flat.memory.__array_interface__["data"][0] for flat in flats]
    low, item = min(addresses), flats[0].memory.itemsize
    high = max(at + flat.memory.nbytes for at, flat in zip(addresses, flats, strict=True))
    memory = _alias(low, ((high - low) // item,), flats[0].memory.dtype, keep=list(flats))
    return memory, [(at - low) // item + flat.offsets[0] for at, flat in zip(addresses, flats, strict=True)]
