"""torch's own tensors as containers, on the CPU: by DLPack, without a copy."""

import numpy as np
import pytest
import torch

import gpuresample as gr
from gpuresample import ndimage
from gpuresample.torch import ResampleCollate

SRC = np.random.default_rng(0).integers(-1000, 1000, (9, 14, 21)).astype(np.int16)
SIZE = (7, 17, 15)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint8, torch.float32, torch.float16, torch.float64, torch.uint16])
def test_tensors_come_out_as_tensors(dtype):
    src = torch.from_numpy(SRC).clamp(min=0).to(dtype)
    out = gr.resample(src, size=SIZE)
    assert type(out) is torch.Tensor
    assert out.dtype == dtype
    assert (out.numpy() == gr.resample(src.numpy(), size=SIZE)).all()


def test_masks_batches_and_strides():
    mask = torch.from_numpy(SRC > 0)
    assert gr.resample(mask, size=SIZE).dtype == torch.bool
    batch = torch.from_numpy(SRC).permute(2, 1, 0).expand(2, 3, -1, -1, -1)
    out = gr.resample(batch, size=SIZE)
    assert out.shape == (2, 3, *SIZE)
    assert torch.equal(out[1, 2], gr.resample(torch.from_numpy(SRC.transpose(2, 1, 0).copy()), size=SIZE))


def test_out_is_written_to():
    out = torch.zeros(SIZE, dtype=torch.int16)
    assert gr.resample(torch.from_numpy(SRC), size=SIZE, out=out) is out
    assert (out.numpy() == gr.resample(SRC, size=SIZE)).all()
    src = torch.zeros(8, 8, 8)
    with pytest.raises(ValueError, match="out must not share memory"):
        gr.resample(src, size=(8, 8, 7), out=src[..., :7])
    with pytest.raises(TypeError, match=r"out must be a torch\.Tensor like the input, got ndarray"):
        gr.resample(src, size=SIZE, out=np.zeros(SIZE, np.float32))


def test_what_cannot_be_taken_is_named():
    with pytest.raises(TypeError, match=r"image must have voxels of a type that NumPy has, got torch\.bfloat16"):
        gr.resample(torch.zeros(4, 5, 6, dtype=torch.bfloat16), size=SIZE)
    with pytest.raises(TypeError, match=r"image cannot be read by DLPack: .*requires? grad"):
        gr.resample(torch.zeros(4, 5, 6, requires_grad=True), size=SIZE)
    with pytest.raises(TypeError, match="image cannot be read by DLPack: Unknown device type meta"):
        gr.resample(torch.zeros(4, 5, 6, device="meta"), size=SIZE)


def test_volumes_and_likes():
    volume = gr.Volume(torch.from_numpy(SRC), (1, 2, 3))
    out = gr.resample(volume, spacing=2)
    assert type(out.array) is torch.Tensor
    assert gr.resample(SRC, like=torch.zeros(SIZE)).shape == SIZE
    assert type(gr.gaussian(torch.from_numpy(SRC), 1.5)) is torch.Tensor


def test_views_that_turn_signs():
    """Their memory has the other signs, and torch hands out the memory."""
    view = torch.complex(torch.rand(4, 5, 6), torch.rand(4, 5, 6)).conj().imag
    assert view.is_neg()
    own = view.resolve_neg()
    assert torch.equal(gr.resample(view, size=SIZE), gr.resample(own, size=SIZE))
    assert torch.equal(ndimage.gaussian_filter(view, 1), ndimage.gaussian_filter(own, 1))
    field = [gr.DisplacementField(one[..., None].expand(4, 5, 6, 3)) for one in (view, own)]
    assert np.array_equal(*[gr.resample(np.arange(120.0).reshape(4, 5, 6), transform=one) for one in field])
    with pytest.raises(ValueError, match="out must not be a view that turns signs"):
        gr.resample(torch.rand(3, 3, 3), size=(4, 5, 6), out=view)
    batch = [ResampleCollate((3, 4, 5))([one[None]]) for one in (view, own)]
    assert torch.equal(*batch)
