"""Names of files that are not UTF-8, and names that are while Python's own encoding of names is another."""

import csv
import os
import shutil
import subprocess
import sys

import pytest
import SimpleITK as sitk
from cli_support import refused, volume
from hypothesis import given
from hypothesis import strategies as st

from gpuresample import texts
from gpuresample.files import volumes as files

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names that are any bytes, as on Linux")

# Latin-1, a cut sequence, a stray continuation, UTF-16's halves, an overlong slash, beyond Unicode.
BAD = [b"v\xff", b"\xe9t\xe9", b"cut\xc3", b"\x80", b"half\xed\xa0\x80", b"\xc0\xaf", b"\xf5\x80\x80\x80"]
# Legal, and for ever typed wrong: accents in both forms, other scripts, a surrogate pair's worth, a right-to-left mark.
GOOD = ["é", "u\u0308", "脳 CT", "мозг", "🧠", "a\u200fb", "ß%20&<b>"]


def named(folder, name):
    """The path of a file by its name's bytes."""
    return folder / (os.fsdecode(name) + ".nii.gz")


@pytest.fixture
def whole(tmp_path):
    path = tmp_path / "whole.nii.gz"
    sitk.WriteImage(volume(), str(path))
    return path


@pytest.mark.parametrize("name", BAD)
def test_the_single_commands_refuse_such_a_name(tmp_path, whole, run, name):
    path = named(tmp_path, name)
    shutil.copy(whole, path)
    shown = "must be valid UTF-8"
    refused(run("resample", path, tmp_path / "out.nii.gz", "--spacing", "2"), 2, shown)
    refused(run("resample", whole, named(tmp_path, b"o" + name), "--spacing", "2"), 2, shown)
    refused(run("resample", whole, tmp_path / "out.nii.gz", "--like", path), 2, shown)
    refused(run("resample", whole, tmp_path / "out.nii.gz", "--transform", path), 2, shown)
    refused(run("info", path), 2, shown)
    refused(run("pyramid", whole, tmp_path / os.fsdecode(name)), 2, shown)
    refused(run("batch", tmp_path, tmp_path / os.fsdecode(name), "--spacing", "2"), 2, shown)
    refused(run("blur", path, tmp_path / "out.nii.gz", "--sigma", "1"), 2, shown)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([whole.name, path.name])


@pytest.mark.parametrize("name", BAD)
def test_the_functions_refuse_such_a_name(tmp_path, whole, name):
    path = named(tmp_path, name)
    shutil.copy(whole, path)
    for call in (files.read, files.header, lambda p: files.write(sitk.ReadImage(str(whole)), p, True)):
        with pytest.raises(ValueError, match="must be valid UTF-8"):
            call(path)
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    with pytest.raises(ValueError, match="must be valid UTF-8"):
        files.read(folder)


def test_a_batch_goes_on_and_reports(tmp_path, whole, scheduler, run):
    pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
    (tmp_path / "in").mkdir()
    for name in (*BAD, *map(os.fsencode, GOOD)):
        shutil.copy(whole, named(tmp_path / "in", name))
    out = tmp_path / "out"
    words = ("batch", tmp_path / "in", out, "--spacing", "2", "--scheduler", scheduler)
    for state in ("done", "as before"):
        code, said, err = run(*words)
        assert code == 1, err
        assert f"{len(GOOD)} {state}, {len(BAD)} failed" in said
        assert r"v\xff.nii.gz: the name must be valid UTF-8" in err
        with open(out / "report.csv", encoding="utf-8", newline="") as file:
            rows = {row["output"]: row for row in csv.DictReader(file)}
        assert {rows[name + ".nii.gz"]["state"] for name in GOOD} == {state}
        assert rows[r"v\xff.nii.gz"]["state"] == "failed"
        page = (out / "report.html").read_text(encoding="utf-8")
        assert r"v\xff.nii.gz" in page
        assert "мозг.nii.gz" in page
    assert sorted(p.name for p in out.glob("*.nii.gz")) == sorted(n + ".nii.gz" for n in GOOD)


def test_lists_and_tables_name_such_files(tmp_path, whole):
    pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
    from gpuresample.batch import inputs
    from gpuresample.files.job import Settings

    paths = [named(tmp_path, name) for name in (*BAD, *map(os.fsencode, GOOD))]
    for path in paths:
        shutil.copy(whole, path)
    names = [os.fsencode(path.name) for path in paths]
    (tmp_path / "list").write_bytes(b"\n".join(names))
    (tmp_path / "t.csv").write_bytes(b"input,output\n" + b"".join(n + b",o/" + n + b"\n" for n in names))
    for word in ({"listing": tmp_path / "list"}, {"table": tmp_path / "t.csv"}):
        made = inputs.items(tmp_path, tmp_path / "out", Settings(spacing=2.0), **word)
        assert [item.source for item in made] == [str(p) for p in paths]


LOCALES = [
    {"LC_ALL": "C"},
    {"LC_ALL": "POSIX"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"},
]


@pytest.mark.parametrize("more", LOCALES)
def test_names_with_accents_in_the_c_locale(tmp_path, whole, more):
    """Without UTF-8 Python takes names for ASCII, and accents for bytes that it has no letters for."""
    paths = [named(tmp_path, name.encode()) for name in GOOD]
    for path in paths:
        shutil.copy(whole, path)
    code = (
        "import os, sys, pathlib\n"
        "from gpuresample.cli import main\n"
        "for path in sys.argv[1:]:\n"
        "    out = pathlib.Path(path).with_suffix('.out.nii.gz')\n"
        "    for words in (['resample', path, str(out), '--spacing', '2'], ['info', path], ['info', path, '--json']):\n"
        "        code = main(words)\n"
        "        if code: sys.exit(f'{words}: {code}'.encode('ascii', 'backslashreplace').decode())\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONUTF8"))} | more
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], env=environment, capture_output=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    made = {p.name for p in tmp_path.iterdir()}
    assert made >= {name + ".nii.out.nii.gz" for name in GOOD}


@given(st.binary(max_size=12), st.text(st.characters(), max_size=6))
def test_any_name_can_be_shown(raw, text):
    shown = texts.printable(os.fsdecode(raw) + text)
    assert shown.encode("utf-8").decode() == shown
    try:
        assert texts.printable(os.fsdecode(raw)) == raw.decode()
    except UnicodeDecodeError:
        assert "\\x" in shown
