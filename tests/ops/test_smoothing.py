"""Gaussians, shrinking, expanding and pyramids: SimpleITK's and SciPy's numbers, and the grids that go with them."""

import itertools
import math

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, special
from support import ANISOTROPIC, SINGLE, assert_close, flat, noise, rotation, same_bits, to_image

import gpuresample as gr
from gpuresample.planning import filters, taps

# SimpleITK's recursive filters store float32 after every axis.
RECURSIVE = 4e-6
# Sums of float64 in another order.
LAST_BITS = 1e-12

OBLIQUE = rotation(10, -20, 30)
TILTED = naive.Geometry((17, 16, 12), (0.8, 1.1, 2.3), (1.5, -20.25, 300.0), OBLIQUE)
VOXELS = ("uint8", "int16", "int32", "float32")
KINDS = ("discrete", "sampled", "recursive")


def image_of(dtype="float32", geometry=ANISOTROPIC, seed=0, components=0):
    """Noise with a geometry."""
    shape = geometry.size[::-1] + ((components,) if components else ())
    return to_image(noise(shape, dtype, seed), geometry, vector=components > 0)


def voxels(image):
    return sitk.GetArrayFromImage(image)


def span(image):
    """Intensity range."""
    return float(np.ptp(sitk.GetArrayViewFromImage(image).astype(np.float64)))


def assert_same_geometry(a, b, bits=False):
    assert a.GetSize() == b.GetSize()
    for name in ("Spacing", "Origin", "Direction"):
        ours, theirs = getattr(a, f"Get{name}")(), getattr(b, f"Get{name}")()
        if bits:
            assert ours == theirs, name
        else:
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12 * max(map(abs, a.GetOrigin())) + 1e-14)


def assert_same_image(a, b, bits=False):
    """The same voxels to the bit, on the same grid."""
    assert_same_geometry(a, b, bits)
    assert a.GetPixelIDTypeAsString() == b.GetPixelIDTypeAsString()
    assert same_bits(voxels(a), voxels(b))


def centre(image):
    """Physical centre of the field of view."""
    return np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))


# --- gaussian: discrete ------------------------------------------------------------------------------------------

# Standard deviation in voxels of axes x, y, z; ITK's kernel goes wrong above 6 to 10.
WIDTHS = [(0.3, 0.3, 0.3), (0.5, 0.8, 1.2), (1, 1, 1), (2, 1, 3), (4, 4, 4), (6, 6, 6), (0.1, 6, 2.5)]


def discrete(image, sigma):
    """SimpleITK's DiscreteGaussian, and ours told to cut its kernel as that does."""
    theirs = sitk.DiscreteGaussian(image, [s * s for s in sigma], 32, 0.01, True)
    return gr.gaussian(image, sigma, kind="discrete", max_error=0.01, max_radius=32), theirs


def physical(image, widths):
    return [w * s for w, s in zip(widths, image.GetSpacing(), strict=True)]


@pytest.mark.parametrize("widths", WIDTHS, ids=str)
@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_discrete_is_sitk_discrete_gaussian(geometry, widths):
    image = image_of(geometry=geometry)
    ours, theirs = discrete(image, physical(image, widths))
    assert_same_geometry(ours, theirs, bits=True)
    assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


def test_discrete_of_float64():
    # What is left is ITK's polynomials for the Bessel functions, 1e-7 of them.
    image = image_of("float64")
    ours, theirs = discrete(image, (1.4, 1.1, 4.6))
    assert_close(voxels(ours), voxels(theirs), 1e-7 * span(image))


def test_discrete_in_two_dimensions():
    image = sitk.GetImageFromArray(noise((21, 30)))
    image.SetSpacing((0.5, 2.0))
    ours, theirs = discrete(image, (0.75, 5.0))
    assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


def test_discrete_with_a_kernel_wider_than_the_image():
    image = sitk.GetImageFromArray(noise((3, 4, 5)))
    ours, theirs = discrete(image, (5.0, 4.0, 3.0))
    assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


# Told 1, ITK takes a radius of 2 all the same: it looks only after the third weight.
@pytest.mark.parametrize("width", [2, 3, 8])
def test_max_radius_is_sitk_maximum_kernel_width(width):
    image = image_of()
    theirs = sitk.DiscreteGaussian(image, 9.0, width, 0.01, False)
    ours = gr.gaussian(image, physical(image, (3, 3, 3)), max_error=0.01, max_radius=width)
    assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


REAL = [
    ("FLAIR.nii.gz", (30, 40, 50), (32, 28, 24)),
    ("MNI152_2009_template.nii.gz", (60, 90, 70), (30, 30, 24)),
    ("ASL.nii.gz", (20, 20, 20), (30, 28, 20)),
    ("shear.nii.gz", (100, 150, 10), (36, 34, 20)),
    ("torsoLabel.nii.gz", (206, 160, 50), (32, 30, 16)),
]


@pytest.mark.parametrize("kind", ["discrete", "recursive"])
@pytest.mark.parametrize(("name", "start", "size"), REAL, ids=[r[0] for r in REAL])
def test_real_volumes(read, name, start, size, kind):
    image = sitk.Cast(read(name, start, size), sitk.sitkFloat32)
    assert span(image) > 0
    sigma = physical(image, (1.5, 1.2, 0.9))
    if kind == "discrete":
        ours, theirs = discrete(image, sigma)
    else:
        ours, theirs = gr.gaussian(image, sigma, kind=kind), sitk.SmoothingRecursiveGaussian(image, sigma)
    assert_close(voxels(ours), voxels(theirs), (SINGLE if kind == "discrete" else RECURSIVE) * span(image))


def bessel(sigma, max_error, max_radius=None):
    """Lindeberg's kernel from SciPy's Bessel functions."""
    t = sigma**2
    radius = 1
    while special.ive(np.arange(-radius, radius + 1), t).sum() < 1 - max_error and radius != max_radius:
        radius += 1
    weight = special.ive(np.arange(-radius, radius + 1), t)
    return weight / weight.sum()


@pytest.mark.parametrize("max_error", [0.1, 0.01, 1e-4, 1e-8])
@pytest.mark.parametrize("sigma", [0.05, 0.3, 1.0, 2.7, 9.0, 26.0, 40.0])
def test_discrete_weights_are_bessel_functions(sigma, max_error):
    expected = bessel(sigma, max_error)
    got = filters.discrete_gaussian_response(sigma, max_error)
    assert_close(got, expected, 1e-14)


