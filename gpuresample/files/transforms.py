"""Transforms from files: ITK's and ANTs', elastix', and through nitransforms those of FSL, AFNI, FreeSurfer and X5.

What is read maps points of the output's space to the input's (LPS millimetres), whatever the file holds: SimpleITK's
transforms, displacement fields with a grid of their own, or paths of these. So their numbers are x, y, z beside every
kind of image.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpuresample import texts
from gpuresample.checks import one_of, shown
from gpuresample.containers import grid_of
from gpuresample.files import elastix, foreign, neuroimaging, nifti
from gpuresample.files import volumes as files
from gpuresample.files.grids import grid_of_file
from gpuresample.ops import transforms as ops
from gpuresample.planning.grid import Grid

FORMATS = ("itk", "elastix", "field", "fsl", "afni", "freesurfer", "x5", "lps", "ras")

_STRAIGHT = "from output to input, as stored"
_TURNED = "from input to output in the file, inverted"
_IMAGES = (".nii", ".nii.gz", ".nii.zst", ".nrrd", ".nhdr", ".mha", ".mhd", ".mgz", ".mgh", ".vtk")
# NIfTI's intents: vectors in LPS as ITK and ANTs write them, displacements in RAS, FSL's fields and coefficients.
_LPS, _RAS, _FNIRT, _COEFFICIENTS = 1007, 1006, 2006, range(2007, 2017)
# Bytes of a text that are looked at to know what it is.
_HEAD = 1 << 16

Item = str | os.PathLike[str] | tuple[Any, bool]


@dataclass(frozen=True)
class Loaded:
    """A transform of a file, and what is known about it.

    Attributes
    ----------
    files : tuple of Path
        The file, and those that it builds on.
    kind, form : str
        What it is, and whose format the file has, in words.
    direction : str
        Which way the file's numbers go, and whether they were inverted.
    transforms : tuple
        One, or one for each volume of a series.
    notes : tuple of str
        What was assumed.
    grid : Grid or None
        Of the output, where the file names one (elastix).
    """

    files: tuple[Path, ...]
    kind: str
    form: str
    direction: str
    transforms: tuple[Any, ...]
    notes: tuple[str, ...] = ()
    grid: Grid | None = None

    def __str__(self) -> str:
        several = f", one for each of {len(self.transforms)} volumes" if len(self.transforms) > 1 else ""
        return "; ".join((f"{self.kind} ({self.form}){several}", self.direction, *self.notes))


def read_transform(
    path: Item | Sequence[Item], *, format: str | None = None, reference: Any = None, moving: Any = None
) -> Any:
    """Read a transform from a file, or a chain of them, for `transform=` of `gpuresample.resample`.

    Parameters
    ----------
    path : path-like, (path-like, bool) or a list of these
        A file: ITK's `.tfm`, `.txt`, `.h5`, `.mat`, `.xfm`; a displacement field as an image (ANTs' warps, intents 1007
        and 1006); a transform parameter file of elastix with its chain; through nitransforms matrices of FSL (`.mat`),
        AFNI (`.aff12.1D`) and FreeSurfer (`.lta`), and `.x5`. In a pair, True asks for the inverse of a matrix;
        "[file,1]" says the same. In a list, a point of the output goes through the first one first: the order in which
        antsApplyTransforms has its `-t`.
    format : str, optional
        Whose format it is, where the file does not show it: "itk", "elastix", "field", "fsl", "afni", "freesurfer",
        "x5"; "lps" or "ras" for a bare 4x4 matrix from the output's points to the input's in that space.
    reference, moving : path-like, image or Grid, optional
        The two images that were registered: their grids have a part in FSL's transforms, and in AFNI's where they are
        oblique. `reference` is the one that stays.

    Returns
    -------
    SimpleITK.Transform, DisplacementField, Path or list
        From points of the output to points of the input, in LPS. A list has one for each volume of a series.

    Raises
    ------
    OSError
        For files that are missing, damaged or no transforms: several transforms beside one another (SimpleITK reads the
        first alone), a matrix whose space is not known, vectors whose header does not say in which space they are.
    ValueError, TypeError
        For the inverse of what is no matrix, and other formats.
    """
    if isinstance(path, (str, os.PathLike)) or _is_pair(path):
        return joined([load(path, format, reference, moving)])  # type: ignore[arg-type]
    if not isinstance(path, (list, tuple)) or not path:
        raise TypeError(f"path must be a file, a pair (file, inverse), or a list of these, got {shown(path)}")
    return joined([load(item, format, reference, moving) for item in path])


def joined(loaded: Sequence[Loaded]) -> Any:
    """One transform for several: a point goes through the first one first. A list where there is one for each volume.

    Raises
    ------
    ValueError
        Where two of them have another number of volumes.
    """
    counts = {len(one.transforms) for one in loaded} - {1}
    if len(counts) > 1:
        told = ", ".join(f"{one.files[-1]}: {len(one.transforms)}" for one in loaded if len(one.transforms) > 1)
        raise ValueError(f"transforms must be for as many volumes each, got {told}")
    n = counts.pop() if counts else 1
    each = [[one.transforms[k % len(one.transforms)] for one in loaded] for k in range(n)]
    made = [parts[0] if len(parts) == 1 else ops.Path(parts) for parts in each]
    return made[0] if n == 1 else made


def load(item: Item, form: str | None = None, reference: Any = None, moving: Any = None) -> Loaded:
    """A transform with what is known about it; arguments and errors are those of `read_transform`."""
    path, inverse = split(item)
    files.check_input(path)
    texts.utf8_name(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a folder, not a transform's file")
    form = format_of(path) if form is None else one_of("format", form, FORMATS)
    loaded = _read(path, form, _grid("reference", reference), _grid("moving", moving))
    return _inverted(loaded) if inverse else loaded


def split(item: Item) -> tuple[Path, bool]:
    """The path of an item of a chain, and whether its inverse is asked for."""
    if _is_pair(item):
        return Path(item[0]), bool(item[1])  # type: ignore[index]
    if isinstance(item, str) and (found := re.fullmatch(r"\[\s*(.+?)\s*,\s*(.*?)\s*\]", item)):
        if found[2] not in ("0", "1"):
            raise ValueError(f"a transform must be FILE, [FILE,0] or [FILE,1], got {item!r}")
        return Path(found[1]), found[2] == "1"
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(f"path must be a file, a pair (file, inverse), or a list of these, got {shown(item)}")
    return Path(item), False


def _is_pair(item: object) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], (bool, np.bool_))


def _grid(name: str, value: Any) -> Grid | None:
    if value is None or isinstance(value, Grid):
        return value
    if isinstance(value, (str, os.PathLike)):
        return grid_of_file(Path(value))
    found = grid_of(value, 3)
    if not isinstance(found, Grid):
        raise TypeError(f"{name} must be a file, an image or a gpuresample.Grid, got {type(value).__name__}")
    return found


# --- what a file is --------------------------------------------------------------------------------------------------


def is_transform(path: Path) -> bool:
    """Whether a file is a transform by its name and its first bytes; volumes are not, unless they hold vectors."""
    if not path.is_file():
        return False
    name = path.name.lower()
    if name.endswith(_IMAGES):
        form = nifti.of(path)
        if form is None or form.intent not in (_LPS, _RAS, _FNIRT, *_COEFFICIENTS):
            return False
        # ITK writes the intent of vectors for all images of vectors: a field has as many components as dimensions.
        planar = form.size[4:] == (2,) and form.size[2] == 1
        return form.intent in _COEFFICIENTS or planar or form.size[4:] == (3,)
    if name.endswith((".tfm", ".xfm", ".lta", ".x5", ".1d", ".mat")):
        return True
    if name.endswith((".h5", ".hdf5")):
        with open(path, "rb") as file:
            return b"TransformGroup" in file.read(_HEAD)
    text = _text(path)
    return text is not None and (
        elastix.is_parameter_file(text) or "Transform File" in text[:100] or _count(text) == 16
    )


def format_of(path: Path) -> str:
    """The format of a file, one of `FORMATS`.

    Raises
    ------
    OSError
        For a bare matrix of which nothing says in which space it is.
    """
    name = path.name.lower()
    for form, endings in (
        ("field", _IMAGES), ("freesurfer", (".lta",)), ("afni", (".1d",)), ("x5", (".x5",)),
        ("itk", (".h5", ".hdf5", ".tfm", ".xfm")),
    ):  # fmt: skip
        if name.endswith(endings):
            return form
    text = _text(path)
    if text is None:
        return "itk"
    if elastix.is_parameter_file(text):
        return "elastix"
    if (count := _count(text)) in (12, 16):
        if count == 16 and (name.endswith(".mat") or re.fullmatch(r"mat_\d+", name)):
            return "fsl"
        raise OSError(
            f"{path}: is a bare matrix of {count} numbers, and nothing says in which space and which way; say format: "
            "lps or ras (from the output's points to the input's), fsl (FLIRT) or afni"
        )
    return "itk"


def _text(path: Path) -> str | None:
    """The beginning of a file, if it is text."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if b"\0" in head:
        return None
    return head.decode("utf-8", "replace")


