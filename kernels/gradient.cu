// gradient - what a gather's output says about its input: by its voxels, and by where they were read.
//
//     sums[k]          = sum over voxels v of gradient[v] * weight(v, k)       the transposed gather, for `splat`
//     dst[v, x / y / z] = d gather(v) / d p_x, d p_y, d p_z                     the derivative along the source's axes
//
// Neighbours and weights are those of gather.cu, borders too. At a voxel's centre, where linear interpolation has a
// kink, the derivative is the one to the right. Voxels outside `box` add nothing, and have no derivative: 0.
//
// Weights may be differentiated once more, another time along each axis: every axis has its own coefficients.
//
// Many voxels add to one sample, in no order that a GPU keeps. Sums of floats would differ from run to run, so they are
// whole numbers of a unit, whose sums do not depend on order. E is the least exponent with
// largest |gradient| * n * gain < 2^E, where n is the number of voxels, and gain the most that one can add to one sample.
// The unit is 2^(E - 61), so that no sum leaves 64 bits. For sums of float64 what the unit rounds away is added up
// too, as whole numbers of 2^(E - 61 - finer), in a second word: together they are finer than a float64 is.
// Where a gradient is no number or infinite, all sums of its volume become NaN.
//
//   v1  find_largest   The largest |gradient| of every volume, as the bits of a float64, which are in its order.
//       splat_linear, splat_cubic          One thread per voxel, one or two atomic additions per neighbour.
//       settle_sums    Sums as floats.
//       gradient_linear, gradient_cubic    One thread per voxel.
//       sum_moments, add_moments           What positions say about a matrix: sums over voxels, by blocks, then over
//                                          blocks.
//   v2  _lattice       Those that follow routes, for routes with lattices, see gather.cu.
//   v3  splat_any, gradient_any            Any number of taps, whose weights lie in local memory.
#include "neighbours.cuh"

#define MAX_TAPS 16     // widest neighbourhood of splat_any and gradient_any

#define THREADS 256     // of a block of find_largest and sum_moments
#define UNIT_BITS 61    // sums stay below 2^61 units

// The exponent of the least power of two above a number that is not negative.
static __device__ __forceinline__ int exponent_of(const double value)
{
    int exponent;
    frexp(value, &exponent);
    return exponent;
}

// Whether the sums of a volume have a unit: neither NaN nor what a float64 cannot hold.
static __device__ __forceinline__ bool is_countable(const unsigned long long largest, const double bound)
{
    return __longlong_as_double((long long)largest) * bound < (double)ENDLESS;
}

extern "C" __global__ void find_largest(
    const src_t *__restrict__ src,           // [n_b, n_z, n_y, n_x], at strides s_*
    unsigned long long *__restrict__ largest,  // [n_b]
    const int blocks, const int n_z, const int n_y, const int n_x, const long long s_b, const idx_t s_z,
    const idx_t s_y, const idx_t s_x)
{
    DYNAMIC_SHARED(unsigned long long, found);
    const int volume = blockIdx.x / blocks;
    const long long n = (long long)n_z * n_y * n_x;
    unsigned long long mine = 0;
    for (long long v = (long long)(blockIdx.x % blocks) * THREADS + threadIdx.x; v < n; v += (long long)blocks * THREADS) {
        const int x = (int)(v % n_x), y = (int)(v / n_x % n_y), z = (int)(v / n_x / n_y);
        const double value = fabs((double)load(src[volume * s_b + z * s_z + y * s_y + x * s_x]));
        const unsigned long long bits = (unsigned long long)__double_as_longlong(value);
        mine = bits > mine ? bits : mine;
    }
    found[threadIdx.x] = mine;
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half && found[threadIdx.x + half] > found[threadIdx.x])
            found[threadIdx.x] = found[threadIdx.x + half];
    }
    if (threadIdx.x == 0) atomicMax(largest + volume, found[0]);
}

// The whole numbers that are summed. See above.
struct sums_t {
    double bound;         // n * gain
    long long next_word;  // where a sum's second word lies
    int finer;            // 0, or what a second word has more bits
};

