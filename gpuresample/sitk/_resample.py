"""`ResampleImageFilter` and `Resample`."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.containers import ImageContainer, Volume
from gpuresample.engines.cpu import truncation
from gpuresample.ops import resample
from gpuresample.planning.filters import Filter, get_filter
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap, map_indices
from gpuresample.planning.transforms import Transform, of_sitk, route
from gpuresample.planning.works import Route
from gpuresample.sitk import _base
from gpuresample.sitk._base import Face, NotHereError


class ResampleImageFilter(Face, sitk.ResampleImageFilter):  # type: ignore[misc]
    """`SimpleITK.ResampleImageFilter`, computed by gpuresample."""

    def _told(self, image: sitk.Image) -> list[float]:
        # SimpleITK does one component after the other; lines where the transform is linear, voxels elsewhere.
        width, *others = self.GetSize()[: image.GetDimension()]
        lines = math.prod(others)
        linear = self.GetTransform().IsLinear()
        told = _base.told_by_parts(lines, width) if linear else _base.told_by_parts(lines * width)
        return [0.0, *told, 1.0] * image.GetNumberOfComponentsPerPixel()

    def _compute(self, image: sitk.Image) -> sitk.Image:
        vector = _base.is_vector(image)
        d = image.GetDimension()
        pixel = self.GetOutputPixelType()
        dtype = _base.voxel_type(image.GetPixelID() if pixel == sitk.sitkUnknown else pixel, vector)
        size = _base.leading(self.GetSize(), d, "output size")
        if 0 in size:
            raise NotHereError
        direction = self.GetOutputDirection() or tuple(np.eye(d).ravel().tolist())
        target = Grid(
            size,
            _base.leading(self.GetOutputSpacing(), d, "output spacing"),
            _base.leading(self.GetOutputOrigin(), d, "output origin"),
            tuple(direction),
        )
        f = interpolator(self.GetInterpolator())
        default = cast_default(self.GetDefaultPixelValue(), np.dtype(dtype).name)
        transform = of_sitk(self.GetTransform(), d, target)
        extrapolated = self.GetUseNearestNeighborExtrapolator()
        result = resampled(image, target, transform, f, 0 if extrapolated else default, dtype)
        return _extrapolated(image, target, transform, result) if extrapolated else result


def interpolator(number: int) -> Filter:
    """The filter behind SimpleITK's enumerator."""
    try:
        return get_filter(number)
    except ValueError:
        raise NotHereError(f"interpolator {number}, which reads B-spline coefficients") from None


@lru_cache(maxsize=256)
def cast_default(value: float, name: str) -> int | float:
    """What SimpleITK makes of a default pixel value in a voxel type.

    C casts, toward zero, and leaves open what becomes of a value that does not fit: then SimpleITK itself is asked, for
    one voxel that lies outside.
    """
    dtype = np.dtype(name)
    if dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max:
        return int(value)
    if dtype.kind == "f" and (name == "float64" or abs(value) <= float(np.finfo(dtype).max)):
        return float(dtype.type(value))
    pixel = next(k for k, v in _base.SCALARS.items() if v.name == name)
    far = sitk.TranslationTransform(3, (9.0, 9.0, 9.0))
    one = sitk.Image([1, 1, 1], pixel)
    out = sitk.Resample(one, one.GetSize(), far, sitk.sitkNearestNeighbor, (0.0,) * 3, (1.0,) * 3, (), value)
    answer: int | float = out[0, 0, 0]
    return answer


def resampled(
    image: sitk.Image, target: Grid, transform: Transform, f: Filter, default: int | float, dtype: np.dtype[Any]
) -> sitk.Image:
    """`image` on `target`, stored as SimpleITK stores it."""
    options = _options(target, transform, f.name)
    container = ImageContainer(image)
    if f.method != "sum" or (dtype.kind == "f" and container.dtype.kind in "iu"):
        # Copies and votes are exact as they are; whole numbers make no infinity.
        return resample.resample(image, **options, default_value=default, dtype=dtype, rounding="truncate")
    if dtype.kind == "f":
        # SimpleITK spreads a NaN over the whole volume and stores infinities as the largest number: left to it.
        finite = default if np.isfinite(default) else 0
        result = resample.resample(image, **options, default_value=finite, dtype=dtype)
        check_finite(ImageContainer(result))
        if finite == default:
            return result
        return resample.resample(image, **options, default_value=default, dtype=dtype, out=result)
    if container.dtype.kind == "f":
        check_finite(container)

    def run(volume: Volume, floats: np.dtype[Any]) -> Volume:
        sums: Volume = resample.resample(volume, **options, default_value=np.nan, dtype=floats)
        return sums

    where = map_indices(target, container.grid, transform)
    plain = where is not None and truncation.is_straight(where) and _upright(target) and _upright(container.grid)
    # Products that cancel along the axes still leave their last digit in SimpleITK's coordinates.
    there = where if where is not None and plain else route(target, container.grid, transform)
    return truncated(container, there, target, f, default, dtype, run)


def _options(target: Grid, transform: Transform, interpolation: str) -> dict[str, Any]:
    return {"like": target, "transform": transform, "interpolation": interpolation, "device": _base.device()}


def check_finite(container: ImageContainer) -> None:
    """Leave what is not finite to SimpleITK, which spreads a NaN and stores infinities as the largest number."""
    assert container.array is not None
    if not truncation.all_finite(container.array):
        raise NotHereError("voxels that are not finite")


def _upright(grid: Grid) -> bool:
    """Whether axes run along space's, in whatever order and sense."""
    return all(abs(v) in (0.0, 1.0) for v in grid.direction)


