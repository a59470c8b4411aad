#!/usr/bin/env bash
# torch 2.13.0, CPU: the gradient of interpolate(mode="nearest", scale_factor=1.1) of a contiguous volume (N, C, D, H, W) is not that of its
# result. Of 5 voxels along an axis the result has voxels 0, 0, 1, 2, 3; the gradients of these go to voxels 0, 1, 2, 3, 4.
# A guess would be that autograd differentiates what was computed. It does for pictures (N, C, H, W).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate


def maps(memory_format, scale, dims):
    """Of a line of 5 voxels: which one each result is, by its values, and by its gradient."""
    shape = (1, 4, *[3] * (dims - 1), 5)
    line = torch.arange(5.0).expand(shape).contiguous(memory_format=memory_format).requires_grad_()
    factors = (*[1.0] * (dims - 1), scale)
    first = (0, 0, *[0] * (dims - 1))
    taken = interpolate(line, scale_factor=factors, mode="nearest")[first]
    by_gradient = []
    for k in range(len(taken)):
        (g,) = torch.autograd.grad(interpolate(line, scale_factor=factors, mode="nearest")[(*first, k)], line)
        by_gradient.append(int(g[first].argmax()))
    return [int(v) for v in taken], by_gradient


print("torch", torch.__version__)
seen = {}
for name, memory_format, dims in (
    ("volume, contiguous", torch.contiguous_format, 3),
    ("volume, channels_last_3d", torch.channels_last_3d, 3),
    ("picture, contiguous", torch.contiguous_format, 2),
):
    seen[name] = maps(memory_format, 1.1, dims)
    print(f"{name}: values of voxels {seen[name][0]}, gradients to voxels {seen[name][1]}")
assert seen["volume, contiguous"] == ([0, 0, 1, 2, 3], [0, 1, 2, 3, 4])
for name in ("volume, channels_last_3d", "picture, contiguous"):
    assert seen[name][0] == seen[name][1]
PYTHON
