"""The CPU engine's block means, compiled by Numba; the house rules are those of `table_kernels`."""

from __future__ import annotations

import numpy as np
from numpy import uint64

from gpuresample.engines.cpu.jit import njit
from gpuresample.engines.cpu.table_kernels import OPTIONS


@njit(inner=True, **OPTIONS)
def add_rows(total, src, so, sz, sy, sx, block_z, block_y, n):
    """`total[j]` = sum over the block's rows of `src[so + z * sz + y * sy + j * sx]`, j < n; two rows a sweep."""
    acc = total.dtype.type
    n, step = uint64(n), uint64(sx)
    rows = block_z * block_y
    for k in range(0, rows, 2):
        a = uint64(so + (k // block_y) * sz + (k % block_y) * sy)
        last = k + 1 == rows
        b = a if last else uint64(so + ((k + 1) // block_y) * sz + ((k + 1) % block_y) * sy)
        if sx != 1:
            for j in range(n):
                here = acc(src[a + j * step])
                here = here if last else here + acc(src[b + j * step])
                total[j] = here if k == 0 else total[j] + here
        elif k == 0 and last:
            for j in range(n):
                total[j] = acc(src[a + j])
        elif k == 0:
            for j in range(n):
                total[j] = acc(src[a + j]) + acc(src[b + j])
        elif last:
            for j in range(n):
                total[j] += acc(src[a + j])
        else:
            for j in range(n):
                total[j] += acc(src[a + j]) + acc(src[b + j])


@njit(inner=True, **OPTIONS)
def add_pairs(out, src, n):
    """`out[j] = src[2 * j] + src[2 * j + 1]`, j < n."""
    for j in range(uint64(n)):
        out[j] = src[uint64(2) * j] + src[uint64(2) * j + uint64(1)]


@njit(inner=True, **OPTIONS)
def store_means(dst, do, step, total, width, n, factor, whole):
    """`dst[do + j * step]` = the sum of `width` values from `total[j * width]` on, times `factor`.

    `whole`: rounded, halves up.
    """
    kind = dst.dtype.type
    do, step, n, width = uint64(do), uint64(step), uint64(n), uint64(width)
    if width > 1:
        for j in range(n):
            # Sums move to the front: place j is read by nobody after j.
            here = total[j * width]
            for k in range(uint64(1), width):
                here += total[j * width + k]
            total[j] = here
    if whole and step == 1:
        for j in range(n):
            dst[do + j] = kind(np.floor(np.float64(total[j]) * factor + 0.5))
    elif whole:
        for j in range(n):
            dst[do + j * step] = kind(np.floor(np.float64(total[j]) * factor + 0.5))
    else:
        for j in range(n):
            dst[do + j * step] = kind(np.float64(total[j]) * factor)


@njit(**OPTIONS)
def mean_rows(src, so, dst, do, strides, block, first, stop, n_y, n_x, factor, whole, one, other):
    """Rows `first..stop` of (z, y) of one volume of means.

    Parameters
    ----------
    src, dst : flat arrays; so, do : offsets of the first block's first voxel and of the first mean
    strides : [6], of src along z, y, x and of dst along z, y, x
    block : [3], its size along z, y, x
    factor, whole : see `store_means`
    one, other : scratch of n_x blocks' voxels, in the type of the sums
    """
    sz, sy, sx, dz, dy, dx = strides
    bz, by, bx = block
    for row in range(first, stop):
        z, y = row // n_y, row % n_y
        add_rows(one, src, so + z * bz * sz + y * by * sy, sz, sy, sx, bz, by, n_x * bx)
        here, there, width = one, other, bx
        while width % 2 == 0:
            width //= 2
            add_pairs(there, here, n_x * width)
            here, there = there, here
        store_means(dst, do + z * dz + y * dy, dx, here, width, n_x, factor, whole)
