"""Drawn transforms against SimpleITK, voxel by voxel, and what must not pass there."""

import dataclasses
import json

import numpy as np
import pytest
import SimpleITK as sitk
from support import flat, rotation

import gpuresample as gr
from benchmarks import transform_parity as drawn
from gpuresample.bench import measure

CASES = 200


@pytest.fixture(scope="module", autouse=True)
def own_threads():
    """Cases set the threads of both libraries; that ends with this file."""
    n = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    measure.set_threads(1)
    yield
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n)
    gr.set_num_threads(None)


@pytest.fixture(scope="module")
def found():
    return list(drawn.run(drawn.SEED, CASES))


def test_no_voxel_is_outside_the_contract(found):
    broken = [one for one in found if not one.tally.ok and one.tally.outside]
    assert not broken, "\n".join(line for one in broken for line in (one.text, *one.where))
    whole = drawn.tallied(found)["all", ""]
    assert whole.ok
    assert whole.cases == CASES
    assert 0 < whole.single <= 2e-6
    assert 0 < whole.double <= 1e-7
    assert whole.ties < 0.1 * whole.voxels


def test_everything_is_drawn(found):
    names = set(drawn.tallied(found))
    assert {("transform", kind) for kind in drawn.KINDS_3D} <= names
    assert {("interpolation", name) for name in drawn.INTERPOLATIONS} <= names
    assert {("voxels", name) for name in drawn.TYPES} <= names
    assert {("image", f"{d}-D, {name}") for d in (2, 3) for name in drawn.DIRECTIONS} <= names
    assert {("output", name) for name in ("the image's grid", *drawn.DIRECTIONS)} <= names
    assert {("depth", f"{n}, {kind}") for n in (1, 2, 3, 4) for kind in ("linear", "with a lattice")} <= names


def one_case(found, wanted):
    """A drawn case that has voxels on the image."""
    for one in found:
        case = drawn.draw(drawn.SEED, one.number)
        inside = drawn.theirs(case) != case.default
        if wanted(case) and not drawn.ties(case).any() and inside.any() and not inside.all():
            return case
    raise AssertionError("no such case was drawn")


WANTED = {
    "copied": lambda case: case.interpolation == "nearest",
    "labels": lambda case: case.interpolation == "label_linear",
    "float32": lambda case: case.interpolation == "linear" and case.array.dtype == np.float32,
    "float64": lambda case: case.interpolation == "bspline" and case.array.dtype == np.float64,
    "int16": lambda case: case.interpolation == "linear" and case.array.dtype == np.int16,
}


