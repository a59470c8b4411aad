"""`gpuresample downsample IN OUT`: blurred and subsampled in one."""

from __future__ import annotations

from typing import Annotated, Any

import typer

import gpuresample as gr
from gpuresample.checks import one_of
from gpuresample.cli import filtering, flags, options
from gpuresample.ops.shrink import REDUCTIONS


def downsample(
    source: flags.Source,
    target: flags.Target,
    factors: Annotated[str, typer.Option(metavar="X Y Z", help="Whole numbers of at least 1, or one for all axes.")],
    reduce: Annotated[
        str,
        typer.Option(
            help="gaussian: blur and subsample. mean, mode (for labels): of whole blocks of voxels. label: the mode of "
            "what is not 0."
        ),
    ] = "gaussian",
    sigma: Annotated[
        str,
        typer.Option(
            metavar="RULE | X Y Z",
            help="Sigma of the blur: auto, itk, skimage, cardoso, or numbers in input voxels.",
            rich_help_panel=flags.VALUES,
        ),
    ] = "auto",
    kind: Annotated[
        str, typer.Option(help="Kind of Gaussian: sampled or discrete.", rich_help_panel=flags.VALUES)
    ] = "sampled",
    rounding: flags.Rounding = "nearest",
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Blur a volume and keep every f-th sample. The centre of the volume stays in place.

    gpuresample downsample ct.nii.gz half.nii.gz --factors 2

    gpuresample downsample ct.nii.gz half.nii.gz --factors 2 2 1 --sigma itk

    gpuresample downsample labels.nii.gz half.nii.gz --factors 2 --reduce mode
    """
    if one_of("--reduce", reduce, ("gaussian", *REDUCTIONS)) != "gaussian":
        if sigma != "auto" or kind != "sampled" or rounding != "nearest" or dtype is not None:
            raise ValueError(f"--sigma, --kind, --rounding and --dtype are for --reduce gaussian, not {reduce}")
        blocks: dict[str, Any] = {
            "factors": options.one_or_all("--factors", factors),
            "reduce": reduce,
            "device": device,
        }
        filtering.run(
            gr.bin_shrink, "shrink", "shrinking", source, target, blocks, series, overwrite,
            lambda probe: gr.downsample(probe, blocks["factors"], device=device), level,
        )  # fmt: skip
        return
    keywords: dict[str, Any] = {
        "factors": options.one_or_all("--factors", factors),
        "sigma": options.rule_or_numbers("--sigma", sigma),
        "kind": kind,
        "rounding": rounding,
        "dtype": dtype,
        "device": device,
    }
    filtering.run(gr.downsample, "downsample", "downsampling", source, target, keywords, series, overwrite, level=level)
