"""Transforms as users give them: matrices, displacement fields, B-splines, paths of them, SimpleITK's.

All map points of the output's space to points of the input's, as SimpleITK's do, and all pull: to shift an image by +5,
points move by -5.

The order of numbers. `Affine`, `DisplacementField` and `BSpline` hold what the user gave, and its order is that of the
call's image:

- beside a SimpleITK image, a `Volume` or a nibabel image: x, y, z and physical units, in SimpleITK's (LPS) space;
- beside a bare array: axis order (z, y, x), in units of `input_spacing`, from the centre of the first voxel.

So rows, columns and offsets of a matrix, and components of vectors, are turned round for a bare array, and for nothing
else. Vectors that come with a geometry of their own (a SimpleITK vector image, a `Volume`, a nibabel image), and
SimpleITK's transforms, are x, y, z whatever image they meet. Nothing else in the package turns an order: `resolve` does
it, and what it makes (`planning.transforms.Transform`) is x, y, z throughout.

A bare matrix is homogeneous, of shape (d, d + 1) or (d + 1, d + 1). A 3x3 array in 3-D is refused: in 2-D it is
homogeneous, and as a linear part alone it turns about the origin of the physical space, which is seldom in the image.
`Affine(matrix, center=...)` says what is meant.
"""

from __future__ import annotations

import itertools
import math
import struct
import sys
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.caching import Recent
from gpuresample.checks import numbers, one_of, shown, whole
from gpuresample.containers import grid_of
from gpuresample.containers.vectors import vectors_of
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.grid import Grid, resized
from gpuresample.planning.transforms import Map, Nodes, Transform, of_sitk

Array = npt.NDArray[Any]

KINDS = (
    "a SimpleITK.Transform, a gpuresample.Affine, DisplacementField, BSpline or Path, "
    "or a matrix of shape (d, d + 1) or (d + 1, d + 1)"
)


class Affine:
    """A matrix and an offset: a point p goes to `matrix @ (p - center) + center + offset`.

    Beside images and volumes x, y, z and physical units; beside bare arrays axis order and `input_spacing` units.

    Parameters
    ----------
    matrix : array of shape (d, d), or (d, d + 1) or (4, 4) with the offset in the last column
        (3, 3) is a matrix of three dimensions.
    offset : float or sequence of float
        0 with a matrix that has an offset.
    center : sequence of float, optional
        The point that a rotation leaves where it is; the origin of the space unless given.

    Raises
    ------
    ValueError, TypeError
        For other shapes, and numbers that are not finite.
    """

    def __init__(
        self, matrix: npt.ArrayLike, offset: float | Sequence[float] = 0, center: Sequence[float] | None = None
    ) -> None:
        m = _numbers("matrix", matrix)
        if m.shape not in ((2, 2), (3, 3), (2, 3), (3, 4), (4, 4)):
            raise ValueError(f"matrix must have shape (d, d), (d, d + 1) or (4, 4), got shape {m.shape}")
        if m.shape == (4, 4):
            m = _without_last_row("matrix", m)
        d = m.shape[0]
        shift = numbers("offset", offset if isinstance(offset, Iterable) else (offset,) * d, d)
        if m.shape[1] > d:
            if any(shift):
                raise ValueError(f"offset must be 0 with a matrix that has one in its last column, got {shown(offset)}")
            shift, m = tuple(m[:, d].tolist()), m[:, :d]
        self.matrix: tuple[tuple[float, ...], ...] = tuple(map(tuple, m.tolist()))
        self.offset = shift
        self.center = None if center is None else numbers("center", center, d)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return len(self.offset)

    def inverse(self) -> Affine:
        """The way back.

        Raises
        ------
        ValueError
            For a matrix without an inverse.
        """
        m = np.array(self.matrix)
        if not np.linalg.cond(m) < 1.0 / np.finfo(np.float64).eps:
            raise ValueError(f"matrix must have an inverse, got {m.tolist()}")
        back = np.linalg.inv(m)
        return Affine(back, (-(back @ np.array(self.offset))).tolist(), self.center)

    def _key(self) -> tuple[Any, ...]:
        return self.matrix, self.offset, self.center

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Affine) and self._key() == other._key()

    def __repr__(self) -> str:
        return f"Affine({[list(row) for row in self.matrix]}, offset={self.offset}, center={self.center})"

    def _map(self, turned: bool) -> Map:
        """The step in x, y, z order; the offset in ITK's order of operations."""
        m, t, c = np.array(self.matrix), np.array(self.offset), self.center
        if turned:
            m, t, c = m[::-1, ::-1], t[::-1], None if c is None else c[::-1]
        if c is not None:
            t = t + np.array(c)
            for j, value in enumerate(c):
                t = t - m[:, j] * value
        return Map.of(m, t)


