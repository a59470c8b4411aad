"""What a NIfTI header says that ITK's reader leaves out or changes: forms and their codes, values that are no numbers.

Of two forms ITK (5.4.7) takes the qform unless the sform alone is valid or lies straight, and the spacing from pixdim
even then. It refuses forms that are not orthonormal, and makes 0 of NaN and infinity.
"""

from __future__ import annotations

import math
import shutil
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.files import completeness, detached, zstds
from gpuresample.frozen import frozen
from gpuresample.planning.grid import agree

if TYPE_CHECKING:
    import SimpleITK

Floats = npt.NDArray[np.float64]

# From RAS, in which NIfTI's coordinates are, to LPS.
_FLIP = np.diag([-1.0, -1.0, 1.0])
# Bytes of a header, and where its codes are: the qform's, then the sform's; where its numbers of voxels are, and the
# largest one.
HEAD, _CODES = 348, 252
_SIZE, _MOST = 42, 32767
# Shares by which a spacing and its column of the sform may differ: both are float32.
_SAME_SPACING = 1e-5
_SAME_COSINE = 1e-3
_FLOATS = {16: "f4", 64: "f8"}
# Types of voxels that ITK hands out as they are.
VOXELS = {2: "u1", 4: "i2", 8: "i4", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"} | _FLOATS


@frozen()
class Form:
    """A NIfTI header.

    Attributes
    ----------
    size : tuple of int
        x, y, z, ...
    order : str
        "<" or ">".
    datatype, offset : int
        Number of the voxel type; where the voxels begin.
    slope, intercept : float
        Of the stored values; 1 and 0 where there is no slope.
    scales : bool
        Whether the header names a slope or an intercept that change values, or are no numbers.
    sform, qform : ndarray
        Matrices 3 x 4 from indices to points, in LPS.
    codes : tuple of int
        Of the sform and of the qform; 0 where there is none.
    intent : int
        What voxels are: 1007 for vectors, 1006 for displacements.
    """

    size: tuple[int, ...]
    order: str
    datatype: int
    offset: int
    slope: float
    intercept: float
    scales: bool
    sform: Floats
    qform: Floats
    codes: tuple[int, int]
    intent: int

    @property
    def stored(self) -> np.dtype[Any] | None:
        """Of voxels, where ITK hands them out as they are stored."""
        kind = None if self.scales else VOXELS.get(self.datatype)
        return None if kind is None else np.dtype(self.order + kind)

    @property
    def is_float(self) -> bool:
        """Whether voxels are stored as floats."""
        return self.datatype in _FLOATS

    @property
    def disagree(self) -> bool:
        """Whether both forms are there and put a corner of the volume to two places."""
        return all(self.codes) and not agree(self.sform, self.qform, self.size)

    def taken(self, origin: Sequence[float], direction: Sequence[float]) -> str:
        """Which form a geometry that ITK has read is of: "sform", "qform", or neither: ""."""
        d = math.isqrt(len(direction))
        axes = np.reshape(direction, (d, d))[:3, :3]
        if d < 3 or not any(self.codes):
            return ""
        if not self.codes[1]:
            return "sform"
        if not self.codes[0]:
            return "qform"
        if self.sheared:
            return "qform"
        found = [
            name
            for name, form in (("qform", self.qform), ("sform", self.sform))
            if np.allclose(form[:, 3], origin[:3], rtol=1e-4, atol=1e-3)
            and np.allclose(form[:, :3] / np.linalg.norm(form[:, :3], axis=0), axes, atol=_SAME_COSINE)
        ]
        if len(found) == 2 and self.disagree:  # both nearly: the nearer one
            forms = {"sform": self.sform, "qform": self.qform}
            off = {k: np.abs(f[:, :3] / np.linalg.norm(f[:, :3], axis=0) - axes).max() for k, f in forms.items()}
            return min(off, key=lambda k: float(off[k]))
        return found[0] if found else ""

    @property
    def sheared(self) -> bool:
        """Whether the sform's axes are not at right angles."""
        length = np.linalg.norm(self.sform[:, :3], axis=0)
        if not length.min() > 0:
            return True
        axes = self.sform[:, :3] / length
        return bool(np.abs(axes.T @ axes - np.eye(3)).max() > 1e-4)


def of(path: Path) -> Form | None:
    """The header of a NIfTI file; None for other files, Analyze's included, and for what is no header."""
    if not path.name.lower().endswith((".nii", ".nii.gz", zstds.ENDING, ".hdr", ".hdr.gz", ".img", ".img.gz", ".nia")):
        return None
    if detached.half(path) == ".img":
        header = next((p for p in detached.parts(path) if detached.half(p) == ".hdr"), None)
        if header is None:
            return None
        path = header
    try:
        with completeness.reading(path) if completeness.is_packed(path) else open(path, "rb") as file:
            return _parsed(file.read(HEAD))
    except (OSError, EOFError, zlib.error, struct.error):
        return None


def _parsed(head: bytes) -> Form | None:
    order = _order(head)

    def values(code: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + code, head, at)

    if head[344:348] not in (b"n+1\0", b"ni1\0"):
        return None
    dim, pixdim, (offset, slope, inter) = values("8h", 40), values("8f", 76), values("3f", 108)
    (qform, sform), quatern, rows = values("2h", 252), values("6f", 256), values("12f", 280)
    if not 1 <= dim[0] <= 7 or not np.isfinite([offset, *pixdim, *quatern, *rows]).all():
        return None
    scaled = math.isfinite(slope) and slope != 0 and math.isfinite(inter)
    # Millimetres, as ITK makes them of metres and microns.
    unit = {1: 1e3, 3: 1e-3}.get(head[123] & 7, 1.0)
    scales = slope not in (0.0, 1.0) or inter != 0.0
    # In a file of one part voxels do not begin within the header, whatever it says: ITK's rule and nifti_clib's.
    offset = max(offset, HEAD) if head[344:348] == b"n+1\0" else offset
    return Form(
        tuple(max(1, n) for n in dim[1 : 1 + dim[0]]), order, values("h", 70)[0], int(offset), slope if scaled else 1.0,
        inter if scaled else 0.0, scales, unit * _FLIP @ np.reshape(np.asarray(rows, np.float64), (3, 4)),
        unit * _FLIP @ _of_quaternion(quatern, pixdim), (max(0, sform), max(0, qform)),
        values("h", 68)[0],
    )  # fmt: skip


def _order(head: bytes | bytearray) -> str:
    """A header's byte order, as struct spells it."""
    return "<" if struct.unpack_from("<i", head)[0] == HEAD else ">"


def _of_quaternion(values: Sequence[float], pixdim: Sequence[float]) -> Floats:
    """The qform: a rotation by a unit quaternion, of which b, c, d are stored; its third axis turned by qfac."""
    b, c, d = values[:3]
    a = math.sqrt(max(0.0, 1.0 - (b * b + c * c + d * d)))
    if a < 1e-7:
        length = math.sqrt(b * b + c * c + d * d)
        b, c, d, a = b / length, c / length, d / length, 0.0
    turned = np.array([
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ])  # fmt: skip
    steps = np.asarray([abs(n) or 1.0 for n in pixdim[1:4]]) * (1.0, 1.0, -1.0 if pixdim[0] < 0 else 1.0)
    return np.column_stack([turned * steps, values[3:6]])


def geometry(
    form: Form, spacing: Sequence[float], origin: Sequence[float], direction: Sequence[float]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]] | None:
    """Spacing, origin and direction by the sform, where that is the form and ITK's geometry is not its; else None."""
    d = len(spacing)
    if form.taken(origin, direction) != "sform":
        return None
    columns = np.linalg.norm(form.sform[:, :3], axis=0)
    if not columns.min() > 0:
        return None
    axes = form.sform[:, :3] / columns
    now = np.reshape(direction, (d, d)).astype(np.float64)
    if np.allclose(columns, spacing[:3], rtol=_SAME_SPACING) and np.allclose(axes, now[:3, :3], atol=_SAME_COSINE):
        return None
    now[:3, :3] = axes
    return (
        (*columns.tolist(), *spacing[3:]),
        (*form.sform[:, 3].tolist(), *origin[3:]),
        tuple((now + 0.0).ravel().tolist()),
    )


