"""The CUDA kernels, run on the CPU: the same text and the same launches as on a GPU, held to the same bounds.

Every buffer lies between guard bands and starts poisoned; everything runs twice, in memory of either pattern.
"""

import os
import platform
import re
import subprocess
import sys
import threading
from functools import lru_cache
from pathlib import Path

import naive
import numpy as np
import pytest
from cuda_support import (
    LAYOUTS,
    SPECIAL,
    VOXELS,
    Guarded,
    assert_seen,
    holds,
    identity,
    patched,
    picks,
    plane,
    random_table,
    run_twice,
    separable,
    settled,
    stored,
    summed,
    view,
    weighted,
)
from support import assert_close, flat, labels, noise, of_grid, path_of, rotation, same_bits

import gpuresample as gr
from gpuresample.engines import packing
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import axis as cuda_axis
from gpuresample.engines.cuda import gather, gradient, structs, tiles
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.cuda.host import HostRuntime, compiler
from gpuresample.engines.cuda.runtime import Launch, Types, assemble, functions
from gpuresample.engines.interface import Store
from gpuresample.engines.packing import ROUNDING_CODES
from gpuresample.planning import planner, scipy_works, works
from gpuresample.planning.filters import FILTERS
from gpuresample.planning.taps import TapTable

pytestmark = pytest.mark.kernels

# The stated bound between engines, of the range.
ENGINES = 1e-6
FILES = ("resample_axis", "resample_volume", "take", "convert", "gather", "gradient", "vote", "majority", "ensemble")
VERSIONS = {"plain": "resample_axis", "tile": "resample_axis_tile", "staged": "resample_axis_lines"}
STRAIGHT = flat(rotation(0, 0, 0))
TURNED = flat(rotation(13, -7, 24))
SOURCE = gr.Grid((19, 14, 11), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), STRAIGHT)
# Its voxels lie on the source's voxels and halfway between them, up to the far corner: nothing but ties.
HALVES = gr.Grid((17, 13, 11), (0.5, 0.625, 0.75), (13.0, 6.75, 8.5), STRAIGHT)
OBLIQUE = gr.Grid((15, 13, 10), (1.2, 1.0, 1.4), (4.0, -3.0, 3.0), TURNED)


def single_or_double(*dtypes):
    return "double" if any(np.dtype(d).itemsize > 2 and d not in ("float32",) for d in dtypes) else "single"


def bound(src, precision="single"):
    wide = precision != "single"
    return float(np.ptp(src.astype(np.float64))) * (1e-13 if wide else ENGINES)


def along(version, table, acc="float32", store=None, axis=-1):
    """One pass along an axis of an array of four, by a version of the kernel."""

    def act(engine, src, dst):
        runtime = engine.runtime
        read = view(runtime, src).narrow(axis, *table.source_range())
        launch = getattr(engine.axes, version)
        finite = src.dtype.kind != "f"
        launch(table, read, view(runtime, dst), axis % 4, np.dtype(acc), stored(src, store), finite=finite)
        assert runtime.launches == {VERSIONS[version]: 1}

    return act


# --- resample_axis -------------------------------------------------------------------------------------------------

# Samples in, samples out, taps, step: upsampling, downsampling, flipped; tails of every length; rows that share
# nothing; more than a block's worth of tiles; one sample.
TABLES = [
    (40, 61, 9, 0.6), (70, 30, 12, 2.0), (40, 41, 5, -1.0), (33, 34, 28, None), (90, 7, 3, 13.0), (1, 1, 1, None),
    (1, 9, 1, None), (300, 261, 6, 1.1), (5, 3, 5, None), (64, 64, 8, 1.0),
]  # fmt: skip


# Lines are staged along the contiguous axis only.
PASSES = [*[(version, axis) for version in ("plain", "tile") for axis in (1, 2, 3)], ("staged", 3)]


@pytest.mark.parametrize(("version", "axis"), PASSES)
@pytest.mark.parametrize("numbers", TABLES, ids=str)
def test_a_pass_is_the_weighted_sum(version, axis, numbers):
    n_src, n_dst, n_taps, step = numbers
    rng = np.random.default_rng(n_src + axis)
    table = random_table(rng, n_src, n_dst, n_taps, step)
    shape = [2, 3, 5, 35]
    shape[axis] = n_src
    src = noise(tuple(shape), "int16", seed=axis)
    shape[axis] = n_dst
    out, _ = run_twice(along(version, table, axis=axis), src, shape, "float32")
    total = np.abs(table.weight).sum(axis=1).max()
    assert_close(out, weighted(table, src, axis), total * bound(src))


@pytest.mark.parametrize("columns", [1, 3, 4, 31, 32, 33, 127, 128, 129, 132])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_number_of_columns(version, columns):
    table = random_table(np.random.default_rng(columns), 21, 18, 7, 1.2)
    shape = (1, 2, columns, 21) if version == "staged" else (1, 2, 21, columns)
    axis = 3 if version == "staged" else 2
    src = noise(shape, "float32", seed=columns)
    target = (1, 2, columns, 18) if version == "staged" else (1, 2, 18, columns)
    out, _ = run_twice(along(version, table, axis=axis), src, target, "float32")
    assert_close(out, weighted(table, src, axis), 20 * bound(src))


@pytest.mark.parametrize("src_layout", LAYOUTS)
@pytest.mark.parametrize("dst_layout", LAYOUTS)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_any_strides(src_layout, dst_layout, axis):
    table = random_table(np.random.default_rng(5), 12, 17, 6, 0.7)
    shape = [2, 6, 8, 12]
    shape[axis] = 12
    src = noise(tuple(shape), "int16")
    shape[axis] = 17
    expected = weighted(table, src, axis)
    for version in ("plain", "tile"):
        out, _ = run_twice(along(version, table, axis=axis), src, shape, "float32", src_layout, dst_layout)
        assert_close(out, expected, 20 * bound(src), version)


@pytest.mark.parametrize("src_layout", ["c", "offset"])
@pytest.mark.parametrize("dst_layout", LAYOUTS)
def test_staged_lines_to_any_strides(src_layout, dst_layout):
    table = random_table(np.random.default_rng(5), 24, 37, 6, 0.6)
    src = noise((2, 5, 9, 24), "int16")
    out, _ = run_twice(along("staged", table), src, (2, 5, 9, 37), "float32", src_layout, dst_layout)
    assert_close(out, weighted(table, src, 3), 20 * bound(src))


@pytest.mark.parametrize("acc", ["float32", "float64"])
def test_all_versions_give_the_same_bits(acc):
    table = random_table(np.random.default_rng(2), 50, 70, 20, 0.7)
    src = noise((1, 4, 33, 50), "float32")
    results = [run_twice(along(v, table, acc), src, (1, 4, 33, 70), "float32")[0] for v in VERSIONS]
    assert same_bits(results[0], results[1])
    assert same_bits(results[0], results[2])


@pytest.mark.parametrize("version", VERSIONS)
def test_samples_that_a_row_does_not_tap_do_not_matter(version):
    rng = np.random.default_rng(3)
    table = random_table(rng, 40, 57, 7, 0.7)
    src = noise((1, 2, 34, 40), "float32")
    src[..., 11], src[0, 1, 3, 20] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        expected = weighted(table, src, 3)
    out, _ = run_twice(along(version, table), src, (1, 2, 34, 57), "float32")
    same = np.isfinite(expected)
    assert same.any()
    assert not same.all()
    assert (np.isnan(out) == np.isnan(expected)).all()
    assert (np.isinf(out) == np.isinf(expected)).all()
    assert_close(out[same], expected[same], 1e-2)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("dtype", VOXELS)
