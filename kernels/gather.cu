// gather - one weighted neighbourhood, or one copy, per voxel of a rotated, sheared or deformed grid.
//
//     dst[z, y, x] = sum over a, b, c of wz[a] * wy[b] * wx[c] * src[kz + a, ky + b, kx + c]
//
// The neighbourhood (kz, ky, kx) and the weights follow from the voxel's continuous source index (px, py, pz), the end
// of its route (path.cuh). Per axis, t = p + shift, cell = floor(t), u = (t - cell) * pieces; the first tap is
// cell + offset, and tap k weighs the polynomial coefficients[floor(u), k] in u's fraction. The cell is found in float64,
// except where `spline` says so; only the fraction within it may be float32. Neighbours past the border are folded by
// `rule`; those that weigh nothing are not read. Voxels outside `box` take `fill`.
//
//   v1  gather_any     One thread per voxel, any number of taps; the weights lie in local memory.
//   v2  gather_cubic   The same text for 4 taps: the loops unroll, the weights stay in registers.
//       gather_linear  2 taps: weights need no polynomial. Where only one voxel is to be read (p on it, or past a border
//                      that repeats it) both taps are that voxel and weigh a half each, so that a neighbour's NaN or
//                      infinity stays where it is.
//       gather_copy    The nearest voxel, bit by bit: src_t and dst_t are one unsigned integer.
//   v3  _lattice       Each of these for routes with lattices, whose evaluation takes 100 registers and more: kept apart,
//                      so that straight lines, which are most of what is asked for, keep enough threads under way.
//
//   v4  _field         Those of a field on the output's own voxels, whose axes are the output's and the source's: only zeros
//                      are left out of the formula, so the bits are the same, by 11 operations of float64 and not 42.
//       gather_copy, gather_linear          Amid the source, where nothing folds, cell and fraction come from one addition.
//
// A block is 8 neighbouring rows of 32 threads: on a grid that is turned little, they share most of their neighbours.
// A thread makes 4 voxels, 32 apart, so that what rows and columns have in common is computed for 1024 voxels at a time.
// One launch takes a whole batch; every volume has a route of its own, or all have the same.
#include "neighbours.cuh"

#define MAX_TAPS 16  // widest neighbourhood of gather_any

// ---------------------------------------------------------------------------------------------------------------
// gather_copy

template <int PATH> static __device__ __forceinline__ void copy_rows(ROUTED_PARAMETERS, const dst_t fill)
{
    DYNAMIC_SHARED(shared_t, shared);
    row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    if (PATH == FIELD) begin_field(row);
    src += row.volume * at.s_b;
    dst += row.volume * at.d_b + row.z * at.d_z + row.y * at.d_y;
    const idx_t stride[3] = {at.s_z, at.s_y, at.s_x};
    const idx_t origin = at.extent[3] * at.s_z + at.extent[4] * at.s_y + at.extent[5] * at.s_x;
    const unsigned inner[3] = {(unsigned)at.extent[6], (unsigned)at.extent[7], (unsigned)at.extent[8]};
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        dst_t voxel = fill;
        unsigned cell[3], fraction[3], high = 0;
#pragma unroll
        for (int axis = 0; axis < 3; axis++)
            cell[axis] = split(__dadd_rn(p[2 - axis], 0.5), fraction + axis, &high);
        if (is_inner(cell, high, inner)) {
            idx_t place = -origin;
#pragma unroll
            for (int axis = 0; axis < 3; axis++) place += (idx_t)cell[axis] * stride[axis];
            voxel = same(src[place], (const dst_t *)0);
        } else if (is_inside(at.box, p)) {
            idx_t place = 0;
#pragma unroll
            for (int axis = 0; axis < 3; axis++) {
                const int n = at.extent[axis];
                const int k = fold((int)floor(__dadd_rn(bounded(p[2 - axis], n, at.rule), 0.5)), n, at.rule);
                place += (k - at.extent[3 + axis]) * stride[axis];
            }
            voxel = same(src[place], (const dst_t *)0);
        }
        dst[x * at.d_x] = voxel;
    }
}

extern "C" __global__ void gather_copy(ROUTED_PARAMETERS, const dst_t fill)
{
    copy_rows<LINES>(ROUTED_ARGUMENTS, fill);
}

extern "C" __global__ void gather_copy_lattice(ROUTED_PARAMETERS, const dst_t fill)
{
    copy_rows<ANY>(ROUTED_ARGUMENTS, fill);
}

