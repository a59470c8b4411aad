#!/usr/bin/env bash
# antspyx 0.6.3: apply_transforms with the list [affine.mat, warp] and nothing else inverts the matrix. The list [affine.mat], and the
# list [warp, affine.mat], do not. The command antsApplyTransforms never inverts without a 1: -t [affine.mat,1].
# A guess would be that a transform means the same wherever it stands in a list, and that the lists mean what the command's -t mean.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check antspyx==0.6.3
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import ants
import numpy as np

voxels = np.zeros((20, 20, 20), np.float32)
voxels[10, 10, 10] = 1
image = ants.from_numpy(voxels)
move = ants.create_ants_transform(transform_type="AffineTransform", dimension=3, translation=(3.0, 0.0, 0.0))
ants.write_transform(move, "affine.mat")
still = ants.from_numpy(np.zeros((20, 20, 20, 3), np.float32), has_components=True)
ants.image_write(still, "warp.nii.gz")

moved = {}
for chain in (["affine.mat"], ["warp.nii.gz", "affine.mat"], ["affine.mat", "warp.nii.gz"]):
    out = ants.apply_transforms(image, image, chain).numpy()
    moved[" ".join(chain)] = int(np.argmax(out.max(axis=(1, 2)))) - 10
print(f"antspyx {version('antspyx')}: a warp that moves nothing, a shift; voxels that the image moves along x: {moved}")
assert moved == {"affine.mat": -3, "warp.nii.gz affine.mat": -3, "affine.mat warp.nii.gz": 3}, moved
PYTHON
