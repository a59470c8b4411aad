"""A cohort, killed twice and continued, against the single command bit for bit.

    GPURESAMPLE_DATA=folder python -m benchmarks.cohort [--volumes N] [--workers N] [--keep FOLDER] [--json FILE]

Volumes are boxes cut from real ones, each at a place and of a size of its own. `gpuresample batch` is killed (SIGKILL,
the client) when a quarter and again when a half of the results are there, and continued. Then each result is compared
with what the single command's function writes, byte for byte. Exit code 1 if anything differs or is missing.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import real
from gpuresample.bench import measure, tables
from gpuresample.engines.threads import cores
from gpuresample.files.job import Settings, run

SPACING = (1.0, 1.0, 2.0)
# Nothing that SimpleITK reads with other axes than x, y, z.
SOURCES = (
    "MNI152_2009_template.nii.gz",
    "shear.nii.gz",
    "FLAIR.nii.gz",
    "torsoLabel.nii.gz",
    "RAS.nii.gz",
    "PIR.nii.gz",
)
LONGEST = 96  # voxels along an axis


@dataclass
class Run:
    """One start of the command.

    Attributes
    ----------
    ended : str
        "killed" or the exit code.
    before, after : int
        Results that were there at its beginning and at its end.
    partial : int
        Half-written files at its end.
    counts : dict
        What it said: "done", "as before", "failed".
    seconds : float
    """

    ended: str
    before: int
    after: int
    partial: int
    counts: dict[str, int]
    seconds: float


def make(data: Path, root: Path, count: int) -> list[str]:
    """Boxes cut from the volumes in `data`, in a folder of `root` for each; returns their names."""
    import SimpleITK as sitk

    random = np.random.default_rng(20)
    images = {name: sitk.ReadImage(str(data / name)) for name in SOURCES}
    names = []
    for k in range(count):
        source = SOURCES[k % len(SOURCES)]
        size = [int(random.integers(min(n, LONGEST) // 2, min(n, LONGEST) + 1)) for n in images[source].GetSize()]
        start = [int(random.integers(0, n - m + 1)) for n, m in zip(images[source].GetSize(), size, strict=True)]
        name = f"{source.split('.')[0]}/{k:03}.nii.gz"
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.RegionOfInterest(images[source], size, start), str(root / name))
        names.append(name)
    return names


def results(out: Path) -> tuple[int, int]:
    """How many results are there, and how many half-written files."""
    names = [p.name for p in out.rglob("*.nii.gz")]
    partial = sum(name.startswith(".") for name in names)
    return len(names) - partial, partial


def start(source: Path, out: Path, workers: int, kill_at: int | None) -> Run:
    """The command, killed when so many results are there."""
    spacing = [f"{s:g}" for s in SPACING]
    command = [sys.executable, "-m", "gpuresample.cli", "batch", str(source), str(out), "--spacing", *spacing]
    before, begin = results(out)[0], time.perf_counter()
    process = subprocess.Popen(
        [*command, "--workers", str(workers)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )  # fmt: skip
    while kill_at is not None and process.poll() is None and results(out)[0] < kill_at:
        time.sleep(0.02)
    if kill_at is not None:
        process.kill()
    text, said = process.communicate()
    seconds = time.perf_counter() - begin
    killed = process.returncode == -signal.SIGKILL
    if killed:
        time.sleep(1.0)  # its workers notice and end
    elif process.returncode:
        print(said, file=sys.stderr)
    counts = {kind: int(n) for n, kind in re.findall(r"(\d+) (done|as before|failed|not done)", text)}
    return Run("killed" if killed else f"exit code {process.returncode}", before, *results(out), counts, seconds)


def compare(source: Path, out: Path, names: Sequence[str]) -> tuple[int, int, float]:
    """How many results are equal to the single command's, how many are not, and how long those took."""
    equal, spent = 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            alone = Path(folder, "alone.nii.gz")
            begin = time.perf_counter()
            run(source / name, alone, Settings(spacing=SPACING), overwrite=True)
            spent += time.perf_counter() - begin
            there = out / name
            equal += there.is_file() and there.read_bytes() == alone.read_bytes()
    return equal, len(names) - equal, spent


def main(argv: Sequence[str] | None = None) -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--volumes", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", metavar="FOLDER", help="where to leave volumes and results; removed unless given")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    data = real.data_folder()
    if data is None:
        print("needs real volumes: GPURESAMPLE_DATA names their folder", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(args.keep or scratch)
        source, out = root / "in", root / "out"
        if out.exists():
            print(f"{out} exists already", file=sys.stderr)
            return 2
        names = make(data, source, args.volumes)
        ends = (args.volumes // 4, args.volumes // 2, None)
        runs = [start(source, out, args.workers, end) for end in ends]
        equal, different, alone = compare(source, out, names)
        inputs = sum((source / name).stat().st_size for name in names)
    info = measure.machine(cores())
    _print(runs, args, inputs, equal, different, alone, info)
    content: dict[str, Any] = {
        "machine": info, "runs": [vars(r) for r in runs], "equal": equal, "different": different, "alone": alone,
    }  # fmt: skip
    measure.save(args.json, "cohort", sys.argv[1:] if argv is None else list(argv), content)
    killed = all(r.ended == "killed" for r in runs[:-1])
    return 0 if killed and runs[-1].ended == "exit code 0" and not different and not runs[-1].partial else 1


def _print(
    runs: Sequence[Run], args: argparse.Namespace, inputs: int, equal: int, different: int, alone: float, info: Any
) -> None:
    rows = [
        [
            str(k), r.ended, str(r.before), str(r.after), str(r.counts.get("as before", "")),
            str(r.counts.get("done", "")), str(r.partial), tables.duration(r.seconds),
        ]
        for k, r in enumerate(runs, 1)
    ]  # fmt: skip
    spacing = " x ".join(f"{s:g}" for s in SPACING)
    tables.table(
        f"{args.volumes} volumes ({inputs / 1e6:.0f} MB) to {spacing} mm, {args.workers} workers",
        ["run", "ended", "results before", "after", "as before", "done", "half-written", "time"],
        rows,
        measure.about(info),
    )
    print(f"equal to the single command's, bit for bit: {equal} of {equal + different}")
    print(f"one after the other in one process, without start: {tables.duration(alone)}")


if __name__ == "__main__":
    sys.exit(main())
