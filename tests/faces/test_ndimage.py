"""`gpuresample.ndimage` against `scipy.ndimage`: values, types, borders, rounding, refusals, and what SciPy does."""

import inspect
import warnings

import numpy as np
import pytest
import scipy.ndimage as theirs
from support import SINGLE

import gpuresample as gr
import gpuresample.ndimage as ours
from gpuresample import installation
from gpuresample.ndimage import _filters, _interpolation

MODES = ("nearest", "wrap", "reflect", "mirror", "constant", "grid-wrap", "grid-constant", "grid-mirror")
# Of the range, by the numeric contract.
BOUNDS = {"float64": 1e-9, "float32": 2e-6}
# Functions that round to nearest.
TIES = ("zoom", "shift", "affine_transform", "map_coordinates", "rotate")
TURN = np.array([[0.9, 0.2, -0.1], [-0.15, 1.1, 0.3], [0.2, -0.1, 0.8]])


def volume(shape=(9, 11, 13), dtype="float64", seed=0):
    """Noise, of integers over a fifth of their range."""
    made = np.random.default_rng(seed).random(shape)
    return made.astype(dtype) if np.dtype(dtype).kind == "f" else (made * 200 - 60 * (dtype[0] == "i")).astype(dtype)


def agree(name, array, *args, **keywords):
    """Our result, compared with SciPy's by the contract; integers must be equal."""
    expected = getattr(theirs, name)(array, *args, **keywords)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ours.LeftToSciPyWarning)
        found = getattr(ours, name)(array, *args, **keywords)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    if expected.dtype.kind in "fc":
        bound = BOUNDS["float32" if expected.dtype in (np.float32, np.complex64) else "float64"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound * max(1.0, float(np.ptp(np.abs(array)))))
    else:
        # A half is a tie, which the last digit of SciPy's own sums decides.
        off = found != expected
        if off.any():
            assert name in TIES
            sums = getattr(theirs, name)(array, *args, **keywords, output="float64")[off]
            assert np.abs(sums - np.floor(sums) - 0.5).max() < 1e-9
            assert np.abs(found[off].astype(int) - expected[off].astype(int)).max() == 1
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("order", range(6))
def test_splines_at_every_border(order, mode):
    array = volume()
    keywords = {"order": order, "mode": mode, "cval": 0.3}
    agree("zoom", array, (1.7, 0.6, 2), **keywords)
    agree("shift", array, (1.7, -30.6, 2), prefilter=False, **keywords)
    far = np.random.default_rng(1).random((3, 4, 5, 6)) * 80 - 30
    agree("map_coordinates", array, far, **keywords)
    agree("affine_transform", array, TURN, offset=-1.3, output_shape=(8, 9, 10), **keywords)
    agree("rotate", array[:3], 33, axes=(2, 1), **keywords)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int16"])
def test_types_are_kept_and_rounded_as_scipys(dtype):
    array = volume(dtype=dtype)
    for order in (0, 1, 3):
        agree("zoom", array, 1.4, order=order, mode="grid-constant", cval=7, grid_mode=True)
        agree("shift", array, 0.3, order=order, mode="nearest")
        agree("affine_transform", array, TURN, order=order, cval=-2.5 if dtype == "int16" else 2.5)
    agree("gaussian_filter", array, 1.3)
    agree("gaussian_filter", array, (1, 0, 2), order=(0, 1, 2), mode=("wrap", "nearest", "mirror"), output="float32")
    agree("uniform_filter", array, (3, 4, 5), origin=(0, -1, 2), mode="constant", cval=3)
    agree("correlate1d", array, [1, 2, 1, 0.5], axis=1, origin=1, mode="wrap")
    agree("convolve1d", array, [0.25, 0.5, 0.25], axis=0)
    agree("spline_filter", array, 4)
    agree("spline_filter1d", array, 3, axis=0, output="float32", mode="grid-wrap")


def test_sums_that_are_whole_numbers_are_cut_as_scipys_last_digit_has_them():
    flat = np.full((20, 21, 22), 7, np.int16)
    flat[8:] = -1000
    agree("gaussian_filter", flat, 1.7)
    agree("gaussian_filter", flat, 1.7, mode="constant", cval=3)
    agree("gaussian_filter1d", flat, 2.1, order=1)
    agree("correlate1d", flat, [0.1, 0.2, 0.3, 0.4])


