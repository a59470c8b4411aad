"""Machine code that came with the package: a library for each instruction set, and which of them this processor runs.

`build` makes them, for a wheel. A library's functions are named by all that they were made of, so what another version
of the package left behind is not found, and never run. What is cut or of another machine counts as not there; a
warning says so once, and kernels compile as if nothing had been shipped.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import sys
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gpuresample.engines.cpu import store
from gpuresample.engines.cpu.declarations import Declared

FOLDER = Path(__file__).with_name("compiled")
INDEX = "index.json"
VARIABLE = "GPURESAMPLE_LEVEL"

_V2 = frozenset({"cx16", "lahf_lm", "pni", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# Of a kind of machine: instruction sets, best first, and what a processor must have, in Linux' words.
LEVELS: dict[str, dict[str, frozenset[str]]] = {
    "x86_64": {"x86-64-v4": _V4, "x86-64-v3": _V3, "x86-64-v2": _V2},
    "aarch64": {"aarch64": frozenset()},
    "arm64": {"aarch64": frozenset()},  # macOS' name
}
# Not in wheels: it has never been run, for want of such a processor. These take the next library.
NOT_RUN = ("x86-64-v4",)
# Of what is needed: what NumPy asks the processor itself for, and how it calls it.
_BY_NUMPY = {
    "avx": "AVX", "avx2": "AVX2", "avx512bw": "AVX512BW", "avx512cd": "AVX512CD", "avx512dq": "AVX512DQ",
    "avx512f": "AVX512F", "avx512vl": "AVX512VL", "f16c": "F16C", "fma": "FMA3", "pni": "SSE3", "popcnt": "POPCNT",
    "sse4_1": "SSE41", "sse4_2": "SSE42", "ssse3": "SSSE3",
}  # fmt: skip
NAMES = tuple(dict.fromkeys(level for levels in LEVELS.values() for level in levels))


def levels(machine: str | None = None, has: frozenset[str] | None = None) -> list[str]:
    """The instruction sets that a processor has, best first.

    Parameters
    ----------
    machine : str, optional
        As `platform.machine` says it; this one if not given.
    has : frozenset of str, optional
        Its features, in Linux' words; this processor's if not given.
    """
    has = features() if has is None else has
    known = LEVELS.get(platform.machine() if machine is None else machine, {})
    return [level for level, needs in known.items() if needs <= has]


@lru_cache(maxsize=1)
def features() -> frozenset[str]:
    """What this processor has and the system lets programs use; nothing where the system does not say it.

    An emulator of a lesser processor may show the file of the one that it runs on: what NumPy does not find is not
    there, either.
    """
    try:
        said = features_in(Path("/proc/cpuinfo").read_text())
    except OSError:
        return frozenset()
    asked = store.asked_by_numpy()
    return frozenset(name for name in said if asked.get(_BY_NUMPY.get(name, ""), True))


def features_in(text: str) -> frozenset[str]:
    """The features of the first processor of `/proc/cpuinfo`."""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return frozenset(value.split())
    return frozenset()


def wanted() -> list[str]:
    """The instruction sets that libraries may be taken of, best first.

    Raises
    ------
    ValueError
        If `GPURESAMPLE_LEVEL` names none.
    """
    most = os.environ.get(VARIABLE, "")
    if most not in ("", "none", *NAMES):
        raise ValueError(f"{VARIABLE} must be one of {', '.join(NAMES)}, none; got {most!r}")
    there = levels()
    if most == "none":
        return []
    known = list(LEVELS.get(platform.machine(), {}))
    if most in known:
        # A better one is not taken, and one that the processor lacks is not there.
        return [level for level in there if known.index(level) >= known.index(most)]
    return there if most == "" else []


class _Said:
    unusable = False  # that a library cannot be used, by this process


@dataclass(frozen=True, eq=False)
class Library:
    """A library that is loaded.

    Attributes
    ----------
    level : str
        Its instruction set.
    path : Path
    code : ctypes.CDLL
    returns : dict
        What a kernel returns, by its name and signature.
    """

    level: str
    path: Path
    code: ctypes.CDLL = field(repr=False)
    returns: dict[str, str] = field(repr=False)


def file_name(level: str) -> str:
    """A library's file in `FOLDER`."""
    return f"{level}{'.dylib' if sys.platform == 'darwin' else '.so'}"


def entry(kernel: Declared, signature: str) -> str:
    """How an index calls a kernel for a signature."""
    return f"{kernel.name} {signature}"


def symbol(level: str, kernel: Declared, signature: str) -> str:
    """The name of a kernel's code in a library: all that it is made of.

    Raises
    ------
    OSError
        If a source has changed since it was imported.
    """
    made_of = json.dumps([store.FORM, level, entry(kernel, signature), store.sources(kernel)])
    return f"kernel_{hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()}"


@lru_cache(maxsize=4)
def library(folder: Path, asked: str) -> Library | None:
    """The best library of a folder that this processor runs; `asked` is what `GPURESAMPLE_LEVEL` says."""
    if not folder.is_dir() or asked == "none":
        return None
    try:
        index: dict[str, Any] = json.loads((folder / INDEX).read_text())
        sizes, returns = dict(index["sizes"]), dict(index["returns"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        _say(f"the list of what is in {folder} cannot be read ({type(error).__name__}: {error})")
        return None
    if not set(levels()) & set(sizes):
        _say(f"kernels are shipped for {', '.join(sizes)}, and this processor has none of these instruction sets")
    for level in (level for level in wanted() if level in sizes):
        path = folder / file_name(level)
        try:
            there = path.stat().st_size
            if there != sizes[level]:
                raise OSError(f"it has {there} bytes and not {sizes[level]}")
            return Library(level, path, ctypes.CDLL(str(path)), returns)
        except OSError as error:
            _say(f"{path} cannot be used ({error})")
    return None


def present() -> Library | None:
    """The library that kernels are taken from, if there is one."""
    return library(FOLDER, os.environ.get(VARIABLE, ""))


def load(kernel: Declared, signature: str) -> store.Code | None:
    """The code of a kernel for a signature, if it was shipped for this processor; None if not."""
    # What Numba is told concerns code that it has yet to make.
    found = None if store.settings() else present()
    returns = None if found is None else found.returns.get(entry(kernel, signature))
    if found is None or returns is None:
        return None
    try:
        function = store.PROTOTYPE((symbol(found.level, kernel, signature), found.code))
    except OSError:  # a source that is not what was imported
        return None
    except AttributeError:
        _say(f"{found.path} was made of another version of {kernel.name}")
        return None
    return store.Code(function, returns, found.path, found)


def _say(what: str) -> None:
    if not _Said.unusable:
        _Said.unusable = True
        warnings.warn(f"{what}: kernels are compiled when they are first called", RuntimeWarning, stacklevel=2)
