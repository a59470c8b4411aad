"""Fixtures of the tests against torch's libraries."""

import warnings

import pytest

from gpuresample import installation


@pytest.fixture(autouse=True)
def every_test_is_warned_anew():
    installation.said.clear()


@pytest.fixture
def no_fallback():
    """The library does none of it itself: that would be a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        yield


@pytest.fixture(scope="module")
def subject(data_dir):
    """MONAI's: an image of two channels and its labels, 60x72x64, oblique."""
    import monai.transforms as mt
    import torch
    from monai.data import MetaTensor

    load = mt.LoadImage(ensure_channel_first=True, image_only=True)
    cut = mt.SpatialCrop(roi_start=(30, 50, 40), roi_end=(90, 122, 104))
    image, label = (cut(load(str(data_dir / name))) for name in ("FLAIR.nii.gz", "lesion.nii.gz"))
    voxels = image.as_tensor()
    two = MetaTensor(torch.cat([voxels, 255 - voxels.square() / 255]), affine=image.affine)
    return {"image": two, "label": label}
