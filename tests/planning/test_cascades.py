"""Wide blurs by way of coarse grids: as exact as their tables, at borders too, and the same in any company."""

from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from cuda_support import run_twice
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from support import SINGLE, assert_close, noise, same_bits

import gpuresample as gr
from gpuresample.engines import threads as pool
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.interface import Store
from gpuresample.planning import planner, shortcuts, taps
from gpuresample.planning.filters import discrete_gaussian_response, gaussian_response, recursive_gaussian_response

RECURSIVE = 4e-6
BOUNDARIES = ("nearest", "reflect", "mirror")
RESPONSES = {
    "sampled": gaussian_response,
    "sampled, far": lambda sigma: gaussian_response(sigma, 0, 6.0),
    "sampled, slope": lambda sigma: gaussian_response(sigma, 1),
    "discrete": lambda sigma: discrete_gaussian_response(sigma, 1e-4),
    "recursive": lambda sigma: recursive_gaussian_response(sigma, 0, 1e-7),
    "recursive, slope": lambda sigma: recursive_gaussian_response(sigma, 1, 1e-7),
}


def matrix(branches):
    """What branches do to a volume, as a dense linear map of its voxels."""
    total = 0.0
    for branch in branches:
        for chain in branch.middle:
            # The product of Kronecker products is that of the axes' own products.
            works = [branch.last, *reversed(chain), branch.first]
            z, y, x = (np.linalg.multi_dot([work.tables[axis].dense() for work in works]) for axis in range(3))
            total = total + np.kron(np.kron(z, y), x)
    return total


def wide(responses, shape, boundary="reflect", precision="single"):
    """The plain work of responses along z, y, x, and the same with a shortcut, whatever it costs."""
    tables = [taps.smoothing_table(r, n, boundary) for r, n in zip(responses, shape, strict=True)]
    plain = planner.along_axes(tables, precision)
    return plain, replace(plain, shortcut=shortcuts.shortcut(responses, tables, boundary, precision))


@pytest.fixture
def always(monkeypatch):
    """Shortcuts are taken even where they do not pay, so that small volumes show them."""
    monkeypatch.setattr(shortcuts, "WORTH", np.inf)
    monkeypatch.setattr(shortcuts, "LEAST_COST", 0.0)


# --- one axis ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", RESPONSES)
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("n", [1, 2, 7, 60, 131])
def test_the_three_tables_make_up_the_whole(kind, boundary, n):
    response = RESPONSES[kind](9.0)
    for split in shortcuts._splits(response.tobytes())[::5]:
        coarse, back, rest = split.tables(n, boundary)
        made = back.dense() @ coarse.dense() + rest.dense()
        np.testing.assert_allclose(made, taps.smoothing_table(response, n, boundary).dense(), atol=1e-14)
        assert np.abs(rest.dense()).sum(axis=1).max() <= split.error * np.abs(response).sum() * (1 + 1e-12)


@pytest.mark.parametrize("step", [2, 3, 5])
def test_the_rest_of_a_gaussian_shrinks_with_the_step(step):
    response = gaussian_response(10.0, 0, 6.0)
    rests = [np.abs(shortcuts.fitted(response, s, 10)[1]).sum(axis=1).max() for s in (step, step + 1)]
    assert rests[0] < rests[1] < 1e-3


def test_short_responses_are_left_alone():
    assert shortcuts._splits(gaussian_response(3.0).tobytes()) == ()
    assert gr.gaussian(noise((9, 9, 9)), 2.0).shape == (9, 9, 9)


# --- three axes ----------------------------------------------------------------------------------------------------

SHAPES = [(9, 8, 7), (1, 20, 18), (12, 1, 9)]
SIGMAS = {
    "all": (8.0, 8.0, 8.0), "zy": (8.0, 9.0, 0.0), "zx": (8.0, 0.0, 9.0), "yx": (0.0, 8.0, 9.0),
    "narrow z": (1.0, 8.0, 8.0), "narrow y": (8.0, 1.0, 8.0), "narrow x": (8.0, 8.0, 1.0),
    "z": (8.0, 0.0, 0.0), "x": (0.0, 0.0, 8.0), "unlike": (8.0, 30.0, 12.0),
}  # fmt: skip


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("sigmas", SIGMAS.values(), ids=SIGMAS.keys())
@pytest.mark.parametrize("kind", RESPONSES)
def test_the_linear_map_is_the_tables_within_the_contract(kind, sigmas, shape):
    responses = [RESPONSES[kind](s) if s else None for s in sigmas]
    plain, fast = wide(responses, shape)
    if not fast.shortcut:
        assert sum(s > 4 for s in sigmas) == 1  # no way but for responses that are smooth
        return
    exact = np.kron(np.kron(*(t.dense() for t in plain.tables[:2])), plain.tables[2].dense())
    scale = np.prod([np.abs(r).sum() for r in responses if r is not None])
    # Whatever the image: half its range to either side, times this.
    assert np.abs(matrix(fast.shortcut) - exact).sum(axis=1).max() <= shortcuts.ALLOWED["single"] * scale


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("sigmas", SIGMAS.values(), ids=SIGMAS.keys())
@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_the_engine_follows_the_branches(sigmas, boundary, dtype):
    responses = [gaussian_response(s, 0, 6.0) if s else None for s in sigmas]
    src = noise((2, 23, 31, 29), "int16")
    plain, fast = wide(responses, src.shape[1:], boundary)
    assert fast.shortcut
    a, b = np.empty(src.shape, dtype), np.empty(src.shape, dtype)
    cpu.run(plain, src, a, Store())
    cpu.run(fast, src, b, Store())
    assert_close(b, a, 1 if dtype == "int16" else 1e-6 * np.ptp(src.astype(float)))
    if dtype == "int16":
        assert (a != b).mean() < 1e-3


