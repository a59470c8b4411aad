"""`clip=`, `scale=`, `offset=` and 16-bit floats, as sums are stored: against the same in NumPy on float64 results."""

import warnings

import numpy as np
import pytest
from support import labels, noise, rotation

import gpuresample as gr
from gpuresample.engines.packing import window_of

TURN = [[*row, shift] for row, shift in zip(rotation(5, -4, 9), (0.7, -1.2, 0.4), strict=True)]
# Tables of few taps and of many, copies, gathers; types whose kernels are there.
CASES = {
    "tables, few": ("float32", "float32", {"size": (13, 17, 9), "interpolation": "linear"}),
    "tables, many": ("int16", "float32", {"size": (13, 17, 9)}),
    "copies": ("float32", "float32", {"size": (9, 10, 11)}),
    "turned axes": ("uint8", "uint8", {"size": (13, 17, 9), "antialias": True}),
    "linear gather": ("int16", "float32", {"transform": TURN, "interpolation": "linear"}),
    "cubic gather": ("float32", "uint8", {"transform": TURN}),
    "tables, half": ("float32", "float16", {"size": (13, 17, 9)}),
    "cubic gather, half": ("int16", "float16", {"transform": TURN}),
}
DEFAULT = 9


def expected(image, asked, clip, scale, offset):
    """In float64, and which voxels lie outside."""
    free = gr.resample(image.astype(np.float64), default_value=np.nan, **asked)
    low, high = clip if isinstance(clip, tuple) else (image.min(), image.max()) if clip else (-np.inf, np.inf)
    return np.where(np.isnan(free), DEFAULT, np.clip(free, low, high) * scale + offset), np.isnan(free)


@pytest.mark.parametrize("case", CASES)
def test_sums_are_clipped_scaled_and_cast(case):
    source, target, asked = CASES[case]
    image = noise((9, 10, 11), source)
    spread = float(image.max()) - float(image.min())
    for clip in (False, True, (float(image.min()) + spread / 4, float(image.max()) - spread / 3)):
        scale, offset = (200 / spread, 30.0) if target == "uint8" else (2 / spread, -0.25)
        got = gr.resample(
            image, clip=clip, scale=scale, offset=offset, default_value=DEFAULT, dtype=target, device="cpu", **asked
        )
        exact, outside = expected(image, asked, clip, scale, offset)
        assert got.dtype == target
        assert (got[outside] == DEFAULT).all()
        if target == "uint8":
            exact = np.clip(exact, 0, 255)
            assert np.abs(got - exact).max() <= 0.5 + 1e-3
        else:
            # Half of the last of 11 bits of numbers up to 4, what a value loses in 16 bits.
            half = np.abs(exact) * 2.0**-11 + 2.0**-25 if target == "float16" else 0.0
            assert (np.abs(got - exact) <= 4e-6 + half).all()
        if outside.any():
            assert "gather" in case or "half" in case


def test_every_16_bit_float_is_what_numpy_makes():
    """All of them, what lies halfway between two, its neighbours, and bits at random; rows with and without gaps."""
    rng = np.random.default_rng(0)
    bits = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    finite = np.sort(bits[np.isfinite(bits)])
    halfway = (finite[:-1] + finite[1:]) / 2
    image = np.concatenate([
        bits, halfway, np.nextafter(halfway, np.float32(np.inf)), np.nextafter(halfway, np.float32(-np.inf)),
        rng.integers(0, 1 << 32, 1 << 15, np.uint32).view(np.float32), [np.float32(65519.99), np.float32(65520)],
    ]).astype(np.float32)  # fmt: skip
    image = np.resize(image, (4, 8, 9600))
    with np.errstate(all="ignore"):
        theirs = image.astype(np.float16)
    for step in (1, 2):
        out = np.zeros((4, 8, 9600 * step), np.float16)[..., ::step]
        gr.resample(image, size=image.shape, interpolation="linear", dtype=np.float16, out=out, device="cpu")
        np.testing.assert_array_equal(np.isnan(out), np.isnan(theirs))
        number = ~np.isnan(out)
        np.testing.assert_array_equal(out.view(np.uint16)[number], theirs.view(np.uint16)[number])