def test_derivatives_of_gaussians():
    array = volume()
    agree("gaussian_laplace", array, (1, 2, 1.5), mode="nearest")
    agree("gaussian_gradient_magnitude", array, 1.2, truncate=3)
    agree("gaussian_laplace", array, (1, 2), axes=(0, 2), output="float32")
    agree("gaussian_filter1d", array, 1.5, order=3, radius=5)


@pytest.mark.parametrize("n", range(1, 6))
def test_any_number_of_axes_by_lines(n):
    array = volume((5, 4, 6, 3, 7)[:n])
    agree("zoom", array, 1.6)
    agree("gaussian_filter", array, 0.7)
    agree("shift", array, 0.4, order=1)
    agree("affine_transform", array, np.linspace(0.7, 1.1, n), offset=0.2)
    agree("spline_filter", array)


def test_outputs_of_other_dimensions():
    array = volume((9, 11))
    agree("map_coordinates", array, np.random.default_rng(0).random((2, 7)) * 9)
    agree("map_coordinates", array, np.random.default_rng(0).random((2, 2, 3, 2, 2)) * 9, order=1)
    agree("map_coordinates", array[0], np.random.default_rng(0).random((1, 20000)) * 12 - 1, order=1)
    agree("affine_transform", array, np.array([[1.0], [0.7]]), output_shape=(6,))
    agree("affine_transform", volume(), np.array([[1.0, 0.1], [0.7, 0.2], [0.0, 1.1]]), output_shape=(6, 5), order=1)
    agree("geometric_transform", array, lambda at, k: (at[2] + k, at[0] * 0.6), (5, 2, 6), extra_arguments=(0.25,))
    agree("rotate", volume((3, 9, 8, 2)), -200, axes=(1, 2), reshape=False, order=1)
    agree("rotate", array, 90, reshape=True)


def test_large_turns_go_by_lines_within_the_contract():
    array = volume((40, 33, 35), "float32")
    assert array.size > _interpolation.ONE_BY_ONE
    for order in (1, 3):
        agree("affine_transform", array, TURN, offset=-1.37, order=order)


def test_coordinates_of_either_float_and_of_any_layout():
    array = volume(dtype="float32")
    at = np.random.default_rng(2).random((6, 5, 4, 3)) * 12
    agree("map_coordinates", array, np.moveaxis(at, -1, 0), order=1)
    agree("map_coordinates", array, np.moveaxis(at, -1, 0).astype(np.float32), order=1)
    agree("map_coordinates", array, np.moveaxis(at, -1, 0).astype(int), order=3)
    agree("map_coordinates", array.T, np.moveaxis(at, -1, 0)[:, ::-1].astype(">f8"), order=1)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_positions_that_are_no_numbers_or_far_away(order):
    array = volume()
    at = np.full((3, 7), 4.0)
    at[0] = [np.nan, 1e300, -1e300, np.inf, -np.inf, 1e18, 4.0]
    for mode in MODES:
        found = ours.map_coordinates(array, at, order=order, mode=mode, cval=-5.0)
        assert found[0] == -5.0, mode
        assert np.isfinite(found).all()
        assert -6.0 < found.min() <= found.max() < 2.0
        if mode in ("nearest", "constant", "grid-constant"):
            inner = ours.map_coordinates(array, np.clip(at, -40.0, 40.0)[:, 1:], order=order, mode=mode, cval=-5.0)
            np.testing.assert_allclose(found[1:], inner, rtol=0, atol=1e-12)


def test_complex_arrays_are_two_real_ones():
    array = volume() + 1j * volume(seed=1)
    agree("zoom", array, 1.3, mode="grid-constant", cval=2 - 3j)
    agree("rotate", array, 20, order=1, cval=1j)
    agree("gaussian_filter", array.astype(np.complex64), 1.1)
    agree("correlate1d", array, [1, 2j, 3 - 1j], mode="constant", cval=1 + 2j)
    agree("uniform_filter", array, 3)
    agree("spline_filter", array, output=complex)
    with pytest.warns(UserWarning, match="promoting specified output dtype to complex"):
        assert ours.shift(array, 0.5, output=np.float32).dtype == np.complex64