def warn_of_forms(path: Path, form: Form, taken: str) -> None:
    """Warn where programs disagree about a file's place in space, and say what was taken."""
    if len(form.size) < 3:
        return
    if not any(form.codes):
        warnings.warn(
            f"{path}: has neither sform nor qform (codes 0): its spacing is taken, with the first voxel at the origin, "
            "as ITK does; nibabel puts the centre there and turns the first axis",
            stacklevel=4,
        )
    elif form.disagree and taken:
        named = f"sform (code {form.codes[0]}) and qform (code {form.codes[1]})"
        warnings.warn(
            f"{path}: its {named} disagree; the {taken} is taken, as ITK does; nibabel takes the sform", stacklevel=4
        )


def codes_kept(form: Form, taken: str) -> tuple[int, int]:
    """Codes of sform and qform for what is written in a file's place: of two that disagree, the one taken for both."""
    if form.disagree:
        code = form.codes[0] if taken == "sform" else form.codes[1]
        return code, code
    return form.codes


def without_forms(path: Path, folder: Path) -> Path:
    """An unpacked copy of a file of one part whose header has no forms: ITK refuses some, and reads it then."""
    copy = folder / "copy.nii"
    with (
        completeness.reading(path) if completeness.is_packed(path) else open(path, "rb") as file,
        open(copy, "wb") as out,
    ):
        shutil.copyfileobj(file, out, 1 << 20)
    patch_codes(copy, (0, 0))
    return copy


