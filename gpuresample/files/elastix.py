"""Transform parameter files of elastix, with the files that they name as what comes first, as SimpleITK's transforms.

elastix (5.3) writes matrices of directions column by column: `Direction` and `GridDirection` are transposed here.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.checks import shown
from gpuresample.planning.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

_LINE = re.compile(r"^\s*\(\s*(\w+)\s+(.*?)\s*\)\s*(?://.*)?$", re.MULTILINE)
_VALUE = re.compile(r'"([^"]*)"|(\S+)')
_IS = re.compile(r'^\s*(?:\(\s*Transform\s+"|Transform\s*=\s*")', re.MULTILINE)
_INITIAL = ("InitialTransformParameterFileName", "InitialTransformParametersFileName")
_NONE = ("", "NoInitialTransform")


@dataclass(frozen=True)
class Chain:
    """What a parameter file and the files before it say.

    Attributes
    ----------
    transforms : tuple of SimpleITK.Transform
        In the order in which a point of the output goes through them.
    files : tuple of Path
        The same order.
    grid : Grid or None
        Of the output that transformix would make; None where the file does not say.
    """

    transforms: tuple[SimpleITK.Transform, ...]
    files: tuple[Path, ...]
    grid: Grid | None


def is_parameter_file(text: str) -> bool:
    """Whether a text is one of elastix's transform parameter files, in its own form or in TOML."""
    return _IS.search(text) is not None


def read(path: Path) -> Chain:
    """A parameter file and all that it builds on.

    Raises
    ------
    OSError
        For files that are damaged or missing, form a circle, or hold a transform that has no place here; the message
        names the file and what is wrong with it.
    """
    return _chain(path, ())


def _chain(path: Path, behind: tuple[Path, ...]) -> Chain:
    words = _Words(path)
    made = _transform(words)
    before = _before(words)
    if before is None:
        return Chain((made,), (path,), _grid(words))
    here = path.resolve()
    if before.resolve() in (*behind, here):
        raise OSError(f"{path}: its initial transform leads back to {before}, in a circle")
    how = words.word("HowToCombineTransforms", "Compose")
    if how != "Compose":
        raise OSError(
            f"{path}: HowToCombineTransforms must be Compose, got {how}: a sum of two transforms is no path of them"
        )
    first = _chain(before, (*behind, here))
    if first.transforms[0].GetDimension() != made.GetDimension():
        raise OSError(f"{path}: has {made.GetDimension()} dimensions, and its initial transform {before} has not")
    return Chain((*first.transforms, made), (*first.files, path), _grid(words))


