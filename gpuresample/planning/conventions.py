"""Other libraries' conventions by name: what `convention=` sets, so that a result is that of the library's own call.

One table, `CONVENTIONS`. A convention fixes what stays aligned, which size belongs to a spacing, how the image goes on
past its border, the blur before sampling, and how integers are rounded. Where a library works in voxels, not in space,
its own arithmetic for where samples lie is part of it: the last bit decides which voxel is nearest.
`python -m benchmarks.conventions` measures every row against the installed library.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from gpuresample.checks import one_of, positive_numbers, sizes
from gpuresample.frozen import frozen
from gpuresample.planning.filters import SINCS, FloatArray
from gpuresample.planning.grid import Grid, resized
from gpuresample.planning.maps import AxisMap

BSPLINES = ("bspline", "bspline1", "bspline2", "bspline3", "bspline4", "bspline5")
TORCHIO_FILTERS = ("nearest", "linear", "bspline", "bspline3", "gaussian", *SINCS, "label_gaussian")
SITK_FILTERS = ("nearest", "linear", *BSPLINES, "gaussian", *SINCS, "label_gaussian", "label_linear")

Positions = Callable[[int, int, str, np.dtype[Any]], FloatArray]
"""Where the samples of an axis lie: input voxels, output voxels, interpolation, voxel type."""


def _corners(n: int, m: int, interpolation: str, dtype: np.dtype[Any]) -> FloatArray:
    """`scipy.ndimage.zoom`: the corner voxels' centres coincide."""
    x = np.arange(m, dtype=np.float64) * ((n - 1) / (m - 1) if m > 1 else 1.0)
    # SciPy's round-off may push the last sample out of the image, and lose a plane; here it stays inside.
    return np.minimum(x, n - 1.0)


def _faces(n: int, m: int, interpolation: str, dtype: np.dtype[Any]) -> FloatArray:
    """`scipy.ndimage.zoom(grid_mode=True)`: the outer faces coincide."""
    return (np.arange(m, dtype=np.float64) + 0.5) * (n / m) - 0.5


def _torch(n: int, m: int, interpolation: str, dtype: np.dtype[Any]) -> FloatArray:
    """`torch.nn.functional.interpolate`: in float32, unless voxels are float64."""
    kind: Any = np.float64 if dtype == np.float64 and interpolation != "nearest" else np.float32
    half, i = kind(0.5), np.arange(m).astype(kind)
    x = (kind(n) / kind(m)) * (i + half)
    if interpolation == "nearest":
        return np.minimum(np.floor(x), n - 1).astype(np.float64)
    return np.maximum(x - half, kind(0.0)).astype(np.float64)


@frozen()
class Convention:
    """One library's way.

    Attributes
    ----------
    name : str
        As `convention=` takes it.
    package : str
        The distribution that is compared with.
    tested : str
        Its version when this was written.
    call : str
        The call whose result it gives.
    anchor, boundary, antialias, rounding
        Keywords of `resample` that it sets; `boundary="padded"` is SciPy's "nearest": splines are prefiltered on 12
        more voxels on either side, mirrored beyond.
    interpolations : tuple of str
        What the library offers with the same mathematics.
    ways : tuple of str
        How the new grid may be given.
    missing : str
        What the library has that we do not offer under its name.
    size : {"round", "floor", "corners round", "corners ceil"}
        Which size belongs to a spacing: of the extent, or of the distance between the corner voxels plus one.
    positions : callable, optional
        The library's own arithmetic for where samples lie, if it knows no space.
    clip : bool
        Splines are clipped to the input's range.
    floats : bool
        Integers become float64, as the library returns them; float32 stays.
    single : bool
        The result is float32 whatever comes in.
    upright : bool
        Images come out with axes to the right, anterior and superior (RAS), around all of the input.
    """

    name: str
    package: str
    tested: str
    call: str
    anchor: str
    boundary: str | None
    interpolations: tuple[str, ...]
    ways: tuple[str, ...]
    missing: str = ""
    antialias: bool = False
    rounding: str = "nearest"
    size: str = "round"
    positions: Positions | None = None
    clip: bool = False
    floats: bool = False
    single: bool = False
    upright: bool = False

    @property
    def keywords(self) -> str:
        """What it sets, as keywords."""
        given = {
            "anchor": self.anchor, "boundary": self.boundary, "antialias": self.antialias, "rounding": self.rounding,
        }  # fmt: skip
        return ", ".join(f"{k}={v!r}" for k, v in given.items() if v not in (None, False, "nearest") or k == "boundary")


