"""What is compared: an image, or a box of it, on the grids that both libraries are given."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.bench import cases
from gpuresample.bench.bounds import unit_of
from gpuresample.bench.cases import Geometry
from gpuresample.caching import cached_property
from gpuresample.containers import Container, ImageContainer
from gpuresample.containers.voxels import finite_range
from gpuresample.planning.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

Array = npt.NDArray[Any]
Box = tuple[tuple[int, ...], tuple[int, ...]]  # first voxel and size along x, y(, z)

# Volumes of a time series, channels of a vector.
MOST_CHANNELS = 4
# An axis is not cut below this: filters reach some ten voxels.
LEAST = 24
# Integers beyond are not all floats.
EXACT_FLOATS = 2**53
# Of a label map: SimpleITK's time grows with the number of labels. Other images are cut into so many classes.
MOST_LABELS, CLASSES = 64, 8
_LATTICE = 17


@dataclass(frozen=True, eq=False)
class Sample:
    """An image for both libraries, and where it goes.

    Attributes
    ----------
    array : ndarray, shape (..., z, y, x) or (..., y, x)
        Voxels, leading axes the channels.
    geometry : Geometry
        Grids of this array and of the result, and the transform.
    images : bool
        Whether gpuresample is given SimpleITK images too, else volumes of NumPy arrays.
    """

    array: Array
    geometry: Geometry
    images: bool

    @cached_property
    def theirs(self) -> list[SimpleITK.Image]:
        """SimpleITK's images, one for every channel."""
        return [cases.image(volume, self.geometry.source) for volume in self._volumes(_known(self.array))]

    @cached_property
    def ours(self) -> Any:
        """The image as gpuresample is given it."""
        grid = self.geometry.source
        leading = self.array.ndim - grid.dimension
        if self.images and not leading:
            return self.theirs[0]
        if leading and (self.images or grid.dimension == 2):
            pixels = np.moveaxis(self._flat(self.array), 0, -1)
            return cases.image(np.ascontiguousarray(pixels), grid, vectors=True)
        return cases.volume(self.array, grid)

    @cached_property
    def span(self) -> tuple[float, float]:
        """Smallest and largest finite value."""
        return finite_range(self.array)[:2]

    @property
    def unit(self) -> float:
        """What errors are measured in."""
        return unit_of(*self.span)

    @cached_property
    def finite(self) -> bool:
        """Whether no voxel is NaN or infinite."""
        return self.array.dtype.kind != "f" or bool(np.isfinite(self.array).all())

    @cached_property
    def ranks(self) -> Array | None:
        """The values that voxels have, in order, if SimpleITK's floats cannot tell them apart."""
        wide = self.array.dtype.kind in "iu" and max(abs(v) for v in self.span) >= EXACT_FLOATS
        return np.unique(self.array) if wide else None

    def of(self, array: Array) -> Sample:
        """The same geometry with other voxels."""
        return replace(self, array=array)

    def filled(self) -> Sample:
        """The middle of the range in place of NaN and infinities."""
        middle = self.array.dtype.type(sum(self.span) / 2)
        return self.of(np.where(np.isfinite(self.array), self.array, middle))

    def labels(self) -> tuple[Sample, bool]:
        """A label map: the image itself where it is one, else its values in a few classes, and which of both."""
        if self.array.dtype.kind in "biu" and np.unique(self.array).size <= MOST_LABELS:
            return self, True
        values = self.array if self.finite else self.filled().array
        steps = np.quantile(values.astype(np.float64), np.linspace(0, 1, CLASSES + 1)[1:-1])
        return self.of(np.digitize(values, steps).astype(np.uint8)), False

    def ranked(self) -> Sample:
        """Ranks in place of values that no float holds."""
        assert self.ranks is not None
        return self.of(np.searchsorted(self.ranks, self.array).astype(np.uint32))

    def _flat(self, array: Array) -> Array:
        return array.reshape(-1, *self.geometry.source.size[::-1])

    def _volumes(self, array: Array) -> list[Array]:
        return list(self._flat(array))


def _known(array: Array) -> Array:
    """Voxels in a type that SimpleITK has."""
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return array.astype(np.float32) if array.dtype == np.float16 else array


