#!/usr/bin/env bash
# antspyx 0.6.3: the step of a slice is dropped when an image is indexed. image[::2, :, :] has all planes, image[1:9:3, :, :] has those from
# 1 to 8, and image[::-1, :, :] is not turned. Starts and stops count, and move the origin.
# A guess would be every second plane with twice the spacing, as SimpleITK gives, or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check antspyx==0.6.3 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import ants
import numpy as np

voxels = np.broadcast_to(np.arange(10, dtype=np.float32)[:, None, None], (10, 5, 6)).copy()
image = ants.from_numpy(voxels, spacing=(2.0, 1.0, 1.0))
seen = {}
for name, part in {"::2": np.s_[::2, :, :], "1:9:3": np.s_[1:9:3, :, :], "::-1": np.s_[::-1, :, :]}.items():
    cut = image[part]
    seen[name] = [int(v) for v in cut.numpy()[:, 0, 0]]
    print(f"antspyx {version('antspyx')}, image[{name}, :, :]: planes {seen[name]}, spacing {cut.spacing}, origin {cut.origin}")
    print(f"  numpy: {[int(v) for v in voxels[part][:, 0, 0]]}")
    assert cut.spacing == (2.0, 1.0, 1.0), cut.spacing
assert seen == {"::2": list(range(10)), "1:9:3": list(range(1, 9)), "::-1": list(range(10))}, seen
PYTHON
