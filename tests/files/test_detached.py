"""Headers that name their data files: only those beside them, regular, as long as promised; else nothing is opened."""

import gzip
import os
import re
import struct
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from hypothesis import given
from hypothesis import strategies as st

from gpuresample.batch import records
from gpuresample.files import detached
from gpuresample.files import volumes as files

SIZE = (5, 4, 3)
IMAGE = volume(size=SIZE)
RAW = sitk.GetArrayFromImage(IMAGE).tobytes()
LAYER = len(RAW) // 3


@pytest.fixture
def folder(tmp_path):
    """Headers a.mhd and a.nhdr with a.raw, packed ones c.mhd (c.zraw) and c.nhdr (c.raw.gz), slices s0 to s2.raw."""
    root = tmp_path / "in"
    (root / "sub").mkdir(parents=True)
    for name in ("a.mhd", "a.nhdr", "a.mha", "a.nrrd"):
        sitk.WriteImage(IMAGE, str(root / name))
        sitk.WriteImage(IMAGE, str(root / f"c{name[1:]}"), True)
    for k in range(3):
        (root / f"s{k}.raw").write_bytes(RAW[LAYER * k : LAYER * (k + 1)])
    (root / "sub" / "a.raw").write_bytes(RAW)
    (tmp_path / "a.raw").write_bytes(RAW)
    return root


def changed(folder, header, old, new, name="x"):
    """A header with one thing changed, beside the whole one."""
    content = (folder / header).read_bytes()
    assert old.encode() in content
    path = folder / f"{name}{os.path.splitext(header)[1]}"
    path.write_bytes(content.replace(old.encode(), new.encode(), 1))
    return path


WHOLE = [
    ("a.mhd", "a.raw", "sub/a.raw"),
    ("a.mhd", "a.raw", "LIST\ns0.raw\ns1.raw\ns2.raw"),
    ("a.mhd", "a.raw", "LIST 2\ns0.raw\ns1.raw\ns2.raw"),
    ("a.mhd", "a.raw", "LIST\ns0.raw\ns1.raw  \ns2.raw\nmore.raw"),
    ("a.mhd", "a.raw", "s%d.raw 0 2 1"),
    ("a.mhd", "ElementDataFile = a.raw", "  ElementDataFile :  a.raw  "),
    ("a.mhd", "NDims", "Comment = ElementDataFile = /etc/passwd\nNDims"),
    ("a.mhd", "ElementDataFile", "HeaderSize = -1\nElementDataFile"),
    ("a.nhdr", "a.raw", "sub/a.raw"),
    ("a.nhdr", "a.raw", "LIST\ns0.raw\ns1.raw\ns2.raw"),
    ("a.nhdr", "a.raw", "s%d.raw 0 2 1"),
    ("a.nhdr", "data file", "Datafile"),
    ("a.nhdr", "data file", "# a comment\nmodality:=data file: /etc/passwd\ndata file"),
    ("c.mhd", "c.zraw", "c.zraw"),
    ("c.nhdr", "c.raw.gz", "c.raw.gz"),
    ("c.mha", "LOCAL", "LOCAL"),
    ("c.nrrd", "gzip", "gz"),
]


@pytest.mark.parametrize(("header", "old", "new"), WHOLE)
def test_what_is_beside_the_header_is_read(folder, header, old, new):
    path = changed(folder, header, old, new)
    assert sitk.GetArrayFromImage(files.read(path)).tobytes() == RAW
    assert files.header(path).size == SIZE


ELSEWHERE = [
    (header, name)
    for header in ("a.mhd", "a.nhdr")
    for name in ("{root}/a.raw", "../a.raw", "sub/../../a.raw", "LIST\n../a.raw\ns1.raw\ns2.raw",
                 "LIST\n{root}/a.raw\ns1.raw\ns2.raw", "../s%d.raw 0 2 1", "{root}/%d.raw 0 2 1", "-", "/dev/zero",
                 "/etc/passwd")
]  # fmt: skip


