"""MONAI's MetaTensors: `gpuresample.resample` and `gpuresample.torch` go by their affine, and give the new one."""

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, list_data_collate

import gpuresample as gr
import gpuresample.torch as grt

AFFINES = {
    "LAS": np.array([[-2.0, 0, 0, 30], [0, 3, 0, -20], [0, 0, 1.5, 5], [0, 0, 0, 1]]),
    "RAS": np.array([[0.8, 0, 0, -3], [0, 0.9, 0, 4], [0, 0, 2.5, 7], [0, 0, 0, 1]]),
    "permuted": np.array([[0, 0, -2.0, 30], [1.5, 0, 0, -20], [0, 3, 0, 5], [0, 0, 0, 1]]),
    "upside down": np.array([[1.0, 0, 0, 0], [0, -2, 0, 40], [0, 0, -3, 60], [0, 0, 0, 1]]),
    "unit": np.eye(4),
}
C, S = np.cos(0.3), np.sin(0.3)
AFFINES["oblique"] = np.array([[C, -S, 0, 1], [S, C, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]) @ np.diag([2.0, 3, 1.5, 1])


def image(name, shape=(2, 8, 9, 10), **meta):
    voxels = torch.from_numpy(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return MetaTensor(voxels, affine=torch.from_numpy(AFFINES[name]), meta=meta)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("spacing", [1.0, (1.0, 2.0, 0.7)])
def test_resample_to_a_spacing_is_monais(name, spacing):
    x = image(name)
    three = (spacing,) * 3 if isinstance(spacing, float) else spacing
    theirs = mt.Spacing(three, mode="bilinear", padding_mode="border")(x)
    mine = gr.resample(x, spacing=spacing, interpolation="linear", convention="monai")
    assert type(mine) is MetaTensor
    assert mine.shape == theirs.shape
    torch.testing.assert_close(mine.affine, theirs.affine, rtol=0, atol=1e-6)
    assert float((mine.as_tensor() - theirs.as_tensor()).abs().max()) <= 2e-6 * float(x.max() - x.min())


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize(
    "keywords",
    [
        {"spacing": (1.0, 2.0, 0.7)},
        {"size": (5, 6, 4)},
        {"size": (5, 6, 4), "anchor": "edge"},
        {"spacing": 1.5, "anchor": "edge"},
    ],
)
def test_the_torch_face_gives_the_same_geometry(name, keywords):
    x = image(name)
    whole, face = gr.resample(x, **keywords), grt.resample(x, **keywords)
    assert type(face) is MetaTensor
    torch.testing.assert_close(face.affine, whole.affine, rtol=0, atol=1e-9)
    torch.testing.assert_close(face.as_tensor(), whole.as_tensor(), rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", AFFINES)
def test_smaller_images_lie_where_monai_puts_them(name):
    x = image(name)
    for mode in ("nearest", "area", "trilinear"):
        theirs = mt.Resize((4, 5, 7), mode=mode)(x)
        mine = grt.interpolate(x[None], (4, 5, 7), mode=mode)[0]
        torch.testing.assert_close(mine.affine, theirs.affine, rtol=0, atol=1e-9)
        torch.testing.assert_close(mine.as_tensor(), theirs.as_tensor(), rtol=0, atol=1e-5)
    half = grt.downsample(x, 2)
    torch.testing.assert_close(half.affine[:3, :3], x.affine[:3, :3] * 2, rtol=0, atol=1e-9)
    assert torch.equal(grt.gaussian(x, 1.0).affine, x.affine)


def test_batches_and_gradients_keep_their_affines():
    x = image("LAS")
    batch = list_data_collate([x, x])
    batch.requires_grad_()
    out = grt.resample(batch, size=(4, 4, 4), anchor="edge", interpolation="linear")
    alone = grt.resample(x, size=(4, 4, 4), anchor="edge", interpolation="linear")
    assert out.is_batch
    assert out.affine.shape == (2, 4, 4)
    torch.testing.assert_close(out.affine[1], alone.affine, rtol=0, atol=0)
    out.as_tensor().sum().backward()
    assert float(batch.grad.sum()) == pytest.approx(2 * 2 * 64, rel=1e-5)


def test_between_kinds_space_is_one():
    x = image("LAS")
    volume = gr.Volume(
        x.as_tensor().numpy().transpose(0, 3, 2, 1), (2, 3, 1.5), (-30, 20, 5), (1, 0, 0, 0, -1, 0, 0, 0, 1)
    )
    like = gr.Volume(np.zeros((7, 6, 5), np.float32), (2.2, 3.1, 1.7), (-29, 2, 6))
    ours, theirs = gr.resample(x, like=like), gr.resample(volume, like=like)
    np.testing.assert_array_equal(ours.as_tensor().numpy().transpose(0, 3, 2, 1), theirs.array)
    np.testing.assert_allclose(
        np.diag([-1, -1, 1, 1]) @ ours.affine.numpy(), [[2.2, 0, 0, -29], [0, 3.1, 0, 2], [0, 0, 1.7, 6], [0, 0, 0, 1]]
    )
    back = gr.resample(like, like=ours)
    np.testing.assert_array_equal(back.array, like.array)
    assert gr.resample(like, like=x).size == (8, 9, 10)
    out = MetaTensor(torch.zeros(2, 5, 6, 7))
    assert gr.resample(x, like=like, out=out) is out
    assert torch.equal(out.as_tensor(), ours.as_tensor())
    assert torch.equal(out.affine, ours.affine)


def test_a_picture_and_another_space():
    picture = MetaTensor(torch.rand(1, 8, 9), affine=torch.diag(torch.tensor([-2.0, 3.0, 1.0])))
    out = gr.resample(picture, spacing=1.0)
    assert out.shape == (1, 16, 27)
    assert torch.equal(out.affine, torch.diag(torch.tensor([-1.0, 1.0, 1.0])))
    assert grt.resample(picture, spacing=1.0, spatial_dims=2).shape == (1, 16, 27)
    lps = image("RAS", space="LPS")
    np.testing.assert_array_equal(gr.resample(lps, size=(4, 4, 4)).affine[:3, 3], lps.affine[:3, 3])
    assert gr.plan(lps, size=(4, 4, 4)).source.origin == (-3.0, 4.0, 7.0)
    assert gr.plan(image("RAS"), size=(4, 4, 4)).source.origin == (3.0, -4.0, 7.0)


def test_scores_lie_where_their_affine_says():
    x = image("LAS")
    half = gr.resample(x, size=(4, 4, 5))
    labels = gr.ensemble(half, like=x[:1])
    scores = gr.resample(half, like=x[:1], interpolation="linear")
    assert type(labels) is MetaTensor
    assert torch.equal(labels.affine, x.affine)
    inside = (scores.as_tensor() != 0).all(dim=0)
    assert torch.equal(labels.as_tensor()[0][inside], scores.as_tensor().argmax(0).to(torch.uint8)[inside])


def test_refusals_say_what_to_pass():
    with pytest.raises(ValueError, match="input_spacing is for bare"):
        gr.resample(image("LAS"), spacing=1.0, input_spacing=2.0)
    with pytest.raises(ValueError, match="input_spacing is for bare"):
        grt.resample(image("LAS"), spacing=1.0, input_spacing=2.0)
    with pytest.raises(ValueError, match="as_tensor"):
        gr.resample(list_data_collate([image("LAS")] * 2), spacing=1.0)
    with pytest.raises(ValueError, match="EnsureChannelFirst"):
        gr.resample(MetaTensor(torch.rand(8, 9, 10)), spacing=2.0)
    with pytest.raises(ValueError, match="one spacing"):
        grt.resample(list_data_collate([image("LAS"), image("RAS")]), size=(4, 4, 4))
    lazy = mt.Flip(0, lazy=True)(image("LAS"))
    with pytest.raises(ValueError, match="pending"):
        gr.resample(lazy, spacing=1.0)


# --- MONAI's classes replaced ---------------------------------------------------------------------------------------


def test_ours_may_have_the_name_of_monais(monkeypatch):
    import gpuresample.monai as grm

    x = image("LAS")
    theirs = mt.Spacing((1.0, 2.0, 0.7))(x)
    for module in (mt, mt.spatial.array):
        monkeypatch.setattr(module, "SpatialResample", grm.SpatialResample)
    mine = mt.Spacing((1.0, 2.0, 0.7))(x)
    torch.testing.assert_close(mine.affine, theirs.affine, rtol=0, atol=0)
    assert float((mine - theirs).abs().max()) <= 2e-6 * float(x.max() - x.min())
    with pytest.warns(RuntimeWarning, match="lazy evaluation"):
        assert grm.Spacing((1.0, 2.0, 0.7), lazy=True)(x).pending_operations


@pytest.mark.parametrize(
    "name", ["Spacingd", "SpacingD", "monai.transforms.Spacingd", "monai.transforms.spatial.dictionary.Spacingd"]
)
def test_bundles_that_name_monais_transforms_get_ours(name):
    from monai.bundle import ConfigParser

    import gpuresample.monai as grm

    def made():
        config = {"t": {"_target_": name, "keys": ["image"], "pixdim": [1.0, 2.0, 0.7], "mode": "bilinear"}}
        return ConfigParser(config).get_parsed_content("t")

    x = {"image": image("LAS")}
    before, module = made(), grm.Spacingd.__module__
    assert not isinstance(before, grm.Spacingd)
    with grm.install() as done:
        ours = made()
        assert type(ours) is grm.Spacingd
        assert type(mt.Compose([mt.Resized(["image"], (3, 4, 5))]).transforms[0]) is grm.Resized
        mine = ours(x)["image"]
        back = ours.inverse({"image": mine})["image"]
        with grm.install():  # within another: changes nothing, and takes nothing away
            pass
        assert mt.Spacingd is grm.Spacingd
    done.revert()
    assert type(made()) is type(before)
    assert grm.Spacingd.__module__ == module
    theirs = before(x)["image"]
    torch.testing.assert_close(mine.affine, theirs.affine, rtol=0, atol=0)
    assert float((mine - theirs).abs().max()) <= 2e-6 * float(theirs.max() - theirs.min())
    assert back.shape == x["image"].shape
