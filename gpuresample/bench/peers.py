"""The libraries that can do a job: one small function each, imported only when asked for.

`prepare(job)` brings the voxels into the library's own container, which is not timed, and returns a call that
resamples and returns the library's own result. Only what each library documents as its usual call is used.

Conventions. SimpleITK resamples onto any grid. volresample and torch know sizes only and align the volumes' outer
faces (our `anchor="edge"`); volresample's cubic is SciPy's B-spline of order 3 with mode "reflect", its linear is
torch's trilinear, its nearest takes the voxel that a sample falls into. Each is compared with gpuresample asked for
the same grid and the same boundary.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench.cases import Array, Job, image, volume

Call = Callable[[], Any]

ENUMERATORS = {
    "nearest": sitk.sitkNearestNeighbor,
    "linear": sitk.sitkLinear,
    "bspline": sitk.sitkBSpline,
    "bspline1": sitk.sitkBSpline1,
    "bspline2": sitk.sitkBSpline2,
    "bspline3": sitk.sitkBSpline3,
    "bspline4": sitk.sitkBSpline4,
    "bspline5": sitk.sitkBSpline5,
    "gaussian": sitk.sitkGaussian,
    "hamming": sitk.sitkHammingWindowedSinc,
    "cosine": sitk.sitkCosineWindowedSinc,
    "welch": sitk.sitkWelchWindowedSinc,
    "lanczos": sitk.sitkLanczosWindowedSinc,
    "blackman": sitk.sitkBlackmanWindowedSinc,
    "label_gaussian": sitk.sitkLabelGaussian,
    "label_linear": sitk.sitkLabelLinear,
}


def _options(job: Job) -> dict[str, Any]:
    return {
        "like": job.geometry.target,
        "transform": job.geometry.transform,
        "interpolation": job.interpolation,
        "boundary": job.boundary,
    }


def gpuresample_numpy(job: Job) -> Call:
    """Ours, NumPy in and out."""
    source = volume(job.volume, job.geometry.source)
    options = _options(job)
    return lambda: gr.resample(source, **options)


def gpuresample_image(job: Job) -> Call:
    """Ours, SimpleITK.Image in and out."""
    source = image(job.volume, job.geometry.source)
    options = _options(job)
    return lambda: gr.resample(source, **options)


def gpuresample_truncate(job: Job) -> Call:
    """Ours as SimpleITK rounds, SimpleITK.Image in and out."""
    source = image(job.volume, job.geometry.source)
    options = _options(job)
    return lambda: gr.resample(source, rounding="truncate", **options)


def simpleitk(job: Job) -> Call:
    """`SimpleITK.Resample`, SimpleITK.Image in and out."""
    source, target = image(job.volume, job.geometry.source), job.geometry.target
    transform = job.geometry.transform or sitk.Transform()
    where = (target.size, transform, ENUMERATORS[job.interpolation], target.origin, target.spacing, target.direction)
    return lambda: sitk.Resample(source, *where, 0.0)


def volresample(job: Job) -> Call:
    """`volresample.resample`, NumPy in and out; `nearest` in the voxels' type, else float32."""
    import volresample as vr

    mode: Any = {"nearest": "nearest", "linear": "linear", "bspline": "cubic"}[job.interpolation]
    shape: Any = job.geometry.target.size[::-1]
    return lambda: vr.resample(job.volume, shape, mode=mode)


def torch(job: Job) -> Call:
    """`torch.nn.functional.interpolate`, tensor in and out."""
    import torch as t

    mode = {"linear": "trilinear"}[job.interpolation]
    source = t.from_numpy(job.volume)[None, None]
    shape = job.geometry.target.size[::-1]
    return lambda: t.nn.functional.interpolate(source, shape, mode=mode, align_corners=False)


@dataclass(frozen=True)
class Peer:
    """A library and the way it is called.

    Attributes
    ----------
    label : str
        As tables print it.
    prepare : callable
        From a job to a call.
    module : str
        What must be installed.
    """

    label: str
    prepare: Callable[[Job], Call]
    module: str

    @property
    def installed(self) -> bool:
        """Whether it can be asked."""
        return importlib.util.find_spec(self.module) is not None


PEERS = {
    "numpy": Peer("gpuresample, NumPy", gpuresample_numpy, "gpuresample"),
    "image": Peer("gpuresample, SimpleITK.Image", gpuresample_image, "gpuresample"),
    "truncate": Peer("gpuresample, SimpleITK.Image, truncate", gpuresample_truncate, "gpuresample"),
    "simpleitk": Peer("SimpleITK", simpleitk, "SimpleITK"),
    "volresample": Peer("volresample", volresample, "volresample"),
    "torch": Peer("torch interpolate", torch, "torch"),
}


def as_array(result: Any) -> Array:
    """Any library's result as an array (z, y, x)."""
    if isinstance(result, gr.Volume):
        return result.array
    if isinstance(result, sitk.Image):
        return sitk.GetArrayFromImage(result)
    array = np.asarray(result)
    return array.reshape(array.shape[-3:])
