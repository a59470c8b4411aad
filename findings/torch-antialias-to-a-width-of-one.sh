#!/usr/bin/env bash
# torch 2.13.0: interpolate(mode="bilinear", antialias=True) of float32 pictures to a width of 1 gives every row the value of the first.
# In two calls, height first, rows differ as they should. No warning is given.
# A guess would be that two linear steps along two axes give what one call gives.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import torch
from torch.nn.functional import interpolate

torch.manual_seed(0)
pictures = torch.rand(2, 1, 13, 12)


def by_triangles(x, size):
    return interpolate(x, size=size, mode="bilinear", antialias=True)


one = by_triangles(pictures, (9, 1))[0, 0, :, 0]
in_steps = by_triangles(by_triangles(pictures, (9, 12)), (9, 1))[0, 0, :, 0]
print("torch", torch.__version__)
print("in one call:        ", [round(v, 3) for v in one.tolist()])
print("height, then width: ", [round(v, 3) for v in in_steps.tolist()])
assert len(set(one.tolist())) == 1
assert len(set(in_steps.tolist())) == 9
assert one[0] == in_steps[0]
PYTHON
