#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4.7) reads a TIFF of 16-bit floats (SampleFormat 3, BitsPerSample 16) as 16-bit unsigned integers: it takes the bits
# of the floats for numbers. 1.0 becomes 15360, -1.0 becomes 48128. No error, no warning.
# A guess would be the floats, as tifffile reads them, or an error, as SimpleITK has for a TIFF of 64-bit floats.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 tifffile==2026.3.3 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK as sitk
import tifffile

values = [0.0, 0.5, 1.0, 2.0, 100.0, -1.0]
voxels = np.tile(np.array(values, np.float16), (8, 5, 1))
seen = {}
for kind in (np.float32, np.float16, np.float64):
    tifffile.imwrite("a.tif", voxels.astype(kind))
    assert tifffile.imread("a.tif").dtype == kind
    try:
        image = sitk.ReadImage("a.tif")
        seen[np.dtype(kind).name] = sitk.GetArrayFromImage(image)[0, 0].tolist()
        said = f"{image.GetPixelIDTypeAsString()}, {seen[np.dtype(kind).name]}"
    except RuntimeError as error:
        said = "an error: " + str(error).strip().splitlines()[-1].split(": ")[-1]
    print(f"SimpleITK {sitk.Version.VersionString()}, {np.dtype(kind).name} {values}: {said}")
assert seen == {"float32": values, "float16": np.array(values, np.float16).view(np.uint16).tolist()}, seen
PYTHON
