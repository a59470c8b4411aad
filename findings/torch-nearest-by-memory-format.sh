#!/usr/bin/env bash
# torch 2.13.0: interpolate(mode="nearest", scale_factor=1.04) of 12 voxels gives 12 voxels. In a contiguous volume (N, C, D, H, W)
# every voxel but the first is that of its left neighbour. In the same volume as channels_last_3d with 4 channels, and in a picture
# (N, C, H, W), nothing moves.
# A guess would be that values do not depend on the memory format, and that the last axis of a volume goes as that of a picture.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

ramp = torch.arange(12.0)
volume = ramp.expand(1, 4, 3, 3, 12).contiguous()
picture = ramp.expand(1, 4, 3, 12).contiguous()
results = {
    "volume, contiguous": interpolate(volume, scale_factor=(1.0, 1.0, 1.04), mode="nearest")[0, 0, 0, 0],
    "volume, channels_last_3d": interpolate(
        volume.to(memory_format=torch.channels_last_3d), scale_factor=(1.0, 1.0, 1.04), mode="nearest"
    )[0, 0, 0, 0],
    "picture": interpolate(picture, scale_factor=(1.0, 1.04), mode="nearest")[0, 0, 0],
}
print("torch", torch.__version__)
for name, line in results.items():
    print(f"{name}: {[int(v) for v in line]}")
assert results["volume, contiguous"].tolist() == [0.0, *range(11)]
assert results["volume, channels_last_3d"].tolist() == ramp.tolist()
assert results["picture"].tolist() == ramp.tolist()
PYTHON
