"""The 1-D filters, without voxels: what they weigh, what they keep, which words name them."""

import math

import naive
import numpy as np
import pytest
import SimpleITK as sitk
from scipy import interpolate, ndimage
from support import SITK

from gpuresample.planning import filters

SINCS = ("hamming", "cosine", "welch", "lanczos", "blackman")
SPLINES = tuple(f"bspline{p}" for p in range(1, 6))
EVERY = tuple(filters.FILTERS)
# Offsets that hit no voxel, no half, and no tenth (where the Gaussian's window changes).
OFFSETS = np.array([0.013, 0.21, 0.37, 0.49, 0.512, 0.66, 0.83, 0.987])


def line(f, x, lo=-12, hi=13):
    """Weights of samples `x` laid on the voxels lo..hi-1, [n, hi - lo]."""
    first, weight = f.window(np.atleast_1d(np.asarray(x, dtype=float)))
    out = np.zeros((first.size, hi - lo))
    for i in range(first.size):
        for k in range(weight.shape[1]):
            if weight[i, k] != 0:
                out[i, first[i] + k - lo] += weight[i, k]
    return out


@pytest.mark.parametrize("name", ["nearest", "linear", "label_linear", "bspline1", *SINCS])
@pytest.mark.parametrize("at", [-3, 0, 4])
def test_is_one_on_its_own_voxel_and_zero_on_the_others(name, at):
    expected = np.zeros(25)
    expected[at + 12] = 1.0
    assert line(filters.FILTERS[name], at)[0].tolist() == expected.tolist()


@pytest.mark.parametrize("order", range(1, 6))
def test_cardinal_spline_is_one_on_its_own_voxel_and_zero_on_the_others(order):
    samples = filters.bspline_weights(order, np.zeros(1))[0]
    cardinal = np.convolve(samples, filters.prefilter_response(order, 1e-13))
    peak = int(np.argmax(cardinal))
    assert cardinal[peak] == pytest.approx(1.0, abs=1e-12)
    assert np.abs(np.delete(cardinal, peak)).max() < 1e-12


@pytest.mark.parametrize("name", EVERY)
def test_is_symmetric(name):
    f = filters.FILTERS[name]
    there, back = line(f, OFFSETS, -12, 13), line(f, -OFFSETS, -12, 13)
    # ITK's polynomials sum the two ends differently, in the last bits.
    np.testing.assert_allclose(there, back[:, ::-1], atol=1e-14)


@pytest.mark.parametrize("name", ["nearest", "linear", *SPLINES])
def test_weights_sum_to_one(name):
    x = np.linspace(-2, 3, 101)
    np.testing.assert_allclose(line(filters.FILTERS[name], x).sum(axis=1), 1.0, atol=1e-14)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("hamming", 1.00002, 1.0036),
        ("cosine", 0.9990, 1.0),
        ("welch", 0.9994, 1.0),
        ("lanczos", 0.9987, 1.0),
        ("blackman", 0.9996, 1.0),
    ],
)
def test_sinc_gain_is_that_of_itk(name, low, high):
    # ITK does not normalise its windowed sincs; we must not either.
    gain = line(filters.FILTERS[name], np.linspace(0.02, 0.98, 49)).sum(axis=1)
    assert low - 5e-5 <= gain.min()
    assert gain.max() <= high + 5e-5
    assert gain.max() - gain.min() > 1e-4


@pytest.mark.parametrize(
    ("order", "w", "expected"),
    [
        (1, 0.0, [1, 0]),
        (1, 0.25, [0.75, 0.25]),
        (2, 0.0, [1 / 8, 6 / 8, 1 / 8]),
        (2, 0.5, [0, 1 / 2, 1 / 2]),
        (3, 0.0, [1 / 6, 4 / 6, 1 / 6, 0]),
        (3, 0.5, [1 / 48, 23 / 48, 23 / 48, 1 / 48]),
        (4, 0.0, [1 / 384, 76 / 384, 230 / 384, 76 / 384, 1 / 384]),
        (5, 0.0, [1 / 120, 26 / 120, 66 / 120, 26 / 120, 1 / 120, 0]),
        (5, 0.5, [1 / 3840, 237 / 3840, 1682 / 3840, 1682 / 3840, 237 / 3840, 1 / 3840]),
    ],
)
def test_spline_weights_golden(order, w, expected):
    np.testing.assert_allclose(filters.bspline_weights(order, np.array([w]))[0], expected, atol=1e-15)


@pytest.mark.parametrize("order", range(1, 6))
def test_spline_weights_are_scipys_basis(order):
    element = interpolate.BSpline.basis_element(np.arange(order + 2) - (order + 1) / 2, extrapolate=False)
    first, weight = filters.FILTERS[f"bspline{order}"].window(OFFSETS)
    distance = OFFSETS[:, None] - (first[:, None] + np.arange(order + 1))
    np.testing.assert_allclose(weight, np.nan_to_num(element(distance)), atol=1e-14)


@pytest.mark.parametrize("name", naive.EVERY)
def test_window_is_that_of_the_oracle(name):
    for x in OFFSETS:
        expected = np.zeros(25)
        for k, w in naive.taps(name, float(x)):
            expected[k + 12] = w
        np.testing.assert_allclose(line(filters.FILTERS[name], x)[0], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("x", "expected"), [(-0.5, 0), (-0.51, -1), (0.49, 0), (0.5, 1), (1.5, 2), (2.5, 3), (-1.5, -1)]
)
def test_nearest_rounds_halves_up(x, expected):
    first, weight = filters.FILTERS["nearest"].window(np.array([x]))
    assert first.tolist() == [expected]
    assert weight.tolist() == [[1.0]]


