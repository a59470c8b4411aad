"""Pyramids as OME-Zarr: the bits of `gr.pyramid`, valid metadata, real readers, and what a kill leaves."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tracemalloc
import warnings
from pathlib import Path
from types import SimpleNamespace

import dask.array as da
import numpy as np
import pytest
import SimpleITK as sitk
import zarr
from cli_support import refused
from cli_support import volume as picture
from support import flat, noise, rotation, same_bits
from support import labels as blobs

import gpuresample as gr
from gpuresample.chunked import blocks, chunking
from gpuresample.files import volumes as files
from gpuresample.omezarr import layout, ngff, unfinished, volumes, writer

SHAPE = (29, 31, 40)
GEOMETRY = (0.8, 0.9, 1.1), (3.0, -4.0, 5.0)
TURNED = flat(rotation(10, -20, 15))


@contextlib.contextmanager
def cut_small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "EDGE", {3: 16, 2: 16})
        patch.setattr(layout, "UNIT", 24 << 10)
        patch.setattr(layout, "PIECE", 30 << 10)
        patch.setattr(layout, "LOOSE", 4)
        yield


@pytest.fixture
def small():
    """Many chunks, shards and pieces, in small volumes too."""
    with cut_small():
        yield


def same_levels(written, expected):
    assert len(written) == len(expected)
    for got, image in zip(written, expected, strict=True):
        wanted = image if isinstance(image, gr.Volume) else as_volume(image)
        array = np.asarray(wanted.array)
        assert same_bits(got.array[...], array.astype(array.dtype.newbyteorder("=")))
        assert got.size == wanted.size
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(getattr(got, name), getattr(wanted, name), rtol=0, atol=1e-9)


def as_volume(image):
    return gr.Volume(sitk.GetArrayFromImage(image), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def listing(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# --- the bits of the whole -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, dtype) for kind in ("gaussian", "mean", "mode", "itk", "itk_recursive") for dtype in ("int16", "float32")]
    + [("gaussian", dtype) for dtype in ("uint8", ">i2", "float64", "bool")],
)
def test_levels_are_those_of_gr_pyramid(tmp_path, kind, dtype):
    array = noise(SHAPE, "int16") > 0 if dtype == "bool" else noise(SHAPE, "uint8").astype(dtype)
    volume = gr.Volume(array, *GEOMETRY, TURNED)
    got = writer.write_pyramid(volume, tmp_path / "a.ome.zarr", 4, kind=kind)
    same_levels(got, gr.pyramid(volume, 4, kind=kind))
    assert got[0].array.shards is not None
    assert got[3].array.shards is None
    assert os.listdir(tmp_path) == ["a.ome.zarr"]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    "keywords",
    [
        {"factors": "isotropic", "levels": 3},
        {"factors": (1, 2, 3), "levels": 3},
        {"schedule": [1, (2, 2, 1), (4, 4, 2), (4, 4, 2), (8, 4, 4)]},
        {"schedule": [2, 4]},
        {"levels": 1},
        {"levels": 3, "sigma": (1.0, 0.5, 0.0), "rounding": "truncate"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["gaussian", "mode"])
def test_schedules(tmp_path, keywords, kind):
    if kind == "mode" and "sigma" in keywords:
        return
    volume = gr.Volume(noise(SHAPE, "int16"), (0.8, 0.8, 2.5), (1.0, 2.0, 3.0))
    got = writer.write_pyramid(volume, tmp_path / "a.zarr", kind=kind, **keywords)
    same_levels(got, gr.pyramid(volume, kind=kind, **keywords))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("of", ["numpy", "zarr", "dask"])
def test_bare_arrays_have_their_own_axis_order(tmp_path, of):
    array = noise((2, *SHAPE), "int16")
    given = {"numpy": array, "dask": da.from_array(array, chunks=17)}.get(of)
    if of == "zarr":
        given = zarr.create_array(zarr.storage.MemoryStore(), shape=array.shape, dtype="int16", chunks=(1, 16, 16, 16))
        given[...] = array
    keywords = {"factors": (1, 2, 3), "sigma": (0.0, 0.5, 1.0)}
    got = writer.write_pyramid(given, tmp_path / "a.zarr", 3, input_spacing=(3.0, 2.0, 1.0), **keywords)
    for level, wanted in zip(got, gr.pyramid(array, 3, **keywords), strict=True):
        assert same_bits(level.array[...], wanted)
    assert [level.spacing for level in got] == [(1, 2, 3), (3, 4, 3), (9, 8, 3)]
    assert got[0].array.metadata.dimension_names == ("c", "z", "y", "x")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".ome.zarr", ".zarr"])
def test_files(tmp_path, ending):
    image = picture(size=(44, 40, 30))
    path = tmp_path / f"in{ending}"
    if ending == ".ome.zarr":
        writer.write_pyramid(image, path, 2)
    elif ending == ".zarr":
        zarr.create_array(str(path), data=sitk.GetArrayFromImage(image), chunks=(9, 9, 9))
        image.SetOrigin((0, 0, 0))
    else:
        files.write(image, path)
        image = files.read(path)
    spacing = {"input_spacing": image.GetSpacing()} if ending == ".zarr" else {}
    got = writer.write_pyramid(path, tmp_path / "out.ome.zarr", 3, **spacing)
    same_levels(got, gr.pyramid(image, 3))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ending", [".nii", ".mha"])
@pytest.mark.parametrize("size", [(44, 40, 30), (44, 40)])
def test_uncompressed_files_are_read_in_parts(tmp_path, monkeypatch, ending, size):
    image = picture(size=size)
    files.write(image, tmp_path / f"in{ending}")
    image = files.read(tmp_path / f"in{ending}")
    parts, read_part = [], files.read_part
    monkeypatch.setattr(files, "read_part", lambda *a: parts.append(read_part(*a)) or parts[-1])
    monkeypatch.setattr(files, "read", lambda *_: pytest.fail("all voxels were read"))
    for kind in ("gaussian", "itk"):
        got = writer.write_pyramid(tmp_path / f"in{ending}", tmp_path / f"{kind}.zarr", 3, kind=kind)
        same_levels(got, gr.pyramid(image, 3, kind=kind))
    assert len(parts) > 2
    assert max(p.GetNumberOfPixels() for p in parts) < image.GetNumberOfPixels() or len(size) == 2


def test_which_files_are_read_in_parts(tmp_path, data_dir):
    image = picture()
    for name, of, compressed, yes in (
        ("a.nii", image, False, True), ("a.mha", image, False, True), ("b.mha", image, True, False),
        ("a.nii.gz", image, True, False), ("a.nrrd", image, False, False), ("a.mhd", image, False, False),
        ("v.mha", sitk.Compose(image, image), False, False), ("t.nii", sitk.JoinSeries(image, image), False, False),
    ):  # fmt: skip
        sitk.WriteImage(of, str(tmp_path / name), useCompression=compressed)
        assert (files.in_parts(tmp_path / name) is not None) == yes, name
    with open(tmp_path / "a.nii", "rb+") as file:
        file.truncate(5000)
    with pytest.raises(OSError, match=r"a.nii"):
        writer.write_pyramid(tmp_path / "a.nii", tmp_path / "a.zarr")
    assert volumes.in_parts(data_dir / "dicom_series") is None


@pytest.mark.usefixtures("small")
def test_components_and_time(tmp_path):
    array = noise((3, 12, 14, 16, 2), "uint8")
    series, vectors, both = (
        sitk.GetImageFromArray(a, isVector=v) for a, v in ((array[..., 0], False), (array[0], True), (array, True))
    )
    series.SetSpacing((1, 1, 2, 0.5))
    series.SetOrigin((1, 2, 3, 7))
    for image, names, shape in ((series, "tzyx", (3,)), (vectors, "czyx", (2,)), (both, "tczyx", (3, 2))):
        path = tmp_path / f"{names}.zarr"
        got = writer.write_pyramid(image, path, 2)
        assert got[1].array.shape == (*shape, 6, 7, 8)
        assert got[1].array.metadata.dimension_names == tuple(names)
        wanted = sitk.GetArrayFromImage(gr.pyramid(image, 2)[1])
        wanted = np.moveaxis(wanted, -1, -4) if names != "tzyx" else wanted
        assert same_bits(got[1].array[...], np.ascontiguousarray(wanted))
    of_level = zarr.open_group(str(tmp_path / "tzyx.zarr")).attrs["ome"]["multiscales"][0]["datasets"][1]
    scale, translation = (t[t["type"]] for t in of_level["coordinateTransformations"])
    assert scale == [0.5, 4.0, 2.0, 2.0]
    assert translation == [7.0, 4.0, 2.5, 1.5]
    again = volumes.opened(tmp_path / "tzyx.zarr")
    assert again.lead == (ngff.Lead("t", "time", 0.5, 7.0),)


@pytest.mark.usefixtures("small")
def test_pictures(tmp_path):
    image = gr.Volume(noise((70, 90), "uint8"), (0.5, 0.7), (1.0, 2.0))
    same_levels(writer.write_pyramid(image, tmp_path / "a.zarr", 3), gr.pyramid(image, 3))


@pytest.mark.parametrize("name", ["FLAIR.nii.gz", "torsoLabel.nii.gz", "PIR.nii.gz", "pcasl.nii.gz"])
def test_real_volumes(tmp_path, data_dir, read, name):
    of_labels = name.startswith("torso")
    got = writer.write_pyramid(data_dir / name, tmp_path / "a.zarr", 3, factors="isotropic", labels=of_labels)
    wanted = gr.pyramid(read(name), 3, factors="isotropic", kind="mode" if of_labels else "gaussian")
    for level, image in zip(got, wanted, strict=True):
        assert same_bits(level.array[...], sitk.GetArrayFromImage(image))
        np.testing.assert_allclose(level.origin, image.GetOrigin()[:3], atol=1e-9)
        np.testing.assert_allclose(level.spacing, image.GetSpacing()[:3], atol=1e-9)


# --- metadata ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def models():
    """The specification as pydantic models, by those who keep OME-Zarr."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ome_zarr_models.v05 as models
    return models


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("of_labels", [False, True])
@pytest.mark.parametrize("shape", [SHAPE, (2, *SHAPE), (2, 3, 20, 9, 30), SHAPE[1:]], ids=len)
def test_valid_and_read_by_ome_zarr(tmp_path, models, shape, of_labels):
    from ome_zarr.io import parse_url
    from ome_zarr.reader import Label, Multiscales, Reader

    array = blobs(shape, "uint16")
    path = tmp_path / "a.ome.zarr"
    got = writer.write_pyramid(array, path, 3, labels=of_labels, input_spacing=(1.5, 0.8, 0.7)[-len(shape) :])
    model = (models.ImageLabel if of_labels else models.Image).from_zarr(zarr.open_group(str(path), mode="r"))
    assert model.ome_attributes.version == "0.5"
    assert (model.ome_attributes.model_dump(by_alias=True).get("image-label") is not None) == of_labels
    (node,) = Reader(parse_url(str(path), mode="r"))()
    assert any(isinstance(spec, Multiscales) for spec in node.specs)
    assert any(isinstance(spec, Label) for spec in node.specs) == of_labels
    assert [axis["name"] for axis in node.metadata["axes"]] == list("tczyx"[-len(shape) :])
    for level, data, steps in zip(got, node.data, node.metadata["coordinateTransformations"], strict=True):
        assert same_bits(data.compute(), level.array[...])
        d = level.grid.dimension
        assert [s["type"] for s in steps] == ["scale", "translation"]
        assert tuple(steps[0]["scale"][-d:][::-1]) == level.spacing
        assert tuple(steps[1]["translation"][-d:][::-1]) == level.origin


