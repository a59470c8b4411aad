"""The CUDA engine: plans on arrays of a runtime, through the kernels in `kernels/`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.contract import Ensemble, Gather, Outputs, Store, Work
from gpuresample.engines.cuda_axis import Axes
from gpuresample.engines.cuda_ensemble import Ensembles
from gpuresample.engines.cuda_gather import Gathers
from gpuresample.engines.cuda_runtime import CupyRuntime, Runtime, Uploads
from gpuresample.engines.views import View, volumes

# What scores may come as, without a copy.
SCORE_TYPES = ("float16", "float32")


class CudaEngine:
    """See `contract.Engine`.

    Parameters
    ----------
    runtime : Runtime
        `CupyRuntime` for arrays on a GPU, `HostRuntime` for NumPy arrays.
    """

    name = "cuda"
    score_types = SCORE_TYPES

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        uploads = Uploads(runtime)
        self.axes = Axes(runtime, uploads)
        self.gathers = Gathers(runtime, uploads, self.axes)
        self.ensembles = Ensembles(runtime, self.axes, self._resample)

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
            source, target = self._view(src), View.of(dst, self.runtime.address(dst))
            for s, d in volumes(source, target):
                self._resample(work, s, d, store)

    def _resample(self, work: Work, src: View, dst: View, store: Store) -> None:
        """`run` on views (batch, z, y, x)."""
        if isinstance(work, Gather):
            self.gathers.run(work, src, dst, store)
        else:
            self.axes.run(work, src, dst, store)

    def _view(self, array: Any) -> View:
        """An array as the launches take it, copied first where its memory cannot be addressed by elements."""
        try:
            return View.of(array, self.runtime.address(array))
        except ValueError:
            array = self.runtime.contiguous(array)
            return View.of(array, self.runtime.address(array))

    def new_counts(self, n: int) -> Any:
        """Counters for `combine`, at zero."""
        return self.runtime.upload(np.zeros(n, np.uint64))

    def combine(self, work: Ensemble, scores: Sequence[Any], outputs: Outputs, counts: Any) -> None:
        """Fill `outputs`, arrays in C order, from scores [class, z, y, x], in the order of the current stream.

        See `contract.Engine`.
        """
        with self.runtime.on(counts):
            views = Outputs(**{name: None if a is None else self._view(a) for name, a in vars(outputs).items()})
            self.ensembles.run(work, [self._view(part) for part in scores], views, self._view(counts))

    def read_counts(self, counts: Any) -> list[int]:
        """The counters; waits for what has been asked for."""
        out = np.empty(counts.shape, np.uint64)
        self.runtime.download(counts, out)
        return [int(n) for n in out]


class Staged:
    """The CUDA engine for arrays in host memory: to the device, there, and back.

    Parameters
    ----------
    engine : CudaEngine
    device : int or None
        Number of the GPU; None for CuPy's current one.
    """

    name = "cuda"
    score_types = SCORE_TYPES

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

    def new_counts(self, n: int) -> Any:
        """Counters for `combine`, at zero."""
        with self.engine.runtime.use(self.device):
            return self.engine.new_counts(n)

    def combine(self, work: Ensemble, scores: Sequence[Any], outputs: Outputs, counts: Any) -> None:
        """Fill `outputs` from `scores`, all in host memory; returns when it is there. See `contract.Engine`."""
        runtime = self.engine.runtime
        with runtime.use(self.device):
            sources = [runtime.upload(np.ascontiguousarray(part)) for part in scores]
            made = {n: runtime.empty(a.shape, a.dtype) for n, a in vars(outputs).items() if a is not None}
            self.engine.combine(work, sources, Outputs(**made), counts)
            for name, array in made.items():
                runtime.download(array, getattr(outputs, name))

    def read_counts(self, counts: Any) -> list[int]:
        """The counters."""
        with self.engine.runtime.use(self.device):
            return self.engine.read_counts(counts)


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
