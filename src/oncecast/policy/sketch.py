"""Rates and counts of any number of keys, in fixed memory that several processes may share.

A key, such as an address or a user, has a place: `ROWS` slots, found by a keyed hash. Other keys may have some of these
slots too. The slot with the lowest value counts for a key, so other keys affect it only if they have all of its slots.
Nothing is evicted: a client with ever new keys gets no fresh bucket, and memory does not grow. If more keys are active
than there are slots, keys share their limits: these become stricter, never looser.

The hash has a secret, so a client can't find keys that share slots with those of others.

Invariant: each slot is one aligned word that is written whole. `Rates` is written by all processes: where two write a
slot at the same moment one of both is lost, which is an error of one event. `Counts` has a region for each process,
which it alone writes, so nothing is lost, and what a process that dies has counted is cleared with its region.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

__all__ = ["COUNT_SLOTS", "RATE_SLOTS", "REGION_WORDS", "ROWS", "Counts", "Hasher", "Rates", "SlotsOfKey"]

ROWS = 4
RATE_SLOTS = 1 << 16  # in each row: 2 MiB of seconds, as doubles
COUNT_SLOTS = 1 << 14  # in each row: 256 KiB for each process, as 32 bits
REGION_WORDS = 1 + ROWS * COUNT_SLOTS  # of a process in `Counts`; the first is the number of all
SECRET_BYTES = 16
PLACES = 4096  # keys whose place is remembered: to hash one takes a microsecond

SlotsOfKey = tuple[int, int, int, int]


class Hasher:
    """The places of keys. `secret` has `SECRET_BYTES` that nobody else knows, the same for all processes."""

    __slots__ = ("_known", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._known: dict[str, SlotsOfKey] = {}

    def place(self, key: str) -> SlotsOfKey:
        """Return the place of a key. A key begins with its kind, such as `user:`, so that kinds do not meet."""
        place = self._known.get(key)
        if place is None:
            if len(self._known) >= PLACES:
                self._known.clear()
            digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=self._secret, digest_size=16).digest()
            place = self._known[key] = (
                int.from_bytes(digest[:4]),
                int.from_bytes(digest[4:8]),
                int.from_bytes(digest[8:12]),
                int.from_bytes(digest[12:]),
            )
        return place


class Rates:
    """Token buckets. `memory` has `ROWS * RATE_SLOTS` doubles, which begin as 0: for each slot when it is full again.

    A bucket is kept as that time (the generic cell rate algorithm), so limits of different rates can share a slot. As
    with `Bucket`, while any credit is left a whole batch may be spent, and then nothing until the debt is paid off.
    """

    __slots__ = ("_memory",)

    def __init__(self, memory: memoryview[float]) -> None:
        self._memory = memory

    def spend(self, place: SlotsOfKey, seconds: float, burst: float, now: float) -> float:
        """Spend what the rate gives in `seconds`, of what it gives in `burst` seconds at most.

        Returns 0 where that is allowed, else the seconds after which it will be.
        """
        memory = self._memory
        a, b, c, d = _slots(place, RATE_SLOTS)
        full = min(memory[a], memory[b], memory[c], memory[d])
        if full - now >= burst:
            return full - now - burst + min(seconds, burst)
        full = max(full, now) + seconds
        for slot in (a, b, c, d):
            if memory[slot] < full:
                memory[slot] = full
        return 0.0


class Counts:
    """How many there are of each key, in all processes. `own` is the region of this process, one of `regions`.

    A region has `REGION_WORDS` words of 32 bits, which begin as 0.
    """

    __slots__ = ("_own", "_regions")

    def __init__(self, own: memoryview, regions: Sequence[memoryview]) -> None:
        self._own = own
        self._regions = tuple(regions)

    def add(self, place: SlotsOfKey, number: int) -> None:
        """Count some in, or out with a number below 0. A region that was cleared meanwhile stays at 0."""
        own = self._own
        for slot in _slots(place, COUNT_SLOTS):
            own[1 + slot] = max(0, own[1 + slot] + number)

    def set_all(self, number: int) -> None:
        """Say how many of all keys and of none this process has."""
        self._own[0] = number

    def count(self, place: SlotsOfKey) -> int:
        """Return how many there are of a key, and never fewer."""
        a, b, c, d = _slots(place, COUNT_SLOTS)
        one = two = three = four = 0
        for region in self._regions:
            one += region[1 + a]
            two += region[1 + b]
            three += region[1 + c]
            four += region[1 + d]
        return min(one, two, three, four)

    @property
    def all(self) -> int:
        """Return how many all processes have, as each has said in `set_all`."""
        return sum(region[0] for region in self._regions)


def _slots(place: SlotsOfKey, slots: int) -> SlotsOfKey:
    """Return the words of a place in a memory with this many slots in a row; a power of two."""
    mask = slots - 1
    a, b, c, d = place
    return a & mask, slots + (b & mask), 2 * slots + (c & mask), 3 * slots + (d & mask)
