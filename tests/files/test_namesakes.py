"""x.nii beside x.nii.gz and their like: the file that is named is read, and no other."""

import gzip
import os
import shutil
import warnings

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume

from gpuresample.files import volumes as files

OTHERS = {
    "voxels": volume(seed=1),
    "size": volume(size=(9, 8, 7), seed=2),
    "larger": volume(size=(40, 30, 20), seed=3),
    "type": volume(sitk.sitkFloat64, seed=4),
    "small type": volume(sitk.sitkUInt8, seed=5),
    "dimension": volume(size=(24, 20), seed=6),
}
OWN = volume(seed=0)


def voxels(image):
    return sitk.GetArrayFromImage(image)


def same(got, wanted):
    return got.GetSize() == wanted.GetSize() and got.GetPixelID() == wanted.GetPixelID() and np.array_equal(
        voxels(got), voxels(wanted)
    )  # fmt: skip


@pytest.fixture(params=OTHERS)
def other(request):
    return OTHERS[request.param]


@pytest.mark.parametrize(
    ("named", "beside"),
    [(".nii.gz", ".nii"), (".nii", ".nii.gz"), (".nii.gz", ".img"), (".nii", ".img"), (".nii.gz", ".img.gz")],
)
def test_the_named_file_is_read(tmp_path, other, named, beside):
    sitk.WriteImage(OWN, str(tmp_path / f"x{named}"))
    sitk.WriteImage(other, str(tmp_path / f"x{beside}"))
    path = tmp_path / f"x{named}"
    before = sorted(os.listdir(tmp_path))
    assert same(files.read(path), OWN)
    assert files.header(path).size == OWN.GetSize()
    if named == ".nii":
        assert files.in_parts(path) is not None
        part = files.read_part(path, (1, 2, 3), (4, 5, 6))
        assert np.array_equal(voxels(part), voxels(OWN)[3:9, 2:7, 1:5])
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(("named", "beside"), [(".img.gz", ".img"), (".hdr.gz", ".hdr"), (".IMG.GZ", ".IMG")])
def test_a_packed_half_beside_the_plain_one_is_refused(tmp_path, run, named, beside):
    """ITK reads the voxels of the plain one."""
    sitk.WriteImage(OWN, str(tmp_path / "x.img"))
    for half in (".hdr", ".img"):
        if half != beside.lower():
            (tmp_path / f"x{half}").rename(tmp_path / f"x{half.upper() if beside.isupper() else half}")
        else:
            (tmp_path / f"x{half}").rename(tmp_path / f"x{beside}")
    (tmp_path / f"x{named}").write_bytes(gzip.compress((tmp_path / f"x{beside}").read_bytes()[::-1]))
    with pytest.raises(OSError, match=f"ITK would read x{beside}, which is beside it, in its stead"):
        files.read(tmp_path / f"x{named}")
    refused(run("resample", tmp_path / f"x{named}", tmp_path / "o.nrrd", "--spacing", 1), 1, "move one of them away")


@pytest.mark.parametrize("content", [b"", b"no image", b"\0" * 4096])
def test_what_is_beside_need_be_no_image(tmp_path, content):
    sitk.WriteImage(OWN, str(tmp_path / "x.nii.gz"))
    (tmp_path / "x.nii").write_bytes(content)
    (tmp_path / "x.hdr").write_bytes(content)
    assert same(files.read(tmp_path / "x.nii.gz"), OWN)


def test_a_file_that_is_not_there_is_not_read(tmp_path, run):
    sitk.WriteImage(OWN, str(tmp_path / "x.nii"))
    refused(run("info", tmp_path / "x.nii.gz"), 1, "no such file")
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "x.nii.gz")


def test_the_command_takes_the_named_file(tmp_path, run):
    sitk.WriteImage(OWN, str(tmp_path / "x.nii.gz"))
    sitk.WriteImage(OTHERS["type"], str(tmp_path / "x.nii"))
    code, _, err = run("resample", tmp_path / "x.nii.gz", tmp_path / "out.nrrd", "--size", "24", "20", "12")
    assert code == 0, err
    assert same(files.read(tmp_path / "out.nrrd"), OWN)


def test_links_and_folders_with_odd_names(tmp_path, monkeypatch):
    """A relative path, a link to the file from another folder, a name that is relative to a link."""
    (tmp_path / "a b").mkdir()
    (tmp_path / "far").mkdir()
    sitk.WriteImage(OWN, str(tmp_path / "far" / "real.nii.gz"))
    sitk.WriteImage(OTHERS["voxels"], str(tmp_path / "a b" / "x.nii"))
    (tmp_path / "a b" / "x.nii.gz").symlink_to("../far/real.nii.gz")
    monkeypatch.chdir(tmp_path / "a b")
    assert same(files.read("x.nii.gz"), OWN)
    assert same(files.read(tmp_path / "a b" / "x.nii"), OTHERS["voxels"])


def test_nothing_is_left_in_the_folder_for_links(tmp_path, monkeypatch):
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    sitk.WriteImage(OWN, str(tmp_path / "x.nii.gz"))
    sitk.WriteImage(OTHERS["voxels"], str(tmp_path / "x.nii"))
    for _ in range(3):
        files.read(tmp_path / "x.nii.gz")
        files.header(tmp_path / "x.nii.gz")
    assert os.listdir(tmp_path / "links") == []


@pytest.mark.parametrize(("first", "second"), [(".nii", ".nii.gz"), (".nii.gz", ".nii")])
def test_who_writes_the_second_is_told(tmp_path, first, second):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files.write(OWN, tmp_path / f"x{first}")
        files.write(OWN, tmp_path / f"y{second}")
    with pytest.warns(UserWarning, match=r"read the voxels of x\.nii when they are asked for x\.nii\.gz"):
        files.write(OTHERS["voxels"], tmp_path / f"x{second}")
    assert same(files.read(tmp_path / f"x{second}"), OTHERS["voxels"])
    assert same(files.read(tmp_path / f"x{first}"), OWN)


def test_an_unpacked_copy_beside_is_the_usual_case(tmp_path):
    sitk.WriteImage(OWN, str(tmp_path / "x.nii.gz"))
    with gzip.open(tmp_path / "x.nii.gz") as packed, open(tmp_path / "x.nii", "wb") as plain:
        shutil.copyfileobj(packed, plain)
    assert same(files.read(tmp_path / "x.nii.gz"), files.read(tmp_path / "x.nii"))
