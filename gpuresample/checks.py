"""Argument checks: every refusal names the argument, the value given and what is allowed."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence, Sized
from numbers import Real
from typing import Any

# Voxels along an axis: engines count them in 32 bits, a sign among them.
MOST_ON_AXIS = 2**31 - 1
# The widest Gaussian, in voxels: a kernel of some 8 million weights, made in a second or two.
WIDEST = 2**20
# Characters of a value that a message shows.
SHOWN = 200


def shown(value: object) -> str:
    """A value as a message shows it: not longer than a line or two, and whatever it is."""
    try:
        text = repr(value)
    except Exception:  # a number of more digits than Python will write, an object whose own code fails
        return f"a value of type {type(value).__name__} that cannot be written out"
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} ... {text[-SHOWN // 4 :]}"


def one_of(name: str, value: object, allowed: Sequence[str]) -> str:
    """Return `value` if it is one of the words in `allowed`, else raise with the nearest word."""
    if isinstance(value, str) and value in allowed:
        return value
    import difflib

    text = shown(value)
    close = difflib.get_close_matches(text.strip("'\"").lower(), allowed, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    error = ValueError if isinstance(value, str) else TypeError
    raise error(f"{name} must be one of {', '.join(map(repr, allowed))}, got {text}{hint}")


def length(value: object) -> int:
    """How many values there are; 0 for what has no length, as an array of no axes."""
    try:
        return len(value) if isinstance(value, Sized) else 0
    except TypeError:
        return 0


def _sequence(name: str, value: object, count: int, what: str) -> list[Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} must be {count} {what}, got {shown(value)}")
    try:
        values = list(itertools.islice(value, count + 1))  # some have no end
    except TypeError:  # an array of no axes says that it can be walked
        raise TypeError(f"{name} must be {count} {what}, got {shown(value)}") from None
    if len(values) != count:
        n = len(value) if isinstance(value, Sized) else len(values) if len(values) < count else "more"
        raise ValueError(f"{name} must have {count} values, one per axis, got {n}: {shown(value)}")
    return values


def finite(name: str, value: object, what: str) -> float:
    """A finite number as a float; `what` the message says that `name` must be."""
    if type(value) is float and math.isfinite(value):  # what most are, and an abstract class is slow to ask
        return value
    if not isinstance(value, Real):
        raise TypeError(f"{name} must be {what}, got {shown(value)}")
    try:
        found = float(value)
    except (OverflowError, ValueError):
        found = math.inf
    if not math.isfinite(found):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return found


def whole(name: str, value: object, what: str, least: int = 1, most: int | None = None) -> int:
    """A whole number from `least` to `most` as an int; `what` the message says that `name` must be."""
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be {what}, got {shown(value)}") from None
    if found < least or (most is not None and found > most):
        raise ValueError(f"{name} must be {what}, got {shown(value)}")
    return found


def numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers as floats."""
    if type(value) is tuple and len(value) == count and all(type(v) is float and math.isfinite(v) for v in value):
        return value
    what = f"{count} finite numbers"
    values = _sequence(name, value, count, "finite numbers")
    try:
        return tuple(finite(name, v, what) for v in values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name} must be {what}, got {shown(value)}") from None


def positive_numbers(name: str, value: object, count: int) -> tuple[float, ...]:
    """`count` finite numbers above zero; one number stands for all axes."""
    if isinstance(value, Real) and not isinstance(value, bool):
        value = (value,) * count
    out = numbers(name, value, count)
    if min(out) <= 0:
        raise ValueError(f"{name} must be above zero on every axis, got {shown(value)}")
    return out


def check_width(name: str, values: Sequence[float], given: object) -> None:
    """Refuse sigmas, in voxels, whose kernels have too many weights."""
    if max(values) > WIDEST:
        raise ValueError(
            f"{name} must be at most {WIDEST} voxels on every axis, got {shown(given)}; "
            "long before, a blur of the whole image is a mean"
        )


def sizes(name: str, value: object, count: int, most: int | None = MOST_ON_AXIS) -> tuple[int, ...]:
    """`count` whole numbers from 1 to `most`, unless told otherwise as many as an axis has voxels."""
    what = "whole numbers of at least 1"
    values = _sequence(name, value, count, what)
    bounded = f"{what} and at most {most}" if most is not None else what
    try:
        return tuple(whole(name, v, bounded, 1, most) for v in values)
    except (TypeError, ValueError) as error:
        above = most is not None and isinstance(error, ValueError) and all(v >= 1 for v in values)
        raise type(error)(f"{name} must be {count} {bounded if above else what}, got {shown(value)}") from None
