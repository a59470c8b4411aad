"""`gpuresample.monai` beside MONAI's own transforms, on real volumes: voxels, affine, traces, inverses."""

import warnings

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from support import SINGLE

import gpuresample.monai as grm


@pytest.fixture(scope="module")
def load(data_dir):
    """`load(name, *slices)`: a MetaTensor as MONAI reads it, cut to a box."""
    whole = {}

    def load(name, start=(0, 0, 0), size=(10**6,) * 3):
        if name not in whole:
            whole[name] = mt.LoadImage(ensure_channel_first=True, image_only=True)(str(data_dir / name))
        cut = mt.SpatialCrop(roi_start=start, roi_end=[a + b for a, b in zip(start, size, strict=True)])
        return cut(whole[name])

    return load


@pytest.fixture
def ct(load):
    return load("shear.nii.gz", (90, 160, 8), (70, 80, 30))


@pytest.fixture
def mr(load):
    return load("MNI152_2009_template.nii.gz", (50, 70, 60), (48, 52, 44))


def assert_same(ours, theirs, image, exact=False, bound=SINGLE):
    """Voxels, type, affine, and what inverses go by; `exact` up to ties, which are few on sheared grids."""
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours.affine, theirs.affine, rtol=0, atol=0)
    spread = float(image.max() - image.min())
    a, b = ours.as_tensor(), theirs.as_tensor()
    if exact:
        assert float((a != b).double().mean()) <= (1e-5 if is_sheared(image) else 0)
    else:
        assert float((a - b).abs().max()) <= bound * spread
    ours, theirs = ours.applied_operations, theirs.applied_operations
    assert [o["class"] for o in ours] == [t["class"] for t in theirs]
    for o, t in zip(ours, theirs, strict=True):
        assert str(o["extra_info"]) == str(t["extra_info"])
        assert tuple(o["orig_size"]) == tuple(t["orig_size"])
        assert o["lazy"] == t["lazy"]


def is_sheared(image):
    """Whether the image's axes are not at right angles: its grids are gathered, and ties go another way there."""
    axes = image.affine[:-1, :-1]
    product = axes.T @ axes
    return bool((product - product.diag().diag()).abs().max() > 1e-3)


def both(name, image, *arguments, **keywords):
    return getattr(grm, name)(*arguments, **keywords)(image), getattr(mt, name)(*arguments, **keywords)(image)


# --- Spacing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", ["border", "reflection", "zeros"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_spacing(ct, mr, mode, padding, align, no_fallback):
    keywords = {"mode": mode, "padding_mode": padding, "align_corners": align}
    for image, pixdim in ((ct, (0.7, 1.1, 1.9)), (mr, (1.5, 0.8, 1.0)), (mr, (2, 2, 0.5))):
        assert_same(*both("Spacing", image, pixdim, **keywords), image, exact=mode == "nearest")


@pytest.mark.parametrize("padding", ["nearest", "reflect", "mirror", "border", "reflection"])
@pytest.mark.parametrize("order", [0, 1, 2, 3, 4, 5])
def test_spacing_by_splines(ct, order, padding, no_fallback):
    ours, theirs = both("Spacing", ct, (0.71, 1.13, 1.9), mode=order, padding_mode=padding)
    # SciPy goes on for 12 voxels past the border; the poles of orders 4 and 5 have not died away there.
    assert_same(ours, theirs, ct, exact=order == 0, bound=1e-5 if order > 3 else SINGLE)


@pytest.mark.parametrize(
    "keywords",
    [
        {"diagonal": True},
        {"recompute_affine": True},
        {"scale_extent": True, "align_corners": True},
        {"min_pixdim": (0.4, 0.4, 3.0), "max_pixdim": (0.6, 0.6, 4.0)},
        {"dtype": np.float32},
        {"dtype": None},
    ],
    ids=lambda k: next(iter(k)),
)
def test_spacing_with_everything_else(ct, keywords, no_fallback):
    ours, theirs = both("Spacing", ct, (0.7, 1.1, 1.9), **keywords)
    # In float32, MONAI's coordinates on a sheared grid are what is not exact.
    assert_same(ours, theirs, ct, bound=1e-5 if "dtype" in keywords else SINGLE)
    straight = MetaTensor(ct.as_tensor(), affine=torch.diag(torch.tensor([0.48, 0.48, 2.4, 1.0], dtype=torch.float64)))
    assert_same(*both("Spacing", straight, (0.7, 1.1, 1.9), **keywords), straight)


@pytest.mark.parametrize("keywords", [
    {"min_pixdim": (0.4, 0.4, 3.0), "max_pixdim": (0.6, 0.6, 4.0)}, {"min_pixdim": 0.4}, {"diagonal": True},
    {"recompute_affine": True}, {"ensure_same_shape": False},
    {"scale_extent": [True, False], "align_corners": [True, False]},
])  # fmt: skip
def test_dictionaries_hand_everything_on(ct, keywords, no_fallback):
    data = {"a": ct, "b": ct.clone()}
    ours, theirs = both("Spacingd", data, ["a", "b"], (0.7, 1.1, 1.9), mode=["bilinear", 1], **keywords)
    for key in data:
        assert_same(ours[key], theirs[key], ct)


