"""The engine against the oracle, on odd sizes, where SimpleITK cannot serve as one."""

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from support import DOUBLE, assert_close, labels, noise, rotation, same_bits, to_grid, tolerance

import gpuresample as gr

SIZES = {
    "7x5x3": (7, 5, 3),
    "2x3x4": (2, 3, 4),
    "1x7x5": (1, 7, 5),
    "6x1x4": (6, 1, 4),
    "1x1x1": (1, 1, 1),
    "4x5x6": (4, 5, 6),
}


def volume(size, dtype="float64", seed=0):
    return noise(size[::-1], dtype, seed)


def source_of(size):
    return naive.Geometry(size, (0.9, 1.3, 2.1), (4.7, -3.3, 11.9))


def around(source, turned):
    """A target a little larger than the source, so that rims and outside are met."""
    step = tuple(0.7 * s for s in source.spacing)
    origin = tuple(o - 0.61 * s for o, s in zip(source.origin, source.spacing, strict=True))
    direction = rotation(12, -9, 20) if turned else source.direction
    return naive.Geometry((6, 5, 4), step, origin, direction)


def run(array, source, target, name, **options):
    image = gr.Volume(array, source.spacing, source.origin, source.direction)
    return gr.resample(image, like=to_grid(target), interpolation=name, **options).array


@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", naive.LINEAR)
def test_sums(name, size, turned):
    source = source_of(SIZES[size])
    target = around(source, turned)
    array = volume(source.size)
    x = naive.coordinates(source, target)
    expected = naive.interpolate(array, x, name, default=-5.0)
    got = run(array, source, target, name, default_value=-5)
    assert (expected == -5).any()
    assert ((got == -5) == (expected == -5)).all()
    assert_close(got, expected, DOUBLE * (np.ptp(array) or np.abs(array).max()), name)


@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["nearest", *naive.LABELS])
def test_choices(name, size, turned):
    source = source_of(SIZES[size])
    target = around(source, turned)
    array = labels(source.size[::-1], "uint8", seed=2)
    expected = naive.choose(array, naive.coordinates(source, target), name, default=200)
    assert same_bits(run(array, source, target, name, default_value=200), expected)


@pytest.mark.parametrize("name", ["nearest", *naive.LABELS])
@pytest.mark.parametrize("dtype", ["int64", "uint64", "float32", "float64", "int8"])
def test_choices_of_any_type(name, dtype):
    source = source_of((5, 6, 4))
    target = around(source, True)
    array = labels(source.size[::-1], dtype, seed=3)
    expected = naive.choose(array, naive.coordinates(source, target), name)
    assert same_bits(run(array, source, target, name), expected)


@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror", "constant"])
@pytest.mark.parametrize("name", ["linear", "bspline2", "bspline3", "bspline5", "gaussian", "lanczos"])
def test_boundaries(name, boundary, turned):
    source = source_of((4, 5, 3))
    # Twice as far out as the axis is long: the border has to be met again and again.
    target = naive.Geometry(
        (5, 4, 6), (2.3, 4.1, 4.7), (-1.3, -11.0, 2.0), rotation(12, -9, 20) if turned else source.direction
    )
    array = volume(source.size)
    x = naive.coordinates(source, target)
    expected = naive.interpolate(array, x, name, boundary, default=-5.0)
    got = run(array, source, target, name, boundary=boundary, default_value=-5)
    assert ((expected == -5).any()) == (boundary == "constant")
    assert_close(got, expected, DOUBLE * np.ptp(array), f"{name}, {boundary}")


@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
def test_boundaries_of_nearest(boundary, turned):
    source = source_of((4, 5, 3))
    target = naive.Geometry(
        (5, 4, 6), (2.3, 4.1, 4.7), (-1.3, -11.0, 2.0), rotation(12, -9, 20) if turned else source.direction
    )
    array = volume(source.size)
    padded = np.pad(array, naive.PAD, naive.PAD_MODE[boundary])
    expected = naive.choose(padded, naive.coordinates(source, target) + naive.PAD, "nearest")
    assert same_bits(run(array, source, target, "nearest", boundary=boundary), expected)


@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
@pytest.mark.parametrize("boundary", [None, "reflect"], ids=str)
@pytest.mark.parametrize("name", ["linear", "bspline3", "bspline4", "cosine"])
def test_blurred_then_sampled(name, boundary, turned):
    source = source_of((7, 6, 5))
    target = around(source, turned)
    array = volume(source.size)
    x = naive.coordinates(source, target)
    expected = naive.interpolate(array, x, name, boundary, default=-5.0, sigma=(0.4, 0.0, 1.3))
    got = run(array, source, target, name, boundary=boundary, default_value=-5, antialias=(1.3, 0.0, 0.4))
    assert_close(got, expected, DOUBLE * np.ptp(array), name)


