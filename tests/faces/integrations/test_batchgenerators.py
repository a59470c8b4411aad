"""batchgeneratorsv2's `SpatialTransform` beside ours, with the same seeds: draws, images, labels; nnU-Net."""

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_gaussian

spatial = pytest.importorskip("batchgeneratorsv2.transforms.spatial.spatial")

from gpuresample.batchgenerators import SpatialTransform, blurred  # noqa: E402

Theirs = spatial.SpatialTransform
COMMON = {
    "patch_center_dist_from_border": 10, "random_crop": True, "rotation": (-0.5, 0.5), "scaling": (0.7, 1.4),
    "elastic_deform_scale": (0.05, 0.2), "elastic_deform_magnitude": (1, 6),
}  # fmt: skip
ALL = {"p_rotation": 1, "p_scaling": 1, "p_elastic_deform": 1}
CASES = {
    "affine": {"p_rotation": 1, "p_scaling": 1},
    "elastic": {"p_elastic_deform": 1},
    "both, some axes, synchronized": ALL | {
        "p_rot_per_axis": 0.5, "p_synchronize_scaling_across_axes": 0.5, "p_synchronize_def_scale_across_axes": 0.5,
    },
    "border": {"p_rotation": 1, "padding_mode_image": "border", "border_mode_seg": "border"},
    "reflection": {"p_rotation": 1, "padding_mode_image": "reflection", "border_mode_seg": "reflection"},
    "constant": {
        "p_rotation": 1, "padding_mode_image": "constant", "padding_value_image": -7.0, "border_mode_seg": "constant",
        "padding_value_seg": -1,
    },
    "aligned corners": ALL | {"align_corners": True, "center_deformation": False, "seg_tiebreak": "highest"},
    "nearest": {"p_rotation": 1, "mode_seg": "nearest"},
    "a stack of scores": {"p_scaling": 1, "bg_style_seg_sampling": True, "seg_tiebreak": "lowest"},
    "nothing": {},
}  # fmt: skip


def volume(shape, labels):
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    smooth = sum(np.cos(5 * a + k) for k, a in enumerate(axes))
    image = (300 * smooth + 20 * np.random.default_rng(0).standard_normal(shape)).astype(np.float32)
    cuts = np.quantile(smooth, np.linspace(0, 1, labels + 1)[1:-1])
    return torch.from_numpy(image)[None], torch.from_numpy(np.digitize(smooth, cuts).astype(np.int16))[None]


def both(asked, data, seed):
    made = []
    for cls in (Theirs, SpatialTransform):
        np.random.seed(seed)  # noqa: NPY002 - the library's stream
        torch.manual_seed(seed)
        out = cls(**COMMON | asked)(**{k: v.clone() for k, v in data.items()})
        # The streams are where the library leaves them.
        made.append((out, np.random.random(), torch.rand(1).item()))  # noqa: NPY002
    assert made[0][1:] == made[1][1:]
    return made[0][0], made[1][0]


VOLUME, PICTURE = ((24, 27, 22), (20, 18, 26)), ((40, 33), (30, 34))
PATCHES = [(case, VOLUME) for case in CASES] + [
    (case, PICTURE) for case in ("both, some axes, synchronized", "nothing")
]


@pytest.mark.parametrize(("case", "sizes"), PATCHES, ids=lambda v: v if isinstance(v, str) else str(len(v[0])))
def test_a_patch_is_the_librarys(case, sizes):
    shape, patch = sizes
    for labels in (2, 5):
        image, seg = volume(shape, labels)
        data = {"image": image, "segmentation": seg, "regression_target": 2 * image}
        for seed in (labels,):
            theirs, ours = both({"patch_size": patch} | CASES[case], data, seed)
            assert set(theirs) == set(ours)
            spread = float(image.max() - image.min())
            for key in ("image", "regression_target"):
                assert ours[key].dtype == theirs[key].dtype
                assert float((ours[key] - theirs[key]).abs().max()) < 1e-5 * spread
            assert ours["segmentation"].dtype == theirs["segmentation"].dtype
            # Torch's grid is float32: scores a rounding apart.
            assert (ours["segmentation"] != theirs["segmentation"]).float().mean() < 2e-4


@pytest.mark.parametrize(("shape", "sigma"), [((20, 21, 24), 3.0), ((20, 21), 0.3), ((9, 8, 7), 0.0), ((32, 30), 9.0)])
def test_the_noise_is_blurred_as_on_a_torus(shape, sigma):
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    expected = np.fft.ifftn(fourier_gaussian(np.fft.fftn(noise.double().numpy()), sigma)).real
    np.testing.assert_allclose(blurred(noise, sigma).numpy(), expected, atol=2e-6 * np.abs(expected).max())


def test_ties_go_to_the_nearest_label_and_half_to_the_even_voxel():
    """A shift of half a voxel, by hand: every score is 500."""
    seg = torch.tensor([0, 1, 0, 2, 2, 1, 0, 1], dtype=torch.int16).reshape(1, 1, 1, 8).expand(1, 4, 4, 8).contiguous()
    image = seg.float()
    for tie in ("nearest", "lowest", "highest"):
        made = []
        for cls in (Theirs, SpatialTransform):
            one = cls(patch_size=(4, 4, 6), patch_center_dist_from_border=0, random_crop=False, p_scaling=1,
                      scaling=(1, 1), seg_tiebreak=tie)  # fmt: skip
            params = one.get_parameters(image=image, segmentation=seg)
            if cls is Theirs:
                params["grid"] = torch.zeros(4, 4, 6, 3)
                for k, n in enumerate((8, 4, 4)):
                    at = torch.arange((6, 4, 4)[k]) + (1.5 if k == 0 else 0.0)
                    params["grid"][..., k] = ((2 * at + 1) / n - 1).reshape([-1 if a == 2 - k else 1 for a in range(3)])
            else:
                matrix = np.eye(3, 4)
                matrix[2, 3] = 1.5
                params["grid"] = type(params["grid"])(matrix, None, (4, 4, 6))
            made.append(one._apply_to_segmentation(seg, **params))
        assert torch.equal(*made), tie


def test_what_is_not_done_here_the_library_does_and_says_so():
    image, _ = volume((12, 13, 14), 2)
    with pytest.warns(RuntimeWarning, match="a mode other than bilinear"):
        theirs, ours = both({"patch_size": (8, 8, 8), "p_rotation": 1, "mode_image": "nearest"}, {"image": image}, 0)
    assert torch.equal(theirs["image"], ours["image"])


def test_nnunets_trainers_take_it_and_give_it_back():
    pytest.importorskip("nnunetv2")
    import nnunetv2.training.nnUNetTrainer.nnUNetTrainer as trainer

    import gpuresample.nnunet

    before = trainer.SpatialTransform
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        done = gpuresample.nnunet.install(augmentation=True)
    made = trainer.nnUNetTrainer.get_training_transforms((16, 16, 16), (-0.5, 0.5), None, (0, 1, 2), False)
    inner = [getattr(t, "transform", t) for t in made.transforms]
    assert any(type(t) is SpatialTransform for t in inner)
    assert spatial.SpatialTransform is SpatialTransform
    done.revert()
    assert trainer.SpatialTransform is before is spatial.SpatialTransform
