"""SimpleITK's own names for what gpuresample does.

    import SimpleITK as sitk
    import gpuresample.sitk as gsitk

    resample = gsitk.ResampleImageFilter()  # the rest of the recipe stays as it was

These filters are here: `ResampleImageFilter`, `DiscreteGaussianImageFilter`, `SmoothingRecursiveGaussianImageFilter`,
`RecursiveGaussianImageFilter`, `ShrinkImageFilter`, `BinShrinkImageFilter`, `ExpandImageFilter`, and the functions of
the same names (`Resample`, ...). Their parameters, defaults, events and errors are SimpleITK's, and integers are
truncated. Setters return the filter, so they can be chained. Every other name of this module is SimpleITK's own. So you
may also write `import gpuresample.sitk as sitk` in place of `import SimpleITK as sitk`.

Some things cannot be done here: B-spline coefficients as input, voxels that are not finite, and the rare integers that
SimpleITK's last digit decides under a filter other than linear or B-spline. SimpleITK does these, and one
`RuntimeWarning` for each reason says so. Where SimpleITK raises an error, that error is raised here too.

A default pixel value that does not fit the voxel type becomes what SimpleITK makes of it on this machine.

Two things differ on purpose. Nearest and label modes keep 64-bit integers above 2**53, which SimpleITK loses. A NaN
spoils only the voxels whose taps meet it, not the whole B-spline.
"""

from __future__ import annotations

from typing import Any

import SimpleITK as _sitk

from gpuresample.sitk._base import set_device as set_device
from gpuresample.sitk._resample import Resample as Resample
from gpuresample.sitk._resample import ResampleImageFilter as ResampleImageFilter
from gpuresample.sitk._sizes import BinShrink as BinShrink
from gpuresample.sitk._sizes import BinShrinkImageFilter as BinShrinkImageFilter
from gpuresample.sitk._sizes import Expand as Expand
from gpuresample.sitk._sizes import ExpandImageFilter as ExpandImageFilter
from gpuresample.sitk._sizes import Shrink as Shrink
from gpuresample.sitk._sizes import ShrinkImageFilter as ShrinkImageFilter
from gpuresample.sitk._smoothing import DiscreteGaussian as DiscreteGaussian
from gpuresample.sitk._smoothing import DiscreteGaussianImageFilter as DiscreteGaussianImageFilter
from gpuresample.sitk._smoothing import RecursiveGaussian as RecursiveGaussian
from gpuresample.sitk._smoothing import RecursiveGaussianImageFilter as RecursiveGaussianImageFilter
from gpuresample.sitk._smoothing import SmoothingRecursiveGaussian as SmoothingRecursiveGaussian
from gpuresample.sitk._smoothing import SmoothingRecursiveGaussianImageFilter as SmoothingRecursiveGaussianImageFilter

OURS = (
    "BinShrink", "BinShrinkImageFilter", "DiscreteGaussian", "DiscreteGaussianImageFilter", "Expand",
    "ExpandImageFilter", "RecursiveGaussian", "RecursiveGaussianImageFilter", "Resample", "ResampleImageFilter",
    "Shrink", "ShrinkImageFilter", "SmoothingRecursiveGaussian", "SmoothingRecursiveGaussianImageFilter",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Every other name is SimpleITK's."""
    try:
        return getattr(_sitk, name)
    except AttributeError:
        raise AttributeError(f"neither gpuresample.sitk nor SimpleITK has {name!r}") from None


def __dir__() -> list[str]:
    return sorted({*globals(), *dir(_sitk)})
