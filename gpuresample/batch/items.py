"""One volume of a batch, where a worker does it: read, resample, write, and the record of what came of it.

Several volumes are under way in a worker at once: while one is resampled, by all threads of the engine, the next is
read and the one before is written. How many, memory decides (`Budget`).
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpuresample.batch import records, thumbnails
from gpuresample.batch.inputs import Item
from gpuresample.containers.voxels import finite_range
from gpuresample.engines.threads import set_num_threads
from gpuresample.files import job
from gpuresample.files import volumes as files
from gpuresample.memory import available_memory
from gpuresample.ops.labels import label_report
from gpuresample.planning.filters import get_filter

if TYPE_CHECKING:
    import SimpleITK

# Results of these lie between the input's smallest and largest value.
_NO_OVERSHOOT = ("nearest", "linear", "label_gaussian", "label_linear", "bspline1", "gaussian")
# More than so much of the range beyond it deserves a remark.
_OVERSHOOT = 0.25
# A volume of more values is an image, not a map of labels.
_MOST_LABELS = 1024


class Budget:
    """Bytes of memory that volumes under way share; one that wants more than there is goes alone."""

    def __init__(self, size: int) -> None:
        self._size = self._left = size
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def of(self, wanted: int) -> Iterator[None]:
        """Wait for so many bytes, and give them back at the end."""
        share = min(wanted, self._size)
        with self._changed:
            self._changed.wait_for(lambda: self._left >= share)
            self._left -= share
        try:
            yield
        finally:
            with self._changed:
                self._left += share
                self._changed.notify_all()


class _Process:
    """Of this worker's process."""

    computing = threading.Lock()
    budget = Budget(1 << 30)
    heard = threading.local()
    listening = False


