// resample_volume - weighted sum along all three axes at once, for tables of few taps (linear interpolation).
//
//     dst[b, z, y, x] = sum over a < count_z[z], c < count_y[y], k < count_x[x] of
//         weight_z[z, a] * weight_y[y, c] * weight_x[x, k] * src[b, first_z[z] + a, first_y[y] + c, first_x[x] + k]
//
// Three passes of resample_axis write and read two volumes in between; with 8 taps per voxel that is nearly all they
// do. Here the source is read and the destination written, and neighbouring threads find each other's samples in the
// caches. Axes are the source's. Samples that a row does not tap are not read. Every version sums along x, then y,
// then z.
//
//   v1  resample_volume      A thread makes ROWS voxels that follow each other along y: what x and z need is looked up
//                            once for them. A block is a rectangle of x and y, so that one division per block finds its
//                            place, not three per voxel.
//   v2  resample_volume_two  v1 for at most two taps per axis, without loops: all samples of a voxel are under way at
//                            once.
#include "common.cuh"

#define ROWS 8  // voxels along y that a thread makes

// The first of a thread's voxels; past the last one b is n_batch.
static __device__ __forceinline__ voxel_t place(const batch_t &at)
{
    const int n_across = (at.n_x + blockDim.x - 1) / blockDim.x;
    const int n_down = (at.n_y + blockDim.y * ROWS - 1) / (blockDim.y * ROWS);
    const int across = (int)(blockIdx.x % n_across), down = (int)(blockIdx.x / n_across % n_down);
    const unsigned plane = blockIdx.x / n_across / n_down;
    voxel_t it;
    it.x = across * blockDim.x + threadIdx.x;
    it.y = (down * blockDim.y + threadIdx.y) * ROWS;
    it.z = (int)(plane % at.n_z);
    it.b = (idx_t)(plane / at.n_z);
    if (it.x >= at.n_x || it.y >= at.n_y) it.b = at.n_batch;
    return it;
}

// What both kernels take. Tables are pointers of their own and in no struct, so that the compiler knows that nobody
// writes to them.
//
//     src                        [batch, n_src_z, n_src_y, n_src_x], at strides s_*
//     first_*, count_*           [n_*]: the first tap of every row, and how many it has
//     weight_*                   [n_*, taps_*]
//     dst                        [batch, n_z, n_y, n_x], at strides d_*
#define TABLE_PARAMETERS                                                                                             \
    const src_t *__restrict__ src, const int *__restrict__ first_z, const int *__restrict__ count_z,                 \
        const acc_t *__restrict__ weight_z, const int *__restrict__ first_y, const int *__restrict__ count_y,        \
        const acc_t *__restrict__ weight_y, const int *__restrict__ first_x, const int *__restrict__ count_x,        \
        const acc_t *__restrict__ weight_x, dst_t *__restrict__ dst, const batch_t at, const int taps_z,             \
        const int taps_y, const int taps_x, STORE_PARAMETERS

extern "C" __global__ void resample_volume(TABLE_PARAMETERS)
{
    const voxel_t it = place(at);
    if (it.b >= at.n_batch) return;
    const src_t *corner = src + it.b * at.s_batch + first_z[it.z] * at.s_z + first_x[it.x] * at.s_x;
    const acc_t *wz = weight_z + (idx_t)it.z * taps_z, *wx = weight_x + (idx_t)it.x * taps_x;
    const int nz = count_z[it.z], nx = count_x[it.x];
    dst_t *d = dst + it.b * at.d_batch + it.z * at.d_z + it.x * at.d_x;
    for (int y = it.y; y < at.n_y && y < it.y + ROWS; y++) {
        const acc_t *wy = weight_y + (idx_t)y * taps_y;
        const int ny = count_y[y];
        acc_t total = NOTHING;
        for (int a = 0; a < nz; a++) {
            acc_t plane = NOTHING;
            for (int c = 0; c < ny; c++) {
                const src_t *row = corner + a * at.s_z + (first_y[y] + c) * at.s_y;
                acc_t line = NOTHING;
                for (int k = 0; k < nx; k++) line += wx[k] * load(row[k * at.s_x]);
                plane += wy[c] * line;
            }
            total += wz[a] * plane;
        }
        d[y * at.d_y] = store(total, STORE_ARGUMENTS);
    }
}

// One or two taps of a row.
struct Two {
    int first;
    bool second;
    acc_t weight[2];
};

static __device__ __forceinline__ Two two(
    const int *__restrict__ first, const int *__restrict__ count, const acc_t *__restrict__ weight, const int taps,
    const int i)
{
    Two it;
    it.first = first[i];
    it.second = count[i] > 1;
    it.weight[0] = weight[(idx_t)i * taps];
    it.weight[1] = it.second ? weight[(idx_t)i * taps + 1] : (acc_t)0;
    return it;
}

// Two samples or partial sums, by their weights. What is not tapped must not matter, be it NaN or infinite.
static __device__ __forceinline__ acc_t blend(const Two &it, const acc_t a, const acc_t b)
{
    acc_t total = NOTHING;
    total += it.weight[0] * a;
    if (it.second) total += it.weight[1] * b;
    return total;
}

extern "C" __global__ void resample_volume_two(TABLE_PARAMETERS)
{
    const voxel_t it = place(at);
    if (it.b >= at.n_batch) return;
    const Two tz = two(first_z, count_z, weight_z, taps_z, it.z), tx = two(first_x, count_x, weight_x, taps_x, it.x);
    // A second sample that is not tapped is the first one again.
    const idx_t next_z = tz.second ? at.s_z : 0, next_x = tx.second ? at.s_x : 0;
    // Offsets from src itself: one instruction makes each of them an address.
    const idx_t near = it.b * at.s_batch + tz.first * at.s_z + tx.first * at.s_x, far = near + next_z;
    dst_t *d = dst + it.b * at.d_batch + it.z * at.d_z + it.x * at.d_x;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
        // Past the last row it is made again: the loads of all rows can be under way at once.
        const int y = it.y + r < at.n_y ? it.y + r : at.n_y - 1;
        const Two ty = two(first_y, count_y, weight_y, taps_y, y);
        const idx_t j = ty.first * at.s_y, k = j + (ty.second ? at.s_y : 0);
        const acc_t a = load(src[near + j]), b = load(src[near + j + next_x]);
        const acc_t c = load(src[near + k]), e = load(src[near + k + next_x]);
        const acc_t f = load(src[far + j]), g = load(src[far + j + next_x]);
        const acc_t h = load(src[far + k]), i = load(src[far + k + next_x]);
        const acc_t plane = blend(ty, blend(tx, a, b), blend(tx, c, e));
        const acc_t after = blend(ty, blend(tx, f, g), blend(tx, h, i));
        d[y * at.d_y] = store(blend(tz, plane, after), STORE_ARGUMENTS);
    }
}
