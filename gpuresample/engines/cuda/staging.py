"""Host arrays on the GPU: there, through the engine and back; in parts where that is faster, or where memory is short.

Every part is a block of the output with the work that `planner.crop` makes of it, so its bits are those of the whole.
Parts take turns in two streams with pinned buffers of their own: while one computes, the other's voxels are on the bus.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from gpuresample.engines import threads
from gpuresample.engines.cuda.combining import StagedCombiner
from gpuresample.engines.cuda.footprint import footprint
from gpuresample.engines.cuda.runtime import Runtime, scratch_from
from gpuresample.engines.cuda.streams import SHARE, SLOTS, streams
from gpuresample.engines.interface import Call, Combiner, Store
from gpuresample.planning import planner
from gpuresample.planning.works import Gather, Lattice, Range, Separable, Work

Array = npt.NDArray[Any]
Block = tuple[Range, Range, Range]

# Bytes of source and destination together from which parts overlap, the most parts of a volume, and how much more may
# be read for it than the whole (neighbouring parts share the samples between them).
OVERLAP_BYTES = 32 << 20
PARTS = 8
READ_AGAIN = 1.25
# Most bytes that a part may take on the device, however large that is: its pinned buffers are the host's memory.
PART_BYTES = 1 << 30

# What works were last cut for, and the blocks with their works and what they read.
_blocks: WeakKeyDictionary[Work, tuple[Hashable, list[tuple[Block, Work | None, Block]]]] = WeakKeyDictionary()
_lock = threading.Lock()


class DeviceEngine(Protocol):
    """An engine for arrays on a runtime's devices."""

    runtime: Runtime

    def run(self, work: Work, src: Any, dst: Any, store: Store) -> None:
        """See `interface.Engine`."""

    def combining(self, models: int) -> AbstractContextManager[Combiner]:
        """See `interface.Engine`."""


@dataclass(frozen=True, eq=False)
class Part:
    """A block of the output: what to do, with which part of the source."""

    work: Work
    src: Array
    dst: Array


@dataclass(eq=False)
class Slot:
    """A stream, and the part that is under way in it."""

    stream: Any
    part: Part | None = None
    host: Array | None = None  # where the part's result arrives
    keep: Array | None = None  # pinned memory that the device still reads
    done: Any = None


