"""Volumes packed in files: unpacked once, into place; written as ITK writes them, and packed by all threads."""

from __future__ import annotations

import gzip
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample import texts
from gpuresample.engines.cpu.memory import writable_alias
from gpuresample.files import completeness, detached, gzips, nifti, zstds

if TYPE_CHECKING:
    import SimpleITK

# Digits and blanks for the number of packed bytes, which is known at the end. Readers skip blanks before a number.
_ROOM = 16


def read(
    path: Path, form: nifti.Form | None, reader: SimpleITK.ImageFileReader, done: Callable[[int], None] | None = None
) -> SimpleITK.Image | None:
    """The image of a packed file whose voxels are stored as ITK would hand them out, unpacked once, into place.

    NaN and infinity stay. None for files that are not packed, and where ITK scales voxels, or makes vectors of them.

    Parameters
    ----------
    path : Path
    form : nifti.Form or None
        Its header, of a NIfTI file.
    reader : SimpleITK.ImageFileReader
        That has read the header, too.
    done : callable, optional
        Is told how many bytes of voxels there are so far.

    Raises
    ------
    OSError
        If the stream is damaged or ends early.
    """
    import SimpleITK as sitk

    layout = _layout(path, form, reader.GetSize())
    metadata = _metadata(reader)
    if layout is None or metadata is None or reader.GetNumberOfComponents() != 1:
        return None
    image = sitk.Image(reader.GetSize(), reader.GetPixelID())
    view = sitk.GetArrayViewFromImage(image)
    swapped, nbytes, dtype = layout
    if view.nbytes != nbytes or view.dtype.kind not in "iuf" or dtype not in (None, view.dtype):
        return None
    array = writable_alias(view, image)
    memory = array.reshape(-1).view(np.uint8)
    if form is not None:
        completeness.unzipped_into(path, form.offset, memory, done)
    else:
        detached.check_packed(path, _filling(memory, done))
    if swapped:
        array.byteswap(inplace=True)
    image.SetSpacing(reader.GetSpacing())
    image.SetOrigin(reader.GetOrigin())
    image.SetDirection(reader.GetDirection())
    for key, value in metadata.items():
        image.SetMetaData(key, value)
    return image


