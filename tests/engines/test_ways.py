"""Types that few images have: which loops they go through, and that their voxels are what they would be anyway."""

import numpy as np
import pytest
import SimpleITK as sitk

import gpuresample as gr
from benchmarks.signatures import recording
from gpuresample.engines.cpu import ahead

TURN = sitk.Euler3DTransform((4.0, 4.0, 4.0), 0.1, 0.15, 0.2)
RARE = ("int8", "uint32", "int64", "uint64")
LISTED = set(ahead.recorded())


def drawn(kind, most):
    low = 0 if kind.startswith("u") else -most
    return np.random.default_rng(5).integers(low, most, (7, 8, 9)).astype(kind)


def resampled(array, turned, **asked):
    if turned:
        return gr.resample(
            gr.Volume(array, (1.0, 1.0, 1.0)), transform=TURN, default_value=3, device="cpu", **asked
        ).array
    return gr.resample(array, size=(6, 7, 10), device="cpu", **asked)


@pytest.mark.parametrize("turned", [False, True], ids=["axes", "turned"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline", "lanczos", "label_linear", "label_gaussian"])
@pytest.mark.parametrize("kind", RARE)
def test_rare_integers_have_the_voxels_of_wider_ones_and_need_no_kernels(kind, interpolation, turned):
    """Values that int16 and float64 have, too: rounded to the same whole numbers."""
    array = drawn(kind, 100)
    with recording() as seen:
        resampled(array, turned, interpolation=interpolation)
    votes = interpolation.startswith("label")
    assert {one for one in seen - LISTED if not (votes and kind == "uint64")} == set()
    like = "int16" if kind == "int8" or votes else "float64"
    expected = resampled(array.astype(like), turned, interpolation=interpolation)
    info = np.iinfo(kind)
    whole = np.clip(np.rint(expected.astype(np.float64)), info.min, info.max)
    got = resampled(array, turned, interpolation=interpolation)
    assert got.dtype == kind
    np.testing.assert_array_equal(got, whole.astype(kind))


@pytest.mark.parametrize("kind", RARE)
def test_sums_beyond_a_type_saturate_and_what_is_no_number_is_0(kind):
    info = np.iinfo(kind)
    array = np.full((1, 1, 9), np.nan)
    array[..., :4], array[..., 5:] = -1e30, 1e30
    got = gr.resample(array, size=(1, 1, 9), interpolation="linear", dtype=kind, device="cpu").ravel()
    # Of 64 bits the largest number that float64 has is stored.
    most = {"int64": 2**63 - 1024, "uint64": 2**64 - 2048}.get(kind, info.max)
    assert got.tolist() == [info.min] * 4 + [0] + [most] * 4


@pytest.mark.parametrize(("default", "written"), [(2**53, "f8[1]"), (2**53 + 1, "i8[1]")])
def test_a_default_that_no_float_has_is_written_as_it_is(default, written):
    """By a loop of its own, which is compiled then."""
    volume = gr.Volume(drawn("int64", 100), (1.0, 1.0, 1.0))
    with recording() as seen:
        gr.resample(volume, transform=TURN, interpolation="linear", default_value=default, device="cpu")
    ((_, signature),) = [one for one in seen if one[0] == "gather_kernels.linear_rows"]
    assert signature.split()[7] == written


def test_many_taps_read_integers_that_are_floats_already():
    with recording() as seen:
        resampled(drawn("int16", 100), True, interpolation="lanczos")
    assert [signature.split()[0] for name, signature in seen if name == "gather_kernels.any_rows"] == ["f4[1]"]