def test_outputs_are_written_where_they_are():
    array, out = volume(dtype="float32"), np.zeros((9, 11, 13), "float64")
    assert ours.gaussian_filter(array, 1, output=out) is out
    np.testing.assert_allclose(out, theirs.gaussian_filter(array, 1, output="float64"), rtol=0, atol=1e-9)
    same = array.copy()
    assert ours.gaussian_filter(same, 1, output=same) is same
    np.testing.assert_allclose(same, theirs.gaussian_filter(array, 1), rtol=0, atol=2e-6)
    gaps = np.zeros((18, 22, 26), "float32")[::2, ::-2, ::2]
    ours.shift(array, 0.25, output=gaps, order=1)
    np.testing.assert_allclose(gaps, theirs.shift(array, 0.25, order=1), rtol=0, atol=2e-6)
    assert ours.zoom(array.tolist(), 1.5).dtype == np.float64
    agree("zoom", array.astype(">f4"), 1.5)


@pytest.mark.parametrize(
    ("name", "args", "keywords", "error"),
    [
        ("zoom", (2,), {"order": 6}, RuntimeError),
        ("zoom", ((2, 2),), {}, RuntimeError),
        ("zoom", (2,), {"mode": "mirrored"}, RuntimeError),
        ("zoom", (2,), {"output": np.zeros(3)}, RuntimeError),
        ("spline_filter", (), {"order": 1}, RuntimeError),
        ("affine_transform", (np.eye(2),), {}, RuntimeError),
        ("affine_transform", (np.ones((4, 4)),), {}, ValueError),
        ("map_coordinates", (np.zeros((2, 5)),), {}, RuntimeError),
        ("map_coordinates", (np.zeros((3, 5), complex),), {}, TypeError),
        ("rotate", (5,), {"axes": (0, 3)}, ValueError),
        ("rotate", (5,), {"axes": (0, 0.5)}, ValueError),
        ("gaussian_filter", (1, -1), {}, ValueError),
        ("gaussian_filter", ((1, 1),), {}, RuntimeError),
        ("gaussian_filter", (1,), {"axes": (1, 1)}, ValueError),
        ("gaussian_filter1d", (1,), {"radius": -1}, ValueError),
        ("uniform_filter", (0,), {"origin": 0, "mode": "nowhere"}, None),
        ("uniform_filter1d", (0,), {}, RuntimeError),
        ("uniform_filter1d", (3,), {"origin": 2}, ValueError),
        ("correlate1d", ([],), {}, RuntimeError),
        ("correlate1d", ([1, 2, 3],), {"origin": 2}, ValueError),
    ],
)
def test_what_scipy_refuses_is_refused(name, args, keywords, error):
    array = volume()
    if error is None:  # nothing is filtered, so no word is looked at
        agree(name, array, *args, **keywords)
        return
    for module in (theirs, ours):
        with pytest.raises(error):
            getattr(module, name)(array, *args, **keywords)


