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
