"""A drawn patch of a large file, by `region=`, against loading the whole: bytes read, peak memory, time.

    python -m benchmarks.patches [--folder DIR] [--voxels N N N] [--patch N] [--rounds N]

An int16 volume of about 1 GB is written as .nii and as zarr (chunks of 64, uncompressed) unless the folder has it. Each
way runs in a process of its own: a patch of 96^3 voxels, turned by some degrees about the volume's centre, windowed and
stored as float16. Bytes are those that the process asked the system for and the pages of mapped files that it touched
(`/proc/self/io` rchar, and how much of the map is resident); peak memory is how much the resident set grew.
Files are in the system's cache if the machine has room: times are those of memory, not of a disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import gpuresample as gr
from gpuresample.bench import measure
from gpuresample.bench.memory import memory_now

# As a NIfTI header has it, in float32.
SPACING = (float(np.float32(0.7)), float(np.float32(0.7)), 1.0)
WAYS = ("nii, region=", "nii, loaded", "zarr, region=", "zarr, loaded")


def write(folder: Path, shape: tuple[int, ...]) -> None:
    """The volume as .nii and as zarr, plane by plane: a wave and noise."""
    import SimpleITK as sitk
    import zarr

    nii, store = folder / "volume.nii", folder / "volume.zarr"
    if nii.exists() and store.exists():
        return
    small = sitk.Image([int(n) for n in shape[:0:-1]] + [1], sitk.sitkInt16)
    small.SetSpacing(SPACING)
    sitk.WriteImage(small, str(nii))
    head = bytearray(nii.read_bytes()[:352])
    head[46:48] = np.int16(shape[0]).tobytes()
    made = zarr.create_array(store, shape=shape, chunks=(64,) * 3, dtype="i2", compressors=None)
    rng = np.random.default_rng(0)
    wave = 400 * np.sin(np.linspace(0, 9, shape[1]))[:, None] * np.cos(np.linspace(0, 9, shape[2]))
    with open(nii, "wb") as file:
        file.write(head)
        for z in range(0, shape[0], 64):
            planes = rng.normal(wave + z, 30, (min(64, shape[0] - z), *shape[1:])).astype(np.int16)
            file.write(planes.tobytes())
            made[z : z + len(planes)] = planes


def asked(size: tuple[int, ...], patch: int) -> dict[str, Any]:
    """The keywords of the patch, x, y, z."""
    c, s = np.cos(0.2), np.sin(0.2)
    middle = np.array(SPACING) * (np.array(size) - 1) / 2
    region = [slice(n // 2 - patch // 2, n // 2 - patch // 2 + patch) for n in size]
    return {
        "transform": gr.Affine([[c, -s, 0], [s, c, 0], [0, 0, 1]], center=middle), "interpolation": "linear",
        "clip": (-1000, 1000), "scale": 1 / 2000, "offset": 0.5, "dtype": "float16", "region": region,
    }  # fmt: skip


def patch_of(way: str, folder: Path, patch: int) -> Any:
    """One patch, from the file to float16, and the volume that it is of."""
    import SimpleITK as sitk

    if way == "nii, region=":
        volume = gr.open_nifti(folder / "volume.nii")
    elif way == "nii, loaded":
        image = sitk.ReadImage(str(folder / "volume.nii"))
        volume = gr.Volume(sitk.GetArrayViewFromImage(image), image.GetSpacing())
    else:
        import zarr

        array = zarr.open_array(folder / "volume.zarr", mode="r")
        volume = gr.Volume(array if way == "zarr, region=" else array[:], SPACING)
    keywords = asked(volume.size, patch)
    return gr.resample(volume, device="cpu", **keywords).array, volume


def measured(way: str, folder: Path, patch: int, rounds: int) -> dict[str, float]:
    """Run in a process of its own: libraries are imported and kernels loaded first, by a small volume."""
    import SimpleITK  # noqa: F401
    import zarr  # noqa: F401

    gr.open_nifti(folder / "volume.nii")
    small = np.zeros((8, 8, 8), np.int16)
    keywords = asked((8, 8, 8), 4)
    gr.resample(gr.Volume(small, SPACING), device="cpu", **keywords)

    def rchar() -> int:
        return int(Path("/proc/self/io").read_text().split()[1])

    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before, pages, resident = rchar(), memory_now("RssFile"), memory_now("VmRSS")
    made, volume = patch_of(way, folder, patch)
    read = rchar() - before + (max(0, memory_now("RssFile") - pages) if way == "nii, region=" else 0)
    grown = memory_now("VmHWM") - resident
    del volume
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        patch_of(way, folder, patch)
        times.append(time.perf_counter() - start)
    return {"read": read, "peak": grown, "seconds": statistics.median(times), "sum": float(made.astype("f8").sum())}


def main() -> None:
    """The table, or one way's figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--voxels", type=int, nargs=3, default=(1000, 732, 732), help="z, y, x")
    parser.add_argument("--patch", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help="this one alone, as JSON")
    given = parser.parse_args()
    if given.way is not None:
        print(json.dumps(measured(given.way, given.folder, given.patch, given.rounds)))
        return
    with tempfile.TemporaryDirectory() as made:
        folder = given.folder or Path(made)
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, tuple(given.voxels))
        size = (folder / "volume.nii").stat().st_size
        print(measure.about(measure.machine(gr.get_num_threads())))
        print(f"int16, {size / 1e6:,.0f} MB; a patch of {given.patch}^3, turned; medians of {given.rounds}\n")
        print("| way | MB read | peak MB | ms |\n| --- | ---: | ---: | ---: |")
        sums = []
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.patches", "--way", way, "--folder", str(folder)]
            command += ["--patch", str(given.patch), "--rounds", str(given.rounds)]
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            sums.append(row["sum"])
            print(
                f"| {way} | {row['read'] / 1e6:,.1f} | {row['peak'] / 1e6:,.0f} | {row['seconds'] * 1e3:,.0f} |",
                flush=True,
            )
        assert len(set(sums)) == 1, sums


if __name__ == "__main__":
    main()
