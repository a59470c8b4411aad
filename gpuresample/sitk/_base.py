"""What the filters of `gpuresample.sitk` share: SimpleITK's own class below, its parameters, events and errors.

Each filter is a subclass of SimpleITK's. Parameters live in SimpleITK's object, so that their types, defaults, printing
and refusals are SimpleITK's own; only `Execute` is ours, and whatever it cannot do is SimpleITK's again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from gpuresample.engines import check_device
from gpuresample.engines.threads import at_most
from gpuresample.installation import warn_once

# SimpleITK's pixel types that we compute on, by the words of theirs: scalar and vector.
DTYPES = {
    "UInt8": np.uint8, "Int8": np.int8, "UInt16": np.uint16, "Int16": np.int16, "UInt32": np.uint32, "Int32": np.int32,
    "UInt64": np.uint64, "Int64": np.int64, "Float32": np.float32, "Float64": np.float64,
}  # fmt: skip
SCALARS: dict[int, np.dtype[Any]] = {getattr(sitk, f"sitk{k}"): np.dtype(v) for k, v in DTYPES.items()}
VECTORS: dict[int, np.dtype[Any]] = {getattr(sitk, f"sitkVector{k}"): np.dtype(v) for k, v in DTYPES.items()}

_device = "auto"


class NotHereError(Exception):
    """What is asked is SimpleITK's to do; the reason, or None if nobody needs to know."""


def set_device(device: str) -> None:
    """Choose where the filters of `gpuresample.sitk` compute.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As for `gpuresample.resample`.

    Raises
    ------
    ValueError, TypeError
        For other words.
    """
    global _device
    _device = check_device(device)


def device() -> str:
    """Where the filters compute."""
    return _device


