"""Class scores as nnU-Net leaves them: where they lie is in the .pkl beside them.

nnU-Net 1 writes scores on the box that it cropped the image to. nnU-Net 2 writes them on the whole image, as its reader
saw that: `NibabelIOWithReorient` turns images to RAS first. Its .b2nd files are of the cropped box, too, and have the
spacing that the network wants.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.containers import grid_of
from gpuresample.containers.spatial_images import FLIP, grid_of_affine
from gpuresample.files import scores as score_files
from gpuresample.files import volumes as files
from gpuresample.planning.grid import Grid

# What pickled numbers, arrays and dicts need; nothing else is called.
_MAKERS = {
    "_reconstruct": np.zeros(1).__reduce__()[0],
    "_frombuffer": np.zeros(1).__reduce_ex__(5)[0],
    "scalar": np.float64(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class _Plain(pickle.Unpickler):
    """Loads plain Python values and NumPy arrays. All else is refused, since loading it runs code."""

    def find_class(self, module: str, name: str) -> Any:
        """What a pickle may call."""
        if module.split(".", maxsplit=1)[0] == "numpy" and name in _MAKERS:
            return _MAKERS[name]
        if (module, name) in (("collections", "OrderedDict"), ("builtins", "slice"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it holds {module}.{name}, which is not loaded: loading it may run code")


def read(path: Path, name: str | None, like: sitk.Image, spacing_given: bool, overlap: bool) -> Any:
    """The scores of one model, placed where nnU-Net says that they lie.

    Parameters
    ----------
    path : Path
        As `gpuresample.files.scores.read` takes it, or a .b2nd of Blosc2.
    name : str, optional
        Of the array in it. Without a name, the scores of an .npz are nnU-Net's.
    like : SimpleITK.Image
        The image that they are scores of.
    spacing_given : bool
        Whether the caller knows the spacing of arrays: then they lie by that.
    overlap : bool
        Whether classes may overlap, so that there is none past a crop; else there is class 0.

    Returns
    -------
    ndarray, Volume, zarr.Array or SimpleITK.Image
        As `gpuresample.ensemble` takes it.

    Raises
    ------
    ValueError
        For an .npz or .b2nd of nnU-Net that neither covers the image nor has a .pkl that says where it lies, and for
        one that does not fit its .pkl or the image.
    OSError
        For files that are missing or damaged, or hold more than plain values.
    ModuleNotFoundError
        For .b2nd without blosc2 installed.
    """
    is_blosc2 = path.suffix == ".b2nd"
    scores = _blosc2(path) if is_blosc2 else score_files.read(path, name)
    if not (is_blosc2 or path.suffix == ".npz") or name is not None or spacing_given or scores.ndim != 4:
        return scores
    image = grid_of(like, 3)
    assert isinstance(image, Grid)
    beside = path.with_suffix(".pkl")
    properties = _properties(beside) if beside.exists() else {}
    size = tuple(scores.shape[:0:-1])
    box = properties.get("bbox_used_for_cropping" if is_blosc2 else "crop_bbox")
    whole = properties.get("shape_before_cropping" if is_blosc2 else "original_size_of_raw_data")
    turned = (properties.get("nibabel_stuff") or {}).get("reoriented_affine")
    if turned is not None:
        seen = size if whole is None or not is_blosc2 else tuple(int(n) for n in whole)[::-1]
        image = grid_of_affine(FLIP @ np.asarray(turned, np.float64), seen, f"{beside}: reoriented_affine")
    if box is not None and (is_blosc2 or size != image.size):
        whole = image.size[::-1] if whole is None else tuple(int(n) for n in whole)
        if whole[::-1] != image.size:
            raise ValueError(f"{beside}: is of an image of {whole} voxels (z, y, x), but --like has {image.size[::-1]}")
        if not is_blosc2 and tuple(int(b) - int(a) for a, b in box) != scores.shape[1:]:
            raise ValueError(f"{path}: has scores of {scores.shape[1:]} voxels, but its .pkl says the box {box}")
        return _on_box(scores, image, [(int(a), int(b)) for a, b in box], overlap)
    if size != image.size:
        raise ValueError(
            f"{path}: has scores of {scores.shape[1:]} voxels (z, y, x), but --like has {image.size[::-1]}. "
            f"nnU-Net writes scores on a cropped box and says in {beside.name} where that lies: "
            + ("it says nothing of that" if properties else "put that file beside it")
            + ". For scores of another origin give --scores-spacing"
        )
    return scores if turned is None else _volume(scores, image)


def _on_box(scores: Any, image: Grid, box: list[tuple[int, int]], overlap: bool) -> gr.Volume:
    """Scores that cover a box of an image's voxels, z, y, x.

    On other voxels than the image's they are resampled first, as nnU-Net does before it puts them where the box was.
    """
    size = tuple(b - a for a, b in box)
    if scores.shape[1:] != size:
        scores = gr.resample(scores, size=size, anchor="edge", interpolation="linear", boundary="nearest")
    # One voxel of what lies past the box, all around: else its last scores would reach a voxel further.
    framed = np.zeros((scores.shape[0], *(n + 2 for n in size)), scores.dtype)
    framed[0] = 0 if overlap else 1
    framed[:, 1:-1, 1:-1, 1:-1] = scores
    origin = image.points(np.array([[a - 1.0 for a, _ in box[::-1]]]))[0].tolist()
    return _volume(framed, Grid(framed.shape[:0:-1], image.spacing, tuple(origin), image.direction))


def _volume(scores: Any, grid: Grid) -> gr.Volume:
    return gr.Volume(scores, grid.spacing, grid.origin, grid.direction)


def _properties(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found = _Plain(file).load()
    except OSError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise OSError(f"{path}: cannot be read ({error})") from None
    if not isinstance(found, dict):
        raise OSError(f"{path}: holds a {type(found).__name__}, not nnU-Net's properties")
    return found


def _blosc2(path: Path) -> Any:
    try:
        import blosc2
    except ImportError:
        raise ModuleNotFoundError(f"{path}: reading .b2nd needs blosc2: pip install blosc2", name="blosc2") from None
    files.check_input(path)
    return blosc2.open(str(path), mode="r")[...]
