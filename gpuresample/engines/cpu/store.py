"""Machine code of kernels on disk: what is shipped, and what former processes compiled. It is read without Numba.

Every kernel and signature is a file of its own, a shared library (or an object file, where there is no linker), named
by all that went into it, put there whole or not at all: writers need no lock, and nobody waits. Behind the code stands
what it is, and a checksum. What is damaged, old, of another machine or in another form counts as not there, and no call
fails for it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from gpuresample.engines.cpu import declarations
from gpuresample.engines.cpu.declarations import Declared
from gpuresample.frozen import frozen

# Of this module's files, and of how `jit` hands arguments to compiled code.
FORM = 1
DIGEST_BYTES = 32
SIZE_BYTES = 4
# Numba's settings that change nothing of the code.
HARMLESS = {"NUMBA_CACHE_DIR", "NUMBA_NUM_THREADS", "NUMBA_THREADING_LAYER"}
# Those that code is made by and a program may set itself, and what they usually are.
CONFIGURED = {
    "BOUNDSCHECK": None, "CPU_FEATURES": None, "CPU_NAME": None, "DEBUGINFO_DEFAULT": 0, "LOOP_VECTORIZE": 1, "OPT": 3,
    "SLP_VECTORIZE": 0,
}  # fmt: skip
# What a Linux system says of a processor, and machine code depends on.
PROCESSOR = {
    "vendor_id", "cpu family", "model", "model name", "stepping", "flags", "CPU implementer", "CPU architecture",
    "CPU variant", "CPU part", "Features",
}  # fmt: skip

# What compiled code answers, but for the address of an error: `NOT_C` where an array is not in C order, or
# not aligned.
FINE, NOT_C = 0, 1
# Of slots, the size of an object's head, and where results go.
Function = Callable[[bytes, int, Any], int]
PROTOTYPE = ctypes.CFUNCTYPE(ctypes.c_ssize_t, ctypes.c_char_p, ctypes.c_ssize_t, ctypes.c_void_p)
SYMBOL = "kernel"  # of a library that holds one kernel
_COMPILER = Path(__file__).with_name("compiler.py")
_COMPILER_THEN = declarations.stamp(_COMPILER)


class _Said:
    unsaved = False  # that code cannot be kept, by this process
    opened = itertools.count(1)  # libraries from memory


@frozen(eq=False)
class Code:
    """Machine code that is loaded.

    Attributes
    ----------
    function : callable
    returns : str
        Types of what it returns, as a signature spells them.
    place : Path or None
        The file that it is from.
    keep : object
        What must live as long.
    """

    function: Function
    returns: str
    place: Path | None
    keep: object


def settings() -> dict[str, str]:
    """What the environment, or a program by `numba.config`, tells Numba that changes the code."""
    told = {k: v for k, v in sorted(os.environ.items()) if k.startswith("NUMBA_") and k not in HARMLESS}
    for name, usual in CONFIGURED.items():
        value = _configured(name, usual)
        by_environment = f"NUMBA_{name.removesuffix('_DEFAULT')}" in told
        if value not in (usual, "") and not by_environment:
            told[f"numba.config.{name}"] = str(value)
    return told


def _configured(name: str, usual: Any) -> Any:
    """A setting of Numba's, if it is loaded."""
    return getattr(sys.modules.get("numba.core.config"), name, usual)


def interpreted() -> bool:
    """Whether Numba is told to compile nothing."""
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") or bool(_configured("DISABLE_JIT", 0))


