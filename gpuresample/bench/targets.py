"""What is meant to be reached, as one list, and what a recorded run says about each of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gpuresample.bench.records import OURS, Record, Run
from gpuresample.bench.tables import times


class Measure(NamedTuple):
    """A kind of figure: how it is worded, whether more is better, and how it follows from our row and the peer's."""

    wanted: str
    more: bool
    found: Callable[[Record, Record], float | None]


def _memory(ours: Record, _: Record) -> float | None:
    """Inputs and the peak on top of them, over inputs and output."""
    if ours.peak_host is None or not ours.bytes_moved or not ours.input_dtype:
        return None
    given = math.prod(ours.input_shape) * np.dtype(ours.input_dtype).itemsize
    return (given + ours.peak_host) / ours.bytes_moved


MEASURES = {
    "faster": Measure("{}", True, lambda ours, theirs: theirs.median / ours.median),
    "time": Measure("at most {}", False, lambda ours, theirs: ours.median / theirs.median),
    "memory": Measure("at most {}", False, _memory),
    "copy": Measure("{}", True, lambda ours, _: ours.share),
}


@dataclass(frozen=True)
class Target:
    """One line of the targets.

    Attributes
    ----------
    what, case : str
        The job in words, and the suite's case that measures it.
    against, label : str
        Key of the peer in the suite's rows, and its name for people; no key where a row is measured by itself.
    bound : float
        What is to be reached.
    measure : str
        "faster": so many times as fast as the peer. "time": at most so many times its time. "memory": peak memory with
        the inputs, over inputs and output. "copy": share of a copy's bandwidth, for the bytes that must be moved.
    ours : str
        Key of our row, which asks for what the peer does.
    device, scope : str
        "cpu" or "cuda"; see `records.Record`.
    note : str
        What else is to be known of the job.
    """

    what: str
    case: str
    against: str
    label: str
    bound: float
    measure: str = "faster"
    ours: str = OURS
    device: str = "cpu"
    scope: str = "call"
    note: str = ""

    def __post_init__(self) -> None:
        assert self.measure in MEASURES

    @property
    def wanted(self) -> str:
        """The bound in words."""
        shown = f"{100 * self.bound:g} %" if self.measure == "copy" else f"{self.bound:g}x"
        return MEASURES[self.measure].wanted.format(shown)

    def is_ours(self, r: Record) -> bool:
        """Whether a row is the one that is judged."""
        where = r.device.partition(":")[0]
        return (r.kind, r.case, r.peer, where, r.scope) == ("case", self.case, self.ours, self.device, self.scope)

    def is_theirs(self, r: Record) -> bool:
        """Whether a row is the one that it is judged by."""
        return (r.kind, r.case, r.peer) == ("case", self.case, self.against)


def _as(peer: str) -> str:
    return f"{OURS}-as-{peer}"


_NEAREST, _LINEAR, _CUBIC = "ct-recipe-nearest", "ct-recipe-linear", "ct-recipe-bspline"
_MEMORY = "memory of inputs and labels"
_COPY = "a copy on the device"
_GPU = {"device": "cuda", "scope": "kernel"}

