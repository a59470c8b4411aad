"""Whether this process was forked, and from one that had used CUDA: such a child cannot use it."""

from __future__ import annotations

import os

LOST = (
    "CUDA was in use before this process was forked, and a forked child cannot use it. Three ways out: start workers "
    'by "spawn" or "forkserver" (multiprocessing_context="spawn" for a DataLoader); resample in the main process; or '
    'device="cpu" in the workers'
)


class ForkedError(RuntimeError):
    """CUDA was asked for in a child that was forked after its parent had used it."""


class _State:
    used = False  # by this process, through this package
    child = False  # this process was forked
    lost = False  # from one that had used CUDA


def check() -> None:
    """Refuse CUDA where this process cannot use it.

    Raises
    ------
    ForkedError
    """
    if _State.lost:
        raise ForkedError(LOST)


def note_use() -> None:
    """Note that this process uses CUDA from now on."""
    _State.used = True


def is_child() -> bool:
    """Whether this process was forked since the package was loaded."""
    return _State.child


def _in_child() -> None:
    _State.child = True
    _State.lost = _State.lost or _State.used


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
