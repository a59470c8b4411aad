"""`gpuresample.ndimage` beside `scipy.ndimage`, in one run on one machine.

    python -m benchmarks.scipy_speed [--shape 256 256 192] [--small] [--json FILE]

Medians of calls on float32: ours of five, SciPy's of one to three, since it takes seconds. Small arrays follow, of
16 x 16 x 16. The targets are for 2 cores. Exit code 1 if one is missed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import scipy
import scipy.ndimage

import gpuresample as gr
import gpuresample.ndimage

# Seconds that SciPy may take for a job all in all, but one call at least.
PATIENCE = 6.0
SMALL = (16, 16, 16)


def turn(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """A rotation about the centre by 0.1, 0.15 and 0.2 rad."""
    out = np.eye(3)
    for axis, angle in enumerate((0.1, 0.15, 0.2)):
        i, j = [a for a in range(3) if a != axis]
        one = np.eye(3)
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        out = out @ one
    centre = (np.array(shape) - 1) / 2
    return out, centre - out @ centre


def jobs(shape: tuple[int, ...]) -> list[tuple[str, float, Callable[[ModuleType, Any], Any]]]:
    """What is timed: a name, how many times as fast it should be, and the call."""
    matrix, offset = turn(shape)
    index = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij"))
    at = np.einsum("ij,j...->i...", matrix, index) + offset[:, None, None, None]
    return [
        ("zoom 0.8, order 3", 30.0, lambda m, a: m.zoom(a, 0.8, order=3)),
        ("affine_transform, order 1", 12.0, lambda m, a: m.affine_transform(a, matrix, offset, order=1)),
        ("affine_transform, order 3", 15.0, lambda m, a: m.affine_transform(a, matrix, offset, order=3)),
        ("map_coordinates, order 1", 8.0, lambda m, a: m.map_coordinates(a, at, order=1)),
        ("gaussian_filter, sigma 2", 10.0, lambda m, a: m.gaussian_filter(a, 2)),
    ]


def small_jobs() -> list[tuple[str, float, Callable[[ModuleType, Any], Any]]]:
    """The same on a small array, and what else is often called on one."""
    return [
        *((name, 1.0, call) for name, _, call in jobs(SMALL)),
        ("shift 0.3, order 1", 1.0, lambda m, a: m.shift(a, 0.3, order=1)),
        ("rotate 20, order 1", 1.0, lambda m, a: m.rotate(a, 20, order=1)),
        ("uniform_filter 3", 1.0, lambda m, a: m.uniform_filter(a, 3)),
        ("spline_filter", 1.0, lambda m, a: m.spline_filter(a)),
    ]


def median(call: Callable[[], Any], patience: float, most: int, least: int = 1) -> float:
    """Median seconds of some calls, after one that is not counted unless that alone took too long."""
    begun = time.perf_counter()
    call()
    first = time.perf_counter() - begun
    if first > patience / 2 and least == 1:
        return first
    times: list[float] = []
    while len(times) < least or (len(times) < most and sum(times) < patience):
        begun = time.perf_counter()
        call()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def measured(shape: tuple[int, ...], small: bool) -> list[dict[str, Any]]:
    """A row for each job."""
    array = np.random.default_rng(0).random(shape, np.float32)
    rows = []
    for name, target, call in small_jobs() if small else jobs(shape):
        found, expected = call(gpuresample.ndimage, array), call(scipy.ndimage, array)
        ours = median(partial(call, gpuresample.ndimage, array), 1.0 if small else 3.0, 200 if small else 5, 3)
        theirs = median(partial(call, scipy.ndimage, array), 1.0 if small else PATIENCE, 200 if small else 3)
        rows.append(
            {
                "job": name, "shape": list(shape), "ours": ours, "scipy": theirs, "ratio": theirs / ours,
                "target": target, "difference": float(np.abs(found - expected).max()),
            }
        )  # fmt: skip
        row = rows[-1]
        print(
            f"| {name} | {'x'.join(map(str, shape))} | {1e3 * ours:.2f} | {1e3 * theirs:.2f} | {row['ratio']:.1f} | "
            f"{target:g} | {row['difference']:.1e} |",
            flush=True,
        )
    return rows


def main() -> int:
    """Time all jobs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scipy_speed", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 256, 192))
    parser.add_argument("--small", action="store_true", help="small arrays alone")
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    given = parser.parse_args()
    print(f"SciPy {scipy.__version__}, {gr.get_num_threads()} threads\n")
    print("| call | shape | ours, ms | SciPy, ms | ratio | target | largest difference |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    rows = [] if given.small else measured(tuple(given.shape), small=False)
    rows += measured(SMALL, small=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    return int(any(row["ratio"] < row["target"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
