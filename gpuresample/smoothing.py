"""Blur, subsample, pyramid: arguments to tap tables to a plan. No voxel is touched here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines, taps
from gpuresample import work as works
from gpuresample.checks import numbers, one_of
from gpuresample.containers import Container, Volume, check_memory, unwrap
from gpuresample.engines.contract import Store, Work
from gpuresample.filters import (
    FILTERS,
    FloatArray,
    discrete_gaussian_response,
    gaussian_response,
    recursive_gaussian_response,
)
from gpuresample.grid import AxisMap, Grid, map_indices
from gpuresample.plans import Plan, precision_of
from gpuresample.resampling import ROUNDINGS, output_dtype, resample

KINDS = ("discrete", "sampled", "recursive")
SIGMA_RULES = ("auto", "skimage", "itk", "cardoso")

# How a line goes on past its ends, unless `boundary` says otherwise: as in the filter that the kind is taken from.
_KIND_BOUNDARY = {"discrete": "nearest", "sampled": "reflect", "recursive": "nearest"}
_RECURSIVE_TAIL = {"single": 1e-7, "double": 1e-11}
_RECURSIVE_LEAST = 4
# Below, in voxels, the weights of derivatives underflow.
_DERIVATIVE_LEAST = 0.01


def gaussian(
    image: Any,
    sigma: float | Sequence[float],
    *,
    kind: str = "discrete",
    order: int | Sequence[int] = 0,
    truncate: float = 4.0,
    max_error: float = 1e-4,
    max_radius: int | None = None,
    boundary: str | None = None,
    input_spacing: float | Sequence[float] | None = None,
    rounding: str = "nearest",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Blur with a Gaussian, or take its derivatives.

    Parameters
    ----------
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`.
    sigma : float or sequence of float
        Standard deviation in physical units (voxels for bare arrays without `input_spacing`), for all axes or for
        each in the container's order; 0 skips an axis.
    kind : {"discrete", "sampled", "recursive"}
        "discrete": Lindeberg's discrete Gaussian, as SimpleITK's DiscreteGaussian, with true Bessel values at any
        sigma. "sampled": the Gaussian at voxel centres, as `scipy.ndimage.gaussian_filter`. "recursive": Deriche's
        recursive filter, as SimpleITK's SmoothingRecursiveGaussian and RecursiveGaussian.
    order : int or sequence of int
        0 blurs, 1 and 2 take derivatives by voxel index; for "sampled" and "recursive". Integer outputs saturate: ask
        for a float `dtype`.
    truncate : float
        Radius of "sampled", in sigma.
    max_error : float
        Weight that "discrete" may cut off (SimpleITK's default is 0.01, which loses 7 % of the variance).
    max_radius : int, optional
        Largest radius of "discrete", in voxels (SimpleITK's MaximumKernelWidth, 32 there).
    boundary : {None, "nearest", "reflect", "mirror"}
        How the image goes on past its border, in SciPy's words. None: "reflect" for "sampled", as SciPy; else
        "nearest", as SimpleITK.
    input_spacing, rounding, dtype, device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The same kind as `image`, on the same grid.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, "recursive" along an axis of fewer than 4 voxels, derivatives of "discrete".
    RuntimeError
        For `device="cuda"` without a usable GPU.

    Notes
    -----
    T. Lindeberg, IEEE PAMI 12(3), 1990; R. Deriche, INRIA RR-1893, 1993; ITK 5.4.
    """
    one_of("kind", kind, KINDS)
    container = unwrap(image, input_spacing)
    d = container.grid.dimension
    widths = _sigmas(container, sigma)
    orders = _orders(container, order, kind)
    rule = _KIND_BOUNDARY[kind] if boundary is None else one_of("boundary", boundary, ("nearest", "reflect", "mirror"))
    _above_zero("truncate", truncate)
    _above_zero("max_error", max_error)
    if max_radius is not None:
        max_radius = _count("max_radius", max_radius)
    output = output_dtype(container.dtype, dtype)
    precision = precision_of(container.dtype, output)
    tables = []
    for axis in reversed(range(d)):
        n, s = container.grid.size[axis], widths[axis]
        if kind == "recursive" and s > 0 and n < _RECURSIVE_LEAST:
            raise ValueError(
                f'kind="recursive" needs at least {_RECURSIVE_LEAST} voxels on every axis that it filters, '
                f"got {n} on axis {'xyz'[axis]}"
            )
        if orders[axis] and 0 < s < _DERIVATIVE_LEAST:
            raise ValueError(
                f"sigma must be at least {_DERIVATIVE_LEAST} voxels on axes of order 1 or 2 (or 0), got {sigma!r}"
            )
        if kind == "discrete":
            response = discrete_gaussian_response(s, max_error, max_radius)
        elif kind == "sampled":
            response = gaussian_response(s, orders[axis], truncate)
        else:
            response = recursive_gaussian_response(s, orders[axis], _RECURSIVE_TAIL[precision])
        tables.append(taps.smoothing_table(response, n, rule))
    made = _plan(container, container.grid, tables, output, rounding, device, precision)
    return made.run(image, out)


