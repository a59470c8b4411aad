"""Fewer voxels, or more, by whole factors: every f-th, blocks, blurs that are made only where they are kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import one_of, sizes
from gpuresample.containers import Container, unwrap
from gpuresample.ops.arguments import (
    SIGMA_RULES,
    centred,
    factors_of,
    planned,
    planned_tables,
    rule_sigma,
    shrunk,
    voxel_sigmas,
)
from gpuresample.ops.resample import output_dtype, resample
from gpuresample.planning import planner, taps
from gpuresample.planning.filters import (
    FILTERS,
    Filter,
    FloatArray,
    IntArray,
    discrete_gaussian_response,
    gaussian_response,
    get_filter,
)
from gpuresample.planning.grid import Grid, check_apart
from gpuresample.planning.maps import aligned_map
from gpuresample.planning.works import Majority
from gpuresample.plans import Plan, execute, precision_of

REDUCTIONS = ("mean", "mode", "label")


def shrink(image: Any, factors: int | Sequence[int], *, device: str = "auto", out: Any = None) -> Any:
    """Keep every f-th voxel, the ones that SimpleITK's Shrink keeps.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`. Voxels of any type are copied bit by bit.
    factors : int or sequence of int
        At least 1: one number for all axes, or one for each axis in the order of the image's kind. An axis keeps at
        least one voxel.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`. Its origin is that of `itk::ShrinkImageFilter`, which keeps the centre of the volume
        in place. Where a factor leaves an odd remainder, the voxels that are kept lie half a voxel away from where this
        origin puts them.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole.
    """
    container = unwrap(image, lazy=True)
    source = container.grid
    f = factors_of(container, factors)
    target, index = kept(source, f)
    tables = [taps.index_table(n, i) for n, i in zip(source.size[::-1], index[::-1], strict=True)]
    precision = precision_of(container.dtype, container.dtype)
    made = planned_tables(container, target, tables, container.dtype, "nearest", device, precision, exact=True)
    return execute(made, container, out)


def kept(source: Grid, factors: tuple[int, ...]) -> tuple[Grid, list[IntArray]]:
    """The grid that ITK's Shrink makes, and the voxels that it keeps along x, y(, z)."""
    check_apart(source, "input")
    target = shrunk(source, factors)
    start = source.indices(np.asarray([target.origin]))[0]
    index = []
    for axis, k in enumerate(factors):
        first = max(0, math.floor(start[axis] + 0.5))
        index.append(np.minimum(first + k * np.arange(target.size[axis]), source.size[axis] - 1))
    return target, index


def bin_shrink(
    image: Any, factors: int | Sequence[int], *, reduce: str = "mean", device: str = "auto", out: Any = None
) -> Any:
    """One voxel for every block of voxels: their mean, as SimpleITK's BinShrink, or for labels their mode.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    factors : int or sequence of int
        Block size, from 1 to the image's size: one number for all axes, or one for each axis in the order of the
        image's kind. Voxels at the end that do not fill a block are dropped.
    reduce : {"mean", "mode", "label"}
        "mean" for images. "mode" for labels: the value that most voxels of the block have. If several values are
        equally frequent, the smallest of them wins (a NaN counts as larger than any number). "mode" only compares
        voxels, so any integer survives. "label": the same among the voxels that are not 0, so that thin structures stay
        in the levels of a pyramid, at the background's cost; 0 where all are 0. It is for integers and bool.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`; means of integers are rounded half up (`itk::BinShrinkImageFilter`).

    Raises
    ------
    ValueError, TypeError
        For factors below 1, not whole, or larger than the image.
    """
    container = unwrap(image, lazy=True)
    return execute(bin_plan(container, factors, reduce, device), container, out)


def bin_plan(container: Container, factors: int | Sequence[int], reduce: str = "mean", device: str = "auto") -> Plan:
    """The plan of `bin_shrink` for images like a container's."""
    one_of("reduce", reduce, REDUCTIONS)
    if reduce == "label" and container.dtype.kind not in "iub":
        raise TypeError(f'image must have labels, integers or bool, for reduce="label", got {container.dtype}')
    source = container.grid
    f = factors_of(container, factors)
    if any(k > n for k, n in zip(f, source.size, strict=True)):
        raise ValueError(f"factors must not exceed the image's size {container.order(source.size)}, got {factors!r}")
    target = binned(source, f)
    if reduce != "mean":
        (fx, fy, fz), (nx, ny, nz) = (*f, 1)[:3], (*target.size, 1)[:3]
        work = Majority((fz, fy, fx), (nz, ny, nx), labels_first=reduce == "label")
        return planned(container, target, work, container.dtype, "nearest", device, exact=True)
    tables = [taps.block_sum_table(source.size[axis], f[axis]) for axis in reversed(range(source.dimension))]
    return planned_tables(container, target, tables, container.dtype, "nearest", device, "double", divisor=math.prod(f))


