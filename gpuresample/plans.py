"""A plan: everything about a resampling but the voxels. Made once, run on many images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.checks import shown, sizes
from gpuresample.containers import Container, LazyContainer, check_memory, shares_memory, spatial, unwrap
from gpuresample.engines import clipped, renormalised
from gpuresample.engines import threads as pool
from gpuresample.engines.interface import Call, Engine, Store
from gpuresample.engines.packing import accumulator
from gpuresample.memory import check_room
from gpuresample.planning import planner
from gpuresample.planning.grid import Grid
from gpuresample.planning.works import Gather, Majority, Range, Separable, Work

if TYPE_CHECKING:
    from gpuresample.engines.cpu import costs

Array = npt.NDArray[Any]

# From so many voxels of input and output on, memory beside them is estimated before a run.
SCRATCH_ASKED = 1 << 20
# Volumes whose cost is counted.
MOST_COUNTED = 2**63 - 1


def precision_of(source: np.dtype[Any], target: np.dtype[Any]) -> str:
    """Tell "double" for whatever float32 cannot hold: 64-bit floats and integers above 16 bits; else "single"."""
    wide = any(t.itemsize == 8 or (t.kind in "iu" and t.itemsize > 2) for t in (source, target))
    return "double" if wide else "single"


@dataclass(frozen=True, eq=False)
class Plan:
    """A resampling that is ready to run on any image of the planned shape.

    Make one with `gpuresample.plan`. It is read-only, and threads may share it.

    Attributes
    ----------
    source, target : Grid
        Voxel grids of input and output (x, y, z).
    input_dtype, dtype : numpy.dtype
        Voxel types of input and output.
    device : str
        Where it runs; "auto" is decided by every image.
    work : Separable, Gather or Majority
        What the engine is asked for.
    store : Store
        How sums become voxels.
    clip : bool
        Whether sums are clipped to the range of the volume they come from; a range that was given is the store's.
    ignore : float or None
        The value that says "no data", see `resample`.
    signed : bool
        Whether some weight is negative, which a part of the work may not tell; where values are ignored.
    beyond : float
        What is taken from all samples, and added to all sums: the constant that goes on past the border, of which
        tables know nothing (`taps.ENDLESS`).
    """

    source: Grid
    target: Grid
    input_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    device: str
    work: Work
    store: Store
    clip: bool = False
    ignore: float | None = None
    signed: bool = False
    beyond: float = 0.0

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
        image : SimpleITK.Image, Volume, nibabel image or array
            It must have the planned spatial shape and voxel type. If it has geometry, it must lie on the planned grid.
        out : same kind as `image`, optional
            Where to write the result; for a dask or zarr array a zarr array.

        Returns
        -------
        SimpleITK.Image, Volume, nibabel image or array
            The same kind as `image`, on the same device. For images on a GPU, the call returns as soon as all kernels
            are launched on the current stream.

        Raises
        ------
        ValueError, TypeError
            If `image` or `out` does not fit the plan, or `image` lies on another device.
        RuntimeError
            If a GPU is needed that cannot be used.
        """
        engines.check_device(self.device)
        return execute(self, unwrap(image, lazy=True), out)

    def check_image(self, container: Container) -> None:
        """Refuse an image that does not fit the plan.

        Parameters
        ----------
        container : the image, unwrapped

        Raises
        ------
        ValueError, TypeError
            As `run`.
        """
        d = self.source.dimension
        if container.grid.dimension != d or container.grid.size != self.source.size:
            raise ValueError(
                f"image must have the planned spatial shape {self.input_shape} (array order), "
                f"got {container.grid.size[::-1]}"
            )
        volumes = math.prod(container.shape[:-d])
        if isinstance(self.work, Gather) and len(self.work.routes) not in (1, volumes):
            raise ValueError(
                f"image must have as many volumes as the plan has transforms, {len(self.work.routes)}, got {volumes}"
            )
        precision = self.work.precision
        if precision_of(container.dtype, self.dtype) == "double" and precision == "single":
            raise TypeError(
                f"image must have voxels that the plan's precision ({precision}) suits, as the planned "
                f"{self.input_dtype}; got {container.dtype}"
            )
        if container.kind != "array" and container.grid != self.source:
            close = all(
                np.allclose(getattr(container.grid, name), getattr(self.source, name), rtol=1e-6, atol=1e-6)
                for name in ("spacing", "origin", "direction")
            )
            if not close:
                raise ValueError(f"image must lie on the planned grid {self.source}, got {container.grid}")

    def input_region(self, dst_slices: Sequence[slice]) -> tuple[slice, ...]:
        """Tell which part of the input a block of the output needs.

        Parameters
        ----------
        dst_slices : slices of the output's spatial axes, in array order (z, y, x), step 1

        Returns
        -------
        tuple of slice
            Along the input's spatial axes, in array order.

        Raises
        ------
        ValueError, TypeError
            For slices that leave the output or are empty.
        """
        region = planner.input_region(self.work, self._block(dst_slices))
        return tuple(slice(lo, hi) for lo, hi in region[3 - self.source.dimension :])

    def crop(self, dst_slices: Sequence[slice]) -> Plan:
        """Make the plan of a block of the output. Run it on `image[..., *input_region(dst_slices)]`.

        It applies the same tables in the same order, so its result equals that block of the whole result, bit for bit.

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
            raise ValueError(
                "a plan that clips to the whole image's range has no blocks: give the range, clip=(low, high)"
            )
        block = self._block(dst_slices)
        work = planner.crop(self.work, block)
        region = planner.input_region(self.work, block)
        return replace(self, source=_part(self.source, region), target=_part(self.target, block), work=work)

    def cost(self, *, channels: int = 1, volumes: int = 1) -> costs.Cost:
        """Count what the plan costs on this machine's CPU. Nothing is run.

        Parameters
        ----------
        channels : int
            How many volumes one call resamples: components, time points or a batch.
        volumes : int
            How many images of this shape are resampled, one after the other.

        Returns
        -------
        Cost
            Taps, multiply-adds, bytes, and peak memory beyond the input.

        Raises
        ------
        ValueError, TypeError
            For arguments out of range.
        """
        (channels,), (volumes,) = sizes("channels", (channels,), 1), sizes("volumes", (volumes,), 1, MOST_COUNTED)
        return _costs().of(call_of(self, channels), volumes)

    def scratch_bytes(self, source: npt.DTypeLike | None = None, lead: int = 1, threads: int = 1) -> int:
        """Tell how many bytes the CPU engine takes for a run, at most, apart from the input and the output.

        Parameters
        ----------
        source : dtype, optional
            Voxel type of the input; the planned one unless given.
        lead : int
            How many volumes are run together: the product of the leading axes.
        threads : int
            Threads of the engine, see `gpuresample.get_num_threads`.

        Returns
        -------
        int

        Raises
        ------
        TypeError
            For `source` that is no type.
        """
        return _costs().footprint(call_of(self, lead, source), threads).total + self._beside(lead)

    def _beside(self, lead: int) -> int:
        """Bytes that finding and leaving out voxels without data takes, whatever the engine."""
        if self.beyond:
            assert not isinstance(self.work, Majority)
            return lead * self.source.voxels * accumulator(self.work.precision).itemsize
        if self.ignore is None:
            return 0
        return renormalised.bytes_of(self.work, lead * self.source.voxels, lead * self.target.voxels, self.dtype)

    def _block(self, dst_slices: Sequence[slice]) -> tuple[Range, Range, Range]:
        d = self.source.dimension
        if not isinstance(dst_slices, Sequence) or len(dst_slices) != d:
            error = ValueError if isinstance(dst_slices, (slice, Sequence)) else TypeError
            raise error(f"dst_slices must be {d} slices, one per spatial axis, got {shown(dst_slices)}")
        block: list[Range] = [(0, 1)] * (3 - d)
        for s, n in zip(dst_slices, self.output_shape, strict=True):
            if not isinstance(s, slice):
                raise TypeError(f"dst_slices must be {d} slices, one per spatial axis, got {shown(dst_slices)}")
            try:
                start, stop, step = s.indices(n)
            except (TypeError, ValueError):
                raise TypeError(f"dst_slices must be slices of whole numbers, got {shown(dst_slices)}") from None
            inside = (s.start is None or 0 <= s.start < n) and (s.stop is None or 0 < s.stop <= n)
            if step != 1 or stop <= start or not inside:
                raise ValueError(
                    f"dst_slices must be non-empty, of step 1 and within the output {self.output_shape}, "
                    f"got {dst_slices!r}"
                )
            block.append((start, stop))
        return block[0], block[1], block[2]


def execute(plan: Plan, container: Container, out: Any = None) -> Any:
    """`Plan.run`, for an image that is unwrapped already."""
    return execute_all([(plan, container, out)])[0]


def execute_all(calls: Sequence[tuple[Plan, Container, Any]]) -> list[Any]:
    """`execute` for several images: voxels that lie in the same places are located once for all of them."""
    results: list[Any] = []
    together: dict[int, tuple[Engine, list[Call]]] = {}
    prepared: list[tuple[Plan, Container, Any, Engine, Call]] = []
    outs: list[Any] = []
    for plan, container, out in calls:
        plan.check_image(container)
        if isinstance(container, LazyContainer):
            with pool.importing:
                from gpuresample.chunked import blocks
            results.append(blocks.execute(plan, container, out))
            continue
        result, target, engine, call = _prepared(plan, container, out)
        results.append(result)
        prepared.append((plan, container, target, engine, call))
        outs.append(None if out is None else call[2])
    check_outs_apart([call[1] for *_, call in prepared], outs)
    for plan, _, _, engine, call in prepared:
        if not run_beside(plan, engine, call[1], call[2]):
            together.setdefault(id(engine), (engine, []))[1].append(call)
    for engine, group in together.values():
        engine.run_all(group)
    for _, container, target, _, _ in prepared:
        container.written(target)
    return results


def check_outs_apart(sources: Sequence[Any], outs: Sequence[Any]) -> None:
    """Refuse outputs of a list that share memory with each other, or with another image of it.

    Raises
    ------
    ValueError
    """
    for k, out in enumerate(outs):
        if out is None:
            continue
        for j, (source, other) in enumerate(zip(sources, outs, strict=True)):
            for name, array in (("image", source), ("out", other)):
                if j != k and array is not None and shares_memory(out, array):
                    raise ValueError(f"out[{k}] must not share memory with {name}[{j}]")


Execute = Callable[[Sequence[tuple[Plan, Container, Any]]], list[Any]]
"""`execute_all`, or what does the same elsewhere."""


def _prepared(plan: Plan, container: Container, out: Any) -> tuple[Any, Any, Engine, Call]:
    """The result, its array, the engine, and what that is called with."""
    d = plan.source.dimension
    voxels = (plan.source.voxels + plan.target.voxels) * math.prod(container.shape[:-d])
    engine = engines.select(plan.device, container.where, voxels, plan.store.exact, isinstance(plan.work, Gather))
    if out is None:
        check_memory(container, container.output_shape(plan.target), plan.dtype, f"size {plan.target.size}")
        result, target = container.new(plan.target, plan.dtype)
    else:
        result, target = container.adopt(out, plan.target, plan.dtype)
    src, dst = _as_numbers(spatial(container.array, d)), _as_numbers(spatial(target, d))
    if engine.name == "cpu" and voxels > SCRATCH_ASKED:
        scratch = plan.scratch_bytes(src.dtype, math.prod(src.shape[:-3]), pool.get_num_threads())
        check_room(scratch, f"size {container.order(plan.target.size)} asks for memory beside the output")
    return result, target, engine, (plan.work, src, dst, plan.store)


def run_beside(plan: Plan, engine: Engine, src: Any, dst: Any) -> bool:
    """Run what a plan asks for beside its work, on arrays that the engine takes; False if it asks for nothing else."""
    if plan.ignore is not None:
        renormalised.run(engine, plan.work, src, dst, plan.store, plan.ignore, plan.clip, plan.signed)
    elif plan.clip:
        clipped.run(engine, plan.work, src, dst, plan.store)
    elif plan.beyond:
        assert not isinstance(plan.work, Majority)
        moved = src.astype(accumulator(plan.work.precision))
        moved -= plan.beyond
        engine.run(plan.work, moved, dst, plan.store)
    return plan.ignore is not None or plan.clip or plan.beyond != 0.0


def _costs() -> Any:
    """The module that counts, which small calls need not load."""
    with pool.importing:
        from gpuresample.engines.cpu import costs
    return costs


def call_of(plan: Plan, channels: int = 1, source: npt.DTypeLike | None = None) -> costs.Call:
    """What an engine is called with, as far as it costs memory; on the planned type unless given another."""
    voxels = plan.input_dtype if source is None else np.dtype(source)
    src_shape, dst_shape = ((channels, *(1,) * (3 - len(s)), *s) for s in (plan.input_shape, plan.output_shape))
    return _costs().Call(plan.work, plan.store, src_shape, _number(voxels), dst_shape, _number(plan.dtype))


def of_work(work: Separable, source: npt.DTypeLike, target: npt.DTypeLike, device: str = "auto") -> Plan:
    """The plan of tables that are there already, on arrays whose last three axes are space."""
    n = [0, 0, 0]
    for axis, out in enumerate(work.dst_axis):
        n[out] = work.n_dst[axis]
    sizes = tuple(t.n_src for t in work.tables)[::-1], tuple(n)[::-1]
    grids, output = (Grid.of_size(sizes[0]), Grid.of_size(sizes[1])), np.dtype(target)
    return Plan(*grids, np.dtype(source), output, device, work, Store.of(output))


def _part(grid: Grid, block: tuple[Range, Range, Range]) -> Grid:
    """The grid of a block z, y, x of a grid's voxels."""
    d = grid.dimension
    ranges = block[::-1][:d]
    first = np.asarray([[lo for lo, _ in ranges]], dtype=np.float64)
    return Grid(
        tuple(hi - lo for lo, hi in ranges), grid.spacing, tuple(grid.points(first)[0].tolist()), grid.direction
    )


def _number(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type that an engine meets."""
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype


def _as_numbers(array: Any) -> Any:
    """Booleans as bytes."""
    return array.view(_number(array.dtype)) if array.dtype == np.bool_ else array
