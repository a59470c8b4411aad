"""The path: how a point of the output's space gets to the input's, as data.

A `Transform` is a path with everything resolved: x, y, z order, physical units, arrays and grids. It is hashed by the
numbers of its matrices and by which arrays its lattices are; no vector is read. `route` puts it between two grids and
makes of it what engines evaluate; `source_box` bounds where a block of the output may lie on the source. Neither
evaluates the path voxel by voxel.

Matrices and offsets are applied in ITK's order of operations, one after the other where ITK does so: which voxel is
nearest and what lies outside may depend on the last bit.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gpuresample.caching import cached_property
from gpuresample.planning import taps
from gpuresample.planning.filters import FILTERS, FloatArray
from gpuresample.planning.grid import Grid, aligned_axes
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Lattice, Linear, Range, Route, Separable

Array = npt.NDArray[Any]
Block = tuple[Range, Range, Range]

EPS = float(np.finfo(np.float64).eps)
# Index errors up to this leave neighbouring voxels apart.
TELLABLE = 0.25
# Stages that an engine takes; longer paths get neighbouring matrices folded.
MOST_STAGES = 8
# Up to so many nodes are looked at one by one for a bound, more of them by bricks.
FEW_NODES = 1 << 15
BRICK = 16
# Rounding errors of a path, in units of the last place of the largest intermediate number.
SLACK = 32.0

KINDS = ("linear", "nearest", "spline")


@dataclass(frozen=True)
class Map:
    """p -> matrix @ p + offset; a step of a `Transform`, in x, y, z order, hashed by its numbers.

    Attributes
    ----------
    matrix : tuple of tuple of float
        Its rows.
    offset : tuple of float
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]

    @classmethod
    def of(cls, matrix: FloatArray, offset: FloatArray) -> Map:
        """From arrays of shape (d, d) and (d,)."""
        return cls(tuple(map(tuple, matrix.tolist())), tuple(offset.tolist()))

    @cached_property
    def stage(self) -> Linear:
        """The step as engines take it, in three dimensions."""
        return Linear(_padded(np.array(self.matrix)), _padded(np.array(self.offset)))

    @cached_property
    def is_identity(self) -> bool:
        """Whether it moves nothing."""
        return not any(self.offset) and all(
            value == (i == j) for i, row in enumerate(self.matrix) for j, value in enumerate(row)
        )

    @cached_property
    def norm(self) -> float:
        """The largest sum of magnitudes in a row of the matrix."""
        return max(sum(map(abs, row)) for row in self.matrix)

    @cached_property
    def shift(self) -> float:
        """The largest magnitude of the offset."""
        return max(map(abs, self.offset))


class Nodes:
    """p -> p + what a lattice of vectors says there; a step of a `Transform`, hashed by which array it is.

    Attributes
    ----------
    vectors : ndarray, float32 or float64, shape ((z,) y, x, component)
        Components x, y(, z) in physical units; any strides.
    grid : Grid
        Where the nodes lie.
    kind : {"linear", "nearest", "spline"}
    order : int
        Of a spline, 1 to 3; else 1.

    Raises
    ------
    ValueError, TypeError
        For vectors of another shape or type than the grid and the kind need.
    """

    def __init__(self, vectors: Array, grid: Grid, kind: str = "linear", order: int = 1) -> None:
        d, name = grid.dimension, "coefficients" if kind == "spline" else "vectors"
        if kind not in KINDS or order not in (1, 2, 3):
            raise ValueError(f"order of a spline must be 1, 2 or 3, got {kind} of order {order!r}")
        if vectors.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} must be float32 or float64, got {vectors.dtype}")
        if vectors.shape != (*grid.size[::-1], d):
            raise ValueError(
                f"{name} must have shape {(*grid.size[::-1], d)}, their grid's size and {d} components, "
                f"got {vectors.shape}"
            )
        if kind == "spline" and min(grid.size) < order + 1:
            raise ValueError(
                f"coefficients must have at least {order + 1} control points on every axis for order {order}, "
                f"got size {grid.size}"
            )
        self.vectors, self.grid, self.kind, self.order = vectors, grid, kind, order
        place = vectors.__array_interface__["data"][0]
        # The array stays alive as long as the key: no other can take its place in memory.
        self.key = (place, vectors.shape, vectors.strides, vectors.dtype.str, grid, kind, order)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Nodes) and self.key == other.key

    @cached_property
    def padded(self) -> Array:
        """The vectors in three dimensions: a view, of 2-D vectors a copy with a third component."""
        if self.grid.dimension == 3:
            return self.vectors
        return np.pad(self.vectors, ((0, 0), (0, 0), (0, 1)))[None]


