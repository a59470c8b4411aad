"""`DiscreteGaussian`, `SmoothingRecursiveGaussian`, `RecursiveGaussian`, as functions and as filters."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.containers import ImageContainer
from gpuresample.engines.cpu import truncation
from gpuresample.ops import gaussian
from gpuresample.planning.filters import FloatArray
from gpuresample.sitk import _base
from gpuresample.sitk._base import Face, NotHereError

# exp(t) of ITK's Bessel functions overflows beyond: SimpleITK's result is NaN.
LARGEST_VARIANCE = 700.0

_I0_SMALL = (1.0, 3.5156229, 3.0899424, 1.2067492, 0.2659732, 0.0360768, 0.0045813)
_I0_LARGE = (
    0.39894228, 0.01328592, 0.00225319, -0.00157565, 0.00916281, -0.02057706, 0.02635537, -0.01647633, 0.00392377,
)  # fmt: skip
_I1_SMALL = (0.5, 0.87890594, 0.51498869, 0.15084934, 0.02658733, 0.00301532, 0.00032411)
_I1_LARGE = (
    0.39894228, -0.03988024, -0.00362018, 0.00163801, -0.01031555, 0.02282967, -0.02895312, 0.01787654, -0.00420059,
)  # fmt: skip


def _horner(coefficients: tuple[float, ...], m: float) -> float:
    value = coefficients[-1]
    for c in coefficients[-2::-1]:
        value = c + m * value
    return value


def _bessel(n: int, t: float) -> float:
    """I_n(t), t >= 0, as ITK approximates it: polynomials for n < 2 (Abramowitz and Stegun 9.8), then Miller."""
    small, large = (_I1_SMALL, _I1_LARGE) if n == 1 else (_I0_SMALL, _I0_LARGE)
    if n < 2:
        if t < 3.75:
            m = t / 3.75
            return (t if n == 1 else 1.0) * _horner(small, m * m)
        return _horner(large, 3.75 / t) * (math.exp(t) / math.sqrt(t))
    if t == 0.0:
        return 0.0
    step = 2.0 / t
    after, now, found = 0.0, 1.0, 0.0
    for j in range(2 * (n + int(math.sqrt(40.0 * n))), 0, -1):
        after, now = now, after + j * step * now
        if abs(now) > 1e10:
            found, now, after = found * 1e-10, now * 1e-10, after * 1e-10
        if j == n:
            found = after
    return found * (_bessel(0, t) / now)


@lru_cache(maxsize=64)
def itk_gaussian(t: float, max_error: float, max_width: int) -> FloatArray:
    """Weights of `itk::GaussianOperator` of variance `t` voxels squared: ITK's own Bessel values, wrong ones included.

    `max_width` bounds the radius, not the width, as in ITK.
    """
    decay = math.exp(-t)
    half = [decay * _bessel(0, t), decay * _bessel(1, t)]
    total = half[0] + half[1] * 2.0
    n = 2
    while total < 1.0 - max_error:
        half.append(decay * _bessel(n, t))
        total += half[n] * 2.0
        if half[n] <= 0.0 or len(half) > max_width:
            break
        n += 1
    right = np.array(half) / total
    weights = np.concatenate([right[:0:-1], right])
    weights.setflags(write=False)
    return weights


class DiscreteGaussianImageFilter(Face, sitk.DiscreteGaussianImageFilter):  # type: ignore[misc]
    """`SimpleITK.DiscreteGaussianImageFilter`, bit for bit: its kernel, and its truncation after every axis."""

    def _told(self, image: sitk.Image) -> list[float]:
        d = image.GetDimension()
        axis = _base.told_by_parts(image.GetNumberOfPixels())
        return [(k + done) / d for k in range(d) for done in axis]

    def _compute(self, image: sitk.Image) -> sitk.Image:
        if _base.is_vector(image):
            raise NotHereError
        d = image.GetDimension()
        variance = _base.leading(self.GetVariance(), d, "variance")
        if self.GetUseImageSpacing():
            # ITK squares the spacing first.
            variance = tuple(v / (s * s) for v, s in zip(variance, image.GetSpacing(), strict=True))
        errors = _base.leading(self.GetMaximumError(), d, "maximum error")
        if not all(0.0 <= v <= LARGEST_VARIANCE for v in variance) or not all(0.0 < e < 1.0 for e in errors):
            raise NotHereError(f"variance {variance} voxels, maximum error {errors}")
        width = self.GetMaximumKernelWidth()
        weights = [itk_gaussian(v, e, width) for v, e in zip(variance[::-1], errors[::-1], strict=True)]
        if d == 2:
            weights.insert(0, np.ones(1))
        container = ImageContainer(image)
        result, out = container.new(container.grid, container.dtype)
        assert container.array is not None
        volume = _base.volumes(container.array, d)[0]
        _base.volumes(out, d)[0][...] = truncation.blurred(volume, weights)
        return result


class SmoothingRecursiveGaussianImageFilter(Face, sitk.SmoothingRecursiveGaussianImageFilter):  # type: ignore[misc]
    """`SimpleITK.SmoothingRecursiveGaussianImageFilter`: float32 whatever comes in."""

    def _told(self, image: sitk.Image) -> list[float]:
        # Between two axes SimpleITK tells twice: one has ended, the next begins.
        d = image.GetDimension()
        between = [float(np.float32(k) / np.float32(d)) for k in range(1, d) for _ in range(2)]
        return [0.0, *between, 1.0]

    def _compute(self, image: sitk.Image) -> sitk.Image:
        _base.is_vector(image)
        d = image.GetDimension()
        sigma = _base.leading(self.GetSigma(), d, "sigma")
        if min(sigma) <= 0.0:
            raise NotHereError
        return _recursive(image, sigma, 0)


class RecursiveGaussianImageFilter(Face, sitk.RecursiveGaussianImageFilter):  # type: ignore[misc]
    """`SimpleITK.RecursiveGaussianImageFilter`: one axis, orders 0 to 2."""

    def _compute(self, image: sitk.Image) -> sitk.Image:
        _base.is_vector(image)
        d = image.GetDimension()
        axis, sigma, order = self.GetDirection(), self.GetSigma(), int(self.GetOrder())
        if axis >= d or sigma <= 0.0:
            raise NotHereError
        along = [0.0] * d
        along[axis] = sigma
        result = _recursive(image, along, [order if k == axis else 0 for k in range(d)])
        if order and self.GetNormalizeAcrossScale():
            scaled = sitk.GetImageFromArray(
                sitk.GetArrayViewFromImage(result) * np.float32(sigma**order),
                isVector=image.GetPixelID() in _base.VECTORS,
            )
            scaled.CopyInformation(result)
            return scaled
        return result


def _recursive(image: sitk.Image, sigma: Any, order: Any) -> sitk.Image:
    return gaussian.gaussian(image, sigma, kind="recursive", order=order, dtype=np.float32, device=_base.device())


def DiscreteGaussian(  # noqa: N802
    image1: sitk.Image,
    variance: Any = (1.0, 1.0, 1.0),
    maximumKernelWidth: int = 32,  # noqa: N803
    maximumError: float = 0.01,  # noqa: N803
    useImageSpacing: bool = True,  # noqa: N803
) -> sitk.Image:
    """`SimpleITK.DiscreteGaussian`, bit for bit.

    Parameters
    ----------
    image1 : SimpleITK.Image
    variance : float or sequence of float, x, y, z order
        In physical units squared, or voxels squared without `useImageSpacing`.
    maximumKernelWidth : int
        Bounds the radius in voxels, whatever its name says.
    maximumError : float
        Share of the kernel that may be cut off.
    useImageSpacing : bool

    Returns
    -------
    SimpleITK.Image
        Of the input's type; integers are truncated after every axis.

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    return _base.executed(
        DiscreteGaussianImageFilter(), image1, Variance=variance, MaximumKernelWidth=maximumKernelWidth,
        MaximumError=maximumError, UseImageSpacing=useImageSpacing,
    )  # fmt: skip


