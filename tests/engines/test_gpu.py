"""On a real GPU. Every test here must launch kernels (fixture `gpu`), and looks at where its result lies."""

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from cuda_support import random_table, separable, summed
from support import assert_close, flat, labels, noise, rotation, same_bits

import gpuresample as gr
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import axis, staging, tiles
from gpuresample.engines.cuda import engine as cuda
from gpuresample.engines.cuda import runtime as cuda_runtime
from gpuresample.engines.interface import Store
from gpuresample.planning import planner
from gpuresample.planning.filters import FILTERS

pytestmark = pytest.mark.gpu

# The stated bound between engines, of the range.
ENGINES = 1e-6
VOXELS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64")
SOURCE = gr.Grid((67, 45, 33), (1.0, 1.25, 1.5), (3.0, -2.0, 1.0), flat(rotation(0, 0, 0)))
ALIGNED = gr.Grid((80, 50, 40), (0.81, 1.03, 1.3), (2.0, -3.0, 1.5), flat(rotation(0, 0, 90)))
OBLIQUE = gr.Grid((60, 52, 41), (1.2, 1.0, 1.4), (4.0, -3.0, 3.0), flat(rotation(13, -7, 24)))
GRIDS = {"aligned": ALIGNED, "oblique": OBLIQUE}


def both(gpu, src, **options):
    """The result on the GPU, which is CuPy's, and the CPU engine's."""
    out = gr.resample(gr.Volume(gpu.asarray(src), SOURCE.spacing, SOURCE.origin), **options)
    assert isinstance(out.array, gpu.ndarray)
    volume = gr.Volume(src, SOURCE.spacing, SOURCE.origin)
    return gpu.asnumpy(out.array), gr.resample(volume, device="cpu", **options).array


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("pair", ["int16 int16", "int16 float32", "uint8 uint8", "float32 float32", "float64 float64"])
def test_every_interpolation_agrees_with_the_cpu_engine(gpu, grid, interpolation, pair):
    source, target = pair.split()
    chosen = FILTERS[interpolation].method != "sum"
    src = (labels if chosen else noise)(SOURCE.size[::-1], source)
    out, expected = both(gpu, src, like=GRIDS[grid], interpolation=interpolation, dtype=target)
    bound = ENGINES * float(np.ptp(src.astype(float)))
    # Integers: a sum next to a half may be rounded to either side.
    assert_close(out, expected, 0 if chosen else 1 if target[0] in "iu" else bound)
    if target[0] in "iu":
        assert (out != expected).mean() < 0.001


@pytest.mark.parametrize(("source", "target"), list(itertools.product(VOXELS, VOXELS)))
def test_every_pair_of_types(gpu, source, target):
    src = noise(SOURCE.size[::-1], source, bits=6) if source[0] != "f" else noise(SOURCE.size[::-1]).astype(source) / 64
    for interpolation in ("nearest", "linear", "bspline"):
        out, expected = both(gpu, src, like=ALIGNED, interpolation=interpolation, dtype=target)
        assert out.dtype == np.dtype(target)
        step = {"float16": 0.0625, "float32": ENGINES * 128, "float64": ENGINES * 128}.get(target, 1)
        assert_close(out, expected, 0 if interpolation == "nearest" else step)


def test_scipys_rounding(gpu):
    src = noise((30, 40, 50), "int16")
    out, expected = both(gpu, src, size=(99, 79, 30), interpolation="linear", convention="scipy")
    assert (out != expected).mean() < 0.001
    assert (out != both(gpu, src, size=(99, 79, 30), interpolation="linear", anchor="center")[0]).mean() > 0.1


