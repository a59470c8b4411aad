#!/usr/bin/env bash
# SimpleITK 2.5.7: InverseDisplacementField of a field that moves across its slices, and has fewer than 32 of them, is wrong by many
# voxels. Its default subsamplingFactor is 16: it goes by every 16th sample of each axis, here by one plane, which says nothing about the
# third axis. 2 mm along z everywhere should become -2 mm everywhere; it grows along the slices, beyond -20 mm. With 32 slices all is
# right. No warning.
# A guess would be that a constant field is inverted exactly at any size; a coarse subsampling would cost detail, which there is none of.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK as sitk

print(f"SimpleITK {sitk.Version.VersionString()}, slices of 64 x 64 samples, 2 mm along z everywhere; the inverse's z at each 6th slice")


def inverse(slices, **asked):
    values = np.zeros((slices, 64, 64, 3))
    values[..., 2] = 2.0
    field = sitk.GetImageFromArray(values, isVector=True)
    found = sitk.GetArrayFromImage(sitk.InverseDisplacementField(field, size=field.GetSize(), **asked))[:, 32, 32, 2]
    print(f"{slices} slices {asked or ''}:", [round(float(v), 1) for v in found[::6]])
    return found


np.testing.assert_allclose(inverse(32), -2, atol=1e-3)
np.testing.assert_allclose(inverse(31, subsamplingFactor=8), -2, atol=1e-3)
few = inverse(31)
assert abs(few[0] + 0.4) < 0.1 and few[-1] < -20, few
PYTHON
