"""`gpuresample.sitk` against SimpleITK itself: names, defaults, voxels, errors, events."""

import inspect
import re
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from support import TRUNCATED_SHARE, flat, noise, rotation

import gpuresample.sitk as ours
from gpuresample import installation
from gpuresample.engines import threads as pool
from gpuresample.engines.cpu import truncation

FILTERS = [name for name in ours.OURS if name.endswith("ImageFilter")]
FUNCTIONS = [name for name in ours.OURS if not name.endswith("ImageFilter")]
GEOMETRY = ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID", "GetNumberOfComponentsPerPixel")
SPLINES = [sitk.sitkBSpline1, sitk.sitkBSpline2, sitk.sitkBSpline3, sitk.sitkBSpline4, sitk.sitkBSpline5]
TURN = sitk.Euler3DTransform()
TURN.SetRotation(0.1, 0.2, -0.1)
TURN.SetCenter((-113.0, 42.0, 26.0))


def image(dtype="int16", shape=(14, 19, 23), spacing=(0.7, 0.9, 1.3), origin=(-120.7, 33.3, 17.17), seed=0):
    out = sitk.GetImageFromArray(noise(shape, dtype, seed))
    out.SetSpacing(spacing[: len(shape)])
    out.SetOrigin(origin[: len(shape)])
    return out


def vector(dtype="int16", **keywords):
    one = image(dtype, **keywords)
    return sitk.Compose(one, image(dtype, seed=1, **keywords))


def same_geometry(a, b):
    for name in GEOMETRY:
        assert getattr(a, name)() == getattr(b, name)(), name


def difference(mine, theirs):
    """Absolute difference of voxels, geometry being the same to the bit."""
    same_geometry(mine, theirs)
    a, b = sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(theirs)
    return np.abs(a.astype(np.float64) - b.astype(np.float64))


def assert_equal(mine, theirs):
    assert difference(mine, theirs).max() == 0


@pytest.fixture
def alone(monkeypatch):
    """`alone(name)`: from here on SimpleITK's own filter refuses to run, so the answer must be ours."""

    def forbid(*names):
        def refuse(self, image):
            raise AssertionError("SimpleITK was asked")

        for name in names:
            monkeypatch.setattr(getattr(sitk, name), "Execute", refuse)

    return forbid


@pytest.fixture(autouse=True)
def _nothing_said():
    installation.said.clear()


# --- names, signatures, defaults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILTERS)
def test_every_attribute_of_simpleitk_is_there(name):
    theirs, mine = getattr(sitk, name)(), getattr(ours, name)()
    assert isinstance(mine, type(theirs))
    missing = [k for k in dir(theirs) if not hasattr(mine, k)]
    assert missing == []
    assert str(mine) == str(theirs)
    assert mine.GetName() == theirs.GetName()
    for k in dir(theirs):
        if k.startswith("Get") and k != "GetTransform":
            assert getattr(mine, k)() == getattr(theirs, k)(), k


@pytest.mark.parametrize("name", FILTERS)
def test_setters_can_be_chained(name):
    made = getattr(ours, name)()
    assert made.SetNumberOfThreads(2).SetNumberOfWorkUnits(3).DebugOff() is made
    assert (made.GetNumberOfThreads(), made.GetNumberOfWorkUnits()) == (2, 3)
    assert type(made).__doc__.startswith("`SimpleITK.")


def test_a_whole_filter_can_be_chained():
    picture = image()
    f = ours.ResampleImageFilter()
    out = f.SetReferenceImage(picture).SetInterpolator(sitk.sitkLinear).SetDefaultPixelValue(3).Execute(picture)
    assert f.GetSize() == picture.GetSize()
    assert f.GetInterpolator() == sitk.sitkLinear
    same_geometry(out, picture)