@pytest.mark.usefixtures("always")
def test_double_precision_keeps_its_contract():
    src = noise((40, 41, 42), "float64")
    out = gr.gaussian(src, 12.0, kind="sampled", truncate=7.0)
    assert_close(out, ndimage.gaussian_filter(src, 12.0, truncate=7.0), 1e-9 * np.ptp(src))


def test_double_precision_does_not_take_what_it_cannot_keep():
    responses = [gaussian_response(12.0)] * 3
    tables = [taps.smoothing_table(r, 200, "reflect") for r in responses]
    assert shortcuts.shortcut(responses, tables, "reflect", "double") == ()
    assert shortcuts.shortcut(responses, tables, "reflect", "single") != ()


# --- through the front door ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "sigma", [(8, 8, 8), (15, 9, 20), (30, 30, 30), (0, 12, 12), (1, 12, 12), (12, 12, 1)], ids=str
)
@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_sampled_is_scipy_with_its_truncate(sigma, boundary):
    src = noise((70, 61, 80), "float32")
    ours = gr.gaussian(src, sigma, kind="sampled", boundary=boundary)
    theirs = ndimage.gaussian_filter(src.astype(np.float64), sigma, mode=boundary)
    assert_close(ours, theirs, SINGLE * np.ptp(src))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("sigma", [8.0, 15.0, 30.0])
@pytest.mark.parametrize("order", [(0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 2, 0)], ids=str)
def test_recursive_is_sitk(sigma, order):
    src = noise((64, 60, 72), "float32")
    image = sitk.GetImageFromArray(src.astype(np.float64))
    for axis, k in zip((2, 0, 1), (order[0], order[2], order[1]), strict=True):
        image = sitk.RecursiveGaussian(image, sigma, False, k, axis)
    expected = sitk.GetArrayFromImage(image)
    ours = gr.gaussian(src, sigma, kind="recursive", order=order)
    # A derivative's weights, and so its values, are smaller by sigma per order.
    assert_close(ours, expected, RECURSIVE * np.ptp(src) / sigma ** sum(order))


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("kind", ["sampled", "discrete", "recursive"])
def test_steps_and_corners_are_as_exact_as_noise(kind):
    # The worst images for what is left out: jumps by the whole range, at borders too.
    src = np.zeros((60, 64, 68), np.float32)
    src[:31, 20:, 33:] = 1.0
    src[-2:, :3, ::2] = 1.0
    work = {"sampled": gaussian_response(10.0), "discrete": discrete_gaussian_response(10.0, 1e-4)}
    response = work.get(kind, recursive_gaussian_response(10.0, 0, 1e-7))
    boundary = "reflect" if kind == "sampled" else "nearest"
    plain, fast = wide([response] * 3, src.shape, boundary)
    assert fast.shortcut
    exact = src.astype(np.float64)
    for axis, table in enumerate(plain.tables):
        exact = np.moveaxis(np.tensordot(table.dense(), exact, (1, axis)), 0, axis)
    out = np.empty_like(src)
    cpu.run(fast, src, out, Store())
    assert_close(out, exact, SINGLE)


@pytest.mark.usefixtures("always")
@given(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    st.tuples(*[st.sampled_from([0.0, 0.7, 6.0, 9.5, 17.0])] * 3),
    st.sampled_from(BOUNDARIES),
)
@settings(max_examples=40, deadline=None)
def test_any_size_and_sigma_is_scipy(shape, sigma, boundary):
    src = noise(shape, "float32")
    ours = gr.gaussian(src, sigma, kind="sampled", boundary=boundary)
    theirs = ndimage.gaussian_filter(src.astype(np.float64), sigma, mode=boundary)
    assert_close(ours, theirs, SINGLE * max(np.ptp(src), np.abs(src).max()))


