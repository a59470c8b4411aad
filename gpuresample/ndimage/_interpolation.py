"""`zoom`, `shift`, `rotate`, `affine_transform`, `map_coordinates`, `geometric_transform`, and the spline's filters."""

from __future__ import annotations

import itertools
import math
import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import shown
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.ndimage import _storing as storing
from gpuresample.ndimage._base import (
    BITS,
    Input,
    NotHereError,
    Output,
    along_axes,
    axis_of,
    check_stored,
    is_type,
    missing_of,
    mode_of,
    native,
    or_scipy,
    output_of,
    per_axis,
    run,
    summed,
    taken,
)
from gpuresample.planning import scipy_works as works
from gpuresample.planning.scipy_works import Line
from gpuresample.planning.taps import SCIPY_PAD
from gpuresample.planning.works import Route

Array = npt.NDArray[Any]

# Elements of the output up to which positions of a matrix are computed one by one, in SciPy's own order, and splines
# are summed in float64 for float32 too.
ONE_BY_ONE = 1 << 15
# Positions of a matrix that are computed so at once, where the engine has no such border.
AT_ONCE = 1 << 20
# Elements of a row, where an output is a long line.
ROW = 1 << 10
# Samples so far away are beyond any array; infinite positions are as good as these where a line repeats its ends.
FAR = 1e15
# Samples of a line that begins again, up to which the table of its coefficients, as wide as it is long, is small.
LONGEST_WRAP = 2048


# --- the spline's coefficients ---------------------------------------------------------------------------------------


@or_scipy
def spline_filter1d(input: Any, order: int = 3, axis: int = -1, output: Any = np.float64, mode: str = "mirror") -> Any:
    """B-spline coefficients along one axis: `scipy.ndimage.spline_filter1d`.

    Parameters
    ----------
    input : array
        Of any dimension.
    order : int
        Of the spline, 0 to 5.
    axis : int
    output : array or dtype
        Where the result goes, or its type.
    mode : str
        How the line goes on past its ends.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    is_complex = source.array.dtype.kind == "c"
    out = output_of(output, source, is_complex=is_complex)
    word = mode_of(mode)
    for half, given in _parts(source, out):
        _solve(half, given, number, word, (axis_of(axis, source.array.ndim),) if number > 1 else ())
    return out


@or_scipy
def spline_filter(input: Any, order: int = 3, output: Any = np.float64, mode: str = "mirror") -> Any:
    """B-spline coefficients along all axes: `scipy.ndimage.spline_filter`.

    Parameters
    ----------
    input : array
        Of any dimension.
    order : int
        Of the spline, 2 to 5.
    output : array or dtype
        Where the result goes, or its type.
    mode : str
        How the array goes on past its border.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order, 2)
    source = taken(input)
    out = output_of(output, source, is_complex=source.array.dtype.kind == "c")
    word = mode_of(mode)
    for half, given in _parts(source, out):
        _solve(half, given, number, word, tuple(range(source.array.ndim)))
    return out


def _solve(source: Input, output: Output, order: int, mode: str, axes: Sequence[int]) -> None:
    """Coefficients along some axes, one after the other in the output's type, as SciPy stores them."""
    array, target, space = source.array, output.array, source.space
    if not axes or not array.size:
        storing.cut(array if target.dtype.kind != "b" else array.astype(np.float64), target)
        return
    check_stored(target.dtype)
    if target.dtype.kind != "f":
        raise NotHereError("coefficients as integers: the last digit of SciPy's own sums decides where they are cut")
    _check_lines(array.shape, order, mode)
    precision = "double" if target.dtype != np.float32 or array.dtype == np.float64 else "single"
    lines = [
        works.coefficient_line(n, order, mode, precision) if axis in axes else None
        for axis, n in enumerate(array.shape)
    ]
    numbers = summed(array)
    sums = storing.target_of(target, numbers, precision, space, source.where)
    once = along_axes(numbers, lines, sums, precision, storing.STORE, space, source.where)
    if numbers is array and sums is target:
        output.once = once
    storing.cut(sums, target)


