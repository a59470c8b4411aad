"""Whether a file holds all that its header promises: ITK reads several formats past their end without a word."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpuresample.files import detached, gzips, tiffs, zstds

# Bytes that a byte of a deflate stream stands for at most (zlib's documentation: 1032), and a little.
_DEFLATE_RATIO = 1040
# The same of zstandard: a block of 4 bytes stands for 128 KiB at most.
_ZSTD_RATIO = 1 << 15
# Bytes that may follow the voxels in a compressed file, and that may come before them.
_BEHIND = MOST_HEAD = 64 << 20
_DAMAGED = (*gzips.DAMAGED, zstds.DamagedError)


def check(path: Path, image_io: str, voxel_bytes: int, watch: Callable[[bytes], None] | None = None) -> None:
    """Refuse a file that holds fewer voxels than its header says, or a damaged stream.

    Uses nothing of ITK, so that it can run while ITK reads. `watch` is handed the bytes of a packed file as they pass.

    Raises
    ------
    OSError
        With what is missing.
    """
    detached.check_packed(path)
    if is_packed(path):
        head, length = unzipped(path, lambda head: max(voxel_bytes, _needed(path, image_io, voxel_bytes, head)), watch)
    else:
        with open(path, "rb") as file:
            head, length = file.read(1024), os.path.getsize(path)
            if image_io == "TIFFImageIO" and not tiffs.Tiff(file).is_complete(length):
                raise OSError(f"{path}: the file ends early: pages are missing")
    needed = _needed(path, image_io, voxel_bytes, head)
    if length < needed:
        raise _short(path, length, needed)


def check_dimensions(path: Path) -> None:
    """Refuse numbers of axes that ITK's MetaImage reader does not survive: it ends the process.

    Raises
    ------
    OSError
        With what the header says.
    """
    if path.suffix not in (".mha", ".mhd"):
        return
    with open(path, "rb") as file:
        head = file.read(1 << 14)
    for found in re.finditer(rb"^\s*NDims[ \t]*[=:]?[ \t]*([^\r\n]*)", head, re.MULTILINE):
        text = found[1].decode("latin-1").strip()
        if text not in map(str, range(1, 11)):
            raise OSError(f"{path}: the header is damaged: NDims must be 1 to 10, got {text or 'nothing'}")


def check_plausible(path: Path, image_io: str, voxel_bytes: int) -> None:
    """Refuse a header that promises more voxels than its file can hold: before ITK makes room for them.

    Raises
    ------
    OSError
        With both numbers.
    """
    known = image_io in ("NiftiImageIO", "NrrdImageIO", "MetaImageIO")
    stored = detached.stored_bytes(path)
    most = (_ZSTD_RATIO if zstds.named(path) else _DEFLATE_RATIO) * stored
    if known and voxel_bytes > most:
        raise OSError(
            f"{path}: the file ends early, or its header is damaged: it asks for {voxel_bytes:,} bytes of voxels, and "
            f"{stored:,} bytes of file hold {most:,} at most"
        )


def is_gzip(path: Path) -> bool:
    """Whether a file is compressed by gzip."""
    with open(path, "rb") as file:
        return file.read(2) == b"\x1f\x8b"


def is_packed(path: Path) -> bool:
    """Whether a file is compressed as a whole: by gzip, or a NIfTI file by zstandard."""
    return zstds.named(path) or is_gzip(path)


def reading(path: Path) -> AbstractContextManager[io.BufferedIOBase]:
    """A compressed file, to be read: `gzips.reading`, `zstds.reading`."""
    return zstds.reading(path) if zstds.named(path) else gzips.reading(path)


def head_of(path: Path, length: int) -> bytes:
    """The first bytes of what a compressed file holds.

    Raises
    ------
    OSError
        If the stream is damaged there.
    """
    try:
        with reading(path) as file:
            return file.read(length)
    except _DAMAGED as error:
        raise _damaged(path, error) from None


def unzipped(
    path: Path, expected: Callable[[bytes], int] = lambda head: 0, watch: Callable[[bytes], object] | None = None
) -> tuple[bytes, int]:
    """The first bytes and the length of what a compressed file holds; its checksum is verified on the way.

    Parameters
    ----------
    path : Path
    expected : callable
        How many bytes there should be, from the first ones.
    watch : callable, optional
        Is handed all bytes as they pass.

    Raises
    ------
    OSError
        If the stream is damaged, ends early, or goes on far behind what is expected: a small file can unpack to
        terabytes.
    """
    try:
        with reading(path) as file:
            head = file.read(1024)
            length, most = len(head), expected(head) + _BEHIND
            if watch is not None:
                watch(head)
            while block := file.read(1 << 20):
                if watch is not None:
                    watch(block)
                length += len(block)
                if length > most:
                    raise _goes_on(path)
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    return head, length


def unzipped_into(
    path: Path, offset: int, memory: npt.NDArray[np.uint8], done: Callable[[int], None] | None = None
) -> bytes:
    """Fill memory with what a compressed file holds from an offset on; answers what comes before.

    `done` is told how many bytes there are so far.

    Raises
    ------
    OSError
        As `unzipped`; and if there is less.
    """
    try:
        with reading(path) as file:
            head = file.read(offset)
            length, most = len(head) + gzips.read_into(file, memory, done), offset + memory.size
            while block := file.read(1 << 20):
                length += len(block)
                if length > most + _BEHIND:
                    raise _goes_on(path)
    except _DAMAGED as error:
        raise _damaged(path, error) from None
    if length < most:
        raise _short(path, length, most)
    return head


def _goes_on(path: Path) -> OSError:
    return OSError(f"{path}: goes on for more than {_BEHIND:,} bytes behind its volume")


def _damaged(path: Path, error: Exception) -> OSError:
    kind = "zstandard" if zstds.named(path) else "gzip"
    return OSError(f"{path}: the {kind} stream is damaged or ends early ({error})")


def _short(path: Path, length: int, needed: int) -> OSError:
    return OSError(f"{path}: the file ends early: {length:,} of {needed:,} bytes")


def _needed(path: Path, image_io: str, voxel_bytes: int, head: bytes) -> int:
    if detached.half(path):
        return 0  # `detached.check` has compared the two
    try:
        return _needed_length(image_io, voxel_bytes, head)
    except OSError as error:
        raise OSError(f"{path}: {error}") from None


def _needed_length(image_io: str, voxel_bytes: int, head: bytes) -> int:
    """Bytes a file must have; 0 where the format's own reader refuses short files."""
    match image_io:
        case "NiftiImageIO":
            return _nifti_length(head)
        case "MRCImageIO":
            return 1024 + voxel_bytes
        case "GiplImageIO":
            return 256 + voxel_bytes
        case "VTKImageIO" if b"\nBINARY" in head:
            start = re.search(rb"\n(SCALARS.*\nLOOKUP_TABLE|VECTORS|TENSORS).*\n", head)
            return voxel_bytes + (start.end() if start else 0)
    return 0


def _nifti_length(head: bytes) -> int:
    """Bytes of a NIfTI file of one part, from its header; 0 for others."""
    return sum(detached.nifti_layout(head, b"n+") or (0, 0)) if len(head) >= 348 else 348