CONVENTIONS = {
    c.name: c
    for c in [
        Convention(
            "simpleitk", "SimpleITK", "2.5.7",
            "Resample(image, size, Transform(), interpolator, origin, spacing, direction)",
            "first", None, SITK_FILTERS, ("spacing", "size", "like", "transform"), rounding="truncate",
        ),
        Convention(
            "scipy", "scipy", "1.17.1", "ndimage.zoom(array, zoom, order=order)",
            "center", "constant", ("nearest", "linear", *BSPLINES), ("spacing", "size"), rounding="away",
            positions=_corners,
        ),
        Convention(
            "skimage", "scikit-image", "0.26.0", "transform.resize(array, shape, order=order, preserve_range=True)",
            "edge", "mirror", ("nearest", "linear", *BSPLINES), ("spacing", "size"), antialias=True,
            positions=_faces, clip=True, floats=True,
            missing="nearest on floats that shrink: scikit-image blurs before it",
        ),
        Convention(
            "torch", "torch", "2.13.0", 'nn.functional.interpolate(tensor, size, mode="trilinear" or "nearest-exact")',
            "edge", "nearest", ("nearest", "linear"), ("spacing", "size"), positions=_torch,
            missing='"bicubic" is Keys\' filter, not a B-spline; "nearest" is biased, "area" averages',
        ),
        Convention(
            "monai", "monai", "1.6.1", 'transforms.Spacing(pixdim, mode="bilinear" or "nearest")(image)',
            "first", "nearest", ("nearest", "linear"), ("spacing",), size="corners round", single=True,
            missing="splines (integer modes); halfway between voxels, either may be nearest",
        ),
        Convention(
            "torchio", "torchio", "1.2.1", "Resample(spacing, image_interpolation=name)(image)",
            "middle", None, TORCHIO_FILTERS, ("spacing",), rounding="truncate", size="floor",
            missing="antialias: a recursive Gaussian before it",
        ),
        Convention(
            "nibabel", "nibabel", "5.4.2", "processing.resample_to_output(image, voxel_sizes, order=order)",
            "first", "constant", ("nearest", "linear", *BSPLINES), ("spacing", "like"), rounding="away",
            size="corners ceil",
            missing="halfway between voxels, either is nearest; on its border nibabel's round-off may lose a plane",
            upright=True,
        ),
        Convention(
            "nnunet", "nnunetv2", "2.8.1",
            "resample_data_or_seg_to_shape(data, shape, spacing, new, order=order, force_separate_z=False)",
            "edge", "padded", ("nearest", "linear", *BSPLINES), ("spacing", "size"), rounding="truncate",
            positions=_faces, clip=True,
            missing="segmentations (is_seg=True), and slices apart (force_separate_z)",
        ),
    ]
}  # fmt: skip
NAMES = tuple(CONVENTIONS)


def check(
    name: object, *, anchor: str, boundary: object, antialias: object, rounding: str, interpolation: str,
    spacing: object, size: object, like: object, transform: object,
) -> Convention:  # fmt: skip
    """The convention of that name, if nothing else that is asked contradicts it.

    Parameters are those of `resample`; `interpolation` is a filter's name.

    Raises
    ------
    ValueError, TypeError
        For names that are not known, and keywords that say something else than the convention.
    """
    c = CONVENTIONS[one_of("convention", name, NAMES)]
    for word, wanted, default, own in (
        ("anchor", anchor, "first", c.anchor),
        ("boundary", boundary, None, c.boundary),
        ("antialias", antialias, False, c.antialias),
        ("rounding", rounding, "nearest", c.rounding),
    ):
        value = wanted.tolist() if isinstance(wanted, np.ndarray) else wanted
        if value is not default and value not in (default, own):
            raise ValueError(f"convention={name!r} sets {word}={own!r}; it cannot be combined with {word}={value!r}")
    given = {"spacing": spacing, "size": size, "like": like, "transform": transform}
    for word, value in given.items():
        if value is not None and word not in c.ways:
            raise ValueError(f"convention={name!r} takes the new grid by {' or '.join(c.ways)}, got {word}={value!r}")
    if interpolation not in c.interpolations:
        why = f" ({c.missing})" if c.missing else ""
        raise ValueError(
            f"convention={name!r} offers interpolation {', '.join(map(repr, c.interpolations))}, "
            f"got {interpolation!r}{why}"
        )
    return c


