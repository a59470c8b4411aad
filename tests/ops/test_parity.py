"""Against SimpleITK, the reference: every interpolation, geometries and transforms of all kinds, real volumes."""

import itertools

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support import (
    CHOOSING,
    SITK,
    assert_close,
    assert_truncated_like,
    flat,
    labels,
    noise,
    of_grid,
    reference,
    rotation,
    to_grid,
    to_image,
    tolerance,
)

import gpuresample as gr

SUMMING = [name for name in SITK if name not in CHOOSING]

# Nothing here is round: ties between voxels belong to test_grid.py.
SOURCE = naive.Geometry((15, 13, 11), (0.81, 1.13, 2.27), (-12.71, 33.37, 5.19))
SOURCE_OBLIQUE = SOURCE._replace(direction=rotation(11, -7, 23))


def inside(spacing, size, shift=(0.33, 0.71, 0.57), turn=(0, 0, 0), of=SOURCE):
    direction = tuple(tuple(r) for r in (np.array(of.direction) @ np.array(rotation(*turn))).tolist())
    origin = tuple(o + s for o, s in zip(of.origin, shift, strict=True))
    return naive.Geometry(size, spacing, origin, direction)


TARGETS = {
    "finer": inside((0.43, 0.61, 1.31), (22, 17, 14)),
    "coarser": inside((1.71, 1.93, 4.07), (7, 7, 6)),
    "mixed": inside((0.53, 2.9, 2.27), (20, 5, 11)),
    "partly outside": inside((0.71, 1.37, 2.9), (14, 12, 10), (-4.4, 6.1, -7.7)),
    "flipped": naive.Geometry(
        (13, 12, 9), (0.77, 1.21, 2.51), (-1.93, 33.81, 27.4), ((-1.0, 0, 0), (0, 1.0, 0), (0, 0, -1.0))
    ),
    "permuted": naive.Geometry(
        (9, 13, 12), (2.51, 0.77, 1.21), (-12.3, 33.81, 5.9), ((0, 1.0, 0), (0, 0, 1.0), (1.0, 0, 0))
    ),
    "oblique": inside((0.83, 1.17, 1.91), (14, 13, 11), (1.1, 0.4, 2.9), (9, 13, -17)),
    "sheared": inside((0.83, 1.17, 1.91), (14, 13, 11))._replace(
        direction=((1.0, 0.13, 0.0), (0.0, 0.98, 0.21), (0.05, 0.0, 0.97))
    ),
}
EVERY_FILTER_ON = ("finer", "coarser", "partly outside", "oblique")


def transforms():
    """One of each kind that SimpleITK has, moving the source by a few voxels."""
    centre = (-7.0, 40.0, 16.0)
    affine = sitk.AffineTransform((1.05, 0.1, -0.04, -0.07, 0.93, 0.05, 0.02, 0.06, 1.1), (0.3, -0.7, 0.9), centre)
    euler = sitk.Euler3DTransform(centre, 0.1, -0.15, 0.2, (0.4, 0.9, -1.1))
    scale = sitk.ScaleTransform(3, (1.1, 0.9, 1.2))
    scale.SetCenter(centre)
    versor = sitk.VersorRigid3DTransform()
    versor.SetCenter(centre)
    versor.SetRotation((1.0, 0.5, 0.2), 0.21)
    similarity = sitk.Similarity3DTransform(1.07, (0.2, 1.0, 0.4), 0.17, (0.2, -0.3, 0.5), centre)
    translation = sitk.TranslationTransform(3, (0.37, -0.91, 1.63))
    field = np.random.default_rng(3).uniform(-1.5, 1.5, (11, 13, 15, 3))
    displacement = sitk.DisplacementFieldTransform(to_image(field, SOURCE, vector=True))
    spline = sitk.BSplineTransformInitializer(to_image(np.zeros((11, 13, 15)), SOURCE), (3, 3, 3))
    rng = np.random.default_rng(4)
    spline.SetParameters(rng.uniform(-1, 1, len(spline.GetParameters())).tolist())
    return {
        "translation": translation,
        "scale": scale,
        "euler": euler,
        "versor": versor,
        "similarity": similarity,
        "affine": affine,
        "composite": sitk.CompositeTransform([euler, translation, affine]),
        "nested composite": sitk.CompositeTransform([sitk.CompositeTransform([scale, euler]), translation]),
        "inverse": affine.GetInverse(),
        "displacement field": displacement,
        "b-spline": spline,
        "composite with a field": sitk.CompositeTransform([translation, displacement]),
    }


