"""What a new process waits for its first result: `python -m benchmarks.first_calls`.

Interpreters are started in turns, ours and SimpleITK's, with kernels that were compiled before. Medians of the whole
process, from its start to its end.
"""

from __future__ import annotations

import argparse
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
JOBS = ("image", "array", "file", "import")
JOB_NAMES = {
    "image": "first call, `SimpleITK.Image` of 64x64x64",
    "array": "first call, NumPy array of 64x64x64",
    "file": "`gpuresample resample` of a 256x256x60 .nii",
    "import": "the import alone",
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
    source = str(folder / "in.nii")
    ours = ["resample", source, str(folder / "ours.nii"), "--spacing", "1.5", "1.5", "2", "--overwrite"]
    return [sys.executable, "-m", "gpuresample.cli", *ours], [*python, FILE, source, str(folder / "theirs.nii")]


def seconds(command: Sequence[str], folder: Path) -> float:
    """The whole of a process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    return time.perf_counter() - start


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
        for job in JOBS:
            pair = commands(job, folder)
            # The first of each warms the system's cache of files, and compiles where that is due.
            taken = [[seconds(command, folder) for command in pair] for _ in range(rounds + 1)][1:]
            ours, theirs = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"| {JOB_NAMES[job]} | {ours:.3f} s | {theirs:.3f} s | {ours / theirs:.2f} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
