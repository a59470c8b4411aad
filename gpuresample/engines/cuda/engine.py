"""The CUDA engine: plans on arrays of a runtime, through the kernels in `kernels/`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from gpuresample.engines.conversion import converted
from gpuresample.engines.cuda import forks
from gpuresample.engines.cuda.axis import Axes
from gpuresample.engines.cuda.ensemble import CudaCombiner
from gpuresample.engines.cuda.gather import Gathers
from gpuresample.engines.cuda.gradient import Gradients, with_one
from gpuresample.engines.cuda.majority import run_majority
from gpuresample.engines.cuda.replays import Replays, noted
from gpuresample.engines.cuda.runtime import CupyRuntime, Runtime, Uploads
from gpuresample.engines.cuda.staging import Staged
from gpuresample.engines.cuda.views import View, volumes
from gpuresample.engines.interface import Call, Combiner, Store
from gpuresample.planning.works import Gather, Majority, Work


class CudaEngine:
    """See `interface.Engine`.

    Parameters
    ----------
    runtime : Runtime
        `CupyRuntime` for arrays on a GPU, `HostRuntime` for NumPy arrays.
    """

    name = "cuda"

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        uploads, own = Uploads(runtime), noted(runtime)
        self.axes = Axes(own, uploads)
        self.gathers = Gathers(own, uploads, self.axes)
        self.gradients = Gradients(own, uploads, self.axes, self.gathers)
        self._noted = own
        self._replays = Replays(runtime)

    def run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`, in the order of the current stream.

        Raises
        ------
        ValueError
            If `dst` cannot be addressed by whole native elements.
        """
        if dst.size == 0:
            return

        def act() -> None:
            converted(self._run, self._noted.empty, self._convert, work, src, dst, store)

        with self.runtime.on(dst):
            self._replays.run(work, ("run", store.text), (src, dst), act)

    def run_all(self, calls: Sequence[Call]) -> None:
        """See `interface.Engine`."""
        for call in calls:
            self.run(*call)

    def _run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        first = 0
        for s, d in self._volumes(src, dst, _is_ordered(work)):
            self._work(work, s, d, store, first)
            first += d.shape[0]

    def _work(self, work: Work, src: View, dst: View, store: Store, first: int = 0) -> None:
        """Work on views (batch, z, y, x); `first`: their first volume in the work's batch."""
        if isinstance(work, Gather) and any(work.derivative):
            self.gradients.run(work, src, dst, first)
        elif isinstance(work, Gather):
            self.gathers.run(work, src, dst, store, first)
        elif isinstance(work, Majority):
            run_majority(self._noted, work, src, dst)
        else:
            self.axes.run(work, src, dst, store)

    def splat(self, work: Gather, grad: Any, out: Any) -> None:
        """See `interface.Differentiable`.

        A volume whose `grad` has a value that is not finite becomes NaN.

        Raises
        ------
        ValueError
            If the work is no sum of neighbours, or cut to a block.
        """
        if out.size == 0:
            return

        def act() -> None:
            first = 0
            for g, o in self._volumes(grad, out, _is_ordered(work)):
                self.gradients.splat(work, g, o, first)
                first += o.shape[0]

        with self.runtime.on(out):
            self._replays.run(work, "splat", (grad, out), act)

    def gradient(self, work: Gather, src: Any, out: Any, grad: Any = None) -> None:
        """See `interface.Differentiable`; of arrays (batch, z, y, x), or with `grad` (batch, channel, z, y, x).

        `grad` is of the type that sums are made in.

        Raises
        ------
        ValueError
            If the work is no sum of neighbours.
        """
        if out.size == 0:
            return

        def act() -> None:
            source, target = self._view(src), View.of(out, self.runtime.address(out))
            if grad is None:
                self.gradients.slopes(work, with_one(source), target)
            else:
                self.gradients.slopes(work, source, target, self._view(grad))

        with self.runtime.on(out):
            self._replays.run(work, "gradient", (src, out, grad), act)

    def moments(self, values: Any, field: Any, out: Any) -> None:
        """See `interface.Differentiable`; of arrays (batch, 3, z, y, x)."""
        with self.runtime.on(out):
            moved = None if field is None else self._view(field)
            self.gradients.moments(self._view(values), moved, View.of(out, self.runtime.address(out)))

    def _convert(self, src: Any, dst: Any, rounding: int, factor: float) -> None:
        for s, d in self._volumes(src, dst, ordered=False):
            self.axes.convert(s, d, rounding, factor)

    def _volumes(self, src: Any, dst: Any, ordered: bool) -> Iterator[tuple[View, View]]:
        """Source and destination as views (batch, z, y, x), see `volumes`; a source of odd bytes is copied first."""
        return volumes(self._view(src), View.of(dst, self.runtime.address(dst)), ordered)

    def _view(self, array: Any) -> View:
        """An array as the launches take it; one of odd bytes is copied first."""
        try:
            return View.of(array, self.runtime.address(array))
        except ValueError:
            array = self._noted.contiguous(array)
            return View.of(array, self.runtime.address(array))

    @contextmanager
    def combining(self, models: int) -> Iterator[Combiner]:
        """What combines blocks of an ensemble of so many models. See `interface.Engine`."""
        yield CudaCombiner(self.runtime, self.axes, self._work, self._view, models)


def _is_ordered(work: Work) -> bool:
    """Whether the k-th volume has a route of its own."""
    return isinstance(work, Gather) and len(work.routes) > 1


@lru_cache(maxsize=1)
def _engine() -> CudaEngine:
    """The process's engine on CuPy: its modules and tables serve all devices. Whether there are any is asked once."""
    usable()
    return CudaEngine(CupyRuntime())


def usable(number: int = 0) -> Any:
    """CuPy, if it can use a GPU of that number.

    Raises
    ------
    RuntimeError
        With the reason, if not.
    """
    forks.check()
    try:
        with warnings.catch_warnings():
            # CuPy warns of a missing toolkit, which its wheels bring along or not; what counts is whether it works.
            warnings.simplefilter("ignore")
            import cupy

            count = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise RuntimeError(f"CuPy cannot be imported ({error})") from None
    except RuntimeError as error:
        if forks.is_child() and "InitializationError" in str(error):
            # Whoever used CUDA in the parent, it was not this package.
            raise forks.ForkedError(forks.LOST) from None
        raise RuntimeError(f"CuPy finds no usable GPU ({error})") from None
    if count:
        forks.note_use()
    if count <= number:
        raise RuntimeError(f"there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, numbered from 0")
    return cupy


def engine() -> CudaEngine:
    """The engine for arrays on a GPU.

    Raises
    ------
    RuntimeError
        With the reason, if there is no usable GPU.
    """
    forks.check()
    return _engine()


def find(device: str) -> Staged:
    """The engine for host arrays on "cuda" or "cuda:N".

    Raises
    ------
    RuntimeError
        With the reason, if there is no usable GPU of that number.
    """
    number = int(device[5:]) if ":" in device else None
    if number:
        usable(number)
    return Staged(engine(), number)
