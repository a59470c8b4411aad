"""NIfTI headers: which form is taken and said, spacing, codes, shear, NaN; nibabel and matrices as oracles."""

import gzip
import itertools
from fractions import Fraction

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import gpuresample as gr
from gpuresample.files import volumes as files
from gpuresample.planning.grid import Grid, resized

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def affine(spacing=(2, 2, 3), origin=(10, 20, 30), turned=0.0, shear=0.0, flip=1):
    """An affine to RAS: rotated in its x-y plane by so many degrees, its second axis sheared."""
    angle, tilt = np.deg2rad(turned), np.deg2rad(shear)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, flip]])
    made = np.eye(4)
    made[:3, :3] = turn @ np.array([[1, np.sin(tilt), 0], [0, np.cos(tilt), 0], [0, 0, 1]]) @ np.diag(spacing)
    made[:3, 3] = origin
    return made


def saved(path, sform=None, qform=None, codes=(1, 1), pixdim=None, voxels=None):
    """A file with these forms; of one that is None the code is 0."""
    voxels = np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4) if voxels is None else voxels
    image = nib.Nifti1Image(voxels, None)
    if qform is not None:
        image.header.set_qform(qform, codes[1])
    if sform is not None:
        image.header.set_sform(sform, codes[0])
    image.header["sform_code"] = 0 if sform is None else codes[0]
    image.header["qform_code"] = 0 if qform is None else codes[1]
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
    nib.save(image, path)
    return path


def affine_of(image):
    """An image's affine to RAS."""
    made = np.eye(4)
    made[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    made[:3, 3] = image.GetOrigin()
    return LPS @ made


def codes_of(path):
    header = nib.load(path).header
    return int(header["sform_code"]), int(header["qform_code"])


# ---------------------------------------------------------------------------------------------------- two forms


@pytest.mark.parametrize(
    ("sform", "qform", "codes", "taken"),
    [
        (affine(), affine(origin=(1, 2, 3)), (1, 1), "sform"),
        (affine(), affine(origin=(1, 2, 3)), (4, 1), "qform"),
        (affine(), affine(turned=17), (2, 1), "qform"),
        (affine(turned=17), affine(), (2, 1), "qform"),
        (affine(), affine(flip=-1), (4, 2), "sform"),
        (affine(), affine(origin=(1, 2, 3)), (1, 4), "sform"),
    ],
)
def test_forms_that_disagree_are_told(tmp_path, sform, qform, codes, taken):
    path = saved(tmp_path / "a.nii", sform, qform, codes)
    match = rf"a\.nii: its sform \(code {codes[0]}\) and qform \(code {codes[1]}\) disagree; the {taken} is taken"
    with pytest.warns(UserWarning, match=match):
        image = files.read(path)
    np.testing.assert_allclose(affine_of(image), sform if taken == "sform" else qform, atol=1e-5)
    theirs = sitk.ReadImage(str(path))
    assert (image.GetOrigin(), image.GetDirection()) == (theirs.GetOrigin(), theirs.GetDirection())
    with pytest.warns(UserWarning, match="disagree; the sform is taken, as nibabel does"):
        gr.resample(nib.load(path), spacing=2.0, interpolation="nearest")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 2), (3, 1, 5)])
def test_no_form_at_all_is_told(tmp_path, name, shape):
    path = saved(tmp_path / name, voxels=np.zeros(shape, np.int16))
    with pytest.warns(UserWarning, match="neither sform nor qform"):
        image = files.read(path)
    assert image.GetOrigin()[:3] == (0, 0, 0)


@pytest.mark.parametrize("codes", [(1, 1), (4, 4), (2, 1), (4, 1), (1, 0), (0, 1)])
def test_forms_that_agree_are_read_without_a_word(tmp_path, codes):
    form = affine(turned=9)
    path = saved(tmp_path / "a.nii", form if codes[0] else None, form if codes[1] else None, codes, pixdim=(2, 2, 3))
    np.testing.assert_allclose(affine_of(files.read(path)), form, atol=1e-5)
    gr.resample(nib.load(path), spacing=2.0, interpolation="nearest")