@pytest.mark.usefixtures("always")
def test_threads_do_not_change_the_bits():
    src = noise((50, 61, 72), "int16")
    results = []
    for threads in (1, 2, 3, 7):
        pool.set_num_threads(threads)
        try:
            results.append(gr.gaussian(src, 9.0, kind="recursive", dtype=np.float32))
        finally:
            pool.set_num_threads(None)
    assert all(same_bits(results[0], r) for r in results[1:])


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize(
    "layout", [lambda a: a[::-1, :, ::-1], lambda a: a.transpose(1, 2, 0), lambda a: a[:, ::2, ::2]]
)
def test_memory_layout_does_not_matter(layout):
    src = layout(noise((50, 52, 54), "int16"))
    assert same_bits(gr.gaussian(src, 9.0), gr.gaussian(np.ascontiguousarray(src), 9.0))
    out = layout(np.zeros((50, 52, 54), np.int16))
    gr.gaussian(src, 9.0, out=out)
    np.testing.assert_array_equal(out, gr.gaussian(src, 9.0))


def cut(work, src, block, dtype):
    """A block's own work, run on what it needs of the source and no more."""
    region = tuple(slice(*r) for r in planner.input_region(work, block))
    part = planner.crop(work, block)
    assert len(part.shortcut) == len(work.shortcut)
    out = np.empty(part.n_dst, dtype)
    cpu.run(part, src[region], out, Store())
    return out, part


@pytest.mark.usefixtures("always")
@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_block_has_the_bits_of_the_whole(data):
    kind = data.draw(st.sampled_from(sorted(RESPONSES)))
    responses = [RESPONSES[kind](s) if s else None for s in data.draw(st.sampled_from(list(SIGMAS.values())))]
    src = noise((30, 31, 32), "int16")
    dtype = data.draw(st.sampled_from(["float32", "int16"]))
    plain, work = wide(responses, src.shape, data.draw(st.sampled_from(BOUNDARIES)))
    whole = np.empty(src.shape, dtype)
    cpu.run(work, src, whole, Store())
    block = []
    for n in src.shape:
        lo = data.draw(st.integers(0, n - 1))
        block.append((lo, data.draw(st.integers(lo + 1, n))))
    got, part = cut(work, src, tuple(block), dtype)
    expected = np.ascontiguousarray(whole[tuple(slice(*r) for r in block)])
    assert same_bits(got, expected)
    # It holds what the plain tables need as well, for the engine that takes no shortcuts.
    inner = [(a - lo, b - lo) for (a, b), (lo, _) in zip(planner.input_region(plain, tuple(block)),
             planner.input_region(work, tuple(block)), strict=True)]  # fmt: skip
    assert all(0 <= a < b <= t.n_src for (a, b), t in zip(inner, part.tables, strict=True))


@pytest.mark.usefixtures("always")
def test_a_block_of_a_block_has_the_bits_of_the_whole():
    src = noise((40, 41, 42), "float32")
    _, work = wide([gaussian_response(8.0)] * 3, src.shape)
    whole = np.empty_like(src)
    cpu.run(work, src, whole, Store())
    outer, inner = ((3, 20), (0, 31), (9, 27)), ((5, 9), (2, 31), (1, 18))
    region = tuple(slice(*r) for r in planner.input_region(work, outer))
    got, _ = cut(planner.crop(work, outer), src[region], inner, "float32")
    assert same_bits(got, np.ascontiguousarray(whole[8:12, 2:31, 10:27]))


@pytest.mark.kernels
@pytest.mark.usefixtures("always")
def test_the_cuda_engine_agrees():
    src = noise((20, 24, 28), "int16")
    _, work = wide([gaussian_response(8.0)] * 3, src.shape)
    assert work.shortcut
    ours = np.empty(src.shape, np.float32)
    cpu.run(work, src, ours, Store())
    theirs, _ = run_twice(lambda engine, s, d: engine.run(work, s, d, Store()), src, src.shape, "float32")
    assert_close(ours, theirs, 1e-6 * np.ptp(src.astype(float)))


def test_large_volumes_take_the_shortcut_and_small_sigmas_do_not():
    def taken(sigma, shape):
        responses = [gaussian_response(sigma)] * 3
        tables = [taps.smoothing_table(r, n, "reflect") for r, n in zip(responses, shape, strict=True)]
        return bool(shortcuts.shortcut(responses, tables, "reflect", "single"))

    assert taken(15.0, (247, 512, 512))
    assert taken(30.0, (120, 256, 256))
    assert not taken(2.0, (247, 512, 512))
    assert not taken(15.0, (32, 64, 64))
