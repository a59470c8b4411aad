#!/usr/bin/env bash
# MONAI 1.6.1: Resize(anti_aliasing=True) and GaussianSmooth blur as if all were 0 around the image. A volume of 100 everywhere, halved, has
# 78 in its corners; smoothed by one voxel, 33. The docstring of Resize refers to scikit-image's resize, which keeps 100.
# A guess would be that a constant stays one, as in scikit-image and in SciPy's gaussian_filter.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check monai==1.6.1 torch==2.13.0 scikit-image==0.26.0 scipy==1.17.1 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" -W ignore - <<'PYTHON'
import monai
import numpy as np
import scipy.ndimage
import skimage.transform
from monai.transforms import GaussianSmooth, Resize

full = np.full((1, 32, 32, 32), 100, np.float32)
half = (16, 16, 16)
lowest = {
    "Resize to half": float(Resize(half, mode="trilinear", anti_aliasing=True)(full).min()),
    "the same without anti_aliasing": float(Resize(half, mode="trilinear")(full).min()),
    "scikit-image's resize, anti_aliasing=True": float(skimage.transform.resize(full[0], half, anti_aliasing=True).min()),
    "GaussianSmooth(1.0)": float(GaussianSmooth(1.0)(full).min()),
    "SciPy's gaussian_filter": float(scipy.ndimage.gaussian_filter(full[0], 1.0).min()),
}
print(f"MONAI {monai.__version__}: the lowest voxel, of a volume of 100 everywhere")
for name, value in lowest.items():
    print(f"{name}: {value:.1f}")
assert abs(lowest["Resize to half"] - 77.9) < 0.1 and abs(lowest["GaussianSmooth(1.0)"] - 33.1) < 0.1, lowest
for name in ("the same without anti_aliasing", "scikit-image's resize, anti_aliasing=True", "SciPy's gaussian_filter"):
    assert abs(lowest[name] - 100) < 1e-3, name
PYTHON
