// path.cuh - where a voxel of the output lies in the source: the end of a route of stages.
//
//     p = origin + step[:, 0] * i + step[:, 1] * j + step[:, 2] * k          the voxel's point
//     p = matrix * p + offset          or          p = p + vector(p)          stage by stage, in order
//     x = inverse * (p - origin_in)                                           the continuous source index
//
// Everything here is x, y, z and float64, in ITK's order of operations, and nothing fuses: a last bit decides between
// inside and outside, and between two nearest voxels. The vector of a stage comes from a lattice: a displacement field
// (linear between its nodes, or the nearest node's), or the control points of a B-spline. Outside the lattice's domain
// nothing moves.
//
// Lines. Without a lattice ITK uses the formula at both ends of a row only, at i = 0 and i = n0, and goes straight from
// one to the other: x = a + (i / n0) * (b - a). That is six operations of float64 for a voxel, where the formula has more
// than a hundred. A consumer GPU makes one float64 operation in the time of 64 of float32, so a block shares all that a
// row or a column has in common: 16 threads follow the route to the ends of the block's 8 rows, the upper half of the
// block divides i / n0 for its 128 columns, and both lie in shared memory.
#pragma once
#include "common.cuh"

#define MAX_STAGES 8
#define LANES 32   // voxels of a row side by side: threads of a block along x
#define ROWS 8     // rows of a block: threads of a block along y
#define STRIPS 4   // voxels of a row that one thread makes, LANES apart

// Kinds of stages, gpuresample/engines/cuda/routes.py KINDS.
#define STAGE_MATRIX 0
#define STAGE_LINEAR 1
#define STAGE_NEAREST 2
#define STAGE_SPLINE 3
#define STAGE_DIRECT 4

struct stage_t {
    double matrix[9];     // rows: of a linear stage; of a lattice, from a point to its index
    double offset[3];     // of a linear stage; of a lattice, its origin
    const void *vectors;  // [z, y, x, component], in units of p
    long long stride[4];
    int n[3];             // nodes along x, y, z; of a direct lattice, the output's voxel that its first node belongs to
    int kind;
    int order;            // of a spline
    int wide;             // vectors are float64, else float32
};

struct route_t {
    double step[9], origin[3], inverse[9], origin_in[3];
    int start[3];  // index in the whole output of the first voxel here
    int n0;        // voxels of a whole row
    int lines, n_stages;
    stage_t stage[MAX_STAGES];
};

static __device__ __forceinline__ double dot(const double *row, const double *v)
{
    return __dadd_rn(__dadd_rn(__dmul_rn(row[0], v[0]), __dmul_rn(row[1], v[1])), __dmul_rn(row[2], v[2]));
}

// Adds w times the vector at an offset to d.
static __device__ __forceinline__ void add_vector(const stage_t *stage, const long long at, const double w, double *d)
{
    double vector[3];
    const long long next = stage->stride[3];
    if (stage->wide) {
        const double *vectors = (const double *)stage->vectors + at;
#pragma unroll
        for (int c = 0; c < 3; c++) vector[c] = vectors[c * next];
    } else {
        const float *vectors = (const float *)stage->vectors + at;
#pragma unroll
        for (int c = 0; c < 3; c++) vector[c] = (double)vectors[c * next];
    }
#pragma unroll
    for (int c = 0; c < 3; c++) d[c] = __dadd_rn(d[c], __dmul_rn(w, vector[c]));
}

// As ITK rounds, exact for every double whose index fits an int.
static __device__ __forceinline__ int floor_index(const double x)
{
    return (int)rint(__dsub_rn(__dmul_rn(2.0, x), 0.5)) >> 1;
}

static __device__ __forceinline__ int round_index(const double x)
{
    return (int)rint(__dadd_rn(__dmul_rn(2.0, x), 0.5)) >> 1;
}

static __device__ __forceinline__ int clamp_index(const int k, const int n)
{
    return k < 0 ? 0 : k < n ? k : n - 1;
}

