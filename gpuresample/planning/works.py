"""What is to be done to voxels: works, as plain arrays and numbers, without images, geometry or names of filters.

Planning makes them, engines run them on arrays of shape (..., z, y, x); 2-D work has z of size 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.caching import cached_property
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.taps import TapTable

Range = tuple[int, int]

# Border rules of the gather, as engines see them. "wrap" and "grid-wrap" bring positions to the line before anything
# else: the first by the distance of the end samples, and its taps mirror; the second by the number of samples.
RULES = {"nearest": 0, "reflect": 1, "mirror": 2, "crop": 3, "wrap": 4, "grid-wrap": 5}


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
    precision : {"single", "double"}
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

    @cached_property
    def copies(self) -> bool:
        """Whether every voxel is a copy of one source voxel."""
        return all(t.is_index for t in self.tables)

    @cached_property
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
    """A stage of a route: `p -> matrix @ p + offset`.

    Attributes
    ----------
    matrix : ndarray, float64, shape (3, 3)
    offset : ndarray, float64, shape (3,)
    """

    matrix: FloatArray
    offset: FloatArray


@dataclass(frozen=True, eq=False)
class Lattice:
    """A stage of a route: `p -> p + vector`, from vectors on a grid; where the grid has none, p stays.

    Attributes
    ----------
    vectors : ndarray, float32 or float64, shape (z, y, x, 3)
        Components x, y, z, in units of points; any strides.
    inverse, origin : ndarray, float64, shapes (3, 3), (3,)
        The index on the lattice is `inverse @ (p - origin)`, x, y, z.
    kind : {"linear", "nearest", "spline"}
        A displacement field, which lies between its nodes' boxes, or a lattice of B-spline coefficients.
    order : int
        Of the spline, 1 to 3; 1 for a field.
    table : Separable, or None
        From the lattice to the whole output, where their axes are parallel and nothing but linear stages comes before.
    direct : bool
        Whether the nodes are the output's voxels.
    """

    vectors: Any
    inverse: FloatArray
    origin: FloatArray
    kind: str
    order: int = 1
    table: Separable | None = None
    direct: bool = False


def _fixed(array: FloatArray) -> FloatArray:
    array.setflags(write=False)
    return array


# What moves nothing, at hand for routes that are made for every call.
NOTHING, NOWHERE, UNIT = _fixed(np.zeros((3, 3))), _fixed(np.zeros(3)), _fixed(np.eye(3))


@dataclass(frozen=True, eq=False)
class Route:
    """From the index of an output voxel to a continuous index of the source; all in x, y, z.

    `p = origin + step @ index`, then the stages, then `inverse @ (p - origin_in)`, in ITK's order of operations.
    Without a lattice the index is computed at the ends of a row, x = 0 and x = n0, and interpolated between them:
    `a + (x / n0) * (b - a)`.

    Attributes
    ----------
    step, origin : ndarray, float64, shapes (3, 3), (3,)
    stages : tuple of Linear and Lattice
        In order of application. Without a lattice, one Linear.
    inverse, origin_in : ndarray, float64, shapes (3, 3), (3,)
    n0 : int
        Voxels of a whole row.
    start : three int
        Index, x, y, z, in the whole output of the first voxel here.
    """

    step: FloatArray
    origin: FloatArray
    stages: tuple[Linear | Lattice, ...]
    inverse: FloatArray
    origin_in: FloatArray
    n0: int
    start: tuple[int, int, int] = (0, 0, 0)

    @property
    def lines(self) -> bool:
        """Whether rows are scan lines."""
        return all(isinstance(stage, Linear) for stage in self.stages)

    @property
    def given(self) -> Any:
        """Positions on the source, [z, y, x, component], that the route only looks up; None if it is another route."""
        only = self.stages[0] if len(self.stages) == 1 else None
        if not isinstance(only, Lattice) or not only.direct:
            return None
        for own, known in (
            (self.step, NOTHING), (self.origin, NOWHERE), (self.origin_in, NOWHERE), (self.inverse, UNIT)
        ):  # fmt: skip
            if own is not known and not np.array_equal(own, known):
                return None
        return only.vectors

    def equals(self, other: Route) -> bool:
        """Whether another route leads to the same places, as far as that is seen without reading a vector."""
        if (self.n0, self.start, len(self.stages)) != (other.n0, other.start, len(other.stages)):
            return False
        pairs = [(getattr(self, name), getattr(other, name)) for name in ("step", "origin", "inverse", "origin_in")]
        for a, b in zip(self.stages, other.stages, strict=True):
            if isinstance(a, Lattice) and isinstance(b, Lattice):
                if a.vectors is not b.vectors or (a.kind, a.order) != (b.kind, b.order):
                    return False
                pairs += [(a.inverse, b.inverse), (a.origin, b.origin)]
            elif isinstance(a, Linear) and isinstance(b, Linear):
                pairs += [(a.matrix, b.matrix), (a.offset, b.offset)]
            else:
                return False
        return all(np.array_equal(a, b) for a, b in pairs)

    def moved(self, x: int, y: int, z: int) -> Route:
        """The route of a block that begins so many voxels further."""
        return replace(self, start=(self.start[0] + x, self.start[1] + y, self.start[2] + z))


@dataclass(frozen=True)
class Scores:
    """How labels are voted on by scores in 16-bit floats, as batchgeneratorsv2 does; see `Gather.scores`.

    A label's score is 1000 times its linear share of a voxel's neighbourhood, rounded to a 16-bit float.

    Attributes
    ----------
    pair : bool
        Whether the source has two labels: then the larger one's score is compared with 500, else all with one another.
    upper : float
        The larger one of the two.
    tie : int
        Which of equal scores wins: 0 the smallest label, 1 the nearest voxel's if it is one of them, 2 the largest.
    rim : int
        Samples in front of the source's first one along axes of more than one, for which voxel is the even one: a
        position halfway between two is nearest to that.
    """

    pair: bool
    upper: float
    tie: int
    rim: int


@dataclass(frozen=True, eq=False)
class Gather:
    """One weighted neighbourhood per voxel, for grids that are rotated, sheared or deformed; and label votes.

    Attributes
    ----------
    routes : tuple of Route
        One for all volumes of a batch, or one for each, in C order of the leading axes.
    n_dst : three int
        Destination size z, y, x.
    method : {"sum", "index", "label_linear", "label_gaussian"}
        Sum, copy or vote.
    prefilter : Separable, or None
        What makes the samples that are gathered, along z, then y, then x.
    coefficients : ndarray, float64, shape (pieces, width, degree + 1)
        Weights as polynomials, see `filters.polynomials`.
    shift, offset : float, int
        See `filters.polynomials`.
    narrow : bool
        Find the cell of a position from its value in float32, and weigh with the position itself, as ITK's splines do.
        It shows at orders 1 and 2 alone.
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
    precision : {"single", "double"}
        Coefficients and sums are float32 ("single") or float64.
    derivative : three int
        How often the weights are differentiated along the source's z, y, x, in voxels: from the right on a voxel, 0
        where positions clamp, backwards where they are folded. Of sums that are not normalised.
    scores : Scores or None
        Another rule for "label_linear"; the CPU engine's alone.
    """

    routes: tuple[Route, ...]
    n_dst: tuple[int, int, int]
    method: str
    prefilter: Separable | None
    coefficients: FloatArray
    shift: float
    offset: int
    narrow: bool
    n_src: tuple[int, int, int]
    base: tuple[int, int, int]
    box: tuple[tuple[float, float], ...]
    rule: int
    normalise: bool
    precision: str
    derivative: tuple[int, int, int] = (0, 0, 0)
    scores: Scores | None = None


@dataclass(frozen=True, eq=False)
class Majority:
    """The value that most voxels of a block have; of several such the smallest. A NaN is larger than any number.

    Attributes
    ----------
    block : three int
        Size of a block along z, y, x; blocks begin at the first voxel.
    n_dst : three int
        Destination size z, y, x.
    labels_first : bool
        Whether zeros have no vote; the value is 0 where all are.
    """

    block: tuple[int, int, int]
    n_dst: tuple[int, int, int]
    labels_first: bool = False

    @property
    def precision(self) -> str:
        """That any voxels suit it: they are compared, not summed."""
        return "double"


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

    Outside a model's grid its answer is class 0 for certain (where classes overlap: no class). A voxel where a model
    has no usable score (NaN, or no finite one) counts as class 0, or as no class where classes overlap; its floats are
    NaN.

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

    @property
    def overlaps(self) -> bool:
        """Whether every class stands for itself, and a voxel may have several or none."""
        return self.choose != "largest"
