"""Volumes in and out: nothing is lost, nothing is half there, every refusal names the file and the reason."""

import gzip
import io
import locale
import os
import shutil
import signal
import struct
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import SimpleITK as sitk
from support import assert_same

from gpuresample.files import tiffs, transforms
from gpuresample.files import volumes as files

ALL_TYPES = [
    sitk.sitkUInt8, sitk.sitkInt8, sitk.sitkUInt16, sitk.sitkInt16, sitk.sitkUInt32, sitk.sitkInt32,
    sitk.sitkUInt64, sitk.sitkInt64, sitk.sitkFloat32, sitk.sitkFloat64,
]  # fmt: skip

# Those that need no further library.
ITKS = [ending for ending in files.WRITABLE if ending != ".nii.zst"]


def volume(pixel=sitk.sitkInt16, size=(9, 8, 7), components=0, seed=0):
    """Noise on an anisotropic grid that is rotated in its x-y plane."""
    d = len(size)
    shape = size[::-1] + ((components,) if components else ())
    dtype = sitk.GetArrayViewFromImage(sitk.Image([1, 1], pixel, components)).dtype
    values = np.random.default_rng(seed).integers(0, 100, shape).astype(dtype)
    image = sitk.GetImageFromArray(values, isVector=bool(components))
    image.SetSpacing((0.7, 0.8, 2.5, 3.0)[:d])
    image.SetOrigin((-100.3, 50.2, 7.0, 0.0)[:d])
    direction = np.eye(d)
    direction[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    image.SetDirection(direction.ravel().tolist())
    return image


def only(folder, *names):
    assert sorted(p.name for p in folder.iterdir()) == sorted(names)


# ------------------------------------------------------------------------------------------------ round trips


# HDF5 takes a process for every file: one of its two endings has all voxel types, the other all shapes.
@pytest.mark.parametrize("extension", [ending for ending in ITKS if ending != ".hdf5"])
@pytest.mark.parametrize("pixel", ALL_TYPES, ids=sitk.GetPixelIDValueAsString)
def test_every_format_keeps_every_voxel_type(tmp_path, extension, pixel):
    image = volume(pixel)
    files.write(image, tmp_path / f"a{extension}")
    assert_same(files.read(tmp_path / f"a{extension}"), image)
    only(tmp_path, f"a{extension}")


@pytest.mark.parametrize("extension", [ending for ending in ITKS if ending != ".h5"])
@pytest.mark.parametrize(
    ("size", "components"),
    [((9, 8), 0), ((5, 6, 7, 3), 0), ((9, 8, 7), 2), ((9, 8, 7), 3), ((9, 8), 3), ((5, 6, 7, 3), 2)],
)
def test_every_format_keeps_2d_4d_and_vectors(tmp_path, extension, size, components):
    image = volume(sitk.sitkVectorFloat32 if components else sitk.sitkFloat32, size, components)
    files.write(image, tmp_path / f"a{extension}")
    assert_same(files.read(tmp_path / f"a{extension}"), image)


@pytest.mark.parametrize("extension", [".nrrd", ".mha"])
def test_nan_survives(tmp_path, extension):
    array = np.ones((3, 4, 5), np.float32)
    array[1, 2, 3] = np.nan
    files.write(sitk.GetImageFromArray(array), tmp_path / f"a{extension}")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(tmp_path / f"a{extension}")), array)


def test_dots_spaces_and_other_letters_in_the_name(tmp_path):
    for name in ("a.b.v1.nrrd", "scan.2024.nii.gz", "Schädel CT.nii", ".hidden.mha"):
        files.write(volume(), tmp_path / name)
        assert_same(files.read(tmp_path / name), volume())


def test_header_is_the_image_without_its_voxels(tmp_path):
    image = volume(sitk.sitkVectorFloat32, (9, 8, 7), 2)
    files.write(image, tmp_path / "a.nrrd")
    header = files.header(tmp_path / "a.nrrd")
    assert (header.format, header.components, header.dtype, header.size) == ("NRRD", 2, np.float32, (9, 8, 7))
    assert header.nbytes == 9 * 8 * 7 * 2 * 4
    of_image = files.Header.of(image)
    assert header.pixel_type == of_image.pixel_type
    np.testing.assert_allclose(header.direction, of_image.direction)


