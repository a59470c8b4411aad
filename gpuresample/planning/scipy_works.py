"""SciPy's `ndimage` as works: its arithmetic for where samples lie, its borders, its prefilter, its filters' weights.

Positions along an axis are SciPy's to the last bit, since that decides which voxel is nearest and what lies outside.
Along axes everything is a `Line`, a tap table with what lies outside. Everywhere else it is a gather.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gpuresample.caching import kept
from gpuresample.planning import taps
from gpuresample.planning.filters import FILTERS, FloatArray, IntArray, bspline_weights, polynomials, prefilter_response
from gpuresample.planning.planner import identity_table, pass_order
from gpuresample.planning.taps import SCIPY_PAD, TapTable
from gpuresample.planning.works import NOTHING, NOWHERE, RULES, UNIT, Gather, Lattice, Linear, Route, Separable

# How the line of samples goes on past its ends; "wrap" of filters is "grid-wrap" here, "grid-mirror" is "reflect".
MODES = ("nearest", "wrap", "reflect", "mirror", "constant", "grid-wrap", "grid-constant")
# The border of taps and of the prefilter, where positions are brought to the line before.
_TAPS = {
    "constant": "mirror", "wrap": "mirror", "mirror": "mirror", "reflect": "reflect", "grid-wrap": "grid-wrap",
}  # fmt: skip
# Modes whose prefilter works on a line that is longer by `SCIPY_PAD` samples on either side, and its border there.
_PADDED = {"nearest": "reflect", "grid-constant": "mirror"}
# Samples beyond the border from which no tap of any spline meets the line, and those that it meets there.
BEYOND, MARGIN = 4.0, 8
# Samples of a line up to which SciPy's prefilter with border "reflect" is not that of an endless line.
SHORT = 24
# SciPy's own guard against a position that reflection would put on -1.
_GUARD = 1e-15


@dataclass(frozen=True, eq=False)
class Line:
    """What is done along one axis.

    Attributes
    ----------
    table : TapTable
        Of the samples inside.
    start, n_dst : int
        The first sample inside, and how many there are with those outside.
    missing : ndarray, float64, shape (n_dst,), or None
        Weight of each sample that falls on the constant beyond the border; None where none does.
    """

    table: TapTable
    start: int
    n_dst: int
    missing: FloatArray | None = None

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.table.is_identity and self.table.n_dst == self.n_dst


def brought(x: FloatArray, n: int, mode: str) -> FloatArray:
    """Positions brought to a line of `n` samples, in SciPy's arithmetic; NaN for what takes the constant.

    Parameters
    ----------
    x : ndarray, float64
        In samples; any shape.
    mode : one of `MODES`
    """
    last = n - 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        if mode in ("nearest", "grid-constant"):
            # Taps are what has a border. Beyond their reach nothing changes any more.
            return np.clip(x, -BEYOND, last + BEYOND)
        if mode == "constant":
            return np.where((x >= 0.0) & (x <= last), x, np.nan)
        x = np.where(np.isfinite(x), x, np.nan)
        if n == 1:
            return np.where(np.isnan(x), x, 0.0)
        if mode == "mirror":
            period = 2.0 * n - 2.0
            low = period * np.trunc(-x / period) + x
            low = np.where(low <= 1.0 - n, low + period, -low)
            high = x - period * np.trunc(x / period)
            high = np.where(high >= n, period - high, high)
        elif mode == "reflect":
            period = 2.0 * n
            low = np.where(x < -period, period * np.trunc(-x / period) + x, x)
            low = np.where(low < -n, low + period, np.where(low > -_GUARD, _GUARD, -low) - 1.0)
            high = x - period * np.trunc(x / period)
            high = np.where(high >= n, period - high - 1.0, high)
        elif mode == "wrap":
            low = x + last * (np.trunc(-x / last) + 1.0)
            high = x - last * np.trunc(x / last)
        else:
            low = x + n * (np.trunc((-1.0 - x) / n) + 1.0)
            high = x - n * np.trunc(x / n)
        out: FloatArray = np.where(x < 0.0, low, np.where(x > last, high, x))
        # Of numbers so large that their fractions are gone, the remainder may be anything.
        return np.where((out > -1.0) & (out <= n), out, np.where(np.isnan(out), np.nan, 0.0))


def _window(x: FloatArray, order: int) -> tuple[IntArray, FloatArray]:
    """First tap and weights of a B-spline at positions `x`."""
    cell = np.floor(x if order % 2 else x + 0.5)
    first = cell.astype(np.int64) - order // 2
    return first, np.ones((x.size, 1)) if order == 0 else bspline_weights(order, x - cell)


def _rows(first: IntArray, weight: FloatArray, n: int, border: str) -> tuple[IntArray, FloatArray]:
    """Rows of taps brought to a line of `n` samples; beyond a "constant" border they are dropped."""
    if border != "constant":
        return taps.folded_rows(first, weight, n, border)
    position = first[:, None] + np.arange(weight.shape[1])
    return first, np.where((position >= 0) & (position < n), weight, 0.0)


def _poles(order: int) -> list[float]:
    """Poles of a B-spline's prefilter, order 2 to 5 (Unser, "Splines: a perfect fit", 1999)."""
    if order < 4:
        return [math.sqrt(8.0) - 3.0 if order == 2 else math.sqrt(3.0) - 2.0]
    a, b, c = (
        (664.0, math.sqrt(438976.0), math.sqrt(304.0)) if order == 4 else (67.5, math.sqrt(4436.25), math.sqrt(26.25))
    )
    last = 19.0 if order == 4 else 6.5
    return [math.sqrt(a - b) + c - last, math.sqrt(a + b) - c - last]


