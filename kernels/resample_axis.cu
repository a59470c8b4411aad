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
//   v4  resample_axis_plane  v2 along one axis and then the next, the contiguous one, in one kernel: two tables, y
//                            and then x. What lies between two passes is written once and read once in global memory;
//                            here a block makes the 32 rows that it needs in shared memory, column by column: rows lie
//                            side by side there, so that one load has a sample of 4 rows, and feeds 16 multiply-adds
//                            where v3 has 4. Blocks side by side read and make the columns at their seams twice, which
//                            is the price: it grows with the number of taps.
//
// The launcher picks the version: v1 to v3 by `choose` in gpuresample/engines/cuda/axis.py, v4 by `fuses` in
// tiles.py.
#include "common.cuh"

#define TILE_I 4     // outputs along the axis that a thread makes
#define TILE_J 4     // columns that a thread of v2 makes
#define LANES 32     // threads side by side: columns / TILE_J in v2, lines in v3
#define GROUP 8      // tiles along the axis that a block works on at once
#define STRIP 128    // columns that a warp of v4 makes at once: LANES * TILE_J
#define FOUR 4       // tiles along the second axis that a warp of v4 makes at once
#define BETWEEN_PITCH 36  // sums from a column between v4's passes to the next: fours of rows keep to 16 bytes
#define KEPT 64      // columns, at most, that a block of v4 keeps from turn to turn
#define OUT_PITCH 33 // odd: outputs of GROUP tiles from a staged line to the next

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
    STORE_PARAMETERS,
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
    dst[b * d_batch + o * d_outer + i * d_axis + j * d_inner] = store(total, STORE_ARGUMENTS);
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

// How a thread reads its 4 columns of one sample along the axis: neighbours at once, or wherever they are. The latter
// is asked for a column that there is even where there are fewer than 4: it repeats the last one, whose sums are not
// stored then, so that no load depends on a comparison.
struct Fours {
    enum { AT_ONCE = 4 };  // samples whose loads are under way at once

    __device__ __forceinline__ void operator()(const src_t *p, acc_t sample[TILE_J]) const
    {
        const src4_t four = *(const src4_t *)p;
#pragma unroll
        for (int c = 0; c < TILE_J; c++) sample[c] = load(four.at[c]);
    }
};

struct Pairs {
    enum { AT_ONCE = 2 };

    __device__ __forceinline__ void operator()(const src_t *p, acc_t sample[TILE_J]) const
    {
#pragma unroll
        for (int c = 0; c < TILE_J; c += 2) {
            const src2_t two = *(const src2_t *)(p + c * LANES);
            sample[c] = load(two.at[0]);
            sample[c + 1] = load(two.at[1]);
        }
    }
};

struct Lone {
    enum { AT_ONCE = 2 };
    idx_t at[TILE_J];

    __device__ __forceinline__ Lone(const int columns, const idx_t s_column)
    {
#pragma unroll
        for (int c = 0; c < TILE_J; c++) at[c] = (c < columns ? c : columns - 1) * s_column;
    }

    __device__ __forceinline__ void operator()(const src_t *p, acc_t sample[TILE_J]) const
    {
#pragma unroll
        for (int c = 0; c < TILE_J; c++) sample[c] = load(p[at[c]]);
    }
};

template <bool ASK, class Read>
static __device__ __forceinline__ void add_samples(
    acc_t total[TILE_I][TILE_J],
    const src_t *&p,          // the next sample of the window at this thread's first column
    const acc4_t *__restrict__ &weight,    // the weights of all TILE_I rows for it
    const int n, const idx_t s_axis, const Read &read)
{
#pragma unroll Read::AT_ONCE
    for (int k = 0; k < n; k++) {
        const acc4_t w = weight[k];
        acc_t sample[TILE_J];
        read(p + k * s_axis, sample);
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
#pragma unroll
            for (int c = 0; c < TILE_J; c++) add<ASK>(total[r][c], w.at[r], sample[c]);
        }
    }
    if (n > 0) {
        p += n * s_axis;
        weight += n;
    }
}

