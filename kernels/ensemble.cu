// ensemble - class scores of several models, interpolated, averaged and decided, voxel by voxel.
//
//     s[m, c] = sum over a, b, k < 2 of weight_z[m, a, z] * weight_y[m, b, y] * weight_x[m, k, x]
//               * src[m][c, index_z[m, a, z], index_y[m, b, y], index_x[m, k, x]]
//     p[c]    = sum over m of share[m] * f(s[m, :])[c]            f: softmax, sigmoid, or as it is
//     label   = values[the lowest c with the largest p[c]]        or the bits, or the last, of the classes above a threshold
//
// One thread per voxel, neighbours along x. No volume per class exists: a voxel's scores are interpolated where they are
// needed, and again where they are needed again, since eight loads that caches serve cost less than a store and a load.
// Where one sample is enough, index[0] = index[1]; it is loaded once. Outside a model's grid class 0 is certain.
//
//   v1  ensemble_normalise  For a softmax: the largest score of a voxel's classes and the sum of exp(score - largest),
//                           kept up to date together, in one sweep over the classes of one model.
//       ensemble_decide     One sweep over the classes, of all models together; the largest average so far in a register.
//                           A model's place is found once for CLASSES of its classes: finding it takes as many loads as
//                           one and a half classes.
//       ensemble_activate   Probabilities of scores, in place, where these are to be resampled instead.
#include "common.cuh"

// As gpuresample/planning/works.py numbers them.
#define SOFTMAX 1
#define SIGMOID 2
#define CLASSES 4  // that are summed at once
#define LARGEST 0
#define BITS 1

// One model. Addresses are whole numbers here, so that the launch can lay a row of these down as bytes.
struct member_t {
    unsigned long long src;       // src_t [class, z, y, x], at strides s_*
    unsigned long long index_z;   // int [2, n_z]
    unsigned long long weight_z;  // float [2, n_z]
    unsigned long long index_y;   // int [2, n_y]
    unsigned long long weight_y;  // float [2, n_y]
    unsigned long long index_x;   // int [2, n_x]
    unsigned long long weight_x;  // float [2, n_x]
    unsigned long long top;       // float [n_z, n_y, n_x]: the largest score; for a softmax
    unsigned long long sum;       // float [n_z, n_y, n_x]: of exp(score - largest); for a softmax
    long long s_class, s_z, s_y, s_x;
    int z_lo, z_hi, y_lo, y_hi, x_lo, x_hi;  // voxels within the model's grid
    float share;
    int padding;
};

// Where a voxel's samples lie, and what they weigh.
struct place_t {
    bool inside, two_z, two_y, two_x;  // whether an axis takes two samples; a lone one weighs 1
    const src_t *corner;
    idx_t dc, dz, dy, dx;
    float w00, w01, w10, w11;  // of rows: plane, row
    float x0, x1;              // of samples along a row
};

static __device__ __forceinline__ place_t locate(
    const member_t &m, const int z, const int y, const int x, const int n_z, const int n_y, const int n_x)
{
    place_t p;
    p.inside = m.z_lo <= z && z < m.z_hi && m.y_lo <= y && y < m.y_hi && m.x_lo <= x && x < m.x_hi;
    if (!p.inside) return p;
    const int *iz = (const int *)m.index_z, *iy = (const int *)m.index_y, *ix = (const int *)m.index_x;
    const float *wz = (const float *)m.weight_z, *wy = (const float *)m.weight_y, *wx = (const float *)m.weight_x;
    const int z0 = iz[z], z1 = iz[n_z + z], y0 = iy[y], y1 = iy[n_y + y], x0 = ix[x], x1 = ix[n_x + x];
    p.two_z = z0 != z1;
    p.two_y = y0 != y1;
    p.two_x = x0 != x1;
    p.corner = (const src_t *)m.src + z0 * (idx_t)m.s_z + y0 * (idx_t)m.s_y + x0 * (idx_t)m.s_x;
    p.dc = (idx_t)m.s_class;
    p.dz = (z1 - z0) * (idx_t)m.s_z;
    p.dy = (y1 - y0) * (idx_t)m.s_y;
    p.dx = (x1 - x0) * (idx_t)m.s_x;
    const float za = p.two_z ? wz[z] : 1.0f, zb = wz[n_z + z], ya = p.two_y ? wy[y] : 1.0f, yb = wy[n_y + y];
    p.w00 = za * ya;
    p.w01 = za * yb;
    p.w10 = zb * ya;
    p.w11 = zb * yb;
    p.x0 = p.two_x ? wx[x] : 1.0f;
    p.x1 = wx[n_x + x];
    return p;
}

