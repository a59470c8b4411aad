"""Warps of torch tensors as operators that compilers do not look into: gathers, their transposes and derivatives.

A warp takes voxel i of the output to `matrix @ (i + field[i], 1)` on the volume: both in voxels and axis order (z, y,
x), either may be missing. Or a field's vectors are the positions themselves, without a matrix (see `recipe`). With T =
<gather(volume), grad> there are four operators:

- `pull`: the gather, or one of its derivatives by the position
- `splat`: what T is multiplied with in the volume
- `slopes`: dT by every voxel's position
- `moments`: what a sum over such values times the voxel's place leaves for the matrix

The gradient of each is made of the others, one derivative further: so they may be differentiated as often as asked.
Tensors here are (N, C, D, H, W); matrices (N, 3, 4) and fields (N, 3, D, H, W) may have N = 1. `gpuresample.torch`
checks what users give.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gpuresample.caching import Recent
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.filters import FILTERS, get_filter
from gpuresample.planning.grid import Grid
from gpuresample.planning.scipy_works import given
from gpuresample.planning.works import Gather, Lattice, Linear, Route, Scores, Separable
from gpuresample.plans import Plan, of_work, precision_of
from gpuresample.tensors import BY_WAY_OF, as_numbers, engine_beside, numpy_dtype, run_plan, torch_dtype

Array = npt.NDArray[Any]

AT_ZERO = np.zeros(3)
AS_IT_IS = np.eye(3)


def recipe(interpolation: str | int, boundary: str | None, given: bool = False) -> str:
    """How to interpolate, as the text that an opaque operator takes along.

    `given`: a field's vectors are positions on the volume, which nothing is added to.
    """
    return json.dumps([get_filter(interpolation).name, boundary, given])


def check_differentiable(how: str) -> None:
    """Refuse to differentiate what has no derivative.

    Raises
    ------
    ValueError
        For copies and votes, and for sums that are normalised.
    """
    name = json.loads(how)[0]
    f = FILTERS[name]
    if f.method == "sum" and f.border != "crop":
        return
    what = {"index": "copies voxels", "vote": "is a vote among labels"}.get(f.method, "divides by its weights")
    raise ValueError(
        f"interpolation={name!r} {what} and has no gradient along a transform; use 'linear' or 'bspline', or detach() "
        "the tensors"
    )


# --- on the engine ---------------------------------------------------------------------------------------------------


def _work(how: str, shape: Sequence[int], size: Sequence[int], dtype: torch.dtype, derivative: Sequence[int]) -> Gather:
    """The gather of volumes of this spatial shape and type, but for its routes."""
    name, boundary, _ = json.loads(how)
    source, target = (Grid.of_size(tuple(int(n) for n in reversed(k))) for k in (shape, size))
    voxels = numpy_dtype(dtype)
    z, y, x = (int(k) for k in derivative)
    return replace(planner.gather(source, target, name, boundary, precision_of(voxels, voxels)), derivative=(z, y, x))


def _numbers(matrix: Tensor | None) -> Array | None:
    """Matrices (N, 3, 4) in the host's memory. One that is on a GPU comes from there: that waits for it."""
    matrices = None if matrix is None else as_numbers(matrix).cpu().numpy().astype(np.float64)
    if matrices is not None and not np.isfinite(matrices).all():
        raise ValueError(f"matrix must be of finite numbers, got {matrices.tolist()}")
    return matrices


def _routes(
    matrices: Array | None, field: Tensor | None, how: str, size: Sequence[int], see: Callable[[Tensor], Any]
) -> list[Route]:
    """One route, or one for each volume. Fields stay where they are."""
    # Components last, x first: a view.
    fields = None if field is None else see(field).transpose(0, 2, 3, 4, 1)[..., ::-1]
    if fields is not None and json.loads(how)[2]:
        return [given(positions) for positions in fields]
    volumes = max(len(k) for k in (matrices, fields) if k is not None)
    routes = []
    for n in range(volumes):
        vectors = None if fields is None else fields[n % len(fields)]
        routes.append(_route(None if matrices is None else matrices[n % len(matrices)], vectors, size))
    return routes


