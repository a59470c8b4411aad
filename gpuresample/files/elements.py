"""The data elements of a DICOM file, sequences included, up to its voxels: ITK hands out no sequences.

By DICOM PS3.5 (2024): explicit and implicit VR, both byte orders, deflated data sets. Private elements are passed by.
"""

from __future__ import annotations

import math
import mmap
import struct
import zlib
from pathlib import Path

from gpuresample.frozen import frozen
from gpuresample.memory import available_memory

# Elements by their number: bytes, or the items of a sequence.
Elements = dict[int, "bytes | list[Elements]"]

_LONG = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_PIXELS = {0x7FE00008, 0x7FE00009, 0x7FE00010}
_DEEPEST = 16
_IMPLICIT, _DEFLATED, _BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
_NATIVE = (_IMPLICIT, "1.2.840.10008.1.2.1", _DEFLATED, _BIG)
# Sequences that are looked into: implicit VR does not tell which elements are any.
_SEQUENCES = {
    0x52009229, 0x52009230, 0x00209113, 0x00209116, 0x00209111, 0x00289110, 0x00289145, 0x0062000A, 0x00620002,
    0x00189114, 0x00189117,
}  # fmt: skip


@frozen()
class DataSet:
    """What a DICOM file says before its voxels.

    Attributes
    ----------
    elements : dict
        By number: 0x00100020 is (0010,0020).
    little : bool
        Whether numbers have their low byte first.
    native : bool
        Whether the voxels are as they are in memory, not compressed.
    voxels : memoryview or None
        Their bytes, where they are native.
    """

    elements: Elements
    little: bool
    native: bool
    voxels: memoryview | None

    def text(self, number: int, default: str = "", of: Elements | None = None) -> str:
        """An element's text, without blanks around it."""
        value = (self.elements if of is None else of).get(number)
        return value.decode("latin-1").strip(" \0") if isinstance(value, bytes) else default

    def numbers(self, number: int, of: Elements | None = None) -> list[float]:
        """Finite numbers that are written as text; none where there is anything else."""
        try:
            found = [float(word) for word in self.text(number, of=of).split("\\")]
        except ValueError:
            return []
        return found if all(map(math.isfinite, found)) else []

    def short(self, number: int, default: int = 0, of: Elements | None = None) -> int:
        """A binary whole number of 16 bits."""
        value = (self.elements if of is None else of).get(number)
        order = "little" if self.little else "big"
        return int.from_bytes(value[:2], order) if isinstance(value, bytes) and len(value) >= 2 else default  # type: ignore[arg-type]

    def items(self, number: int, of: Elements | None = None) -> list[Elements]:
        """The items of a sequence; none where it is not there."""
        value = (self.elements if of is None else of).get(number)
        return value if isinstance(value, list) else []