Step = Map | Nodes


@dataclass(frozen=True)
class Transform:
    """A path from points of the output's space to the input's, in x, y, z order and physical units.

    Attributes
    ----------
    dimension : int
    steps : tuple of Map and Nodes
        Applied first to last; none for the identity.
    """

    dimension: int
    steps: tuple[Step, ...]

    @property
    def is_linear(self) -> bool:
        """Whether it is one matrix and an offset (ITK's transform category Linear)."""
        return all(isinstance(step, Map) for step in self.steps)

    @cached_property
    def affine(self) -> tuple[FloatArray, FloatArray]:
        """Matrix and offset of a linear transform."""
        d = self.dimension
        stage = _folded([step.stage for step in self.steps if isinstance(step, Map)])
        return stage.matrix[:d, :d], stage.offset[:d]

    def points(self, p: FloatArray) -> FloatArray:
        """Map points `[n, dimension]` by a linear transform, step by step as ITK does."""
        for step in self.steps:
            assert isinstance(step, Map)
            p = _apply(np.array(step.matrix), p) + np.array(step.offset)
        return p

    def then(self, other: Transform) -> Transform:
        """The path through one transform and then another."""
        return Transform(self.dimension, self.steps + other.steps)


# --- SimpleITK's transforms ----------------------------------------------------------------------------------------


class ForeignError(Exception):
    """A SimpleITK transform that has no native form."""


def of_sitk(transform: Any, dimension: int, target: Grid) -> Transform:
    """A SimpleITK transform as a path.

    A class without a native form is evaluated by SimpleITK, once, into a displacement field on the output's grid, with
    a warning.

    Parameters
    ----------
    transform : SimpleITK.Transform
    dimension : int
        The image's.
    target : Grid
        The output's grid.

    Raises
    ------
    ValueError
        For another dimension (an identity has none), parameters that are not finite.
    """
    import SimpleITK as sitk

    if transform.GetTransformEnum() == sitk.sitkIdentity:
        return Transform(dimension, ())
    if transform.GetDimension() != dimension:
        raise ValueError(
            f"transform must have the image's dimension {dimension}, "
            f"got a {transform.GetDimension()}-D {transform.GetName()}"
        )
    try:
        return Transform(dimension, tuple(_sitk_steps(transform)))
    except ForeignError as what:
        warnings.warn(
            f"{what} has no native form: SimpleITK evaluates the transform once, into a displacement field on the "
            "output's grid",
            RuntimeWarning,
            stacklevel=2,
        )
    field = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, target.size, target.origin, target.spacing, target.direction
    )
    return Transform(dimension, (Nodes(sitk_view(field), target),))


def _sitk_steps(transform: Any) -> list[Step]:
    """A transform's steps in order of application."""
    import SimpleITK as sitk

    kind, d = transform.GetTransformEnum(), transform.GetDimension()
    if kind == sitk.sitkIdentity:
        return []
    if kind == sitk.sitkComposite:
        members = _sitk_members(transform)
        if members is not None:
            # The last member acts first.
            return [step for member in reversed(members) for step in _sitk_steps(member)]
    if transform.IsLinear():
        return _linear_steps(transform, d, kind in (sitk.sitkScale, sitk.sitkScaleLogarithmic))
    if kind == sitk.sitkDisplacementField:
        image = transform.Downcast().GetDisplacementField()
        # There is no getter for the interpolator but the description.
        nearest = "Interpolator: \n     VectorNearestNeighbor" in str(transform)
        return [Nodes(sitk_view(image), sitk_grid(image), "nearest" if nearest else "linear")]
    if kind == sitk.sitkBSplineTransform:
        return _spline_steps(transform.Downcast(), d)
    raise ForeignError(f"a {transform.GetName()}")


