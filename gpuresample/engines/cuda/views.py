"""Strided memory as a CUDA launch wants it: an address, sizes and strides; no array library."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class View:
    """Part of an array on some device. Views are made by the dozen for every call: by no way but the quickest.

    Attributes
    ----------
    address : int
        Of the first element.
    dtype : numpy.dtype
    shape : tuple of int
    strides : tuple of int
        In elements; may be negative.
    keep : object
        Owner of the memory.
    """

    address: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    keep: Any = field(repr=False)

    @classmethod
    def of(cls, array: Any, address: int) -> View:
        """A whole array.

        Raises
        ------
        ValueError
            Where its memory cannot be addressed by whole native elements.
        """
        dtype = np.dtype(array.dtype)
        if not dtype.isnative or address % dtype.itemsize or any(s % dtype.itemsize for s in array.strides):
            raise ValueError("array must be native, aligned and strided by whole elements")
        return cls(address, dtype, tuple(array.shape), tuple(s // dtype.itemsize for s in array.strides), array)

    @property
    def reach(self) -> int:
        """Largest offset from the first element to any other, in elements."""
        return sum([abs(s) * (n - 1) for n, s in zip(self.shape, self.strides, strict=True)])

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements follow each other in C order."""
        expected = 1
        for n, stride in zip(self.shape[::-1], self.strides[::-1], strict=True):
            if n > 1 and stride != expected:
                return False
            expected *= n
        return True

    def transpose(self, order: Sequence[int]) -> View:
        """Axes in another order."""
        shape, strides = self.shape, self.strides
        return View(
            self.address, self.dtype, tuple([shape[a] for a in order]), tuple([strides[a] for a in order]), self.keep
        )

    def narrow(self, axis: int, start: int, stop: int) -> View:
        """Positions `start` to `stop` along an axis; `axis` counts from the end if negative."""
        axis %= len(self.shape)
        if start == 0 and stop == self.shape[axis]:
            return self
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        address = self.address + start * self.strides[axis] * self.dtype.itemsize
        return View(address, self.dtype, shape, self.strides, self.keep)

    def every(self, axis: int, step: int) -> View:
        """Positions along an axis that are `step` apart, from the first on."""
        axis %= len(self.shape)
        shape = (*self.shape[:axis], -(-self.shape[axis] // step), *self.shape[axis + 1 :])
        strides = (*self.strides[:axis], self.strides[axis] * step, *self.strides[axis + 1 :])
        return View(self.address, self.dtype, shape, strides, self.keep)

    def at(self, position: int) -> View:
        """Without the first axis, at a position along it."""
        part = self.narrow(0, position, position + 1)
        return View(part.address, self.dtype, self.shape[1:], self.strides[1:], self.keep)

    def bits(self) -> View:
        """The same voxels as unsigned integers of their size."""
        return View(self.address, np.dtype(f"u{self.dtype.itemsize}"), self.shape, self.strides, self.keep)


class Axis(NamedTuple):
    """An axis that two views have in common: its size, and its stride in each, in elements."""

    n: int
    s: int
    d: int


NONE = Axis(1, 0, 0)


def merge(axes: Sequence[Axis]) -> list[Axis]:
    """The same elements by as few axes as possible, in the same order."""
    out: list[Axis] = []
    for axis in axes:
        if axis.n == 1:
            continue
        if out and out[-1].s == axis.n * axis.s and out[-1].d == axis.n * axis.d:
            out[-1] = Axis(out[-1].n * axis.n, axis.s, axis.d)
        else:
            out.append(axis)
    return out


def volumes(src: View, dst: View, ordered: bool = True) -> Iterator[tuple[View, View]]:
    """Both views as (batch, z, y, x): once if their leading axes make one batch, else for all places along the others.

    `ordered`: the batch is what the last leading axes make, so that volumes come in their order. Else it is the longest
    of what leading axes make, so that there are as few batches as possible.
    """
    pairs = zip(dst.shape[:-3], src.strides[:-3], dst.strides[:-3], strict=True)
    batch = merge([Axis(*pair) for pair in pairs]) or [NONE]
    if not ordered:
        batch.sort(key=lambda axis: axis.n)
    *others, (n, s, d) = batch
    for place in itertools.product(*[range(axis.n) for axis in others]):
        from_, to = (sum(k * axis[of] for k, axis in zip(place, others, strict=True)) for of in (1, 2))
        yield _batch(src, from_, n, s), _batch(dst, to, n, d)


def _batch(view: View, offset: int, n: int, stride: int) -> View:
    """`n` of a view's volumes, from an offset on."""
    address = view.address + offset * view.dtype.itemsize
    return View(address, view.dtype, (n, *view.shape[-3:]), (stride, *view.strides[-3:]), view.keep)


def contiguous(address: int, dtype: np.dtype[Any], shape: Sequence[int], keep: Any) -> View:
    """Memory in C order."""
    strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
    return View(address, dtype, tuple(shape), strides, keep)
