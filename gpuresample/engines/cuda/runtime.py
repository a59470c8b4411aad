"""Kernel sources, and the runtime that compiles and launches them.

The launch code (`axis`, `gather`) is written against `Runtime`. `CupyRuntime` is the GPU; `host` runs
the same text on the CPU, so that the launch code and the kernels can be proven where there is no GPU.
"""

from __future__ import annotations

import ctypes
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

C_NAMES = {
    "int8": "signed char", "uint8": "unsigned char", "int16": "short", "uint16": "unsigned short", "int32": "int",
    "uint32": "unsigned int", "int64": "long long", "uint64": "unsigned long long", "float16": "half_t",
    "float32": "float", "float64": "double",
}  # fmt: skip

T = TypeVar("T")


@dataclass(frozen=True)
class Types:
    """What a kernel is compiled for: voxels in, voxels out, sums and offsets, by NumPy's names."""

    src: str
    dst: str
    acc: str = "float32"
    idx: str = "int32"

    @classmethod
    def of(cls, src: np.dtype[Any], dst: np.dtype[Any], idx: type, acc: np.dtype[Any] | None = None) -> Types:
        """By NumPy's types; `acc` is float32 unless given."""
        return _types(src, dst, idx, acc)

    @property
    def prelude(self) -> str:
        """The typedefs in front of a kernel's text."""
        lines = ["#define GPURESAMPLE_TYPES", "struct half_t;"]
        lines += [f"typedef {C_NAMES[getattr(self, name)]} {name}_t;" for name in ("src", "dst", "acc", "idx")]
        return "\n".join(lines) + "\n"


@lru_cache(maxsize=256)
def _types(src: np.dtype[Any], dst: np.dtype[Any], idx: type, acc: np.dtype[Any] | None) -> Types:
    """Names are slow to ask for."""
    return Types(src.name, dst.name, "float32" if acc is None else acc.name, idx.__name__)


class Pointer(NamedTuple):
    """A pointer argument: an address, the size of what lies there, and the owner of the memory."""

    address: int
    itemsize: int
    keep: Any


# A struct that a kernel takes by value: an array of one.
Struct = npt.NDArray[np.void]
Argument = Pointer | np.generic | Struct


class Launch(NamedTuple):
    """One kernel launch.

    Attributes
    ----------
    file, function : str
        The kernel: `kernels/<file>.cu`, and the name in it.
    types : Types
    blocks : int
        Blocks of the grid, in a row.
    block : two int
        Threads of a block along x and y.
    arguments : sequence of Pointer, NumPy scalars and structs
        In the kernel's order, each scalar and struct of its parameter's type.
    shared : int
        Bytes of dynamic shared memory.
    """

    file: str
    function: str
    types: Types
    blocks: int
    block: tuple[int, int]
    arguments: Sequence[Argument]
    shared: int = 0


class Runtime(Protocol):
    """What the launch code needs of a device.

    `launches` counts launches by function, `compilations` by (file, types).
    """

    name: str
    launches: Counter[str]
    compilations: Counter[tuple[str, Types]]

    def on(self, array: Any) -> AbstractContextManager[Any]:
        """A block in which the device of `array` is the current one."""

    def use(self, device: int | None) -> AbstractContextManager[Any]:
        """A block in which a device, by its number, is the current one; None leaves it as it is."""

    def device(self) -> Hashable:
        """The current device."""

    def address(self, array: Any) -> int:
        """Of an array's first element."""

    def contiguous(self, array: Any) -> Any:
        """A native copy in C order."""

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """New memory; what is in it is undefined."""

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """A copy on the device, made in the order of the current stream."""

    def download(self, array: Any, out: npt.NDArray[Any]) -> None:
        """Copy to host memory; returns when it is there."""

    def free_memory(self) -> int:
        """Bytes that can still be had on the current device."""

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """New host memory that the device reads and writes by itself."""

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        """Whether the device reads and writes an array's memory by itself."""

    def copy_in(self, host: npt.NDArray[Any], array: Any) -> None:
        """Copy pinned memory to the device in the order of the current stream; both in C order, of one size."""

    def copy_out(self, array: Any, host: npt.NDArray[Any]) -> None:
        """Copy to pinned memory in the order of the current stream; both in C order, of one size."""

    def stream(self) -> Any:
        """A new stream of the current device."""

    def within(self, stream: Any) -> AbstractContextManager[Any]:
        """A block in which a stream is the current one."""

    def mark(self) -> Any:
        """A point in the current stream, for `wait` and `finish`."""

    def wait(self, mark: Any) -> None:
        """Let what the current stream does next come after a mark; does not hold up the caller."""

    def finish(self, mark: Any) -> None:
        """Hold up the caller until a mark is reached."""

    def launch(self, launch: Launch) -> None:
        """Run a kernel in the order of the current stream."""


