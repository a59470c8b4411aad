"""Packed NIfTI files: unpacked once into place, packed by all threads, by isal where it is installed."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support import noise

from gpuresample.files import completeness, gzips, nifti
from gpuresample.files import volumes as files

TYPES = ("uint8", "int16", "int32", "float32", "float64", "int8", "uint16", "uint32", "int64", "uint64")


@pytest.fixture(params=["isal", "gzip"])
def library(request, monkeypatch):
    """Streams by isal, and by Python's gzip and ITK."""
    if request.param == "gzip":
        monkeypatch.setattr(gzips, "_fast", lambda: None)
    else:
        pytest.importorskip("isal", reason="isal is in the extra gpuresample[cli]")
    return request.param


def packed(path, dtype="int16", shape=(12, 31, 40), **header):
    """A file that nibabel has written, and its voxels, z, y, x."""
    array = (noise(shape, "float32") * 100).astype(dtype)
    image = nib.Nifti1Image(array.T, np.diag([1.5, 0.8, 2.0, 1.0]), dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return array


def taken(monkeypatch):
    """What `nifti.unpacked` answers, call by call."""
    answers, real = [], nifti.unpacked

    def unpacked(*args):
        answers.append(real(*args))
        return answers[-1]

    monkeypatch.setattr(nifti, "unpacked", unpacked)
    return answers


@pytest.mark.parametrize("dtype", TYPES)
def test_voxels_are_itks(dtype, tmp_path, library, monkeypatch):
    array = packed(tmp_path / "a.nii.gz", dtype)
    answers = taken(monkeypatch)
    image = files.read(tmp_path / "a.nii.gz")
    assert answers != [None]
    monkeypatch.setattr(nifti, "unpacked", lambda *args: None)
    itks = files.read(tmp_path / "a.nii.gz")
    assert sitk.GetArrayViewFromImage(image).dtype == dtype
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), array)
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(itks), array)
    assert image.GetPixelID() == itks.GetPixelID()
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == getattr(itks, name)()
    # ITK's image readers leave notes of their own beside the file's.
    kept = {key: itks.GetMetaData(key) for key in itks.GetMetaDataKeys() if not key.startswith("ITK_original")}
    assert {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()} == kept


@pytest.mark.parametrize("dtype", ["int16", "float64"])
def test_the_other_byte_order(dtype, tmp_path, library, monkeypatch):
    array = (noise((5, 6, 7), "float32") * 100).astype(dtype)
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.dtype(dtype).newbyteorder(">"))
    nib.save(nib.Nifti1Image(array.T, np.eye(4), header), tmp_path / "a.nii.gz")
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes())[:4] == struct.pack(">i", 348)
    answers = taken(monkeypatch)
    image = files.read(tmp_path / "a.nii.gz")
    assert answers != [None]
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(image), array)


