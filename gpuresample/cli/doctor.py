"""`gpuresample doctor`: what this machine can do, and the fix for what it cannot."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from gpuresample.cli import console

_STYLES = {"ok": "green", "missing": "yellow", "broken": "bold red"}


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Check Python, caches, driver, CuPy and GPUs, and try each engine. Exit code 1 if something is broken."""
    import gpuresample as gr

    with console.Phases() as phases, phases.phase("doctor", "trying what there is"):
        report = gr.doctor()
    if as_json:
        typer.echo(json.dumps(report.as_dict(), indent=2))
    else:
        table = Table(title="gpuresample doctor", title_justify="left")
        for heading in ("what", "state", "found", "fix"):
            table.add_column(heading, overflow="fold")
        for f in report.findings:
            table.add_row(Text(f.name), Text(f.state, _STYLES[f.state]), Text(f.text), Text(f.fix))
        console.out().print(table)
        typer.echo(
            ("The CPU engine works" if report.healthy else "Something is broken")
            + (", and so does CUDA." if report.cuda else "; there is no CUDA engine here.")
        )
    if not report.healthy:
        raise typer.Exit(1)