class _Words:
    """The entries of a parameter file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise OSError(f"{path}: is no text, as elastix's parameter files are") from None
        self._of = _of_toml(path, text) if path.suffix.lower() == ".toml" else _of_text(text)

    def word(self, name: str, default: str = "") -> str:
        """The first value of an entry, as text."""
        values = self._of.get(name)
        return default if not values else str(values[0])

    def numbers(self, name: str, count: int | None = None) -> list[float]:
        """The values of an entry as finite numbers, `count` of them.

        Raises
        ------
        OSError
            If they are not.
        """
        values = self._of.get(name)
        if values is None:
            raise OSError(f"{self.path}: has no entry {name}")
        try:
            found = [float(v) for v in values]
        except (TypeError, ValueError):
            raise OSError(f"{self.path}: {name} must have numbers, got {shown(values)}") from None
        if count is not None and len(found) != count:
            raise OSError(f"{self.path}: {name} must have {count} numbers, got {len(found)}; is the file cut short?")
        if not all(map(math.isfinite, found)):
            raise OSError(f"{self.path}: {name} must have finite numbers, got {shown(values)}")
        return found

    def has(self, name: str) -> bool:
        """Whether there is an entry."""
        return name in self._of


def _of_text(text: str) -> dict[str, Sequence[Any]]:
    return {name: [a or b for a, b in _VALUE.findall(values)] for name, values in _LINE.findall(text)}


def _of_toml(path: Path, text: str) -> Mapping[str, Sequence[Any]]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise OSError(f"{path}: is no TOML: {error}") from None

    def said(value: Any) -> Any:
        return str(value).lower() if isinstance(value, bool) else value

    return {
        name: [said(v) for v in (values if isinstance(values, list) else [values])] for name, values in found.items()
    }


def _before(words: _Words) -> Path | None:
    """The file with the initial transform: as it is named, else beside this one, where folders have moved."""
    name = next((words.word(key) for key in _INITIAL if words.has(key)), "")
    if name in _NONE:
        return None
    tail = re.split(r"[\\/]", name)[-1]
    candidates = [words.path.parent / tail, words.path.parent / name, Path(name)]
    found = next((p for p in candidates if p.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{words.path}: its initial transform {name} is not there, nor is {candidates[0]}")
    if not os.access(found, os.R_OK):
        raise PermissionError(f"{found}: may not be read")
    return found


def _transform(words: _Words) -> SimpleITK.Transform:
    import SimpleITK as sitk

    path, kind = words.path, words.word("Transform")
    d, moving = (int(words.numbers(f"{side}ImageDimension", 1)[0]) for side in ("Fixed", "Moving"))
    if d not in (2, 3) or d != moving:
        raise OSError(f"{path}: must have images of 2 or of 3 dimensions, got {d} and {moving}")
    if words.word("UseDirectionCosines", "true") != "true":
        raise OSError(
            f"{path}: was made with UseDirectionCosines false: such transforms leave directions out of account"
        )
    if words.word("UseBinaryFormatForTransformationParameters", "false") != "false":
        raise OSError(f"{path}: keeps its numbers in a binary file beside it; write them into the file itself")
    makers = {
        "TranslationTransform": (lambda: sitk.TranslationTransform(d), d),
        "EulerTransform": (sitk.Euler3DTransform if d == 3 else sitk.Euler2DTransform, d * (d + 1) // 2),
        "SimilarityTransform": (sitk.Similarity3DTransform if d == 3 else sitk.Similarity2DTransform, 3 * d - 2),
        "AffineTransform": (lambda: sitk.AffineTransform(d), d * (d + 1)),
    }
    if kind in ("BSplineTransform", "RecursiveBSplineTransform"):
        return _spline(words, d)
    if kind not in makers:
        known = ", ".join((*makers, "BSplineTransform", "RecursiveBSplineTransform"))
        raise OSError(f"{path}: Transform must be one of {known}, got {kind or 'none'}")
    make, count = makers[kind]
    transform = make()
    if kind != "TranslationTransform":
        if not words.has("CenterOfRotationPoint") and words.has("CenterOfRotation"):
            raise OSError(f"{path}: has its centre as an index (CenterOfRotation), as elastix 3 wrote it")
        fixed = words.numbers("CenterOfRotationPoint", d)
        zyx = [float(words.word("ComputeZYX", "false") == "true")] if kind == "EulerTransform" and d == 3 else []
        transform.SetFixedParameters(fixed + zyx)
    transform.SetParameters(words.numbers("TransformParameters", count))
    return transform


def _spline(words: _Words, d: int) -> SimpleITK.Transform:
    import SimpleITK as sitk

    path = words.path
    order = int(words.numbers("BSplineTransformSplineOrder", 1)[0]) if words.has("BSplineTransformSplineOrder") else 3
    if order not in (1, 2, 3):
        raise OSError(f"{path}: BSplineTransformSplineOrder must be 1, 2 or 3, got {order}")
    if words.word("UseCyclicTransform", "false") != "false":
        raise OSError(
            f"{path}: UseCyclicTransform must be false: a spline that comes back to its beginning has no form here"
        )
    if words.has("GridIndex") and any(words.numbers("GridIndex", d)):
        raise OSError(f"{path}: GridIndex must be 0 on every axis, got {words.word('GridIndex')}")
    size, direction = words.numbers("GridSize", d), words.numbers("GridDirection", d * d)
    if any(n != int(n) or n < order + 1 for n in size):
        raise OSError(f"{path}: GridSize must be whole numbers of at least {order + 1}, got {size}")
    columns = np.reshape(direction, (d, d)).T.ravel().tolist()
    transform = sitk.BSplineTransform(d, order)
    origin, spacing = words.numbers("GridOrigin", d), words.numbers("GridSpacing", d)
    parameters = words.numbers("TransformParameters", d * math.prod(map(int, size)))
    transform.SetFixedParameters(size + origin + spacing + columns)
    transform.SetParameters(parameters)
    return transform


def _grid(words: _Words) -> Grid | None:
    """The grid of transformix's output."""
    d = int(words.numbers("FixedImageDimension", 1)[0])
    if not all(words.has(name) for name in ("Size", "Spacing", "Origin", "Direction")):
        return None
    if words.has("Index") and any(words.numbers("Index", d)):
        raise OSError(f"{words.path}: Index must be 0 on every axis, got {words.word('Index')}")
    size, spacing, origin = (words.numbers(name, d) for name in ("Size", "Spacing", "Origin"))
    direction = np.reshape(words.numbers("Direction", d * d), (d, d)).T
    try:
        return Grid(tuple(map(int, size)), tuple(spacing), tuple(origin), tuple(direction.ravel().tolist()))
    except ValueError as error:
        raise OSError(f"{words.path}: the grid of its output is none: {error}") from None