def test_spacing_that_is_there_already(mr, no_fallback):
    ours, theirs = both("Spacing", mr, (1, 1, 1))
    assert_same(ours, theirs, mr, exact=True)


def test_spacing_in_two_dimensions(mr, no_fallback):
    image = MetaTensor(mr[..., 20].as_tensor(), affine=torch.diag(torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64)))
    for mode in ("bilinear", "nearest", 3):
        assert_same(*both("Spacing", image, (0.7, 1.3), mode=mode), image, exact=mode == "nearest")


def test_bare_tensors_and_channels(mr, no_fallback):
    image = torch.cat([mr.as_tensor(), 100 - mr.as_tensor()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MONAI assumes an affine, and says so
        ours, theirs = both("Spacing", image, (1.3, 0.8, 1.1))
    assert_same(ours, theirs, image)


def test_gradients_come_back(mr, no_fallback):
    image = mr.as_tensor().double()
    gradients = []
    for module in (grm, mt):
        x = MetaTensor(image.clone(), affine=mr.affine).requires_grad_()
        module.Spacing((1.3, 0.8, 1.1))(x).square().mean().backward()
        gradients.append(x.grad.as_tensor() if isinstance(x.grad, MetaTensor) else x.grad)
    spread = float(gradients[1].abs().max())
    assert float((gradients[0] - gradients[1]).abs().max()) <= 1e-5 * spread


# --- inverses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "nearest", 3])
def test_spacing_is_inverted(ct, mode, no_fallback):
    kind = {"mode": mode, "padding_mode": "border"}
    ours, theirs = grm.Spacing((0.7, 1.1, 1.9), **kind), mt.Spacing((0.7, 1.1, 1.9), **kind)
    a, b = ours.inverse(ours(ct)), theirs.inverse(theirs(ct))
    assert a.shape == ct.shape
    assert_same(a, b, ct)
    torch.testing.assert_close(a.affine, ct.affine)
    assert [o["class"] for o in a.applied_operations] == ["SpatialCrop"]


def pipeline(module):
    return mt.Compose(
        [
            module.Spacingd(["image", "label"], (1.4, 1.4, 1.2), mode=["bilinear", "nearest"]),
            module.Resized(["image", "label"], (30, 32, 28), mode=["trilinear", "nearest"]),
            module.GaussianSmoothd("image", 0.8),
        ]
    )


def test_pipelines_of_dictionaries_and_their_inverses(load, no_fallback):
    box = (40, 50, 40), (50, 60, 56)
    data = {"image": load("FLAIR.nii.gz", *box), "label": load("lesion.nii.gz", *box)}
    chains = [pipeline(module) for module in (grm, mt)]
    ours, theirs = (chain(data) for chain in chains)
    assert_same(ours["image"], theirs["image"], data["image"])
    assert_same(ours["label"], theirs["label"], data["label"], exact=True)
    back, their_back = (chain.inverse(dict(out)) for chain, out in zip(chains, (ours, theirs), strict=True))
    for key, image in data.items():
        assert_same(back[key], their_back[key], image)
        torch.testing.assert_close(back[key].affine, image.affine)


def test_invertd_brings_a_prediction_back(mr, no_fallback):
    results = []
    for module in (grm, mt):
        chain = mt.Compose([module.Spacingd("image", (1.5, 1.2, 1.4)), module.Resized("image", (24, 30, 26))])
        data = chain({"image": mr})
        data["pred"] = MetaTensor((data["image"].as_tensor() > 3000).float(), meta={})
        post = mt.Invertd("pred", transform=chain, orig_keys="image", nearest_interp=True, to_tensor=True)
        (one,) = [post(d) for d in decollate_batch(list_data_collate([data]))]
        results.append(one["pred"])
    assert results[0].shape == mr.shape
    assert torch.equal(results[0].as_tensor(), results[1].as_tensor())


# --- ResampleToMatch -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["bilinear", "nearest", 3])
@pytest.mark.parametrize("names", [("RAS.nii.gz", "PIR.nii.gz"), ("SAR.nii.gz", "LPS.nii.gz")])
def test_matching_permuted_and_flipped_grids(load, names, mode, no_fallback):
    image, other = (load(name) for name in names)
    other = mt.Spacing((2.1, 1.7, 2.3))(other)
    keywords = {"mode": mode, "padding_mode": "border"}
    ours, theirs = (m.ResampleToMatch(**keywords)(image, other) for m in (grm, mt))
    assert_same(ours, theirs, image, exact=mode == "nearest")


@pytest.mark.parametrize("keywords", [{}, {"padding_mode": "reflection"}, {"mode": 3, "padding_mode": "mirror"}])
def test_matching_rotated_grids(load, keywords, no_fallback):
    image, other = (
        load("MNI152_2009_template.nii.gz", (40, 60, 50), (90, 90, 80)),
        load("FLAIR.nii.gz", (40, 50, 50), (40, 44, 48)),
    )
    ours, theirs = (m.ResampleToMatch(**keywords)(image, other) for m in (grm, mt))
    assert_same(ours, theirs, image)
    a = grm.ResampleToMatchd("image", "other", **keywords)({"image": image, "other": other})["image"]
    assert torch.equal(a.as_tensor(), ours.as_tensor())


# --- Resize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "align"), [
    ("area", None), ("nearest", None), ("nearest-exact", None), ("trilinear", False), ("trilinear", True),
    ("bilinear", None),
])  # fmt: skip
def test_resize(ct, mode, align, no_fallback):
    for size in ((31, 120, 45), (35, 40, 60), (70, 80, 30), (-1, 20, 1)):
        ours, theirs = both("Resize", ct, size, mode=mode, align_corners=align)
        assert_same(ours, theirs, ct, exact=mode.startswith("nearest"))