@pytest.mark.parametrize("version", ["plain", "tile", "staged"])
@pytest.mark.parametrize("acc", ["float32", "float64"])
def test_every_version_of_a_pass(gpu, version, acc):
    table = random_table(np.random.default_rng(4), 150, 170, 24, 0.9)
    src = noise((2, 5, 67, 150), "float32")
    engine = cuda._engine()
    a, b = gpu.asarray(src), gpu.empty((2, 5, 67, 170), acc)
    view = axis.View.of(a, a.data.ptr).narrow(3, *table.source_range())
    getattr(engine.axes, version)(table, view, axis.View.of(b, b.data.ptr), 3, np.dtype(acc), Store())
    work = separable([random_table(np.random.default_rng(0), n, n, 1) for n in (5, 67)] + [table], (2,))
    expected = summed(work, src)
    total = np.abs(table.weight).sum(axis=1).max()
    assert_close(gpu.asnumpy(b), expected, total * np.ptp(src) * (ENGINES if acc == "float32" else 1e-13))


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float32", "float64"])
def test_two_passes_in_one_kernel_have_the_bits_of_two(gpu, monkeypatch, dtype):
    tables = [
        random_table(np.random.default_rng(k), n, m, 9, n / m)
        for k, (n, m) in enumerate(((7, 5), (90, 70), (150, 170)))
    ]
    work = separable(tables, precision="double" if dtype == "float64" else "single")
    src = noise((2, 7, 90, 150), dtype)
    launches, results = cuda._engine().runtime.launches, []
    for forced in (True, False):
        monkeypatch.setattr(tiles, "FUSE", forced)
        out, before = gpu.empty((2, 5, 70, 170), dtype), launches["resample_axis_plane"]
        cuda._engine().run(work, gpu.asarray(src), out, Store())
        assert launches["resample_axis_plane"] - before == (1 if forced else 0)
        results.append(gpu.asnumpy(out))
    assert same_bits(*results)


def test_masks_block_means_and_pyramids(gpu):
    src = noise((33, 45, 67), "int16")
    for act in (lambda v, **o: gr.bin_shrink(v, (2, 3, 2), **o), lambda v, **o: gr.gaussian(v, 1.3, **o)):
        out = act(gpu.asarray(src))
        assert isinstance(out, gpu.ndarray)
        assert_close(gpu.asnumpy(out), act(src, device="cpu"), 1)
    mask = gr.resample(gpu.asarray(src > 0), size=(20, 30, 40))
    assert (gpu.asnumpy(mask) != gr.resample(src > 0, size=(20, 30, 40), device="cpu")).mean() < 1e-3
    for level, right in zip(gr.pyramid(gpu.asarray(src), 3), gr.pyramid(src, 3, device="cpu"), strict=True):
        assert_close(gpu.asnumpy(level), right, 1)


def test_streams_are_the_callers_and_nothing_waits(gpu):
    """The stream is held up by a long kernel: the call returns before it ends."""
    src, out = gpu.asarray(noise((64, 128, 128))), gpu.empty((60, 100, 100), np.float32)
    gr.resample(src, size=out.shape, out=out)
    stream = gpu.cuda.Stream(non_blocking=True)
    busy = gpu.RawKernel(
        'extern "C" __global__ void busy(long long n) { long long s = clock64(); while (clock64() - s < n) {} }', "busy"
    )
    gpu.cuda.runtime.deviceSynchronize()
    with stream:
        busy((1,), (1,), (np.int64(1_000_000_000),))
        gr.resample(src, size=out.shape, out=out)
        assert not stream.done, "the call waited for the stream"
    stream.synchronize()
    assert_close(gpu.asnumpy(out), gr.resample(gpu.asnumpy(src), size=out.shape, device="cpu"), ENGINES * 9000)


def test_the_same_bits_every_time(gpu):
    src = gpu.asarray(noise((64, 128, 128)))
    for interpolation, like in itertools.product(("linear", "bspline", "hamming"), (ALIGNED, OBLIQUE)):
        volume = gr.Volume(src, (1, 1, 1))
        first = gpu.asnumpy(gr.resample(volume, like=like, interpolation=interpolation).array)
        for _ in range(5):
            assert same_bits(first, gpu.asnumpy(gr.resample(volume, like=like, interpolation=interpolation).array))


def test_20_shapes_compile_nothing_new(gpu):
    gr.resample(gpu.asarray(noise((20, 40, 50), "int16")), size=(61, 142, 93))
    runtime = cuda._engine().runtime
    before = runtime.compilations.total()
    for k in range(20):
        gr.resample(gpu.asarray(noise((20 + k, 40 + 3 * k, 50 + k % 7), "int16")), size=(61, 142 + k, 93 - k))
    assert runtime.compilations.total() == before
    assert set(runtime.compilations.values()) == {1}


CACHE = (
    "import numpy as np, cupy, gpuresample as gr; gr.resample(cupy.zeros((20, 40, 50), np.int16), size=(21, 42, 53))"
)


