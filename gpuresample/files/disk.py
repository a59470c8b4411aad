"""What the operating system is asked about files: bytes brought to disk, locks, the page cache."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from pathlib import Path


def odd_kind(path: Path) -> str:
    """What is at a path, links followed, where that is neither a file nor a folder; "" where it is one, or is nothing.

    To open a pipe or to read a device can take for ever.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return ""
    return "a named pipe" if stat.S_ISFIFO(mode) else "a socket" if stat.S_ISSOCK(mode) else "a device"


# What systems answer where another process has the lock; any other answer means that there are no locks here.
_TAKEN = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES, errno.EDEADLK)


class NoLocksError(OSError):
    """The file system has no locks."""


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
    NoLocksError
        If the file system knows no locks, or has none left.
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
    except OSError as error:
        os.close(descriptor)
        if error.errno in _TAKEN:
            return None
        raise NoLocksError(error.errno, f"files cannot be locked here ({os.strerror(error.errno or 0)})") from None
    return descriptor


def rename_new(old: Path, new: Path) -> None:
    """Give a file a name that nothing has, in one step: of several processes that try, one succeeds.

    Raises
    ------
    FileExistsError
        If there is something of the new name.
    """
    try:
        if sys.platform == "win32":
            os.rename(old, new)
            return
        try:
            os.link(old, new, follow_symlinks=False)
        except FileExistsError:
            raise
        except OSError:
            # A file system without hard links: the name is taken first, by an empty file.
            os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.replace(old, new)
            return
        os.unlink(old)
    except FileExistsError:
        raise FileExistsError(f"{new}: has come into being meanwhile and is left alone") from None


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