// A displacement field: inside up to half a voxel around its outermost nodes, whose vectors go on there.
static __device__ __forceinline__ void move_by_field(const stage_t *stage, const double *x, double *p)
{
    bool inside = true;
#pragma unroll
    for (int a = 0; a < 3; a++) inside = inside && x[a] >= -0.5 && x[a] < stage->n[a] - 0.5;
    if (!inside) return;
    double d[3] = {0.0, 0.0, 0.0};
    if (stage->kind == STAGE_NEAREST) {
        long long at = 0;
#pragma unroll
        for (int a = 0; a < 3; a++) at += clamp_index(round_index(x[a]), stage->n[a]) * stage->stride[2 - a];
        add_vector(stage, at, 1.0, d);
    } else {
        double upper[3], lower[3], total = 0.0;
        long long above[3], below[3];
#pragma unroll
        for (int a = 0; a < 3; a++) {
            const int b = floor_index(x[a]);
            upper[a] = __dsub_rn(x[a], (double)b);
            lower[a] = __dsub_rn(1.0, upper[a]);
            below[a] = clamp_index(b, stage->n[a]) * stage->stride[2 - a];
            above[a] = clamp_index(b + 1, stage->n[a]) * stage->stride[2 - a];
        }
#pragma unroll
        for (int corner = 0; corner < 8; corner++) {
            double w = corner & 1 ? upper[0] : lower[0];
            w = __dmul_rn(w, corner & 2 ? upper[1] : lower[1]);
            w = __dmul_rn(w, corner & 4 ? upper[2] : lower[2]);
            // ITK stops at a sum of exactly 1, and reads no node that weighs nothing.
            if (w == 0.0 || total == 1.0) continue;
            const long long at = (corner & 1 ? above[0] : below[0]) + (corner & 2 ? above[1] : below[1]) +
                                 (corner & 4 ? above[2] : below[2]);
            add_vector(stage, at, w, d);
            total = __dadd_rn(total, w);
        }
    }
#pragma unroll
    for (int c = 0; c < 3; c++) p[c] = __dadd_rn(p[c], d[c]);
}

// A B-spline's weight at the distance u, by ITK's polynomials.
static __device__ __forceinline__ double basis(const int order, const double u)
{
    const double a = fabs(u), s = __dmul_rn(a, a);
    if (order == 1) return a < 1.0 ? __dsub_rn(1.0, a) : 0.0;
    if (order == 2) {
        if (a < 0.5) return __dsub_rn(0.75, s);
        if (a >= 1.5) return 0.0;
        return __dmul_rn(__dadd_rn(__dsub_rn(9.0, __dmul_rn(12.0, a)), __dmul_rn(4.0, s)), 0.125);
    }
    if (a >= 2.0) return 0.0;
    double value;
    if (a < 1.0) {
        value = __dadd_rn(__dsub_rn(4.0, __dmul_rn(6.0, s)), __dmul_rn(__dmul_rn(3.0, s), a));
    } else {
        value = __dadd_rn(__dsub_rn(8.0, __dmul_rn(12.0, a)), __dmul_rn(6.0, s));
        value = __dsub_rn(value, __dmul_rn(s, a));
    }
    return __ddiv_rn(value, 6.0);
}

// Where a B-spline is asked along one axis. A point within 4 units of the last place of the upper face is inside, and
// moves 6 such units inward; at the lower face nothing moves. Returns whether the point is inside.
static __device__ __forceinline__ bool enter_spline(const int n, const int order, double *x)
{
    const double lower = 0.5 * (order - 1), upper = n - lower - 1.0;
    // Unsigned: of numbers far apart the difference wraps around.
    const unsigned long long bits = (unsigned long long)__double_as_longlong(*x);
    const long long apart = (long long)(bits - (unsigned long long)__double_as_longlong(upper));
    if (*x > 0.0 && apart >= -4 && apart <= 4) {
        *x = __longlong_as_double(__double_as_longlong(upper) - 6);
        return true;
    }
    return *x >= lower && *x < upper;
}

static __device__ __forceinline__ void move_by_spline(const stage_t *stage, double *x, double *p)
{
    const int order = stage->order;
    bool inside = true;
#pragma unroll
    for (int a = 0; a < 3; a++) inside = (stage->n[a] == 1 || enter_spline(stage->n[a], order, x + a)) && inside;
    if (!inside) return;
    double weight[3][4];
    int taps[3];
    long long corner = 0;
#pragma unroll
    for (int a = 0; a < 3; a++) {
        taps[a] = stage->n[a] == 1 ? 1 : order + 1;
        // One node is the third axis of a spline in 2-D.
        const int first = taps[a] == 1 ? 0 : floor_index(__dsub_rn(__dadd_rn(x[a], 0.5), 0.5 * order));
        corner += first * stage->stride[2 - a];
        double u = __dsub_rn(x[a], (double)first);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            weight[a][k] = taps[a] == 1 ? 1.0 : basis(order, u);
            u = __dsub_rn(u, 1.0);
        }
    }
    double d[3] = {0.0, 0.0, 0.0};
    // Loops that do not unroll keep the text short; their weights take turns at the front, so that all are registers.