def test_written_files_have_the_usual_permissions(tmp_path):
    files.write(volume(), tmp_path / "a.nii")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "a.nii").stat().st_mode == (tmp_path / "plain").stat().st_mode


# -------------------------------------------------------------------------------------------- whole or not at all


def test_existing_file_is_kept_unless_overwritten(tmp_path):
    path = tmp_path / "a.nii.gz"
    files.write(volume(seed=1), path)
    with pytest.raises(FileExistsError, match=r"a\.nii\.gz: exists already.*overwrite"):
        files.write(volume(seed=2), path)
    assert_same(files.read(path), volume(seed=1))
    files.write(volume(seed=2), path, overwrite=True)
    assert_same(files.read(path), volume(seed=2))
    only(tmp_path, "a.nii.gz")


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("ITK ERROR: disk"), OSError("disk"), MemoryError])
@pytest.mark.parametrize("when", ["write", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, error, when):
    path = tmp_path / "a.nii.gz"
    files.write(volume(seed=1), path)
    write = sitk.WriteImage

    def failing_write(*args):
        write(*args)
        raise error

    def failing_replace(*_):
        raise error

    if when == "write":
        monkeypatch.setattr(sitk, "WriteImage", failing_write)
    else:
        monkeypatch.setattr(os, "replace", failing_replace)
    with pytest.raises(BaseException, match=r"a\.nii\.gz: cannot be written: disk|disk|"):
        files.write(volume(seed=2), path, overwrite=True)
    monkeypatch.undo()
    only(tmp_path, "a.nii.gz")
    assert_same(files.read(path), volume(seed=1))


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    write = sitk.WriteImage

    def overtaken(image, name):
        write(image, name)
        path.write_text("someone else's")

    monkeypatch.setattr(sitk, "WriteImage", overtaken)
    with pytest.raises(FileExistsError, match="meanwhile"):
        files.write(volume(), path)
    assert path.read_text() == "someone else's"
    only(tmp_path, "a.nrrd")


def test_a_short_write_is_found(tmp_path, monkeypatch):
    write = sitk.WriteImage

    def short(image, name):
        write(image, name)
        os.truncate(name, 500)

    monkeypatch.setattr(sitk, "WriteImage", short)
    with pytest.raises(OSError, match="ends early: 500 of"):
        files.write(volume(), tmp_path / "a.nii")
    only(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_a_killed_process_leaves_no_file_of_that_name(tmp_path):
    script = """
        import sys, time
        import SimpleITK as sitk
        from gpuresample.files import volumes
        write = sitk.WriteImage
        def slow(*args):
            write(*args)
            print("written", flush=True)
            time.sleep(60)
        sitk.WriteImage = slow
        volumes.write(sitk.Image([9, 9, 9], sitk.sitkInt16), sys.argv[1])
    """
    path = tmp_path / "a.nii.gz"
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "written\n"
        child.kill()
    assert child.returncode == -signal.SIGKILL
    assert not path.exists()
    # What is left cannot be mistaken for a result.
    assert all(p.name.startswith(".") and ".partial" in p.name for p in tmp_path.iterdir())


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "store").mkdir()
    files.write(volume(seed=1), tmp_path / "store" / "a.nii")
    link = tmp_path / "link.nii"
    try:
        link.symlink_to(tmp_path / "store" / "a.nii")
    except OSError:
        pytest.skip("no symbolic links here")
    files.write(volume(seed=2), link, overwrite=True)
    assert link.is_symlink()
    assert_same(files.read(tmp_path / "store" / "a.nii"), volume(seed=2))
    only(tmp_path / "store", "a.nii")


# ------------------------------------------------------------------------------------------- refusals of outputs


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.mhd", r"use \.mha"), ("a.nhdr", r"use \.nrrd"), ("a.hdr", r"use \.nii"), ("a.dcm", "scanner"),
        ("a.tif", "does not keep spacing"), ("a.png", "does not keep spacing"), ("a.xyz", r"got \.xyz"),
        ("a.MHA", "small letters"), ("a.gz", r"got \.gz"), ("a", "no extension"), (".nii", "got"),
        ("nii", "no extension"), ("a.b2nd", "no place"),
    ],
)  # fmt: skip
def test_extensions_that_cannot_be_written(tmp_path, name, hint):
    with pytest.raises(ValueError, match=hint) as caught:
        files.write(volume(), tmp_path / name)
    assert ".nii.gz" in str(caught.value)
    assert name in str(caught.value)
    only(tmp_path)