def _check_lines(shape: Sequence[int], order: int, mode: str) -> None:
    """Leave to SciPy what would need a table as long as it is wide."""
    if mode == "grid-wrap" and order > 1 and max(shape, default=0) > LONGEST_WRAP:
        raise NotHereError(f"coefficients of lines of more than {LONGEST_WRAP} samples with mode 'grid-wrap'")


def _border(array: Any, order: int, mode: str, cval: complex, prefilter: bool) -> str:
    """A border's word; what splines cannot be continued by here is left to SciPy."""
    word = mode_of(mode)
    if prefilter and order > 1:
        _check_lines(array.shape, order, word)
        if word == "grid-constant" and array.dtype.kind in "iub" and not _is_held(array.dtype, cval):
            raise NotHereError(f"a constant that {array.dtype} does not hold, beside voxels of that type")
    return word


def _is_held(dtype: np.dtype[Any], value: complex) -> bool:
    """Whether integers of a type hold a value as it is."""
    number = float(np.real(value))
    low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return math.isfinite(number) and number.is_integer() and low <= number <= high


# --- along axes ------------------------------------------------------------------------------------------------------


@or_scipy
def zoom(
    input: Any, zoom: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: complex = 0.0,
    prefilter: bool = True, *, grid_mode: bool = False,
) -> Any:  # fmt: skip
    """Another number of samples on every axis: `scipy.ndimage.zoom`.

    Parameters
    ----------
    input : array
        Of any dimension.
    zoom : float or sequence of float
        Factor of every axis.
    output : array or dtype, optional
        Where the result goes, or its type; the input's unless given.
    order : int
        Of the spline, 0 to 5.
    mode : str
        How the array goes on past its border.
    cval : float
        What is beyond it, for the modes "constant" and "grid-constant".
    prefilter : bool
        Whether the input are samples, not coefficients of the spline.
    grid_mode : bool
        Whether faces are aligned, not the centres of corner samples.

    Returns
    -------
    array
        Of the input's library.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    array = source.array
    _check_rank(array.ndim)
    factors = per_axis("zoom", zoom, array.ndim)
    shape = tuple(round(n * factor) for n, factor in zip(array.shape, factors, strict=True))
    out = output_of(output, source, shape, array.dtype.kind == "c")
    if prefilter and all(factor == 1 for factor in factors):
        out.array[...] = array
        return out.done()
    word = _border(array, number, mode, cval, prefilter)
    warned = grid_mode and mode in ("constant", "wrap")
    if warned:
        warnings.warn(
            f"It is recommended to use mode = grid-{mode} instead of {mode} when grid_mode is True.", stacklevel=3
        )
    less = 0 if grid_mode else 1
    scales = [(n - less) / (m - less) if m != less else 1.0 for n, m in zip(array.shape, shape, strict=True)]

    def line(axis: int, precision: str) -> Line:
        n, m = array.shape[axis], shape[axis]
        return works.spline_line(
            n, m, scales[axis], None, bool(grid_mode), number, word, bool(prefilter), precision
        )  # fmt: skip

    _sample_along(source, out, line, number, cval, tuple(range(array.ndim)))
    if warned:
        out.once = None
    return out


@or_scipy
def shift(
    input: Any, shift: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: complex = 0.0,
    prefilter: bool = True,
) -> Any:  # fmt: skip
    """The array moved by parts of a sample: `scipy.ndimage.shift`.

    Parameters
    ----------
    input : array
        Of any dimension.
    shift : float or sequence of float
        By how many samples, on every axis.
    output, order, mode, cval, prefilter
        As for `zoom`.

    Returns
    -------
    array
        Of the input's library and shape.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    array = source.array
    _check_rank(array.ndim)
    out = output_of(output, source, is_complex=array.dtype.kind == "c")
    word = _border(array, number, mode, cval, prefilter)
    moves = [-float(s) for s in per_axis("shift", shift, array.ndim)]

    def line(axis: int, precision: str) -> Line:
        n = array.shape[axis]
        return works.spline_line(n, n, None, moves[axis], False, number, word, bool(prefilter), precision)

    _sample_along(source, out, line, number, cval, tuple(range(array.ndim)))
    return out


