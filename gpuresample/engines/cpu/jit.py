"""Numba's compiler with our own cache of its code; instructions that Numba has no words for."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from gpuresample.engines.cpu.code_cache import CodeCache

# Seconds that a fork waits for what another thread compiles. A child that is forked meanwhile waits for ever for a lock
# whose holder it does not have.
FORK_WAITS = 60.0


class _Fork:
    held = False


def _before_fork() -> None:
    _Fork.held = global_compiler_lock._lock.acquire(timeout=FORK_WAITS)


def _after_fork() -> None:
    if _Fork.held:
        global_compiler_lock._lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def njit(*, inner: bool = False, cache: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a cache that cannot fail, compiling no more than is called.

    A third of the time that compiling takes goes into wrappers: for C, which nobody calls here, and for Python, which
    an `inner` function has none of: only other kernels call it.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(no_cfunc_wrapper=True, no_cpython_wrapper=inner, **options)(function)
        if cache and hasattr(dispatcher, "_cache"):  # not where Numba is told to compile nothing
            dispatcher._cache = CodeCache(function)
        return dispatcher

    return compiled


def _prefetching(write: int) -> Callable[..., Any]:
    """A Numba intrinsic of LLVM's `prefetch`, on every CPU; data, into the closest cache."""

    def prefetching(typing_context: Any, array: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            memory = context.make_array(signature.args[0])(context, builder, arguments[0]).data
            pointer, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
            form = ir.FunctionType(ir.VoidType(), [pointer, flag, flag, flag])
            function = cgutils.get_or_insert_function(builder.module, form, "llvm.prefetch.p0i8")
            place = builder.bitcast(builder.gep(memory, [arguments[1]]), pointer)
            builder.call(function, [place, flag(write), flag(3), flag(1)])
            return context.get_dummy_value()

        return types.void(array, types.uint64), generate

    found: Callable[..., Any] = intrinsic(prefetching)
    return found


# Have the line of memory with `array[index]` brought closer, to be read or written soon. `array` is flat and
# contiguous, `index` unsigned. What lies outside the array is not touched, and no fault.
prefetch = _prefetching(0)
prefetch_to_write = _prefetching(1)


@intrinsic  # type: ignore[untyped-decorator]
def cubic_sum(
    typing_context: Any, src: Any, place: Any, sz: Any, sy: Any, fz: Any, fy: Any, fx: Any, powers: Any
) -> Any:
    """4 x 4 x 4 neighbours of `src` from flat offset `place` on, weighed by polynomials in the fractions along z, y, x.

    `src` is flat and contiguous along x, `sz` and `sy` are its other strides; `powers[d, k]` is what the d-th power of
    a fraction adds to tap k's weight. Four taps fill a vector: compilers find the loads, but not that the sums of four
    neighbouring columns are one, and multiply each number by itself.
    """
    number = src.dtype

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, place, sz, sy, fz, fy, fx, powers = arguments
        four = ir.VectorType(context.get_value_type(number), 4)
        lanes = ir.VectorType(ir.IntType(32), 4)
        aligned = number.bitwidth // 8
        nothing = ir.Constant(four, ir.Undefined)
        memory = context.make_array(signature.args[0])(context, builder, source).data
        table = context.make_array(signature.args[7])(context, builder, powers).data

        def load(pointer: Any) -> Any:
            return builder.load(builder.bitcast(pointer, four.as_pointer()), align=aligned)

        def times(a: Any, b: Any) -> Any:
            return builder.fmul(a, b, flags=("contract",))

        def plus(a: Any, b: Any) -> Any:
            return builder.fadd(a, b, flags=("contract",))

        def lane(vector: Any, k: int) -> Any:
            return builder.shuffle_vector(vector, nothing, ir.Constant(lanes, [k] * 4))

        power = [load(builder.gep(table, [ir.IntType(64)(4 * d)])) for d in range(4)]

        def weights(fraction: Any) -> Any:
            u = lane(builder.insert_element(nothing, fraction, ir.IntType(32)(0)), 0)
            return plus(times(plus(times(plus(times(power[3], u), power[2]), u), power[1]), u), power[0])

        wz, wy, wx = weights(fz), weights(fy), weights(fx)
        columns = [lane(wy, k) for k in range(4)]
        total = None
        plane = builder.gep(memory, [place])
        for a in range(4):
            row, part = plane, None
            for b in range(4):
                term = times(columns[b], load(row))
                part = term if part is None else plus(term, part)
                row = builder.gep(row, [sy])
            term = times(lane(wz, a), part)
            total = term if total is None else plus(term, total)
            plane = builder.gep(plane, [sz])
        total = times(total, wx)
        parts = [builder.extract_element(total, ir.IntType(32)(k)) for k in range(4)]
        return plus(plus(parts[0], parts[1]), plus(parts[2], parts[3]))

    index = types.uint64
    return number(src, index, index, index, number, number, number, powers), generate


def _linear_sums(contiguous: bool, voxels: int) -> Callable[..., Any]:
    """`sums(src, place, i, move, sz, sy, sx, fz, fy, fx, out, o)`: so many voxels, interpolated linearly.

    Neighbours of voxel `i` begin at `place[i] + move`; `fz[i]` and kin are its fractions, of the sums' type, and its
    sum goes to `out[o]`; those of the next voxels follow. Weighed along z, then y, then x, and nothing fuses: so a
    voxel has the same bits whatever other voxels it goes through with. Two neighbours along x are one load where they
    lie side by side, and a vector holds those of all voxels: compilers make eight loads of it, or slower gathers.
    """
    n = voxels

    def linear_sums(
        typing_context: Any, src: Any, place: Any, i: Any, move: Any, sz: Any, sy: Any, sx: Any, fz: Any, fy: Any,
        fx: Any, out: Any, o: Any,
    ) -> Any:  # fmt: skip
        number, acc, index = src.dtype, fz.dtype, types.uint64

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            i, move, sz, sy, sx, o = (arguments[k] for k in (2, 3, 4, 5, 6, 11))
            kind, voxel, lane = context.get_value_type(acc), context.get_value_type(number), ir.IntType(32)

            def data(k: int) -> Any:
                return context.make_array(signature.args[k])(context, builder, arguments[k]).data

            memory, places = data(0), builder.gep(data(1), [i])

            def shuffled(a: Any, b: Any, order: Any) -> Any:
                return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(lane, len(order)), list(order)))

            def pair(pointer: Any) -> Any:
                two = ir.VectorType(voxel, 2)
                if contiguous:
                    return builder.load(builder.bitcast(pointer, two.as_pointer()), align=number.bitwidth // 8)
                both = builder.insert_element(ir.Constant(two, ir.Undefined), builder.load(pointer), lane(0))
                return builder.insert_element(both, builder.load(builder.gep(pointer, [sx])), lane(1))

            def converted(values: Any) -> Any:
                form = ir.VectorType(kind, 2 * n)
                if number == acc:
                    return values
                if isinstance(number, types.Integer):
                    signed = number.signed  # type: ignore[attr-defined]
                    return (builder.sitofp if signed else builder.uitofp)(values, form)
                return (builder.fpext if number.bitwidth < acc.bitwidth else builder.fptrunc)(values, form)

            def joined(parts: list[Any]) -> Any:
                while len(parts) > 1:
                    width = 2 * parts[0].type.count
                    parts = [shuffled(a, b, range(width)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
                return parts[0]

            def fractions(k: int, each: int) -> Any:
                form = ir.VectorType(kind, n)
                pointer = builder.bitcast(builder.gep(data(k), [i]), form.as_pointer())
                values = builder.load(pointer, align=acc.bitwidth // 8)
                return values if each == 1 else shuffled(values, values, [m // each for m in range(each * n)])

            def blend(a: Any, b: Any, f: Any) -> Any:
                rest = builder.fsub(ir.Constant(f.type, [1.0] * f.type.count), f)
                return builder.fadd(builder.fmul(rest, a), builder.fmul(f, b))

            corners: list[list[Any]] = [[], [], [], []]
            for m in range(n):
                at = builder.add(builder.load(builder.gep(places, [lane(m)])), move)
                here = builder.gep(memory, [at])
                below = builder.gep(here, [sz])
                for corner, pointer in enumerate((here, builder.gep(here, [sy]), below, builder.gep(below, [sy]))):
                    corners[corner].append(pair(pointer))
            v = [converted(joined(parts)) for parts in corners]
            z, y, x = fractions(7, 2), fractions(8, 2), fractions(9, 1)
            line = blend(blend(v[0], v[2], z), blend(v[1], v[3], z), y)
            even, odd = (shuffled(line, line, range(first, 2 * n, 2)) for first in (0, 1))
            sums = blend(even, odd, x)
            target = builder.bitcast(builder.gep(data(10), [o]), sums.type.as_pointer())
            builder.store(sums, target, align=acc.bitwidth // 8)
            return context.get_dummy_value()

        return types.void(src, place, index, index, index, index, index, fz, fy, fx, out, index), generate

    found: Callable[..., Any] = intrinsic(linear_sums)
    return found


# Voxels that go through together.
TOGETHER = 4
linear_sums = _linear_sums(True, TOGETHER)
linear_sums_apart = _linear_sums(False, TOGETHER)
linear_sum = _linear_sums(True, 1)
linear_sum_apart = _linear_sums(False, 1)
