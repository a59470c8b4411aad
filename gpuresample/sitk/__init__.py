"""SimpleITK's own names for what gpuresample does.

    import SimpleITK as sitk
    import gpuresample.sitk as gsitk

    resample = gsitk.ResampleImageFilter()  # and the rest of the recipe as it was

`ResampleImageFilter`, `DiscreteGaussianImageFilter`, `SmoothingRecursiveGaussianImageFilter`,
`RecursiveGaussianImageFilter`, `ShrinkImageFilter`, `BinShrinkImageFilter`, `ExpandImageFilter`, and the functions of
the same names (`Resample`, ...) take and give what SimpleITK's do: their parameters, defaults, events and errors are
SimpleITK's, integers truncate. Setters return the filter, so they can be chained. Every other name of this module is
SimpleITK's own, so `import gpuresample.sitk as sitk` may also stand in for `import SimpleITK as sitk`.

What cannot be done here is done by SimpleITK, with one `RuntimeWarning` for every reason: B-spline coefficients as
input, voxels that are not finite, and the rare integers that SimpleITK's last digit decides under a filter other than
linear or B-spline. Where SimpleITK raises, its own error is raised.

A default pixel value that does not fit the voxel type becomes what SimpleITK makes of it on this machine.

Different on purpose: nearest and label modes keep 64-bit integers above 2**53, which SimpleITK loses; a NaN that no
output voxel meets does not spoil a B-spline.
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
