"""An independent oracle: slow, obvious, one voxel at a time. Imports nothing of the package.

Volumes are indexed [z, y, x]; points, sizes and coordinates are x, y, z. Everything is float64.
"""

import math
from typing import NamedTuple

import numpy as np

LINEAR = [
    "linear",
    *[f"bspline{p}" for p in range(1, 6)],
    "gaussian",
    "hamming",
    "cosine",
    "welch",
    "lanczos",
    "blackman",
]
LABELS = ["label_linear", "label_gaussian"]
EVERY = ["nearest", *LINEAR, *LABELS]

POLES = {
    1: [],
    2: [math.sqrt(8) - 3],
    3: [math.sqrt(3) - 2],
    4: [
        math.sqrt(664 - math.sqrt(438976)) + math.sqrt(304) - 19,
        math.sqrt(664 + math.sqrt(438976)) - math.sqrt(304) - 19,
    ],
    5: [
        math.sqrt(67.5 - math.sqrt(4436.25)) + math.sqrt(26.25) - 6.5,
        math.sqrt(67.5 + math.sqrt(4436.25)) - math.sqrt(26.25) - 6.5,
    ],
}

PAD_MODE = {"nearest": "edge", "reflect": "symmetric", "mirror": "reflect"}
# Voxels laid around a volume to stand for "for ever": the slowest pole, .43, is below 1e-12 after 33.
PAD = 36


class Geometry(NamedTuple):
    """Size, spacing, origin as x, y, z; direction as rows."""

    size: tuple
    spacing: tuple = (1.0, 1.0, 1.0)
    origin: tuple = (0.0, 0.0, 0.0)
    direction: tuple = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def index_to_point(g, index):
    """Origin first, then x, y, z: ITK's order of operations."""
    p = []
    for i in range(3):
        value = g.origin[i]
        for j in range(3):
            value += g.direction[i][j] * g.spacing[j] * index[j]
        p.append(value)
    return p


def point_to_index(g, point):
    """Subtract the origin, multiply by the inverse matrix (never divide by the spacing)."""
    if g.direction == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)):
        inverse = [[1.0 / g.spacing[i] if i == j else 0.0 for j in range(3)] for i in range(3)]
    else:
        inverse = np.linalg.inv(np.array(g.direction) * np.array(g.spacing)).tolist()
    v = [point[i] - g.origin[i] for i in range(3)]
    return [inverse[i][0] * v[0] + inverse[i][1] * v[1] + inverse[i][2] * v[2] for i in range(3)]


def affine(matrix, offset):
    """The map `p -> matrix p + offset`."""

    def apply(p):
        return [matrix[i][0] * p[0] + matrix[i][1] * p[1] + matrix[i][2] * p[2] + offset[i] for i in range(3)]

    return apply


def coordinates(source, target, transform=None):
    """Continuous source index of every target voxel, [z, y, x, 3].

    Along x ITK goes straight from voxel 0 to the voxel past the last.
    """
    transform = transform or (lambda p: p)
    n_x, n_y, n_z = target.size
    out = np.empty((n_z, n_y, n_x, 3))
    for z in range(n_z):
        for y in range(n_y):
            a = np.array(point_to_index(source, transform(index_to_point(target, (0, y, z)))))
            b = np.array(point_to_index(source, transform(index_to_point(target, (n_x, y, z)))))
            for x in range(n_x):
                out[z, y, x] = a + (x / n_x) * (b - a)
    return out


def is_inside(x, size, boundary=None):
    """SimpleITK: whole voxels, lower face in, upper face out. "constant": between the outermost centres."""
    if boundary is None:
        return all(-0.5 <= c < n - 0.5 for c, n in zip(x, size, strict=True))
    if boundary == "constant":
        # A rounding past a corner voxel's centre is still on it.
        return all(-1e-9 <= c <= n - 1 + 1e-9 for c, n in zip(x, size, strict=True))
    return True


# --- weights on a line without end -------------------------------------------------------------------------------


