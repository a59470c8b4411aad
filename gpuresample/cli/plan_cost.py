"""`gpuresample plan-cost IN`: what a resampling costs before it runs."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

import gpuresample as gr
from gpuresample.bench import calibration
from gpuresample.cli import console, flags, options
from gpuresample.costs import rates
from gpuresample.costs.estimate import Cost
from gpuresample.files import job
from gpuresample.files import volumes as files
from gpuresample.memory import available_memory

_JOB, _MACHINE = "Job", "Machine"
# Smaller than its voxels by this much, and a file is taken to be compressed.
_COMPRESSED = 0.98


@dataclass(frozen=True)
class _Input:
    """A volume that there is, or that there might be."""

    name: str
    header: files.Header
    kind: str  # of `costs.FILES`
    file_bytes: int | None

    @property
    def channels(self) -> int:
        """Volumes that one call resamples."""
        return max(self.header.components, 1) * math.prod(self.header.size[3:])


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
    input_format: Annotated[
        str,
        typer.Option(help="Without IN: its file type, .nii.gz, .nii, ..., or none for no file.", rich_help_panel=_JOB),
    ] = ".nii.gz",
    output_format: Annotated[
        str | None,
        typer.Option(help="File type to write: .nii.gz, .nii, ..., or none; as IN unless given.", rich_help_panel=_JOB),
    ] = None,
    volumes: Annotated[int, typer.Option(min=1, help="How many volumes like this one.", rich_help_panel=_JOB)] = 1,
    storage: Annotated[
        float | None,
        typer.Option(
            metavar="MB/S",
            help="Speed of the storage; unless given, files are assumed to be in memory.",
            rich_help_panel=_MACHINE,
        ),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Measure this machine again, and store the rates.", rich_help_panel=_MACHINE),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Estimate the time and memory of `gpuresample resample`, which takes the same options. Nothing is resampled.

        gpuresample plan-cost ct.nii.gz --spacing 1 1 2

        gpuresample plan-cost --input-size 512 512 247 --input-spacing 0.8 0.8 1 --spacing 1 1 2 --volumes 1000

    Times are for this machine's CPU. It is measured on first use, after it has changed, and with --calibrate.
    """  # fmt: skip
    if device.startswith("cuda"):
        raise ValueError(f"--device must be auto or cpu: times are estimated for the CPU only; got {device}")
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, ignore=ignore, dtype=dtype, device=device, series=series,
    )  # fmt: skip
    if threads is not None:
        gr.set_num_threads(threads)
    if source is None and input_size is None and calibrate:
        _say_rates(_measured(True), as_json)
        return
    with console.Phases() as phases, phases.phase("read", "reading the header"), console.native_stderr_hidden():
        given = _input(source, input_size, input_spacing, input_type, input_format, series)
        written = _kind(output_format, "--output-format") if output_format is not None else given.kind
        plan = gr.plan(job.stand_in(Path(given.name), given.header), **settings.keywords())
    machine = _measured(calibrate)
    cost = plan.cost(
        channels=given.channels, volumes=volumes, read=given.kind, write=written, file_bytes=given.file_bytes,
        storage=None if storage is None else 1e6 * storage, machine=machine,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(_as_json(given, plan, cost, machine), indent=2))
        return
    table = Table(show_header=False, title=Text(_title(given, plan, volumes)), title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, text in _rows(cost, storage):
        table.add_row(name, Text(text))
    console.out().print(table)
    when = time.strftime("%Y-%m-%d", time.localtime(machine.measured))
    typer.echo(f"{machine.machine['processor']}, {machine.machine['threads']} threads, measured {when}: {rates.path()}")


# --- the job -------------------------------------------------------------------------------------------------------


def _input(
    source: Path | None, size: str | None, spacing: str | None, dtype: str, file_format: str, series: str | None
) -> _Input:
    if source is None:
        if size is None:
            raise ValueError("a file or --input-size says what is resampled; got neither")
        return _Input("volume", _imagined(size, spacing, dtype), _kind(file_format, "--input-format"), None)
    if size is not None or spacing is not None:
        raise ValueError(f"--input-size and --input-spacing are for jobs without a file; got {source} too")
    if source.is_dir():
        header = files.Header.of(files.read(source, series))
        file_bytes = sum(p.stat().st_size for p in source.iterdir() if p.is_file())
    else:
        header = files.header(source)
        file_bytes = source.stat().st_size
    compressed = source.suffix == ".gz" or file_bytes < _COMPRESSED * header.nbytes
    return _Input(str(source), header, "gzip" if compressed else "raw", max(1, file_bytes))


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


def _kind(ending: str, name: str) -> str:
    """What a file of this ending is, of `costs.FILES`."""
    if ending == "none":
        return "none"
    if ending not in files.WRITABLE:
        raise ValueError(f"{name} must be none or one of {', '.join(files.WRITABLE)}, got {ending!r}")
    return "gzip" if ending.endswith(".gz") else "raw"


# --- the machine ---------------------------------------------------------------------------------------------------


def _measured(again: bool) -> rates.Rates:
    """Rates of this machine, measured now where that is due."""
    stored = rates.load()
    why = "asked for" if again else "first use" if stored is None else stored.stale
    if stored is not None and not why:
        return stored
    with console.Phases() as phases, phases.phase("calibrate", f"measuring this machine ({why})"):
        found = calibration.calibrate(store=False)
    try:
        rates.save(found)
    except OSError as error:
        typer.echo(f"warning: rates cannot be stored, they are measured every time: {error}", err=True)
    return found


def _say_rates(machine: rates.Rates, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(_of_machine(machine), indent=2))
        return
    table = Table(title="Rates of this machine", title_justify="left")
    for heading in ("rate", "value", "what"):
        table.add_column(heading)
    for name, value in machine.values.items():
        table.add_row(name, f"{value:.3g}", Text(rates.NAMES[name]))
    console.out().print(table)
    typer.echo(f"stored: {rates.path()}")


# --- the answer ----------------------------------------------------------------------------------------------------


def _of_machine(machine: rates.Rates) -> dict[str, Any]:
    return {
        "machine": machine.machine, "measured": machine.measured, "rates": dict(machine.values),
        "rates_file": str(rates.path()),
    }  # fmt: skip


def _as_json(given: _Input, plan: gr.Plan, cost: Cost, machine: rates.Rates) -> dict[str, Any]:
    return {
        "input": {"name": given.name, "size": given.header.size, "dtype": given.header.dtype.name, "file": given.kind},
        "output": {"size": plan.target.size, "spacing": plan.target.spacing, "dtype": plan.dtype.name},
        **cost.as_dict(),
        **_of_machine(machine),
    }


def _title(given: _Input, plan: gr.Plan, volumes: int) -> str:
    before = f"{console.times(given.header.size)} at {console.times(given.header.spacing, 'mm')}, {plan.input_dtype}"
    after = f"{console.times(plan.target.size)} at {console.times(plan.target.spacing, 'mm')}, {plan.dtype}"
    return f"{given.name}: {before} -> {after}" + (f"; {volumes:,} volumes" if volumes > 1 else "")


def _rows(cost: Cost, storage: float | None) -> list[tuple[str, str]]:
    n = cost.volumes
    each = f" ({console.megabytes(cost.input_bytes // n)} each)" if n > 1 else ""
    taps = ", ".join(f"{t:.3g} along {axis}" for axis, t in zip("zyx", cost.taps[:3], strict=True) if t)
    around = [f"{cost.taps[3]:.0f} voxels around each"] if len(cost.taps) > 3 else []
    scratch = f"{cost.threads} x {console.megabytes(cost.scratch_bytes)}"
    one_input = cost.input_bytes // n
    free = available_memory()
    fits = "" if one_input + cost.peak_bytes <= free else f"; does not fit: {console.megabytes(free)} are free"
    assert cost.seconds is not None
    assert cost.total_seconds is not None
    steps = ", ".join(f"{step} {_time(value)}" for step, value in cost.seconds.items() if value)
    per = f", {_time(cost.total_seconds / n)} each" if n > 1 else ""
    where = "the page cache, and memory that is new" if storage is None else f"storage of {storage:g} MB/s"
    assert cost.cold_read is not None
    disk = f"; read in {_time(cost.cold_read)} from this machine's disk" if storage is None and cost.cold_read else ""
    return [
        ("taps", "; ".join(part for part in [taps, *around] if part) or "copies"),
        ("passes", ", ".join(cost.order)),
        ("multiply-adds", f"{cost.multiply_adds:,}"),
        ("input, output", f"{console.megabytes(cost.input_bytes)}, {console.megabytes(cost.output_bytes)}{each}"),
        ("must move", console.megabytes(cost.moved_bytes)),
        ("peak memory", f"{console.megabytes(cost.peak_bytes)} beyond the input (scratch {scratch} of it){fits}"),
        ("time", f"{_time(cost.total_seconds)}{per}: {steps}"),
        ("files", f"from and to {where}{disk}; kernels compiled already"),
    ]


def _time(value: float) -> str:
    if value < 120:
        return console.seconds(value)
    return f"{value / 60:.3g} min" if value < 7200 else f"{value / 3600:.3g} h"