def _reflected(n: int, order: int) -> FloatArray:
    """The matrix of SciPy's prefilter with border "reflect": where its recursion begins, a sum takes in itself.

    What that adds shrinks by the largest pole's power of 2 n - 1, and is nothing on longer lines.
    """
    c = np.eye(n)
    for z in _poles(order):
        c = c * ((1.0 - z) * (1.0 - 1.0 / z))
        start, mirrored = c[0].copy(), z**n
        total = start + mirrored * c[-1]
        for i in range(1, n):
            total = total + z**i * (c[i] + mirrored * (total if i == n - 1 else c[n - 1 - i]))
        c[0] = start + total * z / (1.0 - mirrored * mirrored)
        for i in range(1, n):
            c[i] += z * c[i - 1]
        c[-1] *= z / (z - 1.0)
        for i in range(n - 2, -1, -1):
            c[i] = z * (c[i + 1] - c[i])
    return c


def _solved(
    first: IntArray, weight: FloatArray, n: int, order: int, border: str, precision: str
) -> tuple[IntArray, FloatArray]:  # fmt: skip
    """Rows of weights of coefficients as rows of weights of samples; those at hand may reach beyond the line."""
    if border == "reflect" and 1 < n <= SHORT:
        first, weight = taps.folded_rows(first, weight, n, border)
        return np.zeros_like(first), taps.TapTable(n, first, *_counted(first, weight, n)).dense() @ _reflected(n, order)
    response = prefilter_response(order, taps.PREFILTER_TOLERANCE[precision])
    return taps.folded_rows(*taps.convolved_rows(first, weight, response), n, border)


def _counted(first: IntArray, weight: FloatArray, n: int) -> tuple[IntArray, FloatArray]:
    """How many of each row's weights lie on the line, and the weights."""
    return np.minimum(weight.shape[1], n - first), weight


def _there(first: IntArray, weight: FloatArray, n: int, tolerance: float) -> tuple[IntArray, FloatArray]:
    """Rows of which no more than `tolerance` is left, without weights: they still name a sample that exists."""
    lost = np.abs(weight).sum(axis=1) <= tolerance
    return np.where(lost, first.clip(0, n - 1), first), np.where(lost[:, None], 0.0, weight)


