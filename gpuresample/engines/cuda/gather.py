"""Launches of gathers and votes on CUDA: prefilter by table, then one launch for the whole batch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpuresample.engines.cuda import routes, structs
from gpuresample.engines.cuda.axis import Axes, fill_of, narrowest, pointer
from gpuresample.engines.cuda.routes import LANES, ROWS, SHARED_BYTES
from gpuresample.engines.cuda.runtime import Argument, Launch, Pointer, Runtime, Types, Uploads
from gpuresample.engines.cuda.structs import storing
from gpuresample.engines.cuda.views import View
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.planning.filters import LABEL_ALPHA, LABEL_SIGMA
from gpuresample.planning.works import RULES, Gather, Separable

# As kernels/gather.cu and kernels/vote.cu have them.
MAX_TAPS, MAX_VOTES = 16, 4
# Kernels that have a version of their own for fields.
OF_FIELDS = ("gather_copy", "gather_linear", "gather_cubic")
# Most bytes of coefficients at once: that many volumes of a batch are prefiltered and gathered together, at least one.
PREFILTER_BYTES = 1 << 30


class Gathers:
    """Gathers and votes on a runtime."""

    def __init__(self, runtime: Runtime, uploads: Uploads, axes: Axes) -> None:
        self._runtime = runtime
        self._uploads = uploads
        self._axes = axes

    def run(self, work: Gather, src: View, dst: View, store: Store, first: int = 0) -> None:
        """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x); `first`: their first volume in the work's batch.

        Raises
        ------
        ValueError
            If the work has neither one route nor one for every volume, or a route is none that kernels follow.
        """
        n = dst.shape[0]
        many = len(work.routes) > 1
        if many and first + n > len(work.routes):
            raise ValueError(f"routes must be one, or one for each of the volumes, got {len(work.routes)}")
        together = self._together(work, n)
        for start in range(0, n, together):
            stop = min(start + together, n)
            source = src.narrow(0, start, stop)
            if work.prefilter is not None:
                source = self._prefiltered(work.prefilter, source)
            self._launch(work, (first + start, first + stop), source, dst.narrow(0, start, stop), store)

    def _together(self, work: Gather, n: int) -> int:
        """Volumes of a batch that one launch takes."""
        return n if work.prefilter is None else min(n, max(1, PREFILTER_BYTES // coefficient_bytes(work)))

    def _prefiltered(self, prefilter: Separable, src: View) -> View:
        """The coefficients of volumes, in the type that sums are made in."""
        out = self._axes.scratch((src.shape[0], *prefilter.n_dst), accumulator(prefilter.precision))
        self._axes.run(prefilter, src, out, Store())
        return out

    def _launch(self, work: Gather, volumes: tuple[int, int], src: View, dst: View, store: Store) -> None:
        acc = accumulator(work.precision)
        file, function, extra = self._kernel(work, dst.dtype, acc, store)
        dtype = dst.dtype
        if function == "gather_copy":
            src, dst = src.bits(), dst.bits()
        kind = routes.kind_of(work.routes)
        function += kind if kind != "_field" or function in OF_FIELDS else "_lattice"
        fill = fill_of(store, dtype, dst.dtype)
        # Offsets count within a volume; its first voxel is found by 64 bits.
        idx = narrowest(src.at(0).reach, dst.at(0).reach, math.prod(work.n_dst))
        types = Types.of(src.dtype, dst.dtype, idx, acc if file == "gather" and work.method != "index" else None)
        arguments = [*self.geometry(work, volumes, src, dst, idx), fill, *extra]
        blocks = routes.blocks(work.n_dst) * dst.shape[0]
        self._runtime.launch(Launch(file, function, types, blocks, (LANES, ROWS), arguments, SHARED_BYTES))

    def geometry(
        self, work: Gather, volumes: tuple[int, int], src: View, dst: View, idx: type[np.int32] | type[np.int64]
    ) -> list[Argument]:
        """What all kernels that follow routes take first, `src` (batch, z, y, x), `dst` the same and perhaps more."""
        routes, many = self.routes(work, volumes)
        return [pointer(src), routes, pointer(dst), structs.geometry(idx, work, many, src, dst, _inner(work))]

    def routes(self, work: Gather, volumes: tuple[int, int]) -> tuple[Pointer, bool]:
        """The routes of volumes `start` to `stop` of the batch on the device, and whether each has its own."""
        many = len(work.routes) > 1
        each = work.routes[slice(*volumes)] if many else work.routes

        def make() -> Pointer:
            rows, keep = routes.packed(self._runtime, self._uploads, each, work.n_dst)
            made = self._axes.upload(rows.view(np.uint8), routes.ROUTE.itemsize)
            return made._replace(keep=(made.keep, keep))

        return self._uploads.get(work, ("routes", volumes if many else None), make), many

    def _kernel(
        self, work: Gather, dtype: np.dtype[Any], acc: np.dtype[Any], store: Store
    ) -> tuple[str, str, tuple[Argument, ...]]:
        """File, function and the arguments that only that kernel takes."""
        if work.method == "index":
            return "gather", "gather_copy", ()
        if work.scores is not None:
            raise ValueError("votes by scores in 16-bit floats are the CPU engine's alone")
        if work.method == "label_linear":
            return "vote", "vote_linear", ()
        if work.method == "label_gaussian":
            cut = LABEL_SIGMA * LABEL_ALPHA
            assert math.floor(2 * cut) + 1 <= MAX_VOTES
            return "vote", "vote_gaussian", (np.float64(LABEL_SIGMA), np.float64(cut))
        pieces, width, terms = work.coefficients.shape
        if width == 2 and work.rule != RULES["crop"]:
            return "gather", "gather_linear", (*storing(dtype, acc, store), structs.taps(work))
        if width > MAX_TAPS:
            raise ValueError(f"coefficients must have at most {MAX_TAPS} taps per axis, got {width}")
        function = "gather_cubic" if (pieces, width, terms) == (1, 4, 4) else "gather_any"
        return "gather", function, (*storing(dtype, acc, store), *self.weights(work, acc))

    def weights(self, work: Gather, acc: np.dtype[Any]) -> tuple[Argument, ...]:
        """The kernels' polynomials: coefficients on the device, and what finds a voxel's cell."""
        coefficients = self._uploads.get(
            work, ("coefficients", acc), lambda: self._axes.upload(work.coefficients.astype(acc))
        )
        return coefficients, structs.taps(work)


def _inner(work: Gather) -> tuple[int, ...]:
    """Cells from 0 on along z, y, x that are a position's floor, or its nearest voxel, and need no border's rule."""
    copies = work.method == "index"
    pair = work.method == "sum" and work.coefficients.shape == (1, 2, 2) and not work.narrow and not work.normalise
    # What lies within half a voxel of the first one may go to the other end.
    away = copies and work.rule == RULES["wrap"]
    if away or (not copies and (not pair or work.offset or work.shift)):
        return 0, 0, 0
    rim, cells = (0.5, 0) if copies else (0.0, 1)
    inside = [low <= -rim and high >= n - cells - rim for n, (low, high) in zip(work.n_src, work.box, strict=True)]
    return tuple(n - cells if i else 0 for n, i in zip(work.n_src, inside, strict=True))


def coefficient_bytes(work: Gather) -> int:
    """Bytes of the coefficients of one volume."""
    assert work.prefilter is not None
    return math.prod(work.prefilter.n_dst) * accumulator(work.precision).itemsize
