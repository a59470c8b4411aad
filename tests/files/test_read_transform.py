"""`gr.read_transform`: ITK's kinds, displacement fields, elastix' files and chains, bare matrices; what is refused.

ANTs, elastix and nitransforms themselves are in `faces/integrations/test_foreign_transforms.py`.
"""

import shutil
from functools import partial

import elastix_made
import numpy as np
import pytest
import SimpleITK as sitk
from support import ANISOTROPIC, SINGLE, flat, noise, rotation, to_grid, to_image

import gpuresample as gr
from gpuresample.files import transforms

RNG = np.random.default_rng(0)
CENTRE = (-110.0, 18.0, 45.0)
GRID = ANISOTROPIC._replace(direction=rotation(10, -20, 30))
POINTS = (np.array(CENTRE) + RNG.normal(scale=6, size=(50, 3))).tolist()


def affine(d=3):
    matrix = np.eye(d) + RNG.normal(scale=0.05, size=(d, d))
    return sitk.AffineTransform(matrix.ravel().tolist(), [1.5, -2, 0.5][:d], CENTRE[:d])


def euler(zyx=False):
    made = sitk.Euler3DTransform(CENTRE, 0.1, -0.2, 0.3, (1, 2, 3))
    made.SetComputeZYX(zyx)
    return made


def spline(order=3):
    made = sitk.BSplineTransformInitializer(image(), (3, 4, 2), order)
    made.SetParameters(RNG.normal(scale=1.5, size=len(made.GetParameters())).tolist())
    return made


def image(dtype="float32"):
    return to_image(noise(GRID.size[::-1], dtype), GRID)


def vectors(scale=1.5):
    """A field of noise on a coarser grid."""
    field = sitk.GetImageFromArray(RNG.normal(scale=scale, size=(7, 9, 11, 3)).astype(np.float32), isVector=True)
    field.SetSpacing((1.6, 2.5, 5.0))
    field.SetOrigin(GRID.origin)
    field.SetDirection(flat(GRID.direction))
    return field


KINDS = {
    "translation": lambda: sitk.TranslationTransform(3, (1.5, -2, 3)),
    "scale": lambda: sitk.ScaleTransform(3, (1.1, 0.9, 1.2)),
    "affine": affine,
    "euler": euler,
    "euler zyx": lambda: euler(True),
    "versor": lambda: sitk.VersorRigid3DTransform((0, 0.6, 0.8), 0.3, (1, 2, 3), CENTRE),
    "similarity": lambda: sitk.Similarity3DTransform(1.1, (0, 0.6, 0.8), 0.3, (1, 2, 3), CENTRE),
    "scale versor": lambda: sitk.ScaleVersor3DTransform((1.1, 0.9, 1), (0, 0.6, 0.8), 0.3, (1, 2, 3), CENTRE),
    "spline": spline,
    "spline of order 2": lambda: spline(2),
    "field": lambda: sitk.DisplacementFieldTransform(sitk.Cast(vectors(), sitk.sitkVectorFloat64)),
    "composite": lambda: sitk.CompositeTransform([affine(), spline(), euler()]),
}  # fmt: skip


# ITK writes no composite as .mat.
PAIRS = [(k, e) for k in KINDS for e in (".tfm", ".txt", ".h5", ".mat") if (k, e) != ("composite", ".mat")]


@pytest.mark.parametrize(("kind", "ending"), PAIRS)
def test_itks_transforms_go_through_files(tmp_path, kind, ending):
    made, path = KINDS[kind](), str(tmp_path / f"t{ending}")
    sitk.WriteTransform(made, path)
    found = gr.read_transform(path)
    assert [found.TransformPoint(p) for p in POINTS] == [made.TransformPoint(p) for p in POINTS]
    moved = gr.resample(image(), transform=found, interpolation="linear")
    wanted = sitk.GetArrayFromImage(sitk.Resample(image(), made, sitk.sitkLinear, 0.0, sitk.sitkFloat64))
    np.testing.assert_allclose(sitk.GetArrayFromImage(moved), wanted, atol=SINGLE * np.ptp(wanted))
    assert transforms.is_transform(tmp_path / f"t{ending}")
    said = str(transforms.load(path))
    assert made.GetName() in said
    assert "from output to input, as stored" in said


