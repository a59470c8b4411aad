"""The commands, put together."""

from __future__ import annotations

from typing import Annotated

import typer

from gpuresample import __version__
from gpuresample.cli.apply import apply
from gpuresample.cli.batch import batch
from gpuresample.cli.bench import bench
from gpuresample.cli.blur import blur
from gpuresample.cli.conform import conform
from gpuresample.cli.demo import demo
from gpuresample.cli.doctor import doctor
from gpuresample.cli.downsample import downsample
from gpuresample.cli.ensemble import ensemble
from gpuresample.cli.info import info
from gpuresample.cli.options import SeveralNumbers
from gpuresample.cli.plan_cost import plan_cost
from gpuresample.cli.pyramid import pyramid
from gpuresample.cli.reorient import reorient
from gpuresample.cli.resample import resample
from gpuresample.cli.verify import verify

app = typer.Typer(
    name="gpuresample",
    help="Resample volumes with SimpleITK's numbers, many times faster.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted.",
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(cls=SeveralNumbers)(resample)
app.command(cls=SeveralNumbers)(apply)
app.command(cls=SeveralNumbers)(batch)
app.command(cls=SeveralNumbers)(blur)
app.command(cls=SeveralNumbers)(downsample)
app.command(cls=SeveralNumbers)(pyramid)
app.command()(reorient)
app.command(cls=SeveralNumbers)(conform)
app.command(cls=SeveralNumbers)(ensemble)
app.command("plan-cost", cls=SeveralNumbers)(plan_cost)
app.command()(info)
app.command()(doctor)
app.command(cls=SeveralNumbers)(demo)
app.command(cls=SeveralNumbers)(verify)
app.command()(bench)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpuresample {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    # Taken off the line before they get here; this is for the help.
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    data_anywhere: Annotated[
        bool, typer.Option("--data-anywhere", help="Let .mhd and .nhdr headers name data files outside their folder.")
    ] = False,
) -> None:
    """Resample volumes with SimpleITK's numbers, many times faster."""