def test_every_type_in(version, dtype):
    wide = single_or_double(dtype) == "double"
    table = random_table(np.random.default_rng(4), 36, 30, 6, 1.0)
    rng = np.random.default_rng(0)
    info = None if dtype.startswith("float") else np.iinfo(dtype)
    shape = (1, 2, 40, 36)
    src = (
        (100 * rng.standard_normal(shape)).astype(dtype)
        if info is None
        else rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    )
    acc = "float64" if wide else "float32"
    out, _ = run_twice(along(version, table, acc), src, (1, 2, 40, 30), acc)
    assert_close(out, weighted(table, src, 3), 20 * bound(src, "double" if wide else "single"))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acc", ["float32", "float64"])
@pytest.mark.parametrize("dtype", VOXELS)
def test_the_store(version, acc, dtype):
    values = np.resize(np.array(SPECIAL, acc), 4 * 33 * 48).reshape(1, 4, 33, 48)
    for rounding in ROUNDING_CODES:
        store = Store(rounding=rounding)
        with np.errstate(over="ignore", under="ignore"):
            expected = settled(values, dtype, rounding)
            if acc == "float64" and dtype == "float16":
                # By way of float32, as arrays of that type are made everywhere in the package.
                expected = values.astype("float32").astype("float16")
        out, _ = run_twice(along(version, identity(48), acc, store), values, values.shape, dtype)
        finite = ~np.isnan(values)
        if np.dtype(dtype).kind == "f":
            assert np.isnan(out[~finite]).all()
            assert same_bits(out[finite], expected[finite])
        else:
            assert same_bits(out, expected)


def test_half_floats_go_in_and_out_unchanged():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(1, 1, 256, 256)
    out, _ = run_twice(along("plain", identity(256)), every, every.shape, "float16")
    number = ~np.isnan(every)
    assert same_bits(out[number], every[number])
    assert np.isnan(out[~number]).all()


# --- separable work --------------------------------------------------------------------------------------------------


def run(work, store=None):
    return lambda engine, src, dst: engine.run(work, src, dst, store or Store())


def target_shape(work, batch=()):
    n = [0, 0, 0]
    for axis, size in zip(work.dst_axis, work.n_dst, strict=True):
        n[axis] = size
    return (*batch, *n)


@pytest.mark.parametrize("dst_axis", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2)])
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1,), (2, 0), ()])
def test_orders_and_transposes(dst_axis, order):
    rng = np.random.default_rng(1)
    n_src, n_dst = (10, 12, 41), (13, 9, 34)
    tables = [
        random_table(rng, n, m, 8, n / m) if axis in order else identity(n)
        for axis, (n, m) in enumerate(zip(n_src, n_dst, strict=True))
    ]
    work = separable(
        tables, order, dst_axis, start=(1, 0, 2), n_dst=[s + t.n_dst for s, t in zip((3, 1, 2), tables, strict=True)]
    )
    src = noise((2, *n_src), "int16")
    out, runtimes = run_twice(run(work, Store(-7)), src, target_shape(work, (2,)), "float32")
    assert_close(out, summed(work, src, -7), 1000 * bound(src))
    passes = sum(runtimes[0].launches[v] for v in VERSIONS.values())
    taps = np.prod([t.n_taps for t in tables])
    assert passes == (len(order) if taps > 8 else 0)
    assert sum(runtimes[0].launches[v] for v in ("resample_volume", "resample_volume_two")) == (0 if taps > 8 else 1)


@pytest.mark.parametrize(
    "layouts", [("c", "c"), ("flipped", "offset"), ("vectors", "turned"), ("transposed", "sliced")]
)
@pytest.mark.parametrize("taps", [(2, 2, 2), (8, 1, 1), (1, 2, 4), (1, 1, 1)])
@pytest.mark.parametrize("dtype", ["int16", "uint8", "float16", "float64"])
def test_few_taps_go_all_at_once(layouts, taps, dtype):
    rng = np.random.default_rng(12)
    tables = [random_table(rng, n, m, k) for n, m, k in zip((9, 7, 33), (8, 11, 37), taps, strict=True)]
    work = separable(tables, dst_axis=(1, 0, 2), precision="double" if dtype == "float64" else "single")
    src = noise((2, 9, 7, 33), "float64" if dtype == "float64" else "int16")
    if dtype != "float64":
        src = (src % 100).astype(dtype)
    out_type = "float64" if dtype == "float64" else "float32"
    out, runtimes = run_twice(run(work), src, (2, 11, 8, 37), out_type, *layouts)
    assert runtimes[0].launches == {"resample_volume_two" if max(taps) <= 2 else "resample_volume": 1}
    assert_close(out, summed(work, src), 100 * bound(src, work.precision))


@pytest.mark.parametrize("taps", [(2, 2, 2), (2, 3, 1)])
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 31, 3), (3, 5, 64), (1, 130, 2), (2, 4, 65), (5, 33, 16)])
def test_all_at_once_for_shapes_that_fill_no_block(shape, taps):
    rng = np.random.default_rng(15)
    tables = [random_table(rng, n + 3, n, k) for n, k in zip(shape, taps, strict=True)]
    work = separable(tables)
    src = noise((2, *(n + 3 for n in shape)), "int16")
    out, _ = run_twice(run(work), src, (2, *shape), "float32", "c", "sliced")
    assert_close(out, summed(work, src), 100 * bound(src))


@pytest.mark.parametrize("taps", [(2, 2, 2), (2, 1, 4)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_all_at_once_an_untapped_sample_does_not_matter(taps, value):
    check_untapped_at_once(value, *taps)(cuda_runtime.read)


@pytest.mark.parametrize("layouts", [("c", "c"), ("flipped", "offset"), ("vectors", "vectors"), ("turned", "sliced")])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1, 1)])
def test_batches(layouts, batch):
    tables = [random_table(np.random.default_rng(6), n, m, 5, n / m) for n, m in ((7, 5), (6, 8), (34, 37))]
    work = separable(tables)
    src = noise((*batch, 7, 6, 34), "int16")
    out, _ = run_twice(run(work), src, (*batch, 5, 8, 37), "float32", *layouts)
    assert_close(out, summed(work, src), 1000 * bound(src))


def test_batches_that_do_not_make_one_axis():
    tables = [random_table(np.random.default_rng(6), n, n, 3, 1.0) for n in (5, 4, 33)]
    work = separable(tables)
    src = noise((2, 3, 5, 4, 33), "int16")
    runtime = Guarded()
    dst = np.zeros((3, 2, 5, 4, 33), np.float32).swapaxes(0, 1)
    CudaEngine(runtime).run(work, src, dst, Store())
    assert_close(dst, summed(work, src), 1000 * bound(src))


@pytest.mark.parametrize("inside", [(0, 0), (2, 2), (0, 3), (3, 9), (9, 9)])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("copies", [False, True])
def test_what_lies_outside(inside, axis, copies):
    lo, hi = inside
    rng = np.random.default_rng(7)
    tables = [identity(4), identity(5), identity(6)]
    rows = picks(9, np.arange(9)) if copies else random_table(rng, 9, 9, 3)
    tables[axis] = rows.crop(lo, hi) if hi > lo else picks(9, [])
    start, n_dst = [0, 0, 0], [t.n_dst for t in tables]
    start[axis], n_dst[axis] = lo, 9
    work = separable(tables, (axis,), start=start, n_dst=n_dst)
    src = noise([t.n_src for t in tables], "int16" if not copies else "float32")
    out, _ = run_twice(run(work, Store(-3)), src, tuple(n_dst), "float32")
    assert_close(out, summed(work, src, -3) if hi > lo else np.full(n_dst, -3.0), 100 * bound(src))


