"""DICOM: every pixel that pydicom reads is where its file says, with the value of its own slope; else a refusal."""

import itertools
import warnings

import dicom_made as made
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_made import AXIAL, CORONAL, ENHANCED_CT, MR, OBLIQUE, PET, RT_DOSE, SAGITTAL, save, saved_slices
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from gpuresample.files import elements
from gpuresample.files import volumes as files


def noise(shape, dtype=np.int16, seed=0, most=30000):
    return np.random.default_rng(seed).integers(0, most, shape).astype(dtype)


def frames(data):
    """Position and values of each frame by pydicom, the slope of the frame applied."""
    if data.SOPClassUID == RT_DOSE:
        normal = np.cross(data.ImageOrientationPatient[:3], data.ImageOrientationPatient[3:])
        for offset, frame in zip(data.GridFrameOffsetVector, data.pixel_array, strict=True):
            relative = offset if data.GridFrameOffsetVector[0] == 0 else (offset - data.GridFrameOffsetVector[0])
            yield np.asarray(data.ImagePositionPatient) + relative * normal, frame * float(data.DoseGridScaling)
    elif "PerFrameFunctionalGroupsSequence" in data:
        for group, frame in zip(data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True):
            values = group.get("PixelValueTransformationSequence", [None])[0]
            slope, intercept = (1, 0) if values is None else (values.RescaleSlope, values.RescaleIntercept)
            place = group.PlanePositionSequence[0].ImagePositionPatient
            yield np.asarray(place, float), frame * float(slope) + float(intercept)
    else:
        slope, intercept = data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)
        yield np.asarray(data.ImagePositionPatient, float), data.pixel_array * float(slope) + float(intercept)


def assert_placed(image, paths, across, spacing, rtol=0.0):
    """Every frame's first pixel is at its own place and the frame's rows run along the image's; values are equal."""
    voxels, found = sitk.GetArrayViewFromImage(image), set()
    for path in paths:
        for place, values in frames(pydicom.dcmread(path)):
            index = image.TransformPhysicalPointToContinuousIndex(place.tolist())
            np.testing.assert_allclose(index[:2], 0, atol=1e-5)
            number = round(index[2])
            np.testing.assert_allclose(index[2], number, atol=1e-3)
            np.testing.assert_allclose(voxels[number], values, rtol=rtol, atol=0)
            found.add(number)
    assert found == set(range(image.GetSize()[2]))
    axes = np.reshape(image.GetDirection(), (3, 3))
    np.testing.assert_allclose(axes[:, :2].T.ravel(), across, atol=1e-6)
    assert abs(np.linalg.det(axes)) == pytest.approx(1)
    np.testing.assert_allclose(image.GetSpacing(), spacing, rtol=1e-6)


def assert_header(path, image):
    header = files.header(path)
    assert (header.size, header.pixel_type) == (image.GetSize(), image.GetPixelIDTypeAsString())
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(header, name), getattr(image, f"Get{name.title()}")(), atol=1e-9)


# ------------------------------------------------------------------------------------------- slopes of slices


@pytest.mark.parametrize(
    ("slopes", "intercepts", "dtype"),
    [
        ((1, 10, 20, 0.5), (0, 0, 0, 0), np.int16),
        ((0.5, 1, 10, 20), (0, 0, 0, 0), np.int16),
        ((1, 1, 1, 1), (0, -1024, 100000, 3), np.int16),
        ((1, 10, 20, 30), (0, 0, 0, 0), np.uint16),
        ((0.123456, 2.5, 17.25, 1e-3), (-7.5, 0, 1, 2), np.int16),
        ((1, 1, 1, 300), (0, 0, 0, 0), np.uint8),
    ],
)
def test_slopes_that_differ_from_slice_to_slice(tmp_path, slopes, intercepts, dtype):
    stored = [np.full((4, 5), 5000, dtype) if dtype == np.int16 else noise((4, 5), dtype, k) for k in range(4)]
    saved_slices(tmp_path / "pet", [
        (2.5 * k, stored[k], {"RescaleSlope": slopes[k], "RescaleIntercept": intercepts[k]}) for k in range(4)
    ], PET)  # fmt: skip
    image = files.read(tmp_path / "pet")
    assert_placed(image, (tmp_path / "pet").iterdir(), AXIAL, (0.8, 0.6, 2.5), rtol=1e-12)


