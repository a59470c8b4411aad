"""`gpuresample ensemble` of class scores that nnU-Net 1 and 2 left behind: on crops, and on the RAS grid."""

import os
import pickle

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused
from scipy import ndimage

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

SHAPE = (12, 20, 24)


@pytest.fixture
def answer(tmp_path, run):
    """`answer(scores, properties, *words, direction=, name=)`: what the command says, and the labels it writes."""

    def answer(scores, properties, *words, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), name="probabilities", like=SHAPE):
        image = sitk.Image(like[::-1], sitk.sitkInt16)
        image.SetSpacing((0.8, 0.9, 1.5))
        image.SetOrigin((-10, 20, 30))
        image.SetDirection(direction)
        sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
        np.savez_compressed(tmp_path / "case.npz", **{name: scores})
        if properties is not None:
            (tmp_path / "case.pkl").write_bytes(pickle.dumps(properties))
        out = tmp_path / "labels.nii.gz"
        said = run(
            "ensemble", tmp_path / "case.npz", "--like", tmp_path / "ct.nii.gz", "-o", out, "--no-picture", *words
        )
        return said, sitk.GetArrayFromImage(sitk.ReadImage(str(out))) if out.exists() else None

    return answer


def probabilities(shape, classes=3, seed=0):
    p = np.random.default_rng(seed).random((classes, *shape)).astype(np.float32)
    return p / p.sum(axis=0)


BOXES = [((1, 11), (4, 12), (4, 20)), ((0, 12), (0, 20), (3, 24)), ((2, 3), (5, 20), (0, 24)),
         ((0, 12), (0, 20), (0, 24)), ((5, 12), (13, 20), (20, 24)), ((0, 1), (0, 1), (0, 1))]  # fmt: skip


@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("kind", [list, np.array])
def test_scores_of_version_1_lie_on_their_crop(answer, box, kind):
    p = probabilities([b - a for a, b in box])
    properties = {"crop_bbox": [list(pair) for pair in box], "original_size_of_raw_data": kind(SHAPE),
                  "itk_spacing": (0.8, 0.9, 1.5), "classes": np.array([0, 1, 2])}  # fmt: skip
    (code, _, err), labels = answer(p, properties, name="softmax")
    assert (code, err) == (0, "")
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(slice(a, b) for a, b in box)] = p.argmax(axis=0)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("box", BOXES)
def test_regions_of_version_1_lie_on_their_crop(answer, box):
    p = np.random.default_rng(2).random((2, *(b - a for a, b in box))).astype(np.float16)
    properties = {"crop_bbox": [list(pair) for pair in box], "original_size_of_raw_data": SHAPE}
    (code, _, err), labels = answer(p, properties, "--regions", 3, 5, name="softmax")
    assert (code, err) == (0, "")
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(slice(a, b) for a, b in box)] = np.where(p[1] > 0.5, 5, np.where(p[0] > 0.5, 3, 0))
    np.testing.assert_array_equal(labels, expected)


def test_what_does_not_fit_is_refused(answer):
    p = probabilities((10, 8, 16))
    right = {"crop_bbox": [[1, 11], [4, 12], [4, 20]], "original_size_of_raw_data": np.array(SHAPE)}
    refused(answer(p, None, name="softmax")[0], 2, "has scores of .* nnU-Net writes scores on a cropped box")
    refused(answer(p, {"spacing": (1, 1, 1)}, name="softmax")[0], 2, "says nothing of that")
    refused(
        answer(p, {**right, "crop_bbox": [[1, 10], [4, 12], [4, 20]]}, name="softmax")[0], 2, "its .pkl says the box"
    )
    refused(answer(p, {**right, "original_size_of_raw_data": (9, 9, 9)}, name="softmax")[0], 2, "is of an image of")
    refused(answer(p, [1, 2], name="softmax")[0], 1, "holds a list")


def test_scores_of_another_origin_go_by_what_is_said(answer):
    p = probabilities((6, 10, 12))
    (code, _, err), labels = answer(p, None, "--scores-spacing", 1.6, 1.8, 3.0)
    assert (code, err) == (0, "")
    assert labels.shape == SHAPE


