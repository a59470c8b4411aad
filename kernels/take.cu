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
    const batch_t at, const dst_t fill)
{
    const voxel_t it = own_voxel(at, at.n_x);
    if (it.b >= at.n_batch) return;
    const int i = index_z[it.z], j = index_y[it.y], k = index_x[it.x];
    const bool inside = i >= 0 && j >= 0 && k >= 0;
    dst[it.b * at.d_batch + it.z * at.d_z + it.y * at.d_y + it.x * at.d_x] =
        inside ? src[it.b * at.s_batch + i * at.s_z + j * at.s_y + k * at.s_x] : fill;
}

extern "C" __global__ void take_four(
    const src_t *__restrict__ src,    // [batch, ...], at strides s_*
    const int *__restrict__ index_z,  // [n_z]
    const int *__restrict__ index_y,  // [n_y]
    const int *__restrict__ index_x,  // [n_x]
    dst_t *__restrict__ dst,          // [batch, n_z, n_y, n_x], at strides d_*; d_x is 1, rows are whole, aligned fours
    const batch_t at, const dst_t fill)
{
    const voxel_t it = own_voxel(at, at.n_x / 4);
    if (it.b >= at.n_batch) return;
    const int i = index_z[it.z], j = index_y[it.y], x = it.x * 4;
    const src_t *row = src + it.b * at.s_batch + i * at.s_z + j * at.s_y;
    dst4_t four;
#pragma unroll
    for (int c = 0; c < 4; c++) {
        const int k = index_x[x + c];
        four.at[c] = i >= 0 && j >= 0 && k >= 0 ? row[k * at.s_x] : fill;
    }
    *(dst4_t *)(dst + it.b * at.d_batch + it.z * at.d_z + it.y * at.d_y + x * at.d_x) = four;
}

extern "C" __global__ void fill_box(
    dst_t *__restrict__ dst,  // [batch, n_z, n_y, n_x], at strides d_*
    const batch_t at, const dst_t fill)
{
    const voxel_t it = own_voxel(at, at.n_x);
    if (it.b >= at.n_batch) return;
    dst[it.b * at.d_batch + it.z * at.d_z + it.y * at.d_y + it.x * at.d_x] = fill;
}
