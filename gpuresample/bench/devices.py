"""GPUs, as far as the suite needs them: is there one, and when is it done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def usable() -> str | None:
    """The GPU's name; None if there is none to use."""
    try:
        from gpuresample.engines import cuda

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