def SmoothingRecursiveGaussian(  # noqa: N802
    image1: sitk.Image,
    sigma: Any = (1.0, 1.0, 1.0),
    normalizeAcrossScale: bool = False,  # noqa: N803
) -> sitk.Image:
    """`SimpleITK.SmoothingRecursiveGaussian`.

    Parameters
    ----------
    image1 : SimpleITK.Image
    sigma : float or sequence of float, x, y, z order
        In physical units, above zero.
    normalizeAcrossScale : bool
        Has no effect, as in SimpleITK.

    Returns
    -------
    SimpleITK.Image
        float32.

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK: fewer than 4 voxels along an axis, sigma not above zero.
    """
    face = SmoothingRecursiveGaussianImageFilter()
    return _base.executed(face, image1, Sigma=sigma, NormalizeAcrossScale=normalizeAcrossScale)


def RecursiveGaussian(  # noqa: N802
    image1: sitk.Image,
    sigma: float = 1.0,
    normalizeAcrossScale: bool = False,  # noqa: N803
    order: int = sitk.RecursiveGaussianImageFilter.ZeroOrder,
    direction: int = 0,
) -> sitk.Image:
    """`SimpleITK.RecursiveGaussian`.

    Parameters
    ----------
    image1 : SimpleITK.Image
    sigma : float
        In physical units, above zero.
    normalizeAcrossScale : bool
        Multiply derivatives by `sigma ** order`.
    order : int
        `RecursiveGaussianImageFilter.ZeroOrder`, `FirstOrder` or `SecondOrder`.
    direction : int
        Axis, 0 for x.

    Returns
    -------
    SimpleITK.Image
        float32.

    Raises
    ------
    RuntimeError, TypeError
        As SimpleITK.
    """
    return _base.executed(
        RecursiveGaussianImageFilter(), image1, Sigma=sigma, NormalizeAcrossScale=normalizeAcrossScale, Order=order,
        Direction=direction,
    )  # fmt: skip
