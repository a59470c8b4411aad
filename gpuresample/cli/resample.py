"""`gpuresample resample IN OUT`: one volume onto another grid."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import typer

import gpuresample as gr
from gpuresample.cli import console, flags, options
from gpuresample.files import job
from gpuresample.files import volumes as files


def resample(
    source: flags.Source,
    target: flags.Target,
    spacing: flags.Spacing = None,
    size: flags.Size = None,
    like: flags.Like = None,
    anchor: flags.Anchor = "first",
    transform: flags.Transform = None,
    interpolation: flags.Interpolation = "bspline",
    boundary: flags.Boundary = None,
    antialias: flags.Antialias = None,
    default_value: flags.DefaultValue = "0",
    rounding: flags.Rounding = "nearest",
    convention: flags.Convention = None,
    clip: flags.Clip = None,
    ignore: flags.Ignore = None,
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Resample a volume onto another grid.

    --spacing, --size, --like or --transform says which grid:

        gpuresample resample ct.nii.gz thin.nii.gz --spacing 1 1 2

        gpuresample resample labels.nii.gz labels-on-ct.nii.gz --like ct.nii.gz --interpolation nearest
    """
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, ignore=ignore, dtype=dtype, device=device, series=series,
    )  # fmt: skip
    if threads is not None:
        gr.set_num_threads(threads)
    files.check_level(target, level, "--level")
    with console.Phases() as phases:

        @contextlib.contextmanager
        def stage(name: str, header: files.Header | None) -> Iterator[files.Progress]:
            doing = {"read": f"reading {source.name}", "write": f"writing {target.name}"}
            hidden = contextlib.nullcontext() if name == "resample" else console.native_stderr_hidden()
            size = "" if header is None else console.times(header.size)
            with phases.phase(name, doing.get(name, f"resampling {size}")), hidden:
                yield phases.part

        old, new = job.run(source, target, settings, overwrite, stage, level=level)
    _report(source, old, target, new, phases)


def _report(source: Path, old: files.Header, target: Path, new: files.Header, phases: console.Phases) -> None:
    spent = ", ".join(f"{name} {console.seconds(value)}" for name, value in phases.seconds.items())
    typer.echo(f"{source}: {_geometry(old)}")
    typer.echo(f"{target}: {_geometry(new)}; {console.seconds(phases.total)} ({spent})")


def _geometry(header: files.Header) -> str:
    return f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {header.pixel_type}"
