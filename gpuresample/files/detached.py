"""Which files the voxels of a header are in (MetaImage, NRRD, pairs of NIfTI), and whether these hold what it promises.

A header names its data files, and ITK opens whatever it names: any file of the machine, a pipe, or nothing at all. Then
it hands out memory that nobody wrote. So headers are read here first, by the rules of ITK's own readers.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from gpuresample.files import disk, elements, gzips
from gpuresample.frozen import frozen

# Set to 1, this lets headers name files in any folder: `gpuresample --data-anywhere` sets it.
ANYWHERE = "GPURESAMPLE_DATA_ANYWHERE"

_HEAD = 1 << 20  # bytes; longer headers are refused, lists of files aside
_BLOCK = 1 << 20
_META = {
    "CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4, "LONG_LONG": 8,
    "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8,
}  # fmt: skip
_NRRD = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1, "short": 2,
    "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2, "ushort": 2,
    "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2, "int": 4, "signed int": 4, "int32": 4,
    "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4, "longlong": 8, "long long": 8,
    "long long int": 8, "signed long long": 8, "signed long long int": 8, "int64": 8, "int64_t": 8, "ulonglong": 8,
    "unsigned long long": 8, "unsigned long long int": 8, "uint64": 8, "uint64_t": 8, "float": 4, "double": 8,
}  # fmt: skip
# A pattern of names goes through printf in ITK: one number, and nothing else that printf knows.
_PATTERN = re.compile(r"([^%\s]*%0?\d?d[^%\s]*)\s+(-?\d{1,9})\s+(-?\d{1,9})\s+(-?\d{1,9})(?:\s+(\d+))?")


@frozen()
class Detached:
    """Where a header's voxels are.

    Attributes
    ----------
    files : tuple of Path
        In order; the header's own file where they follow it.
    nbytes : int or None
        Bytes of all voxels; None where the header does not let us tell.
    skip : int
        Bytes before the voxels of each file; -1 where they are the last ones.
    encoding : str
        "raw", "zlib", "gzip", "hex", or another of NRRD's, which is not looked into.
    packed : int or None
        Bytes of a zlib stream, as the header has them.
    big : bool
        Whether the first byte of a number is the largest.
    """

    files: tuple[Path, ...]
    nbytes: int | None
    skip: int = 0
    encoding: str = "raw"
    packed: int | None = None
    big: bool = False


def check(path: Path) -> None:
    """Refuse a header whose data files are missing, elsewhere, no files, or too short; others are let pass.

    Whether compressed data are whole, `check_packed` says, which takes time.

    Raises
    ------
    OSError
        With the reason.
    """
    found = of_header(path)
    if found is None:
        return
    for file in found.files:
        if kind := disk.odd_kind(file):
            raise OSError(f"{path}: its data file {file.name} is {kind}; only regular files are read")
        if not file.is_file():
            raise FileNotFoundError(f"{path}: its data file {file} is not there")
    if found.nbytes is None or found.encoding not in ("raw", "hex"):
        return
    each = -(-found.nbytes // len(found.files)) * (2 if found.encoding == "hex" else 1)
    for file in found.files:
        length = os.path.getsize(file) - max(found.skip, 0)
        if length < each:
            raise OSError(f"{path}: the file ends early: {max(length, 0):,} of {each:,} bytes of voxels in {file.name}")


def check_packed(path: Path, watch: Callable[[bytes], None] | None = None) -> None:
    """Refuse compressed data that are damaged, or shorter than the header says; all of them are unpacked once.

    `watch` is handed the unpacked bytes as they pass.

    Raises
    ------
    OSError
        With the reason.
    """
    found = of_header(path)
    if found is None or found.nbytes is None or found.encoding not in ("zlib", "gzip"):
        return
    each = -(-found.nbytes // len(found.files))
    for file in found.files:
        if found.packed is not None and found.packed > os.path.getsize(file) - found.skip:
            raise OSError(f"{path}: the file ends early: the header promises {found.packed:,} compressed bytes")
        try:
            with open(file, "rb") as stream:
                stream.seek(found.skip)
                packed = os.path.getsize(file) if found.packed is None else found.packed
                length = _unpacked(stream, found.encoding == "gzip", packed, each, watch)
        except gzips.damaged() as error:
            raise OSError(f"{path}: the compressed voxels in {file.name} are damaged or end early ({error})") from None
        if length < each:
            raise OSError(f"{path}: the file ends early: {length:,} of {each:,} bytes of voxels in {file.name}")


def stored_bytes(path: Path) -> int:
    """Bytes of a header and of its data files together; of the file alone where it is no such header."""
    found = of_header(path)
    files = {path} if found is None else {path, *found.files}
    return sum(os.path.getsize(file) for file in files)


def parts(path: Path) -> list[Path]:
    """The files that a volume is made of: its own, and those of its voxels that are there."""
    if half(path):
        return [path, *(p for p in _pair(path) if p.is_file())]
    try:
        found = of_header(path)
    except OSError:
        return [path]
    return [path, *(file for file in ([] if found is None else found.files) if file != path and file.is_file())]


def of_header(path: Path) -> Detached | None:
    """What a header says of its data files; None for all that is neither MetaImage nor NRRD nor a pair of files.

    Raises
    ------
    OSError
        If it names none, or some that are not beside it or below, or the other file of a pair is no regular file.
    """
    if half(path) and not (path.is_file() and elements.is_dicom(path)):
        return _analyze(path)
    suffix = path.suffix.lower()
    if suffix not in (".mha", ".mhd", ".nrrd", ".nhdr"):
        return None
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if suffix in (".nrrd", ".nhdr"):
        return _nrrd(path, head) if head.startswith(b"NRRD") else None
    # Without these, ITK does not take it for MetaImage.
    return _meta(path, head) if b"NDims" in head or b"ElementDataFile" in head else None


def half(path: Path) -> str:
    """Which half of an Analyze or NIfTI pair of files a path names, ".hdr" or ".img"; "" for all others."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return ending if (ending := bare.suffix.lower()) in (".hdr", ".img") else ""


