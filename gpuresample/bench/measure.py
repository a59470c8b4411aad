"""How things are measured: interleaved runs, children of their own for start-up and memory, and what machine it was."""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from gpuresample.engines.pool import cores

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Times:
    """Seconds of every run."""

    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The middle run."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Fastest to slowest run, in percent of the median."""
        low, high = min(self.seconds) / self.median - 1, max(self.seconds) / self.median - 1
        return f"{100 * low:+.0f} / {100 * high:+.0f} %"


# Seconds of quiet before every run.
SETTLE = 0.05


def interleaved(
    calls: Mapping[str, Callable[[], Any]], runs: int, budget: float, at_least: int = 3
) -> dict[str, Times]:
    """Time every call `runs` times, round by round, so that a noisy moment hits all alike.

    A call that has used up `budget` seconds is left out of further rounds once it ran `at_least` times. Nothing is
    kept between runs: results are freed before the next call, as a program that goes through many volumes does.
    """
    times = {name: Times() for name in calls}
    for _ in range(runs):
        for name, call in calls.items():
            taken = times[name].seconds
            if len(taken) >= at_least and sum(taken) > budget:
                continue
            # OpenMP's threads go on spinning for milliseconds after a peer's call; they are not to slow the next one.
            time.sleep(SETTLE)
            start = time.perf_counter()
            result = call()
            taken.append(time.perf_counter() - start)
            del result
    return times


def set_threads(n: int) -> None:
    """The same number of threads for every library that is loaded."""
    import SimpleITK as sitk

    import gpuresample

    gpuresample.set_num_threads(n)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(n)
    for name in ("volresample", "torch"):
        if name in sys.modules:
            sys.modules[name].set_num_threads(n)


def child(
    *arguments: str, module: str = "gpuresample.bench.child", environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a module in a new process and return what it reports: the JSON of its last line."""
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(arguments)} failed:\n{done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def machine(threads: int) -> dict[str, Any]:
    """What was measured on, with what, when, and how busy it was already."""
    packages = ("gpuresample", "numpy", "numba", "SimpleITK", "volresample", "torch", "scipy")
    return {
        "cpu": _cpu_model(),
        "cores": cores(),
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: v for name in packages if (v := _version(name))},
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


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
