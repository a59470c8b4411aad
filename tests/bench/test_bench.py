"""`gpuresample bench`, its rows, checks and tables, at sizes that cost seconds; real peers, real answers."""

import dataclasses
import importlib.util
import math
import sys
import tomllib
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from fake_cupy import FAKE
from support import noise

import gpuresample as gr
from benchmarks import readme
from gpuresample import Grid
from gpuresample.bench import (
    cases,
    devices,
    ensemble_cases,
    exact,
    listing,
    measure,
    peers,
    records,
    resampling_cases,
    suite,
    targets,
    timing,
)
from gpuresample.bench.peers import GPU_PEERS, PEERS
from gpuresample.bench.tasks import compare
from gpuresample.bench.timed import Clock
from gpuresample.engines.cuda import engine as cuda
from gpuresample.planning.grid import resized

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
from gpuresample.bench.targets import verdicts

# However slow a busy machine is, peaks are looked at.
TINY = dataclasses.replace(suite.PROFILES["tiny"], again=math.inf)
# What `bench` runs is measured by pytest-benchmark, an extra that the tests can do without.
needs_benchmark = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None,
    reason="pytest-benchmark is the extra gpuresample[bench]",
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Times mean nothing here."""
    monkeypatch.setattr(measure, "SETTLE", 0.0)
    monkeypatch.setattr(measure, "BUSY", 0.0)


@pytest.fixture(scope="module")
def named():
    return {case.name: case for case in suite.named(TINY, gpu=False)}


def found_of(case):
    """What a session finds out about every doer of a case."""
    rows = [suite.Row("case", case, d) for d in case.doers]
    session = timing.Session(rows, TINY)
    return {row.doer.key: session.measured(row) for row in rows}


# --- checks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["ct-recipe-linear", "labels-nearest", "series-4d-bspline", "oblique-bspline", "gaussian-sampled-1", "pyramid",
     "block-modes", "ensemble-2x12"],
)  # fmt: skip
def test_every_answer_is_right_and_timed(named, name):
    found = found_of(named[name])
    assert "gpuresample" in found
    assert len(found) > 1
    assert {key: f.check for key, f in found.items() if f.check not in ("ok", "judge")} == {}
    assert all(f.failed == "" and f.seconds and min(f.seconds) > 0 for f in found.values())


def test_a_fast_wrong_answer_is_listed_as_wrong(named):
    case = named["ct-recipe-bspline"]

    def shifted(job):
        right = PEERS["scipy"].prepare(job)()
        return lambda: np.roll(right, 1, axis=2)

    doers = tuple(dataclasses.replace(d, prepare=shifted) if d.key == "scipy" else d for d in case.doers)
    found = found_of(dataclasses.replace(case, doers=doers))
    assert found["scipy"].check == "WRONG"
    assert found["scipy"].error > 0.01
    assert found["scipy"].seconds
    assert found["gpuresample"].check == "ok"


def test_a_wrong_answer_of_ours_is_wrong_by_the_reference_alone(named):
    case = named["brain-mr-bspline"]

    def off(job):
        right = gr.resample(
            gr.Volume(job.volume, job.geometry.source.spacing), spacing=job.new[::-1], interpolation="bspline"
        ).array
        return lambda: right + 2e-3 * np.ptp(job.volume)

    doers = tuple(dataclasses.replace(d, prepare=off) if d.key == "gpuresample-as-scipy" else d for d in case.doers)
    found = found_of(dataclasses.replace(case, doers=doers))
    assert found["gpuresample-as-scipy"].check == "WRONG"


@pytest.mark.parametrize("more", [0, 1])
def test_truncated_sums_may_be_wrong_by_a_unit_and_their_own_error(named, more):
    """The range is the whole series': here that of the second volume, and only the first is looked at."""
    case = named["series-4d-bspline"]

    def uneven():
        stack = case.make()
        array = np.stack([stack.array[0] // 4, *stack.array[1:]])
        return resampling_cases.Stack(array, dataclasses.replace(stack.job, volume=array[0]))

    def truncated(stack):
        sums = PEERS["scipy"].prepare(stack.jobs()[0].of_type(np.float64))()
        low = np.floor(sums - 1.5e-6 * np.ptp(stack.array)) - more
        return lambda: np.stack([low, low]).astype(np.int16)

    doers = tuple(
        dataclasses.replace(d, prepare=truncated) if d.key == "gpuresample-as-scipy" else d for d in case.doers
    )
    found = found_of(dataclasses.replace(case, make=uneven, doers=doers))["gpuresample-as-scipy"]
    assert found.check == ("WRONG" if more else "ok")
    assert found.error * np.ptp(uneven().array) == pytest.approx(1 + more, abs=0.05)


def test_a_peer_that_fails_has_no_times_and_ours_must_not_fail(named):
    def broken(data):
        raise MemoryError("no room")

    def with_broken(peer):
        case = named["ct-recipe-nearest"]
        doers = tuple(dataclasses.replace(d, prepare=broken) if d.key == peer else d for d in case.doers)
        return dataclasses.replace(case, doers=doers)

    found = found_of(with_broken("volresample" if PEERS["volresample"].installed else "scipy"))
    failed = [f for f in found.values() if f.failed]
    assert [f.failed for f in failed] == ["MemoryError: no room"]
    assert failed[0].seconds == []
    with pytest.raises(MemoryError):
        found_of(with_broken("gpuresample"))


def test_compare():
    array = noise((4, 5, 6), "int16")
    assert compare(array, array + np.int16(1), array, exact=False).same
    assert not compare(array, array + np.int16(1), array, exact=True).same
    assert not compare(array, array + np.int16(2), array, exact=False).same
    assert compare(array, array[:-1], array, exact=False) == compare(array, [array], [array, array], exact=False)
    floats = array.astype(np.float32)
    unit = float(floats.max() - floats.min())
    assert compare(array, floats + np.float32(5e-5 * unit), floats, exact=False).same
    assert not compare(array, floats + np.float32(5e-4 * unit), floats, exact=False).same


def test_labels_differ_only_where_classes_tie():
    of = ensemble_cases.Ensemble(2, 5, (4, 6, 7), (7, 11, 12))
    models = [ensemble_cases.scores(of, m) for m in range(2)]
    labels = ensemble_cases._ours(of)(models)()
    assert ensemble_cases.differs(of, models, labels, labels.copy()).same
    other = labels.copy()
    other[2, 3, 4] = (other[2, 3, 4] + 1) % 5
    verdict = ensemble_cases.differs(of, models, other, labels)
    assert not verdict.same
    assert verdict.error == 1 / labels.size


@pytest.mark.parametrize("kind", ["discrete", "sampled"])
@pytest.mark.parametrize("sigma", [1.0, 30.0])
def test_blurs_are_measured_by_sums_in_float64(kind, sigma):
    volume = noise((50, 61, 47), "int16")
    error = exact.gaussian(kind, sigma, 1e-4)(volume)
    options = {"kind": kind, "max_error": 1e-4, "dtype": np.float32}
    result = gr.gaussian(volume, sigma, **options)
    unit = np.ptp(volume)
    assert error(result) < 2e-6 * unit
    assert error(gr.gaussian(volume, 1.03 * sigma, **options)) > 2e-5 * unit
    result[-1, -1, -1] += 0.01 * unit
    assert error(result) == pytest.approx(0.01 * unit, rel=1e-2)


@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_labels_are_measured_by_averages_in_float64(interpolation):
    of = ensemble_cases.Ensemble(2, 5, (9, 12, 14), (17, 23, 25), interpolation)
    models = [ensemble_cases.scores(of, m) for m in range(2)]
    error = ensemble_cases.sampled(of, models)
    labels = ensemble_cases._ours(of)(models)()
    assert error(labels) == 0.0
    other = "linear" if interpolation == "bspline" else "bspline"
    wrong = ensemble_cases._ours(dataclasses.replace(of, interpolation=other))(models)()
    assert error(wrong) == math.inf


def test_scipys_zoom_leaves_planes_empty_at_some_sizes():
    """Why it is listed as wrong: its last coordinate is rounded to above the last voxel, and what lies there is 0."""
    assert 255 / 199 * 199 > 255
    volume = noise((6, 256, 5), "float32") + 100
    job = cases.Job.of_spacing(volume, (1.0, 1.0, 1.0), (1.0, 1.28, 1.0), "linear")
    assert job.shape == (6, 200, 5)
    theirs = PEERS["scipy"].prepare(job)()
    mine = gr.resample(volume, size=job.shape, convention="scipy", interpolation="linear")
    assert not theirs[:, -1].any()
    np.testing.assert_allclose(theirs[:, :-1], mine[:, :-1], atol=1e-6 * np.ptp(volume))
    assert mine[:, -1].any()


# --- the float64 reference ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peer", ["simpleitk", "scipy", "nibabel", "volresample"])
@pytest.mark.parametrize("interpolation", ["linear", "bspline"])
def test_the_reference_is_the_peers_result_in_float64(peer, interpolation):
    if not PEERS[peer].installed:
        pytest.skip(f"{peer} is not installed")
    source = Grid.of_size((90, 60, 97), (0.9, 1.1, 2.0))
    job = cases.Job(
        noise((97, 60, 90), "float32"), cases.Geometry("", source, resized(source, (1.31, 0.84, 1.7))), interpolation
    )
    error = exact.resampling(PEERS[peer], job)
    result = timing.voxels_of(PEERS[peer].prepare(job)())
    unit = np.ptp(job.volume)
    assert error(result) < 5e-6 * unit
    middle = tuple(n // 2 for n in result.shape)
    for where in ((-1, -1, -1), middle):
        spoilt = result.copy()
        spoilt[where] += 0.01 * unit
        assert error(spoilt) == pytest.approx(0.01 * unit, rel=1e-3)


# --- what is run ----------------------------------------------------------------------------------------------------


def test_the_rows_have_names_of_their_own_and_the_targets_have_rows():
    rows = suite.rows(suite.PROFILES["full"])
    names = [r.name for r in rows]
    assert len(set(names)) == len(names)
    assert {r.kind for r in rows} == set(records.KINDS)
    by_case = {r.case.name: r.case for r in rows if r.kind == "case"}
    for target in targets.TARGETS:
        here = {d.peer for d in by_case[target.case].doers}
        if target.device == "cpu" and (not target.against or target.against in here):
            assert target.ours in here
    for name, case in by_case.items():
        assert {d.expected for d in case.doers} - {None} <= {d.key for d in case.doers}, name


def test_full_cases_have_the_contracts_sizes():
    by_name = {c.name: c for c in suite.named(suite.PROFILES["full"], gpu=False)}
    assert by_name["ct-recipe-bspline"].input_shape == (247, 512, 512)
    assert by_name["ct-recipe-bspline"].output_shape == (124, 400, 400)
    assert by_name["ct-recipe-bspline"].bytes_moved == 2 * (247 * 512 * 512 + 124 * 400 * 400)
    assert by_name["ensemble-2x12"].input_shape == (2, 12, 62, 200, 200)
    assert by_name["batch-32-linear"].input_shape == (32, 64, 64, 64)


def test_118_classes_fit_the_machine():
    whole = suite.many_classes(1, 64 << 30, gpu=False)
    assert whole.input_shape == (1, 118, 124, 256, 256)
    assert "scaled" not in whole.what
    small = suite.many_classes(1, 4 << 30, gpu=False)
    assert 3 * 4 * math.prod(small.input_shape) <= 4 << 30
    assert "scaled down to fit into 4 GB" in small.what


def test_unknown_cases_are_refused():
    with pytest.raises(ValueError, match="there is no case nearest; there are ct-recipe-nearest, "):
        suite.rows(TINY, only=("nearest",))
    assert {r.kind for r in suite.rows(TINY, only=("start-up", "threads"))} == {"cold", "threads"}
    assert {r.kind for r in suite.rows(TINY, only=("downsample",))} == {"copy", "case"}
    assert {r.kind for r in suite.rows(TINY)} == {"copy", "case", "threads", "size", "cold"}


def test_the_suite_is_not_among_the_tests():
    root = Path(__file__).parents[2]
    options = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    assert options["testpaths"] == ["tests"]
    assert "python_files" not in options  # test_*.py and *_test.py, then
    assert not list((root / "gpuresample").rglob("test_*.py"))
    assert not list((root / "gpuresample").rglob("*_test.py"))


def test_the_clock_ticks_what_was_measured():
    clock = Clock()
    clock.load([0.25, 0.5])
    ticks = [clock() for _ in range(4)]
    assert [ticks[1] - ticks[0], ticks[3] - ticks[2]] == [0.25, 0.5]


def test_copying_copies_every_byte(monkeypatch):
    copied = []
    monkeypatch.setattr(np, "copyto", lambda target, source: copied.append((target.nbytes, source.nbytes)))
    measure.copying(1_000_001)()
    assert np.sum(copied, axis=0).tolist() == [1_000_001, 1_000_001]


def test_this_machine_has_memory():
    assert measure.memory() > 1 << 28


def test_short_calls_are_made_twice_and_the_second_counts(monkeypatch):
    clock = iter([0.0, 0.07, 0.1, 0.11, 1.0, 3.0])
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    made: list[str] = []
    times = measure.interleaved({"short": partial(made.append, "short"), "long": partial(made.append, "long")}, 1, 9.0)
    assert made == ["short", "short", "long"]
    assert times["short"] == [pytest.approx(0.01)]
    assert times["long"] == [pytest.approx(2.0)]


def test_a_gpu_works_for_a_while_before_the_run_that_counts(monkeypatch):
    clock = iter([0.0, 0.03, 1.0, 1.03, 2.0, 2.01, 3.0, 5.0])
    monkeypatch.setattr(measure, "BUSY", 0.05)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(measure.time, "sleep", lambda seconds: None)
    made: list[str] = []
    calls = {"gpu": partial(made.append, "gpu"), "cpu": partial(made.append, "cpu")}
    times = measure.interleaved(calls, 1, 9.0, on_device={"gpu"})
    assert made == ["gpu", "gpu", "gpu", "cpu"]
    assert times["gpu"] == [pytest.approx(0.01)]


# --- one's own volume ----------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path):
    """Files of somebody's: flat voxels of int16, cubic ones of float32, three planes."""

    def written(name, shape, dtype, spacing):
        image = sitk.GetImageFromArray(noise(shape, dtype))
        image.SetSpacing(spacing)
        sitk.WriteImage(image, str(tmp_path / name))
        return tmp_path / name

    return written


def test_cases_of_ones_own_volume(own):
    flat = {c.name: c for c in suite.of_image(own("flat.nii", (20, 30, 28), "int16", (0.7, 0.7, 2.0)), TINY, False)}
    assert flat["own-bspline"].what == "flat.nii to cubes of 0.993 mm, cubic B-spline, int16"
    checks = {key: f.check for key, f in found_of(flat["own-bspline"]).items()}
    assert {c for c in checks.values() if c not in ("ok", "judge")} == set()
    cubic = {c.name: c for c in suite.of_image(own("cubic.nii", (16, 18, 20), "float32", (1, 1, 1)), TINY, False)}
    assert cubic["own-linear"].what == "cubic.nii to cubes of 1.5 mm, linear, float32"  # not onto its own grid
    blur = cubic["gaussian-discrete-1"]
    assert (blur.input_dtype, blur.make().dtype) == ("float32", np.float32)
    assert {f.check for f in found_of(blur).values()} == {"ok", "judge"}
    thin = suite.of_image(own("thin.nii", (3, 18, 20), "int16", (1, 1, 4)), TINY, False)
    assert "gaussian-recursive-1" not in [c.name for c in thin]  # which takes 4 voxels


# --- tables and the README ------------------------------------------------------------------------------------------


def row(case, peer, seconds, kind="case", **more):
    label = {"gpuresample": "gpuresample", "simpleitk": "SimpleITK"}.get(peer, peer)
    return records.Record(
        name=f"{kind}-{case}-{peer}", kind=kind, case=case, what=f"{case}, in words", peer=peer, label=label,
        input_shape=(247, 512, 512), output_shape=(124, 400, 400), voxels=10**6, bytes_moved=10**6,
        peak_host=5 * 10**7, threads=2, seconds=(seconds,) * 3, **more,
    )  # fmt: skip


def whole_run(**machine):
    rows = [
        row("ct-recipe-bspline", "gpuresample", 0.05),
        row("ct-recipe-bspline", "gpuresample-image", 0.1),
        row("ct-recipe-bspline", "simpleitk", 5.0), row("ct-recipe-linear", "gpuresample", 0.05),
        row("ct-recipe-linear", "simpleitk", 0.1), row("ct-recipe-nearest", "gpuresample", 0.05),
        row("ct-recipe-nearest", "simpleitk", 0.4), row("oblique-bspline", "gpuresample", 1),
        row("oblique-bspline", "simpleitk", 8), row("gaussian-discrete-1", "gpuresample", 0.1),
        row("gaussian-discrete-1", "simpleitk", 2), row("gaussian-sampled-1", "gpuresample", 0.01),
        row("gaussian-sampled-1", "scipy", 0.1), row("downsample", "gpuresample", 0.01),
        row("downsample", "gpuresample-two-steps", 0.02), row("downsample", "simpleitk", 0.5),
        row("block-modes", "gpuresample", 0.1), row("ensemble-2x12", "gpuresample", 0.5),
        row("ensemble-2x12", "torch", 7),
    ]  # fmt: skip
    facts = {
        "cpu": "Made-up",
        "cores": 2,
        "threads": 2,
        "profile": "full",
        "versions": {"SimpleITK": "2.5.7"},
        **machine,
    }
    return records.Run(facts, "2026-01-02 03:04:05", "0123456789", tuple(rows))


def test_the_readmes_tables_say_target_verdict_and_run():
    text = readme.speed(whole_run(), "made-up-2026-01-02")
    assert "| ct-recipe-bspline, in words | 50 ms (NumPy) | SimpleITK: 5 s | 100x | 60x | reached |" in text
    assert "| ct-recipe-linear, in words | 50 ms (NumPy) | SimpleITK: 100 ms | 2.0x | 6x | not reached |" in text
    assert "| ct-recipe-bspline, in words | 100 ms (SimpleITK.Image) | SimpleITK: 5 s | 50.0x |  |  |" in text
    # What a run without a GPU cannot judge is one line, and not many rows.
    unjudged = [v for v in verdicts(whole_run()) if v.target.device == "cuda"]
    assert len(unjudged) > 5
    assert "(cuda)" not in text
    assert f"{len(unjudged)} more targets are for GPUs. This run had no GPU; [CPU or GPU](gpu.md) has" in text
    assert "run `made-up-2026-01-02` by `gpuresample bench --profile full`" in text
    assert '| `kind="sampled"` (against SciPy) | 10.0 (10x) |' in readme.gaussian(whole_run(), "")
    assert "| 500 ms, 50 MB | 7 s, 50 MB | 14.0x |" in readme.ensemble(whole_run(), "")
    few = readme.front(whole_run(), "made-up-2026-01-02")
    assert "| ct-recipe-bspline, in words | 50 ms | SimpleITK: 5 s | 100x |" in few
    assert "with a `SimpleITK.Image` the first row takes 100 ms" in few
    assert few.count("| ct-") + few.count("| oblique") + few.count("| gauss") + few.count("| ensemble") == len(
        readme.FRONT
    )


def test_the_readmes_rows_must_be_there():
    run = whole_run()
    for case, peer in readme.FRONT:
        with pytest.raises(SystemExit, match=f"no right answer of {peer} to {case}"):
            readme.front(changed(run, case, peer), "")


def test_the_readme_takes_whole_and_right_runs_only():
    with pytest.raises(SystemExit, match="whole run"):
        readme._fit(whole_run(profile="quick"))
    run = whole_run()
    wrong = dataclasses.replace(run.records[0], check="WRONG")
    with pytest.raises(SystemExit, match="an answer is wrong"):
        readme._fit(dataclasses.replace(run, records=(wrong, *run.records[1:])))
    readme._fit(run)


def verdict_of(run, case, against):
    return next(v for v in targets.verdicts(run) if (v.target.case, v.target.against) == (case, against))


def changed(run, case, peer, **values):
    """The run with a row of other values; without it for `None`."""
    rows = [
        dataclasses.replace(r, **values) if (r.case, r.peer) == (case, peer) else r
        for r in run.records
        if values or (r.case, r.peer) != (case, peer)
    ]
    return dataclasses.replace(run, records=tuple(rows))


def test_targets_that_were_not_measured_stay_and_say_why():
    run = whole_run(absent=["torch"])
    cases_here = {r.case for r in run.of("case")}
    found = targets.verdicts(run)
    assert [v.target for v in found] == [t for t in targets.TARGETS if t.case in cases_here]
    for v in found:
        if v.target.device == "cuda":
            assert (v.said, v.shown) == ("not measured: no GPU", "-")
    assert verdict_of(run, "ct-recipe-linear", "torch").said == "not measured: torch is not installed"
    assert verdict_of(run, "ct-recipe-bspline", "volresample").said == "not measured: volresample has no row"
    without = changed(run, "ct-recipe-bspline", "simpleitk", check="WRONG")
    assert verdict_of(without, "ct-recipe-bspline", "simpleitk").said == "not measured: SimpleITK is wrong"
    bad = changed(run, "ct-recipe-bspline", "gpuresample", check="WRONG")
    assert verdict_of(bad, "ct-recipe-bspline", "simpleitk").said == "not reached: wrong answer"
    table = listing.targets(run)
    assert len(table.rows) == len(found)


def test_the_memory_target_counts_inputs_and_the_peak_over_inputs_and_labels():
    shapes = {"input_shape": (2, 12, 10, 10, 10), "input_dtype": "float32", "bytes_moved": 96_000 + 10_000}
    run = changed(whole_run(), "ensemble-2x12", "gpuresample", **shapes, peak_host=31_000)
    found = verdict_of(run, "ensemble-2x12", "")
    assert found.found == pytest.approx((96_000 + 31_000) / 106_000)
    assert found.said == "reached"
    assert (
        verdict_of(changed(run, "ensemble-2x12", "gpuresample", peak_host=32_000), "ensemble-2x12", "").reached is False
    )
    unknown = changed(run, "ensemble-2x12", "gpuresample", peak_host=None)
    assert verdict_of(unknown, "ensemble-2x12", "").said == "not measured: peak memory"


def test_the_gpus_targets_are_judged_by_the_gpus_rows():
    there = {"device": "cuda:0", "scope": "kernel"}
    more = [
        row("ct-recipe-bspline", "gpuresample", 0.001, copy_bandwidth=2e9, **there),
        row("ct-recipe-bspline", "torch-matmul-cuda", 0.005, **there),
        row("ct-recipe-bspline", "gpuresample-pinned", 0.012, device="cuda:0", scope="end-to-end"),
        row("ct-recipe-bspline", "copies", 0.010, device="cuda:0", scope="end-to-end"),
    ]
    run = whole_run(gpu="Made-up")
    run = dataclasses.replace(run, records=(*run.records, *more))
    assert verdict_of(run, "ct-recipe-bspline", "torch-matmul-cuda").shown == "5.0x"
    assert verdict_of(run, "ct-recipe-bspline", "torch-matmul-cuda").reached
    assert verdict_of(run, "ct-recipe-bspline", "copies").said == "not reached"
    assert verdict_of(run, "ct-recipe-bspline", "copies").shown == "1.20x"
    assert verdict_of(run, "ct-recipe-bspline", "").shown == "50 %"
    assert verdict_of(run, "ct-recipe-bspline", "").said == "not reached"
    assert verdict_of(run, "ct-recipe-bspline", "cupyx-cuda").said == "not measured: cupyx zoom has no row"


# --- start-up and a GPU's memory ------------------------------------------------------------------------------------


def test_start_up_is_measured_where_nothing_was_imported():
    seconds = measure.start_up()
    assert set(seconds) == {"import", "aligned first", "aligned second", "oblique first"}
    assert all(s > 0 for s in seconds.values())
    # Numba is loaded by the first call: an import that had happened before would not show it.
    assert seconds["aligned first"] > 10 * seconds["aligned second"]


def test_a_gpus_peak_is_what_its_pools_took(monkeypatch):
    class Pool:
        held, taken = 100, 100

        def free_all_blocks(self):
            self.taken = self.held

        def total_bytes(self):
            return self.taken

    pool = Pool()
    cupy = types.SimpleNamespace(get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    monkeypatch.delitem(sys.modules, "torch", raising=False)

    def call():
        pool.taken = max(pool.taken, pool.held + 40)

    assert devices.peak_of(call) == 40
    assert devices.peak_of(lambda: None) == 0


@pytest.fixture
def fake_gpu(cupy, monkeypatch):
    monkeypatch.setattr(FAKE.cuda.runtime, "deviceSynchronize", lambda: None, raising=False)
    monkeypatch.setattr(FAKE.pool, "free_all_blocks", lambda: setattr(FAKE.pool, "peak", FAKE.pool.used), raising=False)
    monkeypatch.setattr(FAKE.pool, "total_bytes", lambda: FAKE.pool.peak, raising=False)


@pytest.mark.kernels
def test_a_gpus_rows_are_checked_against_the_cpus(fake_gpu, monkeypatch):
    """With a stand-in for a GPU, and SciPy in the place of cupyx."""
    assert devices.usable() == "Fake H1"
    cupyx = dataclasses.replace(GPU_PEERS["cupyx"], module="scipy", prepare=peers.scipy)
    monkeypatch.setattr(resampling_cases, "GPU_PEERS", {"cupyx": cupyx})
    case = next(c for c in suite.named(TINY, gpu=True) if c.name == "ct-recipe-bspline")
    doers = tuple(d for d in case.doers if d.device != "cpu" or d.key in ("simpleitk", "gpuresample-as-scipy"))
    found = found_of(dataclasses.replace(case, doers=doers))
    there = {key: f for key, f in found.items() if "cuda" in key}
    assert {key: f.check for key, f in there.items()} == {
        "gpuresample-cuda:0-kernel": "ok", "gpuresample-cuda:0-end-to-end": "ok",
        "gpuresample-pinned-cuda:0-end-to-end": "ok", "copies-cuda:0-end-to-end": "unchecked: it computes nothing",
        "gpuresample-as-scipy-cuda:0-kernel": "ok", "cupyx-cuda-cuda:0-kernel": "ok",
    }  # fmt: skip
    result = 2 * case.voxels
    assert there["gpuresample-cuda:0-kernel"].peak_device >= result
    assert there["gpuresample-cuda:0-end-to-end"].peak_device >= result + 2 * math.prod(case.input_shape)
    assert cuda._engine().runtime.launches.total() > 0


def test_peak_memory_of_a_device_is_not_the_hosts():
    on_gpu = row("ct-recipe-bspline", "gpuresample", 0.05, device="cuda:0", scope="kernel")
    assert listing.peak(on_gpu) == "not measured"
    assert listing.peak(dataclasses.replace(on_gpu, peak_device=3 * 10**6)) == "3 MB on the device"
    assert listing.peak(row("ct-recipe-bspline", "gpuresample", 0.05)) == "50 MB"
