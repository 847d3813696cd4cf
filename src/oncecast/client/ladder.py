"""Which transport to use: down at once when one does not work here, up when a probe has shown that a better one does.

Owns the choice of one client, for all of its connections, and no connection. Invariant: `current` is always one of the
names, and every move is reported to `on_move`. `TransportMemory` keeps the choice for the next client of the server.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["Ladder", "Moved", "TransportMemory"]

EARLY = 2  # breaks before anything came, one after another, until the next transport is tried
CUTS = 3  # connections cut early, one after another: one may be a restart, two a bad moment, three are a rule
MEMORY_SERVERS = 256  # remembered; the one that was written the longest ago is dropped first
MEMORY_SECONDS = 600.0  # after that a laptop may be in another network


@dataclass(frozen=True, slots=True)
class Moved:
    """The client listens over another transport from now on. `reason` begins with the name that it is about."""

    before: str
    after: str
    reason: str


class TransportMemory:
    """Which transport worked last for each server, for all the clients that are given the same memory.

    `clock` is monotonic, in seconds. What is older than `seconds` is forgotten.
    """

    def __init__(self, clock: Callable[[], float], *, seconds: float = MEMORY_SECONDS) -> None:
        self._clock = clock
        self._seconds = seconds
        self._found: OrderedDict[str, tuple[float, str]] = OrderedDict()

    def get(self, server: str) -> str | None:
        """Return the transport that was used last, if it was lately."""
        at, name = self._found.get(server, (0.0, None))
        return name if name is not None and self._clock() - at < self._seconds else None

    def put(self, server: str, name: str) -> None:
        """Remember what works."""
        self._found[server] = (self._clock(), name)
        self._found.move_to_end(server)
        if len(self._found) > MEMORY_SERVERS:
            self._found.popitem(last=False)


class Ladder:
    """The transports, best first, and the one to use."""

    def __init__(
        self, names: Sequence[str], *, proof: float, on_move: Callable[[Moved], None], start: str | None = None
    ) -> None:
        self._names = tuple(names)
        self._proof = proof
        self._on_move = on_move
        self._at = self._names.index(start) if start in self._names else 0
        self._early = 0
        self._cuts = 0

    @property
    def current(self) -> str:
        """The transport to use."""
        return self._names[self._at]

    @property
    def better(self) -> tuple[str, ...]:
        """The transports above, best first: those to probe."""
        return self._names[: self._at]

    @property
    def is_last(self) -> bool:
        """Whether there is nothing below."""
        return self._at + 1 == len(self._names)

    def unsuited(self, name: str, reason: str) -> bool:
        """Note that a transport does not work here; say whether there is another to turn to."""
        if name == self.current and self.is_last:
            return False
        if name == self.current:
            self._move(self._at + 1, f"{name} does not work here: {reason}")
        return True

    def broke(self, name: str, lived: float | None, reason: str) -> None:
        """Note that a connection broke `lived` seconds after it had attached; None: it never had."""
        if name != self.current:
            return
        if lived is None:
            self._early += 1
        elif lived < self._proof:
            self._early, self._cuts = 0, self._cuts + 1
        else:
            self._early = self._cuts = 0
        if not self.is_last and (self._early >= EARLY or self._cuts >= CUTS):
            self._move(self._at + 1, f"{name} is cut again and again: {reason}")

    def works(self, name: str) -> None:
        """Note that a probe got through: use this transport if it is a better one."""
        at = self._names.index(name)
        if at < self._at:
            self._move(at, f"{name} gets through again")

    def _move(self, at: int, reason: str) -> None:
        before, self._at = self.current, at
        self._early = self._cuts = 0
        self._on_move(Moved(before, self.current, reason))