def _sampled(x: FloatArray, n: int, order: int, mode: str, prefilter: bool, precision: str) -> Line:
    """Samples of a spline at positions `x` that are not brought to the line yet."""
    solved = prefilter and order > 1
    pad = SCIPY_PAD if solved and mode in _PADDED else 0
    length = n + 2 * pad
    at = brought(x + float(pad) if pad else x, length, mode)
    inside = np.flatnonzero(~np.isnan(at))
    lo, hi = (int(inside[0]), int(inside[-1]) + 1) if inside.size else (0, 0)
    first, weight = _window(at[lo:hi], order)
    if mode in _TAPS:
        if solved:
            first, weight = _solved(first, weight, n, order, _TAPS[mode], precision)
        else:
            first, weight = _rows(first, weight, n, _TAPS[mode])
    else:
        border = "constant" if mode == "grid-constant" else "nearest"
        first, weight = _rows(first, weight, length, border)
        if solved:
            first, weight = _solved(first, weight, length, order, _PADDED[mode], precision)
            first, weight = _rows(first - pad, weight, n, border)
    missing = None
    if mode == "grid-constant":
        missing = 1.0 - weight.sum(axis=1)
        missing[np.abs(missing) < 1e-14] = 0.0
        missing = missing if missing.any() else None
        first, weight = _there(first, weight, n, taps.TOLERANCE[precision])
    table = taps.trim(n, first, weight, taps.TOLERANCE[precision] if order else 0.0)
    return Line(table, lo, x.size, missing)


@kept
def spline_line(
    n: int, m: int, scale: float | None, shift: float | None, grid_mode: bool, order: int, mode: str, prefilter: bool,
    precision: str,
) -> Line:  # fmt: skip
    """`scipy.ndimage.zoom`, `shift` and `affine_transform` with a diagonal matrix, along an axis.

    Parameters
    ----------
    n, m : int
        Samples of source and destination.
    scale, shift : float or None
        Sample `i` lies at `(i + shift) * scale`.
    grid_mode : bool
        Whether it is faces that are scaled, not centres.
    """
    x = np.arange(m, dtype=np.float64)
    if shift is not None:
        x = x + shift
    if scale is not None:
        x = (x + 0.5) * scale - 0.5 if grid_mode else x * scale
    return _sampled(x, n, order, mode, prefilter, precision)


@kept
def affine_line(
    n: int, m: int, scale: float, shift: float, order: int, mode: str, prefilter: bool, precision: str
) -> Line:
    """`scipy.ndimage.affine_transform` with a matrix whose only number for this axis is `scale`."""
    return _sampled(np.arange(m, dtype=np.float64) * scale + shift, n, order, mode, prefilter, precision)


@kept
def coefficient_line(n: int, order: int, mode: str, precision: str) -> Line:
    """`scipy.ndimage.spline_filter1d`: from samples to coefficients. SciPy pads nothing here."""
    if n == 1:
        return Line(identity_table(1), 0, 1)
    border = _PADDED.get(mode) or _TAPS[mode]
    first, weight = _solved(np.arange(n), np.ones((n, 1)), n, order, border, precision)
    return Line(taps.trim(n, first, weight, taps.TOLERANCE[precision]), 0, n)


