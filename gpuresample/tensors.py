"""Plans on torch tensors: the memory stays torch's, on the CPU and on the GPU. Serves the integrations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from gpuresample import engines
from gpuresample.engines import install_hint
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import engine as cuda
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.runtime import scratch_from
from gpuresample.engines.interface import Differentiable
from gpuresample.planning import planner
from gpuresample.planning.grid import Grid
from gpuresample.planning.works import Gather
from gpuresample.plans import Plan, of_work, run_beside

# Types that NumPy or the kernels lack: voxels take another on the way in, and theirs again on the way out.
BY_WAY_OF = {torch.bfloat16: torch.float32, torch.float16: torch.float32}
VOXELS = (
    torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32,
    torch.uint64, torch.float16, torch.bfloat16, torch.float32, torch.float64,
)  # fmt: skip


def check_tensor(image: Any, name: str = "image") -> None:
    """Refuse what is no tensor of real voxels.

    Raises
    ------
    TypeError
        With the type it has, and the types it may have.
    """
    if not isinstance(image, torch.Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(image).__name__}")
    if image.dtype not in VOXELS:
        raise TypeError(f"{name} must have integer, float or bool voxels of up to 64 bits, got {image.dtype}")
    if image.device.type not in ("cpu", "cuda", "meta"):
        raise TypeError(f"{name} must be on the CPU or a CUDA device, got {image.device}")


@lru_cache(maxsize=64)
def numpy_dtype(dtype: torch.dtype) -> np.dtype[Any]:
    """The NumPy type that voxels of a torch type are computed from or to."""
    return np.dtype(str(BY_WAY_OF.get(dtype, dtype)).removeprefix("torch."))


def torch_dtype(dtype: npt.DTypeLike) -> torch.dtype:
    """The torch type of the same name as a NumPy type."""
    found: torch.dtype = getattr(torch, np.dtype(dtype).name)
    return found


def in_space(plan: Plan) -> Plan:
    """A 2-D plan as one of three axes, the first of a single voxel; others as they are."""
    if plan.source.dimension == 3:
        return plan
    source, target = (_raised(grid) for grid in (plan.source, plan.target))
    return replace(plan, source=source, target=target)


def _raised(grid: Grid) -> Grid:
    """A grid of two axes in a space of three."""
    direction = np.eye(3)
    direction[:2, :2] = np.reshape(grid.direction, (2, 2))
    return Grid((*grid.size, 1), (*grid.spacing, 1.0), (*grid.origin, 0.0), tuple(direction.ravel().tolist()))


def run_plan(plan: Plan, image: torch.Tensor, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
    """Run a plan on a tensor, where that is.

    Parameters
    ----------
    plan : Plan
        Of three spatial axes, made for `numpy_dtype` of the tensor's type and of `dtype`.
    image : Tensor, shape (..., z, y, x)
        On the CPU or a CUDA device; any strides.
    dtype : torch.dtype
        Voxel type of the result.
    out : Tensor, optional
        Where to write it; of that type, on the same device.

    Returns
    -------
    Tensor, shape (..., z, y, x)
        On the same device; without a history of gradients.

    Raises
    ------
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used: what is missing, and what to install.
    """
    source = image.detach().resolve_neg()
    if source.dtype in BY_WAY_OF:
        source = source.to(BY_WAY_OF[source.dtype])
    between = BY_WAY_OF.get(dtype, dtype)
    shape = (*source.shape[:-3], *plan.output_shape)
    if out is not None and out.dtype == between:
        target = out
    else:
        target = torch.empty(shape, dtype=between, device=source.device)
    if source.is_cuda:
        _run_on_gpu(plan, source, target)
    elif target is out or not _run_as_it_is(plan, source, target):  # memory of the caller's is looked at first
        plan.run(source.numpy(), target.numpy())
    if target is out or (out is None and between == dtype):
        return target
    return target.to(dtype) if out is None else out.copy_(target)


def _run_as_it_is(plan: Plan, source: torch.Tensor, target: torch.Tensor) -> bool:
    """Run a plan on few voxels in host memory, for which what `Plan.run` asks takes longer; False if that is needed."""
    fits = source.shape[-3:] == plan.input_shape and target.shape[-3:] == plan.output_shape
    if not fits or isinstance(plan.work, Gather) or not 0 < max(source.numel(), target.numel()) <= cpu.SMALL:
        return False
    if engines.select(plan.device, voxels=source.numel() + target.numel(), copies=plan.store.exact) is not cpu:
        return False
    src, dst = as_numbers(source).numpy(), as_numbers(target).numpy()
    if not run_beside(plan, cpu, src, dst):
        cpu.run(plan.work, src, dst, plan.store)
    return True


class _Applied(torch.autograd.Function):
    """A plan of tables with its gradient; for eager code. `gpuresample.torch` has operators that compilers see."""

    @staticmethod
    def forward(ctx: Any, image: torch.Tensor, plan: Plan, dtype: torch.dtype) -> torch.Tensor:
        ctx.plan, ctx.dtype = plan, image.dtype
        return run_plan(plan, image, dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        back = of_work(planner.adjoint(ctx.plan.work), ctx.plan.dtype, numpy_dtype(ctx.dtype))
        return run_plan(back, grad, ctx.dtype), None, None


def apply_plan(plan: Plan, image: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """`run_plan`, with a history of gradients where the image has one; the plan is of tables."""
    out: torch.Tensor = _Applied.apply(image, plan, dtype)
    return out


def _run_on_gpu(plan: Plan, source: torch.Tensor, target: torch.Tensor) -> None:
    """On the device where the tensors are, in the order of torch's current stream there; does not wait for it."""
    engine, as_array, stream = device_engine(source.device)
    with stream:
        src, dst = as_array(as_numbers(source)), as_array(as_numbers(target))
        if not run_beside(plan, engine, src, dst):
            engine.run(plan.work, src, dst, plan.store)