@pytest.mark.parametrize("dtype", VOXELS)
def test_default_values_of_every_type(dtype):
    default = 200 if dtype == "uint8" else 2**63 + 1025 if dtype == "uint64" else -5 if dtype[0] != "u" else 40000
    work = separable([picks(3, []), identity(2), identity(2)], (0,), start=(0, 0, 0), n_dst=(3, 2, 2))
    out, _ = run_twice(run(work, Store(default)), noise((3, 2, 2), dtype), (3, 2, 2), dtype)
    assert (out == np.array(default, dtype)).all()


@pytest.mark.parametrize("pair", [("int16", "float32"), ("int16", "int16"), ("uint8", "uint8"), ("float32", "float32")])
@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "gaussian", "hamming"])
def test_agrees_with_the_cpu_engine(pair, interpolation):
    source, target = pair
    grid = gr.Grid((23, 9, 17), (0.81, 2.1, 1.03), (2.0, -3.0, 1.5), flat(rotation(0, 0, 90)))
    work = planner.make_work(SOURCE, grid, (), interpolation, None, False, "single")
    src = noise((2, *SOURCE.size[::-1]), source)
    expected = np.empty((2, *grid.size[::-1]), target)
    cpu.run(work, src, expected, Store(3))
    out, _ = run_twice(run(work, Store(3)), src, expected.shape, target)
    assert_close(out, expected, bound(src) + (1 if target != "float32" else 0))
    assert (out != expected).mean() < 0.001 or target == "float32"


def test_agrees_with_the_cpu_engine_in_double():
    grid = gr.Grid((23, 9, 17), (0.81, 2.1, 1.03), (2.0, -3.0, 1.5), STRAIGHT)
    work = planner.make_work(SOURCE, grid, (), "bspline3", None, False, "double")
    src = noise(SOURCE.size[::-1], "float64")
    expected = np.empty(grid.size[::-1])
    cpu.run(work, src, expected, Store())
    out, _ = run_twice(run(work), src, expected.shape, "float64")
    assert_close(out, expected, bound(src, "double"))


def test_64_bit_offsets_give_the_same_bits(monkeypatch):
    tables = [random_table(np.random.default_rng(8), n, m, 6, n / m) for n, m in ((9, 7), (10, 12), (35, 40))]
    work, turned = separable(tables), gather_work("bspline3")
    src, other = noise((9, 10, 35), "int16"), noise(SOURCE.size[::-1], "int16")
    narrow = run_twice(run(work), src, (7, 12, 40), "float32")[0]
    narrow_turned = run_twice(run(turned), other, OBLIQUE.size[::-1], "float32")[0]
    monkeypatch.setattr(cuda_axis, "NARROW", 0)
    wide, runtimes = run_twice(run(work), src, (7, 12, 40), "float32")
    wide_turned = run_twice(run(turned), other, OBLIQUE.size[::-1], "float32")[0]
    assert same_bits(narrow, wide)
    assert same_bits(narrow_turned, wide_turned)
    assert {types.idx for _, types in runtimes[0].compilations} == {"int64"}


# --- take ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint64"])
@pytest.mark.parametrize("dst_axis", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("n", [(5, 7, 12), (5, 7, 13), (1, 1, 1), (8, 8, 8)])
def test_copies_are_exact(dtype, dst_axis, n):
    rng = np.random.default_rng(9)
    tables = [picks(6, rng.integers(0, 6, m)) for m in n]
    work = separable(tables, dst_axis=dst_axis, start=(1, 0, 2), n_dst=[m + 4 for m in n])
    src = rng.integers(0, 256, (2, 6, 6, 6 * np.dtype(dtype).itemsize), np.uint8).view(dtype)
    expected = np.full((2, *work.n_dst), 77, dtype)
    z, y, x = (t.first for t in tables)
    expected[:, 1 : 1 + n[0], : n[1], 2 : 2 + n[2]] = src[:, z][:, :, y][:, :, :, x]
    expected = expected.transpose(0, *[1 + a for a in np.argsort(dst_axis)])
    for layout in ("c", "flipped", "sliced"):
        out, runtimes = run_twice(run(work, Store(77)), src, expected.shape, dtype, "c", layout)
        assert out.tobytes() == np.ascontiguousarray(expected).tobytes()
        fours = expected.shape[-1] % 4 == 0 and layout == "c"
        assert runtimes[0].launches == {"take_four" if fours else "take": 1}


def test_labels_beyond_2_to_the_53_survive():
    src = (np.arange(60, dtype=np.uint64) + 2**63 + 1).reshape(3, 4, 5)
    work = separable([picks(3, [2, 0]), identity(4), picks(5, [4, 4, 1])])
    out, _ = run_twice(run(work), src, (2, 4, 3), "uint64")
    assert (out == src[[2, 0]][:, :, [4, 4, 1]]).all()


# --- convert ---------------------------------------------------------------------------------------------------------

EXTREME = {
    "f": [0.0, -0.0, 0.5, 1.5, 2.5, -0.5, -1.5, 127.5, 128.5, 255.5, -128.5, 32767.5, 65504.0, 65520.0, 1e6, -1e6,
          np.inf, -np.inf, np.nan, 1 / 3, 6e-8, 2049.0, 2051.0],
    "wide": [2147483647.5, -2147483648.5, 4294967295.5, 9.3e18, -9.3e18, 1.9e19, 1e300, 2049.0000001, 1 + 2.0**-11,
             1 + 2.0**-11 + 2.0**-40, 65519.999999, 3e-8, 2.98023223876953125e-8 + 1e-20],
}  # fmt: skip


def extreme(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = np.array(EXTREME["f"] + (EXTREME["wide"] if dtype == np.float64 else [])).astype(dtype)
        return np.resize(values, (1, 2, 5, 13))
    info = np.iinfo(dtype)
    near = [info.min, info.min + 1, info.max - 1, info.max, 0, 1, 127, 128, 255, 256, 32767, 32768, 2**53 + 1, -1, -129]
    return np.resize(np.array([v for v in near if info.min <= v <= info.max], dtype), (1, 2, 5, 13))


def converting(rounding, factor):
    return lambda engine, src, dst: engine._convert(src, dst, rounding, factor)


@pytest.mark.parametrize("source", VOXELS)
@pytest.mark.parametrize("target", VOXELS)
def test_conversions_are_the_cpu_engines(source, target):
    src = extreme(source)
    for rounding in (1, 2):
        expected = np.empty(src.shape, target)
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            cpu.convert(src, expected, rounding, 1.0)
        out, runtimes = run_twice(converting(rounding, 1.0), src, src.shape, target, "flipped", "sliced")
        number = ~np.isnan(expected)
        assert same_bits(out[number], expected[number])
        assert np.isnan(out[~number]).all()
        assert runtimes[0].launches == {"convert_voxels": 1}


@pytest.mark.parametrize("target", ["uint8", "int16", "int64", "float32", "float64", "float16"])
def test_scaled_conversions_round_half_up(target):
    src = np.arange(-40, 90, dtype=np.float64).reshape(1, 2, 5, 13)
    rounding = 3 if target[0] in "ui" else 0
    expected = np.empty(src.shape, target)
    cpu.convert(src, expected, rounding, 1 / 12)
    out, _ = run_twice(converting(rounding, 1 / 12), src, src.shape, target)
    assert same_bits(out, expected)
    if target == "int16":
        assert same_bits(out, np.floor(src / 12 + 0.5).astype("int16"))


# --- gather ----------------------------------------------------------------------------------------------------------


def gather_work(interpolation, boundary=None, target=OBLIQUE, precision="single", transform=(), antialias=False):
    return planner.make_work(SOURCE, target, transform, interpolation, boundary, antialias, precision)


def deforming():
    """A displacement field on the target's grid."""
    import SimpleITK as sitk

    field = noise((*OBLIQUE.size[::-1], 3), "float64", seed=3) / 1500
    image = sitk.GetImageFromArray(field, isVector=True)
    image.SetSpacing(OBLIQUE.spacing)
    image.SetOrigin(OBLIQUE.origin)
    image.SetDirection(OBLIQUE.direction)
    return (path_of(sitk.DisplacementFieldTransform(image)),)


SUMS = [name for name, f in FILTERS.items() if f.method == "sum"]


def kernel_of(name):
    return {"linear": "gather_linear", "bspline1": "gather_linear", "bspline3": "gather_cubic"}.get(name, "gather_any")


@pytest.mark.parametrize("interpolation", SUMS)
@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant"])
def test_gathers_agree_with_the_cpu_engine(interpolation, boundary):
    work = gather_work(interpolation, boundary)
    src = noise(SOURCE.size[::-1], "int16")
    expected = np.empty(OBLIQUE.size[::-1], np.float32)
    cpu.run(work, src, expected, Store(-9))
    out, runtimes = run_twice(run(work, Store(-9)), src, expected.shape, "float32")
    assert_close(out, expected, bound(src))
    assert runtimes[0].launches[kernel_of(interpolation)] == 1
    if boundary in (None, "constant"):
        assert (out == -9).any()


@pytest.mark.parametrize("interpolation", ["linear", "bspline2", "bspline3"])
@pytest.mark.parametrize("boundary", ["wrap", "grid-wrap", "grid-constant"])
def test_lines_that_begin_again_or_go_on_as_nothing(interpolation, boundary):
    test_gathers_agree_with_the_cpu_engine(interpolation, boundary)


@pytest.mark.parametrize("interpolation", ["linear", "bspline2", "bspline3", "gaussian"])
def test_gathers_are_the_oracles(interpolation):
    work = gather_work(interpolation, precision="double")
    src = noise(SOURCE.size[::-1], "float64")
    where = naive.coordinates(of_grid(SOURCE), of_grid(OBLIQUE))
    expected = naive.interpolate(src, where, interpolation, default=4.0)
    out, _ = run_twice(run(work, Store(4.0)), src, expected.shape, "float64")
    assert_close(out, expected, np.ptp(src) * 1e-9)


@pytest.mark.parametrize(
    "interpolation", ["nearest", "linear", "bspline3", "bspline2", "label_linear", "label_gaussian"]
)
def test_deformed_grids(interpolation):
    work = gather_work(interpolation, transform=deforming())
    assert not work.routes[0].lines
    chosen = FILTERS[interpolation].method != "sum"
    src = labels(SOURCE.size[::-1], "int16") if chosen else noise(SOURCE.size[::-1], "int16")
    expected = np.empty(OBLIQUE.size[::-1], "int16" if chosen else "float32")
    cpu.run(work, src, expected, Store(1))
    out, _ = run_twice(run(work, Store(1)), src, expected.shape, expected.dtype)
    assert_close(out, expected, 0 if chosen else bound(src))


@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant", "wrap", "grid-wrap"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", "uint64"])
def test_nearest_is_exact(boundary, dtype):
    work = gather_work("nearest", boundary)
    src = noise(SOURCE.size[::-1], dtype)
    expected = np.empty(OBLIQUE.size[::-1], dtype)
    cpu.run(work, src, expected, Store(9))
    out, runtimes = run_twice(run(work, Store(9)), src, expected.shape, dtype)
    assert same_bits(out, expected)
    assert runtimes[0].launches == {"gather_copy": 1}


