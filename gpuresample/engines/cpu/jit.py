"""Kernels: functions in Numba's Python, compiled for the types that they are called with, and called by address.

Nothing here imports Numba. A call puts its arguments' types and values side by side, finds the machine code for these
types (see `store`) and hands it the values: numbers as they are, arrays as the addresses of NumPy's own descriptions of
them. Only where no machine code is found does `compiler` make it, and loads Numba for that.
"""

from __future__ import annotations

import ctypes
import itertools
import pickle
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from gpuresample.caching import cached_property
from gpuresample.engines.cpu import shipped, store
from gpuresample.engines.cpu.declarations import Declared, Instructions
from gpuresample.engines.cpu.store import FINE, NOT_C
from gpuresample.engines.threads import held_at_forks, importing

ndarray = np.ndarray
# Where the fields of an array begin, behind what every Python object has.
HEAD = object.__basicsize__
# Bytes of a slot.
SLOT = 8
# Types of numbers: how a signature calls them, and how `struct` packs them into eight bytes.
PACKED = {
    "b1": "?7x", "i1": "b7x", "i2": "h6x", "i4": "i4x", "i8": "q", "u1": "B7x", "u2": "H6x", "u4": "I4x", "u8": "Q",
    "f4": "f4x", "f8": "d",
}  # fmt: skip
SCALARS: dict[type, str] = {bool: "b1", int: "i8", float: "f8"} | {np.dtype(code).type: code for code in PACKED}


class Entry:
    """Machine code of one kernel for one signature."""

    __slots__ = ("_code", "_formats", "_function", "_pack", "_unpack")

    def __init__(self, code: store.Code, signature: str) -> None:
        self._code = code
        self._function = code.function
        self._formats = [PACKED.get(leaf, "q") for leaf in leaves(signature)]
        self._pack = _packer(self._formats)
        returned = leaves(code.returns)
        self._unpack = struct.Struct("=" + "".join(PACKED[leaf] for leaf in returned)) if returned else None

    def __call__(self, slots: Sequence[Any]) -> Any:
        """What the kernel returns; `NotImplemented` where an array is not as the signature says."""
        return self._run(self._pack(*slots))

    def with_fixed(self, slots: Sequence[Any], varies: Sequence[bool]) -> Callable[[Sequence[Any]], Any]:
        """The same for slots most of which stay as they are: packed once, but for those that vary."""
        pack = _packer([f for f, one in zip(self._formats, varies, strict=True) if one])
        packed = self._pack(*slots)
        fixed: list[bytes] = []
        moving: list[slice] = []
        n = 0
        for one, group in itertools.groupby(range(len(slots)), varies.__getitem__):
            part = list(group)
            if one:
                moving.append(slice(SLOT * n, SLOT * (n + len(part))))
                n += len(part)
            if not one or not fixed:
                fixed.append(b"" if one else packed[SLOT * part[0] : SLOT * (part[-1] + 1)])
        if len(fixed) == len(moving):
            fixed.append(b"")

        def call(values: Sequence[Any]) -> Any:
            new = pack(*values)
            parts = [fixed[0]]
            for k, where in enumerate(moving, 1):
                parts += new[where], fixed[k]
            return self._run(b"".join(parts))

        return call

    def _run(self, packed: bytes) -> Any:
        unpack = self._unpack
        if unpack is None:
            answer = self._function(packed, HEAD, None)
            if answer == FINE:
                return None
            values: tuple[Any, ...] = ()
        else:
            room = ctypes.create_string_buffer(unpack.size)
            answer = self._function(packed, HEAD, room)
            values = unpack.unpack(room.raw)
        if answer == FINE:
            return values if self._code.returns.startswith("(") else values[0]
        if answer == NOT_C:
            return NotImplemented
        raise _described(answer)


def _packer(formats: Sequence[str]) -> Callable[..., bytes]:
    return struct.Struct("=" + "".join(formats)).pack


def _described(address: int) -> Exception:
    """The error whose description, Numba's, is at an address of our own code."""
    data, n = ctypes.c_void_p.from_address(address).value, ctypes.c_int32.from_address(address + 8).value
    kind, arguments, _ = pickle.loads(ctypes.string_at(data or 0, n))
    error: Exception = kind(*arguments)
    return error