def _route(matrix: Array | None, vectors: Any, size: Sequence[int]) -> Route:
    """From voxels of the output through vectors of theirs [z, y, x, component], components x first, and a matrix."""
    stages: list[Linear | Lattice] = []
    if vectors is not None:
        stages.append(Lattice(vectors, AS_IT_IS, AT_ZERO, "linear", direct=True))
    if matrix is not None:
        stages.append(Linear(matrix[::-1, 2::-1], matrix[::-1, 3]))
    return Route(AS_IT_IS, AT_ZERO, tuple(stages), AS_IT_IS, AT_ZERO, int(size[2]))


def _shares(work: Gather, routes: list[Route], shape: Sequence[int], device: str) -> list[tuple[slice, Gather]]:
    """Volumes of a batch (N, C, ...) that go in one call, where channels share a route.

    All on a GPU, since a call is a launch; on the CPU, each for itself where it has its own: it is located once.
    """
    n, channels = shape[:2]
    if len(routes) == 1 or channels == 1 or device == "cuda":
        each = routes if len(routes) == 1 else [route for route in routes for _ in range(channels)]
        return [(slice(None), replace(work, routes=tuple(each)))]
    return [(slice(k, k + 1), replace(work, routes=(routes[k],))) for k in range(n)]


def _sums(dtype: torch.dtype) -> torch.dtype:
    """The type that sums of voxels of a type are made in."""
    voxels = numpy_dtype(dtype)
    return torch.float64 if precision_of(voxels, voxels) == "double" else torch.float32


def _empty(like: Tensor, shape: Sequence[int]) -> Tensor:
    """New numbers of a tensor's type, or of the wider one that it is computed in, on its device."""
    return torch.empty(tuple(shape), dtype=BY_WAY_OF.get(like.dtype, like.dtype), device=like.device)


@dataclass(frozen=True, eq=False)
class Pull:
    """A gather of one image along a warp, without gradients; `pull_all` runs it.

    Attributes
    ----------
    volume : Tensor, shape (C, D, H, W)
    out : Tensor, shape (C, *size), float32 or float64
        Filled; on the volume's device.
    matrix : ndarray, float64, shape (3, 4)
    field : Tensor, shape (3, *size), or None
        Before the matrix, in voxels of the output. On the volume's device.
    how : str
        See `recipe`.
    scores : Scores or None
        See `works.Gather`.
    """

    volume: Tensor
    out: Tensor
    matrix: Array
    field: Tensor | None
    how: str
    scores: Scores | None = None


def pull_all(pulls: Sequence[Pull]) -> None:
    """Run gathers. Those along one matrix and one field, the same tensor, locate their voxels once."""
    devices: dict[torch.device, list[Pull]] = {}
    for one in pulls:
        devices.setdefault(one.out.device, []).append(one)
    for group in devices.values():
        with engine_beside(group[0].out) as (engine, see):
            seen: dict[int, Any] = {}
            calls = []
            for p in group:
                if p.field is not None and id(p.field) not in seen:
                    seen[id(p.field)] = see(p.field).transpose(1, 2, 3, 0)[..., ::-1]
                work = _work(p.how, p.volume.shape[1:], p.out.shape[1:], p.volume.dtype, (0, 0, 0))
                route = _route(p.matrix, None if p.field is None else seen[id(p.field)], p.out.shape[1:])
                work = replace(work, routes=(route,), scores=p.scores)
                calls.append((work, see(p.volume), see(p.out), Store(exact=work.method != "sum")))
            engine.run_all(calls)


# --- operators -------------------------------------------------------------------------------------------------------


@torch.library.custom_op("gpuresample::pull", mutates_args=())
def pull(
    volume: Tensor,
    matrix: Tensor | None,
    field: Tensor | None,
    how: str,
    size: list[int],
    derivative: list[int],
    default: float,
) -> Tensor:
    """Volumes along warps, or the derivatives of these so often along the volume's z, y, x; of the volume's type."""
    out = _empty(volume, (*volume.shape[:2], *size))
    with engine_beside(volume) as (engine, see):
        source, target = see(volume), see(out)
        asked = how, tuple(volume.shape), tuple(size), volume.dtype, tuple(derivative), engine.name
        for part, one, store in _gathers(asked, default, matrix, field, see):
            engine.run(one, source[part], target[part], store)
    return out.to(volume.dtype)


