"""What commands share that make one volume of another: read, work, write, report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import typer

from gpuresample.cli import console
from gpuresample.files import job
from gpuresample.files import volumes as files

if TYPE_CHECKING:
    import SimpleITK


def run(
    function: Callable[..., Any],
    name: str,
    doing: str,
    source: Path,
    target: Path,
    keywords: dict[str, Any],
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
    report(source, header, target, files.Header.of(result), phases)


def stages(phases: console.Phases, source: Path, target: Path, doing: Callable[[files.Header], str]) -> job.Stage:
    """The stages of `job.run`, each a phase; what the work itself is called, `doing` says."""

    @contextlib.contextmanager
    def stage(name: str, header: files.Header | None) -> Iterator[files.Progress]:
        if name == "resample":
            assert header is not None
            with phases.phase(name, doing(header)):
                yield phases.part
            return
        text = f"reading {source.name}" if name == "read" else f"writing {target.name}"
        with phases.phase(name, text), console.native_stderr_hidden():
            yield phases.part

    return stage


def report(source: Path, old: files.Header, target: Path, new: files.Header, phases: console.Phases) -> None:
    """Both volumes, and how long it took."""
    typer.echo(f"{source}: {geometry(old)}")
    typer.echo(f"{target}: {geometry(new)}; {spent(phases)}")


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


def scalar_volume(image: SimpleITK.Image) -> SimpleITK.Image:
    """The first volume of a time series, the first component of vectors."""
    import SimpleITK as sitk

    if image.GetDimension() == 4:
        image = image[..., 0]
    return sitk.VectorIndexSelectionCast(image, 0) if "vector" in image.GetPixelIDTypeAsString() else image


def geometry(header: files.Header) -> str:
    """Size, spacing and voxel type, in words."""
    return f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {header.pixel_type}"


def spent(phases: console.Phases) -> str:
    """How long it took, in all and of each phase."""
    each = ", ".join(f"{name} {console.seconds(value)}" for name, value in phases.seconds.items())
    return f"{console.seconds(phases.total)} ({each})"
