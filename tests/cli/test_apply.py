"""`gpuresample apply` and `gpuresample info` of transforms, against SimpleITK."""

import json
import re

import elastix_made
import naive
import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused
from support import SINGLE, flat, noise, rotation, to_image

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

from gpuresample.files import apply as chains
from gpuresample.files import volumes as files

FIXED = naive.Geometry((20, 18, 12), (1.1, 0.9, 2.0), (-12.0, 7.0, 31.0), rotation(8, -12, 20))
MOVING = naive.Geometry((22, 17, 14), (1.0, 1.0, 1.8), (-13.0, 6.0, 30.0), rotation(5, -10, 15))
AFFINE = sitk.AffineTransform((1.03, 0.04, 0, -0.03, 0.98, 0, 0, 0.02, 1), (1.2, -0.8, 0.5), (-3, 15, 42))


def warp(scale=1.0, where=FIXED.origin):
    field = sitk.GetImageFromArray(scale * noise((7, 10, 12, 3)) / 1000, isVector=True)
    field.SetSpacing((2.2, 2.0, 4.0))
    field.SetOrigin(where)
    field.SetDirection(flat(FIXED.direction))
    return field


def field(image):
    return sitk.DisplacementFieldTransform(sitk.Cast(image, sitk.sitkVectorFloat64))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Volumes and transforms, in the current folder."""
    monkeypatch.chdir(tmp_path)
    files.write(to_image(noise(MOVING.size[::-1]), MOVING), "moving.nrrd")
    files.write(to_image(noise(FIXED.size[::-1], "int16", 1), FIXED), "fixed.nrrd")
    sitk.WriteTransform(AFFINE, "affine.tfm")
    sitk.WriteImage(warp(), "warp.nrrd")
    volumes = [to_image(noise(MOVING.size[::-1], seed=k), MOVING) for k in range(3)]
    sitk.WriteImage(sitk.JoinSeries(volumes), "series.nrrd")
    (tmp_path / "motion").mkdir()
    for k in range(3):
        sitk.WriteTransform(motion(k), f"motion/m{(8, 9, 10)[k]}.tfm")
    return tmp_path


def motion(k):
    return sitk.Euler3DTransform((-3, 15, 42), 0.02 * k, -0.01 * k, 0.03 * k, (k, -0.5 * k, 0.3))


def by_sitk(transforms, interpolator=sitk.sitkLinear, default=0.0, moving="moving.nrrd"):
    """The composite of transforms that a point goes through, the first one first."""
    fixed, image = sitk.ReadImage("fixed.nrrd"), moving if isinstance(moving, sitk.Image) else sitk.ReadImage(moving)
    return sitk.Resample(image, fixed, sitk.CompositeTransform(transforms[::-1]), interpolator, default)


def assert_equal(path, wanted):
    got = files.read(path)
    a, b = sitk.GetArrayFromImage(got).astype(np.float64), sitk.GetArrayFromImage(wanted)
    assert got.GetSize() == wanted.GetSize()
    np.testing.assert_allclose(got.GetOrigin(), wanted.GetOrigin(), atol=1e-9)
    assert np.abs(a - b).max() <= SINGLE * np.ptp(b)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["-t", "affine.tfm"], [AFFINE]), (["-t", "[affine.tfm,1]"], [AFFINE.GetInverse()]),
        (["-t", "warp.nrrd"], [field(warp())]), (["-t", "warp.nrrd", "-t", "affine.tfm"], [field(warp()), AFFINE]),
        (["--transform", "affine.tfm", "-t", "warp.nrrd"], [AFFINE, field(warp())]),
    ],
    ids=lambda v: " ".join(v) if isinstance(v[0], str) else "",
)  # fmt: skip
def test_a_chain_in_the_order_of_ants(run, folder, typed, meant):
    code, out, err = run("apply", "moving.nrrd", "out.nrrd", "--like", "fixed.nrrd", *typed)
    assert (code, err) == (0, "")
    assert_equal("out.nrrd", by_sitk(meant))
    names = [name for name in typed if not name.startswith("--") and name != "-t"]
    lines = out.splitlines()
    assert [line.split(": ")[0] for line in lines[: len(names)]] == [f"-t {name}" for name in names]
    ones = sitk.Cast(sitk.ReadImage("moving.nrrd") * 0 + 1, sitk.sitkUInt8)
    missed = int((sitk.GetArrayFromImage(by_sitk(meant, sitk.sitkNearestNeighbor, 0, ones)) == 0).sum())
    total = np.prod(FIXED.size)
    assert missed > 0
    assert lines[-1] == f"{missed:,} of {total:,} output points ({100 * missed / total:.3g} %) lie outside the input"


def test_flags_are_those_of_ants(run, folder):
    typed = [
        "-r",
        "fixed.nrrd",
        "-t",
        "affine.tfm",
        "-n",
        "nearest",
        "-f",
        "-7",
        "--dtype",
        "float64",
        "--threads",
        "1",
    ]
    code, _, err = run("apply", "moving.nrrd", "out.nrrd", *typed)
    gr.set_num_threads(None)
    assert (code, err) == (0, "")
    assert_equal("out.nrrd", by_sitk([AFFINE], sitk.sitkNearestNeighbor, -7.0))
    assert files.header("out.nrrd").pixel_type == "64-bit float"
    code, _, err = run("apply", "moving.nrrd", "out.nrrd", *typed)
    assert (code, "exists already" in err) == (1, True)


def test_elastix_says_where_its_output_lies(run, folder):
    text = elastix_made.parameters(FIXED, sitk.Euler3DTransform((-3, 15, 42), 0.1, 0, 0.1, (1, 2, 3)), "EulerTransform")
    (folder / "TransformParameters.0.txt").write_text(text)
    code, _, err = run("apply", "moving.nrrd", "out.nrrd", "-t", "TransformParameters.0.txt")
    assert (code, err) == (0, "")
    assert_equal("out.nrrd", by_sitk([sitk.Euler3DTransform((-3, 15, 42), 0.1, 0, 0.1, (1, 2, 3))]))
    refused(run("apply", "moving.nrrd", "o.nrrd", "-t", "affine.tfm"), 2, "--like must say which grid")


@pytest.mark.parametrize("where", ["motion", "motion/*.tfm", "motion/m*"])
def test_motion_and_warp_are_one_interpolation(run, folder, where):
    typed = ["--like", "fixed.nrrd", "-t", "warp.nrrd", "-t", where, "--series"]
    code, out, err = run("apply", "series.nrrd", "out.nrrd", *typed)
    assert (code, err) == (0, "")
    got, series = files.read("out.nrrd"), sitk.ReadImage("series.nrrd")
    assert "one for each of 3 volumes" in out
    for k in range(3):
        wanted = sitk.GetArrayFromImage(by_sitk([field(warp()), motion(k)], moving=series[..., k]))
        assert np.abs(sitk.GetArrayFromImage(got)[k] - wanted).max() <= SINGLE * np.ptp(wanted)


def test_one_transform_for_all_volumes(run, folder):
    for more in ([], ["--series"]):
        typed = ["--like", "fixed.nrrd", "-t", "warp.nrrd", "-t", "affine.tfm", "--overwrite", *more]
        assert run("apply", "series.nrrd", "out.nrrd", *typed)[::2] == (0, "")
        got, series = files.read("out.nrrd"), sitk.ReadImage("series.nrrd")
        for k in range(3):
            wanted = sitk.GetArrayFromImage(by_sitk([field(warp()), AFFINE], moving=series[..., k]))
            assert np.abs(sitk.GetArrayFromImage(got)[k] - wanted).max() <= SINGLE * np.ptp(wanted)


@pytest.mark.filterwarnings("always:transform leads nowhere")
@pytest.mark.parametrize("command", ["apply", "resample"])
def test_a_transform_that_leads_nowhere_is_warned_of_once(run, folder, command):
    sitk.WriteTransform(sitk.TranslationTransform(3, (1e4, 0, 0)), "away.tfm")
    typed = ["--like", "fixed.nrrd", "-t" if command == "apply" else "--transform", "away.tfm"]
    code, _, err = run(command, "moving.nrrd", "out.nrrd", *typed, "--interpolation", "linear")
    said = "warning: transform leads nowhere near the image: the whole output is the default value\n"
    assert (code, err) == (0, said)


REFUSED = [
    (["-t", "none.tfm"], 1, "none.tfm: no such file"), (["-t", "fixed.nrrd"], 1, "is an image, not a transform"),
    (["-t", "[warp.nrrd,1]"], 2, "warp.nrrd: only matrices can be inverted"), (["-t", "motion"], 1, "is a folder"),
    (["-t", "affine.tfm", "-t", "motion/*.tfm"], 1, "no such file"),
    (["-t", "affine.tfm", "--series"], 2, "--series is for images of four axes; moving.nrrd has 3"),
    (["-t", "far.nrrd"], 2, "far.nrrd: its displacement field lies nowhere near the reference"),
    (["-t", "affine.tfm", "-t", "far.nrrd"], 2, "far.nrrd: its displacement field lies nowhere near the reference"),
    (["-t", "flat.tfm"], 2, "flat.tfm: transform must have the image's dimension 3, got a 2-D"),
    (["-t", "two.tfm"], 1, "two.tfm: holds several transforms beside one another"),
    (["-t", "matrix.txt"], 1, "matrix.txt: is a bare matrix of 16 numbers, and nothing says in which space"),
    (["-t", "affine.tfm", "--interpolation", "cubic"], 2, "interpolation must be one of"),
    (["-t", "affine.tfm", "--format", "ants"], 2, "format must be one of"),
    (["-t", "damaged.h5"], 1, "damaged.h5: is no transform that SimpleITK reads"),
]  # fmt: skip


@pytest.mark.parametrize(("typed", "code", "error"), REFUSED, ids=[" ".join(r[0]) for r in REFUSED])
def test_what_is_refused_before_any_work(run, folder, typed, code, error):
    sitk.WriteImage(warp(where=(500.0, 0.0, 0.0)), "far.nrrd")
    sitk.WriteTransform(sitk.TranslationTransform(2, (1, 2)), "flat.tfm")
    (folder / "damaged.h5").write_bytes(b"nonsense")
    (folder / "matrix.txt").write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    text = (folder / "affine.tfm").read_text()
    (folder / "two.tfm").write_text(text + text.split("\n", 1)[1].replace("#Transform 0", "#Transform 1"))
    got, _, err = run("apply", "moving.nrrd", "out.nrrd", "--like", "fixed.nrrd", *typed)
    assert (got, err.count("\n")) == (code, 1), err
    assert re.search(re.escape(error), err), err
    assert not (folder / "out.nrrd").exists()


def test_series_that_are_refused(run, folder):
    typed = ["--like", "fixed.nrrd", "--series", "-t"]
    (folder / "motion" / "m11.tfm").write_text((folder / "motion" / "m9.tfm").read_text())
    refused(run("apply", "series.nrrd", "o.nrrd", *typed, "motion"), 2, "has 3 volumes, and there are transforms for 4")
    refused(run("apply", "series.nrrd", "o.nrrd", *typed, "motion/*.mat"), 1, "there are no such files")
    refused(
        run("apply", "series.nrrd", "o.nrrd", *typed, "motion", "-t", "motion/m?.tfm"), 2, "must be for as many volumes"
    )


def test_what_lies_outside_is_counted_by_the_rule_of_all_interpolations():
    grid = gr.Grid.of_size((4, 5, 6))
    for shift, missed in (((0.5, 0, 0), 30), ((0.49, 0, 0), 0), ((-0.5, 0, 0), 0), ((0, 100, 0), 120)):
        assert chains.outside(sitk.TranslationTransform(3, shift), grid, grid) == (missed, 120)
    both = [sitk.TranslationTransform(3, (1, 0, 0)), sitk.TranslationTransform(3, (2, 0, 0))]
    assert chains.outside(both, grid, grid) == (90, 240)


# --- info ------------------------------------------------------------------------------------------------------------


def test_info_shows_a_matrix(run, folder):
    code, out, err = run("info", "affine.tfm")
    assert (code, err) == (0, "")
    for word in ("AffineTransform", "ITK", "from output to input", "matrix, offset", "1.03"):
        assert word in out
    facts = json.loads(run("info", "affine.tfm", "--json")[1])
    np.testing.assert_allclose(facts["steps"][0]["matrix"], np.reshape(AFFINE.GetMatrix(), (3, 3)))
    np.testing.assert_allclose(facts["steps"][0]["offset"], AFFINE.TransformPoint((0, 0, 0)))
    assert facts["dimension"] == 3


def test_info_shows_a_composite_and_a_chain(run, folder):
    sitk.WriteTransform(sitk.CompositeTransform([AFFINE, field(warp())]), "both.h5")
    code, out, err = run("info", "both.h5")
    assert (code, err) == (0, "")
    assert "the last acts first" in out
    assert "vectors" in out
    first, second = json.loads(run("info", "both.h5", "--json")[1])["steps"]
    assert (first["vectors"], first["size"], "matrix" in second) == ("linear", [12, 10, 7], True)
    longest = np.sqrt((sitk.GetArrayFromImage(warp()).astype(float) ** 2).sum(axis=-1)).max()
    assert first["longest"] == pytest.approx(longest)
    for k, before in enumerate(("NoInitialTransform", "TransformParameters.0.txt")):
        text = elastix_made.parameters(FIXED, sitk.TranslationTransform(3, (1, 2, k)), "TranslationTransform", before)
        (folder / f"TransformParameters.{k}.txt").write_text(text)
    code, out, err = run("info", "TransformParameters.1.txt")
    assert (code, err) == (0, "")
    assert "with TransformParameters.0.txt before it" in out


def test_info_shows_a_warp(run, folder):
    image = sitk.ReadImage("warp.nrrd")
    sitk.WriteImage(image, "warp.nii.gz")
    code, out, err = run("info", "warp.nii.gz")
    assert (code, err) == (0, "")
    assert "displacement field" in out
    assert "12 x 10 x 7" in out


def test_info_of_a_volume_is_what_it_was(run, folder):
    sitk.WriteImage(sitk.ReadImage("moving.nrrd"), "volume.h5")
    for name in ("moving.nrrd", "volume.h5"):
        code, out, err = run("info", name)
        assert (code, err) == (0, "")
        assert "pixel type" in out


def test_resample_takes_these_transforms_too(run, folder):
    code, _, err = run(
        "resample", "moving.nrrd", "out.nrrd", "--like", "fixed.nrrd", "--transform", "warp.nrrd", "--interpolation",
        "linear",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert_equal("out.nrrd", by_sitk([field(warp())]))
