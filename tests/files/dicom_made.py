"""DICOM files of a few voxels, made with pydicom."""

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

CT = "1.2.840.10008.5.1.4.1.1.2"
MR = "1.2.840.10008.5.1.4.1.1.4"
PET = "1.2.840.10008.5.1.4.1.1.128"
ENHANCED_CT = "1.2.840.10008.5.1.4.1.1.2.1"
ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
RT_DOSE = "1.2.840.10008.5.1.4.1.1.481.2"
SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, 0, 0, -1)


def dataset(kind, voxels, series, syntax=ExplicitVRLittleEndian, number=1, **values):
    """One file's data; voxels are (y, x) or (frame, y, x), and `values` any attributes by their keywords."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = kind
    data.file_meta.MediaStorageSOPInstanceUID = generate_uid()[:60]
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID, data.SOPInstanceUID = kind, data.file_meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID, data.FrameOfReferenceUID = f"{series}.1", series, f"{series}.2"
    data.Modality = {PET: "PT", RT_DOSE: "RTDOSE", SEGMENTATION: "SEG", MR: "MR", ENHANCED_MR: "MR"}.get(kind, "CT")
    data.PatientID, data.InstanceNumber = "none", number
    voxels = np.asarray(voxels)
    data.Rows, data.Columns = voxels.shape[-2:]
    if voxels.ndim == 3:
        data.NumberOfFrames = voxels.shape[0]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    bits = 8 * voxels.dtype.itemsize
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(voxels.dtype.kind == "i")
    data.PixelData = voxels.tobytes() + b"\0" * (voxels.nbytes % 2)
    for name, value in values.items():
        setattr(data, name, value)
    return data


def save(data, path):
    data.save_as(path, enforce_file_format=True)
    return path


def saved_slices(folder, slices, kind=CT, orientation=AXIAL, spacing=(0.8, 0.6), series=None, **values):
    """A folder with a file for each (position along the normal, voxels, attributes)."""
    folder.mkdir(exist_ok=True)
    series = series or generate_uid()[:60][:60]
    normal = np.cross(orientation[:3], orientation[3:])
    for number, (depth, voxels, own) in enumerate(slices, 1):
        at = {
            "ImagePositionPatient": [float(v) for v in np.round(np.asarray((-10.0, 5.0, 2.0)) + depth * normal, 6)],
            "ImageOrientationPatient": list(orientation),
            "PixelSpacing": list(spacing[::-1]),
        }
        save(dataset(kind, voxels, series, number=number, **at | values | own), folder / f"{number:03d}.dcm")
    return folder


def group(**values):
    """A data set that is the one item of a sequence."""
    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return Sequence([item])


def enhanced(voxels, depths, kind=ENHANCED_MR, orientation=AXIAL, slopes=None, syntax=ExplicitVRLittleEndian, **values):
    """An enhanced file's data, a frame for each depth along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    shared, frames = Dataset(), []
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.6, 0.8], SliceThickness=2.5)
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=list(orientation))
    for k, depth in enumerate(depths):
        frame = Dataset()
        place = [float(v) for v in np.round(np.asarray((-10.0, 5.0, 2.0)) + depth * normal, 6)]
        frame.PlanePositionSequence = group(ImagePositionPatient=place)
        if slopes is not None:
            slope, intercept = slopes[k]
            frame.PixelValueTransformationSequence = group(
                RescaleIntercept=intercept, RescaleSlope=slope, RescaleType="US"
            )
        frames.append(frame)
    return dataset(
        kind, voxels, generate_uid()[:60], syntax, SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames), **values,
    )  # fmt: skip


def dose(voxels, offsets, scaling=1e-3, orientation=AXIAL, syntax=ImplicitVRLittleEndian, **values):
    """An RT dose's data."""
    return dataset(
        RT_DOSE, voxels, generate_uid()[:60], syntax, ImagePositionPatient=[-10.0, 5.0, 2.0],
        ImageOrientationPatient=list(orientation), PixelSpacing=[0.6, 0.8],
        **{"GridFrameOffsetVector": [float(v) for v in offsets], "DoseGridScaling": scaling, "DoseUnits": "GY",
           "DoseType": "PHYSICAL", "DoseSummationType": "PLAN", "FrameIncrementPointer": 0x3004000C} | values,
    )  # fmt: skip


def segmentation(labels, step, told=True, order=1, also=None, **values):
    """A BINARY segmentation's data: a frame for each label of each slice that has it, slices backwards by order=-1.

    `told`: whether the distance of slices is, or what else is told. `also`: a label that takes voxels of label 1, too.
    """
    shared, frames, bits = Dataset(), [], []
    shared.PixelMeasuresSequence = group(PixelSpacing=[0.6, 0.8], SliceThickness=step)
    if told:
        shared.PixelMeasuresSequence[0].SpacingBetweenSlices = step if told is True else told
    shared.PlaneOrientationSequence = group(ImageOrientationPatient=list(AXIAL))
    for segment in np.unique(labels[labels > 0]):
        for k in range(len(labels))[::order]:
            inside = labels[k] == segment if segment != also else (labels[k] == segment) | (labels[k] == 1)
            if not inside.any():
                continue
            frame = Dataset()
            frame.PlanePositionSequence = group(ImagePositionPatient=[-10.0, 5.0, round(2.0 + k * step, 6)])
            frame.SegmentIdentificationSequence = group(ReferencedSegmentNumber=int(segment))
            frames.append(frame)
            bits.append(inside)
    groups = {
        "SharedFunctionalGroupsSequence": Sequence([shared]), "PerFrameFunctionalGroupsSequence": Sequence(frames),
        "SegmentationType": "BINARY",
    }  # fmt: skip
    made = dataset(SEGMENTATION, np.asarray(bits, np.uint8), generate_uid()[:60], **groups | values)
    packed = np.packbits(np.asarray(bits), bitorder="little").tobytes()
    made.PixelData = packed + b"\0" * (len(packed) % 2)
    made.BitsAllocated, made.BitsStored, made.HighBit = 1, 1, 0
    return made