def _pair(path: Path) -> list[Path]:
    """The other half of Analyze's and NIfTI's pairs of files."""
    bare = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    other = ".img" if half(path) == ".hdr" else ".hdr"
    endings = [other, f"{other}.gz"] if bare == path else [f"{other}.gz", other]
    stem = bare.with_suffix("")
    return [stem.with_name(stem.name + (e.upper() if bare.suffix.isupper() else e)) for e in endings]


def _analyze(path: Path) -> Detached:
    """Of a pair of Analyze or NIfTI, by the path of either."""
    if path.suffix.lower() == ".gz" and (twin := path.with_suffix("")).exists():
        raise OSError(f"{path}: ITK would read {twin.name}, which is beside it, in its stead; move one of them away")
    other = next((p for p in _pair(path) if p.exists()), None)
    if other is None:
        raise FileNotFoundError(f"{path}: the other file of the pair, {_pair(path)[0].name}, is not there")
    if kind := disk.odd_kind(other):
        raise OSError(f"{path}: its data file {other.name} is {kind}; only regular files are read")
    header, voxels = (path, other) if half(path) == ".hdr" else (other, path)
    try:
        with gzip.open(header) if header.suffix.lower() == ".gz" else open(header, "rb") as file:
            found = nifti_layout(file.read(540))
    except (EOFError, OSError, zlib.error) as error:
        raise OSError(f"{path}: the header cannot be read ({error})") from None
    if found is None:
        return Detached((voxels,), None)
    offset, nbytes = found
    if voxels.suffix.lower() == ".gz":  # counted in unpacked bytes
        return Detached((voxels,), offset + nbytes, 0, "gzip")
    return Detached((voxels,), nbytes, offset)


