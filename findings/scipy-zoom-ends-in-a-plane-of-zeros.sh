#!/usr/bin/env bash
# SciPy 1.17.1: scipy.ndimage.zoom lays the last sample of the result on the last one of the array. For some sizes round-off takes it
# outside, where there is only cval, for mode="constant" is the default: the last plane is all 0. So it is for 100 samples by 0.75,
# 64 by 2.5 and 512 by 3, whatever the order, and not of 100 by 0.5. mode="nearest" keeps it.
# A guess would be that the ends, which zoom aligns, are the ends of the array, and that a constant stays one.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check scipy==1.17.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from scipy import ndimage

print(f"scipy {version('scipy')}: 100 everywhere; the last two samples after zoom")
for size, factor in ((100, 0.75), (64, 2.5), (512, 3)):
    for order in (1, 3):
        ends = ndimage.zoom(np.full(size, 100.0), factor, order=order)[-2:]
        kept = ndimage.zoom(np.full(size, 100.0), factor, order=order, mode="nearest")[-2:]
        print(f"{size} samples by {factor}, order {order}: {ends.round(3).tolist()}; mode='nearest': {kept.round(3).tolist()}")
        np.testing.assert_allclose(ends, (100, 0), atol=1e-6)
        np.testing.assert_allclose(kept, 100)
np.testing.assert_allclose(ndimage.zoom(np.full(100, 100.0), 0.5, order=1), 100)
cube = ndimage.zoom(np.full((64, 64, 64), 100.0), 2.5, order=1)
zeros = [int((cube == 0).sum()), 160**3 - 159**3]
print(f"a cube of 64 voxels a side by 2.5: {zeros[0]} voxels are 0, {zeros[1]} lie on the three last planes")
assert zeros[0] == zeros[1]
PYTHON