def _sitk_members(transform: Any) -> list[Any] | None:
    """Members of a composite in the order they were added; None for what only calls itself one."""
    import SimpleITK as sitk

    try:
        composite = transform.Downcast()
    except (KeyError, RuntimeError):
        return None
    if not isinstance(composite, sitk.CompositeTransform):
        return None
    members = []
    for i in range(composite.GetNumberOfTransforms()):
        try:
            members.append(composite.GetNthTransform(i))
        except (KeyError, RuntimeError, TypeError):
            # SimpleITK's Python has no class for some linear ones and fails at casting what it was given.
            get = getattr(sitk.SimpleITK._SimpleITK, "CompositeTransform_GetNthTransform", None)
            if get is None:
                raise ForeignError("a member of a CompositeTransform") from None
            members.append(get(composite, i))
    # SimpleITK hands out a linear class that it does not know in a composite, and so again when asked for its member.
    return None if transform.IsLinear() and _only_member(_only_member(composite)) is not None else members


def _only_member(transform: Any) -> Any:
    """The one member of a composite that is a composite itself; None for anything else."""
    import SimpleITK as sitk

    if not isinstance(transform, sitk.CompositeTransform) or transform.GetNumberOfTransforms() != 1:
        return None
    try:
        member = transform.GetNthTransform(0)
    except (KeyError, RuntimeError, TypeError):
        return None
    return member if isinstance(member, sitk.CompositeTransform) else None


def _linear_steps(transform: Any, d: int, scales: bool) -> list[Step]:
    """A linear transform's matrix and offset, with ITK's bits: its differential's columns and where it takes 0."""
    zero = [0.0] * d
    matrix = np.array([transform.TransformVector(unit, zero) for unit in np.eye(d).tolist()]).T
    offset = np.array(transform.TransformPoint(zero))
    if not (np.isfinite(matrix).all() and np.isfinite(offset).all()):
        raise ValueError(
            f"transform must have finite parameters, got a {transform.GetName()} of {transform.GetParameters()}"
        )
    if not scales:
        return [Map.of(matrix, offset)]
    # (p - c) * s + c, not one matrix and offset.
    centre = np.array(transform.GetFixedParameters())
    if not centre.any():
        return [Map.of(matrix, np.zeros(d))]
    return [Map.of(np.eye(d), -centre), Map.of(matrix, np.zeros(d)), Map.of(np.eye(d), centre)]


def _spline_steps(transform: Any, d: int) -> list[Step]:
    order = transform.GetOrder()
    if order == 0:
        return []  # as SimpleITK's: it moves nothing
    # The fixed parameters, not the getters of the domain, hold what is evaluated.
    fixed = transform.GetFixedParameters()
    size = tuple(int(n) for n in fixed[:d])
    grid = Grid(size, fixed[2 * d : 3 * d], fixed[d : 2 * d], fixed[3 * d :])
    parameters = np.array(transform.GetParameters()).reshape(d, *size[::-1])
    return [Nodes(np.moveaxis(parameters, 0, -1), grid, "spline", order)]


class _Memory:
    """An image's memory, which the arrays made of it keep alive."""

    def __init__(self, image: Any, view: Array) -> None:
        self.image, self.__array_interface__ = image, view.__array_interface__


def sitk_view(image: Any) -> Array:
    """A SimpleITK image's voxels, components last, without a copy; the array holds on to the image."""
    import SimpleITK as sitk

    return np.asarray(_Memory(image, sitk.GetArrayViewFromImage(image)))


def sitk_grid(image: Any) -> Grid:
    """The grid of a SimpleITK image."""
    return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


# --- routes --------------------------------------------------------------------------------------------------------


def _padded(a: FloatArray) -> FloatArray:
    """A vector or matrix in three dimensions."""
    if a.shape[0] == 3:
        return a
    out = np.eye(3) if a.ndim == 2 else np.zeros(3)
    out[(slice(2),) * a.ndim] = a
    return out


def _apply(matrix: FloatArray, p: FloatArray) -> FloatArray:
    """`matrix @ p` of points `[..., d]`, summed over columns in order."""
    out = matrix[:, 0] * p[..., 0:1]
    for j in range(1, matrix.shape[1]):
        out += matrix[:, j] * p[..., j : j + 1]
    return out


def _folded(stages: list[Linear]) -> Linear:
    """One stage for several."""
    if len(stages) == 1:
        return stages[0]
    matrix, offset = np.eye(3), np.zeros(3)
    for stage in stages:
        matrix = np.ascontiguousarray(_apply(stage.matrix, matrix.T).T)
        offset = _apply(stage.matrix, offset) + stage.offset
    return Linear(matrix, offset)


