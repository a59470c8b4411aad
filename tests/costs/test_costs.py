"""What a job costs before it runs: counts against the tables, memory against what is allocated, rates on disk."""

import inspect
import json
import math
import os
import threading
import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import flat, noise, rotation

import gpuresample as gr
from gpuresample.bench import calibration, phantom
from gpuresample.cli import plan_cost, resample
from gpuresample.costs import estimate as costs
from gpuresample.costs import rates
from gpuresample.engines.cpu import tables
from gpuresample.files import disk
from gpuresample.files import volumes as files
from gpuresample.ops import gaussian, shrink
from gpuresample.planning import shortcuts
from gpuresample.plans import call_of

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
UNIT = rates.Rates({}, 0.0, dict.fromkeys(rates.NAMES, 1e-9))


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


@pytest.mark.parametrize(("source", "target"), [("int16", "float32"), ("float32", "uint8"), ("int32", "int16")])
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
    due = dict(costs.terms(call_of(plan)))
    assert due.get("mean") == (None if dtype in ("uint64", "float16") else image.size)


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


# --- time ----------------------------------------------------------------------------------------------------------


def test_without_rates_there_are_no_times(tmp_path, monkeypatch):
    monkeypatch.setenv(rates.ENVIRONMENT, str(tmp_path))
    cost = planned("bspline", "int16")[0].cost()
    assert cost.seconds is None
    assert cost.total_seconds is None


@pytest.mark.parametrize("name", JOBS)
def test_times_are_sums_of_rates(name):
    plan, _ = planned(name, "int16")
    one = plan.cost(machine=UNIT)
    assert set(one.seconds) == set(costs.STEPS)
    assert {step for step, value in one.seconds.items() if value} == {"resample"}
    twice = rates.Rates({}, 0.0, dict.fromkeys(rates.NAMES, 2e-9))
    assert plan.cost(machine=twice).total_seconds == pytest.approx(2 * one.total_seconds)
    assert plan.cost(volumes=7, machine=UNIT).total_seconds == pytest.approx(7 * one.total_seconds)
    assert plan.cost(volumes=7, machine=UNIT).peak_bytes == one.peak_bytes
    assert {rate for rate, _ in costs.terms(call_of(plan))} <= set(rates.NAMES)


