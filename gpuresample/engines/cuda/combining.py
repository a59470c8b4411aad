"""Ensembles of scores in host memory on the GPU: block by block there and back, in two streams that take turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

from gpuresample.engines import threads
from gpuresample.engines.cuda.runtime import Runtime
from gpuresample.engines.cuda.streams import SLOTS
from gpuresample.engines.interface import Combiner, Outputs
from gpuresample.planning.works import Ensemble

Array = npt.NDArray[Any]


@dataclass(eq=False)
class Turn:
    """A stream, and the block that is under way in it."""

    stream: Any
    pairs: list[tuple[Array, Array]] = field(default_factory=list)  # pinned memory, and where its voxels belong
    keep: list[Array] = field(default_factory=list)  # pinned memory that the device still reads
    done: Any = None


class StagedCombiner:
    """A `interface.Combiner` for arrays in host memory.

    Parameters
    ----------
    runtime : Runtime
    combiner : Combiner
        For arrays on the device.
    streams : sequence
        Of the runtime.
    """

    stages = True

    def __init__(self, runtime: Runtime, combiner: Combiner, streams: Sequence[Any]) -> None:
        self._runtime = runtime
        self._combiner = combiner
        self._turns = [Turn(stream) for stream in streams]
        self._next = 0
        # The counters were made in the caller's stream.
        self._made = runtime.mark()

    @property
    def types(self) -> tuple[str, ...]:
        """See `interface.Combiner`."""
        return self._combiner.types

    @property
    def room(self) -> int:
        """See `interface.Combiner`."""
        return self._combiner.room // SLOTS

    def combine(self, work: Ensemble, scores: Sequence[Array], outputs: Outputs) -> None:
        """See `interface.Combiner`; outputs are complete after `counts`."""
        runtime = self._runtime
        turn = self._turns[self._next]
        self._next = (self._next + 1) % len(self._turns)
        self._collect(turn)
        with runtime.within(turn.stream):
            runtime.wait(self._made)
            parts = []
            for part in scores:
                pinned = runtime.pinned(part.shape, part.dtype)
                threads.copy(pinned, part)
                parts.append(runtime.empty(part.shape, part.dtype))
                runtime.copy_in(pinned, parts[-1])
                turn.keep.append(pinned)
            places = {name: array for name, array in vars(outputs).items() if array is not None}
            made = {name: runtime.empty(array.shape, array.dtype) for name, array in places.items()}
            self._combiner.combine(work, parts, Outputs(**made))
            for name, array in made.items():
                pinned = runtime.pinned(array.shape, array.dtype)
                runtime.copy_out(array, pinned)
                turn.pairs.append((pinned, places[name]))
            turn.done = runtime.mark()

    def _collect(self, turn: Turn) -> None:
        """Wait for the block of a turn, and put its results where they belong."""
        if turn.done is None:
            return
        self._runtime.finish(turn.done)
        for pinned, place in turn.pairs:
            threads.copy(place, pinned)
        turn.pairs, turn.keep, turn.done = [], [], None

    def counts(self) -> list[int]:
        """See `interface.Combiner`."""
        for turn in self._turns:
            self._collect(turn)
        return self._combiner.counts()