TRANSFORMS = transforms()


def picture(dtype, interpolation, geometry=SOURCE, seed=0):
    shape = geometry.size[::-1]
    array = labels(shape, dtype, seed) if interpolation.startswith("label") else noise(shape, dtype, seed)
    return to_image(array, geometry)


def spread(image):
    """The intensity range; of a constant image its intensity, which is all there is to be exact about."""
    array = sitk.GetArrayViewFromImage(image)
    return float(array.max()) - float(array.min()) or abs(float(array.max()))


def assert_contract(image, grid, interpolation, transform=None, default=-7.0):
    """Float images: the contract, and the same voxels outside."""
    got = sitk.GetArrayFromImage(
        gr.resample(image, like=grid, transform=transform, interpolation=interpolation, default_value=default)
    )
    expected = reference(image, grid, interpolation, transform, default)
    if interpolation in CHOOSING:
        assert (got == expected).all(), f"{(got != expected).mean():.1%} differ"
    else:
        assert_close(got, expected, tolerance(spread(image), got.dtype, interpolation), interpolation)
        assert ((got == default) == (expected == default)).all(), "inside and outside differ"
    return got


# --- interpolations, types, geometries ---------------------------------------------------------------------------


@pytest.mark.parametrize("target", EVERY_FILTER_ON)
@pytest.mark.parametrize("interpolation", SITK)
def test_float32(interpolation, target):
    got = assert_contract(picture("float32", interpolation), to_grid(TARGETS[target]), interpolation)
    assert got.dtype == np.float32
    assert (got == -7).any() == (target in ("partly outside", "oblique"))


@pytest.mark.parametrize("target", ["mixed", "flipped", "permuted", "sheared"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "gaussian", "lanczos", "label_linear"])
def test_float32_more_geometries(interpolation, target):
    assert_contract(picture("float32", interpolation), to_grid(TARGETS[target]), interpolation)


@pytest.mark.parametrize("target", ["finer", "oblique"])
@pytest.mark.parametrize("interpolation", SITK)
def test_float64(interpolation, target):
    got = assert_contract(picture("float64", interpolation), to_grid(TARGETS[target]), interpolation)
    assert got.dtype == np.float64


@pytest.mark.parametrize("target", ["finer", "partly outside", "oblique"])
@pytest.mark.parametrize(
    ("dtype", "interpolation"),
    # One type's arithmetic is like another's: int16 has all filters, the others what is compiled for them anyway.
    [("int16", n) for n in ("linear", "bspline1", "bspline2", "bspline3", "bspline5", "gaussian", "welch")]
    + [("uint8", "linear"), ("uint8", "bspline3"), ("uint16", "bspline3"), ("int32", "linear"), ("int32", "bspline3")],
)
def test_truncated_integers(dtype, interpolation, target):
    image, grid = picture(dtype, interpolation), to_grid(TARGETS[target])
    got = gr.resample(image, like=grid, interpolation=interpolation, rounding="truncate", default_value=3)
    expected = reference(image, grid, interpolation, default=3, pixel=image.GetPixelID())
    assert got.GetPixelID() == image.GetPixelID()
    assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)


@pytest.mark.parametrize("target", ["finer", "oblique"])
@pytest.mark.parametrize(
    ("dtype", "interpolation"), [("int16", "linear"), ("int16", "bspline3"), ("uint16", "bspline3")]
)
def test_truncated_integers_of_all_16_bits(dtype, interpolation, target):
    # 16 times the range of CT, so 16 times as many last bits that matter.
    image, grid = to_image(noise(SOURCE.size[::-1], dtype, bits=16), SOURCE), to_grid(TARGETS[target])
    got = gr.resample(image, like=grid, interpolation=interpolation, rounding="truncate")
    expected = reference(image, grid, interpolation, pixel=image.GetPixelID())
    assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)


