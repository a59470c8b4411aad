"""What the tags of a TIFF file say, and which files ITK's reader misreads without a word."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

# Tags of TIFF 6.0, and ImageDepth as libtiff has it.
BITS, DESCRIPTION, SAMPLES, SAMPLE_FORMAT, IMAGE_DEPTH = 258, 270, 277, 339, 32997
FLOAT = 3
# Bytes of a description that are looked at.
MOST_TEXT = 1 << 10
# Bytes of a number of a tag, by the code of its type; others are not asked for.
_BYTES = {2: 1, 3: 2, 4: 4}
_ITK = "ITK's reader (5.4.7)"


class Tiff:
    """The pages of a TIFF or BigTIFF file of either byte order, and what the tags of the first say.

    Parameters
    ----------
    file : IO
        Open for reading.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        file.seek(0)
        head = file.read(4)
        self._order = "<" if head[:2] == b"II" else ">"
        self.is_one = head in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
        big = head[2:] in (b"+\0", b"\0+")
        self._start, self._count, self._link = (8, "Q", "Q") if big else (4, "H", "I")

    def _number(self, offset: int, code: str) -> int | None:
        data = self._read(offset, struct.calcsize(code))
        return int(struct.unpack(self._order + code, data)[0]) if len(data) == struct.calcsize(code) else None

    def _read(self, offset: int, n: int) -> bytes:
        if offset >= 1 << 63:  # where no file reaches, and no file can be asked
            return b""
        self._file.seek(offset)
        return self._file.read(n)

    def _entries(self, page: int) -> range:
        """Where the tags of a page are; none where the file ends before."""
        size = struct.calcsize("=HH" + 2 * self._link)
        first = page + struct.calcsize(self._count)
        return range(first, first + size * (self._number(page, self._count) or 0), size)

    def _pages(self) -> Iterator[int | None]:
        """Where pages begin; None at last where the file ends before it says where the next one is."""
        seen: set[int] = set()
        page = self._number(self._start, self._link)
        while page and page not in seen:
            seen.add(page)
            yield page
            has_tags = self._number(page, self._count) is not None
            page = self._number(self._entries(page).stop, self._link) if has_tags else None
        if page is None:
            yield None

    def is_complete(self, length: int) -> bool:
        """Whether the chain of pages stays inside the file; its reader would stop at the break."""
        return all(page is not None and page < length for page in self._pages())

    def has_pages(self, n: int) -> bool:
        """Whether there are so many pages, or more."""
        return any(k >= n for k, _ in enumerate(self._pages(), 1))

    def _tag(self, tag: int) -> tuple[int, bytes]:
        """The type of a tag of the first page, and its bytes, `MOST_TEXT` at most; (0, b"") where it lacks it."""
        page, room = self._number(self._start, self._link), struct.calcsize(self._link)
        for entry in self._entries(page) if page else ():
            found, kind, n = (self._number(entry + k, code) for k, code in ((0, "H"), (2, "H"), (4, self._link)))
            if found is None or kind is None or n is None:  # the file ends early, which is said elsewhere
                break
            if found == tag:
                size, at = n * _BYTES.get(kind, 0), entry + 4 + room
                return kind, self._read(at if size <= room else self._number(at, self._link) or 0, min(size, MOST_TEXT))
        return 0, b""

    def first(self, tag: int, default: int = 0) -> int:
        """The first number of a tag of the first page."""
        kind, values = self._tag(tag)
        code = {3: "H", 4: "I"}.get(kind)
        if code is None or len(values) < struct.calcsize(code):
            return default
        return int(struct.unpack_from(self._order + code, values)[0])

    def text(self, tag: int) -> bytes:
        """The text of a tag of the first page."""
        return self._tag(tag)[1]


def check(path: Path, reader: Any) -> None:
    """Refuse a TIFF file that ITK misreads without a word.

    Parameters
    ----------
    path : Path
        Of any file.
    reader : SimpleITK.ImageFileReader
        Which has read what the file is.

    Raises
    ------
    OSError
        With what the file holds.
    """
    import SimpleITK as sitk

    with open(path, "rb") as file:
        tiff = Tiff(file)
        if not tiff.is_one:
            return
        bits, samples = tiff.first(BITS, 1), tiff.first(SAMPLES, 1)
        if tiff.first(SAMPLE_FORMAT) == FLOAT and bits == 16:
            raise OSError(f"{path}: holds floats of 16 bits, and {_ITK} takes their bits for integers; write 32 bits")
        if (depth := tiff.first(IMAGE_DEPTH)) > 1:
            raise OSError(
                f"{path}: holds {depth} slices in one page, of which {_ITK} makes a picture; write a page for each"
            )
        # What it cannot read otherwise, it has made a picture of in red, green, blue and opacity.
        in_colours = reader.GetNumberOfComponents() == 4 and reader.GetPixelID() == sitk.sitkVectorUInt8
        if in_colours and (samples, bits) != (4, 8):
            raise OSError(
                f"{path}: holds voxels of {samples} times {bits} bits, in a form of which {_ITK} makes a picture in "
                "colours; write one number of 8, 16 or 32 bits for each voxel, and a page for each slice"
            )
        stack = re.match(rb"ImageJ=.*?\nimages=(\d{1,9})\n", tiff.text(DESCRIPTION), re.DOTALL)
        if stack and not tiff.has_pages(int(stack[1])):
            raise OSError(
                f"{path}: is a stack of {int(stack[1])} images of ImageJ's with fewer pages, of which {_ITK} reads the "
                "first alone; write a page for each"
            )
