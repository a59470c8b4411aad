"""`gpuresample verify IMAGE`: every interpolation and engine against SimpleITK, on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

import gpuresample as gr
from gpuresample.bench import measure
from gpuresample.cli import console, flags, options
from gpuresample.containers import unwrap
from gpuresample.files import volumes as files
from gpuresample.files.grids import grid_of_file
from gpuresample.files.transforms import read_transform
from gpuresample.verification import INTERPOLATIONS, VOXELS, Verification
from gpuresample.verification.pairs import FILTERS
from gpuresample.verification.results import HEADER

if TYPE_CHECKING:
    import SimpleITK

_STYLES = {"ok": "green", "BROKEN": "bold red", "not run": "yellow"}
_WHAT, _OUT = "What is compared", "Output"
_PAGES = (".html", ".htm")


def verify(
    source: Annotated[Path, typer.Argument(metavar="IMAGE", help="A file, or a folder with a DICOM series.")],
    spacing: Annotated[
        str | None,
        typer.Option(
            metavar="X Y Z",
            help="New spacing, or one number for all axes; unless given, 1.2843 times the old one in the plane and "
            "0.7109 times across, no multiple of it.",
            rich_help_panel=flags.GRID,
        ),
    ] = None,
    size: flags.Size = None,
    like: flags.Like = None,
    transform: flags.Transform = None,
    interpolation: Annotated[
        list[str] | None,
        typer.Option(help=f"May be repeated; all unless given: {', '.join(INTERPOLATIONS)}.", rich_help_panel=_WHAT),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help=f"May be repeated; all unless given: {', '.join(FILTERS)}.", rich_help_panel=_WHAT
        ),
    ] = None,
    rounding: Annotated[
        str,
        typer.Option(
            help="Compare integers with SimpleITK's float64 result (nearest), or with its own integers (truncate).",
            rich_help_panel=_WHAT,
        ),
    ] = "nearest",
    voxels: Annotated[
        int,
        typer.Option(
            min=1, help="Compare a box of about so many voxels, if the image is larger.", rich_help_panel=_WHAT
        ),
    ] = VOXELS,
    whole: Annotated[
        bool, typer.Option("--whole", help="Compare all voxels, however long it takes.", rich_help_panel=_WHAT)
    ] = False,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            help="cpu, cuda, cuda:N; may be repeated; all that can be used unless given.", rich_help_panel=flags.RUN
        ),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="How often each library is timed.", rich_help_panel=flags.RUN)] = 3,
    threads: flags.Threads = None,
    series: flags.Series = None,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with plots and pictures.", rich_help_panel=_OUT),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.", rich_help_panel=_OUT)] = False,
) -> None:
    """Compare gpuresample with SimpleITK on your own image and machine: error and speed of everything.

    Exit code 1 says that a result is outside the numeric contract. If you give only --interpolation, no filters are
    compared; if you give only --filter, no interpolations.
    """
    _check_page(html)
    keywords: dict[str, Any] = {
        "spacing": options.one_or_all("--spacing", spacing),
        "size": options.numbers("--size", size, int),
        "interpolations": interpolation or ([] if filter_ else None),
        "filters": filter_ or ([] if interpolation else None),
        "engines": engine or None,
        "rounding": rounding,
        "voxels": voxels,
        "whole": whole,
        "runs": runs,
    }
    with console.Phases() as phases:
        with phases.phase("read", f"reading {source.name}"), console.native_stderr_hidden():
            keywords["like"] = None if like is None else grid_of_file(like)
            keywords["transform"] = None if transform is None else read_transform(transform)
            image = files.read(source, series)
        _check_image(source, image)
        with phases.phase("verify", "comparing"):
            found = gr.verify(image, **keywords, progress=phases.say)
        if html is not None:
            with phases.phase("write", f"writing {html.name}"):
                found.write(html)
    if as_json:
        typer.echo(json.dumps(found.as_dict(), indent=2))
    else:
        _print(found, source, html)
    if not found.ok:
        raise typer.Exit(1)


def _check_page(path: Path | None) -> None:
    """What is missing or in the way is better known now than after the work."""
    if path is None:
        return
    import jinja2  # noqa: F401
    import matplotlib  # noqa: F401

    if path.suffix.lower() not in _PAGES:
        raise ValueError(f"--html takes a name that ends in {' or '.join(_PAGES)}, got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise OSError(f"{path}: {'is a folder' if path.is_dir() else 'its folder is not there'}")


def _check_image(source: Path, image: SimpleITK.Image) -> None:
    try:
        unwrap(image)
    except (TypeError, ValueError) as error:
        raise OSError(f"{source}: cannot be resampled: {error}") from error


def _print(found: Verification, source: Path, html: Path | None) -> None:
    shown = console.out()
    table = Table(
        title=Text(f"{source} against SimpleITK"), title_justify="left", box=SIMPLE_HEAD, padding=(0, 0, 0, 1)
    )
    for k, heading in enumerate(HEADER):
        table.add_column(heading, justify="left" if k in (0, 1, 2, 6) else "right", no_wrap=True)
    for row in found.rows:
        cells = [Text(cell, _STYLES.get(cell, "")) for cell in row.cells()]
        table.add_row(*cells)
    shown.print(Text(found.about_image()))
    shown.print(Text(measure.about(found.machine)))
    shown.print(table)
    for remark in found.remarks():
        shown.print(Text(remark))
    shown.print(Text(found.verdict, "green" if found.ok else "bold red"))
    if html is not None:
        typer.echo(f"page: {html}")
