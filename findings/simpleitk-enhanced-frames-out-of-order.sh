#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4.7) reads an enhanced MR file whose frames are not stored in the order of their places: it leaves them as
# they are, and gives the volume a spacing of 1 x 1 x 1 mm, though the file has the pixel spacing and every frame's place.
# No error, no warning that says so. DICOM lets frames be in any order. A guess would be a sorted volume of 0.8 x 0.6 x 2.5 mm, as
# for a series of single files, or an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check SimpleITK==2.5.7 numpy==2.3.5 pydicom==3.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def saved(name, depths):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = EnhancedMRImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    data.Modality, data.PatientID, data.InstanceNumber = "MR", "none", 1
    data.NumberOfFrames, data.Rows, data.Columns = len(depths), 4, 6
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    # Every voxel is its frame's depth in tenths of a millimetre.
    data.PixelData = np.repeat(np.asarray(depths) * 10, 24).astype("<u2").tobytes()
    measures = item(PixelSpacing=[0.6, 0.8], SliceThickness=2.5)
    plane = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    data.SharedFunctionalGroupsSequence = Sequence(
        [item(PixelMeasuresSequence=Sequence([measures]), PlaneOrientationSequence=Sequence([plane]))]
    )
    data.PerFrameFunctionalGroupsSequence = Sequence(
        item(PlanePositionSequence=Sequence([item(ImagePositionPatient=[0, 0, depth])])) for depth in depths
    )
    data.save_as(name, enforce_file_format=True)
    image = sitk.ReadImage(name)
    return tuple(round(s, 6) for s in image.GetSpacing()), sitk.GetArrayFromImage(image)[:, 0, 0].tolist()


in_order = saved("a.dcm", [0, 2.5, 5, 7.5])
shuffled = saved("b.dcm", [0, 5, 2.5, 7.5])
print("SimpleITK", sitk.Version.VersionString())
print("frames in order:     spacing", in_order[0], "voxels", in_order[1])
print("frames out of order: spacing", shuffled[0], "voxels", shuffled[1])
assert in_order == ((0.8, 0.6, 2.5), [0, 25, 50, 75]), in_order
assert shuffled == ((1.0, 1.0, 1.0), [0, 50, 25, 75]), shuffled
PYTHON
