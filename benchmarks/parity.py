"""How far from SimpleITK: every interpolation, blur, voxel type and geometry, against the bounds we promise.

    python -m benchmarks.parity [--quick] [--all] [--json FILE]

Per row: the largest error in units of the input's intensity range, and the share of integer voxels that differ.
Float results are held against SimpleITK's float64 result; integer results, truncated as SimpleITK truncates, against
its own integer result. Exit code 1 if a row breaks its bound.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from benchmarks import real, smoothing_parity
from gpuresample.bench import cases, measure, reference, tables
from gpuresample.bench.bounds import (
    EXACT,
    LABEL_MODES,
    MOST_DIFFERING,
    Row,
    bound_of,
    difference,
    floats,
)
from gpuresample.bench.cases import Array, Geometry
from gpuresample.bench.peers import ENUMERATORS
from gpuresample.containers.voxels import finite_range
from gpuresample.planning.filters import SINCS

# SimpleITK spends about 10 microseconds on a voxel of a windowed sinc; a corner of the target will do.
SINC_SIZE = 24


def compare(name: str, array: Array, geometry: Geometry, interpolation: str) -> Row:
    """Resample with both and compare."""
    source, mine = cases.image(array, geometry.source), cases.volume(array, geometry.source)
    default = 7 if array.dtype.kind == "u" else -1024
    options: dict[str, Any] = {
        "like": geometry.target, "transform": geometry.transform, "interpolation": interpolation,
        "default_value": default, "rounding": "truncate",
    }  # fmt: skip
    integers = array.dtype.kind in "iu" or interpolation in EXACT
    step, differ = 0.0, 0.0
    if integers:
        theirs = sitk.GetArrayFromImage(reference.resampled(source, geometry, interpolation, default))
        found = difference(gr.resample(mine, **options).array, theirs)
        step, differ = found.largest, found.share
    bound = bound_of(interpolation, array.dtype)
    if interpolation in EXACT:
        return Row(interpolation, name, geometry.name, float(differ > 0), bound, 0, differ, differ == 0)
    ours = gr.resample(mine, dtype=floats(array.dtype), **options).array
    theirs = sitk.GetArrayFromImage(reference.resampled(source, geometry, interpolation, default, sitk.sitkFloat64))
    low, high = finite_range(array)[:2]
    error = difference(ours, theirs).largest / (high - low)
    ok = error <= bound and step <= 1 and differ <= MOST_DIFFERING
    return Row(interpolation, name, geometry.name, error, bound, int(step), differ, ok)


def copies_survive(geometry: Geometry) -> Row:
    """uint64 labels above 2**53, which SimpleITK loses, against an index map made from small labels."""
    labels = cases.label_map(cases.SMALL_SHAPE, np.uint64)
    options: dict[str, Any] = {
        "like": geometry.target, "transform": geometry.transform, "interpolation": "nearest",
    }  # fmt: skip
    index = gr.resample(cases.volume(labels.astype(np.uint8) + 1, geometry.source), **options).array
    wide = gr.resample(cases.volume(cases.wide_labels(cases.SMALL_SHAPE), geometry.source), **options).array
    values = np.array([0, *[3 * k + 2**53 + 1 for k in range(cases.LABELS)]], np.uint64)
    differ = float((values[index] != wide).mean())
    return Row("nearest", "labels above 2^53", geometry.name, float(differ > 0), 0.0, 0, differ, differ == 0)


def rows(quick: bool) -> Iterator[Row]:
    """All comparisons, in the table's order."""
    geometries = [make(cases.small_grid()) for make in cases.GEOMETRIES.values()]
    types: Sequence[Any] = (np.uint8, np.int16, np.int32, np.float32, np.float64)
    interpolations = [name for name in ENUMERATORS if name != "bspline3"]
    if quick:
        kept = ("coarser", "partly outside", "flipped, permuted", "oblique direction", "displacement field")
        geometries = [g for g in geometries if g.name in kept]
        types = (np.int16, np.float32, np.float64)
        interpolations = ["nearest", "linear", "bspline", "bspline1", "bspline5", "gaussian", "lanczos", "label_linear"]
    volumes = [(np.dtype(t).name, cases.ct_like(cases.SMALL_SHAPE, t)) for t in types]
    labels = [(f"labels, {np.dtype(t).name}", cases.label_map(cases.SMALL_SHAPE, t)) for t in (np.uint8, np.int16)]
    for interpolation in interpolations:
        for name, array in labels if interpolation in LABEL_MODES else volumes:
            for geometry in geometries:
                g = cases.part(geometry, SINC_SIZE) if interpolation in SINCS else geometry
                yield compare(name, array, g, interpolation)
            # Not "label_gaussian": halfway, two labels weigh exactly the same, and rounding decides in SimpleITK too.
            if interpolation in ("nearest", "label_linear"):
                yield compare(name, array, cases.halves(cases.small_grid()), interpolation)
    for geometry in geometries:
        yield copies_survive(geometry)
    makers = [cases.coarser, cases.finer, cases.permuted, cases.turned_target]
    for name, array, grid in real.real_crops():
        for interpolation in LABEL_MODES if name.startswith("labels") else ("nearest", "linear", "bspline"):
            for make in makers[:1] if quick else makers:
                yield compare(name + ", real", array, make(grid), interpolation)
    yield from smoothing_parity.rows(quick)


def _line(group: Sequence[Row], title: str) -> list[str]:
    worst = max(group, key=lambda r: (not r.ok, r.error / r.bound if r.bound else r.differ, r.differ))
    exact = worst.bound == 0
    integers = "int" in worst.volume
    return [
        title,
        worst.volume,
        ("exact" if worst.differ == 0 else "differs") if exact else f"{worst.error:.1e}",
        "exact" if exact else f"{worst.bound:.0e}",
        f"{100 * max(r.differ for r in group):.3f} %" if integers or exact else "",
        worst.geometry,
        "ok" if all(r.ok for r in group) else "FAILS",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, and say whether all bounds hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer interpolations, types and geometries")
    parser.add_argument("--all", action="store_true", help="one line per geometry, not the worst of them")
    parser.add_argument("--json", metavar="FILE", help="write all rows to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    start = time.perf_counter()
    found = list(rows(options.quick))
    seconds = time.perf_counter() - start
    key = (
        (lambda r: (r.interpolation, r.volume, r.geometry)) if options.all else (lambda r: (r.interpolation, r.volume))
    )
    lines = [_line(list(group), names[0]) for names, group in groupby(found, key)]
    header = ("interpolation", "voxels", "error / range", "bound", "voxels differ", "worst on", "verdict")
    broken = [r for r in found if not r.ok]
    note = (
        f"{len(found)} comparisons with SimpleITK {sitk.Version().VersionString()} in {seconds:.0f} s, "
        f"{len(broken)} out of bounds. Each line is the worst of its geometries.\n"
        f"Integer voxels: truncated as SimpleITK does; off by at most 1, in at most {100 * MOST_DIFFERING} % of voxels."
    )
    tables.table("Parity with SimpleITK", header, lines, note)
    if real.data_folder() is None:
        print("No real volumes were compared: set GPURESAMPLE_DATA to a folder that has them.")
    for r in broken:
        print(
            f"out of bounds: {r.interpolation}, {r.volume}, {r.geometry}: error {r.error:.2e} (bound {r.bound:.0e}), "
            f"{100 * r.differ:.3f} % of voxels differ, by up to {r.step}"
        )
    info = measure.machine(gr.get_num_threads())
    content = {"machine": info, "seconds": seconds, "rows": [asdict(r) for r in found], "ok": not broken}
    measure.save(options.json, "parity", given, content)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
