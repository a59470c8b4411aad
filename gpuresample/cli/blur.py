"""`gpuresample blur IN OUT`: a Gaussian, or its derivatives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import gpuresample as gr
from gpuresample import files
from gpuresample.cli import filtering, options

_VALUES, _RUN = "Values", "Running"


def blur(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A file, or a folder with a DICOM series.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help=f"Where to write: {', '.join(files.WRITABLE)}.")],
    sigma: Annotated[
        str, typer.Option(metavar="X Y Z", help="Standard deviation in mm, or one number for all axes; 0 skips one.")
    ],
    kind: Annotated[
        str, typer.Option(help="discrete, sampled (SciPy's) or recursive (SimpleITK's).", rich_help_panel=_VALUES)
    ] = "discrete",
    order: Annotated[
        str,
        typer.Option(
            metavar="X Y Z", help="0 blurs, 1 and 2 take derivatives by voxel index.", rich_help_panel=_VALUES
        ),
    ] = "0",
    truncate: Annotated[
        float, typer.Option(metavar="NUMBER", help='Radius of "sampled", in sigma.', rich_help_panel=_VALUES)
    ] = 4.0,
    boundary: Annotated[
        str | None,
        typer.Option(help="nearest, reflect, mirror; the kind's own unless given.", rich_help_panel=_VALUES),
    ] = None,
    rounding: Annotated[
        str, typer.Option(help="Of integers: nearest, or truncate as SimpleITK does.", rich_help_panel=_VALUES)
    ] = "nearest",
    dtype: Annotated[
        str | None, typer.Option(help="Voxel type of the output, such as float32.", rich_help_panel=_VALUES)
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N.", rich_help_panel=_RUN)] = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the CPU engine.", rich_help_panel=_RUN)] = None,
    series: Annotated[
        str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.", rich_help_panel=_RUN)
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT if it exists.", rich_help_panel=_RUN)
    ] = False,
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
    filtering.run(gr.gaussian, "blur", "blurring", source, target, keywords, threads, series, overwrite)
