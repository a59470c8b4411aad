"""A verification as an HTML page: verdict, table, plots, pictures of the differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpuresample.bench import measure
from gpuresample.pages import COLOURS, Cell, Page, Picture
from gpuresample.verification.results import HEADER, Row, Verification
from gpuresample.verification.views import FULL

_STATES = {"ok": "good", "BROKEN": "bad", "not run": "warn"}
_VERDICT = HEADER.index("verdict")


def page(found: Verification) -> Page:
    """The page of a verification."""
    made = Page("gpuresample against SimpleITK", found.about_image())
    _head(made, found)
    made.section("Every comparison")
    made.table(HEADER, [_cells(r) for r in found.rows], _CAPTION)
    for remark in found.remarks():
        made.text(remark)
    done = [r for r in found.rows if r.state != "not run"]
    summed = [r for r in done if r.error is not None]
    if summed:
        made.section("Error against its bound")
        made.plot(_ERRORS, lambda figure: _errors(figure, summed), height=1.0 + 0.3 * len(summed))
    timed = [r for r in done if r.ratio is not None]
    if timed:
        made.section("Speed")
        made.plot(_SPEED, lambda figure: _ratios(figure, timed), height=1.0 + 0.3 * len(timed))
    _pictures(made, done)
    made.section("Machine")
    made.text(measure.about(found.machine) + f"; {found.machine['date']}")
    return made


_CAPTION = (
    "Error: largest difference of the float result from SimpleITK's float64 result, in units of the image's range. "
    "Differ: share of integer voxels, or of copied voxels. Ours, SimpleITK: medians of runs that take turns; ratio: "
    "SimpleITK's time over ours."
)
_ERRORS = (
    "Largest error, in units of the image's range, and what the numeric contract allows (the bar to its right). Copied "
    "voxels and labels are not shown: they must be equal."
)
_SPEED = "How many times as fast as SimpleITK, on this machine, for this image; left of 1 SimpleITK is faster."


def _head(made: Page, found: Verification) -> None:
    made.text(found.verdict)
    done = [r for r in found.rows if r.state != "not run"]
    closest = max((r.error / r.bound for r in done if r.error is not None and r.bound), default=None)
    ratios = sorted(r.ratio for r in done if r.ratio is not None)
    facts: list[tuple[str, str | Cell]] = [
        ("numeric contract", Cell("holds", "good") if found.ok else Cell("broken", "bad"))
    ]
    if closest is not None:
        facts.append(("largest error, of what is allowed", f"{100 * closest:.0f} %" if closest < 100 else "> 100 x"))
    if ratios:
        facts.append(("times as fast, median", f"{ratios[len(ratios) // 2]:.1f}x"))
    facts.append(("comparisons", f"{len(done)}"))
    made.facts(facts)


def _cells(row: Row) -> list[str | Cell]:
    cells: list[str | Cell] = list(row.cells())
    word = row.cells()[_VERDICT]
    cells[_VERDICT] = Cell(word.replace(" ", "\N{NO-BREAK SPACE}"), _STATES[word])
    return cells


def _names(rows: Sequence[Row]) -> list[str]:
    several = len({r.engine for r in rows}) > 1
    return [f"{r.name}, {r.engine}" if several else r.name for r in rows]


def _errors(figure: Any, rows: Sequence[Row]) -> None:
    axes = figure.subplots()
    # An error of zero has no place on a logarithmic axis; beyond, it is so small that nobody asks.
    errors = [r.error if r.error is not None else 0.0 for r in rows]
    shown = [e for e in errors if 0 < e < math.inf]
    least = min([*shown, *(r.bound for r in rows)]) / 3
    most = max([*shown, *(r.bound for r in rows)])
    for k, (row, error) in enumerate(zip(rows, errors, strict=True)):
        colour = COLOURS[0] if row.state == "ok" else COLOURS[4]
        x = min(max(error, least), 10 * most)
        axes.plot([least, row.bound], [k, k], color=COLOURS[6], linewidth=1, alpha=0.6)
        axes.plot([row.bound], [k], "|", color=COLOURS[6], markersize=13, markeredgewidth=2.5)
        axes.plot([x], [k], "o", color=colour, markersize=7)
    axes.set_xscale("log")
    axes.set_xlim(least / 1.5, None)
    axes.set_yticks(range(len(rows)), _names(rows))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("largest error / range")


def _ratios(figure: Any, rows: Sequence[Row]) -> None:
    axes = figure.subplots()
    values = [r.ratio or 1.0 for r in rows]
    colours = [COLOURS[0] if v >= 1 else COLOURS[4] for v in values]
    axes.barh(range(len(rows)), [v - 1 for v in values], left=1, color=colours, height=0.62)
    for k, v in enumerate(values):
        axes.annotate(f"{v:.1f}x", (max(v, 1.0), k), xytext=(5, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(min(0.5, *values) / 1.2, max(values) * 2)
    axes.axvline(1, color=COLOURS[6], linewidth=1.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_yticks(range(len(rows)), _names(rows))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)


def _pictures(made: Page, rows: Sequence[Row]) -> None:
    shown = [r for r in rows if r.views is not None]
    equal = [r for r in rows if r.views is None]
    made.section("Where the difference is largest")
    if equal:
        made.text(f"No voxel differs: {', '.join(_names(equal))}.")
    if not shown:
        return
    made.text(
        "The plane through the voxel with the largest difference. Differences are gpuresample less SimpleITK: orange "
        "above zero, blue below, amplified as the caption says, to the full colour at a third of the largest."
    )
    for name, row in zip(_names(shown), shown, strict=True):
        _one(made, name, row)


def _one(made: Page, name: str, row: Row) -> None:
    views = row.views
    assert views is not None
    low, high = views.window
    plane = " at " + ", ".join(map(str, views.at)) if views.at else ""
    if row.error is None:
        what = f"{name}: {100 * (row.differ or 0):.2g} % of the voxels differ, by up to {views.peak:g}"
    else:
        gain = f"{1 / (FULL * row.error):.1e}" if row.error and math.isfinite(row.error) else "inf"
        what = (
            f"{name}: difference x {gain}, in units of the range; at most {row.error:.1e} of it ({views.peak:.3g}), "
            f"allowed is {row.bound:.0e}"
        )
    made.pictures(
        [
            Picture.of(views.ours, f"{name}, gpuresample ({row.engine}); black {low:.4g}, white {high:.4g}"),
            Picture.of(views.theirs, f"{name}, SimpleITK"),
            Picture.of(views.difference, f"{what}; largest{plane} (array order)"),
        ]
    )