def test_the_values_of_slopes_by_hand(tmp_path):
    saved_slices(tmp_path / "pet", [
        (2.5 * k, np.full((4, 5), 5000, np.int16), {"RescaleSlope": slope, "RescaleIntercept": 0})
        for k, slope in enumerate((1, 10, 20, 0.5))
    ], PET)  # fmt: skip
    voxels = sitk.GetArrayFromImage(files.read(tmp_path / "pet"))
    assert voxels[:, 0, 0].tolist() == [5000, 50000, 100000, 2500]


def test_voxel_types_that_differ_from_slice_to_slice(tmp_path):
    kinds = [np.int16, np.uint16, np.int16]
    saved_slices(tmp_path / "mr", [(3 * k, noise((4, 5), d, k, 60000), {}) for k, d in enumerate(kinds)], MR)
    assert_placed(files.read(tmp_path / "mr"), (tmp_path / "mr").iterdir(), AXIAL, (0.8, 0.6, 3))


def test_equal_slopes_are_read_as_simpleitk_reads_them(tmp_path):
    values = {"RescaleSlope": 2, "RescaleIntercept": -1024}
    saved_slices(tmp_path / "ct", [(3 * k, noise((4, 5), np.int16, k), values) for k in range(3)], orientation=OBLIQUE)
    image = files.read(tmp_path / "ct")
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "ct"))
    theirs = sitk.ReadImage(names)
    assert image.GetPixelID() == theirs.GetPixelID()
    assert np.array_equal(sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(theirs))
    assert_placed(image, (tmp_path / "ct").iterdir(), OBLIQUE, (0.8, 0.6, 3))


# ------------------------------------------------------------------------------------------------ RT doses


@pytest.mark.parametrize(
    ("offsets", "orientation", "dtype", "values"),
    [
        ((0, -2.5, -5, -7.5, -10), AXIAL, np.uint16, {}),
        ((0, 2.5, 5, 7.5, 10), AXIAL, np.uint16, {"scaling": 3.1234567e-5}),
        ((2, 4.5, 7, 9.5, 12), AXIAL, np.uint32, {}),
        ((0, 3, 6), CORONAL, np.uint32, {"scaling": 1.5e-9}),
        ((0, 5, 2.5, 7.5), (-1, 0, 0, 0, -1, 0), np.uint16, {}),
        ((0, -3, -6, -9), OBLIQUE, np.uint16, {"syntax": ExplicitVRBigEndian}),
    ],
)
def test_a_dose_is_in_gray_and_in_its_place(tmp_path, offsets, orientation, dtype, values):
    most = 4_000_000_000 if dtype == np.uint32 else 60000
    stored = noise((len(offsets), 4, 6), dtype, most=most)
    big = values.get("syntax") == ExplicitVRBigEndian
    path = save(
        made.dose(stored.byteswap() if big else stored, offsets, orientation=orientation, **values), tmp_path / "d.dcm"
    )
    image = files.read(path)
    assert image.GetPixelID() == sitk.sitkFloat32
    step = abs(sorted(offsets)[1] - sorted(offsets)[0])
    assert_placed(image, [path], orientation, (0.8, 0.6, step), rtol=1e-7)
    assert_header(path, image)


@pytest.mark.parametrize(
    ("offsets", "match"),
    [
        ((0, 2.5, 6, 7.5, 10), r"frames are 1\.5 to 3\.5 mm apart"),
        ((0, 2.5, 2.5, 5, 7.5), "5 frames lie at 4 places"),
        ((0, 2.5, 5), "has 3 numbers"), ((7, 9, 11, 13, 15), "begins with 7"), ((0, 1, 2, 3, 5), "apart"),
        ((0, -1, -2, -4, -8), "apart"),
    ],
)  # fmt: skip
def test_a_dose_that_is_no_volume(tmp_path, offsets, match):
    path = save(made.dose(noise((5, 4, 6), np.uint16), offsets), tmp_path / "d.dcm")
    for call in (files.read, files.header):
        with pytest.raises(OSError, match=rf"d\.dcm.*{match}"):
            call(path)


