"""What a new process waits for its first result: `python -m benchmarks.first_calls`.

Interpreters are started in turns, ours and SimpleITK's, with kernels that were compiled before. Medians of the whole
process, from its start to its end; of a torch DataLoader that has one worker, from the worker's start to the first
sample. Both datasets read the volume by SimpleITK, and both resample it linearly. The parent has imported what they
use, and has called nothing, but for the last row: there it has resampled four voxels before the worker is forked.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

IMAGE = """
import numpy as np
import SimpleITK as sitk
image = sitk.GetImageFromArray(np.arange(64**3, dtype=np.int16).reshape(64, 64, 64))
"""
OURS = "import gpuresample as gr\ngr.resample(image, spacing=(1.2, 1.3, 1.4))\n"
THEIRS = """
sitk.Resample(
    image, [53, 49, 46], sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), (1.2, 1.3, 1.4), image.GetDirection(),
    0.0, image.GetPixelID(),
)
"""
FILE = """
import sys
import SimpleITK as sitk
image = sitk.ReadImage(sys.argv[1])
spacing = (1.5, 1.5, 2.0)
size = [round(n * old / new) for n, old, new in zip(image.GetSize(), image.GetSpacing(), spacing)]
made = sitk.Resample(
    image, size, sitk.Transform(), sitk.sitkBSpline, image.GetOrigin(), spacing, image.GetDirection(), 0.0,
    image.GetPixelID(),
)
sitk.WriteImage(made, sys.argv[2])
"""
# A file, for spawned workers import it.
LOADER = """
import sys, time
import SimpleITK as sitk
import torch
from torch.utils.data import DataLoader, Dataset
if sys.argv[1] == "ours":
    import gpuresample as gr

class Volumes(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, k):
        image = sitk.ReadImage(sys.argv[2])
        if sys.argv[1] == "ours":
            made = gr.resample(image, spacing=(1.2, 1.3, 1.4), interpolation="linear")
        else:
            made = sitk.Resample(
                image, [53, 49, 46], sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), (1.2, 1.3, 1.4),
                image.GetDirection(), 0.0, image.GetPixelID(),
            )
        return torch.from_numpy(sitk.GetArrayFromImage(made))

if __name__ == "__main__":
    how, warm = sys.argv[3].split("-")
    if warm == "warm" and sys.argv[1] == "ours":
        gr.resample(sitk.Image(2, 2, 1, sitk.sitkInt16), size=(2, 1, 1), interpolation="linear")
    loader = DataLoader(Volumes(), batch_size=None, num_workers=1, multiprocessing_context=how)
    start = time.perf_counter()
    sample = next(iter(loader))
    print(time.perf_counter() - start)
"""
LOADERS = ("spawn-cold", "fork-cold", "fork-warm")
JOBS = ("image", "array", "file", "import", *LOADERS)
JOB_NAMES = {
    "image": "first call, `SimpleITK.Image` of 64x64x64",
    "array": "first call, NumPy array of 64x64x64",
    "file": "`gpuresample resample` of a 256x256x60 .nii",
    "import": "the import alone",
    "spawn-cold": "first sample of a spawned worker, .nii of 64x64x64",
    "fork-cold": "first sample of a forked worker",
    "fork-warm": "the same, its parent has resampled before",
}


def commands(job: str, folder: Path) -> tuple[list[str], list[str]]:
    """Our command and SimpleITK's."""
    python = [sys.executable, "-c"]
    if job == "image":
        return [*python, IMAGE + OURS], [*python, IMAGE + THEIRS]
    if job == "array":
        array = "import numpy as np\nimage = np.arange(64**3, dtype=np.int16).reshape(64, 64, 64)\n"
        return [*python, array + OURS], [*python, IMAGE + THEIRS]
    if job == "import":
        return [*python, "import gpuresample"], [*python, "import SimpleITK"]
    if job in LOADERS:
        script, small = str(folder / "loader.py"), str(folder / "small.nii")
        return [sys.executable, script, "ours", small, job], [sys.executable, script, "theirs", small, job]
    source = str(folder / "in.nii")
    ours = ["resample", source, str(folder / "ours.nii"), "--spacing", "1.5", "1.5", "2", "--overwrite"]
    return [sys.executable, "-m", "gpuresample.cli", *ours], [*python, FILE, source, str(folder / "theirs.nii")]


def seconds(job: str, command: Sequence[str], folder: Path) -> float:
    """The whole of a process, or what a loader's process says."""
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    return float(done.stdout) if job in LOADERS else time.perf_counter() - start


def missing(job: str) -> str:
    """Why a job cannot be measured here; nothing where it can."""
    if job not in LOADERS:
        return ""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed here"
    how = job.partition("-")[0]
    return "" if how in multiprocessing.get_all_start_methods() else f"there is no {how} on this system"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_calls", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="processes of each kind (15)")
    rounds = parser.parse_args(arguments).rounds
    if rounds < 1:
        parser.error("--rounds must be at least 1")
    print(f"| a new process | gpuresample | SimpleITK {sitk.Version.VersionString()} | share |")
    print("| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        voxels = np.random.default_rng(0).integers(-1000, 2000, (60, 256, 256)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / "in.nii"))
        sitk.WriteImage(sitk.GetImageFromArray(voxels.ravel()[: 64**3].reshape(64, 64, 64)), str(folder / "small.nii"))
        (folder / "loader.py").write_text(LOADER)
        for job in JOBS:
            if reason := missing(job):
                print(f"| {JOB_NAMES[job]} | {reason} | | |")
                continue
            pair = commands(job, folder)
            # The first of each warms the system's cache of files, and compiles where that is due.
            taken = [[seconds(job, command, folder) for command in pair] for _ in range(rounds + 1)][1:]
            ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"| {JOB_NAMES[job]} | {ours:.3f} s | {theirs:.3f} s | {ours / theirs:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
