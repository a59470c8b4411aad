"""`gpuresample blur`, `downsample`, `pyramid`: what the functions say, with files."""

import os
import re
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import assert_same

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

from gpuresample.cli import options
from gpuresample.files import volumes as files

PNG = b"\x89PNG\r\n\x1a\n"
ONE_TO_ONE = [("blur", ("--sigma", 1)), ("downsample", ("--factors", 2))]


@pytest.fixture
def ct(tmp_path):
    """A small volume in a file."""
    path = tmp_path / "ct.nrrd"
    files.write(volume(), path)
    return path


def assert_equal(path, wanted):
    assert_same(files.read(path), wanted)


def listed(folder):
    return sorted(p.name for p in folder.iterdir())


# ------------------------------------------------------------------------------------------ blur and downsample


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--sigma", "1.5"], {"sigma": 1.5}),
        (["--sigma", "1", "1", "2"], {"sigma": (1, 1, 2)}),
        (["--sigma=1,0,2"], {"sigma": (1, 0, 2)}),
        (["--sigma", "1", "--kind", "sampled"], {"sigma": 1.0, "kind": "sampled"}),
        (["--sigma", "1", "--kind", "sampled", "--truncate", "2"], {"sigma": 1.0, "kind": "sampled", "truncate": 2.0}),
        (["--sigma", "1", "--kind", "recursive"], {"sigma": 1.0, "kind": "recursive"}),
        (["--sigma", "1", "--boundary", "mirror"], {"sigma": 1.0, "boundary": "mirror"}),
        (["--sigma", "1", "--rounding", "truncate"], {"sigma": 1.0, "rounding": "truncate"}),
        (
            ["--sigma", "2", "--kind", "sampled", "--order", "1", "0", "2", "--dtype", "float32"],
            {"sigma": 2.0, "kind": "sampled", "order": (1, 0, 2), "dtype": "float32"},
        ),
        (["--sigma", "1", "--device", "cpu", "--threads", "1"], {"sigma": 1.0}),
    ],
    ids=" ".join,
)
def test_blur_is_gr_gaussian(run, ct, tmp_path, threads, typed, meant):
    code, out, err = run("blur", ct, tmp_path / "out.nrrd", *typed)
    assert (code, err) == (0, "")
    assert_equal(tmp_path / "out.nrrd", gr.gaussian(files.read(ct), **meant))
    first, second = out.splitlines()
    assert f"{ct}: 24 x 20 x 12 at 0.8 x 0.8 x 1.5 mm, 16-bit signed integer" in first
    assert re.search(r"; [\d.]+ m?s \(read .*, blur .*, write .*\)", second)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["--factors", "2"], {"factors": 2}),
        (["--factors", "2", "2", "1"], {"factors": (2, 2, 1)}),
        (["--factors", "3", "--sigma", "itk"], {"factors": 3, "sigma": "itk"}),
        (["--factors", "3", "--sigma", "cardoso"], {"factors": 3, "sigma": "cardoso"}),
        (["--factors", "3", "--sigma", "0.7"], {"factors": 3, "sigma": 0.7}),
        (["--factors", "3", "--sigma", "1", "0", "0.5"], {"factors": 3, "sigma": (1, 0, 0.5)}),
        (["--factors", "2", "--kind", "discrete"], {"factors": 2, "kind": "discrete"}),
        (["--factors", "2", "--dtype", "float32"], {"factors": 2, "dtype": "float32"}),
        (["--factors", "2", "--rounding", "truncate", "--threads", "1"], {"factors": 2, "rounding": "truncate"}),
    ],
    ids=" ".join,
)
def test_downsample_is_gr_downsample(run, ct, tmp_path, threads, typed, meant):
    code, out, err = run("downsample", ct, tmp_path / "out.nrrd", *typed)
    assert (code, err) == (0, "")
    wanted = gr.downsample(files.read(ct), **meant)
    assert_equal(tmp_path / "out.nrrd", wanted)
    assert " x ".join(map(str, wanted.GetSize())) in out.splitlines()[1]


