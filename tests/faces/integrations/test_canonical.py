"""`gr.reorient` beside TorchIO's `ToCanonical` and MONAI's `Orientation`."""

import monai.transforms as mt
import numpy as np
import pytest
import torch
import torchio as tio
from monai.data import MetaTensor

import gpuresample as gr


@pytest.mark.parametrize("name", ["LPS", "RAS", "PIR", "SAR", "IPL"])
def test_it_is_torchios_canonical(data_dir, name):
    import nibabel as nib

    path = data_dir / f"{name}.nii.gz"
    theirs = tio.ToCanonical()(tio.ScalarImage(path))
    mine = gr.reorient(nib.load(path))
    np.testing.assert_allclose(mine.affine, theirs.affine, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(mine.dataobj, np.float32), theirs.data[0].numpy())


@pytest.mark.parametrize("start", ["RAS", "LPS", "PIR", "ASL", "SAR"])
@pytest.mark.parametrize("code", ["RAS", "LPS", "ILA"])
def test_meta_tensors_are_turned_as_monai_turns_them(start, code):
    voxels = torch.randn(2, 5, 6, 7)
    image = mt.Orientation(start, labels=None)(
        MetaTensor(voxels, affine=torch.diag(torch.tensor([0.9, 1.2, 3.0, 1.0])))
    )
    theirs = mt.Orientation(code, labels=None)(image)
    mine = gr.reorient(image, code)
    assert type(mine) is MetaTensor
    assert torch.equal(mine.as_tensor(), theirs.as_tensor())
    torch.testing.assert_close(mine.affine, theirs.affine, atol=1e-5, rtol=0)
