"""The memory in which the processes of a server count what all of them together may do.

It is a file without a name (memfd_create(2)) that the supervisor makes, and its workers inherit: a secret, the rates,
and a region of counts for each process. The supervisor gives each process a region, and clears it when the process has
ended, however it did. So what a killed worker has counted is gone with it. A process for which no region is left, as
many old ones drain, counts for itself alone. One process alone has such memory of its own.

Invariant: a region has one process that writes it at a time; the supervisor writes only those of none.
"""

from __future__ import annotations

import mmap
import os

from ..policy.sketch import RATE_SLOTS, REGION_WORDS, ROWS, SECRET_BYTES, Counts, Hasher, Rates

__all__ = ["QuotaMemory"]

HEAD_BYTES = 64  # the secret, and what aligns the rates
RATE_BYTES = 8 * ROWS * RATE_SLOTS
REGION_BYTES = 4 * REGION_WORDS


class QuotaMemory:
    """The memory behind a descriptor, which is this object's own from now on."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map = mmap.mmap(descriptor, 0)
        self._view = memoryview(self._map)
        found = (len(self._view) - HEAD_BYTES - RATE_BYTES) // REGION_BYTES
        self._free = list(range(found - 1, -1, -1))
        self._regions = [self._region(number) for number in range(found)]

    @classmethod
    def create(cls, processes: int) -> QuotaMemory:
        """Return new memory with room for that number of processes at a time. Raises `OSError`."""
        descriptor = os.memfd_create("oncecast-quotas")
        os.ftruncate(descriptor, HEAD_BYTES + RATE_BYTES + processes * REGION_BYTES)
        memory = cls(descriptor)
        memory._view[:SECRET_BYTES] = os.urandom(SECRET_BYTES)
        return memory

    def hasher(self) -> Hasher:
        """Return what finds the places of keys."""
        return Hasher(bytes(self._view[:SECRET_BYTES]))

    def rates(self) -> Rates:
        """Return the rates of all processes."""
        return Rates(self._view[HEAD_BYTES : HEAD_BYTES + RATE_BYTES].cast("d"))

    def counts(self, region: int) -> Counts:
        """Return the counts of all processes, as one sees them that counts in this region."""
        return Counts(self._regions[region], self._regions)

    def take(self) -> int | None:
        """Return a region for a process that is to start, or None where none is left."""
        return self._free.pop() if self._free else None

    def free(self, region: int | None) -> None:
        """Clear the region of a process that has ended, for another."""
        if region is not None:
            begin = HEAD_BYTES + RATE_BYTES + region * REGION_BYTES
            self._view[begin : begin + REGION_BYTES] = bytes(REGION_BYTES)
            self._free.append(region)

    def _region(self, number: int) -> memoryview:
        begin = HEAD_BYTES + RATE_BYTES + number * REGION_BYTES
        return self._view[begin : begin + REGION_BYTES].cast("I")
