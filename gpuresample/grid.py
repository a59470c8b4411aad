"""Where voxels lie in space: the one coordinate rule.

A `Grid` is SimpleITK's geometry: tuples in x, y, z order, `point = origin + direction @ (spacing * index)`.
`map_indices` answers where every voxel of one grid lies on another, in SimpleITK's own order of floating-point
operations (`itk::ResampleImageFilter`, linear-threaded path), so that what is inside, which voxel is nearest
and which way a tie goes are SimpleITK's too.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from gpuresample.checks import numbers, one_of, positive_numbers, sizes
from gpuresample.filters import FloatArray

# Far above any volume, far below where sizes stop being exact.
MOST_VOXELS = 2**40

ANCHORS = ("first", "edge", "center")

# Two grids count as aligned when no voxel strays further than this off the axis, in voxels. Oblique headers
# in float32 leave 1e-16 here once output and input share them; real rotations leave 1e-3 and more.
ALIGNED = 1e-9


@dataclass(frozen=True)
class Grid:
    """Voxel grid in physical space.

    Attributes
    ----------
    size : tuple of int
        Voxels along x, y(, z).
    spacing : tuple of float
        Distance between voxel centres, in physical units (mm for medical files).
    origin : tuple of float
        Centre of the first voxel.
    direction : tuple of float
        Row-major direction cosines, `dimension ** 2` numbers.

    Raises
    ------
    ValueError, TypeError
        For counts that differ, sizes below 1, spacing that is not above zero, numbers that are not finite, a
        direction without inverse.
    """

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        d = len(self.size)
        if d not in (2, 3):
            raise ValueError(f"size must have 2 or 3 values, one per axis, got {self.size!r}")
        set_ = object.__setattr__
        set_(self, "size", sizes("size", self.size, d))
        set_(self, "spacing", positive_numbers("spacing", self.spacing, d))
        set_(self, "origin", numbers("origin", self.origin, d))
        set_(self, "direction", numbers("direction", self.direction, d * d))
        determinant = abs(np.linalg.det(np.reshape(self.direction, (d, d))))
        if determinant < 1e-6:
            raise ValueError(f"direction must have an inverse, got {self.direction!r}")

    @classmethod
    def of_size(cls, size: tuple[int, ...], spacing: tuple[float, ...] | None = None) -> Grid:
        """A grid at the origin, along the axes, with unit spacing unless given."""
        d = len(size)
        return cls(size, spacing or (1.0,) * d, (0.0,) * d, tuple(np.eye(d).ravel().tolist()))

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.size)

    @property
    def voxels(self) -> int:
        """How many there are."""
        return math.prod(self.size)

    @cached_property
    def index_to_point(self) -> FloatArray:
        """Matrix from index to physical offset: direction times spacing."""
        d = self.dimension
        return np.reshape(self.direction, (d, d)) * np.asarray(self.spacing)

    @cached_property
    def point_to_index(self) -> FloatArray:
        """Inverse of `index_to_point`, to the bit the one SimpleITK uses.

        ITK inverts by a pseudo-inverse (SVD). It is exactly 1/spacing without rotation; with one, SimpleITK is
        asked, as no other inverse has the same last bits.
        """
        return _point_to_index(self.spacing, self.direction)

    def points(self, index: FloatArray) -> FloatArray:
        """Physical points of indices `[n, dimension]`, summed in ITK's order: origin, then x, y, z."""
        p = np.broadcast_to(np.asarray(self.origin), index.shape).copy()
        for j in range(self.dimension):
            p += self.index_to_point[:, j] * index[:, j : j + 1]
        return p

    def indices(self, point: FloatArray) -> FloatArray:
        """Continuous indices of physical points `[n, dimension]`, in ITK's order."""
        v = point - np.asarray(self.origin)
        x = np.zeros_like(v)
        for j in range(self.dimension):
            x += self.point_to_index[:, j] * v[:, j : j + 1]
        return x


