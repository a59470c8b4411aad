"""Many small volumes in one process, and the memory it has: `python soak_child.py VOLUMES SAMPLES [LEAK]`.

Every volume goes through `resample`, `gaussian` and `ensemble`. No two have the same spacing, so that caches of plans
and tables fill and drop; shapes, voxel types, interpolations and containers take turns. Prints JSON: `samples`, of
[volumes so far, resident bytes, threads, open files], taken `SAMPLES` times. `LEAK`: bytes lost with every volume, on
purpose. Linux only. For `test_soak.py`.
"""

import gc
import json
import os
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

import gpuresample as gr

SHAPES = [(12, 20, 24), (9, 33, 17), (16, 16, 16), (5, 40, 31), (20, 11, 27)]
DTYPES = ["int16", "float32", "uint8", "float64"]
INTERPOLATIONS = ["bspline", "linear", "nearest", "lanczos"]
TURNED = (0.96, -0.28, 0.0, 0.28, 0.96, 0.0, 0.0, 0.0, 1.0)


def run(number, rng):
    """One volume's three calls."""
    shape = SHAPES[number % len(SHAPES)]
    array = (100 * rng.random(shape)).astype(DTYPES[number % len(DTYPES)])
    spacing = tuple(float(s) for s in rng.uniform(0.7, 1.9, 3))
    interpolation = INTERPOLATIONS[number // 3 % len(INTERPOLATIONS)]
    kind = number // 7 % 4
    if kind == 0:
        gr.resample(array, spacing=spacing, interpolation=interpolation, device="cpu")
    elif kind == 1:
        image = sitk.GetImageFromArray(array)
        gr.resample(image, spacing=spacing, interpolation=interpolation, device="cpu")
    elif kind == 2:
        volume = gr.Volume(array, (1.0, 1.0, 1.2))
        gr.resample(volume, spacing=spacing, interpolation=interpolation, device="cpu")
    else:
        grid = gr.Grid(shape[::-1], spacing, (0.0, 0.0, 0.0), TURNED)
        gr.resample(gr.Volume(array, (1, 1, 1)), like=grid, interpolation="linear", device="cpu")
    gr.gaussian(array, sigma=float(rng.uniform(0.3, 2.5)), device="cpu")
    scores = rng.random((3, *(n // 2 + 1 for n in shape)), np.float32)
    gr.ensemble([scores, 1 - scores], size=shape, device="cpu")


def resident():
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main():
    volumes, samples = int(sys.argv[1]), int(sys.argv[2])
    leak = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    rng, kept, found = np.random.default_rng(0), [], []
    for number in range(volumes):
        run(number, rng)
        if leak:
            kept.append(bytes(bytearray(b"x") * leak))
        if (number + 1) % (volumes // samples) == 0:
            gc.collect()
            tasks, files = (len(os.listdir(f"/proc/self/{name}")) for name in ("task", "fd"))
            found.append([number + 1, resident(), tasks, files])
    sys.stdout.write(json.dumps({"samples": found}) + "\n")


if __name__ == "__main__":
    main()