def test_two_dimensions(tmp_path):
    for made in (affine(2), sitk.Euler2DTransform((1, 2), 0.3, (4, 5))):
        sitk.WriteTransform(made, str(tmp_path / "t.tfm"))
        assert gr.read_transform(tmp_path / "t.tfm").TransformPoint((7, 8)) == made.TransformPoint((7, 8))


def test_a_chain_goes_through_the_first_one_first(tmp_path):
    """The order of antsApplyTransforms' -t: the composite that ITK makes of them has them the other way round."""
    members, paths = [affine(), spline(), euler()], []
    for k, made in enumerate(members):
        paths.append(tmp_path / f"{k}.h5")
        sitk.WriteTransform(made, str(paths[-1]))
    back = members[0].GetInverse()
    for chain, same in (
        (paths, members[::-1]), (paths[::-1], members), ([f"[{paths[0]},1]", paths[1]], [members[1], back]),
        ([(paths[0], True), (paths[1], False)], [members[1], back]), ([f"[{paths[0]}, 0]"], members[:1]),
        ([f"[{paths[2]},1]"], [members[2].GetInverse()]),
    ):  # fmt: skip
        found = gr.read_transform(chain)
        moved = gr.resample(image(), transform=found, interpolation="linear")
        wanted = sitk.Resample(image(), sitk.CompositeTransform(same), sitk.sitkLinear, 0.0, sitk.sitkFloat64)
        difference = np.abs(sitk.GetArrayFromImage(moved) - sitk.GetArrayFromImage(wanted))
        assert difference.max() <= SINGLE * np.ptp(sitk.GetArrayFromImage(wanted))


def test_the_inverse_of_a_linear_composite(tmp_path):
    made = sitk.CompositeTransform([affine(), euler()])
    sitk.WriteTransform(made, str(tmp_path / "t.h5"))
    back = gr.read_transform((tmp_path / "t.h5", True))
    for p in POINTS:
        np.testing.assert_allclose(back.TransformPoint(made.TransformPoint(p)), p, atol=1e-10)


# --- displacement fields ---------------------------------------------------------------------------------------------


def assert_field(found, field, loose=1):
    """Whether a transform does what SimpleITK's transform of these vectors does."""
    same = sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))
    moved = sitk.GetArrayFromImage(gr.resample(image(), transform=found, interpolation="linear"))
    wanted = sitk.GetArrayFromImage(sitk.Resample(image(), same, sitk.sitkLinear, 0.0, sitk.sitkFloat64))
    np.testing.assert_allclose(moved, wanted, atol=loose * SINGLE * np.ptp(wanted))
    assert not np.allclose(wanted, sitk.GetArrayFromImage(image()))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("pixel", [sitk.sitkVectorFloat32, sitk.sitkVectorFloat64])
def test_images_of_vectors_are_fields(tmp_path, ending, pixel):
    field = sitk.Cast(vectors(), pixel)
    sitk.WriteImage(field, str(tmp_path / f"warp{ending}"))
    found = gr.read_transform(tmp_path / f"warp{ending}")
    assert isinstance(found, gr.DisplacementField)
    assert found.vectors.dtype == (np.float32 if pixel == sitk.sitkVectorFloat32 else np.float64)
    assert_field(found, sitk.ReadImage(str(tmp_path / f"warp{ending}")))