@pytest.mark.parametrize("reduce", ["mean", "mode"])
@pytest.mark.parametrize("factors", [(2, 2, 2), (7, 5, 1)], ids=str)
def test_downsample_of_blocks_is_gr_bin_shrink(run, ct, tmp_path, reduce, factors):
    code, _, err = run("downsample", ct, tmp_path / "out.nrrd", "--factors", *factors, "--reduce", reduce)
    assert (code, err) == (0, "")
    assert_equal(tmp_path / "out.nrrd", gr.bin_shrink(files.read(ct), factors, reduce=reduce))


@pytest.mark.parametrize(("command", "options_"), ONE_TO_ONE)
def test_pictures_vectors_and_time_series(run, tmp_path, command, options_):
    call = {"blur": lambda i: gr.gaussian(i, 1.0), "downsample": lambda i: gr.downsample(i, 2)}[command]
    array = np.random.default_rng(1).integers(0, 99, (3, 6, 7, 8)).astype(np.uint8)
    images = [
        volume(size=(24, 20)),
        sitk.GetImageFromArray(array[..., :3], isVector=True),
        sitk.GetImageFromArray(array, isVector=False),
    ]
    for k, image in enumerate(images):
        files.write(image, tmp_path / f"{k}.nrrd")
        code, _, err = run(command, tmp_path / f"{k}.nrrd", tmp_path / f"{k}-out.nrrd", *options_)
        assert (code, err) == (0, "")
        assert_equal(tmp_path / f"{k}-out.nrrd", call(image))


def test_the_last_bits_are_those_of_the_files_type(run, tmp_path):
    files.write(volume(sitk.sitkFloat64), tmp_path / "a.mha")
    assert run("blur", tmp_path / "a.mha", tmp_path / "b.mha", "--sigma", 2)[0] == 0
    assert_equal(tmp_path / "b.mha", gr.gaussian(volume(sitk.sitkFloat64), 2.0))


