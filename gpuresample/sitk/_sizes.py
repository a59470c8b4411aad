"""`Shrink`, `BinShrink`, `Expand`, as functions and as filters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.containers import ImageContainer
from gpuresample.engines.cpu import truncation
from gpuresample.engines.interface import Store
from gpuresample.ops import shrink
from gpuresample.planning import planner
from gpuresample.planning.filters import Filter, FloatArray
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap
from gpuresample.plans import Plan, precision_of
from gpuresample.sitk import _base, _resample
from gpuresample.sitk._base import Face, NotHereError

ONES = (1, 1, 1)


def _for_all(factors: Any) -> Any:
    """One factor as that of all axes; SimpleITK's setters take sequences only."""
    return (factors,) * 3 if isinstance(factors, int) and not isinstance(factors, bool) else factors


class ShrinkImageFilter(Face, sitk.ShrinkImageFilter):  # type: ignore[misc]
    """`SimpleITK.ShrinkImageFilter`: its samples and its origin, bit for bit."""

    def _told(self, image: sitk.Image) -> list[float]:
        return _base.told_by_parts(math.prod(_left(self.GetShrinkFactors(), image)))

    def _compute(self, image: sitk.Image) -> sitk.Image:
        _base.is_vector(image)
        f = _factors(self.GetShrinkFactors(), image)
        return shrink.shrink(image, f, device=_base.device())


class BinShrinkImageFilter(Face, sitk.BinShrinkImageFilter):  # type: ignore[misc]
    """`SimpleITK.BinShrinkImageFilter`: block means; integers are rounded half up, those of vectors truncated."""

    def _told(self, image: sitk.Image) -> list[float]:
        width, *others = _left(self.GetShrinkFactors(), image)
        return _base.told_by_parts(math.prod(others), width)

    def _compute(self, image: sitk.Image) -> sitk.Image:
        vector = _base.is_vector(image)
        f = _factors(self.GetShrinkFactors(), image)
        if any(k > n for k, n in zip(f, image.GetSize(), strict=True)):
            raise NotHereError
        container = ImageContainer(image)
        target = shrink.binned(container.grid, f)
        result, out = container.new(target, container.dtype)
        d = image.GetDimension()
        assert container.array is not None
        # SimpleITK rounds scalars and casts vectors.
        round_up = container.dtype.kind in "iu" and not vector
        for one, means in zip(_base.volumes(container.array, d), _base.volumes(out, d), strict=True):
            whole = means if means.flags.c_contiguous else np.empty(means.shape, means.dtype)
            truncation.block_means(whole, one, (*(1,) * (3 - d), *f[::-1]), round_up=round_up)
            if whole is not means:
                means[...] = whole
        return result


class ExpandImageFilter(Face, sitk.ExpandImageFilter):  # type: ignore[misc]
    """`SimpleITK.ExpandImageFilter`: integers truncate, and wrap where a spline overshoots their type."""

    def _told(self, image: sitk.Image) -> list[float]:
        # SimpleITK expands one component after the other.
        return [0.0, 1.0] * image.GetNumberOfComponentsPerPixel()

    def _compute(self, image: sitk.Image) -> sitk.Image:
        _base.is_vector(image)
        return _expanded(
            image, _factors(self.GetExpandFactors(), image), _resample.interpolator(self.GetInterpolator())
        )


def _left(factors: Any, image: sitk.Image) -> list[int]:
    """The size that these factors leave."""
    return [max(n // k, 1) for n, k in zip(image.GetSize(), _factors(factors, image), strict=True)]


def _factors(values: Any, image: sitk.Image) -> tuple[int, ...]:
    factors = _base.leading(values, image.GetDimension(), "factors")
    if min(factors) < 1:
        raise NotHereError
    return factors


def _expanded(image: sitk.Image, factors: tuple[int, ...], f: Filter) -> sitk.Image:
    if f.method == "vote":
        raise NotHereError(f"Expand with {f.name} interpolation")
    container = ImageContainer(image)
    source = container.grid
    d = source.dimension
    target = _finer(source, factors)
    where = AxisMap(
        tuple(range(d)),
        tuple(_positions(n, k, j == 0) for j, (n, k) in enumerate(zip(source.size, factors, strict=True))),
    )

    def run(volume: Any, dtype: np.dtype[Any]) -> Any:
        precision = precision_of(container.dtype, dtype)
        work = planner.sampled(where, source, f, None, (None,) * d, precision)
        store = Store.of(dtype, exact=f.method == "index")
        return Plan(source, target, container.dtype, dtype, _base.device(), work, store).run(volume)

    if f.method == "index" or container.dtype.kind == "f":
        result = run(image, container.dtype)
        if container.dtype.kind == "f":
            _resample.check_finite(ImageContainer(result))
        return result
    return _resample.truncated(container, where, target, f, 0, container.dtype, run, expanding=True)


def _finer(grid: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of every voxel split, in the order of operations of `itk::ExpandImageFilter`."""
    f = np.asarray(factors, np.float32).astype(np.float64)
    spacing = np.asarray(grid.spacing)
    half = -(spacing / 2.0) * (f - 1.0) / f
    origin = np.reshape(grid.direction, (grid.dimension,) * 2) @ half + np.asarray(grid.origin)
    size = tuple(n * k for n, k in zip(grid.size, factors, strict=True))
    return Grid(size, tuple((spacing / f).tolist()), tuple(origin.tolist()), grid.direction)


def _positions(n: int, factor: int, along_x: bool) -> FloatArray:
    """Where the samples lie, in input voxels: computed one by one, but along x by adding up, as ITK walks a line."""
    f = float(np.float32(factor))
    i = np.arange(n * factor, dtype=np.float64)
    if not along_x:
        return (i + 0.5) / f - 0.5
    steps = np.full(i.size, 1.0 / f)
    steps[0] = 0.5 / f - 0.5
    return np.cumsum(steps)


def Shrink(image1: sitk.Image, shrinkFactors: Any = ONES) -> sitk.Image:  # noqa: N802, N803
    """`SimpleITK.Shrink`.

    Parameters
    ----------
    image1 : SimpleITK.Image
    shrinkFactors : int or sequence of int, x, y, z order

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    return _base.executed(ShrinkImageFilter(), image1, ShrinkFactors=_for_all(shrinkFactors))


def BinShrink(image1: sitk.Image, shrinkFactors: Any = ONES) -> sitk.Image:  # noqa: N802, N803
    """`SimpleITK.BinShrink`.

    Parameters
    ----------
    image1 : SimpleITK.Image
    shrinkFactors : int or sequence of int, x, y, z order

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    return _base.executed(BinShrinkImageFilter(), image1, ShrinkFactors=_for_all(shrinkFactors))


def Expand(  # noqa: N802
    image1: sitk.Image,
    expandFactors: Any = ONES,  # noqa: N803
    interpolator: int = sitk.sitkLinear,
) -> sitk.Image:
    """`SimpleITK.Expand`.

    Parameters
    ----------
    image1 : SimpleITK.Image
    expandFactors : int or sequence of int, x, y, z order
    interpolator : SimpleITK enumerator

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    return _base.executed(ExpandImageFilter(), image1, ExpandFactors=expandFactors, Interpolator=interpolator)
