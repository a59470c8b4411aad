"""`gr.reorient` and `gr.conform`, against nibabel and SimpleITK."""

import itertools

import numpy as np
import pytest
import SimpleITK as sitk
from support import ANISOTROPIC, DOUBLE, SINGLE, flat, noise, rotation, same_bits, to_image

import gpuresample as gr

ALL = [
    "".join(letters)
    for order in itertools.permutations(("LR", "PA", "SI"))
    for letters in itertools.product(*order)
]  # fmt: skip
OBLIQUE = ANISOTROPIC._replace(direction=rotation(17, -25, 31))


def sitk_image(dtype="int16", geometry=OBLIQUE, code="LPS", seed=0):
    """An image whose axes lead anywhere; `DICOMOrient` is not asked: it is what is tested against."""
    array = noise(geometry.size[::-1], dtype, seed)
    image = to_image(array, geometry)
    columns = np.reshape(image.GetDirection(), (3, 3))
    axes = ["LRPASI".index(letter) for letter in code]
    image.SetDirection((columns[:, [a // 2 for a in axes]] * [(-1) ** (a % 2) for a in axes]).ravel().tolist())
    return image


def assert_same_place(ours, theirs):
    np.testing.assert_allclose(ours.GetSpacing(), theirs.GetSpacing(), rtol=0, atol=0)
    np.testing.assert_allclose(ours.GetOrigin(), theirs.GetOrigin(), rtol=1e-13, atol=1e-11)
    np.testing.assert_allclose(ours.GetDirection(), theirs.GetDirection(), rtol=0, atol=0)
    assert same_bits(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs))


@pytest.mark.parametrize("code", ALL)
def test_all_orientations_are_simpleitks(code):
    image = sitk_image()
    made = gr.reorient(image, code)
    assert_same_place(made, sitk.DICOMOrient(image, code))
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(made.GetDirection()) == code
    back = gr.reorient(made, "LPS")
    assert same_bits(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("start", ["LPS", "RAS", "PIR", "SAR", "ILP", "ASL"])
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint64", "int64", "float32", "float64"])
def test_every_type_is_copied_bit_by_bit(start, dtype):
    image = sitk_image(dtype, code=start)
    if dtype.startswith("float"):
        image[3, 4, 5], image[0, 0, 0] = float("nan"), float("-inf")
    if dtype.endswith("64") and dtype != "float64":
        image[3, 4, 5] = 2**63 - 1
    assert_same_place(gr.reorient(image, "RAS"), sitk.DICOMOrient(image, "RAS"))


def test_turned_anywhere_it_is_simpleitks_and_nibabels():
    nib = pytest.importorskip("nibabel")
    rng = np.random.default_rng(0)
    array = noise((3, 4, 5), "int16")
    for _ in range(200):
        q, _ = np.linalg.qr(rng.normal(size=(3, 3)))
        image = sitk.GetImageFromArray(array)
        image.SetDirection(q.ravel().tolist())
        assert_same_place(gr.reorient(image, "RAS"), sitk.DICOMOrient(image, "RAS"))
        affine = np.eye(4)
        affine[:3, :3] = q * (0.7, 1.1, 2.3)
        theirs = nib.as_closest_canonical(nib.Nifti1Image(array.T, affine))
        ours = gr.reorient(nib.Nifti1Image(array.T, affine))
        assert same_bits(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-12)


def test_vectors_and_four_axes():
    vectors = sitk.GetImageFromArray(noise((5, 6, 7, 3)), isVector=True)
    vectors.SetDirection(flat(rotation(10, 20, 120)))
    made = gr.reorient(vectors, "SAR")
    for k in range(3):
        wanted = sitk.DICOMOrient(sitk.VectorIndexSelectionCast(vectors, k), "SAR")
        assert_same_place(sitk.VectorIndexSelectionCast(made, k), wanted)
    series = sitk.JoinSeries([sitk_image(seed=k) for k in range(3)], 5.0, 2.0)
    made = gr.reorient(series, "SAR")
    assert (made.GetSize()[3], made.GetSpacing()[3], made.GetOrigin()[3]) == (3, 2.0, 5.0)
    for k in range(3):
        assert_same_place(made[..., k], sitk.DICOMOrient(series[..., k], "SAR"))


def test_volumes_in_memory_and_read_block_by_block():
    image = sitk_image("float32", code="PIR")
    array = sitk.GetArrayFromImage(image)
    batch = np.stack([array, array + 1])
    volume = gr.Volume(batch, image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    wanted = sitk.DICOMOrient(image, "RAS")
    made = gr.reorient(volume, "ras")
    assert made.grid == gr.Grid(
        wanted.GetSize(), wanted.GetSpacing(), made.origin, tuple(v + 0.0 for v in wanted.GetDirection())
    )
    np.testing.assert_allclose(made.origin, wanted.GetOrigin(), atol=1e-11)
    for k in range(2):
        assert same_bits(made.array[k], sitk.GetArrayFromImage(wanted) + np.float32(k))
    dask = pytest.importorskip("dask.array")
    lazy = gr.Volume(dask.from_array(batch, chunks=(1, 5, 7, 6)), *(volume.spacing, volume.origin, volume.direction))
    turned = gr.reorient(lazy, "RAS")
    assert turned.grid == made.grid
    assert same_bits(turned.array.compute(), made.array)


def test_out_is_written_to():
    image = sitk_image()
    out = gr.reorient(image, "RAS") * 0
    assert gr.reorient(image, "RAS", out=out) is out
    assert_same_place(out, sitk.DICOMOrient(image, "RAS"))


@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, -1)])
def test_nibabels_canonical_with_its_header(axes, signs):
    nib = pytest.importorskip("nibabel")
    affine = np.eye(4)
    affine[:3, :3] = (np.array(rotation(8, -12, 5)) @ np.eye(3)[:, axes]) * signs * (0.9, 1.2, 3.0)
    affine[:3, 3] = 5, -7, 9
    image = nib.Nifti1Image(noise((7, 8, 9, 2), "int16"), affine)
    image.header.set_dim_info(freq=1, phase=0, slice=2)
    image.header["slice_code"], image.header["slice_start"], image.header["slice_end"] = 3, 1, 7
    image.set_sform(affine, 4)
    image.set_qform(affine, 1)
    made, theirs = gr.reorient(image), nib.as_closest_canonical(image)
    assert same_bits(np.asarray(made.dataobj), np.ascontiguousarray(theirs.dataobj))
    np.testing.assert_allclose(made.affine, theirs.affine, atol=1e-5)
    assert nib.aff2axcodes(made.affine) == ("R", "A", "S")
    assert made.header.get_dim_info() == theirs.header.get_dim_info()
    assert (int(made.header["sform_code"]), int(made.header["qform_code"])) == (4, 1)
    for form in (made.get_sform(), made.get_qform()):
        np.testing.assert_allclose(form, theirs.affine, atol=1e-4)
    assert made.header.get_zooms()[:3] == pytest.approx(theirs.header.get_zooms()[:3])
    # The slice that was taken first is the same one.
    code, first, last = (int(made.header[name]) for name in ("slice_code", "slice_start", "slice_end"))
    back = signs[2] < 0
    assert (code, first, last) == ((4, 1, 7) if back else (3, 1, 7))
    started, n = (last if code == 4 else first), 9
    there = np.moveaxis(np.asarray(made.dataobj), made.header.get_dim_info()[2], 0)[started]
    here = np.asarray(image.dataobj)[:, :, 1]
    assert sorted(there.ravel().tolist()) == sorted(here.ravel().tolist()), n


def test_flipped_slices_that_do_not_begin_at_an_end():
    nib = pytest.importorskip("nibabel")
    image = nib.Nifti1Image(noise((3, 4, 10), "int16"), np.diag([1.0, 1, -2, 1]))
    image.header.set_dim_info(slice=2)
    image.header["slice_code"], image.header["slice_start"], image.header["slice_end"] = 1, 2, 8
    made = gr.reorient(image)
    assert [int(made.header[name]) for name in ("slice_code", "slice_start", "slice_end")] == [2, 1, 7]


def test_images_without_nifti_headers():
    nib = pytest.importorskip("nibabel")
    affine = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 6], [0, -1.5, 0, 7], [0, 0, 0, 1]])
    image = nib.MGHImage(noise((4, 5, 6)), affine)
    made, theirs = gr.reorient(image), nib.as_closest_canonical(image)
    assert isinstance(made, nib.MGHImage)
    np.testing.assert_allclose(made.affine, theirs.affine, atol=1e-5)
    assert same_bits(np.ascontiguousarray(made.dataobj), np.ascontiguousarray(theirs.dataobj))


