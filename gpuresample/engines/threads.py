"""The CPU engine's threads: one pool per process, made when first needed, remade in a forked child."""

from __future__ import annotations

import itertools
import math
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import wait

# What this loads, logging among it, has a fork take a lock. It is loaded before `importing` is there: see that.
from concurrent.futures.thread import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from gpuresample.checks import shown, whole
from gpuresample.engines.quota import cpu_quota

# Bytes of an array from which another thread helps to copy it, and the most threads that do. Beside an H200 8 threads
# moved 43 GB/s, 16 threads 46, one 6; each costs some 20 us to call.
COPIED_AT_ONCE = 1 << 20
COPYING_THREADS = 8
ENVIRONMENT = "GPURESAMPLE_NUM_THREADS"
# More threads than any machine has cores.
MOST_THREADS = 4096

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_chosen: int | None = None
_limit = threading.local()

# Held while a module is loaded that calls need and the import of the package does not. A fork waits for it: its child
# would wait for ever for a module that another thread, which it does not have, has begun to load.
#
# logging and concurrent.futures have hooks, too, by which a fork takes a lock of each. The last hook is run first.
# If these modules were loaded after the hook below, a fork could hold their locks and wait here, for a thread that
# waits for one of them. If they were loaded while a fork waits here, it would release locks that it has not taken.
importing = threading.RLock()
# Seconds that a fork waits for what another thread loads or compiles.
FORK_WAITS = 60.0


def held_at_forks(find: Callable[[], Any]) -> None:
    """Have forks take a lock first, for a child would never get one that another thread held when it was forked.

    Parameters
    ----------
    find : callable
        The lock, None where there is none yet.
    """
    # Two threads may fork at once, and one of them may have waited in vain.
    taken = threading.local()

    def before() -> None:
        lock = find()
        taken.lock = lock if lock is not None and lock.acquire(timeout=FORK_WAITS) else None

    def after() -> None:
        lock, taken.lock = getattr(taken, "lock", None), None
        if lock is not None:
            lock.release()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=after, after_in_child=after)


held_at_forks(lambda: importing)


def _in_child() -> None:
    # A child has none of its parent's threads, and the lock may have been held by one of them.
    global _pool, _lock
    _pool = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


