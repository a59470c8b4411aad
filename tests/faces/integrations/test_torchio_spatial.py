"""`gpuresample.torchio`'s augmentations beside TorchIO's, on real volumes: draws, voxels, fills, labels, history."""

import pickle
import warnings

import numpy as np
import pytest
import torch
import torchio as tio
from support import SINGLE

import gpuresample.torchio as grtio
from gpuresample import set_num_threads

AFFINE = {"scales": (1.1, 0.9, 1.2), "degrees": (12, -7, 20), "translation": (5, -3, 4)}


@pytest.fixture
def subject(data_dir):
    """An image of two channels, negative values among them, and its labels; 60x72x64, oblique."""
    cut = tio.Crop((30, 34, 50, 38, 40, 36))
    image = cut(tio.ScalarImage(data_dir / "FLAIR.nii.gz"))
    two = torch.cat([image.data.to(torch.int16), 100 - 2 * image.data.to(torch.int16)])
    return tio.Subject(
        image=tio.ScalarImage(tensor=two, affine=image.affine), label=cut(tio.LabelMap(data_dir / "lesion.nii.gz"))
    )


def assert_same(ours, theirs, bound=SINGLE):
    np.testing.assert_array_equal(ours.affine, theirs.affine)
    assert ours.data.dtype == theirs.data.dtype
    assert ours.spatial_shape == theirs.spatial_shape
    spread = float(theirs.data.max() - theirs.data.min())
    assert float((ours.data - theirs.data).abs().max()) <= bound * spread


def assert_subjects(ours, theirs, differ=0.0):
    assert_same(ours.image, theirs.image)
    np.testing.assert_array_equal(ours.label.affine, theirs.label.affine)
    assert ours.label.data.dtype == theirs.label.data.dtype
    assert float((ours.label.data != theirs.label.data).double().mean()) <= differ


def both(name, data, seed=None, **keywords):
    results = []
    for module in (grtio, tio):
        transform = getattr(module, name)(**keywords)
        if seed is not None:
            torch.manual_seed(seed)
        results.append(transform(data))
    return results


# --- Affine ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["minimum", "mean", "otsu", 7.5])
@pytest.mark.parametrize("center", ["image", "origin"])
def test_affine(subject, center, fill, no_fallback):
    keywords = AFFINE | {"center": center, "default_pad_value": fill, "default_pad_label": 9}
    if center == "origin":
        keywords |= {"degrees": (3, -2, 4), "scales": (1.02, 0.98, 1.01)}
    ours, theirs = both("Affine", subject, **keywords)
    assert_subjects(ours, theirs)
    assert 9 in ours.label.data.unique()


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "lanczos", "gaussian", "cosine"])
def test_affine_by_every_kernel(subject, interpolation, no_fallback):
    part = tio.Crop((15, 15, 18, 18, 16, 16))(subject)
    ours, theirs = both("Affine", part, **AFFINE, image_interpolation=interpolation)
    assert_subjects(ours, theirs)


def test_labels_by_votes(subject, no_fallback):
    ours, theirs = both("Affine", subject, **AFFINE, label_interpolation="label_gaussian")
    # Labels whose votes are nearly equal may go the other way.
    assert_subjects(ours, theirs, differ=1e-5)


@pytest.mark.parametrize("name", ["RAS", "LPS", "ASL", "SAR", "IPL", "PIR"])
def test_translations_are_of_the_world_whatever_the_orientation(data_dir, name, no_fallback):
    image = tio.ScalarImage(data_dir / f"{name}.nii.gz")
    for keywords in (AFFINE, {"scales": (1, 1, 1), "degrees": (0, 0, 0), "translation": (3, 0, 0)}):
        ours, theirs = both("Affine", image, **keywords)
        assert_same(ours, theirs)


def test_half_voxels_and_quarter_turns(subject, no_fallback):
    """Samples halfway between voxels, along the axes of the world."""
    straight = tio.Subject(
        image=tio.ScalarImage(tensor=subject.image.data, affine=np.diag([1.0, 1.0, 1.0, 1.0])),
        label=tio.LabelMap(tensor=subject.label.data, affine=np.diag([1.0, 1.0, 1.0, 1.0])),
    )
    for keywords in (
        {"scales": (1, 1, 1), "degrees": (0, 0, 0), "translation": (0.5, -1.5, 2.5)},
        {"scales": (2, 2, 2), "degrees": (0, 0, 0), "translation": (0, 0, 0)},
    ):
        assert_subjects(*both("Affine", straight, **keywords))


def test_slices(data_dir, no_fallback):
    flat = tio.ScalarImage(tensor=tio.ScalarImage(data_dir / "FLAIR.nii.gz").data[..., 60:61].clone())
    assert_same(*both("Affine", flat, **AFFINE | {"translation": (5, -3, 0)}))
    # The lattice is thin along the slice's axis, where nothing is displaced anyway.
    warnings.filterwarnings("ignore", message="The maximum displacement is larger")
    assert_same(*both("RandomElasticDeformation", flat, seed=2))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.float32, torch.float64])
