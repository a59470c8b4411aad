"""`gpuresample ensemble`: scores in files to a label map in a file."""

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

from gpuresample.cli import options
from gpuresample.files import scores as score_files
from gpuresample.files import volumes as files

PNG = b"\x89PNG\r\n\x1a\n"


def scores(seed, shape=(3, 6, 10, 12), dtype=np.float32):
    return (2 * np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


@pytest.fixture
def like(tmp_path):
    path = tmp_path / "ct.nrrd"
    files.write(volume(), path)
    return path


def written(tmp_path, form, arrays):
    """Files of scores, and what they are to Python."""
    paths = [tmp_path / f"model{k}{form}" for k in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        if form == ".npy":
            np.save(path, array)
        elif form == ".npz":
            np.savez_compressed(path, probabilities=array)
        elif form == ".zarr":
            zarr = pytest.importorskip("zarr", reason="zarr is the extra gpuresample[zarr]")
            zarr.save_array(str(path), array)
        else:
            image = sitk.GetImageFromArray(np.moveaxis(array, 0, -1), isVector=True)
            image.SetSpacing((1.6, 1.6, 3.0))
            image.SetOrigin((-10.0, 20.0, 30.0))
            files.write(image, path)
    return paths


def voxels(path):
    return sitk.GetArrayFromImage(files.read(path))


@pytest.mark.parametrize("form", [".npy", ".zarr", ".nrrd"])
def test_every_kind_of_file(tmp_path, run, like, form):
    arrays = [scores(k) for k in range(2)]
    paths = written(tmp_path, form, arrays)
    code, out, err = run("ensemble", *paths, "--like", like, "-o", tmp_path / "labels.nii.gz")
    assert (code, err) == (0, "")
    expected = gr.ensemble([files.read(p) for p in paths] if form == ".nrrd" else arrays, like=files.read(like))
    np.testing.assert_array_equal(voxels(tmp_path / "labels.nii.gz"), sitk.GetArrayFromImage(expected))
    assert files.read(tmp_path / "labels.nii.gz").GetPixelID() == sitk.sitkUInt8
    assert (tmp_path / "labels.png").read_bytes().startswith(PNG)
    assert "24 x 20 x 12 at 0.8 x 0.8 x 1.5 mm" in out


def test_npz_holds_probabilities_as_nnunet_writes_them(tmp_path, run, like):
    p = np.exp(scores(0, (3, 12, 20, 24)))
    p = (p / p.sum(axis=0)).astype(np.float16)
    [path] = written(tmp_path, ".npz", [p])
    assert run("ensemble", path, "--like", like, "-o", tmp_path / "labels.mha", "--no-picture")[0] == 0
    np.testing.assert_array_equal(voxels(tmp_path / "labels.mha"), p.argmax(axis=0))
    assert not (tmp_path / "labels.png").exists()


def test_everything_that_can_be_asked_for(tmp_path, run, like):
    arrays = [scores(k) for k in range(3)]
    paths = written(tmp_path, ".npy", arrays)
    more = {name: tmp_path / f"{name}.nrrd" for name in ("probabilities", "confidence", "entropy")}
    code, out, err = run(
        "ensemble", *paths, "--like", like, "-o", tmp_path / "labels.nrrd", "--weights", 1, 2, 3, "--labels", 0, 5, 300,
        "--interpolation", "bspline", "--scores-spacing", 1.6, 1.7, 3, "--anchor", "edge", "--resample-after",
        *[word for name, path in more.items() for word in (f"--{name}", path)],
    )  # fmt: skip
    assert (code, err) == (0, "")
    names = ["labels", *more]
    expected = gr.ensemble(
        arrays, like=files.read(like), weights=(1, 2, 3), labels=(0, 5, 300), interpolation="bspline",
        input_spacing=(3, 1.7, 1.6), anchor="edge", resample_after=True, output=names,
    )  # fmt: skip
    for name, image in zip(names, expected, strict=True):
        got = files.read(tmp_path / f"{name}.nrrd")
        assert got.GetPixelIDTypeAsString() == image.GetPixelIDTypeAsString()
        np.testing.assert_array_equal(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(image))
    assert len(out.splitlines()) == 6


def test_regions_and_thresholds(tmp_path, run, like):
    paths = written(tmp_path, ".npy", [scores(0)])
    for words, keywords in (
        (("--regions", 1, 2, 3, "--threshold", 0.3, 0.5, 0.6), {"regions": (1, 2, 3), "threshold": (0.3, 0.5, 0.6)}),
        (("--threshold", 0.4), {"threshold": 0.4}),
    ):
        run(
            "ensemble",
            *paths,
            "--like",
            like,
            "-o",
            tmp_path / "l.mha",
            "--activation",
            "sigmoid",
            "--overwrite",
            *words,
        )
        expected = gr.ensemble([scores(0)], like=files.read(like), activation="sigmoid", **keywords)
        np.testing.assert_array_equal(voxels(tmp_path / "l.mha"), sitk.GetArrayFromImage(expected))


def test_any_number_of_labels_is_one_argument():
    words = ["ensemble", "a.npy", "--labels", "0", "1", "2", "3", "4", "5", "--weights", "1", "-o", "x"]
    assert options.joined(words) == ["ensemble", "a.npy", "--labels=0 1 2 3 4 5", "--weights=1", "-o", "x"]


def test_pictures_of_two_dimensions_of_no_labels_and_of_many(tmp_path):
    from gpuresample.cli import overlay

    flat = volume(size=(24, 20))
    overlay.draw(flat, flat > 100, tmp_path / "flat.png")
    whole = volume()
    overlay.draw(whole, whole * 0, tmp_path / "none.png")
    overlay.draw(whole, whole, tmp_path / "many.png")
    for name in ("flat", "none", "many"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(PNG)


# ------------------------------------------------------------------------------------------ refusals


def test_files_that_cannot_serve(tmp_path, run, like):
    out = tmp_path / "labels.nii.gz"

    def answer(path, *words):
        return run("ensemble", path, "--like", like, "-o", out, *words)

    refused(answer(tmp_path / "none.npy"), 1, "none.npy: no such file")
    np.savez(tmp_path / "other.npz", logits=scores(0))
    refused(answer(tmp_path / "other.npz"), 2, "has no array 'probabilities' or 'softmax', but 'logits'")
    refused(answer(tmp_path / "other.npz", "--array", "x"), 2, "has no array 'x', but 'logits'")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], object), allow_pickle=True)
    refused(answer(tmp_path / "pickled.npy"), 1, "holds Python objects, which are not loaded")
    np.savez(tmp_path / "pickled.npz", probabilities=np.array([{"a": 1}], object))
    refused(answer(tmp_path / "pickled.npz"), 1, "holds Python objects, which are not loaded")
    (tmp_path / "cut.npz").write_bytes((tmp_path / "other.npz").read_bytes()[:300])
    refused(answer(tmp_path / "cut.npz"), 1, "cut.npz: is damaged")
    (tmp_path / "empty.npy").write_bytes(b"")
    refused(answer(tmp_path / "empty.npy"), 1, "empty.npy: is damaged")
    files.write(volume(), tmp_path / "scalar.nrrd")
    refused(answer(tmp_path / "scalar.nrrd"), 2, r"logits\[0\] must have one axis of classes")
    assert not out.exists()
    assert not (tmp_path / "labels.png").exists()