@pytest.mark.parametrize(
    "word", ["", "RA", "RASL", "RAA", "RLS", "XYZ", "RAZ", "left"], ids=lambda word: word or "nothing"
)
def test_other_words_are_refused(word):
    with pytest.raises(ValueError, match=r"orientation must be three letters, one of each pair .*, got '"):
        gr.reorient(sitk_image(), word)
    with pytest.raises(ValueError, match="orientation must be three letters"):
        gr.conform(sitk_image(), orientation=word)


def test_what_has_no_orientation_is_refused():
    with pytest.raises(TypeError, match=r"orientation must be three letters.* got \('R', 'A', 'S'\)"):
        gr.reorient(sitk_image(), ("R", "A", "S"))
    with pytest.raises(TypeError, match="a bare array does not say where its axes lead to"):
        gr.reorient(np.zeros((3, 4, 5)))
    with pytest.raises(ValueError, match="three axes in space to have an orientation, got 2"):
        gr.reorient(sitk.Image(4, 5, sitk.sitkUInt8))


# --- conform ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "IPL"])
@pytest.mark.parametrize(("size", "spacing"), [((16, 17, 18), (1.4142, 1.7321, 1.618)), ((30, 9, 20), (0.8, 2.0, 3.1))])
@pytest.mark.parametrize(("order", "name"), [(0, "nearest"), (1, "linear"), (3, "bspline")])
def test_it_is_nibabels_conform(orientation, size, spacing, order, name):
    nib = pytest.importorskip("nibabel")
    processing = pytest.importorskip("nibabel.processing")
    affine = np.eye(4)
    affine[:3, :3] = np.array(rotation(8, -12, 95)) * (0.9, 1.2, 3.0)
    affine[:3, 3] = 5, -7, 9
    image = nib.Nifti1Image(noise((21, 19, 11), "float64"), affine)
    theirs = processing.conform(image, size, spacing, order=order, cval=-5.0, orientation=orientation)
    made = gr.conform(
        image, size=size, spacing=spacing, orientation=orientation, interpolation=name, default_value=-5.0
    )
    np.testing.assert_allclose(made.affine, theirs.affine, atol=1e-5)
    wanted = np.asarray(theirs.dataobj)
    np.testing.assert_allclose(np.asarray(made.dataobj), wanted, atol=DOUBLE * np.ptp(wanted))


