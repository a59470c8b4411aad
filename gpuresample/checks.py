"""Argument checks: every refusal names the argument, the value given and what is allowed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the words in `allowed`, else raise with the nearest word."""
    if isinstance(value, str) and value in allowed:
        return value
    close = difflib.get_close_matches(str(value).lower(), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}{hint}")


def _sequence(name: str, value: object, count: int, what: str) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be {count} {what}, got {value!r}")
    values = list(value)
    if len(values) != count:
        raise ValueError(f"{name} must have {count} values, one per axis, got {len(values)}: {value!r}")
    return values


def numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers as floats."""
    out = []
    for v in _sequence(name, value, count, "finite numbers"):
        if not isinstance(v, Real):
            raise TypeError(f"{name} must be {count} finite numbers, got {value!r}")
        number = float(v)
        if not math.isfinite(number):
            raise ValueError(f"{name} must be {count} finite numbers, got {value!r}")
        out.append(number)
    return tuple(out)


def positive_numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers above zero; one number stands for all axes."""
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * count
    out = numbers(name, value, count)
    if min(out) <= 0:
        raise ValueError(f"{name} must be above zero on every axis, got {value!r}")
    return out


def sizes(name: str, value: object, count: int) -> tuple[int, ...]:
    """`count` whole numbers of at least 1."""
    out = []
    for v in _sequence(name, value, count, "whole numbers of at least 1"):
        if isinstance(v, bool) or not hasattr(v, "__index__"):
            raise TypeError(f"{name} must be {count} whole numbers of at least 1, got {value!r}")
        if int(v) < 1:
            raise ValueError(f"{name} must be {count} whole numbers of at least 1, got {value!r}")
        out.append(int(v))
    return tuple(out)
