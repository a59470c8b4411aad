"""What the tests of MONAI's augmentations share: both libraries' transforms, and how far they may differ."""

import monai.transforms as mt
import torch
from monai.data import MetaTensor
from support import SINGLE

import gpuresample.monai as grm

RANGES = {
    "rotate_range": (0.3, (0.1, 0.4), 0.2), "shear_range": (0.05, 0.02, 0.04, 0.03, 0.05, 0.01),
    "translate_range": (6, (1, 4), 5), "scale_range": (0.15, 0.1, (-0.1, 0.3)),
}  # fmt: skip


def of_coordinates(image):
    """What MONAI's coordinates in float32 may move a voxel by: a share of the range.

    Four products are summed for each of three coordinates; each rounding is half a unit in the last place of a number
    as large as the image. A voxel moves by no more than the range for each voxel that its place moves.
    """
    return 3 * 4 * 2.0**-24 * max(image.shape[1:]) + SINGLE


def plain(info):
    """What an inverse goes by, as text, without the names that objects have in memory."""
    if isinstance(info, dict):
        return {k: plain(v) for k, v in info.items() if k != "id"}
    return str(info)


def assert_same(ours, theirs, image, bound, differ=0.0):
    """Voxels, type, affine and trace; `differ`: the share of voxels that may be another, of copies."""
    assert type(ours) is type(theirs)
    assert ours.dtype == theirs.dtype == torch.float32
    assert ours.shape == theirs.shape
    spread = float(image.max() - image.min())
    a, b = (v.as_tensor() if isinstance(v, MetaTensor) else v for v in (ours, theirs))
    if differ:
        assert float((a != b).double().mean()) <= differ
    else:
        assert float((a - b).abs().max()) <= bound * spread
    if isinstance(ours, MetaTensor):
        torch.testing.assert_close(ours.affine, theirs.affine, rtol=0, atol=0)
        assert [plain(o) for o in ours.applied_operations] == [plain(t) for t in theirs.applied_operations]


def both(name, seed=None, **keywords):
    """Our transform and MONAI's, with the same seed."""
    made = [getattr(module, name)(**keywords) for module in (grm, mt)]
    for one in made:
        if seed is not None:
            one.set_random_state(seed)
    return made
