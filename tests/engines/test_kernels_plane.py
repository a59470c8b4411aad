"""Two passes in one kernel, run on the CPU: the bits of the two for all tables, types and strides; when it is taken."""

import math

import numpy as np
import pytest
from cuda_support import (
    LAYOUTS,
    SPECIAL,
    VOXELS,
    Guarded,
    identity,
    picks,
    plane,
    random_table,
    run_twice,
    separable,
    settled,
    summed,
    two_passes,
    weighted,
)
from support import assert_close, flat, noise, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import axis as cuda_axis
from gpuresample.engines.cuda import tiles as cuda_tiles
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import ROUNDING_CODES, accumulator
from gpuresample.planning import planner
from gpuresample.planning.taps import TapTable
from gpuresample.planning.works import Separable

pytestmark = pytest.mark.kernels

# The stated bound between engines, of the range.
ENGINES = 1e-6
SINGLE = np.dtype(np.float32)
# Samples in, samples out, taps, step: upsampling, downsampling, flipped, up to 37 taps; tails of every length; rows
# that share nothing; more than a block's worth of tiles; one sample in, one out.
TABLES = [
    (40, 61, 9, 0.6), (70, 30, 12, 2.0), (40, 41, 5, -1.0), (33, 34, 28, None), (90, 7, 3, 13.0), (1, 1, 1, None),
    (1, 9, 1, None), (120, 131, 6, 0.9), (5, 3, 5, None), (64, 64, 8, 1.0), (50, 1, 37, None), (80, 77, 37, -1.0),
    (30, 35, 2, 0.8),
]  # fmt: skip
AXES = [(2, 3), (1, 3), (3, 2), (2, 1), (1, 2), (3, 1)]


def both_ways(tables, axes, src, shape, dtype, *layouts, acc="float32", store=None):
    """The result of the one kernel, which must be that of the two passes, to the bit."""
    fused, runtimes = run_twice(plane(tables, axes, acc, store), src, shape, dtype, *layouts)
    assert runtimes[0].launches == {"resample_axis_plane": 1}
    apart, runtimes = run_twice(two_passes(tables, axes, acc, store), src, shape, dtype, *layouts)
    assert runtimes[0].launches == {"resample_axis": 2}
    whole, _ = run_twice(plane(tables, axes, acc, store, whole=True), src, shape, dtype, *layouts)
    assert same_bits(fused, whole)
    number = ~np.isnan(fused)
    assert same_bits(fused[number], apart[number])
    assert (number == ~np.isnan(apart)).all()
    return fused


def bound(tables, src, share=ENGINES):
    return math.prod(np.abs(t.weight).sum(axis=1).max() for t in tables) * float(np.ptp(src.astype(float))) * share


def shapes(tables, axes, others=(2, 3)):
    """Shapes in and out of the two passes."""
    source = [0, 0, 0, 0]
    source[axes[0]], source[axes[1]] = tables[0].n_src, tables[1].n_src
    for axis, n in zip(sorted(set(range(4)) - set(axes)), others, strict=True):
        source[axis] = n
    target = list(source)
    target[axes[0]], target[axes[1]] = tables[0].n_dst, tables[1].n_dst
    return tuple(source), tuple(target)


# --- the kernel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("second", range(0, len(TABLES), 2))
@pytest.mark.parametrize("first", range(len(TABLES)))
def test_a_plane_is_its_two_passes(first, second):
    rng = np.random.default_rng(first + 100 * second)
    tables = random_table(rng, *TABLES[first]), random_table(rng, *TABLES[(second + first) % len(TABLES)])
    axes = AXES[first % 2]
    source, target = shapes(tables, axes, (1, 2))
    src = noise(source, "int16", seed=first)
    out = both_ways(tables, axes, src, target, "float32")
    assert_close(out, weighted(tables[1], weighted(tables[0], src, axes[0]), axes[1]), bound(tables, src))