@pytest.mark.parametrize("target", ["finer", "oblique"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_rounded_integers_are_simpleitks_doubles_rounded(dtype, interpolation, target):
    image, grid = picture(dtype, interpolation), to_grid(TARGETS[target])
    got = sitk.GetArrayFromImage(gr.resample(image, like=grid, interpolation=interpolation))
    info = np.iinfo(dtype)
    exact = np.clip(reference(image, grid, interpolation), info.min, info.max)
    bound = 0.5 + tolerance(spread(image), "float32")
    assert np.abs(got - exact).max() <= bound


@pytest.mark.parametrize("target", ["finer", "permuted", "oblique"])
@pytest.mark.parametrize("interpolation", CHOOSING)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_labels_are_exact(dtype, interpolation, target):
    image = to_image(labels(SOURCE.size[::-1], dtype), SOURCE)
    grid = to_grid(TARGETS[target])
    got = gr.resample(image, like=grid, interpolation=interpolation, default_value=9)
    expected = reference(image, grid, interpolation, default=9, pixel=image.GetPixelID())
    assert (sitk.GetArrayViewFromImage(got) == expected).all()


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_integers_in_floats_out(interpolation, dtype):
    image, grid = picture(dtype, interpolation), to_grid(TARGETS["mixed"])
    got = gr.resample(image, like=grid, interpolation=interpolation, dtype="float32")
    assert got.GetPixelID() == sitk.sitkFloat32
    assert_close(
        sitk.GetArrayViewFromImage(got), reference(image, grid, interpolation), tolerance(spread(image), "float32")
    )


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "nearest"])
def test_floats_in_truncated_integers_out(interpolation):
    # SimpleITK truncates whatever becomes an integer, copied voxels too.
    image, grid = picture("float32", interpolation), to_grid(TARGETS["finer"])
    got = gr.resample(image, like=grid, interpolation=interpolation, dtype="int16", rounding="truncate")
    expected = reference(image, grid, interpolation, pixel=sitk.sitkInt16)
    assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)


def test_oblique_source_onto_its_own_axes_stays_separable_and_close():
    target = naive.Geometry((9, 17, 14), (1.31, 0.7, 1.9), SOURCE.origin, SOURCE_OBLIQUE.direction)
    plan = gr.plan(picture("float32", "bspline3", SOURCE_OBLIQUE), like=to_grid(target))
    assert type(plan.work).__name__ == "Separable"
    for interpolation in ("linear", "bspline3", "nearest"):
        assert_contract(picture("float32", interpolation, SOURCE_OBLIQUE), to_grid(target), interpolation)


@pytest.mark.filterwarnings("ignore:like lies nowhere")
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "label_gaussian"])
def test_wholly_outside_is_default(interpolation):
    target = TARGETS["finer"]._replace(origin=(900.0, 0.0, 0.0))
    got = assert_contract(picture("float32", interpolation), to_grid(target), interpolation)
    assert (got == -7).all()


# --- transforms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transforms(name, interpolation):
    assert_contract(picture("float32", interpolation), to_grid(TARGETS["mixed"]), interpolation, TRANSFORMS[name])


@pytest.mark.parametrize("name", ["affine", "displacement field"])
@pytest.mark.parametrize(
    "interpolation", ["bspline2", "bspline5", "gaussian", "lanczos", "label_linear", "label_gaussian"]
)
def test_transforms_with_other_filters(interpolation, name):
    assert_contract(picture("float32", interpolation), to_grid(TARGETS["coarser"]), interpolation, TRANSFORMS[name])


@pytest.mark.parametrize("name", ["translation", "euler", "b-spline"])
def test_a_transform_alone_keeps_the_grid(name):
    image = picture("float32", "linear")
    got = gr.resample(image, transform=TRANSFORMS[name], interpolation="linear")
    assert got.GetSize() == image.GetSize()
    assert got.GetOrigin() == image.GetOrigin()
    expected = sitk.Resample(image, image, TRANSFORMS[name], sitk.sitkLinear, 0.0, sitk.sitkFloat64)
    assert_close(
        sitk.GetArrayViewFromImage(got), sitk.GetArrayViewFromImage(expected), tolerance(spread(image), "float32")
    )


@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_transforms_truncated(dtype):
    image, grid = picture(dtype, "bspline3"), to_grid(TARGETS["finer"])
    got = gr.resample(image, like=grid, transform=TRANSFORMS["affine"], rounding="truncate")
    expected = reference(image, grid, "bspline3", TRANSFORMS["affine"], pixel=image.GetPixelID())
    assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)


# --- dimensions and components -----------------------------------------------------------------------------------


