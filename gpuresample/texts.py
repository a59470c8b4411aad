"""Numbers in text, as command lines and tables have them: "1 1 2", "1,1,2"."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

Number = TypeVar("Number", int, float)


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
