"""The command line: it says what the package says, with files, exit codes and one line for every error."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import assert_same

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

from gpuresample.bench import phantom
from gpuresample.cli import console, main, options, side_by_side
from gpuresample.files import job
from gpuresample.files import volumes as files


@pytest.fixture
def ct(tmp_path):
    """A small volume in a file."""
    path = tmp_path / "ct.nii.gz"
    files.write(volume(), path)
    return path


# --------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("typed", "seen"),
    [
        (["a", "b", "--spacing", "1", "1", "2"], ["a", "b", "--spacing=1 1 2"]),
        (["--spacing", "2", "a", "b"], ["--spacing=2", "a", "b"]),
        (["--spacing", "1,1,2", "a"], ["--spacing=1,1,2", "a"]),
        (["--spacing", "-1", "1", "--size", "3", "4"], ["--spacing=-1 1", "--size=3 4"]),
        (["--spacing=1", "2"], ["--spacing=1", "2"]),
        (["--antialias", "a", "b"], ["--antialias=", "a", "b"]),
        (["--antialias", "0.5", "a"], ["--antialias=0.5", "a"]),
        (["--size", "x", "--overwrite"], ["--size=x", "--overwrite"]),
        (["--size", "--overwrite"], ["--size=", "--overwrite"]),
        (["--", "--size", "1", "2"], ["--", "--size", "1", "2"]),
        (["--size", "1", "2", "3", "4", "5"], ["--size=1 2 3 4", "5"]),
    ],
)
def test_numbers_after_an_option_are_one_argument(typed, seen):
    assert options.joined(typed) == seen


def test_numbers():
    assert options.numbers("--size", "3 4,5", int) == [3, 4, 5]
    assert options.one_or_all("--spacing", "1.5") == 1.5
    assert options.one_or_all("--spacing", "1 2 3") == [1, 2, 3]
    assert options.one_or_all("--spacing", None) is None
    assert options.number("--default-value", str(2**60 + 1)) == 2**60 + 1
    assert options.number("--default-value", "-0.5") == -0.5
    for text in ("", " ", "a", "1;2"):
        with pytest.raises(ValueError, match="--spacing takes numbers"):
            options.numbers("--spacing", text, float)
    with pytest.raises(ValueError, match=r"whole numbers, got '1\.5'"):
        options.numbers("--size", "1.5", int)
    with pytest.raises(ValueError, match="--default-value takes a number, got 'x'"):
        options.number("--default-value", "x")


# -------------------------------------------------------------------------------------------------- resample


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--spacing", "1", "1", "2"], {"spacing": (1, 1, 2)}),
        (["--spacing", "2"], {"spacing": 2.0}),
        (["--spacing=1,1,2"], {"spacing": (1, 1, 2)}),
        (["--size", "10", "11", "12"], {"size": (10, 11, 12)}),
        (["--size", "10", "11", "12", "--anchor", "edge"], {"size": (10, 11, 12), "anchor": "edge"}),
        (["--spacing", "2", "--antialias"], {"spacing": 2.0, "antialias": True}),
        (["--spacing", "2", "--antialias", "1", "1", "0.5"], {"spacing": 2.0, "antialias": (1, 1, 0.5)}),
        (["--spacing", "2", "--antialias", "0.7"], {"spacing": 2.0, "antialias": 0.7}),
        (["--spacing", "1.1", "--interpolation", "linear"], {"spacing": 1.1, "interpolation": "linear"}),
        (["--spacing", "1.1", "--boundary", "nearest"], {"spacing": 1.1, "boundary": "nearest"}),
        (["--spacing", "1.1", "--rounding", "truncate"], {"spacing": 1.1, "rounding": "truncate"}),
        (["--spacing", "1.1", "--dtype", "float32"], {"spacing": 1.1, "dtype": "float32"}),
        (["--spacing", "0.5", "--default-value", "-1024"], {"spacing": 0.5, "default_value": -1024}),
        (["--spacing", "0.7", "--clip"], {"spacing": 0.7, "clip": True}),
        (["--spacing", "0.7", "--clip", "-50", "300"], {"spacing": 0.7, "clip": (-50, 300)}),
        (["--spacing", "0.7", "--clip=no"], {"spacing": 0.7}),
        (["--spacing", "0.7", "--ignore", "-3"], {"spacing": 0.7, "ignore": -3}),
        (["--spacing", "0.7", "--clip", "--ignore=0"], {"spacing": 0.7, "ignore": 0, "clip": True}),
        (
            ["--spacing", "0.7", "--dtype", "float32", "--ignore", "12", "--clip", "0", "9.5"],
            {"spacing": 0.7, "ignore": 12, "clip": (0, 9.5), "dtype": "float32"},
        ),
        (["--spacing", "1.1", "--device", "cpu", "--threads", "1"], {"spacing": 1.1}),
    ],
    ids=" ".join,
)
def test_resample_is_gr_resample(run, ct, tmp_path, threads, typed, meant):
    code, out, err = run("resample", ct, tmp_path / "out.nii.gz", *typed)
    assert (code, err) == (0, "")
    wanted = gr.resample(files.read(ct), **meant)
    assert_same(files.read(tmp_path / "out.nii.gz"), wanted)
    first, second = out.splitlines()
    assert str(ct) in first
    assert "24 x 20 x 12 at 0.8 x 0.8 x 1.5 mm" in first
    assert console.times(wanted.GetSize()) in second
    assert re.search(r"; [\d.]+ m?s \(read .*, resample .*, write .*\)", second)


def test_resample_onto_the_grid_of_another_volume(run, ct, tmp_path):
    other = volume(size=(9, 10, 11))
    other.SetOrigin((-9.0, 21.0, 31.0))
    files.write(other, tmp_path / "other.nrrd")
    assert run("resample", ct, tmp_path / "out.nrrd", "--like", tmp_path / "other.nrrd")[0] == 0
    assert_same(files.read(tmp_path / "out.nrrd"), gr.resample(files.read(ct), like=other))


def test_resample_through_a_transform(run, ct, tmp_path):
    transform = sitk.Euler3DTransform((-5.0, 25.0, 35.0), 0.1, 0.05, -0.1, (1.0, 2.0, 0.5))
    sitk.WriteTransform(transform, str(tmp_path / "t.tfm"))
    arguments = ("resample", ct, tmp_path / "out.mha", "--transform", tmp_path / "t.tfm", "--dtype", "float32")
    assert run(*arguments)[0] == 0
    assert_same(files.read(tmp_path / "out.mha"), gr.resample(files.read(ct), transform=transform, dtype="float32"))


def test_resample_in_two_dimensions(run, tmp_path):
    image = volume(size=(24, 20))
    files.write(image, tmp_path / "a.nrrd")
    assert run("resample", tmp_path / "a.nrrd", tmp_path / "b.nrrd", "--spacing", "1", "2")[0] == 0
    assert_same(files.read(tmp_path / "b.nrrd"), gr.resample(image, spacing=(1, 2)))
    refused(run("resample", tmp_path / "a.nrrd", tmp_path / "c.nrrd", "--spacing", 1, 1, 2), 2, "2 values")


def test_big_labels_survive(run, tmp_path):
    array = np.full((4, 5, 6), 2**60 + 1, np.uint64)
    files.write(sitk.GetImageFromArray(array), tmp_path / "a.nrrd")
    arguments = ("--size", 12, 5, 4, "--spacing", 1, "--interpolation", "nearest", "--default-value", 2**60 + 3)
    assert run("resample", tmp_path / "a.nrrd", tmp_path / "b.nrrd", *arguments)[0] == 0
    assert np.unique(sitk.GetArrayFromImage(files.read(tmp_path / "b.nrrd"))).tolist() == [2**60 + 1, 2**60 + 3]


def test_nan_stays_where_it_is(run, tmp_path):
    array = np.ones((30, 30, 30), np.float32)
    array[15, 15, 15] = np.nan
    files.write(sitk.GetImageFromArray(array), tmp_path / "a.nrrd")
    arguments = ("--spacing", 2, "--interpolation", "linear")
    assert run("resample", tmp_path / "a.nrrd", tmp_path / "b.nrrd", *arguments)[0] == 0
    out = sitk.GetArrayFromImage(files.read(tmp_path / "b.nrrd"))
    assert np.isnan(out).sum() <= 8
    assert (out[:5] == 1).all()


@pytest.mark.parametrize(
    ("typed", "pattern"),
    [
        ([], "nothing asked: give spacing, size, like or transform"),
        (["--spacing", "1", "2"], "spacing must have 3 values"),
        (["--spacing", "-1"], "spacing must be above zero"),
        (["--spacing", "0", "1", "1"], "spacing must be above zero"),
        (["--spacing", "nan"], "spacing must be 3 finite numbers"),
        (["--spacing"], "--spacing takes numbers.*got none"),
        (["--spacing", "wide"], "--spacing takes numbers, got 'wide'"),
        (["--size", "1.5", "2", "3"], "--size takes whole numbers, got '1.5 2 3'"),
        (["--size", "0", "2", "3"], "size must be 3 whole numbers of at least 1"),
        (["--spacing", "0.0001"], "GiB of memory are free"),
        (["--spacing", "2", "--interpolation", "cubic-spline"], "interpolation must be one of"),
        (["--spacing", "2", "--interpolation", "bsplin"], "did you mean 'bspline'"),
        (["--spacing", "2", "--anchor", "middle"], "anchor must be one of"),
        (["--spacing", "2", "--boundary", "bounce"], "boundary must be one of"),
        (["--spacing", "2", "--rounding", "up"], "rounding must be one of"),
        (["--spacing", "2", "--dtype", "int5"], "dtype must be"),
        (["--spacing", "2", "--dtype", "float16"], "files have no such voxels"),
        (["--spacing", "2", "--default-value", "x"], "--default-value takes a number, got 'x'"),
        (["--spacing", "2", "--default-value", "99999"], "default_value must be a whole number from -32768"),
        (["--spacing", "2", "--antialias", "-1"], "antialias must be"),
        (["--spacing", "2", "--clip", "5"], "clip must be True, False or"),
        (["--spacing", "2", "--clip", "5", "6", "7"], "clip must have 2 values"),
        (["--spacing", "2", "--clip", "6", "5"], "low <= high"),
        (["--spacing", "2", "--clip", "0", "1e9"], "must be a whole number from -32768"),
        (["--spacing", "2", "--clip=maybe"], "--clip takes numbers, got 'maybe'"),
        (["--spacing", "2", "--ignore", "nan"], "ignore must be a value that the image's type int16 has"),
        (["--spacing", "2", "--ignore", "x"], "--ignore takes a number, got 'x'"),
        (["--spacing", "2", "--ignore", "0", "--interpolation", "label_linear"], "which votes"),
        (["--spacing", "2", "--device", "gpu"], "device must be 'auto', 'cpu', 'cuda'"),
        (["--spacing", "2", "--threads", "0"], "--threads"),
        (["--spacing", "2", "--series", "1.2.3"], "series is for folders"),
        (["--spacing", "2", "--fast"], "No such option"),
        (["--spacing", "2", "extra"], "extra"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_arguments_are_refused_before_voxels_are_read(run, ct, tmp_path, monkeypatch, typed, pattern):
    if "--series" not in typed:
        monkeypatch.setattr(files, "read", lambda *_: pytest.fail("voxels were read"))
    refused(run("resample", ct, tmp_path / "out.nii", *typed), 2, pattern)
    assert not (tmp_path / "out.nii").exists()


def test_like_gives_the_whole_grid(run, ct, tmp_path):
    refused(run("resample", ct, tmp_path / "o.nii", "--like", ct, "--spacing", 2), 2, "cannot be combined with spacing")
    assert not (tmp_path / "o.nii").exists()


@pytest.mark.parametrize("arguments", [["resample"], ["resample", "a.nii"], ["nonsense"], ["info"], ["info", "--what"]])
def test_unusable_command_lines(run, arguments):
    refused(run(*arguments), 2, "")


def test_outputs_are_checked_first(run, ct, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "header", lambda *_: pytest.fail("the input was opened"))
    (tmp_path / "there.nii").write_text("precious")
    refused(run("resample", ct, tmp_path / "there.nii", "--spacing", 2), 1, "exists already.*--overwrite")
    refused(run("resample", ct, tmp_path / "none" / "a.nii", "--spacing", 2), 1, "there is no folder")
    refused(run("resample", ct, tmp_path / "a.tif", "--spacing", 2), 2, r"written as \.nii, \.nii\.gz.*got \.tif")
    refused(run("resample", ct, tmp_path / "a.mhd", "--spacing", 2), 2, r"use \.mha")
    assert (tmp_path / "there.nii").read_text() == "precious"


def test_overwrite(run, ct, tmp_path):
    (tmp_path / "there.nii").write_text("precious")
    assert run("resample", ct, tmp_path / "there.nii", "--spacing", 2, "--overwrite")[0] == 0
    assert_same(files.read(tmp_path / "there.nii"), gr.resample(files.read(ct), spacing=2))


def test_a_volume_can_replace_itself(run, ct):
    wanted = gr.resample(files.read(ct), spacing=2)
    assert run("resample", ct, ct, "--spacing", 2, "--overwrite")[0] == 0
    assert_same(files.read(ct), wanted)


def test_unusable_inputs(run, tmp_path):
    out = tmp_path / "o.nii"
    refused(run("resample", tmp_path / "none.nii", out, "--spacing", 2), 1, r"none\.nii: no such file")
    (tmp_path / "text.nii").write_text("hello\n" * 200)
    refused(run("resample", tmp_path / "text.nii", out, "--spacing", 2), 1, r"text\.nii: cannot be read: not an image")
    refused(run("resample", tmp_path, out, "--spacing", 2), 1, "no DICOM images in this folder")
    files.write(volume(), tmp_path / "cut.nii.gz")
    os.truncate(tmp_path / "cut.nii.gz", 4000)
    refused(run("resample", tmp_path / "cut.nii.gz", out, "--spacing", 2), 1, r"cut\.nii\.gz: the gzip stream .*early")
    files.write(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), tmp_path / "complex.nii")
    refused(
        run("resample", tmp_path / "complex.nii", out, "--spacing", 2), 1, r"complex\.nii: cannot be resampled.*compl"
    )
    files.write(volume(), tmp_path / "ct.nii")
    refused(run("resample", tmp_path / "ct.nii", out, "--like", tmp_path / "none.nii"), 1, "no such file")
    refused(run("resample", tmp_path / "ct.nii", out, "--transform", tmp_path / "none.tfm"), 1, "no such file")
    refused(
        run("resample", tmp_path / "ct.nii", out, "--transform", tmp_path / "text.nii"), 1, "text.nii: cannot be read"
    )
    assert not out.exists()


def test_native_libraries_do_not_write_to_stderr(tmp_path, capfd):
    for extension in (".mha", ".tif", ".h5"):
        path = tmp_path / f"cut{extension}"
        sitk.WriteImage(volume(), str(path))
        os.truncate(path, path.stat().st_size // 2)
        assert main(["info", str(path)]) == 1
        said = capfd.readouterr()
        assert re.fullmatch(rf"error: [^\n]*cut\{extension}: [^\n]+\n", said.err), said.err


def test_failures_while_running_leave_nothing(run, ct, tmp_path, monkeypatch):
    def raising(error):
        def resample(*_, **__):
            raise error

        return resample

    for error, code in (
        (MemoryError(), 1),
        (RuntimeError("no device"), 1),
        (KeyError("x"), 1),
        (KeyboardInterrupt(), 130),
    ):
        monkeypatch.setattr(job, "resample", raising(error))
        got, out, _ = run("resample", ct, tmp_path / "o.nii", "--spacing", 2)
        assert (got, out) == (code, "")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["ct.nii.gz"]


def test_debug_shows_the_traceback(run, tmp_path):
    for arguments in (("--debug", "info", tmp_path / "none.nii"), ("info", tmp_path / "none.nii", "--debug")):
        code, _, err = run(*arguments)
        assert code == 1
        assert "Traceback" in err
        assert err.endswith("none.nii: no such file or folder\n")


# --------------------------------------------------------------------------------------- resample, real volumes


@pytest.mark.filterwarnings("ignore:.*its sform .code 2. and qform", "ignore:.*has neither sform nor qform")
@pytest.mark.parametrize(
    ("name", "spacing"),
    [("low_res.nii.gz", 1.3), ("RAS.nii.gz", 4.1), ("SAR.nii.gz", 4.1), ("shear.nii.gz", (1.1, 1.3, 3.1))],
)
def test_real_volumes_meet_simpleitk(run, data_dir, tmp_path, name, spacing):
    image = sitk.ReadImage(str(data_dir / name))
    new = [spacing] * 3 if isinstance(spacing, float) else list(spacing)
    typed = [str(s) for s in new]
    assert run("resample", data_dir / name, tmp_path / "o.mha", "--dtype", "float32", "--spacing", *typed)[0] == 0
    resampler = sitk.ResampleImageFilter()
    resampler.SetOutputSpacing(new)
    resampler.SetOutputOrigin(image.GetOrigin())
    resampler.SetOutputDirection(image.GetDirection())
    resampler.SetSize([round(n * s / t) for n, s, t in zip(image.GetSize(), image.GetSpacing(), new, strict=True)])
    resampler.SetInterpolator(sitk.sitkBSpline)
    resampler.SetOutputPixelType(sitk.sitkFloat64)
    wanted, got = resampler.Execute(image), files.read(tmp_path / "o.mha")
    assert got.GetSize() == wanted.GetSize()
    for what in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(got, f"Get{what}")(), getattr(wanted, f"Get{what}")(), rtol=1e-12)
    voxels = sitk.GetArrayViewFromImage(image)
    allowed = 2e-6 * float(voxels.max() - voxels.min())
    difference = sitk.GetArrayFromImage(got).astype(np.float64) - sitk.GetArrayFromImage(wanted)
    assert np.abs(difference).max() <= allowed


def test_series_time_and_colour(run, data_dir, tmp_path):
    cases = {
        "pcasl.nii.gz": (["--spacing", "6"], {"spacing": 6.0}),
        "ct_perfusion.nii.gz": (["--size", "64", "70", "10"], {"size": (64, 70, 10)}),
        "dicom_series": (["--size", "64", "64", "6"], {"size": (64, 64, 6)}),
    }
    for name, (typed, meant) in cases.items():
        assert run("resample", data_dir / name, tmp_path / f"{name}.nrrd", *typed)[0] == 0
        assert_same(files.read(tmp_path / f"{name}.nrrd"), gr.resample(files.read(data_dir / name), **meant))


def test_a_mask_lands_on_the_grid_of_a_4d_volume(run, data_dir, tmp_path):
    arguments = ("--like", data_dir / "pcasl.nii.gz", "--interpolation", "nearest")
    assert run("resample", data_dir / "lesion.nii.gz", tmp_path / "o.nrrd", *arguments)[0] == 0
    assert files.read(tmp_path / "o.nrrd").GetSize() == (52, 68, 20)


# ------------------------------------------------------------------------------------------------------ info


def test_info(run, ct):
    code, out, err = run("info", ct)
    assert (code, err) == (0, "")
    for text in ("NIfTI", "16-bit signed integer", "24 x 20 x 12", "0.8 x 0.8 x 1.5 mm", "axis-aligned", "LPS"):
        assert text in out
    voxels = sitk.GetArrayFromImage(volume())
    assert f"{voxels.min()} to {voxels.max()}, mean {voxels.mean():.6g}" in out


def test_info_as_json(run, ct, tmp_path):
    code, out, _ = run("info", ct, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["size"] == [24, 20, 12]
    np.testing.assert_allclose(facts["extent"], (19.2, 16, 18), rtol=1e-6)
    assert (facts["format"], facts["components"], facts["oblique_degrees"], facts["axes"]) == ("NIfTI", 1, 0, "LPS")
    assert facts["bytes"] == 24 * 20 * 12 * 2
    voxels = sitk.GetArrayFromImage(volume())
    assert (facts["min"], facts["max"], facts["not_finite"]) == (voxels.min(), voxels.max(), 0)
    assert facts["mean"] == pytest.approx(voxels.mean())


def test_info_of_nan_and_complex_voxels(run, tmp_path):
    array = np.full((3, 4, 5), 2.5, np.float32)
    array[0, 0, :2] = np.nan, np.inf
    files.write(sitk.GetImageFromArray(array), tmp_path / "nan.nrrd")
    facts = json.loads(run("info", tmp_path / "nan.nrrd", "--json")[1])
    assert (facts["min"], facts["max"], facts["mean"], facts["not_finite"]) == (2.5, 2.5, 2.5, 2)
    assert "2 not finite" in run("info", tmp_path / "nan.nrrd")[1]
    files.write(sitk.GetImageFromArray(array * np.nan), tmp_path / "nan.nrrd", overwrite=True)
    facts = json.loads(run("info", tmp_path / "nan.nrrd", "--json")[1])
    assert (facts["min"], facts["not_finite"]) == (None, 60)
    files.write(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), tmp_path / "complex.nii")
    assert json.loads(run("info", tmp_path / "complex.nii", "--json")[1])["min"] is None


@pytest.mark.parametrize(
    ("name", "axes", "oblique"),
    [
        ("RAS.nii.gz", "RAS", False), ("SAR.nii.gz", "SAR", False), ("FLAIR.nii.gz", "RAS", True),
        ("pcasl.nii.gz", "RAS", True), ("dicom_series", "LPS", False),
    ],
)  # fmt: skip
def test_info_of_real_volumes(run, data_dir, name, axes, oblique):
    code, out, _ = run("info", data_dir / name, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["axes"] == axes
    assert (facts["oblique_degrees"] > 1) == oblique
    assert ("oblique" in run("info", data_dir / name)[1]) == oblique


def test_info_of_what_is_no_volume(run, tmp_path):
    refused(run("info", tmp_path / "none.nii"), 1, "no such file")


# ------------------------------------------------------------------------------------------------------ demo


def test_phantom():
    image = phantom.phantom((48, 40, 20))
    np.testing.assert_allclose(np.multiply(image.GetSize(), image.GetSpacing()), (400, 400, 247))
    voxels = sitk.GetArrayFromImage(image)
    assert voxels.dtype == np.int16
    assert voxels.min() < -950
    assert voxels.max() > 500
    assert abs(np.median(voxels[10, 18:22, 22:26]) - 100) < 120  # the middle is soft tissue
    np.testing.assert_array_equal(sitk.GetArrayFromImage(phantom.phantom((48, 40, 20))), voxels)
    assert (sitk.GetArrayFromImage(phantom.phantom((48, 40, 20), seed=1)) != voxels).any()


def test_demo(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the demo's picture is drawn by matplotlib")
    folder = tmp_path / "new" / "folder"
    code, out, err = run("demo", "--small", "--output", folder)
    assert (code, err) == (0, "")
    for text in ("128 x 128 x 62", "100 x 100 x 31", "int16", "float32", "SimpleITK", "median of 5", "times faster"):
        assert text in out
    assert out.count("within") == 2
    assert "OUTSIDE" not in out
    picture = folder / "phantom.png"
    assert f"picture: {picture}" in out
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert [p.name for p in folder.iterdir()] == ["phantom.png"]
    # Again, onto the old picture, on another grid.
    code, out, _ = run("demo", "--small", "--output", folder, "--spacing", 5, 5, 6)
    assert code == 0
    assert "5 x 5 x 6 mm" in out


@pytest.mark.parametrize(
    ("pixel", "size", "spacing"),
    [
        (sitk.sitkUInt8, (24, 20, 12), [1.1]),
        (sitk.sitkInt32, (24, 20, 12), [1.1]),
        (sitk.sitkFloat32, (24, 20, 12), []),
        (sitk.sitkFloat64, (24, 20, 1), []),
        (sitk.sitkInt16, (24, 20), [1.1, 1.3]),
    ],
)
def test_demo_of_a_file(run, tmp_path, pixel, size, spacing):
    pytest.importorskip("matplotlib", reason="the demo's picture is drawn by matplotlib")
    files.write(volume(pixel, size), tmp_path / "a.nrrd")
    typed = ["--spacing", *spacing] if spacing else []
    code, out, err = run("demo", tmp_path / "a.nrrd", "--output", tmp_path, *typed)
    assert (code, err) == (0, ""), out
    assert (tmp_path / "a.png").exists()


def test_whole_numbers_are_judged_apart(run, tmp_path):
    # Every second sample falls on a voxel: truncation of whole numbers is a toss-up, in SimpleITK too.
    image = volume(sitk.sitkInt16, (40, 40, 20))
    spacing = [1.5 * s for s in image.GetSpacing()]
    images = (image, sitk.Cast(image, sitk.sitkFloat32))
    integer, real = (side_by_side.compare(one, spacing, 1) for one in images)
    assert real.within
    assert integer.max_difference <= 1
    assert side_by_side.judged(integer, real).share_apart < integer.share_different
    assert side_by_side.judged(integer, real).within


def test_demo_says_when_results_differ(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the demo's picture is drawn by matplotlib")
    true = side_by_side._sitk_resample
    monkeypatch.setattr(side_by_side, "_sitk_resample", lambda *a: true(*a) + 3)
    code, out, _ = run("demo", "--small", "--output", tmp_path)
    assert code == 1
    assert out.count("OUTSIDE") == 2


def test_demo_refuses_before_it_works(run, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib", reason="the demo's picture is drawn by matplotlib")
    monkeypatch.setattr(phantom, "phantom", lambda *_: pytest.fail("the phantom was made"))
    (tmp_path / "file").write_text("")
    refused(run("demo", "--output", tmp_path / "file"), 1, "is not a folder")
    refused(run("demo", "--spacing", "x"), 2, "--spacing takes numbers, got 'x'")
    refused(run("demo", tmp_path / "none.nii", "--output", tmp_path), 1, "no such file")
    array = np.full((4, 5, 6), np.nan, np.float32)
    files.write(sitk.GetImageFromArray(array), tmp_path / "nan.nrrd")
    refused(run("demo", tmp_path / "nan.nrrd", "--output", tmp_path), 2, "finite")


# ------------------------------------------------------------------------------------------------- the program


def test_help_and_version(run):
    for arguments in ((), ("--help",), ("-h",)):
        code, out, err = run(*arguments)
        assert (code, err) == (0, "")
        assert all(name in out for name in ("resample", "info", "demo", "Exit codes"))
    for name in ("resample", "info", "demo"):
        assert run(name, "--help")[0] == 0
    assert run("--version")[1] == f"gpuresample {gr.__version__}\n"


def test_a_missing_extra_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "typer", None)
    for name in [m for m in sys.modules if m.startswith("gpuresample.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    refused(run("info", "a.nii"), 2, re.escape('needs typer: pip install "gpuresample[cli]"'))


def test_missing_matplotlib_is_named_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr(phantom, "phantom", lambda *_: pytest.fail("the phantom was made"))
    refused(run("demo", "--output", tmp_path), 2, "needs matplotlib")


def program(*arguments, **keywords):
    command = [sys.executable, "-m", "gpuresample.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **keywords)


def test_the_program(ct, tmp_path):
    done = program("resample", ct, tmp_path / "o.nii.gz", "--spacing", 1, 1, 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert_same(files.read(tmp_path / "o.nii.gz"), gr.resample(files.read(ct), spacing=(1, 1, 2)))
    again = program("resample", ct, tmp_path / "o.nii.gz", "--spacing", 1, 1, 2)
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr.count("\n") == 1
    assert program("resample", ct, tmp_path / "p.nii.gz").returncode == 2


def test_warnings_are_one_line(data_dir, tmp_path):
    for name in ("1-001.dcm", "1-002.dcm", "1-003.dcm"):
        (tmp_path / name).write_bytes((data_dir / "dicom_series" / name).read_bytes())
    (tmp_path / "broken.dcm").write_bytes(b"DICM")
    done = program("info", tmp_path)
    assert done.returncode == 0
    assert re.fullmatch(r"warning: [^\n]*left out: broken\.dcm\n", done.stderr)


@pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
@pytest.mark.parametrize("moment", ["resample", "write"])
def test_interrupting_leaves_nothing(ct, tmp_path, moment):
    script = f"""
        import signal, sys, time
        import SimpleITK as sitk
        from gpuresample.files import job
        from gpuresample.cli import main
        module, name = (job, "resample") if {moment!r} == "resample" else (sitk, "WriteImage")
        true = getattr(module, name)
        def slow(*arguments, **keywords):
            result = true(*arguments, **keywords)
            print("working", flush=True)
            time.sleep(60)
            return result
        setattr(module, name, slow)
        # Tests that run in the background of a shell are deaf to it, and so are their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(main(["resample", sys.argv[1], sys.argv[2], "--spacing", "2"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(ct), str(tmp_path / "o.nii.gz")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "working\n"
        child.send_signal(signal.SIGINT)
        assert child.wait(timeout=30) == 130
        assert "Traceback" not in child.stderr.read()
    assert [p.name for p in tmp_path.iterdir()] == ["ct.nii.gz"]


