"""What MONAI's own transforms do in odd places: inverses of copies, a key that stands twice, gradients, one voxel."""

import numpy as np
import pytest

pytest.importorskip("monai", reason="MONAI is not installed")

import monai.transforms as theirs
import torch
from monai.data import MetaTensor

import gpuresample.monai as ours

pytestmark = pytest.mark.filterwarnings("ignore:.*MONAI's own transform does it:RuntimeWarning")
SHAPE = (24, 22, 20)


def image(channels=2, seed=0):
    return MetaTensor(torch.rand((channels, *SHAPE), generator=torch.Generator().manual_seed(seed)) * 100)


@pytest.mark.parametrize("size", [(21, 21, 21), (24, 22, 20)], ids=str)
def test_inverses_of_copies_have_monais_ties(size):
    x = image()
    keywords = {"prob": 0.0, "spatial_size": size, "mode": "nearest", "padding_mode": "border"}
    got, expected = (m.RandAffine(**keywords) for m in (ours, theirs))
    np.testing.assert_array_equal(got.inverse(got(x.clone())), expected.inverse(expected(x.clone())))
    keywords = {"translate_params": (0.5, 0, 0), "mode": "nearest", "image_only": True}
    got, expected = (m.Affine(**keywords) for m in (ours, theirs))
    np.testing.assert_array_equal(got.inverse(got(x.clone())), expected.inverse(expected(x.clone())))


@pytest.mark.parametrize("name", ["Affined", "Rotated"])
def test_a_key_that_stands_twice_is_transformed_twice(name):
    x = image()
    words = {"rotate_params": (0.2, 0.1, 0.3)} if name == "Affined" else {"angle": (0.2, 0.1, 0.3)}
    got, expected = (
        getattr(m, name)(["image", "image"], **words)({"image": x.clone()})["image"] for m in (ours, theirs)
    )
    np.testing.assert_allclose(got, expected, atol=1e-2)


def test_copies_have_monais_gradient():
    x = image().as_tensor()
    grads = []
    for m in (ours, theirs):
        leaf = x.clone().requires_grad_()
        m.Affine(rotate_params=(0.2, 0.1, 0.0), mode="nearest", image_only=True)(leaf).sum().backward()
        grads.append(leaf.grad)
    assert torch.equal(*grads)


@pytest.mark.filterwarnings("ignore:Since version 1.3.0:UserWarning")
def test_one_voxel_with_aligned_corners_is_where_monai_has_it():
    x = MetaTensor(torch.ones(1, 24, 22, 1))
    got, expected = (m.Rotate((0.3, 0.2, 0.1), padding_mode="zeros", align_corners=True)(x) for m in (ours, theirs))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_lazy_may_be_given_by_position():
    x = image()
    got, expected = (m.Affine(image_only=True)(x, None, None, None, False) for m in (ours, theirs))
    np.testing.assert_allclose(got, expected, atol=1e-4)
    got, expected = (m.RandAffine()(x, None, None, None, True, None, False) for m in (ours, theirs))
    np.testing.assert_allclose(got, expected, atol=1e-4)
