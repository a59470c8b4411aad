"""MONAI's `Rotate`, `RandRotate`, `Zoom` and `RandZoom` beside ours, on a real image and its labels."""

import warnings

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, set_track_meta
from monai_support import assert_same, both, of_coordinates
from support import SINGLE

import gpuresample.monai as grm

KEYS = {"keys": ["image", "label"], "mode": ["bilinear", "nearest"]}
ZOOM_KEYS = {"keys": ["image", "label"], "mode": ["trilinear", "nearest"]}


def assert_subjects(ours, theirs, subject, bound, differ):
    assert_same(ours["image"], theirs["image"], subject["image"], bound)
    if differ:
        assert_same(ours["label"], theirs["label"], subject["label"], 0, differ=differ)
    else:
        assert torch.equal(ours["label"].as_tensor(), theirs["label"].as_tensor())


# --- Rotate ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
@pytest.mark.parametrize("keep_size", [True, False])
def test_rotate_in_double(subject, keep_size, padding, align, no_fallback):
    """Computed in float64 by MONAI, only sums are left to differ."""
    image = subject["image"]
    ours, theirs = both(
        "Rotate", angle=(0.3, -0.2, 0.5), keep_size=keep_size, padding_mode=padding, align_corners=align,
        dtype=torch.float64,
    )  # fmt: skip
    assert_same(ours(image), theirs(image), image, SINGLE)
    assert_same(ours(image, mode="nearest"), theirs(image, mode="nearest"), image, 0, differ=1e-6)


@pytest.mark.parametrize("angle", [(0.3, -0.2, 0.5), (0, np.pi / 2, 0), (np.pi, 0, 0), (0, 0, 0), (0.4, 0, 0)])
def test_rotated(subject, angle, no_fallback):
    for keep_size in (True, False):
        ours, theirs = both("Rotated", **KEYS, angle=angle, keep_size=keep_size)
        a, b = ours(subject), theirs(subject)
        differ = 0 if max(angle) > 1 or not any(angle) else 2e-5
        assert_subjects(a, b, subject, of_coordinates(subject["image"]), differ)
        back, their_back = ours.inverse(a), theirs.inverse(b)
        assert_subjects(back, their_back, subject, 3 * of_coordinates(subject["image"]), differ and 1e-4)
        assert back["image"].shape == subject["image"].shape


