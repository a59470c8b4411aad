"""Estimated cost against the clock: a dozen jobs whose time and memory are estimated, then measured.

    python -m benchmarks.cost [--seconds S] [--job NAME] [--json FILE]

The machine is calibrated first (`gpuresample.calibrate`, not stored). No job is one of the calibration's. "estimate /
measured" is the estimate of a step over the fastest of its runs; 1 is right, 2 is twice too much. "resample" is of
arrays. Files are read as a command reads them, in new processes: from the page cache, and from the disk after the page
cache was asked to drop them; "all" is such a process from file to file. "read again" is the same process reading once
more, into memory that it may have freed: not what is estimated.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.bench import calibration, cases, measure, tables
from gpuresample.engines.cpu import tables as cpu_tables
from gpuresample.files import disk
from gpuresample.files import volumes as files

CLOSE = 2.0
PROCESSES = 3  # that read a file


@dataclass(frozen=True)
class Job:
    """A volume, what to make of it, and the file it comes from and goes to."""

    size: tuple[int, int, int]
    spacing: tuple[float, float, float]
    dtype: str
    keywords: dict[str, Any]
    ending: str = ""
    degrees: float = 0.0

    def plan(self, image: sitk.Image) -> gr.Plan:
        """The plan of the job."""
        return gr.plan(image, device="cpu", **self.asked())

    def asked(self) -> dict[str, Any]:
        """Keywords of `gr.plan`."""
        if not self.degrees:
            return self.keywords
        grid = gr.Grid.of_size(self.size, self.spacing)
        return {**self.keywords, "like": cases.turned(grid, cases.rotation(self.degrees, (1.0, 1.0, 1.0)))}


CT, MR = (0.78125, 0.78125, 1.0), (1.0, 1.0, 1.2)
JOBS = {
    "cubic, int16, coarser, .nii.gz": Job((320, 320, 140), CT, "int16", {"spacing": (1, 1, 2)}, ".nii.gz"),
    "linear, int16, coarser, .nii.gz": Job(
        (320, 320, 140), CT, "int16", {"spacing": (1.5, 1.5, 1.5), "interpolation": "linear"}, ".nii.gz"
    ),
    "nearest, uint8, finer, .nii.gz": Job(
        (200, 200, 80), CT, "uint8", {"spacing": 0.6, "interpolation": "nearest"}, ".nii.gz"
    ),
    "cubic, float32, finer, .nii": Job((160, 192, 90), MR, "float32", {"spacing": 0.7}, ".nii"),
    "linear, float64, finer, .nii": Job(
        (160, 192, 90), MR, "float64", {"spacing": 0.8, "interpolation": "linear"}, ".nii"
    ),
    "nearest, int16, coarser, .nrrd": Job(
        (320, 320, 140), CT, "int16", {"spacing": (1, 1, 2), "interpolation": "nearest"}, ".nrrd"
    ),
    "lanczos, int16, coarser, .nii": Job(
        (256, 256, 100), CT, "int16", {"spacing": 1.7, "interpolation": "lanczos"}, ".nii"
    ),
    "linear, float32, coarser, .nii": Job(
        (320, 320, 180), CT, "float32", {"spacing": 2.1, "interpolation": "linear"}, ".nii"
    ),
    "gaussian, float32, coarser": Job(
        (256, 256, 100), CT, "float32", {"spacing": 1.9, "interpolation": "gaussian"}
    ),
    "cubic, antialias, int16, thick slices": Job(
        (320, 320, 140), CT, "int16", {"spacing": (1, 1, 5), "antialias": True}
    ),
    "cubic, float64, coarser": Job((256, 256, 100), CT, "float64", {"spacing": (1, 1, 2)}),
    "linear, int16 to float32, finer": Job(
        (200, 200, 80), CT, "int16", {"spacing": 0.6, "interpolation": "linear", "dtype": "float32"}
    ),
    "bspline5, float32, own size": Job(
        (200, 200, 80), CT, "float32", {"size": (201, 199, 81), "interpolation": "bspline5"}
    ),
    "cubic, int16, turned by 17 degrees": Job((160, 160, 100), CT, "int16", {}, degrees=17.0),
    "linear, float32, turned by 17 degrees": Job(
        (200, 200, 100), CT, "float32", {"interpolation": "linear"}, degrees=17.0
    ),
    "nearest, uint8, turned by 17 degrees": Job(
        (200, 200, 100), CT, "uint8", {"interpolation": "nearest"}, degrees=17.0
    ),
}  # fmt: skip


def fastest(call: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest run, of three or as many as take so long; the result is freed before the next."""
    times: list[float] = []
    while len(times) < 3 or sum(times) < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def peak_of(plan: gr.Plan, voxels: Any) -> int:
    """Bytes that NumPy holds at most during a run, with no scratch left from earlier ones."""
    gr.set_num_threads(gr.get_num_threads())  # new threads, no old scratch
    cpu_tables._scratch.__dict__.clear()
    tracemalloc.start()
    try:
        plan.run(voxels)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gr.set_num_threads(None)


