"""`gpuresample bench [IMAGE]`: how fast, against the libraries that are installed, on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from gpuresample.bench import listing, records, runs, tables
from gpuresample.cli import console

NAMES = ("quick", "full", "tiny")


def bench(
    image: Annotated[
        Path | None, typer.Argument(metavar="[IMAGE]", help="Your own volume; the named cases unless given.")
    ] = None,
    profile: Annotated[
        str, typer.Option(help="quick: about 4 minutes; full: the whole jobs; tiny: only tries whether it works.")
    ] = "quick",
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder in which a folder named after machine and date is made.")
    ] = Path("benchmark-results"),
    case: Annotated[
        list[str] | None, typer.Option(help="Only this case, or threads, sizes or start-up; may be repeated.")
    ] = None,
    go_on: Annotated[
        bool, typer.Option("--continue", help="Continue the latest run in DIR that was stopped or killed.")
    ] = False,
) -> None:
    """Time gpuresample and the other libraries that are installed on the same jobs, each by its own rules.

    Every answer is checked before it is timed. A wrong answer is listed as wrong, however fast it was. The command
    writes benchmark.json (in the form of pytest-benchmark), tables.md and report.html. If a run is stopped, what it has
    measured is kept. Exit code 1 says that an answer of gpuresample was wrong.
    """
    if profile not in NAMES:
        raise ValueError(f"--profile takes {', '.join(NAMES)}, got {profile!r}")
    if image is not None and not image.exists():
        raise FileNotFoundError(f"{image}: there is no such file")
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"--out {out}: it is a file")
    try:
        folder = runs.run(profile, out, image, case or (), go_on=go_on)
    except KeyboardInterrupt as stop:
        typer.echo(f"error: {stop}", err=True)
        raise typer.Exit(130) from None
    run = records.read(folder / "benchmark.json")
    for table in listing.tables(run):
        tables.table(table.title, table.header, table.rows, table.note)
    shown = console.out()
    shown.print(Text(listing.about(run)))
    wrong = listing.wrong(run)
    for name in wrong:
        shown.print(Text(f"wrong answer: {name}", "bold red"))
    typer.echo(f"written: {folder}")
    if wrong:
        raise typer.Exit(1)