@pytest.mark.parametrize(
    ("command", "typed", "pattern"),
    [
        ("blur", (), "--sigma"),
        ("blur", ("--sigma", "-1"), "sigma must be at least 0"),
        ("blur", ("--sigma", "nan"), "sigma must be 3 finite numbers"),
        ("blur", ("--sigma", "wide"), "--sigma takes numbers, got 'wide'"),
        ("blur", ("--sigma", "1", "2"), "sigma must have 3 values"),
        ("blur", ("--sigma", "1", "--kind", "discreet"), "did you mean 'discrete'"),
        ("blur", ("--sigma", "1", "--order", "1"), "order must be 0 for kind"),
        ("blur", ("--sigma", "1", "--order", "x"), "--order takes numbers"),
        ("blur", ("--sigma", "1", "--boundary", "wrap"), "boundary must be one of"),
        ("blur", ("--sigma", "1", "--dtype", "float17"), "dtype must be"),
        ("blur", ("--sigma", "1", "--dtype", "float16"), "float16"),
        ("blur", ("--sigma", "1", "--device", "gpu"), "device must be"),
        ("downsample", (), "--factors"),
        ("downsample", ("--factors", "0"), "factors must be whole numbers of at least 1"),
        ("downsample", ("--factors", "1.5"), "factors must be whole numbers of at least 1"),
        ("downsample", ("--factors", "x"), "--factors takes numbers, got 'x'"),
        ("downsample", ("--factors", "2", "--sigma", "itc"), "did you mean 'itk'"),
        ("downsample", ("--factors", "2", "--sigma", "-1"), "sigma must be at least 0"),
        ("pyramid", ("--levels", "0"), "levels must be a whole number from 1 to 64, got 0"),
        ("pyramid", ("--levels", "two"), "--levels"),
        ("pyramid", ("--factors", "iso"), "factors must be one of 'isotropic', got 'iso'"),
        ("pyramid", ("--factors", "1.5"), "factors must be whole numbers of at least 1"),
        ("pyramid", ("--sigma", "itc"), "did you mean 'itk'"),
        ("pyramid", ("--rounding", "up"), "rounding must be one of"),
        ("pyramid", ("--kind", "modes"), "did you mean 'mode'"),
        ("pyramid", ("--kind", "mode", "--sigma", "2"), 'sigma is for kind="gaussian"'),
        ("downsample", ("--factors", "2", "--reduce", "modes"), "did you mean 'mode'"),
        ("downsample", ("--factors", "0", "--reduce", "mode"), "factors must be whole numbers of at least 1"),
        ("downsample", ("--factors", "2", "--reduce", "mode", "--sigma", "1"), "are for --reduce gaussian, not mode"),
        ("pyramid", ("--threads", "0"), "--threads"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, tuple) else v,
)
def test_bad_arguments_cost_no_reading(run, ct, tmp_path, monkeypatch, command, typed, pattern):
    monkeypatch.setattr(files, "read", lambda *_: pytest.fail("the voxels were read"))
    refused(run(command, ct, tmp_path / "out.nrrd", *typed), 2, pattern)
    assert listed(tmp_path) == ["ct.nrrd"]


@pytest.mark.parametrize(("command", "typed"), ONE_TO_ONE)
def test_files_in_the_way(run, ct, tmp_path, command, typed):
    (tmp_path / "out.nrrd").write_bytes(b"precious")
    refused(run(command, ct, tmp_path / "out.nrrd", *typed), 1, "exists already")
    refused(run(command, ct, tmp_path / "none" / "out.nrrd", *typed), 1, "there is no folder")
    refused(run(command, ct, tmp_path / "out.png", *typed), 2, "volumes are written as")
    refused(run(command, tmp_path / "none.nii", tmp_path / "b.nrrd", *typed), 1, "no such file")
    (tmp_path / "broken.nrrd").write_bytes(b"NRRD0004\n")
    refused(run(command, tmp_path / "broken.nrrd", tmp_path / "b.nrrd", *typed), 1, "names no data")
    assert (tmp_path / "out.nrrd").read_bytes() == b"precious"
    assert listed(tmp_path) == ["broken.nrrd", "ct.nrrd", "out.nrrd"]
    assert run(command, ct, tmp_path / "out.nrrd", *typed, "--overwrite")[0] == 0
    assert files.header(tmp_path / "out.nrrd").format == "NRRD"


@pytest.mark.parametrize(("command", "typed"), [*ONE_TO_ONE, ("pyramid", ())])
def test_what_cannot_be_filtered(run, tmp_path, command, typed):
    files.write(sitk.Image([4, 4, 4], sitk.sitkComplexFloat32), tmp_path / "complex.nii")
    refused(run(command, tmp_path / "complex.nii", tmp_path / "out.nii", *typed), 1, "cannot be filtered: 3-D, complex")


def test_too_few_voxels_for_the_recursion(run, tmp_path):
    files.write(volume(size=(8, 8, 3)), tmp_path / "thin.nii")
    command = ("blur", tmp_path / "thin.nii", tmp_path / "out.nii", "--kind", "recursive", "--sigma")
    refused(run(*command, 1), 2, "at least 4 voxels on every axis that it filters, got 3 on axis z")
    assert run(*command, 1, 1, 0)[0] == 0


@pytest.mark.parametrize(("command", "typed"), ONE_TO_ONE)
def test_a_failing_work_leaves_nothing(run, ct, tmp_path, monkeypatch, command, typed):
    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "write", full)
    refused(run(command, ct, tmp_path / "out.nrrd", *typed), 1, "no space left")
    assert listed(tmp_path) == ["ct.nrrd"]


# -------------------------------------------------------------------------------------------------------- pyramid