_Asked = tuple[str, tuple[int, ...], tuple[int, ...], torch.dtype, tuple[int, ...], str]
_Gathers = list[tuple[slice, Gather, Store]]
# The last ones along matrices: an engine knows again what comes again.
_recent: Recent[_Gathers] = Recent(32)


def _gathers(
    asked: _Asked, default: float, matrix: Tensor | None, field: Tensor | None, see: Callable[[Tensor], Any]
) -> _Gathers:
    """Volumes of a batch that go in one call, and what fills the output's."""
    how, shape, size, dtype, derivative, name = asked
    matrices = _numbers(matrix)
    key: Hashable = None
    if matrices is not None and field is None:
        key = asked, repr(default), matrices.shape, matrices.tobytes()
        found = _recent.get(key)
        if found is not None:
            return found
    work = _work(how, shape[2:], size, dtype, derivative)
    value = default if dtype.is_floating_point else int(default)
    store = Store.of(numpy_dtype(dtype), value, exact=work.method != "sum")
    parts = _shares(work, _routes(matrices, field, how, size, see), shape, name)
    made = [(part, one, store) for part, one in parts]
    if key is not None:
        _recent.put(key, made)
    return made


@torch.library.custom_op("gpuresample::splat", mutates_args=())
def splat(
    grad: Tensor,
    matrix: Tensor | None,
    field: Tensor | None,
    how: str,
    shape: list[int],
    derivative: list[int],
) -> Tensor:
    """The transposed `pull` of values on the output's grid: on volumes of the spatial shape `shape`, of their type."""
    size = grad.shape[2:]
    work = _work(how, shape, size, grad.dtype, derivative)
    out = _empty(grad, (*grad.shape[:2], *shape))
    with engine_beside(grad) as (engine, see):
        source, target = see(grad), see(out)
        for part, one in _shares(work, _routes(_numbers(matrix), field, how, size, see), out.shape, engine.name):
            engine.splat(one, source[part], target[part])
    return out.to(grad.dtype)


@torch.library.custom_op("gpuresample::slopes", mutates_args=())
def slopes(
    volume: Tensor, grad: Tensor, matrix: Tensor | None, field: Tensor | None, how: str, derivative: list[int]
) -> Tensor:
    """Derivatives of `pull` by the positions z, y, x, times `grad`, summed over channels: (N, 3, D, H, W)."""
    size = grad.shape[2:]
    work = _work(how, volume.shape[2:], size, volume.dtype, derivative)
    sums = _sums(volume.dtype)
    out = torch.empty((len(volume), 3, *size), dtype=sums, device=volume.device)
    with engine_beside(volume) as (engine, see):
        work = replace(work, routes=tuple(_routes(_numbers(matrix), field, how, size, see)))
        engine.gradient(work, see(volume), see(out)[:, ::-1], see(grad.to(sums)))
    return out


@torch.library.custom_op("gpuresample::moments", mutates_args=())
def moments(values: Tensor, field: Tensor | None) -> Tensor:
    """Sums over voxels of values (N, 3, D, H, W) times where the voxel is moved to: (N, 3, 4) in float64."""
    out = torch.empty((len(values), 3, 4), dtype=torch.float64, device=values.device)
    with engine_beside(values) as (engine, see):
        engine.moments(see(values), None if field is None else see(field)[:, ::-1], see(out))
    # Columns come as x, y, z, 1.
    return out[:, :, [2, 1, 0, 3]]


@pull.register_fake
def _(
    volume: Tensor, matrix: Tensor | None, field: Tensor | None, how: str, size: list[int], derivative: list[int],
    default: float,
) -> Tensor:  # fmt: skip
    return volume.new_empty((*volume.shape[:2], *size))


@splat.register_fake
def _(
    grad: Tensor, matrix: Tensor | None, field: Tensor | None, how: str, shape: list[int], derivative: list[int]
) -> Tensor:
    return grad.new_empty((*grad.shape[:2], *shape))


