"""Splats and derivatives by position on the CPU engine: transposed to the last digits, true, the same bits always."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import gpuresample as gr
from gpuresample.engines.cpu import engine
from gpuresample.engines.cpu import gradient as gradients
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.grid import Grid
from gpuresample.planning.transforms import Map, Nodes, Transform

BOUNDARIES = [None, "nearest", "reflect", "mirror", "constant"]
DERIVATIVES = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (0, 0, 2)]
SRC, DST = (5, 6, 7), (6, 5, 8)


def work_of(interpolation, boundary, kind="turned", src=SRC, dst=DST, precision="double", seed=0):
    """A gather along a drawn path that leaves the source on all sides."""
    rng = np.random.default_rng(seed)
    steps = (Map.of(np.eye(3) + 0.2 * rng.standard_normal((3, 3)), 0.7 * rng.standard_normal(3)),)
    if kind == "field":
        steps = (Nodes(1.5 * rng.standard_normal((*dst, 3)), Grid.of_size(dst[::-1])), *steps)
    if kind == "crushed":  # all voxels between two samples
        steps = (Map.of(0.01 * (np.eye(3) + 0.1), np.full(3, 2.3)),)
    path = Transform(3, steps)
    return planner.make_work(
        Grid.of_size(src[::-1]), Grid.of_size(dst[::-1]), (path,), interpolation, boundary, False, precision
    )


def run(work, x, dtype=np.float64):
    out = np.empty((*x.shape[:-3], *work.n_dst), dtype)
    engine.run(work, x, out, Store())
    return out


def splat(work, y, src=SRC, dtype=np.float64):
    out = np.full((*y.shape[:-3], *src), np.nan, dtype)
    engine.splat(work, y, out)
    return out


@pytest.mark.parametrize("kind", ["turned", "field", "crushed"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline1", "bspline2", "lanczos"])
def test_a_splat_is_the_transposed_gather(interpolation, boundary, kind):
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, *SRC)), rng.standard_normal((2, *DST))
    for derivative in DERIVATIVES:
        work = replace(work_of(interpolation, boundary, kind), derivative=derivative)
        made, back = run(work, x), splat(work, y)
        assert abs((made * y).sum() - (x * back).sum()) <= 1e-12 * np.abs(made * y).sum() + 1e-12, derivative


@pytest.mark.parametrize("kind", ["turned", "field"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_derivatives_are_differences(interpolation, boundary, kind):
    work = work_of(interpolation, boundary, kind)
    x = np.random.default_rng(1).standard_normal((2, *SRC))
    found = np.empty((2, 3, *DST))
    engine.gradient(work, x, found)
    step = 1e-6
    for axis in range(3):
        there, back = (
            run(replace(work, routes=tuple(replace(r, origin_in=r.origin_in - s) for r in work.routes)), x)
            for s in (step * np.eye(3)[axis], -step * np.eye(3)[axis])
        )
        wrong = np.abs((there - back) / (2 * step) - found[:, axis]) > 1e-6
        # On a voxel's or a box's border the two sides differ, and such voxels are rare.
        assert wrong.mean() < 0.005


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_the_three_at_once_are_the_three_derivatives_weighed_and_summed(interpolation, boundary):
    work = work_of(interpolation, boundary, "field")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 3, *SRC)), rng.standard_normal((2, 3, *DST))
    found = np.empty((2, 3, *DST))
    engine.gradient(work, x, found, y)
    for axis, derivative in enumerate([(0, 0, 1), (0, 1, 0), (1, 0, 0)]):
        expected = (run(replace(work, derivative=derivative), x) * y).sum(axis=1)
        np.testing.assert_allclose(found[:, axis], expected, rtol=0, atol=1e-12)


def test_a_linear_splat_by_hand():
    """One voxel of the output between eight of the source."""
    one, source = Grid.of_size((1, 1, 1)), Grid.of_size(SRC[::-1])
    path = Transform(3, (Nodes(np.array([1.25, 2.5, 3.0]).reshape(1, 1, 1, 3), one),))
    work = planner.make_work(source, one, (path,), "linear", None, False, "double")
    expected = np.zeros(SRC)
    expected[3, 2, 1:3] = expected[3, 3, 1:3] = 8 * np.array([0.75, 0.25]) / 2
    np.testing.assert_array_equal(splat(work, np.full((1, 1, 1), 8.0)), expected)


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
@pytest.mark.parametrize("kind", ["turned", "field", "crushed"])
def test_the_same_bits_on_any_number_of_threads(interpolation, kind):
    src, dst = (40, 50, 60), (70, 45, 66)
    work = work_of(interpolation, None, kind, src, dst, "single")
    rng = np.random.default_rng(1)
    y = rng.standard_normal((2, *dst)).astype(np.float32)
    x = rng.standard_normal((2, *src)).astype(np.float32)
    seen = set()
    try:
        for threads in (1, 2, 3, 4) * 5:
            gr.set_num_threads(threads)
            slopes = np.empty((3, *dst), np.float32)
            engine.gradient(work, x, slopes, y)
            seen.add((splat(work, y, src, np.float32).tobytes(), slopes.tobytes(), gradients.moments(slopes).tobytes()))
    finally:
        gr.set_num_threads(None)
    assert len(seen) == 1


def test_blocks_that_meet_wait_for_each_other():
    blocks, order = gradients._blocks((70, 90, 66))
    assert sorted(order.tolist()) == list(range(len(blocks)))
    assert len(blocks) > 4
    covered = np.zeros((70, 90, 66), int)
    for z, y, x, n_z, n_y, n_x in blocks:
        covered[z : z + n_z, y : y + n_y, x : x + n_x] += 1
    assert (covered == 1).all()
    reach = np.zeros((len(blocks), 3, 2), np.int64)
    rng = np.random.default_rng(0)
    reach[:, :, 0] = rng.integers(0, 40, (len(blocks), 3))
    reach[:, :, 1] = reach[:, :, 0] + rng.integers(0, 30, (len(blocks), 3))
    reach[2] = [[5, 4]] * 3
    level = np.empty(len(blocks), np.int64)
    gradients.kernels.levels_of(reach, order, level)
    assert level[2] == -1
    for k, j in itertools.combinations(order.tolist(), 2):
        if 2 not in (k, j) and ((reach[k, :, 0] <= reach[j, :, 1]) & (reach[j, :, 0] <= reach[k, :, 1])).all():
            assert level[k] < level[j]


def test_one_path_for_each_volume():
    works = [work_of("linear", None, "turned", seed=s) for s in range(2)]
    both = replace(works[0], routes=(works[0].routes[0], works[1].routes[0]))
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, *SRC)), rng.standard_normal((2, *DST))
    found, slopes = splat(both, y), np.empty((2, 3, *DST))
    engine.gradient(both, x, slopes)
    for k, work in enumerate(works):
        np.testing.assert_array_equal(found[k], splat(work, y[k]))
        alone = np.empty((3, *DST))
        engine.gradient(work, x[k], alone)
        np.testing.assert_array_equal(slopes[k], alone)


def test_what_weighs_nothing_is_neither_read_nor_written():
    """Voxels on voxels: a neighbour's NaN stays where it is, on either way."""
    work = work_of("linear", None)
    path = Transform(3, (Map.of(np.eye(3)[::-1], np.zeros(3)),))
    work = replace(work, routes=(planner.route(Grid.of_size((8, 5, 6)), Grid.of_size((7, 6, 5)), path),))
    y = np.ones(DST)
    y[2, 3, 1] = np.nan
    back = splat(work, y)
    assert np.isnan(back).sum() == 1
    assert np.isnan(back[1, 3, 2])
    x = np.ones(SRC)
    x[1, 3, 2] = np.nan
    slopes = np.empty((3, *DST))
    engine.gradient(work, x, slopes)
    for axis in range(3):
        # From the right: the voxel itself and the one before it.
        assert np.isnan(slopes[axis]).sum() == 2