def test_discrete_against_loops():
    array, kernel = noise((4, 5, 6), "float64"), bessel(1.3, 1e-4)
    radius = kernel.size // 2
    expected = np.zeros(array.shape)
    for z, y, x in np.ndindex(*array.shape):
        for dz, dy, dx in itertools.product(range(-radius, radius + 1), repeat=3):
            at = (min(max(z + dz, 0), 3), min(max(y + dy, 0), 4), min(max(x + dx, 0), 5))
            expected[z, y, x] += kernel[dz + radius] * kernel[dy + radius] * kernel[dx + radius] * array[at]
    assert_close(gr.gaussian(array, 1.3), expected, LAST_BITS * np.ptp(array))


# --- gaussian: recursive -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(0.5, 0.5, 0.5), (1, 1, 1), (2, 1, 0.7), (4, 6, 3), (12, 9, 7)], ids=str)
@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_recursive_is_sitk_smoothing_recursive_gaussian(geometry, widths):
    image = image_of(geometry=geometry)
    sigma = physical(image, widths)
    ours, theirs = gr.gaussian(image, sigma, kind="recursive"), sitk.SmoothingRecursiveGaussian(image, sigma)
    assert_same_geometry(ours, theirs, bits=True)
    assert_close(voxels(ours), voxels(theirs), RECURSIVE * span(image))


@pytest.mark.parametrize("sigma", [0.9, 2.3])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_recursive_orders_are_sitk_recursive_gaussian(order, axis, sigma):
    image = image_of()
    theirs = sitk.RecursiveGaussian(image, sigma, False, order, axis)
    width, orders = [0.0] * 3, [0] * 3
    width[axis], orders[axis] = sigma, order
    ours = gr.gaussian(image, width, kind="recursive", order=orders)
    assert_close(voxels(ours), voxels(theirs), RECURSIVE * span(image))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_recursive_of_other_voxels(dtype):
    image = image_of(dtype)
    ours = gr.gaussian(image, 1.7, kind="recursive", dtype="float32")
    assert ours.GetPixelID() == sitk.sitkFloat32
    assert_close(voxels(ours), voxels(sitk.SmoothingRecursiveGaussian(image, 1.7)), RECURSIVE * span(image))


def test_recursive_of_vectors():
    image = image_of("uint8", components=2)
    ours = gr.gaussian(image, 1.7, kind="recursive", dtype="float32")
    assert_close(voxels(ours), voxels(sitk.SmoothingRecursiveGaussian(image, 1.7)), RECURSIVE * 255)


def test_recursive_of_four_voxels():
    image = sitk.GetImageFromArray(noise((4, 4, 4)))
    ours, theirs = gr.gaussian(image, 3.0, kind="recursive"), sitk.SmoothingRecursiveGaussian(image, 3.0)
    assert_close(voxels(ours), voxels(theirs), RECURSIVE * span(image))


# --- gaussian: sampled -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0, 1, 2, (1, 0, 2)], ids=str)
@pytest.mark.parametrize("boundary", ["reflect", "nearest", "mirror"])
@pytest.mark.parametrize("sigma", [0.6, 2.0, (3.1, 0.4, 1.7)], ids=str)
def test_sampled_is_scipy(sigma, boundary, order):
    array = noise((9, 11, 14), "float64")
    ours = gr.gaussian(array, sigma, kind="sampled", boundary=boundary, order=order)
    theirs = ndimage.gaussian_filter(array, sigma, order, mode=boundary)
    assert_close(ours, theirs, LAST_BITS * np.ptp(array))


@pytest.mark.parametrize("truncate", [0.5, 2.0, 6.0])
def test_sampled_truncate_is_scipy(truncate):
    array = noise((9, 11, 14), "float64")
    ours = gr.gaussian(array, 1.6, kind="sampled", truncate=truncate)
    assert_close(ours, ndimage.gaussian_filter(array, 1.6, truncate=truncate), LAST_BITS * np.ptp(array))


@pytest.mark.parametrize("boundary", ["reflect", "nearest", "mirror"])
def test_sampled_reaches_far_past_small_images(boundary):
    array = noise((3, 1, 5), "float64")
    ours = gr.gaussian(array, (7.0, 5.0, 6.0), kind="sampled", boundary=boundary)
    theirs = ndimage.gaussian_filter(array, (7.0, 5.0, 6.0), mode=boundary)
    assert_close(ours, theirs, LAST_BITS * np.ptp(array))


def test_sampled_of_a_picture():
    array = noise((20, 31), "float64")
    ours = gr.gaussian(array, (1.2, 2.5), kind="sampled", order=(0, 1))
    assert_close(ours, ndimage.gaussian_filter(array, (1.2, 2.5), (0, 1)), LAST_BITS * np.ptp(array))


def test_sampled_of_float32():
    array = noise((9, 11, 14))
    theirs = ndimage.gaussian_filter(array.astype(np.float64), 1.4)
    assert_close(gr.gaussian(array, 1.4, kind="sampled"), theirs, SINGLE * np.ptp(array))