@pytest.mark.parametrize(("order", "mode"), [(0, "nearest"), (1, "grid-wrap"), (1, "constant"), (3, "wrap")])
def test_positions_that_are_given_are_looked_up(order, mode):
    size, shape = SOURCE.size[::-1], (3, 4, 35)
    at = np.random.default_rng(4).random((*shape, 3)) * 60 - 20
    # How often a line has begun again float64 knows up to some distance only.
    far = 1e7 if "wrap" in mode else 1e300
    at.reshape(-1, 3)[:8, 1] = [np.nan, np.inf, -np.inf, far, -far, 1e7 + 0.25, -0.5, 0.0]
    work = scipy_works.leading(scipy_works.gather(size, order, mode, True, "single"), scipy_works.given(at), shape)
    src = noise(size, "int16")
    expected = np.empty(shape, np.float32 if order else np.int16)
    cpu.run(work, src, expected, Store(-9))
    out, _ = run_twice(run(work, Store(-9)), src, shape, expected.dtype)
    assert_close(out, expected, bound(src) if order else 0)
    assert expected.reshape(-1)[0] == -9


@pytest.mark.parametrize("method", ["label_linear", "label_gaussian"])
@pytest.mark.parametrize("dtype", VOXELS)
@pytest.mark.parametrize("target", [OBLIQUE, HALVES], ids=["oblique", "halves"])
def test_votes_are_exact(method, dtype, target):
    work = gather_work(method, target=target)
    src = labels(SOURCE.size[::-1], dtype)
    if dtype == "uint64":
        src += np.uint64(2**63 + 1)
    if dtype[0] in "if":
        src -= np.array(2, dtype)
    out, runtimes = run_twice(run(work, Store(1)), src, target.size[::-1], dtype)
    # The CPU engine votes on the same labels as int16; the order of labels is the same, and that decides ties.
    base = np.array(2**63 + 1 if dtype == "uint64" else 0, dtype)
    expected = np.empty(target.size[::-1], "int16")
    cpu.run(work, (src - base).astype("int16"), expected, Store(100))
    inside = expected != 100
    assert ((out - base).astype("int16")[inside] == expected[inside]).all()
    assert (out[~inside] == 1).all()
    assert runtimes[0].launches == {"vote_linear" if method == "label_linear" else "vote_gaussian": 1}


@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline4", "gaussian", "nearest", "label_linear"])
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 6, 5), (4, 1, 7), (2, 2, 2)])
def test_small_sources(interpolation, size):
    grid = gr.Grid(size, (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), STRAIGHT)
    target = gr.Grid((7, 5, 6), (0.7, 0.6, 0.5), (-0.4, -0.3, 0.2), TURNED)
    for boundary in (None, "mirror"):
        work = planner.make_work(grid, target, (), interpolation, boundary, False, "single")
        src = noise(size[::-1], "int16")
        expected = np.empty(target.size[::-1], np.int16)
        cpu.run(work, src, expected, Store(2))
        out, _ = run_twice(run(work, Store(2)), src, expected.shape, "int16")
        assert np.abs(out.astype(int) - expected).max() <= (0 if FILTERS[interpolation].method != "sum" else 1)


@pytest.mark.parametrize("layouts", [("transposed", "turned"), ("flipped", "vectors"), ("sliced", "offset")])
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline3", "hamming", "label_gaussian"])
def test_gathers_through_any_strides(layouts, interpolation):
    work = gather_work(interpolation)
    src = labels((2, *SOURCE.size[::-1]), "int16")
    shape = (2, *OBLIQUE.size[::-1])
    plain, _ = run_twice(run(work), src, shape, "int16")
    strided, _ = run_twice(run(work), src, shape, "int16", *layouts)
    assert same_bits(plain, strided)


