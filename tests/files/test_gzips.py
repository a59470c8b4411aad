"""Packed files: unpacked once into place, packed by all threads, by isal and zlib-ng where they are installed."""

import contextlib
import errno
import gzip
import io
import re
import struct
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support import noise

from gpuresample.files import completeness, gzips, nifti, packing
from gpuresample.files import volumes as files

TYPES = ("uint8", "int16", "int32", "float32", "float64", "int8", "uint16", "uint32", "int64", "uint64")


@pytest.fixture(params=["isal", "zlib"])
def library(request, monkeypatch):
    """Streams by isal and zlib-ng, and by Python's zlib."""
    if request.param == "zlib":
        monkeypatch.setattr(gzips, "_fast", lambda: None)
        monkeypatch.setattr(gzips, "_careful", lambda: zlib)
    else:
        for name in ("isal", "zlib_ng"):
            pytest.importorskip(name, reason="it is in the extra gpuresample[cli]")
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
    """What `packing.read` answers, call by call."""
    answers, real = [], packing.read

    def unpacked(*args):
        answers.append(real(*args))
        return answers[-1]

    monkeypatch.setattr(packing, "read", unpacked)
    return answers


@pytest.mark.parametrize("dtype", TYPES)
def test_voxels_are_itks(dtype, tmp_path, library, monkeypatch):
    array = packed(tmp_path / "a.nii.gz", dtype)
    answers = taken(monkeypatch)
    image = files.read(tmp_path / "a.nii.gz")
    assert answers != [None]
    monkeypatch.setattr(packing, "read", lambda *args: None)
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


def pictures():
    """Voxels that pack badly, well, and hardly fill a block."""
    z, y, x = np.ogrid[:60, :150, :160]
    return {
        "noise": (noise((40, 200, 210), "float32") * 100).astype(np.int16),
        "labels": (np.hypot(np.hypot(z - 30, y - 70), x - 80) // 17 % 4).astype(np.uint8),
        "small": noise((3, 4, 5), "int16"),
    }


@pytest.mark.parametrize("what", ["noise", "labels", "small"])
def test_what_is_written_is_one_stream_of_the_same_bytes_on_any_number_of_threads(what, tmp_path, threads, library):
    array = pictures()[what]
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
    assert len(made[0]) <= 1.03 * (tmp_path / "itks.nii.gz").stat().st_size + 100
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.nii.gz", "2.nii.gz", "5.nii.gz", "itks.nii.gz"]


@pytest.mark.parametrize(("level", "form"), [(1, "gzip"), (3, "zlib"), (4, "gzip"), (9, "zlib")])
def test_streams_of_every_level_are_zlibs_and_progress_is_told(form, level, library):
    content = pictures()["labels"].tobytes()
    content = content[-gzips.BLOCK :] + content
    out, told = io.BytesIO(), []
    gzips.pack([memoryview(content[:7]), memoryview(content)[7:]], out, form, level, told.append)
    unpack = zlib.decompressobj(31 if form == "gzip" else 15)
    assert unpack.decompress(out.getvalue()) == content
    assert unpack.eof
    assert not unpack.unused_data
    assert told == [7, gzips.BLOCK + 7, 2 * gzips.BLOCK + 7, len(content)]


def parts(content, ending):
    """What is before the stream, without the number of packed bytes, and what is in the stream."""
    if ending == ".nii.gz":
        return b"", gzip.decompress(content)
    if ending == ".nrrd":
        head, _, packed = content.partition(b"\n\n")
        return head, gzip.decompress(packed)
    head, mark, packed = content.partition(b"ElementDataFile = LOCAL\n")
    assert int(re.search(rb"CompressedDataSize = +(\d+)\n", head)[1]) == len(packed)
    return re.sub(rb"CompressedDataSize = .*", b"", head) + mark, zlib.decompress(packed)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize(
    ("size", "components", "kind"),
    [((12, 9, 7), 0, "Int16"), ((2, 1, 4), 0, "Float64"), ((11, 13), 0, "UInt8"), ((5, 4, 3, 6), 0, "Float32"),
     ((6, 5, 4), 3, "Float32"), ((6, 5), 2, "UInt8"), ((4, 3, 2, 2), 2, "Int32"), ((1, 1, 1), 0, "Int8")],
)  # fmt: skip
def test_what_is_packed_is_what_itk_writes(size, components, kind, ending, tmp_path):
    image = sitk.Image(size, getattr(sitk, f"sitk{'Vector' * bool(components)}{kind}"), components)
    sample = sitk.GetArrayFromImage(image)
    values = (np.arange(sample.size) % 120).reshape(sample.shape).astype(sample.dtype)
    image = sitk.GetImageFromArray(values, isVector=bool(components))
    d = len(size)
    image.SetSpacing((0.7, 0.8, 2.5, 3.0)[:d])
    image.SetOrigin((-100.3, 50.2, 7.0, 0.0)[:d])
    if d == 3:
        image.SetDirection(sitk.VersorTransform((1, 2, 3), 0.3).GetMatrix())
    # Words that a header has itself.
    for key in ("descrip", "DimSize", "sizes"):
        image.SetMetaData(key, "2 2 2")
    sitk.WriteImage(image, str(tmp_path / f"itks{ending}"), True)
    files.write(image, tmp_path / f"ours{ending}", level=3)
    itks, ours = (parts((tmp_path / f"{who}{ending}").read_bytes(), ending) for who in ("itks", "ours"))
    assert ours == itks
    for got in (files.read(tmp_path / f"ours{ending}"), sitk.ReadImage(str(tmp_path / f"ours{ending}"))):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(got), values)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize("big", [False, True])
