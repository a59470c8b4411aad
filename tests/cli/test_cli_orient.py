"""`gpuresample reorient` and `conform`: what the functions say, with files."""

import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import same_bits

import gpuresample as gr

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")
pytest.importorskip("rich", reason="the command line is the extra gpuresample[cli]")

from gpuresample.files import volumes as files


@pytest.fixture
def ct(tmp_path):
    image = volume()
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, -1, 0))
    files.write(image, tmp_path / "ct.nrrd")
    return tmp_path / "ct.nrrd"


def equal(path, wanted):
    got = files.read(path)
    assert (got.GetSize(), got.GetSpacing()) == (wanted.GetSize(), wanted.GetSpacing())
    assert got.GetDirection() == wanted.GetDirection()
    assert got.GetOrigin() == pytest.approx(wanted.GetOrigin())
    assert same_bits(sitk.GetArrayFromImage(got), sitk.GetArrayFromImage(wanted))


@pytest.mark.parametrize("typed", [(), ("--orientation", "RAS"), ("--orientation", "PIR")])
def test_reorient(run, ct, tmp_path, typed):
    code, out, err = run("reorient", ct, tmp_path / "out.nrrd", *typed)
    assert (code, err) == (0, "")
    assert "; " in out.splitlines()[1]
    equal(tmp_path / "out.nrrd", gr.reorient(files.read(ct), *typed[1:]))


def test_conform(run, ct, tmp_path):
    typed = ("--size", 16, 18, 20, "--spacing", 1, 1, 2, "--orientation", "LPS", "--interpolation", "linear")
    code, _, err = run("conform", ct, tmp_path / "out.nrrd", *typed, "--default-value", -5, "--dtype", "float32")
    assert (code, err) == (0, "")
    wanted = gr.conform(
        files.read(ct), size=(16, 18, 20), spacing=(1, 1, 2), orientation="LPS", interpolation="linear",
        default_value=-5, dtype="float32",
    )  # fmt: skip
    equal(tmp_path / "out.nrrd", wanted)


def test_what_is_wrong_is_said_before_the_volume_is_read(run, ct, tmp_path):
    out = tmp_path / "out.nrrd"
    refused(run("reorient", ct, out, "--orientation", "RAL"), 2, "orientation must be three letters.*'RAL'")
    refused(run("conform", ct, out, "--orientation", "RA"), 2, "orientation must be three letters")
    refused(run("conform", ct, out, "--size", 4, 5), 2, "--size must have 3 values")
    refused(run("conform", ct, out, "--spacing", 0), 2, "spacing must be above zero")
    refused(run("conform", ct, out, "--convention", "ants"), 2, "convention must be one of")
    sitk.WriteImage(sitk.Image(4, 5, sitk.sitkUInt8), str(tmp_path / "flat.nrrd"))
    refused(run("reorient", tmp_path / "flat.nrrd", out), 2, "three axes in space")
    assert not out.exists()
