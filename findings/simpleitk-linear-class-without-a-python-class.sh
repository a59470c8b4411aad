#!/usr/bin/env bash
# SimpleITK 2.5.7 reads an ITK ComposeScaleSkewVersor3DTransform and resamples with it, but its Python has no class for it.
# ReadTransform fails with KeyError(10) on the file alone. In a composite it reads; GetNthTransform fails the same way. The base
# class's methods work: the matrix is TransformVector of the unit vectors, without any downcast.
# A guess would be that what ReadTransform cannot return cannot be used, or that a composite of it fails too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 numpy==2.3.5
cat >"$folder/alone.tfm" <<'TFM'
#Insight Transform File V1.0
#Transform 0
Transform: ComposeScaleSkewVersor3DTransform_double_3_3
Parameters: 0 0 0 1 2 3 2 3 4 0.5 0.25 0.125
FixedParameters: 0 0 0
TFM
cat >"$folder/inside.tfm" <<'TFM'
#Insight Transform File V1.0
#Transform 0
Transform: CompositeTransform_double_3_3
#Transform 1
Transform: ComposeScaleSkewVersor3DTransform_double_3_3
Parameters: 0 0 0 1 2 3 2 3 4 0.5 0.25 0.125
FixedParameters: 0 0 0
TFM
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK as sitk

print("SimpleITK", sitk.Version.VersionString())
try:
    sitk.ReadTransform("alone.tfm")
    raise SystemExit("alone.tfm was read: the behaviour has changed")
except KeyError as error:
    print("alone.tfm: KeyError", error)
inside = sitk.ReadTransform("inside.tfm")
print("inside.tfm:", inside.GetName(), "linear:", inside.IsLinear(), "(1, 1, 1) ->", inside.TransformPoint((1.0, 1.0, 1.0)))
matrix = np.array([inside.TransformVector(unit, (0.0, 0.0, 0.0)) for unit in np.eye(3).tolist()]).T
print("its matrix by TransformVector:\n", matrix)
# diag(scale) times the unit upper triangle of the skews.
assert np.array_equal(matrix, np.diag([2.0, 3.0, 4.0]) @ np.array([[1, 0.5, 0.25], [0, 1, 0.125], [0, 0, 1]]))
assert np.allclose(inside.TransformPoint((1.0, 1.0, 1.0)), matrix @ np.ones(3) + (1, 2, 3))
PYTHON
