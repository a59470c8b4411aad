"""`gpuresample demo [FILE]`: the same resampling here and in SimpleITK, timed, compared and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from gpuresample.bench import phantom
from gpuresample.cli import console, filtering, options
from gpuresample.cli import side_by_side as demos
from gpuresample.engines.threads import get_num_threads
from gpuresample.files import volumes as files

if TYPE_CHECKING:
    import SimpleITK

# Of the phantom in Hounsfield units: lungs to bone.
_WINDOW = (-1000.0, 700.0)
_COARSER = 1.5


def demo(
    source: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="A volume; a CT-like phantom unless given.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the picture.")] = Path("demo-output"),
    spacing: Annotated[
        str | None,
        typer.Option(metavar="X Y Z", help="New spacing; 1 1 2 mm for the phantom, 1.5 times the old one for a file."),
    ] = None,
    series: Annotated[str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A smaller phantom, of 128 x 128 x 62 voxels.")] = False,
) -> None:
    """Resample by cubic B-spline with gpuresample and with SimpleITK; show times, differences and a picture.

    Exit code 1 says that the results differ by more than the numeric contract allows.
    """
    _import_matplotlib()
    wanted = options.one_or_all("--spacing", spacing)
    if output.exists() and not output.is_dir():
        raise NotADirectoryError(f"{output}: is not a folder")
    with console.Phases() as phases:
        image = _image(phases, source, series, small)
        new = _new_spacing(image, wanted, source is None)
        comparisons = []
        for one in _variants(image):
            with phases.phase("compare", f"resampling {one.GetPixelIDTypeAsString()} here and with SimpleITK"):
                comparisons.append(demos.compare(one, new))
        if len(comparisons) == 2:
            comparisons[0] = demos.judged(*comparisons)
        with phases.phase("draw", "drawing"):
            picture = _draw(image, comparisons, output, source)
    _print(image, comparisons, source)
    typer.echo(f"picture: {picture}")
    if not all(c.within for c in comparisons):
        raise typer.Exit(1)


def _import_matplotlib() -> None:
    """Missing is better known now than after the work."""
    import matplotlib  # noqa: F401


def _image(phases: console.Phases, source: Path | None, series: str | None, small: bool) -> SimpleITK.Image:
    if source is None:
        with phases.phase("make", "making the phantom"):
            return phantom.phantom((128, 128, 62)) if small else phantom.phantom()
    with phases.phase("read", f"reading {source.name}"), console.native_stderr_hidden():
        image = files.read(source, series)
    header = files.Header.of(image)
    if header.dtype.kind == "c" or header.dimension > 4:
        raise OSError(f"{source}: cannot be resampled: {header.dimension}-D, {header.pixel_type}")
    return filtering.scalar_volume(image)  # SimpleITK's splines take no others


def _new_spacing(image: SimpleITK.Image, wanted: float | list[float] | None, is_phantom: bool) -> float | list[float]:
    if wanted is not None:
        return wanted
    if is_phantom:
        pairs = zip(phantom.REFERENCE_SPACING, phantom.REFERENCE_NEW_SPACING, image.GetSpacing(), strict=True)
        return [new / old * spacing for old, new, spacing in pairs]
    return [_COARSER * s for s in image.GetSpacing()]


def _variants(image: SimpleITK.Image) -> list[SimpleITK.Image]:
    """The image in its own voxel type, and as floats, whose differences are not hidden by rounding."""
    import SimpleITK as sitk

    dtype = files.Header.of(image).dtype
    if dtype.kind == "f":
        return [image]
    return [image, sitk.Cast(image, sitk.sitkFloat32 if dtype.itemsize <= 2 else sitk.sitkFloat64)]


def _draw(image: SimpleITK.Image, comparisons: list[demos.Comparison], output: Path, source: Path | None) -> Path:
    name = "phantom" if source is None else source.name.split(".")[0]
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"{name}.png"
    c = comparisons[0]
    title = (
        f"Cubic B-spline, {c.dtype}, {get_num_threads()} threads: "
        f"gpuresample {console.seconds(c.seconds)}, SimpleITK {console.seconds(c.sitk_seconds)}"
    )
    is_phantom = source is None
    demos.draw(
        image,
        comparisons[-1],
        path,
        title=title,
        unit="HU" if is_phantom else "",
        window=_WINDOW if is_phantom else None,
    )
    return path


def _print(image: SimpleITK.Image, comparisons: list[demos.Comparison], source: Path | None) -> None:
    import SimpleITK as sitk

    result = comparisons[0].result
    table = Table(title=Text("phantom" if source is None else str(source)), title_justify="left")
    table.add_column("cubic B-spline", style="bold")
    for c in comparisons:
        table.add_column(c.dtype, justify="right")
    old, new = (f"{console.times(i.GetSize())} at {console.times(i.GetSpacing(), 'mm')}" for i in (image, result))
    version = sitk.Version.VersionString()
    rows = {
        "first call (compiles or loads kernels)": [console.seconds(c.first_seconds) for c in comparisons],
        f"gpuresample, median of 5, {get_num_threads()} threads": [console.seconds(c.seconds) for c in comparisons],
        f"SimpleITK {version}, 1 run": [console.seconds(c.sitk_seconds) for c in comparisons],
        "times faster": [f"{c.ratio:.3g}" for c in comparisons],
        "largest difference": [f"{c.max_difference:.3g}" for c in comparisons],
        "voxels that differ": [f"{c.share_different:.4%}" if c.allowed_share < 1 else "-" for c in comparisons],
        "of these, not on a whole number": [
            f"{c.share_apart:.4%}" if c.allowed_share < 1 else "-" for c in comparisons
        ],
        "image range": [f"{c.value_range:.6g}" for c in comparisons],
        "allowed": [_allowed(c) for c in comparisons],
        "verdict": [_verdict(c) for c in comparisons],
    }
    for name, cells in rows.items():
        if set(cells) != {"-"}:
            table.add_row(name, *cells)
    shown = console.out()
    shown.print(Text(f"from {old}\nto   {new}"))
    shown.print(table)
    if any(c.within and c.share_different > c.allowed_share for c in comparisons):
        shown.print(
            "Where a sample falls on a voxel, the spline gives a whole number up to its last bits. SimpleITK truncates "
            "it, and that makes a whole unit of these bits. There, neither result is right."
        )


def _allowed(c: demos.Comparison) -> str:
    if c.allowed_share < 1:
        return f"{c.allowed_difference:g} in {c.allowed_share:.1%}"
    return f"{c.allowed_difference:.3g}"


def _verdict(c: demos.Comparison) -> str:
    if not c.within:
        return "[red]OUTSIDE[/]"
    return "[green]within[/]" if c.share_different <= c.allowed_share else "[green]within, whole numbers aside[/]"
