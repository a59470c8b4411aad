"""What is kept from call to call: results of pure functions, the least recently used given up first, by their bytes.

One bound holds for all of them together. Scratch that other modules keep is given up with them, see `on_clear`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar
from weakref import WeakSet

import numpy as np

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property  # noqa: PLC0414  # for others
else:

    class cached_property(functools.cached_property):  # noqa: N801
        """Python's own, as it is from 3.12 on: without a lock.

        Python 3.11 holds one for all objects of a class while a value is found. In a child of `os.fork` it is held for
        ever where another thread was finding a value. Two threads that ask at once both find the value here.
        """

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self.attrname] = self.func(instance)
            return value


# Of all that is kept. A plan of a large CT takes some 0.5 MB, tables in an engine's form included.
MOST_BYTES = 256 << 20
# Of an entry without arrays: its key, its objects.
LEAST_BYTES = 1 << 13


class _Kept:
    """All entries of all functions, in the order of their last use."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.entries: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> tuple[Any, int] | None:
        with self.lock:
            found = self.entries.get(key)
            if found is not None:
                self.entries.move_to_end(key)
            return found

    def put(self, key: Hashable, value: Any, n: int) -> None:
        with self.lock:
            if n > MOST_BYTES or key in self.entries:
                return
            self.entries[key] = value, n
            self.bytes += n
            while self.bytes > MOST_BYTES:
                _, (_, given_up) = self.entries.popitem(last=False)
                self.bytes -= given_up

    def clear(self, function: object = None) -> None:
        """Give up the entries of a function, or all."""
        with self.lock:
            for key in [k for k in self.entries if function is None or k[0] is function]:  # type: ignore[index]
                self.bytes -= self.entries.pop(key)[1]


_kept = _Kept()
_others: list[Callable[[], None]] = []


class Kept(Generic[P, R]):
    """A function whose results are kept; see `kept`."""

    def __init__(self, function: Callable[P, R]) -> None:
        functools.update_wrapper(self, function)
        self._function = function

    def __call__(self, *args: P.args, **keywords: P.kwargs) -> R:
        """The result, made now or before."""
        key = (self._function, args, tuple(keywords.items()))
        found = _kept.get(key)
        if found is not None:
            result: R = found[0]
            return result
        result = self._function(*args, **keywords)
        _kept.put(key, result, LEAST_BYTES + n_bytes((args, result), set()))
        return result

    def cache_clear(self) -> None:
        """Give up what is kept of this function."""
        _kept.clear(self._function)


def kept(function: Callable[P, R]) -> Kept[P, R]:
    """Keep the results of a pure function of hashable arguments, together with those of others within `MOST_BYTES`."""
    return Kept(function)


class Remembered(Generic[R]):
    """What callers keep under keys of their own, within the same bound."""

    def get(self, key: Hashable) -> R | None:
        """What was put under a key, if it is still there."""
        found = _kept.get((self, key))
        return None if found is None else found[0]

    def put(self, key: Hashable, value: R, holds: int = 0) -> None:
        """Keep something; `holds` are bytes of arrays that it holds where `n_bytes` does not look."""
        _kept.put((self, key), value, LEAST_BYTES + holds + n_bytes(value, set()))


class Recent(Generic[R]):
    """The last things that callers kept under keys of their own: for small ones that seldom come again."""

    def __init__(self, most: int) -> None:
        self._most = most
        # Not an OrderedDict: that comes apart where a thread clears it while another one puts something in.
        self._held: dict[Hashable, R] = {}
        on_clear(self._held.clear)

    def get(self, key: Hashable) -> R | None:
        """What was put under a key, if it is still there."""
        return self._held.get(key)

    def put(self, key: Hashable, value: R) -> None:
        """Keep something, and give up what was kept first."""
        self._held[key] = value
        while len(self._held) > self._most:
            with contextlib.suppress(RuntimeError, StopIteration):  # another thread has changed it meanwhile
                self._held.pop(next(iter(self._held)), None)


def n_bytes(value: Any, seen: set[int]) -> int:
    """Bytes of the arrays that a value holds, each counted once; `seen` has the ids of what was counted."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, bytes):
        return len(value)
    if isinstance(value, (tuple, list)):
        return sum(n_bytes(part, seen) for part in value)
    # A list of them: another thread may add a cached property meanwhile.
    return sum(n_bytes(part, seen) for part in list(getattr(value, "__dict__", {}).values()))


def kept_bytes() -> int:
    """Bytes of all that is kept at present."""
    return _kept.bytes


def members(of: WeakSet[T]) -> list[T]:
    """What a set holds, though other threads add to it meanwhile."""
    while True:
        with contextlib.suppress(RuntimeError):  # the set has grown under the loop
            return list(of)


def on_clear(give_up: Callable[[], None]) -> None:
    """Have something else given up by `clear_caches`."""
    _others.append(give_up)


def clear_caches() -> None:
    """Give up all memory that is kept for later calls: plans, tables and the threads' scratch.

    Plans and tables hold no more than 288 MiB together, scratch 32 MiB for each thread and type of sums. What runs
    meanwhile is not disturbed; the next call plans anew. Compiled code stays.
    """
    _kept.clear()
    for give_up in _others:
        give_up()


def _after_fork() -> None:
    # The lock may have been held by a thread that a child does not have.
    _kept.lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