def truncated(
    container: ImageContainer,
    where: AxisMap | Route,
    target: Grid,
    f: Filter,
    default: int | float,
    dtype: np.dtype[Any],
    run: Callable[[Volume, np.dtype[Any]], Volume],
    *,
    expanding: bool = False,
) -> sitk.Image:
    """Integers or finite floats resampled to integers, truncated.

    `run` makes the sums of a volume in a float type, NaN outside. `expanding`: as Expand does, which wraps integers
    into their type, and every voxel as SimpleITK has it.
    """
    d = target.dimension
    assert container.array is not None
    result, voxels = container.new(target, dtype)
    src, dst = _base.volumes(container.array, d), _base.volumes(voxels, d)
    grid = container.grid
    order = 0 if f.name == "linear" else f.spline_order or None
    for one, out in zip(src, dst, strict=True):
        whole = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        # Linear is cheap enough to be done in SimpleITK's order from the start.
        if not (
            order == 0
            and isinstance(where, AxisMap)
            and truncation.aligned_linear(whole, np.ascontiguousarray(one), where, default, wrap=expanding)
        ):
            width = truncation.range_of(one)
            single = not expanding and truncation.precision_for(one.dtype, dtype, width) == "single"
            volume = Volume(one if d == 3 else one[0], grid.spacing, grid.origin, grid.direction)
            sums = run(volume, np.dtype(np.float32 if single else np.float64)).array.reshape(out.shape)
            if not truncation.truncated(
                sums, whole, one, order, where, default, width, wrap=expanding, always=expanding
            ):
                raise NotHereError(f"integers that SimpleITK's last digit decides, with {f.name} interpolation")
        if whole is not out:
            out[...] = whole
    return result


def _extrapolated(image: sitk.Image, target: Grid, transform: Transform, result: sitk.Image) -> sitk.Image:
    """`result` with the nearest voxel's value wherever the output lies outside the input."""
    options, grid = _options(target, transform, "nearest"), ImageContainer(image).grid
    ones = Volume(np.ones(grid.size[::-1], np.uint8), grid.spacing, grid.origin, grid.direction)
    inside = resample.resample(ones, **options).array != 0
    if inside.all():
        return result
    dtype = ImageContainer(result).dtype
    nearest = resample.resample(image, **options, boundary="nearest", dtype=dtype, rounding="truncate")
    merged, voxels = ImageContainer(image).new(target, dtype)
    parts = [ImageContainer(result).array, ImageContainer(nearest).array]
    voxels[...] = np.choose(inside, parts[::-1])  # type: ignore[arg-type]
    return merged


def Resample(  # noqa: N802
    image1: sitk.Image,
    *args: Any,
    referenceImage: sitk.Image | None = None,  # noqa: N803
    size: Any = None,
    **kwargs: Any,
) -> sitk.Image:
    """`SimpleITK.Resample`, in its three forms, by position and by keyword.

    Parameters
    ----------
    image1 : SimpleITK.Image
    *args, referenceImage, size, **kwargs
        `(transform, ...)` keeps the image's grid; `(referenceImage, transform, ...)` takes another image's; `(size,
        transform, interpolator, outputOrigin, outputSpacing, outputDirection, ...)` inherits nothing: origin 0,
        spacing 1, identity direction unless given. Then `defaultPixelValue`, `outputPixelType`,
        `useNearestNeighborExtrapolator`.

    Returns
    -------
    SimpleITK.Image

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    if args and isinstance(args[0], sitk.Image):
        return _like(image1, *args, **kwargs)
    if args and not isinstance(args[0], sitk.Transform) and hasattr(args[0], "__iter__"):
        return _sized(image1, *args, **kwargs)
    if referenceImage is not None:
        return _like(image1, referenceImage, *args, **kwargs)
    if size is not None:
        return _sized(image1, size, *args, **kwargs)
    return _like(image1, image1, *args, **kwargs)


def _like(
    image1: sitk.Image,
    referenceImage: sitk.Image,  # noqa: N803
    transform: Any = None,
    interpolator: int = sitk.sitkLinear,
    defaultPixelValue: float = 0.0,  # noqa: N803
    outputPixelType: int = sitk.sitkUnknown,  # noqa: N803
    useNearestNeighborExtrapolator: bool = False,  # noqa: N803
) -> sitk.Image:
    return _base.executed(
        ResampleImageFilter(), image1, ReferenceImage=referenceImage,
        Transform=sitk.Transform() if transform is None else transform, Interpolator=interpolator,
        DefaultPixelValue=defaultPixelValue, OutputPixelType=outputPixelType,
        UseNearestNeighborExtrapolator=useNearestNeighborExtrapolator,
    )  # fmt: skip


def _sized(
    image1: sitk.Image,
    size: Any,
    transform: Any = None,
    interpolator: int = sitk.sitkLinear,
    outputOrigin: Any = (0.0, 0.0, 0.0),  # noqa: N803
    outputSpacing: Any = (1.0, 1.0, 1.0),  # noqa: N803
    outputDirection: Any = (),  # noqa: N803
    defaultPixelValue: float = 0.0,  # noqa: N803
    outputPixelType: int = sitk.sitkUnknown,  # noqa: N803
    useNearestNeighborExtrapolator: bool = False,  # noqa: N803
) -> sitk.Image:
    return _base.executed(
        ResampleImageFilter(), image1, Size=size, Transform=sitk.Transform() if transform is None else transform,
        Interpolator=interpolator, OutputOrigin=outputOrigin, OutputSpacing=outputSpacing,
        OutputDirection=outputDirection, DefaultPixelValue=defaultPixelValue, OutputPixelType=outputPixelType,
        UseNearestNeighborExtrapolator=useNearestNeighborExtrapolator,
    )  # fmt: skip
