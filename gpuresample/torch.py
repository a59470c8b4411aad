"""`resample`, `gaussian`, `downsample`, `warp` and `sample` for torch tensors, on the CPU and on CUDA.

    from gpuresample.torch import resample, warp
    thin = resample(volume, size=(64, 128, 128), anchor="edge", interpolation="linear")  # (N, C, D, H, W)
    moved = warp(volume, displacement=flow)  # (N, 3, D, H, W), in voxels

They are differentiable. The gradient comes from the transposed table or gather, which the same engine runs: it is
exact, and has the same bits every time. Each call is one opaque operator to `torch.compile`.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    import torch
except ImportError as error:
    raise ImportError('gpuresample.torch needs PyTorch: pip install "gpuresample[torch]"') from error
from torch import Tensor, nn
from torch.autograd import forward_ad

from gpuresample import warps
from gpuresample.caching import kept
from gpuresample.checks import one_of, positive_numbers, sizes
from gpuresample.containers import ArrayContainer, is_meta_tensor
from gpuresample.containers.meta_tensors import plain
from gpuresample.ops.gaussian import gaussian_plan
from gpuresample.ops.resample import default_for
from gpuresample.ops.resample import plan as resampling_plan
from gpuresample.ops.shrink import downsample_plan
from gpuresample.ops.transforms import control_points
from gpuresample.planning import planner
from gpuresample.planning.filters import get_filter
from gpuresample.planning.grid import Grid, resized
from gpuresample.planning.taps import BOUNDARIES, CYCLIC, ENDLESS
from gpuresample.planning.torch_tables import interpolate_table
from gpuresample.planning.transforms import Nodes, Transform, route
from gpuresample.planning.works import Lattice, Separable
from gpuresample.plans import Plan, of_work, precision_of
from gpuresample.tensors import VOXELS, check_tensor, in_space, numpy_dtype, run_plan

# Positions in a row, where those that are given are a long line.
ROW = 1 << 10

__all__ = [
    "Downsample", "Gaussian", "Resample", "ResampleCollate", "SpatialTransformer", "downsample", "gaussian",
    "interpolate", "resample", "sample", "warp",
]  # fmt: skip


def resample(
    image: Tensor,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    input_spacing: float | Sequence[float] | None = None,
    transform: Any = None,
    interpolation: str | int = "bspline",
    anchor: str = "first",
    boundary: str | None = None,
    antialias: bool | float | Sequence[float] = False,
    default_value: float = 0,
    rounding: str = "nearest",
    clip: bool | Sequence[float] = False,
    scale: float = 1.0,
    offset: float = 0.0,
    ignore: float | None = None,
    dtype: torch.dtype | None = None,
    spatial_dims: int | None = None,
) -> Tensor:
    """Resample a tensor onto another voxel grid.

    Parameters
    ----------
    image : Tensor, shape (N, C, D, H, W), (C, D, H, W), (D, H, W) or (H, W)
        Integer, bool or float voxels, including float16 and bfloat16, on the CPU or a CUDA device, with any strides.
        The last three axes are space; in a tensor of two axes, both are.
    spacing, size, input_spacing : number or sequence, optional
        As for `gpuresample.resample`, in the order of the spatial axes. A MONAI MetaTensor has a spacing of its own; it
        comes back with the new affine, without a trace for MONAI's inverses.
    transform : optional
        As for `gpuresample.resample` beside a bare array: axis order, units of `input_spacing`. `warp` has transforms
        that are tensors.
    interpolation, anchor, boundary, antialias, default_value, rounding
        As for `gpuresample.resample`; `boundary="grid-constant"` is refused.
    clip, scale, offset, ignore
        As for `gpuresample.resample`; the range of `clip=True` is that of each volume. There is no gradient with them.
    dtype : torch.dtype, optional
        Type of the result; the image's unless given.
    spatial_dims : {2, 3}, optional
        How many of the last axes are space: 2 for a batch of pictures (N, C, H, W).

    Returns
    -------
    Tensor
        On the image's device. It is differentiable, also more than once, with respect to a float image.

    Raises
    ------
    ValueError, TypeError
        For arguments out of range, as `gpuresample.resample`; for a gradient of "label_linear" or "label_gaussian",
        which have none, or with `clip`, `scale`, `offset` or `ignore`.
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.

    Notes
    -----
    "nearest" with `anchor="edge"` and a `size` is torch's "nearest-exact": samples halfway between voxels go torch's
    way. Everywhere else they go as SimpleITK's do, which its round-off decides.

    float16, bfloat16 and float32 are summed in float32, float64 in float64. Autocast changes nothing: the result has
    the image's type. It works under `torch.compile` without a graph break, with a transform eagerly only, and under
    `vmap`. `torch.func.grad` does not work through custom operators.
    """
    dims = _spatial_dims(image, spatial_dims)
    if boundary == ENDLESS:
        one_of("boundary", boundary, (*BOUNDARIES, *CYCLIC))
    keywords = {
        "spacing": spacing, "size": size, "input_spacing": input_spacing, "interpolation": interpolation,
        "anchor": anchor, "boundary": boundary, "antialias": antialias, "default_value": default_value,
        "rounding": rounding, "clip": clip, "scale": scale, "offset": offset, "ignore": ignore,
    }  # fmt: skip
    if is_meta_tensor(image):
        keywords["input_spacing"] = _spacing_of(image, dims, input_spacing)
    if transform is not None:
        return _moved(image, transform, dims, _named(_name(dtype)) or image.dtype, keywords)
    return _applied(image, _recipe("resample", dims, _name(dtype), keywords))


def _spacing_of(image: Any, dims: int, input_spacing: Any) -> list[float]:
    """The spacing of a MetaTensor (channels first, or a batch of such), by its affine."""
    affine = np.asarray(image.affine.detach().cpu(), np.float64)
    batch = affine.ndim == 3
    if image.ndim not in (dims + 1, dims + 2) or affine.shape[-1] not in (dims + 1, 4):
        raise ValueError(
            f"image must be a MetaTensor (C, D, H, W) or a batch of such, of {dims} spatial axes, got shape "
            f"{tuple(image.shape)} and an affine of shape {affine.shape}; pass its as_tensor() to go without the affine"
        )
    spacing = np.sqrt((affine[..., :dims, :dims] ** 2).sum(axis=-2))
    own = spacing[0] if batch else spacing
    if not np.isfinite(own).all() or own.min() <= 0 or not np.allclose(spacing, own, rtol=1e-6):
        raise ValueError(f"image must have one spacing, larger than 0, for all of a batch, got {spacing.tolist()}")
    if input_spacing is not None:
        raise ValueError(
            f"input_spacing is for bare tensors; this MetaTensor has its own spacing {own.tolist()}, "
            f"got {input_spacing!r}"
        )
    return own.tolist()


def _placed(out: Tensor, image: Any, made: Plan, dims: int) -> Tensor:
    """A MetaTensor's affine on the output's grid; it has no trace by which MONAI could invert this."""
    result: Tensor = type(image)(
        out,
        affine=image.affine @ image.affine.new_tensor(_to_input(made, dims, image.affine.shape[-1])),
        meta={key: value for key, value in image.meta.items() if key != "affine"},
    )
    result.is_batch = image.is_batch
    return result


def _to_input(made: Plan, dims: int, rank: int) -> npt.NDArray[np.float64]:
    """From voxels of the output to the input's, in axis order, as a matrix of this many rows."""
    source, target = made.source, made.target
    matrix = np.eye(4)
    matrix[:3, :3] = (source.point_to_index @ target.index_to_point)[::-1, ::-1]
    matrix[:3, 3] = source.indices(target.points(np.zeros((1, 3))))[0, ::-1]
    axes = [*range(3 - dims, 4)]
    inner = np.eye(rank)
    kept = [*range(dims), -1]
    inner[np.ix_(kept, kept)] = matrix[np.ix_(axes, axes)]
    return inner


