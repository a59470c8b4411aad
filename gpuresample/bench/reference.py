"""SimpleITK's own calls, written once: the references of every comparison."""

from __future__ import annotations

from collections.abc import Sequence

import SimpleITK as sitk

from gpuresample.bench.cases import Geometry
from gpuresample.bench.peers import ENUMERATORS


def resampled(
    image: sitk.Image,
    geometry: Geometry,
    interpolation: str,
    default: float = 0.0,
    pixel: int = sitk.sitkUnknown,
) -> sitk.Image:
    """`SimpleITK.Resample`.

    Parameters
    ----------
    image : SimpleITK.Image
        On `geometry.source`.
    geometry : Geometry
    interpolation : str
        gpuresample's word.
    default : float
        Of voxels outside.
    pixel : SimpleITK enumerator
        Voxel type of the result: the image's own, or `sitkFloat64` for sums that nothing has rounded.
    """
    t = geometry.target
    transform = geometry.transform or sitk.Transform()
    return sitk.Resample(
        image, t.size, transform, ENUMERATORS[interpolation], t.origin, t.spacing, t.direction, default, pixel
    )


def gaussian_discrete(image: sitk.Image, sigma: Sequence[float]) -> sitk.Image:
    """`SimpleITK.DiscreteGaussian` with its own limits, sigma in physical units."""
    return sitk.DiscreteGaussian(image, [s * s for s in sigma], 32, 0.01, True)


# The same limits, in our words.
DISCRETE_LIMITS = {"max_error": 0.01, "max_radius": 32}


def gaussian_recursive(image: sitk.Image, sigma: Sequence[float]) -> sitk.Image:
    """`SimpleITK.SmoothingRecursiveGaussian`, sigma in physical units; float32, whatever the image's type."""
    return sitk.SmoothingRecursiveGaussian(image, list(sigma))
