"""Ctrl-C and SIGTERM, once and twice."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator


class Asked:
    """How often a run was asked to stop, by Ctrl-C or SIGTERM."""

    def __init__(self) -> None:
        self.count = 0
        self._told = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Count, instead of what Python does; from the third time on it does that."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
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
