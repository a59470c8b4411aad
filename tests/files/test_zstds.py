"""Volumes in .nii.zst: read and written as .nii.gz is; damaged streams, and a missing library, are refused by name."""

import importlib
import itertools
import random

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from support import noise

import gpuresample as gr
from gpuresample.batch import inputs
from gpuresample.files import completeness, gzips, packing, zstds
from gpuresample.files import volumes as files
from gpuresample.files.job import Settings


@pytest.fixture
def zstd():
    """`compression.zstd`, or what it is before Python 3.14."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    pytest.skip("backports.zstd is in the extra gpuresample[cli]")


def plain(path, array, **header):
    """A NIfTI file of nibabel's; its bytes."""
    image = nib.Nifti1Image(array.T, np.diag([1.5, 0.8, 2.0, 1.0]), dtype=array.dtype)
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path.read_bytes()


def same(one, other):
    assert one.GetPixelID() == other.GetPixelID()
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(one, name)() == getattr(other, name)()
    assert sitk.GetArrayFromImage(one).tobytes() == sitk.GetArrayFromImage(other).tobytes()


@pytest.mark.parametrize("dtype", ["int16", "uint8", "float64"])
@pytest.mark.parametrize("form", ["one frame", "no size", "frames", "skippable"])
def test_streams_are_unpacked_once_into_place(form, dtype, zstd, tmp_path, monkeypatch):
    array = (noise((12, 31, 40), "float32") * 100).astype(dtype)
    content = plain(tmp_path / "a.nii", array)
    checked = {zstd.CompressionParameter.checksum_flag: 1}
    if form == "one frame":
        nib.save(nib.load(tmp_path / "a.nii"), tmp_path / "a.nii.zst")
    elif form == "no size":
        packer = zstd.ZstdCompressor(options=checked)
        packed = packer.compress(content[:400], mode=packer.FLUSH_BLOCK)
        packed += packer.compress(content[400:]) + packer.flush()
        assert zstd.get_frame_info(packed).decompressed_size is None
        (tmp_path / "a.nii.zst").write_bytes(packed)
    else:
        frames = [zstd.compress(content[at : at + 5000], options=checked) for at in range(0, len(content), 5000)]
        if form == "skippable":
            between = b"\x5a\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
            frames = [between, *itertools.chain.from_iterable((frame, between) for frame in frames)]
        (tmp_path / "a.nii.zst").write_bytes(b"".join(frames))
    answers, real = [], packing.read
    monkeypatch.setattr(packing, "read", lambda *args: answers.append(real(*args)) or answers[-1])
    told = []
    got = files.read(tmp_path / "a.nii.zst", progress=lambda *counts: told.append(counts))
    assert answers != [None]
    assert told[-1] == (array.nbytes, array.nbytes)
    same(got, files.read(tmp_path / "a.nii"))
    np.testing.assert_array_equal(sitk.GetArrayViewFromImage(got), array)
    assert files.header(tmp_path / "a.nii.zst") == files.header(tmp_path / "a.nii")


def test_what_itk_must_scale_place_or_take_apart_is_as_in_a_plain_file(zstd, tmp_path):
    array = noise((5, 6, 7), "float32")
    array[1, 2, 3] = np.nan
    plain(tmp_path / "slope.nii", (array[2:] * 9).astype("int16"), scl_slope=2.0, scl_inter=-3.0)
    sheared = nib.Nifti1Image(array.T, np.array([[1, 0.4, 0, 3], [0, 1, 0, 4], [0, 0, 2, 5], [0, 0, 0, 1]]))
    sheared.set_qform(None)
    nib.save(sheared, tmp_path / "shear.nii")
    nib.save(nib.Nifti2Image(array.T, np.eye(4)), tmp_path / "second.nii")
    vectors = sitk.GetImageFromArray(noise((4, 5, 6, 3), "float32"), isVector=True)
    files.write(vectors, tmp_path / "vectors.nii")
    header = nib.Nifti1Header(endianness=">")
    nib.save(nib.Nifti1Image(array.T, np.eye(4), header), tmp_path / "big.nii")
    extended = nib.Nifti1Image(array.T, np.eye(4))
    extended.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"x" * 3000))
    nib.save(extended, tmp_path / "extended.nii")
    names = ("slope", "shear", "second", "vectors", "big", "extended")
    for name in names:
        content = (tmp_path / f"{name}.nii").read_bytes()
        (tmp_path / f"{name}.nii.zst").write_bytes(zstd.compress(content))
        same(files.read(tmp_path / f"{name}.nii.zst"), files.read(tmp_path / f"{name}.nii"))
        assert files.header(tmp_path / f"{name}.nii.zst") == files.header(tmp_path / f"{name}.nii")
    # Those that are unpacked to a file first are refused, too.
    for name in ("slope", "vectors"):
        packed = (tmp_path / f"{name}.nii.zst").read_bytes()
        (tmp_path / f"{name}.nii.zst").write_bytes(packed[:-40])
        with pytest.raises(OSError, match=rf"{name}\.nii\.zst: the zstandard stream is damaged or ends early"):
            files.read(tmp_path / f"{name}.nii.zst")
    assert files.in_parts(tmp_path / "big.nii") is not None
    assert files.in_parts(tmp_path / "big.nii.zst") is None
    with pytest.raises(ValueError, match=r"big\.nii\.zst: is packed"):
        gr.open_nifti(tmp_path / "big.nii.zst")