@kept
def filter_line(n: int, weights: tuple[float, ...], origin: int, mode: str) -> Line:
    """`scipy.ndimage.correlate1d` along an axis: nothing but exact zeros is dropped.

    Parameters
    ----------
    weights : tuple of float
        Of neighbours, from the first on.
    origin : int
        By how much the middle one is moved.
    mode : str
        One of `MODES`; "wrap" and "constant" mean here what "grid-wrap" and "grid-constant" do.
    """
    border = {"wrap": "grid-wrap", "grid-constant": "constant"}.get(mode, mode)
    row = np.array(weights)
    first = np.arange(n) - len(weights) // 2 - origin
    first, weight = _rows(first, np.broadcast_to(row, (n, row.size)), n, border)
    missing = None
    if border == "constant":
        position = first[:, None] + np.arange(row.size)
        missing = np.where((position < 0) | (position >= n), row, 0.0).sum(axis=1)
        missing = missing if missing.any() else None
        first, weight = _there(first, weight, n, 0.0)
    return Line(taps.trim(n, first, weight, 0.0), 0, n, missing)


@kept
def along(lines: tuple[Line, Line, Line], dst_axis: tuple[int, int, int], precision: str) -> Separable:
    """The work of three lines, of axes z, y, x, which become the axes `dst_axis`."""
    tables = (lines[0].table, lines[1].table, lines[2].table)
    n_dst = (lines[0].n_dst, lines[1].n_dst, lines[2].n_dst)
    start = (lines[0].start, lines[1].start, lines[2].start)
    return Separable(tables, pass_order(tables), dst_axis, n_dst, start, precision)


@kept
def unchanged(n: int) -> Line:
    """The line that changes nothing."""
    return Line(identity_table(n), 0, n)


def given(vectors: object) -> Route:
    """The route to positions that are given, [z, y, x, component], in voxels; components are x, y, z."""
    return Route(NOTHING, NOWHERE, (Lattice(vectors, UNIT, NOWHERE, "linear", direct=True),), UNIT, NOWHERE, 1)


def affine(matrix: FloatArray, offset: FloatArray, n0: int) -> Route:
    """The route `matrix @ index + offset`, x, y, z, of rows of `n0` voxels."""
    return Route(UNIT, NOWHERE, (Linear(matrix, offset),), UNIT, NOWHERE, n0)


@kept
def gather(n_src: tuple[int, int, int], order: int, mode: str, prefilter: bool, precision: str) -> Gather:
    """A gather of a spline from a source of size z, y, x that leads nowhere yet: all of it but routes and output.

    Parameters
    ----------
    mode : {"constant", "nearest", "mirror", "reflect", "wrap", "grid-wrap"}
        Axes of one sample have no outside. "nearest" takes the samples as coefficients where `prefilter` is False; the
        prefilter needs SciPy's own padding there, which is the caller's.
    """
    solved = prefilter and order > 1
    assert mode in _TAPS or (mode == "nearest" and order < 2)
    name = ("nearest", "linear")[order] if order < 2 else f"bspline{order}"
    f = FILTERS[name]
    coefficients, offset = polynomials(name)
    work = None
    rule = _TAPS.get(mode, "nearest") if mode != "wrap" else mode
    if solved:
        a, b, c = (coefficient_line(n, order, mode, precision).table for n in n_src)
        changed = tuple(axis for axis, table in enumerate((a, b, c)) if not table.is_identity)
        work = Separable((a, b, c), changed, (0, 1, 2), n_src, (0, 0, 0), precision)
    endless = (-np.inf, np.inf)
    box = tuple((0.0, float(np.nextafter(n - 1.0, np.inf))) if mode == "constant" else endless for n in n_src)
    return Gather(
        routes=(), n_dst=(0, 0, 0), method=f.method, prefilter=work, coefficients=coefficients, shift=f.shift,
        offset=offset, narrow=False, n_src=n_src, base=(0, 0, 0), box=box, rule=RULES[rule], normalise=False,
        precision=precision,
    )  # fmt: skip


def leading(work: Gather, route: Route, n_dst: tuple[int, int, int]) -> Gather:
    """A gather along a route."""
    made = Gather.__new__(Gather)  # `replace` takes four times as long, which shows in small calls
    made.__dict__.update(work.__dict__, routes=(route,), n_dst=n_dst)
    return made