def _moved(image: Tensor, transform: Any, dims: int, dtype: torch.dtype, keywords: dict[str, Any]) -> Tensor:
    """`resample` with a transform."""
    if keywords["boundary"] in CYCLIC:
        raise ValueError(
            f"boundary must be one of {', '.join(map(repr, BOUNDARIES))} or None with a transform, whose gradient "
            f"knows no other; got {keywords['boundary']!r}"
        )
    shape = tuple(image.shape if dims == 3 else image.shape[-2:])
    stand_in = np.broadcast_to(np.zeros((), numpy_dtype(image.dtype)), shape)
    made = in_space(resampling_plan(stand_in, transform=transform, dtype=numpy_dtype(dtype), **keywords))
    _refuse_forward_mode(image)
    if image.requires_grad and torch.is_grad_enabled():
        _refuse_bounds(made)
    whole = plain(image) if is_meta_tensor(image) else image
    out = warps.run_along(made, whole if dims == 3 else whole.unsqueeze(-3), dtype)
    out = out if dims == 3 else out.squeeze(-3)
    return _placed(out, image, made, dims) if is_meta_tensor(image) else out


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Do what `torch.nn.functional.interpolate` does: the same arguments, the same numbers.

    Parameters
    ----------
    input : Tensor, shape (N, C, D, H, W) or (N, C, H, W)
        Float voxels; for the modes that copy voxels, integers too.
    size : int or sequence of int, optional
        Spatial size of the result. Give this or `scale_factor`.
    scale_factor : float or sequence of float, optional
        The size is `floor(size * scale_factor)`. As in torch, samples lie where the factor says, unless
        `recompute_scale_factor` asks for what the sizes say.
    mode : {"nearest", "nearest-exact", "trilinear", "bilinear", "area"}
        "trilinear" for volumes, "bilinear" for pictures. torch's "linear" and "bicubic" are refused.
    align_corners : bool, optional
        As torch's; for "trilinear" and "bilinear" only.
    recompute_scale_factor : bool, optional
        As torch's.
    antialias : bool
        As torch's, for "bilinear"; here for "trilinear" too: the same triangles, along all three axes.

    Returns
    -------
    Tensor
        Of the input's type, on its device. It is differentiable, also more than once.

    Raises
    ------
    ValueError, TypeError
        For arguments that torch refuses, and for modes that are not offered.
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.

    Notes
    -----
    Modes that copy give torch's voxels. The others lie within 3e-6 of the range for float32: torch computes weights
    in float32. float16 and bfloat16 are summed in float32.
    """
    check_tensor(input, "input")
    if input.ndim not in (4, 5):
        raise ValueError(f"input must have shape (N, C, D, H, W) or (N, C, H, W), got {tuple(input.shape)}")
    dims = input.ndim - 2
    linear = "trilinear" if dims == 3 else "bilinear"
    one_of("mode", mode, ("nearest", "nearest-exact", linear, "area"))
    if align_corners is not None and mode != linear:
        raise ValueError(f"align_corners is for mode={linear!r}, got mode={mode!r} and align_corners={align_corners!r}")
    if antialias and mode != linear:
        raise ValueError(f"antialias is for mode={linear!r}, got mode={mode!r}")
    if not input.dtype.is_floating_point and mode in (linear, "area"):
        raise TypeError(f"input must have float voxels for mode={mode!r}, got {input.dtype}")
    if (size is None) == (scale_factor is None):
        raise ValueError(f"give size or scale_factor, one of them, got size={size!r} and scale_factor={scale_factor!r}")
    n = tuple(int(k) for k in input.shape[2:])
    factors: list[float | None] = [None] * dims
    if scale_factor is None:
        if recompute_scale_factor:
            raise ValueError("recompute_scale_factor is for scale_factor, got it with size")
        whole = sizes("size", (size,) * dims if isinstance(size, int) else size, dims)
    else:
        given = positive_numbers("scale_factor", scale_factor, dims)
        wanted = [math.floor(float(k) * factor) for k, factor in zip(n, given, strict=True)]
        if min(wanted) < 1:
            raise ValueError(f"scale_factor must leave a voxel on every axis of {n}, got {scale_factor!r}")
        whole = sizes("scale_factor", wanted, dims)
        factors = [None] * dims if recompute_scale_factor else list(given)
    return _applied(input, _recipe("interpolate", dims, None, {
        "size": list(whole), "factors": factors, "mode": "linear" if mode == linear else mode,
        "align": bool(align_corners), "antialias": bool(antialias),
    }))  # fmt: skip


def gaussian(
    image: Tensor,
    sigma: float | Sequence[float],
    *,
    kind: str = "discrete",
    order: int | Sequence[int] = 0,
    truncate: float = 4.0,
    max_error: float = 1e-4,
    max_radius: int | None = None,
    boundary: str | None = None,
    input_spacing: float | Sequence[float] | None = None,
    rounding: str = "nearest",
    dtype: torch.dtype | None = None,
    spatial_dims: int | None = None,
) -> Tensor:
    """Blur a tensor with a Gaussian, or take its derivatives.

    Parameters
    ----------
    image, dtype, spatial_dims
        As for `resample`.
    sigma, kind, order, truncate, max_error, max_radius, boundary, input_spacing, rounding
        As for `gpuresample.gaussian`, in the order of the spatial axes.

    Returns
    -------
    Tensor
        Of the image's shape, on its device; differentiable.

    Raises
    ------
    ValueError, TypeError
        As `gpuresample.gaussian`.
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.
    """
    dims = _spatial_dims(image, spatial_dims)
    return _applied(image, _recipe("gaussian", dims, _name(dtype), {
        "sigma": sigma, "kind": kind, "order": order, "truncate": truncate, "max_error": max_error,
        "max_radius": max_radius, "boundary": boundary, "input_spacing": input_spacing, "rounding": rounding,
    }))  # fmt: skip


def downsample(
    image: Tensor,
    factors: int | Sequence[int],
    *,
    sigma: str | float | Sequence[float] = "auto",
    kind: str = "sampled",
    rounding: str = "nearest",
    dtype: torch.dtype | None = None,
    spatial_dims: int | None = None,
) -> Tensor:
    """Blur and subsample a tensor in one step.

    Parameters
    ----------
    image, dtype, spatial_dims
        As for `resample`.
    factors, sigma, kind, rounding
        As for `gpuresample.downsample`, in the order of the spatial axes.

    Returns
    -------
    Tensor
        On the image's device; differentiable.

    Raises
    ------
    ValueError, TypeError
        As `gpuresample.downsample`.
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.
    """
    dims = _spatial_dims(image, spatial_dims)
    return _applied(image, _recipe("downsample", dims, _name(dtype), {
        "factors": factors, "sigma": sigma, "kind": kind, "rounding": rounding,
    }))  # fmt: skip


def warp(
    volume: Tensor,
    matrix: Tensor | None = None,
    displacement: Tensor | None = None,
    coefficients: Tensor | None = None,
    *,
    size: Sequence[int] | None = None,
    order: int = 3,
    interpolation: str | int = "linear",
    boundary: str | None = None,
    default_value: float = 0,
    spatial_dims: int = 3,
) -> Tensor:
    """Sample volumes where a matrix, a displacement and a B-spline lead: differentiable in all of them.

    Voxel i of the output is taken from `matrix @ (i + displacement[i] + spline(i), 1)` on the volume. Everything is in
    voxels and in axis order: (z, y, x), or (y, x).

    Parameters
    ----------
    volume : Tensor, shape (N, C, D, H, W) or (C, D, H, W)
        On the CPU or a CUDA device; any strides. Of pictures (N, C, H, W) or (C, H, W). Float voxels where a gradient
        is asked for.
    matrix : Tensor, shape (N, 3, 4) or (3, 4), optional
        From the output's voxel indices to the volume's, the offset in the last column. Of pictures (N, 2, 3).
    displacement : Tensor, shape (N, 3, D, H, W) or (3, D, H, W), optional
        One vector for each voxel of the output, components z, y, x. A voxel whose vector is not finite takes
        `default_value`.
    coefficients : Tensor, shape (N, 3, L, M, K) or (3, L, M, K), optional
        Control points of a B-spline whose domain is the output from face to face: at least `order + 1` on every axis.
    size : sequence of int, optional
        Spatial size of the output; else the displacement's, else the volume's.
    order : {3, 2, 1}
        Of the B-spline.
    interpolation, boundary, default_value
        As for `resample`; `boundary=None` is SimpleITK's rule.
    spatial_dims : {3, 2}
        How many of the last axes are space.

    Returns
    -------
    Tensor, shape (N, C, *size) or (C, *size)
        Of the volume's type, also under autocast. Without N if nothing has one.

    Raises
    ------
    ValueError, TypeError
        For shapes and types that do not go together, and arguments out of range; for gradients of "nearest" and votes,
        which have none, and of "gaussian".
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used; for forward-mode differentiation (`torch.func.jvp`),
        which is not there.

    Notes
    -----
    Tensors without N, or with N = 1, serve all of a batch. The gradient by position is taken from the right on a voxel,
    as torch's is. It is 0 outside and where positions clamp: with "linear" beyond the centres of the outer voxels, for
    `boundary=None` and "nearest". Sums of float16, bfloat16 and float32 are made in float32; those of the gradient by a
    matrix in float64. On a GPU the CPU reads a matrix's numbers, and so waits for it. A gradient by the displacement
    takes memory of its size; so does one by the matrix or the coefficients, and a spline's displacement.

    A flow of voxelmorph is `displacement` as it is. `grid_sample(volume, grid, align_corners=True,
    padding_mode="border")` is `boundary="nearest"` at positions `(grid + 1) / 2 * (n - 1)`, x first; its "zeros" blends
    towards 0 over a voxel beyond the border, which no boundary here does.
    """
    images, m, field, shape, single = _warp_arguments(
        # The output has no affine that follows from the input's.
        plain(volume, "volume") if is_meta_tensor(volume) else volume,
        matrix,
        displacement,
        coefficients,
        size,
        order,
        spatial_dims,
    )
    how, default = _how(interpolation, boundary), _outside(default_value, volume.dtype)
    out = warps.pull(images, m, field, how, shape, [0, 0, 0], default)
    out = out if spatial_dims == 3 else out.squeeze(2)
    return out.squeeze(0) if single else out


def sample(
    volume: Tensor,
    coordinates: Tensor,
    *,
    interpolation: str | int = "linear",
    boundary: str | None = None,
    default_value: float = 0,
    spatial_dims: int = 3,
) -> Tensor:
    """Sample volumes at positions that are given: differentiable in both.

    Parameters
    ----------
    volume : Tensor, shape (N, C, D, H, W) or (C, D, H, W)
        On the CPU or a CUDA device; any strides. Of pictures (N, C, H, W) or (C, H, W). Float voxels where a gradient
        is asked for.
    coordinates : Tensor, float32 or float64, shape (N, 3, ...) or (3, ...)
        Positions in voxels: 0 is the centre of an axis' first voxel, 1 that of the next. Components z, y, x, in axis
        order; of pictures y, x. It has N where the volume has, or 1 in its place; any number of axes may follow. They
        are used as float64. A position that is not finite takes `default_value`.
    interpolation, boundary, default_value
        As for `resample`; `boundary=None` is SimpleITK's rule.
    spatial_dims : {3, 2}
        How many of the volume's last axes are space.

    Returns
    -------
    Tensor, shape (N, C, ...) or (C, ...)
        Of the volume's type, also under autocast; the last axes are those of `coordinates`.

    Raises
    ------
    ValueError, TypeError
        For shapes, types and devices that do not go together, and arguments out of range; for gradients of "nearest"
        and votes, which have none, and of "gaussian".
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used; for forward-mode differentiation (`torch.func.jvp`),
        which is not there.

    Notes
    -----
    Gradients are those of `warp`, by position too. `sample(volume[None], at, boundary=mode)[0]` is
    `scipy.ndimage.map_coordinates(volume, at, order=1, mode=mode)` for the modes "constant", "mirror", "reflect" and
    "nearest". Splines, "bspline2" to "bspline5", are its orders 2 to 5 for the first two; with "reflect" on axes of
    more than 24 voxels, since SciPy's coefficients of shorter ones are others. As `grid_sample` with
    `align_corners=True` and `padding_mode="border"` it is `boundary="nearest"` at `(grid + 1) / 2 * (n - 1)`.
    """
    images, at, single = _sample_arguments(
        plain(volume, "volume") if is_meta_tensor(volume) else volume, coordinates, spatial_dims
    )
    how, default = _how(interpolation, boundary, True), _outside(default_value, volume.dtype)
    shape = tuple(at.shape[2:])
    if 0 in at.shape or 0 in images.shape[:2]:
        # Nothing hangs on either, and gradients are zeros.
        none = (images[:0].sum() + at[:0].sum()).to(images.dtype)
        out = none.expand(*images.shape[:2], *shape)
    else:
        parts = _in_rows(at)
        found = [warps.pull(images, None, part, how, list(part.shape[2:]), [0, 0, 0], default) for part in parts]
        flat = found[0] if len(found) == 1 else torch.cat([part.flatten(2) for part in found], 2)
        out = flat.reshape(*images.shape[:2], *shape)
    return out.squeeze(0) if single else out


def _sample_arguments(volume: Any, coordinates: Any, dims: int) -> tuple[Tensor, Tensor, bool]:
    """Volumes (N, C, D, H, W), positions (N or 1, 3, ...), and whether N was missing."""
    _check_volume(volume, dims)
    check_tensor(coordinates, "coordinates")
    if coordinates.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"coordinates must be a tensor of float32 or float64, got {coordinates.dtype}")
    if coordinates.device != volume.device:
        raise ValueError(f"coordinates must be on the volume's device {volume.device}, got {coordinates.device}")
    single, shape = volume.ndim == dims + 1, tuple(coordinates.shape)
    lead = 0 if single else 1
    if len(shape) < lead + 2 or shape[lead] != dims:
        wanted = f"({dims}, ...)" if single else f"(N, {dims}, ...)"
        raise ValueError(
            f"coordinates must have shape {wanted}, one or more axes behind, beside a volume of {volume.ndim} axes, "
            f"got {shape}"
        )
    for tensor in (volume, coordinates):
        _refuse_forward_mode(tensor)
    images, at = (volume[None], coordinates[None]) if single else (volume, coordinates)
    images = _of_batch({"volume": images, "coordinates": at})
    if dims == 2:  # a third axis in front, on which all lie at 0
        images, at = images.unsqueeze(2), torch.cat([torch.zeros_like(at[:, :1]), at], 1)
    return images, at, single


def _check_volume(volume: Any, dims: int) -> None:
    check_tensor(volume, "volume")
    if dims not in (2, 3):
        raise ValueError(f"spatial_dims must be 2 or 3, got {dims!r}")
    if volume.ndim not in (dims + 1, dims + 2):
        raise ValueError(
            f"volume must have {dims + 1} or {dims + 2} axes, channels included, got {tuple(volume.shape)}"
        )
    _check_filled("volume", volume, dims)


def _of_batch(given: Mapping[str, Tensor]) -> Tensor:
    """The volumes, as many as the batch has members; each of what was given has as many, or one."""
    counts = [value.shape[0] for value in given.values()]
    n = 0 if 0 in counts else max(counts)  # what has one member serves any number of them, and none
    for name, value in given.items():
        if value.shape[0] not in (1, n):
            raise ValueError(f"{name} must have 1 or {n} members, as the rest of the batch, got {value.shape[0]}")
    images = given["volume"]
    return images.expand(n, *images.shape[1:])


def _check_filled(name: str, tensor: Tensor, axes: int) -> None:
    """Refuse a tensor whose last axes hold nothing; a batch may be empty."""
    if 0 in tensor.shape[-axes:]:
        raise ValueError(f"{name} must not be empty, got shape {tuple(tensor.shape)}")


def _in_rows(at: Tensor) -> list[Tensor]:
    """Positions (N, 3, ...) as (N, 3, z, y, x), in rows that threads can share."""
    if at.ndim in (4, 5) and at.shape[-1] <= ROW:
        return [at if at.ndim == 5 else at.unsqueeze(2)]
    line = at.flatten(2)
    n = line.shape[2]
    whole = n // ROW * ROW
    parts = [line[:, :, :whole].unflatten(2, (1, -1, ROW))] if whole else []
    return parts if whole == n else [*parts, line[:, :, None, None, whole:]]


@torch.compiler.assume_constant_result
def _how(interpolation: str | int, boundary: str | None, given: bool = False) -> str:
    if boundary is not None:
        one_of("boundary", boundary, BOUNDARIES)
    return warps.recipe(interpolation, boundary, given)


@torch.compiler.assume_constant_result
def _outside(default_value: Any, dtype: torch.dtype) -> float:
    return float(default_for(default_value, numpy_dtype(dtype)))


def _warp_arguments(
    volume: Any, matrix: Any, displacement: Any, coefficients: Any, size: Any, order: int, dims: int
) -> tuple[Tensor, Tensor | None, Tensor | None, list[int], bool]:
    """Volumes (N, C, D, H, W), matrices and fields of as many or one, the output's size, and whether N was missing."""
    _check_volume(volume, dims)
    names = {"matrix": matrix, "displacement": displacement, "coefficients": coefficients}
    given = {name: value for name, value in names.items() if value is not None}
    if not given:
        raise ValueError("warp needs a matrix, a displacement or coefficients, got none of them")
    for name, value in given.items():
        check_tensor(value, name)
        if not value.dtype.is_floating_point:
            raise TypeError(f"{name} must be a float tensor, got {value.dtype}")
        if value.device != volume.device:
            raise ValueError(f"{name} must be on the volume's device {volume.device}, got {value.device}")
        axes = 2 if name == "matrix" else dims + 1
        shape = tuple(value.shape)
        fits = shape[-2:] == (dims, dims + 1) if name == "matrix" else shape[-axes:][:1] == (dims,)
        if value.ndim not in (axes, axes + 1) or not fits:
            wanted = f"{dims}, {dims + 1}" if name == "matrix" else f"{dims}, " + ("z, y, x" if dims == 3 else "y, x")
            raise ValueError(f"{name} must have shape ({wanted}) or (N, {wanted}), got {shape}")
        _check_filled(name, value, axes - 1)
        given[name] = value if value.ndim == axes + 1 else value[None]
    for tensor in (volume, *given.values()):
        _refuse_forward_mode(tensor)
    single = volume.ndim == dims + 1 and all(names[name].ndim == value.ndim - 1 for name, value in given.items())
    images = volume if volume.ndim == dims + 2 else volume[None]
    images = _of_batch({"volume": images, **given})
    field = given.get("displacement")
    if size is None:
        inside = tuple(images.shape[2:] if field is None else field.shape[2:])
    else:
        inside = sizes("size", size, dims)
    if field is not None and tuple(field.shape[2:]) != inside:
        raise ValueError(f"displacement must have the output's size {inside}, got {tuple(field.shape[2:])}")
    if "coefficients" in given:
        spline = _expanded(given["coefficients"], inside, order, dims)
        field = spline if field is None else field + spline
    m = given.get("matrix")
    if dims == 2:
        images = images.unsqueeze(2)
        # A third axis in front, which stays as it is.
        field = None if field is None else nn.functional.pad(field.unsqueeze(2), (0,) * 6 + (1, 0))
        if m is not None:
            still = m.new_zeros((1, 3, 4))
            still[0, 0, 0] = 1
            m = nn.functional.pad(m, (1, 0, 1, 0)) + still
    return images, m, field, [1] * (3 - dims) + [int(k) for k in inside], single