def _default_threads() -> int:
    text = os.environ.get(ENVIRONMENT)
    if text:
        # Digits are counted first: Python takes its time to read millions of them.
        if not (text.isdecimal() and len(text) <= len(str(MOST_THREADS)) and 1 <= int(text) <= MOST_THREADS):
            raise ValueError(f"{ENVIRONMENT} must be a whole number from 1 to {MOST_THREADS}, got {shown(text)}")
        return int(text)
    n = cores()
    return max(1, n // _workers(n))


def cores() -> int:
    """Cores that this process may run on, or as many as its container's share of the processors amounts to."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A part of a core is worth a thread; more threads than the quota are all halted for the rest of every period.
    return min(n, math.ceil(quota)) if (quota := cpu_quota()) < n else n


def _workers(cores: int) -> int:
    """Processes that share the cores with this one. Nothing is imported to know it: who has workers has the modules."""
    # Another thread may be loading them at this moment.
    info = getattr(sys.modules.get("torch.utils.data"), "get_worker_info", lambda: None)()
    if info is not None:
        return int(info.num_workers)
    if getattr(sys.modules.get("multiprocessing.process"), "parent_process", lambda: None)() is not None:
        # How many brothers it has, a child is not told: usually as many as there are cores.
        return cores
    return 1


def get_num_threads() -> int:
    """Threads the CPU engine works with in this process.

    Returns
    -------
    int
        The number given to `set_num_threads`, else the environment variable `GPURESAMPLE_NUM_THREADS`, else the
        cores this process may run on, no more than its container's quota of the processors grants: divided by the
        number of workers in a torch DataLoader's worker, 1 in other children of `multiprocessing`.

    Raises
    ------
    ValueError
        If the environment variable is not a whole number from 1 to 4096.
    """
    n = _chosen if _chosen is not None else _default_threads()
    limit = getattr(_limit, "n", None)
    return n if limit is None else min(n, limit)


@contextmanager
def at_most(n: int | None) -> Iterator[None]:
    """At most `n` threads for what the calling thread asks for within; None changes nothing."""
    before = getattr(_limit, "n", None)
    _limit.n = before if n is None else n if before is None else min(n, before)
    try:
        yield
    finally:
        _limit.n = before


def set_num_threads(n: int | None) -> None:
    """Set the number of threads of the CPU engine in this process.

    Parameters
    ----------
    n : int or None
        From 1 to 4096; None returns to the default.

    Raises
    ------
    ValueError, TypeError
        If `n` is not such a number.
    """
    global _pool, _chosen
    chosen = None if n is None else whole("n", n, f"a whole number from 1 to {MOST_THREADS}, or None", 1, MOST_THREADS)
    with _lock:
        _chosen = chosen
        old, _pool = _pool, None
    if old is not None:
        old.shutdown(wait=False)


def run_items(job: Callable[[int], None], n_items: int) -> None:
    """Call `job(item)` for every item, on all threads; the calling thread works too.

    Items are handed out one by one, so uneven ones balance. An exception, Ctrl-C included, stops the handing
    out, waits for what is running and is raised here.
    """
    n_threads = min(get_num_threads(), n_items) if n_items > 1 else n_items
    if n_threads <= 1:
        for item in range(n_items):
            job(item)
        return
    # Every thread walks a stretch of its own before it helps with another's: neighbouring items share pages of
    # the output, and two threads that meet in a new huge page both clear it.
    edges = [n_items * k // n_threads for k in range(n_threads + 1)]
    stretches = [iter(range(lo, hi)) for lo, hi in itertools.pairwise(edges)]
    stop = threading.Event()

    def work(own: int) -> None:
        try:
            for stretch in stretches[own:] + stretches[:own]:
                for item in stretch:
                    if stop.is_set():
                        return
                    job(item)
        except BaseException:
            stop.set()
            raise

    futures = []
    for own in range(1, n_threads):
        try:
            futures.append(_get_pool().submit(work, own))
        except RuntimeError:
            # The pool was just shut down by set_num_threads or at exit: the calling thread does the rest.
            break
    try:
        work(0)
        for future in futures:
            # What the busy pool has not begun is not waited for: every item is done or being done.
            if not future.cancel():
                future.result()
    except BaseException:
        stop.set()
        wait([f for f in futures if not f.cancel()])
        raise


def copy(dst: npt.NDArray[Any], src: npt.NDArray[Any]) -> None:
    """`numpy.copyto` on all threads; both of one shape.

    One thread does not use up the memory's bandwidth, and the first writes to new memory cost it more than the copy.
    """
    wanted = min(dst.nbytes // COPIED_AT_ONCE, get_num_threads(), COPYING_THREADS)
    if wanted <= 1:
        np.copyto(dst, src)
        return
    axis = next((a for a, n in enumerate(dst.shape) if n >= wanted), int(np.argmax(dst.shape)))
    n = min(wanted, dst.shape[axis])
    edges = [dst.shape[axis] * k // n for k in range(n + 1)]
    before = (slice(None),) * axis

    def piece(k: int) -> None:
        part = (*before, slice(edges[k], edges[k + 1]))
        np.copyto(dst[part], src[part])

    run_items(piece, n)


def extremes(array: npt.NDArray[Any]) -> tuple[int | float, int | float]:
    """Smallest and largest value, found by all threads; of floats those that are numbers, NaN if none is."""
    lowest, highest = (np.empty(len(array), array.dtype) for _ in range(2))

    def piece(k: int) -> None:
        lowest[k], highest[k] = array[k].min(), array[k].max()
        if lowest[k] != lowest[k]:
            lowest[k], highest[k] = np.fmin.reduce(array[k], axis=None), np.fmax.reduce(array[k], axis=None)

    run_items(piece, len(array))
    return np.fmin.reduce(lowest).item(), np.fmax.reduce(highest).item()


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Not by what one calling thread allows itself: all share the pool.
            n = _chosen if _chosen is not None else _default_threads()
            _pool = ThreadPoolExecutor(max(n - 1, 1), thread_name_prefix="gpuresample")
        return _pool