def prepare(threads: int, share: int, gpu: str | None = None, log: str | None = None) -> None:
    """Make this process a worker: called once, before its first volume.

    Parameters
    ----------
    threads : int
        Of the CPU engine.
    share : int
        Processes that share this machine's memory.
    gpu : str, optional
        The only GPU that CUDA shall see here, as CUDA_VISIBLE_DEVICES has it.
    log : str, optional
        File for what libraries write to stderr. Given for workers that were started for this batch alone: they also
        leave Ctrl-C to the process that started them.
    """
    set_num_threads(threads)
    _Process.budget = Budget(max(_free_memory() * 2 // 3 // share, 1 << 28))
    _listen()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    if log is not None:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGHUP"):
                if hasattr(signal, name):
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
        sink = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 2)
        os.close(sink)


def _free_memory() -> int:
    """Bytes that are free on this machine, or in the container around this process."""
    from distributed.system import MEMORY_LIMIT

    return int(min(available_memory(), MEMORY_LIMIT))


def run(
    item: Item, identity: records.Record, root: str, overwrite: bool, picture: bool, level: int | None = None
) -> records.Record:
    """Do one volume.

    Parameters
    ----------
    item : Item
        What to do.
    identity : dict
        What decides the result's voxels: `Settings.identity`.
    root : str
        OUT_DIR; nothing is written outside.
    overwrite : bool
        Whether the output may be replaced.
    picture : bool
        Whether the record gets a thumbnail. Failures and remarkable results get one wherever there are voxels.
    level : int, optional
        How hard to pack the result.

    Returns
    -------
    dict
        The record: "kind" is "done" or "failed" (with a "reason"). No exception leaves.
    """
    work = _Work(item, identity, picture, level)
    _listen()
    _Process.heard.warnings = []
    try:
        with _Process.budget.of(_bytes_needed(item)):
            work.do(root, overwrite)
        work.record["kind"] = "done"
    except (Exception, SystemExit) as error:
        work.fail(error)
    work.record["warnings"] = list(dict.fromkeys(_Process.heard.warnings))[:5]
    return work.record


class _Work:
    """A volume under way, and its record so far."""

    def __init__(self, item: Item, identity: records.Record, picture: bool, level: int | None) -> None:
        self.item, self.picture, self.level = item, picture, level
        self.seconds: dict[str, float] = {}
        self.thumbnail: thumbnails.Packed | None = None
        self.record: records.Record = {
            "kind": "failed", "name": item.name, "source": item.source, "settings": identity,
            "version": metadata.version("gpuresample"), "at": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "seconds": self.seconds, "pid": os.getpid(),
        }  # fmt: skip

    def do(self, root: str, overwrite: bool) -> None:
        source, target = Path(self.item.source), Path(self.item.target)
        if not Path(os.path.realpath(target)).is_relative_to(root):
            raise OSError(f"{target}: leads out of {root} by a symbolic link")
        files.check_input(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        before = records.stamp(source)
        pool = ThreadPoolExecutor(1)
        digest = pool.submit(records.content, source)
        pool.shutdown(wait=False)  # a volume that fails does not wait for it
        old, new = self._run(source, target, overwrite)
        if (after := records.stamp(source)) != before and os.path.realpath(source) != str(target):
            raise OSError(f"{source}: was changed while it was read (was {before[0]:,} bytes, is {after[0]:,})")
        self.record |= {"before": _geometry(old), "after": _geometry(new), "voxel_bytes": old.nbytes}
        self.record["checks"] |= {"extent": _extent_kept(old, new, self.item)}
        self.record["input"] = {"stamp": before, "hash": digest.result()}
        self.record["output"] = {"stamp": records.stamp(target), "hash": records.content(target)}
        if self.picture or not is_clean(self.record["checks"]):
            self.record["thumbnail"] = self.thumbnail

    def _run(self, source: Path, target: Path, overwrite: bool) -> tuple[files.Header, files.Header]:
        """The volume to its file; one that is there although it must not be replaced, is to have the same bytes.

        Dask runs a volume again if its worker dies before the answer was fetched: its result is there then, whole.
        """
        if overwrite or not target.exists():
            return job.run(source, target, self.item.settings, overwrite, self.stage, self.look, level=self.level)
        again = files.partial_beside(target)
        try:
            headers = job.run(source, again, self.item.settings, True, self.stage, self.look, level=self.level)
            if not filecmp.cmp(again, target, shallow=False):
                raise FileExistsError(f"{target}: has come into being meanwhile and is left alone")
        finally:
            again.unlink(missing_ok=True)
        return headers

    @contextlib.contextmanager
    def stage(self, name: str, header: files.Header | None) -> Iterator[None]:
        """Time a stage, without the wait for its turn."""
        with _Process.computing if name == "resample" else contextlib.nullcontext():
            start = time.perf_counter()
            yield
            self.seconds[name] = round(time.perf_counter() - start, 4)

    def look(self, image: SimpleITK.Image, result: SimpleITK.Image) -> None:
        """Note what the voxels say."""
        self.record["checks"] = _checks(image, result, self.item)
        self.thumbnail = thumbnails.packed(image, result)

    def fail(self, error: BaseException) -> None:
        self.record["reason"] = " ".join(str(error).split()) or type(error).__name__
        self.record["full"] = _is_full(error)
        if not isinstance(error, (OSError, ValueError, TypeError, RuntimeError, MemoryError)):
            self.record["reason"] = f"unexpected {type(error).__name__}: {self.record['reason']}"
            traceback.print_exception(error)
        # What is there is what was there before: a later run may replace it, but nothing that is put there meanwhile.
        with contextlib.suppress(OSError):
            self.record["left"] = records.stamp(Path(self.item.target))
        if self.thumbnail is not None:
            self.record["thumbnail"] = self.thumbnail


def is_clean(checks: dict[str, Any]) -> bool:
    """Whether a result deserves no remark."""
    finite = checks["not_finite"] == 0 or checks["not_finite_before"] > 0
    return finite and checks["in_range"] and checks["extent"] is not False and not checks.get("labels_lost")


def _bytes_needed(item: Item) -> int:
    """Estimated from the header; from the files where a folder has none. What is wrong shows when it is read."""
    source = Path(item.source)
    try:
        return 2 * records.stamp(source)[0] if source.is_dir() else job.bytes_needed(source, item.settings)
    except (OSError, ValueError, TypeError, RuntimeError):
        return 0


def _is_full(error: BaseException) -> bool:
    """Whether it is the disk that failed: then every other volume would fail as well."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def _geometry(header: files.Header) -> dict[str, Any]:
    return {
        "size": list(header.size), "spacing": list(header.spacing), "origin": list(header.origin),
        "direction": list(header.direction), "type": header.pixel_type,
    }  # fmt: skip


def _checks(image: SimpleITK.Image, result: SimpleITK.Image, item: Item) -> dict[str, Any]:
    """What can be told of a result at little cost: finite values, their range, and labels."""
    import SimpleITK as sitk

    old, new = (sitk.GetArrayViewFromImage(i) for i in (image, result))
    (low, high, bad_before), (new_low, new_high, bad) = finite_range(old), finite_range(new)
    beyond = max(low - new_low, new_high - high, 0.0)
    outside = item.settings.default_value
    if low <= outside <= high or not (new_low <= outside <= new_high):
        share = beyond / (high - low) if high > low else 0.0 if beyond == 0 else 1.0
    else:
        # The value outside the input widens the range on purpose.
        share = 0.0
    allowed = 1e-5 if item.settings.interpolation in _NO_OVERSHOOT else _OVERSHOOT
    return {
        "not_finite": bad, "not_finite_before": bad_before, "range_before": [low, high], "range": [new_low, new_high],
        "in_range": share <= allowed, "beyond": round(share, 6), **_labels(image, result, item),
    }  # fmt: skip


def _labels(image: SimpleITK.Image, result: SimpleITK.Image, item: Item) -> dict[str, Any]:
    """What became of labels, where labels are what was resampled: whole numbers, chosen and not summed, and few."""
    import SimpleITK as sitk

    voxels = sitk.GetArrayViewFromImage(image)
    if get_filter(item.settings.interpolation).method == "sum" or voxels.dtype.kind not in "iu":
        return {}
    if voxels.ndim != image.GetDimension() or voxels.ndim > 3 or result.GetPixelID() != image.GetPixelID():
        return {}
    # An image shows itself as one in a plane of it, which is looked at before all are: neighbours differ.
    plane = voxels[len(voxels) // 2]
    pairs = (plane[..., 1:] != 0) & (plane[..., :-1] != 0)
    alike = int(((plane[..., 1:] == plane[..., :-1]) & pairs).sum())
    if np.unique(plane).size > _MOST_LABELS or 2 * alike < int(pairs.sum()):
        return {}
    report = label_report(image, result)
    before = [c for c in report.changes if c.voxels[0]]
    if not 0 < len(before) <= _MOST_LABELS:
        return {}
    shifts = [c.shift for c in before if c.voxels[1]]
    return {"labels": len(before), "labels_lost": list(report.lost), "labels_shift": max(shifts, default=None)}


def _extent_kept(old: files.Header, new: files.Header, item: Item) -> bool | None:
    """Whether both cover the same length along each axis, to half a voxel; None where another grid was asked for."""
    s = item.settings
    if s.like or s.transform or (s.size and s.spacing):
        return None
    lengths = zip(old.size, old.spacing, new.size, new.spacing, strict=True)
    return all(abs(n * h - m * g) <= max(g, h) / 2 * (1 + 1e-6) + 1e-9 for n, h, m, g in lengths)


def _listen() -> None:
    """Keep the warnings of each thread apart: Python's own way of catching them is for one thread."""
    if _Process.listening:
        return
    _Process.listening = True
    show = warnings.showwarning

    def heard(
        message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: str | None = None
    ) -> None:
        kept = getattr(_Process.heard, "warnings", None)
        if kept is None or not issubclass(category, UserWarning):
            show(message, category, filename, lineno, file, line)
        else:
            kept.append(" ".join(str(message).split()))

    if "pytest" not in sys.modules:
        warnings.simplefilter("always", UserWarning)
    warnings.showwarning = heard
