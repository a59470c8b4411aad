"""Folders that are made step by step, beside their place until they are complete; a killed run can be continued."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gpuresample.files import disk
from gpuresample.files import volumes as files

Step = tuple[int, ...]

_RESULT, _WORK, _JOB, _STEPS, _LOCK, _REPLACED = "result", "work", "job.json", "steps", "lock", "replaced"


class Unfinished:
    """A folder under way, and the steps that are done.

    Attributes
    ----------
    folder : Path
        All of it.
    result : Path
        What will be the folder.
    work : Path
        A folder for what is needed meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.result, self.work = folder, folder / _RESULT, folder / _WORK
        self._steps: set[Step] = set()
        self._log = -1

    def done(self, step: Step) -> bool:
        """Whether a step is done, and on disk."""
        return step in self._steps

    def count(self, first: int) -> int:
        """How many steps are done whose first number is this one."""
        return sum(step[0] == first for step in self._steps)

    def mark(self, step: Step) -> None:
        """Say that a step is done: what it wrote must be on disk already. Any thread may."""
        os.write(self._log, _line(step))
        self._steps.add(step)

    def _open(self, job: Mapping[str, Any]) -> None:
        """Go on with what is there if it is of the same job; begin anew otherwise."""
        text = json.dumps(job, sort_keys=True)
        known = self.folder / _JOB
        same = self.result.is_dir() and _content(known) == text.encode()
        if not same:
            if self.result.exists():
                warnings.warn(
                    f"{self.folder}: was left by other arguments, another input or another version; begun anew",
                    RuntimeWarning,
                    stacklevel=4,
                )
            # The job first: without it, what a kill leaves of the rest counts for nothing.
            for name in (_JOB, _STEPS, _RESULT, _WORK):
                _remove(self.folder / name)
            self.result.mkdir()
            with files.replacing(known) as partial:
                partial.write_text(text)
        self.work.mkdir(exist_ok=True)
        for place in (self.result, self.work):
            for torn in place.rglob("*.partial"):
                torn.unlink()
        steps = self.folder / _STEPS
        self._steps = {step for line in _content(steps).splitlines(keepends=True) for step in _step(line)}
        # What is damaged is not carried on: a line that is cut short would spoil the next one.
        with files.replacing(steps) as partial:
            partial.write_bytes(b"".join(map(_line, sorted(self._steps))))
        self._log = os.open(steps, os.O_WRONLY | os.O_APPEND)

    def _close(self) -> None:
        if self._log >= 0:
            os.close(self._log)
            self._log = -1


@contextlib.contextmanager
def unfinished(target: Path, job: Mapping[str, Any], overwrite: bool = False) -> Iterator[Unfinished]:
    """A folder beside `target` to write to, which takes its place at the end.

    After an exception, Ctrl-C or a kill the folder stays, and the next call with an equal `job` finds the steps that
    were marked. One process at a time may write it.

    Parameters
    ----------
    target : Path
        Where the folder goes.
    job : mapping
        All that the result depends on, as JSON knows it.
    overwrite : bool
        Whether `target` may be there already; it is replaced once the new one is whole.

    Raises
    ------
    OSError
        If another process is at it, or `target` is there.
    """
    folder = target.with_name(f".{target.name}.partial")
    lock = _locked(folder, target)
    work = Unfinished(folder)
    try:
        files.check_place(target, overwrite)
        work._open(job)
        yield work
        work._close()
        files.check_place(target, overwrite)
        _to_disk(work.result)
        if target.exists():
            _remove(folder / _REPLACED)
            os.rename(target, folder / _REPLACED)
        os.rename(work.result, target)
        disk.folder_to_disk(target.parent)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        work._close()
        os.close(lock)


def _content(path: Path) -> bytes:
    """What is in a file; nothing where there is none."""
    if not path.is_file():
        _remove(path)
        return b""
    return path.read_bytes()


def _line(step: Step) -> bytes:
    """A step in the log: its numbers, and their checksum."""
    text = " ".join(map(str, step)).encode()
    return text + f" {zlib.crc32(text):08x}\n".encode()


def _step(line: bytes) -> Iterator[Step]:
    """The step of a line that is as it was written; nothing of any other."""
    text, _, _ = line.rpartition(b" ")
    with contextlib.suppress(ValueError):
        step = tuple(map(int, text.split()))
        if _line(step) == line:
            yield step


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink(missing_ok=True)


def _locked(folder: Path, target: Path) -> int:
    """The lock of a folder that is there and stays."""
    while True:
        folder.mkdir(exist_ok=True)
        path = folder / _LOCK
        try:
            descriptor = disk.lock(path)
        except FileNotFoundError:
            continue  # the other one has just finished and removed the folder
        except disk.NoLocksError as error:
            warnings.warn(f"{target}: {error}; let no second process write it", RuntimeWarning, stacklevel=5)
            return os.open(path, os.O_RDWR)
        if descriptor is None:
            raise BlockingIOError(f"{target}: another process is writing it")
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)


def _to_disk(folder: Path) -> None:
    """Bring names and small files to disk; what steps wrote is there already."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name.endswith(".json"):
                disk.to_disk(Path(place, name))
        disk.folder_to_disk(Path(place))
