"""What tells a regression from noise: the statistics, and the program on made-up times. No clock is asserted."""

import functools
import inspect
import io
import json
import math
import subprocess
import types
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.stats import binom

from benchmarks import paired, regress
from benchmarks import regress_worker as worker
from benchmarks.paired import Interval, interval, rank, spread, verdict

pytestmark = pytest.mark.usefixtures("own_threads")

# -- statistics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [paired.LEAST_ROUNDS, 9, 16, 27, 54, 101])
def test_ranks_are_the_binomials(n):
    k = rank(n)
    assert 2 * binom.cdf(k - 1, n, 0.5) <= 1 - paired.CONFIDENCE
    assert 2 * binom.cdf(k, n, 0.5) > 1 - paired.CONFIDENCE


def test_too_few_rounds_have_no_interval():
    with pytest.raises(ValueError, match="8 have"):
        rank(paired.LEAST_ROUNDS - 1)


def ratios(rng, truth, n):
    """Ratios as a shared machine gives them: a few percent each, and bursts that hit one of the two."""
    noise = rng.normal(0, 0.04, n) + rng.choice([0, 0.7, -0.7], n, p=[0.8, 0.1, 0.1]) * rng.random(n)
    return truth * np.exp(noise)


def test_intervals_hold_the_median_as_surely_as_they_say():
    rng = np.random.default_rng(1)
    held = [(i := interval(ratios(rng, 1.0, 27))).low <= 1 <= i.high for _ in range(3000)]
    assert np.mean(held) >= paired.CONFIDENCE - 0.004


def test_noise_is_no_regression_and_half_as_slow_again_is_one():
    rng = np.random.default_rng(2)
    said = {truth: [verdict(interval(ratios(rng, truth, 27)), 0.1) for _ in range(1000)] for truth in (1.0, 1.35, 0.7)}
    assert "slower" not in said[1.0]
    assert said[1.35].count("slower") >= 990
    assert said[0.7].count("faster") >= 990


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (1.11, 1.3, "slower"),
        (1.09, 1.3, "undecided"),
        (0.95, 1.05, "not slower"),
        (0.8, 1.09, "not slower"),
        (0.7, 0.9, "faster"),
        (0.8, 1.2, "undecided"),
    ],
)
def test_a_verdict_asks_for_the_whole_interval(low, high, said):
    assert verdict(Interval(low, (low + high) / 2, high), 0.1) == said


def test_a_spread_is_the_farthest_from_the_median():
    assert spread([1.0, 1.1, 0.8]) == pytest.approx(0.25)


# -- the worker -------------------------------------------------------------------------------------------------------


INTERPOLATORS = {"bspline": sitk.sitkBSpline, "linear": sitk.sitkLinear, "nearest": sitk.sitkNearestNeighbor}


@pytest.mark.parametrize("name", [name for name, job in worker.JOBS.items() if job.kind == "resample"])
def test_the_jobs_are_what_they_say(name):
    job = worker.JOBS[name]
    voxels = worker.volume(job, 1)
    size, spacing, direction = worker.target(job, voxels.shape)
    where = (size, sitk.Transform(), INTERPOLATORS[job.interpolation], (0, 0, 0), spacing, direction)
    theirs = sitk.GetArrayFromImage(sitk.Resample(sitk.GetImageFromArray(voxels), *where))
    # SimpleITK truncates integers.
    allowed = 1.0 if voxels.dtype.kind == "i" else 2e-6 * np.ptp(voxels)
    assert np.abs(worker.ours(job, voxels)().array.astype(float) - theirs).max() <= allowed
    if job.interpolation == "linear":
        assert np.array_equal(sitk.GetArrayFromImage(worker.simpleitk(job, voxels)()), theirs)


def test_the_other_jobs_run():
    gaussian, ensemble = worker.JOBS["gaussian"], worker.JOBS["ensemble"]
    voxels = worker.volume(gaussian, 1)
    image = sitk.DiscreteGaussian(sitk.GetImageFromArray(voxels), 4.0, 64, 1e-4)
    assert np.abs(worker.ours(gaussian, voxels)() - sitk.GetArrayFromImage(image)).max() <= 2e-6 * np.ptp(voxels)
    scores = worker.volume(ensemble, 1)
    labels = worker.ours(ensemble, scores)()
    assert labels.shape == (48, 96, 96)
    assert set(np.unique(labels)) <= set(range(scores.shape[1]))


