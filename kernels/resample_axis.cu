// resample_axis - weighted sum along one axis of a volume.
//
//     dst[b, o, i, j] = sum over k < count[i] of weight[i, k] * src[b, o, first[i] + k, j]
//
// The axis that is resampled is i; b (batch), o (outer) and j (inner) are all others. Every axis has a stride of
// its own on either side, so transposed, flipped or sliced volumes take no extra pass. Samples that a row does not
// tap are not read: their NaN must not spread, not even as 0 * NaN. Every version adds a row's taps in the same
// order, so all of them give the same bits.
//
//   v1  resample_axis        One thread per output. Right for few taps and for short axes.
//   v2  resample_axis_tile   A thread makes 4 outputs along the axis for 4 columns: one load of 4 neighbours and one
//                            load of 4 weights feed 16 multiply-adds, and outputs that lie side by side share the
//                            samples that they have in common. v1 loads two numbers per multiply-add, and its speed
//                            is that of the load units.
//   v3  resample_axis_lines  v2 for the contiguous axis. There neighbouring threads should be neighbouring lines (the
//                            weights are then the same for all of them), but must load along the line. So a block
//                            stages 32 lines in shared memory; an odd pitch lets 32 lines be read at once from 32
//                            banks.
//   v4  resample_axis_plane  v2 along one axis and v3 along the next, the contiguous one, in one kernel: two tables, y
//                            and then x. What lies between two passes is written once and read once in global memory;
//                            here a block makes the 32 rows that it needs in shared memory, where v3 would have staged
//                            them. Blocks side by side read and make the columns at their seams twice, which is the price: it grows
//                            with the number of taps.
//
// The launcher picks the version: v1 to v3 by `choose` in gpuresample/engines/cuda_axis.py, v4 by `fuses` in
// cuda_tiles.py.
#include "common.cuh"

#define TILE_I 4     // outputs along the axis that a thread makes
#define TILE_J 4     // columns that a thread of v2 makes
#define LANES 32     // threads side by side: columns / TILE_J in v2, lines in v3
#define GROUP 8      // tiles along the axis that a block works on at once

// ---------------------------------------------------------------------------------------------------------------
// v1: one thread per output

extern "C" __global__ void resample_axis(
    const src_t *__restrict__ src,     // [batch, outer, n_src, inner], at strides s_*
    const int *__restrict__ first,     // [n_dst]
    const int *__restrict__ count,     // [n_dst]
    const acc_t *__restrict__ weight,  // [n_dst, n_taps]
    dst_t *__restrict__ dst,           // [batch, outer, n_dst, inner], at strides d_*
    const idx_t n_batch, const idx_t n_outer, const int n_dst, const idx_t n_inner,
    const idx_t s_batch, const idx_t s_outer, const idx_t s_axis, const idx_t s_inner,
    const idx_t d_batch, const idx_t d_outer, const idx_t d_axis, const idx_t d_inner,
    const acc_t low, const acc_t high, const int rounding,
    const int n_taps,
    const int along)  // neighbouring threads are neighbours along the axis (1) or along the inner axis (0)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (t >= n_batch * n_outer * n_dst * n_inner) return;
    const idx_t row = along ? t / n_dst : t / n_inner;
    const int i = along ? (int)(t % n_dst) : (int)(row % n_dst);
    const idx_t j = along ? row % n_inner : t % n_inner;
    const idx_t line = along ? row / n_inner : row / n_dst;
    const idx_t o = line % n_outer, b = line / n_outer;

    const src_t *p = src + b * s_batch + o * s_outer + first[i] * s_axis + j * s_inner;
    const acc_t *w = weight + (idx_t)i * n_taps;
    const int taps = count[i];
    acc_t total = w[0] * load(p[0]);
    for (int k = 1; k < taps; k++) total += w[k] * load(p[k * s_axis]);
    dst[b * d_batch + o * d_outer + i * d_axis + j * d_inner] = store(total, low, high, rounding);
}

