"""Named cases: volumes to resample, and grids to resample them onto.

Everything here is made, not stored, and the same on every machine: a seed and a formula. A case knows no library and
measures nothing; `peers` runs it, `measure` times it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from gpuresample import Grid, Volume
from gpuresample.planning.grid import resized

Array = npt.NDArray[Any]
Spacing = tuple[float, float, float]

LABELS = 12


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where voxels come from and where they go.

    Attributes
    ----------
    name : str
    source, target : Grid
    transform : SimpleITK.Transform or None
        From points of `target`'s space to `source`'s.
    """

    name: str
    source: Grid
    target: Grid
    transform: sitk.Transform | None = None


@dataclass(frozen=True, eq=False)
class Job:
    """One resampling that several libraries can be asked for.

    Attributes
    ----------
    volume : ndarray, shape (z, y, x)
    geometry : Geometry
    interpolation : str
        gpuresample's word.
    boundary : str or None
        gpuresample's word; None is SimpleITK's rule.
    """

    volume: Array
    geometry: Geometry
    interpolation: str
    boundary: str | None = None

    @classmethod
    def of_spacing(cls, array: Array, old: Spacing, new: Spacing, interpolation: str) -> Job:
        """An array with spacing z, y, x onto another spacing, first voxels aligned, size rounded."""
        z, y, x = array.shape
        source = Grid.of_size((x, y, z), old[::-1])
        return cls(array, Geometry("of spacing", source, resized(source, new[::-1])), interpolation)

    @property
    def old(self) -> Spacing:
        """The volume's spacing z, y, x."""
        x, y, z = self.geometry.source.spacing
        return z, y, x

    @property
    def new(self) -> Spacing:
        """The target's spacing z, y, x."""
        x, y, z = self.geometry.target.spacing
        return z, y, x

    @property
    def shape(self) -> tuple[int, int, int]:
        """The target's size z, y, x."""
        x, y, z = self.geometry.target.size
        return z, y, x

    @property
    def aligned(self) -> bool:
        """Whether the target's axes and first voxel are the source's: a grid that a spacing alone can say."""
        source, target = self.geometry.source, self.geometry.target
        same = source.direction == target.direction and source.origin == target.origin
        return same and self.geometry.transform is None

    def of_type(self, dtype: npt.DTypeLike) -> Job:
        """The same with voxels of another type."""
        volume = self.volume.astype(dtype, copy=False)
        return Job(volume, self.geometry, self.interpolation, self.boundary)


