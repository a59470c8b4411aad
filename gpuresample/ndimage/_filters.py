"""Gaussian, uniform and any other 1-D filters."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import shown
from gpuresample.ndimage import _storing as storing
from gpuresample.ndimage._base import (
    Input,
    Output,
    along_axes,
    axes_of,
    axis_of,
    check_stored,
    mode_of,
    or_scipy,
    output_of,
    per_axis,
    summed,
    taken,
)
from gpuresample.planning import scipy_works as works
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.scipy_works import Line
from gpuresample.planning.taps import fold

Array = npt.NDArray[Any]

# A sum that is so near to a whole number, for its size, is made once more in SciPy's order before it is cut.
NEAR = 1e-9
# Such sums that are made at once.
AT_ONCE = 1 << 18
EPS = float(np.finfo(np.float64).eps)

Step = tuple[int, tuple[float, ...], int, str]
"""Axis, weights, origin, mode."""


@or_scipy
def correlate1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: complex = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Weighted sums of neighbours along an axis: `scipy.ndimage.correlate1d`.

    Parameters
    ----------
    input : array
        Of any dimension.
    weights : sequence of float
        Of neighbours.
    axis : int
    output : array or dtype, optional
        Where the result goes, or its type; the input's unless given.
    mode : str
        How the array goes on past its border.
    cval : float
        What is beyond it with mode "constant".
    origin : int
        By how much the filter is moved.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    return _correlate(input, weights, axis, output, mode, cval, origin)


@or_scipy
def convolve1d(
    input: Any, weights: Any, axis: int = -1, output: Any = None, mode: str = "reflect", cval: complex = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Weighted sums with the weights turned round: `scipy.ndimage.convolve1d`.

    Parameters
    ----------
    input, weights, axis, output, mode, cval, origin
        As for `correlate1d`.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    turned = np.asarray(weights)[::-1]
    moved = -origin - (0 if turned.shape[0] & 1 else 1)
    return _correlate(input, turned.conj() if turned.dtype.kind == "c" else turned, axis, output, mode, cval, moved)


def _correlate(input: Any, weights: Any, axis: int, output: Any, mode: str, cval: complex, origin: int) -> Any:
    source, row = taken(input), np.asarray(weights)
    is_complex = "c" in (source.array.dtype.kind, row.dtype.kind)
    out = output_of(output, source, is_complex=is_complex)
    if row.dtype.kind == "c" and source.array.dtype.kind != "c" and np.iscomplexobj(cval):
        raise ValueError(f"Cannot provide a complex-valued cval when the input is real, got {cval!r}")
    if row.ndim != 1 or row.shape[0] < 1:
        raise RuntimeError(f"no filter weights given: weights must be a sequence of numbers, got shape {row.shape}")
    number = axis_of(axis, source.array.ndim)
    if not -(len(row) // 2) <= origin <= (len(row) - 1) // 2:
        raise ValueError(
            f"Invalid origin; origin must satisfy -(len(weights) // 2) <= origin <= (len(weights)-1) // 2, got {origin}"
        )
    word = mode_of(mode)
    at = operator.index(origin)

    def pair(array: Any, numbers: Array, value: float, target: Any) -> None:
        step = (number, tuple(np.asarray(numbers, np.float64).tolist()), at, word)
        given = out if target is out.array else Output(target, target, None)
        _filter(Input(array, source.held), given, [step], value)

    if not is_complex:
        pair(source.array, row, float(cval), out.array)  # type: ignore[arg-type]
        return out
    row = row.conj() if row.dtype.kind == "c" else row
    real, imaginary = float(np.real(cval)), float(np.imag(cval))
    array, target = source.array, out.array
    if target.dtype.kind != "c":
        raise RuntimeError(f"output must have complex dtype, got {target.dtype}")
    if row.dtype.kind != "c":
        pair(array.real, row, real, target.real)
        pair(array.imag, row, imaginary, target.imag)
        return out.done()
    if source.where == "cpu" and np.may_share_memory(array, target):
        array = array.copy()  # both halves of the result are sums of both halves of the input
    pair(array.real, row.real, real, target.real)
    pair(array.real, row.imag, real, target.imag)
    if array.dtype.kind == "c":
        other = source.space.empty(array.shape, array.real.dtype)
        pair(array.imag, row.imag, imaginary, other)
        target.real -= other
        pair(array.imag, row.real, imaginary, other)
        target.imag += other
    return out.done()


@or_scipy
def gaussian_filter1d(
    input: Any, sigma: float, axis: int = -1, order: int = 0, output: Any = None, mode: str = "reflect",
    cval: complex = 0.0, truncate: float = 4.0, *, radius: int | None = None,
) -> Any:  # fmt: skip
    """A Gaussian, or its derivative, along an axis: `scipy.ndimage.gaussian_filter1d`.

    Parameters
    ----------
    input : array
        Of any dimension.
    sigma : float
        In samples.
    axis : int
    order : int
        Of the derivative.
    output, mode, cval
        As for `correlate1d`.
    truncate : float
        Radius of the kernel, in multiples of sigma.
    radius : int, optional
        The same in samples.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    row = gaussian_row(float(sigma), operator.index(order), _radius(float(sigma), truncate, radius))
    return _correlate(input, row, axis, output, mode, cval, 0)