def test_zarr_groups(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr is the extra gpuresample[zarr]")
    group = zarr.open_group(str(tmp_path / "g.zarr"), mode="w")
    group.create_array("0", data=scores(1))
    group.create_array("scores", data=scores(2))
    np.testing.assert_array_equal(score_files.read(tmp_path / "g.zarr")[:], scores(1))
    np.testing.assert_array_equal(score_files.read(tmp_path / "g.zarr", "scores")[:], scores(2))
    with pytest.raises(ValueError, match="has no array 'x', but '0', 'scores'"):
        score_files.read(tmp_path / "g.zarr", "x")


def test_arguments_that_cannot_work(tmp_path, run, like):
    paths = written(tmp_path, ".npy", [scores(0)])
    np.savez(tmp_path / "p.npz", probabilities=scores(0))

    def answer(*words):
        return run("ensemble", *paths, *words, "--like", like, "-o", tmp_path / "labels.nii.gz")

    refused(answer("--weights", 1, 2), 2, "--weights must be one number for each of the 1 models")
    refused(answer("--weights", "a"), 2, "--weights takes numbers")
    refused(answer("--activation", "relu"), 2, "activation must be one of")
    refused(answer(tmp_path / "p.npz"), 2, "--activation must be given")
    refused(answer("--labels", 0, 1), 2, "labels must have one number for each of the 3 classes")
    refused(run("ensemble", *paths, "--like", like, "-o", tmp_path / "labels.tif"), 2, "volumes are written as")
    (tmp_path / "labels.nii.gz").write_bytes(b"mine")
    refused(answer(), 1, "exists already")
    assert (tmp_path / "labels.nii.gz").read_bytes() == b"mine"
