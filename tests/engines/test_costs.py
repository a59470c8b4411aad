"""What a job costs before it runs: counts against the tables, memory against what is allocated."""

import inspect
import json
import math
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import flat, noise, rotation

import gpuresample as gr
from gpuresample.bench import phantom
from gpuresample.cli import plan_cost, resample
from gpuresample.engines.cpu import tables
from gpuresample.files import volumes as files
from gpuresample.ops import gaussian, shrink
from gpuresample.planning import shortcuts

SHAPE = (40, 90, 100)
TURNED = gr.Grid((90, 80, 40), (1.0, 1.0, 1.0), (3.0, 2.0, -1.0), flat(rotation(9, 13, -17)))
JOBS = {
    "linear": {"spacing": (1.3, 0.8, 1.1), "interpolation": "linear"},
    "bspline": {"spacing": (1.3, 1.1, 0.9)},
    "bspline, wide x": {"spacing": (1.0, 1.7, 0.7)},
    "antialias": {"spacing": 2.1, "antialias": True},
    "nearest": {"spacing": 0.9, "interpolation": "nearest"},
    "a corner": {"size": (6, 8, 9), "spacing": (1.3, 1.3, 1.3)},
    "turned linear": {"like": TURNED, "interpolation": "linear"},
    "turned bspline": {"like": TURNED},
    "turned nearest": {"like": TURNED, "interpolation": "nearest"},
}


def planned(name, source, **more):
    options = JOBS[name] | more
    array = noise(SHAPE, source)
    image = gr.Volume(array, (1, 1, 1)) if "like" in options else array
    return gr.plan(image, device="cpu", **options), image


# --- counts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["linear", "bspline", "bspline, wide x", "antialias"])
def test_multiply_adds_are_those_of_the_tables(name):
    plan, _ = planned(name, "int16")
    cost = plan.cost(channels=2, volumes=3)
    size = [hi - lo for lo, hi in (t.source_range() for t in plan.work.tables)]
    adds = 0
    for axis in plan.work.order:
        table = plan.work.tables[axis]
        size[axis] = 1
        adds += math.prod(size) * int(table.count.sum())  # every row's taps, on every line of the other axes
        size[axis] = table.n_dst
    assert cost.multiply_adds == 6 * adds
    assert cost.order == tuple("zyx"[axis] for axis in plan.work.order)
    for axis, mean in enumerate(cost.taps):
        assert mean == (plan.work.tables[axis].count.mean() if axis in plan.work.order else 0)


def test_rotated_grids_count_their_neighbourhoods():
    voxels = math.prod(TURNED.size)
    assert planned("turned linear", "int16")[0].cost().multiply_adds == 8 * voxels
    cost = planned("turned bspline", "int16")[0].cost()
    prefilter = cost.multiply_adds - 64 * voxels
    assert cost.taps[3] == 64
    assert prefilter == pytest.approx(math.prod(SHAPE) * sum(cost.taps[:3]), rel=1e-9)
    assert planned("turned nearest", "int16")[0].cost().multiply_adds == 0


def test_a_shortcut_counts_what_it_does():
    plain = gr.plan(np.zeros(SHAPE, np.float32), spacing=2.0, antialias=6.0).cost()
    assert plain.multiply_adds > 0
    # A blur this wide goes by way of a coarse grid, in a fraction of the plain taps.
    image = np.broadcast_to(np.float32(0), (300, 300, 300))
    plan = plan_of(gaussian, lambda: gr.gaussian(image, sigma=12.0))
    assert plan.work.shortcut
    cost = plan.cost()
    whole = sum(cost.taps) * image.size
    assert 0 < cost.multiply_adds < 0.5 * whole


def plan_of(module, call):
    """The plan of a call that is no resampling, taken where it is run."""
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "execute", lambda plan, container, out=None: taken.append(plan))
        call()
    return taken[0]


def test_bytes_are_of_what_is_read_and_written():
    plan, _ = planned("a corner", "int16", dtype="float32")
    cost = plan.cost(volumes=5)
    region = plan.input_region([slice(0, n) for n in plan.output_shape])
    read = math.prod(s.stop - s.start for s in region)
    assert cost.input_bytes == 5 * 2 * math.prod(SHAPE)
    assert cost.output_bytes == 5 * 4 * math.prod(plan.output_shape)
    assert cost.moved_bytes == 5 * 2 * read + cost.output_bytes
    assert read < math.prod(SHAPE)


# --- memory --------------------------------------------------------------------------------------------------------


def peak_of(plan, image):
    """What NumPy holds at most during a run, scratch of all threads included."""
    tables._scratch.__dict__.clear()
    tracemalloc.start()
    try:
        plan.run(image)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("n", [1, 2])