def test_output_folder_must_be_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.nii").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        files.write(volume(), tmp_path / "missing" / "a.nii")
    with pytest.raises(NotADirectoryError, match="file is not a folder"):
        files.write(volume(), tmp_path / "file" / "a.nii")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        files.write(volume(), tmp_path / "folder.nii", overwrite=True)


def test_only_images_are_written(tmp_path):
    with pytest.raises(TypeError, match=r"SimpleITK\.Image, got ndarray"):
        files.write(np.zeros((3, 3, 3)), tmp_path / "a.nii")


def test_geometry_that_the_format_loses_is_refused(tmp_path):
    image = volume()
    shear = np.eye(3)
    shear[0, 1] = 0.5
    image.SetDirection(shear.ravel().tolist())
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(OSError, match=rf"{name}: this format cannot hold the image's.*use \.nrrd or \.mha"):
            files.write(image, tmp_path / name)
        only(tmp_path)
    files.write(image, tmp_path / "a.mha")
    assert_same(files.read(tmp_path / "a.mha"), image)


# -------------------------------------------------------------------------------------------- refusals of inputs


def test_missing_input(tmp_path):
    for call in (files.read, files.header):
        with pytest.raises(FileNotFoundError, match=r"none\.nii: no such file or folder"):
            call(tmp_path / "none.nii")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.txt", "a"])
