"""Where ITK's transforms take points: NumPy, from parameters alone, in ITK's order of operations.

Nothing of the package is imported, and SimpleITK is asked for parameters only. Sums run over the columns of a matrix
one after the other; no product is contracted.
"""

import math

import numpy as np
import SimpleITK as sitk


def evaluate(transform, points):
    """Points `[n, d]` through a transform, to the bit as ITK takes them."""
    p = np.asarray(points, np.float64)
    return _by_class(_plain(transform), p)


def _plain(transform):
    try:
        return transform.Downcast()
    except (KeyError, RuntimeError):
        return transform


def _by_class(t, p):
    kind = t.GetTransformEnum()
    if kind == sitk.sitkIdentity:
        return p
    if kind == sitk.sitkComposite:
        for i in reversed(range(t.GetNumberOfTransforms())):
            p = evaluate(t.GetNthTransform(i), p)
        return p
    if kind == sitk.sitkDisplacementField:
        return _field(t, p)
    if kind == sitk.sitkBSplineTransform:
        return _spline(t, p)
    values = np.array(t.GetParameters())
    if kind == sitk.sitkTranslation:
        return p + values
    if kind in (sitk.sitkScale, sitk.sitkScaleLogarithmic):
        centre = np.array(t.GetFixedParameters())
        scale = np.array([math.exp(v) for v in values]) if kind == sitk.sitkScaleLogarithmic else values
        return (p - centre) * scale + centre
    matrix, shift = _matrix(t, kind, values)
    centre = np.array(t.GetFixedParameters())[: p.shape[1]]
    offset = shift + centre
    for j in range(p.shape[1]):
        offset = offset - matrix[:, j] * centre[j]
    return product(matrix, p) + offset


def product(matrix, p):
    """Matrix times points, column after column."""
    out = np.zeros(p.shape)
    for j in range(p.shape[-1]):
        out = out + matrix[:, j] * p[..., j, None]
    return out


def _times(a, b):
    """Product of two matrices, summed in order."""
    return product(a, b.T).T


def _matrix(t, kind, v):
    """Matrix and translation of the classes that have them."""
    d = t.GetDimension()
    if kind == sitk.sitkAffine:
        return v[: d * d].reshape(d, d), v[d * d :]
    if d == 2:
        scale, angle, shift = (v[0], v[1], v[2:]) if kind == sitk.sitkSimilarity else (1.0, v[0], v[1:])
        c, s = scale * math.cos(angle), scale * math.sin(angle)
        return np.array([[c, -s], [s, c]]), shift
    if kind == sitk.sitkEuler:
        return _euler(v[:3], t.GetComputeZYX()), v[3:]
    if kind == sitk.sitkQuaternionRigid:
        return _unit(v[:4] / np.linalg.norm(v[:4])), v[4:]
    rotation = _versor(v[:3])
    if kind == sitk.sitkVersor:
        return rotation, np.zeros(3)
    shift = v[3:6]
    if kind == sitk.sitkSimilarity:
        return rotation * v[6], shift
    if kind in (sitk.sitkScaleVersor, sitk.sitkScaleSkewVersor):
        rotation[np.diag_indices(3)] += v[6:9] - 1.0
        if kind == sitk.sitkScaleSkewVersor:
            for (i, j), skew in zip(((0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)), v[9:], strict=True):
                rotation[i, j] += skew
    if kind == sitk.sitkComposeScaleSkewVersor:
        skew = np.array([[1.0, v[9], v[10]], [0.0, 1.0, v[11]], [0.0, 0.0, 1.0]])
        rotation = _times(rotation, _times(np.diag(v[6:9]), skew))
    return rotation, shift


def _euler(angles, zyx):
    (cx, cy, cz), (sx, sy, sz) = [[f(a) for a in angles.tolist()] for f in (math.cos, math.sin)]
    x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return _times(_times(z, y), x) if zyx else _times(_times(z, x), y)


def _versor(axis):
    x, y, z = axis.tolist()
    n = math.sqrt(x * x + y * y + z * z)
    return _unit(np.array([x, y, z, math.sqrt(1.0 - n * n)]))


def _unit(q):
    x, y, z, w = q.tolist()
    return np.array(
        [
            [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)],
        ]
    )


def to_index(spacing, direction):
    """ITK's matrix from physical offsets to indices, read off an image."""
    d = len(spacing)
    image = sitk.Image([1] * d, sitk.sitkUInt8)
    image.SetSpacing(spacing)
    image.SetDirection(direction)
    return np.array([image.TransformPhysicalPointToContinuousIndex(e) for e in np.eye(d).tolist()]).T


