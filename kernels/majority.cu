// majority - the value that most voxels of a block have; of several such the smallest.
//
//     dst[b, z, y, x] = mode of src[b, z f_z + i, y f_y + j, x f_x + k],   i < f_z, j < f_y, k < f_x
//
// Where labels come first, the zeros of a block that has others do not count.
// Labels are compared, never computed with: 64-bit ones survive. A NaN is a label, larger than any number.
// Voxels come out as they went in, so there is no dst_t.
//
//   v1  majority   One thread per block. It takes the block's first voxel and whether all are like it, which they are
//                  nearly everywhere in a label volume. Only where they are not, the votes of every voxel are counted
//                  anew, from the first cache; a label with more than half of them ends that.
#include "common.cuh"

template <class T> static __device__ __forceinline__ bool same(const T a, const T b)
{
    return a == b || (a != a && b != b);
}

template <class T> static __device__ __forceinline__ bool below(const T a, const T b)
{
    return a < b || (b != b && a == a);
}

extern "C" __global__ void majority(
    const src_t *__restrict__ src,  // [batch, >= n_z f_z, >= n_y f_y, >= n_x f_x], at strides s_*
    src_t *__restrict__ dst,        // [batch, n_z, n_y, n_x], at strides d_*
    const batch_t at, const int f_z, const int f_y, const int f_x,
    const int labels_first)  // zeros have no vote
{
    const voxel_t it = own_voxel(at, at.n_x);
    if (it.b >= at.n_batch) return;
    const src_t *block = src + it.b * at.s_batch + (idx_t)it.z * f_z * at.s_z + (idx_t)it.y * f_y * at.s_y +
                         (idx_t)it.x * f_x * at.s_x;

    src_t best = block[0];
    bool mixed = false;
    for (int i = 0; i < f_z; i++)
        for (int j = 0; j < f_y; j++)
            for (int k = 0; k < f_x; k++)
                mixed |= !same(key(block[i * at.s_z + j * at.s_y + k * at.s_x]), key(best));

    const int n = f_z * f_y * f_x;
    int most = mixed ? 0 : n;
    // A label first met at voxel m has at most n - m votes; one with more than half of all has won.
    for (int m = 0; m <= n - most && m < n && 2 * most <= n; m++) {
        const src_t voxel = block[m / f_x / f_y * at.s_z + m / f_x % f_y * at.s_y + m % f_x * at.s_x];
        if (labels_first && key(voxel) == 0) continue;
        int votes = 0;
        for (int i = 0; i < f_z; i++)
            for (int j = 0; j < f_y; j++)
                for (int k = 0; k < f_x; k++)
                    votes += same(key(block[i * at.s_z + j * at.s_y + k * at.s_x]), key(voxel));
        if (votes > most || (votes == most && below(key(voxel), key(best)))) {
            most = votes;
            best = voxel;
        }
    }
    dst[it.b * at.d_batch + it.z * at.d_z + it.y * at.d_y + it.x * at.d_x] = best;
}
