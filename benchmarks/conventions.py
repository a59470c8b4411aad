"""How far from each library is its convention: every row of `gpuresample.planning.conventions`, measured.

    python -m benchmarks.conventions [--json FILE]

Each library that is installed makes its own call on a real volume (or a synthetic one, where there are none), finer and
coarser, and `gr.resample(..., convention=...)` the same. Printed are library, version, call, our keywords and the
largest difference, in units of the volume's range. Exit code 1 if one exceeds its tolerance.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from benchmarks import real
from gpuresample.bench import cases, measure, tables
from gpuresample.bench.bounds import SINGLE
from gpuresample.bench.cases import Array, Job, Spacing
from gpuresample.bench.peers import PEERS, as_array
from gpuresample.planning.conventions import CONVENTIONS

# Array order z, y, x: finer here, coarser there; no sample falls halfway between voxels.
OLD: Spacing = (2.0, 0.9, 1.1)
NEW: tuple[Spacing, ...] = ((1.31, 1.37, 0.84), (3.12, 0.72, 2.3))
SHAPE = (40, 60, 50)


def theirs(name: str) -> Callable[[Array, Spacing, Spacing, str], Array]:
    """A library's own call."""

    def call(array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
        return as_array(PEERS[name].prepare(Job.of_spacing(array, old, new, interpolation))())

    return call


LIBRARIES = {name: theirs(name) for name in CONVENTIONS}


def ours(name: str, array: Array, old: Spacing, new: Spacing, interpolation: str) -> Array:
    """The same by convention."""
    out = gr.resample(array, spacing=new, input_spacing=old, interpolation=interpolation, convention=name)
    return np.asarray(out)


def volume(dtype: Any) -> Array:
    """The real volume that all are compared on, or a synthetic one."""
    folder = real.data_folder()
    if folder is not None and (path := folder / "FLAIR.nii.gz").is_file():
        whole = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
        z, y, x = SHAPE
        array: Array = np.ascontiguousarray(whole[50 : 50 + z, 40 : 40 + y, 30 : 30 + x]).astype(dtype)
        return array
    return cases.ct_like(SHAPE, dtype)


@dataclass(frozen=True)
class Row:
    """One library and interpolation: largest difference over the range, and of int16 in units."""

    convention: str
    interpolation: str
    error: float
    units: int
    differ: float
    ok: bool


def compare(name: str, interpolation: str, floats: Array, integers: Array) -> Row:
    """Both results on both grids, as floats and as integers where the library takes them."""
    error, units, differ, same = 0.0, 0, 0.0, True

    def both(array: Array, new: Spacing) -> tuple[Array, Array]:
        return LIBRARIES[name](array, OLD, new, interpolation), ours(name, array, OLD, new, interpolation)

    for new in NEW:
        theirs, mine = both(integers if name == "skimage" and interpolation == "nearest" else floats, new)
        same = same and theirs.shape == mine.shape and theirs.dtype == mine.dtype
        if not same:
            break
        apart = np.abs(theirs.astype(np.float64) - mine.astype(np.float64))
        error = max(error, float(apart.max()) / float(np.ptp(floats)))
        if name == "torch":
            continue  # it takes no int16
        theirs, mine = both(integers, new)
        same = same and theirs.dtype == mine.dtype
        apart = np.abs(theirs.astype(np.float64) - mine.astype(np.float64))
        units, differ = max(units, int(apart.max())), max(differ, float((apart >= 1).mean()))
    return Row(name, interpolation, error, units, differ, same and error <= SINGLE and units <= 1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say whether all tolerances hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.conventions", description=__doc__.splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write all rows to FILE")
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser.parse_args(given)
    floats, integers = volume(np.float32), volume(np.int16)
    found: list[Row] = []
    lines = []
    for name, c in CONVENTIONS.items():
        there = measure.version(c.package)
        if not there:
            lines.append([name, f"{c.package} {c.tested}", c.call, c.keywords, "not installed", "", ""])
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [compare(name, i, floats, integers) for i in c.interpolations if "label" not in i]
        found += rows
        worst = max(rows, key=lambda r: (not r.ok, r.error))
        lines.append([
            name, f"{c.package} {there}", c.call, c.keywords, f"{worst.error:.1e} ({worst.interpolation})",
            f"{SINGLE:.0e}", "ok" if all(r.ok for r in rows) else "FAILS",
        ])  # fmt: skip
    header = ("convention", "library", "its call", "our keywords", "largest difference", "tolerance", "verdict")
    note = (
        "In units of the volume's range, float32, over all interpolations that the library offers; int16: by at most 1."
    )
    tables.table("Conventions", header, lines, note)
    broken = [r for r in found if not r.ok]
    for r in broken:
        print(f"out of bounds: {r.convention}, {r.interpolation}: {r.error:.2e}, integers off by {r.units}")
    info = measure.machine(gr.get_num_threads())
    content = {"machine": info, "rows": [asdict(r) for r in found], "ok": not broken}
    measure.save(options.json, "conventions", given, content)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
