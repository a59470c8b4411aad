// cuda_on_host.h - runs a .cu file on the CPU, so that kernels can be proven where there is no GPU.
//
// g++ compiles this header, then the kernel's own text, as one C++ file. Blocks run one after the other. The threads of
// a block run one after the other on one fibre until one of them meets a barrier; that fibre then waits, and the next
// threads go on on another. So a kernel without barriers is a plain loop, and one with barriers sees the order that hides
// least: all of thread 0 up to the barrier, then all of thread 1. A dropped barrier is a wrong result, not a race.
//
// Dynamic shared memory is filled with a pattern that is NaN as a float before every block.
//
// What a launch answers: 0; BARRIER_MISSED where some threads of a block ended while others waited at a barrier;
// SHARED_OVERRUN where a block wrote past its shared memory.
//
// It is compiled with every kernel for every combination of types, so with g++ it takes next to nothing of the system's
// headers: reading math.h alone takes longer than compiling most kernels.
#pragma once
// Fibres jump from stack to stack. glibc's longjmp ends the process for that where a distribution has the compiler define
// this.
#undef _FORTIFY_SOURCE
#include <stddef.h>
#include <ucontext.h>

#if defined(__GNUC__) && !defined(__clang__)
#define NAN __builtin_nanf("")
#define INFINITY __builtin_inff()
#define signbit __builtin_signbit
extern "C" {
void *malloc(size_t);
void *calloc(size_t, size_t);
void *realloc(void *, size_t);
void *memcpy(void *, const void *, size_t);
void *memset(void *, int, size_t);
int sprintf(char *, const char *, ...);
// Those that leave it as it is which signals are blocked: the others ask the system.
int _setjmp(void *) __attribute__((returns_twice));
void _longjmp(void *, int) __attribute__((noreturn));
double erf(double), fmod(double, double), frexp(double, int *), nextafter(double, double);
float expf(float), frexpf(float, int *), logf(float);
}
// As CUDA and C++ have them: the same name for both types.
#define OF_ONE(name)                 \
    extern "C" double name(double);  \
    extern "C" float name##f(float); \
    static inline float name(const float a) { return name##f(a); }
OF_ONE(ceil)
OF_ONE(fabs)
OF_ONE(floor)
OF_ONE(rint)
OF_ONE(round)
OF_ONE(sqrt)
OF_ONE(trunc)
extern "C" double fmax(double, double), fmin(double, double), ldexp(double, int);
extern "C" float fmaxf(float, float), fminf(float, float), ldexpf(float, int);
static inline float fmax(const float a, const float b) { return fmaxf(a, b); }
static inline float fmin(const float a, const float b) { return fminf(a, b); }
static inline float ldexp(const float a, const int by) { return ldexpf(a, by); }
typedef void *jmp_buf[96] __attribute__((aligned(16)));  // as large as any system's (PowerPC's has 656 bytes)
#else
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#endif

#define __global__ inline  // a kernel that nobody launches is not compiled
#define __device__
#define __restrict__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)

struct dim3 {
    unsigned x, y, z;
};

namespace host {

const int BARRIER_MISSED = 1, SHARED_OVERRUN = 2;
const size_t STACK_BYTES = 1 << 17, FENCE_BYTES = 256;
const unsigned char FRESH = 0xff, FENCE = 0xa5;

// One stack on which threads of a block run, in turn.
//
// A context only begins it, and jumps go on on it: a context asks the system to change stacks, which takes longer than most
// kernels.
struct Fibre {
    jmp_buf place;
    char *stack;
    dim3 thread;
    bool begun, waiting;
};

static dim3 block_index, block_size, grid_size;
static Fibre **fibres;  // made once, used for every block
static size_t n_fibres;
static Fibre *running;
static jmp_buf scheduler;
static unsigned next_thread, n_threads;  // of the block at hand
static void (*body)(void **);
static void **arguments;
static unsigned char *shared;  // fence, shared memory, fence
static unsigned char *shared_memory;

static Fibre *new_fibre()
{
    Fibre *fibre = (Fibre *)calloc(1, sizeof(Fibre));
    fibre->stack = (char *)malloc(STACK_BYTES);
    return fibre;
}

// Back to the scheduler, until the fibre is resumed.
static void pause()
{
    if (_setjmp(running->place) == 0) _longjmp(scheduler, 1);
}

// Runs threads until none is left, of one block after the other.
static void run_threads()
{
    for (;; pause())
        while (next_thread < n_threads) {
            const unsigned t = next_thread++;
            running->thread = {t % block_size.x, t / block_size.x % block_size.y, t / block_size.x / block_size.y};
            body(arguments);
        }
}

static void barrier()
{
    running->waiting = true;
    pause();
}

static void resume(Fibre *fibre)
{
    running = fibre;
    fibre->waiting = false;
    if (_setjmp(scheduler) != 0) return;
    if (running->begun) _longjmp(running->place, 1);
    running->begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = running->stack;
    context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&context, run_threads, 0);
    setcontext(&context);
}

// What waits at a barrier that others never meet waits for ever: its fibre begins anew.
static int missed()
{
    for (size_t f = 0; f < n_fibres; f++) fibres[f]->begun = false;
    return BARRIER_MISSED;
}

static int run_block()
{
    next_thread = 0;
    size_t used = 0;
    // Every thread up to its first barrier, or its end.
    while (next_thread < n_threads) {
        if (used == n_fibres) {
            fibres = (Fibre **)realloc(fibres, ++n_fibres * sizeof(Fibre *));
            fibres[used] = new_fibre();
        }
        resume(fibres[used++]);
    }
    // Fibre 0 stops at the first barrier that a thread meets. If there is one, every thread must wait, on its own fibre.
    bool any = fibres[0]->waiting;
    if (any && (used != n_threads || !fibres[used - 1]->waiting)) return missed();
    while (any) {
        size_t ended = 0;
        for (size_t f = 0; f < used; f++) {
            resume(fibres[f]);
            ended += !fibres[f]->waiting;
        }
        if (ended != 0 && ended != used) return missed();
        any = ended == 0;
    }
    return 0;
}

static bool fence_stands(const size_t bytes)
{
    for (size_t k = 0; k < FENCE_BYTES; k++)
        if (shared[k] != FENCE || shared[FENCE_BYTES + bytes + k] != FENCE) return false;
    return true;
}

static int run_grid(const unsigned blocks, const unsigned x, const unsigned y, const size_t shared_bytes)
{
    grid_size = {blocks, 1, 1};
    block_size = {x, y, 1};
    n_threads = x * y;
    shared = (unsigned char *)realloc(shared, shared_bytes + 2 * FENCE_BYTES);
    memset(shared, FENCE, shared_bytes + 2 * FENCE_BYTES);
    shared_memory = shared + FENCE_BYTES;
    for (unsigned b = 0; b < blocks; b++) {
        block_index = {b, 0, 0};
        memset(shared_memory, FRESH, shared_bytes);
        const int error = run_block();
        if (error) return error;
        if (!fence_stands(shared_bytes)) return SHARED_OVERRUN;
    }
    return 0;
}

// A kernel's parameters as words: p and the pointee's size, or i, f, s (a struct) and the size.
template <class T> struct Parameter {
    static const char KIND = __is_class(T) ? 's' : 'i';
    static const size_t SIZE = sizeof(T);
};
template <class T> struct Parameter<const T> : Parameter<T> {
};
template <class T> struct Parameter<T *> {
    static const char KIND = 'p';
    static const size_t SIZE = sizeof(T);
};
template <> struct Parameter<float> {
    static const char KIND = 'f';
    static const size_t SIZE = sizeof(float);
};
template <> struct Parameter<double> {
    static const char KIND = 'f';
    static const size_t SIZE = sizeof(double);
};

template <class T> static void parameter(char *&words)
{
    words += sprintf(words, "%c%zu ", Parameter<T>::KIND, Parameter<T>::SIZE);
}

template <class... T> static const char *parameters(void (*)(T...))
{
    static char words[sizeof...(T) * sizeof("s18446744073709551615 ") + 1];
    char *end = words;
    (parameter<T>(end), ...);
    return words;
}

// 0, 1, ... as the arguments of a template.
template <size_t... K> struct Places {
};
template <size_t N, size_t... K> struct Count : Count<N - 1, N - 1, K...> {
};
template <size_t... K> struct Count<0, K...> {
    using places = Places<K...>;
};

template <class... T, size_t... K> static void call(void (*kernel)(T...), void **values, Places<K...>)
{
    kernel(*(T *)values[K]...);
}

template <class... T> static void call(void (*kernel)(T...), void **values)
{
    call(kernel, values, typename Count<sizeof...(T)>::places());
}

// Conversions that a GPU does in one instruction, rounding half to even.
static inline float half_to_float(const unsigned short bits)
{
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float value;
    if (exponent == 31)
        value = fraction ? NAN : INFINITY;
    else if (exponent == 0)
        value = ldexpf((float)fraction, -24);
    else
        value = ldexpf((float)(1024 + fraction), exponent - 25);
    return bits >> 15 ? -value : value;
}

static inline unsigned short float_to_half(const float value)
{
    const unsigned short sign = signbit(value) ? 0x8000 : 0;
    if (value != value) return sign | 0x7e00;
    const float size = fabsf(value);
    if (size >= 65520.0f) return sign | 0x7c00;  // half of the last step above the largest half, 65504
    int exponent = -24;
    if (size > 0) frexpf(size, &exponent);
    // Steps of a half are 2^-10 of its leading power of two, but never below 2^-24.
    const int step = exponent - 11 > -24 ? exponent - 11 : -24;
    const int steps = (int)rintf(ldexpf(size, -step));
    if (step == -24) return sign | (unsigned short)steps;
    return sign | (unsigned short)(((step + 24) << 10) + steps);
}

}  // namespace host

