"""Fills the tables of the README and of docs/ from what was measured: when, where, by which command, in which run.

    make bench-full
    python -m benchmarks.parity --json parity.json
    python -m benchmarks.readme benchmarks/results/RUN/benchmark.json parity.json

It replaces what stands between `<!-- speed -->` and `<!-- /speed -->`, and so on: OF_A_RUN and OF_PARITY say which
table stands on which page. It refuses runs that are not whole and runs with wrong answers.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import smoothing_parity
from gpuresample.bench import listing, records
from gpuresample.bench.bounds import LABEL_MODES, SINGLE
from gpuresample.bench.measure import ROOT
from gpuresample.bench.records import OURS, Record, Run, by_case, ratio, yardstick
from gpuresample.bench.tables import duration, megabytes, times
from gpuresample.bench.targets import Verdict, verdicts
from gpuresample.planning.filters import SINCS

FAMILIES = {
    "nearest": ("nearest",),
    "linear": ("linear",),
    "B-splines of order 1 to 5": ("bspline", "bspline1", "bspline2", "bspline4", "bspline5"),
    "Gaussian": ("gaussian",),
    "windowed sinc (5 windows)": SINCS,
    "labels (Gaussian, linear)": LABEL_MODES,
}
FILTERS = {
    "blurs: discrete, recursive, sampled (SciPy)": smoothing_parity.BLURS,
    "shrink, block means": smoothing_parity.EXACT,
    "expand": smoothing_parity.EXPANSIONS,
}

PEERS = {
    "discrete": "SimpleITK DiscreteGaussian",
    "sampled": "SciPy",
    "recursive": "SimpleITK SmoothingRecursiveGaussian",
}
PARITY_HEADER = (
    "largest difference from SimpleITK, in units of the image's range",
    "float32, 8/16-bit integers",
    "float64, 32-bit integers",
    "integer voxels off by one*",
)
WAYS = {"gpuresample-image": "SimpleITK.Image", "gpuresample-truncate": "SimpleITK.Image, truncated"}
# The README's rows, by case and peer.
FRONT = (
    ("ct-recipe-bspline", "simpleitk"), ("ct-recipe-linear", "simpleitk"), ("ct-recipe-nearest", "simpleitk"),
    ("oblique-bspline", "simpleitk"), ("gaussian-discrete-1", "simpleitk"), ("ensemble-2x12", "torch"),
)  # fmt: skip
# The recipe's rows without a target that the table shows, too.
IMAGES = ("ct-recipe-nearest", "ct-recipe-linear", "ct-recipe-bspline", "oblique-bspline")


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _where(report: dict[str, Any], peers: Sequence[str]) -> str:
    m = report["machine"]
    versions = ", ".join(f"{name} {m['versions'][name]}" for name in peers if name in m["versions"])
    command = re.sub(r" --json \S+", "", report["command"])
    return f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads each; {m['date']}; {versions}; `{command}`"


def _size(shape: Sequence[int]) -> str:
    return "x".join(str(n) for n in reversed(shape))


def _run_of(run: Run, folder: str, peers: Sequence[str]) -> str:
    """On what, when, with what, and which run."""
    m = run.machine
    versions = ", ".join(f"{name} {m['versions'][name]}" for name in peers if name in m["versions"])
    load = m.get("load_before") or 0.0
    busy = f"; the machine was busy (load {load:g})" if load > m["cores"] else ""
    parts = (
        f"{m['cpu']}, {m['cores']} cores, {m['threads']} threads each{busy}", run.date[:10], versions,
        f"run `{folder}` by `gpuresample bench --profile full`",
    )  # fmt: skip
    return "; ".join(filter(None, parts))


def _fit(run: Run) -> None:
    """Refuse a run whose figures are none for the README."""
    if run.machine.get("profile") != "full" or run.machine.get("image"):
        raise SystemExit("the README takes a whole run: gpuresample bench --profile full")
    if bad := listing.wrong(run):
        raise SystemExit(f"an answer is wrong; nothing was written: {', '.join(bad)}")


def _one(run: Run, kind: str, case: str, peer: str) -> Record:
    """A row of the CPU that must be there."""
    for r in run.of(kind):
        if (r.case, r.peer, r.device) == (case, peer, "cpu"):
            return r
    raise SystemExit(f"the run has no row {kind}, {case}, {peer}: the README takes a whole run")


def _way(r: Record) -> str:
    """How a row of ours was asked, in brackets behind its time."""
    if r.device != "cpu":
        return r.doer.removeprefix("gpuresample").strip(" ,()")
    return WAYS.get(r.peer, r.label.removeprefix("gpuresample, ") if r.peer != OURS else "NumPy")


def _speed_row(v: Verdict) -> list[str]:
    mine = v.who if v.ours is None else f"{duration(v.ours.median)} ({_way(v.ours)})"
    against = v.against
    if v.target.measure == "memory" and v.ours is not None and v.ours.peak_host is not None:
        mine = f"{megabytes(v.ours.peak_host)} beyond the inputs"
    elif v.theirs is not None and v.target.against:
        against = f"{v.against}: {duration(v.theirs.median)}"
    return [v.what, mine, against, v.shown, v.target.wanted, v.said]


def _image_row(r: Record, run: Run) -> list[str]:
    """A row that has no target, against SimpleITK."""
    judge, found = yardstick(r, run.of("case")), ratio(r, run.of("case"))
    if judge is None or found is None:
        raise SystemExit(f"the run has no right answer of SimpleITK to {r.case}: the README takes a whole run")
    return [
        r.what, f"{duration(r.median)} ({_way(r)})", f"{judge.label}: {duration(judge.median)}", times(found), "", "",
    ]  # fmt: skip


def speed(run: Run, folder: str) -> str:
    """The table of the performance targets, as Markdown: what was measured, what is meant to be, reached or not."""
    every = verdicts(run)
    judged = [v for v in every if v.found is not None or v.target.device == "cpu"]
    images = [r for r in run.of("case") if r.peer in WAYS and r.case in IMAGES]
    rows = [*map(_speed_row, judged), *(_image_row(r, run) for r in images)]
    shown = [*images, *(r for v in judged if v.found is not None for r in (v.ours, v.theirs) if r is not None)]
    reference = _one(run, "case", "ct-recipe-bspline", OURS)
    image, theirs = (_one(run, "case", "ct-recipe-bspline", p) for p in ("gpuresample-image", "simpleitk"))
    cold = {r.case: r.median for r in run.of("cold")}
    out = [
        f'"CT recipe" is one volume of {_size(reference.input_shape)} voxels at 0.78125 x 0.78125 x 1 mm to '
        f"{_size(reference.output_shape)} voxels at 1 x 1 x 2 mm. The words in brackets say what went in, and "
        "whose rules gpuresample followed: each library is compared with gpuresample under that library's own rules.",
        "",
        _table(("job", "gpuresample", "against", "measured", "target", ""), rows),
        "",
    ]
    if others := len(every) - len(judged):
        out += [f"{others} more targets are for GPUs. This run had no GPU; [CPU or GPU](gpu.md) has those figures.", ""]
    if image.peak_host is not None and theirs.peak_host is not None:
        out.append(
            "Peak memory of the cubic B-spline beyond the input, with a `SimpleITK.Image`: "
            f"{megabytes(image.peak_host)}; SimpleITK: {megabytes(theirs.peak_host)}."
        )
    if cold:
        out.append(
            f"`import gpuresample` takes {duration(cold['import'])}. The first call after installation compiles, and "
            f"takes {duration(cold['nothing compiled'])}; the first call on a rotated grid takes "
            f"{duration(cold['nothing compiled, rotated grid'])} more. In later processes the first call takes "
            f"{duration(cold['in a new process'])}. [First calls](#first-calls) has the figures of the present version."
        )
    runs = min(len(r.seconds) for r in shown)
    where = _run_of(run, folder, ("SimpleITK", "scipy", "volresample", "torch"))
    out += ["", f"<sub>Medians of {runs} or more runs that take turns. {where}</sub>"]
    return "\n".join(out)


def front(run: Run, folder: str) -> str:
    """The README's few rows, as Markdown."""
    judged = {(v.target.case, v.target.against): v for v in verdicts(run)}
    rows, fewest = [], math.inf
    for case, peer in FRONT:
        v = judged.get((case, peer))
        if v is None or v.ours is None or v.theirs is None or v.found is None:
            raise SystemExit(f"the run has no right answer of {peer} to {case}: the README takes a whole run")
        rows.append([v.what, duration(v.ours.median), f"{v.against}: {duration(v.theirs.median)}", v.shown])
        fewest = min(fewest, len(v.ours.seconds), len(v.theirs.seconds))
    reference, image = (_one(run, "case", "ct-recipe-bspline", p) for p in (OURS, "gpuresample-image"))
    where = _run_of(run, folder, ("SimpleITK", "torch"))
    return "\n".join(
        [
            _table(("job", "gpuresample", "other library", "times as fast"), rows),
            "",
            f'"CT recipe" is one volume of {_size(reference.input_shape)} voxels to {_size(reference.output_shape)}. '
            f"NumPy arrays go in and come out; with a `SimpleITK.Image` the first row takes {duration(image.median)}.",
            "",
            f"<sub>Medians of {fewest} or more runs that take turns. {where}</sub>",
        ]
    )