def measured(name: str, machine: Any, budget: float, folder: Path) -> list[dict[str, Any]]:
    """Estimates and times of a job's steps."""
    job = JOBS[name]
    array = cases.ct_like(job.size[::-1], np.dtype(job.dtype))
    image = cases.image(array, gr.Grid.of_size(job.size, job.spacing))
    plan = job.plan(image)
    path, out = folder / f"in{job.ending}", folder / f"out{job.ending}"
    kind = {"": "none", ".nii.gz": "gzip"}.get(job.ending, "raw")
    if job.ending:
        files.write(image, path, overwrite=True)
    cost = plan.cost(read=kind, write=kind, file_bytes=path.stat().st_size if job.ending else None, machine=machine)
    of_array = plan.cost(machine=machine)
    assert cost.seconds is not None
    assert of_array.seconds is not None
    s = cost.seconds
    volume = gr.Volume(array, job.spacing)
    result = plan.run(image)  # compiles
    rows: list[dict[str, Any]] = [
        {
            "step": "resample", "estimate": of_array.seconds["resample"],
            "measured": fastest(lambda: plan.run(volume), budget),
            "peak estimate": cost.peak_bytes, "peak": peak_of(plan, volume),
        }
    ]  # fmt: skip
    if job.ending:
        assert cost.cold_read is not None
        write = fastest(lambda: files.write(result, out, overwrite=True), budget)
        tiny = folder / "tiny.nii"
        files.write(cases.image(array[:8, :8, :8], gr.Grid.of_size((8, 8, 8))), tiny, overwrite=True)
        warm = first_read(name, path, tiny, cold=False)
        rows += [
            {"step": "read", "estimate": s["read"] + s["decompress"], "measured": warm["first"]},
            {"step": "write", "estimate": s["compress"] + s["write"], "measured": write},
        ]
        rows += [
            {"step": "all", "estimate": sum(s.values()), "measured": warm["whole"]},
            {"step": "read again", "estimate": rows[1]["estimate"], "measured": warm["again"]},
        ]
        if disk.forget(path):
            cold = first_read(name, path, tiny, cold=True)["first"]
            rows.append({"step": "read from disk", "estimate": cost.cold_read + s["decompress"], "measured": cold})
    return rows


def first_read(name: str, path: Path, tiny: Path, cold: bool) -> dict[str, float]:
    """What `first_read` measures of a job, the fastest of some processes."""
    found = []
    for _ in range(PROCESSES):
        if cold:
            disk.forget(path)
        found.append(measure.child(name, str(path), str(tiny), module="benchmarks.first_read"))
    return {key: min(f[key] for f in found) for key in found[0]}


def off(row: dict[str, Any]) -> float:
    """How far an estimate is off, as a ratio of at least 1."""
    ratio = row["estimate"] / row["measured"]
    return float(max(ratio, 1 / ratio))


def main(arguments: Sequence[str] | None = None) -> int:
    """Calibrate, estimate, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="for the runs of every step (default 0.5)")
    parser.add_argument("--job", choices=list(JOBS), action="append", help="only this one; may be repeated")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    info = measure.machine(gr.get_num_threads())
    print(measure.about(info))
    start = time.perf_counter()
    machine = calibration.calibrate(store=False)
    print(f"calibrated in {tables.duration(time.perf_counter() - start)}")
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="gpuresample-") as folder:
        for name in options.job or JOBS:
            found += [{"job": name, **row} for row in measured(name, machine, options.seconds, Path(folder))]
    lines = [
        [
            row["job"], row["step"], tables.duration(row["estimate"]), tables.duration(row["measured"]),
            f"{row['estimate'] / row['measured']:.2f}",
            tables.megabytes(row["peak estimate"]) if "peak" in row else "",
            tables.megabytes(row["peak"]) if "peak" in row else "",
        ]
        for row in found
    ]  # fmt: skip
    header = ("job", "step", "estimate", "measured", "estimate / measured", "peak estimate", "peak measured")
    tables.table("Estimated cost against the clock", header, lines)
    for step in ("resample", "read", "read from disk", "read again", "write", "all"):
        ratios = [off(row) for row in found if row["step"] == step]
        if ratios:
            print(
                f"{step}: off by a factor of {statistics.median(ratios):.2f} (median), {max(ratios):.2f} (worst); "
                f"{sum(r <= CLOSE for r in ratios)} of {len(ratios)} within {CLOSE:g}"
            )
    peaks = [off({"estimate": row["peak estimate"], "measured": row["peak"]}) for row in found if "peak" in row]
    print(f"peak memory: off by a factor of {statistics.median(peaks):.3f} (median), {max(peaks):.3f} (worst)")
    measure.save(options.json, "cost", given, {"machine": info, "rates": dict(machine.values), "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