@or_scipy
def gaussian_filter(
    input: Any, sigma: Any, order: Any = 0, output: Any = None, mode: Any = "reflect", cval: complex = 0.0,
    truncate: float = 4.0, *, radius: Any = None, axes: Any = None,
) -> Any:  # fmt: skip
    """A Gaussian, or its derivatives: `scipy.ndimage.gaussian_filter`.

    Parameters
    ----------
    input : array
        Of any dimension.
    sigma : float or sequence of float
        In samples; of every axis.
    order : int or sequence of int
        Of the derivative, on every axis.
    output, cval
        As for `correlate1d`.
    mode : str or sequence of str
        How the array goes on past its border, on every axis.
    truncate : float
        Radius of the kernel, in multiples of sigma.
    radius : int or sequence of int, optional
        The same in samples.
    axes : tuple of int, optional
        Those that are filtered; all unless given.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    source = taken(input)
    out = output_of(output, source, is_complex=source.array.dtype.kind == "c" and output is None)
    _gaussian(source, out, sigma, order, mode, cval, truncate, radius, axes)
    return out


def _gaussian(
    source: Input, out: Output, sigma: Any, order: Any, mode: Any, cval: complex, truncate: float = 4.0,
    radius: Any = None, axes: Any = None,
) -> None:  # fmt: skip
    chosen = axes_of(axes, source.array.ndim)
    count = len(chosen)
    values = zip(
        chosen, per_axis("order", order, count), per_axis("sigma", sigma, count), per_axis("mode", mode, count),
        per_axis("radius", radius, count), strict=True,
    )  # fmt: skip
    steps: list[Step] = []
    for axis, degree, width, border, reach in values:
        if width > 1e-15:
            row = gaussian_row(float(width), operator.index(degree), _radius(float(width), truncate, reach))
            steps.append((axis, row, 0, mode_of(border)))
    _halves(source, out, lambda half, given, value: _filter(half, given, steps, value), cval)


@lru_cache(maxsize=64)
def gaussian_row(sigma: float, order: int, radius: int) -> tuple[float, ...]:
    """Weights of a sampled Gaussian or its derivative, of neighbours `-radius` to `radius`.

    Raises
    ------
    ValueError
        For a negative order.
    """
    degree = order
    if degree < 0:
        raise ValueError(f"order must be non-negative, got {shown(order)}")
    k = np.arange(-radius, radius + 1)
    variance = sigma * sigma
    bell = np.exp(-0.5 / variance * k**2)
    bell = bell / bell.sum()
    # The derivative of a polynomial times the Gaussian is (q' - k q / variance) times it.
    polynomial = np.zeros(degree + 1)
    polynomial[0] = 1.0
    for _ in range(degree):
        step = np.zeros(degree + 1)
        step[:-1] = polynomial[1:] * np.arange(1, degree + 1)
        step[1:] += polynomial[:-1] / -variance
        polynomial = step
    if degree:
        bell = (k[:, None] ** np.arange(degree + 1)).dot(polynomial) * bell
    return tuple(bell[::-1].tolist())


def _radius(sigma: float, truncate: float, radius: Any) -> int:
    found = int(truncate * sigma + 0.5) if radius is None else radius
    if not isinstance(found, numbers.Integral) or found < 0:
        raise ValueError(f"Radius must be a nonnegative integer, got {shown(found)}")
    return int(found)


@or_scipy
def gaussian_laplace(
    input: Any, sigma: Any, output: Any = None, mode: Any = "reflect", cval: complex = 0.0, *, axes: Any = None,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """The sum of second derivatives of a Gaussian: `scipy.ndimage.gaussian_laplace`.

    Parameters
    ----------
    input : array
        Of any dimension.
    sigma : float or sequence of float
        In samples; of every axis.
    output, mode, cval, axes
        As for `gaussian_filter`.
    **kwargs
        Others of `gaussian_filter`.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    source = taken(input)
    n = source.array.ndim
    out = output_of(output, source)
    chosen = axes_of(axes, n)
    widths = per_axis("sigma", sigma, len(chosen))
    if len(chosen) < n:
        widths = [dict(zip(chosen, widths, strict=True)).get(axis, 0) for axis in range(n)]
    _derivatives(source, out, widths, mode, cval, chosen, 2, kwargs)
    return out.done()


