"""`gpuresample apply IN OUT --like REF -t T ...`: a chain of transforms, in the order of antsApplyTransforms."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from gpuresample.cli import console, filtering, flags, options
from gpuresample.files import apply as chains
from gpuresample.files import job, transforms
from gpuresample.files import volumes as files
from gpuresample.files.grids import grid_of_file

TRANSFORMS = "Transforms"


def apply(
    source: flags.Source,
    target: flags.Target,
    transform: Annotated[
        list[str],
        typer.Option(
            "--transform",
            "-t",
            metavar="FILE",
            help="A transform; [FILE,1] is the inverse of a matrix. Several: the "
            "last is applied to the image first, as in antsApplyTransforms.",
            rich_help_panel=TRANSFORMS,
        ),
    ],
    like: Annotated[
        Path | None,
        typer.Option("--like", "-r", metavar="FILE", help="Take the grid of this volume.", rich_help_panel=flags.GRID),
    ] = None,
    series: Annotated[
        bool,
        typer.Option(
            "--series",
            help="IN has several volumes. A folder or pattern after -t ('motion/*.mat') has a transform for "
            "each, a single file serves all.",
            rich_help_panel=TRANSFORMS,
        ),
    ] = False,
    transform_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help=f"Of transforms that do not show it: {', '.join(transforms.FORMATS)}.",
            rich_help_panel=TRANSFORMS,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The reference that FSL's or AFNI's transforms were made with, if it is not --like.",
            rich_help_panel=TRANSFORMS,
        ),
    ] = None,
    moving: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The image that they moved, if it is not IN.", rich_help_panel=TRANSFORMS),
    ] = None,
    interpolation: Annotated[
        str,
        typer.Option("--interpolation", "-n", help="As for resample.", rich_help_panel=flags.VALUES),
    ] = "linear",
    default_value: Annotated[
        str,
        typer.Option(
            "--default-value",
            "-f",
            metavar="NUMBER",
            help="Value of voxels outside the input.",
            rich_help_panel=flags.VALUES,
        ),
    ] = "0",
    rounding: flags.Rounding = "nearest",
    dtype: flags.Dtype = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    dicom_series: Annotated[
        str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.", rich_help_panel=flags.RUN)
    ] = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Resample a volume through transforms of ITK, ANTs, elastix, FSL, AFNI, FreeSurfer: all in one interpolation.

    gpuresample apply t1.nii.gz on-mni.nii.gz --like mni.nii.gz -t 1Warp.nii.gz -t 0GenericAffine.mat

    gpuresample apply mni.nii.gz on-t1.nii.gz --like t1.nii.gz -t '[0GenericAffine.mat,1]' -t 1InverseWarp.nii.gz

    gpuresample apply bold.nii.gz out.nii.gz --like mni.nii.gz -t warp.nii.gz -t 'motion/*.mat' --series
    """  # fmt: skip
    settings = options.settings(
        like=like, interpolation=interpolation, default_value=default_value, rounding=rounding, dtype=dtype,
        device=device, series=dicom_series,
    )  # fmt: skip
    files.check_output(target, overwrite)
    files.check_level(target, level, "--level")
    own, fixed = grid_of_file(source), None if like is None else grid_of_file(like)
    others = tuple(None if path is None else grid_of_file(path) for path in (reference, moving))
    with console.native_stderr_hidden():
        loaded = chains.load(transform, series, fixed, own, transform_format, (others[0], others[1]))
    grid = fixed or loaded[0].grid
    if grid is None:
        raise ValueError(f"--like must say which grid the output has: {loaded[0].files[0]} does not say it")
    chains.check(loaded, grid)
    joined = transforms.joined(loaded)
    if series:
        _check_series(source, joined)
    for typed, one in zip(transform, loaded, strict=True):
        typer.echo(f"-t {typed}: {one}")
    with console.Phases() as phases:
        stage = filtering.stages(phases, source, target, lambda _: "applying transforms")
        old, new = job.run(source, target, settings, overwrite, stage, transform=joined, grid=grid, level=level)
        with phases.phase("count", "counting points outside"):
            missed, points = chains.outside(joined, grid, own)
    filtering.report(source, old, target, new, phases)
    typer.echo(f"{missed:,} of {points:,} output points ({100 * missed / points:.3g} %) lie outside the input")


def _check_series(source: Path, transform: object) -> None:
    """Refuse a series that is none, and one of another number of volumes than there are transforms."""
    if source.is_dir():
        return
    header = files.header(source)
    volumes = header.size[3] if header.dimension == 4 else 1
    if header.dimension != 4:
        raise ValueError(f"--series is for images of four axes; {source} has {header.dimension}")
    if isinstance(transform, list) and len(transform) != volumes:
        raise ValueError(f"{source}: has {volumes} volumes, and there are transforms for {len(transform)}")
