"""What people see: phases of long work on stderr, results on stdout."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

PATIENCE = 1.0  # seconds of silence before progress is shown


def out() -> Console:
    """The console of results, not narrower than a table needs where there is no terminal."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=max(console.width, 120))


class Phases:
    """Shows which part of a long work runs, and times each.

    Nothing is shown for work of less than a second, nor where stderr is no terminal.

    Attributes
    ----------
    seconds : dict
        Of each phase done.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.seconds: dict[str, float] = {}
        self._patience = patience
        self._text, self._done = "", 0
        self._total: int | None = None
        self._start = time.monotonic()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._progress: Progress | None = None
        self._stream: IO[str] | None = None

    def __enter__(self) -> Phases:
        if sys.stderr.isatty():
            # A stream of its own: native libraries are kept off stderr while files are read.
            self._stream = os.fdopen(os.dup(sys.stderr.fileno()), "w", errors="backslashreplace")
            self._timer = threading.Timer(self._patience, self._show)
            self._timer.daemon = True
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            if self._progress is not None:
                self._progress.stop()
            self._timer = None
        if self._stream is not None:
            self._stream.close()

    @property
    def total(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    def say(self, text: str, done: int = 0, total: int | None = None) -> None:
        """What the display says from now on, and how much of how much is done."""
        with self._lock:
            self._text, self._done, self._total = text, done, total
            if self._progress is not None:
                task = self._progress.tasks[0]
                task.description, task.completed, task.total = text, done, total

    def part(self, done: int, total: int) -> None:
        """How much of how much is done of what the display says."""
        with self._lock:
            self._done, self._total = done, total
            if self._progress is not None:
                task = self._progress.tasks[0]
                task.completed, task.total = done, total

    @contextlib.contextmanager
    def phase(self, name: str, text: str) -> Iterator[None]:
        """One phase: `name` for the timing, `text` for the display."""
        self.say(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def _show(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            from gpuresample.cli.display import progress

            self._progress = progress(self._stream)
            task = self._progress.add_task(self._text, completed=self._done, total=self._total)
            self._progress.tasks[task].start_time = self._start  # of the work, not of its display
            self._progress.start()


@contextlib.contextmanager
def native_stderr_hidden() -> Iterator[None]:
    """Keep what C libraries say off stderr: the errors that matter come as exceptions.

    libtiff, HDF5 and MetaIO write lines of their own there when a file is damaged.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as sink:
        saved = os.dup(2)
        try:
            os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def times(values: Sequence[int] | Sequence[float], unit: str = "") -> str:
    """`512 x 512 x 247`, `0.78125 x 0.78125 x 1 mm`."""
    text = " x ".join(f"{v:.6g}" if isinstance(v, float) else str(v) for v in values)
    return f"{text} {unit}".rstrip()


def seconds(value: float) -> str:
    """A duration, to three digits."""
    return f"{value * 1000:.3g} ms" if value < 0.1 else f"{value:.3g} s"


def megabytes(count: int) -> str:
    """A number of bytes."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"
