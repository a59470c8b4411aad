"""Ways back up, Laplacian pyramids, and ITK's pyramids without ITK."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from support import ANISOTROPIC, SINGLE, assert_close, noise, same_bits, to_image
from test_smoothing import TILTED, assert_same_geometry, centre, image_of, span, voxels

import gpuresample as gr

REAL = [
    ("FLAIR.nii.gz", {}), ("MNI152_2009_template.nii.gz", {"factors": "isotropic"}), ("pcasl.nii.gz", {}),
    ("shear.nii.gz", {"factors": (2, 2, 1)}), ("torsoLabel.nii.gz", {"interpolation": "nearest"}),
]  # fmt: skip


# --- upsample ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 1, 4), (5, 2, 1)], ids=str)
def test_up_again_is_the_grid_it_came_from(geometry, factors):
    image = image_of(geometry=geometry)
    up = gr.upsample(gr.downsample(image, factors), factors, size=image.GetSize())
    assert_same_geometry(up, image)


# Halves of an odd axis fall between two voxels: no case for "nearest".
WAYS = [("linear", (2, 2, 2)), ("bspline", (2, 2, 2)), ("linear", (3, 1, 4)), ("nearest", (3, 1, 4))]


@pytest.mark.parametrize(("interpolation", "factors"), WAYS)
def test_up_is_resampling_in_space(interpolation, factors):
    image = image_of()
    down = gr.downsample(image, factors)
    up = gr.upsample(down, factors, size=image.GetSize(), interpolation=interpolation)
    like = gr.resample(down, like=image, interpolation=interpolation, boundary="nearest")
    assert_close(voxels(up), voxels(like), 1e-6 * span(image))


def test_up_leaves_a_ramp_where_it_was():
    # Every axis has an odd or an even remainder; between the outermost coarse centres a ramp is a ramp.
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in (21, 22, 23)], indexing="ij")
    image = sitk.GetImageFromArray(3 * x + 5 * y - 7 * z)
    image.SetSpacing((0.7, 1.3, 2.0))
    up = voxels(gr.upsample(gr.downsample(image, 2, sigma=0), 2, size=image.GetSize()))
    inside = (slice(1, -1),) * 3
    assert_close(up[inside], voxels(image)[inside], 1e-9)


def test_arrays_and_images_go_up_alike():
    array = noise((7, 8, 9))
    up = gr.upsample(array, (2, 1, 3), size=(15, 8, 29))
    image = gr.upsample(sitk.GetImageFromArray(array), (3, 1, 2), size=(29, 8, 15))
    assert same_bits(up, voxels(image))
    assert gr.upsample(array, 2).shape == (14, 16, 18)
    assert gr.upsample(array.astype(np.int16), 2, dtype="float32").dtype == np.float32


def test_up_keeps_the_centre():
    image = image_of(geometry=TILTED)
    np.testing.assert_allclose(centre(gr.upsample(image, (2, 3, 4))), centre(image), rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda a: gr.upsample(a, 2, size=(7, 8)), "size must have 3 values"),
        (
            lambda a: gr.upsample(a, 2, size=(13, 16, 18)),
            r"size must be one that factors 2 bring to .* \(7, 8, 9\)",
        ),
        (lambda a: gr.upsample(a, 2, size=(16, 16, 18)), "size must be one"),
        (lambda a: gr.upsample(a, 0), "factors must be whole numbers of at least 1"),
        (lambda a: gr.upsample(a, 2, interpolation="label_linear"), "interpolation must sum or copy"),
    ],
)
def test_bad_ways_up_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(noise((7, 8, 9)))


# --- Laplacian -----------------------------------------------------------------------------------------------------

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "bool")


@pytest.mark.parametrize("name", [n for n, _ in REAL])
def test_real_volumes_come_back(read, name):
    image = read(name)
    pyramid = gr.laplacian(image, 4, **dict(REAL)[name])
    back = pyramid.reconstruct()
    assert back.GetPixelID() == image.GetPixelID()
    assert_same_geometry(back, image)
    a, b = voxels(back), voxels(image)
    if a.dtype.kind in "iu":
        assert same_bits(a, b)
    else:
        assert_close(a, b, 4e-6 * np.abs(b).max())


@pytest.mark.parametrize("dtype", INTEGERS)
@pytest.mark.parametrize("interpolation", ["linear", "bspline", "nearest"])
def test_integers_come_back_exactly(dtype, interpolation):
    # The type's whole range, as noise: the hardest there is.
    rng = np.random.default_rng(1)
    if dtype == "bool":
        array = rng.random((17, 22, 13)) > 0.5
    else:
        info = np.iinfo(dtype)
        array = rng.integers(info.min, info.max, (17, 22, 13), dtype, endpoint=True)
    assert same_bits(gr.laplacian(array, 5, interpolation=interpolation).reconstruct(), array)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 1e-6), ("float64", 1e-15), ("float16", 1e-3)])
def test_floats_come_back_to_rounding(dtype, bound):
    array = noise((17, 22, 13), dtype)
    back = gr.laplacian(array, 4).reconstruct()
    assert back.dtype == array.dtype
    assert_close(back, array, 4 * bound * np.abs(array.astype(float)).max())


@given(
    st.tuples(st.integers(1, 17), st.integers(1, 17), st.integers(1, 17)),
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5)),
    st.integers(1, 3),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:the pyramid ends")
def test_any_size_comes_back(shape, factors, levels, seed):
    array = noise(shape, "int16", seed)
    assert same_bits(gr.laplacian(array, levels, factors=factors).reconstruct(), array)


def test_the_levels_are_differences_of_the_gaussian_pyramid():
    image = image_of("float32")
    gaussian = gr.pyramid(image, 3)
    pyramid = gr.laplacian(image, 3)
    assert len(pyramid.levels) == 3
    for k in (0, 1):
        up = gr.resample(gaussian[k + 1], like=gaussian[k], interpolation="linear", boundary="nearest")
        assert_same_geometry(pyramid.levels[k], gaussian[k])
        assert_close(voxels(pyramid.levels[k]), voxels(gaussian[k]) - voxels(up), 1e-6 * span(image))
    assert same_bits(voxels(pyramid.levels[2]), voxels(gaussian[2]))


def test_changed_levels_change_the_image():
    array = noise((16, 16, 16), "int16")
    pyramid = gr.laplacian(array, 3)
    pyramid.levels[0][...] = 0
    smooth = pyramid.reconstruct(dtype="float32")
    assert smooth.dtype == np.float32
    middle = gr.pyramid(array.astype(np.float32), 2)[1]
    assert_close(smooth, gr.upsample(middle, 2), 1e-6 * np.ptp(array.astype(float)))


def test_volumes_vectors_and_batches_come_back():
    array = noise((2, 9, 11, 14), "int16")
    assert same_bits(gr.laplacian(array, 3).reconstruct(), array)
    volume = gr.Volume(array, (0.7, 0.8, 2.0), (1.0, 2.0, 3.0))
    back = gr.laplacian(volume, 3, factors="isotropic").reconstruct()
    assert same_bits(back.array, array)
    np.testing.assert_allclose(back.origin, volume.origin, rtol=1e-12)
    image = to_image(np.moveaxis(array, 0, -1), ANISOTROPIC, vector=True)
    assert same_bits(voxels(gr.laplacian(image, 2).reconstruct()), voxels(image))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda a: gr.laplacian(a.astype(np.int64)), TypeError, "voxels that floats hold, got int64"),
        (lambda a: gr.laplacian(a, 0), ValueError, "levels must be a whole number from 1 to 64"),
        (lambda a: gr.laplacian(a, schedule=[2, 4]), ValueError, "schedule must begin with 1"),
        (lambda a: gr.laplacian(a, sigma="wide"), ValueError, "sigma must be one of"),
        (lambda a: gr.laplacian(a, sigma=-1), ValueError, "sigma must be at least 0"),
        (lambda a: gr.laplacian(a, interpolation="label_linear"), ValueError, "interpolation must sum or copy"),
        (lambda a: gr.laplacian(a, 2).reconstruct(rounding="up"), ValueError, "rounding must be one of"),
    ],
)
def test_bad_laplacians_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(noise((8, 8, 8), "int16"))


def test_a_laplacian_that_ends_early_says_so():
    with pytest.warns(RuntimeWarning, match="ends after 4 of 6 levels"):
        pyramid = gr.laplacian(noise((8, 8, 8), "int16"), 6)
    assert len(pyramid.levels) == 4


# --- ITK's (against itk itself: faces/integrations/test_itk.py) -----------------------------------------------------


def recursion(image, factors):
    """One level of ITK's recursive pyramid, put together from SimpleITK's filters."""
    d = image.GetDimension()
    variance = [(0.5 * f) ** 2 if f > 1 else 0.0 for f in factors]
    return sitk.Shrink(sitk.DiscreteGaussian(image, variance, 32, 0.1, False), list(factors)[:d])


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_itk_recursive_is_discrete_gaussian_and_shrink(geometry):
    image = image_of(geometry=geometry)
    expected = [image]
    for _ in range(2):
        expected.append(recursion(expected[-1], (2, 2, 2)))
    levels = gr.pyramid(image, 3, kind="itk_recursive")
    assert levels[0] is image
    for ours, theirs in zip(levels, expected, strict=True):
        assert_same_geometry(ours, theirs)
        assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_itk_is_discrete_gaussian_and_a_linear_resampling(geometry):
    image = image_of(geometry=geometry)
    schedule = [(1, 1, 1), (2, 3, 1), (5, 3, 2)]
    for ours, factors in zip(gr.pyramid(image, schedule=schedule, kind="itk"), schedule, strict=True):
        blurred = sitk.DiscreteGaussian(image, [(0.5 * f) ** 2 for f in factors], 32, 0.1, False)
        size = [n // f for n, f in zip(image.GetSize(), factors, strict=True)]
        origin = image.TransformContinuousIndexToPhysicalPoint([(f - 1) / 2 for f in factors])
        spacing = [s * f for s, f in zip(image.GetSpacing(), factors, strict=True)]
        theirs = sitk.Resample(
            blurred, size, sitk.Transform(), sitk.sitkLinear, origin, spacing, image.GetDirection(), 0.0
        )
        assert_same_geometry(ours, theirs)
        assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"factors": 3}, "factors must be 2 for ITK's pyramids, got 3"),
        ({"factors": "isotropic"}, "factors must be 2 for ITK's pyramids"),
        ({"schedule": [4, 2, 1]}, "schedule must not grow finer from level to level"),
        ({"schedule": []}, "schedule must be a non-empty sequence"),
        ({"levels": 0}, "levels must be a whole number from 1 to 21"),
        ({"rounding": "up"}, "rounding must be one of"),
        ({"sigma": 2.0}, 'sigma is for kind="gaussian"'),
    ],
)
@pytest.mark.parametrize("kind", ["itk", "itk_recursive"])
def test_what_itk_does_not_know_is_refused(kind, keywords, message):
    with pytest.raises(ValueError, match=message):
        gr.pyramid(noise((8, 8, 8)), kind=kind, **keywords)
