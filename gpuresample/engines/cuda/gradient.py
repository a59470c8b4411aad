"""Launches of the gradients of gathers on CUDA: by the voxels that were read, and by where they were read."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.polynomial.polynomial import polyval

from gpuresample.engines.cuda import routes, structs
from gpuresample.engines.cuda.axis import BLOCK, Axes, narrowest, pointer
from gpuresample.engines.cuda.gather import MAX_TAPS, Gathers
from gpuresample.engines.cuda.routes import LANES, ROWS, SHARED_BYTES
from gpuresample.engines.cuda.runtime import Argument, Launch, Pointer, Runtime, Types, Uploads
from gpuresample.engines.cuda.views import View, volumes
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.planning import planner
from gpuresample.planning.filters import FloatArray, differentiated
from gpuresample.planning.works import RULES, Gather, Separable

SUMS = np.dtype(np.uint64)
# Threads that look for the largest gradient: this many of its voxels each, at least.
VOXELS_EACH = 32
# Voxels of one thread of `sum_moments`, and its numbers: three sums by four.
VOXELS_SUMMED, NUMBERS = 64, 12
# Most blocks that sum one volume.
MOST_BLOCKS = 1024


class Gradients:
    """Gradients of gathers on a runtime. Sums of neighbours have them, unless they are normalised."""

    def __init__(self, runtime: Runtime, uploads: Uploads, axes: Axes, gathers: Gathers) -> None:
        self._runtime = runtime
        self._uploads = uploads
        self._axes = axes
        self._gathers = gathers

    def splat(self, work: Gather, gradient: View, dst: View, first: int = 0) -> None:
        """The transposed gather: fill `dst` (batch, z, y, x) of the source's shape from the output's gradient.

        `first` is their first volume in the work's batch.

        The same bits in every run. Where a volume's gradient has a value that is not finite, all its sums are NaN.

        Raises
        ------
        ValueError
            If the work is no sum of a whole volume's neighbours.
        """
        name = _name_of(work)
        coefficients = _of_axes(work)
        n, voxels = dst.shape[0], math.prod(work.n_dst)
        acc = accumulator(work.precision)
        target = dst
        if work.prefilter is not None:
            target = self._axes.scratch((n, *work.n_src), acc)
        if target.shape[1:] != work.n_src or work.base != (0, 0, 0):
            raise ValueError(f"the source of a gradient must be whole, {work.n_src}, got {target.shape[1:]}")
        words = 1 if acc == np.float32 else 2
        taps = coefficients.shape[2] ** 3
        finer = 0 if words == 1 else max(1, 60 - math.ceil(math.log2(taps * voxels)))
        bound = np.float64(voxels * _gain(coefficients))
        if bound == 0:
            # Weights of which the last derivative is taken: nothing is left, and there is no unit.
            self._axes.fill(dst, Store(0))
            return
        sums = self._zeros((n * words, *work.n_src))
        largest = self._largest(gradient)
        samples = math.prod(work.n_src)
        idx = narrowest(gradient.at(0).reach, samples, voxels)
        # Of sums in two words, a volume is as long as two.
        apart = View(sums.address, SUMS, (n, *work.n_src), (words * samples, *sums.strides[1:]), sums.keep)
        src, packed, _, geometry = self._gathers.geometry(work, (first, first + n), gradient, apart, idx)
        arguments: list[Argument] = [
            src, packed, pointer(sums), pointer(largest), geometry, structs.struct(structs.SUMS, bound, samples, finer),
            *self._taps(work, name, coefficients, acc),
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
            self._axes.run(planner.adjoint(work.prefilter), target, dst, Store())

    def slopes(self, work: Gather, src: View, dst: View, beside: View | None = None, only: int | None = None) -> None:
        """Fill `dst` (batch, 3, z, y, x) with derivatives by the position's x, y, z of a gather of (batch, c, z, y, x).

        The sum over channels c of each times what is `beside`, of the output's shape and the type that sums are made
        in; one channel needs nothing beside it. With `only`, that derivative alone: `dst` has 1 in the place of 3.

        Raises
        ------
        ValueError
            If the work is no sum of neighbours.
        """
        name = _name_of(work)
        n, channels, acc = dst.shape[0], src.shape[1], accumulator(work.precision)
        if work.prefilter is not None:
            src = self._prefiltered(work.prefilter, src)
        factors, reach = Pointer(0, acc.itemsize, None), 0
        apart: tuple[int, ...] = (0, 0)
        steps: tuple[int, ...] = (0, 0, 0)
        if beside is not None:
            factors, reach = pointer(beside), beside.at(0).at(0).reach
            apart, steps = beside.strides[:2], beside.strides[2:]
        one, across = _without_channels(src), _without_channels(dst)
        idx = narrowest(one.at(0).reach, dst.at(0).reach, reach, math.prod(work.n_dst))
        arguments: list[Argument] = [
            *self._gathers.geometry(work, (0, n), one, across, idx), factors,
            structs.channels(
                idx, src.strides[1], *apart, *steps, 0 if only is not None else dst.strides[1], channels,
                -1 if only is None else only,
            ),
            *self._weights(work, _of_axes(work), acc),
        ]  # fmt: skip
        self._launch(work, f"gradient_{name}", src, dst.dtype, acc, idx, n, arguments)

    def run(self, work: Gather, src: View, dst: View, first: int) -> None:
        """Fill `dst` (batch, z, y, x) with a gather's derivative, as often along z, y, x as `work.derivative` says."""
        axis = next(a for a, k in enumerate(work.derivative) if k)
        lower = [k - (a == axis) for a, k in enumerate(work.derivative)]
        work = replace(work, derivative=(lower[0], lower[1], lower[2]))
        if len(work.routes) > 1:
            work = replace(work, routes=work.routes[first : first + dst.shape[0]])
        self.slopes(work, with_one(src), with_one(dst), only=2 - axis)

    def moments(self, values: View, field: View | None, out: View) -> None:
        """Fill `out` (batch, 3, 4), float64, with sums over voxels of values (batch, 3, z, y, x) times x, y, z, 1.

        With a `field` of as many or one (batch, x / y / z, z, y, x), x, y, z are moved by it.
        """
        n_b, _, n_z, n_y, n_x = values.shape
        blocks = max(1, min(MOST_BLOCKS, n_z * n_y * n_x // (BLOCK * VOXELS_SUMMED)))
        sums = self._axes.scratch((n_b, blocks, 3, 4), np.dtype(np.float64))
        idx = narrowest(values.at(0).at(0).reach, 0 if field is None else field.at(0).at(0).reach)
        steps: tuple[int, ...] = (0,) * 5
        if field is not None:
            steps = (field.strides[0] if field.shape[0] > 1 else 0, *field.strides[1:])
        moved = Pointer(0, values.dtype.itemsize, None) if field is None else pointer(field)
        arguments: list[Argument] = [
            pointer(values), moved, pointer(sums),
            np.int32(blocks), np.int32(n_z), np.int32(n_y), np.int32(n_x),
            *[np.int64(s) for s in values.strides[:2]], *[idx(s) for s in values.strides[2:]],
            *[np.int64(s) for s in steps[:2]], *[idx(s) for s in steps[2:]],
        ]  # fmt: skip
        types = Types.of(values.dtype, (values if field is None else field).dtype, idx, np.dtype(np.float64))
        shared = NUMBERS * BLOCK * 8
        self._runtime.launch(Launch("gradient", "sum_moments", types, n_b * blocks, (BLOCK, 1), arguments, shared))
        arguments = [pointer(sums), pointer(out), np.int32(blocks)]
        self._runtime.launch(Launch("gradient", "add_moments", types, n_b, (BLOCK, 1), arguments, shared))

    def _prefiltered(self, prefilter: Separable, src: View) -> View:
        """The coefficients of volumes (batch, c, z, y, x), in the type that sums are made in."""
        n, channels = src.shape[:2]
        out = self._axes.scratch((n * channels, *prefilter.n_dst), accumulator(prefilter.precision))
        volume = out.strides[0]
        made = View(
            out.address, out.dtype, (n, channels, *out.shape[1:]), (channels * volume, *out.strides), out.keep
        )  # fmt: skip
        for s, d in volumes(src, made):
            self._axes.run(prefilter, s, d, Store())
        return made

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
        if routes.kind_of(work.routes):
            function += "_lattice"
        blocks = n * routes.blocks(work.n_dst)
        types = Types.of(src.dtype, dst, idx, acc)
        self._runtime.launch(Launch("gradient", function, types, blocks, (LANES, ROWS), arguments, SHARED_BYTES))

    def _taps(self, work: Gather, name: str, coefficients: FloatArray, acc: np.dtype[Any]) -> tuple[Argument, ...]:
        """The arguments that only that splat takes."""
        if name == "linear":
            return (structs.taps(work),)
        return self._weights(work, coefficients, acc)

    def _weights(self, work: Gather, coefficients: FloatArray, acc: np.dtype[Any]) -> tuple[Argument, ...]:
        """Polynomials of every axis on the device, and what finds a voxel's cell."""
        there = self._uploads.get(work, ("of axes", acc), lambda: self._axes.upload(coefficients.astype(acc)))
        return there, structs.taps(work)

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
    if work.method != "sum" or work.rule == RULES["crop"] or work.normalise or shape[1] > MAX_TAPS:
        raise ValueError(
            f"gradients must be of sums of at most {MAX_TAPS} neighbours per axis that are not normalised, got "
            f"{work.method!r} of coefficients {shape}"
        )
    if shape == (1, 2, 2) and not any(work.derivative):
        return "linear"
    return "cubic" if shape == (1, 4, 4) else "any"


def _of_axes(work: Gather) -> FloatArray:
    """The polynomials of z, y, x, each differentiated as often as the work says: (3, pieces, width, terms)."""
    return np.array([differentiated(work.coefficients, order) for order in work.derivative])


def _gain(coefficients: FloatArray) -> float:
    """The most that the weights of one position add up to, without their signs: of polynomials of z, y, x."""
    u = np.linspace(0.0, 1.0, 257)
    gain = 1.0
    for pieces in coefficients:
        weights = np.array([polyval(u, piece.T) for piece in pieces])
        gain *= 1.001 * float(np.abs(weights).sum(axis=1).max())
    return gain


def _without_channels(view: View) -> View:
    """The first channel of (batch, c, z, y, x)."""
    return View(
        view.address, view.dtype, (view.shape[0], *view.shape[2:]), (view.strides[0], *view.strides[2:]), view.keep
    )


def with_one(view: View) -> View:
    """(batch, z, y, x) as one channel each."""
    return View(
        view.address,
        view.dtype,
        (view.shape[0], 1, *view.shape[1:]),
        (view.strides[0], 0, *view.strides[1:]),
        view.keep,
    )