@pytest.mark.parametrize(("factors", "kind"), [(2, "gaussian"), ((1, 2, 3), "gaussian"), (3, "mean")])
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (-1, 0, 0, 0, -1, 0, 0, 0, 1), TURNED])
def test_voxels_are_where_the_transformations_say(tmp_path, direction, kind, factors):
    """Of a linear function of space, every voxel away from the border has the value of its place, on all levels."""
    shape = (37, 44, 50)
    grid = gr.Grid(shape[::-1], *GEOMETRY, direction)
    index = np.stack(np.indices(shape)[::-1], axis=-1).reshape(-1, 3).astype(float)
    slope = np.array([1.0, -2.0, 0.5])
    array = (grid.points(index) @ slope).reshape(shape)
    writer.write_pyramid(gr.Volume(array, *GEOMETRY, direction), tmp_path / "a.zarr", 3, kind=kind, factors=factors)
    # By the attributes alone, as a reader would.
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="r")
    turn = np.reshape(group.attrs["gpuresample"]["direction"], (3, 3))
    for dataset in group.attrs["ome"]["multiscales"][0]["datasets"]:
        level = group[dataset["path"]][...]
        scale, translation = (np.array(t[t["type"]]) for t in dataset["coordinateTransformations"])
        zyx = np.moveaxis(np.indices(level.shape), 0, -1) * scale + translation
        values = zyx[..., ::-1] @ turn.T @ slope
        inner = tuple(slice(n // 3, -(n // 3) or None) for n in level.shape)
        np.testing.assert_allclose(level[inner], values[inner], rtol=0, atol=1e-4)


def test_ngff_04_and_other_units_are_read(tmp_path):
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w", zarr_format=2)
    array = noise((2, 6, 7, 8), "uint16")
    group.create_array("s0", data=array, chunks=(1, 4, 4, 4))
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "zyx"]
    steps = [{"type": "scale", "scale": [1, 5.0, 2.0, 2.0]}, {"type": "translation", "translation": [0, 10.0, 0, 4.0]}]
    whole = [{"type": "scale", "scale": [1, 1, 1, 0.5]}]
    dataset = {"path": "s0", "coordinateTransformations": steps}
    group.attrs["multiscales"] = [
        {"version": "0.4", "axes": axes, "datasets": [dataset], "coordinateTransformations": whole}
    ]
    source = volumes.opened(tmp_path / "in.zarr")
    np.testing.assert_allclose(source.grid.spacing, (0.001, 0.002, 0.005))
    np.testing.assert_allclose(source.grid.origin, (0.002, 0.0, 0.01))
    assert source.lead == (ngff.Lead("c", "channel"),)
    got = writer.write_pyramid(tmp_path / "in.zarr", tmp_path / "out.zarr", 2)
    assert same_bits(got[1].array[...], gr.pyramid(array, 2)[1])


def test_chunks_and_shards(tmp_path):
    array = np.zeros((300, 300, 300), np.uint8)
    got = writer.write_pyramid(array, tmp_path / "a.zarr", 2)
    assert [v.array.chunks for v in got] == [(64, 64, 64)] * 2
    # 125 chunks are too many to lie about; 27 are not.
    assert [v.array.shards for v in got] == [(256, 256, 256), None]
    got = writer.write_pyramid(array, tmp_path / "b.zarr", 1, shards=False, chunks=(300, 100, 50))
    assert got[0].array.chunks == (300, 100, 50)
    assert got[0].array.shards is None
    # Chunks of zeros have no files.
    assert list((tmp_path / "a.zarr" / "0").iterdir()) == [tmp_path / "a.zarr" / "0" / "zarr.json"]


# --- a kill, and on ------------------------------------------------------------------------------------------------

_CHILD = """
import os, sys, threading, time
from gpuresample import cli
from gpuresample.omezarr import layout, unfinished

source, target, stop = sys.argv[1], sys.argv[2], int(sys.argv[3])
layout.EDGE, layout.UNIT, layout.PIECE, layout.LOOSE = {3: 16}, 24 << 10, 30 << 10, 4
mark, lock, marked = unfinished.Unfinished.mark, threading.Lock(), []

def waiting(work, step):
    # What is written after this many steps is on disk, but not marked, when the kill comes.
    with lock:
        if len(marked) == stop:
            print("stopped", flush=True)
            time.sleep(60)
        marked.append(step)
        mark(work, step)

unfinished.Unfinished.mark = waiting
sys.exit(cli.main(["pyramid", source, target, "--levels", "4"]))
"""


@contextlib.contextmanager
def started(code, *arguments):
    """A process that is killed at the end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, text=True, **pipes) as child:
        try:
            yield child
        finally:
            child.kill()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("steps", "level"), [(5, 0), (17, 1), (19, 2)])
def test_a_kill_loses_what_was_under_way_and_nothing_else(run, tmp_path, uninterrupted, steps, level):
    source, whole = uninterrupted
    target = tmp_path / "out.ome.zarr"
    with started(_CHILD, source, target, steps) as child:
        assert child.stdout.readline() == "stopped\n", child.stderr.read()
        child.send_signal(signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
    assert not target.exists()
    partial = tmp_path / ".out.ome.zarr.partial"
    log = (partial / "steps").read_text()
    assert len(log.splitlines()) == steps
    assert log.splitlines()[-1].startswith(f"{level} ")
    # A line that was being written, and a file that was.
    (partial / "steps").write_text(log + "0 0 1")
    (partial / "result" / "0" / "c").mkdir(parents=True, exist_ok=True)
    (partial / "result" / "0" / "c" / "0.1234.partial").write_text("torn")
    before = written(partial / "result")
    marked = files_of(log, partial / "result")
    assert marked or level == 0  # which begins with zeros
    code, _, err = run("pyramid", source, target, "--levels", 4)
    assert (code, err) == (0, "")
    assert not partial.exists()
    after = written(target)
    assert all(after[name] == before[name] for name in marked)
    assert listing(target) == whole


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A file, and the files of its pyramid."""
    folder = tmp_path_factory.mktemp("whole")
    array = noise((56, 52, 60), "int16")
    array[:20] = 0  # units of zeros have no files to be known by
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(GEOMETRY[0])
    image.SetDirection(TURNED)
    files.write(image, folder / "in.mha")
    image = files.read(folder / "in.mha")
    with cut_small():
        same_levels(writer.write_pyramid(image, folder / "out.ome.zarr", 4), gr.pyramid(image, 4))
    return folder / "in.mha", listing(folder / "out.ome.zarr")


def written(folder):
    """When every file of voxels was written."""
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in folder.rglob("c/**/*") if p.is_file()}


