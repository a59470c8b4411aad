"""Volumes packed into files: what ITK writes before the voxels, and the voxels, packed by all threads."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gpuresample import texts
from gpuresample.files import gzips, nifti

if TYPE_CHECKING:
    import SimpleITK

# Digits and blanks for the number of packed bytes, which is known at the end. Readers skip blanks before a number.
_ROOM = 16


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
        A name that ends in .nii.gz, .nrrd or .mha; what is there is lost.
    codes : tuple of int, optional
        Of sform and qform of a NIfTI file, where they are not 1 and 1.
    level, done : optional
        As `gzips.pack` takes them.

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
    is_nifti, is_meta = target.name.endswith(".nii.gz"), target.suffix == ".mha"
    head = _head(image, target, is_nifti)
    if is_nifti and codes is not None:
        head = nifti.with_codes(head, codes)
    with open(target, "wb") as out:
        if not is_nifti:
            out.write(head)
        pieces = _pieces(image, head if is_nifti else b"", is_nifti)
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
    sitk.WriteImage(small, texts.utf8_name(target), True)
    content = target.read_bytes()
    if is_nifti:
        unpacked = gzip.decompress(content)
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
