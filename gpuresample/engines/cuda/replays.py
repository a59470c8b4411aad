"""Calls that come again: what they launched before, with other addresses in it.

Which kernels a call launches, with which numbers, follows from its work, from how its sums are stored, and from how its
arrays are laid out. Voxels have no part in it, and addresses only by how they are aligned. So the second call of a kind
is noted down, and later ones launch what is noted: they compute no geometry, upload nothing, and take memory for
scratch alone. Nothing of it makes the host wait, so such a call can be captured into a CUDA graph.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy.typing as npt

from gpuresample.caching import members, on_clear
from gpuresample.engines.cuda.runtime import Launch, Pointer, Runtime

# Kinds of calls that are kept of one work; those that came last.
KINDS = 16
# Bytes that launches look at how addresses are aligned to, at most.
ALIGNED = 16


class Place(NamedTuple):
    """An argument that is a pointer into an array: its position, the array's number, and where in it."""

    position: int
    number: int
    offset: int
    itemsize: int


class Scratch(NamedTuple):
    """Memory that a step takes, as a number behind those of the arrays."""

    number: int
    shape: tuple[int, ...]
    dtype: npt.DTypeLike


class Step(NamedTuple):
    """A launch, the memory that it is the first to use, its pointers, and the memory that it is the last to use."""

    launch: Launch
    makes: tuple[Scratch, ...]
    places: tuple[Place, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Replay:
    """The launches of a call; whoever repeats them in another stream comes after `mark`."""

    steps: tuple[Step, ...]
    scratch: int
    mark: Any

    def run(self, runtime: Runtime, arrays: Sequence[Any], starts: Sequence[int]) -> None:
        """The same call with other arrays, laid out as those before, and their addresses."""
        runtime.wait(self.mark)
        more = self.scratch
        memory, addresses = [*arrays, *[None] * more], [*starts, *[0] * more]
        for step in self.steps:
            for number, shape, dtype in step.makes:
                memory[number] = runtime.empty(shape, dtype)
                addresses[number] = runtime.address(memory[number])
            file, function, types, blocks, block, _, shared = step.launch
            arguments = _arguments(step, memory, addresses)
            runtime.launch(Launch(file, function, types, blocks, block, arguments, shared))
            del arguments
            for number in step.ends:
                memory[number] = None


def _arguments(step: Step, memory: Sequence[Any], addresses: Sequence[int]) -> list[Any]:
    """What a step launches its kernel with; nothing but the result holds the memory."""
    arguments = list(step.launch.arguments)
    for position, number, offset, itemsize in step.places:
        arguments[position] = Pointer(addresses[number] + offset, itemsize, memory[number])
    return arguments


class Notes:
    """What a call does, while it does it."""

    def __init__(self, runtime: Runtime, arrays: Sequence[Any], starts: Sequence[int]) -> None:
        self._runtime = runtime
        # Scratch is let go while the call goes on, and is not to be kept by its notes.
        self._owners: list[Callable[[], Any]] = [ref(array) for array in arrays]
        self._addresses = list(starts)
        self._scratch: dict[int, Scratch] = {}
        self._launches: list[tuple[Launch, tuple[Place, ...]]] = []
        # Whether all that was done was noted.
        self.complete = True

    def took(self, array: Any, shape: Sequence[int], dtype: npt.DTypeLike) -> None:
        """New memory."""
        number = len(self._owners)
        self._owners.append(ref(array))
        self._addresses.append(self._runtime.address(array))
        self._scratch[number] = Scratch(number, tuple(shape), dtype)

    def launched(self, launch: Launch) -> None:
        """A launch. What is neither an array of the call nor its scratch stays as it is, a table for example."""
        arguments, places = list(launch.arguments), []
        for position, argument in enumerate(arguments):
            number = self._number(argument.keep) if isinstance(argument, Pointer) else None
            if number is not None:
                assert isinstance(argument, Pointer)
                offset = argument.address - self._addresses[number]
                places.append(Place(position, number, offset, argument.itemsize))
                arguments[position] = Pointer(0, argument.itemsize, None)
        self._launches.append((launch._replace(arguments=tuple(arguments)), tuple(places)))

    def _number(self, keep: Any) -> int | None:
        if keep is None:
            return None
        return next((number for number, owner in enumerate(self._owners) if owner() is keep), None)

    def replay(self) -> Replay:
        """All of it, to be repeated."""
        uses: dict[int, list[int]] = {}
        for k, (_, places) in enumerate(self._launches):
            for place in places:
                if place.number in self._scratch:
                    uses.setdefault(place.number, []).append(k)
        steps = [
            Step(
                launch,
                tuple(self._scratch[n] for n, at in uses.items() if at[0] == k),
                places,
                tuple(n for n, at in uses.items() if at[-1] == k),
            )
            for k, (launch, places) in enumerate(self._launches)
        ]
        return Replay(tuple(steps), len(self._scratch), self._runtime.mark())


_notes: ContextVar[Notes | None] = ContextVar("notes", default=None)


@contextmanager
def _taking(notes: Notes) -> Iterator[None]:
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


class _Noted:
    """A runtime whose launches and new memory are noted where somebody takes notes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runtime, name)

    def launch(self, launch: Launch) -> None:
        self._runtime.launch(launch)
        if (notes := _notes.get()) is not None:
            notes.launched(launch)

    def empty(self, shape: Sequence[int], dtype: npt.DTypeLike) -> Any:
        array = self._runtime.empty(shape, dtype)
        if (notes := _notes.get()) is not None:
            notes.took(array, shape, dtype)
        return array

    def contiguous(self, array: Any) -> Any:
        # The copy is made by a kernel that is none of ours.
        if (notes := _notes.get()) is not None:
            notes.complete = False
        return self._runtime.contiguous(array)


def noted(runtime: Runtime) -> Runtime:
    """The same runtime for launch code whose calls `Replays` may repeat."""
    return cast("Runtime", _Noted(runtime))


class Replays:
    """The calls of an engine.

    What is kept of a work is kept as long as it lives, and until `gpuresample.clear_caches`. Threads may share it.

    Parameters
    ----------
    runtime : Runtime
        The one that was `noted`, or that is under it.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._lock = threading.Lock()
        self._kept: WeakKeyDictionary[Any, OrderedDict[Hashable, Replay | None]] = WeakKeyDictionary()
        _all.add(self)

    def run(self, work: Any, what: Hashable, arrays: Sequence[Any], act: Callable[[], None]) -> None:
        """`act()`, or what it launched before for such arrays.

        Parameters
        ----------
        work : object
            What the call is of.
        what : hashable
            All else that the launches depend on.
        arrays : sequence of arrays; the last may be None, where there is none
            On the current device; all that `act` reads and writes, but for what it makes itself.
        act : callable
        """
        given = [array for array in arrays if array is not None]
        if len({id(array) for array in given}) < len(given):
            act()  # pointers into one array do not say which of its names they go by
            return
        runtime = self._runtime
        starts = [runtime.address(array) for array in given]
        layouts = [(a.shape, a.strides, a.dtype, start % ALIGNED) for a, start in zip(given, starts, strict=True)]
        key = (runtime.device(), what, len(arrays) - len(given), *layouts)
        with self._lock:
            kept = self._kept.setdefault(work, OrderedDict())
            met = key in kept
            found = kept.get(key)
            if met:
                kept.move_to_end(key)
            else:
                # Most works are run once. They are not noted: the second call will tell.
                kept[key] = None
                if len(kept) > KINDS:
                    kept.popitem(last=False)
        if found is not None:
            found.run(runtime, given, starts)
        elif not met:
            act()
        else:
            notes = Notes(runtime, given, starts)
            with _taking(notes):
                act()
            if notes.complete:
                with self._lock:
                    if key in kept:
                        kept[key] = notes.replay()

    def free_lock(self) -> None:
        """Be usable whoever held the lock."""
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Give up all that is kept."""
        with self._lock:
            self._kept.clear()


_all: WeakSet[Replays] = WeakSet()


def _give_up() -> None:
    for replays in members(_all):
        replays.clear()


def _after_fork() -> None:
    # A lock may have been held by a thread that a child does not have.
    for replays in list(_all):
        replays.free_lock()


on_clear(_give_up)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