def flat_image(dtype="float32"):
    image = sitk.GetImageFromArray(noise((23, 19), dtype))
    image.SetSpacing((0.81, 1.13))
    image.SetOrigin((-12.71, 33.37))
    return image


@pytest.mark.parametrize(
    "interpolation", ["nearest", "linear", "bspline2", "bspline3", "gaussian", "blackman", "label_linear"]
)
@pytest.mark.parametrize("turned", [False, True], ids=["along", "turned"])
def test_2d(interpolation, turned):
    c, s = (np.cos(0.3), np.sin(0.3)) if turned else (1.0, 0.0)
    grid = gr.Grid((21, 17), (0.63, 1.31), (-11.9, 34.1), (c, -s, s, c))
    assert_contract(flat_image(), grid, interpolation)


@pytest.mark.parametrize("transform", [sitk.Euler2DTransform((-5.0, 45.0), 0.2, (1.0, 2.0)), sitk.Transform()])
def test_2d_transforms(transform):
    # SimpleITK's default transform is a 3-D identity, and taken for 2-D images.
    grid = gr.Grid((21, 17), (0.63, 1.31), (-11.9, 34.1), (1.0, 0.0, 0.0, 1.0))
    assert_contract(flat_image(), grid, "bspline3", transform)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3"])
@pytest.mark.parametrize("target", ["finer", "oblique"])
def test_vector_images(target, interpolation, dtype):
    array = noise((*SOURCE.size[::-1], 3), dtype)
    image, grid = to_image(array, SOURCE, vector=True), to_grid(TARGETS[target])
    got = gr.resample(image, like=grid, interpolation=interpolation, rounding="truncate")
    assert got.GetNumberOfComponentsPerPixel() == 3
    assert got.GetPixelID() == image.GetPixelID()
    expected = reference(image, grid, interpolation, pixel=image.GetPixelID())
    if dtype == "uint8":
        assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)
    else:
        assert_close(sitk.GetArrayViewFromImage(got), expected, tolerance(spread(image), dtype))


def test_2d_vector_images():
    array = noise((17, 19, 2), "float32")
    image = sitk.GetImageFromArray(array, isVector=True)
    grid = gr.Grid((11, 25), (1.7, 0.66), (0.2, 0.3), (1.0, 0.0, 0.0, 1.0))
    got = gr.resample(image, like=grid)
    assert_close(
        sitk.GetArrayViewFromImage(got),
        reference(image, grid, "bspline3", pixel=image.GetPixelID()),
        tolerance(spread(image), "float32"),
    )


@pytest.mark.parametrize("interpolation", ["nearest", "bspline3"])
def test_4d_series_volume_by_volume(interpolation):
    array = noise((3, 9, 11, 13), "float32")
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.8, 1.1, 2.3, 5.0))
    image.SetOrigin((1.0, 2.0, 3.0, 4.0))
    got = gr.resample(image, spacing=(1.3, 0.9, 1.7), interpolation=interpolation)
    assert got.GetDimension() == 4
    assert got.GetSize() == (8, 13, 12, 3)
    assert got.GetSpacing() == (1.3, 0.9, 1.7, 5.0)
    assert got.GetOrigin() == (1.0, 2.0, 3.0, 4.0)
    for t in range(3):
        volume, moved = image[:, :, :, t], got[:, :, :, t]
        grid = gr.Grid(moved.GetSize(), moved.GetSpacing(), moved.GetOrigin(), moved.GetDirection())
        assert_close(
            sitk.GetArrayFromImage(moved),
            reference(volume, grid, interpolation),
            tolerance(spread(image), "float32"),
        )


# --- any geometry ------------------------------------------------------------------------------------------------

SIDES = st.tuples(*[st.integers(4, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.3, 4)] * 3)
ORIGINS = st.tuples(*[st.floats(-9, 9)] * 3)
ANGLES = st.tuples(*[st.integers(-170, 170)] * 3)
ALONG = list(itertools.permutations(((1.0, 0, 0), (0, 1.0, 0), (0, 0, 1.0))))
MANY = settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])


def away_from_ties(source, target):
    """Voxels whose nearest neighbour and inside are not decided by a last bit."""
    x = naive.coordinates(source, target)
    return (np.abs(np.mod(x, 1.0) - 0.5) > 1e-9).all(axis=-1)


