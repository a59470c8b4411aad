"""The libraries that can resample: one small function each, imported only when asked for.

`prepare(job)` brings the voxels into the library's own container, which is not timed, and returns a call that
resamples and returns the library's own result. Only what each library documents as its usual call is used.

Conventions. Every library has its own idea of where samples lie and how the image goes on past its border. So each
peer says how gpuresample is asked for the same (`keywords`), mostly by `convention=`: results are compared, and times
too, between a library and gpuresample under that library's own rules.
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
from gpuresample.bench.measure import version
from gpuresample.planning.conventions import CONVENTIONS

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


def order_of(interpolation: str) -> int:
    """The spline order that SciPy and its users call the interpolation by."""
    return {"nearest": 0, "linear": 1, "bspline": 3}.get(interpolation) or int(interpolation[-1:].strip("tr") or 0)


def _zoom(job: Job) -> list[float]:
    return [m / n for m, n in zip(job.shape, job.volume.shape, strict=True)]


# --- ours -----------------------------------------------------------------------------------------------------------


def own_keywords(job: Job) -> dict[str, Any]:
    """The job as it stands: its grid, its transform, its boundary."""
    return {
        "like": job.geometry.target,
        "transform": job.geometry.transform,
        "interpolation": job.interpolation,
        "boundary": job.boundary,
    }


def gpuresample_numpy(job: Job) -> Call:
    """Ours, NumPy in and out."""
    source, keywords = volume(job.volume, job.geometry.source), own_keywords(job)
    return lambda: gr.resample(source, device="cpu", **keywords)


def gpuresample_image(job: Job) -> Call:
    """Ours, SimpleITK.Image in and out."""
    source, keywords = image(job.volume, job.geometry.source), own_keywords(job)
    return lambda: gr.resample(source, device="cpu", **keywords)


def gpuresample_truncate(job: Job) -> Call:
    """Ours, SimpleITK.Image in and out, integers truncated as SimpleITK does."""
    source, keywords = image(job.volume, job.geometry.source), own_keywords(job)
    return lambda: gr.resample(source, device="cpu", rounding="truncate", **keywords)


# --- theirs, on the CPU ---------------------------------------------------------------------------------------------


def simpleitk(job: Job) -> Call:
    """`SimpleITK.Resample`, SimpleITK.Image in and out."""
    source, target = image(job.volume, job.geometry.source), job.geometry.target
    transform = job.geometry.transform or sitk.Transform()
    where = (target.size, transform, ENUMERATORS[job.interpolation], target.origin, target.spacing, target.direction)
    return lambda: sitk.Resample(source, *where, 0.0)


def scipy(job: Job) -> Call:
    """`scipy.ndimage.zoom`, or `affine_transform` onto an oblique grid."""
    from scipy import ndimage

    order = order_of(job.interpolation)
    if job.aligned:
        zoom = _zoom(job)
        return lambda: ndimage.zoom(job.volume, zoom, order=order)
    matrix, offset = _index_map(job)
    return lambda: ndimage.affine_transform(job.volume, matrix, offset, job.shape, order=order)


def _index_map(job: Job) -> tuple[Array, Array]:
    """Matrix and offset from the target's indices to the volume's, both z, y, x."""
    source, target = job.geometry.source, job.geometry.target
    corners = np.vstack([np.zeros(3), np.eye(3)])
    where = source.indices(target.points(corners))
    matrix = (where[1:] - where[0]).T
    return matrix[::-1, ::-1].copy(), where[0][::-1].copy()


def skimage(job: Job) -> Call:
    """`skimage.transform.resize`."""
    from skimage.transform import resize

    order = order_of(job.interpolation)
    return lambda: resize(job.volume, job.shape, order=order, preserve_range=True)


def volresample(job: Job) -> Call:
    """`volresample.resample`, NumPy in and out; `nearest` in the voxels' type, else float32."""
    import volresample as vr

    mode: Any = {"nearest": "nearest", "linear": "linear", "bspline": "cubic"}[job.interpolation]
    shape: Any = job.shape
    return lambda: vr.resample(job.volume, shape, mode=mode)


def torch(job: Job, device: str = "cpu") -> Call:
    """`torch.nn.functional.interpolate`, tensor in and out."""
    import torch as t

    mode = {"nearest": "nearest-exact", "linear": "trilinear"}[job.interpolation]
    source = t.from_numpy(job.volume)[None, None].to(device)
    return lambda: t.nn.functional.interpolate(source, job.shape, mode=mode)