def test_nothing_asked_for_changes_no_bit():
    from gpuresample.engines.interface import Store

    low, high, scale, offset = window_of(np.dtype(np.float32), Store())
    for value in (0.0, -0.0, 1e-45, 3.4e38, np.inf, -np.inf):
        made = min(max(np.float32(value), low), high) * scale + offset
        assert made == np.float32(value)
        assert np.signbit(made) == np.signbit(value)


def test_images_of_a_list_have_windows_of_their_own():
    image, seg = noise((9, 10, 11), "int16"), labels((9, 10, 11))
    keywords = {"transform": TURN, "interpolation": ["linear", "nearest"], "device": "cpu"}
    got = gr.resample([image, seg], clip=[(-500, 500), False], scale=[0.001, 1], dtype=["float32", "uint8"], **keywords)
    keywords["interpolation"] = "linear"
    one = gr.resample(image, clip=(-500, 500), scale=0.001, dtype="float32", **keywords)
    np.testing.assert_array_equal(got[0], one)
    keywords["interpolation"] = "nearest"
    np.testing.assert_array_equal(got[1], gr.resample(seg, **keywords))
    # One range for all is not one for each.
    both = gr.resample([image, image], transform=TURN, interpolation="linear", clip=(-500, 500), device="cpu")
    assert both[0].max() == both[1].max() == 500


def test_a_block_has_the_bits_of_the_whole_and_voxels_without_data_stay():
    image = noise((9, 10, 11))
    image[2:4, 3:6] = -7
    keywords = {"size": (13, 17, 9), "interpolation": "linear", "clip": (-300, 900), "scale": 0.01, "offset": 2}
    for more in ({}, {"ignore": -7}):
        made = gr.plan(image, **keywords, **more, device="cpu")
        whole = made.run(image)
        block = (slice(3, 11), slice(2, 9), slice(1, 8))
        part = made.crop(block).run(image[made.input_region(block)])
        np.testing.assert_array_equal(part, whole[block])
    assert (whole == -7).any()
    data = whole[whole != -7]
    assert data.min() >= -3 * 1.001 + 2
    assert data.max() <= 11.001


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"scale": "2"}, TypeError, "scale must be a number, got '2'"),
        ({"scale": True}, TypeError, "scale must be a number"),
        ({"offset": float("nan")}, ValueError, "offset must be finite"),
        ({"scale": 2, "interpolation": "nearest"}, ValueError, "scale must be 1 for interpolations that copy"),
        ({"offset": 1, "interpolation": "label_linear"}, ValueError, "offset must be 0 for interpolations that copy"),
        ({"clip": (0.5, 2), "dtype": "int16"}, ValueError, "clip must be a whole number"),
        ({"default_value": 300, "scale": 2, "dtype": "uint8"}, ValueError, "default_value must be a whole number"),
    ],
)
def test_bad_windows_are_told(asked, error, words):
    with pytest.raises(error, match=words):
        gr.resample(noise((4, 4, 4)), size=(3, 3, 3), **asked)


def test_a_window_in_the_inputs_units_need_not_fit_the_output():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = gr.resample(
            noise((6, 6, 6)), size=(9, 9, 9), clip=(-1000.5, 400), scale=255 / 1400.5, offset=182.17, dtype="uint8"
        )
    assert got.dtype == np.uint8
    assert got.min() == 0
    assert got.max() == 255


def test_numbers_beyond_single_precision():
    values = np.linspace(-3, 3, 5 * 6 * 7, dtype=np.float32).reshape(5, 6, 7)
    turn = gr.Affine([[0.9, -0.1, 0], [0.1, 0.9, 0], [0, 0, 1]])
    asked = {"transform": turn, "interpolation": "linear", "device": "cpu"}
    # No bound at all, and no warning of it.
    np.testing.assert_array_equal(gr.resample(values, clip=(-1e300, 1e300), **asked), gr.resample(values, **asked))
    for name in ("scale", "offset"):
        with pytest.raises(ValueError, match=rf"{name} must be from -3.4e\+38 to 3.4e\+38, got 1e\+39"):
            gr.resample(values, **asked, **{name: 1e39})
