"""How many cores this process may use, which is what `workers = "auto"` means.

Invariant: at least 1, at most as many workers as may be set, and no more than the scheduler lets run at once: neither
the cores that this process is bound to nor a container's share of them is exceeded.
"""

from __future__ import annotations

import os
from math import ceil
from pathlib import Path

__all__ = ["usable_cores", "worker_count"]

MOST_WORKERS = 256
CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container, whose own group is at the root of what it sees


def worker_count(workers: int | str) -> int:
    """Return how many workers a setting of `workers` means."""
    return min(usable_cores(), MOST_WORKERS) if isinstance(workers, str) else workers


def usable_cores(quota: Path = CGROUP_QUOTA) -> int:
    """Return how many cores this process may use, rounded up where a container has a part of one."""
    cores = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text("ascii").split()
        return max(1, min(cores, ceil(int(allowed) / int(period))))
    except (OSError, ValueError):  # no such group, or "max"
        return cores