@pytest.mark.parametrize("keywords", [
    {"anti_aliasing": True}, {"anti_aliasing": True, "anti_aliasing_sigma": (1.5, 1.0, 2.0)},
    {"anti_aliasing": True, "mode": "trilinear"}, {"size_mode": "longest"}, {"dtype": torch.float64},
])  # fmt: skip
def test_resize_with_everything_else(ct, keywords, no_fallback):
    size = 40 if "size_mode" in keywords else (31, 30, 45)
    assert_same(*both("Resize", ct, size, **keywords), ct)


def test_resize_in_two_dimensions_and_back(mr, no_fallback):
    image = MetaTensor(mr[..., 20].as_tensor(), affine=torch.eye(3, dtype=torch.float64))
    ours, theirs = grm.Resize((40, 61), mode="bilinear"), mt.Resize((40, 61), mode="bilinear")
    assert_same(ours(image), theirs(image), image)
    assert_same(ours.inverse(ours(image)), theirs.inverse(theirs(image)), image)


# --- GaussianSmooth --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approx", ["erf", "sampled", "scalespace"])
@pytest.mark.parametrize("sigma", [1.0, (0.5, 2.0, 1.3), 6.0])
def test_gaussian_smooth(mr, sigma, approx, no_fallback):
    assert_same(*both("GaussianSmooth", mr, sigma, approx=approx), mr)


def test_gaussian_smooth_refuses_what_monai_refuses(mr):
    for module in (grm, mt):
        with pytest.raises(NotImplementedError, match="approx='box'"):
            module.GaussianSmooth(1.0, approx="box")(mr)
        with pytest.raises(ValueError):  # MONAI's has no words
            module.GaussianSmooth((1.0, 2.0))(mr)


# --- what MONAI does itself ------------------------------------------------------------------------------------------


def test_what_tables_cannot_do_goes_to_monai_with_one_warning(mr):
    cases = [
        ("Spacing", ((1.3, 1.2, 0.9),), {"mode": 3, "padding_mode": "wrap"}, "padding_mode='wrap'"),
        ("Spacing", ((1.3, 1.2, 0.9),), {"mode": 1, "align_corners": True}, "mode=1 with align_corners=True"),
        ("Resize", ((30, 30),), {"mode": "bicubic"}, "mode='bicubic'"),
    ]
    for name, arguments, keywords, reason in cases:
        image = mr if name == "Spacing" else MetaTensor(mr[..., 20].as_tensor(), affine=torch.eye(3))
        transform = getattr(grm, name)(*arguments, **keywords)
        with pytest.warns(RuntimeWarning, match=f"{reason}: MONAI's own transform does it"):
            ours = transform(image)
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            transform(image)
        theirs = getattr(mt, name)(*arguments, **keywords)(image)
        assert_same(ours, theirs, image, exact=True)


def test_lazy_pipelines_are_monais(mr):
    with pytest.warns(RuntimeWarning, match="lazy evaluation: MONAI's own transform does it"):
        ours = mt.Compose([grm.Spacing((1.3, 1.2, 0.9)), mt.Flip(0)], lazy=True)(mr)
    theirs = mt.Compose([mt.Spacing((1.3, 1.2, 0.9)), mt.Flip(0)], lazy=True)(mr)
    assert torch.equal(ours.as_tensor(), theirs.as_tensor())
    torch.testing.assert_close(ours.affine, theirs.affine)


def test_gradients_come_back_through_a_rotated_grid(load, no_fallback):
    image = load("FLAIR.nii.gz", (40, 50, 50), (20, 21, 22))
    other = load("MNI152_2009_template.nii.gz", (60, 90, 80), (20, 21, 22))
    gradients = []
    for module in (grm, mt):
        x = MetaTensor(image.as_tensor().double(), affine=image.affine).requires_grad_()
        module.ResampleToMatch()(x, other).square().mean().backward()
        gradients.append(x.grad.as_tensor() if isinstance(x.grad, MetaTensor) else x.grad)
    spread = float(gradients[1].abs().max())
    assert spread > 0
    assert float((gradients[0] - gradients[1]).abs().max()) <= 1e-5 * spread