@pytest.mark.parametrize(("slope", "inter"), [(2.0, 0.0), (1.0, -1024.0), (0.5, 3.0)])
def test_scaled_voxels_are_left_to_itk(slope, inter, tmp_path, library, monkeypatch):
    image = nib.Nifti1Image(noise((9, 8, 7), "int16").T, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nib.save(image, tmp_path / "a.nii.gz")
    answers = taken(monkeypatch)
    got = sitk.GetArrayFromImage(files.read(tmp_path / "a.nii.gz"))
    assert answers == [None]
    np.testing.assert_array_equal(got, sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.nii.gz"))))


def test_values_that_are_no_numbers_stay(tmp_path, library):
    array = noise((6, 7, 8), "float32")
    array[1, 2, 3], array[2, 2, 2], array[0, 0, 0] = np.nan, np.inf, -np.inf
    nib.save(nib.Nifti1Image(array.T, np.eye(4)), tmp_path / "a.nii.gz")
    got = sitk.GetArrayFromImage(files.read(tmp_path / "a.nii.gz"))
    assert got.tobytes() == array.tobytes()


def damaged(content, kind):
    if kind == "cut":
        return content[: len(content) // 2]
    if kind == "no trailer":
        return content[:-5]
    if kind == "checksum":
        return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
    if kind == "middle":
        at = len(content) // 2
        return content[:at] + bytes(b ^ 0x55 for b in content[at : at + 20]) + content[at + 20 :]
    raw = gzip.decompress(content)
    return gzip.compress(raw[:-100] if kind == "short" else raw + bytes(completeness._BEHIND + (2 << 20)))


@pytest.mark.parametrize("kind", ["cut", "no trailer", "checksum", "middle", "short", "goes on"])
def test_damaged_streams_are_refused(kind, tmp_path, library):
    packed(tmp_path / "a.nii.gz", "int16")
    whole = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(damaged(whole, kind))
    message = {"short": "the file ends early", "goes on": "goes on for more than"}.get(
        kind, "the gzip stream is damaged"
    )
    with pytest.raises(OSError, match=message):
        files.read(tmp_path / "a.nii.gz")


def members(path):
    """Streams one after the other in a gzip file."""
    left, n = path.read_bytes(), 0
    while left:
        one = zlib.decompressobj(31)
        one.decompress(left)
        left, n = one.unused_data, n + 1
    return n


@pytest.mark.parametrize("what", ["noise", "labels", "small"])
def test_what_is_written_is_one_stream_of_the_same_bytes_on_any_number_of_threads(what, tmp_path, threads):
    pytest.importorskip("isal", reason="isal is in the extra gpuresample[cli]")
    z, y, x = np.ogrid[:60, :150, :160]
    array = {
        "noise": (noise((40, 200, 210), "float32") * 100).astype(np.int16),
        "labels": (np.hypot(np.hypot(z - 30, y - 70), x - 80) // 17 % 4).astype(np.uint8),
        "small": noise((3, 4, 5), "int16"),
    }[what]
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.0))
    made = []
    for n in (1, 2, 5):
        threads(n)
        files.write(image, tmp_path / f"{n}.nii.gz")
        made.append((tmp_path / f"{n}.nii.gz").read_bytes())
    assert made[0] == made[1] == made[2]
    assert members(tmp_path / "1.nii.gz") == 1
    sitk.WriteImage(image, str(tmp_path / "itks.nii.gz"))
    assert gzip.decompress(made[0]) == gzip.decompress((tmp_path / "itks.nii.gz").read_bytes())
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "1.nii.gz").dataobj).T, array)
    assert len(made[0]) <= 1.1 * (tmp_path / "itks.nii.gz").stat().st_size + 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.nii.gz", "2.nii.gz", "5.nii.gz", "itks.nii.gz"]


def test_what_a_kill_leaves_is_known_as_a_partial_file(tmp_path):
    target = tmp_path / "a.nii.gz"
    partial = files.partial_beside(target)
    with files._plain_of(partial) as plain:
        for path in (partial, plain):
            assert files.is_partial_of(path.name, target.name)
            assert not files.is_partial_of(path.name, "b.nii.gz")
        plain.write_bytes(b"")
    assert not plain.exists()


def test_a_disk_without_room_for_both_is_written_as_before(tmp_path, monkeypatch):
    image = sitk.GetImageFromArray(noise((9, 10, 11), "int16"))
    monkeypatch.setattr(gzips, "pack", lambda *args: pytest.fail("packed"))
    free = files.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda path: free._replace(free=1 << 16))
    files.write(image, tmp_path / "a.nii.gz")
    assert Path(tmp_path / "a.nii.gz").exists()
    assert (sitk.GetArrayFromImage(files.read(tmp_path / "a.nii.gz")) == sitk.GetArrayFromImage(image)).all()


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("offset", [0.0, 100.0, -1.0])
def test_voxels_do_not_begin_within_the_header(offset, ending, tmp_path, library):
    array = noise((6, 7, 8), "float32")
    array[1, 1, 1] = np.nan
    content = bytearray(nib.Nifti1Image(array.T, np.eye(4)).to_bytes())
    struct.pack_into("<f", content, 108, offset)
    content = bytes(content[:348] + content[352:])
    (tmp_path / f"a{ending}").write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    got = sitk.GetArrayFromImage(files.read(tmp_path / f"a{ending}"))
    assert got.tobytes() == array.tobytes()


def test_what_itks_reader_does_not_survive_is_refused(tmp_path, monkeypatch):
    """The guard alone: the file is one that ITK reads."""
    image = nib.Nifti1Image(np.zeros((4, 5, 6, 1, 3), np.float32), np.eye(4))
    image.header.set_intent(1007)
    image.header.set_slope_inter(0.5, 0.0)
    nib.save(image, tmp_path / "a.nii.gz")
    assert files.read(tmp_path / "a.nii.gz").GetNumberOfComponentsPerPixel() == 3
    monkeypatch.setattr(nifti.Form, "is_float", False)
    with pytest.raises(OSError, match="vectors of integers with a slope"):
        files.read(tmp_path / "a.nii.gz")
