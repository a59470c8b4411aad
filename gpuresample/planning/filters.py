"""The 1-D interpolation filters, by name, and their weights in float64.

A filter answers one question: which neighbours does a sample at continuous index `x` need, and
with what weights, on a line that never ends. Borders, antialiasing and rounding come later
(`taps.py`). The numbers are those of SimpleITK 2.5 / ITK 5.4 (`itkBSplineInterpolateImageFunction`,
`itkGaussianInterpolateImageFunction`, `itkWindowedSincInterpolateImageFunction`, ...).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import SupportsIndex

import numpy as np
import numpy.typing as npt
from numpy.fft import irfft, rfft

from gpuresample.checks import one_of, shown, whole

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Window = tuple[IntArray, FloatArray]
"""First neighbour of every sample `[n]`, and the weights `[n, width]` from there on."""

SINC_RADIUS = 5
GAUSSIAN_SIGMA, GAUSSIAN_ALPHA = 0.8, 4.0
LABEL_SIGMA, LABEL_ALPHA = 1.0, 1.0

# From this sigma on, in voxels, the discrete Gaussian is the sampled one but for 1e-9 of its peak.
SAMPLED_FROM = 2.0**14

# ITK finds a spline's cell from a coordinate in float32. From here on float32 is half a voxel or more apart, and the
# weights of such a cell would grow without bound: the cell is found in float64.
FLOAT32_CELLS = 2.0**22


@dataclass(frozen=True)
class Filter:
    """One interpolation filter.

    Attributes
    ----------
    name : str
        The public name, as `interpolation=` takes it.
    method : {"sum", "index", "vote"}
        "sum": a weighted sum. "index": a copy of one voxel. "vote": labels gather weight and
        the heaviest wins.
    window : callable
        `window(x) -> (first, weight)` on an unbounded line; `x` in voxels.
    border : {"nearest", "mirror", "crop"}
        What SimpleITK does past the border: repeat the last voxel, mirror about its centre, or
        drop the weights and divide by what is left.
    spline_order : int
        Order of a B-spline whose coefficients must be solved for first; 0 for every other filter.
    shift : float
        `x + shift` has its integer part constant where the window's first neighbour is.
    pieces, degree : int
        Between two neighbours the weights are polynomials of `degree` on `pieces` equal pieces
        (exactly for splines, to 1e-13 for the others).
    """

    name: str
    method: str
    window: Callable[[FloatArray], Window]
    border: str
    spline_order: int = 0
    shift: float = 0.0
    pieces: int = 1
    degree: int = 1

    @property
    def lands(self) -> bool:
        """Whether sums often land on a voxel but for the last bit, of which truncation makes a whole unit."""
        return self.method == "sum" and self.window(np.zeros(1))[1].shape[1] == 2


def _nearest(x: FloatArray) -> Window:
    return np.floor(x + 0.5).astype(np.int64), np.ones((x.size, 1))


def _linear(x: FloatArray) -> Window:
    first = np.floor(x)
    d = x - first
    return first.astype(np.int64), np.stack([1.0 - d, d], axis=1)


def _bspline(order: int) -> Callable[[FloatArray], Window]:
    def window(x: FloatArray) -> Window:
        # ITK finds the support from x rounded to float32, but weighs with x itself: just below an
        # integer the weights continue the next cell's polynomial.
        half = 0.5 if order % 2 == 0 else 0.0
        narrow = np.floor(x.astype(np.float32) + np.float32(half))
        cell = np.where(np.abs(x) < FLOAT32_CELLS, narrow, np.floor(x + half)).astype(np.int64)
        first = cell - order // 2
        return first, bspline_weights(order, x - cell)

    return window


def bspline_weights(order: int, w: FloatArray) -> FloatArray:
    """The `order + 1` B-spline weights at offset `w` from the cell, `[n, order + 1]`, in ITK's order of operations."""
    if order == 1:
        columns = [1.0 - w, w]
    elif order == 2:
        w1 = 0.75 - w * w
        w2 = 0.5 * (w - w1 + 1.0)
        columns = [1.0 - w1 - w2, w1, w2]
    elif order == 3:
        w3 = (1.0 / 6.0) * w * w * w
        w0 = (1.0 / 6.0) + 0.5 * w * (w - 1.0) - w3
        w2 = w + w0 - 2.0 * w3
        columns = [w0, 1.0 - w0 - w2 - w3, w2, w3]
    elif order == 4:
        a = (0.5 - w) * (0.5 - w)
        w0 = a * ((1.0 / 24.0) * a)
        t = (1.0 / 6.0) * (w * w)
        t0 = w * (t - 11.0 / 24.0)
        t1 = 19.0 / 96.0 + (w * w) * (0.25 - t)
        w1, w3 = t1 + t0, t1 - t0
        w4 = w0 + t0 + 0.5 * w
        columns = [w0, w1, 1.0 - w0 - w1 - w3 - w4, w3, w4]
    else:
        w5 = (1.0 / 120.0) * w * (w * w) * (w * w)
        q = w * w - w
        r = q * q
        v = w - 0.5
        t = q * (q - 3.0)
        w0 = (1.0 / 24.0) * (1.0 / 5.0 + q + r) - w5
        a = (1.0 / 24.0) * (q * (q - 5.0) + 46.0 / 5.0)
        b = (-1.0 / 12.0) * v * (t + 4.0)
        c = (1.0 / 16.0) * (9.0 / 5.0 - t)
        d = (1.0 / 24.0) * v * (r - q - 5.0)
        columns = [w0, c + d, a + b, a - b, c - d, w5]
    return np.stack(columns, axis=1)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gaussian(sigma: float, alpha: float) -> Callable[[FloatArray], Window]:
    cut = sigma * alpha

    def window(x: FloatArray) -> Window:
        first = np.floor(x + 0.5 - cut).astype(np.int64)
        last = np.ceil(x + 0.5 + cut).astype(np.int64) - 1
        k = first[:, None] + np.arange(int((last - first).max(initial=0)) + 1)
        edges = (np.concatenate([k, k[:, -1:] + 1], axis=1) - 0.5 - x[:, None]) / (math.sqrt(2.0) * sigma)
        weight = np.diff(_erf(edges), axis=1)
        weight[k > last[:, None]] = 0.0
        return first, weight

    return window


