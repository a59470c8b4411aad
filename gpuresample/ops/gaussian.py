"""Gaussians: arguments to tap tables to a plan. No voxel is touched here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from numbers import Real
from typing import Any

import numpy.typing as npt

from gpuresample.checks import WIDEST, check_width, numbers, one_of
from gpuresample.containers import Container, unwrap
from gpuresample.ops import complexes
from gpuresample.ops.arguments import check_above_zero, count_of, planned, sigmas_of
from gpuresample.ops.resample import output_dtype
from gpuresample.planning import planner, shortcuts, taps
from gpuresample.planning.filters import (
    FloatArray,
    discrete_gaussian_response,
    gaussian_response,
    recursive_gaussian_response,
)
from gpuresample.plans import Plan, execute, precision_of

KINDS = ("discrete", "sampled", "recursive")

BOUNDARIES = ("nearest", "reflect", "mirror", "grid-wrap")
# How a line goes on past its ends, unless `boundary` says otherwise: as in the filter that the kind is taken from.
_KIND_BOUNDARY = {"discrete": "nearest", "sampled": "reflect", "recursive": "nearest"}
_RECURSIVE_TAIL = {"single": 1e-7, "double": 1e-11}
_RECURSIVE_LEAST = 4
# Here, in voxels, weights still sum to 1 but for 5e-7; the error grows with the fourth power.
_RECURSIVE_MOST = 1000
_RECURSIVE_THINNEST = 1e-6
# Largest radius, in voxels, of a "sampled" kernel.
_LONGEST = 8 * WIDEST
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
    image : SimpleITK.Image, Volume, nibabel image or array
        As for `gpuresample.resample`.
    sigma : float or sequence of float
        Standard deviation in physical units (in voxels for arrays without `input_spacing`): one number for all axes, or
        one for each axis in the order of the image's kind. An axis with 0 is not blurred.
    kind : {"discrete", "sampled", "recursive"}
        "discrete": Lindeberg's discrete Gaussian, as SimpleITK's DiscreteGaussian, with true Bessel values at any
        sigma. "sampled": the Gaussian at voxel centres, as `scipy.ndimage.gaussian_filter`. "recursive": Deriche's
        recursive filter, as SimpleITK's SmoothingRecursiveGaussian and RecursiveGaussian.
    order : int or sequence of int
        0 blurs; 1 and 2 take the first and second derivative by the voxel index, with the kinds "sampled" and
        "recursive". Derivatives rarely fit integers: ask for a float `dtype`.
    truncate : float
        Radius of the kernel of "sampled", in multiples of sigma.
    max_error : float
        Weight that "discrete" may cut off (SimpleITK's default is 0.01, which loses 7 % of the variance).
    max_radius : int, optional
        Largest radius of "discrete", in voxels (SimpleITK's MaximumKernelWidth, 32 there).
    boundary : {None, "nearest", "reflect", "mirror", "grid-wrap"}
        How the image continues beyond its border, in SciPy's words. None: "reflect" for "sampled", as in SciPy;
        "nearest" for the others, as in SimpleITK.
    input_spacing, rounding, dtype, device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or array
        The same kind as `image`, on the same grid.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, "recursive" along an axis of fewer than 4 voxels, derivatives of "discrete".
    RuntimeError
        For `device="cuda"` without a usable GPU.

    Notes
    -----
    The time does not grow with sigma: wide blurs take a detour over coarser grids (`gpuresample.planning.shortcuts`),
    within the numeric contract. A NaN may then reach a little further than the kernel does. Kernels that are cut off
    where they still weigh much (`truncate` of 3 and less, `max_error` of 0.002 and more) do not take the detour.

    T. Lindeberg, IEEE PAMI 12(3), 1990; R. Deriche, INRIA RR-1893, 1993; ITK 5.4.
    """

    def plan_of(container: Container, dtype: npt.DTypeLike | None) -> Plan:
        return gaussian_plan(
            container, sigma, kind, order, truncate, max_error, max_radius, boundary, rounding, dtype, device
        )

    if complexes.is_complex(image):
        return complexes.run(image, out, dtype, 0, input_spacing, lambda container, real, _: plan_of(container, real))
    container = unwrap(image, input_spacing, lazy=True)
    return execute(plan_of(container, dtype), container, out)