def files_of(log, folder):
    """Files of the steps that a log lists, where these have one: with shards, a unit is a file."""
    names = []
    for line in log.splitlines():
        level, *index, _checksum = line.split()
        name = f"{level}/c/{'/'.join(index)}"
        if (folder / level / "zarr.json").exists() and "sharding" in (folder / level / "zarr.json").read_text():
            names += [name] if (folder / name).is_file() else []
    return names


@pytest.mark.usefixtures("small")
def test_an_error_leaves_what_was_done(tmp_path, monkeypatch):
    volume = gr.Volume(noise((64, 60, 70), "int16"), *GEOMETRY)
    done, to_disk = [], writer._to_disk

    def full(array, block):
        if len(done) == 10:
            raise OSError("no space left on device")
        done.append(block)
        to_disk(array, block)

    monkeypatch.setattr(writer, "_to_disk", full)
    with pytest.raises(OSError, match="no space left"):
        writer.write_pyramid(volume, tmp_path / "a.zarr", 3)
    assert os.listdir(tmp_path) == [".a.zarr.partial"]
    steps = len((tmp_path / ".a.zarr.partial" / "steps").read_text().splitlines())
    assert 8 <= steps <= 10
    monkeypatch.setattr(writer, "_to_disk", to_disk)
    seen = []
    got = writer.write_pyramid(volume, tmp_path / "a.zarr", 3, progress=lambda *state: seen.append(state))
    same_levels(got, gr.pyramid(volume, 3))
    assert seen[0] == (0, 3, steps + 1, seen[0][3])
    assert [s for s in seen if s[2] == s[3]] == [
        (k, 3, s[2], s[3]) for k, s in enumerate(s for s in seen if s[2] == s[3])
    ]


