"""The CUDA engine: plans on arrays of a runtime, through the kernels in `kernels/`."""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.contract import Gather, Majority, Store, Work
from gpuresample.engines.cuda_axis import Axes
from gpuresample.engines.cuda_gather import Gathers
from gpuresample.engines.cuda_majority import run_majority
from gpuresample.engines.cuda_runtime import CupyRuntime, Runtime, Uploads
from gpuresample.engines.views import View, volumes


class CudaEngine:
    """See `contract.Engine`.

    Parameters
    ----------
    runtime : Runtime
        `CupyRuntime` for arrays on a GPU, `HostRuntime` for NumPy arrays.
    """

    name = "cuda"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        uploads = Uploads(runtime)
        self.axes = Axes(runtime, uploads)
        self.gathers = Gathers(runtime, uploads, self.axes)

    def run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, in the order of the current stream.

        Raises
        ------
        ValueError
            If `dst` cannot be addressed by whole native elements.
        """
        if dst.size == 0:
            return
        with self.runtime.on(dst):
            target = View.of(dst, self.runtime.address(dst))
            try:
                source = View.of(src, self.runtime.address(src))
            except ValueError:
                src = self.runtime.contiguous(src)
                source = View.of(src, self.runtime.address(src))
            for s, d in volumes(source, target):
                if isinstance(work, Gather):
                    self.gathers.run(work, s, d, store)
                elif isinstance(work, Majority):
                    run_majority(self.runtime, work, s, d)
                else:
                    self.axes.run(work, s, d, store)


class Staged:
    """The CUDA engine for arrays in host memory: to the device, there, and back.

    Parameters
    ----------
    engine : CudaEngine
    device : int or None
        Number of the GPU; None for CuPy's current one.
    """

    name = "cuda"

    def __init__(self, engine: CudaEngine, device: int | None) -> None:
        self.engine = engine
        self.device = device

    def run(self, work: Work, src: npt.NDArray[Any], dst: npt.NDArray[Any], store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`; returns when the result is in `dst`."""
        if dst.size == 0:
            return
        runtime = self.engine.runtime
        with runtime.use(self.device):
            source = runtime.upload(np.ascontiguousarray(src, dtype=src.dtype.newbyteorder("=")))
            target = runtime.empty(dst.shape, dst.dtype)
            self.engine.run(work, source, target, store)
            runtime.download(target, dst)


@lru_cache(maxsize=1)
def _engine() -> CudaEngine:
    """The process's engine on CuPy: its modules and tables serve all devices."""
    return CudaEngine(CupyRuntime())


def find(device: str) -> Staged:
    """The engine for host arrays on "cuda" or "cuda:N".

    Raises
    ------
    RuntimeError
        With the reason, if there is no usable GPU of that number.
    """
    number = int(device[5:]) if ":" in device else None
    try:
        with warnings.catch_warnings():
            # CuPy warns of a missing toolkit, which its wheels bring along or not; what counts is whether it works.
            warnings.simplefilter("ignore")
            import cupy

            count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise RuntimeError(f"CuPy cannot be imported ({error})") from None
    except RuntimeError as error:
        raise RuntimeError(f"CuPy finds no usable GPU ({error})") from None
    if count <= (number or 0):
        raise RuntimeError(f"there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, numbered from 0")
    return Staged(_engine(), number)
