"""MONAI's `Affine` and `RandAffine` beside ours, on a real image and its labels: draws, voxels, traces, inverses."""

import copy
import pickle
import warnings

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor, set_track_meta
from monai_support import RANGES, assert_same, both, of_coordinates
from support import SINGLE

import gpuresample.monai as grm
from gpuresample import set_num_threads

# --- Affine ----------------------------------------------------------------------------------------------------------

PARAMETERS = {
    "rotate_params": (0.2, -0.3, 0.1), "shear_params": (0.1, 0.02, 0.05, 0.0, 0.03, 0.1),
    "translate_params": (3.3, -2.1, 4.4), "scale_params": (1.2, 0.9, 1.1),
}  # fmt: skip
# No round numbers: they would put samples halfway between voxels.
MATRIX = np.array(
    [[1.0713942, 0.1237189, 0, 3.2181734], [0, 0.9173517, 0.2316281, -4.1327193], [0.1173911, 0, 1.0135877, 2.4172839],
     [0, 0, 0, 1]]
)  # fmt: skip


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_affine_in_double(subject, padding, align, no_fallback):
    """Computed in float64 by MONAI, only sums are left to differ."""
    image = subject["image"]
    keywords = PARAMETERS | {"padding_mode": padding, "align_corners": align, "dtype": np.float64, "image_only": True}
    for size in (None, (50, 81, -1)):
        ours, theirs = both("Affine", spatial_size=size, **keywords)
        assert_same(ours(image), theirs(image), image, SINGLE)
        assert_same(ours(image, mode="nearest"), theirs(image, mode="nearest"), image, 0, differ=1e-6)


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_affine(subject, mode, padding, no_fallback):
    image = subject["image" if mode == "bilinear" else "label"]
    ours, theirs = both("Affine", **PARAMETERS, mode=mode, padding_mode=padding)
    (a, m), (b, n) = ours(image), theirs(image)
    assert_same(a, b, image, of_coordinates(image), differ=2e-5 if mode == "nearest" else 0.0)
    np.testing.assert_array_equal(m, n)


@pytest.mark.parametrize("padding", ["nearest", "reflect", "mirror", "constant"])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 5])
def test_affine_by_splines(subject, order, padding, no_fallback):
    image = subject["image"]
    ours, theirs = both("Affine", **PARAMETERS, mode=order, padding_mode=padding, dtype=np.float64, image_only=True)
    a, b = ours(image), theirs(image)
    if order == 0:
        assert_same(a, b, image, 0, differ=1e-6)
    else:
        # SciPy goes on for 12 voxels past the border; the poles of orders 4 and 5 have not died away there.
        assert_same(a, b, image, 1e-5 if order > 3 else SINGLE)


@pytest.mark.parametrize("keywords", [
    {"affine": MATRIX},
    {"affine": np.diag([2 / 60, 2 / 72, 2 / 64, 1]) @ MATRIX, "normalized": True},
    {"rotate_params": (0.3, 0.2, 0.1), "rotate_order": "ZYX"},
    {"scale_params": (1.3, 0.8, 1.1), "translate_params": (2, -3, 4)},
    {"rotate_params": (np.pi / 2, 0, 0)},
    {},
], ids=["matrix", "normalized", "order", "along axes", "quarter turn", "nothing"])  # fmt: skip
@pytest.mark.parametrize("align", [False, True])
def test_affine_with_everything_else(subject, keywords, align, no_fallback):
    for key, mode in (("image", "bilinear"), ("label", "nearest")):
        ours, theirs = both("Affine", **keywords, mode=mode, align_corners=align, image_only=True)
        a, b = ours(subject[key]), theirs(subject[key])
        assert_same(a, b, subject[key], of_coordinates(subject[key]), differ=2e-5 if key == "label" else 0.0)


def test_copies_along_axes_are_the_same_voxels(subject, no_fallback):
    """Coordinates halfway between voxels: they are MONAI's own, to the last bit, where axes run along each other."""
    for keywords in (
        {"translate_params": (2.5, -3.5, 0.5)},
        {"scale_params": (2, 0.5, 1)},
        {"spatial_size": (61, 71, 63)},
    ):
        ours, theirs = both("Affine", **keywords, mode="nearest", image_only=True)
        assert torch.equal(ours(subject["label"]).as_tensor(), theirs(subject["label"]).as_tensor())


