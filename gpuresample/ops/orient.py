"""`reorient` and `conform`: axes in another order and sense, by copies; one size, spacing and orientation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample import engines
from gpuresample.checks import positive_numbers, shown, sizes
from gpuresample.containers import IMAGES, Container, SpatialImageContainer, check_memory, has_geometry, unwrap
from gpuresample.containers.spatial_images import turn_scan
from gpuresample.engines.interface import Store
from gpuresample.ops.resample import resample
from gpuresample.planning import planner
from gpuresample.planning.filters import get_filter
from gpuresample.planning.grid import Grid
from gpuresample.planning.maps import AxisMap
from gpuresample.plans import Plan, execute, precision_of

# Where an axis may lead: the axis of the space (LPS) and the sense along it.
_LETTERS = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}


def reorient(image: Any, orientation: str = "RAS", *, device: str = "auto", out: Any = None) -> Any:
    """Put an image's axes into another order and sense. Voxels are copied, bit by bit; nothing moves in space.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or MetaTensor
        3-D, or 3-D with more axes (4-D, channels). Bare arrays have no orientation.
    orientation : str
        Where the axes x, y, z lead to: one letter of each pair, left or right (L, R), posterior or anterior (P, A),
        superior or inferior (S, I), in any order. "RAS" is nibabel's canonical orientation; "LPS" is ITK's. An oblique
        image keeps its angles: each axis counts as the direction next to it, the strongest first.
    device, out
        As for `gpuresample.resample`.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or MetaTensor
        The same kind as `image`. For NIfTI images of nibabel, what the header says of the scanner's axes (`dim_info`,
        the order of slices) is turned along.

    Raises
    ------
    ValueError, TypeError
        For an orientation that is not three such letters, for 2-D images and for bare arrays.

    Examples
    --------
    >>> import numpy as np, gpuresample as gr
    >>> ct = gr.Volume(np.zeros((20, 64, 64), np.int16), (0.8, 0.8, 2))  # x leads to the left: LPS
    >>> gr.reorient(ct, "SRA").size
    (20, 64, 64)
    """
    container = _unwrapped(image)
    source = container.grid
    axes, flipped = _turn(source, orientation)
    target = _turned(source, axes, flipped)
    check_memory(container, container.output_shape(target), container.dtype, f"size {target.size}")
    engines.check_engine(device, container.where)
    x = tuple(np.arange(n, dtype=np.float64)[:: -1 if f else 1] for n, f in zip(target.size, flipped, strict=True))
    precision = precision_of(container.dtype, container.dtype)
    work = planner.sampled(AxisMap(axes, x), source, get_filter("nearest"), None, (None,) * 3, precision)
    store = Store.of(container.dtype, exact=True)
    plan = Plan(source, target, container.dtype, container.dtype, device, work, store)
    made = execute(plan, container, out)
    if isinstance(container, SpatialImageContainer):
        turn_scan(container.image, made, axes, flipped)
    return made


def conform(
    image: Any,
    *,
    size: Sequence[int] = (256, 256, 256),
    spacing: float | Sequence[float] = 1.0,
    orientation: str = "RAS",
    interpolation: str | int = "bspline",
    default_value: float = 0,
    convention: str | None = "nibabel",
    dtype: npt.DTypeLike | None = None,
    device: str = "auto",
    out: Any = None,
) -> Any:
    """Bring an image to one size, spacing and orientation, as `nibabel.processing.conform` does.

    Parameters
    ----------
    image : SimpleITK.Image, Volume, nibabel image or MetaTensor
        As for `reorient`.
    size : sequence of int
        Voxels of the result along its axes x, y, z.
    spacing : float or sequence of float
        Of the result, in physical units.
    orientation : str
        Of the result, see `reorient`; an oblique image stays oblique.
    interpolation, default_value, dtype, device, out
        As for `gpuresample.resample`; "nearest" for labels.
    convention : str or None
        As for `gpuresample.resample`. "nibabel" gives nibabel's numbers: what lies past the centres of the outer voxels
        is outside. None gives SimpleITK's.

    Returns
    -------
    SimpleITK.Image, Volume, nibabel image or MetaTensor
        The same kind as `image`. The middle voxel of the result, `(m - 1) // 2` along each axis, lies on the image's,
        `(n - 1) // 2` of the image in the new orientation.

    Raises
    ------
    ValueError, TypeError
        As `reorient` and `gpuresample.resample`.

    Examples
    --------
    >>> import numpy as np, gpuresample as gr
    >>> ct = gr.Volume(np.zeros((20, 64, 64), np.int16), (0.8, 0.8, 2))
    >>> gr.conform(ct, size=(48, 48, 40)).size
    (48, 48, 40)
    """
    container = _unwrapped(image)
    new, steps = sizes("size", size, 3), np.array(positive_numbers("spacing", spacing, 3))
    turned = _turned(container.grid, *_turn(container.grid, orientation))
    middle = turned.points(np.array([[(n - 1) // 2 for n in turned.size]], np.float64))[0]
    axes = np.reshape(turned.direction, (3, 3))
    origin = middle - (axes * steps) @ np.array([(n - 1) // 2 for n in new], np.float64)
    grid = Grid(new, tuple(steps.tolist()), tuple(origin.tolist()), turned.direction)
    return resample(
        image, like=grid, interpolation=interpolation, default_value=default_value, convention=convention, dtype=dtype,
        device=device, out=out,
    )  # fmt: skip


def _unwrapped(image: Any) -> Container:
    """The container of an image that has an orientation."""
    container = unwrap(image, lazy=True)
    if not has_geometry(image):
        raise TypeError(
            f"image must be {IMAGES}: a bare array does not say where its axes lead to (gpuresample.Volume(array, "
            f"spacing, origin, direction) does), got {type(image).__name__}"
        )
    if container.grid.dimension != 3:
        raise ValueError(f"image must have three axes in space to have an orientation, got {container.grid.dimension}")
    return container


def _turn(grid: Grid, orientation: object) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """For every axis of the result the grid's axis that it is, and whether it runs backwards."""
    word = orientation.upper() if isinstance(orientation, str) else ""
    wanted = [_LETTERS[letter] for letter in word if letter in _LETTERS]
    if len(word) != 3 or len(wanted) != 3 or {axis for axis, _ in wanted} != {0, 1, 2}:
        error = ValueError if isinstance(orientation, str) else TypeError
        raise error(
            "orientation must be three letters, one of each pair L or R, P or A, S or I, in any order, such as 'RAS', "
            f"got {shown(orientation)}"
        )
    leads = _leads(grid)
    found = [next(j for j, (there, _) in enumerate(leads) if there == axis) for axis, _ in wanted]
    return tuple(found), tuple(leads[j][1] != sense for j, (_, sense) in zip(found, wanted, strict=True))