def _count(text: str) -> int:
    """How many numbers a text has, if it has nothing else; else 0."""
    bare = re.sub(r"#.*", "", text)
    return len(texts.parts(bare)) if len(bare) < 4096 and texts.is_numbers(bare) else 0


# --- one format after the other --------------------------------------------------------------------------------------


def _read(path: Path, form: str, reference: Grid | None, moving: Grid | None) -> Loaded:
    match form:
        case "itk":
            return _of_itk(path)
        case "elastix":
            return _of_elastix(path)
        case "field":
            return _of_image(path, moving)
        case "lps" | "ras":
            return _of_numbers(path, form)
        case "x5":
            found = neuroimaging.x5(path)
            return Loaded((path,), _kind(found[0]), "X5, by nitransforms", _STRAIGHT, tuple(found))
    if path.name.lower().endswith(_IMAGES):
        return _of_image(path, moving, form)
    if form == "fsl" and (reference is None or moving is None):
        raise OSError(
            f"{path}: is taken for a matrix of FLIRT, between voxels times spacing of two images: both must be known; "
            "give them as reference and moving (format lps or ras, if it is another matrix)"
        )
    if form == "afni" and (reference is None or moving is None):
        note: tuple[str, ...] = ("taken for a matrix between images that are not oblique",)
    else:
        note = () if form == "freesurfer" else ("the grids of reference and moving image have a part in it",)
    found = neuroimaging.matrices(path, form, reference, moving)
    label = {"fsl": "FSL FLIRT", "afni": "AFNI", "freesurfer": "FreeSurfer LTA"}[form]
    way = _STRAIGHT if form == "afni" else _TURNED
    return Loaded((path,), "matrix", f"{label}, by nitransforms", way, tuple(found), note)