def nifti_layout(head: bytes, magic: bytes = b"ni") -> tuple[int, int] | None:
    """Where voxels begin and their bytes, by the header of an Analyze or NIfTI file.

    Parameters
    ----------
    head : bytes
        The first 540 bytes, or fewer.
    magic : bytes
        How a NIfTI header's mark begins: "ni" where the voxels are in a file of their own, which Analyze's without a
        mark are, too; "n+" where they follow. Other headers give None.

    Raises
    ------
    OSError
        If the header says that they begin nowhere.
    """
    if len(head) < 348:
        return None
    order = "<" if struct.unpack_from("<i", head)[0] in (348, 540) else ">"
    size = struct.unpack_from(order + "i", head)[0]
    if head[4:8] == magic + b"2\0" and len(head) >= 540:
        dim = struct.unpack_from(order + "8q", head, 16)
        bits, offset = struct.unpack_from(order + "h", head, 14)[0], struct.unpack_from(order + "q", head, 168)[0]
    elif head[344:348] == magic + b"1\0" or (magic == b"ni" and size == 348 and head[344:346] not in (b"n+", b"ni")):
        dim = struct.unpack_from(order + "8h", head, 40)
        bits, offset = struct.unpack_from(order + "h", head, 72)[0], struct.unpack_from(order + "f", head, 108)[0]
    else:
        return None
    if not math.isfinite(offset):
        raise OSError(f"the header is damaged: vox_offset is {offset}")
    if magic == b"n+":  # voxels do not begin within the header, whatever it says
        offset = max(offset, size)
    return int(offset), math.prod(max(1, n) for n in dim[1 : 1 + max(0, min(7, dim[0]))]) * bits // 8