def test_compiled_kernels_are_kept_for_the_next_process(gpu, tmp_path):
    def compiled():
        env = {**os.environ, "CUPY_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", CACHE], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*") if file.is_file()}

    gr.resample(gpu.zeros((4, 5, 6), np.int16), size=(5, 5, 5))
    first = compiled()
    assert any(file.suffix == ".cubin" for file in first), first
    assert compiled() == first


# --- containers ------------------------------------------------------------------------------------------------------


def test_torch_tensors_stay_tensors(torch, gpu):
    src = noise((33, 45, 67))
    out = gr.resample(torch.from_numpy(src).cuda(), size=(40, 50, 60))
    assert isinstance(out, torch.Tensor)
    assert out.is_cuda
    assert_close(out.cpu().numpy(), gr.resample(src, size=(40, 50, 60), device="cpu"), ENGINES * np.ptp(src))
    target = torch.empty((40, 50, 60), device="cuda")
    assert gr.resample(torch.from_numpy(src).cuda(), size=(40, 50, 60), out=target) is target
    assert torch.equal(target, out)

    def allocate(n):
        memory = torch.empty(n, dtype=torch.uint8, device="cuda")
        return memory.data_ptr(), memory

    pool = gpu.get_default_memory_pool()
    before = pool.total_bytes()
    with cuda_runtime.scratch_from(allocate):
        again = gr.resample(gpu.asarray(torch.from_numpy(src).cuda()), size=(40, 50, 60))
    assert same_bits(gpu.asnumpy(again), out.cpu().numpy())
    assert pool.total_bytes() == before


class Interface:
    def __init__(self, array):
        self.array, self.__cuda_array_interface__ = array, array.__cuda_array_interface__


def test_interface_objects(gpu):
    src = noise((33, 45, 67))
    out = gr.resample(Interface(gpu.asarray(src)), size=(40, 50, 60))
    assert isinstance(out, gpu.ndarray)
    assert_close(gpu.asnumpy(out), gr.resample(src, size=(40, 50, 60), device="cpu"), ENGINES * np.ptp(src))


def test_host_arrays_and_images(gpu):
    import SimpleITK as sitk

    src = noise((33, 45, 67), "int16")
    image = sitk.GetImageFromArray(src)
    out = gr.resample(image, spacing=(0.9, 0.9, 0.9), device="cuda")
    assert isinstance(out, sitk.Image)
    expected = sitk.GetArrayFromImage(gr.resample(image, spacing=(0.9, 0.9, 0.9), device="cpu"))
    assert_close(sitk.GetArrayFromImage(out), expected, 1)


@pytest.mark.parametrize("scores", ["float32", "float16"])
@pytest.mark.parametrize(
    "options",
    [{}, {"activation": "sigmoid"}, {"activation": None}, {"interpolation": "bspline"}, {"resample_after": True}],
    ids=str,
)
def test_ensembles(gpu, options, scores):
    """Scores on the GPU, and host arrays by way of it."""
    rng = np.random.default_rng(5)
    shapes = [(4, 20, 31, 42), (4, 11, 17, 40)]
    models = [
        (rng.random(s) if options.get("activation", 0) is None else rng.standard_normal(s)).astype(scores)
        for s in shapes
    ]
    asked = {"size": (22, 33, 45), "output": ("labels", "probabilities", "entropy"), **options}
    expected = gr.ensemble(models, device="cpu", **asked)
    there = gr.ensemble([gpu.asarray(m) for m in models], **asked)
    assert all(isinstance(out, gpu.ndarray) for out in there)
    for found in ([gpu.asnumpy(out) for out in there], gr.ensemble(models, device="cuda", **asked)):
        assert (found[0] != expected[0]).mean() <= 1e-4
        for out, right in zip(found[1:], expected[1:], strict=True):
            assert_close(out, right, 1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_modes_of_blocks(gpu, dtype):
    src = labels((21, 34, 45), dtype)
    out = gr.bin_shrink(gpu.asarray(src), (2, 3, 2), reduce="mode")
    assert isinstance(out, gpu.ndarray)
    assert same_bits(gpu.asnumpy(out), gr.bin_shrink(src, (2, 3, 2), reduce="mode", device="cpu"))


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_pool_with_a_limit_is_enough(gpu):
    src = noise((120, 200, 200), "int16")
    expected = gr.resample(src, size=(130, 220, 210), device="cuda")
    pool = gpu.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.used_bytes() + (4 << 20))
    try:
        out = gr.resample(src, size=(130, 220, 210), device="cuda")
    finally:
        pool.set_limit(size=0)
    assert same_bits(out, expected)