@pytest.mark.parametrize("intent", [1007, 1006])
@pytest.mark.parametrize("version", [1, 2])
def test_the_intent_decides_what_vectors_mean(tmp_path, intent, version):
    """1007 is LPS as stored; 1006 is RAS, so x and y are negated."""
    nib = pytest.importorskip("nibabel")
    field = vectors()
    stored = sitk.GetArrayFromImage(field) * (np.float32([-1, -1, 1]) if intent == 1006 else np.float32(1))
    grid = np.eye(4)
    grid[:3, :3] = np.reshape(field.GetDirection(), (3, 3)) * field.GetSpacing()
    grid[:3, 3] = field.GetOrigin()
    kind = nib.Nifti1Image if version == 1 else nib.Nifti2Image
    made = kind(stored.transpose(2, 1, 0, 3)[:, :, :, None], np.diag([-1.0, -1, 1, 1]) @ grid)
    made.header.set_intent(intent)
    nib.save(made, tmp_path / "warp.nii.gz")
    # A header of NIfTI-1 has its geometry in float32.
    assert_field(gr.read_transform(tmp_path / "warp.nii.gz"), field, loose=10)
    said = str(transforms.load(tmp_path / "warp.nii.gz"))
    assert ("RAS, turned to LPS" in said) == (intent == 1006)


def test_vectors_of_unknown_space_are_refused(tmp_path):
    nib = pytest.importorskip("nibabel")
    for shape in ((4, 5, 6, 3), (4, 5, 6, 1, 3)):
        nib.save(nib.Nifti1Image(noise(shape), np.eye(4)), tmp_path / "t.nii")
        with pytest.raises(
            OSError, match=r"t\.nii: its header does not say what its vectors are \(intent 0\): 1007 are"
        ):
            gr.read_transform(tmp_path / "t.nii")
    coefficients = nib.Nifti1Image(noise((4, 5, 6, 3)), np.eye(4))
    coefficients.header["intent_code"] = 2007
    nib.save(coefficients, tmp_path / "t.nii")
    with pytest.raises(OSError, match="holds spline coefficients of FNIRT"):
        gr.read_transform(tmp_path / "t.nii")


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_images_are_no_transforms(tmp_path, ending):
    sitk.WriteImage(image(), str(tmp_path / f"t{ending}"))
    with pytest.raises(OSError, match=rf"t\{ending}: is an image, not a transform"):
        gr.read_transform(tmp_path / f"t{ending}")
    two = sitk.GetImageFromArray(noise((4, 5, 6, 2)), isVector=True)
    sitk.WriteImage(two, str(tmp_path / "two.mha"))
    with pytest.raises(OSError, match="a vector of 3 components in every voxel, got 2"):
        gr.read_transform(tmp_path / "two.mha")


# --- elastix ---------------------------------------------------------------------------------------------------------


parameters = partial(elastix_made.parameters, GRID)
ELASTIX = {
    "TranslationTransform": KINDS["translation"], "EulerTransform": euler, "SimilarityTransform": KINDS["similarity"],
    "AffineTransform": affine, "BSplineTransform": spline,
}  # fmt: skip


@pytest.mark.parametrize("name", ELASTIX)
def test_elastix_models(tmp_path, name):
    made = ELASTIX[name]()
    (tmp_path / "TransformParameters.0.txt").write_text(parameters(made, name))
    loaded = transforms.load(tmp_path / "TransformParameters.0.txt")
    assert [loaded.transforms[0].TransformPoint(p) for p in POINTS] == [made.TransformPoint(p) for p in POINTS]
    assert loaded.grid == to_grid(GRID)
    assert "elastix" in str(loaded)


