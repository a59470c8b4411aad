"""`gpuresample info FILE`: what a volume or a transform is."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table
from rich.text import Text

from gpuresample import texts
from gpuresample.cli import console
from gpuresample.files import transforms
from gpuresample.files import volumes as files
from gpuresample.ops.transforms import resolve
from gpuresample.planning.grid import Grid
from gpuresample.planning.transforms import Map

# A direction cosine this small is a header's rounding, not a rotation.
_ALONG = 1e-6


def info(
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="A volume, a folder with a DICOM series, or a transform.")
    ],
    series: Annotated[str | None, typer.Option(metavar="UID", help="Which series of a DICOM folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show format, voxel type, geometry and range of a volume; of a transform, what it is and where it takes points."""
    if transforms.is_transform(source):
        with console.native_stderr_hidden():
            said = describe_transform(source)
        if as_json:
            typer.echo(json.dumps(said, indent=2))
        else:
            _show(source, [(name.replace("_", " "), value) for name, value in _lines(said)])
        return
    with console.Phases() as phases, phases.phase("read", f"reading {source.name}"), console.native_stderr_hidden():
        facts = describe(source, series)
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    _show(source, _rows(facts))


def _show(source: Path, rows: list[tuple[str, str]]) -> None:
    table = Table(show_header=False, title=Text(str(source)), title_justify="left")
    table.add_column(style="bold")
    table.add_column()
    for name, text in rows:
        table.add_row(name, Text(text))
    console.out().print(table)


def describe_transform(path: Path) -> dict[str, Any]:
    """What there is to know about a transform, as plain numbers, strings and lists.

    Raises
    ------
    OSError
        As `gpuresample.read_transform`.
    """
    found = transforms.load(path)
    facts: dict[str, Any] = {
        "path": texts.printable(str(path)), "transform": found.kind, "format": found.form, "direction": found.direction,
        "notes": list(found.notes), "volumes": len(found.transforms),
        "files": [texts.printable(str(p)) for p in found.files],
    }  # fmt: skip
    one = found.transforms[0]
    facts["dimension"] = d = one.dimension if hasattr(one, "dimension") else _dimension(one)
    steps = resolve(one, Grid.of_size((1,) * d))[0].steps
    facts["steps"] = [
        {"matrix": step.matrix, "offset": step.offset}
        if isinstance(step, Map)
        else {
            "vectors": step.kind, "size": step.grid.size, "spacing": step.grid.spacing, "origin": step.grid.origin,
            "longest": _longest(step.vectors), "not_finite": int(np.count_nonzero(~np.isfinite(step.vectors))),
        }
        for step in steps
    ]  # fmt: skip
    return facts


def _dimension(transform: Any) -> int:
    """Of a SimpleITK transform, or of the first member of a path."""
    while hasattr(transform, "transforms"):
        transform = transform.transforms[0]
    return int(transform.dimension if hasattr(transform, "dimension") else transform.GetDimension())


