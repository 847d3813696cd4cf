"""A transport on its own: a node on a fake clock, and a link that is a list of bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from oncecast.brokers.base import Outcome
from oncecast.brokers.memory import MemoryBroker
from oncecast.core.node import ChannelPolicy, Node
from oncecast.core.subscription import Lag
from oncecast.message import Draft, Kind, Receipt, Retention
from oncecast.policy.identity import ANYBODY
from oncecast.protocol.base import Listener, Settings
from oncecast.testing.clock import FakeClock, Turns
from oncecast.testing.driver import run_now


class FakeLink:
    """A connection that takes everything, and is full or gone when the test says so."""

    descriptor = None
    identity = ANYBODY

    def __init__(self, clock: FakeClock) -> None:
        self.sent: list[bytes] = []
        self.wake: float | None = None
        self.state = "open"
        self.listener: Listener | None = None
        self.fills = False  # the next write fills the socket
        self.write: Callable[[bytes], None] = self._write
        self._clock = clock

    def _write(self, data: bytes) -> None:
        assert self.state == "open", "a write after the end"
        self.sent.append(data)
        if self.fills and self.listener is not None:
            self.fills = False
            self.listener.blocked()

    def now(self) -> float:
        return self._clock.monotonic()

    def wake_at(self, when: float) -> None:
        self.wake = when

    def end(self) -> None:
        self.state = "ended"

    def abort(self) -> None:
        self.state = "aborted"

    def take(self) -> bytes:
        """Return what has been sent since the last time."""
        data = b"".join(self.sent)
        self.sent.clear()
        return data


class Rig:
    """A node, a clock and the ends of the loop's turns; `settings` may be replaced before a transport is made."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.turns = Turns()
        self.settings = Settings()
        self.retention = Retention()
        self.lag = Lag.RESUME
        self.broker = MemoryBroker("e", self.clock.wall)
        self.node = Node(
            self.broker,
            policy=lambda channel: ChannelPolicy(self.retention, self.lag),
            max_bytes=1 << 30,
            monotonic=self.clock.monotonic,
            schedule=self.turns.schedule,
        )
        run_now(self.node.start())

    def link(self) -> FakeLink:
        """Return a new connection."""
        return FakeLink(self.clock)

    def publish(self, *data: str | Draft, channel: str = "c") -> list[Outcome]:
        """Publish in one batch; a string is JSON."""
        answers: list[Outcome] = []

        def done(outcomes: Sequence[Outcome]) -> None:
            answers.extend(outcomes)

        drafts = [d if isinstance(d, Draft) else Draft(channel, d.encode(), Kind.JSON) for d in data]
        self.node.publish(drafts, done)
        assert len(drafts) == sum(isinstance(answer, Receipt) for answer in answers)
        return answers

    def settle(self) -> None:
        """Let the loop turn until nothing is left to do."""
        self.turns.run_all()

    def pass_time(self, link: FakeLink, listener: Listener, seconds: float) -> None:
        """Let time pass; wake the listener where it asked for it."""
        self.clock.advance(seconds)
        if link.wake is not None and link.wake <= self.clock.monotonic():
            link.wake = None
            listener.woken(self.clock.monotonic())


@pytest.fixture
def rig() -> Rig:
    """A node with nothing in its log."""
    return Rig()