def _sample_along(
    source: Input, out: Output, line: Callable[[int, str], Line], order: int, cval: complex, axes: Sequence[int]
) -> None:
    """Sample axis by axis; destination axis `k` runs along source axis `axes[k]`."""
    for k, (half, given) in enumerate(_parts(source, out)):
        _sample_half(half, given, line, order, _half_of(cval, k, out), axes)


def _sample_half(
    source: Input, out: Output, line: Callable[[int, str], Line], order: int, cval: float, axes: Sequence[int]
) -> None:
    array, space = source.array, source.space
    # The result in the order of the source's axes.
    target = out.array.transpose([list(axes).index(axis) for axis in range(array.ndim)])
    check_stored(target.dtype)
    if not target.size:
        return
    if not array.size:
        raise NotHereError("input is empty")
    if array.ndim > 3 and not math.isfinite(cval):
        raise NotHereError("a constant that is no finite number, of more than 3 dimensions")
    if order == 0:
        lines = [line(axis, "double") for axis in range(array.ndim)]
        if missing_of(lines, space) is None and target.dtype == array.dtype:
            _choose_along(source, lines, target, cval)
            return
    _check_summed(target.dtype, order)
    precision = storing.precision_for(array.dtype, target.dtype)
    lines = [line(axis, precision) for axis in range(array.ndim)]
    numbers = summed(array)
    sums = storing.target_of(target, numbers, precision, space, source.where)
    store = Store(default=sums.dtype.type(cval))
    once = along_axes(numbers, lines, sums, precision, store, space, source.where)
    missing = missing_of(lines, space)
    if missing is not None and cval != 0.0:
        sums += storing.share_of(missing, cval, space).astype(sums.dtype)
    elif numbers is array and sums is target and list(axes) == sorted(axes):
        out.once = once
    storing.rounded(sums, target, space)


def _choose_along(source: Input, lines: Sequence[Line], target: Any, cval: float) -> None:
    """Copies, bit by bit."""
    array = native(source.array)
    bits = BITS[array.dtype.itemsize]
    plain = storing.is_plain(target, array, source.where)
    made = target if plain else source.space.empty(target.shape, array.dtype)
    default = _as_bits(storing.constant_of(cval, target.dtype), made.dtype, bits)
    store = Store(default=default, exact=True)
    along_axes(array.view(bits), lines, made.view(bits), "double", store, source.space, source.where)
    if not plain:
        target[...] = made


def _as_bits(value: Any, dtype: np.dtype[Any], bits: Any) -> Any:
    """A value of a type as one of another that has the same bits."""
    return np.array([value]).astype(dtype).view(bits)[0]


# --- anywhere --------------------------------------------------------------------------------------------------------


