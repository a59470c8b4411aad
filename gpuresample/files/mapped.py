"""NIfTI files as volumes whose voxels stay in the file until they are needed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from gpuresample.containers import Volume
from gpuresample.files import completeness, detached, nifti
from gpuresample.files.volumes import PathLike, header


def open_nifti(path: PathLike) -> Volume:
    """Open an unpacked NIfTI file as a volume whose voxels are a memory map of the file.

    `resample(open_nifti(path), region=...)` reads what the region needs, and no more.

    Parameters
    ----------
    path : str or Path
        A .nii file of scalars.

    Returns
    -------
    Volume
        Read-only, in the stored voxel type, (z, y, x) or (t, z, y, x), where SimpleITK puts it. It keeps the file open;
        it must not change meanwhile.

    Raises
    ------
    OSError
        For files that cannot be read, or end early.
    ValueError
        For packed files (.nii.gz), of which no part can be read without all that comes before it; for files of other
        formats, of two parts (.hdr and .img), of vectors, and with a slope or intercept in their header.

    Examples
    --------
    >>> import gpuresample as gr
    >>> ct = gr.open_nifti("ct.nii")  # doctest: +SKIP
    >>> patch = gr.resample(ct, spacing=1, region=[slice(100, 196)] * 3)  # doctest: +SKIP
    """
    path = Path(path)
    found = header(path)
    form = nifti.of(path)
    if form is None or detached.half(path):
        raise ValueError(f"{path}: must be a NIfTI file in one piece (.nii), to be mapped; read it by its own library")
    if completeness.is_packed(path):
        raise ValueError(
            f"{path}: is packed, so a part of it cannot be read without all that comes before it; unpack it once "
            "(gunzip, zstd -d), or store it as zarr"
        )
    kind = nifti.VOXELS.get(form.datatype)
    if kind is None or found.components or len(form.size) > 4:
        raise ValueError(f"{path}: must have scalar voxels on up to 4 axes to be mapped, got {found.pixel_type}")
    if form.scales:
        raise ValueError(
            f"{path}: its header scales what is stored (slope {form.slope:g}, intercept {form.intercept:g}), so its "
            "voxels are not in the file as they are; nibabel.load(path) scales the part that is read"
        )
    dtype = np.dtype(form.order + kind)
    needed = form.offset + int(np.prod(form.size, dtype=np.int64)) * dtype.itemsize
    if os.path.getsize(path) < needed:
        raise OSError(f"{path}: ends after {os.path.getsize(path):,} bytes, but its header promises {needed:,}")
    # Axes of one voxel at the end are not of the image.
    size = form.size[: max(2, len(found.size))]
    array = np.memmap(path, dtype, "r", form.offset, size[::-1])
    d = min(len(size), 3)
    n = len(found.size)
    direction = np.reshape(found.direction, (n, n))[:d, :d]
    nifti.warn_of_forms(path, form, form.taken(found.origin, found.direction))
    return Volume(array, found.spacing[:d], found.origin[:d], direction.ravel().tolist())
