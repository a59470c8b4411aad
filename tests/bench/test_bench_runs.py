"""`gpuresample bench` as a command: its folder, what it refuses, and what is left of a run that ended early."""

import contextlib
import importlib.util
import io
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import SimpleITK as sitk
from recorded import synthetic
from support import noise

from gpuresample.bench import journal, measure, records, runs, suite, targets, timing

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
from gpuresample.cli import main

TINY = suite.PROFILES["tiny"]
# What `bench` runs is measured by pytest-benchmark, an extra that the tests can do without.
needs_benchmark = pytest.mark.skipif(
    importlib.util.find_spec("pytest_benchmark") is None,
    reason="pytest-benchmark is the extra gpuresample[bench]",
)


def bench(*arguments, code=0):
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        got = main(["bench", *map(str, arguments)])
    assert got == code, out.getvalue() + err.getvalue()
    return out.getvalue() + err.getvalue()


TWO = ("--profile", "tiny", "--case", "ct-recipe-linear", "--case", "gaussian-sampled-1")


def stopped(out, how, *more):
    """A run that ends by a signal once it measured a row: exit code, what it said, its folder, the rows kept there."""

    def rows():
        return sum(map(journal.measured, out.glob("*.partial/journal.jsonl")))

    # Where the tests themselves run in a shell's background Ctrl-C is ignored, and children inherit that.
    heard = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code = heard + "runpy.run_module('gpuresample.cli', run_name='__main__')"
    command = [sys.executable, "-c", code, "bench", *TWO, "--out", str(out), *more]
    before, deadline = rows(), time.monotonic() + 120
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while rows() <= before:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(how)
    _, said = process.communicate()
    (partial,) = out.iterdir()
    # The process that measures ends, whether it is told or not.
    while (lock := journal.disk.lock(partial / "journal.lock")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.close(lock)
    kept = {}
    for line in (partial / journal.NAME).read_text().splitlines():
        kept |= json.loads(line).get("rows", {})
    return process.returncode, said, partial, kept


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A run that was interrupted, continued, killed and continued to its end: where, what was said, the two stops."""
    out = tmp_path_factory.mktemp("bench")
    stops = stopped(out, signal.SIGINT), stopped(out, signal.SIGKILL, "--continue")
    return out, bench(*TWO, "--out", out, "--continue"), stops


@needs_benchmark
def test_a_run_leaves_a_folder(recorded):
    out, said, _ = recorded
    (folder,) = out.iterdir()  # nothing else, no partial one
    assert sorted(p.name for p in folder.iterdir()) == ["benchmark.json", "report.html", "tables.md"]
    assert str(folder) in said
    run = records.read(folder / "benchmark.json")
    assert run.machine["profile"] == "tiny"
    assert "node" not in json.loads((folder / "benchmark.json").read_text())["machine_info"]
    assert {r.case for r in run.of("case")} == {"ct-recipe-linear", "gaussian-sampled-1"}
    assert [r.case for r in run.of("copy")] == ["ct-recipe-linear", "gaussian-sampled-1"]
    mine = next(r for r in run.of("case") if r.peer == "gpuresample" and r.case == "ct-recipe-linear")
    assert mine.copy_bandwidth > 0
    assert mine.check == "ok"
    assert mine.bytes_moved == 2 * (math.prod(mine.input_shape) + math.prod(mine.output_shape))
    content = json.loads((folder / "benchmark.json").read_text())
    for entry in content["benchmarks"]:
        assert sorted(entry["extra_info"]["seconds"]) == pytest.approx(sorted(entry["stats"]["data"]))
    text = (folder / "tables.md").read_text()
    assert "Not installed: " in text or not suite.absent()
    assert "| CT recipe, linear, int16 | gpuresample | SimpleITK |" in text
    assert "| CT recipe, linear, int16 | gpuresample, as torch (cuda) | torch interpolate | - | 1.5x |" in text
    assert "cubic B-spline" not in text  # cases that were not asked for have no targets
    assert "<html" in (folder / "report.html").read_text()


@pytest.mark.slow
@needs_benchmark
def test_the_command_takes_ones_own_volume(tmp_path):
    image = sitk.GetImageFromArray(noise((20, 30, 28), "int16"))
    image.SetSpacing((0.7, 0.7, 2.0))
    sitk.WriteImage(image, str(tmp_path / "mine.nii.gz"))
    said = bench(tmp_path / "mine.nii.gz", "--profile", "tiny", "--out", tmp_path / "out", "--case", "own-bspline")
    assert "mine.nii.gz to cubes of 0.993 mm, cubic B-spline, int16" in said
    (folder,) = (tmp_path / "out").iterdir()
    run = records.read(folder / "benchmark.json")
    assert run.machine["image"] == "mine.nii.gz"
    assert targets.verdicts(run) == []
    assert not [r for r in run.records if r.wrong]


@needs_benchmark
def test_bad_arguments_are_refused_before_any_work(tmp_path):
    assert "there is no case nonsense" in bench("--out", tmp_path / "out", "--case", "nonsense", code=2)
    assert "--profile takes quick, full, tiny" in bench("--profile", "slow", "--out", tmp_path / "out", code=2)
    assert "there is no such file" in bench(tmp_path / "none.nii", "--out", tmp_path / "out", code=1)
    sitk.WriteImage(sitk.GetImageFromArray(noise((20, 30), "int16")), str(tmp_path / "flat.nii"))
    assert "scalar images of 3 dimensions" in bench(tmp_path / "flat.nii", "--out", tmp_path / "out", code=2)
    assert not (tmp_path / "out").exists()


def test_figures_outlive_a_page_that_cannot_be_made(tmp_path, monkeypatch):
    def pytest_ran(partial, file, *_):
        file.write_text(json.dumps(synthetic()))
        return 0

    def fails(*_):
        raise OSError("no space left")

    monkeypatch.setattr(runs, "_pytest", pytest_ran)
    monkeypatch.setattr("gpuresample.bench.report.write_report", fails)
    monkeypatch.setattr(runs, "check_installed", lambda: None)
    with pytest.raises(RuntimeError, match=r"the figures are in .*, but not as tables and a page: no space left"):
        runs.run("tiny", tmp_path)
    (folder,) = tmp_path.iterdir()
    assert records.read(folder / "benchmark.json").records


# --- runs that end early --------------------------------------------------------------------------------------------


@needs_benchmark
def test_a_run_goes_on_where_it_ended(recorded):
    out, said, ((code, told, partial, first), (_, _, _, before)) = recorded
    assert code == 130
    assert f"{len(first)} rows are kept in {partial}" in told
    assert len(first) < len(before)
    assert {name: before[name] for name in first} == first
    (folder,) = out.iterdir()
    run = records.read(folder / "benchmark.json")
    now = {r.name.partition("[")[2].rstrip("]"): list(r.seconds) for r in run.records}
    assert {name: now[name] for name in before if "failed" not in before[name]} == {
        name: row["seconds"] for name, row in before.items() if "failed" not in row
    }
    if len(before) < len(now):  # else it was quicker than the kill
        assert run.machine["sittings"] == 3
        assert "Stopped and continued: 3 processes measured it" in said


@needs_benchmark
def test_what_a_stopped_run_measured_is_kept(tmp_path, monkeypatch):
    def stopped(partial, *_):
        measured = journal.Journal(partial / journal.NAME)
        measured.add({"a": {"seconds": [1.0]}, "b": {"failed": "no"}})
        measured.close()
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "_pytest", stopped)
    said = bench(*TWO, "--out", tmp_path, code=130)
    (partial,) = tmp_path.iterdir()
    assert f"interrupted; 2 rows are kept in {partial}: --continue goes on after them" in said
    # Others are no part of it.
    said = bench("--profile", "tiny", "--out", tmp_path, "--continue", code=1)
    assert f"{partial}: cases was ['ct-recipe-linear', 'gaussian-sampled-1'] and is []" in said
    monkeypatch.setattr(journal, "code", lambda: "changed")
    assert "code was" in bench(*TWO, "--out", tmp_path, "--continue", code=1)
    assert list(tmp_path.iterdir()) == [partial]


def test_nothing_is_left_of_a_run_without_rows(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "check_installed", lambda: None)
    monkeypatch.setattr(runs, "_pytest", stopped)
    with pytest.raises(KeyboardInterrupt, match="interrupted; nothing was measured"):
        runs.run("tiny", tmp_path)
    monkeypatch.setattr(runs, "_pytest", lambda *_: 1)
    with pytest.raises(RuntimeError, match="pytest ended with exit code 1; nothing was measured"):
        runs.run("tiny", tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="holds no run of these arguments"):
        runs.run("tiny", tmp_path, go_on=True)


def test_a_file_system_without_locks_is_not_another_process(tmp_path, monkeypatch):
    path = tmp_path / journal.NAME
    journal.begin(path, {})

    def none(path):
        raise journal.disk.NoLocksError(95, "files cannot be locked here")

    monkeypatch.setattr(journal.disk, "lock", none)
    with pytest.warns(RuntimeWarning, match="cannot be locked here; let no second process measure there"):
        one = journal.Journal(path)
    one.add({"a": {"seconds": [0.1]}})
    one.close()
    with pytest.warns(RuntimeWarning, match="cannot be locked here"):
        two = journal.Journal(path)
    assert two.rows == {"a": {"seconds": [0.1]}}
    two.close()


@pytest.mark.parametrize(
    "line",
    [
        b"", b"null", b"[]", b"7", b'"rows"', b"{}", b'{"rows": []}', b'{"rows": {"a": 1}, "sitting": 1}', b"\xff",
        b"[" * 99999,
        b'{"rows": {"a": {}}}', b'{"rows": {"a": {}}, "sitting": "1"}', b'{"rows": null}', b'{"about": 3}',
        b'{"sitting": 1, "rows": {"b": {"sec', b"\0" * 40,
    ],
)  # fmt: skip
def test_damaged_lines_of_a_journal_count_as_not_there(tmp_path, line):
    path = tmp_path / journal.NAME
    journal.begin(path, {"profile": "tiny"})
    one = journal.Journal(path)
    one.add({"a": {"seconds": [0.1]}})
    one.close()
    whole = path.read_bytes()
    path.write_bytes(whole + line + b"\n" + whole)
    assert (journal.measured(path), journal.differences(path, {"profile": "tiny"})) == (1, [])
    two = journal.Journal(path)
    assert two.rows == {"a": {"seconds": [0.1]}}
    two.close()
    assert path.read_bytes() == whole
    path.write_bytes(line + b"\n" + whole)
    assert journal.differences(path, {"profile": "tiny"}) == ["profile was None and is 'tiny'"]


def test_a_journal_holds_whole_groups_and_one_process(tmp_path):
    path = tmp_path / journal.NAME
    journal.begin(path, {"profile": "tiny", "cases": ("a",)})
    assert journal.differences(path, {"profile": "tiny", "cases": ("a",)}) == []
    assert journal.differences(path, {"profile": "full", "cases": ("a",)}) == ["profile was 'tiny' and is 'full'"]
    first = journal.Journal(path)
    with pytest.raises(RuntimeError, match="another process is measuring there"):
        journal.Journal(path)
    first.add({"a": {"seconds": [0.1]}})
    first.close()
    with open(path, "a") as file:
        file.write('{"sitting": 1, "rows": {"b": {"sec')  # the process ended here
    assert journal.measured(path) == 1
    second = journal.Journal(path)
    assert (second.rows, second.sittings) == ({"a": {"seconds": [0.1]}}, 1)
    second.add({"c": {"seconds": [0.3]}})
    assert second.sittings == 2
    second.close()
    third = journal.Journal(path)
    assert (sorted(third.rows), third.sittings) == (["a", "c"], 2)
    third.close()


def test_a_group_is_kept_together_and_not_measured_again(tmp_path, monkeypatch):
    case = next(c for c in suite.named(TINY, gpu=False) if c.name == "ct-recipe-linear")
    rows = [suite.Row("case", case, case.doer(key)) for key in ("gpuresample", "simpleitk")]
    path = tmp_path / journal.NAME
    journal.begin(path, {})
    measured = journal.Journal(path)
    told = timing.Session(rows, TINY, measured).told(rows[0])
    assert sorted(measured.rows) == sorted(r.name for r in rows)
    monkeypatch.setattr(timing.Session, "_run", lambda *_: pytest.fail("measured again"))
    again = timing.Session(rows, TINY, measured)
    assert again.told(rows[0]) == told
    assert again.told(rows[1])["check"] == "judge"
    measured.close()


def test_a_case_that_fails_fails_in_all_its_rows_and_is_not_kept(tmp_path, monkeypatch):
    case = next(c for c in suite.named(TINY, gpu=False) if c.name == "ct-recipe-linear")
    rows = [suite.Row("case", case, case.doer(key)) for key in ("gpuresample", "simpleitk")]

    def fails(*_, **__):
        raise ValueError("a broken call")

    monkeypatch.setattr(measure, "interleaved", fails)
    path = tmp_path / journal.NAME
    journal.begin(path, {})
    measured = journal.Journal(path)
    session = timing.Session(rows, TINY, measured)
    for row in rows:
        with pytest.raises((ValueError, RuntimeError), match="a broken call"):
            session.told(row)
    assert measured.rows == {}
    measured.close()


@needs_benchmark
def test_a_run_in_a_checkout_needs_nothing_of_its_tests(tmp_path):
    """As in a clone in which only what `bench` needs is installed: the tests' conftest cannot be loaded there."""
    (tmp_path / "tests").mkdir()
    for folder in (tmp_path, tmp_path / "tests"):
        (folder / "conftest.py").write_text("raise ModuleNotFoundError('what the tests need')")
    done = subprocess.run(
        [
            sys.executable, "-m", "gpuresample.cli", "bench", "--profile", "tiny", "--out", "out",
            "--case", "gaussian-sampled-1",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (tmp_path / "out").iterdir()
    assert records.read(folder / "benchmark.json").machine["sittings"] == 1
