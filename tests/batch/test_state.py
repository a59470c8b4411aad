"""What runs leave for later runs, damaged in any way; locks that are not to be had; a library that dies writing."""

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import warnings
import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import volume
from hypothesis import given
from hypothesis import strategies as st

import gpuresample as gr
from gpuresample.files import disk
from gpuresample.files import volumes as files

pytest.importorskip("distributed", reason="batches are the extra gpuresample[batch]")
from gpuresample.batch import records
from gpuresample.omezarr.unfinished import unfinished

DONE = {"kind": "done", "name": "a", "input": {"stamp": [1, 2], "hash": "00"}}
ODD = [
    b"", b"\n", b"null", b"[]", b'"kind"', b"{}", b"\xff\xfe", b"\0" * 4096, b"[" * 100_000, b"9" * 10_000,
    b'{"kind":"done","name":"a"}', b'{"kind":"done","name":"a","crc":"00000000"}', b'{"kind":["done"],"name":"a"}',
    b'{"kind":"done","name":{"a":1}}', b'{"name":"a","kind":"done","input":7,"output":"x"}',
]  # fmt: skip


# A batch's journal


@pytest.mark.parametrize("odd", ODD)
def test_odd_lines_of_a_journal_count_as_not_there(tmp_path, odd):
    (tmp_path / "journal.jsonl").write_bytes(odd + b"\n" + records._line(DONE) + odd)
    journal = records.Journal(tmp_path)
    assert journal.last == {"a": DONE}
    journal.add([{"kind": "failed", "name": "b"}])
    journal.close()
    journal = records.Journal(tmp_path)
    journal.close()
    assert journal.last == {"a": DONE, "b": {"kind": "failed", "name": "b"}}


@given(st.integers(0, 2**32))
def test_a_journal_with_damage_has_true_records_only(tmp_path_factory, seed):
    folder, draw = tmp_path_factory.mktemp("journal"), random.Random(seed)
    written = [{"kind": "done", "name": str(k), "reason": "x" * k, "stamp": [k, 10**k]} for k in range(8)]
    content = bytearray(b"".join(map(records._line, written)))
    for _ in range(draw.randint(1, 5)):
        k = draw.randrange(len(content))
        match draw.randrange(4):
            case 0:
                content[k] ^= 1 << draw.randrange(8)
            case 1:
                del content[k : k + draw.randrange(1, 40)]
            case 2:
                content[k:k] = draw.randbytes(draw.randrange(1, 40))
            case 3:
                content[k : k + 16] = bytes(len(content[k : k + 16]))
    (folder / "journal.jsonl").write_bytes(content)
    journal = records.Journal(folder)
    journal.close()
    assert all(record in written for record in journal.last.values())


@pytest.mark.parametrize("odd", ODD)
def test_an_odd_owner_is_none(tmp_path, odd):
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "owner.json").write_bytes(odd)
    with records.locked(folder) as note:
        assert note == ""


# A pyramid under way


WORDS = {"levels": 2, "chunks": (8, 16, 32), "shards": False}


def voxels():
    return gr.Volume(np.random.default_rng(0).integers(0, 999, (24, 32, 64)).astype(np.int16), (1, 1, 1))


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A folder with what is left of a pyramid that is stopped after half of its units."""
    pytest.importorskip("zarr")
    from gpuresample.omezarr import layout, writer

    folder, told = tmp_path_factory.mktemp("half"), []

    class Stop(Exception):
        pass

    def stop(*words):
        told.append(words)
        if len(told) == 6:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "UNIT", 8 << 10)  # many small units
        with pytest.raises(Stop):
            writer.write_pyramid(voxels(), folder / "p.ome.zarr", **WORDS, progress=stop)
    assert os.listdir(folder) == [".p.ome.zarr.partial"]
    assert (folder / ".p.ome.zarr.partial" / "job.json").is_file()
    return folder


def continued(halfway, tmp_path, steps=None, job=None):
    """The levels' voxels of that pyramid, finished after its state was changed."""
    from gpuresample.omezarr import layout, writer

    shutil.copytree(halfway, tmp_path, dirs_exist_ok=True)
    for name, change in (("steps", steps), ("job.json", job)):
        if change is not None:
            change(tmp_path / ".p.ome.zarr.partial" / name)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.setattr(layout, "UNIT", 8 << 10)
        warnings.simplefilter("ignore", RuntimeWarning)
        writer.write_pyramid(voxels(), tmp_path / "p.ome.zarr", **WORDS)
    return [np.asarray(level.array) for level in writer.opened_levels(tmp_path / "p.ome.zarr")]


@pytest.fixture(scope="module")
def expected():
    return [level.array for level in gr.pyramid(voxels(), 2)]


def folder_instead(path):
    path.unlink()
    path.mkdir()


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def digit(path):
    """A step that was not done, in place of one that was: its numbers are plausible."""
    lines = path.read_bytes().splitlines(keepends=True)
    words = lines[3].split(b" ")
    words[1] = b"2"
    path.write_bytes(b"".join([*lines[:3], b" ".join(words), *lines[4:], b"0 4 2 1 00000000\n", b"0 4 2 1\n"]))