def test_a_dose_without_scaling(tmp_path):
    data = made.dose(noise((2, 4, 6), np.uint16), (0, 3))
    del data.DoseGridScaling
    with pytest.raises(OSError, match="without a DoseGridScaling"):
        files.read(save(data, tmp_path / "d.dcm"))


def test_a_dose_of_one_frame_and_one_in_a_folder(tmp_path):
    (tmp_path / "folder").mkdir()
    data = made.dose(noise((4, 6), np.uint16), (0,), scaling=0.25)
    del data.GridFrameOffsetVector, data.FrameIncrementPointer
    path = save(data, tmp_path / "folder" / "d.dcm")
    for image in (files.read(path), files.read(tmp_path / "folder")):
        np.testing.assert_array_equal(sitk.GetArrayFromImage(image)[0], pydicom.dcmread(path).pixel_array * 0.25)


# -------------------------------------------------------------------------------------------- negative spacing


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("a.mha", "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = 1 1 -2\nOffset = 5 6 7\n"
                  "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"),
        ("b.mha", "ObjectType = Image\nNDims = 3\nDimSize = 4 3 2\nElementSpacing = -0.5 1 2\nOffset = 5 6 7\n"
                  "TransformMatrix = 0 1 0 1 0 0 0 0 1\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"),
        ("c.mha", "ObjectType = Image\nNDims = 2\nDimSize = 4 6\nElementSpacing = -1 -3\n"
                  "ElementType = MET_SHORT\nElementDataFile = LOCAL\n"),
        ("d.nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nspacings: 1 1 -2\nencoding: raw\n"
                   "endian: little\n\n"),
        ("e.nrrd", "NRRD0004\ntype: short\ndimension: 3\nsizes: 4 3 2\nspacings: -1 -2 -3\nencoding: raw\n"
                   "endian: little\n\n"),
        ("f.nrrd", "NRRD0004\ntype: short\ndimension: 2\nsizes: 4 6\nspacings: -0.25 2\nencoding: raw\n"
                   "endian: little\n\n"),
    ],
)  # fmt: skip
def test_a_header_with_negative_spacing_is_that_of_its_image(tmp_path, run, name, header):
    (tmp_path / name).write_bytes(header.encode() + np.arange(24, dtype="<i2").tobytes())
    image = sitk.ReadImage(str(tmp_path / name))
    assert min(image.GetSpacing()) > 0
    assert_header(tmp_path / name, image)
    out = tmp_path / "out.nrrd"
    code, _, err = run("resample", tmp_path / name, out, "--like", tmp_path / name, "--interpolation", "nearest")
    assert (code, err) == (0, "")
    made = sitk.ReadImage(str(out))
    assert np.array_equal(sitk.GetArrayFromImage(made), sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(made.GetDirection(), image.GetDirection(), atol=1e-12)


# ------------------------------------------------------------------------------- series that are no volume


@pytest.mark.parametrize(
    ("places", "attribute", "values"),
    [
        (6, "TriggerTime", (0, 40)), (4, "EchoTime", (5, 10, 15)), (3, "TemporalPositionIdentifier", (1, 2)),
        (5, "AcquisitionNumber", (1, 2)), (2, "FrameReferenceTime", (10, 20, 30, 40)), (1, "DiffusionBValue", (0, 800)),
    ],
)  # fmt: skip
def test_several_slices_at_each_place_are_refused(tmp_path, places, attribute, values):
    slices = [(10 * k, noise((4, 5), seed=k), {attribute: v}) for v in values for k in range(places)]
    saved_slices(tmp_path / "cine", slices, MR)
    match = rf"cine: its {places * len(values)} slices lie at {places} places \({attribute} tells them apart\)"
    with pytest.raises(OSError, match=match):
        files.read(tmp_path / "cine")


def test_a_slice_that_is_there_twice(tmp_path):
    saved_slices(tmp_path / "ct", [(d, noise((4, 5)), {}) for d in (0, 2, 2, 4)])
    with pytest.raises(OSError, match=r"its 4 slices lie at 3 places \(InstanceNumber"):
        files.read(tmp_path / "ct")


@pytest.mark.parametrize(
    "turned", [(AXIAL, CORONAL, SAGITTAL), (AXIAL, AXIAL, CORONAL), (SAGITTAL, OBLIQUE), (AXIAL, (0, 1, 0, 1, 0, 0)),
               (CORONAL, CORONAL, CORONAL, SAGITTAL)],
)  # fmt: skip
def test_a_localizer_is_refused(tmp_path, turned):
    slices = [(10 * k, noise((4, 5)), {"ImageOrientationPatient": list(o)}) for k, o in enumerate(turned)]
    saved_slices(tmp_path / "scout", slices, MR)
    with pytest.raises(OSError, match=rf"slices have {len(set(turned))} directions \(a localizer\?\)"):
        files.read(tmp_path / "scout")


def test_the_spacing_of_uneven_slices_is_the_images(tmp_path):
    saved_slices(tmp_path / "ct", [(d, noise((4, 5)), {}) for d in (0, 2, 4, 9)])
    with pytest.warns(UserWarning, match="apart") as told:
        image = files.read(tmp_path / "ct")
    assert f"takes {image.GetSpacing()[2]:.4g} mm for all" in str(told[0].message)


@pytest.mark.parametrize("inner", ["a", "a/b", "one two", "z/y/x"])
def test_dicom_in_folders_below_is_told(tmp_path, inner):
    folder = tmp_path / "study" / inner
    folder.mkdir(parents=True)
    (tmp_path / "study" / "notes.txt").write_text("none")
    saved_slices(folder, [(d, noise((4, 5)), {}) for d in (0, 2)])
    with pytest.raises(OSError, match=rf"no DICOM images in this folder; folders below it hold some: {inner}; name"):
        files.read(tmp_path / "study")


# ---------------------------------------------------------------------------------------- files of several frames


@pytest.mark.parametrize(
    ("depths", "orientation", "slopes", "values"),
    [
        ((0, 2.5, 5, 7.5), AXIAL, None, {}),
        ((0, -2.5, -5, -7.5), AXIAL, None, {}),
        ((0, 5, 2.5, 10, 7.5), AXIAL, None, {"kind": ENHANCED_CT}),
        ((6, 0, 9, 3), SAGITTAL, None, {"syntax": ImplicitVRLittleEndian}),
        ((0, 2, 4, 6), AXIAL, ((1, 0), (2, 0), (3, 0), (4, 5)), {}),
        ((4, 0, 6, 2), OBLIQUE, ((0.5, 1), (0.25, 2), (0.125, -3), (1, 0)), {"syntax": ImplicitVRLittleEndian}),
        ((0, 1, 2), CORONAL, ((2, -1024),) * 3, {}),
    ],
)
def test_frames_are_sorted_and_keep_their_slopes(tmp_path, depths, orientation, slopes, values):
    stored = noise((len(depths), 4, 6), most=8000)
    path = save(made.enhanced(stored, depths, orientation=orientation, slopes=slopes, **values), tmp_path / "e.dcm")
    image = files.read(path)
    step = sorted(depths)[1] - sorted(depths)[0]
    assert_placed(image, [path], orientation, (0.8, 0.6, step))
    assert_header(path, image)


@pytest.mark.parametrize(
    ("dtype", "used", "top", "syntax"),
    [
        (np.int16, 12, 11, ExplicitVRLittleEndian), (np.uint16, 12, 11, ImplicitVRLittleEndian),
        (np.int16, 10, 12, ExplicitVRLittleEndian),
        (np.int16, 12, 11, ExplicitVRBigEndian), (np.int16, 16, 15, ExplicitVRLittleEndian),
    ],
)  # fmt: skip
def test_bits_beside_the_stored_ones_are_no_part_of_a_value(tmp_path, dtype, used, top, syntax):
    kind = np.dtype(dtype)
    bits, low = 8 * kind.itemsize, 2 ** (used - 1) if kind.kind == "i" else 0
    values, junk = noise((4, 4, 6), np.int64, most=2**used) - low, noise((4, 4, 6), np.int64, 1, most=2**bits)
    mask = (2**used - 1) << (top + 1 - used)
    stored = ((values << (top + 1 - used)) & mask | junk & ~mask).astype(f"u{kind.itemsize}").view(kind)
    slopes = np.array(((1, 0), (2, 0), (3, 0), (4, 5)))
    voxels = stored.byteswap() if syntax == ExplicitVRBigEndian else stored
    data = made.enhanced(voxels, (0, 2, 4, 6), slopes=slopes.tolist(), syntax=syntax, BitsStored=used, HighBit=top)
    image = files.read(save(data, tmp_path / "e.dcm"))
    wanted = values * slopes[:, 0, None, None] + slopes[:, 1, None, None]
    assert np.array_equal(sitk.GetArrayFromImage(image), wanted)


def test_monotonic_frames_are_read_as_simpleitk_reads_them(tmp_path):
    for name, depths in {"up": (0, 2.5, 5), "down": (0, -2.5, -5)}.items():
        path = save(made.enhanced(noise((3, 4, 6)), depths), tmp_path / f"{name}.dcm")
        ours, theirs = files.read(path), sitk.ReadImage(str(path))
        assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
        for part in ("Spacing", "Origin", "Direction"):
            np.testing.assert_allclose(getattr(ours, f"Get{part}")(), getattr(theirs, f"Get{part}")(), atol=1e-9)


@pytest.mark.parametrize(
    ("depths", "match"),
    [
        ((0, 2, 5, 7), "frames are 2 to 3 mm apart"), ((0, 1, 2, 30), "frames are 1 to 28 mm apart"),
        ((0, 2, 0, 2), "its 4 frames lie at 2 places"), ((0, 1, 0, 0), "its 4 frames lie at 2 places"),
        ((0, 4, 2, 7), "frames are 2 to 3 mm apart"), ((0, 2, 4, 4), "its 4 frames lie at 3 places"),
        ((0, 0.01, 0.02, 0.04), r"frames are 0\.01 to 0\.02 mm apart"),
    ],
)  # fmt: skip
def test_frames_that_are_no_volume(tmp_path, depths, match):
    path = save(made.enhanced(noise((4, 4, 6)), depths), tmp_path / "e.dcm")
    for call in (files.read, files.header):
        with pytest.raises(OSError, match=rf"e\.dcm: (its )?{match}"):
            call(path)


@pytest.mark.parametrize("depths", [(0, 0.62, 1.25, 1.88), (0, -0.63, -1.25, -1.88), (1.25, 0, 1.88, 0.62)])
def test_places_with_two_decimals_are_even(tmp_path, depths):
    """Frames 0.625 mm apart, as they are written."""
    stored = noise((4, 4, 6))
    path = save(made.enhanced(stored, depths), tmp_path / "e.dcm")
    image = files.read(path)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.6, 1.88 / 3))
    order = np.argsort(np.abs(depths))
    assert np.array_equal(sitk.GetArrayFromImage(image), stored[order])
    for k, depth in enumerate(np.asarray(depths)[order]):
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        np.testing.assert_allclose(place, (-10, 5, 2 + depth), atol=0.01)
    assert_header(path, image)


