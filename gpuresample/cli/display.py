"""The display of long work: text, a bar where it is known how much there is to do, and the time that has passed.

It is loaded when something is shown: rich takes longer than a small volume.
"""

from __future__ import annotations

import time
from typing import IO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text


class _Bar(ProgressColumn):
    """A bar, where it is known how much there is to do."""

    bar = BarColumn(bar_width=24)

    def render(self, task: Task) -> RenderableType:
        """Of a task."""
        return Text("") if task.total is None else self.bar.render(task)


def progress(stream: IO[str] | None) -> Progress:
    """A display on a stream, which is taken for a terminal."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        _Bar(),
        TimeElapsedColumn(),
        console=Console(file=stream, force_terminal=True),
        transient=True,
        get_time=time.monotonic,
    )