@pytest.mark.parametrize("pinned", [False, True])
def test_parts_that_overlap_have_the_bits_of_the_whole(gpu, pinned, monkeypatch):
    src = noise((120, 200, 200), "int16")
    if pinned:
        import cupyx

        held = cupyx.empty_pinned(src.shape, src.dtype)
        held[...] = src
        assert cuda._engine().runtime.is_pinned(held)
        src = held
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 1 << 40)
    whole = gr.resample(src, size=(130, 220, 210), device="cuda")
    monkeypatch.setattr(staging, "OVERLAP_BYTES", 0)
    monkeypatch.setattr(staging, "READ_AGAIN", 100.0)
    for _ in range(5):
        assert same_bits(gr.resample(src, size=(130, 220, 210), device="cuda"), whole)


def test_crops_have_the_bits_of_the_whole(gpu):
    src = gpu.asarray(noise((64, 90, 100), "int16"))
    for like in (ALIGNED, OBLIQUE):
        plan = gr.plan(gr.Volume(src, (1, 1, 1)), like=like, dtype="float32")
        whole = gpu.asnumpy(plan.run(gr.Volume(src, (1, 1, 1))).array)
        block = (slice(3, 31), slice(7, 40), slice(11, 44))
        region = plan.input_region(block)
        part = plan.crop(block)
        source = gr.Volume(src[region], part.source.spacing, part.source.origin, part.source.direction)
        assert same_bits(gpu.asnumpy(part.run(source).array), whole[block].copy())


def turned(k):
    """A matrix [3, 4] that turns about the middle, another for every k."""
    m = rotation(5 + 3 * k, -4, 7 * k)
    centre = np.array([16.0, 22.0, 33.0])
    return np.column_stack([m, centre - m @ centre + k])


def transforms():
    """Paths of every kind of stage, on arrays of SOURCE's shape."""
    rng = np.random.default_rng(6)
    shape = SOURCE.size[::-1]
    field, coarse = rng.normal(0, 1.5, (*shape, 3)), rng.normal(0, 2.0, (9, 8, 7, 3)).astype("float32")
    spline = gr.BSpline(rng.normal(0, 2.0, (7, 8, 9, 3)))
    oblique = gr.Grid((9, 10, 11), (6.0, 5.0, 4.0), (-1.0, -3.0, 0.5), flat(rotation(8, 3, -12)))
    apart = gr.DisplacementField(rng.normal(0, 1.0, (11, 10, 9, 3)), like=oblique)
    return {
        "matrix": turned(1),
        "field": gr.DisplacementField(field),
        "coarse field": gr.DisplacementField(coarse, like=np.empty((9, 8, 7))),
        "oblique field": apart,
        "spline": spline,
        "path": gr.Path([turned(2), spline, gr.DisplacementField(field), turned(0)]),
    }


@pytest.mark.parametrize("name", transforms())
@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline", "label_linear"])
def test_transforms_agree_with_the_cpu_engine(gpu, name, interpolation):
    src = (noise if interpolation in ("linear", "bspline") else labels)(SOURCE.size[::-1], "float32")
    options = {"transform": transforms()[name], "interpolation": interpolation, "default_value": -3}
    out = gr.resample(gpu.asarray(src), **options)
    expected = gr.resample(src, device="cpu", **options)
    assert isinstance(out, gpu.ndarray)
    assert (expected != -3).mean() > 0.2
    chosen = interpolation not in ("linear", "bspline")
    assert_close(gpu.asnumpy(out), expected, 0 if chosen else ENGINES * float(np.ptp(src)))


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "bspline"])
def test_a_batch_of_transforms_is_one_launch(gpu, interpolation):
    src = noise((6, 30, 40, 50))
    matrices = [turned(k) for k in range(6)]
    launches = cuda._engine().runtime.launches
    before = dict(launches)
    out = gpu.asnumpy(gr.resample(gpu.asarray(src), transform=matrices, interpolation=interpolation))
    gathers = [name for name in launches if name.startswith("gather") and launches[name] > before.get(name, 0)]
    assert sum(launches[name] - before.get(name, 0) for name in gathers) == 1
    for one, volume, matrix in zip(out, src, matrices, strict=True):
        alone = gr.resample(gpu.asarray(volume), transform=matrix, interpolation=interpolation)
        assert same_bits(one, gpu.asnumpy(alone))