@lru_cache(maxsize=256)
def _point_to_index(spacing: tuple[float, ...], direction: tuple[float, ...]) -> FloatArray:
    """See `Grid.point_to_index`: SimpleITK is asked once for a spacing and a direction."""
    d = len(spacing)
    if direction == tuple(np.eye(d).ravel()):
        matrix = np.diag([1.0 / s for s in spacing])
    else:
        import SimpleITK as sitk

        probe = sitk.Image([1] * d, sitk.sitkUInt8)
        probe.SetSpacing(spacing)
        probe.SetDirection(direction)
        columns = [probe.TransformPhysicalPointToContinuousIndex(unit.tolist()) for unit in np.eye(d)]
        matrix = np.array(columns).T
    matrix.setflags(write=False)
    return matrix


def resized(
    grid: Grid,
    spacing: tuple[float, ...] | None = None,
    size: tuple[int, ...] | None = None,
    anchor: str = "first",
) -> Grid:
    """The grid that covers `grid`'s extent with another spacing and/or size.

    Parameters
    ----------
    grid : Grid
        The grid to cover.
    spacing : tuple of float, optional
        New spacing. Without `size`, the size is `round(size * spacing / new_spacing)`, half to even, at least 1.
    size : tuple of int, optional
        New size. Without `spacing`, the spacing is what keeps the extent.
    anchor : {"first", "edge", "center"}
        What stays where it is: the centre of the first voxel; the outer faces of the volume; the centres of
        its corner voxels. "center" decides the spacing itself, `spacing * (n - 1) / (m - 1)`; together with
        a given `spacing` it only takes the size from it.

    Raises
    ------
    ValueError
        For values out of range, or `anchor="center"` with both spacing and size.
    """
    one_of("anchor", anchor, ANCHORS)
    d = grid.dimension
    old = np.asarray(grid.spacing)
    n = np.asarray(grid.size)
    if spacing is not None:
        spacing = positive_numbers("spacing", spacing, d)
    if size is not None:
        size = sizes("size", size, d)
    if spacing is None and size is None:
        raise ValueError("nothing asked: give spacing, size, like or transform")
    if anchor == "center" and spacing is not None and size is not None:
        raise ValueError(
            'anchor="center" decides the spacing from the size; give spacing or size, not both '
            f"(got spacing={spacing!r}, size={size!r})"
        )
    if size is None:
        assert spacing is not None
        with np.errstate(over="ignore"):
            wanted = (n * old / np.asarray(spacing)).tolist()
        if max(wanted) > MOST_VOXELS:
            raise ValueError(f"spacing must not ask for more than {MOST_VOXELS} voxels on an axis, got {spacing!r}")
        size = tuple(max(1, round(k)) for k in wanted)
    m = np.asarray(size)
    if anchor == "center":
        new = np.where(m > 1, old * np.maximum(n - 1, 1) / np.maximum(m - 1, 1), old * n)
        # The corner voxels of an axis of one voxel coincide: samples are kept within half of it.
        new = np.where((n == 1) & (m > 1), old / (2 * m), new)
        shift = np.zeros(d)
    else:
        new = old * n / m if spacing is None else np.asarray(spacing)
        shift = (new - old) / 2 if anchor == "edge" else np.zeros(d)
    direction = np.reshape(grid.direction, (d, d))
    origin = np.asarray(grid.origin) + direction @ shift if shift.any() else np.asarray(grid.origin)
    return Grid(size, tuple(new.tolist()), tuple(origin.tolist()), grid.direction)