def _meta(path: Path, head: bytes) -> Detached:
    """Of a MetaImage header, which ends with the line ElementDataFile."""
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:][ \t]*([^\r\n]*)(\r?\n|$)", head, re.MULTILINE)
    if last is None or not last[1].strip():
        raise OSError(f"{path}: the header names no data: ElementDataFile is missing or empty")
    lines = re.findall(rb"^[ \t]*(\w+)[ \t]*[=:][ \t]*([^\r\n]*)", head[: last.start()], re.MULTILINE)
    fields = {key.decode(): value.decode("latin-1").strip() for key, value in lines}
    sizes = _whole(fields.get("DimSize", ""))
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    channels = (_whole(fields.get("ElementNumberOfChannels", "1")) or [1])[0]
    nbytes = math.prod(sizes) * _META[kind] * channels if sizes and kind in _META else None
    packed = None
    encoding = "text" if fields.get("BinaryData", "True").lower() in ("false", "0") else "raw"
    if fields.get("CompressedData", "False")[:1] in ("T", "t", "1"):
        encoding = "zlib"
        stated = _whole(fields.get("CompressedDataSize", ""))
        if not stated:
            raise OSError(f"{path}: the voxels are compressed, and the header lacks CompressedDataSize")
        packed = stated[0]
    skip = int(s) if re.fullmatch(r"-?\d{1,18}", s := fields.get("HeaderSize", "0")) else 0
    order = fields.get("BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    big = order[:1] in ("T", "t", "1")
    name = os.fsdecode(last[1].strip())
    if name.upper() == "LOCAL":
        return Detached((path,), nbytes, last.end(), encoding, packed, big)
    words = name.split()
    listed = name.startswith("LIST")
    if listed and not (words[0] == "LIST" and len(words) <= 2 and "".join(words[1:]).isdigit() == (len(words) == 2)):
        raise OSError(f"{path}: ElementDataFile takes names that begin with LIST for a list; got {name!r}")
    if listed or "%" in name:
        pieces = int(words[1]) if listed and len(words) == 2 else len(sizes) - 1
        count = math.prod(sizes[pieces:]) if 0 <= pieces <= len(sizes) else 0
        names = [os.fsdecode(n) for n in _after(path, last.end())] if listed else list(_numbered(path, name, count))
        if not 0 < count <= len(names):
            raise OSError(f"{path}: the header names {len(names):,} data files, and asks for {count:,}")
        if encoding == "zlib":
            raise OSError(f"{path}: the voxels are compressed and in several files, which ITK does not read rightly")
        names = names[:count]
    else:
        names = [name]
    return Detached(tuple(_beside(path, n) for n in names), nbytes, skip, encoding, packed, big)


def _nrrd(path: Path, head: bytes) -> Detached:
    """Of an NRRD header, which ends with an empty line or the file."""
    end = re.search(rb"\r?\n\r?\n", head)
    text = head if end is None else head[: end.start()]
    lines = re.findall(rb"^([^\r\n:#]+):(?!=)[ \t]*([^\r\n]*)", text, re.MULTILINE)
    fields = {key.decode("latin-1").lower().replace(" ", ""): value.strip() for key, value in lines}
    words = {key: value.decode("latin-1").lower() for key, value in fields.items()}
    sizes = _whole(words.get("sizes", ""))
    item = _NRRD.get(words.get("type", ""))
    nbytes = math.prod(sizes) * item if sizes and item else None
    encoding = words.get("encoding", "raw")
    encoding = "gzip" if encoding == "gz" else encoding
    skip = int(s) if re.fullmatch(r"-?\d{1,18}", s := words.get("byteskip", "0")) else 0
    if "lineskip" in words:
        # How long the lines are, only reading them tells.
        nbytes = nbytes if words["lineskip"] == "0" else None
    if encoding != "raw" and skip:
        nbytes = None  # counted in unpacked bytes
    big = words.get("endian") == "big"
    if "datafile" not in fields:
        if end is None:
            raise OSError(f"{path}: the header names no data: neither voxels nor a data file follow")
        return Detached((path,), nbytes, end.end() + max(skip, 0), encoding, big=big)
    name = os.fsdecode(fields["datafile"])
    if re.fullmatch(r"LIST(\s+\d+)?", name):
        start = re.search(rb"^data ?file:[^\r\n]*\r?\n", head, re.MULTILINE | re.IGNORECASE)
        names = [] if start is None else [os.fsdecode(b" ".join(n.split())) for n in _after(path, start.end())]
    elif re.search(r"%\S*d", name):
        names = list(_numbered(path, name, math.prod(sizes)))
    else:
        names = [name]
    if not any(names):
        raise OSError(f"{path}: the header names no data: the list of data files is empty")
    return Detached(tuple(_beside(path, n) for n in names), nbytes, skip, encoding, big=big)


def _whole(text: str) -> list[int]:
    """Whole numbers above zero; none where there is anything else."""
    words = text.split()
    return [int(w) for w in words] if all(re.fullmatch(r"0*[1-9]\d{0,17}", w) for w in words) else []


def _after(path: Path, start: int) -> list[bytes]:
    """The lines of a file from a place on. Blanks before a name are its own to MetaImage, and empty lines are names."""
    with open(path, "rb") as file:
        file.seek(start)
        return [line.rstrip() for line in file.read().rstrip().splitlines()]


def _numbered(path: Path, text: str, most: int) -> Iterator[str]:
    """The names that a pattern with a first number, a last one and a step stands for, `most` of them at most."""
    found = _PATTERN.fullmatch(text)
    step = int(found[4]) if found else 0
    if found is None or step == 0:
        raise OSError(f"{path}: data files are named by one number, as in 'slice%03d.raw 1 20 1'; got {text!r}")
    first, last = int(found[2]), int(found[3])
    for number in range(first, last + (1 if step > 0 else -1), step)[:most]:
        yield found[1] % number


def _beside(path: Path, name: str) -> Path:
    """A data file's path.

    Raises
    ------
    OSError
        If it would be outside the header's folder.
    """
    if "\0" in name:
        raise OSError(f"{path}: the header is damaged: the name of its data file has a zero byte")
    if os.environ.get(ANYWHERE) != "1" and (Path(name).is_absolute() or ".." in Path(name).parts or name == "-"):
        raise OSError(
            f"{path}: its data file {name!r} is not in the header's folder; where headers are trusted, "
            f"--data-anywhere ({ANYWHERE}=1) reads it"
        )
    return path.parent / name


def _unpacked(stream: IO[bytes], gzipped: bool, packed: int, enough: int, watch: Callable[[bytes], None] | None) -> int:
    """Bytes in a compressed stream, whose checksum is verified; what comes long after enough of them is not read.

    Raises
    ------
    EOFError, zlib.error, or isal's own
        If the stream is cut short or damaged.
    """
    form = 31 if gzipped else 15  # as zlib numbers them
    length, held, unpack = 0, b"", gzips.unpacker(form)
    while length <= enough + _BLOCK:
        if not held:
            held = stream.read(min(_BLOCK, packed))
            packed -= len(held)
            if not held:
                raise EOFError("the stream does not end")
        block = unpack.decompress(held, _BLOCK)
        length += len(block)
        if watch is not None:
            watch(block)
        held = unpack.unconsumed_tail
        if unpack.eof:
            held = unpack.unused_data or stream.read(min(_BLOCK, packed))
            # Streams of gzip may follow each other; anything else behind one is not voxels.
            if not (gzipped and length < enough and held.startswith(b"\x1f\x8b")):
                break
            unpack = gzips.unpacker(form)
    return length
