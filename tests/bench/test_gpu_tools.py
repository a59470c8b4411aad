"""What times and checks the kernels on a GPU, proven without one."""

import json
import sys
import types

import numpy as np
import pytest
from fake_cupy import FAKE

from benchmarks import gpu, kernels
from benchmarks.device import Host
from gpuresample.bench import measure
from gpuresample.engines.cuda import engine as cuda


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


@pytest.mark.kernels
def test_the_timings_run_on_the_host(tmp_path, capsys):
    assert kernels.main(["--host", "--factor", "16", "--runs", "2", "--out", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "kernels.json").read_text())
    assert facts["device"] == "host (no GPU)"
    assert facts["peers"] == {}
    by_name = {job["name"]: job for job in facts["jobs"]}
    spline = by_name["bspline, int16 to float32"]
    assert [step["pass"] for step in spline["passes"]] == ["y", "x"]
    assert all(step["kernels"].startswith("resample_axis") for step in spline["passes"])
    assert all(job["agreement"] <= 1e-6 for job in facts["jobs"])
    assert [len(job["passes"]) for job in facts["jobs"]] == [2, 3, 1, 1, 1]
    assert [row["launches"] for row in facts["batches"]] == [1, 3, 3, 3]
    assert all(row["seconds"] > 0 and row["returns"] > 0 and row["torch"] is None for row in facts["batches"])
    assert [p["interpolation"] for p in facts["planes"]] == list(kernels.PLANES)
    assert all(p["bytes_fused"] < p["bytes_apart"] and p["fused"] > 0 < p["apart"] for p in facts["planes"])
    text = (tmp_path / "kernels.md").read_text()
    assert "GAIN is 0.9" in text
    assert text.startswith("# Kernels on host (no GPU), ")
    assert "not a GPU" in text
    assert "reached" not in text
    assert "of the copy" in capsys.readouterr().out


@pytest.mark.kernels
def test_passes_count_what_must_be_moved(monkeypatch):
    """The reference job's bytes, as the plan says them; nothing of that size is run."""
    device = Host()
    geometry = kernels.cases.REFERENCE
    volume = np.broadcast_to(np.int16(0), geometry.source.size[::-1])
    monkeypatch.setattr(device, "array", lambda host: host)
    monkeypatch.setattr(device, "empty", lambda shape, dtype: np.broadcast_to(np.zeros((), dtype), shape))
    monkeypatch.setattr(device, "seconds", lambda call, runs: [1.0])
    monkeypatch.setattr(device.engine.axes, "scratch", fake_view)
    job = kernels.made(geometry, "bspline", "int16", "float32", np.zeros((247, 512, 512), np.int16))
    moved = {row["pass"]: row["bytes"] / 1e6 for row in kernels.passes(device, job, volume, 1)}
    assert {axis: round(mb) for axis, mb in moved.items()} == {"y and x": 144}


def fake_view(shape, dtype):
    return kernels.View(0, np.dtype(dtype), tuple(shape), (0,) * len(shape), None)


def test_a_report_says_what_is_reached():
    facts = {"device": "Fake H1"}
    assert kernels.verdict(facts, 0.8, 0.7) == "0.7: reached"
    assert kernels.verdict(facts, 0.6, 0.7) == "0.7: not reached"
    assert measure.folder_name("NVIDIA H100 80GB HBM3", "2026-01-02") == "nvidia-h100-80gb-hbm3-2026-01-02"


def test_without_a_gpu_nothing_is_measured(no_gpu, capsys):
    assert kernels.main([]) == 1
    assert "no GPU, so nothing to measure: CuPy cannot be imported" in capsys.readouterr().err
    assert gpu.main([]) == 2
    said = capsys.readouterr().err
    assert "make gpu needs a CUDA GPU, and there is none to use: CuPy cannot be imported" in said
    assert "Nothing was run." in said


@pytest.fixture
def cupy(cupy, monkeypatch):
    monkeypatch.setattr(cupy, "asnumpy", np.array, raising=False)


@pytest.mark.kernels
def test_every_kernel_is_run_for_the_sanitizers(cupy, capsys):
    assert gpu.main(["--every-kernel"]) == 0
    launched = set(cuda._engine().runtime.launches)
    assert launched >= {
        "resample_axis", "resample_axis_tile", "resample_axis_lines", "resample_axis_plane", "resample_volume",
        "resample_volume_two", "take",
        "gather_copy", "gather_linear", "gather_cubic", "gather_any", "vote_linear", "vote_gaussian", "convert_voxels",
        "fill_box", "ensemble_normalise", "ensemble_decide", "ensemble_activate", "majority",
    }  # fmt: skip
    assert f"{len(launched)} kernels ran" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "ok"), [("gpu: 99 ran on Fake H1, 7 kernel launches", True), ("gpu: 99 tests skipped: no", False)]
)
def test_skipped_tests_do_not_pass_for_run(cupy, monkeypatch, tmp_path, line, ok):
    def ran(command, log, **environment):
        log.write_text(f"...\n{line}\n")
        return 0

    monkeypatch.setattr(gpu, "ran", ran)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert gpu.main(["--out", str(tmp_path)]) == (0 if ok else 1)
    steps = json.loads((tmp_path / "summary.json").read_text())["steps"]
    assert steps["tests"] == {"ok": ok, "said": line}
    assert steps["sanitizers"]["ok"] is None
    assert "compute-sanitizer is not on the PATH" in (tmp_path / "summary.md").read_text()


def test_sanitizers_are_asked_for_both(cupy, monkeypatch, tmp_path):
    asked = []

    def ran(command, log, **environment):
        asked.append(command[2])
        return 9 if command[2] == "racecheck" else 0

    monkeypatch.setattr(gpu, "ran", ran)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: name)
    assert gpu.main(["--out", str(tmp_path), "--skip", "tests", "--skip", "kernels"]) == 1
    assert asked == ["memcheck", "racecheck"]
    assert "racecheck: exit code 9" in (tmp_path / "summary.md").read_text()


def test_a_command_is_logged(tmp_path, capfd):
    code = gpu.ran([sys.executable, "-c", "print('hello'); raise SystemExit(3)"], tmp_path / "log.txt")
    assert code == 3
    assert (tmp_path / "log.txt").read_text() == "hello\n"
    assert "hello" in capfd.readouterr().out


def test_the_summary_line_counts(monkeypatch):
    import conftest

    def report(when, skipped, *properties):
        return types.SimpleNamespace(keywords={"gpu": 1}, when=when, skipped=skipped, user_properties=list(properties))

    said = []
    config = types.SimpleNamespace(stash={conftest.REASON: "no CuPy"})
    # Two workers' tests: every report has the properties that its test had by then.
    ends = [report("setup", False), *[report("teardown", False, (conftest.LAUNCHES, n)) for n in (3, 4)]]
    stats = {"skipped": [report("setup", True)] * 5, "passed": [report("call", False)], "": ends}
    reporter = types.SimpleNamespace(stats=stats, write_line=said.append)
    conftest.pytest_terminal_summary(reporter, config)
    assert said == ["gpu: 5 tests skipped: no CuPy"]
    FAKE.reset()
    monkeypatch.setitem(sys.modules, "cupy", FAKE)
    config.stash[conftest.REASON] = ""
    conftest.pytest_terminal_summary(reporter, config)
    assert said[1] == "gpu: 1 ran on Fake H1, 7 kernel launches, 5 skipped"
