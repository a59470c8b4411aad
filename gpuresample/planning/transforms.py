"""Where the voxels of one grid lie on another: transforms, and the maps of indices that they make.

`map_indices` answers in SimpleITK's own order of floating-point operations (`itk::ResampleImageFilter`,
linear-threaded path), so that what is inside, which voxel is nearest and which way a tie goes are SimpleITK's too.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gpuresample.planning.filters import FloatArray
from gpuresample.planning.grid import Grid

# Two grids count as aligned when no voxel strays further than this off the axis, in voxels. Oblique headers
# in float32 leave 1e-16 here once output and input share them; real rotations leave 1e-3 and more.
ALIGNED = 1e-9


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

    Raises
    ------
    ValueError
        If float64 cannot tell the neighbouring voxels of a grid apart, or a voxel's index is not finite.
    """
    check_apart(source, "input")
    check_apart(target, "output")
    if transform is not None and not transform.is_linear:
        return FieldMap(_field_coordinates(target, source, transform))
    d = target.dimension
    matrix = np.eye(d) if transform is None else transform.affine[0]

    def at(index: FloatArray) -> FloatArray:
        p = target.points(index)
        return source.indices(p if transform is None else transform.points(p))

    with np.errstate(over="ignore", invalid="ignore"):
        whole = source.point_to_index @ matrix @ target.index_to_point * np.asarray(target.size)
        corners = at(np.array(list(itertools.product(*((0.0, float(n)) for n in target.size)))))
    if not (np.isfinite(whole).all() and np.isfinite(corners).all()):
        raise ValueError(
            "the output grid must lie where the input's voxels can be counted to, got indices that are not finite: "
            f"output origin {target.origin}, input spacing {source.spacing}"
            + ("" if transform is None else f", {transform.sitk.GetName()}")
        )
    axes = _aligned_axes(whole)
    if axes is None:
        return affine_map(target, source, transform)

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
