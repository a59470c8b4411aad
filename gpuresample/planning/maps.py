"""Where the voxels of one grid lie on another whose axes run along its own.

In SimpleITK's own order of floating-point operations (`itk::ResampleImageFilter`, linear-threaded path), so that what
is inside, which voxel is nearest and which way a tie goes are SimpleITK's too. Other grids go by `transforms.route`.
"""

from __future__ import annotations

import itertools
from functools import lru_cache

import numpy as np

from gpuresample.frozen import frozen
from gpuresample.memory import check_room
from gpuresample.planning.filters import FloatArray
from gpuresample.planning.grid import Grid, aligned_axes, check_apart
from gpuresample.planning.transforms import Transform

# Voxels of a line that are mapped at once.
AT_ONCE = 1 << 16


@frozen(eq=False)
class AxisMap:
    """Aligned grids: every output axis runs along one input axis.

    Attributes
    ----------
    source_axis : tuple of int
        For every output axis (x, y, z) the input axis it runs along.
    x : tuple of ndarray
        For every output axis the continuous input index of its samples, along that input axis.
    """

    source_axis: tuple[int, ...]
    x: tuple[FloatArray, ...]


def runs_along(target: Grid, source: Grid, transform: Transform | None = None) -> bool:
    """Whether axes run along axes, so that `map_indices` has an answer.

    Raises
    ------
    ValueError
        As `map_indices`.
    """
    if transform is not None and not transform.is_linear:
        return False
    return _is_along(target, source, transform)


@lru_cache(maxsize=256)
def _is_along(target: Grid, source: Grid, transform: Transform | None) -> bool:
    return aligned_axes(_drift(target, source, transform)) is not None


def _drift(target: Grid, source: Grid, transform: Transform | None) -> FloatArray:
    """How far voxels of `target` move on `source` along each axis, from the first to behind the last."""
    check_apart(source, "input")
    check_apart(target, "output")
    with np.errstate(over="ignore", invalid="ignore"):
        matrix = source.point_to_index if transform is None else source.point_to_index @ transform.affine[0]
        whole: FloatArray = matrix @ target.index_to_point * np.asarray(target.size)
    if not np.isfinite(whole).all():
        raise _uncountable(target, source, transform)
    return whole


def _uncountable(target: Grid, source: Grid, transform: Transform | None) -> ValueError:
    return ValueError(
        "the output grid must lie where the input's voxels can be counted to, got indices that are not finite: "
        f"output origin {target.origin}, input spacing {source.spacing}"
        + ("" if transform is None else ", through a transform")
    )


def map_indices(target: Grid, source: Grid, transform: Transform | None = None) -> AxisMap | None:
    """Where the voxels of `target` lie on `source`, as continuous indices; None where axes do not run along axes.

    `transform` maps points of `target`'s space to `source`'s.

    Raises
    ------
    ValueError
        If float64 cannot tell the neighbouring voxels of a grid apart, or a voxel's index is not finite.
    """
    if transform is not None and not transform.is_linear:
        return None
    d = target.dimension
    axes = aligned_axes(_drift(target, source, transform))
    if axes is None:
        return None

    def at(index: FloatArray) -> FloatArray:
        p = target.points(index)
        return source.indices(p if transform is None else transform.points(p))

    with np.errstate(over="ignore", invalid="ignore"):
        corners = at(np.array(list(itertools.product(*((0.0, float(n)) for n in target.size)))))
    if not np.isfinite(corners).all():
        raise _uncountable(target, source, transform)
    check_room(8 * sum(target.size), f"an output of size {target.size} asks for positions along its axes")
    x = []
    for j, n in enumerate(target.size):
        if j == 0:
            # ITK walks a scan line by interpolating between its two ends, one voxel past the last included.
            index = np.zeros((2, d))
            index[1, 0] = n
            a, b = at(index)[:, axes[0]]
            line = np.arange(n, dtype=np.float64)
            line /= n
            line *= b - a
            line += a
        else:
            line = np.empty(n)
            for lo in range(0, n, AT_ONCE):
                part = line[lo : lo + AT_ONCE]
                index = np.zeros((part.size, d))
                index[:, j] = np.arange(lo, lo + part.size)
                part[:] = at(index)[:, axes[j]]
        x.append(line)
    return AxisMap(axes, tuple(x))


def aligned_map(target: Grid, source: Grid) -> AxisMap:
    """`map_indices` of grids that have one direction.

    Raises
    ------
    ValueError
        As `map_indices`, and if the direction is so skewed that rounding turns one against the other.
    """
    where = map_indices(target, source)
    if where is None:
        raise ValueError(f"direction must have axes that are further from parallel, got {source.direction}")
    return where
