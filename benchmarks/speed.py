"""How fast, against the peers, in one run: the reference job, start-up and memory.

    python -m benchmarks.speed [--quick] [--json FILE] [--skip NAME ...] [--runs N] [--threads N]

Every group of calls does the same job; results are compared before anything is timed, and a wrong answer is listed as
wrong, however fast. Calls take turns, so that a busy moment hits all alike.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpuresample.bench import cases, measure, tables
from gpuresample.bench.cases import Array, Geometry, Job
from gpuresample.bench.peers import PEERS, as_array
from gpuresample.engines.pool import cores

# Seconds after which a slow call sits out the remaining rounds.
BUDGET = 12.0
# What differs by more than this part of the input's range is another answer. torch and volresample compute coordinates
# in float32, which costs them 3e-5 on 512 voxels of noise.
PEER_TOLERANCE = 1e-4
MEMORY_TARGET = 1.2


@dataclass(frozen=True)
class Group:
    """One job and who does it; the last contestant's answer is the right one.

    Attributes
    ----------
    name, what : str
    dtype : str
    interpolation : str
    boundary : str or None
    grids : callable
        From the reference geometry to the group's.
    contestants : tuple of str
        Keys of `peers.PEERS`.
    targets : tuple of (ours, peer, ratio)
        How many times faster we mean to be.
    """

    name: str
    what: str
    dtype: str
    interpolation: str
    boundary: str | None
    grids: Callable[[Geometry], Geometry]
    contestants: tuple[str, ...]
    targets: tuple[tuple[str, str, float], ...]


def _as_it_is(reference: Geometry) -> Geometry:
    return reference


SITK = ("numpy", "image", "truncate", "simpleitk")

GROUPS = (
    Group("nearest", "nearest, int16", "int16", "nearest", None, _as_it_is,
          ("numpy", "image", "simpleitk"), (("numpy", "simpleitk", 6.0), ("image", "simpleitk", 6.0))),
    Group("linear", "linear, int16", "int16", "linear", None, _as_it_is, SITK,
          (("numpy", "simpleitk", 6.0), ("image", "simpleitk", 6.0))),
    Group("bspline", "cubic B-spline, int16", "int16", "bspline", None, _as_it_is, SITK,
          (("numpy", "simpleitk", 60.0), ("image", "simpleitk", 60.0))),
    Group("oblique", "cubic B-spline, int16, grid turned by 10 degrees", "int16", "bspline", None, cases.oblique,
          ("numpy", "image", "simpleitk"), (("numpy", "simpleitk", 6.0), ("image", "simpleitk", 6.0))),
    Group("nearest-edge", "nearest, int16, outer faces aligned", "int16", "nearest", "nearest",
          cases.edge_anchored, ("numpy", "volresample"), (("numpy", "volresample", 1.0),)),
    Group("linear-edge", "linear, float32, outer faces aligned", "float32", "linear", "nearest",
          cases.edge_anchored, ("numpy", "volresample", "torch", "simpleitk"),
          (("numpy", "volresample", 1.5), ("numpy", "torch", 2.0))),
    Group("bspline-edge", "cubic B-spline, float32, outer faces aligned, mode reflect", "float32", "bspline",
          "reflect", cases.edge_anchored, ("numpy", "volresample"), (("numpy", "volresample", 12.0),)),
)  # fmt: skip


def difference(answer: Array, right: Array, span: float) -> tuple[float, bool]:
    """Largest difference, in units of the input's range, and whether it is the same answer.

    Integers may differ by 1: SimpleITK truncates, we round unless told otherwise.
    """
    if answer.shape != right.shape:
        return float("inf"), False
    largest = 0.0
    for ours, theirs in zip(answer, right, strict=True):  # plane by plane: no third volume in memory
        largest = max(largest, float(np.abs(ours.astype(np.float64) - theirs).max()))
    if right.dtype.kind in "iu":
        return largest / span, largest <= 1
    return largest / span, largest / span <= PEER_TOLERANCE


def run_group(group: Group, reference: Geometry, volumes: dict[str, Array], runs: int) -> dict[str, Any]:
    """Check and time one group, and print its table."""
    volume, geometry = volumes[group.dtype], group.grids(reference)
    job = Job(volume, geometry, group.interpolation, group.boundary)
    present = [key for key in group.contestants if PEERS[key].installed]
    span = float(volume.max()) - float(volume.min())
    calls = {key: PEERS[key].prepare(job) for key in present}
    judge = present[-1]
    right = as_array(calls[judge]())
    checks = {
        key: (0.0, True) if key == judge else difference(as_array(call()), right, span) for key, call in calls.items()
    }
    del right
    times = measure.interleaved(calls, runs, BUDGET)
    base = times[present[0]].median
    rows, lines = [], []
    for key in group.contestants:
        label = PEERS[key].label
        if key not in times:
            lines.append([label, "not installed", "", "", "", "", ""])
            continue
        t, (error, same) = times[key], checks[key]
        check = "judge" if key == judge else "ok" if same else "WRONG"
        lines.append(
            [
                label,
                tables.duration(t.median),
                t.spread,
                str(len(t.seconds)),
                f"{t.median / base:.3g}",
                "" if key == judge else f"{error:.0e}",
                check,
            ]
        )
        rows.append(
            {"peer": key, "label": label, "seconds": t.seconds, "median": t.median, "error": error, "check": check}
        )
    tables.table(group.what, ("", "median", "spread", "runs", "times ours", "difference / range", "check"), lines)
    targets = [
        {"ours": ours, "peer": peer, "ratio": times[peer].median / times[ours].median, "target": target}
        for ours, peer, target in group.targets
        if ours in times and peer in times
    ]
    return {
        "name": group.name, "what": group.what, "input": list(volume.shape),
        "output": list(geometry.target.size[::-1]), "rows": rows, "targets": targets,
    }  # fmt: skip


def start_up() -> dict[str, Any]:
    """Import and first call, each in new processes; the first of them with nothing compiled yet."""
    imports = [measure.child("import") for _ in range(5)]
    with tempfile.TemporaryDirectory() as cache:
        fresh = {"NUMBA_CACHE_DIR": cache}
        cold = measure.child("first-call", environment=fresh)
        warm = [measure.child("first-call", environment=fresh) for _ in range(3)]
    middle = {key: statistics.median(w[key] for w in warm) for key in cold}
    found = {
        "import": statistics.median(i["import"] for i in imports),
        "loaded": imports[0]["loaded"],
        "cold": cold,
        "warm": middle,
    }
    lines = [
        ["import gpuresample", tables.duration(found["import"])],
        ["first call after install, aligned grid (compiles)", tables.duration(cold["aligned first"])],
        ["first call after install, oblique grid (compiles)", tables.duration(cold["oblique first"])],
        ["first call in a new process, aligned grid", tables.duration(middle["aligned first"])],
        ["first call in a new process, oblique grid", tables.duration(middle["oblique first"])],
        ["second call, aligned grid", tables.duration(middle["aligned second"])],
        ["second call, oblique grid", tables.duration(middle["oblique second"])],
    ]
    tables.table("start-up (40x64x64 int16, cubic B-spline; new processes)", ("", "time"), lines)
    return found


def peak_memory(factor: int) -> list[dict[str, Any]]:
    """Peak memory of the reference job, each call in a process of its own."""
    if sys.platform != "linux":
        print("peak memory: measured on Linux only, through /proc/self")
        return []
    found, lines = [], []
    for peer, interpolation in (
        ("numpy", "bspline"),
        ("image", "bspline"),
        ("simpleitk", "bspline"),
        ("numpy", "linear"),
    ):
        m = measure.child("memory", peer, interpolation, str(factor))
        ratio = (m["input"] + m["extra"]) / (m["input"] + m["output"])
        found.append({**m, "interpolation": interpolation, "ratio": ratio})
        ours = peer != "simpleitk"
        verdict = "" if not ours else "reached" if ratio <= MEMORY_TARGET else "not reached"
        lines.append(
            [f"{PEERS[peer].label}, {interpolation}", tables.megabytes(m["input"]), tables.megabytes(m["output"]),
             tables.megabytes(m["extra"]), f"{ratio:.2f}", verdict]
        )  # fmt: skip
    tables.table(
        "peak memory",
        ("", "input", "output", "peak beyond input", "(input + peak) / (input + output)", "verdict"),
        lines,
        f"Target: {MEMORY_TARGET}. Libraries are loaded and their code is compiled before the baseline is taken.",
    )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; exit code 1 if an answer is wrong."""
    names = [g.name for g in GROUPS] + ["start-up", "memory"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="half as many voxels on every axis, three runs")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    parser.add_argument("--skip", metavar="NAME", action="append", default=[], choices=names, help=", ".join(names))
    parser.add_argument("--only", metavar="NAME", action="append", default=[], choices=names, help="the reverse")
    parser.add_argument("--runs", type=int, help="runs of every call (default 7)")
    parser.add_argument("--threads", type=int, default=cores(), help="threads of every library")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    runs = options.runs or (3 if options.quick else 7)
    factor = 2 if options.quick else 1
    reference = cases.small(cases.REFERENCE, factor) if options.quick else cases.REFERENCE
    wanted = [n for n in options.only or names if n not in options.skip]

    info = measure.machine(options.threads)
    print(measure.about(info))
    shape = "x".join(map(str, reference.source.size)), "x".join(map(str, reference.target.size))
    print(
        f"int16 {shape[0]} at 0.78125x0.78125x1 mm to {shape[1]} at 1x1x2 mm (x, y, z); {runs} runs each, taking turns"
    )
    groups = [g for g in GROUPS if g.name in wanted]
    for key in {k for g in groups for k in g.contestants}:
        if PEERS[key].installed:
            __import__(PEERS[key].module)
    measure.set_threads(options.threads)
    volumes: dict[str, Array] = {}
    results: list[dict[str, Any]] = []
    for group in groups:
        if group.dtype not in volumes:
            volumes = {group.dtype: cases.ct_like(reference.source.size[::-1], group.dtype)}
        results.append(run_group(group, reference, volumes, runs))
    volumes.clear()
    start = start_up() if "start-up" in wanted else None
    memory = peak_memory(factor) if "memory" in wanted else None

    targets = [{**t, "group": r["name"], "what": r["what"]} for r in results for t in r["targets"]]
    if targets:
        lines = [
            [t["what"], PEERS[t["ours"]].label, PEERS[t["peer"]].label, f"{t['ratio']:.1f}x", f"{t['target']:g}x",
             "reached" if t["ratio"] >= t["target"] else "not reached"]
            for t in targets
        ]  # fmt: skip
        note = "Targets are set for the whole job on 2 cores." + (" This was the quick one." if options.quick else "")
        tables.table("against the targets", ("job", "ours", "against", "ratio", "target", "verdict"), lines, note)
    content = {
        "machine": info, "quick": options.quick, "groups": results, "start": start, "memory": memory,
    }  # fmt: skip
    measure.save(options.json, "speed", given, content)
    wrong = [f"{r['what']}: {row['label']}" for r in results for row in r["rows"] if row["check"] == "WRONG"]
    for name in wrong:
        print(f"wrong answer: {name}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