# --- gaussian: all kinds -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_sigma_is_in_physical_units_where_there_are_any(kind):
    array = noise((8, 9, 10))
    wanted = gr.gaussian(array, (1.0, 2.0, 0.5), kind=kind)  # voxels, array order
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.25, 3.0))
    sigma = (0.25, 0.5, 3.0)  # the same, x, y, z
    assert same_bits(voxels(gr.gaussian(image, sigma, kind=kind)), wanted)
    assert same_bits(gr.gaussian(gr.Volume(array, image.GetSpacing()), sigma, kind=kind).array, wanted)
    assert same_bits(gr.gaussian(array, sigma[::-1], kind=kind, input_spacing=(3.0, 0.25, 0.5)), wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_sigma_0_copies(kind):
    array = noise((8, 9, 10))
    array[0, 0, 0] = -0.0
    assert same_bits(gr.gaussian(array, 0, kind=kind), array)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_sigma_0_skips_an_axis(kind, axis):
    array = noise((8, 9, 10))
    array[tuple(3 if a == axis else slice(None) for a in range(3))] = np.nan
    sigma = [1.5] * 3
    sigma[axis] = 0.0
    got = gr.gaussian(array, sigma, kind=kind)
    bad = np.isnan(got).any(axis=tuple(a for a in range(3) if a != axis))
    assert bad.tolist() == [k == 3 for k in range(array.shape[axis])]
    plane = np.take(array, 1, axis=axis)
    two = [s for s in sigma if s]
    assert_close(np.take(got, 1, axis=axis), gr.gaussian(plane, two, kind=kind), 1e-7 * 8000)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wide_gaussian_is_sane(kind):
    line = np.zeros((2, 801), np.float64)
    line[:, 400] = 1.0
    got = gr.gaussian(line, (0.0, 40.0), kind=kind, max_error=1e-9, truncate=8.0)[0]
    where = np.arange(-400, 401)
    assert np.isfinite(got).all()
    assert got.sum() == pytest.approx(1, abs=1e-5 if kind == "recursive" else 1e-9)
    assert (got * where).sum() == pytest.approx(0, abs=1e-6)
    # Deriche's approximation has a variance of its own.
    assert (got * where**2).sum() == pytest.approx(1600, rel=0.07 if kind == "recursive" else 1e-5)
    assert got.min() >= (-1e-4 if kind == "recursive" else 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
def test_a_constant_stays(kind, boundary):
    array = np.full((7, 8, 9), 100.0, np.float32)
    for sigma in (0.2, 1.0, 3.3, 40.0):
        got = gr.gaussian(array, sigma, kind=kind, boundary=boundary)
        assert_close(got, array, 1e-4)
        assert (gr.gaussian(array.astype("int16"), sigma, kind=kind, boundary=boundary) == 100).all()


@pytest.mark.parametrize("kind", ["sampled", "recursive"])
def test_derivatives_of_polynomials(kind):
    x = np.arange(120.0)
    middle = slice(50, 70)
    ramp, parabola = np.broadcast_to(3 * x, (2, 120)).copy(), np.broadcast_to(x**2, (2, 120)).copy()
    first = gr.gaussian(ramp, (0, 2.5), kind=kind, order=(0, 1), truncate=8.0)
    assert_close(first[:, middle], np.full((2, 20), 3.0), 1e-6)
    second = gr.gaussian(parabola, (0, 2.5), kind=kind, order=(0, 2), truncate=8.0)
    assert_close(second[:, middle], np.full((2, 20), 2.0), 1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_integers_are_rounded_once(kind, dtype):
    array = noise((9, 10, 11), dtype)
    real = gr.gaussian(array.astype(np.float64), 1.1, kind=kind)
    got = gr.gaussian(array, 1.1, kind=kind)
    assert got.dtype == array.dtype
    # To the nearest, ties aside.
    assert np.abs(got - real).max() <= 0.5 + 1e-3
    truncated = gr.gaussian(array, 1.1, kind=kind, rounding="truncate")
    assert (np.abs(truncated) <= np.abs(real) + 1e-3).all()
    assert np.abs(truncated - real).max() < 1 + 1e-3


@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("n", [1, 2, 5, 9, 40])
def test_tables_stay_inside(n, order, boundary):
    # A derivative on a mirror is zero: a row without a single weight.
    for sigma in (0.3, 0.6, 2.0, 9.0):
        for response in (filters.gaussian_response(sigma, order), filters.recursive_gaussian_response(sigma, order, 0)):
            table = taps.smoothing_table(response, n, boundary)
            assert table.source_range()[0] >= 0
            assert table.source_range()[1] <= n
            assert_close(table.dense() @ np.ones(n), np.full(n, response.sum()), 1e-12 * np.abs(response).sum())


def test_integers_saturate():
    array = np.zeros((1, 40), np.uint8)
    array[:, 20:] = 255
    got = gr.gaussian(array, (0, 1.0), kind="sampled", order=(0, 1))
    assert got.min() == 0
    assert gr.gaussian(-array.astype("int16"), (0, 1.0), kind="sampled", order=(0, 1)).min() < -50
    assert (gr.gaussian(255 - array, (0, 1.0), kind="sampled", order=(0, 1)) == 0).all()


# --- shrink ------------------------------------------------------------------------------------------------------

FACTORS = [(1, 1, 1), (2, 2, 2), (2, 3, 1), (5, 4, 3), (7, 50, 14)]


@pytest.mark.parametrize("dtype", VOXELS)
@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_shrink_is_sitk_shrink(factors, geometry, dtype):
    image = image_of(dtype, geometry)
    assert_same_image(gr.shrink(image, factors), sitk.Shrink(image, factors), bits=True)


@pytest.mark.parametrize("dtype", ["float64", "int64", "uint64", "int8"])
def test_shrink_copies_any_voxels(dtype):
    array = noise((6, 7, 8), dtype)
    array.flat[0] = np.nan if dtype == "float64" else np.iinfo(dtype).max
    image = sitk.GetImageFromArray(array)
    assert_same_image(gr.shrink(image, 2), sitk.Shrink(image, [2] * 3))


def geometries(most=40):
    """Size, factor, spacing and origin of one axis, round numbers as headers have them among them."""
    return st.tuples(
        st.integers(1, most),
        st.integers(1, 9),
        st.integers(1, 4000).map(lambda k: k / 1000),
        st.integers(-50000, 50000).map(lambda k: k / 100),
    )


@given(axes=st.tuples(geometries(), geometries(), geometries(12)))
def test_shrink_takes_the_voxels_sitk_takes(axes):
    size, factors, spacing, origin = zip(*axes, strict=True)
    image = sitk.GetImageFromArray(np.arange(math.prod(size), dtype=np.int32).reshape(size[::-1]))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    assert_same_image(gr.shrink(image, factors), sitk.Shrink(image, factors), bits=True)


@given(axes=st.tuples(geometries(), geometries(), geometries(12)), angles=st.tuples(*[st.integers(-180, 180)] * 3))
def test_shrink_on_oblique_grids(axes, angles):
    # The last bits of a matrix product decide the ties.
    size, factors, spacing, origin = zip(*axes, strict=True)
    image = sitk.GetImageFromArray(np.arange(math.prod(size), dtype=np.int32).reshape(size[::-1]))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(flat(rotation(*angles)))
    assert_same_image(gr.shrink(image, factors), sitk.Shrink(image, factors), bits=True)


def test_shrink_on_a_tie():
    line = np.arange(64, dtype=np.int16)[None]
    image = sitk.GetImageFromArray(line)
    assert voxels(gr.shrink(image, (2, 1)))[0, 0] == 1
    image.SetSpacing((0.7, 1.0))
    image.SetOrigin((-120.3, 0.0))
    assert voxels(gr.shrink(image, (2, 1)))[0, 0] == 0  # round-off decides, in SimpleITK too
    assert voxels(sitk.Shrink(image, (2, 1)))[0, 0] == 0


# --- bin_shrink --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", VOXELS)
@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (2, 3, 1), (5, 4, 3), (7, 16, 12)], ids=str)
def test_bin_shrink_is_sitk_bin_shrink(factors, geometry, dtype):
    image = image_of(dtype, geometry)
    ours, theirs = gr.bin_shrink(image, factors), sitk.BinShrink(image, factors)
    assert_same_geometry(ours, theirs)
    if dtype == "float32":
        # Sums of many float64 in another order: the last bit of float32 at most.
        np.testing.assert_array_max_ulp(voxels(ours), voxels(theirs), 1)
    else:
        assert same_bits(voxels(ours), voxels(theirs))


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_bin_shrink_rounds_half_up(dtype):
    values = np.array([[[0, 1, -1, 0, -2, -1, 254, 255]]], np.int16)
    array = (values if dtype == "int16" else np.abs(values)).astype(dtype)
    image = sitk.GetImageFromArray(array)
    got = gr.bin_shrink(image, (2, 1, 1))
    assert same_bits(voxels(got), voxels(sitk.BinShrink(image, (2, 1, 1))))
    assert voxels(got)[0, 0].tolist() == ([1, 0, -1, 255] if dtype == "int16" else [1, 1, 2, 255])


def test_bin_shrink_against_loops():
    array = noise((7, 8, 9), "float64")
    expected = np.zeros((2, 4, 3))
    for z, y, x in np.ndindex(*expected.shape):
        block = [array[3 * z + c, 2 * y + b, 3 * x + a] for c in range(3) for b in range(2) for a in range(3)]
        expected[z, y, x] = math.fsum(block) / 18
    assert_close(gr.bin_shrink(array, (3, 2, 3)), expected, LAST_BITS * np.ptp(array))


# --- expand ------------------------------------------------------------------------------------------------------

EXPANDERS = {"linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor, "bspline": sitk.sitkBSpline}


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (3, 1, 4)], ids=str)
@pytest.mark.parametrize("interpolation", EXPANDERS)
def test_expand_is_sitk_expand(interpolation, factors, geometry):
    image = image_of(geometry=geometry._replace(size=(9, 8, 7)))
    ours = gr.expand(image, factors, interpolation=interpolation)
    theirs = sitk.Expand(image, factors, EXPANDERS[interpolation])
    assert_same_geometry(ours, theirs)
    if interpolation == "nearest":
        assert same_bits(voxels(ours), voxels(theirs))
    else:
        assert_close(voxels(ours), voxels(theirs), SINGLE * span(image))


