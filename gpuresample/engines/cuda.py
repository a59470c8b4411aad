"""The CUDA engine: plans on arrays of a runtime, through the kernels in `kernels/`."""

from __future__ import annotations

from typing import Any

from gpuresample.engines.contract import Gather, Store, Work
from gpuresample.engines.cuda_axis import Axes
from gpuresample.engines.cuda_gather import Gathers
from gpuresample.engines.cuda_runtime import Runtime, Uploads
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
                else:
                    self.axes.run(work, s, d, store)