@dataclass(frozen=True, eq=False)
class _Frame:
    """A grid in three dimensions.

    Attributes
    ----------
    step, origin, inverse : ndarray
        `p = origin + step @ i`, `i = inverse @ (p - origin)`.
    size : three int
    reach : ndarray, shape (3,)
        Largest magnitude of numbers that are summed for a voxel's point.
    largest, norm : float
        The largest of them; the largest sum of magnitudes in a row of `inverse`.
    """

    step: FloatArray
    origin: FloatArray
    inverse: FloatArray
    size: tuple[int, int, int]
    reach: FloatArray
    largest: float
    norm: float


@lru_cache(maxsize=256)
def _frame(grid: Grid) -> _Frame:
    step, origin = _padded(grid.index_to_point), _padded(np.asarray(grid.origin))
    inverse = np.array(_padded(grid.point_to_index), order="C")
    x, y, z = (*grid.size, 1)[:3]
    reach = np.abs(origin) + np.abs(step) @ np.array([x, y, z], np.float64)
    if not (EPS * (np.abs(inverse) @ reach) < TELLABLE).all():
        raise ValueError(
            "grid must lie where float64 can tell neighbouring voxels apart, got "
            f"size {grid.size}, spacing {grid.spacing}, origin {grid.origin}"
        )
    norm = float(np.abs(inverse).sum(axis=1).max())
    return _Frame(step, origin, inverse, (x, y, z), reach, float(reach.max()), norm)


def check_tellable(target: Grid, source: Grid, transform: Transform | None = None) -> None:
    """Refuse grids and matrices so far out that float64 cannot tell neighbouring voxels of the output apart.

    Raises
    ------
    ValueError
        With the numbers at fault.
    """
    out, here = _frame(target), _frame(source)
    moves = () if transform is None else tuple(step for step in transform.steps if isinstance(step, Map))
    # A bound by the largest numbers settles it for all but strange paths, in a twentieth of the time.
    largest = out.largest
    for move in moves:
        largest = move.norm * largest + move.shift
    if EPS * here.norm * (largest + here.largest) < TELLABLE:
        return
    reach, edges = out.reach, out.step
    for move in moves:
        stage = move.stage
        reach = np.abs(stage.matrix) @ reach + np.abs(stage.offset)
        edges = stage.matrix @ edges
    error = EPS * (np.abs(here.inverse) @ (reach + np.abs(here.origin)))
    # Farther apart than that, voxels of the output may be as far from the image as they like.
    apart = np.maximum(np.abs(here.inverse @ edges).max(axis=1), 1.0)
    if not (error < TELLABLE * apart).all():
        raise ValueError(
            "transform must leave points where float64 can tell neighbouring voxels apart, got points as far as "
            f"{float(reach.max()):.3g} from 0 (output: origin {target.origin}, spacing {target.spacing}; "
            f"image: origin {source.origin}, spacing {source.spacing})"
        )


def route(target: Grid, source: Grid, transform: Transform | None = None) -> Route:
    """What engines evaluate: from voxels of `target` to continuous indices on `source`.

    Parameters
    ----------
    target, source : Grid
        The output's and the input's.
    transform : Transform, optional
        From points of `target`'s space to `source`'s.

    Returns
    -------
    Route
        Of a linear path with one stage. A lattice that stands parallel to the output gets its `table`; one whose nodes
        are the output's voxels is `direct` and needs none.

    Raises
    ------
    ValueError
        For grids of different dimensions; see `check_tellable`.
    """
    d = target.dimension
    if source.dimension != d or (transform is not None and transform.dimension != d):
        raise ValueError(f"grids and transform must have one dimension, got {d} and {source.dimension}")
    check_tellable(target, source, transform)
    out, here = _frame(target), _frame(source)
    steps = () if transform is None else transform.steps
    moves = [s for s in steps if isinstance(s, Nodes) or not s.is_identity]
    stages: list[Linear | Lattice]
    if all(isinstance(s, Map) for s in moves):
        stages = [_folded([s.stage for s in moves if isinstance(s, Map)])]
    else:
        stages = []
        short = len(moves) <= MOST_STAGES
        for move in moves:
            if isinstance(move, Nodes):
                before = [s for s in stages if isinstance(s, Linear)]
                stages.append(_lattice(move, out, before if len(before) == len(stages) else None))
            elif not short and stages and isinstance(stages[-1], Linear):
                stages[-1] = _folded([stages[-1], move.stage])
            else:
                stages.append(move.stage)
    return Route(out.step, out.origin, tuple(stages), here.inverse, here.origin, out.size[0], (0, 0, 0))


