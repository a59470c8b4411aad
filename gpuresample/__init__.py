"""Resampling of 3-D volumes with SimpleITK's numbers.

    import gpuresample as gr
    thin = gr.resample(ct, spacing=(1, 1, 2))

Names load on first use: importing this package imports neither NumPy's peers nor Numba nor SimpleITK.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "resample": "resampling",
    "plan": "resampling",
    "Plan": "plans",
    "gaussian": "smoothing",
    "shrink": "shrinking",
    "bin_shrink": "shrinking",
    "expand": "shrinking",
    "downsample": "shrinking",
    "upsample": "shrinking",
    "pyramid": "pyramids",
    "laplacian": "laplacians",
    "Laplacian": "laplacians",
    "ensemble": "ensembling",
    "doctor": "checkup",
    "calibrate": "calibration",
    "verify": "verification",
    "Volume": "containers",
    "Grid": "grid",
    "set_num_threads": "engines.pool",
    "get_num_threads": "engines.pool",
}

__all__ = [
    "Grid",
    "Laplacian",
    "Plan",
    "Volume",
    "__version__",
    "bin_shrink",
    "calibrate",
    "doctor",
    "downsample",
    "ensemble",
    "expand",
    "gaussian",
    "get_num_threads",
    "laplacian",
    "plan",
    "pyramid",
    "resample",
    "set_num_threads",
    "shrink",
    "upsample",
    "verify",
]

if TYPE_CHECKING:
    from gpuresample.calibration import calibrate as calibrate
    from gpuresample.checkup import doctor as doctor
    from gpuresample.containers import Volume as Volume
    from gpuresample.engines.pool import get_num_threads as get_num_threads
    from gpuresample.engines.pool import set_num_threads as set_num_threads
    from gpuresample.ensembling import ensemble as ensemble
    from gpuresample.grid import Grid as Grid
    from gpuresample.laplacians import Laplacian as Laplacian
    from gpuresample.laplacians import laplacian as laplacian
    from gpuresample.plans import Plan as Plan
    from gpuresample.pyramids import pyramid as pyramid
    from gpuresample.resampling import plan as plan
    from gpuresample.resampling import resample as resample
    from gpuresample.shrinking import bin_shrink as bin_shrink
    from gpuresample.shrinking import downsample as downsample
    from gpuresample.shrinking import expand as expand
    from gpuresample.shrinking import shrink as shrink
    from gpuresample.shrinking import upsample as upsample
    from gpuresample.smoothing import gaussian as gaussian
    from gpuresample.verification import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpuresample' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gpuresample.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
