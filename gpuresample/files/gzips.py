"""Deflate streams, gzip's and zlib's: read by isal, written block by block on the engine's threads.

isal is several times as fast as zlib, and zlib-ng makes files as small as zlib's in less time. Python's zlib does what
they do where they are not installed.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Literal

from gpuresample.engines.threads import get_num_threads

# Bytes that go through at once. What is written depends on it, and not on the number of threads.
BLOCK = 1 << 20
# Bytes behind which deflate refers to no others: every block is packed with those before it at hand.
_WINDOW = 1 << 15
# isal has levels 1 to 3, zlib-ng and zlib all.
LEVELS = range(1, 10)
_FAST, _CAREFUL = 3, 6
# Without a level, what isal's fastest packs to less than a third (labels, air) is packed with care: of it, isal makes
# twice as much as zlib. Of noise it makes 1 % more, in a fifteenth of the time. A part of each block tells.
_EASY = 3
_PROBE = 1 << 16
# isal's tables: with these, blocks of codes are short, and suit images.
_TABLES = 4
# What a damaged stream makes readers raise.
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile)

Form = Literal["gzip", "zlib"]
_HEADS: dict[Form, bytes] = {"gzip": b"\x1f\x8b\x08\0\0\0\0\0\0\xff", "zlib": b"\x78\x9c"}
# The last block of a stream, which is empty.
_END = b"\x03\0"


@lru_cache(maxsize=1)
def _fast() -> tuple[ModuleType, ModuleType, type[Exception]] | None:
    """Modules of isal, and its own error; None without it."""
    try:
        from isal import igzip, isal_zlib
    except ImportError:
        return None
    error: Any = isal_zlib.error
    return igzip, isal_zlib, error


@lru_cache(maxsize=1)
def _careful() -> Any:
    """zlib-ng's module; zlib itself without it."""
    try:
        from zlib_ng import zlib_ng
    except ImportError:
        return zlib
    return zlib_ng


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


def unpacker(form: int) -> Any:
    """What unpacks a stream of a form, as zlib numbers them: `zlib.decompressobj`, or isal's. Its errors: `damaged`."""
    fast = _fast()
    return (zlib if fast is None else fast[1]).decompressobj(form)


def damaged() -> tuple[type[BaseException], ...]:
    """What a file with a damaged stream makes its reader and `unpacker` raise."""
    fast = _fast()
    return (OSError, *DAMAGED) if fast is None else (OSError, *DAMAGED, fast[2])


def pack(
    pieces: Iterable[memoryview],
    out: IO[bytes],
    form: Form = "gzip",
    level: int | None = None,
    done: Callable[[int], None] | None = None,
) -> None:
    """Write bytes as one stream, packed on the engine's threads; the same bytes on any number of them.

    Parameters
    ----------
    pieces : iterable of memoryview
        Bytes, one after the other; not to be changed meanwhile.
    out : file
        To write to.
    form : {"gzip", "zlib"}
        A gzip stream of one member, or one of zlib's.
    level : int, optional
        Of `LEVELS`; unless given, what is fast and no more than some 3 % larger than zlib's.
    done : callable, optional
        Is told how many bytes of the pieces have been written so far.

    Raises
    ------
    OSError
        If it cannot be written.
    """
    checksum, length = (0 if form == "gzip" else 1), 0
    out.write(_HEADS[form])
    ahead: deque[tuple[memoryview, Future[bytes]]] = deque()

    def settle(most: int) -> None:
        nonlocal checksum, length
        while len(ahead) > most:
            block, packed = ahead.popleft()
            out.write(packed.result())
            checksum, length = _summed(form, block, checksum), length + len(block)
            if done is not None:
                done(length)

    n = get_num_threads()
    with ThreadPoolExecutor(n) as pool:
        try:
            for block, before in _blocks(pieces):
                ahead.append((block, pool.submit(_deflated, block, before, level)))
                settle(2 * n)
            settle(0)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    out.write(_END)
    out.write(struct.pack("<2I", checksum, length & 0xFFFFFFFF) if form == "gzip" else struct.pack(">I", checksum))


def _blocks(pieces: Iterable[memoryview]) -> Iterator[tuple[memoryview, memoryview]]:
    """Blocks of the pieces, each with what comes before it in its piece."""
    for view in pieces:
        for at in range(0, len(view), BLOCK):
            yield view[at : at + BLOCK], view[max(0, at - _WINDOW) : at]


def _summed(form: Form, block: memoryview, before: int) -> int:
    fast = _fast()
    library: Any = zlib if fast is None else fast[1]
    return int(library.crc32(block, before) if form == "gzip" else library.adler32(block, before))


def _deflated(block: memoryview, before: memoryview, level: int | None) -> bytes:
    """A block as deflate has it, without an end, so that others can follow."""
    fast = _fast()
    if level is None:
        middle = max(0, (len(block) - _PROBE) // 2)
        probe = block[middle : middle + _PROBE]
        easy = len((zlib if fast is None else fast[1]).compress(probe, 1)) * _EASY < len(probe)
        # zlib's own level that is as large as isal's is 1.
        level = _CAREFUL if easy else _FAST if fast is not None else 1
    given = (bytes(before),) if before else ()
    if fast is not None and level <= _FAST:
        packer = fast[1].compressobj(level, zlib.DEFLATED, -15, _TABLES, 0, *given)
    else:
        packer = _careful().compressobj(level, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, *given)
    return packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)


def read_into(file: io.BufferedIOBase, memory: Any, done: Callable[[int], None] | None = None) -> int:
    """Fill memory from a file; answers how many bytes there were. `done` is told as they come."""
    view, got = memoryview(memory), 0
    while got < len(view) and (n := file.readinto(view[got : got + BLOCK])):
        got += n
        if done is not None:
            done(got)
    return got
