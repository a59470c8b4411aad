// vote - the label with the largest share of a voxel's neighbourhood.
//
//     dst[z, y, x] = arg max over labels of sum over the neighbours with that label of wz[a] * wy[b] * wx[c]
//
// Labels are compared, never computed with: 64-bit ones survive. Shares are made in float64, in ITK's order of
// operations, and nothing fuses: a last bit decides ties.
//
//   v1  vote_linear    One thread per voxel, 2 neighbours per axis (itk::LabelImageGenericInterpolateImageFunction).
//                      Ties go to the smallest label.
//       vote_gaussian  Up to 3 neighbours per axis, weighed by differences of erf
//                      (itk::LabelImageGaussianInterpolateImageFunction). The label whose sum reaches the maximum
//                      first wins, x fastest.
//   v2  _lattice       Both for routes with lattices, see gather.cu.
//
// Most voxels lie amid one label: these are settled by comparing neighbours, before any share is made.
#include "neighbours.cuh"

#define MAX_VOTES 4  // neighbours per axis

// Two clamped neighbours, or one where the other is not needed; `weight`: of the upper one.
static __device__ __forceinline__ int voting_pair(
    const double p, const int n, const int base, const idx_t stride, const int rule,
    double *weight,
    idx_t *place)  // [2]
{
    const double x = bounded(p, n, rule), cell = floor(x);
    const int lower = fold((int)cell, n, rule), upper = fold((int)cell + 1, n, rule);
    *weight = lower == upper ? 0.0 : x - cell;
    place[0] = (lower - base) * stride;
    place[1] = (upper - base) * stride;
    return *weight > 0.0 ? 2 : 1;
}

// ITK's label Gaussian: differences of erf over the voxels within `cut`; there may be none on a line that ends.
static __device__ __forceinline__ int gaussian_taps(
    const double p, const int n, const int base, const idx_t stride, const int rule, const double sigma,
    const double cut,
    double *weight,  // [MAX_VOTES]
    idx_t *place)    // [MAX_VOTES]
{
    const double x = bounded(p, n, rule);
    const int first = (int)floor(x + 0.5 - cut), last = (int)ceil(x + 0.5 + cut) - 1;
    const double scale = __ddiv_rn(1.0, __dmul_rn(sqrt(2.0), sigma));
    int count = 0;
    double before = erf(__dmul_rn(first - 0.5 - x, scale));
    for (int k = first; k <= last; k++) {
        const double after = erf(__dmul_rn(k + 0.5 - x, scale));
        const int at = fold(k, n, rule);
        if (at >= 0) {
            weight[count] = after - before;
            place[count] = (at - base) * stride;
            count++;
        }
        before = after;
    }
    return count;
}

static __device__ __forceinline__ double lerp(const double lower, const double upper, const double weight)
{
    return __dadd_rn(lower, __dmul_rn(__dsub_rn(upper, lower), weight));
}

// Share of a label among up to 2 x 2 x 2 neighbours, interpolated along x, then y, then z as ITK does.
static __device__ __forceinline__ double lerp_share(
    const src_t *values,  // [2, 2, 2]
    const src_t label, const int nx, const int ny, const int nz, const double dx, const double dy, const double dz)
{
    double plane[2] = {0.0, 0.0};
    for (int c = 0; c < nz; c++) {
        double line[2] = {0.0, 0.0};
        for (int b = 0; b < ny; b++) {
            const src_t *pair = values + c * 4 + b * 2;
            line[b] = key(pair[0]) == key(label) ? 1.0 : 0.0;
            if (nx == 2) line[b] = lerp(line[b], key(pair[1]) == key(label) ? 1.0 : 0.0, dx);
        }
        plane[c] = ny == 2 ? lerp(line[0], line[1], dy) : line[0];
    }
    return nz == 2 ? lerp(plane[0], plane[1], dz) : plane[0];
}

// Whether all neighbours carry the first one's label.
static __device__ __forceinline__ bool unanimous(
    const src_t *__restrict__ src, const idx_t *oz, const idx_t *oy, const idx_t *ox, const int nz, const int ny,
    const int nx, const src_t label)
{
    for (int c = 0; c < nz; c++)
        for (int b = 0; b < ny; b++)
            for (int a = 0; a < nx; a++)
                if (!(key(src[oz[c] + oy[b] + ox[a]]) == key(label))) return false;
    return true;
}