extern "C" __global__ void gather_copy_field(ROUTED_PARAMETERS, const dst_t fill)
{
    copy_rows<FIELD>(ROUTED_ARGUMENTS, fill);
}

// ---------------------------------------------------------------------------------------------------------------
// gather_linear

// Two neighbours along each axis, the upper ones so far from the lower.
static __device__ __forceinline__ acc_t linear_sum(
    const src_t *__restrict__ corner,
    const idx_t *apart,         // [3]
    const acc_t weight[3][2])
{
    acc_t total = 0;
#pragma unroll
    for (int a = 0; a < 2; a++) {
        acc_t plane = 0;
#pragma unroll
        for (int b = 0; b < 2; b++) {
            const src_t *line = corner + (a ? apart[0] : 0) + (b ? apart[1] : 0);
            plane += weight[1][b] * (weight[2][0] * load(line[0]) + weight[2][1] * load(line[apart[2]]));
        }
        total += weight[0][a] * plane;
    }
    return total;
}

#define LINEAR_PARAMETERS ROUTED_PARAMETERS, const dst_t fill, STORE_PARAMETERS, const taps_t taps
#define LINEAR_ARGUMENTS ROUTED_ARGUMENTS, fill, STORE_ARGUMENTS, taps

template <int PATH> static __device__ __forceinline__ void linear_rows(LINEAR_PARAMETERS)
{
    DYNAMIC_SHARED(shared_t, shared);
    row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    if (PATH == FIELD) begin_field(row);
    src += row.volume * at.s_b;
    dst += row.volume * at.d_b + row.z * at.d_z + row.y * at.d_y;
    const idx_t stride[3] = {at.s_z, at.s_y, at.s_x};
    const idx_t origin = at.extent[3] * at.s_z + at.extent[4] * at.s_y + at.extent[5] * at.s_x;
    const unsigned inner[3] = {(unsigned)at.extent[6], (unsigned)at.extent[7], (unsigned)at.extent[8]};
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        dst_t *out = dst + x * at.d_x;
        acc_t weight[3][2];
        idx_t apart[3];
        // Amid the source nothing folds, and for sums of float32 the fraction needs no more bits than they have.
        if (sizeof(acc_t) == sizeof(float)) {
            unsigned cell[3], fraction[3], beyond = 0;
#pragma unroll
            for (int axis = 0; axis < 3; axis++) cell[axis] = split(p[2 - axis], fraction + axis, &beyond);
            if (is_inner(cell, beyond, inner)) {
                idx_t place = -origin;
#pragma unroll
                for (int axis = 0; axis < 3; axis++) {
                    // As in linear_taps.
                    const bool lone = fraction[axis] == 0;
                    weight[axis][1] = lone ? (acc_t)0.5 : (acc_t)(int)fraction[axis] * FRACTION;
                    weight[axis][0] = (acc_t)1 - weight[axis][1];
                    apart[axis] = lone ? 0 : stride[axis];
                    place += (idx_t)cell[axis] * stride[axis];
                }
                *out = store(linear_sum(src + place, apart, weight), STORE_ARGUMENTS);
                continue;
            }
        }
        if (!is_inside(at.box, p)) {
            *out = fill;
            continue;
        }
        idx_t place = 0;
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            idx_t tap[2];
            linear_taps(
                p[2 - axis], at.extent[axis], at.extent[3 + axis], stride[axis], at.rule, taps.spline, taps.offset,
                weight[axis], tap);
            place += tap[0];
            apart[axis] = tap[1] - tap[0];
        }
        *out = store(linear_sum(src + place, apart, weight), STORE_ARGUMENTS);
    }
}

extern "C" __global__ void gather_linear(LINEAR_PARAMETERS) { linear_rows<LINES>(LINEAR_ARGUMENTS); }

extern "C" __global__ void gather_linear_lattice(LINEAR_PARAMETERS) { linear_rows<ANY>(LINEAR_ARGUMENTS); }

extern "C" __global__ void gather_linear_field(LINEAR_PARAMETERS) { linear_rows<FIELD>(LINEAR_ARGUMENTS); }

// ---------------------------------------------------------------------------------------------------------------
// gather_any, gather_cubic

