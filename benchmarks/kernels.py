"""How fast the CUDA kernels are: each pass against the device's copy, the reference job, the peers, the CPU engine.

    python -m benchmarks.kernels [--quick] [--host] [--runs N] [--out FOLDER]

Writes kernels.json and kernels.md to FOLDER (benchmarks/results/<device>-<date> unless given). Times are medians of
CUDA events, the L2 cache emptied before every run. `--host` runs the same program on the CPU, to prove that it works.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import kernel_batches, kernel_paths
from benchmarks.device import Device, Gpu, Host, median, nbytes, torch_on
from gpuresample import Volume, plan
from gpuresample.bench import cases, measure, tables
from gpuresample.bench.cases import Array, Geometry
from gpuresample.engines.cuda import staging, tiles
from gpuresample.engines.cuda.views import View
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import accumulator
from gpuresample.engines.threads import get_num_threads
from gpuresample.planning.works import Separable
from gpuresample.plans import Plan

# What DESIGN.md asks for, section 7.
BANDWIDTH, ZOOM, MATMUL, TRILINEAR, COPIES, AGREEMENT = 0.70, 20.0, 4.0, 1.5, 1.15, 1e-6
JOBS = (
    ("bspline", "int16", "float32"),
    ("gaussian", "int16", "float32"),
    ("linear", "float32", "float32"),
    ("nearest", "int16", "int16"),
)
OBLIQUE = "bspline, int16 to float32, oblique"
# From little to read and to sum again at seams to much: few taps, the reference, many taps.
PLANES = ("gaussian", "hamming", "bspline", "bspline4", "bspline5")


def made(geometry: Geometry, interpolation: str, source: str, target: str, volume: Array) -> Plan:
    """The plan of a job; its work is what every device is given."""
    image = Volume(volume.astype(source), geometry.source.spacing, geometry.source.origin, geometry.source.direction)
    return plan(image, like=geometry.target, interpolation=interpolation, dtype=target, device="cpu")


# --- every pass ----------------------------------------------------------------------------------------------------


def passes(device: Device, job: Plan, volume: Array, runs: int) -> Iterator[dict[str, Any]]:
    """Each kernel of a plan by itself: its time, and the bytes that it cannot but move."""
    engine, work = device.engine, job.work
    src = device.array(volume.astype(job.input_dtype))
    dst = device.empty(job.output_shape, job.dtype)

    def row(name: str, moved: int, call: Callable[[], Any]) -> dict[str, Any]:
        before = engine.runtime.launches.copy()
        seconds = median(device, call, runs)
        kernels = "+".join(sorted(engine.runtime.launches - before))
        return {"pass": name, "kernels": kernels, "bytes": moved, "seconds": seconds}

    whole = nbytes(src.shape, src.dtype) + nbytes(dst.shape, dst.dtype)
    store = job.store
    if not isinstance(work, Separable) or work.copies or np.prod([t.n_taps for t in work.tables]) <= 8:
        yield row("all at once", whole, lambda: engine.run(work, src, dst, store))
        return
    runtime, acc = engine.runtime, accumulator(work.precision)
    view = View.of(src[None], runtime.address(src))
    target = View.of(dst[None], runtime.address(dst)).transpose([0, *[1 + a for a in work.dst_axis]])
    for axis, (lo, hi) in enumerate(work.inside):
        view = view.narrow(1 + axis, *work.tables[axis].source_range())
        target = target.narrow(1 + axis, lo, hi)
    finite = view.dtype.kind != "f"
    strides, steps = engine.axes.steps(work, view, acc)
    for axis, apart in strides:
        view = view.every(1 + axis, apart)
    for axes in steps:
        last = axes == steps[-1]
        shape = tuple(work.tables[a - 1].n_dst if a - 1 in axes else n for a, n in enumerate(view.shape))
        to = target if last else engine.axes.scratch(shape, acc)
        moved = nbytes(view.shape, view.dtype) + nbytes(shape, to.dtype)
        here = view

        def one(here: View = here, to: View = to, axes: tuple[int, ...] = axes, last: bool = last) -> None:
            engine.axes.step(work, axes, here, to, acc, store if last else Store(), finite)

        yield row(" and ".join("zyx"[axis] for axis in axes), moved, one)
        view = to


# --- one kernel for two passes -------------------------------------------------------------------------------------


def planes(device: Device, interpolation: str, job: Plan, runs: int) -> dict[str, Any]:
    """A plan's passes along y and x, one after the other and in one kernel, on a source of sums.

    Raises
    ------
    RuntimeError
        If the two ways differ in a bit.
    """
    axes, runtime, work = device.engine.axes, device.engine.runtime, job.work
    assert isinstance(work, Separable)
    acc, (y, x) = accumulator(work.precision), work.tables[1:]
    (y0, y1), (x0, x1) = y.source_range(), x.source_range()
    n = work.tables[0].n_dst
    rng = np.random.default_rng(0)
    src = device.array(rng.standard_normal((1, n, y1 - y0, x1 - x0), dtype=np.float32).astype(acc, copy=False))
    read = View.of(src, runtime.address(src))
    between = axes.scratch((1, n, y.n_dst, x1 - x0), acc)
    outs = [device.empty((1, n, y.n_dst, x.n_dst), acc) for _ in range(2)]
    two, one = (View.of(out, runtime.address(out)) for out in outs)

    def apart() -> None:
        axes.along(y, read, between, 2, acc, Store())
        axes.along(x, between, two, 3, acc, Store())

    def fused() -> None:
        axes.plane((y, x), read, one, (2, 3), acc, Store())

    seconds = {"apart": median(device, apart, runs), "fused": median(device, fused, runs)}
    if device.host(outs[0]).tobytes() != device.host(outs[1]).tobytes():
        raise RuntimeError(f"{interpolation}: passes along y and x in one kernel differ from one after the other")
    costs = tiles.estimate(y, x, acc, acc)
    assert costs is not None
    once = nbytes(src.shape, acc) + nbytes(outs[0].shape, acc)
    return {
        "interpolation": interpolation, "taps": [y.n_taps, x.n_taps], **seconds, "bytes_fused": once,
        "bytes_apart": n * (costs.first.moved + costs.second.moved), "again": n * costs.both.moved - once,
        "sums_apart": n * (costs.first.sums + costs.second.sums), "sums_fused": n * costs.both.sums,
        "estimate": costs.gain,
        "taken": tiles.fuses(y, x, contiguous=True, src=acc, acc=acc),
    }  # fmt: skip


# --- the whole job -------------------------------------------------------------------------------------------------


def end_to_end(device: Device, job: Plan, volume: Array, runs: int) -> dict[str, Any]:
    """Device to device, and host to host with pinned and with pageable memory, beside the bare copies."""
    store = job.store
    host = volume.astype(job.input_dtype)
    src, dst = device.array(host), device.empty(job.output_shape, job.dtype)
    out = np.empty(job.output_shape, job.dtype)
    pinned_in, pinned_out = device.pinned(host), device.pinned(out)
    runtime = device.engine.runtime

    def copies() -> None:
        runtime.copy_in(pinned_in, src)
        runtime.copy_out(dst, pinned_out)

    return {
        "bytes_in": host.nbytes,
        "bytes_out": out.nbytes,
        "device": median(device, lambda: device.engine.run(job.work, src, dst, store), runs),
        "returns": device.returns(lambda: device.engine.run(job.work, src, dst, store), runs),
        "host_pinned": device.wall(lambda: device.staged.run(job.work, pinned_in, pinned_out, store), runs),
        "host_pageable": device.wall(lambda: device.staged.run(job.work, host, out, store), runs),
        "copies_pinned": device.wall(copies, runs),
        "cpu_engine": statistics.median(_wall(lambda: _on_cpu(job, host, out), max(3, runs // 3))),
    }


def _on_cpu(job: Plan, src: Array, dst: Array) -> None:
    from gpuresample.engines.cpu import engine as cpu

    cpu.run(job.work, src, dst, job.store)


def _wall(call: Callable[[], Any], runs: int) -> list[float]:
    call()
    return measure.interleaved({"": call}, runs, budget=20.0)[""]


def agreement(device: Device, job: Plan, volume: Array) -> float:
    """Largest difference between the device's result and the CPU engine's, of the range."""
    host = volume.astype(job.input_dtype)
    expected, dst = np.empty(job.output_shape, job.dtype), device.empty(job.output_shape, job.dtype)
    _on_cpu(job, host, expected)
    device.engine.run(job.work, device.array(host), dst, job.store)
    difference = np.abs(device.host(dst).astype(np.float64) - expected)
    return float(difference.max() / np.ptp(host.astype(np.float64)))


# --- peers -----------------------------------------------------------------------------------------------------------


def peers(device: Device, geometry: Geometry, volume: Array, runs: int) -> dict[str, float]:
    """Seconds of other ways to do the job on the device, of those that are installed there."""
    if not isinstance(device, Gpu):
        return {}
    found: dict[str, float] = {}
    shape = geometry.target.size[::-1]
    if importlib.util.find_spec("cupyx") and importlib.util.find_spec("scipy"):
        from cupyx.scipy import ndimage

        src = device.array(volume.astype(np.float32))
        factors = [m / n for m, n in zip(shape, volume.shape, strict=True)]
        found["cupyx zoom, order 3"] = median(device, lambda: ndimage.zoom(src, factors, order=3), runs)
    if (torch := torch_on(device)) is not None:
        found |= _torch_peers(device, torch, volume, shape, runs)
    return found


def _torch_peers(device: Device, torch: Any, volume: Array, shape: tuple[int, ...], runs: int) -> dict[str, float]:
    src = torch.from_numpy(volume.astype(np.float32)).cuda()
    matrices = [torch.rand(m, n, device="cuda") for m, n in zip(shape, volume.shape, strict=True)]

    def trilinear() -> Any:
        return torch.nn.functional.interpolate(src[None, None], shape, mode="trilinear", align_corners=False)

    def matmuls() -> Any:
        out = torch.tensordot(matrices[0], src, dims=([1], [0]))
        out = torch.matmul(matrices[1], out)
        return torch.matmul(out, matrices[2].T)

    return {
        "torch trilinear": median(device, trilinear, runs),
        "torch, three dense matmuls": median(device, matmuls, runs),
    }


# --- where "auto" should begin ---------------------------------------------------------------------------------------


def crossover(
    device: Device, volume: Array, geometry: Geometry, runs: int, factors: Sequence[int]
) -> list[dict[str, Any]]:
    """Host to host on the device against the CPU engine, pageable memory, for volumes of several sizes."""
    rows = []
    for factor in factors:
        small = cases.small(geometry, factor)
        rows += [_against_cpu(device, volume, small, name, runs) for name in ("linear", "bspline")]
        rows.append({**_against_cpu(device, volume, cases.oblique(small), "bspline", runs), "job": "bspline, oblique"})
    return rows


def _against_cpu(device: Device, volume: Array, geometry: Geometry, name: str, runs: int) -> dict[str, Any]:
    src = np.ascontiguousarray(volume[tuple(slice(n) for n in geometry.source.size[::-1])])
    job = made(geometry, name, "int16", "int16", src)
    out = np.empty(job.output_shape, np.int16)
    # Call upon call, as a loader makes them: a pause before each lets cores fall asleep.
    taken = {
        "device": device.wall(lambda: device.staged.run(job.work, src, out, Store()), runs),
        "cpu": device.wall(lambda: _on_cpu(job, src, out), runs),
    }
    return {"job": name, "voxels": src.size + out.size, **taken}


# --- the report ------------------------------------------------------------------------------------------------------


def measured(device: Device, factor: int, runs: int) -> dict[str, Any]:
    """Everything, as plain values."""
    geometry = cases.small(cases.REFERENCE, factor) if factor > 1 else cases.REFERENCE
    volume = cases.ct_like(geometry.source.size[::-1], "int16")
    bandwidth = device.bandwidth(runs)
    plans = {f"{name}, {a} to {b}": made(geometry, name, a, b, volume) for name, a, b in JOBS}
    plans[OBLIQUE] = made(cases.oblique(geometry), "bspline", "int16", "float32", volume)
    jobs = []
    for name, job in plans.items():
        steps = list(passes(device, job, volume, runs))
        for step in steps:
            step["of_bandwidth"] = step["bytes"] / step["seconds"] / bandwidth
        whole = end_to_end(device, job, volume, runs)
        jobs.append({"name": name, "passes": steps, "whole": whole, "agreement": agreement(device, job, volume)})
    return {
        **device.facts(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "source": geometry.source.size,
        "target": geometry.target.size,
        "runs": runs,
        "copy_bandwidth": bandwidth,
        "jobs": jobs,
        "planes": [planes(device, name, made(geometry, name, "int16", "float32", volume), runs) for name in PLANES],
        "paths": list(kernel_paths.rows(device, factor, runs, bandwidth)),
        "batches": list(kernel_batches.rows(device, factor, runs)),
        "gain_now": tiles.GAIN,
        "peers": peers(device, geometry, volume, runs),
        "auto": crossover(device, volume, geometry, max(3, runs // 3), (16, 8, 4) if factor > 1 else (16, 8, 4, 2, 1)),
        "threads": get_num_threads(),
        "overlap_bytes_now": staging.OVERLAP_BYTES,
    }


def verdict(facts: dict[str, Any], value: float, target: float) -> str:
    """A target, and whether it is reached; the CPU's times have no targets."""
    if facts["device"] == Host.name:
        return f"{target:g}: not a GPU"
    return f"{target:g}: {'reached' if value >= target else 'not reached'}"