def grid(c: Convention, source: Grid, spacing: Any, size: Any, placed: bool = False) -> Grid:
    """The grid that the library would make of `source`, for a spacing and/or a size x, y, z.

    `placed` tells whether the grid lies in space (LPS), as an image's; a bare array's does not.
    """
    if c.positions is not None and spacing is not None and size is not None:
        raise ValueError(
            f"convention={c.name!r} keeps the extent, so size decides the spacing; give spacing or size, not both "
            f"(got spacing={spacing!r}, size={size!r})"
        )
    if c.positions is not None and size is None and spacing is not None:
        size = resized(source, spacing, None, "first").size
    if c.positions is not None:
        return resized(source, None, size, c.anchor)
    if c.size == "round":
        return resized(source, spacing, size, c.anchor)
    if spacing is None:
        raise ValueError(f"nothing asked: convention={c.name!r} takes the new grid by spacing")
    d = source.dimension
    new, old = np.asarray(positive_numbers("spacing", spacing, d)), np.asarray(source.spacing)
    n = np.asarray(source.size)
    if c.upright and placed:
        return _upright(source, new)
    if c.size == "floor":
        m = np.maximum(np.where(n == 1, 1, np.floor(n * old / new)), 1)
    else:
        corners = (n - 1) * old / new
        m = np.round(corners + 1) if c.size == "corners round" else np.ceil(corners) + 1
    origin = np.asarray(source.origin)
    if c.anchor == "middle":
        last = source.points(np.asarray([n - 1.0]))[0]
        origin = (last + origin) / 2 - np.reshape(source.direction, (d, d)) @ ((m - 1) / 2 * new)
    whole = sizes("spacing", [int(k) for k in m], d)
    return Grid(whole, tuple(new.tolist()), tuple(origin.tolist()), source.direction)


def _upright(source: Grid, spacing: FloatArray) -> Grid:
    """The grid from corner voxel to corner voxel, its axes to the right, anterior and superior: LPS, as all grids."""
    d = source.dimension
    to_ras = np.array([-1.0, -1.0, 1.0])[:d]
    corners = np.array(list(itertools.product(*((0.0, k - 1.0) for k in source.size))))
    points = source.points(corners) * to_ras
    low, high = points.min(axis=0), points.max(axis=0)
    m = sizes("spacing", [int(k) for k in np.ceil((high - low) / spacing) + 1], d)
    return Grid(m, tuple(spacing.tolist()), tuple((low * to_ras).tolist()), tuple(np.diag(to_ras).ravel().tolist()))


def positions(c: Convention, source: Grid, target: Grid, interpolation: str, dtype: np.dtype[Any]) -> AxisMap | None:
    """Where samples lie by the library's own arithmetic; None for libraries that know space, as we do."""
    if c.positions is None:
        return None
    x = [c.positions(n, m, interpolation, dtype) for n, m in zip(source.size, target.size, strict=True)]
    return AxisMap(tuple(range(source.dimension)), tuple(x))


def check_blur(c: Convention, source: Grid, target: Grid, interpolation: str, dtype: np.dtype[Any]) -> bool:
    """Whether to blur before sampling.

    Raises
    ------
    ValueError
        Where the library blurs before it copies.
    """
    if not c.antialias:
        return False
    if interpolation != "nearest":
        return True
    if dtype.kind == "f" and any(m < n for n, m in zip(source.size, target.size, strict=True)):
        raise ValueError(f"convention={c.name!r} does not offer {c.missing}; got interpolation='nearest', {dtype}")
    return False


def check_type(c: Convention, source: np.dtype[Any], interpolation: str) -> None:
    """Refuse voxels of which the library makes what nobody can foretell.

    Raises
    ------
    TypeError
        For booleans that SciPy would sum: it cuts at 1, and the round-off of its sums decides what reaches that.
    """
    if source == np.bool_ and c.rounding == "away" and interpolation != "nearest":
        raise TypeError(
            f"image must be uint8 or a float for convention={c.name!r} with interpolation={interpolation!r}, got bool: "
            f"SciPy cuts sums of bool at 1, where its round-off decides"
        )


def output_type(c: Convention, source: np.dtype[Any], interpolation: str) -> np.dtype[Any]:
    """The voxel type that the library returns."""
    if c.single:
        return np.dtype(np.float32)
    if c.floats and interpolation != "nearest" and source.kind != "f":
        return np.dtype(np.float64)
    return source


def markdown() -> str:
    """The table as docs/words.md has it."""
    lines = ["| `convention=` | the call | sets | interpolations |", "| --- | --- | --- | --- |"]
    for c in CONVENTIONS.values():
        splines = (
            "B-splines" if "bspline5" in c.interpolations else "`bspline`" if "bspline" in c.interpolations else ""
        )
        others = "the rest" if "lanczos" in c.interpolations else ""
        offered = ", ".join(w for w in ("nearest", "linear", splines, others) if w)
        lines.append(f'| `"{c.name}"` | `{c.package}` {c.tested}: `{c.call}` | `{c.keywords}` | {offered} |')
    return "\n".join(lines)