def test_what_is_not_here_scipy_does_and_says_so_once():
    installation.said.clear()
    array = volume((4, 5, 3, 4))
    at = np.random.default_rng(0).random((4, 6)) * 3
    with pytest.warns(ours.LeftToSciPyWarning, match="leaves this to SciPy: arrays of more") as said:
        found = ours.map_coordinates(array, at, order=1)
    assert said[0].filename == __file__
    np.testing.assert_array_equal(found, theirs.map_coordinates(array, at, order=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.map_coordinates(array, at, order=1)
    assert ours.median_filter is theirs.median_filter
    with pytest.raises(AttributeError, match=r"neither gpuresample\.ndimage nor scipy\.ndimage has 'zom'"):
        ours.zom  # noqa: B018


def test_without_scipy_the_message_says_what_for(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "scipy.ndimage", None)
    array = volume((3, 3, 3, 3))
    with pytest.raises(ImportError, match="leaves this to SciPy, which is not installed: arrays of"):
        ours.map_coordinates(array, np.zeros((4, 2)))


@pytest.mark.parametrize("name", ours.OURS)
def test_signatures_are_scipys(name):
    mine, other = (inspect.signature(getattr(m, name)).parameters for m in (ours, theirs))
    assert [(p.name, p.default, p.kind) for p in mine.values()] == [(p.name, p.default, p.kind) for p in other.values()]


@pytest.mark.filterwarnings("ignore:It is recommended to use mode = grid-wrap")
@pytest.mark.parametrize("boundary", ["wrap", "grid-wrap"])
def test_resample_begins_again_at_the_other_end(boundary):
    array = volume((14, 15, 17))
    matrix = TURN + 0.01 * np.random.default_rng(0).random((3, 3))
    turned = gr.Affine(matrix, offset=(-7.3, 3.1, 9.0))
    part = (slice(3, 9), slice(5, 7), slice(0, 22))
    for order, name in enumerate(("nearest", "linear", "bspline2", "bspline3")):
        request = {"interpolation": name, "boundary": boundary}
        found = gr.resample(array, transform=turned, size=(20, 21, 22), spacing=1.0, **request)
        expected = theirs.affine_transform(array, matrix, (-7.3, 3.1, 9.0), (20, 21, 22), order=order, mode=boundary)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        plan = gr.plan(array, transform=turned, size=(20, 21, 22), spacing=1.0, **request)
        block = plan.crop(part).run(array[plan.input_region(part)])
        np.testing.assert_array_equal(block, found[part])
        along = gr.resample(array, size=(30, 9, 13), anchor="edge", **request)
        factors = np.array((30, 9, 13)) / array.shape
        zoomed = theirs.zoom(array, factors, order=order, mode=boundary, grid_mode=True)
        np.testing.assert_allclose(along, zoomed, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match=r"boundary must be .* for interpolation='label_linear', got"):
        gr.resample(array, size=8, interpolation="label_linear", boundary=boundary)


@pytest.mark.parametrize("constant", [0.0, 0.7, -1000.0])
def test_resample_goes_on_as_samples_of_a_constant(constant):
    array = volume((14, 15, 17))
    matrix, move = TURN + 0.01 * np.random.default_rng(0).random((3, 3)), (-3.3, 2.1, 1.0)
    turned = gr.Affine(matrix, offset=move)
    part = (slice(3, 9), slice(5, 7), slice(0, 22))
    for order, name in enumerate(("nearest", "linear", "bspline2", "bspline3")):
        request = {"interpolation": name, "boundary": "grid-constant", "default_value": constant}
        same = {"order": order, "mode": "grid-constant", "cval": constant}
        plan = gr.plan(array, transform=turned, size=(20, 21, 22), spacing=1.0, **request)
        found, expected = plan.run(array), theirs.affine_transform(array, matrix, move, (20, 21, 22), **same)
        # SciPy's splines see a mirror 12 samples beyond the border; ours see the constant for ever.
        slow = {2: np.sqrt(8) - 3, 3: np.sqrt(3) - 2}.get(order, 0.0)
        bound = (10 * slow**12 + 1e-9) * (1 + abs(constant))
        np.testing.assert_allclose(found, expected, rtol=0, atol=bound)
        block = plan.crop(part).run(array[plan.input_region(part)])
        np.testing.assert_array_equal(block, found[part])
        along = gr.resample(array, size=(30, 9, 13), anchor="edge", **request)
        zoomed = theirs.zoom(array, np.array((30, 9, 13)) / array.shape, grid_mode=True, **same)
        np.testing.assert_allclose(along, zoomed, rtol=0, atol=1e-9 * (1 + abs(constant)))


def test_what_goes_on_as_a_constant_is_the_image_with_a_margin_of_it():
    ct = volume((9, 10, 11), "int16")
    request = {"interpolation": "bspline", "boundary": "grid-constant", "default_value": -50, "antialias": 0.8}
    margin = np.pad(ct, 30, constant_values=-50)
    for transform in (gr.Affine(np.eye(3), offset=(-2.25, 1.5, 0.75)), gr.Affine(TURN, offset=(1.2, -0.4, 3))):
        keywords = {"size": (8, 9, 10), "spacing": 1.0, "scale": 0.5, "offset": 3.0, "clip": (-40, 60)}
        found = gr.resample(ct, transform=transform, dtype="float64", **request, **keywords)
        further = gr.Affine(transform.matrix, offset=np.asarray(transform.offset) + 30)
        expected = gr.resample(
            margin, transform=further, dtype="float64", **{**request, "boundary": "mirror"}, **keywords
        )
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)
    whole = gr.resample(ct, size=(12, 13, 14), anchor="edge", **request)
    sums = gr.resample(ct, size=(12, 13, 14), anchor="edge", dtype="float64", **request)
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, np.rint(sums))
    # Far away it is the constant, of complex voxels, too.
    away = gr.Affine(np.eye(3), offset=(0, 40, 0))
    wave = ct + 1j * ct[::-1]
    request = {"interpolation": "linear", "boundary": "grid-constant", "transform": away}
    assert (gr.resample(wave, default_value=2 - 3j, **request) == 2 - 3j).all()
    assert (gr.resample(ct[0], transform=gr.Affine(np.eye(2), offset=(0, 40)), boundary="grid-constant") == 0).all()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"clip": True}, r"clip must be False or \(low, high\) with boundary='grid-constant', got True"),
        ({"ignore": -1}, "ignore must be left out with boundary='grid-constant', got -1"),
        ({"default_value": np.nan}, "default_value must be finite with boundary='grid-constant', got nan"),
        ({"default_value": -1e30}, r"default_value must be from -1e\+06 to 1e\+06 .* of floats, got -1e\+30"),
        (
            {"interpolation": "label_linear"},
            "boundary must be .* for interpolation='label_linear', got 'grid-constant'",
        ),
    ],
)
def test_what_an_endless_constant_cannot_have_is_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        gr.resample(volume(), **{"size": (8, 8, 8), "boundary": "grid-constant", "interpolation": "linear", **keywords})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_constant_far_from_the_voxels_leaves_their_digits(dtype):
    array = np.random.default_rng(1).random((9, 10, 11)).astype(dtype)
    request = {"interpolation": "linear", "boundary": "grid-constant", "default_value": 1e6}
    out = gr.resample(array, size=(13, 14, 20), **request)
    inner = np.s_[:10, :10, :15]  # whose taps are all within
    np.testing.assert_allclose(
        out[inner], gr.resample(array, size=(13, 14, 20), interpolation="linear")[inner], rtol=0,
        atol=1e-9 if dtype == "float64" else SINGLE,
    )  # fmt: skip