def test_peak_memory_is_what_is_allocated(name, dtype, n, threads):
    plan, image = planned(name, dtype)
    plan.run(image)
    threads(n)  # a new pool: no scratch of earlier jobs
    cost = plan.cost()
    got = peak_of(plan, image)
    # With two threads one may do all the blocks; then its scratch is the only one.
    least = cost.peak_bytes - (cost.threads - 1) * cost.scratch_bytes
    assert 0.93 * least - 200_000 <= got <= 1.07 * cost.peak_bytes + 200_000


@pytest.mark.parametrize(
    ("source", "target"),
    [("int16", "float32"), ("float32", "uint8"), ("int32", "int16"), ("float16", "uint32"), ("float64", "int8")],
)
def test_peak_memory_of_labels_in_another_type(source, target, threads):
    threads(1)
    plan, image = planned("nearest", source, dtype=target)
    plan.run(image)
    assert peak_of(plan, image) == pytest.approx(plan.cost().peak_bytes, rel=0.1, abs=100_000)


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint64", "float16"])
def test_peak_memory_of_block_means(dtype, threads):
    """Summed by a loop of their own, and by tables where no such sums are exact."""
    threads(1)
    image = noise((42, 90, 96), "float32").astype(dtype)
    plan = plan_of(shrink, lambda: gr.bin_shrink(image, 2))
    plan.run(image)
    assert peak_of(plan, image) == pytest.approx(plan.cost().peak_bytes, rel=0.1, abs=50_000)


@pytest.mark.parametrize("dtype", ["int8", "uint32"])
def test_peak_memory_of_one_plane_in_another_type(dtype, threads):
    """Sums become rare integers piece by piece, where an image is one plane, too."""
    threads(1)
    image = np.resize(np.arange(100, dtype=dtype), (700, 800))
    plan = gr.plan(image, spacing=1.1, interpolation="linear", device="cpu")
    plan.run(image)
    assert peak_of(plan, image) == pytest.approx(plan.cost().peak_bytes, rel=0.03, abs=100_000)


def test_peak_memory_of_a_wide_blur(threads, monkeypatch):
    threads(1)
    monkeypatch.setattr(shortcuts, "LEAST_COST", 0)  # of a small volume, too
    image = noise((96, 90, 100), "float32")
    plan = plan_of(gaussian, lambda: gr.gaussian(image, sigma=12.0))
    assert plan.work.shortcut
    plan.run(image)
    assert peak_of(plan, image) == pytest.approx(plan.cost().peak_bytes, rel=0.1, abs=100_000)


def test_peak_memory_of_a_displaced_grid(threads):
    threads(1)
    image = gr.Volume(noise(SHAPE, "int16"), (0.8, 0.8, 1.5))
    field = sitk.GetImageFromArray(np.full((5, 5, 5, 3), 1.5), isVector=True)
    field.SetSpacing([25.0, 22.0, 10.0])
    plan = gr.plan(image, transform=sitk.DisplacementFieldTransform(field), interpolation="linear", device="cpu")
    assert not plan.work.routes[0].lines
    plan.run(image)
    cost = plan.cost()
    got = peak_of(plan, image)
    assert cost.output_bytes < got <= 1.1 * cost.peak_bytes + 100_000


def test_peak_memory_of_a_turned_batch(threads):
    """The coefficients of a volume are given up before those of the next one are made."""
    threads(1)
    images = np.stack([noise((40, 60, 70), "int16")] * 3)
    turn = np.eye(3, 4)
    turn[0, 1] = 0.05
    plan = gr.plan(images, transform=turn, interpolation="bspline", device="cpu")
    plan.run(images)
    most = images.nbytes + plan.scratch_bytes(lead=3)
    assert most - 100_000 <= peak_of(plan, images) <= most + 100_000


def test_scratch_is_the_engines_own(threads):
    threads(1)
    plan, image = planned("bspline", "int16")
    gr.clear_caches()
    plan.run(image)
    held = sum(buffer.nbytes for buffer in tables._scratch.buffers.by_type.values())
    assert plan.cost().scratch_bytes == held > 0


