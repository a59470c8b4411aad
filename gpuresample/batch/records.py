"""What a batch has done, so that a run after it can tell: a journal that only grows, and a lock on the folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import time
import warnings
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpuresample.files import detached, disk
from gpuresample.files import volumes as files

Record = dict[str, Any]

_BLOCK = 1 << 20
# Held back at the start, given up when the disk is full, so that what was done can still be noted.
_RESERVE = 1 << 19


def parts(path: Path) -> list[Path]:
    """The files that a volume is made of: one, a header and its voxels, or all files of a folder."""
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))
    return detached.parts(path)


def stamp(path: Path) -> list[int]:
    """Size in bytes, and time of the last change in ns, of all files of a volume together."""
    stats = [p.stat() for p in parts(path)]
    return [sum(s.st_size for s in stats), max((s.st_mtime_ns for s in stats), default=0)]


def content(path: Path) -> str:
    """BLAKE2b of all files of a volume: 16 bytes as hexadecimal digits."""
    whole = hashlib.blake2b(digest_size=16)
    several = path.is_dir()
    for part in parts(path):
        if several:
            whole.update(os.fsencode(part.name) + b"\0")
        with open(part, "rb") as file:
            while block := file.read(_BLOCK):
                whole.update(block)
    return whole.hexdigest()


def is_same(path: Path, then: Record, certain: bool = False) -> bool:
    """Whether a file is what a record says: by size and time of change, by content where these differ.

    Parameters
    ----------
    path : Path
        Of a file or a folder.
    then : dict
        `stamp` and `hash` of the record.
    certain : bool
        Look at the content in any case.
    """
    try:
        now = stamp(path)
        if now[0] != then["stamp"][0]:
            return False
        return (now == then["stamp"] and not certain) or content(path) == then["hash"]
    except (OSError, KeyError, TypeError, IndexError):
        return False


class Journal:
    """Records as lines of JSON, each brought to disk before the run goes on; the last one of an output counts.

    Each line ends with its checksum: one that was cut short by a kill, or damaged, counts as not there. Kinds of
    records: "begin" (an output is about to be written: it is the batch's own), "done", "failed".

    Attributes
    ----------
    last : dict
        The last "done" or "failed" record of each output, by name.
    begun : set
        Names of outputs that are or were the batch's own.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.jsonl"
        self.last: dict[str, Record] = {}
        self.begun: set[str] = set()
        self._reserve = folder / "reserve"
        self._lines = 0
        self._unwritten = b""
        self._read()
        if self._lines > 2 * len(self.begun) + 1000:
            self._rewrite()
        self._file: IO[bytes] = open(self.path, "ab", buffering=0)  # noqa: SIM115
        self._end_line()
        with contextlib.suppress(OSError):
            self._reserve.write_bytes(b"\0" * _RESERVE)

    def add(self, records: Iterable[Record], sync: bool = True) -> None:
        """Write records.

        Raises
        ------
        OSError
            If they cannot be written, even with the room that was held back. They are kept, and written with the next.
        """
        for record in records:
            self._unwritten += _line(record)
            self._note(record)
        try:
            self._flush(sync)
        except OSError:
            # The disk is full: what was held back for this is given up.
            self._reserve.unlink(missing_ok=True)
            self._flush(sync)

    def close(self) -> None:
        """Give back what is held."""
        self._file.close()
        self._reserve.unlink(missing_ok=True)

    def _flush(self, sync: bool) -> None:
        while self._unwritten:
            written = self._file.write(self._unwritten)
            self._unwritten = self._unwritten[written or 0 :]
        if sync:
            os.fsync(self._file.fileno())

    def _note(self, record: Record) -> None:
        name = record.get("name")
        if isinstance(name, str):
            self.begun.add(name)
            if record.get("kind") in ("done", "failed"):
                self.last[name] = record
            else:
                # From here on the output may be the old one or the new one.
                self.last.pop(name, None)

    def _read(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                self._lines += 1
                record = _record(line)
                if record is not None:
                    self._note(record)

    def _end_line(self) -> None:
        with open(self.path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size:
                file.seek(size - 1)
                if file.read(1) != b"\n":
                    self._unwritten = b"\n"

    def _rewrite(self) -> None:
        """Leave out what later records replace."""
        with files.replacing(self.path) as partial, open(partial, "wb") as file:
            for name in sorted(self.begun):
                file.write(_line(self.last.get(name, {"kind": "begin", "name": name})))


def _line(record: Record) -> bytes:
    """A record as a line of JSON whose last entry is the checksum of what comes before."""
    text = json.dumps(record, separators=(",", ":")).encode()[:-1]
    return text + f',"crc":"{zlib.crc32(text):08x}"}}\n'.encode()


def _record(line: bytes) -> Record | None:
    """The record of a line; None if the line is not as it was written."""
    found = re.fullmatch(rb'(\{.*),"crc":"([0-9a-f]{8})"\}\n', line, re.DOTALL)
    if found is None or zlib.crc32(found[1]) != int(found[2], 16):
        return None
    record: Record = json.loads(found[1] + b"}")
    return record


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[str]:
    """The folder for one run alone; yields a note about a run that ended without giving it back, or nothing.

    Raises
    ------
    BlockingIOError
        If another run works on it, with its process and machine.

    Warns
    -----
    RuntimeWarning
        If the file system has no locks: then only the note of a run that still goes on keeps others out.
    """
    owner = folder / "owner.json"
    lock: int | None = -1
    try:
        lock = disk.lock(folder / "lock")
    except disk.NoLocksError as error:
        warnings.warn(f"{folder.parent}: {error}; start no second batch on it", RuntimeWarning, stacklevel=4)
    if lock is None or (lock < 0 and _goes_on(_owner(owner))):
        raise BlockingIOError(f"{folder.parent}: another batch works on this folder ({_named(_owner(owner))})")
    try:
        before = _owner(owner)
        # Locks of some network file systems hold on one machine only.
        if before and before.get("host") != socket.gethostname():
            raise BlockingIOError(
                f"{folder.parent}: a batch on another machine has not given this folder back ({_named(before)}); "
                f"if it no longer runs, remove {owner}"
            )
        now = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        owner.write_text(json.dumps(now))
        try:
            yield f"the run before this one was cut off ({_named(before)})" if before else ""
        finally:
            owner.unlink(missing_ok=True)
    finally:
        if lock >= 0:
            os.close(lock)


def _goes_on(owner: Record) -> bool:
    """Whether the process of a note runs on this machine."""
    if owner.get("host") != socket.gethostname() or owner["pid"] <= 0:
        return False
    try:
        os.kill(owner["pid"], 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


def _owner(path: Path) -> Record:
    try:
        owner = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    known = isinstance(owner, dict) and isinstance(owner.get("host"), str) and isinstance(owner.get("pid"), int)
    return owner if known else {}


def _named(owner: Record) -> str:
    if not owner:
        return "its process is not known"
    return f"process {owner.get('pid')} on {owner.get('host')}, since {owner.get('since')}"


def remove_partials(targets: Iterable[str]) -> int:
    """Remove what killed runs have left half-written beside these outputs; returns how many files."""
    folders: dict[str, set[str]] = {}
    for target in targets:
        folder, name = os.path.split(target)
        folders.setdefault(folder, set()).add(name)
    removed = 0
    for folder, names in folders.items():
        with contextlib.suppress(OSError):
            for entry in os.listdir(folder):
                if ".partial" in entry and any(files.is_partial_of(entry, name) for name in names):
                    Path(folder, entry).unlink(missing_ok=True)
                    removed += 1
    return removed