def _expanded(coefficients: Tensor, size: tuple[int, ...], order: int, dims: int) -> Tensor:
    """A B-spline's displacement of every voxel."""
    if order not in (1, 2, 3):
        raise ValueError(f"order must be 1, 2 or 3, got {order!r}")
    points = tuple(coefficients.shape[2:])
    if min(points) < order + 1:
        raise ValueError(
            f"coefficients must have at least {order + 1} control points on every axis for order {order}, got {points}"
        )
    return _run(coefficients, _recipe("spline", dims, None, {"size": list(size), "order": order}))


def _refuse_forward_mode(tensor: Tensor) -> None:
    """Forward-mode derivatives do not reach into operators: what comes out would have none, without a word."""
    if torch.compiler.is_compiling():
        return
    _refuse_nested_forward_mode()
    if forward_ad.unpack_dual(tensor).tangent is not None:
        raise RuntimeError(
            "there is no forward-mode derivative (torch.func.jvp, jacfwd, dual numbers); torch.autograd.grad and "
            "torch.autograd.functional.jacobian go backward"
        )


def _refuse_nested_forward_mode() -> None:
    """Within one `torch.func.jvp` the tangents of another around it are out of sight, and would be lost."""
    levels = torch._C._functorch.get_interpreter_stack() or []
    if sum(level.key() == torch._C._functorch.TransformType.Jvp for level in levels) > 1:
        raise RuntimeError(
            "there is no forward-mode derivative of a forward-mode derivative (torch.func.jvp in jvp, jacfwd of "
            "jacfwd); torch.autograd.functional.hessian goes backward twice"
        )


