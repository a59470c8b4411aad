"""What is timed: a case, and who does it. Known before any volume is made; made when its turn comes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuresample.bench.bounds import difference, unit_of
from gpuresample.bench.cases import Array
from gpuresample.containers.voxels import finite_range

Call = Callable[[], Any]
Error = Callable[[Any], float]
"""A result's largest difference from a float64 reference, in the voxels' own unit."""

# What differs by more than this part of the input's range is another answer. Some libraries compute coordinates in
# float32, which costs them 3e-5 on 512 voxels of noise.
TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Doer:
    """Someone who does a case.

    Attributes
    ----------
    peer, label, version : str
        A key, a name for people, a version; see `records.Record`.
    prepare : callable
        From the case's data to the call that is timed.
    device, scope : str
        See `records.Record`.
    expected : str or None
        Key of the doer of the same case whose answer this one must have; None for the judge, and for those that only
        `reference` judges.
    judge : bool
        Whether the others are measured by it.
    reference : callable, optional
        From the data to what measures a result's distance from float64, if something does.
    dtype : str or None
        Voxel type that it is given, where that is not the case's.
    unchecked : str
        Why nothing judges it, if that is how it is.
    """

    peer: str
    label: str
    prepare: Callable[[Any], Call]
    version: str = ""
    device: str = "cpu"
    scope: str = "call"
    expected: str | None = None
    judge: bool = False
    reference: Callable[[Any], Error | None] | None = None
    dtype: str | None = None
    unchecked: str = ""

    @property
    def key(self) -> str:
        """Its name within a case."""
        return self.peer if self.device == "cpu" else f"{self.peer}-{self.device}-{self.scope}"


@dataclass(frozen=True)
class Verdict:
    """What a comparison found: the largest difference in parts of the input's range, and whether it is the answer."""

    error: float
    same: bool


def compare(array: Array, answer: Any, right: Any, exact: bool) -> Verdict:
    """An answer, or a list of them, against the right one.

    Integers may differ by 1, for some libraries truncate and others round; nothing may if `exact`.
    """
    if isinstance(right, list):
        if not isinstance(answer, list) or len(answer) != len(right):
            return Verdict(math.inf, False)
        found = [compare(array, a, r, exact) for a, r in zip(answer, right, strict=True)]
        return Verdict(max(v.error for v in found), all(v.same for v in found))
    if answer.shape != right.shape:
        return Verdict(math.inf, False)
    largest = difference(answer, right).largest
    unit = unit_of(*finite_range(array)[:2]) or 1.0
    step = 1.0 if answer.dtype.kind in "iu" or right.dtype.kind in "iu" else TOLERANCE * unit
    return Verdict(largest / unit, largest <= (0.0 if exact else step))


@dataclass(frozen=True, eq=False)
class Case:
    """A named job.

    Attributes
    ----------
    name, what : str
    make : callable
        Its data.
    array : callable
        From the data to the voxels whose range errors are parts of.
    doers : tuple of Doer
        Ours first.
    input_shape, output_shape : tuple of int
        In array order.
    input_dtype, output_dtype : str
    exact : bool
        Whether answers must be equal, voxel by voxel.
    differs : callable, optional
        From data, answer and right answer to a verdict, in place of `compare`.
    several : int
        Voxels of all outputs, where there are several; `output_shape` is then the last one's.
    """

    name: str
    what: str
    make: Callable[[], Any]
    array: Callable[[Any], Array]
    doers: tuple[Doer, ...]
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    input_dtype: str
    output_dtype: str
    exact: bool = False
    differs: Callable[[Any, Any, Any], Verdict] | None = None
    several: int = 0

    @property
    def voxels(self) -> int:
        """Of the output."""
        return self.several or math.prod(self.output_shape)

    @property
    def bytes_moved(self) -> int:
        """What must be read and written at the least."""
        return self.bytes_of(self.input_dtype, self.output_dtype)

    def bytes_of(self, given: str, made: str) -> int:
        """The same for other voxel types."""
        return math.prod(self.input_shape) * np.dtype(given).itemsize + self.voxels * np.dtype(made).itemsize

    def doer(self, key: str) -> Doer:
        """One of its doers."""
        return next(d for d in self.doers if d.key == key)

    def verdict(self, data: Any, answer: Any, right: Any) -> Verdict:
        """Whether an answer is the right one."""
        if self.differs is not None:
            return self.differs(data, answer, right)
        return compare(self.array(data), answer, right, self.exact)


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the tables: who does what, for which scaling.

    Attributes
    ----------
    kind : str
        See `records.Record`.
    case : Case
    doer : Doer
    size, threads : int or None
    seconds : callable, optional
        What measures itself: processes of their own.
    """

    kind: str
    case: Case
    doer: Doer
    size: int | None = None
    threads: int | None = None
    seconds: Callable[[], list[float]] | None = None

    @property
    def name(self) -> str:
        """The same in every run."""
        more = [str(v) for v in (self.size, self.threads) if v is not None]
        return "-".join([self.kind, self.case.name, self.doer.key, *more]).replace(" ", "-")

    @property
    def group(self) -> tuple[Any, ...]:
        """Rows that take turns."""
        return self.kind, self.case.name, self.size, self.threads