@or_scipy
def affine_transform(
    input: Any, matrix: Any, offset: Any = 0.0, output_shape: Any = None, output: Any = None, order: int = 3,
    mode: str = "constant", cval: complex = 0.0, prefilter: bool = True,
) -> Any:  # fmt: skip
    """The array at `matrix @ index + offset`: `scipy.ndimage.affine_transform`.

    Parameters
    ----------
    input : array
        Of up to 3 dimensions; of any where the matrix is diagonal.
    matrix : array
        Of shape (n,), (n, m), or homogeneous (n, n + 1) or (n + 1, n + 1), from an index of the output to the input's.
    offset : float or sequence of float
    output_shape : sequence of int, optional
        The output's, or the input's, unless given.
    output, order, mode, cval, prefilter
        As for `zoom`.

    Returns
    -------
    array
        Of the input's library.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    array = source.array
    n = array.ndim
    if output_shape is None:
        output_shape = array.shape if is_type(output) else output.shape
    shape = tuple(operator.index(k) for k in output_shape)
    _check_rank(min(n, len(shape)))
    out = output_of(output, source, shape, array.dtype.kind == "c")
    word = _border(array, number, mode, cval, prefilter)
    turn, move = _matrix_of(matrix, offset, n, len(shape))
    pairs = _along(turn, len(shape))
    if pairs is not None:
        single = turn.ndim == 1

        def line(axis: int, precision: str) -> Line:
            column = pairs[axis]
            source_n, n_dst, solve = array.shape[axis], shape[column], bool(prefilter)
            if single:
                first, scale = float(move[axis] / turn[axis]), float(turn[axis])
                return works.spline_line(source_n, n_dst, scale, first, False, number, word, solve, precision)
            scale = float(turn[axis, column])
            return works.affine_line(source_n, n_dst, scale, float(move[axis]), number, word, solve, precision)

        _sample_along(source, out, line, number, cval, [pairs.index(k) for k in range(n)])
        return out.done()
    for k, (half, given) in enumerate(_parts(source, out)):
        _turn(half, given, turn, move, number, word, _half_of(cval, k, out), bool(prefilter))
    return out.done()


def _matrix_of(matrix: Any, offset: Any, n: int, m: int) -> tuple[Array, Array]:
    """Matrix and offset of an affine transform, in float64."""
    turn = np.asarray(matrix, dtype=np.float64)
    if turn.ndim not in (1, 2) or turn.shape[0] < 1:
        raise RuntimeError(f"no proper affine matrix provided: it must have 1 or 2 dimensions, got shape {turn.shape}")
    if turn.ndim == 2 and turn.shape[1] == n + 1 and turn.shape[0] in (n, n + 1):
        if turn.shape[0] == n + 1:
            expected = [0] * n + [1]
            if not np.all(turn[n] == expected):
                raise ValueError(
                    f"Expected homogeneous transformation matrix with shape {turn.shape} for an image of {n} "
                    f"dimensions, but bottom row was not equal to {expected}"
                )
        offset, turn = turn[:n, n], turn[:n, :n]
    if turn.shape[0] != n:
        raise RuntimeError(f"affine matrix has wrong number of rows: it must be {n}, got {turn.shape[0]}")
    if turn.ndim == 2 and turn.shape[1] != m:
        raise RuntimeError(f"affine matrix has wrong number of columns: it must be {m}, got {turn.shape[1]}")
    move = np.asarray(per_axis("offset", offset, n), dtype=np.float64)
    if move.ndim != 1:
        raise RuntimeError(f"no proper offset provided: it must be a number or a sequence, got {shown(offset)}")
    return turn, move


def _along(turn: Array, m: int) -> list[int] | None:
    """For each row of a matrix the one column that it has a number in, where all columns are some row's; else None."""
    n = turn.shape[0]
    if n != m:
        return None
    if turn.ndim == 1:
        # SciPy divides by them.
        return list(range(n)) if np.isfinite(turn).all() and turn.all() else None
    columns: list[int] = []
    for row in turn.tolist():
        used = [k for k, value in enumerate(row) if value != 0.0]
        if len(used) != 1 or used[0] in columns or not math.isfinite(row[used[0]]):
            return None
        columns.append(used[0])
    return columns