def gaussian(run: Run, folder: str) -> str:
    """The table of blurs, as Markdown: nanoseconds per voxel against sigma."""
    names = [c.split("-") for c in by_case(run.of("case")) if c.startswith("gaussian-")]
    sigmas = sorted({float(sigma) for _, _, sigma in names})
    lines: dict[str, list[str]] = {}
    for _, kind, sigma in names:
        mine = _one(run, "case", f"gaussian-{kind}-{sigma}", OURS)
        found = ratio(mine, run.of("case"), "scipy" if kind == "sampled" else "simpleitk")
        cells = lines.setdefault(f'`kind="{kind}"` (against {PEERS[kind]})', ["-"] * len(sigmas))
        versus = "" if found is None else f" ({found:.0f}x)"
        cells[sigmas.index(float(sigma))] = f"{1e9 * mine.median / mine.voxels:.1f}{versus}"
    fused, steps, theirs = (
        _one(run, "case", "downsample", p).median for p in (OURS, "gpuresample-two-steps", "simpleitk")
    )
    modes, first = _one(run, "case", "block-modes", OURS), _one(run, "case", "gaussian-sampled-1", OURS)
    return "\n".join(
        [
            f"Nanoseconds per voxel for {_size(first.output_shape)} voxels, int16 to float32. The columns are sigma in "
            "voxels. The brackets say how many times as fast that is as the other library; they are missing where the "
            "other library has no right answer.",
            "",
            _table(("", *[f"{s:g}" for s in sigmas]), [[name, *cells] for name, cells in lines.items()]),
            "",
            f"`gr.downsample` blurs (sigma 1) and keeps every second voxel in {duration(fused)}. Two calls, "
            f"`gr.gaussian` and `gr.shrink`, take {steps / fused:.1f} times as long; SimpleITK's two filters "
            f"{theirs / fused:.0f} times. The mode of every 2x2x2 block of uint8 labels: "
            f"{math.prod(modes.input_shape) / modes.median / 1e6:,.0f} million voxels per second.",
            "",
            f"<sub>Medians; runs take turns. {_run_of(run, folder, ('SimpleITK', 'scipy'))}</sub>",
        ]
    )


