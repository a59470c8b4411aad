"""Memory of this process: what it holds, and what a call takes at its peak. Linux only."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Callable
from typing import Any


def memory_now(key: str) -> int:
    """Bytes of `VmRSS`, `VmHWM`, or `RssFile`: files that are mapped, and in memory."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes that a call takes at its peak, on top of what the process holds before."""
    if (libc := ctypes.util.find_library("c")) is not None:
        ctypes.CDLL(libc).malloc_trim(0)  # freed memory goes back, or the job would use it and look cheaper
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark falls back to what is held now
    before = memory_now("VmRSS")
    result = call()
    peak = memory_now("VmHWM") - before
    del result
    return peak