@pytest.mark.parametrize(
    "interpolation", ["nearest", "linear", "bspline3", "hamming", "label_linear", "label_gaussian"]
)
def test_cropped_gathers_give_the_same_bits(interpolation):
    work = gather_work(interpolation)
    src = labels(SOURCE.size[::-1], "int16")
    whole, _ = run_twice(run(work), src, OBLIQUE.size[::-1], "int16")
    block = ((3, 8), (2, 9), (5, 14))
    part = planner.crop(work, block)
    region = tuple(slice(lo, hi) for lo, hi in planner.input_region(work, block))
    out, _ = run_twice(run(part), np.ascontiguousarray(src[region]), (5, 7, 9), "int16")
    assert same_bits(out, np.ascontiguousarray(whole[3:8, 2:9, 5:14]))


def test_a_neighbour_that_is_not_read_does_not_matter():
    """A voxel that lies on a source voxel is that voxel, whatever its neighbours are."""
    target = gr.Grid(SOURCE.size, SOURCE.spacing, SOURCE.origin, STRAIGHT)
    work = planner.make_work(SOURCE, target, deform_nothing(), "linear", None, False, "single")
    src = noise(SOURCE.size[::-1], "float32")
    src[5, 6, 7] = np.nan
    out, runtimes = run_twice(run(work), src, src.shape, "float32")
    assert runtimes[0].launches == {"gather_linear_lattice": 1}
    assert np.isnan(out).sum() == 1
    assert same_bits(out, src)


def deform_nothing():
    import SimpleITK as sitk

    return (path_of(sitk.DisplacementFieldTransform(sitk.Image((4, 4, 4), sitk.sitkVectorFloat64))),)


# --- launching -------------------------------------------------------------------------------------------------------


def test_20_shapes_compile_once():
    runtime = HostRuntime()
    engine = CudaEngine(runtime)
    rng = np.random.default_rng(10)
    for k in range(20):
        n_src, n_dst = (5 + k, 7 + k % 3, 33 + 2 * k), (4 + k % 5, 6 + k, 37 + k)
        tables = [random_table(rng, n, m, 3 + k % 7, n / m) for n, m in zip(n_src, n_dst, strict=True)]
        dst = np.empty((1 + k % 2, *n_dst), np.float32)
        engine.run(
            separable(tables), noise((1 + k % 2, *n_src), "int16"), dst, Store(k, ("nearest", "truncate")[k % 2])
        )
        assert np.isfinite(dst).all()
    assert runtime.launches.total() == 60
    assert set(runtime.launches) == set(VERSIONS.values())
    assert set(runtime.compilations.values()) == {1}
    assert runtime.compilations == {
        ("resample_axis", Types("int16", "float32")): 1, ("resample_axis", Types("float32", "float32")): 1,
    }  # fmt: skip


def test_tables_are_uploaded_once():
    runtime = Guarded()
    engine = CudaEngine(runtime)
    tables = [random_table(np.random.default_rng(1), n, n, 4, 1.0) for n in (6, 7, 34)]
    work, turned = separable(tables), gather_work("bspline3")
    dst, other = np.empty((6, 7, 34), np.float32), np.empty(OBLIQUE.size[::-1], np.float32)
    uploads = []
    for _ in range(3):
        before, seen = len(runtime.raw), runtime.upload
        calls = []
        runtime.upload = lambda array, seen=seen, calls=calls: calls.append(array.nbytes) or seen(array)
        engine.run(work, noise((6, 7, 34), "int16"), dst, Store())
        engine.run(turned, noise(SOURCE.size[::-1], "int16"), other, Store())
        runtime.upload = seen
        uploads.append(len(calls))
        assert len(runtime.raw) > before
    assert uploads[0] > 0
    assert uploads[1:] == [0, 0]


def test_threads_may_share_an_engine():
    engine = CudaEngine(HostRuntime())
    work = gather_work("bspline3")
    src = noise(SOURCE.size[::-1], "int16")
    outs = [np.empty(OBLIQUE.size[::-1], np.float32) for _ in range(4)]
    threads = [threading.Thread(target=engine.run, args=(work, src, out, Store())) for out in outs]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert all(same_bits(out, outs[0]) for out in outs)


def test_memory_that_is_not_whole_elements_is_copied_or_refused():
    raw = np.zeros(4 * 5 * 6 * 2 + 1, np.uint8)
    odd = raw[1:].view("int16").reshape(4, 5, 6)
    work = separable([identity(4), identity(5), identity(6)], ())
    dst = np.ones((4, 5, 6), np.int16)
    engine = CudaEngine(HostRuntime())
    engine.run(work, odd, dst, Store())
    assert (dst == 0).all()
    engine.run(work, np.full((4, 5, 6), 3, ">i2"), dst, Store())
    assert (dst == 3).all()
    with pytest.raises(ValueError, match="aligned"):
        engine.run(work, dst, odd, Store())


def test_empty_batches_launch_nothing():
    runtime = HostRuntime()
    work = separable([identity(4), identity(5), identity(6)], ())
    CudaEngine(runtime).run(work, np.empty((0, 4, 5, 6), np.int16), np.empty((0, 4, 5, 6), np.float32), Store())
    assert not runtime.launches


# --- the host itself -------------------------------------------------------------------------------------------------


BARRIERS = """
#include "common.cuh"
// Neighbours swap through shared memory, `rounds` times.
extern "C" __global__ void swap(int *data, const int rounds, const int late)
{
    DYNAMIC_SHARED(int, staged);
    const int t = threadIdx.x + blockDim.x * threadIdx.y, n = blockDim.x * blockDim.y;
    for (int k = 0; k < rounds; k++) {
        staged[t + late] = data[t];
        __syncthreads();
        data[t] = staged[(t + 1) % n];
        __syncthreads();
    }
}
extern "C" __global__ void leave(int *data, const int mine)
{
    if ((int)threadIdx.x == mine) return;
    __syncthreads();
    data[threadIdx.x] = -1;
}
"""


def read_with_barriers(name):
    return BARRIERS if name == "barriers.cu" else cuda_runtime.read(name)


def test_the_host_has_barriers():
    runtime = HostRuntime(read_with_barriers)
    data = np.arange(64, dtype=np.int32)
    argument = cuda_runtime.Pointer(runtime.address(data), 4, data)
    types = Types("int16", "float32")
    numbers = (np.int32(5), np.int32(0))
    runtime.launch(Launch("barriers", "swap", types, 3, (16, 4), (argument, *numbers), 256))
    assert (data == (np.arange(64) + 15) % 64).all()
    with pytest.raises(RuntimeError, match="past its shared memory"):
        runtime.launch(Launch("barriers", "swap", types, 1, (16, 4), (argument, np.int32(1), np.int32(1)), 256))
    for mine in (0, 3, 31):
        with pytest.raises(RuntimeError, match="waited at a barrier"):
            runtime.launch(Launch("barriers", "leave", types, 1, (32, 1), (argument, np.int32(mine))))
        # What still waited there does not go on in another launch.
        data[:] = range(64)
        runtime.launch(Launch("barriers", "swap", types, 3, (16, 4), (argument, *numbers), 256))
        assert (data == (np.arange(64) + 15) % 64).all()
    with pytest.raises(TypeError, match="takes p4 i4, got p4 i8"):
        runtime.launch(Launch("barriers", "leave", types, 1, (32, 1), (argument, np.int64(1))))


