"""Whatever an image looks like in memory or a file looks like on disk: the right answer, or one clear line.

The cases are made by hypothesis in a child process (`fuzz_child.py`): where native code ends the process, that is a
failed test which names the case.
"""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from support import noise, same_bits

import gpuresample as gr
from gpuresample.files import volumes as files

pytest.importorskip("typer", reason="the command line is the extra gpuresample[cli]")

HERE = Path(__file__).parent


def fuzzed(kind, examples, folder, timeout):
    done = subprocess.run(
        [sys.executable, str(HERE / "fuzz_child.py"), kind, str(examples), str(folder)],
        capture_output=True, text=True, timeout=timeout, check=False, cwd=HERE,
    )  # fmt: skip
    case = folder / "case.txt"
    last = case.read_text() if case.exists() else "none began"
    assert done.returncode == 0, f"exit code {done.returncode} in the case {last}\n{done.stderr[-6000:]}"
    assert done.stdout.splitlines()[-1] == "done"


def test_layouts_and_geometries(tmp_path):
    fuzzed("layouts", 150, tmp_path, 600)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are asked of Linux")
def test_damaged_files(tmp_path):
    fuzzed("headers", 120, tmp_path, 600)


@pytest.mark.slow
def test_many_more_of_both(tmp_path):
    for kind in ("layouts", "headers"):
        (tmp_path / kind).mkdir()
        fuzzed(kind, 5000, tmp_path / kind, 7200)


def test_a_crash_names_its_case(tmp_path):
    (tmp_path / "case.txt").write_text("the last one")
    with pytest.raises(AssertionError, match="in the case the last one"):
        fuzzed("no such kind", 1, tmp_path, 60)


# --- what the fuzzing found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)], ids=str)
@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_the_layout_changes_no_bit_of_two_taps_by_two(order, dtype):
    """Two taps along two axes are one sweep where rows have no gaps: layouts of other rows must round alike."""
    plain = noise((20, 33, 40), dtype)
    back = np.argsort(order)
    view = np.ascontiguousarray(plain.transpose(order)).transpose(back)
    options = {"spacing": (1.3, 1.2, 0.9), "interpolation": "linear", "dtype": "float32" if dtype == "int16" else None}
    assert same_bits(gr.resample(view, **options), gr.resample(plain, **options))


@pytest.mark.parametrize("number", ["-1", "0", "11", "99999", "3.5", "x", ""])
def test_metaimage_of_impossible_dimensions(number, tmp_path, run):
    """ITK's reader ends the process on some of these."""
    path = tmp_path / "a.mha"
    files.write(volume(), path)
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", b"NDims = " + number.encode()))
    with pytest.raises(OSError, match=f"NDims must be 1 to 10, got {re.escape(number) or 'nothing'}"):
        files.read(path)
    refused(run("info", path), 1, "the header is damaged")
    refused(run("resample", path, tmp_path / "out.nii", "--spacing", "2"), 1, "the header is damaged")


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf])
def test_nifti_of_impossible_offset(offset, tmp_path):
    path = tmp_path / "a.nii"
    files.write(volume(), path)
    content = bytearray(path.read_bytes())
    content[108:112] = np.float32(offset).tobytes()
    path.write_bytes(content)
    with pytest.raises(OSError, match=rf"a\.nii: .*(vox_offset is {offset}|cannot be read)"):
        files.read(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_headers_that_promise_gigabytes_are_refused_before_memory_is_made(name, tmp_path, monkeypatch):
    path = tmp_path / name
    large = sitk.Image([2, 2, 2], sitk.sitkInt16)
    files.write(large, path)
    monkeypatch.setattr(sitk.ImageFileReader, "GetSize", lambda reader: (30_000, 30_000, 300), raising=False)
    monkeypatch.setattr(files, "_executed", lambda reader, check: pytest.fail("ITK was asked for the voxels"))
    with pytest.raises(OSError, match="it asks for 540,000,000,000 bytes of voxels"):
        files.read(path)
