"""What several test files share: the numeric contract's tolerances, images, and SimpleITK's answer."""

import naive
import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.planning.transforms import of_sitk

# The numeric contract, as fractions of the image's intensity range.
SINGLE = 2e-6
DOUBLE = 1e-9
# SimpleITK's Gaussian interpolator has its own erf, good to 3e-8.
ERF = 1e-7
# Truncated integers: off by at most 1, in at most this share of voxels.
TRUNCATED_SHARE = 0.005

SITK = {
    "nearest": sitk.sitkNearestNeighbor,
    "linear": sitk.sitkLinear,
    "gaussian": sitk.sitkGaussian,
    "label_gaussian": sitk.sitkLabelGaussian,
    "hamming": sitk.sitkHammingWindowedSinc,
    "cosine": sitk.sitkCosineWindowedSinc,
    "welch": sitk.sitkWelchWindowedSinc,
    "lanczos": sitk.sitkLanczosWindowedSinc,
    "blackman": sitk.sitkBlackmanWindowedSinc,
    "bspline1": sitk.sitkBSpline1,
    "bspline2": sitk.sitkBSpline2,
    "bspline3": sitk.sitkBSpline3,
    "bspline4": sitk.sitkBSpline4,
    "bspline5": sitk.sitkBSpline5,
    "label_linear": sitk.sitkLabelLinear,
}

# A volume whose voxels are no cubes, away from the origin.
ANISOTROPIC = naive.Geometry((22, 19, 14), (0.7, 1.1, 2.3), (-120.3, 7.7, 31.1))

CHOOSING = ("nearest", "label_linear", "label_gaussian")


def tolerance(image_range, dtype, interpolation="linear"):
    """The contract in intensity units."""
    fraction = SINGLE if np.dtype(dtype).itemsize < 8 else ERF if interpolation == "gaussian" else DOUBLE
    return fraction * image_range


def noise(shape, dtype="float32", seed=0, bits=12):
    """White noise, the hardest image there is; integers of `bits` bits, 12 as in CT and MR, where they have them."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return (1000 * rng.standard_normal(shape)).astype(dtype)
    info = np.iinfo(dtype)
    half = 2 ** (bits - 1)
    low, high = (0, 2 * half - 1) if info.min == 0 else (-half, half - 1)
    low, high = max(info.min, low), min(info.max, high)
    return rng.integers(low, high, shape, endpoint=True).astype(dtype)


def labels(shape, dtype="uint8", seed=0, count=5):
    """Blobs of a few labels, voxels of noise among them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, count, [n // 3 + 1 for n in shape])
    fine = coarse
    for axis, n in enumerate(shape):
        fine = np.repeat(fine, 3, axis=axis).take(range(n), axis=axis)
    fine = np.where(rng.random(shape) < 0.2, rng.integers(0, count, shape), fine)
    return fine.astype(dtype)


def rotation(x, y, z):
    """Rotation by degrees about x, then y, then z, as nested tuples."""
    cx, sx = np.cos(np.radians(x)), np.sin(np.radians(x))
    cy, sy = np.cos(np.radians(y)), np.sin(np.radians(y))
    cz, sz = np.cos(np.radians(z)), np.sin(np.radians(z))
    r = (
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
    return tuple(tuple(row) for row in r.tolist())


def flat(direction):
    return tuple(float(v) for row in direction for v in row)


def to_image(array, geometry, vector=False):
    """A SimpleITK image of a `naive.Geometry`."""
    image = sitk.GetImageFromArray(array, isVector=vector)
    d = image.GetDimension()
    image.SetSpacing(geometry.spacing[:d])
    image.SetOrigin(geometry.origin[:d])
    if d == 3:
        image.SetDirection(flat(geometry.direction))
    return image


def to_grid(geometry):
    return gr.Grid(geometry.size, geometry.spacing, geometry.origin, flat(geometry.direction))


def of_grid(grid):
    """A 3-D `Grid` as `naive.Geometry`."""
    rows = np.reshape(grid.direction, (3, 3)).tolist()
    return naive.Geometry(grid.size, grid.spacing, grid.origin, tuple(tuple(r) for r in rows))


def reference(image, grid, interpolation, transform=None, default=0.0, pixel=None):
    """SimpleITK's answer, as an array; `pixel` float64 by default, so that nothing is rounded."""
    pixel = sitk.sitkFloat64 if pixel is None else pixel
    if image.GetNumberOfComponentsPerPixel() > 1:
        pixel = image.GetPixelID() if pixel != sitk.sitkFloat64 else sitk.sitkVectorFloat64
    filter_ = sitk.ResampleImageFilter()
    filter_.SetSize(grid.size)
    filter_.SetOutputSpacing(grid.spacing)
    filter_.SetOutputOrigin(grid.origin)
    filter_.SetOutputDirection(grid.direction)
    filter_.SetInterpolator(SITK[interpolation])
    filter_.SetDefaultPixelValue(float(default))
    filter_.SetOutputPixelType(pixel)
    if transform is not None:
        filter_.SetTransform(transform)
    return sitk.GetArrayFromImage(filter_.Execute(image))


def assert_close(actual, expected, bound, what=""):
    """Largest difference at most `bound`, in float64; NaN only where expected."""
    a, e = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert a.shape == e.shape, (a.shape, e.shape)
    assert (np.isnan(a) == np.isnan(e)).all(), f"{what}: NaN where none is expected, or none where one is"
    error = np.nanmax(np.abs(a - e), initial=0.0)
    assert error <= bound, f"{what}: largest error {error:.3g}, allowed {bound:.3g}"


def assert_truncated_like(actual, expected, share=TRUNCATED_SHARE):
    """Integers off by at most 1 in at most `share` of the voxels."""
    difference = np.abs(actual.astype(np.int64) - expected.astype(np.int64))
    assert difference.max() <= 1, f"off by {difference.max()}"
    assert (difference > 0).mean() <= share, f"{100 * (difference > 0).mean():.2f} % differ"


def assert_same(a, b):
    """Two images, but that NIfTI keeps its header in float32."""
    assert a.GetSize() == b.GetSize()
    assert a.GetPixelIDTypeAsString() == b.GetPixelIDTypeAsString()
    for name in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(a, f"Get{name}")(), getattr(b, f"Get{name}")(), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(a), sitk.GetArrayViewFromImage(b))


def same_bits(a, b):
    """Whether two arrays have one type, one shape and the same bits (NaN included)."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def path_of(transform, dimension=3):
    """A SimpleITK transform as planning has it."""
    return of_sitk(transform, dimension, gr.Grid.of_size((1,) * dimension))
