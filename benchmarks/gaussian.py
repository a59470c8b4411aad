"""Blurs and downsampling on the reference volume: cost per voxel against sigma, and the fused against the two steps.

    python -m benchmarks.gaussian [--quick] [--json FILE]

The volume is that of the reference job, int16, 512x512x247; sigma is in voxels. "discrete" stands against SimpleITK's
DiscreteGaussian (the same kernel: cut at its default error, 0.01, with no limit to the radius), "recursive" against its
SmoothingRecursiveGaussian, "sampled" against scipy.ndimage.gaussian_filter; all make float32. ITK's Bessel values go
wrong above some 6 voxels and are NaN from 27 on: there "discrete" has no peer. Results are compared before anything is
timed. A peer that takes longer than 8 seconds is timed once, others in turns with ours.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

import gpuresample as gr
from gpuresample.bench import cases, measure, tables
from gpuresample.bench.cases import Array
from gpuresample.engines.pool import cores

SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
# DESIGN.md, section 7.
TARGETS = {("discrete", "SimpleITK DiscreteGaussian"): 12.0, ("sampled", "scipy"): 8.0}
# The share of weight that "discrete" may cut off: SimpleITK's default where it is the peer, else ours.
MAX_ERROR, DEFAULT_ERROR = 0.01, 1e-4
# ITK's DiscreteGaussian is right up to here, in voxels.
ITK_LIMIT = 6.0
BOUNDS = {"discrete": 2e-6, "sampled": 2e-6, "recursive": 4e-6}
# A peer's first call that took longer than this, in seconds, is its only one.
ONCE = 8.0


def _peers(kind: str, sigma: float, image: sitk.Image, array: Array) -> dict[str, Callable[[], Any]]:
    """What a kind stands against, to float32 voxels each."""
    if kind == "sampled":
        # scipy filters in the output's type; its own pass from int16 would round.
        return {"scipy": lambda: ndimage.gaussian_filter(array, sigma, output=np.float32)}
    if kind == "recursive":
        return {"SimpleITK SmoothingRecursiveGaussian": lambda: sitk.SmoothingRecursiveGaussian(image, sigma)}
    floats = sitk.Cast(image, sitk.sitkFloat32)
    if sigma > ITK_LIMIT:
        return {}
    return {"SimpleITK DiscreteGaussian": lambda: sitk.DiscreteGaussian(floats, sigma * sigma, 1000, MAX_ERROR, False)}


def _ours(kind: str, sigma: float, array: Array) -> Any:
    max_error = MAX_ERROR if sigma <= ITK_LIMIT else DEFAULT_ERROR
    return gr.gaussian(array, sigma, kind=kind, max_error=max_error, dtype=np.float32)


def _times(calls: dict[str, Callable[[], Any]], slow: bool, runs: int) -> dict[str, measure.Times]:
    """Interleaved runs; the peers once where they are slow."""
    if not slow:
        return measure.interleaved(calls, runs, budget=20.0)
    times = measure.interleaved({"ours": calls["ours"]}, runs, budget=20.0)
    times.update(measure.interleaved({n: c for n, c in calls.items() if n != "ours"}, 1, budget=0.0, at_least=1))
    return times


def _voxels(result: Any) -> Array:
    return cast("Array", sitk.GetArrayViewFromImage(result) if isinstance(result, sitk.Image) else result)


def blurs(array: Array, sigmas: Sequence[float], runs: int) -> list[dict[str, Any]]:
    """One row per kind and sigma: seconds of ours and of the peer, and the largest difference."""
    image, span = sitk.GetImageFromArray(array), float(np.ptp(array.astype(np.float64)))
    rows = []
    for kind in ("discrete", "sampled", "recursive"):
        for sigma in sigmas:
            peers = _peers(kind, sigma, image, array)
            ours = _ours(kind, sigma, array)
            error, slow = None, False
            for name, call in peers.items():
                begin = time.perf_counter()
                theirs = call()
                slow = time.perf_counter() - begin > ONCE
                error = float(np.abs(ours - _voxels(theirs)).max()) / span
                # Peers store float32 after every axis; that much more may lie between us.
                if error > 2 * BOUNDS[kind]:
                    raise SystemExit(f"{kind}, sigma {sigma}, {name}: {error:.1e} of the range apart")
                del theirs
            del ours
            calls: dict[str, Callable[[], Any]] = {"ours": partial(_ours, kind, sigma, array), **peers}
            times = _times(calls, slow, runs)
            peer = next(iter(peers), None)
            rows.append(
                {
                    "kind": kind,
                    "sigma": sigma,
                    "peer": peer,
                    "ours": times["ours"].seconds,
                    "theirs": times[peer].seconds if peer else None,
                    "error": error,
                    "median": times["ours"].median,
                    "peer_median": times[peer].median if peer else None,
                    "target": TARGETS.get((kind, str(peer))) if sigma == 1.0 else None,
                }
            )
    return rows


def fused(array: Array, runs: int) -> dict[str, Any]:
    """Downsampling by 2 with sigma 1: fused, in two steps of ours, and SimpleITK's two filters; int16 to float32."""
    image = sitk.Cast(sitk.GetImageFromArray(array), sitk.sitkFloat32)

    def two_steps() -> Array:
        return gr.shrink(gr.gaussian(array, 1.0, kind="discrete", max_error=1e-4, dtype=np.float32), 2)

    def theirs() -> sitk.Image:
        return sitk.Shrink(sitk.DiscreteGaussian(image, 1.0, 1000, 1e-4, False), (2, 2, 2))

    calls: dict[str, Callable[[], Any]] = {
        "fused": lambda: gr.downsample(array, 2, sigma=1.0, kind="discrete", dtype=np.float32),
        "two steps": two_steps,
        "SimpleITK": theirs,
    }
    times = measure.interleaved(calls, runs, budget=20.0)
    return {name: {"seconds": t.seconds, "median": t.median} for name, t in times.items()}