@or_scipy
def gaussian_gradient_magnitude(
    input: Any, sigma: Any, output: Any = None, mode: Any = "reflect", cval: complex = 0.0, *, axes: Any = None,
    **kwargs: Any,
) -> Any:  # fmt: skip
    """The length of a Gaussian's gradient: `scipy.ndimage.gaussian_gradient_magnitude`.

    Parameters
    ----------
    input : array
        Of any dimension.
    sigma : float or sequence of float
        In samples; of every axis.
    output, mode, cval, axes
        As for `gaussian_filter`.
    **kwargs
        Others of `gaussian_filter`.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    source = taken(input)
    out = output_of(output, source)
    chosen = axes_of(axes, source.array.ndim)
    _derivatives(source, out, sigma, mode, cval, chosen, 1, kwargs)
    return out.done()


def _derivatives(
    source: Input, out: Output, sigma: Any, mode: Any, cval: complex, axes: Sequence[int], order: int,
    keywords: dict[str, Any],
) -> None:  # fmt: skip
    """Second derivatives added up, or the root of the first ones' squares, in the output's type as SciPy does it."""
    n, space = source.array.ndim, source.space
    if not axes:
        out.array[...] = source.array
        return
    modes = per_axis("mode", mode, len(axes))
    total = out.array
    if source.where == "cpu" and np.may_share_memory(total, source.array):
        source = Input(source.array.copy(), source.held)
    for k, (axis, border) in enumerate(zip(axes, modes, strict=True)):
        degrees = [order if a == axis else 0 for a in range(n)]
        made = total if k == 0 else space.empty(total.shape, total.dtype)
        _gaussian(source, Output(made, made, None), sigma, degrees, border, cval, **keywords)
        if order == 1:
            space.multiply(made, made, made)
        if k:
            total += made
    if order == 1:
        space.sqrt(total, total, casting="unsafe")


@or_scipy
def uniform_filter1d(
    input: Any, size: int, axis: int = -1, output: Any = None, mode: str = "reflect", cval: complex = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """Means of neighbours along an axis: `scipy.ndimage.uniform_filter1d`.

    Parameters
    ----------
    input : array
        Of any dimension.
    size : int
        Of neighbours.
    axis, output, mode, cval, origin
        As for `correlate1d`.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    source = taken(input)
    number = axis_of(axis, source.array.ndim)
    if size < 1:
        raise RuntimeError(f"incorrect filter size: it must be at least 1, got {size}")
    out = output_of(output, source, is_complex=source.array.dtype.kind == "c")
    _check_origin(size, origin)
    steps = [(number, operator.index(size), operator.index(origin), mode_of(mode))]
    _halves(source, out, lambda half, given, value: _means(half, given, steps, value), cval)
    return out


