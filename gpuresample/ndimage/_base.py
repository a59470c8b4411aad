"""What the functions of `gpuresample.ndimage` share: arrays in and out, words, what is left to SciPy, runs of works."""

from __future__ import annotations

import functools
import importlib
import operator
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.caching import Remembered, kept, n_bytes
from gpuresample.checks import shown
from gpuresample.containers import Held, hold
from gpuresample.engines.interface import Store
from gpuresample.installation import callers_level, warn_once
from gpuresample.planning import scipy_works as works
from gpuresample.planning.scipy_works import Line
from gpuresample.planning.works import Gather, Separable, Work

Array = npt.NDArray[Any]
P = ParamSpec("P")

Once = tuple[Separable, tuple[Any, ...], Store]
"""A work, what makes three spatial axes of fewer, and how sums become elements."""

SYNONYMS = {"grid-mirror": "reflect"}
# Types that sums are made of as they are; all others become float64 before.
SUMMED = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64)
# Voxels that engines choose, not sum, by the bits that they are.
BITS = {1: np.uint8, 2: np.uint16, 4: np.int32, 8: np.float64}


class LeftToSciPyWarning(RuntimeWarning):
    """A call went to SciPy, because something that it asks for is not done here."""


class NotHereError(Exception):
    """What is asked is SciPy's to do; the reason."""


_local = {"device": "auto"}


def set_device(device: str) -> None:
    """Choose where the functions of `gpuresample.ndimage` compute.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda", "cuda:N"}
        As for `gpuresample.resample`.

    Raises
    ------
    ValueError, TypeError
        For other words.
    """
    _local["device"] = engines.check_device(device)


def scipys(name: str, why: str) -> Any:
    """SciPy's own function of that name.

    Raises
    ------
    ImportError
        Where SciPy is not installed: what it is needed for.
    """
    try:
        library = importlib.import_module("scipy.ndimage")
    except ImportError as error:
        raise ImportError(
            f"gpuresample.ndimage.{name} leaves this to SciPy, which is not installed: {why}. pip install scipy"
        ) from error
    return getattr(library, name)


def or_scipy(function: Callable[P, Any]) -> Callable[P, Any]:
    """Have SciPy do what the function raises `NotHereError` for, with one warning for every reason.

    A function that answers an `Output` has its calls with small arrays remembered, where they are one run of a work.
    """
    name = function.__name__

    @functools.wraps(function)
    def call(*args: P.args, **keywords: P.kwargs) -> Any:
        key = _key_of(name, args, keywords)
        if key is not None and (again := _again.get(key)) is not None:
            return again(args[0])
        try:
            result = function(*args, **keywords)
        except NotHereError as error:
            reason = str(error)
        else:
            if not isinstance(result, Output):
                return result
            if key is not None and result.once is not None:
                _remember(key, args[0], result)
            return result.done()
        theirs = scipys(name, reason)
        result = theirs(*args, **keywords)
        warn_once(
            f"gpuresample.ndimage.{name} leaves this to SciPy: {reason}. (Said once for every reason.)",
            LeftToSciPyWarning,
        )
        return result

    return call


# --- calls that come again -------------------------------------------------------------------------------------------

# Elements of an input up to which what a call does besides its sums takes longer than these.
FEW = 1 << 15
# Arguments that say all that they are by their type and value.
_PLAIN = frozenset((int, float, str, bool, type(None), type, np.float64, np.int64))
_again: Remembered[Callable[[Any], Any]] = Remembered()


