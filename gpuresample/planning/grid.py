"""Where voxels lie in space: the one coordinate rule.

A `Grid` is SimpleITK's geometry: tuples in x, y, z order, `point = origin + direction @ (spacing * index)`.
`maps.map_indices` answers where every voxel of one grid lies on another.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from gpuresample.caching import cached_property
from gpuresample.checks import MOST_ON_AXIS, length, numbers, one_of, positive_numbers, shown, sizes
from gpuresample.planning.filters import FloatArray

ANCHORS = ("first", "edge", "center")

# Two grids count as aligned when no voxel strays further than this off the axis, in voxels. Oblique headers
# in float32 leave 1e-16 here once output and input share them; real rotations leave 1e-3 and more.
ALIGNED = 1e-9
# Voxels by which two statements of where a volume lies may differ and be one: headers hold float32.
AGREE = 0.05

# Directions of grids along the axes, by dimension.
_ALONG = {d: tuple(np.eye(d).ravel().tolist()) for d in (2, 3)}

# A size this near to a half, as a share of it, is a half: twice what a spacing in float32 can be off.
HALF = 2.0**-22


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
        d = length(self.size)
        if d not in (2, 3):
            raise ValueError(f"size must have 2 or 3 values, one per axis, got {shown(self.size)}")
        set_ = object.__setattr__
        set_(self, "size", sizes("size", self.size, d))
        set_(self, "spacing", positive_numbers("spacing", self.spacing, d))
        set_(self, "origin", numbers("origin", self.origin, d))
        set_(self, "direction", numbers("direction", self.direction, d * d))
        if self.direction == _ALONG[d]:
            return  # a determinant takes longer than all else here
        with np.errstate(over="ignore", invalid="ignore"):
            determinant = abs(np.linalg.det(np.reshape(self.direction, (d, d))))
        if not 1e-6 <= determinant < math.inf:
            raise ValueError(f"direction must have an inverse, got {shown(self.direction)}")

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
    def bits(self) -> bytes:
        """Spacing, origin and direction to the last bit: grids that differ in a sign of 0 are equal."""
        numbers = (*self.spacing, *self.origin, *self.direction)
        return struct.pack(f"{len(numbers)}d", *numbers)

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


def agree(one: FloatArray, other: FloatArray, size: Sequence[int]) -> bool:
    """Whether two affines, shape (3 or 4, 4), put the corners of a volume of x, y, z voxels to the same places."""
    ends = np.vstack([np.zeros(3), np.diag(np.maximum(np.asarray([*size, 1, 1, 1][:3]) - 1, 0))])
    a, b = (ends @ affine[:3, :3].T + affine[:3, 3] for affine in (one, other))
    return bool(np.abs(a - b).max() <= AGREE * np.linalg.norm(other[:3, :3], axis=0).min())


def aligned_axes(drift: FloatArray) -> tuple[int, ...] | None:
    """Input axis of every output axis if no column of `drift` (voxels moved along an axis) has a second entry."""
    d = drift.shape[0]
    if (np.abs(drift) > ALIGNED).sum() > d:
        return None  # at least one axis runs along two: most grids that are turned end here
    best = None
    for axes in itertools.permutations(range(d)):
        rest = np.abs(drift).copy()
        kept = sum(rest[axes[j], j] for j in range(d))
        rest[list(axes), range(d)] = 0.0
        if rest.max() <= ALIGNED and (best is None or kept > best[0]):
            best = (kept, axes)
    return None if best is None else best[1]


@lru_cache(maxsize=256)
def check_apart(grid: Grid, which: str) -> None:
    """Refuse a grid so far from the origin of space that float64 cannot tell neighbouring voxels apart.

    Raises
    ------
    ValueError
        As said, and if its corners are not finite.
    """
    corners = np.array(list(itertools.product(*((0.0, float(n)) for n in grid.size))))
    with np.errstate(all="ignore"):
        unit = np.spacing(np.abs(grid.points(corners)).max(axis=0))
        # What the last bit of a point is in voxels: from half a voxel on, neighbours may become one.
        scale = np.asarray(grid.spacing)
        inverse = np.linalg.inv(np.reshape(grid.direction, (grid.dimension,) * 2)) / scale[:, None]
        told = bool((np.abs(inverse) @ unit < 0.5).all())
    if not told:
        raise ValueError(
            f"the {which} grid must have an origin and spacing by which 64-bit floats tell neighbouring voxels apart, "
            f"got origin {grid.origin} and spacing {grid.spacing}"
        )


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
        New spacing. Without `size`, the size is `round(size * spacing / new_spacing)`, half to even, at least 1. What
        is half but for the last bits of a float32 is half: some files keep their spacing so.
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
        if max(wanted) > MOST_ON_AXIS:
            raise ValueError(f"spacing must not ask for more than {MOST_ON_AXIS} voxels on an axis, got {spacing!r}")
        size = tuple(max(1, _rounded(k)) for k in wanted)
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


def _rounded(k: float) -> int:
    """To the nearest whole number; near halves, which a spacing's float32 may have moved, to even."""
    half = math.floor(k) + 0.5
    return round(half) if abs(k - half) <= min(HALF * k, 0.25) else round(k)


def extent(grid: Grid) -> tuple[float, ...]:
    """Physical edge lengths, faces included."""
    return tuple(math.prod(pair) for pair in zip(grid.size, grid.spacing, strict=True))
