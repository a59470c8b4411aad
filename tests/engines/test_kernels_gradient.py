"""Gradients of gathers in the CUDA kernels, run on the CPU: transposed sums, and derivatives."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import path_oracle
import pytest
from cuda_support import Guarded, assert_seen, holds, patched, run_twice
from support import assert_close, noise, same_bits
from test_kernels_route import affine, bspline, field, gather, route

from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import gradient as cuda_gradient
from gpuresample.engines.cuda import runtime
from gpuresample.engines.cuda.engine import CudaEngine
from gpuresample.engines.interface import Store
from gpuresample.planning.works import Linear

pytestmark = pytest.mark.kernels

N_DST = (4, 5, 45)
N_SRC = (11, 14, 19)
ROUTES = {
    "affine": lambda: route(affine()[1]),
    "field": lambda: route(field()[1]),
    "affine, spline": lambda: route(affine()[1], bspline(3)[1]),
    # Most voxels are read far past the borders, many of them at one sample.
    "shrunk": lambda: route(Linear(np.diag([4.0, 5.0, -3.0]), np.array([1.0, -9.0, 2.0]))),
}


def work_of(name, interpolation, boundary=None, precision="double"):
    return gather(ROUTES[name](), interpolation, boundary, precision, N_DST)


def forward(work, src, read=runtime.read):
    dst = np.empty((*src.shape[:-3], *work.n_dst), src.dtype)
    CudaEngine(Guarded(read=read)).run(work, src, dst, Store())
    return dst


def splat(work, gradient, n_src=N_SRC, read=runtime.read, layouts=("c", "c")):
    return run_twice(
        lambda engine, g, out: engine.splat(work, g, out), gradient, (*gradient.shape[:-3], *n_src), gradient.dtype,
        *layouts, read=read,
    )  # fmt: skip


def slopes(work, src, read=runtime.read, dtype=None):
    out, _ = run_twice(
        lambda engine, s, d: engine.gradient(work, s, np.moveaxis(d, -1, 1)), src,
        (*src.shape[:-3], *work.n_dst, 3), dtype or src.dtype,
        read=read,
    )  # fmt: skip
    return out


@lru_cache
def check_adjoint(name, interpolation, boundary=None):
    def check(read):
        work = work_of(name, interpolation, boundary)
        x, y = noise((1, *N_SRC), "float64", seed=1), noise((1, *N_DST), "float64", seed=2)
        ax, aty = forward(work, x), splat(work, y, read=read)[0]
        left, right = np.vdot(ax, y), np.vdot(x, aty)
        assert abs(left - right) <= 1e-12 * np.linalg.norm(ax) * np.linalg.norm(y)
        assert (np.abs(aty).max() > 1) == bool((ax != 0).any())

    return check


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline1", "bspline3"])
@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant"])
def test_a_splat_is_the_transposed_gather(name, interpolation, boundary):
    check_adjoint(name, interpolation, boundary)(runtime.read)


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_a_splat_is_the_transposed_matrix(interpolation):
    """Column by column: what one voxel of the output adds is what the gather reads for it."""
    work = work_of("shrunk", interpolation, "mirror")
    y = noise((1, *N_DST), "float64")
    expected = np.zeros(N_SRC)
    rng = np.random.default_rng(3)
    for at in rng.integers(0, N_SRC, (25, 3)).tolist():
        unit = np.zeros((1, *N_SRC))
        unit[(0, *at)] = 1.0
        expected[tuple(at)] = np.vdot(forward(work, unit), y)
    out = splat(work, y)[0][0]
    asked = expected != 0
    assert asked.any()
    assert_close(out[asked], expected[asked], 1e-12 * np.abs(out).max())


@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_sums_in_float32_are_near_those_in_float64(interpolation):
    y = noise((1, *N_DST), "float32")
    single, runtimes = splat(work_of("affine", interpolation, "mirror", "single"), y)
    exact, _ = splat(work_of("affine", interpolation, "mirror"), y.astype("float64"))
    assert_close(single, exact, 3e-6 * np.abs(exact).max())
    kernel = "splat_linear" if interpolation == "linear" else "splat_cubic"
    assert runtimes[0].launches[kernel] == 1


@pytest.mark.parametrize("precision", ["single", "double"])
def test_a_batch_is_one_launch_and_has_the_bits_of_each(precision):
    ways = tuple(route(affine(seed)[1]) for seed in range(7))
    dtype = "float32" if precision == "single" else "float64"
    y = noise((7, *N_DST), dtype) * np.logspace(-6, 6, 7).astype(dtype)[:, None, None, None]
    work = replace(work_of("affine", "linear", "nearest", precision), routes=ways)
    out, runtimes = splat(work, y, layouts=("flipped", "sliced"))
    for volume in range(7):
        one, lone = splat(replace(work, routes=(ways[volume],)), y[volume : volume + 1])
        assert same_bits(one[0], np.ascontiguousarray(out[volume]))
        assert lone[0].launches == runtimes[0].launches


def backwards(read):
    """The host with the blocks of a grid in the opposite order."""

    def changed(name):
        text = read(name)
        forwards, reverse = "block_index = {b, 0, 0};", "block_index = {blocks - 1 - b, 0, 0};"
        return text.replace(forwards, reverse) if name == "host/cuda_on_host.h" else text

    return changed


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_the_order_of_blocks_changes_no_bit(precision, interpolation):
    y = noise((1, *N_DST), "float32" if precision == "single" else "float64")
    work = work_of("shrunk", interpolation, "nearest", precision)
    assert "block_index = {b, 0, 0};" in runtime.read("host/cuda_on_host.h")
    assert same_bits(splat(work, y)[0], splat(work, y, read=backwards(runtime.read))[0])


@pytest.mark.parametrize("value", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_gradients_of_any_size(value):
    y = noise((1, *N_DST), "float64")
    work = work_of("affine", "linear", "mirror")
    small = splat(work, y)[0]
    assert_close(splat(work, y * value)[0] / value, small, 1e-14 * np.abs(small).max())


def test_everything_at_one_sample_does_not_overflow():
    """All voxels, all with the largest gradient, far past one corner."""
    for value in (1.0, np.nextafter(2.0, 0)):
        work = gather(route(Linear(np.eye(3), np.array([1e6, -1e6, 1e6]))), "linear", "nearest", "double", N_DST)
        out = splat(work, np.full((1, *N_DST), value))[0]
        assert (out != 0).sum() == 1
        assert out.max() == pytest.approx(value * np.prod(N_DST), rel=1e-15)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_no_number_spoils_its_volume_alone(value):
    y = noise((3, *N_DST), "float64")
    work = work_of("affine", "linear")
    good = splat(work, y)[0]
    y[1, 2, 3, 4] = value
    out = splat(work, y)[0]
    assert np.isnan(out[1]).all()
    assert same_bits(out[[0, 2]], good[[0, 2]])
    assert (splat(work, np.zeros((1, *N_DST)))[0] == 0).all()


@lru_cache
def check_slopes(name, interpolation, boundary=None, bound=2e-6):
    """Central differences of the forward gather, away from kinks; moved by moving the source's origin."""

    def check(read):
        work = work_of(name, interpolation, boundary)
        src = noise((1, *N_SRC), "float64")
        out = slopes(work, src, read=read)
        way, step = work.routes[0], 1e-5
        x = path_oracle.coordinates(way, N_DST)
        low, high = (np.array([b[side] for b in work.box[::-1]]) for side in (0, 1))
        kinks = np.abs(x - np.rint(x)).min(axis=-1) < 1e-4
        # Half-way positions are edges of the box.
        kinks |= np.minimum(np.abs(x - low), np.abs(x - high)).min(axis=-1) < 1e-4
        assert kinks.mean() < 0.1
        for axis in range(3):
            ends = []
            for sign in (1, -1):
                by = np.linalg.inv(way.inverse)[:, axis] * step * sign
                moved = replace(work, routes=(replace(way, origin_in=way.origin_in - by),))
                ends.append(forward(moved, src))
            expected = (ends[0] - ends[1]) / (2 * step)
            assert_close(out[0, ..., axis][~kinks], expected[0][~kinks], bound * np.ptp(src))

    return check


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "mirror", "constant"])
def test_slopes_are_differences(name, interpolation, boundary):
    check_slopes(name, interpolation, boundary)(runtime.read)


