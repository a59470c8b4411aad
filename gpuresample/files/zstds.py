"""Zstandard streams: read and written by `compression.zstd` of Python 3.14, and backports.zstd, which is the same."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from gpuresample.engines.threads import get_num_threads
from gpuresample.files import gzips

# Volumes that are packed so are known by their names: a stream may begin with any of 17 marks.
ENDING = ".nii.zst"
# Zstandard's own default, of its levels 1 to 22.
_LEVEL = 3


class DamagedError(OSError):
    """A stream that is damaged, or none."""


def named(path: Path) -> bool:
    """Whether a file is a volume packed by zstandard, by its name."""
    return path.name.lower().endswith(ENDING)


def library(path: Path) -> Any:
    """The module that reads and writes streams.

    Raises
    ------
    OSError
        Without it.
    """
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise OSError(
        f"{path}: is packed by zstandard, which Python 3.14 knows; earlier ones need a package: "
        "pip install backports.zstd"
    )


@contextlib.contextmanager
def reading(path: Path) -> Iterator[io.BufferedIOBase]:
    """A packed file, to be read: all its frames. It is known to be whole when it has been read to its end.

    Raises
    ------
    DamagedError, EOFError
        If the stream is damaged, or ends early.
    OSError
        Without the library.
    """
    zstd = library(path)
    try:
        with zstd.ZstdFile(path) as file:
            yield file
    except zstd.ZstdError as error:
        raise DamagedError(str(error)) from None


def pack(
    pieces: Iterable[memoryview],
    out: IO[bytes],
    size: int,
    level: int | None = None,
    done: Callable[[int], None] | None = None,
) -> None:
    """Write bytes as one frame with a checksum, packed on the engine's threads; the same bytes on any number of them.

    Parameters
    ----------
    pieces : iterable of memoryview
        Bytes, one after the other.
    out : file
        To write to.
    size : int
        Bytes of all pieces, which the frame says at its beginning.
    level : int, optional
        Of zstandard, 3 unless given.
    done : callable, optional
        Is told how many bytes of the pieces have been taken so far.

    Raises
    ------
    OSError
        If it cannot be written, and without the library.
    """
    zstd = library(Path(out.name))
    of = zstd.CompressionParameter
    # No worker at all makes other bytes than one. Libraries that were built without threads allow none.
    workers = min(get_num_threads(), of.nb_workers.bounds()[1])
    packer = zstd.ZstdCompressor(
        options={of.compression_level: _LEVEL if level is None else level, of.checksum_flag: 1, of.nb_workers: workers}
    )
    packer.set_pledged_input_size(size)
    taken = 0
    for view in pieces:
        for at in range(0, len(view), gzips.BLOCK):
            block = view[at : at + gzips.BLOCK]
            out.write(packer.compress(block))
            taken += len(block)
            if done is not None:
                done(taken)
    out.write(packer.flush())