def _longest(vectors: Any) -> float:
    """Length of the longest vector that is finite."""
    lengths = [np.sqrt((plane.astype(np.float64) ** 2).sum(axis=-1)) for plane in vectors]
    return float(max(np.max(one, where=np.isfinite(one), initial=0.0) for one in lengths))


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts of a transform as a table has them."""
    rows = [(name, str(facts[name])) for name in ("transform", "format", "direction")]
    rows += [("note", note) for note in facts["notes"]]
    rows += [("volumes", str(facts["volumes"]))] if facts["volumes"] > 1 else []
    rows += [("files", "\n".join(facts["files"]))] if len(facts["files"]) > 1 else []
    rows.append(("dimensions", str(facts["dimension"])))
    for step in facts["steps"]:
        if "matrix" in step:
            lines = [
                "  ".join(f"{v:10.6g}" for v in (*row, t))
                for row, t in zip(step["matrix"], step["offset"], strict=True)
            ]
            rows.append(("matrix, offset", "\n".join(lines)))
        else:
            kind = "control points" if step["vectors"] == "spline" else "vectors"
            where = f"{console.times(step['size'])} at {console.times(step['spacing'], 'mm')}"
            text = f"{where}, longest {step['longest']:.4g} mm"
            rows.append((kind, text + (f", {step['not_finite']} not finite" if step["not_finite"] else "")))
    return rows


def describe(path: Path, series: str | None = None) -> dict[str, Any]:
    """What there is to know about a volume, as plain numbers, strings and lists.

    Raises
    ------
    OSError, ValueError
        As `gpuresample.files.volumes.read`.
    """
    import SimpleITK as sitk

    image = files.read(path, series)
    header = files.Header.of(image, "DICOM series" if path.is_dir() else files.header(path).format)
    d = min(header.dimension, 3)
    direction = np.reshape(header.direction, (header.dimension,) * 2)[:d, :d]
    facts = {
        "path": texts.printable(str(path)),
        "format": header.format,
        "pixel_type": header.pixel_type,
        "components": header.components or 1,
        "size": header.size,
        "spacing": header.spacing,
        "origin": header.origin,
        "direction": header.direction,
        "axes": _axes(direction),
        "oblique_degrees": _tilt(direction),
        "extent": [n * s for n, s in zip(header.size, header.spacing, strict=True)],
        "bytes": header.nbytes,
    }
    return facts | _statistics(sitk.GetArrayViewFromImage(image))


def _axes(direction: Any) -> str | None:
    """The patient directions the axes grow towards, the nearest where they are oblique: LPS, RAS, ..."""
    import SimpleITK as sitk

    if direction.shape != (3, 3):
        return None
    code: str = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(direction.ravel().tolist())
    return code


def _tilt(direction: Any) -> float:
    """Largest angle between an image axis and the physical axis next to it, in degrees; 0 if all are along one."""
    cosines = np.sort(np.abs(direction), axis=0)
    if cosines[:-1].max() <= _ALONG:
        return 0.0
    return math.degrees(math.acos(min(1.0, float(cosines[-1].min()))))


def _statistics(voxels: Any) -> dict[str, Any]:
    """Range and mean of the voxels that are numbers; nothing for complex ones."""
    if voxels.dtype.kind == "c":
        return {"min": None, "max": None, "mean": None, "not_finite": None}
    missing = 0
    if voxels.dtype.kind == "f":
        finite = np.isfinite(voxels)
        missing = int(voxels.size - np.count_nonzero(finite))
        voxels = voxels if missing == 0 else voxels[finite]
    if voxels.size == 0:
        return {"min": None, "max": None, "mean": None, "not_finite": missing}
    mean = float(voxels.mean(dtype=np.float64))
    return {"min": voxels.min().item(), "max": voxels.max().item(), "mean": mean, "not_finite": missing}


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    size, tilt = facts["size"], facts["oblique_degrees"]
    axes = f"{facts['axes']}, " if facts["axes"] else ""
    n = len(size)
    cosines = np.reshape(facts["direction"], (n, n))
    values = "-"
    if facts["min"] is not None:
        values = f"{facts['min']:.6g} to {facts['max']:.6g}, mean {facts['mean']:.6g}"
    if facts["not_finite"]:
        values += f"; {facts['not_finite']:,} not finite"
    return [
        ("format", facts["format"]),
        ("pixel type", facts["pixel_type"]),
        ("components", str(facts["components"])),
        ("size", console.times(size, "voxels")),
        ("spacing", console.times(facts["spacing"], "mm")),
        ("origin", ", ".join(f"{v:.6g}" for v in facts["origin"])),
        ("direction", "\n".join("  ".join(f"{round(v, 5) + 0.0:8.5f}" for v in row) for row in cosines.tolist())),
        ("axes", axes + (f"oblique by up to {tilt:.2f} degrees" if tilt else "axis-aligned")),
        ("extent", console.times(facts["extent"], "mm")),
        ("in memory", console.megabytes(facts["bytes"])),
        ("values", values),
    ]