def stopped(target, image, after, **keywords):
    """A pyramid that is left after some units."""

    def stop(level, levels, done, units):
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        writer.write_pyramid(image, target, progress=stop, **keywords)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("change", ["arguments", "voxels", "geometry", "layout"])
def test_another_job_begins_anew_and_says_so(tmp_path, change):
    array = noise(SHAPE, "int16")
    stopped(tmp_path / "a.zarr", gr.Volume(array, *GEOMETRY), 3, levels=3)
    keywords = {"levels": 3}
    geometry = GEOMETRY
    if change == "arguments":
        keywords["sigma"] = "itk"
    elif change == "voxels":
        array = array + np.int16(1)
    elif change == "geometry":
        geometry = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
    else:
        keywords["chunks"] = (10, 10, 10)
    volume = gr.Volume(array, *geometry)
    with pytest.warns(RuntimeWarning, match="begun anew"):
        got = writer.write_pyramid(volume, tmp_path / "a.zarr", **keywords)
    keywords.pop("chunks", None)
    same_levels(got, gr.pyramid(volume, **keywords))


@pytest.mark.usefixtures("small")
def test_what_is_there_stays_until_the_new_is_whole(tmp_path):
    old, new = (gr.Volume(noise(SHAPE, "int16", seed), *GEOMETRY) for seed in (1, 2))
    target = tmp_path / "a.zarr"
    writer.write_pyramid(old, target, 2)
    with pytest.raises(FileExistsError, match="exists already"):
        writer.write_pyramid(new, target, 2)
    stopped(target, new, 2, levels=2, overwrite=True)
    same_levels(writer.opened_levels(target), gr.pyramid(old, 2))
    same_levels(writer.write_pyramid(new, target, 2, overwrite=True), gr.pyramid(new, 2))
    assert os.listdir(tmp_path) == ["a.zarr"]