def test_expand_rounds_and_saturates():
    array = np.zeros((4, 5, 6), np.uint8)
    array[1:3, 1:4, 2:4] = 255
    real = gr.expand(array.astype(np.float64), 3, interpolation="bspline")
    assert real.max() > 256
    assert real.min() < -1
    got = gr.expand(array, 3, interpolation="bspline")
    assert np.abs(got - np.clip(real, 0, 255)).max() <= 0.5 + 1e-3


def test_bin_shrink_undoes_nearest_expand():
    image = image_of("int16", TILTED)
    there = gr.expand(image, (3, 2, 4), interpolation="nearest")
    assert_same_image(gr.bin_shrink(there, (3, 2, 4)), image)


# --- shrink, bin_shrink, expand, downsample: containers ----------------------------------------------------------

CALLS = {
    "gaussian": gr.gaussian,
    "shrink": gr.shrink,
    "bin_shrink": gr.bin_shrink,
    "expand": gr.expand,
    "downsample": gr.downsample,
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", [*VOXELS, "float64"])
def test_containers_agree(call, dtype):
    array = noise((8, 9, 11), dtype)
    image, volume = sitk.GetImageFromArray(array), gr.Volume(array, (1, 1, 1))
    of_array = CALLS[call](array, (1, 2, 3))
    of_image, of_volume = CALLS[call](image, (3, 2, 1)), CALLS[call](volume, (3, 2, 1))
    assert type(of_array) is np.ndarray
    assert of_array.dtype == array.dtype
    assert same_bits(of_array, voxels(of_image))
    assert same_bits(of_array, of_volume.array)
    assert of_volume.size == of_image.GetSize()
    for name in ("spacing", "origin", "direction"):
        assert getattr(of_volume, name) == getattr(of_image, f"Get{name.title()}")()


@pytest.mark.parametrize("call", CALLS)
def test_leading_axes_are_separate_volumes(call):
    array = noise((2, 3, 6, 7, 8))
    got = CALLS[call](array, 2)
    for where in np.ndindex(2, 3):
        assert same_bits(got[where], CALLS[call](array[where], 2))


@pytest.mark.parametrize("call", CALLS)
def test_vectors_are_separate_volumes(call):
    image = image_of("int16", TILTED, components=3)
    got = CALLS[call](image, 2)
    for k in range(3):
        one = CALLS[call](sitk.VectorIndexSelectionCast(image, k), 2)
        assert_same_image(sitk.VectorIndexSelectionCast(got, k), one, bits=True)


def test_vectors_as_in_sitk():
    image = image_of("uint8", TILTED, components=2)
    assert_same_image(gr.shrink(image, (2, 3, 5)), sitk.Shrink(image, (2, 3, 5)))
    image = image_of("float32", TILTED, components=2)
    ours, theirs = gr.bin_shrink(image, (2, 3, 4)), sitk.BinShrink(image, (2, 3, 4))
    assert_same_geometry(ours, theirs)
    np.testing.assert_array_max_ulp(voxels(ours), voxels(theirs), 1)


def test_means_of_whole_numbers_are_rounded_in_vectors_too():
    # ITK's BinShrink rounds scalars and truncates vectors.
    image = sitk.GetImageFromArray(np.array([[[1, 1], [2, 2]]], np.uint8), isVector=True)
    assert voxels(gr.bin_shrink(image, (2, 1))).tolist() == [[[2, 2]]]
    assert voxels(sitk.BinShrink(image, (2, 1))).tolist() == [[[1, 1]]]


@pytest.mark.parametrize("name", ["shrink", "bin_shrink", "expand"])
def test_pictures_as_in_sitk(name):
    image = image_of("float32", naive.Geometry((23, 18), (0.7, 1.3), (5.5, -60.2)))
    theirs = {"shrink": sitk.Shrink, "bin_shrink": sitk.BinShrink, "expand": sitk.Expand}[name](image, (3, 2))
    ours = CALLS[name](image, (3, 2))
    assert_same_geometry(ours, theirs)
    assert_close(voxels(ours), voxels(theirs), SINGLE * span(image) if name == "expand" else 1e-4)


@pytest.mark.parametrize("call", CALLS)
def test_a_fourth_axis_is_left_alone(call):
    array = noise((3, 6, 7, 8))
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((1.0, 1.0, 1.0, 2.5))
    image.SetOrigin((1.0, 2.0, 3.0, 4.0))
    got = CALLS[call](image, 2)
    assert (got.GetSize()[3], got.GetSpacing()[3], got.GetOrigin()[3]) == (3, 2.5, 4.0)
    for k in range(3):
        assert_same_image(got[..., k], CALLS[call](image[..., k], 2), bits=True)


@pytest.mark.parametrize("call", CALLS)
def test_out_is_written_to(call):
    array = noise((8, 9, 10), "int16")
    wanted = CALLS[call](array, 2)
    out = np.full_like(wanted, 77)
    assert CALLS[call](array, 2, out=out) is out
    assert same_bits(out, wanted)
    image = sitk.GetImageFromArray(array)
    given_image = sitk.GetImageFromArray(np.zeros_like(wanted))
    assert CALLS[call](image, 2, out=given_image) is given_image
    assert_same_image(given_image, CALLS[call](image, 2), bits=True)
    with pytest.raises(ValueError, match="out must have shape"):
        CALLS[call](array, 2, out=np.zeros((1, 2, 3), "int16"))
    with pytest.raises(TypeError, match="out must have dtype int16"):
        CALLS[call](array, 2, out=np.zeros(wanted.shape, "float32"))


@pytest.mark.parametrize("call", CALLS)
def test_memory_layout_does_not_matter(call):
    array = noise((8, 9, 10))
    wanted = CALLS[call](array, 2)
    for other in (np.asfortranarray(array), array[::-1].copy()[::-1], array.astype(">f4")):
        assert same_bits(CALLS[call](other, 2), wanted)


# --- downsample --------------------------------------------------------------------------------------------------


def in_two_steps(image, factors, sigma, kind="sampled"):
    """The same by a blur of the whole image and a resampling; `sigma` in voxels."""
    small = gr.downsample(image, factors, sigma=0)
    options = {"kind": kind, "boundary": "nearest"}
    blurred = gr.gaussian(image, physical(image, sigma), **options)
    return gr.resample(blurred, like=small, interpolation="linear", boundary="nearest")


@pytest.mark.parametrize("kind", ["sampled", "discrete"])
@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 2, 2), (3, 1, 2), (4, 5, 3)], ids=str)
def test_downsample_is_blur_and_resample(factors, geometry, kind):
    image = image_of("float64", geometry)
    got = gr.downsample(image, factors, kind=kind)
    wanted = in_two_steps(image, factors, [(f - 1) / 2 for f in factors], kind)
    assert_same_geometry(got, wanted, bits=True)
    # Taps next to a whole voxel are cut at 1e-11; off such places there is nothing to cut.
    assert_close(voxels(got), voxels(wanted), LAST_BITS * span(image))


