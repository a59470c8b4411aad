"""Numba's compiler with our own cache of its code, and memory that is asked for ahead."""

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