@pytest.mark.usefixtures("small")
def test_a_kill_between_the_two_renamings_is_mended(tmp_path, monkeypatch):
    old, new = (gr.Volume(noise(SHAPE, "int16", seed), *GEOMETRY) for seed in (1, 2))
    target = tmp_path / "a.zarr"
    writer.write_pyramid(old, target, 2)
    rename = os.rename

    def first_only(a, b):
        if b == target:
            raise KeyboardInterrupt
        rename(a, b)

    monkeypatch.setattr(unfinished.os, "rename", first_only)
    with pytest.raises(KeyboardInterrupt):
        writer.write_pyramid(new, target, 2, overwrite=True)
    monkeypatch.setattr(unfinished.os, "rename", rename)
    assert not target.exists()
    same_levels(writer.opened_levels(tmp_path / ".a.zarr.partial" / "replaced"), gr.pyramid(old, 2))
    same_levels(writer.write_pyramid(new, target, 2), gr.pyramid(new, 2))
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_one_process_at_a_time(tmp_path):
    target = tmp_path / "a.zarr"
    hold = (
        "import sys, pathlib\nfrom gpuresample.omezarr.unfinished import unfinished\n"
        "with unfinished(pathlib.Path(sys.argv[1]), {}) as work:\n    print('here', flush=True)\n    sys.stdin.read()"
    )
    with started(hold, target) as child:
        assert child.stdout.readline() == "here\n"
        with pytest.raises(BlockingIOError, match="another process is writing it"):
            writer.write_pyramid(noise((9, 9, 9), "int16"), target, 2)
    with pytest.warns(RuntimeWarning, match="begun anew"):
        writer.write_pyramid(noise((9, 9, 9), "int16"), target, 2)


# --- memory --------------------------------------------------------------------------------------------------------