# (bytes) -> (address, owner): memory that stays as long as the owner does.
Allocate = Callable[[int], tuple[int, Any]]
_allocate: ContextVar[Allocate | None] = ContextVar("allocate", default=None)


@contextmanager
def scratch_from(allocate: Allocate | None) -> Iterator[None]:
    """A block in which the GPU's scratch, and outputs that we make, come from an allocator of the caller's.

    Without it they come from CuPy's current allocator (`cupy.cuda.set_allocator`), its memory pool unless set.

    Parameters
    ----------
    allocate : callable or None
        Takes a number of bytes; gives the address of such memory on the current device, aligned to 256 bytes, and an
        object that keeps it. The object is let go once the last kernel that uses the memory is launched, not when it
        ends: what is freed must be handed out anew in the order of the current stream, as torch's allocator does.
        None is CuPy's.
    """
    token = _allocate.set(allocate)
    try:
        yield
    finally:
        _allocate.reset(token)


# --- sources -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def folder() -> Path:
    """Where the kernels are: in the wheel beside the engines' package, in a checkout beside the package.

    Raises
    ------
    FileNotFoundError
        If they are in neither place.
    """
    package = Path(__file__).resolve().parents[2]
    for place in (package / "_kernels", package.parent / "kernels"):
        if (place / "common.cuh").is_file():
            return place
    raise FileNotFoundError(f"the CUDA kernels are missing: neither in {package / '_kernels'} nor beside the package")


def read(name: str) -> str:
    """The text of a file of the kernels' folder."""
    return (folder() / name).read_text(encoding="utf-8")


def assemble(file: str, types: Types, read: Callable[[str], str] = read) -> str:
    """A kernel's whole text: typedefs in front, local includes in place.

    Includes are written out because compilers' caches look at the text they are given, not at what it includes.
    """
    seen: set[str] = set()

    def inline(name: str) -> str:
        if name in seen:
            return ""
        seen.add(name)
        text = read(name).replace("#pragma once\n", "")
        return re.sub(r'^#include "([^"]+)"$', lambda match: inline(match[1]), text, flags=re.MULTILINE)

    return types.prelude + inline(f"{file}.cu")


def functions(text: str) -> list[str]:
    """Names of a text's kernels."""
    return re.findall(r'extern "C" __global__ void (?:BOUNDS )?(\w+)\(', text)


# --- what stays on the device --------------------------------------------------------------------------------------