def test_moments_are_sums_of_values_times_places():
    rng = np.random.default_rng(0)
    values, field = rng.standard_normal((3, 4, 5, 6)), rng.standard_normal((4, 5, 6, 3))
    z, y, x = np.meshgrid(*map(np.arange, (4, 5, 6)), indexing="ij")
    place = np.stack([x, y, z, np.ones_like(x)]).astype(float)
    np.testing.assert_allclose(
        gradients.moments(values), np.einsum("azyx,bzyx->ab", values, place), rtol=1e-13, atol=1e-11
    )
    place[:3] += np.moveaxis(field, -1, 0)
    found = gradients.moments(values, np.moveaxis(field, -1, 0))
    np.testing.assert_allclose(found, np.einsum("azyx,bzyx->ab", values, place), rtol=1e-13, atol=1e-11)


@pytest.mark.parametrize("boundary", [None, "nearest"])
def test_parts_and_strides_are_those_of_the_whole(boundary):
    """Inputs of any strides and types; an output that is not contiguous."""
    work = work_of("linear", boundary, precision="single")
    rng = np.random.default_rng(1)
    y = rng.standard_normal((2, *DST)).astype(np.float32)
    expected = splat(work, y, dtype=np.float32)
    wide = np.empty((2, *SRC[::-1])).transpose(0, 3, 2, 1)
    engine.splat(work, np.asfortranarray(y), wide)
    np.testing.assert_array_equal(wide, expected)
    one = np.broadcast_to(np.float32(2), (2, *DST))
    np.testing.assert_array_equal(splat(work, one, dtype=np.float32), splat(work, one.copy(), dtype=np.float32))


