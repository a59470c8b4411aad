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
    "resample": "ops.resample",
    "plan": "ops.resample",
    "Plan": "plans",
    "gaussian": "ops.gaussian",
    "shrink": "ops.shrink",
    "bin_shrink": "ops.shrink",
    "expand": "ops.shrink",
    "downsample": "ops.shrink",
    "upsample": "ops.shrink",
    "pyramid": "ops.pyramid",
    "read_transform": "files.transforms",
    "open_nifti": "files.mapped",
    "reorient": "ops.orient",
    "conform": "ops.orient",
    "label_report": "ops.labels",
    "laplacian": "ops.laplacians",
    "Laplacian": "ops.laplacians",
    "ensemble": "ops.ensemble",
    "doctor": "ops.doctor",
    "warmup": "ops.warmup",
    "verify": "verification",
    "Volume": "containers",
    "Affine": "ops.transforms",
    "DisplacementField": "ops.transforms",
    "BSpline": "ops.transforms",
    "Path": "ops.transforms",
    "Grid": "planning.grid",
    "clear_caches": "caching",
    "set_num_threads": "engines.threads",
    "get_num_threads": "engines.threads",
}

__all__ = [
    "Affine",
    "BSpline",
    "DisplacementField",
    "Grid",
    "Laplacian",
    "Path",
    "Plan",
    "Volume",
    "__version__",
    "bin_shrink",
    "clear_caches",
    "conform",
    "doctor",
    "downsample",
    "ensemble",
    "expand",
    "gaussian",
    "get_num_threads",
    "label_report",
    "laplacian",
    "open_nifti",
    "plan",
    "pyramid",
    "read_transform",
    "reorient",
    "resample",
    "set_num_threads",
    "shrink",
    "upsample",
    "verify",
    "warmup",
]

if TYPE_CHECKING:
    from gpuresample.caching import clear_caches as clear_caches
    from gpuresample.containers import Volume as Volume
    from gpuresample.engines.threads import get_num_threads as get_num_threads
    from gpuresample.engines.threads import set_num_threads as set_num_threads
    from gpuresample.files.mapped import open_nifti as open_nifti
    from gpuresample.files.transforms import read_transform as read_transform
    from gpuresample.ops.doctor import doctor as doctor
    from gpuresample.ops.ensemble import ensemble as ensemble
    from gpuresample.ops.gaussian import gaussian as gaussian
    from gpuresample.ops.labels import label_report as label_report
    from gpuresample.ops.laplacians import Laplacian as Laplacian
    from gpuresample.ops.laplacians import laplacian as laplacian
    from gpuresample.ops.orient import conform as conform
    from gpuresample.ops.orient import reorient as reorient
    from gpuresample.ops.pyramid import pyramid as pyramid
    from gpuresample.ops.resample import plan as plan
    from gpuresample.ops.resample import resample as resample
    from gpuresample.ops.shrink import bin_shrink as bin_shrink
    from gpuresample.ops.shrink import downsample as downsample
    from gpuresample.ops.shrink import expand as expand
    from gpuresample.ops.shrink import shrink as shrink
    from gpuresample.ops.shrink import upsample as upsample
    from gpuresample.ops.transforms import Affine as Affine
    from gpuresample.ops.transforms import BSpline as BSpline
    from gpuresample.ops.transforms import DisplacementField as DisplacementField
    from gpuresample.ops.transforms import Path as Path
    from gpuresample.ops.warmup import warmup as warmup
    from gpuresample.planning.grid import Grid as Grid
    from gpuresample.plans import Plan as Plan
    from gpuresample.verification import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'gpuresample' has no attribute {name!r}")
    from gpuresample.engines.threads import importing  # it loads NumPy, which every name needs

    with importing:
        value = getattr(importlib.import_module(f"gpuresample.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
