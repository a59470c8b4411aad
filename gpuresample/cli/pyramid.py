"""`gpuresample pyramid IN OUT`: a pyramid, a file a level and a picture of them, or all in one OME-Zarr image."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import numpy.typing as npt
import typer

import gpuresample as gr
from gpuresample import texts
from gpuresample.cli import console, filtering, flags, options, pyramid_zarr
from gpuresample.files import volumes as files

if TYPE_CHECKING:
    import SimpleITK

_ZARR = "OME-Zarr"
_ABREAST = 5  # levels in one row of the picture
_ELSE = ".nii.gz"  # the extension where the input's own is not written


def pyramid(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN",
            help="A file, or a folder with a DICOM series; for OME-Zarr also a zarr array or OME-Zarr image.",
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="OUT", help="Folder for the levels, made if missing; or NAME.ome.zarr for one OME-Zarr image."
        ),
    ],
    levels: Annotated[
        int | None, typer.Option(help="Number of levels, including the volume itself; 4, unless --schedule gives it.")
    ] = None,
    factors: Annotated[
        str,
        typer.Option(
            metavar="isotropic | X Y Z",
            help="From one level to the next: whole numbers, one for all axes, or isotropic: "
            "thick slices wait until the other axes have caught up.",
        ),
    ] = "2",
    schedule: Annotated[
        str | None,
        typer.Option(
            metavar="F / F / ...",
            help="Instead: every level's factors against the volume, one or X Y Z, such as '1 / 2 2 1 / 4 4 2'.",
        ),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            help="gaussian: blur and subsample. mean, mode (for labels), label (the same, and "
            "background only where nothing else is): of blocks. itk, itk_recursive: as ITK does."
        ),
    ] = "gaussian",
    labels: Annotated[
        bool,
        typer.Option(
            "--labels",
            help="The voxels are labels: sets --kind mode unless it is label, and marks an OME-Zarr image as labels.",
        ),
    ] = False,
    sigma: Annotated[
        str,
        typer.Option(
            metavar="RULE | X Y Z",
            help="Sigma of each step: auto, itk, skimage, cardoso, or numbers in voxels of the level before.",
            rich_help_panel=flags.VALUES,
        ),
    ] = "auto",
    rounding: flags.Rounding = "nearest",
    chunks: Annotated[
        str | None,
        typer.Option(metavar="Z Y X", help="Size of a chunk in voxels; 64 64 64 unless given.", rich_help_panel=_ZARR),
    ] = None,
    shards: Annotated[
        bool,
        typer.Option("--shards/--no-shards", help="Many chunks in one file, in large levels.", rich_help_panel=_ZARR),
    ] = True,
    input_spacing: Annotated[
        str | None,
        typer.Option(
            metavar="X Y Z", help="Spacing in mm, if IN is a zarr array without geometry.", rich_help_panel=_ZARR
        ),
    ] = None,
    device: flags.Device = "auto",
    threads: flags.Threads = None,
    level: flags.Level = None,
    series: flags.Series = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what exists.", rich_help_panel=flags.RUN)
    ] = False,
) -> None:
    """Write a pyramid: files `NAME_level0` (the finest) and so on, with a picture of all levels; or one OME-Zarr image.

    A zarr input is read block by block. If an OME-Zarr image was not finished, the same command continues it.

    gpuresample pyramid ct.nii.gz levels --levels 4

    gpuresample pyramid ct.nii.gz levels --factors isotropic

    gpuresample pyramid ct.nii.gz ct.ome.zarr --schedule '1 / 2 2 1 / 4 4 2'

    gpuresample pyramid labels.nii.gz labels.ome.zarr --labels
    """
    keywords: dict[str, Any] = {
        "levels": levels,
        "factors": options.rule_or_numbers("--factors", factors),
        "schedule": options.schedule("--schedule", schedule),
        "kind": kind,
        "sigma": options.rule_or_numbers("--sigma", sigma),
        "rounding": rounding,
        "device": device,
    }
    stored = {
        "chunks": options.numbers("--chunks", chunks, int),
        "shards": shards,
        "input_spacing": options.one_or_all("--input-spacing", input_spacing),
    }
    if target.name.endswith(pyramid_zarr.ENDING):
        if level is not None:
            raise ValueError(f"--level is for files, and {target} is a folder of OME-Zarr; got {level}")
        pyramid_zarr.write(source, target, {**keywords, **stored, "labels": labels}, series, overwrite)
        return
    if stored != {"chunks": None, "shards": True, "input_spacing": None}:
        raise ValueError(f"--chunks, --no-shards and --input-spacing are for an OUT of OME-Zarr, got {str(target)!r}")
    if labels:
        if kind not in ("gaussian", "mode", "label"):
            raise ValueError(f"--labels is --kind mode or label; it cannot be combined with --kind {kind}")
        keywords["kind"] = "mode" if kind == "gaussian" else kind
    _write_files(source, target, keywords, level, series, overwrite)


def _write_files(
    source: Path, folder: Path, keywords: dict[str, Any], hard: int | None, series: str | None, overwrite: bool
) -> None:
    """A file a level, and the picture."""
    import matplotlib  # noqa: F401  # missing is better known now than after the work

    stem, ending = _name(source)
    levels = keywords["levels"] if keywords["levels"] is not None else len(keywords["schedule"] or range(4))
    names = [folder / f"{stem}_level{k}{ending}" for k in range(max(levels, 1))]
    picture = folder / f"{stem}_levels.png"
    _check_folder(folder, [*names, picture], overwrite)
    files.check_level(names[0], hard, "--level")
    with console.Phases() as phases:
        image, _ = filtering.read(phases, source, series, lambda probe: pyramid_zarr.quietly(probe, keywords))
        with phases.phase("levels", f"making {levels} levels"):
            made = gr.pyramid(image, **keywords)
        folder.mkdir(parents=True, exist_ok=True)
        for k, (level, path) in enumerate(zip(made, names, strict=False)):
            with phases.phase("write", f"writing {path.name}, {k + 1} of {len(made)}"), console.native_stderr_hidden():
                if level is not image:
                    files.keep_notes(image, level)
                files.write(level, path, overwrite, hard, phases.part)
        with phases.phase("draw", f"drawing {picture.name}"):
            draw(made, picture, overwrite)
    for level, path in zip(made, names, strict=False):
        typer.echo(f"{path}: {filtering.geometry(files.Header.of(level))}")
    typer.echo(f"{picture}: {len(made)} levels; {filtering.spent(phases)}")


def _name(source: Path) -> tuple[str, str]:
    """Stem and extension of the levels' files."""
    name = source.resolve().name
    ending = next((e for e in files.WRITABLE if name.endswith(e) and name != e), None)
    if ending is not None:
        return name[: -len(ending)], ending
    return (name if source.is_dir() else source.stem), _ELSE