@pytest.mark.parametrize("name", JOBS)
def test_another_number_of_threads_may_be_asked_for(name, threads):
    plan, _ = planned(name, "int16")
    threads(3)
    cost = plan.cost()
    threads(1)
    assert plan.scratch_bytes(threads=3) == cost.peak_bytes - cost.output_bytes


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "channels must be 1 whole numbers of at least 1, got"),
        ({"volumes": 1.5}, "volumes must be 1 whole numbers"),
        ({"volumes": 10**400}, "volumes must be 1 whole numbers of at least 1 and at most"),
        ({"volumes": 2**63}, "volumes must be 1 whole numbers of at least 1 and at most"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        planned("linear", "int16")[0].cost(**wrong)


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def ct(tmp_path):
    path = tmp_path / "ct.nii.gz"
    files.write(phantom.phantom((48, 40, 20)), path)
    return path


def test_plan_cost_says_what_the_plan_says(run, ct):
    code, out, err = run("plan-cost", ct, "--spacing", "9", "9", "15", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    plan = gr.plan(files.read(ct), spacing=(9, 9, 15), device="cpu")
    assert {name: said[name] for name in asdict(plan.cost())} == json.loads(json.dumps(asdict(plan.cost())))
    assert said["output"]["size"] == list(plan.target.size)
    code, out, _ = run("plan-cost", ct, "--spacing", "9", "9", "15")
    assert code == 0
    for word in ("taps", "peak memory", f"{plan.cost().multiply_adds:,}"):
        assert word in out.replace("\n", "")


def test_plan_cost_without_a_file(run):
    asked = ("--input-size", "64", "60", "31", "--input-spacing", "0.8", "0.8", "1", "--type", "uint8")
    code, out, err = run("plan-cost", *asked, "--spacing", "1", "1", "2", "--volumes", "50", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    image = gr.Volume(np.zeros((31, 60, 64), np.uint8), (0.8, 0.8, 1))
    wanted = gr.plan(image, spacing=(1, 1, 2), device="cpu").cost(volumes=50)
    assert said["multiply_adds"] == wanted.multiply_adds > 0
    assert said["volumes"] == 50


def test_plan_cost_knows_vectors_and_series(run, tmp_path):
    series = sitk.JoinSeries([volume()] * 3)
    files.write(series, tmp_path / "series.nrrd")
    code, out, _ = run("plan-cost", tmp_path / "series.nrrd", "--spacing", "1.1", "--json")
    assert code == 0
    assert json.loads(out)["input_bytes"] == 3 * 2 * 24 * 20 * 12


def test_plan_cost_takes_every_option_of_resample(run, ct, tmp_path):
    mine, theirs = (inspect.signature(f).parameters for f in (plan_cost.plan_cost, resample.resample))
    shared = [p for name, p in theirs.items() if name not in ("source", "target", "overwrite", "level")]
    assert [(p.name, p.default, p.annotation) for p in shared] == [
        (mine[p.name].name, mine[p.name].default, mine[p.name].annotation) for p in shared
    ]
    files.write(volume(size=(9, 10, 11)), tmp_path / "other.nrrd")
    for options in (
        ["--like", tmp_path / "other.nrrd", "--interpolation", "nearest"],
        ["--spacing", "2", "--antialias", "--dtype", "float32", "--boundary", "nearest", "--rounding", "truncate"],
        ["--size", "10", "11", "12", "--anchor", "edge", "--default-value", "-5"],
        ["--spacing", "2", "--convention", "scipy"],
    ):
        code, out, err = run("plan-cost", ct, *options, "--json")
        assert (code, err) == (0, ""), options
        assert json.loads(out)["peak_bytes"] > 0


def test_plan_cost_for_another_number_of_threads(run, ct, threads):
    threads(2)
    code, out, _ = run("plan-cost", ct, "--spacing", "2", "--threads", "1", "--json")
    assert code == 0
    assert json.loads(out)["threads"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spacing", "2"], "a file or --input-size says what is resampled"),
        (["--input-size", "0", "4", "4", "--spacing", "2"], "--input-size takes 2 or 3 whole numbers of at least 1"),
        (["--input-size", "4", "4", "4", "--input-spacing", "1", "1", "--spacing", "2"], "--input-spacing takes 3"),
        (["--input-size", "4", "4", "4", "--type", "voxels", "--spacing", "2"], "--type must be a voxel type"),
        (["--input-size", "4", "4", "4", "--spacing", "2", "--device", "cuda"], "--device must be auto or cpu"),
        (["--input-size", "4", "4", "4", "--spacing", "-1"], "spacing must be above zero"),
        (["--input-size", "4", "4", "4", "--volumes", "0", "--spacing", "2"], "volumes"),
    ],
    ids=str,
)
def test_plan_cost_refuses(run, options, message):
    refused(run("plan-cost", *options), 2, message)


def test_plan_cost_refuses_a_file_and_a_size(run, ct):
    refused(run("plan-cost", ct, "--input-size", "4", "4", "4", "--spacing", "2"), 2, "are for jobs without a file")
    refused(run("plan-cost", "nothing.nii", "--spacing", "2"), 1, "no such file")