class DisplacementField:
    """Vectors on a grid: a point p goes to p + the vector there; outside the field it stays.

    Vectors are read where they are, at every call: they are not copied, and must not change while a call runs.

    Parameters
    ----------
    vectors : array of shape (..., z, y, x, 3), or (y, x, 2); SimpleITK.Image, Volume or nibabel image
        float32 or float64; others are converted to float64. Components are x, y, z in physical units; a bare array
        beside a bare array has them in axis order and in `input_spacing` units. Leading axes are a batch: one field for
        each volume. A `Volume` has its components as its first axis, a nibabel image as its last (of intent 1007, LPS,
        or 1006, RAS).
    like : SimpleITK.Image, Volume, nibabel image, Grid or array, optional
        Where the vectors of a bare array lie: the grid of an image; for an array, as many nodes as it has voxels, over
        the output's extent. Unless given, they lie on the output's own voxels.
    interpolation : {"linear", "nearest"}
        Between nodes.

    Raises
    ------
    ValueError, TypeError
        For vectors that do not fit the grid, or whose components are not as many as its axes.
    """

    def __init__(self, vectors: Any, like: Any = None, interpolation: str = "linear") -> None:
        self.interpolation = one_of("interpolation", interpolation, ("linear", "nearest"))
        self.vectors, self.where = _opened("vectors", vectors, like)

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.vectors.shape[-1])

    def __repr__(self) -> str:
        return f"DisplacementField(shape {self.vectors.shape}, {self.vectors.dtype})"

    def _nodes(self, vectors: Array, target: Grid) -> Nodes:
        grid = self.where.on(target)
        if vectors.shape[:-1] != grid.size[::-1]:
            raise ValueError(
                f"vectors must have the output's shape {target.size[::-1]} unless like says where they lie, "
                f"got {vectors.shape[:-1]}"
            )
        return Nodes(vectors, grid, self.interpolation)


class BSpline:
    """A B-spline of control points: a point p goes to p + the spline there; outside its domain it stays.

    Coefficients are read where they are, at every call: they are not copied, and must not change while a call runs.

    Parameters
    ----------
    coefficients : array of shape (..., z, y, x, 3), or (y, x, 2); SimpleITK.Image, Volume or nibabel image
        Displacements of the control points, as `vectors` of `DisplacementField`; at least `order + 1` on every axis.
    like : SimpleITK.Image, Volume, nibabel image, Grid or array, optional
        The grid of control points of a bare array (an array says their number). Unless it says where they lie, the
        domain of the spline is the output, from face to face.
    order : {3, 2, 1}

    Raises
    ------
    ValueError, TypeError
        For coefficients that do not fit the grid or are too few for the order.
    """

    def __init__(self, coefficients: Any, like: Any = None, order: int = 3) -> None:
        self.order = whole("order", order, "1, 2 or 3", 1, 3)
        self.coefficients, self.where = _opened("coefficients", coefficients, like)
        points = self.coefficients.shape[-self.dimension - 1 : -1]
        if min(points) < order + 1:
            raise ValueError(
                f"coefficients must have at least {order + 1} control points on every axis for order {order}, "
                f"got shape {points}"
            )

    @classmethod
    def over(cls, coefficients: Any, domain: Any, order: int = 3) -> BSpline:
        """A spline whose domain is another image's or `Grid`'s extent, from face to face.

        Parameters
        ----------
        coefficients, order
            See the class.
        domain : SimpleITK.Image, Volume, nibabel image or Grid

        Returns
        -------
        BSpline

        Raises
        ------
        ValueError, TypeError
            As the class.
        """
        spline = cls(coefficients, None, order)
        d = spline.dimension
        grid = grid_of(domain, d)
        if not isinstance(grid, Grid):
            raise TypeError(f"domain must be an image or a gpuresample.Grid, got {type(domain).__name__}")
        points = spline.coefficients.shape[-d - 1 : -1][::-1]
        spline.where = _Where(control_points(grid, points, spline.order), None, spline.where.turns)
        return spline

    @property
    def dimension(self) -> int:
        """2 or 3."""
        return int(self.coefficients.shape[-1])

    def __repr__(self) -> str:
        return f"BSpline(shape {self.coefficients.shape}, {self.coefficients.dtype}, order={self.order})"

    def _nodes(self, vectors: Array, target: Grid) -> Nodes:
        grid = self.where.grid
        if grid is None:
            grid = control_points(target, vectors.shape[-2::-1], self.order)
        return Nodes(vectors, grid, "spline", self.order)