def basis(order, t):
    """Centred B-spline by its definition as a sum of truncated powers."""
    total = 0.0
    for k in range(order + 2):
        u = t + (order + 1) / 2 - k
        if u > 0:
            total += (-1) ** k * math.comb(order + 1, k) * u**order
    return total / math.factorial(order)


def sinc(t):
    return 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)


TAPER = {
    "hamming": lambda t: 0.54 + 0.46 * math.cos(math.pi * t / 5),
    "cosine": lambda t: math.cos(math.pi * t / 10),
    "welch": lambda t: 1 - t * t / 25,
    "lanczos": lambda t: sinc(t / 5),
    "blackman": lambda t: 0.42 + 0.5 * math.cos(math.pi * t / 5) + 0.08 * math.cos(2 * math.pi * t / 5),
}


def gaussian_taps(x, sigma, cut):
    out = []
    for k in range(math.floor(x + 0.5 - cut), math.ceil(x + 0.5 + cut)):
        upper = math.erf((k + 0.5 - x) / (math.sqrt(2) * sigma))
        lower = math.erf((k - 0.5 - x) / (math.sqrt(2) * sigma))
        out.append((k, upper - lower))
    return out


def taps(name, x):
    """Neighbours and weights of a sample at `x`: (index, weight) pairs."""
    b = math.floor(x)
    if name == "nearest":
        return [(math.floor(x + 0.5), 1.0)]
    if name in ("linear", "label_linear"):
        # A neighbour without weight is not read.
        return [(b, 1.0)] if x == b else [(b, 1 - (x - b)), (b + 1, x - b)]
    if name.startswith("bspline"):
        order = int(name[-1])
        first = math.floor(x + (0.5 if order % 2 == 0 else 0.0)) - order // 2
        return [(k, basis(order, x - k)) for k in range(first, first + order + 1)]
    if name == "gaussian":
        return gaussian_taps(x, 0.8, 3.2)
    if name == "label_gaussian":
        return gaussian_taps(x, 1.0, 1.0)
    if x == b:
        return [(b, 1.0)]
    return [(k, TAPER[name](x - k) * sinc(x - k)) for k in range(b - 4, b + 6)]


# --- borders -----------------------------------------------------------------------------------------------------


def clamp(k, n):
    return min(max(k, 0), n - 1)


def mirror(k, n):
    """Reflection about the centres of the outermost voxels, as often as it takes."""
    if n == 1:
        return 0
    while not 0 <= k < n:
        k = -k if k < 0 else 2 * (n - 1) - k
    return k


def folded_taps(name, x, n):
    """Taps with SimpleITK's border rule for the filter."""
    pairs = taps(name, x)
    if "gaussian" in name:
        return [(k, w) for k, w in pairs if 0 <= k < n]
    rule = mirror if name.startswith("bspline") else clamp
    return [(rule(k, n), w) for k, w in pairs]


def prefilter(volume, order):
    """B-spline coefficients by the recursion of Unser, with mirrored ends; x first, then y, then z."""
    c = np.array(volume, dtype=np.float64)
    for axis in (2, 1, 0):
        c = np.moveaxis(c, axis, 0).copy()
        n = c.shape[0]
        if n > 1:
            for z in POLES[order]:
                c *= (1 - z) * (1 - 1 / z)
            for z in POLES[order]:
                # The whole mirrored line, summed: period 2 (n - 1).
                start = c[0] + z ** (n - 1) * c[n - 1]
                for k in range(1, n - 1):
                    start = start + (z**k + z ** (2 * n - 2 - k)) * c[k]
                c[0] = start / (1 - z ** (2 * n - 2))
                for k in range(1, n):
                    c[k] += z * c[k - 1]
                c[n - 1] = z / (z * z - 1) * (z * c[n - 2] + c[n - 1])
                for k in range(n - 2, -1, -1):
                    c[k] = z * (c[k + 1] - c[k])
        c = np.moveaxis(c, 0, axis).copy()
    return c