@pytest.mark.filterwarnings("ignore:like lies nowhere near")
@MANY
@given(SIDES, SPACINGS, SIDES, SPACINGS, ORIGINS)
@example((5, 6, 7), (1.0, 1.0, 1.0), (9, 11, 13), (0.5, 0.5, 0.5), (0.0, 0.0, 0.0))
@example((5, 6, 7), (0.7, 0.7, 0.7), (9, 11, 13), (0.35, 0.35, 0.35), (0.0, 0.0, 0.0))
def test_any_aligned_geometry(size, spacing, target_size, target_spacing, shift):
    """Aligned grids: nearest and masks are exact, ties included."""
    source = naive.Geometry(size, spacing, (-120.3, 17.9, 4.4))
    origin = tuple(o + s for o, s in zip(source.origin, shift, strict=True))
    grid = to_grid(naive.Geometry(target_size, target_spacing, origin))
    for interpolation in ("nearest", "linear", "bspline3"):
        assert_contract(picture("float32", interpolation, source), grid, interpolation)


@pytest.mark.filterwarnings("ignore:like lies nowhere near")
@MANY
@given(SIDES, SPACINGS, SIDES, SPACINGS, ORIGINS, ANGLES, ANGLES)
def test_any_oblique_geometry(size, spacing, target_size, target_spacing, shift, from_, to):
    source = naive.Geometry(size, spacing, (-20.3, 17.9, 4.4), rotation(*from_))
    middle = naive.index_to_point(source, [(n - 1) / 2 for n in size])
    target = naive.Geometry(target_size, target_spacing, (0.0, 0.0, 0.0), rotation(*to))
    back = naive.index_to_point(target, [(n - 1) / 2 for n in target_size])
    target = target._replace(origin=tuple(m - b + s for m, b, s in zip(middle, back, shift, strict=True)))
    certain = away_from_ties(source, target)
    assume(certain.mean() > 0.5)
    for interpolation in ("nearest", "linear", "bspline3"):
        image = picture("float32", interpolation, source)
        got = sitk.GetArrayFromImage(
            gr.resample(image, like=to_grid(target), interpolation=interpolation, default_value=-7)
        )
        expected = reference(image, to_grid(target), interpolation, default=-7)
        if interpolation == "nearest":
            assert (got == expected)[certain].all()
        else:
            bound = tolerance(spread(image), "float32")
            assert_close(got[certain], expected[certain], bound, interpolation)


@settings(max_examples=20)
@given(SIDES, SPACINGS, SPACINGS, st.sampled_from(ALONG), st.tuples(*[st.sampled_from([-1.0, 1.0])] * 3))
def test_any_swap_and_flip(size, spacing, target_spacing, rows, signs):
    source = naive.Geometry(size, spacing, (-20.3, 17.9, 4.4))
    direction = tuple(tuple(v * s for v, s in zip(row, signs, strict=True)) for row in rows)
    middle = naive.index_to_point(source, [(n - 1) / 2 for n in size])
    target = naive.Geometry((7, 8, 9), target_spacing, (0.0, 0.0, 0.0), direction)
    back = naive.index_to_point(target, (3.1, 3.6, 4.2))
    target = target._replace(origin=tuple(m - b for m, b in zip(middle, back, strict=True)))
    for interpolation in ("nearest", "bspline3"):
        assert_contract(picture("float32", interpolation, source), to_grid(target), interpolation)


@settings(max_examples=15)
@given(SIDES, SPACINGS, SPACINGS)
def test_the_recipe(size, spacing, new):
    """The widely used one: same origin and direction, size by rounding, the pixel type as default value."""
    source = naive.Geometry(size, spacing, (3.3, -17.9, 4.4), SOURCE_OBLIQUE.direction)
    image = picture("int16", "bspline3", source)
    wanted = [round(n * s / t) for n, s, t in zip(size, spacing, new, strict=True)]
    assume(min(wanted) >= 1 and np.prod(wanted) < 60000)
    expected = sitk.Resample(
        image, wanted, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), new, image.GetDirection(),
        image.GetPixelIDValue(),
    )  # fmt: skip
    got = gr.resample(image, spacing=new, default_value=image.GetPixelIDValue(), rounding="truncate")
    assert got.GetSize() == expected.GetSize()
    assert got.GetSpacing() == expected.GetSpacing()
    assert got.GetOrigin() == expected.GetOrigin()
    difference = np.abs(sitk.GetArrayViewFromImage(got).astype(int) - sitk.GetArrayViewFromImage(expected).astype(int))
    assert difference.max() <= 1