def _metadata(reader: SimpleITK.ImageFileReader) -> dict[str, str] | None:
    """What a header says besides; None where some of it is no text, which ITK alone can hand on."""
    try:
        return {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    except (TypeError, UnicodeError):
        return None


def _layout(
    path: Path, form: nifti.Form | None, size: Sequence[int]
) -> tuple[bool, int | None, np.dtype[Any] | None] | None:
    """Whether voxels are of the other byte order, their bytes, and their type if known; None where ITK must read."""
    little = sys.byteorder == "little"
    if form is not None:
        ours = completeness.is_packed(path) and not detached.half(path) and form.offset <= completeness.MOST_HEAD
        if not ours or form.stored is None or form.size != tuple(size):
            return None
        return (form.order == ">") == little, math.prod(size) * form.stored.itemsize, form.stored.newbyteorder("=")
    found = detached.of_header(path)
    if found is None or found.encoding not in ("zlib", "gzip") or len(found.files) > 1:
        return None
    return found.big == little, found.nbytes, None


def _filling(memory: npt.NDArray[np.uint8], done: Callable[[int], None] | None) -> Callable[[bytes], None]:
    """What puts blocks, one after the other, into memory; what is too much is left out."""
    at = 0

    def fill(block: bytes) -> None:
        nonlocal at
        part = np.frombuffer(block, np.uint8)[: memory.size - at]
        memory[at : at + part.size] = part
        at += part.size
        if done is not None:
            done(at)

    return fill


def write(
    image: SimpleITK.Image,
    target: Path,
    codes: tuple[int, int] | None = None,
    level: int | None = None,
    done: Callable[[int], None] | None = None,
) -> int:
    """Write a packed file, which is ITK's but for the bytes of the stream.

    Parameters
    ----------
    image : SimpleITK.Image
        What to write.
    target : Path
        A name that ends in .nii.gz, .nii.zst, .nrrd or .mha; what is there is lost.
    codes : tuple of int, optional
        Of sform and qform of a NIfTI file, where they are not 1 and 1.
    level, done : optional
        As `gzips.pack` and `zstds.pack` take them.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    OSError
        If it cannot be written, or NIfTI has no room for the number of voxels along an axis.
    RuntimeError
        If ITK does not write such images.
    """
    import SimpleITK as sitk

    is_zstd, is_meta = zstds.named(target), target.suffix == ".mha"
    is_nifti = is_zstd or target.name.endswith(".nii.gz")
    head = _head(image, target, is_nifti)
    if is_nifti and codes is not None:
        head = nifti.with_codes(head, codes)
    with open(target, "wb") as out:
        if not is_nifti:
            out.write(head)
        pieces = _pieces(image, head if is_nifti else b"", is_nifti)
        if is_zstd:
            nbytes = sitk.GetArrayViewFromImage(image).nbytes
            zstds.pack(pieces, out, len(head) + nbytes, level, done)
        else:
            gzips.pack(pieces, out, "zlib" if is_meta else "gzip", level, done)
        length = out.tell()
        if is_meta:
            out.seek(head.index(_ROOM * b" " + b"\n"))
            out.write(b"%*d" % (_ROOM, length - len(head)))
    return length


def _pieces(image: SimpleITK.Image, head: bytes, planar: bool) -> Iterator[memoryview]:
    """The head and the voxels; `planar`: the components of vectors one after the other."""
    import SimpleITK as sitk

    if head:
        yield memoryview(head)
    array = sitk.GetArrayViewFromImage(image)
    count = image.GetNumberOfComponentsPerPixel()
    for k in range(count if planar else 1):
        part = np.ascontiguousarray(array[..., k]) if planar and count > 1 else array
        yield part.reshape(-1).view(np.uint8).data


def _head(image: SimpleITK.Image, target: Path, is_nifti: bool) -> bytes:
    """What ITK writes before the voxels: that of a small image like this one, with this one's size."""
    import SimpleITK as sitk

    size = image.GetSize()
    small = sitk.Image([min(n, 2) for n in size], image.GetPixelID(), image.GetNumberOfComponentsPerPixel())
    small.SetSpacing(image.GetSpacing())
    small.SetOrigin(image.GetOrigin())
    small.SetDirection(image.GetDirection())
    for key in image.GetMetaDataKeys():
        small.SetMetaData(key, image.GetMetaData(key))
    if zstds.named(target):  # which ITK does not write
        with tempfile.TemporaryDirectory(prefix="gpuresample-") as folder:
            plain = Path(folder) / "small.nii"
            sitk.WriteImage(small, str(plain))
            content = plain.read_bytes()
    else:
        sitk.WriteImage(small, texts.utf8_name(target), True)
        content = target.read_bytes()
    if is_nifti:
        unpacked = content if zstds.named(target) else gzip.decompress(content)
        return nifti.with_size(unpacked[: len(unpacked) - sitk.GetArrayViewFromImage(small).nbytes], size)
    old, new = (b" ".join(b"%d" % n for n in numbers) for numbers in (small.GetSize(), size))
    if target.suffix == ".nrrd":
        head = content[: content.index(b"\n\n") + 2]
        start = head.index(old + b"\n", head.index(b"\nsizes: "))
    else:
        packed = re.search(rb"(?m)^CompressedDataSize = (\d+)$", content)
        assert packed is not None
        head = content[: packed.start(1)] + _ROOM * b" " + content[packed.end(1) : len(content) - int(packed[1])]
        start = head.rindex(b"\nDimSize = ") + len(b"\nDimSize = ")  # behind the image's metadata
    return head[:start] + new + head[start + len(old) :]