def test_every_kind_of_image_is_conformed():
    nib = pytest.importorskip("nibabel")
    array = noise((11, 19, 21), "float32")
    grid = gr.Grid((21, 19, 11), (0.9, 1.2, 3.0), (5.0, -7.0, 9.0), flat(rotation(8, -12, 95)))
    image = to_image(array, OBLIQUE._replace(direction=rotation(8, -12, 95)))
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    affine = np.diag([-1.0, -1, 1, 1]) @ np.vstack([np.c_[grid.index_to_point, grid.origin], [0, 0, 0, 1]])
    keywords = {"size": (16, 12, 9), "spacing": (1, 2, 3), "orientation": "PIR"}
    by_nibabel = gr.conform(nib.Nifti1Image(array.T, affine), **keywords)
    wanted = np.asarray(by_nibabel.dataobj).T
    by_sitk = gr.conform(image, **keywords)
    by_volume = gr.conform(gr.Volume(array, grid.spacing, grid.origin, grid.direction), **keywords)
    for got in (sitk.GetArrayFromImage(by_sitk), by_volume.array):
        np.testing.assert_allclose(got, wanted, atol=SINGLE * np.ptp(array))
    np.testing.assert_allclose(by_sitk.GetOrigin(), by_volume.origin, atol=1e-12)
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(by_sitk.GetDirection()) == "PIR"


def test_defaults_are_nibabels():
    pytest.importorskip("nibabel")
    image = sitk_image("uint8")
    made = gr.conform(image)
    assert (made.GetSize(), made.GetSpacing()) == ((256, 256, 256), (1.0, 1.0, 1.0))
    assert made.GetPixelID() == image.GetPixelID()


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"size": (4, 5)}, "size must have 3 values"), ({"size": (4, 5, 0)}, "size must be 3 whole numbers"),
        ({"spacing": 0}, "spacing must be above zero"), ({"spacing": (1, 2)}, "spacing must have 3 values"),
        ({"interpolation": "lanczos"}, "convention='nibabel' offers interpolation"),
        ({"size": (2**20, 2**20, 2**20)}, "size .* asks for an output"),
    ],
)  # fmt: skip
def test_what_conform_refuses(keywords, error):
    with pytest.raises(ValueError, match=error):
        gr.conform(sitk_image(), **keywords)