_MEMORY = """
import json, sys
import numpy as np, zarr, gpuresample as gr
from gpuresample.omezarr import layout, writer
from gpuresample.bench.memory import memory_now

folder, n = sys.argv[1], int(sys.argv[2])
gr.set_num_threads(2)
layout.UNIT, layout.PIECE, limit = 1 << 20, 2 << 20, 30 << 20
rng = np.random.default_rng(0)
def make(name, shape):
    z = zarr.create_array(f"{folder}/{name}", shape=shape, chunks=(32, 64, 64), dtype="int16", overwrite=True)
    for k in range(0, shape[0], 32):
        z[k : k + 32] = rng.integers(0, 9999, (min(32, shape[0] - k), *shape[1:]), dtype="int16")
    return z
keywords = {"levels": 3, "chunks": (32, 64, 64), "memory": limit}
writer.write_pyramid(make("small", (70, 70, 70)), f"{folder}/small.zarr", **keywords)
z = make("big", (n, 256, 256))
before, needed = memory_now("VmHWM"), []
bytes_of = layout.unit_bytes
layout.unit_bytes = lambda *rest: needed.append(bytes_of(*rest)) or needed[-1]
writer.write_pyramid(z, f"{folder}/big.zarr", **keywords)
taken = memory_now("VmHWM") - before
print(json.dumps({"taken": taken, "bound": max(limit, *needed), "whole": 2 * int(np.prod(z.shape))}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_below_the_formula(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path), "512"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # What an allocator keeps for later is not in the formula.
    assert found["taken"] <= found["bound"] + (16 << 20), found
    assert found["bound"] < found["whole"] / 1.5


# --- refusals ------------------------------------------------------------------------------------------------------


def test_refusals(tmp_path):
    array, path = noise(SHAPE, "int16"), tmp_path / "a.zarr"
    with pytest.raises(ValueError, match=r"names that end with .ome.zarr or .zarr"):
        writer.write_pyramid(array, tmp_path / "a.nii")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        writer.write_pyramid(array, tmp_path / "none" / "a.zarr")
    with pytest.raises(TypeError, match="whole numbers as voxels to be labels, got float32"):
        writer.write_pyramid(array.astype("float32"), path, labels=True)
    with pytest.raises(ValueError, match="labels=True is for kind"):
        writer.write_pyramid(array, path, labels=True, kind="mean")
    with pytest.raises(ValueError, match="chunks must have 3 values"):
        writer.write_pyramid(array, path, chunks=(8, 8))
    with pytest.raises(ValueError, match="whole numbers of at least 1"):
        writer.write_pyramid(array, path, chunks=(8, 0, 8))
    with pytest.raises(ValueError, match="levels must be a whole number"):
        writer.write_pyramid(array, path, 0)
    with pytest.raises(ValueError, match="at most 2 axes before"):
        writer.write_pyramid(array[None, None, None], path)
    assert os.listdir(tmp_path) == []
    writer.write_pyramid(array, path, 2)
    for inside in (path, path / "0"):
        with pytest.raises(ValueError, match="must not be the input itself"):
            writer.write_pyramid(inside, path, 2, overwrite=True)
    zarr.open_group(str(tmp_path / "none.zarr"), mode="w")
    with pytest.raises(ValueError, match="is no OME-Zarr image"):
        writer.write_pyramid(tmp_path / "none.zarr", tmp_path / "b.zarr")


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        ({"axes": [{"name": n} for n in "xyz"]}, "must have axes that end with z, y, x"),
        ({"axes": [{"name": n} for n in "yx"]}, "but an array of shape"),
        ({"datasets": []}, "is no OME-Zarr image"),
        ({"datasets": [{"path": "7"}]}, "7"),
        ({"coordinateTransformations": [{"type": "rotation", "rotation": []}]}, "got 'rotation'"),
    ],
)
def test_images_that_are_not_understood(tmp_path, change, pattern):
    writer.write_pyramid(noise((9, 9, 9), "int16"), tmp_path / "a.zarr", 1)
    group = zarr.open_group(str(tmp_path / "a.zarr"))
    ome = group.attrs["ome"]
    ome["multiscales"][0].update(change)
    group.attrs["ome"] = ome
    with pytest.raises(ValueError, match=pattern):
        volumes.opened(tmp_path / "a.zarr")


def test_a_file_that_does_not_fit_is_refused_unread(tmp_path, monkeypatch):
    files.write(picture(), tmp_path / "a.nrrd")
    monkeypatch.setattr(volumes, "available_memory", lambda: 1000)
    monkeypatch.setattr(files, "read", lambda *_: pytest.fail("the voxels were read"))
    with pytest.raises(MemoryError, match="are read part by part"):
        writer.write_pyramid(tmp_path / "a.nrrd", tmp_path / "a.zarr")


# --- the page ------------------------------------------------------------------------------------------------------


def test_the_example_of_the_page(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parents[2] / "docs" / "tiles.md").read_text()
    monkeypatch.chdir(tmp_path)
    exec(re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1), {})
    printed = re.search(r"It prints\n\n```\n(.*?)```", page, re.DOTALL).group(1)
    assert capsys.readouterr().out == printed


# --- the command ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ([], {}),
        (["--levels", "3", "--factors", "isotropic"], {"levels": 3, "factors": "isotropic"}),
        (["--schedule", "1 / 2 2 1 / 4"], {"schedule": [1, (2, 2, 1), 4]}),
        (["--labels", "--levels", "2"], {"kind": "mode", "levels": 2}),
        (["--levels", "2", "--kind", "mean", "--chunks", "8", "8", "8", "--no-shards", "--threads", "1"],
         {"kind": "mean", "levels": 2}),
        (["--sigma", "itk", "--rounding", "truncate"], {"sigma": "itk", "rounding": "truncate"}),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)  # fmt: skip
def test_the_command_is_gr_pyramid(run, tmp_path, threads, typed, meant):
    files.write(picture(), tmp_path / "ct.nrrd")
    target = tmp_path / "ct.ome.zarr"
    code, out, err = run("pyramid", tmp_path / "ct.nrrd", target, *typed)
    assert (code, err) == (0, "")
    wanted = gr.pyramid(files.read(tmp_path / "ct.nrrd"), **meant)
    got = writer.opened_levels(target)
    same_levels(got, wanted)
    assert ("image-label" in zarr.open_group(str(target)).attrs["ome"]) == ("--labels" in typed)
    if "--chunks" in typed:
        assert (got[0].array.chunks, got[0].array.shards) == ((8, 8, 8), None)
    for k, level in enumerate(wanted):
        assert f"ct.ome.zarr/{k}: {' x '.join(map(str, level.GetSize()))} at" in out
    assert f"{len(wanted)} levels" in out.splitlines()[-1]


def test_the_command_reads_zarr(run, tmp_path):
    zarr.create_array(str(tmp_path / "in.zarr"), data=noise(SHAPE, "int16"), chunks=(8, 8, 8))
    code, out, err = run("pyramid", tmp_path / "in.zarr", tmp_path / "a.zarr", "--input-spacing", 0.5, 0.5, 2)
    assert (code, err) == (0, "")
    assert "40 x 31 x 29 at 0.5 x 0.5 x 2 mm, int16" in out
    code, out, err = run("pyramid", tmp_path / "a.zarr", tmp_path / "b.zarr", "--levels", 2)
    assert (code, err) == (0, "")
    assert "40 x 31 x 29 at 0.5 x 0.5 x 2 mm, int16" in out


def test_directions_are_kept_and_said(run, tmp_path, data_dir):
    code, out, _ = run("pyramid", data_dir / "FLAIR.nii.gz", tmp_path / "a.zarr", "--levels", 2)
    assert code == 0
    assert "NGFF 0.5 has no directions; they are in the attribute 'gpuresample'" in out


def test_the_command_refuses(run, tmp_path, monkeypatch):
    source, target = tmp_path / "ct.nrrd", tmp_path / "a.ome.zarr"
    files.write(picture(), source)
    zarr.create_array(str(tmp_path / "in.zarr"), data=noise((9, 9, 9), "int16"))
    files.write(picture(sitk.sitkFloat32), tmp_path / "f.nrrd")
    refused(
        run("pyramid", source, tmp_path / "out", "--no-shards"), 2, "--no-shards and --input-spacing are for an OUT"
    )
    refused(run("pyramid", source, tmp_path / "out", "--labels", "--kind", "mean"), 2, "--labels is --kind mode")
    refused(run("pyramid", source, target, "--labels", "--kind", "mean"), 2, "labels=True is for kind")
    refused(run("pyramid", tmp_path / "f.nrrd", target, "--labels"), 2, "whole numbers as voxels")
    refused(run("pyramid", source, target, "--input-spacing", 1), 2, "--input-spacing is for zarr arrays")
    refused(run("pyramid", tmp_path / "in.zarr", target, "--series", "1.2"), 2, "--series is for folders")
    refused(run("pyramid", source, target, "--schedule", "1 / 2", "--levels", 3), 2, "cannot be combined with levels=3")
    refused(run("pyramid", source, target, "--schedule", "1 / two"), 2, "--schedule takes whole numbers")
    refused(run("pyramid", source, target, "--schedule", "1 / 2 / 3"), 2, "chain of multiples")
    refused(run("pyramid", source, target, "--chunks", 8, 8), 2, "chunks must have 3 values")
    refused(run("pyramid", tmp_path / "none.nii", target), 1, "no such file")
    refused(run("pyramid", source, tmp_path / "none" / "a.zarr"), 1, "there is no folder")
    target.mkdir()
    refused(run("pyramid", source, target), 1, "exists already")
    assert run("pyramid", source, target, "--overwrite", "--levels", 1)[0] == 0
    monkeypatch.setitem(sys.modules, "zarr", None)
    refused(run("pyramid", source, tmp_path / "b.zarr"), 1, "needs zarr, which is missing")


# Units


def attributes(unit, axes=None):
    named = [{"name": n, "type": "space", **({} if unit is None else {"unit": unit})} for n in "zyx"]
    steps = [{"type": "scale", "scale": [2.0, 0.2, 0.2]}, {"type": "translation", "translation": [0.0, 1.0, 3.0]}]
    return {"multiscales": [{"axes": axes or named, "datasets": [{"path": "0", "coordinateTransformations": steps}]}]}


@pytest.mark.parametrize(
    ("unit", "length"),
    [
        ("micron", 1e-3), ("um", 1e-3), ("\u00b5m", 1e-3), ("\u03bcm", 1e-3), ("micrometer", 1e-3), ("picometer", 1e-9),
        ("foot", 304.8), ("kilometer", 1e6), ("yard", 914.4),
        ("decimeter", 100.0), ("nm", 1e-6), ("mm", 1.0), (None, 1.0),
    ],
)  # fmt: skip
def test_units_of_length_are_read(unit, length):
    attrs = attributes(unit)
    grid, _ = ngff.geometry(attrs, attrs["multiscales"][0], (4, 5, 6))
    np.testing.assert_allclose(grid.spacing, np.array([0.2, 0.2, 2.0]) * length, rtol=1e-12)
    np.testing.assert_allclose(grid.origin, np.array([3.0, 1.0, 0.0]) * length, rtol=1e-12)


@pytest.mark.parametrize("unit", ["pixel", "voxel", "second", "microns?", "Micrometer", "furlong", "1e-3", ["um"], 3])
def test_units_that_are_no_lengths_are_refused(unit):
    attrs = attributes(unit)
    with pytest.raises(ValueError, match=r"axis 'z' must have a unit of length .*, got "):
        ngff.geometry(attrs, attrs["multiscales"][0], (4, 5, 6))


def test_axes_of_early_versions_are_what_their_names_say():
    attrs = attributes(None, axes=list("tczyx"))
    attrs["multiscales"][0]["datasets"][0].pop("coordinateTransformations")
    _, lead = ngff.geometry(attrs, attrs["multiscales"][0], (1, 2, 4, 5, 6))
    assert [axis.kind for axis in lead] == ["time", "channel"]


# Arrays that claim to be huge

HUGE = [(10**5,) * 3, (10**4, 10**6, 10**5), (10**7, 10**4, 10**4), (2, 2, 10**5, 10**5, 10**5), (10**8, 10**7)]


def claims(path, shape):
    """An array without a single chunk: voxels that are not there are zeros."""
    chunks = (*(1,) * (len(shape) - 3), *(64,) * min(3, len(shape)))
    return zarr.create_array(str(path), shape=shape, chunks=chunks, dtype="i2")


@pytest.mark.parametrize("shape", HUGE)
def test_what_cannot_fit_the_disk_is_refused_at_once(tmp_path, shape):
    with pytest.raises(OSError, match=r"GB of voxels, and .* of disk are free; .* does not fit"):
        writer.write_pyramid(claims(tmp_path / "in.zarr", shape), tmp_path / "out.ome.zarr")
    assert [p.name for p in tmp_path.iterdir()] == ["in.zarr"]


def test_what_may_not_fit_is_warned_of(tmp_path, monkeypatch):
    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**5))
    with pytest.warns(RuntimeWarning, match="fits only if it packs well"):
        writer.write_pyramid(np.zeros((40, 40, 40), np.float32), tmp_path / "out.ome.zarr", levels=2)


@pytest.mark.parametrize("shape", [(10**5,) * 3, (2 * 10**5, 10**5, 3 * 10**4), (2, 10**5, 10**5, 10**5)])
def test_units_are_walked_not_listed(tmp_path, monkeypatch, shape):
    class Stop(Exception):
        pass

    told = []

    def stop(level, levels, done, units):
        told.append((done, units))
        if done == 4:
            raise Stop

    monkeypatch.setattr(writer.shutil, "disk_usage", lambda path: SimpleNamespace(free=10**18))
    array = claims(tmp_path / "in.zarr", shape)
    tracemalloc.start()
    try:
        with pytest.raises(Stop):
            writer.write_pyramid(array, tmp_path / "out.ome.zarr", levels=2, shards=False, progress=stop)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told[-1][1] > 10**7
    # The tables along axes of 10^5 voxels, units of 16 MiB under way; a list of the units takes gigabytes.
    assert peak < 700 << 20


@pytest.mark.parametrize(
    ("length", "shape"), [((3, 4), (10, 9)), ((1, 1, 1), (2, 3, 1)), ((7,), (7,)), ((5, 2, 3), (11, 1, 8))]
)
def test_a_walk_goes_where_the_list_goes(length, shape):
    listed = list(blocks.each(chunking.regular(length, shape)))
    assert list(chunking.walk(length, shape)) == listed