@pytest.mark.parametrize(("tilt", "told"), [(0.0, False), (0.01, False), (0.2, True), (-0.3, True)])
def test_tilted_frames_are_warned_of(tmp_path, tilt, told):
    data = made.enhanced(noise((4, 4, 6)), (0, 2.5, 5, 7.5))
    for k, group in enumerate(data.PerFrameFunctionalGroupsSequence):
        at = group.PlanePositionSequence[0].ImagePositionPatient
        at[1] = float(at[1]) + 2.5 * k * tilt
    path = save(data, tmp_path / "e.dcm")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert files.read(path).GetSize() == (6, 4, 4)
    assert [str(w.message) for w in said] == [
        f"{path}: slices are sheared (gantry tilt?); the image takes them for a straight stack"
    ] * told


def with_icon(data, compressed=True):
    """The data with an icon before its voxels."""
    icon = made.dataset(MR, noise((16, 16), np.uint8, most=256), "1.2.3")
    if compressed:
        icon.compress(RLELossless)
    icon["PixelData"].VR = "OB"
    keywords = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored",
                "HighBit", "PixelRepresentation")  # fmt: skip
    data.IconImageSequence = made.group(**{name: icon[name].value for name in keywords})
    data.IconImageSequence[0]["PixelData"] = icon["PixelData"]
    return data


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_frames_behind_an_icon_are_seen(tmp_path, compressed, syntax):
    data = made.enhanced(noise((4, 4, 6)), (0, 5, 2.5, 7.5), slopes=((2, -3),) * 4)
    if syntax == RLELossless:
        data.compress(RLELossless)
    path = save(with_icon(data, compressed), tmp_path / "e.dcm")
    image = files.read(path)
    assert_placed(image, [path], AXIAL, (0.8, 0.6, 2.5))
    assert_header(path, image)