def test_types(subject, dtype, no_fallback):
    image = tio.ScalarImage(tensor=subject.image.data.abs().clip(0, 255).to(dtype), affine=subject.image.affine)
    for name, keywords in (("Affine", AFFINE), ("RandomElasticDeformation", {"seed": 1})):
        assert_same(*both(name, image, **keywords))


# --- RandomAffine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keywords", [
    {}, {"scales": (0.7, 1.3), "degrees": 30, "translation": 8}, {"isotropic": True, "scales": (0.8, 1.2)},
    {"p": 0.5}, {"include": ["image"]}, {"center": "origin", "degrees": 3, "scales": 0.02},
], ids=str)  # fmt: skip
def test_random_affine_draws_what_torchio_draws(subject, keywords, no_fallback):
    for seed in range(3):
        ours, theirs = both("RandomAffine", subject, seed=seed, **keywords)
        assert_subjects_or_untouched(ours, theirs)


def assert_subjects_or_untouched(ours, theirs):
    assert ours.image.data.dtype == theirs.image.data.dtype
    assert_subjects(ours, theirs)


def test_images_and_labels_are_located_once(subject, monkeypatch):
    from gpuresample.engines.cpu import gather

    seen = []
    run = gather.run_gathers
    monkeypatch.setattr(gather, "run_gathers", lambda calls: (seen.append(len(calls)), run(calls)))
    grtio.Affine(**AFFINE)(subject)
    grtio.RandomElasticDeformation()(subject)
    assert seen == [3, 3]  # two channels and the labels


def test_a_whole_subject(data_dir, no_fallback):
    """124x160x140, oblique: how far voxels and labels are from TorchIO's."""
    whole = tio.Subject(
        image=tio.ScalarImage(data_dir / "FLAIR.nii.gz"), label=tio.LabelMap(data_dir / "lesion.nii.gz")
    )
    for name in ("RandomAffine", "RandomElasticDeformation"):
        ours, theirs = both(name, whole, seed=5)
        # Measured: 1.8e-7 and 4.8e-7 of the range, no label.
        assert_same(ours.image, theirs.image)
        assert int((ours.label.data != theirs.label.data).sum()) <= 2


# --- ElasticDeformation ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keywords", [
    {}, {"num_control_points": (5, 8, 6), "max_displacement": (3, 9, 5)}, {"locked_borders": 0}, {"locked_borders": 1},
    {"max_displacement": 0}, {"image_interpolation": "bspline"},
], ids=str)  # fmt: skip
def test_random_elastic_deformation_draws_what_torchio_draws(subject, keywords):
    with warnings.catch_warnings():
        # That points may fold over, which TorchIO says, too.
        warnings.filterwarnings("error", message=".*TorchIO's own")
        warnings.filterwarnings("ignore", message="The maximum displacement is larger")
        for seed in range(2):
            assert_subjects(*both("RandomElasticDeformation", subject, seed=seed, **keywords))


@pytest.mark.parametrize("name", ["RAS", "LPS", "ASL", "SAR", "IPL", "PIR"])
def test_elastic_in_every_orientation(data_dir, name, no_fallback):
    image = tio.ScalarImage(data_dir / f"{name}.nii.gz")
    assert_same(*both("RandomElasticDeformation", image, seed=3, max_displacement=4))


def test_labels_are_filled_with_their_minimum(subject, no_fallback):
    """As in TorchIO: not with 0."""
    labels = tio.LabelMap(tensor=subject.label.data + 3, affine=subject.label.affine)
    points = np.full((7, 7, 7, 3), 4.0, np.float32)
    results = [m.ElasticDeformation(points, (4, 4, 4))(labels) for m in (grtio, tio)]
    assert torch.equal(results[0].data, results[1].data)
    assert float(results[0].data.min()) == 3


def test_torchio_warns_of_folds(subject):
    for module in (grtio, tio):
        torch.manual_seed(0)
        with pytest.warns(RuntimeWarning, match="folding may"):
            module.RandomElasticDeformation(max_displacement=30)(subject)


# --- RandomAnisotropy ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keywords", [
    {}, {"axes": 1, "downsampling": 2.5}, {"scalars_only": False}, {"image_interpolation": "bspline"},
], ids=str)  # fmt: skip
def test_random_anisotropy_draws_what_torchio_draws(subject, keywords, no_fallback):
    floats = tio.Subject(
        image=tio.ScalarImage(tensor=subject.image.data.float(), affine=np.diag([1.1, 0.9, 1.3, 1.0])),
        label=tio.LabelMap(tensor=subject.label.data, affine=np.diag([1.1, 0.9, 1.3, 1.0])),
    )
    for seed in range(3):
        ours, theirs = both("RandomAnisotropy", floats, seed=seed, **keywords)
        assert_subjects(ours, theirs)
        assert [type(t).__name__ for t in ours.history] == ["GpuResample"] * 2