def swig_signature(name):
    """Parameters and defaults of a wrapped C++ function, from its first documented form."""
    listed = re.search(rf"{name}\((.*)\) -> Image", getattr(sitk, name).__doc__).group(1)
    listed = re.sub(r"<[^>]*>|\([^)]*\)", "", listed)
    return [part.split("=")[0].split()[-1] for part in listed.split(", ")]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_simpleitks_parameters(name):
    mine = inspect.signature(getattr(ours, name)).parameters
    theirs = inspect.signature(getattr(sitk, name)).parameters
    if "args" in theirs and name != "Resample":
        assert list(mine) == swig_signature(name)
        return
    assert list(mine) == list(theirs)
    for key, parameter in theirs.items():
        default = mine[key].default
        assert mine[key].kind == parameter.kind
        assert (list(default) if isinstance(default, tuple) else default) == parameter.default


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "RecursiveGaussian"])
def test_functions_have_simpleitks_defaults(name):
    assert_equal(sitk.Cast(getattr(ours, name)(image("uint8")), sitk.sitkUInt8),
                 sitk.Cast(getattr(sitk, name)(image("uint8")), sitk.sitkUInt8))  # fmt: skip


def test_every_other_name_is_simpleitks():
    assert ours.ReadImage is sitk.ReadImage
    assert ours.sitkBSpline == sitk.sitkBSpline
    assert "ReadImage" in dir(ours)
    with pytest.raises(AttributeError, match=r"neither gpuresample\.sitk nor SimpleITK has 'Resampel'"):
        ours.Resampel  # noqa: B018


# --- the published recipe ----------------------------------------------------------------------------------------


def recipe(itk, module, img, out_spacing=(1.0, 1.0, 2.0)):
    """As it is found in many projects, but for `module`."""
    original_spacing = img.GetSpacing()
    original_size = img.GetSize()
    out_size = [
        int(np.round(original_size[0] * (original_spacing[0] / out_spacing[0]))),
        int(np.round(original_size[1] * (original_spacing[1] / out_spacing[1]))),
        int(np.round(original_size[2] * (original_spacing[2] / out_spacing[2]))),
    ]
    resample = module.ResampleImageFilter()
    resample.SetOutputSpacing(out_spacing)
    resample.SetSize(out_size)
    resample.SetOutputDirection(img.GetDirection())
    resample.SetOutputOrigin(img.GetOrigin())
    resample.SetTransform(itk.Transform())
    resample.SetDefaultPixelValue(img.GetPixelIDValue())
    resample.SetInterpolator(itk.sitkBSpline)
    return resample.Execute(img)