@pytest.mark.parametrize("taps", [1, 2, 3, 4, 5, 8, 13, 21, 30, 37])
@pytest.mark.parametrize("steps", [(0.5, 0.5), (2.5, 1.9), (-0.7, 1.4), (1.0, -2.0)], ids=str)
def test_every_number_of_taps(taps, steps):
    rng = np.random.default_rng(taps)
    n_src = [max(taps, 41), max(taps, 75)]
    tables = [random_table(rng, n, int(n / abs(step)) + 1, taps, step) for n, step in zip(n_src, steps, strict=True)]
    source, target = shapes(tables, (2, 3), (1, 2))
    src = noise(source, "float32")
    out = both_ways(tables, (2, 3), src, target, "float32")
    assert_close(out, weighted(tables[1], weighted(tables[0], src, 2), 3), bound(tables, src))


@pytest.mark.parametrize("rows", [1, 3, 4, 31, 32, 33, 65])
@pytest.mark.parametrize("columns", [1, 3, 4, 63, 64, 65, 129])
def test_every_number_of_rows_and_columns(rows, columns):
    rng = np.random.default_rng(rows + columns)
    tables = random_table(rng, 37, rows, 7, 37 / rows), random_table(rng, 91, columns, 9, 91 / columns)
    src = noise((1, 2, 37, 91), "int16")
    out = both_ways(tables, (2, 3), src, (1, 2, rows, columns), "float32")
    assert_close(out, weighted(tables[1], weighted(tables[0], src, 2), 3), bound(tables, src))


# Where a kernel reads says nothing of where it writes: every layout on either side beside a plain one and another.
STRIDES = [
    *[(layout, "c") for layout in LAYOUTS],
    *[("c", layout) for layout in LAYOUTS[1:]],
    *zip(LAYOUTS[1:], [*LAYOUTS[2:], LAYOUTS[1]], strict=True),
]


@pytest.mark.parametrize(("src_layout", "dst_layout"), STRIDES)
def test_any_strides(src_layout, dst_layout):
    rng = np.random.default_rng(5)
    tables = random_table(rng, 15, 37, 6, 0.4), random_table(rng, 24, 19, 7, 1.2)
    for axes in AXES:
        source, target = shapes(tables, axes)
        src = noise(source, "int16")
        out = both_ways(tables, axes, src, target, "float32", src_layout, dst_layout)
        assert_close(out, weighted(tables[1], weighted(tables[0], src, axes[0]), axes[1]), bound(tables, src))


@pytest.mark.parametrize("dtype", VOXELS)
def test_every_type_in(dtype):
    acc = "float64" if dtype in ("int32", "uint32", "int64", "uint64", "float64") else "float32"
    rng = np.random.default_rng(4)
    tables = random_table(rng, 36, 35, 6, 1.0), random_table(rng, 41, 67, 9, 0.5)
    shape = (1, 2, 36, 41)
    info = None if dtype.startswith("float") else np.iinfo(dtype)
    src = (
        (100 * rng.standard_normal(shape)).astype(dtype)
        if info is None
        else rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    )
    out = both_ways(tables, (2, 3), src, (1, 2, 35, 67), acc, acc=acc)
    share = ENGINES if acc == "float32" else 1e-13
    assert_close(out, weighted(tables[1], weighted(tables[0], src, 2), 3), bound(tables, src, share))


@pytest.mark.parametrize("rounding", ROUNDING_CODES)
@pytest.mark.parametrize("acc", ["float32", "float64"])
@pytest.mark.parametrize("dtype", VOXELS)
def test_the_store(acc, dtype, rounding):
    """Sums that saturate, that are halves, that are no numbers: through shared memory as they are."""
    values = np.resize(np.array(SPECIAL, acc), 2 * 33 * 48).reshape(1, 2, 33, 48)
    tables = identity(33), identity(48)
    for layout in ("c", "transposed"):
        out = both_ways(
            tables, (2, 3), values, values.shape, dtype, "c", layout, acc=acc, store=Store(rounding=rounding)
        )
        with np.errstate(over="ignore", under="ignore"):
            expected = settled(values.astype("float32") if dtype == "float16" else values, dtype, rounding)
        number = ~np.isnan(values) if dtype.startswith("float") else np.ones(values.shape, bool)
        assert same_bits(out[number], expected[number])
        assert np.isnan(out[~number]).all()


