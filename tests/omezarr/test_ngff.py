"""OME-Zarr's metadata, version by version: what is read, and what a pyramid keeps of it."""

import warnings

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import zarr

import gpuresample as gr
from gpuresample.files import volumes as files
from gpuresample.omezarr import ngff, volumes, writer

OMERO = {
    "channels": [
        {"label": "DAPI", "color": "0000FF", "window": {"min": 0, "max": 65535, "start": 100, "end": 2000}},
        {"label": "GFP", "color": "00FF00", "window": {"min": 0, "max": 255, "start": 0, "end": 255}, "active": False},
    ]
}


def noise(shape, dtype="uint16"):
    return np.random.default_rng(0).integers(0, 200, shape).astype(dtype)


def stored(path, array, multiscale, old=False, **others):
    """An image of one level with these attributes."""
    group = zarr.open_group(str(path), mode="w", zarr_format=2 if old else 3)
    group.create_array("0", data=array, chunks=array.shape)
    found = {"multiscales": [multiscale], **others}
    group.attrs.update(found if old else {"ome": found})
    return path


def axes(names, unit="micrometer", **of):
    kinds = {"t": "time", "c": "channel"}
    return [
        {"name": n, "type": kinds.get(n, "space")} | ({} if n in kinds else {"unit": unit}) | of.get(n, {})
        for n in names
    ]


def dataset(*steps):
    return [{"path": "0", "coordinateTransformations": list(steps)}]


# ----------------------------------------------------------------------------------------------------- 0.6


SCALE = {"type": "scale", "scale": [2.0, 0.2, 0.4]}
SHIFT = {"type": "translation", "translation": [10.0, 1.0, 3.0]}
ENDS = {"input": "0", "output": "physical"}