def test_what_is_written_is_one_frame_of_the_same_bytes_on_any_number_of_threads(zstd, tmp_path, threads):
    array = (noise((20, 200, 210), "float32") * 100).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.7, 0.8, 2.0))
    image.SetOrigin((1, -2, 3))
    image.SetMetaData("sform_code", "4")
    image.SetMetaData("qform_code", "2")
    files.write(image, tmp_path / "plain.nii")
    content = (tmp_path / "plain.nii").read_bytes()
    made, told = [], []
    for n in (1, 2, 5):
        threads(n)
        files.write(image, tmp_path / f"{n}.nii.zst", progress=lambda *counts: told.append(counts))
        made.append((tmp_path / f"{n}.nii.zst").read_bytes())
    assert made[0] == made[1] == made[2]
    assert told[-1] == (array.nbytes, array.nbytes)
    packer = zstd.ZstdDecompressor()
    assert packer.decompress(made[0]) == content
    assert packer.eof
    assert not packer.unused_data
    assert zstd.get_frame_info(made[0]).decompressed_size == len(content)
    assert made[0][4] & 4  # there is a checksum
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "1.nii.zst").dataobj).T, array)
    got = files.read(tmp_path / "1.nii.zst")
    same(got, files.read(tmp_path / "plain.nii"))
    assert (got.GetMetaData("sform_code"), got.GetMetaData("qform_code")) == ("4", "2")
    sizes = []
    for level in (1, 9):
        files.write(image, tmp_path / "1.nii.zst", overwrite=True, level=level)
        sizes.append((tmp_path / "1.nii.zst").stat().st_size)
    assert sizes[1] < sizes[0]
    with pytest.raises(ValueError, match="level must be a whole number from 1"):
        files.write(image, tmp_path / "1.nii.zst", overwrite=True, level=10)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.nii.zst", "2.nii.zst", "5.nii.zst", "plain.nii"]


@pytest.mark.parametrize(
    ("size", "components", "kind"),
    [((11, 13), 0, "UInt8"), ((5, 4, 3, 6), 0, "Float32"), ((6, 5, 4), 3, "Float32"), ((1, 1, 1), 0, "Int8")],
)
def test_other_shapes_are_kept(size, components, kind, zstd, tmp_path):
    image = sitk.Image(size, getattr(sitk, f"sitk{'Vector' * bool(components)}{kind}"), components)
    array = sitk.GetArrayFromImage(image)
    values = (np.arange(array.size) % 120).reshape(array.shape).astype(array.dtype)
    image = sitk.GetImageFromArray(values, isVector=bool(components))
    files.write(image, tmp_path / "a.nii")
    files.write(image, tmp_path / "a.nii.zst")
    assert zstd.decompress((tmp_path / "a.nii.zst").read_bytes()) == (tmp_path / "a.nii").read_bytes()
    same(files.read(tmp_path / "a.nii.zst"), files.read(tmp_path / "a.nii"))