def test_samples_that_a_row_does_not_tap_do_not_matter():
    rng = np.random.default_rng(3)
    tables = random_table(rng, 37, 44, 5, 0.8), random_table(rng, 40, 57, 7, 0.7)
    src = noise((1, 2, 37, 40), "float32")
    src[..., 11, 5:30], src[0, 1, 3, 20] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = weighted(tables[1], weighted(tables[0], src, 2), 3)
    out = both_ways(tables, (2, 3), src, (1, 2, 44, 57), "float32")
    same = np.isfinite(expected)
    assert 0 < same.sum() < same.size
    assert (np.isnan(out) == np.isnan(expected)).all()
    assert_close(out[same], expected[same], 1e-2)


def test_sums_of_integers_have_no_sign_of_zero():
    """Samples that are not tapped weigh 0, whichever version sums: a zero has the same bits in all."""
    rng = np.random.default_rng(11)
    made = random_table(rng, 70, 66, 9, 1.0), random_table(rng, 90, 75, 9, 1.2)
    tables = [TapTable(t.n_src, t.first, t.count, -np.abs(t.weight)) for t in made]
    src = noise((1, 2, 70, 90), "int16")
    src[..., 20:60] = 0
    out = both_ways(tables, (2, 3), src, (1, 2, 66, 75), "float32")
    zero = out == 0
    assert 0 < zero.sum() < zero.size
    assert not np.signbit(out[zero]).any()


@pytest.mark.parametrize("window", [(-5.0, 60.0, 1.0, -0.0), (-math.inf, math.inf, -2.0, -0.0)])
def test_clipped_and_scaled_sums_of_integers_have_none_either(window):
    made = random_table(np.random.default_rng(11), 70, 66, 9, 1.0)
    table = TapTable(made.n_src, made.first, made.count, -np.abs(made.weight))
    engine = CudaEngine(Guarded())
    for columns in (1, 40):  # by the plain kernel, and by tiles
        work = separable([identity(1), table, identity(columns)], order=(1,))
        src, out = np.zeros((1, 70, columns), "int16"), np.full((1, 66, columns), 7, np.float32)
        engine.run(work, src, out, Store(window=window))
        assert (out == 0).all()
        assert not np.signbit(out).any()
    assert engine.runtime.launches == {"resample_axis": 1, "resample_axis_tile": 1}


def test_64_bit_offsets_give_the_same_bits(monkeypatch):
    rng = np.random.default_rng(8)
    tables = random_table(rng, 36, 35, 6, 1.0), random_table(rng, 41, 67, 9, 0.5)
    src = noise((2, 2, 36, 41), "int16")
    narrow = run_twice(plane(tables, (2, 3)), src, (2, 2, 35, 67), "float32")[0]
    monkeypatch.setattr(cuda_axis, "NARROW", 0)
    wide, runtimes = run_twice(plane(tables, (2, 3)), src, (2, 2, 35, 67), "float32")
    assert same_bits(narrow, wide)
    assert {types.idx for _, types in runtimes[0].compilations} == {"int64"}


