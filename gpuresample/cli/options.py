"""Options that take several numbers, `--spacing 1 1 2`, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from typer.core import TyperCommand

SEVERAL = (
    "--spacing", "--size", "--antialias", "--sigma", "--factors", "--order", "--scores-spacing", "--input-size",
    "--input-spacing",
)  # fmt: skip
# Not one for each axis, but any number.
MANY = ("--weights", "--labels", "--regions", "--threshold")
ALONE = ("--antialias",)  # says something without numbers, too
MOST = 4  # numbers after an option: no image has more axes

Number = TypeVar("Number", int, float)


class SeveralNumbers(TyperCommand):
    """A command whose options in `SEVERAL` and `MANY` take as many numbers as follow them.

    Parsers of command lines want a fixed count. Here the numbers are one argument before they see them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers, then parse as usual."""
        return super().parse_args(ctx, joined(args))


def joined(args: Sequence[str]) -> list[str]:
    """`args` with the numbers after an option of `SEVERAL` as one argument.

    >>> joined(["in.nii", "out.nii", "--spacing", "1", "1", "2"])
    ['in.nii', 'out.nii', '--spacing=1 1 2']
    """
    out: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*out, arg, *rest]
        if arg not in SEVERAL + MANY:
            out.append(arg)
            continue
        values: list[str] = []
        while rest and (len(values) < MOST or arg in MANY) and _is_numbers(rest[0]):
            values.append(rest.pop(0))
        if not values and arg not in ALONE and rest and not rest[0].startswith("-"):
            # No number: taken all the same, so that the complaint names the option.
            values.append(rest.pop(0))
        out.append(f"{arg}={' '.join(values)}")
    return out


def _is_numbers(text: str) -> bool:
    try:
        return bool([float(part) for part in _parts(text)])
    except ValueError:
        return False


def _parts(text: str) -> list[str]:
    return text.replace(",", " ").split()


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
        values = [kind(part) for part in _parts(text)]
    except ValueError:
        raise ValueError(f"{name} takes {what}, got {text!r}") from None
    if not values:
        raise ValueError(f"{name} takes {what}, one for each axis, got none")
    return values


def one_or_all(name: str, text: str | None) -> float | list[float] | None:
    """Numbers of which a single one serves all axes."""
    values = numbers(name, text, float)
    return values[0] if values is not None and len(values) == 1 else values


def rule_or_numbers(name: str, text: str) -> str | float | list[float]:
    """Numbers as `one_or_all` has them, or the name of a rule.

    Raises
    ------
    ValueError
        If it is nothing.
    """
    if text.strip() and not _is_numbers(text):
        return text
    values = one_or_all(name, text)
    assert values is not None
    return values


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
