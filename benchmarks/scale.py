"""How long a cohort of up to a petabyte takes, on how many nodes, and what limits it: writes docs/scale.md.

    python -m benchmarks.scale [--write] [--gpu FILE] [--nodes N ...] [--network B] [--gpu-network B] [--storage B]
                               [--json FILE]

A model, from three kinds of inputs, each named in the output with where it is from: rates of this machine, measured now
(`gpuresample.calibrate`); a GPU's recorded times (`kernels.json` of `make gpu`); and assumptions about network and
storage, which are options. Every volume is the reference job's. The model is held against the clock where it can be
here: one node, from file to file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gpuresample as gr
from gpuresample.bench import calibration, cases, measure
from gpuresample.bench.measure import ROOT
from gpuresample.files import disk
from gpuresample.files import volumes as files

PAGE = ROOT / "docs" / "scale.md"
RECORDED = ROOT / "benchmarks" / "results" / "nvidia-h200-2026-11-27" / "kernels.json"
JOB = "bspline, int16 to float32"
SIZE, SPACING, TARGET = (512, 512, 247), (0.78125, 0.78125, 1.0), (1.0, 1.0, 2.0)
NODES = (1, 4, 16, 64, 256, 1024)
COHORTS = {"1 TB": 1e12, "10 TB": 1e13, "100 TB": 1e14, "1 PB": 1e15}
GBIT = 1e9 / 8
VOXELS = 2.0 * SIZE[0] * SIZE[1] * SIZE[2]  # bytes of a volume in memory
# Cores of the machine in which the GPU was timed: docs/gpu.md says so, its record does not.
GPU_CORES = 16
RUNS = 9


@dataclass(frozen=True)
class Input:
    """A figure that the model builds on, and where it is from."""

    name: str
    text: str
    source: str


@dataclass(frozen=True)
class Way:
    """A kind of node and of file: seconds that each of its parts is busy with a volume, and bytes that pass.

    Attributes
    ----------
    name : str
    parts : dict of str to float
        Seconds per volume by part of a node; parts work at the same time, on different volumes.
    bytes_in, bytes_out : float
        Of files, per volume.
    network : float
        Bytes per second of a node's network.
    """

    name: str
    parts: dict[str, float]
    bytes_in: float
    bytes_out: float
    network: float

    def limits(self, nodes: int, storage: float) -> dict[str, float]:
        """Volumes per second that each part allows, all nodes together."""
        moved = self.bytes_in + self.bytes_out
        found = {name: nodes / seconds for name, seconds in self.parts.items() if seconds}
        return {**found, "network": nodes * self.network / moved, "storage": storage / moved}

    def rate(self, nodes: int, storage: float) -> tuple[float, str]:
        """Volumes per second, and the part that allows no more."""
        found = self.limits(nodes, storage)
        slowest = min(found, key=lambda name: found[name])
        return found[slowest], slowest

    def enough(self, storage: float) -> float:
        """Nodes at which the storage gives and takes no more."""
        alone = {name: value for name, value in self.limits(1, storage).items() if name != "storage"}
        return self.limits(1, storage)["storage"] / min(alone.values())


def ways(
    steps: Mapping[str, Mapping[str, float]], sizes: Mapping[str, tuple[float, float]], gpu: Mapping[str, float],
    threads: int, network: float, gpu_network: float,
) -> list[Way]:  # fmt: skip
    """The kinds of nodes.

    Parameters
    ----------
    steps : mapping
        Seconds by step (`costs.STEPS`) of a volume in a "gzip" and in a "raw" file, on this machine.
    sizes : mapping
        Bytes of the input's and the output's file, of the same two.
    gpu : mapping
        "host_pinned", "host_pageable", "cpu_engine": recorded seconds of a job.
    threads : int
        Of this machine, which `steps` are of.
    network, gpu_network : float
        Bytes per second.
    """
    share = threads / GPU_CORES
    around = share * sum(value for step, value in steps["raw"].items() if step != "resample")
    small, large = f"{threads} cores", f"{GPU_CORES} cores"
    return [
        Way(f"{small}, .nii.gz", {"cores": sum(steps["gzip"].values())}, *sizes["gzip"], network),
        Way(f"{small}, .nii", {"cores": sum(steps["raw"].values())}, *sizes["raw"], network),
        Way(f"{large}, .nii", {"cores": around + gpu["cpu_engine"]}, *sizes["raw"], gpu_network),
        Way(f"{large} and GPU, .nii", {"cores": around, "GPU": gpu["host_pageable"]}, *sizes["raw"], gpu_network),
        Way(f"{large} and GPU, .nii, pinned", {"cores": around, "GPU": gpu["host_pinned"]}, *sizes["raw"], gpu_network),
    ]


# --- inputs ----------------------------------------------------------------------------------------------------------


def recorded(path: Path) -> tuple[dict[str, Any], dict[str, float]]:
    """A record of `make gpu`, and the times of the job in it."""
    record: dict[str, Any] = json.loads(path.read_text())
    found = [job for job in record["jobs"] if job["name"] == JOB]
    if not found or (tuple(record["source"]), tuple(record["target"])) != (SIZE, (400, 400, 124)):
        raise ValueError(f"{path}: has no job {JOB!r} of the reference volume")
    return record, found[0]["whole"]


def measured(machine: Any, folder: Path) -> dict[str, dict[str, Any]]:
    """Of both kinds of files: estimated steps, file sizes, and seconds from file to file as the clock has them."""
    grid = gr.Grid.of_size(SIZE, SPACING)
    image = cases.image(cases.ct_like(SIZE[::-1], "int16"), grid)
    found = {}
    for kind, ending, dtype in (("gzip", ".nii.gz", "int16"), ("raw", ".nii", "float32")):
        plan = gr.plan(image, spacing=TARGET, dtype=dtype, device="cpu")
        source, target = folder / f"in{ending}", folder / f"out{ending}"
        files.write(image, source, overwrite=True)
        spent = measure.Times()
        for k in range(RUNS + 1):
            start = time.perf_counter()
            files.write(plan.run(files.read(source)), target, overwrite=True)
            if k:  # the first one loads Numba
                spent.seconds.append(time.perf_counter() - start)
        size = source.stat().st_size
        cost = plan.cost(read=kind, write=kind, file_bytes=size, machine=machine)
        found[kind] = {
            "steps": cost.seconds, "sizes": (float(size), float(target.stat().st_size)), "cold_read": cost.cold_read,
            "clock": spent.seconds,
        }  # fmt: skip
        source.unlink()
        target.unlink()
    return found


def inputs(
    machine: Any, here: Mapping[str, Any], gpu: Mapping[str, float], record: Mapping[str, Any], path: Path, options: Any
) -> list[Input]:
    """Every figure, named."""
    when = time.strftime("%Y-%m-%d", time.localtime(machine.measured))
    rates = f"measured, {machine.machine['processor']}, {machine.machine['threads']} threads, {when}: `gr.calibrate()`"
    sizes = f"measured, the same machine, {when}: files written"
    run = f"recorded, {record['device']}, {record['date']}: `{_name(path)}`"
    out = []
    for kind, ending in (("gzip", ".nii.gz"), ("raw", ".nii")):
        for step, value in here[kind]["steps"].items():
            if value:
                out.append(Input(f"{step}, {ending}", duration(value), rates))
        file_in, file_out = here[kind]["sizes"]
        out.append(Input(f"file in and out, {ending}", f"{file_in / 1e6:.1f} MB, {file_out / 1e6:.1f} MB", sizes))
    out += [
        Input("resample, CPU engine of the GPU's machine", duration(gpu["cpu_engine"]), run),
        Input("resample, GPU, from and to pageable memory", duration(gpu["host_pageable"]), run),
        Input("resample, GPU, from and to pinned memory", duration(gpu["host_pinned"]), run),
        Input("resample, GPU, voxels on it already", duration(gpu["device"]), run),
        Input("network of a node without GPU", f"{options.network:g} Gbit/s", "**assumed**"),
        Input("network of a node with 16 cores", f"{options.gpu_network:g} Gbit/s", "**assumed**"),
        Input("storage that all nodes share, reading and writing", f"{options.storage:g} GB/s", "**assumed**"),
        Input(
            "cores of the GPU's machine", f"{GPU_CORES}",
            "recorded, docs/gpu.md; that reading and writing are faster by "
            f"{GPU_CORES} / {machine.machine['threads']} on them is **assumed**",
        ),
    ]  # fmt: skip
    return out


def _name(path: Path) -> str:
    path = path.resolve()
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name


# --- the page --------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """A time of any length with three figures and its unit."""
    for unit, scale in (("years", 365.25 * 86400), ("days", 86400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 1e-3)):
        if seconds >= scale:
            value = seconds / scale
            return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{seconds * 1e6:.0f} us"


def rows(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def scales(found: Sequence[Way], nodes: Sequence[int], storage: float) -> str:
    """Every kind of node in every number: throughput, time, what is the limit."""
    lines = []
    for way in found:
        for n in nodes:
            rate, part = way.rate(n, storage)
            times = [duration(size / VOXELS / rate) for size in COHORTS.values()]
            speed = f"{rate * VOXELS / 1e9:.3g} GB/s"
            lines.append([way.name, f"{n:,}", f"{rate:,.3g}", speed, *times, part])
    return rows(["node", "nodes", "volumes/s", "voxels in", *COHORTS, "limited by"], lines)


def parts(found: Sequence[Way], storage: float) -> str:
    """What a node does a second, part by part, and how many of them the storage bears."""
    lines = []
    for way in found:
        limits = way.limits(1, storage)
        each = [f"{limits[name]:,.3g}" if name in limits else "" for name in ("cores", "GPU", "network")]
        day = 1e15 / VOXELS / 86400
        own = min(value for name, value in limits.items() if name != "storage")
        needed = f"{day / own:,.0f} nodes, {day * (way.bytes_in + way.bytes_out) / 1e9:.3g} GB/s"
        lines.append([way.name, *each, f"{way.enough(storage):,.3g}", needed])
    header = ["node", "cores", "GPU", "network", "nodes that saturate the storage", "1 PB in a day takes"]
    return rows(header, lines)


def held(here: Mapping[str, Any]) -> str:
    """The model of one node against the clock."""
    lines = []
    for kind, ending in (("gzip", ".nii.gz"), ("raw", ".nii")):
        model, clock = sum(here[kind]["steps"].values()), measure.Times(here[kind]["clock"])
        lines.append([ending, duration(model), duration(clock.median), clock.spread, f"{model / clock.median:.2f}"])
    return rows(["files", "model", f"clock, median of {RUNS}", "spread", "model / clock"], lines)


def page(given: Sequence[Input], found: Sequence[Way], here: Mapping[str, Any], options: Any, about: str) -> str:
    """All of docs/scale.md."""
    storage = options.storage * 1e9
    return f"""# To a petabyte

