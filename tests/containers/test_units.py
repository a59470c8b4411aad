"""Units of length: `like=` between images whose headers name different ones."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import gpuresample as gr

LENGTHS = {"mm": 1.0, "micron": 1e-3, "meter": 1e3}
VOXELS = np.random.default_rng(0).normal(size=(10, 11, 12)).astype(np.float32)


def image(unit, step=0.5, size=(10, 11, 12), origin=(3.0, -4.0, 5.0)):
    """An image of this spacing and origin in millimetres, told in the unit."""
    affine = np.diag([step] * 3 + [1.0])
    affine[:3, 3] = origin
    affine[:3] /= LENGTHS.get(unit, 1.0)
    made = nib.Nifti1Image(VOXELS[tuple(slice(0, n) for n in size)], affine)
    made.header.set_xyzt_units(unit)
    return made


@pytest.mark.parametrize(("own", "other"), list(itertools.product(LENGTHS, LENGTHS)))
def test_like_in_another_unit(own, other):
    same = gr.resample(image(own), like=image(other), interpolation="linear")
    np.testing.assert_allclose(np.asanyarray(same.dataobj), VOXELS, atol=1e-5)
    np.testing.assert_allclose(same.affine, image(own).affine, rtol=1e-9)
    assert same.header.get_xyzt_units()[0] == own
    target = (0.7, (6, 7, 8), (3.2, -3.5, 5.1))
    made = gr.resample(image(own), like=image(other, *target), interpolation="linear")
    wanted = gr.resample(image("mm"), like=image("mm", *target), interpolation="linear")
    np.testing.assert_allclose(np.asanyarray(made.dataobj), np.asanyarray(wanted.dataobj), atol=1e-5)


@pytest.mark.parametrize("unit", LENGTHS)
def test_simpleitk_is_in_millimetres(tmp_path, unit):
    nib.save(image(unit), tmp_path / "a.nii")
    of_itk = sitk.ReadImage(str(tmp_path / "a.nii"))
    np.testing.assert_allclose(of_itk.GetSpacing(), (0.5,) * 3, rtol=1e-6)
    made = gr.resample(image(unit), like=of_itk, interpolation="linear")
    np.testing.assert_allclose(np.asanyarray(made.dataobj), VOXELS, atol=1e-4)
    back = gr.resample(of_itk, like=image(unit), interpolation="linear")
    np.testing.assert_allclose(sitk.GetArrayFromImage(back), VOXELS.T, atol=1e-4)


@pytest.mark.filterwarnings("ignore:like lies nowhere near")
@pytest.mark.parametrize("unit", [*LENGTHS, "unknown"])
def test_nothing_is_converted_where_no_unit_is_told(unit):
    grid = gr.Grid((5, 5, 5), (0.5,) * 3, (-3.0, 4.0, 5.0), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    for like in (grid, image("unknown", size=(5, 5, 5))):
        made = gr.resample(image(unit), like=like, interpolation="nearest")
        np.testing.assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), 0.5)


@pytest.mark.parametrize("code", [7, 7 | 8, 5])
def test_a_code_that_is_no_unit(code):
    """nibabel has no word for it."""
    odd, plain = image("unknown", size=(5, 5, 5)), image("unknown", size=(5, 5, 5))
    odd.header["xyzt_units"] = code
    for own in ("mm", "unknown"):
        made = gr.resample(image(own), like=odd, interpolation="linear")
        wanted = gr.resample(image(own), like=plain, interpolation="linear")
        assert np.array_equal(np.asanyarray(made.dataobj), np.asanyarray(wanted.dataobj))
    made = gr.resample(odd, like=image("mm", 0.7, (6, 7, 8)), interpolation="linear")
    np.testing.assert_allclose(np.linalg.norm(made.affine[:3, :3], axis=0), 0.7)
