"""The commands, put together."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer

from gpuresample import __version__
from gpuresample.cli.options import Group, SeveralNumbers

# When a process ends, Python looks for cycles among all objects, SimpleITK's many included: that takes longer than to
# resample. Frozen objects are left alone. What is to be done at the end is done all the same.
atexit.register(gc.freeze)

# In the order of the help; each is a function of its name in a module of its name.
COMMANDS = (
    "resample", "apply", "batch", "blur", "downsample", "pyramid", "reorient", "conform", "ensemble", "plan-cost",
    "info", "doctor", "demo", "verify", "bench",
)  # fmt: skip


def app(args: Sequence[str] = ()) -> typer.Typer:
    """The program.

    Parameters
    ----------
    args : sequence of str
        What will be asked of it. Where they begin with a command, no other is loaded: that would take a quarter second.
    """
    made = typer.Typer(
        name="gpuresample",
        cls=Group,
        help="Resample volumes with SimpleITK's numbers, many times faster.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad arguments, 130 interrupted.",
        add_completion=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    made.callback()(_main)
    for name in [args[0]] if args and args[0] in COMMANDS else COMMANDS:
        word = name.replace("-", "_")
        function = getattr(import_module(f"gpuresample.cli.{word}"), word)
        made.command(name, cls=SeveralNumbers)(function)
    return made


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"gpuresample {__version__}")
        raise typer.Exit


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
