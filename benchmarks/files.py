"""File to file: reading, writing, the whole command, a batch, against SimpleITK and against another checkout.

    python -m benchmarks.files [--against FOLDER] [--rounds N] [--volumes N] [--only PART ...] [--json FILE]

The volume is the synthetic CT of 512 x 512 x 247 voxels, as SimpleITK writes it to .nii.gz. Sides take turns, round by
round; the table has medians. Peak memory is that of the whole process. "damaged" changes a few bytes of packed streams:
each must be refused, or give the voxels of the whole file. Exit code 1 if one does not, or if another program does not
open what was written.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from gpuresample.bench.phantom import REFERENCE_NEW_SPACING, REFERENCE_SIZE, phantom
from gpuresample.engines.threads import cores
from gpuresample.files import volumes as files

HERE = Path(__file__).resolve().parents[1]
PARTS = ("read", "write", "command", "batch", "opened", "damaged")
WORKERS = 2
MUTATIONS = 600
# The batch by SimpleITK's calls alone.
POOL = """
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import SimpleITK as sitk

def one(pair):
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    image = sitk.ReadImage(pair[0])
    spacing = [float(x) for x in sys.argv[3:6]]
    size = [max(1, round(n * h / s)) for n, h, s in zip(image.GetSize(), image.GetSpacing(), spacing)]
    moved = sitk.Resample(image, size, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), spacing,
                          image.GetDirection())
    sitk.WriteImage(moved, pair[1])

if __name__ == "__main__":
    names = sorted(Path(sys.argv[1]).iterdir())
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(one, [(str(p), str(Path(sys.argv[2]) / p.name)) for p in names]))
"""


def in_turns(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median seconds of each call."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            spent[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in spent.items()}


# Between the two processes: the peak of a child begins with the memory of its parent.
_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(done)
"""


def process(checkout: Path, arguments: Sequence[str | Path]) -> int:
    """Run Python with a checkout's package; answers the peak of its memory, in kB."""
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, sys.executable, *map(str, arguments)], cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: {done.stderr[-2000:]}")
    return int(done.stdout)


def reading(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds to read each format that is packed, and what SimpleITK takes."""
    image, out = sitk.ReadImage(str(folder / "ct.nii.gz")), dict[str, float]()
    for ending in (".nii.gz", ".nrrd", ".mha"):
        path = folder / f"ct{ending}"
        if not path.exists():
            sitk.WriteImage(image, str(path), True)
        calls = {"SimpleITK": partial(sitk.ReadImage, str(path)), "gpuresample": partial(files.read, path)}
        out |= {f"{ending}, {who}": value for who, value in in_turns(calls, rounds).items()}
    return out


def writing(folder: Path, rounds: int) -> dict[str, float]:
    """Seconds to write, and bytes of the files."""
    image, out = sitk.ReadImage(str(folder / "ct.nii.gz")), {}
    for ending, level in ((".nii.gz", None), (".nii.gz", 1), (".nii.gz", 6), (".nrrd", 3), (".mha", 3)):
        itks, ours = folder / f"itks{ending}", folder / f"ours{ending}"
        calls = {
            "SimpleITK": partial(sitk.WriteImage, image, str(itks), True),
            "gpuresample": partial(files.write, image, ours, True, level),
        }
        for who, value in in_turns(calls, rounds).items():
            out[f"{ending}, {who}{'' if level is None or who != 'gpuresample' else f', level {level}'}"] = value
        out[f"{ending}, size, level {level}"] = ours.stat().st_size / itks.stat().st_size
    return out


def command(folder: Path, sides: dict[str, Path], rounds: int) -> dict[str, float]:
    """Seconds of the whole command, and its peak of memory in MB."""
    peaks: dict[str, int] = {}

    def run(who: str, checkout: Path) -> None:
        target = folder / "command.nii.gz"
        target.unlink(missing_ok=True)
        line: list[str | Path] = [
            "-m",
            "gpuresample.cli",
            "resample",
            folder / "ct.nii.gz",
            target,
            "--spacing",
            *_spacing(),
        ]
        peaks[who] = process(checkout, line)

    calls = {who: partial(run, who, checkout) for who, checkout in sides.items()}
    in_turns(calls, 1)  # what is compiled once
    times = in_turns(calls, rounds)
    return times | {f"{who}, peak MB": peak / 1e3 for who, peak in peaks.items()}


def batch(folder: Path, sides: dict[str, Path], count: int) -> dict[str, float]:
    """Volumes per minute of a batch with two workers, and of SimpleITK's calls in a pool of two processes."""
    source = folder / "cohort"
    source.mkdir(exist_ok=True)
    for k in range(count):
        if not (source / f"{k:03}.nii.gz").exists():
            os.link(folder / "ct.nii.gz", source / f"{k:03}.nii.gz")
    (folder / "pool.py").write_text(POOL)
    rates = {}
    for who, checkout in {**sides, "SimpleITK": HERE}.items():
        target = folder / "results"
        shutil.rmtree(target, ignore_errors=True)
        line: list[str | Path] = ["-m", "gpuresample.cli", "batch", source, target, "--spacing", *_spacing()]
        if who == "SimpleITK":
            target.mkdir()
            line = [folder / "pool.py", source, target, *_spacing()]
        else:
            line += ["--workers", str(WORKERS)]
        start = time.perf_counter()
        process(checkout, line)
        rates[who] = 60 * count / (time.perf_counter() - start)
        made = len([p for p in target.rglob("*.nii.gz") if not p.name.startswith(".")])
        assert made == count, f"{who}: {made} of {count} results"
    return rates


def opened(folder: Path) -> list[str]:
    """Programs that do not read what we have written as we do."""
    wanted, wrong = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "ct.nii.gz"))), []
    image = sitk.ReadImage(str(folder / "ct.nii.gz"))
    for ending, level in ((".nii.gz", None), (".nii.gz", 6), (".nrrd", 2), (".mha", 2)):
        path = folder / f"opened{ending}"
        files.write(image, path, True, level)
        if not (sitk.GetArrayFromImage(sitk.ReadImage(str(path))) == wanted).all():
            wrong.append(f"SimpleITK, {ending}")
        if ending == ".nii.gz":
            import nibabel

            if not (wanted == np.asarray(nibabel.load(path).dataobj).T).all():
                wrong.append("nibabel")
            if shutil.which("gzip") and subprocess.run(["gzip", "-t", path], check=False).returncode:
                wrong.append("gzip -t")
    return wrong


