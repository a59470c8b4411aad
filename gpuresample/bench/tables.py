"""Tables on the terminal: by rich where it is installed, plain text otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

STYLES = {"ok": "green", "reached": "green", "FAILS": "bold red", "WRONG": "bold red", "not reached": "yellow"}


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[str]], note: str = "") -> None:
    """Print a table; the first column to the left, numbers to the right."""
    rows = [list(row) for row in rows]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        _plain(title, header, rows, note)
        return
    grid = Table(title=title, title_justify="left", title_style="bold", caption=note or None, caption_justify="left")
    for k, name in enumerate(header):
        grid.add_column(name, justify="left" if k == 0 or name in ("verdict", "check", "worst on") else "right")
    for row in rows:
        grid.add_row(*[f"[{STYLES[cell]}]{cell}[/]" if cell in STYLES else cell for cell in row])
    console = Console()
    if not console.is_terminal:  # a pipe or a log: nobody's window to fit into
        console = Console(width=140)
    console.print(grid)


def _plain(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str) -> None:
    width = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}")
    for row in [header, ["-" * w for w in width], *rows]:
        print(
            "  ".join(
                f"{cell:<{w}}" if k == 0 else f"{cell:>{w}}" for k, (cell, w) in enumerate(zip(row, width, strict=True))
            )
        )
    if note:
        print(note)


def duration(seconds: float) -> str:
    """A time with three figures and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e3)):
        if seconds * scale >= 1:
            value = seconds * scale
            return f"{value:.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"
    return f"{seconds * 1e6:.0f} us"


def megabytes(n: float) -> str:
    """Bytes as MB."""
    return f"{n / 1e6:,.0f} MB"
