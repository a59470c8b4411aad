#!/usr/bin/env bash
# VTK 9.7.2: vtkImageShrink3D gives the mean of each block of voxels (that is its default) and leaves the origin at the first voxel of the
# first block. A mean belongs to the block's middle, so the picture moves: by half a voxel of the input for factor 2, by 1.5 for 4.
# With MeanOff, where it takes the first voxel of each block, the places are right.
# A guess would be an origin in the middle of the first block, as in ITK's BinShrink.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check vtk==9.7.2 numpy==2.3.5
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkVersion
from vtkmodules.vtkCommonDataModel import vtkImageData
from vtkmodules.vtkImagingCore import vtkImageShrink3D

image = vtkImageData()
image.SetDimensions(16, 8, 8)
image.SetSpacing(1.5, 1.5, 1.5)
image.SetOrigin(10.0, 0.0, 0.0)
places = np.broadcast_to(10 + 1.5 * np.arange(16.0), (8, 8, 16))  # every voxel's value is its x
image.GetPointData().SetScalars(numpy_to_vtk(places.ravel(), deep=True))
wrong = {}
for factor in (2, 4):
    for mean in (True, False):
        shrink = vtkImageShrink3D()
        if not mean:
            shrink.MeanOff()
        shrink.SetShrinkFactors(factor, factor, factor)
        shrink.SetInputData(image)
        shrink.Update()
        out = shrink.GetOutput()
        values = vtk_to_numpy(out.GetPointData().GetScalars())[: out.GetDimensions()[0]]
        named = out.GetOrigin()[0] + out.GetSpacing()[0] * np.arange(len(values))
        wrong[factor, mean] = sorted({round(float(v), 3) for v in values - named})
        print(
            f"VTK {vtkVersion.GetVTKVersion()}, factor {factor}, {'default' if mean else 'MeanOff'}: origin {out.GetOrigin()[0]:g},"
            f" voxels lie {wrong[factor, mean]} mm beside where they say"
        )
assert wrong == {(2, True): [0.75], (2, False): [0.0], (4, True): [2.25], (4, False): [0.0]}, wrong
PYTHON