def test_times_of_files():
    plan, _ = planned("linear", "int16")
    n, m = 2 * math.prod(SHAPE), 2 * math.prod(plan.output_shape)
    raw = plan.cost(read="raw", write="raw", machine=UNIT).seconds
    assert raw["read"] == pytest.approx(1e-9 * (1 + n))
    assert raw["write"] == pytest.approx(1e-9 * (1 + m))
    assert raw["decompress"] == raw["compress"] == 0
    zipped = plan.cost(read="gzip", write="gzip", file_bytes=n // 4, machine=UNIT).seconds
    assert zipped["decompress"] == pytest.approx(1e-9 * (n + n / 4), rel=1e-6)
    assert zipped["compress"] == pytest.approx(1e-9 * (m + m / 4), rel=1e-6)
    slow = plan.cost(read="raw", write="none", storage=1e6, machine=UNIT).seconds
    assert slow["read"] == pytest.approx(n / 1e6, rel=1e-6)
    assert slow["write"] == 0
    # The image that goes to a file is SimpleITK's, and cleared first.
    array = plan.cost(machine=UNIT).seconds["resample"]
    assert raw["resample"] == pytest.approx(array + 1e-9 * m)


def test_files_that_are_not_in_the_page_cache():
    plan, _ = planned("linear", "int16")
    n = 2 * math.prod(SHAPE)
    machine = rates.Rates({}, 0.0, {**UNIT.values, "cold_byte": 5e-9})
    raw = plan.cost(read="raw", volumes=3, machine=machine)
    assert raw.cold_read == pytest.approx(3e-9 * (1 + 5 * n))
    assert raw.seconds["read"] == pytest.approx(3e-9 * (1 + n))
    zipped = plan.cost(read="gzip", file_bytes=n // 4, machine=machine)
    assert zipped.cold_read == pytest.approx(1e-9 * (1 + 5 * n / 4), rel=1e-6)
    # A storage that is named is not the disk that was measured.
    named = plan.cost(read="raw", storage=5e8, machine=machine)
    assert named.cold_read == named.seconds["read"] == pytest.approx(1e-9 * (1 + 2 * n))
    assert plan.cost(machine=machine).cold_read == 0


def test_a_file_can_be_dropped_from_the_page_cache(tmp_path, monkeypatch):
    path = tmp_path / "a.raw"
    path.write_bytes(bytes(range(256)) * 4096)
    disk.to_disk(path)
    assert disk.forget(path) is hasattr(os, "posix_fadvise")
    assert path.read_bytes() == bytes(range(256)) * 4096
    monkeypatch.delattr(os, "posix_fadvise", raising=False)
    assert disk.forget(path) is False
    assert calibration._cold(path) == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"channels": 0}, "channels must be 1 whole numbers of at least 1, got"),
        ({"volumes": 1.5}, "volumes must be 1 whole numbers"),
        ({"read": "zip"}, "read must be one of 'none', 'raw', 'gzip', got 'zip'"),
        ({"write": "nii"}, "write must be one of"),
        ({"file_bytes": -1}, "file_bytes must be"),
        ({"storage": 0}, "storage must be above zero"),
        ({"storage": (1,)}, "storage must be 1 finite numbers"),
        ({"storage": 10**400}, "storage must be 1 finite numbers"),
        ({"volumes": 10**400}, "volumes must be 1 whole numbers of at least 1 and at most"),
        ({"volumes": 2**63}, "volumes must be 1 whole numbers of at least 1 and at most"),
        ({"file_bytes": 10**400}, "file_bytes must be 1 whole numbers of at least 1 and at most"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(wrong, message):
    with pytest.raises((ValueError, TypeError), match=message):
        planned("linear", "int16")[0].cost(**wrong)


# --- rates ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(rates.ENVIRONMENT, str(tmp_path / "cache"))
    return tmp_path / "cache"


def present(**changes):
    import time

    return rates.Rates(rates.identity() | changes.pop("machine", {}), changes.pop("measured", time.time()), UNIT.values)


def test_rates_are_stored_and_found(cache):
    assert rates.load() is None
    stored = rates.save(present())
    assert stored == rates.path()
    assert stored.parent == cache
    assert rates.load().values == UNIT.values
    assert rates.current().stale == ""
    assert [p.name for p in cache.iterdir()] == [stored.name]
    assert planned("linear", "int16")[0].cost().total_seconds > 0


def test_every_number_of_threads_has_rates_of_its_own(cache, threads):
    threads(1)
    one = rates.path()
    threads(2)
    assert rates.path() != one


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"machine": {"numba": "0.0"}}, "numba was 0.0, now "),
        ({"machine": {"gpuresample": "0.0"}}, "gpuresample was 0.0"),
        ({"measured": 0.0}, "older than 180 days"),
        ({"measured": 1e12}, "older than"),
    ],
    ids=str,
)
def test_stale_rates_are_measured_again(cache, changes, why, monkeypatch):
    rates.save(present(**changes))
    assert why in rates.load().stale
    assert rates.current() is None
    fresh = present()
    monkeypatch.setattr(calibration, "calibrate", lambda: fresh)
    assert calibration.machine() is fresh


def test_fresh_rates_are_not_measured_again(cache, monkeypatch):
    rates.save(present())
    monkeypatch.setattr(calibration, "calibrate", lambda: pytest.fail("measured again"))
    assert calibration.machine().values == UNIT.values


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"values": {}}', "null", "\x00"])
def test_damaged_rates_are_none(cache, content):
    rates.save(present()).write_text(content)
    assert rates.load() is None