def _spatial_dims(image: Any, spatial_dims: int | None) -> int:
    check_tensor(image)
    if spatial_dims not in (None, 2, 3):
        raise ValueError(f"spatial_dims must be 2, 3 or None, got {spatial_dims!r}")
    dims = min(image.ndim, 3) if spatial_dims is None else spatial_dims
    if dims < 2 or image.ndim < dims:
        raise ValueError(f"image must have at least {max(dims, 2)} axes, got shape {tuple(image.shape)}")
    return dims


def _name(dtype: Any) -> str | None:
    if dtype is not None and dtype not in VOXELS:
        raise TypeError(f"dtype must be a torch integer or float type of up to 64 bits, got {dtype!r}")
    return None if dtype is None else str(dtype)


@torch.compiler.assume_constant_result
def _recipe(what: str, dims: int, dtype: str | None, keywords: dict[str, Any]) -> str:
    """What is asked for, as the text that an opaque operator can take along."""
    return json.dumps([what, dims, dtype, keywords], default=_plain)


def _plain(value: Any) -> Any:
    """Numbers and sequences of other libraries as Python's own."""
    if isinstance(value, (np.ndarray, np.generic, Tensor)):
        return value.tolist()
    raise TypeError(f"arguments must be numbers, words or sequences of them, got {value!r}")