HARDENED = (
    "-O2",
    "-D_FORTIFY_SOURCE=3",
    "-fcf-protection=full",
    "-fstack-protector-strong",
    "-fstack-clash-protection",
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="options of a Linux distribution's compiler")
@pytest.mark.parametrize("headers", ["ours", "the system's"])
def test_the_host_has_barriers_whatever_a_distribution_has_its_compiler_do(tmp_path, headers):
    """In a process of its own: glibc ends it for a jump that it takes for a damaged stack.

    Compilers other than g++ read the system's headers.
    """
    hardened = tmp_path / "g++"
    options = [o for o in HARDENED if platform.machine() == "x86_64" or "cf-protection" not in o]
    options += ["-D__clang__"] if headers == "the system's" else []
    hardened.write_text(f'#!/bin/sh\nexec {compiler()[0]} {" ".join(options)} "$@"\n')
    hardened.chmod(0o755)
    env = {
        **os.environ,
        "CXX": str(hardened),
        "GPURESAMPLE_CACHE": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "import test_kernels; test_kernels.test_the_host_has_barriers()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    built = [path.read_bytes() for path in (tmp_path / "host").iterdir()]
    assert built
    # The note by which a library claims to be fit for shadow stacks, and its bits.
    claims = [c[0] for library in built for c in re.findall(rb"\x02\0\0\xc0\x04\0\0\0(.)", library, re.DOTALL)]
    assert not any(claim & 2 for claim in claims)


def test_kernels_that_do_not_compile_say_so():
    runtime = HostRuntime(patched("take.cu", "batch_t at, const", "batch_t at const"))
    with pytest.raises(RuntimeError, match="cannot compile"):
        CudaEngine(runtime).run(separable([identity(2)] * 3, ()), np.ones((2, 2, 2)), np.ones((2, 2, 2)), Store())


# --- these tests see mistakes -------------------------------------------------------------------------------------


@lru_cache
def check_axis(version):
    def check(read):
        table = random_table(np.random.default_rng(11), 45, 53, 9, 0.8)
        src = noise((1, 3, 37, 45), "int16")
        out, _ = run_twice(along(version, table), src, (1, 3, 37, 53), "float32", read=read)
        assert_close(out, weighted(table, src, 3), 30 * bound(src))

    return check


def check_wide_columns(read):
    table = random_table(np.random.default_rng(11), 45, 53, 9, 0.8)
    src = noise((1, 2, 45, 36), "int16")
    out, _ = run_twice(along("tile", table, axis=2), src, (1, 2, 53, 36), "float32", read=read)
    assert_close(out, weighted(table, src, 2), 30 * bound(src))


def check_many_columns(read):
    table = random_table(np.random.default_rng(11), 20, 23, 9, 0.8)
    # The last column is a thread's third, and a thread's first.
    for columns in (65, 129):
        src = noise((1, 1, 20, columns), "int16")
        out, _ = run_twice(along("tile", table, axis=2), src, (1, 1, 23, columns), "float32", read=read)
        assert_close(out, weighted(table, src, 2), 30 * bound(src))


@lru_cache
def check_at_once(*taps):
    def check(read):
        rng = np.random.default_rng(12)
        tables = [random_table(rng, n, m, k) for n, m, k in zip((9, 7, 33), (8, 11, 37), taps, strict=True)]
        work = separable(tables)
        src = noise((2, 9, 7, 33), "int16")
        # There is room around it that a kernel might write to.
        out, _ = run_twice(run(work), src, (2, 8, 11, 37), "float32", "c", "sliced", read=read)
        assert_close(out, summed(work, src), 100 * bound(src))

    return check


def check_untapped_at_once(value, *taps):
    def check(read):
        rng = np.random.default_rng(13)
        tables = [random_table(rng, n, m, k) for n, m, k in zip((9, 7, 33), (8, 11, 37), taps, strict=True)]
        work = separable(tables)
        src = noise((9, 7, 33), "float32")
        src[4, :, 11:14] = value
        out, _ = run_twice(run(work), src, (8, 11, 37), "float32", read=read)
        with np.errstate(invalid="ignore"):
            expected = summed(work, src)
        number = np.isfinite(out)
        assert (number == np.isfinite(expected)).all()
        assert (np.isnan(out) == np.isnan(expected)).all()
        assert not number.all()
        assert_close(out[number], expected[number], 100 * ENGINES * np.abs(src[np.isfinite(src)]).max())

    return check


def check_plane(read):
    rng = np.random.default_rng(14)
    # Rows are whole pairs, but the last sample that is tapped has none to go with.
    odd = random_table(rng, 151, 110, 9, 1.38)
    tables = random_table(rng, 45, 43, 9, 0.9), TapTable(152, odd.first, odd.count, odd.weight)
    src = noise((2, 3, 45, 152), "int16")
    # Its batch and planes do not make one axis, and there is room around it that a kernel might write to.
    out, _ = run_twice(plane(tables, (2, 3)), src, (2, 3, 43, 110), "float32", "c", "sliced", read=read)
    assert_close(out, weighted(tables[1], weighted(tables[0], src, 2), 3), 300 * bound(src))


def check_plane_wide(read):
    """Rows of fours, the last of which is not whole: there is room behind it, and what is there must stay."""
    rng = np.random.default_rng(14)
    tables = random_table(rng, 45, 43, 9, 0.9), random_table(rng, 150, 110, 9, 1.3)
    src = noise((1, 1, 45, 150), "int16")

    def act(engine, a, b):
        plane(tables, (2, 3))(engine, a, b[..., :110])

    whole = lambda engine, a, b: (b.fill(7), act(engine, a, b))  # noqa: E731
    out, _ = run_twice(whole, src, (1, 1, 43, 112), "float32", read=read)
    assert (out[..., 110:] == 7).all()
    assert_close(out[..., :110], weighted(tables[1], weighted(tables[0], src, 2), 3), 300 * bound(src))


def check_plane_turns(read):
    """Blocks that go along whole rows, of odd length: they keep columns from turn to turn, and keep none."""
    rng = np.random.default_rng(15)
    rows = random_table(rng, 45, 43, 9, 0.9)
    for columns in (random_table(rng, 400, 303, 9, 1.3), random_table(rng, 720, 55, 3, 13.0)):
        src = noise((1, 2, 45, columns.n_src), "int16")
        shape = (1, 2, 43, columns.n_dst)
        out, _ = run_twice(plane((rows, columns), (2, 3), whole=True), src, shape, "float32", read=read)
        assert_close(out, weighted(columns, weighted(rows, src, 2), 3), 300 * bound(src))


def check_untapped(read):
    table = random_table(np.random.default_rng(3), 40, 57, 7, 0.7)
    src = noise((1, 2, 34, 40), "float32")
    src[..., 11] = np.nan
    out, _ = run_twice(along("tile", table), src, (1, 2, 34, 57), "float32", read=read)
    assert (np.isnan(out) == np.isnan(weighted(table, src, 3))).all()


def check_store(read):
    values = np.resize(np.array(SPECIAL, "float32"), 2 * 33 * 48).reshape(1, 2, 33, 48)
    out, _ = run_twice(along("plain", identity(48)), values, values.shape, "int16", read=read)
    assert same_bits(out, settled(values, "int16"))


def check_away(read):
    values = np.resize(np.array(SPECIAL, "float32"), 2 * 33 * 48).reshape(1, 2, 33, 48)
    once = along("plain", identity(48), store=Store(rounding="away"))
    out, _ = run_twice(once, values, values.shape, "int16", read=read)
    assert same_bits(out, settled(values, "int16", "away"))


def check_window(read):
    values = np.resize(np.array(SPECIAL, "float32"), 2 * 33 * 48).reshape(1, 2, 33, 48)
    once = along("plain", identity(48), store=Store(window=(-300.0, 500.0, 0.5, 30.0)))
    out, _ = run_twice(once, values, values.shape, "float32", read=read)
    assert same_bits(out, np.clip(values, -300, 500) * np.float32(0.5) + np.float32(30))


def check_take(read):
    src = noise((5, 6, 7), "int16")
    work = separable([picks(5, [3, 1]), identity(6), picks(7, [6, 0, 3])], start=(1, 0, 0), n_dst=(4, 6, 3))
    out, _ = run_twice(run(work, Store(7)), src, (4, 6, 3), "int16", read=read)
    assert (out[1:3] == src[[3, 1]][:, :, [6, 0, 3]]).all()
    assert (out[0] == 7).all()
    assert (out[3] == 7).all()


def check_convert(source, target, rounding=1, factor=1.0):
    def check(read):
        src = extreme(source)
        expected = np.empty(src.shape, target)
        cpu.convert(src, expected, rounding, factor)
        out, _ = run_twice(converting(rounding, factor), src, src.shape, target, read=read)
        assert (out == expected).all()

    return check


def check_halves(read):
    src = np.arange(-8.0, 8.0).reshape(1, 1, 4, 4)
    out, _ = run_twice(converting(3, 0.5), src, src.shape, "int16", read=read)
    assert (out == np.floor(src / 2 + 0.5)).all()


def check_half(read):
    src = np.array([1 + 2.0**-11 + 2.0**-40, 1 + 2.0**-11 - 2.0**-40, -1 - 2.0**-11 - 2.0**-40, 0.0]).reshape(
        1, 1, 2, 2
    )
    out, _ = run_twice(converting(0, 1.0), src, src.shape, "float16", read=read)
    assert same_bits(out, src.astype(np.float16))


@lru_cache
def check_gather(interpolation, boundary=None):
    def check(read):
        work = gather_work(interpolation, boundary)
        chosen = FILTERS[interpolation].method != "sum"
        src = labels(SOURCE.size[::-1], "int16") if chosen else noise(SOURCE.size[::-1], "int16")
        expected = np.empty(OBLIQUE.size[::-1], "int16" if chosen else "float32")
        cpu.run(work, src, expected, Store(1))
        out, _ = run_twice(run(work, Store(1)), src, expected.shape, expected.dtype, read=read)
        assert_close(out, expected, 0 if chosen else bound(src))

    return check


def check_ties(interpolation):
    def check(read):
        work = gather_work(interpolation, target=HALVES)
        src = labels(SOURCE.size[::-1], "int16")
        expected = np.empty(HALVES.size[::-1], "int16")
        cpu.run(work, src, expected, Store(1))
        out, _ = run_twice(run(work, Store(1)), src, expected.shape, "int16", read=read)
        assert same_bits(out, expected)

    return check


SYNC = "    __syncthreads();\n\n    add_lines(\n        staged"
BETWEEN = "        __syncthreads();\n\n        // Warps make FOUR"
BEFORE_MOVING = "            __syncthreads();\n#pragma unroll"
NOTHING_KEPT = "} else {\n            __syncthreads();"
SECOND = "        __syncthreads();\n\n        // Warps write lines"
MUTATIONS = [
    # an off-by-one
    ("resample_axis.cu", "for (int k = 1; k < taps; k++)", "for (int k = 1; k <= taps; k++)", check_axis("plain")),
    ("resample_axis.cu", "for (int k = 1; k < taps; k++)", "for (int k = 1; k < taps - 1; k++)", check_axis("plain")),
    ("resample_axis.cu", "(i >= n_dst) break;\n        dst4", "(i > n_dst) break;\n        dst4", check_axis("tile")),
    ("resample_axis.cu", "if (j >= n_inner) return;", "if (j >= n_inner - 1) return;", check_many_columns),
    ("resample_axis.cu", "c * apart < left", "c * apart <= left", check_many_columns),
    ("resample_axis.cu", "q[s - begin] = load(p[s])", "q[s - begin + 1] = load(p[s])", check_axis("staged")),
    ("resample_axis.cu", "(wide ? 4 : 1) * threadIdx.x", "4 * threadIdx.x", check_axis("staged")),
    # ... in a halo: a column too few, a sample too many; a row too many
    ("resample_axis.cu", "columns_of(end - j,", "columns_of(end - 1 - j,", check_plane),
    ("resample_axis.cu", "k >= j0", "k > j0", check_plane),
    ("resample_axis.cu", "k < end)", "k < end - 1)", check_plane),
    ("resample_axis.cu", "end <= late + STRIP)", "end <= late + STRIP + 1)", check_plane),
    ("resample_axis.cu", "edge, last, s_row", "edge, last + 1, s_row", check_plane),
    ("resample_axis.cu", "if (c >= here) break;", "if (c > here) break;", check_plane),
    ("resample_axis.cu", "if (i + r < n_dst) e[", "if (i + r <= n_dst) e[", check_plane),
    ("resample_axis.cu", "d_axis == 1 && i + TILE_I <= n_dst", "d_axis == 1 && i < n_dst", check_plane_wide),
    ("resample_axis.cu", "e[3] = four.at[3];", "e[3] = four.at[2];", check_plane_turns),
    # ... in what a block keeps from turn to turn
    ("resample_axis.cu", "k < n ? k + by : 0", "k < n ? k + by + 1 : 0", check_plane_turns),
    ("resample_axis.cu", "if (k < n) *(acc4_t", "if (k < n - 1) *(acc4_t", check_plane_turns),
    ("resample_volume.cu", "k < nx", "k <= nx", check_at_once(2, 1, 4)),
    ("resample_volume.cu", "+ c) * at.s_y", "+ c) * at.s_z", check_at_once(2, 3, 1)),
    ("resample_volume.cu", "y < it.y + ROWS", "y < it.y + ROWS - 1", check_at_once(2, 1, 4)),
    ("resample_volume.cu", "count[i] > 1", "count[i] > 2", check_at_once(2, 2, 2)),
    ("resample_volume.cu", "src[far + k + next_x]", "src[far + k]", check_at_once(2, 2, 2)),
    # a dropped barrier
    ("resample_axis.cu", SYNC, SYNC.replace("__syncthreads();", ""), check_axis("staged")),
    ("resample_axis.cu", SECOND, SECOND.replace("__syncthreads();", ""), check_axis("staged")),
    ("resample_axis.cu", BETWEEN, BETWEEN.replace("__syncthreads();", ""), check_plane),
    ("resample_axis.cu", BEFORE_MOVING, BEFORE_MOVING.replace("__syncthreads();", ""), check_plane_turns),
    ("resample_axis.cu", NOTHING_KEPT, NOTHING_KEPT.replace("__syncthreads();", ""), check_plane_turns),
    # a barrier that not all threads reach
    ("resample_axis.cu", BETWEEN, BETWEEN.replace("__syncthreads", "if (t < n_row_tiles) __syncthreads"), check_plane),
    ("resample_axis.cu", SYNC, SYNC.replace("__syncthreads", "if (threadIdx.y) __syncthreads"), check_axis("staged")),
    # a wrong stride
    ("resample_axis.cu", "+ first[i] * s_axis", "+ first[i] * s_inner", check_axis("plain")),
    ("resample_axis.cu", "d_outer + j * d_inner;\n#p", "s_outer + j * d_inner;\n#p", check_wide_columns),
    ("resample_axis.cu", "row_tile[t * 4] * s_row", "row_tile[t * 4] * s_axis", check_plane),
    ("resample_axis.cu", "(row0 + line + c) * d_row", "(row0 + line + c) * s_row", check_plane),
    ("resample_axis.cu", "b = plane / outer;", "b = plane / n_strips;", check_plane),
    ("resample_axis.cu", "weight += FOUR)", "weight += 1)", check_plane),
    ("take.cu", "i * at.s_z + j * at.s_y + k", "i * at.s_y + j * at.s_y + k", check_take),
    # what is not tapped is read
    ("resample_axis.cu", "if (!ASK || weight == weight)", "if (true)", check_untapped),
    ("resample_volume.cu", "if (it.second) total", "total", check_untapped_at_once(np.inf, 2, 2, 2)),
    # nothing is written where the default should be
    ("take.cu", "const bool inside = i >= 0", "if (i < 0) return;\n    const bool inside = i >= 0", check_take),
    # a voxel too far is written
    ("take.cu", "d_y + it.x * at.d_x] =\n        inside", "d_y + (it.x + 1) * at.d_x] =\n        inside", check_take),
    # rounding half up, no saturation, NaN kept
    ("common.cuh", "round(value)", "rint(value)", check_away),
    ("common.cuh", "rint(value) :", "floor(value + (acc_t)0.5) :", check_store),
    ("common.cuh", "value = value < how.high ? value : how.high;", "", check_store),
    # a window that is open, and one that swallows NaN
    ("common.cuh", "value > how.most ? how.most : value", "value", check_window),
    ("common.cuh", "value < how.least ? how.least : value", "value > how.least ? value : how.least", check_window),
    ("convert.cu", "floor(__dadd_rn(value, 0.5))", "rint(value)", check_halves),
    ("convert.cu", "(unsigned long long)v > (un", "(long long)v > (", check_convert("uint64", "int16")),
    ("convert.cu", "sizeof(T) + (", "sizeof(T) + !(", check_convert("int64", "uint8")),
    ("convert.cu", "(away ? 1 : -1)", "(away ? -1 : 1)", check_half),
    # borders, cells, ties
    ("neighbours.cuh", "period - 1 : period", "period : period", check_gather("bspline3", "reflect")),
    ("gather.cu", "first[axis] <= n - width", "first[axis] <= n - width + 1", check_gather("bspline3")),
    ("neighbours.cuh", "p[2] < box[1]", "p[2] < box[1] - 1", check_gather("bspline3")),
    ("neighbours.cuh", "(acc_t)(1.0 - d)", "(acc_t)d", check_gather("linear")),
    ("vote.cu", "key(label) < key(winner)", "key(label) > key(winner)", check_ties("label_linear")),
    ("vote.cu", "sums[k] > best", "sums[k] >= best", check_ties("label_gaussian")),
]  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m[0]}: {m[1]!r:.40}")
def test_a_mistake_in_a_kernel_is_seen(mutation):
    file, old, new, check = mutation
    holds(check)
    assert_seen(check, patched(file, old, new))


