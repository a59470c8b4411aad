"""nnU-Net's resampling, computed by gpuresample: data, label maps, and class scores straight to the label file.

    import gpuresample.nnunet
    gpuresample.nnunet.install(defaults=True)  # now run nnU-Net as before

Plans name their resampling functions. `install()` registers `resample_gpuresample` where nnU-Net looks these names up.
nnU-Net spawns processes, and each runs the top level of the main script again. So call `install` at the top level,
outside `if __name__ == "__main__"`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import nnunetv2  # noqa: F401
except ImportError as error:
    raise ImportError('gpuresample.nnunet needs nnU-Net: pip install "gpuresample[nnunet]"') from error
import torch
from batchgenerators.augmentations.utils import resize_segmentation
from nnunetv2.configuration import ANISO_THRESHOLD, default_num_processes
from nnunetv2.inference import export_prediction
from nnunetv2.preprocessing.resampling import default_resampling, resample_torch

from gpuresample.caching import kept
from gpuresample.checks import sizes
from gpuresample.installation import Installation, warn_once
from gpuresample.ops.ensemble import ensemble
from gpuresample.planning.filters import FILTERS
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap
from gpuresample.planning.planner import sampled
from gpuresample.plans import Plan, of_work, precision_of
from gpuresample.torch import interpolate

Array = npt.NDArray[Any]

__all__ = [
    "Installation",
    "convert_predicted_logits_to_segmentation_with_correct_shape",
    "export_prediction_from_logits",
    "install",
    "resample_data_or_seg_to_spacing",
    "resample_gpuresample",
    "resample_torch_fornnunet",
]

# Two labels whose scores differ by less weigh the same; what decides then is which of them is nearest.
TIE = 1e-9

_RESAMPLE: Callable[..., Any] = default_resampling.resample_data_or_seg_to_shape
_RESAMPLE_TO_SPACING: Callable[..., Any] = default_resampling.resample_data_or_seg_to_spacing
_RESAMPLE_TORCH: Callable[..., Any] = resample_torch.resample_torch_fornnunet
_CONVERT: Callable[..., Any] = export_prediction.convert_predicted_logits_to_segmentation_with_correct_shape
_EXPORT: Callable[..., Any] = export_prediction.export_prediction_from_logits


def resample_gpuresample(
    data: Array | torch.Tensor,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    device: str = "auto",
) -> Array:
    """Resample data or label maps as nnU-Net's `resample_data_or_seg_to_shape` does.

    Parameters
    ----------
    data : ndarray or Tensor, shape (c, x, y, z) in nnU-Net's words
        Channels first; the last three axes are space.
    new_shape : sequence of int
        New spatial shape.
    current_spacing, new_spacing : sequence of float
        Together with the two arguments below they decide whether the axis of the thickest slices is resampled
        separately.
    is_seg : bool
        Whether `data` is a label map. Then every label's indicator is resampled, and the largest wins; ties go to the
        label of the nearest voxel.
    order, order_z : int
        Spline order, 0 to 5. `order_z` is for the axis that is resampled separately.
    force_separate_z : bool or None
        Whether to resample that axis separately. None: if spacings differ by more than the threshold.
    separate_z_anisotropy_threshold : float
        See `force_separate_z`.
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As for `gpuresample.resample`.

    Returns
    -------
    ndarray, shape (c, *new_shape)
        Of the input's type; the input itself if the shape stays the same.

    Raises
    ------
    ValueError, TypeError
        For data that does not have four axes, and for orders out of range.

    Notes
    -----
    nnU-Net lets scikit-image compute in float64. Here float32 data is summed in float32; the result is within 2e-6 of
    the data's range of nnU-Net's. Results are clipped to the range of their slice or channel, as scikit-image does.

    Labels are nnU-Net's but at ties, where the indicators of two labels are equal in exact arithmetic. nnU-Net's rule
    for ties is this one, the nearest voxel's label, but it finds them by comparing float64 sums, which a last bit keeps
    apart now and then: of random labels by order 1, at 1 voxel in 700. A test shows that no other voxels differ.
    """
    array = data.detach().cpu().numpy() if isinstance(data, torch.Tensor) else data
    if array.ndim != 4:
        raise ValueError(f"data must have four axes (c, x, y, z), got shape {array.shape}")
    shape = sizes("new_shape", new_shape, 3)
    for name, value in (("order", order), ("order_z", order_z)):
        if value not in range(6):
            raise ValueError(f"{name} must be 0, 1, 2, 3, 4 or 5, got {value!r}")
    if array.shape[1:] == shape:
        return array
    separate, axis = default_resampling.determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    if separate and axis is None:
        raise ValueError(f"force_separate_z=True needs one axis of thickest slices, got spacing {current_spacing!r}")
    if is_seg and order > 0 and not _largest_wins():
        _warn("this version of batchgenerators has another rule for label maps")
        return np.asarray(
            _RESAMPLE(
                array, shape, current_spacing, new_spacing, is_seg, order, order_z, force_separate_z,
                separate_z_anisotropy_threshold,
            )
        )  # fmt: skip
    between = tuple(array.shape[1 + k] if separate and k == axis else shape[k] for k in range(3))
    if is_seg:
        out = np.stack([_labels(channel, between, order, device) for channel in array])
        if between == shape:
            return out
        return np.stack([_labels_along(channel, shape, order_z, device) for channel in out])
    floats = np.dtype(np.float64 if array.dtype.itemsize == 8 or array.dtype in (np.int32, np.uint32) else np.float32)
    out = _sampled(array, between, order, floats, device)
    if order > 1:
        # scikit-image clips what it is given: a slice where slices go one by one, else a channel.
        whole = tuple(k for k in (1, 2, 3) if not separate or k != 1 + axis)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of a slice that is all NaN
            low, high = np.nanmin(array, whole, keepdims=True), np.nanmax(array, whole, keepdims=True)
        np.clip(out, low, high, out=out)
    if between != shape:
        out = _sampled(out, shape, order_z, floats, device)
    return out.astype(array.dtype, copy=False)


def resample_data_or_seg_to_spacing(
    data: Array,
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    order: int = 3,
    order_z: int = 0,
    force_separate_z: bool | None = False,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    device: str = "auto",
) -> Array:
    """Resample data or label maps as nnU-Net's function of this name does.

    Parameters
    ----------
    data, current_spacing, new_spacing, is_seg, order, order_z, force_separate_z, device
    separate_z_anisotropy_threshold
        As for `resample_gpuresample`; the new shape is nnU-Net's for the spacings.

    Returns
    -------
    ndarray
        As `resample_gpuresample`.

    Raises
    ------
    ValueError, TypeError
        As `resample_gpuresample`.
    """
    if data.ndim != 4:
        raise ValueError(f"data must have four axes (c, x, y, z), got shape {data.shape}")
    shape = default_resampling.compute_new_shape(data.shape[1:], current_spacing, new_spacing)
    return resample_gpuresample(
        data, [int(n) for n in shape], current_spacing, new_spacing, is_seg, order, order_z, force_separate_z,
        separate_z_anisotropy_threshold, device,
    )  # fmt: skip


def resample_torch_fornnunet(
    data: Array | torch.Tensor,
    new_shape: Sequence[int],
    current_spacing: Sequence[float],
    new_spacing: Sequence[float],
    is_seg: bool = False,
    num_threads: int = 4,
    device: torch.device = torch.device("cpu"),  # noqa: B008 - nnU-Net's own default
    memefficient_seg_resampling: bool = False,
    force_separate_z: bool | None = None,
    separate_z_anisotropy_threshold: float = ANISO_THRESHOLD,
    mode: str = "linear",
    aniso_axis_mode: str = "nearest-exact",
) -> Any:
    """Resample data as nnU-Net's function of this name does, which goes by torch's `interpolate`.

    Parameters
    ----------
    data, new_shape, current_spacing, new_spacing, force_separate_z, separate_z_anisotropy_threshold
        As for `resample_gpuresample`.
    is_seg, memefficient_seg_resampling, mode, aniso_axis_mode
        As nnU-Net's. Its own function does label maps, and modes other than "linear" and "nearest-exact".
    num_threads, device
        Used by nnU-Net's own function only.

    Returns
    -------
    ndarray or Tensor
        What nnU-Net's returns: of the kind of `data`, in float32 unless the shape stays.

    Raises
    ------
    ValueError
        For data that does not have four axes.
    """
    if data.ndim != 4:
        raise ValueError(f"data must have four axes (c, x, y, z), got shape {tuple(data.shape)}")
    separate, axis = default_resampling.determine_do_sep_z_and_axis(
        force_separate_z, current_spacing, new_spacing, separate_z_anisotropy_threshold
    )
    # Without slices apart, nnU-Net looks at neither mode.
    if is_seg or (separate and (mode != "linear" or aniso_axis_mode != "nearest-exact" or axis is None)):
        _warn("label maps by torch" if is_seg else f"mode={mode!r} and aniso_axis_mode={aniso_axis_mode!r} by torch")
        return _RESAMPLE_TORCH(
            data, new_shape, current_spacing, new_spacing, is_seg, num_threads, device, memefficient_seg_resampling,
            force_separate_z, separate_z_anisotropy_threshold, mode, aniso_axis_mode,
        )  # fmt: skip
    shape = sizes("new_shape", [int(n) for n in new_shape], 3)
    if tuple(data.shape[1:]) == shape:
        return data
    image = torch.from_numpy(data) if isinstance(data, np.ndarray) else data.detach()
    between = tuple(image.shape[1 + k] if separate and k == axis else shape[k] for k in range(3))
    out = interpolate(image.float()[None], between, mode="trilinear")
    if between != shape:
        out = interpolate(out, shape, mode=aniso_axis_mode)
    return out[0].numpy() if isinstance(data, np.ndarray) else out[0]


def _coordinates(n: int, m: int) -> npt.NDArray[np.float64]:
    """Where `m` samples lie on `n` voxels whose outer faces they share, in SciPy's order of operations."""
    return (np.arange(m, dtype=np.float64) + 0.5) * (n / m) - 0.5


