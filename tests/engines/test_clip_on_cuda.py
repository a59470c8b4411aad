"""`clip=` and `ignore=` of images on a GPU, against the CPU engine: kernels on the host, a stand-in for CuPy."""

import numpy as np
import pytest
from fake_cupy import Array
from support import noise, rotation

import gpuresample as gr

pytestmark = [pytest.mark.kernels, pytest.mark.usefixtures("cupy")]

TURN = [[*row, shift] for row, shift in zip(rotation(5, -4, 9), (0.7, -1.2, 0.4), strict=True)]
WAYS = {
    "aligned": {"size": (13, 17, 9)},
    "turned": {"transform": TURN},
    "copies": {"size": (9, 10, 11)},
    "apart": {"transform": [[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, -3]]},
}


def on_gpu(array):
    return np.array(array).view(Array)


def compared(array, **asked):
    """The result on the "GPU", which is that of the CPU to the engines' bound."""
    got = gr.resample(on_gpu(array), **asked)
    assert isinstance(got, Array)
    expected = gr.resample(array, device="cpu", **asked)
    got = np.asarray(got)
    assert got.dtype == expected.dtype
    with np.errstate(invalid="ignore"):
        bound = 1 if array.dtype.kind in "iu" else 1e-6 * np.nanmax(np.abs(array[np.isfinite(array)]))
    np.testing.assert_array_equal(np.isnan(got), np.isnan(expected))
    error = np.abs(np.nan_to_num(got.astype(np.float64)) - np.nan_to_num(expected.astype(np.float64)))
    assert error.max() <= bound
    assert array.dtype.kind == "f" or (error > 0).mean() < 0.01
    return got


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_sums_are_clipped(way, interpolation, dtype):
    array = noise((2, 9, 10, 11), dtype)
    if dtype.startswith("f"):
        array[1, 2, 3, 4] = np.nan
    array[1] = array[1] // 2 if dtype == "uint8" else array[1] / 2
    got = compared(array, interpolation=interpolation, clip=True, **WAYS[way])
    for k in range(2):
        inside = got[k][np.isfinite(got[k])] if way != "apart" else got[k][got[k] != 0]
        assert inside.min() >= min(np.nanmin(array[k]), 0)
        assert inside.max() <= np.nanmax(array[k])
    low, high = (20, 90) if dtype != "float64" else (19.5, 1e3)
    for default in (0, 30):
        got = compared(array, interpolation=interpolation, clip=(low, high), default_value=default, **WAYS[way])
        finite = got[np.isfinite(got)]
        assert set(finite[(finite < low) | (finite > high)].tolist()) <= {default}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_sums_go_through_a_window(way, interpolation):
    array = noise((2, 9, 10, 11))
    array[1, 2, 3, 4] = np.nan
    asked = {"interpolation": interpolation, "scale": 0.5, "offset": 30, "default_value": 9} | WAYS[way]
    for clip in (False, True, (-400, 700)):
        got = compared(array, clip=clip, **asked)
    data = got[np.isfinite(got) & (got != 9)]
    assert data.min() >= -170
    assert data.max() <= 380


def test_a_window_makes_16_bit_floats():
    """Of a turned grid: the file of that kernel holds copies as well, which have one type on both sides."""
    array = noise((9, 10, 11))
    asked = {"interpolation": "linear", "scale": 1e-3} | WAYS["turned"]
    got = np.asarray(gr.resample(on_gpu(array), dtype="float16", **asked))
    # The CPU engine's float32 values: its kernel that stores halves would be compiled for this test alone.
    expected = gr.resample(array, dtype="float32", device="cpu", **asked).astype(np.float16)
    assert got.dtype == np.float16
    # Engines agree to 1e-6, so a value may lie on the other side of a half: one unit of 11 bits.
    np.testing.assert_allclose(got.astype(float), expected.astype(float), rtol=2.0**-10, atol=1e-6)
    assert (got == expected).mean() > 0.99


@pytest.mark.parametrize("way", ["aligned", "turned", "apart"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_voxels_without_data_are_left_out(way, interpolation, dtype):
    value = -2000 if dtype == "int16" else np.nan
    array = noise((2, 9, 10, 11), dtype)
    array[:, :4, 5:] = value
    array[1, 6, 2, 3] = value
    for clip in (False, True, (-50, 60)):
        compared(array, interpolation=interpolation, ignore=value, clip=clip, default_value=7, **WAYS[way])


def test_scikit_images_convention_clips_on_a_gpu_too():
    compared(noise((9, 10, 11), "float32"), size=(20, 21, 22), convention="skimage", interpolation="bspline")


def test_lists_and_volumes():
    image, labels = noise((9, 10, 11)), (noise((9, 10, 11), "uint8") % 5).astype(np.uint8)
    asked = {"size": (13, 9, 20), "interpolation": ["bspline", "nearest"], "clip": True}
    got = gr.resample([on_gpu(image), on_gpu(labels)], **asked)
    expected = gr.resample([image, labels], device="cpu", **asked)
    np.testing.assert_allclose(np.asarray(got[0]), expected[0], rtol=0, atol=1e-6 * np.abs(image).max())
    np.testing.assert_array_equal(np.asarray(got[1]), expected[1])
    empty = np.full((3, 4, 5), np.nan, np.float32)
    assert np.isnan(np.asarray(gr.resample(on_gpu(empty), size=(5, 5, 5), clip=True))).all()
