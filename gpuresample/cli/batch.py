"""`gpuresample batch IN_DIR OUT_DIR`: the volumes of a folder, on all GPUs and cores."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gpuresample import texts
from gpuresample.cli import console, flags, options

if TYPE_CHECKING:
    from gpuresample.distributed import Outcome, Progress

_WHICH = "Which volumes"
_SHOWN = 10  # failures on the screen; the report has all


def batch(
    source: Annotated[Path, typer.Argument(metavar="IN_DIR", help="Folder of volumes; folders in it are searched.")],
    target: Annotated[Path, typer.Argument(metavar="OUT_DIR", help="Where results go, in the same folders.")],
    pattern: Annotated[
        str | None,
        typer.Option(
            "--glob",
            metavar="PATTERN",
            help="Only files of this pattern, such as '*_ct.nii.gz'.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    listing: Annotated[
        Path | None,
        typer.Option("--list", metavar="FILE", help="A text file with one path on each line.", rich_help_panel=_WHICH),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            "--csv",
            metavar="FILE",
            help="A CSV with columns input, output and names of options that differ from volume to volume.",
            rich_help_panel=_WHICH,
        ),
    ] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", metavar="EXT", help="File type of results, such as .nrrd; the input's unless given."),
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
    level: flags.Level = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes; one per GPU, or per 4 cores, unless given.", rich_help_panel=flags.RUN),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A Dask cluster's, such as tls://host:8786; tcp:// trusts everybody who reaches it.",
            rich_help_panel=flags.RUN,
        ),
    ] = None,
    tls_ca: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of a tls:// cluster: its authority.", rich_help_panel=flags.RUN)
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Your certificate for it.", rich_help_panel=flags.RUN)
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The certificate's key.", rich_help_panel=flags.RUN)
    ] = None,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            help="Serve Dask's dashboard, which has no password, to users of this machine.",
            rich_help_panel=flags.RUN,
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace files that this batch did not write.", rich_help_panel=flags.RUN),
    ] = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify", help="Read finished results again, and compare their content.", rich_help_panel=flags.RUN
        ),
    ] = False,
) -> None:
    """Resample the volumes of a folder into another folder.

        gpuresample batch scans thin --spacing 1 1 2

    Start the same command again to continue a run that was stopped or killed: it also retries what failed, and does
    what is new. report.html and report.csv in OUT_DIR tell what became of each volume. Ctrl-C lets the volumes that are
    being done finish; a second Ctrl-C ends them. Exit code 1 says that a volume failed.
    """
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, ignore=ignore, dtype=dtype, device=device,
    )  # fmt: skip
    tls = [path for path in (tls_ca, tls_cert, tls_key) if path is not None]
    if len(tls) not in (0, 3):
        raise ValueError("--tls-ca, --tls-cert and --tls-key go together: give all three or none")
    from gpuresample.batch.batches import batch as run

    with _Display() as display:
        outcome = run(
            source, target, pattern=pattern, listing=listing, table=table, file_format=file_format,
            scheduler=scheduler, tls=tls or None, workers=workers, dashboard=dashboard, overwrite=overwrite,
            verify=verify, level=level, progress=display.show, **vars(settings),
        )  # fmt: skip
    _report(outcome)
    if outcome.interrupted:
        raise typer.Exit(130)
    if not outcome.complete or outcome.stopped:
        raise typer.Exit(1)


class _Display:
    """Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    _EVERY = 30.0  # seconds between lines

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._start = time.monotonic()
        self._line = self._start
        self._said: set[str] = set()

    def __enter__(self) -> _Display:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False), TimeRemainingColumn(), console=Console(stderr=True),
                transient=True,
            )  # fmt: skip
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, now: Progress) -> None:
        """What `batch` tells. A terminal that was closed is no reason to stop."""
        with contextlib.suppress(OSError):
            self._show(now)

    def _show(self, now: Progress) -> None:
        who = now.workers + (f"; dashboard {now.dashboard}" if now.dashboard else "")
        for text in (who, now.note):
            if text and text not in self._said:
                self._said.add(text)
                self._say(text)
        made, rate, left = self._speed(now)
        failed = f", {now.failed} failed" if now.failed else ""
        if self._bar is None:
            if time.monotonic() - self._line > self._EVERY:
                self._line = time.monotonic()
                self._say(f"{made} of {now.total}{failed}{rate}{left}")
            return
        if self._task is None and now.workers:
            self._start = time.monotonic()
            self._task = self._bar.add_task("volumes", total=now.total, completed=made, rate="")
        if self._task is not None:
            self._bar.update(self._task, completed=made, rate=f"{rate.lstrip(', ')}{failed}")

    def _speed(self, now: Progress) -> tuple[int, str, str]:
        """Volumes accounted for, their rate and the time left, which goes by the bytes of the input files."""
        spent = time.monotonic() - self._start
        fresh = now.done + now.failed
        made = fresh + now.as_before
        if not fresh or not now.bytes_done:
            return made, "", ""
        seconds = spent * (now.bytes_total - now.bytes_done) / now.bytes_done
        minutes = f"{int(seconds) // 60}:{int(seconds) % 60:02} left"
        return made, f", {fresh / spent:.3g} volumes/s, {now.bytes_done / 1e6 / spent:.3g} MB/s", f", {minutes}"

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            typer.echo(text, err=True)


def _report(outcome: Outcome) -> None:
    failed = [r for r in outcome.records if r["kind"] == "failed"]
    for note in outcome.notes:
        typer.echo(f"note: {note}", err=True)
    for record in failed[:_SHOWN]:
        reason = record["reason"]
        name = "" if reason.startswith(record["source"]) else f"{record['source']}: "
        typer.echo(texts.printable(f"failed: {name}{reason}"), err=True)
    if len(failed) > _SHOWN:
        typer.echo(f"failed: {len(failed) - _SHOWN} more, in {outcome.csv}", err=True)
    if outcome.stopped:
        typer.echo(f"stopped: {outcome.stopped}; the same command continues", err=True)
    counts = [(outcome.count(kind), kind) for kind in ("done", "as before", "failed", "not done")]
    text = ", ".join(f"{n} {kind}" for n, kind in counts if n)
    typer.echo(f"{len(outcome.records)} volumes: {text}; {console.seconds(outcome.seconds)}")
    typer.echo(f"report: {outcome.html}")