def _key_of(name: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Hashable | None:
    """What a call with a small array has in common with others that do the same; None where that is not known."""
    array = args[0] if args else None
    if type(array) is not np.ndarray or array.size > FEW or not array.flags.carray or "cuda" in _local["device"]:
        return None
    try:
        given = [*map(_told, args[1:]), *((word, _told(value)) for word, value in keywords.items())]
    except TypeError:
        return None
    return name, _local["device"], array.shape, array.dtype, tuple(given)


def _told(value: Any) -> Hashable:
    kind = type(value)
    if kind is tuple or kind is list:
        return kind, tuple(map(_told, value))
    if kind not in _PLAIN:
        raise TypeError(f"{kind.__name__} is no plain argument")
    # The zeros are equal, and their results are not.
    return kind, str(value) if value == 0 else value


def _remember(key: Hashable, array: Any, done: Output) -> None:
    """Keep what a call did, for the next one like it."""
    assert done.once is not None
    work, index, store = done.once
    shape, dtype = done.array.shape, done.array.dtype
    ready = engines.ready(_local["device"], work, array[index], done.array[index], store)
    if ready is None:
        return

    def again(array: Array) -> Array:
        target = np.empty(shape, dtype)
        ready(array, target)
        return target

    # Tables as they were made, and as the kernel takes them: with an index, and once more in slots.
    _again.put(key, again, 3 * n_bytes(work, set()))


# --- arrays ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Input:
    """An array that was given.

    Attributes
    ----------
    array : numpy.ndarray or cupy.ndarray
        Its voxels, where they are.
    held : Held or None
        What outputs are made like; None for NumPy arrays and what becomes one.
    """

    array: Any
    held: Held | None = None

    @property
    def where(self) -> str:
        """Where the voxels lie, "cpu" or "cuda:N"."""
        return "cpu" if self.held is None else self.held.where

    @property
    def space(self) -> ModuleType:
        """NumPy or CuPy."""
        return np if self.where == "cpu" else sys.modules["cupy"]


def taken(value: object, name: str = "input") -> Input:
    """An array of any library, or what NumPy makes of a sequence.

    Raises
    ------
    RuntimeError
        For elements that are no numbers of up to 64 bits.
    NotHereError
        For lazy arrays.
    """
    if not isinstance(value, np.ndarray) and _is_foreign(value):
        held = hold(value, name)
        assert held is not None
        found = Input(held.voxels, held)
    else:
        found = Input(np.asarray(value))
    dtype = found.array.dtype
    if dtype.kind not in "biufc" or dtype == np.float16 or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise RuntimeError(
            f"{name} must have bool, integer, float or complex elements of 32 or 64 bits a float, got {dtype}"
        )
    return found


def _is_foreign(value: object) -> bool:
    return hasattr(value, "__dlpack__") or hasattr(value, "__cuda_array_interface__")


@dataclass(eq=False)
class Output:
    """Where a result goes.

    Attributes
    ----------
    array : numpy.ndarray or cupy.ndarray
        Its voxels.
    result : object
        What the caller gets.
    held : Held or None
        See `Input`.
    once : (Separable, index, Store) or None
        What filled the array, if that was one run from the input as it was given, and of what view of them.
    """

    array: Any
    result: Any
    held: Held | None
    once: Once | None = None

    def done(self) -> Any:
        """The result, once kernels that write it were launched."""
        if self.held is not None:
            self.held.written(self.array)
        return self.result


def output_of(given: object, source: Input, shape: Sequence[int] | None = None, is_complex: bool = False) -> Output:
    """The array that `output=` asks for, by SciPy's rules: an array, a type, or None for the input's type.

    Raises
    ------
    RuntimeError
        For another shape, for types that are no numbers, for real ones where the result is complex.
    """
    size = tuple(source.array.shape if shape is None else shape)
    if given is None:
        dtype = source.array.dtype.newbyteorder("=")
        return _new(source, size, np.promote_types(dtype, np.complex64) if is_complex else dtype)
    if is_type(given):
        named = getattr(given, "name", None) or str(given).removeprefix("torch.")
        dtype = np.dtype(named if type(given).__name__ == "dtype" else given)  # type: ignore[arg-type]
        if is_complex and dtype.kind != "c":
            if isinstance(given, str):
                raise RuntimeError(f"output must have complex dtype, got {given!r}")
            warnings.warn("promoting specified output dtype to complex", stacklevel=callers_level())
            dtype = np.promote_types(dtype, np.complex64)
        elif isinstance(given, str) and not issubclass(dtype.type, np.number):
            raise RuntimeError(f"output must have numeric dtype, got {given!r}")
        return _new(source, size, dtype)
    if source.held is not None and _is_foreign(given) and not isinstance(given, np.ndarray):
        held = hold(given, "output", writing=True)
        assert held is not None
        made = Output(held.voxels, given, held)
    else:
        made = Output(np.asarray(given), np.asarray(given), None)
    if tuple(made.array.shape) != size:
        raise RuntimeError(f"output shape not correct: it must be {size}, got {tuple(made.array.shape)}")
    if is_complex and made.array.dtype.kind != "c":
        raise RuntimeError(f"output must have complex dtype, got {made.array.dtype}")
    return made


def is_type(output: object) -> bool:
    """Whether `output=` is a type, or None, and no array."""
    return output is None or isinstance(output, (type, np.dtype, str)) or type(output).__name__ == "dtype"


def _new(source: Input, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Output:
    if source.held is None:
        array = np.empty(shape, dtype)
        return Output(array, array, None)
    result, array = source.held.new(shape, dtype)
    return Output(array, result, source.held)


def check_stored(dtype: np.dtype[Any]) -> None:
    """Refuse types of results that SciPy refuses.

    Raises
    ------
    RuntimeError
        For floats of 16 and of more than 64 bits, and what is no number.
    """
    if dtype.kind not in "biuf" or dtype == np.float16 or dtype.itemsize > 8:
        raise RuntimeError(f"output must be bool, an integer or a float of 32 or 64 bits, got {dtype}")


# --- words -----------------------------------------------------------------------------------------------------------


def mode_of(mode: object) -> str:
    """A border's word.

    Raises
    ------
    RuntimeError
        For other words.
    """
    word = SYNONYMS.get(mode, mode) if isinstance(mode, str) else None
    if word not in works.MODES:
        raise RuntimeError(
            f"boundary mode not supported: mode must be one of {', '.join(map(repr, (*works.MODES, *SYNONYMS)))}, "
            f"got {shown(mode)}"
        )
    return word


def per_axis(name: str, value: Any, count: int) -> list[Any]:
    """One value for each axis; one that is no sequence stands for all.

    Raises
    ------
    RuntimeError
        For another number of values.
    """
    if isinstance(value, str) or not np.iterable(value):
        return [value] * count
    values = list(value)
    if len(values) != count:
        raise RuntimeError(
            f"{name}: sequence argument must have length equal to input rank, {count}, got {len(values)} values"
        )
    return values


def axis_of(axis: Any, ndim: int) -> int:
    """An axis counted from the first.

    Raises
    ------
    numpy.exceptions.AxisError
        For an axis that there is not.
    """
    number = operator.index(axis)
    if not -ndim <= number < ndim:
        raise np.exceptions.AxisError(number, ndim)
    return number % ndim


def axes_of(axes: Any, ndim: int) -> tuple[int, ...]:
    """The axes that are meant, each once.

    Raises
    ------
    ValueError, TypeError
        For axes that there are not, that come twice, that are no whole numbers.
    """
    if axes is None:
        return tuple(range(ndim))
    if not np.isscalar(axes) and not isinstance(axes, Iterable):
        raise ValueError(f"axes must be an integer, iterable of integers, or None, got {shown(axes)}")
    several: list[Any] = list(axes) if isinstance(axes, Iterable) else [axes]
    numbers = [operator.index(a) for a in several]
    for a in numbers:
        if not -ndim <= a < ndim:
            raise ValueError(f"specified axis: {a} is out of range of {ndim} axes")
    found = tuple(a % ndim for a in numbers)
    if len(set(found)) != len(found):
        raise ValueError(f"axes must be unique, got {shown(axes)}")
    return found


# --- runs ------------------------------------------------------------------------------------------------------------


def native(array: Any) -> Any:
    """An array in this machine's byte order; booleans as bytes."""
    if array.dtype == np.bool_:
        return array.view(np.uint8)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def summed(array: Any) -> Any:
    """An array of a type that sums are made of."""
    array = native(array)
    return array if array.dtype in SUMMED else array.astype(np.float64)


def run(work: Work, source: Any, target: Any, store: Store, where: str) -> None:
    """Have an engine fill `target` [..., z, y, x] from `source`."""
    voxels = source.size + target.size
    copies = store.exact
    engine = engines.select(_local["device"], where, voxels, copies, isinstance(work, Gather))
    engine.run(work, source, target, store)


@dataclass(frozen=True, eq=False)
class Pass:
    """One run of a work along up to three axes.

    Attributes
    ----------
    order : tuple of int
        Axes as the work has them: any leading ones, then the spatial ones.
    index : tuple
        What makes three spatial axes of fewer.
    work : Separable
    shape : tuple of int
        Of the result, in the array's own order of axes.
    """

    order: tuple[int, ...]
    index: tuple[Any, ...]
    work: Separable
    shape: tuple[int, ...]


@kept
def passes(lines: tuple[Line | None, ...], shape: tuple[int, ...], precision: str) -> tuple[Pass, ...]:
    """The runs for one line for each axis, None for those that nothing happens along: three axes go together."""
    n = len(lines)
    todo = [axis for axis, line in enumerate(lines) if line is not None and not line.is_identity]
    groups = [todo[max(0, k - 3) : k] for k in range(len(todo), 0, -3)] or [[]]
    made = []
    for group in groups:
        shape = tuple(line.n_dst if k in group and (line := lines[k]) else shape[k] for k in range(n))
        fill = [a for a in reversed(range(n)) if a not in group][: max(0, 3 - len(group))]
        spatial = sorted([*group, *fill])
        order = (*(a for a in range(n) if a not in spatial), *spatial)
        new = 3 - len(spatial)
        three = [works.unchanged(1)] * new
        three += [line if a in group and (line := lines[a]) else works.unchanged(shape[a]) for a in spatial]
        work = works.along((three[0], three[1], three[2]), (0, 1, 2), precision)
        made.append(Pass(order, (..., *[None] * new, *[slice(None)] * len(spatial)), work, shape))
    return tuple(made)


def along_axes(
    source: Any,
    lines: Sequence[Line | None],
    target: Any,
    precision: str,
    store: Store,
    space: ModuleType,
    where: str,
) -> Once | None:
    """Fill `target` with `source`, by one line for each axis, None for those that nothing happens along.

    Both are floats, or bits that are chosen. Answers what it did if that was one run.
    """
    todo = passes(tuple(lines), source.shape, precision)
    for step in todo:
        inner = np.float32 if precision == "single" else np.float64
        made = target if step is todo[-1] else space.empty(step.shape, target.dtype if store.exact else inner)
        run(step.work, source.transpose(step.order)[step.index], made.transpose(step.order)[step.index], store, where)
        source = made
    only = todo[0]
    in_order = len(todo) == 1 and only.order == tuple(range(len(lines)))
    return (only.work, only.index, store) if in_order else None


def missing_of(lines: Sequence[Line | None], space: ModuleType) -> Any:
    """Weight of what lies beyond the border for every sample, shaped to be spread; None where none does."""
    n = len(lines)
    if all(line is None or line.missing is None for line in lines):
        return None
    kept: Any = 1.0
    for axis, line in enumerate(lines):
        if line is not None and line.missing is not None:
            shape = [1] * n
            shape[axis] = line.n_dst
            kept = kept * (1.0 - space.asarray(line.missing)).reshape(shape)
    return 1.0 - kept
