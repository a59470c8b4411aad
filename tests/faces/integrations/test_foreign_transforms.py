"""`gr.read_transform` beside those who wrote the files, ANTs and nitransforms, and against formulas."""

import numpy as np
import pytest
import SimpleITK as sitk
from support import SINGLE, flat, noise, rotation

import gpuresample as gr

nib = pytest.importorskip("nibabel")
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
SIZE, DIRECTION = (28, 30, 24), rotation(11, -17, 9)
PLACE = ((1.1, 0.9, 1.5), (5.0, -7.0, 9.0), flat(DIRECTION))


def smooth(size, seed=0):
    """Blobs, as registrations like them, from 0 to 1000."""
    made = sitk.SmoothingRecursiveGaussian(sitk.GetImageFromArray(noise(size[::-1], seed=seed)), 2.5)
    return sitk.RescaleIntensity(made, 0, 1000)


@pytest.fixture(scope="module")
def pair():
    """Two oblique images that are worth registering."""
    fixed = smooth(SIZE)
    moving = sitk.Resample(fixed, sitk.AffineTransform((1.03, 0.04, 0, -0.03, 0.98, 0, 0, 0.02, 1), (1.2, -0.8, 0.5)))
    for k, image in enumerate((fixed, moving)):
        image.SetSpacing(PLACE[0])
        image.SetOrigin((5.0 + k, -7.0, 9.0 - k))
        image.SetDirection(PLACE[2])
    return fixed, moving


def assert_same(ours, theirs, share=0.0):
    """Within the contract, and outside is outside; but for a share of voxels."""
    a, b = sitk.GetArrayFromImage(ours).astype(np.float64), np.asarray(theirs, np.float64)
    assert a.shape == b.shape
    far = np.abs(a - b) > SINGLE * np.ptp(b)
    assert far.mean() <= share, f"{far.sum()} of {far.size} voxels differ, by up to {np.abs(a - b).max()}"
    assert ((a == 0) == (b == 0)).mean() >= 1 - share
    assert (b != 0).mean() > 0.01


# --- ANTs ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ants_files(pair, tmp_path_factory):
    """The files of a registration by ANTs, and its two images."""
    ants = pytest.importorskip("ants")
    folder = tmp_path_factory.mktemp("ants")
    images = []
    for name, image in zip(("fixed", "moving"), pair, strict=True):
        sitk.WriteImage(image, str(folder / f"{name}.nii.gz"))
        images.append(ants.image_read(str(folder / f"{name}.nii.gz")))
    ants.registration(*images, "SyN", outprefix=str(folder / "r_"), reg_iterations=(5, 2))
    ants.registration(
        *images, "SyN", outprefix=str(folder / "c_"), reg_iterations=(5, 2), write_composite_transform=True
    )
    read = [sitk.ReadImage(str(folder / f"{name}.nii.gz")) for name in ("fixed", "moving")]
    return ants, images, read, {
        "affine": str(folder / "r_0GenericAffine.mat"), "warp": str(folder / "r_1Warp.nii.gz"),
        "back": str(folder / "r_1InverseWarp.nii.gz"), "composite": str(folder / "c_Composite.h5"),
        "composite back": str(folder / "c_InverseComposite.h5"),
    }  # fmt: skip


CHAINS = (
    ("affine",), ("-affine",), ("warp",), ("warp", "affine"), ("-affine", "back"), ("composite",), ("composite back",),
)  # fmt: skip


@pytest.mark.parametrize("chain", CHAINS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "theirs"), [("linear", "linear"), ("nearest", "nearestNeighbor"), ("bspline", "bSpline")]
)
def test_antspyx_gives_the_same(ants_files, chain, name, theirs):
    ants, images, (fixed, moving), files = ants_files
    names, inverse = [files[c.removeprefix("-")] for c in chain], [c.startswith("-") for c in chain]
    # A list of one composite has no inverse to say.
    more = {} if chain[0].startswith("composite") else {"whichtoinvert": inverse}
    wanted = ants.apply_transforms(*images, names, interpolator=theirs, **more).numpy().T
    transform = gr.read_transform(list(zip(names, inverse, strict=True)))
    assert_same(gr.resample(moving, like=fixed, transform=transform, interpolation=name), wanted)


def test_antspyx_gives_the_same_in_four_dimensions(ants_files):
    ants, images, (fixed, moving), files = ants_files
    series = sitk.JoinSeries([moving + 100 * k for k in range(3)])
    array = np.ascontiguousarray(sitk.GetArrayFromImage(series).T)
    directions = np.eye(4)
    directions[:3, :3] = images[1].direction
    theirs = ants.from_numpy(
        array, origin=(*images[1].origin, 0.0), spacing=(*images[1].spacing, 1.0), direction=directions
    )
    names = [files["warp"], files["affine"]]
    wanted = ants.apply_transforms(images[0], theirs, names, imagetype=3).numpy().T
    assert_same(gr.resample(series, like=fixed, transform=gr.read_transform(names), interpolation="linear"), wanted)