def test_slopes_behind_an_icon_are_seen(tmp_path):
    stored, slopes = noise((4, 4, 5), most=5000), (1, 10, 20, 0.5)
    saved_slices(tmp_path / "pet", [
        (2.5 * k, stored[k], {"RescaleSlope": slopes[k], "RescaleIntercept": 0}) for k in range(4)
    ], PET)  # fmt: skip
    for path in (tmp_path / "pet").iterdir():
        save(with_icon(pydicom.dcmread(path)), path)
    image = files.read(tmp_path / "pet")
    assert_placed(image, (tmp_path / "pet").iterdir(), AXIAL, (0.8, 0.6, 2.5), rtol=1e-12)


def test_deflated_data_that_need_too_much_memory_are_refused(tmp_path, run, monkeypatch):
    path = save(
        made.enhanced(np.zeros((4, 40, 60), np.int16), (0, 5, 2.5, 7.5), syntax=DeflatedExplicitVRLittleEndian),
        tmp_path / "e.dcm",
    )
    assert path.stat().st_size < 4 * 40 * 60
    assert_placed(files.read(path), [path], AXIAL, (0.8, 0.6, 2.5))
    monkeypatch.setattr(elements, "available_memory", lambda: 4 * 40 * 60)
    for call, named in ((files.read, path), (files.header, path), (files.read, tmp_path)):
        with pytest.raises(OSError, match=r"e\.dcm: .*memory"):
            call(named)
    code, _, err = run("info", path)
    assert code == 1
    assert "memory" in err


