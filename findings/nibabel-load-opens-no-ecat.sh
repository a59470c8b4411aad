#!/usr/bin/env bash
# nibabel 5.4.2: nibabel.load refuses ECAT files (PET, .v) with "Cannot work out file type". The package lists ECAT among its formats and has a
# class that reads them, nibabel.ecat.EcatImage, but that class is not among those that load tries.
# A guess would be that load opens whatever the package can read.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check nibabel==5.4.2 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from pathlib import Path

import nibabel
from nibabel.ecat import EcatImage
from nibabel.filebasedimages import ImageFileError

# An ECAT file of the package's own tests.
path = Path(nibabel.__file__).parent / "tests" / "data" / "tinypet.v"
image = EcatImage.load(path)
try:
    nibabel.load(path)
    said = "nothing"
except ImageFileError as error:
    said = str(error).replace(str(path.parent), "...")
print(f"nibabel {version('nibabel')}: EcatImage.load reads {image.shape}; nibabel.load says: {said}")
assert image.shape == (10, 10, 3, 1)
assert "Cannot work out file type" in said
assert EcatImage not in nibabel.all_image_classes
PYTHON
