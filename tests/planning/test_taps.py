"""Tap tables, without voxels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuresample.planning import taps
from gpuresample.planning.filters import FILTERS, gaussian_response
from gpuresample.planning.works import RULES

SUMMING = [n for n, f in FILTERS.items() if f.method != "vote"]
NORMALISED = [n for n in SUMMING if n in ("nearest", "linear", "gaussian") or n.startswith("bspline")]
BOUNDARIES = [None, *taps.BOUNDARIES]
SIZES = [1, 2, 3, 7, 13]
PAD_MODE = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}


def samples(n, seed=0):
    """Where to sample an axis of n voxels: the rims, the voxels, and in between."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([[-0.5, -0.2, 0.0, n - 1.0, n - 0.6], rng.uniform(-0.5, n - 0.5, 17)]))


def build(name, x, n, *, blur=0.0, **options):
    weights = gaussian_response(blur)
    return taps.build(FILTERS[name], np.asarray(x, dtype=float), n, blur=weights, **options)


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("name", SUMMING)
def test_every_tap_is_a_voxel(name, n, boundary):
    # Without a boundary, what lies outside has no weights: nobody asks for it.
    for x in [samples(n)] if boundary is None else [samples(n), np.linspace(-3.0 * n, 4.0 * n, 41)]:
        t = build(name, x, n, boundary=boundary)
        assert t.n_dst == x.size
        assert t.first.min() >= 0
        assert t.count.min() >= 1
        assert (t.first + t.count).max() <= n
        beyond = np.arange(t.n_taps) >= t.count[:, None]
        assert (t.weight[beyond] == 0).all()
        assert np.isfinite(t.weight).all()


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
@pytest.mark.parametrize("name", NORMALISED)
def test_rows_sum_to_one(name, boundary):
    for n in SIZES:
        t = build(name, samples(n), n, boundary=boundary, precision="double")
        np.testing.assert_allclose(t.dense().sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("precision", ["single", "double", "uncut"])
@pytest.mark.parametrize("name", NORMALISED)
def test_trimming_keeps_row_sums(name, precision):
    t = build(name, samples(40), 40, precision=precision)
    np.testing.assert_allclose(t.dense().sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("boundary", BOUNDARIES, ids=str)
@pytest.mark.parametrize("name", SUMMING)
def test_reversed_axis_gives_reversed_table(name, boundary):
    n = 13
    x = np.random.default_rng(3).uniform(-0.45, n - 0.55, 29)
    there = build(name, x, n, boundary=boundary, precision="double").dense()
    back = build(name, n - 1 - x, n, boundary=boundary, precision="double").dense()
    # Two cuts of the taps may differ by the tolerance each.
    np.testing.assert_allclose(there, back[:, ::-1], atol=3 * taps.TOLERANCE["double"])


@pytest.mark.parametrize("name", NORMALISED)
@pytest.mark.parametrize("n", SIZES)
def test_constants_stay(name, n):
    t = build(name, samples(n), n, precision="double")
    np.testing.assert_allclose(t.dense() @ np.full(n, 7.25), 7.25, atol=1e-10)


@pytest.mark.parametrize("name", ["linear", *[f"bspline{p}" for p in range(1, 6)]])
def test_ramps_stay_away_from_the_edges(name):
    n = 101
    x = np.linspace(45, 55, 77)
    t = build(name, x, n, precision="double")
    np.testing.assert_allclose(t.dense() @ np.arange(n), x, atol=1e-8)


@pytest.mark.parametrize("name", ["linear", "bspline3", "lanczos", "gaussian", "nearest"])
def test_dense_is_the_table(name):
    t = build(name, samples(7), 7)
    line = np.random.default_rng(1).standard_normal(7)
    by_hand = [sum(t.weight[i, k] * line[t.first[i] + k] for k in range(t.count[i])) for i in range(t.n_dst)]
    np.testing.assert_allclose(t.dense() @ line, by_hand, atol=1e-12)


@pytest.mark.parametrize("name", SUMMING)
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (3, 4), (10, 22), (0, 22)])
def test_crop_keeps_weights_to_the_bit(name, start, stop):
    n = 40
    whole = build(name, samples(n), n)
    part = whole.crop(start, stop)
    lo, hi = whole.source_range(start, stop)
    assert part.n_src == hi - lo
    assert part.n_dst == stop - start
    assert (part.first + lo).tolist() == whole.first[start:stop].tolist()
    assert part.count.tolist() == whole.count[start:stop].tolist()
    for i in range(part.n_dst):
        used = part.count[i]
        assert part.weight[i, :used].tobytes() == whole.weight[start + i, :used].tobytes()


def test_source_range_is_tight():
    t = build("linear", [3.25, 4.5, 7.0], 10)
    assert t.source_range() == (3, 8)
    assert t.source_range(0, 2) == (3, 6)
    assert t.source_range(2, 3) == (7, 8)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("name", [f"bspline{p}" for p in range(2, 6)])
