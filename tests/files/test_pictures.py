"""2-D images of several components on the command line, against SimpleITK channel by channel."""

import json

import numpy as np
import pytest
import SimpleITK as sitk


def picture(path, shape, dtype=np.uint8, spacing=(1.0, 1.0)):
    array = np.random.default_rng(0).integers(0, 255, shape).astype(dtype)
    image = sitk.GetImageFromArray(array, isVector=True)
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "spacing"),
    [
        ("a.png", (20, 30, 3), np.uint8, (1.0, 1.0)), ("a.nrrd", (21, 17, 3), np.uint8, (0.5, 0.7)),
        ("a.mha", (20, 30, 2), np.int16, (1.0, 2.0)), ("a.tif", (24, 24, 3), np.uint8, (1.0, 1.0)),
        ("a.nrrd", (9, 11, 4), np.float32, (0.8, 0.9)), ("a.jpg", (32, 24, 3), np.uint8, (1.0, 1.0)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", [("--spacing", "2"), ("--size", "10", "12"), ("--spacing", "0.5", "0.7")])
def test_pictures_with_components_are_resampled(tmp_path, run, name, shape, dtype, spacing, asked):
    image = picture(tmp_path / name, shape, dtype, spacing)
    code, _, err = run("resample", tmp_path / name, tmp_path / "b.nrrd", *asked, "--interpolation", "linear")
    assert (code, err) == (0, "")
    made = sitk.ReadImage(str(tmp_path / "b.nrrd"))
    assert made.GetNumberOfComponentsPerPixel() == shape[2]
    for k in range(shape[2]):
        channel = sitk.VectorIndexSelectionCast(image, k, sitk.sitkFloat64)
        grid = made.GetOrigin(), made.GetSpacing(), made.GetDirection()
        wanted = sitk.Resample(channel, made.GetSize(), sitk.Transform(2, sitk.sitkIdentity), sitk.sitkLinear, *grid)
        got, wanted = sitk.GetArrayFromImage(made)[..., k], sitk.GetArrayFromImage(wanted)
        assert np.abs(got - wanted).max() <= (0.5001 if np.dtype(dtype).kind in "iu" else 1e-4)


def test_their_cost_is_that_of_all_components(tmp_path, run):
    picture(tmp_path / "a.png", (20, 30, 3))
    code, out, err = run("plan-cost", tmp_path / "a.png", "--spacing", "2", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)


def test_a_wrong_number_of_values_is_still_refused(tmp_path, run):
    picture(tmp_path / "a.png", (20, 30, 3))
    code, _, err = run("resample", tmp_path / "a.png", tmp_path / "b.nrrd", "--spacing", "1", "2", "3")
    assert code == 2
    assert "spacing must have 2 values" in err
