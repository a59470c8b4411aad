"""What a job costs before it runs: multiply-adds, bytes, memory, and the time on a machine whose rates are known.

Counts follow from the tables and from how the CPU engine cuts them into tiles; they are exact. Times are sums of
products of counts and measured rates (`rates.Rates`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.engines import threads as pool
from gpuresample.engines.contract import Store
from gpuresample.planning import planner
from gpuresample.planning.works import Gather, Majority, Separable, Work

if TYPE_CHECKING:
    from gpuresample.costs.rates import Rates
    from gpuresample.engines.cpu.footprint import Footprint

# Larger blocks of memory are new every time they are asked for, smaller ones are what was freed before (glibc's largest
# threshold for that). New memory is dear: the system clears it page by page.
REUSED = 1 << 25
# Voxels of the two neighbourhoods that `calibration` measures on rotated grids: cubic B-spline and windowed sinc.
CUBIC, SINC = 4**3, 10**3
STEPS = ("read", "decompress", "resample", "compress", "write")
# What a file is: none, its voxels as they are, or its voxels in a gzip stream.
FILES = ("none", "raw", "gzip")


@dataclass(frozen=True)
class Cost:
    """What a job costs. Counts and times are of all volumes together, memory is of one after the other.

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
    seconds : dict of str to float, or None
        Estimated time by step: "read", "decompress", "resample", "compress", "write", one after the other. None where
        no rates are known. Without the time to compile kernels on first use. Files are read from the page cache into
        new memory; where a process reads again into what it has freed, nothing has to be cleared, and raw files take
        a fraction of it.
    cold_read : float or None
        Time of "read" where the files are not in the page cache, but on `storage`, or on the disk that was measured.
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
    seconds: dict[str, float] | None
    cold_read: float | None

    @property
    def total_seconds(self) -> float | None:
        """Estimated time of all steps; None where no rates are known."""
        return None if self.seconds is None else sum(self.seconds.values())

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "total_seconds": self.total_seconds}


@dataclass(frozen=True)
class Call:
    """What the engine is called with, once per volume: a plan's work, types and rules."""

    work: Work
    store: Store
    src_shape: tuple[int, ...]  # (channels, z, y, x)
    source: np.dtype[Any]
    dst_shape: tuple[int, ...]
    target: np.dtype[Any]
    clips: bool  # to the range of the volume that the sums are of

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


def of(
    call: Call, volumes: int, read: str, write: str, file_bytes: int | None, storage: float | None, rates: Rates | None
) -> Cost:
    """The cost of so many calls; see `Plan.cost`."""
    cost = counted(call, volumes)
    if rates is None:
        return cost
    one_input, one_output = cost.input_bytes // volumes, cost.output_bytes // volumes
    around = read, write, file_bytes, one_input, one_output, rates, storage
    seconds, cold = file_seconds(*around), file_seconds(*around, cold=True)["read"]
    seconds["resample"] = resampling_seconds(call, rates)
    if (read, write) != ("none", "none"):
        # From files come SimpleITK images, and go to files.
        seconds["resample"] += rates["image_byte"] * one_output
    return replace(cost, seconds={step: volumes * seconds[step] for step in STEPS}, cold_read=volumes * cold)


def counted(call: Call, volumes: int = 1) -> Cost:
    """All of a job's cost but its time."""
    work = call.work
    read = _needed(work) * call.channels * call.source.itemsize
    held = footprint(call, pool.get_num_threads())
    taps, order, adds = _arithmetic(work)
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
        seconds=None,
        cold_read=None,
    )


def _arithmetic(work: Work) -> tuple[tuple[float, ...], tuple[str, ...], int]:
    """Taps, order and multiply-adds of one volume."""
    if isinstance(work, Majority):
        return (0.0, 0.0, 0.0), ("mode",), 0
    if isinstance(work, Gather):
        neighbours = _neighbours(work)
        nothing: tuple[tuple[float, float, float], tuple[str, ...], int] = (0.0, 0.0, 0.0), (), 0
        taps, order, adds = nothing if work.prefilter is None else _of_tables(_passes_before(work))
        sums = 0 if work.method == "index" else neighbours * math.prod(work.n_dst)
        return (*taps, float(neighbours)), (*order, "gather"), adds + sums
    if work.copies:
        return (0.0, 0.0, 0.0), ("copy",), 0
    taps, order, adds = _of_tables(work)
    if work.shortcut:
        adds = sum(_of_tables(step)[2] for step in _run(work))
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


def _passes_before(work: Gather) -> Separable:
    """The prefilter of a rotated grid."""
    from gpuresample.engines.cpu.gather import prefilter_work

    assert work.prefilter is not None
    return prefilter_work(work.prefilter, work.precision)


def _run(work: Separable) -> list[Separable]:
    """What the engine runs: the work, or its shortcut's."""
    from gpuresample.engines.cpu.footprint import steps

    return list(steps(work.shortcut)) if work.shortcut else [work]


# --- memory --------------------------------------------------------------------------------------------------------


def footprint(call: Call, threads: int) -> Footprint:
    """What an engine of so many threads takes."""
    from gpuresample.engines.cpu import footprint as cpu_footprint

    return cpu_footprint.footprint(
        call.work, call.src_shape, call.source, call.dst_shape, call.target, call.store, threads
    )


# --- time ----------------------------------------------------------------------------------------------------------