def test_a_part_has_the_bits_of_the_whole_whatever_its_rows_weigh():
    """Rows at a border have one tap that is no copy; a part without them is summed as they are."""
    rng = np.random.default_rng(0)
    part = np.s_[1:4, 2:5, 3:10]
    request = {"size": (5, 6, 11), "interpolation": "linear", "boundary": "grid-constant", "dtype": "float32"}
    for shape in ((7, 3, 1), (7, 7, 6), (8, 5, 7)):
        array = (rng.random(shape) * 250).astype(np.int16)
        np.testing.assert_array_equal(gr.resample(array, region=part, **request), gr.resample(array, **request)[part])


@pytest.mark.parametrize(("boundary", "mode"), [("grid-wrap", "wrap"), ("grid-constant", "constant")])
def test_blurs_begin_again_at_the_other_end_or_meet_zeros(boundary, mode):
    array = volume()
    for sigma in (2, 20):  # the second reaches around several times
        found = gr.gaussian(array, sigma, kind="sampled", boundary=boundary)
        np.testing.assert_allclose(found, theirs.gaussian_filter(array, sigma, mode=mode), rtol=0, atol=1e-9)
    row = array[:, :1, :1]
    found = gr.gaussian(row, 2, kind="sampled", boundary=boundary)
    np.testing.assert_allclose(found, theirs.gaussian_filter(row, 2, mode=mode), rtol=0, atol=1e-9)