@pytest.mark.parametrize("name", ["IM1.img", "IM1.hdr", "x.rec", "x.par", "x.v", "x.head"])
def test_a_slice_by_any_name(tmp_path, name):
    stored = noise((4, 5), most=2000)
    saved_slices(tmp_path, [(0, stored, {"RescaleSlope": 2, "RescaleIntercept": -1024})])
    path = (tmp_path / "001.dcm").rename(tmp_path / name)
    ours, theirs = files.read(path), sitk.ReadImage(str(path))
    assert ours.GetPixelID() == theirs.GetPixelID()
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    assert np.array_equal(sitk.GetArrayFromImage(ours)[0], stored * 2 - 1024)
    for part in ("Spacing", "Origin", "Direction"):
        assert getattr(ours, f"Get{part}")() == getattr(theirs, f"Get{part}")()
    assert_header(path, ours)


def test_a_folder_with_one_enhanced_file_is_that_file(tmp_path):
    for number, depths in enumerate([(0, 2, 4), (0, -1, -2), (4, 0, 2), (0, 3), (0, 1, 2, 3, 4, 5)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = save(made.enhanced(noise((len(depths), 4, 6)), depths), folder / "e.dcm")
        image = files.read(folder)
        assert image.GetDimension() == 3
        assert_placed(image, [path], AXIAL, (0.8, 0.6, sorted(depths)[1] - sorted(depths)[0]))


def test_a_series_of_two_enhanced_files_is_refused(tmp_path):
    for k in range(2):
        data = made.enhanced(noise((3, 4, 6)), (0, 2, 4))
        data.SeriesInstanceUID = "1.2.3.4"
        save(data, tmp_path / f"{k}.dcm")
    with pytest.raises(OSError, match=r"the series has 2 files, and \d\.dcm alone holds 3 frames; name one file"):
        files.read(tmp_path)


def test_a_real_enhanced_file_is_as_before(data_dir):
    ours, theirs = files.read(data_dir / "enh.dcm"), sitk.ReadImage(str(data_dir / "enh.dcm"))
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    for part in ("Spacing", "Origin", "Direction"):
        np.testing.assert_allclose(getattr(ours, f"Get{part}")(), getattr(theirs, f"Get{part}")(), atol=1e-5)
    assert_header(data_dir / "enh.dcm", ours)


def place_less(case):
    """Data of three frames of which one at least does not tell where it lies."""
    if case == "classic":
        return made.dataset(MR, noise((3, 4, 6)), "1.2.3")
    data = made.enhanced(noise((3, 4, 6)), (0, 4, 2))
    if case == "no position":
        del data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence
    elif case == "fewer groups":
        data.PerFrameFunctionalGroupsSequence = data.PerFrameFunctionalGroupsSequence[:2]
    elif case == "no groups":
        del data.PerFrameFunctionalGroupsSequence
    elif case == "no size":
        del data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    return data


@pytest.mark.parametrize("case", ["classic", "no position", "fewer groups", "no groups", "no size"])
def test_frames_without_a_place_are_read_by_itk_with_a_warning(tmp_path, case):
    path = save(place_less(case), tmp_path / "us.dcm")
    with pytest.warns(UserWarning, match=r"us\.dcm: it is not told where each of its 3 frames lies; .*ITK's guess"):
        ours = files.read(path)
    theirs = sitk.ReadImage(str(path))
    assert np.array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))
    assert ours.GetSpacing() == theirs.GetSpacing()