class Path:
    """Transforms one after the other: a point of the output goes through the first one first.

    Parameters
    ----------
    transforms : sequence
        Of whatever `transform=` takes, but lists for batches.

    Raises
    ------
    TypeError
        For anything else.
    """

    def __init__(self, transforms: Sequence[Any]) -> None:
        if isinstance(transforms, (str, bytes)) or not isinstance(transforms, (list, tuple)):
            raise TypeError(f"transforms must be a list of transforms, got {type(transforms).__name__}")
        self.transforms = tuple(_known(t) for t in transforms)

    def inverse(self) -> Path:
        """The way back: the inverses, last first.

        Raises
        ------
        ValueError
            If one of them has none.
        """
        return Path([_inverse(t) for t in reversed(self.transforms)])

    def __repr__(self) -> str:
        return f"Path({list(self.transforms)})"


class _Where:
    """Where vectors lie.

    Attributes
    ----------
    grid : Grid or None
    shape : tuple of int or None
        Of an array that says how many nodes there are over the output's extent.
    turns : bool
        Whether components are in the order of the call's image, not x, y, z.
    """

    def __init__(self, grid: Grid | None, shape: tuple[int, ...] | None, turns: bool) -> None:
        self.grid, self.shape, self.turns = grid, shape, turns

    def on(self, target: Grid) -> Grid:
        """The grid for a call with this output."""
        if self.grid is not None:
            return self.grid
        return target if self.shape is None else resized(target, None, self.shape[::-1])


def _opened(name: str, given: Any, like: Any) -> tuple[Array, _Where]:
    """Vectors, and where they lie."""
    vectors, own = vectors_of(name, given)
    d = vectors.shape[-1] if vectors.ndim else 0
    if d not in (2, 3) or vectors.ndim < d + 1:
        raise ValueError(
            f"{name} must have shape (..., z, y, x, 3) or (..., y, x, 2), components last, got {vectors.shape}"
        )
    if own is not None:
        if like is not None:
            raise ValueError(f"like is for bare arrays; these {name} have a grid of their own, got like={shown(like)}")
        return vectors, _Where(own, None, False)
    if like is None:
        return vectors, _Where(None, None, True)
    grid = grid_of(like, d)
    shape = vectors.shape[-d - 1 : -1]
    where = _Where(grid, None, True) if isinstance(grid, Grid) else _Where(None, grid[-d:], True)
    there = grid.size[::-1] if isinstance(grid, Grid) else grid[-d:]
    if there != shape:
        raise ValueError(f"{name} must have the shape of like, {there}, got {shape}")
    return vectors, where


def control_points(domain: Grid, points: tuple[int, ...], order: int) -> Grid:
    """The grid of so many control points x, y(, z) of a spline whose domain is a grid's extent, from face to face.

    Raises
    ------
    ValueError
        For fewer than `order + 1` on an axis.
    """
    if min(points) < order + 1:
        raise ValueError(
            f"coefficients must have at least {order + 1} control points on every axis for order {order}, got {points}"
        )
    d = domain.dimension
    direction = np.reshape(domain.direction, (d, d))
    spacing = np.array(domain.size) * np.array(domain.spacing) / (np.array(points) - order)
    corner = np.array(domain.origin) - direction @ (0.5 * np.array(domain.spacing))
    origin = direction @ (-0.5 * spacing * (order - 1)) + corner
    return Grid(points, tuple(spacing.tolist()), tuple(origin.tolist()), domain.direction)


# --- what a call makes of them -------------------------------------------------------------------------------------