@kept
def _plan(shape: tuple[int, ...], size: tuple[int, ...], order: int, source: str, target: str, device: str) -> Plan:
    f = FILTERS["nearest" if order == 0 else "linear" if order == 1 else f"bspline{order}"]
    x = tuple(_coordinates(n, m) for n, m in zip(shape[::-1], size[::-1], strict=True))
    precision = precision_of(np.dtype(source), np.dtype(target))
    work = sampled(AxisMap((0, 1, 2), x), Grid.of_size(shape[::-1]), f, "nearest", (None,) * 3, precision)
    return of_work(work, source, target, device=device)


def _sampled(array: Array, size: Sequence[int], order: int, dtype: npt.DTypeLike, device: str) -> Array:
    """The last three axes brought to `size`, outer faces aligned, the last voxel repeated past the border."""
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    plan = _plan(array.shape[-3:], tuple(size), order, array.dtype.name, np.dtype(dtype).name, device)
    return np.asarray(plan.run(array))


def _labels(channel: Array, size: Sequence[int], order: int, device: str) -> Array:
    """A label map on a new size: the largest indicator wins; the smaller label on ties, or the nearest voxel's."""
    nearest = _sampled(channel, size, 0, channel.dtype, device)
    if order == 0:
        return nearest
    best: Array | None = None
    for label in np.unique(channel):
        score = _sampled((channel == label).view(np.uint8), size, order, np.float64, device)
        if order > 1:
            np.clip(score, 0.0, 1.0, out=score)
        is_nearest = nearest == label
        if best is None:
            best, win, nearest_is_best = score, np.full(score.shape, label, channel.dtype), is_nearest
            continue
        better, level = score > best + TIE, np.abs(score - best) <= TIE
        win[better] = label
        nearest_is_best = np.where(better, is_nearest, nearest_is_best | (level & is_nearest))
        np.maximum(best, score, out=best)
    return np.where(nearest_is_best, nearest, win)