_SINC_WINDOWS: dict[str, Callable[[FloatArray], FloatArray]] = {
    "hamming": lambda t: 0.54 + 0.46 * np.cos(np.pi * t / SINC_RADIUS),
    "cosine": lambda t: np.cos(np.pi * t / (2 * SINC_RADIUS)),
    "welch": lambda t: 1.0 - t * t / SINC_RADIUS**2,
    "lanczos": lambda t: np.sinc(t / SINC_RADIUS),
    "blackman": lambda t: 0.42 + 0.5 * np.cos(np.pi * t / SINC_RADIUS) + 0.08 * np.cos(2 * np.pi * t / SINC_RADIUS),
}


SINCS = tuple(_SINC_WINDOWS)


def _sinc(name: str) -> Callable[[FloatArray], Window]:
    taper = _SINC_WINDOWS[name]

    def window(x: FloatArray) -> Window:
        first = np.floor(x).astype(np.int64) - (SINC_RADIUS - 1)
        t = x[:, None] - (first[:, None] + np.arange(2 * SINC_RADIUS))
        # numpy.sinc of a whole number leaves 4e-17; on a voxel the filter is exactly that voxel.
        return first, np.where(t == np.rint(t), t == 0.0, taper(t) * np.sinc(t))

    return window


FILTERS: dict[str, Filter] = {
    f.name: f
    for f in [
        Filter("nearest", "index", _nearest, "nearest", shift=0.5, degree=0),
        Filter("linear", "sum", _linear, "nearest"),
        *[
            Filter(f"bspline{p}", "sum", _bspline(p), "mirror", p, 0.5 if p % 2 == 0 else 0.0, 1, p)
            for p in range(1, 6)
        ],
        # The Gaussian's window gains or loses a neighbour at tenths of a voxel (0.5 +- 3.2).
        Filter("gaussian", "sum", _gaussian(GAUSSIAN_SIGMA, GAUSSIAN_ALPHA), "crop", 0, 0.0, 10, 8),
        *[Filter(name, "sum", _sinc(name), "nearest", 0, 0.0, 8, 9) for name in _SINC_WINDOWS],
        Filter("label_gaussian", "vote", _gaussian(LABEL_SIGMA, LABEL_ALPHA), "crop"),
        Filter("label_linear", "vote", _linear, "nearest"),
    ]
}