def _of_itk(path: Path) -> Loaded:
    """What SimpleITK reads."""
    import SimpleITK as sitk

    _check_whole(path)
    try:
        # The call answers with the general class; the one in the file knows what it is.
        with files.itk_says() as said:
            found = sitk.ReadTransform(texts.utf8_name(path)).Downcast()
    except (RuntimeError, UnicodeDecodeError) as error:  # its messages show what is in the file
        raise OSError(f"{path}: is no transform that SimpleITK reads") from error
    except KeyError as error:  # of a class that it has no Python class for
        raise OSError(
            f"{path}: is of a class that SimpleITK has no Python class for; put it into a composite"
        ) from error
    if any("more than one transform" in text for text in said):
        raise OSError(
            f"{path}: holds several transforms beside one another, and no composite that says which comes first; write "
            "them as one SimpleITK.CompositeTransform, or give one file with one transform"
        )
    with open(path, "rb") as file:
        single = b"_float_" in file.read(_HEAD)
    note = ("its numbers are 32-bit floats",) if single else ()
    return Loaded((path,), _kind(found), "ITK", _STRAIGHT, (found,), note)


def _check_whole(path: Path) -> None:
    """Refuse a text file or a .mat file of ITK's that was cut: ITK reads it, with numbers of its own.

    Raises
    ------
    OSError
        With what is missing.
    """
    content = b"" if path.name.lower().endswith((".h5", ".hdf5")) else path.read_bytes()
    if path.name.lower().endswith(".mat") and b"\0" in content:
        if not _whole_mat(content):
            raise OSError(f"{path}: the file ends early: its last matrix is not whole")
        return
    if not content.lstrip().startswith(b"#Insight Transform File"):
        return
    if not content.endswith(b"\n"):
        raise OSError(f"{path}: the file ends early: its last line has no end")
    keys = re.findall(rb"^\s*(Transform|Parameters|FixedParameters)\s*:[ \t]*(\S*)", content, re.MULTILINE)
    owed: set[bytes] = set()
    for key, first in [*keys, (b"Transform", b"")]:
        if key == b"Transform":
            if owed:
                raise OSError(f"{path}: the file ends early: a transform has no {b', '.join(sorted(owed)).decode()}")
            owed = (
                set()
                if first.startswith((b"Composite", b"Identity")) or not first
                else {b"Parameters", b"FixedParameters"}
            )
        else:
            owed.discard(key)


