"""Grids of volumes in files, kept: a batch asks for one again and again."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from gpuresample.files import volumes as files
from gpuresample.planning.grid import Grid


def grid_of_file(path: Path) -> Grid:
    """The grid of a volume; of a series, its files are read to know it.

    Raises
    ------
    OSError
        If it cannot be read.
    """
    files.check_input(path)
    stat = path.stat()
    return _grid(str(path), stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _grid(path: str, mtime: int, size: int) -> Grid:
    """Of a file as it was at that time."""
    header = files.Header.of(files.read(path)) if Path(path).is_dir() else files.header(path)
    d = min(header.dimension, 3)
    direction = np.reshape(header.direction, (header.dimension,) * 2)[:d, :d]
    return Grid(header.size[:d], header.spacing[:d], header.origin[:d], tuple(direction.ravel().tolist()))