def _chained(setter: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(setter)
    def call(self: Any, *args: Any, **keywords: Any) -> Any:
        setter(self, *args, **keywords)
        if setter.__name__ in ("SetNumberOfThreads", "SetNumberOfWorkUnits"):
            self._threads[setter.__name__] = int(args[0] if args else next(iter(keywords.values())))
        return self

    return call


def _is_setter(name: str) -> bool:
    return name.startswith("Set") or name.endswith(("On", "Off")) or name in ("ZeroOrder", "FirstOrder", "SecondOrder")


class Face:
    """Mixed into a subclass of a SimpleITK filter: setters that can be chained, events, and the way back."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        theirs = cls.__mro__[2]
        cls.__doc__ = cls.__doc__ or theirs.__doc__
        for name in dir(theirs):
            found = next(k.__dict__[name] for k in theirs.__mro__ if name in k.__dict__)
            # Static ones set a global default: they are SimpleITK's, and there is nothing to chain.
            if _is_setter(name) and not name.startswith("_") and callable(found):
                setattr(cls, name, _chained(found))

    def __init__(self) -> None:
        super().__init__()
        self._threads: dict[str, int] = {}
        self._commands: list[tuple[int, Any]] = []
        self._progress: float | None = None

    def _compute(self, image: sitk.Image) -> sitk.Image:
        """The filter's result, or `NotHereError`."""
        raise NotImplementedError

    def Execute(self, image1: sitk.Image) -> sitk.Image:  # noqa: N802
        """Run the filter on an image; what cannot be done here SimpleITK does, with one warning for every reason."""
        try:
            if not isinstance(image1, sitk.Image):
                raise NotHereError
            with self._observed(self._told(image1)):
                return self._answer(image1)
        except NotHereError as error:
            reason = error.args[0] if error.args else None
        self._progress = None
        result = super().Execute(image1)  # type: ignore[misc]
        # Only now: where SimpleITK refuses too, its error says it all.
        if reason is not None:
            name = type(self).__name__
            warn_once(f"gpuresample.sitk.{name} leaves this to SimpleITK: {reason}. (Said once for every reason.)")
        return result

    def _told(self, image: sitk.Image) -> list[float]:
        """What `GetProgress` says at each of SimpleITK's own progress events."""
        return [0.0, 1.0]

    def _answer(self, image: sitk.Image) -> sitk.Image:
        try:
            return self._compute(image)
        except (ValueError, TypeError) as error:
            # What we refuse by name, SimpleITK may know, or refuse in its own words.
            raise NotHereError(str(error)) from error

    @contextmanager
    def _observed(self, told: list[float]) -> Iterator[None]:
        """Our own run, with the events that SimpleITK's has, and on as many threads as it was given."""
        before = told[:1] if told[0] == 0.0 else []
        self._progress = 0.0
        limits = [n for n in self._threads.values() if n > 0]
        with at_most(min(limits) if limits else None):
            self._happens(sitk.sitkStartEvent)
            for self._progress in before:
                self._happens(sitk.sitkProgressEvent)
            yield
            for self._progress in told[len(before) :]:
                self._happens(sitk.sitkProgressEvent)
            self._progress = 1.0
            self._happens(sitk.sitkEndEvent)

    def _happens(self, event: int) -> None:
        for wanted, command in self._commands:
            if wanted in (event, sitk.sitkAnyEvent):
                command.Execute() if isinstance(command, sitk.Command) else command()

    def AddCommand(self, event: int, command: Any) -> Any:  # noqa: N802
        """Call something on an event: start, progress, end.

        Progress is told as often as SimpleITK tells it on one thread; on several, SimpleITK tells the part of the
        calling one. All of it is told at the end here, but the first 0.
        """
        result = super().AddCommand(event, command)  # type: ignore[misc]
        self._commands.append((event, command))
        return result

    def RemoveAllCommands(self) -> None:  # noqa: N802
        """Forget all commands."""
        super().RemoveAllCommands()  # type: ignore[misc]
        self._commands.clear()

    def GetProgress(self) -> float:  # noqa: N802
        """How much of the last run is done, 0 to 1."""
        done: float = super().GetProgress() if self._progress is None else self._progress  # type: ignore[misc]
        return done


def executed(face: Any, image1: sitk.Image, **values: Any) -> sitk.Image:
    """A filter's result, its parameters set first, in this order."""
    for name, value in values.items():
        getattr(face, f"Set{name}")(value)
    return face.Execute(image1)


def told_by_parts(count: int, length: int = 1) -> list[float]:
    """The progress that ITK tells of so many parts (lines, or voxels): with each that passes a further hundredth."""
    total = count * length
    step = max(total // 100, 1)
    ends = np.unique(-(-np.arange(step, total + 1, step) // length)) * length
    done = np.unique(np.append(ends // step * step, total))
    return [float(v) for v in (done / max(total, 1)).astype(np.float32)]


def voxel_type(pixel_id: int, vector: bool) -> np.dtype[Any]:
    """The NumPy type of a SimpleITK pixel type, which must be a vector or not."""
    known = VECTORS if vector else SCALARS
    if pixel_id not in known:
        raise NotHereError(f"pixel type {sitk.GetPixelIDValueAsString(pixel_id)}")
    return known[pixel_id]


def is_vector(image: sitk.Image) -> bool:
    """Whether voxels have components; 2-D or 3-D images of known voxels only."""
    if image.GetDimension() not in (2, 3):
        raise NotHereError(f"{image.GetDimension()}-D images")
    vector = image.GetPixelID() in VECTORS
    voxel_type(image.GetPixelID(), vector)
    if 0 in image.GetSize():
        raise NotHereError("empty images")
    return vector


def leading(values: Any, count: int, what: str) -> tuple[Any, ...]:
    """The first `count` values, as SimpleITK takes them; more may be given."""
    if len(values) < count:
        raise NotHereError(f"{what} of {len(values)} values for {count} dimensions")
    return tuple(values[:count])


def volumes(array: npt.NDArray[Any], dimension: int) -> npt.NDArray[Any]:
    """An image's voxels, components first if any, as (components, z, y, x)."""
    array = array[..., None, :, :] if dimension == 2 else array
    return array if array.ndim == 4 else array[None]
