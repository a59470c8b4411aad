"""`gpuresample resample IN OUT`: one volume onto another grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

import gpuresample as gr
from gpuresample import files
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
    files.check_output(target, overwrite)
    keywords: dict[str, Any] = {
        "spacing": options.one_or_all("--spacing", spacing),
        "size": options.numbers("--size", size, int),
        "interpolation": interpolation,
        "anchor": anchor,
        "boundary": boundary,
        "antialias": _antialias(antialias),
        "default_value": options.number("--default-value", default_value),
        "rounding": rounding,
        "convention": convention,
        "dtype": dtype,
        "device": device,
    }
    with console.Phases() as phases:
        with phases.phase("read", f"reading {source.name}"), console.native_stderr_hidden():
            keywords["like"] = None if like is None else grid_of_file(like)
            keywords["transform"] = None if transform is None else read_transform(transform)
            # A folder has no header of its own. Of a file, arguments are refused before its voxels are read.
            image = files.read(source, series) if source.is_dir() else None
            header = files.header(source) if image is None else files.Header.of(image)
            plan = gr.plan(_stand_in(source, header), **keywords)
            if plan.dtype == np.float16:
                raise ValueError("--dtype float16: files have no such voxels; take float32")
            if image is None:
                image = files.read(source, series)
        if threads is not None:
            gr.set_num_threads(threads)
        with phases.phase("resample", f"resampling {console.times(header.size)}"):
            result = gr.resample(image, **keywords)
        del image
        with phases.phase("write", f"writing {target.name}"), console.native_stderr_hidden():
            files.write(result, target, overwrite)
    _report(source, header, target, files.Header.of(result), phases)


def _antialias(text: str | None) -> bool | float | list[float]:
    if text is None or not text.strip():
        return text is not None
    sigma = options.one_or_all("--antialias", text)
    assert sigma is not None
    return sigma


def grid_of_file(path: Path) -> gr.Grid:
    """The grid of a volume; of a series, its files are read to know it."""
    header = files.Header.of(files.read(path)) if path.is_dir() else files.header(path)
    d = min(header.dimension, 3)
    direction = np.reshape(header.direction, (header.dimension,) * 2)[:d, :d]
    return gr.Grid(header.size[:d], header.spacing[:d], header.origin[:d], tuple(direction.ravel().tolist()))


def read_transform(path: Path) -> Any:
    """The transform in a file, as the class that it is of."""
    import SimpleITK as sitk

    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        # The call answers with the general class; the one in the file knows what it is.
        return sitk.ReadTransform(str(path)).Downcast()
    except RuntimeError as error:
        raise OSError(f"{path}: is no transform that SimpleITK reads") from error


def _stand_in(path: Path, header: files.Header) -> gr.Volume:
    """A volume of the file's type and geometry whose memory is never touched, to check arguments on."""
    d = min(header.dimension, 3)
    direction = np.reshape(header.direction, (header.dimension,) * 2)[:d, :d]
    shape = ((header.components,) if header.components else ()) + header.size[::-1]
    try:
        if header.dimension > 4:
            raise ValueError(f"image must have 2, 3 or 4 dimensions, got {header.dimension}")
        return gr.Volume(
            np.empty(shape, header.dtype), header.spacing[:d], header.origin[:d], direction.ravel().tolist()
        )
    except (TypeError, ValueError) as error:
        raise OSError(f"{path}: cannot be resampled: {error}") from error


def _report(source: Path, old: files.Header, target: Path, new: files.Header, phases: console.Phases) -> None:
    spent = ", ".join(f"{name} {console.seconds(value)}" for name, value in phases.seconds.items())
    typer.echo(f"{source}: {_geometry(old)}")
    typer.echo(f"{target}: {_geometry(new)}; {console.seconds(phases.total)} ({spent})")


def _geometry(header: files.Header) -> str:
    return f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {header.pixel_type}"
