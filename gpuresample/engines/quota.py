"""The share of the processors that a container may use (Linux cgroups, versions 1 and 2)."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path, PurePosixPath

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


@lru_cache(maxsize=1)
def cpu_quota(root: Path = ROOT, own: Path = OWN) -> float:
    """Processors that this process's groups grant it together; infinity where nothing is bounded.

    The smallest quota of the process's group and of all above it. Read once.
    """
    try:
        lines = own.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return math.inf
    quotas = [math.inf]
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [root / controllers, root / "cpu"] if controllers else [root, root / "unified"]
        # In a container without a name space of its own the path is the host's: only the mount itself is there.
        inner = PurePosixPath(path.lstrip("/"))
        groups = [inner, *inner.parents]
        quotas += [_quota(mount / group) for mount in mounts for group in groups]
    return min(quotas)


def _quota(group: Path) -> float:
    """Processors that one group grants; infinity where it says nothing."""
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except (OSError, ValueError):
            return math.inf
    try:
        share = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return math.inf
    return share if share > 0 else math.inf