# --- operators -----------------------------------------------------------------------------------------------------


@kept
def _plan(recipe: str, shape: tuple[int, ...], dtype: torch.dtype) -> Plan:
    """The plan of a recipe for images of this spatial shape."""
    what, _, output, keywords = json.loads(recipe)
    source = numpy_dtype(dtype)
    target = numpy_dtype(_named(output) or dtype)
    if what == "resample":
        # Planning looks at shape and type alone: an array of one voxel that claims to be whole.
        image = np.broadcast_to(np.zeros((), source), shape)
        made = in_space(resampling_plan(image, dtype=target, **keywords))
        return _torchs_nearest(made) if _is_torchs_nearest(keywords) else made
    if what == "interpolate":
        return _interpolate_plan(shape, keywords, source)
    if what == "spline":
        return _spline_plan(shape, tuple(keywords["size"]), keywords["order"], source)
    container = ArrayContainer.of_shape(shape, keywords.pop("input_spacing", None), source)
    make: Callable[..., Plan] = gaussian_plan if what == "gaussian" else downsample_plan
    return in_space(make(container, dtype=target, **keywords))


def _is_torchs_nearest(keywords: dict[str, Any]) -> bool:
    """Whether a request for `resample` is what torch calls "nearest-exact"."""
    return (
        get_filter(keywords.get("interpolation", "bspline")).name == "nearest"
        and keywords.get("anchor") == "edge"
        and keywords.get("size") is not None
        and keywords.get("spacing") is None
    )