def blocks(runs: int, shape: tuple[int, int, int]) -> dict[str, Any]:
    """Blocks of 2x2x2: means of the int16 volume against SimpleITK's BinShrink, modes of labels."""
    array = cases.ct_like(shape, np.int16)
    image = sitk.GetImageFromArray(array)
    labels = cases.label_map(shape, np.uint8)
    calls: dict[str, Callable[[], Any]] = {
        "mean": lambda: gr.bin_shrink(array, 2),
        "SimpleITK BinShrink": lambda: sitk.BinShrink(image, (2, 2, 2)),
        "mode, uint8 labels": lambda: gr.bin_shrink(labels, 2, reduce="mode"),
    }
    times = measure.interleaved(calls, runs, budget=20.0)
    return {name: {"seconds": t.seconds, "median": t.median} for name, t in times.items()}


def _print(rows: list[dict[str, Any]], down: dict[str, Any], block: dict[str, Any], voxels: int) -> None:
    """The tables, on the terminal."""
    lines = []
    for row in rows:
        line = [row["kind"], f"{row['sigma']:g}", tables.duration(row["median"]), _per_voxel(row["median"], voxels)]
        if row["peer"] is None:
            lines.append([*line, "-", "-", "-", "-", "", ""])
            continue
        ratio = row["peer_median"] / row["median"]
        line += [row["peer"], _per_voxel(row["peer_median"], voxels), f"{ratio:.1f}x", f"{row['error']:.0e}"]
        target = row["target"]
        verdict = "" if target is None else "reached" if ratio >= target else "not reached"
        lines.append([*line, f"{target:g}x" if target else "", verdict])
    header = ("kind", "sigma", "ours", "per voxel", "against", "its per voxel", "ratio", "apart", "target", "verdict")
    tables.table("Gaussian blurs, int16 to float32", header, lines)
    for title, ways in (("Blur (sigma 1) and every second voxel", down), ("Blocks of 2x2x2", block)):
        lines = [[w, tables.duration(t["median"]), f"{voxels / t['median'] / 1e6:,.0f}"] for w, t in ways.items()]
        tables.table(title, ("way", "time", "MVoxel/s of input"), lines)


def _per_voxel(seconds: float, voxels: int) -> str:
    return f"{1e9 * seconds / voxels:.2f} ns"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gaussian", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="an eighth of the volume, fewer runs")
    parser.add_argument("--json", metavar="FILE", help="write all figures to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    threads = cores()
    measure.set_threads(threads)
    info = measure.machine(threads)
    print(measure.about(info))
    shape = cases.REFERENCE.source.size[::-1]
    if options.quick:
        shape = tuple(n // 2 for n in shape)
    runs = 3 if options.quick else 7
    array = cases.ct_like(shape, np.int16)
    rows = blurs(array, SIGMAS, runs)
    down = fused(array, runs)
    block = blocks(runs, (shape[0], shape[1], shape[2]))
    _print(rows, down, block, array.size)
    content = {
        "machine": info, "quick": options.quick, "shape": list(shape), "rows": rows, "fused": down, "blocks": block,
    }  # fmt: skip
    measure.save(options.json, "gaussian", given, content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