@pytest.mark.parametrize("codes", [(4, 1), (1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("turned", [0.0008, -0.0008])
def test_of_two_forms_that_nearly_agree_the_nearer_is_named(tmp_path, codes, turned):
    """A twelfth of a voxel at the volume's end; the other direction is ITK's, told from both by comparing."""
    forms = {"sform": affine(turned=9), "qform": affine(turned=9 + np.rad2deg(turned))}
    path = saved(tmp_path / "a.nii", *forms.values(), codes, voxels=np.zeros((110, 100, 2), np.int16))
    axes = np.reshape(sitk.ReadImage(str(path)).GetDirection(), (3, 3))
    off = {k: np.abs((LPS @ f)[:3, :3] / (2, 2, 3) - axes).max() for k, f in forms.items()}
    taken = min(off, key=off.get)
    assert off[taken] < 1e-6
    assert max(off.values()) > 5e-4
    with pytest.warns(UserWarning, match=rf"disagree; the {taken} is taken, as ITK does"):
        image = files.read(path)
    np.testing.assert_allclose(affine_of(image), forms[taken], atol=1e-4)
    files.write(image, tmp_path / "b.nii")
    assert codes_of(tmp_path / "b.nii") == (codes[taken == "qform"],) * 2


@pytest.mark.parametrize("code", [1, 4])
def test_a_quaternion_that_is_none_beside_an_sform(code):
    image = nib.Nifti1Image(np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32), affine(turned=9))
    wanted = gr.resample(image, spacing=1.5, interpolation="linear")
    image.header["qform_code"] = code
    image.header["quatern_b"], image.header["quatern_c"] = 0.9, 0.9
    made = gr.resample(image, spacing=1.5, interpolation="linear")
    assert np.array_equal(np.asanyarray(made.dataobj), np.asanyarray(wanted.dataobj))
    np.testing.assert_allclose(made.affine, wanted.affine)


# ------------------------------------------------------------------------------------------- spacing and shear


@pytest.mark.parametrize(
    ("spacing", "pixdim"),
    [((2, 2, 3), (1, 1, 1)), ((0.5, 0.7, 5), (1, 1, 1)), ((2, 2, 3), (2, 2, 2.9)), ((1, 1, 1), (3, 2, 1)),
     ((0.3, 0.3, 0.3), (0.3, 0.3, 0.31)), ((2, 2, 3), (2, 2, 3))],
)  # fmt: skip
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_the_spacing_of_an_sform_alone_is_its_own(tmp_path, run, spacing, pixdim, name):
    path = saved(tmp_path / name, affine(spacing, turned=20), None, (2, 0), pixdim)
    for found in (files.read(path).GetSpacing(), files.header(path).spacing):
        np.testing.assert_allclose(found, spacing, rtol=1e-6)
    np.testing.assert_allclose(affine_of(files.read(path)), nib.load(path).affine, atol=1e-5)
    code, out, _ = run("info", path, "--json")
    assert code == 0
    assert f'"spacing": [\n    {np.float64(np.float32(spacing[0])):.3g}'[:16] in out


@pytest.mark.parametrize("shear", [0.02, 0.05, 0.5, 2.0, -0.1, 10.0])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_sheared_forms_are_read(tmp_path, shear, name):
    form = affine(turned=5, shear=shear)
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    path = saved(tmp_path / name, form, None, (1, 0), (2, 2, 3), voxels)
    image = files.read(path)
    np.testing.assert_allclose(affine_of(image), nib.load(path).affine, atol=1e-5)
    assert np.array_equal(sitk.GetArrayFromImage(image), voxels.T)
    header = files.header(path)
    np.testing.assert_allclose(header.direction, image.GetDirection(), atol=1e-12)
    # As a volume of that geometry.
    target = Grid((4, 4, 4), (2, 2, 3), (-14.0, -24, 33), (-1, 0, 0, 0, -1, 0, 0, 0, 1))
    made = gr.resample(image, like=target, interpolation="linear")
    volume = gr.Volume(voxels.T.copy(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    wanted = gr.resample(volume, like=target, interpolation="linear")
    assert np.array_equal(sitk.GetArrayFromImage(made), np.asarray(wanted.array))


def test_a_little_shear_goes_through_the_command_line(tmp_path, run):
    path = saved(tmp_path / "a.nii.gz", affine(shear=0.02), None, (4, 0), (2, 2, 3))
    code, _, err = run("resample", path, tmp_path / "b.nii.gz", "--spacing", "1")
    assert (code, err) == (0, "")
    assert nib.load(tmp_path / "b.nii.gz").shape == (4, 6, 12)


@pytest.mark.parametrize("forms", ["sform", "qform", "both"])
@pytest.mark.parametrize(("code", "unit"), [(1, 1e3), (3, 1e-3), (3 | 8, 1e-3), (2, 1.0)])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_metres_and_microns_are_millimetres(tmp_path, forms, code, unit, name):
    form, spacing = affine((2 / unit, 1.5 / unit, 3 / unit), np.array((10, 20, 30)) / unit, 20), (2, 1.5, 3)
    image = nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), None)
    image.header.set_qform(form, 1)
    image.header.set_sform(form, 1)
    image.header["sform_code"], image.header["qform_code"] = forms != "qform", forms != "sform"
    image.header["xyzt_units"] = code
    nib.save(image, tmp_path / name)
    ours, theirs, header = (
        files.read(tmp_path / name),
        sitk.ReadImage(str(tmp_path / name)),
        files.header(tmp_path / name),
    )
    np.testing.assert_allclose(theirs.GetSpacing(), spacing, rtol=1e-6)
    for part in ("Spacing", "Origin", "Direction"):
        wanted = getattr(theirs, f"Get{part}")()
        np.testing.assert_allclose(getattr(ours, f"Get{part}")(), wanted, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(getattr(header, part.lower()), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shear", [0.0, 0.5])
def test_a_sheared_file_is_not_read_in_parts(tmp_path, name, shear):
    """ITK reads a copy of it, which would be made for every part."""
    path = saved(tmp_path / name, affine(shear=shear), None, (1, 0), (2, 2, 3))
    found = files.in_parts(path)
    assert (found is None) == (shear > 0 or name.endswith(".gz"))


# ---------------------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("codes", [(4, 4), (2, 1), (3, 0), (0, 2), (5, 1), (1, 1)])
@pytest.mark.parametrize(("name", "made"), [("a.nii", "b.nii.gz"), ("a.nii.gz", "b.nii")])
def test_codes_are_kept(tmp_path, run, codes, name, made):
    form = affine()
    path = saved(tmp_path / name, form if codes[0] else None, form if codes[1] else None, codes, (2, 2, 3))
    assert run("resample", path, tmp_path / made, "--spacing", "1")[0] == 0
    assert codes_of(tmp_path / made) == codes
    assert np.array_equal(nib.load(tmp_path / made).affine[:3, 3], form[:3, 3])
    assert run("blur", path, tmp_path / made, "--sigma", "1", "--overwrite")[0] == 0
    assert codes_of(tmp_path / made) == codes
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([name, made])


def test_codes_are_those_of_the_grid(tmp_path, run):
    own = saved(tmp_path / "own.nii.gz", affine(), affine(), (1, 1))
    atlas = saved(tmp_path / "mni.nii.gz", affine((1, 1, 1)), affine((1, 1, 1)), (4, 4))
    assert run("resample", own, tmp_path / "b.nii.gz", "--like", atlas)[0] == 0
    assert codes_of(tmp_path / "b.nii.gz") == (4, 4)


def test_codes_of_forms_that_disagree_are_those_of_the_one_taken(tmp_path):
    path = saved(tmp_path / "a.nii", affine(), affine(turned=10), (4, 1))
    with pytest.warns(UserWarning, match="the qform is taken"):
        files.write(files.read(path), tmp_path / "b.nii")
    assert codes_of(tmp_path / "b.nii") == (1, 1)


# ------------------------------------------------------------------------------------------------ no numbers


@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("shape", [(5, 6, 7), (2, 3, 4, 3), (4, 3, 2, 1, 3), (90, 80, 70)])
def test_nan_and_infinity_are_kept(tmp_path, dtype, name, shape):
    rng = np.random.default_rng(1)
    voxels = rng.normal(size=shape).astype(dtype)
    odd = rng.random(shape)
    voxels[odd < 0.1], voxels[odd > 0.95], voxels[(odd > 0.93) & (odd < 0.95)] = np.nan, np.inf, -np.inf
    path = saved(tmp_path / name, affine(), affine(), voxels=voxels)
    image = files.read(path)
    array = sitk.GetArrayFromImage(image)
    components = image.GetNumberOfComponentsPerPixel()
    wanted = nib.load(path).get_fdata(dtype=np.dtype(dtype).newbyteorder("=")).T
    got = np.moveaxis(array, -1, 0) if components > 1 else array
    np.testing.assert_array_equal(got.reshape(wanted.shape), wanted)
    np.testing.assert_allclose(affine_of(image)[:3, :3] if len(shape) == 3 else np.eye(3), affine()[:3, :3]
                               if len(shape) == 3 else np.eye(3))  # fmt: skip


def test_nan_behind_a_slope_and_in_parts(tmp_path):
    voxels = np.ones((6, 5, 4), np.float32)
    voxels[1, 2, 3], voxels[5, 4, 0] = np.nan, np.inf
    path = saved(tmp_path / "a.nii", affine(), affine(), voxels=voxels)
    with open(path, "r+b") as file:
        file.seek(112)
        file.write(np.array([2.5, 1.0], "<f4").tobytes())
    array = sitk.GetArrayFromImage(files.read(path))
    np.testing.assert_array_equal(array, (voxels * 2.5 + 1).T)
    part = sitk.GetArrayFromImage(files.read_part(path, (1, 2, 0), (5, 3, 4)))
    np.testing.assert_array_equal(part, (voxels * 2.5 + 1).T[0:4, 2:5, 1:6])


def test_nan_in_a_pair_of_files(tmp_path):
    voxels = np.ones((6, 5, 4), np.float32)
    voxels[1, 2, 3] = np.nan
    nib.save(nib.Nifti1Pair(voxels, affine()), tmp_path / "a.hdr")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(tmp_path / "a.hdr")), voxels.T)


@pytest.mark.parametrize("name", ["x.hdr.gz", "x.img.gz"])
@pytest.mark.parametrize("odd", [np.nan, np.inf])
def test_nan_in_a_packed_pair_of_files(tmp_path, name, odd):
    voxels = np.ones((6, 5, 4), np.float32)
    voxels[1, 2, 3] = odd
    nib.save(nib.Nifti1Pair(voxels, affine()), tmp_path / "x.img.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.hdr.gz", "x.img.gz"]
    np.testing.assert_array_equal(sitk.GetArrayFromImage(files.read(tmp_path / name)), voxels.T)


# ------------------------------------------------------------------------------------------------ sizes, names


def test_a_size_does_not_hang_on_a_spacing_in_float32():
    """Usual combinations: the size by exact fractions, halves to even."""
    spacings = ["0.3", "0.35", "0.45", "0.5", "0.7", "0.75", "0.8", "0.95", "1.1", "1.2", "1.5", "2.5"]
    asked = ["0.5", "0.6", "0.9", "1.0", "1.5", "2.0", "3.0"]
    halves = 0
    for n, h, g in itertools.product(range(1, 160, 3), spacings, asked):
        exact = [k * Fraction(h) / Fraction(g) for k in (n, n + 1, n + 2)]
        halves += sum(f.denominator == 2 for f in exact)
        wanted = tuple(max(1, round(f)) for f in exact)
        for spacing in (float(h), float(np.float32(h))):
            assert resized(Grid.of_size((n, n + 1, n + 2), (spacing,) * 3), (float(g),) * 3).size == wanted, (n, h, g)
    assert halves > 100


@pytest.mark.parametrize(
    ("n", "h", "g"), [(5, 0.45, 1.5), (3, 0.35, 0.7), (11, 0.3, 0.6), (7, 0.45, 0.9), (9, 1.1, 2.2), (13, 0.15, 0.3)]
)
def test_a_size_is_the_same_out_of_nrrd_and_nifti(tmp_path, run, n, h, g):
    image = sitk.GetImageFromArray(np.zeros((3, 4, n), np.int16))
    image.SetSpacing((h, 1, 1))
    sizes = []
    for ending in (".nrrd", ".nii.gz"):
        sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
        assert run("resample", tmp_path / f"a{ending}", tmp_path / f"b{ending}", "--spacing", g, 1, 1)[0] == 0
        sizes.append(sitk.ReadImage(str(tmp_path / f"b{ending}")).GetSize()[0])
    assert sizes == [round(n / 2) if g == 2 * h else 2] * 2


@pytest.mark.parametrize("names", [["liver"], ["liver", "left lung"], ["a;b", "c=d", "e:f"], ["ü"], ["x"] * 6])
def test_names_of_segments_are_kept(tmp_path, run, names):
    labels = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, len(names) + 1, (6, 5, 4)).astype(np.uint8))
    labels.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    labels.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    for k, name in enumerate(names):
        for key, value in {
            "Name": name,
            "LabelValue": str(k + 1),
            "Color": "0.5 0.1 1",
            "Extent": "0 3 0 4 0 5",
        }.items():
            labels.SetMetaData(f"Segment{k}_{key}", value)
    sitk.WriteImage(labels, str(tmp_path / "a.seg.nrrd"))
    out = tmp_path / "b.seg.nrrd"
    assert run("resample", tmp_path / "a.seg.nrrd", out, "--spacing", 0.5, "--interpolation", "nearest")[0] == 0
    made = sitk.ReadImage(str(out))
    for k, name in enumerate(names):
        assert made.GetMetaData(f"Segment{k}_Name") == name
        assert made.GetMetaData(f"Segment{k}_LabelValue") == str(k + 1)
        assert f"Segment{k}_Extent" not in made.GetMetaDataKeys()
    assert made.GetMetaData("Segmentation_MasterRepresentation") == "Binary labelmap"