@lru_cache(maxsize=1)
def _numba() -> str:
    """Which Numba is installed, without loading it."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        return ""
    return _digest(Path(found.origin).with_name("_version.py").read_bytes()).hex()


def asked_by_numpy() -> dict[str, bool]:
    """What NumPy has asked the processor itself whether it has."""
    inner = getattr(np, "_core", None) or np.core
    features: dict[str, bool] = inner._multiarray_umath.__cpu_features__
    return features


@lru_cache(maxsize=1)
def machine() -> str:
    """The processor of this machine, as far as code depends on it."""
    said = [platform.machine(), sys.byteorder, *sorted(name for name, there in asked_by_numpy().items() if there)]
    try:
        with open("/proc/cpuinfo") as file:
            text = file.read(1 << 13).split("\n\n")[0]
        said += [line for line in text.splitlines() if line.split("\t")[0].split(":")[0].strip() in PROCESSOR]
    except OSError:
        import llvmlite.binding as llvm

        said += [llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    return "\n".join(said)


@lru_cache(maxsize=256)
def _content(path: Path, changed: int, size: int) -> str:
    return _digest(path.read_bytes()).hex()


def sources(kernel: Declared) -> list[str]:
    """What a kernel's code is made of: the files of all functions that go into it, and of what compiles them.

    Raises
    ------
    OSError
        If a file is not what it was when it was imported: then nobody knows what its functions are.
    """
    said = []
    for path, then in sorted({(_COMPILER, _COMPILER_THEN), *kernel.ways()}, key=str):
        now = declarations.stamp(path)
        if now is None or now != then:
            raise OSError(f"{path} has changed since it was imported")
        said.append(_content(path, *now))
    return said + kernel.constants()


def _key(kernel: Declared, signature: str) -> str:
    """All that a kernel's machine code depends on."""
    return json.dumps([FORM, *_slot(kernel, signature), sources(kernel), _numba()])


def _slot(kernel: Declared, signature: str) -> list[Any]:
    """Of what there is only one at a time: code of a former source or Numba gives way to that of the present one."""
    python, file = sys.implementation.cache_tag, kernel.py_func.__code__.co_filename
    return [kernel.name, signature, settings(), machine(), python, file]


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES).digest()


def folders(kernel: Declared) -> list[Path]:
    """Where a kernel's code is looked for, and kept in the first that may be written."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen)]
    beside = Path(kernel.py_func.__code__.co_filename).parent / "__pycache__"
    # Who has no home has none in the current folder either.
    return [beside, *(folder for folder in [user_folder()] if folder.is_absolute())]


def user_folder() -> Path:
    """The user's own place for compiled code."""
    home = os.environ.get("XDG_CACHE_HOME")
    return Path(home or Path(os.path.expanduser("~"), ".cache")) / "gpuresample"


def _name(kernel: Declared, signature: str) -> str:
    return f"{kernel.name}.{_digest(json.dumps(_slot(kernel, signature)).encode()).hex()[:24]}"


