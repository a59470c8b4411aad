"""Gzip streams by the package isal where it is installed: the same streams, read and written several times as fast.

Without it Python's gzip reads, and ITK writes.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from gpuresample.engines.threads import get_num_threads

# Bytes that go through at once. What is written depends on it, and not on the number of threads.
BLOCK = 1 << 20
# Of isal's levels 0 to 3 the one that is as fast as any and whose files of images are about as large as ITK's.
LEVEL = 2
# Label maps are not: a block of a volume tells. Where isal's is larger than zlib's by more than this, zlib packs.
LARGER = 1.1
# What a damaged stream makes readers raise.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)


@lru_cache(maxsize=1)
def _fast() -> tuple[ModuleType, ModuleType, type[Exception]] | None:
    """Modules of isal, and its own error; None without it."""
    try:
        from isal import igzip, igzip_threaded, isal_zlib
    except ImportError:
        return None
    error: Any = isal_zlib.error
    return igzip, igzip_threaded, error


def packs() -> bool:
    """Whether `pack` can be called."""
    return _fast() is not None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[io.BufferedIOBase]:
    """A gzip file, to be read. It is known to be whole when it has been read to its end.

    Raises
    ------
    gzip.BadGzipFile, EOFError, zlib.error
        If the stream is damaged or ends early.
    """
    fast = _fast()
    if fast is None:
        with gzip.open(path) as file:
            yield file
        return
    igzip, _, its_error = fast
    try:
        with igzip.open(path) as file:
            yield file
    except its_error as error:
        raise gzip.BadGzipFile(str(error)) from None


def pack(source: Path, target: Path) -> None:
    """Write a file anew as a gzip file of one member, on the engine's threads; the same bytes on any number of them.

    Raises
    ------
    OSError
        If the one cannot be read or the other not be written.
    """
    fast = _fast()
    assert fast is not None
    igzip, threaded, _ = fast
    with open(source, "rb") as file, open(target, "wb") as out:
        file.seek(max(0, source.stat().st_size // 2 - BLOCK // 2))
        middle = file.read(BLOCK)
        file.seek(0)
        packed: Any
        if len(igzip.compress(middle, LEVEL, mtime=0)) > LARGER * len(zlib.compress(middle)):
            packed = gzip.GzipFile("", "wb", zlib.Z_DEFAULT_COMPRESSION, out, mtime=0)
        else:
            packed = threaded.open(out, "wb", LEVEL, threads=get_num_threads(), block_size=BLOCK)
        with packed:
            while block := file.read(BLOCK):
                packed.write(block)


def read_into(file: io.BufferedIOBase, memory: Any) -> int:
    """Fill memory from a file; answers how many bytes there were."""
    view, done = memoryview(memory), 0
    while done < len(view) and (n := file.readinto(view[done : done + BLOCK])):
        done += n
    return done
