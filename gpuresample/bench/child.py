"""What can only be measured in a process of its own: start-up and peak memory. Prints one line of JSON.

python -m gpuresample.bench.child import
python -m gpuresample.bench.child first-call
python -m gpuresample.bench.child memory PEER INTERPOLATION FACTOR
"""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from gpuresample.engines.pool import cores


def import_time() -> dict[str, Any]:
    """Seconds of `import gpuresample`, and what it brought along."""
    before = set(sys.modules)
    begin = time.perf_counter()
    import gpuresample

    seconds = time.perf_counter() - begin
    heavy = sorted({"numpy", "numba", "SimpleITK", "torch", "cupy"} & (set(sys.modules) - before))
    return {"version": gpuresample.__version__, "import": seconds, "loaded": heavy}


def first_call() -> dict[str, Any]:
    """Seconds of a first and a second small call, imports included: axis-aligned, then oblique."""
    begin = time.perf_counter()
    import gpuresample as gr

    imported = time.perf_counter()
    import numpy as np

    volume = np.zeros((40, 64, 64), np.int16)
    report = {"import": imported - begin}
    grid = gr.Grid((50, 50, 20), (1.25, 1.25, 2.0), (0.0, 0.0, 0.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    options: dict[str, dict[str, Any]] = {"aligned": {"spacing": (2.0, 1.25, 1.25)}, "oblique": {"like": grid}}
    for name, option in options.items():
        for call in ("first", "second"):
            begin = time.perf_counter()
            gr.resample(volume, **option)
            report[f"{name} {call}"] = time.perf_counter() - begin
    return report


def memory_now(key: str) -> int:
    """Bytes of `VmRSS` or `VmHWM`."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {key}")


def memory(peer: str, interpolation: str, factor: int) -> dict[str, Any]:
    """Peak memory of one call on the reference job, on top of what the process and the input hold already."""
    import numpy as np

    from gpuresample.bench import cases, measure
    from gpuresample.bench.peers import PEERS

    measure.set_threads(cores())
    geometry = cases.REFERENCE if factor == 1 else cases.small(cases.REFERENCE, factor)
    kind = np.float32 if peer == "torch" else np.int16
    # A tiny run first: libraries load and compile what they need, which is not the job's memory.
    tiny = cases.small(cases.REFERENCE, 16)
    PEERS[peer].prepare(cases.Job(cases.ct_like(tiny.source.size[::-1], kind), tiny, interpolation))()
    array = cases.ct_like(geometry.source.size[::-1], kind)
    call = PEERS[peer].prepare(cases.Job(array, geometry, interpolation))
    n_input = array.nbytes
    del array
    peak = peak_of(call)
    n_output = int(np.prod(geometry.target.size)) * np.dtype(kind).itemsize
    return {"peer": peer, "input": n_input, "output": n_output, "extra": peak}


def peak_of(call: Callable[[], Any]) -> int:
    """Bytes that a call takes at its peak, on top of what the process holds before."""
    if (libc := ctypes.util.find_library("c")) is not None:
        ctypes.CDLL(libc).malloc_trim(0)  # freed memory goes back, or the job would use it and look cheaper
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the high-water mark falls back to what is held now
    before = memory_now("VmRSS")
    result = call()
    peak = memory_now("VmHWM") - before
    del result
    return peak


def main(arguments: list[str]) -> None:
    """Run one measurement."""
    what, *rest = arguments
    if what == "memory":
        report = memory(rest[0], rest[1], int(rest[2]))
    else:
        report = {"import": import_time, "first-call": first_call}[what]()
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1:])