A model of how long a cohort takes on many nodes, and what limits it. `make scale` writes this page, nobody edits it;
`python -m benchmarks.scale` prints it for other assumptions. Measured on: {about}.

Every volume is the reference job: 512 x 512 x 247 int16 voxels (129.5 MB) to 400 x 400 x 124, cubic B-spline; to
float32 as it was timed on the GPU, in `.nii.gz` to int16. A cohort is measured by its voxels in memory: 1 PB are
{1e15 / VOXELS:,.0f} volumes.

## Inputs

{rows(["input", "per volume", "where from"], [[i.name, i.text, i.source] for i in given])}

## The model

- The cores of a node do one volume after the other: read, decompress, resample, compress, write, each in the time
  above. A GPU resamples one volume while cores read and write others and the network carries still others. So a node
  does as many volumes a second as its slowest part. That all of this overlaps is **assumed**.
- Nodes share only the storage. It reads and writes a fixed number of bytes a second, however many nodes ask. Every
  volume is a file; `gpuresample batch` hands the files out one by one. The model leaves out what a scheduler of
  thousands of nodes takes, failures, the latency of requests, and the price.
- "pinned" means a program that keeps its voxels in pinned memory; what is read from a file is in pageable memory.

One node from file to file, measured here (input in the page cache, every result flushed to a local disk), compares
the model with the clock:

