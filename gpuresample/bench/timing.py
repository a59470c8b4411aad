"""Rows of the suite, checked and timed: doers of a case take turns, so that a busy moment hits all alike."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpuresample.bench import devices, measure
from gpuresample.bench.bounds import SINGLE, unit_of
from gpuresample.bench.journal import Journal
from gpuresample.bench.memory import peak_of
from gpuresample.bench.peers import as_array
from gpuresample.bench.suite import Profile
from gpuresample.bench.tasks import TOLERANCE, Call, Case, Doer, Row
from gpuresample.containers.voxels import finite_range
from gpuresample.engines.threads import cores


@dataclass
class Found:
    """What is known of a row before it is timed: its check, error, peaks, type of result, or why it cannot be timed."""

    check: str = "ok"
    error: float | None = None
    peak: int | None = None
    peak_device: int | None = None
    dtype: str = ""
    failed: str = ""
    seconds: list[float] = field(default_factory=list)


def voxels_of(result: Any) -> Any:
    """A result as an array, or as a list of arrays of several sizes."""
    if isinstance(result, list):
        arrays = [as_array(r) for r in result]
        return np.stack(arrays) if len({a.shape for a in arrays}) == 1 else arrays
    if hasattr(result, "shape") and getattr(result, "ndim", 0) > 3 and 1 in result.shape[1:2]:
        result = result.reshape(result.shape[0], *result.shape[2:])  # torch's channel
    return as_array(result)


class Session:
    """Runs rows, group by group.

    Parameters
    ----------
    rows : sequence of Row
        Those that will be asked for.
    profile : Profile
    journal : Journal, optional
        What was measured before, and keeps what will be.
    """

    def __init__(self, rows: Sequence[Row], profile: Profile, journal: Journal | None = None) -> None:
        self._rows, self._profile, self._journal = list(rows), profile, journal
        self._group: tuple[Any, ...] | None = None
        self._error: Exception | None = None
        self._found: dict[str, Found] = {}
        self._case: Case | None = None
        self._data: Any = None
        self._bandwidth: dict[tuple[str, int], float] = {}
        self.threads = cores()
        for name in ("volresample", "torch"):
            _load(name)
        measure.set_threads(self.threads)

    def told(self, row: Row) -> dict[str, Any]:
        """A row's `extra_info`, see `records.Record`; of one that cannot be timed only why, as "failed"."""
        if self._journal is None:
            return self._info(row, self.measured(row))
        if row.name not in self._journal.rows:
            group = [r for r in self._rows if r.group == row.group]
            self._journal.add({r.name: self._info(r, self.measured(r)) for r in group})
        return self._journal.rows[row.name]

    def measured(self, row: Row) -> Found:
        """A row's check and times; the first one asked of a group runs the whole group."""
        if row.seconds is not None:
            return Found(seconds=row.seconds(), dtype=row.case.output_dtype)
        if row.group != self._group:
            self._found, self._group, self._error = {}, row.group, None
            try:
                self._run([r for r in self._rows if r.group == row.group])
            except Exception as error:
                self._error = error
                raise
        if self._error is not None:
            raise RuntimeError(f"{row.case.name} failed: {self._error}")
        return self._found[row.doer.key]

    def close(self) -> None:
        """Let go of the last case's voxels."""
        self._case, self._data, self._found = None, None, {}

    def _run(self, rows: list[Row]) -> None:
        case, n = rows[0].case, rows[0].threads or self.threads
        if case is not self._case:
            self._data = None
            gc.collect()
            self._case, self._data = case, case.make()
        measure.set_threads(n)
        try:
            calls = self._checked(case, [r.doer for r in rows])
            p, on_device = self._profile, {r.doer.key for r in rows if r.doer.device != "cpu"}
            times = measure.interleaved(calls, p.runs, p.budget, p.at_least, on_device)
            for key, seconds in times.items():
                self._found[key].seconds = seconds
        finally:
            measure.set_threads(self.threads)

    def _checked(self, case: Case, doers: list[Doer]) -> dict[str, Call]:
        """Calls whose answers were looked at; judges first, for others are held against them."""
        answers: dict[str, Any] = {}
        held = {d.expected for d in doers if d.expected is not None}
        calls: dict[str, Call] = {}
        for doer in sorted(doers, key=lambda d: (not d.judge, d.expected is not None, doers.index(d))):
            self._found[doer.key] = found = Found()
            try:
                calls[doer.key] = call = doer.prepare(self._data)
                answer = self._first(call, found, doer.device)
                if doer.key in held:
                    answers[doer.key] = answer
                self._judge(case, doer, answer, answers, found)
            except Exception as error:
                if doer.peer.startswith("gpuresample"):
                    raise
                calls.pop(doer.key, None)  # a peer that cannot do it
                found.failed = f"{type(error).__name__}: {error}"
        return {d.key: calls[d.key] for d in doers if d.key in calls}

    def _first(self, call: Call, found: Found, device: str) -> Any:
        begin = time.perf_counter()
        result = call()
        seconds = time.perf_counter() - begin
        answer = voxels_of(result)
        del result
        if isinstance(answer, np.ndarray):
            found.dtype = str(answer.dtype)
        if seconds <= self._profile.again:
            if sys.platform == "linux":
                found.peak = peak_of(call)
            if device != "cpu":
                found.peak_device = devices.peak_of(call)
        return answer

    def _judge(self, case: Case, doer: Doer, answer: Any, answers: dict[str, Any], found: Found) -> None:
        unit = unit_of(*finite_range(case.array(self._data))[:2]) or 1.0
        if doer.reference is not None and (measured := doer.reference(self._data)) is not None:
            found.error = measured(answer) / unit
        if doer.judge:
            found.check = "judge"
        elif doer.unchecked:
            found.check = f"unchecked: {doer.unchecked}"
        elif doer.expected is not None:
            right = self._answer(case, doer.expected, answers)
            if right is None:
                found.check = f"unchecked: {doer.expected} is not here"
                return
            verdict = case.verdict(self._data, answer, right)
            found.check = "ok" if verdict.same else "WRONG"
        elif found.error is None:
            found.check = "unchecked: nobody else has the same"
        else:
            # Truncation is wrong by up to 1, and by what the sum was wrong by.
            bound = TOLERANCE if np.dtype(found.dtype).kind == "f" else 1.0 / unit + SINGLE
            found.check = "ok" if found.error <= bound else "WRONG"

    def _answer(self, case: Case, key: str, answers: dict[str, Any]) -> Any:
        """A doer's answer, asked for where it is no row of this group."""
        if key not in answers:
            doer = next((d for d in case.doers if d.key == key), None)
            answers[key] = None if doer is None else voxels_of(doer.prepare(self._data)())
        return answers[key]

    # -- what a row says about itself --------------------------------------------------------------------------------

    def _copy(self, device: str, case: Case) -> float:
        """Bytes per second, read and written, of a copy of the case's bytes on a device."""
        key = device, max(case.bytes_moved // 2, 1)
        if key not in self._bandwidth:
            made = measure.copying if device == "cpu" else devices.copying
            self._bandwidth[key] = 2 * key[1] / _least(made(key[1]), device)
        return self._bandwidth[key]

    def _info(self, row: Row, found: Found) -> dict[str, Any]:
        if found.failed:
            return {"failed": found.failed}
        case, doer = row.case, row.doer
        threads = row.threads or self.threads
        bare = row.kind in ("cold", "copy")
        given = doer.dtype or case.input_dtype
        made = case.output_dtype if bare else found.dtype or case.output_dtype
        return {
            "kind": row.kind, "case": case.name, "what": case.what, "peer": doer.peer, "label": doer.label,
            "version": doer.version, "device": doer.device, "scope": doer.scope,
            "input_shape": list(case.input_shape), "output_shape": list(case.output_shape),
            "input_dtype": given, "output_dtype": made,
            "voxels": case.voxels, "bytes": 0 if row.kind == "cold" else case.bytes_of(given, made),
            "copy_bandwidth": 0.0 if bare else self._copy(doer.device, case), "check": "ok" if bare else found.check,
            "error": found.error, "peak_host": None if bare else found.peak,
            "peak_device": found.peak_device, "threads": threads, "size": row.size, "seconds": found.seconds,
        }  # fmt: skip


def _least(call: Call, device: str) -> float:
    on_device = () if device == "cpu" else ("copy",)
    return min(measure.interleaved({"copy": call}, 3, 1.0, on_device=on_device)["copy"])


def _load(module: str) -> None:
    """So that its number of threads can be set."""
    import importlib.util

    if importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