def _leads(grid: Grid) -> list[tuple[int, int]]:
    """For every axis of a grid the axis of space next to it, and the sense: the strongest first, one axis each."""
    u, _, v = np.linalg.svd(np.reshape(grid.direction, (3, 3)))
    cosines = u @ v  # the rotation next to a skewed direction
    leads, left = [(0, 1)] * 3, np.abs(cosines)
    for j in np.argsort(-left.max(axis=0), kind="stable").tolist():
        i = int(np.argmax(left[:, j]))
        leads[j] = (i, 1 if cosines[i, j] > 0 else -1)
        left[i] = -1.0
    return leads


def _turned(grid: Grid, axes: tuple[int, ...], flipped: tuple[bool, ...]) -> Grid:
    """The same voxels with other axes."""
    columns = np.reshape(grid.direction, (3, 3))[:, axes] * np.where(flipped, -1.0, 1.0) + 0.0
    first = np.zeros((1, 3))
    for j, backwards in zip(axes, flipped, strict=True):
        first[0, j] = grid.size[j] - 1 if backwards else 0
    size, spacing = tuple(grid.size[j] for j in axes), tuple(grid.spacing[j] for j in axes)
    return Grid(size, spacing, tuple(grid.points(first)[0].tolist()), tuple(columns.ravel().tolist()))
