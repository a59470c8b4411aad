"""Draws docs/anchors.svg: what `anchor=` keeps in place when 8 voxels become 5.

    python docs/anchors.py [FILE ...]

The grids are asked of `gpuresample.planning.grid.resized`, so the picture cannot say anything else than the code does.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from gpuresample import Grid
from gpuresample.planning.grid import resized

N_OLD, N_NEW = 8, 5
INK, MUTED, OLD, NEW, KEPT = "#1f2328", "#59636e", "#dfe3e8", "#bcd7f5", "#c2410c"

ROWS = (
    ("first", 'anchor="first"', "the centre of the first voxel stays", "SimpleITK recipes; the default"),
    ("edge", 'anchor="edge"', "the outer faces stay", "torch align_corners=False, scikit-image"),
    (
        "center",
        'anchor="center"',
        "the centres of the corner voxels stay",
        "scipy.ndimage.zoom, torch align_corners=True",
    ),
)


def cells(axes: Axes, grid: Grid, bottom: float, height: float, colour: str) -> None:
    """A row of voxels with their centres."""
    origin, spacing = grid.origin[0], grid.spacing[0]
    for i in range(grid.size[0]):
        centre = origin + i * spacing
        box = Rectangle((centre - spacing / 2, bottom), spacing, height, facecolor=colour, edgecolor=INK, linewidth=1.1)
        axes.add_patch(box)
        axes.plot(centre, bottom + height / 2, "o", color=INK, markersize=4.5, zorder=3)


def legend(axes: Axes) -> None:
    """What the colours mean, in the card's head."""
    for x, colour, text in ((2.56, OLD, "input"), (3.9, NEW, "output")):
        axes.add_patch(Rectangle((x, -0.1), 0.34, 0.24, facecolor=colour, edgecolor=INK, linewidth=1.0))
        axes.text(x + 0.5, 0.02, text, color=INK, fontsize=10, va="center")
    axes.plot([5.45, 5.45], [-0.16, 0.2], color=KEPT, linewidth=2.2, solid_capstyle="round")
    axes.text(5.62, 0.02, "stays in place", color=INK, fontsize=10, va="center")


def kept_in_place(anchor: str, old: Grid) -> list[float]:
    """Where old and new grid agree."""
    first, last = old.origin[0], old.origin[0] + (N_OLD - 1) * old.spacing[0]
    half = old.spacing[0] / 2
    return {"first": [first], "edge": [first - half, last + half], "center": [first, last]}[anchor]


def draw() -> Figure:
    """The picture."""
    mpl.rcParams.update({"svg.fonttype": "path", "font.family": "DejaVu Sans", "svg.hashsalt": "anchors"})
    figure = Figure(figsize=(9.2, 4.6), facecolor="none")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(-5.95, 8.35)
    axes.set_ylim(-6.63, 0.58)
    # A card of its own colour: the same on light and dark pages.
    card = FancyBboxPatch(
        (-5.8, -6.5), 14.0, 6.94, boxstyle="round,pad=0,rounding_size=0.18", facecolor="white", edgecolor="#d1d9e0"
    )
    axes.add_patch(card)
    axes.text(-5.45, 0.02, f"{N_OLD} voxels become {N_NEW}", color=INK, fontsize=13, weight="bold", va="center")

    legend(axes)
    old = Grid.of_size((N_OLD, 1), (1.0, 1.0))
    for row, (anchor, name, what, who) in enumerate(ROWS):
        top = -0.75 - 2.02 * row
        new = resized(old, (N_OLD / N_NEW, 1.0) if anchor != "center" else None, (N_NEW, 1), anchor)
        cells(axes, old, top - 0.62, 0.5, OLD)
        cells(axes, new, top - 1.32, 0.5, NEW)
        axes.text(
            -5.45, top - 0.36, name, color=INK, fontsize=12.5, family="DejaVu Sans Mono", weight="bold", va="center"
        )
        axes.text(-5.45, top - 0.82, what, color=KEPT, fontsize=10.5, va="center")
        axes.text(-5.45, top - 1.2, who, color=MUTED, fontsize=8.8, va="center")
        for x in kept_in_place(anchor, old):
            axes.plot([x, x], [top + 0.02, top - 1.46], color=KEPT, linewidth=2.2, zorder=2, solid_capstyle="round")
    return figure


def main() -> None:
    """Draw to docs/anchors.svg, or to the files named."""
    files = sys.argv[1:] or [str(Path(__file__).with_name("anchors.svg"))]
    for file in files:
        draw().savefig(file, dpi=110, metadata={"Date": None} if file.endswith(".svg") else None)


if __name__ == "__main__":
    main()
