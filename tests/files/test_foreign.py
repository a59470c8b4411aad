"""Formats that SimpleITK lacks: nibabel as reference; what no library here reads is called by its name."""

import gzip
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from cli_support import volume
from scipy.io import netcdf_file

import gpuresample as gr
from gpuresample.files import volumes as files

# nibabel leaves files of .mgh open until its images are gone.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def turned(angle=0.3, spacing=(0.8, 0.9, 2.0)):
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] = affine[:3, :3] @ np.diag(spacing)
    affine[:3, 3] = (-20, 30, 5)
    return affine


def assert_as_nibabel(path, theirs=None):
    image, theirs = files.read(path), nib.load(path) if theirs is None else theirs
    wanted = np.asanyarray(theirs.dataobj).reshape(image.GetSize()).T
    assert np.array_equal(sitk.GetArrayFromImage(image), wanted)
    affine = np.eye(4)
    d = image.GetDimension()
    affine[:3, :3] = np.reshape(image.GetDirection(), (d, d))[:3, :3] * image.GetSpacing()[:3]
    affine[:3, 3] = image.GetOrigin()[:3]
    np.testing.assert_allclose(LPS @ affine, theirs.affine, atol=1e-4)
    header = files.header(path)
    assert (header.size, header.pixel_type) == (image.GetSize(), image.GetPixelIDTypeAsString())
    for name in ("spacing", "origin", "direction"):
        np.testing.assert_allclose(getattr(header, name), getattr(image, f"Get{name.title()}")())
    return image


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh"])
@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((6, 5, 4), "uint8"), ((6, 5, 4), "int16"), ((6, 5, 4), "int32"), ((7, 3, 2), "float32"), ((4, 4, 4, 2), "uint8"),
     ((6, 5, 4, 3), "float32")],
)  # fmt: skip
def test_freesurfer(tmp_path, name, shape, dtype):
    voxels = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    nib.save(nib.MGHImage(voxels, turned()), tmp_path / name)
    assert_as_nibabel(tmp_path / name)


