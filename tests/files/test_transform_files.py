"""Files with transforms: one, or a composite; several beside one another are refused, whatever the format."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import volume

from gpuresample.files import transforms

ONE = "Transform: {}_double_3_3\nParameters: {}\nFixedParameters: {}\n"
TRANSLATION = ("TranslationTransform", "{} {} {}", "")
SCALE = ("ScaleTransform", "{} {} {}", "1 2 3")
AFFINE = ("AffineTransform", "1 0 0 0 1 0 0 0 1 {} {} {}", "0 0 0")
EULER = ("Euler3DTransform", "0.1 0 0 {} {} {}", "0 0 0 0")


def text_of(*kinds):
    """A transform file of the text format."""
    parts = [
        ONE.format(name, values.format(k + 1, k + 2, k + 3), fixed) for k, (name, values, fixed) in enumerate(kinds)
    ]
    return "#Insight Transform File V1.0\n" + "".join(f"#Transform {k}\n{part}" for k, part in enumerate(parts))


@pytest.mark.parametrize(
    "kinds",
    [(TRANSLATION, TRANSLATION), (AFFINE, EULER), (SCALE, TRANSLATION, AFFINE), (EULER, EULER), (TRANSLATION,) * 5,
     (AFFINE, SCALE)],
)  # fmt: skip
@pytest.mark.parametrize("ending", [".tfm", ".txt"])
def test_several_transforms_are_refused(tmp_path, run, kinds, ending):
    path = tmp_path / f"t{ending}"
    path.write_text(text_of(*kinds))
    with pytest.raises(OSError, match=rf"t\{ending}: holds several transforms beside one another, and no composite"):
        transforms.read_transform(path)
    sitk.WriteImage(volume(), str(tmp_path / "a.nii.gz"))
    code, _, err = run("resample", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "--transform", path)
    assert (code, err.count("\n")) == (1, 1)
    assert "holds several transforms" in err
    assert not (tmp_path / "b.nii.gz").exists()


@pytest.mark.parametrize("shown", [True, False])
def test_it_is_told_whether_warnings_are_shown_or_not(tmp_path, capfd, shown):
    (tmp_path / "t.tfm").write_text(text_of(TRANSLATION, AFFINE))
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(shown)
    try:
        with pytest.raises(OSError, match="several"):
            transforms.read_transform(tmp_path / "t.tfm")
        assert sitk.ProcessObject.GetGlobalWarningDisplay() == shown
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", [TRANSLATION, SCALE, AFFINE, EULER])
def test_one_transform_is_read(tmp_path, kind):
    (tmp_path / "t.tfm").write_text(text_of(kind))
    points = np.random.default_rng(0).normal(size=(5, 3)).tolist()
    found, wanted = transforms.read_transform(tmp_path / "t.tfm"), sitk.ReadTransform(str(tmp_path / "t.tfm"))
    assert [found.TransformPoint(p) for p in points] == [wanted.TransformPoint(p) for p in points]


@pytest.mark.parametrize("ending", [".tfm", ".h5", ".txt"])
def test_a_composite_is_read(tmp_path, ending):
    for k, moves in enumerate(itertools.permutations([(1, 2, 3), (10, 20, 30), (5, 5, 5)], 2)):
        made = sitk.CompositeTransform([sitk.TranslationTransform(3, move) for move in moves])
        sitk.WriteTransform(made, str(tmp_path / f"{k}{ending}"))
        found = transforms.read_transform(tmp_path / f"{k}{ending}")
        assert found.TransformPoint((0, 0, 0)) == tuple(float(sum(pair)) for pair in zip(*moves, strict=True))


def test_linear_parts_of_an_mni_file_are_one(tmp_path):
    """libminc joins them, in the order of the file."""
    part = "Transform_Type = Linear;\nLinear_Transform =\n 2 0 0 {}\n 0 1 0 0\n 0 0 1 0;\n"
    (tmp_path / "t.xfm").write_text("MNI Transform File\n%x\n" + part.format(1) + part.format(10))
    assert transforms.read_transform(tmp_path / "t.xfm").TransformPoint((1, 0, 0)) == (2 * (2 * 1 + 1) + 10, 0, 0)
