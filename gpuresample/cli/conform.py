"""`gpuresample conform IN OUT`: one size, spacing and orientation for all volumes."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import gpuresample as gr
from gpuresample.checks import sizes
from gpuresample.cli import filtering, flags, options


def conform(
    source: flags.Source,
    target: flags.Target,
    size: Annotated[
        str, typer.Option(metavar="X Y Z", help="Size of the result in voxels.", rich_help_panel=flags.GRID)
    ] = "256 256 256",
    spacing: Annotated[
        str,
        typer.Option(metavar="X Y Z", help="Spacing of the result, or one number.", rich_help_panel=flags.GRID),
    ] = "1",
    orientation: flags.Orientation = "RAS",
    interpolation: flags.Interpolation = "bspline",
    default_value: flags.DefaultValue = "0",
    convention: Annotated[
        str,
        typer.Option(help="nibabel: its numbers, as its conform. simpleitk: its.", rich_help_panel=flags.VALUES),
    ] = "nibabel",
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Bring a volume to one size, spacing and orientation, as nibabel's conform.

    The centre of the volume stays in the centre; what does not fit is cut, what is missing is filled.

    gpuresample conform t1.nii.gz conformed.nii.gz --size 256 256 256 --spacing 1
    """
    wanted = sizes("--size", options.numbers("--size", size, int), 3)
    keywords: dict[str, Any] = {
        "size": wanted,
        "spacing": options.one_or_all("--spacing", spacing),
        "orientation": orientation,
        "interpolation": interpolation,
        "default_value": options.number("--default-value", default_value),
        "convention": convention,
        "dtype": dtype,
        "device": device,
    }
    few = keywords | {"size": [min(n, 4) for n in wanted]}
    filtering.run(
        gr.conform, "conform", "conforming", source, target, keywords, series, overwrite,
        lambda probe: gr.conform(probe, **few), level,
    )  # fmt: skip