INTERPOLATIONS: tuple[str, ...] = (
    "nearest",
    "linear",
    "bspline",
    *[n for n in FILTERS if n not in ("nearest", "linear")],
)

# SimpleITK's enumerators (sitkInterpolator.h); stated here so that SimpleITK need not be imported to know them.
_SITK_ENUMERATORS = {
    1: "nearest", 2: "linear", 4: "gaussian", 5: "label_gaussian", 6: "hamming", 7: "cosine", 8: "welch",
    9: "lanczos", 10: "blackman", 21: "bspline1", 22: "bspline2", 23: "bspline3", 24: "bspline4", 25: "bspline5",
    26: "label_linear",
}  # fmt: skip


def get_filter(interpolation: str | int) -> Filter:
    """The filter that `interpolation` names: one of our words or a SimpleITK enumerator.

    Raises
    ------
    ValueError, TypeError
        With the nearest known word.
    """
    if not isinstance(interpolation, (str, bool)) and isinstance(interpolation, SupportsIndex):
        number = whole("interpolation", interpolation, "a word or one of SimpleITK's enumerators", 0)
        if number not in _SITK_ENUMERATORS:
            raise ValueError(
                f"interpolation: SimpleITK's enumerator {shown(number)} is not supported; "
                f"supported are {', '.join(f'{k} ({v})' for k, v in _SITK_ENUMERATORS.items())}"
            )
        interpolation = _SITK_ENUMERATORS[number]
    name = one_of("interpolation", interpolation, INTERPOLATIONS)
    return FILTERS["bspline3" if name == "bspline" else name]