def test_packed_nrrd_and_metaimage_are_unpacked_into_place(big, dtype, ending, tmp_path, library, monkeypatch):
    array = (noise((5, 6, 7), "float32") * 100).astype(dtype)
    if dtype == "float32":
        array[0, 1, 2], array[3, 3, 3] = np.nan, -np.inf
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetMetaData("Modality", "CT")
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path), True)
    if big:
        head, voxels = parts(path.read_bytes(), ending)
        packed = np.frombuffer(voxels, dtype).byteswap().tobytes()
        if ending == ".nrrd":
            path.write_bytes(head.replace(b"endian: little", b"endian: big") + b"\n\n" + gzip.compress(packed))
        else:
            head, packed = head.replace(b"MSB = False", b"MSB = True"), zlib.compress(packed)
            path.write_bytes(head.replace(b"\n\n", b"\nCompressedDataSize = %d\n" % len(packed)) + packed)
    answers, told = taken(monkeypatch), []
    got = files.read(path, progress=lambda done, total: told.append((done, total)))
    assert answers != [None]
    assert told[-1] == (array.nbytes, array.nbytes)
    itks = sitk.ReadImage(str(path))
    assert sitk.GetArrayFromImage(got).tobytes() == array.tobytes() == sitk.GetArrayFromImage(itks).tobytes()
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
        assert getattr(got, name)() == getattr(itks, name)()
    kept = {key: itks.GetMetaData(key) for key in itks.GetMetaDataKeys() if not key.startswith("ITK_original")}
    assert {key: got.GetMetaData(key) for key in got.GetMetaDataKeys()} == kept
    whole = path.read_bytes()
    for content in (whole[:-3], whole[:-6] + b"x" + whole[-5:], whole[:-40] + bytes(20) + whole[-20:]):
        path.write_bytes(content)
        with pytest.raises(OSError, match=r"damaged or end|ends early"):
            files.read(path)


@pytest.mark.parametrize("level", [0, 10, -1, 2.5, "best", True])
def test_levels_that_there_are_not_are_refused_by_name(level, tmp_path):
    with pytest.raises((ValueError, TypeError), match=r"level must be a whole number from 1 .fast. to 9 .small., got"):
        files.write(sitk.Image(3, 3, 3, sitk.sitkInt16), tmp_path / "a.nii.gz", level=level)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", [".nii", ".h5", ".mgz"])
def test_levels_are_for_formats_that_are_packed(ending, tmp_path):
    with pytest.raises(
        ValueError, match=r"level is for \.nii\.gz, \.nii\.zst, \.nrrd, \.mha, and .* is none of these; got 3"
    ):
        files.write(sitk.Image(3, 3, 3, sitk.sitkInt16), tmp_path / f"a{ending}", level=3)
    assert list(tmp_path.iterdir()) == []


def test_more_voxels_than_nifti_can_say_are_refused(tmp_path):
    with pytest.raises(OSError, match="at most 32,767 voxels along an axis, got 32,768"):
        files.write(sitk.Image(32768, 1, 1, sitk.sitkUInt8), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


@contextlib.contextmanager
def files_of_at_most(count):
    resource = pytest.importorskip("resource", reason="Windows has no limits of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_a_write_that_the_system_refuses_leaves_the_old_file_and_no_other(ending, tmp_path, threads):
    threads(3)
    target = tmp_path / f"a{ending}"
    files.write(sitk.Image(3, 3, 3, sitk.sitkInt16), target)
    old = target.read_bytes()
    image = sitk.GetImageFromArray(pictures()["noise"])
    with files_of_at_most(1 << 20), pytest.raises(OSError, match="too large") as raised:
        files.write(image, target, overwrite=True, level=1)
    assert raised.value.errno == errno.EFBIG
    assert target.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == [target.name]


def test_a_full_disk_is_told_by_its_name(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gzips, "pack", full)
    with pytest.raises(OSError, match=r"a\.nii\.gz: cannot be written: no space left on the disk"):
        files.write(sitk.Image(3, 3, 3, sitk.sitkInt16), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_lost_on_the_way_are_missed(tmp_path, monkeypatch):
    real = gzips.pack

    def lossy(pieces, out, *args):
        real(pieces, out, *args)
        out.flush()
        out.truncate(out.tell() - 1)

    monkeypatch.setattr(gzips, "pack", lossy)
    with pytest.raises(OSError, match=r"bytes are there"):
        files.write(sitk.Image(3, 3, 3, sitk.sitkInt16), tmp_path / "a.nii.gz")
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_leaves_is_known_as_a_partial_file(tmp_path):
    target = tmp_path / "a.nii.gz"
    partial = files.partial_beside(target)
    assert files.is_partial_of(partial.name, target.name)
    assert not files.is_partial_of(partial.name, "b.nii.gz")


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