def test_trimming_stays_within_its_tolerance(name, precision):
    x = samples(60)
    cut = build(name, x, 60, precision=precision)
    whole = build(name, x, 60, precision="uncut")
    assert cut.n_taps < whole.n_taps
    lost = np.abs(cut.dense() - whole.dense()).sum(axis=1).max()
    # What is dropped, once more for what the rest gains, and the prefilter's own cut.
    assert lost <= 3 * taps.TOLERANCE[precision] + 10 * taps.PREFILTER_TOLERANCE[precision]


def test_exact_tables_drop_no_weight():
    x = np.array([3 + 1e-13, 5 - 1e-13])
    assert build("linear", x, 10, precision="uncut").count.tolist() == [2, 2]
    assert build("linear", x, 10, precision="single").count.tolist() == [1, 1]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("boundary", PAD_MODE)
def test_fold_is_numpy_pad(n, boundary):
    reach = 5 * n + 3
    expected = np.pad(np.arange(n), reach, mode=PAD_MODE[boundary])
    assert taps.fold(np.arange(-reach, n + reach), n, boundary).tolist() == expected.tolist()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("boundary", PAD_MODE)
def test_the_gathers_fold_is_the_tables(n, boundary):
    kernels = pytest.importorskip("gpuresample.engines.cpu.gather_kernels")
    positions = np.arange(-4 * n - 3, 5 * n + 3)
    kernel = [kernels.fold.py_func(int(k), n, RULES[boundary]) for k in positions]
    assert kernel == taps.fold(positions, n, boundary).tolist()


@pytest.mark.parametrize("boundary", PAD_MODE)
@pytest.mark.parametrize("name", [n for n in SUMMING if n != "gaussian"])
def test_a_boundary_is_padding(name, boundary):
    """The table of an axis equals the table of the axis laid out further, its columns folded back."""
    n, pad = 5, 60
    x = np.linspace(-4.3, 9.1, 23)
    short = build(name, x, n, boundary=boundary, precision="uncut").dense()
    long = build(name, x + pad, n + 2 * pad, boundary=boundary, precision="uncut").dense()
    folded = np.zeros_like(short)
    for column, sample in enumerate(np.pad(np.arange(n), pad, mode=PAD_MODE[boundary])):
        folded[:, sample] += long[:, column]
    np.testing.assert_allclose(short, folded, atol=1e-11)


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        # n = 4. Linear: the rim repeats the last voxel.
        ("linear", -0.25, [1, 0, 0, 0]),
        ("linear", 0.25, [0.75, 0.25, 0, 0]),
        ("linear", 3.25, [0, 0, 0, 1]),
        # Order 1 of the spline mirrors instead: it goes back towards the neighbour.
        ("bspline1", -0.25, [0.75, 0.25, 0, 0]),
        ("bspline1", 3.25, [0, 0, 0.25, 0.75]),
        ("nearest", 1.5, [0, 0, 1, 0]),
        ("nearest", -0.5, [1, 0, 0, 0]),
    ],
)
def test_rims_golden(name, x, expected):
    assert build(name, [x], 4).dense()[0].tolist() == expected


@pytest.mark.parametrize(
    ("boundary", "expected"), [("nearest", [1, 0, 0]), ("reflect", [0.5, 0.5, 0]), ("mirror", [0, 0.5, 0.5])]
)
def test_boundaries_golden(boundary, expected):
    # Half way between voxels -1 and -2 of an axis of 3.
    assert build("linear", [-1.5], 3, boundary=boundary).dense()[0].tolist() == expected


@pytest.mark.parametrize("name", [n for n in SUMMING if n != "gaussian"])
def test_voxels_themselves_are_copied(name):
    t = build(name, np.arange(13), 13)
    assert t.is_identity
    assert t.is_index


@pytest.mark.parametrize(
    ("x", "n", "identity", "index"),
    [([0, 1, 2], 3, True, True), ([0, 1], 3, False, True), ([2, 1, 0], 3, False, True), ([0, 1.5, 2], 3, False, False)],
)
def test_what_counts_as_identity(x, n, identity, index):
    t = build("linear", x, n)
    assert (t.is_identity, t.is_index) == (identity, index)


def test_tables_are_read_only():
    t = build("bspline3", samples(7), 7)
    assert not any(a.flags.writeable for a in (t.first, t.count, t.weight))


@pytest.mark.parametrize("boundary", [None, "nearest", "mirror"], ids=str)
@pytest.mark.parametrize("name", ["linear", "bspline3", "gaussian", "hamming"])
def test_blur_widens_and_keeps_the_gain(name, boundary):
    x = samples(30)
    sharp, soft = (build(name, x, 30, blur=b, boundary=boundary, precision="double") for b in (0.0, 1.5))
    assert soft.count.min() > sharp.count.min()
    gain = sharp.dense().sum(axis=1) if name == "hamming" else 1.0
    np.testing.assert_allclose(soft.dense().sum(axis=1), gain, atol=1e-9)


