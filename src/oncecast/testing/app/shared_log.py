"""The log of one test, in memory: every application of the test publishes to it, on whatever loop and thread it runs.

`SharedLog` has the broker, and a node of its own for the listeners of the test. `Attachment` is the broker of an
application. Invariants: a message is with the test's own listeners before its publish is answered; each attached
application gets every message once and in order, on its own loop. One lock guards everything, and code that holds it
does not wait.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from ...brokers.base import STARTING, STOPPING, Capabilities, Done, Opening, Outcome, Read, Sink
from ...brokers.memory import MemoryBroker, new_epoch
from ...core.node import ChannelPolicy, Node
from ...errors import Refusal, UsageError
from ...message import Draft, Message, Start
from ..clock import Turns
from ..driver import run_now

__all__ = ["MAX_MESSAGES", "Attachment", "MovedClock", "SharedLog"]

MAX_MESSAGES = 100_000  # of a test that are kept; past it the oldest is dropped
MAX_BYTES = 256 << 20  # as a server's window has it by default


class MovedClock:
    """The clocks of the system, and the seconds by which a test has moved both."""

    def __init__(self) -> None:
        self._moved = 0.0

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._moved += seconds

    def monotonic(self) -> float:
        """Return the monotonic clock's seconds."""
        return time.monotonic() + self._moved

    def wall(self) -> float:
        """Return the wall clock's Unix seconds."""
        return time.time() + self._moved


class _Broker(MemoryBroker):
    """Calls `heard` with each message, after the test's own node."""

    heard: Callable[[Sequence[Message]], None]

    def _deliver(self, messages: list[Message]) -> bool:
        delivered = super()._deliver(messages)
        if delivered:
            self.heard(messages)
        return delivered


class SharedLog:
    """The log. `policy` may be set before the first message; `messages` has all that were published."""

    def __init__(self, clock: MovedClock, policy: Callable[[str], ChannelPolicy] | None = None) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.policy = policy or (lambda channel: ChannelPolicy())
        self.messages: deque[Message] = deque(maxlen=MAX_MESSAGES)
        self.attached: list[Attachment] = []
        self._turns = Turns()
        self.broker = _Broker(new_epoch(os.urandom(8)), clock.wall)
        self.broker.heard = self._heard
        self.node = Node(
            self.broker,
            policy=lambda channel: self.policy(channel),
            max_bytes=MAX_BYTES,
            monotonic=clock.monotonic,
            schedule=self._turns.schedule,
        )
        run_now(self.node.start())

    @property
    def epoch(self) -> str:
        """The name of the log."""
        return self.broker.epoch

    def publish(self, drafts: Sequence[Draft]) -> Sequence[Outcome]:
        """Append drafts, deliver them, and return an outcome for each. From any thread."""
        outcomes: list[Outcome] = []
        with self.lock:
            self.broker.publish(drafts, outcomes.extend)
            self.deliver()
        return outcomes

    def deliver(self) -> None:
        """Deliver all messages to the test's own listeners."""
        with self.lock:
            self._turns.run_all()

    def tick(self) -> None:
        """Trim what is too old by now."""
        with self.lock:
            self.node.tick()
            self.deliver()

    def opening(self) -> Opening:
        """Return where the log stands, for an application that starts now."""
        log = self.node.log
        channels = {message.channel for message in self.messages}
        held = [entry.message for channel in channels for entry in log.read_after((channel,), 0, MAX_MESSAGES)]
        marks = {channel: mark for channel in channels if (mark := log.mark(channel)).seq}
        recent = tuple(sorted(held, key=lambda message: message.seq))
        return Opening(self.epoch, log.head, recent=recent, marks=marks)

    def _heard(self, messages: Sequence[Message]) -> None:
        self.messages.extend(messages)
        for attachment in self.attached:
            attachment.hand(messages)


class Attachment:
    """The broker of one application, on the loop that starts it."""

    def __init__(self, log: SharedLog) -> None:
        self.capabilities = Capabilities("memory", history=False, shared=True)
        self._log = log
        self._sink: Sink | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._inbox: deque[Message] = deque()
        self._refusal: Refusal | None = STARTING

    async def start(self, sink: Sink) -> None:
        """Attach to the log. Never suspends."""
        if self._sink is not None:
            raise UsageError("This broker was started already: make one for each node.")
        self._sink = sink
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        with self._log.lock:
            sink.begin(self._log.opening())
            self._log.attached.append(self)
        self._refusal = None

    async def stop(self) -> None:
        """Leave the log. Never suspends."""
        self.detach()

    def detach(self) -> None:
        """Leave the log, from any thread."""
        self._refusal = STOPPING
        with self._log.lock:
            if self in self._log.attached:
                self._log.attached.remove(self)

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts and answer at once."""
        if self._refusal is not None:
            done([self._refusal] * len(drafts))
            return
        outcomes = self._log.publish(drafts)
        self._take()
        done(outcomes)

    def hand(self, messages: Sequence[Message]) -> None:
        """Deliver messages in the next turn of the application's loop; its own `publish` delivers at once."""
        self._inbox.extend(messages)
        assert self._loop is not None
        if self._loop.is_closed():  # its application's loop has ended without a stop, as in a test
            self._inbox.clear()
        elif threading.get_ident() != self._thread:
            self._loop.call_soon_threadsafe(self._take)
        else:  # a coroutine of the test publishes like another process
            self._loop.call_soon(self._take)

    def _take(self) -> None:
        with self._log.lock:
            messages = list(self._inbox)
            self._inbox.clear()
        if messages and self._sink is not None and self._refusal is None:
            self._sink.receive(messages)

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Raise `UsageError`: there is no history."""
        raise UsageError("The log of a test keeps no history: read the window of the node.")

    def want(self, channels: Sequence[str]) -> None:
        """Do nothing: every channel is delivered."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Do nothing."""
