"""Recorded benchmarks: pytest-benchmark's JSON with our own facts in it, as rows.

Every benchmark's `extra_info` says what was timed; `machine_info["gpuresample"]` says on what. Whoever shows or
compares a recorded run reads it here.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

OURS = "gpuresample"
KINDS = ("case", "size", "threads", "cold", "copy")
_NEEDED = ("kind", "case", "peer")


@dataclass(frozen=True)
class Record:
    """One timed row of a run.

    Attributes
    ----------
    name : str
        pytest's name of the benchmark; the same in every run.
    kind : {"case", "size", "threads", "cold", "copy"}
        A named case; a point of a scaling by size or by threads; a first call; the bare copy of a case's bytes.
    case, what : str
        The case's name, and what it is in words.
    peer, label, version : str
        Who did it: a key, a name for people, a version.
    device : str
        "cpu" or "cuda:0".
    scope : {"call", "kernel", "end-to-end"}
        The usual call; on a device with arrays there, or with the copies from and to the host.
    input_shape, output_shape : tuple of int
        In array order, z, y, x last.
    input_dtype, output_dtype : str
    voxels, bytes_moved : int
        Output voxels, and bytes that must be read and written.
    copy_bandwidth : float
        Bytes per second, read and written, of a copy on that device in the same run; 0 if not measured.
    check : str
        "judge", "ok", "WRONG", or "unchecked: reason".
    error : float or None
        Largest difference from a float64 reference, of the input's range.
    peak_host, peak_device : int or None
        Bytes at the call's peak, on top of what was held before.
    threads, size : int or None
    seconds : tuple of float
        Every round.
    """

    name: str
    kind: str
    case: str
    what: str
    peer: str
    label: str
    version: str = ""
    device: str = "cpu"
    scope: str = "call"
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    input_dtype: str = ""
    output_dtype: str = ""
    voxels: int = 0
    bytes_moved: int = 0
    copy_bandwidth: float = 0.0
    check: str = "ok"
    error: float | None = None
    peak_host: int | None = None
    peak_device: int | None = None
    threads: int | None = None
    size: int | None = None
    seconds: tuple[float, ...] = ()

    @property
    def ours(self) -> bool:
        """Whether it is a row of gpuresample."""
        return self.peer == OURS or self.peer.startswith(f"{OURS}-")

    @property
    def wrong(self) -> bool:
        """Whether its answer is not the case's."""
        return self.check.upper().startswith("WRONG")

    @property
    def unchecked(self) -> bool:
        """Whether its answer was compared with nothing."""
        return self.check.startswith("unchecked")

    @property
    def median(self) -> float:
        """Seconds of the middle round."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Fastest to slowest round, in percent of the median."""
        return (
            f"{100 * (min(self.seconds) / self.median - 1):+.0f} / {100 * (max(self.seconds) / self.median - 1):+.0f} %"
        )

    @property
    def rate(self) -> float:
        """Output voxels per second."""
        return self.voxels / self.median

    @property
    def share(self) -> float | None:
        """Bytes that must be moved over time, as a share of the copy's bandwidth; None if one is not known."""
        if not self.copy_bandwidth or not self.bytes_moved:
            return None
        return self.bytes_moved / self.median / self.copy_bandwidth

    @property
    def doer(self) -> str:
        """Who did it, with the device and the scope where they are not the usual ones."""
        more = [self.device] if self.device != "cpu" else []
        if self.scope == "end-to-end":
            more.append("with copies")
        return f"{self.label} ({', '.join(more)})" if more else self.label


@dataclass(frozen=True)
class Run:
    """A recorded run.

    Attributes
    ----------
    machine : dict
        What `measure.machine` says, and what else the run knew.
    date, commit : str
    records : tuple of Record
    """

    machine: Mapping[str, Any]
    date: str
    commit: str
    records: tuple[Record, ...] = field(repr=False)

    def of(self, kind: str) -> list[Record]:
        """The rows of a kind."""
        return [r for r in self.records if r.kind == kind]


def by_case(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Rows by the name of their case, in the order of the run."""
    cases: dict[str, list[Record]] = {}
    for record in records:
        cases.setdefault(record.case, []).append(record)
    return cases


def yardstick(record: Record, among: Iterable[Record], peer: str = "simpleitk") -> Record | None:
    """The peer's right answer to what `record` answers."""
    same = (record.kind, record.case, record.size)
    rows = [r for r in among if r.peer == peer and not r.wrong and (r.kind, r.case, r.size) == same]
    threads = [r for r in rows if r.threads == record.threads]
    return next(iter(threads or rows), None)


def ratio(record: Record, among: Iterable[Record], peer: str = "simpleitk") -> float | None:
    """A peer's median over the record's; None where one of them is wrong, or the peer has no row for the same."""
    judge = yardstick(record, among, peer)
    return None if judge is None or record.wrong else judge.median / record.median


def read(path: Path) -> Run:
    """A run from its file.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not a recorded run; the message says where.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        benchmarks = content["benchmarks"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a JSON file of pytest-benchmark: {error!r}") from error
    machine = content.get("machine_info", {})
    return Run(
        machine={**machine, **machine.get("gpuresample", {})},
        date=str(content.get("datetime", ""))[:19].replace("T", " "),
        commit=str(content.get("commit_info", {}).get("id") or "")[:10],
        records=tuple(_record(b, path) for b in benchmarks),
    )


def _record(benchmark: Mapping[str, Any], path: Path) -> Record:
    info, stats = benchmark.get("extra_info", {}), benchmark.get("stats", {})
    name = str(benchmark.get("fullname") or benchmark.get("name"))
    missing = [key for key in _NEEDED if key not in info]
    if missing:
        raise ValueError(f"{path}: the extra_info of {name} has no {', '.join(missing)}")
    seconds = info.get("seconds") or stats.get("data") or [stats[k] for k in ("median",) if k in stats]
    if not seconds or min(seconds) <= 0:
        raise ValueError(f"{path}: {name} has no times, or some that are not above 0")
    said: dict[str, Any] = {"what": info["case"], "label": info["peer"], "check": "unchecked: the run does not say"}
    said["bytes_moved"] = info.get("bytes") or 0
    for known in fields(Record):
        if (value := info.get(known.name)) not in (None, ""):
            said[known.name] = tuple(value) if isinstance(value, list) else value
    return Record(**{**said, "name": name, "seconds": tuple(float(s) for s in seconds)})