class Staged:
    """The CUDA engine for arrays in host memory.

    Parameters
    ----------
    engine : DeviceEngine
    device : int or None
        Number of the GPU; None for the current one.
    """

    name = "cuda"

    def __init__(self, engine: DeviceEngine, device: int | None) -> None:
        self.engine = engine
        self.device = device

    def run_all(self, calls: Sequence[Call]) -> None:
        """See `interface.Engine`."""
        for call in calls:
            self.run(*call)

    def run(self, work: Work, src: Array, dst: Array, store: Store) -> None:
        """Fill `dst` `[..., z, y, x]` from `src` `[..., z, y, x]`; returns when the result is in `dst`.

        Raises
        ------
        MemoryError
            If the device has not even memory for a block of one voxel.
        """
        if dst.size == 0:
            return
        runtime = self.engine.runtime
        # The parts' streams are not the caller's, whose allocator follows its own.
        with runtime.use(self.device), scratch_from(None):
            if src.nbytes + dst.nbytes < OVERLAP_BYTES:
                try:
                    self._at_once(work, src, dst, store)
                    return
                except MemoryError:
                    pass  # in parts, then
            budget = int(SHARE * runtime.free_memory())
            while True:
                try:
                    self._in_turns(work, src, dst, store, budget)
                    return
                except MemoryError:
                    # Someone else took memory meanwhile. Smaller parts; those that are done get the same bits again.
                    if budget < 2:
                        raise
                    budget //= 2

    @contextmanager
    def combining(self, models: int) -> Iterator[Combiner]:
        """What combines blocks of an ensemble of so many models. See `interface.Engine`."""
        runtime = self.engine.runtime
        with (
            runtime.use(self.device),
            scratch_from(None),
            self.engine.combining(models) as combiner,
            streams(runtime) as own,
        ):
            yield StagedCombiner(runtime, combiner, own)

    def _at_once(self, work: Work, src: Array, dst: Array, store: Store) -> None:
        runtime = self.engine.runtime
        source = runtime.upload(np.ascontiguousarray(src, dtype=src.dtype.newbyteorder("=")))
        target = runtime.empty(dst.shape, dst.dtype)
        self.engine.run(work, source, target, store)
        runtime.download(target, dst)

    def _in_turns(self, work: Work, src: Array, dst: Array, store: Store, budget: int) -> None:
        runtime = self.engine.runtime
        each = parts(work, src, dst, store, min(budget // SLOTS, PART_BYTES), min(budget, PART_BYTES))
        with streams(runtime) as own:
            slots = [Slot(stream) for stream in own]
            for number, part in enumerate(each):
                slot = slots[number % len(slots)]
                self._collect(slot)
                with runtime.within(slot.stream):
                    self._begin(slot, part, store)
            # The next in turn is the one that began first.
            for slot in sorted(slots, key=lambda s: s.part is None):
                self._collect(slot)

    def _begin(self, slot: Slot, part: Part, store: Store) -> None:
        """Start a part in the current stream."""
        runtime = self.engine.runtime
        dtype = part.src.dtype.newbyteorder("=")
        slot.keep = part.src
        if not self._direct(part.src):
            slot.keep = runtime.pinned(part.src.shape, dtype)
            threads.copy(slot.keep, part.src)
        source = runtime.empty(part.src.shape, dtype)
        runtime.copy_in(slot.keep, source)
        target = runtime.empty(part.dst.shape, part.dst.dtype)
        self.engine.run(part.work, source, target, store)
        slot.host = part.dst if self._direct(part.dst) else runtime.pinned(part.dst.shape, part.dst.dtype)
        runtime.copy_out(target, slot.host)
        slot.part, slot.done = part, runtime.mark()

    def _collect(self, slot: Slot) -> None:
        """Wait for the part in a slot, and put its result where it belongs."""
        if slot.part is None or slot.host is None:
            return
        self.engine.runtime.finish(slot.done)
        if slot.host is not slot.part.dst:
            threads.copy(slot.part.dst, slot.host)
        slot.part = slot.host = slot.keep = slot.done = None

    def _direct(self, array: Array) -> bool:
        """Whether the device may take an array as it is."""
        return array.flags.c_contiguous and array.dtype.isnative and self.engine.runtime.is_pinned(array)


# --- parts -------------------------------------------------------------------------------------------------------


def parts(work: Work, src: Array, dst: Array, store: Store, budget: int, lone: int) -> Iterator[Part]:
    """The parts of a work, block by block.

    A few blocks are kept with the work: the next call finds their tables made and on the device. Of many, as a volume
    larger than memory has, the tables of one are let go before those of the next but one are made.

    Parameters
    ----------
    budget : int
        Most bytes that a part may take on the device.
    lone : int
        The same for a part that is the only one.
    """
    if isinstance(work, Gather) and len(work.routes) > 1:
        # What a volume reads depends on its route.
        for route, volume in zip(work.routes, np.ndindex(dst.shape[:-3]), strict=True):
            yield from parts(replace(work, routes=(route,)), src[volume], dst[volume], store, budget, lone)
        return
    key = (src.shape, src.dtype, dst.shape, dst.dtype, store, budget, lone)
    with _lock:
        made_for, kept = _blocks.get(work, (None, []))
    found = kept if made_for == key else Cut(work, src, dst, store).blocks(budget, lone)
    met: list[tuple[Block, Work | None, Block]] = []
    for block, cropped, region in found:
        if budget == PART_BYTES and len(met) <= PARTS:
            # What is kept must not keep the work itself.
            met.append((block, None if cropped is work else cropped, region))
        for volume in np.ndindex(dst.shape[:-3]):
            yield Part(cropped or work, src[volume][_slices(region)], dst[volume][_slices(block)])
    # Tables on the device take memory that must not be short; vectors of every voxel take more than a volume.
    large = any(isinstance(cropped, Gather) and _is_dense(cropped) for _, cropped, _ in met)
    if not large and 0 < len(met) <= PARTS:
        with _lock:
            _blocks[work] = key, met


@dataclass(eq=False)
class Cut:
    """How a work is cut into blocks of the output, of one volume."""

    work: Work
    src: Array
    dst: Array
    store: Store
    whole: Block = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.work, Separable):
            # The device runs the tables: parts need not read what a shortcut would.
            self.work = replace(self.work, shortcut=())
        z, y, x = self.dst.shape[-3:]
        self.whole = ((0, z), (0, y), (0, x))

    def blocks(self, budget: int, lone: int) -> Iterator[tuple[Block, Work, Block]]:
        """Blocks, their works, and the parts of the source that they read."""
        starts = [self.whole]
        several = math.prod(self.dst.shape[:-3]) > 1
        if not several:
            # Several volumes overlap with each other; a lone one has to be cut for it.
            starts = self._slabs(next((n for n in (PARTS, PARTS // 2, 2) if self._shares_well(n)), 1))
        n_src = self.src.shape[-3:]
        if len(starts) == 1 and self._bytes(self.work, n_src, self.whole) <= (budget if several else lone):
            yield self.whole, self.work, ((0, n_src[0]), (0, n_src[1]), (0, n_src[2]))
            return
        for block in starts:
            yield from self._fitting(block, budget)

    def _fitting(self, block: Block, budget: int) -> Iterator[tuple[Block, Work, Block]]:
        """A block, or as many halves of halves of it as it takes to fit."""
        work, region = planner.crop(self.work, block), planner.input_region(self.work, block)
        if self._bytes(work, tuple(hi - lo for lo, hi in region), block) <= budget:
            yield block, work, region
            return
        axis = next((a for a, (lo, hi) in enumerate(block) if hi - lo > 1), None)
        if axis is None:
            raise MemoryError(f"a GPU with {budget:,} bytes to spare cannot hold what a single voxel needs")
        lo, hi = block[axis]
        middle = (lo + hi) // 2
        for part in ((lo, middle), (middle, hi)):
            half = list(block)
            half[axis] = part
            yield from self._fitting((half[0], half[1], half[2]), budget)

    def _bytes(self, work: Work, n_src: tuple[int, ...], block: Block) -> int:
        n_dst = tuple(hi - lo for lo, hi in block)
        return footprint(work, n_src, self.src.dtype, n_dst, self.dst.dtype, self.store)

    def _slabs(self, n: int) -> list[Block]:
        """The output in `n` slabs along z, or as many as it has planes."""
        (_, n_z), y, x = self.whole
        edges = sorted({n_z * k // n for k in range(n + 1)})
        return [((lo, hi), y, x) for lo, hi in itertools.pairwise(edges)]

    def _shares_well(self, n: int) -> bool:
        """Whether `n` slabs read little more than the whole does, and that is quickly known."""
        if isinstance(self.work, Gather) and not all(route.lines for route in self.work.routes):
            return False
        slabs = self._slabs(n)
        if len(slabs) < 2:
            return False
        read = sum(_voxels(planner.input_region(self.work, block)) for block in slabs)
        return read <= READ_AGAIN * _voxels(planner.input_region(self.work, self.whole))


def _is_dense(work: Gather) -> bool:
    """Whether a route has a vector for every voxel."""
    return any(isinstance(stage, Lattice) and stage.direct for route in work.routes for stage in route.stages)


def _voxels(region: Block) -> int:
    (z0, z1), (y0, y1), (x0, x1) = region
    return (z1 - z0) * (y1 - y0) * (x1 - x0)


def _slices(block: Block) -> tuple[slice, ...]:
    return tuple(slice(lo, hi) for lo, hi in block)