def shrink(image: Any, factors: int | Sequence[int], *, device: str = "auto", out: Any = None) -> Any:
    """Keep every f-th voxel, the ones that SimpleITK's Shrink keeps.

    Parameters
    ----------
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`; any voxels, copied bit by bit.
    factors : int or sequence of int
        At least 1, for all axes or for each in the container's order. An axis keeps at least one voxel.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The same kind as `image`. Its origin keeps the two volumes' centres together, as `itk::ShrinkImageFilter`
        has it; where a factor leaves an odd remainder the voxels kept lie half a voxel from where it says.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole.
    """
    container = unwrap(image)
    source = container.grid
    f = _factors(container, factors)
    size = tuple(max(1, n // k) for n, k in zip(source.size, f, strict=True))
    target = _centred(source, size, tuple(s * k for s, k in zip(source.spacing, f, strict=True)))
    start = source.indices(np.asarray([target.origin]))[0]
    tables = []
    for axis in reversed(range(source.dimension)):
        first = max(0, math.floor(start[axis] + 0.5))
        index = np.minimum(first + f[axis] * np.arange(size[axis]), source.size[axis] - 1)
        tables.append(taps.index_table(source.size[axis], index))
    precision = precision_of(container.dtype, container.dtype)
    made = _plan(container, target, tables, container.dtype, "nearest", device, precision, copies=True)
    return made.run(image, out)


def bin_shrink(image: Any, factors: int | Sequence[int], *, device: str = "auto", out: Any = None) -> Any:
    """Mean of every block of voxels, as SimpleITK's BinShrink.

    Parameters
    ----------
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`.
    factors : int or sequence of int
        Block size, at least 1 and at most the image's size, for all axes or for each in the container's order.
        What does not fill a block at the end is dropped.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The same kind as `image`; integers are rounded half up (`itk::BinShrinkImageFilter`).

    Raises
    ------
    ValueError, TypeError
        For factors below 1, not whole, or larger than the image.
    """
    container = unwrap(image)
    source = container.grid
    f = _factors(container, factors)
    if any(k > n for k, n in zip(f, source.size, strict=True)):
        raise ValueError(f"factors must not exceed the image's size {container.order(source.size)}, got {factors!r}")
    target = binned(source, f)
    tables = [taps.block_sum_table(source.size[axis], f[axis]) for axis in reversed(range(source.dimension))]
    divisor = math.prod(f)
    made = _plan(container, target, tables, container.dtype, "nearest", device, "double", divisor=divisor)
    return made.run(image, out)


def binned(grid: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of whole blocks of x, y, z `factors` voxels."""
    size = tuple(n // k for n, k in zip(grid.size, factors, strict=True))
    origin = grid.points(0.5 * (np.asarray([factors], dtype=np.float64) - 1.0))[0]
    spacing = tuple(s * k for s, k in zip(grid.spacing, factors, strict=True))
    return Grid(size, spacing, tuple(origin.tolist()), grid.direction)


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
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`.
    factors : int or sequence of int
        At least 1, for all axes or for each in the container's order.
    interpolation : str or SimpleITK enumerator
        As for `gpuresample.resample`.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The same kind as `image`, covering the same box. Integers are rounded to nearest and saturate;
        `itk::ExpandImageFilter` truncates them and lets them wrap.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole.
    """
    container = unwrap(image)
    f = _factors(container, factors)
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
    """Blur and subsample in one: the blur is computed only at the samples that are kept.

    Parameters
    ----------
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`.
    factors : int or sequence of int
        At least 1, for all axes or for each in the container's order. An axis keeps at least one voxel.
    sigma : {"auto", "skimage", "itk", "cardoso"}, float or sequence of float
        Of the blur, in input voxels: "skimage" (f - 1) / 2, which "auto" is too; "itk" f / 2, the rule of ITK's
        pyramids; "cardoso" sqrt((f**2 - 1) / (8 ln 2)), of Cardoso et al., MICCAI 2015; or numbers, 0 for none.
        Axes of factor 1 are not blurred by rule.
    kind : {"sampled", "discrete"}
        Of Gaussian, see `gaussian`.
    rounding, dtype, device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume or ndarray
        The same kind as `image`, `max(1, n // f)` voxels along an axis, spacing times f, the centre of the field of
        view kept. Samples that fall between voxels are interpolated linearly.

    Raises
    ------
    ValueError, TypeError
        For factors below 1 or not whole, sigma below 0 or an unknown rule.
    """
    one_of("kind", kind, ("sampled", "discrete"))
    container = unwrap(image)
    source = container.grid
    f = _factors(container, factors)
    if isinstance(sigma, str):
        one_of("sigma", sigma, SIGMA_RULES)
        widths = tuple(_rule_sigma(sigma, k) for k in f)
    else:
        widths = _voxel_sigmas(container, sigma)
    output = output_dtype(container.dtype, dtype)
    precision = precision_of(container.dtype, output)
    target = shrunk(source, f)
    where = map_indices(target, source)
    assert isinstance(where, AxisMap)
    blur: tuple[FloatArray | None, ...] = tuple(
        gaussian_response(s) if kind == "sampled" else discrete_gaussian_response(s, 1e-4) for s in widths
    )
    work = works.sampled(where, source, FILTERS["linear"], "nearest", blur, precision)
    made = _made(container, target, work, output, rounding, device, precision)
    return made.run(image, out)


def pyramid(
    image: Any,
    levels: int | None = None,
    *,
    factors: int | Sequence[int] | str = 2,
    schedule: Sequence[int | Sequence[int]] | None = None,
    sigma: str | float | Sequence[float] = "auto",
    rounding: str = "nearest",
    device: str = "auto",
) -> list[Any]:
    """A Gaussian pyramid: blur and subsample, repeated.

    Parameters
    ----------
    image : SimpleITK.Image, Volume or ndarray
        As for `gpuresample.resample`.
    levels : int, optional
        Number of levels, the image itself included; 4 unless given by `schedule`.
    factors : int, sequence of int, or "isotropic"
        From one level to the next. "isotropic" halves the axes whose spacing is below 1.5 times the finest: thick
        slices wait until the others have caught up.
    schedule : sequence of int or sequence of sequence of int, optional
        Instead of `levels` and `factors`: the factor of every level against the image, finest first, each a multiple
        of the one before. The first is usually 1.
    sigma : {"auto", "skimage", "itk", "cardoso"}, float or sequence of float
        Of every step's blur, see `downsample`.
    rounding, device
        As for `gpuresample.resample`.

    Returns
    -------
    list
        Levels, finest first, of the same kind and voxel type as `image`, each with its own spacing and origin. Between
        levels voxels stay floats: every level is rounded once.

    Raises
    ------
    ValueError, TypeError
        For levels below 1, factors below 1 or not whole, a schedule that is not a chain of multiples.

    Warns
    -----
    RuntimeWarning
        If the levels end early because no axis can shrink any further.
    """
    container = unwrap(image)
    steps = _steps(container, levels, factors, schedule)
    # Checked here too, for levels that need them not.
    one_of("rounding", rounding, ROUNDINGS)
    engines.select(device)
    if isinstance(sigma, str):
        one_of("sigma", sigma, SIGMA_RULES)
    else:
        _voxel_sigmas(container, sigma)
    floats = np.dtype(np.float64 if precision_of(container.dtype, container.dtype) == "double" else np.float32)
    now, grid = image, container.grid
    result = []
    for number, step in enumerate(steps):
        f = _isotropic(grid) if step is None else step
        f = tuple(min(k, n) for k, n in zip(f, grid.size, strict=True))
        if number > 0 and all(k == 1 for k in f) and max(grid.size) == 1:
            warnings.warn(
                f"the pyramid ends after {number} of {len(steps)} levels: no axis can shrink any further",
                RuntimeWarning,
                stacklevel=2,
            )
            break
        if any(k > 1 for k in f):
            now = downsample(now, container.order(f), sigma=sigma, dtype=floats, device=device)
            grid = shrunk(grid, f)
        result.append(image if now is image else _rounded(now, grid, container, rounding, device))
    return result


def shrunk(grid: Grid, factors: tuple[int, ...]) -> Grid:
    """The grid of every f-th voxel, `max(1, n // f)` of them, the centre of the field of view kept."""
    size = tuple(max(1, n // k) for n, k in zip(grid.size, factors, strict=True))
    return _centred(grid, size, tuple(s * k for s, k in zip(grid.spacing, factors, strict=True)))


def _centred(grid: Grid, size: tuple[int, ...], spacing: tuple[float, ...]) -> Grid:
    """A grid of this size and spacing whose centre is `grid`'s, in the order of operations of ITK's Shrink."""
    bare = Grid(size, spacing, grid.origin, grid.direction)
    origin = np.asarray(grid.origin) + (_middle(grid) - _middle(bare))
    return Grid(size, spacing, tuple(origin.tolist()), grid.direction)


def _middle(grid: Grid) -> FloatArray:
    """The grid's centre. ITK adds the origin last here, unlike to whole indices (`Grid.points`)."""
    p = np.zeros(grid.dimension)
    for j in range(grid.dimension):
        p += grid.index_to_point[:, j] * ((grid.size[j] - 1) / 2.0)
    return p + np.asarray(grid.origin)


def _rounded(level: Any, grid: Grid, container: Container, rounding: str, device: str) -> Any:
    """A float level in the image's own voxel type."""
    if unwrap(level).dtype == container.dtype:
        return level
    like = level if not isinstance(level, np.ndarray) else None
    target = {"like": like} if like is not None else {"size": level.shape[-grid.dimension :]}
    dtype = np.dtype(np.uint8) if container.dtype == np.bool_ else container.dtype
    out = resample(level, **target, interpolation="linear", rounding=rounding, dtype=dtype, device=device)
    if container.dtype != np.bool_:
        return out
    # Floats become booleans by way of bytes, 0 or 1; SimpleITK has no booleans.
    if isinstance(out, np.ndarray):
        return out.view(np.bool_)
    return Volume(out.array.view(np.bool_), out.spacing, out.origin, out.direction)


def _steps(container: Container, levels: int | None, factors: Any, schedule: Any) -> list[tuple[int, ...] | None]:
    """The factor of every level against the one before, in x, y, z order; None for "isotropic"."""
    d = container.grid.dimension
    if schedule is not None:
        if levels is not None:
            raise ValueError(f"schedule says how many levels there are; it cannot be combined with levels={levels!r}")
        if isinstance(factors, str) or np.any(np.asarray(factors) != 2):
            raise ValueError(f"schedule says every factor; it cannot be combined with factors={factors!r}")
        if isinstance(schedule, np.ndarray):
            schedule = schedule.tolist()
        if isinstance(schedule, (str, bytes)) or not isinstance(schedule, Sequence) or not schedule:
            raise ValueError(f"schedule must be a non-empty sequence of factors, got {schedule!r}")
        steps: list[tuple[int, ...] | None] = []
        before = (1,) * d
        for level in schedule:
            f = _factors(container, level, "schedule")
            if any(a % b for a, b in zip(f, before, strict=True)):
                raise ValueError(f"schedule must be a chain of multiples, got {schedule!r}")
            steps.append(tuple(a // b for a, b in zip(f, before, strict=True)))
            before = f
        return steps
    n = 4 if levels is None else _count("levels", levels)
    step = None if isinstance(factors, str) else _factors(container, factors)
    if isinstance(factors, str):
        one_of("factors", factors, ("isotropic",))
    return [(1,) * d, *[step] * (n - 1)]


def _isotropic(grid: Grid) -> tuple[int, ...]:
    finest = min(grid.spacing)
    return tuple(2 if s < 1.5 * finest else 1 for s in grid.spacing)


def _rule_sigma(rule: str, factor: int) -> float:
    if factor == 1:
        return 0.0
    if rule == "itk":
        return factor / 2.0
    if rule == "cardoso":
        return math.sqrt((factor**2 - 1.0) / (8.0 * math.log(2.0)))
    return (factor - 1.0) / 2.0


def _factors(container: Container, value: Any, name: str = "factors") -> tuple[int, ...]:
    """Whole numbers of at least 1 for axes x, y, z."""
    d = container.grid.dimension
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * d
    values = container.order(numbers(name, value, d))
    if any(v < 1 or v != int(v) for v in values):
        raise ValueError(f"{name} must be whole numbers of at least 1, got {value!r}")
    return tuple(int(v) for v in values)


def _voxel_sigmas(container: Container, value: Any) -> tuple[float, ...]:
    """Sigma of axes x, y, z, at least 0, as given."""
    d = container.grid.dimension
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * d
    values: tuple[float, ...] = container.order(numbers("sigma", value, d))
    if min(values) < 0:
        raise ValueError(f"sigma must be at least 0 on every axis, got {value!r}")
    return values


def _sigmas(container: Container, value: Any) -> tuple[float, ...]:
    """Sigma of axes x, y, z in voxels, from physical units."""
    values = _voxel_sigmas(container, value)
    return tuple(v / s for v, s in zip(values, container.grid.spacing, strict=True))


def _orders(container: Container, order: Any, kind: str) -> tuple[int, ...]:
    d = container.grid.dimension
    if isinstance(order, Real) and not isinstance(order, bool):
        order = (order,) * d
    values = container.order(numbers("order", order, d))
    if any(v not in (0, 1, 2) for v in values):
        raise ValueError(f"order must be 0, 1 or 2 on every axis, got {order!r}")
    if kind == "discrete" and any(values):
        raise ValueError(
            f'order must be 0 for kind="discrete", got {order!r}; "sampled" and "recursive" take derivatives'
        )
    return tuple(int(v) for v in values)


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number of at least 1, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)


def _above_zero(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a number above zero, got {value!r}")
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"{name} must be a number above zero, got {value!r}")


def _plan(
    container: Container,
    target: Grid,
    tables: list[taps.TapTable],
    output: np.dtype[Any],
    rounding: str,
    device: str,
    precision: str,
    *,
    copies: bool = False,
    divisor: int = 1,
) -> Plan:
    work = works.along_axes(tables, precision)
    return _made(container, target, work, output, rounding, device, precision, copies=copies, divisor=divisor)


def _made(
    container: Container,
    target: Grid,
    work: Work,
    output: np.dtype[Any],
    rounding: str,
    device: str,
    precision: str,
    *,
    copies: bool = False,
    divisor: int = 1,
) -> Plan:
    one_of("rounding", rounding, ROUNDINGS)
    engines.select(device)
    check_memory(container.output_shape(target), output, f"size {container.order(target.size)}")
    store = Store(0, rounding == "truncate")
    return Plan(container.grid, target, container.dtype, output, device, work, store, precision, copies, divisor)