# --- small images ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", [n for n in SITK if n not in ("bspline5", "nearest")])
def test_images_smaller_than_the_support(interpolation):
    # ITK reads out of bounds for bspline5 below four voxels; the oracle judges that (test_naive.py).
    source = naive.Geometry((7, 5, 3), (2.0, 2.0, 2.0))
    grid = to_grid(naive.Geometry((12, 9, 7), (1.1, 1.07, 0.83), (-0.7, 0.31, -0.2)))
    assert_contract(picture("float32", interpolation, source), grid, interpolation)


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "gaussian", "lanczos", "label_gaussian"])
@pytest.mark.parametrize("size", [(9, 8, 1), (1, 8, 9), (9, 1, 8), (1, 1, 1)], ids=str)
def test_axes_of_one_voxel(size, interpolation):
    source = naive.Geometry(size, (1.0, 1.0, 1.0))
    grid = to_grid(naive.Geometry((7, 6, 5), (0.31, 0.29, 0.23), (-0.43, -0.45, -0.41)))
    assert_contract(picture("float32", interpolation, source), grid, interpolation)


# --- real volumes ------------------------------------------------------------------------------------------------


def assert_truncated_contract(image, grid, interpolation, transform=None):
    got = gr.resample(image, like=grid, transform=transform, interpolation=interpolation, rounding="truncate")
    expected = reference(image, grid, interpolation, transform, pixel=image.GetPixelID())
    assert_truncated_like(sitk.GetArrayViewFromImage(got), expected)


def own_grid(image, spacing, turn=None):
    """The image's extent at another spacing, turned a little about its middle if asked."""
    from gpuresample.planning import grid as grids

    g = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    h = grids.resized(g, spacing=spacing, anchor="edge")
    if turn is None:
        return h
    geometry = of_grid(h)
    direction = np.array(rotation(*turn)) @ np.array(geometry.direction)
    middle = np.array(image.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in image.GetSize()]))
    half = direction @ (np.array(h.spacing) * (np.array(h.size) - 1) / 2)
    return gr.Grid(h.size, h.spacing, tuple((middle - half).tolist()), flat(direction.tolist()))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "lanczos"])
@pytest.mark.parametrize("turn", [None, (3, -5, 8)], ids=["along", "turned"])
def test_mni152(read, turn, interpolation):
    size = (40, 44, 36) if interpolation != "lanczos" else (20, 22, 18)
    image = read("MNI152_2009_template.nii.gz", (70, 90, 60), size)
    assert_truncated_contract(image, own_grid(image, (1.3, 0.9, 1.7), turn), interpolation)


