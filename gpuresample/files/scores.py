"""Class scores out of files: what networks leave behind, one model to a file."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuresample.files import volumes as files

# Names of the array in an .npz, the first that is there: nnU-Net 2 and 1.
NPZ_ARRAYS = ("probabilities", "softmax")
READABLE = (".npz", ".npy", ".zarr", "and the image formats that SimpleITK reads")


def holds_probabilities(path: files.PathLike) -> bool:
    """Whether a file of this name holds probabilities by custom (.npz, as nnU-Net writes them), not scores."""
    return Path(path).suffix == ".npz"


def read(path: files.PathLike, name: str | None = None) -> Any:
    """The scores of one model.

    Parameters
    ----------
    path : path-like
        .npz (read whole), .npy (memory-mapped), .zarr (read piece by piece), or an image whose components or fourth
        axis are the classes.
    name : str, optional
        Of the array in an .npz or a zarr group; for .npz one of `NPZ_ARRAYS` unless given, for zarr "0".

    Returns
    -------
    ndarray, zarr.Array or SimpleITK.Image
        As `gpuresample.ensemble` takes it; arrays are (class, z, y, x).

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    OSError
        If it is no regular file or folder, is damaged, or
        holds Python objects: these are not loaded, since loading them runs code.
    ValueError
        If it lacks the array.
    ModuleNotFoundError
        For .zarr without zarr installed.
    """
    path = Path(path)
    files.check_input(path)
    if path.suffix == ".zarr":
        return _zarr(path, name)
    if path.suffix not in (".npz", ".npy"):
        return files.read(path)
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        # Opened here: NumPy leaves the file of a damaged archive open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            wanted = NPZ_ARRAYS if name is None else (name,)
            found = [n for n in wanted if n in archive.files]
            if found:
                return archive[found[0]]
            there = list(archive.files)
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "holds Python objects, which are not loaded" if "object" in str(error).lower() else "is damaged"
        raise OSError(f"{path}: {reason} ({error})") from None
    raise ValueError(_lacks(path, wanted, there))


def _lacks(path: Path, wanted: Sequence[str], there: Sequence[str]) -> str:
    """That a file has no array of a name, and what it has."""
    return f"{path}: has no array {' or '.join(map(repr, wanted))}, but {', '.join(map(repr, there)) or 'none'}"


def _zarr(path: Path, name: str | None) -> Any:
    """An array of a zarr store."""
    try:
        import zarr
    except ImportError:
        raise ModuleNotFoundError(
            f'{path}: reading zarr needs zarr: pip install "gpuresample[zarr]"', name="zarr"
        ) from None
    found = zarr.open(str(path), mode="r")
    if hasattr(found, "shape"):
        return found
    wanted = name if name is not None else "0"
    if wanted not in found:
        raise ValueError(_lacks(path, (wanted,), sorted(found)))
    return found[wanted]