@lru_cache(maxsize=16)
def prefilter_response(order: int, tolerance: float) -> FloatArray:
    """Impulse response of the B-spline prefilter, symmetric, cut where its tail sums to less than `tolerance`.

    The B-spline coefficients of a line are the line convolved with this response (Unser, "Splines: a perfect
    fit", 1999). It decays by the spline's largest pole per sample.
    """
    if order < 2:
        return np.ones(1)
    period = 256
    spline = np.zeros(period)
    samples = bspline_weights(order, np.zeros(1))[0]
    centre = order // 2
    for k, value in enumerate(samples):
        spline[(k - centre) % period] = value
    response = irfft(1.0 / rfft(spline), period)[: period // 2]
    tail = 2.0 * np.cumsum(np.abs(response[::-1]))[::-1]
    radius = int(np.argmax(tail < tolerance)) if (tail < tolerance).any() else period // 2 - 1
    response = np.concatenate([response[radius:0:-1], response[: radius + 1]])
    return response / response.sum()


def gaussian_response(sigma: float, order: int = 0, truncate: float = 4.0) -> FloatArray | None:
    """Sampled Gaussian of `sigma` voxels cut at `truncate` sigma, or its derivative; None for sigma 0.

    The weights of `scipy.ndimage.gaussian_filter1d`: order 0 sums to 1, derivatives are the polynomial times those.
    """
    if sigma == 0.0:
        return None
    radius = int(truncate * sigma + 0.5)
    k = np.arange(-radius, radius + 1)
    weight = np.exp(-0.5 * (k / sigma) ** 2)
    weight = weight / weight.sum()
    if order == 1:
        return weight * k / sigma**2  # of neighbour k, hence +k: a convolution's kernel would be mirrored
    if order == 2:
        return weight * (k**2 / sigma**4 - 1.0 / sigma**2)
    return weight


def discrete_gaussian_response(sigma: float, max_error: float, max_radius: int | None = None) -> FloatArray | None:
    """Lindeberg's discrete Gaussian, `exp(-t) I_n(t)` with `t = sigma**2` voxels; None for sigma 0.

    Cut as `itk::GaussianOperator` does: at least one neighbour, then until all but `max_error` of the weight is in
    or `max_radius` is reached, and divided by its sum. The Bessel values are true ones (a Fourier sum), at any
    sigma; ITK's polynomials go wrong above 10 voxels.

    Source: T. Lindeberg, "Scale-space for discrete signals", IEEE PAMI 12(3), 1990.
    """
    if sigma == 0.0:
        return None
    t = sigma * sigma
    period = 1 << max(6, math.ceil(math.log2(16.0 * sigma + 64.0)))
    if sigma > SAMPLED_FROM:
        half = np.exp(-0.5 * (np.arange(period // 2) / sigma) ** 2)
        half /= 2.0 * half.sum() - half[0]
    else:
        theta = 2.0 * np.pi * np.arange(period // 2 + 1) / period
        half = irfft(np.exp(t * (np.cos(theta) - 1.0)), period)[: period // 2]
    total = half[0] + 2.0 * np.cumsum(np.concatenate([[0.0], half[1:]]))
    enough = total >= 1.0 - max_error
    radius = max(1, int(np.argmax(enough)) if enough.any() else period // 2 - 1)
    if max_radius is not None:
        radius = min(radius, max(1, max_radius))
    weight = np.concatenate([half[radius:0:-1], half[: radius + 1]])
    return weight / weight.sum()


def recursive_gaussian_response(sigma: float, order: int, tolerance: float) -> FloatArray | None:
    """What `itk::RecursiveGaussianImageFilter` answers to an impulse, as weights of neighbours; None for sigma 0.

    Deriche's fourth-order recursive filter, run out until less than `tolerance` of its weight is left. With the line
    continued by its ends, as ITK does, the sum of these taps is the recursion's result.

    Source: R. Deriche, "Recursively implementing the Gaussian and its derivatives", INRIA RR-1893, 1993;
    constants of ITK 5.4.
    """
    if sigma == 0.0:
        return None
    forward, denominator = _deriche(sigma, order)
    n = 64 + int(16.0 * sigma)
    causal = _impulse(forward, denominator, n)
    sign = -1.0 if order == 1 else 1.0
    # The anticausal numerator follows from the causal one; its answer starts one sample away.
    backward = [sign * (forward[k] - denominator[k] * forward[0]) for k in (1, 2, 3)] + [
        -sign * denominator[4] * forward[0]
    ]
    anticausal = _impulse([0.0, *backward], denominator, n)
    # out[i] = sum over k of answer[k] * x[i - k], so the neighbour at +k weighs answer[-k].
    weight = np.concatenate([causal[:0:-1], [causal[0]], anticausal[1:]])
    magnitude = np.abs(weight)
    outer = np.cumsum((magnitude + magnitude[::-1])[: n - 1])
    cut = int((outer <= tolerance * magnitude.sum()).sum())
    return weight[cut : weight.size - cut]


def _impulse(numerator: list[float], denominator: list[float], n: int) -> FloatArray:
    out = np.zeros(n)
    for k in range(n):
        value = numerator[k] if k < len(numerator) else 0.0
        for j in range(1, 5):
            if k >= j:
                value -= denominator[j] * out[k - j]
        out[k] = value
    return out


def _deriche(sigma: float, order: int) -> tuple[list[float], list[float]]:
    """Numerator N0..N3, normalised, and denominator 1, D1..D4 of ITK's causal filter."""
    a1, b1 = (1.3530, -0.6724, -1.3563), (1.8151, -3.4327, 5.2318)
    a2, b2 = (-0.3531, 0.6724, 0.3446), (0.0902, 0.6100, -2.2355)
    w1, l1, w2, l2 = 0.6681, -1.3932, 2.0787, -1.3732
    s1, c1, e1 = math.sin(w1 / sigma), math.cos(w1 / sigma), math.exp(l1 / sigma)
    s2, c2, e2 = math.sin(w2 / sigma), math.cos(w2 / sigma), math.exp(l2 / sigma)
    d = [
        1.0,
        -2.0 * (e2 * c2 + e1 * c1),
        4.0 * c2 * c1 * e1 * e2 + e1 * e1 + e2 * e2,
        -2.0 * c1 * e1 * e2 * e2 - 2.0 * c2 * e2 * e1 * e1,
        e1 * e1 * e2 * e2,
    ]
    sd, dd = sum(d), sum(k * v for k, v in enumerate(d))
    ed = sum(k * k * v for k, v in enumerate(d))

    def numerator(i: int) -> list[float]:
        return [
            a1[i] + a2[i],
            e2 * (b2[i] * s2 - (a2[i] + 2.0 * a1[i]) * c2) + e1 * (b1[i] * s1 - (a1[i] + 2.0 * a2[i]) * c1),
            2.0 * e1 * e2 * ((a1[i] + a2[i]) * c2 * c1 - b1[i] * c2 * s1 - b2[i] * c1 * s2)
            + a2[i] * e1 * e1
            + a1[i] * e2 * e2,
            e2 * e1 * e1 * (b2[i] * s2 - a2[i] * c2) + e1 * e2 * e2 * (b1[i] * s1 - a1[i] * c1),
        ]

    n = numerator(order)
    if order == 2:
        plain = numerator(0)
        beta = -(2.0 * sum(n) - sd * n[0]) / (2.0 * sum(plain) - sd * plain[0])
        n = [p + beta * q for p, q in zip(n, plain, strict=True)]
    sn, dn = sum(n), sum(k * v for k, v in enumerate(n))
    en = sum(k * k * v for k, v in enumerate(n))
    if order == 0:
        alpha = 2.0 * sn / sd - n[0]
    elif order == 1:
        alpha = 2.0 * (sn * dd - dn * sd) / sd**2
    else:
        alpha = (en * sd**2 - ed * sn * sd - 2.0 * dn * dd * sd + 2.0 * dd**2 * sn) / sd**3
    return [v / alpha for v in n], d


@lru_cache(maxsize=32)
def polynomials(name: str) -> tuple[FloatArray, int]:
    """The weights of a filter as polynomials, for engines that meet a new offset at every voxel.

    Returns
    -------
    coefficients : ndarray, float64, shape (pieces, width, degree + 1)
        With `t = x + shift`, `cell = floor(t)`, `u = (t - cell) * pieces`, `piece = floor(u)`:
        neighbour `cell + offset + k` weighs `sum_d coefficients[piece, k, d] * (u - piece)**d`.
    offset : int
        First neighbour relative to the cell.
    """
    f = FILTERS[name]
    nodes = 0.5 - 0.5 * np.cos(np.pi * (np.arange(f.degree + 1) + 0.5) / (f.degree + 1))
    vandermonde = np.vander(nodes, f.degree + 1, increasing=True)
    starts, weights = [], []
    for piece in range(f.pieces):
        first, weight = f.window((piece + nodes) / f.pieces - f.shift)
        starts.append(first)
        weights.append(weight)
    offset = int(min(s.min() for s in starts))
    width = max(int(s.max()) - offset + w.shape[1] for s, w in zip(starts, weights, strict=True))
    coefficients = np.zeros((f.pieces, width, f.degree + 1))
    for piece, (first, weight) in enumerate(zip(starts, weights, strict=True)):
        values = np.zeros((f.degree + 1, width))
        at = int(first[0]) - offset
        values[:, at : at + weight.shape[1]] = weight
        coefficients[piece] = np.linalg.solve(vandermonde, values).T
    used = np.abs(coefficients).max(axis=(0, 2)) > 0
    coefficients = coefficients[:, : int(np.flatnonzero(used)[-1]) + 1]
    coefficients.setflags(write=False)
    return coefficients, offset


def differentiated(coefficients: FloatArray, order: int) -> FloatArray:
    """Weights of `polynomials`, differentiated so often by the position; of the same shape."""
    pieces, _, terms = coefficients.shape
    for _ in range(order):
        lower = np.zeros_like(coefficients)
        lower[:, :, :-1] = coefficients[:, :, 1:] * (np.arange(1, terms) * pieces)
        coefficients = lower
    return coefficients
