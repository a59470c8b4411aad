"""What runs leave for later runs, damaged in any way; locks that are not to be had; a library that dies writing."""

import contextlib
import errno
import fcntl
import json
import os
import random
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


def pyramid(tmp_path, steps=None, job=None):
    """The levels' voxels of a pyramid whose state is changed after half of its units."""
    from gpuresample.omezarr import layout, writer

    image = gr.Volume(np.random.default_rng(0).integers(0, 999, (24, 32, 64)).astype(np.int16), (1, 1, 1))
    target, told = tmp_path / "p.ome.zarr", []

    class Stop(Exception):
        pass

    def stop(*words):
        told.append(words)
        if steps is not None and len(told) == 6:
            raise Stop

    words = {"levels": 2, "chunks": (8, 16, 32), "shards": False}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "UNIT", 8 << 10)  # many small units
        with contextlib.suppress(Stop):
            writer.write_pyramid(image, target, **words, progress=stop)
        if steps is None:
            return [np.asarray(level.array) for level in writer.opened_levels(target)]
        assert not target.exists()
        state = tmp_path / ".p.ome.zarr.partial"
        assert (state / "job.json").is_file()
        for name, change in (("steps", steps), ("job.json", job)):
            if change is not None:
                change(state / name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            writer.write_pyramid(image, target, **words)
    return [np.asarray(level.array) for level in writer.opened_levels(target)]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    pytest.importorskip("zarr")
    return pyramid(tmp_path_factory.mktemp("whole"))


def folder_instead(path):
    path.unlink()
    path.mkdir()


def pipe_instead(path):
    path.unlink()
    os.mkfifo(path)


def digit(path):
    """Another step than was done: its numbers are plausible."""
    lines = path.read_bytes().splitlines(keepends=True)
    words = lines[3].split(b" ")
    words[3] = b"0" if words[3] != b"0" else b"1"
    path.write_bytes(b"".join([*lines[:3], b" ".join(words), *lines[4:], b"0 4 2 1 00000000\n", b"0 4 2 1\n"]))


DAMAGE = [lambda p, odd=odd: p.write_bytes(odd) for odd in ODD] + [folder_instead, pipe_instead]


@pytest.mark.parametrize("damage", [lambda p: None, digit, *DAMAGE])
def test_damaged_steps_are_made_again(tmp_path, expected, damage):
    pytest.importorskip("zarr")
    got = pyramid(tmp_path, damage)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("damaged", ["zarr.json", "0/zarr.json"])
@pytest.mark.parametrize(
    "odd", [None, b"", b"{}", b"\xff", b'{"zarr_format": 3, "node_type": "group", "attributes": {}}']
)
def test_damaged_metadata_is_written_again(tmp_path, expected, damaged, odd):
    pytest.importorskip("zarr")

    def damage(steps):
        path = steps.with_name("result") / damaged
        path.unlink()
        if odd is not None:
            path.write_bytes(odd)

    got = pyramid(tmp_path, damage)
    assert all(np.array_equal(a, b) for a, b in zip(expected, got, strict=True))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_job_begins_anew(tmp_path, expected, damage):
    pytest.importorskip("zarr")
    got = pyramid(tmp_path, lambda p: None, damage)
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


@pytest.mark.parametrize("ending", [".h5", ".hdf5"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("how", [signal.SIGABRT, signal.SIGSEGV])
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
