"""Fills the README's tables from what was measured, and says when, where and by which command.

    python -m benchmarks.speed --json speed.json
    python -m benchmarks.parity --json parity.json
    python -m benchmarks.gaussian --json gaussian.json
    python -m benchmarks.readme speed.json parity.json gaussian.json

Replaced is what stands between `<!-- speed -->` and `<!-- /speed -->`, and so on for each report's kind.
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
from gpuresample.bench.measure import ROOT
from gpuresample.bench.tables import duration, megabytes

FAMILIES = {
    "nearest": ("nearest",),
    "linear": ("linear",),
    "B-splines of order 1 to 5": ("bspline", "bspline1", "bspline2", "bspline4", "bspline5"),
    "Gaussian": ("gaussian",),
    "windowed sinc (5 windows)": ("hamming", "cosine", "welch", "lanczos", "blackman"),
    "labels (Gaussian, linear)": ("label_gaussian", "label_linear"),
}
FILTERS = {
    "blurs: discrete, recursive, sampled (SciPy)": smoothing_parity.BLURS,
    "shrink, block means": smoothing_parity.EXACT,
    "expand": smoothing_parity.EXPANSIONS,
}

PEERS = {
    "discrete": "SimpleITK DiscreteGaussian",
    "sampled": "scipy",
    "recursive": "SimpleITK SmoothingRecursiveGaussian",
}
OURS = {"numpy": "NumPy", "image": "SimpleITK.Image"}


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


def speed(report: dict[str, Any]) -> str:
    """The speed table, as Markdown."""
    if report["quick"]:
        raise SystemExit("the README takes a whole run of benchmarks.speed, not a --quick one")
    rows = []
    for group in report["groups"]:
        by_peer = {row["peer"]: row for row in group["rows"]}
        if any(row["check"] == "WRONG" for row in group["rows"]):
            raise SystemExit(f"{group['what']}: an answer is wrong; nothing was written")
        for t in group["targets"]:
            ours, peer = by_peer[t["ours"]], by_peer[t["peer"]]
            rows.append(
                [
                    group["what"],
                    f"{duration(ours['median'])} ({OURS[t['ours']]})",
                    f"{peer['label']}: {duration(peer['median'])}",
                    f"{t['ratio']:.0f}x" if t["ratio"] >= 20 else f"{t['ratio']:.1f}x",
                ]
            )
    group = report["groups"][0]
    runs = min(len(row["seconds"]) for g in report["groups"] for row in g["rows"])
    out = [
        f"One volume of {_size(group['input'])} voxels at 0.78125 x 0.78125 x 1 mm to {_size(group['output'])} "
        "at 1 x 1 x 2 mm:",
        "",
        _table(("job", "gpuresample", "against", "times as fast"), rows),
        "",
    ]
    if report["memory"]:
        job = {(m["peer"], m["interpolation"]): m for m in report["memory"]}
        ours, theirs = job["image", "bspline"], job["simpleitk", "bspline"]
        out.append(
            f"Peak memory of the cubic B-spline beyond the input ({ours['input'] / 1e6:.0f} MB; the output is "
            f"{ours['output'] / 1e6:.0f} MB): {ours['extra'] / 1e6:.0f} MB, SimpleITK {theirs['extra'] / 1e6:.0f} MB."
        )
    if report["start"]:
        s = report["start"]
        out.append(
            f"`import gpuresample` takes {duration(s['import'])}. The first call after installation compiles for "
            f"{duration(s['cold']['aligned first'])} (rotated grids: {duration(s['cold']['oblique first'])} more); "
            f"in later processes the first call takes {duration(s['warm']['aligned first'])}, loading Numba included."
        )
    where = _where(report, ("SimpleITK", "volresample", "torch"))
    out += ["", f"<sub>Medians of {runs} or more runs that take turns. {where}</sub>"]
    return "\n".join(out)


def gaussian(report: dict[str, Any]) -> str:
    """The table of blurs, as Markdown: nanoseconds per voxel against sigma."""
    if report["quick"]:
        raise SystemExit("the README takes a whole run of benchmarks.gaussian, not a --quick one")
    voxels = math.prod(report["shape"])
    sigmas = sorted({row["sigma"] for row in report["rows"]})
    lines: dict[str, list[str]] = {}
    for row in report["rows"]:
        ratio = f" ({row['peer_median'] / row['median']:.0f}x)" if row["peer"] else ""
        name = f'`kind="{row["kind"]}"` (against {PEERS[row["kind"]]})'
        cell = f"{1e9 * row['median'] / voxels:.1f}{ratio}"
        lines.setdefault(name, ["-"] * len(sigmas))[sigmas.index(row["sigma"])] = cell
    down, blocks = report["fused"], report["blocks"]
    fused = down["fused"]["median"]
    mode = voxels / blocks["mode, uint8 labels"]["median"] / 1e6
    load = report["machine"]["load_before"] or 0.0
    once = min(len(row["theirs"]) for row in report["rows"] if row["theirs"])
    return "\n".join(
        [
            f"Nanoseconds per voxel of {_size(report['shape'])}, int16 to float32, against sigma in voxels, and how "
            "many times as fast that is as the peer where it has a right answer:",
            "",
            _table(("", *[f"{s:g}" for s in sigmas]), [[name, *cells] for name, cells in lines.items()]),
            "",
            f"Blur (sigma 1) and every second voxel: {duration(fused)} fused, "
            f"{down['two steps']['median'] / fused:.1f}x that in our two steps, "
            f"{down['SimpleITK']['median'] / fused:.0f}x in SimpleITK's. Modes of 2x2x2 labels, uint8: "
            f"{mode:,.0f} million voxels per second.",
            "",
            "<sub>Medians; runs take turns"
            + (", peers of more than 8 seconds run once" if once == 1 else "")
            + (f"; the machine was busy (load {load:g})" if load > report["machine"]["cores"] else "")
            + f". {_where(report, ('SimpleITK', 'scipy'))}</sub>",
        ]
    )


def _worst(rows: Sequence[dict[str, Any]], key: str) -> float:
    return max((row[key] for row in rows), default=0.0)


def parity(report: dict[str, Any]) -> str:
    """The parity table, as Markdown."""
    if not report["ok"]:
        raise SystemExit("a comparison is out of bounds; nothing was written")
    rows = []
    for family, names in {**FAMILIES, **FILTERS}.items():
        mine = [row for row in report["rows"] if row["interpolation"] in names]
        if not mine:
            raise SystemExit(f"no comparison for {family}: the README takes a whole run, not a --quick one")
        if all(row["bound"] == 0 for row in mine):
            rows.append([family, "equal", "equal", "equal"])
            continue
        single = [row for row in mine if row["bound"] >= 2e-6]
        double = [row for row in mine if row not in single]
        rows.append(
            [
                family,
                f"{_worst(single, 'error'):.0e}",
                f"{_worst(double, 'error'):.0e}",
                f"{100 * _worst(mine, 'differ'):.2g} %",
            ]
        )
    n = len(report["rows"])
    resampled = [row for row in report["rows"] if any(row["interpolation"] in names for names in FAMILIES.values())]
    geometries = len({row["geometry"] for row in resampled})
    header = (
        "largest difference from SimpleITK, in units of the image's range",
        "float32, 8/16-bit integers",
        "float64, 32-bit integers",
        "integer voxels off by one*",
    )
    return "\n".join(
        [
            _table(header, rows),
            "",
            f'\\* With `rounding="truncate"`, SimpleITK\'s way. {n} comparisons, '
            f"{len(resampled)} of them on {geometries} geometries: finer, coarser, partly outside, flipped and "
            "permuted, halfway between voxels, oblique headers, oblique grids, "
            "rotations, displacement fields.",
            "",
            f"<sub>{_where(report, ('SimpleITK',))}</sub>",
        ]
    )


def ensemble(report: dict[str, Any]) -> str:
    """The table of ensembles, as Markdown."""
    if report["quick"]:
        raise SystemExit("the README takes a whole run of benchmarks.ensemble, not a --quick one")
    rows = []
    for case in report["cases"]:
        who = {row["who"]: row for row in case["rows"]}
        if any(row["check"] == "WRONG" for row in case["rows"]):
            raise SystemExit(f"{case['what']}: an answer is wrong; nothing was written")
        mine, torch = who["gpuresample"], who.get("torch")
        rows.append(
            [
                case["what"],
                f"{duration(mine['median'])}, {megabytes(mine['extra'])}",
                f"{duration(torch['median'])}, {megabytes(torch['extra'])}" if torch else
                "has none" if "bspline" in case["what"] else f"not run: {case['torch_bytes'] / 1e9:.1f} GB",
                f"{torch['median'] / mine['median']:.1f}x" if torch else "",
            ]
        )  # fmt: skip
    header = ("class scores to labels (sizes z, y, x)", "gpuresample, peak beyond the scores", "torch", "times as fast")
    return "\n".join([_table(header, rows), "", f"<sub>{_where(report, ('torch',))}</sub>"])


MAKERS = {"speed": speed, "parity": parity, "gaussian": gaussian, "ensemble": ensemble}


def fill(text: str, name: str, content: str) -> str:
    """`text` with `content` between its markers."""
    pattern = re.compile(rf"(<!-- {name} -->\n).*?\n?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"the README has no place between <!-- {name} --> and <!-- /{name} -->")
    return pattern.sub(lambda match: f"{match[1]}{content}\n{match[2]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill in what the reports hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=__doc__.splitlines()[0])
    parser.add_argument(
        "reports", nargs="+", metavar="JSON", help="written by benchmarks.speed, .parity or .gaussian --json"
    )
    options = parser.parse_args(arguments)
    target = ROOT / "README.md"
    text = target.read_text(encoding="utf-8")
    for file in options.reports:
        report = json.loads(Path(file).read_text())
        text = fill(text, report["kind"], MAKERS[report["kind"]](report))
    target.write_text(text, encoding="utf-8")
    print(f"written: {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
