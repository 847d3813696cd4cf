"""When the credentials of the streams and sockets end: a warning before, and the end.

Only connections whose identity has an end are here. Invariant: a connection stands in exactly one slot, the quarter of
a second in which something is to be done about it, until it is forgotten. Time is passed in, in Unix seconds of the
wall clock, as tokens say theirs.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from math import ceil
from typing import Generic, TypeVar

from ..errors import Refusal
from ..policy.identity import Identity

__all__ = ["AT_ONCE", "DISCONNECTED", "ENDED", "WARNING_SECONDS", "Expiries", "warn_at"]

WARNING_SECONDS = 30.0  # before the end: time to get another token from a slow service
PER_SECOND = 4  # how exact an end is
FEW_SLOTS = 64  # that may be left over before the heap is rebuilt
AT_ONCE = 500  # connections that are ended in one tick: a few milliseconds of the loop

ENDED = Refusal("unauthorized", "The token has ended: get a fresh one, connect again, and resume from your cursor.")

DISCONNECTED = Refusal("unauthorized", "This user was disconnected: connect again with a fresh token, if one is given.")

Connected = TypeVar("Connected")


def warn_at(identity: Identity) -> float:
    """Return when to warn of the end of credentials that have one: 30 seconds before, or in their last quarter."""
    assert identity.expires is not None
    life = identity.expires - (identity.issued or 0.0)
    return identity.expires - min(WARNING_SECONDS, life / 4)


class Expiries(Generic[Connected]):
    """Connections by the quarter of a second in which they are due."""

    def __init__(self) -> None:
        self._slot_of: dict[Connected, int] = {}
        self._due_in: dict[int, set[Connected]] = {}
        self._slots: list[int] = []  # a heap of the keys of `_due_in`, and of some that have gone from there

    def __len__(self) -> int:
        return len(self._slot_of)

    def watch(self, connection: Connected, when: float) -> None:
        """Let `due` return a connection at this time, or a quarter of a second later; this replaces an earlier one."""
        self.forget(connection)
        slot = ceil(when * PER_SECOND)
        self._slot_of[connection] = slot
        if slot not in self._due_in:
            self._due_in[slot] = set()
            heapq.heappush(self._slots, slot)
        self._due_in[slot].add(connection)

    def forget(self, connection: Connected) -> None:
        """Take a connection out, if it is in."""
        slot = self._slot_of.pop(connection, None)
        if slot is None:
            return
        connections = self._due_in[slot]
        connections.discard(connection)
        if not connections:  # else each quarter of a second that a token ever ended in would be kept until then
            del self._due_in[slot]
            if len(self._slots) > 2 * len(self._due_in) + FEW_SLOTS:
                self._slots = list(self._due_in)
                heapq.heapify(self._slots)

    def due(self, now: float) -> Iterator[Connected]:
        """Yield, and forget, the connections that are due: `AT_ONCE` at most, the others at the next call."""
        left = AT_ONCE
        while self._slots and self._slots[0] <= now * PER_SECOND:
            slot = self._slots[0]
            while connections := self._due_in.get(slot):
                if not left:
                    return
                left -= 1
                connection = next(iter(connections))
                self.forget(connection)
                yield connection
            if self._slots and self._slots[0] == slot:  # `forget` may have rebuilt the heap
                heapq.heappop(self._slots)