# --- complex voxels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["complex64", "complex128"])
def test_complex_voxels_are_resampled_as_two_real_volumes(kind):
    array = (volume((2, 9, 11, 13)) - 1j * volume((2, 9, 11, 13), seed=1)).astype(kind)
    turns = [gr.Affine(TURN, offset=-1.3), gr.Affine(TURN.T, offset=0.4)]
    for request in (
        {"spacing": 0.8, "interpolation": "linear"},
        {"transform": turns, "interpolation": "bspline"},
        {"transform": turns, "interpolation": "linear", "default_value": 2 - 1j},
    ):
        found = gr.resample(array, **request)
        constant = complex(request.pop("default_value", 0))
        assert found.dtype == kind
        np.testing.assert_array_equal(found.real, gr.resample(array.real, default_value=constant.real, **request))
        np.testing.assert_array_equal(found.imag, gr.resample(array.imag, default_value=constant.imag, **request))
    blurred = np.empty_like(array)
    assert gr.gaussian(array, 1.2, out=blurred) is blurred
    np.testing.assert_array_equal(blurred.imag, gr.gaussian(array.imag, 1.2))
    plane = gr.resample(array[0, :, ::2, 3], size=(5, 4), dtype="complex64")
    np.testing.assert_array_equal(plane.real, gr.resample(array[0, :, ::2, 3].real, size=(5, 4), dtype="float32"))


@pytest.mark.parametrize(
    ("request_", "error", "message"),
    [
        ({"dtype": "float32"}, TypeError, "dtype must be complex64 or complex128 for a complex image, got float32"),
        ({"clip": True}, ValueError, "clip must be left out for complex voxels, got True"),
        ({"offset": 2.0}, ValueError, "offset must be left out for complex voxels, got 2.0"),
        ({"region": (slice(0, 2),) * 3}, ValueError, "region must be left out for complex voxels"),
        ({"default_value": "0"}, TypeError, "default_value must be a number, got '0'"),
        ({"out": np.zeros((3, 3, 3))}, TypeError, "out must be an array of complex128 like the input, got"),
        ({"out": np.zeros((3, 3, 3), complex)}, ValueError, "out must have shape"),
    ],
)
def test_what_complex_voxels_cannot_have_is_refused(request_, error, message):
    with pytest.raises(error, match=message):
        gr.resample(volume().astype(complex), size=(5, 5, 5), **request_)


def test_an_axis_of_one_sample_ends_there():
    agree("rotate", np.ones((5, 1)), 30, reshape=False, order=1, cval=-7)
    places = [[0, 0.5, 1, -2, 0], [0, 1, 1, 1, 2]]
    for order in (0, 1, 3):
        agree("map_coordinates", np.array([[1.0, 2, 3]]), places, order=order, cval=-7)
    slab = np.array([[1, 0, 0], [0, 0.75, 0.5], [0, -0.5, 0.75]])  # without rounding, so that no side is a matter of it
    agree("affine_transform", volume((1, 200, 190)), slab, offset=(0, 3, 98), output_shape=(2, 200, 190), order=1)


def test_a_wrapped_line_begins_anew_as_scipys_does():
    agree("map_coordinates", np.array([10.0, 20, 40]), [[-6, -4, -2, 0, 2, 4]], order=1, mode="wrap")
    agree("affine_transform", volume((5, 6)), [[1, 1], [0, 1]], offset=(-8, -5), output_shape=(20, 20), mode="wrap")
    agree("affine_transform", volume((5, 6)), [[1, 1], [0, 1]], offset=(-8, -5), output_shape=(200, 200), mode="wrap")


@pytest.mark.parametrize("cval", [np.nan, np.inf])
def test_a_constant_that_is_no_number_stays_where_it_is_met(cval):
    line = np.arange(12.0)
    with np.errstate(invalid="ignore"):
        for name, more in (("correlate1d", {"weights": [1, 1, 1]}), ("gaussian_filter", {"sigma": 1})):
            agree(name, line, **more, mode="constant", cval=cval)
        for order in (0, 1):
            agree("shift", line, 1.5, order=order, mode="grid-constant", cval=cval)


