"""`convention="nibabel"` beside nibabel's `resample_to_output`, on images that lie in every way."""

import numpy as np
import pytest
import SimpleITK as sitk
from support import noise

import gpuresample as gr

nib = pytest.importorskip("nibabel")
from nibabel.processing import resample_from_to, resample_to_output  # noqa: E402 - where there is nibabel

SHAPE = (11, 9, 13)


def turn(axis, angle):
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    a, b = [k for k in range(3) if k != axis]
    matrix[a, a], matrix[a, b], matrix[b, a], matrix[b, b] = c, -s, s, c
    return matrix


LIE = {
    "RAS": np.eye(3),
    "LAS": np.diag([-1.0, 1, 1]),
    "LPS": np.diag([-1.0, -1, 1]),
    "PIR": np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]),
    "SAL": np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]]),
    "oblique": turn(2, 0.3) @ turn(0, -0.2),
    "oblique LAS": turn(1, 0.25) @ np.diag([-1.0, 1, 1]),
}


def image(name, dtype="float32"):
    affine = np.eye(4)
    affine[:3, :3] = LIE[name] * [1.1, 0.9, 1.7]
    affine[:3, 3] = 12.3, -7.7, 5.1
    return nib.Nifti1Image(noise(SHAPE, dtype), affine)


@pytest.mark.parametrize("name", LIE)
@pytest.mark.parametrize(("order", "word"), [(0, "nearest"), (1, "linear"), (3, "bspline")])
@pytest.mark.parametrize("spacing", [(1.31, 1.37, 0.84), (2.3, 0.72, 1.9)])
def test_the_image_is_nibabels(name, order, word, spacing):
    x = image(name)
    theirs = resample_to_output(x, spacing, order=order)
    mine = gr.resample(x, spacing=spacing, interpolation=word, convention="nibabel")
    assert mine.shape == theirs.shape
    np.testing.assert_allclose(mine.affine, theirs.affine, rtol=0, atol=1e-9)
    a, b = np.asarray(mine.dataobj), np.asarray(theirs.dataobj)
    apart = np.abs(a - b)
    # The first plane lies on the corner voxels. By round-off nibabel takes it to be outside in some images, and says 0.
    edge = np.ones(a.shape, bool)
    edge[1:-1, 1:-1, 1:-1] = False
    lost = edge & (b == 0) & (a != 0)
    assert apart[~lost].max() <= (0 if order == 0 else 2e-6 * float(np.ptp(np.asarray(x.dataobj))))


@pytest.mark.parametrize("name", LIE)
def test_integers_round_as_nibabels(name):
    x = image(name, "int16")
    theirs = np.asarray(resample_to_output(x, (1.31, 1.37, 0.84), order=1).dataobj)[1:-1, 1:-1, 1:-1]
    mine = gr.resample(x, spacing=(1.31, 1.37, 0.84), interpolation="linear", convention="nibabel")
    apart = np.abs(np.asarray(mine.dataobj)[1:-1, 1:-1, 1:-1].astype(int) - theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= 0.005


@pytest.mark.parametrize("name", ["LAS", "PIR", "oblique"])
def test_other_kinds_of_image_come_out_the_same(name):
    x = image(name)
    wanted = gr.resample(x, spacing=1.5, interpolation="linear", convention="nibabel")
    lps = np.diag([-1.0, -1, 1]) @ x.affine[:3, :3] / [1.1, 0.9, 1.7]
    twin = sitk.GetImageFromArray(np.asarray(x.dataobj).T)
    twin.SetSpacing((1.1, 0.9, 1.7))
    twin.SetOrigin((-12.3, 7.7, 5.1))
    twin.SetDirection(lps.ravel().tolist())
    mine = gr.resample(twin, spacing=1.5, interpolation="linear", convention="nibabel")
    # Origins differ by a float32's rounding, in parts of the range.
    bound = 2e-6 * float(np.ptp(np.asarray(x.dataobj)))
    np.testing.assert_allclose(sitk.GetArrayFromImage(mine).T, np.asarray(wanted.dataobj), rtol=0, atol=bound)
    assert mine.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    np.testing.assert_allclose(np.array(mine.GetOrigin()) * [-1, -1, 1], wanted.affine[:3, 3], atol=1e-9)


def test_a_bare_array_lies_as_it_is():
    x = image("RAS")
    array = np.ascontiguousarray(np.asarray(x.dataobj).T)
    mine = gr.resample(array, spacing=1.5, input_spacing=(1.7, 0.9, 1.1), convention="nibabel")
    np.testing.assert_allclose(mine.T, np.asarray(gr.resample(x, spacing=1.5, convention="nibabel").dataobj), atol=1e-5)


@pytest.mark.parametrize("name", LIE)
@pytest.mark.parametrize(("order", "word"), [(0, "nearest"), (1, "linear"), (3, "bspline")])
def test_onto_a_shape_and_an_affine_is_nibabels(name, order, word):
    x, onto = image("oblique"), image(name)
    pair = (9, 10, 8), onto.affine @ np.diag([1.3, 1.2, 0.8, 1.0])
    theirs = resample_from_to(x, pair, order=order)
    for like in (pair, theirs):
        mine = gr.resample(x, like=like, interpolation=word, convention="nibabel")
        np.testing.assert_allclose(mine.affine, theirs.affine, rtol=0, atol=1e-9)
        a, b = np.asarray(mine.dataobj), np.asarray(theirs.dataobj)
        assert a.shape == b.shape
        # What lies on the border to the bit is in or out by round-off: the first planes of a grid that is not turned.
        differ = np.abs(a - b) > (0 if order == 0 else 2e-6 * float(np.ptp(np.asarray(x.dataobj))))
        assert not differ[1:, 1:, 1:].any()
        assert name == "oblique" or differ.sum() <= 1
    assert gr.resample(x, like=pair, interpolation="linear").shape == (9, 10, 8)
    with pytest.raises(ValueError, match="like must have"):
        gr.resample(x, like=((9, 10, 8), np.zeros((4, 4))))


@pytest.mark.parametrize("size", [(9, 12), (30, 5), (1, 8), (17, 17)], ids=str)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_slices_are_volumes_of_one_slice_as_nibabel_has_them(size, order):
    affine = np.diag([-0.75, 1.5, 3.0, 1.0])
    affine[:3, 3] = 5, -7, 9
    image = nib.Nifti1Image(np.random.default_rng(0).random(size), affine)
    word = {0: "nearest", 1: "linear", 3: "bspline"}[order]
    wanted = resample_to_output(image, (1.1, 1.3, 3.0), order=order)
    got = gr.resample(image, spacing=(1.1, 1.3, 3.0), interpolation=word, convention="nibabel")
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got.affine, wanted.affine, atol=1e-9)
    np.testing.assert_allclose(got.get_fdata(), wanted.get_fdata(), rtol=0, atol=1e-7)
    like = ((8, 9, 1), affine)
    assert gr.resample(image, like=like, interpolation=word).shape == (8, 9, 1)