def rotation(degrees: float, axis: tuple[float, float, float] = (0.0, 0.0, 1.0)) -> Array:
    """Matrix of a right-handed rotation about `axis`."""
    unit = np.asarray(axis) / np.linalg.norm(axis)
    cross = np.array([[0, -unit[2], unit[1]], [unit[2], 0, -unit[0]], [-unit[1], unit[0], 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def turned(grid: Grid, matrix: Array) -> Grid:
    """The grid with its axes turned by `matrix` about its centre."""
    middle = np.array([[(n - 1) / 2 for n in grid.size]])
    centre = grid.points(middle)[0]
    direction = matrix @ np.reshape(grid.direction, (3, 3))
    corner = centre - direction @ (np.asarray(grid.spacing) * middle[0])
    return Grid(grid.size, grid.spacing, tuple(corner.tolist()), tuple(direction.ravel().tolist()))


# The reference job: a thin-slice chest CT onto the grid of a network.
REFERENCE = Geometry(
    "reference",
    Grid.of_size((512, 512, 247), (0.78125, 0.78125, 1.0)),
    Grid.of_size((400, 400, 124), (1.0, 1.0, 2.0)),
)


def oblique(geometry: Geometry, degrees: float = 10.0) -> Geometry:
    """The same grids with the target turned about an axis along none of the volume's, so that nothing is aligned."""
    return Geometry(
        f"{geometry.name}, oblique", geometry.source, turned(geometry.target, rotation(degrees, (1.0, 1.0, 1.0)))
    )


def small(geometry: Geometry, factor: int) -> Geometry:
    """The same spacings with fewer voxels on every axis, for a quick look."""
    grids = [
        Grid(tuple(-(-n // factor) for n in g.size), g.spacing, g.origin, g.direction)
        for g in (geometry.source, geometry.target)
    ]
    return Geometry(f"{geometry.name} / {factor}", *grids)


# -- geometries for parity, each made from a source grid -------------------------------------------------------------


def finer(source: Grid) -> Geometry:
    """More voxels on every axis; the last ones lie outside.

    Factors here have four odd digits, so that no sample lands halfway between voxels: there the last bit of a
    coordinate decides, and on oblique headers that bit is SimpleITK's own (see `halves` for ties that are not).
    """
    spacing = tuple(s * f for s, f in zip(source.spacing, (0.8317, 0.7731, 0.7109), strict=True))
    return Geometry("finer", source, resized(source, spacing))


def coarser(source: Grid) -> Geometry:
    """Fewer voxels on every axis."""
    spacing = tuple(s * f for s, f in zip(source.spacing, (1.2843, 1.2843, 1.3719), strict=True))
    return Geometry("coarser", source, resized(source, spacing))


def halves(source: Grid) -> Geometry:
    """Half the spacing: every second sample lies exactly between two voxels. For modes that must choose one."""
    return Geometry("ties", source, resized(source, tuple(0.5 * s for s in source.spacing)))


def partly_outside(source: Grid) -> Geometry:
    """A grid moved along all axes, so that a part of it leaves the volume on both sides."""
    grid = resized(source, tuple(1.1307 * s for s in source.spacing))
    shift = np.reshape(grid.direction, (3, 3)) @ (np.asarray(source.spacing) * (-9.3171, 7.7093, -5.1067))
    origin = tuple((np.asarray(grid.origin) + shift).tolist())
    return Geometry("partly outside", source, Grid(grid.size, grid.spacing, origin, grid.direction))


def permuted(source: Grid) -> Geometry:
    """Axes in another order, two of them reversed: output x runs along -z, y along x, z along -y."""
    order, sign = (2, 0, 1), (-1.0, 1.0, -1.0)
    axes = np.reshape(source.direction, (3, 3))
    direction = np.stack([s * axes[:, a] for a, s in zip(order, sign, strict=True)], axis=1)
    spacing = np.array([source.spacing[a] for a in order]) * (0.9103, 1.1711, 1.0907)
    size = tuple(round(source.size[a] * source.spacing[a] / s) for a, s in zip(order, spacing, strict=True))
    first = [0.3017 if s > 0 else source.size[a] - 1.3029 for a, s in zip(order, sign, strict=True)]
    index = np.zeros((1, 3))
    index[0, list(order)] = first
    origin = tuple(source.points(index)[0].tolist())
    grid = Grid(size, tuple(spacing.tolist()), origin, tuple(direction.ravel().tolist()))
    return Geometry("flipped, permuted", source, grid)


def tilted(source: Grid) -> Geometry:
    """An oblique header that input and output share: aligned to each other, to nothing else."""
    grid = turned(source, rotation(23.0, (0.3, -1.0, 0.4)))
    return Geometry("oblique header", grid, coarser(grid).target)


def turned_target(source: Grid) -> Geometry:
    """A target whose axes are oblique to the source's."""
    return Geometry("oblique direction", source, turned(coarser(source).target, rotation(17.0, (0.4, 0.3, 1.0))))


def rotated(source: Grid) -> Geometry:
    """A rotation transform about the volume's centre."""
    centre = source.points(np.array([[(n - 1) / 2 for n in source.size]]))[0]
    transform = sitk.Euler3DTransform(centre.tolist(), 0.11, -0.07, 0.17, (0.37, -0.91, 0.53))
    return Geometry("rotation transform", source, coarser(source).target, transform)


def displaced(source: Grid) -> Geometry:
    """A smooth displacement field of up to two voxels."""
    target = coarser(source).target
    z, y, x = np.meshgrid(*[np.linspace(0, 2 * np.pi, n) for n in target.size[::-1]], indexing="ij")
    field = np.stack([np.sin(y) * np.cos(z), np.sin(z + 0.5 * x), np.cos(x) * np.sin(y)], axis=-1)
    vectors = image(field * np.asarray(source.spacing) * 2, target, vectors=True)
    return Geometry("displacement field", source, target, sitk.DisplacementFieldTransform(vectors))


GEOMETRIES: dict[str, Callable[[Grid], Geometry]] = {
    "finer": finer,
    "coarser": coarser,
    "partly outside": partly_outside,
    "flipped, permuted": permuted,
    "oblique header": tilted,
    "oblique direction": turned_target,
    "rotation transform": rotated,
    "displacement field": displaced,
}


def part(geometry: Geometry, size: int) -> Geometry:
    """The first corner of the target, at most `size` voxels wide: border and interior, in little time."""
    t = geometry.target
    target = Grid(tuple(min(n, size) for n in t.size), t.spacing, t.origin, t.direction)
    return Geometry(geometry.name, geometry.source, target, geometry.transform)


# -- volumes ---------------------------------------------------------------------------------------------------------

SMALL_SHAPE = (40, 64, 64)


def small_grid() -> Grid:
    """The grid of the small parity volume: awkward spacing, an origin off zero."""
    return Grid(SMALL_SHAPE[::-1], (0.78125, 0.9, 1.5), (-120.7, 33.3, 17.17), tuple(np.eye(3).ravel().tolist()))


def ct_like(shape: tuple[int, ...], dtype: npt.DTypeLike, seed: int = 0) -> Array:
    """Air, soft tissue, bone and noise: -1024 to about 1,900 in signed types, scaled into 0 to 250 in uint8.

    Made plane by plane, so that nothing but the result needs memory.
    """
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    out = np.empty(shape, kind)
    y = np.linspace(-1, 1, shape[1], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, shape[2], dtype=np.float32)[None, :]
    for plane, z in zip(out, np.linspace(-1, 1, shape[0]), strict=True):
        body = np.sqrt(x * x / 0.72 + y * y / 0.45 + 0.1 * z * z)
        bone = np.sqrt((x - 0.1 * np.sin(4 * z)) ** 2 + (y - 0.35) ** 2)
        ribs = np.abs(body - 0.9) + 0.06 * np.abs(np.sin(9 * z + 3 * np.arctan2(y, x)))
        hounsfield = np.where(body < 1, 40.0, -1000.0)
        hounsfield = np.where((np.abs(np.abs(x) - 0.42) < 0.25) & (body < 0.8), -820.0, hounsfield)
        hounsfield = np.where((bone < 0.13) | (ribs < 0.06), 1150.0, hounsfield)
        value = hounsfield + 90.0 * rng.standard_normal(plane.shape, dtype=np.float32)
        value = np.clip(value, -1024.0, 1900.0)
        if kind.kind == "u":
            value = (value + 1024.0) * (250.0 / 2924.0 if kind.itemsize == 1 else 1.0)
        plane[...] = np.rint(value) if kind.kind in "iu" else value
    return out


def label_map(shape: tuple[int, int, int], dtype: npt.DTypeLike, seed: int = 0) -> Array:
    """Blobs of labels 0 to 11: every voxel takes the label of the nearest of 60 random points."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 1, (60, 3)) * np.asarray(shape)
    label = np.concatenate([np.arange(LABELS), rng.integers(0, LABELS, 60 - LABELS)])
    best, out = np.full(shape, np.inf), np.zeros(shape, dtype)
    z, y, x = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for p, k in zip(points, label, strict=True):
        distance = (z - p[0]) ** 2 + (y - p[1]) ** 2 + (x - p[2]) ** 2
        nearer = distance < best
        best[nearer], out[nearer] = distance[nearer], k
    return out


def wide_labels(shape: tuple[int, int, int]) -> Array:
    """Labels that no float holds: odd numbers around 2**53, in uint64."""
    return label_map(shape, np.uint64) * np.uint64(3) + np.uint64(2**53 + 1)


def volume(array: Array, grid: Grid) -> Volume:
    """An array on a grid, as gpuresample takes it."""
    return Volume(array, grid.spacing, grid.origin, grid.direction)


def image(array: Array, grid: Grid, vectors: bool = False) -> sitk.Image:
    """An array on a grid, as SimpleITK takes it; the last axis is that of `vectors`."""
    out = sitk.GetImageFromArray(array, isVector=vectors)
    out.SetSpacing(grid.spacing)
    out.SetOrigin(grid.origin)
    out.SetDirection(grid.direction)
    return out
