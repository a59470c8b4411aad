"""A `Route`, evaluated for every voxel: slow, in NumPy, for the tests of planning and of both engines."""

import numpy as np
import transform_oracle as oracle


def coordinates(route, n_dst, tables=False):
    """Continuous source indices [z, y, x, 3] (x, y, z last) of a block of `n_dst` = z, y, x voxels at `route.start`.

    With `tables`, a lattice that has a table, or whose nodes are the output's voxels, is evaluated by it.
    """
    n_z, n_y, n_x = n_dst
    x0, y0, z0 = route.start
    z, y, x = (k.ravel() for k in np.meshgrid(np.arange(n_z), np.arange(n_y), np.arange(n_x), indexing="ij"))
    index = np.stack([x + x0, y + y0, z + z0], axis=1).astype(np.float64)
    if route.lines:
        first, last = index.copy(), index.copy()
        first[:, 0], last[:, 0] = 0.0, route.n0
        a, b = _ends(route, first, index, False), _ends(route, last, index, False)
        out = a + (index[:, :1] / route.n0) * (b - a)
    else:
        out = _ends(route, index, index, tables)
    return out.reshape(n_z, n_y, n_x, 3)


def _ends(route, at, index, tables):
    """The whole formula at indices `at`; `index` are the voxels' own."""
    p = np.tile(route.origin, (len(at), 1))
    for j in range(3):
        p = p + route.step[:, j] * at[:, j : j + 1]
    for stage in route.stages:
        if not hasattr(stage, "vectors"):
            p = oracle.product(stage.matrix, p) + stage.offset
            continue
        own = index.astype(np.int64)
        if tables and stage.direct:
            p = p + stage.vectors[own[:, 2], own[:, 1], own[:, 0]]
        elif tables and stage.table is not None:
            p = p + _expanded(stage)[own[:, 2], own[:, 1], own[:, 0]]
        else:
            x = oracle.product(stage.inverse, p - stage.origin)
            finite = np.isfinite(x).all(axis=1)
            moved = p.copy()
            if stage.kind == "spline":
                moved[finite] = oracle.spline(x[finite], p[finite], stage.vectors, stage.order)
            else:
                moved[finite] = oracle.field(x[finite], p[finite], stage.vectors, stage.kind)
            p = moved
    return oracle.product(route.inverse, p - route.origin_in)


def _expanded(stage):
    """A lattice's table applied: displacements [z, y, x, component] of the whole output."""
    table = stage.table
    field = stage.vectors.astype(np.float64)
    for axis in range(3):
        rows = np.zeros((table.n_dst[axis], field.shape[axis]))
        start = table.start[axis]
        rows[start : start + table.tables[axis].n_dst] = table.tables[axis].dense()
        field = np.moveaxis(np.tensordot(rows, field, axes=(1, axis)), 0, axis)
    return np.transpose(field, (*np.argsort(table.dst_axis), 3))