def test_damaged_streams_are_refused(zstd, tmp_path):
    array = (noise((6, 15, 20), "float32") * 100).astype(np.int16)
    files.write(sitk.GetImageFromArray(array), tmp_path / "a.nii.zst")
    whole = (tmp_path / "a.nii.zst").read_bytes()
    path, pick, refused = tmp_path / "b.nii.zst", random.Random(7), 0
    for k in range(110):
        content = bytearray(whole)
        if k < 30:
            content = content[: k * len(whole) // 30]
        elif k < 90:
            content[pick.randrange(len(whole))] ^= 1 << pick.randrange(8)
        else:
            at = pick.randrange(len(whole) - 20)
            content[at : at + 20] = pick.randbytes(20) if k < 100 else bytes(20)
        path.write_bytes(content)
        try:
            got = files.read(path)
        except OSError as error:
            refused += str(path) in str(error)
        else:  # bits that zstandard does not use
            np.testing.assert_array_equal(sitk.GetArrayViewFromImage(got), array)
    assert refused >= 105
    for behind in (b"\0" * 9, b"junk of some length"):
        path.write_bytes(whole + behind)
        with pytest.raises(OSError, match=r"b\.nii\.zst: the zstandard stream is damaged"):
            files.read(path)


def test_short_over_long_and_hostile_streams_are_refused(zstd, tmp_path):
    array = noise((6, 15, 20), "int16")
    content = plain(tmp_path / "a.nii", array)
    path = tmp_path / "a.nii.zst"
    path.write_bytes(zstd.compress(content[:-100]))
    with pytest.raises(OSError, match="the file ends early: 3,852 of 3,952 bytes"):
        files.read(path)
    path.write_bytes(zstd.compress(content + bytes(completeness._BEHIND + 2 * gzips.BLOCK)))
    with pytest.raises(OSError, match="goes on for more than 67,108,864 bytes behind its volume"):
        files.read(path)
    path.write_bytes(zstd.compress(content + bytes(1000)))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(path)), array)
    for nonsense in (b"", content[:3000]):
        path.write_bytes(nonsense)
        for call in (files.read, files.header):
            with pytest.raises(OSError, match=r"a\.nii\.zst: the zstandard stream is damaged or ends early"):
                call(path)
    huge = nib.Nifti1Header()
    huge.set_data_dtype(np.float64)
    huge.set_data_shape((32000, 32000, 3200))
    path.write_bytes(zstd.compress(huge.binaryblock + bytes(4)))
    with pytest.raises(OSError, match="asks for 26,214,400,000,000 bytes of voxels"):
        files.read(path)


def test_a_failed_write_leaves_the_old_file_and_no_other(zstd, tmp_path, monkeypatch):
    image = sitk.GetImageFromArray(noise((5, 6, 7), "int16"))
    files.write(image, tmp_path / "a.nii.zst")
    old = (tmp_path / "a.nii.zst").read_bytes()
    real = zstds.pack

    def lossy(pieces, out, *args):
        real(pieces, out, *args)
        out.flush()
        out.truncate(out.tell() - 1)

    monkeypatch.setattr(zstds, "pack", lossy)
    with pytest.raises(OSError, match="bytes are there"):
        files.write(image, tmp_path / "a.nii.zst", overwrite=True)
    assert (tmp_path / "a.nii.zst").read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.zst"]


def test_the_commands_read_and_write_it(zstd, tmp_path, run):
    array = noise((6, 7, 8), "int16")
    (tmp_path / "in").mkdir()
    image = sitk.GetImageFromArray(array)
    files.write(image, tmp_path / "in" / "a.nii.zst")
    files.write(image, tmp_path / "a.nii")
    for name in ("in/a.nii.zst", "a.nii"):
        code, _, said = run("resample", tmp_path / name, tmp_path / "out.nii.zst", "--spacing", 2, "--overwrite")
        assert code == 0, said
        wanted = sitk.GetArrayFromImage(gr.resample(image, spacing=2))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(tmp_path / "out.nii.zst")), wanted)
    code, said, _ = run("info", tmp_path / "in" / "a.nii.zst")
    assert code == 0
    assert "8 x 7 x 6" in said
    found = inputs.items(tmp_path / "in", tmp_path, Settings(spacing=(2.0, 2.0, 2.0)))
    assert [item.name for item in found] == ["a.nii.zst"]


def test_without_a_library_it_is_refused_by_name_before_any_work(tmp_path, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(zstds.importlib, "import_module", missing)
    (tmp_path / "a.nii.zst").write_bytes(b"\x28\xb5\x2f\xfd")
    image = sitk.Image(3, 3, 3, sitk.sitkInt16)
    for call in (
        files.read,
        files.header,
        lambda path: files.check_output(path, overwrite=True),
        lambda path: files.write(image, path, overwrite=True),
    ):
        with pytest.raises(OSError, match=r"a\.nii\.zst: is packed by zstandard.*pip install backports\.zstd"):
            call(tmp_path / "a.nii.zst")
    assert (tmp_path / "a.nii.zst").read_bytes() == b"\x28\xb5\x2f\xfd"
