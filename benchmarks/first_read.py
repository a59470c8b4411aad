"""Reads a file in a process of its own, as a command does: `python -m benchmarks.first_read FILE OTHER`.

OTHER is read before, so that libraries are loaded. Prints seconds as JSON: of the first read of FILE, which goes into
new memory, and of the fastest of five more, which may go into what the earlier ones have freed.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from gpuresample import files


def timed(path: Path) -> float:
    """Seconds of one read; the image is freed at the end."""
    start = time.perf_counter()
    image = files.read(path)
    spent = time.perf_counter() - start
    del image
    return spent


def main() -> int:
    """Read, print."""
    path, other = Path(sys.argv[1]), Path(sys.argv[2])
    files.read(other)
    print(json.dumps({"first": timed(path), "again": min(timed(path) for _ in range(5))}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
