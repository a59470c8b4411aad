#!/usr/bin/env bash
# nitransforms 25.1.0: DenseFieldTransform.map looks points up by their index when all of them lie on the field's lattice. A point one step
# before the field has index -1, which is the last sample: by a field that moves nothing it is taken to the other end. A point one step
# behind the field is an IndexError. Between lattice points, or with one such point in the same call, both stay where they are.
# apply onto a grid that begins one step earlier fills its first plane from the image's last one.
# A guess would be that a point outside stays where it is, whatever other points are asked for.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nitransforms==25.1.0 nibabel==5.4.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import nibabel as nib
import numpy as np
from nitransforms.nonlinear import DenseFieldTransform
from nitransforms.resampling import apply

still = DenseFieldTransform(nib.Nifti1Image(np.zeros((16, 14, 12, 3), np.float32), np.eye(4)))


def moved(*places):
    points = np.array([(x, 5.0, 5.0) for x in places])
    return [round(float(x), 3) for x in still.map(points)[:, 0]]


alone, between, together = moved(-1.0), moved(-1.25), moved(-1.0, 16.0, 7.5)
try:
    behind = f"{moved(16.0)}"
except IndexError as error:
    behind = f"IndexError: {error}"
print(f"nitransforms {version('nitransforms')}, a field of 16 x 14 x 12 samples at 1 mm that moves nothing; along x")
print(f"-1 goes to {alone[0]:g}; -1.25 to {between[0]:g}; -1, 16 and 7.5 in one call to {together}; 16: {behind}")
planes = np.broadcast_to(np.arange(1, 17, dtype=np.float32)[:, None, None], (16, 14, 12))
earlier = np.eye(4)
earlier[0, 3] = -1.0
grid = nib.Nifti1Image(np.zeros(planes.shape, np.float32), earlier)
onto = apply(still, nib.Nifti1Image(planes.copy(), np.eye(4)), reference=grid, order=1).get_fdata()[:, 5, 5].tolist()
print("planes 1 to 16, applied onto a grid that begins one step earlier:", [int(v) for v in onto])
assert onto == [16.0, *range(1, 16)], onto
assert alone == [15.0], alone
assert between == [-1.25], between
assert together == [-1.0, 16.0, 7.5], together
assert behind.startswith("IndexError"), behind
PYTHON
