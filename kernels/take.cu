// take - copies by index along three axes, whatever the voxels are.
//
//     dst[b, z, y, x] = src[b, index_z[z], index_y[y], index_x[x]],   fill where an index is -1
//
// A voxel is 1, 2, 4 or 8 bytes that are moved, never a number: 64-bit labels survive. src_t and dst_t are the
// unsigned integer of that many bytes. Axes are the destination's, x the one whose voxels lie closest; src has
// whatever strides that makes for it.
//
//   v1  take       One thread per voxel.
//   v2  take_four  A thread makes 4 neighbours and writes them with one instruction: with 1-byte voxels v1 writes 32
//                  bytes per warp, a quarter of what the memory moves at a time.
//
//       fill_box   One value into a box: what lies outside the source of a separable plan.
#include "common.cuh"

extern "C" __global__ void take(
    const src_t *__restrict__ src,    // [batch, ...], at strides s_*
    const int *__restrict__ index_z,  // [n_z]
    const int *__restrict__ index_y,  // [n_y]
    const int *__restrict__ index_x,  // [n_x]
    dst_t *__restrict__ dst,          // [batch, n_z, n_y, n_x], at strides d_*
    const idx_t n_batch, const int n_z, const int n_y, const int n_x,
    const idx_t s_batch, const idx_t s_z, const idx_t s_y, const idx_t s_x,
    const idx_t d_batch, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const dst_t fill)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_x), y = (int)(t / n_x % n_y), z = (int)(t / n_x / n_y % n_z);
    const idx_t b = t / n_x / n_y / n_z;
    if (b >= n_batch) return;
    const int i = index_z[z], j = index_y[y], k = index_x[x];
    const bool inside = i >= 0 && j >= 0 && k >= 0;
    dst[b * d_batch + z * d_z + y * d_y + x * d_x] = inside ? src[b * s_batch + i * s_z + j * s_y + k * s_x] : fill;
}

extern "C" __global__ void take_four(
    const src_t *__restrict__ src,    // [batch, ...], at strides s_*
    const int *__restrict__ index_z,  // [n_z]
    const int *__restrict__ index_y,  // [n_y]
    const int *__restrict__ index_x,  // [n_x]
    dst_t *__restrict__ dst,          // [batch, n_z, n_y, n_x], at strides d_*; d_x is 1, rows are whole, aligned fours
    const idx_t n_batch, const int n_z, const int n_y, const int n_x,
    const idx_t s_batch, const idx_t s_z, const idx_t s_y, const idx_t s_x,
    const idx_t d_batch, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const dst_t fill)
{
    const int n_fours = n_x / 4;
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_fours) * 4, y = (int)(t / n_fours % n_y), z = (int)(t / n_fours / n_y % n_z);
    const idx_t b = t / n_fours / n_y / n_z;
    if (b >= n_batch) return;
    const int i = index_z[z], j = index_y[y];
    const src_t *row = src + b * s_batch + i * s_z + j * s_y;
    dst4_t four;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        const int k = index_x[x + c];
        four.at[c] = i >= 0 && j >= 0 && k >= 0 ? row[k * s_x] : fill;
    }
    *(dst4_t *)(dst + b * d_batch + z * d_z + y * d_y + x * d_x) = four;
}

extern "C" __global__ void fill_box(
    dst_t *__restrict__ dst,  // [batch, n_z, n_y, n_x], at strides d_*
    const idx_t n_batch, const int n_z, const int n_y, const int n_x,
    const idx_t d_batch, const idx_t d_z, const idx_t d_y, const idx_t d_x,
    const dst_t fill)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_x), y = (int)(t / n_x % n_y), z = (int)(t / n_x / n_y % n_z);
    const idx_t b = t / n_x / n_y / n_z;
    if (b >= n_batch) return;
    dst[b * d_batch + z * d_z + y * d_y + x * d_x] = fill;
}
