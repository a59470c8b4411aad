"""Zarr arrays: what is written at once, whether one can be an output, what reading takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpuresample.containers import LazyContainer, Volume
from gpuresample.containers.kinds import lazy_kind


def unit(array: Any) -> tuple[int, ...]:
    """Lengths of what a zarr array writes at once: its shards, or its chunks where it has none."""
    shards = getattr(array, "shards", None)
    return tuple(array.chunks if shards is None else shards)


def adopted(out: Any, container: LazyContainer, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """`out` as the zarr array to write to; refuse it unless it fits.

    Raises
    ------
    TypeError, ValueError
        For what is no zarr array, another shape or type, an array that is read-only or the input itself.
    """
    array = out.array if isinstance(out, Volume) else out
    if lazy_kind(array) != "zarr":
        raise TypeError(f"out must be a zarr.Array for an image that is not in memory, got {type(out).__name__}")
    if tuple(array.shape) != shape:
        raise ValueError(f"out must have shape {shape}, got {tuple(array.shape)}")
    if np.dtype(array.dtype).newbyteorder("=") != dtype:
        raise TypeError(f"out must have dtype {dtype}, got {array.dtype}")
    if array.read_only:
        raise ValueError("out must be writable, got a zarr array that was opened read-only")
    same = container.library == "zarr" and array.store_path == container.source.store_path
    if same:
        raise ValueError("out must not be the input itself")
    return array


def decoding_bytes(array: Any, lead: int, region: Sequence[slice]) -> int:
    """Bytes of the chunks that are decoded at once for a region, compressed and not; of shards all is read before."""
    import zarr

    d = len(region)
    met = [(r.stop - 1) // c - r.start // c + 1 for r, c in zip(region, array.chunks[-d:], strict=True)]
    abreast = min(int(zarr.config.get("async.concurrency")), lead * math.prod(met))
    chunk = math.prod(array.chunks) * np.dtype(array.dtype).itemsize
    fetched = lead * math.prod(met) if getattr(array, "shards", None) is not None else 0
    return (2 * abreast + fetched) * chunk