def left_to_scipy(name, array, *args, **keywords):
    installation.said.clear()
    with pytest.warns(ours.LeftToSciPyWarning):
        found = getattr(ours, name)(array, *args, **keywords)
    np.testing.assert_array_equal(found, getattr(theirs, name)(array, *args, **keywords))


def test_whose_last_digit_or_table_is_scipys_goes_to_scipy():
    left_to_scipy("spline_filter", np.full((9, 9), 100, np.int16), 2, output="int16")
    few = np.full(5, 10, np.uint8)
    left_to_scipy("shift", few, 2.5, output="f8", mode="grid-constant", cval=7.9)
    left_to_scipy("zoom", few, 2, mode="grid-constant", cval=300.0)
    left_to_scipy("shift", np.zeros(6000, "f4"), 0.5, mode="grid-wrap")
    left_to_scipy("shift", volume((4, 5, 6, 7)), (1.5, 0.5, 0.25, 0.3), cval=np.inf)


def test_a_rotation_by_whole_degrees_lies_where_scipys_does():
    array = volume((64, 64), "uint8")
    for angle in (45, 60, 120, -30):
        agree("rotate", array, angle, order=0, mode="reflect")


def test_complex_weights_in_place():
    line, row = np.array([1 + 2j, 3 - 1j, 2j, 4]), np.array([1j, 1, 0.5])
    wanted = theirs.correlate1d(line, row)
    ours.correlate1d(line, row, output=line)
    np.testing.assert_allclose(line, wanted, atol=1e-14)


def test_real_input_has_no_complex_output():
    for name in ("gaussian_filter", "uniform_filter"):
        for library in (theirs, ours):
            with pytest.raises(RuntimeError):
                getattr(library, name)(volume((4, 5)), 2, output=complex)


def test_a_small_call_that_comes_again_is_the_same_and_as_strict(monkeypatch):
    first, other = volume(dtype="float32"), volume(dtype="float32", seed=1)
    calls = [
        ("uniform_filter", (3,), {}),
        ("uniform_filter1d", (3, 1), {"mode": "wrap"}),
        ("gaussian_filter", ([1, 0, 2],), {"output": "float64"}),
        ("correlate1d", ([1, 2, 1],), {"cval": 0.5}),
        ("shift", ((2.3, -1.5, 0.4),), {"order": 1, "cval": -7}),
        ("zoom", (1.3,), {"mode": "nearest"}),
        ("spline_filter", (), {}),
        ("spline_filter1d", (3, 0), {"mode": "reflect"}),
    ]
    for name, args, keywords in calls:
        agree(name, first, *args, **keywords)
    expected = [getattr(ours, name)(other.T.copy().T, *args, **keywords) for name, args, keywords in calls]

    def not_again(value, name="input"):
        raise AssertionError("arguments were looked at again")

    with monkeypatch.context() as known:
        known.setattr(_interpolation, "taken", not_again)
        known.setattr(_filters, "taken", not_again)
        for _ in range(2):
            for (name, args, keywords), right in zip(calls, expected, strict=True):
                assert np.array_equal(getattr(ours, name)(other, *args, **keywords), right)
        with pytest.raises(AssertionError, match="looked at again"):
            ours.uniform_filter(other[:, ::-1], 3)  # of another layout
    # Equal numbers of another type are not what was asked before.
    ours.shift(first, 0.5, order=1)
    with pytest.raises(TypeError):
        ours.shift(first, 0.5, order=1.0)
    assert np.signbit(ours.shift(first, 20, order=1, cval=-0.0)).all()
    assert not np.signbit(ours.shift(first, 20, order=1, cval=0.0)).any()
    # With more than a run to them: borders of constants, and a warning for every call.
    for _ in range(2):
        agree("uniform_filter", first, 3, mode="constant", cval=2)
        with pytest.warns(UserWarning, match="grid_mode"):
            ours.zoom(first, 1.3, mode="wrap", grid_mode=True)
    made = ours.uniform_filter(first, 3)
    assert ours.uniform_filter(first, 3) is not made
    ours.set_device("cpu")
    try:
        assert np.array_equal(ours.uniform_filter(first, 3), made)
    finally:
        ours.set_device("auto")
