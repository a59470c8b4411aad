"""`gpuresample plan-cost IN`: what a resampling costs before it runs."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

import gpuresample as gr
from gpuresample.cli import console, flags, options
from gpuresample.engines.cpu.costs import Cost
from gpuresample.files import job
from gpuresample.files import volumes as files
from gpuresample.memory import available_memory

_JOB = "Job"


def plan_cost(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[IN]", help="A file, or a folder with a DICOM series. Without it, give --input-size."),
    ] = None,
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
    series: flags.Series = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="X Y Z", help="Without IN: its size in voxels.", rich_help_panel=_JOB)
    ] = None,
    input_spacing: Annotated[
        str | None, typer.Option(metavar="X Y Z", help="Without IN: its spacing; 1 unless given.", rich_help_panel=_JOB)
    ] = None,
    input_type: Annotated[
        str, typer.Option("--type", help="Without IN: its voxel type.", rich_help_panel=_JOB)
    ] = "int16",
    volumes: Annotated[int, typer.Option(min=1, help="How many volumes like this one.", rich_help_panel=_JOB)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Count the work and memory of `gpuresample resample`, which takes the same options. Nothing is resampled.

        gpuresample plan-cost ct.nii.gz --spacing 1 1 2

        gpuresample plan-cost --input-size 512 512 247 --input-spacing 0.8 0.8 1 --spacing 1 1 2 --volumes 1000

    Memory is the CPU engine's. What a job takes in time, one volume tells.
    """  # fmt: skip
    if device.startswith("cuda"):
        raise ValueError(f"--device must be auto or cpu: memory is counted for the CPU only; got {device}")
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, ignore=ignore, dtype=dtype, device=device, series=series,
    )  # fmt: skip
    with console.Phases() as phases, phases.phase("read", "reading the header"), console.native_stderr_hidden():
        header = _header(source, input_size, input_spacing, input_type, series)
        name = "volume" if source is None else str(source)
        plan = gr.plan(job.stand_in(Path(name), header), **settings.keywords())
    cost = plan.cost(channels=max(header.components, 1) * math.prod(header.size[3:]), volumes=volumes)
    if as_json:
        typer.echo(json.dumps(_as_json(name, header, plan, cost), indent=2))
        return
    table = Table(show_header=False, title=Text(_title(name, header, plan, volumes)), title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for heading, text in _rows(cost):
        table.add_row(heading, Text(text))
    console.out().print(table)


# --- the job -------------------------------------------------------------------------------------------------------


def _header(source: Path | None, size: str | None, spacing: str | None, dtype: str, series: str | None) -> files.Header:
    """The header of a volume that there is, or that there might be."""
    if source is None:
        if size is None:
            raise ValueError("a file or --input-size says what is resampled; got neither")
        return _imagined(size, spacing, dtype)
    if size is not None or spacing is not None:
        raise ValueError(f"--input-size and --input-spacing are for jobs without a file; got {source} too")
    return files.Header.of(files.read(source, series)) if source.is_dir() else files.header(source)


def _imagined(size_text: str, spacing_text: str | None, dtype: str) -> files.Header:
    """The header of a volume that is not there."""
    size = options.numbers("--input-size", size_text, int)
    spacing = options.one_or_all("--input-spacing", spacing_text)
    assert size is not None
    d = len(size)
    if min(size) < 1 or d not in (2, 3):
        raise ValueError(f"--input-size takes 2 or 3 whole numbers of at least 1, got {size_text!r}")
    steps = [1.0] * d if spacing is None else [spacing] * d if isinstance(spacing, float) else spacing
    if len(steps) != d or not all(math.isfinite(s) and s > 0 for s in steps):
        raise ValueError(f"--input-spacing takes {d} numbers above zero, got {spacing_text!r}")
    try:
        kind = np.dtype(dtype)
    except TypeError:
        raise ValueError(f"--type must be a voxel type such as int16, uint8 or float32, got {dtype!r}") from None
    direction = tuple(np.eye(d).ravel().tolist())
    return files.Header("", kind.name, kind, 0, tuple(size), tuple(steps), (0.0,) * d, direction)


# --- the answer ----------------------------------------------------------------------------------------------------


def _as_json(name: str, header: files.Header, plan: gr.Plan, cost: Cost) -> dict[str, Any]:
    return {
        "input": {"name": name, "size": header.size, "dtype": header.dtype.name},
        "output": {"size": plan.target.size, "spacing": plan.target.spacing, "dtype": plan.dtype.name},
        **asdict(cost),
    }


def _title(name: str, header: files.Header, plan: gr.Plan, volumes: int) -> str:
    before = f"{console.times(header.size)} at {console.times(header.spacing, 'mm')}, {plan.input_dtype}"
    after = f"{console.times(plan.target.size)} at {console.times(plan.target.spacing, 'mm')}, {plan.dtype}"
    return f"{name}: {before} -> {after}" + (f"; {volumes:,} volumes" if volumes > 1 else "")


def _rows(cost: Cost) -> list[tuple[str, str]]:
    n = cost.volumes
    each = f" ({console.megabytes(cost.input_bytes // n)} each)" if n > 1 else ""
    taps = ", ".join(f"{t:.3g} along {axis}" for axis, t in zip("zyx", cost.taps[:3], strict=True) if t)
    around = [f"{cost.taps[3]:.0f} voxels around each"] if len(cost.taps) > 3 else []
    scratch = f"{cost.threads} x {console.megabytes(cost.scratch_bytes)}"
    one_input = cost.input_bytes // n
    free = available_memory()
    fits = "" if one_input + cost.peak_bytes <= free else f"; does not fit: {console.megabytes(free)} are free"
    return [
        ("taps", "; ".join(part for part in [taps, *around] if part) or "copies"),
        ("passes", ", ".join(cost.order)),
        ("multiply-adds", f"{cost.multiply_adds:,}"),
        ("input, output", f"{console.megabytes(cost.input_bytes)}, {console.megabytes(cost.output_bytes)}{each}"),
        ("must move", console.megabytes(cost.moved_bytes)),
        ("peak memory", f"{console.megabytes(cost.peak_bytes)} beyond the input (scratch {scratch} of it){fits}"),
    ]
