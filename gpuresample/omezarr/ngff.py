"""OME-Zarr's metadata: grids as its transformations, and back.

NGFF 0.5 is written. Read are 0.1 to 0.5, and of 0.6 scales, translations and sequences of these.

A level's transformation is `scale * index + translation`, axis by axis, and NGFF 0.5 has no rotation. So its
coordinates run along the volume's own axes, and an attribute of ours, `{"gpuresample": {"direction": [...]}}` beside
"ome", says how these lie in space:

    point = direction @ (scale * index + translation)

with x, y, z in this order, row by row, in SimpleITK's coordinates (LPS). Without a rotation that is NGFF's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuresample.planning.grid import Grid

VERSION = "0.5"
OWN = "gpuresample"

# Lengths that NGFF names (its list is UDUNITS-2's), and what files have in their place, in millimetres.
LENGTHS = {
    "yoctometer": 1e-21, "zeptometer": 1e-18, "attometer": 1e-15, "femtometer": 1e-12, "picometer": 1e-9,
    "angstrom": 1e-7, "nanometer": 1e-6, "micrometer": 1e-3, "millimeter": 1.0, "centimeter": 10.0, "decimeter": 1e2,
    "meter": 1e3, "hectometer": 1e5, "kilometer": 1e6, "megameter": 1e9, "gigameter": 1e12, "terameter": 1e15,
    "petameter": 1e18, "exameter": 1e21, "zettameter": 1e24, "yottameter": 1e27, "inch": 25.4, "foot": 304.8,
    "yard": 914.4, "mile": 1609344.0, "parsec": 3.0856775814913673e19,
    "micron": 1e-3, "um": 1e-3, "\u00b5m": 1e-3, "\u03bcm": 1e-3, "nm": 1e-6, "mm": 1.0, "cm": 10.0, "m": 1e3,
}  # fmt: skip
# Versions up to 0.3 have names of axes only.
_KINDS = {"t": "time", "c": "channel"}


@dataclass(frozen=True)
class Lead:
    """An axis before those of space."""

    name: str
    kind: str
    scale: float = 1.0
    translation: float = 0.0
    unit: str | None = None


@dataclass(frozen=True)
class Notes:
    """What an image says beside its grid, and what its pyramid says, too.

    Attributes
    ----------
    omero : mapping or None
        Channels' names, colours and windows.
    orientations : mapping
        What the axes of space say of their orientation (RFC 4), by their names.
    """

    omero: Mapping[str, Any] | None = None
    orientations: Mapping[str, Any] = field(default_factory=dict)


NOTHING = Notes()


def leads_of(count: int) -> tuple[Lead, ...]:
    """The leading axes of an array that does not name them: channels, and time before these.

    Raises
    ------
    ValueError
        For more than two.
    """
    if count > 2:
        raise ValueError(f"image must have at most 2 axes before those of space (time, channel), got {count}")
    return (Lead("t", "time"), Lead("c", "channel"))[2 - count :]


def axes_of(lead: Sequence[Lead], dimension: int, notes: Notes = NOTHING) -> list[dict[str, Any]]:
    """The axes of a multiscale image."""
    space = [
        {"name": name, "type": "space", "unit": "millimeter"}
        | ({"orientation": notes.orientations[name]} if name in notes.orientations else {})
        for name in "zyx"[3 - dimension :]
    ]
    units = [{} if axis.unit is None else {"unit": axis.unit} for axis in lead]
    return [{"name": axis.name, "type": axis.kind} | unit for axis, unit in zip(lead, units, strict=True)] + space


def transformations(grid: Grid, lead: Sequence[Lead] = ()) -> list[dict[str, Any]]:
    """A level's scale and translation, one number for each axis of its array."""
    d = grid.dimension
    own = np.linalg.solve(np.reshape(grid.direction, (d, d)), np.asarray(grid.origin)) + 0.0
    return [
        {"type": "scale", "scale": [axis.scale for axis in lead] + list(grid.spacing[::-1])},
        {"type": "translation", "translation": [axis.translation for axis in lead] + own[::-1].tolist()},
    ]


def attributes(
    grids: Sequence[Grid],
    lead: Sequence[Lead],
    name: str,
    method: Mapping[str, Any],
    labels: bool,
    notes: Notes = NOTHING,
) -> dict[str, Any]:
    """The attributes of a group whose arrays "0", "1", ... lie on these grids, which share their direction."""
    multiscale = {
        "name": name,
        "type": method["kind"],
        "metadata": {"method": "gpuresample.pyramid", **method},
        "axes": axes_of(lead, grids[0].dimension, notes),
        "datasets": [
            {"path": str(k), "coordinateTransformations": transformations(grid, lead)} for k, grid in enumerate(grids)
        ],
    }
    ome: dict[str, Any] = {"version": VERSION, "multiscales": [multiscale]}
    if labels:
        ome["image-label"] = {}
    elif notes.omero is not None:
        ome["omero"] = dict(notes.omero)
    return {"ome": ome, OWN: {"direction": list(grids[0].direction)}}


