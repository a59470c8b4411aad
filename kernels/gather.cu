// gather - one weighted neighbourhood, or one copy, per voxel of a rotated, sheared or deformed grid.
//
//     dst[z, y, x] = sum over a, b, c of wz[a] * wy[b] * wx[c] * src[kz + a, ky + b, kx + c]
//
// The neighbourhood (kz, ky, kx) and the weights follow from the voxel's continuous source index (px, py, pz). Per axis,
// t = p + shift, cell = floor(t), u = (t - cell) * pieces; the first tap is cell + offset, and tap k weighs the
// polynomial coefficients[floor(u), k] in u's fraction. Neighbours past the border are folded by `rule`; those that weigh
// nothing are not read. Voxels outside `box` take `fill`.
//
//   v1  gather_any     One thread per voxel, any number of taps; the weights lie in local memory.
//   v2  gather_cubic   The same text for 4 taps: the loops unroll, the weights stay in registers.
//       gather_linear  2 taps: weights need no polynomial. Where only one voxel is to be read (p on it, or past a border
//                      that repeats it) both taps are that voxel and weigh a half each, so that a neighbour's NaN or
//                      infinity stays where it is.
//       gather_copy    The nearest voxel, bit by bit: src_t and dst_t are one unsigned integer.
//
// A block is 32 voxels of 8 neighbouring rows: on a grid that is turned little, they share most of their neighbours.
#include "neighbours.cuh"

#define MAX_TAPS 16  // widest neighbourhood of gather_any

// What becomes of a voxel: not inside, some neighbours past the border, all neighbours plain.
#define OUTSIDE 0
#define BORDER 1
#define PLAIN 2

// ---------------------------------------------------------------------------------------------------------------
// gather_copy

extern "C" __global__ void gather_copy(
    const src_t *__restrict__ src,           // [n_z, n_y, n_x] from sample `base` on, at strides s_*
    const double *__restrict__ coordinates,  // [n_rows, 2, 3] if lines, else [n_rows, n_x, 3]
    dst_t *__restrict__ dst,                 // [n_z, n_y, n_x], at strides d_*
    const double *__restrict__ box,          // [3, 2]: continuous indices inside; the upper bound is not
    const int *__restrict__ extent,          // [2, 3]: size of the whole source; base, its first sample at hand
    const int lines, const int x0, const int n0, const int row0, const int n_rows, const int n_y, const int n_x,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const int rule, const dst_t fill)
{
    const int n_strips = (n_x + blockDim.x - 1) / blockDim.x;
    const int i = (int)(blockIdx.x % n_strips) * blockDim.x + threadIdx.x;
    const int r = (int)(blockIdx.x / n_strips) * blockDim.y + threadIdx.y;
    if (i >= n_x || r >= n_rows) return;
    const double along = position(i, x0, n0);
    const idx_t stride[3] = {s_z, s_y, s_x};
    idx_t place = 0;
    bool inside = true;
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        const double p = locate(coordinates, lines, r, n_x, i, along, 2 - axis);
        inside = inside && p >= box[axis * 2] && p < box[axis * 2 + 1];
        const int k = fold((int)floor(__dadd_rn(clip(p), 0.5)), extent[axis], rule);
        if (inside) place += (k - extent[3 + axis]) * stride[axis];
    }
    const int y = (row0 + r) % n_y, z = (row0 + r) / n_y;
    dst[z * d_z + y * d_y + i * d_x] = inside ? src[place] : fill;
}

// ---------------------------------------------------------------------------------------------------------------
// gather_linear

extern "C" __global__ void gather_linear(
    const src_t *__restrict__ src,           // [n_z, n_y, n_x] from sample `base` on, at strides s_*
    const double *__restrict__ coordinates,  // [n_rows, 2, 3] if lines, else [n_rows, n_x, 3]
    dst_t *__restrict__ dst,                 // [n_z, n_y, n_x], at strides d_*
    const double *__restrict__ box,          // [3, 2]: continuous indices inside; the upper bound is not
    const int *__restrict__ extent,          // [2, 3]: size of the whole source; base, its first sample at hand
    const int lines, const int x0, const int n0, const int row0, const int n_rows, const int n_y, const int n_x,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const int rule, const dst_t fill,
    const acc_t low, const acc_t high, const int rounding,
    const int spline,  // find the cell from p in float32, as ITK's splines do
    const int offset)  // from the cell to the lower tap
{
    const int n_strips = (n_x + blockDim.x - 1) / blockDim.x;
    const int i = (int)(blockIdx.x % n_strips) * blockDim.x + threadIdx.x;
    const int r = (int)(blockIdx.x / n_strips) * blockDim.y + threadIdx.y;
    if (i >= n_x || r >= n_rows) return;
    const int y = (row0 + r) % n_y, z = (row0 + r) / n_y;
    dst_t *out = dst + z * d_z + y * d_y + i * d_x;

    const double along = position(i, x0, n0);
    const idx_t stride[3] = {s_z, s_y, s_x};
    acc_t weight[3][2];
    idx_t place[3][2];
    bool inside = true;
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        const double p = locate(coordinates, lines, r, n_x, i, along, 2 - axis);
        inside = inside && p >= box[axis * 2] && p < box[axis * 2 + 1];
        const double t = clip(p);
        const double cell = spline ? (double)floorf((float)t) : floor(t);
        const double d = t - cell;
        const int n = extent[axis], k = (int)cell + offset;
        const int lower = fold(k, n, rule);
        const bool lone = d == 0.0 || (rule == RULE_NEAREST && (k < 0 || k >= n - 1));
        const int upper = lone ? lower : fold(k + 1, n, rule);
        weight[axis][0] = lone ? (acc_t)0.5 : (acc_t)(1.0 - d);
        weight[axis][1] = lone ? (acc_t)0.5 : (acc_t)d;
        place[axis][0] = inside ? (lower - extent[3 + axis]) * stride[axis] : 0;
        place[axis][1] = inside ? (upper - extent[3 + axis]) * stride[axis] : 0;
    }
    if (!inside) {
        *out = fill;
        return;
    }
    acc_t total = 0;