def test_negative_and_missing_rates_are_none(cache):
    path = rates.save(present())
    good = json.loads(path.read_text())
    path.write_text(json.dumps(good | {"values": good["values"] | {"call": -1.0}}))
    assert rates.load() is None
    del good["values"]["call"]
    path.write_text(json.dumps(good))
    assert rates.load() is None


def test_writers_at_once_leave_a_whole_file(cache):
    writers = [threading.Thread(target=lambda: rates.save(present())) for _ in range(8)]
    for t in writers:
        t.start()
    for t in writers:
        assert rates.load() is None or rates.load().stale == ""
        t.join()
    assert rates.current() is not None
    assert len(list(cache.iterdir())) == 1


def test_calibration_measures_every_rate(cache, monkeypatch):
    monkeypatch.setattr(calibration, "SIZE", (64, 48, 40))
    monkeypatch.setattr(calibration, "SMALL", (32, 24, 20))
    monkeypatch.setattr(calibration, "LARGE_BYTES", 1 << 21)
    monkeypatch.setattr(calibration, "RAW_BYTES", 1 << 21)
    monkeypatch.setattr(calibration, "BUDGET", 0.0)
    found = gr.calibrate(store=False)
    assert not cache.exists()
    assert set(found.values) == set(rates.NAMES)
    assert all(math.isfinite(value) and value >= 0 for value in found.values.values())
    # What cannot be nothing, on any machine.
    for name in ("wide_single", "wide_double", "few_single", "gather_cubic_single", "vote_gaussian", "call", "file"):
        assert found[name] > 0
    assert found.stale == ""


# --- the command line ----------------------------------------------------------------------------------------------


@pytest.fixture
def ct(tmp_path):
    path = tmp_path / "ct.nii.gz"
    files.write(phantom.phantom((48, 40, 20)), path)
    return path