@pytest.mark.parametrize("size", [None, (80, 50)])
def test_affine_in_two_dimensions(subject, size, no_fallback):
    image = MetaTensor(subject["image"][..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    for padding in ("reflection", "zeros"):
        ours, theirs = both(
            "Affine", rotate_params=0.3, shear_params=(0.1, 0.2), translate_params=(3, 4), scale_params=(1.1, 0.8),
            spatial_size=size, padding_mode=padding, image_only=True,
        )  # fmt: skip
        assert_same(ours(image), theirs(image), image, of_coordinates(image))
        assert_same(ours.inverse(ours(image)), theirs.inverse(theirs(image)), image, of_coordinates(image))


def test_a_single_slice(subject, no_fallback):
    """MONAI halves distances from the centre of an axis of one voxel."""
    image = subject["image"][..., 20:21]
    ours, theirs = both("Affine", **PARAMETERS, image_only=True)
    assert_same(ours(image), theirs(image), image, of_coordinates(image))


@pytest.mark.parametrize("dtype", [
    torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64, torch.float16, torch.bfloat16, torch.float64,
])  # fmt: skip
def test_types(subject, dtype, no_fallback):
    image = (subject["image"].as_tensor() > 100 if dtype == torch.bool else subject["image"].as_tensor()).to(dtype)
    for mode in ("bilinear", "nearest"):
        ours, theirs = both("Affine", **PARAMETERS, mode=mode, dtype=np.float64, image_only=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # MONAI assumes an affine, and says so
            assert_same(ours(image), theirs(image), image.double(), SINGLE, differ=1e-6 if mode == "nearest" else 0.0)


# --- RandAffine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_rand_affine_draws_what_monai_draws(subject, padding, no_fallback):
    image = subject["image"]
    ours, theirs = both("RandAffine", seed=7, prob=0.6, **RANGES, padding_mode=padding)
    for _ in range(6):
        a, b = ours(image), theirs(image)
        assert_same(a, b, image, of_coordinates(image))
        assert ours.rand_affine_grid.rotate_params == theirs.rand_affine_grid.rotate_params
    assert ours.R.random_sample() == theirs.R.random_sample()


@pytest.mark.parametrize("keywords", [
    {}, {"rotate_range": 0.3}, {"spatial_size": (48, 80, -1)}, {"spatial_size": (48, 80, 50), "cache_grid": True},
    {"prob": 0.0, "spatial_size": (48, 80, 50)},
], ids=["as it is", "a scalar turns one axis", "size", "cached", "size alone"])  # fmt: skip
def test_rand_affined(subject, keywords, no_fallback):
    keywords = {"prob": 0.7, "mode": ["bilinear", "nearest"], "padding_mode": ["border", "zeros"]} | RANGES | keywords
    ours, theirs = both("RandAffined", seed=11, keys=["image", "label"], **keywords)
    kept = ours.rand_affine._cached_grid
    # MONAI keeps a grid of every size that it knows beforehand.
    known = -1 not in keywords.get("spatial_size", (-1,))
    assert kept.size == (48, 80, 50) if known else kept is None
    for _ in range(4):
        a, b = ours(subject), theirs(subject)
        assert_same(a["image"], b["image"], subject["image"], of_coordinates(subject["image"]))
        assert_same(a["label"], b["label"], subject["label"], 0, differ=2e-5)


def test_images_and_labels_of_a_dictionary_are_located_once(subject, monkeypatch):
    from gpuresample.engines.cpu import gather

    seen = []
    monkeypatch.setattr(
        gather, "run_gathers", lambda calls, real=gather.run_gathers: (seen.append(len(calls)), real(calls))
    )
    transform = grm.RandAffined(["image", "label"], prob=1.0, **RANGES, mode=["bilinear", "nearest"])
    transform.set_random_state(0)
    transform(subject)
    assert seen == [2]


def test_a_whole_subject(data_dir, no_fallback):
    """124x160x140: how far voxels and labels are from MONAI's, for a few seeds."""
    load = mt.LoadImaged(["image", "label"], ensure_channel_first=True)
    data = load({"image": str(data_dir / "FLAIR.nii.gz"), "label": str(data_dir / "lesion.nii.gz")})
    spread = float(data["image"].max() - data["image"].min())
    for seed in range(3):
        keywords = {"prob": 1.0, **RANGES, "mode": ["bilinear", "nearest"]}
        a, b = (t(data) for t in both("RandAffined", seed=seed, keys=["image", "label"], **keywords))
        # Measured: 5e-6 of the range, no label.
        assert float((a["image"] - b["image"]).abs().max()) <= of_coordinates(data["image"]) * spread
        assert int((a["label"] != b["label"]).sum()) <= 3


def test_the_same_bits_on_any_number_of_threads(subject, threads):
    results = []
    for n in (1, 4):
        set_num_threads(n)
        transform = grm.RandAffined(["image", "label"], prob=1.0, **RANGES)
        results.append(transform.set_random_state(5)(subject))
    assert torch.equal(results[0]["image"], results[1]["image"])
    assert torch.equal(results[0]["label"], results[1]["label"])


def test_gradients(subject, no_fallback):
    gradients = []
    for transform in both("RandAffine", seed=2, prob=1.0, **RANGES):
        x = subject["image"].as_tensor().double().requires_grad_()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            transform(x).square().mean().backward()
        gradients.append(x.grad)
    spread = float(gradients[1].abs().max())
    assert spread > 0
    assert float((gradients[0] - gradients[1]).abs().max()) <= 10 * of_coordinates(subject["image"]) * spread


# --- in pipelines ----------------------------------------------------------------------------------------------------


def chain(module):
    keys, modes = ["image", "label"], ["bilinear", "nearest"]
    return mt.Compose([
        module.RandAffined(keys, prob=1.0, **RANGES, mode=modes),
        mt.RandFlipd(keys, prob=0.5),
        module.Affined(keys, rotate_params=(0.1, 0.2, 0.3), mode=modes, padding_mode="border"),
    ])  # fmt: skip


def test_pipelines_and_their_inverses(subject, no_fallback):
    ours, theirs = (chain(module).set_random_state(3) for module in (grm, mt))
    a, b = ours(subject), theirs(subject)
    back, their_back = ours.inverse(a), theirs.inverse(b)
    # Twice there, twice back; each time values differ by what coordinates differ by.
    bound = 4 * of_coordinates(subject["image"])
    for one, other in ((a, b), (back, their_back)):
        assert_same(one["image"], other["image"], subject["image"], bound)
        assert_same(one["label"], other["label"], subject["label"], 0, differ=1e-4)
    torch.testing.assert_close(back["image"].affine, subject["image"].affine, rtol=0, atol=1e-3)


def test_without_metadata(subject, no_fallback):
    data = {key: image.as_tensor() for key, image in subject.items()}
    set_track_meta(False)
    try:
        a, b = (t(data) for t in both("RandAffined", seed=4, keys=["image", "label"], prob=1.0, **RANGES))
    finally:
        set_track_meta(True)
    assert_same(a["image"], b["image"], subject["image"], of_coordinates(subject["image"]))


def test_arrays(subject, no_fallback):
    array = subject["image"].numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        a, b = (t(array) for t in both("RandAffine", seed=4, prob=1.0, **RANGES))
    assert_same(a, b, subject["image"], of_coordinates(subject["image"]))


def test_a_grid_of_the_callers(subject, no_fallback):
    image = subject["image"]
    grid = mt.AffineGrid(**PARAMETERS)(image.shape[1:])[0]
    a, b = (t(image, grid=grid) for t in both("RandAffine", seed=1, prob=1.0, **RANGES))
    assert_same(a, b, image, of_coordinates(image))


def test_copies_and_pickles_draw_on(subject):
    ours = grm.RandAffined(["image"], prob=1.0, **RANGES).set_random_state(9)
    twins = [copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))]
    expected = ours(subject)["image"]
    for twin in twins:
        assert torch.equal(twin(subject)["image"], expected)


def test_workers_of_a_loader(subject):
    data = [{"image": subject["image"].as_tensor()}] * 4
    results = []
    for module in (grm, mt):
        dataset = Dataset(data, module.RandAffined("image", prob=1.0, **RANGES).set_random_state(1))
        torch.manual_seed(0)
        loader = DataLoader(dataset, num_workers=2, batch_size=1, multiprocessing_context="fork")
        results.append([batch["image"] for batch in loader])
    for a, b in zip(*results, strict=True):
        assert float((a - b).abs().max()) <= of_coordinates(subject["image"]) * 255


# --- what MONAI does itself ------------------------------------------------------------------------------------------


def test_lazy_pipelines_are_monais(subject):
    with pytest.warns(RuntimeWarning, match="lazy evaluation: MONAI's own transform does it"):
        ours = mt.Compose([grm.RandAffine(prob=1.0, **RANGES)], lazy=True).set_random_state(1)(subject["image"])
    theirs = mt.Compose([mt.RandAffine(prob=1.0, **RANGES)], lazy=True).set_random_state(1)(subject["image"])
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())