def resolve(transform: Any, target: Grid, turned: bool = False, volumes: int = 1) -> tuple[Transform, ...]:
    """A transform of a call as paths in x, y, z order.

    Parameters
    ----------
    transform : any of `KINDS`, or a list of them, or None; a `Transform` is what it is
        A list, an array of matrices, and vectors with leading axes have one for each volume.
    target : Grid
        The output's grid.
    turned : bool
        Whether the image is a bare array, whose numbers are in axis order.
    volumes : int
        Volumes of the batch.

    Returns
    -------
    tuple of Transform
        One that serves all volumes, or one for each.

    Raises
    ------
    ValueError, TypeError
        For what is not a transform, has another dimension, or numbers that are not finite; a list whose length is not
        the batch's.
    """
    if isinstance(transform, Transform):
        return (transform,)
    each = _each(transform)
    if each is None:
        made = _resolved(transform, target, turned)
    else:
        made = [one for t in each for one in _single(t, target, turned)]
    if len(made) not in (1, volumes) or (each is not None and len(made) != volumes):
        raise ValueError(f"transform must have one member for each of {volumes} volumes, got {len(made)}")
    return tuple(made)


def spelt_out(transform: Any, target: Grid, turned: bool) -> tuple[Hashable, Any] | None:
    """All that one linear transform says, to the last bit, and what `resolve` takes in its place; None for any other.

    Arrays and transforms may change between calls, so they are read at each, and what is resolved is what was read.
    """
    if type(transform) is np.ndarray:
        if transform.ndim != 2 or transform.size > 16 or transform.dtype.kind not in "biuf":
            return None
        matrix = transform.copy()
        return (matrix.dtype, matrix.shape, matrix.tobytes()), matrix
    read: Hashable = None
    if type(transform) is not Affine:
        kind = getattr(sys.modules.get("SimpleITK"), "Transform", None)
        if kind is None or not isinstance(transform, kind):
            return None
        read = _matrix_of_sitk(transform, target.dimension)
        known = None if read is None else _read.get(read)
        if known is not None:
            return known
        if not transform.IsLinear():
            return None
    (path,) = resolve(transform, target, turned)
    if not path.is_linear:
        return None
    numbers = [v for step in path.steps if isinstance(step, Map) for row in (*step.matrix, step.offset) for v in row]
    found = struct.pack(f"{len(numbers)}d", *numbers), path
    # Another thread may have changed it meanwhile.
    if read is not None and read == _matrix_of_sitk(transform, target.dimension):
        _read.put(read, found)
    return found


# Paths of the last transforms of SimpleITK's, by what `_matrix_of_sitk` reads: to find a path's bits takes ten calls.
_read: Recent[tuple[bytes, Transform]] = Recent(32)


def _matrix_of_sitk(transform: Any, dimension: int) -> Hashable:
    """What decides the path of a transform of SimpleITK's that is one matrix and an offset; None for any other."""
    matrix = getattr(transform, "GetMatrix", None)
    if matrix is None or transform.GetDimension() != dimension or transform.GetTransformEnum() in _scales():
        return None
    numbers = *matrix(), *transform.TransformPoint((0.0,) * dimension)
    return struct.pack(f"{len(numbers)}d", *numbers)


@lru_cache(maxsize=1)
def _scales() -> tuple[int, ...]:
    """Classes of SimpleITK's whose centre decides, too."""
    import SimpleITK as sitk

    return sitk.sitkScale, sitk.sitkScaleLogarithmic


def _each(transform: Any) -> list[Any] | None:
    """The members of a list of transforms, one for each volume; None for a single transform."""
    if isinstance(transform, (list, tuple)):
        if _matrix(transform) is not None:
            return None
        return list(transform)
    if isinstance(transform, np.ndarray) and transform.ndim == 3:
        return list(transform)
    return None


def _single(transform: Any, target: Grid, turned: bool) -> list[Transform]:
    made = _resolved(transform, target, turned)
    if len(made) != 1:
        raise ValueError("transform must not have vectors with leading axes within a list of one for each volume")
    return made


