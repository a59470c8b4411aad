#!/usr/bin/env bash
# MedPy 0.5.2: medpy.filter.image.resample puts the target spacing into the header, and samples at another: it lays the first and the
# last voxel of the result on those of the image. 16 voxels of 1.5 mm asked for at 3 mm become 8 that lie 3.21 mm apart and say 3 mm.
# The last one lies 1.5 mm beside where it says.
# A guess would be that voxels lie as far apart as was asked for and as the header says.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check MedPy==0.5.2 SimpleITK==2.5.7 scipy==1.17.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from medpy.filter.image import resample
from medpy.io import Header

voxels = np.broadcast_to(1.5 * np.arange(16.0)[:, None, None], (16, 5, 5))  # every voxel's value is its x in mm
header = Header(spacing=(1.5, 1.0, 1.0), offset=(0.0, 0.0, 0.0))
out, found = resample(voxels, header, (3.0, 1.0, 1.0), bspline_order=1)
steps = np.diff(out[:, 2, 2])
spacing, offset = found.get_voxel_spacing()[0], found.get_offset()[0]
named = offset + spacing * np.arange(len(out))
print(f"MedPy {version('MedPy')}: {len(out)} voxels; the header's spacing {spacing:g} mm, offset {offset:g};")
print(f"they were taken {steps.mean():.3f} mm apart; the last is from {out[-1, 2, 2]:g} mm and says {named[-1]:g} mm")
assert (spacing, offset) == (3.0, 0.0)
np.testing.assert_allclose(steps, 22.5 / 7, rtol=1e-6)
np.testing.assert_allclose(out[-1, 2, 2] - named[-1], 1.5, rtol=1e-6)
PYTHON
