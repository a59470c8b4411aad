"""What kernels are timed on: a GPU through CuPy, or the CPU in its place (to prove the program, not the speed)."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda.engine import CudaEngine, engine, usable
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.cuda.staging import Staged

Array = npt.NDArray[Any]

# Bytes of the copy that bandwidth is measured by, and how often: large against any L2.
COPY_BYTES = 1 << 30
# Longest time that a call can take to return and not be one that waits for the device.
BUSY_SECONDS = 2e-3


class Device(Protocol):
    """Something that kernels run on."""

    name: str
    engine: CudaEngine
    staged: Staged

    def array(self, host: Array) -> Any:
        """A copy on the device."""

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """New memory on the device."""

    def host(self, array: Any) -> Array:
        """A copy in host memory."""

    def pinned(self, host: Array) -> Array:
        """A copy in pinned host memory."""

    def seconds(self, call: Callable[[], Any], runs: int) -> list[float]:
        """The time of every run, on the device's own clock, its cache emptied before each.

        Of what is launched, not of the launching: the device is kept busy until the call has returned.
        """

    def returns(self, call: Callable[[], Any], runs: int) -> float:
        """Seconds after which a call returns on an idle device: its launches, not what they do; the median."""

    def wall(self, call: Callable[[], Any], runs: int) -> float:
        """Seconds from a call on an idle device until it is idle again, by the host's clock; the median."""

    def bandwidth(self, runs: int) -> float:
        """Bytes per second that a copy on the device reads and writes, together."""

    def facts(self) -> dict[str, Any]:
        """What it is, and with which software."""


class Gpu:
    """A GPU, through CuPy.

    Raises
    ------
    RuntimeError
        If there is none.
    """

    def __init__(self) -> None:
        self.cupy = usable()
        self.engine = engine()
        self.staged = Staged(self.engine, None)
        properties = self.cupy.cuda.runtime.getDeviceProperties(self.cupy.cuda.runtime.getDevice())
        self.name = properties["name"].decode()
        self._properties = properties
        # Twice the L2: writing it leaves nothing of what was there.
        self._flush = self.cupy.empty(max(2 * int(properties["l2CacheSize"]), 1 << 26), np.uint8)
        self._flush_seconds = min(self._flushed() for _ in range(5))

    def _flushed(self) -> float:
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        self._flush.fill(0)
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1e3

    def array(self, host: Array) -> Any:
        """See `Device`."""
        return self.cupy.asarray(host)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """See `Device`."""
        return self.cupy.empty(shape, dtype)

    def host(self, array: Any) -> Array:
        """See `Device`."""
        return np.asarray(self.cupy.asnumpy(array))

    def pinned(self, host: Array) -> Array:
        """See `Device`."""
        out = self.engine.runtime.pinned(host.shape, host.dtype)
        out[...] = host
        return out

    def seconds(self, call: Callable[[], Any], runs: int) -> list[float]:
        """See `Device`. By CUDA events; four runs go before, for compiling and for clocks to rise."""
        # A call that returns late waits for the device itself.
        flushes = 1 + math.ceil(2 * min(self.returns(call, 3), BUSY_SECONDS) / self._flush_seconds)
        events = [(self.cupy.cuda.Event(), self.cupy.cuda.Event()) for _ in range(runs)]
        for start, end in events:
            for _ in range(flushes):
                self._flush.fill(0)
            start.record()
            call()
            end.record()
        self.cupy.cuda.runtime.deviceSynchronize()
        return [self.cupy.cuda.get_elapsed_time(start, end) / 1e3 for start, end in events]

    def returns(self, call: Callable[[], Any], runs: int) -> float:
        """See `Device`."""
        return _wall(call, runs, self.cupy.cuda.runtime.deviceSynchronize, lambda: None)

    def wall(self, call: Callable[[], Any], runs: int) -> float:
        """See `Device`."""
        idle = self.cupy.cuda.runtime.deviceSynchronize
        return _wall(call, runs, idle, idle)

    def bandwidth(self, runs: int) -> float:
        """See `Device`."""
        a, b = self.cupy.empty(COPY_BYTES, np.uint8), self.cupy.empty(COPY_BYTES, np.uint8)
        a.fill(1)
        return 2 * COPY_BYTES / statistics.median(self.seconds(lambda: self.cupy.copyto(b, a), runs))

    def facts(self) -> dict[str, Any]:
        """See `Device`."""
        runtime, p = self.cupy.cuda.runtime, self._properties
        return {
            "device": self.name,
            "compute_capability": f"{p['major']}.{p['minor']}",
            "memory_bytes": int(p["totalGlobalMem"]),
            "l2_bytes": int(p["l2CacheSize"]),
            "cupy": self.cupy.__version__,
            "driver_cuda": runtime.driverGetVersion(),
            "runtime_cuda": runtime.runtimeGetVersion(),
        }


class Host:
    """The CPU, which runs the kernels by g++. Its times say nothing about a GPU."""

    name = "host (no GPU)"

    def __init__(self) -> None:
        self.engine = CudaEngine(HostRuntime())
        self.staged = Staged(self.engine, None)

    def array(self, host: Array) -> Array:
        """See `Device`."""
        return host.copy()

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """See `Device`."""
        return np.empty(shape, dtype)

    host = pinned = array

    def seconds(self, call: Callable[[], Any], runs: int) -> list[float]:
        """See `Device`."""
        call()
        taken = []
        for _ in range(runs):
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        return taken

    def wall(self, call: Callable[[], Any], runs: int) -> float:
        """See `Device`."""
        return _wall(call, runs, lambda: None, lambda: None)

    returns = wall

    def bandwidth(self, runs: int) -> float:
        """See `Device`."""
        a, b = np.ones(COPY_BYTES >> 5, np.uint8), np.empty(COPY_BYTES >> 5, np.uint8)
        return 2 * a.nbytes / statistics.median(self.seconds(lambda: np.copyto(b, a), runs))

    def facts(self) -> dict[str, Any]:
        """See `Device`."""
        return {"device": self.name}


def _wall(call: Callable[[], Any], runs: int, before: Callable[[], Any], after: Callable[[], Any]) -> float:
    call()
    taken = []
    for _ in range(runs):
        before()
        start = time.perf_counter()
        call()
        after()
        taken.append(time.perf_counter() - start)
    before()
    return statistics.median(taken)


def median(device: Device, call: Callable[[], Any], runs: int) -> float:
    """Seconds of the middle run, on the device's own clock."""
    return statistics.median(device.seconds(call, runs))


def launched(device: Device, call: Callable[[], Any]) -> Counter[str]:
    """The kernels that a call launches when it is made again."""
    call()
    before = device.engine.runtime.launches.copy()
    call()
    return device.engine.runtime.launches - before


def torch_on(device: Device) -> Any:
    """torch, where the device is a GPU that it can use, too; else None.

    Its stream and CuPy's are both the default one here, whose events take the time.
    """
    if not isinstance(device, Gpu) or not importlib.util.find_spec("torch"):
        return None
    import torch

    return torch if torch.cuda.is_available() else None


def nbytes(shape: Sequence[int], dtype: npt.DTypeLike) -> int:
    """Bytes of an array."""
    return math.prod(shape) * np.dtype(dtype).itemsize
