"""What a job costs before it runs: multiply-adds, bytes and memory.

They follow from the tables and from how the CPU engine cuts them into tiles, and are exact. What they take in time is
not estimated: one volume on the machine in question tells that better than a model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.engines import threads as pool
from gpuresample.engines.interface import Store
from gpuresample.frozen import frozen
from gpuresample.planning import planner
from gpuresample.planning.works import Gather, Majority, Separable, Work

if TYPE_CHECKING:
    from gpuresample.engines.cpu.footprint import Footprint


@dataclass(frozen=True)
class Cost:
    """What a job costs. Counts are of all volumes together, memory is of one after the other.

    Attributes
    ----------
    volumes : int
        Volumes of the job.
    taps : tuple of float
        Mean taps per output sample along the input's axes, in array order; 0 where an axis stays as it is. Rotated
        grids: of the prefilter, then one more number, the voxels of a neighbourhood.
    order : tuple of str
        Axes ("z", "y", "x") in the order of their passes; "gather" for what rotated grids add, "copy" for copies.
    multiply_adds : int
        Multiply-adds of all passes.
    input_bytes, output_bytes : int
        Of the voxels in memory.
    moved_bytes : int
        Bytes of input that the job needs, and of output: what must move between memory and processor at least.
    scratch_bytes : int
        Of each thread, as the CPU engine makes it.
    threads : int
        Threads that work on a volume.
    peak_bytes : int
        Peak memory beyond the input: output, scratch of all threads, and whole volumes in between.
    """

    volumes: int
    taps: tuple[float, ...]
    order: tuple[str, ...]
    multiply_adds: int
    input_bytes: int
    output_bytes: int
    moved_bytes: int
    scratch_bytes: int
    threads: int
    peak_bytes: int


@frozen()
class Call:
    """What the engine is called with, once per volume: a plan's work, types and rules."""

    work: Work
    store: Store
    src_shape: tuple[int, ...]  # (channels, z, y, x)
    source: np.dtype[Any]
    dst_shape: tuple[int, ...]
    target: np.dtype[Any]

    @property
    def channels(self) -> int:
        """Volumes that one call resamples."""
        return math.prod(self.src_shape[:-3])

    @property
    def n_src(self) -> int:
        """Voxels of all that go in."""
        return math.prod(self.src_shape)

    @property
    def n_dst(self) -> int:
        """Voxels of all that come out."""
        return math.prod(self.dst_shape)


# --- counts --------------------------------------------------------------------------------------------------------


def of(call: Call, volumes: int = 1) -> Cost:
    """The cost of so many calls; see `Plan.cost`."""
    work = call.work
    read = _needed(work) * call.channels * call.source.itemsize
    held = footprint(call, pool.get_num_threads())
    taps, order, adds = _arithmetic(call)
    output = call.n_dst * call.target.itemsize
    return Cost(
        volumes=volumes,
        taps=taps,
        order=order,
        multiply_adds=adds * call.channels * volumes,
        input_bytes=call.n_src * call.source.itemsize * volumes,
        output_bytes=output * volumes,
        moved_bytes=(read + output) * volumes,
        scratch_bytes=held.tile,
        threads=held.threads,
        peak_bytes=output + held.total,
    )


def _arithmetic(call: Call) -> tuple[tuple[float, ...], tuple[str, ...], int]:
    """Taps, order and multiply-adds of one volume."""
    with pool.importing:
        from gpuresample.engines.cpu.ways import steps_of
    work, none = call.work, (0.0, 0.0, 0.0)
    steps = steps_of(work, call.source.newbyteorder("="), call.target, call.store)
    made = [_of_tables(step) for step in steps.tables]
    adds = sum(of_step for _, _, of_step in made)
    if isinstance(work, Majority):
        return none, ("mode",), 0
    if isinstance(work, Gather):
        neighbours = _neighbours(work)
        taps, order, _ = made[0] if made else (none, (), 0)
        sums = 0 if work.method == "index" else neighbours * math.prod(work.n_dst)
        return (*taps, float(neighbours)), (*order, "gather"), adds + sums
    if steps.way == "copy":
        return none, ("copy",), 0
    # A shortcut is told by what it stands for.
    taps, order, _ = _of_tables(work) if steps.way == "shortcut" else made[0]
    return taps, order, adds


def _of_tables(work: Separable) -> tuple[tuple[float, float, float], tuple[str, ...], int]:
    mean = [0.0, 0.0, 0.0]
    adds = 0.0
    for axis, samples, taps in planner.passes(_read(work), work.order):
        mean[axis] = taps
        adds += samples * taps
    return (mean[0], mean[1], mean[2]), tuple("zyx"[axis] for axis in work.order), round(adds)


def _read(work: Separable) -> tuple[Any, Any, Any]:
    """The tables over the part of the source that they read: no engine computes more."""
    a, b, c = (t.crop(0, t.n_dst) if t.n_dst else t for t in work.tables)
    return a, b, c


def _needed(work: Work) -> int:
    """Voxels of a volume that are read."""
    if isinstance(work, Majority):
        return math.prod(work.block) * math.prod(work.n_dst)
    n = list(work.n_dst)
    if isinstance(work, Separable):
        for axis, out in enumerate(work.dst_axis):
            n[out] = work.n_dst[axis]
    return math.prod(hi - lo for lo, hi in planner.input_region(work, ((0, n[0]), (0, n[1]), (0, n[2]))))


def _neighbours(work: Gather) -> int:
    width = work.coefficients.shape[1]
    return 1 if work.method == "index" else int(width**3)


# --- memory --------------------------------------------------------------------------------------------------------


def footprint(call: Call, threads: int) -> Footprint:
    """What an engine of so many threads takes."""
    with pool.importing:
        from gpuresample.engines.cpu import footprint as cpu_footprint
    return cpu_footprint.footprint(
        call.work, call.src_shape, call.source, call.dst_shape, call.target, call.store, threads
    )