def test_a_packed_file_is_packed_once_more_and_whole(tmp_path):
    path = saved(tmp_path / "a.nii.gz", affine(), affine(), (4, 4), voxels=np.zeros((64, 64, 64), np.int16))
    files.write(files.read(path), tmp_path / "b.nii.gz")
    assert len(gzip.decompress((tmp_path / "b.nii.gz").read_bytes())) == 352 + 2 * 64**3


@pytest.mark.parametrize("codes", [(4, 4), (2, 2), (3, 1), (5, 5), (4, 1)])
def test_codes_of_pyramids_and_ensembles(tmp_path, run, codes):
    path = saved(tmp_path / "a.nii.gz", affine(), affine(), codes, voxels=np.ones((8, 8, 8), np.int16))
    assert run("pyramid", path, tmp_path / "levels", "--levels", 2)[0] == 0
    assert {codes_of(p) for p in (tmp_path / "levels").glob("*.nii.gz")} == {codes}
    np.savez(tmp_path / "s.npz", probabilities=np.random.default_rng(0).random((2, 8, 8, 8)).astype(np.float32))
    assert run("ensemble", tmp_path / "s.npz", "--like", path, "-o", tmp_path / "labels.nii.gz")[0] == 0
    assert codes_of(tmp_path / "labels.nii.gz") == codes
