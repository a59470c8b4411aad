"""Numba's compiler with a cache that many processes may fill at once; instructions that Numba has no words for.

Numba numbers the files of its cache by reading an index, adding a line and writing it back. Two loader workers that
compile different voxel types of one kernel in the same moment take the same number, and one finds the other's code
under its name. Here whoever saves holds a lock on the cache's folder.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

try:
    import fcntl
except ImportError:  # Windows, where workers are spawned one after the other
    fcntl = None  # type: ignore[assignment]

LOCK = "gpuresample.lock"


@contextmanager
def alone_in(folder: str) -> Iterator[None]:
    """Alone in a folder, if the system can; a folder that cannot be written is Numba's to complain about."""
    try:
        os.makedirs(folder, exist_ok=True)
        handle = os.open(os.path.join(folder, LOCK), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield
        return
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def njit(*, inner: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit`, saving under a lock, and compiling no more than is called.

    A third of the time that compiling takes goes into wrappers: for C, which nobody calls here, and for Python, which
    an `inner` function has none of: only other kernels call it.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(no_cfunc_wrapper=True, no_cpython_wrapper=inner, **options)(function)
        cache: Any = getattr(dispatcher, "_cache", None)
        save = getattr(cache, "save_overload", None)
        if options.get("cache") and save is not None:

            @functools.wraps(save)
            def save_alone(*args: Any, **keywords: Any) -> Any:
                with alone_in(cache.cache_path):
                    return save(*args, **keywords)

            cache.save_overload = save_alone
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