def _resolved(transform: Any, target: Grid, turned: bool) -> list[Transform]:
    """One path, or one for each volume where vectors have leading axes."""
    d = target.dimension
    if transform is None:
        return [Transform(d, ())]
    known = _known(transform)
    if isinstance(known, Path):
        made = [Transform(d, ())]
        for member in known.transforms:
            new = _resolved(member, target, turned)
            if len(new) != len(made) and 1 not in (len(new), len(made)):
                raise ValueError(
                    f"transform must have vectors for as many volumes in every member, got {len(made)} and {len(new)}"
                )
            n = max(len(new), len(made))
            pairs = zip(made * (n // len(made)), new * (n // len(new)), strict=True)
            made = [before.then(after) for before, after in pairs]
        return made
    if isinstance(known, np.ndarray):
        known = Affine(_homogeneous(known, d))
    if isinstance(known, (Affine, DisplacementField, BSpline)):
        if known.dimension != d:
            raise ValueError(
                f"transform must have the image's dimension {d}, got a {known.dimension}-D {type(known).__name__}"
            )
        if isinstance(known, Affine):
            return [Transform(d, (known._map(turned),))]
        vectors = known.vectors if isinstance(known, DisplacementField) else known.coefficients
        if turned and known.where.turns:
            vectors = vectors[..., ::-1]
        each = np.ndindex(vectors.shape[: -d - 1])
        return [Transform(d, (known._nodes(vectors[i], target),)) for i in each]
    return [of_sitk(known, d, target)]


def _known(transform: Any) -> Any:
    """A transform as it is, a matrix as an array; everything else is refused."""
    if isinstance(transform, (Affine, DisplacementField, BSpline, Path)):
        return transform
    # Another thread may be importing SimpleITK at this moment: then nothing of it is here yet.
    kind = getattr(sys.modules.get("SimpleITK"), "Transform", None)
    if kind is not None and isinstance(transform, kind):
        return transform
    matrix = _matrix(transform)
    if matrix is None:
        raise TypeError(f"transform must be {KINDS}, got {type(transform).__name__}")
    return matrix


def _matrix(value: Any) -> FloatArray | None:
    """Two axes of numbers as an array; None for anything else."""
    if not isinstance(value, np.ndarray) and not (
        isinstance(value, (list, tuple)) and value and all(isinstance(row, (list, tuple, np.ndarray)) for row in value)
    ):
        return None
    try:
        m = np.asarray(value)
    except ValueError:
        return None
    return _numbers("transform", m) if m.ndim == 2 and m.dtype.kind in "biufO" else None


def _numbers(name: str, value: Any) -> FloatArray:
    """A float64 array of finite numbers, of a few rows unless it is an array already."""
    try:
        if not hasattr(value, "__array__"):
            value = list(itertools.islice(value, 5))  # some have no end
            if any(not hasattr(row, "__array__") and len(row) > 4 for row in value):
                raise TypeError
        m = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, MemoryError):
        raise TypeError(f"{name} must be an array of numbers, got {shown(value)}") from None
    if not np.isfinite(m).all():
        raise ValueError(f"{name} must be of finite numbers, got {shown(m.tolist())}")
    return m


def _homogeneous(m: FloatArray, d: int) -> FloatArray:
    """A bare matrix as (d, d + 1)."""
    if m.shape == (d, d + 1):
        return m
    if m.shape == (d + 1, d + 1):
        return _without_last_row("transform", m)
    hint = "; Affine(matrix, center=...) takes a matrix without an offset" if m.shape == (d, d) else ""
    raise ValueError(
        f"transform must be a matrix of shape {(d, d + 1)} or {(d + 1, d + 1)} for {d} dimensions, "
        f"got shape {m.shape}{hint}"
    )


def _without_last_row(name: str, m: FloatArray) -> FloatArray:
    d = m.shape[0] - 1
    if m[d].tolist() != [0.0] * d + [1.0]:
        raise ValueError(f"{name} must have {[0] * d + [1]} as its last row, got {m[d].tolist()}")
    return m[:d]


def _inverse(transform: Any) -> Any:
    """The way back of a member of a path."""
    if isinstance(transform, (Affine, Path)):
        return transform.inverse()
    if isinstance(transform, (DisplacementField, BSpline)):
        raise ValueError(f"transform must have an inverse, which a {type(transform).__name__} has not")
    if isinstance(transform, np.ndarray):
        d = transform.shape[0] - (transform.shape[0] == transform.shape[1])
        return Affine(_homogeneous(transform, d)).inverse()
    try:
        return transform.GetInverse()
    except KeyError:
        return _sitk_inverse(transform)
    except RuntimeError:
        raise ValueError(f"transform must have an inverse, which this {transform.GetName()} has not") from None


def _sitk_inverse(transform: Any) -> Any:
    """The inverse of a linear transform that SimpleITK's Python has no class for."""
    import SimpleITK as sitk

    d = transform.GetDimension()
    matrix, offset = of_sitk(transform, d, Grid.of_size((1,) * d)).affine
    plain = sitk.AffineTransform(matrix.ravel().tolist(), offset.tolist(), (0.0,) * d)
    if not math.isfinite(np.linalg.cond(matrix)):
        raise ValueError(f"transform must have an inverse, got a {transform.GetName()} of matrix {matrix.tolist()}")
    return plain.GetInverse()
