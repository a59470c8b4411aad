#!/usr/bin/env bash
# nitransforms 25.1.0: an affine that is written as FreeSurfer's LTA has the matrix from the moving image to the reference, and "src volume
# info" is the reference, "dst volume info" the moving image. In an LTA the matrix goes from src to dst. nitransforms reads its own file
# back as it was, for it does not look at the two volumes; a reader that goes by their names inverts the transform.
# A guess would be that src is what the matrix starts from, here the moving image.
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
from nitransforms.linear import Affine

reference = nib.Nifti1Image(np.zeros((10, 11, 12), np.float32), np.eye(4))
moving = nib.Nifti1Image(np.zeros((20, 21, 22), np.float32), np.eye(4))
to_moving = np.eye(4)
to_moving[0, 3] = 5.0  # a point of the reference is 5 mm further right in the moving image
Affine(to_moving, reference=reference).to_filename("t.lta", fmt="fs", moving=moving)
lines = open("t.lta").read().splitlines()
shift = float(lines[lines.index("1 4 4") + 1].split()[3])
sizes = [line.split("=")[1].split() for line in lines if line.startswith("volume ")]
print(f"nitransforms {version('nitransforms')}: matrix in the file moves by {shift:+g}; src has size {sizes[0]}, dst {sizes[1]}")
assert shift == -5.0, shift  # from the moving image to the reference
assert sizes == [["10", "11", "12"], ["20", "21", "22"]], sizes  # src is the reference
PYTHON
