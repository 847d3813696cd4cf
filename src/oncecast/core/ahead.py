"""The waits for a number that another node has delivered, and this node's log has not reached.

Invariant: each wait ends: the log reaches its number, its owner removes it, or it is refused after `WAIT_SECONDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import Refusal
from .answers import answer

WAIT_SECONDS = 10.0  # a node is behind the others for milliseconds; one that is for longer has lost its broker
WAITS = 10_000  # a bound, as polls whose clients are gone wait too

LATE = Refusal("unavailable", "This server has not read up to your cursor in time: connect again.", retry_after=1)


@dataclass(slots=True)
class _Wait:
    seq: int
    go_on: Callable[[], None]
    refuse: Callable[[Refusal], None]
    since: float | None = None  # the first time it was looked at by `expire`


class Ahead:
    """The waits, by owner. An owner has one at most."""

    def __init__(self) -> None:
        self._waits: dict[object, _Wait] = {}
        self._least = 0  # no wait has a lower number, so that most turns look at none

    def __len__(self) -> int:
        return len(self._waits)

    def owners(self) -> list[object]:
        """Return what waits."""
        return list(self._waits)

    def add(self, owner: object, seq: int, go_on: Callable[[], None], refuse: Callable[[Refusal], None]) -> None:
        """Call `go_on` once the log has come to `seq`, or `refuse` once that has taken too long."""
        if len(self._waits) >= WAITS:
            refuse(LATE)
            return
        self._least = min(self._least, seq) if self._waits else seq
        self._waits[owner] = _Wait(seq, go_on, refuse)

    def remove(self, owner: object) -> None:
        """End the wait of an owner, if it has one."""
        self._waits.pop(owner, None)

    def reach(self, head: int) -> None:
        """Let those go on whose number the log has come to."""
        if not self._waits or head < self._least:
            return
        reached = [(owner, wait) for owner, wait in self._waits.items() if wait.seq <= head]
        for owner, _ in reached:
            del self._waits[owner]
        self._least = min((wait.seq for wait in self._waits.values()), default=0)
        for _, wait in reached:
            answer(wait.go_on)

    def expire(self, now: float) -> None:
        """Refuse those that have waited for `WAIT_SECONDS`, by a monotonic clock."""
        late = []
        for owner, wait in self._waits.items():
            if wait.since is None:
                wait.since = now
            elif now - wait.since >= WAIT_SECONDS:
                late.append((owner, wait))
        for owner, _ in late:
            del self._waits[owner]
        for _, wait in late:
            answer(wait.refuse, LATE)