def _labels_along(channel: Array, size: Sequence[int], order: int, device: str) -> Array:
    """The same along the axis that is resampled on its own: nnU-Net gives it to the label of more than half."""
    if order == 0:
        return _sampled(channel, size, 0, channel.dtype, device)
    out = np.zeros(tuple(size), channel.dtype)
    for label in np.unique(channel):
        out[_sampled((channel == label).view(np.uint8), size, order, np.float64, device) > 0.5] = label
    return out


@lru_cache(maxsize=1)
def _largest_wins() -> bool:
    """Whether the installed batchgenerators gives voxels to the largest indicator; once it asked for half at least."""
    four = resize_segmentation(np.array([[1, 2], [3, 4]]), (1, 1), order=1)
    return int(four[0, 0]) != 0


# --- export ----------------------------------------------------------------------------------------------------------


def convert_predicted_logits_to_segmentation_with_correct_shape(
    predicted_logits: Array | torch.Tensor,
    plans_manager: Any,
    configuration_manager: Any,
    label_manager: Any,
    properties_dict: dict[str, Any],
    return_probabilities: bool = False,
    num_threads_torch: int = default_num_processes,
) -> Any:
    """Turn class scores into the label map on the original grid, as nnU-Net's function of this name does.

    `gpuresample.ensemble` interpolates and compares the scores block by block, so no class is ever resampled to full
    size. Where slices are resampled separately, nnU-Net repeats the scores of the nearest slice; here its labels are
    repeated, which gives the same result.

    Parameters
    ----------
    predicted_logits, plans_manager, configuration_manager, label_manager, properties_dict, return_probabilities
        As nnU-Net's.
    num_threads_torch : int
        Not used, unless nnU-Net's own function has to do it.

    Returns
    -------
    ndarray, or tuple of two
        The label map; with `return_probabilities`, the probabilities of the classes too.

    Warns
    -----
    RuntimeWarning
        If the plans ask for anything but linear interpolation of the scores. Then nnU-Net's own function does the work.
        The warning is given once for each reason.
    """
    settings = _linear_settings(configuration_manager)
    if settings is None:
        _warn("the plans do not interpolate scores linearly")
        return _CONVERT(
            predicted_logits, plans_manager, configuration_manager, label_manager, properties_dict,
            return_probabilities, num_threads_torch,
        )  # fmt: skip
    shape = tuple(int(n) for n in properties_dict["shape_after_cropping_and_before_resampling"])
    original = [properties_dict["spacing"][k] for k in plans_manager.transpose_forward]
    spacing = list(configuration_manager.spacing)
    spacing = spacing if len(spacing) == len(shape) else [original[0], *spacing]
    separate, axis = default_resampling.determine_do_sep_z_and_axis(settings[0], spacing, original, settings[1])
    given = tuple(predicted_logits.shape[1:])
    size = tuple(given[k] if separate and k == axis else shape[k] for k in range(3))
    keywords: dict[str, Any] = {"size": size, "anchor": "edge", "interpolation": "linear", "activation": "softmax"}
    if label_manager.has_regions:
        keywords |= {"activation": "sigmoid", "regions": list(label_manager.regions_class_order)}
    if return_probabilities:
        keywords.pop("regions", None)
        probabilities = np.asarray(ensemble([predicted_logits], output="probabilities", **keywords))
        if size != shape:
            probabilities = probabilities.take(_nearest(size[axis], shape[axis]), axis=1 + axis)
        labels = np.asarray(label_manager.convert_probabilities_to_segmentation(probabilities))
    else:
        labels = np.asarray(ensemble([predicted_logits], output="labels", **keywords))
        if size != shape:
            labels = labels.take(_nearest(size[axis], shape[axis]), axis=axis)
    box = properties_dict["bbox_used_for_cropping"]
    small = len(label_manager.foreground_labels) < 255
    whole = np.zeros(properties_dict["shape_before_cropping"], np.uint8 if small else np.uint16)
    whole[tuple(slice(int(lo), int(hi)) for lo, hi in box)] = labels
    whole = whole.transpose(plans_manager.transpose_backward)
    if not return_probabilities:
        return whole
    probabilities = label_manager.revert_cropping_on_probabilities(
        torch.from_numpy(probabilities), box, properties_dict["shape_before_cropping"]
    ).numpy()
    return whole, probabilities.transpose([0, *[k + 1 for k in plans_manager.transpose_backward]])


