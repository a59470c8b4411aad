"""python -m benchmarks.call_times: how long the host takes for a call that comes again on a GPU, counted without one.

CuPy is replaced by a stand-in that does nothing: arrays have an address and no memory, and a launch returns at once. So
the times are those of the package's own Python, and of the stand-in's answers, without CuPy's and CUDA's own.
Compare the least of many calls, because other programs take time, too.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
import types
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

import gpuresample as gr

SIZE = (50, 50, 50)


class Array:
    """An array "on the GPU"."""

    __slots__ = ("__weakref__", "data", "device", "dtype", "itemsize", "ndim", "shape", "size", "strides")

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype, self.device, self.data = shape, np.dtype(dtype), DEVICE, Pointer()
        self.ndim, self.itemsize, self.size = len(shape), self.dtype.itemsize, math.prod(shape)
        self.strides = contiguous(shape, self.itemsize)
        self.data.ptr = COUNT["next"]
        COUNT["next"] += -(-self.size * self.itemsize // 512) * 512
        COUNT["arrays"] += 1

    def __getitem__(self, index: Any) -> Array:
        """As `containers.spatial` asks for it: of three axes, all of them."""
        return self


class Pointer:
    """Where an array begins."""

    __slots__ = ("ptr",)

    ptr: int


@lru_cache
def contiguous(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The strides of an array in C order."""
    return tuple(itemsize * math.prod(shape[k + 1 :]) for k in range(len(shape)))


class Module:
    """A module of kernels that do nothing."""

    def __init__(self, code: str, options: tuple[str, ...]) -> None: ...

    def get_function(self, name: str) -> Callable[..., None]:
        """A kernel."""
        return launch


class Nothing:
    """A device, a stream, an event."""

    id, ptr, done = 0, 0, True

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def record(self, event: Any) -> Any:
        """The event."""
        return event


COUNT = {"next": 1 << 20, "arrays": 0, "launches": 0}
DEVICE = Nothing()


def launch(grid: Any, block: Any, arguments: Any, shared_mem: int = 0) -> None:
    """No launch."""
    COUNT["launches"] += 1


def stand_in() -> Any:
    """The module `cupy`."""
    cupy: Any = types.ModuleType("cupy")
    cupy.ndarray, cupy.empty, cupy.RawModule = Array, Array, Module
    cupy.asarray = lambda array: Array(array.shape, array.dtype)
    stream = Nothing()
    runtime = types.SimpleNamespace(getDevice=lambda: 0, getDeviceCount=lambda: 1)
    cupy.cuda = types.SimpleNamespace(
        Device=Nothing, Event=Nothing, Stream=Nothing, get_current_stream=lambda: stream, runtime=runtime
    )
    return cupy


def cases() -> dict[str, Callable[[], Any]]:
    """Calls by name; of volumes so small that nothing but the host's time is left."""
    turned = gr.Affine([[0.9, 0.1, 0.0], [-0.1, 0.9, 0.02], [0.0, 0.0, 1.0]], (1.0, 2.0, 3.0))
    jobs: dict[str, tuple[str, dict[str, Any]]] = {
        "nearest": ("uint8", {"interpolation": "nearest"}),
        "linear": ("float32", {"interpolation": "linear"}),
        "bspline": ("float32", {"interpolation": "bspline"}),
        "affine, linear": ("float32", {"interpolation": "linear", "transform": turned}),
        "affine, bspline": ("float32", {"interpolation": "bspline", "transform": turned}),
    }
    made: dict[str, Callable[[], Any]] = {}
    for name, (dtype, asked) in jobs.items():
        image, out = Array((64, 64, 64), dtype), Array(SIZE, dtype)
        plan = gr.plan(image, size=SIZE, **asked)
        made[f"{name}: plan.run(image, out=out)"] = partial(plan.run, image, out=out)
        made[f"{name}: plan.run(image)"] = partial(plan.run, image)
        if "transform" not in asked:
            made[f"{name}: resample(image, ..., out=out)"] = partial(gr.resample, image, size=SIZE, out=out, **asked)
    return made


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.call_times", description=__doc__.split("\n")[0])
    parser.add_argument("--calls", type=int, default=2000, help="of each kind")
    asked = parser.parse_args()
    sys.modules["cupy"] = stand_in()
    print(f"{'call':48s} {'least':>8s} {'median':>8s}  launches  arrays made")
    for name, call in cases().items():
        for _ in range(3):
            call()
        before, took = dict(COUNT), []
        for _ in range(asked.calls):
            start = time.perf_counter_ns()
            call()
            took.append(time.perf_counter_ns() - start)
        each = [(COUNT[what] - before[what]) / asked.calls for what in ("launches", "arrays")]
        print(f"{name:48s} {min(took) / 1e3:5.1f} us {np.median(took) / 1e3:5.1f} us {each[0]:9g} {each[1]:12g}")


if __name__ == "__main__":
    main()