def whole(x):
    """ITK's floor, by way of rounding twice the number."""
    return np.rint(2.0 * x - 0.5).astype(np.int64) >> 1


def _field(t, p):
    image = t.GetDisplacementField()
    x = product(to_index(image.GetSpacing(), image.GetDirection()), p - np.array(image.GetOrigin()))
    nearest = "VectorNearestNeighbor" in str(t)
    return field(x, p, sitk.GetArrayFromImage(image), "nearest" if nearest else "linear")


def field(x, p, vectors, kind):
    """Points `p` that lie at lattice indices `x`, moved by a displacement field `vectors` [..., y, x, component]."""
    d = x.shape[-1]
    n = np.array(vectors.shape[:d][::-1])
    inside = ((x >= -0.5) & (x < n - 0.5)).all(axis=-1)
    out = p.copy()
    for i in np.flatnonzero(inside):
        at, vector = x[i], np.zeros(vectors.shape[-1])
        if kind == "nearest":
            node = np.clip(whole(at + 0.5), 0, n - 1)
            vector = vectors[tuple(node[::-1])].astype(np.float64)
        else:
            base = whole(at)
            f, total = at - base, 0.0
            for corner in range(2**d):
                upper = [corner >> a & 1 for a in range(d)]
                weight = 1.0
                for a in range(d):
                    weight = weight * (f[a] if upper[a] else 1.0 - f[a])
                if weight == 0.0:
                    continue
                node = [min(max(base[a] + upper[a], 0), n[a] - 1) for a in range(d)]
                vector = vector + weight * vectors[tuple(node[::-1])]
                total += weight
                if total == 1.0:
                    break
        out[i] = p[i] + vector
    return out


def _spline(t, p):
    order, d = t.GetOrder(), t.GetDimension()
    if order == 0:
        return p
    fixed = t.GetFixedParameters()
    n = [int(k) for k in fixed[:d]]
    x = product(to_index(fixed[2 * d : 3 * d], fixed[3 * d :]), p - np.array(fixed[d : 2 * d]))
    coefficients = np.moveaxis(np.reshape(t.GetParameters(), (d, *n[::-1])), 0, -1)
    return spline(x, p, coefficients, order)


def spline(x, p, coefficients, order):
    """Points `p` that lie at lattice indices `x`, moved by a B-spline of `coefficients` [..., y, x, component].

    An axis of one control point has weight 1 and no faces.
    """
    d = x.shape[-1]
    n = coefficients.shape[:d][::-1]
    out = p.copy()
    for i in range(len(x)):
        taps = [_spline_axis(float(x[i, a]), n[a], order) for a in range(d)]
        if any(t is None for t in taps):
            continue
        vector = np.zeros(coefficients.shape[-1])
        for k in np.ndindex(*[len(w) for _, w in taps[::-1]]):
            weight, node = 1.0, []
            for a in range(d):
                weight = weight * taps[a][1][k[d - 1 - a]]
                node.insert(0, taps[a][0] + k[d - 1 - a])
            vector = vector + weight * coefficients[tuple(node)]
        out[i] = vector + p[i]
    return out


def _spline_axis(x, n, order):
    """First control point and weights along an axis; None outside."""
    if n == 1:
        return 0, [1.0]
    low, high = (order - 1) / 2, n - (order - 1) / 2 - 1
    below = [high]
    for _ in range(6):
        below.append(math.nextafter(below[-1], 0.0))
    above = high
    for _ in range(4):
        above = math.nextafter(above, math.inf)
    if below[4] <= x <= above:
        x = below[6]
    elif not low <= x < high:
        return None
    first = int(whole(np.float64(x + 0.5 - order / 2.0)))
    u, weights = x - first, []
    for _ in range(order + 1):
        weights.append(bell(order, u))
        u -= 1.0
    return first, weights


def bell(order, u):
    """The B-spline of an order at distance u."""
    a = abs(u)
    if order == 1:
        return 1.0 - a if a < 1.0 else 0.0
    square = a * a
    if order == 2:
        if a < 0.5:
            return 0.75 - square
        return (9.0 - 12.0 * a + 4.0 * square) * 0.125 if a < 1.5 else 0.0
    if a < 1.0:
        return (4.0 - 6.0 * square + 3.0 * square * a) / 6.0
    return (8.0 - 12.0 * a + 6.0 * square - square * a) / 6.0 if a < 2.0 else 0.0
