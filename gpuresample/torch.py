"""`resample`, `gaussian` and `downsample` for torch tensors, on the CPU and on CUDA.

    from gpuresample.torch import resample
    thin = resample(volume, size=(64, 128, 128), anchor="edge", interpolation="linear")  # (N, C, D, H, W)

They are differentiable. The gradient comes from the transposed table, which the same engine runs: it is exact, and has
the same bits every time. Each call is one opaque operator to `torch.compile`.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

try:
    import torch
except ImportError as error:
    raise ImportError('gpuresample.torch needs PyTorch: pip install "gpuresample[torch]"') from error
from torch import Tensor, nn
from torch.autograd import forward_ad

from gpuresample.caching import kept
from gpuresample.containers import ArrayContainer
from gpuresample.ops.gaussian import gaussian_plan
from gpuresample.ops.resample import plan as resampling_plan
from gpuresample.ops.shrink import downsample_plan
from gpuresample.planning import planner
from gpuresample.planning.works import Separable
from gpuresample.plans import Plan, of_work
from gpuresample.tensors import VOXELS, check_tensor, in_space, numpy_dtype, run_plan

__all__ = ["Downsample", "Gaussian", "Resample", "ResampleCollate", "downsample", "gaussian", "resample"]


def resample(
    image: Tensor,
    *,
    spacing: float | Sequence[float] | None = None,
    size: Sequence[int] | None = None,
    input_spacing: float | Sequence[float] | None = None,
    interpolation: str | int = "bspline",
    anchor: str = "first",
    boundary: str | None = None,
    antialias: bool | float | Sequence[float] = False,
    default_value: float = 0,
    rounding: str = "nearest",
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
        As for `gpuresample.resample`, in the order of the spatial axes.
    interpolation, anchor, boundary, antialias, default_value, rounding
        As for `gpuresample.resample`.
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
        which have none.
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.

    Notes
    -----
    float16, bfloat16 and float32 are summed in float32, float64 in float64. Autocast changes nothing: the result has
    the image's type. Grids are never oblique here, so every gradient comes from tables again; for transforms and the
    grids of other images use `gpuresample.resample`. It works under `torch.compile` without a graph break, and under
    `vmap`. `torch.func.grad` does not work through custom operators.
    """
    dims = _spatial_dims(image, spatial_dims)
    return _applied(image, _recipe("resample", dims, _name(dtype), {
        "spacing": spacing, "size": size, "input_spacing": input_spacing, "interpolation": interpolation,
        "anchor": anchor, "boundary": boundary, "antialias": antialias, "default_value": default_value,
        "rounding": rounding,
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
        return in_space(resampling_plan(image, dtype=target, **keywords))
    container = ArrayContainer.of_shape(shape, keywords.pop("input_spacing", None), source)
    make: Callable[..., Plan] = gaussian_plan if what == "gaussian" else downsample_plan
    return in_space(make(container, dtype=target, **keywords))


@kept
def _adjoint_plan(recipe: str, shape: tuple[int, ...], dtype: torch.dtype) -> Plan:
    """The way back: from gradients of the result to gradients of images of this spatial shape and type."""
    plan = _plan(recipe, shape, dtype)
    assert isinstance(plan.work, Separable)
    return of_work(planner.adjoint(plan.work), plan.dtype, plan.input_dtype)


def _named(dtype: str | None) -> torch.dtype | None:
    return None if dtype is None else getattr(torch, dtype.removeprefix("torch."))


def _dims(recipe: str) -> int:
    dims: int = json.loads(recipe)[1]
    return dims


def _output(recipe: str, image: torch.dtype) -> torch.dtype:
    return _named(json.loads(recipe)[2]) or image


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
    if not isinstance(plan.work, Separable):
        word = json.loads(recipe)[3]["interpolation"]
        raise ValueError(
            f"interpolation={word!r} is a vote among labels and has no gradient; use another or image.detach()"
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
    if torch.compiler.is_compiling() or forward_ad._current_level < 0:
        return _run(image, recipe)
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
        Which parts of a sample are label maps: keys, if samples are mappings, or positions, if they are tuples. They
        are resampled by "nearest".
    spatial_dims : {2, 3}
        Tensors with one more axis are volumes (channels first). torch's default collates everything else in a sample.
    interpolation, anchor, boundary, antialias, default_value
        For everything except labels, as for `resample`.

    Raises
    ------
    ValueError, TypeError
        If channels or types differ within a batch, and for arguments that `resample` refuses.

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
        first = batch[0]
        if isinstance(first, Mapping):
            return {key: self._field([sample[key] for sample in batch], key) for key in first}
        if isinstance(first, (tuple, list)):
            fields = [self._field(list(field), k) for k, field in enumerate(zip(*batch, strict=True))]
            return type(first)(*fields) if hasattr(first, "_fields") else type(first)(fields)
        return self._field(list(batch), None)

    def _field(self, values: list[Any], key: Any) -> Any:
        first = values[0]
        if not isinstance(first, Tensor) or first.ndim != self.spatial_dims + 1:
            return torch.utils.data.default_collate(values)
        for value in values:
            check_tensor(value, f"sample[{key!r}]" if key is not None else "sample")
            if value.ndim != first.ndim or value.shape[0] != first.shape[0] or value.dtype != first.dtype:
                raise ValueError(
                    f"volumes of a batch must have the same channels and type, got {tuple(first.shape)} {first.dtype} "
                    f"and {tuple(value.shape)} {value.dtype}"
                )
        recipe = self._label if key in self.labels else self._image
        out = torch.empty((len(values), first.shape[0], *self.size), dtype=first.dtype, device=first.device)
        for value, place in zip(values, out, strict=True):
            plan = _plan(recipe, _whole(value.shape[1:]), value.dtype)
            if self.spatial_dims == 2:
                value, place = value.unsqueeze(-3), place.unsqueeze(-3)  # noqa: PLW2901
            run_plan(plan, value, value.dtype, place)
        return out
