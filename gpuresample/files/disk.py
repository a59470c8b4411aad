"""What the operating system is asked about files: bytes brought to disk, locks, the page cache."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path


def lock(path: Path) -> int | None:
    """Open a file that no other process has open this way; the system lets go of it whatever ends this process.

    Parameters
    ----------
    path : Path
        Made if it is not there. Locks of some network file systems hold on one machine only.

    Returns
    -------
    int or None
        Descriptor, to be closed with `os.close`; None if another process has it.

    Raises
    ------
    OSError
        If it cannot be opened.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def forget(path: Path) -> bool:
    """Ask the system to drop a file, its bytes brought to disk, from the page cache; whether it can be asked that."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def to_disk(path: Path) -> None:
    """Bring a file's bytes to disk."""
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def folder_to_disk(folder: Path) -> None:
    """Bring a renaming to disk, on systems and file systems where folders can be: elsewhere it is their business."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
