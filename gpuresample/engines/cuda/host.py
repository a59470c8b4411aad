"""The stand-in for a GPU: the kernels' own text, built by g++ and run on NumPy arrays.

For proof, not for speed. `kernels/host/cuda_on_host.h` says how threads and barriers work there.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.engines.cuda import runtime
from gpuresample.engines.cuda.runtime import Launch, Pointer, Types, assemble, functions

SHIM = "host/cuda_on_host.h"
# No fused multiply-add: `__dmul_rn` and its kin are plain operators there. Compiling takes longer than running.
# Fibres jump from stack to stack, so a library must not claim that it is fit for shadow stacks (CET).
OPTIONS = (
    "-x", "c++", "-std=c++17", "-Og", "-ffp-contract=off", "-fcf-protection=none", "-fPIC", "-shared", "-w",
)  # fmt: skip
# Nothing of C++'s own libraries, whose linking takes half as long as compiling a small kernel.
LINK = ("-nostartfiles", "-nodefaultlibs", "-lm", "-lc")
ERRORS = {
    1: "some threads of a block ended while others waited at a barrier",
    2: "a block wrote past its shared memory",
}


def cache_folder() -> Path:
    """Where compiled kernels are kept; `GPURESAMPLE_CACHE` names another folder."""
    if "GPURESAMPLE_CACHE" in os.environ:
        return Path(os.environ["GPURESAMPLE_CACHE"])
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gpuresample"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gpuresample"


@lru_cache(maxsize=1)
def compiler() -> tuple[str, str]:
    """The C++ compiler's name and version.

    Raises
    ------
    RuntimeError
        If there is none.
    """
    name = os.environ.get("CXX", "g++")
    try:
        version = subprocess.run(
            [name, "--version"], check=True, capture_output=True, encoding="utf-8", errors="replace"
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"running kernels on the CPU needs a C++ compiler; {name!r} (CXX) fails: {error}") from None
    return name, version


def build(text: str, options: Sequence[str]) -> Path:
    """A shared library of C++ text, compiled unless the cache has it.

    Raises
    ------
    RuntimeError
        With the compiler's complaint.
    """
    name, version = compiler()
    key = hashlib.sha256("\0".join([text, version, *options]).encode()).hexdigest()[:32]
    library = cache_folder() / "host" / f"{key}.so"
    if library.is_file():
        return library
    library.parent.mkdir(parents=True, exist_ok=True)
    # Beside it and renamed: two processes may build the same kernel at once.
    handle, temporary = tempfile.mkstemp(suffix=".so", dir=library.parent)
    os.close(handle)
    try:
        done = subprocess.run(
            [name, *options, "-o", temporary, "-"],
            input=text,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{name} cannot compile a kernel:\n{done.stderr}")
        os.replace(temporary, library)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return library


class HostRuntime:
    """A `runtime.Runtime` on NumPy arrays.

    Parameters
    ----------
    read : callable, optional
        Gives the text of a file of the kernels' folder.
    options : sequence of str, optional
        Further options of the compiler; it then links what it usually does.
    apart : bool
        Build every kernel by itself, and not a file's kernels together: quicker where few of them are launched.
    """

    name = "host"

    def __init__(
        self, read: Callable[[str], str] = runtime.read, options: Sequence[str] = (), *, apart: bool = False
    ) -> None:
        self._read = read
        self._options = (*OPTIONS, *(options or LINK))
        self._apart = apart
        self._lock = threading.Lock()
        self._modules: dict[tuple[str, Types, str], ctypes.CDLL] = {}
        self.launches: Counter[str] = Counter()
        self.compilations: Counter[tuple[str, Types]] = Counter()

    def on(self, array: Any) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return nullcontext()

    def use(self, device: int | None) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return nullcontext()

    def device(self) -> Hashable:
        """See `Runtime`."""
        return "host"

    def address(self, array: npt.NDArray[Any]) -> int:
        """See `Runtime`."""
        return int(array.__array_interface__["data"][0])

    def contiguous(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runtime`."""
        return np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See `Runtime`."""
        return np.empty(shape, dtype)

    def upload(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runtime`."""
        return array.copy()

    def download(self, array: npt.NDArray[Any], out: npt.NDArray[Any]) -> None:
        """See `Runtime`."""
        out[...] = array

    def free_memory(self) -> int:
        """See `Runtime`."""
        return sys.maxsize

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """See `Runtime`."""
        return np.empty(shape, dtype)

    def is_pinned(self, array: npt.NDArray[Any]) -> bool:
        """See `Runtime`."""
        return False

    def copy_in(self, host: npt.NDArray[Any], array: npt.NDArray[Any]) -> None:
        """See `Runtime`."""
        array[...] = host

    def copy_out(self, array: npt.NDArray[Any], host: npt.NDArray[Any]) -> None:
        """See `Runtime`."""
        host[...] = array

    def stream(self) -> Any:
        """See `Runtime`."""
        return None

    def within(self, stream: Any) -> AbstractContextManager[Any]:
        """See `Runtime`."""
        return nullcontext()

    def mark(self) -> Any:
        """See `Runtime`."""

    def wait(self, mark: Any) -> None:
        """See `Runtime`."""

    def finish(self, mark: Any) -> None:
        """See `Runtime`."""

    def launch(self, launch: Launch) -> None:
        """See `Runtime`.

        Raises
        ------
        TypeError
            If the arguments are not what the kernel takes.
        RuntimeError
            If the kernel misused a barrier or its shared memory.
        """
        # One at a time: the shim's threads and blocks are global to a module.
        with self._lock:
            module = self._module(launch.file, launch.types, launch.function)
            takes = getattr(module, f"parameters_{launch.function}")
            takes.restype = ctypes.c_char_p
            _check(launch, takes().decode().split())
            values = [np.uintp(a.address) if isinstance(a, Pointer) else a for a in launch.arguments]
            cells = [np.array(value) for value in values]
            table = (ctypes.c_void_p * len(cells))(*[cell.ctypes.data for cell in cells])
            run = getattr(module, f"launch_{launch.function}")
            run.argtypes = [ctypes.c_uint, ctypes.c_uint, ctypes.c_uint, ctypes.c_size_t, ctypes.c_void_p]
            error = run(launch.blocks, *launch.block, launch.shared, table)
            self.launches[launch.function] += 1
        if error:
            raise RuntimeError(f"{launch.function}: {ERRORS[error]}")

    def _module(self, file: str, types: Types, function: str) -> ctypes.CDLL:
        key = (file, types, function if self._apart else "")
        if key not in self._modules:
            text = assemble(file, types, self._read)
            names = [function] if self._apart else functions(text)
            launchers = "".join(f"HOST_LAUNCHER({name})\n" for name in names)
            library = build(self._read(SHIM) + text + launchers, self._options)
            self._modules[key] = ctypes.CDLL(str(library))
            self.compilations[file, types] += 1
        return self._modules[key]


def _check(launch: Launch, takes: Sequence[str]) -> None:
    """Arguments against parameters: pointers by what they point at, numbers by kind and size."""
    given = []
    for argument in launch.arguments:
        if isinstance(argument, Pointer):
            given.append(f"p{argument.itemsize}")
        else:
            struct = argument.dtype == np.float16 or argument.dtype.kind == "V"
            kind = "s" if struct else "f" if argument.dtype.kind == "f" else "i"
            given.append(f"{kind}{argument.dtype.itemsize}")
    if given != list(takes):
        raise TypeError(f"{launch.function} takes {' '.join(takes)}, got {' '.join(given)}")