def test_rows_that_are_not_covered_are_0(no_fallback):
    """As in TorchIO."""
    image = tio.ScalarImage(tensor=torch.ones(1, 24, 8, 8))
    ours, theirs = both("RandomAnisotropy", image, seed=0, axes=0, downsampling=(2.5, 2.5))
    assert torch.equal(ours.data, theirs.data)
    assert torch.nonzero(ours.data[0, :, 4, 4] == 0).ravel().tolist() == [0, 23]


def test_an_axis_of_which_nothing_is_left(no_fallback):
    """TorchIO makes an image without voxels on the way, and fills with 0."""
    image = tio.ScalarImage(tensor=torch.ones(1, 4, 8, 8))
    ours, theirs = both("RandomAnisotropy", image, seed=0, axes=0, downsampling=(5, 5))
    assert ours.shape == theirs.shape
    assert torch.equal(ours.data, theirs.data)


# --- history, inverse, copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["RandomAffine", "RandomElasticDeformation"])
def test_history_replays_and_inverts(subject, name, no_fallback):
    ours, theirs = both(name, subject, seed=8)
    (done,), (their_done,) = ours.history, theirs.history
    assert type(done).__name__ == "Gpu" + type(their_done).__name__
    for argument in [*done.args_names, "copy", "include", "exclude", "keep"]:
        assert str(getattr(done, argument)) == str(getattr(their_done, argument))
    again = ours.get_composed_history()(subject)
    assert torch.equal(again.image.data, ours.image.data)
    assert_subjects(ours.apply_inverse_transform(), theirs.apply_inverse_transform())


def test_in_compose_with_everything_else(subject, no_fallback):
    def chain(module):
        return tio.Compose([
            module.RandomAffine(degrees=10, p=0.8), module.RandomElasticDeformation(p=0.9), tio.RandomFlip(),
            tio.OneOf({module.RandomAffine(scales=0.2): 0.5, module.RandomElasticDeformation(max_displacement=3): 0.5}),
        ])  # fmt: skip

    for seed in range(2):
        results = []
        for module in (grtio, tio):
            torch.manual_seed(seed)
            results.append(chain(module)(subject))
        ours, theirs = results
        assert_same(ours.image, theirs.image, bound=6 * SINGLE)
        assert float((ours.label.data != theirs.label.data).double().mean()) <= 2e-5


def test_the_subject_given_stays_as_it_is(subject, no_fallback):
    image, label = subject.image.data.clone(), subject.label.data.clone()
    for transform in (grtio.RandomAffine(), grtio.RandomElasticDeformation(), grtio.Affine(**AFFINE)):
        out = transform(subject)
        assert torch.equal(subject.image.data, image)
        assert torch.equal(subject.label.data, label)
        assert not subject.history
        assert len(out.history) == 1
    kept = grtio.RandomAffine(keep={"image": "original"})(subject)
    assert torch.equal(kept.original.data, image)


def test_tensors_arrays_and_pickles(subject, no_fallback):
    tensor = subject.image.data.float()
    for data in (tensor, tensor.numpy()):
        torch.manual_seed(0)
        ours = grtio.RandomAffine()(data)
        torch.manual_seed(0)
        theirs = tio.RandomAffine()(data)
        assert type(ours) is type(theirs)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=2e-3)
    twin = pickle.loads(pickle.dumps(grtio.Affine(**AFFINE)))
    assert torch.equal(twin(subject).image.data, grtio.Affine(**AFFINE)(subject).image.data)


def test_the_same_bits_on_any_number_of_threads(subject, threads):
    results = []
    for n in (1, 4):
        set_num_threads(n)
        torch.manual_seed(1)
        results.append(grtio.RandomElasticDeformation()(subject))
    assert torch.equal(results[0].image.data, results[1].image.data)


def test_images_of_different_grids(subject, no_fallback):
    other = tio.ScalarImage(tensor=subject.image.data[:1, 5:, :-3].clone(), affine=np.diag([2.0, 1.0, 1.5, 1.0]))
    mixed = tio.Subject(image=subject.image, other=other)
    results = [m.Affine(**AFFINE, check_shape=False)(mixed) for m in (grtio, tio)]
    for name in ("image", "other"):
        assert_same(results[0][name], results[1][name])
    for module in (grtio, tio):
        with pytest.raises(RuntimeError):
            module.Affine(**AFFINE)(mixed)


def test_what_is_refused_goes_to_torchio_with_one_warning(subject):
    """Complex voxels, which SimpleITK does not resample either: the error is TorchIO's."""
    image = tio.ScalarImage(tensor=subject.image.data.to(torch.complex64), affine=subject.image.affine)
    for module in (grtio, tio):
        transform = module.Affine(**AFFINE, default_pad_value=0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", RuntimeWarning)
            with pytest.raises(Exception) as error:
                transform(image)
        said = [w for w in caught if "TorchIO's own transform does it" in str(w.message)]
        assert len(said) == (module is grtio)
        assert "gpuresample" not in str(error.value)
