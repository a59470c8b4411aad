"""MONAI's resampling transforms, computed by gpuresample: the same arguments, metadata, traces and inverses.

    from gpuresample.monai import Spacingd  # for monai.transforms.Spacingd
    transform = Spacingd(["image", "label"], pixdim=(1, 1, 2), mode=["bilinear", "nearest"])

Every class is a subclass of MONAI's. MONAI decides what is to be done: the grids, the modes, the trace, the random
numbers. gpuresample computes the voxels. What it cannot do, MONAI does itself, and one warning for each reason says so.
"""

from __future__ import annotations

try:
    from monai import transforms
except ImportError as error:
    raise ImportError('gpuresample.monai needs MONAI: pip install "gpuresample[monai]"') from error

from gpuresample.installation import Installation
from gpuresample.monai.affines import Affine, Affined, RandAffine, RandAffined
from gpuresample.monai.deforming import Rand3DElastic, Rand3DElasticd, RandGridDistortion, RandGridDistortiond
from gpuresample.monai.scaling import RandZoom, RandZoomd, Resize, Resized, Zoom, Zoomd
from gpuresample.monai.smoothing import GaussianSmooth, GaussianSmoothd
from gpuresample.monai.spacing import (
    ResampleToMatch,
    ResampleToMatchd,
    Spacing,
    Spacingd,
    SpatialResample,
)
from gpuresample.monai.turning import RandRotate, RandRotated, Rotate, Rotated

__all__ = [
    "Affine", "Affined", "GaussianSmooth", "GaussianSmoothd", "Installation", "Rand3DElastic", "Rand3DElasticd",
    "RandAffine", "RandAffined", "RandGridDistortion", "RandGridDistortiond", "RandRotate", "RandRotated", "RandZoom",
    "RandZoomd", "ResampleToMatch", "ResampleToMatchd", "Resize", "Resized", "Rotate", "Rotated", "Spacing", "Spacingd",
    "SpatialResample", "Zoom", "Zoomd", "install",
]  # fmt: skip

_OURS = (
    SpatialResample, ResampleToMatch, ResampleToMatchd, Spacing, Spacingd, Resize, Resized, GaussianSmooth,
    GaussianSmoothd, Affine, Affined, RandAffine, RandAffined, Rotate, Rotated, RandRotate, RandRotated, Zoom, Zoomd,
    RandZoom, RandZoomd, Rand3DElastic, Rand3DElasticd, RandGridDistortion, RandGridDistortiond,
)  # fmt: skip
_THEIRS = {ours: getattr(transforms, ours.__name__) for ours in _OURS}


def install() -> Installation:
    """Put this module's transforms in the place of MONAI's, so that bundles and scripts that name `Spacingd` use them.

    Returns
    -------
    Installation
        Its `revert()` undoes everything. It is also a context manager. Names that a script has imported before keep
        what they were; so do transforms that are made already.
    """
    done = Installation("monai")
    for ours, theirs in _THEIRS.items():
        if done.replace(theirs, ours):
            # Bundles find a class in the module that it says it is of.
            done.assign(ours, "__module__", theirs.__module__)
    return done