template <int PATH> static __device__ __forceinline__ void linear_votes(ROUTED_PARAMETERS, const dst_t fill)
{
    DYNAMIC_SHARED(shared_t, shared);
    const row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    src += row.volume * at.s_b;
    dst += row.volume * at.d_b + row.z * at.d_z + row.y * at.d_y;
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        dst_t *out = dst + x * at.d_x;
        if (!is_inside(at.box, p)) {
            *out = fill;
            continue;
        }
        double dz, dy, dx;
        idx_t oz[2], oy[2], ox[2];
        const int nz = voting_pair(p[2], at.extent[0], at.extent[3], at.s_z, at.rule, &dz, oz);
        const int ny = voting_pair(p[1], at.extent[1], at.extent[4], at.s_y, at.rule, &dy, oy);
        const int nx = voting_pair(p[0], at.extent[2], at.extent[5], at.s_x, at.rule, &dx, ox);
        src_t winner = src[oz[0] + oy[0] + ox[0]];
        if (!unanimous(src, oz, oy, ox, nz, ny, nx, winner)) {
            src_t values[8] = {};
            for (int c = 0; c < nz; c++)
                for (int b = 0; b < ny; b++)
                    for (int a = 0; a < nx; a++) values[c * 4 + b * 2 + a] = src[oz[c] + oy[b] + ox[a]];
            double best = 0.0;
            for (int c = 0; c < nz; c++)
                for (int b = 0; b < ny; b++)
                    for (int a = 0; a < nx; a++) {
                        const src_t label = values[c * 4 + b * 2 + a];
                        const double share = lerp_share(values, label, nx, ny, nz, dx, dy, dz);
                        if (share > best || (share == best && key(label) < key(winner))) {
                            best = share;
                            winner = label;
                        }
                    }
        }
        *out = winner;
    }
}

extern "C" __global__ void vote_linear(ROUTED_PARAMETERS, const dst_t fill)
{
    linear_votes<LINES>(ROUTED_ARGUMENTS, fill);
}

extern "C" __global__ void vote_linear_lattice(ROUTED_PARAMETERS, const dst_t fill)
{
    linear_votes<ANY>(ROUTED_ARGUMENTS, fill);
}

template <int PATH>
static __device__ __forceinline__ void gaussian_votes(
    ROUTED_PARAMETERS, const dst_t fill, const double sigma, const double cut)
{
    DYNAMIC_SHARED(shared_t, shared);
    const row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    src += row.volume * at.s_b;
    dst += row.volume * at.d_b + row.z * at.d_z + row.y * at.d_y;
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        dst_t *out = dst + x * at.d_x;
        if (!is_inside(at.box, p)) {
            *out = fill;
            continue;
        }
        double wz[MAX_VOTES], wy[MAX_VOTES], wx[MAX_VOTES];
        idx_t oz[MAX_VOTES], oy[MAX_VOTES], ox[MAX_VOTES];
        const int nz = gaussian_taps(p[2], at.extent[0], at.extent[3], at.s_z, at.rule, sigma, cut, wz, oz);
        const int ny = gaussian_taps(p[1], at.extent[1], at.extent[4], at.s_y, at.rule, sigma, cut, wy, oy);
        const int nx = gaussian_taps(p[0], at.extent[2], at.extent[5], at.s_x, at.rule, sigma, cut, wx, ox);
        if (nz == 0 || ny == 0 || nx == 0) {
            *out = fill;
            continue;
        }
        src_t winner = src[oz[0] + oy[0] + ox[0]];
        if (!unanimous(src, oz, oy, ox, nz, ny, nx, winner)) {
            src_t labels[MAX_VOTES * MAX_VOTES * MAX_VOTES];
            double sums[MAX_VOTES * MAX_VOTES * MAX_VOTES];
            int n_labels = 0;
            double best = 0.0;
            for (int c = 0; c < nz; c++)
                for (int b = 0; b < ny; b++)
                    for (int a = 0; a < nx; a++) {
                        const src_t label = src[oz[c] + oy[b] + ox[a]];
                        int k = 0;
                        while (k < n_labels && !(key(labels[k]) == key(label))) k++;
                        if (k == n_labels) {
                            labels[k] = label;
                            sums[k] = 0.0;
                            n_labels++;
                        }
                        sums[k] = __dadd_rn(sums[k], __dmul_rn(__dmul_rn(wx[a], wy[b]), wz[c]));
                        if (sums[k] > best) {
                            best = sums[k];
                            winner = label;
                        }
                    }
        }
        *out = winner;
    }
}

extern "C" __global__ void vote_gaussian(
    ROUTED_PARAMETERS, const dst_t fill, const double sigma,
    const double cut)  // in voxels; neighbours are those within `cut`
{
    gaussian_votes<LINES>(ROUTED_ARGUMENTS, fill, sigma, cut);
}

extern "C" __global__ void vote_gaussian_lattice(
    ROUTED_PARAMETERS, const dst_t fill, const double sigma,
    const double cut)  // in voxels; neighbours are those within `cut`
{
    gaussian_votes<ANY>(ROUTED_ARGUMENTS, fill, sigma, cut);
}