#pragma unroll
    for (int a = 0; a < 2; a++) {
        acc_t plane = 0;
#pragma unroll
        for (int b = 0; b < 2; b++) {
            const src_t *row = src + place[0][a] + place[1][b];
            plane += weight[1][b] * (weight[2][0] * load(row[place[2][0]]) + weight[2][1] * load(row[place[2][1]]));
        }
        total += weight[0][a] * plane;
    }
    *out = store(total, low, high, rounding);
}

// ---------------------------------------------------------------------------------------------------------------
// gather_any, gather_cubic

// First tap and weights along one axis. Returns whether the voxel is outside, at the border or plain.
static __device__ __forceinline__ int weigh(
    const double p, const double low, const double high, const int n,
    const acc_t *__restrict__ coefficients,  // [pieces, width, terms]
    const int pieces, const int width, const int terms,
    const double shift, const int offset, const int spline, const int normalise,
    int *first,
    acc_t *weight)  // [width]
{
    const double t = clip(p);
    const double cell = spline ? (double)floorf((float)t + (float)shift) : floor(t + shift);
    *first = (int)cell + offset;
    const double u = (t + shift - cell) * pieces;
    const double whole = fmin(fmax(floor(u), 0.0), pieces - 1.0);
    const acc_t part = (acc_t)(u - whole);
    const acc_t *c = coefficients + (int)whole * width * terms;
#pragma unroll
    for (int k = 0; k < width; k++) {
        acc_t value = c[k * terms + terms - 1];
#pragma unroll
        for (int d = terms - 2; d >= 0; d--) value = value * part + c[k * terms + d];
        weight[k] = value;
    }
    if (normalise) {
        acc_t sum = 0;
#pragma unroll
        for (int k = 0; k < width; k++) sum += weight[k];
#pragma unroll
        for (int k = 0; k < width; k++) weight[k] /= sum;
    }
    if (!(p >= low && p < high)) return OUTSIDE;
    return *first >= 0 && *first <= n - width ? PLAIN : BORDER;
}

// Any neighbourhood: taps past the border fold, taps that weigh nothing are not read. `sum`: what the taps weigh.
static __device__ __forceinline__ acc_t border_sum(
    const src_t *__restrict__ src, const int *__restrict__ extent, const int rule, const int width,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const int *first,
    const acc_t *wz, const acc_t *wy, const acc_t *wx,  // [width]
    acc_t *sum)
{
    acc_t total = 0, whole = 0;
#pragma unroll
    for (int a = 0; a < width; a++) {
        const int z = fold(first[0] + a, extent[0], rule);
        if (z < 0 || wz[a] == 0) continue;
#pragma unroll
        for (int b = 0; b < width; b++) {
            const int y = fold(first[1] + b, extent[1], rule);
            if (y < 0 || wy[b] == 0) continue;
            const src_t *row = src + (z - extent[3]) * s_z + (y - extent[4]) * s_y;
            acc_t t = 0, s = 0;
#pragma unroll
            for (int c = 0; c < width; c++) {
                const int x = fold(first[2] + c, extent[2], rule);
                if (x < 0 || wx[c] == 0) continue;
                t += wx[c] * load(row[(x - extent[5]) * s_x]);
                s += wx[c];
            }
            total += wz[a] * wy[b] * t;
            whole += wz[a] * wy[b] * s;
        }
    }
    *sum = whole;
    return total;
}

static __device__ __forceinline__ acc_t plain_sum(
    const src_t *__restrict__ src, const int *__restrict__ extent, const int width,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const int *first,
    const acc_t *wz, const acc_t *wy, const acc_t *wx)  // [width]
{
    const src_t *corner =
        src + (first[0] - extent[3]) * s_z + (first[1] - extent[4]) * s_y + (first[2] - extent[5]) * s_x;
    acc_t total = 0;
#pragma unroll
    for (int a = 0; a < width; a++) {
        acc_t plane = 0;
#pragma unroll
        for (int b = 0; b < width; b++) {
            const src_t *row = corner + a * s_z + b * s_y;
            acc_t line = 0;
#pragma unroll
            for (int c = 0; c < width; c++) line += wx[c] * load(row[c * s_x]);
            plane += wy[b] * line;
        }
        total += wz[a] * plane;
    }
    return total;
}