def _nearest(n: int, m: int) -> npt.NDArray[np.int64]:
    return np.clip(np.floor(_coordinates(n, m) + 0.5).astype(np.int64), 0, n - 1)


def _linear_settings(configuration_manager: Any) -> tuple[bool | None, float] | None:
    """What decides whether slices go on their own, of plans that interpolate scores linearly; None for others."""
    name = configuration_manager.configuration["resampling_fn_probabilities"]
    keywords = configuration_manager.configuration["resampling_fn_probabilities_kwargs"]
    threshold = keywords.get("separate_z_anisotropy_threshold", ANISO_THRESHOLD)
    if keywords.get("is_seg", False):
        return None
    if name in ("resample_data_or_seg_to_shape", "resample_gpuresample"):
        if keywords.get("order", 3) != 1 or keywords.get("order_z", 0) != 0:
            return None
        return keywords.get("force_separate_z", False), threshold
    if name == "resample_torch_fornnunet":
        if (keywords.get("mode", "linear"), keywords.get("aniso_axis_mode", "nearest-exact")) != (
            "linear",
            "nearest-exact",
        ):
            return None
        return keywords.get("force_separate_z"), threshold
    return None


def export_prediction_from_logits(*args: Any, **kwargs: Any) -> Any:
    """Do what nnU-Net's function of this name does, with the conversion of this module, in any process."""
    with install():
        return _EXPORT(*args, **kwargs)