// Adds a value, in units, to a sample.
static __device__ __forceinline__ void add_units(
    unsigned long long *sum, const acc_t value, const sums_t &unit)
{
    const acc_t whole = rint(value);
    atomicAdd(sum, (unsigned long long)(long long)whole);
    if (unit.finer == 0) return;
    const acc_t rest = rint(ldexp(value - whole, unit.finer));
    if (rest != 0) atomicAdd(sum + unit.next_word, (unsigned long long)(long long)rest);
}

// What kernels that splat take first:
//
//     src      gradient, [n_b, n_z, n_y, n_x], at strides s_*
//     routes   [n_b] if many, else [1]
//     sums     [n_b, words, samples], at strides d_*; samples of a line follow each other
//     largest  [n_b]
#define SPLAT_PARAMETERS                                                                                            \
    const src_t *__restrict__ src, const route_t *__restrict__ routes, unsigned long long *__restrict__ sums,        \
        const unsigned long long *__restrict__ largest, const geometry_t at, const sums_t unit
#define SPLAT_ARGUMENTS src, routes, sums, largest, at, unit

// A voxel's gradient in units.
static __device__ __forceinline__ acc_t in_units(
    const src_t gradient, const unsigned long long largest, const double bound)
{
    const double most = __longlong_as_double((long long)largest);
    return ldexp(load(gradient), UNIT_BITS - exponent_of(most * bound));
}

template <int PATH>
static __device__ __forceinline__ void splat_linear_rows(SPLAT_PARAMETERS, const taps_t taps)
{
    DYNAMIC_SHARED(shared_t, shared);
    const row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    const unsigned long long most = largest[row.volume];
    if (!row.exists || !is_countable(most, unit.bound) || most == 0) return;
    src += row.volume * at.s_b + row.z * at.s_z + row.y * at.s_y;
    sums += row.volume * at.d_b;
    const idx_t stride[3] = {at.d_z, at.d_y, 1};
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        if (!is_inside(at.box, p)) continue;
        acc_t weight[3][2];
        idx_t place[3][2];
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            linear_taps(
                p[2 - axis], at.extent[axis], at.extent[3 + axis], stride[axis], at.rule, taps.spline, taps.offset,
                weight[axis], place[axis]);
        }
        const acc_t value = in_units(src[x * at.s_x], most, unit.bound);
#pragma unroll
        for (int corner = 0; corner < 8; corner++) {
            const int a = corner >> 2, b = corner >> 1 & 1, c = corner & 1;
            add_units(
                sums + (place[0][a] + place[1][b] + place[2][c]), weight[0][a] * weight[1][b] * weight[2][c] * value,
                unit);
        }
    }
}

extern "C" __global__ void splat_linear(SPLAT_PARAMETERS, const taps_t taps)
{
    splat_linear_rows<LINES>(SPLAT_ARGUMENTS, taps);
}

extern "C" __global__ void splat_linear_lattice(SPLAT_PARAMETERS, const taps_t taps)
{
    splat_linear_rows<ANY>(SPLAT_ARGUMENTS, taps);
}

// Unrolls where `width` is a number at the place of the call; ROOM is the length of the weight arrays.
template <int PATH, int ROOM>
static __device__ __forceinline__ void splat_rows(
    SPLAT_PARAMETERS, const acc_t *__restrict__ coefficients, const taps_t taps)
{
    DYNAMIC_SHARED(shared_t, shared);
    const int width = taps.width;
    const row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    const unsigned long long most = largest[row.volume];
    if (!row.exists || !is_countable(most, unit.bound) || most == 0) return;
    src += row.volume * at.s_b + row.z * at.s_z + row.y * at.s_y;
    sums += row.volume * at.d_b;
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        if (!is_inside(at.box, p)) continue;
        int first[3];
        acc_t weight[3][ROOM];
#pragma unroll
        for (int axis = 0; axis < 3; axis++) {
            weigh(
                bounded(p[2 - axis], at.extent[axis], at.rule), coefficients + axis * taps.pieces * width * taps.terms,
                taps, first + axis, weight[axis], NULL);
        }
        const acc_t value = in_units(src[x * at.s_x], most, unit.bound);
#pragma unroll
        for (int a = 0; a < width; a++) {
            const int z = fold(first[0] + a, at.extent[0], at.rule);
            if (z < 0) continue;
#pragma unroll
            for (int b = 0; b < width; b++) {
                const int y = fold(first[1] + b, at.extent[1], at.rule);
                if (y < 0) continue;
                unsigned long long *line = sums + ((z - at.extent[3]) * at.d_z + (y - at.extent[4]) * at.d_y);
                const acc_t share = weight[0][a] * weight[1][b] * value;
#pragma unroll
                for (int c = 0; c < width; c++) {
                    const int k = fold(first[2] + c, at.extent[2], at.rule);
                    if (k >= 0) add_units(line + (k - at.extent[5]), share * weight[2][c], unit);
                }
            }
        }
    }
}

