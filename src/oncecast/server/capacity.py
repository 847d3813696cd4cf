"""How many connections a process may hold.

A connection is a file descriptor, and a process may open a limited number of these (RLIMIT_NOFILE in getrlimit(2),
`ulimit -n`). The broker, its files, TLS certificates and logs need descriptors too.

Invariant: the connections, what the server has open itself and `SPARE_FILES` together stay within the limit of open
files. Where that leaves fewer than `LEAST` connections, the server does not start.
"""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass

from ..errors import ConfigurationError

__all__ = ["LEAST", "RESERVE", "SPARE_FILES", "Capacity", "own_files", "plan"]

SPARE_FILES = 24  # for what is opened while serving: a file of the broker, a certificate, refused connections
RESERVE = 32  # connections past the ceiling, for publishes and probes: each makes one request and is closed
LEAST = 8  # connections: with fewer a server is of no use


@dataclass(frozen=True, slots=True)
class Capacity:
    """`ceiling` connections may do anything. `reserve` more may each make one request: see `admission.py`."""

    ceiling: int
    reserve: int

    @property
    def total(self) -> int:
        """Return how many connections may be open."""
        return self.ceiling + self.reserve


def plan(wanted: int, own: int, open_files: int | None = None) -> Capacity:
    """Return the capacity of a process that has `own` files open itself.

    `wanted` is `limits.connections`; 0 stands for as many as the limit of open files allows. `open_files` is that
    limit, this process's own if it is None. Raises `ConfigurationError` where it is too low to serve.
    """
    if open_files is None:
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if open_files == resource.RLIM_INFINITY:
            open_files = 1 << 30
    needed = own + SPARE_FILES
    room = open_files - needed
    if room < LEAST:
        raise ConfigurationError(
            f"the limit of open files is {open_files}, and the server needs {needed} for itself, so too few are left "
            f"for connections: raise the limit (ulimit -n) to {needed + LEAST} or more"
        )
    reserve = min(RESERVE, room // 4)
    return Capacity(min(wanted or room, room - reserve), reserve)


def own_files(connections: int = 0) -> int:
    """Return how many files this process has open, without its `connections`."""
    try:
        return max(0, len(os.listdir("/proc/self/fd")) - 1 - connections)  # one is the listing's own
    except OSError:  # no /proc: a server with a broker in a file has about 30
        return 48
