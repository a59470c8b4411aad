"""The table of rotated and deformed grids: its results against SimpleITK, and what it says. No clock is asserted."""

import importlib.util
import json
import sys
import types

import numpy as np
import pytest
import SimpleITK as sitk

from benchmarks import front
from gpuresample.bench import measure

pytestmark = pytest.mark.usefixtures("own_threads")

QUICK = 8


@pytest.mark.parametrize("key", front.LINES)
def test_results_are_simpleitks(key):
    if key == "linear-affine-rs" and importlib.util.find_spec("affiners") is not None:
        pytest.skip("affine-rs is installed, and would be run")
    found, calls = front.checked(key, front.LINES[key].given(QUICK))
    assert found.outside == 0
    assert found.error <= 2e-6
    if found.problem:
        assert (found.problem, list(calls)) == ("not installed", ["ours"])
        return
    # What is timed beside it is SimpleITK's result too; by the same transforms, call by call.
    for _ in range(2):
        ours, theirs = (front.voxels_of(calls[name]()).astype(np.float64) for name in ("ours", "theirs"))
        assert np.abs(ours - theirs).max() <= 2e-6 * 2924


@pytest.mark.parametrize("key", front.LINES)
def test_a_wrong_result_is_seen(key, monkeypatch):
    right = front.gr.resample

    def wrong(*args, **keywords):
        made = right(*args, **keywords)
        voxels = front.voxels_of(made)
        voxels[tuple(n // 2 for n in voxels.shape)] += 1
        return voxels

    monkeypatch.setattr(front.gr, "resample", wrong)
    found, _ = front.checked(key, front.LINES[key].given(QUICK))
    assert found.outside == 1
    assert found.verdict == "WRONG"


def pretend_affine_rs(monkeypatch, transform):
    """A stand-in for affine-rs, which may not be here."""
    module = types.ModuleType("affiners")
    module.affine_transform = transform
    module.__spec__ = importlib.util.spec_from_loader("affiners", None)
    monkeypatch.setitem(sys.modules, "affiners", module)


def by_scipy(array, matrix, offset, cval):
    from scipy import ndimage

    return ndimage.affine_transform(array, matrix, offset, order=1, mode="constant", cval=cval)


def test_affine_rs_is_asked_for_the_same(monkeypatch):
    pretend_affine_rs(monkeypatch, by_scipy)
    given = front.affine("linear", QUICK)
    found, calls = front.checked("linear-affine-rs", given)
    assert not found.problem
    inside = front._well_inside(given)
    assert 0.3 < inside.mean() < 0.95
    np.testing.assert_allclose(calls["theirs"]()[inside], given.expected[inside], atol=1e-3)


def test_another_result_of_affine_rs_has_no_ratio(monkeypatch):
    pretend_affine_rs(monkeypatch, lambda array, matrix, offset, cval: by_scipy(array, matrix, offset + 0.5, cval))
    assert front.checked("linear-affine-rs", front.affine("linear", QUICK))[0].verdict == "another result"


def test_every_call_has_another_matrix():
    given = front.fresh_matrices(QUICK)
    call = front.ours_by_matrix(given)
    results = [call().array for _ in range(3)]
    for k, result in enumerate(results):
        theirs = sitk.GetArrayFromImage(sitk.Resample(given.image, given.image, given.transforms[k]))
        np.testing.assert_allclose(result, theirs, atol=2e-6 * 2924)
    assert not np.array_equal(results[0], results[1])


def made_up(**changes):
    found = front.Found("linear", "affine, linear", "SimpleITK", 4.0, False, 1e-7, output=50_000_000, beside=1_000_000)
    found.ours, found.theirs = [0.05, 0.04, 0.06], [0.3, 0.2, 0.25]
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "reached"),
        ({"target": 5.1}, "not reached"),
        ({"outside": 1}, "WRONG"),
        ({"ours": [], "theirs": []}, "not timed"),
        ({"problem": "not installed", "theirs": []}, "not installed"),
        ({"milliseconds": True, "target": 51.0}, "reached"),
        ({"milliseconds": True, "target": 49.0}, "not reached"),
    ],
)
def test_verdicts(changes, said):
    assert made_up(**changes).verdict == said


def test_what_is_written(tmp_path):
    info = measure.machine(2)
    rows = [made_up(), made_up(what="affine, cubic B-spline", beside=60_000_000)]
    said = front.notes(rows, info, 1)
    folder = front.write(rows, said, info, "python -m benchmarks.front", tmp_path)
    text = (folder / "front.md").read_text()
    assert "| affine, linear | SimpleITK | 50 ms | 250 ms | 5.0x | 4x | 2 % | 1.0e-07 | 0 | reached |" in text
    assert "float32 256x256x192" in text
    assert "More is taken by: affine, cubic B-spline." in text
    report = json.loads((folder / "front.json").read_text())
    assert [r["ratio"] for r in report["rows"]] == [5.0, 5.0]
    assert report["machine"] == info


def test_the_command(tmp_path, capsys):
    code = front.main(["--quick", "--rounds", "1", "--lines", "tiny", "labels", "--out", str(tmp_path)])
    assert code == 0
    assert "The front" in capsys.readouterr().out
    (file,) = tmp_path.glob("*/front.json")
    assert [row["key"] for row in json.loads(file.read_text())["rows"]] == ["tiny", "labels"]


def test_memory_beside_the_output_is_measured():
    if sys.platform != "linux":
        pytest.skip("needs /proc")
    room = 1 << 27
    assert front._peak(lambda: np.ones(room, np.uint8)) == pytest.approx(room, rel=0.1)


def test_rounds_below_one_are_refused(capsys):
    with pytest.raises(SystemExit):
        front.main(["--rounds", "-1"])
    assert "--rounds must be at least 1, got -1" in capsys.readouterr().err
