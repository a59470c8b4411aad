"""MONAI's `Rand3DElastic` and `RandGridDistortion` beside ours, on a real image and its labels."""

import copy

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.networks.layers import GaussianFilter
from monai_support import RANGES, assert_same, both, of_coordinates
from support import SINGLE

import gpuresample.monai as grm
from gpuresample import set_num_threads

ELASTIC = {"sigma_range": (3, 6), "magnitude_range": (20, 60)}
KEYS = {"keys": ["image", "label"], "mode": ["bilinear", "nearest"]}


# --- noise -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.2, 1.0, 4.3, 30.0])
def test_noise_is_blurred_by_monais_own_weights(sigma, no_fallback):
    ours = grm.Rand3DElastic(sigma_range=(sigma, sigma), magnitude_range=(1, 1), prob=1.0).set_random_state(0)
    size = (21, 40, 33)
    ours.randomize(size)
    noise = torch.as_tensor(ours.rand_offset)
    theirs = GaussianFilter(3, sigma, 3.0)(noise[None])[0]
    blurred = ours.places(size, None).displacement
    assert float((blurred - theirs).abs().max()) <= SINGLE * float(theirs.max() - theirs.min())


def of_the_noise(elastic, image):
    """What the noise's own float32 adds to `of_coordinates`: it is some voxels long, and a matrix turns it."""
    return of_coordinates(image) + 3 * SINGLE * elastic.magnitude * 2


# --- Rand3DElastic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["reflection", "border", "zeros"])
def test_rand_3d_elastic_draws_what_monai_draws(subject, padding, no_fallback):
    image = subject["image"]
    ours, theirs = both("Rand3DElastic", seed=3, prob=0.7, **ELASTIC, **RANGES, padding_mode=padding)
    for _ in range(4):
        a, b = ours(image), theirs(image)
        assert_same(a, b, image, of_the_noise(ours, image))
        np.testing.assert_array_equal(ours.rand_offset, theirs.rand_offset)
        assert (ours.sigma, ours.magnitude) == (theirs.sigma, theirs.magnitude)
    assert ours.R.random_sample() == theirs.R.random_sample()


@pytest.mark.parametrize("keywords", [
    {}, RANGES, {"spatial_size": (50, 81, -1)}, {"padding_mode": "zeros"}, {"prob": 0.0, "spatial_size": (50, 81, 40)},
], ids=["noise alone", "and a matrix", "size", "zeros", "size alone"])  # fmt: skip
def test_rand_3d_elasticd(subject, keywords, no_fallback):
    keywords = {"prob": 0.8, **ELASTIC} | keywords
    ours, theirs = both("Rand3DElasticd", seed=11, **KEYS, **keywords)
    for _ in range(3):
        a, b = ours(subject), theirs(subject)
        assert_same(a["image"], b["image"], subject["image"], of_the_noise(ours.rand_3d_elastic, subject["image"]))
        assert_same(a["label"], b["label"], subject["label"], 0, differ=2e-5)


def test_elastic_is_located_once(subject, monkeypatch):
    from gpuresample.engines.cpu import gather

    seen = []
    run = gather.run_gathers
    monkeypatch.setattr(gather, "run_gathers", lambda calls: (seen.append(len(calls)), run(calls)))
    grm.Rand3DElasticd(**KEYS, prob=1.0, **ELASTIC).set_random_state(0)(subject)
    assert seen == [2]


def test_a_whole_subject(data_dir, no_fallback):
    """124x160x140: how far voxels and labels are from MONAI's."""
    load = mt.LoadImaged(["image", "label"], ensure_channel_first=True)
    data = load({"image": str(data_dir / "FLAIR.nii.gz"), "label": str(data_dir / "lesion.nii.gz")})
    ours, theirs = both("Rand3DElasticd", seed=2, **KEYS, prob=1.0, **ELASTIC, **RANGES)
    a, b = ours(data), theirs(data)
    spread = float(data["image"].max() - data["image"].min())
    assert float((a["image"] - b["image"]).abs().max()) <= of_the_noise(ours.rand_3d_elastic, data["image"]) * spread
    assert int((a["label"] != b["label"]).sum()) <= 5


