"""What memory the system has left, and refusals of what would not fit."""

from __future__ import annotations

import os
import sys

# Up to this many bytes are taken without asking the system what it has left.
ALWAYS_FITS = 1 << 26


def available_memory() -> int:
    """Bytes of memory that can still be had: of the system's, and of what this process may take."""
    return min(_of_system(), _of_process())


def _of_process() -> int:
    """Bytes until the limit of this process's address space (`ulimit -v`)."""
    try:
        import resource

        most = resource.getrlimit(resource.RLIMIT_AS)[0]
        if most == resource.RLIM_INFINITY:
            return sys.maxsize
        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        return max(0, most - taken)
    except (ImportError, OSError, ValueError):
        return sys.maxsize


def _of_system() -> int:
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


def check_room(needed: int, what: str) -> None:
    """Refuse what takes more of the host's memory than is left.

    Raises
    ------
    ValueError
        With what it would need and what there is.
    """
    if needed <= ALWAYS_FITS:
        return
    free = available_memory()
    if needed > free:
        raise ValueError(f"{what}: {needed / 2**30:,.1f} GiB, but {free / 2**30:,.1f} GiB of memory are free")
