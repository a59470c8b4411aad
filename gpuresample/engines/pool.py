"""The CPU engine's threads: one pool per process, made when first needed, remade in a forked child."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager

ENVIRONMENT = "GPURESAMPLE_NUM_THREADS"

_lock = threading.Lock()
_pool: ThreadPoolExecutor | None = None
_chosen: int | None = None
_limit = threading.local()


def _after_fork() -> None:
    # A child has none of its parent's threads, and the lock may have been held by one of them.
    global _pool, _lock
    _pool = None
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _default_threads() -> int:
    text = os.environ.get(ENVIRONMENT)
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{ENVIRONMENT} must be a whole number of at least 1, got {text!r}")
        return int(text)
    return max(1, cores() // _workers(cores()))


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _workers(cores: int) -> int:
    """Processes that share the cores with this one. Nothing is imported to know it: who has workers has the modules."""
    data = sys.modules.get("torch.utils.data")
    info = data.get_worker_info() if data is not None else None
    if info is not None:
        return int(info.num_workers)
    processes = sys.modules.get("multiprocessing.process")
    if processes is not None and processes.parent_process() is not None:
        # How many brothers it has, a child is not told: usually as many as there are cores.
        return cores
    return 1


def get_num_threads() -> int:
    """Threads the CPU engine works with in this process.

    Returns
    -------
    int
        The number given to `set_num_threads`, else the environment variable `GPURESAMPLE_NUM_THREADS`, else the
        cores this process may run on: divided by the number of workers in a torch DataLoader's worker, 1 in other
        children of `multiprocessing`.

    Raises
    ------
    ValueError
        If the environment variable is not a whole number of at least 1.
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
        At least 1; None returns to the default.

    Raises
    ------
    ValueError, TypeError
        If `n` is not a whole number of at least 1.
    """
    global _pool, _chosen
    if n is not None and (isinstance(n, bool) or not hasattr(n, "__index__")):
        raise TypeError(f"n must be a whole number of at least 1 or None, got {n!r}")
    if n is not None and n < 1:
        raise ValueError(f"n must be a whole number of at least 1 or None, got {n!r}")
    with _lock:
        _chosen = None if n is None else int(n)
        old, _pool = _pool, None
    if old is not None:
        old.shutdown(wait=False)


def run_items(job: Callable[[int], None], n_items: int) -> None:
    """Call `job(item)` for every item, on all threads; the calling thread works too.

    Items are handed out one by one, so uneven ones balance. An exception, Ctrl-C included, stops the handing
    out, waits for what is running and is raised here.
    """
    n_threads = min(get_num_threads(), n_items)
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


def _get_pool() -> ThreadPoolExecutor:
    global _pool
    with _lock:
        if _pool is None:
            # Not by what one calling thread allows itself: all share the pool.
            n = _chosen if _chosen is not None else _default_threads()
            _pool = ThreadPoolExecutor(max(n - 1, 1), thread_name_prefix="gpuresample")
        return _pool
