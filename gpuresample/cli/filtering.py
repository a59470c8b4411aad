"""What commands share that make one volume of another: read, work, write, report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpuresample as gr
from gpuresample.cli import console
from gpuresample.files import volumes as files


def run(
    function: Callable[..., Any],
    name: str,
    doing: str,
    source: Path,
    target: Path,
    keywords: dict[str, Any],
    threads: int | None,
    series: str | None,
    overwrite: bool,
    check: Callable[[Any], Any] | None = None,
    level: int | None = None,
) -> None:
    """`target` is `function` of `source`; arguments are refused before voxels are read.

    Parameters
    ----------
    function : callable
        Takes an image and `keywords`.
    name, doing : str
        Of the work, in the report and on the display.
    source, target : Path
        Where from and where to.
    keywords : dict
        Of `function`.
    threads : int or None
        That compute and pack.
    series : str or None
        Which series of a DICOM folder.
    overwrite : bool
        Whether `target` may be replaced.
    check : callable, optional
        Refuses arguments by trying them on the stand-in that `read` hands it, where `function` would take offence at
        its size; `function` itself unless given.
    level : int, optional
        How hard to pack.
    """
    files.check_output(target, overwrite)
    files.check_level(target, level, "--level")
    if threads is not None:
        gr.set_num_threads(threads)
    with console.Phases() as phases:
        image, header = read(phases, source, series, check or (lambda probe: function(probe, **keywords)))
        if keywords.get("dtype") is not None and np.dtype(keywords["dtype"]) == np.float16:
            raise ValueError("--dtype float16: files have no such voxels; take float32")
        with phases.phase(name, f"{doing} {console.times(header.size)}"):
            result = function(image, **keywords)
        files.keep_notes(image, result)
        del image
        with phases.phase("write", f"writing {target.name}"), console.native_stderr_hidden():
            files.write(result, target, overwrite, level, phases.part)
    typer.echo(f"{source}: {geometry(header)}")
    typer.echo(f"{target}: {geometry(files.Header.of(result))}; {spent(phases)}")


def read(
    phases: console.Phases, source: Path, series: str | None, check: Callable[[Any], Any]
) -> tuple[Any, files.Header]:
    """A volume and its header; `check` is called before, with a stand-in of the same axes that has few voxels.

    Raises
    ------
    OSError, ValueError, TypeError
        As `files.read` and `check`; OSError for voxels and dimensions that the package does not take.
    """
    with phases.phase("read", f"reading {source.name}"), console.native_stderr_hidden():
        # A folder has no header of its own.
        image = files.read(source, series) if source.is_dir() else None
        header = files.header(source) if image is None else files.Header.of(image)
        check(_stand_in(source, header))
        return (files.read(source, series, phases.part) if image is None else image), header


def _stand_in(path: Path, header: files.Header) -> Any:
    """An image of the file's type and axes, at most 4 voxels long: what is refused of it is of the file, too."""
    import SimpleITK as sitk

    if header.dimension > 4 or header.dtype.kind == "c":
        raise OSError(f"{path}: cannot be filtered: {header.dimension}-D, {header.pixel_type}")
    d = min(header.dimension, 3)
    shape = tuple(min(n, 4) for n in header.size[::-1])
    array = np.zeros(shape + ((header.components,) if header.components else ()), header.dtype)
    image = sitk.GetImageFromArray(array, isVector=header.components > 0)
    spacing = list(image.GetSpacing())
    spacing[:d] = header.spacing[:d]
    if not (min(spacing) > 0 and np.isfinite(spacing).all()):
        raise OSError(f"{path}: cannot be filtered: its spacing is {console.times(header.spacing)}")
    image.SetSpacing(spacing)
    return image


def geometry(header: files.Header) -> str:
    """Size, spacing and voxel type, in words."""
    return f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {header.pixel_type}"


def spent(phases: console.Phases) -> str:
    """How long it took, in all and of each phase."""
    each = ", ".join(f"{name} {console.seconds(value)}" for name, value in phases.seconds.items())
    return f"{console.seconds(phases.total)} ({each})"