def _lattice(nodes: Nodes, out: _Frame, before: list[Linear] | None) -> Lattice:
    """A lattice as a stage; `before`, the stages before it, is None if one of them is a lattice."""
    frame = _frame(nodes.grid)
    table, direct = None, False
    if before is not None:
        fold = _folded(before)
        whole = frame.inverse @ fold.matrix @ out.step
        axes = aligned_axes(whole * np.asarray(out.size))
        if axes is not None:
            x = _positions(out, before, frame, axes)
            direct = nodes.kind != "spline" and _coincide(axes, x, frame.size)
            table = None if direct else _expansion(nodes, frame.size, axes, x)
    return Lattice(nodes.padded, frame.inverse, frame.origin, nodes.kind, nodes.order, table, direct)


def _positions(out: _Frame, before: list[Linear], frame: _Frame, axes: tuple[int, ...]) -> list[FloatArray]:
    """For every output axis the lattice index of its voxels, along the lattice axis it runs along."""
    x = []
    for j, n in enumerate(out.size):
        p = out.origin + out.step[:, j] * np.arange(n, dtype=np.float64)[:, None]
        for stage in before:
            p = _apply(stage.matrix, p) + stage.offset
        x.append(_apply(frame.inverse, p - frame.origin)[:, axes[j]])
    return x


def _coincide(axes: tuple[int, ...], x: list[FloatArray], size: tuple[int, int, int]) -> bool:
    """Whether the output's voxels are the nodes, each the one of its own index."""
    return axes == (0, 1, 2) and all(
        k.size == n and bool(np.abs(k - np.arange(n)).max() <= 1e-9) for k, n in zip(x, size, strict=True)
    )


def _expansion(nodes: Nodes, size: tuple[int, int, int], axes: tuple[int, ...], x: list[FloatArray]) -> Separable:
    """The lattice on the whole output, by one table for each of its axes."""
    tables, dst_axis, n_dst, start = [], [], [], []
    for axis in (2, 1, 0):
        out = axes.index(axis)
        at, n = x[out], size[axis]
        if nodes.kind == "spline" and n > 1:
            first, table = _spline_table(at, n, nodes.order)
        else:
            rows = np.flatnonzero(taps.inside(at, n, None))
            first, last = (int(rows[0]), int(rows[-1]) + 1) if rows.size else (0, 0)
            rule = FILTERS["nearest" if nodes.kind == "nearest" else "linear"]
            table = taps.build(rule, at[first:last], n, precision="uncut")
        tables.append(table)
        dst_axis.append(2 - out)
        n_dst.append(at.size)
        start.append(first)
    t = (tables[0], tables[1], tables[2])
    # z before x: whole rows of nodes are blended, and a row is widened last.
    order = tuple(axis for axis, table in enumerate(t) if not table.is_identity)
    return Separable(
        t, order, (dst_axis[0], dst_axis[1], dst_axis[2]), (n_dst[0], n_dst[1], n_dst[2]),
        (start[0], start[1], start[2]), "double",
    )  # fmt: skip


def _spline_table(x: FloatArray, n: int, order: int) -> tuple[int, TapTable]:
    """The first voxel inside a spline's domain, and the table of all that are."""
    lo, hi = 0.5 * (order - 1), n - 0.5 * (order - 1) - 1.0
    # ITK takes what is within 4 units of the last place of the upper face as just inside; there is no such rule below.
    last = np.float64(hi).view(np.int64)
    on_face = (x > 0.0) & (np.abs(x.view(np.int64) - last) <= 4) if hi > 0.0 else np.zeros(x.size, np.bool_)
    rows = np.flatnonzero(on_face | ((x >= lo) & (x < hi)))
    if not rows.size:
        nothing = np.zeros(0, np.int64)
        return 0, TapTable(n, nothing, nothing, np.zeros((0, 1)))
    start, stop = int(rows[0]), int(rows[-1]) + 1
    at = np.where(on_face, (last - 6).view(np.float64), x)[start:stop]
    first = np.floor(at + 0.5 - 0.5 * order).astype(np.int64)
    u: FloatArray = at - first
    weight = np.empty((at.size, order + 1))
    for k in range(order + 1):
        weight[:, k] = spline_kernel(order, u)
        u = u - 1.0
    return start, taps.trim(n, first, weight, 0.0)