def _torchs_nearest(made: Plan) -> Plan:
    """A plan whose samples halfway between voxels go torch's way: its float32 decides, not the round-off of a grid."""
    sizes_of = zip(made.input_shape, made.output_shape, strict=True)
    tables = [interpolate_table(n, m, "nearest-exact", False, np.float32) for n, m in sizes_of]
    return replace(made, work=planner.along_axes(tables, precision_of(made.input_dtype, made.dtype)))


def _interpolate_plan(shape: tuple[int, ...], keywords: dict[str, Any], dtype: np.dtype[Any]) -> Plan:
    """The plan of `interpolate`; the factors are None, or one for each axis."""
    mode, align, antialias = keywords["mode"], keywords["align"], keywords["antialias"]
    kind = np.float64 if dtype == np.float64 else np.float32
    axes = zip(shape, keywords["size"], keywords["factors"], strict=True)
    flat = len(shape) == 2
    tables = [interpolate_table(n, m, mode, align, kind, scale, antialias, flat) for n, m, scale in axes]
    made = of_work(planner.along_axes(tables, precision_of(dtype, dtype)), dtype, dtype)
    size = made.output_shape[::-1]
    if align:
        return replace(made, target=resized(made.source, None, size, "center"))
    steps = [1.0] * (3 - len(shape)) + [
        n / m if scale is None or mode == "area" else 1.0 / scale
        for n, m, scale in zip(shape, keywords["size"], keywords["factors"], strict=True)
    ]
    first = [(step - 1.0) / 2.0 for step in steps]
    return replace(made, target=Grid(size, tuple(steps[::-1]), tuple(first[::-1]), made.source.direction))


def _spline_plan(points: tuple[int, ...], size: tuple[int, ...], order: int, dtype: np.dtype[Any]) -> Plan:
    """From control points, of a spline over the whole output, to every voxel: in units of voxels."""
    target = Grid.of_size(size[::-1])
    grid = control_points(target, points[::-1], order)
    nodes = Nodes(np.broadcast_to(np.zeros((), dtype), (*points, len(points))), grid, "spline", order)
    stage = route(target, target, Transform(len(points), (nodes,))).stages[0]
    assert isinstance(stage, Lattice)
    assert stage.table is not None
    return of_work(replace(stage.table, precision=precision_of(dtype, dtype)), dtype, dtype)


@kept
def _adjoint_plan(recipe: str, shape: tuple[int, ...], dtype: torch.dtype) -> Plan:
    """The way back: from gradients of the result to gradients of images of this spatial shape and type."""
    plan = _plan(recipe, shape, dtype)
    assert isinstance(plan.work, Separable)
    return of_work(planner.adjoint(plan.work), plan.dtype, plan.input_dtype)


def _named(dtype: str | None) -> torch.dtype | None:
    return None if dtype is None else getattr(torch, dtype.removeprefix("torch."))


@lru_cache(maxsize=256)
def _head(recipe: str) -> tuple[int, torch.dtype | None]:
    """A recipe's spatial axes, and its type of voxels if it names one."""
    _, dims, dtype, _ = json.loads(recipe)
    return dims, _named(dtype)


def _dims(recipe: str) -> int:
    return _head(recipe)[0]


def _output(recipe: str, image: torch.dtype) -> torch.dtype:
    return _head(recipe)[1] or image


def _whole(shape: Sequence[int]) -> tuple[int, ...]:
    """Sizes as numbers; a traced one is pinned to what it is here."""
    return tuple(int(n) for n in shape)


@torch.library.custom_op("gpuresample::run", mutates_args=())
def _run(image: Tensor, recipe: str) -> Tensor:
    """A recipe applied to an image."""
    dims = _dims(recipe)
    plan = _plan(recipe, _whole(image.shape[-dims:]), image.dtype)
    out = run_plan(plan, image if dims == 3 else image.unsqueeze(-3), _output(recipe, image.dtype))
    return out if dims == 3 else out.squeeze(-3)