@pytest.mark.parametrize(
    ("made", "name"),
    [(euler(True), "EulerTransform"), (spline(2), "BSplineTransform"), (spline(1), "BSplineTransform"),
     (sitk.Euler2DTransform((1, 2), 0.3, (4, 5)), "EulerTransform"), (affine(2), "AffineTransform"),
     (sitk.Similarity2DTransform(1.2, 0.3, (4, 5), (1, 2)), "SimilarityTransform")],
)  # fmt: skip
def test_elastix_other_orders_and_dimensions(tmp_path, made, name):
    d = made.GetDimension()
    text = parameters(made, name, Size=None) if d == 2 else parameters(made, name)
    (tmp_path / "t.txt").write_text(text)
    found = gr.read_transform(tmp_path / "t.txt")
    assert [found.TransformPoint(p[:d]) for p in POINTS] == [made.TransformPoint(p[:d]) for p in POINTS]


def chain(folder, named=lambda k: f"TransformParameters.{k}.txt"):
    """Three files, one after the other, and the composite that they are."""
    members = [
        ("TranslationTransform", KINDS["translation"]()),
        ("EulerTransform", euler()),
        ("BSplineTransform", spline()),
    ]
    for k, (name, made) in enumerate(members):
        before = str(named(k - 1)) if k else "NoInitialTransform"
        (folder / f"TransformParameters.{k}.txt").write_text(parameters(made, name, before))
    return sitk.CompositeTransform([made for _, made in reversed(members)])


@pytest.mark.parametrize("word", ["InitialTransformParameterFileName", "InitialTransformParametersFileName"])
def test_elastix_chains(tmp_path, word):
    wanted = chain(tmp_path)
    for path in tmp_path.iterdir():
        path.write_text(path.read_text().replace("InitialTransformParameterFileName", word))
    loaded = transforms.load(tmp_path / "TransformParameters.2.txt")
    assert [loaded.transforms[0].TransformPoint(p) for p in POINTS] == [wanted.TransformPoint(p) for p in POINTS]
    assert [p.name for p in loaded.files] == [f"TransformParameters.{k}.txt" for k in (2, 1, 0)]
    assert "with TransformParameters.0.txt, TransformParameters.1.txt before it" in str(loaded)


def test_elastix_chains_whose_folder_has_moved(tmp_path):
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    wanted = chain(old, lambda k: old / f"TransformParameters.{k}.txt")
    shutil.move(old, new)
    found = gr.read_transform(new / "TransformParameters.2.txt")
    assert [found.TransformPoint(p) for p in POINTS] == [wanted.TransformPoint(p) for p in POINTS]


def test_elastix_in_toml(tmp_path):
    made = euler(True)
    text = parameters(made, "EulerTransform").split("//")[0].strip()
    lines = [line[1:-1].split(" ", 1) for line in text.splitlines()]
    toml = "\n".join(
        f"{k} = {v if len(v.split()) == 1 else '[' + ', '.join(v.split()) + ']'}" for k, v in lines
    ).replace('"true"', "true").replace('"false"', "false")  # fmt: skip
    (tmp_path / "TransformParameters.0.toml").write_text(toml)
    found = gr.read_transform(tmp_path / "TransformParameters.0.toml")
    assert [found.TransformPoint(p) for p in POINTS] == [made.TransformPoint(p) for p in POINTS]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"Transform": ('"WeightedCombinationTransform"',)}, "Transform must be one of .*, got WeightedCombination"),
        ({"TransformParameters": (1.0, 2.0)}, "TransformParameters must have 6 numbers, got 2; is the file cut short"),
        ({"TransformParameters": None}, "has no entry TransformParameters"),
        ({"TransformParameters": ("nan", "0", "0", "0", "0", "0")}, "TransformParameters must have finite numbers"),
        ({"TransformParameters": ("a", "0", "0", "0", "0", "0")}, "TransformParameters must have numbers"),
        ({"UseDirectionCosines": ('"false"',)}, "UseDirectionCosines false"),
        ({"FixedImageDimension": (4,)}, "must have images of 2 or of 3 dimensions, got 4 and 3"),
        ({"MovingImageDimension": (2,)}, "must have images of 2 or of 3 dimensions, got 3 and 2"),
        ({"CenterOfRotationPoint": None, "CenterOfRotation": (1, 2, 3)}, "has its centre as an index"),
        ({"UseBinaryFormatForTransformationParameters": ('"true"',)}, "in a binary file beside it"),
        ({"Size": (0, 4, 5)}, "the grid of its output is none"),
    ],
)  # fmt: skip
def test_elastix_files_that_are_refused(tmp_path, more, error):
    (tmp_path / "t.txt").write_text(parameters(euler(), "EulerTransform", **more))
    with pytest.raises(OSError, match=rf"t\.txt: .*{error}"):
        gr.read_transform(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"GridIndex": (1, 0, 0)}, "GridIndex must be 0"), ({"GridSize": (2, 3, 3)}, "GridSize must be whole numbers"),
        ({"GridDirection": (1, 0, 0)}, "GridDirection must have 9 numbers"),
        ({"UseCyclicTransform": ('"true"',)}, "UseCyclicTransform must be false"),
        ({"BSplineTransformSplineOrder": (4,)}, "BSplineTransformSplineOrder must be 1, 2 or 3, got 4"),
    ],
)  # fmt: skip
def test_elastix_splines_that_are_refused(tmp_path, more, error):
    (tmp_path / "t.txt").write_text(parameters(spline(), "BSplineTransform", **more))
    with pytest.raises(OSError, match=rf"t\.txt: {error}"):
        gr.read_transform(tmp_path / "t.txt")