@pytest.mark.parametrize(
    ("shape", "acc"),
    [
        ((512, 400, 24, 1.28), SINGLE), ((512, 400, 9, 1.28), np.dtype(np.float64)), ((300, 900, 9, 1 / 3), SINGLE),
        ((700, 54, 3, 13.0), SINGLE), ((90, 80, 37, -1.0), SINGLE), ((90, 80, 12, -1.0), np.dtype(np.float64)),
    ],
)  # fmt: skip
def test_blocks_of_whole_rows_make_no_column_twice(shape, acc):
    """Turn by turn: a four's columns are there, and of what is kept nothing was not."""
    table = random_table(np.random.default_rng(6), *shape)
    start, length = (n.reshape(-1, 4) for n in cuda_tiles.windows(table, 4))
    low, high = (n - table.source_range()[0] for n in (start.min(axis=1), (start + length).max(axis=1)))
    for whole in (False, True):
        block = cuda_tiles.columns(table, acc)
        made = cuda_tiles.make_turns(table, acc, block, whole)
        assert made.bytes(acc) <= cuda_tiles.SHARED_LIMIT
        assert made.turns[0] == 0
        assert made.turns[-1] == len(made.turn)
        there, f = (0, 0), 0
        for u, (begin, first, end, f_end) in enumerate(made.turn.tolist()):
            assert begin == first or (u not in made.turns and there[0] <= begin < first == there[1])
            assert first - begin <= cuda_tiles.KEPT
            assert first % 2 == 0
            assert end - begin <= made.columns
            assert (low[f:f_end] >= begin).all()
            assert (high[f:f_end] <= end).all()
            there, f = (begin, end), f_end
        assert f == len(low)
        columns = sum(end - first for _, first, end, _ in made.turn.tolist())
        if whole and 0 < shape[3] < 2 and acc == SINGLE:
            assert made.groups == 1
            assert columns == high.max() - low.min() // 2 * 2


def wide(n_src, n_dst, n_taps):
    """A table of which even one tile has too many columns for shared memory."""
    return TapTable(n_src, np.zeros(n_dst, np.int64), np.full(n_dst, n_taps), np.full((n_dst, n_taps), 1 / n_taps))


def test_a_table_too_wide_for_shared_memory_is_refused():
    tables = random_table(np.random.default_rng(1), 9, 12, 3, 0.7), wide(500, 40, 400)
    src = noise((1, 1, 9, 500), "float32")
    with pytest.raises(ValueError, match="read more columns than shared memory holds: 400"):
        run_twice(plane(tables, (2, 3)), src, (1, 1, 12, 40), "float32")


# --- whole works -----------------------------------------------------------------------------------------------------


def run(work, store=None):
    return lambda engine, src, dst: engine.run(work, src, dst, store or Store())


def engine_both_ways(monkeypatch, work, src, shape, dtype, *layouts, store=None):
    """A work with every pair of passes that fits in one kernel, and with none: the same bits."""
    results = []
    for forced in (True, False):
        monkeypatch.setattr(cuda_tiles, "FUSE", forced)
        out, runtimes = run_twice(run(work, store), src, shape, dtype, *layouts)
        assert runtimes[0].launches["resample_axis_plane"] == (len(work.order) // 2 if forced else 0)
        results.append(out)
    assert same_bits(*results)
    return results[0]


@pytest.mark.parametrize("dst_axis", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (0, 2, 1)])
@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 2), (2, 0), (1, 0, 2)])
def test_orders_transposes_batches_and_what_lies_outside(monkeypatch, dst_axis, order):
    rng = np.random.default_rng(1)
    n_src, n_dst = (10, 12, 41), (13, 9, 34)
    tables = [
        random_table(rng, n, m, 8, n / m) if axis in order else identity(n)
        for axis, (n, m) in enumerate(zip(n_src, n_dst, strict=True))
    ]
    n_dst = [s + t.n_dst for s, t in zip((3, 1, 2), tables, strict=True)]
    work = separable(tables, order, dst_axis, start=(1, 0, 2), n_dst=n_dst)
    src = noise((2, *n_src), "int16")
    shape = [0, 0, 0]
    for axis, n in zip(dst_axis, n_dst, strict=True):
        shape[axis] = n
    out = engine_both_ways(monkeypatch, work, src, (2, *shape), "float32", store=Store(-7))
    assert_close(out, summed(work, src, -7), 1000 * ENGINES * np.ptp(src.astype(float)))
    assert (out == -7).any()


def test_a_work_with_nothing_inside_is_filled(monkeypatch):
    tables = [identity(4), random_table(np.random.default_rng(1), 9, 7, 4, 1.0), picks(6, [])]
    work = separable(tables, (1, 2), n_dst=(4, 7, 5))
    monkeypatch.setattr(cuda_tiles, "FUSE", True)
    out, _ = run_twice(run(work, Store(5)), noise((4, 9, 6), "int16"), (4, 7, 5), "float32")
    assert (out == 5).all()