// Unrolls where `width` is a number at the place of the call; ROOM is the length of the weight arrays.
template <int ROOM>
static __device__ __forceinline__ void gather_voxel(
    const src_t *__restrict__ src, const double *__restrict__ coordinates, dst_t *__restrict__ dst,
    const double *__restrict__ box, const int *__restrict__ extent,
    const int lines, const int x0, const int n0, const int row0, const int n_rows, const int n_y, const int n_x,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const int rule, const dst_t fill, const acc_t low, const acc_t high, const int rounding, const int spline,
    const acc_t *__restrict__ coefficients, const int pieces, const int width, const int terms,
    const double shift, const int offset, const int normalise)
{
    const int n_strips = (n_x + blockDim.x - 1) / blockDim.x;
    const int i = (int)(blockIdx.x % n_strips) * blockDim.x + threadIdx.x;
    const int r = (int)(blockIdx.x / n_strips) * blockDim.y + threadIdx.y;
    if (i >= n_x || r >= n_rows) return;
    const int y = (row0 + r) % n_y, z = (row0 + r) / n_y;
    dst_t *out = dst + z * d_z + y * d_y + i * d_x;

    const double along = position(i, x0, n0);
    int first[3], state = PLAIN;
    acc_t weight[3][ROOM];
#pragma unroll
    for (int axis = 0; axis < 3; axis++) {
        const double p = locate(coordinates, lines, r, n_x, i, along, 2 - axis);
        const int now = weigh(
            p, box[axis * 2], box[axis * 2 + 1], extent[axis], coefficients, pieces, width, terms, shift, offset,
            spline, normalise, first + axis, weight[axis]);
        state = now < state ? now : state;
    }
    if (state == OUTSIDE) {
        *out = fill;
        return;
    }
    acc_t total;
    if (state == PLAIN) {
        total = plain_sum(src, extent, width, s_z, s_y, s_x, first, weight[0], weight[1], weight[2]);
    } else {
        acc_t sum;
        total = border_sum(src, extent, rule, width, s_z, s_y, s_x, first, weight[0], weight[1], weight[2], &sum);
        if (normalise) total /= sum;
    }
    *out = store(total, low, high, rounding);
}

extern "C" __global__ void gather_any(
    const src_t *__restrict__ src,           // [n_z, n_y, n_x] from sample `base` on, at strides s_*
    const double *__restrict__ coordinates,  // [n_rows, 2, 3] if lines, else [n_rows, n_x, 3]
    dst_t *__restrict__ dst,                 // [n_z, n_y, n_x], at strides d_*
    const double *__restrict__ box,          // [3, 2]: continuous indices inside; the upper bound is not
    const int *__restrict__ extent,          // [2, 3]: size of the whole source; base, its first sample at hand
    const int lines, const int x0, const int n0, const int row0, const int n_rows, const int n_y, const int n_x,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const int rule, const dst_t fill,
    const acc_t low, const acc_t high, const int rounding,
    const int spline,                        // find the cell from t in float32, as ITK's splines do
    const acc_t *__restrict__ coefficients,  // [pieces, width, terms]
    const int pieces, const int width, const int terms, const double shift, const int offset,
    const int normalise)                     // divide by the sum of weights
{
    gather_voxel<MAX_TAPS>(
        src, coordinates, dst, box, extent, lines, x0, n0, row0, n_rows, n_y, n_x, s_z, s_y, s_x, d_z, d_y, d_x, rule,
        fill, low, high, rounding, spline, coefficients, pieces, width, terms, shift, offset, normalise);
}

extern "C" __global__ void gather_cubic(
    const src_t *__restrict__ src,           // [n_z, n_y, n_x] from sample `base` on, at strides s_*
    const double *__restrict__ coordinates,  // [n_rows, 2, 3] if lines, else [n_rows, n_x, 3]
    dst_t *__restrict__ dst,                 // [n_z, n_y, n_x], at strides d_*
    const double *__restrict__ box,          // [3, 2]: continuous indices inside; the upper bound is not
    const int *__restrict__ extent,          // [2, 3]: size of the whole source; base, its first sample at hand
    const int lines, const int x0, const int n0, const int row0, const int n_rows, const int n_y, const int n_x,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const int rule, const dst_t fill,
    const acc_t low, const acc_t high, const int rounding,
    const int spline,                        // find the cell from t in float32, as ITK's splines do
    const acc_t *__restrict__ coefficients,  // [pieces, width, terms]: 1, 4, 4
    const int pieces, const int width, const int terms, const double shift, const int offset,
    const int normalise)                     // divide by the sum of weights
{
    // pieces, width and terms are stated here so that the compiler knows them.
    gather_voxel<4>(
        src, coordinates, dst, box, extent, lines, x0, n0, row0, n_rows, n_y, n_x, s_z, s_y, s_x, d_z, d_y, d_x, rule,
        fill, low, high, rounding, spline, coefficients, 1, 4, 4, shift, offset, normalise);
}
