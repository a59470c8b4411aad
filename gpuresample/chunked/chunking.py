"""How outputs are cut into chunks, and how many chunks are worked on at once."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from gpuresample.containers import LazyContainer
from gpuresample.engines.interface import Store
from gpuresample.planning.grid import Grid
from gpuresample.planning.works import Separable, Work

# Bytes of a block of the output, or of the part of the input under it if that is more: chunks are halved or doubled
# until they lie between. Chunks of zarr arrays are read again by every neighbour whose taps reach into them, so blocks
# of these are larger.
MOST = 64 << 20
LEAST = {"dask": 1 << 20, "zarr": 16 << 20}
# Bytes that blocks under way may take together; one block is always under way.
MEMORY = 512 << 20


class Planned(Protocol):
    """What is asked of a plan here; `gpuresample.Plan` is one."""

    @property
    def source(self) -> Grid:
        """Grid of the input."""

    @property
    def target(self) -> Grid:
        """Grid of the output."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Voxel type of the output."""

    @property
    def work(self) -> Work:
        """What the engine is asked for."""

    @property
    def device(self) -> str:
        """Where it runs."""

    @property
    def store(self) -> Store:
        """How sums become voxels."""

    @property
    def clip(self) -> bool:
        """Whether the range of the whole input matters to every voxel."""

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Spatial shape of the output."""

    def check_image(self, container: Any) -> None:
        """Refuse an image that does not fit."""

    def input_region(self, dst_slices: Sequence[slice]) -> tuple[slice, ...]:
        """What a block needs."""

    def crop(self, dst_slices: Sequence[slice]) -> Any:
        """The block's own plan."""

    def scratch_bytes(self, source: np.dtype[Any], lead: int, threads: int) -> int:
        """What the engine takes beside input and output."""


def default_chunks(plan: Planned, container: LazyContainer) -> tuple[int, ...]:
    """Chunk lengths of an output: the input's on the output's grid, halved or doubled to `LEAST` and `MOST` bytes."""
    d = plan.target.dimension
    lead = [max(c) for c in container.chunks[:-d]]
    whole = plan.output_shape
    under = _source_axes(plan, d)
    length = []
    for axis, n in enumerate(whole):
        read = container.shape[-d:][under[axis]]
        given = max(container.chunks[-d:][under[axis]])
        length.append(min(n, max(1, math.ceil(given * n / read))))
    ratio = math.prod(container.shape[-d:]) / math.prod(whole)
    item = max(plan.dtype.itemsize, container.dtype.itemsize * ratio)
    length = bounded([*lead, *length], (*container.shape[:-d], *whole), d, item, LEAST[container.library])
    return tuple(length)


def _source_axes(plan: Planned, d: int) -> list[int]:
    """The input's spatial axis that each of the output's comes from; of a turned grid, the one in its place."""
    axes = list(range(d))
    if isinstance(plan.work, Separable):
        for source, out in enumerate(plan.work.dst_axis):
            if out >= 3 - d:
                axes[out - (3 - d)] = source - (3 - d)
    return axes


def bounded(
    length: Sequence[int], shape: Sequence[int], d: int, item: float, least: float, most: float = MOST
) -> list[int]:
    """Chunk lengths of `least` to `most` bytes where the shape allows, `item` bytes a voxel; the last `d` are space."""
    out = list(length)
    n = len(out)
    while math.prod(out) * item > most and max(out) > 1:
        lead = [axis for axis in range(n - d) if out[axis] > 1]
        axis = lead[0] if lead else max(range(n), key=lambda k: out[k])
        out[axis] = -(-out[axis] // 2)
    while math.prod(out) * item < least:
        open_ = [axis for axis in range(n) if out[axis] < shape[axis]]
        space = [axis for axis in open_ if axis >= n - d]
        if not open_ or 2 * math.prod(out) * item > most:
            break
        axis = min(space or open_, key=lambda k: out[k])
        out[axis] = min(2 * out[axis], shape[axis])
    return out


def grown(unit: Sequence[int], shape: Sequence[int], d: int, item: float, least: float) -> tuple[int, ...]:
    """Blocks of whole units (chunks or shards), as many as make `least` bytes and no more than `MOST`."""
    units = [-(-n // u) for n, u in zip(shape, unit, strict=True)]
    count = [1] * len(units)
    while math.prod(unit) * math.prod(count) * item < least:
        open_ = [axis for axis in range(len(units)) if count[axis] < units[axis]]
        space = [axis for axis in open_ if axis >= len(units) - d]
        if not open_ or 2 * math.prod(unit) * math.prod(count) * item > MOST:
            break
        axis = min(space or open_, key=lambda k: count[k] * unit[k])
        count[axis] = min(2 * count[axis], units[axis])
    return tuple(min(u * c, n) for u, c, n in zip(unit, count, shape, strict=True))


def regular(length: Sequence[int], shape: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Chunks of one length along every axis, the last one what is left."""
    return tuple(tuple(min(c, n - at) for at in range(0, n, c)) for c, n in zip(length, shape, strict=True))


def walk(length: Sequence[int], shape: Sequence[int]) -> Iterator[tuple[tuple[int, ...], tuple[slice, ...]]]:
    """Index and slices of the chunks that `regular` cuts, one after the other; no list of them is made."""
    counts = [-(-n // c) for c, n in zip(length, shape, strict=True)]
    for number in range(math.prod(counts)):
        rest, index = number, []
        for count in reversed(counts):
            rest, k = divmod(rest, count)
            index.append(k)
        place = tuple(reversed(index))
        yield place, tuple(slice(k * c, min((k + 1) * c, n)) for k, c, n in zip(place, length, shape, strict=True))


def at_once(block_bytes: int, blocks: int, threads: int, memory: int | None = None) -> int:
    """Blocks to have under way together: a thread each, as far as `memory` bytes (`MEMORY` unless given) go."""
    room = (MEMORY if memory is None else memory) // max(1, block_bytes)
    return max(1, min(threads, blocks, room))
