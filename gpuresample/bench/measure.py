"""How things are measured: interleaved runs, children of their own for start-up and memory, and what machine it was."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

from gpuresample.engines.threads import cores

ROOT = Path(__file__).resolve().parents[2]


# Seconds of quiet before every run.
SETTLE = 0.05
# Runs of up to so many seconds are made twice in a row, and the second counts.
SHORT = 0.1
# Seconds of a GPU's work before every run on it: its clocks fall while libraries on the CPU take their turns.
BUSY = 0.05


def interleaved(
    calls: Mapping[str, Callable[[], Any]],
    runs: int,
    budget: float,
    at_least: int = 3,
    on_device: Collection[str] = (),
) -> dict[str, list[float]]:
    """Seconds of every call, made `runs` times, round by round, so that a noisy moment hits all alike.

    A short call is made twice in a row, and its second time counts, see `SHORT`; one `on_device` is repeated until the
    device has worked for a while, see `BUSY`, and the next time counts. A call that has used up `budget`
    seconds is left out of further rounds once it ran `at_least` times. Nothing is kept between runs: results are freed
    before the next call, as a program that goes through many volumes does.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            taken = times[name]
            if len(taken) >= at_least and sum(taken) > budget:
                continue
            # OpenMP's threads go on spinning for milliseconds after a peer's call; they are not to slow the next one.
            time.sleep(SETTLE)
            if name in on_device:
                busy = 0.0
                while busy < BUSY:
                    busy += _timed(call)
            seconds = _timed(call)
            if seconds <= SHORT and name not in on_device:
                # After a rest two threads may wake on one core, and share it until the system's next tick.
                seconds = _timed(call)
            taken.append(seconds)
    return times


def _timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    del result
    return seconds


def copying(n: int) -> Callable[[], None]:
    """A call that copies `n` bytes, in as many threads as there are cores: what memory can do at best."""
    import numpy as np

    source, target = np.ones(n, np.uint8), np.empty(n, np.uint8)
    workers = cores()
    ends = [n * k // workers for k in range(workers + 1)]
    pool = ThreadPoolExecutor(workers)

    def copy(k: int) -> None:
        np.copyto(target[ends[k] : ends[k + 1]], source[ends[k] : ends[k + 1]])

    return lambda: list(pool.map(copy, range(workers))).clear()


def memory() -> int:
    """Bytes of memory that the machine has; 0 if it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 0


def set_threads(n: int) -> None:
    """The same number of threads for every library that is loaded."""
    import SimpleITK as sitk

    import gpuresample

    gpuresample.set_num_threads(n)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n)
    for name in ("volresample", "torch"):
        if name in sys.modules:
            sys.modules[name].set_num_threads(n)


def child(*arguments: str, module: str, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run a module in a new process and return what it reports: the JSON of its last line."""
    return _reported(["-m", module, *arguments], environment)


def start_up(environment: Mapping[str, str] | None = None) -> dict[str, float]:
    """What `bench.start_up` reports from a new interpreter."""
    return _reported(["-P", str(Path(__file__).with_name("start_up.py")), str(ROOT)], environment)


def _reported(arguments: Sequence[str], environment: Mapping[str, str] | None) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def cpu_model() -> str:
    """The CPU's name."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def version(package: str) -> str:
    """The version of a distribution; nothing if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def load() -> float | None:
    """How many threads have been busy on this machine, over the last minute; None if it does not say."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def machine(threads: int) -> dict[str, Any]:
    """What was measured on, with what, when, and how busy it was already."""
    packages = (
        "gpuresample", "numpy", "numba", "SimpleITK", "scipy", "volresample", "torch", "monai", "torchio",
        "scikit-image", "nnunetv2", "nibabel", "affine-rs", "cupy",
    )  # fmt: skip
    return {
        "cpu": cpu_model(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in packages if (v := version(name))},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "load_before": load(),
    }


def folder_name(device: str, date: str) -> str:
    """A device and a date as the name of a folder."""
    return f"{re.sub('[^a-z0-9]+', '-', device.lower()).strip('-')}-{date}"


def about(info: Mapping[str, Any]) -> str:
    """A machine in one line."""
    versions = ", ".join(f"{name} {v}" for name, v in info["versions"].items())
    load = "" if info["load_before"] is None else f", load {info['load_before']} before"
    return (
        f"{info['cpu']}, {info['cores']} cores, {info['threads']} threads{load}; {info['system']}, "
        f"Python {info['python']}; {versions}"
    )


def save(path: str | None, kind: str, command: Sequence[str], content: Mapping[str, Any]) -> None:
    """Write a report as JSON, if a path was asked for."""
    if path is None:
        return
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    report = {"kind": kind, "command": " ".join(["python", "-m", f"benchmarks.{kind}", *command]), **content}
    target.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {path}")