static __device__ __forceinline__ float between(const place_t &p, const src_t *row)
{
    const float line = p.x0 * load(row[0]);
    return p.two_x ? line + p.x1 * load(row[p.dx]) : line;
}

// The score of class c: along x first, then rows and planes at once.
static __device__ __forceinline__ float score(const place_t &p, const int c)
{
    const src_t *here = p.corner + c * p.dc;
    float total = p.w00 * between(p, here);
    if (p.two_y) total += p.w01 * between(p, here + p.dy);
    if (p.two_z) {
        total += p.w10 * between(p, here + p.dz);
        if (p.two_y) total += p.w11 * between(p, here + p.dz + p.dy);
    }
    return total;
}

static __device__ __forceinline__ float sigmoid(const float x)
{
    const float e = expf(-fabsf(x));
    return x >= 0 ? 1.0f / (1.0f + e) : e / (1.0f + e);
}

// The largest of scores so far, and the sum of exp(score - largest), with one more. A NaN makes the sum NaN, and so do
// nothing but minus infinities.
static __device__ __forceinline__ void add_score(const float s, float &top, float &sum)
{
    if (s > top) {
        sum = sum * expf(top - s) + 1.0f;
        top = s;
    } else {
        sum += expf(s - top);
    }
}

// Whether a softmax of these is one: no NaN, and the largest is finite.
static __device__ __forceinline__ bool usable(const float top, const float sum)
{
    return sum == sum && top - top == 0;
}

extern "C" __global__ void ensemble_normalise(
    const member_t *__restrict__ members,  // [models]
    const int model, const int n_classes, const int n_z, const int n_y, const int n_x, const float certain,
    const float other)  // scores of class 0 and of the others outside the model's grid
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_x), y = (int)(t / n_x % n_y);
    const idx_t z = t / n_x / n_y;
    if (z >= n_z) return;
    const member_t &m = members[model];
    const place_t p = locate(m, (int)z, y, x, n_z, n_y, n_x);
    float top = -ENDLESS, sum = 0;
    for (int c = 0; c < n_classes; c++)
        add_score(p.inside ? score(p, c) : c == 0 ? certain : other, top, sum);
    ((float *)m.top)[t] = top;
    ((float *)m.sum)[t] = sum;
}

extern "C" __global__ void ensemble_decide(
    const member_t *__restrict__ members,             // [models]
    const float *__restrict__ thresholds,             // [n_classes], in units of what they are compared with
    const unsigned long long *__restrict__ values,    // [n_classes + 1]: what classes are called, and none of them
    dst_t *__restrict__ labels,                       // [n_z, n_y, n_x], or null
    float *__restrict__ probabilities,                // [n_classes, n_z, n_y, n_x], or null
    float *__restrict__ confidence,                   // [n_z, n_y, n_x], or null
    float *__restrict__ entropy,                      // [n_z, n_y, n_x], or null
    unsigned long long *__restrict__ counts,          // [models]: grows by the voxels without usable scores
    const int n_models, const int n_classes, const int n_z, const int n_y, const int n_x, const int activation,
    const int alone, const int binary, const int choose, const float certain, const float other)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    const int x = (int)(t % n_x), y = (int)(t / n_x % n_y);
    const idx_t z = t / n_x / n_y;
    if (z >= n_z) return;
    const idx_t voxels = (idx_t)n_z * n_y * n_x;
    // Which models have no usable score here: known beforehand for a softmax, else found while scores are summed.
    bool bad = false;
    float best = -ENDLESS, disorder = 0;
    int label = 0;
    unsigned long long name = values[n_classes];