def test_plan_cost_says_what_the_plan_says(run, ct, cache):
    rates.save(present())
    code, out, err = run("plan-cost", ct, "--spacing", "9", "9", "15", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    plan = gr.plan(files.read(ct), spacing=(9, 9, 15), device="cpu")
    wanted = plan.cost(read="gzip", write="gzip", file_bytes=ct.stat().st_size)
    assert said["seconds"] == wanted.seconds
    for name in ("multiply_adds", "peak_bytes", "scratch_bytes", "moved_bytes", "input_bytes", "output_bytes"):
        assert said[name] == getattr(wanted, name)
    assert said["output"]["size"] == list(plan.target.size)
    assert said["rates_file"] == str(rates.path())
    code, out, _ = run("plan-cost", ct, "--spacing", "9", "9", "15")
    assert code == 0
    for word in ("taps", "peak memory", "decompress", str(rates.path())):
        assert word in out.replace("\n", "")


def test_plan_cost_without_a_file(run, cache):
    rates.save(present())
    asked = ("--input-size", "64", "60", "31", "--input-spacing", "0.8", "0.8", "1", "--type", "uint8")
    code, out, err = run("plan-cost", *asked, "--spacing", "1", "1", "2", "--volumes", "50", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    image = gr.Volume(np.zeros((31, 60, 64), np.uint8), (0.8, 0.8, 1))
    wanted = gr.plan(image, spacing=(1, 1, 2), device="cpu").cost(volumes=50, read="gzip", write="gzip")
    assert said["seconds"] == wanted.seconds
    assert said["volumes"] == 50


def test_plan_cost_knows_vectors_and_series(run, cache, tmp_path):
    rates.save(present())
    series = sitk.JoinSeries([volume()] * 3)
    files.write(series, tmp_path / "series.nrrd")
    code, out, _ = run("plan-cost", tmp_path / "series.nrrd", "--spacing", "1.1", "--output-format", "none", "--json")
    assert code == 0
    said = json.loads(out)
    assert said["input_bytes"] == 3 * 2 * 24 * 20 * 12
    assert said["input"]["file"] == "raw"
    assert said["seconds"]["write"] == 0


def test_plan_cost_takes_every_option_of_resample(run, ct, cache, tmp_path):
    mine, theirs = (inspect.signature(f).parameters for f in (plan_cost.plan_cost, resample.resample))
    shared = [p for name, p in theirs.items() if name not in ("source", "target", "overwrite")]
    assert [(p.name, p.default, p.annotation) for p in shared] == [
        (mine[p.name].name, mine[p.name].default, mine[p.name].annotation) for p in shared
    ]
    rates.save(present())
    files.write(volume(size=(9, 10, 11)), tmp_path / "other.nrrd")
    for options in (
        ["--like", tmp_path / "other.nrrd", "--interpolation", "nearest"],
        ["--spacing", "2", "--antialias", "--dtype", "float32", "--boundary", "nearest", "--rounding", "truncate"],
        ["--size", "10", "11", "12", "--anchor", "edge", "--default-value", "-5"],
        ["--spacing", "2", "--convention", "scipy"],
    ):
        code, out, err = run("plan-cost", ct, *options, "--json")
        assert (code, err) == (0, ""), options
        assert json.loads(out)["total_seconds"] > 0


def test_plan_cost_for_another_number_of_threads(run, ct, cache, threads):
    threads(1)
    rates.save(present())
    threads(2)
    code, out, _ = run("plan-cost", ct, "--spacing", "2", "--threads", "1", "--json")
    assert code == 0
    assert json.loads(out)["machine"]["threads"] == 1


def test_plan_cost_measures_on_first_use_and_when_asked(run, ct, cache, monkeypatch):
    measured = []

    def calibrate(store=True):
        measured.append(store)
        return present()

    monkeypatch.setattr(calibration, "calibrate", calibrate)
    assert run("plan-cost", ct, "--spacing", "2")[0] == 0
    assert run("plan-cost", ct, "--spacing", "2")[0] == 0
    assert measured == [False]
    assert rates.current() is not None
    code, out, _ = run("plan-cost", "--calibrate")
    assert code == 0
    assert str(rates.path()) in out.replace("\n", "")
    assert len(measured) == 2


def test_plan_cost_works_where_nothing_can_be_stored(run, ct, cache, monkeypatch):
    cache.write_text("a file where the folder should be")
    monkeypatch.setattr(calibration, "calibrate", lambda store=True: present())
    code, out, err = run("plan-cost", ct, "--spacing", "2")
    assert code == 0
    assert "peak memory" in out
    assert err.startswith("warning: rates cannot be stored")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--spacing", "2"], "a file or --input-size says what is resampled"),
        (["--input-size", "0", "4", "4", "--spacing", "2"], "--input-size takes 2 or 3 whole numbers of at least 1"),
        (["--input-size", "4", "4", "4", "--input-spacing", "1", "1", "--spacing", "2"], "--input-spacing takes 3"),
        (["--input-size", "4", "4", "4", "--type", "voxels", "--spacing", "2"], "--type must be a voxel type"),
        (["--input-size", "4", "4", "4", "--input-format", "jpg", "--spacing", "2"], "--input-format must be none or"),
        (["--input-size", "4", "4", "4", "--spacing", "2", "--device", "cuda"], "--device must be auto or cpu"),
        (["--input-size", "4", "4", "4", "--spacing", "-1"], "spacing must be above zero"),
        (["--input-size", "4", "4", "4", "--volumes", "0", "--spacing", "2"], "volumes"),
    ],
    ids=str,
)
def test_plan_cost_refuses(run, cache, options, message):
    rates.save(present())
    refused(run("plan-cost", *options), 2, message)


def test_plan_cost_refuses_a_file_and_a_size(run, ct, cache):
    rates.save(present())
    refused(run("plan-cost", ct, "--input-size", "4", "4", "4", "--spacing", "2"), 2, "are for jobs without a file")
    refused(run("plan-cost", "nothing.nii", "--spacing", "2"), 1, "no such file")