def _check_folder(folder: Path, paths: list[Path], overwrite: bool) -> None:
    """Whether the files could be written, before anything is."""
    if folder.exists():
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder}: is not a folder")
        for path in paths[:-1]:
            files.check_output(path, overwrite)
        if paths[-1].exists() and not overwrite:
            raise FileExistsError(f"{paths[-1]}: exists already; to replace it, say so (--overwrite)")
        return
    texts.utf8_name(paths[0])
    above = next(p for p in folder.absolute().parents if p.exists())
    if not above.is_dir():
        raise NotADirectoryError(f"{folder}: {above} is not a folder")
    if not os.access(above, os.W_OK):
        raise PermissionError(f"{folder}: the folder {above} is not writable")


def draw(levels: list[SimpleITK.Image], path: Path, overwrite: bool = True) -> None:
    """Draw the middle axial slice of every level side by side, all to one physical scale, as a PNG.

    Parameters
    ----------
    levels : list of SimpleITK.Image
        Finest first; of vectors the first component, of time series the first volume.
    path : Path
        Where the picture goes.
    overwrite : bool
        Whether one that is there by the end is replaced.

    Raises
    ------
    FileExistsError
        If there is one, and it is not to be replaced.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    slices = [_middle(level) for level in levels]
    finite = slices[0][0][np.isfinite(slices[0][0])]
    low, high = np.percentile(finite, (0.5, 99.5)).tolist() if finite.size else (0.0, 1.0)
    if low == high:
        low, high = float(finite.min(initial=low)), float(finite.max(initial=high))
    # Every panel covers the first level's box, so that a millimetre is as long in all of them.
    wide = max(pixels.shape[1] * sx for pixels, sx, _ in slices)
    tall = max(pixels.shape[0] * sy for pixels, _, sy in slices)
    columns = len(slices) if len(slices) <= _ABREAST else min(-(-len(slices) // 2), _ABREAST)
    rows = -(-len(slices) // columns)
    # Inches of a panel; narrower ones would not hold their titles.
    width, height = 3.0, min(max(3.0 * tall / wide, 0.8), 6.0)
    figure = Figure(
        figsize=(width * columns + 0.2, (height + 0.6) * rows + 0.1),
        dpi=120,
        facecolor="white",
        layout=ConstrainedLayoutEngine(w_pad=0.04, h_pad=0.08),
    )
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(slices) :]:
        ax.axis("off")
    for k, (ax, level, (pixels, sx, sy)) in enumerate(zip(axes, levels, slices, strict=False)):
        half_x, half_y = pixels.shape[1] * sx / 2, pixels.shape[0] * sy / 2
        box = (-half_x, half_x, half_y, -half_y)
        ax.imshow(pixels, cmap="gray", vmin=low, vmax=high, extent=box, interpolation="nearest")
        ax.set(xticks=[], yticks=[], xlim=(-wide / 2, wide / 2), ylim=(tall / 2, -tall / 2), aspect="equal")
        size, spacing = level.GetSize()[:3], level.GetSpacing()[:3]
        # No frame: what a level lacks at its rim shows as such.
        ax.spines[:].set_visible(False)
        ax.set_title(f"level {k}: {console.times(size)}\n{console.times(spacing, 'mm')}", fontsize=11, linespacing=1.3)
    with files.replacing(path, overwrite) as partial:
        FigureCanvasAgg(figure).print_png(str(partial))


def _middle(image: SimpleITK.Image) -> tuple[npt.NDArray[np.float64], float, float]:
    """Pixels of the middle axial slice, and their spacing along x and y."""
    import SimpleITK as sitk

    image = filtering.scalar_volume(image)
    if image.GetDimension() == 3:
        image = sitk.DICOMOrient(image, "LPS")
        image = image[:, :, image.GetSize()[2] // 2]
    sx, sy = image.GetSpacing()
    return sitk.GetArrayFromImage(image).astype(np.float64), sx, sy
