"""`gpuresample blur IN OUT`: a Gaussian, or its derivatives."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import gpuresample as gr
from gpuresample.cli import filtering, flags, options


def blur(
    source: flags.Source,
    target: flags.Target,
    sigma: Annotated[
        str, typer.Option(metavar="X Y Z", help="Standard deviation in mm, or one number for all axes; 0 for no blur.")
    ],
    kind: Annotated[
        str, typer.Option(help="discrete, sampled (SciPy's) or recursive (SimpleITK's).", rich_help_panel=flags.VALUES)
    ] = "discrete",
    order: Annotated[
        str,
        typer.Option(
            metavar="X Y Z", help="0 blurs, 1 and 2 take derivatives by voxel index.", rich_help_panel=flags.VALUES
        ),
    ] = "0",
    truncate: Annotated[
        float,
        typer.Option(
            metavar="NUMBER", help='Kernel radius of "sampled", in multiples of sigma.', rich_help_panel=flags.VALUES
        ),
    ] = 4.0,
    boundary: Annotated[
        str | None,
        typer.Option(
            help="nearest, reflect, mirror, grid-wrap, grid-constant; the kind's own unless given.",
            rich_help_panel=flags.VALUES,
        ),
    ] = None,
    rounding: flags.Rounding = "nearest",
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Blur a volume with a Gaussian, or take the Gaussian's derivatives.

    gpuresample blur ct.nii.gz smooth.nii.gz --sigma 1.5

    gpuresample blur ct.nii.gz edges.nii.gz --sigma 2 --kind sampled --order 1 0 0 --dtype float32
    """
    keywords: dict[str, Any] = {
        "sigma": options.one_or_all("--sigma", sigma),
        "kind": kind,
        "order": options.one_or_all("--order", order),
        "truncate": truncate,
        "boundary": boundary,
        "rounding": rounding,
        "dtype": dtype,
        "device": device,
    }
    filtering.run(gr.gaussian, "blur", "blurring", source, target, keywords, series, overwrite, level=level)
