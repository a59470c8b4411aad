// neighbours.cuh - where a voxel of a rotated or deformed grid lies in the source, and what a border does.
//
// What both gathers (gather.cu) and votes (vote.cu) need. Axes of coordinates are x, y, z; every other triple is
// z, y, x.
#pragma once
#include "common.cuh"

// Border rules, gpuresample/engines/contract.py RULES.
#define RULE_NEAREST 0
#define RULE_REFLECT 1
#define RULE_CROP 3

// The sample that stands for position k; -1 for none.
static __device__ __forceinline__ int fold(int k, const int n, const int rule)
{
    if (k >= 0 && k < n) return k;
    if (rule == RULE_CROP) return -1;
    if (rule == RULE_NEAREST || n == 1) return k < 0 ? 0 : n - 1;
    const int period = rule == RULE_REFLECT ? 2 * n : 2 * (n - 1);
    const int last = rule == RULE_REFLECT ? period - 1 : period;
    k %= period;
    if (k < 0) k += period;
    return k < n ? k : last - k;
}

// Where voxel i of a row lies between the row's ends, from 0 to 1.
static __device__ __forceinline__ double position(const int i, const int x0, const int n0)
{
    return __ddiv_rn((double)(x0 + i), (double)n0);
}

// Continuous source index along one axis, in ITK's order of operations. Nothing may fuse here: a last bit decides
// between inside and outside, and between two nearest voxels.
static __device__ __forceinline__ double locate(
    const double *__restrict__ coordinates,  // [rows, 2, 3] if lines, else [rows, n_x, 3]
    const int lines, const idx_t row, const int n_x, const int i, const double along, const int axis)
{
    if (!lines) return coordinates[(row * n_x + i) * 3 + axis];
    const double a = coordinates[row * 6 + axis], b = coordinates[row * 6 + 3 + axis];
    return __dadd_rn(a, __dmul_rn(along, __dsub_rn(b, a)));
}

// x as a cell can be found for: whatever lies far outside still has one.
static __device__ __forceinline__ double clip(const double x)
{
    return x != x ? 0.0 : x < -1e9 ? -1e9 : x > 1e9 ? 1e9 : x;
}