// Any neighbourhood: taps past the border fold, taps that weigh nothing are not read. `sum`: what the taps weigh.
static __device__ __forceinline__ acc_t border_sum(
    const src_t *__restrict__ src, const geometry_t &at, const int width, const int *first,
    const acc_t *wz, const acc_t *wy, const acc_t *wx,  // [width]
    acc_t *sum)
{
    acc_t total = 0, whole = 0;
#pragma unroll
    for (int a = 0; a < width; a++) {
        const int z = fold(first[0] + a, at.extent[0], at.rule);
        if (z < 0 || wz[a] == 0) continue;
#pragma unroll
        for (int b = 0; b < width; b++) {
            const int y = fold(first[1] + b, at.extent[1], at.rule);
            if (y < 0 || wy[b] == 0) continue;
            const src_t *row = src + (z - at.extent[3]) * at.s_z + (y - at.extent[4]) * at.s_y;
            acc_t t = 0, s = 0;
#pragma unroll
            for (int c = 0; c < width; c++) {
                const int x = fold(first[2] + c, at.extent[2], at.rule);
                if (x < 0 || wx[c] == 0) continue;
                t += wx[c] * load(row[(x - at.extent[5]) * at.s_x]);
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
    const src_t *__restrict__ src, const geometry_t &at, const int width, const int *first,
    const acc_t *wz, const acc_t *wy, const acc_t *wx)  // [width]
{
    const src_t *corner = src + (first[0] - at.extent[3]) * at.s_z + (first[1] - at.extent[4]) * at.s_y +
                          (first[2] - at.extent[5]) * at.s_x;
    acc_t total = 0;
#pragma unroll
    for (int a = 0; a < width; a++) {
        acc_t plane = 0;
#pragma unroll
        for (int b = 0; b < width; b++) {
            const src_t *row = corner + a * at.s_z + b * at.s_y;
            acc_t line = 0;
#pragma unroll
            for (int c = 0; c < width; c++) line += wx[c] * load(row[c * at.s_x]);
            plane += wy[b] * line;
        }
        total += wz[a] * plane;
    }
    return total;
}

// What kernels take that sum any number of neighbours; coefficients [pieces, width, terms].
#define SUMMED_PARAMETERS                                                                                          \
    ROUTED_PARAMETERS, const dst_t fill, STORE_PARAMETERS, const acc_t *__restrict__ coefficients, const taps_t taps
#define SUMMED_ARGUMENTS ROUTED_ARGUMENTS, fill, STORE_ARGUMENTS, coefficients, taps
// pieces, width and terms are stated here so that the compiler knows them. At its knots a cubic is too smooth for the
// way in which the cell is found to matter.
#define CUBIC_ARGUMENTS ROUTED_ARGUMENTS, fill, STORE_ARGUMENTS, coefficients, of_width(taps, 4)

// Unrolls where `width` is a number at the place of the call; ROOM is the length of the weight arrays.
template <int PATH, int ROOM>
static __device__ __forceinline__ void gather_rows(SUMMED_PARAMETERS)
{
    DYNAMIC_SHARED(shared_t, shared);
    const int width = taps.width;
    row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    if (PATH == FIELD) begin_field(row);
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
        int first[3];
        bool plain = true;
        acc_t weight[3][ROOM];
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            const int n = at.extent[axis];
            weigh(
                bounded(p[2 - axis], n, at.rule), coefficients, taps, first + axis, weight[axis], NULL);
            if (taps.normalise) {
                acc_t sum = 0;
#pragma unroll
                for (int k = 0; k < width; k++) sum += weight[axis][k];
#pragma unroll
                for (int k = 0; k < width; k++) weight[axis][k] /= sum;
            }
            plain = plain && first[axis] >= 0 && first[axis] <= n - width;
        }
        acc_t total;
        if (plain) {
            total = plain_sum(src, at, width, first, weight[0], weight[1], weight[2]);
        } else {
            acc_t sum;
            total = border_sum(src, at, width, first, weight[0], weight[1], weight[2], &sum);
            if (taps.normalise) total /= sum;
        }
        *out = store(total, STORE_ARGUMENTS);
    }
}

extern "C" __global__ void gather_any(SUMMED_PARAMETERS) { gather_rows<LINES, MAX_TAPS>(SUMMED_ARGUMENTS); }

extern "C" __global__ void gather_any_lattice(SUMMED_PARAMETERS) { gather_rows<ANY, MAX_TAPS>(SUMMED_ARGUMENTS); }

extern "C" __global__ void gather_cubic(SUMMED_PARAMETERS) { gather_rows<LINES, 4>(CUBIC_ARGUMENTS); }

extern "C" __global__ void gather_cubic_lattice(SUMMED_PARAMETERS) { gather_rows<ANY, 4>(CUBIC_ARGUMENTS); }

extern "C" __global__ void gather_cubic_field(SUMMED_PARAMETERS) { gather_rows<FIELD, 4>(CUBIC_ARGUMENTS); }
