"""What several commands are asked in the same words: every argument and option once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuresample.engines.threads import set_num_threads
from gpuresample.files import volumes as files
from gpuresample.planning.conventions import NAMES

GRID, VALUES, RUN = "Grid", "Values", "Running"

Source = Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder with a DICOM series.")]
Target = Annotated[Path, typer.Argument(metavar="OUT", help=f"Where to write: {', '.join(files.WRITABLE)}.")]

# --- the grid ---
Spacing = Annotated[
    str | None, typer.Option(metavar="X Y Z", help="New spacing, or one number for all axes.", rich_help_panel=GRID)
]
Size = Annotated[str | None, typer.Option(metavar="X Y Z", help="New size in voxels.", rich_help_panel=GRID)]
Like = Annotated[Path | None, typer.Option(metavar="FILE", help="Take the grid of this volume.", rich_help_panel=GRID)]
Anchor = Annotated[str, typer.Option(help="What stays in place: first, edge or center.", rich_help_panel=GRID)]
Transform = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="A file with a transform, from output points to input points.", rich_help_panel=GRID
    ),
]
Orientation = Annotated[
    str,
    typer.Option(
        metavar="LETTERS", help="Where the axes x, y, z lead to: RAS, LPS, ... in any order.", rich_help_panel=GRID
    ),
]

# --- the values ---
Interpolation = Annotated[
    str,
    typer.Option(
        help="nearest, linear, bspline, bspline1 to bspline5, gaussian, hamming, cosine, welch, lanczos, "
        "blackman, label_gaussian, label_linear.",
        rich_help_panel=VALUES,
    ),
]
Boundary = Annotated[
    str | None,
    typer.Option(
        help="nearest, reflect, mirror, constant, wrap, grid-wrap, grid-constant; SimpleITK's rule unless given.",
        rich_help_panel=VALUES,
    ),
]
Antialias = Annotated[
    str | None,
    typer.Option(
        metavar="[SIGMA ...]",
        help="Blur axes that get fewer voxels; numbers are sigmas in input voxels.",
        rich_help_panel=VALUES,
    ),
]
DefaultValue = Annotated[
    str, typer.Option(metavar="NUMBER", help="Value of voxels outside the input.", rich_help_panel=VALUES)
]
Rounding = Annotated[
    str, typer.Option(help="How integers are rounded: nearest, or truncate as SimpleITK does.", rich_help_panel=VALUES)
]
Convention = Annotated[
    str | None,
    typer.Option(
        help=f"Give what another library gives: {', '.join(NAMES)}. Sets anchor, boundary, antialias, rounding.",
        rich_help_panel=VALUES,
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(
        metavar="[LOW HIGH]",
        help="Keep sums within the input's range, or within the two numbers given.",
        rich_help_panel=VALUES,
    ),
]
Ignore = Annotated[
    str | None,
    typer.Option(metavar="NUMBER", help="The value that says 'no data', or nan.", rich_help_panel=VALUES),
]
Dtype = Annotated[str | None, typer.Option(help="Voxel type of the output, such as float32.", rich_help_panel=VALUES)]


def _set_threads(threads: int | None) -> int | None:
    if threads is not None:
        set_num_threads(threads)
    return threads


# --- the run ---
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.", rich_help_panel=RUN)]
Threads = Annotated[
    int | None,
    typer.Option(min=1, callback=_set_threads, help="Threads that compute and pack.", rich_help_panel=RUN),
]
"""Set when it is read: commands need do nothing with it."""
Level = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="How hard to pack, 1 (fast) to 9 (small): .nii.gz, .nii.zst, .nrrd, .mha.",
        rich_help_panel=RUN,
    ),
]
Series = Annotated[str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.", rich_help_panel=RUN)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.", rich_help_panel=RUN)]