def test_slopes_at_centres_and_rims():
    """Right-hand at a voxel's centre; nothing changes in the rim, where the outermost voxel goes on."""
    eye = np.eye(3)
    src = noise((1, *N_SRC), "float64")
    way = replace(
        route(Linear(eye, np.zeros(3))), step=np.diag([0.25, 1.0, 1.0]), origin=np.array([-0.5, 2.0, 3.0]),
        inverse=eye, origin_in=np.zeros(3), n0=64,
    )  # fmt: skip
    work = replace(gather(way, "linear"), n_dst=(1, 1, 80))
    x = path_oracle.coordinates(way, (1, 1, 80))[0, 0, :, 0]
    along = slopes(work, src)[0, 0, 0, :, 0]
    row = src[0, 3, 2]
    for p, value in zip(x.tolist(), along.tolist(), strict=True):
        k = int(np.floor(p))
        inside = 0 <= k < len(row) - 1
        assert value == (row[k + 1] - row[k] if inside else 0.0), p
    assert (along[:2] == 0).all()
    assert (along[2:10] != 0).all()


def test_slopes_of_float32_go_through_any_strides():
    work = work_of("field", "bspline3", None, "single")
    src = noise((2, *N_SRC), "float32")
    plain = slopes(work, src)
    exact = slopes(work_of("field", "bspline3"), src.astype("float64"))
    assert_close(plain, exact, 1e-5 * np.ptp(src))
    out = np.empty((3, 2, *N_DST), np.float32)
    CudaEngine(Guarded()).gradient(work, src, np.moveaxis(out, 0, 1))
    assert same_bits(np.ascontiguousarray(np.moveaxis(out, 0, -1)), plain)