@pytest.mark.parametrize(
    ("factors", "size"), [((3, 3, 3), (21, 18, 12)), ((5, 3, 1), (20, 9, 4)), ((2, 4, 1), (9, 13, 5))]
)
def test_downsample_is_blur_and_shrink(factors, size):
    # Sizes whose kept samples are voxels.
    image = image_of("float64", naive.Geometry(size))
    sigma = [(f - 1) / 2 for f in factors]
    wanted = gr.shrink(gr.gaussian(image, sigma, kind="sampled", boundary="nearest"), factors)
    got = gr.downsample(image, factors)
    assert_same_geometry(got, wanted)
    assert_close(voxels(got), voxels(wanted), LAST_BITS * span(image))


@pytest.mark.parametrize(
    ("rule", "formula"),
    [
        ("auto", lambda f: (f - 1) / 2),
        ("skimage", lambda f: (f - 1) / 2),
        ("itk", lambda f: f / 2),
        ("cardoso", lambda f: math.sqrt((f**2 - 1) / (8 * math.log(2)))),
    ],
)
@pytest.mark.parametrize("factors", [(2, 2, 2), (3, 4, 1)], ids=str)
def test_sigma_rules(rule, formula, factors):
    array = noise((12, 13, 14), "float64")
    wanted = gr.downsample(array, factors, sigma=[formula(f) if f > 1 else 0 for f in factors])
    assert same_bits(gr.downsample(array, factors, sigma=rule), wanted)
    assert (wanted != gr.downsample(array, factors, sigma=0)).any()


def test_sigma_of_downsample_is_in_voxels():
    array = noise((12, 13, 14))
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 2.0, 3.0))
    got = gr.downsample(image, 2, sigma=(1, 2, 3))
    assert same_bits(voxels(got), gr.downsample(array, 2, sigma=(3, 2, 1)))
    assert same_bits(gr.downsample(array, 2, sigma=1.5), gr.downsample(array, 2, sigma=(1.5, 1.5, 1.5)))


