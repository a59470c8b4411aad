"""Our functions and classes in the place of another library's, and back; what is said where the library does it."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from functools import partial
from types import FunctionType, TracebackType
from typing import Any, cast

_FOLDER = os.path.dirname(__file__) + os.sep

# What `warn_once` has said.
said: set[str] = set()


class Installation:
    """What an `install` has changed; `revert` undoes it, and so does the end of a `with` block.

    Attributes
    ----------
    library : str
        The package whose modules are changed.
    """

    def __init__(self, library: str) -> None:
        self.library = library
        self._undo: list[Callable[[], object]] = []

    def replace(self, original: Any, ours: Any) -> bool:
        """Put `ours` wherever the library's loaded modules hold `original`; answers whether any does."""
        names = {name for _, name in self._places(original)}
        self._swap(original, ours, names)
        if names:
            self._undo.append(partial(self._swap, ours, original, names))
        return bool(names)

    def assign(self, holder: Any, name: str, value: Any) -> None:
        """Set an attribute, which `revert` sets back, or removes where there was none."""
        if hasattr(holder, name):
            self._undo.append(partial(setattr, holder, name, getattr(holder, name)))
        else:
            self._undo.append(partial(delattr, holder, name))
        setattr(holder, name, value)

    def revert(self) -> None:
        """Everything as it was before, in modules that were loaded later, too."""
        while self._undo:
            self._undo.pop()()

    def __enter__(self) -> Installation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.revert()

    def _places(self, held: Any) -> list[tuple[Any, str]]:
        modules = [m for key, m in list(sys.modules.items()) if key.split(".", 1)[0] == self.library and m is not None]
        return [(m, name) for m in modules for name, value in list(vars(m).items()) if value is held]

    def _swap(self, old: Any, new: Any, names: set[str]) -> None:
        for module, name in self._places(old):
            if name in names:
                setattr(module, name, new)


def borrowed(function: Any, **names: Any) -> Callable[..., Any]:
    """A library's own function, to which some names of its module mean something of ours; the library keeps its own.

    Parameters
    ----------
    function : function
    **names
        What a name of the function's module is to be to it.
    """
    if not isinstance(function, FunctionType):
        return cast(Callable[..., Any], function)  # a stand-in: the site of docs/ is built without these libraries
    made = FunctionType(
        function.__code__, function.__globals__ | names, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    return made


def warn_once(text: str, category: type[Warning] = RuntimeWarning) -> None:
    """Warn, once in a process for each text, at the caller's line; such as that the other library does it itself."""
    if text not in said:
        said.add(text)
        warnings.warn(text, category, stacklevel=callers_level())


def callers_level() -> int:
    """How far up the stack, seen from our caller, the first frame outside this package is."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_FOLDER):
        frame, level = frame.f_back, level + 1
    return level