@pytest.fixture
def matplotlib():
    return pytest.importorskip("matplotlib", reason="the picture of the levels is drawn by matplotlib")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ([], {"levels": 4}),
        (["--levels", "3"], {"levels": 3}),
        (["--levels", "2", "--factors", "2", "2", "1"], {"levels": 2, "factors": (2, 2, 1)}),
        (["--levels", "3", "--factors", "isotropic"], {"levels": 3, "factors": "isotropic"}),
        (["--levels", "3", "--sigma", "itk", "--rounding", "truncate"],
         {"levels": 3, "sigma": "itk", "rounding": "truncate"}),
        (["--levels", "2", "--sigma", "1", "1", "0", "--threads", "1"], {"levels": 2, "sigma": (1, 1, 0)}),
        (["--levels", "1"], {"levels": 1}),
        (["--levels", "3", "--kind", "mode"], {"levels": 3, "kind": "mode"}),
        (["--levels", "2", "--kind", "itk"], {"levels": 2, "kind": "itk"}),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)  # fmt: skip
def test_pyramid_is_gr_pyramid(run, ct, tmp_path, threads, matplotlib, typed, meant):
    folder = tmp_path / "new" / "levels"
    code, out, err = run("pyramid", ct, folder, *typed)
    assert (code, err) == (0, "")
    wanted = gr.pyramid(files.read(ct), **meant)
    assert listed(folder) == [*[f"ct_level{k}.nrrd" for k in range(len(wanted))], "ct_levels.png"]
    for k, level in enumerate(wanted):
        assert_equal(folder / f"ct_level{k}.nrrd", level)
        assert " x ".join(map(str, level.GetSize())) in out.splitlines()[k]
    assert (folder / "ct_levels.png").read_bytes()[:8] == PNG
    assert re.search(rf"ct_levels.png: {len(wanted)} levels; .*\(read .*, levels .*, write .*, draw .*\)", out)


@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nii"])
def test_levels_keep_the_extension(run, tmp_path, matplotlib, ending):
    files.write(volume(), tmp_path / f"a.b{ending}")
    assert run("pyramid", tmp_path / f"a.b{ending}", tmp_path / "out", "--levels", 2)[0] == 0
    assert listed(tmp_path / "out") == [f"a.b_level0{ending}", f"a.b_level1{ending}", "a.b_levels.png"]


def test_levels_of_a_format_that_is_not_written(run, tmp_path, matplotlib):
    sitk.WriteImage(volume(), str(tmp_path / "a.mhd"))
    assert run("pyramid", tmp_path / "a.mhd", tmp_path / "out", "--levels", 2)[0] == 0
    assert listed(tmp_path / "out") == ["a_level0.nii.gz", "a_level1.nii.gz", "a_levels.png"]


def test_levels_of_a_dicom_folder(run, data_dir, tmp_path, matplotlib):
    assert run("pyramid", data_dir / "dicom_series", tmp_path, "--levels", 2)[0] == 0
    assert listed(tmp_path) == ["dicom_series_level0.nii.gz", "dicom_series_level1.nii.gz", "dicom_series_levels.png"]


@pytest.mark.parametrize("kind", ["picture", "vector", "series", "nan", "constant", "many"])
def test_levels_of_all_sorts(run, tmp_path, matplotlib, kind):
    array = np.random.default_rng(1).integers(0, 99, (3, 6, 7, 8)).astype(np.float32)
    image = {
        "picture": volume(size=(24, 20)),
        "vector": sitk.GetImageFromArray(array[..., :3], isVector=True),
        "series": sitk.GetImageFromArray(array, isVector=False),
        "nan": sitk.GetImageFromArray(np.full((4, 5, 6), np.nan, np.float32)),
        "constant": sitk.GetImageFromArray(np.full((4, 5, 6), 7, np.uint8)),
        "many": sitk.GetImageFromArray(np.zeros((1, 90, 200), np.uint8)),
    }[kind]
    files.write(image, tmp_path / "a.nrrd")
    code, out, err = run("pyramid", tmp_path / "a.nrrd", tmp_path / "out", "--levels", 7 if kind == "many" else 2)
    assert (code, err) == (0, ""), out
    assert (tmp_path / "out" / "a_levels.png").read_bytes()[:8] == PNG