def gaussian_plan(
    container: Container,
    sigma: float | Sequence[float],
    kind: str = "discrete",
    order: int | Sequence[int] = 0,
    truncate: float = 4.0,
    max_error: float = 1e-4,
    max_radius: int | None = None,
    boundary: str | None = None,
    rounding: str = "nearest",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
) -> Plan:
    """The plan of `gaussian` for images like a container's."""
    one_of("kind", kind, KINDS)
    d = container.grid.dimension
    widths = _sigmas(container, sigma)
    orders = _orders(container, order, kind)
    rule = _KIND_BOUNDARY[kind] if boundary is None else one_of("boundary", boundary, BOUNDARIES)
    check_above_zero("truncate", truncate)
    check_above_zero("max_error", max_error)
    if max_radius is not None:
        max_radius = count_of("max_radius", max_radius)
    output = output_dtype(container.dtype, dtype)
    precision = precision_of(container.dtype, output)
    sizes = container.grid.size
    for axis in range(d):
        _check_axis(kind, sizes[axis], widths[axis], orders[axis], "xyz"[axis], sigma)
    if kind == "sampled" and max(widths) * truncate > _LONGEST:
        raise ValueError(f"truncate must not reach further than {_LONGEST} voxels, got {truncate!r} sigma of {sigma!r}")
    responses: list[FloatArray | None] = []
    for axis in reversed(range(d)):
        if kind == "discrete":
            responses.append(discrete_gaussian_response(widths[axis], max_error, max_radius))
        elif kind == "sampled":
            responses.append(gaussian_response(widths[axis], orders[axis], truncate))
        else:
            responses.append(recursive_gaussian_response(widths[axis], orders[axis], _RECURSIVE_TAIL[precision]))
    tables = [taps.smoothing_table(r, n, rule) for r, n in zip(responses, sizes[::-1], strict=True)]
    work = planner.along_axes(tables, precision)
    if rule != "grid-wrap":  # a coarse grid need not begin again where the image does
        work = replace(work, shortcut=shortcuts.shortcut(responses, tables, rule, precision))
    return planned(container, container.grid, work, output, rounding, device)


def _check_axis(kind: str, n: int, width: float, order: int, name: str, sigma: object) -> None:
    """Refuse what one axis cannot be blurred with."""
    if kind == "recursive" and width > 0 and n < _RECURSIVE_LEAST:
        raise ValueError(
            f'kind="recursive" needs at least {_RECURSIVE_LEAST} voxels on every axis that it filters, '
            f"got {n} on axis {name}"
        )
    if kind == "recursive" and 0 < width < _RECURSIVE_THINNEST:
        raise ValueError(
            f'sigma must be 0 or at least {_RECURSIVE_THINNEST} voxels for kind="recursive", got {sigma!r}'
        )
    if kind == "recursive" and width > _RECURSIVE_MOST:
        raise ValueError(
            f'sigma must be at most {_RECURSIVE_MOST} voxels for kind="recursive", whose recursion loses its digits '
            f'beyond; got {sigma!r}; "sampled" and "discrete" take more'
        )
    if order and 0 < width < _DERIVATIVE_LEAST:
        raise ValueError(
            f"sigma must be at least {_DERIVATIVE_LEAST} voxels on axes of order 1 or 2 (or 0), got {sigma!r}"
        )


def _sigmas(container: Container, value: Any) -> tuple[float, ...]:
    """Sigma of axes x, y, z in voxels, from physical units."""
    values = sigmas_of(container, value)
    widths = tuple(v / s for v, s in zip(values, container.grid.spacing, strict=True))
    check_width("sigma", widths, value)
    return widths


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