SOURCE = gr.Grid((61, 50, 9), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), flat(rotation(0, 0, 0)))
GRIDS = {
    "finer": gr.Grid((75, 66, 7), (0.81, 0.9, 2.1), (2.0, -3.0, 1.5), flat(rotation(0, 0, 0))),
    "coarser, turned": gr.Grid((33, 40, 8), (1.7, 1.5, 1.6), (62.0, 0.0, 1.5), flat(rotation(0, 0, 90))),
    "flipped": gr.Grid((60, 50, 9), (1.0, 1.3, 1.2), (64.0, 60.0, 1.0), flat(rotation(0, 0, 180))),
}


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("pair", [("int16", "float32"), ("uint8", "uint8"), ("float32", "float32")])
@pytest.mark.parametrize("interpolation", ["bspline3", "hamming"])
def test_agrees_with_the_cpu_engine(monkeypatch, pair, interpolation, grid):
    source, target = pair
    work = planner.make_work(SOURCE, GRIDS[grid], (), interpolation, None, False, "single")
    src = noise((2, *SOURCE.size[::-1]), source)
    expected = np.empty((2, *GRIDS[grid].size[::-1]), target)
    cpu.run(work, src, expected, Store(3))
    out = engine_both_ways(monkeypatch, work, src, expected.shape, target, store=Store(3))
    assert_close(out, expected, ENGINES * np.ptp(src.astype(float)) + (1 if target != "float32" else 0))
    assert (out != expected).mean() < 0.001 or target == "float32"


def test_agrees_with_the_cpu_engine_in_double(monkeypatch):
    work = planner.make_work(SOURCE, GRIDS["finer"], (), "bspline3", None, False, "double")
    src = noise(SOURCE.size[::-1], "float64")
    expected = np.empty(GRIDS["finer"].size[::-1])
    cpu.run(work, src, expected, Store())
    out = engine_both_ways(monkeypatch, work, src, expected.shape, "float64")
    assert_close(out, expected, 1e-13 * np.ptp(src))


def test_2d_images_take_one_kernel(monkeypatch):
    tables = [identity(1), *[random_table(np.random.default_rng(2), n, m, 9, n / m) for n, m in ((70, 50), (90, 100))]]
    work = separable(tables, (1, 2))
    src = noise((3, 1, 70, 90), "uint8")
    out = engine_both_ways(monkeypatch, work, src, (3, 1, 50, 100), "uint8")
    sums = summed(work, src)
    expected = np.clip(np.rint(sums), 0, 255)
    assert np.abs(out - expected).max() <= 1
    assert (out != expected).mean() < 0.001


def test_crops_have_the_bits_of_the_whole(monkeypatch):
    work = planner.make_work(SOURCE, GRIDS["finer"], (), "bspline3", None, False, "single")
    src = noise(SOURCE.size[::-1], "int16")
    monkeypatch.setattr(cuda_tiles, "FUSE", True)
    whole, _ = run_twice(run(work), src, GRIDS["finer"].size[::-1], "float32")
    block = ((2, 6), (11, 53), (20, 71))
    region = tuple(slice(lo, hi) for lo, hi in planner.input_region(work, block))
    out, _ = run_twice(run(planner.crop(work, block)), np.ascontiguousarray(src[region]), (4, 42, 51), "float32")
    assert same_bits(out, np.ascontiguousarray(whole[2:6, 11:53, 20:71]))


# --- the rule --------------------------------------------------------------------------------------------------------


def reference(interpolation="bspline3"):
    """The reference job's work."""
    source = gr.Grid((512, 512, 247), (0.78125, 0.78125, 1.0), (0.0,) * 3, flat(rotation(0, 0, 0)))
    target = gr.Grid((400, 400, 124), (1.0, 1.0, 2.0), (0.0,) * 3, flat(rotation(0, 0, 0)))
    work = planner.make_work(source, target, (), interpolation, None, False, "single")
    assert isinstance(work, Separable)
    return work