// What a splat by polynomials takes further; see gather.cu.
#define SPLAT_WEIGHTS \
    const acc_t *__restrict__ coefficients /* [3, pieces, width, terms]: for z, y, x */, const taps_t taps

extern "C" __global__ void splat_cubic(SPLAT_PARAMETERS, SPLAT_WEIGHTS)
{
    splat_rows<LINES, 4>(SPLAT_ARGUMENTS, coefficients, of_width(taps, 4));
}

extern "C" __global__ void splat_cubic_lattice(SPLAT_PARAMETERS, SPLAT_WEIGHTS)
{
    splat_rows<ANY, 4>(SPLAT_ARGUMENTS, coefficients, of_width(taps, 4));
}

extern "C" __global__ void splat_any(SPLAT_PARAMETERS, SPLAT_WEIGHTS)
{
    splat_rows<LINES, MAX_TAPS>(SPLAT_ARGUMENTS, coefficients, taps);
}

extern "C" __global__ void splat_any_lattice(SPLAT_PARAMETERS, SPLAT_WEIGHTS)
{
    splat_rows<ANY, MAX_TAPS>(SPLAT_ARGUMENTS, coefficients, taps);
}

extern "C" __global__ void settle_sums(
    const unsigned long long *__restrict__ sums,     // [n_b, words, n_z, n_y, n_x]
    const unsigned long long *__restrict__ largest,  // [n_b]
    dst_t *__restrict__ dst,                         // [n_b, n_z, n_y, n_x], at strides d_*
    const long long n_b, const int n_z, const int n_y, const int n_x, const long long d_b, const idx_t d_z,
    const idx_t d_y, const idx_t d_x, const double bound, const int finer)
{
    const long long v = (long long)blockIdx.x * blockDim.x + threadIdx.x, n = (long long)n_z * n_y * n_x;
    if (v >= n * n_b) return;
    const long long volume = v / n, k = v % n;
    const int x = (int)(k % n_x), y = (int)(k / n_x % n_y), z = (int)(k / n_x / n_y);
    const unsigned long long most = largest[volume];
    double value = NOT_A_NUMBER;
    if (is_countable(most, bound)) {
        const int unit = exponent_of(__longlong_as_double((long long)most) * bound) - UNIT_BITS;
        const unsigned long long *sum = sums + volume * (finer ? 2 : 1) * n + k;
        value = ldexp((double)(long long)sum[0], unit);
        if (finer) value += ldexp((double)(long long)sum[n], unit - finer);
    }
    dst[volume * d_b + z * d_z + y * d_y + x * d_x] = convert((acc_t)value, (const dst_t *)0);
}

// ---------------------------------------------------------------------------------------------------------------
// gradient_linear, gradient_cubic, gradient_any

// Of channels that share positions: what `dst` gets is the sum of their derivatives, each times what is beside it.
struct channels_t {
    long long s_c, g_b, g_c;  // strides: of the source from channel to channel, of what is beside (g_*)
    idx_t g_z, g_y, g_x;
    idx_t d_c;                // from a derivative along x to that along y, and on to z
    int n_c;
    int only;                 // the one derivative that is stored, x, y or z; -1 for all
};
#define CHANNELS \
    const acc_t *__restrict__ beside /* [n_b, n_c, n_z, n_y, n_x]; NULL for ones */, const channels_t of
#define CHANNEL_ARGUMENTS beside, of

