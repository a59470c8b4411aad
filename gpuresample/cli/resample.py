"""`gpuresample resample IN OUT`: one volume onto another grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

import gpuresample as gr
from gpuresample import files, jobs
from gpuresample.cli import console, options
from gpuresample.conventions import NAMES

_GRID, _VALUES, _RUN = "Grid", "Values", "Running"


def resample(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder with a DICOM series.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=f"Where to write: {', '.join(files.WRITABLE)}.")],
    spacing: Annotated[
        str | None,
        typer.Option(metavar="X Y Z", help="New spacing, or one number for all axes.", rich_help_panel=_GRID),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="X Y Z", help="New size in voxels.", rich_help_panel=_GRID)
    ] = None,
    like: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Take the grid of this volume.", rich_help_panel=_GRID)
    ] = None,
    anchor: Annotated[
        str, typer.Option(help="What stays aligned: first, edge or center.", rich_help_panel=_GRID)
    ] = "first",
    transform: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A transform SimpleITK reads, from output to input points.", rich_help_panel=_GRID
        ),
    ] = None,
    interpolation: Annotated[
        str,
        typer.Option(
            help="nearest, linear, bspline, bspline1 to bspline5, gaussian, hamming, cosine, welch, lanczos, "
            "blackman, label_gaussian, label_linear.",
            rich_help_panel=_VALUES,
        ),
    ] = "bspline",
    boundary: Annotated[
        str | None,
        typer.Option(
            help="nearest, reflect, mirror, constant; SimpleITK's rule unless given.", rich_help_panel=_VALUES
        ),
    ] = None,
    antialias: Annotated[
        str | None,
        typer.Option(
            metavar="[SIGMA ...]",
            help="Blur axes that shrink; with numbers, by these sigmas in input voxels.",
            rich_help_panel=_VALUES,
        ),
    ] = None,
    default_value: Annotated[
        str, typer.Option(metavar="NUMBER", help="Value outside the input.", rich_help_panel=_VALUES)
    ] = "0",
    rounding: Annotated[
        str, typer.Option(help="Of integers: nearest, or truncate as SimpleITK does.", rich_help_panel=_VALUES)
    ] = "nearest",
    convention: Annotated[
        str | None,
        typer.Option(
            help=f"Follow another library: {', '.join(NAMES)}. Sets anchor, boundary, antialias and rounding.",
            rich_help_panel=_VALUES,
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Voxel type of the output, such as float32.", rich_help_panel=_VALUES)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.", rich_help_panel=_RUN)] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU engine.", rich_help_panel=_RUN)] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.", rich_help_panel=_RUN)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.", rich_help_panel=_RUN)
    ] = False,
) -> None:
    """Resample a volume onto another grid.

    One of --spacing, --size, --like or --transform says which:

        gpuresample resample ct.nii.gz thin.nii.gz --spacing 1 1 2

        gpuresample resample labels.nii.gz labels-on-ct.nii.gz --like ct.nii.gz --interpolation nearest
    """
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        dtype=dtype, device=device, series=series,
    )  # fmt: skip
    if threads is not None:
        gr.set_num_threads(threads)
    with console.Phases() as phases:

        @contextlib.contextmanager
        def stage(name: str, header: files.Header | None) -> Iterator[None]:
            doing = {"read": f"reading {source.name}", "write": f"writing {target.name}"}
            hidden = contextlib.nullcontext() if name == "resample" else console.native_stderr_hidden()
            size = "" if header is None else console.times(header.size)
            with phases.phase(name, doing.get(name, f"resampling {size}")), hidden:
                yield

        old, new = jobs.run(source, target, settings, overwrite, stage)
    _report(source, old, target, new, phases)


def _report(source: Path, old: files.Header, target: Path, new: files.Header, phases: console.Phases) -> None:
    spent = ", ".join(f"{name} {console.seconds(value)}" for name, value in phases.seconds.items())
    typer.echo(f"{source}: {_geometry(old)}")
    typer.echo(f"{target}: {_geometry(new)}; {console.seconds(phases.total)} ({spent})")


def _geometry(header: files.Header) -> str:
    return f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {header.pixel_type}"
