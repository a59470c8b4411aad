// neighbours.cuh - which voxels of the source a position has for neighbours, and what a border does.
//
// What gathers (gather.cu), their transposes (gradient.cu) and votes (vote.cu) need. Axes of positions are x, y, z;
// every other triple is z, y, x.
#pragma once
#include "path.cuh"

// Border rules, gpuresample/planning/works.py RULES.
#define RULE_NEAREST 0
#define RULE_REFLECT 1
#define RULE_CROP 3
#define RULE_WRAP 4
#define RULE_GRID_WRAP 5

// The sample that stands for position k; -1 for none.
static __device__ __forceinline__ int fold(int k, const int n, const int rule)
{
    if (k >= 0 && k < n) return k;
    if (rule == RULE_CROP) return -1;
    if (rule == RULE_NEAREST || n == 1) return k < 0 ? 0 : n - 1;
    if (rule == RULE_GRID_WRAP) return k % n < 0 ? k % n + n : k % n;
    const int period = rule == RULE_REFLECT ? 2 * n : 2 * (n - 1);
    const int last = rule == RULE_REFLECT ? period - 1 : period;
    k %= period;
    if (k < 0) k += period;
    return k < n ? k : last - k;
}

// Positions from here on are brought nearer before they become integers.
#define FAR 1e9

// A position that is far away: a mirrored line repeats itself, so whole periods are taken off, exactly; of any other
// line the end remains. Lines that begin again have all positions brought. Rare, so one copy of it serves all axes.
static __device__ __noinline__ double brought_near(const double p, const int n, const int rule)
{
    if (rule == RULE_NEAREST || rule == RULE_CROP || n == 1) return p < 0.0 ? -FAR : FAR;
    if (rule >= RULE_WRAP) {
        if (p >= 0.0 && p <= n - 1) return p;
        const double period = rule == RULE_WRAP ? n - 1 : n, rest = fmod(p, period);
        return rest < 0.0 ? rest + period : rest;
    }
    return fmod(p, 2.0 * (rule == RULE_REFLECT ? n : n - 1));
}

// A position, which is a number, as a cell can be found for: in float64, before any cast.
static __device__ __forceinline__ double bounded(const double p, const int n, const int rule)
{
    return fabs(p) < FAR && rule < RULE_WRAP ? p : brought_near(p, n, rule);
}

// Whether a position z, y, x lies in the box; what is not finite does not.
static __device__ __forceinline__ bool is_inside(
    const double *__restrict__ box,  // [3, 2]: lower bounds are inside, upper ones are not; all finite
    const double *p)                 // [3]: x, y, z
{
    return p[2] >= box[0] && p[2] < box[1] && p[1] >= box[2] && p[1] < box[3] && p[0] >= box[4] && p[0] < box[5];
}

// Where ITK's splines find their cell in float32. Further out than any image, float32 is too coarse to weigh by.
#define SPLINE_REACH 65536.0

// The cell of a bounded position.
static __device__ __forceinline__ double cell_of(const double t, const double shift, const int spline)
{
    return spline && fabs(t) < SPLINE_REACH ? (double)floorf((float)t + (float)shift) : floor(t + shift);
}

// How a position's taps are found and weighed, see gather.cu.
struct taps_t {
    double shift;
    int pieces, width, terms;  // of the coefficients
    int offset;                // from the cell to the first tap
    int spline;                // find the cell in float32, as ITK's splines do
    int normalise;             // divide by the sum of weights
};

// The same with a shape that the compiler knows.
static __device__ __forceinline__ taps_t of_width(taps_t taps, const int width)
{
    taps.pieces = 1;
    taps.width = taps.terms = width;
    taps.spline = 0;
    return taps;
}

// First tap and weights of a position along one axis, from polynomials: see gather.cu.
static __device__ __forceinline__ void weigh(
    const double t,                          // bounded
    const acc_t *__restrict__ coefficients,  // [pieces, width, terms]
    const taps_t &taps,
    int *first,
    acc_t *weight,  // [width]
    acc_t *slope)   // [width]: what a step along the axis adds to the weights; NULL if not asked for
{
    const int width = taps.width, terms = taps.terms;
    const double cell = cell_of(t, taps.shift, taps.spline);
    *first = (int)cell + taps.offset;
    const double u = (t + taps.shift - cell) * taps.pieces;
    const double whole = fmin(fmax(floor(u), 0.0), taps.pieces - 1.0);
    const acc_t part = (acc_t)(u - whole);
    const acc_t *c = coefficients + (int)whole * width * terms;
#pragma unroll
    for (int k = 0; k < width; k++) {
        acc_t value = c[k * terms + terms - 1], change = 0;
#pragma unroll
        for (int d = terms - 2; d >= 0; d--) {
            if (slope) change = change * part + value;
            value = value * part + c[k * terms + d];
        }
        weight[k] = value;
        if (slope) slope[k] = change * taps.pieces;
    }
}

// Two taps of a position that is inside. Where only one voxel is to be read (p on it, or past a border that repeats it)
// both taps are that voxel and weigh a half each, so that a neighbour's NaN or infinity stays where it is.
static __device__ __forceinline__ void linear_taps(
    const double p, const int n, const int base, const idx_t stride, const int rule, const int spline,
    const int offset,
    acc_t *weight,  // [2]
    idx_t *place)   // [2]
{
    const double t = bounded(p, n, rule);
    const double cell = cell_of(t, 0.0, spline);
    const double d = t - cell;
    const int k = (int)cell + offset, lower = fold(k, n, rule);
    const bool lone = d == 0.0 || (rule == RULE_NEAREST && (k < 0 || k >= n - 1));
    const int upper = lone ? lower : fold(k + 1, n, rule);
    weight[0] = lone ? (acc_t)0.5 : (acc_t)(1.0 - d);
    weight[1] = lone ? (acc_t)0.5 : (acc_t)d;
    place[0] = (lower - base) * stride;
    place[1] = (upper - base) * stride;
}

// A position's cell and the fraction within it in units of 2^-24, rounded down, by one addition: 1.5 * 2^28 more, a
// float64's last bit is worth 2^-24, so its low 24 bits are the fraction, and those above it the cell. That takes none
// of the conversions of float64, of which a GPU makes 16 in the time of 64 additions. `high` collects what is not
// between 0 and 2^26, for which cell and fraction mean nothing: such a position leaves a bit at FAR_BITS or above.
#define PLACES 402653184.0  // 1.5 * 2^28
#define PLACES_HIGH 0x41b80000u
#define FRACTION_BITS 24
#define FRACTION 5.9604644775390625e-8f  // 2^-24
#define FAR_BITS 18

static __device__ __forceinline__ unsigned split(const double p, unsigned *fraction, unsigned *high)
{
    const double sum = __dadd_rd(p, PLACES);
    const unsigned low = (unsigned)__double2loint(sum), above = (unsigned)__double2hiint(sum) - PLACES_HIGH;
    *high |= above;
    *fraction = low & ((1u << FRACTION_BITS) - 1);
    return above << (32 - FRACTION_BITS) | low >> FRACTION_BITS;
}

// Whether positions z, y, x split into cells that lie within `inner`, see path.cuh. All is asked at once: no branch.
static __device__ __forceinline__ bool is_inner(const unsigned *cell, const unsigned high, const unsigned *inner)
{
    return (high >> FAR_BITS == 0) & (cell[0] < inner[0]) & (cell[1] < inner[1]) & (cell[2] < inner[2]);
}
