"""What `benchmarks.regress` starts in every checkout that it compares: a process that times jobs as it is told.

It is run by path, with the checkout on PYTHONPATH, and leans on nothing but the package's public names: the checkout
may be older than this file. On standard input come requests, one line of JSON each; answers go the same way.
"""

from __future__ import annotations

import importlib
import inspect
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Call = Callable[[], object]
Axes = tuple[float, float, float]

# A target grid turned by 10 degrees about the first axis of its physical space.
_COS, _SIN = 0.984807753012208, 0.17364817766693033
TURNED = (1.0, 0.0, 0.0, 0.0, _COS, -_SIN, 0.0, _SIN, _COS)


@dataclass(frozen=True)
class Job:
    """One thing to time.

    Attributes
    ----------
    what : str
    kind : {"resample", "gaussian", "ensemble"}
    shape : tuple of int
        z, y, x of the input at scale 1.
    dtype : str
    interpolation : str
    step : tuple of float
        x, y, z: spacing of the result in voxels of the input; of a Gaussian, its sigma.
    turned : bool
        Whether the target grid is oblique.
    threads : int or None
        Of the CPU engine; None for all. One thread is either running or not, and the least of some measurements is one
        that was. Of two, on a shared machine, one waits for the other most of the time.
    """

    what: str
    kind: str
    shape: tuple[int, int, int]
    dtype: str
    interpolation: str = ""
    step: Axes = (1.0, 1.0, 1.0)
    turned: bool = False
    threads: int | None = 1


CT, MR = (96, 160, 160), (64, 96, 96)
COARSER, FINER = (1.28, 1.28, 2.0), (0.7, 0.7, 0.7)
CLASSES = 12

JOBS = {
    "bspline": Job("CT, cubic B-spline, int16", "resample", CT, "int16", "bspline", COARSER),
    "linear": Job("CT, linear, int16", "resample", CT, "int16", "linear", COARSER),
    "nearest": Job("CT, nearest, int16", "resample", CT, "int16", "nearest", COARSER),
    "finer": Job("MR to finer voxels, cubic B-spline, float32", "resample", MR, "float32", "bspline", FINER),
    "oblique": Job("MR onto a turned grid, cubic B-spline", "resample", MR, "float32", "bspline", turned=True),
    "gaussian": Job("Gaussian, sigma 2 voxels, float32", "gaussian", MR, "float32", step=(2.0, 2.0, 2.0)),
    "ensemble": Job("2 models, 6 classes, linear, to labels", "ensemble", (24, 48, 48), "float32", "linear",
                    (0.5, 0.5, 0.5)),
    "threads": Job("CT, cubic B-spline, int16, all threads", "resample", CT, "int16", "bspline", COARSER, threads=None),
    "tiny": Job("16x24x24, linear: what a call costs", "resample", (16, 24, 24), "int16", "linear", COARSER),
}  # fmt: skip
# What a job's time on a CPU is divided by where there is no other checkout: as short as the jobs, and on one thread.
REFERENCE = Job("MR, linear, by SimpleITK", "resample", (48, 96, 96), "float32", "linear", COARSER)