@or_scipy
def uniform_filter(
    input: Any, size: Any = 3, output: Any = None, mode: Any = "reflect", cval: complex = 0.0, origin: Any = 0, *,
    axes: Any = None,
) -> Any:  # fmt: skip
    """Means of neighbours: `scipy.ndimage.uniform_filter`.

    Parameters
    ----------
    input : array
        Of any dimension.
    size : int or sequence of int
        Of neighbours on every axis.
    output, cval
        As for `correlate1d`.
    mode : str or sequence of str
        How the array goes on past its border, on every axis.
    origin : int or sequence of int
        By how much the filter is moved, on every axis.
    axes : tuple of int, optional
        Those that are filtered; all unless given.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    source = taken(input)
    out = output_of(output, source, is_complex=source.array.dtype.kind == "c")
    chosen = axes_of(axes, source.array.ndim)
    count = len(chosen)
    values = zip(
        chosen, per_axis("size", size, count), per_axis("origin", origin, count), per_axis("mode", mode, count),
        strict=True,
    )  # fmt: skip
    steps = []
    for axis, width, at, border in values:
        if width > 1:
            _check_origin(int(width), at)
            steps.append((axis, int(width), operator.index(at), mode_of(border)))
    _halves(source, out, lambda half, given, value: _means(half, given, steps, value), cval)
    return out


def _check_origin(size: int, origin: int) -> None:
    if not 0 <= size // 2 + origin < size:
        raise ValueError(f"invalid origin: it must leave the filter of {size} on its middle, got {origin}")


def _halves(source: Input, out: Output, do: Callable[[Input, Output, float], None], cval: complex) -> None:
    """Do something to the whole, or to the real and the imaginary half."""
    if source.array.dtype.kind != "c":
        if out.array.dtype.kind == "c":
            raise RuntimeError(f"output must not be complex for real input, got {out.array.dtype}")
        do(source, out, float(cval))  # type: ignore[arg-type]
        return
    if out.array.dtype.kind != "c":
        raise RuntimeError(f"output must have complex dtype, got {out.array.dtype}")
    first, second = storing.halves(out)
    do(Input(source.array.real, source.held), first, float(np.real(cval)))
    do(Input(source.array.imag, source.held), second, float(np.imag(cval)))


# --- sums ------------------------------------------------------------------------------------------------------------


def _filter(source: Input, out: Output, steps: Sequence[Step], cval: float) -> None:
    """Filters along axes, one after the other; results between are of the output's type, as SciPy stores them."""
    array, target, space = source.array, out.array, source.space
    if not steps or not array.size:
        target[...] = array
        return
    check_stored(target.dtype)
    whole = target.dtype.kind != "f"
    precision = "double" if whole else storing.precision_for(array.dtype, target.dtype)
    shape = array.shape
    for group in _groups(steps, shape, cval, whole):
        lines: list[Line | None] = [None] * array.ndim
        for axis, row, origin, mode in group:
            lines[axis] = works.filter_line(shape[axis], row, origin, mode)
        values = summed(array)
        sums = storing.target_of(target, values, precision, space, source.where)
        once = along_axes(values, lines, sums, precision, storing.STORE, space, source.where)
        if len(group) == len(steps) and values is array and sums is target:
            out.once = once
        for axis, line in enumerate(lines):
            if line is not None and line.missing is not None and cval != 0.0:
                out.once = None
                spread = [1] * array.ndim
                spread[axis] = shape[axis]
                sums += storing.share_of(space.asarray(line.missing), cval, space).reshape(spread).astype(sums.dtype)
        if whole and source.where == "cpu":
            _mend(values, sums, group[0], cval)
        storing.cut(sums, target)
        array = target


