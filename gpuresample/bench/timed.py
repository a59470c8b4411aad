"""The suite under pytest-benchmark: `pytest -p gpuresample.bench.plugin --pyargs gpuresample.bench.timed`.

pytest-benchmark times one function after the other. Here the doers of a case take turns instead (`timing.Session`), so
that a busy moment hits all alike; what was measured is handed to pytest-benchmark round by round, by a clock that
ticks it. Its statistics, files and comparisons are then those of any other benchmark.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from gpuresample.bench.tasks import Row
from gpuresample.bench.timing import Session


class Clock:
    """A timer that goes on by what was measured."""

    def __init__(self) -> None:
        self._ticks: Iterator[float] = iter(())

    def load(self, seconds: Sequence[float]) -> None:
        """What the next rounds will take."""
        self._ticks = itertools.chain.from_iterable((0.0, s) for s in seconds)

    def __call__(self) -> float:
        """Asked at the beginning and at the end of every round."""
        return next(self._ticks)


CLOCK = Clock()


@pytest.mark.benchmark(timer=CLOCK)
def test_speed(row: Row, suite_session: Session, benchmark: Any) -> None:
    """One row."""
    told = suite_session.told(row)
    if "failed" in told:
        pytest.skip(f"{row.doer.label}: {told['failed']}")
    benchmark.group = row.case.what
    benchmark.extra_info.update(told)
    CLOCK.load(told["seconds"])
    benchmark.pedantic(lambda: None, rounds=len(told["seconds"]))
