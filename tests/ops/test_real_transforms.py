"""Real volumes onto one another by their headers, each with a drawn affine, field and B-spline, against SimpleITK.

Grids have the other volume's extent and direction, but fewer voxels, so that SimpleITK's answers do not take minutes.
"""

import zlib

import numpy as np
import pytest
import SimpleITK as sitk
from support import CHOOSING, assert_truncated_like, reference, tolerance

import gpuresample as gr
from gpuresample.planning.grid import resized

# Image, and the volume onto whose grid it goes.
PAIRS = [
    ("MNI152_2009_template.nii.gz", "shear.nii.gz"),
    ("shear.nii.gz", "MNI152_2009_template.nii.gz"),
    ("FLAIR.nii.gz", "PIR.nii.gz"),
    ("PIR.nii.gz", "FLAIR.nii.gz"),
    ("lesion.nii.gz", "MNI152_2009_template.nii.gz"),
    ("SAR.nii.gz", "shear.nii.gz"),
    ("torsoLabel.nii.gz", "shear.nii.gz"),
    ("shear.nii.gz", "torsoLabel.nii.gz"),
    ("FLAIR.nii.gz", "low_res.nii.gz"),
]
LABELS = ("lesion.nii.gz", "torsoLabel.nii.gz")
SIZE = 36
TIE = 1e-9


def grid_of(image, most=SIZE):
    """An image's extent with at most so many voxels per axis."""
    grid = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return resized(grid, size=tuple(min(n, most) for n in grid.size), anchor="edge")


def middle(grid):
    return grid.points(np.array([[(n - 1) / 2 for n in grid.size]]))[0]


def edges(grid):
    """Physical lengths along the grid's own axes."""
    return np.array(grid.size) * np.array(grid.spacing)


def brought(target, image):
    """Shift that brings the middle of the output to the image's, where their headers place them far apart."""
    source = grid_of(image)
    shift = middle(source) - middle(target)
    return shift if np.linalg.norm(shift) > edges(source).max() / 2 else np.zeros(3)


def drawn_affine(target, image, rng):
    matrix = np.eye(3) + rng.uniform(-0.15, 0.15, (3, 3))
    shift = brought(target, image) + rng.uniform(-5, 5, 3)
    return sitk.AffineTransform(matrix.ravel().tolist(), shift.tolist(), middle(target).tolist())


def drawn_field(target, image, rng):
    """A field that covers most of the output, and is coarser."""
    grid = resized(target, size=(9, 8, 7), anchor="edge")
    vectors = rng.uniform(-1, 1, (7, 8, 9, 3)) * 0.08 * edges(target).min()
    field = sitk.GetImageFromArray(vectors, isVector=True)
    field.SetSpacing([0.9 * s for s in grid.spacing])
    field.SetOrigin(grid.origin)
    field.SetDirection(grid.direction)
    return far_apart(sitk.DisplacementFieldTransform(field), target, image)


def drawn_spline(target, image, rng):
    outline = sitk.Image(target.size, sitk.sitkUInt8)
    outline.SetSpacing(target.spacing)
    outline.SetOrigin(target.origin)
    outline.SetDirection(target.direction)
    spline = sitk.BSplineTransformInitializer(outline, (4, 3, 5), 3)
    reach = 0.1 * edges(target).min()
    spline.SetParameters(rng.uniform(-reach, reach, len(spline.GetParameters())).tolist())
    return far_apart(spline, target, image)


def far_apart(transform, target, image):
    """A transform, and after it the shift between the two headers, where one is needed."""
    shift = brought(target, image)
    if not shift.any():
        return transform
    # The last member acts first.
    return sitk.CompositeTransform([sitk.TranslationTransform(3, shift.tolist()), transform])


DRAWN = {"affine": drawn_affine, "field": drawn_field, "spline": drawn_spline}


def undecided(transform, target, image):
    """Voxels whose place is within rounding of a face of the image, or of half-way between two voxels."""
    moved = sitk.TransformToDisplacementField(
        transform, sitk.sitkVectorFloat64, target.size, target.origin, target.spacing, target.direction
    )
    index = np.stack(np.meshgrid(*[np.arange(n) for n in target.size[::-1]], indexing="ij")[::-1], axis=-1)
    points = target.points(index.reshape(-1, 3).astype(np.float64)) + sitk.GetArrayFromImage(moved).reshape(-1, 3)
    grid = gr.Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    x = grid.indices(points)
    return (np.abs(x - np.floor(x) - 0.5) < TIE).any(axis=1).reshape(target.size[::-1])


@pytest.mark.parametrize("kind", DRAWN)
@pytest.mark.parametrize(("name", "other"), PAIRS, ids=lambda name: name.split(".")[0])
def test_onto_each_other_by_their_headers(read, name, other, kind):
    image, target = read(name), grid_of(read(other))
    # A seed that is the same in every process.
    transform = DRAWN[kind](target, image, np.random.default_rng(zlib.crc32(f"{name} {other} {kind}".encode())))
    array = sitk.GetArrayViewFromImage(image)
    default = float(array.min()) - 1 if array.dtype.kind == "f" else 77
    left_out = undecided(transform, target, image)
    assert left_out.mean() < 1e-3
    inside = reference(image, target, "nearest", transform, default, image.GetPixelID()) != default
    assert inside.mean() > 0.02, "they hardly meet"
    interpolations = ("nearest", "label_linear") if name in LABELS else ("nearest", "linear")
    # SimpleITK's splines take most of the time: each pair has them with one kind, each kind with two pairs or more.
    if name not in LABELS and PAIRS.index((name, other)) % 3 == list(DRAWN).index(kind):
        interpolations = (*interpolations, "bspline3")
    for interpolation in interpolations:
        options = {"like": target, "transform": transform, "interpolation": interpolation, "default_value": default}
        if interpolation in CHOOSING:
            ours = sitk.GetArrayFromImage(gr.resample(image, **options))
            theirs = reference(image, target, interpolation, transform, default, image.GetPixelID())
            assert not ((ours != theirs) & ~left_out).any()
            continue
        ours = sitk.GetArrayFromImage(gr.resample(image, dtype="float32", **options)).astype(np.float64)
        theirs = reference(image, target, interpolation, transform, default)
        gap = np.where(left_out, 0.0, np.abs(ours - theirs))
        assert gap.max() <= tolerance(np.ptp(array.astype(np.float64)), array.dtype)
        if array.dtype.kind != "f":
            ours = gr.resample(image, rounding="truncate", **options)
            theirs = reference(image, target, interpolation, transform, default, image.GetPixelID())
            assert_truncated_like(sitk.GetArrayFromImage(ours), theirs)
