"""SciPy's own names of `scipy.ndimage` for what gpuresample does.

    import gpuresample.ndimage as ndi

    thin = ndi.zoom(volume, (1, 0.5, 0.5), order=3)

These are here: `zoom`, `rotate`, `shift`, `affine_transform`, `map_coordinates`, `geometric_transform`,
`spline_filter`, `spline_filter1d`, `gaussian_filter`, `gaussian_filter1d`, `gaussian_laplace`,
`gaussian_gradient_magnitude`, `uniform_filter`, `uniform_filter1d`, `correlate1d` and `convolve1d`, with SciPy's
arguments, results' types and rounding. NumPy arrays come back as NumPy arrays; CuPy arrays and torch's tensors stay
where they are. Every other name of this module is SciPy's own.

What cannot be done here SciPy does, and one `LeftToSciPyWarning` for each reason says so. SciPy need not be installed
otherwise.

One thing differs on purpose: a NaN spoils only the elements whose taps meet it, not whole lines of the array.
"""

from __future__ import annotations

import importlib
from typing import Any

from gpuresample.ndimage._base import LeftToSciPyWarning as LeftToSciPyWarning
from gpuresample.ndimage._base import set_device as set_device
from gpuresample.ndimage._filters import convolve1d as convolve1d
from gpuresample.ndimage._filters import correlate1d as correlate1d
from gpuresample.ndimage._filters import gaussian_filter as gaussian_filter
from gpuresample.ndimage._filters import gaussian_filter1d as gaussian_filter1d
from gpuresample.ndimage._filters import gaussian_gradient_magnitude as gaussian_gradient_magnitude
from gpuresample.ndimage._filters import gaussian_laplace as gaussian_laplace
from gpuresample.ndimage._filters import uniform_filter as uniform_filter
from gpuresample.ndimage._filters import uniform_filter1d as uniform_filter1d
from gpuresample.ndimage._interpolation import affine_transform as affine_transform
from gpuresample.ndimage._interpolation import geometric_transform as geometric_transform
from gpuresample.ndimage._interpolation import map_coordinates as map_coordinates
from gpuresample.ndimage._interpolation import rotate as rotate
from gpuresample.ndimage._interpolation import shift as shift
from gpuresample.ndimage._interpolation import spline_filter as spline_filter
from gpuresample.ndimage._interpolation import spline_filter1d as spline_filter1d
from gpuresample.ndimage._interpolation import zoom as zoom

OURS = (
    "affine_transform", "convolve1d", "correlate1d", "gaussian_filter", "gaussian_filter1d",
    "gaussian_gradient_magnitude", "gaussian_laplace", "geometric_transform", "map_coordinates", "rotate", "shift",
    "spline_filter", "spline_filter1d", "uniform_filter", "uniform_filter1d", "zoom",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    """Every other name is SciPy's."""
    if name.startswith("__"):
        raise AttributeError(f"module 'gpuresample.ndimage' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("scipy.ndimage"), name)
    except (AttributeError, ImportError):
        raise AttributeError(f"neither gpuresample.ndimage nor scipy.ndimage has {name!r}") from None