def spline_kernel(order: int, u: FloatArray) -> FloatArray:
    """The B-spline of an order at distance `u` from a control point, in ITK's order of operations."""
    a = np.abs(u)
    s = a * a
    if order == 1:
        return np.where(a < 1.0, 1.0 - a, 0.0)
    if order == 2:
        return np.where(a < 0.5, 0.75 - s, np.where(a < 1.5, (9.0 - 12.0 * a + 4.0 * s) * 0.125, 0.0))
    near, far = (4.0 - 6.0 * s + 3.0 * s * a) / 6.0, (8.0 - 12.0 * a + 6.0 * s - s * a) / 6.0
    return np.where(a < 1.0, near, np.where(a < 2.0, far, 0.0))


# --- bounds --------------------------------------------------------------------------------------------------------


def source_box(where: Route, block: Block) -> list[tuple[float, float]]:
    """Where a block of the output may lie on the source.

    Parameters
    ----------
    where : Route
    block : three pairs of int
        Half-open ranges z, y, x of voxels, counted from `where.start`.

    Returns
    -------
    list of three pairs of float
        For z, y, x: the smallest and the largest continuous source index that a voxel of the block may have. Exact to
        rounding for lines; else what the vectors allow that the block may meet. Voxels whose vectors or positions are
        not finite are left out, as they take the default value.
    """
    lo = np.array([r[0] + s for r, s in zip(block[::-1], where.start, strict=True)], np.float64)
    hi = np.array([r[1] - 1 + s for r, s in zip(block[::-1], where.start, strict=True)], np.float64)
    far = np.maximum(np.abs(lo), np.abs(hi))
    # Points of the block are base + matrix @ index + rest, with rest between two corners; size is the largest number
    # that is summed on the way, for its rounding error.
    base, matrix, rest = where.origin, where.step, (np.zeros(3), np.zeros(3))
    size = np.abs(base) + np.abs(matrix) @ far
    for stage in where.stages:
        if isinstance(stage, Linear):
            base = stage.matrix @ base + stage.offset
            matrix = stage.matrix @ matrix
            rest = _spread(stage.matrix, *rest)
            size = np.abs(stage.matrix) @ size + np.abs(stage.offset)
            continue
        box = _interval(stage.inverse, stage.origin, base, matrix, rest, lo, hi, size)
        low, high = _hull(stage, box)
        rest = rest[0] + low, rest[1] + high
        size = size + np.maximum(np.abs(low), np.abs(high))
    first, last = _interval(where.inverse, where.origin_in, base, matrix, rest, lo, hi, size)
    return list(zip(first.tolist(), last.tolist(), strict=True))[::-1]


