#!/usr/bin/env bash
# nibabel 5.4.2: resample_to_output puts the first plane of its result exactly on the image's corner voxels. Of an image whose axes run
# to the left and to the back (LPS), round-off takes that plane outside, where there is only cval: it is all 0. The same voxels
# with axes to the right and to the front (RAS) keep it.
# A guess would be that a grid which is made to cover an image lies on it, whichever way its axes run.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nibabel==5.4.2 scipy==1.17.1 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel as nib
import numpy as np
from nibabel.processing import resample_to_output

voxels = np.full((11, 9, 13), 100, np.float32)
lost = {}
for name, turn in {"RAS": (1, 1, 1), "LPS": (-1, -1, 1)}.items():
    affine = np.diag([1.1 * turn[0], 0.9 * turn[1], 1.7 * turn[2], 1.0])
    affine[:3, 3] = 12.3, -7.7, 5.1
    out = resample_to_output(nib.Nifti1Image(voxels, affine), (1.31, 1.37, 0.84), order=1)
    data = np.asarray(out.dataobj)
    lost[name] = [k for k in range(data.shape[1] - 1) if not data[:, k].any()]
    print(f"nibabel {nib.__version__}, {name}: shape {data.shape}, planes along y that are all 0: {lost[name]}")
assert lost == {"RAS": [], "LPS": [0]}, lost
PYTHON