@pytest.mark.parametrize(("header", "name"), ELSEWHERE)
def test_what_is_elsewhere_is_not(folder, run, header, name):
    path = changed(folder, header, "a.raw", name.format(root=folder.parent))
    refused(run("info", path), 1, "is not in the header's folder")
    with pytest.raises(OSError, match="is not in the header's folder"):
        files.header(path)


def test_unless_it_is_asked_for(folder, run, monkeypatch):
    monkeypatch.setenv(detached.ANYWHERE, "0")
    for header in ("a.mhd", "a.nhdr"):
        path = changed(folder, header, "a.raw", "../a.raw")
        code, _, err = run(
            "resample", path, folder / f"{header}.nrrd", "--spacing", "0.8", "0.8", "1.5", "--data-anywhere"
        )
        assert code == 0, err
        monkeypatch.setenv(detached.ANYWHERE, "0")
        refused(run("info", path), 1, "--data-anywhere")


SHORT = [
    ("a.mhd", "a.raw", "short.raw", "the file ends early: 100 of 120 bytes"),
    ("a.mhd", "a.raw", "none.raw", "is not there"),
    ("a.mhd", "a.raw", "sub", "is not there"),
    ("a.mhd", "a.raw", "LIST\ns0.raw\ns1.raw", "names 2 data files, and asks for 3"),
    ("a.mhd", "a.raw", "LIST", "names 0 data files, and asks for 3"),
    ("a.mhd", "a.raw", "LIST 3\ns0.raw", "the file ends early"),
    ("a.mhd", "a.raw", "LIST 4\ns0.raw", "asks for 0"),
    ("a.mhd", "a.raw", "LIST\ns0.raw\ns1.raw\ntiny.raw", "the file ends early: 10 of 40 bytes"),
    ("a.mhd", "a.raw", "LISTING.raw", "names that begin with LIST"),
    ("a.mhd", "a.raw", "s%d.raw 0 1 1", "names 2 data files, and asks for 3"),
    ("a.mhd", "a.raw", "s%d.raw 0 3 2", "names 2 data files, and asks for 3"),
    ("a.mhd", "a.raw", "s%d.raw 0 2 0", "named by one number"),
    ("a.mhd", "a.raw", "s%d.raw", "named by one number"),
    ("a.mhd", "a.raw", "s%s.raw 0 2 1", "named by one number"),
    ("a.mhd", "a.raw", "s%n%d.raw 0 2 1", "named by one number"),
    ("a.mhd", "a.raw", "s%99999d.raw 0 2 1", "named by one number"),
    ("a.mhd", "ElementDataFile = a.raw\n", "", "names no data"),
    ("a.mhd", "a.raw", "", "names no data"),
    ("a.mhd", "ElementDataFile", "elementdatafile", "names no data"),
    ("a.mhd", "DimSize = 5 4 3", "DimSize = 5 4 4", "the file ends early"),
    ("a.mhd", "MET_SHORT", "MET_DOUBLE", "the file ends early"),
    ("a.mhd", "ElementDataFile", "ElementNumberOfChannels = 3\nElementDataFile", "the file ends early"),
    ("a.mhd", "ElementDataFile", "HeaderSize = 20\nElementDataFile", "the file ends early"),
    ("a.mha", "ElementDataFile = LOCAL", "", "names no data"),
    ("a.mha", "DimSize = 5 4 3", "DimSize = 5 4 4", "the file ends early"),
    ("c.mhd", "DimSize = 5 4 3", "DimSize = 5 4 4", "the file ends early: 120 of 160 bytes"),
    ("c.mha", "DimSize = 5 4 3", "DimSize = 5 4 4", "the file ends early: 120 of 160 bytes"),
    ("c.mha", "CompressedDataSize", "Other", "lacks CompressedDataSize"),
    ("c.mha", "CompressedDataSize = ", "CompressedDataSize = 9", "the header promises"),
    ("c.mha", "CompressedDataSize = ", "CompressedDataSize = 1 ", "damaged or end early"),
    ("c.mhd", "c.zraw", "flip.zraw", "damaged or end early"),
    ("a.mhd", "a.raw", "a.raw\0", "a zero byte"),
    ("c.mhd", "c.zraw", "LIST\ns0.raw\ns1.raw\ns2.raw", "in several files"),
    ("a.nhdr", "a.raw", "short.raw", "the file ends early"),
    ("a.nhdr", "a.raw", "none.raw", "is not there"),
    ("a.nhdr", "a.raw", "LIST", "names no data"),
    ("a.nhdr", "a.raw", "LIST\ns0.raw\ns1.raw\ntiny.raw", "the file ends early"),
    ("a.nhdr", "a.raw", "s%d%d.raw 0 2 1", "named by one number"),
    ("a.nhdr", "data file: a.raw\n", "", "names no data"),
    ("a.nhdr", "sizes: 5 4 3", "sizes: 5 4 4", "the file ends early"),
    ("a.nhdr", "data file", "byte skip: 20\ndata file", "the file ends early"),
    ("a.nrrd", "sizes: 5 4 3", "sizes: 5 4 4", "the file ends early"),
    ("c.nhdr", "sizes: 5 4 3", "sizes: 5 4 4", "the file ends early: 120 of 160 bytes"),
    ("c.nhdr", "c.raw.gz", "a.raw", "damaged or end early"),
]  # fmt: skip