@slopes.register_fake
def _(
    volume: Tensor, grad: Tensor, matrix: Tensor | None, field: Tensor | None, how: str, derivative: list[int]
) -> Tensor:
    return volume.new_empty((volume.shape[0], 3, *grad.shape[2:]), dtype=_sums(volume.dtype))


@moments.register_fake
def _(values: Tensor, field: Tensor | None) -> Tensor:
    return values.new_empty((values.shape[0], 3, 4), dtype=torch.float64)


# --- gradients -------------------------------------------------------------------------------------------------------


def _further(derivative: Sequence[int], axis: int) -> list[int]:
    """One derivative more along an axis."""
    return [k + (a == axis) for a, k in enumerate(derivative)]


def _to_parameters(
    by_position: Tensor, matrix: Tensor | None, field: Tensor | None, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """From derivatives by position to those by the matrix and the field."""
    by_matrix = by_field = None
    if matrix is not None and wanted[0]:
        total = moments(by_position, field)
        by_matrix = (total if len(matrix) == len(total) else total.sum(0, keepdim=True)).to(matrix.dtype)
    if field is not None and wanted[1]:
        # A position is the matrix times the place that the field moves a voxel to.
        total = by_position if matrix is None else _times(matrix[:, :, :3].to(by_position.dtype).mT, by_position)
        by_field = (total if len(field) == len(total) else total.sum(0, keepdim=True)).to(field.dtype)
    return by_matrix, by_field


def _times(matrix: Tensor, field: Tensor) -> Tensor:
    """A matrix times every vector of a field."""
    return torch.einsum("nab,nbzyx->nazyx", matrix.expand(len(field), -1, -1), field)


def _keep_pull(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    volume, matrix, field, ctx.how, ctx.size, ctx.derivative, _ = inputs
    check_differentiable(ctx.how)
    if not volume.dtype.is_floating_point:
        raise ValueError(f"volume must have float voxels where a gradient is asked for, got {volume.dtype}")
    ctx.save_for_backward(volume, matrix, field)


def _back_pull(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    volume, matrix, field = ctx.saved_tensors
    needs, by_volume, by_matrix, by_field = ctx.needs_input_grad, None, None, None
    if needs[0]:
        by_volume = splat(grad, matrix, field, ctx.how, list(volume.shape[2:]), ctx.derivative)
    if needs[1] or needs[2]:
        found = slopes(volume, grad, matrix, field, ctx.how, ctx.derivative)
        by_matrix, by_field = _to_parameters(found, matrix, field, needs[1:3])
    return by_volume, by_matrix, by_field, None, None, None, None


def _keep_splat(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad, matrix, field, ctx.how, _, ctx.derivative = inputs
    ctx.save_for_backward(grad, matrix, field)


def _back_splat(ctx: Any, values: Tensor) -> tuple[Tensor | None, ...]:
    grad, matrix, field = ctx.saved_tensors
    needs, by_grad, by_matrix, by_field = ctx.needs_input_grad, None, None, None
    if needs[0]:
        by_grad = pull(values, matrix, field, ctx.how, list(grad.shape[2:]), ctx.derivative, 0.0)
    if needs[1] or needs[2]:
        found = slopes(values, grad, matrix, field, ctx.how, ctx.derivative)
        by_matrix, by_field = _to_parameters(found, matrix, field, needs[1:3])
    return by_grad, by_matrix, by_field, None, None, None


def _keep_slopes(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    volume, grad, matrix, field, ctx.how, ctx.derivative = inputs
    ctx.save_for_backward(volume, grad, matrix, field)


def _back_slopes(ctx: Any, values: Tensor) -> tuple[Tensor | None, ...]:
    volume, grad, matrix, field = ctx.saved_tensors
    needs, shape, size = ctx.needs_input_grad, list(volume.shape[2:]), list(grad.shape[2:])
    by_volume = by_grad = by_position = by_matrix = by_field = None
    for axis in range(3):
        order, along = _further(ctx.derivative, axis), values[:, axis : axis + 1]
        if needs[0]:
            weighed = (along * grad).to(volume.dtype)
            by_volume = _added(by_volume, splat(weighed, matrix, field, ctx.how, shape, order))
        if needs[1]:
            by_grad = _added(by_grad, along * pull(volume, matrix, field, ctx.how, size, order, 0.0))
        if needs[2] or needs[3]:
            by_position = _added(by_position, along * slopes(volume, grad, matrix, field, ctx.how, order))
    if by_position is not None:
        by_matrix, by_field = _to_parameters(by_position, matrix, field, needs[2:4])
    return by_volume, None if by_grad is None else by_grad.to(grad.dtype), by_matrix, by_field, None, None


def _added(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total + term


def _keep_moments(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _back_moments(ctx: Any, total: Tensor) -> tuple[Tensor | None, ...]:
    values, field = ctx.saved_tensors
    by_values = by_field = None
    if ctx.needs_input_grad[0]:
        axes = [torch.arange(n, dtype=total.dtype, device=total.device) for n in values.shape[2:]]
        place = torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]
        place = (place if field is None else place + field).expand(len(values), -1, -1, -1, -1)
        by_values = (_times(total[:, :, :3], place) + total[:, :, 3, None, None, None]).to(values.dtype)
    if field is not None and ctx.needs_input_grad[1]:
        by_field = _times(total[:, :, :3].mT, values.to(total.dtype))
        by_field = (by_field if len(field) == len(by_field) else by_field.sum(0, keepdim=True)).to(field.dtype)
    return by_values, by_field


pull.register_autograd(_back_pull, setup_context=_keep_pull)
splat.register_autograd(_back_splat, setup_context=_keep_splat)
slopes.register_autograd(_back_slopes, setup_context=_keep_slopes)
moments.register_autograd(_back_moments, setup_context=_keep_moments)


def _one_by_one(operator: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, int]]:
    """An operator under vmap: as often as there are members."""

    def over(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        made = []
        for k in range(info.batch_size):
            pairs = zip(inputs, in_dims, strict=True)
            made.append(operator(*(v.select(d, k) if isinstance(d, int) else v for v, d in pairs)))
        return torch.stack(made), 0

    return over


for _operator in (pull, splat, slopes, moments):
    _operator.register_vmap(_one_by_one(_operator))


# --- plans with transforms -------------------------------------------------------------------------------------------


class _Along(torch.autograd.Function):
    """A plan on a tensor."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, plan: Plan, dtype: torch.dtype) -> Tensor:
        ctx.plan, ctx.dtype, ctx.shape = plan, image.dtype, image.shape[-3:]
        return run_plan(plan, image, dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Back.apply(grad, ctx.plan, ctx.dtype, ctx.shape), None, None


class _Back(torch.autograd.Function):
    """The transposed plan on the gradient of its result."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, plan: Plan, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        ctx.plan, ctx.dtype = plan, grad.dtype
        if isinstance(plan.work, Separable):
            return run_plan(of_work(planner.adjoint(plan.work), plan.dtype, plan.input_dtype), grad, dtype)
        assert isinstance(plan.work, Gather)
        out = torch.empty((*grad.shape[:-3], *shape), dtype=torch_dtype(plan.input_dtype), device=grad.device)
        with engine_beside(grad) as (engine, see):
            engine.splat(plan.work, see(grad), see(out))
        return out.to(dtype)

    @staticmethod
    def backward(ctx: Any, values: Tensor) -> tuple[Tensor, None, None, None]:
        # The linear part alone: what lies outside has no gradient, whatever its default value.
        plan = replace(ctx.plan, store=replace(ctx.plan.store, default=0))
        return _Along.apply(values, plan, ctx.dtype), None, None, None


@torch.compiler.disable
def run_along(plan: Plan, image: Tensor, dtype: torch.dtype) -> Tensor:
    """A plan of three spatial axes on a tensor, differentiable in it as often as asked; not for compilers.

    Raises
    ------
    ValueError
        For gradients of copies and votes off the axis-aligned path.
    """
    wanted = image.requires_grad and torch.is_grad_enabled()
    if wanted and isinstance(plan.work, Gather) and (plan.work.method != "sum" or plan.work.normalise):
        raise ValueError(
            "interpolation along a transform must be a sum of voxels for a gradient, such as 'linear' or 'bspline'; "
            "else use image.detach()"
        )
    out: Tensor = _Along.apply(image, plan, dtype)
    return out