def steps(work, contiguous=True, src="int16"):
    made = cuda_tiles.steps(work.tables, work.order, contiguous, np.dtype(src), accumulator(work.precision))
    done = [axis for axis, _ in made.strides] + [axis for axes in made.passes for axis in axes]
    assert sorted(done) == sorted(work.order)
    return list(made.passes)


def test_the_estimate_counts_what_blocks_read_and_sum():
    """Sample by sample, from what rows tap."""
    rng = np.random.default_rng(1)
    first, second = random_table(rng, 300, 210, 11, 300 / 210), random_table(rng, 260, 333, 9, 260 / 333)
    costs = cuda_tiles.estimate(first, second, np.dtype(np.int16), SINGLE)
    tiles = 4 * cuda_tiles.columns(second, SINGLE).fours

    def read(table, rows):
        spans = []
        for start in range(0, table.n_dst, rows):
            tapped = [
                int(table.first[i]) + k
                for i in range(start, min(start + rows, table.n_dst))
                for k in range(table.count[i])
            ]
            spans.append(max(tapped) + 1 - min(tapped))
        return np.array(spans)

    rows, columns = (int(read(t, t.n_dst)[0]) for t in (first, second))
    assert costs.first.moved == rows * columns * 2 + 210 * columns * 4
    assert costs.second.moved == 210 * columns * 4 + 210 * 333 * 4
    assert costs.both.moved == read(first, 32).sum() * read(second, tiles * 4).sum() * 2 + 210 * 333 * 4
    # 4 rows for 4 columns of each of 32 lanes, whether or not there are so many.
    down, across = 4 * read(first, 4).sum(), 4 * read(second, 4).sum() * 210
    assert costs.first.sums == down * math.ceil(columns / 128) * 128
    assert costs.second.sums == across
    assert costs.both.sums == down * sum(math.ceil(n / 128) * 128 for n in read(second, tiles * 4)) + across


def test_the_reference_job_moves_little():
    """Every second plane is read, and y and x are taken at once: 144 MB must move, where three passes move 672."""
    work = reference()
    assert steps(work) == [(1, 2)]
    y, x = work.tables[1:]
    costs = cuda_tiles.estimate(y, x, SINGLE, SINGLE)
    rows, columns = (t.source_range()[1] - t.source_range()[0] for t in (y, x))
    saved = costs.first.moved + costs.second.moved - 4 * (rows * columns + y.n_dst * x.n_dst)
    assert round(124 * saved / 1e6) == 672 - 469
    assert round(124 * (2 * rows * columns + 4 * y.n_dst * x.n_dst) / 1e6) == 144


def test_a_kernel_is_as_slow_as_memory_or_arithmetic(monkeypatch):
    monkeypatch.setattr(cuda_tiles, "SUMS_PER_BYTE", 4.0)
    assert cuda_tiles.Load(100, 399).time == 100
    assert cuda_tiles.Load(100, 404).time == 101
    two = cuda_tiles.Load(100, 0), cuda_tiles.Load(10, 80)
    assert cuda_tiles.Estimate(*two, cuda_tiles.Load(60, 80)).gain == 2.0


def test_one_kernel_is_taken_where_it_is_faster_by_the_estimate(monkeypatch):
    work = reference()
    gain = cuda_tiles.estimate(work.tables[1], work.tables[2], np.dtype(np.int16), SINGLE).gain
    monkeypatch.setattr(cuda_tiles, "GAIN", 0.99 * gain)
    assert steps(work) == [(1, 2)]
    monkeypatch.setattr(cuda_tiles, "GAIN", 1.01 * gain)
    assert steps(work) == [(1,), (2,)]
    monkeypatch.setattr(cuda_tiles, "FUSE", True)
    assert steps(reference("gaussian")) == [(0, 1), (2,)]
    monkeypatch.setattr(cuda_tiles, "FUSE", False)
    monkeypatch.setattr(cuda_tiles, "GAIN", 0.0)
    assert steps(reference("gaussian")) == [(0,), (1,), (2,)]