@torch.library.custom_op("gpuresample::run_adjoint", mutates_args=())
def _run_adjoint(grad: Tensor, recipe: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    """The adjoint of a recipe, applied to the gradient of its result; `shape` is the image's spatial shape."""
    dims = _dims(recipe)
    plan = _adjoint_plan(recipe, _whole(shape), dtype)
    out = run_plan(plan, grad if dims == 3 else grad.unsqueeze(-3), dtype)
    return out if dims == 3 else out.squeeze(-3)


@_run.register_fake
def _(image: Tensor, recipe: str) -> Tensor:
    dims = _dims(recipe)
    plan = _plan(recipe, _whole(image.shape[-dims:]), image.dtype)
    shape = (*image.shape[:-dims], *plan.output_shape[-dims:])
    return image.new_empty(shape, dtype=_output(recipe, image.dtype))


@_run_adjoint.register_fake
def _(grad: Tensor, recipe: str, shape: list[int], dtype: torch.dtype) -> Tensor:
    return grad.new_empty((*grad.shape[: -_dims(recipe)], *shape), dtype=dtype)


def _keep_for_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    image, ctx.recipe = inputs
    ctx.shape, ctx.dtype = list(image.shape[-_dims(ctx.recipe) :]), image.dtype
    _refuse_votes(_plan(ctx.recipe, _whole(ctx.shape), ctx.dtype), ctx.recipe)


def _refuse_votes(plan: Plan, recipe: str) -> None:
    """Refuse derivatives of what is no sum."""
    _refuse_bounds(plan)
    if not isinstance(plan.work, Separable):
        word = json.loads(recipe)[3]["interpolation"]
        raise ValueError(
            f"interpolation={word!r} is a vote among labels and has no gradient; use another or image.detach()"
        )


def _refuse_bounds(plan: Plan) -> None:
    """Refuse derivatives of sums that are clipped or scaled, or leave out voxels."""
    if plan.clip or plan.ignore is not None or plan.store.window is not None:
        raise ValueError(
            "clip, scale, offset and ignore have no gradient; use image.detach(), or torch.clamp and arithmetic on the "
            "result in place of the first three"
        )


def _gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    return _run_adjoint(grad, ctx.recipe, ctx.shape, ctx.dtype), None


def _keep_for_second_gradient(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, ctx.recipe, _, _ = inputs


def _second_gradient(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    return _run(grad, _linear(ctx.recipe)), None, None, None


def _linear(recipe: str) -> str:
    """The linear part of a recipe alone: what lies outside has no derivative, whatever its default value."""
    what, dims, dtype, keywords = json.loads(recipe)
    if what == "resample":
        keywords["default_value"] = 0
    return json.dumps([what, dims, dtype, keywords])


def _applied(image: Tensor, recipe: str) -> Tensor:
    """A recipe applied to an image, and to its tangent where there is one (`torch.func.jvp`, dual tensors).

    An operator of torch's has no derivative forward: it would drop tangents, and nobody would know.
    """
    if is_meta_tensor(image):
        dims = _dims(recipe)
        made = _plan(recipe, _whole(image.shape[-dims:]), image.dtype)
        return _placed(_applied(plain(image), recipe), image, made, dims)
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return _run(image, recipe)
    _refuse_nested_forward_mode()
    primal, tangent = forward_ad.unpack_dual(image)
    if tangent is None:
        return _run(image, recipe)
    if not tangent.is_floating_point() or not _output(recipe, image.dtype).is_floating_point:
        raise TypeError("image must have floats, and so must the result, for a derivative in forward mode")
    dims = _dims(recipe)
    _refuse_votes(_plan(recipe, _whole(image.shape[-dims:]), image.dtype), recipe)
    return forward_ad.make_dual(_applied(primal, recipe), _applied(tangent, _linear(recipe)))


def _over_batch(info: Any, in_dims: Any, image: Tensor, recipe: str) -> tuple[Tensor, int]:
    return _run(image.movedim(in_dims[0], 0), recipe), 0


def _adjoint_over_batch(
    info: Any, in_dims: Any, grad: Tensor, recipe: str, shape: list[int], dtype: torch.dtype
) -> tuple[Tensor, int]:
    return _run_adjoint(grad.movedim(in_dims[0], 0), recipe, shape, dtype), 0


_run.register_autograd(_gradient, setup_context=_keep_for_gradient)
_run_adjoint.register_autograd(_second_gradient, setup_context=_keep_for_second_gradient)
# Leading axes are a batch already: one more is one more.
_run.register_vmap(_over_batch)
_run_adjoint.register_vmap(_adjoint_over_batch)


# --- modules -------------------------------------------------------------------------------------------------------


class _Fixed(nn.Module):
    """A function of this module with its keywords fixed."""

    _function: Callable[..., Tensor]

    def __init__(self, **keywords: Any) -> None:
        super().__init__()
        # A misspelt keyword is refused here, not at the first image.
        inspect.signature(type(self)._function).bind(None, **keywords)
        self.keywords = keywords

    def forward(self, image: Tensor) -> Tensor:
        """The image, resampled or blurred."""
        return type(self)._function(image, **self.keywords)

    def extra_repr(self) -> str:
        """The keywords, as they were given."""
        return ", ".join(f"{name}={value!r}" for name, value in self.keywords.items())


class Resample(_Fixed):
    """`resample` as a module. The constructor takes its keywords."""

    _function = staticmethod(resample)


class Gaussian(_Fixed):
    """`gaussian` as a module. The constructor takes its keywords."""

    _function = staticmethod(gaussian)

    def __init__(self, sigma: float | Sequence[float], **keywords: Any) -> None:
        super().__init__(sigma=sigma, **keywords)


class SpatialTransformer(_Fixed):
    """`warp` as the last layer of a registration network: `layer(moving, flow)`.

    Its keywords are `warp`'s: `interpolation`, `boundary`, `default_value`, `size`, `order`, `spatial_dims`.
    """

    _function = staticmethod(warp)

    def forward(
        self, image: Tensor, displacement: Tensor | None = None, *, matrix: Tensor | None = None,
        coefficients: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """The volume, moved by a displacement, a matrix or a B-spline; see `warp`."""
        return warp(image, matrix, displacement, coefficients, **self.keywords)


class Downsample(_Fixed):
    """`downsample` as a module. The constructor takes its keywords."""

    _function = staticmethod(downsample)

    def __init__(self, factors: int | Sequence[int], **keywords: Any) -> None:
        super().__init__(factors=factors, **keywords)


# --- loaders -------------------------------------------------------------------------------------------------------


class ResampleCollate:
    """A `collate_fn` that brings volumes of different sizes onto one grid. It writes into the batch's memory.

    Parameters
    ----------
    size : sequence of int
        Spatial size of the batch.
    labels : sequence of str or int
        Which parts of a sample are label maps: keys, if samples are mappings, or positions, if they are tuples. They,
        and all volumes within them, are resampled by "nearest". TorchIO's label maps are known by their type.
    spatial_dims : {2, 3}
        Tensors and NumPy arrays with one more axis are volumes (channels first), in mappings and tuples within a sample
        too. torch's default collates everything else in a sample. MetaTensors become a MetaTensor; its affines, and
        those of TorchIO's images, are those of the new grid.
    interpolation, anchor, boundary, antialias, default_value
        For everything except labels, as for `resample`.

    Raises
    ------
    ValueError, TypeError
        If channels or types differ within a batch, if what `labels` names is no volume, and for arguments that
        `resample` refuses.

    Examples
    --------
    >>> loader = DataLoader(dataset, batch_size=4, collate_fn=ResampleCollate((64, 64, 64), labels=["seg"]))
    """

    def __init__(
        self,
        size: Sequence[int],
        *,
        labels: Sequence[str | int] = (),
        spatial_dims: int = 3,
        interpolation: str | int = "linear",
        anchor: str = "edge",
        boundary: str | None = None,
        antialias: bool | float | Sequence[float] = False,
        default_value: float = 0,
    ) -> None:
        if spatial_dims not in (2, 3):
            raise ValueError(f"spatial_dims must be 2 or 3, got {spatial_dims!r}")
        if isinstance(labels, (str, bytes)) or not isinstance(labels, Sequence):
            raise TypeError(f"labels must be a sequence of keys or positions, got {labels!r}")
        self.size, self.labels, self.spatial_dims = tuple(size), tuple(labels), spatial_dims
        grid = {"size": self.size, "anchor": anchor, "boundary": boundary, "default_value": default_value}
        image = {**grid, "interpolation": interpolation, "antialias": antialias}
        self._image = _recipe("resample", spatial_dims, None, image)
        self._label = _recipe("resample", spatial_dims, None, {**grid, "interpolation": "nearest"})
        # Refused here, not in a worker's first batch.
        _plan(self._image, (2,) * spatial_dims, torch.float32)

    def __call__(self, batch: Sequence[Any]) -> Any:
        """The batch of a list of samples: tensors, mappings or tuples of them."""
        return self._collated(batch, False)

    def _collated(self, batch: Sequence[Any], label: bool) -> Any:
        first = batch[0]
        if isinstance(first, Mapping):
            if _is_torchio_image(first):
                return self._torchio_image(batch, label)
            return {key: self._field([sample[key] for sample in batch], key, label) for key in first}
        if isinstance(first, (tuple, list)):
            fields = [self._field(list(field), k, label) for k, field in enumerate(zip(*batch, strict=True))]
            return type(first)(*fields) if hasattr(first, "_fields") else type(first)(fields)
        return self._field(list(batch), None, label)

    def _torchio_image(self, images: Sequence[Any], label: bool) -> dict[str, Any]:
        """TorchIO's images, which hold their voxels (channel, x, y, z) and an affine."""
        label = label or images[0].get("type") == "label"
        out = {key: self._field([image[key] for image in images], key, label) for key in images[0]}
        if self._is_volume(images[0]["data"]):
            steps = [self._plan(image["data"], label) for image in images]
            affines = [
                np.asarray(image["affine"]) @ _to_input(step, 3, 4) for image, step in zip(images, steps, strict=True)
            ]
            out["affine"] = torch.from_numpy(np.stack(affines))
        return out

    def _is_volume(self, value: Any) -> bool:
        return isinstance(value, (Tensor, np.ndarray)) and value.ndim == self.spatial_dims + 1

    def _holds_volumes(self, value: Any) -> bool:
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
        return any(self._is_volume(part) or self._holds_volumes(part) for part in parts)

    def _plan(self, volume: Any, label: bool) -> Plan:
        return _plan(self._label if label else self._image, _whole(volume.shape[1:]), volume.dtype)

    def _field(self, values: list[Any], key: Any, label: bool) -> Any:
        named = key is not None and key in self.labels
        if not self._is_volume(values[0]):
            if self._holds_volumes(values[0]):
                return self._collated(values, label or named)
            if named and not label:
                got = f"shape {tuple(values[0].shape)}" if hasattr(values[0], "shape") else type(values[0]).__name__
                raise ValueError(
                    f"labels names {key!r}, which must be a volume of {self.spatial_dims + 1} axes, channels first, "
                    f"got {got}"
                )
            return torch.utils.data.default_collate(values)
        values = [_tensor(value) for value in values]
        first = values[0]
        for value in values:
            check_tensor(value, f"sample[{key!r}]" if key is not None else "sample")
            if value.ndim != first.ndim or value.shape[0] != first.shape[0] or value.dtype != first.dtype:
                raise ValueError(
                    f"volumes of a batch must have the same channels and type, got {tuple(first.shape)} {first.dtype} "
                    f"and {tuple(value.shape)} {value.dtype}"
                )
        plans = [self._plan(value, label or named) for value in values]
        out = torch.empty((len(values), first.shape[0], *self.size), dtype=first.dtype, device=first.device)
        for value, made, place in zip(values, plans, out, strict=True):
            if is_meta_tensor(value):
                value = plain(value)  # noqa: PLW2901
            if self.spatial_dims == 2:
                value, place = value.unsqueeze(-3), place.unsqueeze(-3)  # noqa: PLW2901
            run_plan(made, value, value.dtype, place)
        if not all(is_meta_tensor(value) for value in values):
            return out
        return _batch_of_meta_tensors(out, values, plans, self.spatial_dims)


def _is_torchio_image(value: Mapping[Any, Any]) -> bool:
    return isinstance(value, getattr(sys.modules.get("torchio"), "Image", ()))


def _batch_of_meta_tensors(out: Tensor, values: Sequence[Any], plans: Sequence[Plan], dims: int) -> Tensor:
    """What MONAI's `list_data_collate` makes of MetaTensors, on the grids of these plans."""
    placed = [_placed(o, value, made, dims) for o, value, made in zip(out, values, plans, strict=True)]
    shared = set.intersection(*[set(value.meta) for value in values]) - {"affine"}
    batch: Tensor = type(values[0])(
        out,
        affine=torch.stack([value.affine for value in placed]),
        meta=torch.utils.data.default_collate([{key: value.meta[key] for key in shared} for value in values]),
    )
    batch.is_batch = True
    return batch


def _tensor(value: Any) -> Any:
    """A NumPy array as a tensor, in a layout that torch takes; everything else as it is."""
    if not isinstance(value, np.ndarray):
        return value
    return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
