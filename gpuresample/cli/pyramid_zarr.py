"""`gpuresample pyramid IN OUT.ome.zarr`: the levels in one OME-Zarr image."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import typer

import gpuresample as gr
from gpuresample.cli import console, filtering
from gpuresample.omezarr import ngff, volumes, writer

ENDING = writer.ENDING


def write(source: Path, target: Path, keywords: dict[str, Any], series: str | None, overwrite: bool) -> None:
    """The levels of a file, a DICOM folder, a zarr array or an OME-Zarr image."""
    writer.check_target(target, overwrite)
    with console.Phases() as phases:
        image: Any = source
        if series is not None and volumes.is_zarr(source):
            raise ValueError(f"--series is for folders of DICOM files, and {source} is zarr; got {series!r}")
        if not volumes.is_zarr(source):
            if keywords["input_spacing"] is not None:
                given = keywords["input_spacing"]
                raise ValueError(f"--input-spacing is for zarr arrays; {source} has its own, got {given!r}")
            with console.native_stderr_hidden():
                in_parts = series is None and volumes.in_parts(source) is not None
            image = source if in_parts else _read(phases, source, keywords, series)
        with phases.phase("levels", "laying out the levels"):
            made = writer.write_pyramid(
                image,
                target,
                **keywords,
                overwrite=overwrite,
                progress=lambda level, levels, done, units: phases.say(
                    f"level {level + 1} of {levels}, {done} of {units} units", done, units
                ),
            )
    for number, level in enumerate(made):
        size, spacing = console.times(level.size), console.times(level.grid.spacing, "mm")
        typer.echo(f"{target}/{number}: {size} at {spacing}, {level.array.dtype}, origin {_listed(level.grid.origin)}")
    d = made[0].grid.dimension
    if made[0].grid.direction != tuple(np.eye(d).ravel()):
        typer.echo(f"{target}: NGFF 0.5 has no directions; they are in the attribute {ngff.OWN!r}")
    typer.echo(f"{target}: {len(made)} levels; {filtering.spent(phases)}")


def _read(phases: console.Phases, source: Path, keywords: dict[str, Any], series: str | None) -> Any:
    """A file's image; arguments are refused before voxels are read."""
    names = ("levels", "factors", "schedule", "kind", "sigma", "rounding", "device")
    asked = {name: keywords[name] for name in names}
    volumes.check_fits(source)
    image, _ = filtering.read(phases, source, series, lambda probe: quietly(probe, asked))
    return image


def quietly(probe: Any, keywords: dict[str, Any]) -> None:
    """Try the arguments of `gr.pyramid`; that the small stand-in is soon used up says nothing of the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        gr.pyramid(probe, **keywords)


def _listed(values: tuple[float, ...]) -> str:
    return ", ".join(f"{v:.6g}" for v in values)
