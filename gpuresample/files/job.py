"""One volume from a file onto another grid and into a file: what the command line and a batch both run."""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample import texts
from gpuresample.containers import Volume
from gpuresample.files import volumes as files
from gpuresample.files.grids import grid_of_file
from gpuresample.ops.resample import plan, resample
from gpuresample.planning.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

# `stage(name, header)` is entered for "read" (the header is not known yet), "resample" and "write". What it hands out,
# a `files.Progress` or None, is told of bytes read and written.
Stage = Callable[[str, files.Header | None], AbstractContextManager[Any]]
# `look(image, result)` is called between "resample" and "write".
Look = Callable[["SimpleITK.Image", "SimpleITK.Image"], None]


@dataclass(frozen=True)
class Settings:
    """What is asked of one volume: the keywords of `resample`, other volumes and transforms by their files.

    Attributes
    ----------
    spacing, size, interpolation, anchor, boundary, antialias, default_value, rounding, convention
    clip, ignore, dtype, device
        As `gpuresample.resample` takes them; x, y, z order.
    like, transform : str or None
        Path of a volume whose grid is taken, and of a transform (`files.transforms`).
    series : str or None
        Which series of a DICOM folder.
    """

    spacing: float | tuple[float, ...] | None = None
    size: tuple[int, ...] | None = None
    like: str | None = None
    transform: str | None = None
    interpolation: str = "bspline"
    anchor: str = "first"
    boundary: str | None = None
    antialias: bool | float | tuple[float, ...] = False
    default_value: float = 0
    rounding: str = "nearest"
    convention: str | None = None
    clip: bool | tuple[float, ...] = False
    ignore: float | None = None
    dtype: str | None = None
    device: str = "auto"
    series: str | None = None

    def __post_init__(self) -> None:
        for name in ("spacing", "size", "antialias", "clip"):
            value = getattr(self, name)
            if isinstance(value, (list, np.ndarray)):
                object.__setattr__(self, name, tuple(np.asarray(value).tolist()))
        for name in ("like", "transform"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, os.fspath(value))
        if self.dtype is not None and not isinstance(self.dtype, str):
            object.__setattr__(self, "dtype", np.dtype(self.dtype).name)

    @classmethod
    def names(cls) -> list[str]:
        """Of all settings."""
        return [f.name for f in fields(cls)]

    def changed(self, words: Mapping[str, str | None], spelled: Callable[[str], str] = str) -> Settings:
        """These settings, with those in `words` replaced by what their text says.

        Parameters
        ----------
        words : mapping
            Text of each setting by name; None leaves it as it is.
        spelled : callable
            How a name is spelled in errors: "--default-value", say.

        Raises
        ------
        ValueError
            For text that is no number where one is asked for.
        """
        given = {name: text for name, text in words.items() if text is not None}
        return replace(self, **{name: _value(name, text, spelled(name)) for name, text in given.items()})

    def keywords(self) -> dict[str, Any]:
        """The keywords of `resample`, other volumes and transforms read.

        Raises
        ------
        OSError
            If one of their files cannot be read.
        """
        keywords = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "series"}
        keywords["like"] = None if self.like is None else grid_of_file(Path(self.like))
        if self.transform is not None:
            from gpuresample.files.transforms import read_transform  # which knows many libraries' forms

            keywords["transform"] = read_transform(Path(self.transform))
        return keywords

    def check(self) -> None:
        """Refuse what is wrong with every volume, whatever its size and type.

        Raises
        ------
        ValueError, TypeError
            As `resample`.
        OSError
            As `keywords`.
        """
        keywords = self.keywords() | {"device": "cpu" if _is_cuda(self.device) else self.device}
        _refuse_float16(self.dtype)
        errors = []
        # Settings may be for two axes or for three.
        for d in (3, 2):
            try:
                plan(_sample(d, self.spacing), **keywords)
                return
            except (ValueError, TypeError) as error:
                errors.append(error)
        raise errors[0]

    def identity(self) -> dict[str, Any]:
        """What decides the result's voxels, as JSON holds and compares it: of other files the content, not the name."""
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "device"}
        if self.like is not None:
            grid = grid_of_file(Path(self.like))
            kept["like"] = [*grid.size, *grid.spacing, *grid.origin, *grid.direction]
        if self.transform is not None:
            from gpuresample.files.transforms import load

            content = hashlib.blake2b(digest_size=16)
            for path in load(self.transform).files:
                content.update(path.read_bytes())
            kept["transform"] = content.hexdigest()
        return {
            name: list(value) if isinstance(value, tuple) else "nan" if str(value) == "nan" else value
            for name, value in kept.items()
            if value is not None
        }


