// resample_volume - weighted sum along all three axes at once, for tables of few taps (linear interpolation).
//
//     dst[b, z, y, x] = sum over a < count_z[z], c < count_y[y], k < count_x[x] of
//         weight_z[z, a] * weight_y[y, c] * weight_x[x, k] * src[b, first_z[z] + a, first_y[y] + c, first_x[x] + k]
//
// Three passes of resample_axis write and read two volumes in between; with 8 taps per voxel that is nearly all they
// do. Here the source is read and the destination written, and neighbouring threads find each other's samples in the
// caches. Axes are the source's. Samples that a row does not tap are not read.
//
//   v1  resample_volume  One thread per voxel, neighbours along x; summed along x, then y, then z.
#include "common.cuh"

extern "C" __global__ void resample_volume(
    const src_t *__restrict__ src,       // [batch, n_src_z, n_src_y, n_src_x], at strides s_*
    const int *__restrict__ first_z,     // [n_z]
    const int *__restrict__ count_z,     // [n_z]
    const acc_t *__restrict__ weight_z,  // [n_z, taps_z]
    const int *__restrict__ first_y,     // [n_y]
    const int *__restrict__ count_y,     // [n_y]
    const acc_t *__restrict__ weight_y,  // [n_y, taps_y]
    const int *__restrict__ first_x,     // [n_x]
    const int *__restrict__ count_x,     // [n_x]
    const acc_t *__restrict__ weight_x,  // [n_x, taps_x]
    dst_t *__restrict__ dst,             // [batch, n_z, n_y, n_x], at strides d_*
    const idx_t n_batch, const int n_z, const int n_y, const int n_x, const int taps_z, const int taps_y,
    const int taps_x, const idx_t s_batch, const idx_t s_z, const idx_t s_y, const idx_t s_x, const idx_t d_batch,
    const idx_t d_z, const idx_t d_y, const idx_t d_x, const acc_t low, const acc_t high, const int rounding)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_x), y = (int)(t / n_x % n_y), z = (int)(t / n_x / n_y % n_z);
    const idx_t b = t / n_x / n_y / n_z;
    if (b >= n_batch) return;
    const src_t *corner = src + b * s_batch + first_z[z] * s_z + first_y[y] * s_y + first_x[x] * s_x;
    const acc_t *wz = weight_z + (idx_t)z * taps_z, *wy = weight_y + (idx_t)y * taps_y;
    const acc_t *wx = weight_x + (idx_t)x * taps_x;
    const int nz = count_z[z], ny = count_y[y], nx = count_x[x];
    acc_t total = NOTHING;
    for (int a = 0; a < nz; a++) {
        acc_t plane = NOTHING;
        for (int c = 0; c < ny; c++) {
            const src_t *row = corner + a * s_z + c * s_y;
            acc_t line = NOTHING;
            for (int k = 0; k < nx; k++) line += wx[k] * load(row[k * s_x]);
            plane += wy[c] * line;
        }
        total += wz[a] * plane;
    }
    dst[b * d_batch + z * d_z + y * d_y + x * d_x] = store(total, low, high, rounding);
}