def _warn(reason: str) -> None:
    warn_once(f"{reason}; nnU-Net's own function does it")


# --- installation ----------------------------------------------------------------------------------------------------


def install(*, defaults: bool = False, export: bool = True, augmentation: bool = False) -> Installation:
    """Let nnU-Net find and use gpuresample.

    Parameters
    ----------
    defaults : bool
        Replace `resample_data_or_seg_to_shape`, `resample_data_or_seg_to_spacing` and `resample_torch_fornnunet` too.
        Plans that name them then need no change; the first is nnU-Net's default. Configurations that have looked up
        their functions before keep what they found.
    export : bool
        Replace the functions that turn class scores into label files.
    augmentation : bool
        Put `gpuresample.batchgenerators.SpatialTransform` in the place of batchgeneratorsv2's, in nnU-Net's trainers
        and for trainers that are imported later. Transforms that were made before stay what they are.

    Returns
    -------
    Installation
        Its `revert()` undoes everything. It is also a context manager.
    """
    done = Installation("nnunetv2")
    # Where nnU-Net looks functions up by name.
    if not hasattr(default_resampling, "resample_gpuresample"):
        done.assign(default_resampling, "resample_gpuresample", resample_gpuresample)
    if defaults:
        done.replace(_RESAMPLE, resample_gpuresample)
        done.replace(_RESAMPLE_TO_SPACING, resample_data_or_seg_to_spacing)
        done.replace(_RESAMPLE_TORCH, resample_torch_fornnunet)
    if export:
        done.replace(_CONVERT, convert_predicted_logits_to_segmentation_with_correct_shape)
        done.replace(_EXPORT, export_prediction_from_logits)
    if augmentation:
        import nnunetv2.training.nnUNetTrainer.nnUNetTrainer  # noqa: F401 - so that it is there to be changed
        from batchgeneratorsv2.transforms.spatial import spatial

        from gpuresample.batchgenerators import SpatialTransform

        theirs = spatial.SpatialTransform
        if theirs is not SpatialTransform:
            done.assign(spatial, "SpatialTransform", SpatialTransform)
            done.replace(theirs, SpatialTransform)
    return done
