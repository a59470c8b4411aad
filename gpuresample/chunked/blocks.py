"""Plans on dask and zarr arrays: block by block, every block from exactly the part of the input that its tables read.

A block is one task: it reads or puts together its part of the input, and runs the block's own plan (`Plan.crop`) on
it. That has the bits of the whole, so chunks change nothing but time and memory. No voxel is computed here.
"""

from __future__ import annotations

import itertools
import math
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.chunked import chunking, zarrs
from gpuresample.chunked.chunking import Planned
from gpuresample.containers import LazyContainer, Volume, unwrap
from gpuresample.containers.kinds import lazy_kind
from gpuresample.engines import threads as pool
from gpuresample.planning.works import Gather

Array = npt.NDArray[Any]
Slices = tuple[slice, ...]
Index = tuple[int, ...]

# Blocks of which dask makes a list: one of a million took 9 GB.
MOST_LISTED = 1 << 18
# Of so many a list is made where they could be walked. Blocks of a dask array share its chunks where they are listed.
LISTED = {"zarr": 1 << 14, "dask": 1 << 17}

INSTALL = 'pip install "gpuresample[dask]"'


@dataclass(frozen=True, eq=False)
class Job:
    """What the blocks of one output share.

    Attributes
    ----------
    plan : Planned
    source : zarr.Array or None
        What blocks read for themselves; None where dask hands them chunks.
    chunks : tuple of tuple of int
        Of the source.
    dtype : numpy.dtype
        Of the source, in native order.
    abreast : int
        Blocks that may be under way together, at most: they share the engine's threads.
    """

    plan: Planned
    source: Any
    chunks: tuple[tuple[int, ...], ...]
    dtype: np.dtype[Any]
    abreast: int

    def region(self, block: Slices) -> Slices:
        """The part of the source that a block of the output needs, leading axes included."""
        d = self.plan.target.dimension
        lead = len(block) - d
        return (*block[:lead], *self.plan.input_region(block[lead:]))

    def run(self, block: Slices, voxels: Array) -> Array:
        """A block's voxels from those of its region."""
        part = self.plan.crop(block[len(block) - self.plan.target.dimension :])
        with pool.at_most(self.threads()):
            out: Array = part.run(voxels)
        return out

    def threads(self) -> int | None:
        """Threads of the engine for the block that the calling thread is at: its share; the main thread takes all."""
        if threading.current_thread() is threading.main_thread():
            return None
        return max(1, pool.get_num_threads() // self.abreast)


# --- tasks ---------------------------------------------------------------------------------------------------------


def _from_zarr(job: Job, block: Slices) -> Array:
    return job.run(block, np.asarray(job.source[job.region(block)]))


def _from_chunks(job: Job, block: Slices, region: Slices, chunks: list[Array]) -> Array:
    pieces = list(itertools.product(*(_pieces(c, r) for c, r in zip(job.chunks, region, strict=True))))
    if len(chunks) == 1:
        return job.run(block, np.asarray(chunks[0])[tuple(p.inside for p in pieces[0])])
    voxels = np.empty([r.stop - r.start for r in region], job.dtype)
    for piece, chunk in zip(pieces, chunks, strict=True):
        voxels[tuple(p.place for p in piece)] = chunk[tuple(p.inside for p in piece)]
    return job.run(block, voxels)


@dataclass(frozen=True)
class _Piece:
    """What a region takes of one chunk along one axis."""

    chunk: int
    inside: slice
    place: slice


def _pieces(chunks: tuple[int, ...], region: slice) -> list[_Piece]:
    out, at = [], 0
    for number, n in enumerate(chunks):
        lo, hi = max(region.start, at), min(region.stop, at + n)
        if lo < hi:
            out.append(_Piece(number, slice(lo - at, hi - at), slice(lo - region.start, hi - region.start)))
        at += n
    return out


def _stored(targets: list[Any], block: Slices, done: Callable[[Slices], None] | None, *voxels: Array) -> None:
    for target, array in zip(targets, voxels, strict=True):
        target[block] = array
    if done is not None:
        done(block)


# --- graphs --------------------------------------------------------------------------------------------------------


def lazy(plan: Planned, image: Any, chunks: Sequence[int] | None = None) -> Any:
    """Run a plan on a dask or zarr array, lazily: a dask array comes back, and nothing is read or computed yet.

    Parameters
    ----------
    plan : gpuresample.Plan
    image : dask.array.Array, zarr.Array, or Volume of one
        It must have the planned spatial shape.
    chunks : sequence of int, optional
        Chunk lengths of the result, one for each axis. Unless given, they are the input's chunks on the output's grid,
        halved or doubled until a block and the input under it take between 1 MiB (zarr: 16 MiB) and 64 MiB.

    Raises
    ------
    ValueError, TypeError
        For an image that does not fit the plan, chunks that do not fit the result, a plan that has no blocks.
    """
    container = lazy_container(image)
    plan.check_image(container)
    plan = pinned(plan, container)
    shape = container.output_shape(plan.target)
    if chunks is not None and (len(chunks) != len(shape) or any(int(c) != c or c < 1 for c in chunks)):
        raise ValueError(f"chunks must be {len(shape)} whole numbers of at least 1, got {chunks!r}")
    lengths = chunking.default_chunks(plan, container) if chunks is None else tuple(int(c) for c in chunks)
    return container.wrapped(array_of(plan, container, lengths), plan.target)


def array_of(plan: Planned, container: LazyContainer, lengths: Sequence[int], abreast: int | None = None) -> Any:
    """The dask array of a plan on a container, in chunks of these lengths; `abreast` as in `Job`."""
    check(plan)
    shape = container.output_shape(plan.target)
    cut = chunking.regular(lengths, shape)
    blocks = math.prod(len(c) for c in cut)
    if blocks > MOST_LISTED:
        raise ValueError(
            f"an output of shape {shape} in chunks of {tuple(lengths)} has {blocks:,} blocks, and dask would list them "
            f"all, {MOST_LISTED:,} at most; give larger chunks or a zarr array as out=, which is filled block by block"
        )
    da = _dask()
    from dask.highlevelgraph import HighLevelGraph

    of_zarr = container.library == "zarr"
    source = container.source if of_zarr else None
    job = Job(plan, source, container.chunks, container.dtype, blocks if abreast is None else abreast)
    name = f"gpuresample-{uuid.uuid4().hex}"
    shared = f"plan-{name}"
    graph: dict[Any, Any] = {shared: job}
    for index, block in each(cut):
        if of_zarr:
            graph[(name, *index)] = (_from_zarr, shared, block)
            continue
        region = job.region(block)
        numbers = itertools.product(
            *([p.chunk for p in _pieces(c, r)] for c, r in zip(job.chunks, region, strict=True))
        )
        graph[(name, *index)] = (_from_chunks, shared, block, region, [(container.source.name, *k) for k in numbers])
    layers = HighLevelGraph.from_collections(name, graph, dependencies=[] if of_zarr else [container.source])
    return da.Array(layers, name, cut, dtype=plan.dtype)


def each(chunks: Sequence[Sequence[int]]) -> Iterator[tuple[Index, Slices]]:
    """Every chunk's index, and its slices."""
    edges = [[0, *itertools.accumulate(c)] for c in chunks]
    for index in np.ndindex(*(len(c) for c in chunks)):
        yield index, tuple(slice(e[k], e[k + 1]) for e, k in zip(edges, index, strict=True))


def store(
    arrays: Sequence[Any],
    targets: Sequence[Any],
    workers: int,
    skip: Callable[[Slices], bool] | None = None,
    done: Callable[[Slices], None] | None = None,
) -> None:
    """Compute dask arrays of like chunks into zarr arrays, block by block, `workers` blocks at once.

    Parameters
    ----------
    skip : callable, optional
        Says of a block that it is there already.
    done : callable, optional
        Told of every block that has been stored, from the thread that stored it.
    """
    da = _dask()
    from dask.base import compute_as_if_collection
    from dask.highlevelgraph import HighLevelGraph

    name = f"store-{uuid.uuid4().hex}"
    graph: dict[Any, Any] = {}
    task = _Store(list(targets), done)
    for index, block in each(arrays[0].chunks):
        if skip is None or not skip(block):
            graph[(name, *index)] = (task, block, *((a.name, *index) for a in arrays))
    if graph:
        layers = HighLevelGraph.from_collections(name, graph, dependencies=list(arrays))
        compute_as_if_collection(da.Array, layers, list(graph), scheduler="threads", num_workers=workers)


@dataclass(frozen=True, eq=False)
class _Store:
    """The task of storing a block."""

    targets: list[Any]
    done: Callable[[Slices], None] | None

    def __call__(self, block: Slices, *voxels: Array) -> None:
        _stored(self.targets, block, self.done, *voxels)


def lazy_container(image: Any) -> LazyContainer:
    """The container of an image that is not in memory; all others are refused."""
    container = unwrap(image, lazy=True)
    if not isinstance(container, LazyContainer):
        raise TypeError(f"image must be a dask or zarr array, or a Volume of one, got {type(image).__name__}")
    return container


def as_lazy(image: Any) -> Any:
    """A zarr array as the dask array of its chunks, also in a Volume; other images as they are."""
    array = image.array if isinstance(image, Volume) else image
    if lazy_kind(array) != "zarr":
        return image
    container = lazy_container(image)
    return container.wrapped(_dask().from_zarr(array), container.grid)


# --- calls ---------------------------------------------------------------------------------------------------------


def execute(plan: Planned, container: LazyContainer, out: Any = None) -> Any:
    """`Plan.run` on a lazy image: a lazy image, or `out`, a zarr array, filled."""
    plan = pinned(plan, container)
    check(plan)
    if out is None:
        return container.wrapped(array_of(plan, container, chunking.default_chunks(plan, container)), plan.target)
    target = zarrs.adopted(out, container, container.output_shape(plan.target), plan.dtype)
    d = plan.target.dimension
    ratio = math.prod(container.shape[-d:]) / math.prod(plan.output_shape)
    item = max(plan.dtype.itemsize, container.dtype.itemsize * ratio)
    lengths = chunking.grown(zarrs.unit(target), target.shape, d, item, chunking.LEAST["zarr"])
    workers = workers_for(plan, container, lengths)
    blocks = math.prod(-(-n // c) for n, c in zip(target.shape, lengths, strict=True))
    if blocks > LISTED[container.library]:
        _walked(plan, container, target, lengths, workers)
    else:
        store([array_of(plan, container, lengths, workers)], [target], workers)
    return container.wrapped(target, plan.target)


def _walked(plan: Planned, container: LazyContainer, target: Any, lengths: Sequence[int], workers: int) -> None:
    """Fill a zarr array of so many blocks that no list of them fits into memory, `workers` blocks at once."""
    job = Job(plan, container.source, container.chunks, container.dtype, workers)

    def fill(block: Slices) -> None:
        voxels = container.source[job.region(block)]
        if container.library == "dask":
            voxels = voxels.compute(scheduler="synchronous")
        target[block] = job.run(block, np.asarray(voxels))

    under_way: set[futures.Future[None]] = set()
    with futures.ThreadPoolExecutor(workers) as threads:
        for _, block in chunking.walk(lengths, target.shape):
            under_way.add(threads.submit(fill, block))
            if len(under_way) >= workers:
                finished, under_way = futures.wait(under_way, return_when=futures.FIRST_COMPLETED)
                for one in finished:
                    one.result()
        for one in under_way:
            one.result()


def pinned(plan: Planned, container: LazyContainer) -> Any:
    """The plan on the engine that the whole would take: engines agree to the contract, not to the bit."""
    lead = math.prod(container.shape[: -plan.source.dimension])
    voxels = (plan.source.voxels + plan.target.voxels) * lead
    engine = engines.select(plan.device, "cpu", voxels, plan.store.exact, isinstance(plan.work, Gather))
    return replace(cast(Any, plan), device=engine.name) if plan.device == "auto" else plan


def workers_for(plan: Planned, container: LazyContainer, lengths: Sequence[int], memory: int | None = None) -> int:
    """Blocks to write at once: the engine's threads, as far as memory goes."""
    threads = pool.get_num_threads()
    shape = container.output_shape(plan.target)
    blocks = math.prod(len(c) for c in chunking.regular(lengths, shape))
    needed = bytes_of(plan, container, lengths, max(1, threads // min(threads, blocks)), stored=True)
    return chunking.at_once(needed, blocks, threads, memory)


def check(plan: Planned) -> None:
    """Refuse plans that have no blocks."""
    if isinstance(plan.work, Gather) and len(plan.work.routes) > 1:
        raise ValueError(
            "transform must be one for all volumes of an image that is computed or read block by block, "
            f"got {len(plan.work.routes)}; resample its volumes one by one"
        )
    if plan.clip:
        raise ValueError(
            "image must be in memory to be clipped to its own range, got one that is computed or read block by block; "
            "give the range, clip=(low, high)"
        )


# --- memory --------------------------------------------------------------------------------------------------------


def block_bytes(plan: Planned, image: Any, chunks: Sequence[int] | None = None, stored: bool = False) -> int:
    """Tell how many bytes one block of a lazy result takes while it is made, at most.

    The scheduler makes as many blocks at once as it has threads. All these blocks together are the memory of a
    computation, apart from other arrays that dask holds. A block takes the sum of

    - the region of the input: `prod(region) * itemsize`;
    - what it is put together from: for dask all chunks that the region touches, for zarr the chunks that are decoded at
      once (`zarr.config`'s "async.concurrency"), compressed and decoded;
    - the CPU engine's scratch (`Plan.scratch_bytes`);
    - the block of the output: `prod(block) * itemsize`;
    - if it is `stored` in a zarr array, twice as much again: the encoded chunks, and the shard that they make up.

    Parameters
    ----------
    plan : gpuresample.Plan
    image : dask.array.Array, zarr.Array, or Volume of one
    chunks : sequence of int, optional
        Chunk lengths of the result; those of `lazy` unless given.
    stored : bool
        Whether blocks are written to a zarr array.

    Raises
    ------
    ValueError, TypeError
        As `lazy`.
    """
    check(plan)
    container = lazy_container(image)
    lengths = chunking.default_chunks(plan, container) if chunks is None else tuple(int(c) for c in chunks)
    blocks = math.prod(len(c) for c in chunking.regular(lengths, container.output_shape(plan.target)))
    return bytes_of(plan, container, lengths, max(1, pool.get_num_threads() // blocks), stored)


def bytes_of(plan: Planned, container: LazyContainer, lengths: Sequence[int], threads: int, stored: bool) -> int:
    """See `block_bytes`; for an engine of so many threads."""
    shape = container.output_shape(plan.target)
    cut = chunking.regular(lengths, shape)
    d = plan.target.dimension
    lead = math.prod(c[0] for c in cut[:-d])
    job = Job(plan, None, container.chunks, container.dtype, 1)
    most = 0
    for block in _telling(cut[-d:]):
        region = plan.input_region(block)
        read = lead * math.prod(r.stop - r.start for r in region) * container.dtype.itemsize
        made = lead * math.prod(b.stop - b.start for b in block) * plan.dtype.itemsize
        if container.library == "zarr":
            held = zarrs.decoding_bytes(container.source, lead, region)
        else:
            pieces = [_pieces(c, r) for c, r in zip(job.chunks[-d:], region, strict=True)]
            sizes = [sum(c[p.chunk] for p in found) for c, found in zip(job.chunks[-d:], pieces, strict=True)]
            held = lead * math.prod(sizes) * container.dtype.itemsize
        scratch = plan.crop(block).scratch_bytes(container.source.dtype, lead, threads)
        most = max(most, read + held + scratch + made * (3 if stored else 1))
    return most


def _telling(chunks: Sequence[Sequence[int]]) -> Iterator[Slices]:
    """The blocks whose regions tell the largest: corners and middles, all of them where they are few."""
    found = list(each(chunks)) if math.prod(len(c) for c in chunks) <= 27 else None
    if found is not None:
        yield from (block for _, block in found)
        return
    edges = [[0, *itertools.accumulate(c)] for c in chunks]
    picks = [sorted({0, (len(c) - 1) // 2, len(c) // 2, len(c) - 1}) for c in chunks]
    for index in itertools.product(*picks):
        yield tuple(slice(e[k], e[k + 1]) for e, k in zip(edges, index, strict=True))


def _dask() -> Any:
    try:
        import dask.array
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"blocks of arrays larger than memory are run by dask, which is missing: {INSTALL}"
        ) from error
    return dask.array
