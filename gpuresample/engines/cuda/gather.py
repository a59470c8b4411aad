"""Launches of gathers and votes on CUDA: prefilter by table, then one thread per voxel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpuresample.engines.contract import Store
from gpuresample.engines.cuda.axis import Axes, fill_of, narrowest, pointer
from gpuresample.engines.cuda.runtime import Argument, Launch, Pointer, Runtime, Types, Uploads
from gpuresample.engines.cuda.views import View
from gpuresample.engines.packing import accumulator, bounds_of, rounding_of
from gpuresample.planning.filters import LABEL_ALPHA, LABEL_SIGMA
from gpuresample.planning.works import RULES, Gather, Separable

# Threads of a block: voxels of a row, rows.
BLOCK = (32, 8)
# As kernels/gather.cu and kernels/vote.cu have them.
MAX_TAPS, MAX_VOTES = 16, 4
# Coordinates go to the device in pieces of about this many bytes; those that fit one piece stay there with their work.
PIECE_BYTES = 64 << 20


class Gathers:
    """Gathers and votes on a runtime."""

    def __init__(self, runtime: Runtime, uploads: Uploads, axes: Axes) -> None:
        self._runtime = runtime
        self._uploads = uploads
        self._axes = axes

    def run(self, work: Gather, src: View, dst: View, store: Store) -> None:
        """Fill `dst` (batch, z, y, x) from `src` (batch, z, y, x), one volume of the batch after the other."""
        for volume in range(dst.shape[0]):
            source = src.narrow(0, volume, volume + 1)
            if work.prefilter is not None:
                source = self._prefiltered(work, source)
            self._volume(work, source.at(0), dst.at(volume), store)

    def _prefiltered(self, work: Gather, src: View) -> View:
        """The volume of coefficients, in the type that sums are made in."""
        tables = work.prefilter
        assert tables is not None
        n = (tables[0].n_dst, tables[1].n_dst, tables[2].n_dst)
        order = tuple(axis for axis, table in enumerate(tables) if not table.is_identity)
        out = self._axes.scratch((1, *n), accumulator(work.precision))
        self._axes.run(Separable(tables, order, (0, 1, 2), n, (0, 0, 0), work.precision), src, out, Store())
        return out

    def _volume(self, work: Gather, src: View, dst: View, store: Store) -> None:
        acc = accumulator(work.precision)
        n_z, n_y, n_x = work.n_dst
        file, function, extra = self._kernel(work, dst.dtype, acc, store)
        dtype = dst.dtype
        if function == "gather_copy":
            src, dst = src.bits(), dst.bits()
        fill = fill_of(store, dtype, dst.dtype)
        row_bytes = 8 * 3 * (2 if work.lines else n_x)
        rows = max(1, PIECE_BYTES // row_bytes)
        # A piece of explicit coordinates is itself indexed by idx_t.
        idx = narrowest(src.reach, dst.reach, min(rows, n_z * n_y) * row_bytes // 8)
        types = Types.of(src.dtype, dst.dtype, idx, acc if file == "gather" and function != "gather_copy" else None)
        box, extent = self._uploads.get(work, "geometry", lambda: self._geometry(work))
        for start in range(0, n_z * n_y, rows):
            stop = min(start + rows, n_z * n_y)
            coordinates = self._coordinates(work, start, stop, whole=rows >= n_z * n_y)
            blocks = -(-n_x // BLOCK[0]) * -(-(stop - start) // BLOCK[1])
            arguments: list[Argument] = [
                pointer(src), coordinates, pointer(dst), box, extent, np.int32(work.lines), np.int32(work.x0),
                np.int32(work.n0), np.int32(start), np.int32(stop - start), np.int32(n_y), np.int32(n_x),
                *[idx(s) for s in src.strides], *[idx(s) for s in dst.strides], np.int32(work.rule), fill, *extra,
            ]  # fmt: skip
            self._runtime.launch(Launch(file, function, types, blocks, BLOCK, arguments))

    def _kernel(
        self, work: Gather, dtype: np.dtype[Any], acc: np.dtype[Any], store: Store
    ) -> tuple[str, str, tuple[Argument, ...]]:
        """File, function and the arguments that only that kernel takes."""
        if work.method == "index":
            return "gather", "gather_copy", ()
        if work.method == "label_linear":
            return "vote", "vote_linear", ()
        if work.method == "label_gaussian":
            cut = LABEL_SIGMA * LABEL_ALPHA
            assert math.floor(2 * cut) + 1 <= MAX_VOTES
            return "vote", "vote_gaussian", (np.float64(LABEL_SIGMA), np.float64(cut))
        low, high = bounds_of(dtype, acc, store)
        common = (low, high, np.int32(rounding_of(dtype, store)), np.int32(work.spline))
        pieces, width, terms = work.coefficients.shape
        if width == 2 and work.rule != RULES["crop"]:
            return "gather", "gather_linear", (*common, np.int32(work.offset))
        if width > MAX_TAPS:
            raise ValueError(f"coefficients must have at most {MAX_TAPS} taps per axis, got {width}")
        coefficients = self._uploads.get(
            work, ("coefficients", acc), lambda: self._axes.upload(work.coefficients.astype(acc))
        )
        function = "gather_cubic" if (pieces, width, terms) == (1, 4, 4) else "gather_any"
        sizes = (np.int32(pieces), np.int32(width), np.int32(terms))
        rest = (np.float64(work.shift), np.int32(work.offset), np.int32(work.normalise))
        return "gather", function, (*common, coefficients, *sizes, *rest)

    def _geometry(self, work: Gather) -> tuple[Pointer, Pointer]:
        """The kernels' box and extent."""
        extent = np.array([work.n_src, work.base], np.int32)
        return self._axes.upload(np.array(work.box, np.float64)), self._axes.upload(extent)

    def _coordinates(self, work: Gather, start: int, stop: int, whole: bool) -> Pointer:
        """Coordinates of rows `start` to `stop` on the device."""
        if whole and work.lines:
            return self._uploads.get(work, "coordinates", lambda: self._axes.upload(work.coordinates(start, stop)))
        return self._axes.upload(work.coordinates(start, stop))
