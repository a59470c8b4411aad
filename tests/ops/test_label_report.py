"""`label_report`, against SimpleITK's own statistics of shapes."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from support import noise, rotation

import gpuresample as gr


def blobs(seed, dtype=np.uint8, turn=(0, 0, 0)):
    rng = np.random.default_rng(seed)
    array = np.zeros((24, 26, 28), dtype)
    for label in range(1, 6):
        z, y, x = (int(rng.integers(0, n - 9)) for n in array.shape)
        array[z : z + label + 2, y : y + 5, x : x + 6] = label
    array[1, 2, 3] = 9  # so small that it is lost
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.8, 1.1, 1.7))
    image.SetOrigin((10, -20, 30))
    image.SetDirection(np.ravel(rotation(*turn)).tolist())
    return image


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("turn", [(0, 0, 0), (10, -20, 35)])
def test_voxels_volumes_and_centres_are_simpleitks(seed, turn):
    before = blobs(seed, turn=turn)
    after = gr.resample(before, spacing=(2.1, 2.2, 2.0), interpolation="nearest")
    report = gr.label_report(before, after)
    sides = []
    for image in (before, after):
        shapes = sitk.LabelShapeStatisticsImageFilter()
        shapes.Execute(image)
        sides.append(shapes)
    assert [c.label for c in report.changes] == list(sides[0].GetLabels())
    for c in report.changes:
        for k, side in enumerate(sides):
            there = side.HasLabel(c.label)
            assert c.voxels[k] == (side.GetNumberOfPixels(c.label) if there else 0)
            assert c.volume[k] == pytest.approx(side.GetPhysicalSize(c.label) if there else 0)
        if all(side.HasLabel(c.label) for side in sides):
            a, b = (np.array(side.GetCentroid(c.label)) for side in sides)
            assert c.shift == pytest.approx(float(np.linalg.norm(a - b)), abs=1e-9)
        else:
            assert math.isnan(c.shift)
    assert report.lost == tuple(sorted(set(sides[0].GetLabels()) - set(sides[1].GetLabels())))
    assert "lost" in str(report) or not report.lost


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "uint64"])
def test_labels_that_lie_far_apart(dtype):
    """Close labels are counted in a table, others are looked up: the same report."""
    near = blobs(3, np.uint8)
    values = np.linspace(0, np.iinfo(dtype).max // 2**3, 10).astype(dtype)
    far = sitk.GetImageFromArray(values[sitk.GetArrayFromImage(near)])
    far.CopyInformation(near)
    reports = [gr.label_report(i, gr.resample(i, spacing=2, interpolation="nearest")).changes for i in (near, far)]
    assert [int(values[c.label]) for c in reports[0]] == [c.label for c in reports[1]]
    for a, b in zip(*reports, strict=True):
        assert (a.voxels, a.volume) == (b.voxels, b.volume)
        assert a.shift == pytest.approx(b.shift, nan_ok=True)


def test_kinds_types_and_new_labels():
    before = blobs(0, np.int16)
    array = sitk.GetArrayFromImage(before)
    after = gr.Volume(np.where(array == 3, -7, array), before.GetSpacing(), before.GetOrigin())
    report = gr.label_report(before, after)
    assert report.lost == (3,)
    assert report.new == (-7,)
    flat = gr.Volume((noise((6, 7), "uint8") > 99), (1, 2))
    [one] = gr.label_report(flat, flat).changes
    assert one.shift == 0
    assert one.volume[0] == 2 * one.voxels[0] == 2 * flat.array.sum()
    assert gr.label_report(before, before, background=5).changes[0].label == 0


@pytest.mark.parametrize(("image", "error", "message"), [
    (np.zeros((3, 3, 3), np.uint8), TypeError, "before must be a SimpleITK.Image.* which lie in space; got ndarray"),
    (gr.Volume(np.zeros((3, 3, 3), "float32"), (1, 1, 1)), TypeError, "must have labels, integers or bool"),
    (gr.Volume(np.zeros((2, 3, 3, 3), np.uint8), (1, 1, 1)), ValueError, "must be one volume"),
])  # fmt: skip
def test_refusals_by_name(image, error, message):
    with pytest.raises(error, match=message):
        gr.label_report(image, image)
    volume = gr.Volume(np.zeros((3, 3, 3), np.uint8), (1, 1, 1))
    with pytest.raises(ValueError, match="after must have the 3 dimensions"):
        gr.label_report(volume, gr.Volume(np.zeros((3, 3), np.uint8), (1, 1)))