def as_numbers(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without its history, of a type that NumPy and the kernels have; of another, a wider copy."""
    tensor = tensor.detach().resolve_neg()
    if tensor.dtype in BY_WAY_OF:
        tensor = tensor.to(BY_WAY_OF[tensor.dtype])
    return tensor.view(torch.uint8) if tensor.dtype == torch.bool else tensor


def device_engine(device: torch.device) -> tuple[CudaEngine, Any, AbstractContextManager[Any]]:
    """The CUDA engine, how it sees a tensor without a copy, and a block in which it works as torch does.

    Raises
    ------
    RuntimeError
        If the CUDA engine cannot be used.
    """
    try:
        engine, cupy = cuda.engine(), cuda.usable()
    except RuntimeError as error:
        raise RuntimeError(f"image is on {device}, but {error}. Move it by image.cpu(). {install_hint()}") from None
    return engine, cupy.asarray, _in_torchs_stream(cupy, device)


@contextmanager
def engine_beside(tensor: torch.Tensor) -> Iterator[tuple[Differentiable, Callable[[torch.Tensor], Any]]]:
    """A block in which a tensor's device works: its engine, and how that sees tensors there, without a copy.

    What the engine sees are a tensor's numbers: half-precision floats as float32, which are a copy, booleans as bytes.

    Raises
    ------
    RuntimeError
        For CUDA tensors where the CUDA engine cannot be used.
    """
    if not tensor.is_cuda:
        yield cpu, lambda one: as_numbers(one).numpy()
        return
    engine, as_array, stream = device_engine(tensor.device)
    with stream:
        yield engine, lambda one: as_array(as_numbers(one))


class _Foreign:
    """A stream by its address, as the CUDA stream protocol has it: version 0."""

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self.pointer


def _adopted(cupy: Any, pointer: int, device: int) -> Any:
    """CuPy's stream for another library's; CuPy 14 deprecates how it was made before."""
    if hasattr(cupy.cuda.Stream, "from_external"):
        return cupy.cuda.Stream.from_external(_Foreign(pointer))
    return cupy.cuda.ExternalStream(pointer, device)


@contextmanager
def _in_torchs_stream(cupy: Any, device: torch.device) -> Iterator[None]:
    """In torch's current stream on a device, with scratch from torch's allocator: one memory pool, not two."""
    pointer = torch.cuda.current_stream(device).cuda_stream

    def allocate(n: int) -> tuple[int, Any]:
        memory = torch.empty(n, dtype=torch.uint8, device=device)
        return memory.data_ptr(), memory

    with (
        torch.cuda.device(device),
        cupy.cuda.Device(device.index),
        _adopted(cupy, pointer, device.index),
        scratch_from(allocate),
    ):
        yield
