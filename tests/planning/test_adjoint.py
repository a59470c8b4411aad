"""Gradients without torch: transposed tables, and the adjoint's identity through the engine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import noise, same_bits

import gpuresample as gr
from gpuresample.containers import ArrayContainer
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.interface import Store
from gpuresample.ops.gaussian import gaussian_plan
from gpuresample.ops.shrink import downsample_plan
from gpuresample.planning import planner, taps

INTERPOLATIONS = ["nearest", "linear", "gaussian", "lanczos", *[f"bspline{p}" for p in range(1, 6)]]
BOUNDARIES = [None, *taps.BOUNDARIES]


def applied(work, x):
    """The engine's answer in float64; voxels outside are zero."""
    n = [0, 0, 0]
    for axis, out in enumerate(work.dst_axis):
        n[out] = work.n_dst[axis]
    out = np.empty(n)
    cpu.run(work, x, out, Store())
    return out


def assert_adjoint(work, shape, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    ax = applied(work, x)
    y = rng.standard_normal(ax.shape)
    back = applied(planner.adjoint(work), y)
    assert back.shape == x.shape
    left, right = float((ax * y).sum()), float((x * back).sum())
    scale = np.linalg.norm(ax) * np.linalg.norm(y) + np.linalg.norm(x) * np.linalg.norm(back)
    assert abs(left - right) <= 1e-12 * max(scale, 1e-300)


@given(
    shape=st.tuples(*[st.integers(1, 12)] * 3),
    size=st.tuples(*[st.integers(1, 14)] * 3),
    interpolation=st.sampled_from(INTERPOLATIONS),
    anchor=st.sampled_from(["first", "edge", "center"]),
    boundary=st.sampled_from(BOUNDARIES),
    antialias=st.booleans(),
)
def test_the_identity_of_the_adjoint(shape, size, interpolation, anchor, boundary, antialias):
    antialias = antialias and interpolation != "nearest"
    plan = gr.plan(
        shape, size=size, interpolation=interpolation, anchor=anchor, boundary=boundary, antialias=antialias,
        dtype=np.float64,
    )  # fmt: skip
    assert_adjoint(plan.work, shape)


def test_the_identity_of_the_adjoint_on_a_volume_of_many_tiles():
    plan = gr.plan((60, 130, 120), spacing=(2, 0.8, 1.3), anchor="edge", dtype=np.float64)
    assert_adjoint(plan.work, (60, 130, 120))


@pytest.mark.parametrize("direction", [(0, 1, 0, 0, 0, 1, 1, 0, 0), (0, -1, 0, 1, 0, 0, 0, 0, -1)])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_the_identity_of_the_adjoint_with_permuted_axes_and_an_outside(direction, interpolation):
    volume = gr.Volume(noise((7, 8, 9), "float64"), (1, 1.1, 0.9))
    target = gr.Grid((10, 6, 13), (0.9, 1.2, 0.8), (2.0, 3.0, 1.5), direction)
    work = gr.plan(volume, like=target, interpolation=interpolation).work
    assert any(n > t.n_dst for n, t in zip(work.n_dst, work.tables, strict=True)), "the grids were to differ in extent"
    assert_adjoint(work, (7, 8, 9))


@pytest.mark.parametrize(
    "keywords",
    [{"kind": "discrete"}, {"kind": "sampled"}, {"kind": "recursive"}, {"kind": "sampled", "order": (1, 0, 2)}],
    ids=str,
)
@pytest.mark.parametrize("boundary", ["nearest", "reflect", "mirror"])
def test_the_identity_of_the_adjoint_of_blurs(keywords, boundary):
    shape = (9, 14, 11)
    container = ArrayContainer.of_shape(shape, (2.0, 1.0, 0.7), np.dtype(np.float64))
    assert_adjoint(gaussian_plan(container, 1.7, boundary=boundary, **keywords).work, shape)


@pytest.mark.parametrize("factors", [(2, 3, 4), (1, 5, 2)])
def test_the_identity_of_the_adjoint_of_downsampling(factors):
    shape = (9, 14, 11)
    container = ArrayContainer.of_shape(shape, None, np.dtype(np.float64))
    assert_adjoint(downsample_plan(container, factors).work, shape)


@pytest.mark.filterwarnings("ignore:like lies nowhere near")
def test_nothing_comes_back_from_a_grid_that_lies_outside():
    volume = gr.Volume(noise((4, 5, 6), "float64"), (1, 1, 1))
    work = gr.plan(volume, like=gr.Grid((3, 3, 3), (1, 1, 1), (100.0, 0.0, 0.0), (1, 0, 0, 0, 1, 0, 0, 0, 1))).work
    assert (applied(planner.adjoint(work), np.ones((3, 3, 3))) == 0).all()


@given(
    n_src=st.integers(1, 20),
    n_dst=st.integers(1, 20),
    start=st.integers(0, 3),
    rest=st.integers(0, 3),
    interpolation=st.sampled_from(["nearest", "linear", "bspline3"]),
)
def test_a_transposed_table_is_the_transposed_matrix(n_src, n_dst, start, rest, interpolation):
    table = gr.plan((1, 1, n_src), size=(1, 1, n_dst), interpolation=interpolation, boundary="mirror").work.tables[2]
    back = table.transpose(start + n_dst + rest, start)
    assert back.n_src == start + n_dst + rest
    whole = np.pad(table.dense(), ((start, rest), (0, 0)))
    assert same_bits(back.dense(), np.ascontiguousarray(whole.T))
    again = back.transpose(n_src).crop(start, start + n_dst)
    assert (again.dense() != 0).sum() == (table.dense() != 0).sum()


def test_a_table_after_another_is_the_product():
    blur = taps.smoothing_table(np.array([0.25, 0.5, 0.25]), 9, "mirror")
    pick = taps.index_table(9, np.arange(0, 9, 2))
    both = pick.after(blur)
    assert both.n_src == 9
    np.testing.assert_allclose(both.dense(), pick.dense() @ blur.dense(), rtol=0, atol=1e-15)
    assert both.n_taps == 3


def test_zero_padding_drops_weights_without_making_up_for_them():
    weight = np.tile([0.25, 0.5, 0.25], (6, 1))
    first = np.array([-4, -2, -1, 1, 2, 7])
    table = taps.zero_padded_table(first, weight, 4)
    expected = [
        [0, 0, 0, 0], [0.25, 0, 0, 0], [0.5, 0.25, 0, 0], [0, 0.25, 0.5, 0.25], [0, 0, 0.25, 0.5], [0, 0, 0, 0],
    ]  # fmt: skip
    assert table.dense().tolist() == expected
    assert (table.first >= 0).all()
    assert (table.first + table.count <= 4).all()


@pytest.mark.parametrize(("n_src", "n_dst"), [(6, 3), (7, 3), (3, 7), (5, 5), (4, 1)])
def test_block_means_are_those_of_adaptive_pooling(n_src, n_dst):
    dense = taps.block_mean_table(n_src, n_dst).dense()
    for i in range(n_dst):
        lo, hi = int(np.floor(i * n_src / n_dst)), int(np.ceil((i + 1) * n_src / n_dst))
        expected = np.zeros(n_src)
        expected[lo:hi] = 1 / (hi - lo)
        np.testing.assert_array_equal(dense[i], expected)
