"""`gpuresample resample IN OUT`: one volume onto another grid."""

from __future__ import annotations

from gpuresample.cli import console, filtering, flags, options
from gpuresample.files import job
from gpuresample.files import volumes as files


def resample(
    source: flags.Source,
    target: flags.Target,
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
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: flags.Overwrite = False,
) -> None:
    """Resample a volume onto another grid.

    --spacing, --size, --like or --transform says which grid:

        gpuresample resample ct.nii.gz thin.nii.gz --spacing 1 1 2

        gpuresample resample labels.nii.gz labels-on-ct.nii.gz --like ct.nii.gz --interpolation nearest
    """
    settings = options.settings(
        spacing=spacing, size=size, like=like, transform=transform, interpolation=interpolation, anchor=anchor,
        boundary=boundary, antialias=antialias, default_value=default_value, rounding=rounding, convention=convention,
        clip=clip, ignore=ignore, dtype=dtype, device=device, series=series,
    )  # fmt: skip
    files.check_level(target, level, "--level")
    with console.Phases() as phases:
        stage = filtering.stages(phases, source, target, lambda header: f"resampling {console.times(header.size)}")
        old, new = job.run(source, target, settings, overwrite, stage, level=level)
    filtering.report(source, old, target, new, phases)