@pytest.mark.parametrize("spacing", [(0.6, 0.9), (0.61, 0.8), (0.6, 0.799), (1.2, 1.6), (0.8, 0.6), (0.6001, 0.8)])
def test_pixels_of_several_sizes_are_refused(tmp_path, spacing):
    small = spacing == (0.6001, 0.8)  # that may be how it was written
    data = made.enhanced(noise((3, 4, 6)), (0, 2, 4))
    data.PerFrameFunctionalGroupsSequence[2].PixelMeasuresSequence = made.group(PixelSpacing=list(spacing))
    paths = [save(data, tmp_path / "e.dcm")]
    labels = made.segmentation(drawn_labels((4, 5, 6), 2, 0), 2.5)
    labels.PerFrameFunctionalGroupsSequence[1].PixelMeasuresSequence = made.group(PixelSpacing=list(spacing))
    paths.append(save(labels, tmp_path / "s.dcm"))
    slices = [(2 * k, noise((4, 5)), {"PixelSpacing": list(spacing)} if k == 1 else {}) for k in range(3)]
    paths.append(saved_slices(tmp_path / "ct", slices, spacing=(0.8, 0.6)))
    for path in paths:
        if small:
            assert files.read(path).GetSpacing()[:2] == pytest.approx((0.8, 0.6), abs=1e-3)
            continue
        with pytest.raises(OSError, match=r"the pixels of its (frames|slices) are .* mm; a volume's have one size"):
            files.read(path)


@pytest.mark.parametrize("gone", ["ImagePositionPatient", "ImageOrientationPatient"])
@pytest.mark.parametrize("which", [(1,), (0, 2), (0, 1, 2)])
def test_slices_without_a_place(tmp_path, gone, which):
    slices = [(2 * k, noise((4, 5), seed=k), {}) for k in range(3)]
    folder = saved_slices(tmp_path / "sc", slices)
    for k in which:
        path = folder / f"{k + 1:03d}.dcm"
        data = pydicom.dcmread(path)
        delattr(data, gone)
        save(data, path)
    if len(which) == 3:
        with pytest.warns(UserWarning, match="its 3 slices do not tell where they lie; .*ITK's guess"):
            assert files.read(folder).GetSize() == (5, 4, 3)
    else:
        with pytest.raises(OSError, match=rf"{len(which)} of its 3 slices do not tell where they lie, the first of"):
            files.read(folder)


# ---------------------------------------------------------------------------------------------- segmentations


def drawn_labels(size, count, seed):
    """A label volume with empty slices."""
    labels = np.random.default_rng(seed).integers(0, count + 1, size).astype(np.uint16)
    labels[1] = 0
    return labels


