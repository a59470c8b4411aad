"""GPUs, as far as the suite needs them: is there one, and when is it done."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from gpuresample.bench.cases import Array


def usable() -> str | None:
    """The GPU's name; None if there is none to use."""
    try:
        from gpuresample.engines.cuda import engine as cuda

        cupy = cuda.usable()
    except (ImportError, RuntimeError):
        return None
    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())


def synchronised(call: Callable[[], Any]) -> Callable[[], Any]:
    """A call that ends when the device, all streams and all libraries, has finished."""
    import cupy

    def done() -> Any:
        result = call()
        cupy.cuda.runtime.deviceSynchronize()
        return result

    return done


def copying(n: int) -> Callable[[], Any]:
    """A call that copies `n` bytes on the device."""
    import cupy

    a, b = cupy.ones(n, cupy.uint8), cupy.empty(n, cupy.uint8)
    return synchronised(lambda: cupy.copyto(b, a))


def pinned(array: Array) -> Array:
    """A copy in pinned host memory."""
    from gpuresample.engines.cuda import engine as cuda

    made: Array = cuda.engine().runtime.pinned(array.shape, array.dtype)
    made[...] = array
    return made


def copies(given: Array, made: Array) -> Callable[[], Any]:
    """A call that copies as many bytes as `given` to the device and as many as `made` from it, in pinned memory."""
    import cupy

    from gpuresample.engines.cuda import engine as cuda

    runtime = cuda.engine().runtime
    source, result = pinned(given), pinned(made)
    there, back = cupy.asarray(given), cupy.empty(made.shape, made.dtype)

    def copy() -> Array:
        runtime.copy_in(source, there)
        runtime.copy_out(back, result)
        return result

    return synchronised(copy)


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes of device memory that a call takes at its peak, on top of what is held before.

    CuPy's pool gives nothing back while it works, so what it has taken in the end is the peak. torch keeps count.
    """
    import cupy

    pool = cupy.get_default_memory_pool()
    torch: Any = sys.modules.get("torch")
    counted = torch is not None and torch.cuda.is_available()
    pool.free_all_blocks()
    before = pool.total_bytes()
    if counted:
        torch.cuda.reset_peak_memory_stats()
        before += torch.cuda.memory_allocated()
    result = call()
    taken = pool.total_bytes() + (torch.cuda.max_memory_allocated() if counted else 0)
    del result
    return int(taken - before)
