"""Transforms of FSL, AFNI, FreeSurfer and X5, read by nitransforms, as matrices and fields in LPS from output to input.

nitransforms (25.1) gives matrices in RAS from the reference (the output) to the moving image (the input). FLIRT's and
FreeSurfer's files hold the other way; it inverts them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gpuresample.containers import Volume
from gpuresample.containers.spatial_images import FLIP, grid_of_affine, grid_of_image
from gpuresample.ops import transforms
from gpuresample.ops.transforms import DisplacementField
from gpuresample.planning.grid import Grid

if TYPE_CHECKING:
    import SimpleITK

Matrix = npt.NDArray[np.float64]


def matrices(path: Path, form: str, reference: Grid | None, moving: Grid | None) -> list[SimpleITK.Transform]:
    """The matrices of a file of FSL ("fsl"), AFNI ("afni") or FreeSurfer ("freesurfer"), one for each volume.

    Parameters
    ----------
    reference, moving : Grid or None
        Of the two images that were registered.

    Raises
    ------
    OSError
        Without nitransforms, and for files that it cannot read.
    """
    io = _library(path)
    factory = io.get_linear_factory({"freesurfer": "fs"}.get(form, form))
    images = {"reference": _image(reference), "moving": _image(moving)}
    return _affines(path, lambda: factory.from_filename(str(path)).to_ras(**images))


def x5(path: Path) -> list[SimpleITK.Transform] | list[DisplacementField]:
    """The transform of an X5 file; a matrix for each volume where it has several.

    Raises
    ------
    OSError
        As `matrices`; for several transforms beside one another, and forms other than matrices and dense fields.
    """
    io = _library(path)
    try:
        nodes = io.x5.from_filename(str(path))
    except Exception as error:  # HDF5's errors and its own are of many kinds
        raise OSError(f"{path}: is no X5 file that nitransforms reads ({error})") from error
    if len(nodes) != 1:
        raise OSError(f"{path}: must hold one transform, got {len(nodes)} beside one another")
    node = nodes[0]
    if node.type == "linear":
        return _affines(path, lambda: node.transform)
    if (node.type, node.subtype, node.representation) != ("nonlinear", "densefield", "displacements"):
        raise OSError(
            f"{path}: must hold a matrix or a dense field of displacements, got {node.type} {node.subtype or ''} "
            f"{node.representation or ''}".rstrip()
        )
    if node.domain is None or not node.domain.grid:
        raise OSError(f"{path}: has a field without a grid that it lies on")
    vectors = np.asarray(node.transform, np.float64)
    size = tuple(int(n) for n in node.domain.size)
    if vectors.shape != (*size, 3):
        raise OSError(f"{path}: its field must have shape {(*size, 3)}, got {vectors.shape}")
    return [_field(vectors * (-1.0, -1.0, 1.0), _grid(path, np.asarray(node.domain.mapping, np.float64), size))]


def fsl_field(path: Path, moving: Grid | None) -> transforms.Path:
    """A field of FNIRT: displacements in FSL's millimetres, from the reference's to the input's.

    Those millimetres are voxels times spacing, with x turned where the affine has no mirror in it. They are not
    points in space, so the moving image's grid has a part in it.

    Raises
    ------
    OSError
        For what is no field of three components, and without nibabel.
    """
    image, grid = _opened(path)
    if image.ndim != 4 or image.shape[3] != 3:
        raise OSError(f"{path}: a field of FSL has shape (x, y, z, 3), got {tuple(image.shape)}")
    to_fsl, back = fsl_space(grid), np.linalg.inv(fsl_space(grid if moving is None else moving))
    vectors = np.asarray(image.dataobj, np.float64) @ np.linalg.inv(to_fsl[:3, :3]).T
    onto = back @ to_fsl
    return transforms.Path([_field(vectors, grid), _itk(onto)])


def afni_field(path: Path) -> DisplacementField:
    """A warp of AFNI's: displacements in LPS millimetres.

    Raises
    ------
    OSError
        For what is no field of three components, and without nibabel.
    """
    image, grid = _opened(path)
    if image.ndim != 5 or image.shape[3:] != (1, 3):
        raise OSError(f"{path}: a warp of AFNI has shape (x, y, z, 1, 3), got {tuple(image.shape)}")
    return _field(np.asarray(image.dataobj)[..., 0, :], grid)


def fsl_space(grid: Grid) -> Matrix:
    """The matrix from points (LPS) to FSL's millimetres: voxels times spacing, x turned if the affine is no mirror."""
    to = np.diag([*grid.spacing, 1.0])
    if np.linalg.det(np.reshape(grid.direction, (3, 3))) > 0:  # LPS and RAS differ by a rotation
        to[0, 0] = -to[0, 0]
        to[0, 3] = (grid.size[0] - 1) * grid.spacing[0]
    return np.asarray(to @ np.linalg.inv(_affine(grid)))


def _affine(grid: Grid) -> Matrix:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = grid.index_to_point, grid.origin
    return affine


def _library(path: Path) -> Any:
    try:
        from nitransforms import io
    except ImportError:
        raise OSError(f'{path}: is read by nitransforms: pip install "gpuresample[nitransforms]"') from None
    return io


def _affines(path: Path, read: Callable[[], Any]) -> list[SimpleITK.Transform]:
    try:
        found = np.asarray(read(), np.float64)
        if found.ndim == 2:
            found = found[None]
        if found.ndim != 3 or found.shape[1:] != (4, 4) or not len(found):
            raise ValueError(f"of shape {found.shape}")
        return [_itk(FLIP @ one @ FLIP) for one in found]
    except Exception as error:  # nitransforms has errors of many kinds for damaged files
        raise OSError(
            f"{path}: holds no matrix that nitransforms can read ({type(error).__name__}: {error})"
        ) from error


def _image(grid: Grid | None) -> Any:
    """A nibabel image on a grid, without voxels of its own."""
    if grid is None:
        return None
    import nibabel as nib

    if grid.dimension != 3:
        raise ValueError(f"reference and moving must have 3 dimensions, got {grid.dimension}")
    return nib.Nifti1Image(np.broadcast_to(np.uint8(0), grid.size), FLIP @ _affine(grid))


def _opened(path: Path) -> tuple[Any, Grid]:
    try:
        import nibabel as nib
    except ImportError:
        raise OSError(f"{path}: is read by nibabel: pip install nibabel") from None
    try:
        image = nib.load(path)
        return image, grid_of_image(image)
    except Exception as error:  # each of its formats has errors of its own
        raise OSError(f"{path}: cannot be read by nibabel: {error}") from error


def _grid(path: Path, affine: Matrix, size: tuple[int, ...]) -> Grid:
    try:
        return grid_of_affine(FLIP @ affine, size, "its field")
    except ValueError as error:
        raise OSError(f"{path}: {error}") from None


def _itk(matrix: Matrix) -> SimpleITK.Transform:
    """A 4x4 matrix as SimpleITK's transform."""
    import SimpleITK as sitk

    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise ValueError(f"matrix must be 4 x 4 finite numbers, got {matrix.tolist()}")
    return sitk.AffineTransform(matrix[:3, :3].ravel().tolist(), matrix[:3, 3].tolist())


def _field(vectors: npt.NDArray[Any], grid: Grid) -> DisplacementField:
    """Vectors (x, y, z, component) in LPS, with the grid that they lie on."""
    turned = np.ascontiguousarray(vectors.transpose(2, 1, 0, 3))
    return DisplacementField(Volume(np.moveaxis(turned, -1, 0), grid.spacing, grid.origin, grid.direction))
