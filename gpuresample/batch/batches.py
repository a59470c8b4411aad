"""Many volumes, each from a file into a file: what is to be done, who does it, and what became of it.

A run can be stopped at any point, killed included, and started again: what is done is told by its record, which
holds the settings and the content of input and output.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import deque
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from gpuresample import texts
from gpuresample.batch import clusters, inputs, items, records, reports
from gpuresample.batch.inputs import Item
from gpuresample.batch.interrupts import Asked
from gpuresample.batch.outcomes import Outcome, Progress
from gpuresample.files.job import Settings
from gpuresample.files.volumes import check_level

# Seconds between looks at Ctrl-C while nothing is finished.
_PATIENCE = 0.2
# How often a volume whose worker died is tried alone.
_ALONE = 2
# Of so many volumes, spread over the batch, the report shows pictures.
_PICTURES = 60
# Between writings of the report while the batch runs, in seconds.
_REPORT_EVERY = 60.0


def batch(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    pattern: str | None = None,
    listing: str | os.PathLike[str] | None = None,
    table: str | os.PathLike[str] | None = None,
    file_format: str | None = None,
    scheduler: str | None = None,
    tls: Sequence[str | os.PathLike[str]] | None = None,
    workers: int | None = None,
    dashboard: bool = False,
    overwrite: bool = False,
    verify: bool = False,
    level: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    **settings: Any,
) -> Outcome:
    """Resample the volumes of a folder into another folder, and write a report.

    Parameters
    ----------
    source, target : path-like
        IN_DIR and OUT_DIR. Outputs mirror the folders of `source`; nothing is written outside `target`. A folder of
        DICOM files is one volume.
    pattern : str, optional
        Glob of files, such as "*_ct.nii.gz"; without a slash it is for names in all folders. All volumes unless
        `pattern`, `listing` or `table` is given.
    listing, table : path-like, optional
        A text file with a path a line; a CSV file with a column "input" and columns "output" and any setting, which
        where not empty replaces this call's. Relative paths are relative to IN_DIR, of outputs to OUT_DIR.
    file_format : str, optional
        Extension of the outputs, such as ".nrrd"; the input's unless given.
    scheduler : str, optional
        Address of a Dask scheduler whose workers see both folders; processes on this machine unless given. Take one of
        "tls://": a "tcp://" scheduler does not ask who connects, and both sides unpickle what they receive, so whoever
        reaches its port can run code as its user and as yours.
    tls : sequence of path-like, optional
        For a "tls://" scheduler, three PEM files: certificate authority, your certificate, your key. Those of Dask's
        own configuration unless given.
    workers : int, optional
        Processes on this machine: one for each GPU unless given, or else one for 4 cores. Their connections are
        encrypted with keys that are made for this run and kept in memory.
    dashboard : bool
        Whether the processes on this machine serve Dask's dashboard. It has no password: other users of this machine
        can read it.
    overwrite : bool
        Whether files in `target` may be replaced that are not this batch's own, or were changed since.
    verify : bool
        Whether what earlier runs have done is read again and compared with the record, instead of looking at content
        only where size or time of change differ.
    level : int, optional
        How hard to pack results, 1 (fast) to 9 (small): as `gpuresample.files.write` takes it.
    progress : callable, optional
        Called with a `Progress` when something has changed.
    **settings
        Of all volumes: `gpuresample.files.job.Settings`, the keywords of `gpuresample.resample`.

    Returns
    -------
    Outcome
        What became of each volume; volumes that fail do not end the run.

    Raises
    ------
    ValueError, TypeError
        Before anything is written: for settings no volume could be resampled with, unknown columns, outputs outside
        `target` or a `target` whose name is not valid UTF-8, two inputs for one output.
    OSError
        If a folder is missing or `target` cannot be written; BlockingIOError if another batch works on it.
    RuntimeError
        If the cluster's workers cannot do it.

    Notes
    -----
    The first Ctrl-C (or SIGTERM, or SIGHUP of a closed terminal) lets volumes that are under way finish; the second
    ends them, and what was half-written is removed. In both cases the function returns. On a cluster, volumes under way
    always finish.

    In a script, call it under ``if __name__ == "__main__":``; Python starts the workers as new processes.
    """
    if scheduler is not None and workers is not None:
        raise ValueError(f"workers is for processes on this machine, and scheduler={scheduler!r} has its own: give one")
    if scheduler is not None and dashboard:
        raise ValueError(
            f"dashboard is for processes on this machine, and scheduler={scheduler!r} has its own: give one"
        )
    _check_tls(scheduler, tls)
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, got {workers}")
    asked = Settings(**settings)
    listed, rows = (None if p is None else Path(p) for p in (listing, table))
    found = inputs.items(Path(source), Path(target), asked, pattern, listed, rows, file_format)
    for item in found:
        check_level(item.target, level)
    folder = _private(Path(os.path.realpath(target)))
    with records.locked(folder) as cut_off:
        run = _Run(folder, found, overwrite, level, progress or (lambda p: None))
        try:
            if cut_off:
                run.notes.append(cut_off)
            run.sort_out(verify)
            if run.to_do:
                log = folder / "workers.log"
                if scheduler is None:
                    # Heard from the start of the workers on, which takes seconds.
                    with run.asked.listening(), clusters.local(workers, asked.device, log, dashboard) as team:
                        run.do(team)
                else:
                    with clusters.remote(scheduler, folder, tls) as team:
                        run.do(team)
            return run.report()
        finally:
            run.journal.close()


def _check_tls(scheduler: str | None, tls: Sequence[str | os.PathLike[str]] | None) -> None:
    if tls is None:
        return
    if scheduler is None or not scheduler.startswith("tls://"):
        raise ValueError(f"tls is for a scheduler of tls://..., got scheduler={scheduler!r}")
    if isinstance(tls, (str, os.PathLike)) or len(tls) != 3:
        raise ValueError(f"tls must be three files (authority, certificate, key), got {tls!r}")
    for path in tls:
        if not Path(path).is_file():
            raise FileNotFoundError(f"{os.fspath(path)}: no such file (tls)")


def _private(target: Path) -> Path:
    """The folder of records within OUT_DIR.

    Raises
    ------
    ValueError
        If its name is not valid UTF-8: no volume could be written.
    OSError
        If it cannot be made or lies elsewhere.
    """
    folder = target / inputs.PRIVATE
    texts.utf8_name(target)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except PermissionError:
        raise PermissionError(f"{target}: cannot be written to") from None
    if os.path.realpath(folder) != str(folder):
        raise OSError(f"{folder}: is a symbolic link, and nothing is written outside {target}")
    if not os.access(folder, os.W_OK) or not os.access(target, os.W_OK):
        raise PermissionError(f"{target}: cannot be written to")
    return folder


class _Run:
    """A run of a batch."""

    def __init__(
        self, folder: Path, found: list[Item], overwrite: bool, level: int | None, progress: Callable[[Progress], None]
    ) -> None:
        self.folder, self.root, self.items, self.overwrite = folder, folder.parent, found, overwrite
        self.level, self.tell = level, progress
        self.journal = records.Journal(folder)
        self.notes: list[str] = []
        self.results: dict[str, records.Record] = {}
        self.to_do: deque[Item] = deque()
        self.stopped = ""
        self.asked = Asked()
        self.start = time.monotonic()
        self.workers = self.dashboard = ""
        self._identities: dict[Settings, records.Record] = {}
        self._bytes: dict[str, int] = {}
        step = max(1, len(found) // _PICTURES)
        self._pictured = {item.name for item in found[::step]}
        self._reported = self.start

    def sort_out(self, verify: bool) -> None:
        """Tell what is done from what is to do; clear away what killed runs have left."""
        removed = records.remove_partials(item.target for item in self.items)
        if removed:
            self.notes.append(f"{removed} half-written file{'s' if removed > 1 else ''} of an earlier run removed")
        for item in self.items:
            reason = self._sorted(item, verify)
            if reason:
                self.results[item.name] = {"kind": "failed", "name": item.name, "source": item.source, "reason": reason}
        self._tell()

    def _sorted(self, item: Item, verify: bool) -> str:
        """Why an item is not to be done; nothing if it is done or will be."""
        last = self.journal.last.get(item.name)
        target = Path(item.target)
        own = not target.exists()
        if not own and last is not None and last["kind"] == "done":
            own = records.is_same(target, last["output"], verify)
            if own and self._is_current(item, last, verify):
                self.results[item.name] = last | {"kind": "as before"}
                return ""
        elif not own and last is not None:
            own = last.get("left") == records.stamp(target)
        elif not own:
            # Begun by a run that was cut off: whether replaced or not, it is the batch's.
            own = item.name in self.journal.begun
        if not own and not self.overwrite:
            what = (
                "has been changed since this batch wrote it" if last is not None else "is there, and not this batch's"
            )
            return f"{target}: {what}; to replace it, say so (overwrite=True, --overwrite)"
        self.to_do.append(item)
        with contextlib.suppress(OSError):
            self._bytes[item.name] = records.stamp(Path(item.source))[0]
        return ""

    def _is_current(self, item: Item, last: records.Record, verify: bool) -> bool:
        same = last.get("settings") == self._identity(item) and last.get("version") == metadata.version("gpuresample")
        return same and last.get("source") == item.source and records.is_same(Path(item.source), last["input"], verify)

    def _identity(self, item: Item) -> records.Record:
        if item.settings not in self._identities:
            self._identities[item.settings] = item.settings.identity()
        return self._identities[item.settings]

    def do(self, team: clusters.Workers) -> None:
        """Do what is to do; volumes whose workers died are tried again alone."""
        self.workers, self.dashboard = team.text, team.dashboard
        self._tell()
        with self.asked.listening():
            suspects = self._together(team)
            for item in suspects:
                self._alone(team, item)
            if self.asked.count > 1:
                team.kill()
        if self.asked.count:
            self.stopped = "interrupted"
        if self.asked.count > 1 and team.own is not None:
            # Killed processes take a moment to be gone.
            time.sleep(_PATIENCE)
            records.remove_partials(item.target for item in self.items)

    def _together(self, team: clusters.Workers) -> list[Item]:
        """All items, as many at once as there is room for; returns those whose worker died."""
        finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        under_way: dict[Any, Item] = {}
        suspects: list[Item] = []
        while True:
            room = team.slots() - len(under_way) if self.to_do and not self._stops() else 0
            batch = [self.to_do.popleft() for _ in range(min(max(room, 0), len(self.to_do)))]
            under_way |= {self._submit(team, item, finished): item for item in self._begun(batch)}
            if not under_way or self.asked.count > 1:
                return suspects
            for future in _some(finished):
                item = under_way.pop(future)
                if not self._collect(team, item, future):
                    suspects.append(item)
                    self.notes.append(f"a worker died while {item.name} was under way; it was tried again alone")
            if team.lost():
                self.stopped = "the scheduler is gone"
                return []
            self._report_now_and_then()

    def _alone(self, team: clusters.Workers, item: Item) -> None:
        """An item with nothing else under way: if the worker dies again, it is this volume."""
        for _ in range(_ALONE):
            if self._stops():
                return
            records.remove_partials([item.target])
            finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
            future = self._submit(team, item, finished)
            while not _some(finished):
                if self.asked.count > 1 or team.lost():
                    return
            if self._collect(team, item, future):
                return
        reason = "the worker died each time it was tried (out of memory, or a crash in a native library)"
        self._note({"kind": "failed", "name": item.name, "source": item.source, "reason": reason})

    def _stops(self) -> bool:
        return bool(self.stopped or self.asked.count)

    def _begun(self, batch: list[Item]) -> list[Item]:
        """Note that these outputs are the batch's own from now on."""
        try:
            self.journal.add({"kind": "begin", "name": item.name} for item in batch)
        except OSError as error:
            self.stopped = f"records cannot be written: {error}"
            return []
        return batch

    def _submit(self, team: clusters.Workers, item: Item, finished: queue.SimpleQueue[Any]) -> Any:
        # A path that was free is not replaced if somebody has taken it meanwhile.
        replace = Path(item.target).exists()
        picture = item.name in self._pictured
        future = team.client.submit(
            items.run, item, self._identity(item), str(self.root), replace, picture, self.level, pure=False
        )  # fmt: skip
        future.add_done_callback(finished.put)
        return future

    def _collect(self, team: clusters.Workers, item: Item, future: Any) -> bool:
        """Note what came of an item; False if its worker died."""
        from distributed import KilledWorker

        try:
            record = future.result()
        except KilledWorker:
            return False
        # What `items.run` does not catch is the cluster's: a future that is lost, a result that cannot be sent.
        except Exception as error:
            record = {
                "kind": "failed",
                "name": item.name,
                "source": item.source,
                "reason": f"{type(error).__name__}: {error}",
            }
        self._note(record)
        if record.get("full"):
            self.stopped = f"the disk is full or read-only ({record['reason']})"
        return True

    def _note(self, record: records.Record) -> None:
        self.results[record["name"]] = record
        try:
            self.journal.add([record])
        except OSError as error:
            self.stopped = f"records cannot be written: {error}"
        self._tell()

    def _tell(self) -> None:
        kinds = [r["kind"] for r in self.results.values()]
        self.tell(Progress(
            len(self.items), kinds.count("done"), kinds.count("as before"), kinds.count("failed"),
            sum(self._bytes.values()), sum(n for name, n in self._bytes.items() if name in self.results),
            self.workers, self.dashboard, self.asked.note(),
        ))  # fmt: skip

    def _report_now_and_then(self) -> None:
        if self.asked.news():
            self._tell()
        if time.monotonic() - self._reported > _REPORT_EVERY:
            self.report()
            self._reported = time.monotonic()

    def report(self) -> Outcome:
        """Write the reports."""
        csv, html = (self.root / name for name in inputs.REPORTS)
        nothing = [{"kind": "not done", "name": i.name, "source": i.source} for i in self.items]
        made = [self.results.get(item.name, missing) for item, missing in zip(self.items, nothing, strict=True)]
        outcome = Outcome(
            made, csv, html, self.stopped, bool(self.asked.count), time.monotonic() - self.start, self.workers,
            list(dict.fromkeys(self.notes)),
        )  # fmt: skip
        try:
            reports.write_csv(csv, outcome.records)
            reports.write_html(html, outcome.records, reports.Facts(
                str(self.root), outcome.seconds, outcome.workers, outcome.stopped, outcome.notes
            ))  # fmt: skip
        except OSError as error:
            outcome.stopped = outcome.stopped or f"the report cannot be written: {error}"
        return outcome


def _some(finished: queue.SimpleQueue[Any]) -> list[Any]:
    """What is finished, after a wait for the first."""
    got = []
    with contextlib.suppress(queue.Empty):
        got.append(finished.get(timeout=_PATIENCE))
        while True:
            got.append(finished.get_nowait())
    return got