// ---------------------------------------------------------------------------------------------------------------
// v2: 4 outputs along the axis for 4 columns

// A tile's weights say NaN where a row does not tap a sample. Only the ends of a tile's window have such; in between
// nothing needs asking.
template <bool ASK>
static __device__ __forceinline__ void add(acc_t &total, const acc_t weight, const acc_t sample)
{
    if (!ASK || weight == weight) total += weight * sample;
}

template <bool ASK>
static __device__ __forceinline__ void add_samples(
    acc_t total[TILE_I][TILE_J],
    const src_t *__restrict__ p,       // sample 0 of the window at this thread's first column
    const acc4_t *__restrict__ weight, // [window]: the weights of all TILE_I rows for a sample
    const int begin, const int end, const idx_t s_axis, const idx_t s_column, const int columns, const int wide)
{
    for (int k = begin; k < end; k++) {
        const acc4_t w = weight[k];
        const src_t *q = p + k * s_axis;
        acc_t sample[TILE_J];
        if (wide) {
            const src4_t four = *(const src4_t *)q;
#pragma unroll
            for (int c = 0; c < TILE_J; c++) sample[c] = load(four.at[c]);
        } else {
#pragma unroll
            for (int c = 0; c < TILE_J; c++) sample[c] = c < columns ? load(q[c * s_column]) : (acc_t)0;
        }
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
#pragma unroll
            for (int c = 0; c < TILE_J; c++) add<ASK>(total[r][c], w.at[r], sample[c]);
        }
    }
}