class Transform:
    """A SimpleITK transform from points of the output's space to the input's, hashable by its parameters."""

    def __init__(self, transform: Any, dimension: int) -> None:
        self.sitk = transform
        self.dimension = dimension
        self.key = _transform_key(transform)

    @classmethod
    def of(cls, transform: Any, dimension: int) -> Transform | None:
        """Check `transform`; None for the identity, whatever its dimension (as SimpleITK accepts it)."""
        import SimpleITK as sitk

        if not isinstance(transform, sitk.Transform):
            raise TypeError(f"transform must be a SimpleITK.Transform, got {type(transform).__name__}")
        if transform.GetTransformEnum() == sitk.sitkIdentity:
            return None
        if transform.GetDimension() != dimension:
            raise ValueError(
                f"transform must have the image's dimension {dimension}, "
                f"got a {transform.GetDimension()}-D {transform.GetName()}"
            )
        return cls(transform, dimension)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self.key == other.key

    @property
    def is_linear(self) -> bool:
        """Whether it is one matrix and an offset (ITK's transform category Linear)."""
        return bool(self.sitk.IsLinear())

    def points(self, p: FloatArray) -> FloatArray:
        """Map points `[n, dimension]` by SimpleITK itself."""
        return np.array([self.sitk.TransformPoint(row) for row in p.tolist()])

    @cached_property
    def affine(self) -> tuple[FloatArray, FloatArray]:
        """Matrix and offset of a linear transform."""
        offset = np.asarray(self.sitk.TransformPoint([0.0] * self.dimension))
        return _matrix(self.sitk, self.dimension), offset


def _members(transform: Any) -> list[Any]:
    """Members of a composite in order of application (the last added acts first), or the transform alone."""
    import SimpleITK as sitk

    plain = transform.Downcast()
    if isinstance(plain, sitk.CompositeTransform):
        n = plain.GetNumberOfTransforms()
        return [m for i in reversed(range(n)) for m in _members(plain.GetNthTransform(i))]
    return [plain]


def _matrix(transform: Any, dimension: int) -> FloatArray:
    matrix = np.eye(dimension)
    for member in _members(transform):
        if hasattr(member, "GetMatrix"):
            step = np.reshape(member.GetMatrix(), (dimension, dimension))
        else:
            zero = np.asarray(member.TransformPoint([0.0] * dimension))
            step = np.array([np.asarray(member.TransformPoint(e.tolist())) - zero for e in np.eye(dimension)]).T
        matrix = step @ matrix
    return matrix


def _transform_key(transform: Any) -> tuple[Any, ...]:
    if not transform.IsLinear():
        return (id(transform),)
    return tuple((m.GetName(), m.GetParameters(), m.GetFixedParameters()) for m in _members(transform))


@dataclass(frozen=True, eq=False)
class AxisMap:
    """Aligned grids: every output axis runs along one input axis.

    Attributes
    ----------
    source_axis : tuple of int
        For every output axis (x, y, z) the input axis it runs along.
    x : tuple of ndarray
        For every output axis the continuous input index of its samples, along that input axis.
    """

    source_axis: tuple[int, ...]
    x: tuple[FloatArray, ...]