@pytest.mark.parametrize("second", [nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_nifti_2(tmp_path, second, name, dtype):
    voxels = np.random.default_rng(0).integers(0, 100, (6, 5, 4)).astype(dtype)
    nib.save(second(voxels, turned()), tmp_path / name)
    image = assert_as_nibabel(tmp_path / name)
    made = gr.resample(image, spacing=1.0, interpolation="linear")
    assert made.GetSize() == (5, 4, 8)


@pytest.mark.parametrize("space", ["meter", "mm", "micron", "unknown"])
@pytest.mark.parametrize("time", ["sec", "msec", "usec", "unknown"])
@pytest.mark.parametrize("shape", [(6, 5, 4), (6, 5, 4, 3)])
def test_nifti_2_has_the_units_of_nifti_1(tmp_path, space, time, shape):
    unit = {"meter": 1e3, "micron": 1e-3}.get(space, 1.0)
    affine = turned()
    affine[:3] /= unit
    for kind, name in ((nib.Nifti1Image, "one.nii"), (nib.Nifti2Image, "two.nii")):
        image = kind(np.zeros(shape, np.int16), affine)
        image.header.set_xyzt_units(space, time)
        image.header["pixdim"][4] = 2.5
        nib.save(image, tmp_path / name)
    theirs, ours = sitk.ReadImage(str(tmp_path / "one.nii")), files.read(tmp_path / "two.nii")
    header = files.header(tmp_path / "two.nii")
    for part in ("Spacing", "Origin", "Direction"):
        wanted = getattr(theirs, f"Get{part}")()
        np.testing.assert_allclose(getattr(ours, f"Get{part}")(), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(getattr(header, part.lower()), wanted, rtol=1e-5, atol=1e-5)


AFNI = """
type = string-attribute
name = TYPESTRING
count = 15
'3DIM_HEAD_ANAT~

type = integer-attribute
name = DATASET_DIMENSIONS
count = 5
 4 3 2 0 0

type = float-attribute
name = DELTA
count = 3
 1 1 1

type = integer-attribute
name = DATASET_RANK
count = 8
 3 1 0 0 0 0 0 0

type = integer-attribute
name = BRICK_TYPES
count = 1
 1

type = float-attribute
name = BRICK_FLOAT_FACS
count = 1
 {factor}

type = string-attribute
name = BYTEORDER_STRING
count = 10
'LSB_FIRST~

type = integer-attribute
name = SCENE_DATA
count = 8
 {view} 0 0 0 0 0 0 0

type = float-attribute
name = IJK_TO_DICOM_REAL
count = 12
 {matrix}
"""


@pytest.mark.parametrize("factor", [0, 0.5, 2])
@pytest.mark.parametrize("matrix", ["2 0 0 -10 0 3 0 5 0 0 4 7", "0 2 0 1 -3 0 0 2 0 0 1.5 3"])
def test_afni(tmp_path, factor, matrix):
    (tmp_path / "a+orig.HEAD").write_text(AFNI.format(factor=factor, view=0, matrix=matrix))
    (tmp_path / "a+orig.BRIK").write_bytes(np.arange(24, dtype="<i2").tobytes())
    for name in ("a+orig.HEAD", "a+orig.BRIK"):
        image = assert_as_nibabel(tmp_path / name)
    # AFNI's own coordinates are LPS.
    wanted = np.reshape([float(v) for v in matrix.split()], (3, 4))
    got = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    np.testing.assert_allclose(got, wanted[:, :3], atol=1e-6)
    np.testing.assert_allclose(image.GetOrigin(), wanted[:, 3], atol=1e-6)


def test_ecat(tmp_path):
    tests = Path(nib.__file__).parent / "tests" / "data" / "tinypet.v"
    if not tests.is_file():
        pytest.skip("nibabel is here without its own tests")
    shutil.copy(tests, tmp_path / "a.v")
    assert_as_nibabel(tmp_path / "a.v", nib.ecat.load(tmp_path / "a.v"))


def write_minc_1(path, voxels, starts, steps, lead=()):
    """A MINC 1 file, which is netCDF, of voxels z, y, x."""
    with netcdf_file(path, "w") as file:
        names = [*lead, "zspace", "yspace", "xspace"]
        for name, n in zip(names, voxels.shape, strict=True):
            file.createDimension(name, n)
        starts, steps = [0] * len(lead) + list(starts), [1] * len(lead) + list(steps)
        for name, start, step in zip(names, starts, steps, strict=True):
            axis = file.createVariable(name, "i", ())
            axis.start, axis.step, axis.spacing = float(start), float(step), b"regular__"
        for name, value in (("image-min", -3.0), ("image-max", 9.0)):
            file.createVariable(name, "d", ())[...] = value
        stored = file.createVariable("image", "h", tuple(names))
        stored.signtype, stored.valid_range = b"signed__", np.array([-200, 300], np.int16)
        stored[...] = voxels


@pytest.mark.parametrize("steps", [(3, 2, 1.5), (-3, 2, -1.5)])
def test_minc_1_is_read_through_nibabel(tmp_path, steps):
    voxels = np.random.default_rng(0).integers(-200, 300, (3, 4, 5)).astype(np.int16)
    write_minc_1(tmp_path / "a.mnc", voxels, (1, -20, 30), steps)
    image = files.read(tmp_path / "a.mnc")
    theirs = nib.load(tmp_path / "a.mnc")
    wanted = np.asanyarray(theirs.dataobj)
    np.testing.assert_allclose(wanted, -3 + (voxels + 200.0) * 12 / 500)
    # nibabel's axes are z, y, x, and its coordinates RAS, as MINC's.
    assert np.array_equal(sitk.GetArrayFromImage(image), wanted.T)
    for at in ((0, 0, 0), (2, 3, 4), (1, 3, 0)):
        point = image.TransformIndexToPhysicalPoint(at)
        np.testing.assert_allclose((-point[0], -point[1], point[2]), (theirs.affine @ (*at, 1))[:3], atol=1e-9)
    assert files.header(tmp_path / "a.mnc").size == image.GetSize()
    with gzip.open(tmp_path / "b.mnc.gz", "wb") as packed:
        packed.write((tmp_path / "a.mnc").read_bytes())
    assert np.array_equal(sitk.GetArrayFromImage(files.read(tmp_path / "b.mnc.gz")), wanted.T)


def test_minc_1_with_time_is_refused(tmp_path):
    write_minc_1(tmp_path / "a.mnc", np.zeros((2, 3, 4, 5), np.int16), (0, 0, 0), (1, 1, 1), ["time"])
    for call in (files.read, files.header):
        with pytest.raises(OSError, match="a MINC 1 image of 4 axes is not read"):
            call(tmp_path / "a.mnc")


@pytest.mark.parametrize(("name", "match"), [
    ("a.svs", "a whole slide of pathology, a TIFF of Aperio's"), ("a.mrxs", "a whole slide of pathology"),
    ("a.mif", "an MRtrix image; mrconvert"), ("a.mif.gz", "an MRtrix image"), ("a.czi", "a Zeiss image"),
    ("a.gii", "a GIFTI surface"), ("a.trk", "a file of streamlines"), ("a.nd2", "a Nikon image"),
    ("a.b2nd", "an array of Blosc2, which has no spacing"),
])  # fmt: skip
def test_other_formats_are_called_by_their_names(tmp_path, run, name, match):
    (tmp_path / name).write_bytes(b"mrtrix image\ndim: 4,3,2\n" * 20)
    with pytest.raises(OSError, match=rf"{name}: cannot be read: is {match}"):
        files.read(tmp_path / name)
    code, _, err = run("info", tmp_path / name)
    assert code == 1
    assert match in err


@pytest.mark.parametrize("name", ["a.mgz", "a.mgh", "a+orig.HEAD", "a.par", "a.v", "a.mgz.mgz"])
@pytest.mark.parametrize("content", [b"", b"nothing of that kind\n" * 50])
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    for call in (files.read, files.header):
        with pytest.raises(OSError, match=r"cannot be read|ends early|damaged"):
            call(tmp_path / name)


def test_a_short_file_is_refused(tmp_path):
    nib.save(nib.MGHImage(np.zeros((20, 20, 20), np.float32), np.eye(4)), tmp_path / "a.mgh")
    data = (tmp_path / "a.mgh").read_bytes()
    (tmp_path / "a.mgh").write_bytes(data[: len(data) // 2])
    with pytest.raises(OSError, match="damaged or ends early"):
        files.read(tmp_path / "a.mgh")


def test_without_nibabel(tmp_path, monkeypatch):
    nib.save(nib.MGHImage(np.zeros((4, 4, 4), np.float32), np.eye(4)), tmp_path / "a.mgz")
    monkeypatch.setitem(__import__("sys").modules, "nibabel", None)
    with pytest.raises(OSError, match=r"a\.mgz: is a file of FreeSurfer, which nibabel reads: pip install nibabel"):
        files.read(tmp_path / "a.mgz")
    with pytest.raises(OSError, match="written through nibabel"):
        files.write(volume(), tmp_path / "b.mgz")
    assert not (tmp_path / "b.mgz").exists()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("size", [(9, 8, 7), (5, 4, 3, 2)])
def test_mgz_is_written(tmp_path, dtype, size):
    array = np.random.default_rng(0).integers(0, 100, size[::-1]).astype(dtype)
    image = sitk.GetImageFromArray(array, isVector=False)
    image.SetSpacing((0.7, 0.8, 2.5, 3.0)[: len(size)])
    image.SetOrigin((-100.3, 50.2, 7.0, 0.0)[: len(size)])
    files.write(image, tmp_path / "a.mgz")
    assert [p.name for p in tmp_path.iterdir()] == ["a.mgz"]
    back = assert_as_nibabel(tmp_path / "a.mgz")
    assert np.array_equal(sitk.GetArrayFromImage(back), array)
    assert back.GetPixelID() == image.GetPixelID()
    np.testing.assert_allclose(back.GetSpacing(), image.GetSpacing(), rtol=1e-6)


@pytest.mark.parametrize("seconds", [2.5, 0.72, 30.0])
def test_mgz_counts_milliseconds(tmp_path, seconds):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 6), np.int16), isVector=False)
    image.SetSpacing((1, 2, 3, seconds))
    files.write(image, tmp_path / "a.mgz")
    assert nib.load(tmp_path / "a.mgz").header.get_zooms()[3] == pytest.approx(1e3 * seconds)
    for found in (files.read(tmp_path / "a.mgz").GetSpacing(), files.header(tmp_path / "a.mgz").spacing):
        np.testing.assert_allclose(found, (1, 2, 3, seconds), rtol=1e-6)


def test_what_mgz_does_not_hold(tmp_path):
    with pytest.raises(OSError, match=r"\.mgz holds 3-D or 4-D images of uint8, .*got 3-D 64-bit float"):
        files.write(volume(sitk.sitkFloat64), tmp_path / "a.mgz")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_reads_and_writes_mgz(tmp_path, run):
    nib.save(
        nib.MGHImage(np.random.default_rng(0).integers(0, 9, (8, 8, 8)).astype(np.uint8), turned()), tmp_path / "a.mgz"
    )
    code, _, err = run(
        "resample", tmp_path / "a.mgz", tmp_path / "b.mgz", "--spacing", "1", "--interpolation", "nearest"
    )
    assert (code, err) == (0, "")
    assert nib.load(tmp_path / "b.mgz").shape == (6, 7, 16)


@pytest.mark.parametrize(
    ("origin", "direction"),
    [((1, 2, 3), np.eye(3)), ((-5, 7, 0), np.diag([-1.0, -1, 1])), ((0, 0, 0), np.diag([1.0, -1, -1])),
     ((4, 5, 6), np.diag([-1.0, 1, -1])), ((100.5, -20, 3), np.eye(3))],
)  # fmt: skip
def test_minc_is_ras(tmp_path, origin, direction):
    """SimpleITK writes its numbers as they are, and a MINC file's are RAS."""
    image = sitk.GetImageFromArray(np.arange(60, dtype=np.float32).reshape(3, 4, 5))
    image.SetSpacing((1, 2, 3))
    image.SetOrigin(origin)
    image.SetDirection(direction.ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "a.mnc"))
    theirs, made = sitk.ReadImage(str(tmp_path / "a.mnc")), files.read(tmp_path / "a.mnc")
    for index in ((0, 0, 0), (4, 3, 2), (1, 2, 0)):
        point = theirs.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(
            made.TransformIndexToPhysicalPoint(index), (-point[0], -point[1], point[2]), atol=1e-9
        )
    header = files.header(tmp_path / "a.mnc")
    np.testing.assert_allclose(header.origin, made.GetOrigin())
    np.testing.assert_allclose(header.direction, made.GetDirection())