def level_of(attrs: Mapping[str, Any], number: int = 0) -> tuple[str, Mapping[str, Any]]:
    """Path of a level's array, and the multiscale image that it is of.

    Raises
    ------
    ValueError
        For attributes that are not those of an OME-Zarr image.
    """
    try:
        multiscale = attrs.get("ome", attrs)["multiscales"][0]
        return multiscale["datasets"][number]["path"], multiscale
    except (KeyError, IndexError, TypeError):
        raise ValueError('is no OME-Zarr image: its attributes have no "multiscales" with "datasets"') from None


def _millimetres(axis: Mapping[str, Any]) -> float:
    """The length of an axis's unit; an axis without one is taken to be in millimetres.

    Raises
    ------
    ValueError
        For a unit that is no known length, such as "pixel".
    """
    unit = axis.get("unit") or "millimeter"
    if not isinstance(unit, str) or unit not in LENGTHS:
        raise ValueError(f"axis {axis['name']!r} must have a unit of length ({', '.join(LENGTHS)}), got {unit!r}")
    return LENGTHS[unit]


def _axes(multiscale: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """The axes of a level, whatever the version: named alone (0.3), with types (0.4), of a coordinate system (0.6)."""
    found = multiscale.get("axes")
    systems = multiscale.get("coordinateSystems")
    if found is None and systems:
        steps = multiscale["datasets"][number].get("coordinateTransformations") or [{}]
        output = steps[-1].get("output")
        wanted = output.get("name") if isinstance(output, Mapping) else output
        found = next((system for system in systems if system.get("name") == wanted), systems[0])["axes"]
    return [
        a if isinstance(a, Mapping) else {"name": a, "type": _KINDS.get(a, "space")} for a in found or list("tczyx")
    ]


def _steps(transformations: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Scales and translations, one after the other; a sequence (0.6) holds some.

    Raises
    ------
    ValueError
        For all others.
    """
    for step in transformations:
        kind = step.get("type")
        if kind == "sequence":
            yield from _steps(step.get("transformations", ()))
        elif kind in ("scale", "translation"):
            if kind not in step:
                raise ValueError(f"must have a transformation with its numbers, got {kind!r} without them")
            yield kind, np.asarray(step[kind], np.float64)
        elif kind != "identity":
            raise ValueError(f"must have transformations of type scale and translation, got {kind!r}")


def notes_of(attrs: Mapping[str, Any], multiscale: Mapping[str, Any]) -> Notes:
    """What an image says beside its grid."""
    omero = attrs.get("ome", attrs).get("omero")
    axes = [a for a in _axes(multiscale, 0) if a.get("type") == "space" and "orientation" in a]
    return Notes(omero if isinstance(omero, Mapping) else None, {a["name"]: a["orientation"] for a in axes})


def geometry(
    attrs: Mapping[str, Any], multiscale: Mapping[str, Any], shape: Sequence[int], number: int = 0
) -> tuple[Grid, tuple[Lead, ...]]:
    """The grid of a level of this shape, and its leading axes; lengths of a named unit in millimetres.

    Raises
    ------
    ValueError
        For axes that do not end with z, y, x or y, x, units of space that are no known length, or transformations that
        are not scale and translation.
    """
    axes = _axes(multiscale, number)
    names = [a["name"] for a in axes]
    if len(names) != len(shape):
        raise ValueError(f"has axes {names}, but an array of shape {tuple(shape)}")
    d = 3 if names[-3:] == ["z", "y", "x"] else 2
    if names[-d:] != ["z", "y", "x"][3 - d :] or any(name in "zyx" for name in names[:-d]):
        raise ValueError(f"must have axes that end with z, y, x or y, x, got {names}")
    scale, translation = np.ones(len(names)), np.zeros(len(names))
    of_level = multiscale["datasets"][number].get("coordinateTransformations", [])
    for kind, values in _steps([*of_level, *multiscale.get("coordinateTransformations", [])]):
        if kind == "scale":
            scale, translation = scale * values, translation * values
        else:
            translation = translation + values
    units = np.asarray([_millimetres(a) for a in axes[-d:]])
    spacing, own = (scale[-d:] * units)[::-1], (translation[-d:] * units)[::-1]
    direction = np.reshape(attrs.get(OWN, {}).get("direction", np.eye(d)), (d, d))
    lead = tuple(
        Lead(a["name"], a.get("type", "channel"), float(scale[k]), float(translation[k]), a.get("unit"))
        for k, a in enumerate(axes[:-d])
    )
    origin = direction @ own
    size = tuple(int(n) for n in shape[: -d - 1 : -1])
    return Grid(size, tuple(spacing.tolist()), tuple(origin.tolist()), tuple(direction.ravel().tolist())), lead
