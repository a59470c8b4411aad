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

from gpuresample.checks import numbers, shown
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.grid import Grid

VERSION = "0.5"
OWN = "gpuresample"
STEPS = "coordinateTransformations"

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
        path = multiscale["datasets"][number]["path"]
    except (AttributeError, KeyError, IndexError, TypeError):
        raise ValueError('is no OME-Zarr image: its attributes have no "multiscales" with "datasets"') from None
    if not isinstance(multiscale, Mapping) or not isinstance(multiscale["datasets"], list):
        raise ValueError('is no OME-Zarr image: "multiscales" must hold objects with a list of "datasets"')
    if not isinstance(path, str):
        raise ValueError(f'"path" of its "datasets" must be text, got {shown(path)}')
    return path, multiscale


def _millimetres(axis: Mapping[str, Any]) -> float:
    """The length of an axis's unit; an axis without one is taken to be in millimetres.

    Raises
    ------
    ValueError
        For a unit that is no known length, such as "pixel".
    """
    unit = axis.get("unit") or "millimeter"
    if not isinstance(unit, str) or unit not in LENGTHS:
        raise ValueError(f"axis {axis['name']!r} must have a unit of length ({', '.join(LENGTHS)}), got {shown(unit)}")
    return LENGTHS[unit]


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f'"{name}" must be a list, got {shown(value)}')
    return value


def _numbers(name: str, value: Any, count: int) -> FloatArray:
    try:
        return np.array(numbers(f'"{name}"', value, count))
    except TypeError as error:
        raise ValueError(str(error)) from None


def _axis(axis: Any) -> dict[str, Any]:
    """An axis with a name and a type that are text."""
    if isinstance(axis, str):
        return {"name": axis, "type": _KINDS.get(axis, "space")}
    name = axis.get("name") if isinstance(axis, Mapping) else None
    if not isinstance(name, str):
        raise ValueError(f'"axes" must be names, or objects with a name, got {shown(axis)}')
    kind = axis.get("type", _KINDS.get(name, "space" if name in ("z", "y", "x") else "channel"))
    if not isinstance(kind, str):
        raise ValueError(f"axis {name!r} must have a type that is text, got {shown(kind)}")
    return {**axis, "name": name, "type": kind}


def _axes(multiscale: Mapping[str, Any], number: int) -> list[dict[str, Any]]:
    """The axes of a level, whatever the version: named alone (0.3), with types (0.4), of a coordinate system (0.6)."""
    found, systems = multiscale.get("axes", list("tczyx")), multiscale.get("coordinateSystems")
    if "axes" not in multiscale and systems:
        systems = [s for s in _list(systems, "coordinateSystems") if isinstance(s, Mapping) and "axes" in s]
        if not systems:
            raise ValueError('"coordinateSystems" must be objects with axes')
        steps = _list(multiscale["datasets"][number].get(STEPS, []), STEPS)
        output = steps[-1].get("output") if steps and isinstance(steps[-1], Mapping) else None
        wanted = output.get("name") if isinstance(output, Mapping) else output
        found = next((system for system in systems if system.get("name") == wanted), systems[0])["axes"]
    return [_axis(a) for a in _list(found, "axes")]


def _steps(transformations: Any, count: int, within: int = 0) -> Iterator[tuple[str, FloatArray]]:
    """Scales and translations, one after the other; a sequence (0.6) holds some.

    Raises
    ------
    ValueError
        For all others, and for sequences in sequences in sequences.
    """
    for step in _list(transformations, STEPS):
        kind = step.get("type") if isinstance(step, Mapping) else None
        if kind == "sequence" and within < 2:
            yield from _steps(step.get("transformations", []), count, within + 1)
        elif kind in ("scale", "translation"):
            yield kind, _numbers(kind, step.get(kind), count)
        elif kind != "identity":
            raise ValueError(f"must have transformations of type scale and translation, got {shown(kind)}")


def notes_of(attrs: Mapping[str, Any], multiscale: Mapping[str, Any]) -> Notes:
    """What an image says beside its grid."""
    ome = attrs.get("ome", attrs)
    omero = ome.get("omero") if isinstance(ome, Mapping) else None
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
    if names[-d:] != ["z", "y", "x"][3 - d :] or any(name in ("z", "y", "x") for name in names[:-d]):
        raise ValueError(f"must have axes that end with z, y, x or y, x, got {names}")
    scale, translation = np.ones(len(names)), np.zeros(len(names))
    # From 0.6 on, the transformations of all levels lead away from the levels' own coordinate system to others.
    of_all = [] if "coordinateSystems" in multiscale and "axes" not in multiscale else multiscale.get(STEPS, [])
    of_level = multiscale["datasets"][number].get(STEPS, [])
    with np.errstate(over="ignore"):
        for kind, values in [*_steps(of_level, len(names)), *_steps(of_all, len(names))]:
            if kind == "scale":
                scale, translation = scale * values, translation * values
            else:
                translation = translation + values
    if not (np.isfinite(scale).all() and np.isfinite(translation).all()):
        raise ValueError(f"must have transformations that stay finite, got a scale of {scale.tolist()}")
    units = np.asarray([_millimetres(a) for a in axes[-d:]])
    spacing, own = (scale[-d:] * units)[::-1], (translation[-d:] * units)[::-1]
    mine = attrs.get(OWN, {})
    if not isinstance(mine, Mapping):
        raise ValueError(f'"{OWN}" must be an object with a "direction", got {shown(mine)}')
    turned = _numbers("direction", mine.get("direction", np.eye(d).ravel().tolist()), d * d)
    direction = np.reshape(turned, (d, d))
    lead = tuple(
        Lead(a["name"], a["type"], float(scale[k]), float(translation[k]), a.get("unit"))
        for k, a in enumerate(axes[:-d])
    )
    with np.errstate(over="ignore", invalid="ignore"):
        origin = direction @ own
    size = tuple(int(n) for n in shape[: -d - 1 : -1])
    return Grid(size, tuple(spacing.tolist()), tuple(origin.tolist()), tuple(direction.ravel().tolist())), lead