using host::float_to_half;
using host::half_to_float;

#define threadIdx (host::running->thread)
#define blockIdx (host::block_index)
#define blockDim (host::block_size)
#define gridDim (host::grid_size)
#define __syncthreads() host::barrier()
#define NOT_A_NUMBER NAN
#define ENDLESS INFINITY
#define DYNAMIC_SHARED(type, name) type *name = (type *)host::shared_memory

// Operations that must not fuse: this file is compiled with -ffp-contract=off.
static inline double __dadd_rn(const double a, const double b) { return a + b; }
static inline double __dsub_rn(const double a, const double b) { return a - b; }
static inline double __dmul_rn(const double a, const double b) { return a * b; }
static inline double __ddiv_rn(const double a, const double b) { return a / b; }
static inline double __dadd_rd(const double a, const double b)
{
    // What the sum is off by, exactly: it is rounded down where it was rounded up.
    const double sum = a + b, part = sum - a, off = (a - (sum - part)) + (b - part);
    return off < 0 ? nextafter(sum, -INFINITY) : sum;
}
static inline long long __double_as_longlong(const double a)
{
    long long bits;
    memcpy(&bits, &a, sizeof bits);
    return bits;
}
static inline int __double2hiint(const double a) { return (int)(__double_as_longlong(a) >> 32); }
static inline int __double2loint(const double a) { return (int)__double_as_longlong(a); }
static inline double __longlong_as_double(const long long bits)
{
    double a;
    memcpy(&a, &bits, sizeof a);
    return a;
}

// Threads take turns: nothing comes between.
static inline unsigned long long atomicAdd(unsigned long long *at, const unsigned long long by)
{
    const unsigned long long before = *at;
    *at += by;
    return before;
}

static inline unsigned long long atomicMax(unsigned long long *at, const unsigned long long by)
{
    const unsigned long long before = *at;
    if (by > before) *at = by;
    return before;
}

// The loader adds one such line per kernel of the file.
#define HOST_LAUNCHER(kernel)                                                                                       \
    extern "C" int launch_##kernel(unsigned blocks, unsigned x, unsigned y, size_t shared_bytes, void **values)     \
    {                                                                                                               \
        host::body = [](void **v) { host::call(kernel, v); };                                                       \
        host::arguments = values;                                                                                   \
        return host::run_grid(blocks, x, y, shared_bytes);                                                          \
    }                                                                                                               \
    extern "C" const char *parameters_##kernel() { return host::parameters(kernel); }
