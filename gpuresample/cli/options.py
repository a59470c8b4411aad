"""Options that take several numbers, `--spacing 1 1 2`, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from typer.core import TyperCommand, TyperGroup

from gpuresample.files.job import Settings
from gpuresample.texts import is_numbers, number, numbers, one_or_all

__all__ = ["SeveralNumbers", "joined", "number", "numbers", "one_or_all", "rule_or_numbers", "schedule", "settings"]

SEVERAL = (
    "--spacing", "--size", "--antialias", "--sigma", "--factors", "--order", "--scores-spacing", "--input-size",
    "--input-spacing", "--chunks", "--clip",
)  # fmt: skip
# Not one for each axis, but any number.
MANY = ("--weights", "--labels", "--regions", "--threshold")
ALONE = ("--antialias", "--clip")  # says something without numbers, too
MOST = 4  # numbers after an option: no image has more axes
# What text becomes that asks for no more.
MADE: Mapping[Any, type] = {str: str, str | None: str, Path: Path, Path | None: Path}


class _Quick:
    """Makes plain values of parameters' texts itself: for that typer (0.29) loads Pydantic, which takes 0.1 s."""

    callback: Any

    def get_params(self, ctx: Any) -> list[Any]:
        """Parameters, that of the help included."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        single = [p for p in found if p.nargs == 1 and not p.multiple and "process_value" not in vars(p)]
        kinds = get_type_hints(self.callback) if single else {}
        for parameter in single:
            vars(parameter)["process_value"] = _processed(parameter, MADE.get(kinds.get(parameter.name)))
        return found


class Group(_Quick, TyperGroup):
    """All commands."""


class SeveralNumbers(_Quick, TyperCommand):
    """A command whose options in `SEVERAL` and `MANY` take as many numbers as follow them.

    Parsers of command lines want a fixed count. Here the numbers are one argument before they see them.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Join the numbers, then parse as usual."""
        flags = {name for parameter in self.params if getattr(parameter, "is_flag", False) for name in parameter.opts}
        return super().parse_args(ctx, joined(args, flags))


def _processed(parameter: Any, made: type | None) -> Callable[[Any, Any], Any]:
    usual = type(parameter).process_value

    def process(context: Any, value: Any) -> Any:
        if value is None and not parameter.required:
            known = None
        elif made is not None and type(value) is str:
            known = made(value)
        else:
            return usual(parameter, context, value)
        return known if parameter.callback is None else parameter.callback(context, parameter, known)

    return process


def joined(args: Sequence[str], flags: Collection[str] = ()) -> list[str]:
    """`args` with the numbers after an option of `SEVERAL` as one argument; `flags` take none, whatever their name.

    >>> joined(["in.nii", "out.nii", "--spacing", "1", "1", "2"])
    ['in.nii', 'out.nii', '--spacing=1 1 2']
    """
    out: list[str] = []
    rest = list(args)
    while rest:
        arg = rest.pop(0)
        if arg == "--":
            return [*out, arg, *rest]
        if arg not in SEVERAL + MANY or arg in flags:
            out.append(arg)
            continue
        values: list[str] = []
        while rest and (len(values) < MOST or arg in MANY) and is_numbers(rest[0]):
            values.append(rest.pop(0))
        if not values and arg not in ALONE and rest and not rest[0].startswith("-"):
            # No number: taken all the same, so that the complaint names the option.
            values.append(rest.pop(0))
        out.append(f"{arg}={' '.join(values)}")
    return out


def schedule(name: str, text: str | None) -> list[int | list[int]] | None:
    """Factors of every level, one for all axes or one for each, levels parted by slashes.

    >>> schedule("--schedule", "1 / 2 2 1 / 4")
    [1, [2, 2, 1], 4]
    """
    if text is None:
        return None
    levels = [numbers(name, level, int) or [] for level in text.split("/")]
    return [level[0] if len(level) == 1 else level for level in levels]


def rule_or_numbers(name: str, text: str) -> str | float | list[float]:
    """Numbers as `one_or_all` has them, or the name of a rule.

    Raises
    ------
    ValueError
        If it is nothing.
    """
    if text.strip() and not is_numbers(text):
        return text
    values = one_or_all(name, text)
    assert values is not None
    return values


def settings(**words: Any) -> Settings:
    """The settings that options of `resample` ask for, by their text.

    Raises
    ------
    ValueError
        For text that is no number where one is asked for.
    """
    given = {name: None if value is None else str(value) for name, value in words.items()}
    return Settings().changed(given, lambda name: "--" + name.replace("_", "-"))