// Of 4 columns that lie `apart`, how many there are where the first has `left` columns to the end.
static __device__ __forceinline__ int columns_of(const idx_t left, const idx_t apart)
{
    int columns = 1;
#pragma unroll
    for (int c = 1; c < TILE_J; c++) columns += c * apart < left;
    return columns;
}

// A tile's sums for 4 columns.
template <class Read>
static __device__ __forceinline__ void add_window(
    acc_t total[TILE_I][TILE_J], const src_t *p, const acc4_t *__restrict__ weight, const int core, const int edge,
    const int end, const idx_t s_axis, const Read &read)
{
#pragma unroll
    for (int r = 0; r < TILE_I; r++) {
#pragma unroll
        for (int c = 0; c < TILE_J; c++) total[r][c] = NOTHING;
    }
    add_samples<true>(total, p, weight, core, s_axis, read);
    add_samples<false>(total, p, weight, edge - core, s_axis, read);
    add_samples<true>(total, p, weight, end - edge, s_axis, read);
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
    STORE_PARAMETERS,
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
    const int columns = columns_of(n_inner - j, apart);

    const int start = tile[t * 4], core = tile[t * 4 + 1], edge = tile[t * 4 + 2], end = tile[t * 4 + 3];
    const src_t *p = src + b * s_batch + o * s_outer + start * s_axis + j * s_inner;
    const acc4_t *w = weight + (idx_t)t * window;
    acc_t total[TILE_I][TILE_J];
    if (wide)
        add_window(total, p, w, core, edge, end, s_axis, Fours());
    else
        add_window(total, p, w, core, edge, end, s_axis, Lone(columns, LANES * s_inner));

    dst_t *d = dst + b * d_batch + o * d_outer + j * d_inner;
#pragma unroll
    for (int r = 0; r < TILE_I; r++) {
        const int i = t * TILE_I + r;
        if (i >= n_dst) break;
        dst4_t four;
#pragma unroll
        for (int c = 0; c < TILE_J; c++) four.at[c] = store(total[r][c], STORE_ARGUMENTS);
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
    const acc_t *&p,          // the next sample of the window in this thread's line
    const acc4_t *__restrict__ &weight,    // the weights of all TILE_I rows for it
    const int n)
{
#pragma unroll 4
    for (int k = 0; k < n; k++, p++, weight++) {
        const acc4_t w = *weight;
        const acc_t sample = *p;
#pragma unroll
        for (int r = 0; r < TILE_I; r++) add<ASK>(total[r], w.at[r], sample);
    }
}

// What v3 and v4 do with lines in shared memory: GROUP tiles, their results to where lanes are outputs again, the next.
template <class Line>
static __device__ __forceinline__ void add_lines(
    const acc_t *staged,                // [LANES, pitch]: lines, from sample `begin` on
    const int *__restrict__ tile,       // [n_tiles, 4]
    const acc4_t *__restrict__ weight,  // [n_tiles, window]
    acc_t *results, acc_t *spare,       // [LANES, OUT_PITCH] each
    const int here,                     // lines that there are
    const int n_dst, const int group, const int begin, const int window, const int tiles, const int pitch,
    const int direct, const idx_t d_axis, STORE_PARAMETERS,
    const Line &begins)  // where in dst a line begins
{
    // Warps make tiles; the lanes of a warp are lines.
    const int l = threadIdx.x;
    dst_t *e[LANES / GROUP];
#pragma unroll
    for (int u = 0; u < LANES / GROUP; u++) {
        const int m = direct ? l : u * GROUP + threadIdx.y;
        e[u] = begins(m < here ? m : 0);
    }
    const int t_end = group * tiles + tiles, n_tiles = (n_dst + TILE_I - 1) / TILE_I;
    const int last = t_end < n_tiles ? t_end : n_tiles;
    for (int t0 = group * tiles; t0 < last; t0 += GROUP) {
        const int t = t0 + threadIdx.y;
        if (t < last && l < here) {
            const acc_t *p = staged + l * pitch + tile[t * 4] - begin;
            const acc4_t *w = weight + (idx_t)t * window;
            const int core = tile[t * 4 + 1], edge = tile[t * 4 + 2], end = tile[t * 4 + 3];
            acc_t total[TILE_I];
#pragma unroll
            for (int r = 0; r < TILE_I; r++) total[r] = NOTHING;
            add_staged<true>(total, p, w, core);
            add_staged<false>(total, p, w, edge - core);
            add_staged<true>(total, p, w, end - edge);
#pragma unroll
            for (int r = 0; r < TILE_I; r++) {
                const int i = t * TILE_I + r;
                if (!direct)
                    results[l * OUT_PITCH + threadIdx.y * TILE_I + r] = total[r];
                else if (i < n_dst)
                    e[0][i * d_axis] = store(total[r], STORE_ARGUMENTS);
            }
        }
        if (direct) continue;
        __syncthreads();

        // Warps write lines, again along the line. What they read is next written after the barrier after the next.
        const int i = t0 * TILE_I + threadIdx.x;
        if (i < n_dst && i < last * TILE_I) {
#pragma unroll
            for (int u = 0; u < LANES / GROUP; u++) {
                const int m = u * GROUP + threadIdx.y;
                if (m < here) e[u][i * d_axis] = store(results[m * OUT_PITCH + threadIdx.x], STORE_ARGUMENTS);
            }
        }
        acc_t *const other = results;
        results = spare;
        spare = other;
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
    STORE_PARAMETERS,
    const int window,
    const int tiles,      // tiles of a block
    const int pitch,      // odd: samples from a staged line to the next
    const int direct,     // lines lie side by side in dst: results are stored from registers
    const int wide)       // lines start at whole, aligned fours
{
    DYNAMIC_SHARED(acc_t, staged);            // [LANES, pitch]
    acc_t *results = staged + LANES * pitch;  // [2, LANES, OUT_PITCH]
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
        staged, tile, weight, results, results + LANES * OUT_PITCH, here, n_dst, group, begin, window, tiles, pitch,
        direct, d_axis, STORE_ARGUMENTS, [=](const int l) {
            const idx_t line = line0 + l, j = line % n_inner, o = line / n_inner % n_outer, b = line / n_inner / n_outer;
            return dst + b * d_batch + o * d_outer + j * d_inner;
        });
}

// ---------------------------------------------------------------------------------------------------------------
// v4: one axis, then the contiguous one

// Samples of 4 rows that follow each other in shared memory, for 4 outputs of each: 16 multiply-adds for one load of
// samples and one of weights.
template <bool ASK>
static __device__ __forceinline__ void add_between(
    acc_t total[TILE_I][TILE_J],
    const acc4_t *&p,                    // the next sample of the window in this thread's rows
    const acc4_t *__restrict__ &weight,  // the weights of all TILE_I outputs for it; those of FOUR tiles lie together
    const int n)
{
#pragma unroll 2
    for (int k = 0; k < n; k++, p += BETWEEN_PITCH / TILE_J, weight += FOUR) {
        const acc4_t w = *weight, sample = *p;
#pragma unroll
        for (int r = 0; r < TILE_I; r++) {
#pragma unroll
            for (int c = 0; c < TILE_J; c++) add<ASK>(total[r][c], w.at[r], sample.at[c]);
        }
    }
}

// Four blocks at once, where 64 registers for a thread are enough. (For sm_75 and sm_80 they are not, and for single
// bytes they are two too few.)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 860
#define BLOCKS 2
#else
#define BLOCKS (sizeof(src_t) >= 4 || sizeof(acc_t) != 4 ? 2 : sizeof(src_t) == 2 ? 4 : 3)
#endif
#define BOUNDS __launch_bounds__(LANES *GROUP, BLOCKS)

// Four neighbours of a row, by as few stores as their address allows: one; two pairs; or a pair amid two.
static __device__ __forceinline__ void put(dst_t *e, const dst4_t &four)
{
    const size_t place = (size_t)e;
    if (place % sizeof(dst2_t) != 0) {
        e[0] = four.at[0];
        *(dst2_t *)(e + 1) = {four.at[1], four.at[2]};
        e[3] = four.at[3];
    } else if (place % alignof(dst4_t) != 0) {
        *(dst2_t *)e = {four.at[0], four.at[1]};
        *(dst2_t *)(e + 2) = {four.at[2], four.at[3]};
    } else {
        *(dst4_t *)e = four;
    }
}

extern "C" __global__ void BOUNDS resample_axis_plane(
    const src_t *__restrict__ src,          // [batch, outer, n_src_row, n_src], at strides s_*; s_axis is 1 for speed
    const int *__restrict__ row_tile,       // [n_row_tiles, 4]: the first axis's tiles, as in v2
    const acc4_t *__restrict__ row_weight,  // [n_row_tiles, row_window], as in v2
    const int *__restrict__ tile,           // [n_fours, FOUR, 4]: the second axis's tiles; all of a four have the same
                                            // samples to where all rows tap, to where they cease to, to the end
    const acc4_t *__restrict__ weight,      // [n_fours, window, FOUR]
    const int *__restrict__ turn,           // [n_turns, 4]: the first column that its fours read; columns from where to
                                            // where are made for it (those before are there already); fours to here
    const int *__restrict__ turns,          // [n_groups + 1]: a block's first turn
    dst_t *__restrict__ dst,                // [batch, outer, n_rows, n_dst], at strides d_*
    const idx_t n_outer, const int n_rows, const int n_dst,  // as many planes as the grid has room for
    const idx_t s_batch, const idx_t s_outer, const idx_t s_row, const idx_t s_axis,
    const idx_t d_batch, const idx_t d_outer, const idx_t d_row, const idx_t d_axis,
    STORE_PARAMETERS,
    const int row_window,
    const int window,
    const int groups,     // blocks along the second axis
    const int n_columns,  // samples along the second axis
    const int pairs)      // s_axis is 1, and rows start at whole, aligned pairs
{
    DYNAMIC_SHARED(acc_t, between);  // [columns, BETWEEN_PITCH]: as wide as sums are, as between two passes
    // Numbers without a sign: their divisions take fewer instructions.
    const int n_row_tiles = (n_rows + TILE_I - 1) / TILE_I;
    const unsigned n_strips = (n_row_tiles + GROUP - 1) / GROUP, n_groups = (unsigned)groups;
    const int group = (int)(blockIdx.x % n_groups), strip = (int)(blockIdx.x / n_groups % n_strips);
    const unsigned plane = blockIdx.x / n_groups / n_strips, outer = (unsigned)n_outer;
    const idx_t o = plane % outer, b = plane / outer;
    const int row0 = strip * LANES;
    const idx_t from = b * s_batch + o * s_outer, to = b * d_batch + o * d_outer;

    const int late = n_columns / 2 * 2 - STRIP, t = strip * GROUP + threadIdx.y;
    // In the first part a thread has 4 rows, in the second, too, but others.
    acc_t *mine = between + threadIdx.y * TILE_I;
    for (int u = turns[group]; u < turns[group + 1]; u++) {
        const int begin = turn[u * 4], made = turn[u * 4 + 1], end = turn[u * 4 + 2], f_end = turn[u * 4 + 3];
        // Columns that the turn before has made, and this one needs, too: to the front.
        const int n = made - begin;
        if (n > 0) {
            const int by = begin - turn[u * 4 - 4];
            acc4_t kept[KEPT / LANES];
#pragma unroll
            for (int c = 0; c < KEPT / LANES; c++) {
                const int k = c * LANES + threadIdx.x;
                kept[c] = *(const acc4_t *)(mine + (k < n ? k + by : 0) * BETWEEN_PITCH);
            }
            __syncthreads();
#pragma unroll
            for (int c = 0; c < KEPT / LANES; c++) {
                const int k = c * LANES + threadIdx.x;
                if (k < n) *(acc4_t *)(mine + k * BETWEEN_PITCH) = kept[c];
            }
        } else {
            __syncthreads();
        }


        // Warps make 4 rows each; the lanes of a warp are columns, or pairs of them, so that loads are one piece and
        // stores hardly meet in a bank. (Fours of columns would meet in one.) Pairs come in whole strips: the last one
        // begins early, or ends late, and what it makes of columns that are others' is not stored.
        for (int j0 = made; t < n_row_tiles && j0 < end; j0 += STRIP) {
            const bool whole = pairs && late >= 0 && (j0 <= late || end <= late + STRIP);
            const int j = whole ? (j0 < late ? j0 : late) + 2 * threadIdx.x : j0 + threadIdx.x;
            if (j >= end && !whole) break;
            const int columns = whole ? TILE_J : columns_of(end - j, LANES);
            const int core = row_tile[t * 4 + 1], edge = row_tile[t * 4 + 2], last = row_tile[t * 4 + 3];
            const src_t *p = src + from + row_tile[t * 4] * s_row + j * s_axis;
            const acc4_t *w = row_weight + (idx_t)t * row_window;
            acc_t total[TILE_I][TILE_J];
            if (whole)
                add_window(total, p, w, core, edge, last, s_row, Pairs());
            else
                add_window(total, p, w, core, edge, last, s_row, Lone(columns, LANES * s_axis));
#pragma unroll
            for (int c = 0; c < TILE_J; c++) {
                const int k = j + (whole ? c / 2 * 2 * LANES + c % 2 : c * LANES);
                acc4_t four;
#pragma unroll
                for (int r = 0; r < TILE_I; r++) four.at[r] = total[r][c];
                if (c < columns && k >= j0 && k < end) *(acc4_t *)(mine + (k - begin) * BETWEEN_PITCH) = four;
            }
        }
        __syncthreads();

        // Warps make FOUR tiles each, of all rows: a lane has 4 rows, so that a load of weights, which 8 lanes share,
        // feeds 16 multiply-adds. The outputs of a row are whole pieces of global memory.
        for (int f = (u == 0 ? 0 : turn[u * 4 - 1]) + threadIdx.y; f < f_end; f += GROUP) {
            const int m = f * FOUR + threadIdx.x / (LANES / FOUR);
            const int line = threadIdx.x % (LANES / FOUR) * TILE_J, here = n_rows - row0 - line;
            const int core = tile[m * 4 + 1], edge = tile[m * 4 + 2], last = tile[m * 4 + 3];
            const acc4_t *p = (const acc4_t *)(between + (tile[m * 4] - begin) * BETWEEN_PITCH + line);
            const acc4_t *w = weight + (idx_t)f * window * FOUR + threadIdx.x / (LANES / FOUR);
            acc_t total[TILE_I][TILE_J];
#pragma unroll
            for (int r = 0; r < TILE_I; r++) {
#pragma unroll
                for (int c = 0; c < TILE_J; c++) total[r][c] = NOTHING;
            }
            add_between<true>(total, p, w, core);
            add_between<false>(total, p, w, edge - core);
            add_between<true>(total, p, w, last - edge);
            const int i = m * TILE_I;
#pragma unroll
            for (int c = 0; c < TILE_J; c++) {
                if (c >= here) break;
                dst_t *e = dst + to + (row0 + line + c) * d_row + i * d_axis;
                dst4_t four;
#pragma unroll
                for (int r = 0; r < TILE_I; r++) four.at[r] = store(total[r][c], STORE_ARGUMENTS);
                if (d_axis == 1 && i + TILE_I <= n_dst) {
                    put(e, four);
                } else {
#pragma unroll
                    for (int r = 0; r < TILE_I; r++)
                        if (i + r < n_dst) e[r * d_axis] = four.at[r];
                }
            }
        }
    }
}