def is_dicom(path: Path) -> bool:
    """Whether a file says that it is DICOM."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def read(path: Path, voxels: bool = True) -> DataSet | None:
    """The elements of a file, with its voxels or without; None for one that is not DICOM, or is damaged before them.

    Raises
    ------
    OSError
        If it cannot be read, or unpacks to more than a quarter of the memory that is free.
    """
    if not is_dicom(path):
        return None
    with open(path, "rb") as file:
        data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        start = _meta_end(data)
        meta, _ = _Reader(data, True, True).elements(132, start)
        of_meta = DataSet(meta, True, True, None)
        syntax = of_meta.text(0x00020010)
        if syntax == _DEFLATED:
            unpacker, most = zlib.decompressobj(-15), max(1, available_memory() // 4)
            data, start = memoryview(unpacker.decompress(data[start:], most)), 0
            if not unpacker.eof:
                if len(data) >= most:
                    raise OSError(f"{path}: its deflated data do not fit in a quarter of the free memory")
                raise ValueError("deflated data end early")
        little, native = syntax != _BIG, syntax in _NATIVE
        reader = _Reader(data, little, syntax != _IMPLICIT)
        found, _ = reader.elements(start, len(data))
    except (struct.error, ValueError, zlib.error, RecursionError):
        return None
    return DataSet(found, little, native, reader.voxels if native and voxels else None)


def _meta_end(data: memoryview) -> int:
    """Where group 2 ends, which is explicit and little-endian in every file. The length that it states may be wrong."""
    at = 132
    while struct.unpack_from("<H", data, at)[0] == 2:
        if bytes(data[at + 4 : at + 6]) in _LONG:
            at += 12 + int(struct.unpack_from("<I", data, at + 8)[0])
        else:
            at += 8 + int(struct.unpack_from("<H", data, at + 6)[0])
    return at


class _Reader:
    """Walks over the elements of a data set."""

    def __init__(self, data: memoryview, little: bool, explicit: bool) -> None:
        self.data, self.order, self.explicit = data, "<" if little else ">", explicit
        self.voxels: memoryview | None = None

    def elements(self, at: int, end: int, depth: int = 0, explicit: bool | None = None) -> tuple[Elements, int]:
        """The elements from a place on up to `end`, to the end of the item, or to the voxels; and where they end."""
        explicit = self.explicit if explicit is None else explicit
        found: Elements = {}
        if depth > _DEEPEST:
            raise ValueError("sequences go too deep")
        while at < end:
            group, element = struct.unpack_from(f"{self.order}HH", self.data, at)
            number = group << 16 | element
            at += 4
            if number in (_ITEM_END, _SEQUENCE_END):
                return found, at + 4
            kind, length, at = self._length(at, explicit)
            if number in _PIXELS and depth == 0:
                if length != _UNDEFINED:
                    self.voxels = self.data[at : at + length]
                return found, at
            if length == _UNDEFINED and kind in (b"OB", b"OW"):
                at = self._behind_fragments(at)
                continue
            in_sequence = kind == b"SQ" or (not explicit and number in _SEQUENCES)
            if in_sequence or length == _UNDEFINED:
                # An unknown element of undefined length is a sequence with implicit VR (PS3.5, 6.2.2).
                stop = end if length == _UNDEFINED else at + length
                items, at = self._items(at, stop, depth, explicit and kind != b"UN")
                found[number] = items
                continue
            if at + length > end:
                raise ValueError("an element ends behind the file")
            if not group & 1:
                found[number] = bytes(self.data[at : at + length])
            at += length
        return found, at

    def _behind_fragments(self, at: int) -> int:
        """Where compressed voxels within a sequence end, as an icon has them."""
        while True:
            group, element, length = struct.unpack_from(f"{self.order}HHI", self.data, at)
            at += 8
            if group << 16 | element == _SEQUENCE_END:
                return at
            at += int(length)

    def _length(self, at: int, explicit: bool) -> tuple[bytes, int, int]:
        """An element's value representation, its length, and where its value begins."""
        if not explicit:
            return b"", int(struct.unpack_from(f"{self.order}I", self.data, at)[0]), at + 4
        kind = bytes(self.data[at : at + 2])
        if kind in _LONG:
            return kind, int(struct.unpack_from(f"{self.order}I", self.data, at + 4)[0]), at + 8
        return kind, int(struct.unpack_from(f"{self.order}H", self.data, at + 2)[0]), at + 4

    def _items(self, at: int, stop: int, depth: int, explicit: bool) -> tuple[list[Elements], int]:
        """The items of a sequence, and where it ends."""
        items = []
        while at < stop:
            group, element, length = struct.unpack_from(f"{self.order}HHI", self.data, at)
            number = group << 16 | element
            at += 8
            if number == _SEQUENCE_END:
                break
            if number != _ITEM:
                raise ValueError("a sequence has something else than items")
            item, after = self.elements(at, stop if length == _UNDEFINED else at + length, depth + 1, explicit)
            items.append(item)
            at = after
        return items, at