def binned(source: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of whole blocks of voxels, from the first on."""
    size = tuple(n // k for n, k in zip(source.size, factors, strict=True))
    origin = source.points(0.5 * (np.asarray([factors], dtype=np.float64) - 1.0))[0]
    spacing = tuple(s * k for s, k in zip(source.spacing, factors, strict=True))
    return Grid(size, spacing, tuple(origin.tolist()), source.direction)


def unbinned(source: Grid, factors: tuple[int, ...], size: tuple[int, ...]) -> Grid:
    """The grid of a size whose blocks `source` is; the way back of `binned`."""
    f = np.asarray([factors], dtype=np.float64)
    origin = source.points((1.0 - f) / (2.0 * f))[0]
    spacing = tuple(s / k for s, k in zip(source.spacing, factors, strict=True))
    return Grid(size, spacing, tuple(origin.tolist()), source.direction)


def expand(
    image: Any,
    factors: int | Sequence[int],
    *,
    interpolation: str | int = "linear",
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Split every voxel into f along each axis, as SimpleITK's Expand.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    factors : int or sequence of int
        At least 1: one number for all axes, or one for each axis in the order of the image's kind.
    interpolation : str or SimpleITK enumerator
        As for `gpuresample.resample`.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`, covering the same box. Integers are rounded to nearest, and values beyond the type's
        limits become the limit. (`itk::ExpandImageFilter` truncates, and lets them wrap around.)

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole.
    """
    container = unwrap(image, lazy=True)
    f = factors_of(container, factors)
    size = tuple(n * k for n, k in zip(container.grid.size, f, strict=True))
    return resample(
        image, size=container.order(size), anchor="edge", interpolation=interpolation, device=device, out=out
    )


def downsample(
    image: Any,
    factors: int | Sequence[int],
    *,
    sigma: str | float | Sequence[float] = "auto",
    kind: str = "sampled",
    rounding: str = "nearest",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Blur and subsample in one step: the blur is computed only at the samples that are kept.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    factors : int or sequence of int
        At least 1: one number for all axes, or one for each axis in the order of the image's kind. An axis keeps at
        least one voxel.
    sigma : {"auto", "skimage", "itk", "cardoso"}, float or sequence of float
        Sigma of the blur, in input voxels, as numbers (0 for no blur) or by a rule for the factor f. "skimage" and
        "auto": (f - 1) / 2. "itk": f / 2, the rule of ITK's pyramids. "cardoso": sqrt((f**2 - 1) / (8 ln 2)), of
        Cardoso et al., MICCAI 2015. No rule blurs axes of factor 1.
    kind : {"sampled", "discrete"}
        The kind of Gaussian, see `gaussian`.
    rounding, dtype, device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`. An axis has `max(1, n // f)` voxels and f times the spacing; the centre of the volume
        stays in place. Samples that fall between voxels are interpolated linearly.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole, sigma below 0 or an unknown rule.
    """
    container = unwrap(image, lazy=True)
    return execute(downsample_plan(container, factors, sigma, kind, rounding, dtype, device), container, out)


def downsample_plan(
    container: Container,
    factors: int | Sequence[int],
    sigma: str | float | Sequence[float] = "auto",
    kind: str = "sampled",
    rounding: str = "nearest",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    of_blocks: bool = False,
) -> Plan:
    """The plan of `downsample` for images like a container's; `of_blocks` puts samples where `bin_shrink` has them."""
    one_of("kind", kind, ("sampled", "discrete"))
    source = container.grid
    f = factors_of(container, factors)
    if isinstance(sigma, str):
        one_of("sigma", sigma, SIGMA_RULES)
        widths = tuple(rule_sigma(sigma, k) for k in f)
    else:
        widths = voxel_sigmas(container, sigma)
    output = output_dtype(container.dtype, dtype)
    precision = precision_of(container.dtype, output)
    target = binned(source, f) if of_blocks else shrunk(source, f)
    where = aligned_map(target, source)
    blur: tuple[FloatArray | None, ...] = tuple(
        gaussian_response(s) if kind == "sampled" else discrete_gaussian_response(s, 1e-4) for s in widths
    )
    work = planner.sampled(where, source, FILTERS["linear"], "nearest", blur, precision)
    return planned(container, target, work, output, rounding, device)


def upsample(
    image: Any,
    factors: int | Sequence[int],
    *,
    size: Sequence[int] | None = None,
    interpolation: str | int = "linear",
    rounding: str = "nearest",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Go back to the grid that `downsample` started from.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    factors : int or sequence of int
        Those of `downsample`.
    size : sequence of int, optional
        Size of the result, in the order of the image's kind. Along an axis of `m` voxels it may be from `f * m` to
        `f * m + f - 1`, because `downsample` brings all of these to `m` (a single voxel may come from fewer). `f * m`
        unless given.
    interpolation : str or SimpleITK enumerator
        As for `gpuresample.resample`, except the two label modes.
    rounding, dtype, device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`, with the spacing divided by f; the centre of the volume stays in place. Beyond the
        centres of the outermost voxels, the image continues with the value of the outermost voxel.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole, a size that `downsample` does not bring to the image's.
    """
    container = unwrap(image, lazy=True)
    source = container.grid
    f = factors_of(container, factors)
    whole = tuple(n * k for n, k in zip(source.size, f, strict=True))
    if size is not None:
        whole = container.order(sizes("size", size, source.dimension))
        if any(max(1, n // k) != m for n, k, m in zip(whole, f, source.size, strict=True)):
            raise ValueError(
                f"size must be one that factors {factors!r} bring to the image's {container.order(source.size)}, "
                f"got {size!r}"
            )
    filter_ = get_filter(interpolation)
    if filter_.method == "vote":
        raise ValueError(f'interpolation must sum or copy voxels, got {interpolation!r}; take "nearest" for labels')
    output = output_dtype(container.dtype, dtype)
    target = centred(source, whole, tuple(s / k for s, k in zip(source.spacing, f, strict=True)))
    return execute(upsample_plan(container, target, filter_, output, rounding, device), container, out)


def upsample_plan(
    container: Container, target: Grid, filter_: Filter, output: np.dtype[Any], rounding: str, device: str
) -> Plan:
    """The plan of a finer grid along a container's axes; beyond the outermost centres its values go on."""
    source = container.grid
    precision = precision_of(container.dtype, output)
    where = aligned_map(target, source)
    work = planner.sampled(where, source, filter_, "nearest", (None,) * source.dimension, precision)
    return planned(container, target, work, output, rounding, device, exact=filter_.method == "index")
