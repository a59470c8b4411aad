"""Block means on the CPU: every type of voxel and of sum, layouts, and the tables that do what the kernel does not."""

import numpy as np
import pytest
from cuda_support import LAYOUTS, Guarded, untouched
from hypothesis import given
from hypothesis import strategies as st
from support import same_bits

import gpuresample as gr
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cpu import footprint, means
from gpuresample.engines.interface import Store
from gpuresample.planning import planner, taps
from gpuresample.planning.works import Separable

SUMMED = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64")
TABLES = ("int64", "uint64", "float16")
FACTORS = [(2, 2, 2), (1, 2, 3), (3, 1, 1), (1, 1, 4), (5, 4, 6), (2, 3, 8)]  # z, y, x


def volume(dtype, shape=(11, 13, 17), seed=0):
    """Values of the type's whole range, its ends among them."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return (rng.random(shape) * 100 - 50).astype(dtype)
    info = np.iinfo(dtype)
    array = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    array.flat[:9] = info.max
    array.flat[-9:] = info.min
    return array


def mean(array, factors):
    """The rule in float64: ITK's, halves upwards."""
    nz, ny, nx = (n // f for n, f in zip(array.shape[-3:], factors, strict=True))
    (fz, fy, fx) = factors
    whole = array[..., : nz * fz, : ny * fy, : nx * fx].astype(np.float64)
    sums = whole.reshape(*array.shape[:-3], nz, fz, ny, fy, nx, fx).sum(axis=(-5, -3, -1))
    got = sums * (1.0 / (fz * fy * fx))
    if array.dtype.kind in "iu":
        return np.floor(got + 0.5).astype(array.dtype)
    return got.astype(array.dtype)


@pytest.fixture
def taken(monkeypatch):
    """Whether the kernel took the work, of every call."""
    calls = []
    real = cpu.steps_of
    monkeypatch.setattr(cpu, "steps_of", lambda *args: calls.append(real(*args).way == "means") or real(*args))
    return calls


@pytest.mark.parametrize("dtype", SUMMED)
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_the_kernel_is_the_rule(dtype, factors, taken):
    array = volume(dtype)
    got = gr.bin_shrink(array, factors)
    assert taken == [True]
    if np.dtype(dtype).kind == "f":
        np.testing.assert_allclose(got, mean(array, factors), rtol=0, atol=100 * np.finfo(dtype).eps)
    else:
        assert same_bits(got, mean(array, factors))


@pytest.mark.parametrize("dtype", TABLES)
def test_other_types_go_by_tables(dtype, taken):
    array = (np.arange(5 * 6 * 7).reshape(5, 6, 7) - (100 if dtype != "uint64" else 0)).astype(dtype)
    got = gr.bin_shrink(array, 2)
    assert not any(taken)
    assert same_bits(got, mean(array, (2, 2, 2)))


@pytest.mark.parametrize("dtype", ["uint16", "int16"])
def test_sums_beyond_32_bits(dtype):
    # 40^3 voxels of the largest value sum to more than 2^31.
    for value in (np.iinfo(dtype).max, np.iinfo(dtype).min):
        array = np.full((40, 40, 80), value, dtype)
        assert gr.bin_shrink(array, 40).tolist() == [[[value, value]]]


@pytest.mark.parametrize("into", LAYOUTS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_of_a_batch(layout, into):
    array, factors = volume("int16", (2, 12, 14, 17)), (2, 3, 4)
    expected = mean(array, factors)
    tables = tuple(taps.block_sum_table(n, f) for n, f in zip(array.shape[1:], factors, strict=True))
    work = Separable(tables, (0, 1, 2), (0, 1, 2), expected.shape[1:], (0, 0, 0), "double")
    memory = Guarded(0xA5)
    src, _ = memory.laid_out(array.shape, array.dtype, layout)
    src[...] = array
    dst, base = memory.laid_out(expected.shape, array.dtype, into)
    cpu.run(work, src, dst, Store(divisor=24))
    memory.check()
    assert untouched(dst, base, 0xA5)
    assert same_bits(dst.copy("C"), expected)


@given(st.tuples(*[st.integers(1, 5)] * 3), st.tuples(*[st.integers(5, 20)] * 3), st.integers(1, 3))
def test_any_block_with_any_threads(factors, shape, threads):
    array = volume("int16", shape)
    before = gr.get_num_threads()
    gr.set_num_threads(threads)
    try:
        assert same_bits(gr.bin_shrink(array, factors), mean(array, factors))
    finally:
        gr.set_num_threads(before)


def test_a_part_of_the_work_has_the_bits_of_the_whole(taken):
    array, factors = volume("float32", (24, 26, 30)), (2, 3, 2)
    tables = tuple(taps.block_sum_table(n, f) for n, f in zip(array.shape, factors, strict=True))
    n_dst = tuple(t.n_dst for t in tables)
    work = Separable(tables, (0, 1, 2), (0, 1, 2), n_dst, (0, 0, 0), "double")
    whole = np.empty(n_dst, np.float32)
    cpu.run(work, array, whole, Store(divisor=12))
    block = ((3, 9), (1, 5), (4, 14))
    region = tuple(slice(*r) for r in planner.input_region(work, block))
    part = planner.crop(work, block)
    out = np.empty(part.n_dst, np.float32)
    cpu.run(part, array[region], out, Store(divisor=12))
    assert taken == [True, True]
    assert same_bits(out, np.ascontiguousarray(whole[tuple(slice(*b) for b in block)]))


def test_memory_is_what_is_said(monkeypatch):
    asked = []
    real = means.scratch
    monkeypatch.setattr(means, "scratch", lambda n, dtype: asked.append(n * np.dtype(dtype).itemsize) or real(n, dtype))
    array = volume("int16", (6, 6, 40))
    tables = tuple(taps.block_sum_table(n, f) for n, f in zip(array.shape, (2, 3, 4), strict=True))
    work = Separable(tables, (0, 1, 2), (0, 1, 2), (3, 2, 10), (0, 0, 0), "double")
    store = Store(divisor=24)
    cpu.run(work, array, np.empty((3, 2, 10), np.int16), store)
    said = footprint.footprint(work, array.shape, array.dtype, (3, 2, 10), array.dtype, store, threads=1).total
    assert {said} == set(asked)