# --- FSL, AFNI, FreeSurfer, X5 ---------------------------------------------------------------------------------------


def nifti(shape, zooms, turn, mirror, origin, seed=0):
    affine = np.eye(4)
    affine[:3, :3] = np.array(rotation(*turn)) @ np.diag(zooms * np.array([-1.0 if mirror else 1.0, 1, 1]))
    affine[:3, 3] = origin
    return nib.Nifti1Image(noise(shape, seed=seed), affine)


REFERENCE = {mirror: nifti((20, 22, 18), (1.1, 0.9, 1.5), (6, -12, 9), mirror, (5, -7, 9)) for mirror in (False, True)}
MOVING = {mirror: nifti((24, 19, 21), (1.3, 1, 1.2), (-3, 6, 11), mirror, (1, 2, -3), 1) for mirror in (False, True)}
# From the reference to the moving image, in RAS.
MATRIX = np.array([[1.04, 0.08, -0.1, 3], [-0.07, 0.95, 0.05, -4], [0.1, -0.04, 1.01, 5], [0, 0, 0, 1]])


def points(n=20):
    return np.random.default_rng(0).normal(scale=30, size=(n, 3))


def by_ours(transform, p):
    """Points in RAS through a transform in LPS."""
    return np.array([transform.TransformPoint((q * (-1, -1, 1)).tolist()) for q in p]) * (-1, -1, 1)


def by_matrix(matrix, p):
    return p @ matrix[:3, :3].T + matrix[:3, 3]


