"""Launches of the gradients of gathers on CUDA: by the voxels that were read, and by where they were read."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpuresample.engines.contract import Store
from gpuresample.engines.cuda import routes
from gpuresample.engines.cuda.axis import BLOCK, Axes, narrowest, pointer
from gpuresample.engines.cuda.gather import Gathers, prefilter_of
from gpuresample.engines.cuda.routes import LANES, ROWS, SHARED_BYTES
from gpuresample.engines.cuda.runtime import Argument, Launch, Runtime, Types
from gpuresample.engines.cuda.views import View
from gpuresample.engines.packing import accumulator
from gpuresample.planning import planner
from gpuresample.planning.works import RULES, Gather

SUMS = np.dtype(np.uint64)
# Threads that look for the largest gradient: this many of its voxels each, at least.
VOXELS_EACH = 32
# Taps of one voxel together: what its gradient is rounded for.
MOST_TAPS = 64


class Gradients:
    """Gradients of gathers on a runtime. Linear and cubic interpolation have them, sums over whole lines do not."""

    def __init__(self, runtime: Runtime, axes: Axes, gathers: Gathers) -> None:
        self._runtime = runtime
        self._axes = axes
        self._gathers = gathers

    def splat(self, work: Gather, gradient: View, dst: View) -> None:
        """The transposed gather: fill `dst` (batch, z, y, x) of the source's shape from the output's gradient.

        The same bits in every run. Where a volume's gradient has a value that is not finite, all its sums are NaN.

        Raises
        ------
        ValueError
            If the work is not linear or cubic interpolation of whole volumes.
        """
        name = _name_of(work)
        n, voxels = dst.shape[0], math.prod(work.n_dst)
        acc = accumulator(work.precision)
        target = dst
        if work.prefilter is not None:
            target = self._axes.scratch((n, *work.n_src), acc)
        if target.shape[1:] != work.n_src or work.base != (0, 0, 0):
            raise ValueError(f"the source of a gradient must be whole, {work.n_src}, got {target.shape[1:]}")
        words = 1 if acc == np.float32 else 2
        finer = 0 if words == 1 else max(1, 60 - math.ceil(math.log2(MOST_TAPS * voxels)))
        bound = np.float64(voxels * _gain(work) ** 3)
        sums = self._zeros((n * words, *work.n_src))
        largest = self._largest(gradient)
        samples = math.prod(work.n_src)
        idx = narrowest(gradient.at(0).reach, samples, voxels)
        geometry = self._gathers.geometry(work, (0, n), gradient, gradient, idx)
        src, packed, _, box, extent, many, *rest = geometry
        sizes, strides, rule = rest[:3], rest[3:7], rest[-1]
        arguments: list[Argument] = [
            src, packed, pointer(sums), pointer(largest), box, extent, many, *sizes, *strides,
            np.int64(words * samples), *[idx(s) for s in sums.strides[1:3]], rule, bound, np.int32(finer),
            np.int64(samples), *self._taps(work, name, acc),
        ]  # fmt: skip
        self._launch(work, f"splat_{name}", gradient, acc, acc, idx, n, arguments)
        wide = narrowest(target.at(0).reach)
        types = Types.of(acc, target.dtype, wide, acc)
        arguments = [
            pointer(sums), pointer(largest), pointer(target), np.int64(n), *[np.int32(k) for k in work.n_src],
            np.int64(target.strides[0]), *[wide(s) for s in target.strides[1:]], bound, np.int32(finer),
        ]  # fmt: skip
        blocks = -(-n * samples // BLOCK)
        self._runtime.launch(Launch("gradient", "settle_sums", types, blocks, (BLOCK, 1), arguments))
        if work.prefilter is not None:
            self._axes.run(planner.adjoint(prefilter_of(work)), target, dst, Store())

    def slopes(self, work: Gather, src: View, dst: View) -> None:
        """Fill `dst` (batch, z, y, x, 3) with the derivatives of the gather along the source's x, y, z, per voxel.

        Raises
        ------
        ValueError
            If the work is not linear or cubic interpolation.
        """
        name = _name_of(work)
        n, acc = dst.shape[0], accumulator(work.precision)
        if work.prefilter is not None:
            prefilter = prefilter_of(work)
            source = self._axes.scratch((n, *prefilter.n_dst), acc)
            self._axes.run(prefilter, src, source, Store())
            src = source
        idx = narrowest(src.at(0).reach, dst.at(0).reach, math.prod(work.n_dst))
        across = View(dst.address, dst.dtype, dst.shape[:4], dst.strides[:4], dst.keep)
        coefficients, _, _, _, shift, offset = self._gathers.weights(work, acc)
        arguments = [
            *self._gathers.geometry(work, (0, n), src, across, idx), idx(dst.strides[4]), coefficients, shift, offset,
        ]  # fmt: skip
        self._launch(work, f"gradient_{name}", src, dst.dtype, acc, idx, n, arguments)

    def _launch(
        self,
        work: Gather,
        function: str,
        src: View,
        dst: np.dtype[Any],
        acc: np.dtype[Any],
        idx: type[np.int32] | type[np.int64],
        n: int,
        arguments: list[Argument],
    ) -> None:
        """A kernel that follows routes."""
        if not all(route.lines for route in work.routes):
            function += "_lattice"
        blocks = n * routes.blocks(work.n_dst)
        types = Types.of(src.dtype, dst, idx, acc)
        self._runtime.launch(Launch("gradient", function, types, blocks, (LANES, ROWS), arguments, SHARED_BYTES))

    def _taps(self, work: Gather, name: str, acc: np.dtype[Any]) -> tuple[Argument, ...]:
        """The arguments that only that splat takes."""
        if name == "linear":
            return np.int32(work.narrow), np.int32(work.offset)
        coefficients, _, _, _, shift, offset = self._gathers.weights(work, acc)
        return coefficients, shift, offset

    def _zeros(self, shape: tuple[int, int, int, int]) -> View:
        out = self._axes.scratch(shape, SUMS)
        self._axes.fill(out, Store(0))
        return out

    def _largest(self, gradient: View) -> View:
        """The largest absolute value of every volume, as the kernels have it."""
        n_b, n_z, n_y, n_x = gradient.shape
        out = self._zeros((1, 1, 1, n_b))
        idx = narrowest(gradient.at(0).reach)
        each = max(1, min(1024, n_z * n_y * n_x // (BLOCK * VOXELS_EACH)))
        arguments: list[Argument] = [
            pointer(gradient), pointer(out), np.int32(each), np.int32(n_z), np.int32(n_y), np.int32(n_x),
            np.int64(gradient.strides[0]), *[idx(s) for s in gradient.strides[1:]],
        ]  # fmt: skip
        types = Types.of(gradient.dtype, gradient.dtype, idx, np.dtype(np.float64))
        shared = BLOCK * SUMS.itemsize
        self._runtime.launch(Launch("gradient", "find_largest", types, n_b * each, (BLOCK, 1), arguments, shared))
        return out


def _name_of(work: Gather) -> str:
    """Which kernels have the work's weights."""
    shape = work.coefficients.shape
    if work.method == "linear" and work.rule != RULES["crop"] and not work.normalise:
        if shape == (1, 2, 2):
            return "linear"
        if shape == (1, 4, 4):
            return "cubic"
    raise ValueError(f"gradients must be of linear or cubic interpolation, got {work.method!r} of taps {shape}")


def _gain(work: Gather) -> float:
    """The most that the weights of one position add up to along an axis, without their signs."""
    u = np.linspace(0.0, 1.0, 257)
    weights = np.polynomial.polynomial.polyval(u, work.coefficients[0].T)
    return 1.001 * float(np.abs(weights).sum(axis=0).max())
