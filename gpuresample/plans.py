"""A plan: everything about a resampling but the voxels. Made once, run on many images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample import work as works
from gpuresample.containers import ArrayContainer, Container, check_memory, spatial, unwrap
from gpuresample.engines.contract import Engine, Range, Store, Work
from gpuresample.grid import Grid

Array = npt.NDArray[Any]


def precision_of(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    """Tell "double" for whatever float32 cannot hold: 64-bit floats and integers above 16 bits; else "single"."""
    wide = any(t.itemsize == 8 or (t.kind in "iu" and t.itemsize > 2) for t in (source, target))
    return "double" if wide else "single"


@dataclass(frozen=True, eq=False)
class Plan:
    """A resampling, ready to run on any image of the planned shape.

    Read-only; safe to share between threads. Make one with `gpuresample.plan`.

    Attributes
    ----------
    source, target : Grid
        Voxel grids of input and output (x, y, z).
    input_dtype, dtype : numpy.dtype
        Voxel types of input and output.
    device : str
        Where it runs.
    work : Separable or Gather
        What the engine is asked for.
    store : Store
        Default value and rounding.
    precision : {"single", "double", "exact"}
        What tables were cut for and sums are made in.
    copies : bool
        Whether voxels are chosen (nearest, labels), not summed.
    divisor : int
        What sums are divided by at the end, integers then rounded half up; 1 for everything but block means.
    clip : bool
        Whether sums are clipped to the range of the volume they come from.
    away : bool
        Whether integers are rounded half away from zero.
    """

    source: Grid
    target: Grid
    input_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    device: str
    work: Work
    store: Store
    precision: str
    copies: bool
    divisor: int = 1
    clip: bool = False
    away: bool = False

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Spatial shape of inputs, array order."""
        return self.source.size[::-1]

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial shape of outputs, array order."""
        return self.target.size[::-1]

    def run(self, image: Any, out: Any = None) -> Any:
        """Resample `image`.

        Parameters
        ----------
        image : SimpleITK.Image, Volume or ndarray
            Of the planned spatial shape and voxel type. An image with geometry must lie on the planned grid.
        out : same kind as `image`, optional
            Where to write the result.

        Returns
        -------
        SimpleITK.Image, Volume or ndarray
            The same kind as `image`.

        Raises
        ------
        ValueError, TypeError
            If `image` or `out` does not fit the plan.
        """
        engine = engines.select(self.device)
        container = unwrap(image)
        self._check(container)
        if out is None:
            check_memory(container.output_shape(self.target), self.dtype, f"size {self.target.size}")
            result, target = container.new(self.target, self.dtype)
        else:
            result, target = container.adopt(out, self.target, self.dtype)
        assert container.array is not None
        d = self.source.dimension
        self._run(engine, spatial(container.array, d), spatial(target, d))
        if target.dtype == np.bool_:
            # Summed as bytes; a spline may overshoot 1.
            np.minimum(target.view(np.uint8), 1, out=target.view(np.uint8))
        return result

    def _check(self, container: Container) -> None:
        d = self.source.dimension
        if container.grid.dimension != d or container.grid.size != self.source.size:
            raise ValueError(
                f"image must have the planned spatial shape {self.input_shape} (array order), "
                f"got {container.grid.size[::-1]}"
            )
        if precision_of(container.dtype, self.dtype) == "double" and self.precision == "single":
            raise TypeError(
                f"image must have voxels that the plan's precision ({self.precision}) suits, as the planned "
                f"{self.input_dtype}; got {container.dtype}"
            )
        if not isinstance(container, ArrayContainer) or container.kind != "array":
            close = all(
                np.allclose(getattr(container.grid, name), getattr(self.source, name), rtol=1e-6, atol=1e-6)
                for name in ("spacing", "origin", "direction")
            )
            if not close:
                raise ValueError(f"image must lie on the planned grid {self.source}, got {container.grid}")

    def _run(self, engine: Engine, src: Array, dst: Array) -> None:
        src, dst = _as_numbers(src), _as_numbers(dst)
        if self.copies:
            # Voxels that are chosen, not summed, take the output's type first: no label passes through a float.
            engine.run(
                self.work,
                src if src.dtype == dst.dtype else convert(src, dst.dtype, self.store.truncate),
                dst,
                self.store,
            )
            return
        if src.dtype == np.float16:
            src = src.astype(np.float32)
        if self.divisor != 1:
            sums = np.empty(dst.shape, np.float64)
            engine.run(self.work, src, sums, self.store)
            # Multiplied, as ITK does; rounded half up, as of all its filters BinShrink alone does.
            sums *= 1.0 / self.divisor
            dst[...] = convert(np.floor(sums + 0.5), dst.dtype, truncate=True) if dst.dtype.kind in "iu" else sums
            return
        if self.clip or self.away:
            self._finished(engine, src, dst)
            return
        if dst.dtype != np.float16:
            engine.run(self.work, src, dst, self.store)
            return
        temporary = np.empty(dst.shape, np.float32)
        engine.run(self.work, src, temporary, self.store)
        dst[...] = temporary

    def _finished(self, engine: Engine, src: Array, dst: Array) -> None:
        """Sums in floats, then clipped and rounded, volume by volume."""
        sums = np.empty(dst.shape[-3:], np.float32 if self.precision == "single" else np.float64)
        for volume in np.ndindex(dst.shape[:-3]):
            engine.run(self.work, src[volume], sums, self.store)
            if self.clip:
                np.clip(sums, src[volume].min(), src[volume].max(), out=sums)
            if self.away and dst.dtype.kind in "iu":
                np.copysign(np.floor(np.abs(sums) + 0.5), sums, out=sums)
            dst[volume] = convert(sums, dst.dtype, self.store.truncate)

    def input_region(self, dst_slices: Sequence[slice]) -> tuple[slice, ...]:
        """What a block of the output needs.

        Parameters
        ----------
        dst_slices : slices of the output's spatial axes, in array order (z, y, x), step 1

        Returns
        -------
        tuple of slice
            Of the input's spatial axes, in array order.

        Raises
        ------
        ValueError, TypeError
            For slices that leave the output or are empty.
        """
        region = works.input_region(self.work, self._block(dst_slices))
        return tuple(slice(lo, hi) for lo, hi in region[3 - self.source.dimension :])

    def crop(self, dst_slices: Sequence[slice]) -> Plan:
        """The plan of a block of the output, to be run on `image[..., *input_region(dst_slices)]`.

        It applies the same tables in the same order, so its result equals the whole result's block to the bit.

        Parameters
        ----------
        dst_slices : slices of the output's spatial axes, in array order (z, y, x), step 1

        Returns
        -------
        Plan

        Raises
        ------
        ValueError, TypeError
            For slices that leave the output or are empty.
        """
        if self.clip:
            raise ValueError("a plan that clips to the whole image's range has no blocks: its convention clips splines")
        block = self._block(dst_slices)
        work = works.crop(self.work, block)
        region = works.input_region(self.work, block)
        return replace(self, source=_part(self.source, region), target=_part(self.target, block), work=work)

    def _block(self, dst_slices: Sequence[slice]) -> tuple[Range, Range, Range]:
        d = self.source.dimension
        if isinstance(dst_slices, slice) or len(dst_slices) != d:
            raise ValueError(f"dst_slices must be {d} slices, one per spatial axis, got {dst_slices!r}")
        block: list[Range] = [(0, 1)] * (3 - d)
        for s, n in zip(dst_slices, self.output_shape, strict=True):
            if not isinstance(s, slice):
                raise TypeError(f"dst_slices must be {d} slices, one per spatial axis, got {dst_slices!r}")
            start, stop, step = s.indices(n)
            inside = (s.start is None or 0 <= s.start < n) and (s.stop is None or 0 < s.stop <= n)
            if step != 1 or stop <= start or not inside:
                raise ValueError(
                    f"dst_slices must be non-empty, of step 1 and within the output {self.output_shape}, "
                    f"got {dst_slices!r}"
                )
            block.append((start, stop))
        return block[0], block[1], block[2]


def _part(grid: Grid, block: tuple[Range, Range, Range]) -> Grid:
    """The grid of a block z, y, x of a grid's voxels."""
    d = grid.dimension
    ranges = block[::-1][:d]
    first = np.asarray([[lo for lo, _ in ranges]], dtype=np.float64)
    return Grid(
        tuple(hi - lo for lo, hi in ranges), grid.spacing, tuple(grid.points(first)[0].tolist()), grid.direction
    )


def _as_numbers(array: Array) -> Array:
    """Booleans as bytes, foreign byte orders as ours."""
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def convert(array: Array, dtype: npt.DTypeLike, truncate: bool) -> Array:
    """Values in another type: integers saturate, floats become integers rounded or truncated, NaN becomes 0."""
    target = np.dtype(dtype)
    if target.kind not in "iu":
        return array.astype(target)
    info = np.iinfo(target)
    if array.dtype.kind in "iu":
        source = np.iinfo(array.dtype)
        return np.clip(array, max(info.min, source.min), min(info.max, source.max)).astype(target)
    whole = np.trunc(array) if truncate else np.rint(array)
    high, low = whole >= info.max, whole <= info.min
    out = np.where(high | low | np.isnan(whole), 0, whole).astype(target)
    out[high], out[low] = info.max, info.min
    return out