@pytest.mark.parametrize(
    ("size", "count", "between", "order"),
    [((4, 5, 6), 2, 2.5, 1), ((5, 3, 3), 1, 2.5, 1), ((6, 7, 5), 3, 1.0, -1), ((3, 8, 8), 300, 4.0, 1),
     ((8, 5, 7), 4, None, -1)],
)  # fmt: skip
def test_a_segmentation_is_read_as_labels(tmp_path, size, count, between, order):
    labels = drawn_labels(size, count, seed=count)
    path = save(made.segmentation(labels, between or 2.0, told=between is not None, order=order), tmp_path / "s.dcm")
    image = files.read(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), labels)
    np.testing.assert_allclose(image.GetSpacing(), (0.8, 0.6, between or 2.0))
    np.testing.assert_allclose(image.GetOrigin(), (-10, 5, 2))
    assert_header(path, image)
    data = pydicom.dcmread(path)
    for group, frame in zip(data.PerFrameFunctionalGroupsSequence, data.pixel_array, strict=True):
        place = [float(v) for v in group.PlanePositionSequence[0].ImagePositionPatient]
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        slice_ = sitk.GetArrayViewFromImage(image)[image.TransformPhysicalPointToIndex(place)[2]]
        assert np.array_equal(slice_ == number, frame.astype(bool))


def test_a_folder_with_a_segmentation(tmp_path):
    labels = drawn_labels((4, 5, 6), 2, 0)
    save(made.segmentation(labels, 2.5), tmp_path / "s.dcm")
    assert np.array_equal(sitk.GetArrayFromImage(files.read(tmp_path)), labels)


@pytest.mark.parametrize("gap", [(), (1, 2, 50), range(40, 65), (*range(3, 30), *range(90, 109)), range(4, 106)])
@pytest.mark.parametrize(
    ("step", "told", "decimals"),
    [(2.5, 2.5, 6), (2.5, 2.53, 6), (2.5, 2.48, 6), (0.3333, 0.33, 6), (1 / 3, 0.33, 2), (0.625, 0.63, 2)],
)
def test_the_told_distance_of_slices_may_be_rounded(tmp_path, step, told, decimals, gap):
    labels = drawn_labels((110, 3, 4), 2, 0)
    labels[:, 0, 0] = 1
    labels[list(gap)] = 0
    data = made.segmentation(labels, step, told=told)
    for group in data.PerFrameFunctionalGroupsSequence:
        at = group.PlanePositionSequence[0].ImagePositionPatient
        at[2] = round(float(at[2]), decimals)
    path = save(data, tmp_path / "s.dcm")
    image = files.read(path)
    assert np.array_equal(sitk.GetArrayFromImage(image), labels)
    for k in np.flatnonzero(labels.any(axis=(1, 2))):
        place = image.TransformIndexToPhysicalPoint((0, 0, int(k)))[2]
        assert place == pytest.approx(2 + k * step, abs=0.011)
    assert_header(path, image)


@pytest.mark.parametrize("told", [5.0, 1.7, 2.8, 25.0, 60.0])
def test_another_distance_of_slices_than_theirs_is_refused(tmp_path, told):
    labels = drawn_labels((110, 3, 4), 2, 0)
    labels[:, 0, 0] = 1
    path = save(made.segmentation(labels, 2.5, told=told), tmp_path / "s.dcm")
    for call in (files.read, files.header):
        with pytest.raises(OSError, match=r"s\.dcm: is a DICOM segmentation whose frames are not evenly spaced"):
            call(path)


def test_segmentations_that_are_refused(tmp_path):
    labels = drawn_labels((4, 5, 6), 2, 0)
    cases = itertools.count()

    def refused(match, data):
        path = save(data, tmp_path / f"{next(cases)}.dcm")
        with pytest.raises(OSError, match=match):
            files.read(path)

    refused("segments 1 and 2 overlap", made.segmentation(labels, 2.5, also=2))
    refused("of type FRACTIONAL", made.segmentation(labels, 2.5, SegmentationType="FRACTIONAL"))
    refused("not evenly spaced", made.segmentation(labels, 2.5, told=1.7))
    bare = made.segmentation(labels, 2.5)
    for frame in bare.PerFrameFunctionalGroupsSequence:
        del frame.SegmentIdentificationSequence
    refused("does not tell place and segment", bare)
    short = made.segmentation(labels, 2.5)
    short.PixelData = short.PixelData[:4]
    refused("ends early", short)