DERIVATIVES = [(0, 0, 0), (1, 0, 0), (0, 2, 1), (1, 1, 1)]


@lru_cache
def check_cpu(name, interpolation, derivative, boundary=None):
    """All of a gather's ways back against the CPU engine's: two volumes of two channels, each with its route."""

    def check(read):
        work = replace(work_of(name, interpolation, boundary), derivative=derivative)
        second = work_of("shrunk", interpolation, boundary).routes[0]
        x, y = noise((2, 2, *N_SRC), "float64", seed=1), noise((2, 2, *N_DST), "float64", seed=2)
        apart = replace(work, routes=(*work.routes, second))
        calls = [
            # Channels are volumes of the batch here.
            (lambda e, s, d: e.splat(replace(work, routes=[r for r in apart.routes for _ in "ab"]), s, d), y, x.shape),
            (lambda e, s, d: e.gradient(apart, s, d, y), x, (2, 3, *N_DST)),
        ]
        if any(derivative):
            calls.append((lambda e, s, d: e.run(work, s, d, Store()), x, y.shape))
        for act, source, shape in calls:
            expected = np.empty(shape)
            act(cpu, source, expected)
            out, _ = run_twice(act, source, shape, "float64", read=read)
            # A linear sum has a kink on a sample: the sides are those of the last bit.
            assert_close(out, expected, 1e-10 * max(1.0, np.abs(expected).max()))

    return check


@pytest.mark.parametrize("derivative", DERIVATIVES, ids=str)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3", "bspline2", "hamming"])
def test_ways_back_are_the_cpu_engines(interpolation, derivative):
    check_cpu("field", interpolation, derivative, "mirror")(runtime.read)


@pytest.mark.parametrize("boundary", [None, "nearest", "reflect", "constant"])
@pytest.mark.parametrize("derivative", [(0, 0, 0), (0, 1, 1)], ids=str)
@pytest.mark.parametrize("interpolation", ["linear", "bspline3"])
def test_ways_back_at_borders_are_the_cpu_engines(interpolation, derivative, boundary):
    check_cpu("affine", interpolation, derivative, boundary)(runtime.read)


def check_moments(read):
    values, field = noise((2, 3, 9, 15, 130), "float32"), noise((1, 3, 9, 15, 130), "float64", seed=1)
    z, y, x = np.meshgrid(*[np.arange(n, dtype=np.float64) for n in values.shape[2:]], indexing="ij")
    with pytest.MonkeyPatch.context() as patch:
        # More than one block of few voxels each.
        patch.setattr(cuda_gradient, "VOXELS_SUMMED", 9)
        for moved in (None, field, np.broadcast_to(field, values.shape).astype("float32")):
            out, runtimes = run_twice(
                lambda e, v, d, m=moved: e.moments(v, m, d), values, (2, 3, 4), "float64", read=read
            )
            assert runtimes[0].launches == {"sum_moments": 1, "add_moments": 1}
            for n in range(2):
                place = np.stack([x, y, z, np.ones_like(x)])
                if moved is not None:
                    place[:3] += moved[n % len(moved)]
                expected = np.einsum("azyx,bzyx->ab", values[n].astype("float64"), place)
                assert_close(out[n], expected, 1e-13 * np.abs(values[n]).max() * np.abs(place).max() * x.size)


def test_moments_are_sums():
    check_moments(runtime.read)


