"""Where a route leads, in NumPy, voxel by voxel and step by step as ITK goes. Shares no code with the package."""

import itertools

import numpy as np


def product(matrix, v):
    """A matrix times points [..., 3], summed over columns in order."""
    total = matrix[:, 0] * v[..., 0:1]
    for j in (1, 2):
        total = total + matrix[:, j] * v[..., j : j + 1]
    return total


def below(x):
    """ITK's floor, by way of a rounding to even."""
    return np.rint(2 * x - 0.5).astype(np.int64) >> 1


def between_nodes(vectors, x, nearest):
    """Displacement of points at lattice indices x [n, 3], and whether they are inside."""
    size = np.array(vectors.shape[2::-1])
    inside = ((x >= -0.5) & (x < size - 0.5)).all(axis=1)
    x = np.where(inside[:, None], x, 0.0)
    out = np.zeros_like(x)
    if nearest:
        k = np.clip(np.rint(2 * x + 0.5).astype(np.int64) >> 1, 0, size - 1)
        return vectors[k[:, 2], k[:, 1], k[:, 0]].astype(np.float64), inside
    cell = below(x)
    part = x - cell
    total = np.zeros(len(x))
    for up in [corner[::-1] for corner in itertools.product((0, 1), repeat=3)]:  # x is the fastest
        k = np.clip(cell + up, 0, size - 1)
        w = np.ones(len(x))
        for axis in range(3):
            w = w * (part[:, axis] if up[axis] else 1.0 - part[:, axis])
        read = (w != 0) & (total != 1.0)
        step = w[:, None] * vectors[k[:, 2], k[:, 1], k[:, 0]].astype(np.float64)
        out = np.where(read[:, None], out + step, out)
        total = np.where(read, total + w, total)
    return out, inside


def hump(order, u):
    """A B-spline at a distance, by ITK's polynomials."""
    a = np.abs(u)
    s = a * a
    if order == 1:
        return np.where(a < 1, 1 - a, 0.0)
    if order == 2:
        return np.where(a < 0.5, 0.75 - s, np.where(a < 1.5, (9 - 12 * a + 4 * s) * 0.125, 0.0))
    near, far = (4 - 6 * s + 3 * s * a) / 6, (8 - 12 * a + 6 * s - s * a) / 6
    return np.where(a < 1, near, np.where(a < 2, far, 0.0))


def spline(vectors, x, order):
    """Displacement of points at lattice indices x [n, 3] by a B-spline, and whether they are inside."""
    size = vectors.shape[2::-1]
    inside, x = np.ones(len(x), bool), x.copy()
    for axis, n in enumerate(size):
        if n == 1:
            continue
        lower, upper = (order - 1) / 2, np.float64(n - (order - 1) / 2 - 1)
        ulps = x[:, axis].copy().view(np.int64) - upper.view(np.int64)
        on = (x[:, axis] > 0) & (ulps >= -4) & (ulps <= 4)
        inward = (upper.view(np.int64) - 6).view(np.float64)
        inside &= on | ((x[:, axis] >= lower) & (x[:, axis] < upper))
        x[:, axis] = np.where(on, inward, x[:, axis])
    x = np.where(inside[:, None], x, (order - 1) / 2)
    first, weights = [], []
    for axis, n in enumerate(size):
        if n == 1:
            first.append(np.zeros(len(x), np.int64))
            weights.append([np.ones(len(x))])
            continue
        first.append(below(x[:, axis] + 0.5 - order / 2))
        u, each = x[:, axis] - first[-1], []
        for _ in range(order + 1):
            each.append(hump(order, u))
            u = u - 1.0
        weights.append(each)
    out = np.zeros_like(x)
    for c, wz in enumerate(weights[2]):
        for b, wy in enumerate(weights[1]):
            for a, wx in enumerate(weights[0]):
                node = vectors[first[2] + c, first[1] + b, first[0] + a].astype(np.float64)
                out = out + (wx * wy * wz)[:, None] * node
    return out, inside


def follow(route, index):
    """Continuous source indices of voxels `index` [n, 3] of the whole output."""
    p = np.broadcast_to(route.origin, (len(index), 3))
    for j in range(3):
        p = p + route.step[:, j] * index[:, j : j + 1].astype(np.float64)
    for stage in route.stages:
        if hasattr(stage, "offset"):
            p = product(stage.matrix, p) + stage.offset
            continue
        if stage.direct:
            p = p + stage.vectors[index[:, 2], index[:, 1], index[:, 0]].astype(np.float64)
            continue
        x = product(stage.inverse, p - stage.origin)
        if stage.kind == "spline":
            d, inside = spline(stage.vectors, x, stage.order)
            moved = d + p
        else:
            d, inside = between_nodes(stage.vectors, x, stage.kind == "nearest")
            moved = p + d
        p = np.where(inside[:, None], moved, p)
    return product(route.inverse, p - route.origin_in)


def coordinates(route, n_dst):
    """Continuous source indices [z, y, x, 3] of a block of `n_dst` voxels z, y, x."""
    z, y, x = (at + np.arange(n) for at, n in zip(route.start[::-1], n_dst, strict=True))
    if not any(hasattr(stage, "vectors") for stage in route.stages):
        rows = np.stack(np.meshgrid(z, y, [0, route.n0], indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
        ends = follow(route, rows).reshape(len(z), len(y), 2, 1, 3)
        a, b = ends[:, :, 0], ends[:, :, 1]
        return a + (x / route.n0)[:, None] * (b - a)
    index = np.stack(np.meshgrid(z, y, x, indexing="ij"), axis=-1).reshape(-1, 3)[:, ::-1]
    return follow(route, index).reshape(*n_dst, 3)