def samples_of(
    container: Container, target: Grid, transform: SimpleITK.Transform | None, limits: tuple[int | None, ...]
) -> list[Sample]:
    """The image, or a box of it for every limit to the number of voxels, None for the whole.

    Parameters
    ----------
    container : Container
        The image.
    target : Grid
        Where it goes.
    transform : SimpleITK.Transform, optional
    limits : tuple of int or None
    """
    grid = container.grid
    d = grid.dimension
    held: Any = container.array
    array: Array = np.asarray(held if container.where == "cpu" else held.get())
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    flat = array.reshape(-1, *array.shape[-d:])
    if len(flat) > MOST_CHANNELS:
        flat = flat[np.linspace(0, len(flat) - 1, MOST_CHANNELS).round().astype(int)]
    images = isinstance(container, ImageContainer) and (array.ndim == d or container.components > 0)
    found: dict[tuple[Box, Box], Sample] = {}
    out = []
    for limit in limits:
        boxes = _whole(grid, target) if limit is None else cut(grid, target, transform, max(1, limit // len(flat)))
        if boxes not in found:
            (start, size), (there, wanted) = boxes
            inner = tuple(slice(lo, lo + n) for lo, n in zip(start[::-1], size[::-1], strict=True))
            piece = np.ascontiguousarray(flat[(slice(None), *inner)])
            geometry = Geometry("verify", part(grid, start, size), part(target, there, wanted), transform)
            found[boxes] = Sample(piece[0] if array.ndim == d else piece, geometry, images)
        out.append(found[boxes])
    return out


def part(grid: Grid, start: tuple[int, ...], size: tuple[int, ...]) -> Grid:
    """The grid of a box of a grid's voxels."""
    if not any(start):
        return Grid(size, grid.spacing, grid.origin, grid.direction)
    origin = grid.points(np.asarray([start], np.float64))[0]
    return Grid(size, grid.spacing, tuple(origin.tolist()), grid.direction)


def _whole(source: Grid, target: Grid) -> tuple[Box, Box]:
    return ((0,) * source.dimension, source.size), ((0,) * target.dimension, target.size)


def cut(source: Grid, target: Grid, transform: SimpleITK.Transform | None, most: int) -> tuple[Box, Box]:
    """A box of the input and the box of the output that lies on it, both of at most about `most` voxels.

    The box is the input's centre; where the output leaves that out, what is nearest to it of what the output meets.
    """
    if max(source.voxels, target.voxels) <= most:
        return _whole(source, target)
    index, x = _lattice(source, target, transform, *_whole(source, target)[1])
    middle = (np.asarray(source.size) - 1) / 2
    inside = ((x >= -0.5) & (x < middle * 2 + 0.5)).all(axis=-1)
    if not inside.any():
        # Nothing but default values: any part will do.
        return _centred(source, middle, most), _centred(target, (np.asarray(target.size) - 1) / 2, most)
    centre = x[inside][np.square(x[inside] - middle).sum(axis=-1).argmin()]
    budget = float(most)
    while True:
        box = _centred(source, centre if len(index) else middle, int(budget))
        there = _covering(source, target, transform, box)
        if np.prod(there[1], dtype=float) <= most or budget < LEAST:
            return box, there
        budget *= 0.8


def _centred(grid: Grid, centre: npt.NDArray[np.float64], most: int) -> Box:
    """A box of a grid about an index, of the grid's proportions as far as `LEAST` allows."""
    n = np.asarray(grid.size)
    factor, size = 1.0, n
    while np.prod(size, dtype=float) > most and factor > 1e-4:
        factor *= 0.97
        size = np.minimum(n, np.maximum(np.minimum(LEAST, max(2, int(most ** (1 / n.size)))), np.rint(n * factor)))
    size = size.astype(int)
    start = np.clip(np.rint(centre - (size - 1) / 2), 0, n - size).astype(int)
    return tuple(start.tolist()), tuple(size.tolist())


def _covering(source: Grid, target: Grid, transform: SimpleITK.Transform | None, box: Box) -> Box:
    """The box of `target` whose voxels lie on a box of `source`, and a voxel or two more."""
    start, size = _whole(source, target)[1]
    low, high = np.asarray(box[0]) - 0.5, np.asarray(box[0]) + np.asarray(box[1]) - 0.5
    for _ in range(3):
        index, x = _lattice(source, target, transform, start, size)
        # Between two points of the lattice there may be voxels on the box though neither point is.
        reach = np.zeros(x.shape[-1])
        for axis in range(index.shape[-1]):
            if x.shape[axis] > 1:
                reach = np.maximum(reach, np.abs(np.diff(x, axis=axis)).reshape(-1, x.shape[-1]).max(axis=0))
        met = index[((x >= low - reach) & (x <= high + reach)).all(axis=-1)]
        if not met.size:
            break
        first, last = met.min(axis=0), met.max(axis=0)
        start, size = tuple(first.astype(int).tolist()), tuple((last - first + 1).astype(int).tolist())
    return start, size


def _lattice(
    source: Grid, target: Grid, transform: SimpleITK.Transform | None, start: tuple[int, ...], size: tuple[int, ...]
) -> tuple[Array, Array]:
    """Indices of a lattice over a box of `target`, ends included, and where they lie on `source`."""
    ticks = [np.unique(np.linspace(lo, lo + n - 1, _LATTICE).round()) for lo, n in zip(start, size, strict=True)]
    index = np.array(list(itertools.product(*ticks)))
    points = target.points(index)
    if transform is not None:
        points = np.array([transform.TransformPoint(row) for row in points.tolist()])
    x = source.indices(points)
    shape = (*[len(t) for t in ticks], len(ticks))
    return index.reshape(shape), x.reshape(shape)