# Section 7 of the design: ratios in one run of the whole jobs; on the CPU engine on 2 cores.
TARGETS = (
    Target("cubic B-spline", _CUBIC, "simpleitk", "SimpleITK", 60),
    Target("cubic B-spline", _CUBIC, "volresample", "volresample", 12, ours=_as("volresample")),
    Target("linear", _LINEAR, "simpleitk", "SimpleITK", 6),
    Target("linear", _LINEAR, "volresample", "volresample", 1.5, ours=_as("volresample")),
    Target("linear", _LINEAR, "torch", "torch interpolate", 2, ours=_as("torch")),
    Target("nearest, int16", _NEAREST, "simpleitk", "SimpleITK", 6),
    Target("nearest, int16", _NEAREST, "volresample", "volresample", 1, ours=_as("volresample")),
    Target("oblique grid, cubic B-spline", "oblique-bspline", "simpleitk", "SimpleITK", 6),
    Target("Gaussian, sigma 1", "gaussian-discrete-1", "simpleitk", "SimpleITK DiscreteGaussian", 12),
    Target("Gaussian, sigma 1", "gaussian-sampled-1", "scipy", "SciPy gaussian_filter", 8),
    Target("ensemble, 2 models of 12 classes", "ensemble-2x12", "torch", "torch interpolate, softmax, argmax", 12),
    Target("ensemble, 2 models of 12 classes", "ensemble-2x12", "", _MEMORY, 1.2, "memory"),
    *(
        Target(what, case, "", _COPY, 0.7, "copy", note="bytes in and out, all passes", **_GPU)
        for what, case in (("cubic B-spline", _CUBIC), ("linear", _LINEAR), ("nearest, int16", _NEAREST))
    ),
    Target("cubic B-spline", _CUBIC, "cupyx-cuda", "cupyx zoom, order 3", 20, ours=_as("scipy"), **_GPU),
    Target("cubic B-spline", _CUBIC, "torch-matmul-cuda", "torch, three matmuls", 4, **_GPU),
    Target("linear", _LINEAR, "torch-cuda", "torch interpolate", 1.5, ours=_as("torch"), **_GPU),
    *(
        Target(what, case, "copies", "bare copies, pinned", 1.15, "time", f"{OURS}-pinned", "cuda", "end-to-end")
        for what, case in (("cubic B-spline", _CUBIC), ("linear", _LINEAR), ("nearest, int16", _NEAREST))
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What a run says about a target.

    Attributes
    ----------
    target : Target
    what, who, against : str
        As in the run's rows where it has them.
    found : float or None
        The figure; None if it was not measured.
    reached : bool or None
    why : str
        What is in the way, if something is: of the measurement, or of a figure that counts.
    ours, theirs : Record or None
    """

    target: Target
    what: str
    who: str
    against: str
    found: float | None
    reached: bool | None
    why: str
    ours: Record | None
    theirs: Record | None

    @property
    def shown(self) -> str:
        """The figure as text."""
        if self.found is None:
            return "-"
        return f"{100 * self.found:.0f} %" if self.target.measure == "copy" else times(self.found)

    @property
    def word(self) -> str:
        """The verdict in a word or two."""
        return {None: "not measured", True: "reached", False: "not reached"}[self.reached]

    @property
    def said(self) -> str:
        """The verdict, and why where there is a reason to give."""
        return f"{self.word}: {self.why}" if self.why else self.word


def verdicts(run: Run) -> list[Verdict]:
    """What a run says about every target of the cases that it has; none of those of somebody's own volume."""
    if run.machine.get("image"):
        return []
    rows = run.of("case")
    cases = {r.case for r in rows}
    return [_verdict(t, run, rows) for t in TARGETS if t.case in cases]


def _verdict(target: Target, run: Run, rows: Sequence[Record]) -> Verdict:
    ours = next((r for r in rows if target.is_ours(r)), None)
    theirs = next((r for r in rows if target.is_theirs(r)), None) if target.against else ours
    found, why = None, _obstacle(target, run, ours, theirs)
    if not why and ours is not None and theirs is not None:
        found = MEASURES[target.measure].found(ours, theirs)
        why = "" if found is not None else "peak memory" if target.measure == "memory" else "no copy"
    reached = None
    if found is not None and ours is not None:
        reached = (found >= target.bound) == MEASURES[target.measure].more or found == target.bound
        if ours.wrong:
            reached, why = False, "wrong answer"
    what = next((r.what for r in rows if r.case == target.case), target.what)
    what = f"{what} ({target.note})" if target.note else what
    who = ours.doer if ours is not None else _unseen(target)
    against = theirs.doer if theirs is not None and target.against else target.label
    return Verdict(target, what, who, against, found, reached, why, ours, theirs)


def _obstacle(target: Target, run: Run, ours: Record | None, theirs: Record | None) -> str:
    """Why a figure cannot be had; nothing if it can."""
    if target.device == "cuda" and not run.machine.get("gpu"):
        return "no GPU"
    if theirs is None and target.against:
        absent = [package for package in run.machine.get("absent") or () if target.against.startswith(package)]
        return f"{absent[0]} is not installed" if absent else f"{target.label.split(',')[0]} has no row"
    if ours is None:
        return f"{_unseen(target)} has no row"
    if theirs is not None and theirs is not ours and theirs.wrong:
        return f"{theirs.label} is wrong"
    return ""


def _unseen(target: Target) -> str:
    """Our row, as it would be called."""
    peer = target.ours.removeprefix(f"{OURS}-as-")
    known = {"volresample": "volresample", "torch": "torch", "scipy": "SciPy"}
    name = OURS if target.ours == OURS else f"{OURS}, as {known[peer]}" if peer in known else f"{OURS}, pinned memory"
    return Record("", "", "", "", "", name, device=target.device, scope=target.scope).doer