def blur(volume, sigma):
    """Sampled Gaussian, cut at 4 sigma, along z, y, x of a volume that is padded already (its rim is spoilt)."""
    out = np.array(volume, dtype=np.float64)
    for axis, s in enumerate(sigma):
        if s == 0:
            continue
        radius = int(4 * s + 0.5)
        weight = [math.exp(-0.5 * (k / s) ** 2) for k in range(-radius, radius + 1)]
        moved = np.moveaxis(out, axis, 0)
        total = np.zeros_like(moved)
        for k, w in zip(range(-radius, radius + 1), weight, strict=True):
            total += w / sum(weight) * np.roll(moved, -k, axis=0)
        out = np.moveaxis(total, 0, axis)
    return out


# --- volumes -----------------------------------------------------------------------------------------------------


def interpolate(volume, x, name, boundary=None, default=0.0, sigma=None):
    """Sums at coordinates `x` [..., 3], in float64; `default` outside.

    With a `boundary` word or a blur `sigma` (z, y, x), the volume is really laid out `PAD` voxels further.
    """
    size = volume.shape[::-1]
    wanted = [is_inside(p, size, boundary) for p in x.reshape(-1, 3)]
    data, shift = np.array(volume, dtype=np.float64), 0
    if boundary is not None or sigma is not None:
        rule = boundary or ("mirror" if name.startswith("bspline") else "nearest")
        data = np.pad(data, PAD, PAD_MODE["mirror" if rule == "constant" else rule])
        shift = PAD
        if sigma is not None:
            data = blur(data, sigma)
    if name.startswith("bspline"):
        data = prefilter(data, int(name[-1]))
    n_z, n_y, n_x = data.shape
    out = np.full(len(wanted), float(default))
    for i, p in enumerate(x.reshape(-1, 3)):
        if not wanted[i]:
            continue
        tx = folded_taps(name, p[0] + shift, n_x)
        ty = folded_taps(name, p[1] + shift, n_y)
        tz = folded_taps(name, p[2] + shift, n_z)
        block = data[np.ix_([k for k, _ in tz], [k for k, _ in ty], [k for k, _ in tx])]
        total = 0.0
        for (_, wz), plane in zip(tz, block, strict=True):
            for (_, wy), line in zip(ty, plane, strict=True):
                total += wz * wy * float(np.dot(line, [w for _, w in tx]))
        if name == "gaussian":
            total /= sum(w for _, w in tz) * sum(w for _, w in ty) * sum(w for _, w in tx)
        out[i] = total
    return out.reshape(x.shape[:-1])


def choose(volume, x, name, default=0):
    """Nearest voxel or winning label at coordinates `x` [..., 3]; voxels never become floats."""
    n_z, n_y, n_x = volume.shape
    out = np.full(x.shape[:-1], default, volume.dtype)
    for where in np.ndindex(out.shape):
        p = x[where]
        if not is_inside(p, (n_x, n_y, n_z)):
            continue
        tx, ty, tz = (folded_taps(name, c, n) for c, n in zip(p, (n_x, n_y, n_z), strict=True))
        seen = [(volume[k, j, i], wx * wy * wz) for k, wz in tz for j, wy in ty for i, wx in tx]
        if name == "nearest":
            out[where] = seen[0][0]
        elif name == "label_linear":
            # The largest share wins, a tie goes to the smallest label.
            shares = {label: math.fsum(w for v, w in seen if v == label) for label, _ in seen}
            best = max(shares.values())
            out[where] = min(label for label, share in shares.items() if share >= best - 1e-12)
        else:
            # The label whose sum reaches the maximum first wins.
            sums, best = {}, 0.0
            for label, w in seen:
                sums[label] = sums.get(label, 0.0) + w
                if sums[label] > best:
                    best, out[where] = sums[label], label
    return out


def to_integers(values, dtype, rounding="nearest"):
    """Round half to even or toward zero, saturate; NaN becomes 0."""
    info = np.iinfo(dtype)
    out = []
    for v in values.ravel().tolist():
        if math.isnan(v):
            out.append(0)
        elif v >= info.max:
            out.append(info.max)
        elif v <= info.min:
            out.append(info.min)
        else:
            out.append(round(v) if rounding == "nearest" else math.trunc(v))
    return np.array(out, dtype).reshape(values.shape)