def patch_codes(path: Path, codes: tuple[int, int]) -> None:
    """Set the codes of sform and qform of an unpacked NIfTI file."""
    with open(path, "r+b") as file:
        head = with_codes(file.read(HEAD), codes)
        file.seek(0)
        file.write(head)


def with_codes(head: bytes, codes: tuple[int, int]) -> bytes:
    """A header with these codes of sform and qform."""
    made = bytearray(head)
    struct.pack_into(f"{_order(head)}2h", made, _CODES, *codes[::-1])
    return bytes(made)


def with_size(head: bytes, size: Sequence[int]) -> bytes:
    """A header with these numbers of voxels, and as many axes.

    Raises
    ------
    OSError
        If the numbers are too large for it.
    """
    if max(size) > _MOST:
        raise OSError(f"NIfTI holds at most {_MOST:,} voxels along an axis, got {max(size):,}; use .nrrd or .mha")
    made = bytearray(head)
    struct.pack_into(f"{_order(head)}{len(size)}h", made, _SIZE, *size)
    return bytes(made)


class NotFinite:
    """Which stored values of a file are NaN or infinity, found while its bytes go by."""

    def __init__(self, form: Form | None) -> None:
        self.form = form if form is not None and form.datatype in _FLOATS else None
        self.places: list[npt.NDArray[np.int64]] = []
        self.values: list[npt.NDArray[Any]] = []
        if self.form is not None:
            self.dtype = np.dtype(self.form.order + _FLOATS[self.form.datatype])
            self.left = math.prod(self.form.size)
            self.skip, self.held, self.passed = self.form.offset, b"", 0

    def watch(self, block: bytes) -> None:
        """The file's next bytes, unpacked."""
        if self.form is None or not self.left:
            return
        if self.skip >= len(block):
            self.skip -= len(block)
            return
        data = self.held + block[self.skip :] if self.held or self.skip else block
        self.skip = 0
        count = min(len(data) // self.dtype.itemsize, self.left)
        values = np.frombuffer(data, self.dtype, count)
        self.held = data[count * self.dtype.itemsize :]
        self.left -= count
        if not np.isfinite(values).all():
            at = np.flatnonzero(~np.isfinite(values))
            self.places.append(at + self.passed)
            self.values.append(values[at])
        self.passed += count

    def put_back(self, image: SimpleITK.Image) -> SimpleITK.Image:
        """The image with these values where ITK has 0."""
        import SimpleITK as sitk

        if self.form is None or not self.places:
            return image
        array = sitk.GetArrayFromImage(image)
        count = image.GetNumberOfComponentsPerPixel()
        if array.size != math.prod(self.form.size):
            return image
        # A file has the components of all voxels one after the other.
        planes = np.moveaxis(array, -1, 0) if count > 1 else array
        where, values = np.concatenate(self.places), np.concatenate(self.values) * self.form.slope + self.form.intercept
        planes[np.unravel_index(where, planes.shape)] = values
        made = sitk.GetImageFromArray(array, isVector=count > 1)
        made.CopyInformation(image)
        for key in image.GetMetaDataKeys():
            made.SetMetaData(key, image.GetMetaData(key))
        return made


def part(path: Path, form: Form, start: Sequence[int], array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A box that ITK has read of an unpacked file, (z, y, x) from `start` (x, y, z) on, with NaN and infinities."""
    if form.datatype not in _FLOATS:
        return array
    dtype = np.dtype(form.order + _FLOATS[form.datatype])
    size = [*form.size, 1, 1][: array.ndim]
    stored = np.memmap(path, dtype, "r", form.offset, tuple(size[::-1]))
    box = stored[tuple(slice(a, a + n) for a, n in zip(start[::-1], array.shape, strict=True))]
    lost = ~np.isfinite(box)
    if lost.any():
        array[lost] = box[lost] * form.slope + form.intercept
    return array
