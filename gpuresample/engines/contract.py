"""What a plan asks of an engine: plain arrays and numbers, no images, no geometry, no modes.

Every engine runs these on arrays of shape (..., z, y, x); the last three axes are space, every leading axis is a
batch of independent volumes. 2-D work has z of size 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpuresample.taps import TapTable

FloatArray = npt.NDArray[np.float64]

Range = tuple[int, int]

# Border rules of the gather, as engines see them.
RULES = {"nearest": 0, "reflect": 1, "mirror": 2, "crop": 3}


@dataclass(frozen=True)
class Store:
    """How a sum becomes a voxel.

    Attributes
    ----------
    default : int or float
        Value of voxels outside the source, representable in the output's type.
    rounding : {"nearest", "truncate", "away"}
        To nearest, half to even; toward zero, as SimpleITK; to nearest, half away from zero, as SciPy. Integers
        saturate in any case; NaN becomes 0.
    exact : bool
        Voxels are chosen, not summed: they take the output's type first, so no label passes through a float.
    divisor : int
        What sums are divided by at the end, integers then rounded half up; 1 for everything but block means.
    low, high : int, float or None
        Smallest and largest integer stored, where that is not the type's (booleans are bytes up to 1).
    """

    default: int | float = 0
    rounding: str = "nearest"
    exact: bool = False
    divisor: int = 1
    low: int | float | None = None
    high: int | float | None = None


@dataclass(frozen=True, eq=False)
class Separable:
    """One tap table per source axis.

    Attributes
    ----------
    tables : three TapTable
        For source axes z, y, x. A table's rows are the destination samples inside the source.
    order : tuple of int
        Source axes in order of application; axes that change nothing are left out.
    dst_axis : three int
        The destination axis that each source axis becomes (a transpose; (0, 1, 2) for none).
    n_dst : three int
        Destination samples along each *source* axis, those outside included.
    start : three int
        First destination sample inside, along each source axis.
    precision : {"single", "double", "exact"}
        Sums are made in float32 ("single") or float64.
    shortcut : tuple of Branch
        Empty, or what an engine may do instead, within the numeric contract: add up the results of one or two branches.
        Nothing is transposed then, nothing outside.
    """

    tables: tuple[TapTable, TapTable, TapTable]
    order: tuple[int, ...]
    dst_axis: tuple[int, int, int]
    n_dst: tuple[int, int, int]
    start: tuple[int, int, int]
    precision: str
    shortcut: tuple[Branch, ...] = ()

    @property
    def copies(self) -> bool:
        """Whether every voxel is a copy of one source voxel."""
        return all(t.is_index for t in self.tables)

    @property
    def inside(self) -> tuple[Range, ...]:
        """Half-open range of destination samples inside the source, along each source axis."""
        return tuple((s, s + t.n_dst) for s, t in zip(self.start, self.tables, strict=True))


@dataclass(frozen=True, eq=False)
class Branch:
    """One way through coarse grids, see `Separable.shortcut`.

    Attributes
    ----------
    first : Separable
        From the source to a coarser grid.
    middle : tuple of tuples of Separable
        Each run one after the other on what `first` made; their results are added up.
    last : Separable
        From that sum to the destination's grid. Of two branches, the first one's has a table along y only, the second
        one's along z only.
    """

    first: Separable
    middle: tuple[tuple[Separable, ...], ...]
    last: Separable


@dataclass(frozen=True, eq=False)
class Linear:
    """A stage of a route: p -> matrix @ p + offset; sums over columns in order, then the offset: ITK's order.

    Attributes
    ----------
    matrix : ndarray, float64, shape (3, 3)
    offset : ndarray, float64, shape (3,)
    """

    matrix: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class Lattice:
    """A stage of a route: p -> p + the sum of weights times vectors; outside the lattice's domain p stays.

    Attributes
    ----------
    vectors : ndarray, float32 or float64, shape (z, y, x, 3)
        At any strides, and never copied. The components are along x, y, z, in units of p. z is 1 in 2-D.
    inverse : ndarray, float64, shape (3, 3)
        From a point to the lattice's continuous index x, y, z, with ITK's bits.
    origin : ndarray, float64, shape (3,)
        The continuous index is `inverse @ (p - origin)`.
    kind : {"linear", "nearest", "spline"}
        A displacement field between its nodes, the nearest node of one, or a B-spline's control points.
    order : int
        Of a spline, 1 to 3; 1 for a field.
    table : Separable or None
        From the lattice to the whole output, for every component, where the lattice's axes are parallel to the output's
        and only linear stages come before; rows outside the domain are outside. An engine need not use it.
    direct : bool
        Whether the nodes of a field are the output's voxels, so that a voxel's own index finds its vector.
    """

    vectors: npt.NDArray[Any]
    inverse: FloatArray
    origin: FloatArray
    kind: str
    order: int
    table: Separable | None
    direct: bool


@dataclass(frozen=True, eq=False)
class Route:
    """From a voxel of the whole output to its continuous index in the source. Everything is x, y, z, and 3-D.

    A voxel i, j, k lies at `p = origin + step[:, 0] * i + step[:, 1] * j + step[:, 2] * k`; p goes through the stages,
    and ends as the index `inverse @ (p - origin_in)`. All of it is float64, and nothing fuses. Without a lattice the
    formula is used at both ends of a row only, i = 0 and i = n0, and voxel i lies at `a + (i / n0) * (b - a)`.

    Attributes
    ----------
    step : ndarray, float64, shape (3, 3)
    origin : ndarray, float64, shape (3,)
    stages : tuple of Linear and Lattice
        In order of application. Without a lattice there is one stage, a Linear.
    inverse : ndarray, float64, shape (3, 3)
    origin_in : ndarray, float64, shape (3,)
    n0 : int
        Voxels of a whole row.
    start : three int
        Index x, y, z in the whole output of the first voxel of the block at hand.
    """

    step: FloatArray
    origin: FloatArray
    stages: tuple[Linear | Lattice, ...]
    inverse: FloatArray
    origin_in: FloatArray
    n0: int
    start: tuple[int, int, int]

    @property
    def lines(self) -> bool:
        """Whether voxels lie on straight lines between the ends of their rows."""
        return all(isinstance(stage, Linear) for stage in self.stages)


@dataclass(frozen=True, eq=False)
class Gather:
    """One weighted neighbourhood per voxel, for grids that are rotated, sheared or deformed; and label votes.

    Attributes
    ----------
    routes : tuple of Route
        Where the voxels lie: one route for the whole batch, or one for every volume of it (leading axes in C order).
    n_dst : three int
        Destination size z, y, x.
    method : {"linear", "index", "label_linear", "label_gaussian"}
        Sum, copy or vote.
    prefilter : three TapTable, or None
        Applied along z, y, x before anything is gathered.
    coefficients : ndarray, float64, shape (pieces, width, degree + 1)
        Weights as polynomials, see `filters.polynomials`.
    shift, offset : float, int
        See `filters.polynomials`.
    spline : bool
        Whether ITK would find the cell of a coordinate from its value in float32, as its splines do.
    n_src : three int
        Size z, y, x of the whole source (after the prefilter).
    base : three int
        Index in the whole source of the first voxel of the array at hand.
    box : three pairs of float
        For z, y, x: continuous indices inside, lower bound included, upper excluded.
    rule : int
        One of `RULES`: what a tap past the border becomes.
    normalise : bool
        Divide by the sum of weights.
    precision : {"single", "double", "exact"}
        Coefficients and sums are float32 ("single") or float64.
    """

    routes: tuple[Route, ...]
    n_dst: tuple[int, int, int]
    method: str
    prefilter: tuple[TapTable, TapTable, TapTable] | None
    coefficients: FloatArray
    shift: float
    offset: int
    spline: bool
    n_src: tuple[int, int, int]
    base: tuple[int, int, int]
    box: tuple[tuple[float, float], ...]
    rule: int
    normalise: bool
    precision: str


@dataclass(frozen=True, eq=False)
class Majority:
    """The value that most voxels of a block have; of several such the smallest. A NaN is larger than any number.

    Attributes
    ----------
    block : three int
        Size of a block along z, y, x; blocks begin at the first voxel.
    n_dst : three int
        Destination size z, y, x.
    """

    block: tuple[int, int, int]
    n_dst: tuple[int, int, int]


Work = Separable | Gather | Majority

# What makes probabilities of scores, and how classes become a label, as kernels see them.
ACTIVATIONS = {"none": 0, "softmax": 1, "sigmoid": 2}
CHOICES = {"largest": 0, "bits": 1, "regions": 2}


@dataclass(frozen=True, eq=False)
class Member:
    """One model of an ensemble.

    Attributes
    ----------
    work : Separable or Gather
        From its scores' grid to the target, in sums of float32.
    weight : float
        Its share of the average.
    """

    work: Work
    weight: float


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Class scores of several models, resampled, averaged and decided, voxel by voxel.

    Outside a model's grid its answer is class 0 for certain (for sigmoids: no class). A voxel where a model has no
    usable score (NaN, or no finite one) counts as class 0, or as no class where classes overlap; its floats are NaN.

    Attributes
    ----------
    members : tuple of Member
    classes : int
    n_dst : three int
        Target size z, y, x.
    activation : {"none", "softmax", "sigmoid"}
    before : bool
        Whether the activation comes before the resampling, on the models' own grids.
    choose : {"largest", "bits", "regions"}
        "largest": the class with the largest average, of equals the lowest. "bits": the bits of all classes above their
        thresholds. "regions": of these the last.
    thresholds : ndarray, float32, shape (classes,)
        In units of probability; for "bits" and "regions".
    values : ndarray, uint64, shape (classes + 1,)
        What a class is called, and at the end what a voxel of no class is called.
    """

    members: tuple[Member, ...]
    classes: int
    n_dst: tuple[int, int, int]
    activation: str
    before: bool
    choose: str
    thresholds: npt.NDArray[np.float32]
    values: npt.NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Outputs:
    """Where the answers of an ensemble go; None for what is not asked for.

    Attributes
    ----------
    labels : array, unsigned integers, [z, y, x]
    probabilities : array, float32, [class, z, y, x]
    confidence : array, float32, [z, y, x]
        The largest average probability.
    entropy : array, float32, [z, y, x]
        -sum p ln p of the average; of sigmoids each class against its absence.
    """

    labels: Any = None
    probabilities: Any = None
    confidence: Any = None
    entropy: Any = None

    @property
    def only_labels(self) -> bool:
        """Whether nothing but labels is asked for."""
        return self.probabilities is None and self.confidence is None and self.entropy is None


class Combiner(Protocol):
    """Combines the blocks of one ensemble, one after the other."""

    @property
    def types(self) -> tuple[str, ...]:
        """Types of scores that it takes."""

    @property
    def copies(self) -> bool:
        """Whether scores are copied to get to it."""

    @property
    def room(self) -> int:
        """Bytes that a block may take where it computes."""

    def combine(self, work: Ensemble, scores: Sequence[Any], outputs: Outputs) -> None:
        """Fill `outputs`, or see to it that they will be filled, from the scores [class, z, y, x] of every member."""

    def counts(self) -> list[int]:
        """Voxels without usable scores, of every member; waits until all is done."""


class Engine(Protocol):
    """The contract both engines meet.

    Voxels are integers of 8 to 64 bits and floats of 16 to 64, in any pair of types.
    """

    name: str

    def run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`; both may have any strides."""

    def combining(self, models: int) -> AbstractContextManager[Combiner]:
        """What combines the blocks of one ensemble of so many models; all of it is done when the block is left."""