def _whole_mat(content: bytes) -> bool:
    """Whether a MATLAB file of version 4 ends where its last matrix does, and each name has a matrix."""
    at, count = 0, 0
    while at < len(content):
        if len(content) - at < 20:
            return False
        kind, rows, columns, imaginary, name = struct.unpack_from("<5i", content, at)
        item = {0: 8, 1: 4, 2: 4, 3: 2, 4: 2, 5: 1}.get(kind // 10 % 10)
        if item is None or min(rows, columns, name) < 0:
            return False
        at += 20 + name + rows * columns * item * (2 if imaginary else 1)
        count += 1
    return at == len(content) and count % 2 == 0


def _kind(transform: Any) -> str:
    """What a transform is, in words."""
    if isinstance(transform, ops.DisplacementField):
        return "displacement field"
    if isinstance(transform, ops.Path):
        return "path of " + " and ".join(map(_kind, transform.transforms))
    name = str(transform.GetName())
    if name != "CompositeTransform" or not hasattr(transform, "GetNthTransform"):
        return name
    members = []
    for i in range(transform.GetNumberOfTransforms()):
        try:
            members.append(_kind(transform.GetNthTransform(i)))
        except (KeyError, RuntimeError, TypeError):  # of a class that SimpleITK has no Python class for
            members.append("a linear transform")
    return f"CompositeTransform of {', '.join(members)} (the last acts first)"


def _of_elastix(path: Path) -> Loaded:
    import SimpleITK as sitk

    chain = elastix.read(path)
    # Of a composite the last member acts first.
    found = chain.transforms[0] if len(chain.transforms) == 1 else sitk.CompositeTransform(list(chain.transforms[::-1]))
    note = () if len(chain.files) == 1 else (f"with {', '.join(p.name for p in chain.files[:-1])} before it",)
    return Loaded(chain.files[::-1], _kind(found), "elastix", _STRAIGHT, (found,), note, chain.grid)


def _of_image(path: Path, moving: Grid | None, form: str = "field") -> Loaded:
    """A displacement field in an image's file."""
    header = nifti.of(path)
    intent = None if header is None else header.intent
    if intent in _COEFFICIENTS:
        raise OSError(
            f"{path}: holds spline coefficients of FNIRT (intent {intent}); fnirtfileutils makes a field of them"
        )
    if form == "fsl" or (form == "field" and intent == _FNIRT):
        note = "displacements in FSL's millimetres" + (
            "; the moving image is taken to lie on the field's grid" if moving is None else ""
        )
        found: Any = neuroimaging.fsl_field(path, moving)
        return Loaded((path,), "displacement field", "FSL", _STRAIGHT, (found,), (note,))
    if form == "afni":
        found = neuroimaging.afni_field(path)
        return Loaded((path,), "displacement field", "AFNI", _STRAIGHT, (found,), ("vectors in LPS",))
    if form != "field":
        raise ValueError(f"format must be field, fsl or afni for {path}, got {form!r}")
    if intent not in (None, _LPS, _RAS):
        wide = header is not None and header.size[3:] in ((3,), (1, 3), (1, 2))
        raise OSError(
            f"{path}: "
            + (
                f"its header does not say what its vectors are (intent {intent}): {_LPS} are LPS (ITK, ANTs), {_RAS} "
                "RAS; say format fsl or afni for theirs"
                if wide
                else "is an image, not a transform: a displacement field has a vector in every voxel"
            )
        )
    try:
        if foreign.format_of(path):
            image = foreign.opened(path)
            found = ops.DisplacementField(image)
            intent = int(image.header["intent_code"])
        else:
            known = files.header(path)
            if known.components != known.dimension:
                raise ValueError(
                    f"is an image, not a transform: a displacement field has a vector of {known.dimension} components "
                    f"in every voxel, got {known.components or 1}"
                )
            found = ops.DisplacementField(files.read(path))
    except (ValueError, TypeError) as error:
        raise OSError(f"{path}: {error}") from None
    note = "vectors in RAS, turned to LPS" if intent == _RAS else "vectors in LPS"
    label = "ANTs' and ITK's warp" if intent is not None else "ITK image"
    return Loaded((path,), "displacement field", label, _STRAIGHT, (found,), (note,))


def _of_numbers(path: Path, form: str) -> Loaded:
    """A bare matrix from the output's points to the input's."""
    import SimpleITK as sitk

    text = re.sub(r"#.*", "", _text(path) or "")
    count = _count(text)
    if count not in (12, 16):
        raise OSError(f"{path}: must hold the 16 numbers of a 4x4 matrix, or the 12 of its upper rows")
    m = np.array([float(v) for v in texts.parts(text)] + ([0.0, 0.0, 0.0, 1.0] if count == 12 else [])).reshape(4, 4)
    if m[3].tolist() != [0.0, 0.0, 0.0, 1.0] or not np.isfinite(m).all():
        raise OSError(f"{path}: must hold finite numbers and [0, 0, 0, 1] as the last row, got {m.tolist()}")
    if form == "ras":
        flip = np.diag([-1.0, -1.0, 1.0, 1.0])
        m = flip @ m @ flip
    found = sitk.AffineTransform(m[:3, :3].ravel().tolist(), m[:3, 3].tolist())
    return Loaded((path,), "matrix", f"numbers, {form.upper()}", "from output to input, as asked", (found,))


def _inverted(loaded: Loaded) -> Loaded:
    """The way back of matrices.

    Raises
    ------
    ValueError
        For what has no inverse by formula.
    """
    path = loaded.files[0]
    if not all(hasattr(t, "IsLinear") and t.IsLinear() for t in loaded.transforms):
        raise ValueError(
            f"{path}: only matrices can be inverted, got a {loaded.kind}; give the file with the inverse "
            "(ANTs: 1InverseWarp.nii.gz)"
        )
    try:
        back = tuple(ops.Path([t]).inverse().transforms[0] for t in loaded.transforms)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return replace(loaded, transforms=back, direction=f"{loaded.direction}; its inverse, as asked")
