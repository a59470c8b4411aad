"""Routes of grids that planning knows as maps, and their coordinates in NumPy, for code that has no kernel for them."""

from __future__ import annotations

import numpy as np

from gpuresample.engines.contract import FloatArray, Lattice, Linear, Route
from gpuresample.grid import Grid, Transform, affine_map


def route_of(target: Grid, source: Grid, transform: Transform | None) -> Route:
    """The route from voxels of `target` to `source`.

    A transform that is not linear is asked for its displacement at every voxel of `target`, once.
    """
    if transform is None or transform.is_linear:
        where = affine_map(target, source, transform)
        return Route(
            _square(where.step),
            _padded(where.origin),
            (Linear(_square(where.matrix), _padded(where.offset)),),
            _square(where.inverse),
            _padded(where.origin_in),
            where.n0,
            (0, 0, 0),
        )
    moved = _displacement(target, transform)
    field = Lattice(moved, _square(target.point_to_index), _padded(target.origin), "linear", 1, None, direct=True)
    return Route(
        _square(target.index_to_point),
        _padded(target.origin),
        (field,),
        _square(source.point_to_index),
        _padded(source.origin),
        target.size[0],
        (0, 0, 0),
    )


def _square(matrix: FloatArray) -> FloatArray:
    """A matrix of 2-D or 3-D as one of 3-D."""
    out = np.eye(3)
    out[: len(matrix), : len(matrix)] = matrix
    return out


def _padded(vector: FloatArray | tuple[float, ...]) -> FloatArray:
    out = np.zeros(3)
    out[: len(vector)] = vector
    return out


def _displacement(target: Grid, transform: Transform) -> FloatArray:
    """Displacement `[z, y, x, 3]` of every voxel of a grid, by SimpleITK."""
    import SimpleITK as sitk

    d = target.dimension
    field = sitk.TransformToDisplacementField(
        transform.sitk, sitk.sitkVectorFloat64, target.size, target.origin, target.spacing, target.direction
    )
    out = np.zeros((*(1,) * (3 - d), *target.size[::-1], 3))
    out[..., :d] = sitk.GetArrayViewFromImage(field)
    return out


def coordinates(route: Route, size: tuple[int, int], start: int, stop: int) -> FloatArray:
    """Continuous source indices of rows `start` to `stop` of a block whose rows are `size` (x, y) long.

    Shape (rows, 2, 3), both ends of the whole row, if `route.lines`, else (rows, x, 3). Lattices must be direct.
    """
    n_x, n_y = size
    x0, y0, z0 = route.start
    rows = np.arange(start, stop)
    i = np.array([0.0, route.n0]) if route.lines else np.arange(x0, x0 + n_x, dtype=np.float64)
    y, z = y0 + rows % n_y, z0 + rows // n_y
    index = (i[None, :, None], y[:, None, None].astype(np.float64), z[:, None, None].astype(np.float64))
    p = np.broadcast_to(route.origin, (rows.size, i.size, 3))
    for j in range(3):
        p = p + route.step[:, j] * index[j]
    for stage in route.stages:
        if isinstance(stage, Linear):
            p = _product(stage.matrix, p) + stage.offset
        else:
            assert stage.direct
            p = p + stage.vectors[z[:, None], y[:, None], np.arange(x0, x0 + n_x)]
    return _product(route.inverse, p - route.origin_in)


def _product(matrix: FloatArray, p: FloatArray) -> FloatArray:
    """A matrix times points `[..., 3]`, in ITK's order of sums."""
    out = matrix[:, 0] * p[..., :1]
    for j in (1, 2):
        out = out + matrix[:, j] * p[..., j : j + 1]
    return out