@pytest.mark.parametrize("rounding", ["nearest", "truncate"])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
@pytest.mark.parametrize("name", ["linear", "bspline3", "hamming"])
def test_integers(name, dtype, rounding):
    source = source_of((7, 6, 5))
    target = around(source, False)
    array = volume(source.size, dtype)
    sums = naive.interpolate(array, naive.coordinates(source, target), name, default=3)
    expected = naive.to_integers(sums, dtype, rounding).astype(int)
    got = run(array, source, target, name, rounding=rounding, default_value=3).astype(int)
    # A sum may land on the other side of a step only if it lies within the contract of one.
    edge = sums - np.round(sums) if rounding == "truncate" else sums - np.floor(sums) - 0.5
    certain = (np.abs(edge) > tolerance(np.ptp(array.astype(float)), "float32")) | (sums == 3)
    assert certain.mean() > 0.9
    assert (got == expected)[certain].all()
    assert np.abs(got - expected).max() <= 1


def test_overshoot_saturates():
    source = source_of((9, 9, 9))
    target = around(source, False)._replace(size=(12, 12, 12))
    array = np.where(noise((9, 9, 9)) > 0, 255, 0).astype(np.uint8)
    sums = naive.interpolate(array, naive.coordinates(source, target), "bspline3")
    assert sums.min() < -10
    assert sums.max() > 265
    got = run(array, source, target, "bspline3")
    assert (got[sums < -1] == 0).all()
    assert (got[sums > 256] == 255).all()


@pytest.mark.parametrize("name", ["linear", "bspline3"])
@pytest.mark.parametrize("kind", ["affine", "translation"])
def test_transforms(name, kind):
    source = source_of((7, 6, 5))
    target = around(source, False)
    if kind == "affine":
        matrix, offset = ((1.1, 0.1, 0.0), (-0.05, 0.9, 0.07), (0.02, 0.0, 1.05)), (0.2, -0.4, 0.3)
    else:
        matrix, offset = naive.Geometry(()).direction, (0.21, -0.43, 0.77)
    transform = sitk.AffineTransform([v for row in matrix for v in row], offset)
    array = volume(source.size)
    x = naive.coordinates(source, target, naive.affine(matrix, offset))
    expected = naive.interpolate(array, x, name)
    assert_close(run(array, source, target, name, transform=transform), expected, DOUBLE * np.ptp(array))


@pytest.mark.parametrize("antialias", [False, 0.7], ids=["sharp", "blurred"])
@pytest.mark.parametrize("boundary", [None, "nearest", "mirror"], ids=str)
@pytest.mark.parametrize("name", naive.LINEAR)
def test_gathering_an_aligned_grid_gives_what_its_tables_give(name, boundary, antialias):
    """A displacement field of zeros sends an aligned grid the other way round."""
    source = source_of((9, 8, 7))
    target = around(source, False)._replace(size=(9, 8, 7))
    zeros = sitk.Image((2, 2, 2), sitk.sitkVectorFloat64)
    zeros.SetSpacing((100.0, 100.0, 100.0))
    zeros.SetOrigin((-50.0, -50.0, -50.0))
    transform = sitk.DisplacementFieldTransform(zeros)
    array = volume(source.size)
    options = {"boundary": boundary, "antialias": antialias}
    tables = run(array, source, target, name, **options)
    gathered = run(array, source, target, name, transform=transform, **options)
    assert_close(gathered, tables, DOUBLE * np.ptp(array), name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # SimpleITK's answers at x = -0.25, 0.25, 3.5, 7.25 of an axis with value 10 x, 8 voxels.
        ("nearest", [0, 0, 40, 70]),
        ("linear", [0, 2.5, 35, 70]),
        ("bspline1", [2.5, 2.5, 35, 67.5]),
    ],
)
def test_probe_golden(name, expected):
    ramp = np.tile(np.arange(8) * 10.0, (3, 3, 1))
    for x, value in zip((-0.25, 0.25, 3.5, 7.25), expected, strict=True):
        got = gr.resample(
            gr.Volume(ramp, (1, 1, 1)), like=gr.Grid((1, 3, 3), (1, 1, 1), (x, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1)),
            interpolation=name,
        )  # fmt: skip
        assert got.array[1, 1, 0] == pytest.approx(value, abs=1e-12)


def test_the_oracle_is_simpleitk():
    """Who tests the tester: the oracle agrees with SimpleITK where SimpleITK is sound."""
    from support import SITK, reference, to_image

    source = source_of((8, 7, 6))
    target = around(source, True)
    array = volume(source.size)
    x = naive.coordinates(source, target)
    for name in SITK:
        picture = labels(array.shape, "uint8") if name in naive.LABELS else array
        expected = reference(to_image(picture, source), to_grid(target), name, default=-5)
        if name in naive.LINEAR:
            assert_close(naive.interpolate(picture, x, name, default=-5), expected, 1e-7 * np.ptp(array), name)
        else:
            assert (naive.choose(picture.astype(np.float64), x, name, default=-5) == expected).all()