# --- the text --------------------------------------------------------------------------------------------------------


STRUCTS = [
    ("common.cuh", "batch_t", structs.batch_t(np.int64)),
    ("common.cuh", "store_t", structs.store_t(np.dtype(np.float64))),
    ("path.cuh", "geometry_t", structs.geometry_t(np.int32)),
    ("neighbours.cuh", "taps_t", structs.TAPS),
    ("gradient.cu", "channels_t", structs.channels_t(np.int32)),
    ("gradient.cu", "sums_t", structs.SUMS),
]


@pytest.mark.parametrize(("file", "name", "dtype"), STRUCTS, ids=[name for _, name, _ in STRUCTS])
def test_launch_code_and_kernels_have_the_same_structs(file, name, dtype):
    idx, acc = (np.int64, np.float64) if name in ("batch_t", "store_t") else (np.int32, np.float32)
    types = {"double": np.float64, "long long": np.int64, "int": np.int32, "idx_t": idx, "acc_t": acc}
    body = re.sub(r"//.*", "", cuda_runtime.read(file).split(f"struct {name} {{")[1].split("};")[0])
    fields = []
    for kind, names in re.findall(r"(long long|\w+) ([^;]+);", body):
        for word in names.split(","):
            field, count = re.fullmatch(r"\s*(\w+)(?:\[(\d+)\])?", word).groups()
            fields.append((field, types[kind], int(count)) if count else (field, types[kind]))
    assert np.dtype(fields, align=True) == dtype


