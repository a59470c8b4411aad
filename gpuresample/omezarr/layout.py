"""How the levels of a pyramid are made and stored: plans, chunks, units, and the memory that these take."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuresample.checks import sizes
from gpuresample.chunked import blocks, chunking, zarrs
from gpuresample.chunked.blocks import Index, Slices
from gpuresample.containers import Volume, unwrap
from gpuresample.containers.kinds import lazy_kind
from gpuresample.engines import threads as pool
from gpuresample.omezarr import volumes
from gpuresample.ops import pyramid
from gpuresample.planning.grid import Grid

# Edge of a chunk of a volume and of a picture, in voxels; bytes of a unit, a shard's as a rule.
EDGE = {3: 64, 2: 512}
UNIT = 16 << 20
# A level of more chunks than this has them in shards: fewer files, which is what file systems are slow with.
LOOSE = 32
# Bytes of what a piece of a unit is made of, at most.
PIECE = 32 << 20


@dataclass(frozen=True, eq=False)
class Level:
    """A level as it is made and stored.

    Attributes
    ----------
    number : int
    grid : Grid
    plan : Plan or None
        None for the copy of the level before; of the first: of the image.
    of_image : bool
        Whether the plan is run on the image; else on the voxels of the level before.
    rounding : Plan or None
        From the plan's voxels to the level's.
    keeps : bool
        Whether the plan's voxels are kept for the next level.
    shape, chunks, unit : tuple of int
        Of the array, leading axes included; what is written at once.
    shards : tuple of int or None
    """

    number: int
    grid: Grid
    plan: Any
    of_image: bool
    rounding: Any
    keeps: bool
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    unit: tuple[int, ...]
    shards: tuple[int, ...] | None

    def units(self) -> Iterator[tuple[Index, Slices]]:
        """Every unit's index and block."""
        return chunking.walk(self.unit, self.shape)

    @property
    def count(self) -> int:
        """How many units there are."""
        return math.prod(-(-n // u) for n, u in zip(self.shape, self.unit, strict=True))


def stand_in(grid: Grid, shape: Sequence[int], dtype: np.dtype[Any]) -> Volume:
    """A zarr array without voxels: what plans and sizes are asked about before there are any."""
    zarr = volumes.library()
    chunks = chunks_for(shape, grid.dimension, None)
    array = zarr.create_array(zarr.storage.MemoryStore(), shape=tuple(shape), chunks=chunks, dtype=dtype)
    return Volume(array, grid.spacing, grid.origin, grid.direction)


def laid_out(
    image: Any, asked: list[pyramid.Level], chunks: Sequence[int] | None, sharded: bool, rounding: str, device: str
) -> Iterator[Level]:
    """Every level of an image, which is a container: its plan, its grid, how it is stored. No voxel is read.

    Raises
    ------
    ValueError, TypeError
        As the plans, and `chunks_for`.
    """
    now = image
    lead = image.shape[: -image.grid.dimension]
    for number, level in enumerate(asked):
        plan = None
        if level.plan is not None:
            of = image if level.of_image else now
            plan = blocks.pinned(level.plan(of), of)
            now = unwrap(stand_in(plan.target, (*lead, *plan.output_shape), plan.dtype), lazy=True)
        rounds = None
        if plan is not None and plan.dtype != image.dtype:
            rounds = blocks.pinned(pyramid.rounding_plan(now, image.dtype, rounding, device), now)
        following = next((later for later in asked[number + 1 :] if later.plan is not None), None)
        keeps = rounds is not None and following is not None and not following.of_image
        shape = (*lead, *now.grid.size[::-1])
        yield Level(number, now.grid, plan, level.of_image, rounds, keeps, shape,
                    *_storage(shape, now.grid.dimension, image.dtype, chunks, sharded))  # fmt: skip


def chunks_for(shape: Sequence[int], d: int, chunks: Sequence[int] | None) -> tuple[int, ...]:
    """Chunk lengths of an array whose last `d` axes are space.

    Raises
    ------
    ValueError, TypeError
        For chunks that are not whole numbers of at least 1, one for each axis of the array or of space.
    """
    lengths = (EDGE[d],) * d if chunks is None else sizes("chunks", chunks, len(shape) if len(chunks) > d else d)
    return tuple(min(c, n) for c, n in zip((*(1,) * (len(shape) - len(lengths)), *lengths), shape, strict=True))


def _storage(
    shape: Sequence[int], d: int, dtype: np.dtype[Any], asked: Sequence[int] | None, sharded: bool
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]:
    """Chunks, units and shards of a level."""
    chunks = chunks_for(shape, d, asked)
    unit = chunking.grown(chunks, shape, d, dtype.itemsize, UNIT)
    if not sharded or math.prod(-(-n // c) for n, c in zip(shape, chunks, strict=True)) <= LOOSE:
        return chunks, unit, None
    shards = tuple(-(-u // c) * c for u, c in zip(unit, chunks, strict=True))
    return chunks, unit, shards


def pieces_of(level: Level, of: Any) -> tuple[int, ...]:
    """Lengths of the pieces that units are made in: with what is under them, they take `PIECE` bytes at most."""
    if level.plan is None:
        return level.unit
    ratio = level.plan.source.voxels / level.plan.target.voxels
    item = max(level.plan.dtype.itemsize, np.dtype(of.dtype).itemsize * ratio)
    return tuple(chunking.bounded(level.unit, level.shape, level.grid.dimension, item, 0, PIECE))


# --- memory --------------------------------------------------------------------------------------------------------


def unit_bytes(level: Level, of: Any, threads: int = 1) -> int:
    """Bytes that a unit takes while it is made, at most: `blocks.block_bytes` of a piece, and the unit.

    It is the sum of

    - what a piece takes: `block_bytes` of the level's plan, not stored;
    - the piece rounded, where it is;
    - three times the unit: its voxels, encoded chunks, the shard; the same of its floats where they are kept.
    """
    voxels = math.prod(level.unit)
    item = level.rounding.dtype.itemsize if level.rounding is not None else np.dtype(of.dtype).itemsize
    total = 3 * voxels * item
    array = getattr(of, "voxels", of)
    real = lazy_kind(array) == "zarr"
    if level.plan is None:
        d = level.grid.dimension
        region = tuple(slice(0, n) for n in level.unit[-d:])
        held = zarrs.decoding_bytes(array, math.prod(level.unit[:-d]), region) if real else 0
        return total + held
    if level.keeps:
        total += 3 * voxels * level.plan.dtype.itemsize
    grid = level.plan.source
    given = Volume(array, grid.spacing, grid.origin, grid.direction) if real else None
    empty = stand_in(grid, (*level.shape[: -grid.dimension], *grid.size[::-1]), np.dtype(of.dtype))
    container = blocks.lazy_container(given or empty)
    pieces = pieces_of(level, of)
    if level.rounding is not None:
        total += math.prod(pieces) * item
    return total + blocks.bytes_of(level.plan, container, pieces, threads, stored=False)


def workers_for(level: Level, of: Any, memory: int | None) -> int:
    """Units to have under way together: a thread each, as far as memory goes."""
    threads = pool.get_num_threads()
    share = max(1, threads // min(threads, level.count))
    return chunking.at_once(unit_bytes(level, of, share), level.count, threads, memory)