def _turn(
    source: Input, out: Output, turn: Array, move: Array, order: int, mode: str, cval: float, prefilter: bool
) -> None:
    """An affine transform that runs along no axes; axes before those of the matrix are a batch."""
    if turn.ndim == 1:  # SciPy's way through `zoom_shift`
        raise NotHereError("a matrix of one dimension with a 0 in it")
    (n, m), lead = turn.shape, source.array.ndim - turn.shape[0]
    shape = out.array.shape[lead:]
    if n > 3 or m > 3:
        raise NotHereError("arrays of more than 3 dimensions, unless the matrix is diagonal")
    _check_summed(out.array.dtype, order)
    if _is_simple(mode, order) and math.prod(shape) > ONE_BY_ONE and order > 0:
        whole, base = np.zeros((3, 3)), np.zeros(3)
        whole[:n, :m] = turn[::-1, ::-1]
        base[:n] = move[::-1]
        route = works.affine(whole, base, shape[-1])
        _gather(source, in_space(out.array, m), n, route, order, mode, cval, prefilter)
        return

    def places(first: int, last: int) -> Array:
        total = move[::-1]  # x first, as the engine reads them
        for k, size in enumerate(shape):
            i = np.arange(size, dtype=np.float64) if k else np.arange(first, last, dtype=np.float64)
            column = i * turn[::-1, k, None]
            total = total[..., None] + (column if k == 0 else column.reshape(n, *[1] * k, -1))
        return total[::-1]

    rows = max(1, AT_ONCE // max(1, math.prod(shape[1:])))
    for first in range(0, shape[0], rows):
        part = out.array[(slice(None),) * lead + (slice(first, first + rows),)]
        at = source.space.asarray(places(first, first + part.shape[lead]))
        _map(source, Output(part, part, None), at, order, mode, cval, prefilter)


@or_scipy
def map_coordinates(
    input: Any, coordinates: Any, output: Any = None, order: int = 3, mode: str = "constant", cval: complex = 0.0,
    prefilter: bool = True,
) -> Any:  # fmt: skip
    """The array at positions that are given: `scipy.ndimage.map_coordinates`.

    Parameters
    ----------
    input : array
        Of up to 3 dimensions.
    coordinates : array, shape (input.ndim, ...)
        Positions on each axis of the input, in samples; float32 and float64 are read as they are. What is no finite
        number takes `cval`, except that an infinite one is at the end of a line with mode "nearest".
    output, order, mode, cval, prefilter
        As for `zoom`.

    Returns
    -------
    array
        Of the input's library, and of shape `coordinates.shape[1:]`.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    places = taken(coordinates, "coordinates")
    if places.array.dtype.kind == "c":
        raise TypeError(f"coordinates: Complex type not supported, got {places.array.dtype}")
    if places.where != source.where:
        raise ValueError(f"coordinates must lie where the input does, on {source.where}, got {places.where}")
    array, at = source.array, places.array
    shape = at.shape[1:]
    _check_rank(min(array.ndim, len(shape)))
    if at.shape[0] != array.ndim:
        raise RuntimeError(
            f"invalid shape for coordinate array: it must have {array.ndim} first, one per axis, got {at.shape}"
        )
    out = output_of(output, source, shape, array.dtype.kind == "c")
    word = _border(source.array, number, mode, cval, prefilter)
    if not (at.dtype in (np.float32, np.float64) and at.dtype.isnative):
        at = at.astype(np.float64)
    for k, (half, given) in enumerate(_parts(source, out)):
        _map(half, given, at, number, word, _half_of(cval, k, out), bool(prefilter))
    return out.done()


@or_scipy
def geometric_transform(
    input: Any, mapping: Callable[..., Any], output_shape: Any = None, output: Any = None, order: int = 3,
    mode: str = "constant", cval: complex = 0.0, prefilter: bool = True, extra_arguments: Sequence[Any] = (),
    extra_keywords: Mapping[str, Any] | None = None,
) -> Any:  # fmt: skip
    """The array where a function says: `scipy.ndimage.geometric_transform`.

    The function is called for every element, in order, as by SciPy: its time is the whole call's.

    Parameters
    ----------
    input : array
        Of up to 3 dimensions.
    mapping : callable
        `mapping(index, *extra_arguments, **extra_keywords)` answers a position on the input for an index of the output.
    output_shape : sequence of int, optional
        The input's unless given.
    output, order, mode, cval, prefilter
        As for `zoom`.
    extra_arguments, extra_keywords
        For the function.

    Returns
    -------
    array
        Of the input's library.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    array = source.array
    shape = tuple(operator.index(k) for k in (array.shape if output_shape is None else output_shape))
    _check_rank(min(array.ndim, len(shape)))
    out = output_of(output, source, shape, array.dtype.kind == "c")
    word = _border(array, number, mode, cval, prefilter)
    if not callable(mapping) or type(mapping).__name__ == "LowLevelCallable":
        raise NotHereError("a mapping that is no Python function")
    if array.ndim > 3:
        raise NotHereError("arrays of more than 3 dimensions")
    keywords = dict(extra_keywords or {})
    at = np.empty((math.prod(shape), array.ndim))
    for k, index in enumerate(itertools.product(*map(range, shape))):
        at[k] = mapping(index, *extra_arguments, **keywords)
    places = source.space.asarray(at.T.reshape(array.ndim, *shape))
    for k, (half, given) in enumerate(_parts(source, out)):
        _map(half, given, places, number, word, _half_of(cval, k, out), bool(prefilter))
    return out.done()


@or_scipy
def rotate(
    input: Any, angle: float, axes: Any = (1, 0), reshape: bool = True, output: Any = None, order: int = 3,
    mode: str = "constant", cval: complex = 0.0, prefilter: bool = True,
) -> Any:  # fmt: skip
    """The array turned in the plane of two axes: `scipy.ndimage.rotate`.

    Parameters
    ----------
    input : array
        Of 2 or more dimensions.
    angle : float
        In degrees.
    axes : two int
        Of the plane.
    reshape : bool
        Whether the output is as large as the turned input.
    output, order, mode, cval, prefilter
        As for `zoom`.

    Returns
    -------
    array
        Of the input's library.

    Raises
    ------
    RuntimeError, ValueError, TypeError
        For what SciPy refuses.
    """
    number = _order(order)
    source = taken(input)
    array = source.array
    n = array.ndim
    if n < 2:
        raise ValueError(f"input array should be at least 2D, got {n} dimensions")
    plane = list(axes)
    if len(plane) != 2:
        raise ValueError(f"axes should contain exactly two values, got {shown(axes)}")
    if not all(float(a).is_integer() for a in plane):
        raise ValueError(f"axes should contain only integer values, got {shown(axes)}")
    if not all(-n <= a < n for a in plane) or plane[0] % n == plane[1] % n:
        raise ValueError(f"invalid rotation plane specified: axes {shown(axes)} of {n}")
    first, second = sorted(int(a) % n for a in plane)
    c, s = _degrees(float(angle))
    turn = np.array([[c, s], [-s, c]])
    size = np.array([array.shape[first], array.shape[second]])
    made = size
    if reshape:
        y, x = size
        made = (np.ptp(turn @ [[0, 0, y, y], [0, x, 0, x]], axis=1) + 0.5).astype(int)
    move = (size - 1) / 2 - turn @ ((made - 1) / 2)
    shape = list(array.shape)
    shape[first], shape[second] = int(made[0]), int(made[1])
    out = output_of(output, source, shape, array.dtype.kind == "c")
    word = _border(array, number, mode, cval, prefilter)
    pairs = _along(turn, 2)
    if pairs is not None:

        def line(axis: int, precision: str) -> Line:
            if axis not in (first, second):
                return works.unchanged(array.shape[axis])
            row = (first, second).index(axis)
            to = (first, second)[pairs[row]]
            return works.affine_line(
                array.shape[axis], shape[to], float(turn[row, pairs[row]]), float(move[row]), number, word,
                bool(prefilter), precision,
            )  # fmt: skip

        back = list(range(n))
        back[first], back[second] = (first, second) if pairs[0] == 0 else (second, first)
        _sample_along(source, out, line, number, cval, back)
        return out.done()
    others = [a for a in range(n) if a not in (first, second)]
    for k, (half, given) in enumerate(_parts(source, out)):
        planes = Input(half.array.transpose(*others, first, second), half.held)
        target = given.array.transpose(*others, first, second)
        _turn(planes, Output(target, target, None), turn, move, number, word, _half_of(cval, k, out), bool(prefilter))
    return out.done()


def _degrees(angle: float) -> tuple[float, float]:
    """Cosine and sine of degrees, exact at right angles."""
    quarter = math.fmod(angle, 360.0)
    exact = {0.0: (1.0, 0.0), 90.0: (0.0, 1.0), 180.0: (-1.0, 0.0), 270.0: (0.0, -1.0)}
    if quarter % 360.0 in exact:
        return exact[quarter % 360.0]
    try:
        from scipy import special
    except ImportError:
        return math.cos(math.radians(quarter)), math.sin(math.radians(quarter))
    # The last bit of these decides on which side of a sample a half-way position lies.
    return float(special.cosdg(angle)), float(special.sindg(angle))


def _is_simple(mode: str, order: int) -> bool:
    """Whether the gather has the border itself, with its prefilter."""
    if mode == "nearest":
        return order < 2  # other splines need SciPy's own padding
    if mode == "wrap":
        return False  # of multiples of its period SciPy takes the last sample below, the first one above
    # Brought to the line, halves lie between two other samples.
    return mode != "grid-constant" and (order > 0 or mode == "constant")


def _map(source: Input, out: Output, at: Any, order: int, mode: str, cval: float, prefilter: bool) -> None:
    """Sample at positions [axis, ...], of the output's shape but for leading axes, which are a batch."""
    array, target, space = source.array, out.array, source.space
    check_stored(target.dtype)
    n, lead = at.shape[0], array.ndim - at.shape[0]
    if n > 3:
        raise NotHereError("arrays of more than 3 dimensions")
    if not array.size:
        raise NotHereError("input is empty")
    if not target.size:
        return
    _check_summed(target.dtype, order)
    if mode == "nearest" and not space.isfinite(at.sum()):
        at = space.clip(at, -FAR, FAR)
    if not _is_simple(mode, order):
        solved = mode in ("nearest", "grid-constant")
        source, at, mode = _brought(source, at, order, mode, cval, prefilter)
        prefilter = prefilter and not solved
    shape = target.shape[lead:]
    packed = at.flags.c_contiguous or at[::-1].flags.c_contiguous
    if not lead and (len(shape) == 1 or len(shape) > 3 or (shape[-1] < ROW // 8 and packed)):
        # Rows are what threads share, and short ones are dear.
        plain = target if target.flags.c_contiguous else space.empty(shape, target.dtype)
        line, at = plain.reshape(-1), at.reshape(n, -1)
        whole = line.size // ROW * ROW
        for part, rows in ((slice(0, whole), (1, whole // ROW, ROW)), (slice(whole, None), (1, 1, line.size - whole))):
            if 0 not in rows:
                piece = at[:, part].reshape(n, *rows)
                _locate(source, line[part].reshape(rows), piece, order, mode, cval, prefilter)
        if plain is not target:
            target[...] = plain
        return
    size = (1,) * (3 - len(shape)) + shape
    _locate(source, in_space(target, len(shape)), at.reshape(n, *size), order, mode, cval, prefilter)


def _locate(source: Input, target: Any, at: Any, order: int, mode: str, cval: float, prefilter: bool) -> None:
    """A gather at positions [axis, z, y, x]."""
    n, space = at.shape[0], source.space
    if n < 3:
        # Axes that there are not have one sample, which is met wherever a position is.
        whole = space.zeros((3, *at.shape[1:]), at.dtype)
        whole[3 - n :] = at
        at = whole
    vectors = at[::-1].transpose(1, 2, 3, 0)
    _gather(source, target, n, works.given(vectors), order, mode, cval, prefilter)


def _brought(
    source: Input, at: Any, order: int, mode: str, cval: float, prefilter: bool
) -> tuple[Input, Any, str]:  # fmt: skip
    """A source and positions on it, and the gather's own border that does for them.

    With mode "nearest" and "grid-constant" these are coefficients with a margin, which no tap leaves.
    """
    array, space = source.array, source.space
    lead = array.ndim - at.shape[0]
    if order == 0 and mode == "grid-constant":
        return source, space.floor(at.astype(np.float64) + 0.5), "constant"
    if mode not in ("nearest", "grid-constant"):
        moved = _each(at, array.shape[lead:], mode, 0, space)
        return source, moved, "mirror" if mode == "wrap" else mode
    solved = prefilter and order > 1
    pad = SCIPY_PAD if solved else 0
    how: dict[str, Any] = {"mode": "edge"}
    numbers = summed(array)
    if mode == "grid-constant":
        how, numbers = {"mode": "constant", "constant_values": cval}, numbers.astype(np.float64)
    if solved:
        padded = Input(space.pad(numbers, _around(numbers, lead, pad), **how), source.held)
        made = space.empty(padded.array.shape, np.float64)
        _solve(padded, Output(made, made, None), order, mode, tuple(range(lead, made.ndim)))
        numbers = made
    moved = _each(at, numbers.shape[lead:], mode, pad, space)
    # NaN goes on being NaN, which is the constant.
    moved += works.MARGIN
    return Input(space.pad(numbers, _around(numbers, lead, works.MARGIN), **how), source.held), moved, "mirror"


def _around(array: Any, lead: int, n: int) -> list[tuple[int, int]]:
    """A margin around all axes but the first."""
    return [(0, 0)] * lead + [(n, n)] * (array.ndim - lead)


def _each(at: Any, shape: Sequence[int], mode: str, pad: int, space: Any) -> Any:
    """Positions brought to the lines of an array, axis by axis, in float64."""
    moved = space.empty(at.shape, np.float64)
    for axis, n in enumerate(shape):
        x = at[axis].astype(np.float64)
        moved[axis] = works.brought(x + float(pad) if pad else x, n, mode)
    return moved


def in_space(array: Any, n: int) -> Any:
    """A view with three spatial axes for the last `n`."""
    return array[(..., *[None] * (3 - n), *[slice(None)] * n)]


def _gather(
    source: Input, target: Any, n: int, route: Route, order: int, mode: str, cval: float, prefilter: bool
) -> None:
    """Fill `target` [..., z, y, x] along a route from a source of `n` spatial axes."""
    array, space, where = source.array, source.space, source.where
    n_dst = tuple(target.shape[-3:])
    if order == 0 and target.dtype == array.dtype:
        chosen = native(array)
        bits = BITS[chosen.dtype.itemsize]
        plain = storing.is_plain(target, chosen, where)
        made = target if plain else space.empty(target.shape, chosen.dtype)
        default = _as_bits(storing.constant_of(cval, target.dtype), made.dtype, bits)
        volume = in_space(chosen, n).view(bits)
        work = works.leading(works.gather(volume.shape[-3:], 0, mode, False, "double"), route, n_dst)
        run(work, volume, made.view(bits), Store(default=default, exact=True), where)
        if not plain:
            target[...] = made
        return
    precision = storing.precision_for(array.dtype, target.dtype)
    if order > 3 or (order > 1 and math.prod(n_dst) <= ONE_BY_ONE):
        precision = "double"  # few sums cost no more so
    numbers = summed(array)
    if order == 0 and numbers.dtype != accumulator(precision):
        numbers = numbers.astype(accumulator(precision))
    elif numbers.dtype.kind in "iu" and precision == "double" and numbers.dtype != np.int32:
        numbers = numbers.astype(np.float64)
    volume = in_space(numbers, n)
    wide = target.dtype == np.float32 and precision == "double" and order > 0
    plain = wide and storing.is_plain(target, numbers, where)
    sums = target if plain else storing.target_of(target, numbers, precision, space, where)
    work = works.leading(works.gather(volume.shape[-3:], order, mode, prefilter, precision), route, n_dst)
    run(work, volume, sums, Store(default=sums.dtype.type(cval)), where)
    storing.rounded(sums, target, space)


# --- arguments -------------------------------------------------------------------------------------------------------


def _order(order: Any, least: int = 0) -> int:
    """A spline's order.

    Raises
    ------
    RuntimeError
        For orders that there are not.
    """
    number = operator.index(order)
    if not least <= number <= 5:
        raise RuntimeError(f"spline order not supported: it must be {least} to 5, got {shown(order)}")
    return number


def _check_rank(n: int) -> None:
    if n < 1:
        raise RuntimeError("input and output rank must be > 0")


def _check_summed(dtype: np.dtype[Any], order: int) -> None:
    if dtype == np.bool_ and order > 0:
        raise NotHereError("sums as booleans: the last digit of SciPy's own sums decides what reaches 1")


def _parts(source: Input, out: Output) -> list[tuple[Input, Output]]:
    """The whole, or the real and the imaginary half."""
    if source.array.dtype.kind != "c":
        if out.array.dtype.kind == "c":
            raise NotHereError("complex output of real input")
        return [(source, out)]
    real, imaginary = storing.halves(out)
    return [(Input(source.array.real, source.held), real), (Input(source.array.imag, source.held), imaginary)]


def _half_of(cval: complex, k: int, out: Output) -> float:
    """The part of the constant that a half takes."""
    if out.array.dtype.kind != "c":
        return float(cval)  # type: ignore[arg-type]
    return float(np.imag(cval) if k else np.real(cval))
