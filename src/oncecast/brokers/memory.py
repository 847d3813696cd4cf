"""The broker of one process: it numbers messages and keeps nothing but the keys it has seen.

Invariant: sequence numbers go up by one, times never go down, and a publish is answered before `publish` returns.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence

from ..errors import Refusal, UsageError
from ..message import Draft, Message, Receipt, Retention, Start
from .base import KEY_SECONDS, STARTING, STOPPING, Capabilities, Done, Opening, Outcome, Read, Sink
from .operable import ChannelState, LogState

logger = logging.getLogger("oncecast.brokers.memory")

KEYS = 100_000  # idempotency keys remembered; past it the oldest is forgotten

_FAILED = Refusal("internal", "The message could not be delivered: the server's log has the cause.")


class MemoryBroker:
    """One process, nothing kept on disk: a restart is a new epoch.

    `wall` gives Unix seconds. `epoch` names this life of the log, 1 to 32 of `[A-Za-z0-9_]`; make a new one for each
    start (`new_epoch`), or cursors of an earlier life would be taken for this one's.
    """

    def __init__(self, epoch: str, wall: Callable[[], float], *, key_seconds: float = KEY_SECONDS) -> None:
        self.epoch = epoch
        self.capabilities = Capabilities("memory", history=False, key_seconds=key_seconds, shared=False)
        self._wall = wall
        self._seq = 0
        self._time = 0.0
        self._keys: OrderedDict[tuple[str, str], tuple[float, Receipt]] = OrderedDict()
        self._sink: Sink | None = None
        self._refusal: Refusal | None = STARTING  # what publishes are answered with, unless it is running

    async def start(self, sink: Sink) -> None:
        """Begin an empty log. Never suspends."""
        if self._sink is not None:
            raise UsageError("This broker was started already: make one for each node.")
        self._sink = sink
        sink.begin(Opening(self.epoch))
        self._refusal = None

    async def stop(self) -> None:
        """Refuse what is published from now on. Never suspends."""
        self._refusal = STOPPING

    def publish(self, drafts: Sequence[Draft], done: Done) -> None:
        """Append the drafts and answer at once."""
        if self._refusal is not None:
            done([self._refusal] * len(drafts))
            return
        # Milliseconds are what the wire shows; a clock that steps back must not make `since` miss a message.
        now = round(self._wall() * 1000) / 1000  # as `round(…, 3)`, which takes longer by way of decimal digits
        if now < self._time:
            now = self._time
        self._time = now
        if self._keys:
            self._forget_keys(now)
        outcomes: list[Outcome] = []
        messages = []
        for draft in drafts:
            key = None if draft.key is None else (draft.channel, draft.key)
            if key is not None and (seen := self._keys.get(key)):
                outcomes.append(seen[1])
                continue
            self._seq += 1
            messages.append(Message(self._seq, draft.channel, draft.data, draft.kind, draft.event, now, draft.trace))
            receipt = Receipt(self.epoch, self._seq, "memory")
            outcomes.append(receipt)
            if key is not None:
                self._keys[key] = (now, receipt)
        if messages and not self._deliver(messages):
            outcomes = [_FAILED] * len(drafts)
        done(outcomes)

    def read(self, channels: Sequence[str], start: Start, limit: int, max_bytes: int, done: Read) -> None:
        """Raise `UsageError`: there is no history."""
        raise UsageError("The memory broker keeps no history: read the window of the node.")

    def want(self, channels: Sequence[str]) -> None:
        """Do nothing: every channel is delivered."""

    def unwant(self, channels: Sequence[str]) -> None:
        """Do nothing."""

    # -- `operable.Operable`

    async def inspect(self) -> LogState:
        """Return the state of a log in memory. Never suspends."""
        return LogState("memory")

    async def channels(self) -> list[ChannelState]:
        """Return no channel: no message is kept. Never suspends."""
        return []

    async def trim(self, channel: str, retention: Retention) -> ChannelState:
        """Return that nothing is kept. Never suspends."""
        return ChannelState(channel)

    # -- helpers

    def _deliver(self, messages: list[Message]) -> bool:
        assert self._sink is not None
        try:
            self._sink.receive(messages)
        except Exception as error:
            logger.exception("a delivery failed")
            self._refusal = _FAILED  # the numbers are used up: what comes next would leave a hole
            self._sink.fail(f"broker: a delivery failed: {error!r}")
            return False
        return True

    def _forget_keys(self, now: float) -> None:
        while self._keys:
            oldest = next(iter(self._keys.values()))
            if len(self._keys) < KEYS and oldest[0] + self.capabilities.key_seconds > now:
                return
            self._keys.popitem(last=False)


def new_epoch(random: bytes) -> str:
    """Return an epoch's name from at least 8 random bytes: 10 characters of base 36, short in every id."""
    number = int.from_bytes(random[:8], "big")
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    name = ""
    for _ in range(10):
        number, digit = divmod(number, 36)
        name += digits[digit]
    return name