class Uploads:
    """What was made once for a table or a work, and stays on the device as long as that lives."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        # What is made may take what is made for another owner.
        self._lock = threading.RLock()
        self._kept: WeakKeyDictionary[Any, dict[Hashable, tuple[Any, Any]]] = WeakKeyDictionary()

    def get(self, owner: Any, what: Hashable, make: Callable[[], T]) -> T:
        """`make()`, kept for `owner` and the current device under the name `what`.

        Whoever uses it in another stream comes after the copy.
        """
        key = (self._runtime.device(), what)
        with self._lock:
            kept = self._kept.setdefault(owner, {})
            if key not in kept:
                made = make()
                kept[key] = made, self._runtime.mark()
            value, mark = kept[key]
        self._runtime.wait(mark)
        return value


# CUDA's address of the stream that every thread has for itself: one address, and as many streams as threads.
PER_THREAD = 2


@dataclass(eq=False)
class Mark:
    """A point in one of CuPy's streams: the stream's address, the event, and whether it is known to have happened."""

    stream: int
    event: Any
    over: bool = False


# --- the GPU -------------------------------------------------------------------------------------------------------


class CupyRuntime:
    """The GPU, through CuPy: its current stream, its memory pool, its compile cache on disk."""

    name = "cuda"

    def __init__(self) -> None:
        import cupy

        self._cupy = cupy
        self._lock = threading.Lock()
        self._modules: dict[tuple[str, Types], Any] = {}
        self._functions: dict[tuple[str, Types], Any] = {}
        self.launches: Counter[str] = Counter()
        self.compilations: Counter[tuple[str, Types]] = Counter()

    def on(self, array: Any) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return self.use(int(array.device.id))

    def use(self, device: int | None) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return nullcontext() if device is None else self._cupy.cuda.Device(device)

    def device(self) -> Hashable:
        """See `Runtime`."""
        return int(self._cupy.cuda.runtime.getDevice())

    def address(self, array: Any) -> int:
        """See `Runtime`."""
        return int(array.data.ptr)

    def contiguous(self, array: Any) -> Any:
        """See `Runtime`."""
        return self._cupy.ascontiguousarray(array)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        """See `Runtime`."""
        allocate = _allocate.get()
        if allocate is None:
            return self._cupy.empty(shape, dtype)
        n = max(1, math.prod(shape) * np.dtype(dtype).itemsize)
        address, owner = allocate(n)
        memory = self._cupy.cuda.UnownedMemory(address, n, owner, self.device())
        return self._cupy.ndarray(tuple(shape), dtype, self._cupy.cuda.MemoryPointer(memory, 0))

    def upload(self, array: npt.NDArray[Any]) -> Any:
        """See `Runtime`."""
        return self._cupy.asarray(array)

    def download(self, array: Any, out: npt.NDArray[Any]) -> None:
        """See `Runtime`."""
        if out.flags.c_contiguous:
            array.get(out=out)
        else:
            out[...] = array.get()

    def free_memory(self) -> int:
        """See `Runtime`. CuPy's pool gives its free blocks back when it is short of memory: they count."""
        free, _ = self._cupy.cuda.runtime.memGetInfo()
        pool = self._cupy.get_default_memory_pool()
        limit = int(pool.get_limit())
        there = int(free) + int(pool.free_bytes())
        return there if limit == 0 else min(there, limit - int(pool.used_bytes()))

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See `Runtime`."""
        n = math.prod(shape)
        memory = self._cupy.cuda.alloc_pinned_memory(max(1, n * np.dtype(dtype).itemsize))
        return np.frombuffer(memory, dtype, n).reshape(shape)

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        """See `Runtime`."""
        try:
            found = self._cupy.cuda.runtime.pointerGetAttributes(array.__array_interface__["data"][0])
        except RuntimeError:  # how older drivers say that memory is none of theirs
            return False
        return int(found.type) == 1

    def copy_in(self, host: npt.NDArray[Any], array: Any) -> None:
        """See `Runtime`."""
        stream = self._cupy.cuda.get_current_stream()
        array.data.copy_from_host_async(ctypes.c_void_p(host.ctypes.data), host.nbytes, stream)

    def copy_out(self, array: Any, host: npt.NDArray[Any]) -> None:
        """See `Runtime`."""
        stream = self._cupy.cuda.get_current_stream()
        array.data.copy_to_host_async(ctypes.c_void_p(host.ctypes.data), host.nbytes, stream)

    def stream(self) -> Any:
        """See `Runtime`."""
        return self._cupy.cuda.Stream(non_blocking=True)

    def within(self, stream: Any) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return cast("AbstractContextManager[Any]", stream)

    def finish(self, mark: Any) -> None:
        """See `Runtime`."""
        mark.event.synchronize()

    def mark(self) -> Any:
        """See `Runtime`."""
        stream = self._cupy.cuda.get_current_stream()
        return Mark(stream.ptr, stream.record(self._cupy.cuda.Event(disable_timing=True)))

    def wait(self, mark: Any) -> None:
        """See `Runtime`. What is known to be over is not asked for again: a stream that is captured may not ask."""
        if mark.over:
            return
        stream = self._cupy.cuda.get_current_stream()
        if stream.ptr == mark.stream != PER_THREAD:
            return
        mark.over = bool(mark.event.done)
        if not mark.over:
            stream.wait_event(mark.event)

    def launch(self, launch: Launch) -> None:
        """See `Runtime`."""
        name = (launch.function, launch.types)
        # CuPy makes a new object whenever it is asked for a function.
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module(launch.file, launch.types).get_function(launch.function)
        arguments = tuple([a.address if isinstance(a, Pointer) else a for a in launch.arguments])
        function((launch.blocks,), launch.block, arguments, shared_mem=launch.shared)
        with self._lock:
            self.launches[launch.function] += 1

    def _module(self, file: str, types: Types) -> Any:
        with self._lock:
            if (file, types) not in self._modules:
                text = assemble(file, types)
                self._modules[file, types] = self._cupy.RawModule(code=text, options=("-std=c++17",))
                self.compilations[file, types] += 1
            return self._modules[file, types]