def volume(job: Job, scale: int) -> Array:
    """The input: smooth, with noise, the same everywhere."""
    shape = tuple(n * scale for n in job.shape)
    rng = np.random.default_rng(7)
    voxels = 40 * rng.standard_normal(shape)
    for k, wave in enumerate(np.ix_(*[np.sin(np.linspace(0, 3 + k, n)) for k, n in enumerate(shape)])):
        voxels += (400 + k) * wave
    if job.kind == "ensemble":
        voxels = (
            np.stack([np.roll(voxels, 3 * k, axis=2) for k in range(CLASSES)]).reshape(2, CLASSES // 2, *shape) / 400
        )
    return np.ascontiguousarray(voxels.astype(job.dtype))


def target(job: Job, shape: tuple[int, ...]) -> tuple[tuple[int, ...], Axes, tuple[float, ...]]:
    """Size (x, y, z), spacing and direction of the result."""
    size = tuple(max(1, round(n / s)) for n, s in zip(shape[::-1], job.step, strict=True))
    return size, job.step, TURNED if job.turned else tuple(np.eye(3).ravel().tolist())


def ours(job: Job, voxels: Any) -> Call:
    """The job by gpuresample, on whatever device the voxels are."""
    import gpuresample as gr

    size, spacing, direction = target(job, voxels.shape[-3:])
    if job.kind == "gaussian":
        return lambda: gr.gaussian(voxels, sigma=job.step[::-1])
    if job.kind == "ensemble":
        models = [voxels[0], voxels[1]]
        return lambda: gr.ensemble(models, size=size[::-1], interpolation=job.interpolation)
    grid = gr.Grid(size, spacing, (0.0, 0.0, 0.0), direction)
    image = gr.Volume(voxels, (1.0, 1.0, 1.0))
    return lambda: gr.resample(image, like=grid, interpolation=job.interpolation)


def simpleitk(job: Job, voxels: Array) -> Call:
    """A linear resampling by SimpleITK, on one thread."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    size, spacing, direction = target(job, voxels.shape)
    where = (size, sitk.Transform(), sitk.sitkLinear, (0.0, 0.0, 0.0), spacing, direction)
    image = sitk.GetImageFromArray(voxels)
    return lambda: sitk.Resample(image, *where)


class Cpu:
    """Times on the processor's clock. The reference is a linear resampling by SimpleITK, whatever the job."""

    scale = 1

    def __init__(self) -> None:
        import gpuresample as gr

        self.name = f"CPU, {gr.get_num_threads()} threads"

    def put(self, voxels: Array) -> Any:
        """The voxels where the job needs them."""
        return voxels

    def reference(self, job: Job, voxels: Any) -> Call:
        """What the job's time is divided by."""
        return simpleitk(REFERENCE, volume(REFERENCE, self.scale))

    def seconds(self, call: Call, calls: int) -> float:
        """Time per call of so many calls."""
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls


class Cuda:
    """Times by events on a GPU. The reference is a copy of the input's bytes on the device."""

    scale = 3  # large against the L2

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.name = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()

    def put(self, voxels: Array) -> Any:
        """See `Cpu`."""
        return self.cupy.asarray(voxels)

    def reference(self, job: Job, voxels: Any) -> Call:
        """See `Cpu`."""
        out = self.cupy.empty(voxels.shape, voxels.dtype)
        return lambda: self.cupy.copyto(out, voxels)

    def seconds(self, call: Call, calls: int) -> float:
        """See `Cpu`."""
        start, end = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        start.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, end)) / 1e3 / calls


class Worker:
    """Jobs of one checkout, prepared when first asked for."""

    def __init__(self, clock: Cpu | Cuda) -> None:
        self.clock = clock
        self._calls: dict[tuple[str, bool], Call] = {}

    def call(self, name: str, reference: bool) -> Call:
        """A job that has run once: what it loads and compiles is not timed."""
        key = name, reference
        if key not in self._calls:
            job = JOBS[name]
            voxels = self.clock.put(volume(job, self.clock.scale))
            call = self.clock.reference(job, voxels) if reference else ours(job, voxels)
            self.clock.seconds(call, 1)
            self._calls[key] = call
        return self._calls[key]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Seconds per call, the least of `times` measurements of `calls` calls each, or why there are none."""
        import gpuresample as gr

        try:
            gr.set_num_threads(JOBS[request["job"]].threads)
            call = self.call(request["job"], request["reference"])
            taken = [self.clock.seconds(call, request["calls"]) for _ in range(request["times"])]
        except Exception as error:  # an older checkout may know no such job: that is an answer
            return {"error": f"{type(error).__name__}: {error}"}
        return {"seconds": min(taken)}


def slow_down(factor: float) -> None:
    """From here on, the CPU engine's table pass takes `factor` (1 to 2) times as long: part of a block is done twice.

    For proving that it would be noticed. Results are the same.
    """
    try:
        table_kernels = importlib.import_module("gpuresample.engines.cpu.table_kernels")
    except ImportError:  # in an older checkout
        table_kernels = importlib.import_module("gpuresample.engines.cpu_kernels")

    kernel: Callable[..., object] = table_kernels.separable_block
    # The block's rows along the second axis are `b0` to `b1`, in every version; where those stand is not.
    names = list(inspect.signature(kernel).parameters)
    start, stop = names.index("b0"), names.index("b1")

    def again(*arguments: Any) -> None:
        kernel(*arguments)
        some = list(arguments)
        some[stop] = some[start] + math.ceil((some[stop] - some[start]) * (factor - 1))
        kernel(*some)

    vars(table_kernels)["separable_block"] = again


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more."""
    for line in requests:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


def main(arguments: list[str]) -> None:
    """Say who is here, then serve: `regress_worker.py DEVICE SLOW`."""
    device, factor = arguments
    import gpuresample as gr

    if float(factor) != 1:
        slow_down(float(factor))
    if device == "cuda":
        import cupy

        clock: Cpu | Cuda = Cuda(cupy)
    else:
        clock = Cpu()
    print(json.dumps({"package": gr.__file__, "version": gr.__version__, "device": clock.name}), flush=True)
    serve(Worker(clock), sys.stdin, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