{held(here)}

## Each part of a node

How many volumes a second each part would allow if it were the only limit:

{parts(found, storage)}

## Scales

{scales(found, options.nodes, storage)}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, model, print or write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/scale.md instead of printing it")
    parser.add_argument("--gpu", type=Path, default=RECORDED, metavar="FILE", help="kernels.json of `make gpu`")
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES, metavar="N")
    parser.add_argument("--network", type=float, default=25.0, help="Gbit/s of a node without GPU (default 25)")
    parser.add_argument("--gpu-network", type=float, default=200.0, help="Gbit/s of a node with one (default 200)")
    parser.add_argument("--storage", type=float, default=100.0, help="GB/s that all nodes share (default 100)")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    if min(options.network, options.gpu_network, options.storage, *options.nodes) <= 0:
        parser.error("--network, --gpu-network, --storage and --nodes must be above zero")
    record, gpu = recorded(options.gpu)
    threads = gr.get_num_threads()
    info = measure.machine(threads)
    machine = calibration.calibrate(store=False)
    with tempfile.TemporaryDirectory(prefix="gpuresample-") as folder:
        here = measured(machine, Path(folder))
    found = ways(
        {kind: each["steps"] for kind, each in here.items()}, {kind: each["sizes"] for kind, each in here.items()}, gpu,
        threads, options.network * GBIT, options.gpu_network * GBIT,
    )  # fmt: skip
    text = page(inputs(machine, here, gpu, record, options.gpu, options), found, here, options, measure.about(info))
    if options.write:
        partial = PAGE.with_name(f".{PAGE.name}.partial")
        partial.write_text(text, encoding="utf-8")
        disk.to_disk(partial)
        os.replace(partial, PAGE)
        print(f"written: {PAGE}")
    else:
        print(text)
    measure.save(options.json, "scale", given, {"machine": info, "rates": dict(machine.values), "here": here})
    return 0


if __name__ == "__main__":
    sys.exit(main())