def torch_matmul(job: Job, device: str = "cpu") -> Call:
    """Three dense products of matrices, one along each axis; the matrices are made before, from our weights."""
    import torch as t

    source = t.from_numpy(job.volume).to(device)
    a, b, c = (t.from_numpy(m).to(device) for m in axis_matrices(job))

    def call() -> Any:
        along_z = t.tensordot(a, source, dims=([1], [0]))
        return t.matmul(t.matmul(b, along_z), c.T)

    return call


def axis_matrices(job: Job) -> list[Array]:
    """The weights of every axis z, y, x as a dense float32 matrix: what the job makes of unit vectors."""
    made = []
    for n, m, old, new in zip(job.volume.shape, job.shape, job.old, job.new, strict=True):
        units = np.eye(n).reshape(n, 1, 1, n)
        keywords: dict[str, Any] = {"interpolation": job.interpolation, "boundary": job.boundary, "device": "cpu"}
        columns = gr.resample(units, spacing=(1, 1, new), size=(1, 1, m), input_spacing=(1, 1, old), **keywords)
        made.append(np.ascontiguousarray(columns.reshape(n, m).T, dtype=np.float32))
    return made


def monai(job: Job) -> Call:
    """`monai.transforms.Spacing`."""
    import torch as t
    from monai.data import MetaTensor
    from monai.transforms import Spacing

    source = MetaTensor(t.from_numpy(job.volume)[None], affine=t.diag(t.tensor([*job.old, 1.0], dtype=t.float64)))
    mode = {"nearest": "nearest", "linear": "bilinear"}[job.interpolation]
    transform: Any = Spacing(pixdim=job.new, mode=mode)
    return lambda: transform(source)


def torchio(job: Job) -> Call:
    """`torchio.Resample`; its arrays are x, y, z."""
    import torch as t
    import torchio as tio

    turned = np.ascontiguousarray(job.volume.T)
    source = tio.ScalarImage(tensor=t.from_numpy(turned)[None], affine=np.diag([*job.old[::-1], 1.0]))
    name = "bspline" if job.interpolation == "bspline3" else job.interpolation
    transform: Any = tio.Resample(job.new[::-1], image_interpolation=name)
    return lambda: transform(source).data[0].numpy().T


def nibabel(job: Job) -> Call:
    """`nibabel.processing.resample_to_output`; its arrays are x, y, z."""
    import nibabel as nib
    from nibabel.processing import resample_to_output

    source = nib.Nifti1Image(np.ascontiguousarray(job.volume.T), np.diag([*job.old[::-1], 1.0]))
    order = order_of(job.interpolation)
    return lambda: np.asarray(resample_to_output(source, job.new[::-1], order=order).dataobj).T


def nnunet(job: Job) -> Call:
    """nnU-Net's resampling of images."""
    from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg_to_shape

    source, order = job.volume[None], order_of(job.interpolation)
    return lambda: resample_data_or_seg_to_shape(
        source, job.shape, job.old, job.new, order=order, force_separate_z=False
    )[0]


# --- theirs, on a GPU -----------------------------------------------------------------------------------------------


def cupyx(job: Job) -> Call:
    """`cupyx.scipy.ndimage.zoom`, on the device."""
    import cupy
    from cupyx.scipy import ndimage

    source, zoom, order = cupy.asarray(job.volume), _zoom(job), order_of(job.interpolation)
    return lambda: ndimage.zoom(source, zoom, order=order)


def cucim(job: Job) -> Call:
    """`cucim.skimage.transform.resize`, on the device."""
    import cupy
    from cucim.skimage.transform import resize

    source, order = cupy.asarray(job.volume), order_of(job.interpolation)
    return lambda: resize(source, job.shape, order=order, preserve_range=True)


