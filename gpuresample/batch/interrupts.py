"""Ctrl-C, SIGTERM and SIGHUP (the terminal is closed), once and twice."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker


def _signals() -> list[signal.Signals]:
    numbers = [signal.SIGINT, signal.SIGTERM]
    # Windows has no SIGHUP. nohup has it ignored, and means that.
    hangup = getattr(signal, "SIGHUP", None)
    if hangup is not None and signal.getsignal(hangup) != signal.SIG_IGN:
        numbers.append(hangup)
    return numbers


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Start processes that a Ctrl-C or a closed terminal does not reach: both are for the process that started them.

    Processes and threads inherit which signals are held back. This process gets those that came meanwhile at the end.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    # It makes a process of its own, once, and lets these signals through again as it does.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Asked:
    """How often a run was asked to stop, by Ctrl-C, SIGTERM or SIGHUP."""

    def __init__(self) -> None:
        self.count = 0
        self._told = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count, instead of what Python does; from the third time on it does that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in _signals()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, number: int, frame: object) -> None:
        self.count += 1
        if self.count > 2:
            raise KeyboardInterrupt

    def news(self) -> bool:
        """Whether it was asked since the last time this was asked."""
        told, self._told = self._told, self.count
        return told != self.count

    def note(self) -> str:
        """What to tell people."""
        return ("", "stopping after the volumes under way; Ctrl-C again to stop at once", "stopping at once")[
            min(self.count, 2)
        ]
