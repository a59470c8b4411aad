"""How far a batch is, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from gpuresample.batch import records


@dataclass(frozen=True)
class Progress:
    """How far a batch is.

    Attributes
    ----------
    total, done, as_before, failed : int
        Volumes: all, done by this run, done by earlier ones, failed.
    bytes_total, bytes_done : int
        Of the input files that are for this run.
    workers, dashboard : str
        Who does it, and the address of Dask's dashboard.
    note : str
        What people should know: "stopping; Ctrl-C again to stop at once".
    """

    total: int
    done: int = 0
    as_before: int = 0
    failed: int = 0
    bytes_total: int = 0
    bytes_done: int = 0
    workers: str = ""
    dashboard: str = ""
    note: str = ""


@dataclass
class Outcome:
    """What became of a batch.

    Attributes
    ----------
    records : list of dict
        Of each volume, in the batch's order: "name", "source" and "kind", which is "done" (by this run), "as before"
        (by an earlier one, and nothing has changed since), "failed" (with a "reason") or "not done".
    stopped : str
        Why not all volumes were tried; nothing if they were.
    interrupted : bool
        Whether that was Ctrl-C or SIGTERM.
    seconds : float
        Of the run.
    workers : str
        Who did it.
    notes : list of str
        What the run has met and put right.
    csv, html : Path
        The reports.
    """

    records: list[records.Record]
    csv: Path
    html: Path
    stopped: str = ""
    interrupted: bool = False
    seconds: float = 0.0
    workers: str = ""
    notes: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """Volumes of a kind."""
        return sum(r["kind"] == kind for r in self.records)

    @property
    def complete(self) -> bool:
        """Whether every volume is done."""
        return self.count("failed") == self.count("not done") == 0