@pytest.mark.parametrize(("header", "old", "new", "message"), SHORT)
def test_what_holds_less_than_the_header_says_is_refused(folder, run, header, old, new, message):
    (folder / "short.raw").write_bytes(RAW[:100])
    (folder / "tiny.raw").write_bytes(RAW[:10])
    packed = bytearray((folder / "c.zraw").read_bytes())
    packed[-1] ^= 1
    (folder / "flip.zraw").write_bytes(packed)
    refused(run("info", changed(folder, header, old, new)), 1, re.escape(message))


@pytest.mark.skipif(sys.platform != "linux", reason="pipes as on Linux")
@pytest.mark.parametrize("header", ["a.mhd", "a.nhdr", "a.hdr"])
def test_a_data_file_that_is_a_pipe_is_not_waited_for(folder, header):
    if header == "a.hdr":
        sitk.WriteImage(IMAGE, str(folder / "x.img"))
        path, name = folder / "x.hdr", "x.img"
        (folder / name).unlink()
    else:
        path, name = changed(folder, header, "a.raw", "odd"), "odd"
    os.mkfifo(folder / name)
    done = subprocess.run(
        [sys.executable, "-m", "gpuresample.cli", "info", path], capture_output=True, text=True, timeout=60,
        check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"its data file {name} is a named pipe" in done.stderr


def put(path, offset, code, value):
    """A header with one number changed."""
    content = bytearray(path.read_bytes())
    struct.pack_into(code, content, offset, value)
    path.write_bytes(content)


PAIRS = {
    "NIfTI": lambda path: sitk.WriteImage(IMAGE, str(path.with_suffix(".img"))),
    "Analyze": lambda path: nib.AnalyzeImage(VOXELS, np.eye(4)).to_filename(path),
    "Analyze, big endian": lambda path: nib.AnalyzeImage(
        VOXELS, np.eye(4), nib.AnalyzeHeader(endianness=">")
    ).to_filename(path),
    "NIfTI-2": lambda path: nib.Nifti2Pair(VOXELS, np.eye(4)).to_filename(path),
}
VOXELS = np.frombuffer(RAW, np.int16).reshape(SIZE[::-1]).T


@pytest.mark.parametrize("form", PAIRS)
@pytest.mark.parametrize("half", [".hdr", ".img"])
def test_pairs_of_files_are_read_whole_or_not_at_all(tmp_path, form, half):
    path = tmp_path / "x.hdr"
    PAIRS[form](path)
    given_by, voxels = path.with_suffix(half), path.with_suffix(".img")
    if form != "NIfTI-2":  # ITK reads none
        assert np.array_equal(
            np.sort(sitk.GetArrayFromImage(files.read(given_by)), axis=None), np.sort(VOXELS, axis=None)
        )
    order = ">" if "big" in form else "<"
    at, code, bits = (24, "q", 14) if form == "NIfTI-2" else (42, "h", 72)
    whole, header = voxels.read_bytes(), path.read_bytes()
    for cut in (0, 1, len(whole) // 2, len(whole) - 1):
        voxels.write_bytes(whole[:cut])
        with pytest.raises(OSError, match=r"ends early: .* bytes of voxels in x.img"):
            files.read(given_by)
    voxels.write_bytes(whole)
    for where, value in ((at, 6), (at + 2 * struct.calcsize(code), 400), (bits, 64)):
        put(path, where, order + (code if where != bits else "h"), value)
        with pytest.raises(OSError, match="ends early"):
            files.read(given_by)
        path.write_bytes(header)
    voxels.unlink()
    with pytest.raises(OSError, match=r"not there|no such file"):
        files.read(given_by)


@pytest.mark.parametrize("half", [".hdr.gz", ".img.gz"])
def test_packed_pairs_of_files_are_read_whole_or_not_at_all(tmp_path, half):
    sitk.WriteImage(IMAGE, str(tmp_path / "x.img.gz"))
    path, voxels, header = tmp_path / f"x{half}", tmp_path / "x.img.gz", tmp_path / "x.hdr.gz"
    assert np.array_equal(sitk.GetArrayFromImage(files.read(path)), sitk.GetArrayFromImage(IMAGE))
    for wrong in (gzip.compress(RAW[:-1]), voxels.read_bytes()[:-9], RAW, gzip.compress(b"")):
        voxels.write_bytes(wrong)
        with pytest.raises(OSError, match=r"end early|ends early|damaged"):
            files.read(path)
    sitk.WriteImage(IMAGE, str(voxels))
    for wrong in (b"", header.read_bytes()[:30], b"no gzip"):
        header.write_bytes(wrong)
        with pytest.raises(OSError, match=r"x\.(hdr|img)\.gz: "):
            files.read(path)


def test_an_input_is_all_of_its_files(folder):
    assert records.parts(folder / "a.mhd") == [folder / "a.mhd", folder / "a.raw"]
    path = changed(folder, "a.nhdr", "a.raw", "LIST\ns0.raw\ns1.raw\ns2.raw")
    assert records.parts(path) == [path, *(folder / f"s{k}.raw" for k in range(3))]
    assert records.parts(folder / "a.mha") == [folder / "a.mha"]


@given(st.data())
def test_a_drawn_header_reads_its_own_file_or_none(tmp_path_factory, data):
    """Lines left out, doubled, put elsewhere, cut: what is read without an error is the volume."""
    folder = tmp_path_factory.mktemp("drawn")
    name = data.draw(st.sampled_from(["a.mhd", "a.nhdr"]))
    sitk.WriteImage(IMAGE, str(folder / name))
    lines = (folder / name).read_bytes().splitlines(keepends=True)
    fixed = (b"DimSize", b"ElementType", b"sizes", b"type", b"NDims", b"dimension", b"Binary", b"endian", b"#", b"NRRD")
    k = data.draw(st.sampled_from([k for k, line in enumerate(lines) if not line.startswith(fixed)]))
    how = data.draw(st.sampled_from(["out", "twice", "end", "cut"]))
    line = lines.pop(k)
    lines[k:k] = {"twice": [line, line], "cut": [line[: data.draw(st.integers(0, len(line)))]]}.get(how, [])
    (folder / name).write_bytes(b"".join(lines + ([line] if how == "end" else [])))
    try:
        image = files.read(folder / name)
    except OSError:
        return
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(IMAGE))