def _groups(steps: Sequence[Step], shape: Sequence[int], cval: float, whole: bool) -> list[Sequence[Step]]:
    """Steps that may go through together: of floats all, unless a constant comes in between."""
    apart = whole or (cval != 0.0 and any(mode in ("constant", "grid-constant") for _, _, _, mode in steps))
    return [[step] for step in steps] if apart else [steps]


def _mend(values: Any, sums: Any, step: Step, cval: float) -> None:
    """Sums that are all but whole numbers once more in SciPy's order: its last digit decides where they are cut."""
    axis, row, origin, mode = step
    near = np.abs(sums - np.rint(sums)) <= NEAR * np.maximum(1.0, np.abs(sums))
    places = np.flatnonzero(near)
    if not places.size:
        return
    weights = np.array(row)
    size, n = weights.size, values.shape[axis]
    half = size // 2
    after = size - half - 1
    border = {"wrap": "grid-wrap", "grid-constant": "constant"}.get(mode, mode)
    kind = _symmetry(weights) if size & 1 else 0
    flat = np.moveaxis(values, axis, -1)
    for lo in range(0, places.size, AT_ONCE):
        index = np.unravel_index(places[lo : lo + AT_ONCE], sums.shape)
        along, others = index[axis], tuple(k for a, k in enumerate(index) if a != axis)

        def at(k: int, along: Any = along, others: Any = others) -> FloatArray:
            position = along + (k - origin)
            outside = (position < 0) | (position >= n)
            if border == "constant":
                found: FloatArray = flat[(*others, np.where(outside, 0, position))].astype(np.float64)
                return np.where(outside, cval, found)
            inner = fold(position, n, border)
            return np.asarray(flat[(*others, inner)], np.float64)

        if kind:
            total = at(0) * weights[half]
            for k in range(-half, 0):
                total = total + (at(k) + kind * at(-k)) * weights[half + k]
        else:
            total = at(after) * weights[half + after]
            for k in range(-half, after):
                total = total + at(k) * weights[half + k]
        sums[index] = total


def _symmetry(weights: FloatArray) -> int:
    """1 for weights that are the same from either side, -1 where they change their sign, else 0."""
    if (np.abs(weights - weights[::-1]) <= EPS).all():
        return 1
    half = weights.size // 2
    turned = np.abs(weights + weights[::-1])
    turned[half] = 0.0
    return -1 if (turned <= EPS).all() else 0


def _means(source: Input, out: Output, steps: Sequence[tuple[int, int, int, str]], cval: float) -> None:
    """Means of neighbours: of integers exact sums, which are divided and then cut."""
    array, target, space = source.array, out.array, source.space
    if target.dtype.kind == "f":
        rows: list[Step] = [(axis, (1.0 / size,) * size, origin, mode) for axis, size, origin, mode in steps]
        _filter(source, out, rows, cval)
        return
    if not steps or not array.size:
        target[...] = array
        return
    check_stored(target.dtype)
    for axis, size, origin, mode in steps:
        values = summed(array)
        sums = space.empty(array.shape, np.float64)
        lines: list[Line | None] = [None] * array.ndim
        line = lines[axis] = works.filter_line(array.shape[axis], (1.0,) * size, origin, mode)
        along_axes(values, lines, sums, "double", storing.STORE, space, source.where)
        if line.missing is not None and cval != 0.0:
            spread = [1] * array.ndim
            spread[axis] = array.shape[axis]
            sums += storing.share_of(space.asarray(line.missing), cval, space).reshape(spread)
        sums /= size
        storing.cut(sums, target)
        array = target
