#!/usr/bin/env bash
# antspyx 0.6.3: ants.from_numpy turns arrays of int16, int32 and int64 into images of "unsigned int". Air in a CT, -1000, becomes
# 4294966296. No error, no warning. ants.image_read of the same voxels in a file gives floats with their sign. An array of floats is safe.
# A guess would be that a type which ANTs has not becomes one that holds its values, or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check antspyx==0.6.3 nibabel==5.4.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import ants
import nibabel as nib
import numpy as np

air = np.full((4, 5, 6), -1000, np.int16)
nib.save(nib.Nifti1Image(air, np.eye(4)), "air.nii")
made = {np.dtype(kind).name: ants.from_numpy(air.astype(kind)) for kind in (np.int16, np.int32, np.int64, np.float32)}
made["int16, from a file"] = ants.image_read("air.nii")
print(f"antspyx {version('antspyx')}, voxels of -1000:")
for name, image in made.items():
    print(f"{name}: {image.pixeltype}, {float(image.min()):.0f}")
for name in ("int16", "int32", "int64"):
    assert made[name].pixeltype == "unsigned int" and made[name].min() == 2**32 - 1000, name
for name in ("float32", "int16, from a file"):
    assert made[name].pixeltype == "float" and made[name].min() == -1000, name
PYTHON
