"""Counts what the CUDA kernels execute for every voxel of the main jobs, from the machine code, without a GPU.

    python -m benchmarks.instructions [--job WORD ...] [--out FILE]

Needs `pip install nvidia-cuda-nvrtc nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm`. `benchmarks/sass.py` runs the code for
sm_90; every result is compared with what g++ makes of the same text. `--job` takes those whose name has one of the
words. `--out` writes the table as markdown too. Exit code 1 if a result differs.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kernel_paths, sass
from gpuresample import Grid
from gpuresample.bench import tables
from gpuresample.engines.cuda import axis as cuda_axis
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.interface import Outputs, Store
from gpuresample.ops import ensemble_walk
from gpuresample.planning import planner
from gpuresample.planning.works import Ensemble, Work

Array = np.ndarray[Any, np.dtype[Any]]
# Largest difference of sums that fuse from those that do not, of the range.
AGREEMENT = 1e-6
COLUMNS = ("instructions", "sums", "conversions", "shared", "wavefronts", "global", "sectors", "other")


@dataclass(frozen=True, eq=False)
class Job:
    """What is run, on the runtime that it is given; it returns the result, and calls with the same result."""

    name: str
    voxels: int
    run: Callable[[CudaEngine], Array]


def of_work(name: str, work: Work, shape: tuple[int, ...], out: tuple[int, ...], source: str, target: str) -> Job:
    """A work on drawn voxels."""
    if source.startswith("float"):
        src = np.random.default_rng(0).standard_normal(shape).astype(source)
    else:
        src = np.random.default_rng(0).integers(0, 9 if source == "uint8" else 2000, shape).astype(source)

    def run(engine: CudaEngine) -> Array:
        dst = np.zeros(out, target)
        engine.run(work, src, dst, Store())
        return dst

    return Job(name, int(np.prod(out)), run)


def separable(name: str, n: int, planes: int, interpolation: str, source: str, target: str, volumes: int = 1) -> Job:
    """The reference job's steps on a square of `n` voxels, with as many planes of output."""
    m, depth = n * 25 // 32, 2 * planes - 1
    before = Grid.of_size((n, n, depth), (0.78125, 0.78125, 1.0))
    after = Grid.of_size((m, m, planes), (1.0, 1.0, 2.0))
    work = planner.make_work(before, after, (), interpolation, None, False, "single")
    batch = () if volumes == 1 else (volumes,)
    return of_work(name, work, (*batch, depth, n, n), (*batch, planes, m, m), source, target)


def turned(name: str, interpolation: str, dtype: str) -> Job:
    """A volume that is turned onto its own grid."""
    grid = Grid.of_size((128, 32, 16))
    work = kernel_paths.turned(grid, kernel_paths.ANGLES, interpolation)
    return of_work(name, work, grid.size[::-1], grid.size[::-1], dtype, dtype)


def ensemble(name: str, models: int, classes: int, wanted: str) -> Job:
    """Scores on half the voxels along every axis, as a network's are on a coarser grid."""
    fine = Grid.of_size((192, 16, 8))
    coarse = Grid((96, 8, 4), (2.0,) * 3, (0.5,) * 3, fine.direction)
    members = tuple(ensemble_walk.member(coarse, fine, "linear", 1 / models) for _ in range(models))
    nx, ny, nz = fine.size
    shape = nz, ny, nx
    work = Ensemble(
        members, classes, shape, "softmax", False, "largest", np.full(classes, 0.5, np.float32),
        np.arange(classes + 1, dtype=np.uint64),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    scores = [rng.standard_normal((classes, *coarse.size[::-1])).astype(np.float32) for _ in range(models)]

    def run(engine: CudaEngine) -> Array:
        out = np.zeros(shape, np.uint8 if wanted == "labels" else np.float32)
        with engine.combining(models) as combiner:
            combiner.combine(work, scores, Outputs(**{wanted: out}))
        return out

    return Job(name, int(np.prod(shape)), run)


def jobs() -> Iterator[Job]:
    """The main jobs, with fewer voxels where the counts for a voxel do not depend on them."""
    yield separable("reference, cubic B-spline", 512, 2, "bspline3", "int16", "float32")
    yield separable("reference, linear", 256, 4, "linear", "float32", "float32")
    yield separable("reference, nearest", 256, 4, "nearest", "int16", "int16")
    yield separable("Gaussian, 8 taps", 192, 16, "gaussian", "int16", "float32")
    yield separable("sinc, 10 taps", 192, 2, "hamming", "float32", "float32")
    yield separable("batch of 32 x 16^2 x 15, linear", 16, 8, "linear", "float32", "float32", 32)
    yield separable("batch of 32 x 16^2 x 15, cubic B-spline", 16, 8, "bspline3", "float32", "float32", 32)
    yield turned("turned, linear", "linear", "float32")
    yield turned("turned, nearest", "nearest", "float32")
    yield turned("turned, cubic B-spline", "bspline3", "float32")
    yield ensemble("ensemble of 2 x 12 classes, labels", 2, 12, "labels")
    yield ensemble("ensemble of 2 x 12 classes, confidence", 2, 12, "confidence")


def counted(job: Job) -> tuple[dict[str, Counter[str]], Counter[str], float]:
    """What every kernel of a job executes, its launches, and the difference of its result, of the range."""
    runtime = sass.Counting()
    got = job.run(CudaEngine(runtime))
    wanted = job.run(CudaEngine(HostRuntime())).astype(np.float64)
    if got.dtype.kind == "u":  # labels: how many differ
        return runtime.counted, runtime.launches, float((got != wanted).mean())
    return runtime.counted, runtime.launches, float(np.abs(got - wanted).max() / max(np.ptp(wanted), 1e-30))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a result differs from that of the host's build."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.instructions", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--job", nargs="+", metavar="WORD", help="only jobs whose names have one of the words")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the table as markdown")
    options = parser.parse_args(arguments)
    # Jobs have few planes of the real ones, whose blocks make whole rows.
    cuda_axis.MANY_BLOCKS = 0
    rows, bad = [], []
    for job in jobs():
        if options.job and not any(word in job.name for word in options.job):
            continue
        kernels, launches, difference = counted(job)
        if difference > AGREEMENT:
            bad.append(f"{job.name}: differs by {difference:.1e} of the range")
        for kernel, counts in sorted(kernels.items()):
            each = [f"{counts[name] * sass.WARP / job.voxels:.1f}" for name in COLUMNS]
            rows.append([job.name, kernel, str(launches[kernel]), *each, f"{difference:.0e}"])
    header = ["job", "kernel", "launches", *COLUMNS, "difference"]
    title = f"Executed for 32 output voxels, compiled by NVRTC for sm_{sass.ARCHITECTURE}"
    note = (
        "instructions of warps: all, and of these sums (multiply-adds, products), conversions, loads and stores of "
        "shared and of global memory, all others; wavefronts: turns that shared memory takes; sectors: pieces of 32 "
        "bytes of global memory; difference: from the same text built by g++, of the range"
    )
    tables.table(title, header, rows, note)
    if options.out:
        lines = [f"# {title}", "", f"{note[0].upper()}{note[1:]}.", "", f"| {' | '.join(header)} |"]
        lines += [f"|{'---|' * len(header)}", *[f"| {' | '.join(row)} |" for row in rows]]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for line in bad:
        print(line)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