@pytest.mark.parametrize(("p", "degree"), [(p, degree) for p in range(1, 6) for degree in range(p + 1)])
def test_cardinal_spline_reproduces_polynomials_up_to_its_order(p, degree):
    voxels = np.arange(-80, 81, dtype=float)
    response = filters.prefilter_response(p, 1e-13)
    coefficients = np.convolve(voxels**degree, response, mode="same")
    x = np.linspace(-1.9, 1.9, 21)
    first, weight = filters.FILTERS[f"bspline{p}"].window(x)
    taps = coefficients[first[:, None] + np.arange(p + 1) + 80]
    # The response's tail of 1e-13, some 40 voxels away, meets values of 40 ** degree.
    np.testing.assert_allclose((weight * taps).sum(axis=1), x**degree, atol=1e-12 * 40**degree)


def test_a_linear_filter_does_not_reproduce_parabolas():
    # Guards the test above: it can fail.
    x = np.array([0.5])
    first, weight = filters.FILTERS["linear"].window(x)
    assert (weight[0] * (first[0] + np.arange(2)) ** 2).sum() == 0.5


@pytest.mark.parametrize("name", [n for n, f in filters.FILTERS.items() if f.method == "sum"])
def test_polynomials_equal_the_window(name):
    f = filters.FILTERS[name]
    coefficients, offset = filters.polynomials(name)
    pieces, width, terms = coefficients.shape
    x = np.concatenate([np.linspace(-1.493, 2.507, 173), OFFSETS])
    got = np.zeros((x.size, 25))
    for i, t in enumerate(x + f.shift):
        cell = math.floor(t)
        u = (t - cell) * pieces
        piece = min(int(u), pieces - 1)
        for k in range(width):
            got[i, cell + offset + k + 12] = sum(coefficients[piece, k, d] * (u - piece) ** d for d in range(terms))
    np.testing.assert_allclose(got, line(f, x), atol=1e-12)


def test_polynomials_are_read_only():
    coefficients, _ = filters.polynomials("bspline3")
    assert not coefficients.flags.writeable


@pytest.mark.parametrize(("order", "peak"), [(2, math.sqrt(2)), (3, math.sqrt(3))])
def test_prefilter_response_golden(order, peak):
    # Closed form: peak * pole ** |k|.
    pole = naive.POLES[order][0]
    response = filters.prefilter_response(order, 1e-13)
    k = np.abs(np.arange(response.size) - response.size // 2)
    np.testing.assert_allclose(response, peak * pole**k, atol=1e-12)


@pytest.mark.parametrize("order", range(2, 6))
def test_prefilter_response_is_the_recursions(order):
    impulse = np.zeros((1, 1, 129))
    impulse[0, 0, 64] = 1.0
    recursion = naive.prefilter(impulse, order)[0, 0]
    response = filters.prefilter_response(order, 1e-13)
    radius = response.size // 2
    np.testing.assert_allclose(response, recursion[64 - radius : 65 + radius], atol=1e-12)


@pytest.mark.parametrize("order", range(2, 6))
@pytest.mark.parametrize("tolerance", [1e-3, 1e-6, 1e-9])
def test_prefilter_response_is_cut_where_its_tail_no_longer_matters(order, tolerance):
    whole, cut = filters.prefilter_response(order, 1e-15), filters.prefilter_response(order, tolerance)
    assert cut.size < whole.size
    assert cut.sum() == pytest.approx(1.0, abs=1e-14)
    assert cut.tolist() == cut[::-1].tolist()
    padded = np.pad(cut, (whole.size - cut.size) // 2)
    assert np.abs(padded - whole).sum() < 3 * tolerance


@pytest.mark.parametrize("order", [0, 1])
def test_orders_without_prefilter(order):
    assert filters.prefilter_response(order, 1e-9).tolist() == [1.0]


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.7])
def test_blur_is_scipys(sigma):
    impulse = np.zeros(61)
    impulse[30] = 1.0
    response = filters.gaussian_response(sigma)
    radius = response.size // 2
    expected = ndimage.gaussian_filter1d(impulse, sigma, truncate=4.0)
    np.testing.assert_allclose(response, expected[30 - radius : 31 + radius], atol=1e-15)
    assert np.abs(expected[: 30 - radius]).max(initial=0) == 0


@pytest.mark.parametrize("name", SITK)
def test_simpleitk_enumerators_name_filters(name):
    assert filters.get_filter(SITK[name]).name == name


def test_bspline_is_cubic():
    assert filters.get_filter("bspline") is filters.FILTERS["bspline3"]
    assert filters.get_filter(sitk.sitkBSpline).name == "bspline3"


@pytest.mark.parametrize("word", filters.INTERPOLATIONS)
def test_every_word_names_a_filter(word):
    assert filters.get_filter(word).name == ("bspline3" if word == "bspline" else word)


@pytest.mark.parametrize("value", [3, 11, 15, 99])
def test_other_enumerators_are_refused(value):
    with pytest.raises(ValueError, match=rf"interpolation: .*{value} is not supported.*2 \(linear\)"):
        filters.get_filter(value)