def fsl_of(image):
    """From RAS to FSL's millimetres: voxels times spacing, x mirrored where the affine is no mirror itself."""
    zooms = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    to = np.diag([*zooms, 1.0])
    if np.linalg.det(image.affine) > 0:
        to = np.array([[-1, 0, 0, (image.shape[0] - 1) * zooms[0]], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ to
    return to @ np.linalg.inv(image.affine)


@pytest.mark.parametrize("mirrors", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("name", ["t.mat", "MAT_0003"])
def test_flirts_matrices(tmp_path, mirrors, name):
    pytest.importorskip("nitransforms")
    reference, moving = REFERENCE[mirrors[0]], MOVING[mirrors[1]]
    stored = np.linalg.inv(fsl_of(moving) @ MATRIX @ np.linalg.inv(fsl_of(reference)))  # from moving to reference
    np.savetxt(tmp_path / name, stored, fmt="%.12f")
    found = gr.read_transform(tmp_path / name, reference=reference, moving=moving)
    np.testing.assert_allclose(by_ours(found, points()), by_matrix(MATRIX, points()), atol=1e-4)
    nib.save(reference, tmp_path / "r.nii.gz")
    nib.save(moving, tmp_path / "m.nii.gz")
    again = gr.read_transform(tmp_path / name, reference=tmp_path / "r.nii.gz", moving=str(tmp_path / "m.nii.gz"))
    np.testing.assert_allclose(by_ours(again, points()), by_matrix(MATRIX, points()), atol=1e-3)


def test_flirt_needs_both_images(tmp_path):
    np.savetxt(tmp_path / "t.mat", np.eye(4))
    with pytest.raises(OSError, match=r"t\.mat: is taken for a matrix of FLIRT, .* both must be known"):
        gr.read_transform(tmp_path / "t.mat", reference=REFERENCE[False])


def test_afnis_matrices(tmp_path):
    """12 numbers for each volume, in LPS, from the output to the input."""
    pytest.importorskip("nitransforms")
    rows = [(FLIP @ MATRIX @ FLIP)[:3].ravel() + k for k in (0, 0.01)]
    (tmp_path / "t.aff12.1D").write_text(
        "# 3dAllineate matrices\n" + "\n".join(" ".join(map(repr, map(float, r))) for r in rows)
    )
    found = gr.read_transform(tmp_path / "t.aff12.1D")
    assert len(found) == 2
    for k, one in enumerate(found):
        matrix = FLIP @ np.vstack([rows[k].reshape(3, 4), [0, 0, 0, 1]]) @ FLIP
        np.testing.assert_allclose(by_ours(one, points()), by_matrix(matrix, points()), atol=1e-9)


def test_afnis_matrices_of_oblique_images_are_nitransforms(tmp_path):
    linear = pytest.importorskip("nitransforms.linear")
    path = str(tmp_path / "t.aff12.1D")
    linear.Affine(MATRIX, reference=REFERENCE[False]).to_filename(path, fmt="afni", moving=MOVING[False])
    found = gr.read_transform(path, reference=REFERENCE[False], moving=MOVING[False])
    np.testing.assert_allclose(by_ours(found, points()), by_matrix(MATRIX, points()), atol=2e-3)
    plain = gr.read_transform(path)
    assert np.abs(by_ours(plain, points()) - by_matrix(MATRIX, points())).max() > 1


GEOMETRY = """{name} volume info
valid = 1  # volume info valid
filename = {name}.mgz
volume = {0} {1} {2}
voxelsize = {3} {4} {5}
xras   = {6} {7} {8}
yras   = {9} {10} {11}
zras   = {12} {13} {14}
cras   = {15} {16} {17}
"""


def geometry(name, image):
    """FreeSurfer's description of a volume: directions of axes, and the centre, which is at half the size."""
    zooms = np.sqrt((image.affine[:3, :3] ** 2).sum(axis=0))
    centre = by_matrix(image.affine, np.array(image.shape[:3]) / 2)
    return GEOMETRY.format(*image.shape[:3], *zooms, *(image.affine[:3, :3] / zooms).T.ravel(), *centre, name=name)


@pytest.mark.parametrize("kind", [0, 1])
def test_freesurfers_matrices(tmp_path, kind):
    """From src (moving) to dst (the reference), between voxels or points in RAS."""
    pytest.importorskip("nitransforms")
    reference, moving = REFERENCE[True], MOVING[False]
    stored = np.linalg.inv(MATRIX)
    if kind == 0:
        stored = np.linalg.inv(reference.affine) @ stored @ moving.affine
    rows = "\n".join(" ".join(f"{v:.15e}" for v in row) for row in stored)
    (tmp_path / "t.lta").write_text(
        f"type      = {kind} # LINEAR\nnxforms   = 1\nmean      = 0.0000 0.0000 0.0000\nsigma     = 1.0000\n1 4 4\n"
        f"{rows}\n{geometry('src', moving)}{geometry('dst', reference)}subject fsaverage\nfscale 0.15\n"
    )
    found = gr.read_transform(tmp_path / "t.lta")
    np.testing.assert_allclose(by_ours(found, points()), by_matrix(MATRIX, points()), atol=2e-4)


def test_x5(tmp_path):
    pytest.importorskip("nitransforms")
    from nitransforms import linear, nonlinear
    from nitransforms.io import x5

    linear.Affine(MATRIX, reference=REFERENCE[False]).to_filename(str(tmp_path / "t.x5"), fmt="X5")
    np.testing.assert_allclose(
        by_ours(gr.read_transform(tmp_path / "t.x5"), points()), by_matrix(MATRIX, points()), atol=1e-9
    )
    vectors = noise((*REFERENCE[False].shape, 3), seed=5) / 500
    field = nonlinear.DenseFieldTransform(vectors, reference=REFERENCE[False])
    x5.to_filename(tmp_path / "f.x5", [field.to_x5()])
    found = gr.read_transform(tmp_path / "f.x5")
    np.testing.assert_allclose(found.vectors, vectors.transpose(2, 1, 0, 3) * (-1, -1, 1), atol=1e-6)
    assert_at_nodes(found, vectors)
    x5.to_filename(tmp_path / "two.x5", [field.to_x5()] * 2)
    with pytest.raises(OSError, match=r"two\.x5: must hold one transform, got 2"):
        gr.read_transform(tmp_path / "two.x5")
    (tmp_path / "none.x5").write_text("nonsense")
    with pytest.raises(OSError, match=r"none\.x5: is no X5 file"):
        gr.read_transform(tmp_path / "none.x5")


def assert_at_nodes(transform, vectors, wanted=None):
    """The moving image resampled onto the field's grid, where every voxel is a node, against SciPy at these places."""
    ndimage = pytest.importorskip("scipy.ndimage")
    reference, moving = REFERENCE[False], MOVING[False]
    if wanted is None:
        index = np.moveaxis(np.indices(reference.shape), 0, -1).reshape(-1, 3)
        wanted = by_matrix(reference.affine, index) + vectors.reshape(-1, 3)
    at = by_matrix(np.linalg.inv(moving.affine), wanted)
    inside = ((at > 0.01) & (at < np.array(moving.shape) - 1.01)).all(axis=1)
    assert inside.mean() > 0.05
    values = ndimage.map_coordinates(moving.get_fdata(), at.T, order=1, mode="nearest")
    made = gr.resample(moving, like=reference, transform=transform, interpolation="linear", dtype="float64")
    difference = np.abs(made.get_fdata().reshape(-1) - values)[inside]
    assert difference.max() <= 1e-4 * np.ptp(values)


@pytest.mark.parametrize("intent", [2006, 0])
def test_fsls_fields(tmp_path, intent):
    """A voxel of the reference, in FSL's millimetres, plus its vector is a place of the moving image in its own."""
    reference, moving = REFERENCE[False], MOVING[False]
    vectors = noise((*reference.shape, 3), seed=5) / 500
    image = nib.Nifti1Image(vectors, reference.affine)
    image.header["intent_code"] = intent
    nib.save(image, tmp_path / "field.nii.gz")
    more = {} if intent else {"format": "fsl"}
    found = gr.read_transform(tmp_path / "field.nii.gz", moving=moving, **more)
    index = np.moveaxis(np.indices(reference.shape), 0, -1).reshape(-1, 3)
    there = by_matrix(fsl_of(reference), by_matrix(reference.affine, index)) + vectors.reshape(-1, 3)
    assert_at_nodes(found, vectors, by_matrix(np.linalg.inv(fsl_of(moving)), there))


def test_fsls_fields_on_plumb_images_are_nitransforms(tmp_path):
    io = pytest.importorskip("nitransforms.io")
    plumb = nib.Nifti1Image(np.zeros((5, 6, 7), np.float32), np.diag([1.5, 1.2, 2, 1]))
    image = nib.Nifti1Image(noise((5, 6, 7, 3)) / 500, plumb.affine)
    image.header["intent_code"] = 2006
    nib.save(image, tmp_path / "field.nii.gz")
    theirs = io.fsl.FSLDisplacementsField.from_image(nib.load(tmp_path / "field.nii.gz")).get_fdata()  # in RAS
    field, onto = gr.read_transform(tmp_path / "field.nii.gz").transforms
    np.testing.assert_allclose(field.vectors.transpose(2, 1, 0, 3) * (-1, -1, 1), theirs, atol=1e-6)
    np.testing.assert_allclose(onto.GetMatrix(), np.eye(3).ravel(), atol=1e-12)


def test_afnis_warps(tmp_path):
    io = pytest.importorskip("nitransforms.io")
    vectors = noise((*REFERENCE[False].shape, 1, 3), seed=5) / 500
    nib.save(nib.Nifti1Image(vectors, REFERENCE[False].affine), tmp_path / "warp.nii.gz")
    theirs = io.afni.AFNIDisplacementsField.from_image(nib.load(tmp_path / "warp.nii.gz")).get_fdata()  # in RAS
    assert_at_nodes(gr.read_transform(tmp_path / "warp.nii.gz", format="afni"), theirs)


@pytest.mark.parametrize("name", ["t.lta", "t.aff12.1D"])
@pytest.mark.parametrize("content", ["", "nonsense\n", "type = 1\nnxforms = 1\n", "1 2 3\n"])
def test_damaged_files_are_named(tmp_path, name, content):
    pytest.importorskip("nitransforms")
    (tmp_path / name).write_text(content)
    with pytest.raises(OSError, match=rf"{name}: holds no matrix that nitransforms can read"):
        gr.read_transform(tmp_path / name)


def test_mcflirts_matrices_are_applied_to_a_series(tmp_path, run):
    """The matrices are between volumes of the series, whatever grid the output has."""
    pytest.importorskip("nitransforms")
    moving, like = MOVING[False], REFERENCE[False]
    series = nib.Nifti1Image(noise((*moving.shape, 3)), moving.affine)
    nib.save(series, tmp_path / "series.nii.gz")
    nib.save(like, tmp_path / "like.nii.gz")
    (tmp_path / "mats").mkdir()
    itk = []
    for k in range(3):
        matrix = np.eye(4) + 0.1 * k * (MATRIX - np.eye(4))
        stored = np.linalg.inv(fsl_of(moving) @ matrix @ np.linalg.inv(fsl_of(moving)))
        np.savetxt(tmp_path / "mats" / f"MAT_{k:04d}", stored, fmt="%.12f")
        lps = FLIP @ matrix @ FLIP
        itk.append(sitk.AffineTransform(lps[:3, :3].ravel().tolist(), lps[:3, 3].tolist()))
    path = tmp_path / "series.nii.gz"
    code, out, err = run(
        "apply", path, tmp_path / "out.nii.gz", "--like", tmp_path / "like.nii.gz", "--series", "-t", tmp_path / "mats",
        "--reference", path, "--moving", path,
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert "FSL FLIRT" in out
    assert "from input to output in the file, inverted" in out
    got, fixed = sitk.ReadImage(str(tmp_path / "out.nii.gz")), sitk.ReadImage(str(tmp_path / "like.nii.gz"))
    for k in range(3):
        wanted = sitk.GetArrayFromImage(
            sitk.Resample(sitk.ReadImage(str(path))[..., k], fixed, itk[k], sitk.sitkLinear)
        )
        off = np.abs(sitk.GetArrayFromImage(got)[k] - wanted)
        assert (off > 1e-4 * np.ptp(wanted)).mean() < 1e-3  # on a face of the volume float32 headers may decide
        assert (wanted != 0).mean() > 0.05
