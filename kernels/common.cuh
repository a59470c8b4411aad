// common.cuh - the types, how a voxel is read, and the one place where a sum becomes a voxel.
//
// A kernel is specialised by types and by nothing else. The loader puts the real typedefs in front of the text;
// where nobody did, these defaults let every file compile alone: nvcc -cubin -arch=sm_90 kernels/FILE.cu
#pragma once

#ifndef GPURESAMPLE_TYPES
#define GPURESAMPLE_TYPES
struct half_t;
typedef short src_t;  // voxels read
typedef float dst_t;  // voxels written
typedef float acc_t;  // sums and weights
typedef int idx_t;    // offsets: 64 bits only where a volume needs them
#endif

// A 16-bit float as bits: the conversions are one instruction each, so no header of the toolkit is needed.
struct half_t {
    unsigned short bits;
};

#ifdef __CUDACC__
// By their bits: the compiler's own words for them are nvcc's alone, NVRTC has none.
#define NOT_A_NUMBER __int_as_float(0x7fc00000)
#define ENDLESS __int_as_float(0x7f800000)

static __device__ __forceinline__ float half_to_float(const unsigned short bits)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}

static __device__ __forceinline__ unsigned short float_to_half(const float value)
{
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}

// Shared memory whose size the launch decides.
#define DYNAMIC_SHARED(type, name)                                 \
    extern __shared__ __align__(16) unsigned char shared_memory[]; \
    type *name = (type *)shared_memory
#endif

// Four neighbours that one instruction moves (two instructions, for 8-byte types), and two.
template <class T> struct __align__(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) four_t {
    T at[4];
};
template <class T> struct __align__(2 * sizeof(T)) two_t {
    T at[2];
};
typedef two_t<src_t> src2_t;
typedef four_t<src_t> src4_t;
typedef two_t<dst_t> dst2_t;
typedef four_t<dst_t> dst4_t;
typedef four_t<acc_t> acc4_t;

template <class T> static __device__ __forceinline__ acc_t load(const T voxel)
{
    return (acc_t)voxel;
}

static __device__ __forceinline__ acc_t load(const half_t voxel)
{
    return (acc_t)half_to_float(voxel.bits);
}

// A voxel as it is compared: labels never become another type.
template <class T> static __device__ __forceinline__ T key(const T voxel)
{
    return voxel;
}

static __device__ __forceinline__ float key(const half_t voxel)
{
    return half_to_float(voxel.bits);
}

template <class T> static __device__ __forceinline__ T convert(const acc_t value, const T *)
{
    return (T)value;
}

static __device__ __forceinline__ half_t convert(const acc_t value, const half_t *)
{
    half_t voxel;
    voxel.bits = float_to_half((float)value);
    return voxel;
}

// A voxel as it is. Copies have one type on both sides; a text with other types has to compile, too.
template <class T> static __device__ __forceinline__ T same(const T voxel, const T *)
{
    return voxel;
}

template <class S, class T> static __device__ __forceinline__ T same(const S voxel, const T *to)
{
    return convert(load(voxel), to);
}

// Sums begin at -0, the one number that changes nothing it is added to: a copied -0 stays -0.
#define NOTHING (-(acc_t)0)

// How numbers become voxels, as engines/packing.py says it.
#define AS_IT_IS 0     // floats
#define NEAREST 1      // half to even
#define TOWARD_ZERO 2
#define HALF_UP 3      // conversions alone (convert.cu)
#define AWAY 4         // to nearest, half away from zero

// How a sum becomes a voxel, as kernels are told it.
//
// It is kept within [least, most], multiplied by `scale`, and `lift` is added; NaN stays NaN. (-infinity, infinity, 1,
// -0) change no bit. `rounding` is one of the above. Integers saturate at [low, high], the smallest and largest acc_t
// that are stored; NaN becomes 0.
struct store_t {
    acc_t low, high, least, most, scale, lift;
    int rounding;
};
#define STORE_PARAMETERS const store_t how
#define STORE_ARGUMENTS how

// The only place where a sum becomes a voxel.
static __device__ __forceinline__ dst_t store(acc_t value, const store_t &how)
{
    value = value < how.least ? how.least : value;
    value = value > how.most ? how.most : value;
    value = value * how.scale + how.lift;
    if (how.rounding != AS_IT_IS) {
        value = value == value ? value : (acc_t)0;
        value = value > how.low ? value : how.low;
        value = value < how.high ? value : how.high;
        value = how.rounding == NEAREST ? rint(value) : how.rounding == TOWARD_ZERO ? trunc(value) : round(value);
    }
    return convert(value, (const dst_t *)0);
}

// Where a batch of volumes lies, as kernels are told it that make one voxel, or a few, from each index: its sizes, and
// the strides of what is read (s_*) and of what is written (d_*).
struct batch_t {
    idx_t n_batch;
    int n_z, n_y, n_x;
    idx_t s_batch, s_z, s_y, s_x;
    idx_t d_batch, d_z, d_y, d_x;
};

// A voxel of a batch.
struct voxel_t {
    idx_t b;
    int z, y, x;
};

// The voxel that a thread makes, in rows of n_x of them. Threads past the last one have b >= n_batch.
static __device__ __forceinline__ voxel_t own_voxel(const batch_t &at, const int n_x)
{
    const idx_t t = (idx_t)blockIdx.x * blockDim.x + threadIdx.x;
    voxel_t it;
    it.x = (int)(t % n_x);
    it.y = (int)(t / n_x % at.n_y);
    it.z = (int)(t / n_x / at.n_y % at.n_z);
    it.b = t / n_x / at.n_y / at.n_z;
    return it;
}
