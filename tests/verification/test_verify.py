"""`gr.verify` and `gpuresample verify`: what they find, what they say, and that they notice what is broken."""

import json
import re
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume

import gpuresample as gr
from gpuresample.bench import bounds, cases, measure
from gpuresample.engines.cpu import engine as cpu
from gpuresample.engines.cuda import engine as cuda
from gpuresample.files import volumes as files
from gpuresample.verification import FILTERS, INTERPOLATIONS, pairs, samples, views, votes
from gpuresample.verification.results import Row, Verification

SHAPE = (14, 18, 20)
FEW = {"interpolations": ["nearest", "linear", "bspline", "label_gaussian", "label_linear"], "runs": 1}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Times are not what is tested here."""
    monkeypatch.setattr(measure, "SETTLE", 0.0)


def ct(dtype=np.int16, shape=SHAPE):
    return cases.ct_like(shape, dtype)


def states(found):
    return {r.name: r.state for r in found.rows if r.engine == "cpu"}


def named(found, name, engine="cpu"):
    (row,) = [r for r in found.rows if (r.name, r.engine) == (name, engine)]
    return row


# ------------------------------------------------------------------------------------------------ what is compared


@pytest.fixture(scope="module")
def whole_report():
    return gr.verify(cases.image(ct(), cases.Grid.of_size(SHAPE[::-1], (0.7, 0.8, 2.0))), engines=["cpu"], runs=1)


def test_everything_is_compared(whole_report):
    assert whole_report.ok
    assert states(whole_report) == dict.fromkeys([*INTERPOLATIONS, *FILTERS], "ok")
    assert len(INTERPOLATIONS) == 15
    for row in whole_report.rows:
        assert row.seconds > 0
        assert row.ratio == row.sitk_seconds / row.seconds
        if row.name in bounds.EXACT:
            assert (row.error, row.bound, row.differ) == (None, 0, 0)
        else:
            assert 0 < row.error <= row.bound
            assert row.difference == pytest.approx(row.error * np.ptp(ct().astype(float)))
    assert "range -1024 to" in whole_report.about_image()


def test_the_result_is_a_table_and_json(whole_report):
    text = str(whole_report)
    assert "All 19 comparisons are within the numeric contract." in text
    lines = [line for line in text.splitlines() if line.startswith("bspline5 ")]
    assert len(lines) == 1
    assert re.search(r"int16/float32 +\d\.\de-\d\d +2e-06 .* ok .*x$", lines[0])
    plain = json.loads(json.dumps(whole_report.as_dict()))
    assert plain["ok"] is True
    assert {row["name"] for row in plain["rows"]} == {*INTERPOLATIONS, *FILTERS}


def wide_labels():
    return cases.wide_labels(SHAPE)


def with_nan():
    array = ct(np.float32, (20, 26, 30))
    array[3, 4, 5] = np.nan
    array[15:17, 20:22, 2:4] = np.inf
    return array


def vector():
    pixels = np.moveaxis(ct(np.uint8, (3, 18, 20)), 0, -1)
    return sitk.GetImageFromArray(np.ascontiguousarray(pixels), isVector=True)


def series():
    return sitk.GetImageFromArray(np.stack([ct() + k for k in range(6)]), isVector=False)


KINDS = {
    "bool": lambda: ct() > 0,
    "labels": lambda: cases.label_map(SHAPE, np.uint8),
    "labels above 2^53": wide_labels,
    "int32": lambda: ct(np.int32) * 700_000,
    "float64": lambda: ct(np.float64),
    "float16": lambda: ct(np.float16),
    "big endian": lambda: ct().astype(">i2"),
    "NaN": with_nan,
    "nothing but NaN": lambda: np.full(SHAPE, np.nan, np.float32),
    "zeros": lambda: np.zeros(SHAPE, np.int16),
    "constant": lambda: np.full(SHAPE, 7.3, np.float32),
    "far from zero": lambda: (20_000 + ct(np.float32) / 100).astype(np.float32),
    "tiny": lambda: np.arange(105, dtype=np.int16).reshape(3, 5, 7),
    "2-D": lambda: ct()[7],
    "one voxel thick": lambda: ct()[:1],
    "channels": lambda: np.stack([ct(np.float32)] * 2),
    "vector": vector,
    "4-D": series,
    "Volume": lambda: gr.Volume(ct(), (0.5, 0.6, 2.5), (10.0, -4.0, 3.0)),
}


# Floating-point voxels are not rounded: one kind of them shows that.
FLOATS = {"float16", "NaN", "nothing but NaN", "constant", "far from zero", "channels"}
CONTRACTS = [*[(kind, "nearest") for kind in KINDS], *[(kind, "truncate") for kind in KINDS if kind not in FLOATS]]


@pytest.mark.parametrize(("kind", "rounding"), CONTRACTS)
def test_the_contract_holds(kind, rounding):
    found = gr.verify(KINDS[kind](), rounding=rounding, filters=FILTERS, engines=["cpu"], **FEW)
    assert found.broken == (), found
    assert found.ok, found
    assert states(found)["nearest"] == "ok"


def test_what_was_left_out_is_said():
    found = gr.verify(with_nan(), engines=["cpu"], **FEW)
    assert "% of the voxels, which NaN or infinities reach, are left out" in named(found, "linear").note
    assert "was given the image without them" in named(found, "bspline").note
    assert "infinities are left out" in named(found, "nearest").note
    found = gr.verify(KINDS["nothing but NaN"](), engines=["cpu"], **FEW)
    assert (states(found)["gaussian_discrete"], states(found)["nearest"]) == ("not run", "ok")
    assert named(found, "gaussian_discrete").note == "NaN or infinities reach every voxel"
    found = gr.verify(np.arange(105, dtype=np.int16).reshape(3, 5, 7), engines=["cpu"], interpolations=["bspline5"])
    assert states(found)["bspline5"] == "not run"
    assert "SimpleITK reads beyond an axis of 3 voxels" in named(found, "bspline5").note
    found = gr.verify(series(), engines=["cpu"], interpolations=["nearest"], filters=[], runs=1)
    assert "Of 6 volumes, 4 were compared." in found.notes


def test_integers_against_simpleitks_own():
    # Every second sample falls on a voxel: there truncation makes a unit of the last digits.
    image = cases.image(ct(), cases.Grid.of_size(SHAPE[::-1], (0.7, 0.9, 1.3)))
    options = {"interpolations": ["bspline"], "filters": [], "engines": ["cpu"], "runs": 1}
    found = gr.verify(image, spacing=[2 * s for s in image.GetSpacing()], rounding="truncate", **options)
    assert found.ok
    assert named(found, "bspline").differ > bounds.MOST_DIFFERING
    assert "whole numbers up to their last digits" in named(found, "bspline").note
    assert named(gr.verify(image, rounding="truncate", **options), "bspline").differ <= bounds.MOST_DIFFERING


def test_ties_of_an_oblique_header_are_told_apart():
    geometry = cases.tilted(cases.Grid.of_size(SHAPE[::-1], (0.78125, 0.9, 1.5)))
    image = cases.image(ct(), geometry.source)
    found = gr.verify(image, spacing=[s / 2 for s in image.GetSpacing()], filters=[], engines=["cpu"], **FEW)
    assert found.ok, found
    nearest = named(found, "nearest")
    assert nearest.differ > 0.01
    assert "exactly on a tie" in nearest.note
    assert "exactly on a tie" in named(found, "label_gaussian").note


@pytest.mark.parametrize("name", cases.GEOMETRIES)
def test_grids_and_transforms(name):
    geometry = cases.GEOMETRIES[name](cases.Grid.of_size((22, 20, 16), (0.78125, 0.9, 1.5)))
    image = cases.image(ct(shape=(16, 20, 22)), geometry.source)
    found = gr.verify(
        image, like=geometry.target, transform=geometry.transform, voxels=2500, engines=["cpu"], filters=[],
        interpolations=["nearest", "linear", "bspline"], runs=1,
    )  # fmt: skip
    assert found.ok, found
    assert any("a box of" in note for note in found.notes)


@pytest.mark.parametrize("name", cases.GEOMETRIES)
def test_boxes_lie_on_each_other(name):
    g = cases.GEOMETRIES[name](cases.Grid.of_size((120, 100, 80), (0.78125, 0.9, 1.5)))
    most = 20_000
    (start, size), (there, wanted) = samples.cut(g.source, g.target, g.transform, most)
    assert 0.3 * most < max(np.prod(size), np.prod(wanted)) <= most
    index = np.stack(np.meshgrid(*[np.arange(n) for n in wanted], indexing="ij"), axis=-1).reshape(-1, 3)
    points = g.target.points(index + np.array(there, float))
    if g.transform is not None:
        points = np.array([g.transform.TransformPoint(p) for p in points.tolist()])
    x = g.source.indices(points)
    inside = ((x >= np.array(start) - 0.5) & (x < np.array(start) + size - 0.5)).all(axis=1)
    assert inside.mean() > 0.25
    # None of the output's voxels on the box's inside is missing.
    centre = np.array(start) + (np.array(size) - 1) / 2
    assert (np.abs(x - centre).min(axis=0) < 1.5).all()


def test_small_images_are_compared_whole():
    grid = cases.Grid.of_size((20, 18, 14))
    (start, size), (there, wanted) = samples.cut(grid, cases.coarser(grid).target, None, 10_000)
    assert (start, size, there, wanted) == ((0, 0, 0), grid.size, (0, 0, 0), cases.coarser(grid).target.size)
    array = ct(shape=(30, 30, 30))
    options = {"interpolations": ["nearest"], "filters": [], "engines": ["cpu"], "runs": 1, "voxels": 5000}
    assert gr.verify(array, **options).image["compared"] == "15 x 15 x 15"
    assert gr.verify(array, whole=True, **options).image["compared"] == "30 x 30 x 30"


# ------------------------------------------------------------------------------------------- what must be noticed


def damage(monkeypatch, act):
    """An engine that changes one voxel of every result."""
    true = cpu.run

    def wrong(work, src, dst, store):
        true(work, src, dst, store)
        voxel = dst[tuple(n // 2 for n in dst.shape)[:-1]][dst.shape[-1] // 2 :][:1]
        act(voxel, float(np.ptp(ct().astype(float))))

    monkeypatch.setattr(cpu, "run", wrong)


def a_little(voxel, span):
    voxel += np.array(1 if voxel.dtype.kind in "iu" else 1e-4 * span, voxel.dtype)


def a_little_of_floats(voxel, span):
    if voxel.dtype.kind == "f":
        voxel += np.array(1e-4 * span, voxel.dtype)


def nan_of_floats(voxel, span):
    if voxel.dtype.kind == "f":
        voxel[...] = np.nan


def ten_of_integers(voxel, span):
    if voxel.dtype.kind in "iu":
        voxel += np.array(10, voxel.dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_one_wrong_voxel_breaks_the_contract(monkeypatch, dtype):
    damage(monkeypatch, a_little)
    found = gr.verify(ct(dtype), filters=FILTERS, engines=["cpu"], **FEW)
    assert not found.ok
    assert set(states(found).values()) == {"broken"}
    assert "bspline (cpu)" in found.verdict
    assert named(found, "bspline").error == pytest.approx(1e-4, rel=0.02)
    assert " BROKEN " in str(found)


@pytest.mark.parametrize(
    ("act", "rounding"),
    [
        (a_little_of_floats, "nearest"),
        (nan_of_floats, "nearest"),
        (ten_of_integers, "nearest"),
        (ten_of_integers, "truncate"),
    ],
)
def test_a_voxel_of_one_path_breaks_it_too(monkeypatch, act, rounding):
    damage(monkeypatch, act)
    found = gr.verify(ct(), interpolations=["bspline"], filters=[], engines=["cpu"], rounding=rounding, runs=1)
    assert states(found) == {"bspline": "broken"}
    assert named(found, "bspline").note or named(found, "bspline").error > 1e-5


def test_nan_where_simpleitk_has_numbers_is_noticed(monkeypatch):
    damage(monkeypatch, nan_of_floats)
    array = ct(np.float32)
    array[0, 0, 0] = np.nan
    found = gr.verify(array, interpolations=["linear"], filters=[], engines=["cpu"], runs=1)
    assert states(found) == {"linear": "broken"}
    assert "numbers in SimpleITK's result" in named(found, "linear").note


def test_nothing_compared_is_not_ok():
    row = Row("bspline5", "cpu", state="not run", note="why")
    found = Verification((row,), {}, {"versions": {}}, "nearest")
    assert not found.ok
    assert found.verdict == "Nothing was compared."


def test_equal_votes():
    array = np.zeros((4, 4, 4), np.uint8)
    array[:, :, 2:] = 1
    grid = cases.Grid.of_size((4, 4, 4))
    halfway = cases.Grid((1, 1, 1), (1.0,) * 3, (1.5, 1.5, 1.5), grid.direction)
    nearer = cases.Grid((1, 1, 1), (1.0,) * 3, (1.4, 1.5, 1.5), grid.direction)
    at = (np.zeros(3, int),) * 3
    for name in bounds.LABEL_MODES:
        for target, wins in ((halfway, [True, True, False]), (nearer, [True, False, False])):
            sample = samples.Sample(array, cases.Geometry("", grid, target), False)
            assert votes.may_win(sample, name, at, np.array([0, 1, 2])).tolist() == wins


@pytest.mark.parametrize("name", bounds.LABEL_MODES)
def test_votes_are_simpleitks(name):
    labels = cases.label_map((10, 12, 14), np.uint8)
    grid = cases.Grid.of_size((14, 12, 10), (0.7, 0.9, 1.1))
    sample = samples.Sample(labels, cases.finer(grid), False)
    pair = pairs.Pair(name, sample, "nearest")
    theirs = pair.theirs()
    at = tuple(index[::3] for index in np.nonzero(np.isfinite(pair.sums())))
    assert votes.may_win(sample, name, at, theirs[at]).all()
    assert not votes.may_win(sample, name, at, theirs[at] + np.uint8(1)).any()


def test_differences():
    big = np.array([[2**63 + 1, 5], [0, 7]], np.uint64)
    found = bounds.difference(big, np.array([[2**63, 5], [3, 7]], np.uint64))
    assert (found.largest, found.at, found.share) == (3, (1, 0), 0.5)
    a, b = np.array([[np.nan, 1.0, np.nan]]), np.array([[np.nan, 1.5, 2.0]])
    assert bounds.difference(a, b).largest == np.inf
    kept = bounds.difference(a, b, np.isfinite(a))
    assert (kept.largest, kept.at, kept.share) == (0.5, (0, 1), 1 / 3)
    assert bounds.difference(np.array([[True, False]]), np.array([[1, 1]], np.uint8)).share == 0.5
    low, high = np.array([[-(2**63)]]), np.array([[2**63 - 1]])
    assert bounds.difference(low, high).largest == float(2**64 - 1)
    assert bounds.differing_apart(np.array([[1, 1]]), np.array([[2, 2]]), np.array([[1.5, 2.0]]), 1e-3) == 0.5


@pytest.mark.parametrize(("low", "high", "unit"), [(0, 10, 10), (-5, 5, 10), (10, 20, 10), (11, 20, 20), (7, 7, 7)])
def test_the_unit_of_errors(low, high, unit):
    assert bounds.unit_of(low, high) == unit


# ---------------------------------------------------------------------------------------------------- the page


def test_the_page(monkeypatch, tmp_path):
    damage(monkeypatch, a_little)
    found = gr.verify(ct(), filters=["shrink"], engines=["cpu"], **FEW)
    found.write(tmp_path / "a.html")
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["a.html"]
    assert all(a.startswith(("data:", "#")) for a in re.findall(r'(?:src|href)="([^"]*)"', html))
    assert not re.search(r"url\((?!#)|@import|<link|<script", html)
    assert html.count("data:image/png") == 3 * len(found.rows)
    assert "✗\u00a0</span>" not in html
    assert "✗\u00a0broken" in html
    for name in FEW["interpolations"]:
        assert f"{name}, SimpleITK" in html
    assert found.verdict in html


def test_equal_results_have_no_pictures(tmp_path):
    found = gr.verify(ct(), interpolations=["nearest"], filters=["shrink"], engines=["cpu"], runs=1)
    found.write(tmp_path / "a.html")
    html = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "data:image/png" not in html
    assert "No voxel differs: nearest, shrink." in html


def test_no_voxel_is_lost_in_a_picture():
    ours = np.zeros((2, 900, 600), np.float32)
    theirs = np.zeros((2, 900, 600))
    ours[1, 777, 5] = -2.0
    made = views.views_of(ours, theirs, (1, 777, 5), (1.0, 1.0, 3.0))
    assert made.difference.shape == (256, 171, 3)
    assert made.peak == 2
    rows, columns = np.nonzero((made.difference == views._BELOW).all(axis=-1))
    assert (rows.tolist(), columns.tolist()) == ([777 * 256 // 900], [5 * 171 // 600])
    # Anisotropic voxels keep their proportions.
    assert views.views_of(ours, theirs, (0, 0, 0), (1.0, 0.5, 1.0)).ours.shape == (192, 256)


# ------------------------------------------------------------------------------------------------- engines


@pytest.mark.kernels
def test_both_engines(cupy):
    found = gr.verify(ct(), filters=["gaussian_discrete", "bin_shrink"], **FEW)
    assert found.ok, found
    assert {r.engine for r in found.rows} == {"cpu", "cuda"}
    assert len(found.rows) == 14
    assert cuda._engine().runtime.launches.total() > 0
    assert 0 < named(found, "bspline", "cuda").error <= 2e-6


def no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)


def test_an_engine_that_cannot_be_used_is_said(monkeypatch):
    no_gpu(monkeypatch)
    found = gr.verify(ct(), interpolations=["nearest"], filters=[], runs=1)
    assert found.ok
    assert named(found, "all", "cuda").state == "not run"
    assert "CuPy cannot be imported" in str(found)
    with pytest.raises(RuntimeError, match="CuPy cannot be imported"):
        gr.verify(ct(), engines=["cuda"])


@pytest.mark.parametrize(
    ("keywords", "error", "pattern"),
    [
        ({"rounding": "up"}, ValueError, "rounding must be one of 'nearest', 'truncate', got 'up'"),
        ({"interpolations": "linear"}, TypeError, "interpolations must be a sequence of names, got 'linear'"),
        ({"interpolations": ["lineer"]}, ValueError, "did you mean 'linear'"),
        ({"filters": ["median"]}, ValueError, "filters must be one of 'gaussian_discrete'"),
        ({"interpolations": [], "filters": []}, ValueError, "nothing would be compared"),
        ({"engines": ["auto"]}, ValueError, "got 'auto'"),
        ({"engines": []}, ValueError, "engines must not be empty"),
        ({"engines": "cpu"}, TypeError, "engines must be a sequence"),
        ({"voxels": 0}, ValueError, "voxels must be"),
        ({"runs": 1.5}, TypeError, "runs must be"),
        ({"spacing": (1, 2)}, ValueError, "spacing must have 3 values"),
        ({"like": 3}, TypeError, "like must be"),
    ],
)
def test_bad_arguments_are_refused(keywords, error, pattern):
    with pytest.raises(error, match=re.escape(pattern)):
        gr.verify(ct(), **keywords)


def test_names_may_be_simpleitks_enumerators():
    found = gr.verify(ct(), interpolations=[sitk.sitkBSpline, "bspline3"], filters=[], engines=["cpu"], runs=1)
    assert list(states(found)) == ["bspline"]


def test_progress_is_told():
    told = []
    gr.verify(ct(), interpolations=["linear"], filters=["shrink"], engines=["cpu"], runs=1, progress=told.append)
    assert told == ["linear, cpu and SimpleITK", "shrink, cpu and SimpleITK"]


# --------------------------------------------------------------------------------------------- the command line

QUICK = ("--interpolation", "nearest", "--interpolation", "bspline", "--filter", "bin_shrink", "--engine", "cpu",
         "--runs", "1")  # fmt: skip


@pytest.fixture
def image(tmp_path):
    files.write(volume(), tmp_path / "a.nrrd")
    return tmp_path / "a.nrrd"


def test_the_command(run, image, tmp_path):
    code, out, err = run("verify", image, *QUICK, "--html", tmp_path / "a.html")
    assert (code, err) == (0, "")
    assert "All 3 comparisons are within the numeric contract." in out
    assert f"page: {tmp_path / 'a.html'}" in out
    assert (tmp_path / "a.html").read_text(encoding="utf-8").endswith("</html>")
    code, out, _ = run("verify", image, *QUICK, "--spacing", 1, 1.1, 0.9, "--rounding", "truncate", "--json")
    assert code == 0
    facts = json.loads(out)
    assert facts["image"]["target"].endswith("at 1 x 1.1 x 0.9")
    assert [r["name"] for r in facts["rows"]] == ["nearest", "bspline", "bin_shrink"]
    code, out, _ = run("verify", image, "--filter", "shrink", "--engine", "cpu", "--runs", 1, "--like", image)
    assert code == 0
    assert "All 1 comparisons" in out


def test_a_broken_contract_is_exit_code_1(run, image, monkeypatch):
    damage(monkeypatch, a_little)
    code, out, err = run("verify", image, *QUICK)
    assert (code, err) == (1, "")
    assert out.count("BROKEN") == 3
    assert "break the numeric contract: nearest (cpu), bspline (cpu), bin_shrink (cpu)" in " ".join(out.split())
    assert run("verify", image, *QUICK, "--json")[0] == 1


def test_the_command_refuses_before_it_works(run, image, tmp_path, monkeypatch):
    refused(run("verify", image, "--html", tmp_path / "a.nrrd"), 2, "--html takes a name that ends in .html")
    refused(run("verify", image, "--html", tmp_path / "no" / "a.html"), 1, "its folder is not there")
    refused(run("verify", image, "--spacing", "x"), 2, "--spacing takes numbers, got 'x'")
    refused(run("verify", image, "--interpolation", "cubic"), 2, "interpolation")
    refused(run("verify", tmp_path / "none.nii"), 1, "no such file")
    no_gpu(monkeypatch)
    refused(run("verify", image, "--engine", "cuda"), 1, "CuPy cannot be imported")
    complex_image = sitk.RealAndImaginaryToComplex(volume(sitk.sitkFloat32), volume(sitk.sitkFloat32))
    sitk.WriteImage(complex_image, str(tmp_path / "c.nii"))
    refused(run("verify", tmp_path / "c.nii"), 1, "cannot be resampled")


@pytest.mark.parametrize("name", ["MNI152_2009_template.nii.gz", "shear.nii.gz", "torsoLabel.nii.gz", "FLAIR.nii.gz",
                                  "pcasl.nii.gz", "ct_perfusion.nii.gz", "low_res.nii.gz"])  # fmt: skip
def test_real_volumes(read, name):
    found = gr.verify(read(name), voxels=8000, filters=FILTERS, engines=["cpu"], **FEW)
    assert found.ok, found