def test_launch_code_and_kernels_have_the_same_constants():
    def constant(file, name):
        return int(re.search(rf"^#define {name} (\d+)", cuda_runtime.read(file), re.MULTILINE)[1])

    for name in ("TILE_I", "TILE_J", "LANES", "GROUP", "STRIP", "FOUR", "KEPT", "BETWEEN_PITCH", "OUT_PITCH"):
        assert constant("resample_axis.cu", name) == getattr(tiles, name)
    assert tiles.STRIP == tiles.LANES * tiles.TILE_J
    # A lane writes one output of a turn.
    assert tiles.GROUP * tiles.TILE_I == tiles.LANES < tiles.OUT_PITCH
    assert constant("resample_volume.cu", "ROWS") == cuda_axis.ROWS
    assert constant("gather.cu", "MAX_TAPS") == gather.MAX_TAPS
    assert constant("vote.cu", "MAX_VOTES") == gather.MAX_VOTES
    for name in ("AS_IT_IS", "NEAREST", "TOWARD_ZERO", "HALF_UP", "AWAY"):
        assert constant("common.cuh", name) == getattr(packing, name)
    for name in ("softmax", "sigmoid"):
        assert constant("ensemble.cu", name.upper()) == works.ACTIVATIONS[name]
    for name in ("largest", "bits"):
        assert constant("ensemble.cu", name.upper()) == works.CHOICES[name]
    for name in ("nearest", "reflect", "crop", "wrap", "grid-wrap"):
        assert constant("neighbours.cuh", f"RULE_{name.upper().replace('-', '_')}") == works.RULES[name]
    # Lines that begin again are asked for together.
    assert min(works.RULES["wrap"], works.RULES["grid-wrap"]) == 4 == len(works.RULES) - 2
    assert constant("gradient.cu", "MAX_TAPS") == gather.MAX_TAPS
    assert constant("gradient.cu", "NUMBERS") == gradient.NUMBERS
    assert constant("gradient.cu", "THREADS") == gradient.BLOCK


@pytest.mark.parametrize("file", FILES)
def test_texts_are_whole(file):
    text = assemble(file, Types("uint8", "float32"))
    assert "#include" not in text
    assert functions(text)
    assert text.count("struct half_t {") == 1
    header = cuda_runtime.read(f"{file}.cu").split("#include")[0]
    assert "v1" in header


def test_the_kernels_folder_has_no_other_kernels():
    assert {p.stem for p in cuda_runtime.folder().glob("*.cu")} == set(FILES)


def test_nothing_reads_or_writes_outside_its_memory_says_the_address_sanitizer():
    """The engine over every kernel, built with -fsanitize, in a process of its own."""
    library = subprocess.run([compiler()[0], "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    path = library.stdout.strip()
    if not os.path.isabs(path) or not sys.platform.startswith("linux"):
        pytest.skip("this compiler has no AddressSanitizer")
    script = Path(__file__).parents[1] / "sanitized.py"
    env = {
        **os.environ, "LD_PRELOAD": str(Path(path).resolve()), "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }  # fmt: skip

    def sanitized(*arguments):
        return subprocess.run(
            [sys.executable, str(script), *arguments], env=env, capture_output=True, text=True, check=False
        )

    done = sanitized()
    assert done.returncode == 0, done.stderr[-4000:]
    assert "36 kernels ran" in done.stdout
    broken = sanitized("broken")
    assert broken.returncode != 0
    assert "AddressSanitizer" in broken.stderr