@pytest.mark.parametrize(
    ("boundary", "x", "expected"),
    [
        (None, [-0.5, np.nextafter(-0.5, -1), 4.5, np.nextafter(4.5, 0)], [True, False, False, True]),
        ("constant", [0.0, np.nextafter(0, -1), -1e-8, 4.0, np.nextafter(4.0, 5), 4.0 + 1e-8], [True, True, False] * 2),
        ("nearest", [-1e9, 1e9, 0.0, 4.5], [True, True, True, True]),
    ],
)
def test_inside(boundary, x, expected):
    assert taps.inside(np.array(x), 5, boundary).tolist() == expected


def test_nan_is_outside():
    assert taps.inside(np.array([np.nan]), 5, None).tolist() == [False]


@pytest.mark.parametrize("order", [2, 3, 5])
@pytest.mark.parametrize("boundary", ["mirror", "nearest", "reflect"])
def test_prefilter_table_then_spline_weights_is_the_cardinal_table(order, boundary):
    n, pad = 9, 40
    x = np.linspace(0, n - 1, 23)
    prefilter = taps.prefilter_table(order, n, boundary, "double", pad=pad).dense()
    first, weight = FILTERS[f"bspline{order}"].window(x)
    samples_ = np.zeros((x.size, n + 2 * pad))
    for i in range(x.size):
        samples_[i, first[i] + pad : first[i] + pad + order + 1] = weight[i]
    cardinal = build(f"bspline{order}", x, n, boundary=boundary, precision="double").dense()
    np.testing.assert_allclose(samples_ @ prefilter, cardinal, atol=1e-9)


@given(
    name=st.sampled_from(SUMMING),
    n=st.integers(1, 30),
    boundary=st.sampled_from(BOUNDARIES),
    step=st.floats(0.05, 6),
    start=st.floats(-3, 3),
    blur=st.sampled_from([0.0, 0.0, 0.4, 2.0]),
)
def test_tables_of_any_geometry_are_sound(name, n, boundary, step, start, blur):
    x = start + step * np.arange(12)
    x = x[taps.inside(x, n, boundary)]
    t = build(name, x, n, boundary=boundary, blur=blur if name != "nearest" else 0.0)
    assert t.first.min(initial=0) >= 0
    assert (t.first + t.count).max(initial=0) <= n
    assert t.n_dst == x.size
    if name in NORMALISED:
        np.testing.assert_allclose(t.dense().sum(axis=1), 1.0, atol=1e-11)


# --- far positions -------------------------------------------------------------------------------------------------


def distances():
    """Distances from the volume: 1e3 to 1e300 voxels, either side, whole and not."""
    return st.builds(
        lambda e, m, sign: sign * m * 10.0**e, st.integers(3, 300), st.floats(1, 9.9), st.sampled_from([1, -1])
    )


@pytest.mark.parametrize("boundary", [*taps.BOUNDARIES, "padded"])
@given(st.lists(distances(), min_size=1, max_size=5), st.sampled_from([*SIZES, 5000]), st.sampled_from(SUMMING))
def test_far_positions_read_voxels_and_weigh_as_near_ones(boundary, far, n, name):
    x = np.array(far)
    t = build(name, x, n, boundary=boundary)
    assert t.first.min() >= 0
    assert (t.first + t.count).max() <= n
    assert np.abs(t.weight).sum(axis=1).max() < 3
    if boundary == "nearest" and n > 1:
        for k, position in enumerate(x):
            if abs(position) > 2e5:
                assert t.first[k] == (n - 1 if position > 0 else 0)
                assert t.count[k] == 1


@pytest.mark.parametrize("boundary", ["reflect", "mirror"])
@pytest.mark.parametrize("n", [2, 3, 9])
@pytest.mark.parametrize("name", SUMMING)
def test_far_positions_on_a_mirrored_line_are_those_a_period_nearer(name, n, boundary):
    period = 2 * (n - 1) if boundary == "mirror" else 2 * n
    near = np.array([0.0, 0.25, 1.5, n - 0.5])
    expected = build(name, near, n, boundary=boundary).dense()
    for periods in (2**10, 2**21, 2**30, 2**40, -(2**23), -(2**42)):
        found = build(name, near + float(periods * period), n, boundary=boundary).dense()
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_positions_near_the_volume_stay_as_they_are():
    x = np.array([-1e6, -3.25, 0.0, 1 / 3, 12.5, 1e6])
    for boundary in (*PAD_MODE, "padded", "crop"):
        assert (taps.near(x, 13, boundary) == x).all()