#pragma unroll 1
    for (int c0 = 0; c0 < n_classes; c0 += CLASSES) {
        float totals[CLASSES];
#pragma unroll
        for (int j = 0; j < CLASSES; j++) totals[j] = NOTHING;
        for (int k = 0; k < n_models; k++) {
            const member_t &m = members[k];
            const place_t p = locate(m, (int)z, y, x, n_z, n_y, n_x);
            const bool soft = activation == SOFTMAX && !alone;
            const float share = soft ? m.share / ((const float *)m.sum)[t] : m.share;
            const float top = soft ? ((const float *)m.top)[t] : 0.0f;
#pragma unroll
            for (int j = 0; j < CLASSES; j++) {
                const int c = c0 + j;
                if (c >= n_classes) break;
                const float s = p.inside ? score(p, c) : c == 0 ? certain : other;
                if (alone)
                    totals[j] = s;
                else if (soft)
                    totals[j] += share * expf(s - top);
                else
                    totals[j] += share * (activation == SIGMOID ? sigmoid(s) : s);
            }
        }
#pragma unroll
        for (int j = 0; j < CLASSES; j++) {
            const int c = c0 + j;
            if (c >= n_classes) break;
            const float total = totals[j];
            if (total != total) bad = true;
            if (c == 0 || total > best) {
                best = total;
                label = c;
            }
            if (choose != LARGEST && total > thresholds[c]) name = choose == BITS ? name | values[c] : values[c];
            if (probabilities) probabilities[c * voxels + t] = total;
            if (entropy) {
                const float q = total < 0 ? 0 : total > 1 ? 1 : total;
                if (q > 0) disorder -= q * logf(q);
                if (binary && q < 1) disorder -= (1 - q) * logf(1 - q);
            }
        }
    }
    if (bad) {
        // Rare: find out whose fault it is.
        for (int k = 0; k < n_models; k++) {
            const member_t &m = members[k];
            const place_t p = locate(m, (int)z, y, x, n_z, n_y, n_x);
            bool mine = activation == SOFTMAX && !alone && !usable(((const float *)m.top)[t], ((const float *)m.sum)[t]);
            for (int c = 0; c < n_classes && p.inside; c++) {
                const float s = score(p, c);
                mine = mine || s != s;
            }
            if (mine) atomicAdd(counts + k, 1ULL);
        }
        label = 0;
        name = values[n_classes];
        best = disorder = NOT_A_NUMBER;
        for (int c = 0; c < n_classes && probabilities; c++) probabilities[c * voxels + t] = NOT_A_NUMBER;
    }
    if (labels) labels[t] = (dst_t)(choose == LARGEST ? values[label] : name);
    if (confidence) confidence[t] = best;
    if (entropy) entropy[t] = disorder;
}

extern "C" __global__ void ensemble_activate(
    float *__restrict__ scores,  // [n_classes, n]
    const idx_t n, const int n_classes, const int activation)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n) return;
    float top = -ENDLESS, sum = 0, probe = 0;
    for (int c = 0; c < n_classes; c++) {
        const float s = scores[c * n + t];
        if (activation == SOFTMAX) add_score(s, top, sum);
        probe = s == s ? probe : s;
    }
    const bool good = activation == SOFTMAX ? usable(top, sum) : probe == probe;
    for (int c = 0; c < n_classes; c++) {
        const float s = scores[c * n + t];
        scores[c * n + t] = !good ? NOT_A_NUMBER : activation == SOFTMAX ? expf(s - top) / sum : sigmoid(s);
    }
}
