"""Attributes of OME-Zarr images that are damaged: read as what they say, or refused by name."""

import contextlib
import json
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import gpuresample as gr
from gpuresample.omezarr import volumes, writer

ODD = [None, True, 0, -1, 2.5, 1e308, 10**400, "", "x", "z", "scale", [], {}, [[]], [None], {"": 0}, ["z", "y", "x"]]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """An OME-Zarr image of two levels, and of time and channels."""
    path = tmp_path_factory.mktemp("whole") / "x.ome.zarr"
    voxels = np.arange(2 * 3 * 4 * 5 * 6, dtype=np.int16).reshape(2, 3, 4, 5, 6)
    writer.write_pyramid(gr.Volume(voxels, (0.5, 1.0, 2.0), (1.0, 2.0, 3.0)), path, levels=2)
    return path


def places(tree, at=()):
    """The path of everything in a tree of objects and lists."""
    yield at
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(part, (*at, key))


def mutated(tree, at, how, value):
    """A copy of a tree in which one thing is other, missing, or there twice."""
    tree = json.loads(json.dumps(tree))
    if not at:
        return value
    holder = tree
    for key in at[:-1]:
        holder = holder[key]
    key = at[-1]
    if how == "missing":
        del holder[key]
    elif how == "twice" and isinstance(holder, list):
        holder.insert(key, holder[key])
    elif how == "wrapped":
        holder[key] = [holder[key]]
    else:
        holder[key] = value
    return tree


@settings(max_examples=150)
@given(st.data())
def test_damaged_attributes_are_read_or_refused_by_name(image, tmp_path_factory, data):
    whole = json.loads((image / "zarr.json").read_text())
    attributes = whole["attributes"]
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.sampled_from(list(places(attributes))))
        how = data.draw(st.sampled_from(["missing", "other", "other", "twice", "wrapped"]))
        attributes = mutated(attributes, at, how, data.draw(st.sampled_from(ODD)))
    path = tmp_path_factory.getbasetemp() / "damaged.ome.zarr"
    if not path.exists():
        shutil.copytree(image, path)
    (path / "zarr.json").write_text(json.dumps(whole | {"attributes": attributes}))
    for read in (volumes.opened, writer.opened_levels):
        with contextlib.suppress(ValueError):
            found = read(path)
            for level in [found.grid] if read is volumes.opened else found:
                assert np.isfinite([*level.spacing, *level.origin, *level.direction]).all()
                assert min(level.spacing) > 0


MULTISCALE = ("ome", "multiscales", 0)
STEP = (*MULTISCALE, "datasets", 0, "coordinateTransformations", 0)


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (("ome",), None, "is no OME-Zarr image"),
        (("ome", "multiscales"), {}, "is no OME-Zarr image"),
        (MULTISCALE, "x", "is no OME-Zarr image"),
        ((*MULTISCALE, "datasets"), "x", "is no OME-Zarr image"),
        ((*MULTISCALE, "datasets", 0, "path"), 3, '"path" of its "datasets" must be text, got 3'),
        ((*MULTISCALE, "datasets", 0, "path"), "9", "has no array at '9'"),
        ((*MULTISCALE, "axes"), None, '"axes" must be a list, got None'),
        ((*MULTISCALE, "axes", 0), 7, '"axes" must be names, or objects with a name, got 7'),
        ((*MULTISCALE, "axes", 0), {}, '"axes" must be names, or objects with a name, got {}'),
        ((*MULTISCALE, "axes", 0, "type"), [], "axis 't' must have a type that is text"),
        ((*MULTISCALE, "axes", 4, "unit"), {"a": 1}, "axis 'x' must have a unit of length"),
        ((*MULTISCALE, "datasets", 0, "coordinateTransformations"), None, '"coordinateTransformations" must be a list'),
        (STEP, 5, "must have transformations of type scale and translation, got None"),
        ((*STEP, "type"), None, "must have transformations of type scale and translation, got None"),
        ((*STEP, "scale"), None, '"scale" must be 5 finite numbers, got None'),
        ((*STEP, "scale"), [1, 1], '"scale" must have 5 values'),
        ((*STEP, "scale"), [1, 1, 1, "a", 1], '"scale" must be 5 finite numbers'),
        ((*STEP, "scale"), [1, 1, 1, 0, 1], "spacing must be above zero"),
        (("gpuresample",), 3, '"gpuresample" must be an object'),
        (("gpuresample", "direction"), [1.0], '"direction" must have 9 values'),
        (("gpuresample", "direction"), [0.0] * 9, "direction must have an inverse"),
        (("gpuresample", "direction"), [1e308] * 9, "origin must be"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_damaged_is_named(image, tmp_path, at, value, message):
    path = tmp_path / "x.ome.zarr"
    shutil.copytree(image, path)
    whole = json.loads((path / "zarr.json").read_text())
    whole["attributes"] = mutated(whole["attributes"], at, "other", value)
    (path / "zarr.json").write_text(json.dumps(whole))
    with pytest.raises(ValueError, match=r".") as refused:
        volumes.opened(path)
    assert message in str(refused.value)