@given(axes=st.tuples(geometries(), geometries(), geometries(12)), angles=st.tuples(*[st.integers(-180, 180)] * 3))
def test_downsample_keeps_the_centre(axes, angles):
    size, factors, spacing, origin = zip(*axes, strict=True)
    image = sitk.Image(size, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(flat(rotation(*angles)))
    got = gr.downsample(image, factors)
    assert got.GetSize() == tuple(max(1, n // f) for n, f in zip(size, factors, strict=True))
    assert got.GetSpacing() == tuple(s * f for s, f in zip(spacing, factors, strict=True))
    assert got.GetDirection() == image.GetDirection()
    np.testing.assert_allclose(centre(got), centre(image), atol=1e-9)
    np.testing.assert_allclose(centre(gr.shrink(image, factors)), centre(image), atol=1e-9)


def test_downsample_leaves_a_ramp_where_it_was():
    # What is at a point of space is at that point afterwards, away from the border.
    x = np.arange(64.0) * 1.7 - 30
    image = sitk.GetImageFromArray(np.broadcast_to(x, (5, 6, 64)).copy())
    image.SetSpacing((1.7, 1, 1))
    image.SetOrigin((-30, 0, 0))
    for factor in (2, 3, 4):
        got = gr.downsample(image, (factor, 1, 1))
        here = [got.TransformIndexToPhysicalPoint((k, 0, 0))[0] for k in range(got.GetSize()[0])]
        assert_close(voxels(got)[2, 2, 4:-4], np.array(here[4:-4]), 1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_downsample_rounds_once(dtype):
    array = noise((12, 13, 14), dtype)
    real = gr.downsample(array.astype(np.float64), 2)
    got = gr.downsample(array, 2)
    assert np.abs(got - real).max() <= 0.5 + 1e-3
    assert np.abs(gr.downsample(array, 2, rounding="truncate") - real).max() < 1 + 1e-3
    assert_close(gr.downsample(array, 2, dtype="float32"), real, SINGLE * np.ptp(array.astype(np.float64)))


# --- pyramid -----------------------------------------------------------------------------------------------------


def test_the_first_level_is_the_image():
    image, array = image_of(), noise((8, 9, 10))
    assert gr.pyramid(image, 2)[0] is image
    assert gr.pyramid(array, 1)[0] is array
    assert len(gr.pyramid(array, 1)) == 1


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_levels_are_downsampled_one_from_another(geometry):
    image = to_image(noise((24, 8, 16)), geometry)
    levels = gr.pyramid(image, 4)
    now = image
    for level in levels[1:]:
        now = gr.downsample(now, [min(2, n) for n in now.GetSize()])
        assert_same_geometry(level, now)
        assert_close(voxels(level), voxels(now), 1e-6 * span(image))


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_levels_of_odd_sizes_are_a_blur_and_simpleitks_bins(geometry):
    """Sizes are odd on some axes: samples lie where SimpleITK's BinShrink has them, half a voxel off the centre."""
    image = image_of("float32", geometry)
    assert any(n % 2 for n in image.GetSize())
    now = image
    for level in gr.pyramid(image, 4)[1:]:
        f = [min(2, n) for n in now.GetSize()]
        like = sitk.BinShrink(now, f)
        blurred = gr.gaussian(
            now, [0.5 * (k - 1) * s for k, s in zip(f, now.GetSpacing(), strict=True)], kind="sampled"
        )
        now = sitk.Resample(blurred, like, sitk.Transform(), sitk.sitkLinear)
        assert_same_geometry(level, now)
        # SciPy's Gaussian ends at 4 sigma, and the one in front of a subsampling further out.
        assert_close(voxels(level), voxels(now), 1e-4 * span(image))


@pytest.mark.parametrize("make", ["array", "volume", "image"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_levels_are_rounded_once(dtype, make):
    wrap = {"array": np.asarray, "image": sitk.GetImageFromArray, "volume": lambda a: gr.Volume(a, (1, 1, 2))}[make]
    bare = {"array": np.asarray, "image": voxels, "volume": lambda v: v.array}[make]
    array = noise((16, 20, 24), dtype)
    floats = np.float64 if dtype == "int32" else np.float32
    real = [bare(level) for level in gr.pyramid(wrap(array.astype(floats)), 3)]
    got = [bare(level) for level in gr.pyramid(wrap(array), 3)]
    cut = [bare(level) for level in gr.pyramid(wrap(array), 3, rounding="truncate")]
    for a, b, c in zip(got, real, cut, strict=True):
        assert a.dtype == c.dtype == array.dtype
        assert (a == np.rint(b)).all()
        assert (c == np.trunc(b)).all()


@pytest.mark.parametrize("dtype", ["bool", "float16", "float64", "int8", "uint64"])
def test_levels_have_the_voxels_of_the_image(dtype):
    array = noise((8, 9, 10), "uint8").astype(dtype)
    for level in gr.pyramid(array, 3):
        assert level.dtype == array.dtype
    for level in gr.pyramid(gr.Volume(array, (1, 2, 3)), 3):
        assert level.array.dtype == array.dtype


def test_leading_axes_of_a_pyramid():
    array = noise((2, 8, 9, 10), "int16")
    levels = gr.pyramid(array, 3)
    assert [level.shape for level in levels] == [(2, 8, 9, 10), (2, 4, 4, 5), (2, 2, 2, 2)]
    for k in range(2):
        for level, alone in zip(levels, gr.pyramid(array[k], 3), strict=True):
            assert same_bits(level[k], alone)


def test_vector_levels():
    image = image_of("uint8", TILTED, components=3)
    for level, alone in zip(gr.pyramid(image, 3), gr.pyramid(sitk.VectorIndexSelectionCast(image, 1), 3), strict=True):
        assert_same_image(sitk.VectorIndexSelectionCast(level, 1), alone, bits=True)


def test_isotropic_factors():
    image = sitk.Image([64, 64, 20], sitk.sitkFloat32)
    image.SetSpacing((1.0, 1.0, 5.0))
    spacings = [level.GetSpacing() for level in gr.pyramid(image, 5, factors="isotropic")]
    # 5 mm joins as soon as it is below 1.5 times the finest.
    assert spacings == [(1, 1, 5), (2, 2, 5), (4, 4, 5), (8, 8, 10), (16, 16, 20)]


def test_factors_per_axis_follow_the_container():
    array = noise((8, 9, 10))
    assert [level.shape for level in gr.pyramid(array, 3, factors=(1, 2, 3))] == [(8, 9, 10), (8, 4, 3), (8, 2, 1)]
    sizes = [level.GetSize() for level in gr.pyramid(sitk.GetImageFromArray(array), 2, factors=(1, 2, 3))]
    assert sizes == [(10, 9, 8), (10, 4, 2)]


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_schedules(kind):
    array = noise((24, 24, 24))
    levels = gr.pyramid(array, schedule=kind([[1, 1, 1], [1, 2, 2], [2, 4, 4], [4, 12, 8]]))
    assert [level.shape for level in levels] == [(24, 24, 24), (24, 12, 12), (12, 6, 6), (6, 2, 3)]
    assert same_bits(levels[2], gr.downsample(gr.downsample(array, (1, 2, 2)), 2))
    levels = gr.pyramid(array, schedule=kind([2, 4]))
    assert [level.shape for level in levels] == [(12,) * 3, (6,) * 3]
    assert same_bits(levels[0], gr.downsample(array, 2))


@pytest.mark.parametrize(
    "shape", [(195, 64, 63), (7, 9, 11), (50, 31, 1), (1, 2, 3), (33, 97, 12), (5, 5, 128)], ids=str
)
@pytest.mark.parametrize(
    "steps", [{"factors": 2}, {"factors": 3}, {"factors": "isotropic"}, {"schedule": [1, 5, 10]}], ids=str
)
@pytest.mark.filterwarnings("ignore:the pyramid ends")
def test_images_and_labels_lie_on_one_grid(shape, steps):
    """Of 195 voxels the image's level 1 began at 1.0 and the labels' at 0.5."""
    image = sitk.GetImageFromArray(np.zeros(shape, np.float32))
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetDirection(flat(OBLIQUE))
    image.SetOrigin((-12.0, 30.5, 7.25))
    levels = gr.pyramid(image, 4 if "factors" in steps else None, **steps)
    for kind in ("mean", "mode"):
        others = gr.pyramid(
            sitk.Cast(image, sitk.sitkUInt8), len(levels) if "factors" in steps else None, kind=kind, **steps
        )
        assert len(others) == len(levels)
        for a, b in zip(levels, others, strict=True):
            assert_same_geometry(a, b)
    # ITK's own begin with the first voxel's outer face, too; it has no factor that an axis is too short for.
    if min(shape) > 1:
        assert_same_geometry(gr.pyramid(image, 2)[1], gr.pyramid(image, 2, kind="itk")[1])


def test_a_level_may_be_asked_for_twice():
    array = noise((8, 8, 8), "int16")
    levels = gr.pyramid(array, schedule=[1, 2, 2])
    assert same_bits(levels[1], levels[2])


def test_sigma_of_a_pyramid():
    array = noise((16, 16, 16))
    for sigma in ("itk", 0.8, (0.5, 0.0, 1.0)):
        assert same_bits(gr.pyramid(array, 2, sigma=sigma)[1], gr.downsample(array, 2, sigma=sigma))


def test_a_pyramid_that_ends_early_says_so():
    array = noise((2, 4, 5))
    with pytest.warns(RuntimeWarning, match=r"ends after 3 of 6 levels: no axis can shrink any further") as caught:
        levels = gr.pyramid(array, 6)
    assert caught[0].filename == __file__
    assert [level.shape for level in levels] == [(2, 4, 5), (1, 2, 2), (1, 1, 1)]


def test_axes_of_one_voxel_keep_their_spacing():
    image = sitk.Image([16, 2, 1], sitk.sitkFloat32)
    levels = gr.pyramid(image, 4)
    assert [level.GetSize() for level in levels] == [(16, 2, 1), (8, 1, 1), (4, 1, 1), (2, 1, 1)]
    assert [level.GetSpacing() for level in levels] == [(1, 1, 1), (2, 2, 1), (4, 2, 1), (8, 2, 1)]


# --- bad input ---------------------------------------------------------------------------------------------------

BASE = noise((8, 9, 10))
TYPES, VALUES = TypeError, ValueError
BAD = [
    (lambda: gr.gaussian(BASE, -1), VALUES, r"sigma must be at least 0 on every axis, got"),
    (lambda: gr.gaussian(BASE, (1, -1, 1)), VALUES, r"sigma must be at least 0 on every axis, got \(1, -1, 1\)"),
    (lambda: gr.gaussian(BASE, math.nan), VALUES, r"sigma must be 3 finite numbers, got"),
    (lambda: gr.gaussian(BASE, math.inf), VALUES, r"sigma must be 3 finite numbers, got"),
    (lambda: gr.gaussian(BASE, (1, 2)), VALUES, r"sigma must have 3 values, one per axis, got 2"),
    (lambda: gr.gaussian(BASE, "wide"), TYPES, r"sigma must be 3 finite numbers, got 'wide'"),
    (lambda: gr.gaussian(BASE, None), TYPES, r"sigma must be 3 finite numbers, got None"),
    (lambda: gr.gaussian(BASE, True), TYPES, r"sigma must be 3 finite numbers, got True"),
    (lambda: gr.gaussian(BASE, 1, kind="discreet"), VALUES, r"kind must be .*did you mean 'discrete'\?"),
    (lambda: gr.gaussian(BASE, 1, kind=None), TYPES, r"kind must be one of"),
    (lambda: gr.gaussian(BASE, 1, boundary="wrap"), VALUES, r"boundary must be one of 'nearest', 'reflect', 'mirror'"),
    (lambda: gr.gaussian(BASE, 1, boundary="constant"), VALUES, r"boundary must be one of"),
    (lambda: gr.gaussian(BASE, 1, order=1), VALUES, r'order must be 0 for kind="discrete", got .*"sampled" and'),
    (lambda: gr.gaussian(BASE, 1, kind="sampled", order=3), VALUES, r"order must be 0, 1 or 2 on every axis, got"),
    (lambda: gr.gaussian(BASE, 1, kind="sampled", order=0.5), VALUES, r"order must be 0, 1 or 2 on every axis, got"),
    (lambda: gr.gaussian(BASE, 1, kind="sampled", order=(1, 0)), VALUES, r"order must have 3 values"),
    (lambda: gr.gaussian(BASE, 1e-4, kind="sampled", order=1), VALUES, r"sigma must be at least 0.01 voxels on axes"),
    (lambda: gr.gaussian(BASE, 1e-4, kind="recursive", order=2), VALUES, r"sigma must be at least 0.01 voxels on axe"),
    (lambda: gr.gaussian(BASE[:3], 1, kind="recursive"), VALUES, r'kind="recursive" needs at least 4 .* 3 on axis z'),
    (lambda: gr.gaussian(BASE, 1, truncate=0), VALUES, r"truncate must be a number above zero, got 0"),
    (lambda: gr.gaussian(BASE, 1, truncate=math.nan), VALUES, r"truncate must be a number above zero, got nan"),
    (lambda: gr.gaussian(BASE, 1, truncate="4"), TYPES, r"truncate must be a number above zero, got '4'"),
    (lambda: gr.gaussian(BASE, 1, max_error=-0.1), VALUES, r"max_error must be a number above zero, got -0.1"),
    (lambda: gr.gaussian(BASE, 1, max_radius=0), VALUES, r"max_radius must be a whole number of at least 1, got 0"),
    (lambda: gr.gaussian(BASE, 1, max_radius=2.5), TYPES, r"max_radius must be a whole number of at least 1, got 2.5"),
    (lambda: gr.gaussian(BASE, 1, input_spacing=0), VALUES, r"input_spacing must be above zero"),
    (lambda: gr.gaussian(BASE, 1, rounding="up"), VALUES, r"rounding must be one of"),
    (lambda: gr.gaussian(BASE, 1, dtype="complex64"), TYPES, r"dtype must be"),
    (lambda: gr.gaussian(BASE, 1, device="gpu"), VALUES, r"device must be"),
    (lambda: gr.gaussian(BASE[0, 0], 1), VALUES, r"image must have at least 2 axes"),
    (
        lambda: gr.gaussian([[1.0]], 1),
        TYPES,
        r"image must be a SimpleITK.Image, a gpuresample.Volume, a nibabel",
    ),
    (lambda: gr.bin_shrink(BASE, (9, 1, 1)), VALUES, r"factors must not exceed the image's size \(8, 9, 10\), got"),
    (lambda: gr.downsample(BASE, 2, sigma="itc"), VALUES, r"sigma must be one of .*did you mean 'itk'\?"),
    (lambda: gr.downsample(BASE, 2, sigma=-1), VALUES, r"sigma must be at least 0 on every axis"),
    (lambda: gr.downsample(BASE, 2, sigma=math.nan), VALUES, r"sigma must be 3 finite numbers"),
    (lambda: gr.downsample(BASE, 2, kind="recursive"), VALUES, r"kind must be one of 'sampled', 'discrete', got"),
    (lambda: gr.pyramid(BASE, 0), VALUES, r"levels must be a whole number from 1 to 64, got 0"),
    (lambda: gr.pyramid(BASE, -2), VALUES, r"levels must be a whole number from 1 to 64, got -2"),
    (lambda: gr.pyramid(BASE, 2.0), TYPES, r"levels must be a whole number from 1 to 64, got 2.0"),
    (lambda: gr.pyramid(BASE, True), TYPES, r"levels must be a whole number from 1 to 64, got True"),
    (lambda: gr.pyramid(BASE, 2, factors="iso"), VALUES, r"factors must be one of 'isotropic', got 'iso'"),
    (lambda: gr.pyramid(BASE, 1, rounding="up"), VALUES, r"rounding must be one of"),
    (lambda: gr.pyramid(BASE, 1, sigma=-1), VALUES, r"sigma must be at least 0"),
    (lambda: gr.pyramid(BASE, 1, device="gpu"), VALUES, r"device must be"),
    (lambda: gr.pyramid(BASE, schedule=[1, 2, 3]), VALUES, r"schedule must be a chain of multiples, got \[1, 2, 3\]"),
    (lambda: gr.pyramid(BASE, schedule=[4, 2, 1]), VALUES, r"schedule must be a chain of multiples"),
    (lambda: gr.pyramid(BASE, schedule=[1, (1, 2, 2), (2, 3, 4)]), VALUES, r"schedule must be a chain of multiples"),
    (lambda: gr.pyramid(BASE, schedule=[0, 1]), VALUES, r"schedule must be whole numbers of at least 1, got"),
    (lambda: gr.pyramid(BASE, schedule=[1, (1, 2)]), VALUES, r"schedule must have 3 values"),
    (lambda: gr.pyramid(BASE, schedule=[]), VALUES, r"schedule must be a non-empty sequence of factors, got \[\]"),
    (lambda: gr.pyramid(BASE, schedule="12"), VALUES, r"schedule must be a non-empty sequence of factors, got '12'"),
    (lambda: gr.pyramid(BASE, 3, schedule=[1, 2]), VALUES, r"schedule says how many .* combined with levels=3"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD, ids=[m[:40] for _, _, m in BAD])
def test_bad_input_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=f"^{message}"):
        call()


@pytest.mark.parametrize("call", [c for c in CALLS if c != "gaussian"] + ["pyramid"])
@pytest.mark.parametrize(
    ("factors", "error"),
    [
        (0, VALUES), (-2, VALUES), (1.5, VALUES), (math.nan, VALUES), (math.inf, VALUES), ((2, 2), VALUES),
        ((2, 0, 2), VALUES), ((2, 2, 1.5), VALUES), (None, TYPES), ((2, "2", 2), TYPES),
    ],
    ids=str,
)  # fmt: skip
def test_bad_factors_are_refused_by_name(call, factors, error):
    function = (lambda image, f: gr.pyramid(image, 2, factors=f)) if call == "pyramid" else CALLS[call]
    with pytest.raises(error, match=r"^factors must "):
        function(BASE, factors)


def test_a_schedule_takes_no_other_factors():
    with pytest.raises(ValueError, match="cannot be combined with factors=3"):
        gr.pyramid(BASE, schedule=[1, 2], factors=3)


@pytest.mark.parametrize("call", ["shrink", "downsample"])
def test_booleans_are_no_factors(call):
    with pytest.raises(TypeError, match="factors must be"):
        CALLS[call](BASE, True)


# --- Gaussians far wider than the image ------------------------------------------------------------------------------


@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("sigma", [9.0, 40.0, 333.0])
def test_wide_kernels_on_short_axes_are_scipys(sigma, order, boundary):
    """Their weights are added up before the table is made of them."""
    image = noise((2, 3, 7), "float64")
    ours = gr.gaussian(image, sigma, kind="sampled", order=(0, 0, order), boundary=boundary)
    theirs = ndimage.gaussian_filter(image, sigma, order=(0, 0, order), mode=boundary)
    assert_close(ours, theirs, 1e-12 * 1000)


@pytest.mark.parametrize("kind", ["sampled", "discrete"])
@pytest.mark.parametrize("sigma", [2e4, 1e6])
def test_a_blur_far_beyond_the_image_is_a_mean(kind, sigma):
    image = noise((8, 9, 10), "float64")
    mirrored = gr.gaussian(image, sigma, kind=kind, boundary="reflect")
    assert_close(mirrored, np.full(image.shape, image.mean()), 2e-6 * np.ptp(image))
    # A line that goes on as its ends is half of the one and half of the other.
    ends = image[::7, ::8, ::9].mean()
    assert_close(
        gr.gaussian(image, sigma, kind=kind, boundary="nearest"), np.full(image.shape, ends), 1e-3 * np.ptp(image)
    )


def test_the_discrete_gaussian_goes_over_into_the_sampled_one(monkeypatch):
    exact = filters.discrete_gaussian_response(3000.0, 1e-4)
    monkeypatch.setattr(filters, "SAMPLED_FROM", 0.0)
    sampled = filters.discrete_gaussian_response(3000.0, 1e-4)
    assert exact.size == sampled.size
    assert np.abs(exact - sampled).max() < 3e-8 * exact.max()


@pytest.mark.parametrize("sigma", [2.0**20 + 1, 1e7, 1e300])
def test_kernels_of_too_many_weights_are_refused(sigma):
    image = noise((4, 5, 6))
    for kind in ("sampled", "discrete", "recursive"):
        with pytest.raises(ValueError, match="sigma must be at most"):
            gr.gaussian(image, sigma, kind=kind)
    with pytest.raises(ValueError, match="sigma must be at most"):
        gr.gaussian(image, 1.0, input_spacing=1.0 / sigma)
    with pytest.raises(ValueError, match="sigma must be at most"):
        gr.downsample(image, 2, sigma=sigma)
    with pytest.raises(ValueError, match="antialias must be at most"):
        gr.resample(image, spacing=2, interpolation="linear", antialias=sigma)
    with pytest.raises(ValueError, match="factors must be at most"):
        gr.downsample(image, 2 * sigma if sigma > 1e200 else 2 * int(sigma) + 1)


def test_the_recursion_is_refused_where_it_loses_its_digits():
    image = noise((4, 5, 6))
    assert np.isfinite(gr.gaussian(image, 1000.0, kind="recursive")).all()
    with pytest.raises(ValueError, match=r"sigma must be at most 1000 voxels for kind=\"recursive\""):
        gr.gaussian(image, 1001.0, kind="recursive")