@pytest.mark.parametrize(
    ("name", "spacing"),
    [("MNI152_2009_template.nii.gz", (1.0, 1.0, 2.0)), ("FLAIR.nii.gz", (1.0, 1.0, 2.0)),
     ("shear.nii.gz", (1.0, 1.0, 2.0)), ("FLAIR.nii.gz", (1.5, 1.5, 1.5)), ("shear.nii.gz", (0.8, 0.9, 2.2))],
)  # fmt: skip
def test_the_published_recipe_on_real_volumes(read, alone, name, spacing):
    whole = read(name).GetSize()
    size = [min(n, 96) for n in whole]
    img = sitk.Cast(read(name, [(n - m) // 2 for n, m in zip(whole, size, strict=True)], size), sitk.sitkInt16)
    theirs = recipe(sitk, sitk, img, spacing)
    alone("ResampleImageFilter")
    apart = difference(recipe(sitk, ours, img, spacing), theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= TRUNCATED_SHARE


# --- integers ----------------------------------------------------------------------------------------------------


def resampled(module, picture, factor, interpolator, transform=None, **options):
    f = module.ResampleImageFilter()
    d = picture.GetDimension()
    f.SetOutputSpacing([s * k for s, k in zip(picture.GetSpacing(), factor, strict=False)])
    f.SetSize([max(1, round(n / k)) for n, k in zip(picture.GetSize(), factor, strict=False)])
    f.SetOutputOrigin(options.get("origin", picture.GetOrigin()))
    f.SetOutputDirection(picture.GetDirection())
    f.SetInterpolator(interpolator)
    f.SetDefaultPixelValue(options.get("default", 7))
    f.SetOutputPixelType(options.get("pixel", sitk.sitkUnknown))
    f.SetUseNearestNeighborExtrapolator(options.get("extrapolate", False))
    if transform is not None and d == 3:
        f.SetTransform(transform)
    return f.Execute(picture)


@pytest.mark.parametrize("factor", [(1, 1, 1), (1.5, 1.5, 1.5), (2, 1, 0.5)], ids=["own grid", "1.5", "2, 1, .5"])
@pytest.mark.parametrize("interpolator", [sitk.sitkLinear, *SPLINES])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32"])
def test_samples_on_voxels_truncate_as_simpleitks(alone, dtype, interpolator, factor):
    """Where samples fall on voxels by design, and all around them, its last digit is ours too."""
    picture = image(dtype)
    theirs = resampled(sitk, picture, factor, interpolator)
    alone("ResampleImageFilter")
    assert_equal(resampled(ours, picture, factor, interpolator), theirs)


@pytest.mark.parametrize("interpolator", [sitk.sitkLinear, sitk.sitkBSpline2, sitk.sitkBSpline3])
@pytest.mark.parametrize("value", [-1024, 37, 1000])
def test_filled_air_truncates_as_simpleitks(alone, value, interpolator):
    voxels = noise((18, 20, 24), "int16")
    voxels[:, :12] = value
    picture = sitk.GetImageFromArray(voxels)
    picture.SetSpacing((0.7, 0.9, 1.3))
    theirs = resampled(sitk, picture, (1.31, 0.83, 1.17), interpolator)
    alone("ResampleImageFilter")
    assert_equal(resampled(ours, picture, (1.31, 0.83, 1.17), interpolator), theirs)


@pytest.mark.parametrize(
    ("dtype", "interpolator"),
    [(t, i) for t in ("uint8", "uint16", "int16", "int32")
     for i in (sitk.sitkLinear, sitk.sitkBSpline3, sitk.sitkNearestNeighbor)]
    # Its splines are of float64 from the first pass on, as int32's are.
    + [("int64", sitk.sitkLinear), ("int64", sitk.sitkNearestNeighbor)],
)  # fmt: skip
def test_integers_of_every_type(alone, dtype, interpolator):
    picture = image(dtype)
    theirs = [resampled(sitk, picture, (1.31, 0.83, 1.17), interpolator, t) for t in (None, TURN)]
    alone("ResampleImageFilter")
    for t, expected in zip((None, TURN), theirs, strict=True):
        apart = difference(resampled(ours, picture, (1.31, 0.83, 1.17), interpolator, t), expected)
        assert apart.max() <= 1
        assert (apart > 0).mean() <= TRUNCATED_SHARE


def test_sixteen_full_bits_stay_within_the_contract(alone):
    voxels = np.random.default_rng(0).integers(0, 65535, (30, 40, 50), endpoint=True).astype(np.uint16)
    picture = sitk.GetImageFromArray(voxels)
    theirs = resampled(sitk, picture, (1.31, 0.83, 1.17), sitk.sitkBSpline)
    alone("ResampleImageFilter")
    apart = difference(resampled(ours, picture, (1.31, 0.83, 1.17), sitk.sitkBSpline), theirs)
    assert apart.max() <= 1
    assert (apart > 0).mean() <= TRUNCATED_SHARE


def test_a_permuted_and_flipped_grid_truncates_as_simpleitks(alone):
    picture = image()
    like = sitk.Image([15, 12, 20], sitk.sitkInt16)
    like.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    like.SetSpacing((0.9, 0.7, 1.95))
    like.SetOrigin((-120.7 + 14 * 0.7, 33.3, 17.17))
    for interpolator in (sitk.sitkLinear, sitk.sitkBSpline):
        theirs = sitk.Resample(picture, like, sitk.Transform(), interpolator, -5.0)
        assert_equal(ours.Resample(picture, like, sitk.Transform(), interpolator, -5.0), theirs)
    alone("ResampleImageFilter")
    assert ours.Resample(picture, like).GetSize() == (15, 12, 20)


@pytest.mark.parametrize("order", [2, 3, 4, 5])
@pytest.mark.parametrize("shape", [(9, 12, 40), (1, 5, 33), (2, 3, 4)])
def test_the_prefilter_is_itks_bit_by_bit(order, shape):
    picture = sitk.GetImageFromArray(noise(shape, "float64"))
    f = sitk.BSplineDecompositionImageFilter()
    f.SetSplineOrder(order)
    theirs = sitk.GetArrayFromImage(f.Execute(picture))
    mine = truncation.spline_coefficients(sitk.GetArrayFromImage(picture), order)
    assert (mine == theirs).all()


# --- floats, output types, default values ------------------------------------------------------------------------


@pytest.mark.parametrize("interpolator", [sitk.sitkLinear, sitk.sitkBSpline, sitk.sitkLanczosWindowedSinc])
@pytest.mark.parametrize(("dtype", "bound"), [("float32", 2e-6), ("float64", 1e-9)])
def test_floats(alone, dtype, bound, interpolator):
    for picture in (image(dtype), vector(dtype), image(dtype, (21, 33))):
        theirs = sitk.ResampleImageFilter
        expected = resampled(sitk, picture, (1.31, 0.83, 1.17), interpolator)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(theirs, "Execute", lambda *_: pytest.fail("SimpleITK was asked"))
            apart = difference(resampled(ours, picture, (1.31, 0.83, 1.17), interpolator), expected)
        assert apart.max() <= bound * 2 * np.abs(sitk.GetArrayViewFromImage(picture)).max()


@pytest.mark.parametrize("pixel", ["UInt8", "Int16", "Float32", "Float64"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_output_pixel_types_saturate_and_truncate(dtype, pixel):
    kind = getattr(sitk, f"sitk{pixel}")
    for interpolator in (sitk.sitkNearestNeighbor, sitk.sitkLinear, sitk.sitkBSpline):
        mine = resampled(ours, image(dtype), (1.5, 1, 0.8), interpolator, pixel=kind)
        theirs = resampled(sitk, image(dtype), (1.5, 1, 0.8), interpolator, pixel=kind)
        apart = difference(mine, theirs)
        if "Int" in pixel:
            assert apart.max() <= 1
            assert (apart > 0).mean() <= TRUNCATED_SHARE
        else:
            assert apart.max() <= 2e-6 * 9000


@pytest.mark.parametrize("value", [3.7, -3.7, 300, -1024, 1e10, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64"])
def test_default_values_are_cast_as_simpleitk_casts_them(dtype, value):
    far = sitk.TranslationTransform(3, (9.2, 0.0, 0.0))
    mine = ours.Resample(image(dtype), far, sitk.sitkNearestNeighbor, value)
    theirs = sitk.Resample(image(dtype), far, sitk.sitkNearestNeighbor, value)
    same_geometry(mine, theirs)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(theirs))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -5.5])
def test_a_default_that_is_not_finite_fills_the_outside_only(value):
    far = sitk.TranslationTransform(3, (9.2, 0.0, 0.0))
    mine, theirs = (m.Resample(image("float32"), far, sitk.sitkBSpline, value) for m in (ours, sitk))
    a, b = sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(theirs)
    outside = ~np.isfinite(b) if not np.isfinite(value) else b == value
    assert outside.any()
    np.testing.assert_array_equal(a[outside], b[outside])
    assert np.abs(a[~outside] - b[~outside]).max() < 2e-6 * 9000


@pytest.mark.parametrize("interpolator", [sitk.sitkNearestNeighbor, sitk.sitkLinear, sitk.sitkBSpline])
@pytest.mark.parametrize("transform", [None, TURN, sitk.TranslationTransform(3, (4.0, -6.0, 2.0))])
def test_the_extrapolator(alone, transform, interpolator):
    for picture in (image(), vector("uint8"), image("float32")):
        theirs = resampled(
            sitk, picture, (1.2, 1.1, 0.9), interpolator, transform, extrapolate=True, origin=(-124, 30, 16)
        )
        mine = resampled(
            ours, picture, (1.2, 1.1, 0.9), interpolator, transform, extrapolate=True, origin=(-124, 30, 16)
        )
        apart = difference(mine, theirs)
        if "float" in picture.GetPixelIDTypeAsString():
            assert apart.max() <= 2e-6 * 9000
        else:
            assert apart.max() <= 1
            assert (apart > 0).mean() <= TRUNCATED_SHARE


def test_vectors_and_planes_truncate_as_simpleitks():
    for picture in (vector(), image(shape=(21, 33)), vector("uint8", shape=(21, 33))):
        for interpolator in (sitk.sitkLinear, sitk.sitkBSpline):
            for factor in ((1, 1, 1), (1.5, 1.5, 1.5)):
                args = picture, factor, interpolator
                assert_equal(resampled(ours, *args), resampled(sitk, *args))


# --- Resample's forms --------------------------------------------------------------------------------------------

OTHER = sitk.Image([12, 13, 11], sitk.sitkUInt8)
OTHER.SetSpacing((1.1, 1.2, 1.4))
OTHER.SetOrigin((-119.0, 34.0, 18.0))
OTHER.SetDirection(flat(rotation(0, 0, 90)))
FORMS = {
    "image": ((), {}),
    "transform": ((TURN,), {}),
    "transform, all": ((TURN, sitk.sitkNearestNeighbor, 5.0, sitk.sitkFloat32, True), {}),
    "transform by name": ((), {"transform": TURN, "interpolator": sitk.sitkNearestNeighbor, "defaultPixelValue": 2.0}),
    "reference": ((OTHER,), {}),
    "reference, all": ((OTHER, TURN, sitk.sitkBSpline, -5.0, sitk.sitkFloat64, False), {}),
    "reference by name": ((), {"referenceImage": OTHER, "outputPixelType": sitk.sitkFloat32}),
    "reference by name, transform": ((TURN,), {"referenceImage": OTHER}),
    "size": (((12, 9, 30),), {}),
    "size, all": (
        ([12, 9, 30], TURN, sitk.sitkLinear, (-119.0, 34.0, 18.0), (1.0, 1.0, 0.5), OTHER.GetDirection(), 4.0,
         sitk.sitkFloat32, True), {},
    ),
    "size by name": ((), {"size": (12, 9, 30), "outputOrigin": (-119.0, 34.0, 18.0), "outputSpacing": (1.0, 1.1, 2.0)}),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_resample(form):
    args, keywords = FORMS[form]
    mine, theirs = (m.Resample(image(), *args, **keywords) for m in (ours, sitk))
    assert difference(mine, theirs).max() <= (2e-6 * 4096 if "float" in theirs.GetPixelIDTypeAsString() else 0)


def test_a_size_inherits_no_geometry_and_a_transform_does():
    picture = image()
    assert ours.Resample(picture, (5, 6, 7)).GetOrigin() == (0.0, 0.0, 0.0)
    assert ours.Resample(picture, sitk.Transform()).GetOrigin() == picture.GetOrigin()


# --- Gaussians, shrinking, expanding -----------------------------------------------------------------------------

PICTURES = {
    "uint8": lambda: image("uint8"), "int16": image, "uint16": lambda: image("uint16"), "int32": lambda: image("int32"),
    "float32": lambda: image("float32"), "float64": lambda: image("float64"), "vector": lambda: vector("int16"),
    "vector of bytes": lambda: vector("uint8"), "vector of floats": lambda: vector("float32"),
    "plane": lambda: image("int16", (21, 33)), "plane of floats": lambda: image("float32", (21, 33)),
}  # fmt: skip
SCALARS = [name for name in PICTURES if "vector" not in name]


@pytest.mark.parametrize("name", SCALARS)
def test_discrete_gaussian_has_simpleitks_bits(alone, name):
    picture = PICTURES[name]()
    jobs = [((1.0, 0.5, 2.0),), (9.0, 8, 0.05, False), (0.0,), (16.0, 32, 0.01, True), (60.0, 64, 0.001, False)]
    theirs = [sitk.DiscreteGaussian(picture, *job) for job in jobs]
    alone("DiscreteGaussianImageFilter")
    for job, expected in zip(jobs, theirs, strict=True):
        assert_equal(ours.DiscreteGaussian(picture, *job), expected)


@pytest.mark.parametrize("name", PICTURES)
def test_recursive_gaussians(alone, name):
    picture = PICTURES[name]()
    orders = [(o, n) for o in (0, 1, 2) for n in (False, True)]
    theirs = sitk.SmoothingRecursiveGaussian(picture, (1.2, 1.7, 2.0)[: picture.GetDimension()])
    derivatives = [sitk.RecursiveGaussian(picture, 2.3, n, o, 1) for o, n in orders]
    alone("SmoothingRecursiveGaussianImageFilter", "RecursiveGaussianImageFilter")
    jobs = [(ours.SmoothingRecursiveGaussian(picture, (1.2, 1.7, 2.0)[: picture.GetDimension()]), theirs)]
    jobs += [(ours.RecursiveGaussian(picture, 2.3, n, o, 1), e) for (o, n), e in zip(orders, derivatives, strict=True)]
    for mine, expected in jobs:
        values = sitk.GetArrayViewFromImage(expected)
        assert difference(mine, expected).max() <= 4e-6 * (float(values.max()) - float(values.min()))


@pytest.mark.parametrize("name", PICTURES)
def test_shrink_and_bin_shrink_have_simpleitks_bits(alone, name):
    picture = PICTURES[name]()
    factors = [(2, 3, 4), (1, 2, 1), [3] * 3]
    theirs = [(sitk.Shrink(picture, f), sitk.BinShrink(picture, f)) for f in factors]
    alone("ShrinkImageFilter", "BinShrinkImageFilter")
    for f, (shrunk, binned) in zip(factors, theirs, strict=True):
        assert_equal(ours.Shrink(picture, f), shrunk)
        assert_equal(ours.BinShrink(picture, f), binned)


def test_shrink_takes_the_voxel_that_round_off_decides_for():
    rng = np.random.default_rng(1)
    for _ in range(60):
        n, f = int(rng.integers(8, 65)), int(rng.integers(2, 5))
        picture = sitk.GetImageFromArray(np.arange(n, dtype=np.int16).reshape(1, 1, n))
        picture.SetSpacing((round(float(rng.uniform(0.3, 3)), 3), 1.0, 1.0))
        picture.SetOrigin((round(float(rng.uniform(-200, 200)), 2), 0.0, 0.0))
        assert_equal(ours.Shrink(picture, (f, 1, 1)), sitk.Shrink(picture, (f, 1, 1)))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(
    "interpolator", [sitk.sitkNearestNeighbor, sitk.sitkLinear, sitk.sitkBSpline2, sitk.sitkBSpline]
)
def test_expand(alone, interpolator, name):
    """Integers equal, wrapped overshoot included: white noise overshoots everywhere."""
    picture = PICTURES[name]()
    theirs = sitk.Expand(picture, (2, 3, 1), interpolator)
    alone("ExpandImageFilter")
    mine = ours.Expand(picture, (2, 3, 1), interpolator)
    values = sitk.GetArrayViewFromImage(theirs)
    bound = 2e-6 * (float(values.max()) - float(values.min())) if values.dtype.kind == "f" else 0
    assert difference(mine, theirs).max() <= bound


def test_a_flipped_direction_moves_origins_as_simpleitks():
    picture = image()
    picture.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, 1))
    for call in (lambda m: m.Shrink(picture, (2, 3, 2)), lambda m: m.BinShrink(picture, (2, 3, 2)),
                 lambda m: m.Expand(picture, (2, 1, 3))):  # fmt: skip
        assert_equal(call(ours), call(sitk))


# --- what SimpleITK does instead ---------------------------------------------------------------------------------

REFUSED = {
    "4-D": lambda m: m.Resample(sitk.Image([3, 3, 3, 3], sitk.sitkInt16)),
    "complex": lambda m: m.Resample(sitk.Image([3, 3, 3], sitk.sitkComplexFloat32)),
    "pixel type": lambda m: m.Resample(image(), sitk.Transform(), sitk.sitkLinear, 0.0, sitk.sitkVectorUInt8),
    "transform": lambda m: m.Resample(image(), sitk.TranslationTransform(2, (1.0, 1.0))),
    "spacing": lambda m: m.Resample(image(), (4, 4, 4), sitk.Transform(), sitk.sitkLinear, (0, 0, 0), (1, 0, 1)),
    "direction": lambda m: m.Resample(
        image(), (4, 4, 4), sitk.Transform(), sitk.sitkLinear, (0, 0, 0), (1, 1, 1), (1.0, 0.0)
    ),
    "no image": lambda m: m.ResampleImageFilter().Execute(np.zeros((3, 3, 3))),
    "vector": lambda m: m.DiscreteGaussian(vector()),
    "sigma": lambda m: m.SmoothingRecursiveGaussian(image(), 0.0),
    "few voxels": lambda m: m.SmoothingRecursiveGaussian(image(shape=(3, 9, 9)), 1.0),
    "direction of blur": lambda m: m.RecursiveGaussian(image(), 1.0, False, 0, 5),
    "factor": lambda m: m.Shrink(image(), (0, 1, 1)),
    "large factor": lambda m: m.BinShrink(image(), (99, 1, 1)),
    "few factors": lambda m: m.Expand(image(), (2,)),
}


@pytest.mark.parametrize("case", REFUSED)
def test_errors_are_simpleitks(case):
    """Warnings are errors here, so none is given where SimpleITK refuses too."""
    with pytest.raises((RuntimeError, TypeError, NotImplementedError, ValueError)) as theirs:
        REFUSED[case](sitk)
    with pytest.raises(type(theirs.value)) as mine:
        REFUSED[case](ours)
    last = [re.sub("0x[0-9a-f]+", "", str(error.value).splitlines()[-1]) for error in (mine, theirs)]
    assert last[0] == last[1]


def not_finite():
    out = image("float32")
    out[5, 5, 5] = float("nan")
    return out


LEFT = {
    "coefficients": (lambda m: m.Resample(image("float32"), TURN, sitk.sitkBSplineResamplerOrder3), "interpolator 11"),
    "NaN": (lambda m: m.Resample(not_finite(), TURN, sitk.sitkBSpline), "not finite"),
    "NaN, truncated": (
        lambda m: m.Resample(not_finite(), TURN, sitk.sitkLinear, 0.0, sitk.sitkInt16), "not finite",
    ),
    "labels": (lambda m: m.Expand(image("uint8"), (2, 2, 2), sitk.sitkLabelLinear), "label_linear"),
    "last digit": (lambda m: m.Resample(image("int16") * 0 + 5, TURN, sitk.sitkGaussian), "last digit"),
    "large variance": (lambda m: m.DiscreteGaussian(image("float32"), 800.0), "variance"),
}  # fmt: skip


@pytest.mark.parametrize("case", LEFT)
def test_the_rest_is_left_to_simpleitk_with_one_warning(case):
    call, reason = LEFT[case]
    with pytest.warns(RuntimeWarning, match=f"leaves this to SimpleITK: .*{reason}") as said:
        first = call(ours)
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second = call(ours)
    expected = sitk.GetArrayFromImage(call(sitk))
    for mine in (first, second):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(mine), expected)


def test_infinity_becomes_the_largest_float_as_in_simpleitk():
    picture = image("float32")
    picture[5, 5, 5] = float("inf")
    with pytest.warns(RuntimeWarning, match="not finite"):
        mine = ours.Resample(picture, sitk.Transform(), sitk.sitkLinear)
    theirs = sitk.Resample(picture, sitk.Transform(), sitk.sitkLinear)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(theirs))
    assert np.finfo(np.float32).max in sitk.GetArrayViewFromImage(mine)


def test_an_empty_size_gives_an_empty_image():
    mine, theirs = (m.ResampleImageFilter().Execute(image()) for m in (ours, sitk))
    assert mine.GetSize() == theirs.GetSize() == (0, 0, 0)


# --- events and threads ------------------------------------------------------------------------------------------


def test_commands_see_start_progress_and_end():
    events = []
    f = ours.ResampleImageFilter()
    f.SetReferenceImage(image())
    f.AddCommand(sitk.sitkStartEvent, lambda: events.append("start"))
    f.AddCommand(sitk.sitkProgressEvent, lambda: events.append(f.GetProgress()))
    f.AddCommand(sitk.sitkEndEvent, lambda: events.append("end"))
    f.AddCommand(sitk.sitkAnyEvent, lambda: events.append("any"))
    assert f.HasCommand(sitk.sitkEndEvent)
    f.Execute(image())
    told = [e for e in events if e != "any"]
    assert (told[:2], told[-2:]) == (["start", 0.0], [1.0, "end"])
    assert told[1:-1] == sorted(told[1:-1])
    assert events.count("any") == len(told)
    count = len(events)
    f.RemoveAllCommands()
    f.Execute(image())
    assert len(events) == count
    assert not f.HasCommand(sitk.sitkEndEvent)


@pytest.mark.parametrize("name", ["Expand", "RecursiveGaussian", "SmoothingRecursiveGaussian"])
@pytest.mark.parametrize("d", [2, 3])
@pytest.mark.parametrize("kind", [sitk.sitkFloat32, sitk.sitkUInt8, sitk.sitkVectorInt16])
def test_progress_is_told_as_by_filters_of_whole_passes(name, d, kind):
    told = []
    for module in (sitk, ours):
        f = getattr(module, f"{name}ImageFilter")()
        events = []
        f.AddCommand(sitk.sitkProgressEvent, lambda f=f, events=events: events.append(f.GetProgress()))
        f.Execute(sitk.Image([9, 8, 7][:d], kind))
        told.append(events)
    assert told[0] == told[1]
    assert len(told[1]) == 2 or name != "RecursiveGaussian"


def named_filter(module, name, reference):
    """A filter of a module; of the resampling ones, one for a linear transform and one for another."""
    f = getattr(module, name.split(",")[0] + "ImageFilter")()
    d = reference.GetDimension()
    if name.startswith("Resample"):
        f.SetReferenceImage(reference)
        field = sitk.DisplacementFieldTransform(sitk.Image(reference.GetSize(), sitk.sitkVectorFloat64, d))
        f.SetTransform(field if "field" in name else sitk.TranslationTransform(d, [0.3] * d))
    elif "Shrink" in name:
        f.SetShrinkFactors([2] * d)
    return f


@pytest.mark.parametrize("name", ["Resample", "Resample, field", "Shrink", "BinShrink", "DiscreteGaussian"])
@pytest.mark.parametrize("size", [(9, 8, 7), (6, 5), (33, 20, 17), (101, 3)])
@pytest.mark.parametrize("kind", [sitk.sitkFloat32, sitk.sitkVectorInt16])
def test_progress_is_told_as_often_as_simpleitk_tells_it_on_one_thread(name, size, kind):
    if kind == sitk.sitkVectorInt16 and name in ("DiscreteGaussian", "Resample, field"):
        kind = sitk.sitkInt16  # SimpleITK blurs no such vectors; a field's kernels for them compile long
    told = []
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        for module in (sitk, ours):
            f, events = named_filter(module, name, sitk.Image(size, kind)), []
            f.AddCommand(sitk.sitkProgressEvent, lambda f=f, events=events: events.append(f.GetProgress()))
            f.Execute(sitk.Image(size, kind))
            told.append(events)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    assert len(told[0]) == len(told[1])
    np.testing.assert_allclose(told[0], told[1], atol=1e-6)
    assert f.GetProgress() == 1.0


@pytest.mark.parametrize("name", ["Shrink", "BinShrink"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_one_factor_is_for_all_axes(name, factor):
    mine, theirs = getattr(ours, name)(image(), factor), getattr(sitk, name)(image(), [factor] * 3)
    assert (mine.GetSize(), mine.GetOrigin(), mine.GetSpacing()) == (
        theirs.GetSize(),
        theirs.GetOrigin(),
        theirs.GetSpacing(),
    )
    np.testing.assert_array_equal(sitk.GetArrayFromImage(mine), sitk.GetArrayFromImage(theirs))


def test_an_error_of_a_command_is_raised_and_not_swallowed():
    f = ours.ShrinkImageFilter()
    f.AddCommand(sitk.sitkEndEvent, lambda: {}["no such key"])
    with pytest.raises(KeyError, match="no such key"):
        f.SetShrinkFactors((2, 2, 2)).Execute(image())
    g = ours.ShrinkImageFilter()
    g.AddCommand(sitk.sitkEndEvent, lambda: int("no number"))
    with pytest.raises(ValueError, match="no number"):
        g.SetShrinkFactors((2, 2, 2)).Execute(image())


def test_a_command_object_is_executed():
    class Count(sitk.Command):
        count = 0

        def Execute(self):
            self.count += 1

    seen = Count()
    f = ours.ShrinkImageFilter()
    f.AddCommand(sitk.sitkEndEvent, seen)
    f.SetShrinkFactors((2, 2, 2)).Execute(image())
    assert seen.count == 1


@pytest.mark.parametrize("setter", ["SetNumberOfThreads", "SetNumberOfWorkUnits"])
def test_a_number_of_threads_bounds_ours(setter, threads):
    threads(4)
    seen = []
    f = ours.ResampleImageFilter()
    f.SetReferenceImage(image())
    f.AddCommand(sitk.sitkStartEvent, lambda: seen.append(pool.get_num_threads()))
    f.Execute(image())
    getattr(f, setter)(1).Execute(image())
    assert seen == [4, 1]
    assert pool.get_num_threads() == 4


def test_the_device_is_a_word():
    with pytest.raises(ValueError, match="device must be"):
        ours.set_device("gpu")
    ours.set_device("cpu")
    try:
        assert_equal(ours.Resample(image(), TURN), sitk.Resample(image(), TURN))
    finally:
        ours.set_device("auto")