def test_elastix_chains_that_are_refused(tmp_path):
    chain(tmp_path)
    last, middle = tmp_path / "TransformParameters.2.txt", tmp_path / "TransformParameters.1.txt"
    text = middle.read_text()
    middle.write_text(text.replace("TransformParameters.0.txt", "TransformParameters.2.txt"))
    with pytest.raises(OSError, match=r"1\.txt: its initial transform leads back to .*2\.txt, in a circle"):
        gr.read_transform(last)
    middle.write_text(text.replace('"Compose"', '"Add"'))
    with pytest.raises(OSError, match=r"1\.txt: HowToCombineTransforms must be Compose, got Add"):
        gr.read_transform(last)
    middle.unlink()
    with pytest.raises(
        FileNotFoundError, match=r"2\.txt: its initial transform TransformParameters\.1\.txt is not there"
    ):
        gr.read_transform(last)
    middle.write_text(parameters(affine(2), "AffineTransform", Size=None))
    with pytest.raises(OSError, match=r"has 3 dimensions, and its initial transform .* has not"):
        gr.read_transform(last)


# --- bare matrices, inverses, damage ---------------------------------------------------------------------------------

MATRIX = "1 0.1 0 5\n-0.1 1 0 -3\n0 0 1.1 2\n0 0 0 1\n"


def test_a_bare_matrix_is_refused_until_its_space_is_said(tmp_path):
    path = tmp_path / "matrix.txt"
    path.write_text(MATRIX)
    with pytest.raises(OSError, match="is a bare matrix of 16 numbers, and nothing says in which space"):
        gr.read_transform(path)
    lps = gr.read_transform(path, format="lps")
    assert lps.TransformPoint((10, 20, 30)) == pytest.approx((17, 16, 35))
    ras = gr.read_transform(path, format="ras")
    # (10, 20, 30) in LPS is (-10, -20, 30) in RAS, goes to (-7, -22, 35), which is (7, 22, 35).
    assert ras.TransformPoint((10, 20, 30)) == pytest.approx((7, 22, 35))
    path.write_text("\n".join(MATRIX.splitlines()[:3]))
    assert gr.read_transform(path, format="lps").TransformPoint((10, 20, 30)) == pytest.approx((17, 16, 35))
    for text, error in (
        ("1 2 3", "must hold the 16 numbers"),
        (MATRIX.replace("0 0 0 1", "0 0 1 1"), "as the last row"),
    ):
        path.write_text(text)
        with pytest.raises(OSError, match=error):
            gr.read_transform(path, format="ras")


