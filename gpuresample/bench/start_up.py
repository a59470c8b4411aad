"""Start-up, in an interpreter that has loaded nothing of ours: `python -P start_up.py FOLDER`. Prints a line of JSON.

Run as a file and never as a module of the package, or the package would be imported before the clock runs. FOLDER is
the one that holds the package.
"""

import sys
import time


def start_up() -> dict[str, float]:
    """Seconds of `import gpuresample`, and of first and second small calls: an aligned grid, then an oblique one."""
    assert "gpuresample" not in sys.modules
    begin = time.perf_counter()
    import gpuresample as gr

    report = {"import": time.perf_counter() - begin}
    import numpy as np  # whoever has an array has loaded it

    volume = np.zeros((40, 64, 64), np.int16)
    begin = time.perf_counter()
    gr.resample(volume, spacing=(2.0, 1.25, 1.25), device="cpu")
    report["aligned first"] = time.perf_counter() - begin
    begin = time.perf_counter()
    gr.resample(volume, spacing=(2.0, 1.25, 1.25), device="cpu")
    report["aligned second"] = time.perf_counter() - begin
    grid = gr.Grid((50, 50, 20), (1.25, 1.25, 2.0), (0.0, 0.0, 0.0), (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0))
    begin = time.perf_counter()
    gr.resample(volume, like=grid, device="cpu")
    report["oblique first"] = time.perf_counter() - begin
    return report


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    seconds = start_up()
    import json

    print(json.dumps(seconds))
