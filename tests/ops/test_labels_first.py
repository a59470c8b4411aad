"""`bin_shrink(reduce="label")`: labels before background, against a loop over blocks."""

import numpy as np
import pytest
import SimpleITK as sitk
from support import noise

import gpuresample as gr
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import HostRuntime
from gpuresample.engines.interface import Store
from gpuresample.planning.works import Majority


def naive(array, factors):
    """One block after the other."""
    out = np.zeros([n // f for n, f in zip(array.shape, factors, strict=True)], array.dtype)
    for at in np.ndindex(out.shape):
        block = array[tuple(slice(k * f, (k + 1) * f) for k, f in zip(at, factors, strict=True))]
        values, counts = np.unique(block[block != 0], return_counts=True)
        out[at] = values[counts.argmax()] if values.size else 0
    return out


@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 2), (1, 1, 1), (5, 4, 3), (9, 8, 7), (1, 6, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "bool"])
def test_labels_come_before_background(factors, dtype):
    array = noise((9, 16, 14), "uint8") % 9
    array = np.where(array > 4, 0, array).astype(dtype)
    if dtype == "int16":
        array = -array
    if dtype == "int64":
        array *= 2**60 + 1
    out = gr.bin_shrink(array, factors, reduce="label")
    assert out.dtype == array.dtype
    np.testing.assert_array_equal(out, naive(array, factors))


def test_a_thread_survives_where_a_mode_loses_it():
    array = np.zeros((32, 32, 32), np.uint8)
    array[:, 13, 17] = 3
    image = sitk.GetImageFromArray(array)
    for factor in (2, 4, 8):
        mode, kept = (gr.bin_shrink(image, factor, reduce=word) for word in ("mode", "label"))
        assert gr.label_report(image, mode).lost == (3,)
        report = gr.label_report(image, kept)
        assert report.lost == ()
        assert report.changes[0].voxels[1] == 32 // factor
        assert kept.GetOrigin() == mode.GetOrigin()


def test_kinds_channels_and_out():
    array = (noise((2, 6, 8, 10), "uint8") % 3).astype(np.uint16)
    out = np.empty((2, 3, 4, 5), np.uint16)
    assert gr.bin_shrink(array, 2, reduce="label", out=out) is out
    for one, small in zip(array, out, strict=True):
        np.testing.assert_array_equal(small, naive(one, (2, 2, 2)))
    volume = gr.bin_shrink(gr.Volume(array[0], (1, 2, 3)), (1, 2, 3), reduce="label")
    np.testing.assert_array_equal(volume.array, naive(array[0], (3, 2, 1)))
    flat = gr.bin_shrink(array[0, 0], (2, 5), reduce="label")
    np.testing.assert_array_equal(flat, naive(array[0, 0], (2, 5)))


@pytest.mark.parametrize("n", [255, 256, 257, 400])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64"])
def test_blocks_of_many_labels_beside_background(n, dtype):
    array = np.zeros((3, 4, 200), dtype)
    array.ravel()[1 : 2 * n : 2] = (np.arange(n) - n // 2).astype(dtype)
    array.ravel()[-5:] = 0 if n % 2 else 77
    for factors in ((3, 4, 200), (3, 4, 100), (1, 2, 50)):
        np.testing.assert_array_equal(
            gr.bin_shrink(array, factors, reduce="label", device="cpu"), naive(array, factors)
        )


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint32", "int64", "bool"])
@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 2), (5, 4, 3)])
def test_the_kernel_has_the_same_votes(dtype, factors):
    """The CUDA kernel, built by g++."""
    array = noise((2, 9, 16, 14), "uint8") % 11
    array = np.where(array > 4, 0, array).astype(dtype)
    array = array.view(np.uint8) if dtype == "bool" else array
    n = tuple(k // f for k, f in zip(array.shape[1:], factors, strict=True))
    dst = np.empty((2, *n), array.dtype)
    CudaEngine(HostRuntime()).run(Majority(factors, n, labels_first=True), array, dst, Store())
    for one, small in zip(array, dst, strict=True):
        np.testing.assert_array_equal(small, naive(one, factors))


@pytest.mark.parametrize("shape", [(32, 32, 32), (17, 24, 21), (7, 9, 50)])
def test_pyramids_keep_threads(shape):
    array = np.zeros(shape, np.int16)
    array[:, 3, 4] = -3
    levels = gr.pyramid(gr.Volume(array, (1, 1, 2)), 3, kind="label")
    modes = gr.pyramid(gr.Volume(array, (1, 1, 2)), 3, kind="mode")
    for k, (level, mode) in enumerate(zip(levels, modes, strict=True)):
        np.testing.assert_array_equal(level.array, naive(array, (2**k,) * 3))
        assert (level.origin, level.spacing) == (mode.origin, mode.spacing)
        assert gr.label_report(levels[0], level).lost == ()


def test_arrays_that_are_read_block_by_block():
    da = pytest.importorskip("dask.array")
    array = (noise((40, 33, 50), "uint8") % 5 % 4).astype(np.uint16)
    lazy = gr.bin_shrink(da.from_array(array, chunks=16), (2, 3, 2), reduce="label")
    np.testing.assert_array_equal(lazy.compute(), naive(array, (2, 3, 2)))
    levels = gr.pyramid(da.from_array(array, chunks=16), 3, kind="label")
    np.testing.assert_array_equal(levels[2].compute(), naive(array, (4, 4, 4)))


@pytest.mark.parametrize(("image", "reduce", "error", "message"), [
    (np.zeros((4, 4, 4), np.float32), "label", TypeError, "image must have labels, integers or bool"),
    (np.zeros((4, 4, 4), np.uint8), "labels", ValueError, "reduce must be one of 'mean', 'mode', 'label'"),
    (np.zeros((1, 4, 4), np.uint8), "label", ValueError, "factors must not exceed the image's size"),
])  # fmt: skip
def test_refusals_by_name(image, reduce, error, message):
    with pytest.raises(error, match=message):
        gr.bin_shrink(image, 2, reduce=reduce)


def test_which_thin_labels_a_pyramid_loses():
    thread = np.zeros((60, 40, 48), np.uint8)
    step = np.linspace(0, 1, 48)
    thread[np.rint(2 + 50 * step).astype(int), np.rint(1 + 30 * step).astype(int), np.arange(48)] = 1
    thread[57, :, 5] = 2  # in no block of 8
    thread[20:22, 20:22, 20:22] = [[[3, 3], [3, 3]], [[3, 4], [4, 4]]]  # a block of two labels
    before = gr.Volume(thread, 1.0)
    lost = [gr.label_report(before, level).lost for level in gr.pyramid(before, 4, kind="label")]
    assert lost == [(), (4,), (4,), (2, 4)]
