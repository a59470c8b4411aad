#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4.7) reads a NIfTI file whose sform alone is valid (qform code 0): it takes origin and direction from the
# sform, and the spacing from pixdim. NIfTI's standard makes the sform's columns the steps between voxels ("method 3"), and
# pixdim no part of it. A guess would be the sform's spacing, as nibabel's affine has it. Voxels of 2 x 2 x 3 mm become 1 x 1 x 1;
# "unexpected scales in sform" on the error stream is all that is said.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 numpy==2.3.5 nibabel==5.4.2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import nibabel as nib
import numpy as np
import SimpleITK as sitk

image = nib.Nifti1Image(np.zeros((4, 5, 6), np.int16), None)
image.header.set_sform(np.diag([2.0, 2.0, 3.0, 1.0]), 2)
image.header["pixdim"][1:4] = 1
nib.save(image, "a.nii")
spacing = sitk.ReadImage("a.nii").GetSpacing()
of_nibabel = tuple(float(v) for v in np.linalg.norm(nib.load("a.nii").affine[:3, :3], axis=0))
print(f"SimpleITK {sitk.Version.VersionString()}, an sform of 2 x 2 x 3 mm with code 2, qform code 0, pixdim 1 x 1 x 1")
print("SimpleITK's spacing:", spacing)
print("the spacing of nibabel's affine:", of_nibabel)
assert of_nibabel == (2.0, 2.0, 3.0), of_nibabel
assert spacing == (1.0, 1.0, 1.0), spacing
PYTHON
