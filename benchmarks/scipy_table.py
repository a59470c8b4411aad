"""How far `gpuresample.ndimage` is from `scipy.ndimage`: every function, order, border and type.

    python -m benchmarks.scipy_table

Printed is a table of the largest differences in units of the array's range; of integers, how many elements differ, all
of them ties: elements whose sum lies within 1e-9 of a half, which the last digit of SciPy's own sums decides. Exit code
1 if a difference exceeds 2e-6 (float32) or 1e-9 (float64), or an integer differs that is no tie.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy
import scipy.ndimage

import gpuresample.ndimage
from gpuresample.bench.bounds import DOUBLE, SINGLE

MODES = ("nearest", "wrap", "reflect", "mirror", "constant", "grid-wrap", "grid-constant")
BOUNDS = {"float32": SINGLE, "float64": DOUBLE, "int16": 0.0, "uint8": 0.0}
SHAPE = (23, 30, 27)
TIE = 1e-9

Call = Callable[..., Any]


def splines() -> dict[str, Call]:
    """Functions with an order: a call with a module, an array and keywords."""
    random = np.random.default_rng(1)
    at = random.random((3, 20, 21, 22)) * 60 - 15
    matrix = np.eye(3) + random.random((3, 3)) * 0.3
    return {
        "zoom": lambda m, a, **k: m.zoom(a, (1.37, 0.61, 1.9), cval=9, **k),
        "zoom, grid_mode": lambda m, a, **k: m.zoom(a, (1.37, 0.61, 1.9), cval=9, grid_mode=True, **k),
        "shift": lambda m, a, **k: m.shift(a, (1.73, -40.2, 0.31), cval=9, **k),
        "affine_transform": lambda m, a, **k: m.affine_transform(a, matrix, -3.21, (33, 34, 35), cval=9, **k),
        "map_coordinates": lambda m, a, **k: m.map_coordinates(a, at, cval=9, **k),
        "rotate": lambda m, a, **k: m.rotate(a, 33.3, cval=9, **k),
    }


def filters() -> dict[str, Call]:
    """Functions without an order."""
    return {
        "gaussian_filter": lambda m, a, **k: m.gaussian_filter(a, (1.3, 2, 0.7), cval=9, **k),
        "gaussian_filter, order 1": lambda m, a, **k: m.gaussian_filter(a, 1.3, (0, 1, 0), cval=9, **k),
        "gaussian_laplace": lambda m, a, **k: m.gaussian_laplace(a, 1.3, cval=9, **k),
        "gaussian_gradient_magnitude": lambda m, a, **k: m.gaussian_gradient_magnitude(a, 1.3, cval=9, **k),
        "uniform_filter": lambda m, a, **k: m.uniform_filter(a, (3, 4, 5), cval=9, **k),
        "correlate1d": lambda m, a, **k: m.correlate1d(a, (1, 2, 3.5, 1), 1, cval=9, **k),
        "convolve1d": lambda m, a, **k: m.convolve1d(a, (1, 2, 3.5), 1, cval=9, **k),
        "spline_filter": lambda m, a, **k: m.spline_filter(a, **k),
    }


def compared(call: Call, array: Any, keywords: dict[str, Any]) -> tuple[float, int]:
    """The largest difference in units of the range, of integers that is no tie; and how many integers are ties."""
    found = call(gpuresample.ndimage, array, **keywords)
    expected = call(scipy.ndimage, array, **keywords)
    assert found.dtype == expected.dtype
    span = float(np.ptp(array))
    if expected.dtype.kind == "f":
        return float(np.abs(found.astype(np.float64) - expected).max()) / span, 0
    off = found != expected
    if not off.any():
        return 0.0, 0
    sums = call(scipy.ndimage, array, output=np.float64, **keywords)[off]
    tie = np.abs(sums - np.floor(sums) - 0.5) < TIE
    worst = np.abs(found[off][~tie].astype(float) - expected[off][~tie])
    return float(worst.max(initial=0.0)) / span, int(tie.sum())


def main() -> int:
    """Compare all; print a line for each function and order."""
    warnings.simplefilter("ignore", UserWarning)
    warnings.simplefilter("error", gpuresample.ndimage.LeftToSciPyWarning)
    noise = np.random.default_rng(0).random(SHAPE)
    arrays = {name: (noise * 200).astype(name) for name in BOUNDS}
    print(f"SciPy {scipy.__version__}; the worst of borders {', '.join(MODES)}\n")
    print(f"| function | order | {' | '.join(BOUNDS)} |")
    print(f"| --- | --- | {' | '.join('---:' for _ in BOUNDS)} |")
    failed = False
    rows = [(name, call, {"order": order}) for name, call in splines().items() for order in range(6)]
    rows += [(name, call, {}) for name, call in filters().items()]
    for name, call, order in rows:
        cells = []
        for dtype in BOUNDS:
            results = [compared(call, arrays[dtype], {"mode": mode, **order}) for mode in MODES]
            worst, ties = max(r[0] for r in results), sum(r[1] for r in results)
            # Whatever goes into `spline_filter`, float64 comes out.
            bound = BOUNDS["float64" if name == "spline_filter" else dtype]
            failed |= worst > bound
            exact = "0" if not ties else f"0 ({ties} ties)"
            cells.append(exact if worst == 0.0 else f"{worst:.0e}")
        print(f"| `{name}` | {order.get('order', '')} | {' | '.join(cells)} |", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
