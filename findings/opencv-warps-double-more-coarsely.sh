#!/usr/bin/env bash
# OpenCV 5.0.0: linear warpAffine and remap of float32 pictures with 1, 3 or 4 channels read exactly where they are told to. Of float64, of
# int16, and of 2 or 5 channels of float32, they round the place to 1/32 pixel first: 0.26 becomes 0.25.
# A guess would be that float64 is at least as exact as float32, and that a channel's values do not depend on how many there are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check opencv-python-headless==5.0.0.93 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import cv2
import numpy as np

shift = np.float64([[1, 0, 0.26], [0, 1, 0]])
rows, columns = np.mgrid[:8, :64].astype(np.float32)
print(f"OpenCV {cv2.__version__}: a ramp of 1000 a pixel, read 0.26 pixels further right, minus the ramp")
seen = {}
for kind, channels in ((np.float32, 1), (np.float32, 3), (np.float32, 2), (np.float32, 5), (np.float64, 1), (np.int16, 1)):
    ramp = np.repeat((1000 * (columns % 32))[..., None], channels, axis=2).astype(kind)
    warped = cv2.warpAffine(ramp, shift, (64, 8), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    mapped = cv2.remap(ramp, columns + np.float32(0.26), rows, cv2.INTER_LINEAR)
    found = [round(float(out.reshape(ramp.shape)[4, 20, 0]) - float(ramp[4, 20, 0]), 1) for out in (warped, mapped)]
    seen[np.dtype(kind).name, channels] = found
    print(f"{np.dtype(kind).name}, channels {channels}: warpAffine {found[0]:g}, remap {found[1]:g}")
assert seen.pop(("float32", 1)) == [260.0, 260.0]
assert seen.pop(("float32", 3)) == [260.0, 260.0]
assert all(found == [250.0, 250.0] for found in seen.values()), seen
PYTHON
