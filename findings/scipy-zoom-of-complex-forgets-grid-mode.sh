#!/usr/bin/env bash
# SciPy 1.17.1: scipy.ndimage.zoom of a complex array with grid_mode=True gives what grid_mode=False gives. The keyword is not handed on to the
# real and the imaginary part, and nothing is said.
# A guess would be that a complex array is zoomed as its two parts are.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check scipy==1.17.1 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from scipy import ndimage

line = np.array([0.0, 1, 4, 9, 16, 25])
asked = {"order": 1, "mode": "nearest"}
parts = {grid: ndimage.zoom(line, 2, grid_mode=grid, **asked) for grid in (False, True)}
both = {grid: ndimage.zoom(line + 1j * line, 2, grid_mode=grid, **asked) for grid in (False, True)}
print(f"scipy {version('scipy')}: the second sample, real input: {parts[False][1]:.3f} without, {parts[True][1]:.3f} with grid_mode;")
print(f"complex input: {both[False][1]:.3f} without, {both[True][1]:.3f} with grid_mode")
assert not np.allclose(parts[False], parts[True])
np.testing.assert_allclose(both[False].real, parts[False])
np.testing.assert_array_equal(both[True], both[False])
PYTHON