def test_mni152_nearest_of_the_whole(read):
    image = read("MNI152_2009_template.nii.gz")
    assert_truncated_contract(image, own_grid(image, (2.3, 2.1, 3.7)), "nearest")
    assert_truncated_contract(image, own_grid(image, (3.1, 4.2, 3.7), (3, -5, 8)), "nearest")


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline5", "gaussian"])
def test_shear(read, interpolation):
    image = read("shear.nii.gz", (130, 180, 10), (50, 46, 30))
    assert_contract(image, own_grid(image, (0.8, 0.7, 1.9)), interpolation)


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_shear_onto_an_upright_grid(read, interpolation):
    image = read("shear.nii.gz", (130, 180, 10), (50, 46, 30))
    middle = image.TransformContinuousIndexToPhysicalPoint((24.5, 22.5, 14.5))
    origin = tuple(m - 20 * s for m, s in zip(middle, (0.7, 0.7, 1.5), strict=True))
    grid = gr.Grid((40, 40, 40), (0.7, 0.7, 1.5), origin, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    got = assert_contract(image, grid, interpolation)
    assert (got != -7).any()


def test_pcasl(read):
    image = read("pcasl.nii.gz")
    got = gr.resample(image, spacing=(3.7, 2.9, 4.1), rounding="truncate")
    assert got.GetSize()[3] == image.GetSize()[3]
    assert got.GetSpacing()[3] == image.GetSpacing()[3]
    for t in (0, 9):
        volume, moved = image[:, :, :, t], got[:, :, :, t]
        expected = sitk.Resample(volume, moved, sitk.Transform(), sitk.sitkBSpline, 0.0)
        assert_truncated_like(sitk.GetArrayViewFromImage(moved), sitk.GetArrayViewFromImage(expected))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_ct_perfusion(read, interpolation):
    image = read("ct_perfusion.nii.gz", (80, 90, 0), (60, 64, 15))
    got = gr.resample(image, like=own_grid(image, (1.1, 0.9, 4.3)), interpolation=interpolation, rounding="truncate")
    expected = sitk.Resample(image, got, sitk.Transform(), SITK[interpolation], 0.0)
    assert got.GetNumberOfComponentsPerPixel() == 3
    assert_truncated_like(sitk.GetArrayViewFromImage(got), sitk.GetArrayViewFromImage(expected))


@pytest.mark.parametrize("interpolation", CHOOSING)
@pytest.mark.parametrize("name", ["lesion.nii.gz", "torsoLabel.nii.gz"])
def test_label_volumes_are_exact(read, name, interpolation):
    start = (30, 60, 40) if name == "lesion.nii.gz" else (120, 100, 20)
    image = read(name, start, (60, 56, 50))
    assert len(np.unique(sitk.GetArrayViewFromImage(image))) > 1
    for grid in (own_grid(image, (0.83, 1.37, 1.91)), own_grid(image, (1.27, 1.37, 1.91), (5, 8, -3))):
        got = gr.resample(image, like=grid, interpolation=interpolation)
        expected = reference(image, grid, interpolation, pixel=image.GetPixelID())
        assert (sitk.GetArrayViewFromImage(got) == expected).all()


def test_image_and_mask_move_together(read):
    image, mask = read("FLAIR.nii.gz"), read("lesion.nii.gz")
    small, small_mask = gr.resample(image, spacing=3), gr.resample(mask, spacing=3, interpolation="nearest")
    assert small.GetSize() == small_mask.GetSize()
    assert small.GetOrigin() == small_mask.GetOrigin()
    assert small.GetDirection() == small_mask.GetDirection() == image.GetDirection()
    assert set(np.unique(sitk.GetArrayViewFromImage(small_mask))) <= set(np.unique(sitk.GetArrayViewFromImage(mask)))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_flair_oblique_onto_upright(read, interpolation):
    image = read("FLAIR.nii.gz", (40, 60, 50), (44, 40, 42))
    middle = image.TransformContinuousIndexToPhysicalPoint((21.5, 19.5, 20.5))
    grid = gr.Grid((36, 36, 36), (1.1, 1.2, 1.3), tuple(m - 20 for m in middle), (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0))
    assert_truncated_contract(image, grid, interpolation)


@pytest.mark.parametrize("name", ["RAS", "LPS", "ASL", "SAR", "IPL", "PIR"])
def test_six_orientations_on_one_grid(read, name):
    image = read(f"{name}.nii.gz")
    other = read("LPS.nii.gz")
    grid = own_grid(other, (4.3, 5.1, 3.9))
    for interpolation in ("nearest", "linear", "bspline3"):
        got = assert_contract(image, grid, interpolation)
        if interpolation == "linear":
            # One scene: all six tell the same.
            scene = reference(other, grid, interpolation, default=-7)
            assert_close(got, scene, 1e-3 * spread(other))


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline4", "gaussian", "hamming", "label_linear"])
def test_low_res(read, interpolation):
    image = read("low_res.nii.gz")
    assert_truncated_contract(image, own_grid(image, (0.83, 1.1, 0.9)), interpolation)


def test_a_voxel_in_one_axis_and_the_mirrored_rim_in_another():
    # On a voxel along x and z, past the last centre along y: the y taps fold, the others must stay single.
    array = np.arange(512.0).reshape(8, 8, 8) ** 2
    field = sitk.Image([2, 2, 2], sitk.sitkVectorFloat64, 3)
    field.SetOrigin((3, 7.25, 2))
    transform = sitk.DisplacementFieldTransform(field)
    like = sitk.Image([1, 1, 1], sitk.sitkFloat64)
    like.SetOrigin((3, 7.25, 2))
    image = sitk.GetImageFromArray(array)
    expected = sitk.Resample(image, like, transform, sitk.sitkBSpline1)[0, 0, 0]
    assert gr.resample(image, like=like, transform=transform, interpolation="bspline1")[0, 0, 0] == expected
