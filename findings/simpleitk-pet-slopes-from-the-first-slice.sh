#!/usr/bin/env bash
# SimpleITK 2.5.7 (ITK 5.4.7) reads a DICOM series whose slices have slopes of their own (PET, some MR) in the voxel type of the
# first slice. It applies each slice's slope, and wraps what the type does not hold: no error, no warning.
# A guess would be the type that holds all slices, as each file by itself is read. Stored 5000 with slopes 1, 10, 20 and 0.5
# should be 5000, 50000, 100000, 2500; it is 5000, -15536, -31072, 2500.
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
from pydicom.uid import ExplicitVRLittleEndian, PositronEmissionTomographyImageStorage, generate_uid

series, study, frame = (generate_uid() for _ in range(3))
slopes = (1, 10, 20, 0.5)
for number, slope in enumerate(slopes):
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = PositronEmissionTomographyImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
    data.Modality, data.PatientID, data.InstanceNumber = "PT", "none", number + 1
    data.ImagePositionPatient, data.ImageOrientationPatient = [0, 0, 2.5 * number], [1, 0, 0, 0, 1, 0]
    data.PixelSpacing, data.Rows, data.Columns = [1, 1], 4, 5
    data.SamplesPerPixel, data.PhotometricInterpretation, data.PixelRepresentation = 1, "MONOCHROME2", 1
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, 16, 15
    data.RescaleSlope, data.RescaleIntercept = slope, 0
    data.PixelData = np.full((4, 5), 5000, "<i2").tobytes()
    data.save_as(f"{number}.dcm", enforce_file_format=True)

names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(".")
image = sitk.ReadImage(names)
values = [int(v) for v in sitk.GetArrayFromImage(image)[:, 0, 0]]
alone = [float(sitk.GetArrayFromImage(sitk.ReadImage(name))[0, 0, 0]) for name in names]
print(f"SimpleITK {sitk.Version.VersionString()}: stored 5000, slopes {slopes}")
print("the series:", values, image.GetPixelIDTypeAsString())
print("each file by itself:", alone)
assert alone == [5000, 50000, 100000, 2500], alone
assert values == [5000, -15536, -31072, 2500], values
PYTHON