def test_only_matrices_are_inverted(tmp_path):
    sitk.WriteImage(vectors(), str(tmp_path / "warp.nii.gz"))
    sitk.WriteTransform(spline(), str(tmp_path / "spline.tfm"))
    sitk.WriteTransform(sitk.CompositeTransform([affine(), spline()]), str(tmp_path / "both.h5"))
    for name in ("warp.nii.gz", "spline.tfm", "both.h5"):
        with pytest.raises(ValueError, match=rf"{name}: only matrices can be inverted, got a"):
            gr.read_transform(f"[{tmp_path / name},1]")
    sitk.WriteTransform(sitk.AffineTransform([1, 0, 0, 0, 1, 0, 0, 0, 0], [0] * 3), str(tmp_path / "flat.tfm"))
    with pytest.raises(ValueError, match=r"flat\.tfm: transform must have an inverse"):
        gr.read_transform((tmp_path / "flat.tfm", True))


# The error of SimpleITK shows the class's name, which is no UTF-8.
ODD = b"#Insight Transform File V1.0\n#Transform 0\nTransform: Aff\xdeneTransform_double_3_3\nParameters: 1\n"


@pytest.mark.parametrize("name", ["t.tfm", "t.txt", "t.mat", "t.h5", "t.xfm", "t.nii", "t.mha", "t.nrrd", "t"])
@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\x00\x01\x02" * 50, ODD])
def test_damaged_files_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(OSError, match=rf"{name}: "):
        gr.read_transform(tmp_path / name)


def test_what_is_no_path_is_refused(tmp_path):
    for wrong in (None, 5, [], [5], (1, 2), [None], {"a"}):
        with pytest.raises(TypeError, match="path must be a file, a pair"):
            gr.read_transform(wrong)
    with pytest.raises(ValueError, match=r"must be FILE, \[FILE,0\] or \[FILE,1\], got"):
        gr.read_transform("[t.mat,2]")
    with pytest.raises(FileNotFoundError, match="no such file"):
        gr.read_transform(tmp_path / "none.tfm")
    with pytest.raises(IsADirectoryError):
        gr.read_transform(tmp_path)
    sitk.WriteTransform(affine(), str(tmp_path / "t.tfm"))
    with pytest.raises(ValueError, match=r"format must be one of .* got 'ants'"):
        gr.read_transform(tmp_path / "t.tfm", format="ants")
    with pytest.raises(TypeError, match=r"reference must be a file, an image or a gpuresample\.Grid, got ndarray"):
        gr.read_transform(tmp_path / "t.tfm", reference=np.zeros((3, 3, 3)))


def test_single_precision_is_said(tmp_path):
    text = "#Insight Transform File V1.0\nTransform: AffineTransform_float_3_3\nParameters: 1 0 0 0 1 0 0 0 1 1 2 3\n"
    (tmp_path / "t.tfm").write_text(text + "FixedParameters: 0 0 0\n")
    assert "32-bit floats" in str(transforms.load(tmp_path / "t.tfm"))
    assert gr.read_transform(tmp_path / "t.tfm").TransformPoint((0, 0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("ending", [".tfm", ".txt", ".mat"])
def test_a_file_that_was_cut_is_refused_wherever(ending, tmp_path):
    transform = sitk.AffineTransform(3)
    transform.SetParameters([1.1, 0.1, 0, 0.2, 0.9, 0, 0, 0.1, 1.05, 3, 4, 5])
    whole = tmp_path / f"a{ending}"
    sitk.WriteTransform(transform, str(whole))
    content = whole.read_bytes()
    assert gr.read_transform(whole)
    for n in range(1, len(content), 5):
        (tmp_path / f"cut{ending}").write_bytes(content[:n])
        with pytest.raises(OSError, match="cut"):
            gr.read_transform(tmp_path / f"cut{ending}")