@pytest.mark.parametrize("name", transforms())
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_gradients_are_transposed_and_repeat(gpu, name, interpolation):
    """<A x, y> = <x, A'y>, and the same bits again."""
    shape = SOURCE.size[::-1]
    plan = gr.plan(shape, transform=transforms()[name], interpolation=interpolation, dtype="float64")
    engine = cuda._engine()
    x, y = (gpu.asarray(noise((1, *shape), "float64", seed=k)) for k in (1, 2))
    out, back, again = gpu.empty_like(y), gpu.empty_like(x), gpu.empty_like(x)
    engine.run(plan.work, x, out, Store())
    engine.splat(plan.work, y, back)
    engine.splat(plan.work, y, again)
    assert same_bits(gpu.asnumpy(back), gpu.asnumpy(again))
    left, right = float((out * y).sum()), float((x * back).sum())
    assert abs(left - right) <= 1e-12 * float(gpu.abs(out * y).sum())


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_slopes_are_differences(gpu, interpolation):
    """Derivatives along the source's axes, against moving every voxel a little."""
    shape = (20, 22, 24)
    src, step = noise(shape, "float64"), 1e-6

    def at(offset):
        moved = turned(1) + np.column_stack([np.zeros((3, 3)), offset])
        return gr.plan(shape, transform=moved, interpolation=interpolation, boundary="mirror", dtype="float64")

    engine, x = cuda._engine(), gpu.asarray(src[None])
    out = gpu.empty((1, 3, *shape))
    engine.gradient(at(np.zeros(3)).work, x, out)
    for k in range(3):
        ahead, behind = gpu.empty((1, *shape)), gpu.empty((1, *shape))
        engine.run(at(step * np.eye(3)[2 - k]).work, x, ahead, Store())
        engine.run(at(-step * np.eye(3)[2 - k]).work, x, behind, Store())
        difference = gpu.asnumpy((ahead - behind) / (2 * step))
        apart = np.abs(gpu.asnumpy(out)[:, k] - difference)
        # Linear sums have a kink where a voxel lies on a sample.
        assert np.quantile(apart, 0.999) < 1e-4 * float(np.ptp(src))


@pytest.mark.slow
def test_more_than_2_to_the_31_voxels(gpu):
    """A ramp in bytes, whose far end lies past the reach of 32-bit offsets."""
    shape = (520, 2048, 2048)
    if gpu.cuda.runtime.memGetInfo()[0] < 6 << 30:
        pytest.skip("needs 6 GiB of GPU memory")
    src = gpu.empty(shape, np.uint8)
    src[...] = (gpu.arange(shape[0]) % 251).astype(np.uint8)[:, None, None]
    work = planner.make_work(
        gr.Grid.of_size(shape[::-1]), gr.Grid((8, 2048, 520), (256.0, 1.0, 1.0), (0.0,) * 3, flat(rotation(0, 0, 0))),
        (), "linear", None, False, "single",
    )  # fmt: skip
    out = gpu.empty((520, 2048, 8), np.float32)
    cuda._engine().run(work, src, out, Store())
    compiled = {types.idx for _, types in cuda._engine().runtime.compilations}
    assert "int64" in compiled
    expected = np.broadcast_to((np.arange(520) % 251).astype(np.float32)[:, None, None], out.shape)
    assert same_bits(gpu.asnumpy(out), np.ascontiguousarray(expected))


def test_the_cpu_engine_is_not_what_ran(gpu, monkeypatch):
    def refuse(*_):
        raise AssertionError("the CPU engine was asked")

    monkeypatch.setattr(cpu, "run", refuse)
    out = gr.resample(gpu.asarray(noise((9, 34, 41))), size=(7, 40, 33))
    assert isinstance(out, gpu.ndarray)
    gr.resample(noise((9, 34, 41)), size=(7, 40, 33), device="cuda")