def reaches(where: Route, n_dst: tuple[int, int, int], box: tuple[tuple[float, float], ...]) -> bool:
    """Whether a voxel of the output may lie in a box of continuous source indices.

    Large lattices are only read if the path without them misses the box.

    Parameters
    ----------
    where : Route
    n_dst : three int
        Size z, y, x of the output.
    box : three pairs of float
        For z, y, x: lower bound included, upper excluded.
    """
    block = ((0, n_dst[0]), (0, n_dst[1]), (0, n_dst[2]))
    if where.lines:
        # Most often the middle is there, which costs less to know than a box.
        only = where.stages[0]
        assert isinstance(only, Linear)
        middle = np.array([n // 2 + s for n, s in zip(n_dst[::-1], where.start, strict=True)], np.float64)
        point = only.matrix @ (where.origin + where.step @ middle) + only.offset - where.origin_in
        at = (where.inverse @ point).tolist()
        if all(low <= x < high for x, (low, high) in zip(at, box[::-1], strict=True)):
            return True

    def meet(route: Route) -> bool:
        pairs = zip(source_box(route, block), box, strict=True)
        return all(lo < high and hi >= low for (lo, hi), (low, high) in pairs)

    still = tuple(s for s in where.stages if isinstance(s, Linear))
    large = any(math.prod(s.vectors.shape[:3]) > FEW_NODES for s in where.stages if isinstance(s, Lattice))
    return (large and meet(replace(where, stages=still))) or meet(where)


def _spread(matrix: FloatArray, low: FloatArray, high: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The box around a matrix times a box."""
    a, b = matrix * low, matrix * high
    return np.minimum(a, b).sum(axis=1), np.maximum(a, b).sum(axis=1)


def _interval(
    inverse: FloatArray,
    origin: FloatArray,
    base: FloatArray,
    matrix: FloatArray,
    rest: tuple[FloatArray, FloatArray],
    lo: FloatArray,
    hi: FloatArray,
    size: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest index x, y, z on a grid of points `base + matrix @ i + rest`, for i from `lo` to `hi`."""
    centre = inverse @ (base - origin)
    a, b = _spread(inverse @ matrix, lo, hi)
    c, d = _spread(inverse, *rest)
    slack = SLACK * EPS * (np.abs(inverse) @ (size + np.abs(origin)))
    return centre + a + c - slack, centre + b + d + slack


def _hull(lattice: Lattice, box: tuple[FloatArray, FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest displacement x, y, z that points in a box of lattice indices can get."""
    ranges, may_leave = [], False
    for lo, hi, n in zip(*(b.tolist() for b in box), lattice.vectors.shape[2::-1], strict=True):
        spline = lattice.kind == "spline"
        half = 0.5 * (lattice.order - 1)
        low, high = (half, n - 1.0 - half) if spline else (-0.5, n - 0.5)
        if spline and n == 1:
            low, high = -math.inf, math.inf
        # NaN compares as false: nothing is known of where such a block lies.
        if hi < low or lo > high:
            return np.zeros(3), np.zeros(3)
        may_leave = may_leave or not (lo >= low and hi < high)
        first, last = lo if lo > -1.0 else -1.0, hi if hi < n else float(n)
        if spline:
            a, b = math.floor(first - half), math.floor(last - half) + lattice.order
        else:
            a, b = math.floor(first), math.floor(last) + 1
        ranges.append((min(max(a, 0), n - 1), min(max(b, 0), n - 1) + 1))
    low_v, high_v = _extremes(lattice, ranges)
    if may_leave:
        low_v, high_v = np.minimum(low_v, 0.0), np.maximum(high_v, 0.0)
    return low_v, high_v


# Smallest and largest vectors of bricks, for large lattices; made when a block first asks for them.
_bricks: WeakKeyDictionary[Lattice, tuple[Array, Array]] = WeakKeyDictionary()


def _extremes(lattice: Lattice, ranges: list[Range]) -> tuple[FloatArray, FloatArray]:
    """Smallest and largest finite vectors of the nodes in ranges x, y, z."""
    vectors = lattice.vectors
    if math.prod(b - a for a, b in ranges) > FEW_NODES:
        if lattice not in _bricks:
            _bricks[lattice] = _brick(vectors)
        low, high = _bricks[lattice]
        ranges = [(a // BRICK, -(-b // BRICK)) for a, b in ranges]
    else:
        low = high = vectors
    part = tuple(slice(a, b) for a, b in reversed(ranges))
    return _finite_extremes(low[part], high[part])


def _finite_extremes(low: Array, high: Array) -> tuple[FloatArray, FloatArray]:
    # One axis after the other: NumPy is many times faster along rows than over three axes at once.
    first, last = low, high
    for _ in range(3):
        first, last = np.fmin.reduce(first, axis=0), np.fmax.reduce(last, axis=0)
    if not (np.isfinite(first).all() and np.isfinite(last).all()):
        first = np.where(np.isfinite(low), low, np.inf).min(axis=(0, 1, 2))
        last = np.where(np.isfinite(high), high, -np.inf).max(axis=(0, 1, 2))
        nothing = first > last
        first, last = np.where(nothing, 0.0, first), np.where(nothing, 0.0, last)
    return first.astype(np.float64), last.astype(np.float64)


def _brick(vectors: Array) -> tuple[Array, Array]:
    """Smallest and largest finite vectors of every brick; NaN for a brick that has none."""
    parts = []
    for reduce in (np.fmin, np.fmax):
        slabs = [reduce.reduce(vectors[z : z + BRICK], axis=0) for z in range(0, vectors.shape[0], BRICK)]
        part = np.stack(slabs)
        for axis in (1, 2):
            part = reduce.reduceat(part, np.arange(0, part.shape[axis], BRICK), axis=axis)
        parts.append(part)
    # Infinite vectors go the way of NaN, which these functions pass over.
    if np.isinf(parts).any():
        return _brick(np.where(np.isfinite(vectors), vectors, np.nan))
    return parts[0], parts[1]
