"""Which processes share a log: each of them says so where one of them asks, by the bulletin.

So whoever looks at one node's overview sees the others too. Nothing is written while nobody looks. A look asks again
after `CALL_SECONDS`, and not where another process has just asked. A process that has not answered for
`PRESENT_SECONDS` is not shown any more.

Invariant: what is kept has a bound, and so has how often this process answers, whoever asks. Time is passed in: seconds
that only grow, as the clocks of two nodes may differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

__all__ = ["CALL_SECONDS", "MOST", "PRESENT_SECONDS", "PresentProcess", "Roll"]

CALL_SECONDS = 5.0
ANSWER_SECONDS = 1.0  # between two answers
PRESENT_SECONDS = 12.0  # two calls may be missed
MOST = 1000  # processes; past it the one that was heard of first is forgotten


class PresentProcess(msgspec.Struct, frozen=True, omit_defaults=True):
    """One process, as it says of itself."""

    node: Annotated[str, msgspec.Meta(min_length=1, max_length=300)]
    """The host, and the port that all processes of the node serve; of an application, its process group."""
    machine: Annotated[str, msgspec.Meta(max_length=64)]
    """Tells machines and containers apart that have the same host name."""
    pid: Annotated[int, msgspec.Meta(ge=0)]
    version: Annotated[str, msgspec.Meta(max_length=64)]
    connections: Annotated[int, msgspec.Meta(ge=0)] = 0
    head: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Number of the newest message that it has."""
    unready: Annotated[str, msgspec.Meta(max_length=1000)] | None = None


@dataclass(slots=True)
class Roll:
    """One process's end. `ask` writes a call for all to hear, and `say` writes what this process says of itself.

    `me` makes that; without it this process does not answer.
    """

    monotonic: Callable[[], float]
    ask: Callable[[], None]
    say: Callable[[PresentProcess], None]
    me: Callable[[], PresentProcess] | None = None
    _called: float = -CALL_SECONDS
    _said: float = -ANSWER_SECONDS
    _present: dict[tuple[str, str, int], tuple[PresentProcess, float]] = field(default_factory=dict)

    def look(self) -> list[PresentProcess]:
        """Return who has answered of late, and ask if that was a while ago. The answers come later."""
        now = self.monotonic()
        if now - self._called >= CALL_SECONDS:
            self._called = now
            self.ask()
        for key in [key for key, (_, heard) in self._present.items() if now - heard >= PRESENT_SECONDS]:
            del self._present[key]
        return [presence for presence, _ in self._present.values()]

    def called(self) -> None:
        """Answer a call, of this process or of another one."""
        now = self._called = self.monotonic()
        if self.me is not None and now - self._said >= ANSWER_SECONDS:
            self._said = now
            self.say(self.me())

    def heard(self, presence: PresentProcess) -> None:
        """Keep an answer."""
        key = presence.node, presence.machine, presence.pid
        self._present.pop(key, None)  # taken out, so that the oldest stand at the front
        if len(self._present) >= MOST:
            del self._present[next(iter(self._present))]
        self._present[key] = presence, self.monotonic()