@pytest.mark.parametrize("interpolation", ["gaussian", "hamming", "bspline3", "bspline4"])
def test_the_reference_job_takes_one_kernel(interpolation):
    """As measured: it is faster, wide seams or not. Along z most pick every second plane: no pass."""
    smooths = interpolation == "gaussian"
    assert steps(reference(interpolation)) == ([(0,), (1, 2)] if smooths else [(1, 2)])


def test_a_table_that_picks_is_a_stride(monkeypatch):
    """Of the source, whatever its layout; the bits are those of a pass."""
    rng = np.random.default_rng(7)
    apart, even, last = picks(40, 3 + 4 * np.arange(9)), picks(21, 2 * np.arange(10)), picks(30, [7])
    assert [cuda_tiles.stride(t) for t in (apart, even, last, picks(9, [4, 2, 0]), picks(9, [0, 1, 3]))] == [
        4, 2, 1, None, None]  # fmt: skip
    x = random_table(rng, 120, 100, 9, 1.0)
    for tables in ((apart, even, x), (last, even, x), (apart, random_table(rng, 21, 40, 9, 0.5), x), (apart, x, even)):
        work = separable(list(tables))
        src = noise(tuple(t.n_src for t in tables), "int16")
        assert len(steps(work)) < 3
        assert all(axis == 2 or cuda_tiles.stride(tables[axis]) is None for axes in steps(work) for axis in axes)

        def act(engine, a, b, work=work):
            engine.run(work, a, b, Store())

        shape = tuple(t.n_dst for t in tables)
        for layout in ("c", "flipped", "sliced"):
            got, _ = run_twice(act, src, shape, "float32", layout)
            with monkeypatch.context() as without:
                without.setattr(cuda_tiles, "stride", lambda table: None)
                kept, _ = run_twice(act, src, shape, "float32", layout)
            assert same_bits(got, kept)


def test_where_two_passes_are_kept():
    rng = np.random.default_rng(1)

    def tables(rows=100, taps=9, step=1.0):
        return [identity(8), random_table(rng, 120, rows, taps, step), random_table(rng, 120, 100, taps, step)]

    assert steps(separable(tables(), (1, 2))) == [(1, 2)]
    assert steps(separable(tables(), (2, 1))) == [(2,), (1,)]
    assert steps(separable(tables(), (1, 2)), contiguous=False) == [(1,), (2,)]
    assert steps(separable(tables(), (1, 2), precision="double")) == [(1,), (2,)]
    assert steps(separable(tables(rows=31), (1, 2))) == [(1,), (2,)]
    assert steps(separable(tables(taps=2, step=1.2), (1, 2))) == [(1,), (2,)]
    # The source of a later pass is scratch, whose x is contiguous.
    three = [random_table(rng, 9, 8, 3, 1.0), *tables()[1:]]
    assert steps(separable(three), contiguous=False) == [(0,), (1, 2)]


def test_a_table_too_wide_for_shared_memory_takes_passes(monkeypatch):
    work = separable([identity(2), random_table(np.random.default_rng(1), 9, 40, 3, 0.2), wide(500, 40, 400)], (1, 2))
    src = noise((2, 9, 500), "float32")
    for forced in (None, True):
        monkeypatch.setattr(cuda_tiles, "FUSE", forced)
        out, runtimes = run_twice(run(work), src, (2, 40, 40), "float32")
        assert "resample_axis_plane" not in runtimes[0].launches
        assert_close(out, summed(work, src), 100 * ENGINES * np.ptp(src))


def test_by_the_rule_the_engine_takes_one_kernel():
    tables = [random_table(np.random.default_rng(2), n, m, 9, n / m) for n, m in ((7, 5), (70, 50), (90, 100))]
    work = separable(tables)
    src = noise((7, 70, 90), "int16")
    out, runtimes = run_twice(run(work), src, (5, 50, 100), "float32")
    assert runtimes[0].launches["resample_axis_plane"] == 1
    assert runtimes[0].launches.total() == 2
    assert_close(out, summed(work, src), 1000 * ENGINES * np.ptp(src.astype(float)))