@pytest.mark.parametrize("what", WANTED)
def test_one_wrong_voxel_is_seen(found, what, monkeypatch):
    case = one_case(found, WANTED[what])
    assert drawn.compare(case).tally.outside == 0
    right = drawn.ours

    def wrong(case, **keywords):
        made = right(case, **keywords)
        made.flat[made.size // 2] += 1 if made.dtype.kind in "iu" and what != "int16" else 2
        return made

    monkeypatch.setattr(drawn, "ours", wrong)
    one = drawn.compare(case)
    assert one.tally.outside == 1
    assert not one.tally.ok
    assert f"case {case.number}" in one.text


@pytest.mark.parametrize(("what", "spacings"), [("copied", 0.6), ("float32", 1e-4)])
def test_positions_that_are_off_are_seen(found, what, spacings, monkeypatch):
    case = one_case(found, WANTED[what])
    shift = (spacings * np.array(case.source.spacing)).tolist()
    moved = sitk.CompositeTransform([sitk.TranslationTransform(len(shift), shift), case.transform])
    right = drawn.ours
    monkeypatch.setattr(
        drawn, "ours", lambda c, **keywords: right(dataclasses.replace(c, members=(moved,)), **keywords)
    )
    assert drawn.compare(case).tally.outside > 0


def test_halves_are_ties_where_they_decide():
    grid = gr.Grid((6, 5, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), flat(np.eye(3).tolist()))
    array = np.arange(120, dtype=np.float32).reshape(4, 5, 6)
    shift = sitk.TranslationTransform(3, (0.5, 0.0, 0.0))
    case = drawn.Case(0, 0, array, grid, grid, (shift,), ("translation",), "nearest", -300, ("", ""))
    assert drawn.ties(case).all()
    # For sums, the face alone.
    linear = dataclasses.replace(case, interpolation="linear")
    assert np.array_equal(np.nonzero(drawn.ties(linear).any(axis=(0, 1)))[0], [5])
    turned = sitk.AffineTransform(flat(rotation(7, 8, 9)), (0.1, 0.2, 0.3))
    assert not drawn.ties(dataclasses.replace(case, members=(turned,), kinds=("affine",))).any()


def test_faces_of_lattices_are_ties():
    grid = gr.Grid((7, 6, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), flat(np.eye(3).tolist()))
    spline = sitk.BSplineTransform(3, 3)
    # Its domain is from voxel 1 to voxel 4 along x, and far beyond the image along y and z.
    spline.SetFixedParameters([6, 6, 6, 0, -20, -20, 1, 10, 10, *np.eye(3).ravel().tolist()])
    spline.SetParameters([0.25] * len(spline.GetParameters()))
    array = np.zeros((5, 6, 7), np.float32)
    case = drawn.Case(0, 0, array, grid, grid, (spline,), ("spline3",), "linear", -300, ("", ""))
    assert np.nonzero(drawn.ties(case).all(axis=(0, 1)))[0].tolist() == [1, 4]


@pytest.mark.parametrize("interpolation", ["label_linear", "label_gaussian"])
def test_labels_that_weigh_the_same_are_ties(interpolation):
    # In the middle of four voxels of four labels; and nearer to one of them.
    array = np.array([[1, 2], [3, 4]], np.uint8)
    halves = drawn.label_weights(array, (0.5, 0.5), interpolation)
    assert len(halves) == 4
    assert max(halves.values()) - min(halves.values()) < 1e-15
    near = drawn.label_weights(array, (0.4, 0.4), interpolation)
    assert near[1] > near[2] == pytest.approx(near[3], abs=1e-15)
    assert near[3] > near[4]


@pytest.mark.parametrize("interpolation", ["label_linear", "label_gaussian"])
def test_the_heaviest_label_is_simpleitks(found, interpolation):
    case = one_case(found, lambda c: c.interpolation == interpolation)
    x = case.source.indices(drawn._points(case.members, case.target))
    for position, label in zip(x.tolist(), drawn.theirs(case).ravel().tolist(), strict=True):
        if label != case.default:
            weight = drawn.label_weights(case.array, position, interpolation)
            assert weight[label] >= max(weight.values()) - 1e-9


def test_a_field_is_read_no_further_than_its_weights_sum_to_one():
    """Beside a node, a weight of 2e-31 is left for the node across the cell; SimpleITK does not read that one."""
    vectors = np.zeros((4, 4, 2))
    vectors[2, 2] = np.nan
    field = sitk.DisplacementFieldTransform(sitk.GetImageFromArray(vectors, isVector=True))
    elsewhere = sitk.GetImageFromArray(np.zeros((2, 2, 2)), isVector=True)
    elsewhere.SetOrigin((50.0, 50.0))
    # A lattice before it, so that no table of its weights is made.
    transform = sitk.CompositeTransform([field, sitk.DisplacementFieldTransform(elsewhere)])
    place = 1.0 + 2.0**-51
    image = sitk.GetImageFromArray(np.arange(16, dtype=np.float32).reshape(4, 4))
    grid = gr.Grid((1, 1), (1.0, 1.0), (place, place), (1.0, 0.0, 0.0, 1.0))
    theirs = sitk.Resample(image, grid.size, transform, sitk.sitkLinear, grid.origin, grid.spacing, grid.direction, -7)
    assert theirs[0, 0] == 5.0
    ours = gr.resample(image, like=grid, transform=transform, interpolation="linear", default_value=-7, device="cpu")
    assert ours[0, 0] == 5.0


def test_the_command(tmp_path, capsys):
    assert drawn.main(["--cases", "6", "--workers", "1", "--json", str(tmp_path / "found.json")]) == 0
    report = json.loads((tmp_path / "found.json").read_text())
    (whole,) = [row for row in report["rows"] if row["table"] == "all"]
    assert whole["cases"] == 6
    assert report["outside"] == []
    assert "6 cases of seed 20" in capsys.readouterr().out
    assert drawn.main(["--case", "3"]) == 0
    assert "seed 20, case 3: " in capsys.readouterr().out


def test_a_failure_names_its_case(monkeypatch, capsys):
    monkeypatch.setattr(drawn, "ours", lambda case, **keywords: drawn.theirs(case).astype(np.float64) + 3)
    assert drawn.main(["--cases", "2", "--workers", "1"]) == 1
    said = capsys.readouterr().out
    assert "seed 20, case 0: " in said
    assert "2 cases are outside the contract" in said


@pytest.mark.parametrize("option", ["--cases", "--workers"])
def test_counts_below_one_are_refused(option, capsys):
    with pytest.raises(SystemExit):
        drawn.main([option, "0"])
    assert f"{option} must be at least 1, got 0" in capsys.readouterr().err