def ensemble(run: Run, folder: str) -> str:
    """The table of ensembles, as Markdown."""
    rows = []
    for name, rivals in by_case(run.of("case")).items():
        if not name.startswith("ensemble-"):
            continue
        mine, torch = _one(run, "case", name, OURS), next((r for r in rivals if r.peer == "torch"), None)
        found = ratio(mine, rivals, "torch")
        rows.append([
            f"{mine.what.removeprefix('Scores to labels: ')}, {_sizes(mine)}", _time_and_memory(mine),
            "not run" if torch is None else _time_and_memory(torch), "" if found is None else times(found),
        ])  # fmt: skip
    header = ("class scores to labels (sizes z, y, x)", "gpuresample, peak beyond the scores", "torch", "times as fast")
    return "\n".join([_table(header, rows), "", f"<sub>{_run_of(run, folder, ('torch',))}</sub>"])


def _sizes(r: Record) -> str:
    return " to ".join("x".join(map(str, shape[-3:])) for shape in (r.input_shape, r.output_shape))


def _time_and_memory(r: Record) -> str:
    return duration(r.median) + ("" if r.peak_host is None else f", {megabytes(r.peak_host)}")


def _worst(rows: Sequence[dict[str, Any]], key: str) -> float:
    return max((row[key] for row in rows), default=0.0)