def test_rotate_in_two_dimensions(subject, no_fallback):
    image = MetaTensor(subject["image"][..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    ours, theirs = both("Rotate", angle=0.4, keep_size=False)
    assert_same(ours(image), theirs(image), image, of_coordinates(image))
    assert_same(ours.inverse(ours(image)), theirs.inverse(theirs(image)), image, 2 * of_coordinates(image))


@pytest.mark.parametrize("order", ["ZYX", "YXZ"])
def test_rotate_in_another_order(subject, order, no_fallback):
    ours, theirs = both("Rotate", angle=(0.3, -0.2, 0.5), rotate_order=order)
    assert_same(ours(subject["image"]), theirs(subject["image"]), subject["image"], of_coordinates(subject["image"]))


def test_rand_rotated_draws_what_monai_draws(subject, no_fallback):
    ours, theirs = both(
        "RandRotated", seed=5, **KEYS, range_x=0.4, range_y=(0.1, 0.3), range_z=0.2, prob=0.6, keep_size=False,
        padding_mode="zeros",
    )  # fmt: skip
    for _ in range(5):
        a, b = ours(subject), theirs(subject)
        assert_subjects(a, b, subject, of_coordinates(subject["image"]), 2e-5)
        back, their_back = ours.inverse(a), theirs.inverse(b)
        assert_subjects(back, their_back, subject, 3 * of_coordinates(subject["image"]), 1e-4)
    assert ours.rand_rotate.R.random_sample() == theirs.rand_rotate.R.random_sample()


def test_rand_rotate_alone(subject, no_fallback):
    image = subject["image"]
    ours, theirs = both("RandRotate", seed=5, range_x=0.4, range_y=0.3, range_z=0.2, prob=0.7)
    for _ in range(3):
        a, b = ours(image), theirs(image)
        assert_same(a, b, image, of_coordinates(image))
        assert_same(ours.inverse(a), theirs.inverse(b), image, 3 * of_coordinates(image))


def test_what_rotate_leaves_to_monai(subject):
    image = MetaTensor(subject["image"][..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    ours, theirs = both("Rotate", angle=0.4, mode="bicubic")
    with pytest.warns(RuntimeWarning, match="mode='bicubic': MONAI's own transform does it"):
        a = ours(image)
    assert torch.equal(a.as_tensor(), theirs(image).as_tensor())
    set_track_meta(False)
    try:
        ours, theirs = both("Rotate", angle=0.4)
        with pytest.warns(RuntimeWarning, match="metadata is not tracked"):
            a = ours(image.as_tensor())
        assert torch.equal(a, theirs(image.as_tensor()))
    finally:
        set_track_meta(True)


# --- Zoom ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["area", "trilinear", "nearest", "nearest-exact"])
@pytest.mark.parametrize("zoom", [1.3, 0.7, (1.2, 0.8, 1.0), 1.0])
@pytest.mark.parametrize("keep_size", [True, False])
def test_zoom(subject, zoom, mode, keep_size, no_fallback):
    image = subject["image"]
    ours, theirs = both("Zoom", zoom=zoom, mode=mode, keep_size=keep_size)
    a, b = ours(image), theirs(image)
    assert_same(a, b, image, 3e-6)
    if mode.startswith("nearest"):
        assert torch.equal(a.as_tensor(), b.as_tensor())
    back, their_back = ours.inverse(a), theirs.inverse(b)
    assert_same(back, their_back, image, 6e-6)
    assert back.shape == image.shape


@pytest.mark.parametrize("keywords", [
    {"padding_mode": "constant"}, {"padding_mode": "constant", "constant_values": 7}, {"padding_mode": "reflect"},
    {"mode": "trilinear", "align_corners": True}, {"mode": "trilinear", "dtype": torch.float64},
], ids=str)  # fmt: skip
def test_zoom_with_everything_else(subject, keywords, no_fallback):
    for zoom in (0.75, 1.25):
        ours, theirs = both("Zoom", zoom=zoom, **keywords)
        assert_same(ours(subject["image"]), theirs(subject["image"]), subject["image"], 3e-6)


def test_zoom_in_two_dimensions(subject, no_fallback):
    image = MetaTensor(subject["image"][..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    ours, theirs = both("Zoom", zoom=(1.3, 0.8), mode="bilinear")
    assert_same(ours(image), theirs(image), image, 3e-6)


@pytest.mark.parametrize("ranges", [
    {"min_zoom": 0.7, "max_zoom": 1.4}, {"min_zoom": (0.8, 0.9), "max_zoom": (1.2, 1.3)},
    {"min_zoom": (0.8, 0.9, 0.7), "max_zoom": (1.2, 1.3, 1.0)},
], ids=["one", "two", "three"])  # fmt: skip
def test_rand_zoomd_draws_what_monai_draws(subject, ranges, no_fallback):
    ours, theirs = both("RandZoomd", seed=3, **ZOOM_KEYS, **ranges, prob=0.7)
    for _ in range(4):
        a, b = ours(subject), theirs(subject)
        assert_subjects(a, b, subject, 3e-6, 0)
        assert_subjects(ours.inverse(a), theirs.inverse(b), subject, 6e-6, 0)
    alone, theirs = both("RandZoom", seed=3, **ranges, prob=0.7)
    for _ in range(3):
        assert_same(alone(subject["image"]), theirs(subject["image"]), subject["image"], 3e-6)


def test_in_a_pipeline_and_lazily(subject):
    def chain(module, **keywords):
        return mt.Compose([
            module.RandRotated(**KEYS, range_x=0.3, range_y=0.2, prob=1.0),
            module.RandZoomd(**ZOOM_KEYS, min_zoom=0.8, max_zoom=1.2, prob=1.0),
            module.Rotated(**KEYS, angle=(0.1, 0.2, 0.3)),
            module.Zoomd(**ZOOM_KEYS, zoom=0.9),
        ], **keywords).set_random_state(1)  # fmt: skip

    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        ours, theirs = chain(grm), chain(mt)
        a, b = ours(subject), theirs(subject)
    # What one step changes by rounding the next one interpolates.
    assert_subjects(a, b, subject, 3 * of_coordinates(subject["image"]), 1e-4)
    assert_subjects(ours.inverse(a), theirs.inverse(b), subject, 6 * of_coordinates(subject["image"]), 3e-4)
    lazy = {"lazy": True, "overrides": {"label": {"mode": "nearest"}}}
    with pytest.warns(RuntimeWarning, match="lazy evaluation"):
        a = chain(grm, **lazy)(subject)
    b = chain(mt, **lazy)(subject)
    assert torch.equal(a["image"].as_tensor(), b["image"].as_tensor())