def run(
    source: Path,
    target: Path,
    settings: Settings,
    overwrite: bool = False,
    stage: Stage | None = None,
    look: Look | None = None,
    transform: Any = None,
    grid: Grid | None = None,
    level: int | None = None,
) -> tuple[files.Header, files.Header]:
    """Read, resample, write; arguments are refused before voxels are read, and the output is there whole or not at all.

    Parameters
    ----------
    source : Path
        A file, or a folder with a DICOM series.
    target : Path
        Where to write; `files.WRITABLE` has the formats.
    settings : Settings
        What is asked.
    overwrite : bool
        Whether `target` may be replaced.
    stage, look : callable, optional
        See `Stage` and `Look`.
    transform : any, optional
        As `resample` takes it, in place of the settings' own.
    grid : Grid, optional
        Of the output, where the settings name no volume that has it.
    level : int, optional
        How hard to pack, as `files.write` takes it.

    Returns
    -------
    tuple of Header
        Of the input and of the output.

    Raises
    ------
    OSError, ValueError, TypeError, RuntimeError
        As `files.read`, `files.write` and `resample`.

    Warns
    -----
    UserWarning
        If an axis shrinks to one voxel, unless `size` asks for it.
    """
    files.check_output(target, overwrite)
    files.check_level(target, level)
    stage = stage or (lambda name, header: contextlib.nullcontext())
    with stage("read", None) as told:
        image, header, keywords = _read(source, settings, transform, grid, told)
    with stage("resample", header):
        result = resample(image, **keywords)
    files.keep_notes(image, result, settings.like)
    _warn_of_single_planes(source, header, result, settings)
    if look is not None:
        look(image, result)
    del image
    with stage("write", header) as told:
        files.write(result, target, overwrite, level, told)
    return header, files.Header.of(result)


def _warn_of_single_planes(source: Path, header: files.Header, result: Any, settings: Settings) -> None:
    """Warn where an axis has one voxel left and nobody asked for that number: units are mixed up, as a rule."""
    if settings.size is not None:
        return
    left = zip("xyz", header.size, header.spacing, result.GetSize(), result.GetSpacing(), strict=False)
    shrunk = [f"{axis} ({n} voxels of {h:.6g} to 1 of {g:.6g})" for axis, n, h, m, g in left if n > 1 and m == 1]
    if shrunk:
        warnings.warn(
            f"{source}: one voxel is left along {', '.join(shrunk)}; are spacings in the image's unit?", stacklevel=3
        )


def bytes_needed(source: Path, settings: Settings) -> int:
    """Bytes of the voxels of a file's volume and of its result in memory, from the header.

    Raises
    ------
    OSError, ValueError, TypeError
        As `run`, for what the header and the settings already show.
    """
    header = files.header(source)
    made = plan(stand_in(source, header), **settings.keywords())
    result = header.nbytes * math.prod(made.output_shape) // max(1, math.prod(made.input_shape))
    return header.nbytes + result * made.dtype.itemsize // header.dtype.itemsize


def _read(
    source: Path, settings: Settings, transform: Any, grid: Grid | None, told: files.Progress | None
) -> tuple[Any, files.Header, dict[str, Any]]:
    keywords = settings.keywords()
    keywords |= {name: value for name, value in (("transform", transform), ("like", grid)) if value is not None}
    # A folder has no header of its own. Of a file, arguments are refused before its voxels are read.
    image = files.read(source, settings.series) if source.is_dir() else None
    header = files.header(source) if image is None else files.Header.of(image)
    _refuse_float16(plan(stand_in(source, header), **keywords).dtype)
    return (files.read(source, settings.series, told) if image is None else image), header, keywords


def _value(name: str, text: str, spelled: str) -> Any:
    match name:
        case "spacing":
            return _tuple(texts.one_or_all(spelled, text))
        case "size":
            return _tuple(texts.numbers(spelled, text, int))
        case "antialias" | "clip":
            switch = {"": True, "true": True, "yes": True, "false": False, "no": False}.get(text.strip().lower())
            return _tuple(texts.one_or_all(spelled, text)) if switch is None else switch
        case "default_value" | "ignore":
            return texts.number(spelled, text)
    return text


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _refuse_float16(dtype: Any) -> None:
    # The names of other types are for `resample` to judge.
    if str(dtype) == "float16":
        raise ValueError("dtype float16: files have no such voxels; take float32")


def _is_cuda(device: object) -> bool:
    """Whether it is a GPU by a word that `resample` takes; whether there is one, the worker knows."""
    name, _, number = str(device).partition(":")
    return name == "cuda" and (number.isdecimal() if ":" in str(device) else True)


def _sample(dimension: int, spacing: Any) -> Volume:
    """A few voxels to try settings on, of a spacing at which the result is as small."""
    try:
        step = np.broadcast_to(np.asarray(1.0 if spacing is None else spacing, np.float64), dimension)
        usable = bool(np.all(np.isfinite(step)) and np.all(step > 0))
    except (ValueError, TypeError):
        usable = False
    return Volume(
        np.zeros((4,) * dimension, np.float64), tuple(step.tolist()) if usable else (1.0,) * dimension
    )  # fmt: skip


def stand_in(path: Path, header: files.Header) -> Volume:
    """A volume of the file's type and geometry whose memory is never touched, to check arguments on."""
    d = min(header.dimension, 3)
    direction = np.reshape(header.direction, (header.dimension,) * 2)[:d, :d]
    # An array of three axes is a volume: components of a 2-D image are left out, as they change no argument.
    shape = ((header.components,) if header.components and d == 3 else ()) + header.size[::-1]
    try:
        if header.dimension > 4:
            raise ValueError(f"image must have 2, 3 or 4 dimensions, got {header.dimension}")
        return Volume(np.empty(shape, header.dtype), header.spacing[:d], header.origin[:d], direction.ravel().tolist())
    except (TypeError, ValueError) as error:
        raise OSError(f"{path}: cannot be resampled: {error}") from error