def _in_bounds(report: dict[str, Any]) -> None:
    if not report["ok"]:
        raise SystemExit("a comparison is out of bounds; nothing was written")


def _largest(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The largest difference of floats, of doubles, and the share of integer voxels that differ."""
    single = [row for row in rows if row["bound"] >= SINGLE]
    double = [row for row in rows if row not in single]
    return [f"{_worst(single, 'error'):.0e}", f"{_worst(double, 'error'):.0e}", f"{100 * _worst(rows, 'differ'):.2g} %"]


def parity_row(report: dict[str, Any]) -> str:
    """The README's row: the worst of everything, as Markdown."""
    _in_bounds(report)
    what = f"worst of {len(report['rows'])} comparisons; nearest and label modes are equal"
    row = [what, *_largest([row for row in report["rows"] if row["bound"] > 0])]
    return "\n".join([_table(PARITY_HEADER, [row]), "", f"<sub>{_where(report, ('SimpleITK',))}</sub>"])


def parity(report: dict[str, Any]) -> str:
    """The parity table, as Markdown."""
    _in_bounds(report)
    rows = []
    for family, names in {**FAMILIES, **FILTERS}.items():
        mine = [row for row in report["rows"] if row["interpolation"] in names]
        if not mine:
            raise SystemExit(f"no comparison for {family}: the README takes a whole run, not a --quick one")
        if all(row["bound"] == 0 for row in mine):
            rows.append([family, "equal", "equal", "equal"])
            continue
        rows.append([family, *_largest(mine)])
    n = len(report["rows"])
    resampled = [row for row in report["rows"] if any(row["interpolation"] in names for names in FAMILIES.values())]
    geometries = len({row["geometry"] for row in resampled})
    return "\n".join(
        [
            _table(PARITY_HEADER, rows),
            "",
            f'\\* With `rounding="truncate"`, SimpleITK\'s way. {n} comparisons, '
            f"{len(resampled)} of them on {geometries} geometries: finer, coarser, partly outside, flipped and "
            "permuted, halfway between voxels, oblique headers, oblique grids, "
            "rotations, displacement fields.",
            "",
            f"<sub>{_where(report, ('SimpleITK',))}</sub>",
        ]
    )


# Which page has which table, and who makes it.
OF_A_RUN = (
    ("README.md", "front", front),
    ("docs/speed.md", "speed", speed),
    ("docs/speed.md", "gaussian", gaussian),
    ("docs/ensembles.md", "ensemble", ensemble),
)
OF_PARITY = (("README.md", "parity-row", parity_row), ("docs/numbers.md", "parity", parity))


def fill(text: str, name: str, content: str) -> str:
    """`text` with `content` between its markers."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?\n?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the page has no place between <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill in what the reports hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument(
        "reports", nargs="+", metavar="JSON", help="benchmark.json of a run, or what benchmarks.parity --json wrote"
    )
    options = parser.parse_args(arguments)
    pages: dict[str, str] = {}

    def put(page: str, name: str, content: str) -> None:
        text = pages[page] if page in pages else (ROOT / page).read_text(encoding="utf-8")
        pages[page] = fill(text, name, content)

    for file in map(Path, options.reports):
        report = json.loads(file.read_text(encoding="utf-8"))
        if "benchmarks" not in report:
            for page, name, of_report in OF_PARITY:
                put(page, name, of_report(report))
            continue
        run = records.read(file)
        _fit(run)
        for page, name, of_run in OF_A_RUN:
            put(page, name, of_run(run, file.resolve().parent.name))
    for page, text in pages.items():
        (ROOT / page).write_text(text, encoding="utf-8")
        print(f"written: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