extern "C" __global__ void resample_axis_tile(
    const src_t *__restrict__ src,      // [batch, outer, n_src, inner], at strides s_*
    const int *__restrict__ tile,       // [n_tiles, 4]: first sample; samples to where all rows tap, to where they
                                        // cease to, to the end
    const acc4_t *__restrict__ weight,  // [n_tiles, window]: TILE_I weights per sample
    dst_t *__restrict__ dst,            // [batch, outer, n_dst, inner], at strides d_*
    const idx_t n_batch, const idx_t n_outer, const int n_dst, const idx_t n_inner,
    const idx_t s_batch, const idx_t s_outer, const idx_t s_axis, const idx_t s_inner,
    const idx_t d_batch, const idx_t d_outer, const idx_t d_axis, const idx_t d_inner,
    const acc_t low, const acc_t high, const int rounding,
    const int window,
    const int wide)  // columns come in whole, aligned fours on both sides
{
    // Blocks follow each other along the axis: their windows overlap, and the samples in common are still in L2.
    const int n_tiles = (n_dst + TILE_I - 1) / TILE_I;
    const int n_groups = (n_tiles + GROUP - 1) / GROUP;
    const idx_t n_strips = (n_inner + LANES * TILE_J - 1) / (LANES * TILE_J);
    const idx_t block = blockIdx.x;
    const int t = (int)(block % n_groups) * GROUP + threadIdx.y;
    const idx_t strip = block / n_groups % n_strips;
    const idx_t line = block / n_groups / n_strips;
    const idx_t o = line % n_outer, b = line / n_outer;
    if (t >= n_tiles || b >= n_batch) return;

    // Fours lie side by side; lone columns lie a warp apart, so that every load of a warp is still one piece.
    const idx_t j = strip * (LANES * TILE_J) + (wide ? threadIdx.x * TILE_J : threadIdx.x);
    const idx_t apart = wide ? 1 : LANES;
    if (j >= n_inner) return;
    int columns = 0;
    while (columns < TILE_J && j + columns * apart < n_inner) columns++;

    const int start = tile[t * 4], core = tile[t * 4 + 1], edge = tile[t * 4 + 2], end = tile[t * 4 + 3];
    const src_t *p = src + b * s_batch + o * s_outer + start * s_axis + j * s_inner;
    const acc4_t *w = weight + (idx_t)t * window;
    acc_t total[TILE_I][TILE_J];
#pragma unroll
    for (int r = 0; r < TILE_I; r++) {
#pragma unroll
        for (int c = 0; c < TILE_J; c++) total[r][c] = NOTHING;
    }
    add_samples<true>(total, p, w, 0, core, s_axis, apart * s_inner, columns, wide);
    add_samples<false>(total, p, w, core, edge, s_axis, apart * s_inner, columns, wide);
    add_samples<true>(total, p, w, edge, end, s_axis, apart * s_inner, columns, wide);

    dst_t *d = dst + b * d_batch + o * d_outer + j * d_inner;
#pragma unroll
    for (int r = 0; r < TILE_I; r++) {
        const int i = t * TILE_I + r;
        if (i >= n_dst) break;
        dst4_t four;
#pragma unroll
        for (int c = 0; c < TILE_J; c++) four.at[c] = store(total[r][c], low, high, rounding);
        if (wide) {
            *(dst4_t *)(d + i * d_axis) = four;
        } else {
#pragma unroll
            for (int c = 0; c < TILE_J; c++)
                if (c < columns) d[i * d_axis + c * apart * d_inner] = four.at[c];
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------
// v3: lines of the contiguous axis, staged in shared memory

template <bool ASK>
static __device__ __forceinline__ void add_staged(
    acc_t total[TILE_I],
    const acc_t *p,                     // sample 0 of the window in this thread's line
    const acc4_t *__restrict__ weight,  // [window]: the weights of all TILE_I rows for a sample
    const int begin, const int end)
{
    for (int k = begin; k < end; k++) {
        const acc4_t w = weight[k];
        const acc_t sample = p[k];
#pragma unroll
        for (int r = 0; r < TILE_I; r++) add<ASK>(total[r], w.at[r], sample);
    }
}

// What v3 and v4 do with lines in shared memory.
template <class Line>
static __device__ __forceinline__ void add_lines(
    const acc_t *staged,                // [LANES, pitch]: lines, from sample `begin` on
    const int *__restrict__ tile,       // [n_tiles, 4]
    const acc4_t *__restrict__ weight,  // [n_tiles, window]
    acc_t *results,                     // [LANES, out_pitch]
    const int here,                     // lines that there are
    const int n_dst, const int group, const int begin, const int window, const int tiles, const int pitch,
    const int out_pitch, const idx_t d_axis, const acc_t low, const acc_t high, const int rounding,
    const Line &begins)  // where in dst a line begins
{
    // Warps make tiles; the lanes of a warp are lines.
    const int n_tiles = (n_dst + TILE_I - 1) / TILE_I;
    const int l = threadIdx.x;
    for (int g = threadIdx.y; g < tiles && l < here; g += GROUP) {
        const int t = group * tiles + g;
        if (t >= n_tiles) break;
        const acc_t *p = staged + l * pitch + tile[t * 4] - begin;
        const acc4_t *w = weight + (idx_t)t * window;
        acc_t total[TILE_I];
#pragma unroll
        for (int r = 0; r < TILE_I; r++) total[r] = NOTHING;
        add_staged<true>(total, p, w, 0, tile[t * 4 + 1]);
        add_staged<false>(total, p, w, tile[t * 4 + 1], tile[t * 4 + 2]);
        add_staged<true>(total, p, w, tile[t * 4 + 2], tile[t * 4 + 3]);
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
            const int i = t * TILE_I + r;
            if (i >= n_dst) break;
            if (out_pitch)
                results[l * out_pitch + g * TILE_I + r] = total[r];
            else
                begins(l)[i * d_axis] = store(total[r], low, high, rounding);
        }
    }
    if (!out_pitch) return;
    __syncthreads();

    // Warps write lines, again along the line.
    const int i0 = group * tiles * TILE_I;
    const int outputs = n_dst - i0 < tiles * TILE_I ? n_dst - i0 : tiles * TILE_I;
    for (int m = threadIdx.y; m < here; m += GROUP) {
        dst_t *e = begins(m);
        for (int i = threadIdx.x; i < outputs; i += LANES)
            e[(i0 + i) * d_axis] = store(results[m * out_pitch + i], low, high, rounding);
    }
}

extern "C" __global__ void resample_axis_lines(
    const src_t *__restrict__ src,      // [batch, outer, n_src, inner], at strides s_*; s_axis is 1
    const int *__restrict__ tile,       // [n_tiles, 4], as in v2
    const acc4_t *__restrict__ weight,  // [n_tiles, window], as in v2
    const int *__restrict__ reach,      // [n_groups, 2]: first sample and end of what a block's tiles tap
    dst_t *__restrict__ dst,            // [batch, outer, n_dst, inner], at strides d_*
    const idx_t n_batch, const idx_t n_outer, const int n_dst, const idx_t n_inner,
    const idx_t s_batch, const idx_t s_outer, const idx_t s_axis, const idx_t s_inner,
    const idx_t d_batch, const idx_t d_outer, const idx_t d_axis, const idx_t d_inner,
    const acc_t low, const acc_t high, const int rounding,
    const int window,
    const int tiles,      // tiles of a block
    const int pitch,      // odd: samples from a staged line to the next
    const int out_pitch,  // odd: outputs from a staged line to the next; 0: lines lie side by side in dst, no stage
    const int wide)       // lines start at whole, aligned fours
{
    DYNAMIC_SHARED(acc_t, staged);             // [LANES, pitch]
    acc_t *results = staged + LANES * pitch;   // [LANES, out_pitch]
    const int n_tiles = (n_dst + TILE_I - 1) / TILE_I;
    const int n_groups = (n_tiles + tiles - 1) / tiles;
    const idx_t n_lines = n_batch * n_outer * n_inner;
    const int group = (int)(blockIdx.x % n_groups);
    const idx_t line0 = (idx_t)(blockIdx.x / n_groups) * LANES;
    const int here = n_lines - line0 < LANES ? (int)(n_lines - line0) : LANES;

    // Warps load lines; the lanes of a warp go along the line. A wide load starts at the four before the first
    // sample that is needed.
    const int begin = wide ? reach[group * 2] / 4 * 4 : reach[group * 2], end = reach[group * 2 + 1];
    for (int l = threadIdx.y; l < here; l += GROUP) {
        const idx_t line = line0 + l, j = line % n_inner, o = line / n_inner % n_outer, b = line / n_inner / n_outer;
        const src_t *p = src + b * s_batch + o * s_outer + j * s_inner;
        acc_t *q = staged + l * pitch;
        int s = begin + (wide ? 4 : 1) * threadIdx.x;
        for (; wide && s + 4 <= end; s += 4 * LANES) {
            const src4_t four = *(const src4_t *)(p + s);
#pragma unroll
            for (int c = 0; c < 4; c++) q[s - begin + c] = load(four.at[c]);
        }
        // What is left: the last, incomplete four belongs to one lane.
        if (wide) {
            for (int c = s; c < end && c < s + 4; c++) q[c - begin] = load(p[c]);
        } else {
            for (; s < end; s += LANES) q[s - begin] = load(p[s]);
        }
    }
    __syncthreads();

    add_lines(
        staged, tile, weight, results, here, n_dst, group, begin, window, tiles, pitch, out_pitch, d_axis, low, high,
        rounding, [=](const int l) {
            const idx_t line = line0 + l, j = line % n_inner, o = line / n_inner % n_outer, b = line / n_inner / n_outer;
            return dst + b * d_batch + o * d_outer + j * d_inner;
        });
}

// ---------------------------------------------------------------------------------------------------------------
// v4: one axis, then the contiguous one

extern "C" __global__ void resample_axis_plane(
    const src_t *__restrict__ src,          // [batch, outer, n_src_row, n_src], at strides s_*; s_axis is 1 for speed
    const int *__restrict__ row_tile,       // [n_row_tiles, 4]: the first axis's tiles, as in v2
    const acc4_t *__restrict__ row_weight,  // [n_row_tiles, row_window], as in v2
    const int *__restrict__ tile,           // [n_tiles, 4]: the second axis's tiles
    const acc4_t *__restrict__ weight,      // [n_tiles, window]
    const int *__restrict__ reach,          // [n_groups, 2], as in v3
    dst_t *__restrict__ dst,                // [batch, outer, n_rows, n_dst], at strides d_*
    const idx_t n_outer, const int n_rows, const int n_dst,  // as many planes as the grid has room for
    const idx_t s_batch, const idx_t s_outer, const idx_t s_row, const idx_t s_axis,
    const idx_t d_batch, const idx_t d_outer, const idx_t d_row, const idx_t d_axis,
    const acc_t low, const acc_t high, const int rounding,
    const int row_window,
    const int window,
    const int tiles,      // tiles of a block along the second axis
    const int pitch,      // odd: columns from a row between the passes to the next
    const int out_pitch)  // as in v3
{
    DYNAMIC_SHARED(acc_t, between);            // [LANES, pitch]: as wide as sums are, as between two passes
    acc_t *results = between + LANES * pitch;  // [LANES, out_pitch]
    const int n_row_tiles = (n_rows + TILE_I - 1) / TILE_I;
    const int n_strips = (n_row_tiles + GROUP - 1) / GROUP;
    const int n_groups = ((n_dst + TILE_I - 1) / TILE_I + tiles - 1) / tiles;
    const int group = (int)(blockIdx.x % n_groups), strip = (int)(blockIdx.x / n_groups % n_strips);
    const idx_t plane = (idx_t)(blockIdx.x / n_groups / n_strips);
    const idx_t o = plane % n_outer, b = plane / n_outer;
    const int row0 = strip * LANES, here = n_rows - row0 < LANES ? n_rows - row0 : LANES;

    // Warps make 4 rows each; the lanes of a warp are columns, a warp apart, so that loads are one piece and stores
    // meet no bank twice. (Fours of columns would load faster and store to every fourth bank.)
    const int begin = reach[group * 2], end = reach[group * 2 + 1];
    const int t = strip * GROUP + threadIdx.y;
    for (int j = begin + threadIdx.x; t < n_row_tiles && j < end; j += LANES * TILE_J) {
        int columns = 0;
        while (columns < TILE_J && j + columns * LANES < end) columns++;
        const int core = row_tile[t * 4 + 1], edge = row_tile[t * 4 + 2], last = row_tile[t * 4 + 3];
        const src_t *p = src + b * s_batch + o * s_outer + row_tile[t * 4] * s_row + j * s_axis;
        const acc4_t *w = row_weight + (idx_t)t * row_window;
        acc_t total[TILE_I][TILE_J];
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
#pragma unroll
            for (int c = 0; c < TILE_J; c++) total[r][c] = NOTHING;
        }
        add_samples<true>(total, p, w, 0, core, s_row, LANES * s_axis, columns, 0);
        add_samples<false>(total, p, w, core, edge, s_row, LANES * s_axis, columns, 0);
        add_samples<true>(total, p, w, edge, last, s_row, LANES * s_axis, columns, 0);
        acc_t *q = between + threadIdx.y * TILE_I * pitch + (j - begin);
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
#pragma unroll
            for (int c = 0; c < TILE_J; c++)
                if (c < columns) q[r * pitch + c * LANES] = total[r][c];
        }
    }
    __syncthreads();

    add_lines(
        between, tile, weight, results, here, n_dst, group, begin, window, tiles, pitch, out_pitch, d_axis, low, high,
        rounding, [=](const int l) { return dst + b * d_batch + o * d_outer + (row0 + l) * d_row; });
}