@pytest.mark.filterwarnings("default")
def test_a_pyramid_that_ends_early_says_so(run, tmp_path, matplotlib):
    files.write(volume(size=(5, 4, 2)), tmp_path / "a.nrrd")
    code, out, err = run("pyramid", tmp_path / "a.nrrd", tmp_path / "out", "--levels", 6)
    assert code == 0
    assert re.fullmatch(r"warning: the pyramid ends after 3 of 6 levels[^\n]*\n", err)
    assert len(listed(tmp_path / "out")) == 4
    assert "3 levels" in out


def test_a_pyramid_overwrites_only_when_told(run, ct, tmp_path, matplotlib):
    folder = tmp_path / "out"
    assert run("pyramid", ct, folder, "--levels", 2)[0] == 0
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    refused(run("pyramid", ct, folder, "--levels", 2), 1, "ct_level0.nrrd: exists already")
    refused(run("pyramid", ct, folder, "--levels", 3, "--sigma", "itk"), 1, "exists already")
    for k in range(2):
        (folder / f"ct_level{k}.nrrd").unlink()
    refused(run("pyramid", ct, folder, "--levels", 2), 1, "ct_levels.png: exists already")
    assert run("pyramid", ct, folder, "--levels", 2, "--overwrite", "--sigma", 2)[0] == 0
    assert {p.name for p in folder.iterdir()} == set(before)
    assert (folder / "ct_level1.nrrd").read_bytes() != before["ct_level1.nrrd"]


def test_a_pyramid_never_replaces_its_source(run, tmp_path, matplotlib):
    # Level 0 has a name of its own, even in the source's folder.
    files.write(volume(), tmp_path / "a.nrrd")
    before = (tmp_path / "a.nrrd").read_bytes()
    assert run("pyramid", tmp_path / "a.nrrd", tmp_path, "--levels", 2)[0] == 0
    assert (tmp_path / "a.nrrd").read_bytes() == before


def test_folders_that_cannot_be(run, ct, tmp_path, matplotlib, monkeypatch):
    monkeypatch.setattr(files, "read", lambda *_: pytest.fail("the voxels were read"))
    (tmp_path / "file").write_text("")
    refused(run("pyramid", ct, tmp_path / "file"), 1, "is not a folder")
    refused(run("pyramid", ct, tmp_path / "file" / "deeper"), 1, "is not a folder")
    refused(run("pyramid", tmp_path / "none.nii", tmp_path / "out"), 1, "no such file")
    monkeypatch.setattr(os, "access", lambda path, _: str(path) != str(tmp_path))
    refused(run("pyramid", ct, tmp_path / "out"), 1, "is not writable")
    assert not (tmp_path / "out").exists()


def test_missing_matplotlib_is_named_before_the_work(run, ct, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(run("pyramid", ct, tmp_path / "out"), 2, "needs matplotlib")
    assert listed(tmp_path) == ["ct.nrrd"]


# -------------------------------------------------------------------------------------------------------- options


def test_rules_or_numbers():
    assert options.rule_or_numbers("--sigma", "itk") == "itk"
    assert options.rule_or_numbers("--sigma", "1.5") == 1.5
    assert options.rule_or_numbers("--sigma", "1 2 3") == [1, 2, 3]
    with pytest.raises(ValueError, match="--sigma takes numbers"):
        options.rule_or_numbers("--sigma", " ")


@pytest.mark.parametrize("name", ["blur", "downsample", "pyramid"])
def test_help(run, name):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert f"gpuresample {name} ct.nii.gz" in out
    assert name in run("--help")[1]
