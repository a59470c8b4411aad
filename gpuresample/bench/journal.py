"""What a run has measured so far, on disk after every group of rows: a run that was stopped goes on from it."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuresample.files import disk

NAME = "journal.jsonl"
NO_LOCK = -1
PACKAGE = Path(__file__).resolve().parents[1]
# Of a checkout; in a wheel the kernels are in the package.
KERNELS = PACKAGE.parent / "kernels"


def code() -> str:
    """A digest of the package's sources: rows of two versions are no one run."""
    found = hashlib.blake2b(digest_size=16)
    for folder in (PACKAGE, KERNELS):
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".cu", ".cuh", ".h")):
            found.update(path.relative_to(folder).as_posix().encode() + b"\0")
            found.update(path.read_bytes())
    return found.hexdigest()


def _lines(path: Path) -> list[tuple[dict[str, Any], int]]:
    """What was written whole, and where each line ends; what follows a damaged line counts as not there.

    The end of a process may have torn the last one.
    """
    found, end = [], 0
    with open(path, "rb") as file:
        for line in file:
            said = _said(line)
            if said is None:
                break
            end += len(line)
            found.append((said, end))
    return found


def _said(line: bytes) -> dict[str, Any] | None:
    """A line as `begin` and `Journal.add` write it; None for any other."""
    try:
        said = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    rows = said.get("rows")
    of_rows = isinstance(rows, dict) and all(isinstance(row, dict) for row in rows.values())
    if of_rows and isinstance(said.get("sitting"), int):
        return said
    return said if isinstance(said.get("about"), dict) and rows is None else None


def begin(path: Path, about: Mapping[str, Any]) -> None:
    """Make a journal without rows.

    Parameters
    ----------
    path : Path
        Where nothing is yet.
    about : mapping
        What must be the same for a run to go on from it.
    """
    with open(path, "x", encoding="utf-8") as file:
        file.write(json.dumps({"about": about}) + "\n")


def differences(path: Path, about: Mapping[str, Any]) -> list[str]:
    """What is not as it was when a journal was begun.

    Raises
    ------
    OSError, ValueError
        If there is none, or it is damaged.
    """
    lines = _lines(path)
    was = lines[0][0].get("about", {}) if lines else {}
    # As JSON has it: a tuple comes back as a list.
    now = json.loads(json.dumps(about))
    return [f"{key} was {was.get(key)!r} and is {value!r}" for key, value in now.items() if was.get(key) != value]


def measured(path: Path) -> int:
    """How many rows a journal holds."""
    return sum(len(line.get("rows", {})) for line, _ in _lines(path))


class Journal:
    """Rows by name, as they were measured.

    A group's rows took turns, and only so are their ratios worth something: they are kept together or not at all.

    Parameters
    ----------
    path : Path
        Of a journal that `begin` made.

    Raises
    ------
    RuntimeError
        If another process has it open.

    Warns
    -----
    RuntimeWarning
        If the file system has no locks: then nothing keeps another process out.
    """

    def __init__(self, path: Path) -> None:
        lock: int | None = NO_LOCK
        try:
            lock = disk.lock(path.with_suffix(".lock"))
        except disk.NoLocksError as error:
            warnings.warn(f"{path.parent}: {error}; let no second process measure there", RuntimeWarning, stacklevel=2)
        if lock is None:
            raise RuntimeError(f"{path.parent}: another process is measuring there")
        self._path, self._lock = path, lock
        self.rows: dict[str, dict[str, Any]] = {}
        self._sittings: set[int] = set()
        lines = _lines(path)
        os.truncate(path, lines[-1][1] if lines else 0)
        for line, _ in lines:
            if "rows" in line:
                self.rows |= line["rows"]
                self._sittings.add(line["sitting"])
        self._sitting = max(self._sittings, default=0) + 1

    @property
    def sittings(self) -> int:
        """How many processes measured the rows."""
        return len(self._sittings)

    def add(self, rows: Mapping[str, dict[str, Any]]) -> None:
        """Keep a group's rows."""
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"sitting": self._sitting, "rows": rows}) + "\n")
        self._sittings.add(self._sitting)
        self.rows |= rows

    def close(self) -> None:
        """Let others have it."""
        if self._lock != NO_LOCK:
            os.close(self._lock)