def resampling_seconds(call: Call, rates: Mapping[str, float] | Rates) -> float:
    """The engine's time for one call."""
    computed = sum(rates[name] * amount for name, amount in terms(call))
    cost = counted(call)
    between = footprint(call, pool.get_num_threads()).between
    # No job is faster than its bytes pass through the memory.
    moved = rates["memory_byte"] * cost.moved_bytes
    fresh = sum(n for n in (cost.output_bytes, between) if n > REUSED)
    return rates["call"] + max(computed, moved) + rates["new_byte"] * fresh


def terms(call: Call) -> Iterator[tuple[str, float]]:
    """Rates by name, and how often each is due."""
    from gpuresample.engines.cpu.means import sums_of

    work, source, target = call.work, call.n_src, call.n_dst
    voxels = call.source.newbyteorder("=")
    if call.store.exact and voxels != call.target:
        yield "convert", source
    if isinstance(work, Separable) and sums_of(work, voxels, call.target, call.store) is not None:
        yield "mean", _needed(work) * call.channels
        return
    if call.store.divisor != 1:
        yield "convert", target
    if call.clips:
        yield "memory_byte", source * call.source.itemsize
        if call.target.kind == "f":
            yield "memory_byte", 2 * target * call.target.itemsize
    if np.float16 in (voxels, call.target):
        yield "convert", source
    if isinstance(work, Majority):
        yield "mode", math.prod(work.block) * target
    elif isinstance(work, Gather):
        yield from ((name, amount * call.channels) for name, amount in _gather_terms(work))
    elif work.copies and (call.store.exact or voxels == call.target):
        copied = math.prod(t.n_dst for t in work.tables) * call.channels
        yield "copy_voxel", copied
        yield "copy_byte", copied * call.target.itemsize
    else:
        # What `pass_cost` leaves out: the first pass reads all of the source, however few samples it makes.
        yield "memory_byte", _needed(work) * call.channels * call.source.itemsize
        for step in _run(work):
            yield from ((name, amount * call.channels) for name, amount in _table_terms(step))


def _table_terms(work: Separable) -> Iterator[tuple[str, float]]:
    from gpuresample.engines.cpu.table_kernels import FEW_TAPS
    from gpuresample.engines.cpu.tables import SMALL

    if not all(t.n_dst for t in work.tables):
        return
    few = all(t.n_taps <= FEW_TAPS for t in work.tables)
    kind = "single" if work.precision == "single" else "double"
    # Small work is done by one thread.
    alone = pool.get_num_threads() if math.prod(t.n_dst for t in work.tables) < SMALL else 1
    order = work.order or (0,)  # a conversion is a pass that changes nothing
    yield f"{'few' if few else 'wide'}_{kind}", planner.pass_cost(_read(work), order) * alone


def _gather_terms(work: Gather) -> Iterator[tuple[str, float]]:
    voxels = math.prod(work.n_dst)
    kind = "single" if work.precision == "single" else "double"
    if work.prefilter is not None:
        yield from _table_terms(_passes_before(work))
    if work.method == "index":
        yield "gather_index", voxels
    elif work.method == "label_linear":
        yield "vote_linear", voxels
    elif work.method == "label_gaussian":
        yield "vote_gaussian", voxels
    elif work.coefficients.shape[1] == 2:
        yield f"gather_pair_{kind}", voxels
    else:
        # In proportion up to the smaller of the two neighbourhoods that were measured, on a line between them.
        n = _neighbours(work)
        share = max(0.0, (n - CUBIC) / (SINC - CUBIC))
        yield f"gather_cubic_{kind}", voxels * (1.0 - share if n > CUBIC else n / CUBIC)
        yield f"gather_sinc_{kind}", voxels * share


def file_seconds(
    read: str, write: str, file_bytes: int | None, input_bytes: int, output_bytes: int, rates: Rates,
    storage: float | None = None, cold: bool = False,
) -> dict[str, float]:  # fmt: skip
    """Times of the steps around the resampling, for one volume.

    Parameters
    ----------
    read, write : {"none", "raw", "gzip"}
    file_bytes : int or None
        Of the input file; estimated where it is not known.
    input_bytes, output_bytes : int
        Of the voxels.
    rates : Rates
    storage : float, optional
        Bytes per second of the storage, where it is slower than what was measured.
    cold : bool
        Whether the page cache holds nothing of what is read.
    """
    share = rates["gzip_share"] if file_bytes is None or read != "gzip" else min(1.0, file_bytes / max(1, input_bytes))
    held = {"none": 0.0, "raw": float(input_bytes), "gzip": share * input_bytes}[read]
    made = {"none": 0.0, "raw": float(output_bytes), "gzip": share * output_bytes}[write]
    slowest = 0.0 if storage is None else 1.0 / storage
    seconds = dict.fromkeys(STEPS, 0.0)
    if read != "none":
        byte = rates["cold_byte" if cold and storage is None else "read_byte"]
        seconds["read"] = rates["file"] + max(byte, slowest) * held
    if write != "none":
        seconds["write"] = rates["file_written"] + max(rates["write_byte"], slowest) * made
    if read == "gzip":
        seconds["decompress"] = rates["unzip_in"] * held + rates["unzip_out"] * input_bytes
    if write == "gzip":
        seconds["compress"] = rates["zip_in"] * output_bytes + rates["zip_out"] * made
    return seconds