// Unrolls where `width` is a number at the place of the call; ROOM is the length of the weight arrays.
template <int PATH, int ROOM>
static __device__ __forceinline__ void gradient_rows(
    ROUTED_PARAMETERS, CHANNELS, const acc_t *__restrict__ coefficients, const taps_t taps)
{
    DYNAMIC_SHARED(shared_t, shared);
    const int width = taps.width;
    const row_t row = begin_row(routes, at.many, at.n_z, at.n_y, at.n_x, shared);
    if (!row.exists) return;
    src += row.volume * at.s_b;
    dst += row.volume * at.d_b + row.z * at.d_z + row.y * at.d_y;
    if (beside) beside += row.volume * of.g_b + row.z * of.g_z + row.y * of.g_y;
#pragma unroll 1
    for (int strip = 0, x = row.x; strip < STRIPS && x < at.n_x; strip++, x += LANES) {
        double p[3];
        locate<PATH>(row, x, p);
        acc_t total[3] = {0, 0, 0};  // along z, y, x
        if (is_inside(at.box, p)) {
            int first[3];
            acc_t weight[3][ROOM], slope[3][ROOM];
#pragma unroll
            for (int axis = 0; axis < 3; axis++) {
                const int n = at.extent[axis];
                weigh(
                    bounded(p[2 - axis], n, at.rule), coefficients + axis * taps.pieces * width * taps.terms, taps,
                    first + axis, weight[axis], slope[axis]);
                // Where a line goes on as its last voxel nothing changes, not even by a rounding.
                if (at.rule == RULE_NEAREST && (first[axis] >= n - 1 || first[axis] + width <= 1)) {
#pragma unroll
                    for (int k = 0; k < width; k++) slope[axis][k] = 0;
                }
            }
#pragma unroll 1
            for (int channel = 0; channel < of.n_c; channel++) {
                const src_t *volume = src + channel * of.s_c;
                acc_t found[3] = {0, 0, 0};
#pragma unroll
                for (int a = 0; a < width; a++) {
                    const int z = fold(first[0] + a, at.extent[0], at.rule);
                    if (z < 0) continue;
                    acc_t plane = 0, along_y = 0, along_x = 0;
#pragma unroll
                    for (int b = 0; b < width; b++) {
                        const int y = fold(first[1] + b, at.extent[1], at.rule);
                        // What weighs nothing in any of the three is not read: its NaN must not spread.
                        const bool across =
                            (weight[0][a] != 0 || slope[0][a] != 0) && (weight[1][b] != 0 || slope[1][b] != 0);
                        if (y < 0 || !across) continue;
                        const src_t *line = volume + ((z - at.extent[3]) * at.s_z + (y - at.extent[4]) * at.s_y);
                        acc_t sum = 0, change = 0;
#pragma unroll
                        for (int c = 0; c < width; c++) {
                            const int k = fold(first[2] + c, at.extent[2], at.rule);
                            if (k < 0 || (weight[2][c] == 0 && slope[2][c] == 0)) continue;
                            const acc_t value = load(line[(k - at.extent[5]) * at.s_x]);
                            sum += weight[2][c] * value;
                            change += slope[2][c] * value;
                        }
                        plane += weight[1][b] * sum;
                        along_y += slope[1][b] * sum;
                        along_x += weight[1][b] * change;
                    }
                    found[0] += slope[0][a] * plane;
                    found[1] += weight[0][a] * along_y;
                    found[2] += weight[0][a] * along_x;
                }
                const acc_t factor = beside ? beside[channel * of.g_c + x * of.g_x] : (acc_t)1;
#pragma unroll
                for (int axis = 0; axis < 3; axis++) total[axis] += found[axis] * factor;
            }
        }
#pragma unroll
        for (int c = 0; c < 3; c++)
            if (of.only < 0 || of.only == c) dst[x * at.d_x + c * of.d_c] = convert(total[2 - c], (const dst_t *)0);
    }
}

extern "C" __global__ void gradient_linear(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<LINES, 2>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, of_width(taps, 2));
}

extern "C" __global__ void gradient_linear_lattice(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<ANY, 2>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, of_width(taps, 2));
}

extern "C" __global__ void gradient_cubic(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<LINES, 4>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, of_width(taps, 4));
}

extern "C" __global__ void gradient_cubic_lattice(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<ANY, 4>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, of_width(taps, 4));
}

