"""Read-only dataclasses whose methods are written once, here.

`dataclasses.dataclass` compiles five functions for every class, which takes 0.5 ms: with the classes that a first call
loads, 16 ms of what it waits for. Classes that users make and look into are real dataclasses.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

T = TypeVar("T")


class _Fields:
    """What `dataclasses.replace` and `fields` know a dataclass by, made when it is asked for."""

    def __get__(self, _: object, owner: type) -> dict[str, dataclasses.Field[Any]]:
        found = [(n, t, dataclasses.field(default=vars(owner).get(n, dataclasses.MISSING)))
                 for n, t in owner.__annotations__.items()]  # fmt: skip
        twin = dataclasses.make_dataclass(owner.__name__, found, kw_only=True)
        fields = {field.name: field for field in dataclasses.fields(twin)}
        type.__setattr__(owner, "__dataclass_fields__", fields)
        return fields


@dataclass_transform(frozen_default=True)
def frozen(*, eq: bool = True) -> Callable[[type[T]], type[T]]:
    """`dataclass(frozen=True, eq=eq)` for a class without bases: defaults are plain values, or there are none.

    Parameters
    ----------
    eq : bool
        Whether objects with equal fields are equal; otherwise each is equal to itself alone.
    """

    def made(cls: type[T]) -> type[T]:
        names = tuple(cls.__annotations__)
        defaults = {name: vars(cls)[name] for name in names if name in vars(cls)}

        def __init__(self: Any, *args: Any, **keywords: Any) -> None:  # noqa: N807
            # Written out for the first object: most classes that a first call loads it makes no object of.
            type.__setattr__(cls, "__init__", _init(cls, names, defaults))
            self.__init__(*args, **keywords)

        def values_of(self: Any) -> tuple[Any, ...]:
            return tuple(map(self.__dict__.__getitem__, names))

        def __repr__(self: Any) -> str:  # noqa: N807
            return f"{cls.__qualname__}({', '.join(f'{n}={v!r}' for n, v in zip(names, values_of(self), strict=True))})"

        def __eq__(self: Any, other: object) -> Any:  # noqa: N807
            return values_of(self) == values_of(other) if type(other) is type(self) else NotImplemented

        def __hash__(self: Any) -> int:  # noqa: N807
            return hash(values_of(self))

        own: dict[str, Any] = {
            "__init__": __init__, "__repr__": __repr__, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete,
            "__dataclass_fields__": _Fields(), "__match_args__": names,
        }  # fmt: skip
        for name, value in (own | ({"__eq__": __eq__, "__hash__": __hash__} if eq else {})).items():
            if name not in vars(cls):
                setattr(cls, name, value)
        return cls

    return made


def _init(cls: type, names: Sequence[str], defaults: Mapping[str, Any]) -> Callable[..., None]:
    """An `__init__` that takes the values of these names by place or by name."""
    takes = ", ".join(f"{name}=defaults[{name!r}]" if name in defaults else name for name in names)
    # A field may have any name but these two.
    lines = [f"def __init__(self, {takes}):", "    _self_dict_ = self.__dict__"]
    lines += [f"    _self_dict_[{name!r}] = {name}" for name in names]
    made: dict[str, Any] = {"defaults": defaults}
    exec("\n".join(lines + ["    self.__post_init__()"] * hasattr(cls, "__post_init__")), made)  # as dataclasses do
    written: Callable[..., None] = made["__init__"]
    written.__qualname__ = f"{cls.__qualname__}.__init__"  # which errors name
    return written


def _refuse_to_set(self: Any, name: str, value: Any) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__name__} is read-only: {name} cannot be set")


def _refuse_to_delete(self: Any, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"{type(self).__name__} is read-only: {name} cannot be deleted")