# --- the table ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Peer:
    """A library and the way it is called.

    Attributes
    ----------
    label : str
        As tables print it.
    prepare : callable
        From a job to a call.
    module, package : str
        What must be installed, and the distribution that it comes with.
    interpolations : tuple of str
        What it offers with our mathematics.
    convention : str
        Whose rules it follows: a name of `planning.conventions`, "volresample", or "simpleitk" for the job as it is.
    integers : bool
        Whether it takes int16; else it is given float32.
    oblique : bool
        Whether it resamples onto grids that are not aligned.
    """

    label: str
    prepare: Callable[[Job], Call]
    module: str
    package: str
    interpolations: tuple[str, ...]
    convention: str
    integers: bool = True
    oblique: bool = False

    @property
    def installed(self) -> bool:
        """Whether it can be asked."""
        try:
            return importlib.util.find_spec(self.module) is not None
        except ModuleNotFoundError:  # the parent of a submodule
            return False

    @property
    def version(self) -> str:
        """The installed version, nothing if there is none."""
        return gr.__version__ if self.module == "gpuresample" else version(self.package)

    def job(self, job: Job) -> Job:
        """The job in a voxel type that the library takes."""
        exact = job.interpolation == "nearest" and self.convention == "volresample"
        return job if self.integers or exact or job.volume.dtype.kind == "f" else job.of_type(np.float32)

    def keywords(self, job: Job) -> dict[str, Any]:
        """How gpuresample is asked for the same."""
        if self.convention == "simpleitk":
            return own_keywords(job)
        if self.convention == "volresample":
            boundary = "reflect" if job.interpolation == "bspline" else "nearest"
            size = job.shape[::-1]
            return {"size": size, "anchor": "edge", "boundary": boundary, "interpolation": job.interpolation}
        if not job.aligned:
            return {**own_keywords(job), "boundary": "constant"}
        grid = {"size": job.shape[::-1]} if "size" in CONVENTIONS[self.convention].ways else {"spacing": job.new[::-1]}
        return {**grid, "interpolation": job.interpolation, "convention": self.convention}


def _known(
    label: str, prepare: Callable[[Job], Call], module: str, convention: str, *, package: str | None = None,
    integers: bool = True, oblique: bool = False,
) -> Peer:  # fmt: skip
    """A peer with a convention by name, which knows its distribution and what it offers."""
    c = CONVENTIONS[convention]
    return Peer(label, prepare, module, package or c.package, c.interpolations, convention, integers, oblique)


SIMPLEITK = CONVENTIONS["simpleitk"].interpolations
MATMULS = tuple(name for name in SIMPLEITK if name != "nearest" and "label" not in name)

PEERS = {
    "gpuresample": Peer("gpuresample", gpuresample_numpy, "gpuresample", "gpuresample", SIMPLEITK, "simpleitk",
                        oblique=True),
    "gpuresample-image": Peer("gpuresample, SimpleITK.Image", gpuresample_image, "gpuresample", "gpuresample",
                              SIMPLEITK, "simpleitk", oblique=True),
    "gpuresample-truncate": Peer("gpuresample, SimpleITK.Image, truncated", gpuresample_truncate, "gpuresample",
                                 "gpuresample", SIMPLEITK, "simpleitk", oblique=True),
    "simpleitk": _known("SimpleITK", simpleitk, "SimpleITK", "simpleitk", oblique=True),
    "scipy": _known("SciPy", scipy, "scipy", "scipy", oblique=True),
    "volresample": Peer("volresample", volresample, "volresample", "volresample", ("nearest", "linear", "bspline"),
                        "volresample", integers=False),
    "torch": _known("torch interpolate", torch, "torch", "torch", integers=False),
    "torch-matmul": Peer("torch, three matmuls", torch_matmul, "torch", "torch", MATMULS, "simpleitk", integers=False),
    "monai": _known("MONAI", monai, "monai", "monai"),
    "torchio": _known("TorchIO", torchio, "torchio", "torchio"),
    "skimage": _known("scikit-image", skimage, "skimage", "skimage"),
    "nnunet": _known("nnU-Net", nnunet, "nnunetv2", "nnunet"),
    "nibabel": _known("nibabel", nibabel, "nibabel", "nibabel"),
}  # fmt: skip

# On the device, with device arrays in and out.
GPU_PEERS = {
    "torch": _known("torch interpolate", lambda job: torch(job, "cuda"), "torch", "torch", integers=False),
    "torch-matmul": Peer("torch, three matmuls", lambda job: torch_matmul(job, "cuda"), "torch", "torch", MATMULS,
                         "simpleitk", integers=False),
    # In float32: cupyx rounds integers half to even, SciPy half away from zero.
    "cupyx": _known("cupyx", cupyx, "cupyx", "scipy", package="cupy", integers=False),
    "cucim": _known("cuCIM", cucim, "cucim", "skimage", package="cucim"),
}  # fmt: skip
OURS = ("gpuresample", "gpuresample-image", "gpuresample-truncate")


def as_array(result: Any) -> Array:
    """Any library's result as an array (z, y, x); lists of them stacked."""
    if isinstance(result, list):
        return np.stack([as_array(r) for r in result])
    if isinstance(result, gr.Volume):
        return as_array(result.array)
    if isinstance(result, sitk.Image):
        return sitk.GetArrayFromImage(result)
    if hasattr(result, "get") and hasattr(result, "__cuda_array_interface__"):
        result = result.get()
    elif hasattr(result, "detach"):
        result = result.detach().cpu()
    array = np.asarray(result)
    while array.ndim > 3 and array.shape[0] == 1:
        array = array[0]
    return array