@pytest.mark.parametrize(
    ("steps", "origin"),
    [
        ([SCALE | ENDS], (0, 0, 0)),
        ([{"type": "sequence", "transformations": [SCALE, SHIFT]} | ENDS], (3, 1, 10)),
        ([{"type": "sequence", "transformations": [SHIFT, SCALE]} | ENDS], (1.2, 0.2, 20)),
        ([{"type": "sequence", "transformations": [{"type": "identity"}, SCALE, SHIFT, SHIFT]} | ENDS], (6, 2, 20)),
        ([{"type": "sequence", "transformations": [{"type": "sequence", "transformations": [SCALE]}, SHIFT]} | ENDS],
         (3, 1, 10)),
        ([SCALE | {"input": {"path": "0"}, "output": {"name": "physical"}}], (0, 0, 0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("unit", "length"), [("micrometer", 1e-3), ("millimeter", 1.0)])
def test_scales_and_sequences_of_06(tmp_path, steps, origin, unit, length):
    systems = [{"name": "array", "axes": axes("zyx", "meter")}, {"name": "physical", "axes": axes("zyx", unit)}]
    path = stored(tmp_path / "a.zarr", noise((4, 5, 6)), {"coordinateSystems": systems, "datasets": dataset(*steps)})
    grid = volumes.opened(path).grid
    np.testing.assert_allclose(grid.spacing, np.array([0.4, 0.2, 2.0]) * length)
    np.testing.assert_allclose(grid.origin, np.array(origin) * length, atol=1e-12)


@pytest.mark.parametrize(
    "step",
    [
        {"type": "scale", "scale": [1e-3] * 3}, {"type": "translation", "translation": [100.0, 200.0, 300.0]},
        {"type": "rotation", "rotation": [[0, 1, 0], [1, 0, 0], [0, 0, 1]]}, {"type": "identity"},
        {"type": "sequence", "transformations": [{"type": "scale", "scale": [7.0] * 3}]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("order", [1, -1])
def test_a_grid_of_06_lies_in_the_coordinate_system_of_its_levels(tmp_path, step, order):
    systems = [{"name": "physical", "axes": axes("zyx")}, {"name": "world", "axes": axes("zyx", "millimeter")}]
    path = stored(tmp_path / "a.zarr", noise((4, 5, 6)), {
        "coordinateSystems": systems[::order], "datasets": dataset(SCALE | ENDS),
        "coordinateTransformations": [step | {"input": "physical", "output": "world"}],
    })  # fmt: skip
    grid = volumes.opened(path).grid
    np.testing.assert_allclose(grid.spacing, (4e-4, 2e-4, 2e-3))
    assert grid.origin == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("kind", ["rotation", "affine", "mapAxis", "displacements", "bijection", None])
def test_other_transformations_are_refused_by_their_name(tmp_path, kind):
    steps = {"type": "sequence", "transformations": [SCALE, {"type": kind, str(kind): []}]} | ENDS
    systems = [{"name": "physical", "axes": axes("zyx")}]
    path = stored(tmp_path / "a.zarr", noise((4, 5, 6)), {"coordinateSystems": systems, "datasets": dataset(steps)})
    with pytest.raises(ValueError, match=rf"of type scale and translation, got {kind!r}"):
        volumes.opened(path)


# ------------------------------------------------------------------------------------------ early versions


@pytest.mark.parametrize(
    ("version", "named", "shape", "kinds"),
    [
        ("0.1", None, (2, 3, 4, 5, 6), ["time", "channel"]), ("0.2", None, (1, 1, 4, 5, 6), ["time", "channel"]),
        ("0.3", "tzyx", (2, 4, 5, 6), ["time"]), ("0.3", "czyx", (2, 4, 5, 6), ["channel"]),
        ("0.3", "tczyx", (2, 2, 4, 5, 6), ["time", "channel"]), ("0.3", "cyx", (2, 5, 6), ["channel"]),
    ],
)  # fmt: skip
def test_early_versions(tmp_path, version, named, shape, kinds):
    multiscale = {"version": version, "datasets": [{"path": "0"}]} | ({} if named is None else {"axes": list(named)})
    source = volumes.opened(stored(tmp_path / "a.zarr", noise(shape), multiscale, old=True))
    assert [lead.kind for lead in source.lead] == kinds
    writer.write_pyramid(tmp_path / "a.zarr", tmp_path / "b.zarr", 2)
    written = zarr.open_group(str(tmp_path / "b.zarr")).attrs["ome"]["multiscales"][0]["axes"]
    assert [a["type"] for a in written] == [*kinds, "space", "space", "space"]


@pytest.mark.parametrize("names", ["zyx", "tzyx", "czyx", "tczyx", "cyx"])
def test_axes_without_a_type_are_what_their_names_say(tmp_path, names):
    array, step = noise(range(2, 2 + len(names))), {"type": "scale", "scale": [2.0, 3.0, 0.5, 0.2, 0.4][-len(names) :]}
    opened = {}
    for kind in ("typed", "bare"):
        of = [{k: v for k, v in axis.items() if kind == "typed" or k != "type"} for axis in axes(names)]
        stored(tmp_path / f"{kind}.zarr", array, {"axes": of, "datasets": dataset(step)})
        opened[kind] = volumes.opened(tmp_path / f"{kind}.zarr")
    assert opened["bare"].grid == opened["typed"].grid
    assert opened["bare"].lead == opened["typed"].lead
    assert [lead.kind for lead in opened["bare"].lead] == [
        {"t": "time", "c": "channel"}[n] for n in names[:-2] if n in "tc"
    ]


# -------------------------------------------------------------------------------------- what a pyramid keeps


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("unit", ["second", "millisecond", "minute", "hour", "microsecond", None])
def test_time_channels_and_orientation_are_kept(tmp_path, old, unit):
    orientation = {"type": "anatomical", "value": "left-to-right"}
    named = axes("tczyx", t={} if unit is None else {"unit": unit}, x={"orientation": orientation})
    steps = {"type": "scale", "scale": [2.5, 1, 3, 1, 1]}
    multiscale = {"version": "0.4", "axes": named, "datasets": dataset(steps)}
    stored(tmp_path / "a.zarr", noise((2, 2, 8, 10, 12)), multiscale, old=old, omero=OMERO)
    writer.write_pyramid(tmp_path / "a.zarr", tmp_path / "b.zarr", 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ome_zarr_models.v05 as models
    group = zarr.open_group(str(tmp_path / "b.zarr"), mode="r")
    models.Image.from_zarr(group)
    ome = group.attrs["ome"]
    assert ome["omero"] == OMERO
    kept = ome["multiscales"][0]["axes"]
    assert kept[0].get("unit") == unit
    assert kept[4]["orientation"] == orientation
    assert "orientation" not in kept[3]
    scales = [d["coordinateTransformations"][0]["scale"][:2] for d in ome["multiscales"][0]["datasets"]]
    assert scales == [[2.5, 1]] * 3
    # And once more, from what was written.
    writer.write_pyramid(tmp_path / "b.zarr", tmp_path / "c.zarr", 2)
    again = zarr.open_group(str(tmp_path / "c.zarr"), mode="r").attrs["ome"]
    assert (again["omero"], again["multiscales"][0]["axes"]) == (OMERO, kept)


def test_labels_have_no_windows(tmp_path):
    stored(tmp_path / "a.zarr", noise((8, 10, 12)), {"axes": axes("zyx"), "datasets": dataset(SCALE)}, omero=OMERO)
    writer.write_pyramid(tmp_path / "a.zarr", tmp_path / "b.zarr", 2, labels=True)
    assert "omero" not in zarr.open_group(str(tmp_path / "b.zarr"), mode="r").attrs["ome"]


@pytest.mark.parametrize(("unit", "seconds"), [("sec", 1.0), ("msec", 1e-3), ("usec", 1e-6)])
def test_the_unit_of_a_series_in_a_nifti_file(tmp_path, unit, seconds):
    image = nib.Nifti1Image(noise((6, 5, 4, 3), "int16"), np.diag([1.0, 1, 1, 1]))
    image.header.set_xyzt_units("mm", unit)
    image.header["pixdim"][4] = 2.5
    nib.save(image, tmp_path / "a.nii.gz")
    assert volumes.of_image(files.read(tmp_path / "a.nii.gz")).lead[0] == ngff.Lead(
        "t", "time", pytest.approx(2.5 * seconds), 0.0, "second"
    )
    word = {"sec": "second", "msec": "millisecond", "usec": "microsecond"}[unit]
    for space in (0, 7):  # 7 is no unit of length
        image.header["xyzt_units"] |= space
        assert volumes.of_image(image).lead[0] == ngff.Lead("t", "time", 2.5, 0.0, word)


# ------------------------------------------------------------------------------------- 2-D images with channels


@pytest.mark.parametrize(
    ("names", "shape", "dtype"),
    [("cyx", (3, 20, 31), "uint8"), ("tyx", (2, 20, 31), "uint16"), ("tcyx", (2, 3, 20, 30), "uint8"),
     ("cyx", (1, 9, 9), "float32"), ("cyx", (4, 64, 3), "int16"), ("tcyx", (1, 1, 33, 65), "uint16")],
)  # fmt: skip
def test_planes_with_channels(tmp_path, names, shape, dtype):
    array = noise(shape, dtype)
    steps = {"type": "scale", "scale": [*(1,) * (len(names) - 2), 0.5, 0.7]}
    stored(tmp_path / "a.zarr", array, {"axes": axes(names, "millimeter"), "datasets": dataset(steps)})
    levels = writer.write_pyramid(tmp_path / "a.zarr", tmp_path / "b.zarr", 3)
    assert [lead.name for lead in volumes.opened(tmp_path / "b.zarr").lead] == list(names[:-2])
    flat = array.reshape(-1, *shape[-2:])
    for k, level in enumerate(levels):
        made = level.array[...].reshape(len(flat), *level.array.shape[-2:])
        for channel, plane in enumerate(flat):
            wanted = gr.pyramid(gr.Volume(plane, (0.7, 0.5)), 3)[k]
            assert np.array_equal(made[channel], np.asarray(wanted.array))
            np.testing.assert_allclose(level.spacing[:2], wanted.spacing)
            np.testing.assert_allclose(level.origin[:2], wanted.origin)


def test_a_picture_of_a_file_and_one_that_is_the_input_itself(tmp_path):
    image = sitk.GetImageFromArray(noise((20, 30, 3), "uint8"), isVector=True)
    sitk.WriteImage(image, str(tmp_path / "a.png"))
    levels = writer.write_pyramid(tmp_path / "a.png", tmp_path / "b.zarr", 2)
    wanted = sitk.GetArrayFromImage(gr.pyramid(image, 2)[1])
    assert np.array_equal(np.moveaxis(levels[1].array[:, 0], 0, -1), wanted)
    stored(tmp_path / "c.zarr", noise((2, 8, 9)), {"axes": axes("cyx"), "datasets": dataset(SCALE)})
    with pytest.raises(ValueError, match="must not be the input itself"):
        writer.write_pyramid(tmp_path / "c.zarr", tmp_path / "c.zarr", 2, overwrite=True)