def damaged(folder: Path, count: int) -> dict[str, int]:
    """How many of so many damaged streams were refused, read as if whole, and read wrongly."""
    random = np.random.default_rng(27)
    image = sitk.ReadImage(str(folder / "ct.nii.gz"))[200:260, 200:250, 100:140]
    wanted, found = sitk.GetArrayFromImage(image), {"refused": 0, "whole": 0, "wrong": 0}
    for k in range(count):
        ending = (".nii.gz", ".nrrd", ".mha")[k % 3]
        path = folder / f"damaged{ending}"
        files.write(image, path, True, (None, 1, 6)[k // 3 % 3] if ending == ".nii.gz" else 1 + k // 3 % 6)
        content = bytearray(path.read_bytes())
        # The stream alone: a header of text that says something else is another header.
        mark = {".nrrd": b"\n\n", ".mha": b"LOCAL\n"}.get(ending, b"")
        first = content.index(mark) + len(mark)
        at = int(random.integers(first, len(content)))
        match random.integers(0, 4):
            case 0:
                content[at] ^= 1 << int(random.integers(0, 8))
            case 1:
                del content[at:]
            case 2:
                content[at : at + 16] = random.bytes(16)
            case _:
                del content[at : at + int(random.integers(1, 9))]
        path.write_bytes(content)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                got = sitk.GetArrayFromImage(files.read(path))
        except OSError:
            found["refused"] += 1
            continue
        found["whole" if got.shape == wanted.shape and (got == wanted).all() else "wrong"] += 1
    return found


def _spacing() -> list[str]:
    return [f"{h:g}" for h in REFERENCE_NEW_SPACING]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, answer the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout, for the command and the batch")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--volumes", type=int, default=24, help="of the batch")
    parser.add_argument("--size", type=int, nargs=3, default=REFERENCE_SIZE)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--keep", type=Path, help="a folder to work in, which stays")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    sides = {"gpuresample": HERE} | ({} if options.against is None else {"before": options.against.resolve()})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) if options.keep is None else options.keep
        if not (folder / "ct.nii.gz").exists():
            sitk.WriteImage(phantom(options.size), str(folder / "ct.nii.gz"))
        work: dict[str, Callable[[], Any]] = {
            "read": lambda: reading(folder, options.rounds),
            "write": lambda: writing(folder, options.rounds),
            "command": lambda: command(folder, sides, options.rounds),
            "batch": lambda: batch(folder, sides, options.volumes),
            "opened": lambda: opened(folder),
            "damaged": lambda: damaged(folder, MUTATIONS),
        }
        print(f"{' x '.join(map(str, options.size))} int16, {cores()} cores")
        found: dict[str, Any] = {}
        for part in options.only:
            found[part] = work[part]()
            print(f"\n{part}")
            for name, value in found[part].items() if isinstance(found[part], dict) else [("wrong", found[part])]:
                print(f"  {name:40} {f'{value:.3f}' if isinstance(value, float) else value}", flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1))
    return int(bool(found.get("opened")) or found.get("damaged", {}).get("wrong", 0) > 0)


if __name__ == "__main__":
    sys.exit(main())