#pragma unroll 1
    for (int c = 0; c < taps[2]; c++) {
        double row[4] = {weight[1][0], weight[1][1], weight[1][2], weight[1][3]};
#pragma unroll 1
        for (int b = 0; b < taps[1]; b++) {
            const long long at = corner + c * stage->stride[0] + b * stage->stride[1];
#pragma unroll
            for (int a = 0; a < 4; a++) {
                if (a < taps[0]) {
                    const double w = __dmul_rn(__dmul_rn(weight[0][a], row[0]), weight[2][0]);
                    add_vector(stage, at + a * stage->stride[2], w, d);
                }
            }
            row[0] = row[1], row[1] = row[2], row[2] = row[3];
        }
        weight[2][0] = weight[2][1], weight[2][1] = weight[2][2], weight[2][2] = weight[2][3];
    }
#pragma unroll
    for (int m = 0; m < 3; m++) p[m] = __dadd_rn(d[m], p[m]);
}

// The whole formula for voxel i, j, k of the whole output. LATTICES: whether there may be any.
template <bool LATTICES>
static __device__ __forceinline__ void follow(
    const route_t *__restrict__ route, const int i, const int j, const int k,
    double *x)  // [3]
{
    double p[3], v[3];
#pragma unroll
    for (int a = 0; a < 3; a++) {
        p[a] = __dadd_rn(route->origin[a], __dmul_rn(route->step[a * 3], (double)i));
        p[a] = __dadd_rn(p[a], __dmul_rn(route->step[a * 3 + 1], (double)j));
        p[a] = __dadd_rn(p[a], __dmul_rn(route->step[a * 3 + 2], (double)k));
    }
    for (int s = 0; s < route->n_stages; s++) {
        const stage_t *stage = route->stage + s;
        if (!LATTICES || stage->kind == STAGE_MATRIX) {
#pragma unroll
            for (int a = 0; a < 3; a++) v[a] = __dadd_rn(dot(stage->matrix + a * 3, p), stage->offset[a]);
#pragma unroll
            for (int a = 0; a < 3; a++) p[a] = v[a];
        } else if (stage->kind == STAGE_DIRECT) {
            const long long at = (i - stage->n[0]) * stage->stride[2] + (j - stage->n[1]) * stage->stride[1] +
                                 (k - stage->n[2]) * stage->stride[0];
            add_vector(stage, at, 1.0, p);
        } else {
            double index[3];
#pragma unroll
            for (int a = 0; a < 3; a++) v[a] = __dsub_rn(p[a], stage->offset[a]);
#pragma unroll
            for (int a = 0; a < 3; a++) index[a] = dot(stage->matrix + a * 3, v);
            if (stage->kind == STAGE_SPLINE)
                move_by_spline(stage, index, p);
            else
                move_by_field(stage, index, p);
        }
    }
#pragma unroll
    for (int a = 0; a < 3; a++) v[a] = __dsub_rn(p[a], route->origin_in[a]);
#pragma unroll
    for (int a = 0; a < 3; a++) x[a] = dot(route->inverse + a * 3, v);
}

// What kernels that follow routes are told by value. Axes are z, y, x.
struct geometry_t {
    double box[6];                  // [3, 2]: the continuous indices inside, the upper bound is not; all finite
    long long s_b, d_b;             // strides of what is read and of what is written; from volume to volume 64 bits
    idx_t s_z, s_y, s_x, d_z, d_y, d_x;
    int extent[9];                  // [3, 3]: size of the whole source; base, its first sample at hand; inner, so many
                                    // cells from 0 on lie in the box and have all their neighbours (0 where cells are
                                    // not a position's floor)
    int many;                       // whether every volume has a route of its own
    int n_z, n_y, n_x;              // voxels of the output
    int rule;                       // what a neighbour past the border becomes
};

// What all kernels that follow routes take first:
//
//     src            [n_b, n_z, n_y, n_x] from sample `base` on, at strides s_*
//     routes         [n_b] if many, else [1]
//     dst            [n_b, n_z, n_y, n_x], at strides d_*
#define ROUTED_PARAMETERS                                                                                          \
    const src_t *__restrict__ src, const route_t *__restrict__ routes, dst_t *__restrict__ dst, const geometry_t at
#define ROUTED_ARGUMENTS src, routes, dst, at

// What a block shares.
struct shared_t {
    double end[ROWS][2][3];         // continuous indices at both ends of every row
    double along[LANES * STRIPS];  // where every column lies between them, from 0 to 1
};

// How a kernel follows routes. LINES: the launch has no lattice. FIELD: the only stage of every route is a direct lattice,
// and step and inverse are diagonal.
#define LINES 0
#define ANY 1
#define FIELD 2

// A thread's row, and its first voxel there; its others are LANES apart.
struct row_t {
    const route_t *route;
    const shared_t *shared;
    double a[3], slope[3];  // of lines; of a field, a point before it moves, and what a voxel along x adds to that
    double from[3], scale[3];  // of a field: from a point to its index
    const char *vectors;       // of a field: of column 0
    long long stride, next;    // of a field, in bytes: from column to column, and from component to component
    int first, wide;           // of a field: index of column 0 in the whole output; whether vectors are float64
    int volume, x, y, z;
    bool exists;
};

