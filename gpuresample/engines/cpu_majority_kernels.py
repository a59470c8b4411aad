"""The CPU engine's block modes, compiled by Numba; the house rules are those of `cpu_kernels`."""

from __future__ import annotations

import numpy as np
from numba import njit, uint64

from gpuresample.engines.cpu_kernels import OPTIONS


@njit(inline="always")
def same(a, b):
    """Whether two voxels are one label: NaN is NaN."""
    return a == b or (a != a and b != b)


@njit(inline="always")
def below(a, b):
    """Whether a label is the smaller one; NaN is larger than any number."""
    return a < b or (b != b and a == a)


@njit(**OPTIONS)
def majority_row(src, so, dst, do, strides, block, n, label, votes):
    """`dst[do + i * dx]` = the mode of the block `src[so + z * sz + y * sy + (i * fx + x) * sx]`, for i < n.

    `label`, `votes` [fz * fy * fx] are scratch: the labels met so far, and how often.
    """
    sz, sy, sx, dx = uint64(strides[0]), uint64(strides[1]), uint64(strides[2]), uint64(strides[5])
    fz, fy, fx = uint64(block[0]), uint64(block[1]), uint64(block[2])
    so, do = uint64(so), uint64(do)
    for i in range(uint64(n)):
        corner = so + i * fx * sx
        head = src[corner]
        # Most blocks of a label volume hold one label.
        mixed = False
        for z in range(fz):
            for y in range(fy):
                row = corner + z * sz + y * sy
                for x in range(fx):
                    mixed |= src[row + x * sx] != head
        if not mixed:
            dst[do + i * dx] = head
            continue
        met, last = 0, 0
        for z in range(fz):
            for y in range(fy):
                row = corner + z * sz + y * sy
                for x in range(fx):
                    voxel = src[row + x * sx]
                    if met > 0 and same(voxel, label[last]):
                        votes[last] += 1
                        continue
                    last = 0
                    while last < met and not same(voxel, label[last]):
                        last += 1
                    if last == met:
                        label[met], votes[met] = voxel, 0
                        met += 1
                    votes[last] += 1
        best = 0
        for k in range(1, met):
            if votes[k] > votes[best] or (votes[k] == votes[best] and below(label[k], label[best])):
                best = k
        dst[do + i * dx] = label[best]


@njit(**OPTIONS)
def majority_plane(src, so, dst, do, strides, block, n_y, n_x, label):
    """A plane of modes. `strides` [6]: of src along z, y, x, then of dst."""
    votes = np.empty(label.size, np.int64)
    for y in range(n_y):
        here = so + y * block[1] * strides[1]
        majority_row(src, here, dst, do + y * strides[4], strides, block, n_x, label, votes)