@pytest.mark.parametrize("content", [b"", b"hello world\n" * 100])
def test_files_that_are_no_images(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for call in (files.read, files.header):
        with pytest.raises(OSError, match=r"cannot be read") as caught:
            call(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", [*ITKS, ".gipl", ".mrc", ".vtk", ".tif"])
@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_truncated_files_are_refused(tmp_path, extension, share):
    path = tmp_path / f"a{extension}"
    # SimpleITK itself reads several of these to the end, with whatever is in memory.
    sitk.WriteImage(volume(size=(30, 20, 10)), str(path))
    os.truncate(path, int(path.stat().st_size * share))
    before = locale.setlocale(locale.LC_ALL)
    with pytest.raises(OSError, match=rf"a\{extension}.*(early|damaged|cannot be read)") as caught:
        files.read(path)
    assert locale.setlocale(locale.LC_ALL) == before
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_damaged_gzip_is_refused(tmp_path):
    path = tmp_path / "a.nii.gz"
    files.write(volume(size=(30, 20, 10)), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(OSError, match="gzip stream is damaged"):
        files.read(path)


def test_gzip_in_several_members_is_fine(tmp_path):
    # As bgzip and pigz write it.
    image = volume()
    files.write(image, tmp_path / "a.nii")
    data = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
    assert_same(files.read(tmp_path / "b.nii.gz"), image)


@pytest.mark.filterwarnings("ignore:.*neither sform nor qform")
def test_foreign_byte_order_and_bytes_at_the_end_are_fine(tmp_path):
    # The smallest NIfTI-1 file, big-endian: 2 x 3 x 4 voxels of int16.
    head = np.zeros(352, np.uint8)
    head[0:4] = np.array([348], ">i4").view(np.uint8)
    head[40:56] = np.array([3, 2, 3, 4, 1, 1, 1, 1], ">i2").view(np.uint8)
    head[70:74] = np.array([4, 16], ">i2").view(np.uint8)
    head[76:108] = np.ones(8, ">f4").view(np.uint8)
    head[108:112] = np.array([352], ">f4").view(np.uint8)
    head[344:348] = np.frombuffer(b"n+1\0", np.uint8)
    voxels = np.arange(24, dtype=">i2")
    path = tmp_path / "a.nii"
    path.write_bytes(head.tobytes() + voxels.tobytes() + b"more")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(path)).ravel(), np.arange(24))
    path.write_bytes(head.tobytes() + voxels.tobytes()[:-1])
    with pytest.raises(OSError, match="399 of 400 bytes"):
        files.read(path)


def test_itk_warnings_are_as_they_were(tmp_path):
    files.write(volume(), tmp_path / "a.nii")
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    for wanted in (True, False):
        sitk.ProcessObject.SetGlobalWarningDisplay(wanted)
        files.read(tmp_path / "a.nii")
        with pytest.raises(OSError, match="no such file"):
            files.read(tmp_path / "b.nii")
        assert sitk.ProcessObject.GetGlobalWarningDisplay() == wanted
    sitk.ProcessObject.SetGlobalWarningDisplay(before)


# ---------------------------------------------------------------------------------------------------- DICOM


@pytest.fixture
def series(data_dir, tmp_path):
    """A copy of the three slices of a CT series."""
    folder = tmp_path / "series"
    shutil.copytree(data_dir / "dicom_series", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    return folder


def test_a_folder_is_a_dicom_series(series):
    image = files.read(series)
    assert image.GetSize() == (512, 512, 3)
    np.testing.assert_allclose(image.GetSpacing(), (0.41015625, 0.41015625, 1.5))
    (series / "notes.txt").write_text("not DICOM")
    assert_same(files.read(series), image)


def test_one_of_several_series_must_be_named(series, tmp_path):
    (first,) = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(series))
    other = first[:-1] + ("1" if first[-1] != "1" else "2")
    copied = (series / "1-001.dcm").read_bytes().replace(first.encode(), other.encode())
    (series / "other.dcm").write_bytes(copied)
    with pytest.raises(ValueError, match="series must be one of") as caught:
        files.read(series)
    assert first in str(caught.value)
    assert f"{other} (1 files)" in str(caught.value)
    assert files.read(series, series=first).GetSize() == (512, 512, 3)
    assert files.read(series, series=other).GetSize()[:2] == (512, 512)
    with pytest.raises(ValueError, match=r"got '1\.2\.3'"):
        files.read(series, series="1.2.3")


def test_unreadable_and_missing_slices_are_told(series):
    (series / "1-004.dcm").write_bytes((series / "1-003.dcm").read_bytes()[:2000])
    with pytest.warns(UserWarning, match=r"left out: 1-004\.dcm"):
        files.read(series)


def test_uneven_slices_are_told(series):
    # The last slice is moved from -89.00 to -80.00 mm, digit by digit as the file must keep its length.
    data = (series / "1-003.dcm").read_bytes()
    assert data.count(b"\\-89.000669002533") == 1
    (series / "1-003.dcm").write_bytes(data.replace(b"\\-89.000669002533", b"\\-80.000669002533"))
    with pytest.warns(UserWarning, match=r"slices are 1\.5 to 10\.5 mm apart"):
        files.read(series)


def test_a_folder_without_dicom(tmp_path):
    files.write(volume(), tmp_path / "a.nii")
    with pytest.raises(OSError, match="no DICOM images in this folder"):
        files.read(tmp_path)
    with pytest.raises(ValueError, match="series is for folders"):
        files.read(tmp_path / "a.nii", series="1.2.3")


def test_multi_frame_dicom(data_dir):
    assert files.header(data_dir / "enh.dcm").format == "DICOM"
    assert files.read(data_dir / "enh.dcm").GetSize() == (64, 64, 6)


# ----------------------------------------------------------------------------------------------- real volumes


@pytest.mark.filterwarnings("ignore:.*its sform .code 2. and qform", "ignore:.*has neither sform nor qform")
@pytest.mark.parametrize(
    ("name", "dimension", "pixel"),
    [
        ("pcasl.nii.gz", 4, "16-bit signed integer"),
        ("ct_perfusion.nii.gz", 3, "vector of 8-bit unsigned integer"),
        ("shear.nii.gz", 3, "32-bit float"),
        ("complex_image.nii.gz", 3, "complex of 32-bit float"),
        ("low_res.nii.gz", 3, "8-bit unsigned integer"),
    ],
)
def test_real_volumes_are_read_as_simpleitk_reads_them(data_dir, name, dimension, pixel):
    image, header = files.read(data_dir / name), files.header(data_dir / name)
    assert (image.GetDimension(), image.GetPixelIDTypeAsString()) == (dimension, pixel)
    assert (header.size, header.pixel_type, header.format) == (image.GetSize(), pixel, "NIfTI")
    assert_same(image, sitk.ReadImage(str(data_dir / name)))


@pytest.mark.filterwarnings("ignore:.*its sform .code 2. and qform", "ignore:.*has neither sform nor qform")
@pytest.mark.parametrize("name", ["pcasl.nii.gz", "shear.nii.gz", "RAS.nii.gz", "SAR.nii.gz", "FLAIR.nii.gz"])
@pytest.mark.parametrize("extension", [".nii", ".nrrd"])
def test_real_geometry_survives(data_dir, tmp_path, name, extension):
    image = files.read(data_dir / name)
    files.write(image, tmp_path / f"a{extension}")
    assert_same(files.read(tmp_path / f"a{extension}"), image)


def test_import_is_light():
    code = "import sys, gpuresample.files.volumes; sys.exit('SimpleITK' in sys.modules or 'typer' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_child_reads_though_another_thread_was_reading(tmp_path):
    """The switch of ITK's warnings is one per process; a child has none of the threads that turned it off."""
    path = tmp_path / "t.tfm"
    sitk.WriteTransform(sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), str(path))
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(True)
    begun, go_on = threading.Event(), threading.Event()

    def read():
        with files._quiet(), files._quiet_lock:
            begun.set()
            go_on.wait(60)

    thread = threading.Thread(target=read)
    thread.start()
    assert begun.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(20)  # which ends it
        transforms.read_transform(path)
        os._exit(sitk.ProcessObject.GetGlobalWarningDisplay() * 7)
    go_on.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    sitk.ProcessObject.SetGlobalWarningDisplay(before)