def _kept(kernel: Declared, signature: str) -> Iterator[tuple[Path, bytes, str]]:
    """Files that hold a kernel's code for a signature, whole and of today: path, code, what it returns."""
    try:
        key, name = _key(kernel, signature), _name(kernel, signature)
    except OSError:  # a source that is not there any more
        return
    for folder in folders(kernel):
        for path in (folder / f"{name}.so", folder / f"{name}.o"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # not there, not ours
                content = path.read_bytes() if path.is_file() else b""  # a named pipe would never end
                body, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
                n = int.from_bytes(body[-SIZE_BYTES:], "little")
                if _digest(body) == digest:
                    about = json.loads(body[-SIZE_BYTES - n : -SIZE_BYTES])
                    if about["key"] == key:
                        yield path, body[: -SIZE_BYTES - n], about["returns"]


def is_kept(kernel: Declared, signature: str) -> bool:
    """Whether a kernel's code for a signature is there."""
    return next(_kept(kernel, signature), None) is not None


def load(kernel: Declared, signature: str) -> Code | None:
    """The code of a kernel for a signature, if a former process kept it; None if not."""
    for path, made, returns in _kept(kernel, signature):
        with contextlib.suppress(Exception):  # LLVM is missing, or the system runs no memory of ours
            return (_opened if path.suffix == ".so" else in_memory)(made, returns, path)
    return None


def _opened(made: bytes, returns: str, path: Path | None = None) -> Code:
    """A shared library's code, from memory: what was checked is what runs, whatever becomes of the file."""
    file = os.memfd_create("kernel")
    try:
        with open(file, "wb", closefd=False) as memory:
            memory.write(made)
        # The system takes two libraries of one name for one, and numbers of files come again.
        unlike = "".join("./" if bit == "0" else ".//" for bit in f"{next(_Said.opened):b}")
        library = ctypes.CDLL(f"/proc/self/fd/{unlike}{file}")
    finally:
        os.close(file)
    return Code(PROTOTYPE((SYMBOL, library)), returns, path, library)


def in_memory(made: bytes, returns: str, path: Path | None = None) -> Code:
    """An object file's code, linked by LLVM."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(made))
    engine.finalize_object()
    return Code(PROTOTYPE(engine.get_function_address(SYMBOL)), returns, path, engine)


def keep(kernel: Declared, signature: str, made: bytes, returns: str) -> Code:
    """Keep an object file for processes to come, and load it; where it cannot be kept, say so once and go on."""
    shared = linked(made)
    reason: Exception = OSError("there is no folder for it that may be written")
    place = None
    try:
        key = _key(kernel, signature)
        about = json.dumps({"key": key, "returns": returns}).encode()
        body = (shared or made) + about + len(about).to_bytes(SIZE_BYTES, "little")
        for folder in folders(kernel):
            path = folder / f"{_name(kernel, signature)}{'.so' if shared else '.o'}"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _write(path, body + _digest(body))
            except OSError as error:  # a full disk, no right to write
                reason = error
            else:
                place = path
                break
    except Exception as error:  # a source that is gone
        reason = error
    if place is None:
        _say_unsaved(reason)
    if shared:
        with contextlib.suppress(OSError):  # a system that runs no memory of ours
            return _opened(shared, returns, place)
    return in_memory(made, returns, place)


@lru_cache(maxsize=1)
def linker() -> str | None:
    """The compiler driver that makes shared libraries here, if there is one, and if they can be loaded from memory."""
    if not (sys.platform == "linux" and hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir()):
        return None
    import mmap  # what links is loaded to compile alone
    import shutil

    try:  # some sandboxes forbid it
        file = os.memfd_create("kernel")
        try:
            os.write(file, b"\0")
            mmap.mmap(file, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
        finally:
            os.close(file)
    except OSError:
        return None
    return shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def linked(made: bytes) -> bytes | None:
    """An object file as a shared library; None where nothing links it."""
    driver = linker()
    if driver is None:
        return None
    import subprocess
    import tempfile

    try:
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "kernel.o"), Path(folder, "kernel.so")
            source.write_bytes(made)
            link(driver, [source], target)
            return target.read_bytes()
    except (OSError, subprocess.SubprocessError):
        return None


def link(driver: str, sources: Sequence[Path], target: Path) -> None:
    """Make one shared library of object files that were made for it.

    Raises
    ------
    OSError, subprocess.SubprocessError
        If it cannot be made.
    """
    import subprocess

    # Names by way of a file: all of them together may be longer than a command line.
    named = sources[0].with_suffix(".names")
    named.write_text("".join(f'"{source}"\n' for source in sources))
    if sys.platform == "darwin":
        options = ["-dynamiclib", "-Wl,-x"]
    else:
        options = ["-shared", "-nostartfiles", "-s", "-Wl,-z,defs"]
    arguments = [
        driver,
        *options,
        "-o",
        str(target),
        f"@{named}",
        *([] if sys.platform == "darwin" else ["-lm", "-lc"]),
    ]
    subprocess.run(arguments, check=True, capture_output=True, timeout=60)


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.urandom(8).hex()}.tmp")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


def _say_unsaved(error: Exception) -> None:
    if not _Said.unsaved:
        _Said.unsaved = True
        warnings.warn(
            f"compiled code cannot be kept ({error}): each new process compiles again, some seconds for a kernel. "
            "Set NUMBA_CACHE_DIR to a folder that you may write",
            RuntimeWarning,
            stacklevel=2,
        )


@lru_cache(maxsize=1)
def layout_is_known() -> bool:
    """Whether an array's fields lie where compiled code looks for them."""
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    array = np.zeros((2, 3), np.int16)
    at = id(array) + object.__basicsize__
    data, sizes, steps = (ctypes.c_size_t.from_address(at + k).value for k in (0, 16, 24))
    shape = tuple((ctypes.c_ssize_t * 2).from_address(sizes))
    strides = tuple((ctypes.c_ssize_t * 2).from_address(steps))
    known = (data, shape, strides) == (array.ctypes.data, array.shape, array.strides)
    return known and ctypes.c_int.from_address(at + 8).value == 2