def test_progress_is_for_terminals_and_long_work(monkeypatch):
    code = """
        import time
        from gpuresample.cli.console import Phases
        for name, nap in (("short", 0.0), ("long", 0.5)):
            with Phases(patience=0.2) as phases, phases.phase(name, name + " work"):
                time.sleep(nap)
            assert phases.seconds[name] >= nap
    """
    pty = pytest.importorskip("pty", reason="terminals are POSIX's")
    main_end, other_end = pty.openpty()
    command = [sys.executable, "-c", textwrap.dedent(code)]
    with subprocess.Popen(command, stderr=other_end) as child:
        os.close(other_end)
        shown = b""
        while True:
            try:
                block = os.read(main_end, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not block:
                break
            shown += block
    os.close(main_end)
    assert child.returncode == 0
    assert b"long work" in shown
    assert b"short work" not in shown
    quiet = subprocess.run(command, capture_output=True, check=True)
    assert quiet.stdout + quiet.stderr == b""


def test_import_is_light():
    code = "import sys, gpuresample.cli; print([m for m in ('typer', 'rich', 'SimpleITK') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout == b"[]\n"


def test_one_volume_loads_no_more_than_it_takes(tmp_path):
    sitk.WriteImage(volume(), str(tmp_path / "a.nii"))
    code = (
        "import gc, sys; from gpuresample.cli import main; before = gc.get_threshold()\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert gc.get_threshold() == before\n"
        "print([m for m in ('pydantic', 'rich', 'numba', 'scipy', 'tomllib') if m in sys.modules])"
    )
    words = (
        "resample",
        tmp_path / "a.nii",
        tmp_path / "b.nii",
        "--spacing",
        "1",
        "1",
        "2",
        "--interpolation",
        "linear",
    )
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert sitk.ReadImage(str(tmp_path / "b.nii")).GetSpacing() == (1, 1, 2)


# An axis that shrinks to one voxel


@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize(
    ("words", "axes"),
    [
        (("--spacing", "200"), "x (24 voxels of 0.8 to 1 of 200), y (20 voxels of 0.8 to 1 of 200), z"),
        (("--spacing", "1", "1", "200"), "z (12 voxels of 1.5 to 1 of 200)"),
        (("--spacing", "0.8", "40", "1.5"), "y (20 voxels of 0.8 to 1 of 40)"),
        (("--spacing", "1", "1", "12"), ""),
        (("--size", "1", "20", "12"), ""),
        (("--size", "24", "1", "12"), ""),
    ],
)
def test_an_axis_that_shrinks_to_one_voxel_is_warned_of(tmp_path, run, words, axes):
    sitk.WriteImage(volume(), str(tmp_path / "a.nrrd"))
    code, _, err = run("resample", tmp_path / "a.nrrd", tmp_path / "b.nrrd", *words)
    assert code == 0
    assert err == "" if not axes else f"warning: {tmp_path}/a.nrrd: one voxel is left along {axes}" in err


# ------------------------------------------------------------------------------------------------ levels and threads


@pytest.mark.parametrize("command", ["resample", "reorient"])
@pytest.mark.parametrize(
    ("name", "level", "message"),
    [("o.nii.gz", "0", r"--level must be a whole number from 1 \(fast\) to 9 \(small\), got 0"),
     ("o.nii.gz", "best", "--level"), ("o.nii", "3", "--level is for .*o.nii is none of these")],
)  # fmt: skip
def test_levels_that_there_are_not_are_refused_by_name(tmp_path, run, ct, command, name, level, message):
    refused(run(command, str(ct), str(tmp_path / name), "--level", level), 2, message)
    assert not (tmp_path / name).exists()


def test_a_level_says_how_hard_to_pack_whatever_the_number_of_threads(tmp_path, run, threads):
    image = volume(size=(120, 110, 90))
    sitk.WriteImage(image, str(tmp_path / "a.nii.gz"))
    made = {}
    for level, n in ((1, 1), (1, 3), (9, 2)):
        target = tmp_path / f"{level}-{n}.nrrd"
        code, _, error = run(
            "reorient", str(tmp_path / "a.nii.gz"), str(target), "--level", str(level), "--threads", str(n)
        )
        assert code == 0, error
        made[level, n] = target.read_bytes()
    assert made[1, 1] == made[1, 3]
    assert made[9, 2] != made[1, 1]
    assert all(len(content) < 0.7 * sitk.GetArrayFromImage(image).nbytes for content in made.values())
    read = [sitk.GetArrayFromImage(sitk.ReadImage(str(path))) for path in tmp_path.glob("*.nrrd")]
    assert all((array == read[0]).all() for array in read)


def test_the_display_says_how_much_of_a_file_is_done(tmp_path, ct):
    phases, told = console.Phases(), []

    def told_of(done, total):
        phases.part(done, total)
        told.append((phases._done, phases._total))

    image = files.read(ct, progress=told_of)
    files.write(image, tmp_path / "o.nii.gz", progress=told_of)
    count = 24 * 20 * 12 * 2
    # Unpacked in one block; the header's 352 bytes count as voxels, and are told of first.
    assert told == [(count, count), (352, count), (count, count)]
    phases.say("next")
    assert (phases._done, phases._total) == (0, None)


def test_one_command_does_not_load_the_others():
    code = (
        "import sys; from gpuresample.cli.app import app; app(['resample', 'a', 'b']); "
        "print('gpuresample.cli.bench' in sys.modules, 'gpuresample.cli.resample' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
