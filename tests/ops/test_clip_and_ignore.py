"""`clip=`, `ignore=` and grids that lie apart: against SciPy and SimpleITK, applied to data and to their mask."""

import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage
from support import noise

import gpuresample as gr

ORDERS = {"linear": 1, "bspline": 3, "bspline2": 2, "bspline5": 5}
LEAST = {"linear": 1e-6}


def holes(shape=(15, 17, 13), dtype="float64", seed=0, value=np.nan):
    """A volume with no data in a quarter of it, in one piece, and in single voxels."""
    array = noise(shape, dtype, seed)
    lost = np.random.default_rng(seed).random(shape) < 0.03
    lost[: shape[0] // 2, shape[1] // 2 :] = True
    array[lost] = value
    return array, ~lost


# --- clip -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bspline", "bspline5", "lanczos", "linear", "hamming", "bspline2"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint8"])
def test_sums_stay_within_the_inputs_range(interpolation, dtype):
    step = np.zeros((12, 12, 12))
    step[3:9, 3:9, 3:9] = 1
    image = (step if dtype.startswith("f") else 100 * step).astype(dtype)
    free = gr.resample(image.astype(np.float64), size=(29, 30, 31), interpolation=interpolation)
    kept = gr.resample(image, size=(29, 30, 31), interpolation=interpolation, clip=True)
    assert kept.dtype == image.dtype
    assert (kept.min(), kept.max()) == (image.min(), image.max())
    np.testing.assert_allclose(
        kept, np.clip(free, 0, image.max()), rtol=0, atol=0.501 if image.dtype.kind in "iu" else 2e-6
    )
    if interpolation == "bspline":
        assert free.min() < -0.05 * image.max()
        assert free.max() > 1.1 * image.max()


def test_a_range_and_volumes_of_their_own():
    batch = np.stack([noise((8, 9, 10)), 10 * noise((8, 9, 10), seed=1)])
    free = gr.resample(batch, size=(15, 16, 17))
    kept = gr.resample(batch, size=(15, 16, 17), clip=True)
    for k in range(2):
        np.testing.assert_array_equal(kept[k], np.clip(free[k], batch[k].min(), batch[k].max()))
    np.testing.assert_array_equal(
        gr.resample(batch, size=(15, 16, 17), clip=(-5, 70.5)), np.clip(free, np.float32(-5), np.float32(70.5))
    )
    image = batch[0].astype(np.int16)
    free = gr.resample(image.astype(np.float64), size=(15, 16, 17))
    kept = gr.resample(image, size=(15, 16, 17), clip=(3, 90))
    assert (np.abs(kept - np.clip(free, 3, 90)) <= 0.501).all()


@pytest.mark.parametrize("default", [-1000, 0.5, np.nan])
def test_what_lies_outside_keeps_its_value(default):
    image = gr.Volume(np.abs(noise((8, 9, 10))) % 1.0, (1, 1, 1))
    like = gr.Volume(np.zeros((20, 20, 20), np.float32), (1, 1, 1), (-4.3, -4.2, -4.1))
    for where in ({"like": like}, {"like": like, "transform": gr.Affine(np.diag([1.0, 1.1, 0.9]) + 0.05)}):
        free = gr.resample(image, default_value=default, **where).array
        kept = gr.resample(image, default_value=default, clip=True, **where).array
        outside = np.isnan(free) if np.isnan(default) else free == default
        assert outside.any()
        np.testing.assert_array_equal(kept[outside], free[outside])
        np.testing.assert_array_equal(kept[~outside], np.clip(free[~outside], image.array.min(), image.array.max()))


@pytest.mark.parametrize("interpolation", ["linear", "bspline", "bspline1"])
@pytest.mark.parametrize("dtype", ["int16", "int64", "float32", "float64"])
@pytest.mark.parametrize("size", [(6, 6, 6), (12, 12, 12), (17, 9, 12)])
def test_a_range_holds_for_copies_and_for_the_default_value_too(interpolation, dtype, size):
    """Tables may only copy voxels; and a sum may be what stands for outside."""
    image = np.random.default_rng(1).choice([-2000, 0, 50, 900], (12, 12, 12)).astype(dtype)
    options = {"like": gr.Grid(size[::-1], (1.3, 1.0, 1.0), (-4.0, 0.0, 0.0), tuple(np.eye(3).ravel()))}
    volume = gr.Volume(image, (1.0, 1.0, 1.0))
    for default in (-2000, 0):
        kept = gr.resample(volume, interpolation=interpolation, clip=(10, 400), default_value=default, **options).array
        free = gr.resample(volume, interpolation=interpolation, default_value=default, **options).array
        ones = gr.Volume(np.ones(image.shape), volume.spacing)
        inside = gr.resample(ones, interpolation=interpolation, **options).array > 0.5
        np.testing.assert_array_equal(kept, np.where(inside, np.clip(free, 10, 400), default))
    whole = gr.resample(image, spacing=2, interpolation=interpolation, clip=(-1000, 1000))
    assert (whole.min(), whole.max()) == (-1000, 900)


def test_blocks_of_turned_grids_are_clipped_as_the_whole():
    image = noise((9, 12, 10), "float32")
    c, t = np.cos(0.2), np.sin(0.2)
    turn = [[1, 0, 0, 0], [0, c, -t, 1.0], [0, t, c, -2.0]]
    plan = gr.plan(image, transform=turn, interpolation="linear", clip=(-5, 5), default_value=-900)
    whole = plan.run(image)
    assert {whole.min(), whole[whole > -900].min(), whole.max()} == {-900, -5, 5}
    for y in range(0, 12, 4):
        block = (slice(2, 7), slice(y, y + 4), slice(0, 10))
        np.testing.assert_array_equal(plan.crop(block).run(image[plan.input_region(block)]), whole[block])


def test_a_list_keeps_its_labels():
    image, labels = noise((8, 9, 10)), (noise((8, 9, 10), "uint8") % 5).astype(np.uint8)
    a, b = gr.resample([image, labels], size=(13, 9, 20), interpolation=["bspline", "nearest"], clip=True)
    assert a.max() <= image.max()
    np.testing.assert_array_equal(b, gr.resample(labels, size=(13, 9, 20), interpolation="nearest"))


def test_a_range_has_blocks_and_the_inputs_has_none():
    image = noise((12, 13, 14))
    plan = gr.plan(image, size=(20, 21, 22), clip=(10, 20))
    block = tuple(slice(3, 11) for _ in range(3))
    np.testing.assert_array_equal(plan.crop(block).run(image[plan.input_region(block)]), plan.run(image)[block])
    with pytest.raises(ValueError, match="has no blocks: give the range"):
        gr.plan(image, size=(20, 21, 22), clip=True).crop(block)


@pytest.mark.parametrize(("keywords", "error", "message"), [
    ({"clip": (1, 0)}, ValueError, "clip must be .low, high. with low <= high"),
    ({"clip": (1, 2, 3)}, ValueError, "clip must"),
    ({"clip": "yes"}, TypeError, "clip must"),
    ({"clip": (0, 1), "interpolation": "nearest"}, ValueError, "clip must be False or True for"),
    ({"clip": (0.5, 1), "dtype": "int16"}, ValueError, "whole number"),
    ({"ignore": "x"}, TypeError, "ignore must be a number"),
    ({"ignore": True}, TypeError, "ignore must be a number"),
    ({"ignore": np.nan, "dtype": "int16"}, ValueError, "ignore must be a value that the output's type int16 has"),
    ({"ignore": -2000, "dtype": "uint8"}, ValueError, "ignore must be a value that the output's type uint8 has"),
    ({"ignore": 0, "interpolation": "label_linear"}, ValueError, "which votes"),
])  # fmt: skip
def test_refusals_by_name(keywords, error, message):
    with pytest.raises(error, match=message):
        gr.resample(np.zeros((4, 4, 4), np.float32), size=(3, 3, 3), **keywords)


# --- ignore ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ORDERS)
@pytest.mark.parametrize("size", [(29, 25, 21), (8, 12, 13), (15, 17, 13), (30, 9, 40), (11, 11, 11)])
def test_weights_are_made_of_data_alone(interpolation, size):
    array, has_data = holes()
    out = gr.resample(array, size=size, interpolation=interpolation, convention="scipy", ignore=np.nan)

    def zoom(x):
        zoomed = ndimage.zoom(x, np.array(size) / x.shape, order=ORDERS[interpolation])
        return zoomed[tuple(slice(n) for n in size)]

    weight = zoom(has_data.astype(float))
    least = LEAST.get(interpolation, 0.5)
    if size == array.shape:  # nothing is summed
        least = 1e-6
    clear = np.abs(weight - least) > 1e-7
    enough = weight >= least
    np.testing.assert_array_equal(np.isnan(out)[clear], ~enough[clear])
    ratio = zoom(np.where(has_data, array, 0)) / np.where(enough, weight, 1)
    assert np.abs(out - ratio)[enough & clear].max() <= 1e-8 * np.nanmax(np.abs(array))
    # Without it a spline loses far more.
    plain = gr.resample(array, size=size, interpolation=interpolation, convention="scipy")
    assert np.isnan(plain).sum() >= np.isnan(out).sum()


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int16"])
def test_on_rotated_grids_too(interpolation, dtype):
    value = -2000 if dtype == "int16" else np.nan
    array, has_data = holes(dtype=dtype, value=value)
    array = np.where(has_data, array.astype(np.float64) % 500, value).astype(dtype)
    rotation = sitk.Euler3DTransform((6.0, 8.0, 7.0), 0.2, -0.1, 0.3)
    volume = gr.Volume(array, (1, 1, 1))
    out = gr.resample(volume, transform=rotation, interpolation=interpolation, ignore=value, default_value=-7).array
    word = sitk.sitkLinear if interpolation == "linear" else sitk.sitkBSpline

    def theirs(x, default):
        return sitk.GetArrayFromImage(sitk.Resample(sitk.GetImageFromArray(x), rotation, word, default))

    weight = theirs(has_data.astype(float), np.nan)
    least = 1e-6 if interpolation == "linear" else 0.5
    enough, clear = weight >= least, np.abs(weight - least) > 1e-5
    ratio = theirs(np.where(has_data, array, 0).astype(float), 0.0) / np.where(enough, weight, 1)
    expected = np.where(np.isnan(weight), -7, np.where(enough, ratio, value))
    assert np.isnan(weight).any()
    assert (~enough & ~np.isnan(weight)).any()
    bound = {"float32": 1e-5, "float64": 1e-8, "int16": 0.502 / 500}[dtype] * 500
    clear |= np.isnan(weight)
    np.testing.assert_allclose(out[clear], expected[clear], rtol=0, atol=bound)


def test_padding_does_not_bleed_into_tissue():
    ct = np.full((10, 20, 20), 40, np.int16)
    ct[:, :, :6] = -2000
    for interpolation in ("linear", "bspline", "gaussian", "lanczos"):
        out = gr.resample(ct, size=(17, 31, 33), interpolation=interpolation, ignore=-2000, anchor="edge")
        assert set(np.unique(out)) == {-2000, 40}
    assert len(np.unique(gr.resample(ct, size=(17, 31, 33), interpolation="linear", anchor="edge"))) > 2
    near = gr.resample(ct, size=(17, 31, 33), interpolation="nearest", ignore=-2000)
    np.testing.assert_array_equal(near, gr.resample(ct, size=(17, 31, 33), interpolation="nearest"))


def test_a_blur_before_sampling_knows_no_data_too():
    ct = np.full((24, 24, 24), 7.0)
    ct[:10] = np.nan
    out = gr.resample(ct, size=(8, 8, 8), interpolation="linear", antialias=True, ignore=np.nan)
    np.testing.assert_allclose(out[np.isfinite(out)], 7.0, rtol=0, atol=1e-12)


def test_blocks_lists_and_ranges():
    array, _ = holes(dtype="float32")
    plan = gr.plan(array, size=(20, 21, 22), ignore=np.nan, clip=(10, 20))
    whole = plan.run(array)
    block = tuple(slice(3, 11) for _ in range(3))
    np.testing.assert_array_equal(plan.crop(block).run(array[plan.input_region(block)]), whole[block])
    assert np.nanmin(whole) == 10
    assert np.nanmax(whole) == 20
    a, b = gr.resample([array, array], size=(20, 21, 22), ignore=np.nan, clip=True)
    np.testing.assert_array_equal(a, b)
    assert np.nanmax(a) <= np.nanmax(array)
    full = noise((9, 9, 9), "float64")
    np.testing.assert_allclose(
        gr.resample(full, size=(5, 6, 7), ignore=np.nan), gr.resample(full, size=(5, 6, 7)), atol=1e-9
    )


# --- grids that lie apart -------------------------------------------------------------------------------------------

APART = [(100, 0, 0), (0, -60, 0), (0, 0, 40), (1e4, 1e4, 1e4), (10.6, 0, 0), (-30, -30, -30)]


def test_blocks_know_the_weights_of_the_whole():
    """A block whose own weights are all positive is not to take more for data than the whole does."""
    image = np.random.default_rng(0).random((2, 8, 8))
    image[0, 2, 2] = np.nan
    plan = gr.plan(image, spacing=(0.5, 0.5, 1), ignore=np.nan, boundary="mirror")
    whole = plan.run(image)
    for z, y in np.ndindex(whole.shape[:2]):
        block = (slice(z, z + 1), slice(y, y + 1), slice(0, whole.shape[2]))
        np.testing.assert_array_equal(plan.crop(block).run(image[plan.input_region(block)]), whole[block])


@pytest.mark.parametrize(
    ("dtype", "value", "error"),
    [
        ("int64", 2**53 + 1, None), ("uint64", 2**64 - 1, None), ("float32", 1e39, ValueError),
        ("float32", np.inf, None),
        ("float32", "x", TypeError), ("int16", 1.5, ValueError), ("int16", 40000, ValueError), ("uint8", -0.0, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_values_that_say_no_data_are_exact(dtype, value, error, interpolation):
    image = np.full((4, 4, 4), 3, dtype)
    if error is TypeError or (error is not None and interpolation == "linear"):
        with pytest.raises(error, match="ignore must be"):
            gr.resample(image, size=(3, 3, 3), interpolation=interpolation, ignore=value)
        return
    np.testing.assert_allclose(gr.resample(image, size=(3, 3, 3), interpolation=interpolation, ignore=value), 3, 1e-6)


def test_a_neighbour_of_a_large_value_is_data():
    image = np.full((4, 4, 4), 2**53, np.int64)
    assert (gr.resample(image, size=(3, 3, 3), interpolation="linear", ignore=2**53 + 1) == 2**53).all()
    assert gr.plan(image, size=(3, 3, 3), ignore=7).scratch_bytes() > gr.plan(image, size=(3, 3, 3)).scratch_bytes()


@pytest.mark.parametrize("origin", APART)
@pytest.mark.parametrize("boundary", [None, "nearest", "constant"])
def test_fields_of_view_that_do_not_meet_are_told(origin, boundary):
    image, like = (
        gr.Volume(noise((10, 10, 10)), (1, 1, 1)),
        gr.Volume(np.zeros((5, 6, 7), np.float32), (1, 1, 1), origin),
    )
    with pytest.warns(RuntimeWarning, match="like lies nowhere near the image"):
        gr.resample(image, like=like, boundary=boundary)
    with pytest.warns(RuntimeWarning, match="like lies nowhere near the image"):
        gr.plan(image, like=like, boundary=boundary)


@pytest.mark.parametrize("origin", [(9.4, 0, 0), (-4.4, 9, 3), (0, 0, 0), (-6.4, -5.4, -4.4), (5, 5, 9)])
def test_those_that_meet_are_not(origin):
    image, like = (
        gr.Volume(noise((10, 10, 10)), (1, 1, 1)),
        gr.Volume(np.zeros((5, 6, 7), np.float32), (1, 1, 1), origin),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gr.resample(image, like=like)
        gr.resample(image, like=gr.Volume(like.array, (1, 1, 1), (0, 0, 0), (0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)))


def test_bool_that_scipy_cuts_is_refused():
    mask = noise((6, 7, 8), "uint8") > 99
    for convention in ("scipy", "nibabel"):
        with pytest.raises(TypeError, match="cuts sums of bool at 1"):
            gr.resample(mask, spacing=0.7, interpolation="linear", convention=convention)
    theirs = ndimage.zoom(mask, (11 / 6, 9 / 7, 1), order=0)
    np.testing.assert_array_equal(
        gr.resample(mask, size=theirs.shape, interpolation="nearest", convention="scipy"), theirs
    )