def test_other_modes_are_monais_with_one_warning(subject):
    image = MetaTensor(subject["image"][..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    cases = [
        (image, {"mode": "bicubic", "rotate_params": 0.3}, "mode='bicubic'"),
        (subject["image"], {"mode": 3, "padding_mode": "grid-wrap", **PARAMETERS}, "padding_mode='grid-wrap'"),
        (subject["image"].to(torch.complex64), {"mode": 1, "padding_mode": "nearest"}, "voxels of torch.complex64"),
    ]
    for given, keywords, reason in cases[:2]:
        ours, theirs = both("Affine", **keywords, image_only=True)
        with pytest.warns(RuntimeWarning, match=f"{reason}: MONAI's own transform does it"):
            a = ours(given)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            ours(given)
        assert torch.equal(a.as_tensor(), theirs(given).as_tensor())


def test_installed_under_monais_names(subject, no_fallback):
    keywords = {"keys": ["image", "label"], "prob": 1.0, **RANGES}
    theirs = mt.RandAffined(**keywords).set_random_state(1)(subject)
    with grm.install():
        assert mt.RandAffined is grm.RandAffined
        ours = mt.RandAffined(**keywords).set_random_state(1)(subject)
    assert mt.RandAffined is not grm.RandAffined
    assert_same(ours["image"], theirs["image"], subject["image"], of_coordinates(subject["image"]))