def test_a_pickle_runs_nothing(answer, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    refused(answer(probabilities(SHAPE), {"spacing": Runs()})[0], 1, "which is not loaded: loading it may run code")
    assert not (tmp_path / "ran").exists()


TURNS = {
    "LAS": (-1, 0, 0, 0, 1, 0, 0, 0, 1),
    "LPS": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "PIR": (0, 0, -1, 1, 0, 0, 0, -1, 0),
    "RSP": (-1, 0, 0, 0, 0, 1, 0, 1, 0),
    "ARS": (0, -1, 0, -1, 0, 0, 0, 0, 1),
}


@pytest.mark.parametrize("turn", TURNS)
def test_scores_of_a_reader_that_reorients_lie_on_the_ras_grid(answer, tmp_path, turn):
    nib = pytest.importorskip("nibabel")
    truth = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    image = sitk.GetImageFromArray(truth)
    image.SetSpacing((0.8, 0.9, 1.5))
    image.SetOrigin((-10, 20, 30))
    image.SetDirection(TURNS[turn])
    sitk.WriteImage(image, str(tmp_path / "truth.nii.gz"))
    # As nnU-Net's NibabelIOWithReorient reads and writes.
    as_read = nib.load(tmp_path / "truth.nii.gz")
    turned = as_read.as_reoriented(nib.io_orientation(as_read.affine))
    seen = np.asarray(turned.dataobj).transpose(2, 1, 0)
    p = np.stack([seen == k for k in range(3)]).astype(np.float32)
    properties = {
        "nibabel_stuff": {"original_affine": as_read.affine, "reoriented_affine": turned.affine},
        "spacing": [float(v) for v in turned.header.get_zooms()[::-1]],
    }
    (code, _, err), labels = answer(p, properties, direction=TURNS[turn])
    assert (code, err) == (0, "")
    np.testing.assert_array_equal(labels, truth)


# --- regions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (1, 1, 2), (7, 5, 4), (2, 3, 1)])
def test_probabilities_of_regions_become_labels(answer, order):
    p = np.random.default_rng(1).random((3, *SHAPE)).astype(np.float32)
    (code, _, err), labels = answer(p, None, "--regions", *order)
    assert (code, err) == (0, "")
    expected = np.zeros(SHAPE, np.uint8)
    for channel, label in zip(p, order, strict=True):
        expected[channel > 0.5] = label
    np.testing.assert_array_equal(labels, expected)


def test_nothing_is_squashed_twice(answer):
    refused(answer(probabilities(SHAPE), None, "--activation", "sigmoid")[0], 2, "--activation must be none")
    refused(answer(probabilities(SHAPE), None, "--activation", "softmax")[0], 2, "--activation must be none")


@pytest.mark.parametrize("before", [False, True])
def test_regions_average_and_end_at_a_models_border(before):
    a, b = (np.random.default_rng(k).random((2, 6, 7, 8)).astype(np.float32) for k in (0, 1))
    how = {"activation": None, "regions": (4, 9), "threshold": (0.4, 0.6), "resample_after": before}
    labels, p, entropy = gr.ensemble([a, b], **how, output=["labels", "probabilities", "entropy"])
    mean = (a + b) / 2
    np.testing.assert_allclose(p, mean, rtol=0, atol=1e-6)
    expected = np.where(mean[1] > np.float32(0.6), 9, np.where(mean[0] > np.float32(0.4), 4, 0))
    assert (labels != expected).mean() < 0.01
    h = -(mean * np.log(mean) + (1 - mean) * np.log(1 - mean)).sum(axis=0)
    np.testing.assert_allclose(entropy, h, rtol=0, atol=1e-5)
    part = gr.Volume(np.ones((2, 3, 3, 3), np.float32), (1, 1, 1))
    out = gr.ensemble([part], like=gr.Volume(np.zeros((9, 9, 9), np.uint8), (1, 1, 1)), activation=None, regions=(4, 9))
    assert (out.array[:3, :3, :3] == 9).all()
    assert (out.array[5:] == 0).all()


@pytest.mark.parametrize(("keywords", "message"), [
    ({"activation": "softmax", "regions": (1, 2)}, "regions are for classes that may overlap"),
    ({"activation": None, "regions": (1, 2), "labels": (1, 2)}, "labels are for classes that exclude each other"),
    ({"activation": None, "threshold": 0.3}, "threshold is for classes that may overlap"),
    ({"activation": None, "regions": (1, 2, 3)}, "regions must have one number for each of the 2"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        gr.ensemble([np.zeros((2, 3, 3, 3), np.float32)], **keywords)


def test_blosc2_arrays(tmp_path, run):
    blosc2 = pytest.importorskip("blosc2")
    p = probabilities(SHAPE)
    blosc2.asarray(np.log(p), urlpath=str(tmp_path / "case.b2nd"), mode="w")
    sitk.WriteImage(sitk.Image(SHAPE[::-1], sitk.sitkInt16), str(tmp_path / "ct.nrrd"))
    out = tmp_path / "labels.nrrd"
    assert run("ensemble", tmp_path / "case.b2nd", "--like", tmp_path / "ct.nrrd", "-o", out, "--no-picture")[0] == 0
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(out))), p.argmax(axis=0))


SIZES = [(10, 8, 16), (20, 16, 32), (5, 4, 8), (7, 13, 9), (1, 1, 1), (30, 8, 5)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("box", [BOXES[0], BOXES[3], BOXES[4]], ids=str)
@pytest.mark.parametrize("turn", ["LPS", "LAS", "PIR"])
def test_blosc2_scores_lie_on_their_crop_at_their_spacing(tmp_path, run, size, box, turn):
    """Of another size than the image's they were stretched over the whole of it."""
    blosc2 = pytest.importorskip("blosc2")
    logits = np.random.default_rng(3).normal(size=(3, *size)).astype(np.float32)
    blosc2.asarray(logits, urlpath=str(tmp_path / "case.b2nd"), mode="w")
    properties = {"bbox_used_for_cropping": [list(pair) for pair in box], "shape_before_cropping": SHAPE}
    (tmp_path / "case.pkl").write_bytes(pickle.dumps(properties))
    image = sitk.Image(SHAPE[::-1], sitk.sitkInt16)
    image.SetDirection(TURNS[turn])
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    out = tmp_path / "labels.nrrd"
    code, _, err = run("ensemble", tmp_path / "case.b2nd", "--like", tmp_path / "ct.nrrd", "-o", out, "--no-picture")
    assert (code, err) == (0, "")
    # nnU-Net resizes logits to the box, linearly, outer faces on outer faces, and puts their arg-max where the box was.
    zoom = [(b - a) / n for (a, b), n in zip(box, size, strict=True)]
    on_box = np.stack([ndimage.zoom(one, zoom, order=1, mode="nearest", grid_mode=True) for one in logits])
    expected = np.zeros(SHAPE, np.uint8)
    expected[tuple(slice(a, b) for a, b in box)] = on_box.argmax(axis=0)
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(out))) == expected).mean() > 0.999


def test_blosc2_scores_that_lie_nowhere_are_refused(tmp_path, run):
    blosc2 = pytest.importorskip("blosc2")
    blosc2.asarray(np.zeros((2, 5, 6, 7), np.float32), urlpath=str(tmp_path / "case.b2nd"), mode="w")
    sitk.WriteImage(sitk.Image(SHAPE[::-1], sitk.sitkInt16), str(tmp_path / "ct.nrrd"))
    words = ("ensemble", tmp_path / "case.b2nd", "--like", tmp_path / "ct.nrrd", "-o", tmp_path / "o.nrrd")
    refused(run(*words), 2, "put that file beside it")
    properties = {"bbox_used_for_cropping": [[0, 5], [0, 6], [0, 7]], "shape_before_cropping": (20, 12, 24)}
    (tmp_path / "case.pkl").write_bytes(pickle.dumps(properties))
    refused(run(*words), 2, r"is of an image of \(20, 12, 24\) voxels")
    code, _, err = run(*words, "--scores-spacing", 1, "--no-picture")
    assert (code, err) == (0, "")
