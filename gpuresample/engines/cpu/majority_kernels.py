"""The CPU engine's block modes, compiled by Numba; the house rules are those of `table_kernels`."""

from __future__ import annotations

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS

# Labels of a block that are counted as they are met.
MOST_LABELS = 256


@njit(inline="always")
def same(a, b):
    """Whether two voxels are one label: NaN is NaN."""
    return a == b or (a != a and b != b)


@njit(inline="always")
def below(a, b):
    """Whether a label is the smaller one; NaN is larger than any number."""
    return a < b or (b != b and a == a)


@njit(inner=True, **OPTIONS)
def mixed_columns(src, so, strides, block, n, mixed):
    """`mixed[j]` = whether column `j < n` of a row of blocks has another label than the first row there."""
    sz, sy, sx = uint64(strides[0]), uint64(strides[1]), uint64(strides[2])
    so, n = uint64(so), uint64(n)
    for j in range(n):
        mixed[j] = False
    for z in range(uint64(block[0])):
        for y in range(uint64(block[1])):
            row = so + z * sz + y * sy
            if sx == 1:
                for j in range(n):
                    mixed[j] |= src[row + j] != src[so + j]
            else:
                for j in range(n):
                    mixed[j] |= src[row + j * sx] != src[so + j * sx]


@njit(inner=True, **OPTIONS)
def block_mode(src, corner, strides, block, first, label, votes):
    """The mode of one block, and whether it has more labels than `MOST_LABELS`: then no mode is found.

    Where labels come `first`, the zeros of a block that has others do not count.

    `label`, `votes` are scratch: the labels met so far, and how often.
    """
    sz, sy, sx = uint64(strides[0]), uint64(strides[1]), uint64(strides[2])
    met, last = 0, 0
    for z in range(uint64(block[0])):
        for y in range(uint64(block[1])):
            row = corner + z * sz + y * sy
            for x in range(uint64(block[2])):
                voxel = src[row + x * sx]
                if met > 0 and same(voxel, label[last]):
                    votes[last] += 1
                    continue
                last = 0
                while last < met and not same(voxel, label[last]):
                    last += 1
                if last == met:
                    if met == MOST_LABELS:
                        return label[0], True
                    label[met], votes[met] = voxel, 0
                    met += 1
                votes[last] += 1
    best = 0
    for k in range(met):
        if first and label[k] == 0:
            votes[k] = 0
    for k in range(1, met):
        if votes[k] > votes[best] or (votes[k] == votes[best] and below(label[k], label[best])):
            best = k
    return label[best], False


@njit(**OPTIONS)
def majority_rows(src, so, dst, do, strides, block, first, n_y, n_x, label, left):
    """Rows of modes: `dst[do + y * dy + x * dx]` is that of the block from `src[so + y * fy * sy + x * fx * sx]` on.

    `strides` [6]: of src along z, y, x, then of dst; `label` [`MOST_LABELS`] is scratch. `left[y * n_x + x]` becomes
    True where a block has more labels than that: every voxel is compared with every label, which are to stay few.
    """
    votes, mixed = np.empty(label.size, np.int64), np.empty(n_x * block[2], np.bool_)
    sx, dx, fx = uint64(strides[2]), uint64(strides[5]), uint64(block[2])
    for y in range(n_y):
        here = uint64(so + y * block[1] * strides[1])
        there = uint64(do + y * strides[4])
        # Most blocks of a label volume hold one label, and whole rows are compared many voxels at a time.
        mixed_columns(src, here, strides, block, n_x * block[2], mixed)
        for i in range(uint64(n_x)):
            corner = here + i * fx * sx
            head = src[corner]
            several = False
            for x in range(fx):
                several |= mixed[i * fx + x] | (src[corner + x * sx] != head)
            if several:
                head, left[y * n_x + int(i)] = block_mode(src, corner, strides, block, first, label, votes)
            dst[there + i * dx] = head
