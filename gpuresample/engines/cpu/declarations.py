"""Functions that are compiled: what each is made of. Nothing here imports Numba."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np


def stamp(path: str | Path) -> tuple[int, int] | None:
    """Time of the last change and size of a file that functions are from; None where there is none."""
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


class Instructions:
    """A function that writes LLVM's instructions, known by where it is: a module of this folder, which needs Numba."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name
        self.imported = stamp(self.file)

    @property
    def file(self) -> str:
        """Where it is written."""
        return str(Path(__file__).with_name(f"{self.module.rpartition('.')[2]}.py"))


class Declared:
    """A function in Numba's Python.

    Parameters
    ----------
    function : callable
    options : dict
        Of `numba.njit`.

    Attributes
    ----------
    py_func : callable
        The function as it is written.
    imported : tuple of int, or None
        What its file was when it was imported, see `stamp`.
    targetoptions : dict
        The options.
    """

    def __init__(self, function: Callable[..., Any], options: dict[str, Any]) -> None:
        self.py_func, self.targetoptions = function, options
        self.imported = stamp(function.__code__.co_filename)
        self.__doc__, self.__name__, self.__wrapped__ = function.__doc__, function.__name__, function
        self.__module__ = function.__module__

    def __reduce__(self) -> str:
        """Copies and other processes take the module's own."""
        return self.py_func.__qualname__

    def __repr__(self) -> str:
        return f"<kernel {self.name}>"

    @property
    def name(self) -> str:
        """Module and name."""
        return f"{self.py_func.__module__.rpartition('.')[2]}.{self.py_func.__qualname__}"

    def ways(self) -> Iterator[tuple[Path, tuple[int, int] | None]]:
        """The files of all functions that go into this one, and what they were when these were imported."""
        for one in self.calls():
            file = one.file if isinstance(one, Instructions) else one.py_func.__code__.co_filename
            yield Path(file), one.imported

    def calls(self) -> list[Declared | Instructions]:
        """The kernel and all that go into it."""
        found: list[Declared | Instructions] = []
        left: list[Declared | Instructions] = [self]
        while left:
            one = left.pop()
            if one in found:
                continue
            found.append(one)
            if isinstance(one, Declared):
                left += [v for v in _named(one.py_func).values() if isinstance(v, Declared | Instructions)]
        return found

    def constants(self) -> list[str]:
        """Numbers and options that go into the machine code, from whatever file."""
        said = []
        for one in self.calls():
            if isinstance(one, Declared):
                numbers = {
                    k: f"{type(v).__name__} {v}"  # as every NumPy writes it
                    for k, v in _named(one.py_func).items()
                    if isinstance(v, bool | int | float | np.generic | str)
                }
                said.append(f"{one.name} {sorted(numbers.items())} {sorted(one.targetoptions.items(), key=str)}")
        return sorted(said)


def _named(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function's names stand for in its module."""
    left: list[CodeType] = [function.__code__]
    names: set[str] = set()
    while left:  # before Python 3.12 a comprehension's names are in code of its own
        code = left.pop()
        names.update(code.co_names)
        left += [one for one in code.co_consts if isinstance(one, CodeType)]
    return {name: function.__globals__[name] for name in sorted(names) if name in function.__globals__}
