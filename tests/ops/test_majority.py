"""Modes of blocks: labels are counted, ties go to the smallest, no label passes through a number of another type."""

import collections
import math

import numpy as np
import pytest
import SimpleITK as sitk
from cuda_support import LAYOUTS, assert_seen, patched, run_twice
from hypothesis import given
from hypothesis import strategies as st
from support import ANISOTROPIC, labels, same_bits, to_image
from test_smoothing import TILTED, assert_same_geometry

import gpuresample as gr
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda.host import compiler
from gpuresample.engines.interface import Store
from gpuresample.planning.works import Majority

VOXELS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
FACTORS = [(2, 2, 2), (1, 2, 3), (3, 1, 1), (1, 1, 4), (5, 4, 3), (1, 1, 1)]  # z, y, x

try:
    compiler()
    HOST = True
except RuntimeError:
    HOST = False


def mode(array, factors):
    """The rule, block by block."""
    shape = [n // f for n, f in zip(array.shape[-3:], factors, strict=True)]
    out = np.empty((*array.shape[:-3], *shape), array.dtype)
    for index in np.ndindex(out.shape):
        block = tuple(slice(i * f, (i + 1) * f) for i, f in zip(index[-3:], factors, strict=True))
        votes = collections.Counter(array[index[:-3]][block].ravel().tolist())
        most = max(votes.values())
        out[index] = min(label for label, n in votes.items() if n == most)
    return out


def volume(dtype, shape=(11, 12, 13), seed=0, batch=()):
    """Labels with many ties among them, the type's smallest and largest value included."""
    array = labels((math.prod(batch) * shape[0], *shape[1:]), "uint8", seed, count=4).reshape(*batch, *shape)
    if np.dtype(dtype).kind == "f":
        values = [-1.5, 0.0, 2.0, 1e4]
    else:
        info = np.iinfo(dtype)
        values = [info.min, 1, info.max - 1, info.max]
    return np.array(values, dtype)[array]


def on_cuda(engine, src, dst):
    z, y, x = (s // d for s, d in zip(src.shape[-3:], dst.shape[-3:], strict=True))
    engine.run(Majority((z, y, x), dst.shape[-3:]), src, dst, Store())
    assert engine.runtime.launches == {"majority": 1}


@pytest.mark.parametrize("dtype", VOXELS)
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_mode_is_the_label_of_most_voxels(dtype, factors):
    array = volume(dtype)
    assert same_bits(gr.bin_shrink(array, factors, reduce="mode"), mode(array, factors))


@pytest.mark.parametrize("dtype", VOXELS)
@pytest.mark.parametrize("factors", FACTORS, ids=str)
@pytest.mark.kernels
@pytest.mark.skipif(not HOST, reason="needs g++")
def test_the_kernel_is_the_same_rule(dtype, factors):
    array = volume(dtype, batch=(2,))
    expected = mode(array, factors)
    cropped = array[..., : expected.shape[-3] * factors[0], : expected.shape[-2] * factors[1], :]
    cropped = np.ascontiguousarray(cropped[..., : expected.shape[-1] * factors[2]])
    out, _ = run_twice(on_cuda, cropped, expected.shape, dtype)
    assert same_bits(out, expected)


@pytest.mark.parametrize("src_layout", LAYOUTS)
@pytest.mark.parametrize("dst_layout", LAYOUTS)
@pytest.mark.kernels
@pytest.mark.skipif(not HOST, reason="needs g++")
def test_the_kernel_takes_any_strides(src_layout, dst_layout):
    array = volume("int16", (4, 6, 8))
    out, _ = run_twice(on_cuda, array, (2, 3, 4), "int16", src_layout, dst_layout)
    assert same_bits(out, mode(array, (2, 2, 2)))


MUTATIONS = [
    ("votes == most && below", "votes == most && !below"),
    ("m <= n - most", "m < n - most"),
    ("2 * most <= n", "2 * most < n"),
    ("mixed |= !same", "mixed &= !same"),
    ("if (it.b >= at.n_batch) return;", ""),
    ("(idx_t)it.y * f_y * at.s_y", "(idx_t)it.y * f_z * at.s_y"),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m[0])
@pytest.mark.kernels
@pytest.mark.skipif(not HOST, reason="needs g++")
def test_a_mistake_in_the_kernel_is_seen(mutation):
    # Ties of every kind: a block's last voxels decide, and half of its voxels are one label.
    array = np.random.default_rng(5).integers(0, 3, (2, 6, 8, 30)).astype(np.int16)
    expected = mode(array, (2, 1, 2))

    def check(read):
        out, _ = run_twice(on_cuda, array, expected.shape, "int16", read=read)
        assert same_bits(out, expected)

    assert_seen(check, patched("majority.cu", *mutation))


def test_a_tie_goes_to_the_smallest_label():
    assert gr.bin_shrink(np.array([[7, 3], [3, 7]], np.uint8), 2, reduce="mode").item() == 3
    assert gr.bin_shrink(np.array([[-1, 5], [9, 2]], np.int16), 2, reduce="mode").item() == -1


def test_labels_beyond_2_to_the_53_survive():
    wide = np.array([2**53 + 1, 2**53, 2**64 - 1, 2**64 - 2], np.uint64)
    array = wide[volume("uint8") % 4]
    out = gr.bin_shrink(array, 2, reduce="mode")
    assert same_bits(out, mode(array, (2, 2, 2)))
    assert set(np.unique(out).tolist()) == set(wide.tolist())


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_nan_is_a_label_larger_than_any_number(dtype):
    def of(*voxels):
        return gr.bin_shrink(np.array([voxels], dtype), (1, len(voxels)), reduce="mode").item()

    assert np.isnan(of(np.nan, np.nan, 1.0))
    assert of(np.nan, 1.0, np.nan, 1.0) == 1.0
    assert of(np.nan, np.inf) == np.inf
    assert np.isnan(of(np.nan, np.nan))


def test_booleans_and_foreign_byte_orders():
    array = volume("uint8") > 1
    assert same_bits(gr.bin_shrink(array, 2, reduce="mode"), mode(array, (2, 2, 2)))
    swapped = volume("int32").astype(">i4")
    np.testing.assert_array_equal(gr.bin_shrink(swapped, 2, reduce="mode"), mode(volume("int32"), (2, 2, 2)))


@pytest.mark.parametrize("layout", [lambda a: a[::-1, :, ::-1], np.asfortranarray, lambda a: a[:, ::2, 1::3]])
def test_memory_layout_does_not_matter(layout):
    array = layout(volume("int16", (12, 24, 30)))
    assert same_bits(gr.bin_shrink(array, 2, reduce="mode"), mode(array, (2, 2, 2)))


def test_leading_axes_and_vectors_are_separate_volumes():
    array = volume("uint8", batch=(2, 3))
    assert same_bits(gr.bin_shrink(array, 2, reduce="mode"), mode(array, (2, 2, 2)))
    image = to_image(np.moveaxis(array[0], 0, -1), ANISOTROPIC, vector=True)
    out = sitk.GetArrayFromImage(gr.bin_shrink(image, 2, reduce="mode"))
    assert same_bits(np.ascontiguousarray(np.moveaxis(out, -1, 0)), mode(array[0], (2, 2, 2)))


@pytest.mark.parametrize("geometry", [ANISOTROPIC, TILTED], ids=["anisotropic", "oblique"])
def test_the_grid_is_that_of_the_mean(geometry):
    image = to_image(volume("uint8", geometry.size[::-1]), geometry)
    a, b = gr.bin_shrink(image, (3, 2, 1), reduce="mode"), sitk.BinShrink(image, (3, 2, 1))
    assert_same_geometry(a, b)


@given(st.integers(0, 999), st.lists(st.integers(1, 4), min_size=2, max_size=3), st.integers(1, 9))
def test_any_block_of_any_labels(seed, factors, count):
    shape = [f * 3 + seed % 2 for f in factors]
    array = np.random.default_rng(seed).integers(0, count, shape).astype(np.uint16)
    lead = (1,) * (3 - len(factors))
    expected = mode(array.reshape(*lead, *shape), (*lead, *factors))
    assert same_bits(gr.bin_shrink(array, factors, reduce="mode"), expected.reshape(expected.shape[len(lead) :]))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_do_not_matter(threads):
    array = volume("int16", (30, 31, 32))
    gr.set_num_threads(threads)
    try:
        assert same_bits(gr.bin_shrink(array, 2, reduce="mode"), mode(array, (2, 2, 2)))
    finally:
        gr.set_num_threads(None)


def test_a_block_of_the_result_by_itself():
    from gpuresample.planning import planner

    array = volume("uint8")
    work = Majority((2, 3, 2), (5, 4, 6))
    block = ((1, 4), (0, 3), (2, 6))
    region = tuple(slice(*r) for r in planner.input_region(work, block))
    part = planner.crop(work, block)
    out = np.empty(part.n_dst, np.uint8)
    cpu.run(part, array[region], out, Store())
    assert same_bits(out, np.ascontiguousarray(mode(array, (2, 3, 2))[1:4, 0:3, 2:6]))


def test_reduce_is_refused_by_name():
    with pytest.raises(ValueError, match="reduce must be one of 'mean', 'mode', 'label', got 'median'"):
        gr.bin_shrink(volume("uint8"), 2, reduce="median")


# --- pyramids of labels --------------------------------------------------------------------------------------------


def test_levels_are_modes_of_the_image_itself():
    array = volume("uint64", (17, 24, 21))
    levels = gr.pyramid(array, 4, kind="mode")
    assert levels[0] is array
    for k, level in enumerate(levels):
        assert same_bits(level, mode(array, (2**k,) * 3))


def test_levels_of_means_are_means_of_the_image_itself():
    array = volume("int16", (17, 24, 21))
    for k, level in enumerate(gr.pyramid(array, 3, kind="mean")):
        assert same_bits(level, array if k == 0 else gr.bin_shrink(array, 2**k))


def test_axes_that_have_no_block_left_stay():
    array = volume("uint8", (3, 24, 21))
    levels = gr.pyramid(array, 5, kind="mode")
    assert [level.shape for level in levels] == [(3, 24, 21), (1, 12, 10), (1, 6, 5), (1, 3, 2), (1, 1, 1)]
    assert same_bits(levels[3], mode(array, (2, 8, 8)))


def test_sigma_is_for_gaussians():
    with pytest.raises(ValueError, match='sigma is for kind="gaussian"'):
        gr.pyramid(volume("uint8"), 2, kind="mode", sigma=1.0)
    with pytest.raises(ValueError, match="kind must be one of"):
        gr.pyramid(volume("uint8"), 2, kind="median")


# --- blocks of many labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "int32", "int64", "uint64", "float16", "float32", "float64"])
@pytest.mark.parametrize("factors", [(9, 7, 11), (1, 40, 30), (12, 14, 22)], ids=str)
def test_modes_of_blocks_of_many_labels(dtype, factors):
    rng = np.random.default_rng(4)
    array = rng.integers(0, 900, (2, 18, 43, 66)).astype(dtype)
    array[:, :9, :7, :11] = np.arange(9 * 7 * 11).reshape(9, 7, 11) + 1  # no label twice: the smallest
    if array.dtype.kind == "f":
        array[1, ::2] = np.nan
        array[0, 3:5] = -0.0
    got = gr.bin_shrink(array, factors, reduce="mode", device="cpu")
    expected = mode(array, factors) if array.dtype.kind != "f" else nan_mode(array, factors)
    np.testing.assert_array_equal(got, expected)
    turned = gr.bin_shrink(array.transpose(0, 3, 1, 2), (factors[2], *factors[:2]), reduce="mode", device="cpu")
    np.testing.assert_array_equal(turned.transpose(0, 2, 3, 1), got)


def nan_mode(array, factors):
    """The rule for floats: NaN is one label, larger than any other."""
    large = np.where(np.isnan(array), 60000, array)
    out = mode(large.astype(np.float64), factors).astype(array.dtype)
    return np.where(out == 60000, np.nan, out).astype(array.dtype)


@pytest.mark.parametrize("n", [255, 256, 257, 300])
def test_modes_at_the_edge_of_many(n):
    array = np.arange(n, dtype=np.int32)[None, :]
    array = np.concatenate([array, array[:, ::-1]])
    array[1, 5] = 7
    assert gr.bin_shrink(array, (2, n), reduce="mode", device="cpu").item() == mode(array[None], (1, 2, n)).item()


def test_a_block_of_100_000_labels():
    array = np.random.default_rng(0).permutation(48**3).astype(np.int32).reshape(48, 48, 48)
    assert gr.bin_shrink(array, 48, reduce="mode", device="cpu").item() == 0
