#!/usr/bin/env bash
# SimpleITK 2.5.7: CompositeTransform.GetNthTransform gives a deep copy of the member, displacement field included.
# A guess would be a reference, as ITK's C++ gives: looking at the members of a path would cost nothing. Every look costs
# the memory and the time of a copy of the whole field, and what is changed in the member is not changed in the composite.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 numpy==2.3.5
"$folder/venv/bin/python" - <<'PYTHON'
import resource

import numpy as np
import SimpleITK as sitk

shape = (128, 160, 160, 3)
field = sitk.GetImageFromArray(np.zeros(shape), isVector=True)
bytes_of_field = 8 * np.prod(shape)
composite = sitk.CompositeTransform([sitk.DisplacementFieldTransform(field), sitk.TranslationTransform(3, (1, 2, 3))])


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


before = peak()
members = [composite.GetNthTransform(0) for _ in range(6)]
grown = (peak() - before) / bytes_of_field
print(f"SimpleITK {sitk.Version.VersionString()}: six looks at a member of {bytes_of_field / 1e6:.0f} MB took {grown:.1f} times its bytes")
assert grown > 4.5, grown

composite.GetNthTransform(1).SetParameters((9, 9, 9))
print("the translation after SetParameters((9, 9, 9)) on the member:", composite.GetNthTransform(1).GetParameters())
assert composite.GetNthTransform(1).GetParameters() == (1.0, 2.0, 3.0)
PYTHON
