"""Streams that parts of a work take turns in, so that one computes while another's voxels are on the bus."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from gpuresample.engines.cuda.runtime import Runtime

# Of the free memory, what is used. The rest is for what other programs take meanwhile, and for gaps in the pool.
SHARE = 0.8
# Streams that parts take turns in.
SLOTS = 2

_idle: WeakKeyDictionary[Runtime, dict[Hashable, list[list[Any]]]] = WeakKeyDictionary()
_lock = threading.Lock()


@contextmanager
def streams(runtime: Runtime) -> Iterator[list[Any]]:
    """Streams of the current device, nobody else's meanwhile; all work in them is done afterwards.

    They are kept from call to call, because the memory pool keeps blocks for each of them.
    """
    with _lock:
        kept = _idle.setdefault(runtime, {}).setdefault(runtime.device(), [])
        own = kept.pop() if kept else None
    if own is None:
        own = [runtime.stream() for _ in range(SLOTS)]
    try:
        yield own
    finally:
        # After an error too: the device may still read and write memory that they were given.
        for stream in own:
            with runtime.within(stream):
                runtime.finish(runtime.mark())
        with _lock:
            kept.append(own)