@pytest.mark.parametrize("kind", ["turned", "field", "crushed", "lattice"])
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline2", "lanczos"])
def test_a_block_stays_within_its_reach(interpolation, boundary, kind, monkeypatch):
    """Else two threads may add to one sample at a time."""
    monkeypatch.setattr(gradients, "EDGE", 4)
    gradients._blocks.cache_clear()
    src, dst = (9, 10, 30), (12, 9, 14)
    work = work_of(interpolation, boundary, "turned" if kind == "lattice" else kind, src, dst)
    if kind == "lattice":  # not on the output's voxels, so walked
        nodes = Nodes(3 * np.random.default_rng(2).standard_normal((4, 4, 5, 3)), Grid.of_size((5, 4, 4)))
        turned = Map.of(np.eye(3) + 0.05, np.zeros(3))
        path = Transform(3, (turned, nodes))
        work = planner.make_work(
            Grid.of_size(src[::-1]), Grid.of_size(dst[::-1]), (path,), interpolation, boundary, False, "double"
        )
    for derivative in [(0, 0, 0), (0, 1, 0)]:
        one = replace(work, derivative=derivative)
        n, pads = gradients._sizes(one)
        sums = np.zeros((1, *(a + m + b for m, (a, b) in zip(n, pads, strict=True))))
        pad = np.array([before for before, _ in pads])
        y = np.random.default_rng(3).standard_normal((1, *dst))
        made = gradients._splat(one, one.routes[0], y, sums, pad)
        blocks, _ = gradients._blocks(dst)
        assert len(blocks) >= 18
        met = 0
        for block, reach in zip(blocks, made.reach, strict=True):
            sums[:] = 0
            made.add(block)
            touched = np.argwhere(sums[0] != 0) - pad
            met += len(touched) > 0
            if len(touched):
                assert (touched.min(axis=0) >= reach[:, 0]).all(), (block, derivative)
                assert (touched.max(axis=0) <= reach[:, 1]).all(), (block, derivative)
        assert met
    gradients._blocks.cache_clear()
