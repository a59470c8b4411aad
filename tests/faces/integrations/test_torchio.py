"""`gpuresample.torchio` beside TorchIO's own transform, on real volumes: voxels, affine, labels, history."""

import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from support import SINGLE, assert_truncated_like

import gpuresample.torchio as grtio


@pytest.fixture
def subject(data_dir):
    """An image and its label map, oblique."""
    return tio.Subject(
        flair=tio.ScalarImage(data_dir / "FLAIR.nii.gz"), lesion=tio.LabelMap(data_dir / "lesion.nii.gz")
    )


@pytest.fixture
def ct(data_dir):
    """float32, anisotropic, oblique, negative."""
    image = tio.ScalarImage(data_dir / "shear.nii.gz")
    return tio.Crop((100, 100, 180, 140, 5, 5))(image)


def assert_same(ours, theirs, interpolation="linear"):
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.data.dtype == theirs.data.dtype
    assert ours.spatial_shape == theirs.spatial_shape
    if theirs.data.is_floating_point():
        spread = float(theirs.data.max() - theirs.data.min())
        assert float((ours.data - theirs.data).abs().max()) <= 2 * SINGLE * spread
    else:
        assert_truncated_like(ours.numpy(), theirs.numpy())


def assert_labels(ours, theirs):
    """Equal up to ties: the two grids share their centre, which lies between voxels of an even axis."""
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.data.dtype == theirs.data.dtype
    assert float((ours.data != theirs.data).double().mean()) <= 2e-5


def assert_ties_alone_differ(ours, theirs, image, target):
    """Integers off by 1, and only where the sum is a whole number but for the last bits."""
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.data.dtype == theirs.data.dtype
    exact = tio.ScalarImage(tensor=image.data.double(), affine=image.affine)
    value = tio.Resample(target)(exact).data
    difference = (ours.data.double() - theirs.data.double()).abs()
    assert float(difference.max()) <= 1
    assert float(((value - value.round()).abs() * (difference > 0)).max()) <= 1e-4


def both(subject, *args, **kwargs):
    return grtio.Resample(*args, **kwargs)(subject), tio.Resample(*args, **kwargs)(subject)


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "lanczos", "gaussian"])
def test_a_spacing(ct, interpolation):
    ours, theirs = both(ct, (1.3, 0.6, 2.0), image_interpolation=interpolation)
    assert_same(ours, theirs)


@pytest.mark.parametrize("target", [1.9, (1.3, 0.7, 2.1), "flair"])
@pytest.mark.parametrize("label", ["nearest", "label_gaussian"])
def test_images_and_labels_together(subject, target, label):
    ours, theirs = both(subject, target, image_interpolation="linear", label_interpolation=label)
    assert_same(ours.flair, theirs.flair)
    assert_labels(ours.lesion, theirs.lesion)


def test_labels_along_the_axes_are_equal(data_dir):
    labels = tio.Subject(torso=tio.LabelMap(data_dir / "torsoLabel.nii.gz"))
    for target in (2, (1.0, 0.7, 2.2)):
        ours, theirs = both(labels, target)
        np.testing.assert_array_equal(ours.torso.affine, theirs.torso.affine)
        assert ours.torso.data.unique().numel() == 12
        assert torch.equal(ours.torso.data, theirs.torso.data)


def test_between_voxels_of_an_oblique_grid_the_last_bit_decides(subject):
    # Every sample lies halfway between voxels: ITK's own choice among them is a matter of its round-off.
    for target in (2, "lesion"):
        ours, theirs = both(subject, target)
        assert_ties_alone_differ(ours.flair, theirs.flair, subject.flair, 2 if target == 2 else subject.lesion)
    ours, theirs = both(subject, 2)
    assert float((ours.lesion.data != theirs.lesion.data).double().mean()) <= 2e-3
    assert set(ours.lesion.data.unique().tolist()) == set(theirs.lesion.data.unique().tolist())


def test_a_path_an_image_and_a_shape_with_affine(subject, ct, data_dir):
    for target in (data_dir / "RAS.nii.gz", str(data_dir / "RAS.nii.gz"), tio.ScalarImage(data_dir / "RAS.nii.gz")):
        ours, theirs = both(subject, target)
        assert_same(ours.flair, theirs.flair)
        assert_labels(ours.lesion, theirs.lesion)
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) @ np.eye(4)
    affine[:3, 3] = ct.affine[:3, 3]
    ours, theirs = both(ct, ((40, 50, 30), affine))
    assert_same(ours, theirs)


def test_antialiasing_is_of_scalars_alone(subject, ct):
    ours, theirs = both(ct, (1.7, 1.2, 2.37), antialias=True)
    assert_same(ours, theirs)
    ours, theirs = both(subject, 2.87, antialias=True)
    assert_same(ours.flair, theirs.flair)
    assert_labels(ours.lesion, theirs.lesion)


def test_an_affine_before(ct):
    angle = np.radians(8)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    images = []
    for cls in (grtio.Resample, tio.Resample):
        image = tio.ScalarImage(tensor=ct.data, affine=ct.affine, to_template=matrix)
        images.append(cls(1.5, pre_affine_name="to_template")(tio.Subject(ct=image)).ct)
    assert_same(*images)


def test_scalars_only_include_and_keep(subject):
    for keywords in ({"scalars_only": True}, {"include": ["lesion"]}, {"keep": {"flair": "before"}}):
        ours, theirs = both(subject, 1.9, **keywords)
        assert list(ours) == list(theirs)
        for name in theirs:
            (assert_labels if name == "lesion" else assert_same)(ours[name], theirs[name])


def test_channels(ct):
    image = tio.ScalarImage(tensor=torch.cat([ct.data, 100 - ct.data]), affine=ct.affine)
    assert_same(*both(image, 2.2))


def test_the_history_replays_ours_and_leaves_theirs_alone(subject):
    transform = tio.Compose([grtio.Resample(2, label_interpolation="nearest"), tio.Resample(3)])
    done = transform(subject)
    names = [type(t) for t in done.get_applied_transforms()]
    assert names == [grtio.GpuResample, tio.Resample]
    again = done.get_composed_history()(subject)
    assert torch.equal(again.flair.data, done.flair.data)
    np.testing.assert_array_equal(again.flair.affine, done.flair.affine)
    assert repr(done.history[0]).startswith("GpuResample(target=2, image_interpolation=linear")


def test_it_goes_to_workers(ct):
    transform = pickle.loads(pickle.dumps(grtio.Resample(2, image_interpolation="bspline")))
    assert torch.equal(transform(ct).data, grtio.Resample(2, image_interpolation="bspline")(ct).data)


def test_what_torchio_refuses_is_refused_in_its_words(subject):
    for target in ("nowhere", -1, (1, 2)):
        messages = []
        for cls in (grtio.Resample, tio.Resample):
            with pytest.raises((ValueError, RuntimeError)) as refusal:
                cls(target)(subject)
            messages.append(str(refusal.value))
        assert messages[0] == messages[1]
