"""`benchmarks.peer_suites`: which files run, how their reports are read, and what comes of a suite with ours in it."""

import sys

import SimpleITK as sitk

import gpuresample.sitk as gsitk
from benchmarks import peer_suites
from benchmarks.peer_plugin import replaced


def test_files_that_name_something_replaced_run(tmp_path):
    (tmp_path / "inner").mkdir()
    for name, text in {
        "test_a.py": "sitk.Resample(x)", "inner/test_b.py": "ResampleImageFilter()", "test_c.py": "Resampler(x)",
        "helper.py": "Resample",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(text)
    names = ["Resample", "ResampleImageFilter"]
    found = peer_suites.files_of(tmp_path, "test_*.py", names)
    assert [path.name for path in found] == ["test_b.py", "test_a.py"]
    assert len(peer_suites.files_of(tmp_path, "test_*.py", None)) == 3


def test_reports_are_read_test_by_test(tmp_path):
    report = tmp_path / "report.xml"
    assert peer_suites.outcomes("t.py", report) == ({"t.py (ended without a report)": "failed"}, "")
    report.write_text(
        '<testsuites><testsuite><testcase classname="tests.t.A" name="one"/><testcase classname="tests.t.A" name="two">'
        '<failure/></testcase><testcase classname="tests.t" name="three"><skipped/></testcase>'
        '<testcase classname="tests.t" name="four"><error/></testcase></testsuite></testsuites>'
    )
    outcomes, why = peer_suites.outcomes("t.py", report)
    assert not why
    assert list(outcomes.values()) == ["passed", "failed", "skipped", "failed"]
    assert next(iter(outcomes)) == "t.py::A::one"
    run = peer_suites.Run(outcomes)
    assert [run.count(outcome) for outcome in ("passed", "failed", "skipped")] == [1, 2, 1]


def test_a_file_that_is_not_collected_says_why(tmp_path):
    (tmp_path / "test_it.py").write_text("import no_such_module\n")
    run = peer_suites.run("SimpleITK", tmp_path, [tmp_path / "test_it.py"], ours=False)
    assert run.tests == {}
    assert run.unread == {"test_it.py": "ModuleNotFoundError: No module named 'no_such_module'"}


def test_tests_that_only_ours_fail_are_named(tmp_path, monkeypatch, capsys):
    tests = tmp_path / "SimpleITK" / "Testing" / "Unit" / "Python"
    tests.mkdir(parents=True)
    (tests / "sitkMade.py").write_text("sitk.Resample(x)")
    asked = []

    def run(peer, root, files, ours):
        asked.append((peer, [path.relative_to(root).as_posix() for path in files], ours))
        return peer_suites.Run({"one": "passed", "two": "failed" if ours else "passed", "three": "failed"}, 1.0)

    monkeypatch.setattr(peer_suites, "run", run)
    monkeypatch.setattr(peer_suites, "names_of", lambda peer: list(replaced(peer)))
    monkeypatch.setattr(sys, "argv", ["peer_suites", str(tmp_path), "--peers", "SimpleITK", "monai"])
    assert peer_suites.main() == 1
    assert asked == [("SimpleITK", ["tests/sitkMade.py"], ours) for ours in (False, True)]
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("SimpleITK")).split()
    assert row[2:] == ["3", "2", "1", "1", "2"]
    assert "passes without ours, not with them: SimpleITK: two\n" in said
    assert f"no folder {tmp_path / 'monai' / 'tests'}" in said


def test_what_is_replaced_has_the_librarys_own_name():
    pairs = replaced("SimpleITK")
    assert {"Resample", "ResampleImageFilter", "DiscreteGaussian", "Shrink"} <= set(pairs)
    for name, (theirs, ours) in pairs.items():
        assert (theirs, ours) == (getattr(sitk, name), getattr(gsitk, name))
        assert theirs is not ours