def test_a_slowed_kernel_gives_the_same_bits_and_works_half_as_much_again(monkeypatch):
    from gpuresample.engines.cpu import table_kernels

    kernel, rows = table_kernels.separable_block, []

    @functools.wraps(kernel)
    def counting(*arguments):
        block = inspect.signature(kernel).bind(*arguments).arguments
        rows.append((block["a1"] - block["a0"]) * (block["b1"] - block["b0"]))
        kernel(*arguments)

    job = worker.JOBS["linear"]
    voxels = worker.volume(job, 1)
    monkeypatch.setattr(table_kernels, "separable_block", counting)
    expected = worker.ours(job, voxels)().array
    done = sum(rows)
    assert done == expected.shape[0] * expected.shape[1]
    worker.slow_down(1.5)
    rows.clear()
    assert np.array_equal(worker.ours(job, voxels)().array, expected)
    assert sum(rows) == pytest.approx(1.5 * done, rel=0.02)


class Clock:
    """Calls run, and take what the list says."""

    scale = 1

    def __init__(self, *taken):
        self.taken, self.calls = list(taken), []

    def put(self, voxels):
        return voxels

    def reference(self, job, voxels):
        return lambda: "reference"

    def seconds(self, call, calls):
        self.calls.append((call(), calls))
        return self.taken.pop(0)


def test_a_worker_gives_the_least_of_its_measurements():
    clock = Clock(9.0, 0.3, 0.1, 0.2)
    answer = worker.Worker(clock).answer({"job": "tiny", "reference": True, "calls": 5, "times": 3})
    assert answer == {"seconds": 0.1}
    # The first run, which loads and compiles, is not among them.
    assert clock.calls == [("reference", 1), *[("reference", 5)] * 3]


@pytest.mark.parametrize(("name", "expected"), [("tiny", 1), ("threads", None)])
def test_a_job_has_its_threads(name, expected, monkeypatch):
    import gpuresample as gr

    chosen = []
    monkeypatch.setattr(gr, "set_num_threads", chosen.append)
    worker.Worker(Clock(1.0, 1.0)).answer({"job": name, "reference": True, "calls": 1, "times": 1})
    assert chosen == [expected]


def test_a_gpu_has_no_job_of_the_cpus_threads():
    assert "threads" in regress.parsed([]).jobs
    assert regress.parsed(["--device", "cuda"]).jobs == [name for name in worker.JOBS if name != "threads"]


def test_a_worker_says_why_it_cannot():
    requests = io.StringIO(json.dumps({"job": "origami", "reference": False, "calls": 1, "times": 1}) + "\n")
    answers = io.StringIO()
    worker.serve(worker.Worker(Clock()), requests, answers)
    assert json.loads(answers.getvalue()) == {"error": "KeyError: 'origami'"}


def test_a_gpu_is_timed_by_its_events():
    log = []

    class Event:
        def record(self):
            log.append("record")

        def synchronize(self):
            log.append("synchronize")

    properties = {"name": b"Fake H1"}
    runtime = types.SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda number: properties)
    cuda = types.SimpleNamespace(runtime=runtime, Event=Event, get_elapsed_time=lambda start, end: 12.0)
    clock = worker.Cuda(types.SimpleNamespace(cuda=cuda))
    assert clock.name == "Fake H1"
    assert clock.seconds(lambda: log.append("call"), 4) == pytest.approx(3e-3)
    assert log == ["record", *["call"] * 4, "record", "synchronize"]


# -- the program ------------------------------------------------------------------------------------------------------


class Made:
    """In place of a process: times from a formula. What is slow is so by `slow`; old checkouts know no ensembles."""

    started = 0

    def __init__(self, checkout, device, slow=1.0):
        Made.started += 1
        self.checkout, self.slow, self.device = Path(checkout), slow, device
        self.rng = np.random.default_rng(Made.started)
        self.hello = {"device": "CPU, 2 threads" if device == "cpu" else "Fake H1"}
        self.noise = 0.03

    def ask(self, job, reference, calls, times):
        if job == "ensemble" and self.checkout.name == "old":
            return {"error": "AttributeError: ensemble"}
        seconds = 0.05 if reference else 0.002 * self.slow
        return {"seconds": seconds * math.exp(self.rng.normal(0, self.noise))}

    def close(self):
        pass


@pytest.fixture
def made(monkeypatch, tmp_path):
    monkeypatch.setattr(regress, "Process", Made)
    monkeypatch.setattr(regress, "BASELINES", tmp_path / "baselines")
    monkeypatch.setattr(regress, "ROOT", tmp_path)
    monkeypatch.setattr(Made, "started", 0)
    (tmp_path / "old" / "gpuresample").mkdir(parents=True)
    (tmp_path / "old" / "gpuresample" / "__init__.py").touch()
    return tmp_path


