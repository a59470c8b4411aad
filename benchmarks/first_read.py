"""One of `cost.JOBS` in a process of its own, as a command does it: `python -m benchmarks.first_read JOB FILE OTHER`.

OTHER, of few voxels, goes all the way before, so that libraries and kernels are loaded. Prints seconds as JSON:
`first`, of the first read of FILE, which goes into new memory; `whole`, of that, resampling and writing; `again`, of
the fastest of five more reads, which may go into what the earlier ones have freed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from benchmarks.cost import JOBS
from gpuresample.files import volumes as files


def timed(path: Path) -> float:
    """Seconds of one read; the image is freed at the end."""
    start = time.perf_counter()
    image = files.read(path)
    spent = time.perf_counter() - start
    del image
    return spent


def main() -> int:
    """Read, print."""
    job, path, other = JOBS[sys.argv[1]], Path(sys.argv[2]), Path(sys.argv[3])
    out = path.with_name(f"result{job.ending}")
    image = files.read(other)
    files.write(job.plan(image).run(image), out, overwrite=True)
    start = time.perf_counter()
    image = files.read(path)
    read = time.perf_counter()
    files.write(job.plan(image).run(image), out, overwrite=True)
    done = time.perf_counter()
    del image
    again = min(timed(path) for _ in range(5))
    print(json.dumps({"first": read - start, "whole": done - start, "again": again}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