DAMAGE = [lambda p, odd=odd: p.write_bytes(odd) for odd in ODD] + [folder_instead, pipe_instead]


@pytest.mark.parametrize("damage", [lambda p: None, digit, *DAMAGE])
def test_damaged_steps_are_made_again(tmp_path, halfway, expected, damage):
    got = continued(halfway, tmp_path, damage)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("damaged", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize(
    "odd", [None, b"", b"{}", b"\xff", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}']
)
def test_damaged_metadata_is_written_again(tmp_path, halfway, expected, damaged, odd):
    def damage(steps):
        path = steps.with_name("result") / damaged
        path.unlink()
        if odd is not None:
            path.write_bytes(odd)

    got = continued(halfway, tmp_path, damage)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_job_begins_anew(tmp_path, halfway, expected, damage):
    got = continued(halfway, tmp_path, None, damage)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


def begun(folder, known=(), marked=()):
    """A folder that is left unfinished, once `known` was found done and `marked` was done."""
    with contextlib.suppress(ZeroDivisionError), unfinished(folder / "t", {}) as work:
        assert all(map(work.done, known))
        assert not any(map(work.done, marked))
        for step in marked:
            work.mark(step)
        raise ZeroDivisionError


def test_good_steps_are_not_made_again(tmp_path):
    begun(tmp_path, marked=[(0, 1, 2), (0, 1, 3)])
    steps, text = tmp_path / ".t.partial" / "steps", b"0 1 2"
    assert steps.read_bytes().splitlines()[0] == text + f" {zlib.crc32(text):08x}".encode()
    steps.write_bytes(steps.read_bytes()[:-4])
    begun(tmp_path, known=[(0, 1, 2)], marked=[(0, 1, 3), (0, 1, 4)])
    begun(tmp_path, known=[(0, 1, 2), (0, 1, 3), (0, 1, 4)])


# Locks


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EIO])
def test_a_file_system_without_locks_is_no_other_batch(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = tmp_path / "p"
    folder.mkdir()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with records.locked(folder) as note:
            assert note == ""
            # Without locks the note tells of a run that goes on.
            with pytest.raises(BlockingIOError, match=f"process {os.getpid()}"):
                records.locked(folder).__enter__()
        gone = {"pid": 2**22 + 1, "host": socket.gethostname(), "since": "then"}
        (folder / "owner.json").write_text(json.dumps(gone))
        with records.locked(folder) as note:
            assert "was cut off" in note
        begun(tmp_path, marked=[(1,)])
        begun(tmp_path, known=[(1,)])
    assert len(caught) == 5
    assert all(w.category is RuntimeWarning and "cannot be locked here" in str(w.message) for w in caught)


@pytest.mark.parametrize("number", [errno.EWOULDBLOCK, errno.EACCES])
def test_a_lock_that_is_taken_is_another_batch(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    assert disk.lock(tmp_path / "lock") is None


# HDF5: the library ends its process where the disk refuses. A stand-in does what it was seen to do.

DIES = (
    "import os, pickle, sys; image, path = pickle.load(sys.stdin.buffer)\n"
    "open(path, 'wb').write(b'half')\n"
    "sys.stderr.write('file write failed, errno = {number}, error message')\n"
    "os.kill(os.getpid(), {signal})"
)


@pytest.mark.parametrize(
    ("ending", "number", "how"),
    [
        (".h5", errno.ENOSPC, signal.SIGABRT), (".h5", errno.EFBIG, signal.SIGABRT), (".h5", errno.EIO, signal.SIGABRT),
        (".h5", errno.EDQUOT, signal.SIGSEGV), (".hdf5", errno.EROFS, signal.SIGABRT),
        (".hdf5", errno.ENOSPC, signal.SIGSEGV),
    ],
)  # fmt: skip
def test_a_writer_that_dies_leaves_nothing_and_the_reason(tmp_path, monkeypatch, ending, number, how):
    monkeypatch.setattr(files, "_WRITER", DIES.format(number=number, signal=int(how)))
    target = tmp_path / f"a{ending}"
    with pytest.raises(OSError, match=f"a{ending}: cannot be written: {os.strerror(number)}") as caught:
        files.write(volume(), target)
    assert caught.value.errno == number
    assert os.listdir(tmp_path) == []


def test_a_writer_that_dies_without_a_word_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_WRITER", "import os; os._exit(3)")
    with pytest.raises(OSError, match="its writer ended with code 3"):
        files.write(volume(), tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


def test_the_writer_imports_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "SimpleITK.py").write_text("raise SystemExit('from the current folder')")
    (tmp_path / "pickle.py").write_text("raise SystemExit('from the current folder')")
    monkeypatch.chdir(tmp_path)
    files.write(volume(), tmp_path / "a.h5")
    assert np.array_equal(sitk.GetArrayFromImage(files.read(tmp_path / "a.h5")), sitk.GetArrayFromImage(volume()))