@dataclass(frozen=True, eq=False)
class AffineMap:
    """Oblique grids: `index_in = inverse @ (matrix @ (origin + step @ index_out) + offset - origin_in)`.

    Kept in its parts, so that an engine can follow ITK's order of operations.
    """

    step: FloatArray
    origin: FloatArray
    matrix: FloatArray
    offset: FloatArray
    origin_in: FloatArray
    inverse: FloatArray
    n0: int

    def lines(self, yz: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Ends of the scan lines at (y, z) rows `[n, dimension - 1]`: input index at x = 0 and at x = n0."""

        def at(x: float) -> FloatArray:
            index = np.concatenate([np.full((yz.shape[0], 1), x), yz], axis=1)
            p = np.broadcast_to(self.origin, index.shape).copy()
            for j in range(index.shape[1]):
                p += self.step[:, j] * index[:, j : j + 1]
            q = np.zeros_like(p)
            for j in range(index.shape[1]):
                q += self.matrix[:, j] * p[:, j : j + 1]
            v = (q + self.offset) - self.origin_in
            out = np.zeros_like(v)
            for j in range(index.shape[1]):
                out += self.inverse[:, j] * v[:, j : j + 1]
            return out

        return at(0.0), at(float(self.n0))


@dataclass(frozen=True, eq=False)
class FieldMap:
    """Deformed grids: the transform is asked at every voxel.

    `coordinates(start, size)` gives the continuous input indices `[..., dimension]` (x, y, z last; array order
    of voxels) of the block of output voxels at x, y, z index `start`.
    """

    coordinates: Callable[[tuple[int, ...], tuple[int, ...]], FloatArray]


def map_indices(target: Grid, source: Grid, transform: Transform | None = None) -> AxisMap | AffineMap | FieldMap:
    """Where the voxels of `target` lie on `source`, as continuous indices.

    `transform` maps points of `target`'s space to `source`'s.
    """
    if transform is not None and not transform.is_linear:
        return FieldMap(_field_coordinates(target, source, transform))
    d = target.dimension
    matrix = np.eye(d) if transform is None else transform.affine[0]
    whole = source.point_to_index @ matrix @ target.index_to_point
    axes = _aligned_axes(whole * np.asarray(target.size))
    if axes is None:
        return affine_map(target, source, transform)

    def at(index: FloatArray) -> FloatArray:
        p = target.points(index)
        return source.indices(p if transform is None else transform.points(p))

    x = []
    for j, n in enumerate(target.size):
        index = np.zeros((n, d))
        if j == 0:
            # ITK walks a scan line by interpolating between its two ends, one voxel past the last included.
            index = np.zeros((2, d))
            index[1, 0] = n
            a, b = at(index)[:, axes[0]]
            x.append(a + (np.arange(n) / n) * (b - a))
        else:
            index[:, j] = np.arange(n)
            x.append(at(index)[:, axes[j]])
    return AxisMap(axes, tuple(x))


def affine_map(target: Grid, source: Grid, transform: Transform | None = None) -> AffineMap:
    """`map_indices` of a linear transform with every product in it, those that cancel on aligned grids too."""
    d = target.dimension
    matrix, offset = (np.eye(d), np.zeros(d)) if transform is None else transform.affine
    return AffineMap(
        target.index_to_point,
        np.asarray(target.origin),
        matrix,
        offset,
        np.asarray(source.origin),
        source.point_to_index,
        target.size[0],
    )


def _aligned_axes(drift: FloatArray) -> tuple[int, ...] | None:
    """Input axis of every output axis if no column of `drift` (voxels moved along an axis) has a second entry."""
    d = drift.shape[0]
    best = None
    for axes in itertools.permutations(range(d)):
        rest = np.abs(drift).copy()
        kept = sum(rest[axes[j], j] for j in range(d))
        rest[list(axes), range(d)] = 0.0
        if rest.max() <= ALIGNED and (best is None or kept > best[0]):
            best = (kept, axes)
    return None if best is None else best[1]


def _field_coordinates(
    target: Grid, source: Grid, transform: Transform
) -> Callable[[tuple[int, ...], tuple[int, ...]], FloatArray]:
    def coordinates(start: tuple[int, ...], size: tuple[int, ...]) -> FloatArray:
        import SimpleITK as sitk

        d = target.dimension
        first = target.points(np.asarray([start], dtype=np.float64))[0]
        field = sitk.TransformToDisplacementField(
            transform.sitk, sitk.sitkVectorFloat64, size, first.tolist(), target.spacing, target.direction
        )
        moved = sitk.GetArrayFromImage(field).reshape(-1, d)
        index = np.stack([np.ravel(k)[::1] for k in np.indices(size[::-1])[::-1]], axis=1) + np.asarray(start)
        moved += target.points(index.astype(np.float64))
        return source.indices(moved).reshape(*size[::-1], d)

    return coordinates


def extent(grid: Grid) -> tuple[float, ...]:
    """Physical edge lengths, faces included."""
    return tuple(math.prod(pair) for pair in zip(grid.size, grid.spacing, strict=True))