@pytest.mark.parametrize("interpolation", ["nearest", "gaussian", "label_linear"])
def test_what_is_no_sum_of_neighbours_is_refused(interpolation):
    engine, work = CudaEngine(Guarded()), work_of("affine", interpolation)
    with pytest.raises(ValueError, match="gradients must be of sums of at most 16 neighbours per axis"):
        engine.splat(work, np.zeros((1, *N_DST)), np.zeros((1, *N_SRC)))
    with pytest.raises(ValueError, match="gradients must be of sums of at most 16 neighbours per axis"):
        engine.gradient(work, np.zeros((1, *N_SRC)), np.zeros((1, 3, *N_DST)))
    with pytest.raises(ValueError, match="must be whole"):
        engine.splat(work_of("affine", "linear"), np.zeros((1, *N_DST)), np.zeros((1, 3, 4, 5)))


# --- these tests see mistakes ---------------------------------------------------------------------------------------


def check_batch(read):
    ways = tuple(route(affine(seed)[1]) for seed in range(3))
    y = noise((3, *N_DST), "float64") * np.array([1.0, 1e-9, 1e9])[:, None, None, None]
    work = replace(work_of("affine", "linear"), routes=ways)
    out = splat(work, y, read=read)[0]
    for volume in range(3):
        one = splat(replace(work, routes=(ways[volume],)), y[volume : volume + 1])[0][0]
        assert same_bits(one, np.ascontiguousarray(out[volume]))


def check_single(read):
    y = noise((1, *N_DST), "float32")
    exact = splat(work_of("affine", "linear", "mirror"), y.astype("float64"))[0]
    single = splat(work_of("affine", "linear", "mirror", "single"), y, read=read)[0]
    assert_close(single, exact, 3e-6 * np.abs(exact).max())


def check_many(read):
    """As of 4e12 times as many voxels: the first word alone would keep 9 bits of the largest gradient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda_gradient, "_gain", lambda coefficients: 2.0**42)
        check_adjoint("affine", "linear")(read)


MUTATIONS = [
    ("gradient.cu", "(unsigned long long)(long long)rest)", "0ull)", check_many),
    ("gradient.cu", "(double)(long long)sum[n], unit - finer)", "(double)(long long)sum[n], unit)", check_many),
    ("gradient.cu", "atomicAdd(sum, (unsigned long long)(long long)whole)", "atomicAdd(sum, 1ull)", check_single),
    ("gradient.cu", "a = corner >> 2", "a = corner >> 1 & 1", check_adjoint("affine", "linear")),
    ("gradient.cu", "share * weight[2][c]", "share * weight[2][3 - c]", check_adjoint("affine", "bspline3")),
    ("gradient.cu", "largest[row.volume]", "largest[0]", check_batch),
    ("gradient.cu", "sums += row.volume * at.d_b;", "", check_batch),
    ("gradient.cu", "found[threadIdx.x + half] > found", "found[threadIdx.x + half] < found", check_batch),
    ("gradient.cu", "if (!is_inside(at.box, p)) continue;", "", check_adjoint("affine", "linear", "constant")),
    ("gradient.cu", "found[0] += slope[0][a]", "found[0] += weight[0][a]", check_slopes("affine", "linear")),
    ("gradient.cu", "total[2 - c]", "total[c]", check_slopes("affine", "bspline3")),
    (
        "gradient.cu",
        "coefficients + axis * taps.pieces * width * taps.terms,\n                taps",
        "coefficients, taps",
        check_cpu("field", "bspline3", (1, 0, 0)),
    ),
    (
        "gradient.cu",
        "bounded(p[2 - axis], n, at.rule), coefficients",
        "1.0 + bounded(p[2 - axis], n, at.rule), coefficients",
        check_slopes("affine", "linear"),
    ),
    ("gradient.cu", "src + channel * of.s_c", "src", check_cpu("affine", "linear", (0, 0, 0))),
    (
        "gradient.cu",
        "beside[channel * of.g_c + x * of.g_x]",
        "beside[x * of.g_x]",
        check_cpu("affine", "linear", (0, 0, 0)),
    ),
    ("gradient.cu", "of.only == c", "of.only == 2 - c", check_cpu("affine", "linear", (1, 0, 0))),
    ("gradient.cu", "place[c] += load", "place[c] -= load", check_moments),
    ("gradient.cu", "b < blocks; b += THREADS", "b < blocks - 1; b += THREADS", check_moments),
    ("gradient.cu", "[k * THREADS + threadIdx.x + half];", "[k * THREADS + threadIdx.x];", check_moments),
    ("neighbours.cuh", "change = change * part + value", "change = change * part", check_slopes("affine", "bspline3")),
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: f"{m[0]}: {m[1]!r:.40}")
def test_a_mistake_in_a_gradient_is_seen(mutation):
    file, old, new, check = mutation
    holds(check)
    assert_seen(check, patched(file, old, new))
