"""How fast this machine is, as `calibration` measured it: a few rates in a file of the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from gpuresample.engines import threads

FORMAT = 2
# A machine's disks and neighbours change without telling.
STALE_AFTER = 180 * 86400.0
ENVIRONMENT = "GPURESAMPLE_CACHE_DIR"

# What is measured, and in what unit; each is a time, so that a job's time is a sum of products.
NAMES = {
    "wide_single": "s per unit of `work.pass_cost`, tables of more than 4 taps, sums in float32",
    "wide_double": "the same, sums in float64",
    "few_single": "s per unit of `work.pass_cost`, tables of up to 4 taps, sums in float32",
    "few_double": "the same, sums in float64",
    "copy_voxel": "s per voxel copied by index",
    "copy_byte": "s per byte of it, on top",
    "convert": "s per voxel converted to another type",
    "gather_pair_single": "s per voxel of a rotated grid, linear, sums in float32",
    "gather_pair_double": "the same, sums in float64",
    "gather_cubic_single": "s per voxel of a rotated grid, neighbourhoods of 4 x 4 x 4, sums in float32",
    "gather_cubic_double": "the same, sums in float64",
    "gather_sinc_single": "s per voxel of a rotated grid, neighbourhoods of 10 x 10 x 10, sums in float32",
    "gather_sinc_double": "the same, sums in float64",
    "gather_index": "s per voxel of a rotated grid, copied",
    "vote_linear": "s per voxel, label_linear",
    "vote_gaussian": "s per voxel, label_gaussian",
    "mean": "s per input voxel of block means",
    "mode": "s per input voxel of block modes",
    "new_byte": "s per byte of memory that is touched for the first time",
    "memory_byte": "s per byte read or written by all threads in large copies",
    "call": "s per call",
    "image_byte": "s per byte of a new SimpleITK image, which is cleared before it is filled",
    "file": "s per file read, whatever its size",
    "file_written": "s per file written, bringing it to disk included",
    "read_byte": "s per byte of an uncompressed file, read from the page cache into new memory",
    "cold_byte": "the same, read from the disk of temporary files; as from the page cache where none can be emptied",
    "unzip_in": "s per byte of a gzip file",
    "unzip_out": "s per byte that comes out of it",
    "write_byte": "s per byte of an uncompressed file",
    "zip_in": "s per byte that goes into a gzip file",
    "zip_out": "s per byte of the gzip file",
    "gzip_share": "bytes of a gzip file per byte of voxels, of a CT with noise: where no file says better (no time)",
}


@dataclass(frozen=True)
class Rates:
    """What a machine takes for the parts of a job, see `NAMES`.

    Attributes
    ----------
    machine : dict
        What was measured, with what; see `identity`.
    measured : float
        When, in seconds since 1970.
    values : mapping of str to float
        By the keys of `NAMES`.
    """

    machine: dict[str, Any]
    measured: float
    values: Mapping[str, float]

    def __getitem__(self, name: str) -> float:
        return self.values[name]

    @property
    def stale(self) -> str:
        """Why it should be measured again; nothing if it need not be."""
        here = identity()
        for name, value in here.items():
            if self.machine.get(name) != value:
                return f"{name} was {self.machine.get(name)}, now {value}"
        if not 0 <= time.time() - self.measured < STALE_AFTER:
            return f"older than {STALE_AFTER / 86400:.0f} days"
        return ""


def identity() -> dict[str, Any]:
    """What rates depend on: the machine, the number of threads, and the libraries that do the work."""
    versions = {}
    for name in ("numpy", "numba", "SimpleITK"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "format": FORMAT,
        "host": platform.node(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads.get_num_threads(),
        "python": platform.python_version(),
        "gpuresample": sys.modules["gpuresample"].__version__,
        **versions,
    }


def processor() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def path() -> Path:
    """The file of this machine's rates, for the present number of threads.

    In `GPURESAMPLE_CACHE_DIR` if that is set, else in the user's cache folder. A folder that several machines share has
    a file of each.
    """
    here = identity()
    key = hashlib.sha256(json.dumps([here[name] for name in ("host", "processor", "threads")]).encode()).hexdigest()
    return _folder() / f"rates-{key[:12]}.json"


def _folder() -> Path:
    chosen = os.environ.get(ENVIRONMENT)
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "gpuresample"


def load() -> Rates | None:
    """The stored rates of this machine, stale ones too; None where there are none or the file is damaged."""
    try:
        content = json.loads(path().read_text(encoding="utf-8"))
        values = {name: float(content["values"][name]) for name in NAMES}
        if min(values.values()) < 0 or content["machine"]["format"] != FORMAT:
            return None
        return Rates(dict(content["machine"]), float(content["measured"]), values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def current() -> Rates | None:
    """The stored rates, if they are this machine's as it is now."""
    rates = load()
    return rates if rates is not None and not rates.stale else None


def save(rates: Rates) -> Path:
    """Store rates in one step: readers find the old file or the new one.

    Raises
    ------
    OSError
        If the folder cannot be made or written.
    """
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{secrets.token_hex(4)}.partial")
    try:
        partial.write_text(json.dumps(asdict(rates), indent=1) + "\n", encoding="utf-8")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return target