extern "C" __global__ void gradient_any(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<LINES, MAX_TAPS>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, taps);
}

extern "C" __global__ void gradient_any_lattice(ROUTED_PARAMETERS, CHANNELS, SPLAT_WEIGHTS)
{
    gradient_rows<ANY, MAX_TAPS>(ROUTED_ARGUMENTS, CHANNEL_ARGUMENTS, coefficients, taps);
}

// ---------------------------------------------------------------------------------------------------------------
// sum_moments

#define NUMBERS 12  // three values times x, y, z, 1

// The sums over a block's threads, in a fixed order, of so many numbers each; every thread must come.
static __device__ __forceinline__ void add_threads(
    const double *sum,  // [NUMBERS], of this thread
    double *shared,     // [NUMBERS, THREADS]
    double *out)        // [NUMBERS]
{
#pragma unroll
    for (int k = 0; k < NUMBERS; k++) shared[k * THREADS + threadIdx.x] = sum[k];
    for (int half = THREADS / 2; half > 0; half /= 2) {
        __syncthreads();
        if ((int)threadIdx.x < half) {
#pragma unroll
            for (int k = 0; k < NUMBERS; k++)
                shared[k * THREADS + threadIdx.x] += shared[k * THREADS + threadIdx.x + half];
        }
    }
    __syncthreads();
    if (threadIdx.x < NUMBERS) out[threadIdx.x] = shared[threadIdx.x * THREADS];
}

// Three values of every voxel, times its index x, y, z, which a field may move, and times 1: the sums of a block. Which
// voxels a block takes, and in which order it adds, follows from sizes alone: the same bits every time.
extern "C" __global__ void sum_moments(
    const src_t *__restrict__ values,  // [n_b, 3, n_z, n_y, n_x], at strides s_*
    const dst_t *__restrict__ field,   // [n_b, x / y / z, n_z, n_y, n_x], at strides f_*; NULL for none
    double *__restrict__ out,          // [n_b, blocks, 3, 4]
    const int blocks, const int n_z, const int n_y, const int n_x, const long long s_b, const long long s_c,
    const idx_t s_z, const idx_t s_y, const idx_t s_x, const long long f_b, const long long f_c, const idx_t f_z,
    const idx_t f_y, const idx_t f_x)
{
    DYNAMIC_SHARED(double, shared);  // [NUMBERS, THREADS]
    const long long volume = blockIdx.x / blocks, n = (long long)n_z * n_y * n_x;
    double sum[NUMBERS] = {};
    for (long long v = (long long)(blockIdx.x % blocks) * THREADS + threadIdx.x; v < n; v += (long long)blocks * THREADS) {
        const int x = (int)(v % n_x), y = (int)(v / n_x % n_y), z = (int)(v / n_x / n_y);
        double place[4] = {(double)x, (double)y, (double)z, 1.0};
        if (field) {
            const dst_t *vector = field + volume * f_b + z * f_z + y * f_y + x * f_x;
#pragma unroll
            for (int c = 0; c < 3; c++) place[c] += load(vector[c * f_c]);
        }
#pragma unroll
        for (int a = 0; a < 3; a++) {
            const double value = load(values[volume * s_b + a * s_c + z * s_z + y * s_y + x * s_x]);
#pragma unroll
            for (int c = 0; c < 4; c++) sum[a * 4 + c] += value * place[c];
        }
    }
    add_threads(sum, shared, out + (long long)blockIdx.x * NUMBERS);
}

extern "C" __global__ void add_moments(
    const double *__restrict__ sums,  // [n_b, blocks, 3, 4]
    double *__restrict__ out,         // [n_b, 3, 4]
    const int blocks)
{
    DYNAMIC_SHARED(double, shared);  // [NUMBERS, THREADS]
    const double *mine = sums + (long long)blockIdx.x * blocks * NUMBERS;
    double sum[NUMBERS] = {};
    for (int b = threadIdx.x; b < blocks; b += THREADS) {
#pragma unroll
        for (int k = 0; k < NUMBERS; k++) sum[k] += mine[b * NUMBERS + k];
    }
    add_threads(sum, shared, out + (long long)blockIdx.x * NUMBERS);
}
