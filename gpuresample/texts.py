"""Numbers in text, as command lines and tables have them: "1 1 2", "1,1,2"; names of files as text."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


def printable(text: str) -> str:
    r"""A text that any encoding of Unicode takes: bytes of a file's name that are not UTF-8 become "\xff".

    Python keeps such bytes as half characters (surrogates), which no file and no terminal takes.
    """
    text = re.sub("[\ud800-\udc7f\udd00-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", text)
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def utf8_name(path: str | os.PathLike[str]) -> str:
    """A file's name for libraries that take names in UTF-8, whatever encoding Python has for names.

    Raises
    ------
    ValueError
        If the name's bytes are not UTF-8: those libraries could not open the file.
    """
    try:
        return os.fsencode(path).decode("utf-8")
    except UnicodeError:
        name = printable(os.fspath(path))
        raise ValueError(f"{name}: the name must be valid UTF-8, as SimpleITK opens no other; rename it") from None


def path_of(text: str) -> str:
    """A path that was read from a file in UTF-8 (with `errors="surrogateescape"`), as Python names it."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def parts(text: str) -> list[str]:
    """What is separated by spaces or commas."""
    return text.replace(",", " ").split()


def is_numbers(text: str) -> bool:
    """Whether it is one number or more, and nothing else."""
    try:
        return bool([float(part) for part in parts(text)])
    except ValueError:
        return False


def numbers(name: str, text: str | None, kind: Callable[[str], Number]) -> list[Number] | None:
    """The numbers of an option, separated by spaces or commas.

    Raises
    ------
    ValueError
        If there are none or they are not of this kind.
    """
    if text is None:
        return None
    what = "whole numbers" if kind is int else "numbers"
    try:
        values = [kind(part) for part in parts(text)]
    except ValueError:
        raise ValueError(f"{name} takes {what}, got {text!r}") from None
    if not values:
        raise ValueError(f"{name} takes {what}, one for each axis, got none")
    return values


def one_or_all(name: str, text: str | None) -> float | list[float] | None:
    """Numbers of which a single one serves all axes."""
    values = numbers(name, text, float)
    return values[0] if values is not None and len(values) == 1 else values


def number(name: str, text: str) -> int | float:
    """One number; whole ones stay whole, as floats cannot hold every label.

    Raises
    ------
    ValueError
        If it is none.
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    raise ValueError(f"{name} takes a number, got {text!r}")
