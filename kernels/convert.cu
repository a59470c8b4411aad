// convert - every voxel in another type.
//
//     dst[b, z, y, x] = settle(factor * src[b, z, y, x])
//
// Integers saturate and never pass through a float on their way to integers: labels above 2^53 survive. Floats become
// integers rounded as asked, NaN becomes 0. Whatever is a float on either side may be scaled (block means).
//
//   v1  convert  One thread per voxel, neighbours along the destination's memory.
#include "common.cuh"

template <class T> struct is_whole { static const bool yes = true; };
template <> struct is_whole<float> { static const bool yes = false; };
template <> struct is_whole<double> { static const bool yes = false; };
template <> struct is_whole<half_t> { static const bool yes = false; };

template <class T> static __device__ __forceinline__ T smallest()
{
    return (T)-1 < (T)0 ? (T)(1ull << (8 * sizeof(T) - 1)) : (T)0;
}

template <class T> static __device__ __forceinline__ T largest()
{
    return (T)(~0ull >> (64 - 8 * sizeof(T) + ((T)-1 < (T)0)));
}

static __device__ __forceinline__ unsigned bits_of(const float value)
{
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Rounded once: by way of the float next to the value on the side of an odd last bit, from where the second rounding
// goes where one alone would.
static __device__ __forceinline__ half_t to_half(const double value)
{
    float near = (float)value;
    if (near == near && (double)near != value && (bits_of(near) & 1) == 0) {
        // The neighbour towards the value; in magnitude, floats are ordered as their bits are.
        const bool away = fabs(value) > fabs((double)near);
        const unsigned bits = bits_of(near) + (away ? 1 : -1);
        memcpy(&near, &bits, sizeof near);
    }
    half_t voxel;
    voxel.bits = float_to_half(near);
    return voxel;
}

static __device__ __forceinline__ double wide(const half_t voxel)
{
    return (double)half_to_float(voxel.bits);
}

template <class S> static __device__ __forceinline__ double wide(const S voxel)
{
    return (double)voxel;
}

// What becomes of a voxel: by whether the source (S) and the destination (D) are whole numbers.
template <bool S, bool D> struct settle;

template <> struct settle<true, true> {
    template <class From, class To> static __device__ __forceinline__ To of(const From v, const To *, int, double)
    {
        if (v < (From)0) {
            if ((To)-1 > (To)0) return (To)0;
            return (long long)v < (long long)smallest<To>() ? smallest<To>() : (To)v;
        }
        return (unsigned long long)v > (unsigned long long)largest<To>() ? largest<To>() : (To)v;
    }
};

template <> struct settle<false, true> {
    template <class From, class To>
    static __device__ __forceinline__ To of(const From v, const To *, const int rounding, const double factor)
    {
        double value = __dmul_rn(wide(v), factor);
        switch (rounding) {
            case TOWARD_ZERO: value = trunc(value); break;
            case HALF_UP: value = floor(__dadd_rn(value, 0.5)); break;
            case AWAY: value = round(value); break;
            default: value = rint(value);
        }
        if (value >= (double)largest<To>()) return largest<To>();
        if (value <= (double)smallest<To>()) return smallest<To>();
        return value == value ? (To)value : (To)0;
    }
};

template <bool S> struct settle<S, false> {
    template <class From, class To>
    static __device__ __forceinline__ To of(const From v, const To *, int, const double factor)
    {
        // One rounding where nothing is scaled: 64-bit integers have more digits than a double.
        return factor == 1.0 ? (To)v : (To)__dmul_rn(wide(v), factor);
    }
    template <class From>
    static __device__ __forceinline__ half_t of(const From v, const half_t *, int, const double factor)
    {
        return to_half(__dmul_rn(wide(v), factor));
    }
    template <class To>
    static __device__ __forceinline__ To of(const half_t v, const To *, int, const double factor)
    {
        return (To)__dmul_rn(wide(v), factor);
    }
    static __device__ __forceinline__ half_t of(const half_t v, const half_t *, int, const double factor)
    {
        return to_half(__dmul_rn(wide(v), factor));
    }
};

extern "C" __global__ void convert_voxels(
    const src_t *__restrict__ src,  // [batch, z, y, x], at strides s_*
    dst_t *__restrict__ dst,        // [batch, z, y, x], at strides d_*
    const batch_t at,
    const int rounding,   // of floats that become whole: NEAREST, TOWARD_ZERO, HALF_UP, AWAY
    const double factor)  // 1 unless the source or the destination is a float
{
    const voxel_t it = own_voxel(at, at.n_x);
    if (it.b >= at.n_batch) return;
    const src_t voxel = src[it.b * at.s_batch + it.z * at.s_z + it.y * at.s_y + it.x * at.s_x];
    dst[it.b * at.d_batch + it.z * at.d_z + it.y * at.d_y + it.x * at.d_x] =
        settle<is_whole<src_t>::yes, is_whole<dst_t>::yes>::of(voxel, (const dst_t *)0, rounding, factor);
}