def leaves(signature: str) -> list[str]:
    """The types of a signature, whatever tuples they are in and whatever their names are."""
    words = signature.replace("(", " ").replace(")", " ").split()
    return [leaf for word in words if (leaf := word.rpartition("=")[2])]


class Varying:
    """The place of an argument that every call of a `Prepared` kernel brings along."""


VARIES = Varying()


class Prepared:
    """A kernel for many calls that have most of their arguments in common: these are put side by side once.

    What a call costs in Python is time that no other thread's calls have.

    Parameters
    ----------
    kernel : Kernel
    args : sequence
        Its arguments, `VARIES` in place of those that calls bring along.
    """

    __slots__ = ("_args", "_at", "_calls", "_kernel", "_quick")

    def __init__(self, kernel: Kernel, args: Sequence[Any]) -> None:
        self._kernel = kernel
        self._args = tuple(args)
        self._at = [k for k, value in enumerate(self._args) if value is VARIES]
        self._calls = 0
        # Kinds of what varies, and what is called for these: in one step, for threads prepare at the same time.
        self._quick: tuple[list[Any], Callable[[Sequence[Any]], Any] | None] | None = None

    def __call__(self, *values: Any) -> Any:
        """Run the kernel with these in the places that vary; see `Kernel`."""
        known, quick = self._quick or (None, None)
        if quick is not None:
            kinds: list[Any] = []
            slots: list[Any] = []
            _side_by_side(values, kinds, slots)
            if kinds == known:
                result = quick(slots)
                if result is not NotImplemented:
                    return result
        args = list(self._args)
        for k, value in zip(self._at, values, strict=True):
            args[k] = value
        result = self._kernel(*args)
        self._calls += 1
        if self._calls > 1 and self._quick is None:  # nothing is made for a single call
            self._prepare(args, values)
        return result

    def _prepare(self, args: Sequence[Any], values: Sequence[Any]) -> None:
        kinds: list[Any] = []
        slots: list[Any] = []
        varies: list[bool] = []
        for k, value in enumerate(args):
            _side_by_side((value,), kinds, slots)
            varies += [k in self._at] * (len(slots) - len(varies))
        own: list[Any] = []
        _side_by_side(values, own, [])
        entry = self._kernel.quick(kinds)
        self._quick = own, None if entry is None else entry.with_fixed(slots, varies)