def test_elastic_by_splines(subject, no_fallback):
    ours, theirs = both("Rand3DElastic", seed=2, prob=1.0, **ELASTIC, mode=3, padding_mode="nearest")
    image = subject["image"]
    # A spline's slope is some times steeper than the range for each voxel.
    assert_same(ours(image), theirs(image), image, 4 * of_the_noise(ours, image))


def test_the_same_bits_on_any_number_of_threads(subject, threads):
    results = []
    for n in (1, 4):
        set_num_threads(n)
        results.append(grm.Rand3DElasticd(**KEYS, prob=1.0, **ELASTIC).set_random_state(5)(subject))
    for key in ("image", "label"):
        assert torch.equal(results[0][key], results[1][key])


def test_gradients(subject, no_fallback):
    gradients = []
    for transform in both("Rand3DElastic", seed=2, prob=1.0, **ELASTIC, **RANGES):
        x = MetaTensor(subject["image"].as_tensor().double()).requires_grad_()
        transform(x).square().mean().backward()
        gradients.append(x.grad.as_tensor() if isinstance(x.grad, MetaTensor) else x.grad)
    spread = float(gradients[1].abs().max())
    assert spread > 0
    assert float((gradients[0] - gradients[1]).abs().max()) <= 10 * of_coordinates(subject["image"]) * spread


def test_other_paddings_are_monais(subject):
    ours, theirs = both("Rand3DElastic", seed=2, prob=1.0, **ELASTIC, mode=1, padding_mode="grid-wrap")
    with pytest.warns(RuntimeWarning, match="padding_mode='grid-wrap': MONAI's own transform does it"):
        a = ours(subject["image"])
    # The grid is ours, and our blur is MONAI's but for rounding.
    assert_same(a, theirs(subject["image"]), subject["image"], of_the_noise(ours, subject["image"]))


# --- RandGridDistortion ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
@pytest.mark.parametrize("cells", [5, 7, (4, 5, 3), 80])
def test_rand_grid_distortiond(subject, cells, padding, no_fallback):
    keywords = {"num_cells": cells, "distort_limit": 0.3, "prob": 0.8, "padding_mode": padding}
    ours, theirs = both("RandGridDistortiond", seed=4, **KEYS, **keywords)
    for _ in range(3):
        a, b = ours(subject), theirs(subject)
        assert_same(a["image"], b["image"], subject["image"], SINGLE)
        assert torch.equal(a["label"].as_tensor(), b["label"].as_tensor())


def test_grid_distortion_by_splines_and_in_two_dimensions(subject, no_fallback):
    image = subject["image"]
    ours, theirs = both("RandGridDistortion", seed=4, num_cells=6, distort_limit=0.2, prob=1.0)
    keywords = {"mode": 3, "padding_mode": "mirror"}
    assert_same(ours(image, **keywords), theirs(image, **keywords), image, SINGLE)
    flat = MetaTensor(image[..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    assert_same(ours(flat), theirs(flat), flat, SINGLE)


def test_steps_of_one_are_not_the_identity(subject):
    """As in MONAI: both ends of a cell are among its voxels."""
    line = MetaTensor(torch.arange(20.0)[None, :, None, None].expand(1, 20, 20, 20).contiguous())
    ours = mt.GridDistortion(5, [(1.0,) * 6] * 3)(line)
    again = grm.RandGridDistortion(5, distort_limit=0.0, prob=1.0)(line)
    assert_same(again, ours, line, SINGLE)
    torch.testing.assert_close(again[0, :6, 0, 0].as_tensor(), torch.tensor([0, 4 / 3, 8 / 3, 4, 4, 16 / 3]))


def test_deforming_in_pipelines(subject, no_fallback):
    def chain(module):
        return mt.Compose([
            module.Rand3DElasticd(**KEYS, prob=0.8, **ELASTIC),
            module.RandGridDistortiond(**KEYS, prob=0.8),
        ])  # fmt: skip

    ours, theirs = (chain(module).set_random_state(1) for module in (grm, mt))
    twin = copy.deepcopy(ours)
    a, b = ours(subject), theirs(subject)
    assert_same(a["image"], b["image"], subject["image"], 2 * of_coordinates(subject["image"]) + 3e-4)
    assert_same(a["label"], b["label"], subject["label"], 0, differ=1e-4)
    assert torch.equal(twin(subject)["image"], a["image"])