@pytest.mark.parametrize(("slow", "code", "said"), [("1", 0, "not slower"), ("1.5", 1, "slower")])
def test_checkouts_are_compared(made, slow, code, said, capsys):
    arguments = ["--against", str(made / "old"), "--slow", slow, "--markdown", str(made / "table.md")]
    assert regress.main(arguments) == code
    table = (made / "table.md").read_text()
    lines = {line.split(" | ")[0]: line for line in table.splitlines() if line.startswith("| ")}
    for name, job in worker.JOBS.items():
        last = lines[f"| {job.what}"].replace("*", "").strip(" |").split(" | ")[-1]
        assert last == said if name != "ensemble" else "AttributeError: ensemble" in last
    assert table.startswith("Nothing is slower." if code == 0 else "**Slower: CT, cubic B-spline, int16;")
    assert "is it slower?" in capsys.readouterr().out


def test_what_is_undecided_is_measured_longer(made, monkeypatch):
    arguments = ["--against", str(made / "old"), "--jobs", "linear"]
    regress.main(arguments)
    assert Made.started == 2 * regress.LAUNCHES
    monkeypatch.setattr(Made, "started", 0)
    regress.main([*arguments, "--slow", "1.1"])
    assert Made.started == 2 * regress.MOST_LAUNCHES


def test_nothing_in_common_is_no_success(made, capsys):
    assert regress.main(["--against", str(made / "old"), "--jobs", "ensemble"]) == 2
    assert "nothing could be compared" in capsys.readouterr().err


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_baseline_is_stored_and_compared_with(made, device, capsys):
    assert regress.main(["--device", device]) == 2
    assert "no baseline is stored for this machine" in capsys.readouterr().err
    assert regress.main(["--device", device, "--save"]) == 0
    (stored,) = (made / "baselines").iterdir()
    assert stored.stem == "fake-h1" if device == "cuda" else "2-threads" in stored.stem
    content = json.loads(stored.read_text())
    assert content["jobs"]["linear"]["ratio"] == pytest.approx(0.04, rel=0.1)
    assert len(content["jobs"]["linear"]["launches"]) == regress.LAUNCHES
    assert regress.main(["--device", device]) == 0
    assert "not slower" in capsys.readouterr().out


def test_slower_than_the_baseline(made, capsys):
    regress.main(["--save", "--jobs", "linear", "bspline"])
    assert regress.main(["--jobs", "linear", "bspline", "--slow", "1.6"]) == 1
    assert capsys.readouterr().out.count(" slower ") == 2


def test_a_restless_baseline_allows_more(made, capsys):
    regress.main(["--save", "--jobs", "linear"])
    (path,) = (made / "baselines").iterdir()
    stored = json.loads(path.read_text())
    stored["jobs"]["linear"]["launches"] = [0.03, 0.04, 0.05]
    path.write_text(json.dumps(stored))
    assert regress.main(["--jobs", "linear", "--slow", "1.6"]) == 0
    assert "2.00" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "3"], "--rounds must be at least 8, got 3"),
        (["--threshold", "0"], "--threshold must be above 0"),
        (["--slow", "0.5"], "--slow must be from 1 to 2"),
        (["--slow", "2", "--save"], "never with --save"),
        (["--slow", "2", "--device", "cuda"], "--slow goes with the CPU"),
        (["--against", "main", "--save"], "go without it"),
        (["--jobs", "origami"], "invalid choice"),
    ],
)
def test_bad_arguments_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        regress.parsed(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def git(folder, *arguments):
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    return subprocess.run(["git", *who, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_a_commit_is_checked_out_for_the_time_being(tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "-b", "main")
    file = tmp_path / "gpuresample" / "__init__.py"
    file.parent.mkdir()
    for text in ("old", "new"):
        file.write_text(text)
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-q", "-m", text)
    monkeypatch.setattr(regress, "ROOT", tmp_path)
    with regress.checked_out("HEAD~1") as folder:
        assert (folder / "gpuresample" / "__init__.py").read_text() == "old"
    assert not folder.exists()
    assert git(tmp_path, "worktree", "list").count("\n") == 1
    assert file.read_text() == "new"
    with pytest.raises(regress.NotComparedError, match="neither a checkout's folder nor a commit"), \
            regress.checked_out("nowhere"):  # fmt: skip
        pass


def test_real_processes_answer(monkeypatch, capsys):
    monkeypatch.setattr(regress, "LAUNCHES", 1)
    monkeypatch.setattr(regress, "MOST_LAUNCHES", 1)
    code = regress.main(["--against", str(regress.ROOT), "--jobs", "tiny", "--rounds", "8"])
    assert code in (0, 1)  # which of them, the machine decides
    assert "16x24x24" in capsys.readouterr().out


def test_another_package_than_the_checkouts_is_noticed(tmp_path):
    # Python finds the installed package where the checkout has none.
    with pytest.raises(regress.NotComparedError, match=r"but Python imports|ended with exit code"):
        regress.Process(tmp_path, "cpu")