def all_tables(facts: dict[str, Any]) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every table of the report."""
    roofline, whole = [], []
    for job in facts["jobs"]:
        for step in job["passes"]:
            share = step["of_bandwidth"]
            roofline.append([
                job["name"], step["pass"], step["kernels"], tables.megabytes(step["bytes"]),
                tables.duration(step["seconds"]), f"{step['bytes'] / step['seconds'] / 1e9:.1f} GB/s",
                f"{100 * share:.0f} %", verdict(facts, share, BANDWIDTH),
            ])  # fmt: skip
        w = job["whole"]
        over = w["host_pinned"] / w["copies_pinned"]
        columns = ("device", "returns", "host_pinned", "host_pageable", "copies_pinned")
        whole.append([
            job["name"], *[tables.duration(w[k]) for k in columns],
            f"{over:.2f}x", verdict(facts, -over, -COPIES).lstrip("-"), tables.duration(w["cpu_engine"]),
            f"{job['agreement']:.1e}", f"{AGREEMENT:g}: {'kept' if job['agreement'] <= AGREEMENT else 'BROKEN'}",
        ])  # fmt: skip
    copy = f"copy: {facts['copy_bandwidth'] / 1e9:.1f} GB/s read and written"
    header = ["job", "pass", "kernels", "must move", "time", "rate", "of the copy", "target"]
    yield f"Passes on {facts['device']}; {copy}", header, roofline
    header = ["job", "device", "call returns", "host, pinned", "host, pageable", "bare copies", "pinned / copies",
              "target", "CPU engine", "difference", "bound"]  # fmt: skip
    yield "The reference job", header, whole
    yield _planes_table(facts)
    yield kernel_paths.table(facts, verdict)
    yield kernel_batches.table(facts, verdict)
    ours = {job["name"].split(",")[0]: job["whole"]["device"] for job in reversed(facts["jobs"])}
    wanted = {
        "cupyx zoom, order 3": ("bspline", ZOOM), "torch, three dense matmuls": ("bspline", MATMUL),
        "torch trilinear": ("linear", TRILINEAR),
    }  # fmt: skip
    rows = []
    for name, seconds in facts["peers"].items():
        ratio = seconds / ours[wanted[name][0]]
        rows.append([name, tables.duration(seconds), f"{ratio:.1f}x", verdict(facts, ratio, wanted[name][1])])
    if rows:
        yield "Against the peers, device to device", ["peer", "time", "we are faster by", "target"], rows
    rows = []
    for r in facts["auto"]:
        times = [tables.duration(r["device"]), tables.duration(r["cpu"])]
        rows.append([r["job"], f"{r['voxels']:,}", *times, f"{r['cpu'] / r['device']:.2f}x"])
    title = f'Host to host, pageable, beside {facts["threads"]} threads: what device="auto" should choose'
    yield title, ["job, int16", "voxels in and out", "device", "CPU engine", "device is faster by"], rows


def _planes_table(facts: dict[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    rows = [
        [
            p["interpolation"], " and ".join(map(str, p["taps"])), tables.megabytes(p["bytes_apart"]),
            tables.duration(p["apart"]), tables.megabytes(p["bytes_fused"]), tables.megabytes(p["again"]),
            f"{p['sums_fused'] / p['sums_apart']:.2f}x", tables.duration(p["fused"]), f"{p['apart'] / p['fused']:.2f}x",
            f"{p['estimate']:.2f}x", "one kernel" if p["taken"] else "two passes",
        ]
        for p in facts["planes"]
    ]  # fmt: skip
    title = (
        f"One kernel for two passes, y and x: GAIN is {facts['gain_now']:g}; "
        "it belongs between the estimates where two passes are faster and those where one kernel is"
    )
    header = ["interpolation", "taps", "y, x must move", "time", "one kernel must move", "reads again at most", "sums",
              "time", "faster by", "estimated", "taken"]  # fmt: skip
    return title, header, rows


def markdown(facts: dict[str, Any]) -> str:
    """The report as a text."""
    software = ", ".join(f"{k} {facts[k]}" for k in ("cupy", "driver_cuda", "compute_capability") if k in facts)
    lines = [
        f"# Kernels on {facts['device']}, {facts['date']}", "",
        f"{facts['source']} to {facts['target']} voxels (x, y, z); {facts['runs']} runs. {software}".rstrip(),
    ]  # fmt: skip
    for title, header, rows in all_tables(facts):
        lines += ["", f"## {title}", "", f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; exit code 1 without a GPU."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half as many voxels on every axis, fewer runs")
    parser.add_argument("--host", action="store_true", help="on the CPU, by g++: proves the program only")
    parser.add_argument("--factor", type=int, help="that many times fewer voxels on every axis")
    parser.add_argument("--runs", type=int, help="runs of every call (default 21)")
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where to write")
    options = parser.parse_args(arguments)
    try:
        device: Device = Host() if options.host else Gpu()
    except RuntimeError as error:
        print(f"no GPU, so nothing to measure: {error}", file=sys.stderr)
        return 1
    factor = options.factor or (2 if options.quick else 1)
    facts = measured(device, factor, options.runs or (7 if options.quick else 21))
    for title, header, rows in all_tables(facts):
        tables.table(title, header, rows)
    out = options.out or measure.ROOT / "benchmarks" / "results" / measure.folder_name(device.name, facts["date"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "kernels.json").write_text(json.dumps(facts, indent=1) + "\n")
    (out / "kernels.md").write_text(markdown(facts))
    print(f"written: {out / 'kernels.json'}, {out / 'kernels.md'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