# --------------------------------------------------------------------------------------------------- TIFF


def tiff(path, order="<", big=False, bits=(16,), form=1, depth=None):
    """A picture of 2x2 voxels whose bytes are 1, 2, ..., in one strip."""
    voxels = bytes(range(1, 1 + 4 * sum(bits) // 8))
    word, head, size = ("Q", 16, 20) if big else ("I", 8, 12)
    tags = {256: [2], 257: [2], 258: bits, 259: [1], 262: [1], 273: [head], 277: [len(bits)], 278: [2],
            279: [len(voxels)], 339: [form] * len(bits)}  # fmt: skip
    if depth is not None:
        tags[32997] = [depth]
    room = struct.calcsize(word)
    behind = head + len(voxels)
    page, more = behind, b""
    after = page + struct.calcsize("Q" if big else "H") + size * len(tags) + room
    entries = b""
    for tag, numbers in sorted(tags.items()):
        content = struct.pack(f"{order}{len(numbers)}H", *numbers)
        if len(content) > room:
            more, content = more + content, struct.pack(f"{order}{word}", after + len(more))
        entries += struct.pack(f"{order}HH{word}", tag, 3, len(numbers)) + content.ljust(room, b"\0")
    first = struct.pack(
        f"{order}2sHHH" if big else f"{order}2sH", b"II" if order == "<" else b"MM", *([43, 8, 0] if big else [42])
    )
    count = struct.pack(f"{order}{'Q' if big else 'H'}", len(tags))
    path.write_bytes(first + struct.pack(f"{order}{word}", page) + voxels + count + entries + bytes(room) + more)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_tiff_that_itk_takes_for_another_is_refused(tmp_path, order, big):
    path = tmp_path / "a.tif"
    tiff(path, order, big)
    expected = np.frombuffer(bytes(range(1, 9)), f"{order}u2").reshape(2, 2)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(path)), expected)
    tiff(path, order, big, depth=1)
    assert files.read(path).GetSize() == (2, 2)
    for bits in [(16,), (16, 16, 16)]:
        tiff(path, order, big, bits=bits, form=3)
        with pytest.raises(OSError, match=r"a\.tif: holds floats of 16 bits.*; write 32 bits"):
            files.read(path)
        with pytest.raises(OSError, match="holds floats of 16 bits"):
            files.header(path)
    tiff(path, order, big, depth=5)
    with pytest.raises(OSError, match=r"a\.tif: holds 5 slices in one page"):
        files.read(path)
    tiff(path, order, big, bits=(32,), form=3)
    assert files.read(path).GetPixelID() == sitk.sitkFloat32


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("bool", "voxels of 1 times 1 bits"), ("planes", "voxels of 3 times 16 bits"), ("stack", "a stack of 6 images"),
        ("pages", ""), ("colours", ""), ("both", ""), ("floats", ""),
    ],
)  # fmt: skip
def test_tiffs_of_another_program(tmp_path, kind, reason):
    """What ITK would make a picture of, or read one slice of, is refused, and no other file."""
    tifffile = pytest.importorskip("tifffile")
    voxels = np.random.default_rng(0).integers(0, 60000, (6, 5, 4)).astype(np.uint16)
    path = tmp_path / "a.tif"
    match kind:
        case "bool":
            tifffile.imwrite(path, voxels > 30000)
        case "planes":
            tifffile.imwrite(path, voxels[:3], photometric="rgb", planarconfig="separate")
        case "stack":  # as ImageJ writes what is larger than 4 GB
            tifffile.imwrite(path, voxels[0], description="ImageJ=1.54f\nimages=6\nslices=6\n", metadata=None)
        case "pages":
            tifffile.imwrite(path, voxels, imagej=True)
        case "colours":
            voxels = np.moveaxis(voxels[:4], 0, -1)
            tifffile.imwrite(path, voxels, photometric="rgb", extrasamples=["unassalpha"])
        case "both":
            voxels = np.moveaxis(voxels[:4], 0, -1).astype(np.uint8)
            tifffile.imwrite(path, voxels, photometric="rgb", extrasamples=["unassalpha"])
        case "floats":
            voxels = voxels.astype(np.float32)
            tifffile.imwrite(path, voxels, bigtiff=True, photometric="minisblack")
    if reason:
        with pytest.raises(OSError, match=rf"a\.tif: (holds|is) {reason}"):
            files.read(path)
    else:
        np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(path)), voxels)


def test_tags_of_a_tiff_are_read_to_the_end_of_the_file(tmp_path):
    path = tmp_path / "a.tif"
    tiff(path, big=True, bits=(16,) * 20)
    content = path.read_bytes()
    page = struct.unpack_from("<Q", content, 8)[0]
    bits = content.index(struct.pack("<HHQ", tiffs.BITS, 3, 20)) + 12

    def damaged(at, number):
        return tiffs.Tiff(io.BytesIO(content[:at] + struct.pack("<Q", number) + content[at + 8 :]))

    assert damaged(0, struct.unpack_from("<Q", content)[0]).first(tiffs.BITS) == 16
    for at, number in [(page, 0), (page, 2**60), (page, 2**64 - 1), (8, 2**63), (8, 2**64 - 1), (bits, 2**64 - 1)]:
        one = damaged(at, number)
        assert one.is_complete(len(content)) == (at == bits)
        assert one.first(tiffs.BITS) == (16 if at == page and number else 0)
        assert one.text(tiffs.DESCRIPTION) == b""
        assert not one.has_pages(4)