// The first thing that every thread of a block of LANES x ROWS does: a barrier is in it. Blocks are numbered by volume,
// then by groups of rows, then by strips of columns.
static __device__ __forceinline__ row_t begin_row(
    const route_t *__restrict__ routes, const int many, const int n_z, const int n_y, const int n_x, shared_t *shared)
{
    const unsigned n_strips = (n_x + LANES * STRIPS - 1) / (LANES * STRIPS);
    const idx_t n_rows = (idx_t)n_z * n_y;
    const unsigned n_groups = (n_rows + ROWS - 1) / ROWS, item = blockIdx.x / n_strips;
    const int column = (int)(blockIdx.x % n_strips) * (LANES * STRIPS);
    row_t row;
    row.volume = item / n_groups;
    row.route = routes + (many ? row.volume : 0);
    row.shared = shared;
    const idx_t first = (idx_t)(item % n_groups) * ROWS, r = first + threadIdx.y;
    row.exists = r < n_rows;
    row.y = r % n_y;
    row.z = r / n_y;
    row.x = column + threadIdx.x;
    const route_t *route = row.route;
    const int t = threadIdx.y * LANES + threadIdx.x;
    if (route->lines) {
        if (t < 2 * ROWS && first + t / 2 < n_rows) {
            const idx_t at = first + t / 2;
            follow<false>(
                route, t % 2 ? route->n0 : 0, route->start[1] + (int)(at % n_y), route->start[2] + (int)(at / n_y),
                shared->end[t / 2][t % 2]);
        } else if (t >= LANES * STRIPS) {
            const int c = t - LANES * STRIPS;
            shared->along[c] = __ddiv_rn((double)(route->start[0] + column + c), (double)route->n0);
        }
    }
    __syncthreads();
    if (route->lines && row.exists) {
#pragma unroll
        for (int a = 0; a < 3; a++) {
            row.a[a] = shared->end[threadIdx.y][0][a];
            row.slope[a] = __dsub_rn(shared->end[threadIdx.y][1][a], row.a[a]);
        }
    }
    return row;
}

// What voxels of a row have in common where the route is a field: all that zeros of step and inverse leave of `follow`.
static __device__ __forceinline__ void begin_field(row_t &row)
{
    const route_t *route = row.route;
    const stage_t *stage = route->stage;
    const int size = stage->wide ? sizeof(double) : sizeof(float);
    const int index[3] = {route->start[0], route->start[1] + row.y, route->start[2] + row.z};
#pragma unroll
    for (int a = 0; a < 3; a++) {
        row.slope[a] = route->step[a * 4];
        row.a[a] = a == 0 ? route->origin[0] : __dadd_rn(route->origin[a], __dmul_rn(row.slope[a], (double)index[a]));
        row.scale[a] = route->inverse[a * 4];
        row.from[a] = route->origin_in[a];
    }
    row.stride = stage->stride[2] * size;
    row.next = stage->stride[3] * size;
    row.wide = stage->wide;
    row.first = index[0];
    row.vectors = (const char *)stage->vectors + (index[0] - stage->n[0]) * row.stride +
                  ((index[1] - stage->n[1]) * stage->stride[1] + (index[2] - stage->n[2]) * stage->stride[0]) * size;
}

// Continuous source index x, y, z of a row's voxel at column x of the block at hand. PATH: LINES, ANY or FIELD; without
// lattices, a kernel takes a third of the registers.
template <int PATH> static __device__ __forceinline__ void locate(const row_t &row, const int x, double *p)
{
    if (PATH == FIELD) {
        const char *at = row.vectors + x * row.stride;
        const double point = __dadd_rn(row.a[0], __dmul_rn(row.slope[0], (double)(row.first + x)));
#pragma unroll
        for (int a = 0; a < 3; a++) {
            const char *component = at + a * row.next;
            const double vector = row.wide ? *(const double *)component : (double)*(const float *)component;
            const double moved = __dadd_rn(a == 0 ? point : row.a[a], vector);
            p[a] = __dmul_rn(row.scale[a], __dsub_rn(moved, row.from[a]));
        }
    } else if (PATH == LINES || row.route->lines) {
        const double along = row.shared->along[x % (LANES * STRIPS)];
#pragma unroll
        for (int a = 0; a < 3; a++) p[a] = __dadd_rn(row.a[a], __dmul_rn(along, row.slope[a]));
    } else {
        const int *start = row.route->start;
        follow<true>(row.route, start[0] + x, start[1] + row.y, start[2] + row.z, p);
    }
}