class Kernel(Declared):
    """A function in Numba's Python, to be called with arrays, numbers and tuples of them.

    It reads the parts of a named tuple by their names. Code is made for the names, their order and the types:
    classes that have all of these in common share it.

    Attributes
    ----------
    entries : dict
        What is loaded, by signature.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any], inner: bool) -> None:
        super().__init__(function, options)
        self.inner = inner
        self.entries: dict[str, Entry] = {}
        self._quick: dict[tuple[Any, ...], Entry] = {}

    def __call__(self, *args: Any) -> Any:
        """Run the kernel.

        Raises
        ------
        TypeError
            For arguments of types that no kernel takes, and whatever the function raises.
        """
        kinds: list[Any] = []
        slots: list[Any] = []
        _side_by_side(args, kinds, slots)
        entry = self._quick.get(tuple(kinds))
        if entry is not None:
            try:
                result = entry(slots)
            except struct.error:  # an integer that has no room in 64 bits with a sign
                result = NotImplemented
            if result is not NotImplemented:
                return result
        return self._slowly(args, tuple(kinds))

    def quick(self, kinds: Sequence[Any]) -> Entry | None:
        """What is called for arguments of these kinds, if there was such a call."""
        return self._quick.get(tuple(kinds))

    def _slowly(self, args: tuple[Any, ...], kinds: tuple[Any, ...]) -> Any:
        """A call for the first time, or with arrays that are not in C order."""
        if store.interpreted() or not store.layout_is_known():
            return self._by_numba(*args)
        given, args = args, _plain(args)
        signature = " ".join(_spelt(given))
        entry = self.entries.get(signature)
        if entry is None:
            entry = self.entries.setdefault(signature, self._found(signature))
        slots: list[Any] = []
        _side_by_side(args, [], slots)
        usual = not any(type(v) is int and v >= 1 << 63 for v in slots) and _same(given, args)
        if "A" not in signature and usual:
            self._quick[kinds] = entry
        result = entry(slots)
        if result is NotImplemented:  # an empty array whose address is odd
            raise TypeError(f"{self.name} takes no arrays whose addresses are not those of whole elements")
        return result

    @cached_property
    def _by_numba(self) -> Callable[..., Any]:
        called: Callable[..., Any] = _compiler().callable_by_python(self)
        return called

    def _found(self, signature: str) -> Entry:
        there = shipped.load(self, signature) or store.load(self, signature)
        return Entry(there or _compiler().code_for(self, signature), signature)


def _compiler() -> Any:
    """The module that compiles, which loads Numba."""
    with importing:
        from gpuresample.engines.cpu import compiler
    return compiler


def _compilers_lock() -> Any:
    numba = sys.modules.get("numba.core.compiler_lock")
    return getattr(getattr(numba, "global_compiler_lock", None), "_lock", None)


held_at_forks(_compilers_lock)


def _side_by_side(args: Sequence[Any], kinds: list[Any], slots: list[Any]) -> None:
    """Add arguments' kinds, and what is handed over of them: an array's address, a number."""
    for value in args:
        kind = type(value)
        if kind is ndarray:
            kinds.append(value.dtype)
            kinds.append(value.ndim)
            slots.append(id(value))
        elif isinstance(value, tuple):
            kinds.append(kind)  # which says what names its parts have
            _side_by_side(value, kinds, slots)
            kinds.append(")")
        else:
            kinds.append(kind)
            slots.append(value)


def _plain(args: Sequence[Any]) -> tuple[Any, ...]:
    """Arguments without subclasses of arrays, in plain tuples."""
    return tuple(_plain(a) if isinstance(a, tuple) else np.asarray(a) if isinstance(a, ndarray) else a for a in args)


def _same(given: Sequence[Any], plain: Sequence[Any]) -> bool:
    """Whether `_plain` has changed no array."""
    pairs = zip(given, plain, strict=True)
    return all(_same(a, b) if isinstance(a, tuple) else a is b for a, b in pairs)


def _spelt(args: Sequence[Any]) -> Iterator[str]:
    """Arguments' types in the words of a signature."""
    for value in args:
        if isinstance(value, ndarray):
            code = _code(value.dtype)
            if not value.flags.aligned:
                raise TypeError("arrays must be aligned")
            yield f"{code}[{value.ndim}{'' if value.flags.c_contiguous else 'A'}]"
        elif isinstance(value, tuple):
            parts: Iterable[str] = _spelt(value)
            names = getattr(value, "_fields", None)
            if names is not None:
                parts = (f"{name}={part}" for name, part in zip(names, parts, strict=True))
            yield f"({' '.join(parts)})"
        elif type(value) is int and value >= 1 << 63:
            yield "u8"
        elif type(value) in SCALARS:
            yield SCALARS[type(value)]
        else:
            raise TypeError(f"a kernel takes arrays, numbers and tuples, not {type(value).__name__}")


@lru_cache(maxsize=64)
def _code(dtype: np.dtype[Any]) -> str:
    code = f"{dtype.kind}{dtype.itemsize}"
    if code not in PACKED or not dtype.isnative:
        raise TypeError(f"a kernel takes no arrays of {dtype}")
    return code


def njit(*, inner: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, of which nothing is needed before a function is compiled.

    Parameters
    ----------
    inner : bool
        Whether only other kernels call it.
    """
    return lambda function: Kernel(function, options, inner)


def instructions(name: str) -> Instructions:
    """A function that writes LLVM's instructions: a module of this folder, which needs Numba, and a name in it."""
    module, _, function = name.partition(".")
    return Instructions(f"{__package__}.{module}", function)


# Have the line of memory with `array[index]` brought closer, to be read or written soon. `array` is flat and
# contiguous, `index` unsigned. What lies outside the array is not touched, and no fault.
prefetch = instructions("neighbours.prefetch")
prefetch_to_write = instructions("neighbours.prefetch_to_write")
